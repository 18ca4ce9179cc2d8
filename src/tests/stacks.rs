//! Stacks of any shape, and the laws that hold for all of them.

use std::time::Duration;

use proptest::prelude::*;

use super::engine_races::{World, act};
use super::rig::{Rig, planned, wild_act};
use crate::entry::{Entry, Lifetime};
use crate::store::Store;
use crate::testkit::plan::{NEIGHBOUR, Neighbours, capped_stacks};
use crate::testkit::{Loss, Schedule, Sim, schedules, stacks};
use crate::time::{ManualClock, Timestamp};

/// Keys that are parts of each other and of the prefix.
const NAMES: [&str; 6] = ["", "k", "kk", "p", "p:", "p:k"];

/// Fresh for longer than a test takes and for less than any cap, which would change it.
fn lasting(value: u64) -> Entry<u64> {
    let [fresh, stale, keep] = [60, 120, 180].map(|seconds| Timestamp::from_nanos(seconds * 1_000_000_000));
    Entry::new(value, Lifetime::new(Timestamp::EPOCH, fresh, stale, keep)).with_tags(["a"])
}

proptest! {
    /// D2: whatever stores and adapters a stack is made of, it is a lossy register that never goes back
    /// (S1, S3, S4, S8, S9, S11), raced, failing and cancelled.
    #[test]
    fn any_stack_is_a_lossy_register(
        plan in stacks(4),
        schedule in schedules(80),
        clients in proptest::collection::vec(proptest::collection::vec(wild_act(4), 1..6), 1..4),
        cancelled in proptest::option::of((0..3usize, 0..30u64)),
        faults in proptest::collection::vec(planned(4), 0..4),
    ) {
        let mut sim = Sim::new(schedule);
        let clock = ManualClock::new(Timestamp::from_nanos(1000));
        let (stack, switches) = plan.build(&clock);
        prop_assert!(!stack.describe().to_string().is_empty());
        let rig = Rig::over(stack, switches, clock);
        for (tier, operation, nth, fault) in faults {
            rig.faults[tier % rig.faults.len()].on(operation, nth, fault);
        }
        for (index, acts) in clients.iter().enumerate() {
            let task = rig.client(&mut sim, &format!("client {index}"), acts);
            if let Some((victim, polls)) = cancelled && victim == index {
                task.cancel_after(polls);
            }
        }
        sim.run();
        rig.aftermath(&mut sim);
        rig.assert(Loss::Misses);
    }

    /// D2: S5 and S9 in any nesting, with nobody else around. Removal and clearing succeed also on what is
    /// absent, and take what they name and no more; a peek shows what a read answers.
    #[test]
    fn any_stack_removes_what_it_is_told_to_and_nothing_else(
        plan in stacks(4),
        written in proptest::collection::vec(0..NAMES.len(), 0..6),
        victim in 0..NAMES.len(),
    ) {
        let clock = ManualClock::new(Timestamp::from_nanos(1000));
        let neighbours = Neighbours::default();
        let (stack, _) = plan.build_beside(&clock, &neighbours);
        Sim::new(Schedule::script([])).block_on(async move {
            for (value, name) in (0..).zip(&written) {
                stack.set(NAMES[*name], lasting(value)).await.unwrap();
            }
            let mut held = Vec::new();
            for name in NAMES {
                let read = stack.get(name).await.unwrap();
                let peeked = stack.peek_with(name, Entry::clone);
                assert!(peeked.is_none() || peeked == read, "S9: {name:?}: {peeked:?}, {read:?}");
                held.push(read);
            }
            for _ in 0..2 {
                stack.remove(NAMES[victim]).await.unwrap();
                assert_eq!(stack.get(NAMES[victim]).await.unwrap(), None);
            }
            for (name, before) in NAMES.into_iter().zip(held) {
                let left = stack.get(name).await.unwrap();
                // A read above may have moved an entry into a small tier, which then gave up another.
                assert!(name == NAMES[victim] || left == before || left.is_none(), "{name:?}: {left:?}");
            }
            for _ in 0..2 {
                stack.clear().await.unwrap();
                for name in NAMES {
                    assert_eq!(stack.get(name).await.unwrap(), None);
                    assert_eq!(stack.peek_with(name, |_| ()), None);
                }
                assert!(stack.len().is_none_or(|len| len == 0));
                assert!(stack.weight().is_none_or(|weight| weight == 0));
            }
        });
        for memory in neighbours.lock().iter() {
            prop_assert_eq!(memory.len(), Some(1), "S5: only what is outside the prefix is left");
            prop_assert!(memory.peek_with(NEIGHBOUR, |_| ()).is_some(), "S5: the neighbour was touched");
        }
    }

    /// E4, E5, E11 over any stack: the engine's promises do not depend on what is under it.
    #[test]
    fn nothing_that_was_removed_comes_back_over_any_stack(
        plan in capped_stacks(4, Duration::from_millis(700)),
        schedule in schedules(80),
        clients in proptest::collection::vec(proptest::collection::vec(act(), 1..6), 2..4),
        cancelled in proptest::collection::vec((0..3usize, 0..20u64), 0..3),
        faults in proptest::collection::vec(planned(4), 0..3),
        races_time in any::<bool>(),
    ) {
        let mut sim = Sim::new(schedule);
        if races_time {
            sim.race_time();
        }
        // The stack's own clock stands still: caps only shorten, and the engine judges by its own.
        let (stack, switches) = plan.build(&ManualClock::new(Timestamp::from_nanos(1_000_000_000_000)));
        let world = World::over(&mut sim, stack, switches.clone());
        for (tier, operation, nth, fault) in faults {
            switches[tier % switches.len()].on(operation, nth, fault);
        }
        for (index, acts) in clients.iter().enumerate() {
            let task = world.client(&mut sim, &format!("client {index}"), acts);
            for &(_, polls) in cancelled.iter().filter(|(victim, _)| *victim == index) {
                task.cancel_after(polls);
            }
        }
        sim.run();
        world.assert(&mut sim);
    }
}
