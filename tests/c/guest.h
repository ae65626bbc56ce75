/* Plug-ins for tests, written as WAT text inside the tests, and short ways to use them. */
#ifndef GUEST_H
#define GUEST_H

#include <extism.h>

#include "check.h"

/* GUEST(imports, body): a module with the usual functions of extism:host/env, a memory, and
 *     $block (at, length) -> handle    a new block with bytes of the memory
 *     $output (at, length)             bytes of the memory become the output
 *     $fail (at, length)               bytes of the memory become the error
 * Tests mostly get numbers out of a guest as the result of the exported function. */
#define GUEST(IMPORTS, BODY) \
  "(module " GUEST_IMPORTS IMPORTS "(memory (export \"memory\") 1)" GUEST_FUNCTIONS BODY ")"

#define ENV(NAME, TYPE) "(import \"extism:host/env\" \"" NAME "\" (func $" NAME " " TYPE "))"
#define USER(NAME, TYPE) "(import \"extism:host/user\" \"" NAME "\" (func $" NAME " " TYPE "))"
#define FUNC(NAME, BODY) "(func (export \"" NAME "\") " BODY ")"
#define FUNC_I32(NAME, BODY) "(func (export \"" NAME "\") (result i32) " BODY ")"
#define DATA(TEXT) "(data (i32.const 0) \"" TEXT "\")"

#define GUEST_IMPORTS                                                               \
  ENV("input_offset", "(result i64)") ENV("input_length", "(result i64)")           \
  ENV("input_load_u8", "(param i64) (result i32)")                                  \
  ENV("alloc", "(param i64) (result i64)") ENV("free", "(param i64)")               \
  ENV("length", "(param i64) (result i64)")                                         \
  ENV("load_u8", "(param i64) (result i32)") ENV("store_u8", "(param i64 i32)")     \
  ENV("output_set", "(param i64 i64)") ENV("error_set", "(param i64)")

#define GUEST_FUNCTIONS                                                             \
  "(func $block (param $at i32) (param $length i32) (result i64)"                   \
  " (local $handle i64) (local $i i32)"                                             \
  " (local.set $handle (call $alloc (i64.extend_i32_u (local.get $length))))"       \
  " (block $done (loop $next"                                                       \
  "   (br_if $done (i32.ge_u (local.get $i) (local.get $length)))"                  \
  "   (call $store_u8 (i64.add (local.get $handle) (i64.extend_i32_u (local.get $i)))" \
  "     (i32.load8_u (i32.add (local.get $at) (local.get $i))))"                    \
  "   (local.set $i (i32.add (local.get $i) (i32.const 1)))"                        \
  "   (br $next)))"                                                                 \
  " (local.get $handle))"                                                           \
  "(func $output (param $at i32) (param $length i32)"                               \
  " (call $output_set (call $block (local.get $at) (local.get $length))"            \
  "   (i64.extend_i32_u (local.get $length))))"                                     \
  "(func $fail (param $at i32) (param $length i32)"                                 \
  " (call $error_set (call $block (local.get $at) (local.get $length))))"

/* Calls in WAT that tests share: with DATA("..."), the first N bytes. */
#define OUTPUT(N) "(call $output (i32.const 0) (i32.const " #N "))"
#define FAIL(N) "(call $fail (i32.const 0) (i32.const " #N "))"
#define BLOCK(AT, N) "(call $block (i32.const " #AT ") (i32.const " #N "))"

/* CALLBACK(f) { UNUSED; ... } defines a host function. */
#define CALLBACK(NAME)                                                                \
  static void NAME(ExtismCurrentPlugin *plugin, const ExtismVal *inputs,              \
                   ExtismSize n_inputs, ExtismVal *outputs, ExtismSize n_outputs,     \
                   void *data)
#define UNUSED \
  (void)plugin, (void)inputs, (void)n_inputs, (void)outputs, (void)n_outputs, (void)data

/* A manifest around a module in WAT, which stands in it by its address as in the C++ SDK.
 * `fields`, such as "\"timeout_ms\": 50", are more members of the manifest. */
#define MANIFEST_SIZE 1024
static inline void manifest(char *to, const char *wat, const char *fields) {
  snprintf(to, MANIFEST_SIZE, "{\"wasm\": [{\"data\": {\"ptr\": %llu, \"len\": %zu}}]%s%s}",
           (unsigned long long)(uintptr_t)wat, strlen(wat), fields[0] ? ", " : "", fields);
}

/* A plug-in from WAT text or a manifest, with WASI. NULL, and a line that says why, if there
 * is an error. */
static inline ExtismPlugin *plugin_with(const char *text, const ExtismFunction **functions,
                                        ExtismSize n_functions) {
  char *errmsg = NULL;
  ExtismPlugin *plugin = extism_plugin_new((const uint8_t *)text, strlen(text), functions,
                                           n_functions, true, &errmsg);
  if (!plugin) printf("  %s\n", errmsg ? errmsg : "(no error text)");
  extism_plugin_new_error_free(errmsg);
  return plugin;
}

static inline ExtismPlugin *plugin_from(const char *text) { return plugin_with(text, NULL, 0); }

/* The same with manifest fields. */
static inline ExtismPlugin *plugin_limited(const char *wat, const char *fields) {
  char text[MANIFEST_SIZE];
  manifest(text, wat, fields);
  return plugin_from(text);
}

/* A module with nothing in it but 1 MiB of padding (a custom section). The first of its kind in a
 * process is hashed by a thread. */
static inline ExtismPlugin *plugin_padded(void) {
  static uint8_t module[13 + (1 << 20)] = {0, 'a', 's', 'm', 1, 0, 0, 0, 0, 0x81, 0x80, 0x40};
  return extism_plugin_new(module, sizeof module, NULL, 0, false, NULL);
}

static inline int32_t call(ExtismPlugin *plugin, const char *function) {
  return extism_plugin_call(plugin, function, NULL, 0);
}

static inline int32_t call_text(ExtismPlugin *plugin, const char *function, const char *input) {
  return extism_plugin_call(plugin, function, (const uint8_t *)input, strlen(input));
}

static inline bool output_is(ExtismPlugin *plugin, const char *text) {
  ExtismSize length = extism_plugin_output_length(plugin);
  const uint8_t *data = extism_plugin_output_data(plugin);
  if (data && length == strlen(text) && memcmp(data, text, length) == 0) return true;
  printf("  the output is \"%.*s\"\n", data ? (int)length : 6,
         data ? (const char *)data : "(NULL)");
  return false;
}

#endif
