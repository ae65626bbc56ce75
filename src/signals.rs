//! Signals are the host's, and handled in its threads: those of the library are started with all of them blocked but
//! the faults that a thread raises itself.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// The signals that a thread raises by what it does itself. They end the process if they are blocked.
const FAULTS: [libc::c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Unblocks faults in this thread: a trap of a guest would end the process. Programs that block all signals do not mean
/// these.
pub(crate) fn let_faults_through() {
    let mut faults = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set, `sigaddset` changes it, and `pthread_sigmask` reads it then.
    unsafe {
        libc::sigemptyset(faults.as_mut_ptr());
        for signal in FAULTS {
            libc::sigaddset(faults.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, faults.as_ptr(), ptr::null_mut());
    }
}

/// Signals blocked in this thread, until it is dropped.
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    /// All but [`FAULTS`]. A thread that is started meanwhile begins with the same mask, and keeps it.
    pub fn but_faults() -> io::Result<Self> {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: `sigfillset` fills the set that it gets a valid pointer to, `sigdelset` changes it and
        // `pthread_sigmask` reads it then and writes the other one; both are read only where the call that writes
        // them has succeeded.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for signal in FAULTS {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self { before: before.assume_init() }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set is one that `pthread_sigmask` itself has written; the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}
