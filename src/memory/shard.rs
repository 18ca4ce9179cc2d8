//! One shard of a [`Memory`](super::Memory): a table of slots, the slots, and the policy that orders them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hashbrown::HashTable;

use crate::entry::Entry;
use crate::key::{Key, Value};
use crate::memory::front::Front;
use crate::memory::policy::{Policy, Slots};
use crate::memory::removal::{Cause, Departed};
use crate::memory::scales::Scales;
use crate::memory::slab::{Body, NONE, Slab, Slot, Taken, more};

/// What is under one lock. No method calls the caller's code, except `Eq`, and `ToOwned` before it
/// changes anything.
pub(super) struct Shard<K: Key + ?Sized, V, P: Policy> {
    table: HashTable<u32>,
    slab: Slab<K, V, P>,
    policy: P,
    capacity: usize,
}

/// What a write needs to know of the call.
pub(super) struct Write<'a, K: ?Sized> {
    pub(super) key: &'a K,
    pub(super) hash: u64,
    pub(super) weight: u64,
}

/// What is not under the lock, though whoever writes changes it: the weight of the whole store, and the entries of
/// this shard that are read without a lock.
pub(super) struct Around<'a, K: Key + ?Sized, V, P: Policy> {
    pub(super) scales: Option<&'a Scales<K, V>>,
    pub(super) front: &'a Front<K, V, P>,
}

impl<K: Key + ?Sized, V, P: Policy> Around<'_, K, V, P> {
    fn reserves(&self, weight: u64) -> bool {
        self.scales.is_none_or(|scales| scales.reserve(weight))
    }

    fn exchanges(&self, old: u64, new: u64) -> bool {
        self.scales.is_none_or(|scales| scales.exchange(old, new))
    }

    fn releases(&self, weight: u64) {
        if let Some(scales) = self.scales {
            scales.release(weight);
        }
    }
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Stored,
    /// Stored, in the place of another, which is where it was.
    Swapped,
    /// Other shards hold too much of the weight, and this one is empty.
    NoRoom,
}

impl<K: Key + ?Sized, V, P: Policy> Shard<K, V, P> {
    /// Room for `capacity` entries, one at least; none of it is allocated yet.
    pub(super) fn new(capacity: usize, weighs: bool, ticks: Arc<AtomicU64>) -> Self {
        let capacity = capacity.clamp(1, (NONE - 1) as usize);
        Self { table: HashTable::new(), slab: Slab::new(weighs, ticks), policy: P::default(), capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(super) fn read(&self, key: &K, hash: u64) -> Option<&Entry<V>> {
        let slot = self.find(key, hash)?;
        self.hit(slot);
        Some(self.slab.entry(slot))
    }

    fn hit(&self, slot: u32) {
        P::hit(self.slab.touch(slot), || self.slab.tick());
    }

    /// Stores the entry, giving up others of this shard as needed. Without room it is left where it is, and the key is
    /// absent.
    #[inline]
    pub(super) fn set(
        &mut self,
        write: &Write<'_, K>,
        around: &Around<'_, K, V, P>,
        entry: &mut Option<Entry<V>>,
        departed: &mut Departed<'_, K, V, P>,
    ) -> Set {
        let hash = half(write.hash);
        let found = self.find(write.key, write.hash);
        let in_place = found.is_some_and(|slot| self.slab.node(slot).is_none());
        if let Some(slot) = found.filter(|_| in_place)
            && around.exchanges(self.slab.weight(slot), write.weight)
        {
            self.slab.set_weight(slot, write.weight);
            if let (Some(body), Some(entry)) = (self.slab.body_mut(slot), entry) {
                // What is moved twice is waited for.
                std::mem::swap(&mut body.entry, entry);
            }
            self.hit(slot);
            return Set::Swapped;
        }
        let key = write.key.to_owned();
        if let Some(slot) = found {
            if !in_place
                && around.exchanges(self.slab.weight(slot), write.weight)
                && let Some(entry) = entry.take()
            {
                self.slab.set_weight(slot, write.weight);
                around.front.empty(hash);
                departed.push_left(self.slab.move_in(slot, key, entry), Cause::Replaced);
                self.hit(slot);
                return Set::Stored;
            }
            departed.push_left(self.take(slot, around), Cause::Replaced);
        }
        while !around.reserves(write.weight) {
            if !self.evict(around, departed) {
                return Set::NoRoom;
            }
        }
        while self.len() >= self.capacity && self.evict(around, departed) {}
        let Some(entry) = entry.take() else { return Set::Stored };
        let body = Body { key, hash, touch: P::Touch::default(), taken: Taken::Yes, entry };
        let slot = self.slab.insert(body, write.weight, self.capacity);
        if self.table.len() == self.table.capacity() {
            self.table.reserve(more(self.len(), self.capacity), |slot| spread(self.slab.hash(*slot)));
        }
        self.table.insert_unique(spread(hash), slot, |slot| spread(self.slab.hash(*slot)));
        self.policy.insert(&mut self.slab, slot);
        Set::Stored
    }

    pub(super) fn remove(
        &mut self,
        key: &K,
        hash: u64,
        around: &Around<'_, K, V, P>,
        cause: Cause,
        departed: &mut Departed<'_, K, V, P>,
    ) {
        if let Some(slot) = self.find(key, hash) {
            departed.push_left(self.take(slot, around), cause);
        }
    }

    /// Gives up the entry that the policy names; `false` if the shard is empty.
    pub(super) fn evict(
        &mut self,
        around: &Around<'_, K, V, P>,
        departed: &mut Departed<'_, K, V, P>,
    ) -> bool {
        let Some(slot) = self.policy.evict(&mut self.slab) else { return false };
        departed.push_left(self.empty(slot, around), Cause::Evicted);
        true
    }

    pub(super) fn clear(&mut self, around: &Around<'_, K, V, P>, departed: &mut Departed<'_, K, V, P>) {
        self.table = HashTable::new();
        self.policy = P::default();
        around.front.empty_all();
        around.releases(self.slab.total());
        for left in self.slab.drain() {
            departed.push_left(left, Cause::Cleared);
        }
    }

    /// Removes the entries whose key passes, as part of clearing.
    pub(super) fn clear_where(
        &mut self,
        pass: impl Fn(&K) -> bool,
        around: &Around<'_, K, V, P>,
        departed: &mut Departed<'_, K, V, P>,
    ) {
        for slot in self.slab.names(pass) {
            departed.push_left(self.take(slot, around), Cause::Cleared);
        }
    }

    /// Moves the entry of `key` to its cell of the front, and what is there back into its slot. Gives what is to be
    /// dropped when the lock is free. Calls the caller's `Clone` before it changes anything; if that panics, all stays
    /// as it is: whoever reads one entry is not to suffer from another.
    pub(super) fn promote(&mut self, key: &K, hash: u64, front: &Front<K, V, P>) -> Option<Slot<K, V, P>>
    where
        V: Value,
    {
        let (half, slot) = (half(hash), self.find(key, hash)?);
        let mut before = None;
        if let Some(other) = front.occupant(half) {
            if other == slot {
                return None;
            }
            let node = self.slab.node(other)?;
            let copy = catch_unwind(AssertUnwindSafe(|| (node.key.clone(), node.entry.clone())));
            let (key, entry) = copy.ok()?;
            front.empty(half);
            before = Some(self.slab.move_in(other, key, entry));
        }
        if let Some(node) = self.slab.move_out(slot) {
            front.fill(half, slot, Arc::clone(node));
        }
        before
    }

    #[cfg(test)]
    pub(super) fn moved(&self) -> usize {
        self.slab.moved()
    }

    #[inline]
    fn find(&self, key: &K, hash: u64) -> Option<u32> {
        let same = |slot: &u32| self.slab.key(*slot) == key;
        self.table.find(spread(half(hash)), same).copied()
    }

    /// Empties a slot that the policy holds.
    fn take(&mut self, slot: u32, around: &Around<'_, K, V, P>) -> Slot<K, V, P> {
        self.policy.remove(&mut self.slab, slot);
        self.empty(slot, around)
    }

    /// Empties a slot that the policy does not hold any more.
    fn empty(&mut self, slot: u32, around: &Around<'_, K, V, P>) -> Slot<K, V, P> {
        let hash = self.slab.hash(slot);
        if let Ok(found) = self.table.find_entry(spread(hash), |named| *named == slot) {
            found.remove();
        }
        around.releases(self.slab.weight(slot));
        let left = self.slab.take(slot);
        if let Slot::Moved(_) = &left {
            around.front.empty(hash);
        }
        left
    }
}

/// The half of a hash that is kept beside the entry. The other half chose the shard.
#[expect(clippy::cast_possible_truncation, reason = "half of the bits is what is wanted")]
pub(super) const fn half(hash: u64) -> u32 {
    hash as u32
}

/// A half as the table wants it: random at both ends.
const fn spread(half: u32) -> u64 {
    (half as u64) << 32 | half as u64
}
