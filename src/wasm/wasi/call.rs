//! One call of a WASI function: what it works on, and the guest's memory.
//!
//! Every number that comes in was chosen by an untrusted program. A pointer and a length become a slice in [`slice()`] and
//! [`slice_mut`] only, and nothing is allocated by a length that a guest names before that many bytes are known to be
//! in its memory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Wasi;
use super::errno::{Errno, Result};
use crate::memory;
use crate::state::interrupt::Interrupt;

/// As many buffers are filled or written by one call; the system takes as many.
pub(super) const MAX_BUFFERS: u32 = 1024;

/// The longest path of the system. Longer ones would keep those busy who take them apart.
const MAX_PATH: u32 = 4096;

/// Bytes that are read, written or drawn before the deadline is looked at again.
pub(super) const CHUNK: u32 = 1 << 20;

/// A call of a WASI function.
pub(super) struct Call<'a> {
    /// The memory of the module that called.
    pub memory: &'a mut [u8],
    /// What WASI keeps for this store.
    pub wasi: &'a mut Wasi,
    /// What ends the call of the plug-in.
    pub interrupt: &'a Interrupt,
}

/// A place in the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer {
    pub at: u32,
    pub length: u32,
}

/// Bytes of a guest's memory.
pub(super) fn slice(memory: &[u8], at: u32, length: u32) -> Result<&[u8], Errno> {
    memory::range(at.into(), length.into(), memory.len()).and_then(|range| memory.get(range)).ok_or(Errno::FAULT)
}

/// Bytes of a guest's memory, to be written.
pub(super) fn slice_mut(memory: &mut [u8], at: u32, length: u32) -> Result<&mut [u8], Errno> {
    memory::range(at.into(), length.into(), memory.len()).and_then(|range| memory.get_mut(range)).ok_or(Errno::FAULT)
}

impl Call<'_> {
    /// Bytes of the guest.
    pub fn bytes(&self, at: u32, length: u32) -> Result<&[u8], Errno> {
        slice(self.memory, at, length)
    }

    /// Bytes of the guest, to be written.
    pub fn bytes_mut(&mut self, at: u32, length: u32) -> Result<&mut [u8], Errno> {
        slice_mut(self.memory, at, length)
    }

    /// Writes these bytes.
    pub fn put<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Result<(), Errno> {
        // A length in this file's constants: it is small.
        self.bytes_mut(at, N as u32)?.copy_from_slice(&bytes);
        Ok(())
    }

    /// A path, which has no NUL in it and is not longer than paths are.
    pub fn path(&self, at: u32, length: u32) -> Result<&Path, Errno> {
        let bytes = self.bytes(at, length)?;
        if length > MAX_PATH {
            return Err(Errno::NAMETOOLONG);
        }
        if bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        Ok(Path::new(OsStr::from_bytes(bytes)))
    }

    /// The buffers that an array names, as far as one call deals with them; all of them are in memory, and together
    /// have a length that a guest can be told.
    pub fn buffers(&self, at: u32, count: u32) -> Result<Vec<Buffer>, Errno> {
        let bytes = self.bytes(at, count.checked_mul(8).ok_or(Errno::FAULT)?)?;
        let (pairs, _) = bytes.as_chunks::<8>();
        let mut buffers = Vec::with_capacity(pairs.len().min(MAX_BUFFERS as usize));
        let mut total = 0u32;
        for &[a, b, c, d, e, f, g, h] in pairs.iter().take(MAX_BUFFERS as usize) {
            let buffer = Buffer { at: u32::from_le_bytes([a, b, c, d]), length: u32::from_le_bytes([e, f, g, h]) };
            self.bytes(buffer.at, buffer.length)?;
            let Some(sum) = total.checked_add(buffer.length) else { break };
            total = sum;
            if buffer.length > 0 {
                buffers.push(buffer);
            }
        }
        Ok(buffers)
    }
}

impl Buffer {
    /// Pieces after each of which the deadline is looked at.
    pub fn chunks(self) -> impl Iterator<Item = Self> {
        let starts = (0..self.length).step_by(CHUNK as usize);
        starts.map(move |from| Self { at: self.at + from, length: CHUNK.min(self.length - from) })
    }
}
