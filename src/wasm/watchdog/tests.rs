use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn soon(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// A timer that counts its firings.
struct Counted {
    timer: Timer,
    interrupt: Arc<Interrupt>,
    fired: Arc<AtomicUsize>,
}

fn counted() -> Counted {
    let interrupt = Arc::new(Interrupt::new());
    let fired = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fired);
    let timer = Timer::new(Arc::clone(&interrupt), move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    Counted { timer, interrupt, fired }
}

impl Counted {
    fn fired(&self) -> usize {
        self.fired.load(Ordering::SeqCst)
    }

    /// At most the firing that was under way already.
    fn assert_silent(&self) {
        let fired = self.fired();
        thread::sleep(Duration::from_millis(50));
        assert!(self.fired() <= fired + 1, "fired after its call had ended");
    }

    /// Waits for so many firings and returns when the last came.
    fn wait_for_firing(&self, count: usize) -> Instant {
        let give_up = Instant::now() + LONG;
        while self.fired() < count {
            assert!(Instant::now() < give_up, "the watchdog did not fire");
            thread::sleep(Duration::from_micros(100));
        }
        Instant::now()
    }
}

#[test]
fn an_expired_call_is_fired_not_before_its_time() {
    let one = counted();
    let deadline = soon(20);
    one.timer.begin(Some(deadline)).unwrap();
    assert!(one.wait_for_firing(1) >= deadline);
    assert!(one.interrupt.check().is_err());
    one.timer.end();
}

#[test]
fn it_fires_again_until_the_call_ends() {
    let one = counted();
    one.timer.begin(Some(soon(1))).unwrap();
    one.wait_for_firing(8);
    one.timer.end();
    one.assert_silent();
}

/// A list without a thread, looked at when the test says so.
struct Looked {
    list: List,
    interrupts: Vec<Arc<Interrupt>>,
}

impl Looked {
    fn new(count: usize) -> Self {
        let interrupts: Vec<_> = (0..count).map(|_| Arc::new(Interrupt::new())).collect();
        let slots = interrupts.iter().map(|interrupt| {
            let watched = Arc::new(Watched { interrupt: Arc::clone(interrupt), action: Box::new(|| {}) });
            (key(&watched), Slot { watched, fired: None })
        });
        Self { list: List { slots: slots.collect(), running: false }, interrupts }
    }

    fn begin(&self, which: usize, deadline: u64) {
        self.interrupts[which].begin(from_ns(deadline));
    }

    /// Which are fired at this time, and when the next look is due.
    fn look(&mut self, now: u64) -> (Vec<usize>, u64) {
        let mut expired = Vec::new();
        let next = self.list.collect_expired(now, &mut expired);
        let position = |watched: &Arc<Watched>| {
            self.interrupts.iter().position(|one| Arc::ptr_eq(one, &watched.interrupt)).unwrap()
        };
        let mut expired: Vec<_> = expired.iter().map(position).collect();
        expired.sort_unstable();
        (expired, next)
    }
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn calls_expire_in_the_order_of_their_deadlines() {
    let mut looked = Looked::new(5);
    assert_eq!(looked.look(9 * SECOND), (vec![], NEVER));
    for which in [3, 0, 4, 2] {
        looked.begin(which, (which as u64 + 1) * SECOND);
    }
    looked.begin(1, NEVER);
    assert_eq!(looked.look(0), (vec![], SECOND));
    assert_eq!(looked.look(SECOND - 1), (vec![], SECOND));
    assert_eq!(looked.look(SECOND).0, [0]);
    looked.interrupts[0].end();
    assert_eq!(looked.look(2 * SECOND), (vec![], 3 * SECOND));
    assert_eq!(looked.look(4 * SECOND).0, [2, 3]);
}

#[test]
fn pauses_between_firings_grow_and_begin_anew_with_the_next_call() {
    let mut looked = Looked::new(1);
    let mut pauses_of_a_call = || {
        looked.begin(0, SECOND);
        let mut now = SECOND;
        let pauses = [(); 6].map(|()| {
            let (expired, next) = looked.look(now);
            assert_eq!(expired, [0]);
            let pause = next - now;
            assert_eq!(looked.look(next - 1), (vec![], next));
            now = next;
            pause / FIRST_PAUSE
        });
        looked.interrupts[0].end();
        pauses
    };
    assert_eq!(pauses_of_a_call(), [1, 2, 4, 8, 10, 10]);
    assert_eq!(pauses_of_a_call(), [1, 2, 4, 8, 10, 10]);
}

#[test]
fn a_cancelled_call_is_due_at_once_whatever_its_deadline() {
    let mut looked = Looked::new(2);
    looked.begin(0, 9 * SECOND);
    looked.begin(1, NEVER);
    looked.interrupts.iter().for_each(|one| assert!(one.cancel()));
    assert_eq!(looked.look(SECOND).0, [0, 1]);
}

#[test]
fn an_ended_call_is_not_fired_and_the_next_one_has_its_own_time() {
    let one = counted();
    one.timer.begin(Some(soon(100))).unwrap();
    one.timer.end();
    let deadline = soon(150);
    one.timer.begin(Some(deadline)).unwrap();
    assert!(one.wait_for_firing(1) >= deadline);
    one.timer.end();
    one.timer.begin(None).unwrap();
    one.assert_silent();
}

#[test]
fn an_earlier_deadline_wakes_the_watchdog_up() {
    let (far, near) = (counted(), counted());
    far.timer.begin(Some(Instant::now() + 2 * LONG)).unwrap();
    thread::sleep(Duration::from_millis(5));
    near.timer.begin(Some(soon(10))).unwrap();
    near.wait_for_firing(1);
    assert_eq!(far.fired(), 0);
}

#[test]
fn a_later_deadline_takes_no_lock() {
    let one = counted();
    one.timer.begin(Some(soon(40))).unwrap();
    one.timer.end();
    // Other tests use the same watchdog; it only ever wakes up earlier for them.
    let list = WATCHDOG.list.lock();
    if WATCHDOG.next_wake.load(Ordering::SeqCst) <= now_ns() + 50_000_000 {
        one.timer.begin(Some(soon(60))).unwrap();
    }
    drop(list);
}

#[test]
fn a_cancel_fires_at_once_and_again() {
    let one = counted();
    assert!(!one.timer.cancel());
    assert_eq!(one.fired(), 0);
    one.timer.begin(None).unwrap();
    assert!(one.timer.cancel());
    assert!(one.fired() >= 1);
    one.wait_for_firing(4);
    assert!(one.interrupt.check().is_err());
    one.timer.end();
    assert!(!one.timer.cancel());
}

#[test]
fn a_dropped_timer_is_forgotten() {
    let one = counted();
    one.timer.begin(Some(soon(5))).unwrap();
    let Counted { timer, interrupt, fired } = one;
    drop(timer);
    thread::sleep(Duration::from_millis(20));
    let count = fired.load(Ordering::SeqCst);
    let give_up = Instant::now() + LONG;
    while Arc::strong_count(&interrupt) > 1 || Arc::strong_count(&fired) > 1 {
        assert!(Instant::now() < give_up, "the watchdog keeps what it needs no longer");
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(20));
    assert!(fired.load(Ordering::SeqCst) <= count + 1);
}

#[test]
fn many_timers_expire_at_once() {
    let timers: Vec<_> = (0..2000).map(|_| counted()).collect();
    let deadline = soon(20);
    for one in &timers {
        one.timer.begin(Some(deadline)).unwrap();
    }
    for one in &timers {
        one.wait_for_firing(1);
    }
}

#[test]
fn signals_of_the_host_do_not_reach_the_thread() {
    let one = counted();
    one.timer.begin(Some(soon(60_000))).unwrap();
    assert_eq!(blocked_signals("thread-self"), 0, "the mask of the starting thread is restored");
    let mask = std::fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
        let path = task.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        (name.trim() == "extism-watchdog").then(|| blocked_signals(&format!("self/task/{}", last(&path))))
    });
    let term = 1 << (libc::SIGTERM - 1);
    assert_eq!(mask.unwrap() & term, term);
}

fn last(path: &std::path::Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn blocked_signals(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

/// Short calls with short deadlines on many threads: every call that waits for its end is told.
#[test]
fn no_deadline_is_lost() {
    const THREADS: u64 = 8;
    thread::scope(|scope| {
        for seed in 0..THREADS {
            scope.spawn(move || {
                let one = counted();
                for round in 0..200_u64 {
                    let deadline = Instant::now() + Duration::from_micros((round * 37 + seed * 101) % 700);
                    one.timer.begin(Some(deadline)).unwrap();
                    let fired = one.fired();
                    if round % 4 == 0 {
                        let at = one.wait_for_firing(fired + 1);
                        // Far more than any pause between firings: only a lost deadline takes as long.
                        assert!(at < deadline + LONG / 6, "late");
                    }
                    one.timer.end();
                }
            });
        }
    });
}
