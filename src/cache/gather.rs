//! The loader of many keys, and how single loads that come close together are gathered into one call of it.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slots;
use std::fmt;
use std::hash::Hash;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use tokio::sync::oneshot;

use crate::cache::Cache;
use crate::cache::batch::ComputeMany;
use crate::cache::computed::Computed;
use crate::cache::core::Core;
use crate::cache::load::{Compute, Owned};
use crate::cache::run::{catch, cut_off, shut_down};
use crate::cache::within::Within;
use crate::error::{Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::Store;
use crate::sync::Mutex;

/// The loader of a cache that loads many keys at once. See [`CacheBuilder::batch_loader`](crate::CacheBuilder).
pub struct BatchLoader<S: Store> {
    load: ComputeMany<S>,
    gather: Option<Arc<Gather<Owned<S>, S::Value>>>,
}

impl<S: Store> BatchLoader<S> {
    pub(crate) fn new(load: ComputeMany<S>) -> Self {
        Self { load, gather: None }
    }

    pub(crate) fn gathering(mut self, window: Duration, most: usize) -> Self {
        self.gather = Some(Arc::new(Gather { window, most, open: Mutex::default() }));
        self
    }
}

impl<S: Store + 'static> Cache<S, BatchLoader<S>> {
    /// The value of `key`, computed by the cache's own loader where [`get_or_compute`](Self::get_or_compute) would ask
    /// its caller: alone, or together with what else is loaded about now if the cache
    /// [gathers](crate::CacheBuilder::gather).
    pub async fn fetch(&self, key: &S::Key) -> Result<S::Value> {
        if let Some(value) = self.core.hit(key) {
            return Ok(value);
        }
        let (core, loader, owned) = (Arc::clone(&self.core), self.loader.clone(), key.to_owned());
        let compute: Compute<S::Value> = Box::new(move |_| loader.compute(core, owned));
        self.core.miss(key, compute, self.patience).await
    }

    /// The same for many keys, as [`get_or_compute_many`](Self::get_or_compute_many) gives them: what is missing is
    /// one call of the loader, however many keys there are.
    pub async fn fetch_many(&self, keys: &[&S::Key]) -> Vec<Result<S::Value>> {
        let (hits, all) = self.core.hits(keys);
        if all {
            return hits;
        }
        self.core.miss_many(keys, hits, Arc::clone(&self.loader.load), self.patience).await
    }
}

/// What becomes of a gathered key.
enum Outcome<V> {
    Answer(Result<Computed<V>>),
    /// For one of those who brought a key.
    Panicked(Box<dyn Any + Send>),
}

/// Single computations that wait for company.
pub(crate) struct Gather<O, V> {
    window: Duration,
    most: usize,
    open: Mutex<Round<O, V>>,
}

/// The keys that the next call gets.
struct Round<O, V> {
    number: u64,
    keys: Vec<O>,
    /// Two flights of one key meet here if a write overtook the first before its call began.
    waiting: HashMap<O, Vec<oneshot::Sender<Outcome<V>>>, RandomState>,
    within: Vec<Within>,
}

impl<O, V> Default for Round<O, V> {
    fn default() -> Self {
        Self { number: 0, keys: Vec::new(), waiting: HashMap::default(), within: Vec::new() }
    }
}

/// What a key finds that comes to be gathered.
enum Gathered<O, V> {
    /// It is the first of this round.
    First(u64),
    Among,
    /// It fills the round.
    Full(Round<O, V>),
}

impl<O: Hash + Eq + Clone, V: Clone> Gather<O, V> {
    fn join(&self, key: O, answer: oneshot::Sender<Outcome<V>>) -> Gathered<O, V> {
        let mut open = self.open.lock();
        let first = open.keys.is_empty();
        open.within.push(Within::current());
        match open.waiting.entry(key) {
            Slots::Occupied(mut waiting) => waiting.get_mut().push(answer),
            Slots::Vacant(waiting) => {
                let key = waiting.key().clone();
                waiting.insert(vec![answer]);
                open.keys.push(key);
            }
        }
        if open.keys.len() >= self.most {
            Gathered::Full(open.close())
        } else if first {
            Gathered::First(open.number)
        } else {
            Gathered::Among
        }
    }

    /// The keys of this round, unless it was full before.
    fn close(&self, round: u64) -> Option<Round<O, V>> {
        let mut open = self.open.lock();
        (open.number == round).then(|| open.close())
    }
}

impl<O: Hash + Eq, V: Clone> Round<O, V> {
    fn close(&mut self) -> Self {
        let next = Self { number: self.number + 1, ..Self::default() };
        std::mem::replace(self, next)
    }

    fn answer(self, mut outcome: impl FnMut(&O) -> Result<Computed<V>>) {
        let Self { keys, mut waiting, .. } = self;
        for key in keys {
            let answer = outcome(&key);
            for waits in waiting.remove(&key).into_iter().flatten() {
                // Whoever has gone away wants no answer.
                let _ = waits.send(Outcome::Answer(answer.clone()));
            }
        }
    }
}

impl<S: Store + 'static> BatchLoader<S> {
    /// The computation of a single key: with others, or alone if there is nothing to wait with.
    fn compute(self, core: Arc<Core<S>>, key: Owned<S>) -> BoxFuture<'static, Result<Computed<S::Value>>> {
        let gather = self.gather.filter(|gather| gather.most > 1 && !core.policy.bypass);
        let load = self.load;
        Box::pin(async move {
            let Some(gather) = gather else { return alone(&core, &load, key).await };
            let Some(window) = core.background.runtime.sleep(gather.window) else {
                return alone(&core, &load, key).await;
            };
            let (sender, answer) = oneshot::channel();
            match gather.join(key.clone(), sender) {
                Gathered::Among => {}
                Gathered::Full(round) => {
                    let call = call(Arc::clone(&core), Arc::clone(&load), round);
                    // If there is nothing to run it on, its end tells those who wait for it.
                    drop(core.background.runtime.spawn(Box::pin(call)));
                }
                Gathered::First(round) => {
                    let later = after_window(
                        Arc::clone(&core),
                        Arc::clone(&gather),
                        Arc::clone(&load),
                        round,
                        window,
                    );
                    if let Err(task) = core.background.runtime.spawn(Box::pin(later)) {
                        // Nobody would close the round: whoever has joined it goes on alone.
                        drop(task);
                        drop(gather.close(round));
                    }
                }
            }
            match answer.await {
                Ok(Outcome::Answer(answer)) => answer,
                Ok(Outcome::Panicked(payload)) => resume_unwind(payload),
                Err(_) => alone(&core, &load, key).await,
            }
        })
    }
}

async fn alone<S: Store + 'static>(
    core: &Core<S>,
    load: &ComputeMany<S>,
    key: Owned<S>,
) -> Result<Computed<S::Value>> {
    let mut answers = load(vec![key.clone()]).await?;
    let answer = answers.take::<Owned<S>>(&key).unwrap_or_else(|| core.absent());
    core.tell_unasked(answers.len());
    answer
}

/// Waits for the end of the window, and calls the loader for whatever has come by then.
async fn after_window<S: Store + 'static>(
    core: Arc<Core<S>>,
    gather: Arc<Gather<Owned<S>, S::Value>>,
    load: ComputeMany<S>,
    round: u64,
    window: BoxFuture<'static, ()>,
) {
    let passed = core.background.unless_stopped(window).await;
    let Some(round) = gather.close(round) else { return };
    match passed {
        Ok(()) => call(core, load, round).await,
        Err(_) => round.answer(|_| Err(shut_down(Operation::Compute))),
    }
}

/// One call of the loader for all keys of a round for which anybody still waits.
async fn call<S: Store + 'static>(
    core: Arc<Core<S>>,
    load: ComputeMany<S>,
    mut round: Round<Owned<S>, S::Value>,
) {
    let Round { keys, waiting, within, .. } = &mut round;
    keys.retain(|key| {
        waiting.get::<Owned<S>>(key).is_some_and(|waits| waits.iter().any(|waits| !waits.is_closed()))
    });
    if keys.is_empty() {
        return;
    }
    let (within, keys) = (Within::all(within.drain(..)), keys.clone());
    // Each who waits has a deadline of its own; this is the end of what nobody waits for.
    let limit = core.policy.load_timeout.max(core.policy.refresh_timeout);
    let work = core.background.bounded(limit, within.scope(async { load(keys).await }));
    match catch(work).await {
        Ok(Ok(Ok(mut answers))) => {
            round.answer(|key| answers.take::<Owned<S>>(key).unwrap_or_else(|| core.absent()));
            core.tell_unasked(answers.len());
        }
        Ok(Ok(Err(error))) => round.answer(|_| Err(error.clone())),
        Ok(Err(cut)) => {
            let error = cut_off(cut, Operation::Compute, limit, "load_timeout");
            round.answer(|_| Err(error.clone()));
        }
        // It goes on in one of its callers; the others, whose senders are dropped, carry on alone (E7).
        Err(payload) => {
            let mut outcome = Outcome::Panicked(payload);
            for waits in round.keys.iter().filter_map(|key| round.waiting.remove::<Owned<S>>(key)).flatten() {
                match waits.send(outcome) {
                    Ok(()) => return,
                    Err(back) => outcome = back,
                }
            }
        }
    }
}

impl<S: Store> Clone for BatchLoader<S> {
    fn clone(&self) -> Self {
        Self { load: Arc::clone(&self.load), gather: self.gather.clone() }
    }
}

impl<S: Store> fmt::Debug for BatchLoader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchLoader")
    }
}
