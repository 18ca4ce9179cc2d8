//! Bounds: what a store holds, says that it holds, and gives up first.

use proptest::prelude::*;

use super::{Law, calm, law};
use crate::testkit::runner::Finding;
use crate::testkit::store::facts::{Facts, Order};
use crate::testkit::store::lab::Lab;
use crate::testkit::store::plan::{Draft, Op, Plan, Step, renewals, single_ops};
use crate::testkit::store::trace::{One, Trace};

pub(super) fn laws() -> Vec<Law> {
    vec![
        law(
            "s9_len_and_weight_are_exact",
            "bounds, dashboards and alarms are built on these numbers",
            super::anyone,
            |facts| counted(facts.fitting(6)).boxed(),
            exact,
        ),
        law(
            "s10_bounds_hold_after_every_call",
            "a cache that outgrows its bound takes the process with it",
            |facts, _| {
                let unbounded = facts.max_entries.is_none() && facts.max_bytes.is_none();
                unbounded.then_some("no bound was promised: `max_entries(n)`, `max_bytes(n)`")
            },
            |facts| crowded(facts).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                bounded(lab, &trace)
            },
        ),
        law(
            "s10_what_is_refused_leaves_nothing",
            "the old value is served for ever, although its writer was told that it is gone",
            |facts, _| {
                let none = facts.largest.is_none() && facts.max_bytes.is_none();
                match (facts.sized, none) {
                    (false, _) => Some("values of this type have no length"),
                    (true, true) => Some("no limit was promised: `largest_value(bytes)`, `max_bytes(n)`"),
                    (true, false) => None,
                }
            },
            |facts| refused(facts).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                super::as_a_map(lab, &trace, 2)
            },
        ),
        law(
            "s10_the_order_of_eviction",
            "the entry that is needed next is the one that was given up",
            |facts, _| match (facts.order, facts.max_entries) {
                (None, _) => Some("no order was promised: `evicts(Order::..)`"),
                (Some(_), Some(max)) if max <= 64 => None,
                _ => Some("the order is tried on a store of at most 64 entries: `max_entries(n)`"),
            },
            // Plain values: what is given up for bytes has no promised order.
            |facts| crowded(&Facts { max_bytes: None, ..facts.clone() }).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                ordered(lab, &trace)
            },
        ),
        law(
            "s10_evict_gives_up_one",
            "a bound in bytes that asks for room gets none, or loses everything at once",
            |facts, _| (!facts.evicts).then_some("`evicts_on_demand` was not promised"),
            |facts| evicting(facts.fitting(6)).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                one_by_one(&trace)
            },
        ),
    ]
}

/// Ends as it may: [`exact`] counts.
fn counted(keys: u8) -> impl Strategy<Value = Plan> {
    let sized = (0..keys, 1..40u32).prop_map(|(key, size)| Op::Set(Draft { size, ..Draft::lasting(key) }));
    let op = prop_oneof![
        5 => single_ops(keys),
        3 => sized,
        1 => proptest::collection::vec(0..keys, 0..4).prop_map(Op::RemoveMany),
        1 => (0..keys).prop_map(|key| Op::SetMany(vec![Draft::lasting(key), Draft::lasting(key)])),
    ];
    proptest::collection::vec(op.prop_map(Step::own), 0..12)
        .prop_map(|steps| Plan { tasks: vec![steps], ..Plan::default() })
}

/// Plays the plan, asks for length and weight, and reads every key that there may be.
fn exact(lab: &Lab, plan: &Plan) -> Result<(), Finding> {
    let keys = lab.facts.fitting(6);
    let mut steps = plan.tasks.first().cloned().unwrap_or_default();
    steps.extend([Op::Len, Op::Weight].into_iter().chain((0..keys).map(Op::Get)).map(Step::own));
    let plan = Plan { tasks: vec![steps], ..Plan::default() };
    let trace = calm(lab, &plan)?;
    let (asked, reads) = trace.events.split_at(trace.events.len() - usize::from(keys));
    let number = |from_end: usize| match asked[asked.len() - from_end].answers() {
        [One::Number(number)] => *number,
        _ => None,
    };
    let (len, weight) = (number(2), number(1));
    let found: Vec<_> = reads
        .iter()
        .filter_map(|event| match event.answers() {
            [One::Saw(Some(seen))] => seen.draft.map(|number| (seen.key, number)),
            _ => None,
        })
        .collect();
    match len {
        Some(len) if len != found.len() as u64 => {
            return Err(trace.finding(
                &format!("{}: so many entries can be read", found.len()),
                format!("len() answered {len}"),
                "a counter that an overwrite, a removal of what is absent or a clear moves wrongly",
            ));
        }
        None if lab.facts.counts => return Err(silent(&trace, "len", "counts")),
        _ => {}
    }
    match weight {
        None if lab.facts.weighs => Err(silent(&trace, "weight", "weighs")),
        Some(weight) if lab.facts.retains(6) => weighed(lab, &plan, &trace, &found, weight),
        _ => Ok(()),
    }
}

/// The same entries, written once each into a fresh store, weigh the same.
fn weighed(lab: &Lab, plan: &Plan, trace: &Trace, found: &[(u8, u32)], weight: u64) -> Result<(), Finding> {
    let firsts = crate::testkit::store::trace::numbers(plan);
    let mut steps = Vec::new();
    // What a renewal keeps is as long as the value that was written before it.
    let mut sizes = std::collections::BTreeMap::new();
    for (step, &first) in plan.tasks[0].iter().zip(&firsts[0]) {
        let keeps = matches!(step.op, Op::Renew(_, false));
        for (number, draft) in (first..).zip(step.op.drafts()) {
            let size = *sizes.get(&draft.key).filter(|_| keeps).unwrap_or(&draft.size);
            sizes.insert(draft.key, size);
            if found.contains(&(draft.key, number)) {
                steps.push(Step::own(Op::Set(Draft { size, ..draft.clone() })));
            }
        }
    }
    steps.push(Step::own(Op::Weight));
    let once = lab.run(&Plan { tasks: vec![steps], ..Plan::default() });
    let expected = once.events.last().and_then(|event| match event.answers() {
        [One::Number(number)] => *number,
        _ => None,
    });
    // Numbers are part of some values, so the length of a value may differ by their digits.
    match expected {
        Some(expected) if expected.abs_diff(weight) > found.len() as u64 => Err(trace.finding(
            &format!("{expected}: what the same entries weigh in a fresh store"),
            format!("weight() answered {weight}"),
            "the weight of what was overwritten, removed or cleared is not subtracted",
        )),
        _ => Ok(()),
    }
}

fn silent(trace: &Trace, what: &str, promise: &str) -> Finding {
    trace.finding(
        &format!("a number: `{promise}` was promised"),
        format!("{what}() answered `None`"),
        "the method is not overridden",
    )
}

/// More keys than there is room for.
fn crowded(facts: &Facts) -> impl Strategy<Value = Plan> + use<> {
    let room = u8::try_from(facts.max_entries.unwrap_or(8).min(20)).unwrap_or(8);
    let keys = (room + 4).min(u8::try_from(facts.keys).unwrap_or(u8::MAX));
    let bytes = u32::try_from(facts.max_bytes.unwrap_or(0).min(1 << 20)).unwrap_or(0);
    let size = prop_oneof![
        2 => Just(0u32),
        2 => 1..bytes.max(2),
        1 => Just(bytes),
        1 => Just(bytes / 2 + 1),
        1 => Just(bytes / 3 + 1),
    ];
    let set = (0..keys, size).prop_map(move |(key, size)| {
        // A store that is not bounded by bytes gets plain values.
        Draft { size: if bytes == 0 { 0 } else { size }, ..Draft::lasting(key) }
    });
    let op = prop_oneof![
        8 => set.clone().prop_map(Op::Set),
        1 => renewals(set.clone()),
        3 => (0..keys).prop_map(Op::Get),
        1 => (0..keys).prop_map(Op::Peek),
        1 => (0..keys).prop_map(Op::Remove),
        1 => proptest::collection::vec(set, 0..4).prop_map(Op::SetMany),
    ];
    let longest = usize::from(room) + 12;
    proptest::collection::vec(op, 1..longest).prop_map(move |ops| {
        let mut steps: Vec<Step> =
            ops.into_iter().flat_map(|op| [op, Op::Len, Op::Weight]).map(Step::own).collect();
        steps.extend((0..keys).map(|key| Step::own(Op::Get(key))));
        Plan { tasks: vec![steps], ..Plan::default() }
    })
}

fn bounded(lab: &Lab, trace: &Trace) -> Result<(), Finding> {
    for event in &trace.events {
        let [One::Number(Some(number))] = event.answers() else { continue };
        let bound = match event.op {
            Op::Len => lab.facts.max_entries,
            Op::Weight => lab.facts.max_bytes,
            _ => None,
        };
        if let Some(bound) = bound.filter(|bound| number > bound) {
            return Err(trace.finding(
                &format!("at most {bound}, as promised"),
                format!("{} answered {number}", trace.describe(event)),
                "room is made for the new entry as if the old one of its key were not there, or after it went in",
            ));
        }
    }
    // Whoever does not count is counted.
    let last = trace.events.iter().rposition(|event| event.op == Op::Weight).map_or(0, |last| last + 1);
    let hits = trace.events[last..].iter().filter(|event| matches!(event.answers(), [One::Saw(Some(_))]));
    // A shorter history may read a key twice.
    let found = hits.flat_map(|event| event.op.keys()).collect::<std::collections::BTreeSet<_>>().len();
    match lab.facts.max_entries {
        Some(max) if found as u64 > max => Err(trace.finding(
            &format!("at most {max} entries, as promised"),
            format!("{found} can be read"),
            "the bound is not enforced",
        )),
        _ => Ok(()),
    }
}

fn refused(facts: &Facts) -> impl Strategy<Value = Plan> + use<> {
    let limit = facts.largest.into_iter().chain(facts.max_bytes).min().unwrap_or(0).min(64 << 20);
    let over = u32::try_from(limit).unwrap_or(u32::MAX / 2).saturating_add(2);
    let set = (0..2u8, prop_oneof![1 => Just(0u32), 1 => Just(over)])
        .prop_map(|(key, size)| Draft { size, ..Draft::lasting(key) });
    let op = prop_oneof![
        4 => set.clone().prop_map(Op::Set),
        1 => set.clone().prop_map(|draft| Op::Renew(draft, true)),
        1 => proptest::collection::vec(set, 1..3).prop_map(Op::SetMany),
        3 => (0..2u8).prop_map(Op::Get),
        1 => (0..2u8).prop_map(Op::Peek),
    ];
    crate::testkit::store::plan::sequence(op, 8)
}

/// The order as a list, the next victim first.
fn ordered(lab: &Lab, trace: &Trace) -> Result<(), Finding> {
    let (Some(order), Some(max)) = (lab.facts.order, lab.facts.max_entries) else { return Ok(()) };
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut held: Vec<u8> = Vec::new();
    for event in &trace.events {
        for (key, one) in event.op.keys().into_iter().zip(event.answers()) {
            match one {
                One::Stored => {
                    held.retain(|known| *known != key);
                    while held.len() >= max {
                        held.remove(0);
                    }
                    held.push(key);
                }
                One::Refused | One::Done => held.retain(|known| *known != key),
                One::Saw(seen) => {
                    if seen.is_some() != held.contains(&key) {
                        let (expected, got) = match seen {
                            Some(_) => ("nothing: this entry is the next to go", "an entry"),
                            None => ("an entry: others go before it", "nothing"),
                        };
                        return Err(trace.finding(
                            &format!("{expected}, by the promised order ({order:?})"),
                            format!("{} answered {got}", trace.describe(event)),
                            "a hit that does not count as a use, or a write that does not renew it",
                        ));
                    }
                    touch(&mut held, key, order);
                }
                One::Shown(Some(_)) => touch(&mut held, key, order),
                _ => {}
            }
        }
    }
    Ok(())
}

fn touch(held: &mut Vec<u8>, key: u8, order: Order) {
    if order == Order::LeastRecentlyUsed
        && let Some(place) = held.iter().position(|known| *known == key)
    {
        let key = held.remove(place);
        held.push(key);
    }
}

fn evicting(keys: u8) -> impl Strategy<Value = Plan> {
    let op = prop_oneof![3 => (0..keys).prop_map(|key| Op::Set(Draft::lasting(key))), 2 => Just(Op::Evict)];
    proptest::collection::vec(op, 1..12).prop_map(|ops| {
        let steps = ops.into_iter().flat_map(|op| [Op::Len, op, Op::Len]).map(Step::own).collect();
        Plan { tasks: vec![steps], ..Plan::default() }
    })
}

fn one_by_one(trace: &Trace) -> Result<(), Finding> {
    for three in trace.events.windows(3) {
        let [One::Number(Some(before))] = three[0].answers() else { continue };
        let [One::Number(Some(after))] = three[2].answers() else { continue };
        let (Op::Evict, [One::Found(gave)]) = (&three[1].op, three[1].answers()) else { continue };
        if *gave != (*before > 0) || before - u64::from(*gave) != *after {
            return Err(trace.finding(
                "one entry less and `true`, or `false` from an empty store",
                format!("evict() said {gave}, and the store went from {before} to {after} entries"),
                "the victim is chosen but not removed, or more than one goes",
            ));
        }
    }
    Ok(())
}
