//! What a batch costs, and what becomes of an answer that is unchanged: stacks of three tiers that count calls
//! (laws S11, S13, C3, C4, C6, E22).

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::bench::SECOND;
use crate::adapters::{Chain, FreshForAtMost};
use crate::cache::{Cache, Computed};
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::ext::StoreExt;
use crate::memory::Memory;
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::{History, Loss, Model, Recorded, Schedule, Sim, schedules, yield_now};
use crate::time::{Clock, ManualClock, Timestamp};

/// A tier that notes its calls, and fails for the keys that it is told to.
#[derive(Default)]
struct Counted {
    held: Model<str, u64>,
    calls: Mutex<Vec<&'static str>>,
    failing: Mutex<HashSet<String>>,
}

impl Counted {
    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn note(&self, call: &'static str) {
        self.calls.lock().push(call);
    }

    fn checked<T>(&self, key: &str, effect: impl FnOnce() -> T) -> Result<T> {
        if self.failing.lock().contains(key) {
            return Err(Error::new(ErrorKind::Unavailable, "counted", Operation::Set));
        }
        Ok(effect())
    }

    fn put(&self, key: &str, entry: &Entry<u64>) -> Result<SetOutcome> {
        self.checked(key, || {
            self.held.plant(key, entry.clone());
            SetOutcome::Stored
        })
    }
}

impl Store for Counted {
    type Key = str;
    type Value = u64;

    async fn get(&self, key: &str) -> Result<Option<Entry<u64>>> {
        self.note("get");
        self.checked(key, || self.held.held(key))
    }

    async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.note("set");
        yield_now().await;
        self.put(key, &entry)
    }

    async fn renew(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.note("renew");
        yield_now().await;
        self.put(key, &entry)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.note("remove");
        yield_now().await;
        self.checked(key, || self.held.forget(key))
    }

    async fn clear(&self) -> Result<()> {
        self.note("clear");
        yield_now().await;
        self.held.clear().await
    }

    async fn get_many(&self, keys: &[&str], _: Timestamp) -> Vec<Result<Option<Entry<u64>>>> {
        self.note("get_many");
        let found = keys.iter().map(|key| self.checked(key, || self.held.held(key))).collect();
        yield_now().await;
        found
    }

    async fn set_many(&self, entries: &[(&str, Entry<u64>)]) -> Vec<Result<SetOutcome>> {
        self.note("set_many");
        yield_now().await;
        // From the end, as a store may: of a key given twice the first would win.
        let mut outcomes: Vec<_> = entries.iter().rev().map(|(key, entry)| self.put(key, entry)).collect();
        outcomes.reverse();
        outcomes
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        self.note("remove_many");
        yield_now().await;
        keys.iter().map(|key| self.checked(key, || self.held.forget(key))).collect()
    }
}

type Tiers = [Arc<Counted>; 3];

/// Three tiers, nested to one side or the other, each behind an adapter or handle that passes everything on.
#[derive(Clone, Copy, Debug)]
struct Shape {
    left: bool,
    around: [u8; 3],
}

fn shape() -> impl Strategy<Value = Shape> {
    (any::<bool>(), [0..6u8, 0..6u8, 0..6u8]).prop_map(|(left, around)| Shape { left, around })
}

impl Shape {
    fn build(self, clock: &ManualClock) -> (BoxStore<str, u64>, Tiers) {
        let tiers = Tiers::default();
        let tier = |index: usize| {
            let store = Arc::clone(&tiers[index]);
            match self.around[index] {
                0 => store.inspect(|_| ()).boxed(),
                1 => FreshForAtMost::new(store, Duration::MAX).clock(clock.clone()).boxed(),
                2 => Box::new(store).boxed(),
                3 => crate::adapters::Sharded::new(1, |_| Arc::clone(&store)).unwrap().boxed(),
                4 => store.boxed().boxed(),
                _ => store.boxed(),
            }
        };
        let stack = if self.left {
            let upper = Chain::new(tier(0), tier(1)).clock(clock.clone());
            Chain::new(upper, tier(2)).clock(clock.clone()).boxed()
        } else {
            let lower = Chain::new(tier(1), tier(2)).clock(clock.clone());
            Chain::new(tier(0), lower).clock(clock.clone()).boxed()
        };
        (stack, tiers)
    }
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_nanos(1_000_000_000_000))
}

fn entry(value: u64) -> Entry<u64> {
    Entry::new(value, Lifetime::forever(Timestamp::from_nanos(1_000_000_000_000)))
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|key| format!("key {key}")).collect()
}

fn calls(tiers: &Tiers) -> [Vec<&'static str>; 3] {
    [0, 1, 2].map(|tier| tiers[tier].calls())
}

/// Without anybody who would have to be waited for.
fn alone<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..1_000_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
    panic!("it waits for somebody, and there is nobody");
}

proptest! {
    /// S11: however many keys there are, a batch is one call a tier and step.
    #[test]
    fn s11_a_batch_costs_one_call_a_tier(
        shape in shape(),
        held in proptest::collection::vec(0..8u8, 1..60),
    ) {
        let clock = clock();
        let (stack, tiers) = shape.build(&clock);
        let names = names(held.len());
        let keys: Vec<&str> = names.iter().map(String::as_str).collect();
        for (key, held) in keys.iter().zip(&held) {
            for (tier, place) in tiers.iter().zip(0..) {
                if held & (1 << place) != 0 {
                    tier.held.plant(key, entry(7));
                }
            }
        }
        let found = alone(stack.get_many(&keys, clock.now()));
        for (answer, held) in found.iter().zip(&held) {
            prop_assert_eq!(answer.as_ref().unwrap().is_some(), *held != 0);
        }
        // What stands in the deepest tier alone goes up once, and through an inner chain as a write of that.
        let [top, middle, bottom] = calls(&tiers);
        let counts = |calls: &[&str], name| calls.iter().filter(|call| **call == name).count();
        prop_assert!(counts(&top, "get_many") == 1 && counts(&middle, "get_many") <= 1);
        let most = |left: usize, right: usize| if shape.left { left } else { right };
        prop_assert!(top.len() <= most(4, 2) && middle.len() <= 2, "{:?} {:?}", top, middle);
        prop_assert!(bottom.is_empty() || bottom == ["get_many"], "{:?}", bottom);
        let mut all = [top, middle].concat();
        all.retain(|call| !call.ends_with("_many"));
        prop_assert!(all.is_empty(), "{:?}", all);

        let entries: Vec<_> = keys.iter().zip(1..).map(|(key, value)| (*key, entry(value))).collect();
        prop_assert!(alone(stack.set_many(&entries)).iter().all(|set| matches!(set, Ok(SetOutcome::Stored))));
        let written = calls(&tiers);
        if shape.left {
            let above = [vec!["remove_many", "remove_many", "set_many"], vec!["remove_many", "set_many"]];
            prop_assert_eq!(&written[..2], &above);
        } else {
            prop_assert_eq!(&written[..2], &[["remove_many", "set_many"], ["remove_many", "set_many"]]);
        }
        prop_assert_eq!(&written[2], &["set_many"]);
        for (key, entry) in &entries {
            for tier in &tiers {
                prop_assert_eq!(tier.held.held(key), Some(entry.clone()));
            }
        }
        prop_assert!(alone(stack.remove_many(&keys)).iter().all(Result::is_ok));
        prop_assert_eq!(calls(&tiers), [["remove_many"], ["remove_many"], ["remove_many"]]);
        for key in &keys {
            prop_assert_eq!(alone(stack.get(key)).unwrap(), None);
        }
    }

    /// S11, C4: of a key that a batch names several times every tier ends with the last entry, whatever order a
    /// tier has for itself; each result is its own.
    #[test]
    fn s11_a_key_that_occurs_twice_ends_alike_in_every_tier(
        shape in shape(),
        named in proptest::collection::vec(0..4usize, 0..12),
        fails in 0..6usize,
    ) {
        let (stack, tiers) = shape.build(&clock());
        let names = names(6);
        tiers[2].failing.lock().insert(names[fails].clone());
        let entries: Vec<_> = named.iter().zip(1..).map(|(&key, value)| (names[key].as_str(), entry(value))).collect();
        let set = alone(stack.set_many(&entries));
        prop_assert_eq!(set.len(), entries.len());
        for ((key, _), set) in entries.iter().zip(&set) {
            prop_assert_eq!(set.is_err(), **key == *names[fails]);
            let (_, last) = entries.iter().rfind(|(other, _)| other == key).unwrap();
            for tier in tiers.iter().take(if set.is_err() { 2 } else { 3 }) {
                prop_assert_eq!(tier.held.held(key), Some(last.clone()));
            }
        }
        let keys: Vec<&str> = entries.iter().map(|(key, _)| *key).collect();
        let removed = alone(stack.remove_many(&keys));
        for (key, removed) in keys.iter().zip(&removed) {
            prop_assert_eq!(removed.is_err(), **key == *names[fails]);
            prop_assert_eq!(alone(stack.get(key)).unwrap(), None);
        }
    }

    /// C4, C8: batches that name the same keys in any order, beside single writes, readers and a clear, never wait
    /// for each other, and are a register all the same.
    #[test]
    fn c4_batches_in_any_order_end_and_are_a_register(
        shape in shape(),
        schedule in schedules(80),
        tasks in proptest::collection::vec(
            (0..7u8, Just(vec![0, 1, 2, 3]).prop_shuffle()), 2..5,
        ),
        cancelled in proptest::option::of((0..5usize, 0..20u64)),
    ) {
        let mut sim = Sim::new(schedule);
        let (stack, _) = shape.build(&clock());
        let (stack, history) = (Arc::new(stack), History::new());
        let values = Arc::new(std::sync::atomic::AtomicU64::new(1));
        for (index, (what, order)) in tasks.into_iter().enumerate() {
            let client = Recorded::new(Arc::clone(&stack), format!("task {index}"), &history);
            let values = Arc::clone(&values);
            let task = sim.spawn(format!("task {index}"), async move {
                let names = names(4);
                let keys: Vec<&str> = order.iter().map(|&key: &usize| names[key].as_str()).collect();
                let fresh = || entry(values.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
                match what {
                    0 | 1 => {
                        let entries: Vec<_> = keys.iter().map(|key| (*key, fresh())).collect();
                        drop(client.set_many(&entries).await);
                    }
                    2 => drop(client.remove_many(&keys).await),
                    3 => drop(client.get_many(&keys, Timestamp::EPOCH).await),
                    4 => drop(client.clear().await),
                    5 => drop(client.renew(keys[0], fresh()).await),
                    _ => drop(client.set(keys[0], fresh()).await),
                }
                drop(client.get_many(&keys, Timestamp::EPOCH).await);
            });
            if let Some((victim, polls)) = cancelled && victim == index {
                task.cancel_after(polls);
            }
        }
        sim.run();
        history.assert(Loss::Never);
    }

    /// E22, S13: after an unchanged answer every tier that held the entry has its new life, and none was given it
    /// by a `set` where it held it.
    #[test]
    fn e22_an_unchanged_answer_renews_every_tier(
        shape in shape(),
        forgotten in 0..7u8,
        own in any::<bool>(),
        took in 0..3u32,
    ) {
        let clock = clock();
        let (stack, tiers) = shape.build(&clock);
        let mut sim = Sim::new(Schedule::script([]));
        let cache = Cache::builder(stack).clock(clock.clone()).runtime(sim.runtime()).ttl(60 * SECOND);
        let cache = cache.keep_stale_on_error(600 * SECOND).build().unwrap();
        alone(cache.set_with("k", Computed::new(7).version("v1").tags(["a", "b"]))).unwrap();
        for (tier, place) in tiers.iter().zip(0..) {
            if forgotten & (1 << place) != 0 {
                tier.held.forget("k");
            }
        }
        clock.advance(61 * SECOND);
        calls(&tiers);
        let began = clock.now();
        let working = clock.clone();
        let compute = move |held: Option<Entry<u64>>| async move {
            assert_eq!(held.as_ref().and_then(Entry::version).map(|version| &**version), Some("v1"));
            working.advance(took * SECOND);
            let unchanged = Computed::unchanged();
            Ok::<_, Error>(if own { unchanged.version("v2").tags(["c"]) } else { unchanged })
        };
        let value = sim.block_on(async move { cache.get_or_recompute("k", compute).await });
        prop_assert_eq!(value.unwrap(), 7);
        let fresh_until = began.saturating_add((60 + took) * SECOND);
        for tier in &tiers {
            let held = tier.held.held("k").expect("written back where it was forgotten, renewed where it was not");
            prop_assert_eq!((*held.value(), held.created_at()), (7, began));
            prop_assert_eq!(held.lifetime().fresh_until(), fresh_until);
            let tags: Vec<&str> = held.tags().iter().map(|tag| &**tag).collect();
            let labels = (held.version().map(|version| &**version), tags);
            prop_assert_eq!(labels, if own { (Some("v2"), vec!["c"]) } else { (Some("v1"), vec!["a", "b"]) });
        }
        for calls in calls(&tiers) {
            let renewals = calls.iter().filter(|call| **call == "renew").count();
            prop_assert_eq!(renewals, 1, "{:?}", calls);
        }
    }
}

/// C6, S11: only the keys whose copy counts as absent go their own way.
#[test]
fn c6_marked_keys_do_not_split_the_batch() {
    let clock = clock();
    let (upper, lower) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
    let stack = Chain::new(Arc::clone(&upper), Arc::clone(&lower)).clock(clock.clone());
    let names = names(20);
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    for (tier, key) in [(&upper, keys[3]), (&lower, keys[5]), (&lower, keys[6])] {
        tier.failing.lock().insert(key.to_owned());
    }
    for key in &keys {
        lower.held.plant(key, entry(1));
        upper.held.plant(key, entry(1));
    }
    let removed = alone(stack.remove_many(&keys[3..7]));
    assert_eq!(removed.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, false]);
    assert_eq!((stack.stats().absent_above, stack.stats().absent_below), (1, 2));
    for key in &keys {
        upper.held.forget(key);
    }
    upper.held.plant(keys[3], entry(1));
    upper.calls();
    lower.calls();
    for round in 0..2 {
        let found = alone(stack.get_many(&keys, clock.now()));
        for (index, answer) in found.iter().enumerate() {
            assert_eq!(
                answer.as_ref().unwrap().is_some(),
                !(3..7).contains(&index),
                "round {round}, key {index}"
            );
        }
        // The repairs fail: they are made one by one.
        let (above, below) = (upper.calls(), lower.calls());
        assert_eq!(above.iter().filter(|call| **call == "remove").count(), 1, "{above:?}");
        assert_eq!(below.iter().filter(|call| **call == "remove").count(), 2, "{below:?}");
        assert_eq!(below.iter().filter(|call| **call == "get_many").count(), 1, "{below:?}");
        assert_eq!(above.len(), if round == 0 { 3 } else { 2 }, "a read, a backfill, a repair: {above:?}");
    }
    upper.failing.lock().clear();
    lower.failing.lock().clear();
    alone(stack.get_many(&keys, clock.now()));
    assert_eq!((stack.stats().absent_above, stack.stats().absent_below), (0, 0));
}

/// S13, C6: a strict chain keeps above nothing of a renewal that failed below, and one that is not strict does.
#[test]
fn s13_a_renewal_that_fails_below_is_as_a_write_that_does() {
    for strict in [false, true] {
        let (upper, lower) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
        let stack = Chain::new(Arc::clone(&upper), Arc::clone(&lower)).clock(clock());
        let stack = if strict { stack.strict() } else { stack };
        alone(stack.set("k", entry(1))).unwrap();
        lower.failing.lock().insert("k".to_owned());
        assert!(alone(stack.renew("k", entry(2))).is_err());
        let seen = stack.peek_with("k", |entry| *entry.value());
        let read = alone(stack.get("k")).unwrap().map(|entry| *entry.value());
        let expected = (!strict).then_some(2);
        assert_eq!((seen.or(read), read), (expected, expected));
        lower.failing.lock().clear();
        assert_eq!(alone(stack.renew("k", entry(3))).unwrap(), SetOutcome::Stored);
        assert_eq!(alone(stack.get("k")).unwrap(), Some(entry(3)));
        assert_eq!([&upper, &lower].map(|tier| tier.held.held("k")), [Some(entry(3)), Some(entry(3))]);
    }
}

/// E15: a batch may be large, and name one key again and again.
#[test]
fn s11_a_batch_of_a_hundred_thousand_works() {
    let stack = Memory::<u64, u64>::new(200_000).chain(Memory::new(200_000));
    let keys: Vec<u64> = (0..100_000).collect();
    let entries: Vec<_> = keys.iter().map(|key| (key, entry(*key))).collect();
    assert!(alone(stack.set_many(&entries)).iter().all(Result::is_ok));
    let asked: Vec<&u64> = keys.iter().collect();
    alone(stack.upper().clear()).unwrap();
    let found = alone(stack.get_many(&asked, Timestamp::EPOCH));
    assert!(
        found.iter().zip(&keys).all(|(found, key)| matches!(found, Ok(Some(held)) if held.value() == key))
    );
    assert_eq!(stack.stats().backfills, 100_000);
    let again: Vec<_> = keys.iter().map(|value| (&1, entry(*value))).collect();
    assert!(alone(stack.set_many(&again)).iter().all(Result::is_ok));
    assert_eq!(alone(stack.get(&1)).unwrap(), Some(entry(99_999)));
    assert!(alone(stack.remove_many(&asked)).iter().all(Result::is_ok));
    assert_eq!(stack.lower().len(), Some(0));
}
