//! Where log lines go.

use std::ffi::CStr;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, LevelFilter};

use super::buffer::Buffer;
use super::filter::Filter;
use super::line;
use crate::error::{Error, Result};

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
    Stdout,
    Stderr,
    File(File),
    Buffer(Buffer),
}

impl Sink {
    /// A file that lines are appended to, or a stream: `None`, `-` and `stderr` are standard error.
    pub fn file(path: Option<&str>, filter: Option<&str>) -> Result<Self> {
        let filter = Filter::parse(filter)?;
        let (place, name) = match path {
            None | Some("-" | "stderr") => (Place::Stderr, "standard error".to_owned()),
            Some("stdout") => (Place::Stdout, "standard output".to_owned()),
            Some(path) => (Place::File(open(path)?), format!("the file `{path}`")),
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
        let _ = match &mut *self.lock() {
            Place::Stdout => write_to(io::stdout().as_fd(), &line),
            Place::Stderr => write_to(io::stderr().as_fd(), &line),
            Place::File(file) => file.write_all(line.as_bytes()),
            Place::Buffer(buffer) => {
                buffer.push(line);
                Ok(())
            }
        };
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

fn open(path: &str) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| Error::new(format!("the log file `{path}` cannot be opened for appending: {error}")))
}

/// One write to the stream itself: the standard library's own handles have a lock that a fork may leave taken,
/// and the host may have pointed the descriptor elsewhere since the last line.
fn write_to(stream: std::os::fd::BorrowedFd<'_>, line: &str) -> io::Result<()> {
    File::from(stream.try_clone_to_owned()?).write_all(line.as_bytes())
}
