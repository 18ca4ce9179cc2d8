//! Any adapter, judged over generated inner stores (group D, and the laws of a store that it has to keep).

mod calls;
mod inner;
mod keys;
mod times;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

use crate::entry::Entry;
use crate::store::Store;
use crate::testkit::history::Loss;
use crate::testkit::race::{self, Blame, World, in_turn, scheduled};
use crate::testkit::report::{LawReport, Report};
use crate::testkit::runner::{Case, Finding, LawName, Settings, knobs, run};
use crate::testkit::script::{Script, undated, whole};
use crate::testkit::stacks::row;
use inner::{InnerPlan, Seen};
use times::Timeless;

pub use inner::Inner;

/// Judges what `wrap` makes of a store, over inner stores of every kind: perfect, small, slow, failing, hanging,
/// panicking, random stacks.
///
/// Values are whatever can be made of text: `Bytes`, `String`, `Arc<str>`. Keys are text. An adapter that does not
/// forward every call one to one, or shortens lifetimes, or refuses what is too large, says so by the methods of
/// [`AdapterCheck`].
///
/// ```
/// use larder::StoreExt;
/// use larder::testkit::check_adapter;
///
/// check_adapter("inspect", |inner| inner.inspect(|_| ())).cases(8).run().assert();
/// check_adapter("prefixed", |inner| inner.prefixed("p:"))
///     .changes(&["clear", "len", "weight"])
///     .cases(8)
///     .run()
///     .assert();
/// ```
pub fn check_adapter<A>(
    name: impl Into<String>,
    wrap: impl Fn(Inner) -> A + Send + Sync + 'static,
) -> AdapterCheck<A>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let promises = Promises { changes: Vec::new(), caps: false, bound: None, undecodable: None };
    let seen_capped = Arc::new(AtomicBool::new(false));
    let adapter = AdapterUnderTest { wrap: Arc::new(wrap), promises, seen_capped };
    AdapterCheck { settings: Settings::new(name), adapter }
}

/// See [`check_adapter`].
#[must_use = "nothing is checked until it runs"]
pub struct AdapterCheck<A> {
    settings: Settings,
    adapter: AdapterUnderTest<A>,
}

/// How to make the adapter, and what it says of itself.
struct AdapterUnderTest<A> {
    wrap: Arc<dyn Fn(Inner) -> A + Send + Sync>,
    promises: Promises,
    seen_capped: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Promises {
    changes: Vec<&'static str>,
    caps: bool,
    bound: Option<u64>,
    undecodable: Option<Bytes>,
}

impl<A> Clone for AdapterUnderTest<A> {
    fn clone(&self) -> Self {
        let (wrap, promises) = (Arc::clone(&self.wrap), self.promises.clone());
        Self { wrap, promises, seen_capped: Arc::clone(&self.seen_capped) }
    }
}

impl<A> fmt::Debug for AdapterCheck<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (settings, promises) = (&self.settings, &self.adapter.promises);
        f.debug_struct("AdapterCheck")
            .field("settings", settings)
            .field("promises", promises)
            .finish_non_exhaustive()
    }
}

const IDLE: LawName = LawName {
    name: "d1_idle_cannot_be_told_from_the_store_inside",
    why: "whoever adds the adapter expects nothing to change but what it is for",
};
const REGISTER: LawName = LawName {
    name: "d2_over_any_store_it_stays_a_register",
    why: "a stack with this adapter serves what was replaced or removed, or hangs",
};
const FORWARDS: LawName = LawName {
    name: "d3_each_call_is_one_call_inside",
    why: "one call becomes many, or a bulk call or a peek of the store inside is lost in every stack above it",
};
const READS: LawName = LawName {
    name: "d3_a_read_writes_nothing",
    why: "reads cost writes, and a read of one key moves others",
};
const DESCRIBES: LawName =
    LawName { name: "d3_describe_shows_the_inside", why: "nobody sees any more what a stack is made of" };
const ERRORS: LawName = LawName {
    name: "s4_errors_come_out_with_their_kind",
    why: "a failure looks like success, or nobody can tell what to do about it",
};
const CLEARS: LawName = LawName {
    name: "s5_it_touches_only_its_own",
    why: "a clear takes the entries of a neighbour along, or leaves some of its own",
};
const KEYS: LawName = LawName { name: "s6_keys_never_meet", why: "one user is served the value of another" };
const DECODES: LawName = LawName {
    name: "s7_what_it_cannot_read_is_a_miss",
    why: "bytes of an older program, or damaged ones, fail every read until somebody removes them by hand",
};
const PEEKS: LawName = LawName {
    name: "s9_a_peek_answers_only_what_a_get_would",
    why: "the engine peeks first, and would serve what a read does not know",
};
const BOUND: LawName = LawName {
    name: "s10_it_stays_within_its_bound",
    why: "a machine runs out of memory in spite of the limit",
};
const BULK: LawName = LawName {
    name: "s11_a_bulk_call_answers_for_each_key",
    why: "a caller takes the answer of one key for that of another, or a success for a failure",
};
const DEADLINES: LawName = LawName {
    name: "c9_deadlines_are_only_ever_earlier",
    why: "a copy is served for longer than its original may be, or loses its stale window",
};

const LAWS: [LawName; 13] = [
    IDLE, REGISTER, FORWARDS, READS, DESCRIBES, ERRORS, CLEARS, KEYS, DECODES, PEEKS, BOUND, BULK, DEADLINES,
];

impl<A> AdapterCheck<A>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    knobs!();

    /// These calls are not one call of the same name inside: `&["clear", "len"]`.
    ///
    /// # Panics
    /// If one of them is no call of a store; the message lists them.
    #[track_caller]
    pub fn changes(mut self, calls: &[&'static str]) -> Self {
        for call in calls {
            assert!(
                calls::NAMES.contains(call),
                "changes: no call is named `{call}`; there are: {}",
                calls::NAMES.join(", ")
            );
        }
        self.adapter.promises.changes.extend(calls);
        self
    }

    /// It may move the deadlines of an entry earlier, all three together (C9).
    pub fn caps(mut self) -> Self {
        self.adapter.promises.caps = true;
        self
    }

    /// It holds at most this weight, and refuses or gives up what does not fit (S10).
    pub fn bounded(mut self, bound: u64) -> Self {
        self.adapter.promises.bound = Some(bound);
        self
    }

    /// Stored bytes that it cannot read, so that the kit can put them in place (S7).
    pub fn undecodable(mut self, bytes: impl Into<Bytes>) -> Self {
        self.adapter.promises.undecodable = Some(bytes.into());
        self
    }

    /// Runs every law.
    pub fn run(self) -> Report {
        self.settings.know(&LAWS);
        let Self { settings, adapter } = self;
        let rows: Vec<_> =
            LAWS.into_iter().filter_map(|law| row(&settings, law, || adapter.law(&settings, law))).collect();
        let mut notes = Vec::new();
        for &call in &adapter.promises.changes {
            if settings.wants(FORWARDS) && calls::is_forwarded(&adapter, call) {
                notes
                    .push(format!("`{call}` is said to be changed, and becomes one call of its name inside"));
            }
        }
        let ran = |row: &LawReport| row.law == DEADLINES.name && row.cases > 0;
        if adapter.promises.caps && rows.iter().any(ran) && !adapter.seen_capped.load(Ordering::SeqCst) {
            notes.push("it is said to shorten lifetimes, and no case saw it".to_owned());
        }
        Report::new(settings.name, rows, notes)
    }

    /// Runs every law, and panics with the report if one is broken.
    #[track_caller]
    pub fn assert(self) {
        self.run().assert();
    }
}

impl<A> AdapterUnderTest<A>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    fn law(&self, settings: &Settings, law: LawName) -> LawReport {
        let adapter = self.clone();
        let scripts = || calls::scripts(Just(InnerPlan::Perfect).boxed());
        if law.name == IDLE.name {
            run(settings, law, scripts, move |script| calls::idle(&adapter, script))
        } else if law.name == REGISTER.name {
            run(
                settings,
                law,
                || race::wild_races(inner::inners(), 2).boxed(),
                move |race| {
                    let (store, seen) = adapter.over(&race.over);
                    let timeless = Timeless { inner: store, on: adapter.promises.caps };
                    let world = World::new(timeless, seen.faults(), seen.clock().clone(), |number| {
                        number.to_string().into()
                    });
                    scheduled(race, &world, ANY_INNER)
                },
            )
        } else if law.name == FORWARDS.name {
            adapter.all(settings, law, calls::single_calls(), calls::forwards)
        } else if law.name == READS.name {
            run(settings, law, scripts, move |script| calls::reads(&adapter, script))
        } else if law.name == DESCRIBES.name {
            adapter.all(settings, law, vec![calls::nothing()], calls::describes)
        } else if law.name == ERRORS.name {
            adapter.all(settings, law, calls::single_calls(), calls::errors)
        } else if law.name == CLEARS.name {
            adapter.all(settings, law, keys::all_names(), keys::clears)
        } else if law.name == KEYS.name {
            adapter.all(settings, law, keys::all_names(), keys::never_meet)
        } else if law.name == DECODES.name {
            if adapter.promises.undecodable.is_none() {
                return LawReport::skipped(
                    law.name,
                    "only for one that decodes: say so by `.undecodable(bytes)`",
                );
            }
            adapter.all(settings, law, calls::reading_calls(), calls::decodes)
        } else if law.name == PEEKS.name {
            run(
                settings,
                law,
                || calls::scripts(inner::inners().boxed()),
                move |script| calls::peeks(&adapter, script),
            )
        } else if law.name == BOUND.name {
            if adapter.promises.bound.is_none() {
                return LawReport::skipped(
                    law.name,
                    "only for one with a bound: say so by `.bounded(bytes)`",
                );
            }
            run(settings, law, scripts, move |script| times::bound(&adapter, script))
        } else if law.name == BULK.name {
            run(settings, law, keys::bulks, move |bulk| keys::bulk(&adapter, bulk))
        } else {
            run(settings, law, scripts, move |script| times::deadlines(&adapter, script))
        }
    }

    /// The adapter over an inner store, and what is seen of that.
    fn over(&self, plan: &InnerPlan) -> (A, Arc<Seen>) {
        let (inner, seen) = Inner::new(plan);
        ((self.wrap)(inner), seen)
    }

    /// Every script of the list, once.
    fn all(
        self,
        settings: &Settings,
        law: LawName,
        scripts: Vec<Script<InnerPlan>>,
        judge: impl Fn(&Self, &Script<InnerPlan>) -> Result<(), Finding> + Send + Sync + 'static,
    ) -> LawReport {
        let mut settings = settings.clone();
        settings.cases = u32::try_from(scripts.len()).unwrap_or(u32::MAX);
        run(&settings, law, move || in_turn(scripts), move |script| judge(&self, script))
    }

    fn show(&self) -> fn(&Entry<A::Value>) -> String {
        if self.promises.caps { undated } else { whole }
    }
}

/// The value of a number: text of 2 to 30 bytes, now and then of 500.
fn value<V: From<String>>(number: u8) -> V {
    let length = if (37..40).contains(&number) { 500 } else { usize::from(number % 8) * 4 };
    format!("{number}:{}", "x".repeat(length)).into()
}

const ANY_INNER: Blame = Blame {
    loss: Loss::Misses,
    expected: "what was written last, or nothing: never something older, never something that nobody wrote",
    cause: "something of its own that outlives a write: a copy, a count, a route that get and set do not share",
};

/// What a case is about, in one line.
fn over(script: &Script<InnerPlan>) -> String {
    format!("over {:?} ({} calls)", script.over, script.steps())
}
