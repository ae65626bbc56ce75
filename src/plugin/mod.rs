//! What users have: plug-ins and their calls, compiled plug-ins, and the manifests that describe them.

#[cfg(feature = "runtime")]
mod compiled;
mod errors;
pub(crate) mod manifest;
#[cfg(feature = "runtime")]
#[allow(unsafe_code)] // a plug-in that may be gone
mod plug_in;
#[allow(unsafe_code)] // the value behind the turn
pub(crate) mod turn;

#[cfg(feature = "runtime")]
pub(crate) use compiled::Compiled;
pub(crate) use errors::c_string;
#[cfg(feature = "runtime")]
pub(crate) use plug_in::{Ended, Entered, HeldPlugin, Plugin};
