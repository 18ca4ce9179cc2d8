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
    buckets: Box<[Bucket]>,
    made_for: u32,
    cold: Window,
    hot: Window,
}

type Bucket = [u32; 8];

/// Counts the keys of one place; a key is forgotten after `limit` others.
#[derive(Debug, Default)]
struct Window {
    limit: u32,
    /// The stamp of the keys that are given up now, in parts of the window; wraps.
    now: u32,
    /// What is left of the keys since, in parts of a stamp.
    rest: u32,
}

/// Cells for one key to be remembered, so that few buckets are crowded: five for four.
const ROOM: (u32, u32) = (5, 4);
const STAMP_BITS: u32 = 15;
const STAMP: u32 = (1 << STAMP_BITS) - 1;
const HOT_BIT: u32 = 1 << STAMP_BITS;
/// A window is so many stamps long, whatever its limit, so that ages of both places compare; the other values of a
/// stamp are for what has been dead for long.
const STAMPS: u32 = 64;

impl<const COLD: u32, const HOT: u32> Ghost<COLD, HOT> {
    /// Remembers the key of `hash`, while the policy holds `held` entries. When that has changed much since the
    /// table was made, the table is made anew, and empty: it happens in stores that are bounded by weight.
    pub(super) fn remember(&mut self, hash: u32, place: Place, held: u32) {
        let unmade = self.buckets.is_empty();
        if unmade || held > self.made_for.saturating_add(self.made_for / 2) || held < self.made_for / 2 {
            *self = Self::for_held(held);
        }
        let (now, hot_now) = (self.cold.now, self.hot.now);
        let bucket = self.bucket(hash);
        let Some(cells) = self.buckets.get_mut(bucket) else { return };
        // Its own cell or else the oldest, and without a branch, as none could be foretold.
        let mut best = 0;
        for (at, cell) in (0..).zip(&*cells) {
            let is_hot = 0u32.wrapping_sub(cell >> STAMP_BITS & 1);
            let age = (now ^ (now ^ hot_now) & is_hot).wrapping_sub(*cell) & STAMP;
            let own = u32::from(cell >> 16 == print(hash));
            best = best.max(own << 20 | age << 3 | at);
        }
        let stamp = match place {
            Place::Cold => self.cold.next(),
            Place::Hot => self.hot.next() | HOT_BIT,
        };
        cells[(best & 7) as usize] = print(hash) << 16 | stamp;
    }

    /// Forgets the key of `hash`; where it was when it was given up, if it is remembered.
    pub(super) fn recall(&mut self, hash: u32) -> Option<Place> {
        let (bucket, forgotten) = (self.bucket(hash), self.cold.forgotten());
        let cell = self.buckets.get_mut(bucket)?.iter_mut().find(|cell| **cell >> 16 == print(hash))?;
        let found = std::mem::replace(cell, forgotten);
        let (place, window) =
            if found & HOT_BIT == 0 { (Place::Cold, &self.cold) } else { (Place::Hot, &self.hot) };
        (window.now.wrapping_sub(found) & STAMP < STAMPS).then_some(place)
    }

    fn for_held(held: u32) -> Self {
        let held = held.max(4);
        let cold = Window { limit: held / 4 * COLD, ..Window::default() };
        let hot = Window { limit: held / 4 * HOT, ..Window::default() };
        let buckets = ((cold.limit + hot.limit) / ROOM.1 * ROOM.0).div_ceil(8).max(1);
        let empty = [cold.forgotten(); 8];
        Self { buckets: vec![empty; buckets as usize].into(), made_for: held, cold, hot }
    }

    fn bucket(&self, hash: u32) -> usize {
        usize::try_from((u64::from(hash) * self.buckets.len() as u64) >> 32).unwrap_or(0)
    }
}

impl Window {
    /// The stamp of a key that is given up now.
    fn next(&mut self) -> u32 {
        let stamp = self.now;
        self.rest += STAMPS;
        if self.rest >= self.limit {
            self.now = (self.now + self.rest / self.limit) & STAMP;
            self.rest %= self.limit;
        }
        stamp
    }

    /// A cell of nobody's, which goes before any that is remembered.
    const fn forgotten(&self) -> u32 {
        self.now.wrapping_sub(STAMPS) & STAMP
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
                prop_assert!(size_of_val(&*ghost.buckets) / 4 <= held as usize + 8);
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
        assert!(size_of_val(&*ghost.buckets) < 4 * 100_000);
    }
}
