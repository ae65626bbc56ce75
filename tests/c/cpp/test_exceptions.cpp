/* C++ exceptions. One that is thrown out of a callback cannot be survived: the process ends at once,
 * with a line that says so, and not with whatever somebody else's catch makes of it. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include <stdexcept>
#include <string>

#include <extism.h>

#include "child.h"
#include "guest.h"

CALLBACK(throws) {
  UNUSED;
  throw std::runtime_error("out of a host function");
}

CALLBACK(throws_a_number) {
  UNUSED;
  throw 42;
}

CALLBACK(nothing) { UNUSED; }

static void throw_in_finaliser(void *data) {
  (void)data;
  throw std::runtime_error("out of a finaliser");
}

static void throw_in_drain(const char *line, ExtismSize size) {
  (void)line, (void)size;
  throw std::runtime_error("out of a drain");
}

#define WAT                                                                              \
  GUEST(USER("f", "") ENV("log_error", "(param i64)"),                                   \
        DATA("hello") FUNC("run", "(call $f)" OUTPUT(5))                                 \
        FUNC("log", "(call $log_error " BLOCK(0, 5) ")"))

static int data;

static ExtismPlugin *new_plugin(ExtismFunctionType callback, void (*finaliser)(void *) = NULL) {
  ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, callback, &data, finaliser);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(WAT, functions, 1);
  extism_function_free(function);
  return plugin;
}

/* The bodies of children, which must not come to their ends. */
static void throw_from_a_host_function() { call(new_plugin(throws), "run"); }

static void throw_a_number() { call(new_plugin(throws_a_number), "run"); }

static void throw_below_a_catch() {
  try {
    call(new_plugin(throws), "run");
  } catch (...) {
    _exit(3);
  }
}

CALLBACK(call_another) {
  UNUSED;
  throw_below_a_catch();
}

static void throw_in_a_nested_call() { call(new_plugin(call_another), "run"); }

static void *throw_in_thread(void *unused) {
  throw_below_a_catch();
  return unused;
}

/* Where the guest runs in a thread of the library. */
static void throw_on_a_short_stack() {
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  pthread_create(&thread, &attributes, throw_in_thread, NULL);
  pthread_join(thread, NULL);
}

static void throw_from_the_finaliser_of_a_plugin() {
  ExtismPlugin *plugin = new_plugin(nothing, throw_in_finaliser);
  try {
    extism_plugin_free(plugin);
  } catch (...) {
    _exit(3);
  }
}

static void throw_from_the_finaliser_of_a_function() {
  ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, nothing, &data, throw_in_finaliser);
  try {
    extism_function_free(function);
  } catch (...) {
    _exit(3);
  }
}

static void throw_from_a_drain() {
  extism_log_custom("error");
  call(new_plugin(nothing), "log");
  try {
    extism_log_drain(throw_in_drain);
  } catch (...) {
    _exit(3);
  }
}

/* A child that does this is aborted, and says why. */
static bool aborts(void (*body)()) {
  static const char path[] = "stderr.txt";
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    if (!freopen(path, "w", stderr)) _exit(2);
    body();
    _exit(1);
  }
  CHECK_INT(outcome_of(child), 1000 + SIGABRT);
  FILE *file = fopen(path, "r");
  char text[4096];
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  remove(path);
  CHECK_CONTAINS(text, "foreign exception");
  CHECK(strchr(text, '\n') == strrchr(text, '\n')); /* one line */
  return true;
}

static bool test_out_of_a_host_function() {
  return aborts(throw_from_a_host_function) && aborts(throw_a_number);
}
static bool test_below_a_catch() { return aborts(throw_below_a_catch); }
static bool test_out_of_a_nested_call() { return aborts(throw_in_a_nested_call); }
static bool test_out_of_a_host_function_on_a_short_stack() { return aborts(throw_on_a_short_stack); }
static bool test_out_of_a_finaliser() {
  return aborts(throw_from_the_finaliser_of_a_plugin) &&
         aborts(throw_from_the_finaliser_of_a_function);
}
static bool test_out_of_a_drain() { return aborts(throw_from_a_drain); }

/* What is caught where it was thrown concerns nobody. */
CALLBACK(catches) {
  try {
    throws(plugin, inputs, n_inputs, outputs, n_outputs, data);
  } catch (const std::runtime_error &error) {
    NOTE(std::string(error.what()) == "out of a host function");
    return;
  }
  NOTE(false);
}

static bool test_caught_in_the_host_function() {
  ExtismPlugin *plugin = new_plugin(catches);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(call(plugin, "run"), 0);
    CHECK(output_is(plugin, "hello"));
  }
  extism_plugin_free(plugin);
  return true;
}

/* The library may be used in destructors that run while an exception unwinds. */
struct Owner {
  ExtismPlugin *plugin;
  ~Owner() {
    NOTE(std::uncaught_exceptions() == 1);
    NOTE(call(plugin, "run") == 0);
    extism_plugin_free(plugin);
  }
};

static bool test_use_while_an_exception_unwinds() {
  try {
    Owner owner{new_plugin(catches)};
    throw std::runtime_error("on the way out");
  } catch (const std::runtime_error &error) {
    CHECK_TEXT(error.what(), "on the way out");
    return true;
  }
  return false;
}

/* Static objects, and those of threads: destroyed when the process and the thread end. */
struct AtEnd {
  ExtismPlugin *plugin = NULL;
  int *result = NULL;
  ~AtEnd() {
    if (!plugin) return;
    bool good = call(plugin, "run") == 0 && output_is(plugin, "hello");
    extism_plugin_free(plugin);
    if (result) *result = good;
    if (!result && !good) _exit(1);
  }
};

static thread_local AtEnd of_thread;

static void *use_and_end(void *result) {
  of_thread.result = (int *)result;
  of_thread.plugin = new_plugin(nothing);
  NOTE(call(of_thread.plugin, "run") == 0);
  return NULL;
}

static void use_and_exit() {
  static AtEnd of_process;
  of_process.plugin = new_plugin(nothing);
  if (call(of_process.plugin, "run") == 0) exit(7);
}

static bool test_static_objects_and_those_of_threads() {
  int good = 0;
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, use_and_end, &good) == 0);
  pthread_join(thread, NULL);
  CHECK(good);
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    use_and_exit();
    _exit(2);
  }
  CHECK_INT(outcome_of(child), 7);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_out_of_a_host_function);
  RUN(test_below_a_catch);
  RUN(test_out_of_a_nested_call);
  RUN(test_out_of_a_host_function_on_a_short_stack);
  RUN(test_out_of_a_finaliser);
  RUN(test_out_of_a_drain);
  RUN(test_caught_in_the_host_function);
  RUN(test_use_while_an_exception_unwinds);
  RUN(test_static_objects_and_those_of_threads);
  return check_end();
}
