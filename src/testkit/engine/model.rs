//! The engine over a store that loses nothing, for one caller at a time: what `docs/semantics.md` says, as code
//! that predicts every answer, every computation, every event and what is stored.

mod behind;
mod many;
mod trouble;

use std::collections::HashMap;
use std::time::Duration;

use crate::entry::{Entry, Freshness};
use crate::error::{ErrorKind, Operation};
use crate::testkit::engine::case::{Act, Call, EngineCase, Plan, SECOND, Trouble, Under, Work};
use crate::testkit::engine::compare::Clause;
use crate::testkit::engine::early::Early;
use crate::testkit::engine::laws::{by_age, judge, serves_on_error};
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{Reply, Request, Trace};
use crate::time::Timestamp;

/// What a step must come to.
pub(crate) struct Expected {
    pub(crate) clause: Clause,
    pub(crate) reply: Reply,
    /// Whether it computes.
    pub(crate) computes: bool,
    /// What its computation is given.
    pub(crate) given: Option<u64>,
}

/// A refresh that runs on behind the steps.
struct Behind {
    key: u8,
    run: usize,
    due: i128,
    in_time: bool,
    held: Entry<u64>,
    fenced: bool,
    /// A load whose caller lost patience.
    load: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct World<'a> {
    trace: &'a Trace,
    under: Under,
    now: Timestamp,
    pub(crate) passed: i128,
    pub(crate) held: Vec<Option<Entry<u64>>>,
    pub(crate) above: Vec<bool>,
    behind: Vec<Behind>,
    early: Early,
    pub(crate) events: Vec<&'static str>,
    closed: bool,
    gone: bool,
    slow: Duration,
    /// Two things had their time at the same instant: their order is the schedule's.
    pub(crate) tie: bool,
    down: bool,
    /// Within a batch: whether the time was paid that its computation takes.
    paid: Option<bool>,
    calls: HashMap<Operation, u64>,
    planned: HashMap<(Operation, u64), Trouble>,
    errors: HashMap<u8, trouble::Memory>,
}

/// `None` where the model cannot say: a step that it does not know, a tie between two deadlines.
pub(crate) type Known<T> = Option<T>;

impl<'a> World<'a> {
    pub(crate) fn new(case: &EngineCase, trace: &'a Trace) -> Self {
        let mut held = vec![None; 3];
        let mut above = vec![case.under == Under::Memory; 3];
        for (key, entry, everywhere) in &trace.planted {
            held[usize::from(key.0)] = Some(entry.clone());
            above[usize::from(key.0)] |= *everywhere && case.under == Under::Chain;
        }
        let (now, passed) = trace
            .requests
            .first()
            .map_or((Timestamp::EPOCH, 0), |request| (request.began.now, request.began.passed));
        Self {
            trace,
            under: case.under,
            now,
            passed,
            held,
            above,
            behind: Vec::new(),
            early: Early::new(&trace.policy),
            events: Vec::new(),
            closed: false,
            gone: false,
            slow: Duration::ZERO,
            tie: false,
            down: false,
            paid: None,
            calls: HashMap::new(),
            planned: HashMap::new(),
            errors: HashMap::new(),
        }
    }

    fn judge(&self, entry: &Entry<u64>) -> Freshness {
        judge(&self.trace.policy, entry.lifetime(), self.now)
    }

    /// What the store shows without waiting.
    fn shown(&self, key: u8) -> Option<Entry<u64>> {
        let shows = self.under != Under::Remote && self.above[usize::from(key)] && !self.down;
        self.held[usize::from(key)].clone().filter(|_| shows)
    }

    /// A call of the store: whether it takes effect, and whether it says so.
    fn call(&mut self, operation: Operation) -> (bool, Result<(), ()>, bool) {
        let count = self.calls.entry(operation).or_default();
        let trouble = self.planned.get(&(operation, *count)).copied();
        *count += 1;
        match trouble {
            _ if self.down => (false, Err(()), false),
            Some(Trouble::Before) => (false, Err(()), false),
            Some(Trouble::After) => (true, Err(()), false),
            Some(Trouble::Refuse) => (true, Ok(()), operation == Operation::Set),
            _ => (true, Ok(()), false),
        }
    }

    fn read(&mut self, key: u8) -> Result<Option<Entry<u64>>, ()> {
        let (_, answer, _) = self.call(Operation::Get);
        let held = self.held[usize::from(key)].clone();
        // No time, no landing: the refreshes that a batch begins run side by side, however short they are.
        if !self.slow.is_zero() {
            self.pass(self.slow);
        }
        answer.map(|()| held)
    }

    /// Time passes, and the refreshes whose time has come land on the way.
    pub(crate) fn pass(&mut self, by: Duration) {
        let end = self.passed + i128::try_from(by.as_nanos()).unwrap_or(0);
        while let Some(next) = (0..self.behind.len()).min_by_key(|&at| self.behind[at].due) {
            if self.behind[next].due > end {
                break;
            }
            let landing = self.behind.remove(next);
            self.tie |= !by.is_zero() && landing.due == end;
            self.to(landing.due.max(self.passed));
            self.land(&landing);
        }
        self.to(end);
    }

    fn to(&mut self, passed: i128) {
        let by = u64::try_from(passed - self.passed).unwrap_or(0);
        self.now = self.now.saturating_add(Duration::from_nanos(by));
        self.passed = passed;
    }

    /// The result of a computation goes to the store, unless a write overtook it. Whether that failed, and whether
    /// it was taken.
    fn store(&mut self, key: u8, value: u64, run: usize, fenced: bool) -> (bool, bool) {
        if fenced {
            self.events.push("Overtaken");
            return (false, true);
        }
        let (effect, answer, refused) = self.call(Operation::Set);
        if effect {
            // Its instants are the matter of E13, which looks at every write.
            let written = self.written(key, value, run);
            if let Some(entry) = &written {
                self.early.born(key, entry.lifetime(), self.now);
            }
            self.held[usize::from(key)] = if refused { None } else { written };
        }
        match answer {
            Ok(()) if refused => self.events.push("Refused"),
            Ok(()) => {}
            Err(()) => self.events.push("StoreFailed"),
        }
        (answer.is_err(), answer.is_ok() && !refused)
    }

    /// What was written of this value after the computation had ended.
    fn written(&self, key: u8, value: u64, run: usize) -> Option<Entry<u64>> {
        let end = self.trace.runs[run].end_tick();
        let mut calls =
            self.trace.calls.iter().filter(|call| call.operation == Operation::Set && call.began.tick > end);
        let call = calls.find(|call| {
            call.key == Some(Name(key)) && call.entry.as_ref().is_some_and(|entry| *entry.value() == value)
        });
        call.and_then(|call| call.entry.clone())
            .or_else(|| Some(Entry::fresh_for(value, self.now, Duration::ZERO)))
    }

    pub(crate) fn step(&mut self, step: usize, request: &Request) -> Known<Expected> {
        let loading = self.behind.iter().any(|behind| behind.load);
        // A load that runs on makes others wait, for it or for its place.
        let waits = match request.act {
            Act::Wait(_) | Act::Peek(_) | Act::Set(..) | Act::Remove(_) => false,
            Act::Ask(key, _) => !self.is_unhindered(key),
            _ => true,
        };
        if loading && waits {
            return None;
        }
        let simply = |clause, reply| Some(Expected { clause, reply, computes: false, given: None });
        match request.act {
            Act::Wait(_) => {
                // How long it waits is the case's; what lands meanwhile is the model's.
                let end = request.ended.as_ref()?.0.passed;
                self.pass(Duration::from_nanos(u64::try_from(end - self.passed).ok()?));
            }
            Act::Jump(..) => self.now = request.ended.as_ref()?.0.now,
            Act::SlowReads(seconds) => {
                self.slow = SECOND * u32::from(seconds);
                if self.slow >= self.trace.policy.load_timeout {
                    return None;
                }
            }
            // Played by its parts.
            Act::AskMany(..) | Act::GetMany(_) | Act::SetMany(..) | Act::RemoveMany(_) => return None,
            Act::Down(_) | Act::Up(_) | Act::Fault(..) if self.under == Under::Chain => return None,
            Act::Down(_) => self.down = true,
            Act::Up(_) => self.down = false,
            Act::Fault(_, call, nth, trouble) => {
                let operation = call.operation();
                let at = self.calls.get(&operation).copied().unwrap_or(0) + u64::from(nth);
                self.planned.insert((operation, at), trouble);
            }
            Act::DropHandle => {
                self.gone = true;
                self.behind.drain(..).for_each(|_| self.events.push("RefreshFailed"));
            }
            _ if self.gone => return simply(Clause::E9, Reply::Left),
            Act::Shutdown(seconds) => return self.shut_down(seconds),
            Act::Peek(key) => {
                let fresh = self.fresh_at_once(key);
                return simply(self.reads(), fresh.map_or(Reply::Nothing, Reply::Value));
            }
            Act::Get(key) => {
                let reply = self.get(key);
                let clause = if matches!(reply, Reply::Failed(..)) { Clause::E11 } else { self.reads() };
                return simply(clause, reply);
            }
            Act::Ask(key, plan) => return self.ask(step, key, plan),
            Act::Set(..) | Act::Remove(_) | Act::Clear => {
                let reply = self.write(request);
                let clause = match reply {
                    Reply::Failed(..) => Clause::E11,
                    _ if self.trace.policy.bypass => Clause::E10,
                    _ => Clause::E4,
                };
                return simply(clause, reply);
            }
        }
        simply(Clause::E5, Reply::Done)
    }

    fn reads(&self) -> Clause {
        if self.trace.policy.bypass { Clause::E10 } else { Clause::E1 }
    }

    fn fresh_at_once(&mut self, key: u8) -> Option<u64> {
        let entry = self.shown(key).filter(|_| !self.trace.policy.bypass)?;
        (self.judge(&entry) == Freshness::Fresh).then(|| {
            self.events.push("Hit");
            *entry.value()
        })
    }

    fn get(&mut self, key: u8) -> Reply {
        if self.trace.policy.bypass {
            return Reply::Nothing;
        }
        if let Some(value) = self.fresh_at_once(key) {
            return Reply::Value(value);
        }
        let Ok(found) = self.read(key) else {
            self.events.push("StoreFailed");
            return Reply::Failed(ErrorKind::Unavailable, Operation::Get, None);
        };
        let fresh = found.filter(|entry| self.judge(entry) == Freshness::Fresh);
        self.events.push(if fresh.is_some() { "Hit" } else { "Miss" });
        fresh.map_or(Reply::Nothing, |entry| Reply::Value(*entry.value()))
    }

    fn write(&mut self, request: &Request) -> Reply {
        if self.trace.policy.bypass {
            return if matches!(request.act, Act::Set(..)) { Reply::Refused } else { Reply::Done };
        }
        self.errors.retain(|key, _| !request.writes(Name(*key)));
        self.behind
            .iter_mut()
            .filter(|refresh| request.writes(Name(refresh.key)))
            .for_each(|refresh| refresh.fenced = true);
        let (call, event) = match request.act {
            Act::Set(..) => (Call::Set, "Set"),
            Act::Remove(_) => (Call::Remove, "Removed"),
            _ => (Call::Clear, "Cleared"),
        };
        let (effect, answer, refused) = self.call(call.operation());
        for key in (0..3).filter(|key| effect && request.writes(Name(*key))) {
            let entry = self
                .trace
                .calls
                .iter()
                .find_map(|call| call.entry.as_ref().filter(|entry| *entry.value() == request.value));
            let entry = entry.filter(|_| call == Call::Set && !refused).cloned();
            self.held[usize::from(key)] = entry;
        }
        let (event, reply) = match answer {
            Ok(()) if refused => ("Refused", Reply::Refused),
            Ok(()) => (event, Reply::Done),
            Err(()) => ("StoreFailed", Reply::Failed(ErrorKind::Unavailable, call.operation(), None)),
        };
        self.events.push(event);
        reply
    }

    fn shut_down(&mut self, seconds: u8) -> Known<Expected> {
        let (before, end) = (self.behind.len(), self.passed + i128::from(seconds) * 1_000_000_000);
        if self.behind.iter().any(|refresh| refresh.due == end) {
            return None;
        }
        let last = self.behind.iter().map(|refresh| refresh.due).max().unwrap_or(self.passed).min(end);
        self.pass(Duration::from_nanos(u64::try_from(last - self.passed).ok()?));
        let aborted = self.behind.len();
        self.behind.drain(..).for_each(|_| self.events.push("RefreshFailed"));
        self.closed = true;
        let (_, flushed, _) = self.call(Operation::Flush);
        let failed = Reply::Failed(ErrorKind::Unavailable, Operation::Flush, None);
        let reply = flushed.map_or(failed, |()| Reply::Drained(before - aborted, aborted));
        Some(Expected { clause: Clause::E9, reply, computes: false, given: None })
    }

    fn ask(&mut self, step: usize, key: u8, plan: Plan) -> Known<Expected> {
        let run = self.trace.runs.iter().position(|run| run.by == step);
        let hit = |clause, value| {
            Some(Expected { clause, reply: Reply::Value(value), computes: false, given: None })
        };
        if self.trace.policy.bypass {
            self.pass(SECOND * u32::from(plan.takes));
            let (clause, reply, computes) = (Clause::E10, self.outcome(plan, run, None), true);
            return Some(Expected { clause, reply, computes, given: None });
        }
        let shown = self.shown(key);
        let beside = self.behind.iter().any(|refresh| refresh.key == key && !refresh.fenced);
        if let Some(value) = self.fresh_at_once(key) {
            let due = shown.filter(|entry| !self.closed && self.early.wants(key, entry.lifetime(), self.now));
            return match due.filter(|_| !beside) {
                Some(entry) => self.renew_early(key, &entry, plan, run),
                None => hit(if self.early.is_on() { Clause::E18 } else { Clause::E1 }, value),
            };
        }
        let refresh = self.behind.iter().position(|refresh| refresh.key == key && !refresh.fenced);
        let shown = shown.filter(|entry| self.judge(entry) == Freshness::Stale);
        if let Some(refresh) = refresh {
            return self.beside(refresh, shown.map(|entry| *entry.value()));
        }
        if self.closed {
            return Some(self.after_the_end(key));
        }
        if let Some(shown) = shown {
            self.events.push("StaleHit");
            let computes = self.renew(key, &shown, plan, run)?;
            let given = computes.then_some(*shown.value());
            let skipped = self.events.contains(&"RefreshSkipped");
            return Some(Expected {
                clause: if skipped { Clause::E19 } else { Clause::E2 },
                reply: Reply::Value(*shown.value()),
                computes,
                given,
            });
        }
        let read = self.read(key);
        if read.is_err() {
            self.events.push("StoreFailed");
            if self.trace.policy.strict {
                let reply = Reply::Failed(ErrorKind::Unavailable, Operation::Get, None);
                return Some(Expected { clause: Clause::E11, reply, computes: false, given: None });
            }
        }
        let held = read.ok().flatten();
        match held.as_ref().map(|entry| self.judge(entry)) {
            Some(Freshness::Fresh) => {
                self.events.push("Hit");
                let held = held?;
                if !self.early.wants(key, held.lifetime(), self.now) {
                    return hit(Clause::E1, *held.value());
                }
                let expected = self.renew_early(key, &held, plan, run)?;
                Some(self.or_landed(step, run, expected))
            }
            Some(Freshness::Stale) => {
                self.events.push("StaleHit");
                let held = held?;
                let computes = self.permit()? && self.refresh(key, held.clone(), plan, run);
                let given = computes.then_some(*held.value());
                let reply = Reply::Value(*held.value());
                let clause = if computes { Clause::E2 } else { Clause::E19 };
                Some(self.or_landed(step, run, Expected { clause, reply, computes, given }))
            }
            _ => {
                let held = held.filter(|entry| by_age(entry.lifetime(), self.now) != Freshness::Dead);
                self.load(key, held, plan, run)
            }
        }
    }

    /// After a shutdown hits are served, and nothing is computed.
    fn after_the_end(&mut self, key: u8) -> Expected {
        let found = self.read(key).ok().flatten().filter(|entry| self.judge(entry) <= Freshness::Stale);
        let reply = match found {
            Some(entry) => {
                let fresh = self.judge(&entry) == Freshness::Fresh;
                self.events.push(if fresh { "Hit" } else { "StaleHit" });
                Reply::Value(*entry.value())
            }
            None => Reply::Failed(ErrorKind::ShutDown, Operation::Compute, None),
        };
        Expected { clause: Clause::E9, reply, computes: false, given: None }
    }

    fn load(&mut self, key: u8, held: Option<Entry<u64>>, plan: Plan, run: Option<usize>) -> Known<Expected> {
        self.events.push("Miss");
        if let Some(error) = self.remembered(key) {
            self.events.push("ErrorRemembered");
            let held = held.filter(|entry| self.stands_in(entry));
            let reply = held.as_ref().map_or(error, |entry| Reply::Value(*entry.value()));
            self.events.extend(held.map(|_| "StaleOnError"));
            return Some(Expected { clause: Clause::E17, reply, computes: false, given: None });
        }
        self.events.push("LoadStarted");
        let given = held.as_ref().map(|entry| *entry.value());
        let (takes, in_time) = bounded(plan, self.trace.policy.load_timeout);
        if self.paid != Some(true) {
            if let Some(expected) = self.impatient(key, held.as_ref(), plan, run, (takes, in_time)) {
                return expected;
            }
            self.pass(takes);
            self.paid = self.paid.map(|_| true);
        }
        let expected = |clause, reply| Some(Expected { clause, reply, computes: true, given });
        let outcome = if in_time {
            self.outcome(plan, run, given)
        } else {
            Reply::Failed(ErrorKind::Timeout, Operation::Compute, None)
        };
        match outcome {
            Reply::Value(value) => {
                self.events.push("LoadSucceeded");
                self.errors.remove(&key);
                let (failed, stored) = run.map_or((false, true), |run| self.store(key, value, run, false));
                if failed && self.trace.policy.strict {
                    return expected(
                        Clause::E11,
                        Reply::Failed(ErrorKind::Unavailable, Operation::Set, None),
                    );
                }
                expected(if stored { Clause::E3 } else { Clause::E11 }, Reply::Value(value))
            }
            Reply::Panicked => {
                self.events.push("LoadPanicked");
                expected(Clause::E7, Reply::Panicked)
            }
            error => {
                self.events.push("LoadFailed");
                let stands_in = |entry: &Entry<u64>| {
                    // What is absent is an answer, and no failure.
                    plan.work != Work::Forget
                        && serves_on_error(&self.trace.policy, entry.lifetime(), self.now)
                };
                let held = held.filter(stands_in);
                if plan.work != Work::Forget {
                    self.remember(key, &error);
                }
                match held {
                    Some(entry) => {
                        self.events.push("StaleOnError");
                        expected(Clause::E8, Reply::Value(*entry.value()))
                    }
                    None => expected(if in_time { Clause::E6 } else { Clause::E5 }, error),
                }
            }
        }
    }

    /// What a computation that ends in time comes to.
    fn outcome(&self, plan: Plan, run: Option<usize>, given: Option<u64>) -> Reply {
        let value = run.map_or(0, |run| self.trace.runs[run].value);
        match plan.work {
            Work::Answer => Reply::Value(value),
            Work::Panic => Reply::Panicked,
            Work::Unchanged => {
                given.map_or(Reply::Failed(ErrorKind::InvalidInput, Operation::Compute, None), Reply::Value)
            }
            Work::Forget => Reply::Failed(ErrorKind::NotFound, Operation::Compute, None),
            Work::Fail | Work::Hang => Reply::Failed(ErrorKind::Computation, Operation::Compute, Some(value)),
        }
    }
}

/// How long a computation runs, and whether it ends by itself.
fn bounded(plan: Plan, limit: Duration) -> (Duration, bool) {
    let takes = SECOND * u32::from(plan.takes);
    if plan.work == Work::Hang || takes > limit { (limit, false) } else { (takes, true) }
}
