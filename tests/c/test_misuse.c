/* NULL where it is legal and where it is not; handles that are stale, foreign, or of another
 * kind. Each is answered with the fail value and a text, and harms no other object. */
#include <extism.h>

#include "guest.h"

#define EMPTY "(module (func (export \"run\")))"

CALLBACK(nothing) { UNUSED; }

static ExtismFunction *new_f(void) {
  return extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
}

static bool test_legal_nulls(void) {
  extism_plugin_free(NULL);
  extism_compiled_plugin_free(NULL);
  extism_function_free(NULL);
  extism_plugin_new_error_free(NULL);
  CHECK(extism_last_error() == NULL);

  ExtismPlugin *plugin =
      extism_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), NULL, 7, false, NULL);
  CHECK(plugin != NULL); /* no functions, whatever their number */
  CHECK_INT(extism_plugin_call(plugin, "run", NULL, 0), 0);
  CHECK_INT(extism_plugin_call(plugin, "run", (const uint8_t *)"", 0), 0);
  CHECK_INT(extism_plugin_call_with_host_context(plugin, "run", NULL, 0, NULL), 0);
  CHECK(extism_last_error() == NULL);
  extism_plugin_free(plugin);
  return true;
}

/* What every function answers to a plug-in handle that is none. */
static bool refuses(ExtismPlugin *plugin) {
  CHECK_INT(extism_plugin_call(plugin, "run", NULL, 0), -1);
  CHECK(extism_last_error() != NULL);
  CHECK_INT(extism_plugin_call_with_host_context(plugin, "run", NULL, 0, NULL), -1);
  CHECK(extism_last_error() != NULL);
  CHECK(extism_plugin_id(plugin) == NULL);
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_plugin_config(plugin, (const uint8_t *)"{}", 2));
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_plugin_function_exists(plugin, "run"));
  CHECK(extism_last_error() != NULL);
  CHECK_INT(extism_plugin_output_length(plugin), 0);
  CHECK(extism_last_error() != NULL);
  CHECK(extism_plugin_output_data(plugin) == NULL);
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_plugin_reset(plugin));
  CHECK(extism_last_error() != NULL);
  extism_plugin_allow_http_response_headers(plugin);
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_plugin_cancel(extism_plugin_cancel_handle(plugin)));
  CHECK(extism_last_error() != NULL);

  CHECK(extism_version() != NULL); /* a call that succeeds clears the error of the thread */
  CHECK(extism_last_error() == NULL);
  return true;
}

static bool refuses_current(ExtismCurrentPlugin *plugin) {
  CHECK(extism_current_plugin_memory(plugin) == NULL);
  CHECK(extism_last_error() != NULL);
  CHECK_INT(extism_current_plugin_memory_alloc(plugin, 8), 0);
  CHECK(extism_last_error() != NULL);
  CHECK_INT(extism_current_plugin_memory_length(plugin, 16), 0);
  CHECK(extism_last_error() != NULL);
  extism_current_plugin_memory_free(plugin, 16);
  CHECK(extism_last_error() != NULL);
  CHECK(extism_current_plugin_host_context(plugin) == NULL);
  CHECK(extism_last_error() != NULL);
  return true;
}

static bool test_null_handles(void) {
  CHECK(refuses(NULL));
  CHECK(refuses_current(NULL));
  CHECK(extism_plugin_error(NULL) == NULL);
  CHECK(extism_error(NULL) == NULL);
  CHECK(!extism_plugin_cancel(NULL));
  CHECK(!extism_plugin_new_from_compiled(NULL, NULL));
  CHECK(extism_last_error() != NULL);
  extism_function_set_namespace(NULL, "x");
  CHECK(extism_last_error() != NULL);
  extism_log_drain(NULL);
  CHECK(extism_last_error() != NULL);
  return true;
}

static bool test_null_arguments(void) {
  char *errmsg = NULL;
  CHECK(!extism_plugin_new(NULL, 100, NULL, 0, false, &errmsg));
  CHECK(errmsg != NULL);
  extism_plugin_new_error_free(errmsg);
  CHECK(!extism_compiled_plugin_new(NULL, 0, NULL, 0, false, NULL));
  CHECK(extism_last_error() != NULL);

  ExtismPlugin *plugin = plugin_from(EMPTY);
  CHECK(plugin != NULL);
  CHECK_INT(extism_plugin_call(plugin, NULL, NULL, 0), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(extism_plugin_call(plugin, "run", NULL, 5), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK(!extism_plugin_function_exists(plugin, NULL));
  CHECK(!extism_plugin_config(plugin, NULL, 5));
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  return true;
}

static bool test_bad_functions(void) {
  const ExtismValType i64[] = {ExtismValType_I64}, none[] = {(ExtismValType)7};
  CHECK(!extism_function_new(NULL, NULL, 0, NULL, 0, nothing, NULL, NULL));
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_function_new("\xff\xfe", NULL, 0, NULL, 0, nothing, NULL, NULL));
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_function_new("f", NULL, 1, NULL, 0, nothing, NULL, NULL));
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_function_new("f", i64, 1, NULL, 1, nothing, NULL, NULL));
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_function_new("f", none, 1, NULL, 0, nothing, NULL, NULL));
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_function_new("f", NULL, 0, NULL, 0, NULL, NULL, NULL));
  CHECK(extism_last_error() != NULL);

  /* Most likely a failed extism_function_new that nobody looked at. */
  const ExtismFunction *functions[] = {NULL};
  CHECK(plugin_with(EMPTY, functions, 1) == NULL);
  return true;
}

static bool test_bad_names(void) {
  ExtismPlugin *plugin = plugin_from(EMPTY);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "\xff\xfe"), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK(!extism_plugin_function_exists(plugin, "\xff\xfe"));
  CHECK_INT(call(plugin, ""), -1);
  CHECK(!extism_plugin_function_exists(plugin, ""));
  extism_plugin_free(plugin);
  return true;
}

static bool test_stale_plugin(void) {
  ExtismPlugin *plugin = plugin_from(EMPTY), *other = plugin_from(EMPTY);
  CHECK(plugin && other);
  const ExtismCancelHandle *cancel = extism_plugin_cancel_handle(plugin);
  CHECK(extism_plugin_cancel(cancel));
  extism_plugin_free(plugin);
  CHECK(extism_last_error() == NULL);

  CHECK(!extism_plugin_cancel(cancel));
  CHECK(extism_last_error() != NULL);
  CHECK(refuses(plugin));
  CHECK(extism_plugin_error(plugin) != NULL);
  CHECK(extism_plugin_error(plugin) == extism_plugin_error(plugin));
  CHECK(extism_error(plugin) != NULL);
  extism_plugin_free(plugin); /* twice */
  CHECK(extism_last_error() != NULL);

  ExtismPlugin *later = plugin_from(EMPTY); /* no new one gets an old one's handle */
  CHECK(later != plugin);
  CHECK(refuses(plugin));
  CHECK_INT(call(other, "run"), 0);
  CHECK_INT(call(later, "run"), 0);
  extism_plugin_free(other);
  extism_plugin_free(later);
  return true;
}

static bool test_stale_compiled_and_function(void) {
  ExtismFunction *function = new_f();
  extism_function_free(function);
  extism_function_free(function);
  CHECK(extism_last_error() != NULL);
  extism_function_set_namespace(function, "x");
  CHECK(extism_last_error() != NULL);
  const ExtismFunction *functions[] = {function};
  CHECK(!extism_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), functions, 1, false, NULL));
  CHECK(extism_last_error() != NULL);

  ExtismCompiledPlugin *compiled =
      extism_compiled_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), NULL, 0, false, NULL);
  CHECK(compiled != NULL);
  extism_compiled_plugin_free(compiled);
  CHECK(!extism_plugin_new_from_compiled(compiled, NULL));
  CHECK(extism_last_error() != NULL);
  extism_compiled_plugin_free(compiled);
  CHECK(extism_last_error() != NULL);
  return true;
}

static bool test_foreign_handles(void) {
  uint64_t mine[4] = {1, 2, 3, 4};
  void *const foreign[] = {mine, "text", (void *)1, (void *)4096, (void *)UINTPTR_MAX};
  for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
    CHECK(refuses(foreign[i]));
    CHECK(refuses_current(foreign[i]));
    CHECK(extism_plugin_error(foreign[i]) != NULL);
    CHECK(!extism_plugin_new_from_compiled(foreign[i], NULL));
    CHECK(!extism_plugin_cancel(foreign[i]));
    extism_plugin_free(foreign[i]);
    extism_compiled_plugin_free(foreign[i]);
    extism_function_free(foreign[i]);
    CHECK(extism_last_error() != NULL);
  }
  return true;
}

static bool test_wrong_kinds(void) {
  ExtismPlugin *plugin = plugin_from(EMPTY);
  ExtismCompiledPlugin *compiled =
      extism_compiled_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), NULL, 0, false, NULL);
  ExtismFunction *function = new_f();
  CHECK(plugin && compiled && function);
  void *const cancel = (void *)extism_plugin_cancel_handle(plugin);

  void *const no_plugins[] = {compiled, function, cancel};
  for (size_t i = 0; i < 3; i++) {
    CHECK(refuses(no_plugins[i]));
    CHECK(refuses_current(no_plugins[i]));
    extism_plugin_free(no_plugins[i]);
    CHECK(extism_last_error() != NULL);
  }
  void *const not_compiled[] = {plugin, function, cancel};
  for (size_t i = 0; i < 3; i++) {
    CHECK(!extism_plugin_new_from_compiled(not_compiled[i], NULL));
    extism_compiled_plugin_free(not_compiled[i]);
    CHECK(extism_last_error() != NULL);
  }
  void *const no_functions[] = {plugin, compiled, cancel};
  for (size_t i = 0; i < 3; i++) {
    const ExtismFunction *functions[] = {no_functions[i]};
    CHECK(!extism_plugin_new((const uint8_t *)EMPTY, strlen(EMPTY), functions, 1, false, NULL));
    extism_function_free(no_functions[i]);
    CHECK(extism_last_error() != NULL);
  }
  CHECK(!extism_plugin_cancel((const ExtismCancelHandle *)plugin));
  CHECK(refuses_current((ExtismCurrentPlugin *)plugin));

  /* All of them are as they were. */
  CHECK_INT(call(plugin, "run"), 0);
  ExtismPlugin *another = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(another != NULL);
  extism_plugin_free(another);
  extism_function_set_namespace(function, "x");
  CHECK(extism_last_error() == NULL);
  extism_function_free(function);
  extism_compiled_plugin_free(compiled);
  extism_plugin_free(plugin);
  CHECK(extism_last_error() == NULL);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_legal_nulls);
  RUN(test_null_handles);
  RUN(test_null_arguments);
  RUN(test_bad_functions);
  RUN(test_bad_names);
  RUN(test_stale_plugin);
  RUN(test_stale_compiled_and_function);
  RUN(test_foreign_handles);
  RUN(test_wrong_kinds);
  return check_end();
}
