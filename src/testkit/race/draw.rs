//! Races by chance, and from a list.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::strategy::NewTree;
use proptest::test_runner::TestRunner;

use super::{Ground, Harm, Op, Planned, Race, Step};
use crate::testkit::runner::Case;

/// These cases one after the other, whatever the dice say.
pub(crate) fn in_turn<C: Case + Sync>(cases: Vec<C>) -> BoxedStrategy<C> {
    InTurn { cases, next: AtomicUsize::new(0) }.boxed()
}

#[derive(Debug)]
struct InTurn<C> {
    cases: Vec<C>,
    next: AtomicUsize,
}

impl<C: Case> Strategy for InTurn<C> {
    type Tree = Just<C>;
    type Value = C;

    fn new_tree(&self, _: &mut TestRunner) -> NewTree<Self> {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.cases.len();
        Ok(Just(self.cases[index].clone()))
    }
}

fn key() -> std::ops::Range<u8> {
    0..2
}

/// What a task may do to a healthy store of this many tiers, of which the deepest forgets nothing.
pub(crate) fn calm_step(tiers: u8) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => key().prop_map(Step::Set),
        2 => key().prop_map(Step::Renew),
        1 => Just(Step::SetMany),
        3 => key().prop_map(Step::Remove),
        1 => Just(Step::RemoveMany),
        1 => Just(Step::Clear),
        5 => key().prop_map(Step::Get),
        3 => key().prop_map(Step::GetAt),
        1 => Just(Step::GetMany),
        2 => key().prop_map(Step::Peek),
        2 => (0..tiers.saturating_sub(1).max(1), key()).prop_map(|(tier, key)| Step::Forget(tier, key)),
        1 => (1..100u8).prop_map(Step::Pass),
    ]
}

/// What a task may do while tiers come and go and forget.
pub(crate) fn wild_step(tiers: u8) -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => calm_step(tiers),
        1 => (0..tiers, key()).prop_map(|(tier, key)| Step::Forget(tier, key)),
        2 => (0..tiers).prop_map(Step::Down),
        1 => (0..tiers, op()).prop_map(|(tier, op)| Step::DownFor(tier, op)),
        2 => (0..tiers).prop_map(Step::Up),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![1 => Just(Op::Get), 3 => Just(Op::Set), 3 => Just(Op::Remove), 1 => Just(Op::Clear)]
}

/// One fault somewhere.
fn planned(tiers: u8) -> impl Strategy<Value = Planned> {
    let harm = prop_oneof![
        4 => Just(Harm::FailBefore),
        4 => Just(Harm::FailAfter),
        2 => Just(Harm::Refuse),
        1 => Just(Harm::HangBefore),
        1 => Just(Harm::HangAfter),
        1 => Just(Harm::Panic),
    ];
    (0..tiers, op(), 0..3u8, harm).prop_map(|(leaf, op, nth, harm)| Planned { leaf, op, nth, harm })
}

/// Any steps, or a few of one key: where a write is raced most closely.
fn tasks(step: impl Strategy<Value = Step>, least: usize) -> impl Strategy<Value = Vec<Vec<Step>>> {
    let close = prop_oneof![2 => Just(Step::Set(0)), 3 => Just(Step::Get(0)), 1 => Just(Step::Remove(0))];
    prop_oneof![
        3 => proptest::collection::vec(proptest::collection::vec(step, 1..6), least..4),
        1 => proptest::collection::vec(proptest::collection::vec(close, 1..4), least.max(2)..4),
    ]
}

fn schedule() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![2 => Just(0u8), 3 => 0..8u8], 0..=60)
}

fn cancelled() -> impl Strategy<Value = Option<(u8, u8)>> {
    proptest::option::of((0..3u8, 0..30u8))
}

/// Nowhere, in the deepest tier, in all: what is above and not in the deepest was forgotten there, or never was.
fn planted_in(tiers: u8) -> impl Strategy<Value = u8> {
    prop_oneof![Just(0u8), Just((1 << tiers) >> 1), Just((1 << tiers) - 1)]
}

/// Races in which nothing fails.
pub(crate) fn calm_races<G: Ground>(
    over: impl Strategy<Value = G>,
    tiers: u8,
) -> impl Strategy<Value = Race<G>> {
    (over, planted_in(tiers), tasks(calm_step(tiers), 2), cancelled(), schedule()).prop_map(
        |(over, planted, tasks, cancelled, schedule)| Race {
            over,
            planted,
            tasks,
            cancelled,
            faults: Vec::new(),
            schedule,
        },
    )
}

/// Races in which anything fails, hangs or panics.
pub(crate) fn wild_races<G: Ground>(
    over: impl Strategy<Value = G>,
    tiers: u8,
) -> impl Strategy<Value = Race<G>> {
    let faults = proptest::collection::vec(planned(tiers), 0..4);
    (over, planted_in(tiers), tasks(wild_step(tiers), 1), cancelled(), faults, schedule()).prop_map(
        |(over, planted, tasks, cancelled, faults, schedule)| Race {
            over,
            planted,
            tasks,
            cancelled,
            faults,
            schedule,
        },
    )
}
