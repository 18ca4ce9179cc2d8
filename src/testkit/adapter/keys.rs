//! Keys, scopes and bulk calls (S5, S6, S11).

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::inner::InnerPlan;
use super::{AdapterUnderTest, calls, over, value};
use crate::entry::{Entry, Lifetime};
use crate::error::Operation;
use crate::store::{SetOutcome, Store};
use crate::testkit::faulty::{Fault, Faults};
use crate::testkit::runner::{Case, Finding};
use crate::testkit::script::{self, Ask, Dice, NAMES, Script, Spec, block, by_dice};
use crate::time::Timestamp;

/// Every name written, and some removed again, from the front and from the back.
pub(super) fn all_names() -> Vec<Script<InnerPlan>> {
    let all = u8::try_from(NAMES.len()).unwrap_or(u8::MAX);
    let set = |key: u8| Ask::Set(key, Spec { value: key, fresh: 9, rare: false });
    let forth: Vec<Ask> = (0..all).map(set).chain((0..all).step_by(2).map(Ask::Remove)).collect();
    let back: Vec<Ask> =
        (0..all).rev().map(set).chain((0..all).rev().skip(1).step_by(2).map(Ask::Remove)).collect();
    let bulk =
        vec![Ask::SetMany((0..all).map(|key| (key, Spec { value: key, fresh: 9, rare: false })).collect())];
    [forth, back, bulk].into_iter().map(|asks| Script { asks, ..calls::nothing() }).collect()
}

/// S6: every key reads what was written under it, and nothing else.
pub(super) fn never_meet<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&script.over);
    let mut known = BTreeMap::new();
    let mut lines = vec![over(script)];
    for ask in &script.asks {
        apply(&store, &mut known, ask);
        lines.push(script::told(ask));
        for name in NAMES {
            let read = block(store.get(name)).and_then(Result::ok).flatten().map(Entry::into_value);
            let expected = known.get(name).map(|number| value::<A::Value>(*number));
            // Of a bounded one, none is an answer.
            let lost = read.is_none() && adapter.promises.bound.is_some();
            if read != expected && !lost {
                lines.push(format!("get {name:?}: {read:?}"));
                return Err(Finding {
                    timeline: lines.join("\n"),
                    expected: format!("{name:?} holds {expected:?}"),
                    got: format!("{read:?}; inside are the keys {:?}", seen.held().keys()),
                    cause: "two keys that become one: a separator that is not escaped, a key that is folded, cut or \
                            ignored, a hash taken for the key"
                        .to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn apply<A>(store: &A, known: &mut BTreeMap<&'static str, u8>, ask: &Ask)
where
    A: Store<Key = str, Value: From<String>>,
{
    let entry = |spec: Spec| spec.entry(Timestamp::from_nanos(1000), value);
    match ask {
        Ask::Set(key, spec) => {
            let set = block(store.set(script::name(*key), entry(*spec)));
            known.remove(script::name(*key));
            if matches!(set, Some(Ok(SetOutcome::Stored))) {
                known.insert(script::name(*key), spec.value);
            }
        }
        Ask::SetMany(entries) => {
            let written: Vec<_> =
                entries.iter().map(|(key, spec)| (script::name(*key), entry(*spec))).collect();
            let set = block(store.set_many(&written)).unwrap_or_default();
            for ((key, spec), outcome) in entries.iter().zip(set) {
                known.remove(script::name(*key));
                if matches!(outcome, Ok(SetOutcome::Stored)) {
                    known.insert(script::name(*key), spec.value);
                }
            }
        }
        Ask::Remove(key) => {
            if matches!(block(store.remove(script::name(*key))), Some(Ok(()))) {
                known.remove(script::name(*key));
            }
        }
        _ => {}
    }
}

/// The beginning that all keys inside have in common, if keys are changed at all.
fn scope<A>(adapter: &AdapterUnderTest<A>) -> Option<String>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let mut inside = Vec::new();
    for (number, name) in (0..).zip(NAMES) {
        let (store, seen) = adapter.over(&InnerPlan::Perfect);
        let spec = Spec { value: number, fresh: 9, rare: false };
        let _ = block(store.set(name, spec.entry(Timestamp::from_nanos(1000), value)));
        inside.extend(seen.held().into_keys());
    }
    let first = inside.first()?.clone();
    let common = |prefix: String, key: &String| -> String {
        let pairs = prefix.chars().zip(key.chars());
        pairs.take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
    };
    let prefix = inside.iter().fold(first, common);
    (!prefix.is_empty()).then_some(prefix)
}

/// Keys outside this scope, as close to it as can be.
fn neighbours(scope: &str) -> Vec<String> {
    let mut cut = scope.to_owned();
    let last = cut.pop();
    let swapped: String =
        scope
            .chars()
            .map(|letter| {
                if letter.is_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
            })
            .collect();
    let mut found = vec![
        cut.clone(),
        format!("{cut}~"),
        format!("{cut}{cut}"),
        format!("x{scope}"),
        swapped,
        String::new(),
    ];
    if let Some(next) = last.and_then(|last| char::from_u32(u32::from(last) + 1)) {
        found.push(format!("{cut}{next}"));
    }
    found.extend(NAMES.map(str::to_owned));
    found.retain(|key| !key.starts_with(scope));
    found
}

/// S5: writes, removals and clears touch nobody else's, and clear leaves none of its own.
pub(super) fn clears<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&script.over);
    let scope = scope(adapter);
    let foreign = scope.as_deref().map(neighbours).unwrap_or_default();
    let theirs = Entry::new(Bytes::from_static(b"theirs"), Lifetime::forever(Timestamp::EPOCH));
    for key in &foreign {
        seen.plant(key, theirs.clone());
    }
    let mut lines = vec![over(script)];
    if let Some(scope) = &scope {
        lines.push(format!("keys inside begin with {scope:?}; beside them stand {foreign:?}"));
    }
    let mut known = BTreeMap::new();
    let intact = |lines: &mut Vec<String>, what: String| {
        lines.push(what);
        let held = seen.held();
        match foreign.iter().find(|key| held.get(*key) != Some(&theirs)) {
            None => Ok(()),
            Some(key) => Err(Finding {
                timeline: lines.join("\n"),
                expected: format!("the entry of somebody else under {key:?} is untouched"),
                got: held.get(key).map_or_else(|| "it is gone".to_owned(), |entry| format!("{entry:?}")),
                cause: "a clear that goes by less than the whole prefix, or clears the store inside"
                    .to_owned(),
            }),
        }
    };
    for ask in &script.asks {
        apply(&store, &mut known, ask);
        intact(&mut lines, script::told(ask))?;
    }
    for _ in 0..2 {
        let cleared = block(store.clear());
        intact(&mut lines, format!("clear: {cleared:?}"))?;
        let left: Vec<_> =
            NAMES.into_iter().filter(|name| !matches!(block(store.get(name)), Some(Ok(None)))).collect();
        if !matches!(cleared, Some(Ok(()))) || !left.is_empty() {
            return Err(Finding {
                timeline: lines.join("\n"),
                expected: "clear succeeds, also on what is empty, and leaves nothing".to_owned(),
                got: format!("{cleared:?}, and {left:?} are left"),
                cause: "a part that clear does not reach".to_owned(),
            });
        }
    }
    Ok(())
}

/// One bulk call, of whose single calls inside one fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bulk {
    what: What,
    keys: Vec<u8>,
    /// Places in `keys` that hold something before.
    held: Vec<bool>,
    fails: Option<u8>,
}

/// What one key of a bulk call came to: in words, whether it failed, and what the key then has to hold.
type Outcome<V> = (String, bool, Option<Option<V>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Get,
    Set,
    Remove,
}

impl Case for Bulk {
    fn simpler(&self) -> Vec<Self> {
        let mut found: Vec<Self> = (0..self.keys.len())
            .map(|place| {
                let mut bulk = self.clone();
                bulk.keys.remove(place);
                bulk.held.remove(place);
                bulk
            })
            .collect();
        if let Some(nth) = self.fails {
            found.push(Self { fails: None, ..self.clone() });
            found.extend((0..nth).map(|nth| Self { fails: Some(nth), ..self.clone() }));
        }
        found
    }

    fn steps(&self) -> usize {
        self.keys.len() + 1
    }
}

pub(super) fn bulks() -> BoxedStrategy<Bulk> {
    by_dice(|dice: &mut Dice| {
        let mut keys = dice.some(8, Dice::key);
        keys.sort_unstable();
        keys.dedup();
        // In no order.
        let turn = usize::from(dice.below(8)).min(keys.len());
        keys.rotate_left(turn);
        let held = keys.iter().map(|_| dice.chance(2)).collect();
        let what = [What::Get, What::Set, What::Remove][usize::from(dice.below(3))];
        let fails = dice.chance(2).then(|| dice.below(4));
        Bulk { what, keys, held, fails }
    })
}

/// S11.
#[expect(clippy::too_many_lines, reason = "one call, and what is known before and after it")]
pub(super) fn bulk<A>(adapter: &AdapterUnderTest<A>, bulk: &Bulk) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&InnerPlan::Perfect);
    let now = Timestamp::from_nanos(1000);
    let entry = |number: u8| Spec { value: number, fresh: 9, rare: false }.entry(now, value::<A::Value>);
    let names: Vec<&str> = bulk.keys.iter().map(|key| script::name(*key)).collect();
    let mut before = Vec::new();
    for ((key, name), held) in bulk.keys.iter().zip(&names).zip(&bulk.held) {
        if *held {
            let _ = block(store.set(name, entry(100 + key)));
        }
    }
    for name in &names {
        before.push(read(&store, name));
    }
    let operation = match bulk.what {
        What::Get => Operation::Get,
        What::Set => Operation::Set,
        What::Remove => Operation::Remove,
    };
    let faults = seen.faults();
    let count = || faults.iter().map(|faults| faults.calls(operation)).collect::<Vec<_>>();
    let counted = count();
    if let Some(nth) = bulk.fails {
        for faults in &faults {
            faults.on(operation, nth.into(), Fault::FailBefore);
        }
    }
    // What became of each key, and what it then has to hold, if that is known.
    let outcomes: Vec<Outcome<A::Value>> = match bulk.what {
        What::Get => block(store.get_many(&names, now))
            .unwrap_or_default()
            .into_iter()
            .map(|found| {
                let seen = found.as_ref().ok().map(|found| found.clone().map(Entry::into_value));
                (format!("{found:?}"), found.is_err(), seen)
            })
            .collect(),
        What::Set => {
            let entries: Vec<_> =
                names.iter().zip(&bulk.keys).map(|(name, key)| (*name, entry(*key))).collect();
            let set = block(store.set_many(&entries)).unwrap_or_default();
            set.into_iter()
                .zip(bulk.keys.iter().map(Some).chain(std::iter::repeat(None)))
                .map(|(set, key)| {
                    let holds = match (&set, key) {
                        (Ok(SetOutcome::Stored), Some(key)) => Some(Some(value(*key))),
                        (Ok(SetOutcome::Refused(_)), _) => Some(None),
                        _ => None,
                    };
                    (format!("{set:?}"), set.is_err(), holds)
                })
                .collect()
        }
        What::Remove => block(store.remove_many(&names))
            .unwrap_or_default()
            .into_iter()
            .map(|removed| (format!("{removed:?}"), removed.is_err(), removed.is_ok().then_some(None)))
            .collect(),
    };
    let failed: usize = counted
        .iter()
        .zip(count())
        .filter(|(before, after)| bulk.fails.is_some_and(|nth| **before + u64::from(nth) < *after))
        .count();
    faults.iter().for_each(Faults::heal);
    let mut lines = vec![format!(
        "{:?} is held",
        names
            .iter()
            .zip(&before)
            .filter(|(_, held)| held.is_some())
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    )];
    if let Some(nth) = bulk.fails {
        lines.push(format!("{operation} no. {} of the bulk call fails inside", nth + 1));
    }
    lines.push(format!("{:?} of {names:?}", bulk.what));
    lines.extend(outcomes.iter().map(|(text, ..)| format!("  {text}")));
    let broken = |expected: String, got: String, cause: &str| Finding {
        timeline: lines.join("\n"),
        expected,
        got,
        cause: cause.to_owned(),
    };
    if outcomes.len() != names.len() {
        let cause = "results that are dropped or made up";
        return Err(broken(format!("{} answers", names.len()), outcomes.len().to_string(), cause));
    }
    let errors = outcomes.iter().filter(|(_, failed, _)| *failed).count();
    if errors != failed {
        let cause = "the first error ends the whole call, speaks for all keys, or is swallowed";
        return Err(broken(
            format!("as many errors as calls failed inside: {failed}"),
            errors.to_string(),
            cause,
        ));
    }
    let lossy = adapter.promises.bound.is_some();
    for ((name, before), (_, _, holds)) in names.iter().zip(before).zip(&outcomes) {
        let Some(expected) = holds else { continue };
        let held = if bulk.what == What::Get { before } else { read(&store, name) };
        if held != *expected && !(lossy && held.is_none()) {
            let (expected, got) = (format!("{name:?} holds {expected:?}"), format!("{held:?}"));
            return Err(broken(
                expected,
                got,
                "answers in another order than the keys, or a key that is left out",
            ));
        }
    }
    Ok(())
}

fn read<A: Store<Key = str>>(store: &A, name: &str) -> Option<A::Value> {
    block(store.get(name)).and_then(Result::ok).flatten().map(Entry::into_value)
}
