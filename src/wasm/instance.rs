//! An instance of a program: the store, Extism memory, and calls into it.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use wasmtime::{
    AsContextMut, Instance, Memory, MemoryType, PoolConcurrencyLimitError, Store, Trap, TypedFunc, UpdateDeadline,
    WasmCoreDump, WasmParams,
};

use super::ctx::{Access, Ctx, ExtismMemory, Host, InputGlobals};
use super::engine::{self, Registered, environment};
use super::limits::{Budget, Limits, MEMORY_MAX, PAGE};
use super::link::{Link, Linked, Program};
pub(crate) use super::outcome::Outcome;
use super::traps::{Code, Visit};
use super::wasi::{Preopen, Wasi};
use super::{linked, outcome, rewrite, traps};
use crate::file_limit::write_file;
use crate::guest::{self, Fail, Guest};
use crate::state::{Span, State};

/// The export that runs in a fresh instance each time.
const COMMAND: &str = "_start";

/// The error of a call whose start-up called `proc_exit(0)`.
const EXITED: &str = "the plug-in exited (with code 0) in its start-up; the function was not called";

/// A live instance of a program, with the state of the plug-in that it belongs to.
pub(crate) struct Live {
    store: Registered<Store<Ctx>>,
    instance: Instance,
    /// The export that was called last, and the others that were called so far.
    last: Option<(CString, Function)>,
    functions: HashMap<CString, Function>,
    /// A command ran in this instance: it serves no other call.
    spent: bool,
    /// After the store, so that its modules never go with that (see [`super::engine::Registered`]), and the data of host
    /// functions outlives the guest that calls them.
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
        let budget = Budget::new(program.budget);
        let ctx = Ctx {
            state,
            host,
            settings: Arc::clone(&program.settings),
            wasi: wasi_for(program.wasi.as_deref(), &budget),
            limits: Limits::new(budget),
            memory: None,
            input: None,
            outer: None,
        };
        let _visit = Visit;
        let mut store = prepare_store(program.home(), ctx);
        let mut instantiated = instantiate(program, program.home(), &mut store);
        if matches!(&instantiated, Err(error) if error.is::<PoolConcurrencyLimitError>()) {
            match program.overflow() {
                Ok(overflow) => {
                    store = prepare_store(overflow, store.into(Store::into_data));
                    instantiated = instantiate(program, overflow, &mut store);
                }
                Err(error) => instantiated = Err(wasmtime::Error::new(Fail::Error(error))),
            }
        }
        let started = instantiated.and_then(|instance| {
            if !command {
                start_up(&mut store, instance)?;
            }
            Ok(instance)
        });
        match started {
            Ok(instance) => {
                let (program, functions) = (Arc::clone(program), HashMap::new());
                Ok(Box::new(Self { program, store, instance, last: None, functions, spent: false }))
            }
            Err(error) => {
                let denied = store.data().limits.budget().was_denied();
                let mut outcome = outcome::classify(Err(error), &store.data().state, denied, program.places());
                if outcome.code == 0 && !command {
                    // A call that did not take place must not look like one that went well.
                    outcome = Outcome::failed(outcome.error.unwrap_or_else(|| EXITED.to_owned()));
                }
                Err(NotStarted { state: take_state(&mut store), outcome })
            }
        }
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
    pub fn into_state(mut self) -> Box<State> {
        take_state(&mut self.store)
    }

    /// The export that was called last, if it can be called again.
    #[inline]
    pub fn last_called(&self) -> Option<&CStr> {
        self.last.as_ref().filter(|_| !self.spent).map(|(name, _)| name.as_c_str())
    }

    /// Frees all Extism memory.
    #[inline]
    pub fn reset(&mut self) {
        if !self.store.data().state.is_empty() {
            guest::reset(&mut Access::idle(&mut self.store));
        }
    }

    /// Runs an export that [`Program::export`] says is callable, with this input.
    pub fn call(&mut self, name: &str, input: &[u8]) -> Outcome {
        self.spent = Self::is_command(name);
        match self.look_up(name) {
            Ok(()) => self.call_last(input),
            Err(error) => Outcome::failed(format!("{error:#}")),
        }
    }

    /// Runs the export that was called last.
    #[inline]
    pub fn call_last(&mut self, input: &[u8]) -> Outcome {
        let _visit = Visit;
        self.store.data().limits.budget().begin_call();
        let result = self.run(input);
        let ctx = self.store.data();
        let denied = ctx.state.starved || ctx.limits.budget().was_denied();
        if let Err(error) = &result {
            // An exception that nothing caught must not be there for the next call.
            self.store.take_pending_exception();
            self.dump(error);
        }
        outcome::classify(result, &self.store.data().state, denied, self.program.places())
    }

    /// Empties the memory, and puts the input in place.
    #[inline]
    fn begin(&mut self, input: &[u8]) -> Result<(), Fail> {
        if input.is_empty() && self.store.data().state.is_empty() {
            return Ok(());
        }
        let mut access = Access::idle(&mut self.store);
        if !access.parts().0.as_ptr_range().contains(&input.as_ptr()) {
            return guest::begin(&mut access, input);
        }
        // Nobody should hand in what is about to be erased, but an address in there is easily had.
        let copy = crate::memory::copied(input).ok_or(Fail::OutOfMemory)?;
        guest::begin(&mut access, &copy)
    }

    #[inline]
    fn run(&mut self, input: &[u8]) -> wasmtime::Result<i32> {
        if let Some(fuel) = self.program.fuel {
            self.store.set_fuel(fuel)?;
        }
        self.begin(input).map_err(wasmtime::Error::new)?;
        match &self.last {
            Some((_, Function::Plain(function))) => function.call(&mut *self.store, ()).map(|()| 0),
            Some((_, Function::Code(function))) => function.call(&mut *self.store, ()),
            None => Err(wasmtime::Error::msg("a function was lost")),
        }
    }

    /// Makes this export the last one that was called.
    fn look_up(&mut self, name: &str) -> wasmtime::Result<()> {
        if self.last.as_ref().is_some_and(|(last, _)| last.to_bytes() == name.as_bytes()) {
            return Ok(());
        }
        let name_c = CString::new(name)?;
        let found = match self.functions.remove_entry(&name_c) {
            Some(known) => known,
            None => (name_c, self.find(name)?),
        };
        if let Some((name, function)) = self.last.replace(found) {
            self.functions.insert(name, function);
        }
        Ok(())
    }

    fn find(&mut self, name: &str) -> wasmtime::Result<Function> {
        let function = self.instance.get_func(&mut *self.store, name);
        let function = function.ok_or_else(|| wasmtime::Error::msg(format!("Function not found: {name}")))?;
        Ok(if function.ty(&*self.store).results().len() == 0 {
            Function::Plain(function.typed(&*self.store)?)
        } else {
            Function::Code(function.typed(&*self.store)?)
        })
    }

    /// Where the output lies, and its length in bytes, if there is any. Valid while the instance lives and its memory
    /// is not reset.
    pub fn output(&mut self) -> Option<(*const u8, u64)> {
        let span = self.store.data().state.output;
        if span.length == 0 {
            return None;
        }
        let mut access = Access::idle(&mut self.store);
        let (bytes, _) = access.parts();
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
            core_dump(&mut *self.store, error);
        }
        if let (Some(path), true) = (&environment().memdump, error.is::<Trap>()) {
            report(path, write_file(path, Access::idle(&mut self.store).parts().0));
        }
    }
}

/// Writes the core dump that an error of this very store carries, if it does.
pub(super) fn core_dump(store: impl AsContextMut, error: &wasmtime::Error) {
    if let (Some(path), Some(dump)) = (&environment().coredump, error.downcast_ref::<WasmCoreDump>()) {
        // Wasmtime panics where a global has a type that it does not expect.
        let dump = catch_unwind(AssertUnwindSafe(|| dump.serialize(store, "plugin")));
        let dump = dump.map_err(|_| io::Error::other("it has values that no core dump can hold"));
        report(path, dump.and_then(|dump| write_file(path, &dump)));
    }
}

fn report(path: &std::path::Path, written: std::io::Result<()>) {
    if let Err(error) = written {
        log::warn!(target: "extism", "cannot write the dump {}: {error}", path.display());
    }
}

/// Makes an instance of the main module, with all that it is linked with, and finds its Extism memory.
fn instantiate(program: &Program, linked: &Linked, store: &mut Store<Ctx>) -> wasmtime::Result<Instance> {
    let facts = &linked.main.facts;
    if let Some(fuel) = program.fuel {
        store.set_fuel(fuel)?;
    }
    if !facts.has_own_memory {
        store.data_mut().limits.expect_initial(1);
        let memory = Memory::new(&mut *store, MemoryType::new64(1, Some(MEMORY_MAX / PAGE)))?;
        store.data_mut().memory = Some(ExtismMemory::new(memory, &*store));
    }
    let instance = match &*linked.link {
        Link::Single(pre) => {
            store.data_mut().limits.expect_initial(facts.initial_parts);
            // No guest code runs meanwhile if it comes from a pool, whose locks a fork must not find taken.
            let _registration = facts.fits_pool.then(engine::registration);
            pre.instantiate(&mut *store)?
        }
        Link::Several { linker, modules } => {
            let linker = linked::instantiate(program, linker, modules, store)?;
            store.data_mut().limits.expect_initial(facts.initial_parts);
            linker.instantiate(&mut *store, &linked.main.module)?
        }
    };
    if facts.has_own_memory {
        let memory = instance.get_memory(&mut *store, rewrite::MEMORY);
        store.data_mut().memory = memory.map(|memory| ExtismMemory::new(memory, &*store));
    }
    if facts.reads_input {
        store.data_mut().input = InputGlobals::find(|name| instance.get_global(&mut *store, name));
    }
    match store.data().memory {
        Some(_) => Ok(instance),
        None => Err(wasmtime::Error::msg("the instance has no Extism memory")),
    }
}

/// The state of a store that ends. It outlives the memory that its blocks were in.
fn take_state(store: &mut Store<Ctx>) -> Box<State> {
    let stand_in = State::detached(&store.data().state);
    let mut state = std::mem::replace(&mut store.data_mut().state, Box::new(stand_in));
    state.blocks.reset();
    state.input = Span::default();
    state.output = Span::default();
    state
}

/// A store for a guest of this plug-in: its limits are in force, and it looks at its deadline whenever the epoch moves.
pub(super) fn prepare_store(linked: &Linked, ctx: Ctx) -> Registered<Store<Ctx>> {
    new_store(&linked.engine, ctx, &linked.code)
}

/// The same for an engine and the code that runs in the store.
pub(super) fn new_store(engine: &wasmtime::Engine, ctx: Ctx, code: &Code) -> Registered<Store<Ctx>> {
    let mut store = Registered::new(Store::new(engine, ctx));
    traps::guard(&mut store, code);
    store.limiter(|ctx| &mut ctx.limits);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        store.data().state.interrupt.check()?;
        Ok(UpdateDeadline::Continue(1))
    });
    store
}

/// What WASI keeps for a store, if WASI is on.
pub(super) fn wasi_for(preopens: Option<&[Preopen]>, budget: &Arc<Budget>) -> Option<Wasi> {
    preopens.map(|preopens| Wasi::new(preopens, environment().wasi_output, Arc::clone(budget)))
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
