//! What descriptors and files are: their types, rights, sizes and times.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use cap_fs_ext::SystemTimeSpec;
use cap_std::fs::{Metadata, MetadataExt};
use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens, utimensat};

use super::call::Call;
use super::descriptors::{Descriptor, Output};
use super::errno::{Errno, Result};
use super::io::{APPEND, NONBLOCK};

/// Types of files.
pub(super) mod filetype {
    pub const UNKNOWN: u8 = 0;
    pub const BLOCK_DEVICE: u8 = 1;
    pub const CHARACTER_DEVICE: u8 = 2;
    pub const DIRECTORY: u8 = 3;
    pub const REGULAR_FILE: u8 = 4;
    pub const SOCKET: u8 = 6;
    pub const SYMBOLIC_LINK: u8 = 7;
}

/// What may be done with a descriptor. Rights cannot be given away, so a guest is told what its descriptor can do.
pub(super) mod rights {
    pub const FD_READ: u64 = 1 << 1;
    pub const FD_WRITE: u64 = 1 << 6;
    /// datasync, read, seek, fdstat_set_flags, sync, tell, write, advise, allocate, filestat_get, filestat_set_size,
    /// filestat_set_times, poll.
    pub const FILE: u64 = 0x1ff | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 27;
    /// path_create_directory, path_create_file, path_link (both ends), path_open, readdir, path_readlink,
    /// path_rename (both ends), path_filestat_get, path_filestat_set_times, filestat_get, filestat_set_times,
    /// path_symlink, path_remove_directory, path_unlink_file.
    pub const DIRECTORY: u64 = 0x1f << 9 | 0x3 << 14 | 0x3 << 16 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 23 | 0x7 << 24;
}

/// Which times are set, and how.
mod set {
    pub const ATIM: u32 = 1;
    pub const ATIM_NOW: u32 = 2;
    pub const MTIM: u32 = 4;
    pub const MTIM_NOW: u32 = 8;
}

impl Call<'_> {
    pub fn fd_fdstat_get(&mut self, fd: u32, stat: u32) -> Result {
        let (kind, flags, base, inheriting) = match self.wasi.descriptors.get(fd)? {
            Descriptor::Input => (filetype::UNKNOWN, 0, rights::FD_READ, rights::FD_READ),
            Descriptor::Output(output) => (stream_type(*output), 0, rights::FD_WRITE, rights::FD_WRITE),
            Descriptor::Directory(_) => (filetype::DIRECTORY, 0, rights::DIRECTORY, rights::DIRECTORY | rights::FILE),
            Descriptor::File(file) => {
                let flags = if file.appends { APPEND } else { 0 } | if file.nonblocking { NONBLOCK } else { 0 };
                let read = if file.readable { 0 } else { rights::FD_READ };
                let write = if file.writable { 0 } else { rights::FD_WRITE };
                let may = rights::FILE & !read & !write;
                (filetype::REGULAR_FILE, flags, may, may)
            }
        };
        let words: [u64; 3] = [u64::from(kind) | u64::from(flags) << 16, base, inheriting];
        Ok(self.put::<24>(stat, record(words))?)
    }

    pub fn fd_fdstat_set_flags(&mut self, fd: u32, flags: u32) -> Result {
        let file = self.wasi.descriptors.file(fd)?;
        if flags & !(APPEND | NONBLOCK) != 0 {
            return Err(Errno::INVAL.into());
        }
        file.appends = flags & APPEND != 0;
        file.nonblocking = flags & NONBLOCK != 0;
        Ok(())
    }

    pub fn fd_fdstat_set_rights(&mut self, fd: u32, _base: u64, _inheriting: u64) -> Result {
        match self.wasi.descriptors.get(fd)? {
            Descriptor::File(_) | Descriptor::Directory(_) => Err(Errno::NOTSUP.into()),
            Descriptor::Input | Descriptor::Output(_) => Err(Errno::BADF.into()),
        }
    }

    pub fn fd_filestat_get(&mut self, fd: u32, stat: u32) -> Result {
        let words = match self.wasi.descriptors.get(fd)? {
            Descriptor::Input => of_stream(filetype::UNKNOWN),
            Descriptor::Output(output) => of_stream(stream_type(*output)),
            Descriptor::File(file) => filestat(&Metadata::from_file(&file.file)?),
            Descriptor::Directory(directory) => filestat(&directory.dir.dir_metadata()?),
        };
        Ok(self.put::<64>(stat, record(words))?)
    }

    pub fn fd_filestat_set_times(&mut self, fd: u32, atim: u64, mtim: u64, flags: u32) -> Result {
        let times = Times::new(atim, mtim, flags)?.timestamps();
        match self.wasi.descriptors.get(fd)? {
            Descriptor::File(file) if file.read_only => return Err(Errno::PERM.into()),
            Descriptor::File(file) => futimens(&file.file, &times)?,
            Descriptor::Directory(directory) if directory.read_only => return Err(Errno::PERM.into()),
            Descriptor::Directory(directory) => utimensat(&directory.dir, ".", &times, AtFlags::empty())?,
            Descriptor::Input | Descriptor::Output(_) => return Err(Errno::BADF.into()),
        }
        Ok(())
    }
}

/// Numbers of 64 bits one after the other, as records are laid out.
pub(super) fn record<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    const { assert!(BYTES == 8 * WORDS) };
    let mut bytes = [0; BYTES];
    for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    bytes
}

fn stream_type(output: Output) -> u8 {
    let is_terminal = match output {
        Output::Nowhere => false,
        Output::Stdout => io::stdout().is_terminal(),
        Output::Stderr => io::stderr().is_terminal(),
    };
    if is_terminal { filetype::CHARACTER_DEVICE } else { filetype::UNKNOWN }
}

/// What the system calls a type.
pub(super) fn filetype(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => filetype::REGULAR_FILE,
        FileType::Directory => filetype::DIRECTORY,
        FileType::Symlink => filetype::SYMBOLIC_LINK,
        FileType::Socket => filetype::SOCKET,
        FileType::CharacterDevice => filetype::CHARACTER_DEVICE,
        FileType::BlockDevice => filetype::BLOCK_DEVICE,
        // WASI has no number for a FIFO.
        FileType::Fifo | FileType::Unknown => filetype::UNKNOWN,
    }
}

/// The type of what was looked up.
pub(super) fn kind(metadata: &Metadata) -> FileType {
    FileType::from_raw_mode(metadata.mode())
}

/// What tells files apart, without the numbers that the host's system has for them.
pub(super) fn identity(device: u64, inode: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (device, inode).hash(&mut hasher);
    hasher.finish()
}

fn of_stream(kind: u8) -> [u64; 8] {
    [0, 0, kind.into(), 0, 0, 0, 0, 0]
}

/// The device (the same for all), identity, type, number of links, size, and times of access, change and status.
pub(super) fn filestat(metadata: &Metadata) -> [u64; 8] {
    [
        1,
        identity(metadata.dev(), metadata.ino()),
        filetype(kind(metadata)).into(),
        metadata.nlink(),
        metadata.size(),
        nanoseconds(metadata.atime(), metadata.atime_nsec()),
        nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    ]
}

/// Times before 1970 count as that year's beginning, those after 2554 as the last one.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let (seconds, nanoseconds) = (u64::try_from(seconds), u64::try_from(nanoseconds).unwrap_or_default());
    seconds.map_or(0, |seconds| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// What becomes of one time of a file.
#[derive(Debug, Clone, Copy)]
enum Time {
    Stays,
    Now,
    At(Duration),
}

/// What becomes of the times of a file: of access and of change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times([Time; 2]);

impl Times {
    /// From nanoseconds and flags.
    pub fn new(atim: u64, mtim: u64, flags: u32) -> Result<Self, Errno> {
        let time = |nanoseconds, at, now| match (flags & at != 0, flags & now != 0) {
            (true, true) => Err(Errno::INVAL),
            (true, false) => Ok(Time::At(Duration::from_nanos(nanoseconds))),
            (false, true) => Ok(Time::Now),
            (false, false) => Ok(Time::Stays),
        };
        if flags > 0xf {
            return Err(Errno::INVAL);
        }
        Ok(Self([time(atim, set::ATIM, set::ATIM_NOW)?, time(mtim, set::MTIM, set::MTIM_NOW)?]))
    }

    /// For a descriptor.
    pub fn timestamps(self) -> Timestamps {
        let [last_access, last_modification] = self.0.map(|time| match time {
            Time::Stays => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            Time::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            // At most 584 years.
            Time::At(at) => Timespec { tv_sec: at.as_secs().cast_signed(), tv_nsec: at.subsec_nanos().into() },
        });
        Timestamps { last_access, last_modification }
    }

    /// For a path.
    pub fn specs(self) -> [Option<SystemTimeSpec>; 2] {
        self.0.map(|time| match time {
            Time::Stays => None,
            Time::Now => Some(SystemTimeSpec::SymbolicNow),
            Time::At(at) => {
                Some(SystemTimeSpec::from(cap_std::time::SystemTime::from_std(SystemTime::UNIX_EPOCH + at)))
            }
        })
    }
}
