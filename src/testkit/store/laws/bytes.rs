//! Faults and bytes: outages, damage, and what an error may say.

use proptest::prelude::*;

use super::{Law, calm, law};
use crate::error::ErrorKind;
use crate::testkit::runner::Finding;
use crate::testkit::store::lab::Lab;
use crate::testkit::store::plan::{Damage, Draft, OWN, Op, Plan, Step, lasting_drafts, ops, sequence};
use crate::testkit::store::trace::{One, Oracle, Trace};
use crate::testkit::store::world::{SOURCE, Shape};

const KEYS: u8 = 3;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law(
            "s4_a_failed_call_leaves_old_new_or_nothing",
            "after an outage the tier holds what no one ever wrote, or what was removed long ago",
            |facts, _| (!facts.outages).then_some("no `outage` hook"),
            |facts| outages(facts.fitting(KEYS)).boxed(),
            |lab, plan| {
                let trace = lab.run(plan);
                trace.ended()?;
                honest(&trace)?;
                trace.unaltered()?;
                Oracle::new(&trace, !lab.facts.retains(KEYS.into())).check()
            },
        ),
        law(
            "s7_damaged_bytes_are_never_served",
            "a flipped bit on a disk becomes a wrong answer, or a crash of whoever reads it",
            |facts, _| (!facts.corrupts).then_some("no `corrupt` hook"),
            |facts| damages(facts.fitting(2)).boxed(),
            |lab, plan| {
                let trace = lab.run(plan);
                trace.ended()?;
                trace.unaltered()?;
                undeceived(lab, &trace)
            },
        ),
        law(
            "k_values_are_dropped_with_the_store",
            "memory that nobody can reach any more",
            |facts, _| {
                (!facts.witnessed)
                    .then_some("values of this type cannot be watched: those of type `Bytes` can")
            },
            |facts| sequence(ops(facts.fitting(KEYS)), 6).boxed(),
            witnessed,
        ),
    ]
}

fn outages(keys: u8) -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        8 => ops(keys),
        2 => Just(Op::Outage(true)),
        2 => Just(Op::Outage(false)),
    ];
    proptest::collection::vec(op, 1..14).prop_map(move |ops| {
        let healed = [Op::Outage(false)];
        // A failed removal may be retried to completion.
        let after = (0..keys).flat_map(|key| [Op::Get(key), Op::Set(Draft::lasting(key)), Op::Get(key)]);
        let steps = ops.into_iter().chain(healed).chain(after).map(Step::own).collect();
        Plan { tasks: vec![steps], ..Plan::default() }
    })
}

/// Only what is down fails, and no error quotes a value.
fn honest(trace: &Trace) -> Result<(), Finding> {
    let mut down = false;
    for event in &trace.events {
        if let Op::Outage(begins) = event.op {
            down = begins;
        }
        for one in event.answers() {
            let One::Failed(kind, text) = one else { continue };
            if !down {
                return Err(trace.finding(
                    "without a fault no call fails",
                    format!("{} failed after the outage ({kind:?}): {text}", trace.describe(event)),
                    "a connection that is not opened anew, a lock or a mark that the failure left behind",
                ));
            }
            if quotes_a_value(text) {
                return Err(quoted(trace, text));
            }
        }
    }
    Ok(())
}

/// In its own words: a source may quote what it likes.
fn quotes_a_value(text: &str) -> bool {
    text.split(SOURCE).next().is_some_and(|own| own.contains("value "))
}

fn quoted(trace: &Trace, text: &str) -> Finding {
    trace.finding(
        "an error that says what failed, and quotes no value",
        format!("the error says: {text}"),
        "the value, or the bytes that did not decode, went into the message: it will be logged",
    )
}

fn damages(keys: u8) -> impl Strategy<Value = Plan> {
    let damage = prop_oneof![
        4 => (any::<u16>(), 0..8u8).prop_map(|(place, bit)| Damage::Flip(place, bit)),
        2 => any::<u16>().prop_map(Damage::Cut),
        1 => any::<u8>().prop_map(Damage::Extend),
        2 => (0..keys).prop_map(Damage::Swap),
        1 => Just(Damage::Empty),
        1 => Just(Damage::Zeroes),
        1 => any::<u16>().prop_map(Damage::Noise),
    ];
    let drafts = proptest::collection::vec(lasting_drafts(keys), 1..3);
    let read = prop_oneof![3 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    (drafts, 0..keys, damage, read).prop_map(move |(drafts, key, damage, read)| {
        let read = match read {
            0 => Op::Get(key),
            1 => Op::GetMany(vec![key]),
            _ => Op::Peek(key),
        };
        let sets = drafts.into_iter().map(Op::Set);
        let after = [Op::Damage(key, damage), read, Op::Set(Draft::lasting(key)), Op::Get(key)];
        Plan { tasks: vec![sets.chain(after).map(Step::own).collect()], ..Plan::default() }
    })
}

fn undeceived(lab: &Lab, trace: &Trace) -> Result<(), Finding> {
    let mut oracle = Oracle::new(trace, !lab.facts.retains(2));
    let mut damaged = None;
    for event in &trace.events {
        if let (Op::Damage(key, _), [One::Found(true)]) = (&event.op, event.answers()) {
            damaged = Some(*key);
            continue;
        }
        let reads = matches!(event.op, Op::Get(_) | Op::GetMany(_) | Op::Peek(_));
        let touched = damaged.is_some_and(|key| event.op.keys().contains(&key));
        if touched && !reads {
            damaged = None;
        }
        for one in event.answers() {
            match one {
                One::Failed(kind, text) if touched && reads => {
                    if !matches!(kind, ErrorKind::Corrupt | ErrorKind::NewerVersion) {
                        return Err(trace.finding(
                            "a miss, or an error of kind Corrupt or NewerVersion",
                            format!("{} failed ({kind:?}): {text}", trace.describe(event)),
                            "the error of the decoder is passed on as it is",
                        ));
                    }
                    if quotes_a_value(text) {
                        return Err(quoted(trace, text));
                    }
                }
                One::Failed(kind, text) => {
                    return Err(trace.finding(
                        "the entry can be overwritten, and its neighbours are not touched",
                        format!("{} failed ({kind:?}): {text}", trace.describe(event)),
                        "a write reads what was there before and stumbles over it",
                    ));
                }
                _ => {}
            }
        }
        // What may be a miss now is none of the oracle's business.
        if !(touched && reads) {
            oracle.step(event)?;
        } else if event.answers().iter().any(|one| matches!(one, One::Saw(Some(_)) | One::Shown(Some(_)))) {
            return Err(trace.finding(
                "a miss, or an error of kind Corrupt or NewerVersion",
                format!("{} answered an entry from damaged bytes", trace.describe(event)),
                "no checksum over all of the bytes, or the key is not bound to them",
            ));
        }
    }
    Ok(())
}

/// Plays the plan, adds a value with a witness, drops everything, and asks the witness.
fn witnessed(lab: &Lab, plan: &Plan) -> Result<(), Finding> {
    let trace = calm(lab, plan)?;
    let (world, _) = lab.world(Shape::Plain);
    let ops: Vec<Op> = plan.tasks.iter().flatten().map(|step| step.op.clone()).collect();
    let held = lab.block_on(async move {
        world.open(&[OWN]).await;
        for op in &ops {
            world.perform(OWN, op, 0).await;
        }
        let witness = world.plant_witness(7).await;
        world.close().await;
        drop(world);
        witness.is_some_and(|witness| witness.is_held())
    });
    match held {
        Ok(false) => Ok(()),
        Ok(true) => Err(trace.finding(
            "a value is dropped at the latest with the store that held it",
            "the store is gone, and its value is still held".to_owned(),
            "a cycle of `Arc`s, a task that holds the store, a global table",
        )),
        Err(end) => Trace { end, ..trace }.ended(),
    }
}
