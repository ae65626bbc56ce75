//! WASI preview 1: what guests see of the machine, and no waiting past the end of a call.
//!
//! Guests get no arguments, no environment and an empty standard input. Clocks and random numbers are the
//! machine's, files are those below the directories that the manifest allows. All of it happens on the calling thread.
//!
//! | module | concern |
//! |---|---|
//! | `link` | the functions, as a linker offers them; the one contact with wasmtime |
//! | `call` | one call: the guest's memory, paths and buffers in it |
//! | `descriptors` | what a guest's descriptors stand for, and how many there may be |
//! | `path`, `io`, `listing`, `stat` | looking up and opening, reading and writing, directories, what files are |
//! | `poll`, `system` | sleeping; clocks, random numbers, and what guests do not get |
//! | `errno` | error numbers |

mod call;
mod descriptors;
mod errno;
mod io;
#[cfg(feature = "runtime")]
mod link;
mod listing;
mod path;
mod poll;
mod stat;
mod system;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::limits::Budget;
use crate::error::{Error, Result};
use descriptors::{Descriptors, Output};
#[cfg(feature = "runtime")]
pub(super) use link::add_to_linker;

/// A directory that a manifest allows.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub host: PathBuf,
    pub guest: String,
    pub read_only: bool,
}

/// A directory that guests begin with. It is opened once, for all plug-ins of a compiled one.
#[derive(Debug, Clone)]
pub(super) struct Preopen {
    dir: Arc<Dir>,
    guest: Arc<str>,
    read_only: bool,
}

impl Preopen {
    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// One that cannot be opened; the message names it.
    pub fn new(directory: &Directory) -> Result<Self> {
        let dir = Dir::open_ambient_dir(&directory.host, ambient_authority()).map_err(|error| {
            Error::new(format!("allowed_paths: cannot open the directory `{}`: {error}", directory.host.display()))
        })?;
        Ok(Self { dir: Arc::new(dir), guest: directory.guest.as_str().into(), read_only: directory.read_only })
    }
}

/// What WASI keeps for the guests of one store.
#[derive(Debug)]
pub(super) struct Wasi {
    descriptors: Descriptors,
    /// Where the plug-in's descriptors are counted.
    budget: Arc<Budget>,
    started: Instant,
}

impl Wasi {
    /// For guests that begin with these directories. With `inherit_output` their standard output and error are those
    /// of the process; otherwise what they print is dropped.
    pub fn new(preopens: &[Preopen], inherit_output: bool, budget: Arc<Budget>) -> Self {
        let outputs = if inherit_output { [Output::Stdout, Output::Stderr] } else { [Output::Nowhere; 2] };
        Self { descriptors: Descriptors::new(outputs, preopens), budget, started: Instant::now() }
    }
}

/// The guest ended itself, with this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit(pub i32);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit with code {}", self.0)
    }
}

impl std::error::Error for Exit {}
