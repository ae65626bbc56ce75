//! Measures one function.

use wasmparser::{
    BlockType, CompositeInnerType, FrameKind, FuncValidator, FunctionBody, Operator, OperatorsReader, Result, ValType,
    ValidatorResources, WasmModuleResources,
};

use super::operators::{Expansion, expansion};
use super::{Counts, KINDS, Of};

/// What blocks weigh in [`Function::ways`]: the square of the sum is what they cost in functions of nothing else.
mod way {
    pub const LOOP: f64 = 14.0;
    /// Where a branch, a call or an `if` goes on.
    pub const NEXT: f64 = 1.5;
    pub const ELSE: f64 = 1.0;
    pub const END: f64 = 0.25;
    /// Of a `br_table`, for each label.
    pub const LABEL: f64 = 0.3;
}

/// What counting fuel adds to each block. Plug-ins without a fuel limit are held to the same.
const FUEL: u64 = 2;

/// What calls of some imported functions become: the library puts code in their place.
const IMPORTED: Expansion = Expansion { operators: 16, ways: 3.0, calls: 1, operands: 0 };
/// So many of that code's values meet where its blocks end.
const IMPORTED_VALUES: u64 = 3;

fn squared(count: f64) -> f64 {
    count * count
}

/// One function, while it is read.
pub struct Function<'a> {
    validator: &'a mut FuncValidator<ValidatorResources>,
    imports: &'a [bool],
    frames: Vec<Frame>,
    locals: Vec<Local>,
    /// The locals that were used in the outermost loop that is open, and where that began.
    in_loop: Vec<u32>,
    loop_start: Place,
    /// How many loops, and how many catch clauses, are around.
    loop_depth: u64,
    catches: u64,
    /// How many locals were used so far, and how many of those are references.
    used: u64,
    used_references: u64,

    /// What can be reached, and what it becomes beyond that.
    operators: u64,
    expansions: u64,
    blocks: u64,
    /// Blocks, by their weights.
    ways: f64,
    /// The squares of the depths of all loops.
    nesting: u64,
    /// The heights of the operand stack at all blocks, and at all operators.
    heights_at_blocks: u64,
    heights_at_operators: u64,
    /// For each branch to a loop, the locals that were used before it.
    loop_values: u64,
    /// What blocks take and give.
    block_values: u64,
    /// Assignments that something depends on: where ways meet, the value may be one or the other.
    conditional_sets: u64,
    /// For each call the catch clauses, and the references, around it.
    handlers: u64,
    references: u64,
}

/// A block that is open.
#[derive(Default)]
struct Frame {
    is_loop: bool,
    catches: u64,
    /// Whether something branches to it.
    is_target: bool,
    /// Whether it stands where nothing can come.
    is_dead: bool,
}

/// Where a local is used first and last. Between the two it may live, and in the whole of a loop that uses it.
#[derive(Clone, Copy, Default)]
struct Local {
    is_used: bool,
    is_in_loop: bool,
    first: Place,
    last: Place,
}

/// A place in a function, counted in operators and in blocks.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    operators: u64,
    blocks: u64,
}

impl<'a> Function<'a> {
    pub fn new(validator: &'a mut FuncValidator<ValidatorResources>, imports: &'a [bool]) -> Self {
        Self {
            validator,
            imports,
            frames: vec![Frame::default()],
            locals: Vec::new(),
            in_loop: Vec::new(),
            loop_start: Place::default(),
            loop_depth: 0,
            catches: 0,
            used: 0,
            used_references: 0,
            operators: 0,
            expansions: 0,
            ways: 0.0,
            nesting: 0,
            heights_at_blocks: 0,
            heights_at_operators: 0,
            blocks: 0,
            loop_values: 0,
            block_values: 0,
            conditional_sets: 0,
            handlers: 0,
            references: 0,
        }
    }

    /// Validates the function, and counts.
    pub fn measure(mut self, body: &FunctionBody<'_>) -> Result<Counts> {
        let mut reader = body.get_binary_reader();
        self.validator.read_locals(&mut reader)?;
        self.locals = vec![Local::default(); self.validator.len_locals() as usize];
        if let Some((params, results)) =
            self.validator.resources().type_index_of_function(self.validator.index()).and_then(|ty| self.signature(ty))
        {
            self.operators += (params + results) / 20;
        }
        let mut operators = OperatorsReader::new(reader);
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            // What cannot be reached is not compiled.
            let reachable = self.is_reachable();
            if reachable {
                self.before(&operator)?;
            }
            self.validator.op(offset, &operator)?;
            self.after(&operator, reachable);
        }
        operators.finish()?;
        Ok(self.counts())
    }

    /// Whether something can come here. The validator knows within a block, and begins anew in the next.
    fn is_reachable(&self) -> bool {
        let is_dead = self.frames.last().is_some_and(|frame| frame.is_dead);
        !is_dead && !self.validator.get_control_frame(0).is_some_and(|frame| frame.unreachable)
    }

    fn counts(&self) -> Counts {
        let lives = self.locals.iter().filter(|local| local.is_used);
        let (mut at_operators, mut at_blocks) = (self.heights_at_operators, self.heights_at_blocks);
        for Local { first, last, .. } in lives {
            at_operators += last.operators - first.operators;
            at_blocks += last.blocks - first.blocks;
        }
        let mut counts = [0.0; KINDS];
        let mut set = |of: Of, count: f64| counts[of as usize] = count;
        set(Of::Functions, 1.0);
        set(Of::Operators, self.operators as f64);
        set(Of::Expansions, self.expansions as f64);
        set(Of::Blocks, squared(self.ways));
        set(Of::LoopsInLoops, self.nesting as f64);
        set(Of::ValuesAtBlocks, at_blocks as f64);
        set(Of::ValuesAtOperators, at_operators as f64);
        set(Of::ValuesOfLoops, self.loop_values as f64);
        set(Of::ValuesOfBlocks, self.ways * (self.block_values as f64 + self.conditional_sets as f64 / 8.0));
        set(Of::Handlers, squared(self.handlers as f64));
        set(Of::References, self.references as f64);
        counts
    }

    /// What an operator that can be reached costs, with the operands that it finds.
    fn before(&mut self, operator: &Operator<'_>) -> Result<()> {
        self.operators += 1;
        self.heights_at_operators += u64::from(self.validator.operand_stack_height());
        match operator {
            Operator::LocalGet { local_index }
            | Operator::LocalSet { local_index }
            | Operator::LocalTee { local_index } => {
                self.use_local(*local_index);
                if self.frames.len() > 1 && !matches!(operator, Operator::LocalGet { .. }) {
                    self.conditional_sets += 1;
                }
            }
            Operator::Br { relative_depth } => self.branch(*relative_depth),
            Operator::BrIf { relative_depth }
            | Operator::BrOnNull { relative_depth }
            | Operator::BrOnNonNull { relative_depth }
            | Operator::BrOnCast { relative_depth, .. }
            | Operator::BrOnCastFail { relative_depth, .. } => {
                self.branch(*relative_depth);
                self.add_blocks(1, way::NEXT);
            }
            Operator::BrTable { targets } => {
                let mut depths: Vec<u32> = targets.targets().collect::<Result<_>>()?;
                depths.push(targets.default());
                self.operators += depths.len() as u64 / 2;
                depths.sort_unstable();
                depths.dedup();
                self.add_blocks(depths.len() as u64, way::LABEL);
                depths.into_iter().for_each(|depth| self.branch(depth));
            }
            Operator::Else | Operator::End => self.block_values += self.arity(0, false),
            _ => {}
        }
        let expansion = expansion(operator, self.validator.resources(), |index| self.signature(index));
        self.expand(expansion);
        if let Operator::Call { function_index } | Operator::ReturnCall { function_index } = operator
            && self.imports.get(*function_index as usize) == Some(&true)
        {
            self.expand(IMPORTED);
            self.block_values += IMPORTED_VALUES;
        }
        Ok(())
    }

    fn expand(&mut self, expansion: Expansion) {
        self.expansions += expansion.operators;
        self.ways += expansion.ways;
        let references = match self.used_references {
            0 => 0,
            used => used + u64::from(self.validator.operand_stack_height()).saturating_sub(expansion.operands),
        };
        self.references += expansion.calls * references;
        self.handlers += expansion.calls * self.catches;
        if self.catches > 0 && expansion.calls > 0 {
            self.add_blocks(expansion.calls, way::NEXT);
            self.expansions += 5 * expansion.calls;
        }
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
                self.frames.push(Frame { is_loop, catches, is_target: false, is_dead: !reachable });
                self.catches += catches;
                if is_loop && self.loop_depth == 0 {
                    self.loop_start = self.here();
                }
                self.loop_depth += u64::from(is_loop);
                if reachable {
                    self.add_blocks(catches, way::NEXT);
                    self.expansions += 5 * catches;
                    match operator {
                        Operator::Loop { .. } => {
                            self.add_blocks(3, way::LOOP / 3.0);
                            self.nesting += self.loop_depth * self.loop_depth;
                            self.block_values += self.arity(0, true);
                        }
                        Operator::If { .. } => self.add_blocks(1, way::NEXT),
                        _ => {}
                    }
                }
            }
            Operator::Else if self.frames.last().is_some_and(|frame| !frame.is_dead) => self.add_blocks(1, way::ELSE),
            Operator::End => {
                if let Some(frame) = self.frames.pop() {
                    self.add_blocks(u64::from(!frame.is_dead), way::END);
                    self.catches -= frame.catches;
                    self.loop_depth -= u64::from(frame.is_loop);
                    if frame.is_loop && self.loop_depth == 0 {
                        self.end_loops();
                    }
                }
            }
            _ => {}
        }
    }

    fn here(&self) -> Place {
        Place { operators: self.operators, blocks: self.blocks }
    }

    fn use_local(&mut self, index: u32) {
        let here = self.here();
        let is_in_loop = self.loop_depth > 0;
        let Some(local) = self.locals.get_mut(index as usize) else {
            return;
        };
        if !local.is_used {
            local.first = here;
            self.used += 1;
            self.used_references += u64::from(matches!(self.validator.get_local_type(index), Some(ValType::Ref(_))));
        }
        local.is_used = true;
        local.last = here;
        if is_in_loop && !local.is_in_loop {
            local.is_in_loop = true;
            self.in_loop.push(index);
        }
    }

    /// At the end of an outermost loop: what was used in it has lived up to here.
    fn end_loops(&mut self) {
        let here = self.here();
        for index in self.in_loop.drain(..) {
            if let Some(local) = self.locals.get_mut(index as usize) {
                local.first = local.first.min(self.loop_start);
                local.last = here;
                local.is_in_loop = false;
            }
        }
    }

    fn add_blocks(&mut self, count: u64, ways: f64) {
        self.blocks += count;
        self.expansions += count * FUEL;
        self.ways += count as f64 * ways;
        self.heights_at_blocks += count * u64::from(self.validator.operand_stack_height());
    }

    fn branch(&mut self, depth: u32) {
        let is_loop = self.validator.get_control_frame(depth as usize).is_some_and(|f| f.kind == FrameKind::Loop);
        let place = self.frames.len().checked_sub(1 + depth as usize);
        let frame = place.and_then(|place| self.frames.get_mut(place));
        if frame.is_some_and(|frame| !std::mem::replace(&mut frame.is_target, true)) {
            self.block_values += self.arity(depth, is_loop);
        }
        if is_loop {
            self.loop_values += self.used;
        }
    }

    /// How many values the block at this depth takes, or gives.
    fn arity(&self, depth: u32, params: bool) -> u64 {
        match self.validator.get_control_frame(depth as usize).map(|frame| frame.block_type) {
            Some(BlockType::Type(_)) => u64::from(!params),
            Some(BlockType::FuncType(index)) => self.signature(index).map_or(0, |(p, r)| if params { p } else { r }),
            Some(BlockType::Empty) | None => 0,
        }
    }

    fn signature(&self, ty: u32) -> Option<(u64, u64)> {
        match &self.validator.resources().sub_type_at(ty)?.composite_type.inner {
            CompositeInnerType::Func(ty) => Some((ty.params().len() as u64, ty.results().len() as u64)),
            _ => None,
        }
    }
}
