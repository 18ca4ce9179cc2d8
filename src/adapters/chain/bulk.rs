//! A batch of keys, one call a tier (laws S11, E15).
//!
//! A writer of many keys has the turns of all of them, so per key a batch happens as its single call would. A
//! key that occurs several times goes through the tiers as often, in order: no tier is ever given one key
//! twice in a call, as two tiers might then end with different ones of its entries. So a batch of different
//! keys costs one call a tier and step, and one in which a key occurs n times costs n of them.

use super::{Chain, add, both};
use crate::adapters::chain::fence::{Gate, Pass};
use crate::adapters::next_answer;
use crate::entry::{Entry, Freshness};
use crate::error::{Operation, Result};
use crate::store::{SetOutcome, Store};
use crate::time::Timestamp;

type Found<V> = Result<Option<Entry<V>>>;

/// What is to be written upwards: its key, and the pass that was taken before it was read.
type Better<'a, K, V> = (&'a K, Entry<V>, &'a Pass<'a>);

impl<A, B> Chain<A, B>
where
    A: Store,
    B: Store<Key = A::Key, Value = A::Value>,
{
    pub(super) async fn read_batch(&self, keys: &[&A::Key], now: Timestamp) -> Vec<Found<A::Value>> {
        let mut answers = self.read_many_above(keys, now).await;
        let is_fresh = |entry: &Entry<A::Value>| entry.freshness(now) == Freshness::Fresh;
        let fresh = |answer: &Found<_>| matches!(answer, Ok(Some(entry)) if is_fresh(entry));
        let open: Vec<usize> = (0..answers.len()).filter(|&index| !fresh(&answers[index])).collect();
        if open.is_empty() {
            return answers;
        }
        let gates: Vec<_> = open.iter().map(|&index| self.fences.gate(keys[index])).collect();
        let passes: Vec<_> = gates.iter().map(Gate::pass).collect();
        let asked: Vec<&A::Key> = open.iter().map(|&index| keys[index]).collect();
        let below = self.read_many_below(&asked, now).await;
        let mut better = Vec::new();
        for ((index, below), pass) in open.into_iter().zip(below).zip(&passes) {
            let above = std::mem::replace(&mut answers[index], Ok(None));
            let (answer, goes_up) = Self::choose(now, above, below);
            if goes_up && let Ok(Some(entry)) = &answer {
                better.push((keys[index], entry.clone(), pass));
            }
            answers[index] = answer;
        }
        self.backfill_many(better).await;
        answers
    }

    pub(super) async fn write_batch(
        &self,
        entries: &[(&A::Key, Entry<A::Value>)],
    ) -> Vec<Result<SetOutcome>> {
        let batch = self.fences.gates(entries.iter().map(|(key, _)| *key));
        let _turns = self.fences.turns(&batch.gates).await;
        let Some(rounds) = &batch.rounds else { return self.write_round(entries).await };
        let mut outcomes: Vec<_> = entries.iter().map(|_| None).collect();
        for round in rounds {
            let part: Vec<_> = round.iter().map(|&index| entries[index].clone()).collect();
            for (&index, outcome) in round.iter().zip(self.write_round(&part).await) {
                outcomes[index] = Some(outcome);
            }
        }
        outcomes.into_iter().flatten().collect()
    }

    pub(super) async fn remove_batch(&self, keys: &[&A::Key]) -> Vec<Result<()>> {
        let batch = self.fences.gates(keys.iter().copied());
        let _turns = self.fences.turns(&batch.gates).await;
        let Some(rounds) = &batch.rounds else { return self.remove_round(keys).await };
        let mut outcomes: Vec<_> = keys.iter().map(|_| None).collect();
        for round in rounds {
            let part: Vec<_> = round.iter().map(|&index| keys[index]).collect();
            for (&index, outcome) in round.iter().zip(self.remove_round(&part).await) {
                outcomes[index] = Some(outcome);
            }
        }
        outcomes.into_iter().flatten().collect()
    }

    /// As [`set`](Store::set) does, for different keys whose turns are held (C4, C5, C6).
    async fn write_round(&self, entries: &[(&A::Key, Entry<A::Value>)]) -> Vec<Result<SetOutcome>> {
        if entries.is_empty() {
            return Vec::new();
        }
        let keys: Vec<&A::Key> = entries.iter().map(|(key, _)| *key).collect();
        let mut dropped = self.upper.remove_many(&keys).await.into_iter();
        for key in &keys {
            self.note_above(key, &next_answer(&mut dropped, "chain", Operation::Remove));
        }

        let mut below = self.lower.set_many(entries).await.into_iter();
        let below: Vec<_> = keys
            .iter()
            .map(|key| {
                let outcome = next_answer(&mut below, "chain", Operation::Set);
                self.note_below(key, &outcome);
                outcome
            })
            .collect();
        // In a strict chain what failed below is not remembered above.
        let goes_up = |below: &Result<SetOutcome>| !(self.strict && below.is_err());
        if !below.iter().any(goes_up) {
            return below;
        }
        let mut above = if below.iter().all(goes_up) {
            self.upper.set_many(entries).await
        } else {
            let up: Vec<_> = entries
                .iter()
                .zip(&below)
                .filter(|(_, below)| goes_up(below))
                .map(|(up, _)| up.clone())
                .collect();
            self.upper.set_many(&up).await
        }
        .into_iter();
        let settle = |(key, below): (&&A::Key, Result<SetOutcome>)| {
            if !goes_up(&below) {
                return below;
            }
            let above = next_answer(&mut above, "chain", Operation::Set);
            self.note_above(key, &above);
            Self::written(below, above)
        };
        keys.iter().zip(below).map(settle).collect()
    }

    /// As [`remove`](Store::remove) does, for different keys whose turns are held.
    async fn remove_round(&self, keys: &[&A::Key]) -> Vec<Result<()>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let mut above = self.upper.remove_many(keys).await.into_iter();
        let above: Vec<_> = keys
            .iter()
            .map(|key| {
                let outcome = next_answer(&mut above, "chain", Operation::Remove);
                self.note_above(key, &outcome);
                outcome
            })
            .collect();
        let mut below = self.lower.remove_many(keys).await.into_iter();
        let settle = |(key, above): (&&A::Key, Result<()>)| {
            let below = next_answer(&mut below, "chain", Operation::Remove);
            self.note_below(key, &below);
            both(above, below)
        };
        keys.iter().zip(above).map(settle).collect()
    }

    /// Writes upwards, in one call, what no writer has been at since its pass was taken (C3, C8).
    async fn backfill_many(&self, better: Vec<Better<'_, A::Key, A::Value>>) {
        let (mut turns, mut entries) = (Vec::new(), Vec::new());
        for (key, entry, pass) in better {
            if let Some(turn) = pass.try_turn() {
                turns.push(turn);
                entries.push((key, entry));
            } else {
                add(&self.counts.skipped);
            }
        }
        if entries.is_empty() {
            return;
        }
        let mut above = self.upper.set_many(&entries).await.into_iter();
        for (key, _) in &entries {
            let above = next_answer(&mut above, "chain", Operation::Set);
            self.note_above(key, &above);
            if let Ok(SetOutcome::Stored) = above {
                add(&self.counts.backfills);
            }
        }
        drop(turns);
    }

    /// Reads the upper tier in one call, but for the keys whose copy there counts as absent.
    async fn read_many_above(&self, keys: &[&A::Key], now: Timestamp) -> Vec<Found<A::Value>> {
        let answer = |answers: &mut std::vec::IntoIter<Found<A::Value>>| {
            next_answer(answers, "chain", Operation::Get).inspect_err(|_| add(&self.counts.upper_failures))
        };
        if self.absent_above.is_empty() && !self.fences.hides_any() {
            let mut above = self.upper.get_many(keys, now).await.into_iter();
            return keys.iter().map(|_| answer(&mut above)).collect();
        }
        let absent = |key: &A::Key| self.absent_above.contains(key) || self.fences.hides(key);
        let (absent, plain) = split(keys, absent);
        let mut above = match plain.as_slice() {
            [] => Vec::new(),
            plain => self.upper.get_many(plain, now).await,
        }
        .into_iter();
        let mut answers = Vec::with_capacity(keys.len());
        for (key, absent) in keys.iter().zip(absent) {
            answers.push(if absent {
                self.read_above(key, now).await
            } else {
                let admitted = |entry: &Entry<_>| self.absent_above.admits(entry.created_at());
                answer(&mut above).map(|entry| entry.filter(admitted))
            });
        }
        answers
    }

    /// Reads below for passes that were taken: a mark that came before them must be seen here, one that
    /// comes after them moves the fence.
    async fn read_many_below(&self, keys: &[&A::Key], now: Timestamp) -> Vec<Found<A::Value>> {
        let answer = |answers: &mut std::vec::IntoIter<Found<A::Value>>| {
            next_answer(answers, "chain", Operation::Get).inspect_err(|_| add(&self.counts.lower_failures))
        };
        if self.absent_below.is_empty() {
            let mut below = self.lower.get_many(keys, now).await.into_iter();
            return keys.iter().map(|_| answer(&mut below)).collect();
        }
        let (absent, plain) = split(keys, |key| self.absent_below.contains(key));
        let mut below = match plain.as_slice() {
            [] => Vec::new(),
            plain => self.lower.get_many(plain, now).await,
        }
        .into_iter();
        let mut answers = Vec::with_capacity(keys.len());
        for (key, absent) in keys.iter().zip(absent) {
            answers.push(if absent {
                self.read_below(key, now).await
            } else {
                let admitted = |entry: &Entry<_>| self.absent_below.admits(entry.created_at());
                answer(&mut below).map(|entry| entry.filter(admitted))
            });
        }
        answers
    }
}

/// Which of the keys are `absent`, and the others, in order.
fn split<'k, K: ?Sized>(keys: &[&'k K], absent: impl Fn(&K) -> bool) -> (Vec<bool>, Vec<&'k K>) {
    let absent: Vec<bool> = keys.iter().map(|key| absent(key)).collect();
    let plain = keys.iter().zip(&absent).filter(|(_, absent)| !**absent).map(|(key, _)| *key);
    let plain = plain.collect();
    (absent, plain)
}
