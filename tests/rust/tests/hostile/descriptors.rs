//! Descriptors without end, and what is read and written through them: sizes, buffers and directories of any size.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use extism_tests::wasi::{CREATE, FAULT, FBIG, INVAL, MEMORY, MFILE, NFILE, NOTSUP, PATH, READ, WRITE};
use extism_tests::{PAGE, Scratch, Setup, WasiGuest, in_child, json, resident_bytes, slowdown, within};

use super::files::{guest, guest_in, quickly, text};

/// The descriptors of this process.
fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("the system's /proc").count()
}

/// Opens a file again and again; how many times, and why not more.
fn open_all(guest: &WasiGuest) -> (usize, i32) {
    let mut count = 0;
    loop {
        match guest.open("file", 0, READ) {
            Ok(_) => count += 1,
            Err(error) => return (count, error),
        }
    }
}

#[test]
fn descriptors_have_a_bound() {
    within(60, || {
        let host = Scratch::new("descriptors-bound");
        host.write("file", "text");
        // The compiled module is kept, and with it a file for its data.
        drop(guest_in(host.path()));
        let before = open_descriptors();
        let guest = guest_in(host.path());
        assert_eq!(open_all(&guest), (256, MFILE));
        assert_eq!(guest.open("new", CREATE, WRITE), Err(MFILE));
        assert!(!host.path().join("new").exists());
        assert_eq!(guest.call("fd_readdir", &[3, 0, 64, 0, 128]), MFILE);
        assert_eq!(guest.stat("file", 0), Ok((4, 4)));
        assert!(File::open(host.file("file")).is_ok());
        // One that is closed or renumbered away makes room for one.
        assert_eq!(guest.call("fd_close", &[10]), 0);
        assert_eq!(guest.call("fd_renumber", &[20, 30]), 0);
        assert_eq!(open_all(&guest), (2, MFILE));
        // Their own numbers count for each plug-in.
        assert_eq!(open_all(&guest_in(host.path())), (256, MFILE));
        drop(guest);
        assert_eq!(open_descriptors(), before);
    });
}

/// A linked command opens files in a store of its own.
#[test]
fn descriptors_have_a_bound_across_commands() {
    within(60, || {
        let host = Scratch::new("descriptors-commands");
        host.write("f", "text");
        let open = r#"(func $open_all (result i32) (local $n i32)
            (i32.store8 (i32.const 64) (i32.const 102))
            (loop $next
              (if (i32.eqz (call $path_open (i32.const 3) (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0)
                             (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 0)))
                (then (local.set $n (i32.add (local.get $n) (i32.const 1)))
                      (br_if $next (i32.lt_u (local.get $n) (i32.const 100000))))))
            (local.get $n))"#;
        let command = extism_tests::guest(&format!(
            r#"{open} (func (export "_start")) (func (export "count") (result i32) (call $open_all))"#
        ));
        let main = extism_tests::guest(&format!(
            r#"(import "lib" "count" (func $count (result i32))) {open}
               (func (export "inside") (result i32) (call $count))
               (func (export "run") (call $note_i32 (call $count)) (call $note_i32 (call $count))
                 (call $note_i32 (call $open_all)) (call $note_i32 (call $count)))"#
        ));
        let setup = Setup::linked(&[("lib", &command), ("main", &main)])
            .wasi()
            .with("allowed_paths", json!({text(host.path()): "/data"}));
        // What a command opened is closed with it; what the module opened stays, and counts for the command.
        assert_eq!(setup.plugin().notes("run", ""), [256, 256, 256, 0]);
    });
}

#[test]
fn all_plugins_together_leave_the_host_its_half() {
    in_child("descriptors::all_plugins_together_leave_the_host_its_half", &[], || {
        let limit = libc::rlimit { rlim_cur: 400, rlim_max: 400 };
        // SAFETY: a limit of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let host = Scratch::new("descriptors-process");
        host.write("file", "text");
        let guests = [(); 4].map(|()| guest_in(host.path()));
        let ends: Vec<_> = guests.iter().map(open_all).collect();
        assert_eq!(ends.iter().map(|(count, _)| count).sum::<usize>(), 200, "{ends:?}");
        assert_eq!(ends[3], (0, NFILE));
        let files: Vec<_> = (0..100).map(|_| File::open(host.file("file"))).collect();
        assert!(files.iter().all(Result::is_ok));
        drop(files);
        drop(guests);
        assert_eq!(open_all(&guest_in(host.path())), (200, NFILE));
    });
}

/// A write beyond the limit on the size of files would be answered with a signal that ends the process.
#[test]
fn a_limit_on_file_sizes_kills_nobody() {
    in_child("descriptors::a_limit_on_file_sizes_kills_nobody", &[], || {
        let host = Scratch::new("fsize");
        let guest = guest_in(host.path());
        let file = guest.open("file", CREATE, READ | WRITE).expect("a descriptor");
        let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
        // SAFETY: a limit of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        for size in [1001, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX] {
            let error = guest.call("fd_filestat_set_size", &[file.into(), size]);
            assert!(error == FBIG || error == INVAL, "{size}: {error}");
        }
        guest.put(0, [64u32.to_le_bytes(), 600u32.to_le_bytes()].as_flattened());
        let write = || guest.call("fd_write", &[file.into(), 0, 1, 8]);
        assert_eq!((write(), guest.u32(8)), (0, 600));
        assert_eq!((write(), guest.u32(8)), (0, 400));
        assert_eq!(write(), FBIG);
        for offset in [1000, 1001, 1 << 40, i64::MAX as u64] {
            assert_eq!(guest.call("fd_pwrite", &[file.into(), 0, 1, offset, 8]), FBIG, "{offset}");
        }
        // At its end, wherever that is.
        assert_eq!(guest.call("fd_fdstat_set_flags", &[file.into(), 1]), 0);
        assert_eq!(write(), FBIG);
        assert_eq!(guest.call("fd_filestat_set_size", &[file.into(), 900]), 0);
        assert_eq!((write(), guest.u32(8)), (0, 100));
        assert_eq!(guest.stat("file", 0), Ok((4, 1000)));
    });
}

#[test]
fn sizes_beyond_every_file() {
    within(60, || {
        let host = Scratch::new("sizes");
        let guest = guest_in(host.path());
        let file = guest.open("file", CREATE, READ | WRITE).expect("a descriptor");
        let before = resident_bytes();
        for size in [1 << 63, u64::MAX, i64::MAX as u64] {
            let error = guest.call("fd_filestat_set_size", &[file.into(), size]);
            // There are file systems whose files may be that large: they are full of holes then.
            assert!([INVAL, FBIG].contains(&error) || size == i64::MAX as u64 && error == 0, "{size}: {error}");
        }
        assert_eq!(guest.call("fd_allocate", &[file.into(), 0, u64::MAX]), NOTSUP);
        guest.put(0, [64u32.to_le_bytes(), 8u32.to_le_bytes()].as_flattened());
        for offset in [1 << 63, u64::MAX] {
            assert_eq!(guest.call("fd_pread", &[file.into(), 0, 1, offset, 8]), INVAL);
            assert_eq!(guest.call("fd_pwrite", &[file.into(), 0, 1, offset, 8]), INVAL);
        }
        assert_eq!(guest.call("fd_advise", &[file.into(), 0, u64::MAX, 3]), 0);
        assert!(resident_bytes() - before < 16 << 20);
    });
}

#[test]
fn buffers_that_are_none() {
    within(60, || {
        let host = Scratch::new("buffers");
        host.write("file", "0123456789");
        let guest = guest_in(host.path());
        let file = u64::from(guest.open("file", 0, READ | WRITE).expect("a descriptor"));
        let before = resident_bytes();
        let functions = |at: u64, count: u64| {
            [
                ("fd_read", guest.call("fd_read", &[file, at, count, 8])),
                ("fd_pread", guest.call("fd_pread", &[file, at, count, 0, 8])),
                ("fd_write", guest.call("fd_write", &[file, at, count, 8])),
                ("fd_pwrite", guest.call("fd_pwrite", &[file, at, count, 0, 8])),
                ("fd_write", guest.call("fd_write", &[1, at, count, 8])),
                ("fd_read", guest.call("fd_read", &[0, at, count, 8])),
            ]
        };
        // One buffer that reaches past the end, among others that do not.
        for (start, length) in [(64, u32::MAX), (u32::MAX, u32::MAX), (MEMORY as u32, 1), (MEMORY as u32 - 1, 2)] {
            guest.put(1024, [0u32, 0, start, length].map(u32::to_le_bytes).as_flattened());
            for (function, error) in functions(1024, 2) {
                assert_eq!(error, FAULT, "{function} {start} {length}");
            }
        }
        for (at, count) in [(MEMORY - 8, 2), (MEMORY, 1), (0, u32::MAX.into()), (u32::MAX.into(), 1)] {
            for (function, error) in functions(at, count) {
                assert_eq!(error, FAULT, "{function} {at} {count}");
            }
        }
        for (function, arguments) in [
            ("random_get", vec![0, u32::MAX.into()]),
            ("random_get", vec![MEMORY - 1, 2]),
            ("fd_readdir", vec![3, 0, u32::MAX.into(), 0, 8]),
            ("path_readlink", vec![3, 0, 1, 0, u32::MAX.into(), 8]),
        ] {
            quickly(|| assert_eq!(guest.call(function, &arguments), FAULT, "{function}"));
        }
        assert!(resident_bytes() - before < 16 << 20);
        // Many small buffers are filled one after the other.
        let buffers: Vec<u32> = (0..10).flat_map(|n| [64 + 2 * n, 1]).collect();
        guest.put(1024, buffers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>().as_slice());
        assert_eq!(guest.call("fd_pread", &[file, 1024, 10, 0, 8]), 0);
        assert!(guest.u32(8) >= 1 && guest.get(64, 1) == b"0");
    });
}

/// A call of this function ends by its deadline, whatever it has to do.
fn ends_in_time(guest: &WasiGuest, function: &str, arguments: &[u64]) {
    let began = Instant::now();
    let ended = guest.run(function, arguments);
    let limit = Duration::from_secs(1) * slowdown();
    assert!(began.elapsed() < limit, "{function} took {:?}: {ended:?}", began.elapsed());
    assert!(ended.code == 134 || ended.code == 0, "{function}: {ended:?}");
}

#[test]
fn large_numbers_of_bytes_end_in_time() {
    within(100, || {
        let host = Scratch::new("large");
        File::create(host.file("file")).and_then(|file| file.set_len(1 << 40)).expect("a file full of holes");
        let guest = guest(json!({text(host.path()): "/data"}), 100);
        let bytes = 1u64 << 30;
        assert_eq!(guest.call("grow", &[bytes / PAGE]), 0);
        let file = guest.open("file", 0, READ).expect("a descriptor");
        let vector = [(MEMORY as u32).to_le_bytes(), (bytes as u32).to_le_bytes()];
        guest.put(0, vector.as_flattened());
        ends_in_time(&guest, "random_get", &[MEMORY, 64 << 20]);
        ends_in_time(&guest, "random_get", &[MEMORY, bytes]);
        for (function, arguments) in
            [("fd_read", vec![file.into(), 0, 1, 8]), ("fd_pread", vec![file.into(), 0, 1, 0, 8])]
        {
            ends_in_time(&guest, function, &arguments);
        }
        ends_in_time(&guest, "fd_write", &[1, 0, 1, 8]);
        assert_eq!(guest.read(0, 10), "");
    });
}

#[test]
fn large_directories_are_read_in_pieces() {
    within(100, || {
        let host = Scratch::new("many");
        for n in 0..5000 {
            host.write(&format!("file-{n}"), "");
        }
        let guest = guest_in(host.path());
        for buffer in [64, 4096, 100_000] {
            let mut names: Vec<_> = guest.list(3, buffer).into_iter().map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), 5002, "with {buffer} bytes");
        }
        // Cookies that were never given out.
        for cookie in [1, 5003, 1 << 32, 1 << 63, u64::MAX] {
            assert_eq!(guest.call("fd_readdir", &[3, PATH, 4096, cookie, 0]), 0, "{cookie}");
        }
        assert_eq!(guest.u32(0), 0);
        assert_eq!(guest.call("fd_readdir", &[3, PATH, 0, 0, 0]), 0);
        assert_eq!(guest.call("fd_readdir", &[3, PATH, 10, 0, 0]), 0);
        assert_eq!(guest.u32(0), 10);
    });
}
