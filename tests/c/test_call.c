/* One call: input, output, return code and error. */
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

#define ECHO "(call $output_set (call $input_offset) (call $input_length))"
#define SUM /* of the bytes of the input */                                           \
  "(local $i i64) (local $sum i32)"                                                   \
  "(block $done (loop $next"                                                          \
  "  (br_if $done (i64.ge_u (local.get $i) (call $input_length)))"                    \
  "  (local.set $sum (i32.add (local.get $sum) (call $input_load_u8 (local.get $i))))" \
  "  (local.set $i (i64.add (local.get $i) (i64.const 1)))"                           \
  "  (br $next)))"                                                                    \
  "(local.get $sum)"

static bool test_input_and_output(void) {
  ExtismPlugin *plugin = plugin_from(GUEST("", FUNC("echo", ECHO) FUNC_I32("sum", SUM)));
  CHECK(plugin != NULL);
  CHECK_INT(call_text(plugin, "echo", "hello"), 0);
  CHECK(output_is(plugin, "hello"));
  CHECK(extism_plugin_output_data(plugin) == extism_plugin_output_data(plugin));

  static const uint8_t bytes[] = {0, 255, 0, 1, 0};
  CHECK_INT(extism_plugin_call(plugin, "echo", bytes, 5), 0);
  CHECK_INT(extism_plugin_output_length(plugin), 5);
  CHECK(memcmp(extism_plugin_output_data(plugin), bytes, 5) == 0);
  CHECK_INT(extism_plugin_call(plugin, "sum", bytes, 5), 256);

  CHECK_INT(extism_plugin_output_length(plugin), 0); /* the last call has set none */
  CHECK(extism_plugin_output_data(plugin) != NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_empty_input(void) {
  ExtismPlugin *plugin = plugin_from(GUEST("", FUNC("echo", ECHO) FUNC_I32("sum", SUM)));
  CHECK(plugin != NULL);
  CHECK_INT(extism_plugin_output_length(plugin), 0); /* before the first call */
  CHECK(extism_plugin_output_data(plugin) != NULL);
  CHECK_INT(call_text(plugin, "echo", "not empty"), 0);
  CHECK_INT(call(plugin, "echo"), 0);
  CHECK(output_is(plugin, ""));
  CHECK_INT(call_text(plugin, "sum", ""), 0);
  extism_plugin_free(plugin);
  return true;
}

/* A program may feed the output of a call into the next one without copying it. */
static bool test_output_as_input(void) {
  ExtismPlugin *plugin = plugin_from(GUEST("", FUNC("echo", ECHO)));
  CHECK(plugin != NULL);
  CHECK_INT(call_text(plugin, "echo", "abcdefgh"), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(extism_plugin_call(plugin, "echo", extism_plugin_output_data(plugin) + 1,
                                 extism_plugin_output_length(plugin) - 1),
              0);
  }
  CHECK(output_is(plugin, "defgh"));
  CHECK_INT(extism_plugin_call(plugin, "echo", (const uint8_t *)"echo", sizeof "echo"), 0);
  const char *name = (const char *)extism_plugin_output_data(plugin);
  CHECK_INT(call_text(plugin, name, "named by the output"), 0);
  CHECK(output_is(plugin, "named by the output"));
  extism_plugin_free(plugin);
  return true;
}

static bool test_large_input(void) {
  enum { SIZE = 10 * 1024 * 1024 };
  ExtismPlugin *plugin = plugin_from(GUEST("", FUNC("echo", ECHO) FUNC_I32("sum", SUM)));
  uint8_t *input = malloc(SIZE);
  CHECK(plugin && input);
  int32_t sum = 0;
  for (int i = 0; i < SIZE; i++) sum += input[i] = (uint8_t)(i * 7);
  CHECK_INT(extism_plugin_call(plugin, "echo", input, SIZE), 0);
  CHECK_INT(extism_plugin_output_length(plugin), SIZE);
  CHECK(memcmp(extism_plugin_output_data(plugin), input, SIZE) == 0);
  CHECK_INT(extism_plugin_call(plugin, "sum", input, SIZE), sum);
  free(input);
  CHECK_INT(extism_plugin_call(plugin, "sum", (const uint8_t *)"\1\2", 2), 3);
  extism_plugin_free(plugin);
  return true;
}

#define CODES                                                             \
  DATA("output!error!")                                                   \
  FUNC("nothing", "")                                                     \
  FUNC_I32("seven", OUTPUT(7) "(i32.const 7)")                            \
  FUNC_I32("minus", "(i32.const -5)")                                     \
  FUNC_I32("error_1", OUTPUT(7) ERROR "(i32.const 1)")                    \
  FUNC_I32("error_0", OUTPUT(7) ERROR "(i32.const 0)")                    \
  FUNC("error_none", ERROR)                                               \
  FUNC_I32("taken_back", ERROR "(call $error_set (i64.const 0)) (i32.const 2)") \
  FUNC("trap", OUTPUT(7) "unreachable")                                   \
  FUNC("error_trap", OUTPUT(7) ERROR "unreachable")                       \
  FUNC("divide", "(drop (i32.div_u (i32.const 1) (i32.const 0)))")        \
  "(func $deep (export \"deep\") (call $deep))"
#define ERROR "(call $fail (i32.const 7) (i32.const 6))"

static bool test_codes_of_results(void) {
  ExtismPlugin *plugin = plugin_from(GUEST("", CODES));
  CHECK(plugin != NULL);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK_INT(call(plugin, "nothing"), 0);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK_INT(call(plugin, "seven"), 7);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK(output_is(plugin, "output!"));
  CHECK_INT(call(plugin, "minus"), -5);
  CHECK(extism_plugin_error(plugin) == NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_codes_of_errors(void) {
  ExtismPlugin *plugin = plugin_from(GUEST("", CODES));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "error_1"), 1);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK_TEXT(extism_error(plugin), "error!");
  CHECK(output_is(plugin, "output!"));
  CHECK_INT(call(plugin, "error_0"), 0);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK(output_is(plugin, "output!"));
  CHECK_INT(call(plugin, "error_none"), 0);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK_INT(call(plugin, "taken_back"), 2);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK_INT(call(plugin, "error_1"), 1);
  CHECK_INT(call(plugin, "nothing"), 0); /* a success clears it */
  CHECK(extism_plugin_error(plugin) == NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_codes_of_traps(void) {
  ExtismPlugin *plugin = plugin_from(GUEST("", CODES));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "trap"), 134);
  CHECK_CONTAINS(extism_plugin_error(plugin), "unreachable");
  CHECK(output_is(plugin, "output!"));
  CHECK_INT(call(plugin, "error_trap"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK(output_is(plugin, "output!"));
  CHECK_INT(call(plugin, "divide"), 134);
  CHECK_CONTAINS(extism_plugin_error(plugin), "divide by zero");
  CHECK_INT(call(plugin, "deep"), 134);
  CHECK_CONTAINS(extism_plugin_error(plugin), "stack");
  CHECK_INT(call(plugin, "seven"), 7); /* and the plug-in goes on */
  CHECK(extism_plugin_error(plugin) == NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_errors_before_the_guest(void) {
  ExtismPlugin *plugin = plugin_from(
      GUEST("", "(func (export \"takes\") (param i32)) (func (export \"gives\") (result i64)"
                " (i64.const 0)) (global (export \"global\") i32 (i32.const 1))"));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "nowhere"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "Function not found: nowhere");
  CHECK_INT(call(plugin, "memory"), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(call(plugin, "global"), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(call(plugin, "takes"), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "takes");
  CHECK_INT(call(plugin, "gives"), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "gives");
  extism_plugin_free(plugin);
  return true;
}

static bool test_function_exists(void) {
  ExtismPlugin *plugin = plugin_from(
      GUEST("", FUNC("nothing", "") FUNC_I32("number", "(i32.const 0)")
                    "(func (export \"takes\") (param i32))"
                    "(func (export \"gives\") (result i64) (i64.const 0))"));
  CHECK(plugin != NULL);
  CHECK(extism_plugin_function_exists(plugin, "nothing"));
  CHECK(extism_plugin_function_exists(plugin, "number"));
  CHECK(!extism_plugin_function_exists(plugin, "takes"));
  CHECK(!extism_plugin_function_exists(plugin, "gives"));
  CHECK(!extism_plugin_function_exists(plugin, "memory"));
  CHECK(!extism_plugin_function_exists(plugin, "nowhere"));
  extism_plugin_free(plugin);
  return true;
}

/* What a guest can do wrong with its output and its memory. */
static bool test_errors_of_the_call(void) {
  ExtismPlugin *plugin = plugin_from(GUEST(
      ENV("config_get", "(param i64) (result i64)"),
      DATA("error!")
      FUNC("outside", "(call $output_set (i64.const 16) (i64.const 0x100000000))")
      FUNC("wraps", "(call $output_set (i64.const -8) (i64.const 16))")
      FUNC("after_error", FAIL(6) "(call $output_set (i64.const -8) (i64.const 16))")
      FUNC("no_block", "(drop (call $config_get (i64.const 12345)))")
      FUNC("store_outside", "(call $store_u8 (i64.const 0x100000000) (i32.const 1))")
      FUNC("load_outside", "(drop (call $load_u8 (i64.const -1)))")
      FUNC("empty", "(call $output_set (i64.const 0) (i64.const 99))")));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "outside"), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(extism_plugin_output_length(plugin), 0);
  CHECK_INT(call(plugin, "wraps"), -1);
  CHECK_INT(call(plugin, "after_error"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK_INT(call(plugin, "no_block"), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(call(plugin, "store_outside"), 134);
  CHECK_INT(call(plugin, "load_outside"), 134);
  CHECK_INT(call(plugin, "empty"), 0);
  CHECK(output_is(plugin, ""));
  extism_plugin_free(plugin);
  return true;
}

CALLBACK(read_context) {
  UNUSED;
  *(void **)data = extism_current_plugin_host_context(plugin);
}

static bool test_host_context(void) {
  void *seen = NULL;
  int context;
  ExtismFunction *function =
      extism_function_new("context", NULL, 0, NULL, 0, read_context, &seen, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin =
      plugin_with(GUEST(USER("context", ""), FUNC("run", "(call $context)")), functions, 1);
  CHECK(plugin != NULL);
  CHECK_INT(extism_plugin_call_with_host_context(plugin, "run", NULL, 0, &context), 0);
  CHECK(seen == &context);
  CHECK_INT(call(plugin, "run"), 0); /* it belongs to its call */
  CHECK(seen == NULL);
  extism_plugin_free(plugin);
  extism_function_free(function);
  return true;
}

/* Blocks end with their call; `kept` tells how long the block of the call before still is. */
static bool test_memory_is_empty_before_a_call(void) {
  ExtismPlugin *plugin = plugin_from(
      GUEST("", "(global $kept (mut i64) (i64.const 0))"
                FUNC_I32("keep", "(global.set $kept (call $alloc (i64.const 100)))"
                                 "(i32.wrap_i64 (call $length (global.get $kept)))")
                FUNC_I32("kept", "(i32.wrap_i64 (call $length (global.get $kept)))")));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "keep"), 100);
  CHECK_INT(call(plugin, "kept"), 0);
  extism_plugin_free(plugin);
  return true;
}

static bool test_reset(void) {
  ExtismPlugin *plugin = plugin_from(GUEST(
      "", "(global $n (mut i32) (i32.const 0))" FUNC("echo", ECHO)
          FUNC_I32("next", "(global.set $n (i32.add (global.get $n) (i32.const 1)))"
                           "(global.get $n)")));
  CHECK(plugin != NULL);
  CHECK(extism_plugin_reset(plugin)); /* before the first call */
  CHECK_INT(call_text(plugin, "echo", "hello"), 0);
  CHECK(extism_plugin_reset(plugin));
  CHECK(output_is(plugin, ""));
  CHECK_INT(call(plugin, "next"), 1);
  CHECK(extism_plugin_reset(plugin));
  CHECK_INT(call(plugin, "next"), 2); /* the guest's own state stays */
  CHECK_INT(call_text(plugin, "echo", "again"), 0);
  CHECK(output_is(plugin, "again"));
  extism_plugin_free(plugin);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_input_and_output);
  RUN(test_empty_input);
  RUN(test_output_as_input);
  RUN(test_large_input);
  RUN(test_codes_of_results);
  RUN(test_codes_of_errors);
  RUN(test_codes_of_traps);
  RUN(test_errors_before_the_guest);
  RUN(test_function_exists);
  RUN(test_errors_of_the_call);
  RUN(test_host_context);
  RUN(test_memory_is_empty_before_a_call);
  RUN(test_reset);
  return check_end();
}
