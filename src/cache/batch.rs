//! Many keys at once: the flights that a batch leads fly together, in one read, one computation and one write.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::task::Poll;

use crate::cache::Cache;
use crate::cache::answers::{Answers, failed};
use crate::cache::computed::Computed;
use crate::cache::core::{Core, Shown, vanished};
use crate::cache::event::EventKind;
use crate::cache::flight::{Caller, Flight, Joined, Landing};
use crate::cache::load::{Owned, Ticket};
use crate::cache::load_many::fly_many;
use crate::cache::patience::{Patience, Waiting};
use crate::cache::run::shut_down;
use crate::cache::tags::Record;
use crate::cache::within::Within;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::{Refusal, SetOutcome, Store};

/// A computation of many keys with its types forgotten. It may be called again: for keys whose leader panicked.
pub(crate) type ComputeMany<S> = Arc<
    dyn Fn(Vec<Owned<S>>) -> BoxFuture<'static, Result<Answers<Owned<S>, <S as Store>::Value>>> + Send + Sync,
>;

impl<S: Store + 'static, L> Cache<S, L> {
    /// [`get`](Self::get) for many keys, by one read of the store: one result a key, in order.
    ///
    /// A key that fails takes no other along. Keys that are fresh in a fast tier cost what a [`peek`](Self::peek) does.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = larder::Cache::builder(larder::Memory::<str, u64>::new(10)).no_expiration().build()?;
    /// cache.set_many([("a", 1), ("b", 2)]).await;
    /// let found: Result<Vec<_>, _> = cache.get_many(&["b", "z", "a"]).await.into_iter().collect();
    /// assert_eq!(found?, [Some(2), None, Some(1)]);
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub async fn get_many(&self, keys: &[&S::Key]) -> Vec<Result<Option<S::Value>>> {
        let bypass = self.core.policy.bypass;
        let mut results = Vec::with_capacity(keys.len());
        results.extend(keys.iter().map(|key| Ok(self.peek(key))));
        let missed = |result: &Result<Option<_>>| matches!(result, Ok(None));
        if !bypass && results.iter().any(missed) {
            let places: Vec<_> = (0..keys.len()).filter(|&at| missed(&results[at])).collect();
            let asked: Vec<_> = places.iter().map(|&at| keys[at]).collect();
            let read = self.core.store.get_many(&asked, self.core.clock.now()).await;
            let now = self.core.clock.now();
            for (at, found) in places.into_iter().zip(in_full(read, asked.len(), Operation::Get)) {
                results[at] = self.was_got(keys[at], found, now);
            }
        }
        results
    }

    /// [`set`](Self::set) for many keys, by one write of the store: one result an entry, in order. Of a key that is
    /// there twice the last value is stored, and both get the result of that.
    pub async fn set_many<'a, I>(&self, entries: I) -> Vec<Result<SetOutcome>>
    where
        I: IntoIterator<Item = (&'a S::Key, S::Value)>,
    {
        let entries = entries.into_iter().map(|(key, value)| (key, Computed::new(value)));
        self.store_many(entries.collect()).await
    }

    /// The same, each with a lifetime, version or tags of its own.
    pub async fn set_many_with<'a, I>(&self, entries: I) -> Vec<Result<SetOutcome>>
    where
        I: IntoIterator<Item = (&'a S::Key, Computed<S::Value>)>,
    {
        self.store_many(entries.into_iter().collect()).await
    }

    /// [`remove`](Self::remove) for many keys, by one call of the store: one result a key, in order. Where one is an
    /// error, a tier may still hold that entry: call again.
    pub async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        if self.core.policy.bypass || keys.is_empty() {
            return keys.iter().map(|_| Ok(())).collect();
        }
        let _fences = self.core.flights.write_many(keys.iter().copied()).await;
        for key in keys {
            self.core.forget_error(key);
        }
        let removed = self.core.store.remove_many(keys).await;
        let results: Vec<_> = in_full(removed, keys.len(), Operation::Remove).collect();
        for (key, result) in keys.iter().zip(&results) {
            match result {
                Ok(()) => self.core.listener.tell(key, EventKind::Removed),
                Err(error) => self.tell_failure(key, Operation::Remove, error),
            }
        }
        results
    }

    /// [`get_or_compute`](Self::get_or_compute) for many keys: one result a key, in the order asked (E15).
    ///
    /// What the store holds is served. Of the rest, `compute` is asked once for exactly those keys that nobody else is
    /// loading, in order and none twice; keys that others are loading are waited for. What it answers is
    /// written to the store at once, by one call. A key that it does not answer is absent: an error of kind
    /// [`NotFound`](ErrorKind::NotFound), which no stale entry replaces outside its window, because an answer
    /// is no failure. An answer that was not asked for is ignored.
    ///
    /// `compute` is called again only for keys whose other leader panicked or went away (E7), and a second time, behind
    /// the caller, for keys that were served stale: these are refreshed by one computation, within
    /// [`max_refreshes`](crate::CacheBuilder::max_refreshes).
    ///
    /// Costs memory and time in proportion to the keys, one task for the whole batch, and a lock of a table's shard a
    /// key that is missed; a batch of hits allocates the vector of its results.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = larder::Cache::builder(larder::Memory::<u64, String>::new(10)).no_expiration().build()?;
    /// let users = cache
    ///     .get_or_compute_many(&[&7, &8], |ids: Vec<u64>| async move {
    ///         // One query: `SELECT id, name FROM users WHERE id = ANY($1)`.
    ///         ids.into_iter().map(|id| (id, format!("user {id}"))).collect::<Vec<_>>()
    ///     })
    ///     .await;
    /// assert_eq!(users[1].as_deref().ok(), Some("user 8"));
    /// # Ok::<(), larder::Error>(()) }).unwrap();
    /// ```
    pub async fn get_or_compute_many<F, Fut, A>(&self, keys: &[&S::Key], compute: F) -> Vec<Result<S::Value>>
    where
        F: Fn(Vec<Owned<S>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = A> + Send + 'static,
        A: Into<Answers<Owned<S>, S::Value>> + 'static,
    {
        let (hits, all) = self.core.hits(keys);
        if all {
            return hits;
        }
        let compute: ComputeMany<S> = Arc::new(move |keys| {
            let answers = compute(keys);
            Box::pin(async { Ok(answers.await.into()) })
        });
        self.core.miss_many(keys, hits, compute, self.patience).await
    }

    /// The same for a computation that may fail. Its error is that of all its keys, the source of one of kind
    /// [`Computation`](ErrorKind::Computation); what fails for one key alone is said by [`Answers::fail`].
    pub async fn get_or_try_compute_many<F, Fut, A, E>(
        &self,
        keys: &[&S::Key],
        compute: F,
    ) -> Vec<Result<S::Value>>
    where
        F: Fn(Vec<Owned<S>>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, E>> + Send + 'static,
        A: Into<Answers<Owned<S>, S::Value>> + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let (hits, all) = self.core.hits(keys);
        if all {
            return hits;
        }
        self.core.miss_many(keys, hits, compute_many::<S, _, _, _, _>(compute), self.patience).await
    }

    async fn store_many(&self, entries: Vec<(&S::Key, Computed<S::Value>)>) -> Vec<Result<SetOutcome>> {
        if self.core.policy.bypass || entries.is_empty() {
            return entries.iter().map(|_| Ok(SetOutcome::Refused(Refusal::KeepsNothing))).collect();
        }
        let keys: Vec<_> = entries.iter().map(|(key, _)| *key).collect();
        let mut last = HashMap::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            last.insert(*key, at);
        }
        let now = self.core.at_once();
        let (mut writing, mut results) = (Vec::with_capacity(last.len()), vec![None; keys.len()]);
        for (at, (key, value)) in entries.into_iter().enumerate().filter(|(at, (key, _))| last[key] == *at) {
            match self.core.entry(key, value, None, now) {
                Ok(entry) => writing.push((key, entry)),
                Err(error) => results[at] = Some(Err(error)),
            }
        }
        let fences = self.core.flights.write_many(writing.iter().map(|(key, _)| *key)).await;
        for (key, _) in &writing {
            self.core.forget_error(key);
        }
        let stored = self.core.store.set_many(&writing).await;
        for ((key, _), outcome) in writing.iter().zip(in_full(stored, writing.len(), Operation::Set)) {
            match &outcome {
                Ok(SetOutcome::Stored) => self.core.listener.tell(key, EventKind::Set),
                Ok(SetOutcome::Refused(why)) => self.core.listener.tell(key, EventKind::Refused(*why)),
                Err(error) => self.tell_failure(key, Operation::Set, error),
            }
            results[last[key]] = Some(outcome);
        }
        drop(fences);
        // Each has its own result or that of the one that replaced it.
        let result_of = |key| results[last[key]].clone().unwrap_or_else(|| Err(too_few(Operation::Set)));
        keys.into_iter().map(result_of).collect()
    }
}

/// A computation of many keys in the engine's words.
pub(crate) fn compute_many<S, F, Fut, A, E>(compute: F) -> ComputeMany<S>
where
    S: Store,
    F: Fn(Vec<Owned<S>>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<A, E>> + Send + 'static,
    A: Into<Answers<Owned<S>, S::Value>> + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    Arc::new(move |keys| {
        let answers = compute(keys);
        Box::pin(async { answers.await.map(Into::into).map_err(failed) })
    })
}

impl<S: Store> Core<S> {
    /// The values of the first keys, as far as each is a hit, and whether all are.
    #[inline]
    pub(crate) fn hits(&self, keys: &[&S::Key]) -> (Vec<Result<S::Value>>, bool) {
        let mut hits = Vec::with_capacity(keys.len());
        hits.extend(keys.iter().map_while(|key| self.hit(key)).map(Ok));
        let all = hits.len() == keys.len();
        (hits, all)
    }

    /// What the answer for a key comes to that the computation did not mention (E16).
    pub(super) fn absent(&self) -> Result<Computed<S::Value>> {
        self.negative.map(|negative| Computed::new((negative.absent)())).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "cache", Operation::Compute)
                .with_message("the computation did not answer for this key")
        })
    }
}

/// What a caller of many keys waits for: which place of its results, which flight, whether it runs it.
struct Wait<V> {
    at: usize,
    flight: Arc<Flight<V>>,
    leads: bool,
    /// Until it has been waited for.
    caller: Option<Caller<V>>,
}

impl<S: Store + 'static> Core<S> {
    /// What a caller of many keys does who did not find all of them at once.
    #[cold]
    pub(crate) fn miss_many<'a>(
        self: &'a Arc<Self>,
        keys: &'a [&'a S::Key],
        hits: Vec<Result<S::Value>>,
        compute: ComputeMany<S>,
        patience: Patience,
    ) -> BoxFuture<'a, Vec<Result<S::Value>>> {
        Box::pin(self.fetch_many(keys, hits, compute, Waiting::new(patience)))
    }

    /// Joins the flight of each key, runs those that nobody runs, and waits for all. Comes back with its own
    /// computation for the keys whose leader is gone.
    async fn fetch_many(
        self: &Arc<Self>,
        keys: &[&S::Key],
        hits: Vec<Result<S::Value>>,
        compute: ComputeMany<S>,
        mut waiting: Waiting,
    ) -> Vec<Result<S::Value>> {
        if self.policy.bypass {
            return self.compute_all(keys, compute).await;
        }
        let mut open: Vec<_> = (hits.len()..keys.len()).collect();
        let mut results: Vec<_> = hits.into_iter().map(Some).collect();
        results.resize_with(keys.len(), || None);
        let arrived = self.invalidations.last();
        while !open.is_empty() {
            let (mut waits, grounded) = self.join_many(keys, &open, &mut results, &compute, &arrived).await;
            open.clear();
            for index in 0..waits.len() {
                let Wait { at, leads, .. } = waits[index];
                let flight = Arc::clone(&waits[index].flight);
                let Some(caller) = waits[index].caller.take() else { continue };
                let landing = self.wait(keys[at], &flight, caller, &mut waiting, &arrived).await;
                results[at] = match landing {
                    Ok(Landing::Found(entry) | Landing::Value(entry)) => Some(Ok(entry.into_value())),
                    Ok(Landing::Failed(error)) | Err(error) => Some(Err(error)),
                    Ok(Landing::Panicked) if leads => {
                        // One payload for all: it lies in the first flight that had use for it.
                        match waits.iter().filter(|wait| wait.leads).find_map(|wait| wait.flight.take_panic())
                        {
                            Some(payload) => resume_unwind(payload),
                            None => Some(Err(failed("the computation panicked"))),
                        }
                    }
                    Ok(Landing::Vanished) if leads => Some(Err(vanished(grounded))),
                    Ok(Landing::Panicked | Landing::Vanished) => {
                        open.push(at);
                        None
                    }
                };
            }
        }
        // Every place was open until it had its result.
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(shut_down(Operation::Compute))))
            .collect()
    }

    /// One round of [`fetch_many`](Self::fetch_many) for the places that are `open`: fills in what is answered at once,
    /// lets fly what nobody else lets fly, and says what is to be waited for, and whether there was
    /// nothing to run the flights on.
    async fn join_many(
        self: &Arc<Self>,
        keys: &[&S::Key],
        open: &[usize],
        results: &mut [Option<Result<S::Value>>],
        compute: &ComputeMany<S>,
        arrived: &Arc<Record>,
    ) -> (Vec<Wait<S::Value>>, bool) {
        let within = Within::current();
        let (mut waits, mut crew, mut served, mut late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for &at in open {
            let key = keys[at];
            if let Some(value) = self.hit(key) {
                results[at] = Some(Ok(value));
                continue;
            }
            let (flight, leads) = match self.flights.join(key, arrived) {
                Joined::Lead(flight) => (flight, true),
                Joined::Follow(flight) => (flight, false),
            };
            let caller = flight.caller();
            if !leads {
                if within.contains(&flight) {
                    results[at] = Some(Err(Error::new(ErrorKind::Cycle, "cache", Operation::Compute)
                        .with_message("the computation of a key asked for that key again")));
                } else if let Some((entry, shown)) = self.shown(key) {
                    // As for a single key: a flight that is still reading does not know what a fast tier holds by now.
                    self.listener.tell(key, shown.told(entry.lifetime()));
                    results[at] = Some(Ok(entry.into_value()));
                } else {
                    if within.is_within() {
                        flight.excuse();
                    }
                    self.listener.tell(key, EventKind::Joined);
                    waits.push(Wait { at, flight, leads, caller: Some(caller) });
                }
                continue;
            }
            let ticket = Ticket::new(Arc::clone(self), key, Arc::clone(&flight));
            if self.background.is_closing() {
                late.push(at);
                continue;
            }
            // As for a single key: looked at only now that the flight can be joined (E4).
            match self.shown(key) {
                Some((entry, Shown::Fresh)) => {
                    ticket.land(Landing::Found(entry.clone()));
                    self.listener.tell(key, EventKind::Hit(entry.lifetime()));
                    results[at] = Some(Ok(entry.into_value()));
                    continue;
                }
                Some((entry, shown)) => {
                    flight.refresh_behind(entry.clone());
                    served.push((at, flight, entry, shown));
                }
                None => waits.push(Wait { at, flight, leads, caller: Some(caller) }),
            }
            crew.push(ticket);
        }
        let grounded = !crew.is_empty() && self.take_off(crew, Arc::clone(compute), within).await;
        for (at, flight, entry, shown) in served {
            let (entry, shown) = match flight.found() {
                Some(fresh) => (fresh, Shown::Fresh),
                None => (entry, shown),
            };
            self.listener.tell(keys[at], shown.told(entry.lifetime()));
            results[at] = Some(Ok(entry.into_value()));
        }
        self.serve_on_many(keys, &late, results).await;
        (waits, grounded)
    }

    /// Begins a flight of many keys. Says whether there is nothing to run it on.
    async fn take_off(
        self: &Arc<Self>,
        crew: Vec<Ticket<S>>,
        compute: ComputeMany<S>,
        within: Within,
    ) -> bool {
        let mut task: BoxFuture<'static, ()> = Box::pin(fly_many(Arc::clone(self), crew, compute, within));
        if poll_fn(|context| Poll::Ready(task.as_mut().poll(context))).await.is_ready() {
            return false;
        }
        let Err(mut task) = self.background.runtime.spawn(task) else { return false };
        poll_fn(|context| Poll::Ready(task.as_mut().poll(context))).await.is_pending()
    }

    /// What is left to do after a shutdown: hits are served, nothing is computed.
    async fn serve_on_many(
        &self,
        keys: &[&S::Key],
        late: &[usize],
        results: &mut [Option<Result<S::Value>>],
    ) {
        if late.is_empty() {
            return;
        }
        let asked: Vec<_> = late.iter().map(|&at| keys[at]).collect();
        let read = self.store.get_many(&asked, self.clock.now());
        let read = self.background.within(self.policy.load_timeout, read).await.unwrap_or_default();
        for (&at, found) in late.iter().zip(in_full(read, late.len(), Operation::Get)) {
            results[at] = Some(self.serve_after_the_end(keys[at], found.ok().flatten()));
        }
    }

    /// Computes in the caller, and touches no store (E10).
    async fn compute_all(&self, keys: &[&S::Key], compute: ComputeMany<S>) -> Vec<Result<S::Value>> {
        let mut results: HashMap<&S::Key, Option<Result<S::Value>>> = HashMap::with_capacity(keys.len());
        let mut asked = Vec::new();
        for key in keys {
            if results.insert(key, None).is_none() {
                asked.push((*key).to_owned());
            }
        }
        let mut answers = compute(asked).await;
        let now = self.at_once();
        let mut value_of = |key: &S::Key| {
            let answer = match &mut answers {
                Ok(answers) => answers.take(key).unwrap_or_else(|| self.absent())?,
                Err(error) => return Err(error.clone()),
            };
            self.entry(key, answer, None, now).map(Entry::into_value)
        };
        for (key, result) in &mut results {
            *result = Some(value_of(key));
        }
        self.tell_unasked(answers.map_or(0, |left| left.len()));
        let result_of = |key: &&S::Key| results.get(*key).cloned().flatten();
        keys.iter().map(|key| result_of(key).unwrap_or_else(|| Err(too_few(Operation::Compute)))).collect()
    }

    /// Tells of answers that are left over.
    pub(super) fn tell_unasked(&self, left: usize) {
        if left > 0 {
            self.listener.tell_of_all(EventKind::Unasked(left));
        }
    }
}

/// One result a key, whatever the store answers: nobody may wait for what does not come (S11).
pub(super) fn in_full<T>(
    results: Vec<Result<T>>,
    keys: usize,
    operation: Operation,
) -> impl Iterator<Item = Result<T>> {
    let missing = std::iter::repeat_with(move || Err(too_few(operation)));
    results.into_iter().chain(missing).take(keys)
}

pub(super) fn too_few(operation: Operation) -> Error {
    Error::new(ErrorKind::Other, "cache", operation)
        .with_message("the store answered for fewer keys than it was asked")
}
