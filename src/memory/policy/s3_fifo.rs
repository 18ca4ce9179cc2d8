//! S3-FIFO: three first-in first-out queues.
//!
//! Yang, Zhang, Qiu, Yue, Rashmi: *FIFO queues are all you need for cache eviction*, SOSP 2023. A new key
//! waits in a small queue, a tenth of the entries. One that was read twice there moves to the main
//! queue; one that was not is given up, but its fingerprint is remembered, and a key that comes back
//! while remembered goes to the main queue at once. So a scan, whose keys are read once, runs through
//! the small queue and leaves the main one alone. A hit only raises a counter.
//!
//! Unlike the paper, the tenth is of what is held and not of the capacity: a store that is bounded by
//! weight has no capacity in entries.

use std::sync::atomic::{AtomicU8, Ordering};

use super::ghost::{Ghost, Place};
use super::queue::{Links, Queue};
use super::{Policy, Slots};

/// Hits count up to here.
const MOST_HITS: u8 = 3;
/// So many hits take an entry from the small queue to the main one.
const ENOUGH_HITS: u8 = 2;
/// One in so many entries belongs in the small queue.
const SMALL: u32 = 10;

/// Three first-in first-out queues: what is read again while it waits in the small one stays.
///
/// Yang, Zhang, Qiu, Yue, Rashmi: *FIFO queues are all you need for cache eviction*, SOSP 2023. A hit counts
/// to three and no further; a scan passes through a tenth of the store. Weak on loops that exceed the
/// store, of which it keeps nothing.
#[derive(Debug, Default)]
pub struct S3Fifo {
    small: Queue,
    main: Queue,
    /// As many keys as are held.
    ghost: Ghost<4, 0>,
}

/// The flag of the links says so.
const IN_MAIN: bool = true;

impl Policy for S3Fifo {
    type Touch = AtomicU8;
    type Mark = Links;

    #[inline]
    fn hit(touch: &AtomicU8, _tick: impl FnOnce() -> u64) {
        // Two readers at once may count as one: the policy needs no exact number, and a plain store is
        // cheaper than a read-modify-write.
        let hits = touch.load(Ordering::Relaxed);
        if hits < MOST_HITS {
            touch.store(hits + 1, Ordering::Relaxed);
        }
    }

    fn carry(touch: &AtomicU8) -> AtomicU8 {
        AtomicU8::new(touch.load(Ordering::Relaxed))
    }

    fn insert(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        if self.ghost.recall(slots.hash(slot)).is_some() {
            self.enter_main(slots, slot);
        } else {
            self.small.push(slots, slot, !IN_MAIN);
        }
    }

    fn remove(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        let place = if slots.mark(slot).flag() == IN_MAIN { &mut self.main } else { &mut self.small };
        place.remove(slots, slot);
    }

    /// Amortized constant time: every step but the last takes back a hit.
    fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
        loop {
            let small_is_due = self.small.len() >= (self.small.len() + self.main.len()).div_ceil(SMALL);
            let (Some(slot), true) = (self.small.oldest(), small_is_due) else { break };
            self.small.remove(slots, slot);
            if slots.touch(slot).load(Ordering::Relaxed) < ENOUGH_HITS {
                self.ghost.remember(slots.hash(slot), Place::Cold, self.small.len() + self.main.len());
                return Some(slot);
            }
            self.enter_main(slots, slot);
        }
        loop {
            let slot = self.main.oldest()?;
            self.main.remove(slots, slot);
            let touch = slots.touch(slot);
            let hits = touch.load(Ordering::Relaxed);
            if hits == 0 {
                return Some(slot);
            }
            touch.store(hits - 1, Ordering::Relaxed);
            self.main.push(slots, slot, IN_MAIN);
        }
    }
}

impl S3Fifo {
    fn enter_main(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        slots.touch(slot).store(0, Ordering::Relaxed);
        self.main.push(slots, slot, IN_MAIN);
    }
}
