use std::thread::{self, ThreadId};

use super::*;

/// Runs on a thread whose stack is too small for a guest.
fn with_little_stack<R: Send + 'static>(test: impl FnOnce() -> R + Send + 'static) -> R {
    thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))
}

fn id() -> ThreadId {
    thread::current().id()
}

#[test]
fn with_room_enough_the_work_runs_here() {
    let here = id();
    let there = thread::Builder::new().stack_size(2 * CALL).spawn(move || (id(), with_room(CALL, id).unwrap()));
    let (there, worked) = there.unwrap().join().unwrap();
    assert_eq!(there, worked);
    assert_ne!(here, there);
}

#[test]
fn with_little_room_it_runs_elsewhere_and_its_callbacks_here() {
    with_little_stack(|| {
        let here = id();
        let (worked, called) = with_room(CALL, || {
            let mut called = Vec::new();
            for _ in 0..3 {
                on_calling_thread(|| called.push(id()));
            }
            assert!(has_room(CALL));
            (id(), called)
        })
        .unwrap();
        assert_ne!(worked, here);
        assert_eq!(called, [here, here, here]);
    });
}

#[test]
fn callbacks_may_need_room_themselves() {
    fn descend(levels: u32) -> u32 {
        let mut reached = 0;
        with_room(CALL, || on_calling_thread(|| reached = if levels == 0 { 0 } else { 1 + descend(levels - 1) }))
            .unwrap();
        reached
    }
    assert_eq!(with_little_stack(|| descend(10)), 10);
}

#[test]
fn threads_are_used_again() {
    with_little_stack(|| {
        let threads: std::collections::HashSet<_> = (0..100).map(|_| with_room(CALL, id).unwrap()).collect();
        // Other tests use them too.
        assert!(threads.len() < 50, "{}", threads.len());
    });
}

#[test]
fn panics_come_back() {
    with_little_stack(|| {
        let panic = catch_unwind(|| with_room(CALL, || panic!("in the work"))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"in the work"));
        let panic = catch_unwind(|| with_room(CALL, || on_calling_thread(|| panic!("in the callback")))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"in the callback"));
        assert_eq!(with_room(CALL, || 7).unwrap(), 7);
    });
}

#[test]
fn without_room_to_wait_it_is_an_error() {
    /// Goes down until a call is refused.
    fn deeper(frames: u32) -> (u32, Error) {
        let used = std::hint::black_box([0u8; 1024]);
        match with_room(CALL, || ()) {
            Ok(()) => deeper(frames + 1),
            Err(error) => (frames + u32::from(used[0]), error),
        }
    }
    let (frames, error) = with_little_stack(|| deeper(0));
    assert!(frames > 20, "{frames}");
    assert!(error.to_string().starts_with("call stack exhausted"), "{error}");
}

#[test]
fn a_stack_of_nobody_counts_as_small() {
    with_little_stack(|| {
        crate::thread::current(|thread| thread.stack.set((1, 1)));
        let here = id();
        assert_ne!(with_room(CALL, id).unwrap(), here);
    });
}
