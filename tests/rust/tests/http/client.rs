//! A plug-in that sends the requests of these tests.

use extism_tests::{Plugin, Reply, Request, Setup, json};

/// `send` takes a request and perhaps a body, divided by a newline, in its input; the response becomes its output.
/// It notes what came back and the status.
pub const SEND: &str = r#"
    (func $copy (param $from i64) (param $to i64) (result i64) (local $block i64) (local $i i64)
      (local.set $block (call $alloc (i64.sub (local.get $to) (local.get $from))))
      (local.set $i (local.get $from))
      (block $done (loop $next
        (br_if $done (i64.ge_u (local.get $i) (local.get $to)))
        (call $store_u8 (i64.add (local.get $block) (i64.sub (local.get $i) (local.get $from)))
          (call $input_load_u8 (local.get $i)))
        (local.set $i (i64.add (local.get $i) (i64.const 1))) (br $next)))
      (local.get $block))
    (func $end_of_request (result i64) (local $i i64)
      (loop $next
        (if (i32.and (i64.lt_u (local.get $i) (call $input_length))
                     (i32.ne (call $input_load_u8 (local.get $i)) (i32.const 10)))
          (then (local.set $i (i64.add (local.get $i) (i64.const 1))) (br $next))))
      (local.get $i))
    (func $send (export "send") (local $end i64) (local $body i64) (local $response i64)
      (local.set $end (call $end_of_request))
      (if (i64.lt_u (local.get $end) (call $input_length))
        (then (local.set $body
          (call $copy (i64.add (local.get $end) (i64.const 1)) (call $input_length)))))
      (local.set $response (call $http_request (call $copy (i64.const 0) (local.get $end)) (local.get $body)))
      (call $output (local.get $response))
      (call $note (i64.extend_i32_u (i64.ne (local.get $response) (i64.const 0))))
      (call $note_i32 (call $http_status_code)))
    (func (export "headers") (call $send) (call $output (call $http_headers)))"#;

pub fn client(allowed: &[&str]) -> Plugin {
    Setup::guest(SEND).with("allowed_hosts", json!(allowed)).with("timeout_ms", json!(20_000)).plugin()
}

/// One that may ask the servers of these tests.
pub fn local() -> Plugin {
    client(&["127.0.0.1"])
}

pub fn get(url: impl Into<String>) -> String {
    json!({"url": url.into()}).to_string()
}

/// Status and body.
#[track_caller]
pub fn send(plugin: &Plugin, request: impl AsRef<[u8]>) -> (i64, Vec<u8>) {
    let notes = plugin.notes("send", request);
    assert_eq!(notes[0] != 0, !plugin.output().is_empty(), "a block for a body");
    (notes[1], plugin.output())
}

#[track_caller]
pub fn fails(plugin: &Plugin, request: impl AsRef<[u8]>, parts: &[&str]) {
    let (code, error) = plugin.call("send", request).failure();
    assert_eq!(code, -1, "{error}");
    for part in parts {
        assert!(error.contains(part), "no {part}: {error}");
    }
}

pub fn echo(request: &Request) -> Reply {
    Reply::new(200, format!("{} {} {}", request.method, request.path, String::from_utf8_lossy(&request.body)))
}
