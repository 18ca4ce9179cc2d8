//! Two tiers that hold something, and one read of them (C1, C2, C5).

use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::ChainUnderTest;
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Freshness};
use crate::error::{Operation, Result};
use crate::store::Store;
use crate::testkit::faulty::Fault;
use crate::testkit::race::{KEYS, World};
use crate::testkit::runner::{Case, Finding};
use crate::testkit::script::{Dice, Spec, block, by_dice, whole};
use crate::time::{Clock, Timestamp};

/// What the tiers hold, how long ago it was made, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    tiers: [Option<Spec>; 2],
    down: [bool; 2],
    age: u8,
    how: How,
    harm: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Get,
    GetAt,
    GetMany,
}

impl Case for Held {
    fn simpler(&self) -> Vec<Self> {
        let mut found = Vec::new();
        for tier in 0..2 {
            if let Some(spec) = self.tiers[tier] {
                let mut with = |spec| {
                    let mut held = self.clone();
                    held.tiers[tier] = spec;
                    found.push(held);
                };
                with(None);
                if spec.rare {
                    with(Some(Spec { rare: false, ..spec }));
                }
                // Two entries of one value could not be told apart.
                let least = u8::from(tier > 0);
                if spec.value > least {
                    with(Some(Spec { value: least, ..spec }));
                }
                if spec.fresh > 0 {
                    with(Some(Spec { fresh: spec.fresh.min(5) - 1, ..spec }));
                }
            }
            if self.down[tier] {
                let mut held = self.clone();
                held.down[tier] = false;
                found.push(held);
            }
        }
        if self.how == How::GetMany {
            found.push(Self { how: How::GetAt, ..self.clone() });
        }
        if self.age > 0 {
            found.push(Self { age: self.age - 1, ..self.clone() });
        }
        found
    }

    fn steps(&self) -> usize {
        1 + self.tiers.iter().flatten().count()
    }
}

pub(super) fn cases(outages: bool) -> BoxedStrategy<Held> {
    by_dice(move |dice: &mut Dice| Held {
        tiers: [0, 1].map(|_| (!dice.chance(5)).then(|| dice.spec())),
        down: [0, 1].map(|_| outages && dice.chance(2)),
        age: dice.below(8),
        how: [How::Get, How::GetAt, How::GetMany][usize::from(dice.below(3))],
        harm: dice.below(3),
    })
}

/// One read, and all that is known about it.
struct Read {
    world: World<BoxStore<str, u64>>,
    now: Timestamp,
    held: [Option<Entry<u64>>; 2],
    seen: Option<Result<Option<Entry<u64>>>>,
    lines: Vec<String>,
}

impl Read {
    fn new(chain: &ChainUnderTest, held: &Held, upper_writes: Option<Fault>) -> Self {
        let world = chain.world(0);
        let born = world.clock.now();
        let mut lines = Vec::new();
        let mut entries = [None, None];
        for (tier, spec) in held.tiers.iter().enumerate() {
            if let Some(spec) = spec {
                let entry = spec.entry(born, u64::from);
                world.tiers[tier].inner().plant(KEYS[0], entry.clone());
                lines.push(format!("tier {tier} holds {}", whole(&entry)));
                entries[tier] = Some(entry);
            }
            if held.down[tier] {
                world.faults[tier].down();
                lines.push(format!("tier {tier} is down"));
            }
        }
        if let Some(fault) = upper_writes {
            world.faults[0].always(Operation::Set, fault);
            lines.push(format!("writes to tier 0 meet {fault:?}"));
        }
        world.clock.advance(Duration::from_nanos(held.age.into()));
        let now = if held.how == How::Get { Timestamp::EPOCH } else { world.clock.now() };
        let seen = match held.how {
            How::Get => block(world.stack.get(KEYS[0])),
            How::GetAt => block(world.stack.get_at(KEYS[0], now)),
            How::GetMany => {
                block(world.stack.get_many(&[KEYS[1], KEYS[0]], now)).and_then(|mut all| all.pop())
            }
        };
        lines.push(format!("{:?} {:?} at {}: {}", held.how, KEYS[0], now.as_nanos(), told(seen.as_ref())));
        Self { world, now, held: entries, seen, lines }
    }

    /// C1 as the law states it.
    fn first_usable(&self, answers: [bool; 2]) -> Option<&Entry<u64>> {
        let held = || {
            self.held
                .iter()
                .zip(answers)
                .filter(|(_, answers)| *answers)
                .filter_map(|(held, _)| held.as_ref())
        };
        let fresh = held().find(|entry| entry.freshness(self.now) == Freshness::Fresh);
        // Of equals the upper one, which `max_by_key` would not choose.
        let mut longest = None::<&Entry<u64>>;
        for entry in held() {
            if longest.is_none_or(|known| entry.lifetime().fresh_until() > known.lifetime().fresh_until()) {
                longest = Some(entry);
            }
        }
        fresh.or(longest)
    }

    fn broken(self, expected: String, got: String, cause: &str) -> Finding {
        Finding { timeline: self.lines.join("\n"), expected, got, cause: cause.to_owned() }
    }
}

fn told(seen: Option<&Result<Option<Entry<u64>>>>) -> String {
    match seen {
        None => "it hangs".to_owned(),
        Some(Ok(found)) => shown(found.as_ref()),
        Some(Err(error)) => format!("error: {error}"),
    }
}

fn shown(entry: Option<&Entry<u64>>) -> String {
    entry.map_or_else(|| "nothing".to_owned(), whole)
}

pub(super) fn first_usable(chain: &ChainUnderTest, held: &Held) -> Result<(), Finding> {
    let read = Read::new(chain, held, None);
    let expected = read.first_usable([true; 2]).cloned();
    if matches!(&read.seen, Some(Ok(seen)) if *seen == expected) {
        return Ok(());
    }
    let (expected, got) = (shown(expected.as_ref()), told(read.seen.as_ref()));
    let cause = "the first tier that holds anything answers, fresh or not; or the wrong one of two that are not fresh";
    Err(read.broken(expected, got, cause))
}

pub(super) fn backfill(chain: &ChainUnderTest, held: &Held) -> Result<(), Finding> {
    let read = Read::new(chain, held, None);
    let Some(Ok(Some(seen))) = &read.seen else { return Ok(()) };
    let from_below = read.held[0].as_ref() != Some(seen) && read.held[1].as_ref() == Some(seen);
    let dead = seen.freshness(read.now) == Freshness::Dead;
    let expected = if from_below && !dead { Some(seen.clone()) } else { read.held[0].clone() };
    let after = [0, 1].map(|tier| read.world.tiers[tier].inner().held(KEYS[0]));
    if after[1] != read.held[1] {
        let (expected, got) = (shown(read.held[1].as_ref()), shown(after[1].as_ref()));
        let cause = "a read that writes to the tier it read from";
        return Err(read.broken(format!("tier 1 still holds {expected}"), got, cause));
    }
    if after[0] != expected {
        let (expected, got) = (shown(expected.as_ref()), shown(after[0].as_ref()));
        let cause = if dead && from_below {
            "a dead entry is copied upwards"
        } else {
            "the copy is not made, or is not the same entry: all four instants, version and tags"
        };
        return Err(read.broken(format!("tier 0 then holds {expected}"), got, cause));
    }
    let peeked = read.world.stack.peek_with(KEYS[0], Entry::clone);
    if peeked.is_some() && peeked != expected {
        let (expected, got) = (shown(expected.as_ref()), shown(peeked.as_ref()));
        return Err(read.broken(format!("a peek shows {expected}"), got, "a peek past the upper tier"));
    }
    Ok(())
}

pub(super) fn outage(chain: &ChainUnderTest, held: &Held) -> Result<(), Finding> {
    let read = Read::new(chain, held, None);
    let answers = held.down.map(|down| !down);
    let usable = read.first_usable(answers).cloned();
    // What is fresh above needs nobody below.
    let expected = match (&usable, held.down) {
        (Some(entry), _) => Some(Some(entry.clone())),
        // The deepest tier knows that there is none.
        (None, [_, false]) => Some(None),
        (None, _) => None,
    };
    let kept = match (&read.seen, &expected) {
        (Some(Ok(seen)), Some(expected)) => seen == expected,
        (Some(Err(_)), None) => true,
        _ => false,
    };
    if kept {
        return Ok(());
    }
    let text =
        expected.map_or_else(|| "an error: no tier answered".to_owned(), |entry| shown(entry.as_ref()));
    let got = told(read.seen.as_ref());
    let cause = "an error of the upper tier passed on, or one of the lower tier taken for a miss";
    Err(read.broken(text, got, cause))
}

pub(super) fn failed_backfill(chain: &ChainUnderTest, held: &Held) -> Result<(), Finding> {
    let fault = [Fault::FailBefore, Fault::FailAfter, Fault::Refuse][usize::from(held.harm) % 3];
    let read = Read::new(chain, held, Some(fault));
    let expected = read.first_usable([true; 2]).cloned();
    if matches!(&read.seen, Some(Ok(seen)) if *seen == expected) {
        return Ok(());
    }
    let (expected, got) = (shown(expected.as_ref()), told(read.seen.as_ref()));
    Err(read.broken(expected, got, "the outcome of a backfill taken for the outcome of the read"))
}
