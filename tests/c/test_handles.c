/* Every function with every handle that is wrong for it: NULL, freed, of another kind, never given
 * out. Each answers with its fail value and a text that says what it got, and harms nothing. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

#define CALLER \
  "(module (import \"extism:host/user\" \"f\" (func $f)) (func (export \"run\") (call $f)))"

CALLBACK(nothing) { UNUSED; }

enum kind { PLUGIN, COMPILED, FUNCTION, CANCEL, CURRENT, N_KINDS };

static const char *const names[N_KINDS] = {"ExtismPlugin", "ExtismCompiledPlugin", "ExtismFunction",
                                           "ExtismCancelHandle", "ExtismCurrentPlugin"};

/* What each function answers to a handle that it refuses; true if it is the fail value. */
static bool by_call(void *h) { return extism_plugin_call(h, "run", NULL, 0) == -1; }
static bool by_call_with_context(void *h) {
  return extism_plugin_call_with_host_context(h, "run", (const uint8_t *)"x", 1, &h) == -1;
}
static bool by_id(void *h) { return extism_plugin_id(h) == NULL; }
static bool by_config(void *h) { return !extism_plugin_config(h, (const uint8_t *)"{}", 2); }
static bool by_exists(void *h) { return !extism_plugin_function_exists(h, "run"); }
static bool by_length(void *h) { return extism_plugin_output_length(h) == 0; }
static bool by_data(void *h) { return extism_plugin_output_data(h) == NULL; }
static bool by_reset(void *h) { return !extism_plugin_reset(h); }
static bool by_headers(void *h) { return extism_plugin_allow_http_response_headers(h), true; }
static bool by_cancel_handle(void *h) { return extism_plugin_cancel_handle(h) == NULL; }
static bool by_plugin_free(void *h) { return extism_plugin_free(h), true; }
/* Without a plug-in there is nothing to be wrong with. */
static bool by_error(void *h) { return !h == !extism_plugin_error(h); }
static bool by_old_error(void *h) { return !h == !extism_error(h); }

static bool by_new_from_compiled(void *h) {
  char *errmsg = NULL;
  bool refused = !extism_plugin_new_from_compiled(h, &errmsg) && errmsg && errmsg[0];
  const char *text = extism_last_error();
  refused = refused && text && strcmp(text, errmsg) == 0;
  extism_plugin_new_error_free(errmsg);
  return refused && !extism_plugin_new_from_compiled(h, NULL);
}
static bool by_compiled_free(void *h) { return extism_compiled_plugin_free(h), true; }

static bool by_creation(void *h) {
  const ExtismFunction *functions[] = {h};
  return !extism_plugin_new((const uint8_t *)CALLER, strlen(CALLER), functions, 1, false, NULL);
}
static bool by_compiling(void *h) {
  const ExtismFunction *functions[] = {h};
  return !extism_compiled_plugin_new_with_fuel_limit((const uint8_t *)CALLER, strlen(CALLER),
                                                     functions, 1, true, 1000, NULL);
}
static bool by_namespace(void *h) { return extism_function_set_namespace(h, "x"), true; }
static bool by_function_free(void *h) { return extism_function_free(h), true; }

static bool by_cancel(void *h) { return !extism_plugin_cancel(h); }

static bool by_memory(void *h) { return extism_current_plugin_memory(h) == NULL; }
static bool by_alloc(void *h) { return extism_current_plugin_memory_alloc(h, 8) == 0; }
static bool by_block_length(void *h) { return extism_current_plugin_memory_length(h, 16) == 0; }
static bool by_block_free(void *h) { return extism_current_plugin_memory_free(h, 16), true; }
static bool by_context(void *h) { return extism_current_plugin_host_context(h) == NULL; }

#define TAKES_NULL true

static const struct {
  const char *name;
  enum kind kind;
  bool (*refuses)(void *);
  bool takes_null;
} functions[] = {
    {"extism_plugin_call", PLUGIN, by_call, false},
    {"extism_plugin_call_with_host_context", PLUGIN, by_call_with_context, false},
    {"extism_plugin_id", PLUGIN, by_id, false},
    {"extism_plugin_config", PLUGIN, by_config, false},
    {"extism_plugin_function_exists", PLUGIN, by_exists, false},
    {"extism_plugin_output_length", PLUGIN, by_length, false},
    {"extism_plugin_output_data", PLUGIN, by_data, false},
    {"extism_plugin_reset", PLUGIN, by_reset, false},
    {"extism_plugin_allow_http_response_headers", PLUGIN, by_headers, false},
    {"extism_plugin_cancel_handle", PLUGIN, by_cancel_handle, false},
    {"extism_plugin_error", PLUGIN, by_error, TAKES_NULL},
    {"extism_error", PLUGIN, by_old_error, TAKES_NULL},
    {"extism_plugin_free", PLUGIN, by_plugin_free, TAKES_NULL},
    {"extism_plugin_new_from_compiled", COMPILED, by_new_from_compiled, false},
    {"extism_compiled_plugin_free", COMPILED, by_compiled_free, TAKES_NULL},
    {"extism_plugin_new", FUNCTION, by_creation, false},
    {"extism_compiled_plugin_new_with_fuel_limit", FUNCTION, by_compiling, false},
    {"extism_function_set_namespace", FUNCTION, by_namespace, false},
    {"extism_function_free", FUNCTION, by_function_free, TAKES_NULL},
    {"extism_plugin_cancel", CANCEL, by_cancel, false},
    {"extism_current_plugin_memory", CURRENT, by_memory, false},
    {"extism_current_plugin_memory_alloc", CURRENT, by_alloc, false},
    {"extism_current_plugin_memory_length", CURRENT, by_block_length, false},
    {"extism_current_plugin_memory_free", CURRENT, by_block_free, false},
    {"extism_current_plugin_host_context", CURRENT, by_context, false},
};
enum { N_FUNCTIONS = sizeof functions / sizeof functions[0] };

/* Hands `handle` to all functions that take another kind (or its kind too, if `kind` is N_KINDS or
 * `stale`), which have to refuse it. */
static bool is_refused(void *handle, enum kind kind, bool stale, const char *says) {
  for (int i = 0; i < N_FUNCTIONS; i++) {
    if (functions[i].kind == kind && !stale) continue;
    bool refused = functions[i].refuses(handle);
    const char *text = extism_last_error();
    bool is_said = !handle && functions[i].takes_null
                       ? text == NULL
                       : text && strstr(text, names[functions[i].kind]) && strstr(text, says);
    if (refused && is_said) continue;
    printf("  %s(%p): %s\n", functions[i].name, handle, text ? text : "no error");
    return false;
  }
  CHECK(extism_version() && !extism_last_error()); /* a call that succeeds clears it */
  return true;
}

/* One of each kind that is alive; what `current` stands for is so inside of a host function only. */
static void *alive[N_KINDS];
static int finalised;

static void finalise(void *times) { *(int *)times += 1; }

static ExtismFunction *new_function(ExtismFunctionType callback) {
  return extism_function_new("f", NULL, 0, NULL, 0, callback, &finalised, finalise);
}

static bool make_all(ExtismFunctionType callback) {
  alive[FUNCTION] = new_function(nothing);
  ExtismFunction *function = new_function(callback);
  const ExtismFunction *array[] = {function};
  alive[COMPILED] = extism_compiled_plugin_new((const uint8_t *)CALLER, strlen(CALLER), array, 1,
                                               false, NULL);
  extism_function_free(function);
  CHECK(alive[COMPILED] && alive[FUNCTION]);
  alive[PLUGIN] = extism_plugin_new_from_compiled(alive[COMPILED], NULL);
  alive[CANCEL] = (void *)extism_plugin_cancel_handle(alive[PLUGIN]);
  CHECK(alive[PLUGIN] && alive[CANCEL]);
  return true;
}

static bool all_work(void) {
  CHECK_INT(finalised, 0);
  CHECK_INT(call(alive[PLUGIN], "run"), 0);
  CHECK(extism_plugin_cancel(alive[CANCEL]));
  ExtismPlugin *another = extism_plugin_new_from_compiled(alive[COMPILED], NULL);
  CHECK(another && call(another, "run") == 0);
  extism_plugin_free(another);
  extism_function_set_namespace(alive[FUNCTION], "extism:host/user");
  CHECK(extism_last_error() == NULL);
  CHECK(by_creation(alive[FUNCTION]) == false); /* makes a plug-in */
  return true;
}

static void free_all(void) {
  extism_plugin_free(alive[PLUGIN]);
  extism_compiled_plugin_free(alive[COMPILED]);
  extism_function_free(alive[FUNCTION]);
}

static bool test_null(void) {
  CHECK(make_all(nothing));
  CHECK(is_refused(NULL, N_KINDS, true, "NULL"));
  CHECK(all_work());
  return true;
}

static bool test_wrong_kinds(void) {
  CHECK(make_all(nothing));
  for (enum kind kind = PLUGIN; kind < CURRENT; kind++) {
    CHECK(is_refused(alive[kind], kind, false, names[kind]));
    CHECK(all_work());
  }
  return true;
}

static bool test_numbers_that_were_never_handles(void) {
  CHECK(make_all(nothing));
  uintptr_t known = (uintptr_t)alive[PLUGIN];
  uint64_t mine[4] = {known, known, known, known};
  void *on_the_heap = malloc(64);
  void *const numbers[] = {
      mine, on_the_heap, "text", (void *)(uintptr_t)make_all, &alive, (void *)1, (void *)7, (void *)4095,
      (void *)4096, (void *)UINTPTR_MAX, (void *)INTPTR_MAX, (void *)(uintptr_t)INTPTR_MIN,
      (void *)(known | (uintptr_t)1 << 39), (void *)(known | (uintptr_t)1 << 63),
      (void *)(known + ((uintptr_t)1 << 30)), /* of a plug-in to come */
      (void *)(known & ~(uintptr_t)7), (void *)(known | 6), (void *)(known | 7)};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
    CHECK(is_refused(numbers[i], N_KINDS, true, "is not an Extism"));
  free(on_the_heap);
  CHECK(all_work());
  free_all();
  return true;
}

/* Freed handles, for what they were and for everything else; also when others were made since. */
static bool test_freed(void) {
  CHECK(make_all(nothing));
  void *freed[N_KINDS];
  memcpy(freed, alive, sizeof freed);
  free_all();
  freed[CURRENT] = (void *)(((uintptr_t)freed[PLUGIN] & ~(uintptr_t)7) | ((uintptr_t)CURRENT + 1));
  finalised = 0;
  for (int i = 0; i < 2; i++) {
    for (enum kind kind = PLUGIN; kind < N_KINDS; kind++) {
      CHECK(is_refused(freed[kind], kind, false, names[kind])); /* the kind is what is wrong first */
      for (int j = 0; j < N_FUNCTIONS; j++) {
        if (functions[j].kind != kind) continue;
        CHECK(functions[j].refuses(freed[kind]));
        CHECK_CONTAINS(extism_last_error(), kind == CURRENT ? "not inside a host function" : "freed already");
      }
    }
    CHECK(i || make_all(nothing));
    for (enum kind kind = PLUGIN; kind < CURRENT; kind++) CHECK(alive[kind] != freed[kind]);
    CHECK(all_work());
  }
  return true;
}

/* Many are made and freed: no handle comes back. */
static bool test_handles_are_not_used_twice(void) {
  CHECK(make_all(nothing));
  void *first = alive[PLUGIN], *last = NULL;
  for (int i = 0; i < 1000; i++) {
    ExtismPlugin *plugin = extism_plugin_new_from_compiled(alive[COMPILED], NULL);
    CHECK(plugin && (void *)plugin != first && (void *)plugin != last);
    CHECK((uintptr_t)plugin >= 4096 && (uintptr_t)plugin < (uintptr_t)1 << 39);
    if (last) CHECK(extism_plugin_id(last) == NULL);
    extism_plugin_free(plugin);
    last = plugin;
  }
  CHECK_INT(call(first, "run"), 0);
  return true;
}

/* Inside of a host function: its own handle for what takes others, others for what takes it, and
 * the handle that another plug-in, which nobody calls, would have. */
static bool inside;

CALLBACK(misuse) {
  UNUSED;
  if (inside) return;
  inside = true;
  NOTE(is_refused(plugin, CURRENT, false, "ExtismCurrentPlugin"));
  for (enum kind kind = PLUGIN; kind < CURRENT; kind++)
    NOTE(is_refused(alive[kind], kind, false, names[kind]));
  NOTE(is_refused(NULL, N_KINDS, true, "NULL"));
  ExtismPlugin *idle = extism_plugin_new_from_compiled(alive[COMPILED], NULL);
  void *its_current = (void *)((uintptr_t)idle - (uintptr_t)alive[PLUGIN] % 8 + (uintptr_t)plugin % 8);
  NOTE(by_memory(its_current) && strstr(extism_last_error(), "not inside a host function"));
  NOTE(by_alloc(its_current) && extism_last_error());
  NOTE(by_context(its_current) && extism_last_error());
  extism_plugin_free(idle);
  NOTE(extism_current_plugin_memory_alloc(plugin, 8) != 0);
  inside = false;
}

static bool test_inside_of_a_host_function(void) {
  CHECK(make_all(misuse));
  CHECK_INT(call(alive[PLUGIN], "run"), 0);
  CHECK(extism_plugin_error(alive[PLUGIN]) == NULL);
  CHECK(all_work());
  return true;
}

/* All of it at once, from several threads, beside one that uses what is alive. */
static void *misuse_in_thread(void *unused) {
  for (int i = 0; i < 20; i++) {
    ExtismPlugin *plugin = extism_plugin_new_from_compiled(alive[COMPILED], NULL);
    extism_plugin_free(plugin);
    NOTE(by_call(plugin) && by_id(plugin) && by_reset(plugin));
    for (enum kind kind = PLUGIN; kind < CURRENT; kind++)
      NOTE(is_refused(alive[kind], kind, false, names[kind]));
  }
  return unused;
}

static bool test_in_threads(void) {
  CHECK(make_all(nothing));
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], NULL, misuse_in_thread, NULL));
  for (int i = 0; i < 100; i++) CHECK_INT(call(alive[PLUGIN], "run"), 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  CHECK(all_work());
  return true;
}

/* Freed by two threads at once: one of them is told that it was late. */
static pthread_barrier_t barrier;
static void *to_free[N_KINDS];

static void *free_in_thread(void *late) {
  pthread_barrier_wait(&barrier);
  extism_plugin_free(to_free[PLUGIN]);
  int count = extism_last_error() != NULL;
  extism_compiled_plugin_free(to_free[COMPILED]);
  count += extism_last_error() != NULL;
  extism_function_free(to_free[FUNCTION]);
  count += extism_last_error() != NULL;
  *(int *)late = count;
  return NULL;
}

static bool test_freed_by_two_threads(void) {
  pthread_barrier_init(&barrier, NULL, 2);
  for (int i = 0; i < 200; i++) {
    finalised = 0;
    CHECK(make_all(nothing));
    memcpy(to_free, alive, sizeof to_free);
    pthread_t threads[2];
    int late[2];
    for (int j = 0; j < 2; j++) CHECK(!pthread_create(&threads[j], NULL, free_in_thread, &late[j]));
    for (int j = 0; j < 2; j++) pthread_join(threads[j], NULL);
    CHECK_INT(late[0] + late[1], 3);
    CHECK_INT(finalised, 2); /* of the unused function, and of the plug-ins' */
  }
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_null);
  RUN(test_wrong_kinds);
  RUN(test_numbers_that_were_never_handles);
  RUN(test_freed);
  RUN(test_handles_are_not_used_twice);
  RUN(test_inside_of_a_host_function);
  RUN(test_in_threads);
  RUN(test_freed_by_two_threads);
  return check_end();
}
