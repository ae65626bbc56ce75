//! Modules: from bytes to code that can be linked, by way of what was compiled before.
//!
//! ```text
//!  bytes, what decides how they are prepared --hash--> id
//!    in this process?   cache::get(id)            1
//!    on disk?           disk::read(id)            2   mapped, checked
//!    else               prepare, compile, write   3
//! ```

mod cache;
mod disk;

use std::sync::Arc;
use std::thread;

use wasmtime::{Engine, Module};

use super::engine::{self, EngineKey, POOL_TABLE_ELEMENTS, Registered};
use super::limits::{MEMORY_MAX, TABLE_ELEMENT};
use super::link::{SourceModule, describe};
use super::rewrite::{self, Places, Taken};
use crate::error::{Error, Result};
use crate::guest::TABLE;
use crate::signals::SignalsBlocked;

pub(super) use cache::{Held, hold};

/// One compiled module. A clone shares the code.
#[derive(Clone)]
pub(super) struct Part {
    pub module: Module,
    pub facts: Arc<Facts>,
}

/// What is known of a module besides its code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether Extism memory is defined inside of it.
    pub has_own_memory: bool,
    /// Whether it has the input globals.
    pub reads_input: bool,
    /// Bytes with which its memories and tables begin; without the Extism memory.
    pub initial_bytes: u64,
    /// How many memories and tables come into being with a size when it is instantiated.
    pub initial_parts: usize,
    /// Whether its instances can come from a pool: they can be made without running guest code, and no table grows out
    /// of its place.
    pub fits_pool: bool,
    /// Where its code stood in the module as it came.
    pub places: Places,
}

/// What a module is known by: a hash of all that its code depends on.
type Id = [u8; 32];

/// Compiles a module, if that was not done before. With `append` it gets the Extism memory, where it can, and may live
/// in an engine with a pool of instances.
///
/// # Errors
///
/// Not a module, not a valid one, or one that may not be compiled; the message names the module.
pub(super) fn load(key: EngineKey, source: &SourceModule<'_>, append: Option<Taken<'_>>) -> Result<Registered<Part>> {
    let (home, content) = home_and_hash(key, append.is_some(), &source.bytes)?;
    let id = identify(&home.engine, &content, append);
    let key = if home.is_pool { key.pooled() } else { key };
    let tell = |how: &str| {
        let length = source.bytes.len();
        log::debug!(target: "extism", "module `{}` ({length} bytes): {how}", source.name);
    };
    if let Some(part) = cache::get(&(key, id)) {
        tell("compiled before in this process");
        return Ok(part);
    }
    let part = match disk::read(&id, &home) {
        Some(part) => {
            tell("read from disk");
            part
        }
        None => {
            let part = compile(&id, &home, &source.bytes, append)
                .map_err(|error| error.context(format_args!("module `{}`", source.name)))?;
            tell("compiled");
            part
        }
    };
    cache::put((key, id), &part);
    Ok(part)
}

/// Where a module is to live.
struct Home {
    key: EngineKey,
    engine: Engine,
    is_pool: bool,
}

impl Home {
    /// In an engine with a pool if that is wanted and the machine allows it.
    fn new(key: EngineKey, pooled: bool) -> Result<Self> {
        match pooled.then(|| engine::engine(key.pooled())) {
            Some(Ok(engine)) => Ok(Self { key, engine, is_pool: true }),
            _ => Ok(Self { key, engine: engine::engine(key)?, is_pool: false }),
        }
    }

    /// Loads the artifact: here, or without a pool where the module is not made for one.
    fn load(&self, facts: Facts, load: impl Fn(&Engine) -> wasmtime::Result<Module>) -> Result<Registered<Part>> {
        let here = (!self.is_pool || facts.fits_pool).then(|| engine::register(|| load(&self.engine)));
        let module = match here {
            Some(Err(error)) if !self.is_pool => return Err(describe(&error)),
            Some(Ok(module)) => module,
            // Too many memories or tables, or too large; what else is wrong with it is wrong there as well.
            _ => {
                let engine = engine::engine(self.key)?;
                engine::register(|| load(&engine)).map_err(|error| describe(&error))?
            }
        };
        Ok(Registered::new(Part { module, facts: Arc::new(facts) }))
    }
}

/// The same module in the engine without a pool.
pub(super) fn without_pool(key: EngineKey, part: &Part) -> Result<Registered<Part>> {
    let artifact = part.module.serialize().map_err(|error| describe(&error))?;
    let home = Home::new(key, false)?;
    // SAFETY: the artifact was made just now by the module itself, and nobody had it meanwhile.
    home.load(Facts::clone(&part.facts), |engine| unsafe { Module::deserialize(engine, &artifact) })
}

/// A module of so many bytes takes longer to hash than a thread takes to start.
const LONG: usize = 512 * 1024;

/// Bytes of stack. BLAKE3 goes as deep as the logarithm of the length; what the host has thread-local is in it too.
const HASH_STACK: usize = 1 << 20;

/// Where these bytes are to live as a module, and their hash. A thread hashes them while this one starts the engine, if
/// that is not there yet.
fn home_and_hash(key: EngineKey, pooled: bool, bytes: &[u8]) -> Result<(Home, blake3::Hash)> {
    let known = engine::is_known(if pooled { key.pooled() } else { key });
    if known || bytes.len() < LONG {
        return Ok((Home::new(key, pooled)?, blake3::hash(bytes)));
    }
    thread::scope(|scope| {
        let hashing = SignalsBlocked::but_faults().and_then(|_blocked| {
            let thread = thread::Builder::new().name("extism-hash".to_owned()).stack_size(HASH_STACK);
            thread.spawn_scoped(scope, || blake3::hash(bytes))
        });
        let home = Home::new(key, pooled);
        // Where there is no thread to be had, this one hashes.
        let content = hashing.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| blake3::hash(bytes));
        Ok((home?, content))
    })
}

/// The hash of everything that decides what the code of a module with this content is.
fn identify(engine: &Engine, content: &blake3::Hash, append: Option<Taken<'_>>) -> Id {
    /// Hands what is hashed on to BLAKE3.
    struct Digest<'a>(&'a mut blake3::Hasher);

    impl std::hash::Hasher for Digest<'_> {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }

    let mut hasher = blake3::Hasher::new();
    // What this very build makes of a module is for this build.
    hasher.update(option_env!("BUILD_ID").unwrap_or_default().as_bytes()).update(b"\0");
    let mut digest = Digest(&mut hasher);
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut digest);
    match append {
        None => hasher.update(b"as it came\0"),
        Some(taken) => {
            hasher.update(b"rewritten\0");
            for entry in TABLE.iter().filter(|entry| taken(entry.name)) {
                hasher.update(entry.name.as_bytes()).update(b"\0");
            }
            hasher.update(b"\0")
        }
    };
    *hasher.update(content.as_bytes()).finalize().as_bytes()
}

fn compile(id: &Id, home: &Home, bytes: &[u8], append: Option<Taken<'_>>) -> Result<Registered<Part>> {
    let wasm = wat::parse_bytes(bytes).map_err(|error| Error::new(error.to_string()))?;
    let prepared = rewrite::prepare(&wasm, rewrite::FEATURES, append)?;
    if prepared.largest_memory > MEMORY_MAX {
        return Err(Error::new(format!(
            "a memory begins with {} bytes; no memory may pass 4 GiB",
            prepared.largest_memory
        )));
    }
    let compiler = if prepared.in_parallel { engine::engine(home.key.parallel())? } else { home.engine.clone() };
    let artifact = compiler.precompile_module(&prepared.bytes).map_err(|error| describe(&error))?;
    let tables = prepared.initial_table_elements.saturating_mul(TABLE_ELEMENT);
    let facts = Facts {
        has_own_memory: prepared.has_own_memory,
        reads_input: prepared.reads_input,
        initial_bytes: prepared.initial_memory.saturating_add(tables),
        initial_parts: prepared.initial_parts + usize::from(prepared.has_own_memory),
        fits_pool: !prepared.has_start && prepared.maximum_table_elements <= POOL_TABLE_ELEMENTS as u64,
        places: prepared.places,
    };
    disk::write(id, &artifact, &facts);
    // SAFETY: an engine of this configuration has made the artifact just now, and nobody had it meanwhile.
    home.load(facts, |engine| unsafe { Module::deserialize(engine, &artifact) })
}
