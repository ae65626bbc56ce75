//! The one way through the boundary: no panic leaves, every failure leaves its text and its fail value.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::error::{Error, Result};
use crate::plugin::c_string;
use crate::thread;

/// A type that an exported function returns, with the value that means failure.
pub(super) trait FailValue {
    /// What is returned when the body failed.
    const FAIL: Self;
}

impl FailValue for () {
    const FAIL: Self = ();
}

/// A return code of a call.
impl FailValue for i32 {
    const FAIL: Self = -1;
}

/// A boolean result: false.
impl FailValue for u32 {
    const FAIL: Self = 0;
}

/// A size or a handle of a block.
impl FailValue for u64 {
    const FAIL: Self = 0;
}

impl<T> FailValue for *const T {
    const FAIL: Self = ptr::null();
}

impl<T> FailValue for *mut T {
    const FAIL: Self = ptr::null_mut();
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs the body of an exported function. If it fails or panics, the thread's last error is set and the fail value
/// returned; otherwise it is cleared: before the body, and after it what a call from within a callback left.
pub(super) fn boundary<T: FailValue>(body: impl FnOnce() -> Result<T>) -> T {
    let succeed = || thread::current(|thread| thread.failed.set(false));
    succeed();
    match contain(body) {
        Ok(value) => {
            succeed();
            value
        }
        Err(error) => {
            set_last_error(&error);
            T::FAIL
        }
    }
}

/// Runs a body, and turns a panic of it into an error.
pub(super) fn contain<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    let body = || {
        #[cfg(feature = "panic-points")]
        points::pass();
        body()
    };
    // Nothing that a panic may have left half-done is used again: see `Body::Lost` in the plug-in.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panicked(panic)))
}

#[cold]
fn panicked(panic: Box<dyn Any + Send>) -> Error {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    let error = Error::new(format!("internal error of libextism (please report it): {text}"));
    // Its drop is foreign code, which could panic again.
    std::mem::forget(panic);
    error
}

/// What `extism_last_error` tells this thread until its next call.
#[cold]
pub(super) fn set_last_error(error: &Error) {
    let text = c_string(&error.to_string());
    let kept = LAST_ERROR.try_with(|last| last.replace(text));
    // Gone only while the thread itself ends.
    thread::current(|thread| thread.failed.set(kept.is_ok()));
}

/// The text of this thread's last error, or NULL if its last call succeeded. Valid until the next error.
pub(super) fn last_error() -> *const c_char {
    if !thread::current(|thread| thread.failed.get()) {
        return ptr::null();
    }
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(ptr::null())
}

/// For the test that a panic in any export stays inside: with the feature `panic-points`, which no user has, one can
/// be had.
#[cfg(feature = "panic-points")]
mod points {
    use std::sync::atomic::{AtomicU32, Ordering};

    static LEFT: AtomicU32 = AtomicU32::new(0);

    /// Lets the body panic that is the `nth` to begin from now on, nested ones counted; 0 for none.
    #[unsafe(no_mangle)]
    extern "C" fn extism_test_panic(nth: u32) {
        LEFT.store(nth, Ordering::Relaxed);
    }

    pub(super) fn pass() {
        let left = LEFT.load(Ordering::Relaxed);
        LEFT.store(left.saturating_sub(1), Ordering::Relaxed);
        assert!(left != 1, "a panic that was asked for");
    }
}
