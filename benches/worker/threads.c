/* Calls in several threads, timeouts and cancels. */
#include "worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
  ExtismPlugin *plugin;
  uint64_t calls;
  pthread_barrier_t *start;
} Caller;

static ExtismCompiledPlugin *compiled;
static ExtismPlugin **plugins;
static Bytes input;

static void set_up_threads(void) {
  compiled = new_compiled(source());
  input = input_bytes();
  plugins = allocate(options.count * sizeof *plugins);
  for (uint64_t i = 0; i < options.count; i++) {
    plugins[i] = new_from_compiled(compiled);
    call(plugins[i], input);
  }
}

static void *run_caller(void *argument) {
  Caller *caller = argument;
  pthread_barrier_wait(caller->start);
  int32_t codes = 0;
  for (uint64_t i = 0; i < caller->calls; i++)
    codes |= lib.plugin_call(caller->plugin, options.call, input.data, input.size);
  if (codes != 0) call_failed(caller->plugin, codes);
  return NULL;
}

/* Nanoseconds until so many threads, each with a plug-in of its own, have made their calls. */
static double run_threads(uint64_t threads, uint64_t calls) {
  pthread_t *ids = allocate(threads * sizeof *ids);
  Caller *callers = allocate(threads * sizeof *callers);
  pthread_barrier_t start;
  pthread_barrier_init(&start, NULL, (unsigned)threads + 1);
  for (uint64_t i = 0; i < threads; i++) {
    callers[i] = (Caller){plugins[i], calls, &start};
    if (pthread_create(&ids[i], NULL, run_caller, &callers[i])) fail("cannot start a thread");
  }
  uint64_t begin = now();
  pthread_barrier_wait(&start);
  for (uint64_t i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  uint64_t end = now();
  pthread_barrier_destroy(&start);
  free(ids);
  free(callers);
  return (double)(end - begin);
}

/* Nanoseconds for that many calls in each of `count` threads. */
static double measure_threads(uint64_t calls) { return run_threads(options.count, calls); }

/* Calls per second of `count` threads, as a multiple of those of one. */
static double measure_scaling(uint64_t calls) {
  double one = run_threads(1, calls);
  double all = run_threads(options.count, calls);
  return (double)options.count * one / all;
}

static int compare(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static double median(double *values, uint64_t count) {
  qsort(values, count, sizeof *values, compare);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static ExtismPlugin *plugin;

static void set_up_spin(void) {
  plugin = new_plugin(source());
  call_any(plugin, "empty", (Bytes){0});
}

/* By how much calls that never end outlast their timeout: the median, in nanoseconds. */
static double measure_overshoot(uint64_t iterations) {
  double *over = allocate(iterations * sizeof *over);
  for (uint64_t i = 0; i < iterations; i++) {
    uint64_t begin = now();
    int32_t code = call_any(plugin, "spin", (Bytes){0});
    over[i] = (double)(now() - begin) - (double)options.timeout_ms * 1e6;
    if (code == 0) fail("a call that loops for ever ended without an error");
  }
  double middle = median(over, iterations);
  free(over);
  return middle;
}

static _Atomic uint64_t returned;

static void *run_spin(void *unused) {
  (void)unused;
  int32_t code = call_any(plugin, "spin", (Bytes){0});
  returned = now();
  if (code == 0) fail("a call that loops for ever ended without an error");
  return NULL;
}

static void sleep_us(long microseconds) {
  nanosleep(&(struct timespec){.tv_nsec = microseconds * 1000}, NULL);
}

/* From a cancel to the return of the call, which loops: the median, in nanoseconds. */
static double measure_cancel(uint64_t iterations) {
  double *latencies = allocate(iterations * sizeof *latencies);
  const ExtismCancelHandle *handle = lib.plugin_cancel_handle(plugin);
  for (uint64_t i = 0; i < iterations; i++) {
    pthread_t thread;
    last_tick = 0;
    if (pthread_create(&thread, NULL, run_spin, NULL)) fail("cannot start a thread");
    while (!last_tick) sleep_us(50);
    sleep_us(500);
    uint64_t begin = now();
    lib.plugin_cancel(handle);
    pthread_join(thread, NULL);
    latencies[i] = (double)(returned - begin);
  }
  double middle = median(latencies, iterations);
  free(latencies);
  return middle;
}

const Metric thread_metrics[] = {
    {"threads", set_up_threads, measure_threads},
    {"scaling", set_up_threads, measure_scaling},
    {"overshoot", set_up_spin, measure_overshoot},
    {"cancel", set_up_spin, measure_cancel},
    {0},
};
