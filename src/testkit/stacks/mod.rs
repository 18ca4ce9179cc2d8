//! Random stacks: whatever stores and adapters a stack is made of, the laws hold (D2).

mod equations;
pub(crate) mod plan;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::store::Store;
use crate::testkit::engine::{EngineCase, Floor, judge_over, wild};
use crate::testkit::history::Loss;
use crate::testkit::race::{self, Blame, Ground, World, race_clock, scheduled};
use crate::testkit::report::{LawReport, Report};
use crate::testkit::runner::{Case, Finding, LawName, Settings, knobs, run};
use crate::testkit::script::{Dice, block};
use crate::time::Clock;
use plan::{NEIGHBOUR, Neighbours, lossless_stack};

pub use plan::{StackPlan, stacks};

/// How deep a stack is drawn, in levels.
const DEPTH: u32 = 6;

/// Draws stacks of every tier, adapter and handle of this crate, up to six levels deep, and judges them: each by
/// the laws of a store, raced, failing, cancelled; and compositions by the equations that hold between them.
///
/// ```
/// larder::testkit::check_stacks().cases(8).run().assert();
/// ```
pub fn check_stacks() -> StackCheck {
    StackCheck { settings: Settings::new("stacks") }
}

/// See [`check_stacks`].
#[derive(Debug)]
#[must_use = "nothing is checked until it runs"]
pub struct StackCheck {
    settings: Settings,
}

impl StackCheck {
    knobs!();

    /// Runs every law.
    pub fn run(self) -> Report {
        let equations = equations::equations();
        let laws = HISTORIES.into_iter().chain(equations.iter().map(|equation| equation.law));
        self.settings.know(&laws.collect::<Vec<_>>());
        let mut rows = Vec::new();
        for law in HISTORIES {
            let run = || match law.name {
                REGISTER => register(&self.settings, law),
                REMOVES => tidy(&self.settings, law, removes_what_it_is_told_to),
                ENGINE_LOSSLESS => engine(&self.settings, law, false),
                ENGINE_ANY => engine(&self.settings, law, true),
                PEEKS => tidy(&self.settings, law, peeks_what_it_would_answer),
                _ => tidy(&self.settings, law, counts_what_it_holds),
            };
            rows.extend(row(&self.settings, law, run));
        }
        for equation in equations {
            rows.extend(row(&self.settings, equation.law, || equation.run(&self.settings)));
        }
        Report::new(self.settings.name, rows, Vec::new())
    }

    /// Runs every law, and panics with the report if one is broken.
    #[track_caller]
    pub fn assert(self) {
        self.run().assert();
    }
}

/// The row of a law, if it is wanted: skipped, or run.
pub(crate) fn row(settings: &Settings, law: LawName, run: impl FnOnce() -> LawReport) -> Option<LawReport> {
    settings.wants(law).then(|| settings.skipped(law).unwrap_or_else(run))
}

const REGISTER: &str = "s3_any_stack_is_a_register";
const REMOVES: &str = "s5_any_stack_removes_what_it_is_told_to_and_nothing_else";
const PEEKS: &str = "s9_any_stack_peeks_only_what_it_would_answer";
const COUNTS: &str = "s10_any_stack_counts_what_it_holds";

const ENGINE_LOSSLESS: &str = "e_the_engine_over_any_stack_that_forgets_nothing";
const ENGINE_ANY: &str = "e_the_engine_over_any_stack";

const HISTORIES: [LawName; 6] = [
    LawName { name: REGISTER, why: "a stack that goes back serves what its user has replaced or removed" },
    LawName { name: REMOVES, why: "what was removed is served, or what was not is gone" },
    LawName { name: PEEKS, why: "the engine peeks first, and would serve what a read does not know" },
    LawName { name: COUNTS, why: "dashboards and bounds go by what a store says it holds" },
    LawName { name: ENGINE_LOSSLESS, why: "the promises of the engine must not depend on what is under it" },
    LawName { name: ENGINE_ANY, why: "the promises of the engine must not depend on what is under it" },
];

/// The judgement of a history over any stack.
const ANY_STACK: Blame = Blame {
    loss: Loss::Misses,
    expected: "what was written last, or nothing: never something older, never something that nobody wrote",
    cause: "a copy in some tier that outlived the write or removal of its key: look at the order of the writes, \
            and at what is remembered of those that failed",
};

fn register(settings: &Settings, law: LawName) -> LawReport {
    run(
        settings,
        law,
        || race::wild_races(stacks(DEPTH), 4).boxed(),
        |race| {
            let clock = race_clock();
            let (stack, faults) = race.over.build(&clock);
            scheduled(race, &World::new(stack, faults, clock, |number| number), ANY_STACK)
        },
    )
}

/// A cache with random settings over a random stack, and everything that happens to the two.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cached {
    over: StackPlan,
    case: EngineCase,
}

impl Case for Cached {
    fn simpler(&self) -> Vec<Self> {
        let over = self.over.simpler().into_iter().map(|over| Self { over, ..self.clone() });
        let case = self.case.simpler().into_iter().map(|case| Self { case, ..self.clone() });
        over.chain(case).collect()
    }

    fn steps(&self) -> usize {
        self.case.steps()
    }
}

/// Laws E1 to E14 and K, over any stack (E4, E5, E11 above all: they lean on what is below).
fn engine(settings: &Settings, law: LawName, forgets: bool) -> LawReport {
    let over = move || {
        if forgets {
            stacks(DEPTH).boxed()
        } else {
            any::<u64>().prop_map(|seed| lossless_stack(&mut Dice::new(seed), 4)).boxed()
        }
    };
    run(
        settings,
        law,
        move || (over(), wild()).prop_map(|(over, case)| Cached { over, case }).boxed(),
        move |cached: &Cached| {
            // The stack's own clock stands still: caps only shorten, and the engine judges by its own.
            let (store, faults) = cached.over.build(&race_clock());
            let floor = Floor { store, faults, leaves: Vec::new() };
            judge_over(&cached.case, floor, forgets).map_err(|broken| {
                let (law, finding) = *broken;
                let timeline = format!("over {:?}\n{}", cached.over, finding.timeline);
                Finding { timeline, got: format!("{} ({})", finding.got, law.name), ..finding }
            })
        },
    )
}

/// Keys that are parts of each other and of the prefixes of plans.
const NAMES: [&str; 6] = ["", "k", "kk", "p", "p:", "p:k"];

/// Writes, then a look at everything, by one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tidy<G> {
    over: G,
    written: Vec<u8>,
    victim: u8,
}

impl<G: Ground> Case for Tidy<G> {
    fn simpler(&self) -> Vec<Self> {
        let fewer = (0..self.written.len()).map(|place| {
            let mut written = self.written.clone();
            written.remove(place);
            Self { written, ..self.clone() }
        });
        let over = self.over.simpler().into_iter().map(|over| Self { over, ..self.clone() });
        fewer.chain(over).collect()
    }

    fn steps(&self) -> usize {
        self.written.len() + 1
    }
}

/// The stack of a case with what was written, and what it holds of each name.
struct Tidied {
    stack: crate::dynamic::BoxStore<str, u64>,
    neighbours: Neighbours,
    lines: Vec<String>,
}

impl Tidied {
    fn new(case: &Tidy<StackPlan>) -> Self {
        let (clock, neighbours) = (race_clock(), Neighbours::default());
        let (stack, _) = case.over.build_beside(&clock, &neighbours);
        let mut lines = vec![format!("over {:?}", case.over)];
        for (number, name) in (0..).zip(&case.written) {
            let name = NAMES[usize::from(*name) % NAMES.len()];
            let outcome = block(stack.set(name, race::lasting(number, number, clock.now())));
            lines.push(format!("set {name:?} to {number}: {outcome:?}"));
        }
        Self { stack, neighbours, lines }
    }

    fn read(&self, name: &str) -> Option<Entry<u64>> {
        block(self.stack.get(name)).and_then(Result::ok).flatten()
    }

    fn broken(mut self, what: String, expected: &str, got: String, cause: &str) -> Finding {
        self.lines.push(what);
        let timeline = self.lines.join("\n");
        Finding { timeline, expected: expected.to_owned(), got, cause: cause.to_owned() }
    }
}

fn tidy(
    settings: &Settings,
    law: LawName,
    judge: impl Fn(&Tidy<StackPlan>) -> Result<(), Finding> + Send + Sync + 'static,
) -> LawReport {
    let cases = || {
        let names = 0..u8::try_from(NAMES.len()).unwrap_or(u8::MAX);
        (stacks(DEPTH), proptest::collection::vec(names.clone(), 0..6), names)
            .prop_map(|(over, written, victim)| Tidy { over, written, victim })
            .boxed()
    };
    run(settings, law, cases, judge)
}

fn removes_what_it_is_told_to(case: &Tidy<StackPlan>) -> Result<(), Finding> {
    let tidied = Tidied::new(case);
    let victim = NAMES[usize::from(case.victim) % NAMES.len()];
    let before = NAMES.map(|name| tidied.read(name));
    for _ in 0..2 {
        let removed = block(tidied.stack.remove(victim));
        let left = tidied.read(victim);
        if !matches!(removed, Some(Ok(()))) || left.is_some() {
            let got = format!("{removed:?}, and then {left:?}");
            return Err(tidied.broken(
                format!("remove {victim:?}"),
                "it succeeds, also on what is absent, and leaves none",
                got,
                "a removal that does not reach every copy, or fails on an absent key",
            ));
        }
    }
    for (name, before) in NAMES.into_iter().zip(before) {
        let left = tidied.read(name);
        // A read above may have moved an entry into a small tier, which then gave up another.
        if name != victim && left != before && left.is_some() {
            return Err(tidied.broken(
                format!("remove {victim:?}, then get {name:?}"),
                "what it held before, or nothing",
                format!("{left:?} in place of {before:?}"),
                "two keys that share a place",
            ));
        }
    }
    for _ in 0..2 {
        let cleared = block(tidied.stack.clear());
        let left: Vec<_> = NAMES.into_iter().filter(|name| tidied.read(name).is_some()).collect();
        if !matches!(cleared, Some(Ok(()))) || !left.is_empty() {
            let got = format!("{cleared:?}, and {left:?} are left");
            return Err(tidied.broken(
                "clear".to_owned(),
                "nothing is left",
                got,
                "a tier or shard that clear does not reach",
            ));
        }
    }
    let touched = tidied.neighbours.lock().iter().any(|memory| {
        memory.len() != Some(1) || memory.peek_with(NEIGHBOUR, |_| ()).is_none() //
    });
    if touched {
        return Err(tidied.broken(
            "clear".to_owned(),
            "the entry of somebody else, just outside the prefix, is still there",
            "it is gone, or something else is left beside it".to_owned(),
            "a clear that goes by less than the whole prefix",
        ));
    }
    Ok(())
}

fn peeks_what_it_would_answer(case: &Tidy<StackPlan>) -> Result<(), Finding> {
    let tidied = Tidied::new(case);
    for name in NAMES {
        let peeked = tidied.stack.peek_with(name, Entry::clone);
        let read = tidied.read(name);
        let again = tidied.stack.peek_with(name, Entry::clone);
        for peeked in [peeked, again] {
            if peeked.is_some() && peeked != read {
                return Err(tidied.broken(
                    format!("peek {name:?}, get, peek"),
                    "a peek that answers shows what the read answers",
                    format!("{peeked:?} against {read:?}"),
                    "a peek that looks at another key or another tier than the read does",
                ));
            }
        }
    }
    Ok(())
}

fn counts_what_it_holds(case: &Tidy<StackPlan>) -> Result<(), Finding> {
    let tidied = Tidied::new(case);
    let Some(len) = tidied.stack.len() else { return Ok(()) };
    let held = NAMES.into_iter().filter(|name| tidied.read(name).is_some()).count();
    if len != held as u64 {
        return Err(tidied.broken(
            "len".to_owned(),
            "as many entries as can be read",
            format!("{len} in place of {held}"),
            "what stands outside the store's own scope is counted, or an overwrite is counted twice",
        ));
    }
    let _ = block(tidied.stack.clear());
    if tidied.stack.len() != Some(0) || tidied.stack.weight().is_some_and(|weight| weight > 0) {
        let got = format!("{:?} entries of weight {:?}", tidied.stack.len(), tidied.stack.weight());
        return Err(tidied.broken(
            "clear, len".to_owned(),
            "nothing, of no weight",
            got,
            "a counter that clear keeps",
        ));
    }
    Ok(())
}
