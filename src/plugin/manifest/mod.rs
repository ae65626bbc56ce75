//! The manifest: what a host asks for when it creates a plug-in.
//!
//! A host passes bytes. They are a module, WAT text, or a manifest in JSON or TOML; [`parse`] tells
//! which and makes a [`Manifest`] of all of them, [`Manifest::load`] brings the modules' bytes in.
//!
//! ```text
//! bytes -> recognise -> (JSON | TOML -> wire -> ) Manifest -> load -> Modules, Settings
//! ```
//!
//! Comments that name 1.41 tell what libextism 1.41 was seen to do with the same input.

mod load;
#[allow(unsafe_code)]
mod own_memory;
#[cfg(test)]
mod tests;
mod text;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};

/// The largest module, and the largest manifest, that is taken in. WebAssembly engines agree on
/// this limit for a module.
const MAX_BYTES: u64 = 1 << 30;

/// What a plug-in is made of and what it may do.
#[derive(Debug)]
pub struct Manifest<'a> {
    /// Where its modules come from; at least one.
    pub modules: Vec<Source<'a>>,
    /// Everything else.
    pub settings: Settings,
}

/// What a plug-in may do and use.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Limits in pages and bytes.
    pub memory: MemoryOptions,
    /// What the plug-in reads with `config_get`.
    pub config: BTreeMap<String, String>,
    /// Globs for the hosts that it may reach by HTTP; none if absent.
    pub allowed_hosts: Option<Vec<String>>,
    /// Directories of the host that it sees through WASI.
    pub allowed_paths: Vec<AllowedPath>,
    /// How long one call may take; for ever if absent. Zero is over at once.
    pub timeout: Option<Duration>,
}

/// Limits on what a plug-in holds in memory. What is absent has its default where it is enforced.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct MemoryOptions {
    /// WebAssembly pages of 64 KiB.
    pub max_pages: Option<u64>,
    /// Bytes of the body of one HTTP response.
    pub max_http_response_bytes: Option<u64>,
    /// Bytes of all variables together.
    pub max_var_bytes: Option<u64>,
}

/// A directory of the host that the guest sees.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct AllowedPath {
    /// Where it lies on the host.
    pub host: PathBuf,
    /// What the guest calls it.
    pub guest: String,
    /// Whether the guest may change nothing in it.
    pub read_only: bool,
}

/// One module, before its bytes are here.
#[derive(Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// What other modules import it as.
    pub name: Option<String>,
    /// The SHA-256 that its bytes must have.
    pub hash: Option<[u8; 32]>,
    /// Where its bytes are.
    pub location: Location<'a>,
}

/// Where a module's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub enum Location<'a> {
    /// In a file.
    Path(PathBuf),
    /// Here: what the host passed, or what a manifest holds.
    Data(Cow<'a, [u8]>),
    /// In the memory of this process. The numbers are a claim, checked when it is read.
    Memory {
        /// Where they begin.
        address: u64,
        /// How many they are.
        length: u64,
    },
    /// On a server.
    Url {
        /// The address of the request.
        url: String,
        /// The request's headers.
        headers: BTreeMap<String, String>,
        /// The request's method; `GET` if absent.
        method: Option<String>,
    },
}

/// The modules of one plug-in, as binary modules or WAT text.
#[derive(Debug, PartialEq, Eq)]
pub struct Modules<'a> {
    /// The one whose exports the host calls.
    pub main: Cow<'a, [u8]>,
    /// The ones that others import from, in the manifest's order. No two names are equal.
    pub linked: Vec<LinkedModule<'a>>,
}

/// A module that others import from.
#[derive(Debug, PartialEq, Eq)]
pub struct LinkedModule<'a> {
    /// The module name in others' imports.
    pub name: String,
    /// A binary module or WAT text.
    pub bytes: Cow<'a, [u8]>,
}

/// Reads what the host passed: a manifest, or one module alone.
pub fn parse(input: &[u8]) -> Result<Manifest<'_>> {
    if input.len() as u64 > MAX_BYTES {
        return Err(too_large(input.len() as u64));
    }
    let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    if input.trim_ascii().is_empty() {
        return Err(Error::new(
            "the input is empty: expected a WebAssembly module, WAT text, or a JSON or TOML manifest",
        ));
    }
    if is_module(input) {
        return Ok(Manifest {
            modules: vec![Source { name: None, hash: None, location: Location::Data(input.into()) }],
            settings: Settings::default(),
        });
    }
    text::parse(input)
}

/// Whether the bytes are meant as a module: the binary format's first bytes, or the first token of
/// WAT text. 1.41 wants a bare text to begin with `(module`, `(;` or `;;`.
fn is_module(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    bytes.starts_with(b"\0asm") || text.starts_with(b"(") || text.starts_with(b";;")
}

/// How [`is_module`] knows a module, for messages.
const MODULE_FORMS: &str = "a WebAssembly module (which begins with \"\\0asm\") nor WAT text (\"(module ...\")";

fn too_large(bytes: u64) -> Error {
    Error::new(format!("{bytes} bytes are too many: modules and manifests end at {MAX_BYTES}"))
}
