/* The library as programs load it at run time, and more than one of them. This header has its types
 * from extism.h and calls no function of that: the program is not linked with the library. */
#ifndef LOADED_H
#define LOADED_H

#include <dlfcn.h>
#include <stdlib.h>

#include <extism.h>

#include "check.h"

struct library {
  void *handle;
  ExtismPlugin *(*new)(const uint8_t *, ExtismSize, const ExtismFunction **, ExtismSize, bool,
                       char **);
  void (*free)(ExtismPlugin *);
  int32_t (*call)(ExtismPlugin *, const char *, const uint8_t *, ExtismSize);
  const char *(*error)(ExtismPlugin *);
  ExtismFunction *(*function)(const char *, const ExtismValType *, ExtismSize,
                              const ExtismValType *, ExtismSize, ExtismFunctionType, void *,
                              void (*)(void *));
  void (*function_free)(ExtismFunction *);
};

/* The function of a library; the test fails by itself if there is none. */
#define SYMBOL(LIBRARY, MEMBER, NAME) (*(void **)&(LIBRARY)->MEMBER = dlsym((LIBRARY)->handle, NAME))

static inline bool load(struct library *library, const char *path) {
  library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library->handle) printf("  %s\n", dlerror());
  return library->handle && SYMBOL(library, new, "extism_plugin_new") &&
         SYMBOL(library, free, "extism_plugin_free") &&
         SYMBOL(library, call, "extism_plugin_call") &&
         SYMBOL(library, error, "extism_plugin_error") &&
         SYMBOL(library, function, "extism_function_new") &&
         SYMBOL(library, function_free, "extism_function_free");
}

/* A plug-in that traps, runs without end, and calls the host function `f`. */
#define LOADED_WAT                                                                       \
  "(module (import \"extism:host/user\" \"f\" (func $f (param i64) (result i64)))"       \
  " (func (export \"trap\") unreachable) (func (export \"spin\") (loop $l (br $l)))"     \
  " (func $deep (export \"deep\") (call $deep))"                                         \
  " (func (export \"ask\") (result i32) (i32.wrap_i64 (call $f (i64.const 41)))))"

static inline ExtismPlugin *loaded_plugin(struct library *library, ExtismFunctionType callback,
                                          void *data) {
  static const ExtismValType type = ExtismValType_I64;
  ExtismFunction *function = library->function("f", &type, 1, &type, 1, callback, data, NULL);
  const ExtismFunction *functions[] = {function};
  char text[512];
  snprintf(text, sizeof text,
           "{\"wasm\": [{\"data\": {\"ptr\": %llu, \"len\": %zu}}], \"timeout_ms\": 100}",
           (unsigned long long)(uintptr_t)LOADED_WAT, strlen(LOADED_WAT));
  ExtismPlugin *plugin =
      library->new ((const uint8_t *)text, strlen(text), functions, 1, false, NULL);
  library->function_free(function);
  return plugin;
}

static inline bool works(struct library *library, ExtismPlugin *plugin) {
  CHECK(plugin != NULL);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(library->call(plugin, "ask", NULL, 0), 42);
    CHECK(library->error(plugin) == NULL);
    CHECK(library->call(plugin, "trap", NULL, 0) != 0);
    CHECK_CONTAINS(library->error(plugin), "unreachable");
    CHECK(library->call(plugin, "deep", NULL, 0) != 0);
    CHECK_CONTAINS(library->error(plugin), "stack");
  }
  CHECK(library->call(plugin, "spin", NULL, 0) != 0);
  CHECK_TEXT(library->error(plugin), "timeout");
  return true;
}

#endif
