//! Laws E4 and T2 with tags, raced: what was removed by its tag never comes back, through whatever was
//! running; and what the engine remembers of it is gone at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::bench::{Bench, How, SECOND, memory, remote};
use super::rig::{Planned, Tier, planned};
use crate::adapters::{Chain, Tagged};
use crate::dynamic::BoxStore;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Operation};
use crate::ext::StoreExt;
use crate::memory::Memory;
use crate::store::Store;
use crate::sync::Mutex;
use crate::testkit::{Fault, Faulty, Gate, Model, Schedule, Sim, Task, explore, schedules};
use crate::time::{Clock, ManualClock, Timestamp};
use crate::{Cache, Computed};

type Instants = Arc<Faulty<Model<str, Timestamp>>>;
type Stack = Arc<Tagged<BoxStore<str, u64>, Instants>>;

/// What a client does with the one key, whose entry has the tags `t` and `v<version>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Ask(usize),
    AskFailing(usize),
    Get,
    Peek,
    /// The origin changes, then `remove_tag`.
    RemoveTag,
    /// `expire_tag`.
    ExpireTag,
    /// `remove_tag` of a tag that nothing has.
    RemoveOther,
    /// The fast tier forgets the key.
    Forget,
    Wait(u32),
}

#[derive(Clone)]
struct World {
    bench: Bench<Stack>,
    tiers: Vec<Tier>,
    instants: Instants,
    floor: Arc<AtomicU64>,
    violations: Arc<Mutex<Vec<String>>>,
    writers: Arc<tokio::sync::Mutex<()>>,
}

impl World {
    fn new(sim: &mut Sim, shape: usize, known: usize, windows: bool) -> Self {
        let tiers = match shape {
            0 => vec![memory()],
            1 => vec![remote()],
            _ => vec![memory(), remote()],
        };
        let stack = match &tiers[..] {
            [one] => BoxStore::new(one.clone()),
            [upper, lower, ..] => BoxStore::new(Chain::new(upper.clone(), lower.clone())),
            [] => unreachable!("at least one tier"),
        };
        let instants: Instants = Arc::new(Faulty::new(Model::new()));
        instants.faults().yields(2, 1);
        // The clock of the bench is not there yet, and stands there when it is.
        let clock = ManualClock::new(Timestamp::from_nanos(1_000_000_000_000));
        let tagged = Tagged::new(stack, Arc::clone(&instants)).clock(clock).known_tags(known).unwrap();
        let bench = Bench::new(sim, Arc::new(tagged), |builder| {
            let builder = builder.ttl(SECOND).tags_of(|version| ["t".to_owned(), format!("v{version}")]);
            if windows { builder.stale(SECOND).keep_stale_on_error(2 * SECOND) } else { builder }
        });
        let (floor, violations, writers) = (Arc::default(), Arc::default(), Arc::default());
        Self { bench, tiers, instants, floor, violations, writers }
    }

    fn plant(&self, life: usize) {
        let second = 1_000_000_000;
        let deadlines =
            [[second, 2 * second, 3 * second], [-1, second, 2 * second], [-1, -1, second]][life % 3];
        for tier in &self.tiers {
            tier.inner().plant("k", self.bench.entry(0, deadlines).with_tags(["t", "v0"]));
        }
    }

    fn client(&self, sim: &mut Sim, name: &str, acts: &[Act]) -> Task<()> {
        let (world, acts, runtime, who) = (self.clone(), acts.to_vec(), sim.runtime(), name.to_owned());
        sim.spawn(name, async move {
            for act in acts {
                let floor = world.floor.load(Ordering::SeqCst);
                let seen = match act {
                    Act::Wait(seconds) => {
                        let time = Duration::from_nanos(1) + SECOND * seconds / 2;
                        if let Some(sleep) = crate::runtime::Runtime::sleep(&runtime, time) {
                            sleep.await;
                        }
                        None
                    }
                    act => world.act(act).await,
                };
                if let Some(seen) = seen.filter(|seen| *seen < floor) {
                    world.violations.lock().push(format!("{who}: {act:?} gave {seen} after {floor}"));
                }
            }
        })
    }

    async fn act(&self, act: Act) -> Option<u64> {
        let cache = &self.bench.cache;
        match act {
            Act::Ask(yields) => self.bench.get("k", How::Answer(yields)).await.ok(),
            Act::AskFailing(yields) => self.bench.get("k", How::Fail(yields)).await.ok(),
            Act::Get => cache.get("k").await.ok().flatten(),
            Act::Peek => cache.peek("k"),
            Act::RemoveTag => {
                let _turn = self.writers.lock().await;
                // First: what begins beside the invalidation and after its instant is not reached by it.
                let version = self.bench.origin.bump();
                if cache.remove_tag("t").await.is_ok() {
                    self.floor.fetch_max(version, Ordering::SeqCst);
                }
                None
            }
            Act::ExpireTag => {
                drop(cache.expire_tag("t").await);
                None
            }
            Act::RemoveOther => {
                drop(cache.remove_tags(&["other", "v", "tt"]).await);
                None
            }
            Act::Forget => {
                self.tiers[0].inner().forget("k");
                None
            }
            Act::Wait(_) => None,
        }
    }

    #[track_caller]
    fn assert(&self, sim: &mut Sim) {
        self.instants.faults().heal();
        self.tiers.iter().for_each(|tier| tier.faults().heal());
        assert_eq!(sim.settle(), [""; 0], "leaked");
        let late =
            [Act::Peek, Act::Get, Act::Ask(0), Act::Get, Act::RemoveTag, Act::Get, Act::Ask(1), Act::Get];
        self.client(sim, "late", &late);
        assert_eq!(sim.settle(), [""; 0], "leaked");
        assert!(self.bench.cache.is_idle(), "a flight or a fence is left");
        let violations = self.violations.lock();
        assert!(violations.is_empty(), "E4: {violations:?}");
    }
}

fn raced(shape: usize, life: Option<usize>, clients: &[&[Act]]) {
    let preemptions = if clients.len() > 2 { 1 } else { 2 };
    let explored = explore(preemptions, 60_000, |sim| {
        let world = World::new(sim, shape, 100, true);
        if let Some(life) = life {
            world.plant(life);
        }
        for (index, acts) in clients.iter().enumerate() {
            world.client(sim, &format!("client {index}"), acts);
        }
        sim.run();
        world.assert(sim);
    });
    assert!(explored.complete, "{clients:?}: {explored}");
}

/// E4, T2.
#[test]
fn e4_a_load_whose_tag_was_removed_comes_to_nothing() {
    for shape in [0, 1] {
        raced(shape, None, &[&[Act::Ask(1)], &[Act::RemoveTag, Act::Ask(0), Act::Get]]);
        raced(shape, None, &[&[Act::Ask(0)], &[Act::RemoveTag, Act::Get], &[Act::Ask(0)]]);
    }
}

/// E4, E8: a refresh, what is shown while it runs, and what stands in for a computation that failed.
#[test]
fn e4_a_refresh_whose_tag_was_removed_comes_to_nothing() {
    for life in [0, 1, 2] {
        raced(0, Some(life), &[&[Act::Ask(1)], &[Act::RemoveTag, Act::Peek, Act::Ask(0), Act::Get]]);
        raced(1, Some(life), &[&[Act::AskFailing(1)], &[Act::RemoveTag, Act::AskFailing(0), Act::Get]]);
    }
}

/// T2, C3: a backfill brings up what was removed, and it counts as absent there too.
#[test]
fn t2_a_backfill_of_what_was_removed_counts_as_absent() {
    for life in [0, 1] {
        let reader = [Act::Forget, Act::Ask(1)];
        raced(2, Some(life), &[&reader, &[Act::RemoveTag, Act::Peek, Act::Get]]);
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3usize).prop_map(Act::Ask),
        2 => (0..3usize).prop_map(Act::AskFailing),
        2 => Just(Act::Get),
        1 => Just(Act::Peek),
        3 => Just(Act::RemoveTag),
        1 => Just(Act::ExpireTag),
        1 => Just(Act::RemoveOther),
        1 => Just(Act::Forget),
        2 => (0..8u32).prop_map(Act::Wait),
    ]
}

proptest! {
    /// E4, T2 to T4: anything at once: entries of every age, a table of a few tags, a tag store that fails,
    /// dropped callers, deadlines that strike in the middle.
    #[test]
    fn t2_nothing_whose_tag_was_removed_comes_back(
        schedule in schedules(80),
        (shape, known, windows) in (0..3usize, 1..6usize, any::<bool>()),
        life in proptest::option::of(0..3usize),
        clients in proptest::collection::vec(proptest::collection::vec(act(), 1..6), 2..5),
        cancelled in proptest::collection::vec((0..4usize, 0..20u64), 0..2),
        faults in proptest::collection::vec(planned(3), 0..3),
        races_time in any::<bool>(),
    ) {
        let mut sim = Sim::new(schedule);
        if races_time {
            sim.race_time();
        }
        let world = World::new(&mut sim, shape, known, windows);
        if let Some(life) = life {
            world.plant(life);
        }
        for (tier, operation, nth, fault) in faults as Vec<Planned> {
            match world.tiers.get(tier) {
                Some(tier) => tier.faults().on(operation, nth, fault),
                None => world.instants.faults().on(operation, nth, fault),
            }
        }
        for (index, acts) in clients.iter().enumerate() {
            let task = world.client(&mut sim, &format!("client {index}"), acts);
            for &(_, polls) in cancelled.iter().filter(|(victim, _)| *victim == index) {
                task.cancel_after(polls);
            }
        }
        sim.run();
        world.assert(&mut sim);
    }
}

fn one(sim: &mut Sim) -> World {
    World::new(sim, 0, 100, true)
}

/// E4: within one tick of the clock, and when it steps back, what began before an invalidation is reached
/// and what begins after it is not.
#[test]
fn e4_the_order_is_exact_within_one_tick_and_when_the_clock_steps_back() {
    for back in [Duration::ZERO, SECOND] {
        let mut sim = Sim::new(Schedule::script([]));
        let world = one(&mut sim);
        let cache = world.bench.cache.clone();
        let clock = world.bench.clock.clone();
        sim.block_on(async move {
            for version in 0..3 {
                cache.set("k", version).await.unwrap();
                assert_eq!(cache.get("k").await.unwrap(), Some(version));
                clock.set(clock.now().saturating_sub(back));
                cache.remove_tag("t").await.unwrap();
                assert_eq!(cache.get("k").await.unwrap(), None, "version {version}");
                let computed = cache.get_or_compute("k", move || async move { version + 10 }).await;
                assert_eq!(computed.unwrap(), version + 10);
                assert_eq!(cache.get("k").await.unwrap(), Some(version + 10), "version {version}");
            }
        });
    }
}

/// E4, E3: those who came before get what they waited for; those who came after go round once, together.
#[test]
fn e4_who_came_before_gets_the_result_and_who_came_after_shares_a_new_one() {
    let mut sim = Sim::new(Schedule::script([]));
    let world = one(&mut sim);
    let gate = Gate::default();
    let early: Vec<_> = (0..3)
        .map(|index| world.bench.ask(&mut sim, &format!("early {index}"), "k", How::Wait(gate.clone())))
        .collect();
    sim.run_ready();
    let cache = world.bench.cache.clone();
    sim.call(async move { cache.remove_tag("t").await.unwrap() });
    world.bench.origin.bump();
    let late: Vec<_> = (0..5)
        .map(|index| world.bench.ask(&mut sim, &format!("late {index}"), "k", How::Answer(3)))
        .collect();
    sim.run_ready();
    assert!(late.iter().all(|task| !task.is_done()));
    gate.open();
    sim.run();
    assert!(early.iter().all(|task| task.value().unwrap() == 0));
    assert!(late.iter().all(|task| task.value().unwrap() == 1));
    assert_eq!(world.bench.origin.computations(), 2, "one for each side");
    assert_eq!(world.bench.events.count("Overtaken"), 1, "what was removed is not stored");
    assert_eq!(world.bench.cache.peek("k"), Some(1));
    assert!(world.bench.cache.is_idle());
}

/// T1: what was expired is served stale at once, and computed anew.
#[test]
fn t1_an_expired_tag_makes_a_stale_hit_and_a_refresh() {
    let mut sim = Sim::new(Schedule::script([]));
    let world = one(&mut sim);
    let (cache, bench) = (world.bench.cache.clone(), world.bench.clone());
    sim.block_on(async move {
        cache.set("k", 0).await.unwrap();
        cache.expire_tag("t").await.unwrap();
        assert_eq!(cache.peek("k"), None);
        bench.origin.bump();
        assert_eq!(bench.get("k", How::Answer(0)).await.unwrap(), 0, "stale, at once");
    });
    sim.settle();
    assert_eq!(world.bench.cache.peek("k"), Some(1));
    assert_eq!(world.bench.events.count("TagsExpired"), 1);
}

/// T3, E4: an invalidation that fails holds in this process, and is an error.
#[test]
fn t3_an_invalidation_that_fails_holds_here_and_is_told() {
    let mut sim = Sim::new(Schedule::script([]));
    let world = one(&mut sim);
    world.instants.faults().on(Operation::Set, 0, Fault::FailBefore);
    let cache = world.bench.cache.clone();
    let error = sim.block_on(async move {
        cache.set("k", 0).await.unwrap();
        let error = cache.remove_tags(&["t", "u"]).await.unwrap_err();
        assert_eq!(cache.get("k").await.unwrap(), None);
        cache.remove_tags(&["t", "u"]).await.unwrap();
        error
    });
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(world.bench.events.count("StoreFailed"), 1);
    assert_eq!(world.bench.events.count("TagsRemoved"), 1);
    let held = |key| world.instants.inner().held(key).map(Entry::into_value);
    assert!(held("removed:t").is_some() && held("removed:u").is_some());
}

/// Tags of a function of the value come after those of the computation, without duplicates.
#[tokio::test]
async fn tags_of_a_value_are_added_in_order_and_checked() {
    let store = Arc::new(Memory::<str, u64>::new(10).tagged(Memory::new(10)));
    let cache = Cache::builder(Arc::clone(&store))
        .no_expiration()
        .tags_of(|value: &u64| {
            (0..*value).map(|n| if n == 9 { String::new() } else { format!("{n}") }).collect::<Vec<_>>()
        })
        .build()
        .unwrap();
    cache.set_with("k", Computed::new(3).tags(["1", "x"])).await.unwrap();
    let entry = store.get("k").await.unwrap().unwrap();
    assert_eq!(entry.tags().iter().map(|tag| &**tag).collect::<Vec<_>>(), ["1", "x", "0", "2"]);
    let wrong = [
        ("tag", cache.set_with("k", Computed::new(0).tags([""])).await.map(drop)),
        ("tag", cache.set("k", 10).await.map(drop)),
        (
            "tags",
            cache.set_with("k", Computed::new(0).tags((0..1_025).map(|n| n.to_string()))).await.map(drop),
        ),
        ("tag", cache.get_or_compute("new", || async { Computed::new(0).tags([""]) }).await.map(drop)),
        ("tag", cache.remove_tags(&["a", ""]).await),
        ("tag", cache.expire_tag("").await),
    ];
    for (culprit, outcome) in wrong {
        let error: Error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!(": invalid input: {culprit}: ")), "{error}");
    }
    cache.set_with("k", Computed::new(0).tags((0..1_024).map(|n| n.to_string()))).await.unwrap();
    cache.remove_tag("1023").await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);
}

/// E10.
#[tokio::test]
async fn e10_a_bypassed_cache_invalidates_nothing() {
    let store = Arc::new(Memory::<str, u64>::new(10).tagged(Memory::new(10)));
    let cache = Cache::builder(Arc::clone(&store)).bypass().build().unwrap();
    cache.remove_tag("t").await.unwrap();
    assert_eq!(store.stats().invalidations, 0);
}
