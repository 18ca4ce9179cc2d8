//! What the model knows of early refreshes and of their budget.

use std::time::Duration;

use crate::cache::policy::Policy;
use crate::entry::Lifetime;
use crate::testkit::engine::laws::{allowed, last_not_due, lead};
use crate::time::Timestamp;

pub(crate) struct Early {
    policy: Policy,
    /// Entries that are left alone: the hash of their key, when they were made, until when.
    quiet: Vec<(u8, Timestamp, Timestamp)>,
    /// How many of them a batch knows, which looks at all of its keys before it begins any.
    known: Option<usize>,
    /// When refreshes began.
    begun: Vec<Timestamp>,
}

impl Early {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self { policy: policy.clone(), quiet: Vec::new(), known: None, begun: Vec::new() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.policy.ahead.is_some()
    }

    /// Whether a fresh entry is refreshed by whoever finds it.
    pub(crate) fn wants(&self, key: u8, life: Lifetime, now: Timestamp) -> bool {
        let known = &self.quiet[..self.known.unwrap_or(self.quiet.len())];
        let quiet = known.iter().rev().find(|(of, created, _)| (*of, *created) == Self::place(key, life));
        last_not_due(&self.policy, life).is_some_and(|last| now > last)
            && quiet.is_none_or(|(.., until)| now >= *until)
    }

    /// A batch begins, or is over.
    pub(crate) fn batch(&mut self, begins: bool) {
        self.known = begins.then_some(self.quiet.len());
    }

    pub(crate) fn begins(&mut self, key: u8, life: Lifetime, now: Timestamp) {
        self.leave_alone(key, life, now.saturating_add(Duration::from_secs(1)));
    }

    /// What would be due when its load ends counts from there.
    pub(crate) fn born(&mut self, key: u8, life: Lifetime, now: Timestamp) {
        if last_not_due(&self.policy, life).is_some_and(|last| now > last) {
            let left = life.fresh_until().since(now);
            let lead = lead(&self.policy, left).unwrap_or_default();
            let first = life.fresh_until().saturating_sub(lead).saturating_add(Duration::from_nanos(1));
            self.leave_alone(key, life, first);
        }
    }

    /// Whether a refresh may begin by the rate, and if so it does. `None` if the clock stepped back.
    pub(crate) fn may_begin(&mut self, now: Timestamp) -> Option<bool> {
        let Some(rate) = self.policy.refreshes else { return Some(true) };
        if self.begun.iter().any(|begun| *begun > now) {
            return None;
        }
        let count = self.begun.len();
        let begins = (0..=count).all(|first| {
            let span = self.begun.get(first).map_or(Duration::ZERO, |begun| now.since(*begun));
            (count - first + 1) as u64 <= allowed(rate, span)
        });
        if begins {
            self.begun.push(now);
        }
        Some(begins)
    }

    /// Instants are remembered to 65,536 ns.
    fn leave_alone(&mut self, key: u8, life: Lifetime, until: Timestamp) {
        let (place, created) = Self::place(key, life);
        let until = Timestamp::from_nanos(until.as_nanos().div_ceil(65_536).saturating_mul(65_536));
        self.quiet.push((place, created, until));
    }

    /// Keys of one hash are not told apart.
    fn place(key: u8, life: Lifetime) -> (u8, Timestamp) {
        (key / 2, life.created_at())
    }
}
