//! The guest functions on a memory that is a plain vector.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::Mutex;
use uuid::Uuid;

use super::*;
use crate::state::interrupt::Interrupt;

const PAGE: usize = 64 * 1024;

/// A plug-in without a guest.
struct Bench {
    memory: Vec<u8>,
    max: usize,
    state: State,
}

impl Bench {
    fn new(max_pages: usize) -> Self {
        let config = BTreeMap::from([(b"key".to_vec(), "value".into())]);
        let config = Arc::new(Mutex::new(config));
        let state = State::new(Uuid::nil(), Arc::new(Interrupt::new()), config, Some(20));
        Self { memory: vec![0; PAGE], max: max_pages * PAGE, state }
    }

    /// Calls a guest function by its name.
    fn run(&mut self, name: &str, args: &[u64]) -> Result<u64, Fail> {
        let entry = TABLE.iter().find(|entry| entry.name == name).unwrap();
        assert_eq!(entry.params.len(), args.len());
        let arg = |index: usize| args.get(index).copied().unwrap_or(0);
        (entry.run)(self, [arg(0), arg(1)])
    }

    fn text(&mut self, text: &str) -> u64 {
        place(self, text.as_bytes()).unwrap()
    }

    fn read(&self, handle: u64) -> &[u8] {
        block(&self.memory, &self.state, handle).unwrap()
    }
}

impl Guest for Bench {
    fn parts(&mut self) -> (&mut [u8], &mut State) {
        (&mut self.memory, &mut self.state)
    }

    fn state(&mut self) -> &mut State {
        &mut self.state
    }

    fn size(&mut self) -> u64 {
        self.memory.len() as u64
    }

    fn grow(&mut self, to: u64) -> bool {
        let to = usize::try_from(to).unwrap().next_multiple_of(PAGE);
        if to > self.max {
            return false;
        }
        self.memory.resize(to, 0);
        true
    }

    fn erase(&mut self, bytes: std::ops::Range<u64>) {
        self.memory[bytes.start as usize..bytes.end as usize].fill(0);
    }

    fn policy(&mut self) -> Arc<http::Policy> {
        Arc::new(http::Policy::new(None, None).unwrap())
    }
}

#[test]
fn names_are_there_once() {
    let mut names: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
    assert!(TABLE.iter().all(|entry| entry.params.len() <= 2));
}

#[test]
fn the_input_is_read_to_its_end_and_no_further() {
    let mut bench = Bench::new(1);
    begin(&mut bench, b"0123456789").unwrap();
    let after = bench.run("alloc", &[8]).unwrap();
    bench.run("store_u64", &[after, u64::MAX]).unwrap();
    assert_eq!(bench.run("input_length", &[]).unwrap(), 10);
    assert_eq!(bench.run("input_load_u64", &[2]).unwrap(), u64::from_le_bytes(*b"23456789"));
    assert_eq!(bench.run("input_load_u8", &[9]).unwrap(), u64::from(b'9'));
    for past in [10, u64::MAX] {
        assert_eq!(bench.run("input_load_u8", &[past]).unwrap(), 0);
    }
    for past in [3, u64::MAX, u64::MAX - 7] {
        assert_eq!(bench.run("input_load_u64", &[past]).unwrap(), 0);
    }
}

#[test]
fn loads_and_stores_end_at_the_end_of_memory() {
    let mut bench = Bench::new(1);
    let end = PAGE as u64;
    bench.run("store_u64", &[end - 8, 7]).unwrap();
    assert_eq!(bench.run("load_u64", &[end - 8]).unwrap(), 7);
    for bad in [end - 7, end, u64::MAX, u64::MAX - 7] {
        assert!(matches!(bench.run("load_u64", &[bad]), Err(Fail::OutOfBounds)));
        assert!(matches!(bench.run("store_u64", &[bad, 1]), Err(Fail::OutOfBounds)));
    }
    assert!(matches!(bench.run("load_u8", &[end]), Err(Fail::OutOfBounds)));
    assert!(matches!(bench.run("store_u8", &[end, 1]), Err(Fail::OutOfBounds)));
}

#[test]
fn ranges_outside_are_errors_and_change_nothing() {
    let mut bench = Bench::new(1);
    let output = bench.text("output");
    bench.run("output_set", &[output, 6]).unwrap();
    for (offset, length) in [(1, PAGE as u64), (PAGE as u64, 1), (16, u64::MAX), (u64::MAX, u64::MAX)] {
        for function in ["output_set", "input_set"] {
            assert!(matches!(bench.run(function, &[offset, length]), Err(Fail::Error(_))));
        }
    }
    assert_eq!(bench.run("output_offset", &[]).unwrap(), output);
    assert_eq!(bench.run("output_length", &[]).unwrap(), 6);
    bench.run("output_set", &[output, 0]).unwrap();
    assert_eq!(bench.run("output_offset", &[]).unwrap(), 0);
}

#[test]
fn an_alloc_that_cannot_be_met_ends_the_call() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.run("alloc", &[0]).unwrap(), 0);
    assert_ne!(bench.run("alloc", &[PAGE as u64]).unwrap(), 0);
    assert!(!bench.state.starved);
    for absurd in [2 * PAGE as u64, 1 << 32, 1 << 63, u64::MAX] {
        assert!(matches!(bench.run("alloc", &[absurd]), Err(Fail::OutOfMemory)));
    }
    assert!(bench.state.starved);
    assert_ne!(bench.run("alloc", &[8]).unwrap(), 0, "what fits is still met");
}

#[test]
fn handles_that_are_none_are_errors_where_bytes_are_wanted() {
    let mut bench = Bench::new(1);
    let freed = bench.text("freed");
    let live = bench.text("live");
    bench.run("free", &[freed]).unwrap();
    for bad in [freed, live + 1, 8, u64::MAX] {
        for function in ["config_get", "var_get", "log_info"] {
            assert!(matches!(bench.run(function, &[bad]), Err(Fail::Error(_))), "{function}");
        }
        assert!(matches!(bench.run("var_set", &[live, bad]), Err(Fail::Error(_))));
        assert!(matches!(bench.run("http_request", &[bad, 0]), Err(Fail::Error(_))));
        assert_eq!(bench.run("length", &[bad]).unwrap(), 0);
        bench.run("error_set", &[bad]).unwrap();
        assert!(bench.state.error.is_none());
    }
    assert_eq!(bench.read(live), b"live");
}

#[test]
fn config_and_variables_take_their_blocks_over() {
    let mut bench = Bench::new(1);
    let key = bench.text("key");
    let value = bench.run("config_get", &[key]).unwrap();
    assert_ne!(value, key);
    assert_eq!(bench.read(value), b"value");
    assert_eq!(bench.run("length", &[key]).unwrap(), 0);

    let (name, bytes) = (bench.text("name"), bench.text("0123456789"));
    bench.run("var_set", &[name, bytes]).unwrap();
    assert_eq!(bench.run("length", &[bytes]).unwrap(), 0);
    let name = bench.text("name");
    let found = bench.run("var_get", &[name]).unwrap();
    assert_eq!(bench.read(found), b"0123456789");
    let (name, bytes) = (bench.text("other"), bench.text("01"));
    let full = bench.run("var_set", &[name, bytes]).unwrap_err();
    assert_eq!(full.to_string(), "Variable store is full");
    let name = bench.text("name");
    bench.run("var_set", &[name, 0]).unwrap();
    let name = bench.text("name");
    assert_eq!(bench.run("var_get", &[name]).unwrap(), 0);
}

#[test]
fn a_reset_empties_everything_but_the_error() {
    let mut bench = Bench::new(1);
    begin(&mut bench, b"secret").unwrap();
    let error = bench.text("wrong");
    bench.run("error_set", &[error]).unwrap();
    bench.run("output_set", &[error, 5]).unwrap();
    bench.run("reset", &[]).unwrap();
    assert!(bench.memory.iter().all(|byte| *byte == 0));
    assert_eq!(bench.run("input_length", &[]).unwrap(), 0);
    assert_eq!(bench.run("output_length", &[]).unwrap(), 0);
    assert_eq!(bench.run("length", &[error]).unwrap(), 0);
    assert_eq!(bench.state.error.as_ref().unwrap().text, b"wrong");
}

#[test]
fn freeing_the_input_makes_it_empty() {
    let mut bench = Bench::new(1);
    begin(&mut bench, b"input").unwrap();
    let input = bench.run("input_offset", &[]).unwrap();
    bench.run("free", &[input]).unwrap();
    assert_eq!(bench.run("input_length", &[]).unwrap(), 0);
    assert_eq!(bench.run("input_load_u8", &[0]).unwrap(), 0);
}

#[test]
fn a_result_never_takes_the_place_of_what_was_taken_over() {
    let mut bench = Bench::new(1);
    let name = bench.text("name");
    let value = bench.text("val");
    bench.run("var_set", &[name, value]).unwrap();
    let key = bench.text("name");
    // From here on only freed space is left.
    let rest = PAGE as u64 - bench.state.blocks.high_water();
    bench.run("alloc", &[rest]).unwrap();
    let found = bench.run("var_get", &[key]).unwrap();
    assert_ne!(found, key);
    bench.run("free", &[key]).unwrap();
    assert_eq!(bench.read(found), b"val");
}
