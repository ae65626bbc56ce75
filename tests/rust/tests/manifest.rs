//! The fields of a manifest: what they do, where they end, and what is said of wrong ones.

use std::io::Write;

use extism_tests::{Plugin, Reply, Scratch, Server, Setup, Value, base64, json, last_error, sha256, within};

const ANSWER: &str = r#"(module (func (export "run") (result i32) (i32.const 42)))"#;

#[track_caller]
fn accepted(manifest: Value) {
    assert_eq!(Setup::manifest(manifest).plugin().code("run"), 42);
}

/// The message contains all of these.
#[track_caller]
fn refused(manifest: &Value, parts: &[&str]) {
    refused_text(&manifest.to_string(), parts);
}

#[track_caller]
fn refused_text(manifest: &str, parts: &[&str]) {
    let error = Setup::new(manifest).refusal();
    for part in parts {
        assert!(error.contains(part), "{manifest}\nno {part}: {error}");
    }
}

fn data() -> Value {
    json!({"data": base64(ANSWER)})
}

/// A manifest of one good module and another field.
fn with(field: &str, value: Value) -> Value {
    let mut manifest = json!({"wasm": [data()]});
    manifest[field] = value;
    manifest
}

#[test]
fn data_as_base64() {
    accepted(json!({"wasm": [data()]}));
    refused(&json!({"wasm": [{"data": "KG1vZHVsZSk*"}]}), &["wasm[0].data", "base64", "line 1"]);
    refused(&json!({"wasm": [data(), {"name": "x", "data": "KG1vZHVsZSk"}]}), &["wasm[1].data", "padd"]);
    refused(&json!({"wasm": [{"data": ""}]}), &["wasm[0]", "empty"]);
    refused(&json!({"wasm": [{"data": base64("hello")}]}), &["wasm[0]", "WebAssembly module"]);
    refused(&json!({"wasm": [{"data": 5}]}), &["wasm[0].data", "base64"]);
}

#[test]
fn data_by_its_address() {
    let bytes = ANSWER.as_bytes();
    let (address, length) = (bytes.as_ptr() as u64, bytes.len() as u64);
    let manifest = |address: u64, length: u64| json!({"wasm": [{"data": {"ptr": address, "len": length}}]});
    accepted(manifest(address, length));
    for (address, length) in
        [(0, length), (1, length), (u64::MAX - 10, length), (address, 1 << 29), (1 << 62, 8), (4096, 1)]
    {
        refused(&manifest(address, length), &["wasm[0]", "memory of this process"]);
    }
    refused(&manifest(address, u64::MAX), &["wasm[0]", "too many"]);
    refused(&manifest(address, 0), &["wasm[0]", "empty"]);
    refused(&manifest(address, length - 1), &["module `main`"]);
    refused(&json!({"wasm": [{"data": {"ptr": address}}]}), &["wasm[0].data", "len"]);
    refused(&json!({"wasm": [{"data": {"ptr": -1, "len": 5}}]}), &["wasm[0].data.ptr", "-1"]);
    refused(&json!({"wasm": [{"data": {"ptr": "1", "len": 5}}]}), &["wasm[0].data.ptr", "whole number"]);
    refused(&json!({"wasm": [{"data": {"ptr": 1, "len": 5, "size": 5}}]}), &["wasm[0].data", "size"]);
}

#[test]
fn path_of_a_file() {
    let scratch = Scratch::new("path_of_a_file");
    let path = scratch.write("a module Ü.wat", ANSWER);
    accepted(json!({"wasm": [{"path": path}]}));
    let empty = scratch.write("empty.wasm", "");
    refused(&json!({"wasm": [{"path": empty}]}), &["wasm[0]", "empty.wasm", "is empty"]);
    let missing = scratch.file("missing.wasm");
    refused(&json!({"wasm": [{"path": missing}]}), &["wasm[0]", "missing.wasm", "No such file"]);
    let directory = scratch.path().to_str().unwrap();
    refused(&json!({"wasm": [{"path": directory}]}), &["wasm[0]", directory, "directory"]);
    refused(&json!({"wasm": [{"path": "/dev/zero"}]}), &["/dev/zero", "device"]);
    refused(&json!({"wasm": [{"path": ""}]}), &["wasm[0]", "No such file"]);
    refused(&json!({"wasm": [{"path": "a\0b"}]}), &["wasm[0]"]);
    refused(&json!({"wasm": [{"path": 5}]}), &["wasm[0].path", "string"]);
}

#[test]
fn a_module_by_url() {
    within(20, || {
        let server = Server::new(|request| match request.path.as_str() {
            "/module" => Reply::new(200, ANSWER),
            "/moved" => Reply::redirect(302, "/module"),
            "/empty" => Reply::new(200, ""),
            _ => Reply::new(404, "no"),
        });
        accepted(json!({"wasm": [{"url": server.url("/module")}]}));
        accepted(json!({"wasm": [{"url": server.url("/moved")}]}));
        accepted(json!({"wasm": [{"url": server.url("/module"), "hash": sha256(ANSWER)}]}));
        refused(&json!({"wasm": [{"url": server.url("/nothing")}]}), &["wasm[0]", "404", "/nothing"]);
        refused(&json!({"wasm": [{"url": server.url("/empty")}]}), &["wasm[0]", "empty"]);
        refused(&json!({"wasm": [{"url": "no url"}]}), &["wasm[0]", "URL"]);
        refused(&json!({"wasm": [{"url": "file:///etc/passwd"}]}), &["wasm[0]", "http"]);
        refused(&json!({"wasm": [{"url": "http://127.0.0.1:1/x"}]}), &["wasm[0]", "127.0.0.1:1"]);
    });
}

#[test]
fn headers_and_method_of_a_url() {
    within(20, || {
        let server = Server::new(|_| Reply::new(200, ANSWER));
        let module =
            json!({"url": server.url("/m?secret=1"), "method": "post", "headers": {"X-Token": "abc", "n": null}});
        accepted(json!({ "wasm": [module] }));
        let request = server.request();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/m?secret=1"));
        assert_eq!(request.headers["x-token"], "abc");
        assert!(!request.headers.contains_key("n"));
        let mut wrong = json!({"wasm": [data()]});
        wrong["wasm"][0]["method"] = json!("POST");
        refused(&wrong, &["wasm[0]", "`url`"]);
    });
}

#[test]
fn a_module_comes_from_one_place() {
    refused(&json!({"wasm": [{}]}), &["wasm[0]", "exactly one of"]);
    refused(&json!({"wasm": [{"path": "a", "data": "KG1vZHVsZSk="}]}), &["wasm[0]", "`path` and `data`"]);
    refused(&json!({"wasm": [{"path": null}]}), &["wasm[0]", "exactly one of"]);
    accepted(json!({"wasm": [{"path": null, "url": null, "name": null, "hash": null, "data": base64(ANSWER)}]}));
}

#[test]
fn hash_is_checked() {
    let module = |hash: &str| json!({"wasm": [{"data": base64(ANSWER), "hash": hash}]});
    let right = sha256(ANSWER);
    accepted(module(&right));
    accepted(module(&right.to_uppercase()));
    let wrong = sha256("something else");
    refused(&module(&wrong), &["wasm[0]", "hash mismatch", &right, &wrong]);
    for text in ["", "abc", &right[1..], &format!("{right}0"), &right.replace(|c: char| c.is_ascii_digit(), "g")] {
        refused(&module(text), &["wasm[0].hash", "64 hex digits"]);
    }
    let scratch = Scratch::new("hash_is_checked");
    let path = scratch.write("m.wat", ANSWER);
    refused(&json!({"wasm": [{"path": path, "hash": wrong}]}), &["m.wat", "hash mismatch"]);
}

#[test]
fn which_module_is_main() {
    let module = |name: Value, n: i32| {
        let wat = format!(r#"(module (func (export "run") (result i32) (i32.const {n})))"#);
        json!({"name": name, "data": base64(wat)})
    };
    let run = |modules: Value| Setup::manifest(json!({ "wasm": modules })).plugin().code("run");
    assert_eq!(run(json!([module(json!("any"), 1)])), 1, "a single one, whatever its name");
    assert_eq!(run(json!([module(json!("main"), 1), module(json!("other"), 2)])), 1, "the one named main");
    assert_eq!(run(json!([module(json!("a"), 1), module(json!("b"), 2)])), 2, "else the last");
    assert_eq!(run(json!([module(Value::Null, 1), module(json!("b"), 2)])), 1, "else the one without a name");
    refused(
        &json!({"wasm": [module(Value::Null, 1), module(json!("b"), 2), module(Value::Null, 3)]}),
        &["wasm[0]", "wasm[2]", "main module"],
    );
    refused(
        &json!({"wasm": [module(json!("main"), 1), module(json!("main"), 2)]}),
        &["wasm[0]", "wasm[1]", "main module"],
    );
    refused(
        &json!({"wasm": [module(json!("a"), 1), module(json!("a"), 2), module(json!("main"), 3)]}),
        &["wasm[1].name", "\"a\""],
    );
}

#[test]
fn no_module_at_all() {
    for manifest in [json!({}), json!({"wasm": []}), json!({"wasm": null}), json!({"wasm": [null]})] {
        refused(&manifest, &["wasm", "at least one"]);
    }
    refused(&json!({"wasm": {}}), &["wasm", "sequence"]);
    refused(&json!({"wasm": ["a.wasm"]}), &["wasm[0]", "object"]);
}

#[test]
fn memory_limits() {
    accepted(with("memory", json!({"max_pages": 1, "max_http_response_bytes": 0, "max_var_bytes": 0})));
    accepted(with(
        "memory",
        json!({"max_pages": u64::MAX, "max_http_response_bytes": u64::MAX, "max_var_bytes": u64::MAX}),
    ));
    accepted(with("memory", json!({"max_pages": null})));
    accepted(with("memory", json!({})));
    accepted(with("memory", Value::Null));
    for field in ["max_pages", "max_http_response_bytes", "max_var_bytes"] {
        let at = format!("memory.{field}");
        for value in [json!(-1), json!("1"), json!(1.5), json!([1]), json!(1e30)] {
            refused(&with("memory", json!({ field: value })), &[&at, "whole number"]);
        }
    }
    refused(&with("memory", json!({"max": 1})), &["memory", "`max`", "max_pages"]);
    refused(&with("memory", json!(5)), &["memory", "object"]);
}

#[test]
fn config() {
    accepted(with("config", json!({})));
    accepted(with("config", json!({"a": "b", "c": null})));
    refused(&with("config", json!({"a": 5})), &["config.a", "string"]);
    refused(&with("config", json!({"a b": ["x"]})), &["config[\"a b\"]", "string"]);
    refused(&with("config", json!([])), &["config", "map"]);
}

#[test]
fn timeouts() {
    let forever = r#"(module (func (export "run") (loop $l (br $l))))"#;
    for timeout in [0, 1, 50] {
        let plugin = Setup::new(forever).with("timeout_ms", json!(timeout)).plugin();
        let ended = within(10, move || plugin.run("run"));
        assert_eq!(ended.failure(), (134, "timeout".to_owned()));
    }
    accepted(with("timeout_ms", json!(u64::MAX)));
    accepted(with("timeout_ms", json!(i64::MAX)));
    accepted(with("timeout_ms", Value::Null));
    refused(&with("timeout_ms", json!(-1)), &["timeout_ms", "whole number"]);
    refused(&with("timeout_ms", json!("1s")), &["timeout_ms", "whole number"]);
}

#[test]
fn allowed_hosts() {
    accepted(with("allowed_hosts", json!([])));
    accepted(with("allowed_hosts", json!(["*", "example.com", "*.example.com", "[::1]", "127.0.0.1", null])));
    refused(&with("allowed_hosts", json!(["a", "[bad"])), &["allowed_hosts", "[bad"]);
    refused(&with("allowed_hosts", json!([5])), &["allowed_hosts[0]", "string"]);
    refused(&with("allowed_hosts", json!("*")), &["allowed_hosts", "sequence"]);
}

#[test]
fn allowed_paths() {
    accepted(with("allowed_paths", json!({"/tmp": "/tmp", "ro:/usr": "/usr", "/nowhere": null})));
    refused(&with("allowed_paths", json!({"/tmp": 5})), &["allowed_paths[\"/tmp\"]", "string"]);
    let missing = with("allowed_paths", json!({"/no/such/directory": "/data"}));
    let error = Setup::manifest(missing).wasi().refusal();
    assert!(error.contains("allowed_paths") && error.contains("/no/such/directory"), "{error}");
    let error = Setup::manifest(with("allowed_paths", json!({"/etc/passwd": "/data"}))).wasi().refusal();
    assert!(error.contains("allowed_paths") && error.contains("/etc/passwd"), "{error}");
}

#[test]
fn unknown_fields_are_errors() {
    refused(&with("memroy", json!({})), &["memroy", "line 1"]);
    refused(&with("timeout", json!(5)), &["timeout", "timeout_ms"]);
    let mut manifest = json!({"wasm": [data()]});
    manifest["wasm"][0]["sha256"] = json!("x");
    refused(&manifest, &["wasm[0]", "sha256"]);
}

#[test]
fn positions_are_those_of_the_text() {
    refused_text("{\n  \"wasm\": [\n    {\"path\": true}\n  ]\n}", &["JSON", "line 3", "wasm[0].path"]);
    refused_text("{\"wasm\": [", &["JSON", "line 1", "EOF"]);
    refused_text("{\"wasm\": []} x", &["JSON", "trailing"]);
    refused_text("[[wasm]]\npath = \"a\"\nhash = 5\n", &["TOML", "line 3", "wasm[0].hash"]);
    refused_text("wasm = [\n", &["TOML", "line"]);
    refused_text("timeout_ms = 5\n", &["TOML", "wasm"]);
}

#[test]
fn toml_says_the_same() {
    let path = Scratch::new("toml_says_the_same");
    let file = path.write("m.wat", ANSWER);
    let manifest = format!(
        r#"
        timeout_ms = 5000
        allowed_hosts = ["example.com"]

        [[wasm]]
        path = '{file}'
        hash = "{}"

        [[wasm]]
        name = "lib"
        data = "{}"

        [memory]
        max_pages = 10

        [config]
        key = "value"

        [allowed_paths]
        "ro:/usr" = "/usr"
        "#,
        sha256(ANSWER),
        base64("(module)")
    );
    assert_eq!(Setup::new(manifest).wasi().plugin().code("run"), 42);
    let data = format!("[[wasm]]\r\ndata = \"{}\"\r\n[memory]\r\nmax_pages = -1", base64(ANSWER));
    refused_text(&data, &["TOML", "line 4", "memory.max_pages"]);
}

#[test]
fn text_may_begin_with_a_mark_and_white_space() {
    for before in ["\u{feff}", "\n\t ", "\u{feff}\r\n"] {
        assert_eq!(Setup::new(format!("{before}{ANSWER}")).plugin().code("run"), 42);
        let manifest = json!({"wasm": [data()]}).to_string();
        assert_eq!(Setup::new(format!("{before}{manifest}")).plugin().code("run"), 42);
    }
    for comment in [";; a comment\n", "(; a comment ;)"] {
        assert_eq!(Setup::new(format!("{comment}{ANSWER}")).plugin().code("run"), 42);
    }
}

#[test]
fn a_manifest_is_read_during_creation_only() {
    let scratch = Scratch::new("read_during_creation_only");
    let path = scratch.write("m.wat", ANSWER);
    let compiled = Setup::manifest(json!({"wasm": [{"path": path}]})).compile();
    std::fs::File::create(&path).unwrap().write_all(b"rubbish").unwrap();
    assert_eq!(compiled.plugin().code("run"), 42);
}

#[test]
fn a_terminating_nul_is_pointed_out() {
    let text = format!("{}\0", json!({"wasm": [data()]}));
    refused_text(&text, &["NUL"]);
}

#[test]
fn settings_belong_to_all_plugins_of_a_compiled_one() {
    let body = r#"(func (export "run") (call $output (call $config_get (text 'key'))))"#;
    let compiled = Setup::guest(body).with("config", json!({"key": "value"})).compile();
    for plugin in [compiled.plugin(), compiled.plugin()] {
        assert_eq!(plugin.output_of("run", ""), b"value");
    }
    assert_eq!(last_error(), None);
    let _: Plugin = compiled.plugin();
}
