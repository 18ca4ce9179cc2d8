//! Exact recency, without a list that hits would have to change.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Policy, Slots};

/// Gives up the entry that was read or replaced longest ago, exactly.
///
/// A hit writes a number that grows, which costs an atomic read-modify-write of memory that all readers of a
/// shard share; to give up an entry takes a logarithm of what is held. For what needs the exact order: the
/// default adapts to workloads that want recency, and its hits write a bit. (Hits at once, in several
/// threads, are in some order.) Memory: 12 bytes an entry beside it and 16 in a heap.
#[derive(Debug, Default)]
pub struct Lru {
    /// A binary heap, the oldest first, by when an entry was read as far as the rule has looked. An entry
    /// only gets younger, so the first is the oldest as soon as the rule has looked at it again.
    heap: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    tick: u64,
    slot: u32,
}

impl Policy for Lru {
    /// When it was read last.
    type Touch = AtomicU64;
    /// Where it is in the heap.
    type Mark = u32;

    #[inline]
    fn hit(touch: &AtomicU64, tick: impl FnOnce() -> u64) {
        touch.store(tick(), Ordering::Relaxed);
    }

    fn insert(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        let tick = slots.tick();
        self.heap.push(Node { tick, slot });
        self.up(slots, self.heap.len() - 1);
    }

    fn remove(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        let at = *slots.mark(slot) as usize;
        self.heap.swap_remove(at);
        if at < self.heap.len() {
            let at = self.up(slots, at);
            self.down(slots, at);
        }
    }

    fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
        loop {
            let Node { tick, slot } = *self.heap.first()?;
            let read = slots.touch(slot).load(Ordering::Relaxed);
            if read <= tick {
                self.remove(slots, slot);
                return Some(slot);
            }
            self.heap[0].tick = read;
            self.down(slots, 0);
        }
    }
}

impl Lru {
    /// Moves the node at `at` towards the root until it is in order; where it is then.
    fn up(&mut self, slots: &mut impl Slots<Self>, mut at: usize) -> usize {
        while at > 0 && self.heap[at].tick < self.heap[(at - 1) / 2].tick {
            let parent = (at - 1) / 2;
            self.heap.swap(at, parent);
            self.note(slots, at);
            at = parent;
        }
        self.note(slots, at);
        at
    }

    /// Moves the node at `at` away from the root until it is in order.
    fn down(&mut self, slots: &mut impl Slots<Self>, mut at: usize) {
        let tick = |heap: &[Node], at: usize| heap.get(at).map_or(u64::MAX, |node| node.tick);
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let child = if tick(&self.heap, left) <= tick(&self.heap, right) { left } else { right };
            if self.heap[at].tick <= tick(&self.heap, child) {
                break self.note(slots, at);
            }
            self.heap.swap(at, child);
            self.note(slots, at);
            at = child;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "no more nodes than slots, whose names have 31 bits")]
    fn note(&self, slots: &mut impl Slots<Self>, at: usize) {
        *slots.mark_mut(self.heap[at].slot) = at as u32;
    }
}
