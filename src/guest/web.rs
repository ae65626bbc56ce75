//! HTTP, as the guest sees it.

use super::http::{self, Failure};
use super::{Fail, Guest, block, memory::release, place};
use crate::error::Error;
use crate::state::LastResponse;

pub(super) fn http_request(guest: &mut dyn Guest, [request, body]: [u64; 2]) -> Result<u64, Fail> {
    let policy = guest.policy();
    let (memory, state) = guest.parts();
    let content = match body {
        0 => None,
        handle => Some(block(memory, state, handle)?.to_vec()),
    };
    let request_to_send = http::parse_request(block(memory, state, request)?, content)?;
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
