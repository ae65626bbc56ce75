//! What a plug-in asks for, checked.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use ureq::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ureq::http::{Method, StatusCode};
use url::Url;

use crate::error::{Error, Result};

/// Headers that belong to the connection, not to the request: the library writes those that are needed itself,
/// and what a plug-in gives for them is left out.
const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

/// Headers that may go on to another origin: they say what is sent and what is understood, not who asks.
const HARMLESS: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::USER_AGENT,
];

/// Headers that speak of a body.
const OF_A_BODY: [HeaderName; 4] =
    [header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_LOCATION, header::CONTENT_TYPE];

/// A request that can be sent as it is.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// The bytes that go with a request. Clones share them, and one that gives them up takes them from all: a request that
/// nobody waits for any more keeps no memory, however long it still lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    length: usize,
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Body {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len(), bytes: Arc::new(Mutex::new(Some(bytes))) }
    }

    /// How many bytes it has, or had.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Lets go of the bytes. Whoever sends them gets no further.
    pub(super) fn give_up(&self) {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not under the lock: it may be much to unmap.
        drop(bytes);
    }

    /// Reads it from its beginning.
    pub(super) fn reader(&self) -> impl io::Read + 'static {
        BodyReader { body: self.clone(), at: 0 }
    }
}

struct BodyReader {
    body: Body,
    at: usize,
}

impl io::Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.body.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.as_deref().ok_or_else(|| io::Error::other("the request was given up on"))?;
        let mut rest = bytes.get(self.at..).unwrap_or_default();
        let count = io::Read::read(&mut rest, into)?;
        self.at += count;
        Ok(count)
    }
}

/// The JSON that guests give to `http_request`. Null means absent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `url`, `headers` and `method`")]
struct Fields {
    url: String,
    headers: Option<BTreeMap<String, String>>,
    method: Option<String>,
}

/// Reads `{"url", "headers", "method"}`; `method` is GET if absent.
pub(crate) fn parse_request(json: &[u8], body: Option<Vec<u8>>) -> Result<Request> {
    let fields: Fields = serde_json::from_slice(json)
        .map_err(|error| Error::new(format!("http_request: the request is not valid JSON for it: {error}")))?;
    let headers = fields.headers.unwrap_or_default();
    Request::new(&fields.url, fields.method.as_deref(), &headers, body.unwrap_or_default())
        .map_err(|error| error.context("http_request"))
}

impl Request {
    pub(super) fn new(
        url: &str,
        method: Option<&str>,
        headers: &BTreeMap<String, String>,
        body: Vec<u8>,
    ) -> Result<Self> {
        // The text of the URL stays out of the message: it may carry credentials.
        let url = Url::parse(url).map_err(|error| Error::new(format!("the URL is not valid: {error}")))?;
        let method = parse_method(method.unwrap_or("GET"))?;
        let mut checked = HeaderMap::new();
        for (name, value) in headers {
            add_header(&mut checked, &url, name, value)?;
        }
        Ok(Self { method, url, headers: checked, body: Body::new(body) })
    }

    /// Where it goes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// What it says of itself.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Method and URL for a message.
    pub(super) fn describe(&self) -> String {
        format!("{} {}", self.method, without_secrets(&self.url))
    }

    /// The request to which an answer with this status and `Location` leads.
    pub(crate) fn redirected(mut self, status: StatusCode, location: &[u8]) -> Result<Self> {
        let target = std::str::from_utf8(location).ok().and_then(|text| self.url.join(text).ok());
        let Some(target) = target else {
            return Err(Error::new("the server redirects to something that is not a URL"));
        };
        let keeps_method = matches!(status.as_u16(), 307 | 308) || matches!(self.method, Method::GET | Method::HEAD);
        if !keeps_method {
            self.method = Method::GET;
            self.body = Body::default();
            OF_A_BODY.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        if target.origin() != self.url.origin() {
            let mut kept = HeaderMap::new();
            for name in HARMLESS {
                kept.extend(self.headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
            }
            self.headers = kept;
        }
        self.url = target;
        Ok(self)
    }
}

/// Methods are tokens; small letters become capitals, as in 1.41.
fn parse_method(text: &str) -> Result<Method> {
    let method = Method::from_bytes(text.to_ascii_uppercase().as_bytes());
    match method {
        // A CONNECT would turn the connection into a tunnel to elsewhere.
        Ok(Method::CONNECT) => Err(Error::new("the method CONNECT is not allowed")),
        Ok(method) => Ok(method),
        Err(_) => Err(Error::new(format!("{text:?} is not a method: it is one word of letters, such as GET"))),
    }
}

fn add_header(headers: &mut HeaderMap, url: &Url, name: &str, value: &str) -> Result<()> {
    let key = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::new(format!("{name:?} cannot be the name of a header")))?;
    let content = HeaderValue::from_str(value)
        .map_err(|_| Error::new(format!("the value of the header `{key}` has a control character in it")))?;
    if key == header::HOST {
        return check_host(url, value);
    }
    if !OURS.contains(&key.as_str()) && !key.as_str().starts_with("proxy-") {
        headers.try_append(key, content).map_err(|_| Error::new("the request has too many headers"))?;
    }
    Ok(())
}

/// A `Host` header may repeat what the URL says, and nothing else: `allowed_hosts` would mean nothing otherwise.
fn check_host(url: &Url, value: &str) -> Result<()> {
    let said = Url::parse(&format!("{}://{}/", url.scheme(), value.trim()));
    let same = said.is_ok_and(|said| {
        let port = said.port() == url.port() || said.port().is_none();
        // Nothing but a host and a port.
        let rest = (said.username(), said.password(), said.path(), said.query(), said.fragment());
        said.host() == url.host() && port && rest == ("", None, "/", None, None)
    });
    if same { Ok(()) } else { Err(Error::new("the header `host` names another host than the URL")) }
}

/// A URL for a message: without user name, password, query and fragment.
pub(super) fn without_secrets(url: &Url) -> String {
    /// More of a URL helps nobody.
    const MAX_CHARS: usize = 300;
    if !url.has_host() {
        return format!("{}:...", url.scheme());
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let query = if url.query().is_some() { "?..." } else { "" };
    let text = format!("{}://{}{port}{}{query}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
    if text.chars().count() <= MAX_CHARS {
        return text;
    }
    text.chars().take(MAX_CHARS).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Request> {
        parse_request(json.as_bytes(), None)
    }

    fn error(json: &str) -> String {
        parse(json).unwrap_err().to_string()
    }

    #[test]
    fn defaults() {
        for json in [r#"{"url":"http://a/"}"#, r#"{"url":"http://a/","method":null,"headers":null}"#] {
            let request = parse(json).unwrap();
            assert_eq!(request.method, Method::GET);
            assert!(request.headers.is_empty() && request.body.length() == 0);
        }
    }

    #[test]
    fn methods() {
        let method = |text: &str| Request::new("http://a/", Some(text), &BTreeMap::new(), Vec::new());
        assert_eq!(method("get").unwrap().method, Method::GET);
        assert_eq!(method("PROPFIND").unwrap().method.as_str(), "PROPFIND");
        for text in ["", " ", "GET ", "GET / HTTP/1.1\r\nX: y\r\n", "G\0T", "CONNECT", "connect", "GÉT"] {
            assert!(method(text).unwrap_err().to_string().contains("method"), "{text:?}");
        }
    }

    #[test]
    fn headers_cannot_inject() {
        for (name, value) in [
            ("X-A", "b\r\nEvil: 1"),
            ("X-A", "b\nEvil: 1"),
            ("X-A", "b\0"),
            ("X-A: 1\r\nEvil", "b"),
            ("X A", "b"),
            ("", "b"),
            ("X-\u{e9}", "b"),
        ] {
            let headers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let error = Request::new("http://a/", None, &headers, Vec::new()).unwrap_err().to_string();
            assert!(error.contains("header"), "{error}");
        }
        let headers = BTreeMap::from([("X-A".to_owned(), "é\t ok".to_owned())]);
        let request = Request::new("http://a/", None, &headers, Vec::new()).unwrap();
        assert_eq!(request.headers["x-a"].as_bytes(), "é\t ok".as_bytes());
    }

    /// A description of a mebibyte has room for more names than a map of headers.
    #[test]
    fn too_many_headers_are_an_error() {
        let headers = |count: usize| (0..count).map(|n| (format!("h{n}"), String::new())).collect::<BTreeMap<_, _>>();
        let error = Request::new("http://a/", None, &headers(60_000), Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "the request has too many headers");
        assert_eq!(Request::new("http://a/", None, &headers(1000), Vec::new()).unwrap().headers.len(), 1000);
    }

    #[test]
    fn a_body_that_is_given_up_is_gone() {
        let body = Body::new(b"some bytes".to_vec());
        let (mut whole, mut reader) = (Vec::new(), body.reader());
        assert_eq!(io::Read::read_to_end(&mut body.reader(), &mut whole).unwrap(), 10);
        assert_eq!(whole, b"some bytes");
        assert_eq!(io::Read::read(&mut reader, &mut [0; 4]).unwrap(), 4);
        let other = body.clone();
        other.give_up();
        assert!(body.bytes.lock().unwrap().is_none());
        assert!(io::Read::read(&mut reader, &mut [0; 4]).is_err());
        assert_eq!(body.length(), 10);
    }

    #[test]
    fn headers_of_the_connection_are_left_out() {
        let json = r#"{"url":"http://a/","headers":{"Connection":"close","content-LENGTH":"3","TE":"x",
            "Transfer-Encoding":"chunked","Upgrade":"h2c","Proxy-Authorization":"x","Expect":"100-continue","X":"y"}}"#;
        let request = parse(json).unwrap();
        assert_eq!(request.headers.len(), 1);
        assert_eq!(request.headers["x"], "y");
    }

    #[test]
    fn the_host_header_may_only_repeat_the_url() {
        let host = |value: &str| {
            let headers = BTreeMap::from([("HOST".to_owned(), value.to_owned())]);
            Request::new("http://a.example:8080/x", None, &headers, Vec::new()).map(|request| request.headers.len())
        };
        assert_eq!(host("a.example:8080").unwrap(), 0);
        assert_eq!(host("A.example").unwrap(), 0);
        for other in ["b.example", "a.example:81", "a.example/x", "", "x@b.example", "x@a.example", "a.example?x"] {
            assert!(host(other).unwrap_err().to_string().contains("names another host"), "{other}");
        }
    }

    #[test]
    fn bad_json_says_what_and_where() {
        assert!(error(r#"{"url""#).starts_with("http_request: the request is not valid JSON for it: EOF"));
        assert!(error(r#"{"method":"GET"}"#).contains("missing field `url`"));
        assert!(error(r#"{"url":"http://a/","header":{}}"#).contains("unknown field `header`"));
        assert!(error(r#"{"url":"http://a/","headers":{"a":1}}"#).contains("invalid type"));
        assert!(error("\"http://a/\"").contains("expected an object with `url`"));
        assert_eq!(error(r#"{"url":"/x"}"#), "http_request: the URL is not valid: relative URL without a base");
        assert!(!error(r#"{"url":"http://user:secret@:x/"}"#).contains("secret"));
    }

    fn redirected(method: &str, status: u16, from: &str, to: &str) -> Request {
        let headers = ["Authorization", "Cookie", "X-A", "Accept", "Content-Type", "User-Agent"];
        let headers = headers.map(|name| (name.to_owned(), "v".to_owned())).into();
        let request = Request::new(from, Some(method), &headers, b"body".to_vec()).unwrap();
        request.redirected(StatusCode::from_u16(status).unwrap(), to.as_bytes()).unwrap()
    }

    #[test]
    fn redirects_change_the_method() {
        for (method, status, expected) in [
            ("POST", 301, "GET"),
            ("POST", 302, "GET"),
            ("PUT", 303, "GET"),
            ("PUT", 302, "GET"), // as in 1.41; fetch would keep it
            ("HEAD", 302, "HEAD"),
            ("GET", 301, "GET"),
            ("POST", 307, "POST"),
            ("DELETE", 308, "DELETE"),
        ] {
            let next = redirected(method, status, "http://a/x/y", "../z");
            assert_eq!(next.method.as_str(), expected);
            assert_eq!(next.url.as_str(), "http://a/z");
            let keeps = expected == method;
            assert_eq!(next.body.length() == 0, !keeps, "{method} {status}");
            assert_eq!(next.headers.contains_key("content-type"), keeps);
            assert_eq!(next.headers["authorization"], "v");
        }
    }

    #[test]
    fn nothing_personal_goes_to_another_origin() {
        for to in ["http://b/", "https://a/", "http://a:81/", "//b/", "http://a.b/"] {
            let next = redirected("POST", 307, "http://a/", to);
            let mut names: Vec<_> = next.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["accept", "content-type", "user-agent"], "{to}");
        }
        for (from, to) in
            [("https://a/", "http://a/"), ("https://a/", "http://a:443/"), ("https://a:8443/", "https://a/")]
        {
            assert!(!redirected("POST", 307, from, to).headers.contains_key("authorization"), "{from} {to}");
        }
        assert!(redirected("GET", 302, "http://u:p@a/", "http://b/").url.username().is_empty());
        assert_eq!(redirected("GET", 302, "http://a:80/", "http://A/y").headers["x-a"], "v");
    }

    #[test]
    fn messages_carry_no_secrets() {
        let request = Request::new("http://user:pw@a.example:81/x?token=1#f", None, &BTreeMap::new(), vec![]).unwrap();
        assert_eq!(request.describe(), "GET http://a.example:81/x?...");
        assert_eq!(without_secrets(&Url::parse("data:text/plain,secret").unwrap()), "data:...");
        let long = Url::parse(&format!("http://a/{}", "x".repeat(1000))).unwrap();
        assert!(without_secrets(&long).len() < 310);
    }
}
