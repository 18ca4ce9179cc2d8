//! A cache over faulty tiers on the deterministic executor, and an origin that it computes from.

use std::future::pending;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rig::Tier;
use crate::cache::{Cache, CacheBuilder};
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::store::Store;
use crate::sync::Mutex;
use crate::testkit::Faulty;
use crate::testkit::Model;
use crate::testkit::{Gate, yield_now};
use crate::testkit::{Sim, Task};
use crate::time::{Clock, ManualClock, Timestamp};

/// A second.
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// The least time there is.
pub(crate) const TICK: Duration = Duration::from_nanos(1);

/// The last instant before `deadline`.
pub(crate) fn just_before(deadline: Duration) -> Duration {
    deadline.saturating_sub(TICK)
}

/// The cache, what is under it, and what it told.
pub(crate) struct Bench<S: Store> {
    pub(crate) cache: Cache<S>,
    pub(crate) clock: ManualClock,
    pub(crate) origin: Origin,
    pub(crate) events: Events,
}

impl<S: Store> Clone for Bench<S> {
    fn clone(&self) -> Self {
        let (clock, origin, events) = (self.clock.clone(), self.origin.clone(), self.events.clone());
        Self { cache: self.cache.clone(), clock, origin, events }
    }
}

/// The names of the events so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// Writes one down.
    pub(crate) fn tell(&self, kind: &crate::EventKind<'_>) {
        self.0.lock().push(kind.name().to_owned());
    }

    /// Forgets them.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// How many of these.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.lock().iter().filter(|event| *event == name).count()
    }
}

/// A tier that answers at once, as a memory does, and yields wherever it has to be waited for.
pub(crate) fn memory() -> Tier {
    tier(Model::new())
}

/// A tier that has to be waited for.
pub(crate) fn remote() -> Tier {
    tier(Model::remote())
}

fn tier(toy: Model<str, u64>) -> Tier {
    let tier = Faulty::new(toy);
    // The engine polls what it bounds twice at first, so that one yield alone would interleave nothing.
    tier.faults().yields(2, 1);
    Arc::new(tier)
}

impl<S: Store<Key = str, Value = u64> + 'static> Bench<S> {
    /// A cache over `store`, at a clock that moves with the executor's time.
    pub(crate) fn new(sim: &mut Sim, store: S, set: impl FnOnce(CacheBuilder<S>) -> CacheBuilder<S>) -> Self {
        let clock = ManualClock::new(Timestamp::from_nanos(1_000_000_000_000));
        sim.drive(&clock);
        let events = Events::default();
        let log = events.clone();
        let builder =
            Cache::builder(store).clock(clock.clone()).runtime(sim.runtime()).events(move |event| {
                let text = format!("{:?}", event.kind);
                log.0.lock().push(text.split('(').next().unwrap_or_default().to_owned());
            });
        let cache = set(builder).build().expect("a test knows what it builds");
        Self { cache, clock, origin: Origin::default(), events }
    }

    /// A caller of `get_or_compute`, as a task.
    pub(crate) fn ask(&self, sim: &mut Sim, name: &str, key: &'static str, how: How) -> Task<Result<u64>> {
        let bench = self.clone();
        sim.spawn(name, async move { bench.get(key, how).await })
    }

    /// One `get_or_try_compute`, computed in this way.
    pub(crate) async fn get(&self, key: &str, how: How) -> Result<u64> {
        let origin = self.origin.clone();
        self.cache.get_or_try_compute(key, move || origin.compute(how)).await
    }

    /// An entry with deadlines this far from now.
    pub(crate) fn entry(&self, value: u64, [fresh, stale, keep]: [i64; 3]) -> Entry<u64> {
        let now = self.clock.now();
        let from_now = |by: i64| {
            let distance = Duration::from_nanos(by.unsigned_abs());
            if by < 0 { now.saturating_sub(distance) } else { now.saturating_add(distance) }
        };
        let created_at = now.saturating_sub(100 * SECOND);
        Entry::new(value, Lifetime::new(created_at, from_now(fresh), from_now(stale), from_now(keep)))
    }
}

/// How a computation goes.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// It reads the origin, lets others run this often, and answers what it read.
    Answer(usize),
    /// It lets others run this often and fails.
    Fail(usize),
    /// It lets others run this often and panics.
    Panic(usize),
    /// It reads the origin and waits for the gate before it answers.
    Wait(Gate),
    /// It waits for the gate and fails.
    WaitAndFail(Gate),
    /// It never ends.
    Hang,
}

/// What is cached: one number, which a test counts up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    version: Arc<AtomicU64>,
    computations: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
}

impl Origin {
    /// What a computation that begins now answers.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Changes the origin; returns what it holds now.
    pub(crate) fn bump(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// How many computations began.
    pub(crate) fn computations(&self) -> u64 {
        self.computations.load(Ordering::SeqCst)
    }

    /// How many computations began and were neither ended nor dropped.
    pub(crate) fn running(&self) -> u64 {
        self.running.load(Ordering::SeqCst)
    }

    /// One computation.
    pub(crate) async fn compute(self, how: How) -> std::result::Result<u64, std::io::Error> {
        self.computations.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.running));
        let version = self.version();
        match how {
            How::Answer(yields) | How::Fail(yields) | How::Panic(yields) => {
                // As above: the first of two yields is lost.
                for _ in 0..if yields == 0 { 0 } else { yields + 1 } {
                    yield_now().await;
                }
            }
            How::Wait(ref gate) | How::WaitAndFail(ref gate) => gate.wait().await,
            How::Hang => pending().await,
        }
        match how {
            How::Fail(_) | How::WaitAndFail(_) => Err(std::io::Error::other("origin is down")),
            How::Panic(_) => resume_unwind(Box::new("boom")),
            _ => Ok(version),
        }
    }
}

struct Running(Arc<AtomicU64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
