/* Several threads: many plug-ins, one plug-in, and what may be done to a call that runs. */
#define _POSIX_C_SOURCE 200809L /* for pthread_barrier_t */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

/* A thread that calls `function` of `plugin`, and what came of it. */
struct caller {
  ExtismPlugin *plugin;
  const char *function;
  int32_t code;
  char error[64]; /* as this thread saw it; empty if there was none */
  pthread_t thread;
};

static void *call_in_thread(void *argument) {
  struct caller *caller = argument;
  caller->code = call(caller->plugin, caller->function);
  const char *error = extism_plugin_error(caller->plugin);
  snprintf(caller->error, sizeof caller->error, "%s", error ? error : "");
  return NULL;
}

static void begin(struct caller *caller, ExtismPlugin *plugin, const char *function) {
  *caller = (struct caller){.plugin = plugin, .function = function};
  if (pthread_create(&caller->thread, NULL, call_in_thread, caller) != 0) abort();
}

static void end(struct caller *caller) { pthread_join(caller->thread, NULL); }

/* `wait` tells the test that its call runs, and stays inside until the test lets it go on. */
static sem_t entered, leave;

CALLBACK(wait) {
  UNUSED;
  sem_post(&entered);
  sem_wait(&leave);
}

#define WAT                                                                               \
  GUEST(USER("wait", ""),                                                                 \
        DATA("output!") "(global $n (mut i32) (i32.const 0))"                             \
        FUNC("waits", "(call $wait)" OUTPUT(7))                                           \
        FUNC("spins", "(call $wait) (loop $l (br $l))")                                   \
        FUNC_I32("fails", FAIL(7) "(i32.const 3)") FUNC("nothing", "")                    \
        FUNC_I32("next", "(local $i i32) (loop $l" /* takes a moment */                   \
                 "(br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))" \
                 " (i32.const 1000))))"                                                   \
                 "(global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)"))

static ExtismCompiledPlugin *compile(const char *fields) {
  char text[MANIFEST_SIZE];
  manifest(text, WAT, fields);
  ExtismFunction *function = extism_function_new("wait", NULL, 0, NULL, 0, wait, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new(
      (const uint8_t *)text, strlen(text), functions, 1, false, NULL);
  extism_function_free(function);
  return compiled;
}

static ExtismPlugin *waiting_plugin(const char *fields) {
  ExtismCompiledPlugin *compiled = compile(fields);
  ExtismPlugin *plugin = extism_plugin_new_from_compiled(compiled, NULL);
  extism_compiled_plugin_free(compiled);
  return plugin;
}

static void *use_own_plugin(void *compiled) {
  ExtismPlugin *plugin = extism_plugin_new_from_compiled(compiled, NULL);
  NOTE(plugin != NULL);
  for (int i = 1; i <= 200; i++) NOTE(call(plugin, "next") == i);
  extism_plugin_free(plugin);
  return NULL;
}

static bool test_one_compiled_many_threads(void) {
  ExtismCompiledPlugin *compiled = compile("");
  CHECK(compiled != NULL);
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) CHECK(!pthread_create(&threads[i], NULL, use_own_plugin, compiled));
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
  extism_compiled_plugin_free(compiled);
  return true;
}

static void *call_100_times(void *plugin) {
  for (int i = 0; i < 100; i++) NOTE(call(plugin, "next") > 0);
  return NULL;
}

static bool test_one_plugin_many_threads(void) {
  ExtismPlugin *plugin = waiting_plugin("");
  CHECK(plugin != NULL);
  pthread_t threads[8];
  for (int i = 0; i < 8; i++) CHECK(!pthread_create(&threads[i], NULL, call_100_times, plugin));
  for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
  CHECK_INT(call(plugin, "next"), 801); /* one after the other, none lost */
  extism_plugin_free(plugin);
  return true;
}

static bool test_second_call_waits(void) {
  ExtismPlugin *plugin = waiting_plugin("");
  CHECK(plugin != NULL);
  struct caller one, two;
  begin(&one, plugin, "waits");
  sem_wait(&entered);
  begin(&two, plugin, "next");
  sem_post(&leave);
  end(&one);
  end(&two);
  CHECK_INT(one.code, 0);
  CHECK_INT(two.code, 1);
  extism_plugin_free(plugin);
  return true;
}

static bool test_waiting_counts_against_the_timeout(void) {
  ExtismPlugin *plugin = waiting_plugin("\"timeout_ms\": 100");
  CHECK(plugin != NULL);
  struct caller one;
  begin(&one, plugin, "waits");
  sem_wait(&entered);
  CHECK(call(plugin, "nothing") != 0);
  CHECK_CONTAINS(extism_plugin_error(plugin), "timeout");
  sem_post(&leave);
  end(&one);
  CHECK_INT(call(plugin, "nothing"), 0);
  extism_plugin_free(plugin);
  return true;
}

static bool test_during_a_call(void) {
  ExtismPlugin *plugin = waiting_plugin("");
  CHECK(plugin != NULL);
  const uint8_t *id = extism_plugin_id(plugin);
  CHECK_INT(call(plugin, "fails"), 3);

  struct caller caller;
  begin(&caller, plugin, "waits");
  sem_wait(&entered);
  NOTE(extism_plugin_output_length(plugin) == 0); /* none of these waits for the call */
  NOTE(extism_plugin_output_data(plugin) != NULL);
  NOTE(extism_plugin_id(plugin) == id);
  NOTE(extism_plugin_function_exists(plugin, "waits"));
  NOTE(extism_plugin_config(plugin, (const uint8_t *)"{\"a\": \"b\"}", 10));
  const char *error = extism_plugin_error(plugin); /* that of the last finished call */
  NOTE(error && strcmp(error, "output!") == 0);
  NOTE(!extism_plugin_reset(plugin));
  error = extism_plugin_error(plugin); /* that of the reset, for this thread */
  NOTE(error && strcmp(error, "output!") != 0);
  sem_post(&leave);
  end(&caller);

  CHECK_INT(caller.code, 0);
  CHECK_TEXT(caller.error, ""); /* what was refused here is not its business */
  CHECK(output_is(plugin, "output!"));
  CHECK(extism_plugin_reset(plugin));
  extism_plugin_free(plugin);
  return true;
}

/* The text that one thread has asked for stays, whatever others do with the plug-in. */
static bool test_error_text_is_the_threads_own(void) {
  ExtismPlugin *plugin = waiting_plugin("");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "fails"), 3);
  const char *error = extism_plugin_error(plugin);
  CHECK_TEXT(error, "output!");
  for (int i = 0; i < 3; i++) {
    struct caller caller;
    begin(&caller, plugin, i == 1 ? "fails" : "nowhere");
    end(&caller);
    CHECK(caller.error[0] != '\0');
  }
  CHECK_TEXT(error, "output!");
  CHECK_TEXT(extism_plugin_error(plugin), "Function not found: nowhere");
  extism_plugin_free(plugin);
  return true;
}

/* While a host function runs, any thread may use its current-plugin handle. */
static void *alloc_in_thread(void *plugin) {
  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 10);
  NOTE(block != 0);
  NOTE(extism_current_plugin_memory_length(plugin, block) == 10);
  NOTE(extism_current_plugin_memory(plugin) != NULL);
  return NULL;
}

CALLBACK(use_threads) {
  UNUSED;
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) {
    NOTE(!pthread_create(&threads[i], NULL, alloc_in_thread, plugin));
  }
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

static bool test_current_plugin_in_other_threads(void) {
  ExtismFunction *function =
      extism_function_new("wait", NULL, 0, NULL, 0, use_threads, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(WAT, functions, 1);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "waits"), 0);
  extism_plugin_free(plugin);
  extism_function_free(function);
  return true;
}

static bool test_cancel(void) {
  ExtismPlugin *plugin = waiting_plugin("");
  CHECK(plugin != NULL);
  const ExtismCancelHandle *handle = extism_plugin_cancel_handle(plugin);
  CHECK(extism_plugin_cancel(handle)); /* nothing runs: nothing is cancelled */
  CHECK_INT(call(plugin, "next"), 1);

  for (int i = 0; i < 3; i++) {
    struct caller caller;
    begin(&caller, plugin, "spins");
    sem_wait(&entered);
    sem_post(&leave);
    CHECK(extism_plugin_cancel(handle));
    end(&caller);
    CHECK_INT(caller.code, 134);
    CHECK_TEXT(caller.error, "cancelled");
    CHECK_INT(call(plugin, "next"), i + 2);
    CHECK(extism_plugin_error(plugin) == NULL);
  }
  extism_plugin_free(plugin);
  return true;
}

/* Two plug-ins of one compiled plug-in: what ends one leaves the other alone. */
static bool test_cancel_reaches_one_plugin(void) {
  ExtismCompiledPlugin *compiled = compile("");
  ExtismPlugin *cancelled = extism_plugin_new_from_compiled(compiled, NULL);
  ExtismPlugin *other = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(cancelled && other);
  struct caller one, two;
  begin(&one, cancelled, "spins");
  sem_wait(&entered);
  begin(&two, other, "waits");
  sem_wait(&entered);
  sem_post(&leave);
  sem_post(&leave);
  CHECK(extism_plugin_cancel(extism_plugin_cancel_handle(cancelled)));
  end(&one);
  end(&two);
  CHECK_INT(one.code, 134);
  CHECK_INT(two.code, 0);
  extism_plugin_free(cancelled);
  extism_plugin_free(other);
  extism_compiled_plugin_free(compiled);
  return true;
}

static bool test_timeout_reaches_one_plugin(void) {
  ExtismCompiledPlugin *compiled = compile("\"timeout_ms\": 200");
  ExtismPlugin *spinning = extism_plugin_new_from_compiled(compiled, NULL);
  ExtismPlugin *other = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(spinning && other);
  struct caller caller;
  begin(&caller, spinning, "spins");
  sem_wait(&entered);
  sem_post(&leave);
  for (int i = 1; i <= 50; i++) CHECK_INT(call(other, "next"), i);
  end(&caller);
  CHECK_INT(caller.code, 134);
  CHECK_TEXT(caller.error, "timeout");
  CHECK_INT(call(other, "next"), 51);
  extism_plugin_free(spinning);
  extism_plugin_free(other);
  extism_compiled_plugin_free(compiled);
  return true;
}

static bool test_free_during_a_call(void) {
  ExtismPlugin *plugin = waiting_plugin("");
  CHECK(plugin != NULL);
  const uint8_t *id = extism_plugin_id(plugin);
  const ExtismCancelHandle *handle = extism_plugin_cancel_handle(plugin);
  struct caller caller;
  begin(&caller, plugin, "spins");
  sem_wait(&entered);
  extism_plugin_free(plugin); /* returns at once */
  NOTE(call(plugin, "nothing") == -1);
  NOTE((id[6] >> 4) == 4); /* but id and cancel handle are good until the call has left */
  sem_post(&leave);
  CHECK(extism_plugin_cancel(handle));
  end(&caller);
  CHECK_INT(caller.code, 134);
  CHECK(!extism_plugin_cancel(handle));
  return true;
}

static atomic_int finalised;

static void finalise(void *data) {
  (void)data;
  finalised++;
}

/* A running call is a user of its functions, whatever is freed meanwhile. */
static bool test_finaliser_after_the_call(void) {
  finalised = 0;
  ExtismFunction *function =
      extism_function_new("wait", NULL, 0, NULL, 0, wait, &finalised, finalise);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(WAT, functions, 1);
  CHECK(plugin != NULL);
  extism_function_free(function);
  struct caller caller;
  begin(&caller, plugin, "waits");
  sem_wait(&entered);
  extism_plugin_free(plugin);
  NOTE(finalised == 0);
  sem_post(&leave);
  end(&caller);
  CHECK_INT(caller.code, 0);
  CHECK_INT(finalised, 1);
  return true;
}

/* Two plug-ins whose host functions call each other's: each thread waits for what the other
 * has. Such a circle is refused to (at least) one of them, and the other goes on. */
static pthread_barrier_t both_inside;
static atomic_int refused;

CALLBACK(call_other) {
  UNUSED;
  ExtismPlugin *other = *(ExtismPlugin **)data;
  pthread_barrier_wait(&both_inside);
  if (call(other, "nothing") == 0) return;
  const char *error = extism_plugin_error(other);
  NOTE(error && strstr(error, "busy"));
  refused++;
}

static bool test_circle(void) {
  ExtismPlugin *plugins[2];
  for (int i = 0; i < 2; i++) {
    ExtismFunction *function =
        extism_function_new("wait", NULL, 0, NULL, 0, call_other, &plugins[1 - i], NULL);
    const ExtismFunction *functions[] = {function};
    plugins[i] = plugin_with(WAT, functions, 1);
    extism_function_free(function);
  }
  CHECK(plugins[0] && plugins[1]);
  pthread_barrier_init(&both_inside, NULL, 2);
  refused = 0;
  struct caller one, two;
  begin(&one, plugins[0], "waits");
  begin(&two, plugins[1], "waits");
  end(&one);
  end(&two);
  CHECK_INT(one.code, 0);
  CHECK_INT(two.code, 0);
  CHECK(refused >= 1);
  pthread_barrier_destroy(&both_inside);
  extism_plugin_free(plugins[0]);
  extism_plugin_free(plugins[1]);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  sem_init(&entered, 0, 0);
  sem_init(&leave, 0, 0);
  RUN(test_one_compiled_many_threads);
  RUN(test_one_plugin_many_threads);
  RUN(test_second_call_waits);
  RUN(test_waiting_counts_against_the_timeout);
  RUN(test_during_a_call);
  RUN(test_error_text_is_the_threads_own);
  RUN(test_current_plugin_in_other_threads);
  RUN(test_cancel);
  RUN(test_cancel_reaches_one_plugin);
  RUN(test_timeout_reaches_one_plugin);
  RUN(test_free_during_a_call);
  RUN(test_finaliser_after_the_call);
  RUN(test_circle);
  return check_end();
}
