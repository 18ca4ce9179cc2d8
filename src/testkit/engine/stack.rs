//! What stands under the engine: a stack whose calls are written down, and keys that collide.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::describe::Description;
use crate::dynamic::BoxStore;
use crate::entry::Entry;
use crate::error::{Operation, Result};
use crate::runtime::Runtime;
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::SimRuntime;
use crate::testkit::engine::case::{SECOND, Writes};
use crate::testkit::engine::trace::{Log, Outcome};
use crate::time::Timestamp;

/// The key of the caches that [`check_engine`](super::check_engine) builds. The first two have the same hash (E14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub(crate) u8);

impl Name {
    pub(crate) const ALL: [Self; 3] = [Self(0), Self(1), Self(2)];

    /// The name in letters.
    pub fn as_str(&self) -> &'static str {
        ["a", "b", "c"].get(usize::from(self.0)).copied().unwrap_or("z")
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 / 2).hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The store of the caches that [`check_engine`](super::check_engine) builds: what it is made of changes from case
/// to case, and every call is written down.
#[derive(Clone)]
#[must_use = "a store does nothing until it is asked"]
pub struct Stack(Arc<Inner>);

struct Inner {
    store: BoxStore<str, u64>,
    log: Log,
    runtime: SimRuntime,
    slow_reads: Mutex<Duration>,
    writes: Writes,
}

impl Stack {
    pub(crate) fn new(store: BoxStore<str, u64>, log: Log, runtime: SimRuntime, writes: Writes) -> Self {
        Self(Arc::new(Inner { store, log, runtime, slow_reads: Mutex::default(), writes }))
    }

    pub(crate) fn slow_reads(&self, by: Duration) {
        *self.0.slow_reads.lock() = by;
    }

    /// What a read answers, past the log.
    pub(crate) async fn raw(&self, key: Name) -> Option<Entry<u64>> {
        self.0.store.get(key.as_str()).await.ok().flatten()
    }

    async fn lag(&self, when: Writes) {
        if self.0.writes == when
            && let Some(sleep) = self.0.runtime.sleep(SECOND)
        {
            sleep.await;
        }
    }

    async fn write(
        &self,
        key: Name,
        entry: Entry<u64>,
        write: impl Future<Output = Result<SetOutcome>> + Send,
    ) -> Result<SetOutcome> {
        let call = self.0.log.call(Operation::Set, Some(key), Some(entry));
        self.lag(Writes::LateSets).await;
        let answer = write.await;
        self.lag(Writes::Linger).await;
        self.0.log.end_call(call, None, written(&answer));
        answer
    }

    async fn read(
        &self,
        key: Name,
        read: impl Future<Output = Result<Option<Entry<u64>>>> + Send,
    ) -> Result<Option<Entry<u64>>> {
        let call = self.0.log.call(Operation::Get, Some(key), None);
        let answer = read.await;
        let slow = *self.0.slow_reads.lock();
        if !slow.is_zero()
            && let Some(sleep) = self.0.runtime.sleep(slow)
        {
            sleep.await;
        }
        let found = answer.as_ref().ok().cloned().flatten();
        self.0.log.end_call(call, found, Outcome::of(&answer));
        answer
    }
}

fn written(answer: &Result<SetOutcome>) -> Outcome {
    match answer {
        Ok(SetOutcome::Refused(_)) => Outcome::Refused,
        _ => Outcome::of(answer),
    }
}

impl Store for Stack {
    type Key = Name;
    type Value = u64;

    async fn get(&self, key: &Name) -> Result<Option<Entry<u64>>> {
        self.read(*key, self.0.store.get(key.as_str())).await
    }

    async fn set(&self, key: &Name, entry: Entry<u64>) -> Result<SetOutcome> {
        self.write(*key, entry.clone(), self.0.store.set(key.as_str(), entry)).await
    }

    /// A write like any other in what it leaves.
    async fn renew(&self, key: &Name, entry: Entry<u64>) -> Result<SetOutcome> {
        self.write(*key, entry.clone(), self.0.store.renew(key.as_str(), entry)).await
    }

    async fn remove(&self, key: &Name) -> Result<()> {
        let call = self.0.log.call(Operation::Remove, Some(*key), None);
        let answer = self.0.store.remove(key.as_str()).await;
        self.lag(Writes::Linger).await;
        self.0.log.end_call(call, None, Outcome::of(&answer));
        answer
    }

    async fn clear(&self) -> Result<()> {
        let call = self.0.log.call(Operation::Clear, None, None);
        let answer = self.0.store.clear().await;
        self.lag(Writes::Linger).await;
        self.0.log.end_call(call, None, Outcome::of(&answer));
        answer
    }

    async fn get_at(&self, key: &Name, now: Timestamp) -> Result<Option<Entry<u64>>> {
        self.read(*key, self.0.store.get_at(key.as_str(), now)).await
    }

    async fn get_many(&self, keys: &[&Name], now: Timestamp) -> Vec<Result<Option<Entry<u64>>>> {
        let calls = self.0.log.call_many(Operation::Get, keys.iter().map(|key| (**key, None)));
        let names: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let answers = self.0.store.get_many(&names, now).await;
        let slow = *self.0.slow_reads.lock();
        if !slow.is_zero()
            && let Some(sleep) = self.0.runtime.sleep(slow)
        {
            sleep.await;
        }
        for (call, answer) in calls.zip(&answers) {
            self.0.log.end_call(call, answer.as_ref().ok().cloned().flatten(), Outcome::of(answer));
        }
        answers
    }

    async fn set_many(&self, entries: &[(&Name, Entry<u64>)]) -> Vec<Result<SetOutcome>> {
        let parts = entries.iter().map(|(key, entry)| (**key, Some(entry.clone())));
        let calls = self.0.log.call_many(Operation::Set, parts);
        self.lag(Writes::LateSets).await;
        let named: Vec<_> = entries.iter().map(|(key, entry)| (key.as_str(), entry.clone())).collect();
        let answers = self.0.store.set_many(&named).await;
        self.lag(Writes::Linger).await;
        for (call, answer) in calls.zip(&answers) {
            self.0.log.end_call(call, None, written(answer));
        }
        answers
    }

    async fn remove_many(&self, keys: &[&Name]) -> Vec<Result<()>> {
        let calls = self.0.log.call_many(Operation::Remove, keys.iter().map(|key| (**key, None)));
        let names: Vec<_> = keys.iter().map(|key| key.as_str()).collect();
        let answers = self.0.store.remove_many(&names).await;
        self.lag(Writes::Linger).await;
        for (call, answer) in calls.zip(&answers) {
            self.0.log.end_call(call, None, Outcome::of(answer));
        }
        answers
    }

    fn peek_with<R>(&self, key: &Name, read: impl FnOnce(&Entry<u64>) -> R) -> Option<R> {
        let answer = self.0.store.peek_with(key.as_str(), |entry| {
            let seen = entry.clone();
            (seen, read(entry))
        });
        let (seen, answer) = answer.unzip();
        self.0.log.peek(*key, seen);
        answer
    }

    async fn flush(&self) -> Result<()> {
        self.0.store.flush().await
    }

    fn len(&self) -> Option<u64> {
        self.0.store.len()
    }

    fn weight(&self) -> Option<u64> {
        self.0.store.weight()
    }

    fn describe(&self) -> Description {
        self.0.store.describe()
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stack({})", self.describe())
    }
}
