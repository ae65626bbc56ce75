//! All contact with wasmtime: engines, preparing and linking modules, instances, limits, deadlines, WASI.
//!
//! What is here without the feature `runtime` needs no wasmtime, and has unit tests.

#[cfg(feature = "runtime")]
mod compilers;
#[cfg(any(feature = "runtime", test, fuzzing))]
mod cost;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // callers that wait, and Extism memory given back to the system
mod ctx;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // compiled code that is dropped under a lock
pub(crate) mod engine;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // `func_new_unchecked`, and the caller of a running callback
mod function;
#[cfg(feature = "runtime")]
mod instance;
mod limits;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // `func_new_unchecked`
mod link;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // the caller that waits for a command
mod linked;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // the own artifacts are loaded, and files mapped
mod module;
#[cfg(feature = "runtime")]
mod outcome;
#[cfg(any(feature = "runtime", test, fuzzing))]
mod rewrite;
#[allow(unsafe_code)] // a value that two threads reach
pub(crate) mod slot;
#[allow(unsafe_code)] // ends of the stack, and work that another thread does meanwhile
pub(crate) mod stack;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // a handler of signals
pub(crate) mod traps;
mod wasi;
#[allow(unsafe_code)] // how exactly its thread wakes
pub(crate) mod watchdog;

#[cfg(any(test, fuzzing))]
pub(crate) use rewrite::{FEATURES, Prepared, prepare};
#[cfg(feature = "runtime")]
pub(crate) use {
    ctx::{Host, Settings},
    engine::tick,
    function::{Number, NumberType, Offer, UserCode, UserFunction},
    instance::Live,
    link::{Export, Program, Request, SourceModule},
    outcome::Outcome,
    wasi::Directory,
};
