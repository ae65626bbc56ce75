//! An HTTP server on this machine, for one test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::process::CHILD;

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
    /// As many bytes as `content-length` says.
    pub body: Vec<u8>,
}

/// What the server answers.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
    silent: bool,
    stream: Option<Stream>,
}

/// Bytes as they are, and then others again and again.
struct Stream {
    head: Vec<u8>,
    piece: Vec<u8>,
    pause: Duration,
}

impl Reply {
    /// With this status and body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), length: None, silent: false, stream: None }
    }

    /// A redirect.
    pub fn redirect(status: u16, to: impl Into<String>) -> Self {
        Self::new(status, "").header("location", to)
    }

    /// None at all: the connection stays open until the client closes it.
    pub fn never() -> Self {
        Self { silent: true, ..Self::new(200, "") }
    }

    /// These bytes as they are, status line and all, and the connection ends.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::stream(bytes, "", Duration::ZERO)
    }

    /// These bytes as they are, and then the piece again and again, with a pause before each, until the client goes.
    pub fn stream(head: impl Into<Vec<u8>>, piece: impl Into<Vec<u8>>, pause: Duration) -> Self {
        let stream = Stream { head: head.into(), piece: piece.into(), pause };
        Self { stream: Some(stream), ..Self::new(200, "") }
    }

    /// One more header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Claims another length than the body has; the connection stays open if there is more to come.
    pub fn claiming(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }
}

/// A server that answers with what a closure makes of a request. It ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    ends: Arc<AtomicBool>,
}

impl Server {
    /// A server on a port of the system's choice.
    pub fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let address = listener.local_addr().expect("the address of a listener");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (kept, stop, answer) = (Arc::clone(&requests), Arc::clone(&ends), Arc::new(answer));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                thread::spawn(move || serve(connection, &kept, &*answer));
            }
        });
        Self { address, requests, ends }
    }

    /// A URL of this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests that came so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("the list of requests").clone()
    }

    /// The only request that came.
    pub fn request(&self) -> Request {
        let [request] = <[_; 1]>::try_from(self.requests()).expect("one request");
        request
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut connection: TcpStream, kept: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) -> Option<()> {
    let mut request = read(&connection)?;
    if request.method == "CONNECT" {
        // As a proxy, with whatever the client wants to reach at its other end.
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
        request = read(&connection)?;
    }
    kept.lock().ok()?.push(request.clone());
    let reply = answer(&request);
    if let Some(stream) = reply.stream {
        connection.write_all(&stream.head).ok()?;
        while !stream.piece.is_empty() {
            thread::sleep(stream.pause);
            connection.write_all(&stream.piece).ok()?;
        }
        return Some(());
    }
    if !reply.silent {
        let length = reply.length.unwrap_or(reply.body.len() as u64);
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        connection.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        if request.method != "HEAD" {
            connection.write_all(&reply.body).ok()?;
        }
        if length <= reply.body.len() as u64 {
            return Some(());
        }
    }
    // Until the client goes.
    connection.read_to_end(&mut Vec::new()).ok()?;
    Some(())
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// The proxies of the environment are not for servers of this machine; those that a test gives to its child are meant.
/// Runs before `main`, as long as there is one thread: the environment cannot be changed safely later.
#[used]
#[unsafe(link_section = ".init_array")]
static WITHOUT_PROXY: extern "C" fn() = without_proxy;

extern "C" fn without_proxy() {
    // SAFETY: a NUL-terminated name.
    if !unsafe { libc::getenv(CHILD.as_ptr()) }.is_null() {
        return;
    }
    for name in [c"ALL_PROXY", c"all_proxy", c"HTTPS_PROXY", c"https_proxy", c"HTTP_PROXY", c"http_proxy"] {
        // SAFETY: there is one thread, and nothing has read the environment yet.
        unsafe { libc::unsetenv(name.as_ptr()) };
    }
}
