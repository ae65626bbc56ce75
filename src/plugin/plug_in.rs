//! A plug-in and the sequence of its calls.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::compiled::Compiled;
use super::errors::{Errors, Texts};
use super::turn::{Held, Occupant, Refused, Turn, thread_token};
use crate::error::{Error, Result};
use crate::memory;
use crate::state::interrupt::Interrupt;
use crate::state::{Config, State};
use crate::sync::{HeldIn, Mutex};
use crate::wasm::watchdog::Timer;
use crate::wasm::{Export, Host, Live, Outcome, Program, stack, tick};

/// A plug-in. Any thread may use it; calls take turns, everything else answers at once.
///
/// On cache lines of its own (processors fetch them in pairs): threads with other plug-ins must not slow it down.
#[repr(align(128))]
pub(crate) struct Plugin {
    id: Uuid,
    program: Arc<Program>,
    config: Arc<Config>,
    timeout: Option<Duration>,
    timer: Timer,
    host: Arc<Host>,
    /// What only the thread whose turn it is may touch.
    body: Turn<Body>,
    output: Output,
    errors: Errors,
    keep_headers: AtomicBool,
}

/// What a plug-in is between two calls.
enum Body {
    /// Without an instance: before the first call, and after a start-up that failed.
    Idle(Box<State>),
    /// With the instance that the next call continues in.
    Live(Box<Live>),
    /// A panic of the library ended a call half-way.
    Lost,
}

/// The output of the last finished call.
struct Output {
    data: AtomicPtr<u8>,
    length: AtomicU64,
}

/// What an output of length 0 points to: never NULL.
static EMPTY: u8 = 0;

impl Output {
    fn empty() -> *mut u8 {
        ptr::from_ref(&EMPTY).cast_mut()
    }

    fn new() -> Self {
        Self { data: AtomicPtr::new(Self::empty()), length: AtomicU64::new(0) }
    }

    fn publish(&self, data: *const u8, length: u64) {
        self.data.store(data.cast_mut(), Ordering::Release);
        self.length.store(length, Ordering::Release);
    }

    fn clear(&self) {
        self.length.store(0, Ordering::Release);
        self.data.store(Self::empty(), Ordering::Release);
    }
}

/// How a call ended, for its caller.
pub(crate) struct Ended {
    /// The return code.
    pub code: i32,
    /// Why it failed, if it did.
    pub error: Option<Error>,
}

impl Plugin {
    /// A plug-in under this handle, whose callbacks are given the handle `current`. `retire` takes it out of the
    /// registry once it was freed and no call runs in it any more.
    pub fn new(compiled: &Compiled, handle: u64, current: u64, retire: fn(u64)) -> Self {
        let id = Uuid::new_v4();
        let interrupt = Arc::new(Interrupt::new());
        let config = Arc::new(Mutex::new(compiled.config.clone()));
        let state = State::new(id, Arc::clone(&interrupt), Arc::clone(&config), compiled.max_var_bytes);
        Self {
            id,
            timer: Timer::new(Arc::clone(&interrupt), tick),
            program: Arc::clone(&compiled.program),
            config,
            timeout: compiled.timeout,
            host: Arc::new(Host::new(current)),
            body: Turn::new(Body::Idle(Box::new(state)), handle, retire),
            output: Output::new(),
            errors: Errors::default(),
            keep_headers: AtomicBool::new(false),
        }
    }

    /// Calls an export with this input. The whole sequence: turn, deadline, instance, memory, guest, output, error.
    pub fn call(&self, name: &str, input: &[u8], context: *mut c_void) -> Ended {
        let deadline = self.deadline();
        let mut body = match self.body.enter(deadline) {
            Ok(body) => body,
            Err(refused) => return self.refused(refused),
        };
        self.output.clear();
        let running = match Running::begin(self, deadline, context) {
            Ok(running) => running,
            Err(error) => return self.finish(Outcome::failed(error.to_string())),
        };
        let body: &mut Body = &mut body;
        let outcome = stack::with_room(stack::CALL, || self.run(body, name, input));
        drop(running);
        self.finish(outcome.unwrap_or_else(|error| {
            self.host.abandon();
            Outcome::failed(error.to_string())
        }))
    }

    /// Enters the plug-in at this place if nobody is inside, and if it is still there.
    ///
    /// # Safety
    ///
    /// The memory at `this` is that of a plug-in, or of one that was dropped, and nobody has used it since.
    #[inline]
    pub unsafe fn enter_if_there<'a>(this: *const Self) -> Option<Entered<'a>> {
        // SAFETY: the caller's promise; the place of a field is not looked at. Plug-ins are dropped once they were
        // retired, or if they never got a handle, and then nobody knows their place.
        let body = unsafe { Turn::enter_if_there(ptr::addr_of!((*this).body)) }?;
        // SAFETY: the turn that was taken is a part of it, and keeps it there.
        Some(Entered { plugin: unsafe { &*this }, body })
    }

    #[inline]
    fn deadline(&self) -> Option<Instant> {
        self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }

    fn refused(&self, refused: Refused) -> Ended {
        let code = if refused == Refused::TimedOut { 134 } else { -1 };
        let error = Error::new(refused.to_string());
        self.refuse(&error);
        Ended { code, error: Some(error) }
    }

    fn finish(&self, outcome: Outcome) -> Ended {
        self.errors.finish(thread_token, outcome.error.as_deref());
        Ended { code: outcome.code, error: outcome.error.map(Error::from) }
    }

    fn run(&self, body: &mut Body, name: &str, input: &[u8]) -> Outcome {
        match self.program.export(name) {
            Export::Callable => {}
            Export::Missing => return Outcome::failed(format!("Function not found: {name}")),
            Export::Other(what) => {
                return Outcome::failed(format!(
                    "the export `{name}` is {what}; what can be called is a function () -> () or () -> (i32)"
                ));
            }
        }
        // While this runs the body counts as lost, so that a panic leaves no half-done instance behind.
        let (live, outcome) = match self.live(std::mem::replace(body, Body::Lost), name) {
            Ok(mut live) => {
                let outcome = live.call(name, input);
                if let Some((data, length)) = live.output() {
                    self.output.publish(data, length);
                }
                (Body::Live(live), outcome)
            }
            Err(failed) => *failed,
        };
        *body = live;
        outcome
    }

    /// The instance for this call, ready: memory reset, the call before forgotten.
    fn live(&self, body: Body, name: &str) -> Result<Box<Live>, Box<(Body, Outcome)>> {
        let command = Live::is_command(name);
        let mut state = match body {
            Body::Live(mut live) if !command && !live.is_spent() => {
                live.reset();
                self.begin(live.state());
                return Ok(live);
            }
            Body::Live(live) => live.into_state(),
            Body::Idle(state) => state,
            Body::Lost => return Err(Box::new((Body::Lost, Outcome::failed(LOST)))),
        };
        self.begin(&mut state);
        let started = Live::start(&self.program, state, Arc::clone(&self.host), command);
        let mut live = started.map_err(|failed| Box::new((Body::Idle(failed.state), failed.outcome)))?;
        // What the start-up left behind is no business of the call.
        live.reset();
        live.state().begin_call();
        Ok(live)
    }

    fn begin(&self, state: &mut State) {
        state.begin_call();
        state.keep_headers = self.keep_headers.load(Ordering::Relaxed);
    }

    /// Where the output of the last finished call lies. Not NULL.
    pub fn output_data(&self) -> *const u8 {
        self.output.data.load(Ordering::Acquire)
    }

    /// How many bytes it has; 0 while a call runs.
    pub fn output_length(&self) -> u64 {
        self.output.length.load(Ordering::Acquire)
    }

    /// The bytes that a caller passes, copied if they lie in the output of the last call: the next one begins with
    /// emptying that memory.
    pub fn kept<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        if !self.is_output(bytes) {
            return Ok(Cow::Borrowed(bytes));
        }
        let copy = memory::copied(bytes).ok_or_else(|| Error::new("no memory for a copy of the last output"))?;
        Ok(Cow::Owned(copy))
    }

    /// Whether these bytes lie in the output of the last call.
    #[inline]
    fn is_output(&self, bytes: &[u8]) -> bool {
        let begin = self.output_data().addr();
        let output = begin..begin.saturating_add(self.output_length() as usize);
        output.contains(&bytes.as_ptr().addr())
    }

    /// The error that the asking thread sees, or NULL.
    pub fn error(&self) -> *const c_char {
        self.errors.get(thread_token())
    }

    /// This thread begins an operation: what it was refused before is forgotten.
    pub fn begin_operation(&self) {
        self.errors.begin(thread_token);
    }

    /// An operation of this thread was refused: it alone is told.
    pub fn refuse(&self, error: &Error) {
        self.errors.refuse(thread_token(), &error.to_string());
    }

    /// The bytes of the plug-in's UUID.
    pub fn id(&self) -> &[u8; 16] {
        self.id.as_bytes()
    }

    /// Whether this names a function that can be called.
    pub fn function_exists(&self, name: &str) -> bool {
        self.program.export(name) == Export::Callable
    }

    /// Frees all Extism memory; not while a call runs.
    pub fn reset(&self) -> Result<()> {
        let mut body = match self.body.try_enter() {
            Ok(body) => body,
            Err(_) => return Err(Error::new("the plug-in cannot be reset while a call runs")),
        };
        self.output.clear();
        *body = match std::mem::replace(&mut *body, Body::Lost) {
            Body::Live(live) if live.is_spent() => Body::Idle(live.into_state()),
            Body::Live(mut live) => {
                live.reset();
                Body::Live(live)
            }
            other => other,
        };
        Ok(())
    }

    /// Merges a JSON object of strings into the configuration; `null` removes a key.
    pub fn configure(&self, json: &[u8]) -> Result<()> {
        let changes: std::collections::BTreeMap<String, Option<String>> = serde_json::from_slice(json)
            .map_err(|error| Error::new(format!("the configuration must be a JSON object of strings: {error}")))?;
        let mut config = self.config.lock();
        for (key, value) in changes {
            match value {
                Some(value) => config.insert(key.into_bytes(), value.into()),
                None => config.remove(key.as_bytes()),
            };
        }
        Ok(())
    }

    /// Lets the guest see the headers of HTTP responses, from the next call on.
    pub fn allow_http_response_headers(&self) {
        self.keep_headers.store(true, Ordering::Relaxed);
    }

    /// Ends the call that runs, if one does.
    pub fn cancel(&self) {
        self.timer.cancel();
    }

    /// What its callbacks work with.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whether the host has freed it. A call may still run then.
    pub fn is_freed(&self) -> bool {
        self.body.is_freed()
    }

    /// Whether it was freed and no call runs in it any more.
    #[inline]
    pub fn is_retired(&self) -> bool {
        self.body.is_retired()
    }

    /// Takes the locks of the plug-in, for a fork.
    pub fn hold(self: &Arc<Self>) -> HeldPlugin {
        HeldPlugin {
            _callback: HeldIn::new(self, |plugin| plugin.host.lock()),
            _errors: HeldIn::new(self, |plugin| plugin.errors.lock()),
            _config: HeldIn::new(self, |plugin| &plugin.config),
            _events: HeldIn::new(self, |plugin| plugin.timer.interrupt().lock()),
        }
    }

    /// In the child of a fork. A call of the thread that forked goes on, and ends by its deadline; one of another
    /// thread is over for whoever watches, though the plug-in stays busy.
    pub fn go_on_in_child(&self) {
        match self.body.occupant() {
            Occupant::Nobody => {}
            Occupant::ThisThread => {
                if let Err(error) = self.timer.go_on() {
                    log::error!(target: "extism", "no thread watches over the timeout of a call that forked: {error}");
                }
            }
            Occupant::Another => {
                self.timer.end();
                self.host.abandon();
            }
        }
    }

    /// No call begins any more; the one that runs goes on. False if it was freed before.
    pub fn free(&self) -> bool {
        self.body.free()
    }
}

/// A plug-in whose locks are taken.
pub(crate) struct HeldPlugin {
    _callback: HeldIn<()>,
    _errors: HeldIn<Texts>,
    _config: HeldIn<crate::state::ConfigValues>,
    _events: HeldIn<u64>,
}

/// A plug-in that this thread is inside of.
pub(crate) struct Entered<'a> {
    plugin: &'a Plugin,
    body: Held<'a, Body>,
}

impl Entered<'_> {
    /// The same as [`Plugin::call`], if it is about the function that was called last and nothing stands in the way;
    /// else nothing has happened.
    #[inline]
    pub fn call_again(
        mut self,
        is_name: impl FnOnce(&CStr) -> bool,
        input: &[u8],
        context: *mut c_void,
    ) -> Option<Ended> {
        let plugin = self.plugin;
        let Body::Live(live) = &mut *self.body else {
            return None;
        };
        if !live.last_called().is_some_and(is_name) || !stack::has_room(stack::CALL) {
            return None;
        }
        plugin.output.clear();
        let running = Running::begin(plugin, plugin.deadline(), context).ok()?;
        plugin.begin(live.state());
        let lost = LostByPanic(&mut self);
        let outcome = lost.0.call_last(input);
        std::mem::forget(lost);
        drop(running);
        Some(plugin.finish(outcome))
    }

    #[inline]
    fn call_last(&mut self, input: &[u8]) -> Outcome {
        let Body::Live(live) = &mut *self.body else {
            return Outcome::failed(LOST);
        };
        let outcome = live.call_last(input);
        if let Some((data, length)) = live.output() {
            self.plugin.output.publish(data, length);
        }
        outcome
    }
}

/// A plug-in in the middle of a call: a panic leaves no half-done instance behind.
struct LostByPanic<'a, 'b>(&'a mut Entered<'b>);

impl Drop for LostByPanic<'_, '_> {
    #[cold]
    fn drop(&mut self) {
        *self.0.body = Body::Lost;
        self.0.plugin.errors.finish(thread_token, Some(LOST));
    }
}

const LOST: &str = "the plug-in was lost to an internal error of the library; create a new one";

/// The time in which a call runs: its deadline is armed, and its context can be read.
struct Running<'a>(&'a Plugin);

impl<'a> Running<'a> {
    fn begin(plugin: &'a Plugin, deadline: Option<Instant>, context: *mut c_void) -> Result<Self> {
        plugin
            .timer
            .begin(deadline)
            .map_err(|error| Error::new(format!("cannot start the thread that watches over timeouts: {error}")))?;
        plugin.host.set_context(context);
        Ok(Self(plugin))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let plugin = self.0;
        plugin.host.set_context(ptr::null_mut());
        plugin.timer.end();
    }
}
