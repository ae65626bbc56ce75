//! Freed space, by size and age: finds a hole that is large enough, and long enough free, in
//! constant time.
//!
//! Holes are in lists by size class, four classes to each doubling, the longest freed at the head:
//!
//! ```text
//! class        1    2    3    4    5    6    7    8 ...   12 ...   107
//! bytes from  16   32   48   64   80   96  112  128      256       7/8 of 4 GiB
//! occupied     1    0    0    0    0    1    0    1 ...    0 ...     0
//!              |                        |         |
//!            oldest                  oldest    oldest
//!              |                        |
//!            newest                  newest
//! ```

use super::GRAIN;
use super::records::{End, Hole, Id, Records, State};

/// Classes 1 to 3 hold holes of that many grains; after them come four for each doubling up to 2^28
/// grains.
const CLASSES: usize = 108;

/// The holes at which a request looks in its own class, where the members may be a little too small
/// for it.
const LOOKED_AT: usize = 8;

/// A hole is *rested* when this many blocks were freed after it.
///
/// A guest may free a handle once more, some time after the library has freed it. By then the
/// handle should not belong to another block. So the hole whose size fits best is taken only if it
/// is rested; otherwise age decides. (Age alone would cut large holes up needlessly, and memory
/// would grow by a tenth more.)
const RESTED: u32 = 64;

/// The lists of holes.
#[derive(Debug)]
pub(super) struct Holes {
    pub(super) lists: [List; CLASSES],
    /// One bit for each class: its list is not empty.
    pub(super) occupied: u128,
    /// Counts what is freed. After 2^32 it begins anew, and ages are wrong for a while: only the
    /// order of reuse depends on them.
    clock: u32,
}

/// The holes of one size class.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    pub(super) oldest: Option<Id>,
    pub(super) newest: Option<Id>,
}

const EMPTY: List = List { oldest: None, newest: None };

impl Holes {
    pub(super) fn new() -> Self {
        Self { lists: [EMPTY; CLASSES], occupied: 0, clock: 0 }
    }

    /// Makes a record a hole that was freed just now.
    #[inline]
    pub(super) fn add(&mut self, records: &mut Records, id: Id) {
        let freed = self.tick();
        let record = &mut records[id];
        record.length = record.span();
        let class = class_of(record.length) as u8;
        let hole = Hole { older: None, newer: None, freed, class, old_end: End::Low };
        record.state = State::Hole(hole);
        self.append(records, id);
    }

    /// Lengthens a hole by something that was freed just now: it becomes as young as its youngest
    /// part.
    #[inline]
    pub(super) fn grow(&mut self, records: &mut Records, id: Id, by: u32, old_end: End) {
        let freed = self.tick();
        let record = &mut records[id];
        record.length += by;
        let class = class_of(record.length) as u8;
        if let State::Hole(hole) = &mut record.state {
            hole.freed = freed;
            hole.old_end = old_end;
            if hole.class != class || hole.newer.is_some() {
                self.append_again(records, id, class);
            }
        }
    }

    /// Makes a hole that is in some list the newest of a class.
    #[inline(never)]
    fn append_again(&mut self, records: &mut Records, id: Id, class: u8) {
        self.remove(records, id);
        if let Some(hole) = records.hole_mut(id) {
            hole.class = class;
        }
        self.append(records, id);
    }

    /// Shortens a hole, which keeps its age.
    #[inline]
    pub(super) fn shrink(&mut self, records: &mut Records, id: Id, to: u32) {
        let record = &mut records[id];
        record.length = to;
        let class = class_of(to);
        if !matches!(&record.state, State::Hole(hole) if usize::from(hole.class) == class) {
            self.insert_by_age(records, id, class);
        }
    }

    /// Moves a hole to another class: to one of the ends, whichever its age is closer to.
    #[inline(never)]
    fn insert_by_age(&mut self, records: &mut Records, id: Id, class: usize) {
        self.remove(records, id);
        if let Some(hole) = records.hole_mut(id) {
            hole.class = class as u8;
        }
        match self.lists[class].oldest {
            Some(oldest) if self.age(records, id) > self.age(records, oldest) => {
                self.prepend(records, id, oldest);
            }
            _ => self.append(records, id),
        }
    }

    /// Takes a hole out of its list.
    #[inline]
    pub(super) fn remove(&mut self, records: &mut Records, id: Id) {
        let Some(&Hole { older, newer, class, .. }) = records.hole(id) else {
            return;
        };
        let class = usize::from(class);
        match older {
            Some(older) => set_newer(records, older, newer),
            None => self.lists[class].oldest = newer,
        }
        match newer {
            Some(newer) => set_older(records, newer, older),
            None => self.lists[class].newest = older,
        }
        if self.lists[class].oldest.is_none() {
            self.occupied &= !(1 << class);
        }
    }

    /// A hole of at least `span` bytes: a rested one that fits well, otherwise the longest freed
    /// that is at hand.
    pub(super) fn find(&self, records: &Records, span: u32) -> Option<Id> {
        let class = class_of(span);
        let mut larger = self.occupied & (u128::MAX << class << 1);
        let mut found = match self.find_in_class(records, class, span) {
            Some(id) => id,
            None => self.oldest_of_next(&mut larger)?,
        };
        let mut age = self.age(records, found);
        if age >= RESTED {
            return Some(found);
        }
        while let Some(id) = self.oldest_of_next(&mut larger) {
            let its_age = self.age(records, id);
            if its_age > age {
                (found, age) = (id, its_age);
            }
        }
        Some(found)
    }

    /// The longest freed hole of the first of these classes, which is taken out of them.
    #[inline]
    fn oldest_of_next(&self, classes: &mut u128) -> Option<Id> {
        let list = self.lists.get(classes.trailing_zeros() as usize)?;
        *classes &= *classes - 1;
        list.oldest
    }

    /// Looks at the first few of a class.
    fn find_in_class(&self, records: &Records, class: usize, span: u32) -> Option<Id> {
        let newer = |&id: &Id| records.hole(id)?.newer;
        std::iter::successors(self.lists[class].oldest, newer).take(LOOKED_AT).find(|&id| records[id].length >= span)
    }

    /// The end that was free first when what lies between these two holes is freed.
    pub(super) fn older_end(&self, records: &Records, low: Id, high: Id) -> End {
        if self.age(records, low) >= self.age(records, high) { End::Low } else { End::High }
    }

    /// Forgets all holes, in as many steps as there are classes in use.
    pub(super) fn clear(&mut self) {
        while let Some(list) = self.lists.get_mut(self.occupied.trailing_zeros() as usize) {
            *list = EMPTY;
            self.occupied &= self.occupied - 1;
        }
        self.clock = 0;
    }

    /// How many blocks were freed since something in this hole was.
    #[inline]
    fn age(&self, records: &Records, id: Id) -> u32 {
        records.hole(id).map_or(0, |hole| self.clock.wrapping_sub(hole.freed))
    }

    #[inline]
    fn tick(&mut self) -> u32 {
        self.clock = self.clock.wrapping_add(1);
        self.clock
    }

    /// Makes a hole, which is in no list, the newest of its class.
    #[inline]
    fn append(&mut self, records: &mut Records, id: Id) {
        let Some(hole) = records.hole_mut(id) else {
            return;
        };
        let class = usize::from(hole.class);
        let list = &mut self.lists[class];
        let older = list.newest.replace(id);
        hole.older = older;
        hole.newer = None;
        match older {
            Some(older) => set_newer(records, older, Some(id)),
            None => {
                list.oldest = Some(id);
                self.occupied |= 1 << class;
            }
        }
    }

    /// Makes a hole, which is in no list, the oldest of its class, before the one that was it.
    fn prepend(&mut self, records: &mut Records, id: Id, oldest: Id) {
        let Some(hole) = records.hole_mut(id) else {
            return;
        };
        hole.older = None;
        hole.newer = Some(oldest);
        self.lists[usize::from(hole.class)].oldest = Some(id);
        set_older(records, oldest, Some(id));
    }
}

/// The size class of a hole of so many bytes, and the class in which a block of so many bytes looks
/// first.
#[inline]
pub(super) fn class_of(span: u32) -> usize {
    let grains = span / GRAIN as u32;
    let Some(doublings) = grains.checked_ilog2().and_then(|log| log.checked_sub(2)) else {
        return grains as usize;
    };
    (doublings * 4 + (grains >> doublings)) as usize
}

#[inline]
fn set_older(records: &mut Records, id: Id, older: Option<Id>) {
    if let Some(hole) = records.hole_mut(id) {
        hole.older = older;
    }
}

#[inline]
fn set_newer(records: &mut Records, id: Id, newer: Option<Id>) {
    if let Some(hole) = records.hole_mut(id) {
        hole.newer = newer;
    }
}
