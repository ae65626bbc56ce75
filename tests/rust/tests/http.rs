//! `http_request`, `http_status_code` and `http_headers`, against a server on this machine.

use std::time::{Duration, Instant};

use extism_tests::{Plugin, Reply, Request, Server, Setup, Value, from_base64, in_child, json, slowdown, within};

/// `send` takes a request and perhaps a body, divided by a newline, in its input; the response becomes its output.
/// It notes what came back and the status.
const SEND: &str = r#"
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

fn client(allowed: &[&str]) -> Plugin {
    Setup::guest(SEND).with("allowed_hosts", json!(allowed)).with("timeout_ms", json!(20_000)).plugin()
}

/// One that may ask the servers of these tests.
fn local() -> Plugin {
    client(&["127.0.0.1"])
}

fn get(url: impl Into<String>) -> String {
    json!({"url": url.into()}).to_string()
}

/// Status and body.
#[track_caller]
fn send(plugin: &Plugin, request: impl AsRef<[u8]>) -> (i64, Vec<u8>) {
    let notes = plugin.notes("send", request);
    assert_eq!(notes[0] != 0, !plugin.output().is_empty(), "a block for a body");
    (notes[1], plugin.output())
}

#[track_caller]
fn fails(plugin: &Plugin, request: impl AsRef<[u8]>, parts: &[&str]) {
    let (code, error) = plugin.call("send", request).failure();
    assert_eq!(code, -1, "{error}");
    for part in parts {
        assert!(error.contains(part), "no {part}: {error}");
    }
}

fn echo(request: &Request) -> Reply {
    Reply::new(200, format!("{} {} {}", request.method, request.path, String::from_utf8_lossy(&request.body)))
}

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
fn hosts_need_an_entry() {
    let server = Server::new(echo);
    let url = server.url("/");
    let none = Setup::guest(SEND).plugin();
    fails(&none, get(&url), &["not allowed", "127.0.0.1", "allowed_hosts"]);
    fails(&client(&[]), get(&url), &["not allowed", "127.0.0.1"]);
    fails(&client(&["example.com", "127.0.0.2"]), get(&url), &["not allowed"]);
    fails(&client(&["127.0.0.1"]), get("file:///etc/passwd"), &["not allowed", "file"]);
    fails(&client(&["*"]), get("ftp://127.0.0.1/"), &["not allowed", "ftp"]);
    fails(&client(&["localhost"]), get("http://localhost.example.com/"), &["not allowed"]);
    fails(&client(&["example.com"]), get("http://example.com@127.0.0.1/"), &["not allowed", "127.0.0.1"]);
    fails(&client(&["example.com"]), get("http://example.com.evil.example/"), &["not allowed"]);
    assert!(server.requests().is_empty());
}

#[test]
fn entries_are_globs_over_hosts() {
    within(20, || {
        let server = Server::new(echo);
        let port = server.port();
        for (entry, host) in [
            ("127.0.0.1", "127.0.0.1"),
            ("*", "127.0.0.1"),
            ("127.*", "127.0.0.1"),
            ("127.0.0.?", "127.0.0.1"),
            ("127.0.0.1", "0x7f.1"),
            ("127.0.0.1", "2130706433"),
            ("LocalHost", "localhost"),
            ("local*", "LOCALHOST"),
            ("localhost", "user:password@localhost"),
        ] {
            let (status, _) = send(&client(&["example.com", entry]), get(format!("http://{host}:{port}/")));
            assert_eq!(status, 200, "{entry} {host}");
        }
    });
}

/// Nothing goes over the network: they are refused before a connection is made.
#[test]
fn metadata_and_link_local_addresses_need_their_name() {
    within(20, || {
        for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "100.100.100.200", "2852039166"] {
            fails(&client(&["*"]), get(format!("http://{host}/latest/meta-data")), &["not allowed", "metadata"]);
        }
        fails(&client(&["169.254.*"]), get("http://169.254.169.254/"), &["not allowed", "metadata"]);
    });
}

#[test]
fn redirects_are_followed() {
    within(20, || {
        let server = Server::new(|request| match request.path.as_str() {
            "/301" => Reply::redirect(301, "/end"),
            "/302" => Reply::redirect(302, "end"),
            "/303" => Reply::redirect(303, "/end"),
            "/307" => Reply::redirect(307, "/end"),
            "/308" => Reply::redirect(308, "/end"),
            _ => echo(request),
        });
        let plugin = local();
        for (path, method) in [("/301", "GET"), ("/302", "GET"), ("/303", "GET"), ("/307", "POST"), ("/308", "POST")] {
            let request = json!({"url": server.url(path), "method": "POST"});
            let body = if method == "GET" { "" } else { "data" };
            let answer = format!("{method} /end {body}");
            assert_eq!(send(&plugin, format!("{request}\ndata")), (200, answer.into_bytes()), "{path}");
        }
    });
}

#[test]
fn each_redirect_is_checked() {
    within(20, || {
        let secret = Server::new(|_| Reply::new(200, "secret"));
        let port = secret.port();
        let server = Server::new(move |request| match request.path.as_str() {
            "/name" => Reply::redirect(302, format!("http://localhost:{port}/")),
            "/address" => Reply::redirect(307, "http://169.254.169.254/latest"),
            "/file" => Reply::redirect(301, "file:///etc/passwd"),
            _ => Reply::redirect(302, "http://[not a url"),
        });
        let plugin = local();
        fails(&plugin, get(server.url("/name")), &["not allowed", "localhost"]);
        fails(&plugin, get(server.url("/address")), &["not allowed", "169.254.169.254"]);
        fails(&client(&["*"]), get(server.url("/address")), &["not allowed", "metadata"]);
        fails(&plugin, get(server.url("/file")), &["not allowed", "file"]);
        fails(&plugin, get(server.url("/nonsense")), &["redirect"]);
        assert!(secret.requests().is_empty());
        assert_eq!(send(&client(&["127.0.0.1", "localhost"]), get(server.url("/name"))), (200, b"secret".to_vec()));
    });
}

#[test]
fn credentials_stay_with_their_origin() {
    within(20, || {
        let other = Server::new(|_| Reply::new(200, "end"));
        let target = other.url("/");
        let server = Server::new(move |request| match request.path.as_str() {
            "/away" => Reply::redirect(302, target.clone()),
            "/here" => Reply::redirect(302, "/end"),
            _ => Reply::new(200, "end"),
        });
        let headers = json!({"Authorization": "Bearer x", "Cookie": "a=b", "X-Key": "k", "Accept": "text/plain"});
        let plugin = local();
        for path in ["/away", "/here"] {
            let request = json!({"url": server.url(path), "headers": headers});
            assert_eq!(send(&plugin, request.to_string()).0, 200);
        }
        let away = other.request().headers;
        for name in ["authorization", "cookie", "x-key"] {
            assert!(!away.contains_key(name), "{name} went to another origin");
            assert!(server.requests().iter().all(|request| request.headers.contains_key(name)));
        }
        assert_eq!(away["accept"], "text/plain");
    });
}

#[test]
fn ten_redirects_and_no_more() {
    within(20, || {
        let server = Server::new(|request| match request.path[1..].parse::<u32>().unwrap() {
            0 => Reply::new(200, "end"),
            n => Reply::redirect(302, format!("/{}", n - 1)),
        });
        let plugin = local();
        assert_eq!(send(&plugin, get(server.url("/10"))), (200, b"end".to_vec()));
        fails(&plugin, get(server.url("/11")), &["more than 10 redirects"]);
        assert_eq!(server.requests().len(), 22);
    });
}

#[test]
fn responses_have_a_bound() {
    within(20, || {
        let server = Server::new(|request| {
            let length = request.path[1..].parse().unwrap();
            Reply::new(200, vec![b'x'; length])
        });
        let memory = json!({"max_http_response_bytes": 1000});
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("memory", memory).plugin();
        assert_eq!(send(&plugin, get(server.url("/1000"))).1.len(), 1000);
        fails(&plugin, get(server.url("/1001")), &["1000"]);
        fails(&plugin, get(server.url("/5000000")), &["1000"]);
        assert_eq!(send(&plugin, get(server.url("/0"))).1.len(), 0);
        let none = Setup::guest(SEND)
            .with("allowed_hosts", json!(["*"]))
            .with("memory", json!({"max_http_response_bytes": 0}))
            .plugin();
        assert_eq!(send(&none, get(server.url("/0"))).0, 200);
        fails(&none, get(server.url("/1")), &["maximum"]);
    });
}

#[test]
fn responses_have_50_mib_by_default() {
    within(30, || {
        let bound: usize = 50 << 20;
        let server = Server::new(move |request| Reply::new(200, vec![b'x'; bound + request.path.len() - 1]));
        let plugin = local();
        assert_eq!(send(&plugin, get(server.url("/"))).1.len(), bound);
        fails(&plugin, get(server.url("/x")), &["52428800"]);
    });
}

#[test]
fn a_response_counts_against_the_memory() {
    within(20, || {
        let server = Server::new(|_| Reply::new(200, vec![b'x'; 1 << 20]));
        let plugin =
            Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("memory", json!({"max_pages": 10})).plugin();
        assert_eq!(plugin.call("send", get(server.url("/"))).failure(), (-1, "oom".to_owned()));
    });
}

#[test]
fn no_server_and_broken_answers_are_errors() {
    within(20, || {
        let plugin = local();
        fails(&plugin, get("http://127.0.0.1:1/path?secret=1"), &["GET http://127.0.0.1:1/path", "refused"]);
        let error = plugin.call("send", get("http://user:password@127.0.0.1:1/?secret")).failure().1;
        assert!(!error.contains("password") && !error.contains("secret"), "{error}");
        let server = Server::new(|_| Reply::new(200, "short").header("x-y", "z"));
        assert_eq!(send(&plugin, get(server.url("/"))).0, 200, "and the plug-in goes on");
    });
}

fn quickly(since: Instant) {
    let limit = Duration::from_secs(5) * slowdown();
    assert!(since.elapsed() < limit, "took {:?}", since.elapsed());
}

#[test]
fn a_timeout_ends_the_wait() {
    within(20, || {
        let server = Server::new(|request| match request.path.as_str() {
            "/head" => Reply::never(),
            _ => Reply::new(200, "a part").claiming(1000),
        });
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("timeout_ms", json!(200)).plugin();
        for path in ["/head", "/body"] {
            let began = Instant::now();
            assert_eq!(plugin.call("send", get(server.url(path))).failure(), (134, "timeout".to_owned()));
            quickly(began);
        }
        assert_eq!(server.requests().len(), 2);
    });
}

#[test]
fn a_cancel_ends_the_wait() {
    within(20, || {
        let server = Server::new(|_| Reply::never());
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).plugin();
        let began = Instant::now();
        let ended = std::thread::scope(|scope| {
            let call = scope.spawn(|| plugin.call("send", get(server.url("/"))));
            while server.requests().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(plugin.cancel());
            call.join().unwrap()
        });
        assert_eq!(ended.failure(), (134, "cancelled".to_owned()));
        quickly(began);
    });
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

/// "hello, gzip", and 200,000 zeros.
const PACKED: [&str; 2] = [
    "H4sIAAAAAAACA8tIzcnJ11FIr8osAABKm7FcCwAAAA==",
    "H4sIAAAAAAACA+3BMQEAAADCoPVPbQZ/oAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAACA1wB7WOBcQA0DAA==",
];

#[test]
fn packed_bodies_are_unpacked_within_the_bound() {
    within(20, || {
        let server = Server::new(|request| {
            let packed = PACKED[usize::from(request.path == "/bomb")];
            Reply::new(200, from_base64(packed)).header("content-encoding", "gzip")
        });
        let memory = json!({"max_http_response_bytes": 10_000});
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("memory", memory).plugin();
        assert_eq!(send(&plugin, get(server.url("/"))), (200, b"hello, gzip".to_vec()));
        fails(&plugin, get(server.url("/bomb")), &["10000"]);
    });
}

#[test]
fn headers_have_a_bound() {
    within(20, || {
        let server = Server::new(|_| Reply::new(200, "x").header("x-long", "y".repeat(4 << 20)));
        fails(&local(), get(server.url("/")), &["GET http://127.0.0.1"]);
    });
}

#[test]
fn proxies_of_the_environment_are_used() {
    let proxy = Server::new(|request| Reply::new(200, format!("{} by proxy", request.headers["host"])));
    let server = Server::new(echo);
    let environment = [("HTTP_PROXY", &*proxy.url("")), ("NO_PROXY", "127.0.0.1"), ("DIRECT", &*server.url("/"))];
    in_child("proxies_of_the_environment_are_used", &environment, || {
        let plugin = client(&["example.com", "127.0.0.1"]);
        let (status, body) = send(&plugin, get("http://example.com/path"));
        assert_eq!((status, &*String::from_utf8_lossy(&body)), (200, "example.com by proxy"));
        fails(&plugin, get("http://other.example/"), &["not allowed"]);
        let direct = send(&plugin, get(std::env::var("DIRECT").unwrap()));
        assert_eq!(direct, (200, b"GET / ".to_vec()));
    });
}
