/*
 * Compiles a plug-in once and runs it in many threads.
 *
 * Compiling is what takes time. A compiled plug-in holds no state; any number of plug-ins can
 * be made from it, in any thread, each with memories and variables of its own. A plug-in runs
 * one call at a time (a second one waits), so: one plug-in for each thread.
 *
 * Build:  cc -pthread -o reuse_compiled reuse_compiled.c -lextism
 * Run:    ./reuse_compiled
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <extism.h>

#define THREADS 4

struct work {
  const ExtismCompiledPlugin *compiled;
  int calls;     /* how often to count on */
  char last[24]; /* the last number that came back */
};

static void *count(void *argument) {
  struct work *work = argument;
  char *errmsg = NULL;
  ExtismPlugin *plugin = extism_plugin_new_from_compiled(work->compiled, &errmsg);
  if (!plugin) {
    fprintf(stderr, "%s\n", errmsg);
    extism_plugin_new_error_free(errmsg);
    return NULL;
  }

  for (int i = 0; i < work->calls; i++) {
    if (extism_plugin_call(plugin, "next", NULL, 0) != EXTISM_SUCCESS) {
      fprintf(stderr, "next: %s\n", extism_plugin_error(plugin));
      break;
    }
  }
  snprintf(work->last, sizeof work->last, "%.*s", (int)extism_plugin_output_length(plugin),
           (const char *)extism_plugin_output_data(plugin));
  extism_plugin_free(plugin);
  return NULL;
}

int main(void) {
  const char *manifest = "{\"wasm\": [{\"path\": \"wasm/counter.wasm\"}]}";
  char *errmsg = NULL;
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new(
      (const uint8_t *)manifest, strlen(manifest), NULL, 0, false, &errmsg);
  if (!compiled) {
    fprintf(stderr, "%s\n", errmsg);
    extism_plugin_new_error_free(errmsg);
    return EXIT_FAILURE;
  }

  pthread_t threads[THREADS];
  struct work work[THREADS];
  for (int i = 0; i < THREADS; i++) {
    work[i] = (struct work){.compiled = compiled, .calls = 1000 * (i + 1)};
    if (pthread_create(&threads[i], NULL, count, &work[i]) != 0) return EXIT_FAILURE;
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    printf("thread %d: %d calls, its plug-in counted to %s\n", i + 1, work[i].calls, work[i].last);
  }

  extism_compiled_plugin_free(compiled); /* the plug-ins could outlive it */
  return EXIT_SUCCESS;
}
