//! What compiling a module will cost, before it is compiled.
//!
//! Compilers are made for what compilers write: a function of a few kilobytes with thousands of nested loops, or with
//! blocks that return a thousand values, takes minutes and gigabytes, and nothing can interrupt that. So each function
//! is measured while it is validated, in one pass over its operators ([`function`]). What is counted are the
//! quantities that Cranelift's time and memory grow with; the weights were found by compiling functions that have
//! little else, in growing numbers, and are rather too large than too small. The limits leave room for that: large
//! programs (CPython, Ruby, PHP, DuckDB, Biome, esbuild, ffmpeg and others) reach a third to a half of them; yosys, with a
//! function of 400,000 pairs of a call and a handler, three quarters.

mod function;
mod operators;
#[cfg(test)]
mod tests;

use wasmparser::{CompositeInnerType, FuncValidator, FunctionBody, RecGroup, Result, ValidatorResources};

use crate::error::Error;
use function::Function;

/// Nanoseconds for a module of up to [`FULL_BYTES`]; a larger one may take longer in proportion.
const MAX_TIME: f64 = 25e9;
/// Bytes for what is compiled at once; modules that are larger than [`FULL_BYTES`] may take up to
/// [`LARGE_MODULES`] times as much.
const MAX_MEMORY: f64 = 900e6;
const LARGE_MODULES: f64 = 4.0;
const FULL_BYTES: usize = 2 << 20;
/// Nanoseconds from which on several threads compile.
const WORTH_THREADS: f64 = 20e6;
/// Bytes below which the memory for a function does not count for what is compiled at once.
const LARGE_FUNCTION: f64 = 1e6;

/// Something that costs time (in nanoseconds) and memory while a function is compiled (in bytes).
struct Weight {
    /// What it is, for messages.
    what: &'static str,
    time: f64,
    memory: f64,
}

const fn weight(what: &'static str, time: f64, memory: f64) -> Weight {
    Weight { what, time, memory }
}

/// Indices of [`WEIGHTS`] and of the counts that go with them.
#[derive(Clone, Copy)]
enum Of {
    Functions,
    Types,
    Operators,
    Expansions,
    Blocks,
    LoopsInLoops,
    ValuesAtBlocks,
    ValuesAtOperators,
    ValuesOfLoops,
    ValuesOfBlocks,
    Handlers,
    References,
}

const KINDS: usize = Of::References as usize + 1;

/// In the order of [`Of`].
const WEIGHTS: [Weight; KINDS] = [
    weight("functions", 90e3, 0.0),
    weight("parameters and results of types", 10e3, 0.0),
    weight("instructions", 9e3, 1300.0),
    weight("what instructions expand to", 6.5e3, 1300.0),
    weight("blocks, squared", 1.0, 0.0),
    weight("loops in loops", 6.8, 0.0),
    weight("blocks times the values that live across them", 100.0, 18.0),
    weight("instructions times the values that live across them", 32.0, 0.0),
    weight("branches to loops times the values that they carry", 400.0, 140.0),
    weight("blocks times the values that blocks return", 2.1, 2.5),
    weight("calls times the catch clauses around them, squared", 1.6, 0.0),
    weight("calls times the references that live across them", 150.0, 22.0),
];

/// How often each of these occurs.
type Counts = [f64; KINDS];

/// The cost of a module so far.
pub struct Cost {
    limit: f64,
    memory_limit: f64,
    /// For each imported function, whether calls of it are replaced by code that has blocks.
    imports: Vec<bool>,
    time: f64,
    /// The memory that each function takes which takes much.
    large: Vec<f64>,
    functions: u32,
}

impl Cost {
    /// Of a module with so many bytes.
    pub fn new(bytes: usize) -> Self {
        let limit = (bytes as f64 / FULL_BYTES as f64).max(1.0);
        Self {
            limit: limit * MAX_TIME,
            memory_limit: limit.min(LARGE_MODULES) * MAX_MEMORY,
            imports: Vec::new(),
            time: 0.0,
            large: Vec::new(),
            functions: 0,
        }
    }

    /// Takes in a group of types. Those of functions cost something each: the engine makes an entry for each.
    pub fn add_types(&mut self, group: &RecGroup) -> std::result::Result<(), Error> {
        let mut counts = [0.0; KINDS];
        for ty in group.types() {
            if let CompositeInnerType::Func(ty) = &ty.composite_type.inner {
                counts[Of::Types as usize] += (ty.params().len() + ty.results().len() + 1) as f64;
            }
        }
        self.add(&counts, "the types of this module are")
    }

    /// The module imports one function more. The library may replace calls of it by code, and that may have blocks.
    pub fn add_imported_function(&mut self, becomes_blocks: bool) {
        self.imports.push(becomes_blocks);
    }

    /// Validates a function and takes it in. The outer result is about the function being valid.
    pub fn add_function(
        &mut self,
        validator: &mut FuncValidator<ValidatorResources>,
        body: &FunctionBody<'_>,
    ) -> Result<std::result::Result<(), Error>> {
        let index = validator.index();
        let counts = Function::new(validator, &self.imports).measure(body)?;
        self.functions += 1;
        Ok(self.add(&counts, &format!("function {index} is")))
    }

    /// Whether the functions are to be compiled by so many threads: not if that could take too much memory, nor for a
    /// small module, for which it is not worth while to start threads.
    pub fn suits_threads(mut self, threads: impl FnOnce() -> usize) -> bool {
        if self.time < WORTH_THREADS {
            return false;
        }
        self.large.sort_unstable_by(|a, b| b.total_cmp(a));
        self.large.iter().take(threads()).sum::<f64>() <= self.memory_limit
    }

    /// Adds up; an error names what weighs most of what was added last.
    fn add(&mut self, counts: &Counts, subject: &str) -> std::result::Result<(), Error> {
        let sum = |weight: fn(&Weight) -> f64| {
            counts.iter().zip(&WEIGHTS).map(|(count, kind)| count * weight(kind)).sum::<f64>()
        };
        let (time, memory) = (sum(|kind| kind.time), sum(|kind| kind.memory));
        self.time += time;
        if memory > LARGE_FUNCTION {
            self.large.push(memory);
        }
        let (of_time, of_memory) = (self.time / self.limit, memory / self.memory_limit);
        if of_time.max(of_memory) <= 1.0 {
            return Ok(());
        }
        if of_memory <= 1.0 && time < self.time / 2.0 {
            return Err(Error::new(format!(
                "the module is too large to compile: it has more than {} functions and {:.0} s of work; a module of its \
                 size may have {:.0} s",
                self.functions,
                self.time / 1e9,
                self.limit / 1e9,
            )));
        }
        let weight = |kind: &Weight| if of_memory > of_time { kind.memory } else { kind.time };
        let heaviest = counts.iter().zip(&WEIGHTS).max_by(|a, b| (a.0 * weight(a.1)).total_cmp(&(b.0 * weight(b.1))));
        let (count, what) = heaviest.map_or((0.0, ""), |(count, kind)| (*count, kind.what));
        let (cost, limit, unit) = match of_memory > of_time {
            true => (memory / 1e6, self.memory_limit / 1e6, "MB of memory"),
            false => (self.time / 1e9, self.limit / 1e9, "s"),
        };
        Err(Error::new(format!(
            "{subject} too complex to compile: it would take about {cost:.0} {unit}, mostly for {what} ({count:.0}); a \
             module of this size may take {limit:.0} {unit}"
        )))
    }
}
