//! Laws E16, E17, E20 and E21: an origin that is slow, down, or says "not found".

use std::time::Duration;

use super::bench::{Bench, How, SECOND, TICK, just_before, memory, remote};
use super::rig::Tier;
use crate::cache::trouble::Negative;
use crate::cache::{Cache, CacheBuilder, Computed, Patience};
use crate::codec::Postcard;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::ext::StoreExt;
use crate::memory::Memory;
use crate::store::Store;
use crate::testkit::{Fault, Gate, Schedule, Sim, Task};
use crate::time::{Clock, ManualClock};

const MINUTE: Duration = Duration::from_secs(60);
const LONG: i64 = 500_000_000_000;

fn plain() -> Sim {
    Sim::new(Schedule::script([]))
}

fn minute<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.ttl(MINUTE)
}

/// Ten minutes of E8 after a minute of freshness.
fn kept<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    minute(builder).keep_stale_on_error(10 * MINUTE)
}

/// The same bench whose callers have this patience.
fn with<S: Store<Key = str, Value = u64> + 'static>(bench: &Bench<S>, patience: Patience) -> Bench<S> {
    Bench { cache: bench.cache.with_patience(patience).unwrap(), ..bench.clone() }
}

fn soft(wait: Duration) -> Patience {
    Patience::new().soft_timeout(wait)
}

fn hard(wait: Duration) -> Patience {
    Patience::new().hard_timeout(wait)
}

fn kind(answer: Result<u64>) -> std::result::Result<u64, ErrorKind> {
    answer.map_err(|error| error.kind())
}

/// What a caller who waits for nothing gets.
fn now(sim: &mut Sim, bench: &Bench<Tier>, how: How) -> std::result::Result<u64, ErrorKind> {
    let caller = bench.ask(sim, "caller", "k", how);
    sim.run_ready();
    kind(caller.value())
}

fn plant(bench: &Bench<Tier>, tier: &Tier, value: u64, deadlines: [i64; 3]) {
    tier.inner().plant("k", bench.entry(value, deadlines));
}

fn held(tier: &Tier) -> Option<u64> {
    tier.inner().held("k").map(|entry| *entry.value())
}

// E16

fn even_is_absent() -> Negative<u64> {
    Negative { is: |value| value.is_multiple_of(2), absent: || 0 }
}

#[test]
fn e16_not_found_is_fresh_for_its_own_ttl_to_the_tick_and_then_gone() {
    for set in [false, true] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| {
            kept(b).stale(MINUTE).negative(2 * SECOND, even_is_absent())
        });
        bench.origin.bump();
        bench.origin.bump();
        if set {
            let cache = bench.cache.clone();
            sim.call(async move { cache.set("k", 2).await }).unwrap();
        } else {
            assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(2));
        }
        sim.advance(2 * SECOND);
        assert_eq!(bench.cache.peek("k"), Some(2), "the deadline itself is fresh");
        sim.advance(TICK);
        assert_eq!(bench.cache.peek("k"), None);
        assert_eq!(
            now(&mut sim, &bench, How::Fail(0)),
            Err(ErrorKind::Computation),
            "neither stale nor kept"
        );
        bench.origin.bump();
        assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(3));
        sim.advance(MINUTE);
        assert_eq!(bench.cache.peek("k"), Some(3), "what is found has the cache's ttl");
    }
}

#[test]
fn e16_an_answer_speaks_for_itself() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| kept(b).negative(2 * SECOND, even_is_absent()));
    let cache = bench.cache.clone();
    sim.call(async move {
        let own = Computed::new(2).ttl(5 * SECOND).keep_stale_on_error(MINUTE);
        cache.set_with("k", own).await
    })
    .unwrap();
    sim.advance(5 * SECOND);
    assert_eq!(bench.cache.peek("k"), Some(2));
    sim.advance(TICK);
    assert_eq!(now(&mut sim, &bench, How::Fail(0)), Ok(2), "kept, because it said so");
}

#[test]
fn e16_what_is_unchanged_and_absent_is_absent_for_another_while() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).negative(2 * SECOND, even_is_absent()));
    plant(&bench, &tier, 4, [-1, -1, LONG]);
    let cache = bench.cache.clone();
    let answer = sim.call(async move {
        cache.get_or_recompute("k", |_| async { Ok::<_, Error>(Computed::unchanged()) }).await
    });
    assert_eq!(answer.unwrap(), 4);
    sim.advance(2 * SECOND);
    assert_eq!(bench.cache.peek("k"), Some(4));
    sim.advance(TICK);
    assert_eq!(bench.cache.peek("k"), None);
}

#[test]
fn e16_jitter_shortens_it_too() {
    let mut lives = Vec::new();
    for seed in 0..20 {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, memory(), |b| {
            b.no_expiration().jitter(0.5).jitter_seed(seed).negative(100 * SECOND, even_is_absent())
        });
        assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0));
        let life = bench.cache.store().inner().held("k").unwrap().lifetime();
        lives.push(life.fresh_until().since(bench.clock.now()));
    }
    assert!(lives.iter().all(|life| (50 * SECOND..=100 * SECOND).contains(life)), "{lives:?}");
    lives.dedup();
    assert!(lives.len() > 10);
}

/// `None` goes through tiers and codecs as any value does.
#[tokio::test]
async fn e16_an_option_through_the_whole_stack() {
    let clock = ManualClock::default();
    let bytes = Memory::<str, bytes::Bytes>::new(100).byte_limited(1 << 20).prefixed("users:");
    let stack = Memory::<str, Option<String>>::new(100).chain(bytes.encoded(Postcard));
    let cache = Cache::builder(stack)
        .ttl(60 * MINUTE)
        .stale(MINUTE)
        .negative_ttl(SECOND)
        .clock(clock.clone())
        .build()
        .unwrap();
    let absent = || async { None::<String> };
    assert_eq!(cache.get_or_compute("k", absent).await.unwrap(), None);
    assert_eq!((cache.peek("k"), cache.get("k").await.unwrap()), (Some(None), Some(None)));
    let found = || async { Some("it is known".to_owned()) };
    assert_eq!(cache.get_or_compute("k", found).await.unwrap(), None);
    clock.advance(SECOND + TICK);
    assert_eq!(cache.get("k").await.unwrap(), None, "nothing is known");
    cache.set("k", Some("Ada".to_owned())).await.unwrap();
    clock.advance(60 * MINUTE);
    assert_eq!(cache.peek("k"), Some(Some("Ada".to_owned())));
    assert!(cache.describe().to_string().contains("negative_ttl 1s"), "{}", cache.describe());
}

// E17

fn remembers<S: Store>(builder: CacheBuilder<S>) -> CacheBuilder<S> {
    builder.error_ttl(SECOND, 4 * SECOND)
}

#[test]
fn e17_while_an_error_is_remembered_nothing_is_computed() {
    for tier in [memory(), remote()] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, tier, |b| remembers(minute(b)));
        let mut computed = 0;
        for lasts in [1, 2, 4, 4] {
            computed += 1;
            assert_eq!(now(&mut sim, &bench, How::Fail(0)), Err(ErrorKind::Computation));
            sim.advance(SECOND * lasts);
            let (cache, unreached) = (bench.cache.clone(), How::Answer(0));
            let error = bench.ask(&mut sim, "caller", "k", unreached);
            sim.run_ready();
            assert_eq!(
                error.value().unwrap_err().source_as::<std::io::Error>().unwrap().to_string(),
                "origin is down"
            );
            assert_eq!(bench.origin.computations(), computed, "after {lasts} s");
            assert!(cache.is_idle());
            sim.advance(TICK);
        }
        assert_eq!(bench.events.count("ErrorRemembered"), 4);
        assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0), "its time has passed");
        sim.advance(MINUTE + TICK);
        assert_eq!(now(&mut sim, &bench, How::Fail(0)), Err(ErrorKind::Computation));
        sim.advance(SECOND + TICK);
        assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0), "a success begins the row anew");
    }
}

#[test]
fn e17_stale_and_kept_entries_are_served_meanwhile() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| remembers(minute(b)));
    plant(&bench, &tier, 7, [-1, LONG, LONG]);
    assert_eq!(now(&mut sim, &bench, How::Fail(0)), Ok(7));
    assert_eq!(bench.events.count("RefreshFailed"), 1);
    for _ in 0..3 {
        assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(7));
    }
    assert_eq!((bench.origin.computations(), bench.events.count("RefreshSkipped")), (1, 3));
    plant(&bench, &tier, 8, [-1, -1, LONG]);
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(8));
    assert_eq!((bench.origin.computations(), bench.events.count("StaleOnError")), (1, 1));
    sim.advance(SECOND + TICK);
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0));
}

#[test]
fn e17_a_fresh_entry_is_found_meanwhile() {
    let mut sim = plain();
    let tier = remote();
    let bench = Bench::new(&mut sim, tier.clone(), |b| remembers(minute(b)));
    assert_eq!(now(&mut sim, &bench, How::Fail(0)), Err(ErrorKind::Computation));
    // Another host was luckier.
    plant(&bench, &tier, 9, [LONG; 3]);
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(9));
}

#[test]
fn e17_writes_forget_and_what_they_overtake_is_not_remembered() {
    for write in ["set", "remove", "clear"] {
        for running in [false, true] {
            let mut sim = plain();
            let bench = Bench::new(&mut sim, memory(), |b| remembers(minute(b)));
            let gate = Gate::default();
            let caller = bench.ask(&mut sim, "caller", "k", How::WaitAndFail(gate.clone()));
            if !running {
                gate.open();
            }
            sim.run_ready();
            let cache = bench.cache.clone();
            sim.call(async move {
                match write {
                    "set" => cache.set_with("k", Computed::new(5).ttl(Duration::ZERO)).await.map(drop),
                    "remove" => cache.remove("k").await,
                    _ => cache.clear().await,
                }
            })
            .unwrap();
            gate.open();
            sim.advance(TICK);
            assert!(caller.value().is_err());
            assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0), "{write}, while it ran: {running}");
        }
    }
}

#[test]
fn e17_timeouts_count_and_panics_and_shutdowns_do_not() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| remembers(minute(b)));
    let caller = bench.ask(&mut sim, "caller", "k", How::Hang);
    sim.advance(30 * SECOND);
    assert_eq!(kind(caller.value()), Err(ErrorKind::Timeout));
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Err(ErrorKind::Timeout), "remembered");
    sim.advance(SECOND + TICK);
    let caller = bench.ask(&mut sim, "caller", "k", How::Panic(0));
    caller.may_panic();
    sim.run_ready();
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0), "a panic is not remembered");
}

#[test]
fn e17_the_predicate_decides() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| {
        remembers(minute(b)).error_ttl_if(|error| error.kind() == ErrorKind::Timeout)
    });
    assert_eq!(now(&mut sim, &bench, How::Fail(0)), Err(ErrorKind::Computation));
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0));
}

// E20

#[test]
fn e20_after_the_soft_timeout_the_expired_entry_is_served_and_the_load_goes_on() {
    for tier in [memory(), remote()] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).patience(soft(SECOND)));
        plant(&bench, &tier, 7, [-1, -1, LONG]);
        bench.origin.bump();
        let gate = Gate::default();
        let leader = bench.ask(&mut sim, "leader", "k", How::Wait(gate.clone()));
        sim.advance(SECOND / 2);
        let follower = bench.ask(&mut sim, "follower", "k", How::Answer(0));
        let patient = with(&bench, Patience::new()).ask(&mut sim, "patient", "k", How::Answer(0));
        sim.advance(just_before(SECOND / 2));
        assert!(!leader.is_done());
        sim.advance(TICK);
        assert_eq!(kind(leader.value()), Ok(7));
        sim.advance(just_before(SECOND / 2));
        assert!(!follower.is_done(), "each by its own call");
        sim.advance(TICK);
        assert_eq!(kind(follower.value()), Ok(7));
        assert_eq!((bench.events.count("SoftTimeout"), bench.origin.running()), (2, 1));
        assert!(!patient.is_done());
        gate.open();
        sim.run();
        assert_eq!((kind(patient.value()), held(&tier)), (Ok(1), Some(1)), "stored");
        assert!(bench.cache.is_idle() && sim.settle().is_empty());
    }
}

#[test]
fn e20_without_an_entry_the_soft_timeout_waits_on() {
    for deadlines in [None, Some([-1, -1, -1]), Some([-1, -1, 1_000_000_000 - 1])] {
        let mut sim = plain();
        let tier = memory();
        let bench = Bench::new(&mut sim, tier.clone(), |b| minute(b).patience(soft(SECOND)));
        if let Some(deadlines) = deadlines {
            plant(&bench, &tier, 7, deadlines);
        }
        let gate = Gate::default();
        let caller = bench.ask(&mut sim, "caller", "k", How::Wait(gate.clone()));
        sim.advance(5 * SECOND);
        assert!(!caller.is_done(), "{deadlines:?}");
        gate.open();
        sim.run();
        assert_eq!(kind(caller.value()), Ok(0));
    }
}

#[test]
fn e20_a_soft_timeout_of_zero_waits_for_no_load() {
    for tier in [memory(), remote()] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).patience(soft(Duration::ZERO)));
        plant(&bench, &tier, 7, [-1, -1, LONG]);
        for _ in 0..2 {
            assert_eq!(now(&mut sim, &bench, How::Hang), Ok(7));
        }
        assert_eq!(bench.origin.computations(), 1);
    }
}

#[test]
fn e20_the_reads_of_slow_tiers_count() {
    let mut sim = plain();
    let tier = remote();
    let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).patience(soft(SECOND)));
    plant(&bench, &tier, 7, [-1, -1, LONG]);
    tier.faults().on(Operation::Get, 0, Fault::HangAfter);
    let caller = bench.ask(&mut sim, "caller", "k", How::Hang);
    sim.advance(2 * SECOND);
    assert!(!caller.is_done(), "it is not known yet what is held");
    tier.faults().release();
    sim.run_ready();
    assert_eq!(kind(caller.value()), Ok(7), "and then it has waited long enough");
    let (mut sim, tier) = (plain(), remote());
    let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).patience(hard(SECOND)));
    tier.faults().on(Operation::Get, 0, Fault::HangBefore);
    let caller = bench.ask(&mut sim, "caller", "k", How::Answer(0));
    sim.advance(SECOND);
    assert_eq!(kind(caller.value()), Err(ErrorKind::Timeout));
}

#[test]
fn e20_what_was_removed_meanwhile_is_not_served() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).patience(soft(SECOND)));
    plant(&bench, &tier, 7, [-1, -1, LONG]);
    let gate = Gate::default();
    let caller = bench.ask(&mut sim, "caller", "k", How::Wait(gate.clone()));
    sim.run_ready();
    let cache = bench.cache.clone();
    sim.call(async move { cache.remove("k").await }).unwrap();
    sim.advance(5 * SECOND);
    assert!(!caller.is_done());
    gate.open();
    sim.run();
    assert_eq!(kind(caller.value()), Ok(0));
}

#[test]
fn e20_the_hard_timeout_is_an_error_that_names_it_and_the_load_goes_on() {
    for tier in [memory(), remote()] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, tier.clone(), |b| minute(b).patience(hard(2 * SECOND)));
        bench.origin.bump();
        let gate = Gate::default();
        let leader = bench.ask(&mut sim, "leader", "k", How::Wait(gate.clone()));
        let follower = with(&bench, hard(3 * SECOND)).ask(&mut sim, "follower", "k", How::Answer(0));
        sim.advance(just_before(2 * SECOND));
        assert!(!leader.is_done());
        sim.advance(TICK);
        let error = leader.value().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("hard_timeout"), "{error}");
        sim.advance(SECOND);
        assert_eq!(kind(follower.value()), Err(ErrorKind::Timeout));
        assert_eq!((bench.events.count("HardTimeout"), bench.origin.running()), (2, 1));
        gate.open();
        sim.run();
        assert_eq!(held(&tier), Some(1));
        assert!(bench.cache.is_idle() && sim.settle().is_empty());
    }
}

#[test]
fn e20_what_stands_in_comes_before_the_hard_timeout() {
    let mut sim = plain();
    let tier = memory();
    let patience = hard(2 * SECOND).soft_timeout(SECOND);
    let bench = Bench::new(&mut sim, tier.clone(), |b| kept(b).patience(patience));
    let caller = bench.ask(&mut sim, "caller", "k", How::Hang);
    sim.advance(2 * SECOND);
    assert_eq!(kind(caller.value()), Err(ErrorKind::Timeout), "nothing is held");
    sim.advance(30 * SECOND);
    plant(&bench, &tier, 7, [-1, -1, LONG]);
    let caller = bench.ask(&mut sim, "caller", "k", How::Hang);
    sim.advance(SECOND);
    assert_eq!(kind(caller.value()), Ok(7));
}

#[test]
fn e20_a_load_is_dropped_when_the_last_to_wait_has_lost_patience() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| minute(b).patience(hard(SECOND).drop_load()));
    let leader = bench.ask(&mut sim, "leader", "k", How::Hang);
    sim.advance(SECOND / 2);
    let follower = bench.ask(&mut sim, "follower", "k", How::Hang);
    sim.advance(SECOND / 2);
    assert!(leader.value().unwrap_err().to_string().contains("goes on"));
    assert_eq!((bench.origin.running(), bench.events.count("LoadDropped")), (1, 0), "the follower keeps it");
    sim.advance(SECOND / 2);
    assert!(follower.value().unwrap_err().to_string().contains("dropped"));
    assert_eq!((bench.origin.running(), bench.events.count("LoadDropped")), (0, 1));
    assert!(bench.cache.is_idle(), "the key is free");
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(0));
    assert!(sim.settle().is_empty());
}

#[test]
fn e20_a_patient_follower_keeps_a_load_and_one_that_left_does_not() {
    for leaves in [false, true] {
        let mut sim = plain();
        let bench = Bench::new(&mut sim, memory(), |b| minute(b).patience(hard(SECOND).drop_load()));
        let gate = Gate::default();
        let leader = bench.ask(&mut sim, "leader", "k", How::Wait(gate.clone()));
        let follower = with(&bench, Patience::new()).ask(&mut sim, "follower", "k", How::Hang);
        sim.run_ready();
        if leaves {
            follower.cancel();
        }
        sim.advance(SECOND);
        assert!(leader.value().is_err());
        assert_eq!(bench.origin.running(), u64::from(!leaves));
        gate.open();
        sim.run();
        if !leaves {
            assert_eq!(kind(follower.value()), Ok(0));
        }
        assert_eq!(bench.cache.peek("k"), (!leaves).then_some(0));
        assert!(bench.cache.is_idle() && sim.settle().is_empty());
    }
}

#[test]
fn e20_a_result_on_its_way_to_the_store_is_not_dropped() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), |b| minute(b).patience(hard(SECOND).drop_load()));
    tier.faults().on(Operation::Set, 0, Fault::HangAfter);
    let caller = bench.ask(&mut sim, "caller", "k", How::Answer(0));
    sim.advance(SECOND);
    assert!(caller.value().unwrap_err().to_string().contains("goes on"));
    assert_eq!(bench.events.count("LoadDropped"), 0);
    tier.faults().release();
    sim.run();
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}

// E21

fn limited<S: Store>(loads: usize, waiting: usize) -> impl FnOnce(CacheBuilder<S>) -> CacheBuilder<S> {
    move |builder| kept(builder).max_loads(loads).max_waiting_loads(waiting)
}

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A caller for each key, whose computation waits for its gate.
fn crowd(sim: &mut Sim, bench: &Bench<Tier>) -> Vec<(Gate, Task<Result<u64>>)> {
    KEYS.iter()
        .map(|key| {
            let gate = Gate::default();
            let caller = bench.ask(sim, key, key, How::Wait(gate.clone()));
            sim.run_ready();
            (gate, caller)
        })
        .collect()
}

fn places(bench: &Bench<Tier>) -> (usize, usize) {
    bench.cache.core.places.as_ref().unwrap().state()
}

#[test]
fn e21_so_many_loads_at_once_the_others_in_order_and_the_rest_is_turned_away() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), limited(2, 3));
    let callers = crowd(&mut sim, &bench);
    assert_eq!((bench.origin.running(), places(&bench)), (2, (0, 3)));
    let error = callers[5].1.value().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.to_string().contains("max_waiting_loads"), "{error}");
    assert_eq!((bench.events.count("LoadRejected"), bench.events.count("LoadStarted")), (1, 2));
    // A waiting load can be joined.
    let joined = bench.ask(&mut sim, "joined", "e", How::Hang);
    sim.run_ready();
    for (ended, (gate, caller)) in callers[..5].iter().enumerate() {
        gate.open();
        sim.run_ready();
        assert_eq!(kind(caller.value()), Ok(0));
        assert_eq!(bench.origin.computations(), (ended as u64 + 3).min(5), "one for one");
    }
    assert_eq!((kind(joined.value()), places(&bench)), (Ok(0), (2, 0)));
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}

#[test]
fn e21_whoever_is_turned_away_gets_what_is_kept() {
    let mut sim = plain();
    let tier = memory();
    let bench = Bench::new(&mut sim, tier.clone(), limited(1, 0));
    let busy = bench.ask(&mut sim, "busy", "a", How::Hang);
    sim.run_ready();
    plant(&bench, &tier, 7, [-1, -1, LONG]);
    assert_eq!(now(&mut sim, &bench, How::Answer(0)), Ok(7));
    assert!(!busy.is_done());
}

#[test]
fn e21_waiting_counts_towards_the_load_timeout_and_frees_the_place_in_the_queue() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| limited(1, 1)(b).error_ttl(MINUTE, MINUTE));
    let first = bench.ask(&mut sim, "first", "a", How::Hang);
    sim.advance(10 * SECOND);
    let second = bench.ask(&mut sim, "second", "b", How::Hang);
    sim.advance(20 * SECOND);
    assert_eq!(kind(first.value()), Err(ErrorKind::Timeout));
    assert_eq!((bench.origin.computations(), places(&bench)), (2, (0, 0)));
    let third = bench.ask(&mut sim, "third", "k", How::Hang);
    sim.advance(just_before(10 * SECOND));
    assert!(!second.is_done());
    sim.advance(TICK);
    assert_eq!(kind(second.value()), Err(ErrorKind::Timeout), "twenty seconds of it in the queue");
    sim.advance(20 * SECOND);
    assert_eq!(kind(third.value()), Err(ErrorKind::Timeout));
    assert_eq!(places(&bench), (1, 0));
    for (key, expected) in [("a", Err(ErrorKind::Timeout)), ("b", Ok(0)), ("k", Ok(0))] {
        let again = bench.ask(&mut sim, "again", key, How::Answer(0));
        sim.run_ready();
        assert_eq!(kind(again.value()), expected, "{key}: what lost its time in the queue is not remembered");
    }
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}

#[test]
fn e21_who_goes_away_while_it_waits_leaves_the_load_in_its_turn() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), limited(1, 3));
    let callers = crowd(&mut sim, &bench);
    callers[1].1.cancel();
    sim.run_ready();
    assert_eq!(places(&bench), (0, 3), "the load outlives its caller (E5)");
    let dropping = with(&bench, hard(SECOND).drop_load());
    callers[2].0.open();
    callers[0].0.open();
    callers[1].0.open();
    sim.run_ready();
    assert_eq!(places(&bench), (0, 0));
    let given_up = dropping.ask(&mut sim, "given up", "f", How::Answer(0));
    sim.advance(SECOND);
    assert!(given_up.value().is_err());
    assert_eq!(places(&bench), (0, 0), "its place in the queue is free");
    callers[3].0.open();
    sim.run_ready();
    assert_eq!(places(&bench), (1, 0));
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}

/// Computations that ask for other keys while every place is taken, by themselves.
#[test]
fn e21_a_load_within_a_load_takes_no_place_and_waits_for_none() {
    let mut sim = plain();
    let bench = Bench::new(&mut sim, memory(), |b| minute(b).max_loads(1));
    let (open, outer) = (Gate::default(), bench.clone());
    let gate = open.clone();
    let nested = sim.spawn("outer", async move {
        let inner = outer.clone();
        outer
            .cache
            .get_or_try_compute("outer", move || async move {
                // Until another caller's load waits for the place that this one has.
                gate.wait().await;
                let queued = inner.get("queued", How::Answer(2)).await?;
                let own = inner.get("own", How::Answer(2)).await?;
                Ok::<_, Error>(queued + own)
            })
            .await
    });
    sim.run_ready();
    let queued = bench.ask(&mut sim, "queued", "queued", How::Answer(3));
    sim.run_ready();
    assert_eq!(places(&bench), (0, 1));
    open.open();
    sim.run();
    assert_eq!(kind(nested.value()), Ok(0));
    assert_eq!(kind(queued.value()), Ok(0));
    assert_eq!((places(&bench), sim.now()), ((1, 0), Duration::ZERO), "nobody waited for a deadline");
    assert!(bench.cache.is_idle() && sim.settle().is_empty());
}

// What contradicts what

#[test]
fn a_setting_that_makes_no_sense_is_named() {
    type Set = fn(CacheBuilder<Memory<str, Option<u64>>>) -> CacheBuilder<Memory<str, Option<u64>>>;
    let wrong: &[(&str, Set)] = &[
        ("negative_ttl: zero", |b| b.negative_ttl(Duration::ZERO)),
        ("error_ttl: zero", |b| b.error_ttl(Duration::ZERO, SECOND)),
        ("error_ttl: the first time is above the most", |b| b.error_ttl(2 * SECOND, SECOND)),
        ("error_ttl_if: without error_ttl", |b| b.error_ttl_if(|_| true)),
        ("max_remembered_errors: without error_ttl", |b| b.max_remembered_errors(1)),
        ("max_remembered_errors: zero", |b| b.error_ttl(SECOND, SECOND).max_remembered_errors(0)),
        ("hard_timeout: zero", |b| b.patience(hard(Duration::ZERO))),
        ("soft_timeout: not less", |b| b.patience(hard(SECOND).soft_timeout(SECOND))),
        ("drop_load: without a hard_timeout", |b| b.patience(Patience::new().drop_load())),
        ("max_loads: zero", |b| b.max_loads(0)),
        ("max_waiting_loads: without max_loads", |b| b.max_waiting_loads(1)),
    ];
    for (text, set) in wrong {
        let error = set(Cache::builder(Memory::new(1)).ttl(SECOND)).build().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    let cache = Cache::builder(Memory::<str, u64>::new(1)).ttl(SECOND).max_loads(1).max_waiting_loads(0);
    let cache = cache.build().unwrap();
    let error = cache.with_patience(hard(Duration::ZERO)).unwrap_err();
    assert!(error.to_string().contains("hard_timeout: zero"), "{error}");
}
