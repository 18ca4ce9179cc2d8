//! Laws C1 to C9: chains, quiet and raced, healthy and not.

use std::time::Duration;

use proptest::prelude::*;

use super::bench::{Bench, How, SECOND};
use super::rig::{Act, Rig, Tier, calm_act, tiers};
use crate::adapters::{Chain, FreshForAtMost};
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::{Operation, Result};
use crate::store::Store;
use crate::testkit::Fault;
use crate::testkit::Loss;
use crate::testkit::Sim;
use crate::testkit::{Schedule, explore, schedules};
use crate::time::{Clock, ManualClock, Timestamp};

pub(super) type Pair = Chain<Tier, Tier>;

pub(super) fn pair(tiers: &[Tier], clock: ManualClock) -> Pair {
    Chain::new(tiers[0].clone(), tiers[1].clone()).clock(clock)
}

pub(super) fn strict_pair(tiers: &[Tier], clock: ManualClock) -> Pair {
    pair(tiers, clock).strict()
}

/// Two or three tiers; three of them nested to the left or to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Pair,
    Strict,
    Left,
    Right,
}

impl Shape {
    pub(super) const ALL: [Self; 4] = [Self::Pair, Self::Strict, Self::Left, Self::Right];

    pub(super) fn tiers(self) -> usize {
        if matches!(self, Self::Pair | Self::Strict) { 2 } else { 3 }
    }

    fn build(self, tiers: &[Tier], clock: ManualClock) -> BoxStore<str, u64> {
        let tier = |index: usize| tiers[index].clone();
        match self {
            Self::Pair => BoxStore::new(pair(tiers, clock)),
            Self::Strict => BoxStore::new(strict_pair(tiers, clock)),
            Self::Left => {
                let upper = Chain::new(tier(0), tier(1)).clock(clock.clone());
                BoxStore::new(Chain::new(upper, tier(2)).clock(clock))
            }
            Self::Right => {
                let lower = Chain::new(tier(1), tier(2)).clock(clock.clone());
                BoxStore::new(Chain::new(tier(0), lower).clock(clock))
            }
        }
    }

    pub(super) fn rig(self) -> Rig<BoxStore<str, u64>> {
        Rig::new(self.tiers(), |tiers, clock| self.build(tiers, clock))
    }
}

pub(super) fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

pub(super) fn entry(value: u64, fresh: u64, stale: u64, keep: u64) -> Entry<u64> {
    Entry::new(value, Lifetime::new(at(0), at(fresh), at(stale), at(keep)))
}

/// Any entry; its windows have one length, as those of one key in one cache mostly do.
fn some_entry() -> impl Strategy<Value = Option<Entry<u64>>> {
    let parts = (0..100u64, prop_oneof![8..13u64, Just(u64::MAX)], any::<bool>());
    let entries = parts.prop_map(|(value, fresh, rare)| {
        let plain = entry(value, fresh, fresh.saturating_add(1), fresh.saturating_add(2));
        if rare { plain.with_version("v").with_tags(["b", "a"]) } else { plain }
    });
    proptest::option::weighted(0.8, entries)
}

/// C1 as the law states it.
fn first_usable(held: &[Option<Entry<u64>>], now: Timestamp) -> Option<Entry<u64>> {
    let fresh = held.iter().flatten().find(|entry| entry.freshness(now) == Freshness::Fresh);
    let longest = held.iter().flatten().rev().max_by_key(|entry| entry.lifetime().fresh_until());
    fresh.or(longest).cloned()
}

pub(super) fn plant(tiers: &[Tier], held: &[Option<Entry<u64>>]) {
    for (tier, entry) in tiers.iter().zip(held) {
        if let Some(entry) = entry {
            tier.inner().plant("k", entry.clone());
        }
    }
}

fn quiet(tiers: &[Tier]) {
    for tier in tiers {
        tier.faults().yields(0, 0);
    }
}

proptest! {
    /// C1, C2, C7, S11: the answer, the backfill, however the tiers are nested and asked.
    #[test]
    fn a_chain_answers_with_the_first_fresh_entry_and_fills_it_in_above(
        held in [some_entry(), some_entry(), some_entry()],
        now in 8..16u64,
        many in any::<bool>(),
    ) {
        for shape in [Shape::Pair, Shape::Left, Shape::Right] {
            let held = &held[..shape.tiers()];
            let rig = shape.rig();
            plant(&rig.tiers, held);
            let stack = rig.stack.clone();
            let seen = Sim::new(Schedule::script([])).block_on(async move {
                if !many {
                    return stack.get_at("k", at(now)).await.unwrap();
                }
                let seen = stack.get_many(&["nothing", "k"], at(now)).await;
                seen.into_iter().map(Result::unwrap).next_back().unwrap()
            });
            let expected = first_usable(held, at(now));
            prop_assert_eq!(&seen, &expected, "{:?}", shape);
            let Some(expected) = expected else { continue };
            let source = held.iter().position(|entry| entry.as_ref() == Some(&expected)).unwrap();
            let dead = expected.freshness(at(now)) == Freshness::Dead;
            for (tier, before) in rig.tiers[..source].iter().zip(held) {
                let wanted = if dead { before.clone() } else { Some(expected.clone()) };
                prop_assert_eq!(tier.inner().held("k"), wanted, "{:?}", shape);
            }
            let deepest = shape.tiers() - 1;
            prop_assert_eq!(&rig.tiers[deepest].inner().held("k"), &held[deepest], "only ever read");
        }
    }

    /// C7: two nestings of the same tiers cannot be told apart, whatever the upper tiers forget. (What the
    /// middle tier happens to hold a copy of may differ; only its own loss and the deepest one's could
    /// show it.)
    #[test]
    fn a_chain_is_associative(
        held in [some_entry(), some_entry(), some_entry()],
        calls in proptest::collection::vec((0..4u8, some_entry(), 8..16u64, 0..2usize), 0..12),
    ) {
        let (left, right) = (Shape::Left.rig(), Shape::Right.rig());
        for rig in [&left, &right] {
            plant(&rig.tiers, &held);
            quiet(&rig.tiers);
        }
        let mut sim = Sim::new(Schedule::script([]));
        let mut latest = 0;
        for (call, entry, now, tier) in calls {
            // With a clock that steps back, a copy that the middle tier took too late could be told.
            latest = latest.max(now);
            let now = latest;
            let mut answers = Vec::new();
            for rig in [&left, &right] {
                let (stack, entry) = (rig.stack.clone(), entry.clone());
                let answer = sim.block_on(async move {
                    match (call, entry) {
                        (0, Some(entry)) => format!("{:?}", stack.set("k", entry).await),
                        (1, _) => format!("{:?}", stack.remove("k").await),
                        (2, _) => format!("{:?}", stack.clear().await),
                        _ => format!("{:?}", stack.get_at("k", at(now)).await),
                    }
                });
                let peeked = rig.stack.peek_with("k", Entry::clone);
                answers.push((answer, peeked, [0, 2].map(|tier: usize| rig.tiers[tier].inner().held("k"))));
                rig.tiers[tier].inner().forget("k");
            }
            prop_assert_eq!(&answers[0], &answers[1]);
        }
    }

    /// C3, C4, S3, S8: a healthy chain is a register that forgets nothing, whatever is cancelled.
    #[test]
    fn a_chain_of_healthy_tiers_is_an_exact_register(
        schedule in schedules(80),
        shape in proptest::sample::select(Shape::ALL.to_vec()),
        clients in proptest::collection::vec(proptest::collection::vec(calm_act(2), 1..6), 2..4),
        cancelled in proptest::option::of((0..3usize, 0..30u64)),
        planted in 0..8usize,
    ) {
        let mut sim = Sim::new(schedule);
        let rig = shape.rig();
        rig.plant((0..shape.tiers() - 1).filter(|tier| planted & (1 << tier) != 0).chain([shape.tiers() - 1]));
        for (index, acts) in clients.iter().enumerate() {
            let task = rig.client(&mut sim, &format!("client {index}"), acts);
            if let Some((victim, polls)) = cancelled && victim == index {
                task.cancel_after(polls);
            }
        }
        sim.run();
        rig.aftermath(&mut sim);
        rig.assert(Loss::Never);
    }
}

/// Every schedule with at most two preemptions of these clients, for an old entry below or in both.
pub(super) fn raced(
    shape: Shape,
    clients: &[&[Act]],
    loss: Loss,
    prepare: impl Fn(&Rig<BoxStore<str, u64>>),
) {
    for planted in 0..shape.tiers() {
        let explored = explore(2, 30_000, |sim| {
            let rig = shape.rig();
            rig.plant(planted..shape.tiers());
            prepare(&rig);
            for (index, acts) in clients.iter().enumerate() {
                rig.client(sim, &format!("client {index}"), acts);
            }
            sim.run();
            rig.aftermath(sim);
            rig.assert(loss);
        });
        assert!(explored.complete, "{clients:?}: {explored}");
    }
}

pub(super) const READS: &[Act] = &[Act::Get(0), Act::Get(0)];

/// C3: a backfill that crosses a removal, a clear or a newer write never wins.
#[test]
fn no_backfill_after_a_later_write() {
    for write in [Act::Set(0), Act::Remove(0), Act::Clear] {
        for shape in [Shape::Pair, Shape::Strict] {
            raced(shape, &[&[write], READS], Loss::Never, |_| {});
        }
        raced(Shape::Pair, &[&[write], &[Act::Get(0)], &[Act::Get(0)]], Loss::Never, |_| {});
        raced(Shape::Pair, &[&[write], &[Act::GetMany, Act::Get(0)]], Loss::Never, |_| {});
    }
}

/// C3, through two levels of fences.
#[test]
fn no_backfill_after_a_later_write_in_nested_chains() {
    for write in [Act::Set(0), Act::Remove(0), Act::Clear] {
        for shape in [Shape::Left, Shape::Right] {
            raced(shape, &[&[write], READS], Loss::Never, |_| {});
        }
    }
}

/// C4: the deepest tier is where an operation takes place, and no reader sees it flicker.
#[test]
fn writers_of_one_key_leave_the_tiers_in_agreement() {
    let writes = [Act::Set(0), Act::Remove(0), Act::Clear];
    for first in writes {
        for second in writes {
            raced(Shape::Pair, &[&[first], &[second]], Loss::Never, |_| {});
        }
    }
    raced(Shape::Pair, &[&[Act::Set(0)], &[Act::Set(0)], &[Act::Get(0)]], Loss::Never, |_| {});
    for write in writes {
        let reads: &[Act] = &[Act::Peek(0), Act::Get(0), Act::Peek(0)];
        raced(Shape::Pair, &[&[write], reads], Loss::Never, |_| {});
        raced(Shape::Pair, &[&[write], &[Act::Get(0)], &[Act::Peek(0)]], Loss::Never, |_| {});
    }
}

/// C4: an eviction above in mid-race changes nothing that can be seen.
#[test]
fn evictions_above_are_invisible() {
    for write in [Act::Set(0), Act::Remove(0)] {
        let evictor: &[Act] = &[Act::Forget(0, 0), Act::Forget(0, 0)];
        raced(Shape::Pair, &[&[write], READS, evictor], Loss::Never, |_| {});
    }
}

/// S4, S8: a call dropped after each of its polls leaves the old, the new or none, and a store that works.
#[test]
fn a_cancelled_call_leaves_a_legal_state() {
    for call in [Act::Set(0), Act::Remove(0), Act::Clear, Act::Get(0)] {
        for (shape, planted) in [(Shape::Pair, 0), (Shape::Pair, 1), (Shape::Left, 1), (Shape::Right, 1)] {
            for polls in 0.. {
                let cancelled = std::cell::Cell::new(false);
                explore(1, 30_000, |sim| {
                    let rig = shape.rig();
                    rig.plant(planted..shape.tiers());
                    let victim = rig.client(sim, "victim", &[call]);
                    victim.cancel_after(polls);
                    rig.client(sim, "other", if call == Act::Get(0) { &[Act::Remove(0)] } else { READS });
                    sim.run();
                    cancelled.set(cancelled.get() || victim.is_cancelled());
                    rig.aftermath(sim);
                    rig.assert(Loss::Never);
                });
                if !cancelled.get() {
                    assert!(polls > 2, "{call:?} waits somewhere");
                    break;
                }
            }
        }
    }
}

/// C8: wherever a writer hangs, a reader goes on, and answers the old, the new or nothing.
#[test]
fn a_reader_never_waits_for_a_writer() {
    for write in [Act::Set(0), Act::Remove(0), Act::Clear] {
        for (tier, operation) in (0..2).flat_map(|tier| {
            [Operation::Set, Operation::Remove, Operation::Clear].map(|operation| (tier, operation)) //
        }) {
            for fault in [Fault::HangBefore, Fault::HangAfter] {
                let rig = Rig::new(2, pair);
                rig.plant([1]);
                rig.tiers[tier].faults().on(operation, 0, fault);
                let mut sim = Sim::new(Schedule::script([]));
                let writer = rig.client(&mut sim, "writer", &[write]);
                sim.run_ready();
                if writer.is_done() {
                    continue;
                }
                let second = rig.client(&mut sim, "second writer", &[Act::Set(0)]);
                let reader = rig.client(&mut sim, "reader", READS);
                sim.run_ready();
                assert!(reader.is_done(), "{write:?} hangs in {operation} of tier {tier}");
                assert!(!second.is_done(), "writers take turns");
                rig.tiers[tier].faults().release();
                sim.run();
                rig.aftermath(&mut sim);
                rig.assert(Loss::Never);
            }
        }
    }
}

/// S8: nothing is left of the fences when nothing runs, also after calls that were dropped.
#[test]
fn a_chain_at_rest_holds_no_fence() {
    for polls in 0..12 {
        let rig = Rig::new(2, pair);
        rig.plant([1]);
        let mut sim = Sim::new(Schedule::random(polls));
        for (name, act) in [("get", Act::Get(0)), ("set", Act::Set(0)), ("clear", Act::Clear)] {
            rig.client(&mut sim, name, &[act]).cancel_after(polls);
        }
        sim.run();
        let debug = format!("{:?}", rig.stack);
        assert!(!debug.contains("Lane"), "{debug}");
    }
}

/// S11: bulk writes and removals equal their single calls.
#[test]
fn bulk_calls_equal_their_single_calls() {
    let tiers = tiers(2);
    let stack = pair(&tiers, ManualClock::new(at(1)));
    tiers[1].faults().on(Operation::Set, 1, Fault::FailBefore);
    tiers[1].faults().on(Operation::Remove, 1, Fault::FailBefore);
    Sim::new(Schedule::script([])).block_on(async move {
        let entries = [("a", entry(1, 20, 20, 20)), ("b", entry(2, 20, 20, 20)), ("c", entry(3, 20, 20, 20))];
        let written = stack.set_many(&entries).await;
        assert_eq!(written.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        for (key, entry) in &entries {
            assert_eq!(stack.get(key).await.unwrap().as_ref(), Some(entry));
        }
        let removed = stack.remove_many(&["a", "b", "c"]).await;
        assert_eq!(removed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        for answer in stack.get_many(&["a", "b", "c"], at(1)).await {
            assert_eq!(answer.unwrap(), None);
        }
        assert!(stack.flush().await.is_ok());
    });
}

/// C9: a tier with a cap serves its copy for less and never for longer; when the cap has passed, one read
/// below renews it for another period, and the stale window keeps its length.
#[test]
fn a_capped_tier_is_renewed_by_one_read_below_a_period() {
    let second = 1_000_000_000;
    let tiers = tiers(2);
    let clock = ManualClock::new(at(0));
    let upper = FreshForAtMost::new(tiers[0].clone(), Duration::from_secs(10)).clock(clock.clone());
    let stack = Chain::new(upper, tiers[1].clone()).clock(clock.clone());
    let origin = entry(7, 100 * second, 120 * second, 150 * second);
    tiers[1].inner().plant("k", origin.clone());
    Sim::new(Schedule::script([])).block_on(async move {
        for now in 0..=100 {
            clock.set(at(now * second));
            let seen = stack.get_at("k", clock.now()).await.unwrap().unwrap();
            assert_eq!(seen.freshness(clock.now()), Freshness::Fresh, "at {now} s");
            let held = tiers[0].inner().held("k").unwrap().lifetime();
            assert!(held.fresh_until() <= at((now + 10) * second), "at {now} s");
            assert!(held.keep_until() <= origin.lifetime().keep_until(), "at {now} s");
            assert_eq!(held.stale_until().since(held.fresh_until()), Duration::from_secs(20));
        }
        // The copy of the instant 0 is fresh to the instant 10 and itself included: a read every 11 s.
        assert_eq!(tiers[1].faults().calls(Operation::Get), 101_u64.div_ceil(11));
        clock.set(at(100 * second + 1));
        let stale = stack.get_at("k", clock.now()).await.unwrap().unwrap();
        assert_eq!(stale.freshness(clock.now()), Freshness::Stale, "a cap adds no freshness");
    });
}

/// C9 through the engine, which judges by its own clock: a computation, and from then on one read of the
/// lower tier a period, for as long as the entry is fresh.
#[test]
fn the_engine_renews_a_capped_tier_by_one_read_below_a_period() {
    let mut sim = Sim::new(Schedule::script([]));
    let tiers = tiers(2);
    // The cap and the engine have to agree about the time, so the chain's clock is driven as well.
    let clock = ManualClock::new(at(1_000_000_000_000));
    let upper = FreshForAtMost::new(tiers[0].clone(), 10 * SECOND).clock(clock.clone());
    let stack = Chain::new(upper, tiers[1].clone()).clock(clock.clone());
    let bench = Bench::new(&mut sim, stack, |builder| builder.ttl(100 * SECOND).stale(20 * SECOND));
    bench.origin.bump();
    let reads = |of: &Tier| of.faults().calls(Operation::Get);
    let mut ask = |bench: &Bench<_>| {
        let asked = bench.ask(&mut sim, "reader", "k", How::Answer(0));
        sim.run();
        let value = asked.value().unwrap();
        sim.advance(SECOND);
        clock.set(bench.clock.now());
        value
    };
    assert_eq!(ask(&bench), 1);
    bench.origin.bump();
    let before = reads(&tiers[1]);
    for second in 1..=100_u64 {
        assert_eq!((ask(&bench), bench.origin.computations()), (1, 1), "at {second} s");
        // The copy of the instant 0 is fresh to the instant 10 and itself included: a read every 11 s.
        assert_eq!(reads(&tiers[1]) - before, second / 11, "at {second} s");
    }
    assert_eq!((ask(&bench), ask(&bench)), (1, 2), "stale at 101 s, and refreshed by then");
    assert_eq!(bench.origin.computations(), 2);
}
