//! What plug-ins import from `extism:host/env` (the guest ABI, `docs/abi.md`), written against the plug-in's
//! [`State`] and the small trait [`Guest`]; no wasmtime here, so that all of it tests and fuzzes on its own.
//!
//! Everything that comes in as an argument was chosen by an untrusted program. Offsets and lengths become slices
//! through [`memory::range`](crate::memory::range) only, and handles are looked up in the block table, which
//! lies in host memory.

pub(crate) mod http;
mod log;
pub(crate) mod memory;
mod table;
#[cfg(test)]
mod tests;
mod vars;
mod web;

use std::fmt;
use std::ops::Range;

use crate::error::Error;
use crate::memory::{Blocks, Shortage};
use crate::state::State;
use crate::state::interrupt::Stopped;
pub(crate) use table::{Entry, TABLE, Type};

/// What the guest functions need of the world: the plug-in's state, and its Extism memory.
pub(crate) trait Guest {
    /// All of Extism memory, and the state beside it.
    fn parts(&mut self) -> (&mut [u8], &mut State);
    /// The state alone.
    fn state(&mut self) -> &mut State;
    /// Bytes of Extism memory now.
    fn size(&mut self) -> u64;
    /// Makes Extism memory at least `to` bytes long. False if a limit stands against it.
    fn grow(&mut self, to: u64) -> bool;
    /// Makes these bytes of Extism memory zero.
    fn erase(&mut self, bytes: Range<u64>);
    /// Which hosts the plug-in may reach, and how much it may receive.
    fn policy(&mut self) -> std::sync::Arc<http::Policy>;
}

/// Why a guest function ends the call.
#[derive(Debug)]
pub(crate) enum Fail {
    /// An error of the call, with its text.
    Error(Error),
    /// A block could not be had.
    OutOfMemory,
    /// A load or store past the end of Extism memory.
    OutOfBounds,
    /// The deadline passed, or the host cancelled.
    Stopped(Stopped),
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("oom"),
            Self::OutOfBounds => f.write_str("a load or store past the end of Extism memory"),
            Self::Stopped(stopped) => stopped.fmt(f),
        }
    }
}

impl std::error::Error for Fail {}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// A block of `length` bytes; `None` if it cannot be had. Grows Extism memory where that is needed and allowed.
pub(crate) fn alloc(guest: &mut dyn Guest, length: u64) -> Option<u64> {
    if length == 0 {
        return Some(0);
    }
    let size = guest.size();
    match guest.state().blocks.alloc(length, size) {
        Ok(handle) => Some(handle),
        Err(shortage) => alloc_after_growth(guest, length, shortage),
    }
}

#[cold]
fn alloc_after_growth(guest: &mut dyn Guest, length: u64, shortage: Shortage) -> Option<u64> {
    let Shortage::Grow { to } = shortage else {
        return None;
    };
    if !guest.grow(to) {
        return None;
    }
    let size = guest.size();
    guest.state().blocks.alloc(length, size).ok()
}

/// A new block that holds these bytes.
pub(crate) fn place(guest: &mut dyn Guest, bytes: &[u8]) -> Result<u64, Fail> {
    let handle = alloc(guest, bytes.len() as u64).ok_or_else(|| starve(guest))?;
    fill(guest.parts().0, handle, bytes).ok_or(Fail::OutOfBounds)?;
    Ok(handle)
}

/// The same in Extism memory as it is; `None` if it must grow first.
fn place_here(memory: &mut [u8], blocks: &mut Blocks, bytes: &[u8]) -> Option<u64> {
    let handle = blocks.alloc(bytes.len() as u64, memory.len() as u64).ok()?;
    fill(memory, handle, bytes)?;
    Some(handle)
}

/// Puts these bytes into a block of their length; handle 0 is the empty block.
fn fill(memory: &mut [u8], handle: u64, bytes: &[u8]) -> Option<()> {
    if handle != 0 {
        let range = crate::memory::range(handle, bytes.len() as u64, memory.len())?;
        memory.get_mut(range)?.copy_from_slice(bytes);
    }
    Some(())
}

/// Notes that a block could not be had, and ends the call for it.
#[cold]
fn starve(guest: &mut dyn Guest) -> Fail {
    guest.state().starved = true;
    Fail::OutOfMemory
}

/// The bytes of a live block; handle 0 is the empty block. Anything else is an error of the call.
fn block<'a>(memory: &'a [u8], state: &State, handle: u64) -> Result<&'a [u8], Fail> {
    if handle == 0 {
        return Ok(&[]);
    }
    let range = state.blocks.length(handle).and_then(|length| crate::memory::range(handle, length, memory.len()));
    range.and_then(|range| memory.get(range)).ok_or_else(|| {
        Fail::Error(Error::new(format!(
            "{handle:#x} is not the handle of a block of Extism memory (it was never allocated, or was freed)"
        )))
    })
}

/// Empties Extism memory: no blocks, no input, no output, and nothing of what was in them.
pub(crate) fn reset(guest: &mut dyn Guest) {
    let used = forget_blocks(guest.state());
    guest.erase(0..used);
}

/// A call begins: Extism memory is empty but for its input.
///
/// # Errors
///
/// The input does not fit into the memory that the plug-in may have.
pub(crate) fn begin(guest: &mut dyn Guest, input: &[u8]) -> Result<(), Fail> {
    let used = forget_blocks(guest.state());
    let placed = place(guest, input);
    let length = input.len() as u64;
    // What the input lies over needs not be erased, and the system need not be asked for it again.
    let end = placed.as_ref().map_or(0, |offset| offset + length);
    if end < used {
        guest.erase(end..used);
    }
    guest.state().input = crate::state::Span { offset: placed?, length };
    Ok(())
}

/// Returns the end of what was given out.
fn forget_blocks(state: &mut State) -> u64 {
    let used = state.blocks.high_water();
    state.blocks.reset();
    state.input = Default::default();
    state.output = Default::default();
    used
}
