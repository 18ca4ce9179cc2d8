//! Keys that were given up lately, as fingerprints.

/// Where a remembered key was when it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It was new.
    Cold,
    /// It had proved itself once.
    Hot,
}

/// The last keys that were given up in either place: of cold ones `COLD` for every four entries held, of
/// hot ones `HOT`.
///
/// A table in buckets of eight cells of four bytes, which a bucket gives to the youngest of those whose
/// hash led there: of a crowded bucket the oldest is lost a little early. A cell holds 16 bits of the hash,
/// the place, and when; so one key in about eight thousand is taken for another, and then counts as
/// seen before, and no more.
#[derive(Debug, Default)]
pub(super) struct Ghost<const COLD: u32, const HOT: u32> {
    cells: Box<[u32]>,
    made_for: u32,
    /// Of cold keys and of hot ones.
    windows: [Window; 2],
}

/// Counts the keys of one place; a key is forgotten after `limit` others.
#[derive(Debug, Default)]
struct Window {
    limit: u32,
    /// So many keys share a stamp.
    unit: u32,
    /// So many stamps is it long.
    stamps: u32,
    /// What the age grows by with each stamp.
    step: u32,
    /// The stamp of the keys that are given up now; wraps.
    now: u32,
    /// How many of these there were.
    with_it: u32,
}

const WAYS: u32 = 8;
/// Cells for one key to be remembered, so that few buckets are crowded: five for four.
const ROOM: (u32, u32) = (5, 4);
const STAMP_BITS: u32 = 15;
const STAMP: u32 = (1 << STAMP_BITS) - 1;
const HOT_BIT: u32 = 1 << STAMP_BITS;
/// A window is so many stamps long; the other values of a stamp are for what has been dead for long.
const STAMPS: u32 = 64;
/// So many parts has a window, when ages of both places are compared.
const SCALE: u32 = 1024;
const EMPTY: u32 = 0;

impl<const COLD: u32, const HOT: u32> Ghost<COLD, HOT> {
    /// Remembers the key of `hash`, while the policy holds `held` entries. When that has changed much since the
    /// table was made, the table is made anew, and empty: it happens in stores that are bounded by weight.
    pub(super) fn remember(&mut self, hash: u32, place: Place, held: u32) {
        let unmade = self.cells.is_empty();
        if unmade || held > self.made_for.saturating_add(self.made_for / 2) || held < self.made_for / 2 {
            *self = Self::for_held(held);
        }
        let stamp = match place {
            Place::Cold => self.windows[0].next(),
            Place::Hot => self.windows[1].next() | HOT_BIT,
        };
        let bucket = self.bucket(hash);
        // Its own cell or else the oldest, and without a branch, as none could be foretold.
        let rank = |cell: u32| if cell >> 16 == print(hash) { 1 << 32 } else { u64::from(self.age(cell)) };
        let ranked = self.cells[bucket.clone()].iter().zip(bucket).map(|(cell, at)| (rank(*cell), at));
        if let Some((_, at)) = ranked.reduce(|one, other| if one.0 > other.0 { one } else { other }) {
            self.cells[at] = print(hash) << 16 | stamp;
        }
    }

    /// Forgets the key of `hash`; where it was when it was given up, if it is remembered.
    pub(super) fn recall(&mut self, hash: u32) -> Option<Place> {
        let bucket = self.bucket(hash);
        let cell = self.cells[bucket].iter_mut().find(|cell| **cell >> 16 == print(hash))?;
        let found = std::mem::replace(cell, EMPTY);
        let place = if found & HOT_BIT == 0 { Place::Cold } else { Place::Hot };
        (self.age(found) < u32::MAX).then_some(place)
    }

    fn for_held(held: u32) -> Self {
        let held = held.max(4);
        let cold = Window::new(held / 4 * COLD);
        let hot = Window::new(held / 4 * HOT);
        let buckets = ((cold.limit + hot.limit) / ROOM.1 * ROOM.0).div_ceil(WAYS).max(1);
        let cells = vec![EMPTY; (buckets * WAYS) as usize].into();
        Self { cells, made_for: held, windows: [cold, hot] }
    }

    fn bucket(&self, hash: u32) -> std::ops::Range<usize> {
        let ways = WAYS as usize;
        let buckets = (self.cells.len() / ways) as u64;
        let first = usize::try_from((u64::from(hash) * buckets) >> 32).unwrap_or(0) * ways;
        first..(first + ways).min(self.cells.len())
    }

    /// In a measure that is the same for both places; the most if it is forgotten or nothing.
    #[inline]
    fn age(&self, cell: u32) -> u32 {
        let window = &self.windows[(cell >> STAMP_BITS & 1) as usize];
        if cell == EMPTY { u32::MAX } else { window.age(cell & STAMP) }
    }
}

impl Window {
    fn new(limit: u32) -> Self {
        let unit = limit.div_ceil(STAMPS).max(1);
        let stamps = limit.div_ceil(unit);
        Self { limit, unit, stamps, step: SCALE / stamps.max(1), now: 0, with_it: 0 }
    }

    /// The stamp of a key that is given up now.
    fn next(&mut self) -> u32 {
        if self.with_it == self.unit {
            self.now = (self.now + 1) & STAMP;
            self.with_it = 0;
        }
        self.with_it += 1;
        self.now
    }

    /// In parts of the window; the most if it is over.
    #[inline]
    const fn age(&self, stamp: u32) -> u32 {
        let stamps = self.now.wrapping_sub(stamp) & STAMP;
        if stamps < self.stamps { stamps * self.step } else { u32::MAX }
    }
}

/// Other bits than those that chose the bucket, unless the table is huge; never zero.
const fn print(hash: u32) -> u32 {
    let print = hash & 0xFFFF;
    if print == 0 { 1 } else { print }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(key: u32) -> u32 {
        key.wrapping_add(1).wrapping_mul(0x9E37_79B9).rotate_left(15).wrapping_mul(0x85EB_CA6B)
    }

    proptest! {
        /// What was given up last is remembered, in its place, and once.
        #[test]
        fn the_last_is_remembered(keys in prop::collection::vec((any::<u32>(), any::<bool>()), 1..300), held in 8..200u32) {
            let mut ghost = Ghost::<2, 1>::default();
            for (key, hot) in keys {
                let place = if hot { Place::Hot } else { Place::Cold };
                ghost.remember(key, place, held);
                prop_assert!(ghost.cells.len() <= held as usize + 8);
                prop_assert_eq!(ghost.recall(key), Some(place));
                prop_assert_eq!(ghost.recall(key), None);
                ghost.remember(key, place, held);
            }
        }

        /// What was given up more than a window ago is forgotten.
        #[test]
        fn the_old_is_forgotten(held in 8..500u32, hot in any::<bool>()) {
            let mut ghost = Ghost::<2, 1>::default();
            let place = if hot { Place::Hot } else { Place::Cold };
            let limit = held / 4 * if hot { 1 } else { 2 };
            for key in 0..1_000 {
                ghost.remember(hash(key), place, held);
            }
            let remembered = (0..1_000).filter(|key| ghost.recall(hash(*key)).is_some()).count();
            // A fingerprint of another may be met by chance.
            prop_assert!(remembered <= limit as usize + limit as usize / 32 + 2, "{} of {}", remembered, limit);
            prop_assert!(remembered >= limit as usize / 2, "{} of {}", remembered, limit);
        }
    }

    #[test]
    fn a_ghost_costs_less_than_four_bytes_an_entry() {
        let mut ghost = Ghost::<2, 1>::default();
        ghost.remember(0, Place::Cold, 100_000);
        assert!(size_of_val(&*ghost.cells) < 4 * 100_000);
    }
}
