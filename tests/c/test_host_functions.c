/* Functions that the host offers: their values, names and memory. */
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

static const ExtismValType I32 = ExtismValType_I32, I64 = ExtismValType_I64;

/* A plug-in with one function, which is freed. */
static ExtismPlugin *plugin_using(const char *wat, ExtismFunction *function) {
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(wat, functions, 1);
  extism_function_free(function);
  return plugin;
}

static ExtismVal seen[4];
static ExtismSize n_seen_inputs, n_seen_outputs;

/* Notes what came in, and gives it back in the opposite order. */
CALLBACK(turn_round) {
  UNUSED;
  n_seen_inputs = n_inputs;
  n_seen_outputs = n_outputs;
  for (ExtismSize i = 0; i < n_inputs; i++) {
    seen[i] = inputs[i];
    outputs[n_outputs - 1 - i].v = inputs[i].v;
  }
}

static bool test_all_types(void) {
  const ExtismValType in[] = {ExtismValType_I32, ExtismValType_I64, ExtismValType_F32,
                              ExtismValType_F64};
  const ExtismValType out[] = {ExtismValType_F64, ExtismValType_F32, ExtismValType_I64,
                               ExtismValType_I32};
  ExtismPlugin *plugin = plugin_using(
      "(module (import \"extism:host/user\" \"turn_round\""
      " (func $f (param i32 i64 f32 f64) (result f64 f32 i64 i32)))"
      "(func (export \"run\") (result i32) (local f64 f32 i64 i32)"
      " (call $f (i32.const -7) (i64.const -8000000000) (f32.const 1.5) (f64.const -2.25))"
      " (local.set 3) (local.set 2) (local.set 1) (local.set 0)"
      " (i32.and (i32.and (f64.eq (local.get 0) (f64.const -2.25))"
      "                   (f32.eq (local.get 1) (f32.const 1.5)))"
      "          (i32.and (i64.eq (local.get 2) (i64.const -8000000000))"
      "                   (i32.eq (local.get 3) (i32.const -7))))))",
      extism_function_new("turn_round", in, 4, out, 4, turn_round, NULL, NULL));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 1);
  CHECK_INT(n_seen_inputs, 4);
  CHECK_INT(n_seen_outputs, 4);
  for (int i = 0; i < 4; i++) CHECK_INT(seen[i].t, in[i]);
  CHECK_INT(seen[0].v.i32, -7);
  CHECK_INT(seen[1].v.i64, -8000000000);
  CHECK(seen[2].v.f32 == 1.5f);
  CHECK(seen[3].v.f64 == -2.25);
  extism_plugin_free(plugin);
  return true;
}

static bool had_arrays;

CALLBACK(note_arrays) {
  UNUSED;
  had_arrays = inputs || outputs || n_inputs || n_outputs;
}

static bool test_no_values(void) {
  ExtismPlugin *plugin =
      plugin_using(GUEST(USER("f", ""), FUNC("run", "(call $f)")),
                   extism_function_new("f", NULL, 0, NULL, 0, note_arrays, NULL, NULL));
  CHECK(plugin != NULL);
  had_arrays = true;
  CHECK_INT(call(plugin, "run"), 0);
  CHECK(!had_arrays);
  extism_plugin_free(plugin);
  return true;
}

/* Java's binding writes back into both arrays, and sets the type of an output as well. */
CALLBACK(scribble) {
  UNUSED;
  ((ExtismVal *)inputs)[0].v.i64 = 99;
  outputs[0] = (ExtismVal){.t = ExtismValType_I64, .v.i64 = 42};
}

static bool test_arrays_can_be_written(void) {
  ExtismPlugin *plugin = plugin_using(
      GUEST(USER("f", "(param i64) (result i64)"),
            FUNC_I32("run", "(i32.wrap_i64 (call $f (i64.const 1)))")),
      extism_function_new("f", &I64, 1, &I64, 1, scribble, NULL, NULL));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 42);
  extism_plugin_free(plugin);
  return true;
}

CALLBACK(leave_output) { UNUSED; }

static bool test_output_left_alone_is_zero(void) {
  ExtismPlugin *plugin =
      plugin_using(GUEST(USER("f", "(result i32)"), FUNC_I32("run", "(call $f)")),
                   extism_function_new("f", NULL, 0, &I32, 1, leave_output, NULL, NULL));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  return true;
}

/* A function `f () -> i32` whose result is its user data. */
CALLBACK(give_data) {
  UNUSED;
  outputs[0].v.i32 = *(const int32_t *)data;
}

static ExtismFunction *giving(const char *name, int32_t *number) {
  return extism_function_new(name, NULL, 0, &I32, 1, give_data, number, NULL);
}

static bool test_user_data(void) {
  int32_t number = 17;
  ExtismPlugin *plugin = plugin_using(
      GUEST(USER("f", "(result i32)"), FUNC_I32("run", "(call $f)")), giving("f", &number));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 17);
  number = 18;
  CHECK_INT(call(plugin, "run"), 18);
  extism_plugin_free(plugin);
  return true;
}

static bool test_namespaces(void) {
  static const char wat[] =
      "(module (import \"mine\" \"f\" (func $mine (result i32)))"
      "(import \"extism:host/user\" \"f\" (func $user (result i32)))"
      FUNC_I32("mine", "(call $mine)") FUNC_I32("user", "(call $user)") ")";
  int32_t one = 1, two = 2;
  ExtismFunction *mine = giving("f", &one), *user = giving("f", &two);
  extism_function_set_namespace(mine, "mine");
  const ExtismFunction *functions[] = {mine, user};
  ExtismPlugin *plugin = plugin_with(wat, functions, 2);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "mine"), 1);
  CHECK_INT(call(plugin, "user"), 2);
  extism_plugin_free(plugin);
  extism_function_free(mine);
  extism_function_free(user);
  return true;
}

/* Python hands its whole registry to every plug-in: with duplicates, and unused ones. */
static bool test_last_of_a_name_wins(void) {
  int32_t numbers[] = {1, 2, 3};
  ExtismFunction *first = giving("f", &numbers[0]), *last = giving("f", &numbers[1]),
                 *unused = giving("g", &numbers[2]);
  const ExtismFunction *functions[] = {first, last, unused, last};
  ExtismPlugin *plugin = plugin_with(
      GUEST(USER("f", "(result i32)"), FUNC_I32("run", "(call $f)")), functions, 4);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 2);
  extism_plugin_free(plugin);
  extism_function_free(first);
  extism_function_free(last);
  extism_function_free(unused);
  return true;
}

static bool test_wrong_type(void) {
  int32_t number = 1;
  ExtismFunction *function = giving("f", &number);
  const ExtismFunction *functions[] = {function};
  static const char wat[] = GUEST(USER("f", "(param i32) (result i32)"), "");
  char *errmsg = NULL;
  CHECK(!extism_plugin_new((const uint8_t *)wat, strlen(wat), functions, 1, false, &errmsg));
  CHECK_CONTAINS(errmsg, "f");
  extism_plugin_new_error_free(errmsg);
  extism_function_free(function);
  return true;
}

/* A function of the host's may stand in for one of extism:host/env; the library itself
 * does not see it: the input has its true length. */
CALLBACK(seven) {
  UNUSED;
  outputs[0].v.i64 = 7;
}

static bool test_in_place_of_a_library_function(void) {
  ExtismFunction *function =
      extism_function_new("input_length", NULL, 0, &I64, 1, seven, NULL, NULL);
  extism_function_set_namespace(function, "extism:host/env");
  ExtismPlugin *plugin = plugin_using(
      GUEST("", FUNC_I32("length", "(i32.wrap_i64 (call $input_length))")
                FUNC_I32("third", "(call $input_load_u8 (i64.const 2))")
                FUNC_I32("eighth", "(call $input_load_u8 (i64.const 7))")),
      function);
  CHECK(plugin != NULL);
  CHECK_INT(call_text(plugin, "length", "abc"), 7);
  CHECK_INT(call_text(plugin, "third", "abc"), 'c');
  CHECK_INT(call_text(plugin, "eighth", "abc"), 0);
  extism_plugin_free(plugin);
  return true;
}

/* Gets a block "abc", frees it, and returns a new one with "xyz". */
CALLBACK(use_memory) {
  UNUSED;
  ExtismMemoryHandle text = (ExtismMemoryHandle)inputs[0].v.i64;
  uint8_t *memory = extism_current_plugin_memory(plugin);
  NOTE(memory && memory[0] == 0);
  NOTE(extism_current_plugin_memory_length(plugin, text) == 3);
  NOTE(memcmp(memory + text, "abc", 3) == 0);
  extism_current_plugin_memory_free(plugin, text);
  NOTE(extism_current_plugin_memory_length(plugin, text) == 0);
  extism_current_plugin_memory_free(plugin, text); /* twice, none, and no block */
  extism_current_plugin_memory_free(plugin, 0);
  extism_current_plugin_memory_free(plugin, 12345);

  NOTE(extism_current_plugin_memory_alloc(plugin, 0) == 0);
  NOTE(extism_current_plugin_memory_alloc(plugin, UINT64_MAX) == 0);
  NOTE(extism_current_plugin_memory_length(plugin, 0) == 0);
  NOTE(extism_current_plugin_memory_length(plugin, 12345) == 0);

  ExtismMemoryHandle large = extism_current_plugin_memory_alloc(plugin, 1 << 20);
  NOTE(large >= 16);
  NOTE(extism_current_plugin_memory_length(plugin, large) == 1 << 20);
  NOTE(extism_current_plugin_memory(plugin) == memory); /* it grows in place */
  memset(memory + large, 0xaa, 1 << 20);
  extism_current_plugin_memory_free(plugin, large);

  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 3);
  memcpy(memory + block, "xyz", 3);
  NOTE(extism_current_plugin_memory_length(plugin, block) == 3);
  outputs[0].v.i64 = (int64_t)block;
}

static bool test_memory(void) {
  ExtismPlugin *plugin = plugin_using(
      GUEST(USER("f", "(param i64) (result i64)"),
            DATA("abc") "(global $h (mut i64) (i64.const 0))"
            FUNC("run", "(global.set $h (call $f " BLOCK(0, 3) "))"
                        "(call $output_set (global.get $h) (call $length (global.get $h)))")),
      extism_function_new("f", &I64, 1, &I64, 1, use_memory, NULL, NULL));
  CHECK(plugin != NULL);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(call(plugin, "run"), 0);
    CHECK(output_is(plugin, "xyz"));
  }
  extism_plugin_free(plugin);
  return true;
}

/* What cannot be met is 0 for a host function, and ends no call by itself. */
CALLBACK(alloc_too_much) {
  UNUSED;
  NOTE(extism_current_plugin_memory_alloc(plugin, 1 << 20) == 0);
  NOTE(extism_current_plugin_memory_alloc(plugin, 100) != 0);
}

static bool test_memory_limit(void) {
  char text[MANIFEST_SIZE];
  manifest(text, GUEST(USER("f", ""), FUNC_I32("run", "(call $f) (i32.const 5)")
                                      FUNC("trap", "(call $f) unreachable")),
           "\"memory\": {\"max_pages\": 4}");
  ExtismPlugin *plugin = plugin_using(
      text, extism_function_new("f", NULL, 0, NULL, 0, alloc_too_much, NULL, NULL));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 5);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK_INT(call(plugin, "trap"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "oom");
  extism_plugin_free(plugin);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_all_types);
  RUN(test_no_values);
  RUN(test_arrays_can_be_written);
  RUN(test_output_left_alone_is_zero);
  RUN(test_user_data);
  RUN(test_namespaces);
  RUN(test_last_of_a_name_wins);
  RUN(test_wrong_type);
  RUN(test_in_place_of_a_library_function);
  RUN(test_memory);
  RUN(test_memory_limit);
  return check_end();
}
