//! Laws between compositions: two stacks that nobody can tell apart (C7, D1).
//!
//! To add one for a new adapter, add a line to [`equations`].

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::adapters::{FreshForAtMost, Null, Sharded, Tagged};
use crate::codec::Postcard;
use crate::describe::Description;
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::ext::StoreExt;
use crate::memory::{Lru, Memory, Single};
use crate::store::{SetOutcome, Store};
use crate::testkit::minimal::Minimal;
use crate::testkit::model::Model;
use crate::testkit::race::Ground;
use crate::testkit::report::LawReport;
use crate::testkit::runner::{Finding, LawName, Settings, run};
use crate::testkit::script::{
    self, Answer, Ask, Columns, Dice, Kind, NAMES, NONE, Player, Script, block, whole,
};
use crate::testkit::stacks::plan::{StackPlan, lossless_stack};
use crate::time::{Clock, ManualClock, Timestamp};

/// Every equation, a line each: the name of the law, one side, the other.
#[rustfmt::skip]
#[expect(clippy::redundant_closure_for_method_calls, reason = "the methods are of parts with one lifetime")]
pub(crate) fn equations() -> Vec<Equation> {
    vec![
        equation("c7_chain_is_associative", |p| p.a().chain(p.b()).chain(p.c()), |p| p.a().chain(p.b().chain(p.c()))).planted(),
        equation("c7_strict_chain_is_associative", |p| p.a().chain(p.b()).strict().chain(p.c()).strict(), |p| p.a().chain(p.b().chain(p.c()).strict()).strict()).planted(),
        equation("c7_three_chains_are_associative", |p| p.a().chain(p.b()).chain(p.b().chain(p.c())), |p| p.a().chain(p.b().chain(p.b()).chain(p.c()))).planted(),
        equation("c7_null_above_is_neutral", |p| Null::new().chain(p.a()), |p| p.a()).planted().but_peeks(),
        equation("c7_null_below_is_neutral", |p| p.a().chain(Null::new()), |p| p.a()).planted(),
        equation("c7_null_between_is_neutral", |p| p.a().chain(Null::new()).chain(p.c()), |p| p.a().chain(p.c())).planted(),
        equation("c5_strict_equals_chain_while_healthy", |p| p.a().chain(p.c()).strict(), |p| p.a().chain(p.c())).planted(),
        equation("c4_chain_equals_its_deepest_tier", |p| p.a().chain(p.b()), |p| p.b()).forgetful().but_peeks(),
        equation("c4_chain_of_a_store_with_itself_is_the_store", |p| { let a = p.a(); Arc::clone(&a).chain(a) }, |p| p.a()).planted(),
        equation("d1_sharded_equals_unsharded", |p| sharded(p, |_| p.a()), |p| p.a()).forgetful(),
        equation("d1_one_shard_is_the_store", |p| sharded_in(1, |_| p.a()), |p| p.a()).forgetful(),
        equation("d1_shards_of_chains_equal_a_chain_of_shards", |p| sharded(p, |_| p.a().chain(p.c())), |p| sharded(p, |_| p.a()).chain(sharded(p, |_| p.c()))).forgetful(),
        equation("d1_encoded_is_identity", |_| bytes().encoded(Postcard), |_| memory()),
        equation("d1_bounded_by_infinity_is_identity", |_| memory().byte_limited(u64::MAX), |_| memory()),
        equation("d1_a_wider_limit_inside_adds_nothing", |p| lru().byte_limited(p.sides.bytes + 300).byte_limited(p.sides.bytes), |p| lru().byte_limited(p.sides.bytes)),
        equation("d1_two_prefixes_equal_one", |_| memory().prefixed("p:").prefixed("a"), |_| memory().prefixed("p:a")),
        equation("d1_empty_prefix_is_identity", |_| memory().prefixed(""), |_| memory()),
        equation("d1_prefix_is_a_store_of_its_own", |_| memory().chain(lru()).prefixed("p:"), |_| memory().chain(lru())),
        equation("d1_prefix_and_encoding_commute", |_| bytes().encoded(Postcard).prefixed("p:"), |_| bytes().prefixed("p:").encoded(Postcard)),
        equation("d1_prefix_and_shards_commute", |p| sharded(p, |_| memory()).prefixed("p:"), |p| sharded(p, |_| memory().prefixed("p:"))),
        equation("d1_inspect_is_identity", |p| p.a().inspect(|_| ()), |p| p.a()).forgetful(),
        equation("d1_boxed_is_identity", |p| p.a().boxed(), |p| p.a()).forgetful(),
        equation("d1_arc_is_identity", |p| Arc::new(p.a()), |p| p.a()).forgetful(),
        equation("d1_box_is_identity", |p| Box::new(p.a()), |p| p.a()).forgetful(),
        equation("d1_reference_is_identity", |p| ByRef(p.a()), |p| p.a()).forgetful(),
        equation("d1_minimal_equals_its_store", |p| Minimal(p.a()), |p| p.a()).forgetful().but_peeks(),
        equation("c9_no_cap_is_identity", |p| cap(p.a(), Duration::MAX, p), |p| p.a()).forgetful(),
        equation("c9_cap_of_cap_is_the_smaller_cap", |p| cap(cap(p.a(), p.sides.cap(), p), p.sides.other_cap(), p), |p| cap(p.a(), p.sides.cap().min(p.sides.other_cap()), p)),
        equation("c9_cap_of_a_chain_caps_its_tiers", |p| cap(p.a().chain(p.c()), p.sides.cap(), p), |p| cap(p.a(), p.sides.cap(), p).chain(cap(p.c(), p.sides.cap(), p))),
        equation("c9_cap_and_inspect_commute", |p| cap(p.a(), p.sides.cap(), p).inspect(|_| ()), |p| cap(p.a().inspect(|_| ()), p.sides.cap(), p)).forgetful(),
        equation("d1_tagged_with_nothing_invalidated_is_identity", |p| tagged(p.a(), Model::remote(), p), |p| p.a()).forgetful(),
        equation("d1_what_is_tagged_twice_is_tagged", |p| tagged(tagged(p.a(), p.removals(), p), p.removals(), p), |p| tagged(p.a(), p.removals(), p)).forgetful(),
        equation("t1_tags_and_prefix_commute", |p| tagged(memory(), p.instants(), p).prefixed("p:"), |p| tagged(memory().prefixed("p:"), p.instants(), p)),
        equation("t1_tags_and_encoding_commute", |p| tagged(bytes(), p.instants(), p).encoded(Postcard), |p| tagged(bytes().encoded(Postcard), p.instants(), p)),
        equation("t1_tags_and_shards_commute", |p| tagged(sharded(p, |_| p.a()), p.instants(), p), |p| sharded(p, |_| tagged(p.a(), p.instants(), p))).forgetful(),
        equation("t1_tags_and_cap_commute", |p| cap(tagged(p.a(), p.instants(), p), p.sides.cap(), p), |p| tagged(cap(p.a(), p.sides.cap(), p), p.instants(), p)),
        equation("s3_no_room_is_null", |_| Memory::new(0), |_| Null::new()),
        equation("s3_single_equals_room_for_one", |_| Single::new(), |_| Lru::new(1)),
    ]
}

/// Two stacks that are one.
pub(crate) struct Equation {
    pub(crate) law: LawName,
    left: Side,
    right: Side,
    peeks: bool,
    planted: bool,
    forgets: bool,
}

type Side = Box<dyn Fn(&Parts<'_>) -> BoxStore<str, u64> + Send + Sync>;

fn equation<L, R>(
    name: &'static str,
    left: impl Fn(&Parts<'_>) -> L + Send + Sync + 'static,
    right: impl Fn(&Parts<'_>) -> R + Send + Sync + 'static,
) -> Equation
where
    L: Store<Key = str, Value = u64> + 'static,
    R: Store<Key = str, Value = u64> + 'static,
{
    let why = "whoever rewrites a stack into an equal one expects that nobody notices";
    Equation {
        law: LawName { name, why },
        left: Box::new(move |parts| left(parts).boxed()),
        right: Box::new(move |parts| right(parts).boxed()),
        peeks: true,
        planted: false,
        forgets: false,
    }
}

impl Equation {
    /// A side may answer fewer peeks than the other.
    fn but_peeks(mut self) -> Self {
        self.peeks = false;
        self
    }

    /// The parts hold entries from elsewhere before they are joined, and `a` and `c` forget now and then. Reads
    /// are at an instant: what a tier between happens to hold a copy of may differ, and `get` would show it.
    fn planted(mut self) -> Self {
        (self.planted, self.forgets) = (true, true);
        self
    }

    /// `a` and `c` forget now and then.
    fn forgetful(mut self) -> Self {
        self.forgets = true;
        self
    }

    /// Runs it.
    pub(crate) fn run(self, settings: &Settings) -> LawReport {
        let forgets = self.forgets;
        let planted = if self.planted { 5 } else { 0 };
        let draw = move |dice: &mut Dice| Script {
            over: sides(dice),
            plants: dice.some(planted, |dice| (dice.below(3), dice.below(3), dice.spec())),
            asks: dice.some(24, |dice| dice.ask(forgets)),
        };
        let scripts = move || script::by_dice(draw);
        run(settings, self.law, scripts, move |script| self.judge(script))
    }

    fn judge(&self, script: &Script<Sides>) -> Result<(), Finding> {
        let (one, other) = (Hand::new(&self.left, script), Hand::new(&self.right, script));
        let mut columns = Columns::new("one side", "the other");
        let cause = "an override, a routing or a copy that differs from what it stands for";
        let preface = || {
            let plants = script.plants.iter().map(|(part, key, spec)| {
                format!("part {part} holds {}\n", script::told(&Ask::Set(*key, *spec))) //
            });
            format!("over {:?}\n{}", script.over, plants.collect::<String>())
        };
        for ask in &script.asks {
            let ask = match ask {
                Ask::Get(key) if self.planted => &Ask::GetAt(*key),
                ask => ask,
            };
            let answers = [one.ask(ask), other.ask(ask)];
            columns.row(script::told(ask), &answers[0], &answers[1]);
            let pairs = answers[0].iter().zip(&answers[1]);
            if answers[0].len() != answers[1].len()
                || !pairs.into_iter().all(|(one, other)| self.same(one, other))
            {
                return Err(columns.finding(&preface(), cause));
            }
        }
        for part in [0, 2] {
            for name in NAMES {
                let held = [one.held(part, name), other.held(part, name)];
                if let [Some(one), Some(other)] = held
                    && one != other
                {
                    columns.row(format!("in the end, part {part} under {name:?}"), &[one], &[other]);
                    return Err(columns.finding(&preface(), cause));
                }
            }
        }
        Ok(())
    }

    fn same(&self, one: &Answer, other: &Answer) -> bool {
        let unknown = one.text == NONE || other.text == NONE;
        let lenient = match one.kind {
            Kind::Peek => !self.peeks,
            Kind::Count => true,
            Kind::Read | Kind::Done => false,
        };
        one == other || lenient && unknown
    }
}

/// One side at play.
struct Hand<'a> {
    store: BoxStore<str, u64>,
    parts: Parts<'a>,
}

impl<'a> Hand<'a> {
    fn new(side: &Side, script: &'a Script<Sides>) -> Self {
        let clock = ManualClock::new(Timestamp::from_nanos(100));
        let parts = Parts { sides: &script.over, plants: &script.plants, clock, built: RefCell::default() };
        Self { store: side(&parts), parts }
    }

    fn ask(&self, ask: &Ask) -> Vec<Answer> {
        let forget = |part: u8, name: &str| {
            for (_, store) in self.parts.built.borrow().iter().filter(|(built, _)| *built == part) {
                // A healthy part: the answer is known.
                let _ = block(store.remove(name));
            }
        };
        let player = Player {
            store: &self.store,
            clock: &self.parts.clock,
            make: u64::from,
            show: whole,
            forget: &forget,
        };
        player.ask(ask)
    }

    /// What the part holds under this key; of several parts of one number (shards), the first that holds any.
    fn held(&self, part: u8, name: &str) -> Option<Answer> {
        let built = self.parts.built.borrow();
        let stores: Vec<_> = built.iter().filter(|(number, _)| *number == part).collect();
        stores.first()?;
        let found =
            stores.iter().find_map(|(_, store)| block(store.get(name)).and_then(Result::ok).flatten());
        Some(Answer { kind: Kind::Read, text: found.map_or_else(|| NONE.to_owned(), |entry| whole(&entry)) })
    }
}

/// What the sides are made of.
pub(crate) struct Parts<'a> {
    sides: &'a Sides,
    plants: &'a [(u8, u8, script::Spec)],
    clock: ManualClock,
    built: RefCell<Vec<(u8, Part)>>,
}

type Part = Arc<BoxStore<str, u64>>;

impl Parts<'_> {
    /// A random stack that forgets nothing of its own accord; the same plan on both sides.
    fn a(&self) -> Part {
        self.part(0, &self.sides.a)
    }

    fn b(&self) -> Part {
        self.part(1, &self.sides.b)
    }

    fn c(&self) -> Part {
        self.part(2, &self.sides.c)
    }

    /// A tag store that knows of a removal soon after the beginning, of one tag of those that entries have.
    fn removals(&self) -> Model<str, Timestamp> {
        let instants = Model::remote();
        let at = self.clock.now().saturating_add(Duration::from_nanos(3));
        instants.plant("removed:t", Entry::new(at, Lifetime::forever(at)));
        instants
    }

    /// The same, and of an expiry of the other. Once aged, an entry may be a tick older than it was, so this is
    /// not for two layers of tags.
    fn instants(&self) -> Model<str, Timestamp> {
        let instants = self.removals();
        let at = self.clock.now().saturating_add(Duration::from_nanos(6));
        instants.plant("expired:s", Entry::new(at, Lifetime::forever(at)));
        instants
    }

    fn part(&self, number: u8, plan: &StackPlan) -> Part {
        let part = Arc::new(plan.build(&self.clock).0);
        for (_, key, spec) in self.plants.iter().filter(|(part, ..)| *part == number) {
            let entry = spec.entry(self.clock.now(), u64::from);
            // A healthy part: the answer is known.
            let _ = block(part.set(script::name(*key), entry));
        }
        self.built.borrow_mut().push((number, Arc::clone(&part)));
        part
    }
}

fn memory() -> Memory<str, u64> {
    Memory::new(1000)
}

fn lru() -> Lru<str, u64> {
    Lru::new(1000)
}

fn bytes() -> Memory<str, Bytes> {
    Memory::new(1000)
}

fn cap<S: Store>(store: S, limit: Duration, parts: &Parts<'_>) -> FreshForAtMost<S> {
    FreshForAtMost::new(store, limit).clock(parts.clock.clone())
}

#[expect(clippy::expect_used, reason = "an age of for ever is none too short")]
fn tagged<S: Store>(
    store: S,
    instants: Model<str, Timestamp>,
    parts: &Parts<'_>,
) -> Tagged<S, Model<str, Timestamp>> {
    let tagged = Tagged::new(store, instants).clock(parts.clock.clone());
    tagged.max_age(Duration::MAX).expect("it is not zero")
}

fn sharded<S>(parts: &Parts<'_>, make: impl Fn(usize) -> S) -> Sharded<S> {
    sharded_in(parts.sides.shards.into(), make)
}

#[expect(clippy::expect_used, reason = "no plan has more shards than a byte counts")]
fn sharded_in<S>(shards: usize, make: impl Fn(usize) -> S) -> Sharded<S> {
    Sharded::new(shards.max(1), |share| make(share.index())).expect("there are 1 to 255")
}

/// A store that is only ever called through `&S`.
struct ByRef<S>(S);

impl<S: Store> Store for ByRef<S> {
    type Key = S::Key;
    type Value = S::Value;

    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        <&S as Store>::get(&&self.0, key).await
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        <&S as Store>::set(&&self.0, key, entry).await
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        <&S as Store>::renew(&&self.0, key, entry).await
    }

    async fn remove(&self, key: &S::Key) -> Result<()> {
        <&S as Store>::remove(&&self.0, key).await
    }

    async fn clear(&self) -> Result<()> {
        <&S as Store>::clear(&&self.0).await
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        <&S as Store>::get_at(&&self.0, key, now).await
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        <&S as Store>::peek_with(&&self.0, key, read)
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        <&S as Store>::get_many(&&self.0, keys, now).await
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        <&S as Store>::set_many(&&self.0, entries).await
    }

    async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        <&S as Store>::remove_many(&&self.0, keys).await
    }

    fn len(&self) -> Option<u64> {
        <&S as Store>::len(&&self.0)
    }

    fn weight(&self) -> Option<u64> {
        <&S as Store>::weight(&&self.0)
    }

    async fn flush(&self) -> Result<()> {
        <&S as Store>::flush(&&self.0).await
    }

    fn describe(&self) -> Description {
        <&S as Store>::describe(&&self.0)
    }
}

/// Plans for the parts, and numbers for the sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sides {
    a: StackPlan,
    b: StackPlan,
    c: StackPlan,
    shards: u8,
    caps: (u8, u8),
    bytes: u64,
}

impl Sides {
    fn cap(&self) -> Duration {
        Duration::from_nanos(self.caps.0.into())
    }

    fn other_cap(&self) -> Duration {
        Duration::from_nanos(self.caps.1.into())
    }
}

impl Ground for Sides {
    fn simpler(&self) -> Vec<Self> {
        let mut found = Vec::new();
        found.extend(self.a.simpler().into_iter().map(|a| Self { a, ..self.clone() }));
        found.extend(self.b.simpler().into_iter().map(|b| Self { b, ..self.clone() }));
        found.extend(self.c.simpler().into_iter().map(|c| Self { c, ..self.clone() }));
        if self.shards > 1 {
            found.push(Self { shards: self.shards - 1, ..self.clone() });
        }
        found
    }
}

fn sides(dice: &mut Dice) -> Sides {
    let mut plan = || lossless_stack(dice, 3);
    let (a, b, c) = (plan(), plan(), plan());
    let caps = (dice.below(6), dice.below(6));
    Sides { a, b, c, shards: 1 + dice.below(4), caps, bytes: 5 * u64::from(dice.below(120)) }
}
