//! What a case does to a store: plain data, so that it can be drawn, shrunk and written down.

use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::entry::Lifetime;
use crate::testkit::runner::Case;
use crate::time::Timestamp;

/// Where every case begins: the first second of the year 2100. A store that asks the system's clock in place
/// of the given one then loses nothing by it, as its entries are of the future.
pub(crate) const BASE: u64 = 4_102_444_800_000_000_000;

/// The store that a case is about.
pub(crate) const OWN: u8 = 0;
/// A store of the same kind that has nothing to do with it.
pub(crate) const NEIGHBOUR: u8 = 1;
/// A second client of the same store.
pub(crate) const SECOND: u8 = 2;
/// Another neighbour, whose name differs in another way.
pub(crate) const OTHER_NEIGHBOUR: u8 = 3;

/// Tasks over one store, the schedule under which they run, and a task that is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) tasks: Vec<Vec<Step>>,
    /// Choices of the schedule; none is a switch only where one is needed.
    pub(crate) schedule: Vec<u8>,
    /// A task, and after how many polls it is dropped.
    pub(crate) cancel: Option<(u8, u8)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// [`OWN`], [`NEIGHBOUR`] or [`SECOND`].
    pub(crate) on: u8,
    pub(crate) op: Op,
}

/// One operation. Keys are places in the corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    // New ones come last: a replay line holds the places.
    Set(Draft),
    Get(u8),
    GetAt(u8, u8),
    Peek(u8),
    Remove(u8),
    Clear,
    GetMany(Vec<u8>),
    SetMany(Vec<Draft>),
    RemoveMany(Vec<u8>),
    Flush,
    Len,
    Weight,
    /// Sets this many numbered keys, one by one.
    Fill(u16),
    /// Reads as many, and counts the hits.
    Count(u16),
    /// Removes as many, in bulk.
    Drain(u16),
    /// Time passes, by a step of [`STRIDES`], or beyond them to one of [`INSTANTS`].
    Advance(u8),
    /// The store is dropped and opened again.
    Reopen,
    /// What it stands on goes away, or is back.
    Outage(bool),
    /// Stored bytes of a key are changed.
    Damage(u8, Damage),
    /// Gives up a victim.
    Evict,
    /// Removes a range of keys, whose prefix is a key of the corpus.
    ClearPrefix(u8),
    /// Renews what was written last under the key: its value and labels, but for those that the draft has. Or,
    /// if so told, offers a value that nobody wrote.
    Renew(Draft, bool),
}

/// How stored bytes are changed. Places are fractions of the length, in 65,536ths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Damage {
    Flip(u16, u8),
    Cut(u16),
    Extend(u8),
    /// The bytes of another key in place of its own.
    Swap(u8),
    Empty,
    Zeroes,
    Noise(u16),
}

/// An entry in the making. Its value is the number of its place in the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) key: u8,
    /// Places in [`INSTANTS`].
    pub(crate) life: [u8; 4],
    /// A place in [`LABELS`], one up.
    pub(crate) version: u8,
    pub(crate) tags: Vec<u8>,
    /// The length of the value, one up; 0 is whatever the type has.
    pub(crate) size: u32,
}

const HOUR: u64 = 3_600_000_000_000;

/// Instants that a format may cut, shift or take for each other. The first four are long after the base and in
/// order, so that an entry that shrank to the least lives through every case.
pub(crate) const INSTANTS: [u64; 20] = [
    BASE,
    BASE + HOUR,
    BASE + 2 * HOUR,
    BASE + 3 * HOUR,
    0,
    1,
    999,
    1_000_000,
    4_294_967_295,
    4_294_967_296,
    // The last second of 32 bits, and one after it.
    4_294_967_295_999_999_999,
    4_294_967_296_000_000_001,
    BASE - HOUR,
    BASE - 1,
    BASE + 1,
    BASE + 1_000,
    BASE + 1_000_000_001,
    i64::MAX as u64 + 1,
    u64::MAX - 1,
    u64::MAX,
];

/// How far time goes at once: to the deadlines of [`INSTANTS`], just past them, and far beyond.
pub(crate) const STRIDES: [u64; 9] =
    [1, 1_000_000_000, HOUR, HOUR + 1, 2 * HOUR, 2 * HOUR + 1, 3 * HOUR, 3 * HOUR + 1, 1_000 * HOUR];

/// Versions and tags that a format may mix up.
pub(crate) const LABELS: [&str; 12] =
    ["a", "b", "", "ab", "a,b", "a:b", "A", "\0", "ü", "u\u{308}", "*[a]", "\"v1\""];

impl Step {
    pub(crate) const fn own(op: Op) -> Self {
        Self { on: OWN, op }
    }
}

impl Draft {
    /// An entry of `key` that outlives every case.
    pub(crate) fn lasting(key: u8) -> Self {
        Self { key, life: [0, 1, 2, 3], ..Self::default() }
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        let mut instants = self.life.map(|place| INSTANTS[usize::from(place) % INSTANTS.len()]);
        instants.sort_unstable();
        let [created_at, fresh, stale, keep] = instants.map(Timestamp::from_nanos);
        Lifetime::new(created_at, fresh, stale, keep)
    }

    pub(crate) fn version(&self) -> Option<&'static str> {
        let place = usize::from(self.version).checked_sub(1)?;
        Some(LABELS[place % LABELS.len()])
    }

    pub(crate) fn tags(&self) -> Vec<&'static str> {
        self.tags.iter().map(|&place| LABELS[usize::from(place) % LABELS.len()]).collect()
    }

    pub(crate) fn size(&self) -> Option<usize> {
        usize::try_from(self.size.checked_sub(1)?).ok()
    }

    fn simpler(&self) -> Vec<Self> {
        let plain = Self::lasting(self.key);
        let mut all = vec![
            plain.clone(),
            Self { life: plain.life, ..self.clone() },
            Self { version: 0, ..self.clone() },
            Self { tags: Vec::new(), ..self.clone() },
            Self { size: 0, ..self.clone() },
            Self { size: self.size / 2, ..self.clone() },
        ];
        all.extend(plainer(self.key).map(|key| Self { key, ..self.clone() }));
        for index in 0..self.tags.len() {
            let mut fewer = self.clone();
            fewer.tags.remove(index);
            all.push(fewer);
        }
        all.retain(|draft| draft != self);
        all
    }
}

/// The harmless keys that come before this one.
fn plainer(key: u8) -> impl Iterator<Item = u8> {
    0..key.min(3)
}

/// How far an advance moves a clock that stands at `now`.
pub(crate) fn stride(place: u8, now: Timestamp) -> Duration {
    let place = usize::from(place);
    match STRIDES.get(place) {
        Some(&stride) => Duration::from_nanos(stride),
        None => Timestamp::from_nanos(INSTANTS[(place - STRIDES.len()) % INSTANTS.len()]).since(now),
    }
}

/// How many kinds of advances there are.
pub(crate) const ADVANCES: u8 = 29;

impl Op {
    /// The drafts of this operation, in order.
    pub(crate) fn drafts(&self) -> &[Draft] {
        match self {
            Self::Set(draft) | Self::Renew(draft, _) => std::slice::from_ref(draft),
            Self::SetMany(drafts) => drafts,
            _ => &[],
        }
    }

    /// The keys that this operation names, one an answer.
    pub(crate) fn keys(&self) -> Vec<u8> {
        match self {
            Self::Set(draft) | Self::Renew(draft, _) => vec![draft.key],
            Self::Get(key) | Self::GetAt(key, _) | Self::Peek(key) | Self::Remove(key) => vec![*key],
            Self::GetMany(keys) | Self::RemoveMany(keys) => keys.clone(),
            Self::SetMany(drafts) => drafts.iter().map(|draft| draft.key).collect(),
            _ => Vec::new(),
        }
    }

    fn simpler(&self) -> Vec<Self> {
        match self {
            Self::Set(draft) => draft.simpler().into_iter().map(Self::Set).collect(),
            Self::Renew(draft, new) => {
                let simpler = draft.simpler().into_iter().map(|draft| Self::Renew(draft, *new));
                std::iter::once(Self::Set(draft.clone())).chain(simpler).collect()
            }
            Self::GetAt(key, at) => {
                let earlier = (*at > 0).then_some(Self::GetAt(*key, 0));
                std::iter::once(Self::Get(*key)).chain(earlier).collect()
            }
            Self::Get(key) => plainer(*key).map(Self::Get).collect(),
            Self::Peek(key) => plainer(*key).map(Self::Peek).collect(),
            Self::Remove(key) => plainer(*key).map(Self::Remove).collect(),
            Self::GetMany(keys) => {
                let single = keys.iter().map(|&key| Self::Get(key));
                single.chain(fewer(keys).into_iter().map(Self::GetMany)).collect()
            }
            Self::RemoveMany(keys) => {
                let single = keys.iter().map(|&key| Self::Remove(key));
                single.chain(fewer(keys).into_iter().map(Self::RemoveMany)).collect()
            }
            Self::SetMany(drafts) => {
                let single = drafts.iter().cloned().map(Self::Set);
                let plain = drafts.iter().map(|draft| Draft::lasting(draft.key)).collect::<Vec<_>>();
                let plain = (plain != *drafts).then_some(Self::SetMany(plain));
                single.chain(plain).chain(fewer(drafts).into_iter().map(Self::SetMany)).collect()
            }
            Self::Fill(count) => halves(*count).map(Self::Fill).collect(),
            Self::Count(count) => halves(*count).map(Self::Count).collect(),
            Self::Drain(count) => halves(*count).map(Self::Drain).collect(),
            Self::Advance(place) => (0..*place).map(Self::Advance).collect(),
            _ => Vec::new(),
        }
    }
}

/// The list without one of its items, for each of them.
pub(crate) fn fewer<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let without =
        |index| items.iter().enumerate().filter(move |(at, _)| *at != index).map(|(_, item)| item.clone());
    (0..items.len()).map(|index| without(index).collect()).collect()
}

/// Two steps of time as one of any length, at the place of the later one.
fn in_one_stride(steps: &[Step]) -> Vec<Vec<Step>> {
    let moves: Vec<usize> = (0..steps.len()).filter(|&at| matches!(steps[at].op, Op::Advance(_))).collect();
    let mut all = Vec::new();
    for pair in moves.windows(2) {
        for place in 0..u8::try_from(STRIDES.len()).unwrap_or(0) {
            let mut merged = steps.to_vec();
            merged[pair[1]] = Step::own(Op::Advance(place));
            merged.remove(pair[0]);
            all.push(merged);
        }
    }
    all
}

fn halves(count: u16) -> impl Iterator<Item = u16> {
    [count / 2, count.saturating_sub(1)].into_iter().filter(move |&less| less > 0 && less < count)
}

impl Case for Plan {
    fn simpler(&self) -> Vec<Self> {
        let mut all = Vec::new();
        if self.cancel.is_some() {
            all.push(Self { cancel: None, ..self.clone() });
        }
        if !self.schedule.is_empty() {
            all.push(Self { schedule: Vec::new(), ..self.clone() });
            all.push(Self { schedule: self.schedule[..self.schedule.len() / 2].to_vec(), ..self.clone() });
        }
        if self.tasks.len() > 1 {
            all.extend(fewer(&self.tasks).into_iter().map(|tasks| Self { tasks, ..self.clone() }));
        }
        for (task, steps) in self.tasks.iter().enumerate() {
            let with = |steps: Vec<Step>| {
                let mut plan = self.clone();
                plan.tasks[task] = steps;
                plan
            };
            if steps.len() > 3 {
                all.push(with(steps[..steps.len() / 2].to_vec()));
                all.push(with(steps[steps.len() / 2..].to_vec()));
            }
            all.extend(fewer(steps).into_iter().map(with));
            // Two at once: what was set and is removed again.
            if steps.len() <= 12 {
                for first in 0..steps.len() {
                    for second in first + 1..steps.len() {
                        let rest = steps.iter().enumerate().filter(|(at, _)| *at != first && *at != second);
                        all.push(with(rest.map(|(_, step)| step.clone()).collect()));
                    }
                }
            }
            // One less, and two in the other order: what stood between them had its place from it.
            if steps.len() <= 8 {
                for fewer in fewer(steps) {
                    for at in 1..fewer.len() {
                        let mut swapped = fewer.clone();
                        swapped.swap(at - 1, at);
                        all.push(with(swapped));
                    }
                }
            }
        }
        for (task, steps) in self.tasks.iter().enumerate() {
            all.extend(in_one_stride(steps).into_iter().map(|steps| {
                let mut plan = self.clone();
                plan.tasks[task] = steps;
                plan
            }));
            for (index, step) in steps.iter().enumerate() {
                let with = |on, op| {
                    let mut plan = self.clone();
                    plan.tasks[task][index] = Step { on, op };
                    plan
                };
                all.extend(step.op.simpler().into_iter().map(|op| with(step.on, op)));
            }
        }
        for index in 0..self.schedule.len() {
            if self.schedule[index] > 0 {
                let mut plan = self.clone();
                plan.schedule[index] -= 1;
                all.push(plan);
            }
        }
        if let Some((task, polls)) = self.cancel
            && polls > 0
        {
            all.push(Self { cancel: Some((task, polls - 1)), ..self.clone() });
        }
        all
    }

    fn steps(&self) -> usize {
        self.tasks.iter().map(Vec::len).sum()
    }
}

/// Plans of one task.
pub(crate) fn sequence(
    op: impl Strategy<Value = Op> + 'static,
    longest: usize,
) -> impl Strategy<Value = Plan> {
    proptest::collection::vec(op.prop_map(Step::own), 1..=longest)
        .prop_map(|steps| Plan { tasks: vec![steps], ..Plan::default() })
}

/// One plan of one task.
pub(crate) fn fixed(ops: impl IntoIterator<Item = Op>) -> Plan {
    Plan { tasks: vec![ops.into_iter().map(Step::own).collect()], ..Plan::default() }
}

/// Any entry of one of the first `keys` keys.
pub(crate) fn drafts(keys: u8) -> impl Strategy<Value = Draft> {
    let place = || prop_oneof![2 => 0..4u8, 3 => 0..u8::try_from(INSTANTS.len()).unwrap_or(1)];
    let label = 0..u8::try_from(LABELS.len()).unwrap_or(1);
    let tags = prop_oneof![2 => Just(Vec::new()), 3 => proptest::collection::vec(label.clone(), 0..5)];
    let version = prop_oneof![2 => Just(0), 1 => label.prop_map(|label| label + 1)];
    (0..keys, [place(), place(), place(), place()], version, tags)
        .prop_map(|(key, life, version, tags)| Draft { key, life, version, tags, size: 0 })
}

/// An entry that outlives the case, with some labels.
pub(crate) fn lasting_drafts(keys: u8) -> impl Strategy<Value = Draft> {
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => proptest::collection::vec(0..3u8, 1..3)];
    (0..keys, tags).prop_map(|(key, tags)| Draft { tags, ..Draft::lasting(key) })
}

/// Renewals, most of them of what is held.
pub(crate) fn renewals(drafts: impl Strategy<Value = Draft>) -> impl Strategy<Value = Op> {
    (drafts, prop_oneof![3 => Just(false), 1 => Just(true)]).prop_map(|(draft, new)| Op::Renew(draft, new))
}

/// Single calls on the first `keys` keys, all of which outlive the case.
pub(crate) fn single_ops(keys: u8) -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => lasting_drafts(keys).prop_map(Op::Set),
        2 => renewals(lasting_drafts(keys)),
        3 => (0..keys).prop_map(Op::Get),
        1 => (0..keys, 0..6u8).prop_map(|(key, at)| Op::GetAt(key, at)),
        2 => (0..keys).prop_map(Op::Peek),
        3 => (0..keys).prop_map(Op::Remove),
        1 => Just(Op::Clear),
    ]
}

/// The same, and bulk calls.
pub(crate) fn ops(keys: u8) -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => single_ops(keys),
        1 => proptest::collection::vec(0..keys, 0..4).prop_map(Op::GetMany),
        1 => proptest::collection::vec(lasting_drafts(keys), 0..4).prop_map(Op::SetMany),
        1 => proptest::collection::vec(0..keys, 0..4).prop_map(Op::RemoveMany),
        1 => Just(Op::Flush),
    ]
}

/// Several tasks at once, perhaps one of them dropped.
pub(crate) fn race(keys: u8, cancels: bool) -> impl Strategy<Value = Plan> {
    let tasks =
        proptest::collection::vec(proptest::collection::vec(ops(keys).prop_map(Step::own), 1..5), 2..4);
    let schedule = proptest::collection::vec(prop_oneof![2 => Just(0u8), 3 => 0..6u8], 0..40);
    let cancel =
        if cancels { proptest::option::weighted(0.9, (0..3u8, 0..12u8)).boxed() } else { Just(None).boxed() };
    (tasks, schedule, cancel).prop_map(|(tasks, schedule, cancel)| Plan { tasks, schedule, cancel })
}
