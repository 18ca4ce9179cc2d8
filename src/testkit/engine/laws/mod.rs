//! The laws of the engine over what happened, whoever ran it: each says what it finds wrong, if anything.

mod batches;
mod early;
mod flights;
mod served;
mod store;
mod trouble;

use crate::cache::computed::Keep;
use crate::cache::policy::Policy;
use crate::entry::{Freshness, Lifetime};
use crate::error::Operation;
use crate::testkit::engine::case::{Act, Work};
use crate::testkit::engine::drive::overlaps;
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{End, Outcome, Reply, Request, Run, Trace};
use crate::time::Timestamp;

pub(crate) use batches::{batched, e15};
pub(crate) use early::{allowed, e18, e19, last_not_due, lead};
pub(crate) use flights::{e3, e5, e6, e7, e9, nothing_is_left};
pub(crate) use served::{e1, e2, e8, e12};
pub(crate) use store::{e4, e10, e11, e13, e14};
pub(crate) use trouble::{e16, e17, e20, e21, lasts, remembered_until};

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

/// What an entry is good for, by the words of the laws and not by the code that is judged (E1, E2, E8, E12).
pub(crate) fn judge(policy: &Policy, life: Lifetime, now: Timestamp) -> Freshness {
    let freshness = by_age(life, now);
    let ahead = life.created_at() > now.saturating_add(policy.skew) && !life.fresh_until().is_never();
    if ahead { freshness.max(Freshness::Expired) } else { freshness }
}

/// Each deadline belongs to the time before it.
pub(crate) fn by_age(life: Lifetime, now: Timestamp) -> Freshness {
    match [life.fresh_until(), life.stale_until(), life.keep_until()].iter().position(|&until| now <= until) {
        Some(0) => Freshness::Fresh,
        Some(1) => Freshness::Stale,
        Some(_) => Freshness::Expired,
        None => Freshness::Dead,
    }
}

/// Whether an entry may stand in for a computation that failed (E8).
pub(crate) fn serves_on_error(policy: &Policy, life: Lifetime, now: Timestamp) -> bool {
    match judge(policy, life, now) {
        Freshness::Fresh | Freshness::Stale => true,
        Freshness::Expired => policy.keep != Keep::No || by_age(life, now) == Freshness::Expired,
        Freshness::Dead => false,
    }
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
    within(trace, request).any(|now| judge(&trace.policy, life, now) <= most)
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

/// Whether something else counts as a computation that failed while the caller waited: an error that is remembered
/// (E17), a load that was turned away (E21), patience that was lost (E20).
fn stands_in(trace: &Trace, key: Name, request: &Request) -> bool {
    let told = trace.events.iter().any(|told| {
        let (from, to) = (request.began.tick, request.end_tick());
        let queued = told.name == "LoadFailed" && trace.policy.trouble.limit.is_some();
        let failed = matches!(told.name, "ErrorRemembered" | "LoadRejected") || queued;
        told.key == Some(key) && failed && (from..=to).contains(&told.at.tick)
    });
    told || trouble::softened(trace, request)
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
