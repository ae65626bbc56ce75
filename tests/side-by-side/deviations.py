"""Where ours is meant to differ from libextism 1.41: every difference that the scripts may see.

An entry names the reason (for most a sentence of docs/abi.md) and, for each observation, the one
value that ours must have. A difference without an entry fails; so does an entry that explains none.
"""

from typing import Any, NamedTuple

MISSING = "(not seen)"
SOME = "(some error)"


class Deviation(NamedTuple):
    """`script` and `path` may hold `*`."""

    script: str
    path: str
    ours: Any
    why: str
    # The reference's value depends on chance (freed memory, threads): it may happen to be equal.
    unstable: bool = False

    def allows(self, value):
        return self.ours == value


DEVIATIONS: list[Deviation] = []


def deviate(script, why, seen, unstable=False):
    """Adds entries for one script; `seen` maps observations to ours."""
    DEVIATIONS.extend(Deviation(script, path, ours, why, unstable) for path, ours in seen.items())


def call(name, code, output="", error=None):
    """The three observations of one call."""
    return {f"{name}.code": code, f"{name}.output": output, f"{name}.error": error}


def ends(name, code=-1, error=SOME):
    """A call that ours ends where 1.41 went on: its code and error, in the place of what it gave."""
    return {f"{name}.code": code, f"{name}.error": error}


# Guest ABI: memory.

for operation in ("load_u8", "load_u64", "load_u8 far", "load_u64 at -1", "store_u8", "store_u64", "store_u8 at -1", "store_u64 far"):
    deviate("guest_memory.past_the_end*", "loads and stores past the end trap", {f"{operation} gives": MISSING, **ends(operation, 134)})
deviate("guest_memory.reset*", "reset keeps the error", {"run.error": "kept error", "error after the host's reset": "kept error"})
for size in ("2^63", "-1", "-17"):
    deviate("guest_memory.absurd_sizes*", "an absurd size ends the call with oom (1.41: a handle of nothing)", {f"{size} gives": MISSING, **ends(size, error="oom")})
deviate("guest_memory.host_alloc", "an alloc by the host that cannot be met gives 0", {"absurd alloc gives 0": 0})

# Guest ABI: input, output, error.

deviate("guest_io.input_reading*", "0 past the end of the input", {"u64 past the end": [0, 0, 0, 0, 0]})
deviate("guest_io.input_set*", "an offset of 0 empties, as for output_set", {"emptied": 0})
for place in ("past the end", "far", "wrapping"):
    deviate("guest_io.input_set*", "range checked like output_set", {f"{place} continues": MISSING, **ends(place)})
deviate("guest_io.output*", "offset 0: empty output (1.41 leaves the one before)", {"zero_offset.output": ""})
for place in ("past the end", "over the end"):
    deviate("guest_io.output_outside*", "output outside memory is an error", {f"{place} continues": MISSING, **ends(place)})
for name in ("output_far_outside", "output_wrapping"):
    deviate(f"guest_io.{name}*", "output outside memory is an error", {"continues": MISSING, **ends("run")})
deviate("guest_io.error*", "error_set: copied at once; what is not a live block is ignored", {
    "freed_after.error": "freed text", "changed_after.error": "copied at once", "no_block.error": None})
deviate("guest_io.error*", "a NUL byte does not cut the text", {"with_nul.error": "before\\0after"})

# Guest ABI: configuration, variables.

for name in ("no JSON", "array", "string", "number value", "bool value", "object value", "empty", "trailing", "not UTF-8", "null", "good with a bad one"):
    deviate("guest_store.config_refused", "a refused operation leaves its text for the asking thread", {f"{name}: error": SOME})
for name in ("log_info", "log_error"):
    for kind in ("inside a block", "freed", "absurd"):
        deviate("guest_store.no_blocks*", "a handle that is no live block is an error of the call (1.41: only where the line is written)",
                {f"{name} {kind} gives": MISSING, **ends(f"{name} {kind}")})
FULL = "Variable store is full"
FULL_WHY = "the text is `Variable store is full` (1.41: the backtrace alone)"
MORE_ROOM = "1.41 counts 48 bytes for each variable and the old value beside the new one; ours keys and values"
MIB = 1 << 20
deviate("guest_store.default_limit*", MORE_ROOM, {
    **{f"{MIB - n} continues": True for n in (1, 2)}, **ends(f"one of {MIB - 2}", 0, None), **ends(f"one of {MIB - 1}", 0, None),
    **ends("replaced by as much", 0, None)})
for name in (f"one of {MIB}", f"one of {MIB + 1}", "half a MiB as two", "half a MiB as three"):
    deviate("guest_store.default_limit*", FULL_WHY, {f"{name}.error": FULL})
deviate("guest_store.given_limit*", MORE_ROOM, {f"10: {n} continues": True for n in (1, 5, 9)})
for n in (1, 5, 9):
    deviate("guest_store.given_limit*", MORE_ROOM, ends(f"10: {n}", 0, None))
for name in ("1: 1", "1: 5", "1: 9", "1: 10", "1: 11", f"1: {3 * MIB}", "10: 10", "10: 11", f"10: {3 * MIB}"):
    deviate("guest_store.given_limit*", FULL_WHY, {f"{name}.error": FULL})
deviate("guest_store.given_limit*", "a removal is legal with limit 0", {"removal with limit 0": True, **ends("reading with limit 0", 0, None)})
for name, seen in {"config_get": {"config_get gives": 0}, "var_get": {"var_get gives": 0}, "var_set": {"var_set continues": True}}.items():
    deviate("guest_store.not_utf8_keys", "keys are bytes: one that is not UTF-8 is a key like others", {**seen, **ends(name, 0, None)})

# Return codes.

ORDER = "where several apply: fuel, then timeout or cancel, then the exit code, then a set error"
deviate("return_codes.timeout[*", ORDER, ends("with error", 134, "timeout"))
deviate("return_codes.cancelled*", ORDER, ends("again", 134, "cancelled"))
deviate("return_codes.exit_with_error_and_output", ORDER, {"error0.code": 0, "error3.code": 3})
deviate("return_codes.exit_codes", "the exit code, whatever it is (1.41: -1 from 126 on)", {f"exit {n}.code": n for n in (126, 127, 255, 1000)})
CANCELLED = "cancel says `cancelled`"
deviate("return_codes.cancelled*", CANCELLED, {"spins.error": "cancelled"})
deviate("return_codes.cancel_in_host_function", CANCELLED, {"run.error": "cancelled"})
deviate("return_codes.one_cancel_one_plugin", CANCELLED, {"cancelled.error": "cancelled"})
deviate("return_codes.one_cancel_one_plugin", "timeouts and cancels reach one plug-in only", ends("the other", 0, None))
for name in ("i64", "f32", "ref"):
    deviate("return_codes.export_types", "an export of another type is an error that says so (1.41: -1 alone)", {f"'{name}'.error": SOME})
deviate("return_codes.export_types", "an export that is no function is an error that says what it is", {
    f"'{name}'.error": SOME for name in ("memory", "global", "table")})
deviate("return_codes.fuel[*", "the output set before is kept, as for traps", {"12 with_output.output": "set before"})
deviate("return_codes.fuel_budget", "all fuel is the guest's (1.41's own code uses some, and refuses too little at creation)", {
    "0: created": "accepted", "1: created": "accepted", "100: nothing*.code": 0, "100: nothing*.error": None, "compiled: nothing.code": 0,
    "compiled: nothing.error": None, **{f"{n}: {f}{a}.{x}": v for n in (0, 1) for f in ("nothing", "some") for a in ("", " again")
                                        for x, v in (("code", -1), ("output", ""), ("error", "plugin ran out of fuel"))}})
GROWTH = "a guest's own memory.grow past max_pages returns -1"
deviate("limits.own_growth_denied*", GROWTH, {**ends("grow", 3, None), **ends("grow_and_error", 1, "no memory"), "memory.grow": 0xFFFFFFFF})
START = "creation runs no guest code; a plug-in whose start-up fails fails its first call, and each one after it"
for kind in ("start function", "_initialize", "active data outside"):
    deviate("return_codes.start_up", START, {f"{kind}: created": "accepted", **call(f"{kind}: first call", 134, error=SOME), **call(f"{kind}: second call", 134, error=SOME)})
for kind in ("__wasm_call_ctors", "hs_init"):
    deviate("return_codes.start_up", START, {f"{kind}: first call.code": 134, **ends(f"{kind}: second call", 134)})
deviate("return_codes.start_up_fuel", START, {"fuel: created": "accepted", **call("fuel", -1, error="plugin ran out of fuel")})
deviate("return_codes.start_up_time", START, {"created": "accepted", **call("call", 134, error="timeout"), "end": "reached"})

# Host ABI.

deviate("host_api.version", "the version", {"text": "2.0.0"})
deviate("host_api.kinds_of_input", "accepts more", {"WAT with leading space": "accepted", **call("WAT with leading space: f", 7),
                                                    "WAT with BOM": "accepted", **call("WAT with BOM: f", 7)})
deviate("host_api.wide_booleans", "results are extended to 32 bits", {"answers": [1, 0, 1, 0, 1, 1]}, unstable=True)
deviate("host_functions.result_of_another_type", "the declared type counts, not what the callback writes into `t`", {"f.code": 0, "f.error": None})
deviate("host_functions.same_function_twice", "any number of uses may share a function", {"created": "accepted", **call("f", 0), "calls": [1]})
NULLS = "NULL is an error, never a crash"
deviate("nulls.namespace_null", NULLS, {"survived": True, "end": "reached"})
deviate("nulls.function_name_null", NULLS, {"handle": None, "end": "reached"})
deviate("nulls.null_plugin", NULLS, {"reset": 0, "exists": 0, "id": None, "cancel handle": None, "headers": "survived", "end": "reached"})
deviate("nulls.null_cancel_handle", NULLS, {"cancel": 0, "end": "reached"})
deviate("nulls.null_name_call", NULLS, {**call("call", -1, error=SOME), **call("afterwards", 7), "end": "reached"})
deviate("nulls.null_name_exists", NULLS, {"exists": 0, "end": "reached"})
deviate("nulls.null_compiled", NULLS, {"plug-in": None, "end": "reached"})
deviate("nulls.null_function", NULLS, {"survived": True, "end": "reached"})
deviate("host_api.last_error", "extism_last_error is added", {
    "there": True, "before any error": False, "after success": False, "after a call on NULL": True, "still there when asked again": True,
    "after success again": False, "after a call on what is no handle": True, "another thread's": [False]})

for kind in ("v128", "funcref", "externref"):
    deviate("host_functions.reference_types", "ExtismValUnion has no room for V128 and references: extism_function_new gives NULL and says why", {
        f"{kind}: created": "refused", **{f"{kind}: f.{x}": MISSING for x in ("code", "output", "error")}})

# Ownership of functions.

deviate("ownership.failed_creation", "a creation that fails leaves the function to its caller", {"not by the failure": [], "still of use": "accepted", **call("f", 0)})
deviate("ownership.shared", "any number of plug-ins may share a function", {
    "second": "accepted", "compiled": "accepted", **call("second.f", 0), "second before its end": [], "before the compiled one's end": []})

# While a call runs.

BUSY = "while a call runs, getters do not wait and calls from inside are refused"
FINISHES = {**call("f", 6, "set before"), **call("g", 8), "end": "reached"}
deviate("during_call.call[inside]", BUSY, {"code": -1, "error": SOME, **FINISHES})
deviate("during_call.reset[inside]", "reset during a call is refused", {"reset": 0, "f.output": "set before"})
deviate("during_call.output[inside]", BUSY, {"length": 0, "data is not NULL": True, **FINISHES})
deviate("during_call.output[thread]", BUSY, {"in time": MISSING, "length": 0, "data is not NULL": True}, unstable=True)
deviate("during_call.error[inside]", BUSY, {"during": "Function not found: nope", **call("f", 6, "set before"), "after": None, "end": "reached"})
deviate("during_call.error[thread]", BUSY, {"in time": MISSING, "during": "Function not found: nope", "f.code": 6}, unstable=True)
FREE = "free during a call: returns at once, the running call leaves as it would have"
deviate("during_call.free[*", FREE, {"code": 6, "end": "reached"}, unstable=True)
deviate("during_call.free_then_memory", FREE, {"alloc works": True, "length": 10, "cancel handle of before": 1, "code": 6, "end": "reached"}, unstable=True)
deviate("during_call.refused_text", "a refused operation leaves its text for the asking thread alone", {
    "busy has a text": True, "other thread": [None], "code": 6, "after the call": None, "end": "reached"})
deviate("during_call.refused_config_text", "a refused operation leaves its text for the asking thread alone", {"has a text": True, "that of the config": True})
deviate("during_call.circle", "a wait that would close a circle is refused as busy", {"a called": -1, "b called": 6, "a": 6, "end": "reached"})
deviate("during_call.kept_current_plugin", "ExtismCurrentPlugin* is refused after its callback", {"between": 0, "base between": None})
deviate("during_call.waiting_counts", "waiting counts against timeout_ms", {"the waiting call": [[134, True]]})

# Linking.

deviate("linking.unknown_env_function_by_user", "a user function comes before extism:host/env, also for a name that is new there", {"created": "accepted", **call("f", 3)})
deviate("linking.circle", "a circle of modules is an error (1.41 crashes)", {"created": "refused", "end": "reached"})
deviate("linking.self_import", "a module that imports from itself is an error (1.41 crashes)", {"created": "refused", "end": "reached"})

deviate("linking.linked_command_many_times", "any number of calls into a linked command", {"calls that gave 1": 12_000})

# Logging.

deviate("logs.file[extism=error,cranelift=debug]", "get_log_level is that of what plug-ins log", {"get_log_level 1": 4})
deviate("logs.file[other=trace]", "get_log_level is that of what plug-ins log", {"get_log_level 1": 0x7FFFFFFF})
deviate("logs.contents", "one entry is one line: control characters are escaped", {
    "two lines: lines": 'TIME  INFO extism::pdk: a\\nb plugin="UUID"\n', "NUL: lines": 'TIME  INFO extism::pdk: a\\x00b plugin="UUID"\n'})
deviate("logs.not_utf8", "one entry is one line", {"lines": 1})
deviate("logs.dead_handles[error]", "a handle that is no live block is an error of the call, whatever the level", {"info absurd continues": MISSING, **ends("info absurd")})
deviate("logs.bad_arguments", "a file that cannot be opened gives false (1.41 aborts the process)", {"no such folder": 0, "empty path": 0, "not UTF-8 level": 0, "end": "reached"})
LEVEL = "a level that is none gives false, and nothing is logged"
deviate("logs.bad_level[nonsense]", LEVEL, {"result": 0, "get_log_level 1": 0x7FFFFFFF})
for name in ("extism=nonsense", "a=b=c"):
    deviate(f"logs.bad_level[{name}]", LEVEL, {"result": 0, "get_log_level 1": 0x7FFFFFFF, "lines": []})
deviate("logs.custom_bad_level", LEVEL, {"result": 0})
deviate("logs.custom_twice", "a second set-up is refused and changes nothing", {"get_log_level 2": 2, "drained": 3})

# HTTP.

deviate("web.bad_requests", "any method that is a token is sent", {
    "odd method: call.code": 0, "odd method: call.error": None, "odd method": [200, None], "at the server": [["PURGE", "/echo", "", {}]]})
deviate("web.status_and_headers*", "no request, no headers", {"allowed: headers before": None})
deviate("web.status_and_headers*", "repeated headers are joined", {"allowed: headers": {"x-test": "yes", "x-twice": "a, b"}})
deviate("web.allowed_hosts", "hosts are compared case-insensitively", {
    "upper case entry": [200, "hello from the server"], "upper case entry: call.code": 0, "upper case entry: call.error": None})
deviate("web.redirects", "redirects are checked", {"/redirect-elsewhere": MISSING, **ends("/redirect-elsewhere: call"), "secret asked for": False})
deviate("web.cancelled", CANCELLED + " and ends a waiting request", {"error": "cancelled", "in time": True})
deviate("web.urls_in_manifests", "hash: hex of either case", {"hash in upper case": "accepted", **call("hash in upper case: f", 7)})

# Manifests.

deviate("manifest.pointer_null", "a bad address is an error, not a crash", {"null": "refused", "end": "reached"})
deviate("manifest.pointer_bad", "a bad address is an error, not a crash", {"bad": "refused", "end": "reached"})
deviate("manifest.pointer_too_long", "a bad address is an error, not a crash", {"too long": "refused", "end": "reached"})
for name in ("NUL", "no module", "empty file", "a manifest as module"):
    deviate("manifest.path_entries", "1.41 aborts at a NUL byte in a path, before these are seen", {f"{name} (JSON)": "refused", f"{name} (TOML)": "refused"})
deviate("manifest.path_entries", "1.41 aborts at a NUL byte in a path", {"end": "reached"})


def accepted(name, *kinds):
    """A manifest that 1.41 refuses and ours takes."""
    return {path: seen for kind in kinds for path, seen in
            ((f"{name} ({kind})", "accepted"), (f"{name} ({kind}): f", 7), (f"{name} ({kind}): error", None))}


for source in ("data", "path"):
    deviate("manifest.hashes", "hash: hex of either case", accepted(f"{source}: upper case", "JSON", "TOML"))
ABSENT = "null means absent"
for field, names in {"config": ("null", "null value"), "allowed_hosts": ("null entry",), "allowed_paths": ("null value",), "memory": ("null",)}.items():
    for name in names:
        deviate(f"manifest.fields[{field}]", ABSENT, accepted(name, "JSON"))
deviate("manifest.fields[memory]", "accepts more", accepted("pages 2^32", "JSON", "TOML"))
deviate("manifest.json_texts", "accepts more", {"BOM": "accepted"})
for field in ("max_pagez", "timeout_ms", "unknown_thing"):
    deviate("manifest.messages", "a wrong manifest names the field", {f"{field} (JSON)": True, f"{field} (TOML)": True})

NO_PATTERN = "an allowed_hosts pattern that is none is an error at creation that names it (1.41: it matches nothing)"
for kind in ("JSON", "TOML"):
    deviate("manifest.fields[allowed_hosts]", NO_PATTERN, {
        f"bad glob ({kind})": "refused", f"bad glob ({kind}): f": MISSING, f"bad glob ({kind}): error": MISSING})
deviate("web.allowed_hosts", NO_PATTERN, {"bad glob": MISSING})
for name in ("bad glob", "only a bad glob"):
    deviate("web.allowed_hosts", NO_PATTERN, {f"{name}: created": "refused", **{f"{name}: call.{x}": MISSING for x in ("code", "output", "error")}})

# Limits.

for limit, sizes in {0: (1, 2, 3), 1: (2, 3), 2: (3,)}.items():
    for size in sizes:
        deviate(f"limits.initial_size[{limit} pages, {size} initial]", "initial sizes must fit (1.41 crashes in the first call)", {"created": "refused", "end": "reached"})
for limit in (3, 4):
    deviate(f"limits.initial_size_of_linked_modules[{limit} pages]", "linked modules' initial sizes count", {
        "created": "refused", **{f"f.{x}": MISSING for x in ("code", "output", "error")}})
for limit in (1, 2, 3, 5, 8):
    deviate("limits.growth", GROWTH, {f"{limit}: growth {n}": [-1, None] for n in (limit, limit + 1)})
for name in ("4: 1048576", "100: 10485760"):
    deviate("limits.big_input", "an input that a limit does not let in is `oom`", {f"{name}.error": "oom"})
TABLES = "tables count in bytes with the memories"
deviate("limits.tables", TABLES, {"10: large.code": -1})
for size in (100_000, 10_000_000):
    deviate("limits.big_initial_table", TABLES, {str(size): "refused", **{f"{size}: f.{x}": MISSING for x in ("code", "output", "error")}})
deviate("limits.wide_memory", "64-bit memories end at 4 GiB", {"past.code": -1})

# WASI and start-up.

for name, script, number in (("pointer outside", "environment", 21), ("no such clock", "clocks_and_random", 28)):
    deviate(f"wasi.{script}", "what is wrong with an argument is an error number (1.41 ends the call)", call(name, number, "\0" * 256))
deviate("wasi.sleeping", "the deadline covers waiting in WASI", {"5 s with timeout: took": "as asked"})
deviate("wasi.cancelled_sleep", CANCELLED + " and ends a sleep", {"error": "cancelled", "in time": True})
for wasi in (True, False):
    deviate("wasi.commands", "variables survive a fresh instance; _start has one each time", {
        f"wasi {wasi}: {n}.output": output for n, output in
        (("1 _start", "12"), ("2 step", "13"), ("3 step", "24"), ("4 _start", "15"), ("5 step", "16"))})
deviate("wasi.start_function_calls_the_host", "creation runs no guest code", {"at creation": [], "in two calls": [1]})
for names, order in {"_initialize": ["_initialize"], "hs_init _initialize": ["_initialize", "hs_init"], "_initialize __wasm_call_ctors": ["__wasm_call_ctors"],
                     "hs_init _initialize __wasm_call_ctors": ["_initialize", "hs_init"]}.items():
    deviate(f"wasi.start_up_order[{names}]", "creation runs no guest code (1.41 crashes there when it calls the host)", {
        "at creation": [], "in two calls": [*order, "f", "f"], "after a reset": ["f"], "end": "reached"})
for name in ("_initialize with a parameter", "_initialize with a result", "_initialize is a memory"):
    deviate("wasi.odd_initialisers", "start-up exports of another type are ordinary exports", {name: "accepted", **call(f"{name}: f", 3)})
deviate("wasi.odd_initialisers", "start-up exports of another type are ordinary exports", ends("hs_init without parameters: f", 3, None))

# Environment variables.

for name in ("cache_config_missing", "cache_config_broken"):
    deviate(f"environment.{name}", "a disk cache that cannot be used is done without", {"created": "accepted", **call("f", 7), **ends("trap", 134)})

# Real plug-ins that 1.41 refuses.

deviate("plugins.go_sdk[fs]", "1.41 refuses a module with both _start and _initialize", {
    "created": "accepted", **call("0 run_test", 0, "hello world!"), **call("1 _start", 0), **call("2 run_test", 0, "hello world!"),
    "0 run_test: exists": 1, "1 _start: exists": 1, "2 run_test: exists": 1})
deviate("plugins.go_sdk[nested.c.instr]", "1.41 refuses a command that exports a global", {
    "created": "accepted", "host functions": 136, **call("0 _start", 0), **call("1 _start", 0), "0 _start: exists": 1, "1 _start: exists": 1})
deviate("plugins.go_exit[500]", "the exit code, whatever it is (1.41: -1 from 126 on)", {"0 _start.code": 500, "1 _start.code": 500})
