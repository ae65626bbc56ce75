//! The environment variables that the library reads, each in a process of its own.

use extism_tests::{Plugin, Scratch, Setup, in_child, json, within};

/// Traps, with bytes in both memories; `run` does not.
const TRAPS: &str = r#"(memory (export "memory") 1) (data (i32.const 0) "of the guest")
    (func $inner (drop (text 'of Extism memory')) unreachable) (func (export "trap") (call $inner))
    (func (export "fail") (call $error_set (text 'bad'))) (func (export "run"))"#;

#[test]
fn coredump() {
    let scratch = Scratch::new("coredump");
    in_child("coredump", &[("EXTISM_COREDUMP", &scratch.file("core"))], || {
        let path = std::env::var("EXTISM_COREDUMP").unwrap();
        let plugin = Plugin::new(TRAPS);
        assert_eq!(plugin.code("run"), 0);
        assert_eq!(plugin.run("fail").code, 0);
        assert!(!std::path::Path::new(&path).exists(), "there was no trap");
        let (code, error) = plugin.run("trap").failure();
        assert_eq!(code, 134);
        assert!(error.contains("unreachable") && error.contains("inner"), "{error}");
        let core = std::fs::read(&path).unwrap();
        assert!(core.starts_with(b"\0asm"), "a core dump is a WebAssembly module");
        for part in [&b"core"[..], b"corestack", b"of the guest"] {
            assert!(core.windows(part.len()).any(|bytes| bytes == part), "{part:?}");
        }
    });
}

/// The trap is in an instance that the call's own one does not know, or the other way round.
#[test]
fn coredumps_of_linked_modules() {
    let scratch = Scratch::new("coredumps_of_linked_modules");
    in_child("coredumps_of_linked_modules", &[("EXTISM_COREDUMP", &scratch.file("core"))], || {
        let path = std::env::var("EXTISM_COREDUMP").unwrap();
        let command = r#"(func (export "_start"))"#;
        let last = |start: &str| {
            format!(
                r#"(module (memory 1) (data (i32.const 0) "where it traps") {start} (func $inner (export "f") unreachable))"#
            )
        };
        let first =
            |start: &str| format!(r#"(module (import "last" "f" (func $f)) {start} (func (export "f") (call $f)))"#);
        let main = r#"(module (import "first" "f" (func $f)) (func (export "trap") (call $f)) (func (export "run")))"#;
        for (outer, inner) in [("", ""), ("", command), (command, ""), (command, command)] {
            let plugin = Setup::linked(&[("last", &last(inner)), ("first", &first(outer)), ("main", main)]).plugin();
            for _ in 0..2 {
                let _ = std::fs::remove_file(&path);
                let (code, error) = plugin.run("trap").failure();
                assert_eq!(code, 134, "{outer} {inner}: {error}");
                assert!(error.contains("unreachable") && error.contains("inner"), "{error}");
                let core = std::fs::read(&path).unwrap();
                assert!(core.windows(14).any(|bytes| bytes == b"where it traps"), "{outer} {inner}");
                assert_eq!(plugin.code("run"), 0);
            }
        }
    });
}

#[test]
fn memdump() {
    let scratch = Scratch::new("memdump");
    in_child("memdump", &[("EXTISM_MEMDUMP", &scratch.file("memory"))], || {
        let path = std::env::var("EXTISM_MEMDUMP").unwrap();
        let plugin = Plugin::new(TRAPS);
        assert_eq!(plugin.code("run"), 0);
        assert!(!std::path::Path::new(&path).exists(), "there was no trap");
        assert_eq!(plugin.run("trap").failure().0, 134);
        let memory = std::fs::read(&path).unwrap();
        assert!(memory.len().is_multiple_of(65_536) && !memory.is_empty());
        assert!(memory.windows(16).any(|bytes| bytes == b"of Extism memory"));
    });
}

#[test]
fn a_dump_that_cannot_be_written_changes_nothing() {
    let variables = [("EXTISM_COREDUMP", "/no/such/directory/core"), ("EXTISM_MEMDUMP", "/no/such/directory/memory")];
    in_child("a_dump_that_cannot_be_written_changes_nothing", &variables, || {
        let plugin = Plugin::new(TRAPS);
        let (code, error) = plugin.run("trap").failure();
        assert_eq!(code, 134);
        assert!(error.contains("unreachable") && error.contains("inner"), "{error}");
        assert_eq!(plugin.code("run"), 0);
    });
}

/// What has to work in every mode: input, blocks, output, traps, limits, timeouts, linked modules.
fn everything_works() {
    let plugin = Setup::guest(
        r#"(func (export "echo") (call $output_set (call $input_offset) (call $input_length)))
           (func (export "read") (call $note (call $input_load_u64 (i64.const 0)))
             (call $note (call $load_u64 (call $input_offset))) (call $note_i32 (call $input_load_u8 (i64.const 99))))
           (func (export "blocks") (call $output (text 'a block')))
           (func (export "load") (drop (call $load_u8 (i64.const -1))))
           (func (export "store") (call $store_u64 (i64.const 0x100000000) (i64.const 1)))
           (func (export "divide") (drop (i32.div_u (i32.const 1) (i32.const 0))))
           (func (export "unreachable") unreachable)
           (func (export "memory_out") (drop (i32.load (i32.const -4))))
           (func $deep (export "deep") (call $deep))
           (func (export "null") (call_indirect (i32.const 0)))
           (table 1 funcref)
           (func (export "loop") (loop $l (br $l)))
           (func (export "oom") (drop (call $alloc (i64.const -1))))"#,
    )
    .with("timeout_ms", json!(300))
    .plugin();
    for _ in 0..2 {
        assert_eq!(plugin.output_of("echo", "hello"), b"hello");
        assert_eq!(plugin.output_of("blocks", ""), b"a block");
        assert_eq!(plugin.notes("read", 5u64.to_le_bytes()), [5, 5, 0]);
        for (function, reason) in [
            ("load", "out of bounds"),
            ("store", "out of bounds"),
            ("divide", "divide by zero"),
            ("unreachable", "unreachable"),
            ("memory_out", "out of bounds"),
            ("deep", "stack"),
            ("null", "uninitialized"),
            ("loop", "timeout"),
        ] {
            let (code, error) = plugin.run(function).failure();
            assert_eq!(code, 134, "{function}: {error}");
            assert!(error.contains(reason), "{function}: {error}");
        }
        assert_eq!(plugin.run("oom").failure(), (-1, "oom".to_owned()));
    }
    let lib = r#"(module (func (export "_start")) (func (export "f") (result i32) (i32.const 6)))"#;
    let main = r#"(module (import "lib" "f" (func $f (result i32))) (func (export "run") (result i32) (call $f)))"#;
    assert_eq!(Setup::linked(&[("lib", lib), ("main", main)]).plugin().code("run"), 6);
}

#[test]
fn nothing_set() {
    within(20, everything_works);
}

#[test]
fn debug() {
    in_child("debug", &[("EXTISM_DEBUG", "1")], everything_works);
}

#[test]
fn with_coredump_and_memdump() {
    let scratch = Scratch::new("with_dumps");
    let variables = [("EXTISM_COREDUMP", &*scratch.file("core")), ("EXTISM_MEMDUMP", &*scratch.file("memory"))];
    in_child("with_coredump_and_memdump", &variables, everything_works);
}

#[test]
fn without_signals() {
    in_child("without_signals", &[("EXTISM_SIGNALS", "0")], || {
        everything_works();
        // SAFETY: asks what is installed, and changes nothing.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGILL, std::ptr::null(), &mut action);
            action
        };
        assert_eq!(action.sa_sigaction, libc::SIG_DFL, "no handler for traps");
    });
}

#[test]
fn profile_for_perf() {
    in_child("profile_for_perf", &[("EXTISM_PROFILE", "perf")], || {
        let map = format!("/tmp/perf-{}.map", std::process::id());
        everything_works();
        let symbols = std::fs::read_to_string(&map).unwrap_or_default();
        let _ = std::fs::remove_file(&map);
        assert!(symbols.contains("deep"), "the guest's functions are in {map}");
    });
}

#[test]
fn profile_for_jitdump() {
    let scratch = Scratch::new("jitdump");
    in_child("profile_for_jitdump", &[("EXTISM_PROFILE", "jitdump"), ("HOME_OF_DUMP", &scratch.file(""))], || {
        std::env::set_current_dir(std::env::var("HOME_OF_DUMP").unwrap()).unwrap();
        everything_works();
        let dump = std::fs::read(format!("jit-{}.dump", std::process::id())).unwrap();
        assert!(dump.windows(4).any(|bytes| bytes == b"deep"));
    });
}

#[test]
fn profile_for_vtune() {
    in_child("profile_for_vtune", &[("EXTISM_PROFILE", "vtune")], everything_works);
}

#[test]
fn a_cache_configuration_that_is_not_there() {
    for path in ["/no/such/cache.toml", ""] {
        in_child("a_cache_configuration_that_is_not_there", &[("EXTISM_CACHE_CONFIG", path)], everything_works);
    }
}

#[test]
fn a_profile_that_there_is_none_of_changes_nothing() {
    in_child("a_profile_that_there_is_none_of_changes_nothing", &[("EXTISM_PROFILE", "gprof")], everything_works);
}

/// Wasmtime has no form for such a value.
#[test]
fn coredump_of_what_none_can_hold() {
    let scratch = Scratch::new("coredump_of_what_none_can_hold");
    in_child("coredump_of_what_none_can_hold", &[("EXTISM_COREDUMP", &scratch.file("core"))], || {
        let plugin = Plugin::new(
            r#"(global (mut exnref) (ref.null exn)) (func (export "trap") unreachable) (func (export "run"))"#,
        );
        for _ in 0..2 {
            let (code, error) = plugin.run("trap").failure();
            assert_eq!(code, 134, "{error}");
            assert!(error.contains("unreachable"), "{error}");
            assert_eq!(plugin.code("run"), 0);
        }
    });
}

/// A FIFO that nobody reads, or writes to.
#[test]
fn fifos_are_not_waited_for() {
    let scratch = Scratch::new("fifos_are_not_waited_for");
    let fifo = scratch.file("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for variable in ["EXTISM_COREDUMP", "EXTISM_MEMDUMP", "EXTISM_CACHE_CONFIG"] {
        in_child("fifos_are_not_waited_for", &[(variable, &fifo)], || {
            within(20, || {
                let plugin = Plugin::new(TRAPS);
                for _ in 0..2 {
                    assert_eq!(plugin.run("trap").failure().0, 134);
                    assert_eq!(plugin.code("run"), 0);
                }
            });
        });
    }
}

/// How many threads compile is not for the environment to raise without end.
#[test]
fn no_thousands_of_threads_that_compile() {
    in_child("no_thousands_of_threads_that_compile", &[("RAYON_NUM_THREADS", "100000")], || {
        let functions: String = (0..3000)
            .map(|i| format!("(func (param i32) (result i32) (i32.mul (local.get 0) (i32.const {i})))"))
            .collect();
        let plugin = Plugin::new(&format!(r#"{functions} (func (export "run"))"#));
        assert_eq!(plugin.code("run"), 0);
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
        let processors = std::thread::available_parallelism().unwrap().get();
        assert!(threads <= processors + 10, "{threads} threads on {processors} processors");
    });
}
