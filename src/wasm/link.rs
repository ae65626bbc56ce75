//! From the bytes of modules to a program: compiled, type-checked against what is offered, ready to be instantiated.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use wasmtime::{
    Caller, Engine, ExternType, FuncType, InstancePre, Linker, Module, Mutability, UnknownImportError, ValRaw, ValType,
};

use super::ctx::{Access, Ctx, Settings};
use super::engine::{self, EngineKey, Registered, environment};
use super::function::{self, Offer};
use super::instance::new_store;
use super::limits::Budget;
use super::linked::{self, LinkedModule};
use super::module::{self, Part};
use super::rewrite::{self, Places, Taken};
use super::traps::Code;
use super::wasi::{self, Directory, Preopen};
use crate::error::{Error, Result};
use crate::guest::{self, Fail, TABLE, Type};

/// The module that the guest functions are imported from.
const ENV: &str = "extism:host/env";

/// A module as it came from a manifest.
pub(crate) struct SourceModule<'a> {
    /// The name under which others import it; errors use it too.
    pub name: String,
    /// A binary module or WebAssembly text.
    pub bytes: Cow<'a, [u8]>,
}

/// All that a program is made of.
pub(crate) struct Request<'a> {
    pub main: SourceModule<'a>,
    pub linked: Vec<SourceModule<'a>>,
    pub offers: Vec<Offer>,
    pub settings: Settings,
    /// `Some` if WASI is on, with the directories that may be reached.
    pub wasi: Option<Vec<Directory>>,
    pub fuel: Option<u64>,
    pub max_pages: Option<u64>,
}

/// What a name stands for among the exports of a program's main module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Export<'a> {
    /// A function that can be called: `() -> ()` or `() -> i32`.
    Callable,
    /// Something else, with its description.
    Other(&'a str),
    /// Nothing.
    Missing,
}

/// A compiled program: what all plug-ins of one compiled plug-in share.
pub(crate) struct Program {
    key: EngineKey,
    home: Linked,
    /// The same without a pool, from the first time on that the pool had no instance left.
    overflow: OnceLock<Linked>,
    pub(super) settings: Arc<Settings>,
    /// What guests begin with, if WASI is on.
    pub(super) wasi: Option<Arc<[Preopen]>>,
    pub(super) fuel: Option<u64>,
    /// Bytes that the memories of one plug-in may grow by.
    pub(super) budget: u64,
    /// The functions of the user: they live as long as the program, whether or not it imports them, and end with it,
    /// also where what is linked stays for ever (see [`Registered`]), which shares their code.
    offers: Vec<Offer>,
    /// Name to `None` (callable) or a description of what else it is.
    exports: HashMap<String, Option<String>>,
}

/// Compiled code of one engine, ready to be instantiated.
pub(super) struct Linked {
    pub engine: Engine,
    pub main: Registered<Part>,
    pub link: Registered<Link>,
    /// Where the code of all modules lies.
    pub code: Code,
}

/// How instances of the main module come by their imports.
pub(super) enum Link {
    /// One module: everything is host functions, resolved once.
    Single(InstancePre<Ctx>),
    /// Linked modules: what they export belongs to a store, so it is resolved for each.
    Several { linker: Linker<Ctx>, modules: Vec<LinkedModule> },
}

impl Program {
    /// Compiles and type-checks; runs no guest code.
    pub fn new(request: Request) -> Result<Self> {
        let key = EngineKey::new(request.fuel.is_some());
        let taken = |name: &str| {
            let is_it = |offer: &Offer| offer.namespace == ENV && offer.function.name == name;
            request.offers.iter().any(is_it)
        };
        let append: Option<Taken<'_>> =
            if request.linked.is_empty() && !environment().keeps_modules() { Some(&taken) } else { None };
        let main = module::load(key, &request.main, append)?;
        let mut initial = main.facts.initial_bytes;
        let mut parts = Vec::with_capacity(request.linked.len());
        for source in &request.linked {
            let part = module::load(key, source, None)?;
            initial = initial.saturating_add(part.facts.initial_bytes);
            parts.push((source.name.clone(), part));
        }
        let budget = Budget::bytes(request.max_pages, initial).ok_or_else(|| over_limit(request.max_pages, initial))?;

        let open = |directories: &[Directory]| directories.iter().map(Preopen::new).collect::<Result<_>>();
        let wasi = request.wasi.as_deref().map(open).transpose()?;
        let settings = Arc::new(request.settings);
        let exports = describe_exports(&main);
        let engine = main.module.engine().clone();
        let modules = std::iter::once(&*main).chain(parts.iter().map(|(_, part)| &**part)).map(|part| &part.module);
        let code = Code::of(modules);
        // These are dropped after the lock is released: see `Registered`.
        let mut scratch = new_store(&engine, Ctx::scratch(&settings), &code);
        let _registration = engine::registration();
        let linker = host_linker(&engine, &request.offers, wasi.is_some())?;
        let link = if parts.is_empty() {
            Link::Single(resolve(&linker, &main.module, &request.main.name)?)
        } else {
            let parts = parts.iter().map(|(name, part)| (name.clone(), Part::clone(part))).collect();
            let modules = linked::in_order(parts, &request.main.name, &main.module)?;
            linked::check(&linker, &modules, &request.main.name, &main.module, &mut scratch)?;
            Link::Several { linker, modules }
        };
        Ok(Self {
            key,
            home: Linked { engine, main, link: Registered::new(link), code },
            overflow: OnceLock::new(),
            exports,
            offers: request.offers,
            settings,
            wasi,
            fuel: request.fuel,
            budget,
        })
    }

    /// What this name stands for.
    pub fn export(&self, name: &str) -> Export<'_> {
        match self.exports.get(name) {
            None => Export::Missing,
            Some(None) => Export::Callable,
            Some(Some(other)) => Export::Other(other),
        }
    }

    /// Where the main module's code stood in the module as it came.
    pub(super) fn places(&self) -> &Places {
        &self.home.main.facts.places
    }

    /// What instances are made of.
    pub(super) fn home(&self) -> &Linked {
        &self.home
    }

    /// What instances are made of when the pool has none left.
    #[cold]
    pub(super) fn overflow(&self) -> Result<&Linked> {
        if self.overflow.get().is_none() {
            let linked = self.link_without_pool()?;
            let lost = {
                let _registration = engine::registration();
                self.overflow.set(linked)
            };
            // Another thread may have been faster.
            drop(lost);
        }
        self.overflow.get().ok_or_else(|| Error::new("what was linked is lost"))
    }

    fn link_without_pool(&self) -> Result<Linked> {
        let main = module::without_pool(self.key, &self.home.main)?;
        let engine = main.module.engine().clone();
        let link = {
            let _registration = engine::registration();
            let linker = host_linker(&engine, &self.offers, self.wasi.is_some())?;
            Link::Single(linker.instantiate_pre(&main.module).map_err(|error| describe(&error))?)
        };
        let code = Code::of(std::iter::once(&main.module));
        Ok(Linked { engine, main, link: Registered::new(link), code })
    }
}

fn over_limit(max_pages: Option<u64>, initial: u64) -> Error {
    match max_pages {
        Some(pages) => Error::new(format!(
            "the memories and tables of the modules begin with {initial} bytes, more than `memory.max_pages` = \
             {pages} allows ({} bytes); raise it",
            pages.saturating_mul(super::limits::PAGE)
        )),
        None => Error::new(format!(
            "the memories and tables of the modules begin with {initial} bytes, more than a plug-in may have (8 GiB)"
        )),
    }
}

/// One line for the host: the whole chain of causes.
pub(super) fn describe(error: &wasmtime::Error) -> Error {
    Error::new(format!("{error:#}"))
}

/// A linker with everything that the host offers, the later definition before the earlier one:
/// the guest functions, WASI, the functions of the user.
fn host_linker(engine: &Engine, offers: &[Offer], with_wasi: bool) -> Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    linker.allow_shadowing(true);
    for entry in TABLE {
        define_guest_function(&mut linker, engine, entry).map_err(|error| describe(&error))?;
    }
    if with_wasi {
        wasi::add_to_linker(&mut linker).map_err(|error| describe(&error))?;
    }
    for offer in offers {
        function::define(&mut linker, engine, offer).map_err(|error| describe(&error))?;
    }
    Ok(linker)
}

fn wasm_type(ty: Type) -> ValType {
    match ty {
        Type::I32 => ValType::I32,
        Type::I64 => ValType::I64,
    }
}

fn define_guest_function(
    linker: &mut Linker<Ctx>,
    engine: &Engine,
    entry: &'static guest::Entry,
) -> wasmtime::Result<()> {
    match *entry.params {
        [] => define_guest_shape(linker, engine, entry, []),
        [a] => define_guest_shape(linker, engine, entry, [a]),
        [a, b] => define_guest_shape(linker, engine, entry, [a, b]),
        _ => Err(wasmtime::Error::msg("no guest function has more than two parameters")),
    }
}

/// The same for a number of parameters that is known when this is compiled. `params` are those of the entry.
fn define_guest_shape<const P: usize>(
    linker: &mut Linker<Ctx>,
    engine: &Engine,
    entry: &'static guest::Entry,
    params: [Type; P],
) -> wasmtime::Result<()> {
    let ty = FuncType::new(engine, params.map(wasm_type), entry.result.map(wasm_type));
    let call = move |mut caller: Caller<'_, Ctx>, values: &mut [std::mem::MaybeUninit<ValRaw>]| {
        let mut args = [0u64; 2];
        for ((arg, ty), value) in args.iter_mut().zip(params).zip(&values[..P]) {
            // SAFETY: wasmtime initialises as many values as the type has parameters, which `params` lists.
            let value = unsafe { value.assume_init_ref() };
            *arg = match ty {
                Type::I32 => u64::from(value.get_u32()),
                Type::I64 => value.get_u64(),
            };
        }
        let result = (entry.run)(&mut Access::new(&mut caller), args).map_err(raise)?;
        if let (Some(ty), Some(slot)) = (entry.result, values.first_mut()) {
            slot.write(match ty {
                Type::I32 => ValRaw::u32(result as u32),
                Type::I64 => ValRaw::u64(result),
            });
        }
        Ok(())
    };
    // SAFETY: the closure reads the parameters and writes the result of exactly the type it is defined with; both
    // come from the same table entry, and all are numbers.
    unsafe { linker.func_new_unchecked(ENV, entry.name, ty, call)? };
    Ok(())
}

#[cold]
fn raise(fail: Fail) -> wasmtime::Error {
    match fail {
        Fail::OutOfBounds => wasmtime::Error::from(wasmtime::Trap::MemoryOutOfBounds),
        fail => wasmtime::Error::new(fail),
    }
}

/// Resolves the imports of a module, or says which one cannot be had and how to offer it.
fn resolve(linker: &Linker<Ctx>, module: &Module, module_name: &str) -> Result<InstancePre<Ctx>> {
    linker.instantiate_pre(module).map_err(|error| match error.downcast_ref::<UnknownImportError>() {
        Some(unknown) => missing_import(module_name, unknown.module(), unknown.name(), &unknown.ty()),
        None => describe(&error).context(format_args!("module `{module_name}`")),
    })
}

pub(super) fn missing_import(module_name: &str, namespace: &str, name: &str, ty: &ExternType) -> Error {
    let hint = match (namespace, ty) {
        ("wasi_snapshot_preview1", _) => "create the plug-in with WASI (`with_wasi`)",
        (ENV, ExternType::Func(_)) => "no such function of the guest ABI exists; build the plug-in with another PDK",
        (ENV, _) => "only functions can be imported from here",
        (_, ExternType::Func(_)) => "offer it as a host function, or link a module of this name",
        _ => "link a module of this name",
    };
    Error::new(format!(
        "unknown import: `{namespace}::{name}` has not been defined; module `{module_name}` wants it as {}: {hint}",
        type_name(ty)
    ))
}

/// A type in the words of the text format.
pub(super) fn type_name(ty: &ExternType) -> String {
    fn list(types: impl Iterator<Item = ValType>) -> String {
        types.map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ")
    }
    let index = |is_64| if is_64 { "64-bit " } else { "" };
    let limits = |minimum: u64, maximum: Option<u64>| match maximum {
        Some(maximum) => format!("{minimum} to {maximum}"),
        None => format!("{minimum} or more"),
    };
    match ty {
        ExternType::Func(ty) => format!("a function ({}) -> ({})", list(ty.params()), list(ty.results())),
        ExternType::Global(ty) => match ty.mutability() {
            Mutability::Const => format!("a global of type {}", ty.content()),
            Mutability::Var => format!("a mutable global of type {}", ty.content()),
        },
        ExternType::Table(ty) => {
            let limits = limits(ty.minimum(), ty.maximum());
            format!("a {}table of {limits} elements of type {}", index(ty.is_64()), ty.element())
        }
        ExternType::Memory(ty) => {
            format!("a {}memory of {} pages", index(ty.is_64()), limits(ty.minimum(), ty.maximum()))
        }
        ExternType::Tag(ty) => format!("an exception tag ({})", list(ty.ty().params())),
    }
}

fn describe_exports(main: &Part) -> HashMap<String, Option<String>> {
    let mut exports = HashMap::new();
    for export in main.module.exports() {
        if main.facts.has_own_memory && rewrite::is_reserved(export.name()) {
            continue;
        }
        let ty = export.ty();
        let callable = match &ty {
            ExternType::Func(ty) => {
                let mut results = ty.results();
                ty.params().len() == 0
                    && match (results.next(), results.next()) {
                        (None, _) => true,
                        (Some(result), None) => result.matches(&ValType::I32),
                        _ => false,
                    }
            }
            _ => false,
        };
        exports.insert(export.name().to_owned(), (!callable).then(|| type_name(&ty)));
    }
    exports
}
