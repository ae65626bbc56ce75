//! What the tests in `tests/` share. They load the built library (`EXTISM_LIB`, else the one in `target/release`)
//! and use it through its C ABI, as any host program does; nothing here links to it.
//!
//! | module | concern |
//! |---|---|
//! | `api` | the C functions, looked up in the shared object |
//! | `guest` | plug-ins as WebAssembly text, with the imports that a body needs written for it |
//! | `plugin` | plug-ins, compiled plug-ins, and how a call ended |
//! | `function` | host functions as closures |
//! | `server` | an HTTP server on this machine |
//! | `sequences`, `differential` | what the fuzz targets run on the whole library |
//! | `wasi` | a guest that calls the functions of WASI |
//! | `process` | deadlines for tests, and tests that need a process of their own |

#![deny(missing_docs, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod api;
mod differential;
mod function;
mod guest;
mod plugin;
mod process;
mod sequences;
mod server;
pub mod wasi;

pub use api::{Api, Handle, Val, api};
pub use differential::differential;
pub use function::{Current, HostFunction, Type};
pub use guest::guest;
pub use plugin::{Compiled, Ended, Plugin, Setup, last_error};
pub use process::{Scratch, in_child, resident_bytes, slowdown, within};
pub use sequences::{host_abi, module};
pub use serde_json::{Value, json};
pub use server::{Reply, Request, Server};
pub use wasi::{WASI_FUNCTIONS, WasiGuest};

/// Bytes of a WebAssembly page.
pub const PAGE: u64 = 64 * 1024;

/// Bytes as base64, as manifests have them.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The bytes that this base64 stands for.
pub fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

/// SHA-256 in lower-case hex, as manifests have it.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
