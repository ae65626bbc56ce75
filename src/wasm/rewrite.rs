//! Gives a module the Extism memory, and turns its loads and stores into instructions on it.
//!
//! A module is validated as it came, and only then rewritten: an index one past the end must be
//! refused, not become valid by what is appended here and reach the input of the call.
//!
//! ```text
//!  memories  0 .. m-1    the module's own (imported, then defined)
//!            m           Extism memory: 64-bit, 1 to 65,536 pages, exported as MEMORY
//!  globals   0 .. g-1    the module's own
//!            g           offset of the input, exported as INPUT_OFFSET
//!            g+1         length of the input, exported as INPUT_LENGTH
//!            g+2         at how many offsets a word of it can be loaded, exported as INPUT_WORDS
//! ```
//!
//! Everything goes to the end of its index space, so no index in the module shifts, and sections are
//! copied byte for byte but for those that grow, and the code (see [`code`]). What tells of offsets in
//! the code (branch hints, DWARF) is left out where that has changed; [`Places::original_offset`]
//! knows what stood where. The globals are there only if the code reads the input.

mod code;

use std::borrow::Cow;
use std::num::NonZero;

use wasm_encoder::{
    ConstExpr, Encode, ExportKind, GlobalType, MemoryType, Module, RawSection, Section, SectionId, ValType,
};
use wasmparser::types::Types;
use wasmparser::{
    BinaryReader, BinaryReaderError, FuncValidatorAllocations, Parser, Payload, TypeRef, ValidPayload, Validator,
    WasmFeatures,
};

use super::cost::Cost;
use crate::error::{Error, Result};
use code::{Calls, Code, Moves};

/// The features of WebAssembly that plug-ins may use: the stable ones of wasmtime 48, and wide arithmetic. Engines
/// have exactly this set.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM3.union(WasmFeatures::WIDE_ARITHMETIC);

/// The module that guest functions are imported from.
const ENV: &str = "extism:host/env";

/// What the names of all exports begin with that are appended here.
const PREFIX: &str = "extism:";
/// Name under which a rewritten module exports the Extism memory.
pub const MEMORY: &str = "extism:memory";
/// Name under which a rewritten module exports the global that holds the offset of the input.
pub const INPUT_OFFSET: &str = "extism:input_offset";
/// Name under which a rewritten module exports the global that holds the length of the input.
pub const INPUT_LENGTH: &str = "extism:input_length";
/// Name under which a rewritten module exports the global that holds the number of offsets at which eight bytes of
/// the input can be loaded at once.
pub const INPUT_WORDS: &str = "extism:input_words";

/// 4 GiB, which is also what the engine reserves for a memory.
const MAX_PAGES: u64 = 65_536;

/// A page has 64 KiB, unless its memory says otherwise.
const PAGE_LOG2: u32 = 16;

/// The contents of a section without entries.
const EMPTY: &[u8] = &[0];

/// More bytes than all that is appended, and the longer counts and sizes of sections.
const MAX_GROWTH: usize = 256;

/// A module that is ready to be compiled.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The module: as it came, or with the Extism memory appended.
    pub bytes: Cow<'a, [u8]>,
    /// Whether the module defines and exports the Extism memory. Then no export of its own has a
    /// name for which [`is_reserved`] is true.
    pub has_own_memory: bool,
    /// Whether it also defines the globals that tell where the input is, because its code reads them.
    pub reads_input: bool,
    /// Where the code stands and stood; traps tell offsets.
    pub places: Places,
    /// Bytes with which the memories that the module itself defines begin; without the Extism memory.
    /// Like all sums here `u64::MAX` where it does not fit.
    pub initial_memory: u64,
    /// Bytes with which the largest of these memories begins.
    pub largest_memory: u64,
    /// Elements with which the tables that the module defines begin.
    pub initial_table_elements: u64,
    /// How many of these memories and tables begin with a size other than 0.
    pub initial_parts: usize,
    /// Whether it is worth while, and safe, to compile its functions at the same time.
    pub in_parallel: bool,
    /// Whether it has a start function, which runs while the module is instantiated.
    pub has_start: bool,
    /// Elements that its largest table may grow to.
    pub maximum_table_elements: u64,
}

/// Whether the name of an export belongs to this library. Such exports of a module whose
/// [`Prepared::has_own_memory`] is set are hidden from its users.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What a rewriting must know: which names of guest functions the user's host functions have taken.
pub type Taken<'a> = &'a dyn Fn(&str) -> bool;

/// Where the code of a module stands, and where it stood before the rewriting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    now: usize,
    then: usize,
    moves: Moves,
}

impl Places {
    /// From an offset in the module as it is to one in the module as it came.
    pub fn original_offset(&self, offset: usize) -> usize {
        match offset.checked_sub(self.now) {
            Some(offset) => self.moves.before(offset) + self.then,
            None => offset,
        }
    }

    /// For [`Self::from_words`], in another process.
    pub fn to_words(&self) -> impl Iterator<Item = u64> {
        [self.now as u64, self.then as u64].into_iter().chain(self.moves.to_words())
    }

    /// What [`Self::to_words`] gave; `None` if it is something else.
    pub fn from_words(mut words: impl Iterator<Item = u64>) -> Option<Self> {
        let mut place = || usize::try_from(words.next()?).ok();
        let (now, then) = (place()?, place()?);
        Some(Self { now, then, moves: Moves::from_words(words) })
    }
}

/// Validates a module and, if `append` is set, gives it the Extism memory.
///
/// `wasm` is a binary module; `features` must be exactly those of the engine that will compile it. A
/// module that exports a reserved name, or that would pass a limit of the format by what is
/// appended, is valid and comes back as it was.
///
/// # Errors
///
/// Not a core module, or not a valid one: the message says what is wrong at which offset.
pub fn prepare<'a>(wasm: &'a [u8], features: WasmFeatures, append: Option<Taken<'_>>) -> Result<Prepared<'a>> {
    check_header(wasm)?;
    let (types, in_parallel) = validate(wasm, features)?;
    let types = types.as_ref();
    let layout = Layout::read(wasm).map_err(|error| invalid(&error))?;
    if layout.has_shared_memory {
        return Err(Error::new(
            "the module has a shared memory; a plug-in runs in one thread: build it without threads",
        ));
    }

    let mut rewritten = None;
    if let (Some(taken), false) = (append, layout.uses_reserved_name) {
        let calls = Calls::new(types, &layout.imports, taken);
        rewritten = rewrite(&layout, &calls).filter(|rewritten| within_limits(&rewritten.module, features));
    }
    let (moves, bytes, reads_input) = match rewritten {
        Some(Rewritten { module, moves, reads_input }) => (moves, Some(module), reads_input),
        None => (Moves::default(), None, false),
    };
    let now = bytes.as_deref().map_or(0, code_offset);
    Ok(Prepared {
        has_own_memory: bytes.is_some(),
        reads_input,
        places: Places { now, then: if bytes.is_some() { code_offset(wasm) } else { 0 }, moves },
        bytes: bytes.map_or(Cow::Borrowed(wasm), Cow::Owned),
        initial_memory: layout.initial_memory,
        largest_memory: layout.largest_memory,
        initial_table_elements: layout.initial_table_elements,
        initial_parts: layout.initial_parts,
        in_parallel,
        has_start: layout.has_start,
        maximum_table_elements: layout.maximum_table_elements,
    })
}

/// Validates the module, and refuses one that would take too long to compile. Also tells whether its functions are
/// to be compiled at the same time.
fn validate(wasm: &[u8], features: WasmFeatures) -> Result<(Types, bool)> {
    let mut validator = Validator::new_with_features(features);
    let mut cost = Cost::new(wasm.len());
    let mut allocations = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| invalid(&error))?;
        let valid = validator.payload(&payload).map_err(|error| invalid(&error))?;
        match &payload {
            Payload::TypeSection(groups) => {
                for group in groups.clone() {
                    cost.add_types(&group.map_err(|error| invalid(&error))?)?;
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import.map_err(|error| invalid(&error))?;
                    if is_function(import.ty) {
                        cost.add_imported_function(import.module == ENV && code::becomes_blocks(import.name));
                    }
                }
            }
            _ => {}
        }
        match valid {
            ValidPayload::Func(function, body) => {
                let mut function = function.into_validator(allocations);
                cost.add_function(&mut function, &body).map_err(|error| invalid(&error))??;
                allocations = function.into_allocations();
            }
            ValidPayload::End(types) => return Ok((types, cost.suits_threads(threads))),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    Err(Error::new("invalid WebAssembly module: it has no end"))
}

/// Where the content of the code section begins; 0 without one.
fn code_offset(wasm: &[u8]) -> usize {
    let code = Parser::new(0).parse_all(wasm).find_map(|payload| match payload {
        Ok(Payload::CodeSectionStart { range, .. }) => Some(range.start),
        _ => None,
    });
    code.unwrap_or(0)
}

/// Refuses what is no core module with a message of its own.
fn check_header(wasm: &[u8]) -> Result<()> {
    if !wasm.starts_with(b"\0asm") {
        return Err(Error::new("not a WebAssembly module: the bytes do not begin with \\0asm"));
    }
    // Bytes 6 and 7 are the layer: 0 is a core module, 1 a component.
    if wasm.get(6..8) == Some(&[1, 0]) {
        return Err(Error::new(
            "this is a WebAssembly component; plug-ins are core modules (build for wasm32-unknown-unknown \
             or wasm32-wasip1)",
        ));
    }
    Ok(())
}

/// How many threads would compile.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn is_function(import: TypeRef) -> bool {
    matches!(import, TypeRef::Func(_) | TypeRef::FuncExact(_))
}

fn invalid(error: &BinaryReaderError) -> Error {
    Error::new(format!("invalid WebAssembly module: {error}"))
}

/// The sections of a module, and what one pass over them tells.
#[derive(Default)]
struct Layout<'a> {
    /// Bytes of the whole module.
    size: usize,
    sections: Vec<RawSection<'a>>,
    /// The functions that it imports, in their order: module and name.
    imports: Vec<(&'a str, &'a str)>,
    uses_reserved_name: bool,
    has_shared_memory: bool,
    initial_memory: u64,
    largest_memory: u64,
    initial_table_elements: u64,
    initial_parts: usize,
    has_start: bool,
    maximum_table_elements: u64,
}

impl<'a> Layout<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, BinaryReaderError> {
        let mut layout = Layout { size: wasm.len(), ..Layout::default() };
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            layout.take_in(&payload)?;
            if let Some((id, range)) = payload.as_section() {
                // The parser has just read this very range.
                let data = wasm.get(range).unwrap_or_default();
                layout.sections.push(RawSection { id, data });
            }
        }
        Ok(layout)
    }

    fn take_in(&mut self, payload: &Payload<'a>) -> Result<(), BinaryReaderError> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import?;
                    if is_function(import.ty) {
                        self.imports.push((import.module, import.name));
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    let memory = memory?;
                    self.has_shared_memory |= memory.shared;
                    let page = 1u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_LOG2));
                    let bytes = memory.initial.saturating_mul(page.unwrap_or(u64::MAX));
                    self.initial_memory = self.initial_memory.saturating_add(bytes);
                    self.largest_memory = self.largest_memory.max(bytes);
                    self.initial_parts += usize::from(bytes > 0);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables.clone() {
                    let ty = table?.ty;
                    let elements = ty.initial;
                    let maximum = ty.maximum.unwrap_or(u64::MAX);
                    self.maximum_table_elements = self.maximum_table_elements.max(maximum);
                    self.initial_table_elements = self.initial_table_elements.saturating_add(elements);
                    self.initial_parts += usize::from(elements > 0);
                }
            }
            Payload::StartSection { .. } => self.has_start = true,
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    self.uses_reserved_name |= is_reserved(export?.name);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

struct Rewritten {
    module: Vec<u8>,
    moves: Moves,
    reads_input: bool,
}

/// The module with everything appended and its calls replaced. `None` if it is too large for that.
fn rewrite(layout: &Layout<'_>, calls: &Calls<'_>) -> Option<Rewritten> {
    let is_code = |section: &&RawSection<'_>| section.id == u8::from(SectionId::Code);
    let code = match layout.sections.iter().find(is_code) {
        Some(section) if !calls.is_empty() => calls.rewrite(section.data).ok()?,
        _ => None,
    };
    let reads_input = code.as_ref().is_some_and(|code| code.reads_input);
    let additions = additions(calls.memory(), calls.globals(), reads_input)?;
    let mut pending = additions.iter().peekable();
    let mut module = Vec::with_capacity(layout.size.checked_add(MAX_GROWTH)?);
    module.extend_from_slice(&Module::HEADER);
    for section in &layout.sections {
        // Custom sections may stand anywhere and decide nothing.
        let Some(place) = place(section.id) else {
            if code.is_none() || !tells_of_code(section) {
                section.append_to(&mut module);
            }
            continue;
        };
        while let Some(missing) = pending.next_if(|addition| addition.place() < Some(place)) {
            missing.append_to(&mut module, EMPTY)?;
        }
        match (pending.next_if(|addition| addition.section == section.id), &code) {
            (Some(addition), _) => addition.append_to(&mut module, section.data)?,
            (None, Some(Code { code, .. })) if is_code(&section) => {
                u32::try_from(code.len()).ok()?;
                RawSection { id: section.id, data: code }.append_to(&mut module);
            }
            (None, _) => section.append_to(&mut module),
        }
    }
    for missing in pending {
        missing.append_to(&mut module, EMPTY)?;
    }
    let moves = code.map(|code| code.moves).unwrap_or_default();
    Some(Rewritten { module, moves, reads_input })
}

/// Whether a custom section holds offsets in the code, which mean nothing once that has changed.
fn tells_of_code(custom: &RawSection<'_>) -> bool {
    let name = BinaryReader::new(custom.data, 0).read_string().unwrap_or_default();
    ["metadata.code.", ".debug_", "linking", "reloc."].iter().any(|prefix| name.starts_with(prefix))
}

/// Where the known sections stand in a module; their order is not that of their numbers.
fn place(section: u8) -> Option<usize> {
    use wasm_encoder::SectionId as Id;
    [
        Id::Type,
        Id::Import,
        Id::Function,
        Id::Table,
        Id::Memory,
        Id::Tag,
        Id::Global,
        Id::Export,
        Id::Start,
        Id::Element,
        Id::DataCount,
        Id::Code,
        Id::Data,
    ]
    .iter()
    .position(|id| u8::from(*id) == section)
}

/// Entries that go to the end of one section.
struct Addition {
    section: u8,
    count: u32,
    entries: Vec<u8>,
}

impl Addition {
    fn place(&self) -> Option<usize> {
        place(self.section)
    }

    /// Writes a section with the entries of `contents` (a count, then as many entries) and these.
    fn append_to(&self, module: &mut Vec<u8>, contents: &[u8]) -> Option<()> {
        let mut reader = BinaryReader::new(contents, 0);
        let count = reader.read_var_u32().ok()?.checked_add(self.count)?;
        let entries = contents.get(reader.current_position()..)?;

        let mut extended = Vec::with_capacity(contents.len().checked_add(MAX_GROWTH)?);
        count.encode(&mut extended);
        extended.extend_from_slice(entries);
        extended.extend_from_slice(&self.entries);
        // The size of a section is written in 32 bits.
        u32::try_from(extended.len()).ok()?;
        RawSection { id: self.section, data: &extended }.append_to(module);
        Some(())
    }
}

/// What is appended, in the order of the sections, to a module with so many memories and globals.
fn additions(memories: u32, globals: u32, reads_input: bool) -> Option<Vec<Addition>> {
    let mut memory = Vec::new();
    MemoryType { minimum: 1, maximum: Some(MAX_PAGES), memory64: true, shared: false, page_size_log2: None }
        .encode(&mut memory);

    let mut input = Vec::new();
    let names: &[&str] = if reads_input { &[INPUT_OFFSET, INPUT_LENGTH, INPUT_WORDS] } else { &[] };
    for _ in names {
        GlobalType { val_type: ValType::I64, mutable: true, shared: false }.encode(&mut input);
        ConstExpr::i64_const(0).encode(&mut input);
    }

    let mut exports = Vec::new();
    let globals = names.iter().zip(globals..).map(|(name, index)| (*name, ExportKind::Global, index));
    for (name, kind, index) in std::iter::once((MEMORY, ExportKind::Memory, memories)).chain(globals) {
        name.encode(&mut exports);
        kind.encode(&mut exports);
        index.encode(&mut exports);
    }

    use wasm_encoder::SectionId as Id;
    let count = u32::from(reads_input) * 3;
    let mut additions = vec![Addition { section: Id::Memory.into(), count: 1, entries: memory }];
    if reads_input {
        additions.push(Addition { section: Id::Global.into(), count, entries: input });
    }
    additions.push(Addition { section: Id::Export.into(), count: 1 + count, entries: exports });
    Some(additions)
}

/// Whether a rewritten module still validates, apart from its functions: they were validated
/// already, what is appended can make none invalid, and the engine validates them again. This finds every limit that counts memories,
/// globals, exports or the size of types, and features without which the Extism memory cannot be.
fn within_limits(wasm: &[u8], features: WasmFeatures) -> bool {
    let mut validator = Validator::new_with_features(features);
    Parser::new(0)
        .parse_all(wasm)
        .all(|payload| payload.and_then(|payload| validator.payload(&payload).map(drop)).is_ok())
}

#[cfg(test)]
mod tests;
