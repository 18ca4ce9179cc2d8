//! Holds what happened against the model, step by step.

use std::time::Duration;

use crate::cache::ahead::Rule;
use crate::entry::Entry;
use crate::testkit::engine::case::{Act, EngineCase};
use crate::testkit::engine::laws::{Broken, hangs};
use crate::testkit::engine::model::{Expected, World};
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{Given, Request, Trace, answer};

/// The clause by which something had to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    E1,
    E2,
    E3,
    E4,
    E5,
    E6,
    E7,
    E8,
    E9,
    E10,
    E11,
    E13,
    E17,
    E18,
    E19,
    E20,
    Events,
}

/// Where a run and the model part.
#[derive(Clone, Debug)]
pub(crate) struct Parting {
    pub(crate) clause: Clause,
    /// The wall clock had jumped before, or the entry came from a host whose clock runs ahead.
    pub(crate) moved: bool,
    /// Reads were slow.
    pub(crate) slow: bool,
    pub(crate) broken: Broken,
}

/// Where the run of `case` and the model part for the first time, if they do.
pub(crate) fn compare(case: &EngineCase, trace: &Trace) -> Option<Parting> {
    if trace.snapshots.first().is_none_or(Vec::is_empty) || hangs(trace) {
        return None;
    }
    if matches!(trace.policy.ahead, Some(Rule::Cost(_))) {
        // What is left to chance the model does not know.
        return None;
    }
    let mut world = World::new(case, trace);
    let (mut moved, mut slow) = (case.planted.iter().any(|planted| planted.ahead > 0), false);
    for (step, snapshot) in trace.snapshots.iter().enumerate() {
        let first = trace.firsts[step];
        let next = trace.firsts.get(step + 1).copied().unwrap_or(trace.requests.len());
        let parts = &trace.requests[first..next];
        // A batch of no keys is nothing.
        let Some(request) = parts.first() else { continue };
        moved |= matches!(request.act, Act::Jump(..));
        slow |= matches!(request.act, Act::SlowReads(seconds) if seconds > 0);
        world.events.clear();
        world.tie = false;
        let expected = match request.batch {
            Some(_) => world.batch(first, parts)?,
            None => vec![world.step(first, request)?],
        };
        if world.tie && !matches!(request.act, Act::Wait(_)) {
            return None;
        }
        world.pass(Duration::ZERO);
        let parting = |clause, expected: String, got: String, cause| {
            Some(Parting { clause, moved, slow, broken: Broken { expected, got, cause } })
        };
        let clause = expected.first()?.clause;
        for (at, (expected, part)) in expected.into_iter().zip(parts).enumerate() {
            let clause = expected.clause;
            if let Some((expected, got, cause)) = part_ways(trace, first + at, part, &expected) {
                return parting(clause, expected, got, cause);
            }
        }
        if request.ended.as_ref().is_some_and(|(at, _)| at.passed != world.passed) {
            let late = request.ended.as_ref().map_or(0, |(at, _)| at.passed - world.passed);
            return parting(
                clause,
                format!("{} in its time", act(request)),
                format!("{late} ns later"),
                "somebody who waits for what is none of his business",
            );
        }
        for (key, (held, above)) in snapshot.iter().enumerate() {
            if *held != world.held[key] {
                let words = |entry: &Option<Entry<u64>>| {
                    entry.as_ref().map_or("nothing".to_owned(), |entry| {
                        format!("{}, {}", entry.value(), Trace::life(entry.lifetime()))
                    })
                };
                let failed = |event: &&str| event.ends_with("Failed") || event.ends_with("Panicked");
                let clause = match world.events.iter().any(failed) {
                    _ if trace.policy.bypass => Clause::E10,
                    true => Clause::E8,
                    false => Clause::E13,
                };
                let expected =
                    format!("{} holds {}", Name(u8::try_from(key).unwrap_or(0)), words(&world.held[key]));
                return parting(clause, expected, words(held), "a store that is forgotten, or one too many");
            }
            world.above[key] = *above;
        }
        let mut told: Vec<_> = trace
            .events
            .iter()
            .filter(|told| (request.began.tick..trace.rests[step]).contains(&told.at.tick))
            .map(|told| told.name)
            // Told once a computation: E15 counts them.
            .filter(|name| *name != "Unasked")
            .collect();
        told.sort_unstable();
        world.events.sort_unstable();
        if told != world.events {
            let expected = format!("{} tells {}", act(request), list(&world.events));
            let skipped = |events: &[&str]| events.iter().filter(|name| **name == "RefreshSkipped").count();
            let counted = skipped(&told) == skipped(&world.events);
            return parting(
                if counted { Clause::Events } else { Clause::E19 },
                expected,
                list(&told),
                "a branch without its event, or two that tell the same",
            );
        }
    }
    None
}

/// Where the answer and the computation of one call are not what they had to be: what was expected, what came, by what.
fn part_ways(
    trace: &Trace,
    index: usize,
    request: &Request,
    expected: &Expected,
) -> Option<(String, String, &'static str)> {
    let Expected { reply, computes, given, .. } = expected;
    let run = trace.runs.iter().find(|run| run.by == index);
    if request.reply() != Some(reply) {
        let got = request.reply().map_or("no end".to_owned(), answer);
        return Some((format!("{}: {}", act(request), answer(reply)), got, "the branch of this clause"));
    }
    if run.is_some() != *computes {
        let words = |computes| if computes { "a computation" } else { "no computation" };
        let expected = format!("{}: {}", act(request), words(*computes));
        return Some((expected, words(!*computes).to_owned(), "the branch of this clause"));
    }
    let due = given.map_or(Given::Nothing, Given::Held);
    let got = run.map(|run| run.given).filter(|got| *got != Given::NotAsked && *got != due)?;
    Some((
        format!("the computation is given {due:?}"),
        format!("{got:?}"),
        "an entry that is lost on its way, or a dead one that is not",
    ))
}

fn act(request: &Request) -> String {
    format!("{:?}", request.act)
}

fn list(events: &[&str]) -> String {
    if events.is_empty() { "nothing".to_owned() } else { events.join(", ") }
}
