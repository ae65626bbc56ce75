//! Configuration and variables.
//!
//! A block that is taken over is freed after the result was allocated, never before: PDKs free it once more, which
//! must not hit the result.

use std::sync::Arc;

use super::{Fail, Guest, alloc, block, fill, memory::release, place, place_here, starve};

/// A value of the configuration that is longer is copied without the lock, which others may wait for.
const COPIED_UNDER_LOCK: usize = 64 * 1024;

pub(super) fn config_get(guest: &mut dyn Guest, [key, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let config = state.config.lock();
    let found = match config.get(block(memory, state, key)?) {
        None => Ok(0),
        Some(value) if value.len() > COPIED_UNDER_LOCK => Err(Arc::clone(value)),
        Some(value) => place_here(memory, &mut state.blocks, value.as_bytes()).ok_or_else(|| Arc::clone(value)),
    };
    drop(config);
    let placed = match found {
        Ok(placed) => placed,
        Err(value) => place(guest, value.as_bytes())?,
    };
    release(guest.state(), key);
    Ok(placed)
}

pub(super) fn var_get(guest: &mut dyn Guest, [key, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let found = match state.vars.get(block(memory, state, key)?) {
        None => Ok(0),
        Some(value) => place_here(memory, &mut state.blocks, value).ok_or(value.len() as u64),
    };
    let placed = match found {
        Ok(placed) => placed,
        Err(length) => {
            let placed = alloc(guest, length).ok_or_else(|| starve(guest))?;
            // Looked up once more: nothing of the guest can be kept while its memory grows.
            let (memory, state) = guest.parts();
            let value = state.vars.get(block(memory, state, key)?).unwrap_or_default();
            fill(memory, placed, value).ok_or(Fail::OutOfBounds)?;
            placed
        }
    };
    release(guest.state(), key);
    Ok(placed)
}

pub(super) fn var_set(guest: &mut dyn Guest, [key, value]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let name = block(memory, state, key)?;
    if value == 0 {
        state.vars.remove(name);
    } else {
        let bytes = block(memory, state, value)?;
        state.vars.set(name, bytes)?;
    }
    release(state, key);
    release(state, value);
    Ok(0)
}
