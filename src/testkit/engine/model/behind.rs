//! What runs on behind the steps: how it begins, who meets it, how it lands.

use super::{Behind, Expected, Known, World, bounded};
use crate::entry::{Entry, Freshness};
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::{Plan, Work};
use crate::testkit::engine::compare::Clause;
use crate::testkit::engine::trace::Reply;

impl World<'_> {
    /// Another caller's refresh of the key is running.
    pub(super) fn beside(&mut self, refresh: usize, shown: Option<u64>) -> Known<Expected> {
        let hit = |value| {
            Some(Expected { clause: Clause::E2, reply: Reply::Value(value), computes: false, given: None })
        };
        if let Some(value) = shown {
            self.events.push("StaleHit");
            return hit(value);
        }
        self.events.push("Joined");
        let refresh = &self.behind[refresh];
        if self.judge(&refresh.held) <= Freshness::Stale {
            return hit(*refresh.held.value());
        }
        // It waits for a refresh whose entry may be served no longer: rare, and a matter of E5.
        None
    }

    /// What takes no time may have landed before the caller looks.
    pub(super) fn or_landed(&self, step: usize, run: Option<usize>, expected: Expected) -> Expected {
        let run = run.map(|run| &self.trace.runs[run]).filter(|run| expected.computes && run.plan.takes == 0);
        let landed = run.filter(|run| run.plan.work == Work::Answer).map(|run| Reply::Value(run.value));
        match landed.filter(|landed| self.trace.requests[step].reply() == Some(landed)) {
            Some(reply) => Expected { reply, ..expected },
            None => expected,
        }
    }

    /// Behind a caller who was served: asks the slower tiers first.
    pub(super) fn renew(
        &mut self,
        key: u8,
        shown: &Entry<u64>,
        plan: Plan,
        run: Option<usize>,
    ) -> Known<bool> {
        if !self.slow.is_zero() {
            return None;
        }
        if !self.permit()? {
            return Some(false);
        }
        let read = self.read(key);
        if read.is_err() {
            self.events.push("StoreFailed");
        }
        let goes_on = read.is_ok() || !self.trace.policy.strict;
        Some(goes_on && self.refresh(key, shown.clone(), plan, run))
    }

    /// Behind a caller who was served a fresh entry that is due.
    pub(super) fn renew_early(
        &mut self,
        key: u8,
        shown: &Entry<u64>,
        plan: Plan,
        run: Option<usize>,
    ) -> Known<Expected> {
        let (now, fresh) = (self.now, self.judge(shown) == Freshness::Fresh);
        let before = self.events.len();
        let computes = self.renew(key, shown, plan, run)?;
        let skipped = self.events[before..].contains(&"RefreshSkipped");
        if fresh && !skipped {
            self.early.begins(key, shown.lifetime(), now);
        }
        Some(Expected {
            clause: if skipped { Clause::E19 } else { Clause::E18 },
            reply: Reply::Value(*shown.value()),
            computes,
            given: computes.then_some(*shown.value()),
        })
    }

    pub(super) fn refresh(&mut self, key: u8, held: Entry<u64>, plan: Plan, run: Option<usize>) -> bool {
        if self.remembered(key).is_some() {
            self.events.push("RefreshSkipped");
            return false;
        }
        self.events.push("RefreshStarted");
        let (takes, in_time) = bounded(plan, self.trace.policy.refresh_timeout);
        // Without a run there is a parting, which the caller finds.
        let Some(run) = run else { return true };
        let due = self.passed + i128::try_from(takes.as_nanos()).unwrap_or(i128::MAX / 2);
        self.behind.push(Behind { key, run, due, in_time, held, fenced: false, load: false });
        true
    }

    /// Whether a refresh may begin. The model does not know what a clock that stepped back makes of the rate.
    pub(super) fn permit(&mut self) -> Known<bool> {
        let begins = self.refreshes() < self.trace.policy.max_refreshes && self.early.may_begin(self.now)?;
        if !begins {
            self.events.push("RefreshSkipped");
        }
        Some(begins)
    }

    /// How many refreshes run behind the steps.
    fn refreshes(&self) -> usize {
        self.behind.iter().filter(|behind| !behind.load).count()
    }

    pub(super) fn land(&mut self, refresh: &Behind) {
        let run = &self.trace.runs[refresh.run];
        let name = |refreshed, loaded| if refresh.load { loaded } else { refreshed };
        match run.plan.work {
            _ if !refresh.in_time => {
                self.events.push(name("RefreshFailed", "LoadFailed"));
                self.failed(refresh, &Reply::Failed(ErrorKind::Timeout, Operation::Compute, None));
            }
            Work::Fail | Work::Hang => {
                self.events.push(name("RefreshFailed", "LoadFailed"));
                let error = Reply::Failed(ErrorKind::Computation, Operation::Compute, Some(run.value));
                self.failed(refresh, &error);
            }
            // What is absent is an answer, and no failure to be remembered.
            Work::Forget => self.events.push(name("RefreshFailed", "LoadFailed")),
            Work::Panic => self.events.push(name("RefreshPanicked", "LoadPanicked")),
            Work::Answer | Work::Unchanged => {
                self.events.push(name("RefreshSucceeded", "LoadSucceeded"));
                if !refresh.fenced {
                    self.errors.remove(&refresh.key);
                }
                let value = if run.plan.work == Work::Answer { run.value } else { *refresh.held.value() };
                self.store(refresh.key, value, refresh.run, refresh.fenced);
            }
        }
    }
}
