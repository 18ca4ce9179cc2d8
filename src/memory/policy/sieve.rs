//! SIEVE: one queue and a hand.

use std::sync::atomic::{AtomicBool, Ordering};

use super::queue::{Links, Queue};
use super::{Policy, Slots, raise};

/// One first-in first-out queue, and a hand that goes through it from old to new and gives up the first
/// entry that was not read since the hand was there.
///
/// Zhang, Yang, Yue, Vigfusson, Rashmi: *SIEVE is simpler than LRU*, NSDI 2024. An entry that is read
/// keeps its place, so new ones are sifted fast and old, popular ones stay. A hit sets a bit; nothing is
/// remembered of what is given up. Weak on loops that exceed the store and on drifting popularity.
#[derive(Debug, Default)]
pub struct Sieve {
    queue: Queue,
    /// Where the hand goes on; at the oldest if nowhere.
    hand: Option<u32>,
}

impl Policy for Sieve {
    type Touch = AtomicBool;
    type Mark = Links;

    #[inline]
    fn hit(touch: &AtomicBool, _tick: impl FnOnce() -> u64) {
        raise(touch);
    }

    fn carry(touch: &AtomicBool) -> AtomicBool {
        AtomicBool::new(touch.load(Ordering::Relaxed))
    }

    fn insert(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        self.queue.push(slots, slot, false);
    }

    fn remove(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        if self.hand == Some(slot) {
            self.hand = Queue::newer(slots, slot);
        }
        self.queue.remove(slots, slot);
    }

    /// Amortized constant time: every step but the last takes back a hit.
    fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
        loop {
            let slot = self.hand.or_else(|| self.queue.oldest())?;
            self.hand = Queue::newer(slots, slot);
            let touch = slots.touch(slot);
            if !touch.load(Ordering::Relaxed) {
                self.queue.remove(slots, slot);
                return Some(slot);
            }
            touch.store(false, Ordering::Relaxed);
        }
    }
}
