//! Requests run on threads of their own, so that whoever waits for one can leave at once.
//!
//! Looking a name up and connecting can't be interrupted. The thread that is left behind ends by its own bound in
//! time, its connections are closed under it, and it holds nothing of the plug-in but [`Interrupt`] and
//! [`Policy`]: the body of its request is taken from it. How many may be left behind at a time is bounded, for a policy
//! and for the process; those that are waited for are as many as threads of the host wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Agent;

use super::policy::Policy;
use super::request::Request;
use super::{Failure, Response, exchange};
use crate::background;
use crate::error::{Error, Result};
use crate::state::interrupt::{Interrupt, Woken};

/// Threads that may be left behind by the plug-ins of one policy.
const MAX_OF_POLICY: u32 = 32;

/// Threads that may be left behind in the process.
const MAX_OF_PROCESS: u32 = 256;

/// The worker's own bound lies behind that of the waiting thread, which so has the word on what happened.
const SLACK: Duration = Duration::from_secs(1);

static OF_PROCESS: Leftovers = Leftovers(AtomicU64::new(0));

/// Runs a request until it has an answer or failed, the call must end, or, for a call without deadline, the time
/// `within` is over.
pub(super) fn run(
    request: Request,
    policy: &Arc<Policy>,
    interrupt: &Arc<Interrupt>,
    within: Duration,
) -> Result<Response, Failure> {
    interrupt.check().map_err(Failure::Stopped)?;
    if OF_PROCESS.count() >= MAX_OF_PROCESS || policy.leftovers.count() >= MAX_OF_POLICY {
        return Err(Failure::Error(Error::new(
            "HTTP: too many earlier requests that were given up on have not ended yet; try again later",
        )));
    }
    let (description, body) = (request.describe(), request.body.clone());
    let limit = Instant::now() + within;
    let ends = interrupt.deadline().unwrap_or(limit) + SLACK;
    let worker = Worker {
        client: exchange::client(policy),
        policy: Arc::clone(policy),
        interrupt: Arc::clone(interrupt),
        slot: Arc::new(Mutex::new(Slot::Open)),
    };
    let (client, slot) = (worker.client.clone(), Arc::clone(&worker.slot));
    let thread = thread::Builder::new().name("extism-http".to_owned());
    background::start(thread, move || worker.run(request, ends)).map_err(|error| {
        Failure::Error(Error::new(format!("{description}: no thread could be started for it: {error}")))
    })?;
    let limit = if interrupt.deadline().is_none() { Some(limit) } else { None };
    let woken = match interrupt.wait_for(limit, || take(&slot)) {
        Ok(result) => return result.map_err(Failure::Error),
        Err(woken) => woken,
    };
    if let Some(result) = abandon(&slot, policy) {
        return result.map_err(Failure::Error);
    }
    client.shutdown();
    body.give_up();
    Err(match woken {
        Woken::Stopped(stopped) => Failure::Stopped(stopped),
        Woken::Limit => Failure::Error(Error::new(format!("{description}: no answer within {within:?}"))),
    })
}

/// What a worker and the thread that waits for it share.
enum Slot {
    /// The worker works, and somebody waits.
    Open,
    /// The worker has a result.
    Done(Result<Response>),
    /// Nobody waits any more.
    Left,
}

struct Worker {
    client: Agent,
    policy: Arc<Policy>,
    interrupt: Arc<Interrupt>,
    slot: Arc<Mutex<Slot>>,
}

impl Worker {
    fn run(self, request: Request, ends: Instant) {
        let work = || exchange::run(&self.client, &self.policy, request, ends);
        let result = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(Error::new("HTTP: the client panicked; this is a bug of the library")));
        let mut slot = lock(&self.slot);
        if let Slot::Left = *slot {
            OF_PROCESS.remove();
            self.policy.leftovers.remove();
            return;
        }
        *slot = Slot::Done(result);
        drop(slot);
        self.interrupt.wake();
    }
}

/// The worker's result, if it has one.
fn take(slot: &Mutex<Slot>) -> Option<Result<Response>> {
    let mut slot = lock(slot);
    match std::mem::replace(&mut *slot, Slot::Open) {
        Slot::Done(result) => Some(result),
        other => {
            *slot = other;
            None
        }
    }
}

/// Stops waiting, unless the result came at the last moment.
fn abandon(slot: &Mutex<Slot>, policy: &Policy) -> Option<Result<Response>> {
    let mut slot = lock(slot);
    if let Slot::Done(result) = std::mem::replace(&mut *slot, Slot::Left) {
        return Some(result);
    }
    OF_PROCESS.add();
    policy.leftovers.add();
    None
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts threads that were left behind. A forked child has none of its parent's threads, so the count is kept
/// with the process it is of: its number in the upper half, the count in the lower.
#[derive(Debug, Default)]
pub(super) struct Leftovers(AtomicU64);

impl Leftovers {
    pub(super) fn count(&self) -> u32 {
        count_in(self.0.load(Relaxed))
    }

    fn add(&self) {
        self.change(|count| count.saturating_add(1));
    }

    fn remove(&self) {
        self.change(|count| count.saturating_sub(1));
    }

    fn change(&self, change: impl Fn(u32) -> u32) {
        let next = |packed| Some(mine() | u64::from(change(count_in(packed))));
        // It never declines, so there is no failure to look at.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }
}

/// The count that belongs to this process.
fn count_in(packed: u64) -> u32 {
    // The lower half is the count: no bits are lost.
    if packed & !u64::from(u32::MAX) == mine() { (packed & u64::from(u32::MAX)) as u32 } else { 0 }
}

fn mine() -> u64 {
    u64::from(std::process::id()) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_counted_for_this_process() {
        let leftovers = Leftovers::default();
        leftovers.add();
        leftovers.add();
        assert_eq!(leftovers.count(), 2);
        leftovers.remove();
        assert_eq!(leftovers.count(), 1);
        leftovers.remove();
        leftovers.remove();
        assert_eq!(leftovers.count(), 0);
        let of_parent = Leftovers(AtomicU64::new((mine() ^ (1 << 32)) | 7));
        assert_eq!(of_parent.count(), 0);
        of_parent.add();
        assert_eq!(of_parent.count(), 1);
    }

    #[test]
    fn too_many_are_refused() {
        let policy = Arc::new(Policy::new(Some(&["*".to_owned()]), None).unwrap());
        (0..MAX_OF_POLICY).for_each(|_| policy.leftovers.add());
        let request = super::super::parse_request(br#"{"url":"http://127.0.0.1:1/"}"#, None).unwrap();
        let failed = run(request, &policy, &Arc::new(Interrupt::new()), SLACK);
        let Err(Failure::Error(error)) = failed else { panic!("{failed:?}") };
        assert!(error.to_string().contains("too many earlier requests"), "{error}");
    }
}
