//! The toy and an origin in trouble: absences, errors that are remembered, patience, a limit on loads.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::course::{computed, fall_back, timeout};
use super::{Base, Duty, Flight, Landing};
use crate::cache::Patience;
use crate::cache::computed::{Keep, Terms, Ttl};
use crate::cache::event::EventKind;
use crate::cache::places::Limit;
use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::sync::Mutex;
use crate::testkit::engine::{Compute, Name, is_absent};
use crate::testkit::mutants::engine::Bug;
use crate::time::Timestamp;

/// An error that is remembered.
pub(super) struct Memory {
    error: Error,
    until: Timestamp,
    failures: u32,
}

/// Who runs a load, and who waits.
#[derive(Default)]
pub(super) struct Queue {
    running: usize,
    order: VecDeque<u64>,
    next: u64,
    wakers: Vec<Waker>,
}

impl Base {
    /// What an absent value says of its life.
    pub(super) fn terms(&self, value: u64, mut terms: Terms) -> Terms {
        let policy = &self.core.policy;
        let Some(ttl) = policy.trouble.negative_ttl.filter(|_| is_absent(value)) else { return terms };
        if !self.has(Bug::AbsentForAsLong) {
            let own = terms.ttl.filter(|_| !self.has(Bug::AbsentOwnTtlIgnored));
            terms.ttl = own.or(Some(Ttl::For(ttl)));
        }
        if !self.has(Bug::AbsentServedStale) {
            terms.stale = terms.stale.or(Some(Duration::ZERO));
        }
        if !self.has(Bug::AbsentKept) {
            terms.keep = terms.keep.or(Some(Keep::No));
        }
        terms
    }

    /// The error that counts as that of now.
    pub(super) fn remembered(&self, key: Name) -> Option<Error> {
        let now = self.core.clock.now();
        let remembered = self.remembered.lock();
        let memory =
            if self.has(Bug::ErrorOfAnyKey) { remembered.values().next() } else { remembered.get(&key) }?;
        let tick = Duration::from_nanos(1);
        let until = match self.bug {
            Bug::ErrorTooLong => memory.until.saturating_add(tick),
            Bug::ErrorTooShort => memory.until.saturating_sub(tick),
            _ => memory.until,
        };
        (now <= until).then(|| memory.error.clone())
    }

    /// How a computation came out.
    pub(super) fn remember(&self, duty: &Duty, error: Option<&Error>, refresh: bool) {
        let policy = &self.core.policy;
        let Some(backoff) = policy.trouble.backoff else { return };
        if duty.flight.0.lock().fenced && !self.has(Bug::OvertakenErrorRemembered) {
            return;
        }
        let (now, key) = (self.core.clock.now(), duty.key);
        let mut remembered = self.remembered.lock();
        let Some(error) = error else {
            if !self.has(Bug::ErrorSurvivesSuccess) {
                remembered.remove(&key);
            }
            return;
        };
        let wanted = self.core.errors.as_ref().is_some_and(|errors| errors.wants(error));
        let counts = matches!(error.kind(), ErrorKind::Computation | ErrorKind::Timeout);
        let wanted = if self.has(Bug::PredicateIgnored) { counts } else { wanted };
        if !wanted || (refresh && self.has(Bug::RefreshErrorsForgotten)) {
            return;
        }
        let before = remembered.get(&key).filter(|before| now <= before.until.saturating_add(backoff.most));
        let failures = match self.bug {
            Bug::NoBackoff => 1,
            Bug::BackoffOfAllKeys => 1 + remembered.values().map(|memory| memory.failures).sum::<u32>(),
            _ => before.map_or(1, |before| before.failures + 1),
        };
        let most = if self.has(Bug::BackoffUnbounded) { Duration::MAX } else { backoff.most };
        let lasts = (1..failures).fold(backoff.first, |lasts, _| lasts.saturating_mul(2).min(most));
        let until = now.saturating_add(lasts);
        remembered.insert(key, Memory { error: error.clone(), until, failures });
    }

    /// Waits for a place, if loads are limited.
    pub(super) async fn place(&self) -> Result<Option<Place<'_>>> {
        let Some(Limit { mut loads, waiting }) = self.core.policy.trouble.limit else { return Ok(None) };
        if self.has(Bug::OneLoadTooMany) {
            loads += 1;
        }
        let mut most = waiting.unwrap_or(usize::MAX);
        match self.bug {
            Bug::QueueTooLong => most = most.saturating_add(1),
            Bug::QueueTooShort => most = most.saturating_sub(1),
            Bug::NobodyTurnedAway => most = usize::MAX,
            _ => {}
        }
        let number = {
            let mut queue = self.queue.lock();
            let free = loads.saturating_sub(queue.running);
            if free <= queue.order.len() && queue.order.len() - free >= most {
                return Err(Error::new(ErrorKind::Overloaded, "toy", Operation::Compute));
            }
            let number = queue.next;
            queue.next += 1;
            queue.order.push_back(number);
            number
        };
        let turn = Turn(&self.queue, number);
        poll_fn(|context| {
            let mut queue = self.queue.lock();
            let free = loads.saturating_sub(queue.running);
            let last = self.has(Bug::LastComeFirst);
            let ahead =
                queue.order.iter().filter(|other| (**other < number) != last && **other != number).count();
            if ahead < free {
                queue.running += 1;
                return Poll::Ready(());
            }
            queue.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
        drop(turn);
        Ok(Some(Place { queue: &self.queue, leaks: self.has(Bug::PlaceLeaks) }))
    }

    /// Whether every place is free, and nobody waits.
    pub(super) fn all_free(&self) -> bool {
        let queue = self.queue.lock();
        queue.running == 0 && queue.order.is_empty()
    }
}

struct Turn<'a>(&'a Mutex<Queue>, u64);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.order.retain(|number| *number != self.1);
        let wakers = std::mem::take(&mut queue.wakers);
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }
}

pub(super) struct Place<'a> {
    queue: &'a Mutex<Queue>,
    leaks: bool,
}

impl Place<'_> {
    pub(super) fn end(mut self) {
        self.leaks = false;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.leaks {
            return;
        }
        let mut queue = self.queue.lock();
        queue.running -= 1;
        let wakers = std::mem::take(&mut queue.wakers);
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Computes while the callers wait.
pub(super) async fn load(base: &Base, duty: &Duty, held: Option<Entry<u64>>, compute: Compute) -> Landing {
    let key = duty.key;
    base.tell(key, EventKind::Miss);
    if let Some(error) = base.remembered(key) {
        base.tell(key, EventKind::ErrorRemembered(&error));
        if base.has(Bug::RememberedHidesKept) {
            return Landing::Failed(error);
        }
        return fall_back(base, duty, held, error, false).await;
    }
    duty.flight.change(true, |course| course.held.clone_from(&held));
    let limit = (!base.has(Bug::LoadsWithoutDeadline)).then_some(base.core.policy.load_timeout);
    match computed(base, duty, held.as_ref(), compute, limit, false).await {
        Ok(entry) => {
            base.tell(key, EventKind::LoadSucceeded(Duration::ZERO));
            base.store(duty, entry, false).await
        }
        Err(error) => {
            let turned_away = error.kind() == ErrorKind::Overloaded;
            base.tell(key, if turned_away { EventKind::LoadRejected } else { EventKind::LoadFailed(&error) });
            fall_back(base, duty, held, error, false).await
        }
    }
}

/// The work of a flight, unless it is given up.
pub(super) async fn unless_given_up<F: Future>(flight: &Flight, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|context| {
        if flight.0.lock().given_up {
            return Poll::Ready(None);
        }
        let output = work.as_mut().poll(context);
        if output.is_pending() {
            flight.0.lock().wakers.push(context.waker().clone());
        }
        output.map(Some)
    })
    .await
}

/// A caller that is there for a flight.
pub(super) struct Caller<'a> {
    flight: &'a Flight,
    stays: bool,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.flight.1.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// What is left of the patience of a call.
pub(super) struct Waits {
    patience: Patience,
    soft: Option<BoxFuture<'static, ()>>,
    hard: Option<BoxFuture<'static, ()>>,
    impatient: bool,
}

impl Base {
    pub(super) fn waits(&self, patience: Option<Patience>, leads: bool) -> Waits {
        let own = patience.filter(|_| !self.has(Bug::OwnPatienceIgnored));
        let patience = own.unwrap_or(self.core.policy.trouble.patience);
        let sleep = |wait: Option<Duration>, deaf: bool| {
            wait.filter(|_| !deaf).and_then(|wait| self.core.background.runtime.sleep(wait))
        };
        let soft = sleep(patience.soft(), !leads && self.has(Bug::SoftForLeadersOnly));
        let hard =
            sleep(patience.hard(), self.has(Bug::HardNever) || (!leads && self.has(Bug::HardForLeadersOnly)));
        Waits { patience, soft, hard, impatient: false }
    }

    /// Waits for a flight as long as the caller has patience.
    pub(super) async fn wait(
        &self,
        key: Name,
        flight: &Arc<Flight>,
        waits: &mut Waits,
        stale: impl Fn(&Entry<u64>) -> bool,
    ) -> Result<Landing> {
        let mut caller = Caller { flight, stays: self.has(Bug::DropCountsWhoLeft) };
        let landing = poll_fn(|context| {
            loop {
                if let Some(landing) = self.looks(key, flight, waits, &stale, context) {
                    return Poll::Ready(Ok(landing));
                }
                let due = |timer: &mut Option<BoxFuture<'static, ()>>, context: &mut Context<'_>| {
                    timer.as_mut().is_some_and(|timer| timer.as_mut().poll(context).is_ready())
                };
                if due(&mut waits.hard, context) {
                    return Poll::Ready(Err(()));
                }
                if waits.impatient || !due(&mut waits.soft, context) {
                    return Poll::Pending;
                }
                waits.impatient = true;
                waits.soft = None;
                if self.has(Bug::SoftDropsLoad) {
                    self.give_up(key, flight, false);
                }
            }
        })
        .await;
        caller.stays = false;
        drop(caller);
        landing.map_err(|()| {
            let drops = waits.patience.drops() || self.has(Bug::DropsUnasked);
            let dropped = drops && !self.has(Bug::NeverDrops) && self.give_up(key, flight, true);
            self.tell(key, EventKind::HardTimeout);
            if dropped {
                self.tell(key, EventKind::LoadDropped);
            }
            match self.bug {
                Bug::HardOfAnotherKind => Error::new(ErrorKind::Other, "toy", Operation::Compute),
                _ => timeout(Operation::Compute),
            }
        })
    }

    /// What a caller may take of the flight now.
    fn looks(
        &self,
        key: Name,
        flight: &Flight,
        waits: &Waits,
        stale: &impl Fn(&Entry<u64>) -> bool,
        context: &mut Context<'_>,
    ) -> Option<Landing> {
        let mut course = flight.0.lock();
        if let Some(landing) = &course.landed {
            return Some(landing.clone());
        }
        if let Some(shown) = course.shown.as_ref().filter(|shown| stale(shown)) {
            return Some(Landing::Value(*shown.value()));
        }
        let overtaken = course.fenced && !self.has(Bug::SoftServesOvertaken);
        let serves = waits.impatient && !overtaken && !self.has(Bug::SoftServesNothing);
        let held = course.shown.as_ref().or(course.held.as_ref()).filter(|_| serves);
        if let Some(held) = held.filter(|held| self.stands_in(held)) {
            let (value, life) = (*held.value(), held.lifetime());
            drop(course);
            self.tell(key, EventKind::SoftTimeout(life));
            return Some(Landing::Value(value));
        }
        course.wakers.push(context.waker().clone());
        None
    }

    fn stands_in(&self, held: &Entry<u64>) -> bool {
        let now = self.core.clock.now();
        match self.judge(held, now) {
            Freshness::Fresh | Freshness::Stale => true,
            Freshness::Expired => {
                self.core.policy.keep != Keep::No || held.freshness(now) == Freshness::Expired
            }
            Freshness::Dead => false,
        }
    }

    /// Gives up a load for which nobody waits.
    fn give_up(&self, key: Name, flight: &Arc<Flight>, counts: bool) -> bool {
        let mut table = self.table();
        let waited_for = counts && flight.1.load(Ordering::SeqCst) > 0 && !self.has(Bug::DropKillsOthers);
        {
            let mut course = flight.0.lock();
            if waited_for
                || course.storing
                || course.given_up
                || course.shown.is_some()
                || course.landed.is_some()
            {
                return false;
            }
            course.given_up = true;
            course.fenced = true;
        }
        if let Some(slot) = table.slots.get_mut(&self.place_of(key)) {
            slot.flight.take_if(|held| Arc::ptr_eq(held, flight));
        }
        table.tidy();
        drop(table);
        flight.change(true, |_| ());
        true
    }
}
