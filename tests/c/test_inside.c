/* What a host function may do with its own plug-in, and with others, while the call that it
 * is part of runs. */
#include <extism.h>

#include "guest.h"

/* The plug-ins of a test; `run` of the first one calls the host function of the test. */
static ExtismPlugin *first, *second;
static const uint8_t *id; /* of the first one */

#define WAT                                                                      \
  GUEST(USER("f", "") ENV("config_get", "(param i64) (result i64)"),             \
        DATA("output!key")                                                       \
        FUNC("run", "(call $f)" OUTPUT(7)) FUNC("nothing", "")                   \
        FUNC_I32("fail", FAIL(7) "(i32.const 3)")                                \
        FUNC_I32("configured", "(call $f) (i64.ne (i64.const 0)"                 \
                               " (call $config_get " BLOCK(7, 3) "))"))

static ExtismPlugin *plugin_calling(ExtismFunctionType callback) {
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, callback, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(WAT, functions, 1);
  extism_function_free(function);
  return plugin;
}

CALLBACK(call_myself) {
  UNUSED;
  NOTE(extism_last_error() == NULL); /* nothing that this call has done failed */
  NOTE(call(first, "nothing") == -1);
  NOTE(extism_last_error() != NULL);
  const char *error = extism_plugin_error(first);
  NOTE(error && strstr(error, "busy"));
  NOTE(!extism_plugin_reset(first));
  NOTE(extism_plugin_error(first) != NULL);
}

static bool test_own_call_is_busy(void) {
  first = plugin_calling(call_myself);
  CHECK(first != NULL);
  CHECK_INT(call(first, "nowhere"), -1); /* leaves an error, which must not be seen inside */
  CHECK_INT(call(first, "run"), 0);
  CHECK(extism_last_error() == NULL); /* what was refused inside is no error of the call */
  CHECK(extism_plugin_error(first) == NULL);
  CHECK(output_is(first, "output!"));
  CHECK_INT(call(first, "nothing"), 0);
  extism_plugin_free(first);
  return true;
}

CALLBACK(use_getters) {
  UNUSED;
  NOTE(extism_plugin_id(first) == id);
  NOTE(extism_plugin_function_exists(first, "nothing"));
  NOTE(!extism_plugin_function_exists(first, "nowhere"));
  NOTE(extism_plugin_output_length(first) == 0);
  NOTE(extism_plugin_output_data(first) != NULL);
  const char *error = extism_plugin_error(first); /* that of the last finished call */
  NOTE(error && strcmp(error, "output!") == 0);
  NOTE(extism_plugin_config(first, (const uint8_t *)"{\"key\": \"x\"}", 12));
  NOTE(!extism_plugin_config(first, (const uint8_t *)"nonsense", 8));
  NOTE(extism_plugin_error(first) != NULL);
}

static bool test_getters_and_config(void) {
  first = plugin_calling(use_getters);
  CHECK(first != NULL);
  id = extism_plugin_id(first);
  CHECK_INT(call(first, "fail"), 3);
  CHECK_INT(call(first, "configured"), 1); /* the guest sees the new key at once */
  CHECK(extism_plugin_error(first) == NULL);
  extism_plugin_free(first);
  return true;
}

CALLBACK(cancel_myself) {
  UNUSED;
  NOTE(extism_plugin_cancel(extism_plugin_cancel_handle(first)));
}

static bool test_cancel_from_inside(void) {
  first = plugin_calling(cancel_myself);
  CHECK(first != NULL);
  CHECK_INT(call(first, "run"), 134);
  CHECK_TEXT(extism_plugin_error(first), "cancelled");
  CHECK_INT(call(first, "nothing"), 0);
  extism_plugin_free(first);
  return true;
}

/* Frees the plug-in that calls. What is left of it stays until the call has returned. */
CALLBACK(free_myself) {
  UNUSED;
  extism_plugin_free(first);
  NOTE(extism_last_error() == NULL);
  NOTE(extism_current_plugin_memory(plugin) != NULL);
  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 10);
  NOTE(block != 0);
  NOTE(extism_current_plugin_memory_length(plugin, block) == 10);
  NOTE((id[6] >> 4) == 4);
}

static bool test_free_from_inside(void) {
  first = plugin_calling(free_myself);
  CHECK(first != NULL);
  id = extism_plugin_id(first);
  const ExtismCancelHandle *cancel = extism_plugin_cancel_handle(first);
  CHECK_INT(call(first, "run"), 0);
  CHECK_INT(call(first, "nothing"), -1);
  CHECK(extism_last_error() != NULL);
  CHECK(!extism_plugin_cancel(cancel));
  return true;
}

static ExtismCurrentPlugin *kept;

CALLBACK(keep) {
  UNUSED;
  NOTE(!kept || kept == plugin);
  kept = plugin;
  NOTE(extism_current_plugin_memory(kept) != NULL);
}

static bool test_current_plugin_after_its_callback(void) {
  kept = NULL;
  first = plugin_calling(keep);
  CHECK(first != NULL);
  CHECK_INT(call(first, "run"), 0);
  CHECK(kept != NULL);
  CHECK(extism_current_plugin_memory(kept) == NULL);
  CHECK(extism_last_error() != NULL);
  CHECK_INT(extism_current_plugin_memory_alloc(kept, 8), 0);
  CHECK_INT(extism_current_plugin_memory_length(kept, 16), 0);
  CHECK(extism_current_plugin_host_context(kept) == NULL);
  CHECK_INT(call(first, "run"), 0); /* inside a later callback it works again */
  extism_plugin_free(first);
  CHECK(extism_current_plugin_memory(kept) == NULL);
  CHECK(extism_last_error() != NULL);
  return true;
}

CALLBACK(call_second) {
  UNUSED;
  NOTE(call(second, "nothing") == 0);
  NOTE(call(second, "fail") == 3);
  const char *error = extism_plugin_error(second);
  NOTE(error && strcmp(error, "output!") == 0);
  NOTE(extism_current_plugin_memory_alloc(plugin, 8) != 0); /* back with the first one */
}

static bool test_another_plugin(void) {
  first = plugin_calling(call_second);
  second = plugin_calling(keep);
  CHECK(first && second);
  CHECK_INT(call(first, "run"), 0);
  CHECK(extism_plugin_error(first) == NULL);
  extism_plugin_free(first);
  extism_plugin_free(second);
  return true;
}

CALLBACK(run_second) {
  UNUSED;
  NOTE(call(second, "run") == 0);
}

CALLBACK(call_first) {
  UNUSED;
  NOTE(extism_last_error() == NULL); /* nothing that this call has done failed */
  NOTE(call(first, "nothing") == -1);
  NOTE(extism_last_error() != NULL);
  const char *error = extism_plugin_error(first);
  NOTE(error && strstr(error, "busy"));
}

static bool test_own_call_through_another(void) {
  first = plugin_calling(run_second);
  second = plugin_calling(call_first);
  CHECK(first && second);
  CHECK_INT(call(first, "run"), 0);
  extism_plugin_free(second);
  extism_plugin_free(first);
  return true;
}

/* New plug-ins are made and dropped in here, as lazily loading programs do. */
CALLBACK(make_another) {
  UNUSED;
  ExtismPlugin *another = plugin_from("(module (func (export \"run\")))");
  NOTE(another && call(another, "run") == 0);
  extism_plugin_free(another);
}

static bool test_creation_from_inside(void) {
  first = plugin_calling(make_another);
  CHECK(first != NULL);
  CHECK_INT(call(first, "run"), 0);
  extism_plugin_free(first);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_own_call_is_busy);
  RUN(test_getters_and_config);
  RUN(test_cancel_from_inside);
  RUN(test_free_from_inside);
  RUN(test_current_plugin_after_its_callback);
  RUN(test_another_plugin);
  RUN(test_own_call_through_another);
  RUN(test_creation_from_inside);
  return check_end();
}
