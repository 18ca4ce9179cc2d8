//! Laws E18 and E19 over tiers: what an early refresh does, and what it leaves alone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::bench::{Bench, How, SECOND, TICK, memory, remote};
use super::rig::Tier;
use crate::adapters::Chain;
use crate::cache::{Cache, CacheBuilder, Computed};
use crate::entry::Entry;
use crate::error::ErrorKind;
use crate::store::Store;
use crate::testkit::{Gate, Schedule, Sim, explore};
use crate::tests::alloc::allocations;
use crate::tests::ready;
use crate::time::{Clock, ManualClock, Timestamp};
use crate::{Memory, StoreExt};

const MINUTE: Duration = Duration::from_secs(60);

fn plain() -> Sim {
    Sim::new(Schedule::script([]))
}

/// The clock of a bench that is not there yet.
#[derive(Clone, Default)]
struct Borrowed(Arc<OnceLock<ManualClock>>);

impl Clock for Borrowed {
    fn now(&self) -> Timestamp {
        self.0.get().map_or(Timestamp::EPOCH, ManualClock::now)
    }
}

/// Due in the last 12 s of a minute.
fn early<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(MINUTE).refresh_ahead(0.8)
}

/// Puts an entry of this age into the tier, with a ttl of a minute.
fn plant<S: Store<Key = str, Value = u64> + 'static>(
    bench: &Bench<S>,
    tier: &Tier,
    value: u64,
    age: Duration,
) {
    let created = bench.clock.now().saturating_sub(age);
    tier.inner().plant("k", Entry::fresh_for(value, created, MINUTE));
}

fn asked<S: Store<Key = str, Value = u64> + 'static>(bench: &Bench<S>, sim: &mut Sim, how: How) -> u64 {
    let before = sim.now();
    let caller = bench.ask(sim, "caller", "k", how);
    sim.run_ready();
    assert_eq!(sim.now(), before);
    caller.value().expect("a fresh entry is served at once")
}

/// E18: the boundary, to the nanosecond, over a tier that answers at once and one that has to be waited for.
#[test]
fn e18_a_due_hit_is_served_at_once_and_starts_one_refresh() {
    for tier in [memory(), remote()] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, tier.clone(), early);
        bench.origin.bump();
        plant(&bench, &tier, 7, 48 * SECOND);
        assert_eq!(asked(&bench, &mut sim, How::Hang), 7);
        assert_eq!((bench.origin.computations(), bench.events.count("RefreshStarted")), (0, 0), "not due");
        sim.advance(TICK);
        let gate = Gate::default();
        for _ in 0..5 {
            assert_eq!(asked(&bench, &mut sim, How::Wait(gate.clone())), 7);
        }
        assert_eq!((bench.origin.computations(), bench.origin.running()), (1, 1));
        gate.open();
        sim.run();
        assert_eq!(asked(&bench, &mut sim, How::Hang), 1);
        let told = ["RefreshStarted", "RefreshSucceeded", "Miss", "StaleHit", "RefreshSkipped"];
        assert_eq!(told.map(|name| bench.events.count(name)), [1, 1, 0, 0, 0]);
        // Who has to wait for the tier joins the refresh, and is shown what it shows.
        assert_eq!(bench.events.count("Hit") + bench.events.count("Joined"), 7);
        assert!(bench.cache.is_idle());
    }
}

/// E18: whatever the schedule, a second caller never waits for the first one's refresh.
#[test]
fn e18_nobody_waits_under_any_schedule() {
    explore(2, 400, |sim| {
        let tier = memory();
        let bench = Bench::new(sim, tier.clone(), early);
        plant(&bench, &tier, 7, 50 * SECOND);
        let callers: Vec<_> = ["a", "b", "c"].map(|name| bench.ask(sim, name, "k", How::Hang)).into();
        sim.run_ready();
        for caller in &callers {
            assert_eq!(caller.value().unwrap(), 7);
        }
        assert_eq!(bench.origin.computations(), 1);
        assert_eq!(bench.events.count("Hit"), 3);
    });
}

/// E18: the refresh looks below the copy that is due, and takes one that is fresh for longer and not due itself.
#[test]
fn e18_a_deeper_tier_may_know_better() {
    for (below, computes, last) in
        [(None, 1, 0), (Some(50), 1, 0), (Some(49), 1, 0), (Some(48), 0, 9), (Some(0), 0, 9)]
    {
        let mut sim = plain();
        let (upper, lower) = (memory(), remote());
        let bench = Bench::new(&mut sim, Chain::new(upper.clone(), lower.clone()), early);
        plant(&bench, &upper, 7, 50 * SECOND);
        if let Some(age) = below {
            plant(&bench, &lower, 9, age * SECOND);
        }
        assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
        sim.run();
        assert_eq!(bench.origin.computations(), computes, "{below:?}");
        assert_eq!(asked(&bench, &mut sim, How::Hang), last, "{below:?}");
        assert_eq!(bench.origin.computations(), computes, "{below:?}");
    }
}

/// E18: a copy that a tier serves for less than its life is not due because its cap is near.
#[test]
fn e18_a_capped_copy_is_due_with_its_original() {
    let mut sim = plain();
    let (upper, lower) = (memory(), remote());
    let clock = Borrowed::default();
    let capped = upper.clone().fresh_for_at_most(10 * SECOND).clock(clock.clone());
    let bench = Bench::new(&mut sim, Chain::new(capped, lower.clone()), early);
    clock.0.set(bench.clock.clone()).unwrap();
    bench.origin.bump();
    plant(&bench, &lower, 7, 40 * SECOND);
    // Copied upwards for 10 s, of which 8 are less than a fifth of its age.
    assert_eq!(asked(&bench, &mut sim, How::Hang), 7);
    sim.advance(2 * SECOND);
    for _ in 0..5 {
        assert_eq!(asked(&bench, &mut sim, How::Hang), 7);
    }
    let reads = lower.faults().calls(crate::error::Operation::Get);
    assert!(reads <= 2, "{reads} reads below");
    assert_eq!(bench.origin.computations(), 0);
    sim.advance(6 * SECOND + Duration::from_nanos(65_537));
    assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
    sim.run();
    assert_eq!(
        (bench.origin.computations(), asked(&bench, &mut sim, How::Hang)),
        (1, 1),
        "due with its original"
    );
}

/// E18: a refresh that fails leaves the entry, and is tried again no sooner than a second later.
#[test]
fn e18_a_failing_origin_is_asked_once_a_second() {
    for how in [How::Fail(0), How::Panic(0)] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), early);
        plant(&bench, &tier, 7, 49 * SECOND);
        for _ in 0..110 {
            for _ in 0..3 {
                assert_eq!(asked(&bench, &mut sim, how.clone()), 7);
            }
            sim.advance(SECOND / 10);
        }
        assert_eq!(bench.origin.computations(), 10);
        assert!(bench.cache.is_idle());
    }
}

/// E19: what may not begin is skipped and told, the value is served, and the next call tries again.
#[test]
fn e19_a_refresh_over_the_rate_is_skipped() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| early(b).stale(MINUTE).refreshes_per_second(0.5));
    plant(&bench, &tier, 7, 50 * SECOND);
    assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
    sim.run();
    assert_eq!(bench.events.count("RefreshSucceeded"), 1);
    for hits in ["Hit", "StaleHit"] {
        if hits == "Hit" {
            plant(&bench, &tier, 7, 51 * SECOND);
        } else {
            tier.inner().plant("k", bench.entry(7, [-1, 60_000_000_000, 60_000_000_000]));
        }
        let before = bench.events.count(hits);
        for _ in 0..3 {
            assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
        }
        assert_eq!(bench.events.count(hits), before + 3);
    }
    assert_eq!((bench.events.count("RefreshSkipped"), bench.origin.computations()), (6, 1));
    sim.advance(2 * SECOND);
    assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
    sim.run();
    assert_eq!((bench.events.count("RefreshSkipped"), bench.origin.computations()), (6, 2));
}

/// E18: what only reads starts nothing, nor does anything after a shutdown, nor where the cache is bypassed.
#[test]
fn e18_nothing_begins_where_nothing_may() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), early);
    plant(&bench, &tier, 7, 50 * SECOND);
    assert_eq!((bench.cache.peek("k"), bench.cache.peek_with("k", |value| *value)), (Some(7), Some(7)));
    let reader = bench.clone();
    let get = sim.spawn("get", async move { reader.cache.get("k").await });
    sim.run();
    assert_eq!(get.value().unwrap(), Some(7));
    let closer = bench.clone();
    let shutdown = sim.spawn("shutdown", async move { closer.cache.shutdown(SECOND).await });
    sim.run();
    shutdown.value().unwrap();
    assert_eq!(asked(&bench, &mut sim, How::Hang), 7);
    assert_eq!((bench.origin.computations(), bench.events.count("RefreshSkipped")), (0, 0));

    let bench = Bench::new(&mut sim, tier.clone(), |b| early(b).bypass());
    plant(&bench, &tier, 7, 50 * SECOND);
    assert_eq!((asked(&bench, &mut sim, How::Answer(0)), bench.origin.computations()), (0, 1));
}

/// E3: who comes after the deadline waits for the early refresh that runs, and computes nothing of its own.
#[test]
fn e18_a_miss_joins_the_early_refresh() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), early);
    bench.origin.bump();
    plant(&bench, &tier, 7, 59 * SECOND);
    let gate = Gate::default();
    assert_eq!(asked(&bench, &mut sim, How::Wait(gate.clone())), 7);
    sim.advance(2 * SECOND);
    let late = bench.ask(&mut sim, "late", "k", How::Hang);
    sim.run_ready();
    assert!(!late.is_done());
    gate.open();
    sim.run();
    assert_eq!((late.value().unwrap(), bench.origin.computations()), (1, 1));
}

/// E4: a write overtakes an early refresh like any other.
#[test]
fn e18_a_write_overtakes_an_early_refresh() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), early);
    plant(&bench, &tier, 7, 50 * SECOND);
    let gate = Gate::default();
    assert_eq!(asked(&bench, &mut sim, How::Wait(gate.clone())), 7);
    let writer = bench.clone();
    let set = sim.spawn("set", async move { writer.cache.set("k", 8).await });
    sim.run_ready();
    set.value().unwrap();
    gate.open();
    sim.run();
    assert_eq!((asked(&bench, &mut sim, How::Hang), bench.events.count("Overtaken")), (8, 1));
}

/// E18: a computation that asks for its own key while the old value is fresh gets that.
#[test]
fn e18_a_refresh_may_read_its_own_key() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), early);
    plant(&bench, &tier, 7, 50 * SECOND);
    let (outer, inner) = (bench.clone(), bench.clone());
    let caller = sim.spawn("caller", async move {
        let again = move || async move { inner.get("k", How::Hang).await.map(|value| value + 1) };
        outer.cache.get_or_try_compute("k", again).await
    });
    sim.run();
    assert_eq!((caller.value().unwrap(), asked(&bench, &mut sim, How::Hang)), (7, 8));
}

/// E18: without a runtime a refresh that ends at once runs, and one that does not costs its caller nothing.
#[test]
fn e18_outside_a_runtime_a_due_hit_is_a_hit() {
    let clock = ManualClock::new(Timestamp::from_nanos(1));
    let cache = early(Cache::builder(Memory::<str, u64>::new(10))).clock(clock.clone()).build().unwrap();
    ready(cache.set("k", 7)).unwrap();
    clock.advance(50 * SECOND);
    assert_eq!(ready(cache.get_or_compute("k", std::future::pending::<u64>)).unwrap(), 7);
    assert!(cache.is_idle());
    clock.advance(2 * SECOND);
    assert_eq!(ready(cache.get_or_compute("k", || async { 8 })).unwrap(), 7);
    assert_eq!(cache.peek("k"), Some(8));
}

/// E18, E11: a strict cache serves the fresh entry, whether its refresh can be stored or not.
#[test]
fn e18_a_strict_cache_serves_a_due_hit() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| early(b).strict());
    plant(&bench, &tier, 7, 50 * SECOND);
    tier.faults().down_for(crate::error::Operation::Set);
    assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
    sim.run();
    assert_eq!((asked(&bench, &mut sim, How::Hang), bench.events.count("StoreFailed")), (7, 1));
}

/// E18 by cost: dear values are refreshed before their deadline, and what is not due is not.
#[test]
fn e18_by_cost_a_dear_value_is_refreshed_before_its_deadline() {
    let mut sim = plain();
    let tier = memory();
    let bench =
        Bench::new(&mut sim, tier.clone(), |b| b.ttl(MINUTE).refresh_ahead_by_cost(1.0).jitter_seed(3));
    let gate = Gate::default();
    let first = bench.ask(&mut sim, "first", "k", How::Wait(gate.clone()));
    sim.advance(2 * SECOND);
    gate.open();
    sim.run();
    first.value().unwrap();
    let mut asked_for = 0;
    while bench.origin.computations() == 1 {
        sim.advance(SECOND / 10);
        assert_eq!(asked(&bench, &mut sim, How::Hang), 0);
        asked_for += 1;
    }
    assert!((400..600).contains(&asked_for), "{asked_for} tenths of a second after it was loaded");
}

/// D3: a hit that is not due, and one whose refresh is running, allocate nothing.
#[test]
fn e18_a_hit_that_starts_nothing_allocates_nothing() {
    for by_cost in [false, true] {
        let clock = ManualClock::new(Timestamp::from_nanos(1));
        let builder = Cache::builder(Memory::<str, u64>::new(10)).ttl(MINUTE).clock(clock.clone());
        let builder = if by_cost { builder.refresh_ahead_by_cost(1.0) } else { builder.refresh_ahead(0.8) };
        let cache = builder.build().unwrap();
        ready(cache.set_with("k", Computed::new(7))).unwrap();
        let hit = || assert_eq!(ready(cache.get_or_compute("k", || async { 8 })).unwrap(), 7);
        hit();
        assert_eq!(allocations(hit), 0, "by cost: {by_cost}");
        clock.advance(50 * SECOND);
        if !by_cost {
            // It begins, cannot go on without a runtime, and is left alone for a second.
            assert_eq!(ready(cache.get_or_compute("k", std::future::pending::<u64>)).unwrap(), 7);
        }
        assert_eq!(allocations(hit), 0, "by cost: {by_cost}, due and tried");
    }
}

/// E9: dropping the last handle stops an early refresh too.
#[test]
fn e18_the_last_handle_stops_an_early_refresh() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), early);
    plant(&bench, &tier, 7, 50 * SECOND);
    asked(&bench, &mut sim, How::Hang);
    let origin = bench.origin.clone();
    assert_eq!(origin.running(), 1);
    drop(bench);
    sim.run();
    assert_eq!((origin.running(), Arc::strong_count(&tier)), (0, 1));
}

/// E11: a refresh whose tiers fail to answer computes, or leaves the fresh entry where the cache is strict.
#[test]
fn e18_a_store_that_fails_fails_no_due_hit() {
    for strict in [false, true] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| if strict { early(b).strict() } else { early(b) });
        plant(&bench, &tier, 7, 50 * SECOND);
        tier.faults().on(crate::error::Operation::Get, 0, crate::testkit::Fault::FailBefore);
        assert_eq!(asked(&bench, &mut sim, How::Answer(0)), 7);
        sim.run();
        assert_eq!(bench.origin.computations(), u64::from(!strict));
        assert!(bench.cache.is_idle());
    }
}

/// A setting that makes no sense says so; what is left of the kinds is the builder's.
#[test]
fn e18_settings_are_checked() {
    let error = early(Cache::builder(Memory::<str, u64>::new(1))).refresh_ahead_by_cost(1.0).build();
    assert_eq!(error.map(drop).unwrap_err().kind(), ErrorKind::InvalidInput);
}
