//! Engines: one for the whole process and each configuration that differs.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use once_cell::sync::Lazy;
use wasmparser::WasmFeatures;
use wasmtime::{Config, Enabled, Engine, Module, OptLevel, PoolingAllocationConfig, ProfilingStrategy};

use super::limits::MEMORY_MAX;
use super::module;
use super::rewrite::FEATURES;
use super::{compilers, stack};
use crate::error::{Error, Result};
use crate::file_limit::file_limit;
use crate::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What tells one engine from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EngineKey {
    /// Whether instructions are counted, for plug-ins with a fuel limit.
    pub fuel: bool,
    /// How many forks this process has behind it: in the child of a fork the engines of the parent may be locked for
    /// ever.
    forks: u32,
    /// Whether it compiles in several threads. Such an engine does nothing else.
    parallel: bool,
    /// Whether instances come from a pool.
    pooled: bool,
}

impl EngineKey {
    /// Of plug-ins with or without a fuel limit, in this process.
    pub fn new(fuel: bool) -> Self {
        let forks = FORKS.load(Ordering::Relaxed);
        Self { fuel, forks, parallel: false, pooled: false }
    }

    /// For compiling in several threads, if there are some.
    pub fn parallel(self) -> Self {
        Self { parallel: self.forks == 0 && compilers::are_there(), pooled: false, ..self }
    }

    /// The same with a pool of instances.
    pub fn pooled(self) -> Self {
        Self { pooled: true, ..self }
    }
}

static FORKS: AtomicU32 = AtomicU32::new(0);
static ENGINES: Lazy<Mutex<Engines>> = Lazy::new(Default::default);

/// By configuration; nothing for one that this machine does not allow.
type Engines = HashMap<EngineKey, Option<Engine>>;

/// Taken for reading while Wasmtime changes what it has for the whole process (the list of compiled code, the
/// handlers of signals, the pools of instances), and for writing across a fork. It is held for moments only, never
/// while compiling and never while a guest runs.
static REGISTRATION: RwLock<()> = RwLock::new(());

thread_local! {
    /// How many [`Registration`]s this thread has.
    static NESTED: Cell<u32> = const { Cell::new(0) };
}

/// No fork happens while this lives. One may be made inside of another, and ends before it: only the outermost has the
/// lock, as taking it once more would wait for a fork that waits for this thread.
pub(super) struct Registration {
    _lock: Option<RwLockReadGuard<'static, ()>>,
}

/// Keeps forks off.
pub(super) fn registration() -> Registration {
    let outer = NESTED.replace(NESTED.get() + 1);
    Registration { _lock: (outer == 0).then(|| REGISTRATION.read()) }
}

impl Drop for Registration {
    fn drop(&mut self) {
        NESTED.set(NESTED.get() - 1);
    }
}

/// Compiled code, which leaves Wasmtime's lists as it is dropped; or a store, whose instances go back to their pool.
///
/// What the parent made stays in the child of a fork: the lists of its engine may be locked for ever there.
pub(super) struct Registered<T> {
    value: ManuallyDrop<T>,
    forks: u32,
}

impl<T> Registered<T> {
    pub fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Ends it by this function.
    pub fn into<R>(self, end: impl FnOnce(T) -> R) -> R {
        let mut this = ManuallyDrop::new(self);
        let _registration = registration();
        // SAFETY: it is taken out once, and `this` is never dropped.
        end(unsafe { ManuallyDrop::take(&mut this.value) })
    }
}

impl<T: Clone> Clone for Registered<T> {
    fn clone(&self) -> Self {
        Self::new((**self).clone())
    }
}

impl<T> Deref for Registered<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Registered<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        let _registration = registration();
        if self.forks == FORKS.load(Ordering::Relaxed) {
            // SAFETY: it is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        }
    }
}

/// The engines, compiled modules and Wasmtime's lists, held across a fork.
pub(crate) struct Held {
    _modules: module::Held,
    _registration: RwLockWriteGuard<'static, ()>,
    _engines: MutexGuard<'static, Engines>,
}

/// Keeps engines and compiled code as they are.
pub(crate) fn hold() -> Held {
    let modules = module::hold();
    Held { _modules: modules, _registration: REGISTRATION.write(), _engines: ENGINES.lock() }
}

impl Held {
    /// In the child of a fork, which compiles on the calling thread, in engines of its own.
    pub fn forget_parent(&mut self) {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the `EXTISM_*` environment variables ask for. Read once, at the first use of the library.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// `EXTISM_DEBUG`: native debug information, no optimisation, modules run as they came.
    pub debug: bool,
    /// `EXTISM_COREDUMP`: where a trap leaves a WebAssembly core dump.
    pub coredump: Option<PathBuf>,
    /// `EXTISM_MEMDUMP`: where a trap leaves the bytes of Extism memory.
    pub memdump: Option<PathBuf>,
    /// `EXTISM_ENABLE_WASI_OUTPUT`: WASI standard output and error are the host's.
    pub wasi_output: bool,
    profile: Option<String>,
    no_signals: bool,
}

impl Environment {
    /// Whether modules are run as they came: debuggers and core dumps want them so.
    pub fn keeps_modules(&self) -> bool {
        self.debug || self.coredump.is_some()
    }

    fn read() -> Self {
        let text = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            debug: text("EXTISM_DEBUG").is_some(),
            coredump: text("EXTISM_COREDUMP").map(PathBuf::from),
            memdump: text("EXTISM_MEMDUMP").map(PathBuf::from),
            wasi_output: text("EXTISM_ENABLE_WASI_OUTPUT").is_some(),
            profile: text("EXTISM_PROFILE").map(|value| value.to_string_lossy().into_owned()),
            no_signals: text("EXTISM_SIGNALS").is_some_and(|value| value == "0"),
        }
    }
}

/// The environment variables, as they were at the first use of the library.
pub(crate) fn environment() -> &'static Environment {
    static ENVIRONMENT: Lazy<Environment> = Lazy::new(Environment::read);
    &ENVIRONMENT
}

/// Instances in the pool of one engine. Each takes 12 GiB of address space.
const POOL_INSTANCES: u32 = 1_000;

/// The largest table of a module whose instances come from the pool.
pub(super) const POOL_TABLE_ELEMENTS: usize = 20_000;

/// Known to this wasmtime, and refused.
const REFUSED: WasmFeatures = WasmFeatures::CUSTOM_PAGE_SIZES
    .union(WasmFeatures::LEGACY_EXCEPTIONS)
    .union(WasmFeatures::SHARED_EVERYTHING_THREADS)
    .union(WasmFeatures::STACK_SWITCHING);

/// The engine of this configuration; made when it is first asked for, and kept.
///
/// # Errors
///
/// The machine does not allow it. A pool takes much of the address space, which can be limited.
pub(super) fn engine(key: EngineKey) -> Result<Engine> {
    let refused = || Error::new("no WebAssembly engine can be started");
    let known = ENGINES.lock().get(&key).cloned();
    if let Some(engine) = known {
        return engine.ok_or_else(refused);
    }
    // Its errors would walk the native stack where RUST_BACKTRACE is set, for a text that nobody is shown, under a lock
    // of the standard library that a fork could leave taken.
    wasmtime::error::disable_backtrace();
    let engine = {
        let _registration = registration();
        Engine::new(&configure(key, environment()))
            .map_err(|error| Error::new(format!("cannot start the WebAssembly engine: {error:#}")))
    };
    let (engine, error) = match engine {
        Ok(engine) => (Some(engine), None),
        // Without a pool it works as well, so there is no reason to try again and again.
        Err(error) if key.pooled => (None, Some(error)),
        Err(error) => return Err(error),
    };
    // Another thread may have been faster: there is one engine for each configuration.
    let engine = ENGINES.lock().entry(key).or_insert(engine).clone();
    engine.ok_or_else(|| error.unwrap_or_else(refused))
}

/// Whether this engine was started, or is one with a pool that cannot be had.
pub(super) fn is_known(key: EngineKey) -> bool {
    ENGINES.lock().contains_key(&key)
}

/// Makes all guests look at their deadlines and cancel flags.
pub(crate) fn tick() {
    ENGINES.lock().values().flatten().for_each(Engine::increment_epoch);
}

/// Loads compiled code, and gets ready what all its instances share.
pub(super) fn register(load: impl FnOnce() -> wasmtime::Result<Module>) -> wasmtime::Result<Module> {
    let _registration = registration();
    let module = load()?;
    module.initialize_copy_on_write_image()?;
    Ok(module)
}

fn configure(key: EngineKey, environment: &Environment) -> Config {
    let mut config = Config::new();
    config
        .wasm_features(REFUSED, false)
        .wasm_features(FEATURES, true)
        .consume_fuel(key.fuel)
        .parallel_compilation(key.parallel)
        .epoch_interruption(true)
        .max_wasm_stack(stack::WASM)
        .memory_reservation(MEMORY_MAX)
        // The whole range is reserved when a memory is made, so that its base never moves.
        .memory_may_move(false)
        // What memories begin with would be mapped from a file in memory, which a limit on files is one for as well.
        .memory_init_cow(file_limit().is_none())
        .coredump_on_trap(environment.coredump.is_some())
        .signals_based_traps(!environment.no_signals);
    if key.pooled {
        config.allocation_strategy(pool());
    }
    if environment.debug {
        config.debug_info(true).cranelift_opt_level(OptLevel::None);
    }
    if let Some(profile) = &environment.profile {
        config.profiler(profiler(profile));
    }
    config
}

/// Instances whose memories are mapped and ready.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(POOL_INSTANCES)
        // Its own, the Extism memory, and the heap of a collector.
        .total_memories(3 * POOL_INSTANCES)
        .max_memories_per_module(2)
        .max_memory_size(MEMORY_MAX as usize)
        .total_tables(POOL_INSTANCES)
        .table_elements(POOL_TABLE_ELEMENTS)
        .total_gc_heaps(POOL_INSTANCES)
        // The first page of a memory and of a table, which most use, is cleared; all others go back to the system. To
        // look for what was used by a scan of the page map is faster, but the scan passes over pages that are swapped
        // out or being moved, which the next instance would get as they were.
        .linear_memory_keep_resident(4096)
        .table_keep_resident(4096)
        .pagemap_scan(Enabled::No);
    pool
}

fn profiler(name: &str) -> ProfilingStrategy {
    match name {
        "perf" => ProfilingStrategy::PerfMap,
        "jitdump" => ProfilingStrategy::JitDump,
        "vtune" => ProfilingStrategy::VTune,
        other => {
            log::warn!(target: "extism", "EXTISM_PROFILE is `{other}`; it takes `perf`, `jitdump` or `vtune`");
            ProfilingStrategy::None
        }
    }
}
