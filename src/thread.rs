//! What the library knows of the calling thread.
//!
//! In a shared library each thread-local variable that is looked at costs a function call. So there is one, and nothing
//! in it has a destructor: it still works while the thread's other variables are being destroyed.

use std::cell::Cell;
use std::ptr;

/// What is known of one thread.
pub(crate) struct Thread {
    /// The thread's number; 0 as long as nobody asked (`plugin::turn`).
    pub token: Cell<u64>,
    /// Whether its last call into the library failed (`ffi::guard`).
    pub failed: Cell<bool>,
    /// The lowest and the highest address of its own stack; 0 and 0 as long as nobody asked (`wasm::stack`).
    pub stack: Cell<(usize, usize)>,
    /// On a thread of the library that runs a guest: the exchange with the thread that waits for it (`wasm::stack`).
    pub exchange: Cell<*const ()>,
    /// Whether a guest of this thread has trapped, and its frames may still be there (`wasm::traps`).
    pub trapping: Cell<bool>,
    /// The innermost callback of the host that it runs: the handle that was given to it, and the plug-in's part that
    /// the handle stands for (`wasm::ctx`).
    pub callback: Cell<(u64, *const ())>,
    /// The plug-in that it used last: the handle, and where the plug-in lies or lay (`ffi::handles`).
    pub recent: Cell<(u64, *const ())>,
}

thread_local! {
    static THREAD: Thread = const {
        Thread {
            token: Cell::new(0),
            failed: Cell::new(false),
            stack: Cell::new((0, 0)),
            exchange: Cell::new(ptr::null()),
            trapping: Cell::new(false),
            callback: Cell::new((0, ptr::null())),
            recent: Cell::new((0, ptr::null())),
        }
    };
}

/// Works with what is known of the calling thread.
#[inline(always)]
pub(crate) fn current<R>(work: impl FnOnce(&Thread) -> R) -> R {
    THREAD.with(work)
}
