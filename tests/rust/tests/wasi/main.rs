//! WASI preview 1: what plug-ins made with WASI see of the machine, and how they end.

mod files;
mod poll;

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use extism_tests::wasi::{BADF, MILLISECOND, MONOTONIC, NOENT, READ, clock};
use extism_tests::{Scratch, Setup, WasiGuest, in_child, slowdown, within};

#[test]
fn guests_see_no_arguments_no_environment_and_no_files() {
    within(30, || {
        let guest = WasiGuest::plain();
        for function in ["args_sizes_get", "environ_sizes_get"] {
            guest.put(0, &[0xff; 8]);
            assert_eq!(guest.call(function, &[0, 4]), 0);
            assert_eq!(guest.bytes(0), [0; 8]);
        }
        assert_eq!(guest.call("fd_prestat_get", &[3, 0]), BADF);
    });
}

#[test]
fn standard_streams_swallow_and_end() {
    within(30, || {
        let guest = WasiGuest::plain();
        guest.put(64, b"read into ");
        assert_eq!(guest.read(0, 10), "");
        for stream in [1, 2] {
            assert_eq!(guest.write(stream, "ten bytes\n"), 10);
        }
        assert_eq!(guest.call("fd_write", &[9, 0, 1, 8]), BADF);
    });
}

/// Writes to both standard streams, in a process with this setting; returns what the process printed.
fn prints(test: &str, setting: &str) -> [String; 2] {
    let output = in_child(test, &[("EXTISM_ENABLE_WASI_OUTPUT", setting)], || {
        let guest = WasiGuest::plain();
        assert_eq!(guest.write(1, "to the output\n"), 14);
        assert_eq!(guest.write(2, "to the errors\n"), 14);
    });
    [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("a text in UTF-8"))
}

#[test]
fn what_guests_print_is_dropped() {
    let [output, errors] = prints("what_guests_print_is_dropped", "");
    assert!(!output.contains("to the output") && !errors.contains("to the errors"), "{output}{errors}");
}

#[test]
fn what_guests_print_is_the_hosts_if_it_wants() {
    let [output, errors] = prints("what_guests_print_is_the_hosts_if_it_wants", "1");
    assert!(output.contains("to the output\n") && errors.contains("to the errors\n"), "{output}{errors}");
}

/// A pipe of the host's that is full, and read by nobody.
#[test]
fn output_that_nobody_reads_ends_with_the_call() {
    let environment = [("EXTISM_ENABLE_WASI_OUTPUT", "1")];
    in_child("output_that_nobody_reads_ends_with_the_call", &environment, || {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        // SAFETY: descriptors of this process.
        let kept = unsafe { libc::dup(1) };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::dup2(writer.as_raw_fd(), 1) }, 1);
        drop(writer);
        let guest = WasiGuest::with_timeout(300 * u64::from(slowdown()));
        let text = "x".repeat(10_000);
        assert_eq!(guest.write(1, &text), 10_000);
        let began = Instant::now();
        let ended = (0..100).map(|_| guest.run("fd_write", &[1, 0, 1, 8])).find(|ended| ended.code != 0);
        assert_eq!(ended.expect("a pipe that is full").failure(), (134, "timeout".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(5) * slowdown(), "{:?}", began.elapsed());
        // SAFETY: as above.
        assert_eq!(unsafe { libc::dup2(kept, 1) }, 1);
        let mut read = String::new();
        reader.read_to_string(&mut read).expect("a text");
        assert!(read.len() >= 10_000 && read.bytes().all(|byte| byte == b'x'));
    });
}

#[test]
fn random_numbers() {
    within(30, || {
        let guest = WasiGuest::plain();
        let draw = || {
            assert_eq!(guest.call("random_get", &[0, 32]), 0);
            guest.bytes::<32>(0)
        };
        let (first, second) = (draw(), draw());
        assert!(first != [0; 32] && first != second);
    });
}

#[test]
fn exit_codes() {
    within(30, || {
        let guest = WasiGuest::plain();
        for code in [7, 125, 126, 134, 255, 256, 65_536, i32::MAX, -1, -134, i32::MIN] {
            let ended = guest.exit(code);
            assert_eq!(ended.output, b"before the end");
            assert_eq!(ended.failure(), (code, format!("WASI exit code: {code}")));
        }
        assert_eq!(guest.exit(0).success(), (0, b"before the end".to_vec()));
    });
}

#[test]
fn an_exit_code_goes_with_the_error_that_was_set() {
    within(30, || {
        let plugin = Setup::guest(
            r#"(func (export "run") (call $error_set (text 'its own text')) (call $proc_exit (i32.const 200)))"#,
        )
        .wasi()
        .plugin();
        assert_eq!(plugin.run("run").failure(), (200, "its own text".to_owned()));
    });
}

#[test]
fn without_wasi_its_imports_are_missing() {
    within(30, || {
        let error = Setup::guest(r#"(func (export "run") (call $proc_exit (i32.const 0)))"#).refusal();
        assert!(error.contains("wasi_snapshot_preview1") && error.contains("proc_exit"), "{error}");
    });
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("the system's /proc");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).expect("a name");
    tasks.map(|task| name(task.expect("a thread"))).collect()
}

#[test]
fn no_threads_are_started() {
    in_child("no_threads_are_started", &[], || {
        let host = Scratch::new("threads");
        host.write("file", "text");
        let guest = WasiGuest::with_directory(host.path().to_str().expect("a path in UTF-8"));
        // Those that compile are there already.
        let before = threads();
        assert_eq!(guest.open("missing", 0, READ), Err(NOENT));
        let file = guest.open("file", 0, READ).expect("a descriptor");
        assert_eq!(guest.read(file, 64), "text");
        assert_eq!(guest.poll(&[clock(1, MONOTONIC, MILLISECOND, 0)]), Ok(vec![(1, 0, 0)]));
        assert_eq!(threads(), before);
    });
}
