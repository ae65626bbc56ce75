//! The error of a plug-in, as each thread of the host sees it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::sync::Mutex;

/// The longest message, in bytes. Some say what a guest or a host has asked for, however long that is.
const MAX_MESSAGE: usize = 256 * 1024;

/// A message as a C string. A NUL inside of it becomes the two characters `\0`, and what is too long is cut.
pub(crate) fn c_string(message: &str) -> CString {
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE)];
    CString::new(message.replace('\0', "\\0")).unwrap_or_default()
}

/// The error of the last finished call, and what single threads were told beside it.
///
/// Only a call that had its turn sets or clears the plug-in's error. An operation that was refused leaves its text
/// for the thread that asked for it, until that thread's next operation on the plug-in.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    /// Whether `texts` says anything: most calls succeed, and need not look.
    any: AtomicBool,
    texts: Mutex<Texts>,
}

#[derive(Debug, Default)]
pub(super) struct Texts {
    last: Option<Arc<CStr>>,
    threads: HashMap<u64, Told>,
}

/// What one thread was told.
#[derive(Debug)]
struct Told {
    /// Why its last operation was refused, if it was.
    refused: Option<Arc<CStr>>,
    /// What it was given stays readable until it asks again, or the plug-in goes.
    given: Option<Arc<CStr>>,
    /// Dangling once the thread has ended.
    thread: Weak<()>,
}

/// With this many threads in the table, those that have ended are looked for.
const MANY_THREADS: usize = 1024;

thread_local! {
    static ALIVE: Arc<()> = Arc::default();
}

impl Texts {
    fn told(&mut self, thread: u64) -> &mut Told {
        if self.threads.len() >= MANY_THREADS && !self.threads.contains_key(&thread) {
            self.threads.retain(|_, told| told.thread.strong_count() > 0);
        }
        self.threads.entry(thread).or_insert_with(|| Told {
            refused: None,
            given: None,
            // A thread that is ending has no use for the text much longer.
            thread: ALIVE.try_with(Arc::downgrade).unwrap_or_default(),
        })
    }

    fn forget_refusal(&mut self, thread: u64) {
        if let Some(told) = self.threads.get_mut(&thread) {
            told.refused = None;
        }
    }
}

impl Errors {
    /// The lock that a fork takes.
    pub(super) fn lock(&self) -> &Mutex<Texts> {
        &self.texts
    }

    /// A call of this thread that had its turn has ended, with this error or with none. What the thread was refused
    /// while it was inside is over with it.
    pub fn finish(&self, thread: impl FnOnce() -> u64, error: Option<&str>) {
        if error.is_none() && !self.any.load(Ordering::Relaxed) {
            return;
        }
        let last = error.map(|text| c_string(text).into());
        let mut texts = self.texts.lock();
        texts.last = last;
        texts.forget_refusal(thread());
        self.any.store(true, Ordering::Release);
    }

    /// This thread begins another operation on the plug-in: what it was refused is over.
    pub fn begin(&self, thread: impl FnOnce() -> u64) {
        if self.any.load(Ordering::Acquire) {
            self.texts.lock().forget_refusal(thread());
        }
    }

    /// An operation of this thread was refused.
    pub fn refuse(&self, thread: u64, error: &str) {
        self.texts.lock().told(thread).refused = Some(c_string(error).into());
        self.any.store(true, Ordering::Release);
    }

    /// The error that this thread sees, or NULL. The text is valid until this thread asks again, or ends.
    pub fn get(&self, thread: u64) -> *const c_char {
        if !self.any.load(Ordering::Acquire) {
            return ptr::null();
        }
        let mut texts = self.texts.lock();
        let last = texts.last.clone();
        let told = texts.told(thread);
        // If the thread holds the same text already, its pointer stays as it is.
        told.given = told.refused.clone().or(last);
        told.given.as_ref().map_or(ptr::null(), |text| text.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(errors: &Errors, thread: u64) -> Option<String> {
        let pointer = errors.get(thread);
        if pointer.is_null() {
            return None;
        }
        let texts = errors.texts.lock();
        let given = texts.threads[&thread].given.as_ref().unwrap();
        assert_eq!(given.as_ptr(), pointer);
        Some(given.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_success_after_an_error_clears_it() {
        let errors = Errors::default();
        assert_eq!(seen(&errors, 1), None);
        errors.finish(|| 1, Some("bad"));
        assert_eq!(seen(&errors, 1).as_deref(), Some("bad"));
        assert_eq!(seen(&errors, 2).as_deref(), Some("bad"));
        errors.finish(|| 1, None);
        assert_eq!(seen(&errors, 1), None);
    }

    #[test]
    fn a_refusal_is_for_one_thread_and_until_its_next_operation() {
        let errors = Errors::default();
        errors.finish(|| 1, Some("of the call"));
        errors.refuse(7, "busy");
        assert_eq!(seen(&errors, 7).as_deref(), Some("busy"));
        assert_eq!(seen(&errors, 8).as_deref(), Some("of the call"));
        errors.begin(|| 7);
        assert_eq!(seen(&errors, 7).as_deref(), Some("of the call"));
        errors.refuse(7, "busy");
        errors.finish(|| 7, None);
        assert_eq!(seen(&errors, 7), None, "the refusal came from within that call");
    }

    #[test]
    fn what_a_thread_was_given_outlives_the_next_error() {
        let errors = Errors::default();
        errors.finish(|| 1, Some("first"));
        let first = errors.get(1);
        errors.finish(|| 1, Some("second"));
        let texts = errors.texts.lock();
        let given = texts.threads[&1].given.as_ref().unwrap();
        assert_eq!((given.as_ptr(), given.to_str().unwrap()), (first, "first"));
    }

    #[test]
    fn threads_that_have_ended_are_forgotten() {
        let errors = Errors::default();
        errors.finish(|| 0, Some("bad"));
        errors.get(0);
        for thread in 1..10_000 {
            if thread % 1000 == 0 {
                errors.get(thread);
            } else {
                // A thread of its own for each would take long: what matters is that nothing keeps it alive.
                errors.texts.lock().told(thread).thread = Weak::new();
            }
        }
        let texts = errors.texts.lock();
        assert!(texts.threads.len() <= MANY_THREADS);
        assert!(texts.threads.contains_key(&0) && texts.threads.contains_key(&1000));
    }

    #[test]
    fn a_nul_is_spelled_out() {
        assert_eq!(c_string("a\0b").to_str().unwrap(), "a\\0b");
    }
}
