//! How large this process may make a file (`ulimit -f`).
//!
//! The system answers a write that begins beyond the limit, and a size beyond it, with a signal that ends the process:
//! whoever writes what a plug-in may have a say in looks at the limit first.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// The limit in bytes, if there is one.
pub(crate) fn file_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// The error that stands for the signal.
pub(crate) fn too_large() -> io::Error {
    io::Error::from_raw_os_error(libc::EFBIG)
}

/// Makes a file of these bytes.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if file_limit().is_some_and(|limit| bytes.len() as u64 > limit) {
        return Err(too_large());
    }
    // A FIFO that nobody reads is not waited for.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path)?.write_all(bytes)
}
