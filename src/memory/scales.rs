//! The weight of a whole store: one number, reserved before an entry goes in, released when it is out.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::Entry;
use crate::weigh::Weigher;

/// What an entry takes in a tier besides its key and value, in bytes: the instants, the slot, its part of
/// the table and of what the policy remembers. Measured at 70 to 80 in `Memory` and at 84 to 104 in `Lru`; a
/// store that grows takes more for a while.
pub(super) const OVERHEAD: u64 = 96;

/// Weighs entries and keeps their total at or below `max` at every instant, whoever writes.
pub(super) struct Scales<K: ?Sized, V> {
    weigher: Weigher<K, V>,
    max: u64,
    total: AtomicU64,
}

impl<K: ?Sized, V> Scales<K, V> {
    /// `u64::MAX` is no bound but that of the counter.
    pub(super) const fn new(weigher: Weigher<K, V>, max: u64) -> Self {
        Self { weigher, max, total: AtomicU64::new(0) }
    }

    pub(super) const fn max(&self) -> u64 {
        self.max
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    pub(super) fn weigh(&self, key: &K, entry: &Entry<V>) -> u64 {
        let overhead = if self.weigher.counts_bytes() { OVERHEAD } else { 0 };
        self.weigher.weigh(key, entry.value()).saturating_add(overhead)
    }

    /// Takes `weight` out of what is left below the bound; `false`, and nothing taken, if that is less.
    pub(super) fn reserve(&self, weight: u64) -> bool {
        let within = |total: u64| total.checked_add(weight).filter(|sum| *sum <= self.max);
        self.total.fetch_update(Ordering::AcqRel, Ordering::Acquire, within).is_ok()
    }

    pub(super) fn release(&self, weight: u64) {
        self.total.fetch_sub(weight, Ordering::AcqRel);
    }

    /// Turns a reservation of `old` into one of `new`; `false`, and `old` still reserved, if there is not
    /// that much left.
    pub(super) fn exchange(&self, old: u64, new: u64) -> bool {
        if new > old {
            return self.reserve(new - old);
        }
        self.release(old - new);
        true
    }
}
