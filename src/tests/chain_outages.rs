//! Laws C5 and C6: chains whose tiers fail, go away and come back.

use proptest::prelude::*;

use super::chain_laws::{Pair, READS, Shape, at, entry, pair, plant, raced, strict_pair};
use super::rig::{Act, KEYS, Rig, planned, wild_act};
use crate::entry::Entry;
use crate::error::{Operation, Result};
use crate::store::{SetOutcome, Store};
use crate::testkit::Fault;
use crate::testkit::Loss;
use crate::testkit::Sim;
use crate::testkit::{Schedule, explore, schedules};

proptest! {
    /// C6, S3, S4, S8: tiers fail, come and go and forget, and nothing ever goes back.
    #[test]
    fn nothing_goes_back_in_an_outage_or_after_it(
        schedule in schedules(80),
        shape in proptest::sample::select(Shape::ALL.to_vec()),
        clients in proptest::collection::vec(proptest::collection::vec(wild_act(2), 1..6), 1..4),
        cancelled in proptest::option::of((0..3usize, 0..30u64)),
        faults in proptest::collection::vec(planned(2), 0..4),
    ) {
        let mut sim = Sim::new(schedule);
        let rig = shape.rig();
        rig.plant(0..shape.tiers());
        for (tier, operation, nth, fault) in faults {
            rig.tiers[tier].faults().on(operation, nth, fault);
        }
        for (index, acts) in clients.iter().enumerate() {
            let task = rig.client(&mut sim, &format!("client {index}"), acts);
            if let Some((victim, polls)) = cancelled && victim == index {
                task.cancel_after(polls);
            }
        }
        sim.run();
        rig.aftermath(&mut sim);
        rig.assert(Loss::Erases);
    }
}

/// S4, C6: a write that lost its caller after a tier failed it, and a strict one that failed in both tiers,
/// leave nothing of the old that could come back later.
#[test]
fn a_write_that_failed_above_and_went_no_further_leaves_nothing_of_the_old() {
    for polls in 0..12 {
        explore(1, 30_000, |sim| {
            let rig = Shape::Pair.rig();
            rig.plant(0..2);
            rig.tiers[0].faults().on(Operation::Remove, 0, Fault::FailBefore);
            rig.client(sim, "writer", &[Act::Set(0)]).cancel_after(polls);
            rig.client(sim, "reader", READS);
            sim.run();
            rig.aftermath(sim);
            rig.assert(Loss::Erases);
        });
    }
    let mut sim = Sim::new(Schedule::script([]));
    let rig = Shape::Strict.rig();
    rig.plant(0..2);
    let outage = [Act::DownFor(0, Operation::Remove), Act::DownFor(1, Operation::Set)];
    rig.client(&mut sim, "outage", &outage);
    rig.client(&mut sim, "writer", &[Act::Set(0), Act::Peek(0), Act::Get(0)]);
    sim.run();
    rig.aftermath(&mut sim);
    rig.assert(Loss::Erases);
}

/// C6: each call of each tier fails before or after its effect, in every race with a reader; then the
/// tier is well again.
#[test]
fn a_failed_write_or_removal_is_not_forgotten() {
    for write in [Act::Set(0), Act::Remove(0), Act::Clear] {
        for tier in 0..2 {
            for operation in [Operation::Get, Operation::Set, Operation::Remove, Operation::Clear] {
                for (nth, fault) in [(0, Fault::FailBefore), (1, Fault::FailBefore), (0, Fault::FailAfter)] {
                    raced(Shape::Pair, &[&[write], READS], Loss::Erases, |rig| {
                        rig.tiers[tier].faults().on(operation, nth, fault);
                    });
                }
            }
        }
    }
}

/// C6: set, outage, write or removal, recovery: the old entry is not back.
#[test]
fn nothing_comes_back_with_a_tier_that_recovers() {
    for write in [Act::Set(0), Act::Remove(0), Act::Clear] {
        for shape in Shape::ALL {
            for tier in 0..shape.tiers() {
                for outage in [
                    Act::Down(tier),
                    Act::DownFor(tier, Operation::Set),
                    Act::DownFor(tier, Operation::Remove),
                    Act::DownFor(tier, Operation::Clear),
                ] {
                    let explored = explore(1, 30_000, |sim| {
                        let rig = shape.rig();
                        rig.plant(0..shape.tiers());
                        let acts = [outage, write, Act::Peek(0), Act::Up(tier), Act::Peek(0), Act::Get(0)];
                        rig.client(sim, &format!("{shape:?} {acts:?}"), &acts);
                        rig.client(sim, "reader", &[Act::Get(0), Act::GetMany]);
                        sim.run();
                        rig.aftermath(sim);
                        rig.assert(Loss::Erases);
                    });
                    assert!(explored.complete, "{explored}");
                }
            }
        }
    }
}

/// C6, S3: a copy above that could not be replaced by a newer one from below (another host wrote it) does
/// not come back when the tier below goes away.
#[test]
fn a_failed_backfill_hides_the_older_copy() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let rig = Rig::new(2, pair);
        plant(&rig.tiers, &[Some(entry(1, 10, 50, 50)), Some(entry(2, 20, 50, 50))]);
        rig.tiers[0].faults().on(Operation::Set, 0, fault);
        let (stack, faults) = (rig.stack.clone(), [rig.tiers[0].faults(), rig.tiers[1].faults()]);
        Sim::new(Schedule::script([])).block_on(async move {
            let value = |seen: Result<Option<Entry<u64>>>| seen.ok().flatten().map(|entry| *entry.value());
            assert_eq!(value(stack.get_at("k", at(15)).await), Some(2));
            faults[1].down();
            assert_eq!(stack.peek_with("k", |entry| *entry.value()), None);
            assert_eq!(value(stack.get_at("k", at(15)).await), None, "{fault:?}");
        });
    }
}

/// C6, C8: the removal that is retried never takes a newer write along.
#[test]
fn a_retried_removal_spares_a_newer_write() {
    for tier in 0..2 {
        let explored = explore(2, 30_000, |sim| {
            let rig = Rig::new(2, pair);
            rig.plant(0..2);
            rig.client(sim, "outage", &[Act::Down(tier), Act::Remove(0), Act::Up(tier)]);
            sim.run();
            rig.client(sim, "writer", &[Act::Set(0)]);
            rig.client(sim, "reader", READS);
            sim.run();
            for tier in &rig.tiers {
                assert!(tier.inner().held(KEYS[0]).is_some(), "an acknowledged write is gone");
            }
            rig.aftermath(sim);
            rig.assert(Loss::Erases);
        });
        assert!(explored.complete, "{explored}");
    }
}

/// C6: once the tier is well, the mark goes with the first touch and the tier serves again.
#[test]
fn a_mark_is_lifted_when_a_removal_or_write_gets_through() {
    for tier in 0..2 {
        let rig = Rig::new(2, pair);
        rig.plant(0..2);
        let mut sim = Sim::new(Schedule::script([]));
        let absent = |rig: &Rig<Pair>| rig.stack.stats().absent_above + rig.stack.stats().absent_below;
        rig.client(&mut sim, "remove", &[Act::Down(tier), Act::Remove(0), Act::Get(0)]);
        sim.run();
        assert_eq!(absent(&rig), 1);
        assert!(rig.tiers[tier].inner().held(KEYS[0]).is_some(), "nobody could remove it");
        rig.client(&mut sim, "retry", &[Act::Up(tier), Act::Get(0)]);
        sim.run();
        assert_eq!(absent(&rig), 0);
        assert_eq!(rig.tiers[tier].inner().held(KEYS[0]), None, "the removal was retried");
        rig.client(&mut sim, "set", &[Act::Down(tier), Act::Remove(0), Act::Up(tier), Act::Set(0)]);
        sim.run();
        assert_eq!(absent(&rig), 0);
        let held = rig.tiers[tier].inner().held(KEYS[0]);
        assert!(held.is_some());
        let stack = rig.stack.clone();
        assert_eq!(sim.block_on(async move { stack.get(KEYS[0]).await.unwrap() }), held);
        rig.assert(Loss::Misses);
    }
}

/// One read of a pair whose tiers hold these entries and are up or down.
fn read(held: [Option<u64>; 2], down: [bool; 2], many: bool) -> (Result<Option<Entry<u64>>>, Rig<Pair>) {
    let rig = Rig::new(2, pair);
    for tier in 0..2 {
        if let Some(fresh) = held[tier] {
            rig.tiers[tier].inner().plant("k", entry(tier as u64, fresh, fresh, 100));
        }
        if down[tier] {
            rig.tiers[tier].faults().down();
        }
    }
    let stack = rig.stack.clone();
    let seen = Sim::new(Schedule::script([])).block_on(async move {
        if many { stack.get_many(&["k"], at(20)).await.remove(0) } else { stack.get_at("k", at(20)).await }
    });
    (seen, rig)
}

/// C5: who may fail a read, and who may not.
#[test]
fn a_read_fails_only_if_no_tier_answered_and_one_failed() {
    let value = |read: &Result<Option<Entry<u64>>>| match read {
        Ok(found) => Ok(found.as_ref().map(|entry| *entry.value())),
        Err(error) => Err(error.operation()),
    };
    let (fresh, stale) = (Some(30), Some(10));
    for many in [false, true] {
        let ask = |held, down| value(&read(held, down, many).0);
        assert_eq!(ask([fresh, None], [false, true]), Ok(Some(0)), "the upper tier serves what it has");
        assert_eq!(ask([stale, None], [false, true]), Ok(Some(0)), "and stale is better than an error");
        assert_eq!(ask([None, fresh], [true, false]), Ok(Some(1)), "trouble above fails nothing");
        assert_eq!(ask([None, None], [true, false]), Ok(None), "the deepest tier knows that there is none");
        assert_eq!(ask([None, fresh], [false, true]), Err(Operation::Get), "an outage is not a miss");
        assert_eq!(ask([fresh, fresh], [true, true]), Err(Operation::Get));
    }
}

/// C5: trouble with a backfill is nobody's trouble.
#[test]
fn a_failed_backfill_fails_no_read() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Refuse] {
        let rig = Rig::new(2, pair);
        rig.plant([1]);
        rig.tiers[0].faults().always(Operation::Set, fault);
        let stack = rig.stack.clone();
        let seen = Sim::new(Schedule::script([])).block_on(async move { stack.get("k").await });
        assert_eq!(seen.unwrap(), rig.tiers[1].inner().held("k"), "{fault:?}");
    }
}

/// C5: when the write below fails it is reported, and the tier above remembers all the same, unless the
/// chain is strict: then it takes the entry back.
#[test]
fn a_failed_write_below_is_reported_and_remembered_above() {
    for (strict, fault) in [false, true].into_iter().flat_map(|strict| {
        [Fault::FailBefore, Fault::FailAfter].map(|fault| (strict, fault)) //
    }) {
        let rig = Rig::new(2, if strict { strict_pair } else { pair });
        rig.plant(0..2);
        rig.tiers[1].faults().on(Operation::Set, 0, fault);
        let (stack, new) = (rig.stack.clone(), rig.entry());
        let (written, seen) = Sim::new(Schedule::script([])).block_on({
            let new = new.clone();
            async move { (stack.set("k", new).await, stack.get("k").await) }
        });
        assert_eq!(written.unwrap_err().operation(), Operation::Set);
        assert_eq!(seen.unwrap(), (!strict).then_some(new), "strict: {strict}, {fault:?}");
    }
}

/// C5: trouble above fails no write; a refusal is an answer.
#[test]
fn a_write_is_stored_when_a_tier_took_it() {
    use crate::store::Refusal::TooLarge;
    let outcome = |above: Option<Fault>, below: Option<Fault>| {
        let rig = Rig::new(2, pair);
        rig.plant(0..2);
        for (tier, fault) in [(0, above), (1, below)] {
            if let Some(fault) = fault {
                rig.tiers[tier].faults().always(Operation::Set, fault);
            }
        }
        let (stack, new) = (rig.stack.clone(), rig.entry());
        let (written, seen) = Sim::new(Schedule::script([]))
            .block_on(async move { (stack.set("k", new).await, stack.get("k").await.unwrap()) });
        (written.unwrap(), seen.is_some())
    };
    let refuse = Some(Fault::Refuse);
    assert_eq!(outcome(None, None), (SetOutcome::Stored, true));
    assert_eq!(outcome(Some(Fault::FailBefore), None), (SetOutcome::Stored, true));
    assert_eq!(outcome(refuse, None), (SetOutcome::Stored, true));
    assert_eq!(outcome(None, refuse), (SetOutcome::Stored, true));
    assert_eq!(outcome(refuse, refuse), (SetOutcome::Refused(TooLarge), false));
}
