//! Who waits for whose turn, in the whole process.
//!
//! Only threads that find somebody else inside come here, and those that leave while others wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{FIRST_ALIVE, FORKED, NEXT, thread_token};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// All waits of the process.
pub(super) static WAITS: Mutex<Waits> = Mutex::new(Waits { queues: BTreeMap::new(), waiting: BTreeMap::new() });

/// Turns go by their address, threads by their token.
pub(super) struct Waits {
    /// The turns that somebody waits for.
    queues: BTreeMap<usize, Queue>,
    /// What each waiting thread waits for. Taking a thread out of here is what ends its wait.
    waiting: BTreeMap<u64, usize>,
}

/// The waits, held across a fork.
pub(crate) struct Held(MutexGuard<'static, Waits>);

/// Keeps the waits as they are.
pub(crate) fn hold() -> Held {
    Held(WAITS.lock())
}

impl Held {
    /// In the child of a fork: the threads that waited are gone, and so are those that they waited for.
    pub fn forget_parent(&mut self) {
        self.0.queues.clear();
        self.0.waiting.clear();
        FORKED.store(thread_token(), Ordering::Relaxed);
        FIRST_ALIVE.store(NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

struct Queue {
    owner: u64,
    line: VecDeque<Waiter>,
}

struct Waiter {
    thread: u64,
    wake: Arc<Condvar>,
}

impl Waits {
    pub fn is_waiting(&self, thread: u64) -> bool {
        self.waiting.contains_key(&thread)
    }

    /// Whether `owner` is `thread`, or waits for it, directly or through others. The walk ends because a wait that
    /// would close a circle never gets into the table.
    pub fn leads_to(&self, mut owner: u64, thread: u64) -> bool {
        while owner != thread {
            match self.waiting.get(&owner).and_then(|turn| self.queues.get(turn)) {
                Some(queue) => owner = queue.owner,
                None => return false,
            }
        }
        true
    }

    /// Puts the thread at the end of the queue; what is returned wakes it up.
    pub fn join(&mut self, turn: usize, owner: u64, thread: u64) -> Arc<Condvar> {
        let wake = Arc::new(Condvar::new());
        let queue = self.queues.entry(turn).or_insert_with(|| Queue { owner, line: VecDeque::new() });
        queue.line.push_back(Waiter { thread, wake: Arc::clone(&wake) });
        self.waiting.insert(thread, turn);
        wake
    }

    /// Takes the thread out of the queue; returns whether the queue is gone with it.
    pub fn give_up(&mut self, turn: usize, thread: u64) -> bool {
        self.waiting.remove(&thread);
        if let Some(queue) = self.queues.get_mut(&turn) {
            queue.line.retain(|waiter| waiter.thread != thread);
            if !queue.line.is_empty() {
                return false;
            }
        }
        self.queues.remove(&turn);
        true
    }

    /// The first in the queue, and whether others stand behind it.
    pub fn first(&self, turn: usize) -> Option<(u64, bool)> {
        let line = &self.queues.get(&turn)?.line;
        line.front().map(|first| (first.thread, line.len() > 1))
    }

    /// Ends the wait of the first in the queue, which has the turn now.
    pub fn hand_over(&mut self, turn: usize) {
        let Some(queue) = self.queues.get_mut(&turn) else {
            return;
        };
        if let Some(first) = queue.line.pop_front() {
            queue.owner = first.thread;
            self.waiting.remove(&first.thread);
            first.wake.notify_one();
        }
        if queue.line.is_empty() {
            self.queues.remove(&turn);
        }
    }

    /// Ends all waits for a turn that will not come.
    pub fn dismiss(&mut self, turn: usize) {
        let Some(queue) = self.queues.remove(&turn) else {
            return;
        };
        for waiter in queue.line {
            self.waiting.remove(&waiter.thread);
            waiter.wake.notify_one();
        }
    }

    /// How many threads wait for the turn, as the queue and as the threads have it.
    #[cfg(test)]
    pub fn count(&self, turn: usize) -> (usize, usize) {
        let queued = self.queues.get(&turn).map_or(0, |queue| queue.line.len());
        (queued, self.waiting.values().filter(|waited_for| **waited_for == turn).count())
    }
}
