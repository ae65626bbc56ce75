//! HTTP for plug-ins, and for modules that a manifest names by URL.
//!
//! What a plug-in may reach is decided on the URL as the `url` crate reads it, once, and that reading is what is
//! connected to: decimal and octal addresses, user-info and backslashes lead nowhere else. Redirects are
//! followed by hand, and each is checked like the first request; credentials and headers of the plug-in's own stay
//! with the origin that they were meant for. Addresses are checked after resolving, and no name is resolved twice.
//!
//! ```text
//!   plug-in's thread                        worker thread (worker.rs)
//!   parse_request -> send ---- spawns ----> check (policy.rs) -> resolve, check addresses (resolver.rs)
//!                     |                       ^                      -> connect, send, receive (exchange.rs)
//!        waits for the answer,                |                                 |
//!        the deadline or a cancel             +---- redirect (request.rs) <-----+-----> answer
//! ```
//!
//! Behind a proxy (`ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`) the proxy resolves names, so only
//! addresses that stand in a URL are checked.

mod address;
mod exchange;
mod policy;
mod request;
mod resolver;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::state::interrupt::{Interrupt, Stopped};
pub(crate) use policy::Policy;
pub(crate) use request::{Request, parse_request};

/// How long a plug-in's request may take if the call has no deadline.
const WITHOUT_DEADLINE: Duration = Duration::from_secs(30);

/// How long a download for a manifest may take.
const DOWNLOAD: Duration = Duration::from_secs(60);

/// What a download for a manifest may have at most.
const MAX_DOWNLOAD_BYTES: u64 = 256 << 20;

/// An answer. A status of 400 and above is an answer, too.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// The status code.
    pub status: u16,
    /// Names in small letters, sorted, each once; values of one name are joined with `, `.
    pub headers: Vec<(String, String)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the call. Its text carries no credentials.
    Error(Error),
    /// The call must end.
    Stopped(Stopped),
}

/// Reads the proxies of the environment, if they were not read yet.
pub(crate) fn read_environment() {
    exchange::read_environment();
}

/// Sends a plug-in's request and waits for the answer. The wait ends at once when the call must end.
pub(crate) fn send(request: Request, policy: &Arc<Policy>, interrupt: &Arc<Interrupt>) -> Result<Response, Failure> {
    worker::run(request, policy, interrupt, WITHOUT_DEADLINE)
}

/// Fetches what a manifest names by URL: the host program's own wish, so any host will do.
pub(crate) fn download(url: &str, method: Option<&str>, headers: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    download_within(url, method, headers, DOWNLOAD, MAX_DOWNLOAD_BYTES)
}

fn download_within(
    url: &str,
    method: Option<&str>,
    headers: &BTreeMap<String, String>,
    within: Duration,
    max_bytes: u64,
) -> Result<Vec<u8>> {
    let request = Request::new(url, method, headers, Vec::new())?;
    let description = request.describe();
    let policy = Arc::new(Policy::unrestricted(max_bytes));
    let answer = match worker::run(request, &policy, &Arc::new(Interrupt::new()), within) {
        Ok(answer) => answer,
        Err(Failure::Error(error)) => return Err(error),
        Err(Failure::Stopped(stopped)) => return Err(Error::new(format!("{description}: {stopped}"))),
    };
    match answer.status {
        200..=299 => Ok(answer.body),
        status => Err(Error::new(format!("{description}: the server answered with status {status}"))),
    }
}
