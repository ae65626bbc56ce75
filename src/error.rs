//! The one error type of the layers that know nothing of wasmtime.

use std::fmt::{self, Display};

/// What went wrong, in the words that the host program will read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

/// A result whose error is a message for the host.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same error, with a text of at most about 16 KiB: what is quoted of a module or manifest has any length.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        const MAX: usize = 16 * 1024;
        if self.0.len() > MAX {
            self.0.truncate(self.0.floor_char_boundary(MAX));
            self.0.push_str(" [...]");
        }
        self
    }

    /// The same error, introduced by what was being done: `what: message`.
    #[must_use]
    pub fn context(self, what: impl Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}
