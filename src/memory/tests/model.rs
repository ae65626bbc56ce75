//! Random operations, compared with a model that is too simple to be wrong: a sorted map of the
//! live blocks.

use std::collections::BTreeMap;

use super::invariants::{check, check_records};
use crate::memory::holes::class_of;
use crate::memory::{Blocks, FIRST, MAX_BYTES, Shortage};

/// A small generator of numbers that look random (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Any order of magnitude up to `log` bits.
    fn length(&mut self, log: u64) -> u64 {
        let bits = self.below(log + 1);
        1 + self.below(1 << bits)
    }
}

fn span(len: u64) -> u64 {
    len.next_multiple_of(16)
}

struct Test {
    random: Random,
    blocks: Blocks,
    /// Handle and length of each live block.
    live: BTreeMap<u64, u64>,
    /// Handles that were freed.
    dead: Vec<u64>,
    top: u64,
    capacity: u64,
    /// The memory does not grow past this.
    limit: u64,
    longest_log: u64,
}

impl Test {
    fn new(seed: u64, limit: u64, longest_log: u64) -> Self {
        Self {
            random: Random(seed),
            blocks: Blocks::new(),
            live: BTreeMap::new(),
            dead: Vec::new(),
            top: FIRST,
            capacity: 0,
            limit,
            longest_log,
        }
    }

    /// The free ranges below the top, as offset and length.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let ends = std::iter::once(FIRST).chain(self.live.iter().map(|(&at, &len)| at + span(len)));
        let starts = self.live.keys().copied().chain([self.top]);
        ends.zip(starts).filter(|(end, start)| end < start).map(|(end, start)| (end, start - end)).collect()
    }

    fn step(&mut self) {
        match self.random.below(1000) {
            0 => self.reset(),
            1..=480 => self.alloc(),
            481..=900 => self.free_live(),
            901..=950 => self.free_dead(),
            _ => self.ask(),
        }
        assert_eq!(self.blocks.high_water(), self.top);
        check_records(&self.blocks);
        let (at, len) = self.pick();
        assert_eq!(self.blocks.length(at), len);
    }

    /// A live block, if there is one.
    fn pick(&mut self) -> (u64, Option<u64>) {
        let from = FIRST + self.random.below(self.top);
        let next = self.live.range(from..).next().or_else(|| self.live.iter().next());
        next.map_or((from, None), |(&at, &len)| (at, Some(len)))
    }

    fn alloc(&mut self) {
        let len = self.random.length(self.longest_log);
        let mut result = self.blocks.alloc(len, self.capacity);
        if let Err(Shortage::Grow { to }) = result {
            self.expect_growth(len, to);
            assert_eq!(self.blocks.alloc(len, to - 1), result, "less is not enough");
            check_records(&self.blocks);
            let wanted = if self.random.below(2) == 0 { to } else { to.next_multiple_of(65536) };
            if wanted > self.limit {
                return self.free_live();
            }
            self.capacity = wanted;
            result = self.blocks.alloc(len, wanted);
        }
        match result {
            Ok(handle) => self.expect_block(handle, len),
            Err(shortage) => {
                assert_eq!(shortage, Shortage::Never);
                assert!(self.start_of_growth() + span(len) > MAX_BYTES);
                self.free_live();
            }
        }
    }

    /// Where a block begins for which the memory grows.
    fn start_of_growth(&self) -> u64 {
        let last = self.gaps().last().copied();
        last.filter(|(at, len)| at + len == self.top).map_or(self.top, |(at, _)| at)
    }

    fn expect_growth(&self, len: u64, to: u64) {
        assert!(to > self.capacity && to <= MAX_BYTES);
        assert_eq!(to, self.start_of_growth() + span(len));
        self.expect_no_obvious_gap(len);
    }

    /// The manager may overlook a gap of the same size class, but none of a larger class.
    fn expect_no_obvious_gap(&self, len: u64) {
        let class = class_of(span(len) as u32);
        assert!(self.gaps().iter().all(|&(_, gap)| class_of(gap as u32) <= class));
    }

    fn expect_block(&mut self, handle: u64, len: u64) {
        let end = handle + span(len);
        assert!(handle >= FIRST && handle.is_multiple_of(16) && end <= self.capacity);
        if self.top + span(len) <= self.capacity {
            assert_eq!(handle, self.top, "freed space is used although there is other");
        } else if end > self.top {
            assert_eq!(handle, self.start_of_growth());
            self.expect_no_obvious_gap(len);
        } else {
            let inside = |&(at, gap): &(u64, u64)| at <= handle && end <= at + gap;
            assert!(self.gaps().iter().any(inside), "in no gap");
        }
        assert!(self.live.range(..end).next_back().is_none_or(|(&at, &len)| at + span(len) <= handle));
        self.live.insert(handle, len);
        self.top = self.top.max(end);
    }

    fn free_live(&mut self) {
        if let (at, Some(_)) = self.pick() {
            assert!(self.blocks.free(at));
            self.live.remove(&at);
            self.dead.push(at);
        }
    }

    fn free_dead(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let at = self.dead[self.random.below(self.dead.len() as u64) as usize];
        assert_eq!(self.blocks.free(at), self.live.remove(&at).is_some());
    }

    /// Any number, most of them near blocks.
    fn ask(&mut self) {
        let mut at = self.random.below(self.top + 64);
        match self.random.below(4) {
            0 => at = self.random.next(),
            1 => at &= !15,
            _ => {}
        }
        assert_eq!(self.blocks.length(at), self.live.get(&at).copied());
        assert_eq!(self.blocks.free(at), self.live.remove(&at).is_some());
    }

    fn reset(&mut self) {
        check(&self.blocks);
        self.blocks.reset();
        self.dead.extend(self.live.keys());
        self.live.clear();
        self.top = FIRST;
    }
}

fn run(limit: u64, longest_log: u64) {
    for seed in 0..8 {
        let mut test = Test::new(seed, limit, longest_log);
        for _ in 0..3000 {
            test.step();
        }
        check(&test.blocks);
    }
}

#[test]
fn small_blocks_in_a_tight_memory() {
    run(4 << 10, 8);
}

#[test]
fn blocks_of_all_sizes_in_one_page() {
    run(64 << 10, 14);
}

#[test]
fn blocks_over_many_leaves() {
    run(8 << 20, 20);
}

#[test]
fn blocks_up_to_the_end_of_memory() {
    run(MAX_BYTES, 33);
}
