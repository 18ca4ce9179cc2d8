//! Slots for entries, numbered: what the table and the policy name by a `u32`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::Entry;
use crate::key::Key;
use crate::memory::policy::{Policy, Slots};

/// No slot. So a slab has `2^31 - 1` slots at most; policies use the bit that is left.
pub(super) const NONE: u32 = u32::MAX >> 1;

/// An entry in its slot, and what the store knows about it.
pub(super) struct Body<K: Key + ?Sized, V, P: Policy> {
    pub(super) key: K::Owned,
    pub(super) entry: Entry<V>,
    pub(super) weight: u64,
    /// The half of the key's hash that the table uses, so that it can grow without the caller's code.
    pub(super) hash: u32,
    pub(super) touch: P::Touch,
    pub(super) mark: P::Mark,
    #[expect(dead_code, reason = "the layout reads it")]
    pub(super) taken: Taken,
}

/// A byte with one value, so that the other values can say that a slot is vacant, and no word of its own
/// has to.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Taken {
    Yes,
}

enum Slot<K: Key + ?Sized, V, P: Policy> {
    Vacant { next: u32 },
    Taken(Body<K, V, P>),
}

/// Slots are handed out again, the one freed last first.
pub(super) struct Slab<K: Key + ?Sized, V, P: Policy> {
    slots: Vec<Slot<K, V, P>>,
    vacant: u32,
    /// Where exact recency counts.
    ticks: AtomicU64,
}

impl<K: Key + ?Sized, V, P: Policy> Slab<K, V, P> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), vacant: NONE, ticks: AtomicU64::new(0) }
    }

    pub(super) fn body(&self, slot: u32) -> &Body<K, V, P> {
        match &self.slots[slot as usize] {
            Slot::Taken(body) => body,
            Slot::Vacant { .. } => unreachable!("only taken slots have a name"),
        }
    }

    pub(super) fn body_mut(&mut self, slot: u32) -> &mut Body<K, V, P> {
        match &mut self.slots[slot as usize] {
            Slot::Taken(body) => body,
            Slot::Vacant { .. } => unreachable!("only taken slots have a name"),
        }
    }

    /// Puts `body` into a slot; the slab never has more than `capacity` of them, which must not all be
    /// taken.
    pub(super) fn insert(&mut self, body: Body<K, V, P>, capacity: usize) -> u32 {
        let slot = self.vacant;
        if let Some(Slot::Vacant { next }) = self.slots.get(slot as usize) {
            self.vacant = *next;
            self.slots[slot as usize] = Slot::Taken(body);
            return slot;
        }
        if self.slots.len() == self.slots.capacity() {
            // Doubles as a vector would, but stops at the bound, so that a full store has no slack.
            let left = capacity.saturating_sub(self.slots.len());
            self.slots.reserve_exact(self.slots.len().max(4).min(left).max(1));
        }
        let slot = u32::try_from(self.slots.len()).unwrap_or(NONE);
        self.slots.push(Slot::Taken(body));
        slot
    }

    pub(super) fn take(&mut self, slot: u32) -> Body<K, V, P> {
        match std::mem::replace(&mut self.slots[slot as usize], Slot::Vacant { next: self.vacant }) {
            Slot::Taken(body) => {
                self.vacant = slot;
                body
            }
            Slot::Vacant { .. } => unreachable!("only taken slots have a name"),
        }
    }

    /// The names of the taken slots whose key passes.
    pub(super) fn names(&self, pass: impl Fn(&K::Owned) -> bool) -> Vec<u32> {
        let passes = |slot: &Slot<K, V, P>| matches!(slot, Slot::Taken(body) if pass(&body.key));
        (0..).zip(&self.slots).filter(|(_, slot)| passes(slot)).map(|(name, _)| name).collect()
    }

    /// Empties the slab.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Body<K, V, P>> + use<K, V, P> {
        let all = std::mem::replace(self, Self::new());
        all.slots.into_iter().filter_map(|slot| match slot {
            Slot::Taken(body) => Some(body),
            Slot::Vacant { .. } => None,
        })
    }
}

impl<K: Key + ?Sized, V, P: Policy> Slots<P> for Slab<K, V, P> {
    fn touch(&self, slot: u32) -> &P::Touch {
        &self.body(slot).touch
    }

    fn mark(&self, slot: u32) -> &P::Mark {
        &self.body(slot).mark
    }

    fn mark_mut(&mut self, slot: u32) -> &mut P::Mark {
        &mut self.body_mut(slot).mark
    }

    fn hash(&self, slot: u32) -> u32 {
        self.body(slot).hash
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Lifetime;
    use crate::memory::policy::S3Fifo;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    proptest! {
        /// Names are those of a pile of plates: none twice, and never more than were in use at once.
        #[test]
        fn slots_are_used_again(steps in prop::collection::vec(prop::option::weighted(0.5, 0..8usize), 0..100)) {
            let mut slab = Slab::<u64, u64, S3Fifo>::new();
            let (mut taken, mut most) = (Vec::new(), 0);
            for (key, step) in (0..).zip(steps) {
                if let Some(place) = step.filter(|place| *place < taken.len()) {
                    let (slot, key) = taken.swap_remove(place);
                    prop_assert_eq!(slab.take(slot).key, key);
                } else {
                    let entry = Entry::new(0, Lifetime::forever(Timestamp::EPOCH));
                    let (touch, mark) = Default::default();
                    let slot = slab.insert(Body { key, entry, weight: 0, hash: 0, touch, mark, taken: Taken::Yes }, 100);
                    prop_assert!(taken.iter().all(|(other, _)| *other != slot));
                    taken.push((slot, key));
                }
                most = most.max(taken.len());
                prop_assert_eq!(slab.slots.len(), most);
                prop_assert!(taken.iter().all(|(slot, key)| slab.body(*slot).key == *key));
            }
            prop_assert_eq!(slab.names(|_| true).len(), taken.len());
            prop_assert_eq!(slab.drain().count(), taken.len());
        }
    }

    #[test]
    fn a_slot_costs_key_and_entry_and_24_bytes() {
        assert_eq!(size_of::<Slot<u64, u64, S3Fifo>>(), 8 + size_of::<Entry<u64>>() + 24);
        assert_eq!(size_of::<Slot<str, u64, S3Fifo>>(), 24 + size_of::<Entry<u64>>() + 24);
    }
}
