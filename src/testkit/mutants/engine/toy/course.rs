//! The course of a flight of the toy.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use super::early::early;
use super::trouble::{Place, load, unless_given_up};
use super::{Base, Duty, Landing};
use crate::cache::background::Cut;
use crate::cache::budget::RefreshPermit;
use crate::cache::computed::{Computed, Keep, Terms, Ttl};
use crate::cache::event::EventKind;
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::Store;
use crate::testkit::engine::Compute;
use crate::testkit::mutants::engine::Bug;
use crate::testkit::yield_now;
use crate::time::Timestamp;

impl Base {
    /// An entry of an answer, which ended now.
    pub(super) fn entry(
        &self,
        answer: Computed<u64>,
        held: Option<&Entry<u64>>,
        began: Timestamp,
    ) -> Result<Entry<u64>> {
        let (policy, ended) = (&self.core.policy, self.core.clock.now());
        let (value, own) = answer.into_parts();
        let own = own.map_or_else(Terms::default, |own| *own);
        let terms = match value.or(held.map(|held| *held.value())) {
            Some(value) => &self.terms(value, own.clone()),
            None => &own,
        };
        let began = if self.has(Bug::CreatedAtTheEnd) { ended } else { began };
        let ended = if self.has(Bug::DeadlinesFromTheStart) { began } else { ended };
        let terms = if self.has(Bug::OwnTermsIgnored) { &Terms::default() } else { terms };
        let mut life = policy.lifetime(began, ended, terms, began.as_nanos());
        if let Ttl::For(ttl) = terms.ttl.unwrap_or(policy.ttl) {
            let nanos = u64::try_from(ttl.as_nanos() & u128::from(u64::MAX)).unwrap_or(0);
            let window = terms.stale.unwrap_or(policy.stale);
            let fresh = match self.bug {
                Bug::TtlWraps => Timestamp::from_nanos(ended.as_nanos().wrapping_add(nanos)),
                Bug::JitterLengthens if policy.jitter != crate::cache::policy::Jitter::default() => {
                    ended.saturating_add(ttl).saturating_add(Duration::from_secs(1))
                }
                _ => life.fresh_until(),
            };
            let stale = if self.has(Bug::WindowFromTheStart) {
                ended.saturating_add(window)
            } else {
                life.stale_until()
            };
            let keep = match terms.keep.unwrap_or(policy.keep) {
                Keep::For(age) if self.has(Bug::KeptFromStale) => life.stale_until().saturating_add(age),
                Keep::No | Keep::For(_) if self.has(Bug::KeepNotStored) => life.stale_until(),
                _ => life.keep_until(),
            };
            if fresh != life.fresh_until() || stale != life.stale_until() || keep != life.keep_until() {
                life = Lifetime::new(began, fresh, stale, keep);
            }
        }
        let mut entry = match (value, held) {
            (Some(value), _) => Entry::new(value, life),
            (None, Some(held)) if self.has(Bug::UnchangedLosesVersion) => Entry::new(*held.value(), life),
            (None, Some(held)) if self.has(Bug::UnchangedNotRenewed) => held.clone(),
            (None, Some(held)) => held.clone().with_lifetime(life),
            (None, None) => return Err(Error::new(ErrorKind::InvalidInput, "toy", Operation::Compute)),
        };
        if let Some(version) = own.version.filter(|_| !self.has(Bug::VersionLost)) {
            entry = entry.with_version(version);
        }
        if let Some(tags) = own.tags.filter(|_| !self.has(Bug::TagsLost)) {
            entry = entry.with_tags(tags);
        }
        Ok(entry)
    }
}

pub(super) async fn fly(duty: Duty, compute: Compute) {
    let base = Arc::clone(&duty.base);
    let work = unless_given_up(&duty.flight, run(&base, &duty, compute));
    let landing = Box::pin(catch(async { work.await.unwrap_or(Landing::Gone) })).await.unwrap_or_else(|_| {
        let refresh = duty.flight.0.lock().shown.is_some();
        base.tell(duty.key, if refresh { EventKind::RefreshPanicked } else { EventKind::LoadPanicked });
        let shown = duty.shown().filter(|_| !base.has(Bug::RefreshPanicUnwinds));
        shown.map_or(Landing::Panicked, |entry| Landing::Value(*entry.value()))
    });
    let (key, flight) = (duty.key, Arc::clone(&duty.flight));
    duty.land(landing);
    if base.has(Bug::UnmappedLate) {
        yield_now().await;
        base.leave(key, &flight);
    }
}

async fn run(base: &Base, duty: &Duty, compute: Compute) -> Landing {
    let key = duty.key;
    let shown = duty.flight.0.lock().shown.clone();
    let mut permit = None;
    if let Some(shown) = &shown {
        if base.judge(shown, base.core.clock.now()) == Freshness::Fresh {
            return early(base, duty, shown.clone(), compute).await;
        }
        permit = base.permit(key, false);
        if permit.is_none() {
            return Landing::Value(*shown.value());
        }
    }
    let before = base.core.clock.now();
    let held = match base.read(key).await {
        Ok(held) => held,
        Err(error) => {
            return shown.map_or(Landing::Failed(error), |entry| Landing::Value(entry.into_value()));
        }
    };
    let now = if base.has(Bug::NowBeforeRead) { before } else { base.core.clock.now() };
    let freshness = held.as_ref().map_or(Freshness::Dead, |entry| base.judge(entry, now));
    let keeps = base.has(Bug::DeadServedOnError);
    let held =
        held.filter(|entry| entry.freshness(now) != Freshness::Dead || keeps || base.has(Bug::KeptTooLong));
    match (held, freshness, shown) {
        (Some(entry), Freshness::Fresh, shown) => {
            if shown.is_none() {
                base.tell(key, EventKind::Hit(entry.lifetime()));
                if base.due(key, &entry) {
                    duty.flight.change(true, |course| course.shown = Some(entry.clone()));
                    return early(base, duty, entry, compute).await;
                }
            }
            Landing::Value(*entry.value())
        }
        (Some(entry), Freshness::Stale, shown) => {
            if shown.is_none() {
                base.tell(key, EventKind::StaleHit(entry.lifetime()));
                if base.has(Bug::StaleWithoutRefresh) {
                    return Landing::Value(*entry.value());
                }
                permit = base.permit(key, false);
                if permit.is_none() {
                    return Landing::Value(*entry.value());
                }
            }
            refresh(base, duty, entry, compute, permit).await
        }
        (_, _, Some(shown)) => refresh(base, duty, shown, compute, permit).await,
        (held, _, None) => load(base, duty, held, compute).await,
    }
}

pub(super) async fn refresh(
    base: &Base,
    duty: &Duty,
    stale: Entry<u64>,
    compute: Compute,
    permit: Option<RefreshPermit<'_>>,
) -> Landing {
    let (key, policy) = (duty.key, &base.core.policy);
    if let Some(error) = base.remembered(key) {
        base.tell(key, EventKind::RefreshSkipped);
        return fall_back(base, duty, Some(stale), error, true).await;
    }
    if base.has(Bug::PermitGivenBackEarly) {
        drop(permit);
    } else if base.has(Bug::PermitLeaks) {
        std::mem::forget(permit);
    }
    duty.flight.change(true, |course| course.shown = Some(stale.clone()));
    yield_now().await;
    let limit = (!base.has(Bug::RefreshesWithoutDeadline)).then_some(policy.refresh_timeout);
    match computed(base, duty, Some(&stale), compute, limit, true).await {
        Ok(entry) => {
            base.tell(key, EventKind::RefreshSucceeded(Duration::ZERO));
            base.store(duty, entry, true).await
        }
        Err(error) => {
            base.tell(key, EventKind::RefreshFailed(&error));
            let (now, life) = (base.core.clock.now(), stale.lifetime());
            let again = match base.bug {
                Bug::FailedRefreshExtends => Some(Lifetime::new(
                    life.created_at(),
                    now.saturating_add(Duration::from_secs(1)),
                    life.stale_until(),
                    life.keep_until(),
                )),
                Bug::FailedRefreshEndsWindow => {
                    Some(Lifetime::new(life.created_at(), life.fresh_until(), now, life.keep_until()))
                }
                _ => None,
            };
            if let Some(life) = again {
                let _ = base.core.store.set(&key, stale.clone().with_lifetime(life)).await;
            }
            if base.has(Bug::FailedRefreshRemoves) {
                let _ = base.core.store.remove(&key).await;
            }
            fall_back(base, duty, Some(stale), error, true).await
        }
    }
}

pub(super) async fn computed(
    base: &Base,
    duty: &Duty,
    held: Option<&Entry<u64>>,
    compute: Compute,
    limit: Option<Duration>,
    refresh: bool,
) -> Result<Entry<u64>> {
    let given = held.cloned().filter(|_| !base.has(Bug::GivesNothing));
    let asked = base.core.clock.now();
    let began = OnceLock::new();
    let work = async {
        let place = if refresh { None } else { base.place().await? };
        base.tell(duty.key, if refresh { EventKind::RefreshStarted } else { EventKind::LoadStarted });
        let began = *began.get_or_init(|| base.core.clock.now());
        let answer = compute(given).await.map_err(failed);
        place.into_iter().for_each(Place::end);
        Ok((answer?, began))
    };
    let outcome = match base.core.background.bounded(limit.unwrap_or(Duration::MAX), work).await {
        Ok(answer) => answer.and_then(|(answer, began)| base.entry(answer, held, began)),
        Err(Cut::Stopped) => Err(shut_down()),
        Err(Cut::Deadline) => Err(timeout(Operation::Compute)),
    };
    let queued = began.get().is_none_or(|began| *began != asked);
    match &outcome {
        Err(error) if queued && error.kind() != ErrorKind::Computation => {}
        _ => base.remember(duty, outcome.as_ref().err(), refresh),
    }
    outcome
}

pub(super) async fn fall_back(
    base: &Base,
    duty: &Duty,
    held: Option<Entry<u64>>,
    error: Error,
    refresh: bool,
) -> Landing {
    let (now, policy) = (base.core.clock.now(), &base.core.policy);
    let serves = |entry: &Entry<u64>| match base.judge(entry, now) {
        Freshness::Fresh | Freshness::Stale => !(refresh && base.has(Bug::FailedRefreshFailsHit)),
        Freshness::Expired if base.has(Bug::NoStaleOnError) => false,
        Freshness::Expired if base.has(Bug::OwnKeepUnserved) => policy.keep != Keep::No,
        Freshness::Expired => policy.keep != Keep::No || entry.freshness(now) == Freshness::Expired,
        Freshness::Dead => base.has(Bug::DeadServedOnError),
    };
    let fenced = duty.flight.0.lock().fenced && !base.has(Bug::FallbackAfterRemoval);
    match held.filter(|entry| serves(entry) && !fenced) {
        Some(entry) => {
            if !refresh {
                base.tell(duty.key, EventKind::StaleOnError(&error));
            }
            if base.has(Bug::FallbackStoredAgain) {
                let life = policy.lifetime(now, now, &Terms::default(), 0);
                let _ = base.core.store.set(&duty.key, entry.clone().with_lifetime(life)).await;
            }
            Landing::Value(*entry.value())
        }
        None => Landing::Failed(error),
    }
}

pub(super) async fn catch<F: Future>(future: F) -> std::result::Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}

pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Computation, "toy", Operation::Compute).with_source(error)
}

pub(super) fn panicked() -> Error {
    Error::new(ErrorKind::Computation, "toy", Operation::Compute).with_message("the computation panicked")
}

pub(super) fn shut_down() -> Error {
    Error::new(ErrorKind::ShutDown, "toy", Operation::Compute)
}

pub(super) fn timeout(operation: Operation) -> Error {
    Error::new(ErrorKind::Timeout, "toy", operation)
}
