//! Exact recency, without a list that hits would have to change.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Policy, Slots};

/// Gives up the entry that was read or replaced longest ago, exactly.
///
/// A hit writes a number that grows, which costs an atomic read-modify-write of memory that all readers of a
/// shard share; to give up an entry takes a logarithm of what is held. For what needs the exact order: the
/// default adapts to workloads that want recency, and its hits write a bit. (Hits at once, in several
/// threads, are in some order.) Memory: 16 bytes an entry beside it, and 16 to 40 in a tree.
#[derive(Debug, Default)]
pub struct Lru {
    /// The slots by when they were read, as far as the policy has looked. An entry only gets younger, so the first
    /// is the oldest as soon as the policy has looked at it again.
    order: BTreeMap<u64, u32>,
}

impl Policy for Lru {
    /// When it was read last.
    type Touch = AtomicU64;
    /// Its key in the order.
    type Mark = u64;

    #[inline]
    fn hit(touch: &AtomicU64, tick: impl FnOnce() -> u64) {
        touch.store(tick(), Ordering::Relaxed);
    }

    fn carry(touch: &AtomicU64) -> AtomicU64 {
        AtomicU64::new(touch.load(Ordering::Relaxed))
    }

    fn insert(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        self.enter(slots, slot, slots.tick());
    }

    fn remove(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        self.order.remove(slots.mark(slot));
    }

    fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
        loop {
            let (tick, slot) = self.order.pop_first()?;
            let read = slots.touch(slot).load(Ordering::Relaxed);
            if read <= tick {
                return Some(slot);
            }
            self.enter(slots, slot, read);
        }
    }
}

impl Lru {
    /// No two slots have one tick: each was given to one hit or one insertion.
    fn enter(&mut self, slots: &mut impl Slots<Self>, slot: u32, tick: u64) {
        *slots.mark_mut(slot) = tick;
        self.order.insert(tick, slot);
    }
}
