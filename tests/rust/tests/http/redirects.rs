//! Redirects that are meant to lead where a request may not go, or to take secrets along.

use std::collections::BTreeMap;

use extism_tests::{Reply, Server, json, within};

use super::client::{client, echo, fails, get, local, send};

#[test]
fn redirects_lead_only_where_a_request_may() {
    within(60, || {
        let secret = Server::new(|_| Reply::new(200, "secret"));
        let port = secret.port();
        let targets = [
            format!("http://localhost:{port}/"),
            format!("http://user@localhost:{port}/"),
            format!("http://127.0.0.1@localhost:{port}/"),
            format!("http:\\\\localhost:{port}"),
            format!("\\\\localhost:{port}/x"),
            format!("//localhost:{port}/"),
            format!("https://localhost:{port}/"),
            format!("http://127.0.0.2:{port}/"),
            format!("http://0x7f000002:{port}/"),
            format!("http://[::1]:{port}/"),
            format!("http://[::ffff:127.0.0.2]:{port}/"),
            "http://169.254.169.254/latest".to_owned(),
            "http://2852039166/latest".to_owned(),
            "file:///etc/passwd".to_owned(),
            "FILE:/etc/passwd".to_owned(),
            "ftp://127.0.0.1/".to_owned(),
            "data:text/plain,secret".to_owned(),
            "javascript:alert(1)".to_owned(),
            "unix:/run/x".to_owned(),
            "http://".to_owned(),
            "http://[".to_owned(),
            "http://a:b:c/".to_owned(),
        ];
        for status in [301, 302, 303, 307, 308] {
            let here = targets.clone();
            let server = Server::new(move |request| {
                let target: usize = request.path[1..].parse().expect("a number");
                Reply::redirect(status, here[target].clone())
            });
            for (index, target) in targets.iter().enumerate() {
                let (code, error) = local().call("send", get(server.url(&format!("/{index}")))).failure();
                assert!(
                    code == -1 && (error.contains("not allowed") || error.contains("redirect")),
                    "{target}: {error}"
                );
            }
        }
        assert!(secret.requests().is_empty());
    });
}

#[test]
fn locations_that_are_none() {
    within(30, || {
        let server = Server::new(|request| {
            let head = "HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\n";
            Reply::raw(match request.path.as_str() {
                "/injects" => format!("{head}location: /end\rX-Evil: 1\r\n\r\n"),
                "/bytes" => return Reply::raw([head.as_bytes(), b"location: /\xff\xfe\r\n\r\n"].concat()),
                "/two" => format!("{head}location: /end\r\nlocation: http://localhost/\r\n\r\n"),
                "/long" => format!("{head}location: /{}\r\n\r\n", "x".repeat(1 << 20)),
                "/empty" => format!("{head}location:\r\n\r\n"),
                "/none" => format!("{head}\r\n"),
                _ => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nend".to_owned(),
            })
        });
        let plugin = local();
        fails(&plugin, get(server.url("/injects")), &["GET http://127.0.0.1"]);
        fails(&plugin, get(server.url("/bytes")), &["not a URL"]);
        fails(&plugin, get(server.url("/long")), &["GET http://127.0.0.1"]);
        fails(&plugin, get(server.url("/empty")), &["more than 10 redirects"]);
        assert_eq!(send(&plugin, get(server.url("/two"))), (200, b"end".to_vec()));
        assert_eq!(send(&plugin, get(server.url("/none"))), (302, vec![]));
        assert!(server.requests().iter().all(|request| !request.headers.contains_key("x-evil")));
    });
}

#[test]
fn secrets_stay_behind_whatever_differs() {
    within(30, || {
        let other = Server::new(echo);
        let targets = [
            other.url("/port"),
            format!("http://localhost:{}/name", other.port()),
            format!("http://user:password@127.0.0.1:{}/user", other.port()),
        ];
        let first = Server::new(move |request| match request.path[1..].parse::<usize>() {
            Ok(target) => Reply::redirect(307, targets[target].clone()),
            // Over the same origin, twice.
            Err(_) => Reply::redirect(308, format!("/{}", request.path.trim_start_matches("/via/"))),
        });
        let secret = ["Authorization", "Cookie", "X-Api-Key", "X-Amz-Security-Token", "Referer", "Origin", "Forwarded"];
        let headers: BTreeMap<_, _> = secret.iter().map(|name| ((*name).to_owned(), json!("secret"))).collect();
        let plugin = client(&["127.0.0.1", "localhost"]);
        for target in 0..3 {
            for path in [format!("/{target}"), format!("/via/{target}")] {
                let request = json!({"url": first.url(&path), "method": "POST", "headers": headers});
                assert_eq!(send(&plugin, format!("{request}\nbody")).0, 200, "{path}");
            }
        }
        for request in other.requests() {
            let text = format!("{:?}", request.headers);
            assert!(!text.contains("secret") && request.body == b"body", "{request:?}");
            // Credentials that stand in the new URL itself are for the new server.
            assert_eq!(request.headers.contains_key("authorization"), request.path == "/user", "{request:?}");
        }
        assert_eq!(other.requests().len(), 6);
        assert!(first.requests().iter().all(|request| request.headers["x-api-key"] == "secret"));
    });
}
