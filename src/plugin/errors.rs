//! The error of a plug-in, as each thread of the host sees it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// A message as a C string. A NUL inside of it becomes the two characters `\0`.
pub(crate) fn c_string(message: &str) -> CString {
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
struct Texts {
    last: Option<Arc<CStr>>,
    refused: HashMap<u64, Arc<CStr>>,
    /// What a thread was given stays readable until it asks again, or the plug-in goes.
    given: HashMap<u64, Arc<CStr>>,
}

impl Errors {
    /// A call of this thread that had its turn has ended, with this error or with none. What the thread was refused
    /// while it was inside is over with it.
    pub fn finish(&self, thread: u64, error: Option<&str>) {
        if error.is_none() && !self.any.load(Ordering::Relaxed) {
            return;
        }
        let last = error.map(|text| c_string(text).into());
        let mut texts = self.texts.lock();
        texts.last = last;
        texts.refused.remove(&thread);
        self.any.store(true, Ordering::Release);
    }

    /// This thread begins another operation on the plug-in: what it was refused is over.
    pub fn begin(&self, thread: u64) {
        if self.any.load(Ordering::Acquire) {
            self.texts.lock().refused.remove(&thread);
        }
    }

    /// An operation of this thread was refused.
    pub fn refuse(&self, thread: u64, error: &str) {
        self.texts.lock().refused.insert(thread, c_string(error).into());
        self.any.store(true, Ordering::Release);
    }

    /// The error that this thread sees, or NULL. The text is valid until this thread asks again.
    pub fn get(&self, thread: u64) -> *const c_char {
        if !self.any.load(Ordering::Acquire) {
            return ptr::null();
        }
        let mut texts = self.texts.lock();
        let text = texts.refused.get(&thread).or(texts.last.as_ref()).cloned();
        match text {
            Some(text) => {
                let pointer = text.as_ptr();
                // If the thread holds the same text already, its pointer stays as it is.
                texts.given.insert(thread, text);
                pointer
            }
            None => {
                texts.given.remove(&thread);
                ptr::null()
            }
        }
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
        let given = texts.given.get(&thread).unwrap();
        assert_eq!(given.as_ptr(), pointer);
        Some(given.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_success_after_an_error_clears_it() {
        let errors = Errors::default();
        assert_eq!(seen(&errors, 1), None);
        errors.finish(1, Some("bad"));
        assert_eq!(seen(&errors, 1).as_deref(), Some("bad"));
        assert_eq!(seen(&errors, 2).as_deref(), Some("bad"));
        errors.finish(1, None);
        assert_eq!(seen(&errors, 1), None);
    }

    #[test]
    fn a_refusal_is_for_one_thread_and_until_its_next_operation() {
        let errors = Errors::default();
        errors.finish(1, Some("of the call"));
        errors.refuse(7, "busy");
        assert_eq!(seen(&errors, 7).as_deref(), Some("busy"));
        assert_eq!(seen(&errors, 8).as_deref(), Some("of the call"));
        errors.begin(7);
        assert_eq!(seen(&errors, 7).as_deref(), Some("of the call"));
        errors.refuse(7, "busy");
        errors.finish(7, None);
        assert_eq!(seen(&errors, 7), None, "the refusal came from within that call");
    }

    #[test]
    fn what_a_thread_was_given_outlives_the_next_error() {
        let errors = Errors::default();
        errors.finish(1, Some("first"));
        let first = errors.get(1);
        errors.finish(1, Some("second"));
        let texts = errors.texts.lock();
        let given = texts.given.get(&1).unwrap();
        assert_eq!((given.as_ptr(), given.to_str().unwrap()), (first, "first"));
    }

    #[test]
    fn a_nul_is_spelled_out() {
        assert_eq!(c_string("a\0b").to_str().unwrap(), "a\\0b");
    }
}
