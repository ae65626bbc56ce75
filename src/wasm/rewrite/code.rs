//! Calls of guest functions that become instructions.
//!
//! PDKs copy bytes with a call for each eight of them. Where such a function is called directly, and is the library's
//! own, the call is replaced by what it means on the Extism memory and the input globals:
//!
//! ```text
//!  load_u64           i64.load $memory             the others of these alike
//!  input_length       global.get $length
//!  input_load_u64     if offset < $words: i64.load $memory (offset + $input), else 0
//! ```
//!
//! Everything else of a function is copied byte for byte. Functions that are taken by reference, exported or put into
//! tables stay what they are: host functions that mean the same.

use std::collections::HashMap;

use wasm_encoder::{BlockType, Encode, Instruction, MemArg, ValType as Written};
use wasmparser::types::TypesRef;
use wasmparser::{BinaryReader, CodeSectionReader, FunctionBody, Operator, Result, ValType};

use super::{ENV, Taken};

/// The most locals that a function can have, parameters included.
const MAX_LOCALS: u32 = 50_000;

/// A guest function whose calls become instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    LoadByte,
    LoadWord,
    StoreByte,
    StoreWord,
    InputOffset,
    InputLength,
    InputLoadByte,
    InputLoadWord,
}

impl Function {
    /// The function of this name, with its type.
    fn named(name: &str) -> Option<(Self, &'static [ValType], &'static [ValType])> {
        use ValType::{I32, I64};
        Some(match name {
            "load_u8" => (Self::LoadByte, &[I64], &[I32]),
            "load_u64" => (Self::LoadWord, &[I64], &[I64]),
            "store_u8" => (Self::StoreByte, &[I64, I32], &[]),
            "store_u64" => (Self::StoreWord, &[I64, I64], &[]),
            "input_offset" => (Self::InputOffset, &[], &[I64]),
            "input_length" => (Self::InputLength, &[], &[I64]),
            "input_load_u8" => (Self::InputLoadByte, &[I64], &[I32]),
            "input_load_u64" => (Self::InputLoadWord, &[I64], &[I64]),
            _ => return None,
        })
    }

    fn reads_input(self) -> bool {
        !matches!(self, Self::LoadByte | Self::LoadWord | Self::StoreByte | Self::StoreWord)
    }

    /// Whether its instructions need a local.
    fn needs_local(self) -> bool {
        matches!(self, Self::InputLoadByte | Self::InputLoadWord)
    }
}

/// Whether calls of the guest function of this name are replaced by instructions that have blocks.
pub(super) fn becomes_blocks(name: &str) -> bool {
    Function::named(name).is_some_and(|(function, ..)| function.needs_local())
}

/// Which calls are replaced in a module, and by what.
pub(super) struct Calls<'a> {
    types: TypesRef<'a>,
    /// By the index of the import.
    functions: HashMap<u32, Function>,
    imports: u32,
    memory: u32,
    /// The first of the input globals.
    globals: u32,
}

/// The input globals, in their order: offset, length, and the number of offsets at which a whole word can be loaded.
#[derive(Clone, Copy)]
enum Input {
    Offset = 0,
    Length = 1,
    Words = 2,
}

impl<'a> Calls<'a> {
    /// Those of a module with these imported functions, in their order. `taken` says which names a host function of
    /// the user has taken. `memory` and `globals` are the indices of what is appended.
    pub fn new(types: TypesRef<'a>, imports: &[(&str, &str)], taken: Taken<'_>) -> Self {
        let (memory, globals) = (types.memory_count(), types.global_count());
        let mut calls = Self { types, functions: HashMap::new(), imports: 0, memory, globals };
        for (index, (module, name)) in (0..).zip(imports.iter().copied()) {
            calls.imports += 1;
            let Some((function, params, results)) = Function::named(name) else {
                continue;
            };
            if module == ENV && !taken(name) && calls.has_type(index, params, results) {
                calls.functions.insert(index, function);
            }
        }
        calls
    }

    fn has_type(&self, function: u32, params: &[ValType], results: &[ValType]) -> bool {
        let ty = self.types[self.types.core_function_at(function)].unwrap_func();
        ty.params() == params && ty.results() == results
    }

    /// The index of the Extism memory.
    pub fn memory(&self) -> u32 {
        self.memory
    }

    /// The index of the first input global.
    pub fn globals(&self) -> u32 {
        self.globals
    }

    /// Whether there is nothing to replace.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The code section with these contents, rewritten. `None` if nothing changes.
    pub fn rewrite(&self, contents: &[u8]) -> Result<Option<Code>> {
        let code = Vec::with_capacity(contents.len() + contents.len() / 8);
        let mut section = Code { code, moves: Moves::default(), reads_input: false };
        let reader = CodeSectionReader::new(BinaryReader::new(contents, 0))?;
        reader.count().encode(&mut section.code);
        let mut changed = false;
        for (index, body) in (self.imports..).zip(reader) {
            changed |= self.rewrite_body(contents, index, &body?, &mut section)?;
        }
        Ok(changed.then_some(section))
    }

    /// Appends a function; returns whether it changed.
    fn rewrite_body(&self, contents: &[u8], index: u32, body: &FunctionBody<'_>, section: &mut Code) -> Result<bool> {
        let range = body.range();
        let mut locals = body.get_locals_reader()?;
        let declarations = locals.get_count();
        let first = locals.original_position();
        let params = self.types[self.types.core_function_at(index)].unwrap_func().params().len();
        let mut local = u32::try_from(params).unwrap_or(MAX_LOCALS);
        for _ in 0..declarations {
            local = local.saturating_add(locals.read()?.0);
        }
        let end_of_locals = locals.original_position();

        let mut sites = Vec::new();
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let (operator, at) = operators.read_with_offset()?;
            let (callee, returns) = match operator {
                Operator::Call { function_index } => (function_index, false),
                Operator::ReturnCall { function_index } => (function_index, true),
                _ => continue,
            };
            if let Some(function) = self.functions.get(&callee)
                && (!function.needs_local() || local < MAX_LOCALS)
            {
                sites.push(Site { at, end: operators.original_position(), function: *function, returns });
            }
        }
        section.reads_input |= sites.iter().any(|site| site.function.reads_input());
        if sites.is_empty() {
            section.copy_body(contents.get(range.clone()).unwrap_or_default(), range.start);
            return Ok(false);
        }

        let mut code = Vec::with_capacity(range.len() + 32 * sites.len());
        let mut moves = Moves::default();
        moves.note(0, range.start);
        let one_more = u32::from(sites.iter().any(|site| site.function.needs_local()));
        (declarations + one_more).encode(&mut code);
        code.extend_from_slice(contents.get(first..end_of_locals).unwrap_or_default());
        if one_more > 0 {
            1u32.encode(&mut code);
            Written::I64.encode(&mut code);
        }
        let mut copied = end_of_locals;
        moves.note(code.len(), copied);
        for site in &sites {
            code.extend_from_slice(contents.get(copied..site.at).unwrap_or_default());
            self.write(site.function, local, &mut code);
            if site.returns {
                Instruction::Return.encode(&mut code);
            }
            copied = site.end;
            moves.note(code.len(), copied);
        }
        code.extend_from_slice(contents.get(copied..range.end).unwrap_or_default());
        section.append_body(&code, &moves);
        Ok(true)
    }

    /// Writes what stands in the place of a call. `local` is one of type i64 that nobody else uses.
    fn write(&self, function: Function, local: u32, code: &mut Vec<u8>) {
        let place = MemArg { offset: 0, align: 0, memory_index: self.memory };
        let global = |which: Input| Instruction::GlobalGet(self.globals + which as u32);
        let mut input_load = |bound: Input, result: Written, load: Instruction<'_>, zero: Instruction<'_>| {
            for instruction in [
                Instruction::LocalTee(local),
                global(bound),
                Instruction::I64LtU,
                Instruction::If(BlockType::Result(result)),
                Instruction::LocalGet(local),
                global(Input::Offset),
                Instruction::I64Add,
                load,
                Instruction::Else,
                zero,
                Instruction::End,
            ] {
                instruction.encode(code);
            }
        };
        match function {
            Function::LoadByte => Instruction::I32Load8U(place).encode(code),
            Function::LoadWord => Instruction::I64Load(place).encode(code),
            Function::StoreByte => Instruction::I32Store8(place).encode(code),
            Function::StoreWord => Instruction::I64Store(place).encode(code),
            Function::InputOffset => global(Input::Offset).encode(code),
            Function::InputLength => global(Input::Length).encode(code),
            Function::InputLoadByte => {
                input_load(Input::Length, Written::I32, Instruction::I32Load8U(place), Instruction::I32Const(0));
            }
            Function::InputLoadWord => {
                input_load(Input::Words, Written::I64, Instruction::I64Load(place), Instruction::I64Const(0));
            }
        }
    }
}

/// A call that is replaced.
struct Site {
    at: usize,
    end: usize,
    function: Function,
    returns: bool,
}

/// A code section.
pub(super) struct Code {
    pub code: Vec<u8>,
    /// Where things have moved to.
    pub moves: Moves,
    /// Whether it reads the input globals.
    pub reads_input: bool,
}

impl Code {
    /// Appends a function as it was, whose contents began at `from`.
    fn copy_body(&mut self, body: &[u8], from: usize) {
        length(body).encode(&mut self.code);
        self.moves.note(self.code.len(), from);
        self.code.extend_from_slice(body);
    }

    fn append_body(&mut self, body: &[u8], moves: &Moves) {
        length(body).encode(&mut self.code);
        let begin = self.code.len();
        for (new, old) in &moves.0 {
            self.moves.note(begin + *new as usize, *old as usize);
        }
        self.code.extend_from_slice(body);
    }
}

/// The size of a body as it is written. What passes 32 bits passes the limits of a module long before.
fn length(body: &[u8]) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}

/// Where what stood in a section has moved to: pairs of a new offset and the old one, both ascending, from which on
/// the distance is the same up to the next pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves(Vec<(u32, u32)>);

impl Moves {
    fn note(&mut self, new: usize, old: usize) {
        let pair = (u32::try_from(new).unwrap_or(u32::MAX), u32::try_from(old).unwrap_or(u32::MAX));
        let distance = |(new, old): (u32, u32)| new.wrapping_sub(old);
        if self.0.last().is_none_or(|last| distance(*last) != distance(pair)) {
            self.0.push(pair);
        }
    }

    pub fn to_words(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(new, old)| u64::from(*new) << 32 | u64::from(*old))
    }

    pub fn from_words(words: impl Iterator<Item = u64>) -> Self {
        Self(words.map(|word| ((word >> 32) as u32, word as u32)).collect())
    }

    /// The offset at which stood what stands at this one now.
    pub fn before(&self, offset: usize) -> usize {
        let index = self.0.partition_point(|(new, _)| *new as usize <= offset);
        match index.checked_sub(1).and_then(|index| self.0.get(index)) {
            Some((new, old)) => {
                let next = self.0.get(index).map_or(usize::MAX, |(_, old)| *old as usize);
                // Inside of what replaced a call: that call.
                (offset - *new as usize + *old as usize).min(next.saturating_sub(1))
            }
            None => offset,
        }
    }
}
