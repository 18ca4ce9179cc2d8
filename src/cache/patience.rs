//! How long a caller waits for a load (E20).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::builder::CacheBuilder;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::flight::{Caller, Flight, Landing, State};
use crate::cache::tags::Record;
use crate::entry::{Entry, Freshness};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::{BoxFuture, Runtime};
use crate::store::Store;

/// How long a caller waits for a load, and what it takes instead. By default it waits until the load ends, which
/// [`load_timeout`](CacheBuilder::load_timeout) sees to.
///
/// It bounds the caller, and not the load: that goes on for whoever else waits and for the store, unless
/// [`drop_load`](Self::drop_load) says otherwise. Every caller has its own patience, whether it began the load or
/// joined it, counted from when it begins to wait: the reads of slow tiers count, and so does
/// the time in which the load waits for [a place](CacheBuilder::max_loads). A hit never notices.
///
/// ```
/// use std::time::Duration;
/// use larder::{Cache, Memory, Patience};
///
/// let cache = Cache::builder(Memory::<str, String>::new(10_000))
///     .ttl(Duration::from_secs(60))
///     .keep_stale_on_error(Duration::from_secs(3600))
///     .patience(
///         Patience::new()
///             .soft_timeout(Duration::from_millis(100))
///             .hard_timeout(Duration::from_secs(2)),
///     )
///     .build()?;
///
/// // A batch job has more time; it shares everything else.
/// let unhurried = cache.with_patience(Patience::new())?;
/// # let _ = unhurried;
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "patience does nothing until a cache is given it"]
pub struct Patience {
    soft: Option<Duration>,
    hard: Option<Duration>,
    drops: bool,
}

impl Patience {
    /// As long as it takes.
    pub const fn new() -> Self {
        Self { soft: None, hard: None, drops: false }
    }

    /// Who has waited for this long is answered with the expired entry, if one is still held and would be served
    /// if the computation had failed (E8): [`keep_stale_on_error`](CacheBuilder::keep_stale_on_error) says
    /// for how long. The load goes on and is stored. Without such an entry the caller waits on.
    ///
    /// Zero is allowed: such an entry is then served as soon as the store was read, and nobody who could
    /// have it waits for a load. Must be less than the hard timeout.
    pub const fn soft_timeout(mut self, wait: Duration) -> Self {
        self.soft = Some(wait);
        self
    }

    /// Who has waited for this long gets an error of kind [`Timeout`](ErrorKind::Timeout) that names this
    /// setting. The load goes on and is stored. Not zero.
    pub const fn hard_timeout(mut self, wait: Duration) -> Self {
        self.hard = Some(wait);
        self
    }

    /// At the hard timeout the load is dropped, if nobody else waits for it: its future goes, and its key is free
    /// for the next caller at once. For origins whose work is dear even when nobody wants the answer.
    /// A refresh, and a load that is already storing its result, goes on. The computation of a batch goes on for its
    /// other keys, and what it answers for this one is not stored. Needs a hard timeout.
    pub const fn drop_load(mut self) -> Self {
        self.drops = true;
        self
    }

    pub(crate) const fn soft(&self) -> Option<Duration> {
        self.soft
    }

    pub(crate) const fn hard(&self) -> Option<Duration> {
        self.hard
    }

    pub(crate) const fn drops(&self) -> bool {
        self.drops
    }

    /// What contradicts what.
    pub(crate) fn check(&self) -> std::result::Result<(), &'static str> {
        match (self.soft, self.hard) {
            (_, Some(Duration::ZERO)) => {
                Err("hard_timeout: zero; nobody could wait for a load: to read what is held, call `get`")
            }
            (Some(soft), Some(hard)) if soft >= hard => {
                Err("soft_timeout: not less than the hard_timeout; nobody would come to it")
            }
            (_, None) if self.drops => {
                Err("drop_load: without a hard_timeout there is nothing at which to drop it")
            }
            _ => Ok(()),
        }
    }
}

impl<S: Store, L> CacheBuilder<S, L> {
    /// How long callers wait for a load; until it ends unless told. [`Cache::with_patience`] tells it for some calls.
    pub fn patience(mut self, patience: Patience) -> Self {
        self.settings.trouble.patience = patience;
        self
    }
}

impl<S: Store, L: Clone> Cache<S, L> {
    /// A handle of the same cache whose callers have this patience. Cheap, and everything is shared. An error
    /// of kind [`InvalidInput`](ErrorKind::InvalidInput) names what contradicts what.
    pub fn with_patience(&self, patience: Patience) -> Result<Self> {
        patience.check().map_err(|message| Error::invalid("cache", message))?;
        Ok(Self { patience, ..self.clone() })
    }
}

/// What is left of the patience of one call. No timer is set before the call has to wait.
pub(crate) struct Waiting {
    patience: Patience,
    timers: Option<[Timer; 2]>,
    soft_over: bool,
    hard_over: bool,
}

/// `None` if there is nothing to wait for.
type Timer = Option<BoxFuture<'static, ()>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Soft,
    Hard,
}

impl Waiting {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, timers: None, soft_over: patience.soft == Some(Duration::ZERO), hard_over: false }
    }

    /// The output of `work`, or the timeout that is due before it ends.
    async fn until<F: Future>(
        &mut self,
        runtime: &dyn Runtime,
        work: F,
    ) -> std::result::Result<F::Output, Due> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            self.poll_due(runtime, context).map(Err)
        })
        .await
    }

    fn poll_due(&mut self, runtime: &dyn Runtime, context: &mut Context<'_>) -> Poll<Due> {
        let Patience { soft, hard, .. } = self.patience;
        let soft = soft.filter(|_| !self.soft_over);
        let sleep = |wait: Option<Duration>| wait.and_then(|wait| runtime.sleep(wait));
        let [soft, hard] = self.timers.get_or_insert_with(|| [sleep(soft), sleep(hard)]);
        let mut due =
            |timer: &mut Timer| timer.as_mut().is_some_and(|sleep| sleep.as_mut().poll(context).is_ready());
        // The hard one first: who comes late to both gets what the later one says.
        // Whoever waits for many flights has lost patience with all of them.
        if self.hard_over || due(hard) {
            *hard = None;
            self.hard_over = true;
            return Poll::Ready(Due::Hard);
        }
        if due(soft) {
            *soft = None;
            return Poll::Ready(Due::Soft);
        }
        Poll::Pending
    }
}

impl<S: Store> Core<S> {
    /// Waits for a flight to land or to show what may be served meanwhile, for as long as the caller has patience. What
    /// was invalidated by its tags before this caller arrived it is not given: then the flight counts as vanished.
    pub(crate) async fn wait(
        &self,
        key: &S::Key,
        flight: &Arc<Flight<S::Value>>,
        caller: Caller<S::Value>,
        waiting: &mut Waiting,
        arrived: &Arc<Record>,
    ) -> Result<Landing<S::Value>> {
        loop {
            let impatient = waiting.soft_over;
            let judge = |entry: &Entry<S::Value>| self.policy.judge(entry.lifetime(), self.clock.now());
            let servable = |entry: &Entry<S::Value>| {
                judge(entry) <= Freshness::Stale && self.admits(flight, arrived, entry)
            };
            let stands_in = |entry: &Entry<S::Value>, fenced: bool| {
                let serves = |life| self.policy.serves_on_error(life, self.clock.now());
                impatient && self.left_of(flight, entry).is_some_and(serves) && !fenced
            };
            let enough = |state: &State<S::Value>, fenced: bool| match state {
                State::Refreshing(entry) => servable(entry) || stands_in(entry, fenced),
                State::Loading(entry) => stands_in(entry, fenced),
                State::Running | State::Landed(_) => false,
            };
            let shown = flight.shows(enough);
            let state = if waiting.patience == Patience::new() {
                shown.await
            } else {
                match waiting.until(&*self.background.runtime, shown).await {
                    Ok(state) => state,
                    Err(Due::Soft) => {
                        waiting.soft_over = true;
                        continue;
                    }
                    Err(Due::Hard) => {
                        drop(caller);
                        return Err(self.out_of_patience(key, flight, waiting.patience));
                    }
                }
            };
            return Ok(match state {
                State::Landed(Landing::Found(entry) | Landing::Value(entry))
                    if !self.admits(flight, arrived, &entry) =>
                {
                    Landing::Vanished
                }
                State::Landed(landing) => landing,
                State::Refreshing(entry) if servable(&entry) => Landing::Value(entry),
                State::Refreshing(entry) | State::Loading(entry) => {
                    self.listener.tell(key, EventKind::SoftTimeout(entry.lifetime()));
                    Landing::Value(entry)
                }
                State::Running => Landing::Vanished,
            });
        }
    }

    /// The caller leaves, and takes a load along for which nobody else waits, if that was its wish.
    fn out_of_patience(&self, key: &S::Key, flight: &Arc<Flight<S::Value>>, patience: Patience) -> Error {
        let dropped = patience.drops && self.flights.give_up(key, flight);
        let wait = patience.hard.unwrap_or_default();
        let fate = if dropped { "was dropped" } else { "goes on" };
        self.listener.tell(key, EventKind::HardTimeout);
        if dropped {
            self.listener.tell(key, EventKind::LoadDropped);
        }
        Error::new(ErrorKind::Timeout, "cache", Operation::Compute)
            .with_message(format!("no answer within {wait:?} (hard_timeout); the load {fate}"))
    }
}
