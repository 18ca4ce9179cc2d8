//! Scope: which keys are a store's own, and that no two of them meet.

use proptest::prelude::*;

use super::{Law, anyone, as_a_map, calm, law};
use crate::testkit::runner::Finding;
use crate::testkit::store::facts::Facts;
use crate::testkit::store::lab::Lab;
use crate::testkit::store::plan::{Draft, NEIGHBOUR, OTHER_NEIGHBOUR, OWN, Op, Plan, Step, ops};
use crate::testkit::store::trace::{One, Oracle, Trace};

const KEYS: u8 = 3;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law(
            "s5_what_is_absent_can_be_removed",
            "a removal that is tried again after a timeout must succeed, or invalidations fail at random",
            anyone,
            |_| absent().boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                as_a_map(lab, &trace, KEYS)
            },
        ),
        Law {
            one_in: 32,
            ..law(
                "s5_clear_takes_all_of_its_own",
                "entries that outlive a clear are served again: a listing has more than one page",
                |facts, _| (!facts.numbered).then_some("there are no numbered keys of this type"),
                |facts| many(facts).boxed(),
                |lab, plan| {
                    let trace = calm(lab, plan)?;
                    emptied(lab, &trace)
                },
            )
        },
        law(
            "s5_two_stores_share_nothing",
            "clearing one cache empties another, or one user's entry answers another's question",
            anyone,
            |facts| neighbours(facts.fitting(KEYS)).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                trace.unaltered()?;
                as_a_map(lab, &trace, KEYS)
            },
        ),
        law(
            "s5_clear_prefix_takes_its_range",
            "clearing `users:` takes `users2:` along, or leaves what a glob did not match",
            |facts, _| (!facts.clears_prefixes).then_some("`clears_prefixes` was not promised"),
            |facts| ranges(facts).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                ranged(lab, &trace)
            },
        ),
        law(
            "s6_different_keys_never_meet",
            "one user is shown another user's data",
            anyone,
            |facts| hostile(facts).boxed(),
            |lab, plan| {
                let trace = lab.run(plan);
                trace.ended()?;
                admissible(&trace)?;
                trace.unaltered()?;
                as_a_map(lab, &trace, u8::try_from(plan.tasks[0].len()).unwrap_or(u8::MAX))
            },
        ),
    ]
}

fn absent() -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        3 => (0..KEYS).prop_map(Op::Remove),
        1 => Just(Op::Clear),
        2 => proptest::collection::vec(0..KEYS, 0..4).prop_map(Op::RemoveMany),
        1 => (0..KEYS).prop_map(Op::Get),
        1 => (0..KEYS).prop_map(|key| Op::Set(Draft::lasting(key))),
    ];
    crate::testkit::store::plan::sequence(op, 8)
}

fn many(facts: &Facts) -> impl Strategy<Value = Plan> + use<> {
    // Beyond one page of a listing, where there is room: pages of 1,000 are common.
    let most = facts.max_entries.map_or(1_203, |max| u16::try_from(max.min(1_203)).unwrap_or(1_203)).max(1);
    let count = prop_oneof![1 => 1..=most.min(40), 2 => Just(most)];
    (count, any::<bool>()).prop_map(|(count, drains)| {
        let end = if drains { Op::Drain(count) } else { Op::Clear };
        let steps = [Op::Fill(count), end, Op::Count(count), Op::Clear, Op::Len];
        Plan { tasks: vec![steps.map(Step::own).into()], ..Plan::default() }
    })
}

fn emptied(lab: &Lab, trace: &Trace) -> Result<(), Finding> {
    let mut stored = None;
    for event in &trace.events {
        let number = match event.answers() {
            [One::Number(Some(number))] => *number,
            _ => continue,
        };
        match event.op {
            Op::Fill(count) => {
                let all = u64::from(count);
                if lab.facts.retains(all) && number != all {
                    return Err(trace.finding(
                        &format!("{all} entries stored"),
                        format!("{number} were"),
                        "a bound that was not promised: `max_entries(n)`",
                    ));
                }
                stored = Some(number);
            }
            Op::Count(_) if stored.is_some() && number > 0 => {
                return Err(trace.finding(
                    "none of them left",
                    format!("{number} of them are"),
                    "a listing of which only the first page is read, or a bulk removal with a limit",
                ));
            }
            Op::Len if number > 0 => {
                return Err(trace.finding(
                    "an empty store says 0",
                    format!("it says {number}"),
                    "a counter that a clear does not reset",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn neighbours(keys: u8) -> impl Strategy<Value = Plan> {
    let step = (prop_oneof![2 => Just(OWN), 1 => Just(NEIGHBOUR), 1 => Just(OTHER_NEIGHBOUR)], ops(keys))
        .prop_map(|(on, op)| Step { on, op });
    proptest::collection::vec(step, 1..14).prop_map(|mut steps| {
        // A clear between two reads of what the other holds.
        steps.extend(
            (0..2).flat_map(|key| [OWN, NEIGHBOUR, OTHER_NEIGHBOUR].map(|on| Step { on, op: Op::Get(key) })),
        );
        Plan { tasks: vec![steps], ..Plan::default() }
    })
}

fn some_keys(facts: &Facts, most: u8) -> impl Strategy<Value = Vec<u8>> + use<> {
    let known = u8::try_from(facts.keys).unwrap_or(u8::MAX);
    let most = usize::from(facts.fitting(most));
    let some = proptest::collection::btree_set(0..known, 1..=most);
    // Those that stand beside each other in a corpus are alike; and many are like the first.
    let alike = (0..known, 1..=most).prop_map(move |(first, count)| {
        let last = usize::from(first) + count;
        (first..u8::try_from(last).unwrap_or(u8::MAX).min(known)).collect()
    });
    (prop_oneof![2 => some, 2 => alike], any::<bool>()).prop_map(move |(mut keys, with_first)| {
        if with_first && keys.len() < most {
            keys.insert(0);
        }
        keys.into_iter().collect()
    })
}

/// The whole corpus at once, so that no two keys of it meet unseen.
fn all_keys(facts: &Facts) -> impl Strategy<Value = Vec<u8>> + use<> {
    Just((0..facts.fitting(u8::MAX)).collect())
}

fn hostile(facts: &Facts) -> impl Strategy<Value = Plan> + use<> {
    (prop_oneof![9 => some_keys(facts, 12), 1 => all_keys(facts)], any::<u64>(), any::<[u64; 2]>()).prop_map(
        |(keys, removed, absent)| {
            let chosen = |mask: u64| move |(index, _): &(usize, &u8)| mask >> (index % 64) & 1 == 1;
            // One in four is read and never written.
            let written = |item: &(usize, &u8)| !chosen(absent[0] & absent[1])(item);
            let sets = keys.iter().enumerate().filter(written).map(|(_, &key)| Op::Set(Draft::lasting(key)));
            let removes = keys.iter().enumerate().filter(chosen(removed)).map(|(_, &key)| Op::Remove(key));
            let reads = || keys.iter().map(|&key| Op::Get(key));
            let steps: Vec<Op> = sets.chain(reads()).chain(removes).chain(reads()).collect();
            Plan { tasks: vec![steps.into_iter().map(Step::own).collect()], ..Plan::default() }
        },
    )
}

/// A key that the store cannot take may be refused by name, and by nothing else.
fn admissible(trace: &Trace) -> Result<(), Finding> {
    use crate::error::ErrorKind::{InvalidInput, Unsupported};
    for event in &trace.events {
        for one in event.answers() {
            if let One::Failed(kind, text) = one
                && !matches!(kind, InvalidInput | Unsupported)
            {
                return Err(trace.finding(
                    "any key is taken, or refused with an error of kind InvalidInput",
                    format!("{} failed ({kind:?}): {text}", trace.describe(event)),
                    "a key went into a path, a pattern or a statement without being encoded",
                ));
            }
        }
    }
    Ok(())
}

fn ranges(facts: &Facts) -> impl Strategy<Value = Plan> + use<> {
    let known = u8::try_from(facts.keys).unwrap_or(u8::MAX);
    (some_keys(facts, 10), any::<proptest::sample::Index>(), proptest::option::weighted(0.3, 0..known))
        .prop_map(|(keys, one, any)| {
            let prefix = any.unwrap_or_else(|| *one.get(&keys));
            let sets = keys.iter().map(|&key| Op::Set(Draft::lasting(key)));
            let reads = keys.iter().map(|&key| Op::Get(key));
            let steps: Vec<Op> = sets.chain([Op::ClearPrefix(prefix)]).chain(reads).collect();
            Plan { tasks: vec![steps.into_iter().map(Step::own).collect()], ..Plan::default() }
        })
}

fn ranged(lab: &Lab, trace: &Trace) -> Result<(), Finding> {
    let mut oracle = Oracle::new(trace, !lab.facts.retains(10));
    let text = |key: u8| lab.facts.texts.get(usize::from(key)).map_or("", String::as_str);
    let mut cleared = None;
    for event in &trace.events {
        match &event.op {
            Op::ClearPrefix(prefix) => cleared = Some(text(*prefix)),
            Op::Get(key) if cleared.is_some_and(|prefix| text(*key).starts_with(prefix)) => {
                if let [One::Saw(Some(_))] = event.answers() {
                    return Err(trace.finding(
                        "nothing: the key begins with the prefix that was cleared",
                        format!("{} is still there", trace.describe(event)),
                        "a pattern in which the prefix was not escaped, or only one page of a listing",
                    ));
                }
            }
            Op::Get(_) if cleared.is_some() => oracle.step(event).map_err(|finding| Finding {
                expected: format!(
                    "{}, whose key does not begin with the prefix that was cleared",
                    finding.expected
                ),
                cause: "a pattern in which the prefix was not escaped, or that ignores case".to_owned(),
                ..finding
            })?,
            _ => oracle.step(event)?,
        }
    }
    Ok(())
}
