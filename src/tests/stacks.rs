//! Stacks of any shape, and the laws that hold for all of them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::engine_races::{World, act};
use super::ready;
use super::rig::{Rig, planned, wild_act};
use crate::adapters::{Chain, FreshForAtMost, Null, Sharded};
use crate::codec::Postcard;
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::ext::StoreExt;
use crate::memory::{Lru, Memory, Single};
use crate::store::Store;
use crate::sync::Mutex;
use crate::testkit::Loss;
use crate::testkit::Model;
use crate::testkit::Sim;
use crate::testkit::{Faults, Faulty};
use crate::testkit::{Schedule, schedules};
use crate::time::{Clock, ManualClock, Timestamp};

/// The plan of a stack. Every leaf fails when it is told to.
#[derive(Clone)]
enum Plan {
    Model,
    Memory(usize),
    Lru(usize),
    Single,
    Null,
    /// Weighed, and bounded by bytes.
    Limited(u64),
    /// Text and bytes below, in a share of their store.
    Encoded(&'static str),
    Chain(Box<Plan>, Box<Plan>, bool),
    Sharded(usize, Box<Plan>),
    Capped(Duration, Box<Plan>),
    Inspected(Box<Plan>),
    Shared(Box<Plan>),
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model => write!(f, "toy"),
            Self::Memory(max) => write!(f, "memory({max})"),
            Self::Lru(max) => write!(f, "lru({max})"),
            Self::Single => write!(f, "single"),
            Self::Null => write!(f, "null"),
            Self::Limited(bound) => write!(f, "memory.byte_limited({bound})"),
            Self::Encoded(prefix) => write!(f, "memory.prefixed({prefix:?}).encoded(postcard)"),
            Self::Chain(upper, lower, strict) => {
                write!(f, "{upper:?}.chain({lower:?}){}", if *strict { ".strict()" } else { "" })
            }
            Self::Sharded(shards, of) => write!(f, "sharded({shards}, {of:?})"),
            Self::Capped(limit, of) => write!(f, "{of:?}.fresh_for_at_most({limit:?})"),
            Self::Inspected(of) => write!(f, "{of:?}.inspect()"),
            Self::Shared(of) => write!(f, "arc({of:?})"),
        }
    }
}

impl Plan {
    /// The stack, and the switches of its leaves.
    fn build(&self, clock: &ManualClock) -> (BoxStore<str, u64>, Vec<Faults>) {
        self.build_beside(clock, &Neighbours::default())
    }

    /// The same, and the stores of which it has a share.
    fn build_beside(
        &self,
        clock: &ManualClock,
        neighbours: &Neighbours,
    ) -> (BoxStore<str, u64>, Vec<Faults>) {
        let mut faults = Vec::new();
        let stack = self.stack(clock, &mut faults, neighbours);
        (stack, faults)
    }

    fn stack(
        &self,
        clock: &ManualClock,
        faults: &mut Vec<Faults>,
        neighbours: &Neighbours,
    ) -> BoxStore<str, u64> {
        match self {
            Self::Model => leaf(Model::remote(), faults),
            Self::Memory(max) => leaf(Memory::new(*max), faults),
            Self::Lru(max) => leaf(Lru::new(*max), faults),
            Self::Single => leaf(Single::new(), faults),
            Self::Null => leaf(Null::new(), faults),
            Self::Limited(bound) => leaf(Memory::new(100).byte_limited(*bound), faults),
            Self::Encoded(prefix) => {
                let memory = Arc::new(Memory::<str, Bytes>::new(100));
                if !prefix.is_empty() {
                    let entry = Entry::new(Bytes::new(), Lifetime::forever(clock.now()));
                    ready(memory.set(NEIGHBOUR, entry)).expect("a memory does not fail");
                    neighbours.lock().push(Arc::clone(&memory));
                }
                leaf(memory.prefixed(*prefix).encoded(Postcard), faults)
            }
            Self::Chain(upper, lower, strict) => {
                let upper = upper.stack(clock, faults, neighbours);
                let chain = Chain::new(upper, lower.stack(clock, faults, neighbours)).clock(clock.clone());
                if *strict { chain.strict().boxed() } else { chain.boxed() }
            }
            Self::Sharded(shards, of) => {
                let sharded = Sharded::new(*shards, |_| of.stack(clock, faults, neighbours));
                sharded.expect("a few shards are not too many").boxed()
            }
            Self::Capped(limit, of) => {
                FreshForAtMost::new(of.stack(clock, faults, neighbours), *limit).clock(clock.clone()).boxed()
            }
            Self::Inspected(of) => of.stack(clock, faults, neighbours).inspect(|_| ()).boxed(),
            Self::Shared(of) => Arc::new(of.stack(clock, faults, neighbours)).boxed(),
        }
    }
}

/// Stores of which a stack has a share, each with one entry of somebody else.
type Neighbours = Mutex<Vec<Arc<Memory<str, Bytes>>>>;

/// Outside the prefix of every plan, and as close to it as can be.
const NEIGHBOUR: &str = "p";

/// Keys that are parts of each other and of the prefix.
const NAMES: [&str; 6] = ["", "k", "kk", "p", "p:", "p:k"];

/// Fresh for longer than a test takes and for less than any cap, which would change it.
fn lasting(value: u64) -> Entry<u64> {
    let [fresh, stale, keep] = [60, 120, 180].map(|seconds| Timestamp::from_nanos(seconds * 1_000_000_000));
    Entry::new(value, Lifetime::new(Timestamp::EPOCH, fresh, stale, keep)).with_tags(["a"])
}

fn leaf(store: impl Store<Key = str, Value = u64> + 'static, faults: &mut Vec<Faults>) -> BoxStore<str, u64> {
    let leaf = Faulty::new(store);
    faults.push(leaf.faults());
    leaf.boxed()
}

/// Plans of at most four levels. Caps are as short as `shortest`.
fn plans(shortest: Duration) -> impl Strategy<Value = Plan> {
    let leaf = prop_oneof![
        2 => Just(Plan::Model),
        2 => (0..4usize).prop_map(Plan::Memory),
        1 => (0..4usize).prop_map(Plan::Lru),
        1 => Just(Plan::Single),
        1 => Just(Plan::Null),
        1 => prop_oneof![Just(0), Just(40), Just(1000)].prop_map(Plan::Limited),
        1 => prop_oneof![Just(""), Just("p:")].prop_map(Plan::Encoded),
    ];
    leaf.prop_recursive(3, 8, 2, move |of| {
        let of = || of.clone().prop_map(Box::new);
        let limit = prop_oneof![Just(Duration::from_secs(3600)), Just(shortest)];
        prop_oneof![
            4 => (of(), of(), any::<bool>()).prop_map(|(upper, lower, strict)| Plan::Chain(upper, lower, strict)),
            1 => (1..4usize, of()).prop_map(|(shards, of)| Plan::Sharded(shards, of)),
            1 => (limit, of()).prop_map(|(limit, of)| Plan::Capped(limit, of)),
            1 => of().prop_map(Plan::Inspected),
            1 => of().prop_map(Plan::Shared),
        ]
    })
}

proptest! {
    /// D2: whatever stores and adapters a stack is made of, it is a lossy register that never goes back
    /// (S1, S3, S4, S8, S9, S11), raced, failing and cancelled.
    #[test]
    fn any_stack_is_a_lossy_register(
        plan in plans(Duration::from_secs(3600)),
        schedule in schedules(80),
        clients in proptest::collection::vec(proptest::collection::vec(wild_act(4), 1..6), 1..4),
        cancelled in proptest::option::of((0..3usize, 0..30u64)),
        faults in proptest::collection::vec(planned(4), 0..4),
    ) {
        let mut sim = Sim::new(schedule);
        let clock = ManualClock::new(Timestamp::from_nanos(1000));
        let (stack, switches) = plan.build(&clock);
        prop_assert!(!stack.describe().to_string().is_empty());
        let rig = Rig::over(stack, switches, clock);
        for (tier, operation, nth, fault) in faults {
            rig.faults[tier % rig.faults.len()].on(operation, nth, fault);
        }
        for (index, acts) in clients.iter().enumerate() {
            let task = rig.client(&mut sim, &format!("client {index}"), acts);
            if let Some((victim, polls)) = cancelled && victim == index {
                task.cancel_after(polls);
            }
        }
        sim.run();
        rig.aftermath(&mut sim);
        rig.assert(Loss::Misses);
    }

    /// D2: S5 and S9 in any nesting, with nobody else around. Removal and clearing succeed also on what is
    /// absent, and take what they name and no more; a peek shows what a read answers.
    #[test]
    fn any_stack_removes_what_it_is_told_to_and_nothing_else(
        plan in plans(Duration::from_secs(3600)),
        written in proptest::collection::vec(0..NAMES.len(), 0..6),
        victim in 0..NAMES.len(),
    ) {
        let clock = ManualClock::new(Timestamp::from_nanos(1000));
        let neighbours = Neighbours::default();
        let (stack, _) = plan.build_beside(&clock, &neighbours);
        Sim::new(Schedule::script([])).block_on(async move {
            for (value, name) in (0..).zip(&written) {
                stack.set(NAMES[*name], lasting(value)).await.unwrap();
            }
            let mut held = Vec::new();
            for name in NAMES {
                let read = stack.get(name).await.unwrap();
                let peeked = stack.peek_with(name, Entry::clone);
                assert!(peeked.is_none() || peeked == read, "S9: {name:?}: {peeked:?}, {read:?}");
                held.push(read);
            }
            for _ in 0..2 {
                stack.remove(NAMES[victim]).await.unwrap();
                assert_eq!(stack.get(NAMES[victim]).await.unwrap(), None);
            }
            for (name, before) in NAMES.into_iter().zip(held) {
                let left = stack.get(name).await.unwrap();
                // A read above may have moved an entry into a small tier, which then gave up another.
                assert!(name == NAMES[victim] || left == before || left.is_none(), "{name:?}: {left:?}");
            }
            for _ in 0..2 {
                stack.clear().await.unwrap();
                for name in NAMES {
                    assert_eq!(stack.get(name).await.unwrap(), None);
                    assert_eq!(stack.peek_with(name, |_| ()), None);
                }
                assert!(stack.len().is_none_or(|len| len == 0));
                assert!(stack.weight().is_none_or(|weight| weight == 0));
            }
        });
        for memory in neighbours.lock().iter() {
            prop_assert_eq!(memory.len(), Some(1), "S5: only what is outside the prefix is left");
            prop_assert!(memory.peek_with(NEIGHBOUR, |_| ()).is_some(), "S5: the neighbour was touched");
        }
    }

    /// E4, E5, E11 over any stack: the engine's promises do not depend on what is under it.
    #[test]
    fn nothing_that_was_removed_comes_back_over_any_stack(
        plan in plans(Duration::from_millis(700)),
        schedule in schedules(80),
        clients in proptest::collection::vec(proptest::collection::vec(act(), 1..6), 2..4),
        cancelled in proptest::collection::vec((0..3usize, 0..20u64), 0..3),
        faults in proptest::collection::vec(planned(4), 0..3),
        races_time in any::<bool>(),
    ) {
        let mut sim = Sim::new(schedule);
        if races_time {
            sim.race_time();
        }
        // The stack's own clock stands still: caps only shorten, and the engine judges by its own.
        let (stack, switches) = plan.build(&ManualClock::new(Timestamp::from_nanos(1_000_000_000_000)));
        let world = World::over(&mut sim, stack, switches.clone());
        for (tier, operation, nth, fault) in faults {
            switches[tier % switches.len()].on(operation, nth, fault);
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
