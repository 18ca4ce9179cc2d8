//! Runs a case: any engine that has the cache's methods, on the deterministic executor.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::adapters::Chain;
use crate::cache::places::Places;
use crate::cache::{Answers, Cache, CacheBuilder, Computed, Patience};
use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::ext::StoreExt;
use crate::runtime::{BoxFuture, Runtime};
use crate::store::SetOutcome;
use crate::sync::Mutex;
use crate::testkit::engine::case::{
    Act, EngineCase, Plan, Planted, SECOND, Under, Until, Work, Writes, patience,
};
use crate::testkit::engine::laws::{self, remembered_until};
use crate::testkit::engine::stack::{Name, Stack};
use crate::testkit::engine::trace::{
    Broke, End, Given, Log, Moment, Producer, Reply, Request, Run, START, Told, Trace,
};
use crate::testkit::{Faults, Faulty, Model, Schedule, Sim, SimRuntime, Stall, yield_now};
use crate::time::{Clock, ManualClock, Timestamp};

/// A computation as an engine takes it.
pub(crate) type Compute = Box<
    dyn FnOnce(Option<Entry<u64>>) -> BoxFuture<'static, std::result::Result<Computed<u64>, Broke>> + Send,
>;

/// A computation of many keys as an engine takes it.
pub(crate) type ComputeMany = Arc<
    dyn Fn(Vec<Name>) -> BoxFuture<'static, std::result::Result<Answers<Name, u64>, Broke>> + Send + Sync,
>;

/// What the laws of the engine are about: a cache, or something that claims to be one.
pub(crate) trait Engine: Send + Sync {
    /// `get_or_recompute` (way 0), `get_or_try_compute` (1), `get_or_compute` (2).
    /// A caller with a patience of its own has it here.
    fn ask(
        &self,
        key: Name,
        way: u8,
        patience: Option<Patience>,
        compute: Compute,
    ) -> BoxFuture<'_, Result<u64>>;
    fn get(&self, key: Name) -> BoxFuture<'_, Result<Option<u64>>>;
    /// `get_or_try_compute_many`.
    fn ask_many(&self, keys: Vec<Name>, compute: ComputeMany) -> BoxFuture<'_, Vec<Result<u64>>>;
    fn get_many(&self, keys: Vec<Name>) -> BoxFuture<'_, Vec<Result<Option<u64>>>>;
    fn set_many(&self, entries: Vec<(Name, Computed<u64>)>) -> BoxFuture<'_, Vec<Result<SetOutcome>>>;
    fn remove_many(&self, keys: Vec<Name>) -> BoxFuture<'_, Vec<Result<()>>>;
    fn peek(&self, key: Name) -> Option<u64>;
    fn set(&self, key: Name, value: Computed<u64>) -> BoxFuture<'_, Result<SetOutcome>>;
    fn remove(&self, key: Name) -> BoxFuture<'_, Result<()>>;
    fn clear(&self) -> BoxFuture<'_, Result<()>>;
    /// How many computations ended in time, and how many did not.
    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, Result<(usize, usize)>>;
    /// Says whether nothing goes on, also when no handle is left.
    fn idle(&self) -> Box<dyn Fn() -> bool>;
}

impl Engine for Cache<Stack> {
    fn ask(
        &self,
        key: Name,
        way: u8,
        patience: Option<Patience>,
        compute: Compute,
    ) -> BoxFuture<'_, Result<u64>> {
        let own = match patience.map(|patience| self.with_patience(patience)).transpose() {
            Ok(own) => own,
            Err(error) => return Box::pin(async { Err(error) }),
        };
        Box::pin(async move {
            let this = own.as_ref().unwrap_or(self);
            match way {
                0 => this.get_or_recompute(&key, compute).await,
                1 => this.get_or_try_compute(&key, move || compute(None)).await,
                _ => {
                    let compute = move || async move {
                        match compute(None).await {
                            Ok(answer) => answer,
                            // Nobody asks in this way for what may fail.
                            Err(_) => pending().await,
                        }
                    };
                    this.get_or_compute(&key, compute).await
                }
            }
        })
    }

    fn get(&self, key: Name) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(async move { Cache::get(self, &key).await })
    }

    fn ask_many(&self, keys: Vec<Name>, compute: ComputeMany) -> BoxFuture<'_, Vec<Result<u64>>> {
        Box::pin(async move {
            let keys: Vec<_> = keys.iter().collect();
            self.get_or_try_compute_many(&keys, move |keys| compute(keys)).await
        })
    }

    fn get_many(&self, keys: Vec<Name>) -> BoxFuture<'_, Vec<Result<Option<u64>>>> {
        Box::pin(async move { Cache::get_many(self, &keys.iter().collect::<Vec<_>>()).await })
    }

    fn set_many(&self, entries: Vec<(Name, Computed<u64>)>) -> BoxFuture<'_, Vec<Result<SetOutcome>>> {
        Box::pin(async move {
            let entries: Vec<_> = entries.iter().map(|(key, value)| (key, value.clone())).collect();
            self.set_many_with(entries).await
        })
    }

    fn remove_many(&self, keys: Vec<Name>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move { Cache::remove_many(self, &keys.iter().collect::<Vec<_>>()).await })
    }

    fn peek(&self, key: Name) -> Option<u64> {
        Cache::peek(self, &key)
    }

    fn set(&self, key: Name, value: Computed<u64>) -> BoxFuture<'_, Result<SetOutcome>> {
        Box::pin(async move { self.set_with(&key, value).await })
    }

    fn remove(&self, key: Name) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Cache::remove(self, &key).await })
    }

    fn clear(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(Cache::clear(self))
    }

    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, Result<(usize, usize)>> {
        Box::pin(async move {
            let report = Cache::shutdown(self, deadline).await?;
            Ok((report.drained, report.aborted))
        })
    }

    fn idle(&self) -> Box<dyn Fn() -> bool> {
        let core = Arc::clone(&self.core);
        Box::new(move || {
            let limit = core.policy.trouble.limit;
            let places = core.places.as_ref().map(Places::state);
            core.flights.is_idle() && places == limit.map(|limit| (limit.loads, 0))
        })
    }
}

/// What a user sets.
pub(crate) type Configure = dyn Fn(CacheBuilder<Stack>) -> CacheBuilder<Stack> + Send + Sync;

/// What is to be judged: settings that a user gave, and the engine that is built with them.
#[derive(Clone)]
pub(crate) struct Subject {
    /// `None`: the settings are the case's.
    pub(crate) configure: Option<Arc<Configure>>,
    pub(crate) make: Arc<dyn Fn(Cache<Stack>) -> Arc<dyn Engine> + Send + Sync>,
}

impl Subject {
    /// The cache itself, with the settings of the case.
    pub(crate) fn cache() -> Self {
        Self { configure: None, make: Arc::new(|cache| Arc::new(cache)) }
    }
}

/// A stack to run over, and the switches of its leaves.
pub(crate) struct Floor {
    pub(crate) store: BoxStore<str, u64>,
    pub(crate) faults: Vec<Faults>,
    /// The leaves from the top, where they can be looked into.
    pub(crate) leaves: Vec<Leaf>,
}

type Leaf = Arc<Faulty<Model<str, u64>>>;

impl Floor {
    pub(crate) fn of(under: Under, clock: &ManualClock) -> Self {
        let leaf = |model| Arc::new(Faulty::new(model));
        let leaves: Vec<Leaf> = match under {
            Under::Memory => vec![leaf(Model::new())],
            Under::Remote => vec![leaf(Model::remote())],
            Under::Chain => vec![leaf(Model::new()), leaf(Model::remote())],
        };
        let store = match &leaves[..] {
            [upper, lower] => Chain::new(Arc::clone(upper), Arc::clone(lower)).clock(clock.clone()).boxed(),
            _ => Arc::clone(&leaves[0]).boxed(),
        };
        Self { store, faults: leaves.iter().map(|leaf| leaf.faults()).collect(), leaves }
    }
}

pub(super) struct World {
    pub(super) log: Log,
    clock: ManualClock,
    pub(super) runtime: SimRuntime,
    stack: Stack,
    faults: Vec<Faults>,
    leaves: Vec<Leaf>,
    pub(super) engine: Mutex<Option<Arc<dyn Engine>>>,
    pub(super) policy: crate::cache::policy::Policy,
}

/// Runs `case` and writes down what happened. An error says that the settings build no cache.
pub(crate) fn run(subject: &Subject, case: &EngineCase, floor: Option<Floor>) -> Result<Trace> {
    let sequential = case.is_sequential();
    let mut sim = Sim::new(Schedule::script(if sequential { Vec::new() } else { case.choices.clone() }));
    let clock = ManualClock::new(Timestamp::from_nanos(START));
    sim.drive(&clock);
    if case.races {
        sim.race_time();
    }
    let floor = floor.unwrap_or_else(|| Floor::of(case.under, &clock));
    let policy =
        Cache::builder(crate::adapters::Null::<str, u64>::new()).bypass().build()?.core.policy.clone();
    let log = Log::new(clock.clone(), policy);
    let stack = Stack::new(floor.store, log.clone(), sim.runtime(), case.writes);
    let told = log.clone();
    let builder = Cache::builder(stack.clone()).jitter_seed(7);
    let builder = match &subject.configure {
        Some(configure) if case.knobs.bypass => configure(builder).bypass(),
        Some(configure) => configure(builder),
        None => case.knobs.apply(builder),
    };
    let builder = builder.clock(clock.clone()).runtime(sim.runtime()).events(move |event| {
        let name = event.kind.name();
        let key = event.key.copied();
        told.write(|trace, at| trace.events.push(Told { at, key, name }));
    });
    let cache = builder.build()?;
    let policy = cache.core.policy.clone();
    log.write(|trace, _| {
        trace.policy = policy.clone();
        trace.races = case.races;
        trace.only_even = subject.configure.is_none() && case.knobs.errors == 2;
    });
    let engine = (subject.make)(cache);
    let idle = engine.idle();
    let world = Arc::new(World {
        log: log.clone(),
        clock,
        runtime: sim.runtime(),
        stack,
        faults: floor.faults,
        leaves: floor.leaves,
        engine: Mutex::new(Some(engine)),
        policy,
    });
    case.planted.iter().for_each(|planted| world.plant(*planted));
    let outcome =
        if sequential { one_by_one(&mut sim, &world, case) } else { together(&mut sim, &world, case) };
    let spun = matches!(outcome, Err(Stall::Spin { .. }));
    finish(&mut sim, &world, spun);
    log.write(|trace, _| trace.idle = idle());
    drop(world);
    drop(sim);
    Ok(log.take())
}

/// Every step has ended, and whatever it left behind is at rest, before the next one begins.
fn one_by_one(sim: &mut Sim, world: &Arc<World>, case: &EngineCase) -> Result<(), Stall> {
    for step in case.tasks.iter().flatten().copied() {
        let world = Arc::clone(world);
        let beside = Arc::clone(&world);
        world.log.write(|trace, _| trace.firsts.push(trace.requests.len()));
        sim.spawn("task 0", async move { world.step(0, step.act, step.leaves).await });
        unstick(sim, &beside)?;
        let snapshot = beside.snapshot();
        beside.log.write(|trace, at| {
            trace.snapshots.push(snapshot);
            trace.rests.push(at.tick);
        });
    }
    Ok(())
}

fn together(sim: &mut Sim, world: &Arc<World>, case: &EngineCase) -> Result<(), Stall> {
    for (task, steps) in case.tasks.iter().enumerate() {
        let (world, steps) = (Arc::clone(world), steps.clone());
        sim.spawn(format!("task {task}"), async move {
            for step in steps {
                world.step(task, step.act, step.leaves).await;
            }
        });
    }
    unstick(sim, world)
}

/// Runs until everybody has ended. Who waits for ever is noted; then what hangs in the store is let go.
fn unstick(sim: &mut Sim, world: &World) -> Result<(), Stall> {
    match sim.try_run() {
        Err(Stall::Deadlock { .. }) => {
            world.log.write(|trace, _| {
                let open = trace.requests.iter().enumerate().filter(|(_, request)| request.ended.is_none());
                let open: Vec<_> = open.map(|(index, _)| index).collect();
                trace.stuck.extend(open);
            });
            world.faults.iter().for_each(Faults::release);
            sim.try_run()
        }
        other => other,
    }
}

/// Ends all trouble, lets all timers pass, and looks at what is left.
fn finish(sim: &mut Sim, world: &Arc<World>, spun: bool) {
    world.faults.iter().for_each(|faults| {
        faults.heal();
        faults.release();
    });
    sim.set_budget(20_000);
    let left = if spun { Ok(Vec::new()) } else { sim.try_settle() };
    let panics = sim.detached_panics();
    world.log.write(|trace, _| {
        trace.spun = spun || matches!(left, Err(Stall::Spin { .. }));
        trace.leaked = left.clone().unwrap_or_default();
        trace.panics = panics;
    });
    if left.is_ok() && !spun {
        let beside = Arc::clone(world);
        let read = sim.spawn("at the end", async move {
            let mut last = Vec::new();
            for name in Name::ALL {
                last.push(beside.stack.raw(name).await.map(Entry::into_value));
            }
            beside.log.write(|trace, _| trace.last = last);
        });
        read.may_panic();
        // A stack that cannot even be read at rest is no matter of the engine.
        let _ = sim.try_run();
    }
}

impl World {
    fn plant(&self, planted: Planted) {
        let start = self.clock.now();
        let by = u32::from(planted.fresh.unsigned_abs());
        let (by, age) = match planted.fresh {
            100.. => (SECOND * (by - 99), 600 * SECOND),
            _ => (Duration::from_nanos(by.into()), Duration::from_nanos(200)),
        };
        let ahead = SECOND * u32::from(planted.ahead);
        let fresh = if planted.fresh < 0 { start.saturating_sub(by) } else { start.saturating_add(by) };
        let fresh = fresh.saturating_add(ahead);
        let stale = fresh.saturating_add(Planted::window(planted.stale));
        let keep = stale.saturating_add(Planted::window(planted.keep));
        let created = start.saturating_sub(age).saturating_add(ahead);
        let key = Name(planted.key);
        if self.log.write(|trace, _| trace.planted.iter().any(|(name, ..)| *name == key)) {
            return;
        }
        let value = self.log.fresh_value();
        let entry = Entry::new(value, Lifetime::new(created, fresh, stale, keep)).with_version("p");
        let from = if planted.above { 0 } else { self.leaves.len().saturating_sub(1) };
        for leaf in self.leaves.iter().skip(from) {
            leaf.inner().plant(key.as_str(), entry.clone());
        }
        if !self.leaves.is_empty() {
            self.log.write(|trace, _| {
                trace.producers.insert(value, Producer::Planted(key));
                trace.planted.push((key, entry, planted.above));
            });
        }
    }

    fn snapshot(&self) -> Vec<(Option<Entry<u64>>, bool)> {
        let (Some(upper), Some(lower)) = (self.leaves.first(), self.leaves.last()) else { return Vec::new() };
        let held = |leaf: &Leaf, name: Name| leaf.inner().held(name.as_str());
        Name::ALL.iter().map(|name| (held(lower, *name), held(upper, *name).is_some())).collect()
    }

    async fn step(self: &Arc<Self>, task: usize, act: Act, leaves: u8) {
        if let Some(singles) = act.singles() {
            return self.batch(task, act, &singles, leaves).await;
        }
        let value = if let Act::Set(_, own) = act { own.mark(self.log.fresh_value()) } else { 0 };
        let index = self.log.write(|trace, began| {
            trace.requests.push(Request { task, act, began, ended: None, value, batch: None });
            if matches!(act, Act::Set(..)) {
                trace.producers.insert(value, Producer::Set(trace.requests.len() - 1));
            }
            trace.requests.len() - 1
        });
        let reply = guarded(leaves, Arc::clone(self).act(index, act, value)).await.unwrap_or_else(|why| why);
        self.log.write(|trace, moment| trace.requests[index].ended = Some((moment, reply)));
    }

    async fn act(self: Arc<Self>, index: usize, act: Act, value: u64) -> Reply {
        let engine = self.engine.lock().clone();
        let failed = |error: &crate::error::Error| Reply::failed(error);
        match act {
            Act::Wait(until) => {
                let by = self.length(until);
                if let Some(sleep) = self.runtime.sleep(by) {
                    sleep.await;
                }
                return Reply::Done;
            }
            Act::Jump(back, far) => {
                let lengths =
                    [Duration::from_nanos(1), SECOND, 5 * SECOND + Duration::from_nanos(1), 3600 * SECOND];
                self.log.jump(back, lengths[usize::from(far % 4)]);
                return Reply::Done;
            }
            Act::Down(tier) => self.with_faults(tier, Faults::down),
            Act::Up(tier) => self.with_faults(tier, Faults::up),
            Act::Fault(tier, call, nth, trouble) => {
                self.with_faults(tier, |faults| faults.on(call.operation(), nth.into(), trouble.fault()));
            }
            Act::SlowReads(seconds) => self.stack.slow_reads(SECOND * u32::from(seconds)),
            Act::DropHandle => drop(self.engine.lock().take()),
            _ => {
                // Nobody to ask, and nothing that was promised.
                let Some(engine) = engine else { return Reply::Left };
                return match act {
                    Act::Ask(key, plan) => {
                        let (own, compute) =
                            (patience(plan.patience), self.computation(index, Name(key), plan));
                        Reply::valued(engine.ask(Name(key), plan.way(), own, compute).await)
                    }
                    Act::Get(key) => Reply::found(engine.get(Name(key)).await),
                    Act::Peek(key) => engine.peek(Name(key)).map_or(Reply::Nothing, Reply::Value),
                    Act::Set(key, own) => {
                        Reply::set(engine.set(Name(key), own.say(Computed::new(value))).await)
                    }
                    Act::Remove(key) => Reply::done(engine.remove(Name(key)).await),
                    Act::Clear => engine.clear().await.map_or_else(|e| failed(&e), |()| Reply::Done),
                    Act::Shutdown(seconds) => match engine.shutdown(SECOND * u32::from(seconds)).await {
                        Ok((drained, aborted)) => Reply::Drained(drained, aborted),
                        Err(error) => failed(&error),
                    },
                    _ => Reply::Done,
                };
            }
        }
        Reply::Done
    }

    fn with_faults(&self, tier: u8, act: impl FnOnce(&Faults)) {
        let count = self.faults.len();
        if let Some(faults) = self.faults.get(usize::from(tier) % count.max(1)) {
            act(faults);
        }
    }

    fn length(&self, until: Until) -> Duration {
        let beside = |length: Duration, off: i8| {
            let by = Duration::from_nanos(off.unsigned_abs().into());
            if off < 0 { length.saturating_sub(by) } else { length.saturating_add(by) }
        };
        match until {
            Until::Tick => Duration::from_nanos(1),
            Until::Seconds(seconds) => SECOND * u32::from(seconds),
            Until::Limit(refresh, off) => {
                beside(if refresh { self.policy.refresh_timeout } else { self.policy.load_timeout }, off)
            }
            Until::Error(key, off) => {
                let end = self.log.write(|trace, _| remembered_until(trace, Name(key)));
                end.map_or(Duration::ZERO, |end| beside(end.since(self.clock.now()), off))
            }
            Until::Edge(key, edge, off) => {
                let Some(life) = self.log.last_life(key) else { return Duration::ZERO };
                let due = laws::last_not_due(&self.policy, life).unwrap_or(life.fresh_until());
                let edges = [life.fresh_until(), life.stale_until(), life.keep_until(), due];
                let edge = edges[usize::from(edge % 4)];
                if edge.as_nanos() > u64::MAX / 2 {
                    Duration::ZERO
                } else {
                    beside(edge.since(self.clock.now()), off)
                }
            }
        }
    }

    fn computation(&self, by: usize, key: Name, plan: Plan) -> Compute {
        let (log, runtime) = (self.log.clone(), self.runtime.clone());
        let bypass = self.policy.bypass;
        Box::new(move |given| {
            Box::pin(async move {
                let value = plan.own.mark(log.fresh_value());
                let given = match given {
                    _ if plan.way() != 0 => Given::NotAsked,
                    Some(entry) => Given::Held(entry.into_value()),
                    None => Given::Nothing,
                };
                let run = log.write(|trace, began| {
                    let started = |told: &&Told| told.key == Some(key) && told.name.ends_with("Started");
                    let last = trace.events.iter().rev().find(started);
                    let refresh = !bypass && last.is_some_and(|told| told.name == "RefreshStarted");
                    let together = None;
                    trace.runs.push(Run {
                        value,
                        key,
                        by,
                        plan,
                        given,
                        began,
                        ended: None,
                        refresh,
                        together,
                    });
                    trace.producers.insert(value, Producer::Run(trace.runs.len() - 1));
                    trace.runs.len() - 1
                });
                let mut running = Running { log: log.clone(), run, end: End::Dropped };
                // The engine polls what it bounds twice at first, so that one yield alone would interleave nothing.
                for _ in 0..if plan.yields == 0 { 0 } else { plan.yields + 1 } {
                    yield_now().await;
                }
                if plan.takes > 0
                    && let Some(sleep) = runtime.sleep(SECOND * u32::from(plan.takes))
                {
                    sleep.await;
                }
                match plan.work {
                    Work::Hang => pending().await,
                    Work::Answer => {
                        running.end = End::Answered;
                        Ok(plan.own.say(Computed::new(value)))
                    }
                    Work::Unchanged => {
                        running.end = End::Unchanged;
                        Ok(plan.own.say(Computed::unchanged()))
                    }
                    Work::Fail | Work::Forget => {
                        running.end = End::Failed;
                        Err(Broke(value))
                    }
                    Work::Panic => {
                        running.end = End::Panicked;
                        // Past the panic hook, which would print a trace for each of thousands of schedules.
                        resume_unwind(Box::new("boom"))
                    }
                }
            })
        })
    }
}

impl Plan {
    /// What may fail is not asked for in the way that cannot.
    pub(crate) fn way(self) -> u8 {
        if self.work == Work::Fail { self.way % 2 } else { self.way % 3 }
    }
}

pub(super) struct Running {
    pub(super) log: Log,
    pub(super) run: usize,
    pub(super) end: End,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (run, end) = (self.run, self.end);
        self.log.write(|trace, moment| trace.runs[run].ended = Some((moment, end)));
    }
}

/// Goes away after waiting `leaves` times, and takes a panic for an answer.
pub(super) async fn guarded<T>(leaves: u8, work: impl Future<Output = T>) -> std::result::Result<T, Reply> {
    let mut work = pin!(work);
    let mut waited = 0_u64;
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => {
            waited += 1;
            if waited == u64::from(leaves) { Poll::Ready(Err(Reply::Left)) } else { Poll::Pending }
        }
        Err(_) => Poll::Ready(Err(Reply::Panicked)),
    })
    .await
}

/// Ends of what took place, for whoever judges it.
pub(crate) fn overlaps(begin: Moment, end: u64, other_begin: Moment, other_end: u64) -> bool {
    begin.tick < other_end && other_begin.tick < end
}

/// Whether these settings build a cache.
pub(crate) fn builds(configure: &Configure, store: Model<str, u64>) -> Result<()> {
    let sim = Sim::new(Schedule::script([]));
    let policy =
        Cache::builder(crate::adapters::Null::<str, u64>::new()).bypass().build()?.core.policy.clone();
    let log = Log::new(ManualClock::default(), policy);
    let stack = Stack::new(store.boxed(), log, sim.runtime(), Writes::AtOnce);
    configure(Cache::builder(stack).runtime(sim.runtime())).build().map(drop)
}
