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
    known: Known,
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
        if node.known.bytes != known.bytes {
            return false;
        }
        node.known.keep = known.keep;
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
        self.nodes.iter().filter(|node| node.live).map(|node| node.known.place).collect()
    }

    fn find(&self, place: Place) -> Option<u32> {
        self.table.find(place.hash(), |&id| self.nodes[id as usize].known.place == place).copied()
    }

    /// Which entry to give up: a dead one if one is met within a few looks, else the hand's choice.
    fn victim(&mut self, now: Timestamp) -> Option<u32> {
        self.dead(now).or_else(|| self.unread(now))
    }

    fn dead(&mut self, now: Timestamp) -> Option<u32> {
        for _ in 0..PROBES.min(self.nodes.len()) {
            self.probe = (self.probe + 1) % self.nodes.len();
            let node = &self.nodes[self.probe];
            if node.live && node.known.keep.is_dead(now) {
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
            if !node.read || node.known.keep.is_dead(now) {
                // `take` moves the hand on.
                self.hand = at;
                return Some(at);
            }
            node.read = false;
            at = if node.newer == NONE { self.oldest } else { node.newer };
        }
        None
    }

    fn link(&mut self, known: Known) {
        let node = Node { known, newer: NONE, older: self.newest, live: true, read: false };
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
        self.bytes = self.bytes.saturating_add(known.bytes);
        let nodes = &self.nodes;
        let hash = |&id: &u32| nodes[id as usize].known.place.hash();
        self.table.insert_unique(known.place.hash(), id, hash);
    }

    fn take(&mut self, id: u32) -> Known {
        let node = &mut self.nodes[id as usize];
        let (known, newer, older) = (node.known, node.newer, node.older);
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
