//! Compiled modules that this process had before, whoever had them: what was used last, up to a bound.

use std::collections::HashMap;

use once_cell::sync::Lazy;

use super::{Id, Part};
use crate::sync::{Mutex, MutexGuard};
use crate::wasm::engine::{EngineKey, Registered};

/// Bytes of code and data that are kept.
const MAX_BYTES: usize = 256 << 20;
/// Modules that are kept: each has some mappings of memory, and may have a file descriptor.
const MAX_MODULES: usize = 128;

/// A module, in an engine.
type Key = (EngineKey, Id);

static CACHE: Lazy<Mutex<Cache>> = Lazy::new(Default::default);

#[derive(Default)]
pub(in crate::wasm) struct Cache {
    modules: HashMap<Key, Entry>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

struct Entry {
    part: Registered<Part>,
    bytes: usize,
    used: u64,
}

/// The module, if it is still there.
pub(super) fn get(key: &Key) -> Option<Registered<Part>> {
    let mut cache = CACHE.lock();
    cache.now += 1;
    let now = cache.now;
    let entry = cache.modules.get_mut(key)?;
    entry.used = now;
    Some(entry.part.clone())
}

/// Keeps a module, in the place of those that were not used for the longest time.
pub(super) fn put(key: Key, part: &Registered<Part>) {
    let image = part.module.image_range();
    let bytes = image.end.addr() - image.start.addr();
    if bytes > MAX_BYTES {
        return;
    }
    let mut gone = Vec::new();
    let mut cache = CACHE.lock();
    cache.now += 1;
    let entry = Entry { part: part.clone(), bytes, used: cache.now };
    cache.bytes += bytes;
    gone.extend(cache.modules.insert(key, entry));
    cache.bytes -= gone.iter().map(|entry| entry.bytes).sum::<usize>();
    while cache.bytes > MAX_BYTES || cache.modules.len() > MAX_MODULES {
        let oldest = cache.modules.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
        let Some(entry) = oldest.and_then(|key| cache.modules.remove(&key)) else {
            break;
        };
        cache.bytes -= entry.bytes;
        gone.push(entry);
    }
    // Dropping a module takes a lock of its own.
    drop(cache);
    drop(gone);
}

/// The cache, held across a fork.
pub(in crate::wasm) type Held = MutexGuard<'static, Cache>;

/// Keeps the cache as it is.
pub(in crate::wasm) fn hold() -> Held {
    CACHE.lock()
}
