//! What happened in one run, in one order: requests, computations, calls of the store, events.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::cache::policy::Policy;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::SetOutcome;
use crate::sync::Mutex;
use crate::testkit::engine::case::{Act, Plan};
use crate::testkit::engine::stack::Name;
use crate::time::{Clock, ManualClock, Timestamp};

/// A point in the order of a run, and what the clocks said there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) tick: u64,
    /// The wall clock.
    pub(crate) now: Timestamp,
    /// Nanoseconds that really passed, whatever the wall clock did.
    pub(crate) passed: i128,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) task: usize,
    pub(crate) act: Act,
    pub(crate) began: Moment,
    pub(crate) ended: Option<(Moment, Reply)>,
    /// What the value that it sets is.
    pub(crate) value: u64,
    /// The batch that it is a part of, by the number of its first part.
    pub(crate) batch: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Value(u64),
    Nothing,
    Done,
    Refused,
    /// The kind, what was being done, and which computation it names.
    Failed(ErrorKind, Operation, Option<u64>),
    Panicked,
    /// The caller went away, or there was no handle left to ask.
    Left,
    /// Computations that ended and that were cut off.
    Drained(usize, usize),
}

impl Reply {
    pub(crate) fn failed(error: &Error) -> Self {
        let named = error.source_as::<Broke>().map(|broke| broke.0);
        Self::Failed(error.kind(), error.operation(), named)
    }

    pub(crate) fn valued(answer: Result<u64>) -> Self {
        answer.map_or_else(|error| Self::failed(&error), Self::Value)
    }

    pub(crate) fn found(answer: Result<Option<u64>>) -> Self {
        answer.map_or_else(|error| Self::failed(&error), |found| found.map_or(Self::Nothing, Self::Value))
    }

    pub(crate) fn set(answer: Result<SetOutcome>) -> Self {
        match answer {
            Ok(SetOutcome::Stored) => Self::Done,
            Ok(SetOutcome::Refused(_)) => Self::Refused,
            Err(error) => Self::failed(&error),
        }
    }

    pub(crate) fn done(answer: Result<()>) -> Self {
        answer.map_or_else(|error| Self::failed(&error), |()| Self::Done)
    }
}

/// The error of a computation: it names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broke(pub(crate) u64);

impl std::fmt::Display for Broke {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "computation {} failed", self.0)
    }
}

impl std::error::Error for Broke {}

/// What a computation was given, if it was asked for in a way that gives it anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    NotAsked,
    Nothing,
    Held(u64),
}

/// A computation. Its value was never used before.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) value: u64,
    pub(crate) key: Name,
    pub(crate) by: usize,
    pub(crate) plan: Plan,
    pub(crate) given: Given,
    pub(crate) began: Moment,
    pub(crate) ended: Option<(Moment, End)>,
    /// It began behind a stale entry.
    pub(crate) refresh: bool,
    /// The computation of a batch that it is a part of.
    pub(crate) together: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    /// The computation of a batch said nothing of the key.
    Forgot,
    Unchanged,
    Failed,
    Panicked,
    Dropped,
}

#[derive(Clone, Debug)]
pub(crate) struct Called {
    /// The bulk call that it is a part of.
    pub(crate) bulk: Option<usize>,
    pub(crate) operation: Operation,
    pub(crate) key: Option<Name>,
    /// What was written, or found.
    pub(crate) entry: Option<Entry<u64>>,
    pub(crate) began: Moment,
    pub(crate) ended: Option<(Moment, Outcome)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Refused,
    Failed,
}

impl Outcome {
    pub(crate) fn of<T>(result: &Result<T>) -> Self {
        if result.is_ok() { Self::Ok } else { Self::Failed }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Peeked {
    pub(crate) at: Moment,
    pub(crate) key: Name,
    pub(crate) entry: Option<Entry<u64>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: Moment,
    pub(crate) key: Option<Name>,
    pub(crate) name: &'static str,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Producer {
    Planted(Name),
    Run(usize),
    Set(usize),
}

/// What is held after a step of a single caller, key by key: in the deepest tier, and whether the tier above it
/// has it too.
pub(crate) type Snapshot = Vec<(Option<Entry<u64>>, bool)>;

/// The whole run.
#[expect(clippy::struct_excessive_bools, reason = "each says something else")]
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) policy: Policy,
    /// Whether time may pass while somebody is runnable.
    pub(crate) races: bool,
    /// Errors are remembered of computations with an even number only.
    pub(crate) only_even: bool,
    pub(crate) requests: Vec<Request>,
    pub(crate) runs: Vec<Run>,
    pub(crate) calls: Vec<Called>,
    pub(crate) peeks: Vec<Peeked>,
    pub(crate) events: Vec<Told>,
    pub(crate) producers: HashMap<u64, Producer>,
    pub(crate) planted: Vec<(Name, Entry<u64>, bool)>,
    /// Where the wall clock stood, at every point at which anything happened.
    pub(crate) moments: Vec<Moment>,
    /// After each step, in a run of one task over tiers that can be looked into.
    pub(crate) snapshots: Vec<Snapshot>,
    /// The first request of each of those steps. A batch is a step of several requests, or of none.
    pub(crate) firsts: Vec<usize>,
    /// What each computation of a batch was asked for: the batch, the keys.
    pub(crate) together: Vec<(usize, Vec<Name>)>,
    /// How many of them answered for a key besides.
    pub(crate) unasked: usize,
    /// Where each of those steps was over, with all that it left behind.
    pub(crate) rests: Vec<u64>,
    /// Requests that nobody would have woken.
    pub(crate) stuck: Vec<usize>,
    /// The run used up its polls.
    pub(crate) spun: bool,
    /// Tasks that were left behind, and what panicked in them.
    pub(crate) leaked: Vec<String>,
    pub(crate) panics: Vec<String>,
    pub(crate) idle: bool,
    /// What a read of the stack answered at the very end.
    pub(crate) last: Vec<Option<u64>>,
    pub(crate) end: Moment,
}

/// Where a run is written down as it goes.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Pages>>);

struct Pages {
    clock: ManualClock,
    tick: u64,
    jumped: i128,
    trace: Trace,
    next_value: u64,
}

impl Log {
    pub(crate) fn new(clock: ManualClock, policy: Policy) -> Self {
        let end = Moment { tick: 0, now: clock.now(), passed: 0 };
        let trace = Trace {
            policy,
            races: false,
            only_even: false,
            requests: Vec::new(),
            runs: Vec::new(),
            calls: Vec::new(),
            peeks: Vec::new(),
            events: Vec::new(),
            producers: HashMap::new(),
            planted: Vec::new(),
            moments: Vec::new(),
            snapshots: Vec::new(),
            firsts: Vec::new(),
            together: Vec::new(),
            unasked: 0,
            rests: Vec::new(),
            stuck: Vec::new(),
            spun: false,
            leaked: Vec::new(),
            panics: Vec::new(),
            idle: true,
            last: Vec::new(),
            end,
        };
        Self(Arc::new(Mutex::new(Pages { clock, tick: 0, jumped: 0, trace, next_value: 1 })))
    }

    pub(crate) fn write<R>(&self, write: impl FnOnce(&mut Trace, Moment) -> R) -> R {
        let mut pages = self.0.lock();
        let moment = pages.moment();
        write(&mut pages.trace, moment)
    }

    pub(crate) fn take(&self) -> Trace {
        let mut pages = self.0.lock();
        pages.trace.end = pages.moment();
        pages.trace.clone()
    }

    pub(crate) fn fresh_value(&self) -> u64 {
        let mut pages = self.0.lock();
        pages.next_value += 1;
        pages.next_value
    }

    /// The wall clock jumps, and no time passes.
    pub(crate) fn jump(&self, back: bool, by: std::time::Duration) {
        let mut pages = self.0.lock();
        pages.moment();
        let before = pages.clock.now();
        let after = if back { before.saturating_sub(by) } else { before.saturating_add(by) };
        pages.clock.set(after);
        pages.jumped += i128::from(after.as_nanos()) - i128::from(before.as_nanos());
        pages.moment();
    }

    pub(crate) fn call(&self, operation: Operation, key: Option<Name>, entry: Option<Entry<u64>>) -> usize {
        self.write(|trace, began| {
            trace.calls.push(Called { bulk: None, operation, key, entry, began, ended: None });
            trace.calls.len() - 1
        })
    }

    /// One call for all of these. Answers the numbers of their parts.
    pub(crate) fn call_many(
        &self,
        operation: Operation,
        parts: impl Iterator<Item = (Name, Option<Entry<u64>>)>,
    ) -> std::ops::Range<usize> {
        self.write(|trace, began| {
            let first = trace.calls.len();
            trace.calls.extend(parts.map(|(key, entry)| Called {
                bulk: Some(first),
                operation,
                key: Some(key),
                entry,
                began,
                ended: None,
            }));
            first..trace.calls.len()
        })
    }

    pub(crate) fn end_call(&self, call: usize, found: Option<Entry<u64>>, outcome: Outcome) {
        self.write(|trace, moment| {
            let call = &mut trace.calls[call];
            if found.is_some() {
                call.entry = found;
            }
            call.ended = Some((moment, outcome));
        });
    }

    pub(crate) fn peek(&self, key: Name, entry: Option<Entry<u64>>) {
        self.write(|trace, at| trace.peeks.push(Peeked { at, key, entry }));
    }

    /// The entry of `key` that was written last.
    pub(crate) fn last_life(&self, key: u8) -> Option<Lifetime> {
        let pages = self.0.lock();
        let of_key = |call: &&Called| call.operation == Operation::Set && call.key == Some(Name(key));
        let set = pages.trace.calls.iter().rev().find(of_key).and_then(|call| call.entry.clone());
        let planted = || pages.trace.planted.iter().rev().find(|(name, ..)| name.0 == key);
        set.or_else(|| planted().map(|(_, entry, _)| entry.clone())).map(|entry| entry.lifetime())
    }
}

impl Pages {
    fn moment(&mut self) -> Moment {
        self.tick += 1;
        let now = self.clock.now();
        let moment = Moment { tick: self.tick, now, passed: i128::from(now.as_nanos()) - self.jumped };
        self.trace.moments.push(moment);
        moment
    }
}

impl Request {
    pub(crate) fn key(&self) -> Option<Name> {
        self.act.key().map(Name)
    }

    pub(crate) fn is_ask(&self) -> bool {
        matches!(self.act, Act::Ask(..))
    }

    pub(crate) fn reply(&self) -> Option<&Reply> {
        self.ended.as_ref().map(|(_, reply)| reply)
    }

    /// Whether it writes `key`, whatever becomes of it.
    pub(crate) fn writes(&self, key: Name) -> bool {
        match self.act {
            Act::Clear => true,
            Act::Set(of, _) | Act::Remove(of) => of == key.0,
            _ => false,
        }
    }

    /// When a write was acknowledged.
    pub(crate) fn acknowledged(&self) -> Option<Moment> {
        self.ended.as_ref().filter(|(_, reply)| *reply == Reply::Done).map(|(at, _)| *at)
    }

    pub(crate) fn end_tick(&self) -> u64 {
        self.ended.as_ref().map_or(u64::MAX, |(at, _)| at.tick)
    }
}

impl Run {
    pub(crate) fn end_tick(&self) -> u64 {
        self.ended.map_or(u64::MAX, |(at, _)| at.tick)
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.ended.map(|(_, end)| end)
    }
}

impl Trace {
    /// Every life that `value` was ever stored with, or was planted with.
    pub(crate) fn lives(&self, value: u64) -> Vec<Lifetime> {
        let stored = self.calls.iter().filter(|call| call.operation == Operation::Set);
        let stored = stored.filter_map(|call| call.entry.as_ref());
        let planted = self.planted.iter().map(|(_, entry, _)| entry);
        let of_value = |entry: &&Entry<u64>| *entry.value() == value;
        planted.chain(stored).filter(of_value).map(Entry::lifetime).collect()
    }

    /// When the shutdown or the drop of the handle began, if any.
    pub(crate) fn closing(&self) -> Option<Moment> {
        let closes = |request: &&Request| matches!(request.act, Act::Shutdown(_) | Act::DropHandle);
        self.requests.iter().find(closes).map(|request| request.began)
    }

    /// One line an event, one column a task.
    pub(crate) fn timeline(&self) -> String {
        let tasks = self.requests.iter().map(|request| request.task + 1).max().unwrap_or(1);
        let mut lines: Vec<(u64, Timestamp, usize, String)> = Vec::new();
        for (key, entry, everywhere) in &self.planted {
            let life = entry.lifetime();
            let place = if *everywhere { "" } else { " below" };
            let text = format!("held{place}: {key} = {}, {}", entry.value(), Self::life(life));
            lines.push((0, Self::start(), 0, text));
        }
        for request in &self.requests {
            let text = describe(request);
            let began = request.began;
            match &request.ended {
                Some((at, reply))
                    if at.tick == began.tick + 1 || at.now == began.now && self.quiet(began, *at) =>
                {
                    lines.push((began.tick, began.now, request.task, format!("{text} -> {}", answer(reply))));
                }
                Some((at, reply)) => {
                    lines.push((began.tick, began.now, request.task, format!("{text} ..")));
                    lines.push((at.tick, at.now, request.task, format!(".. {text} -> {}", answer(reply))));
                }
                None => lines.push((began.tick, began.now, request.task, format!("{text} .. (no end)"))),
            }
        }
        for run in &self.runs {
            let task = self.requests[run.by].task;
            let what = if run.refresh { "refreshes" } else { "computes" };
            lines.push((
                run.began.tick,
                run.began.now,
                task,
                format!("  {what} {} = {}", run.key, run.value),
            ));
            if let Some((at, end)) = run.ended {
                lines.push((
                    at.tick,
                    at.now,
                    task,
                    format!("  {} {}", run.value, format!("{end:?}").to_lowercase()),
                ));
            }
        }
        for call in self.calls.iter().filter(|call| call.operation == Operation::Set) {
            if let (Some(key), Some(entry)) = (call.key, &call.entry) {
                let text = format!("  store: {key} = {}, {}", entry.value(), Self::life(entry.lifetime()));
                lines.push((call.began.tick, call.began.now, tasks, text));
            }
        }
        lines.sort_by_key(|(tick, ..)| *tick);
        let mut out = String::new();
        for (_, now, task, text) in lines {
            let _ =
                writeln!(out, "{:>16}  {}{text}", Self::when(now), "|                         ".repeat(task));
        }
        out
    }

    fn start() -> Timestamp {
        Timestamp::from_nanos(START)
    }

    /// An instant as seconds since the beginning.
    fn when(at: Timestamp) -> String {
        if at.is_never() {
            return "never".to_owned();
        }
        let nanos = i128::from(at.as_nanos()) - i128::from(Self::start().as_nanos());
        let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
        match rest {
            0 => format!("{seconds} s"),
            1..=1_000 => format!("{seconds} s + {rest} ns"),
            _ if rest >= 999_999_000 => format!("{} s - {} ns", seconds + 1, 1_000_000_000 - rest),
            _ => format!("{seconds}.{rest:09} s"),
        }
    }

    pub(crate) fn life(life: Lifetime) -> String {
        format!(
            "of {}, fresh to {}, stale to {}, kept to {}",
            Self::when(life.created_at()),
            Self::when(life.fresh_until()),
            Self::when(life.stale_until()),
            Self::when(life.keep_until())
        )
    }

    /// Whether nothing worth a line happened in between.
    fn quiet(&self, from: Moment, to: Moment) -> bool {
        let within = |at: Moment| from.tick < at.tick && at.tick < to.tick;
        let runs =
            self.runs.iter().any(|run| within(run.began) || run.ended.is_some_and(|(at, _)| within(at)));
        let others = |request: &Request| {
            within(request.began) || request.ended.as_ref().is_some_and(|(at, _)| within(*at))
        };
        !runs && !self.requests.iter().any(others)
    }
}

/// Where the clocks stand at the beginning.
pub(crate) const START: u64 = 1_000_000_000_000_000;

fn describe(request: &Request) -> String {
    let batch = request.batch.map(|batch| format!("batch {batch}: ")).unwrap_or_default();
    batch + &describe_act(request)
}

fn describe_act(request: &Request) -> String {
    let own = |own: crate::testkit::engine::case::Own| {
        if own == crate::testkit::engine::case::Own::default() { String::new() } else { format!(", {own:?}") }
    };
    match request.act {
        Act::Ask(key, plan) => {
            let work = format!("{:?}", plan.work).to_lowercase();
            let takes = if plan.takes > 0 { format!(" after {} s", plan.takes) } else { String::new() };
            let patience =
                if plan.patience > 0 { format!(", patience {}", plan.patience) } else { String::new() };
            format!("get_or_compute({}, {work}{takes}{}{patience})", Name(key), own(plan.own))
        }
        // In the trace each is its parts.
        Act::AskMany(..) | Act::GetMany(_) | Act::SetMany(..) | Act::RemoveMany(_) => String::new(),
        Act::Get(key) => format!("get({})", Name(key)),
        Act::Peek(key) => format!("peek({})", Name(key)),
        Act::Set(key, terms) => format!("set({}, {}{})", Name(key), request.value, own(terms)),
        Act::Remove(key) => format!("remove({})", Name(key)),
        Act::Clear => "clear()".to_owned(),
        Act::Wait(until) => format!("wait({until:?})"),
        Act::Jump(back, far) => format!("the clock jumps {}({far})", if back { "back" } else { "ahead" }),
        Act::Down(tier) => format!("tier {tier} down"),
        Act::Up(tier) => format!("tier {tier} up"),
        Act::Fault(tier, call, nth, trouble) => format!("tier {tier}: {call:?} {nth} meets {trouble:?}"),
        Act::SlowReads(seconds) => format!("reads take {seconds} s"),
        Act::Shutdown(seconds) => format!("shutdown({seconds} s)"),
        Act::DropHandle => "the last handle is dropped".to_owned(),
    }
}

pub(crate) fn answer(reply: &Reply) -> String {
    match reply {
        Reply::Value(value) => value.to_string(),
        Reply::Nothing => "nothing".to_owned(),
        Reply::Done => "done".to_owned(),
        Reply::Refused => "refused".to_owned(),
        Reply::Failed(kind, operation, named) => {
            let named = named.map(|value| format!(" of computation {value}")).unwrap_or_default();
            format!("an error ({kind:?} in {operation:?}{named})")
        }
        Reply::Panicked => "a panic".to_owned(),
        Reply::Left => "the caller went away".to_owned(),
        Reply::Drained(drained, aborted) => format!("{drained} drained, {aborted} cut off"),
    }
}
