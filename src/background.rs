//! Threads of the library that nobody joins.

use std::io;
use std::sync::Arc;
use std::thread::Builder;

use crate::signals::SignalsBlocked;
use crate::sync::Mutex;

/// Starts a thread. Signals of the host are blocked in it.
pub(crate) fn start(thread: Builder, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let _blocked = SignalsBlocked::but_faults()?;
    // `pthread_detach` of glibc (2.36) looks at the thread once more when it is detached already, and may give its stack
    // back at its end. So it does not end before that.
    let detached = Arc::new(Mutex::new(()));
    let _not_yet = detached.lock();
    let its_own = Arc::clone(&detached);
    let started = thread.spawn(move || {
        let _end = WaitsFor(its_own);
        body();
    });
    started.map(drop)
}

/// Waits for a lock as it ends.
struct WaitsFor(Arc<Mutex<()>>);

impl Drop for WaitsFor {
    fn drop(&mut self) {
        drop(self.0.lock());
    }
}
