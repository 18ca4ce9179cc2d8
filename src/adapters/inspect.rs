//! A look at every call that passes.

use std::fmt;

use crate::describe::Description;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, Result};
use crate::store::{ClearPrefix, Evict, InvalidateTags, Refusal, SetOutcome, Store};
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// One access to an inspected store: what was asked, for which key, and what came of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Access<'a, K: ?Sized> {
    /// What was asked.
    pub kind: AccessKind,
    /// For which key; none for [`Clear`](AccessKind::Clear), [`Invalidate`](AccessKind::Invalidate) and
    /// [`Flush`](AccessKind::Flush).
    pub key: Option<&'a K>,
    /// What came of it.
    pub outcome: AccessOutcome<'a>,
}

/// What an inspected store was asked. A bulk call is one access a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessKind {
    /// A read that may wait.
    Get,
    /// A read that did not wait, and was answered.
    Peek,
    /// A write.
    Set,
    /// A write of what the store may hold already, under other deadlines.
    Renew,
    /// A removal.
    Remove,
    /// The removal of everything, or of everything under a prefix.
    Clear,
    /// An invalidation by tags.
    Invalidate,
    /// A flush.
    Flush,
}

/// What came of an access.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AccessOutcome<'a> {
    /// The read found an entry, fresh or not, with this lifetime.
    Hit(Lifetime),
    /// The read found nothing.
    Miss,
    /// The write was taken.
    Stored,
    /// The write was answered with a refusal.
    Refused(Refusal),
    /// The removal or flush is done.
    Done,
    /// The store failed.
    Failed(&'a Error),
}

/// A store that shows every access to a closure. See [`inspect`](crate::StoreExt::inspect).
#[derive(Clone)]
#[must_use = "a store does nothing until it is asked"]
pub struct Inspect<S, F> {
    inner: S,
    look: F,
}

impl<S: Store, F: Fn(&Access<'_, S::Key>) + Send + Sync> Inspect<S, F> {
    /// Calls `look` after each access to `inner`.
    pub const fn new(inner: S, look: F) -> Self {
        Self { inner, look }
    }

    fn report<T>(
        &self,
        kind: AccessKind,
        key: Option<&S::Key>,
        result: &Result<T>,
        outcome: impl FnOnce(&T) -> AccessOutcome<'static>,
    ) {
        let outcome = match result {
            Ok(answer) => outcome(answer),
            Err(error) => AccessOutcome::Failed(error),
        };
        (self.look)(&Access { kind, key, outcome });
    }
}

#[expect(clippy::ref_option, reason = "reports take the answer by reference")]
fn read<V>(found: &Option<Entry<V>>) -> AccessOutcome<'static> {
    found.as_ref().map_or(AccessOutcome::Miss, |entry| AccessOutcome::Hit(entry.lifetime()))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "reports take the answer by reference")]
fn written(outcome: &SetOutcome) -> AccessOutcome<'static> {
    match outcome {
        SetOutcome::Stored => AccessOutcome::Stored,
        SetOutcome::Refused(why) => AccessOutcome::Refused(*why),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "reports take the answer by reference")]
fn done((): &()) -> AccessOutcome<'static> {
    AccessOutcome::Done
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every inspected stack")]
impl<S: Store, F: Fn(&Access<'_, S::Key>) + Send + Sync> Store for Inspect<S, F> {
    type Key = S::Key;
    type Value = S::Value;

    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        let result = self.inner.get(key).await;
        self.report(AccessKind::Get, Some(key), &result, read);
        result
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let result = self.inner.set(key, entry).await;
        self.report(AccessKind::Set, Some(key), &result, written);
        result
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let result = self.inner.renew(key, entry).await;
        self.report(AccessKind::Renew, Some(key), &result, written);
        result
    }

    async fn remove(&self, key: &S::Key) -> Result<()> {
        let result = self.inner.remove(key).await;
        self.report(AccessKind::Remove, Some(key), &result, done);
        result
    }

    async fn clear(&self) -> Result<()> {
        let result = self.inner.clear().await;
        self.report(AccessKind::Clear, None, &result, done);
        result
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        let result = self.inner.get_at(key, now).await;
        self.report(AccessKind::Get, Some(key), &result, read);
        result
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        // Reported outside, because the store inside may show its entry under a lock.
        let (lifetime, answer) = self.inner.peek_with(key, |entry| (entry.lifetime(), read(entry)))?;
        (self.look)(&Access {
            kind: AccessKind::Peek,
            key: Some(key),
            outcome: AccessOutcome::Hit(lifetime),
        });
        Some(answer)
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        let results = self.inner.get_many(keys, now).await;
        for (key, result) in keys.iter().zip(&results) {
            self.report(AccessKind::Get, Some(key), result, read);
        }
        results
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let results = self.inner.set_many(entries).await;
        for ((key, _), result) in entries.iter().zip(&results) {
            self.report(AccessKind::Set, Some(key), result, written);
        }
        results
    }

    async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        let results = self.inner.remove_many(keys).await;
        for (key, result) in keys.iter().zip(&results) {
            self.report(AccessKind::Remove, Some(key), result, done);
        }
        results
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn weight(&self) -> Option<u64> {
        self.inner.weight()
    }

    async fn flush(&self) -> Result<()> {
        let result = self.inner.flush().await;
        self.report(AccessKind::Flush, None, &result, done);
        result
    }

    fn describe(&self) -> Description {
        Description::new("inspect").over(self.inner.describe())
    }
}

impl<S: Evict, F: Fn(&Access<'_, S::Key>) + Send + Sync> Evict for Inspect<S, F> {
    fn weighed_by(self, weigher: Weigher<S::Key, S::Value>) -> Self {
        Self { inner: self.inner.weighed_by(weigher), ..self }
    }

    fn weigh(&self, key: &S::Key, entry: &Entry<S::Value>) -> u64 {
        self.inner.weigh(key, entry)
    }

    fn evict(&self) -> bool {
        self.inner.evict()
    }
}

impl<S: InvalidateTags, F: Fn(&Access<'_, S::Key>) + Send + Sync> InvalidateTags for Inspect<S, F> {
    async fn remove_tags(&self, tags: &[&str], at: Timestamp) -> Result<()> {
        let result = self.inner.remove_tags(tags, at).await;
        self.report(AccessKind::Invalidate, None, &result, done);
        result
    }

    async fn expire_tags(&self, tags: &[&str], at: Timestamp) -> Result<()> {
        let result = self.inner.expire_tags(tags, at).await;
        self.report(AccessKind::Invalidate, None, &result, done);
        result
    }
}

impl<S: ClearPrefix, F: Fn(&Access<'_, str>) + Send + Sync> ClearPrefix for Inspect<S, F> {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let result = self.inner.clear_prefix(prefix).await;
        self.report(AccessKind::Clear, None, &result, done);
        result
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Inspect<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspect").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::testing::{Call, Shelf, alike, answers, bare, forwards, history, play};
    use crate::sync::Mutex;

    /// What the closure should have seen of a call that was answered like this.
    fn expected(call: &Call, answers: &[String]) -> Vec<String> {
        let (kind, keys): (_, Vec<Option<&String>>) = match call {
            Call::Get(key) | Call::GetAt(key, _) => ("Get", vec![Some(key)]),
            Call::Peek(key) => ("Peek", vec![Some(key)]),
            Call::Set(key, _) => ("Set", vec![Some(key)]),
            Call::Renew(key, _) => ("Renew", vec![Some(key)]),
            Call::Remove(key) => ("Remove", vec![Some(key)]),
            Call::Clear => ("Clear", vec![None]),
            Call::GetMany(keys) => ("Get", keys.iter().map(Some).collect()),
            Call::SetMany(entries) => ("Set", entries.iter().map(|(key, _)| Some(key)).collect()),
            Call::RemoveMany(keys) => ("Remove", keys.iter().map(Some).collect()),
            Call::Len | Call::Weight => return Vec::new(),
            Call::Flush => ("Flush", vec![None]),
        };
        let line = |(key, answer): (Option<&String>, &String)| {
            let outcome = match answer.as_str() {
                "None" => return None,
                "Ok(None)" => "Miss",
                "Ok(Stored)" => "Stored",
                "Ok(())" => "Done",
                answer if answer.starts_with("Err") => "Failed",
                _ => "Hit",
            };
            Some(format!("{kind} {key:?} {outcome}"))
        };
        keys.into_iter().zip(answers).filter_map(line).collect()
    }

    fn seen(access: &Access<'_, str>) -> String {
        let outcome = format!("{:?}", access.outcome);
        format!("{:?} {:?} {}", access.kind, access.key, outcome.split('(').next().unwrap())
    }

    proptest! {
        /// D1, S11.
        #[test]
        fn looking_changes_nothing(history in history()) {
            alike(bare, |history| play(&Inspect::new(Shelf::new(), |_| ()), history), &history)?;
        }

        #[test]
        fn each_access_is_seen_once_with_its_outcome(history in history(), fails: bool) {
            let log = Mutex::new(Vec::new());
            let mut shelf = Shelf::new();
            shelf.fails = fails;
            let store = Inspect::new(shelf, |access: &Access<'_, str>| log.lock().push(seen(access)));
            for call in history {
                let answers = answers(&store, &call);
                prop_assert_eq!(std::mem::take(&mut *log.lock()), expected(&call, &answers), "{:?}", call);
            }
        }
    }

    /// D3.
    #[test]
    fn every_call_is_one_call_to_the_store_inside() {
        forwards(&Inspect::new(Shelf::<str, String>::new(), |_| ()), |store| &store.inner, &[]);
    }
}
