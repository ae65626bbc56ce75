/* Resident memory, and how many plug-ins fit. These answer once, with a number that is no time, and
 * want a process of their own. */
#include "worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Bytes of this process that are in memory. */
static double resident(void) {
  FILE *file = fopen("/proc/self/statm", "r");
  unsigned long long size, pages;
  if (!file || fscanf(file, "%llu %llu", &size, &pages) != 2) fail("cannot read /proc/self/statm");
  fclose(file);
  return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static ExtismCompiledPlugin *compiled;
static Bytes input;

/* Some plug-ins come before the first look: what is made once is there then. */
static void set_up_resident(void) {
  compiled = new_compiled(source());
  input = input_bytes();
  for (int i = 0; i < 20; i++) call(new_from_compiled(compiled), input);
}

/* Bytes that each of some living plug-ins adds, after one call. */
static double measure_resident(uint64_t plugins) {
  double before = resident();
  for (uint64_t i = 0; i < plugins; i++) call(new_from_compiled(compiled), input);
  return (resident() - before) / (double)plugins;
}

/* Plug-ins so far. */
static volatile uint64_t alive;

/* libextism 1.41 may wait for ever for a thread that it cannot have: so many are alive then. */
static void answer_alive(int signal) {
  (void)signal;
  char text[32];
  int length = snprintf(text, sizeof text, "%llu.0\n", (unsigned long long)alive);
  if (write(STDOUT_FILENO, text, (size_t)length) != length) _exit(1);
  _exit(0);
}

/* How many can be made and called before something refuses, up to `limit`. */
static double measure_alive(uint64_t limit) {
  signal(SIGALRM, answer_alive);
  for (alive = 0; alive < limit; alive++) {
    char *message = NULL;
    alarm(5);
    ExtismPlugin *plugin = lib.plugin_new_from_compiled(compiled, &message);
    if (!plugin || call_any(plugin, options.call, input) != 0) break;
  }
  alarm(0);
  return (double)alive;
}

static void set_up_alive(void) {
  compiled = new_compiled(source());
  input = input_bytes();
}

static ExtismPlugin *plugin;

static void set_up_large(void) {
  plugin = new_plugin(source());
  input = input_bytes();
  /* Twice the code of both calls, so that what is loaded lazily is there. */
  for (int i = 0; i < 2; i++) {
    call(plugin, (Bytes){input.data, 64});
    call_any(plugin, "empty", (Bytes){0});
  }
}

/* Bytes that stay after one call with the large input and some empty ones. */
static double measure_kept(uint64_t empty_calls) {
  double before = resident();
  call(plugin, input);
  for (uint64_t i = 0; i < empty_calls; i++)
    if (call_any(plugin, "empty", (Bytes){0}) != 0) call_failed(plugin, -1);
  double kept = resident() - before;
  return kept > 0 ? kept : 0;
}

/* Nanoseconds of an empty call that comes after one with the large input. */
static double measure_after(uint64_t iterations) {
  uint64_t total = 0;
  for (uint64_t i = 0; i < iterations; i++) {
    call(plugin, input);
    uint64_t begin = now();
    int32_t code = call_any(plugin, "empty", (Bytes){0});
    total += now() - begin;
    if (code != 0) call_failed(plugin, code);
  }
  return (double)total;
}

const Metric memory_metrics[] = {
    {"resident", set_up_resident, measure_resident},
    {"alive", set_up_alive, measure_alive},
    {"kept", set_up_large, measure_kept},
    {"after", set_up_large, measure_after},
    {0},
};
