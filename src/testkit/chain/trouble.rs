//! Fixed scenarios: writes that fail or hang in a tier, and tiers that go away and come back (C4, C5, C6, C8).

use std::cell::RefCell;

use super::{BOTH, ChainUnderTest, ERASES, LOWER};
use crate::dynamic::BoxStore;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::testkit::executor::{Schedule, Sim, explore};
use crate::testkit::faulty::Faults;
use crate::testkit::race::{Harm, KEYS, Op, Planned, Race, Step, World, explored};
use crate::testkit::runner::Finding;
use crate::testkit::script::block;

const EACH: [Step; 6] =
    [Step::Set(0), Step::Renew(0), Step::Remove(0), Step::Clear, Step::SetMany, Step::RemoveMany];
const OPS: [Op; 3] = [Op::Set, Op::Remove, Op::Clear];

fn finding(lines: &[String], expected: &str, got: String, cause: &str) -> Finding {
    Finding { timeline: lines.join("\n"), expected: expected.to_owned(), got, cause: cause.to_owned() }
}

/// Every write, hanging at every place where it may.
pub(super) fn hanging_writes() -> Vec<Race<()>> {
    let mut races = Vec::new();
    for write in EACH {
        for leaf in 0..2 {
            for op in OPS {
                for harm in [Harm::HangBefore, Harm::HangAfter] {
                    for planted in [LOWER, BOTH] {
                        let mut race =
                            Race::of((), planted, &[&[write], &[Step::Get(0), Step::GetMany, Step::Peek(0)]]);
                        race.faults = vec![Planned { leaf, op, nth: 0, harm }];
                        races.push(race);
                    }
                }
            }
        }
    }
    races
}

/// Runs the first task of a race until it hangs; `None` if it does not.
fn hang(chain: &ChainUnderTest, race: &Race<()>) -> Option<(Sim, World<BoxStore<str, u64>>)> {
    let world = chain.world(race.planted);
    world.prepare(race);
    let mut sim = Sim::new(Schedule::script([]));
    let writer = world.task(&mut sim, "writer", race.tasks.first()?);
    sim.run_ready();
    (!writer.is_done()).then_some((sim, world))
}

/// C4: wherever a write stands, the tiers are as the order of writes has it.
pub(super) fn order(chain: &ChainUnderTest, race: &Race<()>) -> Result<(), Finding> {
    let Some((mut sim, world)) = hang(chain, race) else { return Ok(()) };
    let (Some(planned), Some(write)) =
        (race.faults.first(), race.tasks.first().and_then(|steps| steps.first()))
    else {
        return Ok(());
    };
    // By the instant at which they were created: a renewal may leave the value as it is.
    let held_in = |world: &World<_>| {
        [0, 1].map(|tier: usize| world.tiers[tier].inner().held(KEYS[0]).map(|entry| entry.created_at()))
    };
    let [_, old] = held_in(&chain.world(race.planted));
    let held = || held_in(&world);
    let [above, below] = held();
    let sets = matches!(write, Step::Set(_) | Step::Renew(_) | Step::SetMany);
    let renews = matches!(write, Step::Renew(_));
    let peeked = world.stack.peek_with(KEYS[0], |_| ()).is_some();
    let lines = vec![race.preface(), format!("the write hangs; tier 0 holds {above:?}, tier 1 {below:?}")];
    let before = planned.harm == Harm::HangBefore;
    let wrong = match (planned.leaf, planned.op) {
        (_, Op::Set) if renews && peeked => {
            Some("the upper copy counts as absent until both tiers have acknowledged the renewal")
        }
        (1, Op::Set) if renews => None,
        (1, Op::Set) if above.is_some() => {
            Some("the upper copy is dropped before the lower tier is written, and filled after it")
        }
        (0, Op::Set) if sets && (below == old || below.is_none()) => {
            Some("the lower tier is written before the upper one is filled")
        }
        (0, Op::Remove | Op::Clear) if before && below != old => {
            Some("the lower tier is untouched until the upper copy is dropped")
        }
        (1, Op::Remove | Op::Clear) if above.is_some() => Some("a removal goes from the top down"),
        _ => None,
    };
    let cause = "another order than: drop above, write below, fill above; remove above, remove below";
    if let Some(expected) = wrong {
        return Err(finding(&lines, expected, format!("tier 0 holds {above:?}, tier 1 {below:?}"), cause));
    }
    world.faults.iter().for_each(Faults::release);
    if let Err(stall) = sim.try_run() {
        return Err(finding(&lines, "the write ends", stall.to_string(), cause));
    }
    let [above, below] = held();
    let kept =
        if sets { below.is_some() && below != old && above == below } else { above.or(below).is_none() };
    if kept {
        return Ok(());
    }
    let expected = "once it is acknowledged, both tiers hold what was written, or nothing after a removal";
    Err(finding(&lines, expected, format!("tier 0 holds {above:?}, tier 1 {below:?}"), cause))
}

/// C8: wherever a writer hangs, a reader goes on.
pub(super) fn patience(chain: &ChainUnderTest, race: &Race<()>) -> Result<(), Finding> {
    let (Some((mut sim, world)), Some(steps)) = (hang(chain, race), race.tasks.get(1)) else { return Ok(()) };
    let reader = world.task(&mut sim, "reader", steps);
    sim.run_ready();
    if reader.is_done() {
        return Ok(());
    }
    Err(finding(
        &[race.preface(), "the writer hangs, then the reader begins".to_owned()],
        "the reader answers: the old, the new, or nothing",
        "it waits for the writer".to_owned(),
        "a lock that a writer holds across its calls, taken by readers; a backfill may only try it",
    ))
}

/// Every single call of a tier failing in every write.
pub(super) fn failing_writes() -> Vec<Race<()>> {
    let mut races = Vec::new();
    for write in EACH {
        for op in OPS {
            for harm in [Harm::FailBefore, Harm::FailAfter, Harm::Refuse] {
                for leaves in [&[0][..], &[1], &[0, 1]] {
                    let mut race = Race::of((), BOTH, &[&[write]]);
                    race.faults = leaves.iter().map(|&leaf| Planned { leaf, op, nth: 0, harm }).collect();
                    races.push(race);
                }
            }
        }
    }
    races
}

/// C5: what a failing write answers, and what is read after it.
pub(super) fn reported(chain: &ChainUnderTest, race: &Race<()>) -> Result<(), Finding> {
    let world = chain.world(race.planted);
    world.prepare(race);
    let Some(write) = race.tasks.first().and_then(|steps| steps.first()) else { return Ok(()) };
    let meets = |leaf: u8, op: Op| {
        race.faults.iter().find(|fault| fault.leaf == leaf && fault.op == op).map(|fault| fault.harm)
    };
    let failed = |harm: Option<Harm>| matches!(harm, Some(Harm::FailBefore | Harm::FailAfter));
    let refused = |harm| harm == Some(Harm::Refuse);
    let stack = &world.stack;
    let new = world.entry();
    let answer = match write {
        Step::Set(_) => block(stack.set(KEYS[0], new.clone())).map(|set| set.map(Some)),
        Step::Renew(_) => block(stack.renew(KEYS[0], new.clone())).map(|set| set.map(Some)),
        Step::SetMany => block(stack.set_many(&[(KEYS[0], new.clone()), (KEYS[1], world.entry())]))
            .map(|all| all.into_iter().next().unwrap_or(Ok(SetOutcome::Stored)).map(Some)),
        Step::Remove(_) => block(stack.remove(KEYS[0])).map(|done| done.map(|()| None)),
        Step::RemoveMany => {
            block(stack.remove_many(&KEYS)).map(|all| all.into_iter().next().unwrap_or(Ok(())).map(|()| None))
        }
        _ => block(stack.clear()).map(|done| done.map(|()| None)),
    };
    let sets = matches!(write, Step::Set(_) | Step::Renew(_) | Step::SetMany);
    let peeked = stack.peek_with(KEYS[0], |entry| *entry.value());
    let read = block(stack.get(KEYS[0]));
    let lines =
        [race.preface(), format!("the write answers {answer:?}"), format!("then a get answers {read:?}")];
    let value = |read: &Option<Result<Option<Entry<u64>>>>| match read {
        Some(Ok(found)) => found.as_ref().map(|entry| *entry.value()),
        _ => None,
    };
    let below = match write {
        Step::Clear => meets(1, Op::Clear),
        Step::Set(_) | Step::Renew(_) | Step::SetMany => meets(1, Op::Set),
        _ => meets(1, Op::Remove),
    };
    let wrong = |expected: &str, got: String, cause| Err(finding(&lines, expected, got, cause));
    if failed(below) && !matches!(answer, Some(Err(_))) {
        let got = format!("{answer:?}");
        return wrong("an error: the deepest tier failed", got, "an error of the lower tier swallowed");
    }
    if sets && !failed(below) {
        let nowhere = refused(below) && (refused(meets(0, Op::Set)) || failed(meets(0, Op::Set)));
        match &answer {
            Some(Ok(Some(SetOutcome::Refused(_)))) if nowhere => {}
            Some(Ok(Some(SetOutcome::Stored))) if !(refused(below) && refused(meets(0, Op::Set))) => {}
            _ => {
                let expected =
                    if nowhere { "a refusal: no tier holds it" } else { "it is stored: a tier took it" };
                let got = format!("{answer:?}");
                return wrong(
                    expected,
                    got,
                    "trouble above fails the write, or a refusal below speaks for both",
                );
            }
        }
    }
    let above = meets(0, Op::Set).is_none();
    let new = *new.value();
    if sets && failed(below) && !chain.strict && above && value(&read) != Some(new) {
        let got = format!("{read:?}");
        return wrong(
            "the upper tier remembers the new entry",
            got,
            "a failed write below ends the whole write",
        );
    }
    if sets && failed(below) && chain.strict && value(&read).is_some() {
        let got = format!("{read:?}");
        return wrong(
            "strict: the new entry was taken back, and the old one is gone",
            got,
            "what was filled above is not taken back",
        );
    }
    if sets && below.is_none() && value(&read) != Some(new) {
        return wrong(
            "the new entry",
            format!("{read:?}"),
            "the lower tier is not written when the upper one fails",
        );
    }
    for seen in [peeked, value(&read)] {
        if seen == Some(0) {
            let got = format!("the old entry: a peek shows {peeked:?}, a get {read:?}");
            return wrong(
                "not the old entry: it was replaced or removed, or counts as absent",
                got,
                "a failure that left the old copy in use",
            );
        }
    }
    Ok(())
}

/// A tier goes away, a write is tried, the tier comes back.
pub(super) fn outages() -> Vec<Race<()>> {
    let mut races = Vec::new();
    for write in EACH {
        for tier in 0..2 {
            let mut outages = vec![Step::Down(tier)];
            outages.extend(OPS.map(|op| Step::DownFor(tier, op)));
            for outage in outages {
                for read in [Step::Get(0), Step::GetMany, Step::Peek(0)] {
                    races.push(Race::of((), BOTH, &[&[outage, write, Step::Up(tier), read]]));
                    races.push(Race::of((), BOTH, &[&[outage, write, read, Step::Up(tier), read]]));
                }
            }
        }
    }
    // A second write that fails as well lifts no mark, and one that gets through above lifts none below.
    for tier in 0..2 {
        let (down, up) = (Step::Down(tier), Step::Up(tier));
        races.push(Race::of(
            (),
            BOTH,
            &[&[down, Step::Remove(0), Step::Set(0), Step::Forget(0, 0), up, Step::Get(0)]],
        ));
        races.push(Race::of((), BOTH, &[&[down, Step::Set(0), Step::Remove(0), up, Step::Get(0)]]));
        races.push(Race::of((), BOTH, &[&[down, Step::Remove(0), Step::Get(0), up, Step::Get(0)]]));
    }
    // A write or backfill that failed after a removal above went through.
    for (op, harm) in
        [(Op::Set, Harm::FailBefore), (Op::Set, Harm::FailAfter), (Op::Remove, Harm::FailBefore)]
    {
        for leaf in 0..2 {
            for nth in 0..2 {
                let mut race = Race::of((), BOTH, &[&[Step::Set(0)], &[Step::Get(0), Step::Get(0)]]);
                race.faults = vec![Planned { leaf, op, nth, harm }];
                races.push(race);
            }
        }
    }
    races
}

/// C6: nothing of the old is seen in the outage or after it, however a reader interleaves.
pub(super) fn nothing_comes_back(chain: &ChainUnderTest, race: &Race<()>) -> Result<(), Finding> {
    explored(race, || chain.world(race.planted), ERASES)
}

/// A tier misses a removal, comes back, and is touched or written.
pub(super) fn recoveries() -> Vec<Race<()>> {
    let mut races = Vec::new();
    for tier in 0..2 {
        let missed = [Step::Down(tier), Step::Remove(0), Step::Up(tier)];
        let then = |steps: &[Step]| Race::of((), 1 << tier, &[&[&missed[..], steps].concat()]);
        races.push(then(&[Step::Get(0)]));
        races.push(then(&[Step::GetMany]));
        races.push(then(&[Step::Set(0)]));
        races.push(then(&[Step::Renew(0)]));
        races.push(then(&[Step::Get(0), Step::Set(0)]));
    }
    races
}

/// C6: the next touch makes up for the removal, and a write puts the tier back to use.
pub(super) fn lifted(chain: &ChainUnderTest, race: &Race<()>) -> Result<(), Finding> {
    let world = chain.world(race.planted);
    let tier = usize::from(race.planted == LOWER);
    let mut sim = Sim::new(Schedule::script([]));
    let Some(steps) = race.tasks.first() else { return Ok(()) };
    // Without its outage a case says nothing.
    if !steps.iter().any(|step| matches!(step, Step::Down(_))) || race.planted == 0 {
        return Ok(());
    }
    world.task(&mut sim, "task 0", steps);
    let mut lines = vec![race.preface()];
    let cause = "the mark of a failed removal is never lifted, or the removal is not made up for";
    if let Err(stall) = sim.try_run() {
        return Err(finding(&lines, "every call ends", stall.to_string(), cause));
    }
    let held = || world.tiers[tier].inner().held(KEYS[0]).map(|entry| *entry.value());
    lines.push(format!("tier {tier} holds {:?}", held()));
    let up = steps.iter().any(|step| matches!(step, Step::Up(_)));
    match steps.last() {
        Some(Step::Get(_) | Step::GetMany) if up && held().is_some() => {
            let got = format!("it holds {:?}", held());
            Err(finding(&lines, "the tier is up, so that the touch has removed its old entry", got, cause))
        }
        Some(Step::Set(_) | Step::Renew(_)) => {
            // Only this tier can answer.
            world.tiers[1 - tier].inner().forget(KEYS[0]);
            let [peeked, read] = [
                world.stack.peek_with(KEYS[0], |entry| *entry.value()),
                block(world.stack.get(KEYS[0])).and_then(Result::ok).flatten().map(|entry| *entry.value()),
            ];
            lines.push(format!("the other tier forgets it; a peek shows {peeked:?}, a get answers {read:?}"));
            let served = held().is_some() && read == held() && (tier == 1 || peeked == held());
            if served || !up {
                return Ok(());
            }
            let got = format!("a peek shows {peeked:?}, a get answers {read:?}, it holds {:?}", held());
            Err(finding(&lines, "the tier took the new entry, and serves it", got, cause))
        }
        _ => Ok(()),
    }
}

/// A tier misses a removal and comes back; then a writer and a reader race.
pub(super) fn retries() -> Vec<Race<()>> {
    let mut races = Vec::new();
    for tier in 0..2 {
        let outage: &[Step] = &[Step::Down(tier), Step::Remove(0), Step::Up(tier)];
        races.push(Race::of((), BOTH, &[outage, &[Step::Set(0)], &[Step::Get(0), Step::Get(0)]]));
        races.push(Race::of((), BOTH, &[outage, &[Step::Set(0)], &[Step::GetMany]]));
        races.push(Race::of((), BOTH, &[outage, &[Step::Renew(0)], &[Step::Get(0)]]));
    }
    races
}

/// C6, C8: the removal that is made up for takes no newer write along.
pub(super) fn spared(chain: &ChainUnderTest, race: &Race<()>) -> Result<(), Finding> {
    let [outage, raced @ ..] = &race.tasks[..] else { return Ok(()) };
    if !raced.iter().flatten().any(|step| matches!(step, Step::Set(_) | Step::Renew(_))) {
        return Ok(());
    }
    let found = RefCell::new(None);
    explore(2, 30_000, |sim| {
        if found.borrow().is_some() {
            return;
        }
        let world = chain.world(race.planted);
        world.task(sim, "outage", outage);
        let mut end = sim.try_run();
        for (index, steps) in raced.iter().enumerate() {
            world.task(sim, &format!("task {}", index + 1), steps);
        }
        end = end.and_then(|()| sim.try_run());
        let held =
            [0, 1].map(|tier: usize| world.tiers[tier].inner().held(KEYS[0]).map(|entry| *entry.value()));
        let lines = [race.preface(), format!("in the end tier 0 holds {:?}, tier 1 {:?}", held[0], held[1])];
        let got = match end {
            Err(stall) => stall.to_string(),
            Ok(()) if held[0].is_none() || held[1].is_none() => "an acknowledged write is gone".to_owned(),
            Ok(()) => return,
        };
        let cause =
            "a removal that is retried without the turn of a writer, or without a second look at the mark";
        *found.borrow_mut() = Some(finding(&lines, "both tiers hold what was written", got, cause));
    });
    found.into_inner().map_or(Ok(()), Err)
}
