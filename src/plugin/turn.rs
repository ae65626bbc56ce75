//! Exclusive use of a plug-in: one thread at a time, the others in the order in which they came.
//!
//! ```text
//!  63                                  2   1       0
//! +-------------------------------------+-------+---------+
//! |  token of the thread inside, or 0   | FREED | WAITERS |     the state of a turn
//! +-------------------------------------+-------+---------+
//! ```
//!
//! Nobody in the way: entering is one compare-and-exchange from 0 to the own token, leaving is the one back.
//! Anything else goes through [`waits`], one table for the whole process: who waits for which turn, and who is
//! inside of it. The rules:
//!
//! - The bit `WAITERS` is set, and threads queue, only under the table's lock. A leaving thread that finds the bit
//!   hands the turn to the first in the queue, without ever letting go of it, so that a thread that calls without
//!   pause cannot starve those that wait. Hence the owner of a turn with a queue changes only under the lock, and
//!   the table is exact.
//! - A wait that would close a circle (this thread is inside of what the owner waits for, and so on) is refused as
//!   *busy*. The check and the queueing are one step under the lock, so of two waits that would close a circle
//!   together one is refused.
//! - `FREED` is set once and stays. Whoever makes the step to "freed, and nobody inside" retires the plug-in:
//!   [`Turn::free`] itself, or the thread that leaves last. Both are one atomic step on the same word, so exactly
//!   one of them sees it.
//!
//! The thread inside is the one that *calls*; the guest may run on another thread on its behalf.

use std::cell::UnsafeCell;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

mod waits;

use crate::thread;
use waits::WAITS;
pub(crate) use waits::{Held as HeldWaits, hold};

const WAITERS: u64 = 1;
const FREED: u64 = 1 << 1;
const OWNER_SHIFT: u32 = 2;

/// The token of the next thread that asks for one.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// In the child of a fork: threads with smaller tokens are gone, all but the one that forked.
static FIRST_ALIVE: AtomicU64 = AtomicU64::new(0);
static FORKED: AtomicU64 = AtomicU64::new(0);

/// A number for the calling thread, never 0 and never used for another one.
#[inline]
pub fn thread_token() -> u64 {
    thread::current(|thread| match thread.token.get() {
        0 => new_token(thread),
        token => token,
    })
}

#[cold]
fn new_token(thread: &thread::Thread) -> u64 {
    let token = NEXT.fetch_add(1, Ordering::Relaxed);
    thread.token.set(token);
    token
}

/// Whether this thread was one of the parent, and this process is the child of a fork.
fn is_gone(thread: u64) -> bool {
    thread < FIRST_ALIVE.load(Ordering::Relaxed) && thread != FORKED.load(Ordering::Relaxed)
}

/// Why a thread did not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This thread is inside already, directly or through calls of others.
    Busy,
    /// The deadline came first.
    TimedOut,
    /// The plug-in was freed.
    Freed,
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the plug-in is busy: a call of it is running, and waiting for its end could last for ever",
            Self::TimedOut => "timeout",
            Self::Freed => "the plug-in was freed while this call waited for its turn",
        })
    }
}

/// Who is inside of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    Nobody,
    ThisThread,
    Another,
}

/// What one thread at a time may use.
pub struct Turn<T> {
    state: AtomicU64,
    raw: u64,
    retire: fn(u64),
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a `Held` only, and there is at most one at any time: making one takes the
// step from "nobody inside" to the own token, or the hand-over from the thread that leaves. So sharing a turn moves
// the value from thread to thread, which `Send` allows, and never shares it.
unsafe impl<T: Send> Sync for Turn<T> {}

impl<T> Turn<T> {
    /// A turn that nobody has.
    ///
    /// Once it is freed and nobody is inside any more, `retire(raw)` runs, exactly once, on the thread that freed it
    /// or that left last, under no lock. It must not panic.
    pub const fn new(value: T, raw: u64, retire: fn(u64)) -> Self {
        Self { state: AtomicU64::new(0), raw, retire, value: UnsafeCell::new(value) }
    }

    /// Takes the turn, waiting behind those that came before.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; without deadline the wait ends by the turn or by [`Turn::free`].
    #[inline]
    pub fn enter(&self, deadline: Option<Instant>) -> Result<Held<'_, T>, Refused> {
        let me = thread_token();
        if self.take(me) { Ok(self.held(me)) } else { self.enter_slowly(me, deadline) }
    }

    /// Takes the turn if nobody has it, of a turn that may be gone already: a freed one is never taken, and one that is
    /// taken is not retired before it is left.
    ///
    /// # Safety
    ///
    /// The memory at `this` belongs to a turn that is there, or to one that was dropped after it was freed and whose
    /// memory nobody has used since. If nobody frees the turn and drops it all the same while the result lives.
    #[inline]
    pub unsafe fn enter_if_there<'a>(this: *const Self) -> Option<Held<'a, T>> {
        let me = thread_token();
        // SAFETY: the memory is that of a turn, by the caller's promise, and a number has no destructor: what a dropped
        // turn leaves in this field still says that it was freed.
        let state = unsafe { &*ptr::addr_of!((*this).state) };
        if state.compare_exchange(0, me << OWNER_SHIFT, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return None;
        }
        // SAFETY: it was not freed, so it is there; and until we leave it stays.
        Some(unsafe { &*this }.held(me))
    }

    /// Takes the turn if nobody has it.
    ///
    /// # Errors
    ///
    /// [`Refused::Busy`] if any thread is inside, [`Refused::Freed`] if the plug-in was freed.
    pub fn try_enter(&self) -> Result<Held<'_, T>, Refused> {
        let me = thread_token();
        if self.take(me) {
            Ok(self.held(me))
        } else if self.is_freed() {
            Err(Refused::Freed)
        } else {
            Err(Refused::Busy)
        }
    }

    /// Frees the plug-in: nobody enters any more, those that wait are refused, whoever is inside stays until it
    /// leaves. Returns whether this was the call that freed it.
    pub fn free(&self) -> bool {
        let before = self.state.fetch_or(FREED, Ordering::AcqRel);
        if before & FREED != 0 {
            return false;
        }
        if before & WAITERS != 0 {
            WAITS.lock().dismiss(self.key());
        }
        if owner_of(before) == 0 {
            (self.retire)(self.raw);
        }
        true
    }

    /// Whether the plug-in was freed; as long as this is false, it was not retired.
    #[inline]
    pub fn is_freed(&self) -> bool {
        self.state.load(Ordering::Acquire) & FREED != 0
    }

    /// Whether it was freed and nobody is inside: it is out of the registry, or about to be.
    #[inline]
    pub fn is_retired(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state & FREED != 0 && owner_of(state) == 0
    }

    /// Who is inside, for the child of a fork.
    pub fn occupant(&self) -> Occupant {
        match owner_of(self.state.load(Ordering::Acquire)) {
            0 => Occupant::Nobody,
            owner if owner == thread_token() => Occupant::ThisThread,
            _ => Occupant::Another,
        }
    }

    /// Whether any thread is inside.
    #[cfg(test)]
    pub fn is_busy(&self) -> bool {
        owner_of(self.state.load(Ordering::Acquire)) != 0
    }

    /// Whether the calling thread is inside.
    #[cfg(test)]
    pub fn owner_is_me(&self) -> bool {
        owner_of(self.state.load(Ordering::Relaxed)) == thread_token()
    }

    #[inline]
    fn take(&self, me: u64) -> bool {
        self.state.compare_exchange(0, me << OWNER_SHIFT, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn held(&self, me: u64) -> Held<'_, T> {
        Held { turn: self, me, stays_on_thread: PhantomData }
    }

    /// Names the turn in the table. Whoever waits borrows the turn, so it stays where it is.
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    #[cold]
    fn enter_slowly(&self, me: u64, deadline: Option<Instant>) -> Result<Held<'_, T>, Refused> {
        let mut waits = WAITS.lock();
        let wake = loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & FREED != 0 {
                return Err(Refused::Freed);
            }
            let owner = owner_of(state);
            if owner == 0 {
                if self.take(me) {
                    return Ok(self.held(me));
                }
                continue;
            }
            // A thread that a fork left behind never leaves.
            if is_gone(owner) || waits.leads_to(owner, me) {
                return Err(Refused::Busy);
            }
            if self.change(state, state | WAITERS) {
                break waits.join(self.key(), owner, me);
            }
        };
        while waits.is_waiting(me) {
            if deadline.is_some_and(|at| Instant::now() >= at) {
                if waits.give_up(self.key(), me) {
                    self.state.fetch_and(!WAITERS, Ordering::Relaxed);
                }
                return Err(Refused::TimedOut);
            }
            waits = wake.wait_until(waits, deadline);
        }
        if owner_of(self.state.load(Ordering::Acquire)) == me { Ok(self.held(me)) } else { Err(Refused::Freed) }
    }

    #[inline]
    fn leave(&self, me: u64) {
        if self.state.compare_exchange(me << OWNER_SHIFT, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.leave_slowly();
        }
    }

    #[cold]
    fn leave_slowly(&self) {
        if self.pass_on() == Next::Retire {
            (self.retire)(self.raw);
        }
    }

    fn pass_on(&self) -> Next {
        let mut waits = WAITS.lock();
        loop {
            let state = self.state.load(Ordering::Relaxed);
            if state & FREED != 0 {
                // Only `free` changes the state now, and only to what it is already.
                self.state.store(FREED, Ordering::Release);
                waits.dismiss(self.key());
                return Next::Retire;
            }
            let handed_over = waits.first(self.key()).map_or(0, |(thread, more)| {
                let waiters = if more { WAITERS } else { 0 };
                thread << OWNER_SHIFT | waiters
            });
            if self.change(state, handed_over) {
                waits.hand_over(self.key());
                return Next::Thread;
            }
        }
    }

    fn change(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// Whose business the plug-in is after a thread left it.
#[derive(PartialEq, Eq)]
enum Next {
    /// The next thread's, whether it waits already or comes later.
    Thread,
    /// The leaving thread's: it was the last one.
    Retire,
}

/// The turn, held by this thread. Dropping it leaves, also while a panic unwinds.
pub struct Held<'a, T> {
    turn: &'a Turn<T>,
    me: u64,
    /// Not `Send`: the turn belongs to the thread whose token it bears.
    stays_on_thread: PhantomData<*const ()>,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the only `Held` of its turn, and it is borrowed as long as the reference lives.
        unsafe { &*self.turn.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only `Held` of its turn, and it is borrowed mutably as long as the reference lives.
        unsafe { &mut *self.turn.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.turn.leave(self.me);
    }
}

fn owner_of(state: u64) -> u64 {
    state >> OWNER_SHIFT
}

#[cfg(test)]
mod tests;
