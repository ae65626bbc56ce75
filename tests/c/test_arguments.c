/* Arguments other than handles: NULL where it is legal and where it is not, sizes that nothing has,
 * bytes that are no text, numbers that are no value of their type, messages that are none. */
#include <stdlib.h>

#include <extism.h>

#include "guest.h"

#define EMPTY "(module (func (export \"run\")))"
#define NEEDS_WASI \
  "(module (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))" \
  " (func (export \"run\")))"

static const ExtismSize huge[] = {(ExtismSize)1 << 63, UINT64_MAX, ((ExtismSize)1 << 63) + 1,
                                  (ExtismSize)1 << 62, (ExtismSize)1 << 61, (ExtismSize)1 << 60,
                                  (ExtismSize)1 << 56};
enum { N_HUGE = sizeof huge / sizeof huge[0] };

CALLBACK(nothing) { UNUSED; }

static const uint8_t *bytes(const char *text) { return (const uint8_t *)text; }

/* The four functions that make something of a module, as one: NULL, or a plug-in. */
static void *create(int which, const uint8_t *wasm, ExtismSize size, const ExtismFunction **functions,
                    ExtismSize n_functions, bool wasi, char **errmsg) {
  switch (which) {
    case 0: return extism_plugin_new(wasm, size, functions, n_functions, wasi, errmsg);
    case 1:
      return extism_plugin_new_with_fuel_limit(wasm, size, functions, n_functions, wasi, UINT64_MAX,
                                               errmsg);
    case 2: return extism_compiled_plugin_new(wasm, size, functions, n_functions, wasi, errmsg);
    default:
      return extism_compiled_plugin_new_with_fuel_limit(wasm, size, functions, n_functions, wasi, 0,
                                                        errmsg);
  }
}

static void free_created(int which, void *created) {
  if (which < 2) extism_plugin_free(created);
  else extism_compiled_plugin_free(created);
}

/* Creation fails, and says so in both ways. */
static bool is_refused(int which, const uint8_t *wasm, ExtismSize size,
                       const ExtismFunction **functions, ExtismSize n_functions, const char *says) {
  char *errmsg = NULL;
  CHECK(!create(which, wasm, size, functions, n_functions, false, &errmsg));
  CHECK_CONTAINS(errmsg, says);
  CHECK_TEXT(extism_last_error(), errmsg);
  extism_plugin_new_error_free(errmsg);
  CHECK(!create(which, wasm, size, functions, n_functions, false, NULL));
  CHECK_CONTAINS(extism_last_error(), says);
  return true;
}

static bool test_legal_nulls(void) {
  extism_plugin_free(NULL);
  extism_compiled_plugin_free(NULL);
  extism_function_free(NULL);
  extism_plugin_new_error_free(NULL);
  CHECK(extism_last_error() == NULL);

  for (int which = 0; which < 4; which++) { /* no functions, whatever their number */
    static const ExtismSize counts[] = {0, 7, (ExtismSize)1 << 63, UINT64_MAX};
    for (int i = 0; i < 4; i++) {
      void *created = create(which, bytes(EMPTY), strlen(EMPTY), NULL, counts[i], false, NULL);
      CHECK(created != NULL);
      free_created(which, created);
    }
    const ExtismFunction *none[] = {NULL};
    void *created = create(which, bytes(EMPTY), strlen(EMPTY), none, 0, false, NULL);
    CHECK(created != NULL);
    free_created(which, created);
  }
  ExtismPlugin *plugin = plugin_from(EMPTY);
  CHECK_INT(extism_plugin_call(plugin, "run", NULL, 0), 0);
  CHECK_INT(extism_plugin_call(plugin, "run", bytes(""), 0), 0);
  CHECK_INT(extism_plugin_call(plugin, "run", (const uint8_t *)1, 0), 0); /* not looked at */
  CHECK_INT(extism_plugin_call_with_host_context(plugin, "run", NULL, 0, NULL), 0);
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
  CHECK(function != NULL);
  extism_function_free(function);
  CHECK(extism_log_file(NULL, NULL));
  CHECK(extism_last_error() == NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_null_modules(void) {
  for (int which = 0; which < 4; which++) {
    CHECK(is_refused(which, NULL, 100, NULL, 0, "`wasm` is NULL"));
    CHECK(is_refused(which, NULL, 0, NULL, 0, "empty"));
    CHECK(is_refused(which, bytes(EMPTY), 0, NULL, 0, "empty"));
    for (int i = 0; i < N_HUGE; i++) CHECK(is_refused(which, NULL, huge[i], NULL, 0, "`wasm` is NULL"));
  }
  return true;
}

static bool test_null_names_and_data(void) {
  ExtismPlugin *plugin = plugin_from(EMPTY);
  for (ExtismSize size = 0; size < 2; size++) {
    CHECK_INT(extism_plugin_call(plugin, NULL, bytes("x"), size), -1);
    CHECK_CONTAINS(extism_plugin_error(plugin), "`func_name` is NULL");
    CHECK_INT(extism_plugin_call_with_host_context(plugin, NULL, NULL, size, plugin), -1);
    CHECK_CONTAINS(extism_plugin_error(plugin), "`func_name` is NULL");
  }
  CHECK_INT(extism_plugin_call(plugin, "run", NULL, 5), -1);
  CHECK_CONTAINS(extism_last_error(), "`data` is NULL");
  CHECK_CONTAINS(extism_plugin_error(plugin), "`data` is NULL");
  CHECK_INT(extism_plugin_call_with_host_context(plugin, "run", NULL, 5, NULL), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "`data` is NULL");
  CHECK(!extism_plugin_function_exists(plugin, NULL));
  CHECK_CONTAINS(extism_last_error(), "`func_name` is NULL");
  CHECK(!extism_plugin_config(plugin, NULL, 5));
  CHECK_CONTAINS(extism_plugin_error(plugin), "`json` is NULL");
  CHECK(!extism_plugin_config(plugin, NULL, 0));
  CHECK_CONTAINS(extism_plugin_error(plugin), "JSON");
  CHECK(!extism_plugin_config(plugin, bytes("{}"), 0));
  CHECK_INT(call(plugin, "run"), 0);
  CHECK(extism_plugin_error(plugin) == NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_null_parts_of_functions(void) {
  static const ExtismValType type = ExtismValType_I64;
  CHECK(!extism_function_new(NULL, NULL, 0, NULL, 0, nothing, NULL, NULL));
  CHECK_CONTAINS(extism_last_error(), "`name` is NULL");
  CHECK(!extism_function_new("f", NULL, 1, NULL, 0, nothing, NULL, NULL));
  CHECK_CONTAINS(extism_last_error(), "`inputs` is NULL");
  CHECK(!extism_function_new("f", &type, 1, NULL, 1, nothing, NULL, NULL));
  CHECK_CONTAINS(extism_last_error(), "`outputs` is NULL");
  CHECK(!extism_function_new("f", NULL, 0, NULL, 0, NULL, NULL, NULL));
  CHECK_CONTAINS(extism_last_error(), "`func` is NULL");
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
  extism_function_set_namespace(function, NULL);
  CHECK_CONTAINS(extism_last_error(), "`namespace_` is NULL");
  extism_function_free(function);
  extism_log_drain(NULL);
  CHECK_CONTAINS(extism_last_error(), "`handler` is NULL");

  /* Most likely a failed extism_function_new that nobody looked at. */
  const ExtismFunction *functions[] = {NULL};
  for (int which = 0; which < 4; which++)
    CHECK(is_refused(which, bytes(EMPTY), strlen(EMPTY), functions, 1, "functions[0]: NULL"));
  return true;
}

static bool test_huge_sizes(void) {
  static const ExtismValType types[] = {ExtismValType_I64};
  ExtismPlugin *plugin = plugin_from(EMPTY);
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  for (int i = 0; i < N_HUGE; i++) {
    for (int which = 0; which < 4; which++) {
      CHECK(is_refused(which, bytes(EMPTY), huge[i], NULL, 0, "no such array fits"));
      CHECK(is_refused(which, bytes(EMPTY), strlen(EMPTY), functions, huge[i], "no such array fits"));
    }
    CHECK_INT(extism_plugin_call(plugin, "run", bytes("x"), huge[i]), -1);
    CHECK_CONTAINS(extism_plugin_error(plugin), "no such array fits");
    CHECK_INT(extism_plugin_call_with_host_context(plugin, "run", bytes("x"), huge[i], NULL), -1);
    CHECK(!extism_plugin_config(plugin, bytes("{}"), huge[i]));
    CHECK_CONTAINS(extism_plugin_error(plugin), "no such array fits");
    CHECK(!extism_function_new("f", types, huge[i], NULL, 0, nothing, NULL, NULL));
    CHECK_CONTAINS(extism_last_error(), "at most 1000");
    CHECK(!extism_function_new("f", NULL, 0, types, huge[i], nothing, NULL, NULL));
    CHECK_CONTAINS(extism_last_error(), "at most 1000");
  }
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  extism_function_free(function);
  return true;
}

/* The same for blocks, in a host function. */
CALLBACK(ask_for_huge_blocks) {
  UNUSED;
  for (int i = 0; i < N_HUGE; i++) {
    NOTE(extism_current_plugin_memory_alloc(plugin, huge[i]) == 0);
    NOTE(extism_last_error() && strstr(extism_last_error(), "no room"));
    NOTE(extism_current_plugin_memory_length(plugin, huge[i]) == 0);
    extism_current_plugin_memory_free(plugin, huge[i]);
  }
  NOTE(extism_current_plugin_memory_alloc(plugin, 0) == 0);
  extism_current_plugin_memory_free(plugin, 0);
  NOTE(extism_last_error() == NULL);
  NOTE(extism_current_plugin_memory_alloc(plugin, 8) != 0);
}

static bool test_huge_blocks(void) {
  const ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, ask_for_huge_blocks, NULL, NULL);
  ExtismPlugin *plugin = plugin_with(
      "(module (import \"extism:host/user\" \"f\" (func $f)) (func (export \"run\") (call $f)))",
      &function, 1);
  CHECK_INT(call(plugin, "run"), 0);
  CHECK(extism_plugin_error(plugin) == NULL);
  extism_plugin_free(plugin);
  extism_function_free((ExtismFunction *)function);
  return true;
}

/* Arrays of words that do not begin where words do. */
static bool test_arrays_that_are_not_aligned(void) {
  _Alignas(8) char room[64] = {0};
  CHECK(!extism_function_new("f", (const ExtismValType *)(void *)(room + 1), 1, NULL, 0, nothing,
                             NULL, NULL));
  CHECK_CONTAINS(extism_last_error(), "not aligned");
  for (int which = 0; which < 4; which++)
    CHECK(is_refused(which, bytes(EMPTY), strlen(EMPTY), (const ExtismFunction **)(void *)(room + 4),
                     1, "not aligned"));
  return true;
}

static bool test_bytes_that_are_no_text(void) {
  static const char *const bad[] = {"\xff\xfe", "\x80", "run\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                    "\xc0\xaf"};
  ExtismPlugin *plugin = plugin_from(EMPTY);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char json[64], module[64];
    CHECK_INT(call(plugin, bad[i]), -1);
    CHECK_CONTAINS(extism_plugin_error(plugin), "not valid UTF-8");
    CHECK_INT(extism_plugin_call_with_host_context(plugin, bad[i], NULL, 0, NULL), -1);
    CHECK_CONTAINS(extism_last_error(), "not valid UTF-8");
    CHECK(!extism_plugin_function_exists(plugin, bad[i]));
    CHECK_CONTAINS(extism_last_error(), "not valid UTF-8");
    CHECK(!extism_function_new(bad[i], NULL, 0, NULL, 0, nothing, NULL, NULL));
    CHECK_CONTAINS(extism_last_error(), "not valid UTF-8");
    ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
    extism_function_set_namespace(function, bad[i]);
    CHECK_CONTAINS(extism_last_error(), "not valid UTF-8");
    extism_function_free(function);
    CHECK(!extism_log_file("log", bad[i]) && extism_last_error());
    CHECK(!extism_log_custom(bad[i]) && extism_last_error());
    snprintf(json, sizeof json, "{\"%s\": \"x\"}", bad[i]);
    CHECK(!extism_plugin_config(plugin, bytes(json), strlen(json)));
    CHECK(extism_plugin_error(plugin) != NULL);
    snprintf(module, sizeof module, "(module (func (export \"%s\")))", bad[i]);
    CHECK(is_refused((int)i % 4, bytes(module), strlen(module), NULL, 0, ""));
    snprintf(module, sizeof module, "{\"wasm\": [{\"path\": \"%s\"}]}", bad[i]);
    CHECK(is_refused((int)i % 4, bytes(module), strlen(module), NULL, 0, ""));
  }
  CHECK_INT(call(plugin, ""), -1);
  CHECK_TEXT(extism_plugin_error(plugin), "Function not found: ");
  CHECK_INT(call(plugin, "run"), 0);
  extism_plugin_free(plugin);
  return true;
}

/* NUL bytes inside of what has a length. */
static bool test_embedded_nuls(void) {
#define IS_REFUSED(TEXT, SAYS) is_refused(0, bytes(TEXT), sizeof(TEXT) - 1, NULL, 0, SAYS)
  CHECK(IS_REFUSED("\0", ""));
  CHECK(IS_REFUSED("\0\0\0\0\0\0\0\0", ""));
  CHECK(IS_REFUSED("(module)\0", "\\u{0}"));
  CHECK(IS_REFUSED("(module \0 (func))", ""));
  CHECK(IS_REFUSED("{\"wasm\": [\0]}", ""));
  CHECK(IS_REFUSED("{\"wasm\": [{\"path\": \"a\\u0000b\"}]}", "path"));
  CHECK(IS_REFUSED("wasm = [{path = \"a\\u0000b\"}]", "path"));

  static const char config[] = "{\"a\\u0000b\": \"c\\u0000d\"}";
  ExtismPlugin *plugin = plugin_from(GUEST(
      ENV("config_get", "(param i64) (result i64)"),
      DATA("a\\00ba")
      "(func (export \"run\") (local $h i64) (local.set $h (call $config_get " BLOCK(0, 3) "))"
      " (call $output_set (local.get $h) (call $length (local.get $h))))"
      FUNC_I32("short", "(i64.eqz (call $config_get " BLOCK(3, 1) "))")));
  CHECK(extism_plugin_config(plugin, bytes(config), strlen(config)));
  CHECK_INT(call(plugin, "run"), 0);
  CHECK_INT(extism_plugin_output_length(plugin), 3);
  CHECK(memcmp(extism_plugin_output_data(plugin), "c\0d", 3) == 0);
  CHECK_INT(call(plugin, "short"), 1); /* the key is not the text before its NUL */
  CHECK(!extism_plugin_config(plugin, bytes("{\0}"), 3));
  extism_plugin_free(plugin);
  return true;
}

/* JNA passes true as -1, others as whatever is not zero. */
static bool test_booleans_of_any_value(void) {
  typedef void *(*New)(const uint8_t *, ExtismSize, const ExtismFunction **, ExtismSize, uint8_t,
                       char **);
  typedef void *(*NewWithFuel)(const uint8_t *, ExtismSize, const ExtismFunction **, ExtismSize,
                               uint8_t, uint64_t, char **);
  New new_plugin = (New)(void (*)(void))extism_plugin_new;
  New compile = (New)(void (*)(void))extism_compiled_plugin_new;
  NewWithFuel new_with_fuel = (NewWithFuel)(void (*)(void))extism_plugin_new_with_fuel_limit;
  NewWithFuel compile_with_fuel =
      (NewWithFuel)(void (*)(void))extism_compiled_plugin_new_with_fuel_limit;
  static const uint8_t values[] = {0, 1, 2, 3, 4, 16, 64, 127, 128, 129, 254, 255};
  for (size_t i = 0; i < sizeof values; i++) {
    const uint8_t value = values[i], *wasm = bytes(NEEDS_WASI);
    ExtismSize size = strlen(NEEDS_WASI);
    void *made[] = {new_plugin(wasm, size, NULL, 0, value, NULL),
                    new_with_fuel(wasm, size, NULL, 0, value, 100, NULL),
                    compile(wasm, size, NULL, 0, value, NULL),
                    compile_with_fuel(wasm, size, NULL, 0, value, 100, NULL)};
    for (int which = 0; which < 4; which++) {
      CHECK_INT(made[which] != NULL, value != 0);
      free_created(which, made[which]);
    }
  }
  return true;
}

static bool test_types_that_are_none(void) {
  static const uint32_t wrong[] = {4, 5, 6, 7, 8, 255, 256, 0x80000000, 0xffffffff, 0x100 + 1};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    ExtismValType types[3] = {ExtismValType_I64, ExtismValType_F32};
    memcpy(&types[2], &wrong[i], sizeof types[2]);
    const char *says = wrong[i] <= 6 ? "ExtismValUnion cannot carry" : "is no ExtismValType";
    CHECK(!extism_function_new("f", types, 3, NULL, 0, nothing, NULL, NULL));
    CHECK_CONTAINS(extism_last_error(), "`inputs`[2]");
    CHECK_CONTAINS(extism_last_error(), says);
    CHECK(!extism_function_new("f", NULL, 0, types, 3, nothing, NULL, NULL));
    CHECK_CONTAINS(extism_last_error(), "`outputs`[2]");
    CHECK_CONTAINS(extism_last_error(), says);
  }
  return true;
}

/* As many values as a function can have, and one more. */
static bool test_numbers_of_values(void) {
  ExtismValType types[1001];
  for (int i = 0; i < 1001; i++) types[i] = ExtismValType_I64;
  ExtismFunction *function = extism_function_new("f", types, 1000, types, 1000, nothing, NULL, NULL);
  CHECK(function != NULL);
  extism_function_free(function);
  CHECK(!extism_function_new("f", types, 1001, NULL, 0, nothing, NULL, NULL));
  CHECK(!extism_function_new("f", NULL, 0, types, 1001, nothing, NULL, NULL));
  CHECK_CONTAINS(extism_last_error(), "at most 1000");
  return true;
}

/* What was refused keeps its user data: the caller's, still. */
static int finalised;

static void finalise(void *times) { *(int *)times += 1; }

static bool test_user_data_of_what_was_refused(void) {
  static const ExtismValType vector = ExtismValType_V128;
  CHECK(!extism_function_new("\xff", NULL, 0, NULL, 0, nothing, &finalised, finalise));
  CHECK(!extism_function_new("f", &vector, 1, NULL, 0, nothing, &finalised, finalise));
  CHECK(!extism_function_new("f", NULL, 0, NULL, 0, NULL, &finalised, finalise));
  CHECK_INT(finalised, 0);
  return true;
}

/* Frees what is no message; true if it is told so. */
static bool is_no_message(const void *text) {
  extism_plugin_new_error_free((char *)(uintptr_t)text);
  const char *error = extism_last_error();
  return error && strstr(error, "no error message");
}

static bool test_messages_that_are_none(void) {
  char *first = NULL, *second = NULL, mine[] = "a text";
  CHECK(!extism_plugin_new(bytes("(module"), 7, NULL, 0, false, &first));
  CHECK(!extism_compiled_plugin_new(bytes("nothing"), 7, NULL, 0, false, &second));
  CHECK(first && second);

  ExtismPlugin *plugin = plugin_from(GUEST("", DATA("error") FUNC("fail", FAIL(5) OUTPUT(5))));
  CHECK_INT(call(plugin, "fail"), 0);
  CHECK(is_no_message(extism_plugin_error(plugin)));
  CHECK(is_no_message(extism_plugin_output_data(plugin)));
  CHECK(is_no_message(extism_plugin_id(plugin)));
  CHECK(is_no_message(extism_version()));
  CHECK_INT(call(plugin, "nowhere"), -1);
  CHECK(is_no_message(extism_last_error()));
  CHECK(is_no_message(plugin));
  CHECK(is_no_message(mine));
  CHECK(is_no_message("text"));
  CHECK(is_no_message((void *)1));
  CHECK(is_no_message((void *)UINTPTR_MAX));
  CHECK(is_no_message(first + 1)); /* the middle of one */
  char *on_the_heap = malloc(16);
  CHECK(is_no_message(on_the_heap));
  free(on_the_heap);

  CHECK_CONTAINS(first, "module"); /* as they were */
  extism_plugin_new_error_free(first);
  CHECK(extism_last_error() == NULL);
  CHECK(is_no_message(first)); /* twice */
  extism_plugin_new_error_free(second);
  CHECK(extism_last_error() == NULL);
  CHECK(is_no_message(second) && is_no_message(first));
  CHECK_TEXT(extism_plugin_error(plugin), "Function not found: nowhere");
  extism_plugin_free(plugin);
  return true;
}

/* .NET never frees one. */
static bool test_messages_that_nobody_frees(void) {
  for (int i = 0; i < 100; i++) {
    char *errmsg = NULL;
    CHECK(!extism_plugin_new(bytes("(module"), 7, NULL, 0, false, &errmsg) && errmsg);
  }
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_legal_nulls);
  RUN(test_null_modules);
  RUN(test_null_names_and_data);
  RUN(test_null_parts_of_functions);
  RUN(test_huge_sizes);
  RUN(test_huge_blocks);
  RUN(test_arrays_that_are_not_aligned);
  RUN(test_bytes_that_are_no_text);
  RUN(test_embedded_nuls);
  RUN(test_booleans_of_any_value);
  RUN(test_types_that_are_none);
  RUN(test_numbers_of_values);
  RUN(test_user_data_of_what_was_refused);
  RUN(test_messages_that_are_none);
  RUN(test_messages_that_nobody_frees);
  return check_end();
}
