//! Where log lines go.

use std::ffi::CStr;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter};

use super::buffer::Buffer;
use super::filter::Filter;
use super::line;
use crate::error::{Error, Result};
use crate::streams::{is_ready, write_some};

/// A filter and the place where the lines go that pass it.
#[derive(Debug)]
pub(super) struct Sink {
    filter: Filter,
    /// The standard library's lock, not a faster one: it may be held over a fork and released in the child,
    /// where the threads that waited for it are gone.
    place: Mutex<Place>,
    name: String,
}

/// A place for lines.
#[derive(Debug)]
pub(super) enum Place {
    Stdout(Stream),
    Stderr(Stream),
    File(LogFile),
    Buffer(Buffer),
}

/// What is known of a standard stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The last line lacks its end.
    is_torn: bool,
    /// Nobody has taken the last line for as long as one waits for that.
    is_stuck: bool,
}

/// So long a line waits for a stream that takes nothing. Then it is lost, and so are those after it that find the stream
/// as it was: plug-ins log, and must not be kept past their time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// The last line lacks its end: the disk was full, or a FIFO.
    is_torn: bool,
}

impl Sink {
    /// A file that lines are appended to, or a stream: `None`, `-` and `stderr` are standard error.
    pub fn file(path: Option<&str>, filter: Option<&str>) -> Result<Self> {
        let filter = Filter::parse(filter)?;
        let (place, name) = match path {
            None | Some("-" | "stderr") => (Place::Stderr(Stream::default()), "standard error".to_owned()),
            Some("stdout") => (Place::Stdout(Stream::default()), "standard output".to_owned()),
            Some(path) => (Place::File(LogFile::open(path)?), format!("the file `{path}`")),
        };
        Ok(Self { filter, place: Mutex::new(place), name })
    }

    /// A buffer that the host drains.
    pub fn buffer(filter: Option<&str>) -> Result<Self> {
        let place = Mutex::new(Place::Buffer(Buffer::default()));
        Ok(Self { filter: Filter::parse(filter)?, place, name: "the buffer that is drained".to_owned() })
    }

    /// Where the lines go, for a message.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most verbose level that is wanted of a target.
    pub fn level_of(&self, target: &str) -> LevelFilter {
        self.filter.level_of(target)
    }

    /// The most verbose level that is wanted of anything.
    pub fn most_verbose(&self) -> LevelFilter {
        self.filter.most_verbose()
    }

    /// Writes one line, if it is wanted. A line that can't be written is lost: there is nobody to tell.
    pub fn log(&self, level: Level, target: &str, text: &[u8], plugin: Option<&dyn Display>) {
        if level > self.level_of(target) {
            return;
        }
        let line = line::format(level, target, text, plugin);
        match &mut *self.lock() {
            Place::Stdout(stream) => stream.write(io::stdout().as_fd(), line.as_bytes()),
            Place::Stderr(stream) => stream.write(io::stderr().as_fd(), line.as_bytes()),
            Place::File(file) => file.write(line.as_bytes()),
            Place::Buffer(buffer) => buffer.push(line),
        }
    }

    /// Hands over the lines that wait now, one at a time. No lock is held meanwhile: `take` may log, and drain.
    pub fn drain(&self, mut take: impl FnMut(&CStr)) {
        let Some(end) = self.with_buffer(|buffer| buffer.end()) else {
            return;
        };
        while let Some(line) = self.with_buffer(|buffer| buffer.take(end)).flatten() {
            take(&line);
        }
    }

    fn with_buffer<R>(&self, work: impl FnOnce(&mut Buffer) -> R) -> Option<R> {
        match &mut *self.lock() {
            Place::Buffer(buffer) => Some(work(buffer)),
            _ => None,
        }
    }

    /// Keeps everybody else from writing while the guard lives.
    pub fn lock(&self) -> MutexGuard<'_, Place> {
        // A line is either there or not: a panic in between leaves nothing half done.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Writes to the stream itself: the standard library's own handles have a lock that a fork may leave taken, and the
    /// host may have pointed the descriptor elsewhere since the last line.
    fn write(&mut self, stream: BorrowedFd<'_>, line: &[u8]) {
        let Ok(stream) = stream.try_clone_to_owned() else {
            return;
        };
        let patience = if self.is_stuck { Duration::ZERO } else { PATIENCE };
        let end = Instant::now() + patience;
        self.is_stuck = false;
        if self.is_torn && self.write_until(end, stream.as_fd(), b"\n") == 0 {
            return;
        }
        let written = self.write_until(end, stream.as_fd(), line);
        self.is_torn = (1..line.len()).contains(&written);
    }

    /// Returns how many of the bytes the stream took.
    fn write_until(&mut self, end: Instant, stream: BorrowedFd<'_>, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match write_some(stream, rest) {
                Ok(count @ 1..) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.is_stuck = true;
                        break;
                    }
                    is_ready(stream, left);
                }
                // Nobody can be told.
                Ok(0) | Err(_) => break,
            }
        }
        bytes.len() - rest.len()
    }
}

impl LogFile {
    fn open(path: &str) -> Result<Self> {
        let mut options = OpenOptions::new();
        // Otherwise a FIFO would keep us until somebody reads it, and later each call that logs while nobody does.
        options.append(true).create(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let mut opened = options.open(path);
        if opened.as_ref().is_ok_and(is_fifo) {
            // With an end to read as well, it has a reader for ever: none that goes ends the process by a signal.
            opened = options.read(true).open(path);
        }
        match opened {
            Ok(file) => Ok(Self { file, is_torn: false }),
            Err(error) => {
                let hint = match error.raw_os_error() {
                    Some(libc::ENXIO) => " (is it a FIFO that nobody reads, or a socket?)",
                    _ => "",
                };
                Err(Error::new(format!("the log file `{path}` cannot be opened for appending: {error}{hint}")))
            }
        }
    }

    #[cfg(test)]
    pub fn torn(file: File) -> Self {
        Self { file, is_torn: true }
    }

    /// Appends a line; it begins as one, whatever became of the line before it.
    pub fn write(&mut self, line: &[u8]) {
        if self.is_torn && write(&self.file, b"\n") == 0 {
            return;
        }
        let written = write(&self.file, line);
        self.is_torn = (1..line.len()).contains(&written);
    }
}

/// Writes as many of the bytes as the file takes; returns how many that are.
fn write(file: &File, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        match write_some(file.as_fd(), rest) {
            Ok(count @ 1..) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nobody can be told.
            Ok(0) | Err(_) => break,
        }
    }
    bytes.len() - rest.len()
}

fn is_fifo(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}
