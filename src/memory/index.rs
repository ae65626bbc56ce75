//! From a handle to its record: a table of two levels, so that a look-up is two loads and no
//! search.

use super::GRAIN;
use super::records::Id;

/// The entries of a leaf, one for each possible beginning of a block: it takes 1 KiB.
const ENTRIES: usize = 256;

/// The bytes of Extism memory that a leaf covers.
const COVERED: u64 = ENTRIES as u64 * GRAIN;

/// The leaves that a reset keeps, so that the next call finds them: the first 128 KiB of Extism
/// memory.
const KEPT_LEAVES: usize = 32;

type Leaf = [Option<Id>; ENTRIES];

/// An entry is set where a live block begins, and nowhere else. A leaf is there once a block began
/// in its part.
#[derive(Debug)]
pub(super) struct Index {
    leaves: Vec<Option<Box<Leaf>>>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { leaves: Vec::new() }
    }

    /// The block that begins at exactly this address.
    #[inline]
    pub(super) fn get(&self, handle: u64) -> Option<Id> {
        let (leaf, entry) = position(handle)?;
        self.leaves.get(leaf)?.as_ref()?[entry]
    }

    /// The same, and forgets it.
    #[inline]
    pub(super) fn take(&mut self, handle: u64) -> Option<Id> {
        let (leaf, entry) = position(handle)?;
        self.leaves.get_mut(leaf)?.as_mut()?[entry].take()
    }

    /// Forgets the block that begins at `offset`.
    pub(super) fn clear(&mut self, offset: u64) {
        self.take(offset);
    }

    /// Notes the block that begins at `offset`. False: the host has no memory for it.
    #[inline]
    pub(super) fn set(&mut self, offset: u64, id: Id) -> bool {
        let Some((leaf, entry)) = position(offset) else {
            return false;
        };
        if let Some(Some(leaf)) = self.leaves.get_mut(leaf) {
            leaf[entry] = Some(id);
            return true;
        }
        self.set_in_new_leaf(leaf, entry, id).is_some()
    }

    #[cold]
    #[inline(never)]
    fn set_in_new_leaf(&mut self, leaf: usize, entry: usize, id: Id) -> Option<()> {
        let missing = (leaf + 1).saturating_sub(self.leaves.len());
        self.leaves.try_reserve(missing).ok()?;
        let mut entries = Vec::new();
        entries.try_reserve_exact(ENTRIES).ok()?;
        entries.resize(ENTRIES, None);
        let mut new: Box<Leaf> = entries.try_into().ok()?;
        new[entry] = Some(id);
        if missing > 0 {
            self.leaves.resize_with(leaf + 1, || None);
        }
        *self.leaves.get_mut(leaf)? = Some(new);
        Some(())
    }

    /// Gives back all leaves but the first few, whose entries stay as they are.
    pub(super) fn shrink(&mut self) {
        self.leaves.truncate(KEPT_LEAVES);
        self.leaves.shrink_to(KEPT_LEAVES);
    }

    /// All entries that are set, with their addresses.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Id)> {
        let leaves = self.leaves.iter().enumerate().filter_map(|(i, leaf)| Some((i, leaf.as_ref()?)));
        leaves.flat_map(|(i, leaf)| {
            let first = i as u64 * COVERED;
            leaf.iter().enumerate().filter_map(move |(j, id)| Some((first + j as u64 * GRAIN, (*id)?)))
        })
    }

    /// The leaves that there is room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.leaves.capacity()
    }

    /// The number of leaves that there are.
    #[cfg(test)]
    pub(super) fn leaves(&self) -> usize {
        self.leaves.iter().flatten().count()
    }
}

/// Leaf and entry of an address; `None` where no block can begin.
#[inline]
fn position(address: u64) -> Option<(usize, usize)> {
    if !address.is_multiple_of(GRAIN) {
        return None;
    }
    let leaf = usize::try_from(address / COVERED).ok()?;
    Some((leaf, (address % COVERED / GRAIN) as usize))
}
