//! One record for each block and hole, in a slab: a record keeps its place, and its place is its
//! name.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

use super::{narrow, round_up};

/// The most blocks and holes that a memory can have.
///
/// It bounds what a guest with the smallest blocks costs the host: 128 MiB for 64 MiB of Extism
/// memory.
pub(super) const MAX_RECORDS: usize = 4 << 20;

/// The records that a reset leaves room for, so that the next call finds it.
const KEPT_RECORDS: usize = 512;

/// The name of a record: its place in the slab, counted from 1 (so that an `Option` of it has four
/// bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(NonZeroU32);

impl Id {
    #[inline]
    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A block or a hole: where it lies, and what lies beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) offset: u32,
    /// What was asked for. Of a hole: all of it, a multiple of 16.
    pub(super) length: u32,
    pub(super) before: Option<Id>,
    pub(super) after: Option<Id>,
    pub(super) state: State,
}

/// What a record stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Live,
    Hole(Hole),
    /// Nothing: the record can be used again, and so can `next`.
    Vacant {
        next: Option<Id>,
    },
}

/// A hole's place in the list of its size class, and its age.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub(super) older: Option<Id>,
    pub(super) newer: Option<Id>,
    /// When something in it was last freed, on the clock of [`super::holes::Holes`].
    pub(super) freed: u32,
    /// Its size class.
    pub(super) class: u8,
    /// The end at which it was free first: the one to take from.
    pub(super) old_end: End,
}

/// An end of a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Low,
    High,
}

// A power of two, so that a place is a shift away, and small.
const _: () = assert!(size_of::<Record>() == 32);
const _: () = assert!(MAX_RECORDS < u32::MAX as usize);

impl Record {
    /// The bytes that it takes up.
    #[inline]
    pub(super) fn span(&self) -> u32 {
        narrow(round_up(self.length.into()))
    }

    #[inline]
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live)
    }

    #[inline]
    pub(super) fn is_hole(&self) -> bool {
        matches!(self.state, State::Hole(_))
    }
}

/// The records of one memory.
#[derive(Debug)]
pub(super) struct Records {
    slots: Vec<Record>,
    vacant: Option<Id>,
}

impl Records {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), vacant: None }
    }

    /// Whether [`MAX_RECORDS`] are in use.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.vacant.is_none() && self.slots.len() >= MAX_RECORDS
    }

    /// `None`: full, or the host has no memory for it.
    #[inline]
    pub(super) fn insert(&mut self, record: Record) -> Option<Id> {
        if let Some(id) = self.vacant {
            let slot = &mut self.slots[id.place()];
            if let State::Vacant { next } = slot.state {
                self.vacant = next;
            }
            *slot = record;
            return Some(id);
        }
        if self.slots.len() == self.slots.capacity() && !self.make_room() {
            return None;
        }
        // In line, so that the fields go straight to their place.
        self.slots.push(record);
        NonZeroU32::new(self.slots.len() as u32).map(Id)
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) -> bool {
        !self.is_full() && self.slots.try_reserve(1).is_ok()
    }

    #[inline]
    pub(super) fn remove(&mut self, id: Id) {
        self[id].state = State::Vacant { next: self.vacant };
        self.vacant = Some(id);
    }

    /// What there is to know of a hole; `None` if it is none.
    #[inline]
    pub(super) fn hole(&self, id: Id) -> Option<&Hole> {
        match &self[id].state {
            State::Hole(hole) => Some(hole),
            _ => None,
        }
    }

    /// The same, to change it.
    #[inline]
    pub(super) fn hole_mut(&mut self, id: Id) -> Option<&mut Hole> {
        match &mut self[id].state {
            State::Hole(hole) => Some(hole),
            _ => None,
        }
    }

    /// All records, vacant ones too.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter()
    }

    /// The records that can be used again.
    #[cfg(test)]
    pub(super) fn vacancies(&self) -> usize {
        let next = |&id: &Id| match self[id].state {
            State::Vacant { next } => next,
            _ => panic!("in use"),
        };
        std::iter::successors(self.vacant, next).count()
    }

    /// The records that there is room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.slots.shrink_to(KEPT_RECORDS);
        self.vacant = None;
    }
}

impl Index<Id> for Records {
    type Output = Record;

    #[inline]
    fn index(&self, id: Id) -> &Record {
        &self.slots[id.place()]
    }
}

impl IndexMut<Id> for Records {
    #[inline]
    fn index_mut(&mut self, id: Id) -> &mut Record {
        &mut self.slots[id.place()]
    }
}
