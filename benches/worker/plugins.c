/* Plug-ins, their manifests and their host functions. */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Atomic uint64_t last_tick, tick_before;

static void tick(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                 ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)plugin, (void)inputs, (void)n_inputs, (void)outputs, (void)n_outputs, (void)data;
  tick_before = last_tick;
  last_tick = now();
}

static void add_one(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                    ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)plugin, (void)n_inputs, (void)n_outputs, (void)data;
  outputs[0].v.i64 = inputs[0].v.i64 + 1;
}

static void use_block(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                      ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)n_inputs, (void)n_outputs, (void)data;
  ExtismMemoryHandle block = lib.current_plugin_memory_alloc(plugin, (ExtismSize)inputs[0].v.i64);
  outputs[0].v.i64 = (int64_t)lib.current_plugin_memory_length(plugin, block);
  lib.current_plugin_memory(plugin)[block] = 1;
  lib.current_plugin_memory_free(plugin, block);
}

/* Some plug-in imports it; what it says does not matter here. */
static void shout(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                  ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)plugin, (void)n_inputs, (void)n_outputs, (void)data;
  outputs[0].v.i64 = inputs[0].v.i64;
}

enum { N_FUNCTIONS = 4 };

/* New ones each time: 1.41 takes a function for one plug-in only. They are never freed: some are
 * spent by then, and a handful of bytes for each plug-in disturbs no measurement. */
typedef struct {
  const ExtismFunction *list[N_FUNCTIONS];
} HostFunctions;

static HostFunctions host_functions(void) {
  ExtismValType i64 = ExtismValType_I64;
  return (HostFunctions){{
      lib.function_new("tick", NULL, 0, NULL, 0, tick, NULL, NULL),
      lib.function_new("add_one", &i64, 1, &i64, 1, add_one, NULL, NULL),
      lib.function_new("use_block", &i64, 1, &i64, 1, use_block, NULL, NULL),
      lib.function_new("shout", &i64, 1, &i64, 1, shout, NULL, NULL),
  }};
}

Bytes module_bytes(void) {
  if (!options.file) fail("the metric needs a plug-in: file=PATH");
  FILE *file = fopen(options.file, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail("cannot read %s", options.file);
  long size = ftell(file);
  rewind(file);
  Bytes bytes = {allocate((size_t)size), (uint64_t)size};
  if (fread(bytes.data, 1, bytes.size, file) != bytes.size) fail("cannot read %s", options.file);
  fclose(file);
  return bytes;
}

static size_t base64(Bytes bytes, char *out) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char *begin = out;
  for (uint64_t i = 0; i < bytes.size; i += 3) {
    uint64_t left = bytes.size - i;
    uint32_t group = (uint32_t)bytes.data[i] << 16;
    if (left > 1) group |= (uint32_t)bytes.data[i + 1] << 8;
    if (left > 2) group |= bytes.data[i + 2];
    *out++ = letters[group >> 18];
    *out++ = letters[group >> 12 & 63];
    *out++ = left > 1 ? letters[group >> 6 & 63] : '=';
    *out++ = left > 2 ? letters[group & 63] : '=';
  }
  return (size_t)(out - begin);
}

Bytes source(void) {
  Bytes module = module_bytes();
  if (!options.data && !options.timeout_ms && !options.path) return module;
  size_t room = module.size * 4 / 3 + 4096;
  char *text = allocate(room);
  size_t at = (size_t)snprintf(text, room, "{\"config\":{\"key\":\"12345678\"},");
  if (options.timeout_ms) {
    unsigned long long timeout = options.timeout_ms;
    at += (size_t)snprintf(text + at, room - at, "\"timeout_ms\":%llu,", timeout);
  }
  if (options.path)
    at += (size_t)snprintf(text + at, room - at, "\"allowed_paths\":{\"%s\":\"/mnt\"},", options.path);
  at += (size_t)snprintf(text + at, room - at, "\"wasm\":[{\"data\":\"");
  at += base64(module, text + at);
  at += (size_t)snprintf(text + at, room - at, "\"}]}");
  free(module.data);
  return (Bytes){(uint8_t *)text, at};
}

Bytes input_bytes(void) {
  if (options.text) return (Bytes){(uint8_t *)options.text, strlen(options.text)};
  static const char words[] = "Hello, World! ";
  Bytes input = {allocate(options.size), options.size};
  for (uint64_t i = 0; i < input.size; i++) input.data[i] = (uint8_t)words[i % (sizeof words - 1)];
  return input;
}

static ExtismCompiledPlugin *checked(void *made, char *message) {
  if (!made) fail("no plug-in: %s", message ? message : "(no message)");
  return made;
}

ExtismPlugin *new_plugin(Bytes wasm) {
  HostFunctions functions = host_functions();
  char *message = NULL;
  ExtismPlugin *plugin =
      lib.plugin_new(wasm.data, wasm.size, functions.list, N_FUNCTIONS, options.wasi, &message);
  return (ExtismPlugin *)checked(plugin, message);
}

ExtismCompiledPlugin *new_compiled(Bytes wasm) {
  HostFunctions functions = host_functions();
  char *message = NULL;
  return checked(
      lib.compiled_plugin_new(wasm.data, wasm.size, functions.list, N_FUNCTIONS, options.wasi, &message),
      message);
}

ExtismPlugin *new_from_compiled(ExtismCompiledPlugin *compiled) {
  char *message = NULL;
  return (ExtismPlugin *)checked(lib.plugin_new_from_compiled(compiled, &message), message);
}

_Noreturn void call_failed(ExtismPlugin *plugin, int32_t code) {
  const char *error = lib.plugin_error(plugin);
  fail("a call ended with %d: %s", code, error ? error : "(no error)");
}

int32_t call_any(ExtismPlugin *plugin, const char *name, Bytes input) {
  return lib.plugin_call(plugin, name, input.data, input.size);
}

void call(ExtismPlugin *plugin, Bytes input) {
  if (!*options.call) return;
  int32_t code = call_any(plugin, options.call, input);
  if (code != 0) call_failed(plugin, code);
}
