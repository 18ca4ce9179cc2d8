//! Two tiers as one store, the faster one first.

mod fence;
mod marks;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::adapters::next_answer;
use crate::describe::{Description, grouped};
use crate::entry::{Entry, Freshness};
use crate::error::{Error, Operation, Result};
use crate::store::{ClearPrefix, SetOutcome, Store};
use crate::time::{AnyClock, Clock, Timestamp};
use fence::{Fences, Gate, Pass};
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

    /// Chooses between what the tiers hold and copies the lower tier's answer upwards (C1, C2, C5).
    async fn settle(
        &self,
        key: &A::Key,
        now: Timestamp,
        above: Result<Option<Entry<A::Value>>>,
        below: Result<Option<Entry<A::Value>>>,
        pass: Pass<'_>,
    ) -> Result<Option<Entry<A::Value>>> {
        let upper_answered = above.is_ok();
        let above = above.unwrap_or_default();
        let below = match below {
            Ok(below) => below,
            Err(error) => return above.map_or(Err(error), |entry| Ok(Some(entry))),
        };
        let Some(below) = below else { return Ok(above) };
        if let Some(above) = above
            && above.lifetime().fresh_until() >= below.lifetime().fresh_until()
        {
            return Ok(Some(above));
        }
        if upper_answered && below.freshness(now) != Freshness::Dead {
            self.backfill(key, &below, pass).await;
        }
        Ok(Some(below))
    }

    /// Writes `entry` upwards unless a writer of this key is at work, or was since the pass was taken.
    async fn backfill(&self, key: &A::Key, entry: &Entry<A::Value>, pass: Pass<'_>) {
        let Some(_turn) = pass.try_turn() else {
            add(&self.counts.skipped);
            return;
        };
        let above = self.upper.set(key, entry.clone()).await;
        self.note(key, &self.absent_above, &self.counts.upper_failures, &above);
        if let Ok(SetOutcome::Stored) = above {
            add(&self.counts.backfills);
        }
    }

    /// Reads the upper tier, or tries to get rid of a copy there that counts as absent.
    async fn read_above(&self, key: &A::Key, now: Timestamp) -> Result<Option<Entry<A::Value>>> {
        if self.absent_above.contains(key) {
            return self.repair(key, &self.upper, &self.absent_above, &self.counts.upper_failures).await;
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

    /// Reads below for passes that were taken: a mark that came before them must be seen here, one that
    /// comes after them moves the fence.
    async fn read_many_below(
        &self,
        keys: &[&A::Key],
        now: Timestamp,
    ) -> Vec<Result<Option<Entry<A::Value>>>> {
        if self.absent_below.is_empty() {
            let mut answers = self.lower.get_many(keys, now).await.into_iter();
            let answer = |_| next_answer(&mut answers, "chain", Operation::Get);
            let failed = |_: &Error| add(&self.counts.lower_failures);
            return keys.iter().map(answer).map(|answer| answer.inspect_err(failed)).collect();
        }
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.read_below(key, now).await);
        }
        answers
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
        self.settle(key, now, above, below, pass).await
    }

    async fn set(&self, key: &A::Key, entry: Entry<A::Value>) -> Result<SetOutcome> {
        let gate = self.fences.gate(key);
        let _turn = gate.turn().await;
        let dropped = self.upper.remove(key).await;
        self.note(key, &self.absent_above, &self.counts.upper_failures, &dropped);

        let below = self.lower.set(key, entry.clone()).await;
        self.note(key, &self.absent_below, &self.counts.lower_failures, &below);
        if self.strict && below.is_err() {
            return below;
        }

        let above = self.upper.set(key, entry).await;
        self.note(key, &self.absent_above, &self.counts.upper_failures, &above);
        match (below?, above) {
            (SetOutcome::Refused(_), Ok(above)) => Ok(above),
            (below, _) => Ok(below),
        }
    }

    async fn remove(&self, key: &A::Key) -> Result<()> {
        let gate = self.fences.gate(key);
        let _turn = gate.turn().await;
        let above = self.upper.remove(key).await;
        self.note(key, &self.absent_above, &self.counts.upper_failures, &above);
        let below = self.lower.remove(key).await;
        self.note(key, &self.absent_below, &self.counts.lower_failures, &below);
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
        if self.absent_above.is_empty() {
            return self.upper.peek_with(key, read);
        }
        if self.absent_above.contains(key) {
            return None;
        }
        let admitted =
            |entry: &Entry<A::Value>| self.absent_above.admits(entry.created_at()).then(|| read(entry));
        self.upper.peek_with(key, admitted).flatten()
    }

    async fn get_many(&self, keys: &[&A::Key], now: Timestamp) -> Vec<Result<Option<Entry<A::Value>>>> {
        if !(self.absent_above.is_empty() && self.absent_below.is_empty()) {
            let mut answers = Vec::with_capacity(keys.len());
            for key in keys {
                answers.push(self.get_at(key, now).await);
            }
            return answers;
        }
        let mut above = self.upper.get_many(keys, now).await.into_iter();
        let mut answers: Vec<_> =
            keys.iter().map(|_| next_answer(&mut above, "chain", Operation::Get)).collect();
        let is_fresh = |entry: &Entry<A::Value>| entry.freshness(now) == Freshness::Fresh;
        let fresh = |answer: &Result<Option<_>>| matches!(answer, Ok(Some(entry)) if is_fresh(entry));
        let open: Vec<usize> = (0..answers.len()).filter(|&index| !fresh(&answers[index])).collect();
        if open.is_empty() {
            return answers;
        }
        let gates: Vec<_> = open.iter().map(|&index| self.fences.gate(keys[index])).collect();
        let passes: Vec<_> = gates.iter().map(Gate::pass).collect();
        let asked: Vec<&A::Key> = open.iter().map(|&index| keys[index]).collect();
        let below = self.read_many_below(&asked, now).await;
        for ((index, below), pass) in open.into_iter().zip(below).zip(passes) {
            if answers[index].is_err() {
                add(&self.counts.upper_failures);
            }
            let above = std::mem::replace(&mut answers[index], Ok(None));
            answers[index] = self.settle(keys[index], now, above, below, pass).await;
        }
        answers
    }

    async fn set_many(&self, entries: &[(&A::Key, Entry<A::Value>)]) -> Vec<Result<SetOutcome>> {
        let mut outcomes = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            outcomes.push(self.set(key, entry.clone()).await);
        }
        outcomes
    }

    async fn remove_many(&self, keys: &[&A::Key]) -> Vec<Result<()>> {
        let mut outcomes = Vec::with_capacity(keys.len());
        for key in keys {
            outcomes.push(self.remove(key).await);
        }
        outcomes
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
