//! libextism: a host program loads untrusted WebAssembly plug-ins and calls their functions with bytes in
//! and bytes out, through a C ABI.
//!
//! The layers, from the outside in; a layer uses only those below it:
//!
//! | module | concern |
//! |---|---|
//! | `ffi` | the C boundary: handles and pointers in, fail values and messages out |
//! | `registry` | opaque handles: what a host's numbers stand for |
//! | `plugin` | what users have: compiled plug-ins, plug-ins and their calls, manifests |
//! | `wasm` | all contact with wasmtime: engines, rewriting, linking, instances, deadlines, WASI |
//! | `guest` | what plug-ins import from `extism:host/env`, free of wasmtime |
//! | `state` | what one plug-in owns during a call |
//! | `memory` | the Extism memory manager |
//!
//! `ARCHITECTURE.md` has the drawing of the layers and the path of one call. Without the feature `runtime`
//! what needs it (`ffi`, plug-ins, most of `wasm`) is left out, so that all the rest builds and tests in a minute.

#![deny(unsafe_code, unsafe_op_in_unsafe_fn, missing_docs)]
#![deny(clippy::undocumented_unsafe_blocks)]
#![cfg_attr(not(feature = "runtime"), allow(dead_code, unused_imports))]

mod background;
mod error;
mod file_limit;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guest;
mod logging;
mod memory;
mod plugin;
mod registry;
#[allow(unsafe_code)] // masks of threads
mod signals;
mod state;
#[allow(unsafe_code)]
mod streams;
#[allow(unsafe_code)] // a lock that is kept together with what it lies in
mod sync;
mod thread;

#[cfg(feature = "runtime")]
pub mod ffi;
mod wasm;
