//! The default: between recency and proof, at a boundary that it moves itself.
//!
//! Entries are in two first-in first-out queues, each with a bit that a hit sets. A new key is *cold*. One
//! that was read while cold becomes *hot*; a hot one that was read since its last turn gets another turn;
//! the others are given up, and remembered for a while as cold or as hot. What comes back while it is
//! remembered is hot at once, and moves the boundary: a cold key would have been kept by more room for
//! cold ones, a hot key by less. With hardly any cold room, the hot entries stand still, and a loop or
//! a scan that exceeds the store passes by; with nearly all of it, the order is recency.
//!
//! So the queues and the moving boundary are those of CAR (Bansal, Modha: *CAR: Clock with Adaptive
//! Replacement*, FAST 2004) and ARC (Megiddo, Modha, FAST 2003). From the side of LIRS (Jiang, Zhang:
//! SIGMETRICS 2002) come the start, where all the first entries are hot, and a low floor under the cold
//! room: to CAR a loop is all recency. Unlike all three it is told no capacity: what is held is the measure,
//! as a store that is bounded by weight has no other.

use std::sync::atomic::{AtomicBool, Ordering};

use super::ghost::{Ghost, Place};
use super::queue::{Links, Queue};
use super::{Policy, Slots, raise};

/// The cold room starts as one in so many entries. Found by trial: from 20 to 100 the mean over the public
/// traces changes by 0.4 points.
const FIRST_SHARE: u32 = 20;
/// The cold and the hot room have at least one in so many entries, so that both go on being tried.
const LEAST_SHARE: u32 = 100;
/// How far a hit on a remembered key moves the boundary. Twice as many cold keys are remembered, so a hot
/// one says twice as much.
const MORE_COLD: u32 = 1;
const LESS_COLD: u32 = 2;
/// For every four entries held, so many cold and so many hot keys are remembered. By trial on the public
/// traces: a third of what is held for each place costs 0.9 points of mean hits, three quarters and a third
/// gain 0.3 and cost half as much memory again.
type Remembered = Ghost<2, 1>;

/// The flag of the links says so.
const HOT: bool = true;

/// Between recency and proof, at a boundary that moves with what is asked: the default.
///
/// Keeps its ground on skewed reads, scans, loops that exceed the store, and workloads that want plain
/// recency. A relative of CAR (Bansal, Modha, FAST 2004) and LIRS (Jiang, Zhang, SIGMETRICS 2002). A hit sets
/// a bit. Memory: 9 bytes an entry beside it, and less than 4 for what is remembered of keys given up.
#[derive(Debug, Default)]
pub struct Adaptive {
    cold: Queue,
    hot: Queue,
    remembered: Remembered,
    /// How many entries the cold queue should have.
    cold_room: u32,
    /// Whether the store was full once. Until then there is nothing to choose, and all entries are hot.
    was_full: bool,
}

impl Policy for Adaptive {
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
        let hot = match self.remembered.recall(slots.hash(slot)) {
            Some(Place::Cold) => {
                self.cold_room = self.cold_room.saturating_add(MORE_COLD);
                true
            }
            Some(Place::Hot) => {
                self.cold_room = self.cold_room.saturating_sub(LESS_COLD);
                true
            }
            None => !self.was_full,
        };
        if hot {
            self.hot.push(slots, slot, HOT);
        } else {
            self.cold.push(slots, slot, !HOT);
        }
    }

    fn remove(&mut self, slots: &mut impl Slots<Self>, slot: u32) {
        let queue = if slots.mark(slot).flag() == HOT { &mut self.hot } else { &mut self.cold };
        queue.remove(slots, slot);
    }

    /// Amortized constant time: every step but the last takes back a hit.
    fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
        let held = self.cold.len() + self.hot.len();
        if held == 0 {
            // The store looks elsewhere: it is full, but this shard is not.
            return None;
        }
        if !self.was_full {
            self.begin(slots);
        }
        let least = held.div_ceil(LEAST_SHARE);
        self.cold_room = self.cold_room.min(held - least).max(least);
        loop {
            let cold =
                self.cold.oldest().filter(|_| self.cold.len() >= self.cold_room || self.hot.len() == 0);
            let (slot, place) = if let Some(slot) = cold {
                self.cold.remove(slots, slot);
                (slot, Place::Cold)
            } else {
                let slot = self.hot.oldest()?;
                self.hot.remove(slots, slot);
                (slot, Place::Hot)
            };
            let touch = slots.touch(slot);
            if !touch.load(Ordering::Relaxed) {
                self.remembered.remember(slots.hash(slot), place, held);
                return Some(slot);
            }
            touch.store(false, Ordering::Relaxed);
            self.hot.push(slots, slot, HOT);
        }
    }
}

impl Adaptive {
    /// Makes the oldest entries cold, as the store is full for the first time. If they were given up as hot
    /// ones, they would be taken for proof that the hot room is too small when a loop comes round to them.
    fn begin(&mut self, slots: &mut impl Slots<Self>) {
        self.was_full = true;
        self.cold_room = self.hot.len() / FIRST_SHARE;
        for _ in 0..self.cold_room {
            if let Some(slot) = self.hot.oldest() {
                self.hot.remove(slots, slot);
                self.cold.push(slots, slot, !HOT);
            }
        }
    }
}
