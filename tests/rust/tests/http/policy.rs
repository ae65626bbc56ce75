//! Where a plug-in may go: hosts, redirects, proxies.

use extism_tests::{Reply, Server, Setup, in_child, json, within};

use super::client::{SEND, client, echo, fails, get, local, send};

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
fn proxies_of_the_environment_are_used() {
    let proxy = Server::new(|request| match request.headers["host"].as_str() {
        "away.example" => Reply::redirect(302, "http://2852039166/latest"),
        host => Reply::new(200, format!("{host} by proxy")),
    });
    let server = Server::new(echo);
    let environment = [("HTTP_PROXY", &*proxy.url("")), ("NO_PROXY", "127.0.0.1"), ("DIRECT", &*server.url("/"))];
    in_child("policy::proxies_of_the_environment_are_used", &environment, || {
        let plugin = client(&["example.com", "127.0.0.1"]);
        let (status, body) = send(&plugin, get("http://example.com/path"));
        assert_eq!((status, &*String::from_utf8_lossy(&body)), (200, "example.com by proxy"));
        fails(&plugin, get("http://other.example/"), &["not allowed"]);
        // Addresses that stand in a URL are checked before the proxy is asked, also after a redirect.
        for url in ["http://169.254.169.254/", "http://[fe80::1]/", "http://away.example/"] {
            fails(&client(&["*"]), get(url), &["not allowed", "metadata"]);
        }
        let direct = send(&plugin, get(std::env::var("DIRECT").unwrap()));
        assert_eq!(direct, (200, b"GET / ".to_vec()));
    });
}
