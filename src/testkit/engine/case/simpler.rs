//! How a case shrinks: fewer steps, plainer settings, simpler forms of a step.

use super::{
    Act, EngineCase, Keys, Knobs, Odd, Own, Plan, Planted, Step, Trouble, Under, Until, Work, Writes,
};
use crate::testkit::runner::Case;

impl Case for EngineCase {
    fn simpler(&self) -> Vec<Self> {
        let mut out = Vec::new();
        self.without_tasks(&mut out);
        self.plainer(&mut out);
        out.retain(|case| case != self);
        out
    }

    fn steps(&self) -> usize {
        self.tasks.iter().map(Vec::len).sum::<usize>() + self.planted.len()
    }
}

impl EngineCase {
    fn without_tasks(&self, out: &mut Vec<Self>) {
        for task in 0..self.tasks.len() {
            if self.tasks.len() > 1 {
                let mut case = self.clone();
                case.tasks.remove(task);
                out.push(case);
            }
            let half = self.tasks[task].len() / 2;
            if half > 0 {
                for keep in [0..half, half..self.tasks[task].len()] {
                    let mut case = self.clone();
                    case.tasks[task] = case.tasks[task][keep].to_vec();
                    out.push(case);
                }
            }
            for at in 0..self.tasks[task].len() {
                let mut case = self.clone();
                case.tasks[task].remove(at);
                out.push(case);
            }
        }
        for at in 0..self.planted.len() {
            let mut case = self.clone();
            case.planted.remove(at);
            out.push(case);
        }
        // Two steps that only make sense together: a fault and its end, a jump and the way back.
        for task in 0..self.tasks.len() {
            let len = self.tasks[task].len();
            for (one, other) in (0..len).flat_map(|one| (one + 1..len).map(move |other| (one, other))) {
                let mut case = self.clone();
                case.tasks[task].remove(other);
                case.tasks[task].remove(one);
                out.push(case);
            }
        }
    }

    fn plainer(&self, out: &mut Vec<Self>) {
        let knobs = self.knobs;
        let plainer = [
            Knobs { ttl: 0, ..knobs },
            Knobs { stale: 0, ..knobs },
            Knobs { stale: knobs.stale.min(1), ..knobs },
            Knobs { keep: 0, ..knobs },
            Knobs { keep: knobs.keep.min(1), ..knobs },
            Knobs { strict: false, ..knobs },
            Knobs { bypass: false, ..knobs },
            Knobs { jitter: false, ..knobs },
            Knobs { negative: 0, ..knobs },
            Knobs { errors: 0, ..knobs },
            Knobs { patience: 0, ..knobs },
            Knobs { limit: 0, ..knobs },
            Knobs { one_refresh: false, ..knobs },
            Knobs { ahead: 0, ..knobs },
            Knobs { ahead: knobs.ahead.min(1), ..knobs },
            Knobs { rate: 0, ..knobs },
        ];
        out.extend(plainer.map(|knobs| Self { knobs, ..self.clone() }));
        if self.races {
            out.push(Self { races: false, ..self.clone() });
        }
        if self.writes != Writes::AtOnce {
            out.push(Self { writes: Writes::AtOnce, ..self.clone() });
        }
        if self.under != Under::Memory {
            out.push(Self { under: Under::Memory, ..self.clone() });
        }
        if !self.choices.is_empty() {
            out.push(Self { choices: Vec::new(), ..self.clone() });
            out.push(Self { choices: self.choices[..self.choices.len() / 2].to_vec(), ..self.clone() });
            out.push(Self { choices: self.choices[..self.choices.len() - 1].to_vec(), ..self.clone() });
            for at in 0..self.choices.len() {
                for smaller in [0, self.choices[at] / 2] {
                    let mut case = self.clone();
                    case.choices[at] = smaller;
                    out.push(case);
                }
            }
        }
        for (task, steps) in self.tasks.iter().enumerate() {
            for (at, step) in steps.iter().enumerate() {
                let forms = simpler_forms(*step);
                out.extend(forms.into_iter().map(|form| self.with_step(task, at, form)));
            }
        }
        for at in 0..self.planted.len() {
            let planted = self.planted[at];
            let plain = [
                Planted { ahead: 0, ..planted },
                Planted { key: 0, ..planted },
                Planted { keep: 0, ..planted },
                Planted { above: true, ..planted },
            ];
            out.extend(plain.map(|planted| {
                let mut case = self.clone();
                case.planted[at] = planted;
                case
            }));
        }
    }

    fn with_step(&self, task: usize, at: usize, step: Step) -> Self {
        let mut case = self.clone();
        case.tasks[task][at] = step;
        case
    }
}

/// The same step with less to it.
fn simpler_forms(step: Step) -> Vec<Step> {
    let mut out = Vec::new();
    let mut push = |act| out.push(Step { act, ..step });
    match step.act {
        Act::Ask(key, plan) => {
            let plans = [
                Plan { own: Own::default(), ..plan },
                Plan { own: Own { extras: false, ..plan.own }, ..plan },
                Plan { own: Own { ttl: 0, ..plan.own }, ..plan },
                Plan { own: Own { absent: false, ..plan.own }, ..plan },
                Plan { patience: 0, ..plan },
                Plan { own: Own { stale: 0, ..plan.own }, ..plan },
                Plan { own: Own { keep: 0, ..plan.own }, ..plan },
                Plan { takes: 0, ..plan },
                Plan { takes: plan.takes.min(1), ..plan },
                Plan { yields: 0, ..plan },
                Plan { yields: plan.yields.saturating_sub(1), ..plan },
                Plan { work: Work::Answer, ..plan },
                Plan { way: 0, ..plan },
            ];
            for plan in plans {
                push(Act::Ask(key, plan));
            }
            push(Act::Ask(0, plan));
        }
        Act::AskMany(keys, plan, odd) => {
            let plans = [
                Plan { own: Own::default(), ..plan },
                Plan { takes: 0, ..plan },
                Plan { yields: 0, ..plan },
                Plan { work: Work::Answer, ..plan },
            ];
            for plan in plans {
                push(Act::AskMany(keys, plan, odd));
            }
            for keys in keys.simpler() {
                push(Act::AskMany(keys, plan, odd));
            }
            push(Act::AskMany(keys, plan, Odd::Even));
            push(Act::Ask(keys.list[0], plan));
        }
        Act::SetMany(keys, own) => {
            push(Act::SetMany(keys, Own::default()));
            for keys in keys.simpler() {
                push(Act::SetMany(keys, own));
            }
            push(Act::Set(keys.list[0], own));
        }
        Act::GetMany(keys) => {
            keys.simpler().into_iter().for_each(|keys| push(Act::GetMany(keys)));
            push(Act::Get(keys.list[0]));
        }
        Act::RemoveMany(keys) => {
            keys.simpler().into_iter().for_each(|keys| push(Act::RemoveMany(keys)));
            push(Act::Remove(keys.list[0]));
        }
        Act::Set(key, own) => {
            push(Act::Set(0, own));
            push(Act::Set(key, Own::default()));
        }
        Act::Get(_) => push(Act::Get(0)),
        Act::Peek(_) => push(Act::Peek(0)),
        Act::Remove(_) => push(Act::Remove(0)),
        Act::Wait(_) => {
            push(Act::Wait(Until::Tick));
            push(Act::Wait(Until::Seconds(1)));
        }
        Act::Fault(tier, call, nth, _) if nth > 0 => push(Act::Fault(tier, call, 0, Trouble::Before)),
        _ => {}
    }
    if step.leaves > 0 {
        out.push(Step { leaves: 0, ..step });
        out.push(Step { leaves: step.leaves - 1, ..step });
    }
    out.retain(|form| *form != step);
    out
}

impl Keys {
    fn simpler(self) -> [Self; 4] {
        let [_, second, third, fourth] = self.list;
        let fewer = self.count.saturating_sub(1);
        [
            Self { count: fewer, ..self },
            Self { list: [second, third, fourth, 0], count: fewer },
            Self { count: self.count.min(2), ..self },
            Self { list: self.list.map(|key| key.min(1)), ..self },
        ]
    }
}
