//! The engine under its laws: any configuration of a cache, over tiers that fail, raced, cancelled, out of time.
//!
//! A case is data (`case.rs`); `drive.rs` runs it and writes down what happened (`trace.rs`); each law looks at that
//! (`laws.rs`). Where one caller comes at a time, `model.rs` says exactly what has to happen.

mod case;
mod compare;
mod draw;
mod drive;
mod early;
mod laws;
mod many;
mod model;
mod stack;
mod trace;

use std::fmt;
use std::sync::Arc;

use crate::cache::CacheBuilder;
use crate::testkit::engine::compare::{Clause, Parting};
use crate::testkit::engine::draw::{Flavour, Start};
use crate::testkit::engine::laws::{Broken, Verdict};
use crate::testkit::engine::trace::Trace;
use crate::testkit::report::{LawReport, Report};
use crate::testkit::runner::{Finding, LawName, Settings, knobs, run};

pub use stack::{Name, Stack};

pub(crate) use case::EngineCase;
#[cfg(all(feature = "mutants", debug_assertions))]
pub(crate) use case::is_absent;
#[cfg_attr(
    not(all(feature = "mutants", debug_assertions)),
    expect(unused_imports, reason = "for the mutants")
)]
pub(crate) use drive::{Compute, ComputeMany, Engine, Floor, Subject};

/// Judges a configuration of the cache by the laws of the engine (E1 to E21): whatever `configure` sets, over stores
/// that fail and hang, with callers that race and go away, on virtual time.
///
/// The clock, the runtime and the listener are the kit's: what `configure` says of them is overruled.
///
/// ```
/// use std::time::Duration;
/// use larder::testkit::check_engine;
///
/// check_engine("users", |cache| cache.ttl(Duration::from_secs(60)).stale(Duration::from_secs(300)))
///     .cases(8)
///     .assert();
/// ```
pub fn check_engine(
    name: impl Into<String>,
    configure: impl Fn(CacheBuilder<Stack>) -> CacheBuilder<Stack> + Send + Sync + 'static,
) -> EngineCheck {
    EngineCheck::of(name, Subject { configure: Some(Arc::new(configure)), ..Subject::cache() })
}

/// A check of the engine, about to run. See [`check_engine`].
#[must_use = "a check does nothing until `run` or `assert`"]
pub struct EngineCheck {
    settings: Settings,
    subject: Subject,
}

impl EngineCheck {
    knobs!();

    pub(crate) fn of(name: impl Into<String>, subject: Subject) -> Self {
        Self { settings: Settings::new(name), subject }
    }

    /// Tries every law.
    ///
    /// # Panics
    /// If the configuration builds no cache, or a skip names no law.
    pub fn run(&self) -> Report {
        let names: Vec<_> = LAWS.iter().map(|law| law.name).collect();
        self.settings.know(&names);
        if let Some(configure) = &self.subject.configure {
            let store = crate::testkit::Model::<str, u64>::new();
            if let Err(error) = drive::builds(&**configure, store) {
                panic!("{}: the configuration builds no cache: {error}", self.settings.name);
            }
        }
        let wanted = LAWS.iter().filter(|law| self.settings.wants(law.name));
        let laws = wanted.map(|law| self.law(law)).collect();
        Report::new(&self.settings.name, laws, Vec::new())
    }

    /// [`run`](Self::run), then [`Report::assert`].
    #[track_caller]
    pub fn assert(&self) {
        self.run().assert();
    }

    fn law(&self, law: &'static Law) -> LawReport {
        if let Some(skipped) = self.settings.skipped(law.name) {
            return skipped;
        }
        let (subject, fixed) = (self.subject.clone(), self.subject.configure.is_some());
        run(
            &self.settings,
            law.name,
            move || draw::cases(law.flavour, fixed),
            move |case: &EngineCase| match drive::run(&subject, case, None) {
                Ok(trace) => law.judge(case, &trace),
                Err(error) => Err(Finding {
                    timeline: String::new(),
                    expected: "a cache".to_owned(),
                    got: error.to_string(),
                    cause: "settings that contradict each other".to_owned(),
                }),
            },
        )
    }
}

impl fmt::Debug for EngineCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineCheck").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Runs the cache over `floor` as the case says, and judges it by every law that needs no model. Over a store that
/// forgets, a computation that was not needed cannot be told from one that was, so that E3 is left out.
pub(crate) fn judge_over(
    case: &EngineCase,
    floor: Floor,
    forgets: bool,
) -> Result<(), Box<(LawName, Finding)>> {
    // Settings that build no cache are judged by nobody.
    let Ok(trace) = drive::run(&Subject::cache(), case, Some(floor)) else { return Ok(()) };
    LAWS.iter().filter(|law| !(forgets && law.name.name.starts_with("e3"))).try_for_each(|law| {
        let is_batches = law.name.name.starts_with("e15");
        // E15 judges single calls too, by E3 among others.
        let judge = if forgets && is_batches { laws::batched } else { law.judge };
        judge(&trace).map_err(|broken| Box::new((law.name, finding(&trace, broken))))
    })
}

/// Cases for [`judge_over`], with everything in them.
pub(crate) fn wild() -> proptest::strategy::BoxedStrategy<EngineCase> {
    let flavour = Flavour {
        absences: true,
        errors: true,
        patience: true,
        limit: true,
        alone: 3,
        faults: 2,
        hangs: 1,
        jumps: 1,
        closes: 1,
        panics: 1,
        never_ends: 1,
        unchanged: 1,
        leaves: true,
        keys: 3,
        ..Flavour::PLAIN
    };
    draw::cases(flavour, false)
}

struct Law {
    name: LawName,
    flavour: Flavour,
    judge: fn(&Trace) -> Verdict,
    /// Whether this law answers for where the run and the model part.
    answers_for: fn(&Parting) -> bool,
}

impl Law {
    fn judge(&self, case: &EngineCase, trace: &Trace) -> Result<(), Finding> {
        (self.judge)(trace).map_err(|broken| finding(trace, broken))?;
        if !case.is_sequential() {
            return Ok(());
        }
        match compare::compare(case, trace) {
            Some(parting) if (self.answers_for)(&parting) => Err(finding(trace, parting.broken)),
            _ => Ok(()),
        }
    }
}

fn finding(trace: &Trace, broken: Broken) -> Finding {
    let Broken { expected, got, cause } = broken;
    Finding { timeline: trace.timeline(), expected, got, cause: cause.to_owned() }
}

macro_rules! law {
    ($name:literal, $why:literal, $flavour:expr, $judge:expr, $answers_for:expr) => {
        Law {
            name: LawName { name: $name, why: $why },
            flavour: $flavour,
            judge: $judge,
            answers_for: $answers_for,
        }
    };
}

const PLAIN: Flavour = Flavour::PLAIN;

static LAWS: &[Law] = &[
    law!(
        "e1_nothing_expired_is_served",
        "users see prices, permissions and stock of which you had said that they are too old to show",
        Flavour { start: Start::KEPT, waits: 8, reads: 4, fails: 3, leaves: true, ..PLAIN },
        laws::e1,
        |parting| parting.clause == Clause::E1 && !parting.moved && !parting.slow
    ),
    law!(
        "e2_stale_at_once_and_one_refresh",
        "the stale window is there so that nobody waits for a slow origin; without it a popular key makes a stampede",
        Flavour {
            waits: 3,
            fails: 2,
            panics: 2,
            never_ends: 1,
            hangs: 1,
            faults: 1,
            slow: 1,
            leaves: true,
            writes: 1,
            start: Start::STALE,
            ..PLAIN
        },
        laws::e2,
        |parting| parting.clause == Clause::E2 && !parting.moved && !parting.slow
    ),
    law!(
        "e3_one_flight",
        "each of a thousand concurrent misses asks your database",
        Flavour { alone: 2, fails: 1, panics: 1, leaves: true, ..PLAIN },
        laws::e3,
        |parting| parting.clause == Clause::E3
    ),
    law!(
        "e4_no_resurrection",
        "a user changes or deletes something, is told that it is done, and sees the old value again",
        Flavour {
            alone: 0,
            asks: 8,
            writes: 8,
            waits: 1,
            reads: 2,
            fails: 0,
            leaves: true,
            races: true,
            slow_work: true,
            ..PLAIN
        },
        laws::e4,
        |parting| parting.clause == Clause::E4
    ),
    law!(
        "e5_nobody_hangs",
        "requests that wait for ever hold connections and memory, until the service stops",
        Flavour { alone: 3, panics: 3, asks: 10, never_ends: 2, hangs: 2, faults: 1, leaves: true, ..PLAIN },
        laws::e5,
        |parting| parting.clause == Clause::E5
    ),
    law!(
        "e6_errors_are_not_cached",
        "one failed request makes everyone fail who comes after it",
        Flavour { fails: 5, unchanged: 1, waits: 2, leaves: true, ..PLAIN },
        laws::e6,
        |parting| parting.clause == Clause::E6
    ),
    law!(
        "e7_a_panic_poisons_nothing",
        "one bad input takes its key out of service, or kills requests that had nothing to do with it",
        Flavour { start: Start::MIXED, panics: 6, alone: 3, leaves: true, ..PLAIN },
        laws::e7,
        |parting| parting.clause == Clause::E7
    ),
    law!(
        "e8_stale_on_error",
        "an outage of the origin becomes yours, although the last value is still there",
        Flavour {
            fails: 6,
            unchanged: 1,
            never_ends: 1,
            waits: 10,
            writes: 3,
            reads: 1,
            start: Start::KEPT,
            slow_work: true,
            alone: 4,
            ..PLAIN
        },
        laws::e8,
        |parting| parting.clause == Clause::E8 && !parting.moved
    ),
    law!(
        "e9_background_is_bounded",
        "refreshes pile up behind a slow origin, or run on in a program that wants to end",
        Flavour { never_ends: 3, closes: 2, waits: 2, leaves: true, writes: 1, start: Start::STALE, ..PLAIN },
        laws::e9,
        |parting| parting.clause == Clause::E9
    ),
    law!(
        "e10_bypass_touches_nothing",
        "a cache that was switched off, to find out whether it is to blame, still serves and writes",
        Flavour { bypass: true, panics: 1, ..PLAIN },
        laws::e10,
        |parting| parting.clause == Clause::E10
    ),
    law!(
        "e11_store_failures_fail_no_computation",
        "an outage of the cache's server becomes an outage of yours",
        Flavour { faults: 5, writes: 4, hangs: 1, alone: 6, ..PLAIN },
        laws::e11,
        |parting| parting.clause == Clause::E11
    ),
    law!(
        "e12_the_clock_may_jump",
        "after a correction of the clock, or beside a host whose clock runs ahead, old values stay for hours",
        Flavour { jumps: 3, alone: 8, waits: 2, fails: 2, ..PLAIN },
        laws::e12,
        |parting| parting.moved && !matches!(parting.clause, Clause::Events)
    ),
    law!(
        "e13_judgement",
        "values that took long to compute are expired when they are stored, or live longer than you said",
        Flavour { start: Start::KEPT, unchanged: 2, slow: 5, alone: 7, ..PLAIN },
        laws::e13,
        |parting| parting.clause == Clause::E13
            || (parting.slow && matches!(parting.clause, Clause::E1 | Clause::E2 | Clause::E3))
    ),
    law!(
        "e14_identity",
        "one user is shown what belongs to another",
        Flavour { keys: 3, alone: 2, fails: 2, ..PLAIN },
        laws::e14,
        |_| false
    ),
    law!(
        "e15_batches_equal_their_singles",
        "a page of fifty items asks your database fifty times, shows one item in the place of another, or loses all \
         of them to the one that fails",
        Flavour {
            batches: 10,
            asks: 5,
            reads: 1,
            fails: 1,
            panics: 1,
            never_ends: 1,
            faults: 1,
            keys: 3,
            closes: 1,
            leaves: true,
            start: Start::MIXED,
            ..PLAIN
        },
        laws::e15,
        |_| true
    ),
    law!(
        "e16_not_found_has_a_lifetime_of_its_own",
        "what was created a moment ago does not exist for as long as a value may be cached",
        Flavour { absences: true, writes: 4, unchanged: 2, fails: 2, ..PLAIN },
        laws::e16,
        |_| false
    ),
    law!(
        "e17_errors_are_remembered",
        "an origin that is down is asked by everyone again and again, and cannot get up",
        Flavour {
            errors: true,
            alone: 8,
            asks: 8,
            fails: 12,
            panics: 1,
            waits: 7,
            reads: 0,
            writes: 1,
            start: Start::MOSTLY_NONE,
            ..PLAIN
        },
        laws::e17,
        |parting| matches!(parting.clause, Clause::E17 | Clause::E6 | Clause::E3)
    ),
    law!(
        "e18_early_refresh",
        "a popular key expires for everybody at once although a refresh in time would have cost nobody anything",
        Flavour {
            early: true,
            start: Start::DUE,
            fails: 2,
            panics: 1,
            never_ends: 2,
            waits: 8,
            asks: 10,
            reads: 3,
            leaves: true,
            alone: 7,
            ..PLAIN
        },
        laws::e18,
        |parting| parting.clause == Clause::E18 && !parting.moved
    ),
    law!(
        "e19_budget_of_refreshes",
        "an origin that just came back is asked for everything at once, by refreshes that nobody waits for",
        Flavour {
            early: true,
            rates: true,
            waits: 3,
            fails: 1,
            asks: 12,
            keys: 3,
            start: Start::DUE,
            leaves: true,
            alone: 6,
            ..PLAIN
        },
        laws::e19,
        |parting| parting.clause == Clause::E19 && !parting.moved
    ),
    law!(
        "e20_patience",
        "callers wait for a slow origin although something good enough is there, or for longer than they can",
        Flavour {
            patience: true,
            keys: 1,
            alone: 3,
            asks: 10,
            never_ends: 2,
            slow_work: true,
            leaves: true,
            writes: 1,
            slow: 1,
            start: Start::KEPT,
            ..PLAIN
        },
        laws::e20,
        |parting| parting.clause == Clause::E20
    ),
    law!(
        "e21_loads_are_limited",
        "a cold cache sends everything that misses to the origin at once",
        Flavour {
            limit: true,
            patience: true,
            alone: 0,
            asks: 12,
            reads: 0,
            writes: 0,
            panics: 1,
            never_ends: 1,
            keys: 3,
            slow_work: true,
            leaves: true,
            ..PLAIN
        },
        laws::e21,
        |_| false
    ),
    law!(
        "j_events_equal_the_model",
        "dashboards and alarms count what did not happen, or miss what did",
        Flavour {
            alone: 10,
            writes: 4,
            waits: 7,
            reads: 1,
            fails: 2,
            panics: 1,
            never_ends: 2,
            faults: 2,
            closes: 1,
            unchanged: 1,
            start: Start::STALE,
            slow_work: true,
            ..PLAIN
        },
        |_| Ok(()),
        |parting| parting.clause == Clause::Events
    ),
    law!(
        "k_nothing_is_left",
        "memory and tasks that grow with every key that was ever asked for",
        Flavour {
            alone: 2,
            panics: 2,
            never_ends: 1,
            hangs: 1,
            faults: 1,
            closes: 2,
            leaves: true,
            races: true,
            ..PLAIN
        },
        laws::nothing_is_left,
        |_| false
    ),
];

/// The cache itself, with settings that change from case to case.
#[cfg(test)]
pub(crate) fn check_any() -> EngineCheck {
    EngineCheck::of("the cache, however it is set", Subject::cache())
}
