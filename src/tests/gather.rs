//! Single loads that are gathered into calls of a loader of many keys: a matter of computations alone, so that every
//! law of the engine holds as before.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proptest::prelude::*;

use super::bench::{SECOND, TICK, memory, remote};
use super::engine_batches::{How, KEYS, Rig, keys_of, kinds, sim};
use super::ready;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Runtime;
use crate::sync::Mutex;
use crate::testkit::{Sim, Task, schedules};
use crate::{Cache, Memory};

const WINDOW: Duration = Duration::from_millis(10);

fn gathering(sim: &mut Sim, most: usize, how: How) -> Rig {
    Rig::new(sim, 1, how, |builder| builder.ttl(60 * SECOND).gather(WINDOW, most))
}

fn fetch(rig: &Rig, sim: &mut Sim, key: &'static str) -> Task<Result<u64>> {
    let cache = rig.cache.clone();
    sim.spawn(key, async move { cache.fetch(key).await })
}

#[test]
fn loads_that_come_within_the_window_are_one_call_in_the_order_they_came() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 9, How::Answer(1));
    let first: Vec<_> = ["c", "a", "c"].map(|key| fetch(&rig, &mut sim, key)).into();
    sim.advance(WINDOW.saturating_sub(TICK));
    let last = fetch(&rig, &mut sim, "b");
    sim.run_ready();
    assert!(rig.origin.take().is_empty(), "the window is open");
    sim.advance(TICK);
    let next = fetch(&rig, &mut sim, "d");
    sim.run();
    assert_eq!(sim.now(), 2 * WINDOW, "another window");
    assert_eq!(rig.origin.take(), [vec!["c", "a", "b"], vec!["d"]]);
    let results: Vec<_> = first.into_iter().chain([last, next]).map(|task| task.value()).collect();
    assert_eq!(keys_of(&results), ["c", "a", "c", "b", "d"]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn as_many_as_a_call_may_have_begin_at_once() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 2, How::Answer(0));
    let tasks = KEYS.map(|key| fetch(&rig, &mut sim, key));
    let fifth = fetch(&rig, &mut sim, "z");
    sim.run_ready();
    assert_eq!(rig.origin.take(), [["a", "b"], ["c", "d"]]);
    assert!(tasks.iter().all(Task::is_done) && !fifth.is_done());
    sim.run();
    assert_eq!(rig.origin.take(), [["z"]]);
    assert_eq!(sim.now(), WINDOW);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn a_batch_has_its_company_and_waits_for_nobody() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 2, How::Answer(0));
    let cache = rig.cache.clone();
    let results = sim.call(async move { cache.fetch_many(&KEYS).await });
    assert_eq!(keys_of(&results), KEYS);
    assert_eq!(rig.origin.take(), [KEYS]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn refreshes_are_gathered_too() {
    let mut sim = sim();
    let stale = |builder: crate::CacheBuilder<_, _>| builder.gather(WINDOW, 9).stale(60 * SECOND);
    let rig = Rig::new(&mut sim, 0, How::Answer(0), stale);
    for key in ["a", "b"] {
        rig.plant(key, 90, [0, 60, 60]);
    }
    let tasks = ["a", "b"].map(|key| fetch(&rig, &mut sim, key));
    sim.run_ready();
    assert!(tasks.iter().all(|task| task.value().unwrap() == 90), "at once");
    sim.settle();
    assert_eq!(rig.origin.take(), [["a", "b"]]);
    assert_eq!(rig.events.count("RefreshSucceeded"), 2);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn what_is_said_of_a_key_reaches_who_asked_for_it() {
    let told = [
        (How::Forget("a"), [Some(ErrorKind::NotFound), None]),
        (How::FailOne("b"), [None, Some(ErrorKind::Computation)]),
        (How::Fail(0), [Some(ErrorKind::Computation); 2]),
        (How::Extra("c"), [None; 2]),
    ];
    for (how, expected) in told {
        for most in [1, 2, 3] {
            let mut sim = sim();
            let rig = gathering(&mut sim, most, how.clone());
            let tasks = ["a", "b"].map(|key| fetch(&rig, &mut sim, key));
            sim.run();
            assert_eq!(kinds(&tasks.map(|task| task.value())), expected, "{how:?}");
            let calls = if most == 1 { 2 } else { 1 };
            let unasked = match how {
                How::Extra(_) => calls,
                // The call for `a` alone is told of `b`.
                How::FailOne(_) => calls - 1,
                _ => 0,
            };
            assert_eq!(rig.events.count("Unasked"), unasked);
            rig.assert_at_rest(&mut sim);
        }
    }
}

#[test]
fn e7_the_panic_of_a_gathered_call_unwinds_in_one_caller_and_the_others_carry_on_alone() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 9, How::Panic(0));
    let tasks = ["a", "b", "c"].map(|key| fetch(&rig, &mut sim, key));
    tasks.iter().for_each(Task::may_panic);
    sim.run();
    // The loader panics for each of them, so that each panics in its own caller in the end.
    assert!(tasks.iter().all(|task| task.panicked().as_deref() == Some("boom")));
    assert_eq!(rig.origin.take(), [vec!["a", "b", "c"], vec!["b"], vec!["c"]]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn a_load_has_its_deadline_also_when_it_is_gathered() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 9, How::Hang);
    let tasks = ["a", "b"].map(|key| fetch(&rig, &mut sim, key));
    sim.run();
    assert_eq!(kinds(&tasks.map(|task| task.value())), [Some(ErrorKind::Timeout); 2]);
    assert_eq!(sim.now(), 30 * SECOND);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn e9_a_shutdown_in_the_window_lets_nobody_hang() {
    for deadline in [Duration::ZERO, WINDOW / 2, SECOND] {
        let mut sim = sim();
        let rig = gathering(&mut sim, 9, How::Answer(0));
        let tasks = ["a", "b"].map(|key| fetch(&rig, &mut sim, key));
        sim.run_ready();
        let cache = rig.cache.clone();
        sim.block_on(async move { cache.shutdown(deadline).await }).unwrap();
        sim.run();
        let ended = (deadline < WINDOW).then_some(ErrorKind::ShutDown);
        assert_eq!(kinds(&tasks.map(|task| task.value())), [ended; 2]);
        assert_eq!(rig.origin.take().len(), usize::from(ended.is_none()));
        rig.assert_at_rest(&mut sim);
    }
}

#[test]
fn e9_the_last_handle_dropped_in_the_window_ends_it() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 9, How::Answer(0));
    let task = fetch(&rig, &mut sim, "a");
    sim.run_ready();
    task.cancel();
    let origin = rig.origin.clone();
    drop(rig);
    assert_eq!(sim.settle(), [""; 0]);
    assert!(origin.take().is_empty());
}

#[test]
fn without_a_runtime_each_is_loaded_alone() {
    let mut sim = sim();
    let stack = Memory::<str, u64>::new(9);
    let rig = Rig::over(&mut sim, stack, How::Answer(0), |builder| builder.gather(WINDOW, 9));
    sim.refuse_tasks(true);
    let tasks = ["a", "b"].map(|key| fetch(&rig, &mut sim, key));
    sim.run_ready();
    assert_eq!(keys_of(&tasks.map(|task| task.value())), ["a", "b"]);
    assert_eq!(rig.origin.take(), [["a"], ["b"]]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn a_timer_without_tasks_is_not_enough() {
    /// Sleeps, and runs nothing from the second task on.
    struct Half(crate::testkit::SimRuntime, Mutex<usize>);
    impl Runtime for Half {
        fn spawn(&self, task: crate::BoxFuture<'static, ()>) -> Result<(), crate::BoxFuture<'static, ()>> {
            let mut left = self.1.lock();
            if *left == 0 {
                return Err(task);
            }
            *left -= 1;
            self.0.spawn(task)
        }

        fn sleep(&self, duration: Duration) -> Option<crate::BoxFuture<'static, ()>> {
            self.0.sleep(duration)
        }
    }
    let mut sim = sim();
    let half = Half(sim.runtime(), Mutex::new(1));
    let rig = Rig::new(&mut sim, 1, How::Answer(0), |builder| builder.gather(WINDOW, 9).runtime(half));
    let task = fetch(&rig, &mut sim, "a");
    sim.run_ready();
    assert_eq!(keys_of(&[task.value()]), ["a"]);
    rig.assert_at_rest(&mut sim);
}

#[test]
fn a_loader_that_asks_for_the_keys_it_is_to_load_is_told_so() {
    type Users = Cache<Memory<str, u64>, crate::BatchLoader<Memory<str, u64>>>;
    let mut sim = sim();
    let (users, seen) = (Arc::new(OnceLock::<Users>::new()), Arc::new(Mutex::new(Vec::new())));
    let (inner, saw) = (Arc::clone(&users), Arc::clone(&seen));
    let builder = Cache::builder(Memory::<str, u64>::new(9)).ttl(SECOND).runtime(sim.runtime());
    let cache = builder.batch_loader(move |keys: Vec<String>| {
        let (inner, saw) = (Arc::clone(&inner), Arc::clone(&saw));
        async move {
            if keys.len() > 1 {
                let cache = inner.get().unwrap();
                let many = cache.fetch_many(&["b", "c"]).await;
                saw.lock().extend(kinds(&many));
                let one = cache.fetch("a").await;
                saw.lock().extend(kinds(&[one]));
            }
            Ok::<_, Error>(keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
        }
    });
    let cache = cache.gather(WINDOW, 9).build().unwrap();
    users.set(cache.clone()).unwrap();
    for key in ["a", "b"] {
        let cache = cache.clone();
        sim.spawn(key, async move { cache.fetch(key).await.unwrap() });
    }
    sim.run();
    assert_eq!(*seen.lock(), [Some(ErrorKind::Cycle), None, Some(ErrorKind::Cycle)]);
    // The loader holds the cache, which holds the loader.
    drop(users);
}

#[test]
fn a_gathering_that_makes_no_sense_is_refused_by_name() {
    let build = |window, most| {
        let loader = |keys: Vec<u64>| async {
            Ok::<_, Error>(keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
        };
        let builder = Cache::builder(Memory::<u64, u64>::new(9)).ttl(SECOND).batch_loader(loader);
        builder.gather(window, most).build()
    };
    for (window, most) in [(Duration::ZERO, 9), (WINDOW, 0), (30 * SECOND, 9), (Duration::MAX, 9)] {
        let error = build(window, most).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(": gather: "), "{error}");
    }
    let cache = build(WINDOW, 1_000).unwrap();
    assert_eq!(cache.describe().to_string().lines().next().unwrap(), "cache (ttl 1s, gather 10ms or 1,000)");
    assert_eq!(ready(cache.fetch(&1)).unwrap(), 1, "outside a runtime");
    assert_eq!(ready(cache.fetch_many(&[&1, &2])).len(), 2);
}

#[test]
fn e10_a_bypassed_cache_gathers_nothing() {
    let mut sim = sim();
    let origin = super::engine_batches::Origin::default();
    let builder = Cache::builder(Memory::<str, u64>::new(9)).bypass().runtime(sim.runtime());
    let cache = builder.batch_loader(origin.many(How::Answer(0))).gather(WINDOW, 9).build().unwrap();
    for key in ["a", "b"] {
        let cache = cache.clone();
        sim.spawn(key, async move { cache.fetch(key).await.unwrap() });
    }
    sim.run_ready();
    assert_eq!(origin.take(), [["a"], ["b"]]);
}

/// E4: a flight that a write overtook while it waited for company does not keep its successor from a value that is new.
#[test]
fn e4_two_flights_of_one_key_in_one_window_are_one_key_of_the_call() {
    let mut sim = sim();
    let rig = gathering(&mut sim, 9, How::Answer(0));
    let first = fetch(&rig, &mut sim, "a");
    sim.run_ready();
    let cache = rig.cache.clone();
    sim.call(async move { cache.remove("a").await }).unwrap();
    let second = fetch(&rig, &mut sim, "a");
    sim.run();
    assert_eq!(rig.origin.take(), [["a"]]);
    assert_eq!(first.value().unwrap(), second.value().unwrap());
    assert_eq!(rig.events.count("Overtaken"), 1);
    assert_eq!(rig.store.sets(), 1);
    rig.assert_at_rest(&mut sim);
}

/// What a client does: ask for a key, after this many milliseconds, and go away after so many polls.
type Visit = (usize, u8, Option<u64>);

proptest! {
    /// At most so many keys a call, none twice, each within its window, nobody lost.
    #[test]
    fn gathered_calls_keep_to_their_window_and_their_size(
        schedule in schedules(60),
        most in 1..5usize,
        fails in 0..4usize,
        visits in proptest::collection::vec((0..4usize, 0..40u8, proptest::option::weighted(0.2, 1..9u64)), 1..12),
    ) {
        let visits: Vec<Visit> = visits;
        let mut sim = Sim::new(schedule);
        let how = [How::Answer(1), How::Answer(0), How::Fail(1), How::Forget("b")][fails].clone();
        let began = Arc::new(Mutex::new(Vec::<(Duration, Vec<String>)>::new()));
        let asked = Arc::new(Mutex::new(Vec::<(Duration, &'static str)>::new()));
        // Nothing is kept, so that each visit may load.
        let rig = Rig::over(&mut sim, crate::Null::new(), how, |builder| builder.gather(WINDOW, most));
        let start = crate::Clock::now(&rig.clock);
        let log = Arc::clone(&began);
        let clock = rig.clock.clone();
        rig.origin.on_begin(move |keys| {
            log.lock().push((crate::Clock::now(&clock).since(start), keys.to_vec()));
        });
        for (key, after, leaves) in visits {
            let (rig, asked, runtime) = (rig.clone(), Arc::clone(&asked), sim.runtime());
            let task = sim.spawn(KEYS[key], async move {
                if let Some(sleep) = runtime.sleep(Duration::from_millis(after.into())) {
                    sleep.await;
                }
                asked.lock().push((crate::Clock::now(&rig.clock).since(start), KEYS[key]));
                let result = rig.cache.fetch(KEYS[key]).await;
                assert!(result.as_ref().is_ok_and(|value| value % 10 == key as u64)
                    || result.is_err_and(|error| [ErrorKind::Computation, ErrorKind::NotFound].contains(&error.kind())));
            });
            if let Some(polls) = leaves {
                task.cancel_after(polls);
            }
        }
        sim.run();
        for (at, keys) in began.lock().iter() {
            prop_assert!(!keys.is_empty() && keys.len() <= most, "{keys:?}");
            let mut distinct = keys.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), keys.len());
            for key in keys {
                let waited = asked.lock().iter().any(|(came, of)| *of == key && *came <= *at && *at <= *came + WINDOW);
                prop_assert!(waited, "{} was loaded at {:?}, and nobody asked for it within the window", key, at);
            }
        }
        prop_assert_eq!(sim.settle(), [""; 0]);
        prop_assert!(rig.cache.is_idle());
    }
}

#[test]
fn gathering_leaves_reads_and_writes_as_they_are() {
    let mut sim = sim();
    let stack = crate::StoreExt::chain(memory(), remote());
    let rig = Rig::over(&mut sim, stack, How::Answer(0), |builder| builder.gather(WINDOW, 9));
    let tasks = ["a", "b"].map(|key| fetch(&rig, &mut sim, key));
    sim.run();
    assert_eq!(keys_of(&tasks.map(|task| task.value())), ["a", "b"]);
    assert_eq!(rig.store.sets(), 2);
    assert_eq!(rig.events.count("LoadSucceeded"), 2);
    rig.assert_at_rest(&mut sim);
}
