//! The kit's own tests: what it must catch, it catches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::entry::{Entry, Lifetime};
use crate::error::{Operation, Result};
use crate::runtime::Runtime;
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::Model;
use crate::testkit::{Call, History, Loss, Recorded, Reply};
use crate::testkit::{Fault, Faulty};
use crate::testkit::{Gate, yield_now};
use crate::testkit::{Schedule, explore, schedules, seeds};
use crate::testkit::{Sim, Stall};
use crate::time::{Clock, ManualClock, Timestamp};

fn entry(value: u64) -> Entry<u64> {
    Entry::new(value, Lifetime::forever(Timestamp::EPOCH))
}

async fn yields(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

#[test]
fn a_deadlock_is_reported_with_names_and_does_not_hang() {
    let mut sim = Sim::new(Schedule::random(1));
    let (one, other) = (Gate::default(), Gate::default());
    let (first, second) = (one.clone(), other.clone());
    sim.spawn("first", async move {
        first.wait().await;
        second.open();
    });
    let (first, second) = (one.clone(), other.clone());
    sim.spawn("second", async move {
        second.wait().await;
        first.open();
    });
    sim.spawn("third", yields(3));
    let expected = Stall::Deadlock { waiting: vec!["first".into(), "second".into()] };
    assert_eq!(sim.try_run(), Err(expected));
}

#[test]
fn a_lost_wake_up_is_a_deadlock() {
    let mut sim = Sim::new(Schedule::script([]));
    sim.spawn("sleepyhead", std::future::poll_fn(|_| std::task::Poll::<()>::Pending));
    assert!(matches!(sim.try_run(), Err(Stall::Deadlock { .. })));
}

#[test]
fn a_spin_uses_up_the_budget() {
    let mut sim = Sim::new(Schedule::random(1));
    sim.set_budget(100);
    sim.spawn("spinner", yields(usize::MAX));
    assert_eq!(sim.try_run(), Err(Stall::Spin { runnable: vec!["spinner".into()] }));
}

#[test]
fn a_task_is_polled_only_if_it_was_woken() {
    let mut sim = Sim::new(Schedule::script([]));
    let gate = Gate::default();
    let door = gate.clone();
    let waiter = sim.spawn("waiter", async move { door.wait().await });
    sim.spawn("busy", yields(5));
    sim.run_ready();
    assert!(!waiter.is_done());
    gate.open();
    sim.run();
    assert_eq!(sim.trace().iter().filter(|name| *name == "waiter").count(), 2);
    gate.shut();
    sim.spawn("late", async move { gate.wait().await });
    assert!(sim.try_run().is_err());
}

fn traced(schedule: Schedule) -> (Vec<String>, Vec<u8>) {
    let mut sim = Sim::new(schedule);
    for name in ["a", "b", "c"] {
        let runtime = sim.runtime();
        sim.spawn(name, async move {
            yields(3).await;
            assert!(runtime.spawn(Box::pin(yields(2))).is_ok());
        });
    }
    sim.run();
    (sim.trace(), sim.choices())
}

#[test]
fn the_same_seed_gives_the_same_trace_and_its_choices_give_it_again() {
    let mut traces = HashSet::new();
    for seed in 0..50 {
        let (trace, choices) = traced(Schedule::random(seed));
        assert_eq!((trace.clone(), choices.clone()), traced(Schedule::random(seed)));
        assert_eq!(traced(Schedule::script(choices)).0, trace);
        traces.insert(trace);
    }
    assert!(traces.len() > 40, "{} different traces", traces.len());
}

#[test]
fn panics_are_caught_and_told() {
    let mut sim = Sim::new(Schedule::random(7));
    let task = sim.spawn("bomb", async {
        yields(1).await;
        std::panic::resume_unwind(Box::new("boom"));
    });
    let runtime = sim.runtime();
    let detached = async { std::panic::resume_unwind(Box::new(String::from("bang"))) };
    assert!(runtime.spawn(Box::pin(detached)).is_ok());
    assert_eq!(sim.try_run(), Err(Stall::Panicked { task: "bomb".into(), message: "boom".into() }));
    task.may_panic();
    sim.run();
    assert_eq!(task.panicked().as_deref(), Some("boom"));
    assert!(!task.is_done());
    assert_eq!(sim.detached_panics(), ["detached-1: bang"]);
}

/// Counts how often it was dropped.
struct Dropped(Arc<Mutex<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock() += 1;
    }
}

#[test]
fn a_task_can_be_dropped_after_each_of_its_polls() {
    for polls in 0..6 {
        let drops = Arc::new(Mutex::new(0));
        let guard = Dropped(Arc::clone(&drops));
        let mut sim = Sim::new(Schedule::random(polls));
        let task = sim.spawn("victim", async move {
            let _guard = guard;
            yields(3).await;
        });
        task.cancel_after(polls);
        sim.run();
        // Three yields are four polls, and the fourth is the last.
        assert_eq!(task.is_cancelled(), polls < 4, "{polls}");
        assert_eq!(task.is_done(), polls >= 4, "{polls}");
        assert_eq!(sim.trace().len() as u64, if polls < 4 { polls + 1 } else { 4 });
        assert_eq!(*drops.lock(), 1);
    }
}

#[test]
fn a_task_that_waits_for_ever_can_be_dropped() {
    let mut sim = Sim::new(Schedule::random(1));
    let gate = Gate::default();
    let task = sim.spawn("waiter", async move { gate.wait().await });
    sim.run_ready();
    task.cancel();
    sim.run();
    assert!(task.is_cancelled());
}

#[test]
fn dropping_the_executor_drops_the_tasks() {
    let drops = Arc::new(Mutex::new(0));
    let mut sim = Sim::new(Schedule::random(1));
    let runtime = sim.runtime();
    for guard in [Dropped(Arc::clone(&drops)), Dropped(Arc::clone(&drops))] {
        let gate = Gate::default();
        let wait = async move {
            let _guard = guard;
            gate.wait().await;
        };
        assert!(runtime.spawn(Box::pin(wait)).is_ok());
    }
    sim.run_ready();
    assert_eq!(*drops.lock(), 0);
    drop(sim);
    assert_eq!(*drops.lock(), 2);
    assert!(runtime.spawn(Box::pin(async {})).is_err());
    assert!(runtime.sleep(Duration::ZERO).is_none());
}

#[test]
fn time_moves_only_when_nobody_is_runnable_and_takes_the_clock_along() {
    let clock = ManualClock::new(Timestamp::from_nanos(1000));
    let mut sim = Sim::new(Schedule::random(3));
    sim.drive(&clock);
    let order = Arc::new(Mutex::new(Vec::new()));
    for nanos in [30, 10, 20] {
        let (order, clock, sleep) = (order.clone(), clock.clone(), sim.runtime());
        sim.spawn(format!("sleep {nanos}"), async move {
            sleep.sleep(Duration::from_nanos(nanos)).unwrap().await;
            order.lock().push((nanos, clock.now().as_nanos()));
        });
    }
    let never = sim.runtime().sleep(Duration::MAX).unwrap();
    assert!(sim.runtime().spawn(never).is_ok());
    sim.advance(Duration::from_nanos(15));
    assert_eq!(*order.lock(), [(10, 1010)]);
    assert_eq!(clock.now().as_nanos(), 1015);
    assert_eq!(sim.settle(), ["detached-3"], "a sleep without end is left");
    assert_eq!(*order.lock(), [(10, 1010), (20, 1020), (30, 1030)]);
    assert_eq!(sim.now(), Duration::from_nanos(30));
}

#[test]
fn racing_time_lets_a_deadline_strike_in_the_middle_of_work() {
    let outcomes = Arc::new(Mutex::new(HashSet::new()));
    let explored = explore(1, 1000, |sim| {
        sim.race_time();
        let gate = Gate::default();
        let late = Arc::new(Mutex::new(false));
        let (flag, sleep) = (late.clone(), sim.runtime());
        sim.spawn("timer", async move {
            sleep.sleep(Duration::from_secs(1)).unwrap().await;
            *flag.lock() = true;
        });
        let outcomes = outcomes.clone();
        sim.spawn("work", async move {
            yields(2).await;
            outcomes.lock().insert(*late.lock());
            gate.open();
        });
        sim.run();
    });
    assert!(explored.complete, "{explored}");
    assert_eq!(outcomes.lock().len(), 2);
}

#[test]
fn an_executor_that_refuses_tasks_says_so() {
    let mut sim = Sim::new(Schedule::random(1));
    sim.refuse_tasks(true);
    assert!(sim.runtime().spawn(Box::pin(async {})).is_err());
    assert!(sim.runtime().sleep(Duration::ZERO).is_none());
    sim.refuse_tasks(false);
    assert!(sim.runtime().spawn(Box::pin(async {})).is_ok());
    assert_eq!(sim.block_on(async { 7 }), 7);
}

#[test]
fn tokio_locks_and_channels_need_no_tokio_runtime() {
    seeds(20, |sim| {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let lock = Arc::new(tokio::sync::Mutex::new(0));
        for name in ["a", "b", "c"] {
            let (sender, lock) = (sender.clone(), lock.clone());
            sim.spawn(name, async move {
                let mut count = lock.lock().await;
                yields(2).await;
                *count += 1;
                sender.send(*count).await.unwrap();
            });
        }
        drop(sender);
        let counter = sim.spawn("receiver", async move {
            let mut all = Vec::new();
            while let Some(count) = receiver.recv().await {
                all.push(count);
            }
            all
        });
        sim.run();
        assert_eq!(counter.value(), [1, 2, 3]);
    });
}

/// Two tasks read and write a counter with a yield between; `switches` is what the race needs.
fn lost_update(sim: &mut Sim) -> bool {
    let count = Arc::new(Mutex::new(0));
    for name in ["a", "b"] {
        let count = count.clone();
        sim.spawn(name, async move {
            let seen = *count.lock();
            yield_now().await;
            *count.lock() = seen + 1;
        });
    }
    sim.run();
    *count.lock() < 2
}

#[test]
fn exploration_is_exhaustive_and_finds_a_race_that_needs_one_switch() {
    let lost = Arc::new(Mutex::new(0));
    let count = |sim: &mut Sim| *lost.lock() += u64::from(lost_update(sim));
    // Who comes first is free: two schedules without a switch, two with one after a first poll.
    assert_eq!(explore(0, 100, count).schedules, 2);
    assert_eq!(*lost.lock(), 0);
    let explored = explore(1, 100, count);
    assert!(explored.complete, "{explored}");
    assert_eq!(explored.schedules, 4);
    assert_eq!(*lost.lock(), 2);
    assert!(!explore(1, 3, count).complete);
}

/// A chain as it is first written: what was read below is filled in above, without a fence.
#[derive(Debug)]
struct Naive {
    upper: Model<str, u64>,
    lower: Faulty<Model<str, u64>>,
    backfills: bool,
}

impl Store for Naive {
    type Key = str;
    type Value = u64;

    async fn get(&self, key: &str) -> Result<Option<Entry<u64>>> {
        if let Some(entry) = self.upper.held(key) {
            return Ok(Some(entry));
        }
        let found = self.lower.get(key).await?;
        if let Some(entry) = found.as_ref().filter(|_| self.backfills) {
            self.upper.plant(key, entry.clone());
        }
        Ok(found)
    }

    async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.upper.forget(key);
        self.lower.set(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.upper.forget(key);
        self.lower.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.upper.clear().await?;
        self.lower.clear().await
    }
}

fn naive(sim: &mut Sim, backfills: bool) -> History<String, Entry<u64>> {
    let lower = Faulty::new(Model::remote());
    let store = Arc::new(Naive { upper: Model::new(), lower, backfills });
    store.lower.inner().plant("k", entry(0));
    let history = History::new();
    history.begin("before", Some("k".into()), Call::Set(entry(0))).end(Reply::Done);
    let writer = Recorded::new(store.clone(), "writer", &history);
    sim.spawn("writer", async move {
        writer.remove("k").await.unwrap();
    });
    let reader = Recorded::new(store, "reader", &history);
    sim.spawn("reader", async move {
        reader.get("k").await.unwrap();
        reader.get("k").await.unwrap();
    });
    sim.run();
    history
}

#[test]
fn a_chain_without_fences_is_caught_and_a_sound_one_is_not() {
    for loss in [Loss::Never, Loss::Forgets, Loss::Misses] {
        assert!(explore(2, 10_000, |sim| naive(sim, false).assert(loss)).complete);
        let caught = Mutex::new(0);
        let explored = explore(2, 10_000, |sim| {
            if let Err(violation) = naive(sim, true).check(loss) {
                *caught.lock() += 1;
                assert!(violation.to_string().contains("writer"), "{violation}");
            }
        });
        assert!(explored.complete && *caught.lock() > 0, "{loss:?}: {explored}");
        let caught = Mutex::new(0);
        seeds(200, |sim| *caught.lock() += u64::from(naive(sim, true).check(loss).is_err()));
        assert!(*caught.lock() > 0, "{loss:?}: by chance");
    }
}

fn checked(loss: Loss, script: &[(&str, Call<u32>, Reply<u32>)]) -> bool {
    let history = History::new();
    for (task, call, reply) in script {
        history.begin(task, Some("k"), call.clone()).end(reply.clone());
    }
    history.check(loss).is_ok()
}

#[test]
fn s3_is_decided_as_the_law_says() {
    use Call::{Get, Remove, Set};
    use Reply::{Done, Dropped, Failed, Refused, Saw};
    let all = [Loss::Never, Loss::Forgets, Loss::Misses];
    let verdicts = |script: &[(&str, Call<u32>, Reply<u32>)]| all.map(|loss| checked(loss, script));
    let set = |value| ("w", Set(value), Done);
    let get = |seen| ("r", Get, Saw(seen));

    assert_eq!(verdicts(&[get(None), set(1), get(Some(1))]), [true; 3]);
    assert_eq!(verdicts(&[get(Some(1))]), [false; 3], "invented");
    assert_eq!(verdicts(&[set(1), set(2), get(Some(1))]), [false; 3], "older than acknowledged");
    assert_eq!(verdicts(&[set(1), ("w", Remove, Done), get(Some(1))]), [false; 3], "resurrected");
    assert_eq!(verdicts(&[set(1), get(None)]), [false, true, true], "forgotten");
    assert_eq!(verdicts(&[set(1), get(None), get(Some(1))]), [false, false, true], "missed for a while");
    for half in [Failed, Dropped] {
        let half_set = ("w", Set(2), half.clone());
        assert_eq!(verdicts(&[set(1), half_set.clone(), get(Some(1))]), [true; 3], "the old");
        assert_eq!(verdicts(&[set(1), half_set.clone(), get(Some(2))]), [true; 3], "the new");
        assert_eq!(verdicts(&[set(1), half_set.clone(), get(None)]), [true; 3], "or none");
        assert_eq!(
            verdicts(&[set(1), half_set.clone(), get(Some(2)), get(Some(1))]),
            [false; 3],
            "new-then-old"
        );
        assert_eq!(
            verdicts(&[set(1), half_set, get(Some(1)), get(Some(2))]),
            [false; 3],
            "effect afterwards"
        );
        let half_remove = ("w", Remove, half);
        assert_eq!(verdicts(&[set(1), half_remove.clone(), get(Some(1))]), [true; 3]);
        assert_eq!(verdicts(&[set(1), half_remove, get(None), get(Some(1))]), [false, false, true]);
    }
    assert_eq!(
        verdicts(&[set(1), ("w", Set(2), Refused), get(Some(1))]),
        [false; 3],
        "refused, and old kept"
    );
    assert_eq!(verdicts(&[set(1), ("w", Set(2), Refused), get(None)]), [true; 3]);
    assert_eq!(verdicts(&[set(1), ("r", Get, Failed), get(Some(1))]), [true; 3]);
}

#[test]
fn calls_that_overlap_may_take_effect_in_either_order_but_in_one() {
    let history = History::new();
    let one = history.begin("a", Some("k"), Call::Set(1));
    let two = history.begin("b", Some("k"), Call::Set(2));
    let read = |seen| history.begin("r", Some("k"), Call::Get).end(Reply::Saw(Some(seen)));
    read(2);
    read(1);
    assert!(history.check(Loss::Never).is_ok());
    read(2);
    let violation = history.check(Loss::Misses).unwrap_err().to_string();
    assert!(violation.contains(".. Saw(Some(1))") && violation.contains("1 is 2"), "{violation}");
    one.end(Reply::Done);
    drop(two);
    assert!(history.check(Loss::Misses).is_err());
}

#[test]
fn a_refused_value_may_be_seen_while_it_is_refused_and_not_after() {
    for late in [false, true] {
        let history = History::new();
        let set = history.begin("w", Some("k"), Call::Set(1));
        let read = |seen| history.begin("r", Some("k"), Call::Get).end(Reply::Saw(seen));
        read(Some(1));
        set.end(Reply::Refused);
        read(late.then_some(1));
        assert_eq!(history.check(Loss::Never).is_err(), late);
    }
}

#[test]
fn clear_removes_every_key_of_the_history() {
    let history = History::new();
    history.begin("w", Some("k"), Call::Set(1)).end(Reply::Done);
    history.begin("w", None, Call::Remove).end(Reply::Done);
    history.begin("r", Some("k"), Call::Get).end(Reply::Saw(Some(1)));
    assert!(history.check(Loss::Misses).is_err());
}

#[test]
fn faults_strike_when_they_are_told_to() {
    let mut sim = Sim::new(Schedule::random(1));
    let store = Arc::new(Faulty::new(Model::<str, u64>::new()));
    let faults = store.faults();
    let (shared, switches) = (Arc::clone(&store), faults.clone());
    sim.block_on(async move {
        let (store, faults) = (shared, switches);
        faults.on(Operation::Set, 1, Fault::FailBefore);
        faults.on(Operation::Set, 2, Fault::FailAfter);
        assert!(store.set("a", entry(1)).await.is_ok());
        assert!(store.set("a", entry(2)).await.is_err());
        assert_eq!(store.get("a").await.unwrap(), Some(entry(1)));
        assert!(store.set("a", entry(3)).await.is_err());
        assert_eq!(store.get("a").await.unwrap(), Some(entry(3)));
        faults.always(Operation::Set, Fault::Refuse);
        assert!(matches!(store.set("a", entry(4)).await, Ok(SetOutcome::Refused(_))));
        assert_eq!(store.get("a").await.unwrap(), None);
        faults.heal();
        store.set("a", entry(5)).await.unwrap();
        assert_eq!(store.peek_with("a", |entry| *entry.value()), Some(5));
        faults.down();
        assert!(store.remove("a").await.is_err() && store.clear().await.is_err());
        assert_eq!(store.peek_with("a", |entry| *entry.value()), None);
        faults.up();
        faults.down_for(Operation::Get);
        assert!(store.get("a").await.is_err() && store.get_at("a", Timestamp::EPOCH).await.is_err());
        store.flush().await.unwrap();
        assert_eq!(faults.calls(Operation::Get), 5);
        assert_eq!(faults.log().len(), 13);
        faults.up();
    });
    assert_eq!(store.inner().held("a"), Some(entry(5)));

    faults.on(Operation::Set, 0, Fault::HangBefore);
    faults.on(Operation::Set, 1, Fault::HangAfter);
    faults.on(Operation::Set, 2, Fault::PanicBefore);
    let tasks: Vec<_> = (6..9)
        .map(|value| {
            let store = Arc::clone(&store);
            let task = sim.spawn(format!("set {value}"), async move { store.set("a", entry(value)).await });
            task.may_panic();
            sim.run_ready();
            task
        })
        .collect();
    assert_eq!(store.inner().held("a"), Some(entry(7)));
    assert_eq!(tasks[2].panicked().as_deref(), Some("a faulty store panicked"));
    assert!(!tasks[0].is_done() && !tasks[1].is_done());
    faults.release();
    sim.run();
    assert_eq!(store.inner().held("a"), Some(entry(6)), "what hung before its effect comes late");
    store.inner().forget("a");
    assert_eq!(store.len(), Some(0));
}

#[test]
fn a_tier_may_go_down_in_the_middle_of_a_call() {
    let seen = Mutex::new(HashSet::new());
    explore(1, 1000, |sim| {
        let store = Arc::new(Faulty::new(Model::<str, u64>::new()));
        let faults = store.faults();
        let write = sim.spawn("writer", async move { store.set("a", entry(1)).await.is_ok() });
        sim.spawn("plug", async move { faults.down() });
        sim.run();
        seen.lock().insert(write.value());
    });
    assert_eq!(seen.lock().len(), 2);
}

proptest! {
    /// S3: the toy keeps the law that the checker checks, under any schedule, cancelled anywhere.
    #[test]
    fn a_toy_is_a_register(schedule in schedules(40), polls in 0..12u64, yields in (0..3usize, 0..3usize)) {
        let mut sim = Sim::new(schedule);
        let store = Arc::new(Faulty::new(Model::<str, u64>::remote()));
        store.faults().yields(yields.0, yields.1);
        let history = History::new();
        for writer in 0..2 {
            let client = Recorded::new(store.clone(), format!("writer {writer}"), &history);
            let task = sim.spawn(format!("writer {writer}"), async move {
                client.set("k", entry(writer)).await.unwrap();
                client.remove("k").await.unwrap();
                client.set("k", entry(10 + writer)).await.unwrap();
                client.clear().await.unwrap();
            });
            if writer == 1 {
                task.cancel_after(polls);
            }
        }
        let client = Recorded::new(store.clone(), "reader", &history);
        sim.spawn("reader", async move {
            for _ in 0..3 {
                client.get("k").await.unwrap();
                client.peek_with("k", |_| ());
                client.get_at("k", Timestamp::EPOCH).await.unwrap();
            }
        });
        sim.run();
        if let Err(violation) = history.check(Loss::Never) {
            return Err(TestCaseError::fail(violation.to_string()));
        }
    }
}
