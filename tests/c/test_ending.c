/* Threads and processes that end: the library in what runs then (destructors of thread-local data,
 * handlers of exit), and calls that run meanwhile in other threads. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <extism.h>

#include "child.h"
#include "guest.h"

#define WASI(NAME, TYPE) \
  "(import \"wasi_snapshot_preview1\" \"" NAME "\" (func $" NAME " " TYPE "))"
#define WAT                                                                               \
  GUEST(USER("f", "") WASI("random_get", "(param i32 i32) (result i32)")                  \
            WASI("fd_write", "(param i32 i32 i32 i32) (result i32)")                      \
            ENV("log_error", "(param i64)"),                                              \
        DATA("hello") FUNC("hello", "(call $f)" OUTPUT(5)) FUNC("trap", "unreachable")    \
        FUNC("spin", "(call $f) (loop $l (br $l))")                                       \
        FUNC("log", "(call $log_error " BLOCK(0, 5) ")")                                  \
        FUNC_I32("random", "(call $random_get (i32.const 100) (i32.const 8))")            \
        FUNC_I32("write", "(call $fd_write (i32.const 1) (i32.const 64) (i32.const 1)"    \
                          " (i32.const 128))"))

static atomic_int calls;

CALLBACK(count) {
  UNUSED;
  calls++;
}

CALLBACK(nothing) { UNUSED; }

static void finalise(void *times) { *(atomic_int *)times += 1; }

/* A plug-in whose user data is the number of times that it was freed. */
static ExtismPlugin *new_plugin(ExtismFunctionType callback, atomic_int *finalised) {
  char text[MANIFEST_SIZE];
  manifest(text, WAT, "\"timeout_ms\": 200");
  ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, callback, finalised, finalise);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(text, functions, 1);
  extism_function_free(function);
  return plugin;
}

/* All that there is to do; false, and a line, if something is not as ever. */
static bool use(ExtismPlugin *plugin) {
  calls = 0;
  CHECK_INT(call(plugin, "hello"), 0);
  CHECK(output_is(plugin, "hello"));
  CHECK_INT(calls, 1);
  CHECK_INT(call(plugin, "trap"), 134);
  CHECK_CONTAINS(extism_plugin_error(plugin), "unreachable");
  CHECK_INT(call(plugin, "random"), 0);
  CHECK_INT(call(plugin, "write"), 0);
  CHECK_INT(call(plugin, "log"), 0);
  CHECK_INT(call(plugin, "spin"), 134);
  CHECK_TEXT(extism_plugin_error(plugin), "timeout");
  CHECK_INT(call(plugin, "nowhere"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "Function not found: nowhere");
  CHECK(extism_plugin_reset(plugin));
  return true;
}

static bool make_use_and_free(void) {
  atomic_int finalised = 0;
  ExtismPlugin *plugin = new_plugin(count, &finalised);
  CHECK(plugin != NULL);
  CHECK(use(plugin));
  extism_plugin_free(plugin);
  CHECK_INT(finalised, 1);
  CHECK_INT(call(plugin, "hello"), -1);
  return true;
}

/* The destructor of a thread's data runs when that of the library is gone already. */
static pthread_key_t key;
static atomic_bool good;

static void at_end_of_thread(void *plugin) {
  good = use(plugin) && make_use_and_free();
  extism_plugin_free(plugin);
}

static void *end_with(void *plugin) {
  NOTE(use(plugin));
  pthread_setspecific(key, plugin);
  return NULL;
}

static void *end_without_use(void *plugin) {
  pthread_setspecific(key, plugin);
  return NULL;
}

static bool ends_well(void *(*body)(void *)) {
  ExtismPlugin *plugin = new_plugin(count, NULL);
  CHECK(plugin != NULL);
  good = false;
  pthread_t thread;
  CHECK(pthread_key_create(&key, at_end_of_thread) == 0);
  CHECK(pthread_create(&thread, NULL, body, plugin) == 0);
  pthread_join(thread, NULL);
  CHECK(good);
  CHECK_INT(call(plugin, "hello"), -1); /* freed */
  CHECK(make_use_and_free());
  return true;
}

static bool test_in_the_destructor_of_a_thread(void) { return ends_well(end_with); }

/* In a child, which no leak checker looks at: the C library never calls destructors of data that a
 * thread gets this late. */
static bool test_only_in_the_destructor_of_a_thread(void) {
  IN_CHILD(ends_well(end_without_use) ? 0 : 1);
  return true;
}

/* A thread that ends leaves nothing behind that a plug-in needs. */
static void *use_in_thread(void *plugin) {
  NOTE(use(plugin));
  return NULL;
}

static bool test_threads_that_come_and_go(void) {
  ExtismPlugin *plugin = new_plugin(count, NULL);
  CHECK(plugin != NULL);
  for (int i = 0; i < 5; i++) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, use_in_thread, plugin) == 0);
    pthread_join(thread, NULL);
    CHECK_INT(call(plugin, "hello"), 0);
  }
  extism_plugin_free(plugin);
  return true;
}

/* How a child ends that does this. */
static int end_of(void (*body)(void)) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    body();
    _exit(99);
  }
  return outcome_of(child);
}

static ExtismPlugin *kept;

static void use_at_exit(void) {
  if (!use(kept) || !make_use_and_free()) _exit(1);
  extism_plugin_free(kept);
  if (call(kept, "hello") != -1) _exit(2);
}

static void use_and_exit(void) {
  atexit(use_at_exit);
  kept = new_plugin(count, NULL);
  exit(kept && use(kept) ? 7 : 3);
}

static void use_at_exit_only(void) {
  kept = new_plugin(count, NULL);
  atexit(use_at_exit);
  exit(7);
}

static bool test_in_handlers_of_exit(void) {
  CHECK_INT(end_of(use_and_exit), 7);
  CHECK_INT(end_of(use_at_exit_only), 7);
  return true;
}

/* A fork in such a place, beside threads that use the library. */
static int use_in_child(void) { return make_use_and_free() ? 0 : 1; }

static void fork_at_exit(void) {
  for (int i = 0; i < 10; i++) {
    pid_t child = fork();
    if (child == 0) _exit(use_in_child());
    if (outcome_of(child) != 0) _exit(1);
  }
}

static void fork_at_end_of_thread(void *unused) {
  (void)unused;
  fork_at_exit();
}

static void *end_with_fork(void *unused) {
  NOTE(make_use_and_free());
  pthread_setspecific(key, &key);
  return unused;
}

static void begin_threads(void);

static void end_and_exit(void) {
  pthread_t thread;
  pthread_key_create(&key, fork_at_end_of_thread);
  pthread_create(&thread, NULL, end_with_fork, NULL);
  pthread_join(thread, NULL);
  begin_threads();
  make_use_and_free();
  atexit(fork_at_exit);
  exit(7);
}

static bool test_fork_at_the_end(void) {
  CHECK_INT(end_of(end_and_exit), 7);
  return true;
}

/* Exit while threads call for ever, with and without a deadline. */
static atomic_int running;

static void *call_for_ever(void *argument) {
  const char *function = argument;
  ExtismPlugin *plugin = new_plugin(nothing, NULL);
  running++;
  for (;;) call(plugin, function);
  return NULL;
}

static void *make_for_ever(void *argument) {
  (void)argument;
  running++;
  for (;;) extism_plugin_free(new_plugin(nothing, NULL));
  return NULL;
}

static void begin_threads(void) {
  static const char *const functions[] = {"spin", "trap", "hello", "write"};
  pthread_t thread;
  for (int i = 0; i < 4; i++) pthread_create(&thread, NULL, call_for_ever, (void *)functions[i]);
  pthread_create(&thread, NULL, make_for_ever, NULL);
  while (running < 5) check_sleep(1);
  check_sleep(20);
}

static void exit_beside_calls(void) {
  begin_threads();
  exit(7);
}

static void exit_beside_calls_with_use(void) {
  begin_threads();
  use_and_exit();
}

static void quick_exit_beside_calls(void) {
  begin_threads();
  quick_exit(7);
}

static bool test_exit_beside_calls(void) {
  for (int i = 0; i < 5; i++) {
    CHECK_INT(end_of(exit_beside_calls), 7);
    CHECK_INT(end_of(quick_exit_beside_calls), 7);
  }
  CHECK_INT(end_of(exit_beside_calls_with_use), 7);
  return true;
}

/* Exit within a host function, and within a finaliser. */
CALLBACK(exit_here) {
  UNUSED;
  exit(7);
}

static void exit_in_callback(void) { call(new_plugin(exit_here, NULL), "hello"); }

static void exit_in_callback_with_use(void) {
  kept = new_plugin(count, NULL);
  atexit(use_at_exit);
  exit_in_callback();
}

static void *run_body(void *body) {
  (*(void (**)(void))body)();
  return NULL;
}

/* On a short stack the guest runs in a thread of the library. */
static void exit_in_callback_on_a_short_stack(void) {
  void (*body)(void) = exit_in_callback_with_use;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  pthread_t thread;
  pthread_create(&thread, &attributes, run_body, &body);
  pthread_join(thread, NULL);
}

static void exit_now(void *data) {
  (void)data;
  exit(7);
}

static void exit_in_finaliser(void) {
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, count, &calls, exit_now);
  const ExtismFunction *functions[] = {function};
  extism_plugin_free(plugin_with(WAT, functions, 1));
}

static bool test_exit_inside(void) {
  CHECK_INT(end_of(exit_in_callback), 7);
  CHECK_INT(end_of(exit_in_callback_with_use), 7);
  CHECK_INT(end_of(exit_in_callback_on_a_short_stack), 7);
  CHECK_INT(end_of(exit_in_finaliser), 7);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_in_the_destructor_of_a_thread);
  RUN(test_only_in_the_destructor_of_a_thread);
  RUN(test_threads_that_come_and_go);
  RUN(test_in_handlers_of_exit);
#ifndef __SANITIZE_ADDRESS__ /* its allocator takes no locks for a fork */
  RUN(test_fork_at_the_end);
#else
  (void)test_fork_at_the_end;
#endif
  RUN(test_exit_beside_calls);
  RUN(test_exit_inside);
  return check_end();
}
