//! Law E15: a batch equals its single calls in some order.

use std::collections::HashSet;
use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::alloc::allocations;
use super::bench::{Events, SECOND, TICK, memory, remote};
use super::ready;
use super::rig::Tier;
use crate::adapters::Chain;
use crate::cache::{Answers, BatchLoader, Cache, CacheBuilder};
use crate::describe::Description;
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::{Fault, Gate, Schedule, Sim, Task, explore, schedules, yield_now};
use crate::time::{Clock, ManualClock, Timestamp};
use crate::{Memory, Null, Sharded, StoreExt};

pub(super) const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A stack, and which of its calls came.
#[derive(Clone)]
pub(super) struct Counted {
    store: Arc<BoxStore<str, u64>>,
    calls: Arc<Mutex<Vec<(Operation, usize)>>>,
}

impl Counted {
    pub(super) fn over(store: impl Store<Key = str, Value = u64> + 'static) -> Self {
        Self { store: Arc::new(store.boxed()), calls: Arc::default() }
    }

    fn called(&self, operation: Operation, keys: usize) {
        self.calls.lock().push((operation, keys));
    }

    pub(super) fn sets(&self) -> usize {
        self.calls.lock().iter().filter(|(of, _)| *of == Operation::Set).count()
    }

    /// How many keys each call of this operation had, since the last time that was asked.
    fn take(&self, operation: Operation) -> Vec<usize> {
        let mut calls = self.calls.lock();
        let taken = calls.iter().filter(|(of, _)| *of == operation).map(|(_, keys)| *keys).collect();
        calls.retain(|(of, _)| *of != operation);
        taken
    }
}

impl Store for Counted {
    type Key = str;
    type Value = u64;

    async fn get(&self, key: &str) -> Result<Option<Entry<u64>>> {
        self.called(Operation::Get, 1);
        self.store.get(key).await
    }

    async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.called(Operation::Set, 1);
        self.store.set(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.called(Operation::Remove, 1);
        self.store.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.store.clear().await
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Result<Option<Entry<u64>>> {
        self.called(Operation::Get, 1);
        self.store.get_at(key, now).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<u64>) -> R) -> Option<R> {
        self.store.peek_with(key, read)
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Result<Option<Entry<u64>>>> {
        self.called(Operation::Get, keys.len());
        self.store.get_many(keys, now).await
    }

    async fn set_many(&self, entries: &[(&str, Entry<u64>)]) -> Vec<Result<SetOutcome>> {
        self.called(Operation::Set, entries.len());
        self.store.set_many(entries).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        self.called(Operation::Remove, keys.len());
        self.store.remove_many(keys).await
    }

    fn describe(&self) -> Description {
        self.store.describe()
    }
}

/// How a computation goes.
#[derive(Clone, Debug)]
pub(super) enum How {
    /// It lets the others run this often and answers.
    Answer(usize),
    Fail(usize),
    Panic(usize),
    Hang,
    /// It waits at the gate and answers.
    Wait(Gate),
    /// It answers for all but this key.
    Forget(&'static str),
    /// It fails for this key alone.
    FailOne(&'static str),
    /// It answers for this key too.
    Extra(&'static str),
}

/// What is cached. The value of a key tells which key it is of.
#[derive(Clone, Default)]
pub(super) struct Origin {
    values: Arc<AtomicU64>,
    calls: Arc<Mutex<Vec<Vec<String>>>>,
    running: Arc<Mutex<HashSet<String>>>,
    watch: Arc<Mutex<Option<Box<Watch>>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

type Watch = dyn Fn(&[String]) + Send;

impl Origin {
    /// Shows the keys of each computation that begins.
    pub(super) fn on_begin(&self, watch: impl Fn(&[String]) + Send + 'static) {
        *self.watch.lock() = Some(Box::new(watch));
    }

    fn place(key: &str) -> u64 {
        KEYS.iter().position(|known| *known == key).unwrap_or(9) as u64
    }

    /// The keys of each computation so far.
    pub(super) fn take(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn value(&self, key: &str) -> u64 {
        (self.values.fetch_add(1, Ordering::SeqCst) + 1) * 10 + Self::place(key)
    }

    fn begin(&self, keys: &[String]) -> Running {
        self.calls.lock().push(keys.to_vec());
        if let Some(watch) = &*self.watch.lock() {
            watch(keys);
        }
        let mut running = self.running.lock();
        for key in keys {
            if !running.insert(key.clone()) {
                self.wrong.lock().push(format!("{key} is computed twice at once"));
            }
        }
        Running(self.clone(), keys.to_vec())
    }

    pub(super) fn many(
        &self,
        how: How,
    ) -> impl Fn(Vec<String>) -> BoxFuture<'static, std::result::Result<Answers<String, u64>, std::io::Error>>
    + Send
    + Sync
    + 'static {
        let origin = self.clone();
        move |keys| {
            let (origin, how) = (origin.clone(), how.clone());
            Box::pin(async move {
                let _running = origin.begin(&keys);
                // Drawn at the beginning: whatever is written from here on is newer.
                let mut answers: Answers<_, _> =
                    keys.iter().map(|key| (key.clone(), origin.value(key))).collect();
                match &how {
                    How::Answer(yields) | How::Fail(yields) | How::Panic(yields) => {
                        // The engine polls what it bounds twice at first, so that one yield alone interleaves nothing.
                        for _ in 0..if *yields == 0 { 0 } else { yields + 1 } {
                            yield_now().await;
                        }
                    }
                    How::Wait(gate) => gate.wait().await,
                    How::Hang => pending().await,
                    _ => {}
                }
                match how {
                    How::Fail(_) => return Err(std::io::Error::other("origin is down")),
                    How::Panic(_) => resume_unwind(Box::new("boom")),
                    How::Forget(key) => answers.absent(key),
                    How::FailOne(key) => {
                        answers.fail(key.to_owned(), std::io::Error::other("one shard is down"));
                    }
                    How::Extra(key) => answers.insert(key.to_owned(), 7_777),
                    _ => {}
                }
                Ok(answers)
            })
        }
    }

    pub(super) async fn one(self, key: &'static str, how: How) -> std::result::Result<u64, std::io::Error> {
        let many = self.many(how);
        let mut answers = many(vec![key.to_owned()]).await?;
        answers.take(key).and_then(|answer| answer.ok()?.value).ok_or_else(|| std::io::Error::other("none"))
    }
}

struct Running(Origin, Vec<String>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.running.lock();
        self.1.iter().for_each(|key| _ = running.remove(key));
    }
}

/// A cache over a counted stack on the deterministic executor.
#[derive(Clone)]
pub(super) struct Rig {
    pub(super) cache: Cache<Counted, BatchLoader<Counted>>,
    pub(super) store: Counted,
    pub(super) clock: ManualClock,
    pub(super) origin: Origin,
    pub(super) events: Events,
    tiers: Vec<Tier>,
}

type Building = CacheBuilder<Counted, BatchLoader<Counted>>;

impl Rig {
    pub(super) fn new(sim: &mut Sim, shape: usize, how: How, set: impl FnOnce(Building) -> Building) -> Self {
        let tiers = match shape {
            0 => vec![memory()],
            1 => vec![remote()],
            2 => vec![memory(), remote()],
            _ => vec![memory(), remote(), remote()],
        };
        let stack = match &tiers[..] {
            [one] => one.clone().boxed(),
            [upper, lower] => Chain::new(upper.clone(), lower.clone()).boxed(),
            [one, two, three, ..] => one.clone().chain(two.clone()).chain(three.clone()).boxed(),
            [] => unreachable!("at least one tier"),
        };
        Self { tiers, ..Self::over(sim, stack, how, set) }
    }

    pub(super) fn over(
        sim: &mut Sim,
        stack: impl Store<Key = str, Value = u64> + 'static,
        how: How,
        set: impl FnOnce(Building) -> Building,
    ) -> Self {
        let clock = ManualClock::new(Timestamp::from_nanos(1_000_000_000_000));
        sim.drive(&clock);
        let (store, origin, events) = (Counted::over(stack), Origin::default(), Events::default());
        let log = events.clone();
        let builder = Cache::builder(store.clone()).batch_loader(origin.many(how)).ttl(SECOND);
        let builder = builder.clock(clock.clone()).runtime(sim.runtime());
        let cache = set(builder.events(move |event| log.tell(&event.kind))).build().unwrap();
        Self { cache, store, clock, origin, events, tiers: Vec::new() }
    }

    pub(super) fn plant(&self, key: &str, value: u64, [fresh, stale, keep]: [u64; 3]) {
        let now = self.clock.now();
        let after = |seconds: u64| now.saturating_sub(SECOND).saturating_add(Duration::from_secs(seconds));
        let life = Lifetime::new(now.saturating_sub(9 * SECOND), after(fresh), after(stale), after(keep));
        for tier in &self.tiers {
            tier.inner().plant(key, Entry::new(value, life));
        }
    }

    pub(super) fn batch(&self, sim: &mut Sim, keys: &[&'static str], how: How) -> Task<Vec<Result<u64>>> {
        let (rig, keys) = (self.clone(), keys.to_vec());
        sim.spawn(format!("{keys:?}"), async move { rig.ask(&keys, how).await })
    }

    pub(super) async fn ask(&self, keys: &[&'static str], how: How) -> Vec<Result<u64>> {
        self.cache.get_or_try_compute_many(keys, self.origin.many(how)).await
    }

    /// Nothing goes on, nothing went wrong.
    #[track_caller]
    pub(super) fn assert_at_rest(&self, sim: &mut Sim) {
        assert_eq!(sim.settle(), [""; 0], "leaked");
        assert!(self.cache.is_idle(), "a flight is stuck");
        assert_eq!(self.origin.running.lock().len(), 0, "a computation is stuck");
        assert_eq!(*self.origin.wrong.lock(), [""; 0]);
    }
}

/// The keys of which these are the values, in order.
#[track_caller]
pub(super) fn keys_of(results: &[Result<u64>]) -> Vec<&'static str> {
    results.iter().map(|result| KEYS[usize::try_from(result.as_ref().unwrap() % 10).unwrap()]).collect()
}

pub(super) fn kinds(results: &[Result<u64>]) -> Vec<Option<ErrorKind>> {
    results.iter().map(|result| result.as_ref().err().map(Error::kind)).collect()
}

pub(super) fn sim() -> Sim {
    Sim::new(Schedule::script([]))
}

#[test]
fn e15_outcomes_come_in_the_order_asked_and_each_key_is_computed_once() {
    for shape in 0..4 {
        let mut sim = sim();
        let rig = Rig::new(&mut sim, shape, How::Answer(0), |builder| builder);
        let asked = ["c", "a", "c", "b", "a"];
        let results = sim.block_on({
            let rig = rig.clone();
            async move { rig.ask(&asked, How::Answer(1)).await }
        });
        assert_eq!(keys_of(&results), asked);
        assert_eq!(rig.origin.take(), [["c", "a", "b"]]);
        assert_eq!(rig.store.take(Operation::Get), [3], "one read");
        assert_eq!(rig.store.take(Operation::Set), [3], "one write");
        let again = sim.block_on({
            let rig = rig.clone();
            async move { rig.ask(&["d", "b", "a"], How::Answer(1)).await }
        });
        assert_eq!(keys_of(&again), ["d", "b", "a"]);
        assert_eq!(
            (again[2].clone().unwrap(), again[1].clone().unwrap()),
            (results[1].clone().unwrap(), results[3].clone().unwrap())
        );
        assert_eq!(rig.origin.take(), [["d"]], "what is held is not computed");
        rig.assert_at_rest(&mut sim);
    }
}

#[test]
fn e15_an_empty_batch_does_nothing() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 1, How::Panic(0), |builder| builder);
    let other = rig.clone();
    sim.block_on(async move {
        assert!(other.ask(&[], How::Panic(0)).await.is_empty());
        assert!(other.cache.fetch_many(&[]).await.is_empty());
        assert!(other.cache.get_many(&[]).await.is_empty());
        assert!(other.cache.set_many([]).await.is_empty());
        assert!(other.cache.remove_many(&[]).await.is_empty());
    });
    assert!(rig.origin.take().is_empty() && rig.store.calls.lock().is_empty());
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e15_a_computation_gets_the_keys_that_nobody_else_is_loading() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 1, How::Answer(0), |builder| builder);
    let (one, gate) = (Gate::default(), Gate::default());
    let (cache, origin, waits) = (rig.cache.clone(), rig.origin.clone(), one.clone());
    let single = sim.spawn("single", async move {
        cache.get_or_try_compute("b", || origin.one("b", How::Wait(waits))).await
    });
    sim.run_ready();
    let first = rig.batch(&mut sim, &["a", "b"], How::Wait(gate.clone()));
    sim.run_ready();
    let second = rig.batch(&mut sim, &["d", "b", "c", "a"], How::Answer(0));
    sim.run_ready();
    assert_eq!(rig.origin.take(), [vec!["b"], vec!["a"], vec!["d", "c"]]);
    assert!(!first.is_done() && !second.is_done());
    one.open();
    gate.open();
    sim.run();
    let (single, first, second) = (single.value().unwrap(), first.value(), second.value());
    assert_eq!(keys_of(&second), ["d", "b", "c", "a"]);
    assert_eq!((second[1].clone().unwrap(), first[1].clone().unwrap()), (single, single));
    assert_eq!(second[3].clone().unwrap(), first[0].clone().unwrap());
    assert_eq!(rig.events.count("Joined"), 3);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e15_a_key_that_fails_takes_no_other_along() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 2, How::Answer(0), |builder| builder.keep_stale_on_error(9 * SECOND));
    for key in ["a", "b"] {
        rig.plant(key, 100 + Origin::place(key), [0, 0, 10]);
    }
    let ask = |sim: &mut Sim, how| {
        let results = rig.batch(sim, &KEYS, how);
        sim.run();
        results.value()
    };
    let failing = ask(&mut sim, How::FailOne("c"));
    assert_eq!(kinds(&failing), [None, None, Some(ErrorKind::Computation), None]);
    let source: &std::io::Error = failing[2].as_ref().unwrap_err().source_as().unwrap();
    assert_eq!(source.to_string(), "one shard is down");
    assert_eq!(rig.store.take(Operation::Set), [3]);
    sim.advance(2 * SECOND);
    // E8: what is held stands in for what failed, and for nothing else.
    let failing = ask(&mut sim, How::FailOne("b"));
    assert_eq!(kinds(&failing), [None; 4]);
    assert_eq!(rig.events.count("StaleOnError"), 1);
    sim.advance(2 * SECOND);
    assert_eq!(kinds(&ask(&mut sim, How::Fail(0))), [None; 4]);
    assert_eq!(rig.events.count("StaleOnError"), 5);
    rig.assert_at_rest(&mut sim);
}

/// E16: to say nothing of a key is an answer: E8 is for failures.
#[test]
fn e15_a_key_that_was_forgotten_is_absent_and_an_answer_nobody_asked_for_is_ignored() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 2, How::Answer(0), Building::keep_stale_on_error_forever);
    rig.plant("b", 101, [0, 0, 10]);
    let results = rig.batch(&mut sim, &["a", "b"], How::Forget("b"));
    sim.run();
    assert_eq!(kinds(&results.value()), [None, Some(ErrorKind::NotFound)]);
    assert_eq!(rig.events.count("LoadFailed"), 1);
    let results = rig.batch(&mut sim, &["b", "c"], How::Extra("d"));
    sim.run();
    assert_eq!(keys_of(&results.value()), ["b", "c"]);
    assert_eq!(rig.events.count("Unasked"), 1);
    assert_eq!(rig.cache.peek("d"), None);
    assert_eq!(sim.block_on(async move { rig.cache.get("d").await }).unwrap(), None);
}

#[test]
fn e7_a_panic_unwinds_where_it_was_brought_and_the_others_carry_on_with_their_own() {
    for shape in 0..3 {
        let mut sim = sim();
        let rig = Rig::new(&mut sim, shape, How::Answer(0), |builder| builder);
        let first = rig.batch(&mut sim, &["a", "b"], How::Panic(1));
        first.may_panic();
        let second = rig.batch(&mut sim, &["c", "b", "a"], How::Answer(0));
        sim.run();
        assert_eq!(first.panicked().as_deref(), Some("boom"));
        assert_eq!(keys_of(&second.value()), ["c", "b", "a"]);
        assert_eq!(rig.origin.take(), [vec!["a", "b"], vec!["c"], vec!["b", "a"]]);
        assert_eq!(rig.events.count("LoadPanicked"), 2);
        rig.assert_at_rest(&mut sim);
    }
}

#[test]
fn e5_a_batch_outlives_its_caller() {
    for polls in 1..6 {
        let mut sim = sim();
        let rig = Rig::new(&mut sim, 1, How::Answer(0), |builder| builder);
        let first = rig.batch(&mut sim, &["a", "b"], How::Answer(3));
        first.cancel_after(polls);
        let second = rig.batch(&mut sim, &["b", "a"], How::Fail(0));
        sim.run();
        assert_eq!(keys_of(&second.value()), ["b", "a"]);
        assert_eq!(rig.origin.take(), [["a", "b"]]);
        rig.assert_at_rest(&mut sim);
    }
}

#[test]
fn e5_a_batch_has_the_deadlines_of_a_load() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 1, How::Answer(0), |builder| builder);
    let results = rig.batch(&mut sim, &["a", "b"], How::Hang);
    sim.run();
    assert_eq!(kinds(&results.value()), [Some(ErrorKind::Timeout); 2]);
    assert_eq!(sim.now(), 30 * SECOND);
    rig.tiers[0].faults().on(Operation::Get, 0, Fault::HangBefore);
    let results = rig.batch(&mut sim, &["a", "b"], How::Answer(0));
    sim.run();
    assert_eq!(keys_of(&results.value()), ["a", "b"]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e15_a_key_that_is_found_does_not_wait_for_those_that_are_computed() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 1, How::Answer(0), |builder| builder);
    rig.plant("b", 101, [9, 9, 9]);
    let gate = Gate::default();
    let batch = rig.batch(&mut sim, &["a", "b"], How::Wait(gate.clone()));
    let single = rig.batch(&mut sim, &["b"], How::Panic(0));
    sim.run_ready();
    assert!(!batch.is_done());
    assert_eq!(single.value()[0].clone().unwrap(), 101);
    gate.open();
    sim.run();
    assert_eq!(batch.value()[1].clone().unwrap(), 101);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e2_stale_keys_are_served_at_once_and_refreshed_by_one_computation() {
    for shape in 0..4 {
        let mut sim = sim();
        let rig = Rig::new(&mut sim, shape, How::Answer(0), |builder| builder.stale(9 * SECOND));
        for (at, key) in ["a", "b", "d"].into_iter().enumerate() {
            rig.plant(key, 100 + Origin::place(key), [if at == 2 { 5 } else { 0 }, 9, 9]);
        }
        let gate = Gate::default();
        let stale = rig.batch(&mut sim, &["a", "b", "d"], How::Wait(gate.clone()));
        sim.run_ready();
        assert_eq!(keys_of(&stale.value()), ["a", "b", "d"], "at once");
        assert_eq!(rig.origin.take(), [["a", "b"]]);
        let missed = rig.batch(&mut sim, &["c", "a"], How::Answer(0));
        sim.run_ready();
        assert_eq!(missed.value()[1].clone().unwrap(), 100, "still stale, at once");
        assert_eq!(rig.origin.take(), [["c"]]);
        gate.open();
        sim.run();
        assert_eq!(rig.events.count("RefreshSucceeded"), 2);
        let fresh = rig.batch(&mut sim, &["a", "b"], How::Panic(0));
        sim.run();
        assert!(fresh.value().iter().all(|value| *value.as_ref().unwrap() < 100));
        rig.assert_at_rest(&mut sim);
    }
}

#[test]
fn e9_a_batch_refreshes_no_more_keys_than_allowed() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 0, How::Answer(0), |builder| builder.stale(9 * SECOND).max_refreshes(2));
    for key in KEYS {
        rig.plant(key, 100 + Origin::place(key), [0, 9, 9]);
    }
    for skipped in [2, 2] {
        let results = rig.batch(&mut sim, &KEYS, How::Fail(1));
        sim.run();
        assert_eq!(keys_of(&results.value()), KEYS);
        assert_eq!(rig.origin.take(), [["a", "b"]]);
        assert_eq!(rig.events.count("RefreshSkipped") % 4, skipped % 4);
        sim.settle();
        rig.events.clear();
    }
    rig.assert_at_rest(&mut sim);
}

#[test]
fn a_batch_that_asks_within_its_own_computation_is_told_so_key_by_key() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 0, How::Answer(0), |builder| builder);
    let inner = rig.clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let cache = rig.cache.clone();
    let outer = sim.spawn("outer", async move {
        let results = cache.get_or_compute_many(&["a", "b"], move |keys: Vec<String>| {
            let (inner, saw) = (inner.clone(), Arc::clone(&saw));
            async move {
                let results = inner.ask(&["c", "b", "a"], How::Answer(1)).await;
                saw.lock().extend(kinds(&results));
                keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>()
            }
        });
        results.await
    });
    sim.run();
    assert_eq!(kinds(&outer.value()), [None, None]);
    assert_eq!(*seen.lock(), [None, Some(ErrorKind::Cycle), Some(ErrorKind::Cycle)]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e9_after_a_shutdown_hits_are_served_and_the_rest_is_refused() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 1, How::Answer(0), |builder| builder);
    let other = rig.clone();
    let (before, after) = sim.block_on(async move {
        let before = other.ask(&["a", "b"], How::Answer(1)).await;
        other.cache.shutdown(SECOND).await.unwrap();
        (before, other.ask(&["b", "c", "a", "c"], How::Answer(1)).await)
    });
    assert_eq!(kinds(&after), [None, Some(ErrorKind::ShutDown), None, Some(ErrorKind::ShutDown)]);
    assert_eq!(after[0].clone().unwrap(), before[1].clone().unwrap());
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e10_a_bypassed_batch_computes_each_key_once_and_touches_nothing() {
    let cache = Cache::builder(Counted::over(Memory::<str, u64>::new(9))).bypass().build().unwrap();
    let origin = Origin::default();
    let ask = || ready(cache.get_or_try_compute_many(&["b", "a", "b"], origin.many(How::Forget("a"))));
    for _ in 0..2 {
        let results = ask();
        assert_eq!(kinds(&results), [None, Some(ErrorKind::NotFound), None]);
        assert_eq!(origin.take(), [["b", "a"]]);
    }
    assert!(ready(cache.set_many([("a", 1)]))[0].clone().unwrap() != SetOutcome::Stored);
    ready(cache.remove_many(&["a"]))[0].clone().unwrap();
    assert_eq!(ready(cache.get_many(&["a"]))[0].clone().unwrap(), None);
    assert!(cache.store().calls.lock().is_empty());
}

#[test]
fn e11_reads_and_writes_fail_key_by_key() {
    for strict in [false, true] {
        let mut sim = sim();
        let set = |builder: Building| if strict { builder.strict() } else { builder };
        let rig = Rig::new(&mut sim, 1, How::Answer(0), set);
        rig.tiers[0].faults().on(Operation::Get, 1, Fault::FailBefore);
        rig.tiers[0].faults().on(Operation::Set, 0, Fault::FailBefore);
        let results = rig.batch(&mut sim, &["a", "b", "c"], How::Answer(0));
        sim.run();
        let failed = strict.then_some(ErrorKind::Unavailable);
        assert_eq!(kinds(&results.value()), [failed, failed, None]);
        assert_eq!(rig.origin.take().concat().len(), if strict { 2 } else { 3 });
        assert_eq!(rig.events.count("StoreFailed"), 2);
        rig.assert_at_rest(&mut sim);
    }
}

#[test]
fn e15_crossing_batches_do_not_wait_for_each_other() {
    for shape in [0, 1] {
        let explored = explore(2, 60_000, |sim| {
            let rig = Rig::new(sim, shape, How::Answer(0), |builder| builder);
            let one = rig.batch(sim, &["a", "b"], How::Answer(0));
            let other = rig.batch(sim, &["b", "a"], How::Answer(1));
            sim.run();
            let (one, other) = (one.value(), other.value());
            assert_eq!((keys_of(&one), keys_of(&other)), (vec!["a", "b"], vec!["b", "a"]));
            assert_eq!(one[0].clone().unwrap(), other[1].clone().unwrap());
            assert_eq!(rig.origin.take().concat().len(), 2, "each key once");
            rig.assert_at_rest(sim);
        });
        assert!(explored.complete, "{explored}");
    }
}

/// E4: what a batch computed before a removal is not stored after it, nor given to who comes after it.
#[test]
fn e4_a_batch_that_was_overtaken_stores_nothing_of_what_was_written() {
    for writes_many in [false, true] {
        let explored = explore(2, 60_000, |sim| {
            let rig = Rig::new(sim, 1, How::Answer(0), |builder| builder);
            let batch = rig.batch(sim, &["a", "b"], How::Answer(1));
            let other = rig.clone();
            let writer = sim.spawn("writer", async move {
                if writes_many {
                    other.cache.remove_many(&["b", "c"]).await[0].clone().unwrap();
                } else {
                    let set = other.cache.set_many([("b", 11), ("c", 12), ("b", 5_551)]).await;
                    assert!(set.iter().all(|set| matches!(set, Ok(SetOutcome::Stored))));
                }
                let floor = other.origin.values.load(Ordering::SeqCst) * 10 + 9;
                let after = other.cache.get("b").await.unwrap();
                let served = other.ask(&["b"], How::Answer(0)).await[0].clone().unwrap();
                (floor, after, served)
            });
            sim.run();
            batch.value().iter().for_each(|result| assert!(result.is_ok()));
            let (floor, after, served) = writer.value();
            if writes_many {
                assert!(after.is_none_or(|value| value > floor), "{after:?} came back");
                assert!(served > floor || after == Some(served), "{served} is from before {floor}");
            } else {
                assert_eq!((after, served), (Some(5_551), 5_551), "the last of the batch, and nothing older");
            }
            // What was overtaken may run on beside what replaces it.
            rig.origin.wrong.lock().clear();
            rig.assert_at_rest(sim);
        });
        assert!(explored.complete, "{explored}");
    }
}

#[test]
fn e15_bulk_reads_and_writes_are_one_call_and_equal_their_singles() {
    let mut sim = sim();
    let rig = Rig::new(&mut sim, 2, How::Answer(0), |builder| builder);
    let other = rig.clone();
    sim.block_on(async move {
        let (cache, store) = (&other.cache, &other.store);
        other.tiers[1].faults().on(Operation::Set, 1, Fault::FailBefore);
        let set = cache.set_many([("a", 1), ("b", 2), ("c", 3), ("a", 4)]).await;
        let stored: Vec<_> = set.iter().map(Result::is_ok).collect();
        assert_eq!(stored.iter().filter(|stored| **stored).count(), 3, "{set:?}");
        assert_eq!(store.take(Operation::Set), [3], "a key that is there twice is written once");
        assert_eq!(cache.get("a").await.unwrap(), Some(4), "the last one");
        store.take(Operation::Get);
        sleep_past(&other);
        assert!(cache.get_many(&["a", "a", "z"]).await.into_iter().all(|got| got.unwrap().is_none()));
        assert_eq!(store.take(Operation::Get), [3]);
        let again = cache.set_many_with([("a", crate::Computed::new(5).ttl(9 * SECOND))]).await;
        again[0].clone().unwrap();
        sleep_past(&other);
        let got: Vec<_> = cache.get_many(&["z", "a"]).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(got, [None, Some(5)]);
        assert_eq!(store.take(Operation::Get), [1], "what is told at once is not asked for");
        other.tiers[1].faults().on(Operation::Remove, 0, Fault::FailBefore);
        let removed = cache.remove_many(&["b", "a", "a"]).await;
        assert_eq!(removed.iter().filter(|result| result.is_err()).count(), 1, "{removed:?}");
        assert_eq!(store.take(Operation::Remove), [3]);
    });
    rig.assert_at_rest(&mut sim);
}

fn sleep_past(rig: &Rig) {
    rig.clock.advance(SECOND + TICK);
}

#[test]
fn e15_a_batch_of_hits_allocates_the_vector_of_its_results() {
    let cache = Cache::builder(Memory::<str, u64>::new(16))
        .ttl(SECOND)
        .batch_loader(Origin::default().many(How::Hang));
    let cache = cache.build().unwrap();
    ready(cache.set_many([("a", 1), ("b", 2), ("c", 3)]));
    let keys = ["a", "b", "c", "a"];
    let unreached =
        |keys: Vec<String>| async move { keys.into_iter().map(|key| (key, 0)).collect::<Vec<_>>() };
    assert_eq!(allocations(|| drop(ready(cache.get_or_compute_many(&keys, unreached)))), 1);
    assert_eq!(allocations(|| drop(ready(cache.fetch_many(&keys)))), 1);
    assert_eq!(allocations(|| drop(ready(cache.get_many(&keys)))), 1);
}

/// Linear, without recursion: quadratic work would take days.
#[test]
fn e15_a_batch_may_have_a_million_keys() {
    const MANY: u64 = 1_000_000;
    let cache = Cache::builder(Memory::<u64, u64>::new(2_000_000)).ttl(SECOND).build().unwrap();
    let numbers: Vec<u64> = (0..MANY).chain(0..10).collect();
    let keys: Vec<&u64> = numbers.iter().collect();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let compute = move |keys: Vec<u64>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { keys.into_iter().map(|key| (key, key * 2)).collect::<Vec<_>>() }
    };
    let results = ready(cache.get_or_compute_many(&keys, compute));
    assert!(results.iter().zip(&numbers).all(|(result, key)| *result.as_ref().unwrap() == key * 2));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert!(cache.is_idle());
    assert!(ready(cache.remove_many(&keys)).iter().all(Result::is_ok));
    assert!(ready(cache.set_many(keys.iter().map(|key| (*key, 1)))).iter().all(Result::is_ok));
}

#[test]
fn outside_a_runtime_a_batch_that_ends_at_once_works_and_the_rest_says_what_it_needs() {
    let cache = Cache::builder(Memory::<str, u64>::new(9)).ttl(SECOND).build().unwrap();
    let origin = Origin::default();
    assert_eq!(
        keys_of(&ready(cache.get_or_try_compute_many(&["b", "a"], origin.many(How::Answer(0))))),
        ["b", "a"]
    );
    let stuck = ready(cache.get_or_try_compute_many(&["a", "c", "c"], origin.many(How::Hang)));
    assert_eq!(kinds(&stuck), [None, Some(ErrorKind::Unsupported), Some(ErrorKind::Unsupported)]);
    assert!(cache.is_idle());
}

/// What a client does.
#[derive(Clone, Debug)]
enum Act {
    Many(Vec<usize>, usize),
    FailingMany(Vec<usize>, usize),
    One(usize, usize),
    GetMany(Vec<usize>),
    RemoveMany(Vec<usize>),
    SetMany(Vec<usize>),
    Wait,
}

fn keys() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..KEYS.len(), 0..6)
}

fn asking() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (keys(), 0..4usize).prop_map(|(keys, yields)| Act::Many(keys, yields)),
        2 => (0..KEYS.len(), 0..4usize).prop_map(|(key, yields)| Act::One(key, yields)),
        1 => keys().prop_map(Act::GetMany),
    ]
}

fn anything() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => asking(),
        2 => (keys(), 0..12usize).prop_map(|(keys, how)| Act::FailingMany(keys, how)),
        1 => keys().prop_map(Act::RemoveMany),
        1 => keys().prop_map(Act::SetMany),
        1 => Just(Act::Wait),
    ]
}

/// Any stack of the crate's parts over a tier that answers at once and one that does not.
fn stack(shape: usize) -> BoxStore<str, u64> {
    let (upper, lower, deepest) = (memory(), remote(), remote());
    match shape {
        0 => upper.boxed(),
        1 => lower.boxed(),
        2 => upper.chain(lower).boxed(),
        3 => upper.chain(lower).chain(deepest).boxed(),
        4 => upper.fresh_for_at_most(9 * SECOND).chain(lower.inspect(|_| {})).boxed(),
        5 => Null::new().chain(lower).boxed(),
        6 => Memory::new(2).chain(remote()).boxed(),
        _ => Sharded::new(2, |share| Memory::new(share.entries(64))).unwrap().chain(lower).boxed(),
    }
}

async fn act(rig: Rig, act: Act, by: usize) {
    let named = |keys: &[usize]| keys.iter().map(|key| KEYS[*key]).collect::<Vec<_>>();
    let check = |asked: &[&'static str], results: &[Result<u64>]| {
        assert_eq!(asked.len(), results.len(), "one result a key");
        for (key, result) in asked.iter().zip(results) {
            if let Ok(value) = result {
                assert_eq!(value % 10, Origin::place(key), "{key} is {value}");
            }
        }
    };
    match act {
        Act::Many(keys, yields) => {
            let asked = named(&keys);
            check(&asked, &rig.ask(&asked, How::Answer(yields)).await);
        }
        Act::FailingMany(keys, how) => {
            let asked = named(&keys);
            let (key, yields) = (KEYS[how % KEYS.len()], how % 3);
            let how = [
                How::Fail(yields),
                How::Forget(key),
                How::FailOne(key),
                How::Extra("z"),
                How::Panic(yields),
                How::Hang,
            ];
            check(&asked, &rig.ask(&asked, how[yields * 2 + by % 2].clone()).await);
        }
        Act::One(key, yields) => {
            let (key, origin) = (KEYS[key], rig.origin.clone());
            let result =
                rig.cache.get_or_try_compute(key, move || origin.one(key, How::Answer(yields))).await;
            check(&[key], &[result]);
        }
        Act::GetMany(keys) => {
            let asked = named(&keys);
            for (key, got) in asked.iter().zip(rig.cache.get_many(&asked).await) {
                assert!(got.ok().flatten().is_none_or(|value| value % 10 == Origin::place(key)));
            }
        }
        Act::RemoveMany(keys) => drop(rig.cache.remove_many(&named(&keys)).await),
        Act::SetMany(keys) => {
            let entries = named(&keys).into_iter().map(|key| (key, rig.origin.value(key)));
            drop(rig.cache.set_many(entries.collect::<Vec<_>>()).await);
        }
        Act::Wait => rig.clock.advance(SECOND / 2),
    }
}

proptest! {
    /// E15, E3: while nothing fails and nothing is written, each key is computed once, whoever asks in
    /// whatever company; each flight reads once; nobody waits for ever.
    #[test]
    fn e15_each_key_is_computed_once_across_overlapping_batches(
        schedule in schedules(80),
        shape in 0..6usize,
        clients in proptest::collection::vec(proptest::collection::vec(asking(), 1..4), 2..5),
        cancelled in proptest::collection::vec((0..4usize, 1..20u64), 0..2),
    ) {
        let mut sim = Sim::new(schedule);
        let rig = Rig::over(&mut sim, stack(shape), How::Answer(0), |builder| builder.ttl(60 * SECOND));
        for (index, acts) in clients.into_iter().enumerate() {
            let rig = rig.clone();
            let task = sim.spawn(format!("client {index}"), async move {
                for step in acts {
                    act(rig.clone(), step, index).await;
                }
            });
            cancelled.iter().filter(|(who, _)| *who == index).for_each(|(_, polls)| task.cancel_after(*polls));
        }
        sim.run();
        let computed = rig.origin.take();
        prop_assert!(computed.iter().all(|keys| !keys.is_empty()));
        let mut keys = computed.concat();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), all, "each key once: {:?}", computed);
        let writes = rig.store.take(Operation::Set);
        prop_assert_eq!(writes.len(), computed.len(), "one write a computation");
        prop_assert_eq!(writes.iter().sum::<usize>(), all);
        rig.assert_at_rest(&mut sim);
    }

    /// E15 with E4, E5, E7, E8, E11: anything at once ends, in order, and leaves nothing behind.
    #[test]
    fn e15_batches_of_any_kind_beside_anything_else_end(
        schedule in schedules(80),
        shape in 0..8usize,
        stale in any::<bool>(),
        clients in proptest::collection::vec(proptest::collection::vec(anything(), 1..5), 2..5),
        cancelled in proptest::collection::vec((0..4usize, 1..20u64), 0..3),
    ) {
        let mut sim = Sim::new(schedule);
        let window = if stale { SECOND } else { Duration::ZERO };
        let rig = Rig::over(&mut sim, stack(shape), How::Answer(0), |builder| {
            builder.stale(window).keep_stale_on_error(9 * SECOND).max_refreshes(2)
        });
        for (index, acts) in clients.into_iter().enumerate() {
            let rig = rig.clone();
            let task = sim.spawn(format!("client {index}"), async move {
                for step in acts {
                    act(rig.clone(), step, index).await;
                }
            });
            task.may_panic();
            cancelled.iter().filter(|(who, _)| *who == index).for_each(|(_, polls)| task.cancel_after(*polls));
        }
        sim.run();
        prop_assert_eq!(sim.settle(), [""; 0]);
        prop_assert!(rig.cache.is_idle());
        prop_assert_eq!(rig.origin.running.lock().len(), 0);
    }
}
