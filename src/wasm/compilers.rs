//! The threads that compile.
//!
//! Wasmtime compiles in rayon's pool for the process, which rayon makes at its first use: once, and if the system has no
//! threads to give in that moment, all later uses panic. So it is made here, when there are some; until then, and in
//! the child of a fork, whose threads stayed in the parent, modules are compiled on the calling thread.

use std::thread;

use crate::signals::SignalsBlocked;
use crate::sync::Mutex;

/// More of them are of no use for one module.
const MAX_THREADS: usize = 64;

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
    let Ok(_blocked) = SignalsBlocked::but_faults() else {
        return Pool::Wanted;
    };
    // If one thread cannot be had, it is not yet time to try.
    let Ok(probe) = thread::Builder::new().name("extism-compile".to_owned()).spawn(|| ()) else {
        return Pool::Wanted;
    };
    let _ = probe.join();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads(std::env::var("RAYON_NUM_THREADS").ok().as_deref()))
        .thread_name(|number| format!("extism-compile-{number}"));
    if pool.build_global().is_ok() { Pool::Made } else { Pool::Lost }
}

/// One for each processor, or fewer if the environment wants that. Rayon itself would start any number.
fn threads(wanted: Option<&str>) -> usize {
    let most = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    wanted.and_then(|wanted| wanted.parse().ok()).filter(|wanted| (1..=most).contains(wanted)).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_threads_than_processors() {
        let most = threads(None);
        assert!((1..=MAX_THREADS).contains(&most));
        for wanted in ["0", "100000", "-1", "", "x", "99999999999999999999999"] {
            assert_eq!(threads(Some(wanted)), most, "{wanted}");
        }
        assert_eq!(threads(Some("1")), 1);
        assert_eq!(threads(Some(&most.to_string())), most);
    }
}
