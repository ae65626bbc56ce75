//! Configuration and variables.
//!
//! A block that is taken over is freed after the result was allocated, never before: PDKs free it once more, which
//! must not hit the result.

use super::{Fail, Guest, block, memory::release, place, place_here, starve};
use crate::memory::{Blocks, copied};

pub(super) fn config_get(guest: &mut dyn Guest, [key, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let config = state.config.lock();
    let value = config.get(block(memory, state, key)?).map(|value| value.as_bytes());
    let found = Found::new(value, memory, &mut state.blocks);
    drop(config);
    answer(guest, key, found)
}

pub(super) fn var_get(guest: &mut dyn Guest, [key, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    let value = state.vars.get(block(memory, state, key)?);
    let found = Found::new(value, memory, &mut state.blocks);
    answer(guest, key, found)
}

/// A value that was looked up.
enum Found {
    /// In a block of its own; 0 if there is no such value.
    Placed(u64),
    /// Aside, as Extism memory must grow for it. `None`: the host has no memory for that.
    Copied(Option<Vec<u8>>),
}

impl Found {
    fn new(value: Option<&[u8]>, memory: &mut [u8], blocks: &mut Blocks) -> Self {
        let Some(value) = value else {
            return Self::Placed(0);
        };
        place_here(memory, blocks, value).map_or_else(|| Self::Copied(copied(value)), Self::Placed)
    }
}

fn answer(guest: &mut dyn Guest, key: u64, found: Found) -> Result<u64, Fail> {
    let placed = match found {
        Found::Placed(handle) => handle,
        Found::Copied(Some(value)) => place(guest, &value)?,
        Found::Copied(None) => return Err(starve(guest)),
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
