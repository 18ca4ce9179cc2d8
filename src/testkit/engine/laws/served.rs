//! What may be served, and when: E1, E2, E8, E12.

use std::time::Duration;

use super::{
    Verdict, broken, failed_run, faulty, flies_beside, flight_end, has, judge, judged, run_overlaps, served,
    serves_on_error, stands_in, trouble, within, written_between,
};
use crate::entry::{Freshness, Lifetime};
use crate::testkit::engine::case::Act;
use crate::testkit::engine::trace::{End, Given, Producer, Reply, Request, Run, Trace, answer};

pub(crate) fn e1(trace: &Trace) -> Verdict {
    for (request, key, value) in served(trace) {
        let most = if request.is_ask() { Freshness::Stale } else { Freshness::Fresh };
        if request.is_ask()
            && let Some(Producer::Run(run)) = trace.producers.get(&value)
            && flies_beside(trace, &trace.runs[*run], request)
        {
            continue;
        }
        let lives = trace.lives(value);
        if lives.iter().any(|life| judged(trace, *life, request, most)) {
            continue;
        }
        let kept =
            |life: &Lifetime| within(trace, request).any(|now| serves_on_error(&trace.policy, *life, now));
        // What the origin confirms has a new life, also if that is not stored.
        let confirms =
            |run: &Run| run.key == key && run.end() == Some(End::Unchanged) && run_overlaps(run, request);
        if request.is_ask() && trace.runs.iter().any(confirms) {
            continue;
        }
        let failed = || failed_run(trace, key, request).is_some() || stands_in(trace, key, request);
        if request.is_ask() && lives.iter().any(kept) && failed() {
            continue;
        }
        let life =
            lives.last().map_or("an entry that was never stored".to_owned(), |life| Trace::life(*life));
        return broken(
            if request.is_ask() {
                "an entry that is fresh or stale, or a new one"
            } else {
                "a fresh entry, or nothing"
            },
            format!("{value}, {life}"),
            "a deadline compared with the wrong sign, the wrong instant or a tick beside it",
        );
    }
    Ok(())
}

pub(crate) fn e2(trace: &Trace) -> Verdict {
    if trace.policy.bypass || trace.closing().is_some() {
        return Ok(());
    }
    let jumped = has(trace, |act| matches!(act, Act::Jump(..)));
    let slow = has(trace, |act| matches!(act, Act::SlowReads(_)));
    // The parts of a batch are answered together: E15.
    let alone = |request: &&Request| request.is_ask() && request.batch.is_none();
    for request in trace.requests.iter().filter(alone) {
        let Some(key) = request.key() else { continue };
        if jumped || written_between(trace, key, request.began.tick, request.end_tick()) {
            continue;
        }
        let look = trace.peeks.iter().find(|peek| peek.at.tick > request.began.tick && peek.key == key);
        let Some(look) = look.filter(|look| look.at.tick == request.began.tick + 1) else { continue };
        let Some(entry) = &look.entry else { continue };
        if judge(&trace.policy, entry.lifetime(), look.at.now) != Freshness::Stale {
            continue;
        }
        match &request.ended {
            Some((_, Reply::Left)) => {}
            Some((at, Reply::Value(_))) if at.passed == request.began.passed => {}
            Some((at, reply)) => {
                let waited =
                    Duration::from_nanos(u64::try_from(at.passed - request.began.passed).unwrap_or(0));
                return broken(
                    format!("{} at once: it is stale and in its window", entry.value()),
                    format!("{} after {waited:?}", answer(reply)),
                    "a refresh, or the tiers below, that the caller waits for",
                );
            }
            None => {
                return broken(
                    format!("{} at once: it is stale and in its window", entry.value()),
                    "no answer",
                    "a caller who waits for the refresh, or for a slow tier below",
                );
            }
        }
    }
    if jumped || slow || has(trace, faulty) {
        return Ok(());
    }
    for (request, key, value) in served(trace).filter(|(request, ..)| request.is_ask()) {
        let end = request.end_tick();
        let lives = trace.lives(value);
        let strictly =
            !lives.is_empty() && lives.iter().all(|life| !judged(trace, *life, request, Freshness::Fresh));
        let own = matches!(trace.producers.get(&value), Some(Producer::Run(run)) if run_overlaps(&trace.runs[*run], request));
        if !strictly
            || own
            || failed_run(trace, key, request).is_some()
            || stands_in(trace, key, request)
            || written_between(trace, key, request.began.tick, u64::MAX)
        {
            continue;
        }
        let at = request.ended.as_ref().map_or(request.began, |(at, _)| *at);
        let soon = |tick: u64, passed: i128| tick > request.began.tick && (tick < end || passed <= at.passed);
        let renewed = trace.runs.iter().any(|run| {
            run.key == key
                && flight_end(trace, run) > request.began.tick
                && (run.began.tick < end || run.began.passed <= at.passed)
        });
        let skipped = trace.events.iter().any(|told| {
            told.key == Some(key) && told.name == "RefreshSkipped" && soon(told.at.tick, told.at.passed)
        });
        if !renewed && !skipped {
            return broken(
                format!("a refresh of {key} behind the stale {value}"),
                "a stale value, and nobody refreshes",
                "the stale branch that returns before it starts its refresh",
            );
        }
    }
    Ok(())
}

pub(crate) fn e8(trace: &Trace) -> Verdict {
    for (request, key, value) in served(trace).filter(|(request, ..)| request.is_ask()) {
        if let Some(Producer::Run(run)) = trace.producers.get(&value)
            && flies_beside(trace, &trace.runs[*run], request)
        {
            continue;
        }
        let lives = trace.lives(value);
        if lives.iter().any(|life| judged(trace, *life, request, Freshness::Stale)) {
            continue;
        }
        let runs = || trace.runs.iter().filter(|run| run.key == key && run_overlaps(run, request));
        // What the origin confirms stands in for nothing.
        let confirmed = runs().any(|run| run.end() == Some(End::Unchanged));
        // The first to end may be the one whose caller was given the value, however late it looks.
        let first = runs().min_by_key(|run| run.end_tick());
        let Some(failed) = first.filter(|_| !confirmed) else { continue };
        let older = |write: &Request| match trace.producers.get(&value) {
            Some(Producer::Run(run)) => trace.runs[*run].end_tick() < write.began.tick,
            Some(Producer::Set(set)) => trace.requests[*set].end_tick() < write.began.tick,
            _ => true,
        };
        let removed = trace.requests.iter().any(|write| {
            let acknowledged = write.acknowledged().is_some_and(|at| at.tick < failed.end_tick());
            write.writes(key) && acknowledged && older(write) && !matches!(write.act, Act::Set(..))
        });
        if removed {
            return broken(
                "the error: what it would stand in for was removed",
                format!("{value}, from before the removal"),
                "a fallback that does not look at its fence",
            );
        }
    }
    for run in trace.runs.iter().filter(|run| run.end() == Some(End::Failed) && !run.refresh) {
        let (Some((at, _)), Given::Held(held)) = (run.ended, run.given) else { continue };
        let request = &trace.requests[run.by];
        // Whichever of its lives it was held with: "unchanged" gives it another.
        let lives = trace.lives(held);
        let serves =
            !lives.is_empty() && lives.iter().all(|life| serves_on_error(&trace.policy, *life, at.now));
        if written_between(trace, run.key, request.began.tick, at.tick) || !serves {
            continue;
        }
        if trouble::lost_patience(trace, request) {
            continue;
        }
        if let Some(reply @ Reply::Failed(..)) = request.reply() {
            return broken(
                format!("{held}: it is kept for the case that a computation fails"),
                answer(reply),
                "a fallback that is not there, or that looks at the cache's setting and not at the entry",
            );
        }
    }
    Ok(())
}

pub(crate) fn e12(trace: &Trace) -> Verdict {
    e1(trace)?;
    for request in trace.requests.iter().filter(|request| matches!(request.reply(), Some(Reply::Panicked))) {
        if !trace.runs.iter().any(|run| run.end() == Some(End::Panicked)) {
            return broken(
                "an answer, whatever the clock does",
                format!("a panic in {:?}", request.act),
                "a subtraction of instants that are not in order",
            );
        }
    }
    Ok(())
}
