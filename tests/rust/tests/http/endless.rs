//! Servers that never come to an end: that answer slowly or not at all, with too much, or with what unpacks to too much.

use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use extism_tests::{Ended, Reply, Server, Setup, Value, from_base64, json, resident_bytes, slowdown, within};

use super::client::{SEND, echo, fails, get, send};

/// A server on whose answers nobody should wait: paths say in which way.
fn endless() -> Server {
    Server::new(|request| {
        let pause = Duration::from_millis(50);
        let ok = "HTTP/1.1 200 OK\r\n";
        let body = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        match request.path.as_str() {
            "/silent" => Reply::never(),
            "/drip-status" => Reply::stream("HTTP/1.1 ", "2", pause),
            "/drip-name" => Reply::stream(ok, "x", pause),
            "/drip-headers" => Reply::stream(ok, "x: y\r\n", pause),
            "/drip-value" => Reply::stream("HTTP/1.1 200 OK\r\nx: ", "y", pause),
            "/drip-body" => Reply::stream(body, "z", pause),
            "/drip-chunk" => Reply::stream(chunked, "1\r\nz\r\n", pause),
            "/drip-size" => Reply::stream(chunked, "0", pause),
            "/drip-trailer" => {
                Reply::stream("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n", pause)
            }
            "/interim" => Reply::stream("", "HTTP/1.1 103 Early Hints\r\n\r\n", pause),
            "/continue" => Reply::stream("", "HTTP/1.1 100 Continue\r\n\r\n", pause),
            path => Reply::redirect(302, path.to_owned()),
        }
    })
}

const ENDLESS: [&str; 11] = [
    "/silent",
    "/drip-status",
    "/drip-name",
    "/drip-headers",
    "/drip-value",
    "/drip-body",
    "/drip-chunk",
    "/drip-size",
    "/drip-trailer",
    "/interim",
    "/continue",
];

fn soon(began: Instant, path: &str) {
    assert!(began.elapsed() < Duration::from_secs(3) * slowdown(), "{path} took {:?}", began.elapsed());
}

/// By its deadline at the latest; a server that says something wrong ends it before.
#[test]
fn a_deadline_ends_every_wait() {
    within(60, || {
        let server = endless();
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("timeout_ms", json!(400)).plugin();
        let mut timeouts = 0;
        for path in ENDLESS {
            let began = Instant::now();
            let ended = plugin.call("send", get(server.url(path)));
            soon(began, path);
            match ended.failure() {
                (134, error) => {
                    assert_eq!(error, "timeout", "{path}");
                    timeouts += 1;
                }
                (code, error) => assert!(code == -1 && error.contains(path), "{path}: {code} {error}"),
            }
        }
        assert!(timeouts >= 7, "{timeouts}");
        let quick = Server::new(echo);
        assert_eq!(send(&plugin, get(quick.url("/"))).0, 200, "and the plug-in goes on");
    });
}

#[test]
fn a_cancel_ends_every_wait() {
    within(60, || {
        let server = endless();
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).plugin();
        for path in ["/silent", "/drip-value", "/drip-body", "/drip-chunk", "/drip-headers"] {
            let before = server.requests().len();
            let began = Instant::now();
            let ended = thread::scope(|scope| {
                let call = scope.spawn(|| plugin.call("send", get(server.url(path))));
                while server.requests().len() == before {
                    thread::sleep(Duration::from_millis(5));
                }
                thread::sleep(Duration::from_millis(100));
                assert!(plugin.cancel());
                call.join().unwrap()
            });
            assert_eq!(ended.failure(), (134, "cancelled".to_owned()), "{path}");
            soon(began, path);
        }
    });
}

/// Without a deadline it is half a minute, whatever the server does meanwhile.
#[test]
fn without_a_deadline_it_is_half_a_minute() {
    within(100, || {
        let server = endless();
        let compiled = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).compile();
        let wait = |path: &str| {
            let began = Instant::now();
            let (code, error) = compiled.plugin().call("send", get(server.url(path))).failure();
            (code, error, began.elapsed())
        };
        thread::scope(|scope| {
            let waits = ["/silent", "/drip-value", "/drip-body"].map(|path| scope.spawn(move || wait(path)));
            for waited in waits {
                let (code, error, elapsed) = waited.join().unwrap();
                assert!(code == -1 && error.contains("no answer within 30s"), "{error}");
                assert!((29..40).contains(&elapsed.as_secs()), "{elapsed:?}");
            }
        });
    });
}

#[test]
fn a_server_that_takes_nothing() {
    within(30, || {
        // Connections wait in the system's queue, and nobody takes them.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let plugin = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("timeout_ms", json!(300)).plugin();
        let body = "x".repeat(8 << 20);
        let request = json!({"url": url, "method": "POST"});
        for input in [request.to_string(), format!("{request}\n{body}"), request.to_string().replace("http:", "https:")]
        {
            let began = Instant::now();
            assert_eq!(plugin.call("send", &input).failure(), (134, "timeout".to_owned()));
            soon(began, "it");
        }
    });
}

/// The threads of this process that send requests.
fn workers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the system's /proc");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).filter(|name| name == "extism-http\n").count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("the system's /proc").count()
}

/// Plug-ins that begin thousands of requests, and are stopped while they wait.
#[test]
fn requests_that_are_given_up_leave_nothing() {
    within(100, || {
        const PLUGINS: usize = 8;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // Kept until the client goes, and never answered.
                thread::spawn(move || (&connection).read_to_end(&mut Vec::new()));
            }
        });
        let setup = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("timeout_ms", json!(15));
        let compiled = setup.compile();
        let request = json!({"url": url, "method": "POST"});
        let input = format!("{request}\n{}", "x".repeat(1000));
        let (before, began) = (descriptors(), Instant::now());
        let ends = |since: Instant| since.elapsed() > Duration::from_secs(6);
        let (mut timeouts, mut refused, mut most) = (0, 0, 0);
        thread::scope(|scope| {
            let callers = [(); PLUGINS].map(|()| {
                scope.spawn(|| {
                    let plugin = compiled.plugin();
                    let mut ended = [0; 2];
                    while !ends(began) {
                        match plugin.call("send", &input) {
                            Ended { code: 134, .. } => ended[0] += 1,
                            other => {
                                let (code, error) = other.failure();
                                assert!(code == -1 && error.contains("too many earlier requests"), "{error}");
                                ended[1] += 1;
                            }
                        }
                    }
                    ended
                })
            });
            while !ends(began) {
                most = most.max(workers());
                thread::sleep(Duration::from_millis(1));
            }
            for caller in callers {
                let [timed_out, turned_away] = caller.join().unwrap();
                timeouts += timed_out;
                refused += turned_away;
            }
        });
        println!("{timeouts} timeouts, {refused} refused, at most {most} threads");
        // Those that somebody waits for, those that were left, and those that began at the same moment.
        assert!(timeouts > 200 && (1..=32 + 2 * PLUGINS).contains(&most), "{timeouts} {most}");
        let waits = Instant::now();
        while workers() > 0 || descriptors() > before + 16 {
            assert!(waits.elapsed() < Duration::from_secs(10) * slowdown(), "{} {}", workers(), descriptors());
            thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn answers_without_end_are_bounded() {
    within(100, || {
        let server = Server::new(|request| {
            let pause = Duration::ZERO;
            let block = "z".repeat(1 << 16);
            let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            match request.path.as_str() {
                "/body" => Reply::stream("HTTP/1.1 200 OK\r\n\r\n", block, pause),
                "/claimed" => {
                    Reply::stream(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", u64::MAX), block, pause)
                }
                "/chunks" => Reply::stream(chunked, format!("10000\r\n{block}\r\n"), pause),
                "/small-chunks" => Reply::stream(chunked, "1\r\nz\r\n".repeat(1000), pause),
                "/huge-chunk" => Reply::stream(format!("{chunked}ffffffffffffffff\r\n"), block, pause),
                "/headers" => Reply::stream("HTTP/1.1 200 OK\r\n", "x: y\r\n".repeat(1000), pause),
                "/header" => Reply::stream("HTTP/1.1 200 OK\r\nx: ", block, pause),
                "/status" => Reply::stream("HTTP/1.1 200 ", block, pause),
                "/interim" => Reply::stream("", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000), pause),
                "/garbage" => Reply::stream("", block, pause),
                _ => Reply::new(404, ""),
            }
        });
        let memory = json!({"max_http_response_bytes": 1_000_000});
        let setup = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("memory", memory);
        let plugin = setup.with("timeout_ms", json!(5000)).plugin();
        let before = resident_bytes();
        for path in ["/body", "/claimed", "/chunks", "/small-chunks"] {
            fails(&plugin, get(server.url(path)), &["maximum number of bytes: 1000000"]);
        }
        for path in ["/huge-chunk", "/headers", "/header", "/status", "/interim", "/garbage"] {
            let began = Instant::now();
            let (code, error) = plugin.call("send", get(server.url(path))).failure();
            println!("{path}: {code} {error} after {:?}", began.elapsed());
            assert!(code == -1 || code == 134, "{path}: {error}");
        }
        assert!(resident_bytes().saturating_sub(before) < 32 << 20);
        let quick = Server::new(echo);
        assert_eq!(send(&plugin, get(quick.url("/"))).0, 200, "and the plug-in goes on");
    });
}

/// Zeros as gzip has them: about so many bytes, in a hundred-and-sixtieth of them. Its end is missing.
fn zeros(bytes: usize) -> Vec<u8> {
    // The head, and a block with fixed codes; all bits of it in their order, the lowest of a byte first.
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    // A last block, fixed codes; the byte 0; and "258 times what lies 1 byte back", again and again.
    let again = std::iter::repeat_n("1100010100000", bytes / 258);
    let bits: Vec<_> = ["110", "00110000"].into_iter().chain(again).flat_map(str::bytes).collect();
    let byte = |bits: &[u8]| (0..).zip(bits).map(|(at, bit)| (bit - b'0') << at).sum();
    head.into_iter().chain(bits.chunks(8).map(byte)).collect()
}

#[test]
fn what_unpacks_without_end_is_bounded() {
    within(60, || {
        let server = Server::new(|request| {
            let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n";
            match request.path.as_str() {
                // Eight codes have thirteen bytes: from there on it goes on as it did before.
                "/endless" => {
                    let packed = zeros(258 * 8 * 1000);
                    let (begin, rest) = packed.split_at(12);
                    Reply::stream([head, begin].concat(), &rest[..13 * 500], Duration::ZERO)
                }
                // One after the other.
                "/members" => Reply::stream(head, from_base64(super::limits::PACKED[0]).repeat(1000), Duration::ZERO),
                _ => Reply::new(200, zeros(100_000_000)).header("content-encoding", "gzip"),
            }
        });
        let memory = json!({"max_http_response_bytes": 10_000_000});
        let setup = Setup::guest(SEND).with("allowed_hosts", json!(["*"])).with("memory", memory);
        let plugin = setup.with("timeout_ms", json!(20_000 * slowdown())).plugin();
        for path in ["/", "/endless"] {
            let before = resident_bytes();
            fails(&plugin, get(server.url(path)), &["maximum number of bytes: 10000000"]);
            assert!(resident_bytes().saturating_sub(before) < 64 << 20);
        }
        let ended = plugin.call("send", get(server.url("/members")));
        assert!(ended.code == 0 || ended.error.is_some_and(|error| error.contains("maximum")), "{}", ended.code);
    });
}

/// What a manifest names by a URL is the host's own wish, and bounded all the same.
#[test]
fn modules_from_servers() {
    within(60, || {
        let module = extism_tests::guest(r#"(func (export "run") (result i32) (i32.const 3))"#);
        let server = Server::new(move |request| match request.path.as_str() {
            "/module" => Reply::new(200, module.clone()),
            "/moved" => Reply::redirect(302, "/module"),
            "/circle" => Reply::redirect(302, "/circle"),
            "/file" => Reply::redirect(302, "file:///etc/passwd"),
            "/large" => Reply::stream("HTTP/1.1 200 OK\r\n\r\n", "z".repeat(1 << 16), Duration::ZERO),
            "/claims" => Reply::new(200, "short").claiming(1 << 40),
            "/broken" => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"),
            "/packed" => Reply::new(200, zeros(300 << 20)).header("content-encoding", "gzip"),
            "/empty" => Reply::new(200, ""),
            _ => Reply::new(404, ""),
        });
        let make = |entry: Value| Setup::manifest(json!({"wasm": [entry]}));
        let refusal = |path: &str| make(json!({"url": server.url(path)})).refusal();
        for path in ["/module", "/moved"] {
            assert_eq!(make(json!({"url": server.url(path)})).plugin().code("run"), 3);
        }
        assert!(refusal("/circle").contains("more than 10 redirects"));
        assert!(refusal("/file").contains("`file` is not http or https"));
        assert!(refusal("/large").contains("maximum number of bytes: 268435456"));
        assert!(refusal("/packed").contains("maximum number of bytes: 268435456"));
        assert!(refusal("/broken").contains("broke off"));
        assert!(refusal("/empty").contains("empty"));
        assert!(refusal("/none").contains("status 404"));
        for (url, part) in [("file:///etc/passwd", "not http"), ("x", "URL"), ("http://[::1", "URL"), ("", "URL")] {
            assert!(make(json!({"url": url})).refusal().contains(part), "{url}");
        }
        for (name, value) in [("x-a", "b\r\nc: d"), ("x a", "b"), ("host", "evil.example")] {
            let entry = json!({"url": server.url("/module"), "headers": {name: value}});
            assert!(make(entry).refusal().contains("header"), "{name}");
        }
        let entry = json!({"url": server.url("/module"), "method": "GET / HTTP/1.1\r\n"});
        assert!(make(entry).refusal().contains("method"));
        let entry = json!({"url": server.url("/module"), "hash": "00".repeat(32)});
        assert!(make(entry).refusal().contains("hash mismatch"));
    });
}
