//! Whatever invalidates entries by their tags, judged by laws T1 to T5 (group T).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{InvalidateTags, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::model::Model;
use crate::testkit::race::race_clock;
use crate::testkit::report::{LawReport, Report};
use crate::testkit::runner::{Case, Finding, LawName, Settings, knobs, run};
use crate::testkit::script::{Dice, block, by_dice, whole};
use crate::testkit::stacks::row;
use crate::time::{Clock, ManualClock, Timestamp};

/// Judges what `make` builds on a store of entries and one of instants, by the laws of tags (T1 to T5).
///
/// It is made anew over the same two stores, as by a restart; the tag store fails and forgets as the kit tells it.
///
/// ```
/// use larder::Tagged;
/// use larder::testkit::check_tags;
///
/// let tagged = |ground: larder::testkit::TagGround| {
///     let tagged = Tagged::new(ground.entries, ground.instants).clock(ground.clock);
///     tagged.known_tags(ground.known_tags).expect("not zero")
/// };
/// check_tags("tagged", tagged).cases(8).run().assert();
/// ```
pub fn check_tags<S>(
    name: impl Into<String>,
    make: impl Fn(TagGround) -> S + Send + Sync + 'static,
) -> TagsCheck<S>
where
    S: InvalidateTags<Key = str, Value = u64> + 'static,
{
    TagsCheck { settings: Settings::new(name), make: Arc::new(make) }
}

/// What [`check_tags`] builds on.
#[derive(Clone, Debug)]
pub struct TagGround {
    /// The store of the entries. It neither fails nor waits.
    pub entries: Arc<Model<str, u64>>,
    /// The store of the instants.
    pub instants: TagStore,
    /// The clock.
    pub clock: ManualClock,
    /// How many tags a process may know at once; a store without such a bound ignores it.
    pub known_tags: usize,
}

/// The tag store of [`check_tags`]: it counts its calls, and fails when the kit says so.
#[derive(Clone, Debug, Default)]
pub struct TagStore(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    entries: Model<str, Timestamp>,
    switches: Mutex<Switches>,
}

#[derive(Debug, Default)]
struct Switches {
    reads: u64,
    writes: u64,
    down: bool,
    /// The next write fails, after its effect if so.
    fails: Option<bool>,
}

impl TagStore {
    fn read(&self) -> Result<()> {
        let mut switches = self.0.switches.lock();
        switches.reads += 1;
        if switches.down { Err(failure(Operation::Get)) } else { Ok(()) }
    }

    fn write(&self, effect: impl Fn()) -> Result<()> {
        let mut switches = self.0.switches.lock();
        switches.writes += 1;
        let fails = if switches.down { Some(false) } else { switches.fails.take() };
        if fails != Some(false) {
            effect();
        }
        if fails.is_some() { Err(failure(Operation::Set)) } else { Ok(()) }
    }

    /// Reads and writes since this was last asked.
    fn calls(&self) -> (u64, u64) {
        let mut switches = self.0.switches.lock();
        (std::mem::take(&mut switches.reads), std::mem::take(&mut switches.writes))
    }
}

fn failure(operation: Operation) -> Error {
    Error::new(ErrorKind::Unavailable, "tag store", operation)
}

impl Store for TagStore {
    type Key = str;
    type Value = Timestamp;

    async fn get(&self, key: &str) -> Result<Option<Entry<Timestamp>>> {
        self.read().map(|()| self.0.entries.held(key))
    }

    async fn set(&self, key: &str, entry: Entry<Timestamp>) -> Result<SetOutcome> {
        self.write(|| self.0.entries.plant(key, entry.clone())).map(|()| SetOutcome::Stored)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.write(|| self.0.entries.forget(key))
    }

    async fn clear(&self) -> Result<()> {
        self.0.entries.clear().await
    }

    async fn get_many(&self, keys: &[&str], _: Timestamp) -> Vec<Result<Option<Entry<Timestamp>>>> {
        let answer = self.read();
        keys.iter().map(|key| answer.clone().map(|()| self.0.entries.held(key))).collect()
    }

    async fn set_many(&self, entries: &[(&str, Entry<Timestamp>)]) -> Vec<Result<SetOutcome>> {
        let answer = self.write(|| {
            for (key, entry) in entries {
                self.0.entries.plant(key, entry.clone());
            }
        });
        entries.iter().map(|_| answer.clone().map(|()| SetOutcome::Stored)).collect()
    }
}

/// See [`check_tags`].
#[must_use = "nothing is checked until it runs"]
pub struct TagsCheck<S> {
    settings: Settings,
    make: Make<S>,
}

type Make<S> = Arc<dyn Fn(TagGround) -> S + Send + Sync>;

impl<S> fmt::Debug for TagsCheck<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagsCheck").field("settings", &self.settings).finish_non_exhaustive()
    }
}

const T1: LawName = LawName {
    name: "t1_exactly_what_carries_the_tag",
    why: "what was invalidated is served on, or what was not is computed again",
};
const T2: LawName = LawName {
    name: "t2_an_invalidation_lasts",
    why: "what was invalidated comes back with a restart, a late write or a full table",
};
const T3: LawName = LawName {
    name: "t3_one_that_failed_holds_once_repeated",
    why: "an invalidation that was lost looks done, and nobody repeats it",
};
const T4: LawName = LawName {
    name: "t4_without_the_tag_store_nothing_unknown_is_served",
    why: "an outage of the tag store brings back what was invalidated, or takes along what has no tags",
};
const T5: LawName = LawName {
    name: "t5_one_write_and_no_question_twice",
    why: "an invalidation costs a write for each entry or tag, or each hit waits for the tag store",
};
const LAWS: [LawName; 5] = [T1, T2, T3, T4, T5];

impl<S: InvalidateTags<Key = str, Value = u64> + 'static> TagsCheck<S> {
    knobs!();

    /// Runs every law.
    pub fn run(self) -> Report {
        self.settings.know(&LAWS);
        let rows = LAWS.into_iter().filter_map(|law| row(&self.settings, law, || self.law(law)));
        let rows: Vec<LawReport> = rows.collect();
        Report::new(self.settings.name, rows, Vec::new())
    }

    /// Runs every law, and panics with the report if one is broken.
    #[track_caller]
    pub fn assert(self) {
        self.run().assert();
    }

    fn law(&self, law: LawName) -> LawReport {
        let make = Arc::clone(&self.make);
        let number = LAWS.iter().position(|other| other.name == law.name).unwrap_or(0);
        run(
            &self.settings,
            law,
            move || by_dice(move |dice| draw(dice, number)).boxed(),
            move |script: &Script| Play::new(&*make, script, number == 4).run(),
        )
    }
}

/// Names that a matching by prefix, pattern or list would mix up.
const TAGS: [&str; 5] = ["a", "ab", "b", "a,b", "*"];
const KEYS: [&str; 2] = ["k", "l"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// An entry that was created so many ticks ago, with the tags of this mask.
    Set(u8, u8, u8),
    /// The tags of this mask, up to so many ticks ago.
    Remove(u8, u8),
    Expire(u8, u8),
    /// The last invalidation is repeated, as its instant was.
    Again,
    Read(u8, u8),
    Pass(u8),
    /// The process starts anew.
    Anew,
    /// The tag store loses everything.
    Forget,
    Down,
    Up,
    /// The next write to the tag store fails, after its effect if so.
    Fail(bool),
}

/// What happens, in a process that knows so many tags at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Script {
    known_tags: u8,
    steps: Vec<Step>,
}

impl Case for Script {
    fn simpler(&self) -> Vec<Self> {
        let half = self.steps.len() / 2;
        let halves = [self.steps[..half].to_vec(), self.steps[half..].to_vec()];
        let without = (0..self.steps.len()).map(|place| {
            let mut steps = self.steps.clone();
            steps.remove(place);
            steps
        });
        let shorter = halves.into_iter().filter(|part| part.len() < self.steps.len()).chain(without);
        shorter.map(|steps| Self { steps, ..self.clone() }).collect()
    }

    fn steps(&self) -> usize {
        self.steps.len()
    }
}

fn draw(dice: &mut Dice, law: usize) -> Script {
    let forgets = law == 1 && dice.chance(2);
    let steps = dice.some(40, |dice| match dice.below(16) {
        0..4 => Step::Set(dice.below(2), dice.below(4), if dice.chance(4) { 0 } else { mask(dice) }),
        4..6 => Step::Remove(mask(dice), dice.below(4)),
        6..8 => Step::Expire(mask(dice), dice.below(4)),
        8 => Step::Pass(1 + dice.below(30)),
        9 | 10 => match law {
            1 if forgets => Step::Forget,
            1 => Step::Anew,
            2 => [Step::Anew, Step::Again, Step::Fail(dice.chance(2))][usize::from(dice.below(3))],
            3 => [Step::Down, Step::Up, Step::Anew][usize::from(dice.below(3))],
            _ => Step::Pass(1),
        },
        _ => Step::Read(dice.below(2), dice.below(4)),
    });
    Script { known_tags: if forgets { 2 } else { 200 }, steps }
}

/// One to three tags.
fn mask(dice: &mut Dice) -> u8 {
    let mut one = || 1 << dice.below(5);
    let (first, second, third) = (one(), one(), one());
    if dice.chance(2) { first } else { first | second | third }
}

fn tags(mask: u8) -> Vec<&'static str> {
    let has = |place: &usize| mask & (1 << place) != 0;
    (0..TAGS.len()).filter(has).map(|place| TAGS[place]).collect()
}

/// The last instants of a tag: removed, expired.
type Instants = BTreeMap<&'static str, [Option<Timestamp>; 2]>;

struct Play<'a, S> {
    make: &'a dyn Fn(TagGround) -> S,
    script: &'a Script,
    counts: bool,
    ground: TagGround,
    store: S,
    held: BTreeMap<&'static str, Entry<u64>>,
    /// What was acknowledged, and what was tried.
    instants: [Instants; 2],
    /// The last invalidation: kind, tags, instant.
    last: Option<(usize, u8, Timestamp)>,
    down: bool,
    lines: Vec<String>,
}

impl<'a, S: InvalidateTags<Key = str, Value = u64>> Play<'a, S> {
    fn new(make: &'a dyn Fn(TagGround) -> S, script: &'a Script, counts: bool) -> Self {
        let ground = TagGround {
            entries: Arc::default(),
            instants: TagStore::default(),
            clock: race_clock(),
            known_tags: script.known_tags.max(1).into(),
        };
        let store = make(ground.clone());
        let (held, instants, lines) = (BTreeMap::new(), Default::default(), Vec::new());
        Self { make, script, counts, ground, store, held, instants, last: None, down: false, lines }
    }

    fn run(mut self) -> Result<(), Finding> {
        for (number, step) in (0..).zip(&self.script.steps) {
            self.step(number, *step).map_err(|(expected, got)| Finding {
                timeline: self.lines.join("\n"),
                expected: expected.to_owned(),
                got,
                cause: "tags that are not compared whole, instants that are not merged by maximum, or \
                        knowledge that is dropped without a floor"
                    .to_owned(),
            })?;
        }
        Ok(())
    }

    fn step(&mut self, number: u64, step: Step) -> Result<(), (&'static str, String)> {
        let now = self.ground.clock.now();
        let ago = |ticks: u8| Timestamp::from_nanos(now.as_nanos().saturating_sub(ticks.into()));
        let mut switches = self.ground.instants.0.switches.lock();
        match step {
            Step::Down | Step::Up => {
                switches.down = step == Step::Down;
                self.down = switches.down;
            }
            Step::Fail(after) => switches.fails = Some(after),
            _ => {}
        }
        drop(switches);
        self.ground.instants.calls();
        match step {
            Step::Set(key, back, mask) => {
                let created = ago(back);
                let after = |ticks| created.saturating_add(Duration::from_nanos(ticks));
                let life = Lifetime::new(created, after(20), after(40), after(60));
                let entry = Entry::new(number, life).with_tags(tags(mask));
                let key = KEYS[usize::from(key % 2)];
                self.lines.push(format!("set {key:?} to {}", whole(&entry)));
                let outcome = block(self.store.set(key, entry.clone()));
                self.held.insert(key, entry);
                if !matches!(outcome, Some(Ok(_))) {
                    return Err(("stored: the tag store is no concern of a writer", format!("{outcome:?}")));
                }
                self.unasked(mask == 0)
            }
            Step::Remove(mask, back) => self.invalidate(0, mask, ago(back)),
            Step::Expire(mask, back) => self.invalidate(1, mask, ago(back)),
            Step::Again => match self.last {
                Some((kind, mask, at)) => self.invalidate(kind, mask, at),
                None => Ok(()),
            },
            Step::Read(key, how) => self.read(KEYS[usize::from(key % 2)], how, now),
            other => {
                self.lines.push(format!("{other:?}"));
                if let Step::Pass(ticks) = other {
                    self.ground.clock.advance(Duration::from_nanos(ticks.into()));
                } else if other == Step::Anew {
                    self.store = (self.make)(self.ground.clone());
                } else if other == Step::Forget {
                    let _ = block(self.ground.instants.clear());
                }
                Ok(())
            }
        }
    }

    fn invalidate(&mut self, kind: usize, mask: u8, at: Timestamp) -> Result<(), (&'static str, String)> {
        self.last = Some((kind, mask, at));
        let names = tags(mask);
        let told = ["remove", "expire"][kind];
        self.lines.push(format!("{told} {names:?} up to {}", at.as_nanos()));
        let outcome = if kind == 0 {
            block(self.store.remove_tags(&names, at))
        } else {
            block(self.store.expire_tags(&names, at))
        };
        let acknowledged = matches!(outcome, Some(Ok(())));
        for instants in self.instants.iter_mut().skip(usize::from(!acknowledged)) {
            for name in &names {
                let instant = &mut instants.entry(name).or_default()[kind];
                *instant = (*instant).max(Some(at));
            }
        }
        let (_, writes) = self.ground.instants.calls();
        if self.counts && (writes != 1 || !acknowledged) {
            return Err(("one write to the tag store", format!("{writes}, {outcome:?}")));
        }
        Ok(())
    }

    /// Nobody asked the tag store, where nobody had to.
    fn unasked(&self, needless: bool) -> Result<(), (&'static str, String)> {
        let (reads, writes) = self.ground.instants.calls();
        if self.counts && needless && reads + writes > 0 {
            return Err(("no call to the tag store", format!("{reads} reads, {writes} writes")));
        }
        Ok(())
    }

    fn read(&mut self, key: &'static str, how: u8, now: Timestamp) -> Result<(), (&'static str, String)> {
        let name = ["get", "get_at", "get_many", "peek"][usize::from(how % 4)];
        let ask = |store: &S| match name {
            "get" => block(store.get(key)),
            "get_at" => block(store.get_at(key, now)),
            "get_many" => block(store.get_many(&[key], now)).and_then(|mut found| found.pop()),
            _ => Some(Ok(store.peek_with(key, Entry::clone))),
        };
        let found = ask(&self.store);
        let show = |found: &Entry<u64>| format!("{}, {:?}", whole(found), found.freshness(now));
        let told = match &found {
            Some(Ok(found)) => found.as_ref().map_or_else(|| "none".to_owned(), show),
            other => format!("{other:?}"),
        };
        self.lines.push(format!("{name} {key:?} at {}: {told}", now.as_nanos()));
        let tagged = self.held.get(key).is_some_and(|entry| !entry.tags().is_empty());
        let found = match found {
            Some(Ok(found)) => found,
            Some(Err(_)) if tagged && self.down => return Ok(()),
            _ => return Err(("an answer", told)),
        };
        self.unasked(!tagged)?;
        // A peek may always answer nothing, and below the floor nothing is known.
        let lossy = name == "peek" || tagged && self.script.known_tags < 200;
        let acceptable = self.acceptable(key, now);
        let same = |one: &Entry<u64>, other: &Entry<u64>| {
            one.value() == other.value()
                && one.tags() == other.tags()
                && one.freshness(now) == other.freshness(now)
        };
        let is_acceptable = acceptable.iter().any(|expected| match (expected, &found) {
            (Some(expected), Some(found)) => same(expected, found),
            (expected, found) => expected.is_none() && found.is_none(),
        });
        if !(is_acceptable || lossy && found.is_none()) {
            let shown: Vec<_> =
                acceptable.iter().map(|one| one.as_ref().map_or("none".to_owned(), show)).collect();
            return Err((
                "what the entry's own tags make of it",
                format!("{told}, not {}", shown.join(" or ")),
            ));
        }
        let _ = ask(&self.store);
        self.unasked(true)
    }

    /// What a reader may be told: by what was acknowledged, and with what was tried too.
    fn acceptable(&self, key: &str, now: Timestamp) -> Vec<Option<Entry<u64>>> {
        let Some(entry) = self.held.get(key) else { return vec![None] };
        let last = |which: usize, kind: usize| {
            let of = |tag: &Arc<str>| self.instants[which].get(&**tag)?[kind];
            entry.tags().iter().filter_map(of).max().filter(|instant| entry.created_at() <= *instant)
        };
        let view = |which| match last(which, 1) {
            None => Some(entry.clone()),
            Some(at) => entry.lifetime().not_fresh_at(at, now).map(|life| entry.clone().with_lifetime(life)),
        };
        let mut found = Vec::new();
        if last(0, 0).is_none() {
            found.extend([view(0), view(1)]);
        }
        if last(1, 0).is_some() {
            found.push(None);
        }
        found
    }
}
