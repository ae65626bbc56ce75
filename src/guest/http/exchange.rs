//! Requests and answers on the wire, with redirects followed by hand.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use ureq::http::{self, Method, Uri, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, SendBody};
use url::Url;

use super::Response;
use super::policy::{Policy, Refused};
use super::request::{Request, without_secrets};
use super::resolver::Checked;
use crate::error::{Error, Result};

/// As many redirects are followed, as in 1.41.
const MAX_REDIRECTS: usize = 10;

/// A client for one request and its redirects. Its clones share their connections, and `shutdown` on one of them
/// ends what another is waiting for.
pub(super) fn client(policy: &Arc<Policy>) -> Agent {
    let config = Agent::config_builder()
        .proxy(PROXY.clone())
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .allow_non_standard_methods(true)
        .user_agent(concat!("libextism/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Checked(Arc::clone(policy)))
}

/// `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` (the first that is set, in either case) and `NO_PROXY`, as in 1.41. Read
/// once: the host may change its environment at any time, which no other thread may look at meanwhile.
static PROXY: LazyLock<Option<Proxy>> = LazyLock::new(|| {
    // The unit tests talk to their own servers.
    if cfg!(test) { None } else { Proxy::try_from_env() }
});

/// Reads the environment, if it was not read yet.
pub(super) fn read_environment() {
    LazyLock::force(&PROXY);
}

/// Sends a request and follows redirects until there is an answer, or it is `ends`.
pub(super) fn run(client: &Agent, policy: &Policy, mut request: Request, ends: Instant) -> Result<Response> {
    let first = request.describe();
    for _ in 0..=MAX_REDIRECTS {
        policy.check(&request.url).map_err(|refused| not_allowed(&request, &refused))?;
        let answer = once(client, &request, ends).map_err(|error| explain(&request, error))?;
        let Some(location) = location(&answer) else {
            let describe = request.describe();
            return read(answer, policy.max_response_bytes()).map_err(|error| error.context(describe));
        };
        let describe = request.describe();
        request = request.redirected(answer.status(), &location).map_err(|error| error.context(describe))?;
    }
    Err(Error::new(format!("{first}: more than {MAX_REDIRECTS} redirects, the last one to {}", request.describe())))
}

/// One request and the head of its answer.
fn once(client: &Agent, request: &Request, ends: Instant) -> Result<http::Response<Body>, ureq::Error> {
    let uri = to_uri(&request.url)?;
    let mut head = http::Request::builder().method(request.method.clone()).uri(uri);
    if let Some(headers) = head.headers_mut() {
        headers.extend(request.headers.clone());
    }
    let left = ends.saturating_duration_since(Instant::now());
    // A method that is about a body says that there is none; the others say nothing.
    let expects_body = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
    if request.body.length() == 0 && !expects_body {
        let request = client.configure_request(head.body(())?).timeout_global(Some(left)).build();
        return client.run(request);
    }
    let body = SendBody::from_owned_reader(request.body.reader());
    let head = head.header(header::CONTENT_LENGTH, request.body.length());
    client.run(client.configure_request(head.body(body)?).timeout_global(Some(left)).build())
}

/// The URL for the client, which reads it with a parser of its own: what was checked has to be what is asked.
fn to_uri(url: &Url) -> Result<Uri, ureq::Error> {
    let uri: Uri = url.as_str().parse().map_err(|_| ureq::Error::BadUri("the client cannot read it".to_owned()))?;
    let same = uri.scheme_str() == Some(url.scheme())
        && uri.host() == url.host_str()
        && uri.port_u16() == url.port()
        && uri.path() == url.path()
        && uri.query() == url.query();
    if same { Ok(uri) } else { Err(ureq::Error::BadUri("two parsers read it differently".to_owned())) }
}

/// Where an answer leads, if it is a redirect.
fn location(answer: &http::Response<Body>) -> Option<Vec<u8>> {
    let redirects = matches!(answer.status().as_u16(), 300..=303 | 307 | 308);
    let location = answer.headers().get(header::LOCATION).filter(|_| redirects)?;
    Some(location.as_bytes().to_vec())
}

/// The rest of an answer. The bound is on the decoded body, so a small body that unpacks to a huge one is caught.
fn read(answer: http::Response<Body>, max_bytes: u64) -> Result<Response> {
    let too_large = || Error::new(format!("HTTP response exceeds the configured maximum number of bytes: {max_bytes}"));
    let (head, body) = answer.into_parts();
    let mut bytes = Vec::new();
    let mut limited = body.into_reader().take(max_bytes.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(|error| Error::new(format!("the answer broke off: {error}")))?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large());
    }
    Ok(Response { status: head.status.as_u16(), headers: headers(&head.headers), body: bytes })
}

/// Names in small letters, sorted; what came more than once is joined.
fn headers(map: &http::HeaderMap) -> Vec<(String, String)> {
    let mut joined = BTreeMap::<String, String>::new();
    for (name, value) in map {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    joined.into_iter().collect()
}

/// What programs match on is the part up to the colon.
fn not_allowed(request: &Request, refused: &Refused) -> Error {
    Error::new(format!("HTTP request to {} is not allowed: {refused}", without_secrets(&request.url)))
}

/// A failure of the client in the user's terms.
fn explain(request: &Request, error: ureq::Error) -> Error {
    let text = match error {
        ureq::Error::Other(inner) => match inner.downcast::<Refused>() {
            Ok(refused) => return not_allowed(request, &refused),
            Err(inner) => inner.to_string(),
        },
        ureq::Error::Timeout(phase) => format!("no answer in time ({phase})"),
        ureq::Error::HostNotFound => "the host has no address".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    Error::new(format!("{}: {text}", request.describe()))
}
