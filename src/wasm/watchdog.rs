//! The watchdog: one thread that ends calls whose time is up.
//!
//! ```text
//!  plug-in                                   list of the watchdog
//! +-----------------+                       +---------------------------+
//! | Timer           |--Arc--> Watched <-Arc-| Slot                      |     next_wake: when the thread
//! |   listed        |         | interrupt   |   fired: call, when again |     looks at the list again
//! +-----------------+         | action      +---------------------------+
//!                                  |
//!                             Arc<Interrupt>: call number, deadline, cancelled
//! ```
//!
//! The deadline lies in the [`Interrupt`] and nowhere else: a timer is armed exactly while the interrupt's call
//! runs and must end, so ending a call disarms it, by a plain store. The thread never holds a plug-in, only what
//! stands above; no finaliser can run on it.
//!
//! **Arming** costs no lock and no system call as long as the thread wakes up early enough anyway. Neither side may
//! miss the other:
//!
//! ```text
//!  calling thread                      watchdog, under the lock
//!  1. store the call (and deadline)    1. next_wake = NEVER
//!  2. load next_wake                   2. look at the calls, note the nearest deadline
//!     earlier than that? then          3. next_wake = the nearest deadline
//!     take the lock and notify         4. sleep until then
//! ```
//!
//! All of these are sequentially consistent. A calling thread that loads a value from before the watchdog's step 1
//! stored its call before, and step 2 sees it. One that loads NEVER, or the value of step 3, notifies if its deadline
//! is earlier; it has to wait for the lock until step 4, so the notification is not lost.
//!
//! **Firing** runs the action, which tells the engine to interrupt its guests; they look at their own interrupt and
//! go on if it is not meant for them. A guest can miss it (it looked just before), so the action runs again and
//! again, at growing intervals, until the call has ended.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::background;
use crate::state::interrupt::{Due, Interrupt, NEVER, from_ns, now_ns};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The first and the longest interval between two firings for the same call, in nanoseconds.
const FIRST_PAUSE: u64 = 1_000_000;
const LONGEST_PAUSE: u64 = 10_000_000;

/// The thread calls no guest, no host and no library of others. What this leaves room for is thread-local data,
/// which lies on the stack as well.
const STACK_BYTES: usize = 128 * 1024;

/// The deadlines of one plug-in's calls, and what to do when one has passed.
pub struct Timer {
    watched: Arc<Watched>,
    /// In which list of the watchdog it stands, from the first deadline on: 0 for none, else the number of that list.
    listed: AtomicU64,
}

struct Watched {
    interrupt: Arc<Interrupt>,
    action: Box<dyn Fn() + Send + Sync>,
}

impl Timer {
    /// A timer for the calls of this interrupt.
    ///
    /// The action makes running guests ask the interrupt. It runs on the watchdog's thread, possibly once more after
    /// its call has ended, and must not block or panic.
    pub fn new(interrupt: Arc<Interrupt>, action: impl Fn() + Send + Sync + 'static) -> Self {
        let watched = Watched { interrupt, action: Box::new(action) };
        Self { watched: Arc::new(watched), listed: AtomicU64::new(0) }
    }

    /// A call begins; only the thread that has the plug-in's turn may say so.
    ///
    /// # Errors
    ///
    /// If the watchdog is needed and its thread cannot be started. The call must not run then, and has ended as far
    /// as the interrupt is concerned.
    #[inline]
    pub fn begin(&self, deadline: Option<Instant>) -> io::Result<()> {
        let at = self.watched.interrupt.begin(deadline);
        if at == NEVER || self.is_listed() && at >= WATCHDOG.next_wake.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.watch(at).inspect_err(|_| self.end())
    }

    /// The call has ended.
    #[inline]
    pub fn end(&self) {
        self.watched.interrupt.end();
    }

    /// Cancels the call in progress; returns whether there was one.
    pub fn cancel(&self) -> bool {
        if !self.watched.interrupt.cancel() {
            return false;
        }
        (self.watched.action)();
        // Without a watchdog the action has run once, which is nearly always enough.
        let _ = self.watch(0);
        true
    }

    /// In the child of a fork that happened during this call, on the thread that makes it.
    pub fn go_on(&self) -> io::Result<()> {
        match self.watched.interrupt.due() {
            Some(due) => self.watch(due.at),
            None => Ok(()),
        }
    }

    /// Deadline and cancel flag of the calls.
    pub fn interrupt(&self) -> &Interrupt {
        &self.watched.interrupt
    }

    #[inline]
    fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed) == WATCHDOG.number.load(Ordering::Relaxed)
    }

    #[cold]
    fn watch(&self, at: u64) -> io::Result<()> {
        let result = WATCHDOG.watch(&self.watched, at);
        self.listed.store(WATCHDOG.number.load(Ordering::Relaxed), Ordering::Relaxed);
        result
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.is_listed() {
            drop(WATCHDOG.forget(&self.watched));
        }
    }
}

static WATCHDOG: Watchdog = Watchdog {
    number: AtomicU64::new(1),
    next_wake: AtomicU64::new(NEVER),
    list: Mutex::new(List { slots: BTreeMap::new(), running: false }),
    changed: Condvar::new(),
};

/// Everything that the watchdog consists of.
struct Watchdog {
    /// Counts the lists: the child of a fork begins a new one. Never 0.
    number: AtomicU64,
    /// A call that ends before this time must notify. Written only under the lock of the list.
    next_wake: AtomicU64,
    list: Mutex<List>,
    changed: Condvar,
}

struct List {
    /// By address.
    slots: BTreeMap<usize, Slot>,
    /// Whether the thread was started.
    running: bool,
}

struct Slot {
    watched: Arc<Watched>,
    fired: Option<Fired>,
}

/// The action ran for this call.
struct Fired {
    call: u64,
    again_at: u64,
    pause: u64,
}

impl Watchdog {
    /// Lists the timer and sees to it that the thread looks at it in time.
    fn watch(&'static self, watched: &Arc<Watched>, at: u64) -> io::Result<()> {
        let mut list = self.list.lock();
        let new_slot = || Slot { watched: Arc::clone(watched), fired: None };
        list.slots.entry(key(watched)).or_insert_with(new_slot);
        if !list.running {
            let thread = thread::Builder::new().name("extism-watchdog".to_owned()).stack_size(STACK_BYTES);
            background::start(thread, || self.run())?;
            list.running = true;
        }
        if at < self.next_wake.load(Ordering::Relaxed) {
            self.next_wake.store(at, Ordering::SeqCst);
        }
        self.changed.notify_one();
        Ok(())
    }

    fn forget(&self, watched: &Arc<Watched>) -> Option<Slot> {
        self.list.lock().slots.remove(&key(watched))
    }

    fn run(&self) {
        wake_in_time();
        let mut expired = Vec::new();
        loop {
            self.wait_for_expired(&mut expired);
            for watched in expired.drain(..) {
                (watched.action)();
            }
        }
    }

    fn wait_for_expired(&self, expired: &mut Vec<Arc<Watched>>) {
        let mut list = self.list.lock();
        loop {
            self.next_wake.store(NEVER, Ordering::SeqCst);
            let next = list.collect_expired(now_ns(), expired);
            self.next_wake.store(next, Ordering::SeqCst);
            if !expired.is_empty() {
                return;
            }
            list = self.changed.wait_until(list, from_ns(next));
        }
    }
}

impl List {
    /// Collects what has to be fired now; returns when the next firing is due.
    fn collect_expired(&mut self, now: u64, expired: &mut Vec<Arc<Watched>>) -> u64 {
        let mut next = NEVER;
        for slot in self.slots.values_mut() {
            let Some(due) = slot.watched.interrupt.due() else {
                continue;
            };
            if slot.fires_at(due) <= now {
                slot.note_fired(due.call, now);
                expired.push(Arc::clone(&slot.watched));
            }
            next = next.min(slot.fires_at(due));
        }
        next
    }
}

impl Slot {
    fn fires_at(&self, due: Due) -> u64 {
        match &self.fired {
            Some(fired) if fired.call == due.call => fired.again_at,
            _ => due.at,
        }
    }

    fn note_fired(&mut self, call: u64, now: u64) {
        let pause = match &self.fired {
            Some(fired) if fired.call == call => (2 * fired.pause).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.fired = Some(Fired { call, again_at: now.saturating_add(pause), pause });
    }
}

fn key(watched: &Arc<Watched>) -> usize {
    Arc::as_ptr(watched).addr()
}

/// The list, held across a fork.
pub(crate) struct Held(MutexGuard<'static, List>);

/// Keeps the list as it is.
pub(crate) fn hold() -> Held {
    Held(WATCHDOG.list.lock())
}

impl Held {
    /// In the child of a fork, which has neither the thread nor the calls that it watched over.
    pub fn forget_parent(&mut self) {
        self.0.slots.clear();
        self.0.running = false;
        WATCHDOG.next_wake.store(NEVER, Ordering::SeqCst);
        WATCHDOG.number.fetch_add(1, Ordering::Relaxed);
    }
}

/// Linux lets a thread sleep 50 us longer than it asked for, so as to wake several at once. This one is to be in time.
fn wake_in_time() {
    const NANOSECONDS: libc::c_ulong = 1;
    // SAFETY: concerns the calling thread alone, and reads no memory. Where it fails, wakes are as late as usual.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, NANOSECONDS) };
}

#[cfg(test)]
mod tests;
