//! Fidelity and the map: what was put in comes back, or nothing, and age hides nothing.

use proptest::prelude::*;

use super::{Law, anyone, as_a_map, calm, law, movable};
use crate::testkit::runner::Finding;
use crate::testkit::store::facts::Facts;
use crate::testkit::store::lab::Lab;
use crate::testkit::store::plan::{ADVANCES, Draft, Op, Plan, Step, drafts, lasting_drafts, ops, sequence};
use crate::testkit::store::trace::One;

const KEYS: u8 = 3;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law(
            "s1_every_field_comes_back",
            "an entry that loses its deadlines or tags is served too long, or survives an invalidation",
            anyone,
            |facts| fidelity(facts.fitting(KEYS)).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                trace.unaltered()
            },
        ),
        Law {
            one_in: 4,
            ..law(
                "s1_sizes_are_exact",
                "a value that is cut at a limit is wrong data with a valid date",
                |facts, _| (!facts.sized).then_some("values of this type have no length"),
                sizes,
                |lab, plan| {
                    let trace = calm(lab, plan)?;
                    trace.unaltered()?;
                    as_a_map(lab, &trace, 1)?;
                    lab.limits(&trace)
                },
            )
        },
        law(
            "s2_age_hides_nothing",
            "a store that drops what is stale takes stale-while-revalidate and stale-on-error away from the engine",
            movable,
            |facts| ages(facts.fitting(KEYS)).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                as_a_map(lab, &trace, KEYS)
            },
        ),
        law(
            "s3_reads_give_what_was_written",
            "users see an old or foreign value, or pay for a computation again",
            anyone,
            |facts| sequence(ops(facts.fitting(KEYS)), 16).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                as_a_map(lab, &trace, KEYS)
            },
        ),
        law(
            "s3_an_overwrite_replaces_all_of_it",
            "tags or a version of the old entry make the new one fall to invalidations that are not its own",
            anyone,
            |facts| overwrites(facts).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                trace.unaltered()?;
                as_a_map(lab, &trace, 1)
            },
        ),
        law(
            "s3_reopening_loses_nothing",
            "a deploy empties the durable tier, and every origin behind it is asked at once",
            |facts, _| (!facts.reopens).then_some("no `reopen` hook: the store claims no durability"),
            |facts| {
                let op = prop_oneof![6 => ops(facts.fitting(KEYS)), 1 => Just(Op::Reopen)];
                sequence(op, 14).boxed()
            },
            |lab, plan| {
                let trace = calm(lab, plan)?;
                trace.unaltered()?;
                as_a_map(lab, &trace, KEYS)
            },
        ),
        law(
            "s9_a_peek_is_a_get",
            "the hit path of every cache is a peek: what it shows is served without another look",
            anyone,
            |facts| sequence(peeking(facts.fitting(KEYS)), 12).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                as_a_map(lab, &trace, KEYS)?;
                lab.peeks(&trace, KEYS)
            },
        ),
        law(
            "s12_an_entry_lives_until_keep_until",
            "a lifetime in the server that ends early turns stale-on-error into an outage; one that never ends \
             fills the server",
            movable,
            |facts| ages(facts.fitting(KEYS)).boxed(),
            |lab, plan| {
                let trace = calm(lab, plan)?;
                as_a_map(lab, &trace, KEYS)?;
                lab.expires(&trace)
            },
        ),
    ]
}

fn fidelity(keys: u8) -> impl Strategy<Value = Plan> {
    let reads = prop_oneof![
        2 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3)
    ];
    let round = (drafts(keys), reads).prop_map(|(draft, read)| {
        let key = draft.key;
        let read = match read {
            0 => Op::Get(key),
            1 => Op::GetAt(key, 0),
            2 => Op::GetMany(vec![key]),
            _ => Op::Peek(key),
        };
        vec![Op::Set(draft), read]
    });
    let twice = drafts(keys).prop_map(|draft| {
        let key = draft.key;
        vec![Op::Set(draft), Op::Get(key), Op::Get(key)]
    });
    let bulk = (proptest::collection::vec(drafts(keys), 1..4), 0..keys)
        .prop_map(|(drafts, key)| vec![Op::SetMany(drafts), Op::Get(key)]);
    proptest::collection::vec(prop_oneof![4 => round, 1 => twice, 1 => bulk], 1..5).prop_map(|rounds| Plan {
        tasks: vec![rounds.into_iter().flatten().map(Step::own).collect()],
        ..Plan::default()
    })
}

fn sizes(facts: &Facts) -> BoxedStrategy<Plan> {
    let mut sizes = vec![0u32, 1, 2, 255, 256, 1_023, 1_024, 65_535, 65_536, 65_537];
    for limit in [facts.largest, facts.max_bytes].into_iter().flatten() {
        if let Ok(limit) = u32::try_from(limit.min(64 << 20)) {
            sizes.extend([limit.saturating_sub(1), limit, limit.saturating_add(1), limit / 2]);
        }
    }
    let size = proptest::sample::select(sizes);
    let op = size.prop_map(|size| Op::Set(Draft { size: size.saturating_add(1), ..Draft::lasting(0) }));
    proptest::collection::vec(op, 1..4)
        .prop_map(|sets| {
            let with_reads = sets.into_iter().flat_map(|set| [set, Op::Get(0)]);
            Plan { tasks: vec![with_reads.map(Step::own).collect()], ..Plan::default() }
        })
        .boxed()
}

fn ages(keys: u8) -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        2 => drafts(keys).prop_map(Op::Set),
        2 => lasting_drafts(keys).prop_map(Op::Set),
        4 => (0..keys).prop_map(Op::Get),
        1 => (0..keys).prop_map(Op::Peek),
        1 => (0..keys, 0..6u8).prop_map(|(key, at)| Op::GetAt(key, at)),
        1 => proptest::collection::vec(0..keys, 1..4).prop_map(Op::GetMany),
        2 => (0..9u8).prop_map(Op::Advance),
        2 => (9..ADVANCES).prop_map(Op::Advance),
    ];
    // To a deadline of an entry, to the tick.
    let deadline = prop_oneof![Just(1u8), Just(2), 14..18u8];
    let until = (0..keys, deadline, 0..3usize).prop_map(|(key, deadline, which)| {
        let mut life = [0, 0, 0, deadline];
        life[which + 1..].fill(deadline);
        let set = Op::Set(Draft { life, ..Draft::lasting(key) });
        vec![set, Op::Advance(9 + deadline), Op::Get(key)]
    });
    let part = prop_oneof![6 => op.prop_map(|op| vec![op]), 1 => until];
    proptest::collection::vec(part, 1..12).prop_map(|parts| Plan {
        tasks: vec![parts.into_iter().flatten().map(Step::own).collect()],
        ..Plan::default()
    })
}

fn peeking(keys: u8) -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => lasting_drafts(keys).prop_map(Op::Set),
        4 => (0..keys).prop_map(Op::Peek),
        1 => (0..keys).prop_map(Op::Get),
        1 => (0..keys).prop_map(Op::Remove),
        1 => Just(Op::Clear),
    ]
}

fn overwrites(facts: &Facts) -> impl Strategy<Value = Plan> + use<> {
    let life = facts.fitting(1);
    proptest::collection::vec(drafts(life), 2..4).prop_map(|drafts| {
        let mut steps: Vec<Step> = drafts
            .into_iter()
            // Kept for ever: whether it is dead is another law's affair.
            .map(|draft| Step::own(Op::Set(Draft { life: [draft.life[0], draft.life[1], 19, 19], ..draft })))
            .collect();
        steps.push(Step::own(Op::Get(0)));
        Plan { tasks: vec![steps], ..Plan::default() }
    })
}

impl Lab {
    /// What is within the limits is stored, and what is beyond them is refused.
    fn limits(&self, trace: &crate::testkit::store::trace::Trace) -> Result<(), Finding> {
        let facts = &self.facts;
        for event in &trace.events {
            let Op::Set(draft) = &event.op else { continue };
            let size = draft.size().unwrap_or(0) as u64;
            let over = facts.largest.is_some_and(|largest| size > largest)
                || facts.max_bytes.is_some_and(|max| size > max);
            // Key, overhead and labels count too, so that the last kilobyte below a bound in bytes is open.
            let well_within = facts.largest.is_none_or(|largest| size <= largest)
                && facts.max_bytes.is_none_or(|max| size + 1_024 <= max);
            match event.answers() {
                [One::Stored] if over => {
                    return Err(trace.finding(
                        "a refusal: the value is larger than the limit that was promised",
                        format!("{} was stored", trace.describe(event)),
                        "the limit is compared before the value is encoded, or not at all",
                    ));
                }
                [One::Refused] if well_within && !facts.forgets => {
                    return Err(trace.finding(
                        "stored: the value is within every limit that was promised",
                        format!("{} was refused", trace.describe(event)),
                        "an off-by-one at the limit; or a limit that was not promised: `largest_value(bytes)`",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A store that promised to answer peeks shows what it holds.
    fn peeks(&self, trace: &crate::testkit::store::trace::Trace, keys: u8) -> Result<(), Finding> {
        if !self.facts.peeks || !self.facts.retains(keys.into()) {
            return Ok(());
        }
        let mut oracle = crate::testkit::store::trace::Oracle::new(trace, false);
        for event in &trace.events {
            if let (Op::Peek(key), [One::Shown(None)]) = (&event.op, event.answers())
                && let [Some(number)] = oracle.holds(event.on, *key)
            {
                return Err(trace.finding(
                    &format!("entry {number}, at once: `peeks` was promised"),
                    format!("{} said nothing", trace.describe(event)),
                    "`peek_with` is not overridden, or looks elsewhere than `get` does",
                ));
            }
            oracle.step(event)?;
        }
        Ok(())
    }

    /// A store that promised to drop what is dead does so.
    fn expires(&self, trace: &crate::testkit::store::trace::Trace) -> Result<(), Finding> {
        if !self.facts.expires {
            return Ok(());
        }
        let mut keeps = std::collections::BTreeMap::new();
        for event in &trace.events {
            for (number, draft) in (event.first..).zip(event.op.drafts()) {
                keeps.insert(number, draft.lifetime().keep_until());
            }
            for one in event.answers() {
                let (One::Saw(Some(seen)) | One::Shown(Some(seen))) = one else { continue };
                let keep = seen.draft.and_then(|number| keeps.get(&number));
                if keep.is_some_and(|&keep| keep < event.now) {
                    return Err(trace.finding(
                        "nothing: the entry is past its keep_until, and `expires` was promised",
                        format!("{} answered it", trace.describe(event)),
                        "the lifetime is counted from another deadline, or rounded up",
                    ));
                }
            }
        }
        Ok(())
    }
}
