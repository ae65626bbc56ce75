//! Hostile plug-ins: whatever one does, its call ends as `docs/abi.md` says, with an error or a harmless answer. It
//! never ends in a crash, a hang or bytes of somebody else, and the next call works.
//!
//! | module | what is tried |
//! |---|---|
//! | `handles` | numbers that are no handles, for every guest function |
//! | `ranges` | input and output outside of Extism memory; output after every way to end |
//! | `callbacks` | the same numbers for host functions, and from host functions |
//! | `secrets` | bytes of the host, of others, of earlier calls |
//! | `endless` | code that never ends, wherever it runs, against timeouts and cancels |
//! | `stacks` | recursion without end, on stacks of all sizes and on fibers |
//! | `borders` | calls from short stacks and fibers: callbacks, cancels, turns, finalisers |
//! | `nested` | plug-ins in plug-ins in plug-ins, and chains of linked modules |
//! | `greedy` | memories, tables, the GC heap |
//! | `bounds` | variables, log lines, configuration, requests, blocks |
//! | `bombs` | what is dear to compile |
//! | `many` | very many or very large parts of a module |
//! | `names` | names of any bytes, doubled, of the library |
//! | `indices` | the index one past the end, everywhere |
//! | `exports` | what is no function, or one of another type |
//! | `bytes` | garbage, and every truncation and every flipped bit of a real plug-in |
//! | `files` | paths that lead out, special files, read-only directories |
//! | `descriptors` | descriptors without end; files, buffers and directories of any size |
//! | `wasi` | arguments and memories that are none |
//! | `neighbours` | plug-ins beside all this |
//!
//! `fiber` has what the tests on fibers need.

mod bombs;
mod borders;
mod bounds;
mod bytes;
mod callbacks;
mod descriptors;
mod endless;
mod exports;
mod fiber;
mod files;
mod greedy;
mod handles;
mod indices;
mod many;
mod names;
mod neighbours;
mod nested;
mod ranges;
mod secrets;
mod stacks;
mod wasi;

use std::time::Duration;

use extism_tests::{Ended, Plugin, Setup, json, resident_bytes};

/// What a guest needs for [`assert_fine`].
const FINE: &str = r#"(func (export "fine") (result i32) (i32.const 7))"#;

/// The next call works.
#[track_caller]
fn assert_fine(plugin: &Plugin) {
    assert_eq!(plugin.code("fine"), 7, "the call after it");
}

#[track_caller]
fn assert_ended(ended: Ended, code: i32, error: &str) {
    assert_eq!(ended.failure(), (code, error.to_owned()));
}

/// A call, and a cancel from another thread as soon as the guest has noted something.
fn cancel(plugin: &Plugin, function: &str, input: &[u8]) -> Ended {
    std::thread::scope(|scope| {
        plugin.take_notes();
        let call = scope.spawn(|| plugin.call(function, input));
        while plugin.take_notes().is_empty() && !call.is_finished() {
            std::thread::sleep(Duration::from_micros(100));
        }
        assert!(plugin.cancel());
        call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

const MIB: u64 = 1 << 20;

fn limited(body: &str, max_pages: u64) -> Setup {
    Setup::guest(&format!("{body} {FINE}")).with("memory", json!({ "max_pages": max_pages }))
}

/// Runs it and returns by how much the process is larger then.
fn growth(work: impl FnOnce()) -> u64 {
    let before = resident_bytes();
    work();
    resident_bytes().saturating_sub(before)
}

/// Numbers as a guest reads them with `input_load_u64`.
fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Random numbers that are the same in every run. It begins with a number other than 0.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below the limit.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// A number in LEB128.
fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Bytes with their count in front, as names and many other things are written.
fn counted(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&leb(bytes.len() as u64), bytes].concat()
}

/// Parts with their number in front.
fn vector(parts: &[Vec<u8>]) -> Vec<u8> {
    [leb(parts.len() as u64), parts.concat()].concat()
}

/// A binary module of these sections.
fn module(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    for (id, contents) in sections {
        bytes.push(*id);
        bytes.extend(counted(contents));
    }
    bytes
}

/// The section of one type `() -> ()`, of so many functions of it, and of their empty bodies.
fn empty_functions(count: u32) -> [(u8, Vec<u8>); 3] {
    let types = vector(&[vec![0x60, 0, 0]]);
    let functions = vector(&vec![vec![0]; count as usize]);
    let bodies = vector(&vec![vec![2, 0, 0x0b]; count as usize]);
    [(1, types), (3, functions), (10, bodies)]
}
