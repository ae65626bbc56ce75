//! Error numbers of WASI, and those of the system as such.

use std::io;

use crate::state::interrupt::Stopped;

/// An error number, as a guest gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(u16);

/// Each is what the system calls by this name.
impl Errno {
    pub const ACCES: Self = Self(2);
    pub const AGAIN: Self = Self(6);
    pub const BADF: Self = Self(8);
    pub const BUSY: Self = Self(10);
    pub const DQUOT: Self = Self(19);
    pub const EXIST: Self = Self(20);
    pub const FAULT: Self = Self(21);
    pub const FBIG: Self = Self(22);
    pub const ILSEQ: Self = Self(25);
    pub const INTR: Self = Self(27);
    pub const INVAL: Self = Self(28);
    pub const IO: Self = Self(29);
    pub const ISDIR: Self = Self(31);
    pub const LOOP: Self = Self(32);
    pub const MFILE: Self = Self(33);
    pub const MLINK: Self = Self(34);
    pub const NAMETOOLONG: Self = Self(37);
    pub const NFILE: Self = Self(41);
    pub const NODEV: Self = Self(43);
    pub const NOENT: Self = Self(44);
    pub const NOMEM: Self = Self(48);
    pub const NOSPC: Self = Self(51);
    pub const NOTDIR: Self = Self(54);
    pub const NOTEMPTY: Self = Self(55);
    pub const NOTSOCK: Self = Self(57);
    pub const NOTSUP: Self = Self(58);
    pub const NXIO: Self = Self(60);
    pub const OVERFLOW: Self = Self(61);
    pub const PERM: Self = Self(63);
    pub const PIPE: Self = Self(64);
    pub const ROFS: Self = Self(69);
    pub const SPIPE: Self = Self(70);
    pub const STALE: Self = Self(72);
    pub const TXTBSY: Self = Self(74);
    pub const XDEV: Self = Self(75);

    /// As guests have it; 0 is success.
    pub fn number(self) -> u16 {
        self.0
    }

    fn of_system(number: i32) -> Option<Self> {
        Some(match number {
            libc::EACCES => Self::ACCES,
            libc::EAGAIN => Self::AGAIN,
            libc::EBADF => Self::BADF,
            libc::EBUSY => Self::BUSY,
            libc::EDQUOT => Self::DQUOT,
            libc::EEXIST => Self::EXIST,
            libc::EFBIG => Self::FBIG,
            libc::EILSEQ => Self::ILSEQ,
            libc::EINTR => Self::INTR,
            libc::EINVAL => Self::INVAL,
            libc::EIO => Self::IO,
            libc::EISDIR => Self::ISDIR,
            libc::ELOOP => Self::LOOP,
            libc::EMFILE => Self::MFILE,
            libc::EMLINK => Self::MLINK,
            libc::ENAMETOOLONG => Self::NAMETOOLONG,
            libc::ENFILE => Self::NFILE,
            libc::ENODEV => Self::NODEV,
            libc::ENOENT => Self::NOENT,
            libc::ENOMEM => Self::NOMEM,
            libc::ENOSPC => Self::NOSPC,
            libc::ENOTDIR => Self::NOTDIR,
            libc::ENOTEMPTY => Self::NOTEMPTY,
            libc::ENOTSUP => Self::NOTSUP,
            libc::ENXIO => Self::NXIO,
            libc::EOVERFLOW => Self::OVERFLOW,
            libc::EPERM => Self::PERM,
            libc::EPIPE => Self::PIPE,
            libc::EROFS => Self::ROFS,
            libc::ESPIPE => Self::SPIPE,
            libc::ESTALE => Self::STALE,
            libc::ETXTBSY => Self::TXTBSY,
            libc::EXDEV => Self::XDEV,
            _ => return None,
        })
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().and_then(Self::of_system).unwrap_or_else(|| match error.kind() {
            // What leads out of a directory is no error of the system's.
            io::ErrorKind::PermissionDenied => Self::PERM,
            io::ErrorKind::InvalidInput => Self::INVAL,
            io::ErrorKind::NotFound => Self::NOENT,
            _ => Self::IO,
        })
    }
}

/// Why a function did not do what it was called for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The guest gets the number.
    With(Errno),
    /// The call must end.
    Stopped(Stopped),
}

/// What functions of WASI give.
pub(super) type Result<T = (), E = Failed> = std::result::Result<T, E>;

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self::With(errno)
    }
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::With(error.into())
    }
}

impl From<rustix::io::Errno> for Failed {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}
