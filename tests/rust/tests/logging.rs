//! What plug-ins log, and where it goes. A process has one log, so each of these runs in one of its own.

use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::ptr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use extism_tests::{HostFunction, Plugin, Scratch, Setup, api, in_child, json, last_error, slowdown};

/// `all` logs at all levels what the input says.
const LOGS: &str = r#"
    (func $copy (result i64) (local $block i64) (local $i i64)
      (local.set $block (call $alloc (call $input_length)))
      (block $done (loop $next
        (br_if $done (i64.ge_u (local.get $i) (call $input_length)))
        (call $store_u8 (i64.add (local.get $block) (local.get $i)) (call $input_load_u8 (local.get $i)))
        (local.set $i (i64.add (local.get $i) (i64.const 1))) (br $next)))
      (local.get $block))
    (func (export "all")
      (call $log_trace (call $copy)) (call $log_debug (call $copy)) (call $log_info (call $copy))
      (call $log_warn (call $copy)) (call $log_error (call $copy)))
    (func (export "one") (call $log_error (call $copy)))
    (func (export "level") (result i32) (call $get_log_level))"#;

fn text(text: Option<&str>) -> Option<CString> {
    text.map(|text| CString::new(text).unwrap())
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

fn log_custom(level: Option<&str>) -> bool {
    let level = text(level);
    // SAFETY: NULL or NUL-terminated.
    unsafe { (api().log_custom)(pointer(&level)) }
}

fn log_file(path: Option<&str>, level: Option<&str>) -> bool {
    let (path, level) = (text(path), text(level));
    // SAFETY: NULL or NUL-terminated.
    unsafe { (api().log_file)(pointer(&path), pointer(&level)) }
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

unsafe extern "C" fn take(line: *const c_char, size: u64) {
    // SAFETY: the header's promise: `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(line.cast::<u8>(), size as usize) };
    LINES.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
}

fn drain() -> Vec<String> {
    // SAFETY: a handler of the right type.
    unsafe { (api().log_drain)(take) };
    std::mem::take(&mut LINES.lock().unwrap())
}

/// The part of a line behind its time.
fn without_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    assert_eq!((time.len(), &time[10..11], &time[26..]), (27, "T", "Z"), "{time}");
    rest
}

#[test]
fn lines_have_their_form() {
    in_child("lines_have_their_form", &[], || {
        assert!(log_custom(Some("trace")));
        let plugin = Plugin::new(LOGS);
        drain();
        assert_eq!(plugin.call("all", "Grüße").code, 0);
        let lines = drain();
        let expected: Vec<_> = ["TRACE", "DEBUG", " INFO", " WARN", "ERROR"]
            .map(|level| format!("{level} extism::pdk: Grüße plugin=\"{}\"\n", plugin.id()))
            .into();
        assert_eq!(lines.iter().map(|line| without_time(line)).collect::<Vec<_>>(), expected);
        assert!(drain().is_empty(), "lines are handed over once");
        assert_eq!(plugin.call("one", "").code, 0);
        assert_eq!(without_time(&drain()[0]), format!("ERROR extism::pdk:  plugin=\"{}\"\n", plugin.id()));
    });
}

#[test]
fn a_text_is_one_line() {
    in_child("a_text_is_one_line", &[], || {
        assert!(log_custom(Some("error")));
        let plugin = Plugin::new(LOGS);
        drain();
        let forged = "first\n2026-01-01T00:00:00.000000Z ERROR extism: forged\r\n\x1b[31m";
        assert_eq!(plugin.call("one", forged).code, 0);
        assert_eq!(plugin.call("one", b"bad\xff\xfe").code, 0);
        assert_eq!(plugin.call("one", b"with\0zero").code, 0);
        let lines = drain();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.matches('\n').count() == 1 && line.ends_with('\n')), "{lines:?}");
        assert!(!lines[0].contains('\x1b') && lines[0].contains("forged"), "{lines:?}");
        assert!(lines[1].contains("bad\u{fffd}") && lines[2].contains("zero"), "{lines:?}");
    });
}

#[test]
fn a_long_text_is_cut() {
    in_child("a_long_text_is_cut", &[], || {
        assert!(log_custom(Some("error")));
        let plugin = Plugin::new(LOGS);
        drain();
        assert_eq!(plugin.call("one", vec![b'x'; 60_000]).code, 0);
        assert_eq!(plugin.call("one", vec![b'x'; 200_000]).code, 0);
        let lines = drain();
        assert!(lines[0].contains(&"x".repeat(60_000)));
        assert!(lines[1].len() <= 64 * 1024 && lines[1].contains("200000 bytes"), "{} bytes", lines[1].len());
        assert!(lines[1].ends_with(&format!("plugin=\"{}\"\n", plugin.id())));
    });
}

#[test]
fn what_nobody_drains_is_bounded() {
    in_child("what_nobody_drains_is_bounded", &[], || {
        assert!(log_custom(Some("error")));
        let plugin = Plugin::new(LOGS);
        drain();
        for _ in 0..400 {
            assert_eq!(plugin.call("one", vec![b'x'; 50_000]).code, 0);
        }
        let lines = drain();
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!((8 << 20..=16 << 20).contains(&bytes), "{bytes} bytes");
        let dropped = 400 - (lines.len() - 1);
        assert!(lines[0].contains("extism: ") && lines[0].contains(&format!("{dropped} ")), "{}", lines[0]);
    });
}

/// What each level lets through: how many of the five lines, and the number that the guest sees.
fn level(name: &str, level: Option<&str>, lines: usize, number: i32) {
    in_child(name, &[], || {
        assert!(log_custom(level));
        let plugin = Plugin::new(LOGS);
        assert_eq!(plugin.code("level"), number);
        drain();
        assert_eq!(plugin.call("all", "text").code, 0);
        assert_eq!(drain().iter().filter(|line| line.contains("extism::pdk: text")).count(), lines);
    });
}

#[test]
fn level_trace() {
    level("level_trace", Some("trace"), 5, 0);
}

#[test]
fn level_debug() {
    level("level_debug", Some("debug"), 4, 1);
}

#[test]
fn level_info() {
    level("level_info", Some("INFO"), 3, 2);
}

#[test]
fn level_warn() {
    level("level_warn", Some("extism=error,extism::pdk=warn"), 2, 3);
}

#[test]
fn level_error() {
    level("level_error", None, 1, 4);
}

#[test]
fn level_off() {
    level("level_off", Some("off"), 0, i32::MAX);
}

#[test]
fn level_of_others_only() {
    level("level_of_others_only", Some("cranelift=trace"), 0, i32::MAX);
}

#[test]
fn without_a_log() {
    in_child("without_a_log", &[], || {
        let plugin = Plugin::new(LOGS);
        assert_eq!(plugin.code("level"), i32::MAX);
        assert_eq!(plugin.call("all", "text").code, 0);
        assert!(drain().is_empty());
    });
}

#[test]
fn bad_levels_and_files_are_errors_and_change_nothing() {
    let scratch = Scratch::new("bad_levels");
    in_child(
        "bad_levels_and_files_are_errors_and_change_nothing",
        &[("SCRATCH", scratch.path().to_str().unwrap())],
        || {
            for bad in ["loud", "extism=loud", "=info", "extism=", "info;warn"] {
                assert!(!log_custom(Some(bad)), "{bad}");
                let error = last_error().unwrap();
                assert!(error.contains(bad) || error.contains("loud"), "{error}");
                assert!(!log_file(None, Some(bad)), "{bad}");
            }
            let missing = format!("{}/none/log", std::env::var("SCRATCH").unwrap());
            assert!(!log_file(Some(&missing), None));
            assert!(last_error().unwrap().contains(&missing));
            assert_eq!(Plugin::new(LOGS).code("level"), i32::MAX);
            assert!(log_custom(Some("info")), "a right one can come after it");
            assert_eq!(Plugin::new(LOGS).code("level"), 2);
        },
    );
}

#[test]
fn a_process_has_one_log() {
    let scratch = Scratch::new("one_log");
    in_child("a_process_has_one_log", &[("LOG", &scratch.file("log"))], || {
        let path = std::env::var("LOG").unwrap();
        assert!(log_custom(Some("error")));
        assert!(!log_file(Some(&path), Some("trace")));
        assert!(last_error().unwrap().contains("already"));
        assert!(!log_custom(Some("trace")));
        assert!(!std::path::Path::new(&path).exists(), "a refused call creates no file");
        let plugin = Plugin::new(LOGS);
        assert_eq!(plugin.code("level"), 4, "the first one stays");
        drain();
        assert_eq!(plugin.call("all", "text").code, 0);
        assert_eq!(drain().len(), 1);
    });
}

#[test]
fn the_library_logs_too() {
    let environment = [("EXTISM_MEMDUMP", "/no/such/directory/memory"), ("EXTISM_PROFILE", "gprof")];
    in_child("the_library_logs_too", &environment, || {
        assert!(log_custom(Some("extism=warn")));
        assert_eq!(Plugin::new(r#"(func (export "run") unreachable)"#).run("run").code, 134);
        let lines = drain();
        for part in ["/no/such/directory/memory", "gprof"] {
            assert!(lines.iter().any(|line| line.contains(" WARN extism: ") && line.contains(part)), "{lines:?}");
        }
    });
}

#[test]
fn a_file_is_appended_to() {
    let scratch = Scratch::new("appended_to");
    let path = scratch.write("log", "there before\n");
    for text in ["one", "two"] {
        in_child("a_file_is_appended_to", &[("LOG", &path), ("TEXT", text)], || {
            assert!(log_file(std::env::var("LOG").ok().as_deref(), Some("extism::pdk=warn")));
            let plugin = Plugin::new(LOGS);
            assert_eq!(plugin.code("level"), 3);
            assert_eq!(plugin.call("all", std::env::var("TEXT").unwrap()).code, 0);
        });
    }
    let lines: Vec<_> = scratch.read("log").lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[0], "there before");
    for (line, part) in lines[1..].iter().zip([
        " WARN extism::pdk: one",
        "ERROR extism::pdk: one",
        " WARN extism::pdk: two",
        "ERROR extism::pdk: two",
    ]) {
        assert!(without_time(line).starts_with(part), "{line}");
    }
}

#[test]
fn streams() {
    for (name, to_stdout) in [("stdout", true), ("stderr", false), ("-", false), ("NULL", false)] {
        let output = in_child("streams", &[("STREAM", name)], || {
            let name = std::env::var("STREAM").unwrap();
            assert!(log_file(Some(name.as_str()).filter(|name| *name != "NULL"), Some("info")));
            assert_eq!(Plugin::new(LOGS).call("one", "to a stream").code, 0);
        });
        let contains = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("ERROR extism::pdk: to a stream plugin=");
        assert_eq!((contains(&output.stdout), contains(&output.stderr)), (to_stdout, !to_stdout), "{name}");
    }
}

#[test]
fn texts_are_taken_over() {
    in_child("texts_are_taken_over", &[], || {
        assert!(log_custom(Some("extism::pdk=info")));
        let functions = ["trace", "debug", "info", "warn", "error"].map(|level| {
            format!(
                "(local.set $text (text 'text')) (call $log_{level} (local.get $text))
                 (call $note (call $length (local.get $text)))"
            )
        });
        let plugin = Plugin::new(&format!(r#"(func (export "run") (local $text i64) {})"#, functions.concat()));
        assert_eq!(plugin.notes("run", ""), [0; 5], "also where nobody wants the line");
    });
}

#[test]
fn what_is_no_block_is_refused() {
    in_child("what_is_no_block_is_refused", &[], || {
        for level in ["trace", "debug", "info", "warn", "error"] {
            let plugin = Plugin::new(&format!(
                r#"(func (export "dead") (local $dead i64)
                     (local.set $dead (text 'text')) (call $free (local.get $dead))
                     (call $log_{level} (local.get $dead)))
                   (func (export "inner") (call $log_{level} (i64.add (text 'text') (i64.const 1))))
                   (func (export "huge") (call $log_{level} (i64.const -1)))
                   (func (export "none") (call $log_{level} (i64.const 0)))"#
            ));
            for function in ["dead", "inner", "huge"] {
                let (code, error) = plugin.run(function).failure();
                assert_eq!(code, -1, "{level} {function}");
                assert!(error.contains("block"), "{level} {function}: {error}");
            }
            assert_eq!(plugin.code("none"), 0);
        }
    });
}

/// A handler that makes calls which log, and drains again.
unsafe extern "C" fn drain_and_log(_: *const c_char, _: u64) {
    let plugin = Plugin::new(LOGS);
    assert_eq!(plugin.call("one", "from the handler").code, 0);
    let lines = drain();
    assert!(lines.iter().any(|line| line.contains("from the handler")));
}

#[test]
fn a_handler_may_log_and_drain() {
    in_child("a_handler_may_log_and_drain", &[], || {
        assert!(log_custom(Some("extism::pdk=error")));
        assert_eq!(Plugin::new(LOGS).call("one", "first").code, 0);
        // SAFETY: a handler of the right type.
        unsafe { (api().log_drain)(drain_and_log) };
        assert!(drain().is_empty());
    });
}

#[test]
fn a_host_function_may_drain() {
    in_child("a_host_function_may_drain", &[], || {
        assert!(log_custom(Some("extism::pdk=info")));
        let drained = HostFunction::new("drain", &[], &[], |_, _, _| {
            assert_eq!(drain().len(), 1);
        });
        let body = r#"(import "extism:host/user" "drain" (func $drain))
            (func (export "run") (call $log_info (text 'before')) (call $drain))"#;
        assert_eq!(Setup::guest(body).function(drained).plugin().code("run"), 0);
        assert!(drain().is_empty());
    });
}

#[test]
fn lines_of_many_threads_stay_whole() {
    in_child("lines_of_many_threads_stay_whole", &[], || {
        assert!(log_custom(Some("extism::pdk=error")));
        let compiled = Setup::guest(LOGS).compile();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let compiled = &compiled;
                scope.spawn(move || {
                    let plugin = compiled.plugin();
                    for _ in 0..100 {
                        assert_eq!(plugin.call("one", format!("thread {n}")).code, 0);
                    }
                });
            }
        });
        let lines = drain();
        assert_eq!(lines.len(), 800);
        assert!(lines.iter().all(|line| without_time(line).starts_with("ERROR extism::pdk: thread ")));
    });
}

fn fifo(path: &str) {
    let path = CString::new(path).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// What is no file, or none for this process: an error that names it, at once, and the next one works.
#[test]
fn places_that_are_none() {
    in_child("places_that_are_none", &[], || {
        let scratch = Scratch::new("places");
        let [directory, file, link] = ["directory", "file", "link"].map(|name| scratch.file(name));
        let [pipe, socket, below] = ["fifo", "socket", "file/below"].map(|name| scratch.file(name));
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "there before\n").unwrap();
        std::os::unix::fs::symlink("link", &link).unwrap();
        fifo(&pipe);
        let _socket = UnixListener::bind(&socket).unwrap();
        let began = Instant::now();
        for path in [&*directory, &link, &pipe, &socket, &below, "/", "/proc/none", "/nonexistent/x/log", ""] {
            assert!(!log_file(Some(path), Some("info")), "{path}");
            let error = last_error().unwrap();
            assert!(error.starts_with(&format!("the log file `{path}` cannot be opened for appending: ")), "{error}");
        }
        // SAFETY: they have no preconditions; this is the only thread.
        if unsafe { libc::geteuid() } == 0 {
            assert_eq!(unsafe { libc::seteuid(65_534) }, 0);
            assert!(!log_file(Some(&file), None) && last_error().unwrap().contains("denied"));
            // SAFETY: as above.
            assert_eq!(unsafe { libc::seteuid(0) }, 0);
        }
        assert!(began.elapsed() < Duration::from_secs(5) * slowdown(), "{:?}", began.elapsed());
        assert!(log_file(Some(&file), Some("error")), "{:?}", last_error());
        assert_eq!(Plugin::new(LOGS).call("one", "text").code, 0);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("there before\n") && text.lines().count() == 2, "{text}");
    });
}

/// Nobody waits for the reader of a FIFO, nor goes with it.
#[test]
fn a_fifo_keeps_nobody() {
    in_child("a_fifo_keeps_nobody", &[], || {
        let scratch = Scratch::new("fifo");
        let path = scratch.file("fifo");
        fifo(&path);
        let reader = std::thread::spawn({
            let path = path.clone();
            // Opening it waits for the log.
            move || File::open(path).unwrap()
        });
        while !log_file(Some(&path), Some("error")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut reader = reader.join().unwrap();
        let plugin = Setup::guest(LOGS).with("timeout_ms", json!(2000 * slowdown())).plugin();
        assert_eq!(plugin.call("one", "first").code, 0);
        let mut first = [0; 4096];
        let count = reader.read(&mut first).unwrap();
        assert!(String::from_utf8_lossy(&first[..count]).contains("extism::pdk: first plugin="));
        for _ in 0..100 {
            assert_eq!(plugin.call("one", vec![b'x'; 50_000]).error, None);
        }
        drop(reader);
        for _ in 0..100 {
            assert_eq!(plugin.call("one", vec![b'x'; 50_000]).error, None);
        }
    });
}

/// Beyond the size that files of the process may have, lines are lost, and the process is not.
#[test]
fn a_limit_on_file_sizes_kills_nobody() {
    in_child("a_limit_on_file_sizes_kills_nobody", &[], || {
        let scratch = Scratch::new("log-fsize");
        assert!(log_file(Some(&scratch.file("log")), Some("error")));
        let plugin = Plugin::new(LOGS);
        assert_eq!(plugin.call("one", "before").code, 0);
        let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
        // SAFETY: a limit of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        for _ in 0..100 {
            assert_eq!(plugin.call("one", "x".repeat(100)).code, 0);
        }
        assert_eq!(scratch.read("log").len(), 1000);
    });
}

/// Whatever a program takes for the end of a line, or a terminal for a command.
#[test]
fn no_text_forges_a_line() {
    in_child("no_text_forges_a_line", &[], || {
        assert!(log_custom(Some("error")));
        let plugin = Plugin::new(LOGS);
        drain();
        let forged = "2026-01-01T00:00:00.000000Z ERROR extism: forged";
        let ends = [
            "\n",
            "\r",
            "\r\n",
            "\n\r",
            "\x0b",
            "\x0c",
            "\x1c",
            "\x1d",
            "\x1e",
            "\x1f",
            "\u{85}",
            "\u{2028}",
            "\u{2029}",
            "\0",
            "\0\n",
            "\x08",
            "\x1b[2K\r",
            "\x1b[1A",
            "\x1b]0;x\x07",
            "\x7f",
            "\u{9b}2K",
            "\u{202e}",
            "\u{2066}",
        ];
        for end in ends {
            let text = format!("text{end}{forged}{end}");
            assert_eq!(plugin.call("one", &text).code, 0);
            let lines = drain();
            assert_eq!(lines.len(), 1, "{end:?}");
            let line = lines[0].strip_suffix('\n').unwrap();
            let harmless = |c: char| !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c) && c != '\u{2066}';
            assert!(line.chars().all(harmless), "{line:?}");
            assert!(line.ends_with(&format!(" plugin=\"{}\"", plugin.id())), "{line}");
        }
        // Bytes that are half a character, or a long form of a newline.
        for bytes in [&b"\xc0\x8a"[..], b"\xe0\x80\x8a", b"\xc2", b"\xe2\x80", b"\xf4\x90\x80\x80", b"\xed\xa0\x80"] {
            assert_eq!(plugin.call("one", [b"a", bytes, forged.as_bytes()].concat()).code, 0);
            let lines = drain();
            assert!(lines.len() == 1 && lines[0].matches('\n').count() == 1, "{lines:?}");
        }
        // Names that a plug-in chooses stand in errors, not in its log lines.
        assert!(drain().is_empty());
    });
}

/// What waits to be drained stays, whatever is asked for meanwhile.
#[test]
fn a_second_log_loses_nothing() {
    in_child("a_second_log_loses_nothing", &[], || {
        let scratch = Scratch::new("second");
        assert!(log_custom(Some("error")));
        let plugin = Plugin::new(LOGS);
        drain();
        for n in 0..100 {
            assert_eq!(plugin.call("one", format!("line {n}.")).code, 0);
            assert!(!log_custom(Some("trace")) && last_error().unwrap().contains("already"));
            assert!(!log_file(Some(&scratch.file("log")), Some("trace")) && last_error().unwrap().contains("already"));
            assert!(!log_file(None, None) && !log_custom(Some("bogus")));
        }
        let lines = drain();
        assert_eq!(lines.len(), 100);
        assert!((0..100).zip(&lines).all(|(n, line)| line.contains(&format!(": line {n}. plugin="))), "{lines:?}");
        assert!(!fs::exists(scratch.file("log")).unwrap());
    });
}

/// Levels and lists that are none: refused, and nothing is set.
#[test]
fn levels_of_any_bytes() {
    in_child("levels_of_any_bytes", &[], || {
        let long = [&b"extism="[..], &[b'x'; 1 << 20]].concat();
        for level in [&b"\xff\xfe"[..], b"info\xff", b"extism=\xc0\x80", b" \t\r\n=", b",=,", b"info\x1b", &long] {
            let level = CString::new(level).unwrap();
            // SAFETY: a NUL-terminated text.
            assert!(unsafe { !(api().log_custom)(level.as_ptr()) });
            assert!(last_error().is_some());
        }
        assert_eq!(Plugin::new(LOGS).code("level"), i32::MAX);
        // White space around a level is no part of it.
        assert!(log_custom(Some(" info\n")));
    });
}
