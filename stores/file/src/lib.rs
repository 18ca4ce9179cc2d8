//! A directory as a store: the tier that outlives the process.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bytes::Bytes;
//! use larder::{Entry, Lifetime, Store, Timestamp};
//! use larder_file::FileStore;
//!
//! # let scratch = tempfile::tempdir().unwrap();
//! # let dir = scratch.path().join("pages");
//! let pages = FileStore::at(dir).max_entries(100_000).max_bytes(1 << 30).open().await?;
//! let entry = Entry::new(Bytes::from_static(b"<h1>larder</h1>"), Lifetime::forever(Timestamp::EPOCH));
//! pages.set("/", entry.clone()).await?;
//! assert_eq!(pages.get("/").await?, Some(entry));
//! # Ok::<(), larder::Error>(()) }).unwrap();
//! ```
//!
//! One file an entry, named by the SHA-256 of its key, in larder's
//! [byte form](larder::guide::wire_format) with the key and a checksum inside. So keys may be anything,
//! and a file that was changed, cut, swapped or put there by somebody else is an error of kind
//! [`Corrupt`](larder::ErrorKind::Corrupt): the entry can be overwritten or removed, and is never served.
//!
//! # What it survives
//!
//! A file is written under another name and renamed when it is whole. An acknowledged write therefore
//! outlives the process in every [`Durability`]; which one to choose is a question of power cuts only.
//! A full disk, a directory that became read-only or a missing right fail the call that meets them and
//! lose nothing that was stored.
//!
//! # Bounds
//!
//! By entries and by bytes; both hold whenever a call has returned. A write into a full store deletes as
//! many entries as it needs room for and not more, because deleting in bulk makes ext4 slow at creating
//! files for a minute. Dead entries go first where they are met, then those that were not read since the
//! hand came by (SIEVE); at opening, the order is that of writing. The index in memory costs 62 to 68
//! bytes an entry (up to twice that after growing) and holds no keys.
//!
//! # Many processes
//!
//! Any number of them may open one directory. Each sees what the others wrote and removed, at once. The
//! order of calls to one key is kept within a process; between processes the last rename wins. A reader that
//! meets a [renewal](Store::renew) of another process half done reads the file again. Each
//! keeps its bounds for the files that it knows: those it found at opening, wrote, or has read since. So
//! two processes may together hold up to twice the bound until one of them opens the directory anew. A
//! read never fails because something else cannot be deleted: the file is served and not counted.
//!
//! # Where it runs
//!
//! Each call runs on tokio's threads for blocking work; without a tokio runtime, on the thread that
//! polls it. A future that is dropped either has had its effect, as far as any later call can tell, or never
//! has one.
#![forbid(unsafe_code)]

mod builder;
mod directory;
mod error;
mod index;
mod place;
mod shelf;
mod sync;
mod ticket;

#[cfg(test)]
mod tests;

/// The project's front page shows a stack with this store, so its program is compiled here.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct OwnPage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use larder::{
    ClearPrefix, Description, Entry, Error, ErrorKind, Operation, Result, SetOutcome, Store, Timestamp,
};
use tokio::runtime::Handle;

pub use builder::{Durability, FileStoreBuilder};

use error::LAYER;
use index::MOST_ENTRIES;
use shelf::Shelf;
use ticket::{Ticket, Waiting};

/// Entries in a directory. Clones share it; two that were opened apart behave as two processes do.
#[derive(Clone, Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct FileStore {
    shelf: Arc<Shelf>,
}

/// See [`FileStore::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileStats {
    /// Bytes that were given to the system to write, of entries whole and of renewals. What the file system
    /// adds is not counted.
    pub bytes_written: u64,
    /// Entries that were given another lifetime in place, without their values.
    pub renewals: u64,
}

impl FileStore {
    /// A store in the directory `dir`, to be [opened](FileStoreBuilder::open). Other files in it are left
    /// alone, by [`clear`](Store::clear) too.
    pub fn at(dir: impl Into<PathBuf>) -> FileStoreBuilder {
        FileStoreBuilder::new(dir.into())
    }

    /// The directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.shelf.directory().root()
    }

    /// What this store has written since it was opened, clones included.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use std::time::Duration;
    /// # use bytes::Bytes;
    /// # use larder::{Entry, Lifetime, Store, Timestamp};
    /// # use larder_file::FileStore;
    /// # let scratch = tempfile::tempdir().unwrap();
    /// # let dir = scratch.path().join("pages");
    /// let pages = FileStore::at(dir).open().await?;
    /// let value = Bytes::from(vec![7; 1 << 20]);
    /// let minute = |start| Entry::fresh_for(value.clone(), start, Duration::from_secs(60));
    /// pages.set("/", minute(Timestamp::EPOCH)).await?;
    /// let before = pages.stats().bytes_written;
    /// pages.renew("/", minute(Timestamp::from_nanos(1))).await?;
    /// assert_eq!(pages.stats().bytes_written - before, 36);
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub fn stats(&self) -> FileStats {
        self.shelf.directory().stats()
    }

    fn over(shelf: Shelf) -> Self {
        Self { shelf: Arc::new(shelf) }
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Shelf, &Ticket) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ticket = Arc::new(Ticket::default());
        let Ok(runtime) = Handle::try_current() else {
            return work(&self.shelf, &ticket);
        };
        let waiting = Waiting(Arc::clone(&ticket));
        let store = self.clone();
        let outcome = runtime.spawn_blocking(move || work(&store.shelf, &ticket)).await;
        drop(waiting);
        match outcome.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(outcome) => outcome,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(_)) => Err(Error::new(ErrorKind::Unavailable, LAYER, operation)
                .with_message("the runtime is shutting down")),
        }
    }
}

impl Store for FileStore {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
        let key = key.to_owned();
        self.run(Operation::Get, move |shelf, _| shelf.get(&key)).await
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let key = key.to_owned();
        self.run(Operation::Set, move |shelf, ticket| shelf.set(&key, &entry, ticket)).await
    }

    /// Compares the file with `entry` and, where only the lifetime is another, writes 36 bytes into it; else
    /// as [`set`](Store::set). Costs a read of the file.
    async fn renew(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let key = key.to_owned();
        self.run(Operation::Set, move |shelf, ticket| shelf.renew(&key, &entry, ticket)).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(Operation::Remove, move |shelf, ticket| shelf.remove(&key, ticket)).await
    }

    async fn clear(&self) -> Result<()> {
        self.run(Operation::Clear, Shelf::clear).await
    }

    async fn get_many(&self, keys: &[&str], _now: Timestamp) -> Vec<Result<Option<Entry<Bytes>>>> {
        let owned: Vec<String> = keys.iter().copied().map(str::to_owned).collect();
        let work = move |shelf: &Shelf, _: &Ticket| Ok(owned.iter().map(|key| shelf.get(key)).collect());
        one_each(keys.len(), self.run(Operation::Get, work).await)
    }

    async fn set_many(&self, entries: &[(&str, Entry<Bytes>)]) -> Vec<Result<SetOutcome>> {
        let owned: Vec<_> = entries.iter().map(|(key, entry)| ((*key).to_owned(), entry.clone())).collect();
        let work = move |shelf: &Shelf, ticket: &Ticket| {
            Ok(owned.iter().map(|(key, entry)| shelf.set(key, entry, ticket)).collect())
        };
        one_each(entries.len(), self.run(Operation::Set, work).await)
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        let owned: Vec<String> = keys.iter().copied().map(str::to_owned).collect();
        let work = move |shelf: &Shelf, ticket: &Ticket| {
            Ok(owned.iter().map(|key| shelf.remove(key, ticket)).collect())
        };
        one_each(keys.len(), self.run(Operation::Remove, work).await)
    }

    /// How many files the index counts, whatever is in them.
    fn len(&self) -> Option<u64> {
        Some(self.shelf.len())
    }

    /// The sum of the files' lengths.
    fn weight(&self) -> Option<u64> {
        Some(self.shelf.bytes())
    }

    /// Every write is as durable as its mode makes it when it returns: nothing is left to do.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> Description {
        let bounds = self.shelf.bounds();
        let mut description = Description::new(LAYER).with("dir", self.dir().display());
        if bounds.entries < MOST_ENTRIES {
            description = description.with_count("max_entries", bounds.entries);
        }
        if bounds.bytes < u64::MAX {
            description = description.with_size("max_bytes", bounds.bytes);
        }
        description.with("durability", self.shelf.directory().durability()).holding(self.len(), self.weight())
    }
}

impl ClearPrefix for FileStore {
    /// Reads the header of every file: some 10 µs an entry.
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let prefix = prefix.to_owned();
        self.run(Operation::Clear, move |shelf, ticket| shelf.clear_prefix(&prefix, ticket)).await
    }
}

/// One result an item, also when the work as a whole failed.
fn one_each<T>(count: usize, results: Result<Vec<Result<T>>>) -> Vec<Result<T>> {
    results.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
}
