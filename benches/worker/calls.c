/* What calls cost, and what a guest does inside of one. */
#include "worker.h"

#include <string.h>

static ExtismPlugin *plugin;
static Bytes input;

static void set_up_call(void) {
  plugin = new_plugin(source());
  input = input_bytes();
  call(plugin, input);
}

/* Calls of an export. */
static double measure_call(uint64_t iterations) {
  int32_t codes = 0;
  uint64_t begin = now();
  for (uint64_t i = 0; i < iterations; i++)
    codes |= lib.plugin_call(plugin, options.call, input.data, input.size);
  uint64_t end = now();
  if (codes != 0) call_failed(plugin, codes);
  return (double)(end - begin);
}

/* The same with a host context. */
static double measure_call_with_context(uint64_t iterations) {
  int32_t codes = 0;
  uint64_t begin = now();
  for (uint64_t i = 0; i < iterations; i++)
    codes |= lib.plugin_call_with_host_context(plugin, options.call, input.data, input.size, &plugin);
  uint64_t end = now();
  if (codes != 0) call_failed(plugin, codes);
  return (double)(end - begin);
}

static void set_up_loop(void) {
  options.data = true; /* a manifest, which has the configuration */
  plugin = new_plugin(source());
}

/* Iterations inside of one call; `count` is the second number of the guest's input. Its time is that
 * between the two ticks. */
static double measure_loop(uint64_t iterations) {
  uint64_t numbers[2] = {iterations, options.count};
  call(plugin, (Bytes){(uint8_t *)numbers, sizeof numbers});
  return (double)(last_tick - tick_before);
}

const Metric call_metrics[] = {
    {"call", set_up_call, measure_call},
    {"call_with_context", set_up_call, measure_call_with_context},
    {"loop", set_up_loop, measure_loop},
    {0},
};
