//! A deterministic executor: one thread, a schedule, virtual time. A task runs only if it was woken, so
//! a lost wake-up is a deadlock, and a deadlock is a failure at once and not a timeout.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::schedule::Schedule;
use crate::runtime::{BoxFuture, Runtime};
use crate::sync::Mutex;
use crate::time::ManualClock;

/// Polls that one simulation may take before it counts as spinning.
const BUDGET: u64 = 20_000;

/// Longer sleeps than this (292 years) never end: virtual time does not move there by itself.
const NEVER: Duration = Duration::from_nanos(u64::MAX / 2);

/// The executor. Dropping it drops every task.
pub struct Sim {
    shared: Arc<Shared>,
    schedule: Schedule,
    last: Option<usize>,
    choices: Vec<u8>,
    budget: u64,
    racing_time: bool,
}

impl Sim {
    /// An executor under this schedule, at virtual time zero.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            shared: Arc::default(),
            schedule,
            last: None,
            choices: Vec::new(),
            budget: BUDGET,
            racing_time: false,
        }
    }

    /// Moves `clock` along with virtual time.
    pub fn drive(&mut self, clock: &ManualClock) {
        self.shared.state.lock().clock = Some(clock.clone());
    }

    /// Lets time pass to the next timer also while tasks are runnable, if the schedule says so: a
    /// deadline may then strike in the middle of anything.
    pub fn race_time(&mut self) {
        self.racing_time = true;
    }

    /// Polls that may be taken from now on.
    pub fn set_budget(&mut self, polls: u64) {
        self.budget = polls;
    }

    /// From now on there is nothing to run detached tasks on, and no timer either, or there is again.
    pub fn refuse_tasks(&mut self, refuse: bool) {
        self.shared.state.lock().refusing = refuse;
    }

    /// The [`Runtime`] to give to a cache.
    pub fn runtime(&self) -> SimRuntime {
        SimRuntime(Arc::downgrade(&self.shared))
    }

    /// Adds a task that has to end before [`Sim::run`] succeeds.
    pub fn spawn<T: Send + 'static>(
        &mut self,
        name: impl Into<String>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let result = Arc::new(Mutex::new(None));
        let place = Arc::clone(&result);
        let future = Box::pin(async move {
            let value = future.await;
            *place.lock() = Some(value);
        });
        let id = self.shared.state.lock().add(Some(name.into()), future);
        Task { shared: Arc::downgrade(&self.shared), id, result }
    }

    /// Spawns `future`, runs everything, and returns what it came to.
    pub fn block_on<T: Send + 'static>(&mut self, future: impl Future<Output = T> + Send + 'static) -> T {
        let task = self.spawn("main", future);
        self.run();
        task.value()
    }

    /// Spawns `future`, runs everything while time stands still, and returns what it came to. Other tasks
    /// may go on waiting.
    #[track_caller]
    pub fn call<T: Send + 'static>(&mut self, future: impl Future<Output = T> + Send + 'static) -> T {
        let task = self.spawn("call", future);
        self.run_ready();
        task.value()
    }

    /// Runs until every spawned task has ended and nobody is runnable.
    ///
    /// # Panics
    /// If tasks are left that nobody will wake, the budget of polls is used up, or a task panicked that
    /// was not said to.
    #[track_caller]
    pub fn run(&mut self) {
        if let Err(stall) = self.try_run() {
            panic!("{stall}");
        }
    }

    /// [`Sim::run`] that hands the failure back.
    pub fn try_run(&mut self) -> Result<(), Stall> {
        loop {
            self.try_run_ready()?;
            self.shared.state.lock().panicked()?;
            let waiting = self.shared.state.lock().waiting();
            if waiting.is_empty() {
                return Ok(());
            }
            if !self.shared.pass_time(NEVER) {
                return Err(Stall::Deadlock { waiting });
            }
        }
    }

    /// Runs until nobody is runnable. Time stands still, and nobody has to end.
    ///
    /// # Panics
    /// If the budget of polls is used up.
    #[track_caller]
    pub fn run_ready(&mut self) {
        if let Err(stall) = self.try_run_ready() {
            panic!("{stall}");
        }
    }

    /// Lets `duration` pass: all that becomes runnable on the way runs at its own instant.
    #[track_caller]
    pub fn advance(&mut self, duration: Duration) {
        self.run_ready();
        let end = self.now().saturating_add(duration);
        while self.shared.pass_time(end) {
            self.run_ready();
        }
        self.shared.move_time(end);
        self.run_ready();
    }

    /// [`Sim::run`], then lets time pass until no timer is left. Returns the names of the detached tasks
    /// that are still there: leaked, unless somebody means to wake them.
    ///
    /// # Panics
    /// As [`Sim::run`] does.
    #[track_caller]
    pub fn settle(&mut self) -> Vec<String> {
        match self.try_settle() {
            Ok(left) => left,
            Err(stall) => panic!("{stall}"),
        }
    }

    /// [`Sim::settle`] that hands the failure back.
    pub fn try_settle(&mut self) -> Result<Vec<String>, Stall> {
        self.try_run()?;
        while self.shared.pass_time(NEVER) {
            self.try_run()?;
        }
        Ok(self.shared.state.lock().alive())
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        self.shared.state.lock().now
    }

    /// The names of the tasks that were polled, in order.
    pub fn trace(&self) -> Vec<String> {
        let state = self.shared.state.lock();
        state.trace.iter().map(|&id| state.tasks[id].name.clone()).collect()
    }

    /// The choices that the schedule made; [`Schedule::script`] makes them again.
    pub fn choices(&self) -> Vec<u8> {
        let meaningful = self.choices.iter().rposition(|&choice| choice != 0).map_or(0, |last| last + 1);
        self.choices[..meaningful].to_vec()
    }

    /// What panicked in detached tasks, which nobody holds a handle of.
    pub fn detached_panics(&self) -> Vec<String> {
        let state = self.shared.state.lock();
        let panics = state.tasks.iter().filter(|slot| slot.detached).filter_map(|slot| match &slot.end {
            Some(End::Panicked(message)) => Some(format!("{}: {message}", slot.name)),
            _ => None,
        });
        panics.collect()
    }

    fn try_run_ready(&mut self) -> Result<(), Stall> {
        while self.step()? {}
        Ok(())
    }

    /// One poll, or one drop of a cancelled task; `false` if nobody is runnable.
    fn step(&mut self) -> Result<bool, Stall> {
        let mut options = self.shared.state.lock().runnable();
        if options.is_empty() {
            return Ok(false);
        }
        let Some(budget) = self.budget.checked_sub(1) else {
            let state = self.shared.state.lock();
            let names = options.iter().map(|&id| state.tasks[id].name.clone()).collect();
            return Err(Stall::Spin { runnable: names });
        };
        self.budget = budget;
        let mut free = options.len();
        if let Some(place) = options.iter().position(|&id| Some(id) == self.last) {
            let last = options.remove(place);
            options.insert(0, last);
            free = 1;
        }
        let tick = self.racing_time && self.shared.state.lock().next_timer().is_some();
        let all = options.len() + usize::from(tick);
        let choice = if all == 1 { 0 } else { self.schedule.choose(free, all) };
        if all > 1 {
            self.choices.push(u8::try_from(choice).unwrap_or(u8::MAX));
        }
        if let Some(&id) = options.get(choice) {
            self.last = Some(id);
            self.shared.poll(id);
        } else {
            self.shared.pass_time(NEVER);
        }
        Ok(true)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let futures: Vec<_> = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            state.tasks.iter_mut().filter_map(|slot| slot.future.take()).collect()
        };
        // Outside the lock: what a task holds may wake or spawn as it goes.
        drop(futures);
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("now", &self.now())
            .field("choices", &self.choices())
            .finish_non_exhaustive()
    }
}

/// Why a simulation got nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Tasks wait, and nobody is left who would wake them.
    Deadlock {
        /// Their names.
        waiting: Vec<String>,
    },
    /// Tasks ran on and on.
    Spin {
        /// Those that were still runnable.
        runnable: Vec<String>,
    },
    /// A task panicked, and nobody had said that it may.
    Panicked {
        /// Its name.
        task: String,
        /// What it panicked with.
        message: String,
    },
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadlock { waiting } => {
                write!(f, "nobody is runnable, and these wait: {}", waiting.join(", "))
            }
            Self::Spin { runnable } => {
                write!(f, "the budget of polls is used up, and these are runnable: {}", runnable.join(", "))
            }
            Self::Panicked { task, message } => write!(f, "`{task}` panicked: {message}"),
        }
    }
}

/// A spawned task: what it came to, and the means to drop it in mid-flight.
pub struct Task<T> {
    shared: Weak<Shared>,
    id: usize,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Task<T> {
    /// Drops the task once it was polled `polls` times; when exactly is up to the schedule.
    pub fn cancel_after(&self, polls: u64) {
        self.slot(|slot| slot.cancel_after = Some(polls));
    }

    /// Drops the task as soon as the schedule comes to it.
    pub fn cancel(&self) {
        self.cancel_after(0);
    }

    /// A panic of the task is no failure of the run: the test looks at it.
    pub fn may_panic(&self) {
        self.slot(|slot| slot.may_panic = true);
    }

    /// Whether the task ran to its end.
    pub fn is_done(&self) -> bool {
        self.result.lock().is_some()
    }

    /// Whether the task was dropped before its end.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.slot(|slot| slot.end.clone()), Some(Some(End::Cancelled)))
    }

    /// What the task panicked with.
    pub fn panicked(&self) -> Option<String> {
        match self.slot(|slot| slot.end.clone()).flatten() {
            Some(End::Panicked(message)) => Some(message),
            _ => None,
        }
    }

    /// What the task came to, if it ran to its end and nobody took it before.
    pub fn take(&self) -> Option<T> {
        self.result.lock().take()
    }

    /// What the task came to.
    ///
    /// # Panics
    /// If it did not end, or its result was taken before.
    #[track_caller]
    pub fn value(&self) -> T {
        match self.result.lock().take() {
            Some(value) => value,
            None => {
                panic!("`{}` has no result: {:?}", self.name(), self.slot(|slot| slot.end.clone()).flatten())
            }
        }
    }

    fn name(&self) -> String {
        self.slot(|slot| slot.name.clone()).unwrap_or_default()
    }

    fn slot<R>(&self, act: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let shared = self.shared.upgrade()?;
        let mut state = shared.state.lock();
        Some(act(&mut state.tasks[self.id]))
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The executor as a [`Runtime`]: its tasks join the schedule, its timers run on virtual time.
#[derive(Clone, Debug)]
pub struct SimRuntime(Weak<Shared>);

impl Runtime for SimRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let Some(shared) = self.0.upgrade() else { return Err(task) };
        let mut state = shared.state.lock();
        if state.closed || state.refusing {
            drop(state);
            return Err(task);
        }
        state.add(None, task);
        Ok(())
    }

    fn sleep(&self, duration: Duration) -> Option<BoxFuture<'static, ()>> {
        let shared = self.0.upgrade()?;
        let state = shared.state.lock();
        if state.refusing {
            return None;
        }
        let deadline = state.now.saturating_add(duration);
        Some(Box::pin(Sleep { shared: self.0.clone(), deadline, ticket: None }))
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tasks: Vec<Slot>,
    trace: Vec<usize>,
    now: Duration,
    timers: BTreeMap<(Duration, u64), Waker>,
    tickets: u64,
    clock: Option<ManualClock>,
    refusing: bool,
    closed: bool,
}

struct Slot {
    name: String,
    detached: bool,
    future: Option<BoxFuture<'static, ()>>,
    woken: Arc<WakeFlag>,
    polls: u64,
    cancel_after: Option<u64>,
    may_panic: bool,
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum End {
    Returned,
    Panicked(String),
    Cancelled,
}

#[derive(Debug)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl State {
    /// A task without a name is detached.
    fn add(&mut self, name: Option<String>, future: BoxFuture<'static, ()>) -> usize {
        let id = self.tasks.len();
        self.tasks.push(Slot {
            detached: name.is_none(),
            may_panic: name.is_none(),
            name: name.unwrap_or_else(|| format!("detached-{id}")),
            future: Some(future),
            woken: Arc::new(WakeFlag(AtomicBool::new(true))),
            polls: 0,
            cancel_after: None,
            end: None,
        });
        id
    }

    fn runnable(&self) -> Vec<usize> {
        let ready =
            |slot: &Slot| slot.end.is_none() && (slot.woken.0.load(Ordering::SeqCst) || slot.doomed());
        (0..self.tasks.len()).filter(|&id| ready(&self.tasks[id])).collect()
    }

    fn waiting(&self) -> Vec<String> {
        let waits = |slot: &&Slot| slot.end.is_none() && !slot.detached;
        self.tasks.iter().filter(waits).map(|slot| slot.name.clone()).collect()
    }

    fn panicked(&self) -> Result<(), Stall> {
        for slot in self.tasks.iter().filter(|slot| !slot.may_panic) {
            if let Some(End::Panicked(message)) = &slot.end {
                return Err(Stall::Panicked { task: slot.name.clone(), message: message.clone() });
            }
        }
        Ok(())
    }

    fn alive(&self) -> Vec<String> {
        self.tasks.iter().filter(|slot| slot.end.is_none()).map(|slot| slot.name.clone()).collect()
    }

    fn next_timer(&self) -> Option<Duration> {
        self.timers.keys().next().map(|&(deadline, _)| deadline).filter(|&deadline| deadline < NEVER)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("now", &self.now).field("alive", &self.alive()).finish_non_exhaustive()
    }
}

impl Slot {
    fn doomed(&self) -> bool {
        self.cancel_after.is_some_and(|polls| self.polls >= polls)
    }
}

impl Shared {
    fn poll(&self, id: usize) {
        let (future, woken, doomed) = {
            let mut state = self.state.lock();
            state.trace.push(id);
            let slot = &mut state.tasks[id];
            slot.woken.0.store(false, Ordering::SeqCst);
            let doomed = slot.doomed();
            slot.polls += u64::from(!doomed);
            (slot.future.take(), Arc::clone(&slot.woken), doomed)
        };
        let Some(mut future) = future else { return };
        // Polled and dropped without the lock: a task may spawn, sleep, wake and cancel.
        let end = catch_unwind(AssertUnwindSafe(move || {
            if doomed {
                drop(future);
                return Err(End::Cancelled);
            }
            let waker = Waker::from(woken);
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => Ok(future),
                Poll::Ready(()) => Err(End::Returned),
            }
        }));
        let mut state = self.state.lock();
        let slot = &mut state.tasks[id];
        match end {
            Ok(Ok(future)) => slot.future = Some(future),
            Ok(Err(end)) => slot.end = Some(end),
            Err(panic) => slot.end = Some(End::Panicked(message(&*panic))),
        }
    }

    /// Moves to the next timer that ends by `end`; `false` if there is none.
    fn pass_time(&self, end: Duration) -> bool {
        let Some(next) = self.state.lock().next_timer().filter(|&next| next <= end) else { return false };
        self.move_time(next);
        true
    }

    fn move_time(&self, to: Duration) {
        let due = {
            let mut state = self.state.lock();
            let by = to.saturating_sub(state.now);
            state.now += by;
            if let Some(clock) = &state.clock {
                clock.advance(by);
            }
            let now = state.now;
            let later = state.timers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }
}

/// Waits for virtual time.
struct Sleep {
    shared: Weak<Shared>,
    deadline: Duration,
    ticket: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Pending };
        let mut state = shared.state.lock();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let ticket = *self.ticket.get_or_insert_with(|| {
            state.tickets += 1;
            state.tickets
        });
        state.timers.insert((self.deadline, ticket), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(shared), Some(ticket)) = (self.shared.upgrade(), self.ticket) {
            shared.state.lock().timers.remove(&(self.deadline, ticket));
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
