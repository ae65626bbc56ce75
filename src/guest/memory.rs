//! Blocks, loads and stores, input, output and error.

use super::{Fail, Guest, alloc as alloc_block, starve};
use crate::error::Error;
use crate::memory::{copied, range};
use crate::state::{GuestError, Span};

/// What is kept of an error's text, in bytes.
const MAX_ERROR: usize = 64 * 1024;

pub(super) fn alloc(guest: &mut dyn Guest, [length, _]: [u64; 2]) -> Result<u64, Fail> {
    // PDKs do not check for 0, so what cannot be met ends the call.
    alloc_block(guest, length).ok_or_else(|| starve(guest))
}

pub(super) fn free(guest: &mut dyn Guest, [handle, _]: [u64; 2]) -> Result<u64, Fail> {
    release(guest.state(), handle);
    Ok(0)
}

/// Frees a live block; its bytes stay as they are. Freeing the input block makes the input empty.
pub(crate) fn release(state: &mut crate::state::State, handle: u64) {
    if state.blocks.free(handle) && state.input.offset == handle {
        state.input = Span::default();
    }
}

pub(super) fn length(guest: &mut dyn Guest, [handle, _]: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.state().blocks.length(handle).unwrap_or(0))
}

fn load<const N: usize>(guest: &mut dyn Guest, offset: u64) -> Result<[u8; N], Fail> {
    let (memory, _) = guest.parts();
    let bytes = range(offset, N as u64, memory.len()).and_then(|range| memory.get(range));
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Fail::OutOfBounds)
}

fn store<const N: usize>(guest: &mut dyn Guest, offset: u64, value: [u8; N]) -> Result<u64, Fail> {
    let (memory, _) = guest.parts();
    let bytes = range(offset, N as u64, memory.len()).and_then(|range| memory.get_mut(range));
    bytes.ok_or(Fail::OutOfBounds)?.copy_from_slice(&value);
    Ok(0)
}

pub(super) fn load_u8(guest: &mut dyn Guest, [offset, _]: [u64; 2]) -> Result<u64, Fail> {
    load::<1>(guest, offset).map(|[byte]| u64::from(byte))
}

pub(super) fn load_u64(guest: &mut dyn Guest, [offset, _]: [u64; 2]) -> Result<u64, Fail> {
    load::<8>(guest, offset).map(u64::from_le_bytes)
}

pub(super) fn store_u8(guest: &mut dyn Guest, [offset, value]: [u64; 2]) -> Result<u64, Fail> {
    store(guest, offset, [value as u8])
}

pub(super) fn store_u64(guest: &mut dyn Guest, [offset, value]: [u64; 2]) -> Result<u64, Fail> {
    store(guest, offset, value.to_le_bytes())
}

pub(super) fn input_offset(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.state().input.offset)
}

pub(super) fn input_length(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.state().input.length)
}

/// Where `count` bytes of the input begin in Extism memory, if the input has them.
fn in_input(guest: &mut dyn Guest, offset: u64, count: u64) -> Option<u64> {
    let input = guest.state().input;
    let end = offset.checked_add(count)?;
    (end <= input.length).then(|| input.offset + offset)
}

pub(super) fn input_load_u8(guest: &mut dyn Guest, [offset, _]: [u64; 2]) -> Result<u64, Fail> {
    in_input(guest, offset, 1).map_or(Ok(0), |offset| load_u8(guest, [offset, 0]))
}

pub(super) fn input_load_u64(guest: &mut dyn Guest, [offset, _]: [u64; 2]) -> Result<u64, Fail> {
    in_input(guest, offset, 8).map_or(Ok(0), |offset| load_u64(guest, [offset, 0]))
}

fn span(guest: &mut dyn Guest, what: &str, [offset, length]: [u64; 2]) -> Result<Span, Fail> {
    let (memory, _) = guest.parts();
    let size = memory.len();
    Span::checked(offset, length, size).ok_or_else(|| {
        Fail::Error(Error::new(format!(
            "{what} names {length} bytes at offset {offset:#x}, outside of Extism memory ({size} bytes)"
        )))
    })
}

pub(super) fn input_set(guest: &mut dyn Guest, args: [u64; 2]) -> Result<u64, Fail> {
    guest.state().input = span(guest, "input_set", args)?;
    Ok(0)
}

pub(super) fn output_set(guest: &mut dyn Guest, args: [u64; 2]) -> Result<u64, Fail> {
    guest.state().output = span(guest, "output_set", args)?;
    Ok(0)
}

pub(super) fn output_offset(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.state().output.offset)
}

pub(super) fn output_length(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.state().output.length)
}

pub(super) fn error_set(guest: &mut dyn Guest, [handle, _]: [u64; 2]) -> Result<u64, Fail> {
    let (memory, state) = guest.parts();
    if handle == 0 {
        state.error = None;
    } else if let Ok(text) = super::block(memory, state, handle) {
        let text = copied(text.get(..MAX_ERROR).unwrap_or(text)).ok_or(Fail::OutOfMemory)?;
        state.error = Some(GuestError { text, handle });
    }
    Ok(0)
}

pub(super) fn error_get(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.state().error.as_ref().map_or(0, |error| error.handle))
}

pub(super) fn reset(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    super::reset(guest);
    Ok(0)
}

pub(super) fn memory_bytes(guest: &mut dyn Guest, _: [u64; 2]) -> Result<u64, Fail> {
    Ok(guest.size())
}
