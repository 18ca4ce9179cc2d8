//! Many keys at once: E15. A batch stands in the trace as its single calls, so that it keeps every other law too.

use super::{
    Verdict, broken, e1, e2, e3, e4, e5, e6, e7, e8, e11, e13, e14, has, judge, nothing_is_left,
    written_between,
};
use crate::entry::Freshness;
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::Act;
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{End, Reply, Request, Run, Trace, answer};

pub(crate) fn e15(trace: &Trace) -> Verdict {
    batched(trace)?;
    if trace.policy.bypass {
        return Ok(());
    }
    let laws = [e1, e2, e3, e4, e5, e6, e7, e8, e11, e13, e14, nothing_is_left];
    laws.into_iter().try_for_each(|law| law(trace))
}

/// What E15 says of batches alone: it holds over a store that forgets too.
pub(crate) fn batched(trace: &Trace) -> Verdict {
    if trace.policy.bypass {
        return Ok(());
    }
    for (number, (batch, keys)) in trace.together.iter().enumerate() {
        asked(trace, *batch, keys)?;
        in_one_call(trace, number)?;
    }
    for (first, parts) in batches(trace) {
        answered(trace, first, parts)?;
        at_once(trace, parts)?;
    }
    let told = trace.events.iter().filter(|told| told.name == "Unasked").count();
    if told != trace.unasked {
        return broken(
            format!("{} times word of answers that nobody asked for", trace.unasked),
            format!("{told} times"),
            "answers that are left over and not looked at",
        );
    }
    Ok(())
}

/// Each batch: the number of its first part, and its parts.
fn batches(trace: &Trace) -> impl Iterator<Item = (usize, &[Request])> {
    let firsts = trace.requests.iter().enumerate().filter(|(at, request)| request.batch == Some(*at));
    firsts.map(|(first, _)| {
        let parts = trace.requests[first..].iter().take_while(|request| request.batch == Some(first)).count();
        (first, &trace.requests[first..first + parts])
    })
}

/// A computation gets keys of its batch, in order, none twice, and at least one.
fn asked(trace: &Trace, batch: usize, keys: &[Name]) -> Verdict {
    let parts = trace.requests.iter().filter(|request| request.batch == Some(batch));
    let mut order: Vec<Name> = Vec::new();
    for key in parts.filter_map(Request::key) {
        if !order.contains(&key) {
            order.push(key);
        }
    }
    let list = |keys: &[Name]| keys.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    order.retain(|key| keys.contains(key));
    if keys.is_empty() || order != keys {
        return broken(
            format!("a computation of [{}]: keys of the batch, in order, none twice", list(&order)),
            format!("[{}]", list(keys)),
            "a key that is asked for again, or a computation for nothing",
        );
    }
    Ok(())
}

/// The keys of one computation were read by one call, and what it answered is stored by one call.
fn in_one_call(trace: &Trace, number: usize) -> Verdict {
    let runs = || trace.runs.iter().filter(|run| run.together == Some(number));
    let read_of = |run: &Run| {
        let of_key = |key| move |call: &&crate::testkit::engine::trace::Called| call.key == Some(key);
        let reads = trace.calls.iter().filter(|call| call.operation == Operation::Get);
        reads.filter(of_key(run.key)).rfind(|call| call.began.tick < run.began.tick).map(|call| call.bulk)
    };
    // Others who read the same keys beside them would be taken for theirs.
    let others = trace.requests.iter().any(|request| !request.is_ask() && request.key().is_some());
    let others = others || has(trace, |act| matches!(act, Act::Clear)) || trace.closing().is_some();
    let mut reads: Vec<_> = runs().filter_map(read_of).filter(|_| !others).collect();
    let read = reads.len();
    reads.dedup();
    let sets = trace.calls.iter().filter(|call| call.operation == Operation::Set);
    let ours = |value: u64| runs().any(|run| run.value == value);
    let mut writes: Vec<_> = sets
        .filter(|call| call.entry.as_ref().is_some_and(|entry| ours(*entry.value())))
        .map(|call| call.bulk)
        .collect();
    let written = writes.len();
    writes.dedup();
    // Calls of single keys have no number in common.
    let calls = |all: usize, calls: &[Option<usize>]| if calls == [None] { all } else { calls.len() };
    let (reads, writes) = (calls(read, &reads), calls(written, &writes));
    // What is due early has a read of its own.
    let may_read = if trace.policy.ahead.is_some() && runs().any(|run| run.refresh) { 2 } else { 1 };
    if reads > may_read || writes > 1 {
        return broken(
            "one read and one write for the keys of one computation",
            format!("{reads} and {writes}"),
            "a loop over calls of single keys",
        );
    }
    Ok(())
}

/// A key that the batch's own computation answered has that value, whatever became of the others.
fn answered(trace: &Trace, first: usize, parts: &[Request]) -> Verdict {
    for (at, part) in parts.iter().enumerate().filter(|(_, part)| part.is_ask()) {
        let Some(reply @ Reply::Failed(kind, operation, _)) = part.reply() else { continue };
        let mut own = trace.runs.iter().filter(|run| run.by == first + at && !run.refresh);
        if own.clone().count() != 1 || *operation != Operation::Compute || trace.closing().is_some() {
            continue;
        }
        let right = own.any(|run| match run.end() {
            Some(End::Answered | End::Unchanged) => false,
            Some(End::Forgot) => *kind == ErrorKind::NotFound,
            Some(End::Failed) => *kind == ErrorKind::Computation,
            _ => true,
        });
        if !right {
            return broken(
                "the outcome of the key's own computation",
                answer(reply),
                "a key that takes the others along, or one that is taken along",
            );
        }
    }
    Ok(())
}

/// A batch of which every key was found fresh or stale at its first look waits for nothing (E2).
fn at_once(trace: &Trace, parts: &[Request]) -> Verdict {
    let excused =
        has(trace, |act| matches!(act, Act::Jump(..) | Act::SlowReads(_))) || trace.closing().is_some();
    let mut shown = parts.iter().map(|part| {
        let key = part.key()?;
        let first = trace.peeks.iter().find(|peek| peek.at.tick > part.began.tick && peek.key == key)?;
        let entry = first.entry.as_ref().filter(|_| first.at.tick < part.end_tick())?;
        let freshness = judge(&trace.policy, entry.lifetime(), first.at.now);
        let written = written_between(trace, key, part.began.tick, part.end_tick());
        Some(part.is_ask() && !written && freshness <= Freshness::Stale)
    });
    if excused || !shown.all(|shown| shown == Some(true)) {
        return Ok(());
    }
    for part in parts {
        let Some((at, reply)) = &part.ended else { continue };
        if *reply != Reply::Left && at.passed != part.began.passed {
            return broken(
                "a batch of fresh and stale keys at once",
                format!("{} after {} ns", answer(reply), at.passed - part.began.passed),
                "a refresh that the callers of a batch wait for",
            );
        }
    }
    Ok(())
}
