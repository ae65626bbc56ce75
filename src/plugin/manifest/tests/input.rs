//! What the bytes are recognised as.

use super::super::{Location, Settings};
use super::*;

#[track_caller]
fn is_bare(input: &[u8], module: &[u8]) {
    let manifest = parse(input).unwrap();
    assert_eq!(manifest.modules.len(), 1);
    assert_eq!(manifest.modules[0].name, None);
    assert_eq!(manifest.modules[0].hash, None);
    assert_eq!(manifest.modules[0].location, Location::Data(module.into()));
    assert_eq!(manifest.settings, Settings::default());
}

#[test]
fn modules_and_wat_text() {
    // 1.41 takes the first five, and refuses white space before WAT text, and other text in "(".
    for input in [
        MODULE,
        b"\0asm",
        b"(module)",
        b";; a comment\n(module)",
        b"(; a comment ;) (module)",
        b" \n\t(module)",
        b"(func)",
        b"\n;;",
    ] {
        is_bare(input, input);
    }
    is_bare("\u{feff}(module)".as_bytes(), b"(module)");
}

#[test]
fn manifests_may_begin_with_white_space_and_a_byte_order_mark() {
    for begin in ["", " \r\n\t", "\u{feff}", "\u{feff}\n"] {
        assert_eq!(good(&format!("{begin}{}\n ", json("\"config\":{}"))).modules.len(), 1);
        assert_eq!(good(&format!("{begin}{}", toml("# hi"))).modules.len(), 1);
    }
    // 1.41 takes CR LF, too.
    assert_eq!(good(&toml("timeout_ms = 1").replace('\n', "\r\n")).modules.len(), 1);
}

#[test]
fn nothing() {
    for input in ["", " \n", "\u{feff}"] {
        bad(input, &["the input is empty", "WAT text, or a JSON or TOML manifest"]);
    }
    // 1.41: "No wasm files specified in Extism manifest".
    for input in ["{}", "{\"wasm\": []}", "{\"wasm\": null}", "{\"wasm\": [null]}"] {
        bad(input, &["manifest (JSON): `wasm` lists no module", "\"path\""]);
    }
    for input in ["# nothing", "wasm = []", "timeout_ms = 1"] {
        bad(input, &["manifest (TOML): `wasm` lists no module"]);
    }
}

#[test]
fn too_much() {
    // Not written to, so these bytes take no memory.
    let input = vec![0; (1 << 30) + 1];
    bad_bytes(&input, &["1073741825 bytes are too many"]);
}

#[test]
fn garbage() {
    for input in ["hello", "plugin.wasm", "null", "[[{}]]", "<html>", "\"wasm\"", "1"] {
        let neither = "neither a WebAssembly module (which begins with \"\\0asm\") nor WAT text";
        bad(input, &["manifest (TOML), line 1, column ", "taken for TOML", neither]);
    }
    let neither = &["is neither a WebAssembly module", "WAT text", "JSON or TOML"];
    bad_bytes(b"\x1f\x8b\x08\0\0\0\0\0\xff\xff", neither);
    bad_bytes(b"\x1f\x8b\x08\0\0\0\0\0\xff", &["(9 bytes: 1f 8b 08 00 00 00 00 00 ...)"]);
    bad_bytes(b"\0as", &["(3 bytes: 00 61 73)", "byte 0 is NUL"]);
    bad_bytes(b"\0", &["(1 bytes: 00)", "byte 0 is NUL"]);
    bad_bytes(b"\xff\xfe{\0}\0", &["byte 0 is not valid UTF-8"]);
    bad_bytes(b"{\"wasm\": \"\xff\"}", &["byte 10 is not valid UTF-8"]);
    bad_bytes(b"wasm = \"\xff\"", &["byte 8 is not valid UTF-8"]);
    bad("{\"wasm\": \"\0\"}", &["byte 10 is NUL"]);
    bad("wasm = []\0", &["its last byte is NUL", "C string"]);
}

#[test]
fn json_syntax() {
    bad("{", &["manifest (JSON), line 1, column 1: EOF"]);
    bad("{\n\"wasm\" []}", &["manifest (JSON), line 2, column 8", "expected `:`"]);
    bad("{\"wasm\": [],}", &["manifest (JSON), line 1, column 13: trailing comma"]);
    bad(&format!("{} x", json("\"config\":{}")), &["line 2, column 14: trailing characters"]);
    bad("{/* */}", &["manifest (JSON), line 1, column 2: key must be a string"]);
    bad("{\"wasm\":[],\"wasm\":[]}", &["duplicate field `wasm`"]);
}

#[test]
fn toml_syntax() {
    bad("wasm = [\n1,\n", &["manifest (TOML), line 2, column 3", "unclosed array"]);
    bad("wasm = []\nwasm = []", &["manifest (TOML), line 2, column 1", "duplicate key"]);
    bad("wasm = []\nä = = 1", &["manifest (TOML), line 2, column 5"]);
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = 200_000;
    for (open, inner, close) in [("[", "", "]"), ("{\"a\":", "1", "}"), ("[null,", "1", "]")] {
        let value = format!("{}{inner}{}", open.repeat(deep), close.repeat(deep));
        for field in ["wasm", "memory", "config", "allowed_hosts", "timeout_ms", "other"] {
            bad(&format!("{{\"{field}\": {value}}}"), &["manifest (JSON)", field]);
        }
    }
    for (open, inner, close) in [("[", "", "]"), ("{a=", "1", "}")] {
        let value = format!("{}{inner}{}", open.repeat(deep), close.repeat(deep));
        bad(&format!("config = {value}"), &["manifest (TOML)", "recurs"]);
    }
    let dotted = vec!["a"; deep].join(".");
    bad(&format!("config.{dotted} = 1"), &["manifest (TOML)", "recurs"]);
    bad(&format!("[config.{dotted}]"), &["manifest (TOML)", "recurs"]);
}

#[test]
fn what_the_host_wrote_does_not_make_a_message_long_or_broken() {
    let long = "x".repeat(100_000);
    bad(&json(&format!("\"{long}\": 1")), &["unknown field `xxx", "expected one of `wasm`"]);
    bad(&json(&format!("\"memory\": \"{long}\"")), &["expected an object of memory limits"]);
    bad(&json(&format!("\"config\": {{\"{long}\": 1}}")), &["config[\"xxx", "xxx\"]"]);
    bad(&json("\"a\\u0000\\nb\": 1"), &["at [\"a\\0\\nb\"]", "unknown field `a\\u{0}\\nb`"]);
    bad(&format!("\"{long}\" = 1"), &["unknown field `xxx"]);
}

/// The time that this thread has had of a processor, however many others want one.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A large manifest takes a time that grows with its size, and not with the square of it.
#[test]
fn large_manifests_take_their_time_and_no_more() {
    let module = "[[wasm]]\npath = \"x\"\n";
    let shapes: [(&str, &dyn Fn(usize) -> String); 9] = [
        ("keys", &|n| (0..n).fold(format!("{module}[config]\n"), |text, i| text + &format!("key{i} = \"\"\n"))),
        ("modules", &|n| module.repeat(n)),
        ("tables", &|n| (0..n).fold(module.to_owned(), |text, i| text + &format!("[config.t{i}]\n"))),
        ("dotted keys", &|n| (0..n).fold(module.to_owned(), |text, i| text + &format!("config.k{i}.x = \"\"\n"))),
        ("one table again and again", &|n| module.to_owned() + &"[config]\n".repeat(n)),
        ("blank lines", &|n| "\n \t# ...\r\n".repeat(n) + "x"),
        ("an unknown key at the end", &|n| module.repeat(n) + "x = 1\n"),
        ("JSON keys", &|n| {
            let keys: Vec<_> = (0..n).map(|i| format!(r#""key{i}":"""#)).collect();
            format!(r#"{{"wasm":[{{"path":"x"}}],"config":{{{}}}}}"#, keys.join(","))
        }),
        ("JSON nulls", &|n| format!(r#"{{"wasm":[{}{{"path":"x"}}]}}"#, "null,".repeat(n))),
    ];
    for (name, shape) in shapes {
        let time = |count| {
            let text = shape(count);
            let began = cpu_seconds();
            let _ = parse(text.as_bytes());
            cpu_seconds() - began
        };
        let (small, large) = (time(4_000), time(40_000));
        // Ten times as much takes about ten times as long; a hundred times would be the square.
        assert!(large < small * 40. + 0.1, "{name}: {small} s, {large} s");
    }
}
