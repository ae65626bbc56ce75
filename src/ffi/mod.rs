//! The C boundary: the functions and types of `include/extism.h`.
//!
//! One file for each section of the header, which is generated from them; beside these `guard` (the one way in and
//! out), `args` (what callers pass becomes values), `handles` (what handles stand for) and `fork` (what keeps working
//! in the child of a fork).

// Raw pointers come in and go out here, and the exports are `no_mangle`.
#![allow(unsafe_code)]
// The documentation of the exports is the header's: its first section says what a caller promises.
#![allow(clippy::missing_safety_doc)]

mod args;
pub mod compiled;
pub mod current_plugin;
mod fork;
pub mod function;
mod guard;
mod handles;
pub mod library;
pub mod log;
pub mod plugin;
pub mod types;
