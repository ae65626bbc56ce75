//! What holds between any two operations.

use std::collections::BTreeSet;

use crate::memory::holes::class_of;
use crate::memory::records::Id;
use crate::memory::{Blocks, FIRST, MAX_BYTES};

/// Panics if the tables contradict each other.
pub(super) fn check(blocks: &Blocks) {
    check_records(blocks);
    let live: Vec<(u64, Id)> = live(blocks, &chain(blocks)).collect();
    assert_eq!(blocks.index.iter().collect::<Vec<_>>(), live);
}

/// The same without a look at each entry of the index, of which there are many.
pub(super) fn check_records(blocks: &Blocks) {
    let chain = chain(blocks);
    check_neighbours(blocks, &chain);
    check_holes(blocks, &chain);
    assert!(live(blocks, &chain).all(|(at, id)| blocks.index.get(at) == Some(id)));
    let records = blocks.records.iter().count();
    assert_eq!(chain.len() + blocks.records.vacancies(), records, "a record is lost");
}

/// All blocks and holes in the order of their addresses.
fn chain(blocks: &Blocks) -> Vec<Id> {
    let mut chain: Vec<Id> = std::iter::successors(blocks.last, |&id| blocks.records[id].before).collect();
    chain.reverse();
    chain
}

fn check_neighbours(blocks: &Blocks, chain: &[Id]) {
    let mut end = FIRST;
    for (i, &id) in chain.iter().enumerate() {
        let record = blocks.records[id];
        assert_eq!(u64::from(record.offset), end, "a gap or an overlap");
        assert_eq!(record.after, chain.get(i + 1).copied());
        assert!(record.is_live() || record.is_hole());
        assert!(record.length > 0);
        end += u64::from(record.span());
        if let Some(&next) = chain.get(i + 1) {
            assert!(record.is_live() || blocks.records[next].is_live(), "two holes side by side");
        }
    }
    assert_eq!(end, blocks.top);
    assert!(end <= MAX_BYTES);
}

fn live<'a>(blocks: &'a Blocks, chain: &'a [Id]) -> impl Iterator<Item = (u64, Id)> + 'a {
    let live = chain.iter().filter(|&&id| blocks.records[id].is_live());
    live.map(|&id| (u64::from(blocks.records[id].offset), id))
}

fn check_holes(blocks: &Blocks, chain: &[Id]) {
    let mut listed = BTreeSet::new();
    for (class, list) in blocks.holes.lists.iter().enumerate() {
        assert_eq!(list.oldest.is_some(), blocks.holes.occupied >> class & 1 == 1);
        let (mut older, mut next) = (None, list.oldest);
        while let Some(id) = next {
            let hole = *blocks.records.hole(id).expect("only holes are listed");
            let record = blocks.records[id];
            assert_eq!(record.length % 16, 0);
            assert_eq!(usize::from(hole.class), class);
            assert_eq!(class_of(record.length), class);
            assert_eq!(hole.older, older);
            assert!(listed.insert(record.offset), "listed twice");
            (older, next) = (next, hole.newer);
        }
        assert_eq!(list.newest, older);
    }
    let holes = chain.iter().filter(|&&id| blocks.records[id].is_hole());
    assert_eq!(holes.count(), listed.len(), "a hole is in no list");
}

#[test]
fn classes_are_in_order_and_narrow() {
    let sizes = (1u64..5000).map(|grains| grains * 16).chain(
        (13..32)
            .flat_map(|log| [(1u64 << log) - 16, 1 << log, (1 << log) + 16, (1 << log) * 5 / 4, (1 << log) * 7 / 4]),
    );
    let mut sizes: Vec<u32> = sizes.filter_map(|size| u32::try_from(size).ok()).collect();
    sizes.push(u32::MAX - 15);
    sizes.sort_unstable();
    for pair in sizes.windows(2) {
        let (low, high) = (class_of(pair[0]), class_of(pair[1]));
        assert!(low <= high, "{pair:?}");
        assert!(low < high || pair[1] - pair[0] < pair[0].div_ceil(4), "{pair:?}");
    }
    assert_eq!(class_of(16), 1);
    assert_eq!(class_of(u32::MAX - 15), 107);
}
