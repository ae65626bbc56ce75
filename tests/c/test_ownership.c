/* Who has a function and its user data: creation that fails takes nothing, and the finaliser runs
 * exactly once, whatever way the last user goes. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

#define EMPTY "(module (func (export \"run\")))"
#define CALLER \
  "(module (import \"extism:host/user\" \"f\" (func $f)) (func (export \"run\") (call $f)))"

CALLBACK(nothing) { UNUSED; }

/* Each user data is a number: how often it was freed. */
enum { N = 3 };
static atomic_int freed[N];

static void finalise(void *times) { *(atomic_int *)times += 1; }

static ExtismFunction *new_function(int which) {
  return extism_function_new("f", NULL, 0, NULL, 0, nothing, &freed[which], finalise);
}

static bool nothing_is_freed(void) {
  for (int i = 0; i < N; i++) CHECK_INT(freed[i], 0);
  return true;
}

static void *create(int which, const char *text, const ExtismFunction **functions, ExtismSize n) {
  const uint8_t *wasm = (const uint8_t *)text;
  ExtismSize size = strlen(text);
  switch (which) {
    case 0: return extism_plugin_new(wasm, size, functions, n, false, NULL);
    case 1: return extism_plugin_new_with_fuel_limit(wasm, size, functions, n, false, 9999, NULL);
    case 2: return extism_compiled_plugin_new(wasm, size, functions, n, false, NULL);
    default:
      return extism_compiled_plugin_new_with_fuel_limit(wasm, size, functions, n, false, 9999, NULL);
  }
}

static void free_created(int which, void *created) {
  if (which < 2) extism_plugin_free(created);
  else extism_compiled_plugin_free(created);
}

/* Whatever makes creation fail. */
static bool test_failed_creations_take_nothing(void) {
  static const char *const texts[] = {
      "", "rubbish", "(module", "\0asm", "{\"wasm\": []}", "{\"wasm\": [{\"path\": \"/no/file\"}]}",
      "{\"wasm\": [{\"data\": \"AAAA\"}]}", "{\"wasm\": [{\"data\": {\"ptr\": 8, \"len\": 8}}]}",
      "(module (func (export \"f\") i32.add))", /* invalid */
      "(module (import \"no\" \"where\" (func)))",
      "(module (import \"extism:host/user\" \"f\" (func (param i32))))", /* of another type */
      "(module (import \"extism:host/user\" \"f\" (memory 1)))",
      "(module (memory 65537))", "(module (memory i64 100000))"};
  ExtismFunction *handles[N];
  for (int i = 0; i < N; i++) handles[i] = new_function(i);
  const ExtismFunction *functions[] = {handles[0], handles[1], handles[2], handles[0]};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    for (int which = 0; which < 4; which++) {
      CHECK(!create(which, texts[i], functions, 4));
      CHECK(extism_last_error() != NULL);
      CHECK(nothing_is_freed());
    }
  /* They can be used by one and by several, and are freed by themselves if they are not. */
  extism_function_free(handles[0]);
  CHECK_INT(freed[0], 1);
  void *one = create(0, CALLER, &functions[1], 1), *two = create(2, CALLER, &functions[1], 1);
  CHECK(one && two && call(one, "run") == 0);
  extism_function_free(handles[1]);
  free_created(0, one);
  CHECK_INT(freed[1], 0);
  free_created(2, two);
  CHECK_INT(freed[1], 1);
  extism_function_free(handles[2]);
  CHECK_INT(freed[2], 1);
  CHECK_INT(freed[0], 1);
  return true;
}

/* An array of which one element is wrong, at each place: none of the others is taken. */
static bool test_arrays_with_a_wrong_element_take_nothing(void) {
  ExtismFunction *spent = new_function(0), *stale = new_function(0);
  const ExtismFunction *array[] = {spent};
  free_created(0, create(0, CALLER, array, 1));
  extism_function_free(stale);
  ExtismPlugin *plugin = plugin_from(EMPTY);
  int mine;
  void *const wrong[] = {NULL, spent, stale, plugin, &mine, (void *)UINTPTR_MAX};
  CHECK_INT(freed[0], 2);
  freed[0] = 0;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    for (int place = 0; place < 3; place++) {
      for (int which = 0; which < 4; which++) {
        ExtismFunction *one = new_function(0), *two = new_function(1);
        const ExtismFunction *functions[3] = {one, two, one};
        functions[place] = wrong[i];
        CHECK(!create(which, CALLER, functions, 3));
        CHECK(extism_last_error() != NULL);
        CHECK(nothing_is_freed());
        extism_function_free(one); /* nobody else has it */
        CHECK_INT(freed[0], 1);
        extism_function_free(two);
        CHECK_INT(freed[1], 1);
        freed[0] = freed[1] = 0;
      }
    }
  extism_function_free(spent);
  CHECK_INT(freed[0], 0); /* it was its turn before */
  extism_plugin_free(plugin);
  return true;
}

/* One function, its handle, a compiled plug-in and two plug-ins: freed in every order. */
static bool frees_once(const int order[4]) {
  ExtismFunction *function = new_function(0);
  const ExtismFunction *functions[] = {function, function};
  ExtismCompiledPlugin *compiled = create(2, CALLER, functions, 2);
  ExtismPlugin *plugins[] = {extism_plugin_new_from_compiled(compiled, NULL),
                             extism_plugin_new_from_compiled(compiled, NULL)};
  CHECK(compiled && plugins[0] && plugins[1] && call(plugins[0], "run") == 0);
  int users = 3;
  for (int i = 0; i < 4; i++) {
    CHECK_INT(freed[0], users == 0);
    switch (order[i]) {
      case 0: extism_function_free(function); break;
      case 1: extism_compiled_plugin_free(compiled); break;
      default: extism_plugin_free(plugins[order[i] - 2]); break;
    }
    users -= order[i] != 0;
    CHECK_INT(freed[0], users == 0);
  }
  freed[0] = 0;
  return true;
}

static bool test_every_order_of_frees(void) {
  for (int a = 0; a < 4; a++)
    for (int b = 0; b < 4; b++)
      for (int c = 0; c < 4; c++) {
        if (a == b || b == c || a == c) continue;
        CHECK(frees_once((int[]){a, b, c, 6 - a - b - c}));
      }
  return true;
}

/* A function that the module does not import is kept all the same, as in 1.41. */
static bool test_functions_that_nobody_imports(void) {
  ExtismFunction *function = new_function(0);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = create(0, EMPTY, functions, 1);
  extism_function_free(function);
  CHECK_INT(freed[0], 0);
  extism_plugin_free(plugin);
  CHECK_INT(freed[0], 1);
  return true;
}

/* Freed from inside: the function, the plug-in and the compiled plug-in in their own callback. */
static void *inside[3];

CALLBACK(free_all) {
  UNUSED;
  extism_function_free(inside[0]);
  extism_compiled_plugin_free(inside[1]);
  extism_plugin_free(inside[2]);
  NOTE(extism_last_error() == NULL);
  NOTE(freed[0] == 0);
}

static bool test_freed_in_the_own_callback(void) {
  inside[0] = extism_function_new("f", NULL, 0, NULL, 0, free_all, &freed[0], finalise);
  const ExtismFunction *functions[] = {inside[0]};
  inside[1] = create(2, CALLER, functions, 1);
  inside[2] = extism_plugin_new_from_compiled(inside[1], NULL);
  CHECK_INT(call(inside[2], "run"), 0);
  CHECK_INT(freed[0], 1);
  CHECK_INT(call(inside[2], "run"), -1);
  return true;
}

/* A finaliser may use the library: make and free, also what it is the finaliser of. */
struct uses {
  ExtismFunction *function;
  ExtismPlugin *plugin;
  int times;
};

static void use_library(void *data) {
  struct uses *uses = data;
  uses->times++;
  extism_function_free(uses->function);
  NOTE(uses->function == NULL || extism_last_error() == NULL);
  NOTE(call(uses->plugin, "run") == -1);
  ExtismFunction *another = new_function(1);
  const ExtismFunction *functions[] = {another};
  ExtismPlugin *plugin = create(0, CALLER, functions, 1);
  NOTE(plugin && call(plugin, "run") == 0);
  extism_plugin_free(plugin);
  extism_function_free(another);
  NOTE(freed[1] == 1);
  freed[1] = 0;
}

static bool test_finalisers_that_use_the_library(void) {
  for (int i = 0; i < 2; i++) {
    struct uses uses = {.times = 0};
    ExtismFunction *function =
        extism_function_new("f", NULL, 0, NULL, 0, nothing, &uses, use_library);
    if (i == 0) {
      extism_function_free(function);
    } else {
      const ExtismFunction *functions[] = {function};
      uses.plugin = create(0, CALLER, functions, 1);
      uses.function = function;
      extism_plugin_free(uses.plugin);
    }
    CHECK_INT(uses.times, 1);
  }
  return true;
}

/* Threads make and free plug-ins with one function, while its handle is freed. */
static ExtismFunction *shared;

static void *use_shared(void *made) {
  const ExtismFunction *functions[] = {shared};
  for (int i = 0; i < 30; i++) {
    ExtismPlugin *plugin = create(i % 2, CALLER, functions, 1);
    if (plugin) {
      NOTE(freed[0] == 0 && call(plugin, "run") == 0);
      *(int *)made += 1;
    }
    extism_plugin_free(plugin);
  }
  return NULL;
}

static bool test_functions_shared_by_threads(void) {
  for (int i = 0; i < 10; i++) {
    int made[3] = {0};
    pthread_t threads[3];
    freed[0] = 0;
    shared = new_function(0);
    const ExtismFunction *functions[] = {shared};
    ExtismPlugin *plugin = create(0, CALLER, functions, 1);
    for (int j = 0; j < 3; j++) CHECK(!pthread_create(&threads[j], NULL, use_shared, &made[j]));
    check_sleep(5);
    extism_function_free(shared);
    for (int j = 0; j < 3; j++) pthread_join(threads[j], NULL);
    CHECK_INT(freed[0], 0);
    extism_plugin_free(plugin);
    CHECK_INT(freed[0], 1);
  }
  return true;
}

/* The last user goes while a thread still uses the handle: spent, or alive, and never both. */
static void *race(void *unused) {
  const ExtismFunction *functions[] = {shared};
  ExtismPlugin *plugin = create(0, CALLER, functions, 1);
  NOTE(plugin ? call(plugin, "run") == 0 : extism_last_error() != NULL);
  extism_plugin_free(plugin);
  return unused;
}

static bool test_the_last_user_goes_as_another_comes(void) {
  for (int i = 0; i < 50; i++) {
    pthread_t thread;
    freed[0] = 0;
    shared = new_function(0);
    const ExtismFunction *functions[] = {shared};
    ExtismPlugin *plugin = create(0, CALLER, functions, 1);
    CHECK(pthread_create(&thread, NULL, race, NULL) == 0);
    extism_plugin_free(plugin);
    pthread_join(thread, NULL);
    CHECK_INT(freed[0], 1);
    extism_function_free(shared);
    CHECK_INT(freed[0], 1);
  }
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_failed_creations_take_nothing);
  RUN(test_arrays_with_a_wrong_element_take_nothing);
  RUN(test_every_order_of_frees);
  RUN(test_functions_that_nobody_imports);
  RUN(test_freed_in_the_own_callback);
  RUN(test_finalisers_that_use_the_library);
  RUN(test_functions_shared_by_threads);
  RUN(test_the_last_user_goes_as_another_comes);
  return check_end();
}
