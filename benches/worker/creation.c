/* What creating and freeing plug-ins costs. A plug-in counts as created after its first call: one
 * library instantiates it before that, the other during it. */
#include "worker.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Bytes wasm, input;
static ExtismCompiledPlugin *compiled;

static void set_up_bytes(void) {
  wasm = source();
  input = input_bytes();
}

/* From bytes to the first result, and nothing before that in this process. */
static double measure_first(uint64_t iterations) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < iterations; i++) {
    uint64_t begin = now();
    ExtismPlugin *plugin = new_plugin(wasm);
    call(plugin, input);
    total += now() - begin;
    lib.plugin_free(plugin);
  }
  return (double)total;
}

/* The same, of a module that this process has seen before. */
static void set_up_again(void) {
  set_up_bytes();
  measure_first(1);
}

/* Puts a custom section, which no other has had, behind the module. */
static Bytes distinct(void) {
  static uint64_t serial;
  uint64_t label[2] = {now() ^ (uint64_t)getpid() << 40, serial++};
  uint8_t head[4] = {0, 2 + sizeof label, 1, 'n'};
  Bytes copy = {allocate(wasm.size + sizeof head + sizeof label), wasm.size + sizeof head + sizeof label};
  memcpy(copy.data, wasm.data, wasm.size);
  memcpy(copy.data + wasm.size, head, sizeof head);
  memcpy(copy.data + wasm.size + sizeof head, label, sizeof label);
  return copy;
}

static void set_up_never(void) {
  set_up_bytes();
  if (wasm.size < 4 || memcmp(wasm.data, "\0asm", 4) != 0) fail("the metric needs a binary module");
}

/* From bytes that were never seen to the first result. */
static double measure_never(uint64_t iterations) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < iterations; i++) {
    Bytes bytes = distinct();
    uint64_t begin = now();
    ExtismPlugin *plugin = new_plugin(bytes);
    call(plugin, input);
    total += now() - begin;
    lib.plugin_free(plugin);
    free(bytes.data);
  }
  return (double)total;
}

/* Compiling alone. */
static double measure_compile(uint64_t iterations) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < iterations; i++) {
    Bytes bytes = distinct();
    uint64_t begin = now();
    ExtismCompiledPlugin *made = new_compiled(bytes);
    total += now() - begin;
    lib.compiled_plugin_free(made);
    free(bytes.data);
  }
  return (double)total;
}

static void set_up_compiled(void) {
  set_up_bytes();
  compiled = new_compiled(wasm);
  ExtismPlugin *plugin = new_from_compiled(compiled);
  call(plugin, input);
  lib.plugin_free(plugin);
  /* That many others live meanwhile. */
  for (uint64_t i = 1; i < options.count; i++) call(new_from_compiled(compiled), input);
}

/* A plug-in of a compiled one, and its first call. */
static double measure_new(uint64_t iterations) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < iterations; i++) {
    uint64_t begin = now();
    ExtismPlugin *plugin = new_from_compiled(compiled);
    call(plugin, input);
    total += now() - begin;
    lib.plugin_free(plugin);
  }
  return (double)total;
}

/* Freeing such a plug-in. */
static double measure_free(uint64_t iterations) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < iterations; i++) {
    ExtismPlugin *plugin = new_from_compiled(compiled);
    call(plugin, input);
    uint64_t begin = now();
    lib.plugin_free(plugin);
    total += now() - begin;
  }
  return (double)total;
}

const Metric creation_metrics[] = {
    {"first", set_up_bytes, measure_first},
    {"again", set_up_again, measure_first},
    {"never", set_up_never, measure_never},
    {"compile", set_up_never, measure_compile},
    {"new", set_up_compiled, measure_new},
    {"free", set_up_compiled, measure_free},
    {0},
};
