//! Who computes, and how it ends: E3, E5, E6, E7, E9, and what is left at rest.

use super::{Verdict, broken, faulty, has, judge, run_overlaps, trouble, written_between};
use crate::entry::{Freshness, Lifetime};
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::Act;
use crate::testkit::engine::trace::{End, Reply, Run, Trace, answer};

pub(crate) fn e3(trace: &Trace) -> Verdict {
    if trace.policy.bypass {
        return Ok(());
    }
    for (index, first) in trace.runs.iter().enumerate() {
        for second in trace.runs.iter().skip(index + 1).filter(|run| run.key == first.key) {
            // A load that was dropped leaves its table before its task is told (E20).
            let dropped = trouble::dropper(trace, first).is_some_and(|by| by.end_tick() < second.began.tick);
            if second.began.tick < first.end_tick()
                && !dropped
                && !written_between(trace, first.key, since(trace, first, second), second.began.tick)
            {
                return broken(
                    format!("one computation of {} at a time", first.key),
                    format!("{} began while {} ran", second.value, first.value),
                    "the flight left its table too early, or was never joined",
                );
            }
            if let Some(verdict) = needless(trace, first, second) {
                return verdict;
            }
        }
    }
    let lone = has(trace, |act| matches!(act, Act::Get(_))) || trace.closing().is_some();
    let reads: Vec<_> = trace.calls.iter().filter(|call| call.operation == Operation::Get).collect();
    for (index, first) in reads.iter().enumerate() {
        for second in reads.iter().skip(index + 1).filter(|call| call.key == first.key) {
            let end = first.ended.as_ref().map_or(first.began.tick, |(at, _)| at.tick);
            let Some(key) = first.key else { continue };
            // A flight may have been overtaken before it came to read; and one that refreshes outlives its caller.
            let open = trace.requests.iter().filter(|ask| ask.is_ask() && ask.key() == first.key);
            let from = open.map(|ask| ask.began.tick).min().unwrap_or(0).min(first.began.tick);
            if !lone && second.began.tick < end && !written_between(trace, key, from, second.began.tick) {
                return broken(
                    format!("one read of {key} for all who miss it"),
                    "two reads at once",
                    "callers who look into the slow tiers before they join the flight",
                );
            }
        }
    }
    Ok(())
}

/// From when on a write would have separated the two: a flight reads before it computes.
fn since(trace: &Trace, first: &Run, second: &Run) -> u64 {
    first.began.tick.min(trace.requests[first.by].began.tick).min(trace.requests[second.by].began.tick)
}

/// A computation although the last one had answered, and its answer was still good.
fn needless(trace: &Trace, first: &Run, second: &Run) -> Option<Verdict> {
    let (at, End::Answered) = first.ended? else { return None };
    if second.refresh || has(trace, faulty) || trace.closing().is_some() || second.began.tick < at.tick {
        return None;
    }
    if written_between(trace, first.key, since(trace, first, second), second.began.tick) {
        return None;
    }
    let asked = trace.requests[second.by].began.tick.min(second.began.tick);
    let good = |life: &Lifetime| {
        let mut moments = trace
            .moments
            .iter()
            .filter(|moment| (asked.min(at.tick)..=second.began.tick).contains(&moment.tick));
        moments.all(|moment| judge(&trace.policy, *life, moment.now) == Freshness::Fresh)
    };
    let lives = trace.lives(first.value);
    (!lives.is_empty() && lives.iter().all(good)).then(|| {
        broken(
            format!("{} for everyone who asks while it is fresh", first.value),
            format!("another computation: {}", second.value),
            "the flight left its table before its result could be found, or the result was not kept",
        )
    })
}

pub(crate) fn e5(trace: &Trace) -> Verdict {
    if trace.spun {
        return broken("an end", "tasks that run on and on", "a follower that goes round without waiting");
    }
    let hangs = has(trace, |act| matches!(act, Act::Fault(_, _, _, trouble) if trouble.hangs()));
    for request in trace.stuck.iter().map(|index| &trace.requests[*index]) {
        let excused = trace.policy.bypass || (hangs && !request.is_ask());
        if !excused {
            return broken(
                "an answer for everybody",
                "a caller whom nobody will wake",
                "a flight that ended without telling all who wait, or a load without a deadline",
            );
        }
    }
    if trace.policy.bypass {
        return Ok(());
    }
    for run in &trace.runs {
        let Some((at, end)) = run.ended else { continue };
        let took = at.passed - run.began.passed;
        let limit = if run.refresh { trace.policy.refresh_timeout } else { trace.policy.load_timeout };
        let limit = i128::try_from(limit.as_nanos()).unwrap_or(i128::MAX);
        if trouble::cut_early(trace, run) && trouble::dropper(trace, run).is_none() {
            return broken(
                "a computation that runs on when its caller goes away",
                format!("{} was dropped after {} ns", run.value, took),
                "a load that runs inside its caller's future",
            );
        }
        if took > limit && !run.refresh {
            return broken(
                format!("an end within {:?}", trace.policy.load_timeout),
                format!("{} ran for {took} ns", run.value),
                "a load without a deadline",
            );
        }
        let from = trace.requests[run.by].began.tick;
        // Born beside the result of an overtaken flight that is still on its way to the store.
        let beside = trace.calls.iter().any(|call| {
            let under_way =
                call.began.tick < run.began.tick && call.ended.is_none_or(|(at, _)| at.tick > from);
            call.operation == Operation::Set && call.key == Some(run.key) && under_way
        });
        let fenced = beside || written_between(trace, run.key, from, u64::MAX);
        if end == End::Answered && !fenced && trace.closing().is_none() {
            let stored = trace.calls.iter().any(|call| {
                call.operation == Operation::Set
                    && call.entry.as_ref().is_some_and(|entry| *entry.value() == run.value)
            });
            if !stored {
                return broken(
                    format!("{} in the store", run.value),
                    "it was computed and not stored",
                    "the load ends with the caller who began it, or believes itself overtaken",
                );
            }
        }
    }
    for request in trace.requests.iter().filter(|request| request.is_ask()) {
        let Some(Reply::Failed(kind, operation, _)) = request.reply() else { continue };
        let Some(key) = request.key() else { continue };
        let closed = trace.closing().is_some_and(|closing| closing.tick < request.end_tick());
        let cut = trace
            .runs
            .iter()
            .any(|run| run.key == key && run.end() == Some(End::Dropped) && run_overlaps(run, request));
        let lost = match kind {
            ErrorKind::ShutDown => !closed,
            ErrorKind::Timeout => {
                let queued = trace.policy.trouble.limit.is_some();
                let lost = trouble::lost_patience(trace, request) || queued;
                let kept = trace.policy.trouble.backoff.is_some();
                *operation == Operation::Compute && !cut && !closed && !lost && !kept
            }
            ErrorKind::Unsupported | ErrorKind::Cycle => true,
            _ => false,
        };
        if lost {
            return broken(
                "the outcome of a computation",
                answer(&Reply::Failed(*kind, *operation, None)),
                "a follower that gets the fate of its leader in place of a computation of its own",
            );
        }
    }
    Ok(())
}

pub(crate) fn e6(trace: &Trace) -> Verdict {
    // Unless it is asked for, which is the matter of E17.
    if trace.policy.trouble.backoff.is_some() {
        return Ok(());
    }
    for request in trace.requests.iter().filter(|request| request.is_ask()) {
        let (Some(key), Some(Reply::Failed(kind, _, named))) = (request.key(), request.reply()) else {
            continue;
        };
        let run = match (kind, named) {
            (ErrorKind::Computation, Some(named)) => trace.runs.iter().find(|run| run.value == *named),
            (ErrorKind::InvalidInput, _) => trace.runs.iter().find(|run| {
                run.key == key && run.end() == Some(End::Unchanged) && run_overlaps(run, request)
            }),
            _ => continue,
        };
        if !run.is_some_and(|run| run_overlaps(run, request)) {
            return broken(
                "a computation of its own for whoever comes after an error",
                "an error from before the request",
                "an error that is kept, or a flight that stays in its table when it has failed",
            );
        }
    }
    Ok(())
}

pub(crate) fn e7(trace: &Trace) -> Verdict {
    if let Some(panic) = trace.panics.first() {
        return broken("no panic outside the caller", panic.clone(), "a detached task that unwinds");
    }
    for (index, request) in trace.requests.iter().enumerate() {
        let own = trace.runs.iter().find(|run| run.by == index && run.end() == Some(End::Panicked));
        let overtaken = |run: &Run| written_between(trace, run.key, request.began.tick, run.end_tick());
        match request.reply() {
            Some(Reply::Panicked) if own.is_none() => {
                return broken(
                    "a computation of its own for a follower",
                    "the panic of somebody else's computation",
                    "a panic that is published to all who wait",
                );
            }
            Some(Reply::Panicked) if own.is_some_and(|run| run.refresh && !overtaken(run)) => {
                return broken(
                    "the stale value",
                    "the panic of its refresh",
                    "a refresh that unwinds in its caller",
                );
            }
            Some(Reply::Failed(..)) if trouble::lost_patience(trace, request) => {}
            Some(Reply::Failed(..) | Reply::Nothing) if own.is_some_and(|run| !run.refresh) => {
                return broken(
                    "the panic, in the caller whose computation it was",
                    "an error",
                    "a panic that is turned into an error",
                );
            }
            Some(Reply::Failed(ErrorKind::Computation, _, None)) => {
                return broken(
                    "a computation of its own for a follower",
                    "an error without a computation that failed",
                    "a panic that is given to the followers as an error",
                );
            }
            _ => {}
        }
    }
    for index in &trace.stuck {
        let request = &trace.requests[*index];
        let panicked = |run: &Run| Some(run.key) == request.key() && run.end() == Some(End::Panicked);
        if !trace.policy.bypass && request.is_ask() && trace.runs.iter().any(panicked) {
            return broken("an answer after a panic", "no end", "a key that stays taken after a panic");
        }
    }
    Ok(())
}

pub(crate) fn e9(trace: &Trace) -> Verdict {
    if trace.policy.bypass {
        return Ok(());
    }
    let refreshes: Vec<_> = trace.runs.iter().filter(|run| run.refresh).collect();
    for run in &refreshes {
        let beside =
            refreshes.iter().filter(|other| other.began <= run.began && run.began.tick < other.end_tick());
        if beside.count() > trace.policy.max_refreshes {
            return broken(
                format!("at most {} refreshes at once", trace.policy.max_refreshes),
                "one more",
                "a refresh that runs without a permit, or gives it back too early",
            );
        }
        let limit = i128::try_from(trace.policy.refresh_timeout.as_nanos()).unwrap_or(i128::MAX);
        let took = run.ended.map_or(i128::MAX, |(at, _)| at.passed - run.began.passed);
        if took > limit {
            return broken(
                format!("an end of the refresh within {:?}", trace.policy.refresh_timeout),
                if run.ended.is_some() { format!("{took} ns") } else { "no end".to_owned() },
                "a refresh without a deadline",
            );
        }
    }
    for (index, request) in trace.requests.iter().enumerate() {
        let Some((at, _)) = request.ended else { continue };
        if matches!(request.act, Act::Shutdown(_)) {
            let late = trace.runs.iter().find(|run| trace.requests[run.by].began.tick > at.tick);
            if let Some(run) = late {
                return broken(
                    "no computation after a shutdown",
                    format!("{} began", run.value),
                    "a load that does not look whether the cache is closing",
                );
            }
        }
        if matches!(request.act, Act::DropHandle) {
            let others = trace.requests.iter().enumerate().any(|(other, open)| {
                other != index && open.began.tick < at.tick && open.end_tick() > at.tick
            });
            let outlives = |run: &&Run| {
                run.began.tick < at.tick
                    && run.end_tick() > at.tick
                    && run.ended.is_none_or(|(end, _)| end.passed > at.passed)
            };
            if let Some(run) = trace.runs.iter().find(outlives).filter(|_| !others) {
                return broken(
                    "nothing that runs on when the last handle is gone",
                    format!("{} ran on", run.value),
                    "a task that holds a handle, or does not listen for the end",
                );
            }
        }
    }
    Ok(())
}

pub(crate) fn nothing_is_left(trace: &Trace) -> Verdict {
    if !trace.leaked.is_empty() {
        return broken(
            "no task at rest",
            trace.leaked.join(", "),
            "a task without a deadline, or a lost wake-up",
        );
    }
    if !trace.idle {
        return broken("no flight at rest", "a flight is left in its table", "an end that does not clean up");
    }
    let open = |run: &&Run| run.ended.is_none();
    if let Some(run) = trace.runs.iter().find(open).filter(|_| !trace.policy.bypass) {
        return broken(
            "no computation at rest",
            format!("{} still runs", run.value),
            "a load without an end",
        );
    }
    Ok(())
}
