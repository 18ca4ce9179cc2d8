//! What is stored, and for whom: E4, E10, E11, E13, E14.

use std::time::Duration;

use super::{Verdict, broken, served};
use crate::cache::computed::{Keep, Ttl};
use crate::cache::policy::Jitter;
use crate::entry::Lifetime;
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::{Act, Own, Work, is_absent};
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{End, Producer, Reply, Trace, answer};
use crate::time::Timestamp;

pub(crate) fn e4(trace: &Trace) -> Verdict {
    let overtaken = |value: u64, key: Name, by: u64| {
        trace.requests.iter().enumerate().find(|(index, write)| {
            let Some(acknowledged) = write.acknowledged().filter(|at| at.tick < by) else { return false };
            write.writes(key)
                && match trace.producers.get(&value) {
                    Some(Producer::Run(run)) => trace.runs[*run].began.tick < acknowledged.tick,
                    Some(Producer::Set(set)) => {
                        set != index && trace.requests[*set].end_tick() < write.began.tick
                    }
                    Some(Producer::Planted(_)) => true,
                    None => false,
                }
        })
    };
    let cause =
        "a fence that moves at one end of the write only, or a flight that may still be joined after it";
    for (request, key, value) in served(trace) {
        if overtaken(value, key, request.began.tick).is_some() {
            return broken(
                format!("nothing older than the write of {key} that was acknowledged before the request"),
                format!("{value}, which that write overtook"),
                cause,
            );
        }
    }
    for call in trace.calls.iter().filter(|call| call.operation == Operation::Set) {
        let (Some(key), Some(entry)) = (call.key, &call.entry) else { continue };
        if overtaken(*entry.value(), key, call.began.tick).is_some() {
            return broken(
                format!("no store of what a write of {key} overtook"),
                format!("{} is stored after the write was acknowledged", entry.value()),
                cause,
            );
        }
    }
    for (name, value) in Name::ALL.iter().zip(&trace.last).filter(|_| !trace.policy.bypass) {
        if let Some(value) = value
            && overtaken(*value, *name, u64::MAX).is_some()
        {
            return broken(
                format!("at the end nothing that a write of {name} overtook"),
                format!("{value} is stored"),
                cause,
            );
        }
    }
    Ok(())
}

pub(crate) fn e10(trace: &Trace) -> Verdict {
    if !trace.policy.bypass {
        return Ok(());
    }
    if let Some(call) = trace.calls.first() {
        return broken(
            "no call of the store",
            format!("a {}", call.operation),
            "a branch that forgets the bypass",
        );
    }
    if !trace.peeks.is_empty() {
        return broken("no call of the store", "a peek", "a branch that forgets the bypass");
    }
    for (index, request) in trace.requests.iter().enumerate().filter(|(_, request)| request.is_ask()) {
        let own: Vec<_> = trace.runs.iter().filter(|run| run.by == index).collect();
        let gone = trace
            .requests
            .iter()
            .any(|drop| matches!(drop.act, Act::DropHandle) && drop.began < request.began);
        if matches!(request.reply(), Some(Reply::Left)) || gone {
            continue;
        }
        let answered = own.iter().any(|run| run.end() == Some(End::Answered));
        if own.len() != 1 || (answered && request.reply() != Some(&Reply::Value(own[0].value))) {
            return broken(
                "a computation of its own for every caller",
                request.reply().map_or("no answer".to_owned(), answer),
                "a flight or an entry that is shared although the cache is switched off",
            );
        }
    }
    Ok(())
}

pub(crate) fn e11(trace: &Trace) -> Verdict {
    for request in trace.requests.iter().filter(|request| request.is_ask() && !trace.policy.strict) {
        let Some(reply @ Reply::Failed(kind, operation, _)) = request.reply() else { continue };
        let of_store = *operation != Operation::Compute && *kind != ErrorKind::ShutDown;
        if of_store {
            return broken(
                "the value that was computed: the cache is not strict",
                answer(reply),
                "an error of the store that is passed on with `?`",
            );
        }
    }
    Ok(())
}

pub(crate) fn e13(trace: &Trace) -> Verdict {
    for call in trace.calls.iter().filter(|call| call.operation == Operation::Set) {
        let Some(entry) = &call.entry else { continue };
        let life = entry.lifetime();
        let fits = |began: Timestamp, ended: Timestamp, own: Own| {
            let absent = is_absent(*entry.value());
            fits(trace, life, absent, began, ended, own)
                && (!own.extras || (entry.tags().len() == 2 && entry.version().is_some_and(|v| &**v == "v")))
        };
        let producer = trace.producers.get(entry.value());
        let mut runs = trace.runs.iter().filter(|run| Some(run.key) == call.key);
        let computed = runs.any(|run| {
            let Some((at, end)) = run.ended else { return false };
            let own = matches!(producer, Some(Producer::Run(index)) if trace.runs[*index].value == run.value);
            let answers = (end == End::Answered && own) || end == End::Unchanged;
            // What is unchanged keeps its version, or has got a new one.
            let planted = matches!(producer, Some(Producer::Planted(_))) && !run.plan.own.extras;
            let versioned = !planted || entry.version().is_some();
            answers && versioned && fits(run.began.now, at.now, run.plan.own)
        });
        let (expected, set) = match producer {
            Some(Producer::Set(set)) => match trace.requests[*set].act {
                Act::Set(_, own) => (own, Some(trace.requests[*set].began.now)),
                _ => continue,
            },
            Some(Producer::Run(index)) => (trace.runs[*index].plan.own, None),
            _ => (Own::default(), None),
        };
        let found = computed || set.is_some_and(|at| fits(at, at, expected));
        if !found {
            return broken(
                format!(
                    "an entry of when its computation began, whose deadlines count from when it ended ({expected:?})"
                ),
                format!("{}, {}", entry.value(), Trace::life(life)),
                "an instant that is read too early or too late, or terms that are lost",
            );
        }
    }
    Ok(())
}

/// The shortest and the longest life that such a value may have, by the words of the law.
fn life_of(
    trace: &Trace,
    absent: bool,
    began: Timestamp,
    ended: Timestamp,
    own: Own,
    shortest: bool,
) -> Lifetime {
    let policy = &trace.policy;
    // What says "not found" has a ttl of its own and no windows (E16).
    let absent = policy.trouble.negative_ttl.filter(|_| absent);
    let (usual, window, keep) = match absent {
        Some(ttl) => (Ttl::For(ttl), Duration::ZERO, Keep::No),
        None => (policy.ttl, policy.stale, policy.keep),
    };
    let ttl = match (own.ttl, Own::length(own.ttl), usual) {
        (3, ..) | (_, None, Ttl::Never) => return Lifetime::forever(began),
        (_, Some(ttl), _) | (_, None, Ttl::For(ttl)) => ttl,
    };
    // As much as jitter may take away, and a nanosecond for the rounding.
    let cut = if shortest {
        policy.jitter.most_of(ttl).saturating_add(Duration::from_nanos(1))
    } else {
        Duration::ZERO
    };
    let cut = if shortest && policy.jitter == Jitter::default() { Duration::ZERO } else { cut };
    let fresh = ended.saturating_add(ttl.saturating_sub(cut));
    let stale = fresh.saturating_add(Own::length(own.stale).unwrap_or(window));
    let keep = match (Own::length(own.keep), keep) {
        (Some(age), _) | (None, Keep::For(age)) => fresh.saturating_add(age),
        (None, Keep::No) => stale,
        (None, Keep::Forever) => Timestamp::MAX,
    };
    Lifetime::new(began, fresh, stale, keep)
}

/// Whether a value of these terms, computed in this time, has this life.
pub(crate) fn fits(
    trace: &Trace,
    life: Lifetime,
    absent: bool,
    began: Timestamp,
    ended: Timestamp,
    own: Own,
) -> bool {
    let of = |shortest| life_of(trace, absent, began, ended, own, shortest);
    let (least, most) = (of(true), of(false));
    let same_windows = |edge: Lifetime| {
        let window = |until: Timestamp| until.since(edge.fresh_until());
        let mine = |until: Timestamp| until.since(life.fresh_until());
        let never = |until: Timestamp| until.is_never();
        (never(edge.stale_until())
            || never(life.stale_until())
            || window(edge.stale_until()) == mine(life.stale_until()))
            && (never(edge.keep_until())
                || never(life.keep_until())
                || window(edge.keep_until()) == mine(life.keep_until()))
    };
    life.created_at() == began
        && least.fresh_until() <= life.fresh_until()
        && life.fresh_until() <= most.fresh_until()
        && same_windows(most)
        && (least.stale_until()..=most.stale_until()).contains(&life.stale_until())
        && (least.keep_until()..=most.keep_until()).contains(&life.keep_until())
}

pub(crate) fn e14(trace: &Trace) -> Verdict {
    let cause = "a table or a store that trusts a hash, or one flight for all";
    let made_for = |value: u64| {
        trace.producers.get(&value).map(|producer| match producer {
            Producer::Planted(key) => *key,
            Producer::Run(run) => trace.runs[*run].key,
            Producer::Set(set) => trace.requests[*set].key().unwrap_or(Name(0)),
        })
    };
    for (_, key, value) in served(trace) {
        if made_for(value) != Some(key) {
            return broken(format!("a value of {key}"), format!("{value}, which is of another key"), cause);
        }
    }
    for call in trace.calls.iter().filter(|call| call.operation == Operation::Set) {
        let (Some(key), Some(entry)) = (call.key, &call.entry) else { continue };
        if made_for(*entry.value()) != Some(key) {
            return broken(
                format!("a value of {key} in its place"),
                format!("{} is of another key", entry.value()),
                cause,
            );
        }
    }
    for request in &trace.requests {
        if let (Some(key), Some(Reply::Failed(_, _, Some(named)))) = (request.key(), request.reply())
            && made_for(*named) != Some(key)
            && !shared(trace, *named, key)
        {
            return broken(
                format!("an outcome of {key}"),
                format!("the error of {named}, which is of another key"),
                cause,
            );
        }
    }
    Ok(())
}

/// Whether the error of this computation is that of a whole batch, to which the key belongs.
fn shared(trace: &Trace, named: u64, key: Name) -> bool {
    let together = trace.runs.iter().find(|run| run.value == named).and_then(|run| run.together);
    let mut parts = trace.runs.iter().filter(|run| run.together == together);
    together.is_some()
        && parts.clone().all(|run| run.plan.work == Work::Fail)
        && parts.any(|run| run.key == key)
}
