//! Configuration and variables.
//!
//! A block that is taken over is freed after the result was allocated, never before: PDKs free it once more, which
//! must not hit the result.

use super::{Fail, Guest, alloc, block, fill, memory::release, place, starve};

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
    let Some(length) = state.vars.get(block(memory, state, key)?).map(|value| value.len() as u64) else {
        release(state, key);
        return Ok(0);
    };
    let placed = alloc(guest, length).ok_or_else(|| starve(guest))?;
    // Looked up once more rather than copied aside meanwhile.
    let (memory, state) = guest.parts();
    let value = state.vars.get(block(memory, state, key)?).unwrap_or_default();
    fill(memory, placed, value)?;
    release(state, key);
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
