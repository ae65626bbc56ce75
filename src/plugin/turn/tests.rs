use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use crate::sync::Mutex;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// How often each number was retired.
static RETIRED: Mutex<Option<HashMap<u64, usize>>> = Mutex::new(None);

fn note_retired(raw: u64) {
    *RETIRED.lock().get_or_insert_default().entry(raw).or_default() += 1;
}

fn times_retired(raw: u64) -> usize {
    RETIRED.lock().as_ref().and_then(|all| all.get(&raw)).copied().unwrap_or(0)
}

fn new_turn<T>(value: T) -> Turn<T> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Turn::new(value, NEXT.fetch_add(1, Ordering::Relaxed), note_retired)
}

/// Fails the test instead of hanging it.
fn within<R: Send + 'static>(limit: Duration, body: impl FnOnce() -> R + Send + 'static) -> R {
    let (send, receive) = mpsc::channel();
    let thread = thread::spawn(move || send.send(body()));
    match receive.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn waiters_of<T>(turn: &Turn<T>) -> usize {
    WAITS.lock().count(turn.key()).0
}

fn no_trace_of<T>(turn: &Turn<T>) -> bool {
    WAITS.lock().count(turn.key()) == (0, 0)
}

#[test]
fn one_thread_enters_and_leaves() {
    let turn = new_turn(0);
    for _ in 0..3 {
        assert!(!turn.is_busy() && !turn.owner_is_me());
        let mut held = turn.enter(None).unwrap();
        *held += 1;
        assert!(turn.is_busy() && turn.owner_is_me());
        assert_eq!(turn.enter(None).err(), Some(Refused::Busy));
        assert_eq!(turn.try_enter().err(), Some(Refused::Busy));
    }
    assert_eq!(*turn.try_enter().unwrap(), 3);
}

#[test]
fn tokens_are_unique() {
    let mine = thread_token();
    assert_eq!(mine, thread_token());
    assert_ne!(mine, 0);
    assert_ne!(mine, thread::spawn(thread_token).join().unwrap());
}

#[test]
fn a_panic_leaves() {
    let turn = new_turn(());
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _held = turn.enter(None).unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(result.is_err());
    assert!(turn.try_enter().is_ok());
}

#[test]
fn those_who_wait_come_in_order() {
    within(LONG, || {
        let turn = new_turn(Vec::new());
        thread::scope(|scope| {
            let held = turn.enter(None).unwrap();
            for number in 0..6 {
                let turn = &turn;
                scope.spawn(move || turn.enter(None).unwrap().push(number));
                wait_until(|| waiters_of(turn) == number + 1);
            }
            assert_eq!(turn.try_enter().err(), Some(Refused::Busy));
            drop(held);
        });
        assert_eq!(*turn.enter(None).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(no_trace_of(&turn));
    });
}

#[test]
fn a_hammering_thread_starves_nobody() {
    within(LONG, || {
        let turn = new_turn(());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(turn.enter(None).unwrap());
                }
            });
            for _ in 0..200 {
                drop(turn.enter(None).unwrap());
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_wait_ends_at_its_deadline_and_leaves_no_trace() {
    within(LONG, || {
        let turn = new_turn(());
        let held = turn.enter(None).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                let deadline = start + Duration::from_millis(20);
                assert_eq!(turn.enter(Some(deadline)).err(), Some(Refused::TimedOut));
                assert!(start.elapsed() >= Duration::from_millis(20));
                assert_eq!(turn.enter(Some(start)).err(), Some(Refused::TimedOut), "a deadline in the past");
            });
        });
        assert!(no_trace_of(&turn));
        assert_eq!(turn.state.load(Ordering::Relaxed) & WAITERS, 0);
        drop(held);
        let past = Instant::now() - Duration::from_millis(1);
        assert!(turn.enter(Some(past)).is_ok(), "no wait, no deadline");
    });
}

#[test]
fn a_waiter_that_gives_up_does_not_take_the_others_along() {
    within(LONG, || {
        let turn = new_turn(());
        thread::scope(|scope| {
            let held = turn.enter(None).unwrap();
            let soon = Instant::now() + Duration::from_millis(50);
            let turn = &turn;
            let impatient = scope.spawn(move || turn.enter(Some(soon)).map(drop));
            wait_until(|| waiters_of(turn) == 1);
            let patient = scope.spawn(|| turn.enter(None).map(drop));
            assert_eq!(impatient.join().unwrap(), Err(Refused::TimedOut));
            wait_until(|| waiters_of(turn) == 1);
            drop(held);
            assert_eq!(patient.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn a_circle_of_two_is_refused() {
    within(LONG, || circle_of(2));
}

#[test]
fn a_circle_of_five_is_refused() {
    within(LONG, || circle_of(5));
}

/// Thread n is inside turn n and waits for turn n + 1. The last wait would close the circle: it is refused, its
/// thread leaves, and all others get what they wait for.
fn circle_of(length: usize) {
    let turns: Vec<_> = (0..length).map(|_| new_turn(())).collect();
    let inside = Barrier::new(length);
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..length {
            let (turns, inside, refused) = (&turns, &inside, &refused);
            scope.spawn(move || {
                let _own = turns[number].enter(None).unwrap();
                inside.wait();
                match turns[(number + 1) % length].enter(None) {
                    Ok(_) => {}
                    Err(why) => {
                        assert_eq!(why, Refused::Busy);
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    // No second one: when the circle closes, all others wait already.
    assert_eq!(refused.into_inner(), 1);
}

#[test]
fn waiting_for_one_who_waits_elsewhere_is_no_circle() {
    within(LONG, || {
        let (a, b) = (new_turn(()), new_turn(()));
        thread::scope(|scope| {
            let inside_a = a.enter(None).unwrap();
            let in_b_for_a = scope.spawn(|| {
                let _b = b.enter(None).unwrap();
                a.enter(None).map(drop)
            });
            wait_until(|| waiters_of(&a) == 1);
            let for_b = scope.spawn(|| b.enter(None).map(drop));
            wait_until(|| waiters_of(&b) == 1);
            assert_eq!(b.enter(None).err(), Some(Refused::Busy));
            drop(inside_a);
            assert_eq!(in_b_for_a.join().unwrap(), Ok(()));
            assert_eq!(for_b.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn the_owner_in_the_table_follows_the_hand_over() {
    within(LONG, || {
        let (a, b) = (new_turn(()), new_turn(()));
        let go = Barrier::new(2);
        thread::scope(|scope| {
            let inside_a = a.enter(None).unwrap();
            let first = scope.spawn(|| {
                let _a = a.enter(None).unwrap();
                go.wait();
                b.enter(None).map(drop)
            });
            wait_until(|| waiters_of(&a) == 1);
            let second = scope.spawn(|| {
                let _b = b.enter(None).unwrap();
                a.enter(None).map(drop)
            });
            wait_until(|| waiters_of(&a) == 2);
            drop(inside_a);
            wait_until(|| !a.owner_is_me() && waiters_of(&a) == 1);
            go.wait();
            assert_eq!(first.join().unwrap(), Err(Refused::Busy), "second waits for first");
            assert_eq!(second.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn free_of_an_idle_plugin_retires_it_at_once() {
    let turn = new_turn(());
    assert!(turn.free());
    assert_eq!(times_retired(turn.raw), 1);
    assert!(!turn.free());
    assert_eq!(turn.enter(None).err(), Some(Refused::Freed));
    assert_eq!(turn.try_enter().err(), Some(Refused::Freed));
    assert!(turn.is_freed() && !turn.is_busy());
    assert_eq!(times_retired(turn.raw), 1);
}

#[test]
fn free_during_a_call_leaves_retiring_to_the_call() {
    let turn = new_turn(1);
    let held = turn.enter(None).unwrap();
    assert!(turn.free());
    assert!(!turn.free());
    assert!(turn.is_freed() && turn.is_busy() && turn.owner_is_me());
    assert_eq!(times_retired(turn.raw), 0);
    assert_eq!(*held, 1);
    drop(held);
    assert_eq!(times_retired(turn.raw), 1);
    assert!(!turn.free() && !turn.is_busy());
}

#[test]
fn free_refuses_those_who_wait() {
    within(LONG, || {
        let turn = new_turn(());
        thread::scope(|scope| {
            let held = turn.enter(None).unwrap();
            let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| turn.enter(None).map(drop))).collect();
            wait_until(|| waiters_of(&turn) == 4);
            assert!(turn.free());
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Err(Refused::Freed));
            }
            assert_eq!(times_retired(turn.raw), 0);
            drop(held);
        });
        assert_eq!(times_retired(turn.raw), 1);
        assert!(no_trace_of(&turn));
    });
}

#[test]
fn exactly_one_party_retires() {
    within(LONG, || {
        for round in 0..2000 {
            let turn = new_turn(());
            let start = Barrier::new(4);
            let freed = AtomicUsize::new(0);
            thread::scope(|scope| {
                for role in 0..4 {
                    let (turn, start, freed) = (&turn, &start, &freed);
                    scope.spawn(move || {
                        start.wait();
                        if role < 2 {
                            for _ in 0..round % 5 {
                                let inside = turn.enter(None);
                                assert!(inside.is_err() || times_retired(turn.raw) == 0, "retired under a call");
                            }
                        } else {
                            freed.fetch_add(usize::from(turn.free()), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(freed.into_inner(), 1);
            assert_eq!(times_retired(turn.raw), 1);
            assert!(no_trace_of(&turn));
        }
    });
}

/// A plug-in of the stress test: `inside` is what mutual exclusion means, `entries` is guarded by nothing else.
struct Probe {
    turn: Turn<u64>,
    inside: AtomicU64,
    entered: AtomicU64,
}

#[test]
fn random_nesting_neither_hangs_nor_overlaps() {
    const THREADS: u64 = 8;
    const STEPS: u64 = 1500;
    within(2 * LONG, || {
        let probes: Vec<_> = (0..5)
            .map(|_| Probe { turn: new_turn(0), inside: AtomicU64::new(0), entered: AtomicU64::new(0) })
            .collect();
        thread::scope(|scope| {
            for seed in 1..=THREADS {
                let probes = &probes;
                scope.spawn(move || {
                    let mut random = Random(seed);
                    for _ in 0..STEPS {
                        nest(probes, &mut random, 0);
                    }
                });
            }
        });
        for probe in &probes {
            assert!(no_trace_of(&probe.turn));
            assert_eq!(probe.turn.state.load(Ordering::Relaxed), 0);
            assert_eq!(*probe.turn.enter(None).unwrap(), probe.entered.load(Ordering::Relaxed));
        }
    });
}

fn nest(probes: &[Probe], random: &mut Random, depth: u32) {
    let probe = &probes[random.below(probes.len() as u64) as usize];
    let mine = probe.turn.owner_is_me();
    let result = match random.below(8) {
        0 => probe.turn.try_enter(),
        1..=3 => probe.turn.enter(Some(Instant::now() + Duration::from_micros(random.below(300)))),
        _ => probe.turn.enter(None),
    };
    let Ok(mut held) = result else { return };
    assert!(!mine, "entered twice");
    assert_eq!(probe.inside.swap(thread_token(), Ordering::Relaxed), 0, "two inside");
    *held += 1;
    probe.entered.fetch_add(1, Ordering::Relaxed);
    if random.below(4) == 0 {
        thread::yield_now();
    }
    for _ in 0..random.below(3) {
        if depth < 4 {
            nest(probes, random, depth + 1);
        }
    }
    assert_eq!(probe.inside.swap(0, Ordering::Relaxed), thread_token(), "two inside");
}

struct Random(u64);

impl Random {
    /// xorshift: good enough to mix threads up, and the same in every run.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}
