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
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

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
    /// How many lanes are hidden: all that a hit asks.
    hidden: AtomicUsize,
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
    /// Whether the upper copies of its keys count as absent, because whoever has the turn renews one.
    hidden: AtomicBool,
}

impl Fences {
    pub(crate) fn gate<K: Hash + ?Sized>(&self, key: &K) -> Gate<'_> {
        self.gate_of(self.hasher.hash_one(key))
    }

    /// The gates of many keys, those with equal hashes sharing one.
    pub(crate) fn gates<'k, K: Hash + Eq + ?Sized + 'k>(
        &self,
        keys: impl Iterator<Item = &'k K>,
    ) -> Batch<'_> {
        let keys: Vec<&K> = keys.collect();
        let mut order: Vec<(u64, usize)> =
            keys.iter().enumerate().map(|(index, key)| (self.hasher.hash_one(*key), index)).collect();
        order.sort_unstable();
        let (mut gates, mut again) = (Vec::with_capacity(order.len()), Vec::new());
        for lane in order.chunk_by(|one, other| one.0 == other.0) {
            gates.push(self.gate_of(lane[0].0));
            // One key, but for hashes that are equal by chance; so this is as long as the lane, not its square.
            let mut known: Vec<(&K, usize)> = Vec::new();
            for &(_, index) in lane.iter().filter(|_| lane.len() > 1) {
                match known.iter_mut().find(|(key, _)| *key == keys[index]) {
                    None => known.push((keys[index], 0)),
                    Some((_, round)) => {
                        *round += 1;
                        again.push((index, *round));
                    }
                }
            }
        }
        Batch { gates, rounds: rounds(keys.len(), &again) }
    }

    /// The turns of a writer of many keys. Every batch takes them in one order, so that no two wait for
    /// each other; and it asks once for leave to write at all, as a second time it might wait behind a
    /// writer of all keys who waits for it.
    pub(crate) async fn turns<'a>(&'a self, gates: &'a [Gate<'_>]) -> Turns<'a> {
        let whole = self.whole.read().await;
        let mut lanes = Vec::with_capacity(gates.len());
        for gate in gates {
            lanes.push(LaneTurn::begin(&gate.lane, gate.lane.turn.lock().await));
        }
        Turns { _lanes: lanes, _whole: whole }
    }

    /// Whether any upper copy is hidden.
    #[inline]
    pub(crate) fn hides_any(&self) -> bool {
        self.hidden.load(Ordering::SeqCst) > 0
    }

    /// Whether the upper copy of `key` is hidden.
    pub(crate) fn hides<K: Hash + ?Sized>(&self, key: &K) -> bool {
        if !self.hides_any() {
            return false;
        }
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash).lock();
        shard.get(&hash).is_some_and(|way| way.lane.hidden.load(Ordering::SeqCst))
    }

    fn gate_of(&self, hash: u64) -> Gate<'_> {
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
        self.begin(whole, held)
    }

    /// A writer's turn, if nobody has one.
    pub(crate) fn try_turn(&self) -> Option<Turn<'_>> {
        let whole = self.fences.whole.try_read().ok()?;
        let held = self.lane.turn.try_lock().ok()?;
        Some(self.begin(whole, held))
    }

    fn begin<'a>(&'a self, whole: RwLockReadGuard<'a, ()>, held: MutexGuard<'a, ()>) -> Turn<'a> {
        Turn { lane: LaneTurn::begin(&self.lane, held), hidden: &self.fences.hidden, _whole: whole }
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

/// The ways to many keys.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    /// One a lane, in the order in which their turns are taken.
    pub(crate) gates: Vec<Gate<'a>>,
    /// The places of the keys, if some occur several times: each key once a round, in order.
    pub(crate) rounds: Option<Vec<Vec<usize>>>,
}

/// Everyone is in the first round, but for those who come `again` in a later one.
fn rounds(count: usize, again: &[(usize, usize)]) -> Option<Vec<Vec<usize>>> {
    let last = again.iter().map(|(_, round)| *round).max()?;
    let mut round_of = vec![0; count];
    for &(index, round) in again {
        round_of[index] = round;
    }
    let mut rounds = vec![Vec::new(); last + 1];
    for (index, round) in round_of.into_iter().enumerate() {
        rounds[round].push(index);
    }
    Some(rounds)
}

/// While it lives, its holder alone writes the key. The fence moves when it begins and when it ends.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    lane: LaneTurn<'a>,
    hidden: &'a AtomicUsize,
    _whole: RwLockReadGuard<'a, ()>,
}

impl Turn<'_> {
    /// While it lives, the upper copy of the key counts as absent.
    pub(crate) fn hide(&self) -> Hidden<'_> {
        // First the lane: whoever sees the count must find it.
        self.lane.lane.hidden.store(true, Ordering::SeqCst);
        self.hidden.fetch_add(1, Ordering::SeqCst);
        Hidden { lane: self.lane.lane, hidden: self.hidden }
    }
}

/// The turns of many keys.
#[derive(Debug)]
pub(crate) struct Turns<'a> {
    _lanes: Vec<LaneTurn<'a>>,
    _whole: RwLockReadGuard<'a, ()>,
}

#[derive(Debug)]
struct LaneTurn<'a> {
    lane: &'a Lane,
    _held: MutexGuard<'a, ()>,
}

impl<'a> LaneTurn<'a> {
    fn begin(lane: &'a Lane, held: MutexGuard<'a, ()>) -> Self {
        lane.epoch.fetch_add(1, Ordering::SeqCst);
        Self { lane, _held: held }
    }
}

impl Drop for LaneTurn<'_> {
    fn drop(&mut self) {
        self.lane.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// See [`Turn::hide`].
#[derive(Debug)]
pub(crate) struct Hidden<'a> {
    lane: &'a Lane,
    hidden: &'a AtomicUsize,
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.hidden.fetch_sub(1, Ordering::SeqCst);
        self.lane.hidden.store(false, Ordering::SeqCst);
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
        (self.gate.epochs() == self.epochs).then(|| self.gate.begin(whole, held))
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
