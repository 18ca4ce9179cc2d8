//! Tasks that race over a store, as plain data, and the judgement of what they saw (laws S3, S4, S8).

mod draw;

use std::cell::RefCell;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Lifetime};
use crate::error::Operation;
use crate::store::Store;
use crate::testkit::executor::{Schedule, Sim, Stall, Task, explore};
use crate::testkit::faulty::{Fault, Faults, Faulty};
use crate::testkit::history::{Call, History, Loss, Reply};
use crate::testkit::model::Model;
use crate::testkit::recorded::{Recorded, StoreHistory};
use crate::testkit::runner::{Case, Finding};
use crate::time::{Clock, ManualClock, Timestamp};

pub(crate) use draw::{calm_races, in_turn, wild_races};

/// A tier as a chain is given it: it does what it is told, and can be looked into.
pub type Tier = Arc<Faulty<Model<str, u64>>>;

/// The keys that tasks use.
pub(crate) const KEYS: [&str; 2] = ["k", "l"];

/// One step of a task. Keys, tiers and leaves count from 0, modulo how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Writes an entry that nobody wrote before.
    Set(u8),
    /// Renews the entry that was drawn last: its value, created now.
    Renew(u8),
    /// Writes both keys at once.
    SetMany,
    Remove(u8),
    /// Removes both keys at once.
    RemoveMany,
    Clear,
    Get(u8),
    /// Reads at the present instant.
    GetAt(u8),
    /// Reads both keys at once.
    GetMany,
    Peek(u8),
    /// The tier forgets the key, as by an eviction.
    Forget(u8, u8),
    /// The tier fails everything.
    Down(u8),
    /// The tier fails this, and goes on with the rest.
    DownFor(u8, Op),
    /// The tier is back.
    Up(u8),
    /// So many milliseconds pass.
    Pass(u8),
}

/// What a tier may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    Get,
    Set,
    Remove,
    Clear,
}

impl From<Op> for Operation {
    fn from(op: Op) -> Self {
        match op {
            Op::Get => Self::Get,
            Op::Set => Self::Set,
            Op::Remove => Self::Remove,
            Op::Clear => Self::Clear,
        }
    }
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Harm {
    FailBefore,
    FailAfter,
    Refuse,
    HangBefore,
    HangAfter,
    Panic,
}

impl From<Harm> for Fault {
    fn from(harm: Harm) -> Self {
        match harm {
            Harm::FailBefore => Self::FailBefore,
            Harm::FailAfter => Self::FailAfter,
            Harm::Refuse => Self::Refuse,
            Harm::HangBefore => Self::HangBefore,
            Harm::HangAfter => Self::HangAfter,
            Harm::Panic => Self::PanicBefore,
        }
    }
}

/// The `nth` call of this kind to this leaf (0 is the first) meets this.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) leaf: u8,
    pub(crate) op: Op,
    pub(crate) nth: u8,
    pub(crate) harm: Harm,
}

impl Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { leaf, op, nth, harm } = self;
        write!(f, "{op:?} no. {} of leaf {leaf}: {harm:?}", nth + 1)
    }
}

/// What a race runs over, if that varies.
pub(crate) trait Ground: Clone + Debug + Send + Serialize + DeserializeOwned + 'static {
    /// Simpler ones, the simplest first.
    fn simpler(&self) -> Vec<Self>;
}

impl Ground for () {
    fn simpler(&self) -> Vec<Self> {
        Vec::new()
    }
}

/// Tasks, and what befalls them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Race<G> {
    pub(crate) over: G,
    /// A bit for each tier that holds an old entry of the first key.
    pub(crate) planted: u8,
    pub(crate) tasks: Vec<Vec<Step>>,
    /// Drops a task once it was polled this often.
    pub(crate) cancelled: Option<(u8, u8)>,
    pub(crate) faults: Vec<Planned>,
    pub(crate) schedule: Vec<u8>,
}

impl<G> Race<G> {
    /// These tasks, and nothing else.
    pub(crate) fn of(over: G, planted: u8, tasks: &[&[Step]]) -> Self {
        let tasks = tasks.iter().map(|steps| steps.to_vec()).collect();
        Self { over, planted, tasks, cancelled: None, faults: Vec::new(), schedule: Vec::new() }
    }

    fn has(&self, harms: &[Harm]) -> bool {
        self.faults.iter().any(|fault| harms.contains(&fault.harm))
    }

    pub(crate) fn preface(&self) -> String
    where
        G: Debug,
    {
        let over = format!("{:?}", self.over);
        let mut lines = Vec::new();
        if over != "()" {
            lines.push(format!("over {over}"));
        }
        if self.planted > 0 {
            let tiers = (0..8).filter(|tier| self.planted & (1 << tier) != 0);
            let tiers: Vec<_> = tiers.map(|tier: u8| tier.to_string()).collect();
            lines.push(format!("an old entry of {:?} in tier {}", KEYS[0], tiers.join(", ")));
        }
        for (task, steps) in self.tasks.iter().enumerate() {
            let steps: Vec<_> = steps.iter().map(|step| format!("{step:?}")).collect();
            lines.push(format!("task {task}: {}", steps.join(", ")));
        }
        lines.extend(self.faults.iter().map(|fault| format!("{fault:?}")));
        if let Some((task, polls)) = self.cancelled {
            lines.push(format!("task {task} is dropped after {polls} polls"));
        }
        lines.join("\n")
    }
}

impl<G: Ground> Case for Race<G> {
    fn simpler(&self) -> Vec<Self> {
        let mut found = Vec::new();
        for task in 0..self.tasks.len() {
            let mut race = self.clone();
            race.tasks.remove(task);
            found.push(race);
        }
        for fault in 0..self.faults.len() {
            let mut race = self.clone();
            race.faults.remove(fault);
            found.push(race);
        }
        for (task, steps) in self.tasks.iter().enumerate() {
            for step in 0..steps.len() {
                let mut race = self.clone();
                race.tasks[task].remove(step);
                found.push(race);
            }
        }
        if self.cancelled.is_some() {
            found.push(Self { cancelled: None, ..self.clone() });
        }
        found.extend(self.over.simpler().into_iter().map(|over| Self { over, ..self.clone() }));
        for (task, steps) in self.tasks.iter().enumerate() {
            for (place, step) in steps.iter().enumerate() {
                for simple in simpler_step(*step) {
                    let mut race = self.clone();
                    race.tasks[task][place] = simple;
                    found.push(race);
                }
            }
        }
        for fault in 0..self.faults.len() {
            let mut race = self.clone();
            let planned = &mut race.faults[fault];
            if planned.nth > 0 {
                planned.nth -= 1;
                found.push(race);
            }
        }
        if let Some((task, polls)) = self.cancelled
            && polls > 0
        {
            found.push(Self { cancelled: Some((task, polls - 1)), ..self.clone() });
        }
        found.extend(simpler_schedules(&self.schedule).map(|schedule| Self { schedule, ..self.clone() }));
        found
    }

    fn steps(&self) -> usize {
        self.tasks.iter().map(Vec::len).sum()
    }
}

/// Fewer switches, then earlier ones.
fn simpler_schedules(schedule: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let halves = [0, schedule.len() / 2, schedule.len().saturating_sub(1)];
    let shorter = halves.into_iter().filter(|&len| len < schedule.len()).map(|len| schedule[..len].to_vec());
    let calmer = (0..schedule.len()).filter(|&place| schedule[place] > 0).map(|place| {
        let mut calmer = schedule.to_vec();
        calmer[place] = 0;
        calmer
    });
    shorter.chain(calmer)
}

fn simpler_step(step: Step) -> Vec<Step> {
    match step {
        Step::Set(key) if key > 0 => vec![Step::Set(0)],
        Step::Renew(key) => vec![Step::Set(key)],
        Step::SetMany => vec![Step::Set(0), Step::Set(1)],
        Step::Remove(key) if key > 0 => vec![Step::Remove(0)],
        Step::RemoveMany => vec![Step::Remove(0), Step::Remove(1)],
        Step::Clear => vec![Step::Remove(0)],
        Step::Get(key) if key > 0 => vec![Step::Get(0)],
        Step::GetAt(key) => vec![Step::Get(key)],
        Step::GetMany => vec![Step::Get(0), Step::Get(1)],
        Step::Peek(key) if key > 0 => vec![Step::Peek(0)],
        Step::DownFor(tier, _) => vec![Step::Down(tier)],
        Step::Pass(by) if by > 1 => vec![Step::Pass(1)],
        _ => Vec::new(),
    }
}

/// A store under a race: its tiers (fastest first) if they are known, its switches, its clock, its history.
pub(crate) struct World<S: Store<Key = str>> {
    pub(crate) stack: Arc<S>,
    pub(crate) tiers: Vec<Tier>,
    pub(crate) faults: Vec<Faults>,
    pub(crate) clock: ManualClock,
    history: StoreHistory<Arc<S>>,
    make: fn(u64) -> S::Value,
    values: Arc<AtomicU64>,
}

impl<S: Store<Key = str>> Clone for World<S> {
    fn clone(&self) -> Self {
        Self {
            stack: Arc::clone(&self.stack),
            tiers: self.tiers.clone(),
            faults: self.faults.clone(),
            clock: self.clock.clone(),
            history: self.history.clone(),
            make: self.make,
            values: Arc::clone(&self.values),
        }
    }
}

/// What a law says about a broken history, whatever it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blame {
    pub(crate) loss: Loss,
    pub(crate) expected: &'static str,
    pub(crate) cause: &'static str,
}

/// The clock of a race at its beginning.
pub(crate) fn race_clock() -> ManualClock {
    ManualClock::new(Timestamp::from_nanos(1000))
}

impl<S> World<S>
where
    S: Store<Key = str, Value: Eq + Debug> + 'static,
{
    /// Over a store of which the switches are known; `make` makes values of numbers.
    pub(crate) fn new(stack: S, faults: Vec<Faults>, clock: ManualClock, make: fn(u64) -> S::Value) -> Self {
        let (stack, history) = (Arc::new(stack), History::new());
        Self { stack, tiers: Vec::new(), faults, clock, history, make, values: Arc::default() }
    }

    /// An entry that nobody wrote before, created at an instant of its own, and fresh for longer than any
    /// race takes; some have a version and tags.
    pub(crate) fn entry(&self) -> Entry<S::Value> {
        self.clock.advance(Duration::from_nanos(1));
        let (number, now) = (self.values.fetch_add(1, Ordering::Relaxed), self.clock.now());
        lasting((self.make)(number), number, now)
    }

    /// An entry with the value that was drawn last, created at an instant of its own.
    pub(crate) fn renewed(&self) -> Entry<S::Value> {
        self.clock.advance(Duration::from_nanos(1));
        let number = self.values.load(Ordering::Relaxed).saturating_sub(1);
        lasting((self.make)(number), number, self.clock.now())
    }

    /// A task of this race.
    pub(crate) fn task(&self, sim: &mut Sim, name: &str, steps: &[Step]) -> Task<()> {
        let world = self.clone();
        let (client, steps) = (Recorded::new(Arc::clone(&self.stack), name, &self.history), steps.to_vec());
        sim.spawn(name, async move {
            for step in steps {
                world.step(&client, step).await;
            }
        })
    }

    async fn step(&self, client: &Recorded<Arc<S>, StoreHistory<Arc<S>>>, step: Step) {
        let key = |key: u8| KEYS[usize::from(key) % KEYS.len()];
        let leaf = |leaf: u8| self.faults.get(usize::from(leaf) % self.faults.len().max(1));
        // Whether a call succeeds is the law's affair; the history has the reply.
        match step {
            Step::Set(name) => drop(client.set(key(name), self.entry()).await),
            Step::Renew(name) => drop(client.renew(key(name), self.renewed()).await),
            Step::SetMany => drop(client.set_many(&KEYS.map(|key| (key, self.entry()))).await),
            Step::Remove(name) => drop(client.remove(key(name)).await),
            Step::RemoveMany => drop(client.remove_many(&KEYS).await),
            Step::Clear => drop(client.clear().await),
            Step::Get(name) => drop(client.get(key(name)).await),
            Step::GetAt(name) => drop(client.get_at(key(name), self.clock.now()).await),
            Step::GetMany => drop(client.get_many(&KEYS, self.clock.now()).await),
            Step::Peek(name) => drop(client.peek_with(key(name), |_| ())),
            Step::Forget(tier, name) => {
                if let Some(tier) = self.tiers.get(usize::from(tier)) {
                    tier.inner().forget(key(name));
                }
            }
            Step::Down(tier) => leaf(tier).into_iter().for_each(Faults::down),
            Step::DownFor(tier, op) => leaf(tier).into_iter().for_each(|faults| faults.down_for(op.into())),
            Step::Up(tier) => leaf(tier).into_iter().for_each(Faults::up),
            Step::Pass(by) => self.clock.advance(Duration::from_millis(by.into())),
        }
    }

    /// Runs a race and what comes after it: all is quiet and healed, every tier brings to light what it still
    /// holds, and the store takes writes.
    pub(crate) fn judge<G: Debug>(&self, sim: &mut Sim, race: &Race<G>, blame: Blame) -> Result<(), Finding> {
        sim.set_budget(1_000_000);
        self.prepare(race);
        for (index, steps) in race.tasks.iter().enumerate() {
            let task = self.task(sim, &format!("task {index}"), steps);
            if race.has(&[Harm::Panic]) {
                task.may_panic();
            }
            if let Some((victim, polls)) = race.cancelled
                && usize::from(victim) == index
            {
                task.cancel_after(polls.into());
            }
        }
        let mut end = sim.try_run();
        if race.has(&[Harm::HangBefore, Harm::HangAfter]) && matches!(end, Err(Stall::Deadlock { .. })) {
            self.faults.iter().for_each(Faults::release);
            end = sim.try_run();
        }
        let end = end.and_then(|()| {
            self.faults.iter().for_each(Faults::heal);
            self.faults.iter().for_each(Faults::release);
            self.task(sim, "later", &self.aftermath());
            sim.try_run()
        });
        end.map_err(|stall| Finding {
            timeline: race.preface(),
            expected: "every call ends, whoever else was dropped, failed or waited".to_owned(),
            got: stall.to_string(),
            cause:
                "a wake-up that is lost, a lock kept by a future that was dropped, or a wait that nobody ends"
                    .to_owned(),
        })?;
        self.history.check(blame.loss).map_err(|violation| {
            let text = violation.to_string();
            let (got, timeline) = text.split_once('\n').unwrap_or((&text, ""));
            Finding {
                timeline: format!("{}\n\n{timeline}", race.preface()),
                expected: blame.expected.to_owned(),
                got: got.to_owned(),
                cause: blame.cause.to_owned(),
            }
        })
    }

    pub(crate) fn prepare<G>(&self, race: &Race<G>) {
        for planned in &race.faults {
            if let Some(faults) = self.faults.get(usize::from(planned.leaf) % self.faults.len().max(1)) {
                faults.on(planned.op.into(), planned.nth.into(), planned.harm.into());
            }
        }
    }

    fn aftermath(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for key in 0..2 {
            steps.extend([Step::Peek(key), Step::Get(key), Step::Get(key)]);
            for tier in 0..self.tiers.len().saturating_sub(1) {
                steps.extend((0..=tier).map(|tier| Step::Forget(u8::try_from(tier).unwrap_or(0), key)));
                steps.extend([Step::Get(key), Step::GetAt(key)]);
            }
        }
        steps.extend([Step::Set(0), Step::Get(0), Step::Remove(0), Step::Get(0)]);
        steps
    }
}

impl<S: Store<Key = str, Value = u64> + 'static> World<S> {
    /// Over what `join` makes of two tiers, of which the upper one answers at once.
    pub(crate) fn of_tiers(join: impl FnOnce(Tier, Tier, Arc<dyn Clock>) -> S) -> Self {
        let tier = |model| Arc::new(Faulty::new(model));
        let tiers: [Tier; 2] = [tier(Model::new()), tier(Model::remote())];
        let clock = race_clock();
        let stack = join(Arc::clone(&tiers[0]), Arc::clone(&tiers[1]), Arc::new(clock.clone()));
        let faults = tiers.iter().map(|tier| tier.faults()).collect();
        let tiers = tiers.into();
        Self { tiers, ..Self::new(stack, faults, clock, |number| number) }
    }

    /// Puts one old entry of the first key into the tiers of this mask, as a `set` long ago.
    pub(crate) fn plant(&self, tiers: u8) {
        if tiers == 0 {
            return;
        }
        let entry = self.entry();
        for (_, tier) in self.tiers.iter().enumerate().filter(|(tier, _)| tiers & (1 << tier) != 0) {
            tier.inner().plant(KEYS[0], entry.clone());
        }
        let running = self.history.begin("before", Some(KEYS[0].to_owned()), Call::Set(entry));
        running.end(Reply::Done);
    }
}

/// An entry that is fresh for a minute.
pub(crate) fn lasting<V>(value: V, number: u64, created_at: Timestamp) -> Entry<V> {
    let after = |minutes: u32| created_at.saturating_add(Duration::from_secs(60) * minutes);
    let entry = Entry::new(value, Lifetime::new(created_at, after(1), after(2), after(3)));
    if number.is_multiple_of(2) {
        entry
    } else {
        entry.with_version(number.to_string()).with_tags(["b", "a"])
    }
}

/// Runs a race once, under its own schedule.
pub(crate) fn scheduled<G: Ground, S>(race: &Race<G>, world: &World<S>, blame: Blame) -> Result<(), Finding>
where
    S: Store<Key = str, Value: Eq + Debug> + 'static,
{
    let mut sim = Sim::new(Schedule::script(race.schedule.clone()));
    world.judge(&mut sim, race, blame)
}

/// Runs a race under every schedule with at most two preemptions.
pub(crate) fn explored<G: Ground, S>(
    race: &Race<G>,
    world: impl Fn() -> World<S>,
    blame: Blame,
) -> Result<(), Finding>
where
    S: Store<Key = str, Value: Eq + Debug> + 'static,
{
    let found = RefCell::new(None);
    explore(2, 30_000, |sim| {
        // A scenario that makes no choice ends the exploration.
        if found.borrow().is_none() {
            *found.borrow_mut() = world().judge(sim, race, blame).err();
        }
    });
    found.into_inner().map_or(Ok(()), Err)
}
