//! Compiled modules that are kept: in the process, and on disk. The log tells where a module came from. A process has
//! one log and reads its environment once, so each of these runs in one of its own, or in several.

use std::ffi::c_char;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use extism_tests::{Plugin, Scratch, Setup, api, guest, in_child, last_error};

const COMPILED: &str = "compiled";
const BEFORE: &str = "compiled before in this process";
const FROM_DISK: &str = "read from disk";

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn take(line: *const c_char, size: u64) {
    // SAFETY: the header's promise: `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(line.cast::<u8>(), size as usize) };
    LINES.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
}

/// What the log says that happened meanwhile.
fn log_of(work: impl FnOnce()) -> Vec<String> {
    static BEGUN: Once = Once::new();
    // SAFETY: a NUL-terminated text.
    BEGUN.call_once(|| assert!(unsafe { (api().log_custom)(c"extism=debug".as_ptr()) }, "{:?}", last_error()));
    let drain = || {
        // SAFETY: `take` has the type that the header asks for.
        unsafe { (api().log_drain)(take) };
        std::mem::take(&mut *LINES.lock().unwrap())
    };
    drain();
    work();
    drain()
}

/// Where the modules came from that were loaded meanwhile.
fn sources(work: impl FnOnce()) -> Vec<&'static str> {
    let known = |line: &String| {
        [BEFORE, FROM_DISK, COMPILED].into_iter().find(|how| line.contains("bytes): ") && line.contains(how))
    };
    log_of(work).iter().filter_map(known).collect()
}

/// A module that is worth a file: `run` gives back this number.
fn module(number: i32) -> String {
    let functions: String = (0..200)
        .map(|i| format!(r#"(func (export "f{i}") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {i})))"#))
        .collect();
    format!(r#"(func (export "run") (result i32) (i32.const {number})) (func (export "trap") unreachable) {functions}"#)
}

fn run(number: i32) {
    assert_eq!(Plugin::new(&module(number)).code("run"), number);
}

/// A cache configuration for this directory; returns its path.
fn configuration(scratch: &Scratch, more: &str) -> String {
    scratch.write("cache.toml", format!("[cache]\ndirectory = {:?}\n{more}", scratch.path()))
}

fn files(scratch: &Scratch) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(scratch.path().join("libextism")) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The test's body runs as often as it is long, each time in another process with the same folder.
fn in_processes(name: &str, scratch: &Scratch, more: &str, bodies: &[&dyn Fn()]) {
    let configuration = configuration(scratch, more);
    // A child has another scratch directory; what it needs of this one comes with its environment.
    let here = scratch.path().to_str().unwrap();
    for (index, body) in bodies.iter().enumerate() {
        let environment = [("EXTISM_CACHE_CONFIG", &*configuration), ("INDEX", &index.to_string()), ("SCRATCH", here)];
        // In the child, the body is the one that its environment names.
        in_child(name, &environment, || match std::env::var("INDEX") {
            Ok(index) => bodies[index.parse::<usize>().unwrap()](),
            Err(_) => body(),
        });
    }
}

#[test]
fn a_module_is_compiled_once_in_a_process() {
    in_child("a_module_is_compiled_once_in_a_process", &[("EXTISM_CACHE_CONFIG", "")], || {
        assert_eq!(sources(|| run(1)), [COMPILED]);
        assert_eq!(sources(|| run(1)), [BEFORE]);
        assert_eq!(sources(|| run(2)), [COMPILED]);
        assert_eq!(sources(|| run(1)), [BEFORE]);
        // What is compiled in another way is another module: with fuel, linked.
        let with_fuel = || assert_eq!(Setup::guest(&module(1)).fuel(10_000).plugin().code("run"), 1);
        assert_eq!(sources(with_fuel), [COMPILED]);
        assert_eq!(sources(with_fuel), [BEFORE]);
        let linked = || {
            let main =
                r#"(module (import "lib" "run" (func $f (result i32))) (func (export "go") (result i32) (call $f)))"#;
            assert_eq!(Setup::linked(&[("lib", &guest(&module(1))), ("main", main)]).plugin().code("go"), 1);
        };
        assert_eq!(sources(linked), [COMPILED, COMPILED]);
        assert_eq!(sources(linked), [BEFORE, BEFORE]);
    });
}

/// What a user function takes the place of is no instruction, and that decides the code.
#[test]
fn names_that_are_taken_make_another_module() {
    use extism_tests::{HostFunction, Type};
    in_child("names_that_are_taken_make_another_module", &[("EXTISM_CACHE_CONFIG", "")], || {
        let body = r#"(func (export "run") (result i32) (call $load_u8 (i64.const 1)))"#;
        let plain = || assert_eq!(Plugin::new(body).code("run"), 0);
        let taken = || {
            let mine = HostFunction::new("load_u8", &[Type::I64], &[Type::I32], |_, _, outputs| outputs[0].bits = 77)
                .in_namespace("extism:host/env");
            assert_eq!(Setup::guest(body).function(mine).plugin().code("run"), 77);
        };
        plain();
        taken();
        plain();
        taken();
    });
}

#[test]
fn errors_are_the_same_from_everywhere() {
    let scratch = Scratch::new("errors_are_the_same_from_everywhere");
    let trap = |expected: &'static str| {
        move || {
            let mut errors = Vec::new();
            let load = || errors.push(Plugin::new(&module(5)).run("trap").failure());
            assert_eq!(sources(load), [expected]);
            let load = || errors.push(Plugin::new(&module(5)).run("trap").failure());
            assert_eq!(sources(load), [BEFORE]);
            assert_eq!(errors[0], errors[1]);
            let shared = Path::new(&std::env::var("SCRATCH").unwrap()).join("error");
            let text = format!("{errors:?}");
            match fs::read_to_string(&shared) {
                Ok(first) => assert_eq!(first, text, "offsets in the module as it came"),
                Err(_) => fs::write(&shared, text).unwrap(),
            }
        }
    };
    in_processes("errors_are_the_same_from_everywhere", &scratch, "", &[&trap(COMPILED), &trap(FROM_DISK)]);
}

#[test]
fn another_process_reads_it_from_disk() {
    let scratch = Scratch::new("another_process_reads_it_from_disk");
    let load = |expected: &'static str| move || assert_eq!(sources(|| run(7)), [expected]);
    in_processes("another_process_reads_it_from_disk", &scratch, "", &[&load(COMPILED), &load(FROM_DISK)]);
    let files = files(&scratch);
    assert_eq!(files.len(), 1, "{files:?}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files[0]), mode(files[0].parent().unwrap())), (0o600, 0o700));
}

/// Every part of a file may be lost or changed; then the module is compiled, and the file replaced.
#[test]
fn damaged_files_are_replaced() {
    let scratch = Scratch::new("damaged_files_are_replaced");
    let first = || assert_eq!(sources(|| run(3)), [COMPILED]);
    in_processes(
        "damaged_files_are_replaced",
        &scratch,
        "",
        &[&first, &|| {
            // One process would remember the module, so its number changes with each damage, and with it the file.
            let folder = Path::new(&std::env::var("SCRATCH").unwrap()).join("libextism");
            let only_file = || fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
            let good = fs::read(only_file()).unwrap();
            fs::remove_file(only_file()).unwrap();
            let length = good.len();
            for (number, place) in
                (100..).zip([0, 1, 64, length / 2, length - 9, length - 20, length - 40, length - 100])
            {
                run(number);
                let path = only_file();
                let mut bytes = fs::read(&path).unwrap();
                let place = place.min(bytes.len() - 1);
                match number % 3 {
                    0 => bytes[place] ^= 0x10,
                    1 => bytes.truncate(place),
                    _ => bytes[place..].fill(0),
                }
                fs::write(&path, &bytes).unwrap();
                let program = std::env::current_exe().unwrap();
                let output = std::process::Command::new(program)
                    .args(["one_load", "--exact", "--nocapture", "--ignored"])
                    .env("NUMBER", number.to_string())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert!(String::from_utf8_lossy(&output.stdout).contains("[\"compiled\"]"), "{place}");
                assert_ne!(fs::read(&path).unwrap(), bytes, "the file is a new one");
                fs::remove_file(&path).unwrap();
            }
        }],
    );
}

/// Not a test of its own: one load, in a process that another test starts.
#[test]
#[ignore = "a part of others"]
fn one_load() {
    if let Ok(number) = std::env::var("NUMBER") {
        println!("{:?}", sources(|| run(number.parse().unwrap())));
    }
}

#[test]
fn what_others_could_have_written_is_not_read() {
    let scratch = Scratch::new("what_others_could_have_written_is_not_read");
    let folder = || Path::new(&std::env::var("SCRATCH").unwrap()).join("libextism");
    let only_file = move || fs::read_dir(folder()).unwrap().next().unwrap().unwrap().path();
    let open_to = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    in_processes(
        "what_others_could_have_written_is_not_read",
        &scratch,
        "",
        &[
            &|| run(1),
            &|| {
                open_to(&only_file(), 0o620);
                assert_eq!(sources(|| run(1)), [COMPILED]);
            },
            &|| assert_eq!(sources(|| run(1)), [FROM_DISK], "it was replaced"),
            &|| {
                let (file, elsewhere) = (only_file(), folder().join("../elsewhere"));
                fs::rename(&file, &elsewhere).unwrap();
                std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
                assert_eq!(sources(|| run(1)), [COMPILED]);
            },
            &|| {
                open_to(&folder(), 0o777);
                let log = log_of(|| run(1));
                assert!(
                    log.iter().any(|line| line.contains("WARN") && line.contains("nobody else can write to")),
                    "{log:?}"
                );
                assert!(log.iter().any(|line| line.contains(COMPILED)), "{log:?}");
                assert!(!log.iter().any(|line| line.contains(FROM_DISK)), "{log:?}");
            },
        ],
    );
}

#[test]
fn the_folder_has_a_limit() {
    let scratch = Scratch::new("the_folder_has_a_limit");
    let fill = || (0..40).for_each(run);
    let last = || {
        assert_eq!(sources(|| run(39)), [FROM_DISK], "what was used last stays");
        assert_eq!(sources(|| run(0)), [COMPILED]);
    };
    let limit = "files-total-size-soft-limit = \"400K\"";
    in_processes("the_folder_has_a_limit", &scratch, limit, &[&fill, &last]);
    let total: u64 = files(&scratch).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!((100_000..=400_000).contains(&total), "{total}");
}

#[test]
fn what_was_left_half_written_goes() {
    let scratch = Scratch::new("what_was_left_half_written_goes");
    let folder = scratch.path().join("libextism");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let (old, new) = (folder.join("1-2.partial"), folder.join("3-4.partial"));
    for path in [&old, &new] {
        fs::write(path, "half").unwrap();
    }
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().append(true).open(&old).unwrap().set_modified(hour_ago).unwrap();
    in_processes("what_was_left_half_written_goes", &scratch, "", &[&|| run(1)]);
    assert!(!old.exists() && new.exists());
}

#[test]
fn no_disk_is_used_where_none_is_wanted() {
    let name = "no_disk_is_used_where_none_is_wanted";
    let scratch = Scratch::new(name);
    in_processes(name, &scratch, "enabled = false", &[&|| run(1), &|| assert_eq!(sources(|| run(1)), [COMPILED])]);
    assert!(files(&scratch).is_empty());
    let home = scratch.path().to_str().unwrap();
    let variables = [("EXTISM_CACHE_CONFIG", ""), ("XDG_CACHE_HOME", home), ("HOME", home), ("INDEX", "0")];
    in_child(name, &variables, || run(1));
    assert!(files(&scratch).is_empty());
}

#[test]
fn by_default_it_is_the_users_own_cache() {
    let scratch = Scratch::new("by_default_it_is_the_users_own_cache");
    let path = scratch.path().to_str().unwrap().to_owned();
    if std::env::var_os("EXTISM_TEST_CHILD").is_none() {
        // SAFETY: the test has this process for itself, and no other thread that reads the environment.
        unsafe { std::env::remove_var("EXTISM_CACHE_CONFIG") };
    }
    in_child("by_default_it_is_the_users_own_cache", &[("XDG_CACHE_HOME", &path)], || run(1));
    assert_eq!(files(&scratch).len(), 1);
}

#[test]
fn a_disk_that_does_not_serve_is_no_error() {
    let name = "a_disk_that_does_not_serve_is_no_error";
    let scratch = Scratch::new(name);
    let file = scratch.write("file", "");
    for (index, directory) in ["/proc/nowhere", &file, "relative/path"].into_iter().enumerate() {
        let path = scratch.write("cache.toml", format!("[cache]\ndirectory = {directory:?}\n"));
        in_child(name, &[("EXTISM_CACHE_CONFIG", &*path), ("INDEX", &index.to_string())], || {
            let log = log_of(|| run(1));
            assert!(log.iter().any(|line| line.contains("WARN") && line.contains("not kept on disk")), "{log:?}");
        });
    }
    for content in ["[cache", "[cache]\nfiles-total-size-soft-limit = \"many\"", "[cache]\nenabled = 7"] {
        let path = scratch.write("cache.toml", content);
        in_child(name, &[("EXTISM_CACHE_CONFIG", &*path)], || {
            let log = log_of(|| run(1));
            assert!(
                log.iter().any(|line| line.contains("EXTISM_CACHE_CONFIG") || line.contains("soft-limit")),
                "{log:?}"
            );
        });
    }
}

/// Several processes fill and read one folder at the same time.
#[test]
fn processes_share_a_folder() {
    let name = "processes_share_a_folder";
    let scratch = Scratch::new(name);
    let configuration = configuration(&scratch, "files-total-size-soft-limit = \"200K\"");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                in_child(name, &[("EXTISM_CACHE_CONFIG", &*configuration)], || {
                    for round in 0..30 {
                        run(round * 7 % 12);
                    }
                });
            });
        }
    });
}

/// The pool has a thousand instances; those after it are as good.
#[test]
fn more_plugins_than_the_pool_has_instances() {
    in_child("more_plugins_than_the_pool_has_instances", &[], || {
        let body = r#"(memory (export "memory") 1) (data (i32.const 100) "\07") (global $calls (mut i32) (i32.const 0))
            (func (export "count") (result i32)
              (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
              (i32.store8 (i32.const 100) (i32.add (i32.load8_u (i32.const 100)) (i32.const 1)))
              (i32.add (i32.mul (global.get $calls) (i32.const 100)) (i32.load8_u (i32.const 100))))
            (func (export "echo") (call $output_set (call $input_offset) (call $input_length)))
            (func (export "loop") (loop $l (br $l)))"#;
        let compiled = Setup::guest(body).compile();
        let plugins: Vec<_> = (0..1300).map(|_| compiled.plugin()).collect();
        for round in 1..3 {
            for plugin in &plugins {
                assert_eq!(plugin.code("count"), round * 100 + 7 + round);
            }
        }
        for (index, plugin) in plugins.iter().enumerate() {
            assert_eq!(plugin.output_of("echo", index.to_string()), index.to_string().as_bytes());
        }
        for plugin in [&plugins[0], &plugins[1299]] {
            std::thread::scope(|scope| {
                let call = scope.spawn(|| plugin.run("loop").failure());
                while !call.is_finished() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    assert!(plugin.cancel());
                }
                assert_eq!(call.join().unwrap(), (134, "cancelled".to_owned()));
            });
        }
        drop(plugins);
        let again: Vec<_> = (0..1100).map(|_| compiled.plugin()).collect();
        for plugin in &again {
            assert_eq!(plugin.code("count"), 108, "a fresh instance");
        }
    });
}

/// Where address space is scarce there is no pool.
#[test]
fn little_address_space() {
    in_child("little_address_space", &[("EXTISM_CACHE_CONFIG", "")], || {
        let limit = libc::rlimit { rlim_cur: 200 << 30, rlim_max: 200 << 30 };
        // SAFETY: a valid structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        let compiled = Setup::guest(&module(9)).compile();
        let plugins: Vec<_> = (0..5).map(|_| compiled.plugin()).collect();
        for plugin in &plugins {
            assert_eq!(plugin.code("run"), 9);
        }
        run(10);
    });
}
