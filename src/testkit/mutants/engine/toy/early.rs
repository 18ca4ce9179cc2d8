//! What the toy refreshes early, and the budget of its refreshes.

use std::time::Duration;

use super::course::refresh;
use super::many::Due;
use super::{Base, Duty, Landing};
use crate::cache::budget::{Budget, RefreshPermit};
use crate::cache::event::EventKind;
use crate::entry::{Entry, Freshness};
use crate::testkit::engine::{Compute, Name};
use crate::testkit::mutants::engine::Bug;
use crate::time::Timestamp;

impl Base {
    /// Whether anything is on its way for the key.
    pub(super) fn flies(&self, key: Name) -> bool {
        self.table().slots.get(&self.place_of(key)).is_some_and(|slot| slot.flight.is_some())
    }

    /// An entry's load has ended.
    pub(super) fn born(&self, key: Name, entry: &Entry<u64>) {
        if let Some(ahead) = &self.core.ahead {
            ahead.born(&key, entry.lifetime(), self.core.clock.now());
        }
    }

    /// Whether a fresh entry is to be refreshed.
    pub(super) fn due(&self, key: Name, entry: &Entry<u64>) -> bool {
        let (now, tick) = (self.core.clock.now(), Duration::from_nanos(1));
        let at = match self.bug {
            Bug::EarlyNever => return false,
            Bug::EarlyAtBirth => return self.core.ahead.is_some(),
            Bug::EarlyTooSoon => now.saturating_add(tick),
            Bug::EarlyTooLate => now.saturating_sub(tick),
            _ => now,
        };
        match &self.core.ahead {
            Some(ahead) if self.has(Bug::EarlyWithoutPause) => {
                ahead.is_due(&key, entry.lifetime(), at) && !self.core.background.is_closing()
            }
            _ => self.core.is_due(&key, entry.lifetime(), at),
        }
    }

    /// A permit for a refresh: an early one, or one of a stale entry.
    pub(super) fn permit(&self, key: Name, early: bool) -> Option<RefreshPermit<'_>> {
        static FREE: Budget = Budget::new(usize::MAX, None);
        if early && self.has(Bug::EarlyUnbudgeted) {
            return FREE.take(1, Timestamp::default);
        }
        if self.has(Bug::BurstUnbounded) && !self.has_saved() {
            self.tell(key, EventKind::RefreshSkipped);
            return None;
        }
        let now = || self.core.clock.now();
        let permit = match &self.budget {
            Some(budget) if !self.core.background.is_closing() => budget.take(1, now),
            _ => self.core.background.try_refresh(1, now),
        };
        if permit.is_none() {
            self.tell(key, EventKind::RefreshSkipped);
        }
        permit
    }

    /// A permit for an early refresh of this entry.
    pub(super) fn early_permit(&self, key: Name, shown: &Entry<u64>) -> Option<RefreshPermit<'_>> {
        if self.has(Bug::SkipIsATry) {
            self.begins(key, shown);
        }
        self.permit(key, true)
    }

    /// An early refresh begins. At the instant that it returns the shown entry is fresh no more.
    fn begins(&self, key: Name, shown: &Entry<u64>) -> Timestamp {
        if let Some(ahead) = &self.core.ahead {
            ahead.begins(&key, shown.lifetime(), self.core.clock.now());
        }
        shown.lifetime().fresh_until().saturating_add(Duration::from_nanos(1))
    }

    /// What was found, if it stays fresh for longer and is not due, else what is to be refreshed.
    fn longer(
        &self,
        key: Name,
        shown: Entry<u64>,
        found: Option<Entry<u64>>,
    ) -> Result<Entry<u64>, Entry<u64>> {
        let itself = self.has(Bug::EarlyTakesItself);
        let longer = found.filter(|entry| {
            let fresh = self.judge(entry, self.core.clock.now()) == Freshness::Fresh;
            fresh && (itself || entry.lifetime().fresh_until() > shown.lifetime().fresh_until())
        });
        match longer {
            Some(entry) if itself || !self.due(key, &entry) => Ok(entry),
            Some(entry) => Err(entry),
            None => Err(shown),
        }
    }

    /// Whether the rate since the beginning has room for one more, which then begins.
    fn has_saved(&self) -> bool {
        let Some(rate) = self.core.policy.refreshes else { return true };
        let mut begun = self.begun.lock();
        #[expect(clippy::cast_precision_loss, reason = "a bug may round")]
        let begins =
            (*begun as f64) < self.core.clock.now().since(self.since).as_secs_f64() * rate.per_second() + 1.0;
        *begun += u64::from(begins);
        begins
    }
}

/// Behind a fresh entry that is due.
pub(super) async fn early(base: &Base, duty: &Duty, shown: Entry<u64>, compute: Compute) -> Landing {
    let key = duty.key;
    let permit = base.early_permit(key, &shown);
    if permit.is_none() {
        return Landing::Value(*shown.value());
    }
    let past = base.begins(key, &shown);
    let found = match base.read_at(key, past).await {
        Ok(found) => found,
        Err(error) => return Landing::Failed(error),
    };
    match base.longer(key, shown, found) {
        Ok(entry) => Landing::Value(*entry.value()),
        Err(due) => refresh(base, duty, due, compute, permit).await,
    }
}

/// The same for the keys of a batch: what is to be refreshed.
pub(super) async fn early_many<'a>(base: &Base, early: Vec<Due<'a>>) -> Vec<Due<'a>> {
    let mut refreshes = Vec::new();
    let shown = || early.iter().filter_map(|due| Some((due.duty.key, due.held.as_ref()?)));
    let Some(past) = shown().map(|(key, shown)| base.begins(key, shown)).max() else { return refreshes };
    let read = base.read_many(&shown().map(|(key, _)| key).collect::<Vec<_>>(), past).await;
    for (Due { duty, held, permit }, read) in early.into_iter().zip(read) {
        match (held, read) {
            (Some(shown), Ok(read)) => match base.longer(duty.key, shown, read) {
                Ok(entry) => duty.land(Landing::Value(entry.into_value())),
                Err(due) => refreshes.push(Due { duty, held: Some(due), permit }),
            },
            (_, Err(error)) => duty.land(Landing::Failed(error)),
            (None, Ok(_)) => {}
        }
    }
    refreshes
}
