//! Laws E9 to E14: what bounds the engine, what it leaves alone, and what it does not confuse.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::bench::{Bench, How, SECOND, TICK, just_before, memory, remote};
use super::rig::Tier;
use crate::cache::{Cache, CacheBuilder};
use crate::error::{ErrorKind, Operation};
use crate::store::{SetOutcome, Store};
use crate::testkit::Gate;
use crate::testkit::Model;
use crate::testkit::Sim;
use crate::testkit::{Fault, Faulty};
use crate::testkit::{Schedule, explore};
use crate::time::{Clock, Timestamp};

fn plain() -> Sim {
    Sim::new(Schedule::script([]))
}

fn minute<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(60 * SECOND)
}

fn swr<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(60 * SECOND).stale(600 * SECOND)
}

/// Puts stale entries of these keys into the tier.
fn plant_stale(bench: &Bench<Tier>, tier: &Tier, keys: &[&str]) {
    for key in keys {
        tier.inner().plant(key, bench.entry(7, [-1, 500_000_000_000, 500_000_000_000]));
    }
}

/// E9: a refresh that hangs is dropped at its deadline, to the tick, and the next stale hit tries again.
#[test]
fn a_refresh_has_a_deadline() {
    for (limit, set) in [(30 * SECOND, None), (2 * SECOND, Some(2 * SECOND))] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| match set {
            Some(limit) => swr(b).refresh_timeout(limit),
            None => swr(b),
        });
        plant_stale(&bench, &tier, &["k"]);
        let ask = |sim: &mut Sim, how| {
            let caller = bench.ask(sim, "caller", "k", how);
            sim.run_ready();
            caller.value().unwrap()
        };
        assert_eq!(ask(&mut sim, How::Hang), 7);
        sim.advance(just_before(limit));
        assert_eq!(
            (ask(&mut sim, How::Hang), bench.origin.computations(), bench.origin.running()),
            (7, 1, 1)
        );
        sim.advance(TICK);
        assert_eq!((bench.origin.running(), bench.events.count("RefreshFailed")), (0, 1));
        bench.origin.bump();
        ask(&mut sim, How::Answer(0));
        assert_eq!((ask(&mut sim, How::Hang), bench.origin.computations()), (1, 2));
        assert!(bench.cache.is_idle());
    }
}

/// E9: so many refreshes at once and no more; one that may not begin costs its caller nothing.
#[test]
fn refreshes_are_limited_and_the_limit_is_given_back() {
    let keys = ["a", "b", "c", "d"];
    for (how, ends) in [("answer", "RefreshSucceeded"), ("fail", "RefreshFailed")] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| swr(b).max_refreshes(2));
        plant_stale(&bench, &tier, &keys);
        for round in 1..3 {
            let gate = Gate::default();
            for key in keys {
                let gate = gate.clone();
                let how = if how == "fail" { How::WaitAndFail(gate) } else { How::Wait(gate) };
                let caller = bench.ask(&mut sim, key, key, how);
                sim.run_ready();
                assert!(caller.value().is_ok());
            }
            assert_eq!(bench.origin.running(), 2, "round {round}");
            assert_eq!(bench.events.count("RefreshSkipped"), 2 * round);
            gate.open();
            sim.run();
            assert_eq!((bench.origin.running(), bench.events.count(ends)), (0, 2 * round));
            plant_stale(&bench, &tier, &keys);
        }
    }
}

/// E9: a refresh that panics gives its place back.
#[test]
fn a_refresh_that_panics_gives_its_place_back() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| swr(b).max_refreshes(1));
    plant_stale(&bench, &tier, &["k"]);
    for _ in 0..3 {
        let caller = bench.ask(&mut sim, "caller", "k", How::Panic(1));
        sim.run();
        assert_eq!(caller.value().unwrap(), 7);
    }
    assert_eq!((bench.events.count("RefreshPanicked"), bench.events.count("RefreshSkipped")), (3, 0));
}

/// E9: dropping the last handle, and only the last one, stops what runs, without waiting for a deadline.
#[test]
fn dropping_the_last_handle_stops_what_runs() {
    for refresh in [true, false] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), swr);
        if refresh {
            plant_stale(&bench, &tier, &["k"]);
        }
        let caller = bench.ask(&mut sim, "caller", "k", How::Hang);
        sim.run_ready();
        caller.cancel();
        sim.run();
        let (other, origin) = (bench.cache.clone(), bench.origin.clone());
        drop(bench);
        sim.run();
        assert_eq!(origin.running(), 1, "a handle is left");
        drop(other);
        sim.run();
        assert_eq!(origin.running(), 0);
        assert_eq!((sim.settle().len(), sim.now()), (0, Duration::ZERO));
        assert_eq!(Arc::strong_count(&tier), 1, "the store is let go");
    }
}

/// E9: shutdown waits for what ends in time, cuts off the rest at its deadline, and says how many.
#[test]
fn shutdown_drains_then_cuts_off() {
    for (hangs, waits) in [(0, 0), (0, 3), (2, 0), (2, 3)] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, memory(), minute);
        let gate = Gate::default();
        let keys = ["a", "b", "c", "d", "e"];
        let callers: Vec<_> = (0..hangs + waits)
            .map(|i| {
                let how = if i < hangs { How::Hang } else { How::Wait(gate.clone()) };
                bench.ask(&mut sim, keys[i], keys[i], how)
            })
            .collect();
        sim.run_ready();
        let closer = bench.clone();
        let shutdown = sim.spawn("shutdown", async move { closer.cache.shutdown(5 * SECOND).await });
        sim.run_ready();
        assert_eq!(shutdown.is_done(), hangs + waits == 0);
        let late = bench.ask(&mut sim, "late", "late", How::Answer(0));
        sim.run_ready();
        assert_eq!(late.value().unwrap_err().kind(), ErrorKind::ShutDown);
        gate.open();
        sim.advance(just_before(5 * SECOND));
        assert_eq!(shutdown.is_done(), hangs == 0);
        sim.advance(TICK);
        let report = shutdown.value().unwrap();
        assert_eq!((report.drained, report.aborted), (waits, hangs));
        for (i, caller) in callers.iter().enumerate() {
            let expected = if i < hangs { Err(ErrorKind::ShutDown) } else { Ok(0) };
            assert_eq!(caller.value().map_err(|error| error.kind()), expected);
        }
        assert!(bench.cache.is_idle() && bench.origin.running() == 0 && sim.settle().is_empty());
    }
}

/// E9: after a shutdown hits are served on, fresh and stale, from fast tiers and slow ones; nothing is
/// computed.
#[test]
fn after_a_shutdown_hits_are_served_on() {
    for tier in [memory(), remote()] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, tier.clone(), swr);
        plant_stale(&bench, &tier, &["stale"]);
        tier.inner().plant("fresh", bench.entry(8, [1, 1, 1]));
        tier.inner().plant("dead", bench.entry(9, [-1, -1, -1]));
        let closer = bench.clone();
        sim.block_on(async move { closer.cache.shutdown(SECOND).await.unwrap() });
        for (key, expected) in [("fresh", Ok(8)), ("stale", Ok(7)), ("dead", Err(ErrorKind::ShutDown))] {
            let caller = bench.ask(&mut sim, key, key, How::Answer(0));
            sim.run();
            assert_eq!(caller.value().map_err(|error| error.kind()), expected, "{key}");
        }
        assert_eq!(bench.origin.computations(), 0);
        assert!(bench.cache.is_idle() && sim.settle().is_empty());
    }
}

/// E9: a shutdown flushes the store, and says if that failed or took too long.
#[test]
fn shutdown_flushes() {
    for (fault, expected) in [
        (None, None),
        (Some(Fault::FailBefore), Some(ErrorKind::Unavailable)),
        (Some(Fault::HangBefore), Some(ErrorKind::Timeout)),
    ] {
        let mut sim = plain();
        let tier = memory();
        if let Some(fault) = fault {
            tier.faults().always(Operation::Flush, fault);
        }
        let bench = Bench::new(&mut sim, tier.clone(), minute);
        let result = sim.block_on(async move { bench.cache.shutdown(SECOND).await });
        assert_eq!(result.err().map(|error| error.kind()), expected);
        assert_eq!(tier.faults().calls(Operation::Flush), 1);
    }
}

/// E10: every call computes, and the store is not even asked.
#[test]
fn bypass_computes_always_and_touches_no_store() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| swr(b).bypass());
    tier.inner().plant("k", bench.entry(7, [1, 1, 1]));
    for round in 1..4 {
        bench.origin.bump();
        let callers = ["a", "b"].map(|name| bench.ask(&mut sim, name, "k", How::Answer(1)));
        sim.run();
        for caller in callers {
            assert_eq!(caller.value().unwrap(), round);
        }
        assert_eq!(bench.origin.computations(), 2 * round);
        let cache = bench.cache.clone();
        sim.block_on(async move {
            assert_eq!((cache.peek("k"), cache.get("k").await.unwrap()), (None, None));
            assert!(cache.set("k", 1).await.unwrap() != SetOutcome::Stored);
            cache.remove("k").await.unwrap();
            cache.clear().await.unwrap();
        });
    }
    assert!(tier.faults().log().is_empty(), "{:?}", tier.faults().log());
    assert_eq!(tier.inner().held("k").map(|entry| *entry.value()), Some(7));
}

/// E11: a store that fails costs an event and no answer, unless the cache is strict; then it is an error
/// of the store, and the computation did not fail for it.
#[test]
fn a_store_that_fails_costs_an_event_and_no_answer() {
    for operation in [Operation::Get, Operation::Set] {
        for fault in [Fault::FailBefore, Fault::FailAfter] {
            for strict in [false, true] {
                let mut sim = plain();
                let tier = remote();
                tier.faults().always(operation, fault);
                let bench =
                    Bench::new(&mut sim, tier, |b| if strict { minute(b).strict() } else { minute(b) });
                let callers = ["a", "b"].map(|name| bench.ask(&mut sim, name, "k", How::Answer(1)));
                sim.run();
                for caller in callers {
                    let expected = if strict { Err((ErrorKind::Unavailable, operation)) } else { Ok(0) };
                    let answer = caller.value().map_err(|error| (error.kind(), error.operation()));
                    assert_eq!(answer, expected);
                }
                assert_eq!(bench.events.count("StoreFailed"), 1, "{operation} {fault:?} strict: {strict}");
                let computes = !(strict && operation == Operation::Get);
                assert_eq!(bench.origin.computations(), u64::from(computes));
                assert!(bench.cache.is_idle() && sim.settle().is_empty());
            }
        }
    }
}

/// E11: what a caller asks of the store itself, the store answers.
#[test]
fn a_caller_who_writes_is_told_that_the_store_failed() {
    let mut sim = plain();
    let tier = remote();
    tier.faults().down();
    let bench = Bench::new(&mut sim, tier, minute);
    sim.block_on(async move {
        assert_eq!(bench.cache.set("k", 1).await.unwrap_err().operation(), Operation::Set);
        assert_eq!(bench.cache.remove("k").await.unwrap_err().operation(), Operation::Remove);
        assert_eq!(bench.cache.clear().await.unwrap_err().operation(), Operation::Clear);
        assert_eq!(bench.cache.get("k").await.unwrap_err().operation(), Operation::Get);
        assert_eq!(bench.events.count("StoreFailed"), 4);
        assert!(bench.cache.is_idle());
    });
}

/// E11: a value that the store refuses is the caller's all the same.
#[test]
fn a_refused_value_is_given_to_the_caller() {
    let mut sim = plain();
    let tier = remote();
    tier.faults().always(Operation::Set, Fault::Refuse);
    let bench = Bench::new(&mut sim, tier, |b| minute(b).strict());
    let caller = bench.ask(&mut sim, "caller", "k", How::Answer(1));
    sim.run();
    assert_eq!(caller.value().unwrap(), 0);
    assert_eq!(bench.events.count("Refused"), 1);
}

/// E12: an entry from the future, by more than hosts may differ, is not fresh; within the skew it is.
#[test]
fn an_entry_from_the_future_is_not_fresh() {
    for (ahead, fresh) in [(5 * SECOND, true), (5 * SECOND + TICK, false)] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), minute);
        let entry = crate::entry::Entry::fresh_for(7, bench.clock.now().saturating_add(ahead), 60 * SECOND);
        tier.inner().plant("k", entry);
        assert_eq!(bench.cache.peek("k").is_some(), fresh);
        let caller = bench.ask(&mut sim, "caller", "k", How::Answer(1));
        sim.run();
        assert_eq!(caller.value().unwrap(), if fresh { 7 } else { 0 });
    }
}

/// E13: freshness is judged after the store was read, however long that took.
#[test]
fn freshness_is_judged_after_the_read() {
    for (waits, expected) in [(SECOND, 7), (SECOND + TICK, 0)] {
        let mut sim = plain();
        let tier = remote();
        let bench = Bench::new(&mut sim, tier.clone(), minute);
        tier.inner().plant("k", bench.entry(7, [1_000_000_000; 3]));
        tier.faults().on(Operation::Get, 0, Fault::HangAfter);
        let caller = bench.ask(&mut sim, "caller", "k", How::Answer(1));
        sim.advance(waits);
        tier.faults().release();
        sim.run();
        assert_eq!(caller.value().unwrap(), expected, "{waits:?}");

        tier.inner().plant("l", bench.entry(7, [1_000_000_000; 3]));
        let tier = remote();
        let bench = Bench::new(&mut sim, tier.clone(), minute);
        tier.inner().plant("l", bench.entry(7, [1_000_000_000; 3]));
        tier.faults().on(Operation::Get, 0, Fault::HangAfter);
        let reader = bench.clone();
        let reader = sim.spawn("get", async move { reader.cache.get("l").await });
        sim.advance(waits);
        tier.faults().release();
        sim.run();
        assert_eq!(reader.value().unwrap().is_some(), expected == 7, "{waits:?}");
    }
}

/// E13: deadlines count from the end of the computation, age from its beginning; for a refresh too.
#[test]
fn deadlines_count_from_the_end_and_age_from_the_beginning() {
    for refresh in [false, true] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), swr);
        if refresh {
            plant_stale(&bench, &tier, &["k"]);
        }
        let began = bench.clock.now();
        let gate = Gate::default();
        let caller = bench.ask(&mut sim, "caller", "k", How::Wait(gate.clone()));
        sim.advance(3 * SECOND);
        gate.open();
        sim.run();
        caller.value().unwrap();
        let life = tier.inner().held("k").unwrap().lifetime();
        assert_eq!(life.created_at(), began);
        assert_eq!(life.fresh_until(), began.saturating_add(63 * SECOND));
        assert_eq!(life.stale_until(), began.saturating_add(663 * SECOND));
    }
}

/// A key whose hash is that of every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Same(u64);

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        0.hash(state);
    }
}

/// E14: keys with equal hashes share neither entry nor flight, nor does a write of one fence another.
#[test]
fn equal_hashes_share_nothing() {
    let explored = explore(1, 30_000, |sim| {
        let tier = Arc::new(Faulty::new(Model::<Same, u64>::new()));
        let cache = Cache::builder(tier.clone()).ttl(SECOND).runtime(sim.runtime()).build().unwrap();
        for key in 0..2 {
            let cache = cache.clone();
            sim.spawn(format!("ask {key}"), async move {
                let value = cache.get_or_compute(&Same(key), move || async move { key }).await;
                assert_eq!(value.unwrap(), key);
            });
        }
        let writer = cache.clone();
        sim.spawn("writer", async move { writer.remove(&Same(9)).await.unwrap() });
        sim.run();
        for key in 0..2 {
            assert_eq!(tier.inner().held(&Same(key)).map(|entry| *entry.value()), Some(key));
        }
        assert!(cache.is_idle());
    });
    assert!(explored.complete, "{explored}");
}

/// A ttl without end ends never, and so do the windows after it.
#[test]
fn the_longest_ttl_is_never() {
    for ttl in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(u64::MAX / 1_000_000_000)]
    {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| b.ttl(ttl).stale(ttl).keep_stale_on_error(ttl));
        let caller = bench.ask(&mut sim, "caller", "k", How::Answer(1));
        sim.run();
        caller.value().unwrap();
        let life = tier.inner().held("k").unwrap().lifetime();
        assert!(
            life.fresh_until().is_never() && life.stale_until().is_never() && life.keep_until().is_never()
        );
        bench.clock.set(Timestamp::from_nanos(u64::MAX - 1));
        assert_eq!(bench.cache.peek("k"), Some(0));
    }
}

/// Every duration at its largest: nothing wraps, panics or ends.
#[test]
fn the_longest_durations_saturate() {
    let mut sim = plain();
    let tier = memory();
    let max = Duration::MAX;
    let bench = Bench::new(&mut sim, tier.clone(), |b| {
        let builder = b.ttl(max).stale(max).keep_stale_on_error(max).jitter(1.0).clock_skew(max);
        builder.load_timeout(max).refresh_timeout(max).max_refreshes(usize::MAX)
    });
    let caller = bench.ask(&mut sim, "caller", "k", How::Answer(2));
    sim.run();
    assert_eq!(caller.value().unwrap(), 0);
    plant_stale(&bench, &tier, &["l"]);
    let gate = Gate::default();
    let caller = bench.ask(&mut sim, "caller", "l", How::Wait(gate.clone()));
    sim.run_ready();
    assert_eq!(caller.value().unwrap(), 7);
    gate.open();
    sim.run();
    let closer = bench.clone();
    let report = sim.block_on(async move { closer.cache.shutdown(max).await.unwrap() });
    assert_eq!(report.aborted, 0);
    assert_eq!((sim.settle().len(), sim.now()), (0, Duration::ZERO));
}

/// A computation may ask for other keys; a circle through its own is an error, and a circle that two
/// callers close from both ends is ended by the deadline.
#[test]
fn nested_computations_do_not_hang() {
    let nested = |bench: &Bench<Tier>, outer: &'static str, inner: &'static str, gate: Option<Gate>| {
        let (bench, below) = (bench.clone(), bench.clone());
        async move {
            let compute = move || async move {
                if let Some(gate) = gate {
                    gate.wait().await;
                }
                below.get(inner, How::Answer(1)).await
            };
            bench.cache.get_or_try_compute(outer, compute).await
        }
    };
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), minute);
    assert_eq!(sim.block_on(nested(&bench, "a", "b", None)).unwrap(), 0);
    let error = sim.block_on(nested(&bench, "c", "c", None)).unwrap_err();
    let cycle: &crate::error::Error = error.source_as().unwrap();
    assert_eq!((cycle.kind(), sim.now()), (ErrorKind::Cycle, Duration::ZERO));

    let gate = Gate::default();
    let ends = [
        sim.spawn("d", nested(&bench, "d", "e", Some(gate.clone()))),
        sim.spawn("e", nested(&bench, "e", "d", Some(gate.clone()))),
    ];
    sim.run_ready();
    gate.open();
    sim.run();
    for end in ends {
        let _ = end.value().unwrap_err();
    }
    assert_eq!(sim.now(), 30 * SECOND);
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}
