//! The table of running computations: one flight per key, and the fences that overtake it.

use std::any::Any;
use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use tokio::sync::Notify;

use crate::cache::tags::Record;
use crate::entry::Entry;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard, RwLock};

const SHARDS: usize = 64;

/// One running computation. Whoever waits holds an `Arc` of it; the table holds one while it is joinable.
pub(crate) struct Flight<V> {
    course: RwLock<Course<V>>,
    /// What the computation panicked with, for the caller that ran it.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Wakes whoever waits for another state.
    changed: Notify,
    /// Callers that are there for the outcome.
    callers: AtomicUsize,
    /// The last invalidation of tags before it could be joined.
    born: Arc<Record>,
    /// Of its key.
    hash: u64,
}

/// How far a flight is, as its waiters see it.
#[derive(Clone)]
pub(crate) enum State<V> {
    /// Reading the store, or computing with nothing to serve meanwhile.
    Running,
    /// Computing while its callers wait, though this entry is held: past its windows, and good for whoever loses
    /// patience (E20).
    Loading(Entry<V>),
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

/// How far a flight is, and who may write the store: the flight, or whoever overtook it.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Course<V> {
    state: State<V>,
    /// Overtaken by a write: its result must not be stored.
    fenced: bool,
    storing: bool,
    /// Nobody wants the outcome: the task ends at its next poll (E20).
    given_up: bool,
    /// A computation waits for this one, so it needs no place (E21).
    excused: bool,
    /// Whether the task has not seen one of these yet, and how to wake it.
    news: bool,
    task: Option<Waker>,
}

impl<V: Clone> Flight<V> {
    fn new(fenced: bool, born: Arc<Record>, hash: u64) -> Self {
        let course = Course {
            state: State::Running,
            fenced,
            storing: false,
            given_up: false,
            excused: false,
            news: false,
            task: None,
        };
        let (changed, callers) = (Notify::new(), AtomicUsize::new(0));
        Self { course: RwLock::new(course), panic: Mutex::new(None), changed, callers, born, hash }
    }

    /// Asks for the right to store the result. Once given, a write of the key waits for the landing.
    pub(crate) fn may_store(&self) -> bool {
        let mut course = self.course.write();
        course.storing = !course.fenced;
        course.storing
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.course.read().fenced
    }

    /// Overtakes the flight. `true` if it is storing its result right now.
    fn fence(&self) -> bool {
        let mut course = self.course.write();
        course.fenced = true;
        course.storing
    }

    pub(crate) fn is_refreshing(&self) -> bool {
        matches!(self.course.read().state, State::Refreshing(_))
    }

    /// The entry that is served while a refresh computes.
    pub(crate) fn stale(&self) -> Option<Entry<V>> {
        match &self.course.read().state {
            State::Refreshing(entry) => Some(entry.clone()),
            _ => None,
        }
    }

    /// Shows an entry to callers who may lose patience.
    pub(crate) fn load_beside(&self, held: Entry<V>) {
        self.turn_to(State::Loading(held));
    }

    /// One caller more, until the guard goes.
    pub(crate) fn caller(self: &Arc<Self>) -> Caller<V> {
        Caller(Arc::clone(self))
    }

    /// Runs `work` unless a write has overtaken the flight; a write that comes now waits for its end.
    pub(crate) fn unless_fenced(&self, work: impl FnOnce()) {
        let course = self.course.write();
        if !course.fenced {
            work();
        }
    }

    /// Nobody has to wait for a place any more on account of this flight.
    pub(crate) fn excuse(&self) {
        let task = {
            let mut course = self.course.write();
            course.news |= !std::mem::replace(&mut course.excused, true);
            course.task.take()
        };
        task.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_excused(&self) -> bool {
        self.course.read().excused
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.course.read().given_up
    }

    /// Remembers whom to wake when the flight is given up or excused. `true` if that has just happened.
    pub(crate) fn has_news(&self, task: &Waker) -> bool {
        let mut course = self.course.write();
        if !course.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            course.task = Some(task.clone());
        }
        std::mem::take(&mut course.news)
    }

    /// Ends the task, unless it is storing or over already.
    fn give_up(&self) -> bool {
        let task = {
            let mut course = self.course.write();
            if course.storing || course.given_up || matches!(course.state, State::Landed(_)) {
                return false;
            }
            course.given_up = true;
            course.news = true;
            course.fenced = true;
            course.task.take()
        };
        task.into_iter().for_each(Waker::wake);
        true
    }

    pub(crate) fn refresh_behind(&self, stale: Entry<V>) {
        self.turn_to(State::Refreshing(stale));
    }

    /// The last invalidation of tags before it could be joined.
    pub(crate) const fn born(&self) -> &Arc<Record> {
        &self.born
    }

    pub(crate) fn land(&self, landing: Landing<V>) {
        self.turn_to(State::Landed(landing));
    }

    pub(crate) fn leave_panic(&self, payload: Box<dyn Any + Send>) {
        *self.panic.lock() = Some(payload);
    }

    pub(crate) fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        self.panic.lock().take()
    }

    /// What the store held, if the flight has landed with that.
    pub(crate) fn found(&self) -> Option<Entry<V>> {
        match &self.course.read().state {
            State::Landed(Landing::Found(entry)) => Some(entry.clone()),
            _ => None,
        }
    }

    /// Waits until the flight shows what `enough` accepts, or has landed. `enough` is told whether the flight is
    /// overtaken; it runs under the flight's lock, and must not ask the flight itself.
    pub(crate) async fn shows(&self, enough: impl Fn(&State<V>, bool) -> bool) -> State<V> {
        let shown = || {
            let course = self.course.read();
            let shows = matches!(course.state, State::Landed(_)) || enough(&course.state, course.fenced);
            shows.then(|| course.state.clone())
        };
        if let Some(state) = shown() {
            return state;
        }
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on a change wakes it, so none is missed between the look and the wait.
            changed.as_mut().enable();
            if let Some(state) = shown() {
                return state;
            }
            changed.await;
        }
    }

    fn turn_to(&self, state: State<V>) {
        // What was shown before is dropped outside the lock: that runs the caller's code.
        let _before = std::mem::replace(&mut self.course.write().state, state);
        self.changed.notify_waiters();
    }
}

/// Waits until all of these are over.
async fn landed<V: Clone>(flights: Vec<Arc<Flight<V>>>) {
    for flight in flights {
        flight.shows(|_, _| false).await;
    }
}

/// A caller that is there for the outcome of a flight. `Flights::join` counted it.
pub(crate) struct Caller<V>(Arc<Flight<V>>);

impl<V> Drop for Caller<V> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the table keeps of a key while a flight goes on there.
struct Slot<O, V> {
    key: O,
    /// The flight that callers may join.
    flight: Option<Arc<Flight<V>>>,
    /// Overtaken flights that are still storing; a write waits for them.
    storing: Vec<Arc<Flight<V>>>,
}

impl<O, V: Clone> Slot<O, V> {
    fn is_idle(&self) -> bool {
        self.flight.is_none() && self.storing.is_empty()
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

/// What goes on with the keys of a shard.
struct Table<O, V> {
    slots: HashTable<Slot<O, V>>,
    /// The keys, with their hashes, whose writes have begun and not ended, as often as they are written at once. Most
    /// of the time there is one at most.
    writing: Option<(u64, O)>,
    also_writing: HashTable<(u64, O)>,
}

impl<O, V> Default for Table<O, V> {
    fn default() -> Self {
        Self { slots: HashTable::new(), writing: None, also_writing: HashTable::new() }
    }
}

impl<O, V: Clone> Table<O, V> {
    fn get<K: Eq + ?Sized>(&self, key: &K, hash: u64) -> Option<&Slot<O, V>>
    where
        O: Borrow<K>,
    {
        self.slots.find(hash, |slot| slot.key.borrow() == key)
    }

    fn begin_write(&mut self, key: O, hash: u64) {
        if self.writing.is_none() {
            self.writing = Some((hash, key));
        } else {
            self.also_writing.insert_unique(hash, (hash, key), |(hash, _)| *hash);
        }
    }

    /// One write of `key` less.
    fn end_write<K: Eq + ?Sized>(&mut self, key: &K, hash: u64) -> Option<O>
    where
        O: Borrow<K>,
    {
        if let Some((_, owned)) =
            self.writing.take_if(|(other, owned)| *other == hash && (*owned).borrow() == key)
        {
            return Some(owned);
        }
        let found = self.also_writing.find_entry(hash, |(_, owned)| owned.borrow() == key).ok()?;
        Some(found.remove().0.1)
    }

    fn is_written<K: Eq + ?Sized>(&self, key: &K, hash: u64) -> bool
    where
        O: Borrow<K>,
    {
        let first =
            self.writing.as_ref().is_some_and(|(other, owned)| *other == hash && owned.borrow() == key);
        first || self.also_writing.find(hash, |(_, owned)| owned.borrow() == key).is_some()
    }

    /// Changes the slot of `key`, if there is one, and drops it if nothing goes on there any more.
    fn change<K: Eq + ?Sized, R>(
        &mut self,
        key: &K,
        hash: u64,
        change: impl FnOnce(&mut Slot<O, V>) -> R,
    ) -> Option<R>
    where
        O: Borrow<K>,
    {
        if self.slots.is_empty() {
            return None;
        }
        let mut found = self.slots.find_entry(hash, |slot| slot.key.borrow() == key).ok()?;
        let outcome = change(found.get_mut());
        if found.get().is_idle() {
            found.remove();
        }
        Some(outcome)
    }
}

pub(crate) enum Joined<V> {
    /// The caller is to run this flight. It is counted among the callers until [`Flight::caller`] is dropped.
    Lead(Arc<Flight<V>>),
    /// Another caller runs it. Counted likewise.
    Follow(Arc<Flight<V>>),
}

pub(crate) struct Flights<O, V> {
    hasher: RandomState,
    shards: Box<[Mutex<Table<O, V>>]>,
    /// Clears that have begun and not ended.
    clearing: AtomicUsize,
}

impl<O: Hash + Eq, V: Clone> Flights<O, V> {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            clearing: AtomicUsize::new(0),
        }
    }

    /// The table takes its bits from both ends.
    fn shard(&self, hash: u64) -> MutexGuard<'_, Table<O, V>> {
        self.shards[(hash >> 40) as usize % SHARDS].lock()
    }

    /// Whether there is a flight of `key` to join.
    pub(crate) fn flies<K>(&self, key: &K) -> bool
    where
        O: Borrow<K>,
        K: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        self.shard(hash).get(key, hash).is_some_and(|slot| slot.flight.is_some())
    }

    /// Joins the flight of `key`, or begins one. One that begins beside a write is overtaken from birth:
    /// what it computes is given to its waiters and not stored.
    pub(crate) fn join<K>(&self, key: &K, arrived: &Arc<Record>) -> Joined<V>
    where
        O: Borrow<K>,
        K: Hash + Eq + ToOwned<Owned = O> + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash);
        let written = shard.is_written(key, hash) || self.clearing.load(Ordering::SeqCst) > 0;
        let begin = |fenced: bool| {
            let fenced = fenced || written;
            let flight = Arc::new(Flight::new(fenced, Arc::clone(arrived), hash));
            flight.callers.fetch_add(1, Ordering::SeqCst);
            flight
        };
        if let Some(slot) = shard.slots.find_mut(hash, |slot| slot.key.borrow() == key) {
            if let Some(flight) = &slot.flight {
                flight.callers.fetch_add(1, Ordering::SeqCst);
                return Joined::Follow(Arc::clone(flight));
            }
            let flight = begin(!slot.storing.is_empty());
            slot.flight = Some(Arc::clone(&flight));
            return Joined::Lead(flight);
        }
        let flight = begin(false);
        let slot = Slot { key: key.to_owned(), flight: Some(Arc::clone(&flight)), storing: Vec::new() };
        shard.slots.insert_unique(hash, slot, |slot| self.hasher.hash_one(&slot.key));
        Joined::Lead(flight)
    }

    /// Gives up a load for which nobody waits any more: its key is free at once. `false` if it goes on.
    pub(crate) fn give_up<K>(&self, key: &K, flight: &Arc<Flight<V>>) -> bool
    where
        O: Borrow<K>,
        K: Hash + Eq + ?Sized,
    {
        // Nobody joins meanwhile.
        let mut shard = self.shard(flight.hash);
        if flight.callers.load(Ordering::SeqCst) > 0 || flight.is_refreshing() || !flight.give_up() {
            return false;
        }
        shard.change(key, flight.hash, |slot| slot.flight.take_if(|held| Arc::ptr_eq(held, flight)));
        true
    }

    /// Takes a flight out of the table, before its result is published.
    pub(crate) fn leave(&self, key: &O, flight: &Arc<Flight<V>>) {
        self.shard(flight.hash).change(key, flight.hash, |slot| {
            slot.flight.take_if(|held| Arc::ptr_eq(held, flight));
            slot.storing.retain(|held| !Arc::ptr_eq(held, flight));
        });
    }

    /// Begins a write of `key`: overtakes its flight, and says which flights must land first.
    fn begin_write<K>(&self, key: &K, hash: u64) -> Vec<Arc<Flight<V>>>
    where
        O: Borrow<K>,
        K: Eq + ToOwned<Owned = O> + ?Sized,
    {
        let owned = key.to_owned();
        let mut shard = self.shard(hash);
        shard.begin_write(owned, hash);
        let before = shard.change(key, hash, |slot| {
            slot.overtake();
            slot.storing.clone()
        });
        before.unwrap_or_default()
    }

    /// Ends a write of `key`: overtakes what began beside it.
    fn end_write<K>(&self, key: &K, hash: u64)
    where
        O: Borrow<K>,
        K: Eq + ?Sized,
    {
        let mut shard = self.shard(hash);
        let written = shard.end_write(key, hash);
        shard.change(key, hash, Slot::overtake);
        drop(shard);
        // The caller's code, and not under the lock.
        drop(written);
    }

    /// Overtakes every flight, and says which ones are storing.
    fn overtake_all(&self) -> Vec<Arc<Flight<V>>> {
        let mut storing = Vec::new();
        for shard in &self.shards {
            shard.lock().slots.retain(|slot| {
                slot.overtake();
                storing.extend(slot.storing.iter().cloned());
                !slot.is_idle()
            });
        }
        storing
    }

    /// Fences each of these keys while its guard lives, and waits until no earlier result is on its way to the store.
    /// All are fenced before the first is waited for.
    pub(crate) async fn write_many<'a, K>(
        &'a self,
        keys: impl Iterator<Item = &'a K>,
    ) -> Vec<WriteGuard<'a, K, O, V>>
    where
        O: Borrow<K>,
        K: Hash + Eq + ToOwned<Owned = O> + ?Sized + 'a,
    {
        let mut guards: Vec<_> = keys.map(|key| self.fence(key)).collect();
        for guard in &mut guards {
            guard.landed().await;
        }
        guards
    }

    /// Fences `key` while the guard lives. What is storing an earlier result must have
    /// [landed](WriteGuard::landed) before the write goes to the store.
    #[inline]
    pub(crate) fn fence<'a, K>(&'a self, key: &'a K) -> WriteGuard<'a, K, O, V>
    where
        O: Borrow<K>,
        K: Hash + Eq + ToOwned<Owned = O> + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        WriteGuard { before: self.begin_write(key, hash), flights: self, key, hash }
    }

    /// The same for all keys.
    pub(crate) async fn write_all(&self) -> ClearGuard<'_, O, V> {
        self.clearing.fetch_add(1, Ordering::SeqCst);
        let guard = ClearGuard(self);
        landed(self.overtake_all()).await;
        guard
    }

    /// Whether nothing goes on.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn is_idle(&self) -> bool {
        self.shards.iter().all(|shard| {
            let table = shard.lock();
            table.slots.is_empty() && table.writing.is_none() && table.also_writing.is_empty()
        })
    }
}

/// A write in progress. Its end overtakes the flights that began beside it, also when it was dropped.
pub(crate) struct WriteGuard<'a, K: Eq + ?Sized, O: Borrow<K> + Hash + Eq, V: Clone> {
    flights: &'a Flights<O, V>,
    key: &'a K,
    hash: u64,
    before: Vec<Arc<Flight<V>>>,
}

impl<K: Eq + ?Sized, O: Borrow<K> + Hash + Eq, V: Clone> WriteGuard<'_, K, O, V> {
    /// Whether an earlier result is on its way to the store.
    #[inline]
    pub(crate) const fn waits(&self) -> bool {
        !self.before.is_empty()
    }

    /// Waits until none is.
    pub(crate) async fn landed(&mut self) {
        landed(std::mem::take(&mut self.before)).await;
    }
}

impl<K: Eq + ?Sized, O: Borrow<K> + Hash + Eq, V: Clone> Drop for WriteGuard<'_, K, O, V> {
    fn drop(&mut self) {
        self.flights.end_write(self.key, self.hash);
    }
}

/// The same for a write of all keys.
pub(crate) struct ClearGuard<'a, O: Hash + Eq, V: Clone>(&'a Flights<O, V>);

impl<O: Hash + Eq, V: Clone> Drop for ClearGuard<'_, O, V> {
    fn drop(&mut self) {
        // In this order: whatever was born beside the clear is still there to be overtaken.
        self.0.clearing.fetch_sub(1, Ordering::SeqCst);
        self.0.overtake_all();
    }
}
