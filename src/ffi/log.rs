//! # Logs
//!
//! Logging is off until one of these functions turns it on, once and for the whole process: to a
//! file, to a stream, or to a buffer that the host drains. A line looks like
//!
//!     2026-01-31T12:00:00.000000Z  INFO extism::pdk: text plugin="4f6f..."
//!
//! with the target `extism::pdk` for what plug-ins log, and `extism` for the library itself.
//!
//! A level is `off`, `error`, `warn`, `info`, `debug` or `trace`, or a list of targets and levels
//! such as `extism=info,cranelift=debug`.

use std::ffi::c_char;

use super::types::{BooleanResult, ExtismLogDrainFunctionType, ExtismSize};
use super::{args, fork, guard::boundary};
use crate::error::Error;
use crate::logging;

/// Writes the log to a file or a stream.
///
/// - `filename`: the file, created if it does not exist, appended to if it does; `-`, `stderr` or
///   NULL for the standard error stream, `stdout` for standard output.
/// - `log_level`: NULL for `error`.
///
/// Returns true on success; false if the process has a log already, the file cannot be opened or the
/// level is none, with the reason in `extism_last_error`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_log_file(filename: *const c_char, log_level: *const c_char) -> BooleanResult {
    boundary(|| {
        // SAFETY: the C contract: NUL-terminated strings or NULL.
        let (filename, level) =
            unsafe { (args::optional_text("`filename`", filename)?, args::optional_text("`log_level`", log_level)?) };
        fork::prepare();
        logging::to_file(filename, level)?;
        Ok(1)
    })
}

/// Keeps log lines in a buffer for `extism_log_drain`.
///
/// - `log_level`: NULL for `error`.
///
/// The buffer holds 16 MiB; beyond that the oldest lines are dropped, and counted in a line of
/// their own. Returns true on success; false if the process has a log already or the level is none,
/// with the reason in `extism_last_error`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_log_custom(log_level: *const c_char) -> BooleanResult {
    boundary(|| {
        // SAFETY: the C contract: a NUL-terminated string or NULL.
        let level = unsafe { args::optional_text("`log_level`", log_level)? };
        fork::prepare();
        logging::to_buffer(level)?;
        Ok(1)
    })
}

/// Hands over the lines that were kept since `extism_log_custom` or the last drain, oldest first.
///
/// - `handler`: called once for each line, on this thread. It may log, and may drain again.
///
/// Fails if `handler` is NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_log_drain(handler: ExtismLogDrainFunctionType) {
    boundary(|| {
        let handler = handler.ok_or_else(|| Error::new("`handler` is NULL"))?;
        logging::drain(|line| {
            // SAFETY: the C contract of the handler; the line is readable until it returns.
            unsafe { handler(line.as_ptr(), line.count_bytes() as ExtismSize) }
        });
        Ok(())
    });
}
