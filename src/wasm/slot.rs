//! The way back to a guest that waits for a callback of the host: open while the callback runs, from any thread.
//!
//! Nearly always it is the callback's own thread that uses it, and a callback is about as short as an atomic operation
//! that other processors take part in. So that thread only stores and loads, and whoever comes from another thread pays
//! for both:
//!
//! ```text
//!  thread of the callback                     another thread, under the lock
//!  open:   current = value
//!  use:    inside = true                      busy = true
//!          (light fence)                      (heavy fence)
//!          busy?  then by the lock            wait until not inside
//!          work, inside = false               work with current, if it is open
//!  close:  current = nothing                  busy = false
//!          (light fence)
//!          busy?  then wait for the lock
//! ```
//!
//! The heavy fence makes every thread of the process that runs pass a fence (`membarrier`); at that moment the thread
//! of the callback has either stored what it was about to store, or it will see `busy`. Where the system does not offer
//! this, the light fence is an ordinary one.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence, fence};
use std::time::Duration;
use std::{hint, ptr};

use crate::sync::Mutex;

/// Where a value can be reached while a callback runs.
pub(super) struct Slot<T> {
    /// NULL outside of callbacks.
    current: AtomicPtr<T>,
    /// The thread of the callback works with the value.
    inside: AtomicBool,
    /// Another thread does, or waits for its turn to.
    busy: AtomicBool,
    others: Mutex<()>,
}

impl<T> Slot<T> {
    /// A slot outside of any callback.
    pub const fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            inside: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            others: Mutex::new(()),
        }
    }

    /// Runs a callback during which this value can be reached.
    #[inline(always)] // what the callback needs stays in registers
    pub fn lend(&self, value: &mut T, callback: impl FnOnce()) {
        /// Closes the slot when the callback has ended, however it ended.
        struct Close<'a, T>(&'a Slot<T>);

        impl<T> Drop for Close<'_, T> {
            #[inline]
            fn drop(&mut self) {
                self.0.current.store(ptr::null_mut(), Ordering::Release);
                light_fence();
                if self.0.busy.load(Ordering::Acquire) {
                    drop(self.0.others.lock());
                }
            }
        }

        self.current.store(value, Ordering::Release);
        let _close = Close(self);
        callback();
    }

    /// Works with the value of the callback that runs; `None` if none does.
    ///
    /// # Safety
    ///
    /// The calling thread is the one that runs the callback, if one runs, and is not inside of this function already.
    #[inline]
    pub unsafe fn with_own<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        /// Also when the work panics.
        struct Leave<'a>(&'a AtomicBool);

        impl Drop for Leave<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        self.inside.store(true, Ordering::Relaxed);
        light_fence();
        let leave = Leave(&self.inside);
        if self.busy.load(Ordering::Acquire) {
            drop(leave);
            let _lock = self.others.lock();
            // SAFETY: under the lock no other thread works with it.
            return unsafe { self.work(work) };
        }
        // SAFETY: another thread waits until we are not inside.
        unsafe { self.work(work) }
    }

    /// The same from any other thread, or for a callback further out on the stack of this one.
    pub fn with_other<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        /// Also when the work panics.
        struct Done<'a>(&'a AtomicBool);

        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        let _lock = self.others.lock();
        self.busy.store(true, Ordering::Relaxed);
        let _done = Done(&self.busy);
        if !heavy_fence() {
            return None;
        }
        let mut patience = Patience::default();
        while self.inside.load(Ordering::Acquire) {
            patience.wait();
        }
        // SAFETY: the thread of the callback is not inside, and until we are done it goes by the lock, to work with the
        // value as well as to close the slot.
        unsafe { self.work(work) }
    }

    /// # Safety
    ///
    /// Nobody else works with the value, and the slot is not closed meanwhile.
    #[inline]
    unsafe fn work<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let value = self.current.load(Ordering::Acquire);
        // SAFETY: it is NULL, or the reference that `lend` holds and does not use before the slot is closed.
        unsafe { value.as_mut() }.map(work)
    }

    /// Ends a callback whose thread a fork has left behind.
    pub fn abandon(&self) {
        self.current.store(ptr::null_mut(), Ordering::Relaxed);
        self.inside.store(false, Ordering::Relaxed);
    }

    /// The lock that a fork takes.
    pub fn lock(&self) -> &Mutex<()> {
        &self.others
    }
}

/// Waits for another thread that is about to be done; sleeps if it is not, so that a thread of high priority lets it
/// go on.
#[derive(Default)]
pub(super) struct Patience {
    rounds: u32,
}

impl Patience {
    pub fn wait(&mut self) {
        self.rounds += 1;
        match self.rounds {
            0..20 => hint::spin_loop(),
            20..120 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

/// Whether heavy fences take care of the light ones.
static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

/// Chooses the kind of fences. To be called before the first slot is used.
pub(crate) fn prepare() {
    if membarrier(REGISTER) {
        ASYMMETRIC.store(true, Ordering::Relaxed);
    }
}

/// What is stored before this is seen by others before what is loaded after it was loaded, if they pass a heavy fence.
#[inline]
fn light_fence() {
    if ASYMMETRIC.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// A fence for all threads that are between a store and a load with a light one. False: the system took back what it
/// offered.
fn heavy_fence() -> bool {
    fence(Ordering::SeqCst);
    // The child of a fork may have to register anew.
    !ASYMMETRIC.load(Ordering::Relaxed) || membarrier(FENCE) || membarrier(REGISTER) && membarrier(FENCE)
}

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED`: all threads of this process that run pass a fence.
const FENCE: libc::c_int = 1 << 3;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED`: announces that.
const REGISTER: libc::c_int = 1 << 4;

#[cfg(target_os = "linux")]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: neither command has a precondition.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn membarrier(_: libc::c_int) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Two numbers that are equal whenever nobody works with them.
    #[derive(Default)]
    struct Pair(u64, u64);

    impl Pair {
        fn step(&mut self) {
            assert_eq!(self.0, self.1);
            self.0 += 1;
            hint::black_box(&mut *self);
            self.1 += 1;
        }
    }

    #[test]
    fn it_is_open_during_the_callback_only() {
        let slot = Slot::<Pair>::new();
        assert!(slot.with_other(Pair::step).is_none());
        let mut pair = Pair::default();
        slot.lend(&mut pair, || {
            // SAFETY: this is the thread of the callback.
            assert!(unsafe { slot.with_own(Pair::step) }.is_some());
            assert!(slot.with_other(Pair::step).is_some());
        });
        assert!(slot.with_other(Pair::step).is_none());
        assert_eq!(pair.0, 2);
    }

    #[test]
    fn a_panic_leaves_it_as_it_was() {
        let slot = Slot::<Pair>::new();
        let mut pair = Pair::default();
        let caught = |work: &mut dyn FnMut()| {
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err());
        };
        caught(&mut || {
            slot.lend(&mut pair, || {
                // SAFETY: this is the thread of the callback.
                caught(&mut || _ = unsafe { slot.with_own(|_| -> () { panic!("own") }) });
                caught(&mut || _ = slot.with_other(|_| -> () { panic!("other") }));
                // SAFETY: as above.
                assert!(unsafe { slot.with_own(Pair::step) }.is_some());
                panic!("the callback");
            });
        });
        assert!(slot.with_other(Pair::step).is_none());
    }

    /// The thread of the callbacks and two others, all as fast as they can.
    fn storm() {
        const CALLBACKS: u64 = if cfg!(miri) { 100 } else { 200_000 };
        let slot = Slot::<Pair>::new();
        let (over, seen) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut pair = Pair::default();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        if slot.with_other(Pair::step).is_some() {
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            for _ in 0..CALLBACKS {
                // Between two callbacks the value is the owner's alone.
                pair.step();
                slot.lend(&mut pair, || {
                    for _ in 0..3 {
                        // SAFETY: this is the thread of the callback.
                        assert!(unsafe { slot.with_own(Pair::step) }.is_some());
                    }
                });
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(pair.0, 4 * CALLBACKS + seen.load(Ordering::Relaxed));
        assert_eq!(pair.0, pair.1);
    }

    #[test]
    fn one_at_a_time() {
        storm();
        prepare();
        storm();
    }
}
