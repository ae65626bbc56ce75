/* What a plug-in in plain C needs to talk to its host: the functions that libextism
 * offers in the module "extism:host/env", and a few helpers on top of them.
 *
 * A plug-in cannot reach the host's memory, and the host leaves the plug-in's own memory
 * alone. Between the two lies a third one, the Extism memory. Data in it is named by a
 * handle: a 64-bit offset, 0 for "none". A plug-in copies bytes in and out with the load
 * and store functions, eight at a time where it can.
 *
 * An exported function takes no parameters and returns an int32_t: 0 for success. It
 * reads its input and sets its output with the functions below. Before each call the
 * library empties the Extism memory; the plug-in's own variables keep their values.
 */
#ifndef EXTISM_PDK_H
#define EXTISM_PDK_H

#include <stdint.h>

/* EXTISM_EXPORT(greet) { ...; return 0; } defines a function that the host can call. */
#define EXTISM_EXPORT(NAME) __attribute__((export_name(#NAME))) int32_t NAME(void)

/* EXTISM_HOST(int64_t, lookup, (int64_t key)); declares a function that the host offers. */
#define EXTISM_HOST(TYPE, NAME, PARAMETERS) \
  __attribute__((import_module("extism:host/user"), import_name(#NAME))) TYPE NAME PARAMETERS

/* A function that every libextism offers. */
#define EXTISM_ENV(TYPE, NAME, PARAMETERS)                               \
  __attribute__((import_module("extism:host/env"), import_name(#NAME))) \
  TYPE extism_##NAME PARAMETERS

/* The input of this call. Past its end the loads give 0. */
EXTISM_ENV(uint64_t, input_length, (void));
EXTISM_ENV(uint32_t, input_load_u8, (uint64_t offset));
EXTISM_ENV(uint64_t, input_load_u64, (uint64_t offset));

/* Blocks of Extism memory. Everything is freed before the next call at the latest. */
EXTISM_ENV(uint64_t, alloc, (uint64_t length));
EXTISM_ENV(void, free, (uint64_t handle));
EXTISM_ENV(uint64_t, length, (uint64_t handle));
EXTISM_ENV(uint32_t, load_u8, (uint64_t offset));
EXTISM_ENV(uint64_t, load_u64, (uint64_t offset));
EXTISM_ENV(void, store_u8, (uint64_t offset, uint32_t byte));
EXTISM_ENV(void, store_u64, (uint64_t offset, uint64_t word));

/* The output of this call, and the text that the host reads when the call fails. */
EXTISM_ENV(void, output_set, (uint64_t offset, uint64_t length));
EXTISM_ENV(void, error_set, (uint64_t handle));

/* A new block with a copy of the input. */
static inline uint64_t extism_input_block(void) {
  uint64_t length = extism_input_length();
  uint64_t handle = extism_alloc(length);
  for (uint64_t i = 0; i < length; i++) extism_store_u8(handle + i, extism_input_load_u8(i));
  return handle;
}

/* A new block with a copy of `length` bytes of the plug-in's own memory. */
static inline uint64_t extism_store(const void *from, uint64_t length) {
  const uint8_t *bytes = from;
  uint64_t handle = extism_alloc(length);
  for (uint64_t i = 0; i < length; i++) extism_store_u8(handle + i, bytes[i]);
  return handle;
}

/* Makes a copy of `length` bytes the output. */
static inline void extism_output(const void *from, uint64_t length) {
  extism_output_set(extism_store(from, length), length);
}

/* Fails with a text: `return extism_fail("no such key");` */
static inline int32_t extism_fail(const char *text) {
  uint64_t length = 0;
  while (text[length]) length++;
  extism_error_set(extism_store(text, length));
  return 1;
}

/* Writes `number` in decimal to `to` (at most 20 bytes) and returns the number of bytes. */
static inline uint64_t extism_decimal(char *to, uint64_t number) {
  char reversed[20];
  uint64_t length = 0;
  do {
    reversed[length++] = (char)('0' + number % 10);
    number /= 10;
  } while (number);
  for (uint64_t i = 0; i < length; i++) to[i] = reversed[length - 1 - i];
  return length;
}

#endif
