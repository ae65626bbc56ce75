/* One measurement of one library: a process that loads the library by its path, sets one metric up,
 * and then measures it as often as it is told to.
 *
 *     worker LIBRARY METRIC [KEY=VALUE...]
 *
 * It writes "ready VERSION", then reads a number of iterations from each line of standard input and
 * answers it with one number: nanoseconds for all the iterations together, or what the metric says.
 * What goes wrong ends the process with 1 and a line "error TEXT"; a metric it does not have with
 * "unsupported". */
#ifndef WORKER_H
#define WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <extism.h>

/* The functions that are used, all of which libextism 1.41 has too. */
#define FUNCTIONS(F)                                                                               \
  F(version)                                                                                       \
  F(plugin_new)                                                                                    \
  F(plugin_new_error_free)                                                                         \
  F(plugin_free)                                                                                   \
  F(compiled_plugin_new)                                                                           \
  F(compiled_plugin_free)                                                                          \
  F(plugin_new_from_compiled)                                                                      \
  F(plugin_call)                                                                                   \
  F(plugin_call_with_host_context)                                                                 \
  F(plugin_output_length)                                                                          \
  F(plugin_output_data)                                                                            \
  F(plugin_error)                                                                                  \
  F(plugin_cancel_handle)                                                                          \
  F(plugin_cancel)                                                                                 \
  F(function_new)                                                                                  \
  F(current_plugin_memory)                                                                         \
  F(current_plugin_memory_alloc)                                                                   \
  F(current_plugin_memory_length)                                                                  \
  F(current_plugin_memory_free)

#define MEMBER(NAME) __typeof__(&extism_##NAME) NAME;
typedef struct {
  FUNCTIONS(MEMBER)
} Library;
#undef MEMBER

/* The library under test; its functions are called through these pointers. */
extern Library lib;

/* What the command line asks for; a metric takes what it needs. */
typedef struct {
  const char *file;       /* the plug-in: a binary module or text */
  const char *call;       /* the export */
  uint64_t size;          /* bytes of input */
  uint64_t count;         /* blocks, plug-ins or threads */
  uint64_t timeout_ms;    /* of the manifest; 0 for none */
  bool wasi;              /* offer WASI */
  bool context;           /* call with a host context */
  bool data;              /* the manifest has the module in it, as base64 */
  const char *path;       /* a folder that the guest finds as /mnt */
  const char *text;       /* the input, instead of `size` bytes */
} Options;

extern Options options;

typedef struct {
  const char *name;
  void (*set_up)(void);
  double (*measure)(uint64_t iterations);
} Metric;

/* Each list ends with an entry without a name. */
extern const Metric call_metrics[], creation_metrics[], memory_metrics[], thread_metrics[];

/* Ends the process. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Nanoseconds of the monotonic clock. */
uint64_t now(void);
void *allocate(size_t size);

typedef struct {
  uint8_t *data;
  uint64_t size;
} Bytes;

/* What `extism_plugin_new` is given for the options: the file as it is, or a manifest around it. */
Bytes source(void);
/* The file alone. */
Bytes module_bytes(void);
/* The input that the options ask for. */
Bytes input_bytes(void);

/* Plug-ins; each of these ends the process with the library's message when it fails. */
ExtismPlugin *new_plugin(Bytes wasm);
ExtismCompiledPlugin *new_compiled(Bytes wasm);
ExtismPlugin *new_from_compiled(ExtismCompiledPlugin *compiled);
/* Calls the export of the options; nothing if that is empty. */
void call(ExtismPlugin *plugin, Bytes input);
/* Calls `name`; any code is fine. */
int32_t call_any(ExtismPlugin *plugin, const char *name, Bytes input);
_Noreturn void call_failed(ExtismPlugin *plugin, int32_t code);

/* When the guest called `tick` for the last time, and the time before that. */
extern _Atomic uint64_t last_tick, tick_before;

#endif
