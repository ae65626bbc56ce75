//! Several modules that work as one plug-in: a module imports what another, linked under its name, exports.
//!
//! A *reactor* is instantiated once for each plug-in, gets its `_initialize` and keeps its state. A *command* (a
//! module that exports `_start`) is instantiated anew for every call into it. A store frees no instance before the
//! store itself goes, so a command gets a store of its own for the call; its guest functions work on the Extism
//! memory of its caller, and functions of other modules are reached through the caller's store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wasmtime::{
    AsContextMut, Caller, ExternType, Func, FuncType, ImportType, InstancePre, Linker, Module, Mutability, RefType,
    Store, ThrownException, Trap, Val, ValType,
};

use super::ctx::{Ctx, Outer};
use super::instance::{core_dump, exported, new_store, wasi_for};
use super::limits::Limits;
use super::link::{Program, missing_import, type_name};
use super::module::Part;
use super::stack;
use super::traps::Code;
use super::wasi::Preopen;
use crate::error::{Error, Result};
use crate::guest::Fail;
use crate::state::State;

/// A module that others import under `name`.
pub(super) struct LinkedModule {
    pub name: String,
    pub part: Part,
    is_command: bool,
}

/// The modules in an order in which each comes after those that it imports. Modules that the main module does not
/// reach are kept: their initialisers run, as in libextism 1.41.
pub(super) fn in_order(parts: Vec<(String, Part)>, main_name: &str, main: &Module) -> Result<Vec<LinkedModule>> {
    let mut waiting = BTreeMap::new();
    for (name, part) in parts {
        let is_command = part.module.get_export("_start").is_some();
        if let Some(double) = waiting.insert(name.clone(), LinkedModule { name, part, is_command }) {
            return Err(Error::new(format!("two linked modules have the name `{}`", double.name)));
        }
    }
    if waiting.contains_key(main_name) && main.imports().any(|import| import.module() == main_name) {
        return Err(Error::new(format!("module `{main_name}` imports itself")));
    }
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = waiting
            .iter()
            .find(|(_, module)| module.part.module.imports().all(|import| !waiting.contains_key(import.module())));
        let Some(name) = ready.map(|(name, _)| name.clone()) else {
            let names: BTreeSet<_> = waiting.keys().map(String::as_str).collect();
            let names = names.into_iter().collect::<Vec<_>>().join("`, `");
            return Err(Error::new(format!("linked modules import each other in a circle: `{names}`")));
        };
        ordered.extend(waiting.remove(&name));
    }
    Ok(ordered)
}

/// Type-checks the imports of all modules. `scratch` is a store of the linker's engine.
pub(super) fn check(
    linker: &Linker<Ctx>,
    modules: &[LinkedModule],
    main_name: &str,
    main: &Module,
    scratch: &mut Store<Ctx>,
) -> Result<()> {
    for module in modules {
        for import in module.part.module.imports() {
            check_import(linker, modules, &module.name, &import, scratch)?;
            let is_function = matches!(import.ty(), ExternType::Func(_));
            if module.is_command && !is_function && offered(modules, &import).is_some() {
                return Err(command_imports(&module.name, &import));
            }
        }
    }
    main.imports().try_for_each(|import| check_import(linker, modules, main_name, &import, scratch))
}

fn check_import(
    linker: &Linker<Ctx>,
    modules: &[LinkedModule],
    name: &str,
    import: &ImportType<'_>,
    scratch: &mut Store<Ctx>,
) -> Result<()> {
    let of_host = |store: &mut Store<Ctx>| {
        let item = linker.get(&mut *store, import.module(), import.name()).ok()?;
        Some(item.ty(&*store))
    };
    let wanted = import.ty();
    let Some(found) = offered(modules, import).or_else(|| of_host(scratch)) else {
        return Err(missing_import(name, import.module(), import.name(), &wanted));
    };
    if fits(&found, &wanted) {
        return Ok(());
    }
    Err(Error::new(format!(
        "module `{name}` imports `{}`::`{}` as {}, but what is offered under this name is {}",
        import.module(),
        import.name(),
        type_name(&wanted),
        type_name(&found)
    )))
}

/// Whether something of type `found` can be imported as `wanted`.
fn fits(found: &ExternType, wanted: &ExternType) -> bool {
    // How large a memory or table is when it is imported shows only then: the module that has it may grow it first.
    let maximum =
        |found: Option<u64>, wanted: Option<u64>| wanted.is_none_or(|most| found.is_some_and(|found| found <= most));
    match (found, wanted) {
        (ExternType::Func(found), ExternType::Func(wanted)) => found.matches(wanted),
        (ExternType::Memory(found), ExternType::Memory(wanted)) => {
            found.is_64() == wanted.is_64() && maximum(found.maximum(), wanted.maximum())
        }
        (ExternType::Table(found), ExternType::Table(wanted)) => {
            found.is_64() == wanted.is_64()
                && RefType::eq(found.element(), wanted.element())
                && maximum(found.maximum(), wanted.maximum())
        }
        (ExternType::Global(found), ExternType::Global(wanted)) => {
            let exact = ValType::eq(found.content(), wanted.content());
            let constant = found.mutability() == Mutability::Const;
            found.mutability() == wanted.mutability()
                && (exact || constant && found.content().matches(wanted.content()))
        }
        (ExternType::Tag(found), ExternType::Tag(wanted)) => FuncType::eq(found.ty(), wanted.ty()),
        _ => false,
    }
}

/// What a linked module offers for this import. A command offers functions alone: its other exports die with each
/// call.
fn offered(modules: &[LinkedModule], import: &ImportType<'_>) -> Option<ExternType> {
    let module = modules.iter().find(|module| module.name == import.module())?;
    let ty = module.part.module.get_export(import.name())?;
    (!module.is_command || matches!(ty, ExternType::Func(_))).then_some(ty)
}

fn command_imports(name: &str, import: &ImportType<'_>) -> Error {
    Error::new(format!(
        "module `{name}` is a command (it exports `_start`) and imports `{}`::`{}`, which is {}; a command can import \
         only functions from other modules",
        import.module(),
        import.name(),
        type_name(&import.ty())
    ))
}

/// What a command needs for a run of its own.
struct Command {
    /// A command that runs is not entered once more: its initial memory was checked once.
    runs: AtomicBool,
    pre: InstancePre<Ctx>,
    wasi: Option<Arc<[Preopen]>>,
    code: Code,
    initial_parts: usize,
}

/// Instantiates the linked modules in this store and defines their exports. Runs their start functions and
/// `_initialize`.
pub(super) fn instantiate(
    program: &Program,
    linker: &Linker<Ctx>,
    modules: &[LinkedModule],
    store: &mut Store<Ctx>,
) -> wasmtime::Result<Linker<Ctx>> {
    let mut here = linker.clone();
    // The same names for commands, which live in stores of their own: all of it host functions.
    let mut for_commands = linker.clone();
    for module in modules {
        let functions = module.part.module.exports().filter_map(|export| match export.ty() {
            ExternType::Func(ty) => Some((export.name(), ty)),
            _ => None,
        });
        if module.is_command {
            let command = Arc::new(Command {
                runs: AtomicBool::new(false),
                pre: for_commands.instantiate_pre(&module.part.module)?,
                wasi: program.wasi.clone(),
                code: program.home().code.clone(),
                initial_parts: module.part.facts.initial_parts,
            });
            for (export, ty) in functions {
                for linker in [&mut here, &mut for_commands] {
                    let (command, name) = (Arc::clone(&command), export.to_owned());
                    linker.func_new(&module.name, export, ty.clone(), move |caller, params, results| {
                        command.run(&name, caller, params, results)
                    })?;
                }
            }
        } else {
            store.data_mut().limits.expect_initial(module.part.facts.initial_parts);
            let instance = here.instantiate(&mut *store, &module.part.module)?;
            if let Some(initialize) = exported::<()>(store, instance, "_initialize") {
                initialize.call(&mut *store, ())?;
            }
            here.instance(&mut *store, &module.name, instance)?;
            for (export, ty) in functions {
                if let Some(function) = instance.get_func(&mut *store, export) {
                    for_commands.func_new(&module.name, export, ty, move |mut caller, params, results| {
                        call_outside(&mut caller, function, params, results)
                    })?;
                }
            }
        }
    }
    Ok(here)
}

impl Command {
    fn run(
        &self,
        export: &str,
        mut caller: Caller<'_, Ctx>,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        if self.runs.swap(true, Ordering::Relaxed) {
            let error = Error::new(format!("`{export}` of a linked command was called while that command runs"));
            return Err(wasmtime::Error::new(Fail::Error(error)));
        }
        let result = self.run_alone(export, &mut caller, params, results);
        self.runs.store(false, Ordering::Relaxed);
        result
    }

    fn run_alone(
        &self,
        export: &str,
        caller: &mut Caller<'_, Ctx>,
        params: &[Val],
        results: &mut [Val],
    ) -> wasmtime::Result<()> {
        // A store of its own takes a stack of its own for granted.
        if !stack::has_room(stack::CALL) {
            return Err(Trap::StackOverflow.into());
        }
        // SAFETY: the value goes into the store below, which is dropped before this function returns its borrow of
        // `caller`; while a guest runs in that store, `caller` is left alone.
        let outer = unsafe { Outer::of(caller) };
        let ctx = caller.data();
        let state = State::detached(&ctx.state);
        let inner = Ctx {
            state: Box::new(state),
            host: Arc::clone(&ctx.host),
            settings: Arc::clone(&ctx.settings),
            limits: Limits::new(Arc::clone(ctx.limits.budget())),
            memory: None,
            input: None,
            wasi: wasi_for(self.wasi.as_deref(), ctx.limits.budget()),
            outer: Some(outer),
        };
        let mut owner = new_store(caller.engine(), inner, &self.code);
        let store = &mut *owner;
        let fuel = caller.get_fuel().ok();
        if let Some(fuel) = fuel {
            store.set_fuel(fuel)?;
        }
        store.data_mut().limits.expect_initial(self.initial_parts);
        let result = self.pre.instantiate(&mut *store).and_then(|instance| {
            let function = instance.get_func(&mut *store, export);
            let function = function.ok_or_else(|| wasmtime::Error::msg("a command lost an export"))?;
            function.call(&mut *store, params, results)
        });
        if let Err(error) = &result {
            let dumped = outer.with(|outer| std::mem::replace(&mut outer.data_mut().state.dumped, true));
            if !dumped {
                core_dump(&mut *store, error);
            }
        }
        if fuel.is_some() {
            caller.set_fuel(store.get_fuel()?)?;
        }
        result.map_err(|error| ended_by_exception(error, export))
    }
}

/// A call out of a command into a module that lives in the store of the command's caller.
fn call_outside(
    caller: &mut Caller<'_, Ctx>,
    function: Func,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let fuel = caller.get_fuel().ok();
    let Some(outer) = caller.data().outer else {
        return Err(wasmtime::Error::msg("a command runs without a caller"));
    };
    let (result, left) = outer.with(|outer| {
        let started = fuel.map_or(Ok(()), |fuel| outer.set_fuel(fuel));
        let result = started.and_then(|()| function.call(&mut *outer, params, results));
        if let Err(error) = &result {
            outer.as_context_mut().take_pending_exception();
            if !std::mem::replace(&mut outer.data_mut().state.dumped, true) {
                core_dump(&mut *outer, error);
            }
        }
        (result, outer.get_fuel().ok())
    });
    // However it ended: what it spent is spent.
    if let Some(left) = left {
        caller.set_fuel(left)?;
    }
    result.map_err(|error| ended_by_exception(error, "a function"))
}

/// An exception belongs to the store that it was thrown in: at the border of a store it becomes an error, which no
/// guest catches.
fn ended_by_exception(error: wasmtime::Error, function: &str) -> wasmtime::Error {
    if !error.is::<ThrownException>() {
        return error;
    }
    let error = Error::new(format!("an exception left `{function}`, between a linked command and another module"));
    wasmtime::Error::new(Fail::Error(error))
}
