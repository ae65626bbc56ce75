//! All contact with wasmtime: engines, preparing and linking modules, instances, limits, deadlines, WASI.

#[allow(unsafe_code)] // callers that wait, and Extism memory given back to the system
mod ctx;
mod engine;
#[allow(unsafe_code)] // `func_new_unchecked`, and the caller of a running callback
mod function;
mod instance;
mod limits;
#[allow(unsafe_code)] // `func_new_unchecked`
mod link;
mod linked;
mod outcome;
mod rewrite;
mod wasi;
#[allow(unsafe_code)] // signal masks
pub(crate) mod watchdog;

pub(crate) use ctx::{Host, Settings};
pub(crate) use function::{Number, NumberType, Offer, UserFunction};
pub(crate) use instance::Live;
pub(crate) use link::{Directory, Export, Program, Request, SourceModule};
pub(crate) use outcome::Outcome;
