//! From how a guest ended to what the host is told.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};

use super::rewrite::Places;
use super::wasi::Exit;
use crate::guest::Fail;
use crate::state::State;
use crate::state::interrupt::Stopped;

/// The return code of a call that a trap, a timeout or a cancel ended.
const TRAPPED: i32 = 134;
/// The return code of a call that an error ended.
const FAILED: i32 = -1;

/// What the host is told of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The return code.
    pub code: i32,
    /// The plug-in's error after this call.
    pub error: Option<String>,
}

impl Outcome {
    /// An error of the library's, before or around the guest.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { code: FAILED, error: Some(error.into()) }
    }

    /// A timeout or a cancel.
    pub fn stopped(stopped: Stopped) -> Self {
        Self { code: TRAPPED, error: Some(stopped.to_string()) }
    }
}

/// The outcome of a guest that ran. Where several endings apply: fuel; then timeout or cancel; then the exit code; then
/// an error that was set; then an error of a guest function; then memory; then the trap.
///
/// `places`: where the module's code stood before it was rewritten.
pub(super) fn classify(result: wasmtime::Result<i32>, state: &State, denied: bool, places: &Places) -> Outcome {
    let set = || state.error.as_ref().map(|error| String::from_utf8_lossy(&error.text).into_owned());
    let error = match result {
        Ok(code) => return Outcome { code, error: set() },
        Err(error) => error,
    };
    if let Some(Trap::OutOfFuel) = error.downcast_ref() {
        return Outcome::failed("plugin ran out of fuel");
    }
    let fail = error.downcast_ref::<Fail>();
    let stopped = match fail {
        Some(Fail::Stopped(stopped)) => Some(stopped),
        _ => error.downcast_ref::<Stopped>(),
    };
    if let Some(stopped) = stopped {
        return Outcome::stopped(*stopped);
    }
    if let Some(Exit(code)) = error.downcast_ref() {
        let exit = || (*code != 0).then(|| format!("WASI exit code: {code}"));
        return Outcome { code: *code, error: set().or_else(exit) };
    }
    if let Some(text) = set() {
        return Outcome::failed(text);
    }
    match fail {
        Some(Fail::Error(error)) => Outcome::failed(error.to_string()),
        Some(Fail::OutOfMemory) => Outcome::failed("oom"),
        _ if denied => Outcome::failed("oom"),
        // What is no trap is an error of a host function, or an exception that nothing caught.
        _ => Outcome { code: if error.is::<Trap>() { TRAPPED } else { FAILED }, error: Some(describe(&error, places)) },
    }
}

/// What a text about a trap may have at most: the guest chose the names in it.
const MAX_TEXT: usize = 16 * 1024;

/// The reason, from the innermost cause outwards, and the guest's frames below it.
fn describe(error: &wasmtime::Error, places: &Places) -> String {
    let mut text = Bounded::default();
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    // The frames are the outermost link of the chain; they come last, and once.
    let causes: Vec<_> = error.chain().skip(usize::from(backtrace.is_some())).collect();
    for (index, cause) in causes.into_iter().rev().enumerate() {
        let separator = if index == 0 { "" } else { ": " };
        text.write(format_args!("{separator}{cause}"));
    }
    let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
    if !frames.is_empty() {
        text.write(format_args!("\nwasm backtrace:"));
    }
    for (index, frame) in frames.iter().enumerate() {
        let offset = places.original_offset(frame.module_offset().unwrap_or(0));
        text.write(format_args!("\n{index:5}: {offset:#8x} - "));
        match frame.func_name() {
            Some(name) => text.write(format_args!("{name}")),
            None => text.write(format_args!("function {}", frame.func_index())),
        }
        for symbol in frame.symbols() {
            if let (Some(file), Some(line)) = (symbol.file(), symbol.line()) {
                text.write(format_args!("\n             at {file}:{line}"));
            }
        }
    }
    text.finish()
}

/// A text that is written up to its bound, whatever there is to write.
#[derive(Default)]
struct Bounded {
    text: String,
    is_cut: bool,
}

impl Bounded {
    fn write(&mut self, arguments: fmt::Arguments<'_>) {
        // The error only says that the bound was reached, and stops what is still writing.
        let _ = fmt::Write::write_fmt(self, arguments);
    }

    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push_str(" [...]");
        }
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = MAX_TEXT - self.text.len();
        self.is_cut |= more.len() > room;
        self.text.push_str(&more[..more.floor_char_boundary(room)]);
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}
