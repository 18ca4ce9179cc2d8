//! The batches and the renewals of the small chain.

use super::{Bug, Found, LOWER, Toy, UPPER};
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::time::Timestamp;

impl Toy {
    pub(super) async fn find_many(&self, keys: &[&str], now: Timestamp) -> Vec<Found> {
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.find(key, now, true).await);
        }
        if self.has(Bug::BulkReversed) {
            answers.reverse();
        }
        let failed = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
        match failed {
            Some(error) if self.has(Bug::BulkFailsTogether) => answers.fill(Err(error)),
            _ => {}
        }
        answers
    }

    pub(super) async fn write_many(&self, entries: &[(&str, Entry<u64>)]) -> Vec<Result<SetOutcome>> {
        let _turn = if self.has(Bug::BulkWithoutTurn) {
            self.begin(true, None)
        } else {
            self.turn(!self.has(Bug::BulkUnfenced)).await
        };
        let mut outcomes: Vec<_> = entries.iter().map(|_| Ok(SetOutcome::Stored)).collect();
        let mut open: Vec<usize> = (0..entries.len()).collect();
        // A key that occurs twice goes through the tiers twice, in order.
        while !open.is_empty() {
            let key = |place: usize| entries[place].0;
            let (round, later): (Vec<_>, Vec<_>) = open
                .iter()
                .copied()
                .partition(|&place| !open.iter().any(|&other| other < place && key(other) == key(place)));
            let part: Vec<_> = round.iter().map(|&place| &entries[place]).collect();
            for (&place, outcome) in round.iter().zip(self.write_round(&part).await) {
                outcomes[place] = outcome;
            }
            open = if self.has(Bug::DuplicatesKeepFirst) { Vec::new() } else { later };
        }
        if self.has(Bug::BulkSetReversed) {
            outcomes.reverse();
        }
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err().cloned());
        match failed {
            Some(error) if self.has(Bug::BulkFailsTogether) => outcomes.fill(Err(error)),
            _ => {}
        }
        outcomes
    }

    async fn write_round(&self, part: &[&(&str, Entry<u64>)]) -> Vec<Result<SetOutcome>> {
        let [upper, lower] = &self.tiers;
        let fills = !self.has(Bug::SetManyWithoutFill);
        let fills_first = self.has(Bug::BulkFillsAboveFirst);
        for (key, entry) in part.iter().filter(|_| fills) {
            if fills_first {
                self.note(UPPER, key, &upper.set(key, entry.clone()).await, false);
            } else {
                self.note(UPPER, key, &upper.remove(key).await, false);
            }
        }
        let mut below = Vec::new();
        for (key, entry) in part {
            let outcome = lower.set(key, entry.clone()).await;
            self.note(LOWER, key, &outcome, self.has(Bug::BulkFailureForgotten));
            let stops = outcome.is_err() && self.has(Bug::BulkStopsAtFailure);
            below.push(outcome);
            if stops {
                break;
            }
        }
        let mut outcomes = Vec::new();
        for ((key, entry), below) in part.iter().zip(below) {
            let gives_up = self.strict && below.is_err() && !self.has(Bug::StrictKeepsAbove);
            if gives_up || !fills || fills_first {
                outcomes.push(below);
                continue;
            }
            let above = upper.set(key, entry.clone()).await;
            self.note(UPPER, key, &above, false);
            outcomes.push(match (below, above) {
                (Ok(SetOutcome::Refused(_)), Ok(above)) => Ok(above),
                (below, _) => below,
            });
        }
        outcomes
    }

    pub(super) async fn remove_from(&self, tier: usize, key: &str, forgotten: Bug) -> Result<()> {
        let removed = self.tiers[tier].remove(key).await;
        self.note(tier, key, &removed, self.has(forgotten));
        removed
    }

    pub(super) async fn drop_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        let _turn = self.turn(!self.has(Bug::BulkUnfenced)).await;
        let tiers = if self.has(Bug::BulkRemovesDeepFirst) { [LOWER, UPPER] } else { [UPPER, LOWER] };
        let mut outcomes: Vec<Result<()>> = keys.iter().map(|_| Ok(())).collect();
        for tier in tiers {
            for (key, outcome) in keys.iter().zip(&mut outcomes) {
                let removed = self.remove_from(tier, key, Bug::BulkFailureForgotten).await;
                *outcome = removed.and(outcome.clone());
            }
        }
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err().cloned());
        match failed {
            Some(error) if self.has(Bug::BulkFailsTogether) => outcomes.fill(Err(error)),
            _ => {}
        }
        outcomes
    }

    /// Below, then above, the copy above counting as absent meanwhile.
    pub(super) async fn renewed(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        let _turn = self.turn(!self.has(Bug::RenewUnfenced)).await;
        let [upper, lower] = &self.tiers;
        let entry = self.distorted(key, entry);
        if self.has(Bug::RenewIgnoresAbsent) && lower.inner().held(key).is_none() {
            return Ok(SetOutcome::Stored);
        }
        if self.has(Bug::RenewOnlyAbove) {
            return upper.renew(key, entry).await;
        }
        if self.has(Bug::RenewAboveFirst) {
            self.note(UPPER, key, &upper.renew(key, entry.clone()).await, false);
            let below = lower.renew(key, entry).await;
            self.note(LOWER, key, &below, false);
            return below;
        }
        let hidden = (!self.has(Bug::RenewShowsOld)).then(|| Hidden::new(self, key));
        let below = lower.renew(key, entry.clone()).await;
        self.note(LOWER, key, &below, false);
        if self.has(Bug::RenewOnlyBelow) {
            hidden.into_iter().for_each(Hidden::settled);
            return below;
        }
        if self.strict && below.is_err() {
            self.note(UPPER, key, &upper.remove(key).await, false);
            hidden.into_iter().for_each(Hidden::settled);
            return below;
        }
        let above = upper.renew(key, entry).await;
        self.note(UPPER, key, &above, self.has(Bug::RenewFailureForgotten));
        hidden.into_iter().for_each(Hidden::settled);
        match (below?, above) {
            (SetOutcome::Refused(_), Ok(above)) => Ok(above),
            (below, _) => Ok(below),
        }
    }

    fn distorted(&self, key: &str, entry: Entry<u64>) -> Entry<u64> {
        let Some(held) = self.tiers[LOWER].inner().held(key) else { return entry };
        match self.bug {
            Bug::RenewKeepsDeadlines => {
                let (old, new) = (held.lifetime(), entry.lifetime());
                let life =
                    Lifetime::new(new.created_at(), old.fresh_until(), old.stale_until(), old.keep_until());
                entry.with_lifetime(life)
            }
            Bug::RenewKeepsValue => entry.map(|_| *held.value()),
            Bug::RenewKeepsLabels => held.with_lifetime(entry.lifetime()).map(|_| *entry.value()),
            _ => entry,
        }
    }
}

/// The upper copy of a key counts as absent, and goes on doing so if this is not settled.
struct Hidden<'a> {
    toy: &'a Toy,
    key: &'a str,
    settled: bool,
}

impl<'a> Hidden<'a> {
    fn new(toy: &'a Toy, key: &'a str) -> Self {
        toy.hidden.lock().insert(key.to_owned());
        Self { toy, key, settled: false }
    }

    fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if !self.settled && !self.toy.has(Bug::RenewDroppedForgotten) {
            self.toy.marks[UPPER].lock().keys.insert(self.key.to_owned());
        }
        self.toy.hidden.lock().remove(self.key);
    }
}
