#include "worker.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

Library lib;
Options options = {.call = "empty", .count = 1};

_Noreturn void fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  fputs("error ", stdout);
  vprintf(format, values);
  va_end(values);
  putchar('\n');
  fflush(stdout);
  _Exit(1);
}

uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void *allocate(size_t size) {
  void *memory = malloc(size ? size : 1);
  if (!memory) fail("no memory for %zu bytes", size);
  return memory;
}

static void load(const char *path) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail("%s", dlerror());
#define FIND(NAME)                                                                                 \
  *(void **)&lib.NAME = dlsym(handle, "extism_" #NAME);                                            \
  if (!lib.NAME) fail("%s has no extism_" #NAME, path);
  FUNCTIONS(FIND)
#undef FIND
}

static void read_option(char *argument) {
  char *value = strchr(argument, '=');
  if (!value) fail("`%s` is not KEY=VALUE", argument);
  *value++ = 0;
  uint64_t number = strtoull(value, NULL, 10);
  if (!strcmp(argument, "file")) options.file = value;
  else if (!strcmp(argument, "call")) options.call = value;
  else if (!strcmp(argument, "path")) options.path = value;
  else if (!strcmp(argument, "text")) options.text = value;
  else if (!strcmp(argument, "size")) options.size = number;
  else if (!strcmp(argument, "count")) options.count = number;
  else if (!strcmp(argument, "timeout_ms")) options.timeout_ms = number;
  else if (!strcmp(argument, "wasi")) options.wasi = number;
  else if (!strcmp(argument, "context")) options.context = number;
  else if (!strcmp(argument, "data")) options.data = number;
  else fail("there is no option `%s`", argument);
}

static const Metric *find(const char *name) {
  const Metric *lists[] = {call_metrics, creation_metrics, memory_metrics, thread_metrics};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    for (const Metric *metric = lists[i]; metric->name; metric++)
      if (!strcmp(metric->name, name)) return metric;
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fputs("worker LIBRARY METRIC [KEY=VALUE...]; then numbers of iterations on standard input\n", stderr);
    return 2;
  }
  const Metric *metric = find(argv[2]);
  if (!metric) {
    puts("unsupported");
    return 1;
  }
  load(argv[1]);
  for (int i = 3; i < argc; i++) read_option(argv[i]);
  if (metric->set_up) metric->set_up();
  printf("ready %s\n", lib.version());
  fflush(stdout);

  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    uint64_t iterations = strtoull(line, NULL, 10);
    if (!iterations) fail("`%s` is no number of iterations", line);
    printf("%.3f\n", metric->measure(iterations));
    fflush(stdout);
  }
  /* What is left goes with the process: how long that takes is not measured. */
  _Exit(0);
}
