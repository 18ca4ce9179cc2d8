//! Many keys with one deadline, an origin, and callers at a fixed rate, on virtual time.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use larder::{
    BoxFuture, Cache, CacheBuilder, EventKind, ManualClock, Memory, Runtime, Timestamp, TokioRuntime,
};

/// How long values are fresh.
pub(crate) const TTL: Duration = Duration::from_secs(60);
/// How long the origin takes for one.
pub(crate) const LOAD: Duration = Duration::from_millis(100);
/// When callers begin to come, and when they stop, after the keys were loaded.
pub(crate) const CALLS: std::ops::Range<u64> = 25..65;

/// The cache that is tried.
pub(crate) type Builder = CacheBuilder<Memory<u64, u64>>;

/// How many keys there are; each is asked for about once a second, by chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

/// What became of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Computations that run, the most in each tenth of a second from the first call on.
    pub(crate) running: Vec<u64>,
    /// Computations that began, in each second.
    pub(crate) began: Vec<u64>,
    /// Callers who were answered at once.
    pub(crate) at_once: u64,
    /// Callers who waited.
    pub(crate) waited: u64,
    /// Refreshes that the budget did not let begin.
    pub(crate) skipped: u64,
}

impl Outcome {
    /// The most computations at once.
    pub(crate) fn peak(&self) -> u64 {
        self.running.iter().copied().max().unwrap_or(0)
    }

    /// The most computations that began within a second.
    pub(crate) fn peak_per_second(&self) -> u64 {
        self.began.iter().copied().max().unwrap_or(0)
    }
}

/// What the origin sees.
#[derive(Default)]
struct Origin {
    running: AtomicU64,
    began: AtomicU64,
}

impl Origin {
    async fn load(self: Arc<Self>, key: u64) -> u64 {
        self.began.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        if let Some(sleep) = TokioRuntime::current().sleep(LOAD) {
            sleep.await;
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        key
    }
}

/// A generator of chance (SplitMix64: Steele, Lea and Flood, OOPSLA 2014), because chance is given as a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u64::try_from((u128::from(mixed) * u128::from(end)) >> 64).unwrap_or(0)
    }
}

/// Loads all keys at the same instant, then asks for them at the same rate from second 25 to 65: in between, at 60,
/// all are over at once, if nothing is done about it.
pub(crate) async fn simulate(
    Size(keys): Size,
    set: impl FnOnce(Builder) -> Builder,
) -> larder::Result<Outcome> {
    let capacity = usize::try_from(keys * 2).unwrap_or(usize::MAX);
    let clock = ManualClock::new(Timestamp::from_nanos(1_700_000_000_000_000_000));
    let skipped = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&skipped);
    let builder = Cache::builder(Memory::<u64, u64>::new(capacity)).ttl(TTL).clock(clock.clone());
    let builder = builder.jitter_seed(1).events(move |event| {
        if matches!(event.kind, EventKind::RefreshSkipped) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let cache = set(builder).build()?;
    let origin = Arc::new(Origin::default());
    let mut outcome = Outcome::default();

    for key in 0..keys {
        ask(&cache, &origin, key).await;
    }
    let mut chance = Chance(1);
    let mut due = 0;
    for milli in 1..CALLS.end * 1_000 {
        if milli > CALLS.start * 1_000 {
            // As many as there are keys a second; what does not go into a millisecond is left for a later one.
            due += keys;
            while due >= 1_000 {
                due -= 1_000;
                if ask(&cache, &origin, chance.below(keys)).await {
                    outcome.at_once += 1;
                } else {
                    outcome.waited += 1;
                }
            }
        }
        tick(&clock).await;
        note(&mut outcome, &origin, milli);
    }
    cache.shutdown(Duration::ZERO).await?;
    outcome.skipped = skipped.load(Ordering::Relaxed);
    Ok(outcome)
}

/// Asks as a caller does, and says whether the answer was there at once. Who has to wait does so in a task.
async fn ask(cache: &Cache<Memory<u64, u64>>, origin: &Arc<Origin>, key: u64) -> bool {
    let (cache, origin) = (cache.clone(), Arc::clone(origin));
    let mut caller: BoxFuture<'static, ()> = Box::pin(async move {
        let answer = cache.get_or_compute(&key, move || origin.load(key)).await;
        debug_assert!(answer.is_ok_and(|value| value == key));
    });
    let at_once = poll_fn(|context| Poll::Ready(caller.as_mut().poll(context).is_ready())).await;
    if !at_once {
        // It always finds a runtime here.
        drop(TokioRuntime::current().spawn(caller));
    }
    at_once
}

/// A millisecond passes, and whoever has something to do does it.
async fn tick(clock: &ManualClock) {
    clock.advance(Duration::from_millis(1));
    tokio::time::advance(Duration::from_millis(1)).await;
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// Writes down what the origin sees, from the first call on.
fn note(outcome: &mut Outcome, origin: &Origin, milli: u64) {
    let began = origin.began.swap(0, Ordering::Relaxed);
    let Some(since) = milli.checked_sub(CALLS.start * 1_000) else { return };
    let place = |list: &mut Vec<u64>, index: u64| {
        let index = usize::try_from(index).unwrap_or(0);
        list.resize(list.len().max(index + 1), 0);
        index
    };
    let tenth = place(&mut outcome.running, since / 100);
    outcome.running[tenth] = outcome.running[tenth].max(origin.running.load(Ordering::Relaxed));
    let second = place(&mut outcome.began, since / 1_000);
    outcome.began[second] += began;
}
