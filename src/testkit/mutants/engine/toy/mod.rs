//! A small engine: healthy, with one switch a bug.

mod course;
mod early;
mod flight;
mod handle;
mod many;
mod trouble;

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Waker;
use std::time::Duration;

use crate::cache::background::{Alive, Cut};
use crate::cache::budget::Budget;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::{Cache, Patience};
use crate::entry::{Entry, Freshness};
use crate::error::{Error, Operation, Result};
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::engine::{Compute, Name, Stack};
use crate::testkit::mutants::engine::Bug;
use crate::testkit::yield_now;
use crate::time::Timestamp;
use course::{failed, fly, panicked, shut_down, timeout};
use trouble::Waits;

/// A handle. Settings, clock, store and listener are those of the cache that it was made of.
pub(super) struct Toy(Arc<Base>, Arc<Alive>);

struct Base {
    core: Arc<Core<Stack>>,
    bug: Bug,
    /// The budget of a bug.
    budget: Option<Budget>,
    /// How many refreshes began, and since when, where a bug counts by itself.
    begun: Mutex<u64>,
    since: Timestamp,
    table: Mutex<Table>,
    /// What a bug remembers.
    errors: Mutex<HashMap<Name, Error>>,
    remembered: Mutex<HashMap<Name, trouble::Memory>>,
    queue: Mutex<trouble::Queue>,
    _handle: Option<Arc<Alive>>,
}

#[derive(Default)]
struct Table {
    slots: HashMap<Name, Slot>,
    clearing: usize,
}

#[derive(Default)]
struct Slot {
    flight: Option<Arc<Flight>>,
    storing: Vec<Arc<Flight>>,
    writers: usize,
}

/// Its course, and how many callers are there for it.
struct Flight(Mutex<Course>, AtomicUsize);

#[derive(Default)]
struct Course {
    fenced: bool,
    storing: bool,
    shown: Option<Entry<u64>>,
    /// What is kept beside a load.
    held: Option<Entry<u64>>,
    given_up: bool,
    landed: Option<Landing>,
    wakers: Vec<Waker>,
}

#[derive(Clone)]
enum Landing {
    Value(u64),
    Failed(Error),
    Panicked,
    Gone,
}

/// Lands a flight, whatever becomes of its task.
struct Duty {
    base: Arc<Base>,
    key: Name,
    flight: Arc<Flight>,
    landed: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Set,
    Remove,
    Clear,
}

/// Fences while it lives.
struct Fence<'a>(&'a Base, Option<Name>, bool);

impl Toy {
    pub(super) fn new(cache: &Cache<Stack>, bug: Bug) -> Self {
        let base = Base {
            core: Arc::clone(&cache.core),
            bug,
            budget: match bug {
                Bug::RefreshesUnbounded => Some(Budget::new(usize::MAX, cache.core.policy.refreshes)),
                Bug::RateIgnored | Bug::BurstUnbounded => {
                    Some(Budget::new(cache.core.policy.max_refreshes, None))
                }
                _ => None,
            },
            begun: Mutex::default(),
            since: cache.core.clock.now(),
            table: Mutex::default(),
            errors: Mutex::default(),
            remembered: Mutex::default(),
            queue: Mutex::default(),
            _handle: (bug == Bug::OutlivesHandles).then(|| Arc::clone(&cache.alive)),
        };
        Self(Arc::new(base), Arc::clone(&cache.alive))
    }
}

impl Base {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn tell(&self, key: Name, kind: EventKind<'_>) {
        let lost = match kind {
            EventKind::Hit(_) => self.has(Bug::NoHitEvent),
            EventKind::Miss => self.has(Bug::NoMissEvent),
            EventKind::Joined => self.has(Bug::NoJoinedEvent),
            EventKind::Overtaken => self.has(Bug::NoOvertakenEvent),
            EventKind::StoreFailed(..) => self.has(Bug::NoStoreFailedEvent),
            EventKind::RefreshSkipped => self.has(Bug::NoSkippedEvent),
            EventKind::StaleOnError(_) => self.has(Bug::NoStaleOnErrorEvent),
            EventKind::RefreshFailed(_) => self.has(Bug::NoRefreshFailedEvent),
            _ => false,
        };
        match kind {
            _ if lost => {}
            EventKind::StaleHit(life) if self.has(Bug::StaleHitToldAsHit) => {
                self.core.listener.tell(&key, EventKind::Hit(life));
            }
            EventKind::LoadStarted if self.has(Bug::LoadToldTwice) => {
                self.core.listener.tell(&key, EventKind::LoadStarted);
                self.core.listener.tell(&key, EventKind::LoadStarted);
            }
            kind => self.core.listener.tell(&key, kind),
        }
    }

    fn judge(&self, entry: &Entry<u64>, now: Timestamp) -> Freshness {
        let tick = Duration::from_nanos(1);
        let life = entry.lifetime();
        if self.has(Bug::ClockBackPanics) && life.created_at() > now {
            resume_unwind(Box::new("time went backwards"));
        }
        let at = |deadline: Timestamp, late: Bug, early: Bug| {
            if self.has(late) && !deadline.is_never() {
                now <= deadline.saturating_add(tick)
            } else if self.has(early) {
                now < deadline
            } else {
                now <= deadline
            }
        };
        let freshness = if at(life.fresh_until(), Bug::FreshTooLong, Bug::FreshTooShort) {
            Freshness::Fresh
        } else if at(life.stale_until(), Bug::StaleTooLong, Bug::StaleTooShort) {
            Freshness::Stale
        } else if at(life.keep_until(), Bug::KeptTooLong, Bug::KeptTooShort) {
            if self.has(Bug::ExpiredServedStale) { Freshness::Stale } else { Freshness::Expired }
        } else {
            Freshness::Dead
        };
        let ahead =
            life.created_at() > now.saturating_add(self.core.policy.skew) && !life.fresh_until().is_never();
        if ahead && !self.has(Bug::FutureIsFresh) {
            let least = if self.has(Bug::FutureIsDead) { Freshness::Dead } else { Freshness::Expired };
            return freshness.max(least);
        }
        freshness
    }

    fn peek(&self, key: Name, most: Freshness) -> Option<(Entry<u64>, Freshness)> {
        if self.core.policy.bypass && !self.has(Bug::BypassReads) {
            return None;
        }
        let entry = self.core.store.peek_with(&key, Entry::clone)?;
        let freshness = self.judge(&entry, self.core.clock.now());
        (freshness <= most).then_some((entry, freshness))
    }

    fn fresh(&self, key: Name) -> Option<u64> {
        let most = if self.has(Bug::PeekServesStale) { Freshness::Stale } else { Freshness::Fresh };
        let (entry, _) = self.peek(key, most)?;
        if self.has(Bug::PeekIsATry)
            && let Some(ahead) = &self.core.ahead
        {
            ahead.begins(&key, entry.lifetime(), self.core.clock.now());
        }
        self.tell(key, EventKind::Hit(entry.lifetime()));
        Some(*entry.value())
    }

    fn hit(self: &Arc<Self>, key: Name) -> Option<u64> {
        let (entry, freshness) = self.peek(key, Freshness::Stale)?;
        let refreshing = || {
            let table = self.table();
            let flight = table.slots.get(&self.place_of(key)).and_then(|slot| slot.flight.clone());
            flight.is_some()
        };
        if freshness == Freshness::Fresh {
            if self.due(key, &entry) && (self.has(Bug::EarlyNotCoalesced) || !self.flies(key)) {
                return None;
            }
            self.tell(key, EventKind::Hit(entry.lifetime()));
        } else if self.has(Bug::StaleWithoutRefresh) || (refreshing() && !self.has(Bug::RefreshNotCoalesced))
        {
            self.tell(key, EventKind::StaleHit(entry.lifetime()));
        } else {
            return None;
        }
        if self.has(Bug::HitStoresAgain) {
            let (base, again) = (Arc::clone(self), entry.clone());
            let _ = self.core.background.runtime.spawn(Box::pin(async move {
                let _ = base.core.store.set(&key, again).await;
            }));
        }
        Some(*entry.value())
    }

    async fn ask(self: Arc<Self>, key: Name, patience: Option<Patience>, compute: Compute) -> Result<u64> {
        let policy = &self.core.policy;
        let bypass = policy.bypass && !self.has(Bug::BypassShares);
        if bypass {
            if self.has(Bug::BypassReads)
                && let Some(value) = self.hit(key)
            {
                return Ok(value);
            }
            let began = self.core.clock.now();
            let answer = compute(None).await.map_err(failed)?;
            let entry = self.entry(answer, None, began)?;
            if self.has(Bug::BypassWrites) {
                let _ = self.core.store.set(&key, entry.clone()).await;
            }
            return Ok(entry.into_value());
        }
        if self.has(Bug::ErrorCached)
            && let Some(error) = self.errors.lock().get(&key)
        {
            return Err(error.clone());
        }
        let mut waits = None;
        loop {
            if let Some(value) = self.hit(key) {
                return Ok(value);
            }
            if self.has(Bug::ReadsBeforeJoining) {
                let _ = self.core.store.get_at(&key, self.core.clock.now()).await;
            }
            let (flight, leads) = self.join(key);
            let waits = waits.get_or_insert_with(|| self.waits(patience, leads));
            if leads {
                return self.lead(key, flight, waits, compute).await;
            }
            let stale =
                self.peek(key, Freshness::Stale).filter(|(_, freshness)| *freshness == Freshness::Stale);
            if let Some((entry, _)) = stale.filter(|_| !self.has(Bug::WaitsForRefresh)) {
                self.tell(key, EventKind::StaleHit(entry.lifetime()));
                return Ok(entry.into_value());
            }
            if self.core.ahead.is_some()
                && let Some(value) = self.fresh(key)
            {
                return Ok(value);
            }
            self.tell(key, EventKind::Joined);
            let servable = |entry: &Entry<u64>| self.judge(entry, self.core.clock.now()) <= Freshness::Stale;
            match self.wait(key, &flight, waits, servable).await? {
                Landing::Value(_) if self.has(Bug::FollowersCompute) => {
                    let flight = Arc::new(Flight(Mutex::default(), AtomicUsize::new(1)));
                    return self.lead(key, flight, waits, compute).await;
                }
                Landing::Value(value) => return Ok(value),
                Landing::Failed(error) => return Err(error),
                Landing::Panicked if self.has(Bug::FollowersPanic) => resume_unwind(Box::new("boom")),
                Landing::Panicked if self.has(Bug::FollowersGetError) => return Err(panicked()),
                Landing::Gone if self.has(Bug::DropKillsFollowers) => return Err(shut_down()),
                // Whoever finds it landed for ever goes round for ever, and lets the others run.
                Landing::Panicked | Landing::Gone => yield_now().await,
            }
        }
    }

    async fn lead(
        self: &Arc<Self>,
        key: Name,
        flight: Arc<Flight>,
        waits: &mut Waits,
        compute: Compute,
    ) -> Result<u64> {
        self.core.background.enter();
        let duty =
            Duty { base: Arc::clone(self), key, flight: Arc::clone(&flight), landed: AtomicBool::new(false) };
        if self.core.background.is_closing() && !self.has(Bug::LoadsAfterShutdown) {
            drop(duty);
            return self.serve_on(key).await;
        }
        let mut shown = None;
        let mut kind: fn(_) -> _ = EventKind::StaleHit;
        match self.peek(key, Freshness::Stale) {
            Some((entry, Freshness::Stale)) => shown = Some(entry),
            Some((entry, _)) if self.core.ahead.is_some() => {
                if !self.due(key, &entry) {
                    duty.land(Landing::Value(*entry.value()));
                    self.tell(key, EventKind::Hit(entry.lifetime()));
                    return Ok(entry.into_value());
                }
                (kind, shown) = (EventKind::Hit, Some(entry));
            }
            _ => {}
        }
        flight.0.lock().shown.clone_from(&shown);
        let task = Box::pin(fly(duty, compute));
        if matches!(self.bug, Bug::DropKillsFollowers | Bug::DropLosesLoad) && shown.is_none() {
            task.await;
        } else {
            let _ = self.core.background.runtime.spawn(task);
        }
        let now = || self.core.clock.now();
        if let Some(entry) = shown {
            if self.has(Bug::WaitsForTheTierBelow) {
                let _ = self.core.store.get_at(&key, now()).await;
            }
            let early = self.judge(&entry, now()) == Freshness::Fresh;
            if self.has(Bug::WaitsForRefresh) || (early && self.has(Bug::EarlyWaits)) {
                flight.wait(|_| false).await;
            }
            self.tell(key, kind(entry.lifetime()));
            return Ok(entry.into_value());
        }
        let inline = self.has(Bug::WaitsForRefresh);
        let servable = |entry: &Entry<u64>| !inline && self.judge(entry, now()) <= Freshness::Stale;
        match self.wait(key, &flight, waits, servable).await? {
            Landing::Value(value) => Ok(value),
            Landing::Failed(error) => Err(error),
            Landing::Panicked if self.has(Bug::PanicBecomesError) => Err(panicked()),
            Landing::Panicked => resume_unwind(Box::new("boom")),
            Landing::Gone => Err(shut_down()),
        }
    }

    async fn serve_on(&self, key: Name) -> Result<u64> {
        let found = self.core.store.get_at(&key, self.core.clock.now()).await.ok().flatten();
        let most = if self.has(Bug::ShutdownRefusesStale) { Freshness::Fresh } else { Freshness::Stale };
        let entry =
            found.filter(|entry| self.judge(entry, self.core.clock.now()) <= most).ok_or_else(shut_down)?;
        let fresh = self.judge(&entry, self.core.clock.now()) == Freshness::Fresh;
        let life = entry.lifetime();
        self.tell(key, if fresh { EventKind::Hit(life) } else { EventKind::StaleHit(life) });
        Ok(entry.into_value())
    }

    async fn read(&self, key: Name) -> Result<Option<Entry<u64>>> {
        self.read_at(key, self.core.clock.now()).await
    }

    async fn read_at(&self, key: Name, at: Timestamp) -> Result<Option<Entry<u64>>> {
        let limit = self.core.policy.load_timeout;
        let read = self.core.store.get_at(&key, at);
        let read = if self.has(Bug::ReadsWithoutDeadline) {
            Ok(read.await)
        } else {
            self.core.background.bounded(limit, read).await
        };
        let error = match read {
            Ok(Ok(entry)) => return Ok(entry),
            Ok(Err(error)) => error,
            Err(Cut::Stopped) => return Err(shut_down()),
            Err(Cut::Deadline) => timeout(Operation::Get),
        };
        self.tell(key, EventKind::StoreFailed(Operation::Get, &error));
        let strict = self.core.policy.strict && !self.has(Bug::StrictForgotten);
        if strict || self.has(Bug::ReadErrorFails) { Err(error) } else { Ok(None) }
    }

    async fn store(&self, duty: &Duty, entry: Entry<u64>, refresh: bool) -> Landing {
        let ignores = self.has(Bug::LoadOverWrite) || (refresh && self.has(Bug::RefreshOverWrite));
        let fenced = {
            let mut course = duty.flight.0.lock();
            course.storing = !course.fenced;
            course.fenced && !ignores
        };
        self.born(duty.key, &entry);
        let value = *entry.value();
        if fenced {
            self.tell(duty.key, EventKind::Overtaken);
            return Landing::Value(value);
        }
        if self.has(Bug::NothingStored) {
            return Landing::Value(value);
        }
        let limit = self.core.policy.load_timeout;
        let set = self.core.store.set(&duty.key, entry);
        let set = if self.has(Bug::WritesWithoutDeadline) {
            Ok(set.await)
        } else {
            self.core.background.bounded(limit, set).await
        };
        let error = match set {
            Ok(Ok(SetOutcome::Stored)) => return Landing::Value(value),
            Ok(Ok(SetOutcome::Refused(why))) => {
                self.tell(duty.key, EventKind::Refused(why));
                return if self.has(Bug::RefusalFails) {
                    Landing::Failed(shut_down())
                } else {
                    Landing::Value(value)
                };
            }
            Ok(Err(error)) => error,
            Err(Cut::Stopped) => shut_down(),
            Err(Cut::Deadline) => timeout(Operation::Set),
        };
        self.tell(duty.key, EventKind::StoreFailed(Operation::Set, &error));
        let strict = self.core.policy.strict && !self.has(Bug::StrictForgotten);
        let fails = (strict && !refresh) || self.has(Bug::SetErrorFails);
        if fails { Landing::Failed(error) } else { Landing::Value(value) }
    }
}
