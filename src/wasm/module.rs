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

use wasmtime::{Engine, Module};

use super::engine::{self, EngineKey, Registered};
use super::limits::{MEMORY_MAX, TABLE_ELEMENT};
use super::link::{SourceModule, describe};
use super::rewrite::{self, Places, Taken};
use crate::error::{Error, Result};
use crate::guest::TABLE;

pub(super) use cache::{Held, hold};
pub(crate) use disk::prepare;

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
    /// Where its code stood in the module as it came.
    pub places: Places,
}

/// What a module is known by: a hash of all that its code depends on.
type Id = [u8; 32];

/// Compiles a module, if that was not done before. With `append` it gets the Extism memory, where it can.
///
/// # Errors
///
/// Not a module, not a valid one, or one that may not be compiled; the message names the module.
pub(super) fn load(
    key: EngineKey,
    engine: &Engine,
    source: &SourceModule,
    append: Option<Taken<'_>>,
) -> Result<Registered<Part>> {
    let id = identify(key, engine, &source.bytes, append);
    if let Some(part) = cache::get(&id) {
        return Ok(part);
    }
    let part = match disk::read(&id, engine) {
        Some(part) => part,
        None => compile(&id, engine, &source.bytes, append)
            .map_err(|error| error.context(format_args!("module `{}`", source.name)))?,
    };
    cache::put(id, &part);
    Ok(part)
}

/// The hash of everything that decides what the code of these bytes is. The bytes come last: they may be anything.
fn identify(key: EngineKey, engine: &Engine, bytes: &[u8], append: Option<Taken<'_>>) -> Id {
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
    hasher.update(option_env!("EXTISM_BUILD").unwrap_or_default().as_bytes()).update(b"\0");
    let mut digest = Digest(&mut hasher);
    std::hash::Hash::hash(&key, &mut digest);
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
    *hasher.update(bytes).finalize().as_bytes()
}

fn compile(id: &Id, engine: &Engine, bytes: &[u8], append: Option<Taken<'_>>) -> Result<Registered<Part>> {
    let wasm = wat::parse_bytes(bytes).map_err(|error| Error::new(error.to_string()))?;
    let prepared = rewrite::prepare(&wasm, rewrite::FEATURES, append)?;
    if prepared.largest_memory > MEMORY_MAX {
        return Err(Error::new(format!(
            "a memory begins with {} bytes; no memory may pass 4 GiB",
            prepared.largest_memory
        )));
    }
    let artifact = engine.precompile_module(&prepared.bytes).map_err(|error| describe(&error))?;
    let tables = prepared.initial_table_elements.saturating_mul(TABLE_ELEMENT);
    let facts = Facts {
        has_own_memory: prepared.has_own_memory,
        reads_input: prepared.reads_input,
        initial_bytes: prepared.initial_memory.saturating_add(tables),
        initial_parts: prepared.initial_parts + usize::from(prepared.has_own_memory),
        places: prepared.places,
    };
    disk::write(id, &artifact, &facts);
    // SAFETY: this engine has made the artifact just now, and nobody had it meanwhile.
    let module = engine::register(|| unsafe { Module::deserialize(engine, artifact) });
    Ok(Registered::new(Part { module: module.map_err(|error| describe(&error))?, facts: Arc::new(facts) }))
}
