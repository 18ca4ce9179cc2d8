//! Runs plans: on virtual time and one thread, on real time and tokio, or on real threads.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::runtime::BoxFuture;
use crate::sync::Mutex;
use crate::testkit::executor::{Schedule, Sim, Stall};
use crate::testkit::store::facts::Facts;
use crate::testkit::store::plan::{BASE, OWN, Plan, Step};
use crate::testkit::store::trace::{End, Event, One, Trace, numbers};
use crate::testkit::store::world::{Shape, SiteClock, World};
use crate::time::{ManualClock, Stopwatch, Timestamp};

/// Where the tasks of a plan run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// On the deterministic executor.
    Virtual,
    /// On a tokio runtime of several threads, by the system's clock.
    Real,
}

/// Makes the stores of a case, in a namespace of its own.
pub(crate) type Worlds = dyn Fn(Shape, String, SiteClock) -> Arc<dyn World> + Send + Sync;

/// One law's place to work: each plan gets stores of its own.
pub(crate) struct Lab {
    pub(crate) facts: Facts,
    pub(crate) lane: Lane,
    worlds: Arc<Worlds>,
    law: &'static str,
    cases: AtomicU64,
    limit: Duration,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Lab {
    pub(crate) fn new(
        facts: Facts,
        lane: Lane,
        worlds: Arc<Worlds>,
        law: &'static str,
        limit: Duration,
    ) -> Self {
        let runtime = match lane {
            Lane::Virtual => None,
            Lane::Real => {
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().ok()
            }
        };
        Self { facts, lane, worlds, law, cases: AtomicU64::new(0), limit, runtime }
    }

    /// Runs a plan over fresh stores.
    pub(crate) fn run(&self, plan: &Plan) -> Trace {
        self.run_as(plan, Shape::Plain)
    }

    /// The same, over the store in this shape.
    pub(crate) fn run_as(&self, plan: &Plan, shape: Shape) -> Trace {
        let (world, clock) = self.world(shape);
        let stage = Stage::new(Arc::clone(&world), plan);
        let end = match (&self.runtime, clock) {
            (Some(runtime), _) => self.on_tokio(runtime, &stage, plan),
            (None, clock) => Self::on_sim(&stage, plan, clock.as_ref()),
        };
        stage.trace(end)
    }

    /// The stores of a case that a law works on without a plan.
    pub(crate) fn world(&self, shape: Shape) -> (Arc<dyn World>, Option<ManualClock>) {
        let number = self.cases.fetch_add(1, Ordering::SeqCst);
        let namespace = format!("larder-{}-{}-{number}", std::process::id(), self.law);
        match self.lane {
            Lane::Virtual => {
                let clock = ManualClock::new(Timestamp::from_nanos(BASE));
                ((self.worlds)(shape, namespace, SiteClock::Manual(clock.clone())), Some(clock))
            }
            Lane::Real => ((self.worlds)(shape, namespace, SiteClock::Real), None),
        }
    }

    /// Runs one future to its end, wherever this lab works.
    pub(crate) fn block_on<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, End> {
        if let Some(runtime) = &self.runtime {
            let _guard = runtime.enter();
            return runtime
                .block_on(async { tokio_timeout(self.limit, future).await })
                .ok_or_else(|| End::Late(format!("{:?}", self.limit)));
        }
        let mut sim = Sim::new(Schedule::script([]));
        let task = sim.spawn("the only task", future);
        sim.try_run().map_err(end_of)?;
        task.take().ok_or(End::Hung("the only task".to_owned()))
    }

    /// Runs each task of the plan on a thread of its own. Who comes first is chance: only the answers are judged.
    pub(crate) fn run_on_threads(&self, plan: &Plan) -> Trace {
        let (world, _) = self.world(Shape::Plain);
        let stage = Stage::new(Arc::clone(&world), plan);
        if let Err(end) = self.block_on(stage.opening(plan)) {
            return stage.trace(end);
        }
        let stuck = Mutex::new(None);
        std::thread::scope(|threads| {
            for task in 0..plan.tasks.len() {
                let (work, stuck, limit) = (stage.task(plan, task), &stuck, self.limit);
                threads.spawn(move || {
                    let work = std::panic::AssertUnwindSafe(move || park_on(work, limit));
                    let end = match std::panic::catch_unwind(work) {
                        Ok(Ok(())) => return,
                        Ok(Err(Stuck::Hung)) => End::Hung(format!("task {task}")),
                        Ok(Err(Stuck::Spun)) => End::Spun(format!("task {task}")),
                        Err(panic) => End::Panicked(crate::testkit::runner::message(&*panic)),
                    };
                    *stuck.lock() = Some(end);
                });
            }
        });
        let end = stuck.lock().take().unwrap_or_default();
        if end == End::Returned
            && let Err(end) = self.block_on(stage.aftermath(false))
        {
            return stage.trace(end);
        }
        stage.trace(end)
    }

    fn on_sim(stage: &Stage, plan: &Plan, clock: Option<&ManualClock>) -> End {
        let mut sim = Sim::new(Schedule::script(plan.schedule.clone()));
        if let Some(clock) = clock {
            sim.drive(clock);
        }
        sim.spawn("the constructor", stage.opening(plan));
        if let Err(stall) = sim.try_run() {
            return stage.stuck(stall);
        }
        for task in 0..plan.tasks.len() {
            let work = sim.spawn(format!("task {task}"), stage.task(plan, task));
            if let Some(polls) = plan.cancelled(task) {
                work.cancel_after(polls);
            }
        }
        if let Err(stall) = sim.try_run() {
            return stage.stuck(stall);
        }
        if plan.tasks.len() > 1 || plan.cancel.is_some() {
            sim.spawn("aftermath", stage.aftermath(plan.cancel.is_some()));
            if let Err(stall) = sim.try_run() {
                return stage.stuck(stall);
            }
        }
        End::Returned
    }

    fn on_tokio(&self, runtime: &tokio::runtime::Runtime, stage: &Stage, plan: &Plan) -> End {
        let limit = self.limit;
        let (opening, world) = (stage.opening(plan), Arc::clone(&stage.world));
        let tasks: Vec<_> = (0..plan.tasks.len())
            .map(|task| Cancelled { future: Some(stage.task(plan, task)), polls: plan.cancelled(task) })
            .collect();
        let late = plan.tasks.len() > 1 || plan.cancel.is_some();
        let aftermath = late.then(|| stage.aftermath(plan.cancel.is_some()));
        let _guard = runtime.enter();
        let outcome = runtime.block_on(async {
            tokio_timeout(limit, async {
                opening.await;
                let running: Vec<_> = tasks.into_iter().map(|task| runtime.spawn(task)).collect();
                let mut end = End::Returned;
                for task in running {
                    if let Err(failed) = task.await
                        && let Ok(panic) = failed.try_into_panic()
                    {
                        end = End::Panicked(crate::testkit::runner::message(&*panic));
                    }
                }
                if let Some(aftermath) = aftermath {
                    aftermath.await;
                }
                world.close().await;
                end
            })
            .await
        });
        outcome.unwrap_or_else(|| End::Late(format!("{limit:?}")))
    }
}

#[expect(clippy::disallowed_methods, reason = "a case over real time ends by a real clock")]
async fn tokio_timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

fn end_of(stall: Stall) -> End {
    match stall {
        Stall::Deadlock { waiting } => End::Hung(waiting.join(", ")),
        Stall::Spin { runnable } => End::Spun(runnable.join(", ")),
        Stall::Panicked { message, .. } => End::Panicked(message),
    }
}

impl Plan {
    fn cancelled(&self, task: usize) -> Option<u64> {
        let (victim, polls) = self.cancel?;
        (usize::from(victim) % self.tasks.len().max(1) == task).then_some(u64::from(polls))
    }
}

/// A plan at work.
struct Stage {
    world: Arc<dyn World>,
    log: Arc<Mutex<Log>>,
    numbers: Vec<Vec<u32>>,
    tasks: Vec<usize>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    ticks: u64,
    /// The case is over: what is dropped from now on was stuck.
    frozen: bool,
}

impl Stage {
    fn new(world: Arc<dyn World>, plan: &Plan) -> Self {
        let tasks = (0..plan.tasks.len()).collect();
        Self { world, log: Arc::default(), numbers: numbers(plan), tasks }
    }

    fn opening(&self, plan: &Plan) -> BoxFuture<'static, ()> {
        let mut on: Vec<u8> = plan.tasks.iter().flatten().map(|step| step.on).chain([OWN]).collect();
        on.sort_unstable();
        on.dedup();
        let world = Arc::clone(&self.world);
        Box::pin(async move { world.open(&on).await })
    }

    fn task(&self, plan: &Plan, task: usize) -> BoxFuture<'static, ()> {
        let (world, log) = (Arc::clone(&self.world), Arc::clone(&self.log));
        let (steps, firsts) = (plan.tasks[task].clone(), self.numbers[task].clone());
        let name = self.tasks[task];
        Box::pin(async move {
            for (step, first) in steps.iter().zip(firsts) {
                let running = Running::begin(&log, name, step, first, world.now());
                let answers = world.perform(step.on, &step.op, first).await;
                running.end(answers);
            }
        })
    }

    /// When all is quiet: what is left is read, and where a task was dropped, each key can be written, read and
    /// removed. No step of the plan, and none that a reader has to count.
    fn aftermath(&self, writes: bool) -> BoxFuture<'static, ()> {
        use crate::testkit::store::plan::{Draft, Op};
        let name = self.tasks.len();
        let (world, log) = (Arc::clone(&self.world), Arc::clone(&self.log));
        let base = self.numbers.iter().flatten().max().map_or(0, |last| last + 100);
        Box::pin(async move {
            for key in 0..2u8 {
                let lasting = Op::Set(Draft::lasting(key));
                let ops = [Op::Get(key), Op::Get(key), lasting, Op::Get(key), Op::Remove(key), Op::Get(key)];
                let count = if writes { ops.len() } else { 2 };
                for op in ops.into_iter().take(count) {
                    let (step, first) = (Step::own(op), base + u32::from(key));
                    let running = Running::begin(&log, name, &step, first, world.now());
                    let answers = world.perform(step.on, &step.op, first).await;
                    running.end(answers);
                }
            }
        })
    }

    /// The end of a case that got nowhere.
    fn stuck(&self, stall: Stall) -> End {
        self.log.lock().frozen = true;
        end_of(stall)
    }

    fn trace(&self, end: End) -> Trace {
        Trace {
            events: self.log.lock().events.clone(),
            end,
            names: self.world.names(),
            tasks: self.tasks.len(),
        }
    }
}

/// A call that has not ended. Dropping it says that it was dropped.
struct Running {
    log: Arc<Mutex<Log>>,
    index: usize,
}

impl Running {
    fn begin(log: &Arc<Mutex<Log>>, task: usize, step: &Step, first: u32, now: Timestamp) -> Self {
        let mut held = log.lock();
        held.ticks += 1;
        let event = Event {
            task,
            on: step.on,
            op: step.op.clone(),
            first,
            begin: held.ticks,
            end: None,
            now,
            dropped: None,
        };
        held.events.push(event);
        Self { log: Arc::clone(log), index: held.events.len() - 1 }
    }

    fn end(self, answers: Vec<One>) {
        let mut log = self.log.lock();
        log.ticks += 1;
        let tick = log.ticks;
        log.events[self.index].end = Some((tick, answers));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut log = self.log.lock();
        // Whoever panics is not dropped by the plan.
        let frozen = log.frozen || std::thread::panicking();
        let event = &log.events[self.index];
        if event.end.is_none() && !frozen {
            log.ticks += 1;
            let tick = log.ticks;
            log.events[self.index].dropped = Some(tick);
        }
    }
}

/// A task that is dropped after so many polls.
struct Cancelled {
    future: Option<BoxFuture<'static, ()>>,
    polls: Option<u64>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polls == Some(0) {
            self.future = None;
            return Poll::Ready(());
        }
        self.polls = self.polls.map(|polls| polls - 1);
        match &mut self.future {
            Some(future) => {
                let poll = future.as_mut().poll(context);
                if poll.is_pending() && self.polls == Some(0) {
                    self.future = None;
                    return Poll::Ready(());
                }
                poll
            }
            None => Poll::Ready(()),
        }
    }
}

/// Why a task on a thread of its own got nowhere.
enum Stuck {
    Hung,
    Spun,
}

/// Polls after which a task on a thread counts as spinning.
const POLLS: u32 = 100_000;

/// Polls on this thread, which sleeps in between: not for ever, so that no thread is left behind.
fn park_on<T>(mut future: BoxFuture<'static, T>, limit: Duration) -> Result<T, Stuck> {
    struct Unpark(std::thread::Thread, AtomicBool);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.store(true, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let woken = Arc::new(Unpark(std::thread::current(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let watch = Stopwatch::start();
    for _ in 0..POLLS {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        // Whoever waits for somebody else's lock goes on when that one has run.
        std::thread::yield_now();
        while !woken.1.swap(false, Ordering::SeqCst) {
            if watch.elapsed() > limit {
                return Err(Stuck::Hung);
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    Err(Stuck::Spun)
}
