/* The shapes that compiled programs and other languages' bindings rely on. */
#include <stddef.h>

#include <extism.h>

#include "guest.h"

_Static_assert(EXTISM_SUCCESS == 0, "EXTISM_SUCCESS");
_Static_assert(EXTISM_PTR == ExtismValType_I64, "EXTISM_PTR");

_Static_assert(ExtismValType_I32 == 0, "ExtismValType_I32");
_Static_assert(ExtismValType_I64 == 1, "ExtismValType_I64");
_Static_assert(ExtismValType_F32 == 2, "ExtismValType_F32");
_Static_assert(ExtismValType_F64 == 3, "ExtismValType_F64");
_Static_assert(ExtismValType_V128 == 4, "ExtismValType_V128");
_Static_assert(ExtismValType_FuncRef == 5, "ExtismValType_FuncRef");
_Static_assert(ExtismValType_ExternRef == 6, "ExtismValType_ExternRef");

_Static_assert(sizeof(ExtismValType) == 4, "ExtismValType");
_Static_assert(sizeof(ExtismValUnion) == 8, "ExtismValUnion");
_Static_assert(sizeof(ExtismVal) == 16, "ExtismVal");
_Static_assert(offsetof(ExtismVal, t) == 0, "ExtismVal.t");
_Static_assert(offsetof(ExtismVal, v) == 8, "ExtismVal.v");

#define HAS_TYPE(VALUE, TYPE) _Generic((VALUE), TYPE : 1, default : 0)
_Static_assert(HAS_TYPE((ExtismSize)0, uint64_t), "ExtismSize");
_Static_assert(HAS_TYPE((ExtismMemoryHandle)0, uint64_t), "ExtismMemoryHandle");
_Static_assert(HAS_TYPE(((ExtismVal *)0)->t, ExtismValType), "ExtismVal.t");
_Static_assert(HAS_TYPE(((ExtismVal *)0)->v, ExtismValUnion), "ExtismVal.v");
_Static_assert(HAS_TYPE(((ExtismVal *)0)->v.i32, int32_t), "ExtismValUnion.i32");
_Static_assert(HAS_TYPE(((ExtismVal *)0)->v.i64, int64_t), "ExtismValUnion.i64");
_Static_assert(HAS_TYPE(((ExtismVal *)0)->v.f32, float), "ExtismValUnion.f32");
_Static_assert(HAS_TYPE(((ExtismVal *)0)->v.f64, double), "ExtismValUnion.f64");

/* The macros declare functions with exactly these parameters, or this does not compile. */
EXTISM_FUNCTION(declared);
EXTISM_GO_FUNCTION(go_declared);
void declared(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
              ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)plugin, (void)inputs, (void)n_inputs, (void)outputs, (void)n_outputs, (void)data;
}
void go_declared(void *plugin, ExtismVal *inputs, ExtismSize n_inputs, ExtismVal *outputs,
                 ExtismSize n_outputs, uintptr_t data) {
  (void)plugin, (void)inputs, (void)n_inputs, (void)outputs, (void)n_outputs, (void)data;
}

static bool test_callback_types(void) {
  void (*callback)(ExtismCurrentPlugin *, const ExtismVal *, ExtismSize, ExtismVal *, ExtismSize,
                   void *) = declared;
  ExtismFunctionType typed = callback;
  CHECK(typed == declared);
  void (*drain)(const char *, ExtismSize) = NULL;
  ExtismLogDrainFunctionType typed_drain = drain;
  CHECK(typed_drain == NULL);
  return true;
}

/* A function with another prototype than this does not compile here. */
#define PROTOTYPE(RESULT, NAME, PARAMETERS)   \
  do {                                        \
    RESULT(*function) PARAMETERS = NAME;      \
    CHECK(function != NULL);                  \
  } while (0)

typedef const ExtismFunction **Functions;
typedef char **Text;

static bool test_prototypes_of_plugins(void) {
  PROTOTYPE(const char *, extism_version, (void));
  PROTOTYPE(const char *, extism_last_error, (void));
  PROTOTYPE(ExtismPlugin *, extism_plugin_new,
            (const uint8_t *, ExtismSize, Functions, ExtismSize, bool, Text));
  PROTOTYPE(ExtismPlugin *, extism_plugin_new_with_fuel_limit,
            (const uint8_t *, ExtismSize, Functions, ExtismSize, bool, uint64_t, Text));
  PROTOTYPE(void, extism_plugin_new_error_free, (char *));
  PROTOTYPE(ExtismCompiledPlugin *, extism_compiled_plugin_new,
            (const uint8_t *, ExtismSize, Functions, ExtismSize, bool, Text));
  PROTOTYPE(ExtismCompiledPlugin *, extism_compiled_plugin_new_with_fuel_limit,
            (const uint8_t *, ExtismSize, Functions, ExtismSize, bool, uint64_t, Text));
  PROTOTYPE(void, extism_compiled_plugin_free, (ExtismCompiledPlugin *));
  PROTOTYPE(ExtismPlugin *, extism_plugin_new_from_compiled, (const ExtismCompiledPlugin *, Text));
  PROTOTYPE(void, extism_plugin_free, (ExtismPlugin *));
  PROTOTYPE(const uint8_t *, extism_plugin_id, (ExtismPlugin *));
  PROTOTYPE(bool, extism_plugin_config, (ExtismPlugin *, const uint8_t *, ExtismSize));
  PROTOTYPE(bool, extism_plugin_function_exists, (ExtismPlugin *, const char *));
  PROTOTYPE(int32_t, extism_plugin_call,
            (ExtismPlugin *, const char *, const uint8_t *, ExtismSize));
  PROTOTYPE(int32_t, extism_plugin_call_with_host_context,
            (ExtismPlugin *, const char *, const uint8_t *, ExtismSize, void *));
  PROTOTYPE(ExtismSize, extism_plugin_output_length, (ExtismPlugin *));
  PROTOTYPE(const uint8_t *, extism_plugin_output_data, (ExtismPlugin *));
  PROTOTYPE(const char *, extism_plugin_error, (ExtismPlugin *));
  PROTOTYPE(const char *, extism_error, (ExtismPlugin *));
  PROTOTYPE(bool, extism_plugin_reset, (ExtismPlugin *));
  PROTOTYPE(void, extism_plugin_allow_http_response_headers, (ExtismPlugin *));
  PROTOTYPE(const ExtismCancelHandle *, extism_plugin_cancel_handle, (const ExtismPlugin *));
  PROTOTYPE(bool, extism_plugin_cancel, (const ExtismCancelHandle *));
  return true;
}

static bool test_prototypes_of_functions(void) {
  PROTOTYPE(ExtismFunction *, extism_function_new,
            (const char *, const ExtismValType *, ExtismSize, const ExtismValType *, ExtismSize,
             ExtismFunctionType, void *, void (*)(void *)));
  PROTOTYPE(void, extism_function_set_namespace, (ExtismFunction *, const char *));
  PROTOTYPE(void, extism_function_free, (ExtismFunction *));
  PROTOTYPE(uint8_t *, extism_current_plugin_memory, (ExtismCurrentPlugin *));
  PROTOTYPE(ExtismMemoryHandle, extism_current_plugin_memory_alloc,
            (ExtismCurrentPlugin *, ExtismSize));
  PROTOTYPE(ExtismSize, extism_current_plugin_memory_length,
            (ExtismCurrentPlugin *, ExtismMemoryHandle));
  PROTOTYPE(void, extism_current_plugin_memory_free, (ExtismCurrentPlugin *, ExtismMemoryHandle));
  PROTOTYPE(void *, extism_current_plugin_host_context, (ExtismCurrentPlugin *));
  PROTOTYPE(bool, extism_log_file, (const char *, const char *));
  PROTOTYPE(bool, extism_log_custom, (const char *));
  PROTOTYPE(void, extism_log_drain, (ExtismLogDrainFunctionType));
  return true;
}

static bool test_version(void) {
  CHECK(strncmp(extism_version(), "2.", 2) == 0);
  CHECK(extism_version() == extism_version());
  return true;
}

/* Java's and .NET's bindings pass `true` as a whole register of ones, and read 32 bits of a
 * result. Only the lowest byte of a parameter counts, and all of a result is set. */
#define OTHER_TYPE(FUNCTION) (void (*)(void)) FUNCTION

static bool test_wide_parameter(void) {
  static const char text[] =
      "(module (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32))))";
  typedef ExtismPlugin *(*NewWide)(const uint8_t *, ExtismSize, Functions, ExtismSize, int64_t,
                                   Text);
  NewWide new_wide = (NewWide)OTHER_TYPE(extism_plugin_new);
  const uint8_t *wasm = (const uint8_t *)text;

  CHECK(!new_wide(wasm, strlen(text), NULL, 0, 0x100, NULL)); /* no WASI: the import is missing */
  ExtismPlugin *plugin = new_wide(wasm, strlen(text), NULL, 0, -1, NULL);
  CHECK(plugin != NULL);
  extism_plugin_free(plugin);
  return true;
}

static bool test_wide_results(void) {
  ExtismPlugin *plugin = plugin_from("(module (func (export \"run\")))");
  CHECK(plugin != NULL);

  typedef int32_t (*Exists)(ExtismPlugin *, const char *);
  Exists exists = (Exists)OTHER_TYPE(extism_plugin_function_exists);
  CHECK_INT(exists(plugin, "run"), 1);
  CHECK_INT(exists(plugin, "walk"), 0);
  typedef int32_t (*Reset)(ExtismPlugin *);
  Reset reset = (Reset)OTHER_TYPE(extism_plugin_reset);
  CHECK_INT(reset(plugin), 1);
  CHECK_INT(reset(NULL), 0);
  typedef int32_t (*Cancel)(const ExtismCancelHandle *);
  Cancel cancel = (Cancel)OTHER_TYPE(extism_plugin_cancel);
  CHECK_INT(cancel(extism_plugin_cancel_handle(plugin)), 1);
  CHECK_INT(cancel(NULL), 0);
  typedef int32_t (*Config)(ExtismPlugin *, const uint8_t *, ExtismSize);
  Config config = (Config)OTHER_TYPE(extism_plugin_config);
  CHECK_INT(config(plugin, (const uint8_t *)"{}", 2), 1);
  CHECK_INT(config(plugin, (const uint8_t *)"[]", 2), 0);
  typedef int32_t (*Log)(const char *);
  Log log = (Log)OTHER_TYPE(extism_log_custom);
  CHECK_INT(log("error"), 1);

  extism_plugin_free(plugin);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_callback_types);
  RUN(test_prototypes_of_plugins);
  RUN(test_prototypes_of_functions);
  RUN(test_version);
  RUN(test_wide_parameter);
  RUN(test_wide_results);
  return check_end();
}
