/* What is created is freed, in any order; what is passed wrongly is an error, never a crash. */
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

#define EMPTY "(module (func (export \"run\")))"
#define CALLER                                              \
  "(module (import \"extism:host/user\" \"f\" (func $f))"   \
  " (func (export \"run\") (call $f)))"

static int calls, finalised;

CALLBACK(count_call) {
  UNUSED;
  calls++;
}

static void finalise(void *data) {
  (void)data;
  finalised++;
}

/* A host function `f` without parameters and results, and with user data. */
static ExtismFunction *new_f(void) {
  finalised = 0;
  return extism_function_new("f", NULL, 0, NULL, 0, count_call, &finalised, finalise);
}

static ExtismPlugin *plugin_of(ExtismFunction *function) {
  const ExtismFunction *functions[] = {function};
  return plugin_with(CALLER, functions, 1);
}

static ExtismCompiledPlugin *compile(const char *wat, ExtismFunction *function) {
  const ExtismFunction *functions[] = {function};
  return extism_compiled_plugin_new((const uint8_t *)wat, strlen(wat), functions, 1, false, NULL);
}

static bool test_plugin(void) {
  ExtismPlugin *plugin = plugin_from(EMPTY);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  return true;
}

static bool test_plugins_have_ids(void) {
  ExtismPlugin *one = plugin_from(EMPTY), *two = plugin_from(EMPTY);
  const uint8_t *id = extism_plugin_id(one);
  CHECK(id != NULL);
  CHECK_INT(id[6] >> 4, 4); /* UUID, version 4 */
  CHECK_INT(id[8] >> 6, 2); /* the variant of RFC 9562 */
  CHECK(memcmp(id, extism_plugin_id(two), 16) != 0);
  CHECK_INT(call(one, "run"), 0);
  CHECK(extism_plugin_id(one) == id);
  extism_plugin_free(two);
  extism_plugin_free(one);
  return true;
}

static bool test_many_plugins_of_one_compiled(void) {
  ExtismPlugin *plugins[50];
  ExtismCompiledPlugin *compiled =
      extism_compiled_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), NULL, 0, false, NULL);
  CHECK(compiled != NULL);
  for (int i = 0; i < 50; i++) {
    plugins[i] = extism_plugin_new_from_compiled(compiled, NULL);
    CHECK(plugins[i] != NULL);
  }
  extism_compiled_plugin_free(compiled);
  for (int i = 0; i < 50; i++) {
    CHECK_INT(call(plugins[i], "run"), 0);
    extism_plugin_free(plugins[i]);
  }
  return true;
}

static bool test_function_freed_before_plugin(void) {
  ExtismFunction *function = new_f();
  ExtismPlugin *plugin = plugin_of(function);
  CHECK(plugin != NULL);
  extism_function_free(function);
  CHECK_INT(finalised, 0);
  calls = 0;
  CHECK_INT(call(plugin, "run"), 0);
  CHECK_INT(calls, 1);
  extism_plugin_free(plugin);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_function_freed_after_plugin(void) {
  ExtismFunction *function = new_f();
  ExtismPlugin *plugin = plugin_of(function);
  CHECK(plugin != NULL);
  extism_plugin_free(plugin);
  CHECK_INT(finalised, 1);
  extism_function_free(function);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_function_of_no_plugin(void) {
  ExtismFunction *function = new_f();
  extism_function_free(function);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_function_after_failure(void) {
  ExtismFunction *function = new_f();
  const ExtismFunction *functions[] = {function};
  CHECK(!extism_plugin_new((const uint8_t *)"(module", 7, functions, 1, false, NULL));
  CHECK_INT(finalised, 0);
  ExtismPlugin *plugin = plugin_of(function); /* nothing is lost: it can still be used */
  CHECK(plugin != NULL);
  extism_function_free(function);
  extism_plugin_free(plugin);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_function_shared_by_plugins(void) {
  ExtismFunction *function = new_f();
  ExtismPlugin *one = plugin_of(function), *two = plugin_of(function);
  CHECK(one && two);
  calls = 0;
  CHECK_INT(call(one, "run"), 0);
  CHECK_INT(call(two, "run"), 0);
  CHECK_INT(calls, 2);
  extism_plugin_free(one);
  CHECK_INT(finalised, 0);
  extism_function_free(function);
  extism_plugin_free(two);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_function_of_compiled(void) {
  ExtismFunction *function = new_f();
  ExtismCompiledPlugin *compiled = compile(CALLER, function);
  CHECK(compiled != NULL);
  extism_function_free(function);
  ExtismPlugin *plugin = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(plugin != NULL);
  extism_compiled_plugin_free(compiled);
  CHECK_INT(finalised, 0);
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_function_of_compiled_without_plugins(void) {
  ExtismFunction *function = new_f();
  ExtismCompiledPlugin *compiled = compile(CALLER, function);
  CHECK(compiled != NULL);
  extism_compiled_plugin_free(compiled);
  CHECK_INT(finalised, 1);
  extism_function_free(function);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_spent_function(void) {
  ExtismFunction *function = new_f();
  extism_plugin_free(plugin_of(function));
  CHECK_INT(finalised, 1);
  const ExtismFunction *functions[] = {function};
  char *errmsg = NULL;
  CHECK(!extism_plugin_new((const uint8_t *)CALLER, strlen(CALLER), functions, 1, false, &errmsg));
  CHECK(errmsg != NULL);
  extism_plugin_new_error_free(errmsg);
  extism_function_free(function);
  CHECK_INT(finalised, 1);
  return true;
}

static bool test_no_user_data_no_finaliser(void) {
  finalised = 0;
  ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, count_call, NULL, finalise);
  ExtismPlugin *plugin = plugin_of(function);
  CHECK(plugin != NULL);
  extism_plugin_free(plugin);
  extism_function_free(function);
  CHECK_INT(finalised, 0);

  function = extism_function_new("f", NULL, 0, NULL, 0, count_call, &calls, NULL);
  extism_function_free(function);
  return true;
}

static bool test_user_data_is_freed(void) {
  ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, count_call, malloc(64), free);
  ExtismPlugin *plugin = plugin_of(function);
  CHECK(plugin != NULL);
  extism_function_free(function);
  extism_plugin_free(plugin); /* the sanitizer would see a leak or a second free */
  return true;
}

static bool test_errmsg(void) {
  char untouched;
  char *errmsg = &untouched;
  ExtismPlugin *plugin =
      extism_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), NULL, 0, false, &errmsg);
  CHECK(plugin != NULL);
  CHECK(errmsg == &untouched);
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new_with_fuel_limit(
      (const uint8_t *)EMPTY, strlen(EMPTY), NULL, 0, false, 1000, &errmsg);
  CHECK(compiled != NULL);
  CHECK(errmsg == &untouched);
  extism_plugin_free(plugin);
  plugin = extism_plugin_new_from_compiled(compiled, &errmsg);
  CHECK(plugin != NULL);
  CHECK(errmsg == &untouched);
  extism_plugin_free(plugin);
  extism_compiled_plugin_free(compiled);

  CHECK(!extism_plugin_new((const uint8_t *)CALLER, strlen(CALLER), NULL, 0, false, &errmsg));
  CHECK(errmsg != &untouched);
  CHECK_CONTAINS(errmsg, "extism:host/user"); /* the missing import */
  extism_plugin_new_error_free(errmsg);
  return true;
}

static bool test_bad_modules(void) {
  static const char *const bad[] = {
      "",         "rubbish", "(module",        "(module (func (export \"f\") i32.add))",
      "\0asm",    "{",       "{\"wasm\": 1}",  "{\"wasm\": []}",
      "wasm = 1", "{}",      "{\"wasm\": [{\"path\": \"/no/such/file.wasm\"}]}",
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    size_t size = bad[i][0] || i == 0 ? strlen(bad[i]) : 4;
    char *errmsg = NULL;
    ExtismPlugin *plugin =
        extism_plugin_new((const uint8_t *)bad[i], size, NULL, 0, false, &errmsg);
    if (plugin || !errmsg || !errmsg[0]) printf("  accepted, or no text: %s\n", bad[i]);
    CHECK(!plugin && errmsg && errmsg[0]);
    extism_plugin_new_error_free(errmsg);
  }
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_plugin);
  RUN(test_plugins_have_ids);
  RUN(test_many_plugins_of_one_compiled);
  RUN(test_function_freed_before_plugin);
  RUN(test_function_freed_after_plugin);
  RUN(test_function_of_no_plugin);
  RUN(test_function_after_failure);
  RUN(test_function_shared_by_plugins);
  RUN(test_function_of_compiled);
  RUN(test_function_of_compiled_without_plugins);
  RUN(test_spent_function);
  RUN(test_no_user_data_no_finaliser);
  RUN(test_user_data_is_freed);
  RUN(test_errmsg);
  RUN(test_bad_modules);
  return check_end();
}
