//! Reading this process's own memory at an address that may be wrong.
//!
//! A host names an address and a length in a manifest. If the library read there itself, a wrong
//! number would end the process; so the kernel reads, which answers `EFAULT`. `process_vm_readv`
//! does it in one step. Where that is missing or forbidden (seccomp filters of containers), the
//! bytes go through a pipe: `write` checks its source in the same way.

use std::ffi::c_void;
use std::io::{self, Error, Read};
use std::os::fd::AsRawFd;
use std::ptr::without_provenance_mut;

/// How much is asked for at once. The buffer grows by what could be read, so that a wrong length
/// costs no more memory than is readable there.
const CHUNK: usize = 1 << 20;

/// A pipe that is empty takes this much without waiting, however short the system is of buffers.
const PIPE_CHUNK: usize = 4096;

/// A copy of `length` bytes at `address` of this process.
pub(super) fn copy(address: u64, length: u64) -> io::Result<Vec<u8>> {
    match copy_with(address, length, read_directly) {
        Err(e) if e.raw_os_error() != Some(libc::EFAULT) => {
            let (mut reader, writer) = io::pipe()?;
            copy_with(address, length, |from, into| read_through_pipe(from, into, &mut reader, &writer))
        }
        result => result,
    }
}

/// Fills a buffer chunk by chunk. `read` copies from an address to the beginning of a slice, and
/// says how many bytes it could copy.
fn copy_with(
    address: u64,
    length: u64,
    mut read: impl FnMut(usize, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let bad_address = || Error::from_raw_os_error(libc::EFAULT);
    let address = usize::try_from(address).map_err(|_| bad_address())?;
    let length = usize::try_from(length).map_err(|_| bad_address())?;
    address.checked_add(length).ok_or_else(bad_address)?;

    let mut bytes = Vec::new();
    let mut done = 0;
    while done < length {
        if done == bytes.len() {
            let more = CHUNK.min(length - done);
            bytes.try_reserve(more)?;
            bytes.resize(done + more, 0);
        }
        match read(address + done, &mut bytes[done..]) {
            Ok(0) => return Err(bad_address()),
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

#[cfg(target_os = "linux")]
fn read_directly(from: usize, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: without_provenance_mut::<c_void>(from), iov_len: into.len() };
    // SAFETY: `local` describes a slice that is borrowed exclusively, so the kernel may write all of
    // it. `remote` is only a number to this process: the kernel reads there, and fails where it
    // cannot. Each array has the one element that its count says.
    let count = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    usize::try_from(count).map_err(|_| Error::last_os_error())
}

#[cfg(not(target_os = "linux"))]
fn read_directly(_: usize, _: &mut [u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Copies at most [`PIPE_CHUNK`] bytes. The pipe is empty before and after.
fn read_through_pipe(
    from: usize,
    into: &mut [u8],
    reader: &mut io::PipeReader,
    writer: &io::PipeWriter,
) -> io::Result<usize> {
    let wanted = into.len().min(PIPE_CHUNK);
    let source = without_provenance_mut::<c_void>(from);
    // SAFETY: `writer` is open. The kernel alone reads from `source`, and fails where it cannot.
    let count = unsafe { libc::write(writer.as_raw_fd(), source, wanted) };
    let count = usize::try_from(count).map_err(|_| Error::last_os_error())?;
    reader.read_exact(&mut into[..count])?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// A page of zeros that can be read, in front of one that cannot; for good.
    fn page_before_a_closed_one() -> *mut libc::c_void {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else; its second page is closed,
        // to which no reference exists.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), 2 * PAGE, libc::PROT_READ, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(base.byte_add(PAGE), PAGE, libc::PROT_NONE), 0);
            base
        }
    }

    /// Two ways to read.
    fn each_way(address: u64, length: u64) -> [io::Result<Vec<u8>>; 2] {
        let (mut reader, writer) = io::pipe().unwrap();
        [
            copy_with(address, length, read_directly),
            copy_with(address, length, |from, into| read_through_pipe(from, into, &mut reader, &writer)),
        ]
    }

    #[test]
    fn what_is_readable_is_copied() {
        let bytes: Vec<u8> = (0..CHUNK * 5 / 2).map(|i| (i * 7 / 3) as u8).collect();
        for length in [0, 1, 4095, 4096, 4097, CHUNK, bytes.len()] {
            for result in each_way(bytes.as_ptr() as u64, length as u64) {
                assert!(result.unwrap() == bytes[..length]);
            }
        }
    }

    #[test]
    fn what_is_not_readable_is_an_error() {
        // What lies behind it is read up to where that ends, so it must be nobody else's.
        let here = page_before_a_closed_one() as u64;
        for (address, length) in [
            (0, 1),
            (0, 8),
            (4096, 1),
            (1, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (1 << 62, 8),
            (here, 1 << 62),
            (here, 1 << 63),
            (here, u64::MAX),
        ] {
            for result in each_way(address, length) {
                let error = result.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EFAULT), "{address:#x}+{length}");
            }
        }
    }

    #[test]
    fn a_range_that_ends_in_an_unreadable_page_is_an_error() {
        let base = page_before_a_closed_one();
        let last = base as u64 + PAGE as u64;
        for result in each_way(last - 10, 10) {
            assert_eq!(result.unwrap(), [0; 10]);
        }
        for result in each_way(last - 10, 11) {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFAULT));
        }
    }
}
