//! The table of running computations: one flight per key, and the fences that overtake it.

use std::any::Any;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slots;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use tokio::sync::watch;

use crate::cache::tags::Record;
use crate::entry::Entry;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard};

const SHARDS: usize = 64;

/// One running computation. Whoever waits holds an `Arc` of it; the table holds one while it is joinable.
pub(crate) struct Flight<V> {
    state: watch::Sender<State<V>>,
    claim: Mutex<Claim>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// The last invalidation of tags before it could be joined.
    born: Arc<Record>,
}

/// How far a flight is, as its waiters see it.
#[derive(Clone)]
pub(crate) enum State<V> {
    /// Reading the store, or computing with nothing to serve meanwhile.
    Running,
    /// Computing, while this entry is served: stale, or fresh and due.
    Refreshing(Entry<V>),
    /// Over.
    Landed(Landing<V>),
}

/// How a flight ended.
#[derive(Clone)]
pub(crate) enum Landing<V> {
    /// The store held it.
    Found(Entry<V>),
    /// It was computed, or stands in for what could not be.
    Value(Entry<V>),
    Failed(Error),
    /// The payload lies in the flight, for the caller that ran it.
    Panicked,
    /// The task was dropped: no runtime, or the runtime went away.
    Vanished,
}

/// Who may write the store: the flight, or whoever overtook it.
#[derive(Default)]
struct Claim {
    /// Overtaken by a write: its result must not be stored.
    fenced: bool,
    storing: bool,
}

impl<V: Clone> Flight<V> {
    fn new(fenced: bool, born: Arc<Record>) -> Self {
        Self {
            state: watch::Sender::new(State::Running),
            claim: Mutex::new(Claim { fenced, storing: false }),
            panic: Mutex::new(None),
            born,
        }
    }

    /// Asks for the right to store the result. Once given, a write of the key waits for the landing.
    pub(crate) fn may_store(&self) -> bool {
        let mut claim = self.claim.lock();
        claim.storing = !claim.fenced;
        claim.storing
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.claim.lock().fenced
    }

    /// Overtakes the flight. `true` if it is storing its result right now.
    fn fence(&self) -> bool {
        let mut claim = self.claim.lock();
        claim.fenced = true;
        claim.storing
    }

    pub(crate) fn is_refreshing(&self) -> bool {
        matches!(&*self.state.borrow(), State::Refreshing(_))
    }

    /// The entry that is served while a refresh computes.
    pub(crate) fn stale(&self) -> Option<Entry<V>> {
        match &*self.state.borrow() {
            State::Refreshing(entry) => Some(entry.clone()),
            _ => None,
        }
    }

    pub(crate) fn refresh_behind(&self, stale: Entry<V>) {
        self.state.send_replace(State::Refreshing(stale));
    }

    /// The last invalidation of tags before it could be joined.
    pub(crate) const fn born(&self) -> &Arc<Record> {
        &self.born
    }

    pub(crate) fn land(&self, landing: Landing<V>) {
        self.state.send_replace(State::Landed(landing));
    }

    pub(crate) fn leave_panic(&self, payload: Box<dyn Any + Send>) {
        *self.panic.lock() = Some(payload);
    }

    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.panic.lock().take()
    }

    /// What the store held, if the flight has landed with that.
    pub(crate) fn found(&self) -> Option<Entry<V>> {
        match &*self.state.borrow() {
            State::Landed(Landing::Found(entry)) => Some(entry.clone()),
            _ => None,
        }
    }

    /// Waits until the flight shows what `enough` accepts, or has landed.
    pub(crate) async fn shows(&self, enough: impl Fn(&State<V>) -> bool) -> State<V> {
        let mut states = self.state.subscribe();
        let seen = states.wait_for(|state| matches!(state, State::Landed(_)) || enough(state)).await;
        // The sender lives in `self`, so the wait cannot fail.
        seen.map_or(State::Landed(Landing::Vanished), |state| state.clone())
    }

    async fn landed(&self) {
        self.shows(|_| false).await;
    }
}

/// What the table keeps of a key while anything goes on there.
struct Slot<V> {
    /// The flight that callers may join.
    flight: Option<Arc<Flight<V>>>,
    /// Overtaken flights that are still storing; a write waits for them.
    storing: Vec<Arc<Flight<V>>>,
    /// Writes that have begun and not ended.
    writers: usize,
}

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Self { flight: None, storing: Vec::new(), writers: 0 }
    }
}

impl<V: Clone> Slot<V> {
    fn is_idle(&self) -> bool {
        self.flight.is_none() && self.storing.is_empty() && self.writers == 0
    }

    /// Overtakes the flight: nobody joins it any more, and it stores nothing unless it is at it.
    fn overtake(&mut self) {
        if let Some(flight) = self.flight.take()
            && flight.fence()
        {
            self.storing.push(flight);
        }
    }
}

pub(crate) enum Joined<V> {
    /// The caller is to run this flight.
    Lead(Arc<Flight<V>>),
    /// Another caller runs it.
    Follow(Arc<Flight<V>>),
}

type Table<O, V> = HashMap<O, Slot<V>, RandomState>;

pub(crate) struct Flights<O, V> {
    hasher: RandomState,
    shards: Box<[Mutex<Table<O, V>>]>,
    /// Clears that have begun and not ended.
    clearing: AtomicUsize,
}

impl<O: Hash + Eq + Clone, V: Clone> Flights<O, V> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            clearing: AtomicUsize::new(0),
        }
    }

    fn shard<K: Hash + ?Sized>(&self, key: &K) -> MutexGuard<'_, Table<O, V>> {
        self.shards[(self.hasher.hash_one(key) >> 58) as usize].lock()
    }

    /// Whether a refresh of `key` is running.
    pub(crate) fn is_refreshing<K>(&self, key: &K) -> bool
    where
        O: Borrow<K>,
        K: Hash + Eq + ?Sized,
    {
        let shard = self.shard(key);
        shard.get(key).and_then(|slot| slot.flight.as_ref()).is_some_and(|flight| flight.is_refreshing())
    }

    /// Whether anything is on its way for `key`.
    pub(crate) fn is_flying<K>(&self, key: &K) -> bool
    where
        O: Borrow<K>,
        K: Hash + Eq + ?Sized,
    {
        self.shard(key).get(key).is_some_and(|slot| slot.flight.is_some())
    }

    /// Joins the flight of `key`, or begins one. One that begins beside a write is overtaken from birth:
    /// what it computes is given to its waiters and not stored.
    pub(crate) fn join<K>(&self, key: &K, arrived: &Arc<Record>) -> Joined<V>
    where
        O: Borrow<K>,
        K: Hash + Eq + ToOwned<Owned = O> + ?Sized,
    {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(key).and_then(|slot| slot.flight.as_ref()) {
            return Joined::Follow(Arc::clone(flight));
        }
        let slot = shard.entry(key.to_owned()).or_default();
        let fenced = slot.writers > 0 || !slot.storing.is_empty() || self.clearing.load(Ordering::SeqCst) > 0;
        let flight = Arc::new(Flight::new(fenced, Arc::clone(arrived)));
        slot.flight = Some(Arc::clone(&flight));
        Joined::Lead(flight)
    }

    /// Takes a flight out of the table, before its result is published.
    pub(crate) fn leave(&self, key: &O, flight: &Arc<Flight<V>>) {
        let mut shard = self.shard(key);
        if let Slots::Occupied(mut slot) = shard.entry(key.clone()) {
            let held = slot.get_mut();
            if held.flight.as_ref().is_some_and(|held| Arc::ptr_eq(held, flight)) {
                held.flight = None;
            }
            held.storing.retain(|held| !Arc::ptr_eq(held, flight));
            if held.is_idle() {
                slot.remove();
            }
        }
    }

    /// Begins a write of `key`: overtakes its flight, and says which flights must land first.
    fn begin_write(&self, key: O) -> Vec<Arc<Flight<V>>> {
        let mut shard = self.shard(&key);
        let slot = shard.entry(key).or_default();
        slot.writers += 1;
        slot.overtake();
        slot.storing.clone()
    }

    /// Ends a write of `key`: overtakes what began beside it.
    fn end_write(&self, key: O) {
        let mut shard = self.shard(&key);
        if let Slots::Occupied(mut slot) = shard.entry(key) {
            let held = slot.get_mut();
            held.writers -= 1;
            held.overtake();
            if held.is_idle() {
                slot.remove();
            }
        }
    }

    /// Overtakes every flight, and says which ones are storing.
    fn overtake_all(&self) -> Vec<Arc<Flight<V>>> {
        let mut storing = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|_, slot| {
                slot.overtake();
                storing.extend(slot.storing.iter().cloned());
                !slot.is_idle()
            });
        }
        storing
    }

    /// Fences `key` while the guard lives, and waits until no earlier result is on its way to the store.
    pub(crate) async fn write(&self, key: O) -> WriteGuard<'_, O, V> {
        let before = self.begin_write(key.clone());
        let guard = WriteGuard { flights: self, key: Some(key) };
        for flight in before {
            flight.landed().await;
        }
        guard
    }

    /// The same for each of these keys. All are fenced before the first is waited for.
    pub(crate) async fn write_many(&self, keys: impl Iterator<Item = O>) -> Vec<WriteGuard<'_, O, V>> {
        let mut before = Vec::new();
        let mut guards = Vec::with_capacity(keys.size_hint().0);
        for key in keys {
            before.append(&mut self.begin_write(key.clone()));
            guards.push(WriteGuard { flights: self, key: Some(key) });
        }
        for flight in before {
            flight.landed().await;
        }
        guards
    }

    /// The same for all keys.
    pub(crate) async fn write_all(&self) -> WriteGuard<'_, O, V> {
        self.clearing.fetch_add(1, Ordering::SeqCst);
        let guard = WriteGuard { flights: self, key: None };
        for flight in self.overtake_all() {
            flight.landed().await;
        }
        guard
    }

    /// Whether nothing goes on.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.shards.iter().all(|shard| shard.lock().is_empty())
    }
}

/// A write in progress. Its end overtakes the flights that began beside it, also when it was dropped.
pub(crate) struct WriteGuard<'a, O: Hash + Eq + Clone, V: Clone> {
    flights: &'a Flights<O, V>,
    key: Option<O>,
}

impl<O: Hash + Eq + Clone, V: Clone> Drop for WriteGuard<'_, O, V> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.flights.end_write(key);
        } else {
            // In this order: whatever was born beside the clear is still there to be overtaken.
            self.flights.clearing.fetch_sub(1, Ordering::SeqCst);
            self.flights.overtake_all();
        }
    }
}
