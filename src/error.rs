//! The one error type of the crate.
//!
//! A message says what was expected, what was found and where, in that order, so that it can be acted upon without
//! reading the source. The [`ErrorKind`] is what programs branch on; its numbers are stable and never reused, since
//! the C interface hands them out as they are.

use std::fmt;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for programs. Numbers are stable; new kinds may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument was wrong: a prompt outside the picture, a reversed box, a threshold outside 0..1.
    InvalidArgument = 1,
    /// A file could not be read or written.
    Io = 2,
    /// A checkpoint, its configuration or its tokenizer is damaged or does not fit together.
    Checkpoint = 3,
    /// A picture could not be decoded, or exceeds the pixel limit.
    Image = 4,
    /// The input is well-formed, but this build or this engine has no support for it.
    Unsupported = 5,
    /// Memory of the host or of the device ran out.
    OutOfMemory = 6,
    /// The work was cancelled by the caller.
    Cancelled = 7,
    /// A second concurrent call on something that takes one caller at a time.
    Busy = 8,
    /// The compute device or its driver failed, or is not there.
    Device = 9,
    /// A defect of this crate. Please report it.
    Internal = 10,
}

/// An error with its kind, a message for people, and the error below it where there is one.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` whose message says what was expected, what was found, and where.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Shorthand for [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Shorthand for [`ErrorKind::Checkpoint`].
    pub fn checkpoint(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Checkpoint, message)
    }

    /// Attaches the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts the place, usually a file, before the message: `place: message`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The source's text is part of `Display`; handing it out again would print it twice in an error chain.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_place_and_cause() {
        let e = Error::checkpoint("expected 3, found 4").with_source("cause").at("config.json");
        assert_eq!(e.to_string(), "config.json: expected 3, found 4: cause");
        assert_eq!(e.kind(), ErrorKind::Checkpoint);
    }
}
