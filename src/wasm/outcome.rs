//! From how a guest ended to what the host is told.

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

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
pub(super) fn classify(result: wasmtime::Result<i32>, state: &State, denied: bool) -> Outcome {
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
    if let Some(I32Exit(code)) = error.downcast_ref() {
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
        _ => Outcome { code: if error.is::<Trap>() { TRAPPED } else { FAILED }, error: Some(describe(&error)) },
    }
}

/// The reason, from the innermost cause outwards, and the guest's frames below it.
fn describe(error: &wasmtime::Error) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string);
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).collect::<Vec<_>>().into_iter().rev() {
        // The context that carries the frames repeats them in its text.
        if frames.as_ref().is_some_and(|frames| cause.contains(frames.as_str())) || text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    if let Some(frames) = frames {
        text.push('\n');
        text.push_str(frames.trim_end());
    }
    text
}
