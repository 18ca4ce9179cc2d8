//! Many keys at once, in the toy.

use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use super::course::{catch, failed, fall_back, panicked, shut_down, timeout};
use super::early::early_many;
use super::{Base, Duty, Flight, Landing, Write};
use crate::cache::Answers;
use crate::cache::background::Cut;
use crate::cache::budget::RefreshPermit;
use crate::cache::computed::Computed;
use crate::cache::event::EventKind;
use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Refusal, SetOutcome, Store};
use crate::testkit::engine::{ComputeMany, Name};
use crate::testkit::mutants::engine::Bug;
use crate::testkit::yield_now;
use crate::time::Timestamp;

/// A key that is to be computed, and what is held of it.
pub(super) struct Due<'a> {
    pub(super) duty: &'a Duty,
    pub(super) held: Option<Entry<u64>>,
    pub(super) permit: Option<RefreshPermit<'a>>,
}

impl Base {
    pub(super) async fn ask_many(self: Arc<Self>, keys: Vec<Name>, compute: ComputeMany) -> Vec<Result<u64>> {
        if self.core.policy.bypass {
            return self.compute_many(keys, compute).await;
        }
        let mut results: Vec<Option<Result<u64>>> = vec![None; keys.len()];
        let mut open: Vec<_> = (0..keys.len()).collect();
        while !open.is_empty() {
            let (mut waits, mut duties, mut shown, mut late) =
                (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for &at in &open {
                let key = keys[at];
                if let Some(value) = self.hit(key) {
                    results[at] = Some(Ok(value));
                    continue;
                }
                let joined = self.join(key);
                let again = self.has(Bug::BatchFollowsNobody) && !joined.1
                    || self.has(Bug::BatchComputesTwice) && keys[..at].contains(&key);
                let (flight, leads) = if again {
                    (
                        Arc::new(Flight(
                            crate::sync::Mutex::default(),
                            std::sync::atomic::AtomicUsize::new(1),
                        )),
                        true,
                    )
                } else {
                    joined
                };
                if !leads {
                    self.tell(key, EventKind::Joined);
                    waits.push((at, flight, false));
                    continue;
                }
                self.core.background.enter();
                let base = Arc::clone(&self);
                let duty = Duty { base, key, flight: Arc::clone(&flight), landed: AtomicBool::new(false) };
                if self.core.background.is_closing() {
                    late.push(at);
                    continue;
                }
                let peeked = self.peek(key, Freshness::Stale);
                flight.0.lock().shown = peeked.as_ref().map(|(entry, _)| entry.clone());
                duties.push(duty);
                match peeked {
                    Some(peeked) if !self.has(Bug::BatchWaitsForStale) => shown.push((at, peeked)),
                    _ => waits.push((at, flight, true)),
                }
            }
            if self.has(Bug::BatchWaitsFirst) {
                for (_, flight, _) in waits.iter().filter(|(.., leads)| !leads) {
                    flight.wait(|_| false).await;
                }
            }
            if !duties.is_empty() {
                let task = Box::pin(fly_many(Arc::clone(&self), duties, Arc::clone(&compute)));
                if self.has(Bug::BatchDiesWithCaller) {
                    task.await;
                } else {
                    let _ = self.core.background.runtime.spawn(task);
                }
            }
            for (at, (entry, freshness)) in shown {
                let kind = if freshness == Freshness::Fresh { EventKind::Hit } else { EventKind::StaleHit };
                self.tell(keys[at], kind(entry.lifetime()));
                results[at] = Some(Ok(entry.into_value()));
            }
            for at in late {
                results[at] = Some(self.serve_on(keys[at]).await);
            }
            open.clear();
            for (at, flight, leads) in waits {
                let inline = self.has(Bug::BatchWaitsForStale);
                let servable = |entry: &Entry<u64>| {
                    !inline && self.judge(entry, self.core.clock.now()) <= Freshness::Stale
                };
                results[at] = match flight.wait(servable).await {
                    Landing::Value(value) => Some(Ok(value)),
                    Landing::Failed(error) => Some(Err(error)),
                    Landing::Panicked if leads && self.has(Bug::BatchPanicIsError) => Some(Err(panicked())),
                    Landing::Panicked if leads => resume_unwind(Box::new("boom")),
                    Landing::Panicked if self.has(Bug::BatchPanicTakesFollowers) => {
                        resume_unwind(Box::new("boom"))
                    }
                    Landing::Gone if leads => Some(Err(shut_down())),
                    Landing::Panicked | Landing::Gone => {
                        open.push(at);
                        yield_now().await;
                        None
                    }
                };
            }
        }
        let mut results: Vec<_> = results.into_iter().flatten().collect();
        if self.has(Bug::BatchOutOfOrder) {
            results.reverse();
        }
        results
    }

    async fn compute_many(&self, keys: Vec<Name>, compute: ComputeMany) -> Vec<Result<u64>> {
        let mut asked = keys.clone();
        asked.sort_unstable();
        asked.dedup();
        let mut answers = compute(asked).await.map_err(failed);
        let mut results = HashMap::new();
        for &key in &keys {
            results.entry(key).or_insert_with(|| {
                answer(&mut answers, key)
                    .and_then(|answer| self.entry(answer, None, self.core.clock.now()).map(Entry::into_value))
            });
        }
        keys.iter().map(|key| results[key].clone()).collect()
    }

    pub(super) async fn set_many(&self, entries: Vec<(Name, Computed<u64>)>) -> Vec<Result<SetOutcome>> {
        if self.core.policy.bypass {
            return entries.iter().map(|_| Ok(SetOutcome::Refused(Refusal::KeepsNothing))).collect();
        }
        let now = self.core.clock.now();
        let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
        let mut last: HashMap<Name, usize> = HashMap::new();
        for (at, key) in keys.iter().enumerate() {
            if self.has(Bug::BatchStoresFirst) {
                last.entry(*key).or_insert(at);
            } else {
                last.insert(*key, at);
            }
        }
        let mut writing = Vec::new();
        let kept = entries.into_iter().enumerate().filter(|(at, (key, _))| last[key] == *at);
        for (_, (key, value)) in kept {
            if let Ok(entry) = self.entry(value, None, now) {
                writing.push((key, entry));
            }
        }
        let mut fences = Vec::new();
        for &key in keys.iter().filter(|_| !self.has(Bug::SetManyDoesNotFence)) {
            fences.push(self.fence(Some(key), Write::Set).await);
        }
        let pairs: Vec<_> = writing.iter().map(|(key, entry)| (key, entry.clone())).collect();
        let outcomes = self.core.store.set_many(&pairs).await;
        let outcomes: HashMap<_, _> = writing.iter().map(|(key, _)| *key).zip(outcomes).collect();
        for (key, _) in &writing {
            match &outcomes[key] {
                Ok(SetOutcome::Stored) => self.tell(*key, EventKind::Set),
                Ok(SetOutcome::Refused(why)) => self.tell(*key, EventKind::Refused(*why)),
                Err(error) => self.tell(*key, EventKind::StoreFailed(Operation::Set, error)),
            }
        }
        keys.iter().map(|key| outcomes[key].clone()).collect()
    }

    pub(super) async fn remove_many(&self, keys: Vec<Name>) -> Vec<Result<()>> {
        if self.core.policy.bypass {
            return keys.iter().map(|_| Ok(())).collect();
        }
        let mut fences = Vec::new();
        for &key in keys.iter().filter(|_| !self.has(Bug::RemoveManyDoesNotFence)) {
            fences.push(self.fence(Some(key), Write::Remove).await);
        }
        let outcomes = self.core.store.remove_many(&keys.iter().collect::<Vec<_>>()).await;
        for (key, outcome) in keys.iter().zip(&outcomes) {
            match outcome {
                Ok(()) => self.tell(*key, EventKind::Removed),
                Err(error) => self.tell(*key, EventKind::StoreFailed(Operation::Remove, error)),
            }
        }
        outcomes
    }

    pub(super) async fn get_many(&self, keys: Vec<Name>) -> Vec<Result<Option<u64>>> {
        let mut results: Vec<_> = keys.iter().map(|key| Ok(self.fresh(*key))).collect();
        let places: Vec<_> = (0..keys.len()).filter(|at| matches!(results[*at], Ok(None))).collect();
        let asked: Vec<_> = places.iter().map(|at| &keys[*at]).collect();
        if self.core.policy.bypass || asked.is_empty() {
            return results;
        }
        let read = self.core.store.get_many(&asked, self.core.clock.now()).await;
        let now = self.core.clock.now();
        for (at, found) in places.into_iter().zip(read) {
            let fresh = found.map(|found| found.filter(|entry| self.judge(entry, now) == Freshness::Fresh));
            match &fresh {
                Ok(Some(entry)) => self.tell(keys[at], EventKind::Hit(entry.lifetime())),
                Ok(None) => self.tell(keys[at], EventKind::Miss),
                Err(error) => self.tell(keys[at], EventKind::StoreFailed(Operation::Get, error)),
            }
            results[at] = fresh.map(|fresh| fresh.map(Entry::into_value));
        }
        results
    }

    /// Reads these keys as at an instant, by one call.
    pub(super) async fn read_many(&self, keys: &[Name], at: Timestamp) -> Vec<Result<Option<Entry<u64>>>> {
        let limit = self.core.policy.load_timeout;
        if self.has(Bug::BatchReadsOneByOne) {
            let mut read = Vec::new();
            for key in keys {
                read.push(self.read_at(*key, at).await);
            }
            return read;
        }
        let asked: Vec<_> = keys.iter().collect();
        let read = self.core.background.bounded(limit, self.core.store.get_many(&asked, at)).await;
        let cut = |cut| if cut == Cut::Stopped { shut_down() } else { timeout(Operation::Get) };
        let read = read.unwrap_or_else(|why| keys.iter().map(|_| Err(cut(why))).collect());
        let passes_over = |(key, read): (&Name, Result<_>)| {
            let error = match read {
                Ok(found) => return Ok(found),
                Err(error) if error.kind() == ErrorKind::ShutDown => return Err(error),
                Err(error) => error,
            };
            self.tell(*key, EventKind::StoreFailed(Operation::Get, &error));
            if self.core.policy.strict { Err(error) } else { Ok(None) }
        };
        keys.iter().zip(read).map(passes_over).collect()
    }
}

fn answer(answers: &mut Result<Answers<Name, u64>>, key: Name) -> Result<Computed<u64>> {
    let absent = || Err(Error::new(ErrorKind::NotFound, "toy", Operation::Compute));
    match answers {
        Ok(answers) => answers.take(&key).unwrap_or_else(absent),
        Err(error) => Err(error.clone()),
    }
}

async fn fly_many(base: Arc<Base>, duties: Vec<Duty>, compute: ComputeMany) {
    let landings = catch(look(&base, &duties)).await;
    let Ok((loads, refreshes)) = landings else { return };
    let mut landed = Vec::new();
    let tickets = |due: &[Due<'_>]| due.iter().map(|due| due.duty.key).collect::<Vec<_>>();
    let (load_keys, refresh_keys) = (tickets(&loads), tickets(&refreshes));
    {
        let mut load = pin!(catch(errand(&base, loads, &compute, false)));
        let mut refresh = pin!(catch(errand(&base, refreshes, &compute, true)));
        let (mut one, mut other) = (None, None);
        poll_fn(|context| {
            if one.is_none()
                && let Poll::Ready(end) = load.as_mut().poll(context)
            {
                one = Some(end);
            }
            if other.is_none()
                && let Poll::Ready(end) = refresh.as_mut().poll(context)
            {
                other = Some(end);
            }
            if one.is_some() && other.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if matches!(one, Some(Err(_))) {
            landed.push((load_keys, EventKind::LoadPanicked));
        }
        if matches!(other, Some(Err(_))) {
            landed.push((refresh_keys, EventKind::RefreshPanicked));
        }
    }
    for (keys, event) in landed {
        for duty in duties.iter().filter(|duty| keys.contains(&duty.key)) {
            if duty.flight.0.lock().landed.is_some() {
                continue;
            }
            let name = if matches!(event, EventKind::LoadPanicked) {
                EventKind::LoadPanicked
            } else {
                EventKind::RefreshPanicked
            };
            base.tell(duty.key, name);
            let shown = duty.shown();
            duty.land(shown.map_or(Landing::Panicked, |entry| Landing::Value(*entry.value())));
        }
    }
}

/// Lands what is found, and says what is to be loaded and what is to be refreshed.
async fn look<'a>(base: &'a Base, duties: &'a [Duty]) -> (Vec<Due<'a>>, Vec<Due<'a>>) {
    let (mut loads, mut refreshes) = (Vec::new(), Vec::new());
    let (mut reading, mut early) = (Vec::new(), Vec::new());
    let mut begin_early = |duty: &'a Duty, shown: Entry<u64>| match base.early_permit(duty.key, &shown) {
        Some(permit) => early.push(Due { duty, held: Some(shown), permit: Some(permit) }),
        None => duty.land(Landing::Value(shown.into_value())),
    };
    for duty in duties {
        let shown = duty.flight.0.lock().shown.clone();
        match shown {
            None => reading.push((duty, None)),
            Some(shown) if base.judge(&shown, base.core.clock.now()) == Freshness::Fresh => {
                begin_early(duty, shown);
            }
            Some(shown) => match base.permit(duty.key, false) {
                Some(permit) => reading.push((duty, Some((shown, permit)))),
                None => duty.land(Landing::Value(shown.into_value())),
            },
        }
    }
    let keys: Vec<_> = reading.iter().map(|(duty, _)| duty.key).collect();
    let read = if keys.is_empty() { Vec::new() } else { base.read_many(&keys, base.core.clock.now()).await };
    let now = base.core.clock.now();
    for ((duty, shown), read) in reading.into_iter().zip(read) {
        let held = match read {
            Ok(held) => held,
            Err(error) => {
                let landing =
                    shown.map_or(Landing::Failed(error), |(shown, _)| Landing::Value(shown.into_value()));
                duty.land(landing);
                continue;
            }
        };
        let freshness = held.as_ref().map_or(Freshness::Dead, |entry| base.judge(entry, now));
        let held = held.filter(|entry| entry.freshness(now) != Freshness::Dead);
        match (held, freshness, shown) {
            (Some(entry), Freshness::Fresh, shown) => {
                if shown.is_none() {
                    base.tell(duty.key, EventKind::Hit(entry.lifetime()));
                    if base.due(duty.key, &entry) {
                        duty.flight.change(true, |course| course.shown = Some(entry.clone()));
                        begin_early(duty, entry);
                        continue;
                    }
                }
                duty.land(Landing::Value(entry.into_value()));
            }
            (Some(entry), Freshness::Stale, Some((_, permit))) => {
                refreshes.push(Due { duty, held: Some(entry), permit: Some(permit) });
            }
            (_, _, Some((shown, permit))) => {
                refreshes.push(Due { duty, held: Some(shown), permit: Some(permit) });
            }
            (Some(entry), Freshness::Stale, None) => {
                base.tell(duty.key, EventKind::StaleHit(entry.lifetime()));
                match base.permit(duty.key, false) {
                    Some(permit) => refreshes.push(Due { duty, held: Some(entry), permit: Some(permit) }),
                    None => duty.land(Landing::Value(entry.into_value())),
                }
            }
            (held, _, None) => {
                base.tell(duty.key, EventKind::Miss);
                loads.push(Due { duty, held, permit: None });
            }
        }
    }
    refreshes.extend(early_many(base, early).await);
    refreshes.sort_by_key(|due| std::ptr::from_ref(due.duty));
    (loads, refreshes)
}

async fn errand(base: &Base, due: Vec<Due<'_>>, compute: &ComputeMany, refresh: bool) {
    if due.is_empty() {
        return;
    }
    if refresh {
        for due in &due {
            due.duty.flight.change(true, |course| course.shown.clone_from(&due.held));
        }
        yield_now().await;
    }
    for due in &due {
        base.tell(due.duty.key, if refresh { EventKind::RefreshStarted } else { EventKind::LoadStarted });
    }
    let policy = &base.core.policy;
    let limit = if refresh { policy.refresh_timeout } else { policy.load_timeout };
    let limit = if base.has(Bug::BatchWithoutDeadline) { Duration::MAX } else { limit };
    let began = base.core.clock.now();
    let mut keys: Vec<_> = due.iter().map(|due| due.duty.key).collect();
    if base.has(Bug::BatchAsksBackwards) {
        keys.reverse();
    }
    let mut answers = match base.core.background.bounded(limit, compute(keys)).await {
        Ok(answers) => answers.map_err(failed),
        Err(Cut::Stopped) => Err(shut_down()),
        Err(Cut::Deadline) => Err(timeout(Operation::Compute)),
    };
    let mut first_error = None;
    let mut ends = Vec::new();
    for due in due {
        let end = answer(&mut answers, due.duty.key);
        let end = end.and_then(|answer| base.entry(answer, due.held.as_ref(), began));
        first_error = first_error.or_else(|| end.as_ref().err().cloned());
        ends.push((due, end));
    }
    if let (true, Some(error)) = (base.has(Bug::OneFailureFailsBatch), &first_error) {
        for (_, end) in &mut ends {
            *end = Err(error.clone());
        }
    }
    let left = answers.as_ref().map_or(0, Answers::len);
    if left > 0 {
        base.core.listener.tell_of_all(EventKind::Unasked(left));
    }
    let mut storing = Vec::new();
    for (due, end) in ends {
        let key = due.duty.key;
        match end {
            Ok(entry) => {
                let done = if refresh { EventKind::RefreshSucceeded } else { EventKind::LoadSucceeded };
                base.tell(key, done(Duration::ZERO));
                base.born(key, &entry);
                let fenced = {
                    let mut course = due.duty.flight.0.lock();
                    course.storing = !course.fenced;
                    course.fenced
                };
                if fenced && !base.has(Bug::BatchStoresOvertaken) {
                    base.tell(key, EventKind::Overtaken);
                    let Due { duty, permit, .. } = due;
                    drop(permit);
                    duty.land(Landing::Value(entry.into_value()));
                } else {
                    storing.push((due, entry));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound && base.has(Bug::ForgottenKeyHangs) => {
                pending::<()>().await;
            }
            Err(error) => {
                let failed =
                    if refresh { EventKind::RefreshFailed(&error) } else { EventKind::LoadFailed(&error) };
                base.tell(key, failed);
                let Due { duty, held, permit } = due;
                let absent = error.kind() == ErrorKind::NotFound && !base.has(Bug::AbsentServesStale);
                let landing = if absent {
                    let shown = duty.shown();
                    shown.map_or(Landing::Failed(error), |entry| Landing::Value(entry.into_value()))
                } else {
                    fall_back(base, duty, held, error, refresh).await
                };
                drop(permit);
                duty.land(landing);
            }
        }
    }
    let unasked = Name::ALL.into_iter().find(|name| {
        base.has(Bug::UnaskedIsStored) && answers.as_mut().is_ok_and(|answers| answers.take(name).is_some())
    });
    if let (Some(name), Some((_, entry))) = (unasked, storing.first()) {
        let _ = base.core.store.set(&name, entry.clone()).await;
    }
    if !storing.is_empty() {
        store(base, storing, refresh).await;
    }
}

async fn store(base: &Base, storing: Vec<(Due<'_>, Entry<u64>)>, refresh: bool) {
    let limit = base.core.policy.load_timeout;
    let pairs: Vec<_> = storing.iter().map(|(due, entry)| (&due.duty.key, entry.clone())).collect();
    let stored = if base.has(Bug::BatchStoresOneByOne) {
        let mut stored = Vec::new();
        for (key, entry) in &pairs {
            stored.push(base.core.store.set(key, entry.clone()).await);
        }
        Ok(stored)
    } else {
        base.core.background.bounded(limit, base.core.store.set_many(&pairs)).await
    };
    let cut = |cut| if cut == Cut::Stopped { shut_down() } else { timeout(Operation::Set) };
    let stored = stored.unwrap_or_else(|why| pairs.iter().map(|_| Err(cut(why))).collect());
    drop(pairs);
    for ((due, entry), stored) in storing.into_iter().zip(stored) {
        let Due { duty, permit, .. } = due;
        drop(permit);
        let landing = match stored {
            Ok(SetOutcome::Stored) => Landing::Value(entry.into_value()),
            Ok(SetOutcome::Refused(why)) => {
                base.tell(duty.key, EventKind::Refused(why));
                Landing::Value(entry.into_value())
            }
            Err(error) => {
                base.tell(duty.key, EventKind::StoreFailed(Operation::Set, &error));
                if base.core.policy.strict && !refresh {
                    Landing::Failed(error)
                } else {
                    Landing::Value(entry.into_value())
                }
            }
        };
        duty.land(landing);
    }
}
