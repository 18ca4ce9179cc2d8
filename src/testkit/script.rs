//! Calls of one task, as plain data, and what a store answers to them, in words.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::testkit::race::Ground;
use crate::testkit::runner::{Case, Finding};
use crate::time::{Clock, ManualClock, Timestamp};

/// Keys that like to meet: parts of each other, of prefixes and of paths, alike but for case or form.
pub(crate) const NAMES: [&str; 20] = [
    "a", "b", "", "ab", "a:", "a:b", ":b", "p", "p:", "p:a", "A", "\0", "a\0", "*", "a?[b]", "../a", "a/b",
    "\u{e9}", "e\u{301}", "%61",
];

/// The output of `future`, polled on the spot; `None` if nobody would wake it in time.
pub(crate) fn block<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    // A yield is a poll; a store that takes so many hangs or spins.
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
    }
    None
}

/// An entry as plain data: ticks for which it is fresh, 255 for ever; its two other windows are one tick each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) value: u8,
    pub(crate) fresh: u8,
    pub(crate) rare: bool,
}

impl Spec {
    /// The entry, created at `now`.
    pub(crate) fn entry<V>(self, now: Timestamp, make: fn(u8) -> V) -> Entry<V> {
        let after = |ticks: u64| {
            let ticks = if self.fresh == u8::MAX { u64::MAX } else { ticks };
            now.saturating_add(Duration::from_nanos(ticks))
        };
        let fresh = u64::from(self.fresh);
        let lifetime = Lifetime::new(now, after(fresh), after(fresh + 1), after(fresh + 2));
        let entry = Entry::new(make(self.value), lifetime);
        if self.rare { entry.with_version(self.value.to_string()).with_tags(["t", "s"]) } else { entry }
    }
}

/// One call. Keys are places in [`NAMES`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    Get(u8),
    GetAt(u8),
    Peek(u8),
    Set(u8, Spec),
    Renew(u8, Spec),
    Remove(u8),
    Clear,
    GetMany(Vec<u8>),
    SetMany(Vec<(u8, Spec)>),
    RemoveMany(Vec<u8>),
    Count,
    Weight,
    Flush,
    /// So many ticks pass.
    Pass(u8),
    /// A part of the store forgets a key, as by an eviction.
    Forget(u8, u8),
}

/// The name of a key.
pub(crate) fn name(key: u8) -> &'static str {
    NAMES[usize::from(key) % NAMES.len()]
}

/// Calls, and what the store held before them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Script<G> {
    pub(crate) over: G,
    /// Entries by part and key.
    pub(crate) plants: Vec<(u8, u8, Spec)>,
    pub(crate) asks: Vec<Ask>,
}

impl<G: Ground> Case for Script<G> {
    fn simpler(&self) -> Vec<Self> {
        let mut found = vec![];
        if !self.asks.is_empty() {
            let half = self.asks.len() / 2;
            found.push(Self { asks: self.asks[..half].to_vec(), ..self.clone() });
            found.push(Self { asks: self.asks[half.max(1)..].to_vec(), ..self.clone() });
        }
        for place in 0..self.asks.len() {
            let mut script = self.clone();
            script.asks.remove(place);
            found.push(script);
        }
        for place in 0..self.plants.len() {
            let mut script = self.clone();
            script.plants.remove(place);
            found.push(script);
        }
        found.extend(self.over.simpler().into_iter().map(|over| Self { over, ..self.clone() }));
        for (place, ask) in self.asks.iter().enumerate() {
            for simple in simpler_ask(ask) {
                let mut script = self.clone();
                script.asks[place] = simple;
                found.push(script);
            }
        }
        for (place, (part, key, spec)) in self.plants.iter().enumerate() {
            for spec in simpler_spec(*spec) {
                let mut script = self.clone();
                script.plants[place] = (*part, *key, spec);
                found.push(script);
            }
        }
        found
    }

    fn steps(&self) -> usize {
        self.asks.len() + self.plants.len()
    }
}

fn simpler_spec(spec: Spec) -> Vec<Spec> {
    let mut found = Vec::new();
    if spec.rare {
        found.push(Spec { rare: false, ..spec });
    }
    if spec.value > 0 {
        found.push(Spec { value: spec.value / 2, ..spec });
        found.push(Spec { value: spec.value - 1, ..spec });
    }
    if spec.fresh > 0 && spec.fresh < u8::MAX {
        found.push(Spec { fresh: spec.fresh - 1, ..spec });
    }
    found
}

fn simpler_ask(ask: &Ask) -> Vec<Ask> {
    let lower = |key: u8| if key > 0 { vec![0, key - 1] } else { vec![] };
    let shorter = |keys: &[u8]| -> Vec<Vec<u8>> {
        let without = |place| [&keys[..place], &keys[place + 1..]].concat();
        (0..keys.len()).map(without).collect()
    };
    match ask {
        Ask::Get(key) => lower(*key).into_iter().map(Ask::Get).collect(),
        Ask::GetAt(key) => vec![Ask::Get(*key)],
        Ask::Peek(key) => lower(*key).into_iter().map(Ask::Peek).collect(),
        Ask::Set(key, spec) => {
            let keys = lower(*key).into_iter().map(|key| Ask::Set(key, *spec));
            keys.chain(simpler_spec(*spec).into_iter().map(|spec| Ask::Set(*key, spec))).collect()
        }
        Ask::Renew(key, spec) => vec![Ask::Set(*key, *spec)],
        Ask::Remove(key) => lower(*key).into_iter().map(Ask::Remove).collect(),
        Ask::GetMany(keys) => {
            let single = keys.first().map(|key| Ask::GetAt(*key)).filter(|_| keys.len() == 1);
            single.into_iter().chain(shorter(keys).into_iter().map(Ask::GetMany)).collect()
        }
        Ask::SetMany(entries) => {
            let single =
                entries.first().map(|(key, spec)| Ask::Set(*key, *spec)).filter(|_| entries.len() == 1);
            let fewer = (0..entries.len()).map(|place| {
                let mut entries = entries.clone();
                entries.remove(place);
                Ask::SetMany(entries)
            });
            single.into_iter().chain(fewer).collect()
        }
        Ask::RemoveMany(keys) => {
            let single = keys.first().map(|key| Ask::Remove(*key)).filter(|_| keys.len() == 1);
            single.into_iter().chain(shorter(keys).into_iter().map(Ask::RemoveMany)).collect()
        }
        Ask::Pass(by) if *by > 1 => vec![Ask::Pass(1)],
        _ => Vec::new(),
    }
}

/// What kind of answer it is: what may differ, and how far, depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Peek,
    Count,
    Done,
}

/// One answer in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

/// No entry, no number.
pub(crate) const NONE: &str = "none";

/// Who answers: a store, its clock, its parts, and how values are made and entries put into words.
pub(crate) struct Player<'a, S: Store<Key = str>> {
    pub(crate) store: &'a S,
    pub(crate) clock: &'a ManualClock,
    pub(crate) make: fn(u8) -> S::Value,
    pub(crate) show: fn(&Entry<S::Value>) -> String,
    pub(crate) forget: &'a dyn Fn(u8, &str),
}

impl<S: Store<Key = str>> Player<'_, S> {
    /// The answers to one call, one a key.
    pub(crate) fn ask(&self, ask: &Ask) -> Vec<Answer> {
        let (store, now) = (self.store, self.clock.now());
        let names = |keys: &[u8]| keys.iter().map(|key| name(*key)).collect::<Vec<_>>();
        let one = |answer| vec![answer];
        match ask {
            Ask::Get(key) => one(self.read(block(store.get(name(*key))))),
            Ask::GetAt(key) => one(self.read(block(store.get_at(name(*key), now)))),
            Ask::Peek(key) => {
                let text = store.peek_with(name(*key), self.show).unwrap_or_else(|| NONE.to_owned());
                one(Answer { kind: Kind::Peek, text })
            }
            Ask::Set(key, spec) => one(written(block(store.set(name(*key), spec.entry(now, self.make))))),
            Ask::Renew(key, spec) => one(written(block(store.renew(name(*key), spec.entry(now, self.make))))),
            Ask::Remove(key) => one(done(block(store.remove(name(*key))))),
            Ask::Clear => one(done(block(store.clear()))),
            Ask::GetMany(keys) => {
                let found = block(store.get_many(&names(keys), now));
                found.map_or_else(hung, |found| found.into_iter().map(|one| self.read(Some(one))).collect())
            }
            Ask::SetMany(entries) => {
                let make = |(key, spec): &(u8, Spec)| (name(*key), spec.entry(now, self.make));
                let entries: Vec<_> = entries.iter().map(make).collect();
                let set = block(store.set_many(&entries));
                set.map_or_else(hung, |set| set.into_iter().map(|one| written(Some(one))).collect())
            }
            Ask::RemoveMany(keys) => {
                let removed = block(store.remove_many(&names(keys)));
                removed.map_or_else(hung, |removed| removed.into_iter().map(|one| done(Some(one))).collect())
            }
            Ask::Count => one(counted(store.len())),
            Ask::Weight => one(counted(store.weight())),
            Ask::Flush => one(done(block(store.flush()))),
            Ask::Pass(by) => {
                self.clock.advance(Duration::from_nanos((*by).into()));
                Vec::new()
            }
            Ask::Forget(part, key) => {
                (self.forget)(*part, name(*key));
                Vec::new()
            }
        }
    }

    fn read(&self, found: Option<Result<Option<Entry<S::Value>>>>) -> Answer {
        let text = match found {
            None => HANGS.to_owned(),
            Some(Ok(None)) => NONE.to_owned(),
            Some(Ok(Some(entry))) => (self.show)(&entry),
            Some(Err(error)) => format!("error: {}", error.kind()),
        };
        Answer { kind: Kind::Read, text }
    }
}

fn counted(count: Option<u64>) -> Answer {
    let text = count.map_or_else(|| NONE.to_owned(), |count| count.to_string());
    Answer { kind: Kind::Count, text }
}

const HANGS: &str = "nothing: it hangs";

fn hung() -> Vec<Answer> {
    vec![Answer { kind: Kind::Done, text: HANGS.to_owned() }]
}

fn written(outcome: Option<Result<SetOutcome>>) -> Answer {
    let text = match outcome {
        None => HANGS.to_owned(),
        Some(Ok(SetOutcome::Stored)) => "stored".to_owned(),
        Some(Ok(SetOutcome::Refused(_))) => REFUSED.to_owned(),
        Some(Err(error)) => format!("error: {}", error.kind()),
    };
    Answer { kind: Kind::Done, text }
}

/// Whatever the reason.
pub(crate) const REFUSED: &str = "refused";

fn done(result: Option<Result<()>>) -> Answer {
    let text = match result {
        None => HANGS.to_owned(),
        Some(Ok(())) => "done".to_owned(),
        Some(Err(error)) => format!("error: {}", error.kind()),
    };
    Answer { kind: Kind::Done, text }
}

/// An entry in words, all of it.
pub(crate) fn whole<V: Debug>(entry: &Entry<V>) -> String {
    let deadlines =
        [entry.lifetime().fresh_until(), entry.lifetime().stale_until(), entry.lifetime().keep_until()];
    let [fresh, stale, keep] = deadlines.map(ticks);
    format!("{}, fresh to {fresh}, stale to {stale}, kept to {keep}", undated(entry))
}

/// An entry in words, but for its deadlines.
pub(crate) fn undated<V: Debug>(entry: &Entry<V>) -> String {
    let mut text = format!("{:?} of {}", entry.value(), ticks(entry.created_at()));
    if let Some(version) = entry.version() {
        text = format!("{text} v{version}");
    }
    if !entry.tags().is_empty() {
        text = format!("{text} {:?}", entry.tags());
    }
    text
}

fn ticks(at: Timestamp) -> String {
    if at.is_never() { "never".to_owned() } else { at.as_nanos().to_string() }
}

/// A call in words.
pub(crate) fn told(ask: &Ask) -> String {
    let names = |keys: &[u8]| {
        let names: Vec<_> = keys.iter().map(|key| format!("{:?}", name(*key))).collect();
        names.join(", ")
    };
    match ask {
        Ask::Get(key) => format!("get {:?}", name(*key)),
        Ask::GetAt(key) => format!("get_at {:?}", name(*key)),
        Ask::Peek(key) => format!("peek {:?}", name(*key)),
        Ask::Set(key, spec) => format!("set {:?} {}", name(*key), spec_told(*spec)),
        Ask::Renew(key, spec) => format!("renew {:?} {}", name(*key), spec_told(*spec)),
        Ask::Remove(key) => format!("remove {:?}", name(*key)),
        Ask::Clear => "clear".to_owned(),
        Ask::GetMany(keys) => format!("get_many {}", names(keys)),
        Ask::SetMany(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, spec)| format!("{:?} {}", name(*key), spec_told(*spec))).collect();
            format!("set_many {}", entries.join(", "))
        }
        Ask::RemoveMany(keys) => format!("remove_many {}", names(keys)),
        Ask::Count => "len".to_owned(),
        Ask::Weight => "weight".to_owned(),
        Ask::Flush => "flush".to_owned(),
        Ask::Pass(by) => format!("{by} ticks pass"),
        Ask::Forget(part, key) => format!("part {part} forgets {:?}", name(*key)),
    }
}

fn spec_told(spec: Spec) -> String {
    let fresh = if spec.fresh == u8::MAX { "ever".to_owned() } else { format!("{} ticks", spec.fresh) };
    format!("#{}{} (fresh for {fresh})", spec.value, if spec.rare { " with tags" } else { "" })
}

/// Two columns of answers to the same calls, as a timeline.
#[derive(Debug)]
pub(crate) struct Columns {
    heads: [String; 2],
    rows: Vec<[String; 3]>,
}

impl Columns {
    pub(crate) fn new(one: impl Into<String>, other: impl Into<String>) -> Self {
        Self { heads: [one.into(), other.into()], rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, what: impl Into<String>, one: &[Answer], other: &[Answer]) {
        let text = |answers: &[Answer]| {
            let texts: Vec<_> = answers.iter().map(|answer| answer.text.as_str()).collect();
            texts.join("; ")
        };
        self.rows.push([what.into(), text(one), text(other)]);
    }

    /// What it came to: the last row differs.
    pub(crate) fn finding(self, preface: &str, cause: &str) -> Finding {
        let [expected, got] = self
            .rows
            .last()
            .map(|[what, one, other]| [one, other].map(|answer| format!("{what}: {answer}"))) //
            .unwrap_or_default();
        let [one, other] = &self.heads;
        let mut rows = vec![[String::new(), one.clone(), other.clone()]];
        rows.extend(self.rows);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + 2;
        let [first, second] = [width(0), width(1)];
        let mut lines: Vec<_> = preface.lines().map(str::to_owned).collect();
        lines.extend(rows.iter().map(|[what, one, other]| format!("{what:first$}{one:second$}{other}")));
        Finding { timeline: lines.join("\n"), expected, got, cause: cause.to_owned() }
    }
}

/// Chance from a seed. Proptest draws the seed alone: a case makes itself smaller, and is drawn much faster.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of `0..sides`.
    pub(crate) fn below(&mut self, sides: u8) -> u8 {
        // SplitMix64, as in the schedules.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u8::try_from((mixed ^ (mixed >> 31)) % u64::from(sides.max(1))).unwrap_or(0)
    }

    pub(crate) fn chance(&mut self, one_in: u8) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn some<T>(&mut self, fewer_than: u8, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(fewer_than)).map(|_| draw(self)).collect()
    }

    /// A key: one of the first few, or any of [`NAMES`].
    pub(crate) fn key(&mut self) -> u8 {
        let all = u8::try_from(NAMES.len()).unwrap_or(u8::MAX);
        if self.below(5) < 3 { self.below(3) } else { self.below(all) }
    }

    /// An entry; now and then one that is fresh for ever.
    pub(crate) fn spec(&mut self) -> Spec {
        let fresh = if self.chance(9) { u8::MAX } else { self.below(5) };
        Spec { value: self.below(40), fresh, rare: self.chance(2) }
    }

    /// A call; `Forget` only if asked for.
    pub(crate) fn ask(&mut self, forgets: bool) -> Ask {
        match self.below(if forgets { 36 } else { 33 }) {
            0..4 => Ask::Get(self.key()),
            4..8 => Ask::GetAt(self.key()),
            8..10 => Ask::Peek(self.key()),
            10..17 => Ask::Set(self.key(), self.spec()),
            17..20 => Ask::Remove(self.key()),
            20 => Ask::Clear,
            21..23 => Ask::GetMany(self.some(5, Self::key)),
            23..25 => Ask::SetMany(self.some(5, |dice| (dice.key(), dice.spec()))),
            25 => Ask::RemoveMany(self.some(5, Self::key)),
            26 => Ask::Count,
            27 => Ask::Flush,
            28..31 => Ask::Pass(1 + self.below(4)),
            31..33 => Ask::Renew(self.key(), self.spec()),
            _ => Ask::Forget(2 * self.below(2), self.key()),
        }
    }
}

/// Cases that `draw` makes of a seed.
pub(crate) fn by_dice<T: Debug + 'static>(
    draw: impl Fn(&mut Dice) -> T + Send + Sync + 'static,
) -> BoxedStrategy<T> {
    any::<u64>().prop_map(move |seed| draw(&mut Dice::new(seed))).no_shrink().boxed()
}
