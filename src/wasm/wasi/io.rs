//! Reading and writing descriptors.
//!
//! Files are regular ones, which are always ready. What they take to be read or written is bounded by looking at the
//! deadline after each piece of a megabyte; a single operation of the file system is not interrupted.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::call::{Buffer, Call, slice, slice_mut};
use super::descriptors::{Descriptor, Output};
use super::errno::{Errno, Failed, Result};
use crate::file_limit::{file_limit, too_large};
use crate::state::interrupt::Interrupt;
use crate::streams::write_some;

/// Flags of a descriptor that guests may change.
pub(super) const APPEND: u32 = 1;
pub(super) const NONBLOCK: u32 = 4;

/// How long a write waits before it tries again, while the host's output takes nothing.
const PAUSE: Duration = Duration::from_millis(5);

/// Where a guest's write or read is meant to happen.
#[derive(Clone, Copy)]
enum Place {
    Position,
    At(u64),
}

impl Call<'_> {
    pub fn fd_read(&mut self, fd: u32, buffers: u32, count: u32, read: u32) -> Result {
        self.read(fd, buffers, count, Place::Position, read)
    }

    pub fn fd_pread(&mut self, fd: u32, buffers: u32, count: u32, offset: u64, read: u32) -> Result {
        self.read(fd, buffers, count, Place::At(offset), read)
    }

    pub fn fd_write(&mut self, fd: u32, buffers: u32, count: u32, written: u32) -> Result {
        self.write(fd, buffers, count, Place::Position, written)
    }

    pub fn fd_pwrite(&mut self, fd: u32, buffers: u32, count: u32, offset: u64, written: u32) -> Result {
        self.write(fd, buffers, count, Place::At(offset), written)
    }

    fn read(&mut self, fd: u32, buffers: u32, count: u32, place: Place, read: u32) -> Result {
        let buffers = self.buffers(buffers, count)?;
        self.bytes(read, 4)?;
        if let (Descriptor::Input, Place::Position) = (self.wasi.descriptors.get(fd)?, place) {
            // It is at its end.
            return Ok(self.put(read, [0; 4])?);
        }
        let file = match place {
            Place::Position => self.wasi.descriptors.file(fd)?,
            Place::At(_) => self.wasi.descriptors.seekable(fd)?,
        };
        if !file.readable {
            return Err(Errno::BADF.into());
        }
        let mut progress = Progress::new(place, file.position, self.interrupt);
        for piece in buffers.into_iter().flat_map(Buffer::chunks) {
            let bytes = slice_mut(self.memory, piece.at, piece.length)?;
            if !progress.step(bytes.len(), |at| file.file.read_at(bytes, at))? {
                break;
            }
        }
        if let Place::Position = place {
            file.position = progress.at;
        }
        Ok(self.put(read, progress.done.to_le_bytes())?)
    }

    fn write(&mut self, fd: u32, buffers: u32, count: u32, place: Place, written: u32) -> Result {
        let buffers = self.buffers(buffers, count)?;
        self.bytes(written, 4)?;
        let done = match (self.wasi.descriptors.get_mut(fd)?, place) {
            (Descriptor::Output(output), Place::Position) => {
                let output = *output;
                self.print(output, &buffers)?
            }
            (Descriptor::Output(_) | Descriptor::Input, Place::At(_)) => return Err(Errno::SPIPE.into()),
            (Descriptor::File(file), _) if file.writable => {
                let mut progress = Progress::new(place, file.position, self.interrupt);
                for piece in buffers.into_iter().flat_map(Buffer::chunks) {
                    let bytes = slice(self.memory, piece.at, piece.length)?;
                    let appends = file.appends;
                    let write = |at| if appends { append(&file.file, bytes) } else { write_at(&file.file, bytes, at) };
                    if !progress.step(bytes.len(), write)? {
                        break;
                    }
                }
                if let Place::Position = place {
                    file.position = if file.appends { file.file.metadata()?.len() } else { progress.at };
                }
                progress.done
            }
            _ => return Err(Errno::BADF.into()),
        };
        Ok(self.put(written, done.to_le_bytes())?)
    }

    /// Writes to a standard stream; returns how many bytes it took.
    fn print(&self, output: Output, buffers: &[Buffer]) -> Result<u32> {
        let mut done = 0;
        for piece in buffers.iter().copied().flat_map(Buffer::chunks) {
            let bytes = self.bytes(piece.at, piece.length)?;
            match output {
                Output::Nowhere => {}
                Output::Stdout => write_all(io::stdout().as_fd(), bytes, self.interrupt)?,
                Output::Stderr => write_all(io::stderr().as_fd(), bytes, self.interrupt)?,
            }
            done += piece.length;
        }
        Ok(done)
    }

    pub fn fd_seek(&mut self, fd: u32, offset: i64, whence: u32, position: u32) -> Result {
        self.bytes(position, 8)?;
        let file = self.wasi.descriptors.seekable(fd)?;
        let base = match whence {
            0 => 0,
            1 => file.position,
            2 => file.file.metadata()?.len(),
            _ => return Err(Errno::INVAL.into()),
        };
        file.position = base.checked_add_signed(offset).ok_or(Errno::INVAL)?;
        let now = file.position;
        Ok(self.put(position, now.to_le_bytes())?)
    }

    pub fn fd_tell(&mut self, fd: u32, position: u32) -> Result {
        let now = self.wasi.descriptors.seekable(fd)?.position;
        Ok(self.put(position, now.to_le_bytes())?)
    }

    pub fn fd_sync(&mut self, fd: u32) -> Result {
        Ok(self.wasi.descriptors.file(fd)?.file.sync_all()?)
    }

    pub fn fd_datasync(&mut self, fd: u32) -> Result {
        Ok(self.wasi.descriptors.file(fd)?.file.sync_data()?)
    }

    pub fn fd_filestat_set_size(&mut self, fd: u32, size: u64) -> Result {
        let file = self.wasi.descriptors.file(fd)?;
        if file.read_only {
            return Err(Errno::PERM.into());
        }
        if file_limit().is_some_and(|limit| size > limit) {
            return Err(Errno::FBIG.into());
        }
        Ok(file.file.set_len(size)?)
    }

    /// Space is not reserved: it is there when it is written to, or not.
    pub fn fd_allocate(&mut self, fd: u32, _offset: u64, _length: u64) -> Result {
        self.wasi.descriptors.file(fd)?;
        Err(Errno::NOTSUP.into())
    }

    /// Advice is not taken: what a guest says of its plans costs the host nothing.
    pub fn fd_advise(&mut self, fd: u32, _offset: u64, _length: u64, advice: u32) -> Result {
        self.wasi.descriptors.file(fd)?;
        if advice > 5 { Err(Errno::INVAL.into()) } else { Ok(()) }
    }

    pub fn fd_close(&mut self, fd: u32) -> Result {
        Ok(self.wasi.descriptors.close(fd)?)
    }

    pub fn fd_renumber(&mut self, from: u32, to: u32) -> Result {
        Ok(self.wasi.descriptors.renumber(from, to)?)
    }
}

/// A read or write of several pieces.
struct Progress<'a> {
    at: u64,
    done: u32,
    interrupt: &'a Interrupt,
}

impl<'a> Progress<'a> {
    fn new(place: Place, position: u64, interrupt: &'a Interrupt) -> Self {
        let at = match place {
            Place::Position => position,
            Place::At(offset) => offset,
        };
        Self { at, done: 0, interrupt }
    }

    /// One piece; whether another one makes sense. An error counts only if it is the first thing that happens.
    fn step(&mut self, length: usize, mut work: impl FnMut(u64) -> io::Result<usize>) -> Result<bool> {
        loop {
            self.interrupt.check()?;
            match work(self.at) {
                Ok(count) => {
                    self.at = self.at.saturating_add(count as u64);
                    // A part of the pieces, which together have a length of 32 bits.
                    self.done += count as u32;
                    return Ok(count == length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if self.done > 0 => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
    if file_limit().is_some_and(|limit| at >= limit) {
        return Err(too_large());
    }
    file.write_at(bytes, at)
}

/// Writes to the end of a file, wherever it is at that moment. Under a limit on sizes others might write in between,
/// and take the end beyond it: then the end is looked up and written to as a place.
fn append(file: &File, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    if file_limit().is_none() {
        use rustix::io::{Errno, ReadWriteFlags, pwritev2};
        match pwritev2(file, &[io::IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND) {
            Err(Errno::NOSYS | Errno::NOTSUP) => {}
            result => return Ok(result?),
        }
    }
    write_at(file, bytes, file.metadata()?.len())
}

/// Writes to a stream of the host. A pipe that nobody reads does not keep the guest past its time.
fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8], interrupt: &Interrupt) -> Result {
    while !bytes.is_empty() {
        interrupt.check()?;
        match write_some(stream, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                interrupt.sleep_until(Some(Instant::now() + PAUSE))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::from(error)),
        }
    }
    Ok(())
}
