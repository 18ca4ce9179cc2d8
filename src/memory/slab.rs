//! Slots for entries, numbered: what the table and the policy name by a `u32`.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::Entry;
use crate::key::Key;
use crate::memory::front::Node;
use crate::memory::policy::{Policy, Slots};

/// No slot. So a slab has `2^31 - 1` slots at most; policies use the bit that is left.
pub(super) const NONE: u32 = u32::MAX >> 1;

/// An entry in its slot, with what a hit looks at in front.
#[repr(C)]
pub(super) struct Body<K: Key + ?Sized, V, P: Policy> {
    pub(super) key: K::Owned,
    /// The half of the key's hash that the table uses, so that it can grow without the caller's code.
    pub(super) hash: u32,
    pub(super) touch: P::Touch,
    pub(super) taken: Taken,
    pub(super) entry: Entry<V>,
}

/// What is left in the slot of an entry that moved to a node.
pub(super) struct Moved<K: Key + ?Sized, V, P: Policy> {
    pub(super) node: Arc<Node<K, V, P>>,
    pub(super) hash: u32,
}

/// A byte with one value, so that the other values can say what else is in a slot, and no word of its own
/// has to.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Taken {
    Yes,
}

/// Also what a slot was emptied of, as to move it from one form to another takes time.
pub(super) enum Slot<K: Key + ?Sized, V, P: Policy> {
    Vacant { next: u32 },
    Taken(Body<K, V, P>),
    Moved(Moved<K, V, P>),
}

impl<K: Key + ?Sized, V, P: Policy> Slot<K, V, P> {
    /// What is or was in it.
    pub(super) fn held(&self) -> Option<(&K, &Entry<V>)> {
        match self {
            Self::Taken(body) => Some((body.key.borrow(), &body.entry)),
            Self::Moved(moved) => Some((moved.node.key.borrow(), &moved.node.entry)),
            Self::Vacant { .. } => None,
        }
    }
}

/// Slots are handed out again, the one freed last first.
pub(super) struct Slab<K: Key + ?Sized, V, P: Policy> {
    slots: Vec<Slot<K, V, P>>,
    vacant: u32,
    /// Beside the slots, as no hit looks at these. Of each slot, what the policy keeps of it ..
    marks: Vec<P::Mark>,
    /// .. and what its entry weighs, in a store that weighs.
    weights: Option<Vec<u64>>,
    /// Where exact recency counts.
    ticks: Arc<AtomicU64>,
}

impl<K: Key + ?Sized, V, P: Policy> Slab<K, V, P> {
    pub(super) fn new(weighs: bool, ticks: Arc<AtomicU64>) -> Self {
        Self { slots: Vec::new(), vacant: NONE, marks: Vec::new(), weights: weighs.then(Vec::new), ticks }
    }

    #[inline]
    pub(super) fn key(&self, slot: u32) -> &K {
        match &self.slots[slot as usize] {
            Slot::Taken(body) => body.key.borrow(),
            Slot::Moved(moved) => moved.node.key.borrow(),
            Slot::Vacant { .. } => vacant(),
        }
    }

    #[inline]
    pub(super) fn entry(&self, slot: u32) -> &Entry<V> {
        match &self.slots[slot as usize] {
            Slot::Taken(body) => &body.entry,
            Slot::Moved(moved) => &moved.node.entry,
            Slot::Vacant { .. } => vacant(),
        }
    }

    /// The body in a slot, unless it moved to a node.
    #[inline]
    pub(super) fn body_mut(&mut self, slot: u32) -> Option<&mut Body<K, V, P>> {
        match &mut self.slots[slot as usize] {
            Slot::Taken(body) => Some(body),
            Slot::Moved(_) => None,
            Slot::Vacant { .. } => vacant(),
        }
    }

    /// The node to which the entry of a slot moved, if it did.
    pub(super) fn node(&self, slot: u32) -> Option<&Arc<Node<K, V, P>>> {
        match &self.slots[slot as usize] {
            Slot::Moved(moved) => Some(&moved.node),
            _ => None,
        }
    }

    /// What the entry in a slot weighs; zero in a store that does not weigh.
    #[inline]
    pub(super) fn weight(&self, slot: u32) -> u64 {
        self.weights.as_ref().map_or(0, |weights| weights[slot as usize])
    }

    #[inline]
    pub(super) fn set_weight(&mut self, slot: u32, weight: u64) {
        if let Some(weights) = &mut self.weights {
            weights[slot as usize] = weight;
        }
    }

    /// Puts `body` into a slot; the slab never has more than `capacity` of them, which must not all be
    /// taken.
    pub(super) fn insert(&mut self, body: Body<K, V, P>, weight: u64, capacity: usize) -> u32 {
        let slot = self.vacant;
        if let Some(Slot::Vacant { next }) = self.slots.get(slot as usize) {
            self.vacant = *next;
            self.slots[slot as usize] = Slot::Taken(body);
            self.marks[slot as usize] = P::Mark::default();
            self.set_weight(slot, weight);
            return slot;
        }
        let more = more(self.slots.len(), capacity);
        reserve(&mut self.slots, more);
        reserve(&mut self.marks, more);
        let slot = u32::try_from(self.slots.len()).unwrap_or(NONE);
        self.slots.push(Slot::Taken(body));
        self.marks.push(P::Mark::default());
        if let Some(weights) = &mut self.weights {
            reserve(weights, more);
            weights.push(weight);
        }
        slot
    }

    #[inline]
    pub(super) fn take(&mut self, slot: u32) -> Slot<K, V, P> {
        let next = std::mem::replace(&mut self.vacant, slot);
        std::mem::replace(&mut self.slots[slot as usize], Slot::Vacant { next })
    }

    /// Moves the entry of a slot to a node, unless it is in one.
    pub(super) fn move_out(&mut self, slot: u32) -> Option<&Arc<Node<K, V, P>>> {
        let place = &mut self.slots[slot as usize];
        let found = std::mem::replace(place, Slot::Vacant { next: NONE });
        let Slot::Taken(Body { key, entry, hash, touch, .. }) = found else {
            *place = found;
            return None;
        };
        *place = Slot::Moved(Moved { node: Arc::new(Node::new(key, entry, touch)), hash });
        self.node(slot)
    }

    /// Puts an entry into the slot of which one of this key moved to a node, and gives what was left there. To the
    /// policy it is the entry that was there.
    pub(super) fn move_in(&mut self, slot: u32, key: K::Owned, entry: Entry<V>) -> Slot<K, V, P> {
        let (hash, touch) = (self.hash(slot), P::carry(self.touch(slot)));
        let body = Body { key, hash, touch, taken: Taken::Yes, entry };
        std::mem::replace(&mut self.slots[slot as usize], Slot::Taken(body))
    }

    /// The names of the taken slots whose key passes.
    pub(super) fn names(&self, pass: impl Fn(&K) -> bool) -> Vec<u32> {
        let passes = |slot: &Slot<K, V, P>| slot.held().is_some_and(|(key, _)| pass(key));
        (0..).zip(&self.slots).filter(|(_, slot)| passes(slot)).map(|(name, _)| name).collect()
    }

    /// How many entries moved to a node.
    #[cfg(test)]
    pub(super) fn moved(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Moved(_))).count()
    }

    /// What all entries weigh.
    pub(super) fn total(&self) -> u64 {
        let weighed = self.weights.iter().flatten().zip(&self.slots);
        weighed.filter(|(_, slot)| slot.held().is_some()).map(|(weight, _)| *weight).sum()
    }

    /// Empties the slab.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Slot<K, V, P>> + use<K, V, P> {
        let empty = Self::new(self.weights.is_some(), Arc::clone(&self.ticks));
        std::mem::replace(self, empty).slots.into_iter().filter(|slot| slot.held().is_some())
    }
}

/// For how many more there is to be room when `len` of at most `capacity` fill what there was. Twice as much, as in a
/// vector, but no more than the bound, so that a full store has no slack; and all of that once an eighth of it is
/// used, as what was moved most often is what costs most of an insertion.
pub(super) fn more(len: usize, capacity: usize) -> usize {
    let left = capacity.saturating_sub(len).max(1);
    if len >= capacity / 8 { left } else { len.clamp(4, left.max(4)).min(left) }
}

fn reserve<T>(vector: &mut Vec<T>, more: usize) {
    if vector.len() == vector.capacity() {
        vector.reserve_exact(more);
    }
}

#[cold]
fn vacant() -> ! {
    unreachable!("only taken slots have a name")
}

impl<K: Key + ?Sized, V, P: Policy> Slots<P> for Slab<K, V, P> {
    #[inline]
    fn touch(&self, slot: u32) -> &P::Touch {
        match &self.slots[slot as usize] {
            Slot::Taken(body) => &body.touch,
            Slot::Moved(moved) => &moved.node.touch,
            Slot::Vacant { .. } => vacant(),
        }
    }

    #[inline]
    fn mark(&self, slot: u32) -> &P::Mark {
        &self.marks[slot as usize]
    }

    #[inline]
    fn mark_mut(&mut self, slot: u32) -> &mut P::Mark {
        &mut self.marks[slot as usize]
    }

    #[inline]
    fn hash(&self, slot: u32) -> u32 {
        match &self.slots[slot as usize] {
            Slot::Taken(body) => body.hash,
            Slot::Moved(moved) => moved.hash,
            Slot::Vacant { .. } => vacant(),
        }
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
    use std::sync::atomic::AtomicU8;

    proptest! {
        /// Names are those of a pile of plates: none twice, and never more than were in use at once.
        #[test]
        fn slots_are_used_again(steps in prop::collection::vec(prop::option::weighted(0.5, 0..8usize), 0..100)) {
            let mut slab = Slab::<u64, u64, S3Fifo>::new(false, Arc::default());
            let (mut taken, mut most) = (Vec::new(), 0);
            for (key, step) in (0..).zip(steps) {
                if let Some(place) = step.filter(|place| *place < taken.len()) {
                    let (slot, key) = taken.swap_remove(place);
                    prop_assert_eq!(*slab.key(slot), key);
                    slab.take(slot);
                } else {
                    let entry = Entry::new(0, Lifetime::forever(Timestamp::EPOCH));
                    let body = Body { key, hash: 0, touch: AtomicU8::default(), taken: Taken::Yes, entry };
                    let slot = slab.insert(body, 0, 100);
                    prop_assert!(taken.iter().all(|(other, _)| *other != slot));
                    taken.push((slot, key));
                }
                most = most.max(taken.len());
                prop_assert_eq!(slab.slots.len(), most);
                prop_assert!(taken.iter().all(|(slot, key)| slab.key(*slot) == key));
            }
            prop_assert_eq!(slab.names(|_| true).len(), taken.len());
            prop_assert_eq!(slab.drain().count(), taken.len());
        }
    }

    #[test]
    fn a_slot_costs_key_and_entry_and_8_bytes() {
        assert_eq!(size_of::<Slot<u64, u64, S3Fifo>>(), 8 + size_of::<Entry<u64>>() + 8);
        assert_eq!(size_of::<Slot<str, u64, S3Fifo>>(), 24 + size_of::<Entry<u64>>() + 8);
    }
}
