/*
 * Ends calls that would never end: by a timeout, and by a cancel from another thread.
 *
 * Build:  cc -pthread -o cancel cancel.c -lextism
 * Run:    ./cancel
 */
#define _POSIX_C_SOURCE 200809L /* for nanosleep */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <extism.h>

static ExtismPlugin *new_plugin(const char *manifest) {
  char *errmsg = NULL;
  ExtismPlugin *plugin =
      extism_plugin_new((const uint8_t *)manifest, strlen(manifest), NULL, 0, false, &errmsg);
  if (!plugin) {
    fprintf(stderr, "%s\n", errmsg);
    extism_plugin_new_error_free(errmsg);
    exit(EXIT_FAILURE);
  }
  return plugin;
}

/* Calls a function without input and prints the output, or the error. */
static void call(ExtismPlugin *plugin, const char *function) {
  int32_t code = extism_plugin_call(plugin, function, NULL, 0);
  if (code == EXTISM_SUCCESS) {
    printf("%s: %.*s\n", function, (int)extism_plugin_output_length(plugin),
           (const char *)extism_plugin_output_data(plugin));
  } else {
    const char *error = extism_plugin_error(plugin);
    printf("%s: code %d, %s\n", function, (int)code, error ? error : "no error text");
  }
}

/* What another thread needs to cancel is a handle, taken before the call begins. Here the
 * thread waits a moment; in a real program it would wait for a user's click. */
static void *cancel_soon(void *handle) {
  struct timespec moment = {.tv_sec = 0, .tv_nsec = 300 * 1000 * 1000};
  nanosleep(&moment, NULL);
  extism_plugin_cancel(handle);
  return NULL;
}

int main(void) {
  /* With a timeout in its manifest, no call of a plug-in takes longer. */
  ExtismPlugin *limited =
      new_plugin("{\"wasm\": [{\"path\": \"wasm/counter.wasm\"}], \"timeout_ms\": 100}");
  call(limited, "next");
  call(limited, "forever");
  call(limited, "next"); /* the plug-in and its state are still there */

  /* A cancel ends the call that is running, of this plug-in alone. When none is running it
   * does nothing: it would not stop the next one. */
  ExtismPlugin *plugin = new_plugin("{\"wasm\": [{\"path\": \"wasm/counter.wasm\"}]}");
  const ExtismCancelHandle *handle = extism_plugin_cancel_handle(plugin);
  pthread_t thread;
  if (pthread_create(&thread, NULL, cancel_soon, (void *)handle) != 0) return EXIT_FAILURE;
  call(plugin, "forever");
  pthread_join(thread, NULL);
  call(plugin, "next");

  extism_plugin_free(plugin); /* the handle goes with its plug-in */
  extism_plugin_free(limited);
  return EXIT_SUCCESS;
}
