//! Sequences of guest functions on one plug-in, beside a model that is too simple to be wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Input;
use crate::guest::{Fail, Guest, TABLE, Type, begin, http, reset};
use crate::state::interrupt::Interrupt;
use crate::state::{Span, State};
use crate::sync::Mutex;

const PAGE: usize = 64 * 1024;
/// Small enough that memory runs out often.
const MAX_BYTES: usize = 3 * PAGE;
const MAX_VAR_BYTES: u64 = 64;

struct Bench {
    memory: Vec<u8>,
    state: State,
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
        if to <= MAX_BYTES {
            self.memory.resize(to, 0);
        }
        to <= MAX_BYTES
    }

    fn erase(&mut self, bytes: std::ops::Range<u64>) {
        self.memory[bytes.start as usize..bytes.end as usize].fill(0);
    }

    fn policy(&mut self) -> Arc<http::Policy> {
        Arc::new(http::Policy::new(None, None).unwrap())
    }
}

/// What must be so.
#[derive(Default)]
struct Model {
    /// Handle and length of each live block.
    live: BTreeMap<u64, u64>,
    /// The contents of Extism memory.
    bytes: Vec<u8>,
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    error: Option<(Vec<u8>, u64)>,
}

impl Model {
    fn block(&self, handle: u64) -> Option<&[u8]> {
        if handle == 0 {
            return Some(&[]);
        }
        let (begin, length) = (handle as usize, *self.live.get(&handle)? as usize);
        Some(&self.bytes[begin..begin + length])
    }

    fn is_inside(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.bytes.len() as u64)
    }

    fn variable_bytes(&self) -> u64 {
        self.variables.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
    }
}

/// A sequence of guest functions: nothing that they do is out of bounds, no block touches another, and what
/// they give is what a simple model gives.
pub fn memory(data: &[u8]) {
    let config = BTreeMap::from([(b"key".to_vec(), "value of the key".into()), (Vec::new(), "".into())]);
    let state = State::new(Uuid::nil(), Arc::new(Interrupt::new()), Arc::new(Mutex::new(config)), Some(MAX_VAR_BYTES));
    let mut run = Run {
        bench: Bench { memory: vec![0; PAGE], state },
        model: Model { bytes: vec![0; PAGE], ..Model::default() },
        known: Vec::new(),
    };
    let mut input = Input(data);
    while !input.is_empty() {
        run.step(&mut input);
        run.check();
    }
    run.check_contents();
}

struct Run {
    bench: Bench,
    model: Model,
    /// Handles that were given out at any time.
    known: Vec<u64>,
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        let entry = input.below(TABLE.len() + 3);
        let Some(entry) = TABLE.get(entry) else {
            return if entry == TABLE.len() { self.reset() } else { self.begin_call(input) };
        };
        let mut arguments = [0; 2];
        for (argument, ty) in arguments.iter_mut().zip(entry.params) {
            *argument = self.number(input);
            if *ty == Type::I32 {
                *argument &= 0xffff_ffff;
            }
        }
        let before = self.bench.state.blocks.high_water();
        let result = (entry.run)(&mut self.bench, arguments);
        if entry.name == "reset" {
            self.forget(before);
        }
        self.model.bytes.resize(self.bench.memory.len(), 0);
        self.expect(entry.name, arguments, &result);
        if let (Ok(handle), "alloc" | "config_get" | "var_get" | "http_headers") = (&result, entry.name) {
            self.adopt(*handle);
        }
        assert!(entry.name == "reset" || self.bench.state.blocks.high_water() >= before);
    }

    /// Any number, most of them near blocks and the ends of memory.
    fn number(&self, input: &mut Input<'_>) -> u64 {
        let near = [0, 1, 8, 15, 16, 17, u64::MAX, u64::MAX - 7, u64::MAX - 15][input.below(9)];
        match input.below(6) {
            0 => near,
            1 => u64::from(input.byte()),
            2 => input.word(),
            3 => (self.model.bytes.len() as u64).wrapping_sub(near),
            _ if self.known.is_empty() => near,
            4 => self.known[input.below(256) % self.known.len()].wrapping_add(near),
            _ => self.known[input.below(256) % self.known.len()],
        }
    }

    fn reset(&mut self) {
        let used = self.bench.state.blocks.high_water();
        reset(&mut self.bench);
        self.forget(used);
    }

    fn begin_call(&mut self, input: &mut Input<'_>) {
        self.bench.state.begin_call();
        self.model.error = None;
        let length = input.below(64);
        let bytes = input.take(length);
        let used = self.bench.state.blocks.high_water();
        begin(&mut self.bench, bytes).unwrap();
        // What lies before the input belongs to no block, and is not looked at.
        let before: Vec<u8> = self.model.bytes[..self.bench.state.input.offset as usize].to_vec();
        self.forget(used);
        self.model.bytes[..before.len()].copy_from_slice(&before);
        assert_eq!(self.bench.state.input.length, bytes.len() as u64);
        let handle = self.bench.state.input.offset;
        self.adopt(handle);
        self.model.bytes[handle as usize..][..bytes.len()].copy_from_slice(bytes);
        self.check_contents();
    }

    /// A reset clears as much of memory as was used for blocks.
    fn forget(&mut self, used: u64) {
        self.model.live.clear();
        self.model.bytes[..used as usize].fill(0);
    }

    /// Takes in a block that was given out: it lies in memory, and overlaps no other.
    fn adopt(&mut self, handle: u64) {
        let Some(length) = self.bench.state.blocks.length(handle) else {
            return assert_eq!(handle, 0);
        };
        assert!(handle >= 16 && handle.is_multiple_of(16) && self.model.is_inside(handle, length));
        let before = self.model.live.range(..handle).next_back();
        assert!(before.is_none_or(|(at, length)| at + length <= handle));
        assert!(self.model.live.range(handle..).next().is_none_or(|(at, _)| handle + length <= *at));
        self.model.live.insert(handle, length);
        self.known.push(handle);
    }

    fn release(&mut self, handle: u64) {
        self.model.live.remove(&handle);
    }

    fn expect(&mut self, name: &str, [first, second]: [u64; 2], result: &Result<u64, Fail>) {
        match name {
            "alloc" => {
                if let Ok(handle) = result {
                    assert_eq!(*handle == 0, first == 0);
                    assert_eq!(self.bench.state.blocks.length(*handle).unwrap_or(0), first);
                }
            }
            "free" => self.release(first),
            "length" | "length_unsafe" => {
                assert_eq!(result.as_ref().ok(), Some(&self.model.live.get(&first).copied().unwrap_or(0)));
            }
            "load_u8" | "load_u64" => {
                let bytes = if name == "load_u8" { 1 } else { 8 };
                self.expect_load(first, bytes, result);
            }
            "store_u8" | "store_u64" => {
                let bytes = if name == "store_u8" { 1 } else { 8 };
                assert_eq!(result.is_ok(), self.model.is_inside(first, bytes as u64));
                if result.is_ok() {
                    self.model.bytes[first as usize..][..bytes].copy_from_slice(&second.to_le_bytes()[..bytes]);
                }
            }
            "input_load_u8" | "input_load_u64" => {
                let bytes = if name == "input_load_u8" { 1 } else { 8 };
                let input = self.bench.state.input;
                match first.checked_add(bytes) {
                    Some(end) if end <= input.length => self.expect_load(input.offset + first, bytes, result),
                    _ => assert!(matches!(result, Ok(0))),
                }
            }
            "input_set" | "output_set" => {
                let none = first == 0 || second == 0;
                assert_eq!(result.is_ok(), none || self.model.is_inside(first, second));
                if result.is_ok() {
                    let expected = if none { Span::default() } else { Span { offset: first, length: second } };
                    let state = &self.bench.state;
                    assert_eq!(if name == "input_set" { state.input } else { state.output }, expected);
                }
            }
            "error_set" => match self.model.block(first) {
                _ if first == 0 => self.model.error = None,
                Some(text) => self.model.error = Some((text.get(..64 * 1024).unwrap_or(text).to_vec(), first)),
                None => {}
            },
            "error_get" => {
                let handle = self.model.error.as_ref().map_or(0, |(_, handle)| *handle);
                assert_eq!(result.as_ref().ok(), Some(&handle));
            }
            "memory_bytes" => assert_eq!(result.as_ref().ok(), Some(&(self.model.bytes.len() as u64))),
            "config_get" => self.expect_config(first, result),
            "var_get" => self.expect_variable(first, result),
            "var_set" => self.expect_variable_set(first, second, result),
            "http_request" => assert!(result.is_err()),
            name if name.starts_with("log_") => {
                assert_eq!(result.is_ok(), self.model.block(first).is_some());
                self.release(first);
            }
            _ => {}
        }
    }

    fn expect_load(&self, offset: u64, bytes: u64, result: &Result<u64, Fail>) {
        assert_eq!(result.is_ok(), self.model.is_inside(offset, bytes));
        if let Ok(value) = result {
            let expected = &self.model.bytes[offset as usize..][..bytes as usize];
            assert_eq!(&value.to_le_bytes()[..bytes as usize], expected);
        }
    }

    /// A block with these bytes was given out; with `None` the answer is 0.
    fn expect_value(&mut self, key: u64, expected: Option<&[u8]>, result: &Result<u64, Fail>) {
        let Ok(handle) = result else {
            // A wrong key, or no room.
            return;
        };
        match expected.filter(|bytes| !bytes.is_empty()) {
            None => assert_eq!(*handle, 0),
            Some(bytes) => {
                assert_eq!(self.bench.state.blocks.length(*handle), Some(bytes.len() as u64));
                let begin = *handle as usize;
                assert_eq!(&self.bench.memory[begin..begin + bytes.len()], bytes);
                self.model.bytes[begin..begin + bytes.len()].copy_from_slice(bytes);
                assert_ne!(*handle, key, "the key was freed after the result was there");
            }
        }
        self.release(key);
    }

    fn expect_config(&mut self, key: u64, result: &Result<u64, Fail>) {
        let expected = match self.model.block(key) {
            Some(b"key") => Some(&b"value of the key"[..]),
            Some(_) => None,
            None => return assert!(result.is_err()),
        };
        self.expect_value(key, expected, result);
    }

    fn expect_variable(&mut self, key: u64, result: &Result<u64, Fail>) {
        let Some(name) = self.model.block(key) else {
            return assert!(result.is_err());
        };
        let expected = self.model.variables.get(name).cloned();
        self.expect_value(key, expected.as_deref(), result);
    }

    fn expect_variable_set(&mut self, key: u64, value: u64, result: &Result<u64, Fail>) {
        let (Some(name), Some(bytes)) = (self.model.block(key), self.model.block(value)) else {
            return assert!(result.is_err());
        };
        let (name, bytes) = (name.to_vec(), bytes.to_vec());
        let old = self.model.variables.remove(&name);
        if value != 0 {
            let fits = self.model.variable_bytes() + (name.len() + bytes.len()) as u64 <= MAX_VAR_BYTES;
            assert_eq!(result.is_ok(), fits);
            if let Some(value) = if fits { Some(bytes) } else { old } {
                self.model.variables.insert(name, value);
            }
        }
        if result.is_ok() {
            self.release(key);
            self.release(value);
        }
    }

    /// What holds after each step.
    fn check(&self) {
        let state = &self.bench.state;
        assert!(self.bench.memory.len() <= MAX_BYTES);
        assert!(state.blocks.high_water() <= self.bench.memory.len() as u64);
        for span in [state.input, state.output] {
            assert!(self.model.is_inside(span.offset, span.length), "{span:?}");
        }
        for (handle, length) in &self.model.live {
            assert_eq!(state.blocks.length(*handle), Some(*length));
        }
        let error = state.error.as_ref().map(|error| (error.text.clone(), error.handle));
        assert_eq!(error, self.model.error);
    }

    /// Every byte is what it was stored as.
    fn check_contents(&self) {
        assert!(self.bench.memory == self.model.bytes, "a byte changed that nobody wrote");
    }
}
