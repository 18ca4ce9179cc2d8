//! What the operating system says, in larder's words.

use std::io;
use std::path::Path;

use larder::{Error, ErrorKind, Operation};

/// The layer's name in errors and descriptions.
pub(crate) const LAYER: &str = "file";

/// `error` happened to `path` during `operation`. The message names the file, never a key or value.
pub(crate) fn trouble(operation: Operation, path: &Path, error: io::Error) -> Error {
    let kind = kind(&error);
    let remedy = match kind {
        ErrorKind::Full => "; free some space, or lower max_bytes of this tier",
        ErrorKind::ReadOnly => "; mount it writable, or give another directory",
        ErrorKind::PermissionDenied => "; give this user the right to write there, or another directory",
        ErrorKind::Corrupt => "; something that is not an entry stands in the way: remove it",
        _ => "",
    };
    Error::new(kind, LAYER, operation)
        .with_message(format!("{}: {error}{remedy}", path.display()))
        .with_source(error)
}

/// The file at `path`, met during `operation`, is no entry that can be read.
pub(crate) fn unreadable(operation: Operation, path: &Path, kind: ErrorKind, reason: &str) -> Error {
    Error::new(kind, LAYER, operation).with_message(format!("{}: {reason}", path.display()))
}

fn kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        // A file above the process's limit fails as a full disk does: no room for it.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        io::ErrorKind::OutOfMemory => ErrorKind::Full,
        io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        // A folder where a file belongs, or the other way round: nothing of ours.
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => ErrorKind::Corrupt,
        io::ErrorKind::StaleNetworkFileHandle => ErrorKind::Unavailable,
        io::ErrorKind::TimedOut => ErrorKind::Timeout,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
        _ => ErrorKind::Other,
    }
}
