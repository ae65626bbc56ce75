/* How calls end before their time: exit codes, fuel, timeout, memory limits; and which of
 * them counts where several apply. */
#include <extism.h>

#include "guest.h"

#define EXIT \
  "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))"
#define VAR_SET ENV("var_set", "(param i64 i64)")
#define ABSURD "(drop (call $alloc (i64.const 0x1000000000000000)))"
#define SPIN "(loop $l (br $l))"

static ExtismPlugin *plugin_with_fuel(const char *wat, uint64_t fuel) {
  return extism_plugin_new_with_fuel_limit((const uint8_t *)wat, strlen(wat), NULL, 0, true, fuel,
                                           NULL);
}

static bool test_exit_codes(void) {
  ExtismPlugin *plugin = plugin_from(
      GUEST(EXIT, DATA("error!") FUNC("three", OUTPUT(6) "(call $exit (i32.const 3))")
                  FUNC("zero", OUTPUT(6) "(call $exit (i32.const 0)) unreachable")
                  FUNC("error", FAIL(6) "(call $exit (i32.const 4))")));
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "three"), 3);
  CHECK(output_is(plugin, "error!"));
  CHECK_INT(call(plugin, "zero"), 0);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK(output_is(plugin, "error!"));
  CHECK_INT(call(plugin, "error"), 4);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  extism_plugin_free(plugin);
  return true;
}

static bool test_fuel(void) {
  ExtismPlugin *plugin =
      plugin_with_fuel(GUEST("", DATA("error!") FUNC("forever", SPIN) FUNC("short", OUTPUT(6))
                                 FUNC("error", FAIL(6) SPIN)),
                       10000);
  CHECK(plugin != NULL);
  for (int i = 0; i < 3; i++) { /* each call has the whole of it */
    CHECK_INT(call(plugin, "short"), 0);
    CHECK(extism_plugin_error(plugin) == NULL);
    CHECK_INT(call(plugin, "forever"), -1);
    CHECK_TEXT(extism_plugin_error(plugin), "plugin ran out of fuel");
  }
  CHECK_INT(call(plugin, "error"), -1); /* fuel comes before an error that was set */
  CHECK_TEXT(extism_plugin_error(plugin), "plugin ran out of fuel");
  extism_plugin_free(plugin);
  return true;
}

static bool test_fuel_of_compiled(void) {
  static const char wat[] = "(module (func (export \"run\")) (func (export \"forever\")" SPIN "))";
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new_with_fuel_limit(
      (const uint8_t *)wat, strlen(wat), NULL, 0, false, 1000, NULL);
  CHECK(compiled != NULL);
  ExtismPlugin *plugin = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "forever"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "plugin ran out of fuel");
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  extism_compiled_plugin_free(compiled);
  return true;
}

static bool test_timeout(void) {
  ExtismPlugin *plugin = plugin_limited(
      GUEST("", DATA("error!") FUNC("forever", OUTPUT(6) SPIN) FUNC("error", FAIL(6) SPIN)
                  FUNC("short", "")),
      "\"timeout_ms\": 50");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "forever"), 134);
  CHECK_TEXT(extism_plugin_error(plugin), "timeout");
  CHECK(output_is(plugin, "error!"));
  CHECK_INT(call(plugin, "short"), 0);
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK_INT(call(plugin, "error"), 134); /* timeout comes before an error that was set */
  CHECK_TEXT(extism_plugin_error(plugin), "timeout");
  extism_plugin_free(plugin);
  return true;
}

static bool test_alloc_without_end(void) {
  static const char wat[] = GUEST(
      "", DATA("error!") FUNC("absurd", ABSURD) FUNC("error", FAIL(6) ABSURD)
          FUNC("endless", "(loop $l (drop (call $alloc (i64.const 0x10000))) (br $l))")
          FUNC_I32("some", "(i32.wrap_i64 (call $length (call $alloc (i64.const 1000))))"));
  ExtismPlugin *plugin = plugin_limited(wat, "\"memory\": {\"max_pages\": 10}");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "absurd"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "oom");
  CHECK_INT(call(plugin, "endless"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "oom");
  CHECK_INT(call(plugin, "error"), -1); /* an error that was set comes before oom */
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK_INT(call(plugin, "some"), 1000);
  CHECK(extism_plugin_error(plugin) == NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_memory_of_the_guest(void) {
  static const char wat[] =
      GUEST("", FUNC_I32("grow_2", "(memory.grow (i32.const 2))")
                FUNC_I32("grow_99", "(memory.grow (i32.const 99))")
                FUNC("give_up", "(drop (memory.grow (i32.const 99))) unreachable")
                FUNC("trap", "unreachable"));
  ExtismPlugin *plugin = plugin_limited(wat, "\"memory\": {\"max_pages\": 10}");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "grow_99"), -1); /* the guest is told, and may go on */
  CHECK(extism_plugin_error(plugin) == NULL);
  CHECK_INT(call(plugin, "grow_2"), 1);
  CHECK_INT(call(plugin, "grow_2"), 3);
  CHECK_INT(call(plugin, "give_up"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "oom");
  CHECK_INT(call(plugin, "trap"), 134); /* the denied growth was in another call */
  CHECK_CONTAINS(extism_plugin_error(plugin), "unreachable");
  extism_plugin_free(plugin);
  return true;
}

static bool test_initial_memory(void) {
  static const char wat[] = "(module (memory 11) (func (export \"run\")))";
  ExtismPlugin *plugin = plugin_limited(wat, "\"memory\": {\"max_pages\": 5}");
  if (plugin) { /* refused at the latest when the instance is made */
    CHECK(call(plugin, "run") != 0);
    CHECK(extism_plugin_error(plugin) != NULL);
    extism_plugin_free(plugin);
  }
  plugin = plugin_limited(wat, "\"memory\": {\"max_pages\": 20}");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  return true;
}

#define KEEP_1000 /* bytes, under the key "k" */ \
  FUNC("keep_1000", "(call $var_set " BLOCK(0, 1) " (call $alloc (i64.const 1000)))")

static bool test_variables_without_end(void) {
  static const char wat[] = GUEST(VAR_SET, DATA("k") KEEP_1000);
  ExtismPlugin *plugin = plugin_limited(wat, "\"memory\": {\"max_var_bytes\": 500}");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "keep_1000"), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "Variable store is full");
  extism_plugin_free(plugin);

  plugin = plugin_limited(wat, "\"memory\": {\"max_var_bytes\": 2000}");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "keep_1000"), 0);
  CHECK_INT(call(plugin, "keep_1000"), 0); /* the same key again */
  extism_plugin_free(plugin);
  return true;
}

/* Fuel, then timeout, then the exit code, then a set error, then oom, then the trap. */
static bool test_order(void) {
  static const char wat[] =
      GUEST(EXIT,
            DATA("error!") FUNC("exit_after_error", FAIL(6) "(call $exit (i32.const 9))")
            FUNC("exit_after_oom", "(drop (memory.grow (i32.const 99))) (call $exit (i32.const 9))")
            FUNC("error_oom", FAIL(6) ABSURD) FUNC("error_trap", FAIL(6) "unreachable")
            FUNC("oom_trap", "(drop (memory.grow (i32.const 99))) unreachable"));
  ExtismPlugin *plugin = plugin_limited(wat, "\"memory\": {\"max_pages\": 10}");
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "exit_after_error"), 9);
  CHECK_INT(call(plugin, "exit_after_oom"), 9);
  CHECK_INT(call(plugin, "error_oom"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK_INT(call(plugin, "error_trap"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "error!");
  CHECK_INT(call(plugin, "oom_trap"), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "oom");
  extism_plugin_free(plugin);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_exit_codes);
  RUN(test_fuel);
  RUN(test_fuel_of_compiled);
  RUN(test_timeout);
  RUN(test_alloc_without_end);
  RUN(test_memory_of_the_guest);
  RUN(test_initial_memory);
  RUN(test_variables_without_end);
  RUN(test_order);
  return check_end();
}
