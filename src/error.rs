//! One error: a kind for machines, a message for people, the source underneath.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What went wrong, as far as a program needs to know. Each variant's text ends in what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or a setting makes no sense; the message names it. Correct the call.
    InvalidInput,
    /// Stored bytes are not what was written: changed, cut, swapped or foreign. Overwrite or remove the
    /// entry; if it happens often, look at the disk or at who else writes there.
    Corrupt,
    /// The bytes were written by a newer version of the format. Upgrade this program, or remove the entry.
    NewerVersion,
    /// The store could not be reached. Serve without it and try again later.
    Unavailable,
    /// No answer within the time that was set. Serve without it; raise the limit if the work is that slow.
    Timeout,
    /// As many loads run and wait as may (`max_loads`, `max_waiting_loads`). Serve without it and try again when
    /// there is less to do; raise the limits if the origin can bear more.
    Overloaded,
    /// The store refused these credentials or rights. Correct them; trying again changes nothing.
    PermissionDenied,
    /// The store takes no writes at present. Reads may still work; find out why it became read-only.
    ReadOnly,
    /// The store has no room left. Free some, or lower the bound of this tier.
    Full,
    /// The store cannot do this at all. Choose another store or leave the call out.
    Unsupported,
    /// The computation of a value failed; its error is the source. Handle that error.
    Computation,
    /// The computation of a batch ended well and did not answer for this key: its origin has nothing there.
    /// Take it for absent; to have that remembered, cache `Option` values.
    NotFound,
    /// A computation asked, directly or through others, for the value that it is to produce. Compute
    /// it without asking for its own key.
    Cycle,
    /// The cache was shut down. Do not start new work on it.
    ShutDown,
    /// Anything else; the source knows more. Report it.
    Other,
}

impl ErrorKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid input",
            Self::Corrupt => "corrupt bytes",
            Self::NewerVersion => "newer format version",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Overloaded => "overloaded",
            Self::PermissionDenied => "permission denied",
            Self::ReadOnly => "read-only",
            Self::Full => "no room left",
            Self::Unsupported => "unsupported",
            Self::Computation => "computation failed",
            Self::NotFound => "not found",
            Self::Cycle => "computation waits for itself",
            Self::ShutDown => "shut down",
            Self::Other => "failed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Making, opening or connecting something.
    Build,
    /// Reading one entry or many.
    Get,
    /// Writing one entry or many.
    Set,
    /// Removing one entry or many.
    Remove,
    /// Removing everything in scope.
    Clear,
    /// Removing or expiring everything that carries a tag.
    Invalidate,
    /// Waiting for what was written to be durable.
    Flush,
    /// Computing a value.
    Compute,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Get => "get",
            Self::Set => "set",
            Self::Remove => "remove",
            Self::Clear => "clear",
            Self::Invalidate => "invalidate",
            Self::Flush => "flush",
            Self::Compute => "compute",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call failed: a kind, the layer, the operation, a message, the source.
///
/// One pointer, cheap to clone: many waiters share one failed computation. Its own text holds no value of
/// the cache. Its source may: a decoder's error can quote what it could not read, and `Debug` shows it.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    layer: Cow<'static, str>,
    operation: Operation,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `layer` (a store's or adapter's name in lower case) in `operation`.
    pub fn new(kind: ErrorKind, layer: impl Into<Cow<'static, str>>, operation: Operation) -> Self {
        Self(Arc::new(Inner {
            kind,
            layer: layer.into(),
            operation,
            message: Cow::Borrowed(""),
            source: None,
        }))
    }

    /// A setting or argument that makes no sense: names the culprit and says what would do.
    pub fn invalid(layer: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, layer, Operation::Build).with_message(message)
    }

    /// The same error with this sentence for people.
    #[must_use = "this returns the error with the message"]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).message = message.into();
        self
    }

    /// The same error with what caused it.
    #[must_use = "this returns the error with the source"]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source.into()));
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Which layer failed.
    pub fn layer(&self) -> &str {
        &self.0.layer
    }

    /// What it was doing.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The source as a `T`, if it is one: the error that a computation returned, say.
    pub fn source_as<T: StdError + 'static>(&self) -> Option<&T> {
        StdError::source(self)?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.0.layer, self.0.operation, self.0.kind)?;
        if self.0.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.0.message) }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("layer", &self.0.layer).field("operation", &self.0.operation);
        if !self.0.message.is_empty() {
            debug.field("message", &self.0.message);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// What a fallible call returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_layer_the_operation_and_the_culprit() {
        let error = Error::invalid("sharded", "shards: 0 is not between 1 and 65,536");
        assert_eq!(error.to_string(), "sharded: build: invalid input: shards: 0 is not between 1 and 65,536");
    }

    #[test]
    fn a_shared_error_keeps_its_source() {
        let error = Error::new(ErrorKind::Computation, "cache", Operation::Compute)
            .with_source(std::io::Error::other("origin is down"));
        let shared = error.clone();
        let source: &std::io::Error = shared.source_as().unwrap();
        assert_eq!(source.to_string(), "origin is down");
    }
}
