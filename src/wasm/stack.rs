//! Room on the stack: guests run where there is enough of it, whatever thread the host calls from.
//!
//! Wasmtime takes for granted that the stack it allows to a guest is really there. Where a thread has less, a guest
//! that calls itself for ever would run off its end and take the process along. So before a guest is entered the
//! stack pointer is compared with both ends of the thread's stack: threads may be small, plug-ins may call each
//! other through host functions until little is left, and fibers (of Ruby, PHP, C++) have stacks of their own, whose
//! ends nobody knows.
//!
//! Where there is too little room, the guest runs on a thread of ours, while the calling thread waits and runs the
//! host functions that the guest calls: they belong on the thread and the stack that the host called from.
//!
//! ```text
//!  calling thread                        thread of ours
//!  with_room ---------- work ----------> guest runs
//!     |   <------------ callback ------- on_calling_thread
//!  callback runs                            |
//!     |   ------------- returned --------> guest goes on
//!     |   <------------ done ------------ work has returned
//! ```

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::signals;
use crate::sync::{Condvar, Mutex};
use crate::thread;

mod threads;

pub(crate) use threads::{Held as HeldThreads, hold};

/// The stack that a guest may use; what its engine is configured with.
pub(super) const WASM: usize = 512 * 1024;

/// What the library's own functions and those of the host may use at the depth of a guest that used up its own.
const HOST: usize = 256 * 1024;

/// What a call of a guest needs.
pub(crate) const CALL: usize = WASM + HOST;

/// What parsing and compiling a module needs.
pub(crate) const COMPILE: usize = 2 * 1024 * 1024;

/// With less than this not even waiting for another thread is safe.
const WAIT: usize = 12 * 1024;

/// Counts the forks behind this process: a thread that was waited for is gone after one.
static FORKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Dropped when the thread ends.
    static ENDING: Ending = const { Ending };
}

/// The ends of a stack that is not the thread's own, or that no guest is to run on.
const NOWHERE: (usize, usize) = (1, 1);

/// A thread that ends, or a process in its handlers of `exit`, may still call plug-ins. But the data of the thread that
/// libraries below us rely on is gone then: such calls are made on a thread of ours.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        thread::current(|thread| thread.stack.set(NOWHERE));
    }
}

/// How much stack is left.
enum Left {
    Bytes(usize),
    /// The stack is not the thread's own.
    Unknown,
}

/// Whether this many bytes of stack are left to the calling thread.
#[inline]
pub(crate) fn has_room(needed: usize) -> bool {
    matches!(left(), Left::Bytes(left) if left >= needed)
}

#[inline]
fn left() -> Left {
    let here = {
        let marker = MaybeUninit::<u8>::uninit();
        marker.as_ptr().addr()
    };
    let (low, high) = match thread::current(|thread| thread.stack.get()) {
        (0, 0) => measure(),
        ends => ends,
    };
    if (low..high).contains(&here) { Left::Bytes(here - low) } else { Left::Unknown }
}

/// Asks the system for the ends of the thread's stack. What it cannot tell counts as a stack that is not the
/// thread's own. Also sees to it that traps reach this thread, before its first guest runs.
#[cold]
fn measure() -> (usize, usize) {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut base, mut size) = (ptr::null_mut(), 0);
    // SAFETY: `pthread_getattr_np` initialises the attributes if it returns 0, and only then are they read, and
    // destroyed, once.
    let known = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let known = libc::pthread_attr_getstack(attributes.as_ptr(), &mut base, &mut size) == 0;
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            known
        }
    };
    signals::let_faults_through();
    let has_data = ENDING.try_with(|_| ()).is_ok();
    let ends = if known && has_data { (base.addr(), base.addr().saturating_add(size)) } else { NOWHERE };
    thread::current(|thread| thread.stack.set(ends));
    ends
}

/// Runs this work with at least `needed` bytes of stack: here, or on a thread of ours while this one waits and runs
/// the callbacks.
///
/// # Errors
///
/// If there is not even room to wait, or no thread can be started; the work has not begun then. If a callback
/// forked, in the child: the work is lost with its thread.
#[inline]
pub(crate) fn with_room<R: Send>(needed: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    if has_room(needed) { Ok(work()) } else { elsewhere(work) }
}

#[cold]
fn elsewhere<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R> {
    if matches!(left(), Left::Bytes(left) if left < WAIT) {
        return Err(Error::new("call stack exhausted: too little of this thread's stack is left to call a plug-in"));
    }
    let exchange = Exchange::default();
    let (mut work, mut result) = (Some(work), None);
    let mut run = || {
        if let Some(work) = work.take() {
            thread::current(|thread| thread.exchange.set(ptr::from_ref(&exchange).cast()));
            result = Some(catch_unwind(AssertUnwindSafe(work)));
            thread::current(|thread| thread.exchange.set(ptr::null()));
        }
        exchange.done();
    };
    // SAFETY: `serve` returns only after `done`, the last that the closure does, or where the thread that has it is
    // gone: nothing that it borrows ends before. It may run on another thread: `work` and its result are `Send`.
    unsafe { threads::run(&mut run)? };
    if !exchange.serve() {
        return Err(Error::new(
            "the process forked in a host function, and the plug-in ran on another thread, as the stack was small: in \
             the child this call cannot go on",
        ));
    }
    match result {
        Some(Ok(result)) => Ok(result),
        Some(Err(panic)) => resume_unwind(panic),
        None => Err(Error::new("a thread of the library ended too early")),
    }
}

/// Whether the host called from another thread, which waits for the guest that this one runs.
#[inline]
pub(super) fn is_elsewhere() -> bool {
    !thread::current(|thread| thread.exchange.get()).is_null()
}

/// Runs a callback of the host on the thread that the host called from, where it belongs; see [`is_elsewhere`].
#[cold]
pub(super) fn on_calling_thread(callback: impl FnOnce()) {
    let exchange = thread::current(|thread| thread.exchange.get());
    // SAFETY: it is NULL, or set while the work of `elsewhere` runs on this thread, which keeps the exchange until that
    // has ended.
    let Some(exchange) = (unsafe { exchange.cast::<Exchange>().as_ref() }) else {
        return callback();
    };
    let (mut callback, mut outcome) = (Some(callback), Ok(()));
    let mut run = || {
        if let Some(callback) = callback.take() {
            outcome = catch_unwind(AssertUnwindSafe(callback));
        }
    };
    exchange.ask(&mut run);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// What the two threads of one call tell each other.
#[derive(Default)]
struct Exchange {
    step: Mutex<Step>,
    changed: Condvar,
}

#[derive(Default)]
enum Step {
    /// The guest runs.
    #[default]
    Working,
    /// It waits for this callback to be run.
    Asked(Callback),
    /// The callback has returned.
    Answered,
    /// All is over.
    Done,
}

struct Callback(*mut dyn FnMut());

// SAFETY: the closure stays where it is, on the stack of a thread that waits for its end; it is the host's wish that
// it runs on the other thread.
unsafe impl Send for Callback {}

impl Exchange {
    /// On the calling thread: runs callbacks until all is done. False if the other thread was lost in a fork.
    fn serve(&self) -> bool {
        let forks = FORKS.load(Ordering::Relaxed);
        let mut step = self.step.lock();
        loop {
            match &*step {
                Step::Done => return true,
                Step::Asked(callback) => {
                    let callback = callback.0;
                    drop(step);
                    // SAFETY: `ask` waits for the answer before its borrow of the closure ends.
                    unsafe { (*callback)() };
                    if FORKS.load(Ordering::Relaxed) != forks {
                        return false;
                    }
                    step = self.step.lock();
                    *step = Step::Answered;
                    self.changed.notify_one();
                }
                Step::Working | Step::Answered => step = self.changed.wait(step),
            }
        }
    }

    /// On our thread: has the callback run, and waits for its end.
    fn ask(&self, callback: &mut dyn FnMut()) {
        // SAFETY: only the lifetime is erased; we wait for the answer below.
        let callback: *mut (dyn FnMut() + 'static) = unsafe { std::mem::transmute(ptr::from_mut(callback)) };
        let mut step = self.step.lock();
        *step = Step::Asked(Callback(callback));
        self.changed.notify_one();
        while !matches!(*step, Step::Answered) {
            step = self.changed.wait(step);
        }
        *step = Step::Working;
    }

    /// On our thread, at its end. The exchange may be gone as soon as the lock is released.
    fn done(&self) {
        let mut step = self.step.lock();
        *step = Step::Done;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
