//! # The library
//!
//! The library stays loaded once it was: dlclose does nothing. It starts threads only when it needs
//! them (for timeouts, for large modules, for HTTP, for callers with little stack).
//!
//! Signals. Traps of plug-ins arrive as SIGSEGV, SIGILL, SIGFPE or SIGBUS; the library's handlers
//! pass on what is not theirs. A handler that a program installs after its first plug-in (a crash
//! reporter, Python's faulthandler, a JVM) takes the traps away and ends the process, unless it
//! calls the handler that was there before it. `EXTISM_SIGNALS=0` in the environment does without
//! signals: plug-ins are slower then, and have no guard against Spectre attacks on their memory.
//! Where all signals are blocked, the first call of a thread unblocks these.
//!
//! fork. The child of a process that uses the library can use it too, and go on with the plug-ins
//! that its parent made. What another thread of the parent was calling stays busy for ever there.
//! Each process frees its own: `free_user_data` runs in the parent and in a child that frees what
//! it got of it, so it must not touch what they share (files to delete, a connection to end).

use std::ffi::c_char;

use super::guard;

/// The version of the library, such as "2.0.0".
///
/// Returns a static string. Cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    guard::boundary(|| Ok(VERSION.as_ptr().cast()))
}

/// What was wrong with this thread's last call into the library.
///
/// Returns a text, or NULL if that call succeeded. The text belongs to the library and is valid
/// until this thread's next call of another function. Not in libextism 1.41.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_last_error() -> *const c_char {
    guard::last_error()
}
