//! The threads that compile.
//!
//! Wasmtime compiles in rayon's pool for the process, which rayon makes at its first use: once, and if the system has no
//! threads to give in that moment, all later uses panic. So it is made here, when there are some; until then, and in
//! the child of a fork, whose threads stayed in the parent, modules are compiled on the calling thread.

use std::thread;

use super::watchdog::SignalsBlocked;
use crate::sync::Mutex;

enum Pool {
    /// Not made yet.
    Wanted,
    Made,
    /// Rayon tried, and does not try again.
    Lost,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::Wanted);

/// Whether there are threads that compile. Not for the child of a fork.
pub(super) fn are_there() -> bool {
    let mut pool = POOL.lock();
    if let Pool::Wanted = *pool {
        *pool = make();
    }
    matches!(*pool, Pool::Made)
}

fn make() -> Pool {
    // Signals of the host stay with threads of the host.
    let Ok(_blocked) = SignalsBlocked::but_faults() else {
        return Pool::Wanted;
    };
    // If one thread cannot be had, it is not yet time to try.
    let Ok(probe) = thread::Builder::new().name("extism-compile".to_owned()).spawn(|| ()) else {
        return Pool::Wanted;
    };
    let _ = probe.join();
    let pool = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("extism-compile-{number}"));
    if pool.build_global().is_ok() { Pool::Made } else { Pool::Lost }
}
