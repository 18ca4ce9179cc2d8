//! Law E4, raced: what was removed, cleared or overwritten never comes back, neither through the store
//! nor through a computation that began before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::bench::{Bench, How, SECOND, memory, remote};
use super::rig::{Planned, Tier, planned};
use crate::adapters::Chain;
use crate::dynamic::BoxStore;
use crate::error::Operation;
use crate::store::SetOutcome;
use crate::sync::Mutex;
use crate::testkit::{Fault, Faults};
use crate::testkit::{Sim, Task};
use crate::testkit::{explore, schedules};

type Stack = Arc<BoxStore<str, u64>>;

/// What a client does with the one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// `get_or_compute`, with a computation that yields this often.
    Ask(usize),
    /// `get_or_compute`, with a computation that fails.
    AskFailing(usize),
    /// `get_or_compute`, with a computation that never ends.
    AskHanging,
    Get,
    Peek,
    /// `remove`; when that is acknowledged, the origin changes.
    Remove,
    /// `clear`; then the same.
    Clear,
    /// `set` to what the origin will hold next; then the same.
    Set,
    /// Time passes: to stale, to expired, to dead.
    Wait(u32),
}

const WRITES: [Act; 3] = [Act::Remove, Act::Clear, Act::Set];

/// A cache, and the oldest version of the origin that anybody may still be given.
#[derive(Clone)]
pub(super) struct World {
    bench: Bench<Stack>,
    tiers: Vec<Tier>,
    faults: Vec<Faults>,
    floor: Arc<AtomicU64>,
    /// Writers take turns: of two at once either may win, and there would be no floor.
    writers: Arc<tokio::sync::Mutex<()>>,
    violations: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Over one tier that answers at once, one that does not, or a chain of both. Fresh for a second,
    /// stale for another, kept for a third.
    fn new(sim: &mut Sim, shape: usize) -> Self {
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
        let faults = tiers.iter().map(|tier| tier.faults()).collect();
        Self { tiers, ..Self::over(sim, stack, faults) }
    }

    /// Over a stack of which only the switches are known.
    pub(super) fn over(sim: &mut Sim, stack: BoxStore<str, u64>, faults: Vec<Faults>) -> Self {
        let bench = Bench::new(sim, Arc::new(stack), |builder| {
            builder.ttl(SECOND).stale(SECOND).keep_stale_on_error(2 * SECOND)
        });
        let (tiers, violations) = (Vec::new(), Arc::default());
        Self { bench, tiers, faults, floor: Arc::default(), writers: Arc::default(), violations }
    }

    /// An entry of version 0 in every tier, this far into its life.
    fn plant(&self, life: usize) {
        let second = 1_000_000_000;
        let deadlines =
            [[second, 2 * second, 3 * second], [-1, second, 2 * second], [-1, -1, second]][life % 3];
        for tier in &self.tiers {
            tier.inner().plant("k", self.bench.entry(0, deadlines));
        }
    }

    pub(super) fn client(&self, sim: &mut Sim, name: &str, acts: &[Act]) -> Task<()> {
        let (world, acts, runtime) = (self.clone(), acts.to_vec(), sim.runtime());
        let who = name.to_owned();
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
                if let Some(seen) = seen.filter(|&seen| seen < floor) {
                    world
                        .violations
                        .lock()
                        .push(format!("{who}: {act:?} gave {seen}, and {floor} was acknowledged"));
                }
            }
        })
    }

    /// The version that was seen.
    async fn act(&self, act: Act) -> Option<u64> {
        let cache = &self.bench.cache;
        match act {
            Act::Ask(yields) => self.bench.get("k", How::Answer(yields)).await.ok(),
            Act::AskFailing(yields) => self.bench.get("k", How::Fail(yields)).await.ok(),
            Act::AskHanging => self.bench.get("k", How::Hang).await.ok(),
            Act::Get => cache.get("k").await.ok().flatten(),
            Act::Peek => cache.peek("k"),
            _ => {
                let _turn = self.writers.lock().await;
                let version = self.bench.origin.version() + 1;
                let acknowledged = match act {
                    Act::Remove => cache.remove("k").await.is_ok(),
                    Act::Clear => cache.clear().await.is_ok(),
                    _ => matches!(cache.set("k", version).await, Ok(SetOutcome::Stored)),
                };
                if acknowledged {
                    // Only now: whatever began until this instant is too old, also what began beside.
                    self.bench.origin.bump();
                    self.floor.fetch_max(version, Ordering::SeqCst);
                }
                None
            }
        }
    }

    /// When all is quiet: nothing older is held, nothing leaked, and nobody saw anything wrong.
    #[track_caller]
    pub(super) fn assert(&self, sim: &mut Sim) {
        self.faults.iter().for_each(Faults::heal);
        assert_eq!(sim.settle(), [""; 0], "leaked");
        self.client(
            sim,
            "late",
            &[Act::Peek, Act::Get, Act::Ask(0), Act::Get, Act::Remove, Act::Ask(1), Act::Get],
        );
        assert_eq!(sim.settle(), [""; 0], "leaked");
        assert!(self.bench.cache.is_idle(), "a flight is stuck");
        assert_eq!(self.bench.origin.running(), 0, "a computation is stuck");
        let violations = self.violations.lock();
        assert!(violations.is_empty(), "E4: {violations:?}");
        let events = &self.bench.events;
        for kind in ["Load", "Refresh"] {
            let ended = ["Succeeded", "Failed", "Panicked"].map(|end| events.count(&format!("{kind}{end}")));
            assert_eq!(
                events.count(&format!("{kind}Started")),
                ended.iter().sum::<usize>(),
                "{kind}: {ended:?}"
            );
        }
        let started = events.count("LoadStarted") + events.count("RefreshStarted");
        assert_eq!(started as u64, self.bench.origin.computations(), "every computation is told of");
    }
}

/// Every schedule of these clients with at most two preemptions, or one if they are more than two.
fn raced(shape: usize, life: Option<usize>, clients: &[&[Act]]) {
    let preemptions = if clients.len() > 2 { 1 } else { 2 };
    let explored = explore(preemptions, 30_000, |sim| {
        let world = World::new(sim, shape);
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

/// E4: a load that began before a removal, a clear or a set is not stored after it, nor given to a caller
/// who comes after it.
#[test]
fn a_load_that_was_overtaken_comes_to_nothing() {
    for write in WRITES {
        for shape in [0, 1] {
            raced(shape, None, &[&[Act::Ask(1)], &[write, Act::Ask(0), Act::Get]]);
            raced(shape, None, &[&[Act::Ask(0)], &[write, Act::Get], &[Act::Ask(0)]]);
        }
    }
}

/// E4: the same for a refresh, and for a computation that fails and falls back (E8).
#[test]
fn a_refresh_that_was_overtaken_comes_to_nothing() {
    for write in WRITES {
        for life in [1, 2] {
            raced(0, Some(life), &[&[Act::Ask(1)], &[write, Act::Peek, Act::Ask(0), Act::Get]]);
            raced(1, Some(life), &[&[Act::AskFailing(1)], &[write, Act::AskFailing(0), Act::Get]]);
        }
    }
}

/// E4 over C3: the fences of the engine and of the chain together.
#[test]
fn a_load_over_a_chain_that_was_overtaken_comes_to_nothing() {
    for write in WRITES {
        for life in [None, Some(0), Some(1)] {
            raced(2, life, &[&[Act::Ask(1)], &[write, Act::Ask(0), Act::Get]]);
        }
    }
}

/// E4, S8: writers that are dropped after any of their polls leave no fence up and no flight stuck.
#[test]
fn a_cancelled_writer_leaves_no_fence_up() {
    for write in WRITES {
        for polls in 0..8 {
            explore(1, 30_000, |sim| {
                let world = World::new(sim, 1);
                let reader = world.client(sim, "reader", &[Act::Ask(1), Act::Get]);
                world.client(sim, "writer", &[write]).cancel_after(polls);
                sim.run();
                assert!(reader.is_done());
                sim.settle();
                // A load that begins now is stored again.
                world.client(sim, "writer", &[Act::Remove, Act::Ask(0)]);
                sim.run();
                assert!(world.tiers[0].inner().held("k").is_some(), "the fence is still up");
                world.assert(sim);
            });
        }
    }
}

/// E4: a write waits for a result that is being stored, no longer than that may take, and wins over it.
#[test]
fn a_write_waits_for_a_result_on_its_way_to_the_store() {
    for write in WRITES {
        for fault in [Fault::HangBefore, Fault::HangAfter] {
            let mut sim = Sim::new(crate::testkit::Schedule::script([]));
            let world = World::new(&mut sim, 1);
            world.tiers[0].faults().on(Operation::Set, 0, fault);
            world.client(&mut sim, "reader", &[Act::Ask(0)]);
            sim.run_ready();
            let writer = world.client(&mut sim, "writer", &[write, Act::Get]);
            let other = world.client(&mut sim, "other", &[Act::Ask(0)]);
            sim.run_ready();
            assert!(!writer.is_done(), "the old result may still arrive");
            assert!(other.is_done(), "a reader waits for no writer");
            sim.run();
            assert!(writer.is_done());
            assert_eq!(sim.now(), 30 * SECOND, "the deadline of the store's write");
            world.assert(&mut sim);
        }
    }
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3usize).prop_map(Act::Ask),
        2 => (0..3usize).prop_map(Act::AskFailing),
        1 => Just(Act::AskHanging),
        2 => Just(Act::Get),
        1 => Just(Act::Peek),
        2 => Just(Act::Remove),
        1 => Just(Act::Clear),
        2 => Just(Act::Set),
        2 => (0..8u32).prop_map(Act::Wait),
    ]
}

proptest! {
    /// E4, E5, E11, S8: anything at once: stale and expired entries, failing and hanging computations,
    /// failing stores, dropped callers and writers, deadlines that strike in the middle.
    #[test]
    fn nothing_that_was_removed_comes_back(
        schedule in schedules(80),
        shape in 0..3usize,
        life in proptest::option::of(0..3usize),
        clients in proptest::collection::vec(proptest::collection::vec(act(), 1..6), 2..5),
        cancelled in proptest::collection::vec((0..4usize, 0..20u64), 0..3),
        faults in proptest::collection::vec(planned(2), 0..3),
        races_time in any::<bool>(),
    ) {
        let mut sim = Sim::new(schedule);
        if races_time {
            sim.race_time();
        }
        let world = World::new(&mut sim, shape);
        if let Some(life) = life {
            world.plant(life);
        }
        for (tier, operation, nth, fault) in faults as Vec<Planned> {
            world.faults[tier % world.faults.len()].on(operation, nth, fault);
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
