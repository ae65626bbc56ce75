//! What [`Blocks`] promises, and what misuse of it does.

mod invariants;
mod model;

use super::records::MAX_RECORDS;
use super::{Blocks, FIRST, MAX_BYTES, Shortage, range};
use invariants::check;

const PAGE: u64 = 64 << 10;

/// A memory so full that the next block of 16 bytes or more does not fit behind the last: `count`
/// blocks of `len` bytes, and the capacity.
fn full(count: usize, len: u64) -> (Blocks, Vec<u64>, u64) {
    let mut blocks = Blocks::new();
    let handles = (0..count).map(|_| blocks.alloc(len, MAX_BYTES).unwrap()).collect();
    let capacity = blocks.high_water();
    (blocks, handles, capacity)
}

fn free_all(blocks: &mut Blocks, handles: &[u64]) {
    for &handle in handles {
        assert!(blocks.free(handle));
        check(blocks);
    }
}

#[test]
fn handles_are_aligned_and_blocks_lie_side_by_side() {
    let mut blocks = Blocks::new();
    let mut expected = FIRST;
    for len in 1..=100 {
        let handle = blocks.alloc(len, PAGE).unwrap();
        assert_eq!(handle, expected);
        assert_eq!(blocks.length(handle), Some(len));
        expected += len.next_multiple_of(16);
        assert_eq!(blocks.high_water(), expected);
    }
    check(&blocks);
}

#[test]
fn no_length_is_no_block() {
    let mut blocks = Blocks::new();
    assert_eq!(blocks.alloc(0, 0), Ok(0));
    assert_eq!(blocks.high_water(), FIRST);
    assert_eq!(blocks.length(0), None);
    assert!(!blocks.free(0));
}

#[test]
fn only_exact_beginnings_of_live_blocks_are_handles() {
    let (mut blocks, handles, capacity) = full(3, 100);
    for wrong in [0, 1, 15, 17, 24, 32, 112, capacity, capacity + 16, MAX_BYTES, 1 << 63, u64::MAX - 15, u64::MAX] {
        assert_eq!(blocks.length(wrong), None, "{wrong}");
        assert!(!blocks.free(wrong), "{wrong}");
    }
    // The same low 32 bits, or the same entry of another leaf.
    for step in [1 << 14, 1 << 32, 1 << 40, 1 << 63] {
        assert_eq!(blocks.length(handles[1] + step), None, "{step}");
        assert!(!blocks.free(handles[1] + step), "{step}");
    }
    check(&blocks);
    assert!(handles.iter().all(|&handle| blocks.length(handle) == Some(100)));
}

#[test]
fn a_second_free_does_nothing() {
    let (mut blocks, handles, _) = full(3, 40);
    for _ in 0..2 {
        blocks.free(handles[1]);
        assert_eq!(blocks.length(handles[1]), None);
        check(&blocks);
    }
    assert!(!blocks.free(handles[1]));
    assert!(blocks.free(handles[0]));
    assert!(!blocks.free(handles[1]), "now inside of a hole");
    check(&blocks);
}

#[test]
fn freed_space_is_left_alone_while_there_is_other() {
    let mut blocks = Blocks::new();
    let first = blocks.alloc(64, PAGE).unwrap();
    let mut top = FIRST + 64;
    assert!(blocks.free(first));
    while top + 64 <= PAGE {
        let handle = blocks.alloc(64, PAGE).unwrap();
        assert_eq!(handle, top);
        assert!(blocks.free(handle));
        top += 64;
    }
    assert_eq!(blocks.alloc(64, PAGE), Ok(first), "the first that was freed");
    check(&blocks);
}

#[test]
fn the_longest_freed_comes_first() {
    // Every second block stays, so that no holes merge.
    let (mut blocks, handles, capacity) = full(40, 64);
    let order = [6, 0, 38, 20, 12, 2];
    free_all(&mut blocks, &order.map(|i| handles[i]));
    for i in order {
        assert_eq!(blocks.alloc(64, capacity), Ok(handles[i]));
        check(&blocks);
    }
}

#[test]
fn an_older_hole_that_is_larger_comes_before_a_younger_that_fits() {
    let mut blocks = Blocks::new();
    let large = blocks.alloc(4096, MAX_BYTES).unwrap();
    blocks.alloc(16, MAX_BYTES).unwrap();
    let small = blocks.alloc(64, MAX_BYTES).unwrap();
    let capacity = blocks.alloc(16, MAX_BYTES).unwrap() + 16;
    free_all(&mut blocks, &[large, small]);
    assert_eq!(blocks.alloc(64, capacity), Ok(large));
    check(&blocks);
}

#[test]
fn a_rested_hole_that_fits_comes_before_an_older_that_is_larger() {
    let (mut blocks, handles, _) = full(200, 64);
    let large = blocks.alloc(4096, MAX_BYTES).unwrap();
    let capacity = blocks.alloc(16, MAX_BYTES).unwrap() + 16;
    assert!(blocks.free(large));
    let small: Vec<u64> = handles.iter().copied().step_by(2).collect();
    free_all(&mut blocks, &small);
    assert_eq!(blocks.alloc(64, capacity), Ok(small[0]));
}

#[test]
fn a_merged_hole_is_taken_from_at_the_end_that_was_free_first() {
    for (freed, expected) in
        [([0, 1, 2], [0, 1, 2]), ([2, 1, 0], [2, 1, 0]), ([2, 0, 1], [2, 1, 0]), ([0, 2, 1], [0, 1, 2])]
    {
        let (mut blocks, handles, capacity) = full(4, 64);
        free_all(&mut blocks, &freed.map(|i| handles[i]));
        for i in expected {
            assert_eq!(blocks.alloc(64, capacity), Ok(handles[i]), "freed in the order {freed:?}");
            check(&blocks);
        }
    }
}

#[test]
fn a_hole_is_as_young_as_its_youngest_part() {
    // The other hole is once of the same size class, once of a larger one.
    for other in [64, 90] {
        let lens = [64, 1, 1, other, 1].map(|grains| grains * 16);
        let mut blocks = Blocks::new();
        let handles = lens.map(|len| blocks.alloc(len, MAX_BYTES).unwrap());
        let capacity = blocks.high_water();
        free_all(&mut blocks, &[handles[0], handles[3], handles[1]]);
        assert_eq!(blocks.alloc(64 * 16, capacity), Ok(handles[3]), "{other}");
        check(&blocks);
    }
}

#[test]
fn the_rest_of_an_old_hole_is_old() {
    let mut blocks = Blocks::new();
    let large = blocks.alloc(4096, MAX_BYTES).unwrap();
    blocks.alloc(16, MAX_BYTES).unwrap();
    let small = blocks.alloc(1024, MAX_BYTES).unwrap();
    let capacity = blocks.alloc(16, MAX_BYTES).unwrap() + 16;
    free_all(&mut blocks, &[large, small]);
    assert_eq!(blocks.alloc(3072, capacity), Ok(large));
    assert_eq!(blocks.alloc(1024, capacity), Ok(large + 3072));
    assert_eq!(blocks.alloc(1024, capacity), Ok(small));
    check(&blocks);
}

#[test]
fn a_hole_at_the_end_is_found_behind_smaller_ones() {
    // More holes of its class, too small for the request, than are looked at.
    let (mut blocks, handles, _) = full(100, 20 * 16);
    let last = blocks.alloc(23 * 16, MAX_BYTES).unwrap();
    let capacity = blocks.high_water();
    let small: Vec<u64> = handles.iter().copied().step_by(2).collect();
    free_all(&mut blocks, &small);
    assert!(blocks.free(last));
    assert_eq!(blocks.alloc(22 * 16, capacity), Ok(last));
    assert_eq!(blocks.high_water(), capacity);
    check(&blocks);
}

#[test]
fn neighbours_merge() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let (mut blocks, handles, capacity) = full(5, 100);
        free_all(&mut blocks, &order.map(|i| handles[i]));
        assert_eq!(blocks.alloc(3 * 112, capacity), Ok(handles[1]), "{order:?}");
        check(&blocks);
        assert_eq!(blocks.length(handles[1]), Some(3 * 112));
    }
}

#[test]
fn growth_is_exactly_what_the_block_needs() {
    let mut blocks = Blocks::new();
    assert_eq!(blocks.alloc(100, 0), Err(Shortage::Grow { to: 128 }));
    assert_eq!(blocks.alloc(100, 127), Err(Shortage::Grow { to: 128 }));
    assert_eq!(blocks.high_water(), FIRST, "nothing has changed");
    assert_eq!(blocks.alloc(100, 128), Ok(16));
    assert_eq!(blocks.alloc(PAGE, PAGE), Err(Shortage::Grow { to: 128 + PAGE }));
    assert_eq!(blocks.alloc(PAGE, 128 + PAGE), Ok(128));
    check(&blocks);
}

#[test]
fn a_hole_at_the_end_is_grown_into() {
    let (mut blocks, handles, capacity) = full(3, 64);
    assert!(blocks.free(handles[2]));
    assert_eq!(blocks.high_water(), capacity, "does not sink");
    let to = handles[2] + 256;
    assert_eq!(blocks.alloc(256, capacity), Err(Shortage::Grow { to }));
    check(&blocks);
    assert_eq!(blocks.alloc(256, to), Ok(handles[2]));
    assert_eq!(blocks.high_water(), to);
    check(&blocks);
}

#[test]
fn what_fits_no_memory_never_succeeds() {
    let mut blocks = Blocks::new();
    let longest = MAX_BYTES - FIRST;
    for len in [longest + 1, MAX_BYTES, MAX_BYTES + 1, 1 << 63, u64::MAX - 15, u64::MAX] {
        assert_eq!(blocks.alloc(len, u64::MAX), Err(Shortage::Never), "{len}");
        assert_eq!(blocks.alloc(len, 0), Err(Shortage::Never), "{len}");
    }
    assert_eq!(blocks.alloc(longest, 0), Err(Shortage::Grow { to: MAX_BYTES }));
    assert_eq!(blocks.alloc(longest, MAX_BYTES), Ok(FIRST));
    assert_eq!(blocks.length(FIRST), Some(longest));
    check(&blocks);
    assert_eq!(blocks.alloc(1, u64::MAX), Err(Shortage::Never));
    assert!(blocks.free(FIRST));
    assert_eq!(blocks.alloc(longest - 5, u64::MAX), Ok(FIRST));
    check(&blocks);
}

#[test]
fn the_last_16_bytes_can_be_a_block() {
    let mut blocks = Blocks::new();
    let large = blocks.alloc(MAX_BYTES - 2 * FIRST, MAX_BYTES).unwrap();
    assert_eq!(blocks.alloc(17, u64::MAX), Err(Shortage::Never));
    assert_eq!(blocks.alloc(1, MAX_BYTES), Ok(MAX_BYTES - 16));
    assert_eq!(blocks.length(MAX_BYTES - 16), Some(1));
    check(&blocks);
    free_all(&mut blocks, &[MAX_BYTES - 16, large]);
    assert_eq!(blocks.alloc(MAX_BYTES - FIRST, MAX_BYTES), Ok(FIRST));
    check(&blocks);
}

#[test]
fn reset_forgets_everything() {
    let (mut blocks, handles, capacity) = full(3000, 100);
    for handle in handles.iter().step_by(3) {
        assert!(blocks.free(*handle));
    }
    blocks.reset();
    check(&blocks);
    assert_eq!(blocks.high_water(), FIRST);
    for &handle in &handles {
        assert_eq!(blocks.length(handle), None);
        assert!(!blocks.free(handle));
    }
    assert_eq!(blocks.alloc(100, capacity), Ok(FIRST));
    check(&blocks);
}

#[test]
fn reset_gives_large_tables_back() {
    let (mut blocks, ..) = full(100_000, 16);
    blocks.alloc(MAX_BYTES / 2, MAX_BYTES).unwrap();
    blocks.alloc(16, MAX_BYTES).unwrap();
    blocks.reset();
    check(&blocks);
    assert!(blocks.records.capacity() <= 1024, "{}", blocks.records.capacity());
    assert!(blocks.index.leaves() <= 32, "{}", blocks.index.leaves());
    assert!(blocks.index.capacity() <= 64, "{}", blocks.index.capacity());
}

#[test]
fn leaves_of_the_index_do_not_mix() {
    let mut blocks = Blocks::new();
    // Each block begins at the same entry of the next leaf.
    let leaf = 256 * 16;
    let handles: Vec<u64> = (1..=40).map(|len| blocks.alloc(leaf - len % 16, MAX_BYTES).unwrap()).collect();
    for (i, &handle) in handles.iter().enumerate() {
        assert_eq!(handle, FIRST + i as u64 * leaf);
        assert_eq!(blocks.length(handle), Some(leaf - (i as u64 + 1) % 16));
    }
    assert!(blocks.free(handles[7]));
    let gone: Vec<bool> = handles.iter().map(|&handle| blocks.length(handle).is_none()).collect();
    assert_eq!(gone.iter().position(|&gone| gone), Some(7));
    assert_eq!(gone.iter().filter(|&&gone| gone).count(), 1);
    check(&blocks);
}

#[test]
fn records_are_bounded() {
    let (mut blocks, handles, capacity) = full(MAX_RECORDS, 16);
    assert_eq!(blocks.alloc(16, MAX_BYTES), Err(Shortage::Never));
    assert_eq!(blocks.alloc(16, capacity), Err(Shortage::Never));
    for handle in handles[..2000].iter().step_by(2) {
        assert!(blocks.free(*handle));
    }
    // Holes are records too: only a block that fills one exactly finds its place, at any capacity.
    assert_eq!(blocks.alloc(16, MAX_BYTES), Ok(handles[0]));
    assert_eq!(blocks.alloc(17, MAX_BYTES), Err(Shortage::Never));
    // Merging gives records back.
    assert!(blocks.free(handles[3]));
    assert_eq!(blocks.alloc(17, MAX_BYTES), Ok(capacity));
    blocks.reset();
    check(&blocks);
    assert_eq!(blocks.alloc(16, capacity), Ok(FIRST));
}

#[test]
fn a_hostile_pattern_costs_no_more_than_a_friendly_one() {
    // Holes of a class whose members are too small for the request, in a memory that is full.
    let (mut blocks, handles, capacity) = full(200_000, 20 * 16);
    for handle in handles.iter().step_by(2) {
        assert!(blocks.free(*handle));
    }
    let start = std::time::Instant::now();
    for _ in 0..100_000 {
        assert!(matches!(blocks.alloc(23 * 16, capacity), Err(Shortage::Grow { .. })));
    }
    // A scan would take 10^10 steps.
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn a_range_lies_within_the_memory_or_is_none() {
    assert_eq!(range(0, 0, 0), Some(0..0));
    assert_eq!(range(0, 1, 0), None);
    assert_eq!(range(16, 4, 20), Some(16..20));
    assert_eq!(range(16, 5, 20), None);
    assert_eq!(range(20, 0, 20), Some(20..20));
    assert_eq!(range(21, 0, 20), None);
    assert_eq!(range(u64::MAX, 0, 20), None);
    assert_eq!(range(u64::MAX, 1, 20), None);
    assert_eq!(range(1, u64::MAX, usize::MAX), None);
    assert_eq!(range(16, u64::MAX - 15, 20), None);
    assert_eq!(range(1 << 32, 1, 20), None);
    assert_eq!(range(0, usize::MAX as u64, usize::MAX), Some(0..usize::MAX));
}
