//! Who may write upwards, and when: the fences of a chain (laws C3, C4, C8).
//!
//! Writers of one key take turns, in order. A reader takes a pass before it reads below and may write
//! upwards only if it gets the turn at once and no writer had one since. A pass or turn lives in a table
//! under its key's hash; two keys with equal hashes share one, which costs a wait or a skipped backfill
//! and never a wrong answer. At rest the table is empty.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use tokio::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use crate::sync::Mutex;

const SHARDS: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Fences {
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, Way>>; SHARDS],
    /// Shared by whoever writes one key, exclusive for whoever writes all of them.
    whole: tokio::sync::RwLock<()>,
    whole_epoch: AtomicU64,
}

/// A lane, and how many gates lead to it.
#[derive(Debug, Default)]
struct Way {
    lane: Arc<Lane>,
    gates: usize,
}

/// What the writers and readers of one key share while there are any.
#[derive(Debug, Default)]
struct Lane {
    turn: tokio::sync::Mutex<()>,
    epoch: AtomicU64,
}

impl Fences {
    pub(crate) fn gate<K: Hash + ?Sized>(&self, key: &K) -> Gate<'_> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).lock();
        let way = shard.entry(hash).or_default();
        way.gates += 1;
        Gate { fences: self, hash, lane: Arc::clone(&way.lane) }
    }

    /// The turn of a writer of all keys: waits until every other writer and backfill has ended.
    pub(crate) async fn whole_turn(&self) -> WholeTurn<'_> {
        let held = self.whole.write().await;
        self.whole_epoch.fetch_add(1, Ordering::SeqCst);
        WholeTurn { epoch: &self.whole_epoch, _held: held }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<u64, Way>> {
        // The high bits choose the shard, the table inside uses its own hash of the whole.
        &self.shards[(hash >> 60) as usize]
    }
}

/// The way to one key.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    fences: &'a Fences,
    hash: u64,
    lane: Arc<Lane>,
}

impl Gate<'_> {
    /// A writer's turn, in order of arrival.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let whole = self.fences.whole.read().await;
        let held = self.lane.turn.lock().await;
        Turn::begin(&self.lane.epoch, whole, held)
    }

    /// A writer's turn, if nobody has one.
    pub(crate) fn try_turn(&self) -> Option<Turn<'_>> {
        let whole = self.fences.whole.try_read().ok()?;
        let held = self.lane.turn.try_lock().ok()?;
        Some(Turn::begin(&self.lane.epoch, whole, held))
    }

    /// A reader's pass, to be taken before it reads what it may later write upwards.
    pub(crate) fn pass(&self) -> Pass<'_> {
        let epochs = self.epochs();
        Pass { gate: self, epochs }
    }

    fn epochs(&self) -> (u64, u64) {
        (self.lane.epoch.load(Ordering::SeqCst), self.fences.whole_epoch.load(Ordering::SeqCst))
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut way) = self.fences.shard(self.hash).lock().entry(self.hash) {
            way.get_mut().gates -= 1;
            if way.get().gates == 0 {
                way.remove();
            }
        }
    }
}

/// While it lives, its holder alone writes the key. The fence moves when it begins and when it ends.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    epoch: &'a AtomicU64,
    _whole: RwLockReadGuard<'a, ()>,
    _held: MutexGuard<'a, ()>,
}

impl<'a> Turn<'a> {
    fn begin(epoch: &'a AtomicU64, whole: RwLockReadGuard<'a, ()>, held: MutexGuard<'a, ()>) -> Self {
        epoch.fetch_add(1, Ordering::SeqCst);
        Self { epoch, _whole: whole, _held: held }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// While it lives, its holder alone writes any key.
#[derive(Debug)]
pub(crate) struct WholeTurn<'a> {
    epoch: &'a AtomicU64,
    _held: RwLockWriteGuard<'a, ()>,
}

impl Drop for WholeTurn<'_> {
    fn drop(&mut self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a reader knew of the writers when it began.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    gate: &'a Gate<'a>,
    epochs: (u64, u64),
}

impl<'a> Pass<'a> {
    /// The turn, if nobody has it and nobody had it since the pass was taken.
    pub(crate) fn try_turn(&self) -> Option<Turn<'a>> {
        let whole = self.gate.fences.whole.try_read().ok()?;
        let held = self.gate.lane.turn.try_lock().ok()?;
        // Under the turn nobody moves the epochs, so what holds now holds until the backfill is done.
        (self.gate.epochs() == self.epochs).then(|| Turn::begin(&self.gate.lane.epoch, whole, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_rest(fences: &Fences) -> bool {
        fences.shards.iter().all(|shard| shard.lock().is_empty())
    }

    #[tokio::test]
    async fn a_pass_is_good_only_if_no_writer_had_a_turn() {
        let fences = Fences::default();
        {
            let gate = fences.gate("a");
            let (early, writer) = (gate.pass(), fences.gate("a"));
            let turn = writer.turn().await;
            let amid = gate.pass();
            assert!(early.try_turn().is_none() && amid.try_turn().is_none(), "a writer is at work");
            drop(turn);
            assert!(early.try_turn().is_none(), "a writer began after the pass");
            assert!(amid.try_turn().is_none(), "a writer ended after the pass");
            assert!(gate.pass().try_turn().is_some());
        }
        assert!(at_rest(&fences));
    }

    #[tokio::test]
    async fn a_writer_of_everything_bars_every_pass() {
        let fences = Fences::default();
        {
            let gate = fences.gate("a");
            let early = gate.pass();
            let whole = fences.whole_turn().await;
            let amid = gate.pass();
            assert!(early.try_turn().is_none() && gate.try_turn().is_none());
            drop(whole);
            assert!(early.try_turn().is_none() && amid.try_turn().is_none());
        }
        assert!(at_rest(&fences));
    }

    /// The counterpart of a leak that one thread cannot show.
    #[test]
    fn at_rest_the_table_is_empty_also_when_gates_of_a_key_end_together() {
        let fences = Fences::default();
        let arrived = AtomicU64::new(0);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    for key in 0..100_000u64 {
                        let gate = fences.gate(&key);
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < 2 * (key + 1) {
                            std::thread::yield_now();
                        }
                        drop(gate);
                    }
                });
            }
        });
        assert!(at_rest(&fences));
    }

    #[tokio::test]
    async fn writers_of_other_keys_do_not_meet() {
        let fences = Fences::default();
        let (a, b) = (fences.gate("a"), fences.gate("b"));
        let _turn = a.turn().await;
        assert!(b.try_turn().is_some());
    }
}
