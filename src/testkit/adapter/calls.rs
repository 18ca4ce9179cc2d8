//! What becomes of single calls: answers, calls inside, errors (D1, D3, S4, S7, S9).

use std::fmt::Debug;

use proptest::prelude::*;

use super::inner::{Called, InnerPlan};
use super::{AdapterUnderTest, over, value};
use crate::error::Operation;
use crate::store::Store;
use crate::testkit::faulty::{Fault, Faults};
use crate::testkit::model::Model;
use crate::testkit::race::race_clock;
use crate::testkit::runner::Finding;
use crate::testkit::script::{
    self, Answer, Ask, Columns, Dice, Kind, NONE, Player, REFUSED, Script, Spec, block,
};

/// The calls of a store.
pub(super) const NAMES: [&str; 13] = [
    "get",
    "get_at",
    "peek_with",
    "set",
    "renew",
    "remove",
    "clear",
    "get_many",
    "set_many",
    "remove_many",
    "len",
    "weight",
    "flush",
];

/// Random calls over inner stores of these plans.
pub(super) fn scripts(plans: BoxedStrategy<InnerPlan>) -> BoxedStrategy<Script<InnerPlan>> {
    let asks = script::by_dice(|dice: &mut Dice| dice.some(24, |dice| dice.ask(false)));
    (plans, asks).prop_map(|(over, asks)| Script { over, plants: Vec::new(), asks }).boxed()
}

/// No call.
pub(super) fn nothing() -> Script<InnerPlan> {
    Script { over: InnerPlan::Perfect, plants: Vec::new(), asks: Vec::new() }
}

const SPEC: Spec = Spec { value: 1, fresh: 9, rare: true };

/// Each call of a store, by itself, in the order of [`NAMES`].
pub(super) fn single_calls() -> Vec<Script<InnerPlan>> {
    let asks = [
        Ask::Get(0),
        Ask::GetAt(0),
        Ask::Peek(0),
        Ask::Set(0, SPEC),
        Ask::Renew(0, SPEC),
        Ask::Remove(0),
        Ask::Clear,
        Ask::GetMany(vec![0, 1]),
        Ask::SetMany(vec![(0, SPEC), (1, SPEC)]),
        Ask::RemoveMany(vec![0, 1]),
        Ask::Count,
        Ask::Weight,
        Ask::Flush,
    ];
    asks.into_iter().map(|ask| Script { asks: vec![ask], ..nothing() }).collect()
}

/// Those of them that read.
pub(super) fn reading_calls() -> Vec<Script<InnerPlan>> {
    let reads = |script: &Script<InnerPlan>| {
        matches!(script.asks.first(), Some(Ask::Get(_) | Ask::GetAt(_) | Ask::Peek(_) | Ask::GetMany(_)))
    };
    single_calls().into_iter().filter(reads).collect()
}

fn name_of(ask: &Ask) -> &'static str {
    match ask {
        Ask::Get(_) => "get",
        Ask::GetAt(_) => "get_at",
        Ask::Peek(_) => "peek_with",
        Ask::Set(..) => "set",
        Ask::Renew(..) => "renew",
        Ask::Remove(_) => "remove",
        Ask::Clear => "clear",
        Ask::GetMany(_) => "get_many",
        Ask::SetMany(_) => "set_many",
        Ask::RemoveMany(_) => "remove_many",
        Ask::Count => "len",
        Ask::Weight => "weight",
        Ask::Flush => "flush",
        Ask::Pass(_) | Ask::Forget(..) => "nothing",
    }
}

/// D1: the same answers as a map gives, but for what is declared.
pub(super) fn idle<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&script.over);
    let (model, clock) = (Model::<str, A::Value>::new(), race_clock());
    let forget = |_: u8, _: &str| ();
    let (make, show) = (value, adapter.show());
    let plain = Player { store: &model, clock: &clock, make, show, forget: &forget };
    let player = Player { store: &store, clock: seen.clock(), make, show, forget: &forget };
    let mut columns = Columns::new("a map", "the adapter");
    for ask in &script.asks {
        let (expected, got) = (plain.ask(ask), player.ask(ask));
        columns.row(script::told(ask), &expected, &got);
        let alike = expected.iter().zip(&got).all(|(expected, got)| same(adapter, expected, got));
        if expected.len() != got.len() || !alike {
            let cause = "a part of the entry that is lost, a key or an instant that is not passed on, an answer that is \
                         made up or swallowed";
            return Err(columns.finding(&over(script), cause));
        }
        // What was refused is gone.
        let keys: Vec<u8> = match ask {
            Ask::Set(key, _) | Ask::Renew(key, _) => vec![*key],
            Ask::SetMany(entries) => entries.iter().map(|(key, _)| *key).collect(),
            _ => Vec::new(),
        };
        for (place, key) in keys.iter().enumerate() {
            let last = !keys[place + 1..].contains(key);
            if last && got.get(place).is_some_and(|got| got.text == REFUSED) {
                model.forget(script::name(*key));
            }
        }
    }
    Ok(())
}

fn same<A>(adapter: &AdapterUnderTest<A>, expected: &Answer, got: &Answer) -> bool {
    let lossy = adapter.promises.bound.is_some();
    let tolerated = match got.kind {
        Kind::Peek => got.text == NONE,
        Kind::Count => got.text == NONE || expected.text == NONE || lossy,
        Kind::Read => lossy && got.text == NONE,
        Kind::Done => lossy && got.text == REFUSED,
    };
    expected == got || tolerated
}

/// The one call of a script, after a write of its key; what came of it, and the calls inside.
fn call<A>(
    adapter: &AdapterUnderTest<A>,
    ask: &Ask,
    trouble: impl FnOnce(&[Faults]),
) -> (Vec<Answer>, Vec<Called>, Option<String>)
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&InnerPlan::Perfect);
    let forget = |_: u8, _: &str| ();
    let player =
        Player { store: &store, clock: seen.clock(), make: value, show: adapter.show(), forget: &forget };
    player.ask(&Ask::SetMany(vec![(0, SPEC), (1, SPEC)]));
    trouble(&seen.faults());
    if let Some(bytes) = &adapter.promises.undecodable {
        seen.corrupt(bytes);
    }
    seen.calls();
    let answers = player.ask(ask);
    let calls = seen.calls();
    seen.faults().iter().for_each(Faults::heal);
    // What was made up to the instant of a clear that failed may count as absent.
    player.ask(&Ask::Pass(1));
    player.ask(&Ask::SetMany(vec![(0, SPEC), (1, SPEC)]));
    let after = player.ask(&Ask::Get(0)).pop().map(|answer| answer.text);
    (answers, calls, after)
}

/// The calls inside, but for those that only weigh, count or look for room.
fn bare(calls: &[Called], ask: &Ask) -> Vec<Called> {
    let counts = matches!(ask, Ask::Count | Ask::Weight);
    calls.iter().copied().filter(|call| counts || !["len", "weight"].contains(&call.name)).collect()
}

fn is_one(calls: &[Called], ask: &Ask) -> bool {
    let keys = match ask {
        Ask::GetMany(keys) | Ask::RemoveMany(keys) => keys.len(),
        Ask::SetMany(entries) => entries.len(),
        Ask::Clear | Ask::Count | Ask::Weight | Ask::Flush => 0,
        _ => 1,
    };
    *calls == [Called { name: name_of(ask), keys }]
}

/// Whether a call becomes one call of its name inside.
pub(super) fn is_forwarded<A>(adapter: &AdapterUnderTest<A>, name: &str) -> bool
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    single_calls().iter().flat_map(|script| &script.asks).filter(|ask| name_of(ask) == name).all(|ask| {
        let (_, calls, _) = call(adapter, ask, |_| ());
        is_one(&bare(&calls, ask), ask)
    })
}

/// D3.
pub(super) fn forwards<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    for ask in &script.asks {
        let name = name_of(ask);
        if adapter.promises.changes.contains(&name) || matches!(ask, Ask::Pass(_) | Ask::Forget(..)) {
            continue;
        }
        let (_, calls, _) = call(adapter, ask, |_| ());
        let calls = bare(&calls, ask);
        if !is_one(&calls, ask) {
            let inside: Vec<_> = calls.iter().map(|call| format!("{} of {}", call.name, call.keys)).collect();
            return Err(Finding {
                timeline: script::told(ask),
                expected: format!("one `{name}` inside"),
                got: if inside.is_empty() { "no call inside".to_owned() } else { inside.join(", ") },
                cause: format!(
                    "the default of `{name}` in place of a forward; if it has to be so, declare it: .changes(&[{name:?}])"
                ),
            });
        }
    }
    Ok(())
}

/// D3: a read is at most one call inside, and none that writes.
pub(super) fn reads<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&script.over);
    let forget = |_: u8, _: &str| ();
    let player =
        Player { store: &store, clock: seen.clock(), make: value, show: adapter.show(), forget: &forget };
    let mut lines = vec![over(script)];
    for ask in &script.asks {
        seen.calls();
        let answers = player.ask(ask);
        let texts: Vec<_> = answers.iter().map(|answer| answer.text.as_str()).collect();
        lines.push(format!("{}: {}", script::told(ask), texts.join("; ")));
        let keys = match ask {
            Ask::Get(_) | Ask::GetAt(_) | Ask::Peek(_) => 1,
            Ask::GetMany(keys) => keys.len(),
            _ => continue,
        };
        let calls = bare(&seen.calls(), ask);
        let writes =
            calls.iter().find(|call| !["get", "get_at", "get_many", "peek_with"].contains(&call.name));
        let asked: usize = calls.iter().map(|call| call.keys).sum();
        let (expected, got) = if let Some(call) = writes {
            ("no call inside that writes".to_owned(), format!("`{}`", call.name))
        } else if asked > keys {
            (format!("{keys} keys asked for inside"), format!("{asked}"))
        } else {
            continue;
        };
        let cause = "a read that refreshes, repairs or counts by writing, or looks at more keys than its own"
            .to_owned();
        return Err(Finding { timeline: lines.join("\n"), expected, got, cause });
    }
    Ok(())
}

/// D3.
pub(super) fn describes<A>(adapter: &AdapterUnderTest<A>, _: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, _) = adapter.over(&InnerPlan::Perfect);
    let text = store.describe().to_string();
    if text.contains("inner (Perfect") {
        return Ok(());
    }
    Err(Finding {
        timeline: "describe".to_owned(),
        expected: "the description has the one of the store inside as a layer".to_owned(),
        got: text,
        cause: "the default of `describe`: it knows nothing of what is inside; add `.over(inner.describe())`"
            .to_owned(),
    })
}

/// S4: whatever the store inside fails, the caller hears of it, and the adapter goes on.
pub(super) fn errors<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    for ask in &script.asks {
        let operation = match ask {
            Ask::Get(_) | Ask::GetAt(_) | Ask::GetMany(_) => Operation::Get,
            Ask::Set(..) | Ask::Renew(..) | Ask::SetMany(_) => Operation::Set,
            Ask::Remove(_) | Ask::RemoveMany(_) => Operation::Remove,
            Ask::Clear => Operation::Clear,
            Ask::Flush => Operation::Flush,
            _ => continue,
        };
        let fail =
            |faults: &[Faults]| faults.iter().for_each(|faults| faults.always(operation, Fault::FailBefore));
        let (answers, _, after) = call(adapter, ask, fail);
        let texts: Vec<_> = answers.iter().map(|answer| answer.text.as_str()).collect();
        let broken = |expected: &str, got: String, cause: &str| Finding {
            timeline: format!(
                "the store inside fails every {operation}\n{}: {}",
                script::told(ask),
                texts.join("; ")
            ),
            expected: expected.to_owned(),
            got,
            cause: cause.to_owned(),
        };
        if texts.is_empty() || texts.iter().any(|text| *text != "error: unavailable") {
            let cause = "an error that is swallowed, or wrapped in one of another kind";
            return Err(broken("an error of kind unavailable, for each key", texts.join("; "), cause));
        }
        if after.as_ref().is_none_or(|after| after == NONE || after.starts_with("error"))
            && adapter.promises.bound.is_none()
        {
            let cause = "a state that a failure leaves behind: a lock, a mark, a breaker";
            return Err(broken("it works again once the store inside does", format!("{after:?}"), cause));
        }
    }
    Ok(())
}

/// S7: what it cannot read is a miss or an error of kind `Corrupt`, and can be overwritten.
pub(super) fn decodes<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    for ask in &script.asks {
        let (answers, _, after) = call(adapter, ask, |_| ());
        let texts: Vec<_> = answers.iter().map(|answer| answer.text.as_str()).collect();
        let broken = |expected: &str, got: String, cause: &str| Finding {
            timeline: format!("the stored bytes cannot be read\n{}: {}", script::told(ask), texts.join("; ")),
            expected: expected.to_owned(),
            got,
            cause: cause.to_owned(),
        };
        if texts.iter().any(|text| ![NONE, "error: corrupt bytes"].contains(text)) {
            let cause = "the decoder's error passed on as it is, or a default value in its place";
            return Err(broken("a miss, or an error of kind corrupt", texts.join("; "), cause));
        }
        if after.as_ref().is_none_or(|after| after == NONE || after.starts_with("error")) {
            return Err(broken(
                "the entry can be overwritten",
                format!("{after:?}"),
                "a write that reads first",
            ));
        }
    }
    Ok(())
}

/// S9.
pub(super) fn peeks<A>(adapter: &AdapterUnderTest<A>, script: &Script<InnerPlan>) -> Result<(), Finding>
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let (store, seen) = adapter.over(&script.over);
    let forget = |_: u8, _: &str| ();
    let player =
        Player { store: &store, clock: seen.clock(), make: value, show: adapter.show(), forget: &forget };
    let mut columns = Columns::new("get", "peek");
    for ask in &script.asks {
        let answers = player.ask(ask);
        columns.row(script::told(ask), &answers, &[]);
        for key in 0..4 {
            let peeked = player.ask(&Ask::Peek(key));
            let read = player.ask(&Ask::Get(key));
            let texts = [&peeked, &read].map(|answers| answers.first().map(|answer| answer.text.clone()));
            if texts[0].as_deref() != Some(NONE) && texts[0] != texts[1] {
                columns.row(format!("{:?}", script::name(key)), &read, &peeked);
                let cause = "a peek that looks at another key or another copy than a get does";
                return Err(columns.finding(&over(script), cause));
            }
        }
    }
    // An outage inside is one of peeks too.
    seen.faults().iter().for_each(|faults| faults.down_for(Operation::Get));
    for key in 0..4 {
        if store.peek_with(script::name(key), |_| ()).is_some()
            && block(store.get(script::name(key))).is_none_or(|got| got.is_err())
        {
            columns.row(format!("{:?} while reads fail inside", script::name(key)), &[], &[]);
            return Err(columns.finding(&over(script), "a copy of its own that peeks see and reads do not"));
        }
    }
    Ok(())
}
