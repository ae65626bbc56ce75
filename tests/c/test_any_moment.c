/* Whatever a host does to a plug-in, from other threads and from inside of host functions, at any
 * moment of its calls: answers at once, the call ends as it should, and nobody waits for ever. */
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <extism.h>

#include "guest.h"

#define WASI(NAME, TYPE) \
  "(import \"wasi_snapshot_preview1\" \"" NAME "\" (func $" NAME " " TYPE "))"
#define SLEEP(NANOSECONDS)                                                                  \
  "(i64.store (i32.const 224) (i64.const " #NANOSECONDS "))"                                \
  "(drop (call $poll_oneoff (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 400)))"
#define WAT                                                                                 \
  GUEST(USER("f", "") ENV("config_get", "(param i64) (result i64)")                         \
            ENV("var_set", "(param i64 i64)")                                               \
            WASI("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),                    \
        DATA("output!key")                                                                  \
        FUNC("run", "(call $f)" OUTPUT(7)) FUNC("nothing", "") FUNC("output", OUTPUT(7))    \
        FUNC("work", OUTPUT(7) "(call $f) (drop (call $config_get " BLOCK(7, 3) "))"        \
                     "(call $var_set " BLOCK(7, 3) BLOCK(0, 7) ") (call $f)" OUTPUT(7))     \
        FUNC_I32("fail", FAIL(7) "(i32.const 3)") FUNC("trap", OUTPUT(7) "unreachable")     \
        FUNC("spin", "(call $f) (loop $l (br $l))")                                         \
        FUNC("sleep", "(call $f)" SLEEP(3600000000000)) FUNC("nap", SLEEP(100000))          \
        FUNC("_start", OUTPUT(7) "(call $f)"))

static ExtismPlugin *new_plugin(ExtismFunctionType callback, void *data, const char *fields) {
  char text[MANIFEST_SIZE];
  manifest(text, WAT, fields);
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, callback, data, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(text, functions, 1);
  extism_function_free(function);
  return plugin;
}

static unsigned next_random(unsigned *seed) { return *seed = *seed * 1103515245u + 12345u, *seed >> 16; }

CALLBACK(tell_nothing) { UNUSED; }

/* Several threads do everything to a few plug-ins that they share, which come and go. */
enum { SLOTS = 3, THREADS = 6 };
static _Atomic(ExtismPlugin *) slots[SLOTS];
static atomic_bool over;
static atomic_int calls_made, calls_good;

static bool is_possible(int32_t code) {
  return code == 0 || code == 3 || code == 134 || code == -1;
}

static void do_something(unsigned *seed, int depth);

static ExtismCompiledPlugin *compiled;

CALLBACK(meddle) {
  UNUSED;
  unsigned seed = (unsigned)(uintptr_t)&seed ^ (unsigned)calls_made;
  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 100);
  if (block) NOTE(extism_current_plugin_memory_length(plugin, block) == 100);
  NOTE(extism_current_plugin_memory(plugin) != NULL);
  for (int i = 0; i < 3; i++) do_something(&seed, 1);
  NOTE(extism_current_plugin_memory(plugin) != NULL); /* also if it was freed meanwhile */
  extism_current_plugin_memory_free(plugin, block);
}

static void replace(_Atomic(ExtismPlugin *) *slot) {
  ExtismPlugin *fresh = extism_plugin_new_from_compiled(compiled, NULL);
  NOTE(fresh != NULL);
  extism_plugin_free(atomic_exchange(slot, fresh));
}

static void do_something(unsigned *seed, int depth) {
  static const char *const names[] = {"work", "run",  "nothing", "fail", "trap",
                                      "nap",  "spin", "sleep",   "none", "_start"};
  _Atomic(ExtismPlugin *) *slot = &slots[next_random(seed) % SLOTS];
  ExtismPlugin *plugin = *slot;
  switch (next_random(seed) % (depth ? 13 : 17)) {
    case 0: extism_plugin_output_length(plugin); break;
    case 1: extism_plugin_output_data(plugin); break;
    case 2: {
      const char *error = extism_plugin_error(plugin);
      if (error) NOTE(strlen(error) < 10000); /* it stays readable for this thread */
      break;
    }
    case 3: extism_plugin_reset(plugin); break;
    case 4: extism_plugin_config(plugin, (const uint8_t *)"{\"key\": \"x\"}", 12); break;
    case 5: extism_plugin_config(plugin, (const uint8_t *)"wrong", 5); break;
    case 6: extism_plugin_cancel(extism_plugin_cancel_handle(plugin)); break;
    case 7: extism_plugin_function_exists(plugin, "work"); break;
    case 8: extism_plugin_id(plugin); break;
    case 9: extism_plugin_allow_http_response_headers(plugin); break;
    case 10: extism_last_error(); break;
    case 11:
      if (next_random(seed) % 8 == 0) replace(slot);
      break;
    default: {
      int32_t code = call(plugin, names[next_random(seed) % (depth ? 6 : 10)]);
      NOTE(is_possible(code));
      NOTE((code == -1 || code == 134) == (extism_last_error() != NULL) || code == 3);
      calls_made++;
      if (code == 0) calls_good++;
    }
  }
}

static void *do_everything(void *seed) {
  while (!over) do_something(seed, 0);
  return NULL;
}

static bool storm(size_t stack) {
  char text[MANIFEST_SIZE];
  manifest(text, WAT, "\"timeout_ms\": 20");
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, meddle, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  compiled =
      extism_compiled_plugin_new((const uint8_t *)text, strlen(text), functions, 1, true, NULL);
  CHECK(compiled != NULL);
  for (int i = 0; i < SLOTS; i++) replace(&slots[i]);
  pthread_t threads[THREADS];
  unsigned seeds[THREADS];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (stack) pthread_attr_setstacksize(&attributes, stack);
  for (int i = 0; i < THREADS; i++) {
    seeds[i] = (unsigned)i + 1;
    CHECK(!pthread_create(&threads[i], &attributes, do_everything, &seeds[i]));
  }
  check_sleep(2000 * check_slowdown());
  over = true;
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  pthread_attr_destroy(&attributes);
  for (int i = 0; i < SLOTS; i++) {
    int32_t code = 134; /* all of them still work, though 20 ms may be short for it */
    for (int tries = 0; tries < 100 && code == 134; tries++) code = call(slots[i], "output");
    CHECK_INT(code, 0);
    CHECK(output_is(slots[i], "output!"));
    extism_plugin_free(slots[i]);
  }
  extism_compiled_plugin_free(compiled);
  extism_function_free(function);
  CHECK(calls_made > 50 && calls_good > 10);
  return true;
}

static bool test_storm(void) { return storm(0); }
static bool test_storm_on_short_stacks(void) { return storm(128 * 1024); }

/* A current-plugin handle that was kept, used without a pause by two threads while callbacks begin and
 * end, and while its plug-in goes. */
static _Atomic(ExtismCurrentPlugin *) kept;
static atomic_int inside_of_it;

CALLBACK(keep) {
  UNUSED;
  kept = plugin;
  inside_of_it++;
  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 64);
  NOTE(block && extism_current_plugin_memory_length(plugin, block) == 64);
  extism_current_plugin_memory_free(plugin, block);
}

static void *use_kept(void *found) {
  while (!over) {
    ExtismCurrentPlugin *plugin = kept;
    ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 64);
    NOTE((block == 0) == (extism_last_error() != NULL));
    extism_current_plugin_memory_length(plugin, block);
    /* Not the block itself: by now another call may have a block of this handle. */
    extism_current_plugin_memory_free(plugin, block + 1);
    extism_current_plugin_memory(plugin);
    extism_current_plugin_host_context(plugin);
    if (block) *(int *)found += 1;
  }
  return NULL;
}

static bool test_a_kept_handle_in_threads(void) {
  pthread_t threads[2];
  int found[2] = {0};
  ExtismPlugin *plugin = new_plugin(keep, NULL, "");
  CHECK(plugin != NULL);
  for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, use_kept, &found[i]));
  for (int round = 0; round < 40; round++) {
    for (int i = 0; i < 500; i++) CHECK_INT(call(plugin, "run"), 0);
    CHECK(output_is(plugin, "output!"));
    extism_plugin_free(plugin);
    plugin = new_plugin(keep, NULL, "");
  }
  over = true;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  CHECK_INT(inside_of_it, 20000);
  CHECK(extism_current_plugin_memory(kept) == NULL && extism_last_error());
  extism_plugin_free(plugin);
  return true;
}

/* A block of the callback, freed by another thread while the callback waits for it. */
static ExtismMemoryHandle lent;

static void *free_lent(void *unused) {
  (void)unused;
  NOTE(extism_current_plugin_memory_length(kept, lent) == 64);
  extism_current_plugin_memory_free(kept, lent);
  NOTE(extism_last_error() == NULL);
  return NULL;
}

CALLBACK(lend_block) {
  UNUSED;
  kept = plugin;
  lent = extism_current_plugin_memory_alloc(plugin, 64);
  pthread_t thread;
  NOTE(lent && pthread_create(&thread, NULL, free_lent, NULL) == 0);
  pthread_join(thread, NULL);
  NOTE(extism_current_plugin_memory_length(plugin, lent) == 0);
  NOTE(extism_current_plugin_memory_alloc(plugin, 64) != 0);
}

static bool test_a_block_freed_by_another_thread(void) {
  ExtismPlugin *plugin = new_plugin(lend_block, NULL, "");
  CHECK(plugin != NULL);
  for (int i = 0; i < 50; i++) CHECK_INT(call(plugin, "run"), 0);
  CHECK(output_is(plugin, "output!"));
  extism_plugin_free(plugin);
  return true;
}

/* The first use of the library, by many threads at once. */
static pthread_barrier_t all_ready;

static void *use_first(void *unused) {
  pthread_barrier_wait(&all_ready);
  ExtismPlugin *plugin = new_plugin(tell_nothing, NULL, "\"timeout_ms\": 3000");
  NOTE(plugin && call(plugin, "output") == 0 && call(plugin, "spin") == 134);
  extism_plugin_free(plugin);
  return unused;
}

static bool test_first_use_by_many_threads(void) {
  pthread_t threads[16];
  pthread_barrier_init(&all_ready, NULL, 16);
  for (int i = 0; i < 16; i++) CHECK(!pthread_create(&threads[i], NULL, use_first, NULL));
  for (int i = 0; i < 16; i++) pthread_join(threads[i], NULL);
  return true;
}

/* A thread in a call that does not end by itself: in a host function, in a loop, asleep. */
static sem_t inside, leave;

CALLBACK(wait_here) {
  UNUSED;
  sem_post(&inside);
  sem_wait(&leave);
}

CALLBACK(tell) {
  UNUSED;
  sem_post(&inside);
}

struct caller {
  ExtismPlugin *plugin;
  const char *function;
  int32_t code;
  pthread_t thread;
};

static void *call_in_thread(void *argument) {
  struct caller *caller = argument;
  caller->code = call(caller->plugin, caller->function);
  return NULL;
}

static bool begin(struct caller *caller, ExtismPlugin *plugin, const char *function) {
  *caller = (struct caller){.plugin = plugin, .function = function};
  CHECK(pthread_create(&caller->thread, NULL, call_in_thread, caller) == 0);
  sem_wait(&inside);
  return true;
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* All but calls, cancel and free, and that none of it waits for the call. */
static bool answers_at_once(ExtismPlugin *plugin) {
  double start = now();
  CHECK_INT(extism_plugin_output_length(plugin), 0);
  CHECK(extism_plugin_output_data(plugin) != NULL);
  CHECK(extism_plugin_id(plugin) != NULL);
  CHECK(extism_plugin_function_exists(plugin, "run"));
  CHECK(extism_plugin_config(plugin, (const uint8_t *)"{\"key\": null}", 13));
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK(!extism_plugin_reset(plugin));
  CHECK_CONTAINS(extism_plugin_error(plugin), "while a call runs");
  CHECK(!extism_plugin_config(plugin, (const uint8_t *)"[]", 2));
  CHECK_CONTAINS(extism_plugin_error(plugin), "JSON");
  CHECK(extism_plugin_cancel_handle(plugin) != NULL);
  CHECK(now() - start < 1.0 * check_slowdown());
  return true;
}

static bool ends_by(const char *function, ExtismFunctionType callback, bool by_free) {
  ExtismPlugin *plugin = new_plugin(callback, NULL, "");
  const ExtismCancelHandle *cancel = extism_plugin_cancel_handle(plugin);
  struct caller caller;
  CHECK(plugin && begin(&caller, plugin, function));
  check_sleep(5);
  CHECK(answers_at_once(plugin));
  double start = now();
  if (by_free) {
    extism_plugin_free(plugin);
    CHECK(extism_last_error() == NULL);
    CHECK_INT(call(plugin, "run"), -1);
  }
  CHECK(extism_plugin_cancel(cancel));
  sem_post(&leave);
  pthread_join(caller.thread, NULL);
  CHECK(now() - start < 2.0 * check_slowdown());
  CHECK_INT(caller.code, 134);
  if (!by_free) {
    CHECK(extism_plugin_function_exists(plugin, "run")); /* what was refused before is forgotten */
    CHECK_TEXT(extism_plugin_error(plugin), "cancelled");
  }
  CHECK_INT(extism_plugin_cancel(cancel), !by_free);
  extism_plugin_free(plugin);
  return true;
}

static bool test_while_a_guest_loops(void) {
  return ends_by("spin", tell, false) && ends_by("spin", tell, true);
}
static bool test_while_a_guest_sleeps(void) {
  return ends_by("sleep", tell, false) && ends_by("sleep", tell, true);
}
static bool test_while_a_host_function_runs(void) {
  return ends_by("spin", wait_here, false) && ends_by("sleep", wait_here, true);
}

/* A start function that loops: the first call, in which there is no instance yet. */
static bool test_while_a_start_function_loops(void) {
  for (int by_free = 0; by_free < 2; by_free++) {
    const ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, tell, NULL, NULL);
    ExtismPlugin *plugin = plugin_with(
        GUEST(USER("f", ""), "(func $start (call $f) (loop $l (br $l))) (start $start)"
              FUNC("run", "")), &function, 1);
    const ExtismCancelHandle *cancel = extism_plugin_cancel_handle(plugin);
    struct caller caller;
    CHECK(plugin && begin(&caller, plugin, "run"));
    CHECK(answers_at_once(plugin));
    if (by_free) extism_plugin_free(plugin);
    CHECK(extism_plugin_cancel(cancel));
    pthread_join(caller.thread, NULL);
    CHECK_INT(caller.code, 134);
    extism_plugin_free(plugin);
    extism_function_free((ExtismFunction *)function);
  }
  return true;
}

/* A host function that waits for another thread, which does all this to its plug-in. A call from
 * there cannot be had, and ends by its own time; everything else has its answer. */
static void *use_from_thread(void *plugin) {
  NOTE(answers_at_once(plugin));
  double start = now();
  NOTE(call(plugin, "nothing") == 134);
  NOTE(now() - start > 0.05);
  const char *error = extism_plugin_error(plugin);
  NOTE(error && strcmp(error, "timeout") == 0);
  extism_plugin_free(plugin);
  NOTE(extism_last_error() == NULL);
  return NULL;
}

CALLBACK(wait_for_thread) {
  UNUSED;
  pthread_t thread;
  NOTE(pthread_create(&thread, NULL, use_from_thread, *(void **)data) == 0);
  pthread_join(thread, NULL);
}

static bool test_from_a_thread_that_a_host_function_waits_for(void) {
  ExtismPlugin *plugin = NULL;
  plugin = new_plugin(wait_for_thread, &plugin, "\"timeout_ms\": 100");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "spin"), 134); /* its time was over meanwhile */
  CHECK_INT(call(plugin, "run"), -1);
  return true;
}

/* Many wait for their turn as the plug-in is freed: each is told. */
static bool test_free_while_calls_wait(void) {
  for (int i = 0; i < 20; i++) {
    ExtismPlugin *plugin = new_plugin(wait_here, NULL, "");
    struct caller first, others[8];
    CHECK(plugin && begin(&first, plugin, "run"));
    for (int j = 0; j < 8; j++) {
      others[j] = (struct caller){.plugin = plugin, .function = "nothing"};
      CHECK(!pthread_create(&others[j].thread, NULL, call_in_thread, &others[j]));
    }
    check_sleep(i % 4);
    extism_plugin_free(plugin);
    for (int j = 0; j < 8; j++) {
      pthread_join(others[j].thread, NULL);
      CHECK_INT(others[j].code, -1);
    }
    sem_post(&leave);
    pthread_join(first.thread, NULL);
    CHECK_INT(first.code, 0);
  }
  return true;
}

/* Circles: the host function of each plug-in calls the next one, in as many threads as there are
 * plug-ins. Each time at least one is refused as busy, and all go on. */
enum { MOST = 5 };
static ExtismPlugin *ring[MOST];
static int ring_size;
static pthread_barrier_t all_inside;
static atomic_int refused;

CALLBACK(call_next) {
  UNUSED;
  int me = (int)(intptr_t)data;
  pthread_barrier_wait(&all_inside);
  ExtismPlugin *next = ring[(me + 1) % ring_size];
  int32_t code = call(next, "nothing");
  const char *error = extism_plugin_error(next);
  NOTE(code == 0 || (code == -1 && error && strstr(error, "busy")));
  if (code != 0) refused++;
}

static bool test_circles(void) {
  for (ring_size = 2; ring_size <= MOST; ring_size++) {
    pthread_barrier_init(&all_inside, NULL, (unsigned)ring_size);
    for (int i = 0; i < ring_size; i++) {
      ring[i] = new_plugin(call_next, (void *)(intptr_t)i, "");
      CHECK(ring[i] != NULL);
    }
    for (int round = 0; round < 50; round++) {
      struct caller callers[MOST];
      refused = 0;
      for (int i = 0; i < ring_size; i++) {
        callers[i] = (struct caller){.plugin = ring[i], .function = "run"};
        CHECK(!pthread_create(&callers[i].thread, NULL, call_in_thread, &callers[i]));
      }
      for (int i = 0; i < ring_size; i++) {
        pthread_join(callers[i].thread, NULL);
        CHECK_INT(callers[i].code, 0);
      }
      CHECK(refused >= 1 && refused < ring_size);
    }
    for (int i = 0; i < ring_size; i++) extism_plugin_free(ring[i]);
    pthread_barrier_destroy(&all_inside);
  }
  return true;
}

/* Without a plan: each host function calls any other plug-in, several deep, in several threads. */
static atomic_int depth_reached;

CALLBACK(call_any) {
  UNUSED;
  int depth = (int)(intptr_t)extism_current_plugin_host_context(plugin);
  if (depth > depth_reached) depth_reached = depth;
  if (depth >= 4) return;
  unsigned seed = (unsigned)calls_made++ * 7919u;
  for (int i = 0; i < 2; i++) {
    ExtismPlugin *other = ring[next_random(&seed) % MOST];
    int32_t code = extism_plugin_call_with_host_context(other, "run", NULL, 0,
                                                        (void *)(intptr_t)(depth + 1));
    NOTE(code == 0 || code == -1);
  }
}

static void *call_in_ring(void *seed) {
  while (!over) {
    int32_t code = call(ring[next_random(seed) % MOST], "run");
    NOTE(code == 0 || code == -1);
    if (code == 0) calls_good++;
  }
  return NULL;
}

static bool test_calls_in_all_directions(void) {
  for (int i = 0; i < MOST; i++) {
    ring[i] = new_plugin(call_any, NULL, "");
    CHECK(ring[i] != NULL);
  }
  pthread_t threads[4];
  unsigned seeds[] = {1, 2, 3, 4};
  for (int i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], NULL, call_in_ring, &seeds[i]));
  check_sleep(2000 * check_slowdown());
  over = true;
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  CHECK(calls_good > 20 && depth_reached >= 2);
  for (int i = 0; i < MOST; i++) CHECK_INT(call(ring[i], "nothing"), 0);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  sem_init(&inside, 0, 0);
  sem_init(&leave, 0, 0);
  RUN(test_storm);
  RUN(test_storm_on_short_stacks);
  RUN(test_a_kept_handle_in_threads);
  RUN(test_a_block_freed_by_another_thread);
  RUN(test_first_use_by_many_threads);
  RUN(test_while_a_guest_loops);
  RUN(test_while_a_guest_sleeps);
  RUN(test_while_a_host_function_runs);
  RUN(test_while_a_start_function_loops);
  RUN(test_from_a_thread_that_a_host_function_waits_for);
  RUN(test_free_while_calls_wait);
  RUN(test_circles);
  RUN(test_calls_in_all_directions);
  return check_end();
}
