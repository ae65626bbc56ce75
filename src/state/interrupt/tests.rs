use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;

use super::*;

fn soon(milliseconds: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(milliseconds))
}

#[test]
fn time_goes_there_and_back() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    assert_eq!(from_ns(to_ns(later)), Some(later));
    assert_eq!(from_ns(NEVER), None);
    assert!(now_ns() <= now_ns());
    if let Some(before_the_zero) = START.checked_sub(Duration::from_nanos(1)) {
        assert_eq!(to_ns(before_the_zero), 0);
    }
    if let Some(far) = now.checked_add(Duration::from_secs(u64::from(u32::MAX) * 1000)) {
        assert_eq!(to_ns(far), NEVER - 1);
    }
}

#[test]
fn a_call_without_deadline_goes_on() {
    let interrupt = Interrupt::new();
    assert_eq!(interrupt.check(), Ok(()));
    assert_eq!(interrupt.begin(None), NEVER);
    assert_eq!(interrupt.check(), Ok(()));
    assert_eq!((interrupt.deadline(), interrupt.due()), (None, None));
    interrupt.end();
    assert_eq!(interrupt.check(), Ok(()));
}

#[test]
fn a_deadline_stops_its_call_only() {
    let interrupt = Interrupt::new();
    now_ns();
    let past = Instant::now();
    let at = interrupt.begin(Some(past));
    assert_eq!(interrupt.check(), Err(Stopped::Timeout));
    assert_eq!(interrupt.deadline(), Some(past));
    assert_eq!(interrupt.due(), Some(Due { call: 1, at }));
    interrupt.end();
    assert_eq!((interrupt.check(), interrupt.deadline(), interrupt.due()), (Ok(()), None, None));
    let next = soon(60_000);
    interrupt.begin(next);
    assert_eq!((interrupt.check(), interrupt.deadline()), (Ok(()), next));
    assert_eq!(interrupt.due().unwrap().call, 3);
    interrupt.end();
    interrupt.begin(None);
    assert_eq!(interrupt.check(), Ok(()));
}

#[test]
fn a_cancel_stops_the_call_in_progress_only() {
    let interrupt = Interrupt::new();
    assert!(!interrupt.cancel());
    interrupt.begin(None);
    assert_eq!(interrupt.check(), Ok(()), "cancelled before it began");
    assert!(interrupt.cancel());
    assert!(interrupt.cancel());
    assert_eq!(interrupt.check(), Err(Stopped::Cancelled));
    assert_eq!(interrupt.due(), Some(Due { call: 1, at: 0 }));
    interrupt.end();
    assert_eq!(interrupt.check(), Ok(()));
    assert!(!interrupt.cancel());
    interrupt.begin(None);
    assert_eq!(interrupt.check(), Ok(()));
}

#[test]
fn a_late_cancel_neither_hits_nor_hides() {
    let interrupt = Interrupt::new();
    interrupt.begin(None);
    interrupt.end();
    interrupt.begin(None);
    // What a thread does that was about to cancel call 1 and comes to it only now.
    interrupt.cancelled.fetch_max(1, Ordering::SeqCst);
    assert_eq!(interrupt.check(), Ok(()));
    assert!(interrupt.cancel());
    interrupt.cancelled.fetch_max(1, Ordering::SeqCst);
    assert_eq!(interrupt.check(), Err(Stopped::Cancelled));
}

#[test]
fn sleep_ends_in_time_or_with_the_call() {
    let interrupt = Interrupt::new();
    let start = Instant::now();
    assert_eq!(interrupt.sleep_until(soon(10)), Ok(()), "outside of a call");
    interrupt.begin(soon(60_000));
    assert_eq!(interrupt.sleep_until(Some(start)), Ok(()));
    assert_eq!(interrupt.sleep_until(soon(10)), Ok(()));
    assert!(start.elapsed() >= Duration::from_millis(20));
    interrupt.end();
    interrupt.begin(soon(10));
    assert_eq!(interrupt.sleep_until(None), Err(Stopped::Timeout));
    assert_eq!(interrupt.sleep_until(soon(60_000)), Err(Stopped::Timeout));
}

#[test]
fn a_cancel_ends_a_sleep() {
    let interrupt = Interrupt::new();
    let asleep = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            interrupt.begin(soon(60_000));
            asleep.store(true, Ordering::Release);
            assert_eq!(interrupt.sleep_until(None), Err(Stopped::Cancelled));
        });
        while !asleep.load(Ordering::Acquire) {
            thread::yield_now();
        }
        assert!(interrupt.cancel());
    });
}

#[test]
fn a_result_wins_over_all_that_ends_a_wait() {
    let interrupt = Interrupt::new();
    let past = Some(Instant::now());
    interrupt.begin(past);
    assert_eq!(interrupt.wait_for(past, || Some(7)), Ok(7));
    assert_eq!(interrupt.wait_for(past, || None::<()>), Err(Woken::Stopped(Stopped::Timeout)));
    interrupt.end();
    interrupt.begin(None);
    assert_eq!(interrupt.wait_for(past, || None::<()>), Err(Woken::Limit));
    assert_eq!(interrupt.wait_for(soon(5), || None::<()>), Err(Woken::Limit));
}

#[test]
fn no_wake_is_lost() {
    const ROUNDS: u32 = 20_000;
    let interrupt = Interrupt::new();
    let (there, back) = (AtomicU32::new(0), AtomicU32::new(0));
    let next = |cell: &AtomicU32, wanted| (cell.load(Ordering::Relaxed) == wanted).then_some(());
    let limit = soon(60_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                interrupt.wait_for(limit, || next(&there, round)).unwrap();
                back.store(round, Ordering::Relaxed);
                interrupt.wake();
            }
        });
        for round in 1..=ROUNDS {
            there.store(round, Ordering::Relaxed);
            interrupt.wake();
            interrupt.wait_for(limit, || next(&back, round)).unwrap();
        }
    });
}

/// Each call sleeps until it is cancelled, each cancel names the call that it means: every call ends, and none by a
/// cancel that came before it had begun.
#[test]
fn cancels_from_many_threads_hit_running_calls_only() {
    const CALLS: u64 = 3000;
    let interrupt = Interrupt::new();
    let begun = AtomicU64::new(0);
    let wished = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while wished.load(Ordering::Acquire) <= CALLS {
                    let call = begun.load(Ordering::SeqCst);
                    if call > wished.load(Ordering::Acquire) {
                        wished.fetch_max(call, Ordering::SeqCst);
                        interrupt.cancel();
                    }
                    thread::yield_now();
                }
            });
        }
        for call in 1..=CALLS {
            interrupt.begin(soon(60_000));
            let before = wished.load(Ordering::SeqCst);
            assert!(interrupt.check().is_ok() || before >= call, "cancelled by nobody");
            begun.store(call, Ordering::SeqCst);
            assert_eq!(interrupt.sleep_until(None), Err(Stopped::Cancelled));
            interrupt.end();
        }
        wished.store(u64::MAX, Ordering::Release);
    });
}
