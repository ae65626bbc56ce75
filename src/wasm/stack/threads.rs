//! The threads that run guests for callers with little stack.
//!
//! A few are kept for the next call: starting one takes longer than most calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::FORKS;
use crate::background;
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The stack of such a thread. The system provides what is used of it.
const STACK: usize = 4 * 1024 * 1024;

/// How many threads wait for work at a time, and for how long.
const MAX_IDLE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

/// The threads without work.
static IDLE: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Thread {
    work: Mutex<Option<Work>>,
    given: Condvar,
}

struct Work(*mut (dyn FnMut() + 'static));

// SAFETY: `run` demands a closure that may run on another thread.
unsafe impl Send for Work {}

/// Runs the work on a thread of ours, which this does not wait for. The work does not panic.
///
/// # Safety
///
/// The closure lives, and nobody else uses it, until it has returned. It can run on another thread.
pub(super) unsafe fn run(work: &mut dyn FnMut()) -> Result<()> {
    // SAFETY: only the lifetime is erased; that it is long enough is the caller's promise.
    let work = Work(unsafe { std::mem::transmute::<*mut dyn FnMut(), *mut (dyn FnMut() + 'static)>(work) });
    let idle = IDLE.lock().pop();
    let thread = match idle {
        Some(thread) => thread,
        None => start()?,
    };
    *thread.work.lock() = Some(work);
    thread.given.notify_one();
    Ok(())
}

fn start() -> Result<Arc<Thread>> {
    let thread = Arc::new(Thread::default());
    let its_own = Arc::clone(&thread);
    let builder = thread::Builder::new().name("extism-guest".to_owned()).stack_size(STACK);
    background::start(builder, move || its_own.work()).map_err(cannot)?;
    Ok(thread)
}

fn cannot(error: std::io::Error) -> Error {
    Error::new(format!("this thread has little stack, and none with more can be started for the plug-in: {error}"))
}

impl Thread {
    fn work(self: Arc<Self>) {
        while let Some(Work(work)) = self.next() {
            // SAFETY: the promise of `run`'s caller.
            unsafe { (*work)() };
            let mut idle = IDLE.lock();
            if idle.len() >= MAX_IDLE {
                return;
            }
            idle.push(Arc::clone(&self));
        }
    }

    /// Waits for work; `None` if there was none for a while and the thread is out of the list.
    fn next(self: &Arc<Self>) -> Option<Work> {
        let until = Instant::now() + PATIENCE;
        let mut work = self.work.lock();
        while work.is_none() && Instant::now() < until {
            work = self.given.wait_until(work, Some(until));
        }
        if work.is_none() {
            drop(work);
            let mut idle = IDLE.lock();
            let before = idle.len();
            idle.retain(|thread| !Arc::ptr_eq(thread, self));
            if idle.len() < before {
                return None;
            }
            drop(idle);
            // Somebody took it out of the list to give it work.
            work = self.work.lock();
            while work.is_none() {
                work = self.given.wait(work);
            }
        }
        work.take()
    }
}

/// The list, held across a fork.
pub(crate) struct Held(MutexGuard<'static, Vec<Arc<Thread>>>);

/// Keeps the list as it is.
pub(crate) fn hold() -> Held {
    Held(IDLE.lock())
}

impl Held {
    /// In the child of a fork, where these threads are gone.
    pub fn forget_parent(&mut self) {
        self.0.clear();
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
}
