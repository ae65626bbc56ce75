//! An instance of a program: the store, Extism memory, and calls into it.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::{
    AsContextMut, Instance, Memory, MemoryType, Store, Trap, TypedFunc, UpdateDeadline, WasmCoreDump, WasmParams,
};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::ctx::{Access, Ctx, Host, InputGlobals};
use super::engine::environment;
use super::limits::{Budget, Limits, MEMORY_MAX, PAGE};
use super::link::{Directory, Link, Program};
pub(crate) use super::outcome::Outcome;
use super::traps::{Code, Visit};
use super::{linked, outcome, rewrite, traps, wasi};
use crate::guest::{self, Fail};
use crate::state::{Span, State};

/// The export that runs in a fresh instance each time.
const COMMAND: &str = "_start";

/// The error of a call whose start-up called `proc_exit(0)`.
const EXITED: &str = "the plug-in exited (with code 0) in its start-up; the function was not called";

/// A live instance of a program, with the state of the plug-in that it belongs to.
pub(crate) struct Live {
    store: Store<Ctx>,
    instance: Instance,
    memory: Memory,
    /// The export that was called last, and the others that were called so far.
    last: Option<(Box<str>, Function)>,
    functions: HashMap<Box<str>, Function>,
    /// A command ran in this instance: it serves no other call.
    spent: bool,
    /// After the store, so that its modules never go with that: see [`super::engine::Registered`].
    program: Arc<Program>,
}

/// An export that can be called.
enum Function {
    Plain(TypedFunc<(), ()>),
    Code(TypedFunc<(), i32>),
}

/// An instance that could not be made, or whose start-up failed.
pub(crate) struct NotStarted {
    /// The state comes back for the next attempt.
    pub state: Box<State>,
    /// What the host is told.
    pub outcome: Outcome,
}

impl Live {
    /// Instantiates the program and, unless the call is of a command, runs what it brings for its start-up.
    pub fn start(
        program: &Arc<Program>,
        state: Box<State>,
        host: Arc<Host>,
        command: bool,
    ) -> Result<Box<Self>, NotStarted> {
        if program.wasi.is_some() {
            wasi::enter();
        }
        let wasi = match wasi_context(program.wasi.as_deref()) {
            Ok(wasi) => wasi,
            Err(error) => return Err(NotStarted { state, outcome: Outcome::failed(format!("{error:#}")) }),
        };
        let ctx = Ctx {
            state,
            host,
            settings: Arc::clone(&program.settings),
            limits: Limits::new(Budget::new(program.budget)),
            memory: None,
            input: None,
            wasi,
            outer: None,
        };
        let _visit = Visit;
        let mut store = prepare_store(&program.engine, ctx, &program.code);
        match Self::instantiate(program, &mut store, command) {
            Ok((instance, memory)) => {
                let (program, functions) = (Arc::clone(program), HashMap::new());
                Ok(Box::new(Self { program, store, instance, memory, last: None, functions, spent: false }))
            }
            Err(error) => {
                let denied = store.data().limits.budget().was_denied();
                let mut outcome = outcome::classify(Err(error), &store.data().state, denied, &program.main.places);
                if outcome.code == 0 && !command {
                    // A call that did not take place must not look like one that went well.
                    outcome = Outcome::failed(outcome.error.unwrap_or_else(|| EXITED.to_owned()));
                }
                Err(NotStarted { state: forget_memory(store.into_data().state), outcome })
            }
        }
    }

    fn instantiate(program: &Program, store: &mut Store<Ctx>, command: bool) -> wasmtime::Result<(Instance, Memory)> {
        if let Some(fuel) = program.fuel {
            store.set_fuel(fuel)?;
        }
        if !program.main.has_own_memory {
            store.data_mut().limits.expect_initial(1);
            let memory = Memory::new(&mut *store, MemoryType::new64(1, Some(MEMORY_MAX / PAGE)))?;
            store.data_mut().memory = Some(memory);
        }
        let instance = match &*program.link {
            Link::Single(pre) => {
                store.data_mut().limits.expect_initial(program.main.initial_parts);
                pre.instantiate(&mut *store)?
            }
            Link::Linked { linker, modules } => {
                let linker = linked::instantiate(program, linker, modules, store)?;
                store.data_mut().limits.expect_initial(program.main.initial_parts);
                linker.instantiate(&mut *store, &program.main.module)?
            }
        };
        if program.main.has_own_memory {
            store.data_mut().memory = instance.get_memory(&mut *store, rewrite::MEMORY);
        }
        if program.main.reads_input {
            store.data_mut().input = InputGlobals::find(|name| instance.get_global(&mut *store, name));
        }
        let Some(memory) = store.data().memory else {
            return Err(wasmtime::Error::msg("the instance has no Extism memory"));
        };
        if !command {
            start_up(store, instance)?;
        }
        Ok((instance, memory))
    }

    /// Whether this instance serves no other call.
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    /// Whether a call of this export is a run of a command, which gets an instance of its own.
    pub fn is_command(name: &str) -> bool {
        name == COMMAND
    }

    /// Ends the instance; the state remains.
    pub fn into_state(self: Box<Self>) -> Box<State> {
        forget_memory(self.store.into_data().state)
    }

    /// Whether the last call was of this export.
    #[inline]
    pub fn last_called(&self, name: &str) -> bool {
        matches!(&self.last, Some((last, _)) if **last == *name)
    }

    /// Frees all Extism memory.
    pub fn reset(&mut self) {
        // The guest does not run before it has another input, and is told of that.
        let mut access = std::mem::ManuallyDrop::new(Access::idle(&mut self.store));
        guest::reset(&mut *access);
    }

    /// Runs an export that [`Program::export`] says is callable, with this input.
    pub fn call(&mut self, name: &str, input: &[u8]) -> Outcome {
        let _visit = Visit;
        self.spent = Self::is_command(name);
        self.store.data().limits.budget().begin_call();
        let result = self.run(name, input);
        let ctx = self.store.data();
        let denied = ctx.state.starved || ctx.limits.budget().was_denied();
        if let Err(error) = &result {
            // An exception that nothing caught must not be there for the next call.
            self.store.take_pending_exception();
            self.dump(error);
        }
        outcome::classify(result, &self.store.data().state, denied, &self.program.main.places)
    }

    fn run(&mut self, name: &str, input: &[u8]) -> wasmtime::Result<i32> {
        if self.program.wasi.is_some() {
            wasi::enter();
        }
        // A cancel or deadline that moved the epoch before this line is not lost: the watchdog moves it again and
        // again until the call has ended.
        self.store.set_epoch_deadline(1);
        if let Some(fuel) = self.program.fuel {
            self.store.set_fuel(fuel)?;
        }
        guest::set_input(&mut Access::idle(&mut self.store), input).map_err(wasmtime::Error::new)?;
        if !self.last_called(name) {
            self.look_up(name)?;
        }
        match &self.last {
            Some((_, Function::Plain(function))) => function.call(&mut self.store, ()).map(|()| 0),
            Some((_, Function::Code(function))) => function.call(&mut self.store, ()),
            None => Err(wasmtime::Error::msg("a function was lost")),
        }
    }

    /// Makes this export the last one that was called.
    #[cold]
    fn look_up(&mut self, name: &str) -> wasmtime::Result<()> {
        let found = match self.functions.remove_entry(name) {
            Some(known) => known,
            None => (name.into(), self.find(name)?),
        };
        if let Some((name, function)) = self.last.replace(found) {
            self.functions.insert(name, function);
        }
        Ok(())
    }

    fn find(&mut self, name: &str) -> wasmtime::Result<Function> {
        let function = self.instance.get_func(&mut self.store, name);
        let function = function.ok_or_else(|| wasmtime::Error::msg(format!("Function not found: {name}")))?;
        Ok(if function.ty(&self.store).results().len() == 0 {
            Function::Plain(function.typed(&self.store)?)
        } else {
            Function::Code(function.typed(&self.store)?)
        })
    }

    /// Where the output lies, and its length in bytes, if there is any. Valid while the instance lives and its memory
    /// is not reset.
    pub fn output(&mut self) -> Option<(*const u8, u64)> {
        let span = self.store.data().state.output;
        if span.length == 0 {
            return None;
        }
        let bytes = self.memory.data(&self.store);
        let output = crate::memory::range(span.offset, span.length, bytes.len()).and_then(|range| bytes.get(range))?;
        Some((output.as_ptr(), span.length))
    }

    /// The state of the plug-in.
    pub fn state(&mut self) -> &mut State {
        &mut self.store.data_mut().state
    }

    /// Leaves the dumps that the environment asks for.
    #[cold]
    fn dump(&mut self, error: &wasmtime::Error) {
        if !std::mem::replace(&mut self.store.data_mut().state.dumped, true) {
            core_dump(&mut self.store, error);
        }
        if let (Some(path), true) = (&environment().memdump, error.is::<Trap>()) {
            report(path, std::fs::write(path, self.memory.data(&self.store)));
        }
    }
}

/// Writes the core dump that an error of this very store carries, if it does.
pub(super) fn core_dump(store: impl AsContextMut, error: &wasmtime::Error) {
    if let (Some(path), Some(dump)) = (&environment().coredump, error.downcast_ref::<WasmCoreDump>()) {
        report(path, std::fs::write(path, dump.serialize(store, "plugin")));
    }
}

fn report(path: &std::path::Path, written: std::io::Result<()>) {
    if let Err(error) = written {
        log::warn!(target: "extism", "cannot write the dump {}: {error}", path.display());
    }
}

/// A state outlives the memory that its blocks were in.
fn forget_memory(mut state: Box<State>) -> Box<State> {
    state.blocks.reset();
    state.input = Span::default();
    state.output = Span::default();
    state
}

/// A store for a guest of this plug-in: its limits are in force, and it looks at its deadline whenever the epoch moves.
pub(super) fn prepare_store(engine: &wasmtime::Engine, ctx: Ctx, code: &Code) -> Store<Ctx> {
    let mut store = Store::new(engine, ctx);
    traps::guard(&mut store, code);
    store.limiter(|ctx| &mut ctx.limits);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        store.data().state.interrupt.check()?;
        Ok(UpdateDeadline::Continue(1))
    });
    store
}

/// What WASI shows to the guests of a store, if WASI is on.
pub(super) fn wasi_context(directories: Option<&[Directory]>) -> wasmtime::Result<Option<WasiP1Ctx>> {
    let Some(directories) = directories else {
        return Ok(None);
    };
    wasi::context(directories, environment().wasi_output)
        .map(Some)
        .map_err(|error| wasmtime::Error::new(Fail::Error(error)))
}

/// What a module brings for its start-up: `hs_init` (after `_initialize`), else `__wasm_call_ctors`, else
/// `_initialize`. An export of such a name and another type is an ordinary export.
fn start_up(store: &mut Store<Ctx>, instance: Instance) -> wasmtime::Result<()> {
    let initialize = exported::<()>(store, instance, "_initialize");
    if let Some(hs_init) = exported::<(i32, i32)>(store, instance, "hs_init") {
        if let Some(initialize) = initialize {
            initialize.call(&mut *store, ())?;
        }
        return hs_init.call(store, (0, 0));
    }
    let constructors = exported::<()>(store, instance, "__wasm_call_ctors");
    constructors.or(initialize).map_or(Ok(()), |function| function.call(store, ()))
}

/// The export of this name, if it is a function with these parameters and no results.
pub(super) fn exported<P: WasmParams>(
    store: &mut Store<Ctx>,
    instance: Instance,
    name: &str,
) -> Option<TypedFunc<P, ()>> {
    instance.get_func(&mut *store, name)?.typed(store).ok()
}
