//! Scripted clients over a stack of faulty tiers, and what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use crate::entry::{Entry, Lifetime};
use crate::error::Operation;
use crate::store::Store;
use crate::testkit::Model;
use crate::testkit::{Fault, Faults, Faulty};
use crate::testkit::{History, Loss, Recorded, StoreHistory};
use crate::testkit::{Sim, Task};
use crate::time::{Clock, ManualClock, Timestamp};

/// A tier of a stack under test.
pub(crate) type Tier = Arc<Faulty<Model<str, u64>>>;

/// The keys that clients use.
pub(crate) const KEYS: [&str; 2] = ["k", "l"];

/// One step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Writes an entry that nobody wrote before.
    Set(usize),
    /// Removes.
    Remove(usize),
    /// Removes everything.
    Clear,
    /// Reads.
    Get(usize),
    /// Reads both keys at once.
    GetMany,
    /// Reads without waiting.
    Peek(usize),
    /// The tier forgets the key, as by an eviction.
    Forget(usize, usize),
    /// The tier fails everything.
    Down(usize),
    /// The tier fails this, and goes on with the rest.
    DownFor(usize, Operation),
    /// The tier is back.
    Up(usize),
}

/// A stack, its tiers (fastest first) if they are known, their switches, its clock, its history.
#[derive(Debug)]
pub(crate) struct Rig<S: Store<Key = str, Value = u64>> {
    pub(crate) stack: Arc<S>,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) faults: Vec<Faults>,
    pub(crate) clock: ManualClock,
    pub(crate) history: StoreHistory<Arc<S>>,
    values: Arc<AtomicU64>,
}

/// Tiers for a stack: the first answers at once, as a memory does.
pub(crate) fn tiers(count: usize) -> Vec<Tier> {
    let toy = |index| if index == 0 { Model::new() } else { Model::remote() };
    (0..count).map(|index| Arc::new(Faulty::new(toy(index)))).collect()
}

/// An entry that is fresh for longer than any test takes; some have a version and tags.
fn lasting(value: u64, created_at: Timestamp) -> Entry<u64> {
    let after = |minutes: u32| created_at.saturating_add(Duration::from_secs(60) * minutes);
    let entry = Entry::new(value, Lifetime::new(created_at, after(1), after(2), after(3)));
    if value.is_multiple_of(2) { entry } else { entry.with_version(value.to_string()).with_tags(["b", "a"]) }
}

impl<S: Store<Key = str, Value = u64> + 'static> Rig<S> {
    /// A rig around the stack that `build` makes of the tiers.
    pub(crate) fn new(count: usize, build: impl FnOnce(&[Tier], ManualClock) -> S) -> Self {
        let tiers = tiers(count);
        let clock = ManualClock::new(Timestamp::from_nanos(1000));
        let stack = build(&tiers, clock.clone());
        let faults = tiers.iter().map(|tier| tier.faults()).collect();
        Self { tiers, ..Self::over(stack, faults, clock) }
    }

    /// A rig around a stack of which only the switches are known.
    pub(crate) fn over(stack: S, faults: Vec<Faults>, clock: ManualClock) -> Self {
        let (history, values) = (History::new(), Arc::default());
        Self { stack: Arc::new(stack), tiers: Vec::new(), faults, clock, history, values }
    }

    /// Puts one old entry of the first key into these tiers, as a `set` long ago.
    pub(crate) fn plant(&self, tiers: impl IntoIterator<Item = usize>) {
        let entry = self.entry();
        for tier in tiers {
            self.tiers[tier].inner().plant(KEYS[0], entry.clone());
        }
        let running =
            self.history.begin("before", Some(KEYS[0].to_owned()), crate::testkit::Call::Set(entry));
        running.end(crate::testkit::Reply::Done);
    }

    /// An entry that nobody wrote before, created at an instant of its own.
    pub(crate) fn entry(&self) -> Entry<u64> {
        self.clock.advance(Duration::from_nanos(1));
        lasting(self.values.fetch_add(1, Ordering::Relaxed), self.clock.now())
    }

    /// A client as a task.
    pub(crate) fn client(&self, sim: &mut Sim, name: &str, acts: &[Act]) -> Task<()> {
        let rig = self.share();
        let (client, acts) = (Recorded::new(Arc::clone(&self.stack), name, &self.history), acts.to_vec());
        sim.spawn(name, async move {
            for act in acts {
                rig.act(&client, act).await;
            }
        })
    }

    /// When all is quiet and healed: what every tier still holds comes to light from the top down, and
    /// the stack still takes writes.
    pub(crate) fn aftermath(&self, sim: &mut Sim) {
        self.faults.iter().for_each(Faults::heal);
        let mut acts = Vec::new();
        for key in 0..KEYS.len() {
            acts.extend([Act::Peek(key), Act::Get(key), Act::Get(key)]);
            for tier in 0..self.tiers.len().saturating_sub(1) {
                acts.extend((0..=tier).map(|tier| Act::Forget(tier, key)));
                acts.extend([Act::Get(key), Act::Get(key)]);
            }
        }
        acts.extend([Act::Set(0), Act::Get(0), Act::Remove(0), Act::Get(0)]);
        self.client(sim, "aftermath", &acts);
        sim.run();
    }

    /// Law S3 over everything that was seen.
    #[track_caller]
    pub(crate) fn assert(&self, loss: Loss) {
        self.history.assert(loss);
    }

    async fn act(&self, client: &Recorded<Arc<S>, StoreHistory<Arc<S>>>, act: Act) {
        // Whether a call succeeds is the scenario's affair; the history has the reply.
        match act {
            Act::Set(key) => drop(client.set(KEYS[key], self.entry()).await),
            Act::Remove(key) => drop(client.remove(KEYS[key]).await),
            Act::Clear => drop(client.clear().await),
            Act::Get(key) => drop(client.get_at(KEYS[key], self.clock.now()).await),
            Act::GetMany => drop(client.get_many(&KEYS, self.clock.now()).await),
            Act::Peek(key) => drop(client.peek_with(KEYS[key], |_| ())),
            Act::Forget(tier, key) => {
                if let Some(tier) = self.tiers.get(tier) {
                    tier.inner().forget(KEYS[key]);
                }
            }
            Act::Down(tier) => self.faults[tier % self.faults.len()].down(),
            Act::DownFor(tier, operation) => self.faults[tier % self.faults.len()].down_for(operation),
            Act::Up(tier) => self.faults[tier % self.faults.len()].up(),
        }
    }

    fn share(&self) -> Self {
        Self {
            stack: Arc::clone(&self.stack),
            tiers: self.tiers.clone(),
            faults: self.faults.clone(),
            clock: self.clock.clone(),
            history: self.history.clone(),
            values: Arc::clone(&self.values),
        }
    }
}

/// What a client may do to a healthy stack whose deepest tier forgets nothing.
pub(crate) fn calm_act(tiers: usize) -> impl Strategy<Value = Act> {
    let key = 0..KEYS.len();
    prop_oneof![
        3 => key.clone().prop_map(Act::Set),
        2 => key.clone().prop_map(Act::Remove),
        1 => Just(Act::Clear),
        5 => key.clone().prop_map(Act::Get),
        1 => Just(Act::GetMany),
        1 => key.clone().prop_map(Act::Peek),
        2 => (0..tiers - 1, key).prop_map(|(tier, key)| Act::Forget(tier, key)),
    ]
}

/// What a client may do while tiers come and go and forget.
pub(crate) fn wild_act(tiers: usize) -> impl Strategy<Value = Act> {
    let operation = prop_oneof![
        Just(Operation::Get),
        Just(Operation::Set),
        Just(Operation::Remove),
        Just(Operation::Clear)
    ];
    prop_oneof![
        6 => calm_act(tiers),
        1 => (0..tiers, 0..KEYS.len()).prop_map(|(tier, key)| Act::Forget(tier, key)),
        1 => (0..tiers).prop_map(Act::Down),
        1 => (0..tiers, operation).prop_map(|(tier, operation)| Act::DownFor(tier, operation)),
        1 => (0..tiers).prop_map(Act::Up),
    ]
}

/// A fault of one call: which tier, what, which call of its kind, how.
pub(crate) type Planned = (usize, Operation, u64, Fault);

/// One fault somewhere.
pub(crate) fn planned(tiers: usize) -> impl Strategy<Value = Planned> {
    let operation = prop_oneof![
        1 => Just(Operation::Get),
        3 => Just(Operation::Set),
        3 => Just(Operation::Remove),
        1 => Just(Operation::Clear)
    ];
    let fault =
        prop_oneof![3 => Just(Fault::FailBefore), 3 => Just(Fault::FailAfter), 1 => Just(Fault::Refuse)];
    (0..tiers, operation, 0..4u64, fault)
}
