//! `poll_oneoff`: how guests sleep and wait for descriptors, and what ends a sleep.

use std::thread;
use std::time::{Duration, Instant};

use extism_tests::wasi::{
    BADF, EVENTS, FAULT, INVAL, MEMORY, MILLISECOND, MONOTONIC, NOMEM, READ, REALTIME, clock, descriptor,
};
use extism_tests::{Scratch, Setup, WasiGuest, slowdown, within};

/// Longer than any test may take.
const MINUTES: u64 = 600_000 * MILLISECOND;

fn took(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

#[test]
fn relative_clocks() {
    within(30, || {
        let guest = WasiGuest::plain();
        for id in [REALTIME, MONOTONIC] {
            let elapsed = took(|| assert_eq!(guest.poll(&[clock(7, id, 20 * MILLISECOND, 0)]), Ok(vec![(7, 0, 0)])));
            assert!(elapsed >= Duration::from_millis(20), "{elapsed:?}");
        }
        assert_eq!(guest.poll(&[clock(7, MONOTONIC, 0, 0)]), Ok(vec![(7, 0, 0)]));
    });
}

#[test]
fn absolute_clocks() {
    within(30, || {
        let guest = WasiGuest::plain();
        for id in [REALTIME, MONOTONIC] {
            let until = guest.now(id) + 20 * MILLISECOND;
            assert_eq!(guest.poll(&[clock(7, id, until, 1)]), Ok(vec![(7, 0, 0)]));
            assert!(guest.now(id) >= until);
            // What has passed is not waited for.
            assert_eq!(guest.poll(&[clock(8, id, until, 1), clock(9, id, MINUTES, 0)]), Ok(vec![(8, 0, 0)]));
        }
    });
}

#[test]
fn several_subscriptions() {
    within(30, || {
        let guest = WasiGuest::plain();
        let (soon, late) = (clock(1, MONOTONIC, 5 * MILLISECOND, 0), clock(2, MONOTONIC, MINUTES, 0));
        assert_eq!(guest.poll(&[late, soon]), Ok(vec![(1, 0, 0)]));
        let both = guest.poll(&[clock(1, REALTIME, 0, 0), clock(2, MONOTONIC, 0, 0)]);
        assert_eq!(both, Ok(vec![(1, 0, 0), (2, 0, 0)]));
        // Streams are ready; the clock is not waited for.
        let streams = guest.poll(&[late, descriptor(3, 1, 0), descriptor(4, 2, 1)]);
        assert_eq!(streams, Ok(vec![(3, 0, 1), (4, 0, 2)]));
        assert_eq!(guest.bytes(EVENTS + 16), 1u64.to_le_bytes());
    });
}

#[test]
fn descriptors() {
    within(30, || {
        let host = Scratch::new("descriptors");
        host.write("file", "text");
        let guest = WasiGuest::with_directory(host.path().to_str().expect("a path in UTF-8"));
        let file = guest.open("file", 0, READ).expect("a descriptor");
        assert_eq!(guest.poll(&[descriptor(1, 1, file)]), Ok(vec![(1, 0, 1)]));
        let not_ready = [
            ("unknown", descriptor(1, 1, 99)),
            ("a directory", descriptor(2, 1, 3)),
            ("to read standard output", descriptor(3, 1, 1)),
            ("to write standard input", descriptor(4, 2, 0)),
            ("to write what was opened for reading", descriptor(5, 2, file)),
            ("the last number", descriptor(6, 1, u32::MAX)),
            ("a clock, which is not waited for", clock(7, MONOTONIC, MINUTES, 0)),
        ];
        let events = guest.poll(&not_ready.map(|(_, subscription)| subscription)).expect("events");
        assert_eq!(events.len(), 6);
        for (index, (userdata, error, _)) in events.into_iter().enumerate() {
            assert_eq!((userdata, i32::from(error)), (index as u64 + 1, BADF), "{}", not_ready[index].0);
        }
    });
}

#[test]
fn what_does_not_exist() {
    within(30, || {
        let guest = WasiGuest::plain();
        for id in [2, 3, 4, u32::MAX] {
            assert_eq!(guest.poll(&[clock(1, id, 0, 0)]), Ok(vec![(1, INVAL as u16, 0)]), "clock {id}");
        }
        assert_eq!(guest.poll(&[clock(1, MONOTONIC, 0, 2)]), Err(INVAL));
        assert_eq!(guest.poll(&[descriptor(1, 3, 0)]), Err(INVAL));
        assert_eq!(guest.poll(&[clock(1, MONOTONIC, 0, 0), descriptor(1, 255, 0)]), Err(INVAL));
    });
}

#[test]
fn numbers_of_subscriptions() {
    within(30, || {
        let guest = WasiGuest::plain();
        assert_eq!(guest.poll(&[]), Err(INVAL));
        for count in [4097, 1 << 20, u32::MAX.into()] {
            assert_eq!(guest.call("sleep", &[0, 0, count, 0]), NOMEM, "{count}");
        }
        guest.put(0, vec![clock(1, MONOTONIC, 0, 0); 4096].as_flattened());
        // The events overlap the subscriptions.
        assert_eq!(guest.call("sleep", &[0, 16, 4096, MEMORY - 4]), 0);
        assert_eq!(guest.u32(MEMORY - 4), 4096);
    });
}

#[test]
fn pointers_out_of_bounds() {
    within(30, || {
        let guest = WasiGuest::plain();
        let last = u64::from(u32::MAX);
        for bad in [MEMORY - 31, MEMORY, last - 40, last] {
            assert_eq!(guest.call("sleep", &[bad, 0, 1, 0]), FAULT, "{bad}");
            assert_eq!(guest.call("sleep", &[0, bad, 1, 0]), FAULT, "{bad}");
        }
        for bad in [MEMORY - 3, MEMORY, last] {
            assert_eq!(guest.call("sleep", &[0, 64, 1, bad]), FAULT, "{bad}");
        }
        // The very end of memory, and no alignment.
        guest.put(MEMORY - 48, &clock(1, MONOTONIC, 0, 0));
        assert_eq!(guest.call("sleep", &[MEMORY - 48, MEMORY - 32, 1, 1]), 0);
        guest.put(1, &clock(1, MONOTONIC, 0, 0));
        assert_eq!(guest.call("sleep", &[1, 101, 1, MEMORY - 4]), 0);
    });
}

#[test]
fn a_module_without_memory_gets_an_error() {
    within(30, || {
        let plugin = Setup::guest(
            r#"(func (export "run") (result i32)
                 (call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)))
               (memory 1) (memory (export "memory64") i64 1) (export "memory" (func 0))"#,
        )
        .wasi()
        .plugin();
        let (code, error) = plugin.run("run").failure();
        assert_eq!(code, -1, "{error}");
        assert!(error.contains("exports its memory as `memory`"), "{error}");
    });
}

#[test]
fn the_deadline_ends_a_sleep() {
    within(60, || {
        let timeout = Duration::from_millis(200) * slowdown();
        for sleep in [MINUTES, u64::MAX] {
            let guest = WasiGuest::with_timeout(timeout.as_millis() as u64);
            guest.subscribe(&[clock(1, MONOTONIC, sleep, 0)]);
            let elapsed = took(|| assert_eq!(guest.run_poll(1).failure(), (134, "timeout".to_owned())));
            assert!((timeout..timeout * 50).contains(&elapsed), "{elapsed:?}");
            assert_eq!(guest.poll(&[clock(2, MONOTONIC, 0, 0)]), Ok(vec![(2, 0, 0)]), "the call after that");
        }
    });
}

#[test]
fn a_cancel_ends_a_sleep() {
    within(30, || {
        let guest = WasiGuest::plain();
        guest.subscribe(&[clock(1, MONOTONIC, MINUTES, 0), clock(2, REALTIME, u64::MAX, 0)]);
        let ended = thread::scope(|scope| {
            scope.spawn(|| {
                // The guest notes something just before it sleeps.
                while guest.plugin.take_notes().is_empty() {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_millis(30));
                assert!(guest.plugin.cancel());
            });
            guest.run_poll(2)
        });
        assert_eq!(ended.failure(), (134, "cancelled".to_owned()));
        assert_eq!(guest.poll(&[clock(3, MONOTONIC, 0, 0)]), Ok(vec![(3, 0, 0)]), "the call after that");
    });
}
