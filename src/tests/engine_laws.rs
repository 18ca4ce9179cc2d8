//! Laws E1 to E14, one by one. The races of E4 stand in `engine_races.rs`.

use std::time::Duration;

use proptest::prelude::*;

use super::bench::{Bench, How, SECOND, TICK, just_before, memory, remote};
use crate::adapters::Chain;
use crate::cache::{CacheBuilder, Computed};
use crate::entry::Freshness;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::Store;
use crate::testkit::Fault;
use crate::testkit::Gate;
use crate::testkit::Sim;
use crate::testkit::{Schedule, explore, seeds};
use crate::time::Clock;

fn plain() -> Sim {
    Sim::new(Schedule::script([]))
}

fn minute<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(60 * SECOND)
}

fn swr<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(60 * SECOND).stale(60 * SECOND)
}

fn kept<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(60 * SECOND).keep_stale_on_error(600 * SECOND)
}

fn kinds(result: &Result<u64>) -> std::result::Result<u64, ErrorKind> {
    result.as_ref().map(|value| *value).map_err(Error::kind)
}

/// Nothing runs, nothing is left, and nobody waited for a deadline.
#[track_caller]
fn at_rest<S: Store<Key = str, Value = u64> + 'static>(sim: &mut Sim, bench: &Bench<S>) {
    assert_eq!(sim.settle(), [""; 0], "leaked");
    assert!(bench.cache.is_idle(), "a flight is stuck");
    assert_eq!(bench.origin.running(), 0, "a computation is stuck");
    assert_eq!(sim.now(), Duration::ZERO, "somebody waited for a deadline");
}

proptest! {
    /// E1, E2, E6, E8: what is served around each deadline, exactly, and what is computed for it.
    #[test]
    fn each_deadline_is_exact(
        fresh in -2..3i64, stale in 0..3i64, keep in 0..3i64,
        serves in any::<bool>(), fails in any::<bool>(), peeks in any::<bool>(),
    ) {
        let mut sim = plain();
        let tier = if peeks { memory() } else { remote() };
        let bench = Bench::new(&mut sim, tier.clone(), if serves { kept } else { swr });
        let keep = if serves { keep } else { 0 };
        let held = bench.entry(7, [fresh, fresh + stale, fresh + stale + keep]);
        // By the law's words, not by the code's.
        let freshness = match [fresh, fresh + stale, fresh + stale + keep].iter().position(|&until| until >= 0) {
            Some(0) => Freshness::Fresh,
            Some(1) => Freshness::Stale,
            Some(_) => Freshness::Expired,
            None => Freshness::Dead,
        };
        tier.inner().plant("k", held.clone());
        bench.origin.bump();

        let peeked = (peeks && freshness == Freshness::Fresh).then_some(7);
        prop_assert_eq!(bench.cache.peek("k"), peeked, "peek serves what is fresh");
        let reader = bench.clone();
        let got = sim.block_on(async move { reader.cache.get("k").await.unwrap() });
        prop_assert_eq!(got, (freshness == Freshness::Fresh).then_some(7), "and so does get");
        prop_assert_eq!(bench.origin.computations(), 0);

        let gate = Gate::default();
        let how = if fails { How::WaitAndFail(gate.clone()) } else { How::Wait(gate.clone()) };
        let caller = bench.ask(&mut sim, "caller", "k", how);
        sim.run_ready();
        let at_once = freshness <= Freshness::Stale;
        prop_assert_eq!(caller.is_done(), at_once, "{:?}", freshness);
        prop_assert_eq!(bench.origin.computations(), u64::from(freshness != Freshness::Fresh));
        gate.open();
        sim.run();
        let expected = match freshness {
            Freshness::Fresh | Freshness::Stale => Ok(7),
            _ if !fails => Ok(1),
            Freshness::Expired => Ok(7),
            Freshness::Dead => Err(ErrorKind::Computation),
        };
        prop_assert_eq!(kinds(&caller.value()), expected, "{:?}", freshness);
        let after = tier.inner().held("k").unwrap();
        if fails || freshness == Freshness::Fresh {
            prop_assert_eq!(after, held, "a failed refresh keeps the entry and its window");
        } else {
            prop_assert_eq!(*after.value(), 1);
            prop_assert_eq!(after.lifetime().fresh_until(), bench.clock.now().saturating_add(60 * SECOND));
        }
        at_rest(&mut sim, &bench);
    }

    /// E12: whatever the clock does, nothing is served as fresh past its life or from the future, nothing
    /// panics, nobody hangs.
    #[test]
    fn the_clock_may_jump_both_ways(
        jumps in proptest::collection::vec((any::<bool>(), 0..4usize, any::<bool>()), 1..12),
    ) {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).stale(SECOND));
        for (back, distance, during) in jumps {
            let by = [SECOND, 5 * SECOND + TICK, 3600 * SECOND, Duration::MAX][distance];
            let clock = bench.clock.clone();
            let jump = move || {
                let now = clock.now();
                clock.set(if back { now.saturating_sub(by) } else { now.saturating_add(by) });
            };
            if !during {
                jump();
            }
            let held = tier.inner().held("k");
            let now = bench.clock.now();
            let computed = bench.origin.computations();
            let origin = bench.origin.clone();
            let caller = bench.clone();
            let answer = sim.block_on(async move {
                let compute = move || async move {
                    if during {
                        jump();
                    }
                    origin.compute(How::Answer(1)).await.unwrap()
                };
                caller.cache.get_or_compute("k", compute).await
            });
            prop_assert!(answer.is_ok());
            sim.run();
            if bench.origin.computations() == computed {
                let life = held.expect("served without a computation").lifetime();
                prop_assert!(now <= life.fresh_until());
                prop_assert!(life.created_at() <= now.saturating_add(5 * SECOND) || life.fresh_until().is_never());
            }
            prop_assert_eq!(sim.settle().len(), 0);
        }
        prop_assert!(bench.cache.is_idle());
    }
}

/// E2: while one refresh runs, every caller is served at once and starts no other.
#[test]
fn many_stale_hits_start_one_refresh() {
    for tier in [memory, remote] {
        let explored = explore(1, 30_000, |sim| {
            let tier = tier();
            let bench = Bench::new(sim, tier.clone(), swr);
            tier.inner().plant("k", bench.entry(7, [-1, 9_000_000_000, 9_000_000_000]));
            bench.origin.bump();
            let gate = Gate::default();
            let callers = ["a", "b", "c"].map(|name| bench.ask(sim, name, "k", How::Wait(gate.clone())));
            sim.run_ready();
            for caller in callers {
                assert_eq!(caller.value().unwrap(), 7);
            }
            assert_eq!(bench.origin.computations(), 1);
            gate.open();
            sim.run();
            assert_eq!(*tier.inner().held("k").unwrap().value(), 1);
            assert_eq!(bench.origin.computations(), 1);
            at_rest(sim, &bench);
        });
        assert!(explored.complete, "{explored}");
    }
}

/// E2: a stale value is served at once, also when a deeper tier is slow to say whether it knows better.
#[test]
fn a_stale_hit_above_does_not_wait_for_a_slow_tier_below() {
    let mut sim = plain();
    let (upper, lower) = (memory(), remote());
    let bench = Bench::new(&mut sim, Chain::new(upper.clone(), lower.clone()), swr);
    upper.inner().plant("k", bench.entry(7, [-1, 9_000_000_000, 9_000_000_000]));
    lower.faults().on(Operation::Get, 0, Fault::HangBefore);
    let caller = bench.ask(&mut sim, "caller", "k", How::Answer(0));
    sim.run_ready();
    assert_eq!(caller.value().unwrap(), 7);
    lower.faults().release();
    sim.settle();
    assert!(bench.cache.is_idle());
}

/// E2: however its refresh ends, and be it before anyone looks, a stale hit is a hit.
#[test]
fn a_stale_hit_is_served_whatever_becomes_of_its_refresh() {
    for how in [How::Fail(0), How::Fail(1), How::Panic(0), How::Panic(1), How::Hang, How::Answer(0)] {
        for (tier, runtime) in [(memory(), true), (memory(), false), (remote(), true), (remote(), false)] {
            if !runtime {
                tier.faults().yields(0, 0);
            }
            let mut sim = plain();
            sim.refuse_tasks(!runtime);
            let bench = Bench::new(&mut sim, tier.clone(), |b| swr(b).refresh_timeout(SECOND));
            tier.inner().plant("k", bench.entry(7, [-1, 9_000_000_000, 9_000_000_000]));
            bench.origin.bump();
            let callers = ["a", "b"].map(|name| bench.ask(&mut sim, name, "k", how.clone()));
            sim.advance(SECOND);
            for caller in callers {
                let value = caller.value().unwrap();
                assert!(value == 7 || (value == 1 && matches!(how, How::Answer(_))), "{how:?}: {value}");
            }
            assert!(sim.settle().is_empty() && bench.cache.is_idle());
        }
    }
}

/// E2, E11: in a strict cache too, a refresh whose result cannot be stored fails no stale hit.
#[test]
fn a_strict_stale_hit_is_served_also_if_its_refresh_cannot_be_stored() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        seeds(20, |sim| {
            let tier = remote();
            tier.faults().on(Operation::Set, 0, fault);
            let bench = Bench::new(sim, tier.clone(), |b| swr(b).strict());
            tier.inner().plant("k", bench.entry(7, [-1, 9_000_000_000, 9_000_000_000]));
            let callers = ["a", "b"].map(|name| bench.ask(sim, name, "k", How::Answer(0)));
            sim.run();
            for caller in callers {
                assert!(matches!(kinds(&caller.value()), Ok(7 | 0)));
            }
        });
    }
}

/// E3: concurrent misses run one computation and one read of the store; every way to ask shares them.
#[test]
fn concurrent_misses_run_one_computation_and_one_read() {
    let explored = explore(2, 30_000, |sim| {
        let tier = memory();
        let bench = Bench::new(sim, tier.clone(), minute);
        bench.origin.bump();
        let first = bench.ask(sim, "try", "k", How::Answer(1));
        let (plain, re) = (bench.clone(), bench.clone());
        let second = sim.spawn("plain", async move {
            let origin = plain.origin.clone();
            let compute = move || async move { origin.compute(How::Answer(1)).await.unwrap() };
            plain.cache.get_or_compute("k", compute).await
        });
        let third = sim.spawn("re", async move {
            let origin = re.origin.clone();
            re.cache.get_or_recompute("k", move |_| origin.compute(How::Answer(1))).await
        });
        sim.run();
        for caller in [first, second, third] {
            assert_eq!(caller.value().unwrap(), 1);
        }
        assert_eq!(bench.origin.computations(), 1);
        assert_eq!(tier.faults().calls(Operation::Get), 1);
        at_rest(sim, &bench);
    });
    assert!(explored.complete, "{explored}");
}

/// E3, E6: whoever waits gets the very error, and whoever comes later a computation of its own.
#[test]
fn an_error_is_shared_and_not_cached() {
    seeds(50, |sim| {
        let bench = Bench::new(sim, remote(), minute);
        let gate = Gate::default();
        let callers = ["a", "b", "c"].map(|name| bench.ask(sim, name, "k", How::WaitAndFail(gate.clone())));
        sim.run_ready();
        gate.open();
        sim.run();
        assert_eq!(bench.origin.computations(), 1);
        for caller in callers {
            let error = caller.value().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Computation);
            assert_eq!(error.source_as::<std::io::Error>().unwrap().to_string(), "origin is down");
        }
        let again = bench.ask(sim, "again", "k", How::Answer(0));
        sim.run();
        assert_eq!(again.value().unwrap(), 0);
        assert_eq!(bench.origin.computations(), 2);
        at_rest(sim, &bench);
    });
}

/// E5: a load outlives the caller that began it, dropped after any of its polls; nobody computes twice.
#[test]
fn a_cancelled_leader_leaves_its_load_running() {
    for tier in [memory, remote] {
        for polls in 0.. {
            let cancelled = std::cell::Cell::new(false);
            explore(1, 30_000, |sim| {
                let tier = tier();
                let bench = Bench::new(sim, tier.clone(), minute);
                bench.origin.bump();
                let leader = bench.ask(sim, "leader", "k", How::Answer(1));
                leader.cancel_after(polls);
                let follower = bench.ask(sim, "follower", "k", How::Answer(1));
                sim.run();
                cancelled.set(cancelled.get() || leader.is_cancelled());
                assert_eq!(follower.value().unwrap(), 1);
                assert_eq!(bench.origin.computations(), 1);
                at_rest(sim, &bench);
                assert_eq!(*tier.inner().held("k").unwrap().value(), 1);
            });
            if !cancelled.get() {
                assert!(polls > 1);
                break;
            }
        }
    }
}

/// E5: without anyone left to wait, the load still ends and is stored.
#[test]
fn a_load_that_nobody_waits_for_is_stored() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), minute);
    let gate = Gate::default();
    let caller = bench.ask(&mut sim, "caller", "k", How::Wait(gate.clone()));
    sim.run_ready();
    caller.cancel();
    sim.run();
    gate.open();
    at_rest(&mut sim, &bench);
    assert!(tier.inner().held("k").is_some());
}

/// E5: a load that never ends frees its key at its deadline, to the tick, and everyone is told.
#[test]
fn a_deadline_frees_the_key_of_a_load_that_hangs() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| minute(b).load_timeout(3 * SECOND));
    let callers = ["a", "b"].map(|name| bench.ask(&mut sim, name, "k", How::Hang));
    sim.advance(just_before(3 * SECOND));
    assert!(callers.iter().all(|caller| !caller.is_done()));
    sim.advance(TICK);
    for caller in callers {
        let error = caller.value().unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Operation::Compute));
    }
    assert_eq!((bench.origin.computations(), bench.origin.running()), (1, 0));
    let next = bench.ask(&mut sim, "next", "k", How::Answer(0));
    sim.run();
    assert_eq!(next.value().unwrap(), 0);
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}

/// E5, E11: a store that hangs costs a deadline, and no answer.
#[test]
fn a_store_that_hangs_costs_a_deadline_and_no_answer() {
    for operation in [Operation::Get, Operation::Set] {
        for strict in [false, true] {
            for fault in [Fault::HangBefore, Fault::HangAfter] {
                let mut sim = plain();
                let tier = remote();
                tier.faults().always(operation, fault);
                let bench = Bench::new(&mut sim, tier, |b| {
                    let builder = minute(b).load_timeout(3 * SECOND);
                    if strict { builder.strict() } else { builder }
                });
                let caller = bench.ask(&mut sim, "caller", "k", How::Answer(1));
                sim.advance(just_before(3 * SECOND));
                assert!(!caller.is_done());
                sim.advance(TICK);
                let expected = if strict { Err(ErrorKind::Timeout) } else { Ok(0) };
                assert_eq!(kinds(&caller.value()), expected, "{operation}");
                assert!(bench.cache.is_idle() && sim.settle().is_empty());
            }
        }
    }
}

/// E5: without a runtime to detach to, everyone is told, and nobody hangs.
#[test]
fn without_a_runtime_everyone_is_told() {
    seeds(50, |sim| {
        sim.refuse_tasks(true);
        let bench = Bench::new(sim, remote(), minute);
        let callers = ["a", "b", "c"].map(|name| bench.ask(sim, name, "k", How::Answer(1)));
        sim.run();
        for caller in callers {
            assert_eq!(caller.value().unwrap_err().kind(), ErrorKind::Unsupported);
        }
        at_rest(sim, &bench);
    });
}

/// E7: a panic unwinds in the caller that brought it; the others carry on, and the key is not poisoned.
#[test]
fn a_panic_unwinds_in_the_caller_that_brought_it() {
    for yields in 0..2 {
        let explored = explore(1, 30_000, |sim| {
            let bench = Bench::new(sim, memory(), minute);
            let bomb = bench.ask(sim, "bomb", "k", How::Panic(yields));
            bomb.may_panic();
            let others = ["a", "b"].map(|name| bench.ask(sim, name, "k", How::Answer(1)));
            sim.run();
            for other in others {
                assert_eq!(other.value().unwrap(), 0);
            }
            // Unless another one was first and the bomb never went off.
            if bench.origin.computations() == 2 {
                assert_eq!(bomb.panicked().as_deref(), Some("boom"));
            } else {
                assert_eq!(bomb.value().unwrap(), 0);
            }
            assert!(sim.detached_panics().is_empty());
            at_rest(sim, &bench);
        });
        assert!(explored.complete, "{explored}");
    }
}

/// E7: so does a panic of the store, wherever it happens.
#[test]
fn a_store_that_panics_poisons_nothing() {
    for operation in [Operation::Get, Operation::Set] {
        seeds(100, |sim| {
            let tier = remote();
            tier.faults().on(operation, 0, Fault::PanicBefore);
            let bench = Bench::new(sim, tier, minute);
            let callers = ["a", "b"].map(|name| bench.ask(sim, name, "k", How::Answer(1)));
            callers.iter().for_each(crate::testkit::Task::may_panic);
            sim.run();
            assert_eq!(callers.iter().filter(|caller| caller.panicked().is_some()).count(), 1);
            assert_eq!(callers.iter().filter(|caller| caller.is_done()).count(), 1);
            at_rest(sim, &bench);
        });
    }
}

/// E7, E2: a refresh that panics is nobody's panic, and the stale entry stays.
#[test]
fn a_refresh_that_panics_unwinds_in_nobody() {
    seeds(50, |sim| {
        let tier = memory();
        let bench = Bench::new(sim, tier.clone(), swr);
        let stale = bench.entry(7, [-1, 9_000_000_000, 9_000_000_000]);
        tier.inner().plant("k", stale.clone());
        let callers = ["a", "b"].map(|name| bench.ask(sim, name, "k", How::Panic(2)));
        sim.run();
        for caller in callers {
            assert_eq!(caller.value().unwrap(), 7);
        }
        assert_eq!(tier.inner().held("k"), Some(stale));
        at_rest(sim, &bench);
    });
}

/// E8: what one value says of itself holds for it, also where the cache says nothing.
#[test]
fn a_value_may_ask_to_be_kept_for_the_case_of_an_error() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), minute);
    let (writer, age) = (bench.clone(), 5 * SECOND);
    let keep = Computed::new(7).ttl(SECOND).keep_stale_on_error(age);
    sim.block_on(async move { writer.cache.set_with("k", keep).await.unwrap() });
    sim.advance(SECOND + age);
    let caller = bench.ask(&mut sim, "caller", "k", How::Fail(0));
    sim.run();
    assert_eq!(kinds(&caller.value()), Ok(7), "until `keep_until` itself");
    sim.advance(TICK);
    let late = bench.ask(&mut sim, "late", "k", How::Fail(0));
    sim.run();
    assert_eq!(kinds(&late.value()), Err(ErrorKind::Computation));
}

/// E8: without end only when asked, and then without end.
#[test]
fn an_entry_is_kept_for_ever_when_asked() {
    for forever in [false, true] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, memory(), |b| {
            if forever { minute(b).keep_stale_on_error_forever() } else { kept(b) }
        });
        let fill = bench.ask(&mut sim, "fill", "k", How::Answer(0));
        sim.run();
        fill.value().unwrap();
        sim.advance(1_000_000 * SECOND);
        let caller = bench.ask(&mut sim, "caller", "k", How::Fail(1));
        sim.run();
        assert_eq!(caller.value().is_ok(), forever);
    }
}

/// E8, E4: a failed computation does not bring back what was removed while it ran.
#[test]
fn a_failed_computation_brings_nothing_back() {
    for clear in [false, true] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), kept);
        tier.inner().plant("k", bench.entry(7, [-1, -1, 9_000_000_000]));
        let gate = Gate::default();
        let caller = bench.ask(&mut sim, "caller", "k", How::WaitAndFail(gate.clone()));
        sim.run_ready();
        let writer = bench.clone();
        let remove =
            async move { if clear { writer.cache.clear().await } else { writer.cache.remove("k").await } };
        assert!(sim.call(remove).is_ok());
        gate.open();
        sim.run();
        assert_eq!(kinds(&caller.value()), Err(ErrorKind::Computation));
        at_rest(&mut sim, &bench);
    }
}
