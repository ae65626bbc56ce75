//! fork: the child of a process that uses the library uses it as well.
//!
//! Servers load plug-ins first and fork their workers then. The child has one thread, the one that forked; what other
//! threads held or were about to do stays as it was, for ever. So every lock of the library is taken before a fork,
//! and released after it in the parent and in the child. In the child
//!
//! - compiling uses no threads of the pool, and engines of its own; what the parent compiled is used, and never freed
//!   (host functions are, with their last user),
//! - WASI runs in a runtime of its own,
//! - the watchdog begins anew, with the calls that the forking thread is inside of (fork in a host function),
//! - what other threads were inside of answers busy, and nobody waits for it,
//! - threads of the library that waited for work are forgotten.
//!
//! All of them are taken here and nowhere else, in the order of the fields of [`Held`] from the last to the first;
//! elsewhere in the library no two of them are held at a time, but that of the log, which is the innermost one.

use std::sync::{Arc, Once};

use super::args;
use super::handles::{self, HeldHandles};
use crate::guest::http;
use crate::logging;
use crate::plugin::{Plugin, turn};
use crate::state::interrupt;
use crate::sync::{Mutex, MutexGuard};
use crate::wasm::{engine, slot, stack, traps, watchdog};

/// Sees to it that forks are survived, from the first object that the library makes.
pub(super) fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        // What is made once is made now: a fork must not find it half done.
        engine::environment();
        http::read_environment();
        interrupt::now_ns();
        slot::prepare();
        // SAFETY: the handlers are functions of this library, which stays loaded. Out of memory, the one error that
        // there is, means that forks are not survived.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}

/// Two threads may fork at the same time.
static FORKING: Mutex<()> = Mutex::new(());

/// What the thread that forks holds. Not thread-local: a thread that ends, or a handler of `exit`, may fork as well.
static HELD: Mutex<Parked> = Mutex::new(Parked(None));

struct Parked(Option<Held>);

// SAFETY: locks must be released by the thread that took them. What is in here is taken out by the thread that put it
// there, before it leaves `fork`: no other one comes in between, as `Held` has the lock `FORKING`.
unsafe impl Send for Parked {}

/// All locks of the library; released from the first to the last.
struct Held {
    _log: Option<logging::Held>,
    engines: engine::Held,
    threads: stack::HeldThreads,
    watchdog: watchdog::Held,
    waits: turn::HeldWaits,
    _messages: args::HeldMessages,
    handles: HeldHandles,
    _traps: traps::Held,
    _forking: MutexGuard<'static, ()>,
}

extern "C" fn before() {
    let forking = FORKING.lock();
    let traps = traps::hold();
    let handles = handles::hold();
    let messages = args::hold();
    let waits = turn::hold();
    let watchdog = watchdog::hold();
    let threads = stack::hold();
    let engines = engine::hold();
    HELD.lock().0 = Some(Held {
        _log: logging::hold(),
        engines,
        threads,
        watchdog,
        waits,
        _messages: messages,
        handles,
        _traps: traps,
        _forking: forking,
    });
}

extern "C" fn in_parent() {
    drop(take());
}

extern "C" fn in_child() {
    let Some(mut held) = take() else {
        return;
    };
    held.engines.forget_parent();
    held.threads.forget_parent();
    held.watchdog.forget_parent();
    held.waits.forget_parent();
    let plugins: Vec<Arc<Plugin>> = held.handles.plugins();
    drop(held);
    plugins.iter().for_each(|plugin| plugin.go_on_in_child());
}

fn take() -> Option<Held> {
    HELD.lock().0.take()
}
