//! What compiling a module will cost, before it is compiled.
//!
//! Compilers are made for what compilers write: a function of a few kilobytes with thousands of nested loops, or with
//! blocks that return a thousand values, takes minutes and gigabytes, and nothing can interrupt that. So each function
//! is measured while it is validated, in one pass over its operators. What is counted are the quantities that
//! Cranelift's time and memory grow with; the weights were found by compiling modules that have little else. For what
//! compilers write they say several times too much, and the limits leave room for that: of twenty large programs
//! (yosys, CPython, Ruby, esbuild, ffmpeg and others) none comes near them.

use wasmparser::{
    BlockType, CompositeInnerType, FrameKind, FuncValidator, FunctionBody, Operator, OperatorsReader, RecGroup, Result,
    ValType, ValidatorResources, WasmModuleResources,
};

use crate::error::Error;

/// Nanoseconds for a module of up to [`FULL_BYTES`]; a larger one may take longer in proportion.
const MAX_TIME: f64 = 25e9;
/// Bytes for one function.
const MAX_MEMORY: f64 = 900e6;
const FULL_BYTES: usize = 2 << 20;

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
    Blocks,
    Values,
    Edges,
    Results,
    Branches,
    Calls,
    CallValues,
    IndirectCalls,
    Handlers,
    References,
    Fields,
    FieldsAtOnce,
    LoopsInLoops,
    LoopValues,
}

const KINDS: usize = Of::LoopValues as usize + 1;

const WEIGHTS: [Weight; KINDS] = [
    weight("functions", 200e3, 0.0),
    weight("parameters and results of types", 40e3, 0.0),
    weight("instructions", 5e3, 250.0),
    weight("blocks", 5e3, 450.0),
    weight("blocks times the values that live across them", 200.0, 9.0),
    weight("values that branches carry", 150.0, 5.0),
    weight("parameters and results of blocks, squared", 0.05, 0.03),
    weight("branches to the same label, squared", 20.0, 0.0),
    weight("calls", 10e3, 2000.0),
    weight("arguments and results of calls", 10e3, 600.0),
    weight("indirect calls, squared", 70.0, 0.0),
    weight("calls times the catch clauses around them", 4.0, 0.0),
    weight("calls times the references that live across them", 150.0, 18.0),
    weight("fields of new objects", 12e3, 700.0),
    weight("fields of one new object, squared", 30.0, 1.5),
    weight("loops in loops", 250.0, 0.0),
    weight("loops times the locals in them", 1e3, 0.0),
];

/// How often each of these occurs.
type Counts = [f64; KINDS];

fn squared(count: u64) -> f64 {
    let count = count as f64;
    count * count
}

/// The cost of a module so far.
pub struct Cost {
    limit: f64,
    time: f64,
    functions: u32,
}

impl Cost {
    /// Of a module with so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { limit: (bytes as f64 / FULL_BYTES as f64).max(1.0), time: 0.0, functions: 0 }
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

    /// Validates a function and takes it in. The outer result is about the function being valid.
    pub fn add_function(
        &mut self,
        validator: &mut FuncValidator<ValidatorResources>,
        body: &FunctionBody<'_>,
    ) -> Result<std::result::Result<(), Error>> {
        let index = validator.index();
        let mut function = Function::new(validator);
        function.read(body)?;
        let counts = function.counts();
        self.functions += 1;
        Ok(self.add(&counts, &format!("function {index} is")))
    }

    /// Adds up; an error names what weighs most of what was added last.
    fn add(&mut self, counts: &Counts, subject: &str) -> std::result::Result<(), Error> {
        let sum = |weight: fn(&Weight) -> f64| {
            counts.iter().zip(&WEIGHTS).map(|(count, kind)| count * weight(kind)).sum::<f64>()
        };
        let (time, memory) = (sum(|kind| kind.time), sum(|kind| kind.memory));
        self.time += time;
        let (of_time, of_memory) = (self.time / (MAX_TIME * self.limit), memory / MAX_MEMORY);
        if of_time.max(of_memory) <= 1.0 {
            return Ok(());
        }
        if of_memory <= 1.0 && time < self.time / 2.0 {
            return Err(Error::new(format!(
                "the module is too large to compile: it has more than {} functions and {:.0} s of work; a module of its \
                 size may have {:.0} s",
                self.functions,
                self.time / 1e9,
                MAX_TIME * self.limit / 1e9,
            )));
        }
        let weight = |kind: &Weight| if of_memory > of_time { kind.memory } else { kind.time };
        let heaviest = counts.iter().zip(&WEIGHTS).max_by(|a, b| (a.0 * weight(a.1)).total_cmp(&(b.0 * weight(b.1))));
        let (count, what) = heaviest.map_or((0.0, ""), |(count, kind)| (*count, kind.what));
        let (cost, limit, unit) = match of_memory > of_time {
            true => (memory / 1e6, MAX_MEMORY / 1e6, "MB of memory"),
            false => (self.time / 1e9, MAX_TIME * self.limit / 1e9, "s"),
        };
        Err(Error::new(format!(
            "{subject} too complex to compile: it would take about {cost:.0} {unit}, mostly for {what} ({count:.0}); a \
             module of this size may take {limit:.0} {unit}"
        )))
    }
}

/// One function, while it is read.
struct Function<'a> {
    validator: &'a mut FuncValidator<ValidatorResources>,
    frames: Vec<Frame>,
    /// Which locals it uses.
    used: Vec<bool>,
    locals: u64,
    reference_locals: u64,
    operators: u64,
    blocks: u64,
    /// The heights of the operand stack at all blocks, and at all calls, together.
    heights: u64,
    heights_at_calls: u64,
    edges: u64,
    results: u64,
    branches: f64,
    calls: u64,
    call_values: u64,
    indirect_calls: u64,
    handlers: u64,
    fields: u64,
    fields_at_once: f64,
    loops: u64,
    loops_in_loops: u64,
    /// How many loops, and how many catch clauses, are around.
    loop_depth: u64,
    catches: u64,
}

/// A block that is open.
#[derive(Default)]
struct Frame {
    is_loop: bool,
    catches: u64,
    branches: u64,
}

impl<'a> Function<'a> {
    fn new(validator: &'a mut FuncValidator<ValidatorResources>) -> Self {
        Self {
            validator,
            frames: vec![Frame::default()],
            used: Vec::new(),
            locals: 0,
            reference_locals: 0,
            operators: 0,
            blocks: 1,
            heights: 0,
            heights_at_calls: 0,
            edges: 0,
            results: 0,
            branches: 0.0,
            calls: 0,
            call_values: 0,
            indirect_calls: 0,
            handlers: 0,
            fields: 0,
            fields_at_once: 0.0,
            loops: 0,
            loops_in_loops: 0,
            loop_depth: 0,
            catches: 0,
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = [0.0; KINDS];
        let mut set = |of: Of, count: f64| counts[of as usize] = count;
        set(Of::Functions, 1.0);
        set(Of::Operators, self.operators as f64);
        set(Of::Blocks, self.blocks as f64);
        set(Of::Values, self.blocks as f64 * self.locals as f64 + self.heights as f64);
        set(Of::Edges, self.edges as f64);
        set(Of::Results, squared(self.results));
        set(Of::Branches, self.branches);
        set(Of::Calls, self.calls as f64);
        set(Of::CallValues, self.call_values as f64);
        set(Of::IndirectCalls, squared(self.indirect_calls));
        // Beyond that only modules have more that may take longer, and they do not.
        set(Of::Handlers, self.handlers as f64 * self.handlers.min(100_000) as f64);
        let references = if self.reference_locals > 0 { self.heights_at_calls } else { 0 };
        set(Of::References, self.calls as f64 * self.reference_locals as f64 + references as f64);
        set(Of::Fields, self.fields as f64);
        set(Of::FieldsAtOnce, self.fields_at_once);
        set(Of::LoopsInLoops, self.loops_in_loops as f64);
        set(Of::LoopValues, self.loops as f64 * self.locals as f64);
        counts
    }

    fn read(&mut self, body: &FunctionBody<'_>) -> Result<()> {
        let mut reader = body.get_binary_reader();
        self.validator.read_locals(&mut reader)?;
        self.used = vec![false; self.validator.len_locals() as usize];
        let mut operators = OperatorsReader::new(reader);
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            // What cannot be reached is not compiled.
            let reachable = !self.validator.get_control_frame(0).is_some_and(|frame| frame.unreachable);
            if reachable {
                self.operators += 1;
                self.before(&operator)?;
            }
            self.validator.op(offset, &operator)?;
            self.after(&operator, reachable);
        }
        operators.finish()
    }

    /// What an operator that can be reached costs, with the operands that it finds.
    fn before(&mut self, operator: &Operator<'_>) -> Result<()> {
        match operator {
            Operator::LocalGet { local_index }
            | Operator::LocalSet { local_index }
            | Operator::LocalTee { local_index } => {
                self.use_local(*local_index);
            }
            Operator::Br { relative_depth } => self.branch(*relative_depth),
            Operator::BrIf { relative_depth }
            | Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth }
            | Operator::BrOnCast { relative_depth, .. }
            | Operator::BrOnCastFail { relative_depth, .. } => {
                self.branch(*relative_depth);
                self.block(1);
            }
            Operator::BrTable { targets } => {
                let mut depths: Vec<u32> = targets.targets().collect::<Result<_>>()?;
                depths.push(targets.default());
                self.operators += depths.len() as u64 / 4;
                depths.sort_unstable();
                depths.dedup();
                self.block(depths.len() as u64);
                depths.into_iter().for_each(|depth| self.branch(depth));
            }
            Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                let ty = self.validator.resources().type_index_of_function(*function_index);
                self.call(ty);
            }
            Operator::CallIndirect { type_index, .. }
            | Operator::ReturnCallIndirect { type_index, .. }
            | Operator::CallRef { type_index }
            | Operator::ReturnCallRef { type_index } => {
                self.indirect_calls += 1;
                self.call(Some(*type_index));
            }
            Operator::StructNew { struct_type_index } | Operator::StructNewDefault { struct_type_index } => {
                let ty = self.validator.resources().sub_type_at(*struct_type_index);
                let fields = match ty.map(|ty| &ty.composite_type.inner) {
                    Some(CompositeInnerType::Struct(ty)) => ty.fields.len() as u64,
                    _ => 0,
                };
                self.new_object(fields, matches!(operator, Operator::StructNew { .. }));
            }
            Operator::ArrayNewFixed { array_size, .. } => self.new_object(u64::from(*array_size), true),
            Operator::Throw { .. } | Operator::ThrowRef => self.call(None),
            Operator::Else | Operator::End => self.edges += self.arity(0, false),
            _ => {}
        }
        Ok(())
    }

    /// What opens and closes blocks, once the validator knows of it.
    fn after(&mut self, operator: &Operator<'_>, reachable: bool) {
        let catches = match operator {
            Operator::TryTable { try_table } => try_table.catches.len() as u64,
            _ => 0,
        };
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                let is_loop = matches!(operator, Operator::Loop { .. });
                self.frames.push(Frame { is_loop, catches, branches: 0 });
                self.catches += catches;
                self.loop_depth += u64::from(is_loop);
                if reachable {
                    self.block(2 + catches);
                    self.results += self.arity(0, is_loop);
                    if is_loop {
                        self.loops += 1;
                        self.loops_in_loops += self.loop_depth;
                        self.edges += self.arity(0, true);
                    }
                }
            }
            Operator::Else => self.block(1),
            Operator::End => {
                self.block(1);
                if let Some(frame) = self.frames.pop() {
                    self.catches -= frame.catches;
                    self.loop_depth -= u64::from(frame.is_loop);
                    self.branches += squared(frame.branches);
                }
            }
            _ => {}
        }
    }

    fn use_local(&mut self, index: u32) {
        if let Some(used) = self.used.get_mut(index as usize).filter(|used| !**used) {
            *used = true;
            self.locals += 1;
            self.reference_locals += u64::from(matches!(self.validator.get_local_type(index), Some(ValType::Ref(_))));
        }
    }

    fn block(&mut self, count: u64) {
        self.blocks += count;
        self.heights += count * u64::from(self.validator.operand_stack_height());
    }

    fn branch(&mut self, depth: u32) {
        let place = self.frames.len().checked_sub(1 + depth as usize);
        if let Some(frame) = place.and_then(|place| self.frames.get_mut(place)) {
            frame.branches += 1;
        }
        let is_loop = self.validator.get_control_frame(depth as usize).is_some_and(|f| f.kind == FrameKind::Loop);
        self.edges += self.arity(depth, is_loop);
    }

    /// How many values the block at this depth takes, or gives.
    fn arity(&self, depth: u32, params: bool) -> u64 {
        let count = match self.validator.get_control_frame(depth as usize).map(|frame| frame.block_type) {
            Some(BlockType::Type(_)) => usize::from(!params),
            Some(BlockType::FuncType(index)) => self.signature(index).map_or(0, |(p, r)| if params { p } else { r }),
            Some(BlockType::Empty) | None => 0,
        };
        count as u64
    }

    fn signature(&self, ty: u32) -> Option<(usize, usize)> {
        match &self.validator.resources().sub_type_at(ty)?.composite_type.inner {
            CompositeInnerType::Func(ty) => Some((ty.params().len(), ty.results().len())),
            _ => None,
        }
    }

    fn call(&mut self, ty: Option<u32>) {
        let (params, results) = ty.and_then(|ty| self.signature(ty)).unwrap_or_default();
        self.calls += 1;
        self.call_values += (params + results) as u64;
        self.heights_at_calls += u64::from(self.validator.operand_stack_height());
        self.handlers += self.catches;
        if self.catches > 0 {
            self.block(1);
        }
    }

    fn new_object(&mut self, fields: u64, from_operands: bool) {
        self.call(None);
        self.fields += fields;
        if from_operands {
            self.fields_at_once += squared(fields);
        }
    }
}
