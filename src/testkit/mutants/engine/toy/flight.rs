//! The flights of the toy: who joins them, how they land, what fences them.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use super::{Base, Course, Duty, Fence, Flight, Landing, Table, Write};
use crate::entry::{Entry, Freshness};
use crate::sync::{Mutex, MutexGuard};
use crate::testkit::engine::Name;
use crate::testkit::mutants::engine::Bug;

impl Base {
    /// Joins the flight of the key, or begins one.
    pub(super) fn join(&self, key: Name) -> (Arc<Flight>, bool) {
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

    pub(super) fn leave(&self, key: Name, flight: &Arc<Flight>) {
        let mut table = self.table();
        if let Some(slot) = table.slots.get_mut(&self.place_of(key)) {
            slot.flight.take_if(|held| Arc::ptr_eq(held, flight));
            slot.storing.retain(|held| !Arc::ptr_eq(held, flight));
        }
        table.tidy();
    }

    pub(super) async fn fence(&self, key: Option<Name>, write: Write) -> Fence<'_> {
        let (fence, storing) = self.begin_fence(key, write);
        for flight in storing {
            if !self.has(Bug::WriteDoesNotWait) {
                flight.wait(|_| false).await;
            }
        }
        fence
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

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// The place of a key in the table.
    pub(super) fn place_of(&self, key: Name) -> Name {
        match self.bug {
            Bug::OneFlightForAll => Name(0),
            Bug::HashForKey => Name(key.0 / 2),
            _ => key,
        }
    }
}

impl Flight {
    /// Waits until it has landed, or shows what may be served.
    pub(super) async fn wait(&self, enough: impl Fn(&Entry<u64>) -> bool) -> Landing {
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

    pub(super) fn change(&self, all: bool, change: impl FnOnce(&mut Course)) {
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

impl Duty {
    pub(super) fn land(&self, landing: Landing) {
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

    pub(super) fn shown(&self) -> Option<Entry<u64>> {
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
    pub(super) fn tidy(&mut self) {
        self.slots.retain(|_, slot| slot.flight.is_some() || !slot.storing.is_empty() || slot.writers > 0);
    }
}
