//! What callers pass becomes values: the one place where their pointers are read.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

use crate::sync::{Mutex, MutexGuard};
use once_cell::sync::Lazy;

use crate::error::{Error, Result};

/// As many bytes no process has: address spaces end before.
const NO_MEMORY: u64 = 1 << 56;

/// Bytes that a caller passes. Length 0 makes the pointer irrelevant.
///
/// # Safety
///
/// If `length` is not 0 and `data` not NULL, `length` bytes at `data` are readable and stay unchanged for `'a`.
pub(super) unsafe fn bytes<'a>(what: &str, data: *const u8, length: u64) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise, handed through.
    unsafe { array(what, data, length) }
}

/// An array that a caller passes. Length 0 makes the pointer irrelevant.
///
/// # Safety
///
/// If `length` is not 0 and `data` not NULL, `length` elements at `data` are readable and stay unchanged for `'a`.
pub(super) unsafe fn array<'a, T>(what: &str, data: *const T, length: u64) -> Result<&'a [T]> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Error::new(format!("{what} is NULL, but its length is {length}")));
    }
    let bytes = length.saturating_mul(size_of::<T>() as u64);
    let Some(length) = usize::try_from(length).ok().filter(|_| bytes < NO_MEMORY.min(isize::MAX as u64)) else {
        return Err(Error::new(format!("{what} cannot have {length} elements: no such array fits into memory")));
    };
    if !data.is_aligned() {
        return Err(Error::new(format!("{what} is not aligned for its elements")));
    }
    // SAFETY: not NULL, aligned, of a possible size; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(data, length) })
}

/// Text that a caller passes, NUL-terminated.
///
/// # Safety
///
/// `text` is NULL or points to a NUL-terminated string that stays unchanged for `'a`.
pub(super) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str> {
    // SAFETY: the caller's promise, handed through.
    unsafe { optional_text(what, text) }?.ok_or_else(|| Error::new(format!("{what} is NULL")))
}

/// As [`text`], where NULL means "none".
///
/// # Safety
///
/// As for [`text`].
pub(super) unsafe fn optional_text<'a>(what: &str, text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|error| Error::new(format!("{what} is not valid UTF-8: {error}")))
}

/// Whether a caller passes this very text. Reads no further than to the first difference.
///
/// # Safety
///
/// As for [`text`].
#[inline]
pub(super) unsafe fn is_text(text: *const c_char, expected: &CStr) -> bool {
    // SAFETY: not NULL; each byte is read after those before it were found not to be the NUL that ends the text.
    let same = |(index, byte): (usize, &u8)| unsafe { *text.cast::<u8>().add(index) == *byte };
    !text.is_null() && expected.to_bytes_with_nul().iter().enumerate().all(same)
}

/// The messages that callers were given and have to give back, by address.
static MESSAGES: Lazy<Mutex<HashSet<usize>>> = Lazy::new(Default::default);

/// The messages, held across a fork.
pub(super) type HeldMessages = MutexGuard<'static, HashSet<usize>>;

/// Keeps the messages as they are.
pub(super) fn hold() -> HeldMessages {
    MESSAGES.lock()
}

/// Gives a message to the caller, who owns it until [`take_back`].
///
/// # Safety
///
/// `place` is NULL or can be written.
pub(super) unsafe fn give(place: *mut *mut c_char, message: CString) {
    if !place.is_null() {
        let message = message.into_raw();
        MESSAGES.lock().insert(message.addr());
        // SAFETY: not NULL; the rest is the caller's promise.
        unsafe { ptr::write_unaligned(place, message) };
    }
}

/// Frees a message that a caller was given; an error if it was not, or not any more.
pub(super) fn take_back(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    if !MESSAGES.lock().remove(&message.addr()) {
        return Err(Error::new(
            "this is no error message that a function gave through `errmsg`, or it was freed already",
        ));
    }
    // SAFETY: it came from `CString::into_raw` in `give`, and was taken out of the set, so it is freed once.
    drop(unsafe { CString::from_raw(message) });
    Ok(())
}
