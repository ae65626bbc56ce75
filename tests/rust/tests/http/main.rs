//! `http_request`, `http_status_code` and `http_headers`, against servers on this machine.

mod client;
mod endless;
mod limits;
mod policy;
mod redirects;
mod urls;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use extism_tests::{Plugin, Reply, Request, Server, Setup, Value, json, within};

use client::{echo, fails, get, local, send};

#[test]
fn get_and_post() {
    within(20, || {
        let server = Server::new(echo);
        let plugin = local();
        assert_eq!(send(&plugin, get(server.url("/a?b=c"))), (200, b"GET /a?b=c ".to_vec()));
        let request = json!({"url": server.url("/p"), "method": "POST", "headers": {"Content-Type": "text/x"}});
        assert_eq!(send(&plugin, format!("{request}\nthe body")), (200, b"POST /p the body".to_vec()));
        let [first, second] = <[Request; 2]>::try_from(server.requests()).unwrap();
        assert!(first.body.is_empty() && first.headers["user-agent"].starts_with("libextism/"));
        assert_eq!(second.headers["content-type"], "text/x");
        assert_eq!(second.headers["content-length"], "8");
    });
}

/// The threads of the library, and whether each has the signals blocked that hosts handle.
fn threads_and_masks() -> Vec<(String, bool)> {
    let hosts = [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM, libc::SIGTERM, libc::SIGCHLD];
    let look = |task: std::path::PathBuf| {
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        Some((name.trim().to_owned(), hosts.iter().all(|signal| mask & 1 << (signal - 1) != 0)))
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let threads = tasks.filter_map(|task| look(task.unwrap().path()));
    threads.filter(|(name, _)| name.starts_with("extism-")).collect()
}

#[test]
fn signals_stay_with_threads_of_the_host() {
    within(20, || {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Server::new({
            let seen = Arc::clone(&seen);
            move |_| {
                // A thread has its name when it runs.
                let both = |threads: &[(String, bool)]| {
                    ["extism-http", "extism-watchdog"]
                        .iter()
                        .all(|name| threads.iter().any(|(thread, _)| thread == name))
                };
                while !both(&seen.lock().unwrap()) {
                    std::thread::sleep(Duration::from_millis(5));
                    *seen.lock().unwrap() = threads_and_masks();
                }
                Reply::new(200, "")
            }
        });
        assert_eq!(send(&local(), get(server.url("/"))).0, 200);
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|(_, blocked)| *blocked), "{seen:?}");
    });
}

#[test]
fn methods_and_headers() {
    within(20, || {
        let server = Server::new(echo);
        let plugin = local();
        for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "put", "MADEUP"] {
            let request = json!({"url": server.url("/"), "method": method, "headers": {"X-One": "1", "x-two": "zwei"}});
            let answer = format!("{} / ", method.to_uppercase());
            assert_eq!(send(&plugin, request.to_string()), (200, answer.into_bytes()));
        }
        assert!(server.requests().iter().all(|r| r.headers["x-one"] == "1" && r.headers["x-two"] == "zwei"));
        let head = json!({"url": server.url("/"), "method": "HEAD"});
        assert_eq!(send(&plugin, head.to_string()), (200, vec![]));
        let nulls = json!({"url": server.url("/"), "method": null, "headers": null});
        assert_eq!(send(&plugin, nulls.to_string()).0, 200);
    });
}

#[test]
fn any_status_is_an_answer() {
    within(20, || {
        let server =
            Server::new(|request| Reply::new(request.path[1..].parse().unwrap(), format!("status {}", request.path)));
        let plugin = local();
        for status in [200, 201, 304, 400, 404, 418, 500, 503, 599] {
            let (got, body) = send(&plugin, get(server.url(&format!("/{status}"))));
            assert_eq!(got, status);
            assert_eq!(body.is_empty(), status == 304, "{status}");
        }
    });
}

#[test]
fn bodies_are_bytes() {
    within(20, || {
        let server = Server::new(|request| Reply::new(200, request.body.iter().rev().copied().collect::<Vec<_>>()));
        let plugin = local();
        let body: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
        let mut input = json!({"url": server.url("/"), "method": "POST"}).to_string().into_bytes();
        input.push(b'\n');
        input.extend_from_slice(&body);
        assert_eq!(send(&plugin, input), (200, body.iter().rev().copied().collect()));
        assert_eq!(server.request().body, body);
    });
}

#[test]
fn status_and_headers_before_any_request() {
    let plugin = Plugin::new(
        r#"(func (export "run") (call $note_i32 (call $http_status_code)) (call $note (call $http_headers)))"#,
    );
    plugin.allow_response_headers();
    assert_eq!(plugin.notes("run", ""), [0, 0]);
}

#[test]
fn response_headers_only_where_they_are_allowed() {
    within(20, || {
        let server = Server::new(|_| {
            Reply::new(200, "x").header("X-Custom", "One").header("Set-Cookie", "a=1").header("set-cookie", "b=2")
        });
        let plugin = local();
        assert_eq!(plugin.output_of("headers", get(server.url("/"))), b"");
        plugin.allow_response_headers();
        let headers: Value = serde_from(&plugin.output_of("headers", get(server.url("/"))));
        assert_eq!(headers["x-custom"], "One");
        assert_eq!(headers["set-cookie"], "a=1, b=2");
        assert_eq!(headers["content-length"], "1");
    });
}

fn serde_from(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

#[test]
fn both_blocks_are_taken_over() {
    within(20, || {
        let server = Server::new(echo);
        let body = format!(
            r#"(func (export "run") (local $request i64) (local $body i64) (local $response i64)
                 (local.set $request (text '{}')) (local.set $body (text 'body'))
                 (local.set $response (call $http_request (local.get $request) (local.get $body)))
                 (call $note (call $length (local.get $request)))
                 (call $note (call $length (local.get $body)))
                 (call $free (local.get $request)) (call $free (local.get $body))
                 (call $note (call $length (local.get $response))))"#,
            json!({"url": server.url("/"), "method": "POST"})
        );
        let plugin = Setup::guest(&body).with("allowed_hosts", json!(["127.0.0.1"])).plugin();
        assert_eq!(plugin.notes("run", ""), [0, 0, 11]);
    });
}

#[test]
fn what_is_no_block_is_refused() {
    let plugin = Setup::guest(
        r#"(func (export "request") (drop (call $http_request (i64.const 12345) (i64.const 0))))
           (func (export "body") (drop (call $http_request (text '{"url":"http://127.0.0.1:1/"}') (i64.const -1))))
           (func (export "none") (drop (call $http_request (i64.const 0) (i64.const 0))))"#,
    )
    .with("allowed_hosts", json!(["*"]))
    .plugin();
    for (function, part) in [("request", "0x3039"), ("body", "0xffffffffffffffff"), ("none", "JSON")] {
        let (code, error) = plugin.run(function).failure();
        assert_eq!(code, -1);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    let plugin = local();
    for (request, part) in [
        ("", "JSON"),
        ("{", "JSON"),
        ("[]", "JSON"),
        ("{}", "url"),
        (r#"{"url": 5}"#, "string"),
        (r#"{"url": "http://127.0.0.1/", "header": {}}"#, "header"),
        (r#"{"url": "http://127.0.0.1/", "headers": {"a": 1}}"#, "string"),
        (r#"{"url": "/relative"}"#, "URL"),
        (r#"{"url": ""}"#, "URL"),
        (r#"{"url": "http://"}"#, "URL"),
        (r#"{"url": "http://127.0.0.1/", "method": "A B"}"#, "method"),
        (r#"{"url": "http://127.0.0.1/", "method": "CONNECT"}"#, "CONNECT"),
        (r#"{"url": "http://127.0.0.1/", "headers": {"a b": "c"}}"#, "a b"),
        (r#"{"url": "http://127.0.0.1/", "headers": {"a": "b\r\nc: d"}}"#, "control character"),
        (r#"{"url": "http://127.0.0.1/", "headers": {"host": "example.com"}}"#, "host"),
    ] {
        fails(&plugin, request, &[part]);
    }
}

#[test]
fn linked_commands_have_the_same_network() {
    within(20, || {
        let server = Server::new(echo);
        let request = json!({"url": server.url("/from-a-command")});
        let lib = extism_tests::guest(&format!(
            r#"(func (export "_start"))
               (func (export "ask") (call $output (call $http_request (text '{request}') (i64.const 0))))"#
        ));
        let main = extism_tests::guest(
            r#"(import "lib" "ask" (func $ask))
               (func (export "run") (call $ask) (call $note_i32 (call $http_status_code)))"#,
        );
        let setup = Setup::linked(&[("lib", &lib), ("main", &main)]).with("allowed_hosts", json!(["127.0.0.1"]));
        let plugin = setup.plugin();
        assert_eq!(plugin.notes("run", ""), [200]);
        assert_eq!(plugin.output(), b"GET /from-a-command ");
    });
}
