//! Two tiers as one store, the faster one first.

mod bulk;
mod fence;
mod marks;
mod renewal;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::describe::{Description, grouped};
use crate::entry::{Entry, Freshness};
use crate::error::{Error, Result};
use crate::store::{ClearPrefix, SetOutcome, Store};
use crate::time::{AnyClock, Clock, Timestamp};
use fence::{Fences, Pass};
use marks::Marks;

/// An upper tier in front of a lower one. See [`chain`](crate::StoreExt::chain).
#[derive(Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Chain<A: Store, B> {
    upper: A,
    lower: B,
    strict: bool,
    clock: AnyClock,
    fences: Fences,
    absent_above: Marks<A::Key>,
    absent_below: Marks<A::Key>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    backfills: AtomicU64,
    skipped: AtomicU64,
    upper_failures: AtomicU64,
    lower_failures: AtomicU64,
}

/// What happened between the tiers of a [`Chain`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainStats {
    /// Entries that the lower tier answered and the upper one took.
    pub backfills: u64,
    /// Entries that were not written upwards, because a writer was at work or had been (law C3).
    pub skipped_backfills: u64,
    /// Calls that the upper tier failed.
    pub upper_failures: u64,
    /// Calls that the lower tier failed.
    pub lower_failures: u64,
    /// Keys whose copy in the upper tier counts as absent after a failed write or removal (law C6).
    pub absent_above: u64,
    /// Keys whose copy in the lower tier counts as absent after a failed write or removal (law C6).
    pub absent_below: u64,
}

impl<A, B> Chain<A, B>
where
    A: Store,
    B: Store<Key = A::Key, Value = A::Value>,
{
    /// `upper` in front of `lower`.
    pub fn new(upper: A, lower: B) -> Self {
        Self {
            upper,
            lower,
            strict: false,
            clock: AnyClock::default(),
            fences: Fences::default(),
            absent_above: Marks::default(),
            absent_below: Marks::default(),
            counts: Counts::default(),
        }
    }

    /// Takes a new entry back from the upper tier when the lower one failed to store it, so that an entry
    /// is either in the deepest tier or nowhere. Without it a cache goes on remembering in an outage.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The clock that dates the fence of a tier that failed to clear; the system's unless told.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = AnyClock::of(clock);
        self
    }

    /// The faster tier.
    pub const fn upper(&self) -> &A {
        &self.upper
    }

    /// The deeper tier.
    pub const fn lower(&self) -> &B {
        &self.lower
    }

    /// What happened between the tiers so far.
    pub fn stats(&self) -> ChainStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ChainStats {
            backfills: read(&self.counts.backfills),
            skipped_backfills: read(&self.counts.skipped),
            upper_failures: read(&self.counts.upper_failures),
            lower_failures: read(&self.counts.lower_failures),
            absent_above: self.absent_above.len(),
            absent_below: self.absent_below.len(),
        }
    }

    /// Chooses between what the tiers hold (C1, C5), and says whether it goes into the upper one (C2).
    fn choose(
        now: Timestamp,
        above: Result<Option<Entry<A::Value>>>,
        below: Result<Option<Entry<A::Value>>>,
    ) -> (Result<Option<Entry<A::Value>>>, bool) {
        let upper_answered = above.is_ok();
        let above = above.unwrap_or_default();
        let below = match below {
            Ok(below) => below,
            Err(error) => return (above.map_or(Err(error), |entry| Ok(Some(entry))), false),
        };
        let Some(below) = below else { return (Ok(above), false) };
        if let Some(above) = above
            && above.lifetime().fresh_until() >= below.lifetime().fresh_until()
        {
            return (Ok(Some(above)), false);
        }
        let goes_up = upper_answered && below.freshness(now) != Freshness::Dead;
        (Ok(Some(below)), goes_up)
    }

    /// Writes `entry` upwards unless a writer of this key is at work, or was since the pass was taken.
    async fn backfill(&self, key: &A::Key, entry: &Entry<A::Value>, pass: Pass<'_>) {
        let Some(_turn) = pass.try_turn() else {
            add(&self.counts.skipped);
            return;
        };
        let above = self.upper.set(key, entry.clone()).await;
        self.note_above(key, &above);
        if let Ok(SetOutcome::Stored) = above {
            add(&self.counts.backfills);
        }
    }

    /// Reads the upper tier, or tries to get rid of a copy there that counts as absent.
    async fn read_above(&self, key: &A::Key, now: Timestamp) -> Result<Option<Entry<A::Value>>> {
        if self.absent_above.contains(key) {
            return self.repair(key, &self.upper, &self.absent_above, &self.counts.upper_failures).await;
        }
        if self.fences.hides(key) {
            return Ok(None);
        }
        let entry = self.upper.get_at(key, now).await.inspect_err(|_| add(&self.counts.upper_failures))?;
        Ok(entry.filter(|entry| self.absent_above.admits(entry.created_at())))
    }

    async fn read_below(&self, key: &A::Key, now: Timestamp) -> Result<Option<Entry<A::Value>>> {
        if self.absent_below.contains(key) {
            // What the lower tier holds is absent through this stack, so trouble in removing it is no error.
            return Ok(self
                .repair(key, &self.lower, &self.absent_below, &self.counts.lower_failures)
                .await
                .unwrap_or_default());
        }
        let entry = self.lower.get_at(key, now).await.inspect_err(|_| add(&self.counts.lower_failures))?;
        Ok(entry.filter(|entry| self.absent_below.admits(entry.created_at())))
    }

    /// Retries the removal of a copy that counts as absent, unless a writer is at work (C6, C8).
    async fn repair<T: Store<Key = A::Key>>(
        &self,
        key: &A::Key,
        tier: &T,
        absent: &Marks<A::Key>,
        failures: &AtomicU64,
    ) -> Result<Option<Entry<A::Value>>> {
        let gate = self.fences.gate(key);
        if let Some(_turn) = gate.try_turn()
            && absent.contains(key)
        {
            tier.remove(key).await.inspect_err(|_| add(failures))?;
            absent.unmark(key);
        }
        Ok(None)
    }

    fn note_above<T>(&self, key: &A::Key, outcome: &Result<T>) {
        self.note(key, &self.absent_above, &self.counts.upper_failures, outcome);
    }

    fn note_below<T>(&self, key: &A::Key, outcome: &Result<T>) {
        self.note(key, &self.absent_below, &self.counts.lower_failures, outcome);
    }

    /// What became of an entry that was given to both tiers: the deeper one's error, else what is true of
    /// the stack.
    fn written(below: Result<SetOutcome>, above: Result<SetOutcome>) -> Result<SetOutcome> {
        match (below?, above) {
            (SetOutcome::Refused(_), Ok(above)) => Ok(above),
            (below, _) => Ok(below),
        }
    }

    /// Notes the outcome of a write or removal of `key` in a tier.
    fn note<T>(&self, key: &A::Key, absent: &Marks<A::Key>, failures: &AtomicU64, outcome: &Result<T>) {
        if outcome.is_ok() {
            absent.unmark(key);
        } else {
            add(failures);
            absent.mark(key, || self.clock.now());
        }
    }

    /// Notes the outcome of clearing a tier, all of it or a part.
    fn note_clear(&self, absent: &Marks<A::Key>, failures: &AtomicU64, outcome: &Result<()>, all: bool) {
        if outcome.is_err() {
            add(failures);
            absent.fence(self.clock.now());
        } else if all {
            absent.lift();
        }
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// The deeper tier's error first: it is the one that lost something.
fn both(above: Result<()>, below: Result<()>) -> Result<(), Error> {
    below.and(above)
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every stack with two tiers")]
impl<A, B> Store for Chain<A, B>
where
    A: Store,
    B: Store<Key = A::Key, Value = A::Value>,
{
    type Key = A::Key;
    type Value = A::Value;

    /// The first tier that holds an entry answers: at the epoch every entry is fresh.
    fn get(&self, key: &A::Key) -> impl Future<Output = Result<Option<Entry<A::Value>>>> + Send {
        self.get_at(key, Timestamp::EPOCH)
    }

    async fn get_at(&self, key: &A::Key, now: Timestamp) -> Result<Option<Entry<A::Value>>> {
        let above = self.read_above(key, now).await;
        if let Ok(Some(entry)) = &above
            && entry.freshness(now) == Freshness::Fresh
        {
            return above;
        }
        let gate = self.fences.gate(key);
        let pass = gate.pass();
        let below = self.read_below(key, now).await;
        let (answer, goes_up) = Self::choose(now, above, below);
        if goes_up && let Ok(Some(entry)) = &answer {
            self.backfill(key, entry, pass).await;
        }
        answer
    }

    async fn set(&self, key: &A::Key, entry: Entry<A::Value>) -> Result<SetOutcome> {
        let gate = self.fences.gate(key);
        let _turn = gate.turn().await;
        let dropped = self.upper.remove(key).await;
        self.note_above(key, &dropped);

        let below = self.lower.set(key, entry.clone()).await;
        self.note_below(key, &below);
        if self.strict && below.is_err() {
            return below;
        }

        let above = self.upper.set(key, entry).await;
        self.note_above(key, &above);
        Self::written(below, above)
    }

    /// Renews below, then above. See `chain/renewal.rs` for why nobody sees it flicker.
    async fn renew(&self, key: &A::Key, entry: Entry<A::Value>) -> Result<SetOutcome> {
        let gate = self.fences.gate(key);
        let turn = gate.turn().await;
        let hidden = self.hide_above(key, &turn);
        let below = self.lower.renew(key, entry.clone()).await;
        self.note_below(key, &below);
        if self.strict && below.is_err() {
            let dropped = self.upper.remove(key).await;
            self.note_above(key, &dropped);
            hidden.settled();
            return below;
        }

        let above = self.upper.renew(key, entry).await;
        self.note_above(key, &above);
        hidden.settled();
        Self::written(below, above)
    }

    async fn remove(&self, key: &A::Key) -> Result<()> {
        let gate = self.fences.gate(key);
        let _turn = gate.turn().await;
        let above = self.upper.remove(key).await;
        self.note_above(key, &above);
        let below = self.lower.remove(key).await;
        self.note_below(key, &below);
        both(above, below)
    }

    async fn clear(&self) -> Result<()> {
        let _turn = self.fences.whole_turn().await;
        let above = self.upper.clear().await;
        self.note_clear(&self.absent_above, &self.counts.upper_failures, &above, true);
        let below = self.lower.clear().await;
        self.note_clear(&self.absent_below, &self.counts.lower_failures, &below, true);
        both(above, below)
    }

    fn peek_with<R>(&self, key: &A::Key, read: impl FnOnce(&Entry<A::Value>) -> R) -> Option<R> {
        if self.absent_above.is_empty() && !self.fences.hides_any() {
            return self.upper.peek_with(key, read);
        }
        if self.absent_above.contains(key) || self.fences.hides(key) {
            return None;
        }
        let admitted =
            |entry: &Entry<A::Value>| self.absent_above.admits(entry.created_at()).then(|| read(entry));
        self.upper.peek_with(key, admitted).flatten()
    }

    /// One call a tier, and one to write upwards what came from below.
    fn get_many(
        &self,
        keys: &[&A::Key],
        now: Timestamp,
    ) -> impl Future<Output = Vec<Result<Option<Entry<A::Value>>>>> + Send {
        self.read_batch(keys, now)
    }

    /// One call a tier and step, also when some of the keys fail.
    fn set_many(
        &self,
        entries: &[(&A::Key, Entry<A::Value>)],
    ) -> impl Future<Output = Vec<Result<SetOutcome>>> + Send {
        self.write_batch(entries)
    }

    /// One call a tier, also when some of the keys fail.
    fn remove_many(&self, keys: &[&A::Key]) -> impl Future<Output = Vec<Result<()>>> + Send {
        self.remove_batch(keys)
    }

    /// `None`: which keys the tiers share is not known without asking for each.
    fn len(&self) -> Option<u64> {
        None
    }

    /// `None`, as for [`len`](Store::len): an entry that both tiers hold is one entry.
    fn weight(&self) -> Option<u64> {
        None
    }

    async fn flush(&self) -> Result<()> {
        let above = self.upper.flush().await;
        let below = self.lower.flush().await;
        both(above, below)
    }

    fn describe(&self) -> Description {
        let stats = self.stats();
        let mut description = Description::new("chain");
        if self.strict {
            description = description.with("strict", "");
        }
        for (name, count) in [
            ("backfilled", stats.backfills),
            ("upper failures", stats.upper_failures),
            ("lower failures", stats.lower_failures),
            ("absent above", stats.absent_above),
            ("absent below", stats.absent_below),
        ] {
            if count > 0 {
                description = description.with(name, grouped(count));
            }
        }
        description.over(self.upper.describe()).over(self.lower.describe())
    }
}

impl<A, B> ClearPrefix for Chain<A, B>
where
    A: ClearPrefix,
    B: ClearPrefix<Value = A::Value>,
{
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let _turn = self.fences.whole_turn().await;
        let above = self.upper.clear_prefix(prefix).await;
        self.note_clear(&self.absent_above, &self.counts.upper_failures, &above, false);
        let below = self.lower.clear_prefix(prefix).await;
        self.note_clear(&self.absent_below, &self.counts.lower_failures, &below, false);
        both(above, below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Lifetime;
    use crate::memory::Memory;

    /// Answers bulk reads for fewer or more keys than it was asked.
    struct Miscounting(Memory<u64, u64>, usize);

    impl Store for Miscounting {
        type Key = u64;
        type Value = u64;

        fn get(&self, key: &u64) -> impl Future<Output = Result<Option<Entry<u64>>>> + Send {
            self.0.get(key)
        }

        fn set(&self, key: &u64, entry: Entry<u64>) -> impl Future<Output = Result<SetOutcome>> + Send {
            self.0.set(key, entry)
        }

        fn remove(&self, key: &u64) -> impl Future<Output = Result<()>> + Send {
            self.0.remove(key)
        }

        fn clear(&self) -> impl Future<Output = Result<()>> + Send {
            self.0.clear()
        }

        async fn get_many(&self, _: &[&u64], _: Timestamp) -> Vec<Result<Option<Entry<u64>>>> {
            (0..self.1).map(|_| Ok(None)).collect()
        }
    }

    #[tokio::test]
    async fn a_tier_that_answers_for_other_keys_than_it_was_asked_harms_nobody() {
        let now = Timestamp::EPOCH;
        for count in [0, 1, 2, 9] {
            let above = Chain::new(Miscounting(Memory::new(10), count), Memory::new(10));
            above.lower().set(&1, Entry::new(1, Lifetime::forever(now))).await.unwrap();
            let answers = above.get_many(&[&1, &2], now).await;
            assert_eq!(answers.len(), 2);
            assert!(matches!(&answers[0], Ok(Some(entry)) if *entry.value() == 1));
            let below = Chain::new(Memory::new(10), Miscounting(Memory::new(10), count));
            let answers = below.get_many(&[&1, &2], now).await;
            assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), count.min(2), "{answers:?}");
        }
    }
}
