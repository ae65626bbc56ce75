//! What one plug-in owns while it is called: its blocks, input, output, error, variables and configuration.
//!
//! All of it lives in host memory. A guest can write every byte of its Extism memory, so nothing that the host
//! relies on is kept there; what a guest names (offsets, lengths, handles) is checked where it comes in.

pub(crate) mod interrupt;
mod vars;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::Mutex;
use uuid::Uuid;

use crate::memory::{self, Blocks};
use interrupt::Interrupt;
pub(crate) use vars::Vars;

/// The configuration of a plug-in. The host may change it at any time, also while a call runs.
pub(crate) type Config = Mutex<ConfigValues>;

/// Values by the bytes of their keys. The plug-ins of a compiled plug-in share values, and have maps of their own.
pub(crate) type ConfigValues = BTreeMap<Vec<u8>, Arc<str>>;

/// A range of Extism memory that was checked when it was set. `length` 0 means "none".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Where it begins, in bytes from the start of Extism memory.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Span {
    /// The span that a guest names, if it lies inside a memory of `size` bytes.
    /// Length 0 and offset 0 both mean "none".
    pub fn checked(offset: u64, length: u64, size: usize) -> Option<Self> {
        if offset == 0 || length == 0 {
            return Some(Self::default());
        }
        memory::range(offset, length, size).map(|_| Self { offset, length })
    }
}

/// The text that a plug-in gave with `error_set`, copied at once, and the handle it was given as.
#[derive(Debug)]
pub(crate) struct GuestError {
    pub text: Vec<u8>,
    pub handle: u64,
}

/// What the last HTTP request of a plug-in left behind for `http_status_code` and `http_headers`.
#[derive(Debug, Default)]
pub(crate) struct LastResponse {
    pub status: u16,
    /// A JSON object, lower-case names to values; absent unless the host allowed response headers.
    pub headers: Option<Vec<u8>>,
}

/// What one plug-in owns. It outlives the plug-in's instances, which come and go.
pub(crate) struct State {
    /// Names the plug-in in log lines.
    pub id: Uuid,
    /// Deadline and cancel flag of the running call.
    pub interrupt: Arc<Interrupt>,
    /// What `config_get` answers from.
    pub config: Arc<Config>,
    /// The block table of Extism memory.
    pub blocks: Blocks,
    /// What `input_*` speak of.
    pub input: Span,
    /// What the guest named as its output.
    pub output: Span,
    /// What the guest said is wrong.
    pub error: Option<GuestError>,
    /// What `var_get` and `var_set` work on; survives calls.
    pub vars: Vars,
    /// Of the last HTTP request, also if an earlier call made it.
    pub response: LastResponse,
    /// Whether response headers are kept for the guest.
    pub keep_headers: bool,
    /// An `alloc` of this call could not be met.
    pub starved: bool,
    /// An error of this call has left the core dump that was asked for, in the store that it came from.
    pub dumped: bool,
}

impl State {
    /// The state of a plug-in that was never called.
    pub fn new(id: Uuid, interrupt: Arc<Interrupt>, config: Arc<Config>, max_var_bytes: Option<u64>) -> Self {
        Self {
            id,
            interrupt,
            config,
            blocks: Blocks::new(),
            input: Span::default(),
            output: Span::default(),
            error: None,
            vars: Vars::new(max_var_bytes),
            response: LastResponse::default(),
            keep_headers: false,
            starved: false,
            dumped: false,
        }
    }

    /// A stand-in for the store of a linked command, whose guest functions work on the state of its caller.
    pub fn detached(of: &Self) -> Self {
        Self::new(of.id, Arc::clone(&of.interrupt), Arc::clone(&of.config), Some(0))
    }

    /// Whether there are no blocks, no input and no output, and were none since the last reset.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.input == Span::default() && self.output == Span::default()
    }

    /// Forgets what belonged to the call before. The blocks are the memory's business ([`crate::guest::reset`]).
    pub fn begin_call(&mut self) {
        self.error = None;
        self.starved = false;
        self.dumped = false;
    }
}
