//! What must not make a difference: bulk or single, overridden or default, bare or under an adapter.

use proptest::prelude::*;

use super::{Law, anyone, as_a_map, calm, law};
use crate::testkit::runner::Finding;
use crate::testkit::store::facts::Facts;
use crate::testkit::store::lab::{Lab, Lane};
use crate::testkit::store::plan::{Draft, Op, Plan, Step, drafts, lasting_drafts, ops, renewals, sequence};
use crate::testkit::store::trace::{One, Trace};
use crate::testkit::store::world::Shape;

const KEYS: u8 = 3;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law(
            "s11_bulk_calls_are_their_single_calls",
            "one user is answered with the value of another: results in another order, or one too few",
            anyone,
            |facts| in_bulk(facts.fitting(KEYS)).boxed(),
            bulk_is_single,
        ),
        law(
            "s11_overrides_are_their_defaults",
            "what was made faster was made wrong",
            reproducible,
            |facts| sequence(ops(facts.fitting(KEYS)), 10).boxed(),
            |lab, plan| same(lab, plan, Shape::Minimal, "its four required methods alone"),
        ),
        law(
            "s13_a_renewal_is_a_write",
            "what was not modified keeps its old deadlines, or a value that was modified is not stored",
            anyone,
            |facts| renewed(facts.fitting(KEYS)).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                trace.unaltered()?;
                as_a_map(lab, &trace, KEYS)
            },
        ),
        law(
            "d1_handles_change_nothing",
            "a store behind a pointer is another store",
            reproducible,
            |facts| sequence(ops(facts.fitting(KEYS)), 8).boxed(),
            |lab, plan| {
                same(lab, plan, Shape::Reference, "the store behind `&`")?;
                same(lab, plan, Shape::Boxed, "the store in a `Box`")
            },
        ),
        law(
            "d2_any_adapter_fits",
            "the store works alone and not in a stack",
            reproducible,
            |facts| sequence(ops(facts.fitting(KEYS)), 8).boxed(),
            |lab, plan| {
                for shape in [
                    Shape::Inspected,
                    Shape::Uncapped,
                    Shape::OneShard,
                    Shape::UnderNull,
                    Shape::OverNull,
                    Shape::UnderMemory,
                ] {
                    let trace = lab.run_as(plan, shape);
                    let told =
                        |finding: Finding| Finding { got: format!("{} ({shape:?})", finding.got), ..finding };
                    trace.ended().map_err(told)?;
                    trace.unfailed().map_err(told)?;
                    trace.unaltered().map_err(told)?;
                    as_a_map(lab, &trace, KEYS).map_err(told)?;
                }
                Ok(())
            },
        ),
    ]
}

/// For laws that compare two runs.
fn reproducible(facts: &Facts, _: Lane) -> Option<&'static str> {
    (!facts.retains(KEYS.into())).then_some(
        "a store that may forget one of 3 entries is not the same twice: check one with room for them",
    )
}

fn in_bulk(keys: u8) -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        2 => lasting_drafts(keys).prop_map(Op::Set),
        1 => (0..keys).prop_map(Op::Remove),
        3 => proptest::collection::vec(0..keys, 0..5).prop_map(Op::GetMany),
        2 => proptest::collection::vec(lasting_drafts(keys), 0..5).prop_map(Op::SetMany),
        2 => proptest::collection::vec(0..keys, 0..5).prop_map(Op::RemoveMany),
    ];
    proptest::collection::vec(op, 1..8).prop_map(move |ops| {
        let reads = (0..keys).map(Op::Get);
        Plan { tasks: vec![ops.into_iter().chain(reads).map(Step::own).collect()], ..Plan::default() }
    })
}

/// Renewals of whatever there is: the same value, another one, one that is gone, with other labels.
fn renewed(keys: u8) -> impl Strategy<Value = Plan> {
    let read = |keys: u8| {
        prop_oneof![
            3 => (0..keys).prop_map(Op::Get),
            1 => (0..keys).prop_map(Op::Peek),
            1 => proptest::collection::vec(0..keys, 1..4).prop_map(Op::GetMany),
        ]
    };
    let op = prop_oneof![
        3 => drafts(keys).prop_map(Op::Set),
        4 => renewals(drafts(keys)),
        2 => renewals((0..keys).prop_map(Draft::lasting)),
        1 => (0..keys).prop_map(Op::Remove),
        2 => read(keys),
    ];
    proptest::collection::vec(op, 1..9).prop_map(move |ops| {
        let reads = (0..keys).map(Op::Get);
        Plan { tasks: vec![ops.into_iter().chain(reads).map(Step::own).collect()], ..Plan::default() }
    })
}

/// The plan with its bulk calls taken apart. Drafts keep their numbers.
fn singly(plan: &Plan) -> Plan {
    let single = |step: &Step| -> Vec<Op> {
        match &step.op {
            Op::GetMany(keys) => keys.iter().map(|&key| Op::Get(key)).collect(),
            Op::SetMany(drafts) => drafts.iter().cloned().map(Op::Set).collect(),
            Op::RemoveMany(keys) => keys.iter().map(|&key| Op::Remove(key)).collect(),
            op => vec![op.clone()],
        }
    };
    let tasks =
        plan.tasks.iter().map(|steps| steps.iter().flat_map(single).map(Step::own).collect()).collect();
    Plan { tasks, ..plan.clone() }
}

fn bulk_is_single(lab: &Lab, plan: &Plan) -> Result<(), Finding> {
    let trace = calm(lab, plan)?;
    for event in &trace.events {
        let (asked, answered) = (event.op.keys().len(), event.answers().len());
        let bulk = matches!(event.op, Op::GetMany(_) | Op::SetMany(_) | Op::RemoveMany(_));
        if bulk && asked != answered {
            return Err(trace.finding(
                &format!("{asked} results, one a key"),
                format!("{} gave {answered}", trace.describe(event)),
                "keys that were not found, or that occur twice, are left out",
            ));
        }
    }
    as_a_map(lab, &trace, KEYS)?;
    if reproducible(&lab.facts, lab.lane).is_some() {
        return Ok(());
    }
    compare(&trace, &calm(lab, &singly(plan))?, "the single calls, one by one")
}

fn same(lab: &Lab, plan: &Plan, shape: Shape, what: &str) -> Result<(), Finding> {
    let (bare, other) = (calm(lab, plan)?, lab.run_as(plan, shape));
    other.ended()?;
    compare(&bare, &other, what)
}

/// The answers of two runs, call by call. What a peek does not say, and what a default cannot count, is open.
fn compare(trace: &Trace, other: &Trace, what: &str) -> Result<(), Finding> {
    let flat = |trace: &Trace| -> Vec<(usize, One)> {
        let events = trace.events.iter().enumerate();
        events
            .flat_map(|(index, event)| event.answers().iter().map(move |one| (index, one.clone())))
            .collect()
    };
    for ((index, one), (_, two)) in flat(trace).into_iter().zip(flat(other)) {
        let open = |one: &One| matches!(one, One::Shown(_) | One::Number(_));
        if one != two && !open(&one) && !open(&two) {
            return Err(trace.finding(
                &format!("{two:?}, as {what} answer"),
                format!("{} answered {one:?}", trace.describe(&trace.events[index])),
                "two ways to do one thing that have grown apart",
            ));
        }
    }
    Ok(())
}
