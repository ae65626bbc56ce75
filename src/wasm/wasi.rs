//! WASI preview 1, on wasmtime-wasi: what guests see of the machine, and no waiting past the end of a call.
//!
//! Guests get no arguments, no environment and an empty standard input. Clocks and random numbers are the
//! machine's, files are those below the directories that the manifest allows. Files are read and written on the
//! calling thread.

mod poll;

use std::cell::Cell;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use tokio::runtime::{Builder, Runtime};
use wasmtime::Linker;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

use super::link::Directory;
use crate::error::{Error, Result};
use crate::state::interrupt::Interrupt;
use crate::sync::{Mutex, MutexGuard};

/// The module that guests import WASI from.
const MODULE: &str = "wasi_snapshot_preview1";

/// Offers WASI in a linker; from then on the linker allows shadowing.
///
/// `wasi` and `interrupt` find their parts in the data of a store; they are called for each call of a guest, so
/// they should do little.
///
/// # Errors
///
/// None is known; they are those of the linker.
pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    wasi: impl Fn(&mut T) -> &mut WasiP1Ctx + Copy + Send + Sync + 'static,
    interrupt: impl Fn(&T) -> &Interrupt + Copy + Send + Sync + 'static,
) -> wasmtime::Result<()> {
    p1::add_to_linker_sync(linker, wasi)?;
    linker.allow_shadowing(true);
    // The one of wasmtime-wasi takes exit codes up to 125 only.
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) })?;
    poll::add_to_linker(linker, wasi, interrupt)
}

/// What one store's guests see: these directories in this order, and with `inherit_output` the standard output
/// and error of the process; otherwise what they print is dropped.
///
/// # Errors
///
/// A directory that cannot be opened; the message names it.
pub(super) fn context(directories: &[Directory], inherit_output: bool) -> Result<WasiP1Ctx> {
    let mut builder = WasiCtxBuilder::new();
    builder.allow_blocking_current_thread(true);
    // The default is a generator of this process: a child of fork would draw the same numbers as its parent.
    builder.secure_random(UnwrapErr(SysRng));
    if inherit_output {
        builder.inherit_stdout().inherit_stderr();
    }
    for Directory { host, guest, read_only } in directories {
        let permissions = if *read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        builder.preopened_dir(host, guest, permissions).map_err(|error| {
            Error::new(format!("allowed_paths: cannot open the directory `{}`: {error:#}", host.display()))
        })?;
    }
    Ok(builder.build_p1())
}

/// The runtime that threads enter, made by the first of them, and its number: another one after each fork. Never 0.
static RUNTIME: Mutex<Option<&'static Runtime>> = Mutex::new(None);
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Prepares the calling thread for guests that use WASI; cheap from the second time on.
///
/// wasmtime-wasi runs its functions as futures, in a tokio runtime of its own with a worker thread for each
/// processor, unless the thread has entered another one. Those workers would not survive a fork. Ours has no
/// thread at all: with files read and written on the calling thread, no future ever waits for anything.
///
/// The thread stays inside that runtime for good. Leaving it after each call would demand that calls on one
/// thread end in the reverse order of their beginning, and with fibers they do not.
pub(super) fn enter() {
    thread_local! {
        static ENTERED: Cell<u64> = const { Cell::new(0) };
    }
    let number = NUMBER.load(Ordering::Relaxed);
    if ENTERED.replace(number) == number {
        return;
    }
    let mut runtime = RUNTIME.lock();
    if runtime.is_none() {
        *runtime = Builder::new_current_thread().build().ok().map(|made| &*Box::leak(Box::new(made)));
    }
    if let Some(runtime) = *runtime {
        mem::forget(runtime.enter());
    }
}

/// The runtime, held across a fork.
pub(crate) struct Held(MutexGuard<'static, Option<&'static Runtime>>);

/// Keeps the runtime as it is.
pub(crate) fn hold() -> Held {
    Held(RUNTIME.lock())
}

impl Held {
    /// In the child of a fork: each future that runs takes a lock of its runtime for a moment, and a thread that
    /// stayed in the parent may have had that of the old one.
    pub fn forget_parent(&mut self) {
        *self.0 = None;
        NUMBER.fetch_add(1, Ordering::Relaxed);
    }
}
