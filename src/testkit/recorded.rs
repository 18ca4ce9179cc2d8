//! A store whose calls are written down.

use std::fmt::Debug;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::Key;
use crate::store::{SetOutcome, Store};
use crate::testkit::history::{Call, History, Reply, Running};
use crate::time::Timestamp;

/// A store whose calls go into a [`History`] under the name of a task.
///
/// Give each task of a test its own over a shared store (`&S`, `Arc<S>`), run them, and ask
/// [`History::check`] whether a register explains what they saw (law S3). A bulk call is one event a key,
/// all of them at once. A peek that does not answer says nothing and is not recorded.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use larder::testkit::{History, Loss, Recorded};
/// use larder::{Entry, Lifetime, Memory, Store, Timestamp};
///
/// let history = History::new();
/// let store = Recorded::new(Memory::<str, u64>::new(10), "main", &history);
/// store.set("a", Entry::new(1, Lifetime::forever(Timestamp::EPOCH))).await?;
/// assert!(store.get("a").await?.is_some());
/// history.check(Loss::Never).expect("a memory that is not full is a register");
/// # Ok::<(), larder::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Recorded<S, H> {
    store: S,
    task: String,
    history: H,
}

/// The history of a store.
pub type StoreHistory<S> = History<<<S as Store>::Key as ToOwned>::Owned, Entry<<S as Store>::Value>>;

type Event<S> = Running<<<S as Store>::Key as ToOwned>::Owned, Entry<<S as Store>::Value>>;

impl<S> Recorded<S, StoreHistory<S>>
where
    S: Store<Key: Key<Owned: Ord + Debug>, Value: Eq + Debug>,
{
    /// Calls `store` as `task`.
    pub fn new(store: S, task: impl Into<String>, history: &StoreHistory<S>) -> Self {
        Self { store, task: task.into(), history: history.clone() }
    }

    fn begin(&self, key: Option<&S::Key>, call: Call<Entry<S::Value>>) -> Event<S> {
        self.history.begin(&self.task, key.map(ToOwned::to_owned), call)
    }
}

fn saw<V: Clone>(result: &Result<Option<Entry<V>>>) -> Reply<Entry<V>> {
    result.as_ref().map_or(Reply::Failed, |seen| Reply::Saw(seen.clone()))
}

fn written<V>(result: &Result<SetOutcome>) -> Reply<Entry<V>> {
    match result {
        Ok(SetOutcome::Stored) => Reply::Done,
        Ok(SetOutcome::Refused(_)) => Reply::Refused,
        Err(_) => Reply::Failed,
    }
}

fn done<V>(result: &Result<()>) -> Reply<Entry<V>> {
    if result.is_ok() { Reply::Done } else { Reply::Failed }
}

#[deny(clippy::missing_trait_methods, reason = "a call that is not recorded is not judged")]
impl<S> Store for Recorded<S, StoreHistory<S>>
where
    S: Store<Key: Key<Owned: Ord + Debug>, Value: Eq + Debug>,
{
    type Key = S::Key;
    type Value = S::Value;

    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        let event = self.begin(Some(key), Call::Get);
        let result = self.store.get(key).await;
        event.end(saw(&result));
        result
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let event = self.begin(Some(key), Call::Set(entry.clone()));
        let result = self.store.set(key, entry).await;
        event.end(written(&result));
        result
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let event = self.begin(Some(key), Call::Set(entry.clone()));
        let result = self.store.renew(key, entry).await;
        event.end(written(&result));
        result
    }

    async fn remove(&self, key: &S::Key) -> Result<()> {
        let event = self.begin(Some(key), Call::Remove);
        let result = self.store.remove(key).await;
        event.end(done(&result));
        result
    }

    async fn clear(&self) -> Result<()> {
        let event = self.begin(None, Call::Remove);
        let result = self.store.clear().await;
        event.end(done(&result));
        result
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        let event = self.begin(Some(key), Call::Get);
        let result = self.store.get_at(key, now).await;
        event.end(saw(&result));
        result
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        let (answer, seen) = self.store.peek_with(key, |entry| (read(entry), entry.clone()))?;
        self.begin(Some(key), Call::Get).end(Reply::Saw(Some(seen)));
        Some(answer)
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        let events: Vec<_> = keys.iter().map(|key| self.begin(Some(key), Call::Get)).collect();
        let results = self.store.get_many(keys, now).await;
        events.into_iter().zip(&results).for_each(|(event, result)| event.end(saw(result)));
        results
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let begin = |(key, entry): &(&S::Key, Entry<_>)| self.begin(Some(key), Call::Set(entry.clone()));
        let events: Vec<_> = entries.iter().map(begin).collect();
        let results = self.store.set_many(entries).await;
        events.into_iter().zip(&results).for_each(|(event, result)| event.end(written(result)));
        results
    }

    async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        let events: Vec<_> = keys.iter().map(|key| self.begin(Some(key), Call::Remove)).collect();
        let results = self.store.remove_many(keys).await;
        events.into_iter().zip(&results).for_each(|(event, result)| event.end(done(result)));
        results
    }

    fn len(&self) -> Option<u64> {
        self.store.len()
    }

    fn weight(&self) -> Option<u64> {
        self.store.weight()
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + Send {
        self.store.flush()
    }

    fn describe(&self) -> Description {
        Description::new("recorded").with("task", &self.task).over(self.store.describe())
    }
}
