//! Writing to standard streams, FIFOs and sockets of the host, for plug-ins and for logs.
//!
//! Whoever reads them can stop to read, or go: neither may keep a plug-in past its time, nor end the process.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};

use crate::file_limit::{file_limit, too_large};

/// Writes some bytes. What is full is not waited for: that is an error of the kind `WouldBlock`.
pub(crate) fn write_some(stream: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let found = fstat(stream)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo | FileType::Socket => {
            let _held_back = BrokenPipe::held_back();
            #[cfg(target_os = "linux")]
            {
                use rustix::io::{Errno, ReadWriteFlags, pwritev2};
                // The offset that stands for a stream's own position.
                match pwritev2(stream, &[io::IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
                    Err(Errno::NOSYS | Errno::NOTSUP) => {}
                    result => return Ok(result?),
                }
            }
            Ok(rustix::io::write(stream, bytes)?)
        }
        FileType::RegularFile if file_limit().is_some_and(|limit| found.st_size.cast_unsigned() >= limit) => {
            Err(too_large())
        }
        // A terminal can be stopped.
        FileType::CharacterDevice if !is_ready(stream, Duration::ZERO) => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(rustix::io::write(stream, bytes)?),
    }
}

/// Waits so long at most until the stream takes something, or is broken.
pub(crate) fn is_ready(stream: BorrowedFd<'_>, patience: Duration) -> bool {
    let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: i64::from(patience.subsec_nanos()) };
    // An error of the poll itself is for the write to find out.
    poll(&mut [PollFd::new(&stream, PollFlags::OUT)], Some(&patience)).map_or(true, |ready| ready > 0)
}

/// While this lives, this thread gets no SIGPIPE, which would end the process if nobody handles it: a write into a pipe
/// that nobody reads any more is an error.
struct BrokenPipe {
    /// The signals that were blocked before; nothing if that could not be changed.
    before: Option<libc::sigset_t>,
    /// A SIGPIPE waited for somebody before.
    was_pending: bool,
}

impl BrokenPipe {
    fn held_back() -> Self {
        let set = Self::set();
        let (mut before, mut pending) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: `set` is initialised; the others are written by the calls, and read where those have succeeded.
        unsafe {
            let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()) == 0;
            let was_pending =
                libc::sigpending(pending.as_mut_ptr()) == 0 && libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1;
            Self { before: blocked.then(|| before.assume_init()), was_pending }
        }
    }

    fn set() -> libc::sigset_t {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initialises the set, which `sigaddset` changes then.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            set.assume_init()
        }
    }
}

impl Drop for BrokenPipe {
    fn drop(&mut self) {
        let Some(before) = &self.before else {
            return;
        };
        let (set, now) = (Self::set(), libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: all that is pointed to is initialised and lives through the calls.
        unsafe {
            if !self.was_pending {
                // The one that the write has raised, if it has.
                libc::sigtimedwait(&set, ptr::null_mut(), &now);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    /// SIGPIPE as it is in programs in C: the standard library of Rust ignores it.
    fn deadly_sigpipe() {
        // SAFETY: no handler is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        deadly_sigpipe();
        let (read, write) = io::pipe().unwrap();
        drop(read);
        let (end, socket) = UnixStream::pair().unwrap();
        drop(end);
        for stream in [write.as_fd(), socket.as_fd()] {
            assert_eq!(write_some(stream, b"text").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
        // SAFETY: the set is written by the call.
        let pending = unsafe {
            let mut set = MaybeUninit::uninit();
            libc::sigpending(set.as_mut_ptr());
            libc::sigismember(set.as_ptr(), libc::SIGPIPE)
        };
        assert_eq!(pending, 0, "none is left for later");
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let (_read, write) = io::pipe().unwrap();
        let bytes = [b'x'; 64 * 1024];
        let full = std::iter::repeat_with(|| write_some(write.as_fd(), &bytes)).find_map(io::Result::err).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let began = Instant::now();
        assert!(!is_ready(write.as_fd(), Duration::from_millis(20)));
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
