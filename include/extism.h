/*
 * libextism 2: run untrusted WebAssembly plug-ins, with bytes in and bytes out.
 *
 *     char *errmsg = NULL;
 *     ExtismPlugin *plugin = extism_plugin_new(wasm, wasm_size, NULL, 0, true, &errmsg);
 *     if (extism_plugin_call(plugin, "greet", name, name_size) == EXTISM_SUCCESS)
 *         fwrite(extism_plugin_output_data(plugin), 1, extism_plugin_output_length(plugin), stdout);
 *     extism_plugin_free(plugin);
 *
 * c-examples/ has whole programs. This file is generated from src/ffi by `make header`: change it there.
 */
#ifndef EXTISM_H
#define EXTISM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Types and rules
 * ===============
 *
 * Handles. `ExtismPlugin*`, `ExtismCompiledPlugin*`, `ExtismFunction*`, `ExtismCancelHandle*` and
 * `ExtismCurrentPlugin*` are opaque handles, not addresses: pass them around, compare them, never
 * look behind them. A handle that was freed, was never given out or is of another kind is
 * recognised, and answered with an error.
 *
 * Ownership. What a program passes in stays its own and is copied where it is needed longer than the
 * call. What is returned belongs to the library, and its documentation names the calls that end its
 * life.
 *
 * Errors. A function that fails returns its fail value: `NULL`, 0, false, or -1 for a call. What
 * was wrong is told by `errmsg` where a function has it, by `extism_plugin_error` for what concerns
 * a plug-in, and in every case by `extism_last_error`, in the thread that called.
 *
 * NULL. A pointer must not be NULL unless its documentation says so; NULL where it is not allowed
 * is an error, not undefined. Where a length is 0 the pointer beside it is not looked at.
 *
 * Threads. Every function may be called from any thread at any time, and handles may be used in
 * any thread. A plug-in runs one call at a time: calls from other threads wait their turn, all
 * other functions answer at once.
 *
 * Callbacks (host functions, `free_user_data`, log drains) run on the thread and the stack of the
 * caller, and must return normally. A C++ exception that leaves one ends the process with a line
 * that says so. A longjmp out of one, and the end of its thread inside of one (`pthread_exit`,
 * cancellation), are undefined. No function may be called from a signal handler.
 *
 * Stack. Plug-ins need 768 KiB of it. Where less is left (small threads, fibers, plug-ins that call
 * each other many levels deep), they run on a thread of the library while the caller waits.
 */

/** What `extism_plugin_call` returns on success. */
#define EXTISM_SUCCESS 0

/** The type of a WebAssembly value. Handles of blocks are `ExtismValType_I64` (`EXTISM_PTR`). */
typedef enum {
    /** 32-bit integer. */
    ExtismValType_I32 = 0,
    /** 64-bit integer. */
    ExtismValType_I64 = 1,
    /** 32-bit float. */
    ExtismValType_F32 = 2,
    /** 64-bit float. */
    ExtismValType_F64 = 3,
    /** 128-bit vector. No host function can take or return it: `ExtismValUnion` cannot carry it. */
    ExtismValType_V128 = 4,
    /** Reference to a function. No host function can take or return it. */
    ExtismValType_FuncRef = 5,
    /** Reference to a host object. No host function can take or return it. */
    ExtismValType_ExternRef = 6,
} ExtismValType;

/** What cancels the calls of one plug-in. Lives as long as its plug-in; never freed by itself. */
typedef struct ExtismCancelHandle ExtismCancelHandle;

/** A compiled plug-in, of which any number of plug-ins can be made, in any thread. */
typedef struct ExtismCompiledPlugin ExtismCompiledPlugin;

/**
 * The plug-in that is calling a host function. Valid, in any thread, while that plug-in is inside
 * a host function; refused outside of one.
 */
typedef struct ExtismCurrentPlugin ExtismCurrentPlugin;

/** A function of the host that plug-ins can import. */
typedef struct ExtismFunction ExtismFunction;

/** A plug-in: an instance of a WebAssembly program with its memory, variables and configuration. */
typedef struct ExtismPlugin ExtismPlugin;

/** A number of bytes, or of elements of an array. */
typedef uint64_t ExtismSize;

/** A block of Extism memory: its offset in bytes from `extism_current_plugin_memory`. 0 is "none". */
typedef uint64_t ExtismMemoryHandle;

/** The bits of a value; which member is meant, the type beside it tells. */
typedef union {
    /** For `ExtismValType_I32`. */
    int32_t i32;
    /** For `ExtismValType_I64`, and for handles of blocks. */
    int64_t i64;
    /** For `ExtismValType_F32`. */
    float f32;
    /** For `ExtismValType_F64`. */
    double f64;
} ExtismValUnion;

/** An argument or a result of a host function. */
typedef struct {
    /** The type. What a callback writes here is not looked at: the declared type counts. */
    ExtismValType t;
    /** The value. */
    ExtismValUnion v;
} ExtismVal;

/**
 * A host function.
 *
 * - `plugin`: the plug-in that calls, valid until the function returns.
 * - `inputs`: the `n_inputs` arguments, of the declared types; NULL if there are none. They may be
 *   overwritten.
 * - `outputs`: room for the `n_outputs` results, zero in the beginning; NULL if there are none.
 * - `data`: the `user_data` of `extism_function_new`.
 *
 * Runs on the thread that made the call. May call any function of this header; a call of the same
 * plug-in is refused as busy.
 */
typedef void (*ExtismFunctionType)(ExtismCurrentPlugin *plugin,
                                   const ExtismVal *inputs,
                                   ExtismSize n_inputs,
                                   ExtismVal *outputs,
                                   ExtismSize n_outputs,
                                   void *data);

/**
 * Receives one line of the log: `size` bytes of UTF-8, ending in a newline, not in a NUL. `data`
 * is valid until the function returns.
 */
typedef void (*ExtismLogDrainFunctionType)(const char *data, ExtismSize size);

/*
 * The library
 * ===========
 *
 * The library stays loaded once it was: dlclose does nothing. It starts threads only when it needs
 * them (for timeouts, for large modules, for HTTP, for callers with little stack).
 *
 * Signals. Traps of plug-ins arrive as SIGSEGV, SIGILL, SIGFPE or SIGBUS; the library's handlers
 * pass on what is not theirs. A handler that a program installs after its first plug-in (a crash
 * reporter, Python's faulthandler, a JVM) takes the traps away and ends the process, unless it
 * calls the handler that was there before it. `EXTISM_SIGNALS=0` in the environment does without
 * signals: plug-ins are slower then, and have no guard against Spectre attacks on their memory.
 * Where all signals are blocked, the first call of a thread unblocks these.
 *
 * fork. The child of a process that uses the library can use it too, and go on with the plug-ins
 * that its parent made. What another thread of the parent was calling stays busy for ever there.
 * Each process frees its own: `free_user_data` runs in the parent and in a child that frees what
 * it got of it, so it must not touch what they share (files to delete, a connection to end).
 */

/**
 * The version of the library, such as "2.0.0".
 *
 * Returns a static string. Cannot fail.
 */
const char *extism_version(void);

/**
 * What was wrong with this thread's last call into the library.
 *
 * Returns a text, or NULL if that call succeeded. The text belongs to the library and is valid
 * until this thread's next call of another function. Not in libextism 1.41.
 */
const char *extism_last_error(void);

/*
 * Compiled plug-ins
 * =================
 *
 * Compiling takes most of the time that creating a plug-in takes. A program that makes several
 * plug-ins of one module compiles it once, and makes them from that, in any thread.
 */

/**
 * Compiles a plug-in.
 *
 * - `wasm`: `wasm_size` bytes: a WebAssembly module, WebAssembly text, or a manifest in JSON or
 *   TOML. Read during the call only.
 * - `functions`: an array of `n_functions` functions that the plug-in may import; NULL for none.
 *   A function may stand in any number of arrays; of two with the same name the later counts.
 *   See `extism_function_new` for who owns them afterwards.
 * - `with_wasi`: whether the plug-in may import WASI preview 1.
 * - `errmsg`: if not NULL, receives a message on failure, to be freed with
 *   `extism_plugin_new_error_free`. Not written on success.
 *
 * Returns a compiled plug-in, to be freed with `extism_compiled_plugin_free`; NULL on failure:
 * the input is neither of the above, the manifest is wrong, a module cannot be had or compiled,
 * an import is missing or of another type, the initial memory is over the limit. A failed call
 * takes nothing: the functions can be used again. Runs no code of the plug-in. Any thread.
 */
ExtismCompiledPlugin *extism_compiled_plugin_new(const uint8_t *wasm,
                                                 ExtismSize wasm_size,
                                                 const ExtismFunction **functions,
                                                 ExtismSize n_functions,
                                                 bool with_wasi,
                                                 char **errmsg);

/**
 * Compiles a plug-in whose calls have a fuel limit.
 *
 * As `extism_compiled_plugin_new`; each call of a plug-in made of it may spend `fuel_limit` units
 * (about one for each instruction), and its start-up as many.
 */
ExtismCompiledPlugin *extism_compiled_plugin_new_with_fuel_limit(const uint8_t *wasm,
                                                                 ExtismSize wasm_size,
                                                                 const ExtismFunction **functions,
                                                                 ExtismSize n_functions,
                                                                 bool with_wasi,
                                                                 uint64_t fuel_limit,
                                                                 char **errmsg);

/**
 * Frees a compiled plug-in. Plug-ins that were made of it stay valid.
 *
 * - `plugin`: NULL is fine.
 *
 * Fails if the handle is none, with the reason in `extism_last_error`. Any thread.
 */
void extism_compiled_plugin_free(ExtismCompiledPlugin *plugin);

/*
 * Plug-ins
 * ========
 */

/**
 * Makes a plug-in.
 *
 * Compiles it and makes one plug-in of that; the parameters, and what can fail, are those of
 * `extism_compiled_plugin_new`. Runs no code of the plug-in: start functions and initialisers run
 * in the first call.
 *
 * Returns a plug-in, to be freed with `extism_plugin_free`; NULL on failure. Any thread.
 */
ExtismPlugin *extism_plugin_new(const uint8_t *wasm,
                                ExtismSize wasm_size,
                                const ExtismFunction **functions,
                                ExtismSize n_functions,
                                bool with_wasi,
                                char **errmsg);

/**
 * Makes a plug-in whose calls have a fuel limit.
 *
 * As `extism_plugin_new`; each call may spend `fuel_limit` units (about one for each instruction),
 * and the start-up as many. A call that runs out fails with the error `plugin ran out of fuel`.
 */
ExtismPlugin *extism_plugin_new_with_fuel_limit(const uint8_t *wasm,
                                                ExtismSize wasm_size,
                                                const ExtismFunction **functions,
                                                ExtismSize n_functions,
                                                bool with_wasi,
                                                uint64_t fuel_limit,
                                                char **errmsg);

/**
 * Makes a plug-in of a compiled plug-in, which stays the caller's.
 *
 * - `errmsg`: as for `extism_compiled_plugin_new`.
 *
 * Returns a plug-in, to be freed with `extism_plugin_free`; NULL on failure. Any thread.
 */
ExtismPlugin *extism_plugin_new_from_compiled(const ExtismCompiledPlugin *compiled, char **errmsg);

/**
 * Frees a message that a function gave through `errmsg`.
 *
 * - `err`: NULL is fine.
 *
 * Fails if it is no such message, or was freed already; `extism_last_error` says so. Any thread.
 */
void extism_plugin_new_error_free(char *err);

/**
 * Frees a plug-in.
 *
 * - `plugin`: NULL is fine.
 *
 * Returns at once, also while a call runs in it, in another thread or around the host function
 * that calls this: the call goes on, its `ExtismCurrentPlugin*`, cancel handle, output and id stay
 * valid until it has ended, and then all goes. Calls that wait for their turn fail. Fails if the
 * handle is none, with the reason in `extism_last_error`. Any thread.
 */
void extism_plugin_free(ExtismPlugin *plugin);

/**
 * The id of a plug-in: a random UUID (version 4), as it stands in log lines.
 *
 * Returns 16 bytes that belong to the plug-in and are valid until it is freed; NULL if the handle
 * is none. Any thread, also while a call runs.
 */
const uint8_t *extism_plugin_id(ExtismPlugin *plugin);

/**
 * Changes the configuration of a plug-in, which it reads with `config_get`.
 *
 * - `json`: `json_size` bytes of JSON: an object whose values are strings, merged into what there
 *   is; a key whose value is `null` is removed.
 *
 * Returns true on success; false if the JSON is no such object, and nothing changed then. The
 * reason is this thread's `extism_plugin_error`. Any thread; the guest of a running call sees the
 * change at its next `config_get`.
 */
bool extism_plugin_config(ExtismPlugin *plugin, const uint8_t *json, ExtismSize json_size);

/**
 * Whether a plug-in exports a function of this name that `extism_plugin_call` can call: one
 * without parameters, and with no result or one `i32`.
 *
 * - `func_name`: NUL-terminated UTF-8.
 *
 * Any thread, also while a call runs.
 */
bool extism_plugin_function_exists(ExtismPlugin *plugin, const char *func_name);

/**
 * Calls a function of a plug-in.
 *
 * - `func_name`: NUL-terminated UTF-8.
 * - `data`: the input, `data_len` bytes, copied into the plug-in's Extism memory. Any bytes, also
 *   the output of this plug-in's last call.
 *
 * Returns 0 on success, or what the function returns: plug-ins return another `i32` to say that
 * they failed. 134 if the call trapped, timed out or was cancelled; -1 if it failed with an error
 * of its own or of the library, ran out of fuel or memory, or could not run; the exit code if a
 * WASI program exited.
 *
 * Afterwards `extism_plugin_error` has the error, if there is one, and `extism_plugin_output_data`
 * the output, also of a call that failed after it was set. The first call instantiates the plug-in
 * and runs what it brings for its start-up. An instance keeps its state from call to call, also
 * after a trap; `_start` runs in a fresh one each time.
 *
 * Any thread: a call from another thread waits for its turn, within its own `timeout_ms`. A call
 * from inside a host function of the same plug-in is refused as busy, and so is one that would
 * wait for a plug-in that waits for this one.
 */
int32_t extism_plugin_call(ExtismPlugin *plugin,
                           const char *func_name,
                           const uint8_t *data,
                           ExtismSize data_len);

/**
 * Calls a function of a plug-in, with a pointer for its host functions.
 *
 * As `extism_plugin_call`.
 *
 * - `host_context`: what `extism_current_plugin_host_context` returns during this call. Not looked
 *   at by the library; may be NULL.
 */
int32_t extism_plugin_call_with_host_context(ExtismPlugin *plugin,
                                             const char *func_name,
                                             const uint8_t *data,
                                             ExtismSize data_len,
                                             void *host_context);

/** The length in bytes of the output of the last call; 0 while a call runs. Any thread. */
ExtismSize extism_plugin_output_length(ExtismPlugin *plugin);

/**
 * The output of the last call.
 *
 * Returns `extism_plugin_output_length` bytes in the plug-in's memory, valid until its next call,
 * reset or free: copy them before that. Not NULL for a plug-in, also if there is no output. Any
 * thread; while a call runs there is no output.
 */
const uint8_t *extism_plugin_output_data(ExtismPlugin *plugin);

/**
 * The error of a plug-in.
 *
 * Returns what was wrong with the last finished call, or with this thread's last operation on the
 * plug-in if that was refused (a busy call, a reset during a call, a bad configuration); NULL if
 * nothing was. A static text if the handle is none; NULL for NULL. The text belongs to the plug-in
 * and is valid until this thread asks this plug-in again or ends, or the plug-in is freed. Any
 * thread.
 */
const char *extism_plugin_error(ExtismPlugin *plugin);

/** The old name of `extism_plugin_error`. */
const char *extism_error(ExtismPlugin *plugin);

/**
 * Frees all Extism memory of a plug-in, and ends the validity of its output.
 *
 * Variables, configuration and the state of the instance stay. A program needs this only to give
 * memory back early: every call begins with it.
 *
 * Returns true on success; false while a call runs. Any thread.
 */
bool extism_plugin_reset(ExtismPlugin *plugin);

/** Lets a plug-in see the headers of HTTP responses, from its next call on. Any thread. */
void extism_plugin_allow_http_response_headers(ExtismPlugin *plugin);

/**
 * What cancels the calls of a plug-in.
 *
 * Returns a handle that lives as long as the plug-in, and is not freed by itself; NULL if the
 * handle `plugin` is none. Any thread.
 */
const ExtismCancelHandle *extism_plugin_cancel_handle(const ExtismPlugin *plugin);

/**
 * Ends the call that runs in a plug-in: it returns 134, with the error `cancelled`.
 *
 * The call ends at the next loop or function of the guest, or at once if it waits in WASI or for
 * the network; a host function is not interrupted. Calls that come later, and other plug-ins, are
 * not touched.
 *
 * Returns true for a plug-in that lives, also if no call runs. Any thread.
 */
bool extism_plugin_cancel(const ExtismCancelHandle *handle);

/*
 * Host functions
 * ==============
 *
 * What the host offers to plug-ins. A host function receives numbers; bytes travel through the
 * plug-in's Extism memory, by the functions of the next section.
 */

/**
 * Makes a host function.
 *
 * - `name`: the name that plug-ins import, NUL-terminated UTF-8. Copied.
 * - `inputs`, `outputs`: the types of its `n_inputs` parameters and `n_outputs` results: numbers
 *   only. Copied. NULL where there are none.
 * - `func`: what is called. It may be called from several threads at once, for several plug-ins.
 * - `user_data`: handed to `func` with each call. May be NULL.
 * - `free_user_data`: called once with `user_data` when nothing uses the function any more, in a
 *   thread that is inside a call of this library; not if `user_data` is NULL. May be NULL.
 *
 * Returns a function, to be freed with `extism_function_free`; NULL if a parameter is wrong
 * (`extism_last_error` says which), and then `user_data` is still the caller's. Any thread.
 *
 * A function can be handed to any number of plug-ins. Once one was made with it, it lives as long
 * as plug-ins and compiled plug-ins use it, whether or not the handle was freed; when the last of
 * them goes, `free_user_data` runs, and the handle is good for `extism_function_free` only.
 */
ExtismFunction *extism_function_new(const char *name,
                                    const ExtismValType *inputs,
                                    ExtismSize n_inputs,
                                    const ExtismValType *outputs,
                                    ExtismSize n_outputs,
                                    ExtismFunctionType func,
                                    void *user_data,
                                    void (*free_user_data)(void *user_data));

/**
 * Sets the module name under which plug-ins import the function; without this,
 * `extism:host/user`. For plug-ins that are made from now on.
 *
 * - `namespace_`: NUL-terminated UTF-8. Copied.
 *
 * Fails if the handle is none, or the text is not UTF-8; `extism_last_error` says so. Any thread.
 */
void extism_function_set_namespace(ExtismFunction *ptr, const char *namespace_);

/**
 * Frees a function's handle: before or after the plug-ins that use it, which keep what they need.
 *
 * - `f`: NULL is fine.
 *
 * Runs `free_user_data` if no plug-in was made with the function. Fails if the handle is none,
 * with the reason in `extism_last_error`. Any thread.
 */
void extism_function_free(ExtismFunction *f);

/*
 * Inside a host function
 * ======================
 *
 * These take the `ExtismCurrentPlugin*` that a host function receives, in any thread, until it
 * returns. Block handles are offsets: the bytes of a block begin at
 * `extism_current_plugin_memory(plugin) + handle`.
 */

/**
 * The base address of the plug-in's Extism memory.
 *
 * Returns an address that stays the same while the host function runs, also when memory grows;
 * NULL if the handle is refused. Only the bytes of live blocks may be written.
 */
uint8_t *extism_current_plugin_memory(ExtismCurrentPlugin *plugin);

/**
 * Allocates a block of `n` bytes in the plug-in's Extism memory.
 *
 * Returns its handle; 0 if `n` is 0 or there is no room (`memory.max_pages`, 4 GiB), or the handle
 * `plugin` is refused. The block lives until it is freed, and at most until the plug-in's next
 * call; handles that are handed to the plug-in as arguments it usually frees itself. The content
 * of a new block is unspecified.
 */
ExtismMemoryHandle extism_current_plugin_memory_alloc(ExtismCurrentPlugin *plugin, ExtismSize n);

/** The length of a block in bytes; 0 if the handle is none of a live block. */
ExtismSize extism_current_plugin_memory_length(ExtismCurrentPlugin *plugin, ExtismMemoryHandle n);

/** Frees a block. 0, and what is not a live block, is fine: nothing happens. */
void extism_current_plugin_memory_free(ExtismCurrentPlugin *plugin, ExtismMemoryHandle ptr);

/**
 * The `host_context` of the call that runs (`extism_plugin_call_with_host_context`); NULL if it
 * has none, or the handle is refused.
 */
void *extism_current_plugin_host_context(ExtismCurrentPlugin *plugin);

/*
 * Logs
 * ====
 *
 * Logging is off until one of these functions turns it on, once and for the whole process: to a
 * file, to a stream, or to a buffer that the host drains. A line looks like
 *
 *     2026-01-31T12:00:00.000000Z  INFO extism::pdk: text plugin="4f6f..."
 *
 * with the target `extism::pdk` for what plug-ins log, and `extism` for the library itself.
 *
 * A level is `off`, `error`, `warn`, `info`, `debug` or `trace`, or a list of targets and levels
 * such as `extism=info,cranelift=debug`.
 */

/**
 * Writes the log to a file or a stream.
 *
 * - `filename`: the file, created if it does not exist, appended to if it does; `-`, `stderr` or
 *   NULL for the standard error stream, `stdout` for standard output.
 * - `log_level`: NULL for `error`.
 *
 * Returns true on success; false if the process has a log already, the file cannot be opened or the
 * level is none, with the reason in `extism_last_error`. Any thread.
 */
bool extism_log_file(const char *filename, const char *log_level);

/**
 * Keeps log lines in a buffer for `extism_log_drain`.
 *
 * - `log_level`: NULL for `error`.
 *
 * The buffer holds 16 MiB; beyond that the oldest lines are dropped, and counted in a line of
 * their own. Returns true on success; false if the process has a log already or the level is none,
 * with the reason in `extism_last_error`. Any thread.
 */
bool extism_log_custom(const char *log_level);

/**
 * Hands over the lines that were kept since `extism_log_custom` or the last drain, oldest first.
 *
 * - `handler`: called once for each line, on this thread. It may log, and may drain again.
 *
 * Fails if `handler` is NULL. Any thread.
 */
void extism_log_drain(ExtismLogDrainFunctionType handler);

/*
 * Shorthands
 * ==========
 */

/** The type of a parameter or result of a host function that is a handle of a block of memory. */
#define EXTISM_PTR ExtismValType_I64

/** Declares a host function: `EXTISM_FUNCTION(lookup);`. */
#define EXTISM_FUNCTION(N)                                                                          \
    extern void N(ExtismCurrentPlugin *, const ExtismVal *, ExtismSize, ExtismVal *, ExtismSize,    \
                  void *)

/** The same for a function that Go code exports: cgo knows no `const`, and wants a number for the data. */
#define EXTISM_GO_FUNCTION(N)                                                                       \
    extern void N(void *, ExtismVal *, ExtismSize, ExtismVal *, ExtismSize, uintptr_t)

#ifdef __cplusplus
}
#endif

#endif /* EXTISM_H */
