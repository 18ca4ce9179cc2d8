//! What is read most, where readers take no lock.
//!
//! A hit under a shard's lock writes the lock, twice, in a cache line that all readers share; so the key that every
//! thread asks for is the one that does not scale. An entry that is found hot moves out of its slot into a *node* that
//! readers reach by one atomic pointer, and back when it is written or another takes its place. The lock still orders all
//! that changes: only who holds it for writing changes a cell.
//!
//! A reader may hold a node that has just left; whoever lets go of it last drops it (`arc-swap`). So a value that left
//! lives no longer than the last call that reads it.

use std::borrow::Borrow;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};

use crate::entry::Entry;
use crate::key::Key;
use crate::memory::policy::Policy;

/// An entry that is read without a lock.
pub(super) struct Node<K: Key + ?Sized, V, P: Policy> {
    pub(super) key: K::Owned,
    pub(super) entry: Entry<V>,
    pub(super) touch: P::Touch,
    /// Whether it was read since another entry last asked for its cell.
    used: AtomicBool,
}

/// Where the hot entries of one shard are. An entry has one cell in which it may be, by its hash.
pub(super) struct Front<K: Key + ?Sized, V, P: Policy> {
    /// Made when the first entry is found hot.
    cells: OnceLock<Box<[Cell<K, V, P>]>>,
    /// How many cells there are then: a power of two.
    size: usize,
    /// One in so many hits that took the lock asks for a cell; less one.
    ask: u32,
    /// Hits that took the lock. Not exact: readers overwrite each other's count.
    locked: AtomicU32,
    /// Where exact recency counts.
    ticks: Arc<AtomicU64>,
}

struct Cell<K: Key + ?Sized, V, P: Policy> {
    /// Whose node it may be, so that only few readers of other keys look at it: half a hash, and never zero. Zero if it
    /// is nobody's.
    print: AtomicU32,
    /// The slot that it moved out of.
    slot: AtomicU32,
    node: ArcSwapOption<Node<K, V, P>>,
}

/// What a reader holds while it reads.
pub(super) type Found<K, V, P> = Guard<Option<Arc<Node<K, V, P>>>>;

/// So many entries of a shard share a cell ..
const ENTRIES_A_CELL: usize = 8;
/// .. of which there are no fewer and no more than these.
const CELLS: std::ops::RangeInclusive<usize> = 8..=16;
/// One in so many hits that took the lock asks for a cell, a power of two: a key that is read as often as all others
/// together has one soon, and a scan hardly pays for what it never reads again.
pub(super) const ASK: u32 = 64;

impl<K: Key + ?Sized, V, P: Policy> Node<K, V, P> {
    pub(super) fn new(key: K::Owned, entry: Entry<V>, touch: P::Touch) -> Self {
        Self { key, entry, touch, used: AtomicBool::new(true) }
    }
}

impl<K: Key + ?Sized, V, P: Policy> Front<K, V, P> {
    /// For a shard with room for `capacity` entries. One in `ask` hits that took the lock asks for a cell.
    pub(super) fn new(capacity: usize, ask: u32, ticks: Arc<AtomicU64>) -> Self {
        let size = (capacity / ENTRIES_A_CELL).clamp(*CELLS.start(), *CELLS.end()).next_power_of_two();
        Self { cells: OnceLock::new(), size, ask: ask - 1, locked: AtomicU32::new(0), ticks }
    }

    /// The node of `key`, if it is here: a hit.
    #[inline]
    pub(super) fn find(&self, key: &K, half: u32) -> Option<Found<K, V, P>> {
        let cells = self.cells.get()?;
        let cell = &cells[place(half, cells.len())];
        if cell.print.load(Ordering::Relaxed) != print(half) {
            return None;
        }
        let found = cell.node.load();
        let node = found.as_ref().filter(|node| node.key.borrow() == key)?;
        // A line that is only read stays in every core's cache.
        if !node.used.load(Ordering::Relaxed) {
            node.used.store(true, Ordering::Relaxed);
        }
        P::hit(&node.touch, || self.ticks.fetch_add(1, Ordering::Relaxed));
        Some(found)
    }

    /// Counts a hit that took the lock. Whether its key is to ask for a cell.
    #[inline]
    pub(super) fn counts(&self) -> bool {
        let locked = self.locked.load(Ordering::Relaxed).wrapping_add(1);
        self.locked.store(locked, Ordering::Relaxed);
        locked & self.ask == 0
    }

    /// Whether a key may have its cell: it is free, or its node was not read since the last one asked.
    pub(super) fn yields(&self, half: u32) -> bool {
        let node = self.cell(half).node.load();
        node.as_ref().is_none_or(|node| !node.used.swap(false, Ordering::Relaxed))
    }

    /// The slot of the entry in the cell of a key, which may be another key's. Under the lock.
    pub(super) fn occupant(&self, half: u32) -> Option<u32> {
        let cell = self.cell(half);
        (cell.print.load(Ordering::Relaxed) != 0).then(|| cell.slot.load(Ordering::Relaxed))
    }

    /// Puts the node of a slot into the cell of its key, which is empty. Under the lock, for writing.
    pub(super) fn fill(&self, half: u32, slot: u32, node: Arc<Node<K, V, P>>) {
        let cell = self.cell(half);
        cell.node.store(Some(node));
        cell.slot.store(slot, Ordering::Relaxed);
        cell.print.store(print(half), Ordering::Relaxed);
    }

    /// Empties the cell of a key. Under the lock, for writing. Whoever calls holds the node too, and lets go of it when
    /// the lock is free: that may run the caller's code.
    pub(super) fn empty(&self, half: u32) {
        self.cell(half).empty();
    }

    /// Empties all cells, likewise.
    pub(super) fn empty_all(&self) {
        self.cells.get().into_iter().flatten().for_each(Cell::empty);
    }

    fn cell(&self, half: u32) -> &Cell<K, V, P> {
        let cells = self.cells.get_or_init(|| {
            let cell = || Cell {
                print: AtomicU32::new(0),
                slot: AtomicU32::new(0),
                node: ArcSwapOption::const_empty(),
            };
            (0..self.size).map(|_| cell()).collect()
        });
        &cells[place(half, cells.len())]
    }
}

impl<K: Key + ?Sized, V, P: Policy> Cell<K, V, P> {
    fn empty(&self) {
        self.print.store(0, Ordering::Relaxed);
        self.node.store(None);
    }
}

/// Bits between those with which the table begins and ends.
const fn place(half: u32, cells: usize) -> usize {
    (half >> 8) as usize & (cells - 1)
}

const fn print(half: u32) -> u32 {
    half | 1
}
