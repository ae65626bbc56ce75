//! Each field of a module: good, at its limit, wrong; in JSON and in TOML.

use std::path::PathBuf;

use super::super::{Location, Source};
use super::fields::WHOLE;
use super::*;

/// A module given by `in_json`, and the same in TOML.
#[track_caller]
fn module(in_json: &str, in_toml: &str) -> Source<'static> {
    let mut modules = good(&json_module(&format!("{{{in_json}}}"))).modules;
    assert_eq!(modules, good(&format!("[[wasm]]\n{in_toml}\n")).modules);
    assert_eq!(modules.len(), 1);
    modules.remove(0)
}

#[test]
fn wasm() {
    let modules = good("{\"wasm\": [{\"path\": \"a\"}, {\"path\": \"b\"}]}").modules;
    assert_eq!(modules.len(), 2);
    let entry = "expected an object with `path`, `data` or `url`";
    bad("{\"wasm\": [\"x.wasm\"]}", &["line 1, column 18, at wasm[0]: ", entry]);
    bad("wasm = [\"x.wasm\"]", &["line 1, column 9, at wasm[0]: ", entry]);
    bad("{\"wasm\": {\"path\": \"a\"}}", &["at wasm: ", "expected a sequence"]);
    bad("wasm = {path = \"a\"}", &["at wasm: ", "expected a sequence"]);

    for (fields, found) in [
        ("", "none of them"),
        ("\"name\": \"a\"", "none of them"),
        ("\"path\": \"x\", \"data\": \"\"", "`path` and `data`"),
        ("\"path\": \"x\", \"url\": \"y\"", "`path` and `url`"),
        ("\"path\": \"x\", \"data\": \"\", \"url\": \"y\"", "`path` and `data` and `url`"),
    ] {
        let found = format!("exactly one of `path`, `data` and `url`; this one has {found}");
        bad(&json_module(&format!("{{{fields}}}")), &["manifest (JSON), line 2", "at wasm[0]: ", &found]);
        let fields = fields.replace("\": ", "\" = ");
        bad(&format!("wasm = [{{{fields}}}]"), &["line 1, column 9, at wasm[0]: ", &found]);
    }
    for field in ["\"headers\": {}", "\"method\": \"GET\""] {
        for place in ["\"path\": \"x\"", "\"data\": \"\""] {
            let module = json_module(&format!("{{{place}, {field}}}"));
            bad(&module, &["at wasm[0]: `headers` and `method` belong to a `url`"]);
        }
    }
}

#[test]
fn path() {
    let source = module("\"path\": \"a/b c.wasm\"", "path = \"a/b c.wasm\"");
    assert_eq!(source.location, Location::Path(PathBuf::from("a/b c.wasm")));
    bad(&json_module("{\"path\": 1}"), &["at wasm[0].path: ", "expected a string"]);
    bad("[[wasm]]\npath = 1", &["line 2, column 8, at wasm[0].path: ", "expected a string"]);
}

#[test]
fn data() {
    for (text, bytes) in [("", &b""[..]), (MODULE_BASE64, MODULE), ("+/+/", b"\xfb\xff\xbf")] {
        let source = module(&format!("\"data\": \"{text}\""), &format!("data = \"{text}\""));
        assert_eq!(source.location, Location::Data(bytes.into()));
    }
    // What 1.41 refuses, too: the URL alphabet, no padding, white space, bits past the end.
    for text in ["-_-_", "AGFzbQEAAAA", "AGFz bQEA", "AGFzbQEAAAB=", "*", "A"] {
        let what = &["wasm[0].data: not base64 (standard alphabet, padded)"];
        bad(&json_module(&format!("{{\"data\": \"{text}\"}}")), what);
        bad(&format!("[[wasm]]\ndata = \"{text}\""), what);
    }
    // 1.41 takes an array of address and length, which nobody writes.
    for value in ["1", "true", "[1, 8]"] {
        let what = &["wasm[0].data: ", "expected base64 text, or an object with `ptr` and `len`"];
        bad(&json_module(&format!("{{\"data\": {value}}}")), what);
        bad(&format!("[[wasm]]\ndata = {value}"), what);
    }
}

#[test]
fn data_in_memory() {
    let max = u64::MAX;
    for (address, length) in [(0, 0), (4096, 8), (max, max)] {
        let source = module(
            &format!("\"data\": {{\"ptr\": {address}, \"len\": {length}}}"),
            &format!("data = {{len = {length}, ptr = {address}}}"),
        );
        assert_eq!(source.location, Location::Memory { address, length });
    }
    bad(&json_module("{\"data\": {\"ptr\": 1}}"), &["at wasm[0].data: missing field `len`"]);
    bad("wasm = [{data = {len = 1}}]", &["at wasm[0].data: missing field `ptr`"]);
    bad(&json_module("{\"data\": {\"ptr\": \"1\", \"len\": 8}}"), &["wasm[0].data.ptr: ", WHOLE]);
    bad(&json_module("{\"data\": {\"ptr\": 1, \"len\": null}}"), &["wasm[0].data.len: ", WHOLE]);
    bad("wasm = [{data = {ptr = -1, len = 8}}]", &["column 24, at wasm[0].data.ptr: ", WHOLE]);
}

#[test]
fn url() {
    let source = module(
        r#""url": "https://h/p", "headers": {"a": "b"}, "method": "POST""#,
        "url = 'https://h/p'\nheaders = {a = 'b'}\nmethod = 'POST'",
    );
    let headers = [("a".into(), "b".into())].into();
    let (url, method) = ("https://h/p".into(), Some("POST".into()));
    assert_eq!(source.location, Location::Url { url, headers, method });

    bad(&json_module("{\"url\": 1}"), &["at wasm[0].url: ", "a string"]);
    bad(&json_module("{\"url\": \"u\", \"method\": 1}"), &["at wasm[0].method: ", "a string"]);
    bad(&json_module("{\"url\": \"u\", \"headers\": {\"a\": 1}}"), &["at wasm[0].headers.a: "]);
    bad(&json_module("{\"url\": \"u\", \"headers\": []}"), &["at wasm[0].headers: ", "a map"]);
    bad("[[wasm]]\nurl = 'u'\nheaders.a = 1", &["line 3, column 13, at wasm[0].headers.a: "]);
    // 1.41 has no `header`, either.
    bad(&json_module("{\"url\": \"u\", \"header\": {}}"), &["unknown field `header`"]);
}

#[test]
fn name() {
    for name in ["main", "a", "", "extism:host/user", "ä b"] {
        let source =
            module(&format!("\"path\": \"x\", \"name\": \"{name}\""), &format!("path = 'x'\nname = \"{name}\""));
        assert_eq!(source.name.as_deref(), Some(name));
    }
    bad(&json_module("{\"path\": \"x\", \"name\": 1}"), &["at wasm[0].name: ", "a string"]);
    bad("[[wasm]]\npath = 'x'\nname = 1", &["line 3, column 8, at wasm[0].name: ", "a string"]);
}

#[test]
fn hash() {
    let digits = "00fF".repeat(16);
    let source = module(&format!("\"path\": \"x\", \"hash\": \"{digits}\""), &format!("path = 'x'\nhash = '{digits}'"));
    assert_eq!(source.hash.unwrap(), [0, 255].repeat(16)[..]);

    let wrong = ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"ä".repeat(32)];
    for text in wrong {
        let what = &["at wasm[0].hash: expected the 64 hex digits of a SHA-256, found \"", text];
        bad(&json_module(&format!("{{\"path\": \"x\", \"hash\": \"{text}\"}}")), what);
        bad(&format!("[[wasm]]\npath = 'x'\nhash = '{text}'"), what);
    }
    bad(&json_module("{\"path\": \"x\", \"hash\": 1}"), &["at wasm[0].hash: ", "a string"]);
}
