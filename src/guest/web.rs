//! HTTP, as the guest sees it.

use super::http::{self, Failure};
use super::{Fail, Guest, block, memory::release, place, starve};
use crate::error::Error;
use crate::memory::copied;
use crate::state::LastResponse;

/// Bytes that the description of a request may have, and its body: both are copied out of the guest's memory, and
/// that memory costs the guest nothing until it writes to it.
const MAX_REQUEST: usize = 1024 * 1024;
const MAX_BODY: usize = 256 * 1024 * 1024;

fn bounded<'a>(what: &str, bytes: &'a [u8], limit: usize) -> Result<&'a [u8], Error> {
    if bytes.len() > limit {
        let length = bytes.len();
        return Err(Error::new(format!("the {what} of an HTTP request has {length} bytes; at most {limit} are sent")));
    }
    Ok(bytes)
}

pub(super) fn http_request(guest: &mut dyn Guest, [request, body]: [u64; 2]) -> Result<u64, Fail> {
    let policy = guest.policy();
    let (memory, state) = guest.parts();
    let description = bounded("request", block(memory, state, request)?, MAX_REQUEST)?;
    let content = match body {
        0 => None,
        handle => match copied(bounded("body", block(memory, state, handle)?, MAX_BODY)?) {
            None => return Err(starve(guest)),
            body => body,
        },
    };
    let request_to_send = http::parse_request(description, content)?;
    state.response = LastResponse::default();
    let response = match http::send(request_to_send, &policy, &state.interrupt) {
        Ok(response) => response,
        Err(Failure::Error(error)) => return Err(Fail::Error(error)),
        Err(Failure::Stopped(stopped)) => return Err(Fail::Stopped(stopped)),
    };
    state.response.status = response.status;
    if state.keep_headers {
        let headers: std::collections::BTreeMap<_, _> = response.headers.into_iter().collect();
        let json = serde_json::to_vec(&headers).map_err(|error| Error::new(error.to_string()))?;
        state.response.headers = Some(json);
    }
    // The blocks that are taken over go last: PDKs free them once more, which must not hit the result.
    let placed = place(guest, &response.body)?;
    release(guest.state(), request);
    release(guest.state(), body);
    Ok(placed)
}

pub(super) fn http_status_code(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(u64::from(guest.state().response.status))
}

pub(super) fn http_headers(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    let headers = guest.state().response.headers.take();
    let placed = headers.as_deref().map_or(Ok(0), |headers| place(guest, headers));
    guest.state().response.headers = headers;
    placed
}
