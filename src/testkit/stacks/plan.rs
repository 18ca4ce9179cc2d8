//! The plan of a stack: what it is made of, as plain data.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::adapters::{Chain, FreshForAtMost, Null, Sharded};
use crate::codec::Postcard;
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::ext::StoreExt;
use crate::memory::{Lru, Memory, Single};
use crate::store::Store;
use crate::sync::Mutex;
use crate::testkit::faulty::{Faults, Faulty};
use crate::testkit::minimal::Minimal;
use crate::testkit::model::Model;
use crate::testkit::race::Ground;
use crate::testkit::script::{Dice, block};
use crate::time::{Clock, ManualClock};

/// A stack as plain data: any tiers, any adapters, nested in any way.
///
/// `Debug` prints the code that builds it. Every leaf is a [`Faulty`], so that each can fail, hang and wait by
/// its own switches.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackPlan(pub(crate) Plan);

/// What a layer is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Plan {
    Model,
    Remote,
    Memory(u16),
    Lru(u16),
    Single,
    Null,
    /// Weighed, and bounded by bytes.
    Limited(u64),
    /// Text and bytes below, behind so many prefixes.
    Encoded(u8),
    /// Behind so many prefixes.
    Prefixed(u8),
    Chain(Box<Plan>, Box<Plan>),
    Strict(Box<Plan>, Box<Plan>),
    Sharded(u8, Box<Plan>),
    Capped(Duration, Box<Plan>),
    /// Nothing is ever invalidated.
    Tagged(Box<Plan>),
    Inspected(Box<Plan>),
    Boxed(Box<Plan>),
    Shared(Box<Plan>),
    Owned(Box<Plan>),
    Minimal(Box<Plan>),
}

/// Stores of which a stack has a share, each with one entry of somebody else.
pub(crate) type Neighbours = Mutex<Vec<Arc<Memory<str, Bytes>>>>;

/// Outside the prefix of every plan, and as close to it as can be.
pub(crate) const NEIGHBOUR: &str = "p";

/// The second one is not the end of the first.
const PREFIXES: [&str; 2] = ["p:", "q/"];

impl StackPlan {
    /// The stack, and the switches of its leaves, from the top down. Caps and fences go by `clock`.
    pub fn build(&self, clock: &ManualClock) -> (BoxStore<str, u64>, Vec<Faults>) {
        self.build_beside(clock, &Neighbours::default())
    }

    /// The same, and the stores of which it has a share.
    pub(crate) fn build_beside(
        &self,
        clock: &ManualClock,
        neighbours: &Neighbours,
    ) -> (BoxStore<str, u64>, Vec<Faults>) {
        let mut builder = Builder { clock, neighbours, faults: Vec::new() };
        let stack = builder.stack(&self.0);
        (stack, builder.faults)
    }

    /// Plans of less, the least first.
    pub fn simpler(&self) -> Vec<Self> {
        self.0.simpler().into_iter().map(Self).collect()
    }
}

impl Ground for StackPlan {
    fn simpler(&self) -> Vec<Self> {
        self.simpler()
    }
}

impl Debug for StackPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes = |count: &u8| -> String {
            let prefixes = PREFIXES.iter().take(usize::from(*count)).rev();
            prefixes.map(|prefix| format!(".prefixed({prefix:?})")).collect::<Vec<_>>().concat()
        };
        match self {
            Self::Model => write!(f, "Model::new()"),
            Self::Remote => write!(f, "Model::remote()"),
            Self::Memory(max) => write!(f, "Memory::new({max})"),
            Self::Lru(max) => write!(f, "Lru::new({max})"),
            Self::Single => write!(f, "Single::new()"),
            Self::Null => write!(f, "Null::new()"),
            Self::Limited(bound) => write!(f, "Memory::new(100).byte_limited({bound})"),
            Self::Encoded(count) => write!(f, "Memory::new(100){}.encoded(Postcard)", prefixes(count)),
            Self::Prefixed(count) => write!(f, "Memory::new(100){}", prefixes(count)),
            Self::Chain(upper, lower) => write!(f, "{upper:?}.chain({lower:?})"),
            Self::Strict(upper, lower) => write!(f, "{upper:?}.chain({lower:?}).strict()"),
            Self::Sharded(shards, of) => write!(f, "Sharded::new({shards}, |_| {of:?})"),
            Self::Capped(limit, of) => write!(f, "{of:?}.fresh_for_at_most({limit:?})"),
            Self::Tagged(of) => write!(f, "{of:?}.tagged(Model::remote())"),
            Self::Inspected(of) => write!(f, "{of:?}.inspect(..)"),
            Self::Boxed(of) => write!(f, "{of:?}.boxed()"),
            Self::Shared(of) => write!(f, "Arc::new({of:?})"),
            Self::Owned(of) => write!(f, "Box::new({of:?})"),
            Self::Minimal(of) => write!(f, "Minimal({of:?})"),
        }
    }
}

struct Builder<'a> {
    clock: &'a ManualClock,
    neighbours: &'a Neighbours,
    faults: Vec<Faults>,
}

impl Builder<'_> {
    fn stack(&mut self, plan: &Plan) -> BoxStore<str, u64> {
        match plan {
            Plan::Model => self.leaf(Model::new()),
            Plan::Remote => self.leaf(Model::remote()),
            Plan::Memory(max) => self.leaf(Memory::new((*max).into()).eager()),
            Plan::Lru(max) => self.leaf(Lru::new((*max).into())),
            Plan::Single => self.leaf(Single::new()),
            Plan::Null => self.leaf(Null::new()),
            Plan::Limited(bound) => self.leaf(Memory::new(100).byte_limited(*bound)),
            Plan::Encoded(prefixes) => {
                let memory = Arc::new(Memory::<str, Bytes>::new(100));
                if *prefixes > 0 {
                    let entry = Entry::new(Bytes::new(), Lifetime::forever(self.clock.now()));
                    // A memory neither fails nor waits.
                    let _ = block(memory.set(NEIGHBOUR, entry));
                    self.neighbours.lock().push(Arc::clone(&memory));
                }
                match prefixes {
                    0 => self.leaf(memory.encoded(Postcard)),
                    1 => self.leaf(memory.prefixed(PREFIXES[0]).encoded(Postcard)),
                    _ => self.leaf(memory.prefixed(PREFIXES[1]).prefixed(PREFIXES[0]).encoded(Postcard)),
                }
            }
            Plan::Prefixed(0) => self.leaf(Memory::new(100)),
            Plan::Prefixed(1) => self.leaf(Memory::new(100).prefixed(PREFIXES[0])),
            Plan::Prefixed(_) => self.leaf(Memory::new(100).prefixed(PREFIXES[1]).prefixed(PREFIXES[0])),
            Plan::Chain(upper, lower) => {
                let upper = self.stack(upper);
                Chain::new(upper, self.stack(lower)).clock(self.clock.clone()).boxed()
            }
            Plan::Strict(upper, lower) => {
                let upper = self.stack(upper);
                Chain::new(upper, self.stack(lower)).clock(self.clock.clone()).strict().boxed()
            }
            Plan::Sharded(shards, of) => {
                // A plan that came from elsewhere may say 0.
                let sharded = Sharded::new(usize::from(*shards).max(1), |_| self.stack(of));
                sharded.map_or_else(|_| Null::new().boxed(), StoreExt::boxed)
            }
            Plan::Capped(limit, of) => {
                FreshForAtMost::new(self.stack(of), *limit).clock(self.clock.clone()).boxed()
            }
            Plan::Tagged(of) => {
                let tagged = self.stack(of).tagged(Model::remote()).clock(self.clock.clone());
                // However old an entry of a case is, its age is not what removes it.
                tagged.max_age(Duration::MAX).map_or_else(|_| Null::new().boxed(), StoreExt::boxed)
            }
            Plan::Inspected(of) => self.stack(of).inspect(|_| ()).boxed(),
            Plan::Boxed(of) => self.stack(of).boxed(),
            Plan::Shared(of) => Arc::new(self.stack(of)).boxed(),
            Plan::Owned(of) => Box::new(self.stack(of)).boxed(),
            Plan::Minimal(of) => Minimal(self.stack(of)).boxed(),
        }
    }

    fn leaf(&mut self, store: impl Store<Key = str, Value = u64> + 'static) -> BoxStore<str, u64> {
        let leaf = Faulty::new(store);
        self.faults.push(leaf.faults());
        leaf.boxed()
    }
}

impl Plan {
    /// What is inside comes first; then a model in its place; then the same around something simpler.
    fn simpler(&self) -> Vec<Self> {
        let mut found = Vec::new();
        let around = |of: &Self, layer: &dyn Fn(Box<Self>) -> Self| -> Vec<Self> {
            of.simpler().into_iter().map(|of| layer(Box::new(of))).collect()
        };
        match self {
            Self::Model => return found,
            Self::Memory(max) if *max > 0 => found.push(Self::Memory(max - 1)),
            Self::Lru(max) => found.push(Self::Memory(*max)),
            Self::Encoded(count) | Self::Prefixed(count) if *count > 0 => found.push(match self {
                Self::Encoded(count) => Self::Encoded(count - 1),
                _ => Self::Prefixed(count - 1),
            }),
            Self::Remote
            | Self::Single
            | Self::Null
            | Self::Memory(_)
            | Self::Limited(_)
            | Self::Encoded(_)
            | Self::Prefixed(_) => {}
            Self::Chain(upper, lower) => {
                found.extend([(**upper).clone(), (**lower).clone()]);
                found.extend(around(upper, &|upper| Self::Chain(upper, lower.clone())));
                found.extend(around(lower, &|lower| Self::Chain(upper.clone(), lower)));
            }
            Self::Strict(upper, lower) => {
                found.extend([(**upper).clone(), (**lower).clone()]);
                found.push(Self::Chain(upper.clone(), lower.clone()));
                found.extend(around(upper, &|upper| Self::Strict(upper, lower.clone())));
                found.extend(around(lower, &|lower| Self::Strict(upper.clone(), lower)));
            }
            Self::Sharded(shards, of) => {
                found.push((**of).clone());
                if *shards > 1 {
                    found.push(Self::Sharded(shards - 1, of.clone()));
                }
                found.extend(around(of, &|of| Self::Sharded(*shards, of)));
            }
            Self::Capped(limit, of) => {
                found.push((**of).clone());
                found.extend(around(of, &|of| Self::Capped(*limit, of)));
            }
            Self::Tagged(of) => {
                found.push((**of).clone());
                found.extend(around(of, &Self::Tagged));
            }
            Self::Inspected(of) => {
                found.push((**of).clone());
                found.extend(around(of, &Self::Inspected));
            }
            Self::Boxed(of) | Self::Shared(of) | Self::Owned(of) => {
                found.push((**of).clone());
                found.extend(around(of, &Self::Boxed));
            }
            Self::Minimal(of) => {
                found.push((**of).clone());
                found.extend(around(of, &Self::Minimal));
            }
        }
        found.push(Self::Model);
        found
    }
}

/// Plans of at most `depth` levels, 6 at most, out of every tier, adapter and handle. Caps are an hour or never.
pub fn stacks(depth: u32) -> impl Strategy<Value = StackPlan> {
    capped_stacks(depth, Duration::from_secs(3600))
}

/// The same, with caps as short as `shortest`.
pub(crate) fn capped_stacks(depth: u32, shortest: Duration) -> BoxedStrategy<StackPlan> {
    let leaf = prop_oneof![
        2 => Just(Plan::Model),
        2 => Just(Plan::Remote),
        2 => (0..4u16).prop_map(Plan::Memory),
        1 => (0..4u16).prop_map(Plan::Lru),
        1 => Just(Plan::Single),
        1 => Just(Plan::Null),
        1 => prop_oneof![Just(0), Just(140), Just(1000)].prop_map(Plan::Limited),
        1 => (0..3u8).prop_map(Plan::Encoded),
        1 => (0..3u8).prop_map(Plan::Prefixed),
    ];
    let limits = vec![Duration::from_secs(3600), Duration::MAX, shortest];
    nested(leaf.boxed(), depth, limits)
}

/// A plan that forgets nothing, whose caps change nothing.
pub(crate) fn lossless_stack(dice: &mut Dice, depth: u8) -> StackPlan {
    StackPlan(lossless(dice, depth))
}

fn lossless(dice: &mut Dice, depth: u8) -> Plan {
    if depth <= 1 || dice.chance(3) {
        return match dice.below(8) {
            0 | 1 => Plan::Model,
            2 => Plan::Remote,
            3 => Plan::Memory(1000),
            4 => Plan::Lru(1000),
            5 => Plan::Limited(1 << 20),
            6 => Plan::Encoded(dice.below(3)),
            _ => Plan::Prefixed(dice.below(3)),
        };
    }
    let mut of = || Box::new(lossless(dice, depth - 1));
    let (one, other) = (of(), of());
    match dice.below(13) {
        0..3 => Plan::Chain(one, other),
        3 => Plan::Strict(one, other),
        4 | 5 => Plan::Sharded(1 + dice.below(3), one),
        6 => Plan::Capped(Duration::MAX, one),
        7 => Plan::Inspected(one),
        11 => Plan::Tagged(one),
        8 => Plan::Boxed(one),
        9 => Plan::Shared(one),
        10 => Plan::Owned(one),
        _ => Plan::Minimal(one),
    }
}

fn nested(leaf: BoxedStrategy<Plan>, depth: u32, limits: Vec<Duration>) -> BoxedStrategy<StackPlan> {
    let plans = leaf.prop_recursive(depth.clamp(1, 6) - 1, 8, 2, move |of| {
        let of = || of.clone().prop_map(Box::new);
        let limit = proptest::sample::select(limits.clone());
        prop_oneof![
            4 => (of(), of()).prop_map(|(upper, lower)| Plan::Chain(upper, lower)),
            2 => (of(), of()).prop_map(|(upper, lower)| Plan::Strict(upper, lower)),
            2 => (1..4u8, of()).prop_map(|(shards, of)| Plan::Sharded(shards, of)),
            2 => (limit, of()).prop_map(|(limit, of)| Plan::Capped(limit, of)),
            1 => of().prop_map(Plan::Tagged),
            1 => of().prop_map(Plan::Inspected),
            1 => of().prop_map(Plan::Boxed),
            1 => of().prop_map(Plan::Shared),
            1 => of().prop_map(Plan::Owned),
            1 => of().prop_map(Plan::Minimal),
        ]
    });
    plans.prop_map(StackPlan).boxed()
}
