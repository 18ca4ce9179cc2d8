//! What is refreshed before its time, and how often: E18, E19.

use std::time::Duration;

use super::{Verdict, broken, faulty, hangs, has, judge, run_overlaps, written_between};
use crate::cache::ahead::Rule;
use crate::cache::budget::Rate;
use crate::cache::computed::Ttl;
use crate::cache::policy::{Jitter, Policy};
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::Operation;
use crate::testkit::engine::case::{Act, Own};
use crate::testkit::engine::trace::{Peeked, Producer, Reply, Request, Run, Trace, answer};
use crate::time::Timestamp;

/// How long before the end of a life of this length an entry becomes due, where a fraction decides.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded"
)]
pub(crate) fn lead(policy: &Policy, length: Duration) -> Option<Duration> {
    let Some(Rule::Fraction(fraction)) = policy.ahead else { return None };
    let length = match policy.ttl {
        Ttl::For(ttl) => length.min(ttl),
        Ttl::Never => length,
    };
    Some(Duration::from_nanos((length.as_nanos() as f64 * (1.0 - fraction.told())).round() as u64))
}

/// The last instant at which an entry of this life is not due, where a fraction decides; `None` if it never is.
pub(crate) fn last_not_due(policy: &Policy, life: Lifetime) -> Option<Timestamp> {
    let until = life.fresh_until();
    let lead = lead(policy, until.since(life.created_at()))?;
    (!until.is_never()).then(|| until.saturating_sub(lead))
}

/// How many refreshes may begin in a span of this length, both ends included.
pub(crate) fn allowed(rate: Rate, span: Duration) -> u64 {
    let interval = (1e9 / rate.per_second()).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
    let between = span.as_nanos() / (interval as u128).max(1);
    u64::try_from(between).unwrap_or(u64::MAX).saturating_add(rate.burst())
}

pub(crate) fn e18(trace: &Trace) -> Verdict {
    let Some(rule) = trace.policy.ahead.filter(|_| !trace.policy.bypass) else { return Ok(()) };
    if has(trace, |act| matches!(act, Act::Jump(..))) {
        return Ok(());
    }
    at_once(trace)?;
    only_what_is_due(trace, rule)?;
    all_that_is_due(trace)
}

/// Whoever finds a fresh entry at once is answered with it at once.
fn at_once(trace: &Trace) -> Verdict {
    for (request, look) in looks(trace) {
        let Some(entry) = &look.entry else { continue };
        if judge(&trace.policy, entry.lifetime(), look.at.now) != Freshness::Fresh {
            continue;
        }
        let (reply, late) = match &request.ended {
            Some((_, Reply::Left)) => continue,
            Some((at, reply)) => (answer(reply), at.passed - request.began.passed),
            None => ("no end".to_owned(), i128::MAX),
        };
        if late != 0 || !matches!(request.reply(), Some(Reply::Value(_))) {
            return broken(
                format!("{} at once: it is fresh", entry.value()),
                format!("{reply}, {late} ns later"),
                "an early refresh that its caller, or one beside it, waits for",
            );
        }
    }
    Ok(())
}

/// A refresh stands behind something stale, or something that is due.
fn only_what_is_due(trace: &Trace, rule: Rule) -> Verdict {
    let dearest =
        trace.runs.iter().filter_map(|run| run.ended.map(|(at, _)| at.passed - run.began.passed)).max();
    let due = |life: Lifetime, now: Timestamp| match rule {
        Rule::Fraction(_) => last_not_due(&trace.policy, life).is_some_and(|last| now > last),
        Rule::Cost(beta) => {
            #[expect(clippy::cast_precision_loss, reason = "compared with room")]
            let (dearest, left) =
                (dearest.unwrap_or(0).max(1_000) as f64, life.fresh_until().since(now).as_nanos() as f64);
            !life.fresh_until().is_never() && left <= dearest * beta * 37.0
        }
    };
    for run in trace.runs.iter().filter(|run| run.refresh) {
        let window = trace.requests[run.by].began.tick..=run.began.tick;
        let moments = || trace.moments.iter().filter(|moment| window.contains(&moment.tick));
        let good = |life: Lifetime| {
            moments().any(|moment| match judge(&trace.policy, life, moment.now) {
                Freshness::Fresh => due(life, moment.now),
                Freshness::Stale => true,
                _ => false,
            })
        };
        let peeked = trace.peeks.iter().filter(|peek| peek.key == run.key && window.contains(&peek.at.tick));
        let read = trace.calls.iter().filter(|call| {
            call.operation == Operation::Get && call.key == Some(run.key) && window.contains(&call.began.tick)
        });
        let seen =
            peeked.filter_map(|peek| peek.entry.as_ref()).chain(read.filter_map(|call| call.entry.as_ref()));
        if !seen.map(Entry::lifetime).any(good) {
            return broken(
                format!("no refresh of {}: nothing stale and nothing due was found", run.key),
                format!("{} began", run.value),
                "an entry that is due too soon: at birth, or a tick early",
            );
        }
    }
    Ok(())
}

/// Whoever finds an entry that is due starts a refresh, unless there is one, or was within the last second.
fn all_that_is_due(trace: &Trace) -> Verdict {
    let slow = has(trace, |act| matches!(act, Act::SlowReads(_) | Act::Jump(..)));
    if slow || has(trace, faulty) || trace.closing().is_some() {
        return Ok(());
    }
    for (request, look) in looks(trace) {
        let (Some(entry), Some((at, Reply::Value(_)))) = (&look.entry, &request.ended) else { continue };
        let (key, life, now) = (look.key, entry.lifetime(), look.at.now);
        let fresh = judge(&trace.policy, life, now) == Freshness::Fresh;
        // One that a refresh has found instead of computing is left alone until then, to 65,536 ns.
        let found = trace.calls.iter().any(|call| {
            let found = call.entry.as_ref().map(Entry::lifetime);
            call.operation == Operation::Get && call.key == Some(key) && found == Some(life)
        });
        let room = Duration::from_nanos(if found { 65_536 } else { 0 });
        let due =
            fresh && last_not_due(&trace.policy, life).is_some_and(|last| now > last.saturating_add(room));
        // A copy with a cap is due with its original; what would be due at birth is due later.
        let capped = !trace.lives(*entry.value()).contains(&life);
        let own = matches!(trace.producers.get(entry.value()), Some(Producer::Run(run)) if trace.runs[*run].plan.own != Own::default())
            || trace.policy.jitter != Jitter::default();
        if !due || capped || own {
            continue;
        }
        let lately = at.passed.min(look.at.passed) - 1_000_065_536;
        let same_hash = |name: Option<crate::testkit::Name>| name.is_some_and(|name| name.0 / 2 == key.0 / 2);
        let tried = trace.calls.iter().any(|call| {
            let then = lately <= call.began.passed && call.began.passed <= at.passed;
            call.operation == Operation::Get && same_hash(call.key) && then
        });
        let beside = trace.runs.iter().any(|run: &Run| run.key == key && run_overlaps(run, request));
        let skipped = trace.events.iter().any(|told| {
            told.key == Some(key) && told.name == "RefreshSkipped" && told.at.tick > request.began.tick
        });
        if !tried
            && !beside
            && !skipped
            && !written_between(trace, key, request.began.tick, request.end_tick())
        {
            return broken(
                format!("a refresh behind {}: it is due", entry.value()),
                "nobody refreshes",
                "an entry that is never due, or a tick late",
            );
        }
    }
    Ok(())
}

/// The first look of each caller at a tier that answers at once.
fn looks(trace: &Trace) -> impl Iterator<Item = (&Request, &Peeked)> {
    trace.requests.iter().filter(|request| request.is_ask()).filter_map(|request| {
        let look = trace
            .peeks
            .iter()
            .find(|peek| peek.at.tick == request.began.tick + 1 && Some(peek.key) == request.key())?;
        Some((request, look))
    })
}

pub(crate) fn e19(trace: &Trace) -> Verdict {
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
    }
    // What may not begin is told.
    all_that_is_due(trace)?;
    // A refresh has begun before it looks into the slower tiers: how long that takes is not the budget's.
    let slow = has(trace, |act| matches!(act, Act::SlowReads(_))) || hangs(trace);
    let Some(rate) = trace.policy.refreshes.filter(|_| !slow) else { return Ok(()) };
    let jumps =
        trace.requests.iter().filter(|request| matches!(request.act, Act::Jump(false, _))).count() as u64;
    for (index, first) in refreshes.iter().enumerate() {
        for (more, last) in refreshes.iter().skip(index).enumerate() {
            let nanos = u64::try_from(last.began.passed - first.began.passed).unwrap_or(0);
            let most = allowed(rate, Duration::from_nanos(nanos)) + jumps * rate.burst();
            if more as u64 + 1 > most {
                return broken(
                    format!("at most {most} refreshes begin within {nanos} ns"),
                    format!("{} began", more + 1),
                    "a rate without its burst's bound, or a refresh that asks nobody",
                );
            }
        }
    }
    Ok(())
}
