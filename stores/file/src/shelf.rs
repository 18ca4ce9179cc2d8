//! What the store does, on the thread that does it: the directory and the index, kept in step.
//!
//! Three locks, always taken in this order and never two of a kind:
//!
//! - A *turn*, one for each lane of places. A call holds the turn of its key from its first look to its
//!   last effect, so that calls of one key happen one after the other; readers share it. Eviction takes
//!   no turn: it only forgets, which is legal at any moment.
//! - The *change* lock, around every rename and deletion with what the index learns of it. So the index
//!   never counts a file that is gone, and the bounds hold whenever it is free.
//! - The *index*, for moments in which nothing waits for a disk.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use larder::{Clock, Entry, ErrorKind, Operation, Refusal, Result, SetOutcome, wire};

use crate::builder::Durability;
use crate::directory::Directory;
use crate::error::{LAYER, unreadable};
use crate::index::{Bounds, Index, Keep, Known};
use crate::place::{LANES, Place};
use crate::sync::{Mutex, RwLock};
use crate::ticket::Ticket;

/// How often a file that seems damaged is read again.
const REREADS: u32 = 3;

pub(crate) struct Shelf {
    directory: Directory,
    bounds: Bounds,
    clock: Arc<dyn Clock>,
    turns: Box<[RwLock<()>]>,
    change: Mutex<()>,
    index: Mutex<Index>,
}

impl Shelf {
    pub(crate) fn open(
        dir: &Path,
        bounds: Bounds,
        durability: Durability,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let shelf = Self {
            directory: Directory::open(dir, durability)?,
            bounds,
            clock,
            turns: (0..LANES).map(|_| RwLock::default()).collect(),
            change: Mutex::new(()),
            index: Mutex::new(Index::new(bounds)),
        };
        for known in shelf.directory.scan()? {
            shelf.admit(known, Operation::Build)?;
        }
        Ok(shelf)
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
        let place = Place::of(key);
        let _turn = self.turns[place.lane()].read();
        let mut read = self.read(place, key);
        // Another process may be renewing it: what was half written then is whole now.
        for _ in 0..REREADS {
            if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
                break;
            }
            read = self.read(place, key);
        }
        let Some((entry, len)) = read? else {
            // Evicted, or removed by another process.
            self.index.lock().remove(place);
            return Ok(None);
        };
        let known = Known { place, bytes: len, keep: Keep::of(entry.lifetime()) };
        if !self.index.lock().touch(known) {
            self.adopt(known);
        }
        Ok(Some(entry))
    }

    /// The entry of `key`, if there is a file, and how long that is.
    fn read(&self, place: Place, key: &str) -> Result<Option<(Entry<Bytes>, u64)>> {
        let Some(bytes) = self.directory.read(place)? else { return Ok(None) };
        let len = bytes.len() as u64;
        let entry = wire::decode(key.as_bytes(), bytes).map_err(|error| {
            unreadable(Operation::Get, &self.directory.path(place), error.kind(), "not what was written")
                .with_source(error)
        })?;
        Ok(Some((entry, len)))
    }

    pub(crate) fn set(&self, key: &str, entry: &Entry<Bytes>, ticket: &Ticket) -> Result<SetOutcome> {
        let place = Place::of(key);
        let _turn = self.turns[place.lane()].write();
        let _step = ticket.begin().ok_or_else(|| nobody_waits(Operation::Set))?;
        self.write(place, key, entry)
    }

    /// Writes a lifetime where a lifetime is all that is new, else the whole entry.
    pub(crate) fn renew(&self, key: &str, entry: &Entry<Bytes>, ticket: &Ticket) -> Result<SetOutcome> {
        let place = Place::of(key);
        let _turn = self.turns[place.lane()].write();
        let _step = ticket.begin().ok_or_else(|| nobody_waits(Operation::Set))?;
        if self.renew_in_place(place, key, entry)? {
            self.directory.settle(place.lane(), Operation::Set)?;
            return Ok(SetOutcome::Stored);
        }
        self.write(place, key, entry)
    }

    fn renew_in_place(&self, place: Place, key: &str, entry: &Entry<Bytes>) -> Result<bool> {
        let bytes = wire::encoded_len(key.as_bytes(), entry);
        if bytes > self.bounds.bytes
            || !self.directory.renew(place, &wire::head(key.as_bytes(), entry), entry.value())
        {
            return Ok(false);
        }
        let _change = self.change.lock();
        // Evicted meanwhile: what was renewed has no name any more.
        if self.directory.size(place) != Some(bytes) {
            return Ok(false);
        }
        // The newest again, as by a write.
        self.admit(Known { place, bytes, keep: Keep::of(entry.lifetime()) }, Operation::Set)?;
        Ok(true)
    }

    /// The turn is held.
    fn write(&self, place: Place, key: &str, entry: &Entry<Bytes>) -> Result<SetOutcome> {
        let bytes = wire::encoded_len(key.as_bytes(), entry);
        if bytes > self.bounds.bytes {
            self.forget(place, Operation::Set)?;
            self.directory.settle(place.lane(), Operation::Set)?;
            return Ok(SetOutcome::Refused(Refusal::TooLarge));
        }
        // What can go wrong goes wrong here, where nothing has changed yet.
        let temporary = self.directory.write([&wire::head(key.as_bytes(), entry), entry.value()])?;
        {
            let _change = self.change.lock();
            self.directory.publish(temporary, place)?;
            let known = Known { place, bytes, keep: Keep::of(entry.lifetime()) };
            self.admit(known, Operation::Set)?;
        }
        self.directory.settle(place.lane(), Operation::Set)?;
        Ok(SetOutcome::Stored)
    }

    pub(crate) fn remove(&self, key: &str, ticket: &Ticket) -> Result<()> {
        let place = Place::of(key);
        let _turn = self.turns[place.lane()].write();
        let _step = ticket.begin().ok_or_else(|| nobody_waits(Operation::Remove))?;
        self.forget(place, Operation::Remove)?;
        // Also when there was no file: it may have been evicted, and come back after a power cut.
        self.directory.settle(place.lane(), Operation::Remove)?;
        Ok(())
    }

    pub(crate) fn clear(&self, ticket: &Ticket) -> Result<()> {
        self.clear_if(ticket, |_| Ok(true))?;
        // Files that another process has deleted, or that somebody has.
        let _change = self.change.lock();
        let left = self.index.lock().places();
        for place in left {
            if self.directory.size(place).is_none() {
                self.index.lock().remove(place);
            }
        }
        Ok(())
    }

    pub(crate) fn clear_prefix(&self, prefix: &str, ticket: &Ticket) -> Result<()> {
        if prefix.is_empty() {
            return self.clear(ticket);
        }
        let mut unknown = None;
        self.clear_if(ticket, |place| match self.directory.key(place, Operation::Clear) {
            Ok(key) => Ok(key.is_some_and(|key| key.starts_with(prefix.as_bytes()))),
            Err(error) if error.kind() == ErrorKind::NewerVersion => {
                unknown = Some(error);
                Ok(false)
            }
            Err(error) => Err(error),
        })?;
        unknown.map_or(Ok(()), Err)
    }

    pub(crate) fn len(&self) -> u64 {
        self.index.lock().len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.index.lock().bytes()
    }

    pub(crate) const fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Lane by lane. A crash on the way, or a caller who goes away, leaves some entries and not others,
    /// each of them as it was.
    fn clear_if(&self, ticket: &Ticket, mut goes: impl FnMut(Place) -> Result<bool>) -> Result<()> {
        for lane in 0..LANES {
            let _turn = self.turns[lane].write();
            let _step = ticket.begin().ok_or_else(|| nobody_waits(Operation::Clear))?;
            for place in self.directory.places(lane, Operation::Clear)? {
                if goes(place)? {
                    self.forget(place, Operation::Clear)?;
                }
            }
            self.directory.settle(lane, Operation::Clear)?;
        }
        Ok(())
    }

    fn forget(&self, place: Place, operation: Operation) -> Result<()> {
        let _change = self.change.lock();
        self.directory.delete(place, operation)?;
        self.index.lock().remove(place);
        Ok(())
    }

    /// Counts a file that is there, and deletes what has to go for it. The change lock is held.
    fn admit(&self, known: Known, operation: Operation) -> Result<()> {
        let victims = self.index.lock().put(known, self.clock.now());
        let mut outcome = Ok(());
        for victim in victims {
            if let Err(error) = self.directory.delete(victim.place, operation) {
                // It still takes its room.
                self.index.lock().put_back(victim);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Counts a file that another process wrote, unless it was evicted since it was read. If what has to
    /// go for it cannot be deleted, it stays uncounted: whoever reads has the entry, and wants no room.
    fn adopt(&self, known: Known) {
        let _change = self.change.lock();
        let counts = match self.directory.size(known.place) {
            // What exceeds our bound may be within the bound of whoever wrote it: it does not count here.
            Some(bytes) if bytes <= self.bounds.bytes => {
                self.admit(Known { bytes, ..known }, Operation::Get).is_ok()
            }
            _ => false,
        };
        if !counts {
            self.index.lock().remove(known.place);
        }
    }
}

#[cfg(test)]
impl Shelf {
    /// Keeps every change from taking effect, to test what happens meanwhile.
    pub(crate) fn hold_changes(&self) -> crate::sync::MutexGuard<'_, ()> {
        self.change.lock()
    }

    /// Keeps every call of this key waiting for its turn.
    pub(crate) fn hold_turn(&self, key: &str) -> crate::sync::RwLockWriteGuard<'_, ()> {
        self.turns[Place::of(key).lane()].write()
    }
}

/// Dropped unseen: the caller is gone.
fn nobody_waits(operation: Operation) -> larder::Error {
    larder::Error::new(ErrorKind::Other, LAYER, operation).with_message("the caller went away")
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("directory", &self.directory).finish_non_exhaustive()
    }
}
