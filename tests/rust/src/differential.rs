//! Modules with and without rewriting: a plug-in must not be able to tell, and neither must its host.
//!
//! The two are twins: the same bytes but for one letter in the name of an export. With `extism_twin` the module is
//! rewritten, with `extism:twin` it runs as it came, because it uses a reserved name. Everything that the host sees of
//! the two must be equal, to the offsets in the messages.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr;

use arbitrary::Unstructured;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, ValType};
use wasm_smith::{Config, Module};
use wasmparser::{MemArg, Operator, Parser, Payload, Validator, WasmFeatures};

use crate::api::{Handle, Val, api, text};
use crate::{base64, json};

const REWRITTEN: &str = "extism_twin";
const AS_IT_CAME: &str = "extism:twin";

/// What wasm-smith builds on: all of these imports, in this order, and exports of these names.
const SHAPE: &str = r#"(module
    (import "extism:host/user" "h" (func (param i64) (result i64)))
    (import "extism:host/env" "load_u8" (func (param i64) (result i32)))
    (import "extism:host/env" "load_u64" (func (param i64) (result i64)))
    (import "extism:host/env" "store_u8" (func (param i64 i32)))
    (import "extism:host/env" "store_u64" (func (param i64 i64)))
    (import "extism:host/env" "input_offset" (func (result i64)))
    (import "extism:host/env" "input_length" (func (result i64)))
    (import "extism:host/env" "input_load_u8" (func (param i64) (result i32)))
    (import "extism:host/env" "input_load_u64" (func (param i64) (result i64)))
    (import "extism:host/env" "alloc" (func (param i64) (result i64)))
    (import "extism:host/env" "output_set" (func (param i64 i64)))
    (import "extism:host/env" "input_set" (func (param i64 i64)))
    (import "extism:host/env" "memory_bytes" (func (result i64)))
    (import "extism:host/env" "length" (func (param i64) (result i64)))
    (import "extism:host/env" "free" (func (param i64)))
    (import "extism:host/env" "error_set" (func (param i64)))
    (import "extism:host/env" "reset" (func))
    (func (export "run") (result i32) unreachable)
    (func (export "f") unreachable)
    (func (export "extism_twin") unreachable))"#;

/// Numbers of the imports above.
const HOST: u32 = 0;
const LOAD_U8: u32 = 1;
const LOAD_U64: u32 = 2;
const STORE_U8: u32 = 3;
const STORE_U64: u32 = 4;
const INPUT_OFFSET: u32 = 5;
const INPUT_LENGTH: u32 = 6;
const INPUT_LOAD_U8: u32 = 7;
const INPUT_LOAD_U64: u32 = 8;
const ALLOC: u32 = 9;
const OUTPUT_SET: u32 = 10;
const INPUT_SET: u32 = 11;

/// How often loops and functions of a generated module begin before it traps.
const STEPS: u32 = 1000;
/// Fuel for a call of a module that was not generated, and may run for ever.
const FUEL: u64 = 100_000;

/// Any bytes: as a module if they begin like one, binary or text; else as what wasm-smith makes a module of. Runs it
/// with and without rewriting, and compares.
///
/// # Panics
///
/// If there is a difference.
pub fn differential(data: &[u8]) {
    let input = &data[..data.len().min(300)];
    let module = match data {
        [b'(', ..] => wat::parse_bytes(data).ok().and_then(|wasm| with_export(&wasm)),
        [0, b'a', b's', b'm', ..] => with_export(data),
        [] | [_] => None,
        [options, seed, rest @ ..] => return generated(*options, *seed, rest, input),
    };
    if let Some(module) = module {
        compare(&module, &Host { fuel: Some(FUEL), takes_load: false }, input);
    }
}

/// A module of wasm-smith. `options` chooses what differs between runs, `seed` which calls are put into it.
fn generated(options: u8, seed: u8, data: &[u8], input: &[u8]) {
    let config = Config {
        module_shape: wat::parse_str(SHAPE).ok(),
        max_funcs: 24,
        max_globals: 10,
        max_types: 30,
        max_instructions: 60,
        max_memories: 2,
        max_memory32_bytes: 4 << 16,
        max_memory64_bytes: 4 << 16,
        max_tables: 2,
        max_table_elements: 100,
        max_data_segments: 4,
        max_element_segments: 4,
        memory64_enabled: true,
        tail_call_enabled: true,
        exceptions_enabled: true,
        gc_enabled: options & 16 != 0,
        simd_enabled: options & 16 != 0,
        allow_floats: options & 16 != 0,
        // Two functions that compute the same may give NaNs with other bits.
        canonicalize_nans: true,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        // Nearly every function traps sooner or later; in half of the modules not on purpose.
        disallow_traps: options & 8 != 0,
        ..Config::default()
    };
    let Ok(mut module) = Module::new(config, &mut Unstructured::new(data)) else {
        return;
    };
    if module.ensure_termination(STEPS).is_err() {
        return;
    }
    // Numbers of a generated module hardly ever are near a block. So arguments are cut down to small ones; in some
    // modules so that none is out of bounds, in some so that some are, in some not at all.
    let mask = [0x7fff, 0xffff, 0x1_0007, i64::MAX][usize::from(options & 3)];
    let module = with_guest_functions(&module.to_bytes(), mask, seed);
    compare(&module, &Host { fuel: None, takes_load: options & 4 != 0 }, input);
}

/// The module with one more export, of anything. `None` if it is not valid, or exports nothing.
fn with_export(wasm: &[u8]) -> Option<Vec<u8>> {
    struct OneMore(Option<(ExportKind, u32)>);
    impl Reencode for OneMore {
        type Error = std::convert::Infallible;
        fn parse_export_section(
            &mut self,
            exports: &mut ExportSection,
            section: wasmparser::ExportSectionReader<'_>,
        ) -> Result<(), reencode::Error> {
            for export in section {
                let export = export?;
                let kind = self.export_kind(export.kind)?;
                self.0 = Some((kind, export.index));
                exports.export(export.name, kind, export.index);
            }
            if let Some((kind, index)) = self.0 {
                exports.export(REWRITTEN, kind, index);
            }
            Ok(())
        }
    }
    Validator::new_with_features(WasmFeatures::all()).validate_all(wasm).ok()?;
    let mut reencoder = OneMore(None);
    let mut module = wasm_encoder::Module::new();
    reencoder.parse_core_module(&mut module, Parser::new(0), wasm).ok()?;
    reencoder.0.map(|_| module.finish())
}

/// The module with most of its loads and stores made calls of guest functions, and more such calls between its other
/// instructions; with arguments of those cut down by `mask`, and with exports that show the host the Extism memory when
/// they end.
fn with_guest_functions(wasm: &[u8], mask: i64, seed: u8) -> Vec<u8> {
    let types = Validator::new_with_features(WasmFeatures::all()).validate_all(wasm).expect("wasm-smith's are valid");
    let types = types.as_ref();
    let imports = Parser::new(0).parse_all(wasm).filter_map(|payload| match payload {
        Ok(Payload::ImportSection(section)) => Some(section.into_imports().count()),
        _ => None,
    });
    let imports = imports.sum::<usize>() as u32;
    let random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(seed));
    let mut reencoder =
        GuestFunctions { mask, random, next: imports, functions: types.function_count(), types, shown: vec![] };
    let mut module = wasm_encoder::Module::new();
    reencoder.find_exports(wasm);
    reencoder.parse_core_module(&mut module, Parser::new(0), wasm).expect("it is valid");
    module.finish()
}

struct GuestFunctions<'a> {
    mask: i64,
    random: Random,
    types: wasmparser::types::TypesRef<'a>,
    functions: u32,
    /// The function whose body comes next.
    next: u32,
    /// The exported functions that are called by ones that are appended in their place.
    shown: Vec<u32>,
}

impl GuestFunctions<'_> {
    fn find_exports(&mut self, wasm: &[u8]) {
        for payload in Parser::new(0).parse_all(wasm) {
            if let Ok(Payload::ExportSection(section)) = payload {
                let exports = section.into_iter().map(|export| export.expect("it is valid"));
                self.shown = exports.filter(|export| export.name != REWRITTEN).map(|export| export.index).collect();
            }
        }
    }

    /// What stands before a call and makes its arguments small. `word` and `byte` are locals for it.
    fn cut(&self, function: u32, word: u32, byte: u32) -> Vec<Instruction<'static>> {
        let cut = |mask| [Instruction::I64Const(mask), Instruction::I64And];
        let below =
            |local| [&[Instruction::LocalSet(local)], &cut(self.mask)[..], &[Instruction::LocalGet(local)]].concat();
        match function {
            STORE_U8 => below(byte),
            STORE_U64 => below(word),
            OUTPUT_SET | INPUT_SET => [below(word), cut(self.mask).to_vec()].concat(),
            LOAD_U8 | LOAD_U64 => cut(self.mask).to_vec(),
            INPUT_LOAD_U8 | INPUT_LOAD_U64 | ALLOC => cut(self.mask & 0x1ff).to_vec(),
            _ => Vec::new(),
        }
    }

    /// What may stand between any two instructions: it takes nothing from the stack, and leaves nothing there.
    fn between(&mut self, word: u32, byte: u32) -> Vec<Instruction<'static>> {
        let function = [
            LOAD_U8,
            LOAD_U64,
            STORE_U8,
            STORE_U64,
            INPUT_OFFSET,
            INPUT_LENGTH,
            INPUT_LOAD_U8,
            INPUT_LOAD_U64,
            ALLOC,
            OUTPUT_SET,
            INPUT_SET,
        ][self.random.below(11) as usize];
        let (params, result) = match function {
            STORE_U8 => (1, None),
            STORE_U64 | OUTPUT_SET | INPUT_SET => (2, None),
            INPUT_OFFSET | INPUT_LENGTH => (0, Some(word)),
            LOAD_U8 | INPUT_LOAD_U8 => (1, Some(byte)),
            _ => (1, Some(word)),
        };
        let mut code = Vec::new();
        for _ in 0..params {
            code.extend(self.number(word));
        }
        if function == STORE_U8 {
            code.push(Instruction::LocalGet(byte));
        }
        code.extend(self.cut(function, word, byte));
        code.push(Instruction::Call(function));
        code.extend(result.map(Instruction::LocalSet));
        if self.random.below(2) == 0 {
            let number = [Instruction::LocalGet(byte), Instruction::I64ExtendI32U];
            code.extend(if result == Some(byte) { number.to_vec() } else { vec![Instruction::LocalGet(word)] });
            code.extend([Instruction::Call(HOST), Instruction::LocalSet(word)]);
        }
        code
    }

    /// Some number: often one where blocks are, or the input or the memory ends.
    fn number(&mut self, word: u32) -> Vec<Instruction<'static>> {
        let random = self.random.next().cast_signed();
        match self.random.below(6) {
            0 => vec![Instruction::LocalGet(word)],
            1 => vec![Instruction::I64Const(random)],
            2 => vec![Instruction::I64Const(0xfff0 + (random & 31))],
            3 => vec![Instruction::Call(INPUT_LENGTH), Instruction::I64Const(random & 15), Instruction::I64Sub],
            _ => vec![Instruction::I64Const(random & 63)],
        }
    }

    /// An access to a memory of the module becomes one to Extism memory or the input.
    fn replace(&self, access: &Access, word: u32, byte: u32) -> Vec<Instruction<'static>> {
        let from_input = access.place.offset % 4 == 2;
        let (function, local) = match (access.is_store, access.is_word, from_input) {
            (true, true, _) => (STORE_U64, Some(word)),
            (true, false, _) => (STORE_U8, Some(byte)),
            (false, true, false) => (LOAD_U64, None),
            (false, false, false) => (LOAD_U8, None),
            (false, true, true) => (INPUT_LOAD_U64, None),
            (false, false, true) => (INPUT_LOAD_U8, None),
        };
        let mut code = Vec::new();
        code.extend(local.map(Instruction::LocalSet));
        if !self.types.memory_at(access.place.memory).memory64 {
            code.push(Instruction::I64ExtendI32U);
        }
        code.extend(local.map(Instruction::LocalGet));
        code.extend(self.cut(function, word, byte));
        code.push(Instruction::Call(function));
        if access.is_store && from_input {
            // Let the host see it.
            code.extend([Instruction::I64Const(16), Instruction::I64Const(1000), Instruction::Call(OUTPUT_SET)]);
            code.extend([Instruction::I64Const(1), Instruction::Call(HOST), Instruction::Drop]);
        }
        code
    }

    fn ty(&self, function: u32) -> u32 {
        let id = self.types.core_function_at(function);
        (0..self.types.core_type_count_in_module())
            .find(|index| self.types.core_type_at_in_module(*index) == id)
            .expect("the type of a function")
    }
}

impl Reencode for GuestFunctions<'_> {
    type Error = std::convert::Infallible;

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_function_section(self, functions, section)?;
        for function in &self.shown {
            functions.function(self.ty(*function));
        }
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        let mut replaced = self.functions;
        for export in section {
            let export = export?;
            let index = if export.name == REWRITTEN { export.index } else { replaced };
            replaced += u32::from(export.name != REWRITTEN);
            exports.export(export.name, ExportKind::Func, index);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_code_section(self, code, section)?;
        for function in &self.shown {
            let mut body = Function::new([]);
            body.instruction(&Instruction::Call(*function));
            body.instruction(&Instruction::I64Const(0));
            body.instruction(&Instruction::Call(HOST));
            body.instruction(&Instruction::Drop);
            body.instruction(&Instruction::End);
            code.function(&body);
        }
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), reencode::Error> {
        let mut locals = Vec::new();
        let ty = self.types[self.types.core_function_at(self.next)].unwrap_func();
        let mut count = ty.params().len() as u32;
        for pair in body.get_locals_reader()? {
            let (more, ty) = pair?;
            locals.push((more, self.val_type(ty)?));
            count += more;
        }
        locals.extend([(1, ValType::I64), (1, ValType::I32)]);
        let (word, byte) = (count, count + 1);
        let mut function = Function::new(locals);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let operator = reader.clone().read()?;
            if self.random.below(6) == 0 {
                let more = self.between(word, byte);
                append(&mut function, &more);
            }
            if let Some(access) = Access::of(&operator).filter(|access| access.place.offset % 4 > 0) {
                reader.read()?;
                append(&mut function, &self.replace(&access, word, byte));
                continue;
            }
            if let Operator::Call { function_index } | Operator::ReturnCall { function_index } = operator {
                append(&mut function, &self.cut(function_index, word, byte));
            }
            function.instruction(&self.parse_instruction(&mut reader)?);
        }
        code.function(&function);
        self.next += 1;
        Ok(())
    }
}

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}

/// A load or a store.
struct Access {
    place: MemArg,
    is_store: bool,
    is_word: bool,
}

impl Access {
    fn of(operator: &Operator<'_>) -> Option<Self> {
        let (place, is_store, is_word) = match *operator {
            Operator::I32Load { memarg }
            | Operator::I32Load8S { memarg }
            | Operator::I32Load8U { memarg }
            | Operator::I32Load16S { memarg }
            | Operator::I32Load16U { memarg } => (memarg, false, false),
            Operator::I64Load { memarg }
            | Operator::I64Load8S { memarg }
            | Operator::I64Load8U { memarg }
            | Operator::I64Load16S { memarg }
            | Operator::I64Load16U { memarg }
            | Operator::I64Load32S { memarg }
            | Operator::I64Load32U { memarg } => (memarg, false, true),
            Operator::I32Store { memarg } | Operator::I32Store8 { memarg } | Operator::I32Store16 { memarg } => {
                (memarg, true, false)
            }
            Operator::I64Store { memarg }
            | Operator::I64Store8 { memarg }
            | Operator::I64Store16 { memarg }
            | Operator::I64Store32 { memarg } => (memarg, true, true),
            _ => return None,
        };
        Some(Self { place, is_store, is_word })
    }
}

/// What a module finds.
struct Host {
    fuel: Option<u64>,
    /// Whether a function of the host has taken the place of `load_u64`.
    takes_load: bool,
}

/// What the host sees of one call.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: i32,
    error: Option<String>,
    output: Vec<u8>,
    /// What the host function was called with, and found.
    calls: Vec<(u64, u64, u64)>,
}

thread_local! {
    static CALLS: RefCell<Vec<(u64, u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Where the name stands that makes the module one of the twins.
fn place_of_name(module: &[u8]) -> Option<usize> {
    let mut exports = Parser::new(0).parse_all(module).filter_map(|payload| match payload {
        Ok(Payload::ExportSection(section)) => Some(section.into_iter().flatten()),
        _ => None,
    });
    let export = exports.next()?.find(|export| export.name == REWRITTEN)?;
    Some(export.name.as_ptr().addr() - module.as_ptr().addr())
}

/// Runs both twins.
fn compare(module: &[u8], host: &Host, input: &[u8]) {
    let Some(name) = place_of_name(module) else {
        return;
    };
    let mut other = module.to_vec();
    other[name..name + AS_IT_CAME.len()].copy_from_slice(AS_IT_CAME.as_bytes());
    let (rewritten, as_it_came) = match (Twin::new(module, host), Twin::new(&other, host)) {
        (Ok(rewritten), Ok(as_it_came)) => (rewritten, as_it_came),
        (rewritten, as_it_came) => return assert_eq!(rewritten.err(), as_it_came.err()),
    };
    for name in [c"run", c"f", c"run", c"f"] {
        let (left, right) = (rewritten.call(name, input), as_it_came.call(name, input));
        if left.ended_by_its_cost() || right.ended_by_its_cost() {
            return;
        }
        assert!(left.is_like(&right), "{name:?} of a module rewritten, and as it came:\n{left:#?}\n{right:#?}");
    }
}

impl Seen {
    /// Whether both ways have shown the same, but for what an instruction tells of a trap and a call does not: the
    /// address, and one frame more where it was a tail call. The offsets in frames are the compiler's, who merges traps
    /// that follow each other.
    fn is_like(&self, as_it_came: &Self) -> bool {
        let (mut left, right) = (self.lines(), as_it_came.lines());
        match (left.len(), right.len()) {
            // The reason, a headline, the only frame.
            (3, 1) => left.truncate(1),
            (many, fewer) if many > 3 && many == fewer + 1 => drop(left.remove(2)),
            _ => {}
        }
        (self.code, &self.output, &self.calls, left) == (as_it_came.code, &as_it_came.output, &as_it_came.calls, right)
    }

    /// The error: its text or the reason for a trap, then the frames, without addresses, numbers and offsets.
    fn lines(&self) -> Vec<&str> {
        let error = self.error.as_deref().unwrap_or_default();
        let Some((reason, frames)) = error.split_once("\nwasm backtrace:") else {
            return vec![error];
        };
        let reason = reason.split(": memory fault at").next().unwrap_or_default();
        let functions = frames.lines().skip(1).map(|frame| frame.split_once(" - ").map_or(frame, |(_, name)| name));
        [reason, "wasm backtrace:"].into_iter().chain(functions).collect()
    }

    /// Whether fuel, time or stack were used up, of which both ways need different amounts.
    fn ended_by_its_cost(&self) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        error == "plugin ran out of fuel" || error == "timeout" || error.starts_with("wasm trap: call stack exhausted")
    }
}

struct Twin(Handle);

impl Twin {
    fn new(module: &[u8], host: &Host) -> Result<Self, String> {
        let manifest = json!({
            "wasm": [{"data": base64(module)}],
            "memory": {"max_pages": 100},
            "timeout_ms": 10_000,
        });
        let manifest = manifest.to_string();
        let mut message: *mut c_char = ptr::null_mut();
        // SAFETY: texts with NUL, arrays of the lengths that are told, a place for a message.
        unsafe {
            let function = |name: &CStr| {
                let types = [1];
                (api().function_new)(name.as_ptr(), types.as_ptr(), 1, types.as_ptr(), 1, note, ptr::null_mut(), None)
            };
            let functions = [function(c"h"), function(c"load_u64")];
            (api().function_set_namespace)(functions[1], c"extism:host/env".as_ptr());
            let count = if host.takes_load { 2 } else { 1 };
            let (bytes, length) = (manifest.as_ptr(), manifest.len() as u64);
            let plugin = match host.fuel {
                None => (api().plugin_new)(bytes, length, functions.as_ptr(), count, false, &mut message),
                Some(fuel) => (api().plugin_new_with_fuel_limit)(
                    bytes,
                    length,
                    functions.as_ptr(),
                    count,
                    false,
                    fuel,
                    &mut message,
                ),
            };
            functions.iter().for_each(|function| (api().function_free)(*function));
            let error = text(message);
            (api().plugin_new_error_free)(message);
            if plugin.is_null() { Err(error.expect("a message")) } else { Ok(Self(plugin)) }
        }
    }

    fn call(&self, name: &CStr, input: &[u8]) -> Seen {
        CALLS.take();
        // SAFETY: a live plug-in, a text with NUL, as many bytes as are told; what a call leaves stays until the next.
        unsafe {
            let code = (api().plugin_call)(self.0, name.as_ptr(), input.as_ptr(), input.len() as u64);
            let (data, length) = ((api().plugin_output_data)(self.0), (api().plugin_output_length)(self.0));
            Seen {
                code,
                error: text((api().plugin_error)(self.0)),
                output: std::slice::from_raw_parts(data, length as usize).to_vec(),
                calls: CALLS.take(),
            }
        }
    }
}

fn append(function: &mut Function, instructions: &[Instruction<'_>]) {
    for instruction in instructions {
        function.instruction(instruction);
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { (api().plugin_free)(self.0) }
    }
}

/// The host function: notes what it was called with, the length of that block, and what is in the first page of Extism
/// memory. Gives a block, or a number.
unsafe extern "C" fn note(current: Handle, inputs: *const Val, _: u64, outputs: *mut Val, _: u64, _: *mut c_void) {
    // SAFETY: the function has one parameter and one result, and this is its call. Extism memory has a page at least.
    unsafe {
        let number = (*inputs).bits;
        let memory = (api().current_plugin_memory)(current);
        assert!(!memory.is_null());
        let length = (api().current_plugin_memory_length)(current, number);
        CALLS.with_borrow_mut(|calls| {
            // It takes a moment, and some modules call a thousand times.
            let mut hasher = DefaultHasher::new();
            if number == 0 || calls.len() < 10 {
                std::slice::from_raw_parts(memory, crate::PAGE as usize).hash(&mut hasher);
            }
            calls.push((number, length, hasher.finish()));
        });
        (*outputs).bits = match number % 3 {
            0 => (api().current_plugin_memory_alloc)(current, number % 5000),
            _ => number.rotate_left(7),
        };
    }
}
