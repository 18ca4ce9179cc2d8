//! One shard of a [`Memory`](super::Memory): a table of slots, the slots, and the policy that orders them.

use std::borrow::Borrow;

use hashbrown::HashTable;

use crate::entry::Entry;
use crate::key::Key;
use crate::memory::policy::{Policy, Slots};
use crate::memory::removal::{Cause, Departed};
use crate::memory::scales::Scales;
use crate::memory::slab::{Body, NONE, Slab, Taken};

/// What is under one lock. No method calls the caller's code, except `Eq`, and `ToOwned` before it
/// changes anything.
pub(super) struct Shard<K: Key + ?Sized, V, P: Policy> {
    table: HashTable<u32>,
    slab: Slab<K, V, P>,
    policy: P,
    capacity: usize,
}

/// What a write needs to know of the call and of the whole store.
pub(super) struct Write<'a, K: ?Sized, V> {
    pub(super) key: &'a K,
    pub(super) hash: u64,
    pub(super) weight: u64,
    pub(super) scales: Option<&'a Scales<K, V>>,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Inserted,
    Replaced,
    NoRoom,
}

impl<K: Key + ?Sized, V, P: Policy> Shard<K, V, P> {
    /// Room for `capacity` entries, one at least; none of it is allocated yet.
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, (NONE - 1) as usize);
        Self { table: HashTable::new(), slab: Slab::new(), policy: P::default(), capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(super) fn read(&self, key: &K, hash: u64) -> Option<&Entry<V>> {
        let body = self.slab.body(self.find(key, hash)?);
        P::hit(&body.touch, || self.slab.tick());
        Some(&body.entry)
    }

    /// Stores the entry, giving up others of this shard as needed. If it takes the place of another, that is in
    /// `entry` now; it is left there if the shard is empty and other shards hold too much of the weight: the key
    /// is then absent.
    #[inline]
    pub(super) fn set(
        &mut self,
        write: &Write<'_, K, V>,
        entry: &mut Option<Entry<V>>,
        departed: &mut Departed<'_, K, V>,
    ) -> Set {
        let key = match self.find(write.key, write.hash) {
            None => write.key.to_owned(),
            Some(slot) => {
                let body = self.slab.body_mut(slot);
                if write.scales.is_none_or(|scales| scales.exchange(body.weight, write.weight)) {
                    body.weight = write.weight;
                    if let Some(entry) = entry {
                        // In place: what is moved twice is waited for.
                        std::mem::swap(&mut body.entry, entry);
                    }
                    P::hit(self.slab.touch(slot), || self.slab.tick());
                    return Set::Replaced;
                }
                let body = self.take(slot, write.scales);
                departed.push_asked(body.entry, Cause::Replaced);
                body.key
            }
        };
        while !write.scales.is_none_or(|scales| scales.reserve(write.weight)) {
            if !self.evict(write.scales, departed) {
                return Set::NoRoom;
            }
        }
        while self.len() >= self.capacity && self.evict(write.scales, departed) {}
        let Some(entry) = entry.take() else { return Set::Inserted };
        let hash = half(write.hash);
        let body = Body {
            key,
            entry,
            weight: write.weight,
            hash,
            touch: P::Touch::default(),
            mark: P::Mark::default(),
            taken: Taken::Yes,
        };
        let slot = self.slab.insert(body, self.capacity);
        self.table.insert_unique(spread(hash), slot, |slot| spread(self.slab.body(*slot).hash));
        self.policy.insert(&mut self.slab, slot);
        Set::Inserted
    }

    pub(super) fn remove(
        &mut self,
        key: &K,
        hash: u64,
        scales: Option<&Scales<K, V>>,
        cause: Cause,
        departed: &mut Departed<'_, K, V>,
    ) {
        if let Some(slot) = self.find(key, hash) {
            let body = self.take(slot, scales);
            departed.push(body.key, body.entry, cause);
        }
    }

    /// Gives up the entry that the policy names; `false` if the shard is empty.
    pub(super) fn evict(&mut self, scales: Option<&Scales<K, V>>, departed: &mut Departed<'_, K, V>) -> bool {
        let Some(slot) = self.policy.evict(&mut self.slab) else { return false };
        let body = self.empty(slot, scales);
        departed.push(body.key, body.entry, Cause::Evicted);
        true
    }

    pub(super) fn clear(&mut self, scales: Option<&Scales<K, V>>, departed: &mut Departed<'_, K, V>) {
        self.table = HashTable::new();
        self.policy = P::default();
        for body in self.slab.drain() {
            release(scales, body.weight);
            departed.push(body.key, body.entry, Cause::Cleared);
        }
    }

    /// Removes the entries whose key passes, as part of clearing.
    pub(super) fn clear_where(
        &mut self,
        pass: impl Fn(&K) -> bool,
        scales: Option<&Scales<K, V>>,
        departed: &mut Departed<'_, K, V>,
    ) {
        for slot in self.slab.names(|key| pass(key.borrow())) {
            let body = self.take(slot, scales);
            departed.push(body.key, body.entry, Cause::Cleared);
        }
    }

    #[inline]
    fn find(&self, key: &K, hash: u64) -> Option<u32> {
        let same = |slot: &u32| self.slab.body(*slot).key.borrow() == key;
        self.table.find(spread(half(hash)), same).copied()
    }

    /// Empties a slot that the policy holds.
    fn take(&mut self, slot: u32, scales: Option<&Scales<K, V>>) -> Body<K, V, P> {
        self.policy.remove(&mut self.slab, slot);
        self.empty(slot, scales)
    }

    /// Empties a slot that the policy does not hold any more.
    fn empty(&mut self, slot: u32, scales: Option<&Scales<K, V>>) -> Body<K, V, P> {
        let body = self.slab.take(slot);
        if let Ok(found) = self.table.find_entry(spread(body.hash), |named| *named == slot) {
            found.remove();
        }
        release(scales, body.weight);
        body
    }
}

fn release<K: ?Sized, V>(scales: Option<&Scales<K, V>>, weight: u64) {
    if let Some(scales) = scales {
        scales.release(weight);
    }
}

/// The half of a hash that is kept beside the entry. The other half chose the shard.
#[expect(clippy::cast_possible_truncation, reason = "half of the bits is what is wanted")]
const fn half(hash: u64) -> u32 {
    hash as u32
}

/// A half as the table wants it: random at both ends.
const fn spread(half: u32) -> u64 {
    (half as u64) << 32 | half as u64
}
