/* What outlives a call: configuration, variables, the state of the instance; and how it
 * begins: start functions, initialisers, commands. */
#include <extism.h>

#include "guest.h"

#define CONFIG_GET ENV("config_get", "(param i64) (result i64)")
#define VARS ENV("var_get", "(param i64) (result i64)") ENV("var_set", "(param i64 i64)")

/* `get` outputs the value of the configuration key that is the input; 1 if there is none. */
#define GET_CONFIG                                                                   \
  "(func $input (result i64) (local $h i64) (local $i i64)"                          \
  " (local.set $h (call $alloc (call $input_length)))"                               \
  " (block $done (loop $next"                                                        \
  "  (br_if $done (i64.ge_u (local.get $i) (call $input_length)))"                   \
  "  (call $store_u8 (i64.add (local.get $h) (local.get $i))"                        \
  "   (call $input_load_u8 (local.get $i)))"                                         \
  "  (local.set $i (i64.add (local.get $i) (i64.const 1))) (br $next)))"             \
  " (local.get $h))"                                                                 \
  "(func (export \"get\") (result i32) (local $value i64)"                           \
  " (local.set $value (call $config_get (call $input)))"                             \
  " (if (i64.eqz (local.get $value)) (then (return (i32.const 1))))"                 \
  " (call $output_set (local.get $value) (call $length (local.get $value)))"         \
  " (i32.const 0))"

static bool configure(ExtismPlugin *plugin, const char *json) {
  return extism_plugin_config(plugin, (const uint8_t *)json, strlen(json));
}

static bool test_config(void) {
  static const char wat[] = GUEST(CONFIG_GET, GET_CONFIG);
  ExtismPlugin *plugin = plugin_limited(wat, "\"config\": {\"a\": \"1\", \"b\": \"2\"}");
  CHECK(plugin != NULL);
  CHECK_INT(call_text(plugin, "get", "a"), 0);
  CHECK(output_is(plugin, "1"));
  CHECK_INT(call_text(plugin, "get", "c"), 1);
  CHECK(extism_plugin_error(plugin) == NULL);

  CHECK(configure(plugin, "{\"a\": \"one\", \"c\": \"\xc3\xa9\", \"b\": null}")); /* merged */
  CHECK_INT(call_text(plugin, "get", "a"), 0);
  CHECK(output_is(plugin, "one"));
  CHECK_INT(call_text(plugin, "get", "b"), 1);
  CHECK_INT(call_text(plugin, "get", "c"), 0);
  CHECK(output_is(plugin, "\xc3\xa9"));
  CHECK(configure(plugin, "{}"));
  CHECK_INT(call_text(plugin, "get", "a"), 0);
  extism_plugin_free(plugin);
  return true;
}

static bool test_bad_config(void) {
  static const char *const bad[] = {"",     "{", "[]", "null", "\"a\"", "{\"a\": 1}", "{\"a\": {}}",
                                    "{} x", "\xff"};
  static const char wat[] = GUEST(CONFIG_GET, GET_CONFIG);
  ExtismPlugin *plugin = plugin_limited(wat, "\"config\": {\"a\": \"1\"}");
  CHECK(plugin != NULL);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    CHECK(!configure(plugin, bad[i]));
    CHECK(extism_plugin_error(plugin) != NULL); /* the text is for who asked ... */
    CHECK(extism_plugin_function_exists(plugin, "get"));
    CHECK(extism_plugin_error(plugin) == NULL); /* ... until its next operation */
  }
  CHECK_INT(call_text(plugin, "get", "a"), 0); /* nothing has changed */
  CHECK(output_is(plugin, "1"));
  extism_plugin_free(plugin);
  return true;
}

/* A bad value among good ones changes nothing either. */
static bool test_config_is_whole(void) {
  static const char wat[] = GUEST(CONFIG_GET, GET_CONFIG);
  ExtismPlugin *plugin = plugin_limited(wat, "\"config\": {\"a\": \"1\"}");
  CHECK(plugin != NULL);
  CHECK(!configure(plugin, "{\"a\": \"2\", \"z\": 3}"));
  CHECK_INT(call_text(plugin, "get", "a"), 0);
  CHECK(output_is(plugin, "1"));
  extism_plugin_free(plugin);
  return true;
}

static bool test_config_belongs_to_one_plugin(void) {
  static const char wat[] = GUEST(CONFIG_GET, GET_CONFIG);
  ExtismCompiledPlugin *compiled =
      extism_compiled_plugin_new((const uint8_t *)wat, strlen(wat), NULL, 0, false, NULL);
  ExtismPlugin *one = extism_plugin_new_from_compiled(compiled, NULL);
  ExtismPlugin *two = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(one && two);
  CHECK(configure(one, "{\"a\": \"1\"}"));
  CHECK_INT(call_text(one, "get", "a"), 0);
  CHECK_INT(call_text(two, "get", "a"), 1);
  extism_plugin_free(one);
  extism_plugin_free(two);
  extism_compiled_plugin_free(compiled);
  return true;
}

static bool test_variables(void) {
  ExtismPlugin *plugin = plugin_from(
      GUEST(VARS, DATA("kvalue") FUNC("set", "(call $var_set " BLOCK(0, 1) BLOCK(1, 5) ")")
                  FUNC("remove", "(call $var_set " BLOCK(0, 1) " (i64.const 0))")
                  FUNC_I32("get", "(local $value i64)"
                                  "(local.set $value (call $var_get " BLOCK(0, 1) "))"
                                  "(call $output_set (local.get $value)"
                                  " (call $length (local.get $value)))"
                                  "(i64.ne (local.get $value) (i64.const 0))")));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "get"), 0);
  CHECK_INT(call(plugin, "set"), 0);
  CHECK_INT(call(plugin, "get"), 1);
  CHECK(output_is(plugin, "value"));
  CHECK(extism_plugin_reset(plugin)); /* memory is not variables */
  CHECK_INT(call(plugin, "get"), 1);
  CHECK_INT(call(plugin, "remove"), 0);
  CHECK_INT(call(plugin, "get"), 0);
  extism_plugin_free(plugin);
  return true;
}

#define GLOBAL "(global $n (mut i32) (i32.const 0))"
#define COUNT "(global.set $n (i32.add (global.get $n) (i32.const 1)))"
#define APPEND(DIGIT)                                               \
  "(global.set $n (i32.add (i32.mul (global.get $n) (i32.const 10))" \
  " (i32.const " #DIGIT ")))"

static bool test_state_of_the_guest(void) {
  ExtismPlugin *plugin = plugin_from("(module " GLOBAL FUNC_I32("next", COUNT "(global.get $n)")
                                         FUNC("trap", COUNT "unreachable") ")");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "next"), 1);
  CHECK_INT(call(plugin, "next"), 2);
  CHECK_INT(call(plugin, "trap"), 134);
  CHECK_INT(call(plugin, "next"), 4); /* a trap leaves the instance as it was */
  extism_plugin_free(plugin);
  return true;
}

/* Which initialisers ran, in their order, once, before the first call. */
#define STARTED FUNC_I32("started", "(global.get $n)") FUNC_I32("next", COUNT "(global.get $n)")
#define CTORS FUNC("__wasm_call_ctors", APPEND(1))
#define INITIALIZE FUNC("_initialize", APPEND(2))
#define START "(func $start " APPEND(7) ") (start $start)"
#define HS_INIT "(func (export \"hs_init\") (param i32 i32) " APPEND(3) ")"

static bool starts_as(const char *wat, int expected) {
  ExtismPlugin *plugin = plugin_from(wat);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "started"), expected);
  CHECK_INT(call(plugin, "started"), expected);
  CHECK_INT(call(plugin, "next"), expected + 1);
  extism_plugin_free(plugin);
  return true;
}

static bool test_initialisers(void) {
  CHECK(starts_as("(module " GLOBAL STARTED ")", 0));
  CHECK(starts_as("(module " GLOBAL STARTED INITIALIZE ")", 2));
  CHECK(starts_as("(module " GLOBAL STARTED CTORS ")", 1));
  CHECK(starts_as("(module " GLOBAL STARTED CTORS INITIALIZE ")", 1));
  CHECK(starts_as("(module " GLOBAL STARTED HS_INIT ")", 3));
  CHECK(starts_as("(module " GLOBAL STARTED INITIALIZE HS_INIT ")", 23));
  CHECK(starts_as("(module " GLOBAL STARTED START ")", 7));
  CHECK(starts_as("(module " GLOBAL STARTED START INITIALIZE ")", 72));
  return true;
}

static int host_calls;

CALLBACK(count_host_call) {
  UNUSED;
  outputs[0].v.i32 = ++host_calls;
}

/* `hello` is called by the initialiser: not at creation, but at the first call; the first
 * one traps, and the next call starts anew. */
static bool test_failing_start(void) {
  const ExtismValType i32[] = {ExtismValType_I32};
  ExtismFunction *function =
      extism_function_new("hello", NULL, 0, i32, 1, count_host_call, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  host_calls = 0;
  ExtismPlugin *plugin = plugin_with(
      "(module (import \"extism:host/user\" \"hello\" (func $hello (result i32)))" GLOBAL STARTED
      FUNC("_initialize", COUNT "(if (i32.eq (call $hello) (i32.const 1)) (then unreachable))") ")",
      functions, 1);
  CHECK(plugin != NULL);
  CHECK_INT(host_calls, 0);
  CHECK_INT(call(plugin, "started"), 134);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(call(plugin, "started"), 1);
  CHECK_INT(host_calls, 2);
  CHECK_INT(call(plugin, "started"), 1);
  CHECK_INT(host_calls, 2);
  extism_plugin_free(plugin);
  extism_function_free(function);
  return true;
}

/* `_start` gets a fresh instance each time; variables survive. */
static bool test_command(void) {
  ExtismPlugin *plugin = plugin_from(
      GUEST(VARS, GLOBAL DATA("kx")
                  FUNC_I32("_start", COUNT
                           "(if (i64.ne (call $var_get " BLOCK(0, 1) ") (i64.const 0))"
                           " (then (global.set $n (i32.const 100))))"
                           "(call $var_set " BLOCK(0, 1) BLOCK(1, 1) ")" OUTPUT(2)
                           "(global.get $n)")));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "_start"), 1);
  CHECK(output_is(plugin, "kx"));
  CHECK_INT(call(plugin, "_start"), 100);
  CHECK_INT(call(plugin, "_start"), 100);
  extism_plugin_free(plugin);

  plugin = plugin_from("(module " GLOBAL FUNC_I32("_start", COUNT "(global.get $n)") ")");
  CHECK(plugin != NULL);
  for (int i = 0; i < 20; i++) CHECK_INT(call(plugin, "_start"), 1);
  extism_plugin_free(plugin);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_config);
  RUN(test_bad_config);
  RUN(test_config_is_whole);
  RUN(test_config_belongs_to_one_plugin);
  RUN(test_variables);
  RUN(test_state_of_the_guest);
  RUN(test_initialisers);
  RUN(test_failing_start);
  RUN(test_command);
  return check_end();
}
