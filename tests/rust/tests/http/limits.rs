//! What a request may bring back, and how long it may take.

use std::time::{Duration, Instant};

use extism_tests::{Reply, Server, Setup, from_base64, json, slowdown, within};

use super::client::{SEND, fails, get, local, send};

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

/// "hello, gzip", and 200,000 zeros.
pub const PACKED: [&str; 2] = [
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
