//! What ends a call early: its deadline, or a cancel from another thread.
//!
//! One [`Interrupt`] belongs to a plug-in and is shared by the thread that calls it, those that cancel it, the
//! watchdog and workers that the call waits for. The calling thread marks calls with [`Interrupt::begin`] and
//! [`Interrupt::end`], a few plain stores. Guest code and guest functions ask [`Interrupt::check`]; whatever blocks
//! does it in [`Interrupt::sleep_until`] or [`Interrupt::wait_for`], which end with the call.
//!
//! Calls have numbers: odd while a call runs, even between two calls. A cancel notes the number that it saw. So
//! one that comes late belongs to a call that is over, and never reaches the next.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex};

/// A time that does not come, in nanoseconds of [`now_ns`].
pub const NEVER: u64 = u64::MAX;

/// The zero of [`now_ns`].
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time, in nanoseconds since this process first asked.
pub fn now_ns() -> u64 {
    to_ns(Instant::now())
}

/// The moment of this count of nanoseconds; `None` for [`NEVER`].
pub fn from_ns(at: u64) -> Option<Instant> {
    if at == NEVER { None } else { START.checked_add(Duration::from_nanos(at)) }
}

/// Moments before the zero count as zero, and those 584 years after it as the last one before [`NEVER`].
fn to_ns(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*START);
    since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos())).min(NEVER - 1)
}

/// Why a call must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its deadline has passed.
    Timeout,
    /// It was cancelled.
    Cancelled,
}

impl Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        })
    }
}

impl std::error::Error for Stopped {}

/// Why a wait for a worker ended without its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The call must end.
    Stopped(Stopped),
    /// The wait's own limit has passed.
    Limit,
}

/// A call that must end some time, as the watchdog sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Tells calls of one plug-in apart.
    pub call: u64,
    /// When it must end, in nanoseconds of [`now_ns`]; 0 if it was cancelled.
    pub at: u64,
}

/// The deadline and the cancel flag of one plug-in's calls.
pub struct Interrupt {
    /// Odd while a call runs.
    call: AtomicU64,
    /// The last call that was cancelled.
    cancelled: AtomicU64,
    /// Of the running call, in nanoseconds.
    deadline: AtomicU64,
    /// Counts what a blocked call might want to look at: results of workers, and cancels.
    events: Mutex<u64>,
    event: Condvar,
}

impl Interrupt {
    /// No call runs.
    pub const fn new() -> Self {
        Self {
            call: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            deadline: AtomicU64::new(NEVER),
            events: Mutex::new(0),
            event: Condvar::new(),
        }
    }

    /// A call begins; only the thread that has the plug-in's turn may say so. Returns the deadline in nanoseconds.
    #[inline]
    pub fn begin(&self, deadline: Option<Instant>) -> u64 {
        let call = self.call.load(Ordering::Relaxed) | 1;
        match deadline {
            None => {
                self.call.store(call, Ordering::Release);
                NEVER
            }
            Some(at) => {
                let at = to_ns(at);
                self.deadline.store(at, Ordering::Relaxed);
                // In one order with the watchdog's announcements: see there.
                self.call.store(call, Ordering::SeqCst);
                at
            }
        }
    }

    /// The call is over.
    #[inline]
    pub fn end(&self) {
        let call = self.call.load(Ordering::Relaxed);
        self.deadline.store(NEVER, Ordering::Relaxed);
        self.call.store(call + (call & 1), Ordering::Release);
    }

    /// Cancels the call in progress, and no other. Returns whether there was one.
    ///
    /// This alone ends waits; guest code asks [`Interrupt::check`] only when it is told to.
    pub fn cancel(&self) -> bool {
        let call = self.call.load(Ordering::Acquire);
        if call & 1 == 0 {
            return false;
        }
        // The greatest: a slow thread that cancels an older call must not undo this.
        self.cancelled.fetch_max(call, Ordering::SeqCst);
        self.wake();
        true
    }

    /// Whether the call in progress may go on.
    ///
    /// # Errors
    ///
    /// When it must end.
    #[inline]
    pub fn check(&self) -> Result<(), Stopped> {
        // Between two calls this compares with the next one, which nobody can have cancelled.
        if self.cancelled.load(Ordering::Acquire) == self.call.load(Ordering::Relaxed) | 1 {
            return Err(Stopped::Cancelled);
        }
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline != NEVER && now_ns() >= deadline { Err(Stopped::Timeout) } else { Ok(()) }
    }

    /// When the call in progress must end, if it must.
    pub fn deadline(&self) -> Option<Instant> {
        from_ns(self.deadline.load(Ordering::Relaxed))
    }

    /// The call in progress, if it must end some time.
    pub fn due(&self) -> Option<Due> {
        let call = self.call.load(Ordering::SeqCst);
        if call & 1 == 0 {
            return None;
        }
        let cancelled = self.cancelled.load(Ordering::Acquire) == call;
        let at = if cancelled { 0 } else { self.deadline.load(Ordering::Relaxed) };
        (at != NEVER).then_some(Due { call, at })
    }

    /// Blocks the calling thread until then (for ever, if `None`) or until the call must end.
    ///
    /// # Errors
    ///
    /// When the call must end.
    pub fn sleep_until(&self, until: Option<Instant>) -> Result<(), Stopped> {
        match self.wait_for(until, || None::<Infallible>) {
            Ok(never) => match never {},
            Err(Woken::Limit) => Ok(()),
            Err(Woken::Stopped(why)) => Err(why),
        }
    }

    /// Blocks the calling thread until `poll` gives a result, which it is asked for at once and after each
    /// [`Interrupt::wake`], under no lock.
    ///
    /// # Errors
    ///
    /// When the call must end, or `limit` has passed. A result that is there wins over both.
    pub fn wait_for<R>(&self, limit: Option<Instant>, mut poll: impl FnMut() -> Option<R>) -> Result<R, Woken> {
        loop {
            let seen = *self.events.lock();
            if let Some(result) = poll() {
                return Ok(result);
            }
            self.check().map_err(Woken::Stopped)?;
            if limit.is_some_and(|limit| Instant::now() >= limit) {
                return Err(Woken::Limit);
            }
            self.wait_for_event(seen, earliest(limit, self.deadline()));
        }
    }

    /// Makes a blocked call look again; for workers, after they published a result.
    pub fn wake(&self) {
        let mut events = self.events.lock();
        *events = events.wrapping_add(1);
        self.event.notify_all();
    }

    /// The lock that a fork takes.
    pub fn lock(&self) -> &Mutex<u64> {
        &self.events
    }

    fn wait_for_event(&self, seen: u64, until: Option<Instant>) {
        let mut events = self.events.lock();
        while *events == seen && until.is_none_or(|at| Instant::now() < at) {
            events = self.event.wait_until(events, until);
        }
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests;
