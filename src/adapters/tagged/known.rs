//! What this process knows of each tag, within a bound: its instants, or that there are none.
//!
//! Everything here is merged by maximum, so knowledge only grows, and it does not matter in which order a
//! reader's answer and an invalidation arrive.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;

use crate::sync::RwLock;
use crate::time::Timestamp;

/// A table of fewer tags than this has one shard, so that its bound is exact.
const FEW: usize = 1024;
const SHARDS: usize = 64;

/// What is known of one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instants {
    pub(crate) removed: Option<Timestamp>,
    pub(crate) expired: Option<Timestamp>,
    /// Whether the tag store was asked: else there may be instants that nobody here has heard of.
    pub(crate) asked: bool,
}

impl Instants {
    #[must_use = "this returns the merged instants"]
    pub(crate) fn merged(self, other: Self) -> Self {
        Self {
            removed: self.removed.max(other.removed),
            expired: self.expired.max(other.expired),
            asked: self.asked || other.asked,
        }
    }

    fn newest(self) -> Option<Timestamp> {
        self.removed.max(self.expired)
    }
}

type Tags = HashMap<Arc<str>, Instants, RandomState>;

/// The table of tags.
pub(crate) struct Known {
    hasher: RandomState,
    shards: Box<[RwLock<Tags>]>,
    most_a_shard: usize,
    /// One more than the instant up to which every tagged entry counts as absent; 0 is no floor.
    floor: AtomicU64,
}

impl Known {
    /// A table of at most `most` tags, which is not zero.
    pub(crate) fn new(most: usize) -> Self {
        let shards = if most < FEW { 1 } else { SHARDS };
        let hasher = RandomState::default();
        Self {
            shards: (0..shards).map(|_| RwLock::new(HashMap::with_hasher(hasher.clone()))).collect(),
            hasher,
            most_a_shard: most / shards,
            floor: AtomicU64::new(0),
        }
    }

    #[inline]
    fn shard(&self, tag: &str) -> &RwLock<Tags> {
        if self.shards.len() == 1 {
            return &self.shards[0];
        }
        // The table inside takes other bits of the same hash.
        &self.shards[(self.hasher.hash_one(tag) >> 32) as usize % SHARDS]
    }

    /// What is known of `tag`, if anything.
    #[inline]
    pub(crate) fn of(&self, tag: &str) -> Option<Instants> {
        self.shard(tag).read().get(tag).copied()
    }

    /// Adds what was heard of `tag` to what is known, and returns both together.
    pub(crate) fn learn(&self, tag: &Arc<str>, heard: Instants) -> Instants {
        let mut tags = self.shard(tag).write();
        if let Some(known) = tags.get_mut(tag) {
            *known = known.merged(heard);
            return *known;
        }
        if tags.len() >= self.most_a_shard {
            self.make_room(&mut tags);
        }
        tags.insert(Arc::clone(tag), heard);
        heard
    }

    /// Whether an entry created at this instant is above the floor. To be asked after [`of`](Self::of):
    /// the floor rises before an instant goes.
    #[inline]
    pub(crate) fn admits(&self, created_at: Timestamp) -> bool {
        created_at.as_nanos() >= self.floor.load(Ordering::SeqCst)
    }

    /// The instant up to which every tagged entry counts as absent.
    pub(crate) fn floor(&self) -> Option<Timestamp> {
        self.floor.load(Ordering::SeqCst).checked_sub(1).map(Timestamp::from_nanos)
    }

    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len() as u64).sum()
    }

    /// Drops half of a shard: first what can be asked again, then the oldest instants, which the floor
    /// stands for from then on. Half, so that the cost of a full table is spread over many tags.
    fn make_room(&self, tags: &mut Tags) {
        let rest = self.most_a_shard / 2;
        let mut over = tags.len() - rest;
        tags.retain(|_, instants| {
            let goes = over > 0 && instants.newest().is_none();
            over -= usize::from(goes);
            !goes
        });
        if tags.len() <= self.most_a_shard / 4 * 3 && tags.len() < self.most_a_shard {
            return;
        }
        let mut ages: Vec<Timestamp> = tags.values().filter_map(|instants| instants.newest()).collect();
        let Some(last) = tags.len().checked_sub(rest + 1).filter(|last| *last < ages.len()) else { return };
        let (_, &mut cut, _) = ages.select_nth_unstable(last);
        self.floor.fetch_max(cut.as_nanos().saturating_add(1), Ordering::SeqCst);
        tags.retain(|_, instants| instants.newest().is_none_or(|newest| newest > cut));
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("tags", &self.len())
            .field("floor", &self.floor())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    proptest! {
        /// T2: whatever goes, its instant still counts, by the floor.
        #[test]
        fn t2_what_the_table_forgets_the_floor_remembers(
            most in 1..12usize, heard in prop::collection::vec((0..20u8, 0..60u64, 0..3u8), 0..80),
        ) {
            let known = Known::new(most);
            let mut truth: HashMap<u8, u64> = HashMap::new();
            for (tag, nanos, kind) in heard {
                let instants = match kind {
                    0 => Instants { removed: Some(at(nanos)), ..Instants::default() },
                    1 => Instants { expired: Some(at(nanos)), ..Instants::default() },
                    _ => Instants { asked: true, ..Instants::default() },
                };
                known.learn(&tag.to_string().into(), instants);
                if kind < 2 {
                    let newest = truth.entry(tag).or_default();
                    *newest = nanos.max(*newest);
                }
                prop_assert!(known.len() <= most as u64);
                for (tag, nanos) in &truth {
                    let held = known.of(&tag.to_string()).and_then(Instants::newest);
                    prop_assert!(held == Some(at(*nanos)) || !known.admits(at(*nanos)), "tag {}", tag);
                }
            }
        }
    }

    #[test]
    fn what_can_be_asked_again_goes_before_an_instant_does() {
        let known = Known::new(8);
        known.learn(&"removed".into(), Instants { removed: Some(at(7)), ..Instants::default() });
        for tag in 0..1_000u32 {
            known.learn(&tag.to_string().into(), Instants { asked: true, ..Instants::default() });
        }
        assert_eq!(known.of("removed").and_then(|instants| instants.removed), Some(at(7)));
        assert_eq!(known.floor(), None);
    }
}
