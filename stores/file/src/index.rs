//! What the directory holds, in memory: sizes, and the order in which to give entries up.
//!
//! The order is SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: "SIEVE is Simpler than LRU", NSDI 2024): a
//! queue in order of writing, a mark on each entry that was read, and a hand that walks from the oldest
//! entry to the newest, wipes marks and stops at the first entry without one. A hit moves nothing.
//!
//! An entry costs 56 bytes and, for the table that finds it, 6 to 12 more, whatever its key and value.

use hashbrown::HashTable;
use larder::{Lifetime, Timestamp};

use crate::place::Place;

/// The most entries that an index can number.
pub(crate) const MOST_ENTRIES: u64 = NONE as u64;

const NONE: u32 = u32::MAX;
/// How many entries are looked at for a dead one before a living one has to go.
const PROBES: usize = 16;
const NANOS: u64 = 1_000_000_000;

/// What a store may hold; the deadlines in files that were not read yet are unknown and count as never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// A file as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) place: Place,
    pub(crate) bytes: u64,
    pub(crate) keep: Keep,
}

/// `keep_until` in whole seconds, rounded up, so that nothing looks dead before its time; the last one
/// means never or unknown. Good until 2106, and never after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep(u32);

impl Keep {
    pub(crate) const UNKNOWN: Self = Self(u32::MAX);

    pub(crate) fn of(lifetime: Lifetime) -> Self {
        let seconds = lifetime.keep_until().as_nanos().div_ceil(NANOS);
        Self(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    fn is_dead(self, now: Timestamp) -> bool {
        self != Self::UNKNOWN && now.as_nanos() / NANOS > u64::from(self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Index {
    bounds: Bounds,
    bytes: u64,
    nodes: Vec<Node>,
    table: HashTable<u32>,
    newest: u32,
    oldest: u32,
    hand: u32,
    free: u32,
    probe: usize,
}

#[derive(Debug)]
struct Node {
    // Not as a `Known`, whose padding would cost eight bytes an entry.
    place: Place,
    bytes: u64,
    keep: Keep,
    newer: u32,
    /// Also links the free nodes.
    older: u32,
    live: bool,
    read: bool,
}

impl Index {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            bytes: 0,
            nodes: Vec::new(),
            table: HashTable::new(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
            free: NONE,
            probe: 0,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.table.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes `known` the newest entry, in place of what was known of its file. Returns what has to go
    /// for it: files to delete, `known` itself among them if it alone exceeds the bound.
    pub(crate) fn put(&mut self, known: Known, now: Timestamp) -> Vec<Known> {
        self.remove(known.place);
        let mut victims = Vec::new();
        if known.bytes > self.bounds.bytes || self.bounds.entries == 0 {
            victims.push(known);
            return victims;
        }
        let room = self.bounds.bytes - known.bytes;
        while self.len() >= self.bounds.entries || self.bytes > room {
            match self.victim(now) {
                Some(id) => victims.push(self.take(id)),
                None => break,
            }
        }
        self.link(known);
        victims
    }

    /// Takes an entry back that was given up, whatever the bounds: its file could not be deleted.
    pub(crate) fn put_back(&mut self, known: Known) {
        self.remove(known.place);
        self.link(known);
    }

    /// Marks an entry as read. `false` if this file, at this size, is not known.
    pub(crate) fn touch(&mut self, known: Known) -> bool {
        let Some(id) = self.find(known.place) else {
            return false;
        };
        let node = &mut self.nodes[id as usize];
        if node.bytes != known.bytes {
            return false;
        }
        node.keep = known.keep;
        node.read = true;
        true
    }

    pub(crate) fn remove(&mut self, place: Place) {
        if let Some(id) = self.find(place) {
            self.take(id);
        }
    }

    /// Every place that is known, in no order.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.nodes.iter().filter(|node| node.live).map(|node| node.place).collect()
    }

    fn find(&self, place: Place) -> Option<u32> {
        self.table.find(place.hash(), |&id| self.nodes[id as usize].place == place).copied()
    }

    /// Which entry to give up: a dead one if one is met within a few looks, else the hand's choice.
    fn victim(&mut self, now: Timestamp) -> Option<u32> {
        self.dead(now).or_else(|| self.unread(now))
    }

    fn dead(&mut self, now: Timestamp) -> Option<u32> {
        for _ in 0..PROBES.min(self.nodes.len()) {
            self.probe = (self.probe + 1) % self.nodes.len();
            let node = &self.nodes[self.probe];
            if node.live && node.keep.is_dead(now) {
                return u32::try_from(self.probe).ok();
            }
        }
        None
    }

    /// Ends after two rounds at the latest, because the first one wipes every mark.
    fn unread(&mut self, now: Timestamp) -> Option<u32> {
        let mut at = if self.hand == NONE { self.oldest } else { self.hand };
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            if !node.read || node.keep.is_dead(now) {
                // `take` moves the hand on.
                self.hand = at;
                return Some(at);
            }
            node.read = false;
            at = if node.newer == NONE { self.oldest } else { node.newer };
        }
        None
    }

    fn link(&mut self, Known { place, bytes, keep }: Known) {
        let node = Node { place, bytes, keep, newer: NONE, older: self.newest, live: true, read: false };
        let id = if self.free == NONE {
            let Some(id) = u32::try_from(self.nodes.len()).ok().filter(|&id| id != NONE) else {
                return;
            };
            self.nodes.push(node);
            id
        } else {
            let id = self.free;
            self.free = self.nodes[id as usize].older;
            self.nodes[id as usize] = node;
            id
        };
        match self.newest {
            NONE => self.oldest = id,
            newest => self.nodes[newest as usize].newer = id,
        }
        self.newest = id;
        self.bytes = self.bytes.saturating_add(bytes);
        let nodes = &self.nodes;
        self.table.insert_unique(place.hash(), id, |&id| nodes[id as usize].place.hash());
    }

    fn take(&mut self, id: u32) -> Known {
        let node = &mut self.nodes[id as usize];
        let known = Known { place: node.place, bytes: node.bytes, keep: node.keep };
        let (newer, older) = (node.newer, node.older);
        node.live = false;
        node.older = self.free;
        self.free = id;
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        if self.hand == id {
            self.hand = newer;
        }
        self.bytes = self.bytes.saturating_sub(known.bytes);
        if let Ok(slot) = self.table.find_entry(known.place.hash(), |&found| found == id) {
            slot.remove();
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SIEVE as its paper tells it, on a plain list from the oldest entry to the newest.
    #[derive(Default)]
    struct Model {
        queue: Vec<(Known, bool)>,
        hand: usize,
    }

    impl Model {
        fn remove(&mut self, place: Place) {
            if let Some(at) = self.queue.iter().position(|(known, _)| known.place == place) {
                self.take(at);
            }
        }

        fn take(&mut self, at: usize) -> Known {
            let (known, _) = self.queue.remove(at);
            self.hand -= usize::from(at < self.hand);
            if self.hand == self.queue.len() {
                self.hand = 0;
            }
            known
        }

        fn bytes(&self) -> u64 {
            self.queue.iter().map(|(known, _)| known.bytes).sum()
        }

        fn put(&mut self, known: Known, bounds: Bounds) -> Vec<Known> {
            self.remove(known.place);
            if known.bytes > bounds.bytes {
                return vec![known];
            }
            let mut victims = Vec::new();
            while self.queue.len() as u64 >= bounds.entries || self.bytes() + known.bytes > bounds.bytes {
                while std::mem::take(&mut self.queue[self.hand].1) {
                    self.hand = (self.hand + 1) % self.queue.len();
                }
                // At the newest end the hand goes back to the oldest, also if a new entry comes now.
                victims.push(self.take(self.hand));
            }
            self.queue.push((known, false));
            victims
        }
    }

    proptest! {
        #[test]
        fn entries_go_in_the_order_of_sieve(
            steps in prop::collection::vec((0u8..12, 1u64..40, 0..8), 1..120),
            entries in 1u64..8,
            bytes in 20u64..150,
        ) {
            let bounds = Bounds { entries, bytes };
            let (mut index, mut model) = (Index::new(bounds), Model::default());
            for (key, bytes, kind) in steps {
                let known = Known { place: Place::of(&key.to_string()), bytes, keep: Keep::UNKNOWN };
                match kind {
                    0 => {
                        index.remove(known.place);
                        model.remove(known.place);
                    }
                    1..=3 => {
                        let found = model.queue.iter_mut().find(|(found, _)| *found == known);
                        prop_assert_eq!(index.touch(known), found.is_some());
                        if let Some((_, read)) = found {
                            *read = true;
                        }
                    }
                    _ => prop_assert_eq!(index.put(known, Timestamp::EPOCH), model.put(known, bounds)),
                }
                prop_assert_eq!(index.len(), model.queue.len() as u64);
                prop_assert_eq!(index.bytes(), model.bytes());
                prop_assert!(index.len() <= bounds.entries && index.bytes() <= bounds.bytes);
                let mut places = index.places();
                let mut expected: Vec<_> = model.queue.iter().map(|(known, _)| known.place).collect();
                places.sort_by_key(Place::to_string);
                expected.sort_by_key(Place::to_string);
                prop_assert_eq!(places, expected);
            }
        }

        #[test]
        fn s12_nothing_looks_dead_before_its_time(keep in 0u64..5_000_000_000, now in 0u64..6_000_000_000) {
            let at = Timestamp::from_nanos;
            let dead = Keep::of(Lifetime::new(at(0), at(0), at(0), at(keep))).is_dead(at(now));
            prop_assert!(!dead || now > keep);
            prop_assert!(dead || now < keep + 2 * NANOS);
        }
    }

    #[test]
    fn never_and_beyond_2106_are_never_dead() {
        for keep in [Timestamp::MAX, Timestamp::from_nanos(u64::MAX - 1), Timestamp::from_nanos(NANOS << 32)]
        {
            let keep = Keep::of(Lifetime::new(Timestamp::EPOCH, Timestamp::EPOCH, Timestamp::EPOCH, keep));
            assert!(!keep.is_dead(Timestamp::MAX));
        }
    }

    #[test]
    fn an_entry_costs_what_is_said_above() {
        assert_eq!(size_of::<Node>(), 56);
    }
}
