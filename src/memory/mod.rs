//! The Extism memory manager: which bytes of a plug-in's Extism memory belong to which block.
//!
//! A plug-in has a wasm memory of its own for what it and the host hand each other: the *Extism
//! memory*. This module decides where blocks lie in it. It never reads or writes the memory itself
//! (only [`erase()`] does): all that it knows is kept here, in the host. A guest can write any byte
//! of Extism memory, so nothing that the host relies on is in there: no block header, no free list,
//! no length.
//!
//! # The memory, drawn
//!
//! ```text
//! 0     16                                                     top       capacity      4 GiB
//! |     |                                                       |            |            |
//! +-----+---------+-----------+---------+---------+-------------+------------+ - - - - - -+
//! |never|  block  |   hole    |  block  |  block  |    hole     | not given  |  not yet   |
//! |given| (live)  |(two freed | (live)  | (live)  |(freed, keeps| out since  |   grown    |
//! | out |         |  blocks)  |         |         | its bytes)  | the reset  |            |
//! +-----+---------+-----------+---------+---------+-------------+------------+ - - - - - -+
//!       ^                               ^         ^
//!       handle 16                       handle    handle + length, rounded up to 16 bytes
//! ```
//!
//! A *handle* is the offset of a block's first byte; 0 means "none", which is why nothing begins
//! below 16. From 16 to `top` blocks and holes lie side by side without a gap, and no two holes are
//! neighbours.
//!
//! # The tables in the host
//!
//! ```text
//!  handle --> index: a leaf for each 4 KiB of memory, an entry for each 16 bytes
//!               |      (set where a live block begins, empty everywhere else)
//!               v
//!             records: one for each block and hole, with the neighbours in memory
//!               ^
//!               |
//!             holes: a list for each size class, the longest freed first
//! ```
//!
//! # Where a new block goes
//!
//! 1. At `top`, as long as the memory reaches. PDKs free what the library took over and free it
//!    again later, so a freed handle should stay unused for as long as possible.
//! 2. Where the memory would have to grow: into a hole, the longest freed first. Size classes find
//!    one in constant time. Holes are never searched one by one: nothing interrupts this code, and
//!    a hostile guest would make each of its allocations scan millions of them.
//! 3. If no hole is found: the memory must grow ([`Shortage::Grow`]).
//!
//! # What a hostile guest can cost
//!
//! Every operation takes constant time, apart from the growth of a table, which is paid for by what
//! filled it. The tables are bounded: at most 4 Mi blocks and holes together (128 MiB of records;
//! beyond that the answer is [`Shortage::Never`]), and an index of at most a quarter of the memory
//! that blocks lie in. A host that has no memory left for the tables answers `Never` as well.
//! [`Blocks::reset`] gives back what a spike took.

#[allow(unsafe_code)]
mod erase;
mod holes;
mod index;
mod records;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use erase::{erase, expect_much};
use holes::Holes;
use index::Index;
use records::{End, Hole, Id, Record, Records, State};

/// The lowest offset that a block can have.
pub const FIRST: u64 = GRAIN;

/// Extism memory never passes this size, and no block ends behind it.
pub const MAX_BYTES: u64 = 4 << 30;

/// Blocks begin at multiples of this and take up multiples of this.
const GRAIN: u64 = 16;

/// The longest block there can be: from [`FIRST`] to [`MAX_BYTES`].
const MAX_LENGTH: u64 = MAX_BYTES - FIRST;

// Offsets and lengths are kept in 32 bits, and the end of the longest block must still round up
// within them.
const _: () = assert!(MAX_LENGTH + GRAIN - 1 <= u32::MAX as u64);

/// Why there is no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    /// The memory is too small.
    Grow {
        /// The number of bytes that the memory must have, at least, for the same request to
        /// succeed.
        to: u64,
    },
    /// No growth helps: the block would end behind [`MAX_BYTES`], there are too many blocks, or the
    /// host has no memory left to keep an account of it.
    Never,
}

/// The blocks of one plug-in's Extism memory: which are live, where freed space is, where the next
/// one goes.
///
/// Takes nothing from the heap before the first block.
#[derive(Debug)]
pub struct Blocks {
    records: Records,
    index: Index,
    holes: Holes,
    /// The block or hole that ends at `top`.
    last: Option<Id>,
    /// Everything that was given out since the last reset lies below.
    top: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self::new()
    }
}

impl Blocks {
    /// No blocks.
    pub fn new() -> Self {
        Self { records: Records::new(), index: Index::new(), holes: Holes::new(), last: None, top: FIRST }
    }

    /// A new block of `len` bytes in a memory of `capacity` bytes: its handle, or 0 (no block) if
    /// `len` is 0.
    ///
    /// The bytes of the block are what they were: zero if they were not given out since the memory
    /// was last erased, else what was left in them.
    ///
    /// # Errors
    ///
    /// [`Shortage`] says what it would take. Nothing has changed then.
    #[inline]
    pub fn alloc(&mut self, len: u64, capacity: u64) -> Result<u64, Shortage> {
        if len == 0 {
            return Ok(0);
        }
        if len > MAX_LENGTH {
            return Err(Shortage::Never);
        }
        let end = self.top + round_up(len);
        if end > capacity.min(MAX_BYTES) {
            return self.alloc_below_top(len, capacity);
        }
        let offset = self.top;
        let block =
            Record { offset: narrow(offset), length: narrow(len), before: self.last, after: None, state: State::Live };
        let Some(id) = self.register(block) else {
            return self.alloc_below_top(len, capacity);
        };
        self.set_after(self.last, id);
        self.last = Some(id);
        self.top = end;
        Ok(offset)
    }

    /// Frees the block that begins at `handle`; its bytes stay as they are.
    ///
    /// False if no live block begins there (0, an address inside of a block, a block that was freed
    /// before, any number that was never a handle): nothing has happened then.
    #[inline]
    pub fn free(&mut self, handle: u64) -> bool {
        let Some(id) = self.index.take(handle) else {
            return false;
        };
        let (before, after) = (self.records[id].before, self.records[id].after);
        let low = before.filter(|&id| self.records[id].is_hole());
        let high = after.filter(|&id| self.records[id].is_hole());
        match (low, high) {
            (None, None) => self.holes.add(&mut self.records, id),
            (Some(low), None) => {
                let by = self.join_upwards(low, id);
                self.holes.grow(&mut self.records, low, by, End::Low);
            }
            (None, Some(high)) => {
                let by = self.join_downwards(high, id);
                self.holes.grow(&mut self.records, high, by, End::High);
            }
            (Some(low), Some(high)) => self.free_between_holes(low, id, high),
        }
        true
    }

    /// Whether no block was given out since the last reset.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The length that the block at `handle` was asked for with; `None` if no live block begins
    /// there.
    #[inline]
    pub fn length(&self, handle: u64) -> Option<u64> {
        let id = self.index.get(handle)?;
        Some(self.records[id].length.into())
    }

    /// The end of everything that was given out since the last reset, never less than [`FIRST`].
    ///
    /// Freeing does not lower it: a freed block keeps its bytes, and they have to be erased as
    /// well.
    #[inline]
    pub fn high_water(&self) -> u64 {
        self.top
    }

    /// Forgets all blocks. Costs what was used since the last reset, and gives tables that a spike
    /// made large back to the host.
    pub fn reset(&mut self) {
        if self.last.is_none() {
            return;
        }
        self.index.shrink();
        for record in self.records.iter().filter(|record| record.is_live()) {
            self.index.clear(record.offset.into());
        }
        self.records.clear();
        self.holes.clear();
        self.last = None;
        self.top = FIRST;
    }

    /// The rare part of [`Blocks::alloc`]: the space above `top` does not do.
    #[cold]
    #[inline(never)]
    fn alloc_below_top(&mut self, len: u64, capacity: u64) -> Result<u64, Shortage> {
        let span = round_up(len);
        let last_hole = |blocks: &Self| blocks.last.filter(|&id| blocks.records[id].is_hole());
        let fits = |id: &Id| u64::from(self.records[*id].length) >= span;
        let hole = self.holes.find(&self.records, narrow(span)).or_else(|| last_hole(self).filter(fits));
        if let Some(hole) = hole {
            return self.alloc_in_hole(hole, narrow(len)).ok_or(Shortage::Never);
        }
        let last_hole = last_hole(self);
        // A hole that ends at `top` is too small, but the memory grows right behind it.
        let offset = last_hole.map_or(self.top, |id| self.records[id].offset.into());
        let end = offset + span;
        match last_hole {
            _ if end > MAX_BYTES => Err(Shortage::Never),
            None if self.records.is_full() => Err(Shortage::Never),
            _ if end > capacity => Err(Shortage::Grow { to: end }),
            Some(hole) => {
                let offset = self.take_whole(hole, narrow(len)).ok_or(Shortage::Never)?;
                self.top = end;
                Ok(offset)
            }
            // It would fit above `top`, but the host had no memory for its record.
            None => Err(Shortage::Never),
        }
    }

    /// Makes a block in a hole that is large enough. `None`: no room in the tables.
    #[inline]
    fn alloc_in_hole(&mut self, id: Id, len: u32) -> Option<u64> {
        let hole = self.records[id];
        let State::Hole(Hole { old_end, .. }) = hole.state else {
            return None;
        };
        let span = narrow(round_up(len.into()));
        let rest = hole.length.checked_sub(span)?;
        if rest == 0 {
            return self.take_whole(id, len);
        }
        let (offset, before, after) = match old_end {
            End::Low => (hole.offset, hole.before, Some(id)),
            End::High => (hole.offset + rest, Some(id), hole.after),
        };
        let state = State::Live;
        let block = self.register(Record { offset, length: len, before, after, state })?;
        self.set_after(before, block);
        self.set_before(after, block);
        if old_end == End::Low {
            self.records[id].offset += span;
        }
        self.holes.shrink(&mut self.records, id, rest);
        Some(offset.into())
    }

    /// Turns a hole into a block of `len` bytes with the same beginning. The caller answers for the
    /// end.
    fn take_whole(&mut self, id: Id, len: u32) -> Option<u64> {
        let offset = self.records[id].offset.into();
        if !self.index.set(offset, id) {
            return None;
        }
        self.holes.remove(&mut self.records, id);
        let record = &mut self.records[id];
        record.state = State::Live;
        record.length = len;
        Some(offset)
    }

    /// Frees a block that lies between two holes.
    #[inline(never)]
    fn free_between_holes(&mut self, low: Id, id: Id, high: Id) {
        let old_end = self.holes.older_end(&self.records, low, high);
        self.holes.remove(&mut self.records, high);
        let by = self.join_upwards(low, id) + self.join_upwards(low, high);
        self.holes.grow(&mut self.records, low, by, old_end);
    }

    /// Takes away the record of `next`, which lies right behind `id` and is in no list, so that
    /// `id` can have its bytes: that many.
    #[inline]
    fn join_upwards(&mut self, id: Id, next: Id) -> u32 {
        let Record { after, .. } = self.records[next];
        let span = self.records[next].span();
        self.records.remove(next);
        self.records[id].after = after;
        self.set_before(after, id);
        span
    }

    /// The same for `previous`, which lies right before `id`: `id` begins there now.
    #[inline]
    fn join_downwards(&mut self, id: Id, previous: Id) -> u32 {
        let Record { offset, before, .. } = self.records[previous];
        let span = self.records[previous].span();
        self.records.remove(previous);
        let record = &mut self.records[id];
        record.offset = offset;
        record.before = before;
        self.set_after(before, id);
        span
    }

    /// Tells `before`, if there is something, that `id` lies behind it.
    #[inline]
    fn set_after(&mut self, before: Option<Id>, id: Id) {
        if let Some(before) = before {
            self.records[before].after = Some(id);
        }
    }

    /// Tells `after` that `id` lies before it; if there is nothing, `id` is the last.
    #[inline]
    fn set_before(&mut self, after: Option<Id>, id: Id) {
        match after {
            Some(after) => self.records[after].before = Some(id),
            None => self.last = Some(id),
        }
    }

    /// Puts a block into the tables. `None`: no room; nothing has changed then.
    #[inline(always)] // so that the fields go straight to their place
    fn register(&mut self, block: Record) -> Option<Id> {
        let id = self.records.insert(block)?;
        if self.index.set(block.offset.into(), id) {
            return Some(id);
        }
        self.records.remove(id);
        None
    }
}

/// The bytes that a guest's `(offset, length)` names in a memory of `size` bytes; `None` if they
/// reach past its end.
///
/// This is the only place where a pair of numbers from a guest becomes a range. Whoever wants to
/// read or write Extism memory for a guest asks here first.
#[inline]
pub fn range(offset: u64, length: u64, size: usize) -> Option<Range<usize>> {
    let end = usize::try_from(offset.checked_add(length)?).ok()?;
    let start = usize::try_from(offset).ok()?;
    (end <= size).then_some(start..end)
}

/// A copy of bytes whose number a guest or a caller chose; `None` if the host has no memory for it.
pub fn copied(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).ok()?;
    copy.extend_from_slice(bytes);
    Some(copy)
}

/// The bytes that a block of `len` bytes takes up.
#[inline]
const fn round_up(len: u64) -> u64 {
    (len + (GRAIN - 1)) & !(GRAIN - 1)
}

/// An offset or a length within [`MAX_BYTES`], in the 32 bits that it is kept in.
#[inline]
const fn narrow(bytes: u64) -> u32 {
    debug_assert!(bytes <= u32::MAX as u64);
    bytes as u32
}
