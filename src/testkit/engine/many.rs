//! Batches, as they are driven: a batch is written down as its single calls, all of them at once, so that every law of
//! single calls holds it to its word.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;

use crate::cache::{Answers, Computed};
use crate::runtime::Runtime;
use crate::testkit::engine::case::{Act, Odd, Plan, SECOND, Work};
use crate::testkit::engine::drive::{ComputeMany, Running, World, guarded};
use crate::testkit::engine::stack::Name;
use crate::testkit::engine::trace::{Broke, End, Given, Log, Producer, Reply, Request, Run, Told, Trace};
use crate::testkit::yield_now;

impl World {
    pub(super) async fn batch(self: &Arc<Self>, task: usize, act: Act, singles: &[Act], leaves: u8) {
        let values: Vec<_> = singles
            .iter()
            .map(|single| if matches!(single, Act::Set(..)) { self.log.fresh_value() } else { 0 })
            .collect();
        let first = self.log.write(|trace, began| {
            let first = trace.requests.len();
            for (&act, &value) in singles.iter().zip(&values) {
                if matches!(act, Act::Set(..)) {
                    trace.producers.insert(value, Producer::Set(trace.requests.len()));
                }
                trace.requests.push(Request { task, act, began, ended: None, value, batch: Some(first) });
            }
            first
        });
        let replies = guarded(leaves, Arc::clone(self).act_many(first, act, values)).await;
        self.log.write(|trace, moment| {
            let replies = match replies {
                Ok(replies) => replies,
                Err(Reply::Panicked) => panicked(trace, first, singles.len()),
                Err(why) => vec![why; singles.len()],
            };
            let replies = replies.into_iter().map(Some).chain(std::iter::repeat(None));
            for (request, reply) in trace.requests[first..first + singles.len()].iter_mut().zip(replies) {
                request.ended = reply.map(|reply| (moment, reply));
            }
        });
    }

    async fn act_many(self: Arc<Self>, first: usize, act: Act, values: Vec<u64>) -> Vec<Reply> {
        // Nobody to ask, and nothing that was promised.
        let Some(engine) = self.engine.lock().clone() else { return vec![Reply::Left; values.len()] };
        let names = |keys: crate::testkit::engine::case::Keys| keys.each().map(Name).collect::<Vec<_>>();
        match act {
            Act::AskMany(keys, plan, odd) => {
                let compute = self.computation_of_many(first, names(keys), plan, odd);
                engine.ask_many(names(keys), compute).await.into_iter().map(Reply::valued).collect()
            }
            Act::GetMany(keys) => engine.get_many(names(keys)).await.into_iter().map(Reply::found).collect(),
            Act::SetMany(keys, own) => {
                let entries = values.into_iter().map(|value| own.say(Computed::new(value)));
                let entries = names(keys).into_iter().zip(entries).collect();
                engine.set_many(entries).await.into_iter().map(Reply::set).collect()
            }
            Act::RemoveMany(keys) => {
                engine.remove_many(names(keys)).await.into_iter().map(Reply::done).collect()
            }
            _ => Vec::new(),
        }
    }

    fn computation_of_many(&self, first: usize, asked: Vec<Name>, plan: Plan, odd: Odd) -> ComputeMany {
        let (log, runtime) = (self.log.clone(), self.runtime.clone());
        // A computation of many keys is not given what is held.
        let work = if plan.work == Work::Unchanged { Work::Answer } else { plan.work };
        let plan = Plan { work, ..plan };
        Arc::new(move |keys| {
            let (log, runtime) = (log.clone(), runtime.clone());
            let mut parts = begin(&log, first, &asked, &keys, plan, odd);
            Box::pin(async move {
                // The engine polls what it bounds twice at first, so that one yield alone would interleave nothing.
                for _ in 0..if plan.yields == 0 { 0 } else { plan.yields + 1 } {
                    yield_now().await;
                }
                if plan.takes > 0
                    && let Some(sleep) = runtime.sleep(SECOND * u32::from(plan.takes))
                {
                    sleep.await;
                }
                let end = match plan.work {
                    Work::Hang => pending().await,
                    Work::Fail => End::Failed,
                    Work::Panic => End::Panicked,
                    Work::Answer | Work::Unchanged | Work::Forget => End::Answered,
                };
                for part in &mut parts {
                    part.running.end = end;
                }
                match end {
                    End::Failed => return Err(Broke(parts.first().map_or(0, |part| part.value))),
                    // Past the panic hook, which would print a trace for each of thousands of schedules.
                    End::Panicked => resume_unwind(Box::new("boom")),
                    _ => {}
                }
                let mut answers = Answers::new();
                for part in &mut parts {
                    match part.work {
                        Work::Forget => part.running.end = End::Forgot,
                        Work::Fail => {
                            answers.fail(part.key, Broke(part.value));
                            part.running.end = End::Failed;
                        }
                        _ => answers.insert(part.key, plan.own.say(Computed::new(part.value))),
                    }
                }
                if odd == Odd::Extra
                    && let Some(other) = Name::ALL.into_iter().find(|name| !keys.contains(name))
                {
                    answers.insert(other, log.fresh_value());
                    log.write(|trace, _| trace.unasked += 1);
                }
                Ok(answers)
            })
        })
    }
}

/// One key of a computation that runs.
struct Part {
    key: Name,
    value: u64,
    work: Work,
    running: Running,
}

/// Writes down the beginning of a computation: a run a key.
fn begin(log: &Log, first: usize, asked: &[Name], keys: &[Name], plan: Plan, odd: Odd) -> Vec<Part> {
    let number = log.write(|trace, _| {
        trace.together.push((first, keys.to_vec()));
        trace.together.len() - 1
    });
    let part = |(at, &key): (usize, &Name)| {
        let last = at + 1 == keys.len();
        let work = match (odd, plan.work) {
            (Odd::Forgets, Work::Answer) if last => Work::Forget,
            (Odd::Fails, Work::Answer) if last => Work::Fail,
            (_, work) => work,
        };
        let (value, by) = (log.fresh_value(), first + asked.iter().position(|of| *of == key).unwrap_or(0));
        let run = log.write(|trace, began| {
            let started = |told: &&Told| told.key == Some(key) && told.name.ends_with("Started");
            let latest = trace.events.iter().rev().find(started);
            let refresh = latest.is_some_and(|told| told.name == "RefreshStarted");
            let (plan, given, together) = (Plan { work, ..plan }, Given::NotAsked, Some(number));
            trace.runs.push(Run { value, key, by, plan, given, began, ended: None, refresh, together });
            trace.producers.insert(value, Producer::Run(trace.runs.len() - 1));
            trace.runs.len() - 1
        });
        Part { key, value, work, running: Running { log: log.clone(), run, end: End::Dropped } }
    };
    keys.iter().enumerate().map(part).collect()
}

/// A panic of a batch is that of the parts whose computation panicked, if there are any. The others have lost their
/// caller.
fn panicked(trace: &Trace, first: usize, parts: usize) -> Vec<Reply> {
    let own = |refresh: bool| {
        move |at: usize| {
            trace
                .runs
                .iter()
                .any(|run| run.by == at && run.end() == Some(End::Panicked) && run.refresh == refresh)
        }
    };
    let all = first..first + parts;
    for refresh in [false, true] {
        if all.clone().any(own(refresh)) {
            let reply = |at| if own(refresh)(at) { Reply::Panicked } else { Reply::Left };
            return all.map(reply).collect();
        }
    }
    vec![Reply::Panicked; parts]
}
