//! A small engine: healthy, with one switch a bug.

mod course;
mod early;
mod handle;
mod many;
mod trouble;

use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::cache::background::{Alive, Cut};
use crate::cache::budget::Budget;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::{Cache, Patience};
use crate::entry::{Entry, Freshness};
use crate::error::{Error, Operation, Result};
use crate::store::{SetOutcome, Store};
use crate::sync::{Mutex, MutexGuard};
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

impl Flight {
    /// Waits until it has landed, or shows what may be served.
    async fn wait(&self, enough: impl Fn(&Entry<u64>) -> bool) -> Landing {
        poll_fn(|context| {
            let mut course = self.0.lock();
            if let Some(landing) = &course.landed {
                return Poll::Ready(landing.clone());
            }
            if let Some(shown) = course.shown.as_ref().filter(|shown| enough(shown)) {
                return Poll::Ready(Landing::Value(*shown.value()));
            }
            course.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn change(&self, all: bool, change: impl FnOnce(&mut Course)) {
        let mut course = self.0.lock();
        change(&mut course);
        let mut wakers = std::mem::take(&mut course.wakers);
        drop(course);
        if !all {
            wakers.truncate(1);
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Lands a flight, whatever becomes of its task.
struct Duty {
    base: Arc<Base>,
    key: Name,
    flight: Arc<Flight>,
    landed: AtomicBool,
}

impl Duty {
    fn land(&self, landing: Landing) {
        if self.landed.swap(true, Ordering::SeqCst) {
            return;
        }
        let bug = self.base.bug;
        let failed = matches!(landing, Landing::Failed(_));
        let panicked = matches!(landing, Landing::Panicked);
        let stays = match bug {
            Bug::FlightLeaks => true,
            Bug::FailedFlightStays => failed,
            Bug::PanickedFlightStays => panicked,
            _ => false,
        };
        if bug == Bug::PanicPoisons && panicked {
            self.base.core.background.leave();
            return;
        }
        if let (Bug::ErrorCached, Landing::Failed(error)) = (bug, &landing) {
            self.base.errors.lock().insert(self.key, error.clone());
        }
        if !stays && bug != Bug::UnmappedLate {
            self.base.leave(self.key, &self.flight);
        }
        self.flight.change(bug != Bug::WakesOne, |course| course.landed = Some(landing));
        self.base.core.background.leave();
    }

    fn shown(&self) -> Option<Entry<u64>> {
        let course = self.flight.0.lock();
        let shown = course.shown.clone().filter(|_| !course.fenced)?;
        drop(course);
        (self.base.judge(&shown, self.base.core.clock.now()) <= Freshness::Stale).then_some(shown)
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        let landing = self.shown().map_or(Landing::Gone, |entry| Landing::Value(*entry.value()));
        self.land(landing);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Set,
    Remove,
    Clear,
}

/// Fences while it lives.
struct Fence<'a>(&'a Base, Option<Name>, bool);

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table();
        match self.1 {
            Some(key) => {
                if let Some(slot) = table.slots.get_mut(&key) {
                    slot.writers -= 1;
                }
            }
            None => table.clearing -= 1,
        }
        if self.2 {
            self.0.overtake(&mut table, self.1);
        }
        table.tidy();
    }
}

impl Table {
    fn tidy(&mut self) {
        self.slots.retain(|_, slot| slot.flight.is_some() || !slot.storing.is_empty() || slot.writers > 0);
    }
}

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

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// The place of a key in the table.
    fn place_of(&self, key: Name) -> Name {
        match self.bug {
            Bug::OneFlightForAll => Name(0),
            Bug::HashForKey => Name(key.0 / 2),
            _ => key,
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

    /// Joins the flight of the key, or begins one.
    fn join(&self, key: Name) -> (Arc<Flight>, bool) {
        let mut table = self.table();
        let clearing = table.clearing > 0;
        let slot = table.slots.entry(self.place_of(key)).or_default();
        let refreshing = |flight: &Arc<Flight>| flight.0.lock().shown.is_some();
        if let Some(flight) = &slot.flight
            && !(matches!(self.bug, Bug::RefreshNotCoalesced | Bug::EarlyNotCoalesced) && refreshing(flight))
        {
            flight.1.fetch_add(1, Ordering::SeqCst);
            return (Arc::clone(flight), false);
        }
        let fenced =
            (slot.writers > 0 || clearing || !slot.storing.is_empty()) && !self.has(Bug::BornUnfenced);
        let flight =
            Arc::new(Flight(Mutex::new(Course { fenced, ..Course::default() }), AtomicUsize::new(1)));
        slot.flight = Some(Arc::clone(&flight));
        (flight, true)
    }

    fn leave(&self, key: Name, flight: &Arc<Flight>) {
        let mut table = self.table();
        if let Some(slot) = table.slots.get_mut(&self.place_of(key)) {
            slot.flight.take_if(|held| Arc::ptr_eq(held, flight));
            slot.storing.retain(|held| !Arc::ptr_eq(held, flight));
        }
        table.tidy();
    }

    /// Overtakes the flights of a key, or of all; says which of them are storing.
    fn overtake(&self, table: &mut Table, key: Option<Name>) -> Vec<Arc<Flight>> {
        let mut storing = Vec::new();
        for (place, slot) in &mut table.slots {
            let half = key.is_none() && self.has(Bug::ClearFencesHalf) && place.0 < 2;
            if key.is_some_and(|key| self.place_of(key) != *place) || half {
                continue;
            }
            if let Some(flight) = slot.flight.take() {
                let mut course = flight.0.lock();
                course.fenced = true;
                let stores = course.storing;
                drop(course);
                if stores {
                    slot.storing.push(Arc::clone(&flight));
                }
                if self.has(Bug::FencedJoinable) {
                    slot.flight = Some(flight);
                }
            }
            storing.extend(slot.storing.iter().cloned());
        }
        storing
    }

    fn begin_fence(&self, key: Option<Name>, write: Write) -> (Fence<'_>, Vec<Arc<Flight>>) {
        let unfenced = match write {
            Write::Set => self.has(Bug::SetDoesNotFence),
            Write::Remove => self.has(Bug::RemoveDoesNotFence),
            Write::Clear => self.has(Bug::ClearDoesNotFence),
        };
        let once = self.has(if write == Write::Clear { Bug::ClearFencesOnce } else { Bug::WriteFencesOnce });
        let late = self.has(Bug::FencesAfterOnly);
        let mut table = self.table();
        match key {
            Some(key) => table.slots.entry(self.place_of(key)).or_default().writers += 1,
            None => table.clearing += 1,
        }
        let storing = if unfenced || late { Vec::new() } else { self.overtake(&mut table, key) };
        (Fence(self, key.map(|key| self.place_of(key)), !unfenced && !once), storing)
    }

    async fn fence(&self, key: Option<Name>, write: Write) -> Fence<'_> {
        let (fence, storing) = self.begin_fence(key, write);
        for flight in storing {
            if !self.has(Bug::WriteDoesNotWait) {
                flight.wait(|_| false).await;
            }
        }
        fence
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
