//! A batch as its single calls, in an order that a batch may have: what is shown at once, what a slower tier holds, what
//! is computed. All that is computed takes its time together.

use std::collections::HashMap;

use super::{Expected, Known, World};
use crate::entry::Freshness;
use crate::testkit::engine::case::{Act, Work};
use crate::testkit::engine::compare::Clause;
use crate::testkit::engine::trace::{End, Reply, Request};

impl World<'_> {
    /// What each part must come to.
    pub(crate) fn batch(&mut self, first: usize, parts: &[Request]) -> Known<Vec<Expected>> {
        let calls = |operation| self.calls.get(operation).copied().unwrap_or(0);
        let faults = self.planned.keys().any(|(operation, at)| *at >= calls(operation));
        // Which part of a bulk call meets a fault is the store's to say.
        if self.trace.policy.bypass || self.down || faults || !self.slow.is_zero() {
            return None;
        }
        let mut order: Vec<_> = (0..parts.len()).collect();
        let turns: Vec<_> = parts.iter().map(|part| self.turn(part.act)).collect();
        order.sort_by_key(|&at| turns[at]);
        // Who waits for a slow key sees of the others what has become of them meanwhile.
        let computes = turns.contains(&2);
        let shown: Vec<_> = (0..3)
            .map(|key| self.shown(key).map(|entry| self.judge(&entry)).filter(|f| *f <= Freshness::Stale))
            .collect();
        let mut firsts: HashMap<u8, usize> = HashMap::new();
        let mut expected: Vec<Option<Expected>> = parts.iter().map(|_| None).collect();
        self.paid = Some(false);
        self.early.batch(true);
        for at in order {
            let part = &parts[at];
            let played = match part.act {
                Act::Ask(..) if self.gone || self.closed => self.step(first + at, part),
                Act::Ask(key, _) if firsts.contains_key(&key) => self.again(
                    &parts[firsts[&key]],
                    part,
                    expected[firsts[&key]].as_ref()?,
                    shown[usize::from(key)],
                ),
                Act::Ask(key, plan) => {
                    firsts.insert(key, at);
                    let run = self.trace.runs.iter().find(|run| run.by == first + at);
                    let plan = run.map_or(plan, |run| run.plan);
                    let mut played = self.ask(first + at, key, plan)?;
                    if let (Some(run), Reply::Failed(_, _, Some(named))) = (run, &mut played.reply) {
                        // The error of a computation that failed as a whole is that of all its keys.
                        let mut all = self.trace.runs.iter().filter(|other| other.together == run.together);
                        let whole = all.clone().all(|other| other.plan.work == Work::Fail);
                        *named = all.next().filter(|_| whole).unwrap_or(run).value;
                    }
                    if run.is_some() && self.has_landed(part) {
                        played.reply = part.reply()?.clone();
                    }
                    Some(played)
                }
                // Only the last value of a key is written.
                Act::Set(key, _) if parts[at + 1..].iter().any(|later| later.act.key() == Some(key)) => {
                    let reply = if self.gone { Reply::Left } else { Reply::Done };
                    Some(Expected { clause: Clause::E4, reply, computes: false, given: None })
                }
                _ => self.step(first + at, part),
            };
            let waits = |key: u8| computes && turns[at] < 2 && shown[usize::from(key)].is_none();
            let played = played?;
            if matches!(part.act, Act::Ask(key, _) if waits(key)) && part.reply() != Some(&played.reply) {
                return None;
            }
            expected[at] = Some(played);
        }
        self.paid = None;
        self.early.batch(false);
        let mut expected: Vec<_> = expected.into_iter().collect::<Option<_>>()?;
        // A batch that panics answers nothing; the panic is written down where it came from.
        if expected.iter().any(|played| played.reply == Reply::Panicked) {
            let lost = expected.iter_mut().zip(parts).filter(|(_, part)| part.reply() == Some(&Reply::Left));
            lost.for_each(|(played, _)| played.reply = Reply::Left);
        }
        Some(expected)
    }

    /// When its turn comes among the parts of a batch.
    fn turn(&self, act: Act) -> u8 {
        let Act::Ask(key, _) = act else { return 0 };
        let good = |entry: &crate::entry::Entry<u64>| self.judge(entry) <= Freshness::Stale;
        let refreshing = self.behind.iter().any(|refresh| refresh.key == key && !refresh.fenced);
        if refreshing || self.shown(key).as_ref().is_some_and(good) {
            0
        } else if self.held[usize::from(key)].as_ref().is_some_and(good) {
            1
        } else {
            2
        }
    }

    /// Whether it was answered with a refresh that has landed while the batch waited for other keys.
    fn has_landed(&self, part: &Request) -> bool {
        self.trace.runs.iter().any(|run| {
            Some(run.key) == part.key()
                && run.refresh
                && run.end() == Some(End::Answered)
                && run.end_tick() > part.began.tick
                && part.reply() == Some(&Reply::Value(run.value))
        })
    }

    /// A key that was there before in the same batch: it has the outcome of that, or what has landed since.
    fn again(
        &mut self,
        before: &Request,
        part: &Request,
        earlier: &Expected,
        shown: Option<Freshness>,
    ) -> Known<Expected> {
        self.events.push(match shown {
            Some(Freshness::Fresh) => "Hit",
            Some(_) => "StaleHit",
            None => "Joined",
        });
        let stands = self.has_landed(part) || part.reply() == before.reply();
        let reply = if stands { part.reply()?.clone() } else { earlier.reply.clone() };
        Some(Expected { clause: earlier.clause, reply, computes: false, given: None })
    }
}
