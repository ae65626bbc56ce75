//! Each field of the settings: good, at its limit, wrong; in JSON and in TOML.

use std::time::Duration;

use super::super::{AllowedPath, Location, MemoryOptions, Settings};
use super::*;

pub(super) const WHOLE: &str = "expected a whole number from 0 to 18446744073709551615";

/// The settings that both spellings give.
#[track_caller]
fn settings(in_json: &str, in_toml: &str) -> Settings {
    let settings = good(&json(in_json)).settings;
    assert_eq!(settings, good(&toml(in_toml)).settings);
    settings
}

#[test]
fn unknown_fields_are_named_with_path_and_position() {
    let top = "unknown field `foo`, expected one of `wasm`, `memory`, `config`, `allowed_hosts`";
    bad(&json("  \"foo\": 1"), &["manifest (JSON), line 2, column 7, at foo: ", top]);
    bad(&toml("foo = 1"), &["manifest (TOML), line 1, column 1, at foo: ", top]);

    let memory = "unknown field `max`, expected one of `max_pages`, `max_http_response_bytes`";
    bad(&json("\"memory\": {\"max\": 1}"), &["line 2, column 16, at memory.max: ", memory]);
    bad(&toml("memory.max = 1"), &["line 1, column 8, at memory.max: ", memory]);

    let wasm = "unknown field `foo`, expected one of `path`, `data`, `url`";
    bad(&json_module("{\"path\": \"x\", \"foo\": 1}"), &["line 2, column 19, at wasm[0].foo: ", wasm]);
    bad("[[wasm]]\npath = 'x'\nfoo = 1", &["line 3, column 1, at wasm[0].foo: ", wasm]);

    bad(
        &json_module("{\"data\": {\"ptr\": 1, \"len\": 1, \"foo\": 1}}"),
        &["at wasm[0].data.foo: unknown field `foo`, expected `ptr` or `len`"],
    );
    // 1.41 takes no other spellings of names, either.
    for name in ["Wasm", "modules", "allowedHosts", "timeout", "timeoutMs"] {
        bad(&json(&format!("\"{name}\": null")), &["unknown field", name]);
    }
}

#[test]
fn null_is_absent() {
    // Of these, 1.41 takes null for `allowed_hosts`, `allowed_paths`, `timeout_ms`, the fields of
    // `memory`, and `name`, `hash` and `method`.
    let nulls = r#""memory": null, "config": null, "allowed_hosts": null, "allowed_paths": null,
        "timeout_ms": null"#;
    assert_eq!(good(&json(nulls)).settings, Settings::default());

    let inside = r#""memory": {"max_pages": null, "max_http_response_bytes": null,
        "max_var_bytes": null}, "config": {"a": null, "b": "c"}, "allowed_hosts": [null, "h"],
        "allowed_paths": {"/a": null, "/b": "/c"}"#;
    let settings = good(&json(inside)).settings;
    assert_eq!(settings.memory, MemoryOptions::default());
    assert_eq!(settings.config, [("b".into(), "c".into())].into());
    assert_eq!(settings.allowed_hosts.unwrap(), ["h"]);
    assert_eq!(settings.allowed_paths.len(), 1);

    let module = r#"null, {"path": "x", "data": null, "url": null, "headers": null,
        "method": null, "name": null, "hash": null}, {"url": "u", "headers": {"a": null}}"#;
    let modules = good(&json_module(module)).modules;
    assert_eq!(modules[0].location, Location::Path("x".into()));
    assert_eq!((&modules[0].name, modules[0].hash), (&None, None));
    let (url, headers) = ("u".to_owned(), Default::default());
    assert_eq!(modules[1].location, Location::Url { url, headers, method: None });
}

#[test]
fn memory() {
    assert_eq!(settings("\"memory\": {}", "memory = {}").memory, MemoryOptions::default());
    let in_json = r#""memory":
        {"max_pages": 0, "max_http_response_bytes": 1, "max_var_bytes": 18446744073709551615}"#;
    let in_toml = "memory = {max_pages = 0, max_http_response_bytes = 1, max_var_bytes = 18446744073709551615}";
    let expected =
        MemoryOptions { max_pages: Some(0), max_http_response_bytes: Some(1), max_var_bytes: Some(u64::MAX) };
    assert_eq!(settings(in_json, in_toml).memory, expected);

    for field in ["max_pages", "max_http_response_bytes", "max_var_bytes"] {
        let at = format!("at memory.{field}: ");
        for value in ["-1", "1.0", "true", "\"1\"", "[]", "{}", "18446744073709551616"] {
            bad(&json(&format!("\"memory\": {{\"{field}\": {value}}}")), &["line 2", &at, WHOLE]);
            bad(&toml(&format!("memory.{field} = {value}")), &["line 1", &at, WHOLE]);
        }
        // 1.41: `max_pages` ends at 2^32 - 1.
        good(&json(&format!("\"memory\": {{\"{field}\": 4294967296}}")));
    }
    bad(&json("\"memory\": 1"), &["at memory: ", "expected an object of memory limits"]);
    bad(&toml("memory = 1"), &["at memory: ", "expected an object of memory limits"]);
    bad(&json("\"memory\": {\"max_pages\": 1, \"max_pages\": 1}"), &["duplicate field"]);
}

#[test]
fn timeout_ms() {
    let timeout = |ms: &str| settings(&format!("\"timeout_ms\": {ms}"), &format!("timeout_ms = {ms}")).timeout;
    assert_eq!(good(&json("\"config\": {}")).settings.timeout, None);
    // 1.41: a call that does not end at once is stopped.
    assert_eq!(timeout("0"), Some(Duration::ZERO));
    assert_eq!(timeout("1500"), Some(Duration::from_millis(1500)));
    assert_eq!(timeout("18446744073709551615"), Some(Duration::from_millis(u64::MAX)));
    for value in ["-1", "1.0", "1e3", "18446744073709551616", "\"5\"", "false", "[]"] {
        bad(&json(&format!("\"timeout_ms\": {value}")), &["at timeout_ms: ", WHOLE]);
        bad(&toml(&format!("timeout_ms = {value}")), &["at timeout_ms: ", WHOLE]);
    }
    bad(&toml("timeout_ms = 1979-05-27"), &["line 1, column 14, at timeout_ms: ", WHOLE]);
    bad(&toml(&format!("timeout_ms = {}", "9".repeat(60))), &["at timeout_ms: ", "overflow"]);
}

#[test]
fn config() {
    let config = settings(
        r#""config": {"a": "b", "": "", "x.y": "ä\u0000"}"#,
        "[config]\na = 'b'\n'' = ''\n'x.y' = \"ä\\u0000\"",
    )
    .config;
    let expected = [("a", "b"), ("", ""), ("x.y", "ä\0")];
    assert_eq!(config, expected.map(|(k, v)| (k.into(), v.into())).into());
    // In 1.41, too, the last one wins.
    let config = good(&json(r#""config": {"a": "b", "a": "c"}"#)).settings.config;
    assert_eq!(config["a"], "c");

    for value in ["1", "true", "[]", "{}", "1.5"] {
        let at = &["at config[\"a b\"]: ", "expected a string"];
        bad(&json(&format!("\"config\": {{\"a b\": {value}}}")), at);
        bad(&toml(&format!("[config]\n\"a b\" = {value}")), at);
    }
    for value in ["1", "\"x\"", "[[\"a\", \"b\"]]"] {
        bad(&json(&format!("\"config\": {value}")), &["at config: ", "expected a map"]);
        bad(&toml(&format!("config = {value}")), &["at config: ", "expected a map"]);
    }
}

#[test]
fn allowed_hosts() {
    assert_eq!(good(&json("\"config\": {}")).settings.allowed_hosts, None);
    let hosts = |list: &str| {
        let list = settings(&format!("\"allowed_hosts\": {list}"), &format!("allowed_hosts = {list}"));
        list.allowed_hosts.unwrap()
    };
    assert!(hosts("[]").is_empty());
    assert_eq!(hosts("[\"*.example.com\", \"h\", \"h\", \"\"]"), ["*.example.com", "h", "h", ""]);
    bad(&json("\"allowed_hosts\": [\"a\", 1]"), &["at allowed_hosts[1]: ", "expected a string"]);
    bad(&toml("allowed_hosts = [\"a\", 1]"), &["at allowed_hosts[1]: ", "expected a string"]);
    for value in ["\"h\"", "{}", "1"] {
        bad(&json(&format!("\"allowed_hosts\": {value}")), &["at allowed_hosts: ", "a sequence"]);
        bad(&toml(&format!("allowed_hosts = {value}")), &["at allowed_hosts: ", "a sequence"]);
    }
}

#[test]
fn allowed_paths() {
    let paths = settings(
        r#""allowed_paths": {"/b": "/x", "ro:/a": "/x", "ro:ro:": "", "": "y"}"#,
        "allowed_paths = {\"/b\" = \"/x\", \"ro:/a\" = \"/x\", \"ro:ro:\" = \"\", \"\" = \"y\"}",
    )
    .allowed_paths;
    let path = |host: &str, guest: &str, read_only| AllowedPath { host: host.into(), guest: guest.into(), read_only };
    let expected = [path("", "y", false), path("/b", "/x", false), path("/a", "/x", true), path("ro:", "", true)];
    assert_eq!(paths, expected);
    bad(&json("\"allowed_paths\": {\"/a\": 1}"), &["at allowed_paths[\"/a\"]: ", "a string"]);
    bad(&toml("allowed_paths = {\"/a\" = 1}"), &["at allowed_paths[\"/a\"]: ", "a string"]);
    bad(&json("\"allowed_paths\": [\"/a\"]"), &["at allowed_paths: ", "expected a map"]);
    bad(&toml("allowed_paths = [\"/a\"]"), &["at allowed_paths: ", "expected a map"]);
}
