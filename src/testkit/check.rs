//! The check of one store: what it promises, how it is reached beside its trait, and the run.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::adapters::{Chain, FreshForAtMost, Inspect, Null, Sharded};
use crate::dynamic::BoxStore;
use crate::error::Result;
use crate::key::Key;
use crate::memory::Memory;
use crate::runtime::BoxFuture;
use crate::store::{ClearPrefix, Evict, Store};
use crate::testkit::minimal::{Minimal, Reference};
use crate::testkit::report::{LawReport, Report};
use crate::testkit::runner::{self, Settings, knobs};
use crate::testkit::sample::{SampleKey, SampleValue};
use crate::testkit::store::{
    Aside, Cast, Draft, Facts, Instance, Lab, Lane, Make, One, Op, Order, Role, Shape, Site, Typed, all,
    fixed,
};

/// A check of stores of one type, to be told what they promise and then [run](Check::run).
///
/// Every store is tried on what the contract of [`Store`] asks of all of them. A promise adds laws: what is
/// promised and not kept is a failure, what is kept and not promised is a note. So a bound, a lifetime or an answer
/// to `peek` that nobody promised is not relied on, and one that was promised is not lost unseen.
#[must_use = "a check does nothing until it is run"]
pub struct Check<S: Store> {
    settings: Settings,
    facts: Facts,
    lane: Lane,
    cast: Arc<Cast<S::Key, S::Value>>,
    hooks: Hooks<S>,
}

type Construct<S> = Arc<dyn Fn(Site) -> BoxFuture<'static, S> + Send + Sync>;
type OwnedKey<S> = <<S as Store>::Key as ToOwned>::Owned;

/// What is done to a store beside its trait.
struct Hooks<S: Store> {
    fresh: Construct<S>,
    reopen: Option<Construct<S>>,
    second: Option<Construct<S>>,
    corrupt: Option<Arc<Corrupt<S>>>,
    outage: Option<Arc<Outage<S>>>,
    evict: Option<Arc<GiveUp<S>>>,
    clear_prefix: Option<Arc<ClearRange<S>>>,
}

type Corrupt<S> = dyn Fn(&S, &<S as Store>::Key, &mut dyn FnMut(Vec<u8>) -> Vec<u8>) -> bool + Send + Sync;
type Outage<S> = dyn Fn(&S, bool) + Send + Sync;
type GiveUp<S> = dyn Fn(&S) -> bool + Send + Sync;
type ClearRange<S> = dyn Fn(Arc<S>, OwnedKey<S>) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// Begins the check of a store. `make` makes an empty one for each case, in a namespace of its own.
///
/// ```
/// use larder::testkit::check;
/// use larder::{Lru, Memory};
///
/// check("lru", |_| Lru::<str, String>::new(1_000)).peeks().counts().cases(8).run().assert();
/// ```
pub fn check<S>(name: &str, make: impl Fn(Site) -> S + Send + Sync + 'static) -> Check<S>
where
    S: Store<Key: SampleKey<Owned: Debug>, Value: SampleValue + PartialEq + Debug> + 'static,
{
    Check::new(name, sampled::<S>(), now(make))
}

/// The same for a store that has to be waited for. It is made inside the runtime that runs the case.
pub fn check_async<S, F>(name: &str, make: impl Fn(Site) -> F + Send + Sync + 'static) -> Check<S>
where
    S: Store<Key: SampleKey<Owned: Debug>, Value: SampleValue + PartialEq + Debug> + 'static,
    F: Future<Output = S> + Send + 'static,
{
    Check::new(name, sampled::<S>(), Arc::new(move |site| Box::pin(make(site))))
}

/// [`check`] for keys or values of a type of yours: `keys` are different keys, at least eight, the first three of
/// them harmless; `value` makes a value of a number, different values of different numbers.
///
/// Laws about the length of values and about very many keys are then skipped; implement [`SampleKey`] and
/// [`SampleValue`] to have them too.
pub fn check_with<S>(
    name: &str,
    keys: impl IntoIterator<Item = OwnedKey<S>>,
    value: impl Fn(u32) -> S::Value + Send + Sync + 'static,
    make: impl Fn(Site) -> S + Send + Sync + 'static,
) -> Check<S>
where
    S: Store<Key: Key<Owned: Debug>, Value: PartialEq + Debug> + 'static,
{
    let cast = Cast {
        names: Vec::new(),
        corpus: keys.into_iter().collect(),
        value: Box::new(value),
        sized: None,
        numbered: None,
        witnessed: None,
    };
    Check::new(name, cast, now(make))
}

fn now<S: Store + 'static>(make: impl Fn(Site) -> S + Send + Sync + 'static) -> Construct<S> {
    Arc::new(move |site| {
        let store = make(site);
        Box::pin(std::future::ready(store)) as BoxFuture<'static, S>
    })
}

fn sampled<S>() -> Cast<S::Key, S::Value>
where
    S: Store<Key: SampleKey<Owned: Debug>, Value: SampleValue>,
{
    Cast {
        names: Vec::new(),
        corpus: S::Key::corpus(),
        value: Box::new(S::Value::sample),
        sized: Some(S::Value::sized),
        numbered: Some(S::Key::numbered),
        witnessed: Some(S::Value::witnessed),
    }
}

impl<S> Check<S>
where
    S: Store<Key: Key<Owned: Debug>, Value: PartialEq + Debug> + 'static,
{
    /// # Panics
    /// If there are fewer than eight keys.
    fn new(name: &str, mut cast: Cast<S::Key, S::Value>, fresh: Construct<S>) -> Self {
        assert!(
            cast.corpus.len() >= 8,
            "check_with: {} keys are too few; give at least 8 different ones, the first three harmless",
            cast.corpus.len()
        );
        // Places are a byte; more keys than that would not be drawn often anyway.
        cast.corpus.truncate(255);
        let short = |key: &OwnedKey<S>| {
            let text = format!("{key:?}");
            let length = text.chars().count();
            if length <= 40 {
                text
            } else {
                text.chars().take(30).chain(format!(".. ({length})").chars()).collect()
            }
        };
        cast.names = cast.corpus.iter().map(short).collect();
        let facts = Facts {
            keys: cast.corpus.len(),
            sized: cast.sized.is_some_and(|sized| sized(1, 1).is_some()),
            numbered: cast.numbered.is_some(),
            witnessed: cast.witnessed.is_some_and(|make| make(1).is_some()),
            ..Facts::default()
        };
        let hooks = Hooks {
            fresh,
            reopen: None,
            second: None,
            corrupt: None,
            outage: None,
            evict: None,
            clear_prefix: None,
        };
        Self { settings: Settings::new(name), facts, lane: Lane::Virtual, cast: Arc::new(cast), hooks }
    }

    knobs!();

    /// Promises to answer `peek_with` for everything that it holds.
    pub fn peeks(mut self) -> Self {
        self.facts.peeks = true;
        self
    }

    /// Promises that `len` answers.
    pub fn counts(mut self) -> Self {
        self.facts.counts = true;
        self
    }

    /// Promises that `weight` answers.
    pub fn weighs(mut self) -> Self {
        self.facts.weighs = true;
        self
    }

    /// Promises to hold at most so many entries, and to forget none while there are no more keys than that.
    /// Small stores are tried harder: check one of a handful of entries too.
    pub fn max_entries(mut self, max: u64) -> Self {
        self.facts.max_entries = Some(max);
        self
    }

    /// Promises to weigh at most so many bytes, and to forget nothing that fits. Small values are taken for 1 KiB
    /// each, whatever is counted for them.
    pub fn max_bytes(mut self, max: u64) -> Self {
        self.facts.max_bytes = Some(max);
        self
    }

    /// Promises to take values of up to so many bytes, and to refuse larger ones.
    pub fn largest_value(mut self, bytes: u64) -> Self {
        self.facts.largest = Some(bytes);
        self
    }

    /// Promises to give up entries in this order. Needs [`max_entries`](Self::max_entries), at most 64.
    pub fn evicts(mut self, order: Order) -> Self {
        self.facts.order = Some(order);
        self
    }

    /// Promises to drop what is past its `keep_until` by the [clock of the site](Site::clock).
    pub fn expires(mut self) -> Self {
        self.facts.expires = true;
        self
    }

    /// Says that the store may forget at any time, without need. Nothing is then tried that needs an entry to be
    /// still there.
    pub fn forgets(mut self) -> Self {
        self.facts.forgets = true;
        self
    }

    /// Promises that what was acknowledged is there when the store is opened again: `reopen` opens it at a site at
    /// which there was one before, which has been dropped.
    pub fn reopen(mut self, reopen: impl Fn(Site) -> S + Send + Sync + 'static) -> Self {
        self.facts.reopens = true;
        self.hooks.reopen = Some(now(reopen));
        self
    }

    /// [`reopen`](Self::reopen) for a store that has to be waited for.
    pub fn reopen_async<F>(mut self, reopen: impl Fn(Site) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = S> + Send + 'static,
    {
        self.facts.reopens = true;
        self.hooks.reopen = Some(Arc::new(move |site| Box::pin(reopen(site))));
        self
    }

    /// Promises that two clients at one site see one store: `second` makes another one beside the first.
    pub fn second_client(mut self, second: impl Fn(Site) -> S + Send + Sync + 'static) -> Self {
        self.facts.second = true;
        self.hooks.second = Some(now(second));
        self
    }

    /// [`second_client`](Self::second_client) for a store that has to be waited for.
    pub fn second_client_async<F>(mut self, second: impl Fn(Site) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = S> + Send + 'static,
    {
        self.facts.second = true;
        self.hooks.second = Some(Arc::new(move |site| Box::pin(second(site))));
        self
    }

    /// Lets the kit change stored bytes: `corrupt` reads those of a key, writes back what its last argument makes
    /// of them, and says whether there were any. The store has to find out.
    pub fn corrupt(
        mut self,
        corrupt: impl Fn(&S, &S::Key, &mut dyn FnMut(Vec<u8>) -> Vec<u8>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.facts.corrupts = true;
        self.hooks.corrupt = Some(Arc::new(corrupt));
        self
    }

    /// Lets the kit take away what the store stands on (`true`), and give it back (`false`).
    pub fn outage(mut self, outage: impl Fn(&S, bool) + Send + Sync + 'static) -> Self {
        self.facts.outages = true;
        self.hooks.outage = Some(Arc::new(outage));
        self
    }

    /// Runs over real time: tasks on a tokio runtime of several threads, the system's clock, and as many cases a law
    /// as `budget` has room for, at most [`cases`](Self::cases). For stores that need a reactor, a server or a disk.
    /// Each case clears its stores at its end. A case may take as long as [`patience`](Self::patience) allows.
    pub fn real_time(mut self, budget: Duration) -> Self {
        self.lane = Lane::Real;
        self.settings.budget = Some(budget);
        self
    }

    /// Runs one case again in place of all others, as the `LARDER_REPLAY` of a failure names it.
    pub fn replay(mut self, replay: impl Into<String>) -> Self {
        self.settings.replay = Some(replay.into());
        self
    }

    /// Runs every law, and tells what became of it.
    ///
    /// # Panics
    /// If a skip or [`only`](Self::only) names no law, or a promise cannot be tried: the message says what to write.
    pub fn run(&self) -> Report {
        let laws = all();
        let names: Vec<_> = laws.iter().map(|law| law.name).collect();
        self.settings.know(&names);
        self.consistent();
        let rows = laws.into_iter().filter(|law| self.settings.wants(law.name)).map(|law| {
            if let Some(row) = self.settings.skipped(law.name) {
                return row;
            }
            if let Some(why) = (law.unfit)(&self.facts, self.lane) {
                return LawReport::skipped(law.name.name, why);
            }
            let mut settings = self.settings.clone();
            settings.cases = settings.cases.div_ceil(law.one_in);
            if self.lane == Lane::Real {
                // The case's own limit comes first.
                settings.patience *= 3;
            }
            let (lab, facts) = (self.lab(law.name.name), self.facts.clone());
            let (plans, judge) = (law.plans, law.judge);
            runner::run(&settings, law.name, move || plans(&facts), move |plan| judge(&lab, plan))
        });
        let rows = rows.collect();
        let notes = if self.settings.only.is_some() { Vec::new() } else { self.notes() };
        Report::new(&self.settings.name, rows, notes)
    }

    /// Promises that could not be tried are refused, so that nobody believes that they were.
    fn consistent(&self) {
        let facts = &self.facts;
        assert!(
            facts.order.is_none() || facts.max_entries.is_some_and(|max| max <= 64),
            "{}: `evicts` is tried on a store of at most 64 entries; write `.max_entries(n)`, and make it as small",
            self.settings.name
        );
        assert!(
            facts.largest.is_none() || facts.sized,
            "{}: `largest_value` needs values that have a length; implement `SampleValue::sized` for them",
            self.settings.name
        );
        assert!(
            facts.max_entries != Some(0) && facts.max_bytes != Some(0),
            "{}: a store that holds nothing keeps nothing; say `.forgets()` and no bound",
            self.settings.name
        );
    }

    /// What is kept and was not promised.
    pub(crate) fn notes(&self) -> Vec<String> {
        let lab = self.lab("notes");
        let probe =
            fixed([Op::Set(Draft::lasting(0)), Op::Peek(0), Op::Len, Op::Weight, Op::Advance(7), Op::Get(0)]);
        let guarded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lab.run(&probe)));
        let Ok(trace) = guarded else { return Vec::new() };
        let answer =
            |index: usize| trace.events.get(index).and_then(|event| event.answers().first().cloned());
        let facts = &self.facts;
        let mut notes = Vec::new();
        if !facts.peeks && matches!(answer(1), Some(One::Shown(Some(_)))) {
            notes.push("it answers `peek_with`: promise it with `peeks()`".to_owned());
        }
        if !facts.counts && matches!(answer(2), Some(One::Number(Some(_)))) {
            notes.push("it knows its `len`: promise it with `counts()`".to_owned());
        }
        if !facts.weighs && matches!(answer(3), Some(One::Number(Some(_)))) {
            notes.push("it knows its `weight`: promise it with `weighs()`".to_owned());
        }
        let kept = matches!(answer(0), Some(One::Stored)) && facts.retains(1);
        if !facts.expires && kept && self.lane == Lane::Virtual && answer(5) == Some(One::Saw(None)) {
            notes.push("it drops what is dead: promise it with `expires()`".to_owned());
        }
        notes
    }

    fn lab(&self, law: &'static str) -> Lab {
        let (make, cast) = (self.make(), Arc::clone(&self.cast));
        let worlds = move |shape, namespace, clock| {
            Arc::new(Typed::new(Arc::clone(&make), Arc::clone(&cast), shape, namespace, clock)) as Arc<_>
        };
        // What waits in vain is told so before the watch over the whole case takes it for blocked.
        let limit = if self.lane == Lane::Real { self.settings.patience } else { self.settings.patience / 2 };
        Lab::new(self.facts.clone(), self.lane, Arc::new(worlds), law, limit)
    }

    fn make(&self) -> Arc<Make<S::Key, S::Value>> {
        let hooks = self.hooks.clone();
        Arc::new(move |site, role, shape| {
            let construct = match role {
                Role::Fresh => &hooks.fresh,
                Role::Reopened => hooks.reopen.as_ref().unwrap_or(&hooks.fresh),
                Role::SecondClient => hooks.second.as_ref().unwrap_or(&hooks.fresh),
            };
            let (making, hooks) = (construct(site), hooks.clone());
            Box::pin(async move {
                let store = Arc::new(making.await);
                let aside = hooks.aside(&store);
                Instance { store: shaped(store, shape), aside }
            })
        })
    }
}

impl<S> Check<S>
where
    S: Evict<Key: Key<Owned: Debug>, Value: PartialEq + Debug> + 'static,
{
    /// Promises what [`Evict`] asks: one entry less a call, until there is none. A store without the capability has
    /// no such method:
    ///
    /// ```compile_fail
    /// use larder::Single;
    /// use larder::testkit::check;
    ///
    /// let check = check("single", |_| Single::<str, String>::new()).evicts_on_demand();
    /// ```
    pub fn evicts_on_demand(mut self) -> Self {
        self.facts.evicts = true;
        self.hooks.evict = Some(Arc::new(|store: &S| store.evict()));
        self
    }
}

impl<S> Check<S>
where
    S: ClearPrefix + Store<Value: PartialEq + Debug> + 'static,
{
    /// Promises what [`ClearPrefix`] asks: exactly the keys that begin with the prefix go.
    pub fn clears_prefixes(mut self) -> Self {
        self.facts.clears_prefixes = true;
        self.facts.texts = self.cast.corpus.iter().map(|key| key.as_str().to_owned()).collect();
        let clear = |store: Arc<S>, prefix: String| {
            Box::pin(async move { store.clear_prefix(&prefix).await }) as BoxFuture<'static, Result<()>>
        };
        self.hooks.clear_prefix = Some(Arc::new(clear));
        self
    }
}

impl<S: Store + 'static> Hooks<S> {
    /// The hooks of one store.
    fn aside(&self, store: &Arc<S>) -> Aside<S::Key> {
        let of = || Arc::clone(store);
        let corrupt = self.corrupt.clone().map(|corrupt| {
            let store = of();
            Box::new(move |key: &S::Key, change: &mut dyn FnMut(Vec<u8>) -> Vec<u8>| {
                corrupt(&store, key, change)
            }) as Box<_>
        });
        let outage = self.outage.clone().map(|outage| {
            let store = of();
            Box::new(move |down| outage(&store, down)) as Box<_>
        });
        let evict = self.evict.clone().map(|evict| {
            let store = of();
            Box::new(move || evict(&store)) as Box<_>
        });
        let clear_prefix = self.clear_prefix.clone().map(|clear| {
            let store = of();
            Box::new(move |prefix| clear(Arc::clone(&store), prefix)) as Box<_>
        });
        Aside { corrupt, outage, evict, clear_prefix }
    }
}

impl<S: Store> Clone for Hooks<S> {
    fn clone(&self) -> Self {
        Self {
            fresh: Arc::clone(&self.fresh),
            reopen: self.reopen.clone(),
            second: self.second.clone(),
            corrupt: self.corrupt.clone(),
            outage: self.outage.clone(),
            evict: self.evict.clone(),
            clear_prefix: self.clear_prefix.clone(),
        }
    }
}

/// The store as a law wants it, its type forgotten.
fn shaped<S: Store + 'static>(store: Arc<S>, shape: Shape) -> BoxStore<S::Key, S::Value> {
    match shape {
        Shape::Plain => BoxStore::new(store),
        Shape::Minimal => BoxStore::new(Minimal(store)),
        Shape::Reference => BoxStore::new(Reference(store)),
        Shape::Boxed => BoxStore::new(Box::new(BoxStore::new(store))),
        Shape::Inspected => BoxStore::new(Inspect::new(store, |_| ())),
        Shape::Uncapped => BoxStore::new(FreshForAtMost::new(store, Duration::MAX)),
        Shape::OneShard => match Sharded::new(1, |_| Arc::clone(&store)) {
            Ok(sharded) => BoxStore::new(sharded),
            // One shard is never too many.
            Err(_) => BoxStore::new(store),
        },
        Shape::UnderNull => BoxStore::new(Chain::new(Null::new(), store)),
        Shape::OverNull => BoxStore::new(Chain::new(store, Null::new())),
        Shape::UnderMemory => BoxStore::new(Chain::new(Memory::new(2), store)),
    }
}

impl<S: Store> Debug for Check<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.settings.name)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Lets a macro call a closure whose argument's type it cannot name.
#[doc(hidden)]
pub fn configured<C>(check: C, configure: impl FnOnce(C) -> C) -> C {
    configure(check)
}

/// The laws of one [`conformance!`](crate::testkit::conformance), each a test, gathered for one table.
#[doc(hidden)]
#[derive(Debug)]
pub struct Session {
    laws: &'static [&'static str],
    rows: crate::sync::Mutex<Vec<LawReport>>,
}

impl Session {
    pub const fn new(laws: &'static [&'static str]) -> Self {
        Self { laws, rows: crate::sync::Mutex::new(Vec::new()) }
    }

    /// Runs one law; with the last one, prints the table.
    ///
    /// # Panics
    /// With the failure, if the law is broken.
    #[track_caller]
    pub fn run<S>(&self, check: Check<S>, law: &'static str)
    where
        S: Store<Key: Key<Owned: Debug>, Value: PartialEq + Debug> + 'static,
    {
        let check = check.only(law);
        let report = check.run();
        let row = report.laws().iter().find(|row| row.law == law).cloned();
        let Some(row) = row else { panic!("the kit has no law named `{law}`") };
        let rows = {
            let mut rows = self.rows.lock();
            rows.push(row);
            if rows.len() == self.laws.len() { std::mem::take(&mut *rows) } else { Vec::new() }
        };
        if !rows.is_empty() {
            let mut rows = rows;
            rows.sort_by_key(|row| self.laws.iter().position(|law| *law == row.law));
            let table = Report::new(report.name(), rows, check.notes()).table();
            // Past the capture of the test harness, which shows nothing of a test that passes.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("\n{table}\n\n").as_bytes());
        }
        assert!(report.is_kept(), "\n{report}");
    }

    /// The laws that are tests.
    pub const fn laws(&self) -> &'static [&'static str] {
        self.laws
    }
}
