//! A renewal: an entry that both tiers may hold already, under other deadlines (laws S13, C4).
//!
//! `set` removes the upper copy first, so that nobody reads the new entry below and the old one above after
//! that. A renewal must not: an upper tier that keeps bytes would have to write the value again. Nor will
//! any order of the two writes do by itself. Above first, the new entry is seen and, should the upper tier
//! evict it, the old one below afterwards. Below first, a reader for whom the upper copy is no longer fresh
//! sees the new entry, and one who takes the first tier that answers sees the old one after it.
//!
//! So the upper copy is *hidden* meanwhile: it counts as absent, as if it had been removed, from before the
//! write below until the outcome of the write above has been noted. Until the lower tier takes the new entry
//! everybody reads the old one (there, or above before it was hidden), and from then on the new one: what is
//! hidden is shown again only as what the upper tier acknowledged. Where it did not, or where the renewal
//! was dropped before its end, the copy goes on counting as absent by a mark, like that of any write that
//! failed (C6), and the next read of the key removes it.
//!
//! Hiding is known by the lane of the key, so a hit asks for it only while some key is being renewed, and
//! then takes the lock of one shard of the lanes.

use super::Chain;
use crate::adapters::chain::fence::{Hidden, Turn};
use crate::adapters::chain::marks::Marks;
use crate::key::Key;
use crate::store::Store;
use crate::time::AnyClock;

impl<A, B> Chain<A, B>
where
    A: Store,
    B: Store<Key = A::Key, Value = A::Value>,
{
    /// The upper copy of `key` counts as absent until this is settled, and after that if it never is.
    pub(super) fn hide_above<'a>(&'a self, key: &'a A::Key, turn: &'a Turn<'_>) -> HiddenAbove<'a, A::Key> {
        HiddenAbove {
            key,
            absent: &self.absent_above,
            clock: &self.clock,
            settled: false,
            _hidden: turn.hide(),
        }
    }
}

pub(super) struct HiddenAbove<'a, K: Key + ?Sized> {
    key: &'a K,
    absent: &'a Marks<K>,
    clock: &'a AnyClock,
    settled: bool,
    /// Dropped last: a copy that is not settled is marked before it is no longer hidden.
    _hidden: Hidden<'a>,
}

impl<K: Key + ?Sized> HiddenAbove<'_, K> {
    /// The outcome of the write or removal above has been noted.
    pub(super) fn settled(mut self) {
        self.settled = true;
    }
}

impl<K: Key + ?Sized> Drop for HiddenAbove<'_, K> {
    fn drop(&mut self) {
        if !self.settled {
            self.absent.mark(self.key, || self.clock.now());
        }
    }
}
