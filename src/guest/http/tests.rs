//! Requests to servers of the tests' own, on 127.0.0.1. There is no other traffic.

mod server;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::*;
use server::{Server, receive};

/// "hello gzip" ten times, as gzip makes it (`printf 'hello gzip%.0s' 1 2 3 4 5 6 7 8 9 10 | gzip -n9`).
const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x57, 0x48, 0xaf, 0xca,
    0x2c, 0xc8, 0xa0, 0x19, 0x0b, 0x00, 0xf3, 0x32, 0x4c, 0xb3, 0x64, 0x00, 0x00, 0x00,
];

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn to(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 4\r\n\r\nmove")
}

fn policy(entries: &[&str], max: Option<u64>) -> Arc<Policy> {
    let entries: Vec<_> = entries.iter().map(|text| (*text).to_owned()).collect();
    Arc::new(Policy::new(Some(&entries), max).unwrap())
}

fn here() -> Arc<Policy> {
    policy(&["127.0.0.1"], None)
}

fn request(json: serde_json::Value, body: Option<&str>) -> Request {
    parse_request(json.to_string().as_bytes(), body.map(|body| body.as_bytes().to_vec())).unwrap()
}

fn get(url: &str) -> Request {
    request(serde_json::json!({ "url": url }), None)
}

fn send_free(request: Request, policy: &Arc<Policy>) -> Result<Response, String> {
    match send(request, policy, &Arc::new(Interrupt::new())) {
        Ok(response) => Ok(response),
        Err(Failure::Error(error)) => Err(error.to_string()),
        Err(Failure::Stopped(stopped)) => Err(stopped.to_string()),
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn an_answer() {
    let server = Server::of(|_| {
        "HTTP/1.1 200 OK\r\nX-One: 1\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Bin: \u{e9}\r\n\
         content-length: 5\r\n\r\nhello"
            .to_owned()
    });
    let json = serde_json::json!({"url": server.url("/p?q=1#f"), "method": "post", "headers": {"X-A": "b"}});
    let response = send_free(request(json, Some("body")), &here()).unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, &b"hello"[..]));
    assert_eq!(header(&response, "x-one"), Some("1"));
    assert_eq!(header(&response, "set-cookie"), Some("a=1, b=2"));
    assert_eq!(header(&response, "x-bin"), Some("é"));
    let seen = server.seen().concat();
    assert!(seen.starts_with("POST /p?q=1 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", server.port)), "{seen}");
    assert!(seen.contains("\r\nx-a: b\r\n") && seen.contains("\r\nuser-agent: libextism/"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nbody"), "{seen}");
}

#[test]
fn bodies_of_every_method() {
    let server = Server::of(|_| ok(""));
    for (method, body, length) in [
        ("GET", None, None),
        ("GET", Some("x"), Some("1")),
        ("GET", Some(""), None),
        ("POST", None, Some("0")),
        ("PUT", Some(""), Some("0")),
        ("DELETE", Some("xy"), Some("2")),
        ("DELETE", None, None),
        ("PROPFIND", Some("x"), Some("1")),
    ] {
        let json = serde_json::json!({"url": server.url("/"), "method": method});
        let response = send_free(request(json, body), &here()).unwrap_or_else(|error| panic!("{method}: {error}"));
        assert_eq!(response.status, 200);
        let seen = server.seen().pop().unwrap();
        assert!(seen.starts_with(method), "{seen}");
        assert!(seen.ends_with(&format!("\r\n\r\n{}", body.unwrap_or_default())), "{seen}");
        let found = seen.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(found, length, "{method} {body:?}");
        assert!(!seen.contains("transfer-encoding"), "{seen}");
    }
    let head = serde_json::json!({"url": server.url("/"), "method": "HEAD"});
    assert!(send_free(request(head, None), &here()).unwrap().body.is_empty());
}

#[test]
fn bad_statuses_are_answers() {
    let server =
        Server::of(|path| format!("HTTP/1.1 {} Status\r\ncontent-length: 4\r\n\r\nbody", path.trim_start_matches('/')));
    for status in [400, 404, 500, 503, 302] {
        let response = send_free(get(&server.url(&format!("/{status}"))), &here()).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (status, &b"body"[..]));
    }
}

#[test]
fn user_info_becomes_basic_authorization() {
    let server = Server::of(|_| ok(""));
    send_free(get(&format!("http://user:pw@127.0.0.1:{}/", server.port)), &here()).unwrap();
    assert!(server.seen()[0].contains("authorization: Basic dXNlcjpwdw==\r\n"), "{:?}", server.seen());
}

#[test]
fn redirects_are_followed_ten_times() {
    let server = Server::of(|path| match path.trim_start_matches('/').parse::<u32>() {
        Ok(0) => ok("arrived"),
        Ok(left) => to(302, &format!("/{}", left - 1)),
        Err(_) => to(302, "/loop"),
    });
    assert_eq!(send_free(get(&server.url("/10")), &here()).unwrap().body, b"arrived");
    let error = send_free(get(&server.url("/11")), &here()).unwrap_err();
    assert!(error.contains("/11: more than 10 redirects, the last one to GET http://127.0.0.1"), "{error}");
    assert!(send_free(get(&server.url("/loop")), &here()).unwrap_err().contains("more than 10 redirects"));
}

#[test]
fn redirects_are_checked_again() {
    let server = Server::of(|path| to(302, path.trim_start_matches('/')));
    let port = server.port;
    for (location, expected) in [
        (format!("http://localhost:{port}/"), "is not allowed: host `localhost` is not in allowed_hosts"),
        ("http://169.254.169.254/latest".to_owned(), "host `169.254.169.254` is not in allowed_hosts"),
        ("http://2852039166/".to_owned(), "host `169.254.169.254` is not in allowed_hosts"),
        ("file:///etc/passwd".to_owned(), "`file` is not http or https"),
        ("ftp://127.0.0.1/".to_owned(), "`ftp` is not http or https"),
        ("http://[".to_owned(), "redirects to something that is not a URL"),
    ] {
        let error = send_free(get(&server.url(&format!("/{location}"))), &here()).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let anywhere = policy(&["*"], None);
    let error = send_free(get(&server.url("/http://169.254.169.254/latest")), &anywhere).unwrap_err();
    assert!(error.starts_with("HTTP request to http://169.254.169.254/latest is not allowed: "), "{error}");
    assert_eq!(server.seen().len(), 7);
}

#[test]
fn secrets_stay_with_their_origin() {
    let other = Server::of(|_| ok("there"));
    let target = other.url("/there");
    let server = Server::of(move |path| if path == "/same" { to(307, "/cross") } else { to(307, &target) });
    let url = format!("http://user:pw@127.0.0.1:{}/same", server.port);
    let headers = serde_json::json!({"Cookie": "secret", "X-Api-Key": "secret", "Accept": "x/y"});
    let json = serde_json::json!({"url": url, "method": "POST", "headers": headers});
    assert_eq!(send_free(request(json, Some("body")), &here()).unwrap().body, b"there");
    for seen in server.seen() {
        assert!(seen.contains("authorization: Basic") && seen.matches("secret").count() == 2, "{seen}");
    }
    assert_eq!(server.seen().len(), 2);
    let seen = other.seen().concat();
    assert!(!seen.contains("secret") && !seen.contains("authorization"), "{seen}");
    assert!(seen.contains("accept: x/y") && seen.starts_with("POST") && seen.ends_with("body"), "{seen}");
}

#[test]
fn a_refused_host_is_not_asked() {
    let server = Server::of(|_| ok(""));
    let url = format!("http://user:pw@127.0.0.1:{}/x?token=1", server.port);
    let refused = format!("HTTP request to http://127.0.0.1:{}/x?... is not allowed", server.port);
    let error = send_free(get(&url), &policy(&["example.com"], None)).unwrap_err();
    assert_eq!(error, format!("{refused}: host `127.0.0.1` is not in allowed_hosts"));
    assert!(send_free(get(&url), &Arc::new(Policy::new(None, None).unwrap())).unwrap_err().starts_with(&refused));
    assert!(server.seen().is_empty());
}

#[test]
fn numbers_and_names_lead_to_the_host_that_was_checked() {
    let server = Server::of(|_| ok(""));
    for host in ["2130706433", "0177.0.0.1", "127.1", "0x7f000001"] {
        send_free(get(&format!("http://{host}:{}/", server.port)), &here()).unwrap();
        assert!(server.seen().pop().unwrap().contains("\r\nhost: 127.0.0.1:"), "{host}");
    }
    send_free(get(&format!("http://LOCALHOST:{}/", server.port)), &policy(&["localhost"], None)).unwrap();
}

#[test]
fn ipv6_works() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            receive(&mut stream);
            stream.write_all(ok("six").as_bytes()).unwrap();
        }
    });
    for entry in ["::1", "[::1]", "*"] {
        let response = send_free(get(&format!("http://[::1]:{port}/")), &policy(&[entry], None));
        assert_eq!(response.unwrap().body, b"six");
    }
}

/// A name server that says something else each time: the address of this machine at first, then a metadata service.
fn rebinding(_: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let address = if ASKED.fetch_add(1, Ordering::SeqCst) == 0 { [127, 0, 0, 1] } else { [169, 254, 169, 254] };
    Ok(vec![SocketAddr::from((address, port))])
}

/// One whose names have a metadata service among their addresses, or nothing but it.
fn mixed(name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let here = (name.trim_end_matches('.') != "metadata.example").then(|| SocketAddr::from(([127, 0, 0, 1], port)));
    Ok([SocketAddr::from(([169, 254, 169, 254], port))].into_iter().chain(here).collect())
}

fn with_names(entries: &[&str], names: resolver::Names) -> Arc<Policy> {
    let mut policy = Arc::into_inner(policy(entries, None)).unwrap();
    policy.names = names;
    Arc::new(policy)
}

#[test]
fn an_answer_that_changes_after_the_check_changes_nothing() {
    let server = Server::of(|_| ok("here"));
    let policy = with_names(&["*"], rebinding);
    let url = format!("http://rebind.example:{}/", server.port);
    // Were the name looked up once more to connect, nobody would answer there.
    assert_eq!(send_free(get(&url), &policy).unwrap().body, b"here");
    let error = send_free(get(&url), &policy).unwrap_err();
    assert!(error.contains("is not allowed: 169.254.169.254 is a link-local or cloud metadata address"), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn addresses_that_are_refused_are_not_connected_to() {
    let server = Server::of(|path| if path == "/away" { to(302, "http://metadata.example/") } else { ok("here") });
    let port = server.port;
    let url = |name: &str, path: &str| format!("http://{name}:{port}{path}");
    let anywhere = with_names(&["*"], mixed);
    assert_eq!(send_free(get(&url("some.example", "/")), &anywhere).unwrap().body, b"here");
    for (name, path) in [("metadata.example", "/"), ("METADATA.example.", "/"), ("some.example", "/away")] {
        let error = send_free(get(&url(name, path)), &anywhere).unwrap_err();
        assert!(error.contains("is not allowed: 169.254.169.254 is a link-local"), "{name}{path}: {error}");
    }
    let other = with_names(&["*.example"], mixed);
    assert!(send_free(get(&url("metadata.example", "/")), &other).unwrap_err().contains("is not allowed"));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn gzip_is_decoded_within_the_bound() {
    let server = Server::new(|_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", GZIP.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(GZIP).unwrap();
    });
    let url = server.url("/");
    let response = send_free(get(&url), &policy(&["127.0.0.1"], Some(100))).unwrap();
    assert_eq!(response.body, b"hello gzip".repeat(10));
    let error = send_free(get(&url), &policy(&["127.0.0.1"], Some(99))).unwrap_err();
    assert!(error.ends_with("HTTP response exceeds the configured maximum number of bytes: 99"), "{error}");
}

#[test]
fn sizes_are_bounded() {
    let server = Server::new(|path, stream| {
        if path == "/endless" {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
            return;
        }
        if path == "/head" {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
            while stream.write_all(b"x: y\r\n").is_ok() {}
            return;
        }
        let size: usize = path.trim_start_matches('/').parse().unwrap();
        drop(stream.write_all(ok(&"x".repeat(size)).as_bytes()));
    });
    let bounded = policy(&["127.0.0.1"], Some(100));
    assert_eq!(send_free(get(&server.url("/100")), &bounded).unwrap().body.len(), 100);
    for path in ["/101", "/endless"] {
        let error = send_free(get(&server.url(path)), &bounded).unwrap_err();
        assert!(error.ends_with("HTTP response exceeds the configured maximum number of bytes: 100"), "{error}");
    }
    assert!(send_free(get(&server.url("/head")), &bounded).is_err());
    assert!(send_free(get(&server.url("/1")), &policy(&["127.0.0.1"], Some(0))).is_err());
    assert!(send_free(get(&server.url("/0")), &policy(&["127.0.0.1"], Some(0))).is_ok());
}

#[test]
fn an_answer_that_breaks_off_is_an_error() {
    let server = Server::of(|_| "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nshort".to_owned());
    let error = send_free(get(&server.url("/x")), &here()).unwrap_err();
    assert!(error.starts_with("GET http://127.0.0.1:") && error.contains("/x: the answer broke off"), "{error}");
    let nonsense = Server::of(|_| "SSH-2.0-x\r\n\r\n".to_owned());
    assert!(send_free(get(&nonsense.url("/")), &here()).is_err());
    assert!(send_free(get("http://127.0.0.1:1/"), &here()).unwrap_err().contains("refused"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.accept().unwrap().0.write_all(b"this is not TLS\n"));
    let error = send_free(get(&format!("https://127.0.0.1:{port}/")), &here()).unwrap_err();
    assert!(error.starts_with("GET https://127.0.0.1:"), "{error}");
}

/// A server that says one more byte now and then, for ever; or nothing at all.
fn slow() -> Server {
    Server::new(|path, stream| {
        if path == "/drip" {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"));
        } else if path == "/drip-head" {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nx: "));
        }
        while path == "/silent" || stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn a_deadline_ends_the_wait() {
    let server = slow();
    for path in ["/silent", "/drip", "/drip-head"] {
        let interrupt = Arc::new(Interrupt::new());
        let start = Instant::now();
        interrupt.begin(Some(start + Duration::from_millis(200)));
        let failed = send(get(&server.url(path)), &here(), &interrupt);
        assert!(matches!(failed, Err(Failure::Stopped(Stopped::Timeout))), "{path}: {failed:?}");
        assert!((200..2000).contains(&start.elapsed().as_millis()), "{path}: {:?}", start.elapsed());
    }
}

#[test]
fn a_deadline_far_away_is_no_trouble() {
    let server = Server::of(|_| ok("soon"));
    let interrupt = Arc::new(Interrupt::new());
    interrupt.begin(Some(Instant::now() + Duration::from_secs(500 * 365 * 86_400)));
    assert_eq!(send(get(&server.url("/")), &here(), &interrupt).unwrap().body, b"soon");
}

#[test]
fn a_cancel_ends_the_wait_and_the_worker() {
    let server = slow();
    let (interrupt, policy) = (Arc::new(Interrupt::new()), here());
    interrupt.begin(None);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            interrupt.cancel()
        });
        let failed = send(get(&server.url("/silent")), &policy, &interrupt);
        assert!(matches!(failed, Err(Failure::Stopped(Stopped::Cancelled))), "{failed:?}");
    });
    assert!(start.elapsed() < Duration::from_secs(2));
    // The connection was closed under the worker, so it ends long before its time and lets go of everything.
    while Arc::strong_count(&policy) > 1 || Arc::strong_count(&interrupt) > 1 {
        assert!(start.elapsed() < Duration::from_secs(10), "the worker did not end");
        thread::sleep(Duration::from_millis(10));
    }
    interrupt.end();
    interrupt.begin(None);
    assert!(interrupt.cancel());
    assert!(matches!(send(get(&server.url("/")), &policy, &interrupt), Err(Failure::Stopped(Stopped::Cancelled))));
    assert!(server.seen().len() < 2);
}

/// Whether names are still being looked up.
static LOOKING_UP: AtomicBool = AtomicBool::new(true);

/// A name server that takes its time.
fn slow_names(_: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
    while LOOKING_UP.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Vec::new())
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Looking up a name cannot be interrupted. Those who are left with that are few, and keep nothing.
#[test]
fn what_is_left_behind_is_bounded() {
    let policy = with_names(&["*"], slow_names);
    let before = resident_bytes();
    let mut ends = [0; 2];
    for _ in 0..100 {
        let body = "x".repeat(8 << 20);
        let request = request(serde_json::json!({"url": "http://slow.example/", "method": "POST"}), Some(&body));
        drop(body);
        let interrupt = Arc::new(Interrupt::new());
        interrupt.begin(Some(Instant::now() + Duration::from_millis(5)));
        match send(request, &policy, &interrupt) {
            Err(Failure::Stopped(Stopped::Timeout)) => ends[0] += 1,
            Err(Failure::Error(error)) => {
                assert!(error.to_string().contains("too many earlier requests"), "{error}");
                ends[1] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let more = resident_bytes().saturating_sub(before);
    // On a busy machine a request may end before its worker begins, which leaves nobody behind.
    let left = policy.leftovers.count();
    assert!(left <= 32 && ends[1] > 0, "{left} are left, {ends:?}");
    assert!(more < 100 << 20, "{} MiB", more >> 20);
    LOOKING_UP.store(false, Ordering::Relaxed);
    let began = Instant::now();
    while Arc::strong_count(&policy) > 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "the workers did not end");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        matches!(send(get("http://slow.example/"), &policy, &Arc::new(Interrupt::new())), Err(Failure::Error(error)) if error.to_string().ends_with("the host has no address"))
    );
}

#[test]
fn without_a_deadline_there_is_a_limit() {
    let server = slow();
    let short = Duration::from_millis(200);
    let failed = worker::run(get(&server.url("/silent")), &here(), &Arc::new(Interrupt::new()), short);
    let Err(Failure::Error(error)) = failed else { panic!("{failed:?}") };
    assert!(error.to_string().ends_with("/silent: no answer within 200ms"), "{error}");
}

#[test]
fn downloads_have_bounds() {
    assert_eq!((DOWNLOAD, MAX_DOWNLOAD_BYTES), (Duration::from_secs(60), 256 * 1024 * 1024));
    assert_eq!(WITHOUT_DEADLINE, Duration::from_secs(30));
    let none = BTreeMap::new();
    let slow = slow();
    let short = Duration::from_millis(200);
    for path in ["/silent", "/drip", "/drip-head"] {
        let start = Instant::now();
        let error = download_within(&slow.url(path), None, &none, short, 1000).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{path}: no answer within 200ms")), "{error}");
        assert!((200..2000).contains(&start.elapsed().as_millis()), "{path}: {:?}", start.elapsed());
    }
    let large = Server::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let long = Duration::from_secs(20);
    let error = download_within(&large.url("/"), None, &none, long, 100_000).unwrap_err().to_string();
    assert!(error.ends_with("HTTP response exceeds the configured maximum number of bytes: 100000"), "{error}");
    let packed = Server::new(|_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", GZIP.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(GZIP).unwrap();
    });
    assert!(download_within(&packed.url("/"), None, &none, long, 99).unwrap_err().to_string().ends_with("bytes: 99"));
    let circle = Server::of(|_| to(302, "/"));
    let error = download_within(&circle.url("/"), None, &none, long, 99).unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn downloads_for_manifests() {
    let server = Server::of(|path| match path {
        "/module" => ok("bytes"),
        "/moved" => to(302, "/module"),
        "/away" => to(302, "file:///etc/passwd"),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
    });
    let none = BTreeMap::new();
    assert_eq!(download(&server.url("/module"), None, &none).unwrap(), b"bytes");
    let headers = BTreeMap::from([("X-A".to_owned(), "b".to_owned())]);
    assert_eq!(download(&server.url("/moved"), Some("POST"), &headers).unwrap(), b"bytes");
    assert!(server.seen()[1].starts_with("POST /moved") && server.seen()[1].contains("x-a: b"));
    let error = |url: &str| download(url, None, &none).unwrap_err().to_string();
    assert!(error(&server.url("/none")).ends_with("/none: the server answered with status 404"));
    assert!(error(&server.url("/away")).contains("`file` is not http or https"));
    assert!(error("/module").contains("the URL is not valid"));
    assert!(error("file:///etc/passwd").contains("`file` is not http or https"));
}
