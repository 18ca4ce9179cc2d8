//! Concurrency and cancellation: whatever happens at once, each key is a register.

use proptest::prelude::*;

use super::{Law, anyone, law, loss};
use crate::testkit::runner::Finding;
use crate::testkit::store::lab::{Lab, Lane};
use crate::testkit::store::plan::{OWN, Plan, SECOND, race};
use crate::testkit::store::trace::Trace;

const KEYS: u8 = 2;

/// How often threads race over one plan: chance decides who comes first.
const ROUNDS: u32 = 8;

pub(super) fn laws() -> Vec<Law> {
    vec![
        law(
            "s3_a_register_under_any_schedule",
            "a read that comes after a write was acknowledged gives what the write replaced",
            anyone,
            |facts| race(facts.fitting(KEYS), false).boxed(),
            |lab, plan| register(lab, &lab.run(plan)),
        ),
        Law {
            one_in: 8,
            ..law(
                "s3_a_register_on_real_threads",
                "a read that comes after a write was acknowledged gives what the write replaced",
                |_, lane| {
                    (lane == Lane::Real).then_some("the tasks of every law run on real threads already")
                },
                |facts| race(facts.fitting(KEYS), false).boxed(),
                // What hangs or spins does so on one thread too, where nobody has to wait to know it.
                |lab, plan| {
                    lab.run(plan).ended()?;
                    (0..ROUNDS).try_for_each(|_| register(lab, &lab.run_on_threads(plan)))
                },
            )
        },
        law(
            "s3_two_clients_see_one_store",
            "replicas disagree for ever: one of them serves what another removed",
            |facts, _| (!facts.second).then_some("no `second_client` hook"),
            |facts| clients(facts.fitting(KEYS)).boxed(),
            |lab, plan| register(lab, &lab.run(plan)),
        ),
        law(
            "s8_a_dropped_call_leaves_old_or_new",
            "a request that times out half-way leaves a mixture, a lock, or a write that happens later",
            anyone,
            |facts| race(facts.fitting(KEYS), true).boxed(),
            |lab, plan| register(lab, &lab.run(plan)),
        ),
    ]
}

fn register(lab: &Lab, trace: &Trace) -> Result<(), Finding> {
    trace.ended()?;
    trace.unfailed()?;
    trace.unaltered()?;
    trace.is_register(loss(&lab.facts, KEYS))
}

/// The same tasks, some of their calls through another client.
fn clients(keys: u8) -> impl Strategy<Value = Plan> {
    (race(keys, false), any::<u64>()).prop_map(|(mut plan, through)| {
        for (index, step) in plan.tasks.iter_mut().flatten().enumerate() {
            step.on = if through >> (index % 64) & 1 == 1 { SECOND } else { OWN };
        }
        plan
    })
}
