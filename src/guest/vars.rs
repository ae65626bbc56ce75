//! Configuration and variables.
//!
//! A block that is taken over is freed after the result was allocated, never before: PDKs free it once more, which
//! must not hit the result.

use super::{Fail, Guest, block, memory::release, place, starve};
use crate::memory::copied;

pub(super) fn config_get(guest: &mut dyn Guest, [key, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let name = std::str::from_utf8(block(memory, state, key)?).ok();
    let value = name.and_then(|name| state.config.lock().get(name).cloned());
    let placed = value.map_or(Ok(0), |value| place(guest, value.as_bytes()))?;
    release(guest.state(), key);
    Ok(placed)
}

pub(super) fn var_get(guest: &mut dyn Guest, [key, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let value = match state.vars.get(block(memory, state, key)?).map(copied) {
        Some(None) => return Err(starve(guest)),
        Some(value) => value,
        None => None,
    };
    let placed = value.map_or(Ok(0), |value| place(guest, &value))?;
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
