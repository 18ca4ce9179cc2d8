//! How a directory is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use larder::{Clock, Error, ErrorKind, Operation, Result, SystemClock};
use tokio::runtime::Handle;

use crate::FileStore;
use crate::error::LAYER;
use crate::index::{Bounds, MOST_ENTRIES};
use crate::shelf::Shelf;

/// What an acknowledged `set`, `remove` or `clear` outlives. A `get` never returns a torn or wrong value
/// in any mode: entries become visible by a rename, and a checksum covers all of each file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// The end of the process, however it ends (`kill -9`). After a power cut, entries of the last
    /// seconds may be missing or corrupt (an error, never a wrong value), and removed ones may be back.
    /// The right choice for a cache, and the default.
    #[default]
    None,
    /// As `None`, and what is there after a power cut is whole: a file is on the disk (`fdatasync`)
    /// before it gets its name. The name itself may be lost, and removed entries may be back. Costs some
    /// 100 to 400 µs a write on an SSD.
    File,
    /// A power cut too: the folder is on the disk (`fsync`) as well before the call returns. Costs
    /// about twice as much as `File` on a write, and as much as it on a removal.
    Full,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::File => "file",
            Self::Full => "full",
        })
    }
}

/// A [`FileStore`] in the making: see [`FileStore::at`].
#[must_use = "a builder does nothing until it is opened"]
pub struct FileStoreBuilder {
    dir: PathBuf,
    bounds: Bounds,
    durability: Durability,
    clock: Arc<dyn Clock>,
}

impl FileStoreBuilder {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            bounds: Bounds { entries: 1_000_000, bytes: 1 << 30 },
            durability: Durability::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Holds this many entries at most; 1,000,000 unless told. At least 1; `u64::MAX` for no bound.
    pub const fn max_entries(mut self, entries: u64) -> Self {
        self.bounds.entries = entries;
        self
    }

    /// Holds this many bytes at most, as the sum of the files' lengths (header, key and value of each
    /// entry); 1 GiB unless told. At least 1; `u64::MAX` for no bound. The disk gives each file
    /// whole blocks, so that 1,000,000 small entries occupy 4 GB of a file system with blocks of 4 KiB.
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// What an acknowledged write outlives; the end of the process unless told.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Judges by this clock which entries are dead and go first when room is needed; the system's
    /// unless told.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the directory, as [`open_blocking`](Self::open_blocking) does, on a thread that may block.
    pub async fn open(self) -> Result<FileStore> {
        let Ok(runtime) = Handle::try_current() else {
            return self.open_blocking();
        };
        match runtime.spawn_blocking(|| self.open_blocking()).await {
            Ok(opened) => opened,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::new(ErrorKind::Unavailable, LAYER, Operation::Build)
                    .with_message("the runtime is shutting down")),
            },
        }
    }

    /// Opens the directory and makes it if need be; sweeps what dead processes were writing; lists the
    /// entries, without reading them (about 5 µs each), in the order in which they were
    /// written; and gives up the oldest until both bounds hold.
    ///
    /// Fails with [`InvalidInput`](ErrorKind::InvalidInput) for a bound of zero and for a path that is not
    /// a directory, with [`NewerVersion`](ErrorKind::NewerVersion) if a newer program has made the
    /// directory, and with [`ReadOnly`](ErrorKind::ReadOnly) or
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if it cannot be written to. The message names
    /// the path.
    pub fn open_blocking(self) -> Result<FileStore> {
        let Self { dir, mut bounds, durability, clock } = self;
        for (argument, bound) in [("max_entries", bounds.entries), ("max_bytes", bounds.bytes)] {
            if bound == 0 {
                let message = format!("{argument}: 0 keeps nothing; give at least 1, or leave this tier out");
                return Err(Error::invalid(LAYER, message));
            }
        }
        bounds.entries = bounds.entries.min(MOST_ENTRIES);
        Ok(FileStore::over(Shelf::open(&dir, bounds, durability, clock)?))
    }
}

impl fmt::Debug for FileStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStoreBuilder")
            .field("dir", &self.dir)
            .field("bounds", &self.bounds)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
