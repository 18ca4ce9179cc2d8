//! The laws of the engine over what happened, whoever ran it: each says what it finds wrong, if anything.

use std::time::Duration;

use crate::cache::computed::{Keep, Ttl};
use crate::cache::policy::Jitter;
use crate::entry::{Freshness, Lifetime};
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::{Act, Own, Work};
use crate::testkit::engine::drive::overlaps;
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{End, Outcome, Producer, Reply, Request, Run, Trace, answer};
use crate::time::Timestamp;

/// What a law found.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) cause: &'static str,
}

pub(crate) type Verdict = Result<(), Broken>;

fn broken(expected: impl Into<String>, got: impl Into<String>, cause: &'static str) -> Verdict {
    Err(Broken { expected: expected.into(), got: got.into(), cause })
}

/// Requests that were answered with a value.
fn served(trace: &Trace) -> impl Iterator<Item = (&Request, Name, u64)> {
    trace.requests.iter().filter_map(|request| match (request.key(), request.reply()) {
        (Some(key), Some(Reply::Value(value))) => Some((request, key, *value)),
        _ => None,
    })
}

/// When the flight of a computation was over: it stores before it leaves its table.
fn flight_end(trace: &Trace, run: &Run) -> u64 {
    let mut calls =
        trace.calls.iter().filter(|call| call.operation == Operation::Set && call.key == Some(run.key));
    let stores = calls.find(|call| {
        call.began.tick > run.end_tick()
            && call.entry.as_ref().is_some_and(|entry| *entry.value() == run.value)
    });
    stores.map_or(run.end_tick(), |call| call.ended.map_or(u64::MAX, |(at, _)| at.tick))
}

/// Whether the request came while the flight of the computation could be joined.
fn flies_beside(trace: &Trace, run: &Run, request: &Request) -> bool {
    overlaps(run.began, flight_end(trace, run), request.began, request.end_tick())
}

fn run_overlaps(run: &Run, request: &Request) -> bool {
    overlaps(run.began, run.end_tick(), request.began, request.end_tick())
}

fn has(trace: &Trace, act: impl Fn(Act) -> bool) -> bool {
    trace.requests.iter().any(|request| act(request.act))
}

fn faulty(act: Act) -> bool {
    matches!(act, Act::Down(_) | Act::Fault(..))
}

/// Whether a write of the key stands between the two points, in part at least.
fn written_between(trace: &Trace, key: Name, from: u64, to: u64) -> bool {
    let between = |request: &Request| request.began.tick < to && request.end_tick() > from;
    trace.requests.iter().any(|request| request.writes(key) && between(request))
}

/// Whether `life` is good enough at any instant of the request.
fn judged(trace: &Trace, life: Lifetime, request: &Request, most: Freshness) -> bool {
    within(trace, request).any(|now| trace.policy.judge(life, now) <= most)
}

fn within<'a>(trace: &'a Trace, request: &Request) -> impl Iterator<Item = Timestamp> + use<'a> {
    let (from, to) = (request.began.tick, request.end_tick());
    trace.moments.iter().filter(move |moment| (from..=to).contains(&moment.tick)).map(|moment| moment.now)
}

/// What a fallback needs: a computation of the key that failed while the caller waited.
fn failed_run<'a>(trace: &'a Trace, key: Name, request: &Request) -> Option<&'a Run> {
    trace.runs.iter().find(|run| {
        let failed = matches!(run.end(), Some(End::Failed | End::Dropped | End::Unchanged));
        run.key == key && failed && run_overlaps(run, request)
    })
}

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
            |life: &Lifetime| within(trace, request).any(|now| trace.policy.serves_on_error(*life, now));
        if request.is_ask() && failed_run(trace, key, request).is_some() && lives.iter().any(kept) {
            continue;
        }
        let life = lives.last().map_or("an entry that was never stored".to_owned(), |life| trace.life(*life));
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
    // A flight that is still reading knows of no stale entry yet.
    let beside = |request: &Request| {
        let earlier = |ask: &Request| {
            let flies = ask.end_tick() > request.began.tick || ask.reply() == Some(&Reply::Left);
            ask.is_ask() && ask.key() == request.key() && ask.began < request.began && flies
        };
        slow && trace.requests.iter().any(earlier)
    };
    for request in trace.requests.iter().filter(|request| request.is_ask()) {
        let Some(key) = request.key() else { continue };
        if jumped || beside(request) || written_between(trace, key, request.began.tick, request.end_tick()) {
            continue;
        }
        let look = trace.peeks.iter().find(|peek| peek.at.tick > request.began.tick && peek.key == key);
        let Some(look) = look.filter(|look| look.at.tick == request.began.tick + 1) else { continue };
        let Some(entry) = &look.entry else { continue };
        if trace.policy.judge(entry.lifetime(), look.at.now) != Freshness::Stale {
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

pub(crate) fn e3(trace: &Trace) -> Verdict {
    if trace.policy.bypass {
        return Ok(());
    }
    for (index, first) in trace.runs.iter().enumerate() {
        for second in trace.runs.iter().skip(index + 1).filter(|run| run.key == first.key) {
            if second.began.tick < first.end_tick()
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
            // A flight may have been overtaken before it came to read.
            let open = trace.requests.iter().filter(|ask| {
                let flies = ask.end_tick() > first.began.tick || ask.reply() == Some(&Reply::Left);
                ask.is_ask() && ask.key() == first.key && flies
            });
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
        moments.all(|moment| trace.policy.judge(*life, moment.now) == Freshness::Fresh)
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
        let closed = trace.closing().is_some_and(|closing| closing.tick < at.tick);
        if end == End::Dropped && took < limit && !closed && at.tick < trace.end.tick {
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
        let fenced = written_between(trace, run.key, trace.requests[run.by].began.tick, u64::MAX);
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
            ErrorKind::Timeout => *operation == Operation::Compute && !cut && !closed,
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
        let Some(failed) = runs().last().filter(|_| !confirmed) else { continue };
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
        let (Some((at, _)), Some(Some(held))) = (run.ended, run.given) else { continue };
        let request = &trace.requests[run.by];
        let serves = trace.lives(held).iter().any(|life| trace.policy.serves_on_error(*life, at.now));
        if written_between(trace, run.key, request.began.tick, at.tick) || !serves {
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

pub(crate) fn e13(trace: &Trace) -> Verdict {
    for call in trace.calls.iter().filter(|call| call.operation == Operation::Set) {
        let Some(entry) = &call.entry else { continue };
        let life = entry.lifetime();
        let fits = |began: Timestamp, ended: Timestamp, own: Own| {
            fits(trace, life, began, ended, own)
                && (!own.extras || (entry.tags().len() == 2 && entry.version().is_some_and(|v| &**v == "v")))
        };
        let producer = trace.producers.get(entry.value());
        let mut runs = trace.runs.iter().filter(|run| Some(run.key) == call.key);
        let computed = runs.any(|run| {
            let Some((at, end)) = run.ended else { return false };
            let own = matches!(producer, Some(Producer::Run(index)) if trace.runs[*index].value == run.value);
            let answers = (end == End::Answered && own) || end == End::Unchanged;
            // What is unchanged keeps its version.
            let planted = matches!(producer, Some(Producer::Planted(_))) && !run.plan.own.extras;
            let versioned = !planted || entry.version().is_some_and(|version| &**version == "p");
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
                format!("{}, {}", entry.value(), trace.life(life)),
                "an instant that is read too early or too late, or terms that are lost",
            );
        }
    }
    Ok(())
}

/// The shortest and the longest life that such a value may have, by the words of the law.
fn life_of(trace: &Trace, began: Timestamp, ended: Timestamp, own: Own, shortest: bool) -> Lifetime {
    let policy = &trace.policy;
    let ttl = match (own.ttl, Own::length(own.ttl), policy.ttl) {
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
    let stale = fresh.saturating_add(Own::length(own.stale).unwrap_or(policy.stale));
    let keep = match (Own::length(own.keep), policy.keep) {
        (Some(age), _) | (None, Keep::For(age)) => fresh.saturating_add(age),
        (None, Keep::No) => stale,
        (None, Keep::Forever) => Timestamp::MAX,
    };
    Lifetime::new(began, fresh, stale, keep)
}

/// Whether a value of these terms, computed in this time, has this life.
pub(crate) fn fits(trace: &Trace, life: Lifetime, began: Timestamp, ended: Timestamp, own: Own) -> bool {
    let (least, most) = (life_of(trace, began, ended, own, true), life_of(trace, began, ended, own, false));
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

/// Nothing beyond what the model says.
pub(crate) fn none(_: &Trace) -> Verdict {
    Ok(())
}

/// Whether the case can do without the model: a store that hangs, a load that hangs inside its caller.
pub(crate) fn hangs(trace: &Trace) -> bool {
    has(trace, |act| match act {
        Act::Fault(_, _, _, trouble) => trouble.hangs(),
        Act::Ask(_, plan) => trace.policy.bypass && plan.work == Work::Hang,
        _ => false,
    }) || trace.calls.iter().any(|call| call.ended.is_none() && call.operation == Operation::Clear)
        || trace.calls.iter().any(|call| matches!(call.ended, Some((_, Outcome::Failed))) && trace.spun)
}
