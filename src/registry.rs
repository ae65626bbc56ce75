//! Opaque handles: what a host program holds instead of addresses.
//!
//! ```text
//!  63           39 38                         3 2      0
//! +---------------+----------------------------+--------+
//! |       0       |           serial           |  kind  |   at least 4096, below 2^39
//! +---------------+----------------------------+--------+
//! ```
//!
//! A handle is a number that C sees as a pointer. It is never dereferenced and never used twice, so a handle that
//! is stale, was freed twice, belongs to somebody else or is of the wrong kind is recognised exactly. Below 4096
//! a debugger or a host would take it for an offset from NULL; from about 2^39 on, Go's collector for a bad
//! pointer into its own heap.
//!
//! A [`Registry`] takes the handles of one kind to their objects. Its entries are spread over shards by serial
//! number: two objects made one after the other share no lock and no cache line. [`Recent`] goes further: a thread
//! that keeps using one object reaches it without any lock.
//!
//! The cancel handle and the current-plugin handle of a plug-in are its serial with another kind
//! ([`with_kind`]); they have no entry of their own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};
use crate::sync::{RwLock, RwLockWriteGuard};

/// What a handle stands for: its lowest three bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ExtismPlugin`
    Plugin = 1,
    /// `ExtismCompiledPlugin`
    CompiledPlugin = 2,
    /// `ExtismFunction`
    Function = 3,
    /// `ExtismCancelHandle`: the serial of its plug-in
    CancelHandle = 4,
    /// `ExtismCurrentPlugin`: the serial of its plug-in
    CurrentPlugin = 5,
}

const KIND_BITS: u32 = 3;
const FIRST_SERIAL: u64 = 4096 >> KIND_BITS;
const END_OF_HANDLES: u64 = 1 << 39;

const _: () = assert!((Kind::CurrentPlugin as u64) < 1 << KIND_BITS);

/// The serial of the next handle, whatever its kind.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(FIRST_SERIAL);

impl Kind {
    /// The kind's name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "ExtismPlugin",
            Self::CompiledPlugin => "ExtismCompiledPlugin",
            Self::Function => "ExtismFunction",
            Self::CancelHandle => "ExtismCancelHandle",
            Self::CurrentPlugin => "ExtismCurrentPlugin",
        }
    }

    /// Where the host gets one from.
    fn source(self) -> &'static str {
        match self {
            Self::Plugin => "what extism_plugin_new returned",
            Self::CompiledPlugin => "what extism_compiled_plugin_new returned",
            Self::Function => "what extism_function_new returned",
            Self::CancelHandle => "what extism_plugin_cancel_handle returned",
            Self::CurrentPlugin => "what the host function received",
        }
    }

    fn handle(self, serial: u64) -> u64 {
        serial << KIND_BITS | self as u64
    }
}

/// The kind of a number that has the form of a handle.
pub fn kind_of(raw: u64) -> Option<Kind> {
    if serial_of(raw) < FIRST_SERIAL || raw >= END_OF_HANDLES {
        return None;
    }
    match raw & ((1 << KIND_BITS) - 1) {
        1 => Some(Kind::Plugin),
        2 => Some(Kind::CompiledPlugin),
        3 => Some(Kind::Function),
        4 => Some(Kind::CancelHandle),
        5 => Some(Kind::CurrentPlugin),
        _ => None,
    }
}

/// The handle with the same serial and another kind.
pub fn with_kind(raw: u64, kind: Kind) -> u64 {
    kind.handle(serial_of(raw))
}

fn serial_of(raw: u64) -> u64 {
    raw >> KIND_BITS
}

fn new_handle(kind: Kind, serial: u64) -> Result<u64> {
    if serial > serial_of(END_OF_HANDLES - 1) {
        return Err(Error::new("no handles left: this process created 2^36 objects"));
    }
    Ok(kind.handle(serial))
}

/// How a host program misused a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// NULL where it is not allowed.
    Null {
        /// What the called function takes.
        expected: Kind,
    },
    /// A number that this library never gave out.
    NotAHandle {
        /// What the called function takes.
        expected: Kind,
        /// What it got.
        raw: u64,
    },
    /// A handle for something else.
    WrongKind {
        /// What the called function takes.
        expected: Kind,
        /// What it got.
        found: Kind,
    },
    /// A handle of the right kind whose object is gone.
    Stale {
        /// What the called function takes.
        expected: Kind,
    },
}

impl Misuse {
    /// Why `raw` was not found where an `expected` was wanted.
    pub fn of(raw: u64, expected: Kind) -> Self {
        if raw == 0 {
            return Self::Null { expected };
        }
        match kind_of(raw) {
            Some(_) if serial_of(raw) >= NEXT_SERIAL.load(Ordering::Relaxed) => Self::NotAHandle { expected, raw },
            Some(found) if found != expected => Self::WrongKind { expected, found },
            Some(_) => Self::Stale { expected },
            None => Self::NotAHandle { expected, raw },
        }
    }
}

impl Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null { expected } => {
                let (name, source) = (expected.name(), expected.source());
                write!(f, "NULL where an {name} was expected: pass {source}, after checking that it is not NULL")
            }
            Self::NotAHandle { expected, raw } => {
                let (name, source) = (expected.name(), expected.source());
                write!(f, "{raw:#x} is not an {name}: pass {source}, unchanged")
            }
            Self::WrongKind { expected, found } => {
                let (found, name, source) = (found.name(), expected.name(), expected.source());
                write!(f, "this is an {found} handle where an {name} was expected: pass {source}")
            }
            Self::Stale { expected } => f.write_str(match expected {
                Kind::Plugin => {
                    "this ExtismPlugin was freed already, or never existed: \
                    do not use it after extism_plugin_free"
                }
                Kind::CompiledPlugin => {
                    "this ExtismCompiledPlugin was freed already, or never existed: \
                    do not use it after extism_compiled_plugin_free"
                }
                Kind::Function => {
                    "this ExtismFunction was freed already, or never existed: \
                    do not use it after extism_function_free"
                }
                Kind::CancelHandle => {
                    "the plug-in of this ExtismCancelHandle was freed already, or never existed: \
                    do not use the handle after extism_plugin_free"
                }
                Kind::CurrentPlugin => {
                    "this ExtismCurrentPlugin is not inside a host function now: \
                    use it only until the host function that received it returns"
                }
            }),
        }
    }
}

impl From<Misuse> for Error {
    fn from(misuse: Misuse) -> Self {
        Self::new(misuse.to_string())
    }
}

/// Spreads handles over a hash map. Within a shard they differ in their middle bits only, and the map looks at the
/// highest and lowest bits of a hash.
#[derive(Default)]
struct HandleHasher(u64);

impl Hasher for HandleHasher {
    fn write_u64(&mut self, raw: u64) {
        let product = raw.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Entries<T> = HashMap<u64, Arc<T>, BuildHasherDefault<HandleHasher>>;

/// A lock and its entries, on cache lines of their own (processors fetch lines in pairs).
#[repr(align(128))]
struct Shard<T>(RwLock<Entries<T>>);

const SHARDS: usize = 64;

/// The objects of one kind that the host program holds handles for.
///
/// The registry shares the ownership of its objects. It drops none: [`Registry::remove`] hands its share to the
/// caller, so nothing foreign ever runs under one of its locks.
pub struct Registry<T> {
    kind: Kind,
    shards: [Shard<T>; SHARDS],
}

impl<T> Registry<T> {
    /// An empty registry whose handles will be of this kind.
    pub const fn new(kind: Kind) -> Self {
        let shards = [const { Shard(RwLock::new(HashMap::with_hasher(BuildHasherDefault::new()))) }; SHARDS];
        Self { kind, shards }
    }

    /// Enters the object that `make` builds around its own new handle.
    ///
    /// # Errors
    ///
    /// When the process has used up its handles; `make` is not called then.
    pub fn insert_with(&self, make: impl FnOnce(u64) -> Arc<T>) -> Result<u64> {
        let raw = new_handle(self.kind, NEXT_SERIAL.fetch_add(1, Ordering::Relaxed))?;
        let object = make(raw);
        self.shard(raw).write().insert(raw, object);
        Ok(raw)
    }

    /// The object of this handle, if it is one of this registry.
    pub fn get(&self, raw: u64) -> Option<Arc<T>> {
        self.shard(raw).read().get(&raw).cloned()
    }

    /// Makes the handle stale and gives the registry's share of the object to the caller, to be dropped there.
    pub fn remove(&self, raw: u64) -> Option<Arc<T>> {
        self.shard(raw).write().remove(&raw)
    }

    /// Keeps the registry as it is, for a fork; what is inserted or looked up meanwhile waits.
    pub fn hold(&'static self) -> Held<T> {
        Held(self.shards.iter().map(|shard| shard.0.write()).collect())
    }

    /// How many objects there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.read().len()).sum()
    }

    fn shard(&self, raw: u64) -> &RwLock<Entries<T>> {
        // The remainder is the index: there is no shard that it could miss.
        &self.shards[serial_of(raw) as usize % SHARDS].0
    }
}

/// A registry that stays as it is.
pub struct Held<T: 'static>(Vec<RwLockWriteGuard<'static, Entries<T>>>);

impl<T> Held<T> {
    /// All objects in it.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.iter().flat_map(|entries| entries.values())
    }
}

/// A thread's memory of the object that it used last; to be kept in a `thread_local`.
///
/// Finding the object here takes no lock and touches nothing that threads with other objects touch. It keeps no
/// object alive, only the space that the last one took.
pub struct Recent<T> {
    raw: Cell<u64>,
    object: RefCell<Weak<T>>,
    /// Is told the handle and the place of an object whenever that changes. The space there is kept until it is told
    /// another one, or 0 and NULL.
    tell: fn(u64, *const T),
}

impl<T> Recent<T> {
    /// No memory yet.
    pub const fn new(tell: fn(u64, *const T)) -> Self {
        Self { raw: Cell::new(0), object: RefCell::new(Weak::new()), tell }
    }

    /// The object of this handle: the remembered one, or what the registry says.
    ///
    /// `still_registered` answers for an object that may have left the registry while somebody else keeps it alive.
    /// It must turn false before the object is removed; it may do so earlier, as then the registry is asked.
    #[inline]
    pub fn get(&self, raw: u64, registry: &Registry<T>, still_registered: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        if self.raw.get() == raw {
            let remembered = self.object.borrow().upgrade();
            if remembered.as_deref().is_some_and(still_registered) {
                return remembered;
            }
        }
        self.look_up(raw, registry)
    }

    #[cold]
    fn look_up(&self, raw: u64, registry: &Registry<T>) -> Option<Arc<T>> {
        let object = registry.get(raw)?;
        let before = self.object.replace(Arc::downgrade(&object));
        self.raw.set(raw);
        (self.tell)(raw, Arc::as_ptr(&object));
        drop(before);
        Some(object)
    }
}

impl<T> Drop for Recent<T> {
    fn drop(&mut self) {
        (self.tell)(0, std::ptr::null());
    }
}

#[cfg(test)]
mod tests;
