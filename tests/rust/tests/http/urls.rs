//! Requests that are meant to reach what they may not: addresses in every spelling, URLs that mislead, injected lines.

use std::collections::BTreeMap;

use extism_tests::{Reply, Server, json, within};

use super::client::{client, echo, fails, get, local, send};

/// Ways to write the address of a metadata service. None of them may be asked with `*`, and none of them is by an
/// entry for something else.
const METADATA: [&str; 26] = [
    "169.254.169.254",
    "169.254.169.254.",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "025177524776",
    "169.254.43518",
    "169.16689662",
    "0xa9.254.0251.254",
    "%31%36%39.254.169.254",
    "１６９.２５４.１６９.２５４",
    "169。254。169。254",
    "user:password@169.254.169.254",
    "example.com@169.254.169.254",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[::a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::169.254.169.254]",
    "[2002:a9fe:a9fe::1]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "100.100.100.200",
];

#[test]
fn metadata_in_every_spelling() {
    within(60, || {
        let server = Server::new(|request| Reply::redirect(302, format!("http://{}/latest", &request.path[1..])));
        for host in METADATA {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}/latest");
                fails(&client(&["*"]), get(&url), &["not allowed", "metadata"]);
                fails(&client(&["*", "example.com", "169.254.169.*"]), get(&url), &["not allowed"]);
            }
            fails(&local(), get(format!("http://{host}/")), &["not allowed", "allowed_hosts"]);
            if host.is_ascii() {
                // By a redirect as well.
                let url = server.url(&format!("/{host}"));
                assert_eq!(local().call("send", get(&url)).code, -1, "{host}");
                fails(&client(&["*"]), get(&url), &["not allowed"]);
            }
        }
        // An address with a zone is none.
        for host in ["[fe80::1%25eth0]", "[fe80::1%eth0]"] {
            fails(&client(&["*"]), get(format!("http://{host}/")), &["URL"]);
        }
    });
}

/// URLs that look as if they led to one host, and lead to another.
#[test]
fn urls_that_mislead() {
    within(60, || {
        let server = Server::new(echo);
        let port = server.port();
        let here = format!("127.0.0.1:{port}");
        for url in [
            format!("http://good.example@{here}/"),
            format!("http://good.example:80@{here}/"),
            format!("http://good.example%2f@{here}/"),
            format!("http://good.example%00@{here}/"),
            format!("http://good.example\t@{here}/"),
            format!("http:\\\\{here}\\x"),
            format!("http:/{here}/"),
            format!("http:{here}/"),
            format!("\u{1}\u{20}http://{here}/"),
            format!("HTTP://{here}/"),
            format!("http://{here}#@good.example/"),
            format!("http://{here}?@good.example/"),
            format!("http://{here}\\@good.example/"),
            format!("http://127.0.0.1.:{port}/"),
            format!("http://0x7f.1:{port}/"),
            format!("http://0177.0.0.1:{port}/"),
            format!("http://2130706433:{port}/"),
            format!("http://127.1:{port}/"),
            format!("http://%31%32%37.0.0.1:{port}/"),
            format!("http://１２７.0.0.1:{port}/"),
            format!("http://127。0。0。1:{port}/"),
            format!("ht\ntp://127.0\r.0.1:{port}/"),
            format!("http://127.0.0.1:0{port}/"),
        ] {
            fails(&client(&["good.example", "*.good.example"]), get(&url), &["not allowed", "`127.0.0.1`"]);
            assert_eq!(send(&local(), get(&url)).0, 200, "{url}");
        }
        let requests = server.requests();
        assert_eq!(requests.len(), 23);
        assert!(requests.iter().all(|request| request.headers["host"] == here), "{requests:?}");
        for url in [
            "http://",
            "http://:80/",
            "http://@/",
            "http://a b/",
            "http://a<b/",
            "http://[::1/",
            "http://::1/",
            "http://[127.0.0.1]/",
            "http://1.2.3.4.5/",
            "http://256.256.256.256/",
            "http://0xffffffff1/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1:-1/",
            "http://127.0.0.1:8o/",
            "http://good.example%00.evil.example/",
            "http://good.example\0.evil.example/",
            "http://xn--/",
            "//127.0.0.1/",
            "127.0.0.1/",
            "javascript:alert(1)",
            "data:text/plain,x",
            "file:///etc/passwd",
            "file://127.0.0.1/etc/passwd",
            "ftp://127.0.0.1/",
            "gopher://127.0.0.1:70/_x",
            "unix:/run/x",
            "ws://127.0.0.1/",
            "jar:http://127.0.0.1!/x",
        ] {
            let (code, error) = client(&["*"]).call("send", get(url)).failure();
            assert!(code == -1 && (error.contains("URL") || error.contains("not allowed")), "{url}: {error}");
        }
    });
}

#[test]
fn names_in_other_scripts_are_compared_as_they_are_asked() {
    within(30, || {
        for (entry, host, allowed) in [
            ("bücher.example", "xn--bcher-kva.example", true),
            ("xn--bcher-kva.example", "b%C3%BCcher.example", true),
            ("example.com", "example。com", true),
            ("example.com", "ⓔxample.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("example.com", "еxample.com", false), // a Cyrillic letter
            ("example.com", "example.com..", false),
            ("example.com", ".example.com", false),
            ("*.example.com", "example.com.", false),
            ("example.com", "example.com.evil.example", false),
        ] {
            let (code, error) = client(&[entry]).call("send", get(format!("http://{host}:1/"))).failure();
            assert_eq!(code, -1);
            // Where it may be asked, it is: there is just nobody.
            assert_eq!(!error.contains("not allowed") && !error.contains("URL"), allowed, "{entry} {host}: {error}");
        }
    });
}

#[test]
fn nothing_is_injected() {
    within(60, || {
        let server = Server::new(echo);
        let plugin = local();
        let url = server.url("/");
        for bad in ["\r\nX-Evil: 1", "\nX-Evil: 1", "\rX-Evil: 1", "\0", "\x0b", "\x7f"] {
            let value = json!({"url": url, "headers": {"x-a": format!("b{bad}")}});
            fails(&plugin, value.to_string(), &["control character"]);
            let name = json!({"url": url, "headers": {format!("x-a{bad}"): "b"}});
            fails(&plugin, name.to_string(), &["cannot be the name"]);
            let method = json!({"url": url, "method": format!("GET{bad}")});
            fails(&plugin, method.to_string(), &["is not a method"]);
        }
        for name in ["x a", "x:a", "x\u{e9}", "", " x", "x ", "(x)", "x\u{2028}"] {
            let request = json!({"url": url, "headers": {name: "b"}});
            fails(&plugin, request.to_string(), &["cannot be the name"]);
        }
        for method in ["GET /x HTTP/1.1\r\nHost: evil\r\n\r\n", "GET ", "", "G(T", "GÉT", "connect", "CONNECT"] {
            let request = json!({"url": url, "method": method});
            fails(&plugin, request.to_string(), &["method"]);
        }
        assert!(server.requests().is_empty());
        // In the URL they are removed or encoded, and end no line.
        for url in [
            server.url("/x\r\nX-Evil: 1"),
            server.url("/x?a=\r\nX-Evil: 1"),
            server.url("/x HTTP/1.1\r\nX-Evil: 1\r\n"),
            server.url("/%0d%0aX-Evil:%201"),
            url.replace("http://", "http://us%0d%0aX-Evil: 1:pass\r\nX-Evil: 1@"),
            server.url("/x#\r\nX-Evil: 1"),
        ] {
            assert_eq!(send(&plugin, get(&url)).0, 200, "{url}");
        }
        let requests = server.requests();
        assert_eq!(requests.len(), 6);
        for request in requests {
            assert!(!request.headers.contains_key("x-evil"), "{request:?}");
        }
        // Headers that say where a request ends, or whom it is for, are the library's.
        let headers = json!({
            "Content-Length": "3", "Transfer-Encoding": "chunked", "Connection": "x-a", "TE": "trailers",
            "Upgrade": "h2c", "Proxy-Connection": "x", "Proxy-Authorization": "x", "Expect": "100-continue", "X-A": "y",
        });
        let request = json!({"url": url, "method": "POST", "headers": headers});
        assert_eq!(send(&plugin, format!("{request}\nGET /smuggled HTTP/1.1\r\n\r\n")).0, 200);
        let last = server.requests().pop().expect("a request");
        assert_eq!((last.headers["content-length"].as_str(), last.headers["x-a"].as_str()), ("26", "y"));
        for name in ["transfer-encoding", "te", "upgrade", "proxy-connection", "proxy-authorization", "expect"] {
            assert!(!last.headers.contains_key(name), "{name}: {last:?}");
        }
    });
}

#[test]
fn a_host_header_names_no_other_site() {
    within(30, || {
        let server = Server::new(echo);
        let plugin = local();
        let port = server.port();
        for host in ["evil.example", "127.0.0.2", "localhost", "127.0.0.1:1", "x@127.0.0.1", "127.0.0.1/x", "", "::1"] {
            for name in ["Host", "host", "HOST"] {
                let request = json!({"url": server.url("/"), "headers": {name: host}});
                fails(&plugin, request.to_string(), &["host", "another host"]);
            }
        }
        assert!(server.requests().is_empty());
        for host in [format!("127.0.0.1:{port}"), "127.0.0.1".to_owned(), format!("0x7f.1:{port}")] {
            let request = json!({"url": server.url("/"), "headers": {"Host": host}});
            assert_eq!(send(&plugin, request.to_string()).0, 200);
        }
        assert!(server.requests().iter().all(|request| request.headers["host"] == format!("127.0.0.1:{port}")));
    });
}

#[test]
fn more_headers_than_a_request_can_have() {
    within(30, || {
        let server = Server::new(echo);
        let plugin = local();
        let request = |count: usize| {
            let headers: BTreeMap<_, _> = (0..count).map(|n| (format!("h{n}"), json!(""))).collect();
            json!({"url": server.url("/"), "headers": headers}).to_string()
        };
        fails(&plugin, request(60_000), &["too many headers"]);
        assert_eq!(send(&plugin, request(500)).0, 200);
        assert_eq!(server.request().headers.keys().filter(|name| name.starts_with('h')).count(), 501);
    });
}
