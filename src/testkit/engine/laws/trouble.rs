//! An origin that is slow, down, or says "not found": E16, E17, E20, E21.

use std::time::Duration;

use super::store::fits;
use super::{Verdict, broken, faulty, has, serves_on_error, written_between};
use crate::cache::Patience;
use crate::cache::errors::Backoff;
use crate::entry::Freshness;
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::{Act, is_absent, patience};
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{End, Given, Moment, Producer, Reply, Request, Run, Told, Trace, answer};
use crate::time::Timestamp;

fn nanos(length: Duration) -> i128 {
    i128::try_from(length.as_nanos()).unwrap_or(i128::MAX / 4)
}

/// Absences that are stored live as long as absences do, to the tick.
pub(crate) fn e16(trace: &Trace) -> Verdict {
    if trace.policy.trouble.negative_ttl.is_none() {
        return Ok(());
    }
    for call in trace.calls.iter().filter(|call| call.operation == Operation::Set) {
        let Some(entry) = call.entry.as_ref().filter(|entry| is_absent(*entry.value())) else { continue };
        let life = entry.lifetime();
        let mut made = trace.runs.iter().filter(|run| Some(run.key) == call.key);
        let set = match trace.producers.get(entry.value()) {
            Some(Producer::Set(set)) => match trace.requests[*set].act {
                Act::Set(_, own) => Some((trace.requests[*set].began.now, own)),
                _ => None,
            },
            _ => None,
        };
        let computed = made.any(|run| {
            run.ended.is_some_and(|(at, _)| fits(trace, life, true, run.began.now, at.now, run.plan.own))
        });
        if !computed && !set.is_some_and(|(at, own)| fits(trace, life, true, at, at, own)) {
            return broken(
                format!("an absence that is fresh for {:?} and then gone", trace.policy.trouble.negative_ttl),
                format!("{}, {}", entry.value(), Trace::life(life)),
                "a ttl or a window of values that are there",
            );
        }
    }
    Ok(())
}

/// How long an error is remembered after so many failures in a row.
pub(crate) fn lasts(backoff: Backoff, failures: u32) -> Duration {
    (1..failures).fold(backoff.first, |length, _| length.saturating_mul(2).min(backoff.most))
}

/// What is remembered of one key after some of its computations have ended.
#[derive(Clone, Copy)]
struct Memory {
    from: u64,
    until: Timestamp,
    failures: u32,
    value: u64,
}

/// What is remembered of `key`, from when on. `None` where that cannot be told.
fn memories(trace: &Trace, key: Name, backoff: Backoff) -> Option<Vec<Option<Memory>>> {
    let mut runs: Vec<_> = trace.runs.iter().filter(|run| run.key == key && run.ended.is_some()).collect();
    runs.sort_by_key(|run| run.end_tick());
    let (mut all, mut last): (Vec<Option<Memory>>, Option<Memory>) = (vec![None], None);
    for run in runs {
        let (at, end) = run.ended?;
        let fails = match end {
            End::Failed => !trace.only_even || run.value.is_multiple_of(2),
            // What is absent is an answer, and no failure.
            End::Panicked | End::Forgot => continue,
            End::Answered => {
                last = None;
                all.push(Some(Memory { from: at.tick, until: Timestamp::EPOCH, failures: 0, value: 0 }));
                continue;
            }
            // Whether it was given anything, and whether it lost its time in a queue or was dropped, is another matter.
            End::Unchanged => return None,
            End::Dropped if trace.policy.trouble.limit.is_some() || dropper(trace, run).is_some() => {
                return None;
            }
            End::Dropped => !trace.only_even,
        };
        if fails {
            let row = last.filter(|last| at.now <= last.until.saturating_add(backoff.most));
            let failures = row.map_or(1, |last| last.failures + 1);
            let until = at.now.saturating_add(lasts(backoff, failures));
            last = Some(Memory { from: at.tick, until, failures, value: run.value });
            all.push(last);
        }
    }
    Some(all)
}

/// Until when the last error of `key` is remembered.
pub(crate) fn remembered_until(trace: &Trace, key: Name) -> Option<Timestamp> {
    let memories = memories(trace, key, trace.policy.trouble.backoff?)?;
    memories.last().copied().flatten().map(|memory| memory.until)
}

pub(crate) fn e17(trace: &Trace) -> Verdict {
    let Some(backoff) = trace.policy.trouble.backoff else {
        let told = trace.events.iter().find(|told| told.name == "ErrorRemembered");
        return told.map_or(Ok(()), |_| {
            broken("no error is remembered: nobody asked", "one is", "a table that is always there")
        });
    };
    let jumps = has(trace, |act| matches!(act, Act::Jump(..)));
    if trace.policy.bypass || jumps || trace.closing().is_some() {
        return Ok(());
    }
    for key in Name::ALL {
        if written_between(trace, key, 0, u64::MAX) {
            continue;
        }
        let Some(memories) = memories(trace, key, backoff) else { continue };
        let at = |moment: Moment| {
            let known = memories.iter().rev().flatten().find(|memory| memory.from < moment.tick);
            known.filter(|memory| moment.now <= memory.until)
        };
        for run in trace.runs.iter().filter(|run| run.key == key) {
            if let Some(memory) = at(run.began)
                && (!backoff.chosen || trace.only_even)
            {
                return broken(
                    format!("no computation of {key}: the error of {} is remembered", memory.value),
                    format!("{} began", run.value),
                    "a table that is not asked, forgets too early, or grows too slowly",
                );
            }
        }
        for told in trace.events.iter().filter(|told| told.key == Some(key) && told.name == "ErrorRemembered")
        {
            if at(told.at).is_none() {
                return broken(
                    format!("a computation of {key}: no error is remembered any more"),
                    "an error that is",
                    "a time that is too long, a success that is not heeded, or the error of another key",
                );
            }
        }
        let asks = trace.requests.iter().filter(|request| request.is_ask() && request.key() == Some(key));
        for request in asks {
            let Some(Reply::Failed(ErrorKind::Computation, _, Some(named))) = request.reply() else {
                continue;
            };
            let last = memories.iter().rev().flatten().find(|memory| memory.from < request.end_tick());
            let own = trace.runs.iter().any(|run| run.value == *named && super::run_overlaps(run, request));
            if !own && last.is_none_or(|last| last.value != *named) {
                return broken(
                    "the last error of the key, or one of now",
                    format!("the error of {named}"),
                    "an error that is kept beside its time",
                );
            }
        }
    }
    Ok(())
}

/// The patience of a caller.
pub(crate) fn patience_of(trace: &Trace, request: &Request) -> Patience {
    match request.act {
        Act::Ask(_, plan) => patience(plan.patience).unwrap_or(trace.policy.trouble.patience),
        _ => Patience::new(),
    }
}

fn waited(request: &Request) -> Option<i128> {
    request.ended.as_ref().map(|(at, _)| at.passed - request.began.passed)
}

/// Whether the caller got what one gets at the hard timeout.
pub(crate) fn lost_patience(trace: &Trace, request: &Request) -> bool {
    let timeout =
        matches!(request.reply(), Some(Reply::Failed(ErrorKind::Timeout, Operation::Compute, None)));
    let hard = patience_of(trace, request).hard();
    timeout && hard.is_some_and(|hard| waited(request).is_some_and(|waited| waited >= nanos(hard)))
}

/// Whether the caller waited long enough to be served what is kept.
pub(crate) fn softened(trace: &Trace, request: &Request) -> bool {
    let soft = patience_of(trace, request).soft();
    soft.is_some_and(|soft| waited(request).is_some_and(|waited| waited >= nanos(soft)))
}

/// Who took the load along: the last to lose patience at that instant.
pub(crate) fn dropper<'a>(trace: &'a Trace, run: &Run) -> Option<&'a Request> {
    let (end, _) = run.ended.filter(|(_, end)| *end == End::Dropped)?;
    let drops = |request: &&Request| {
        request.key() == Some(run.key)
            && patience_of(trace, request).drops()
            && lost_patience(trace, request)
            && request.ended.as_ref().is_some_and(|(at, _)| at.passed == end.passed)
    };
    trace.requests.iter().filter(drops).max_by_key(|request| request.end_tick())
}

/// Whether a load was cut off before its deadline, which counts from when it was known to be needed.
pub(crate) fn cut_early(trace: &Trace, run: &Run) -> bool {
    let Some((at, End::Dropped)) = run.ended else { return false };
    let limit = nanos(if run.refresh { trace.policy.refresh_timeout } else { trace.policy.load_timeout });
    let closed = trace.closing().is_some_and(|closing| closing.tick < at.tick);
    let queued =
        |told: &Told| told.key == Some(run.key) && told.name == "Miss" && at.passed - told.at.passed >= limit;
    let late = trace.policy.trouble.limit.is_some() && trace.events.iter().any(queued);
    at.passed - run.began.passed < limit && !closed && !late && at.tick < trace.end.tick
}

pub(crate) fn e20(trace: &Trace) -> Verdict {
    let jumps = has(trace, |act| matches!(act, Act::Jump(..)));
    if trace.policy.bypass || trace.races || jumps || trace.closing().is_some() {
        return Ok(());
    }
    for request in trace.requests.iter().filter(|request| request.is_ask()) {
        let Some(key) = request.key() else { continue };
        hard(trace, request, key)?;
        overtaken(trace, request, key)?;
        if !written_between(trace, key, 0, u64::MAX) {
            soft(trace, request, key)?;
            dropped(trace, request, key)?;
        }
    }
    for run in trace.runs.iter().filter(|run| !run.refresh && cut_early(trace, run)) {
        let Some(by) = dropper(trace, run) else {
            return broken(
                "a load that goes on",
                format!("{} was dropped", run.value),
                "a load that ends with the patience of somebody who did not ask for that",
            );
        };
        let open = |other: &Request| {
            other.is_ask()
                && other.key() == Some(run.key)
                && other.began.tick < by.end_tick()
                && other.end_tick() > by.end_tick()
        };
        let written = written_between(trace, run.key, 0, u64::MAX);
        if trace.requests.iter().any(open) && !written {
            return broken(
                "a load that goes on: somebody waits for it",
                format!("{} was dropped", run.value),
                "a drop that does not ask who waits",
            );
        }
    }
    Ok(())
}

fn hard(trace: &Trace, request: &Request, key: Name) -> Verdict {
    let (Some(hard), Some((at, reply))) = (patience_of(trace, request).hard(), &request.ended) else {
        return Ok(());
    };
    let waited = at.passed - request.began.passed;
    if waited > nanos(hard) && *reply != Reply::Left {
        return broken(
            format!("an answer within {hard:?}"),
            format!("{} after {waited} ns", answer(reply)),
            "a hard timeout that is not set, begins anew, or is the leader's alone",
        );
    }
    let others = trace
        .runs
        .iter()
        .any(|run| run.key == key && run.ended.is_some_and(|(end, _)| end.passed == at.passed));
    let told = trace
        .events
        .iter()
        .any(|told| told.name == "HardTimeout" && told.key == Some(key) && told.at.passed == at.passed);
    if let Reply::Failed(kind, ..) = reply
        && waited == nanos(hard)
        && !others
        && told
        && *kind != ErrorKind::Timeout
    {
        return broken(
            "an error of kind Timeout",
            answer(reply),
            "a hard timeout that is taken for something else",
        );
    }
    Ok(())
}

/// What was removed while the caller waited stands in for nothing.
fn overtaken(trace: &Trace, request: &Request, key: Name) -> Verdict {
    let Some(Reply::Value(value)) = request.reply() else { return Ok(()) };
    let lives = trace.lives(*value);
    let good =
        lives.is_empty() || lives.iter().any(|life| super::judged(trace, *life, request, Freshness::Stale));
    if good || !softened(trace, request) {
        return Ok(());
    }
    let removed = trace.requests.iter().any(|write| {
        write.writes(key)
            && write.began.tick > request.began.tick
            && write.acknowledged().is_some_and(|at| at.tick < request.end_tick())
    });
    let own = trace.runs.iter().any(|run| run.value == *value && super::run_overlaps(run, request));
    if removed && !own {
        return broken(
            "nothing that was removed or replaced while the caller waited",
            format!("{value}, from before"),
            "a soft timeout that does not look at the fence",
        );
    }
    Ok(())
}

/// Who has a soft timeout is served at that very instant, if a load of the key runs and was given what is kept.
fn soft(trace: &Trace, request: &Request, key: Name) -> Verdict {
    let Some(soft) = patience_of(trace, request).soft() else { return Ok(()) };
    let due = request.began.passed + nanos(soft);
    let now = request.began.now.saturating_add(soft);
    for run in trace.runs.iter().filter(|run| run.key == key && !run.refresh) {
        let Given::Held(held) = run.given else { continue };
        let runs = run.began.passed <= due && run.ended.is_none_or(|(end, _)| end.passed > due);
        let waits = request.end_tick() > run.began.tick
            && request.ended.as_ref().is_none_or(|(at, _)| at.passed >= due);
        let lives = trace.lives(held);
        let serves = !lives.is_empty() && lives.iter().all(|life| serves_on_error(&trace.policy, *life, now));
        if !runs || !waits || !serves {
            continue;
        }
        match &request.ended {
            Some((_, Reply::Left)) => {}
            Some((at, Reply::Value(value))) if at.passed == due && *value == held => {}
            Some((at, reply)) => {
                return broken(
                    format!("{held} after {soft:?}: it is kept for that"),
                    format!("{} after {} ns", answer(reply), at.passed - request.began.passed),
                    "a soft timeout that serves nothing, or the leader alone",
                );
            }
            None => {
                return broken(
                    format!("{held} after {soft:?}: it is kept for that"),
                    "no answer",
                    "a soft timeout that serves nothing",
                );
            }
        }
    }
    Ok(())
}

/// The last to lose patience takes the load along, if that was his wish.
fn dropped(trace: &Trace, request: &Request, key: Name) -> Verdict {
    let Some((at, _)) = &request.ended else { return Ok(()) };
    if !patience_of(trace, request).drops() || !lost_patience(trace, request) {
        return Ok(());
    }
    let open = |other: &Request| {
        other.is_ask() && other.key() == Some(key) && other.began.tick < at.tick && other.end_tick() > at.tick
    };
    if trace.requests.iter().any(open) {
        return Ok(());
    }
    let runs =
        |run: &&Run| run.key == key && !run.refresh && run.began.tick < at.tick && run.end_tick() > at.tick;
    match trace.runs.iter().find(runs) {
        Some(run)
            if run.end() != Some(End::Dropped)
                || run.ended.is_none_or(|(end, _)| end.passed != at.passed) =>
        {
            broken(
                format!("the end of {}: nobody waits for it any more", run.value),
                "it runs on",
                "a load that is not dropped, or counts callers who have left",
            )
        }
        _ => Ok(()),
    }
}

/// A load and the limit: when it arrived there, and what became of it.
struct Arrival {
    key: Name,
    tick: u64,
    outcome: &'static str,
    then: u64,
    /// When that was.
    passed: i128,
}

fn arrivals(trace: &Trace) -> Vec<Arrival> {
    let ends = ["LoadStarted", "LoadRejected", "ErrorRemembered", "LoadFailed", "LoadDropped"];
    let misses = trace.events.iter().filter(|told| told.name == "Miss");
    let arrivals = misses.filter_map(|miss| {
        let end = trace
            .events
            .iter()
            .find(|told| told.at.tick > miss.at.tick && told.key == miss.key && ends.contains(&told.name));
        let (outcome, then) = end.map_or(("", u64::MAX), |told| (told.name, told.at.tick));
        let passed = end.map_or(miss.at.passed, |told| told.at.passed);
        Some(Arrival { key: miss.key?, tick: miss.at.tick, outcome, then, passed })
    });
    arrivals.filter(|arrival| arrival.outcome != "ErrorRemembered").collect()
}

pub(crate) fn e21(trace: &Trace) -> Verdict {
    let Some(limit) = trace.policy.trouble.limit.filter(|_| !trace.policy.bypass) else { return Ok(()) };
    let loads = || trace.runs.iter().filter(|run| !run.refresh);
    for run in loads() {
        let beside = loads().filter(|other| other.began <= run.began && run.began.tick < other.end_tick());
        if beside.count() > limit.loads {
            return broken(
                format!("at most {} loads at once", limit.loads),
                "one more",
                "a load that runs without a place, or gives it back too early",
            );
        }
    }
    if !trace.idle {
        return broken(
            "every place free, and nobody who waits",
            "one is taken",
            "a place that is not given back",
        );
    }
    let lone =
        has(trace, |act| matches!(act, Act::Get(_) | Act::DropHandle | Act::Shutdown(_)) || faulty(act));
    if lone || Name::ALL.iter().any(|key| written_between(trace, *key, 0, u64::MAX)) {
        return Ok(());
    }
    let arrivals = arrivals(trace);
    let running = |tick: u64| loads().filter(|run| run.began.tick < tick && run.end_tick() > tick).count();
    let most = limit.loads.saturating_add(limit.waiting.unwrap_or(usize::MAX));
    for load in &arrivals {
        let waiting = |tick: u64| {
            let waits = |other: &&Arrival| {
                other.tick < load.tick && other.then > tick && other.outcome != "LoadRejected"
            };
            arrivals.iter().filter(waits).count()
        };
        let dropped = |passed: i128| {
            let drops = |other: &&Arrival| other.outcome == "LoadDropped" && other.passed == passed;
            arrivals.iter().filter(drops).count()
        };
        // Whoever has a place and has not begun is among those who wait here, and counts once.
        let ahead = running(load.tick).saturating_add(waiting(load.tick));
        let cause = "a queue that is longer or shorter than it may be, or a place that is not given back";
        match load.outcome {
            // A load that was dropped leaves when its task is polled, and not in that instant's first moment.
            "LoadRejected" if ahead + dropped(load.passed) < most => {
                return broken(format!("a place or a turn for {}", load.key), "it is turned away", cause);
            }
            "LoadRejected" => {}
            _ if ahead >= most => {
                return broken(format!("no place and no turn for {}", load.key), "it waits or runs", cause);
            }
            "LoadStarted" if running(load.then).saturating_add(waiting(load.then)) >= limit.loads => {
                return broken(
                    format!("a place for whoever came before {}", load.key),
                    format!("{} began first", load.key),
                    "a queue in another order than that of arrival",
                );
            }
            _ => {}
        }
    }
    Ok(())
}
