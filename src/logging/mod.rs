//! What the library and its plug-ins log, to a file, a stream or a buffer that the host drains.
//!
//! A process has one log. The first `extism_log_file` or `extism_log_custom` that succeeds decides where it goes
//! and what is wanted; a later one is refused, and the lines that wait in a buffer stay there. Everything goes
//! through the crate `log`: this library under the target `extism`, plug-ins under `extism::pdk`, Wasmtime and
//! Cranelift under their own names. Without a log nothing is written and nothing is formatted.

mod buffer;
mod filter;
mod line;
mod sink;
#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::fmt::Display;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{MutexGuard, OnceLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::error::{Error, Result};
use sink::{Place, Sink};

/// The target of what plug-ins log.
const PLUGINS: &str = "extism::pdk";

/// The process's log.
static SINK: OnceLock<Sink> = OnceLock::new();

/// What [`guest_level`] answers.
static GUEST_LEVEL: AtomicI32 = AtomicI32::new(i32::MAX);

/// Sends the log to a file (appended to, created if absent), or to a stream: `None`, `-` and `stderr` are
/// standard error, `stdout` is standard output. `filter` is a level or a list; `None` means `error`.
pub(crate) fn to_file(path: Option<&str>, filter: Option<&str>) -> Result<()> {
    install(|| Sink::file(path, filter))
}

/// Keeps log lines in memory, at most 16 MiB of them, until [`drain`] takes them.
pub(crate) fn to_buffer(filter: Option<&str>) -> Result<()> {
    install(|| Sink::buffer(filter))
}

/// Hands over the lines that wait at this moment, oldest first, each with its newline and once. `take` may log
/// and drain. Without a buffer there is nothing to hand over.
pub(crate) fn drain(take: impl FnMut(&CStr)) {
    if let Some(sink) = SINK.get() {
        sink.drain(take);
    }
}

/// Writes what a plug-in logs. Call it if [`enabled`] says that the level is wanted.
#[cold]
pub(crate) fn plugin_log(level: Level, plugin: &dyn Display, text: &[u8]) {
    if let Some(sink) = SINK.get() {
        sink.log(level, PLUGINS, text, Some(plugin));
    }
}

/// Whether anybody wants what plug-ins log at this level. One atomic load.
pub(crate) fn enabled(level: Level) -> bool {
    number(level.to_level_filter()) >= guest_level()
}

/// The most verbose level that is wanted of plug-ins: 0 trace, 1 debug, 2 info, 3 warn, 4 error, `i32::MAX` none.
pub(crate) fn guest_level() -> i32 {
    GUEST_LEVEL.load(Relaxed)
}

fn number(level: LevelFilter) -> i32 {
    match level {
        LevelFilter::Off => i32::MAX,
        LevelFilter::Error => 4,
        LevelFilter::Warn => 3,
        LevelFilter::Info => 2,
        LevelFilter::Debug => 1,
        LevelFilter::Trace => 0,
    }
}

/// Makes a sink the process's log, if there is none yet. What fails changes nothing.
fn install(make: impl FnOnce() -> Result<Sink>) -> Result<()> {
    // Asked before the sink is made, so that a refused call creates no file.
    if let Some(sink) = SINK.get() {
        return Err(refused(sink));
    }
    let sink = make()?;
    let (plugins, all) = (sink.level_of(PLUGINS), sink.most_verbose());
    if SINK.set(sink).is_err() {
        return Err(SINK.get().map_or_else(|| Error::new("the log is being set by another thread"), refused));
    }
    GUEST_LEVEL.store(number(plugins), Relaxed);
    // Refused only where a program that links this library statically has given the crate a logger of its own:
    // then what Wasmtime says goes there.
    if log::set_logger(&Facade).is_ok() {
        log::set_max_level(all);
    }
    Ok(())
}

/// The log, held across a fork.
pub(crate) struct Held {
    _place: MutexGuard<'static, Place>,
}

/// Keeps everybody from writing to the log, if there is one.
pub(crate) fn hold() -> Option<Held> {
    SINK.get().map(|sink| Held { _place: sink.lock() })
}

fn refused(sink: &Sink) -> Error {
    Error::new(format!("the log goes to {} already; it is set once for a process", sink.name()))
}

/// What the crate `log` calls.
struct Facade;

impl Log for Facade {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        SINK.get().is_some_and(|sink| metadata.level() <= sink.level_of(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(sink) = SINK.get()
            && self.enabled(record.metadata())
        {
            sink.log(record.level(), record.target(), record.args().to_string().as_bytes(), None);
        }
    }

    fn flush(&self) {}
}
