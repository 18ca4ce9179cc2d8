//! Batches against a map, healthy and with one call of a tier that fails (laws S11, S13).

use std::collections::HashMap;

use proptest::prelude::*;

use super::ChainUnderTest;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::Store;
use crate::testkit::race::{Harm, Op, Planned};
use crate::testkit::runner::Finding;
use crate::testkit::script::{self, Ask, Columns, Dice, Player, Script, block, name, whole};

/// The call that fails, if any, is one of the last call's.
type Failing = Option<Planned>;

impl crate::testkit::race::Ground for Failing {
    fn simpler(&self) -> Vec<Self> {
        let Some(planned) = *self else { return Vec::new() };
        let earlier =
            (planned.nth > 0).then_some(Some(Planned { nth: planned.nth.saturating_sub(1), ..planned }));
        [Some(None), earlier].into_iter().flatten().collect()
    }
}

/// Calls on a few keys, some of them twice in a batch; then a batch.
pub(super) fn cases() -> BoxedStrategy<Script<Failing>> {
    script::by_dice(|dice: &mut Dice| {
        let key = |dice: &mut Dice| dice.below(4);
        let mut asks = dice.some(8, |dice| match dice.below(8) {
            0 | 1 => Ask::Set(key(dice), dice.spec()),
            2 => Ask::Renew(key(dice), dice.spec()),
            3 => Ask::Remove(key(dice)),
            4 => Ask::GetMany(dice.some(6, key)),
            5 => Ask::RemoveMany(dice.some(4, key)),
            6 => Ask::Forget(0, key(dice)),
            _ => Ask::SetMany(dice.some(6, |dice| (key(dice), dice.spec()))),
        });
        asks.push(match dice.below(3) {
            0 => Ask::GetMany(dice.some(7, key)),
            1 => Ask::RemoveMany(dice.some(7, key)),
            _ => Ask::SetMany(dice.some(7, |dice| (key(dice), dice.spec()))),
        });
        let failing = dice.chance(2).then(|| Planned {
            leaf: dice.below(2),
            op: [Op::Get, Op::Set, Op::Remove][usize::from(dice.below(3))],
            nth: dice.below(5),
            harm: Harm::FailBefore,
        });
        Script { over: failing, plants: Vec::new(), asks }
    })
}

pub(super) fn single(chain: &ChainUnderTest, script: &Script<Failing>) -> std::result::Result<(), Finding> {
    let Some((last, before)) = script.asks.split_last() else { return Ok(()) };
    let world = chain.world(0);
    let model = crate::testkit::model::Model::<str, u64>::new();
    let forget_nothing = |_: u8, _: &str| ();
    let forget = |tier: u8, key: &str| {
        // The deepest tier forgets nothing.
        if tier == 0 {
            world.tiers[0].inner().forget(key);
        }
    };
    let (clock, make, show) = (&world.clock, u64::from as fn(u8) -> u64, whole as fn(&Entry<u64>) -> String);
    let plain = Player { store: &model, clock, make, show, forget: &forget_nothing };
    let player = Player { store: &*world.stack, clock, make, show, forget: &forget };
    let mut columns = Columns::new("a map", "the chain");
    let cause = "results in another order, a key twice in a batch that leaves tiers apart, an entry that is not the \
                 one that was given";
    for ask in before {
        let (expected, got) = (plain.ask(ask), player.ask(ask));
        columns.row(script::told(ask), &expected, &got);
        if expected != got {
            return Err(columns.finding("", cause));
        }
    }
    let held_before: HashMap<u8, Option<Entry<u64>>> =
        keys(last).iter().map(|&key| (key, model.held(name(key)))).collect();
    let preface = script.over.map_or_else(String::new, |planned| {
        // Counted from here.
        world.faults[usize::from(planned.leaf) % 2].on(
            planned.op.into(),
            planned.nth.into(),
            planned.harm.into(),
        );
        format!("in the last call: {planned:?}")
    });
    let (expected, got) = (plain.ask(last), player.ask(last));
    columns.row(script::told(last), &expected, &got);
    world.faults.iter().for_each(crate::testkit::Faults::heal);
    let failed = |text: &str| text.starts_with("error");
    let errors = got.iter().filter(|answer| failed(&answer.text)).count();
    let wrong = expected.iter().zip(&got).any(|(expected, got)| expected != got && !failed(&got.text));
    if expected.len() != got.len() || wrong || errors > usize::from(script.over.is_some()) {
        return Err(
            columns.finding(&preface, "one result for all, or results that are not each its key's own")
        );
    }
    // What the deepest tier holds, as far as it was acknowledged: the upper one may have taken what failed below.
    for (place, key) in keys(last).into_iter().enumerate() {
        let final_one = !keys(last)[place + 1..].contains(&key);
        if !final_one || matches!(last, Ask::GetMany(_)) {
            continue;
        }
        world.tiers[0].inner().forget(name(key));
        let read: Option<Result<Option<Entry<u64>>>> = block(world.stack.get(name(key)));
        let read = read.and_then(Result::ok).flatten();
        let (new, old) = (model.held(name(key)), held_before.get(&key).cloned().flatten());
        // Of a key that occurs twice an earlier result may be the one that failed.
        let own = keys(last).iter().zip(&got).any(|(other, got)| *other == key && failed(&got.text));
        let right =
            if own { read == new || read.is_none() || (read != old && read.is_some()) } else { read == new };
        if !right {
            let text = |entry: &Option<Entry<u64>>| entry.as_ref().map_or_else(|| "none".to_owned(), whole);
            columns.row(
                format!("get {:?}, forgotten above", name(key)),
                &[answer(text(&new))],
                &[answer(text(&read))],
            );
            return Err(columns
                .finding(&preface, "a failure of one key that becomes another's, or is told of another"));
        }
    }
    Ok(())
}

fn answer(text: String) -> script::Answer {
    script::Answer { kind: script::Kind::Read, text }
}

fn keys(ask: &Ask) -> Vec<u8> {
    match ask {
        Ask::GetMany(keys) | Ask::RemoveMany(keys) => keys.clone(),
        Ask::SetMany(entries) => entries.iter().map(|(key, _)| *key).collect(),
        _ => Vec::new(),
    }
}
