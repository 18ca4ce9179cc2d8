//! The model and an origin in trouble: errors that are remembered (E17), patience (E20).

use std::time::Duration;

use super::{Behind, Expected, Known, World};
use crate::cache::Patience;
use crate::entry::{Entry, Lifetime};
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::{Plan, Work, patience};
use crate::testkit::engine::compare::Clause;
use crate::testkit::engine::laws::{lasts, serves_on_error};
use crate::testkit::engine::trace::Reply;
use crate::time::Timestamp;

/// An error that is remembered.
pub(super) struct Memory {
    until: Timestamp,
    failures: u32,
    error: Reply,
}

impl World<'_> {
    /// Whether nothing that runs behind makes a caller for this key wait: no load of it, and no load in its place.
    pub(super) fn is_unhindered(&self, key: u8) -> bool {
        let mut loads = self.behind.iter().filter(|behind| behind.load);
        self.trace.policy.trouble.limit.is_none() && loads.all(|behind| behind.key != key)
    }

    /// What ran behind has failed now.
    pub(super) fn failed(&mut self, refresh: &Behind, error: &Reply) {
        if !refresh.fenced {
            self.remember(refresh.key, error);
        }
        if refresh.load && self.stands_in(&refresh.held) && !refresh.fenced {
            self.events.push("StaleOnError");
        }
    }

    pub(super) fn stands_in(&self, entry: &Entry<u64>) -> bool {
        serves_on_error(&self.trace.policy, entry.lifetime(), self.now)
    }

    /// Remembers an error of a computation, if errors are (E17).
    pub(super) fn remember(&mut self, key: u8, error: &Reply) {
        let Some(backoff) = self.trace.policy.trouble.backoff else { return };
        let Reply::Failed(kind, _, named) = *error else { return };
        let counts = matches!(kind, ErrorKind::Computation | ErrorKind::Timeout);
        if !counts || (self.trace.only_even && !named.is_some_and(|named| named.is_multiple_of(2))) {
            return;
        }
        let before = self.errors.get(&key);
        let row = before.filter(|before| self.now <= before.until.saturating_add(backoff.most));
        let failures = row.map_or(1, |before| before.failures + 1);
        let until = self.now.saturating_add(lasts(backoff, failures));
        self.errors.insert(key, Memory { until, failures, error: error.clone() });
    }

    pub(super) fn remembered(&self, key: u8) -> Option<Reply> {
        let memory = self.errors.get(&key).filter(|memory| self.now <= memory.until)?;
        Some(memory.error.clone())
    }

    /// A caller whose patience ends before the load does; `None` if it is longer.
    pub(super) fn impatient(
        &mut self,
        key: u8,
        held: Option<&Entry<u64>>,
        plan: Plan,
        run: Option<usize>,
        (takes, in_time): (Duration, bool),
    ) -> Option<Known<Expected>> {
        let patience = patience(plan.patience).unwrap_or(self.trace.policy.trouble.patience);
        if patience == Patience::new() {
            return None;
        }
        // What yields may be waited for or not, where nobody waits for anything.
        let at_once = patience.soft() == Some(Duration::ZERO) && plan.takes == 0 && plan.yields > 0;
        if !self.slow.is_zero() || plan.work == Work::Unchanged || (at_once && held.is_some()) {
            return Some(None);
        }
        let given = held.map(|entry| *entry.value());
        let serves = |soft: &Duration| {
            let at = self.now.saturating_add(*soft);
            held.is_some_and(|entry| serves_on_error(&self.trace.policy, entry.lifetime(), at))
        };
        let waits = |wait: &Duration| *wait < takes;
        let soft = patience.soft().filter(waits).filter(serves);
        let (wait, soft) = (soft.or(patience.hard().filter(waits))?, soft.is_some());
        let due = self.passed + i128::try_from(takes.as_nanos()).unwrap_or(i128::MAX / 2);
        self.pass(wait);
        let drops = !soft && patience.drops();
        let reply = if let Some(entry) = held.filter(|_| soft) {
            self.events.push("SoftTimeout");
            Reply::Value(*entry.value())
        } else {
            self.events.push("HardTimeout");
            self.events.extend(drops.then_some("LoadDropped"));
            Reply::Failed(ErrorKind::Timeout, Operation::Compute, None)
        };
        if let Some(run) = run.filter(|_| !drops) {
            let dead = Lifetime::new(Timestamp::EPOCH, Timestamp::EPOCH, Timestamp::EPOCH, Timestamp::EPOCH);
            let held = held.cloned().unwrap_or_else(|| Entry::new(0, dead));
            self.behind.push(Behind { key, run, due, in_time, held, fenced: false, load: true });
        }
        Some(Some(Expected { clause: Clause::E20, reply, computes: true, given }))
    }
}
