//! A shorter life for the copies of one tier.

use std::time::Duration;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{ClearPrefix, Evict, InvalidateTags, SetOutcome, Store};
use crate::time::{AnyClock, Clock, Timestamp};
use crate::weigh::Weigher;

/// A store that serves its copy of an entry for a limited time. See
/// [`fresh_for_at_most`](crate::StoreExt::fresh_for_at_most).
#[derive(Clone, Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct FreshForAtMost<S> {
    inner: S,
    limit: Duration,
    clock: AnyClock,
}

impl<S> FreshForAtMost<S> {
    /// Entries are fresh for `limit` at most after they entered `inner`.
    pub fn new(inner: S, limit: Duration) -> Self {
        Self { inner, limit, clock: AnyClock::default() }
    }

    /// Asks `clock` for the time instead of the system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = AnyClock::of(clock);
        self
    }

    fn cap(&self) -> Timestamp {
        self.clock.now().saturating_add(self.limit)
    }
}

fn capped<V>(entry: Entry<V>, cap: Timestamp) -> Entry<V> {
    let lifetime = entry.lifetime().capped(cap);
    entry.with_lifetime(lifetime)
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every capped stack")]
impl<S: Store> Store for FreshForAtMost<S> {
    type Key = S::Key;
    type Value = S::Value;

    fn get(&self, key: &S::Key) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.inner.get(key)
    }

    fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> impl Future<Output = Result<SetOutcome>> + Send {
        self.inner.set(key, capped(entry, self.cap()))
    }

    fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> impl Future<Output = Result<SetOutcome>> + Send {
        self.inner.renew(key, capped(entry, self.cap()))
    }

    fn remove(&self, key: &S::Key) -> impl Future<Output = Result<()>> + Send {
        self.inner.remove(key)
    }

    fn clear(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear()
    }

    fn get_at(
        &self,
        key: &S::Key,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.inner.get_at(key, now)
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        self.inner.peek_with(key, read)
    }

    fn get_many(
        &self,
        keys: &[&S::Key],
        now: Timestamp,
    ) -> impl Future<Output = Vec<Result<Option<Entry<S::Value>>>>> + Send {
        self.inner.get_many(keys, now)
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let cap = self.cap();
        let entries: Vec<(&S::Key, Entry<S::Value>)> =
            entries.iter().map(|(key, entry)| (*key, capped(entry.clone(), cap))).collect();
        self.inner.set_many(&entries).await
    }

    fn remove_many(&self, keys: &[&S::Key]) -> impl Future<Output = Vec<Result<()>>> + Send {
        self.inner.remove_many(keys)
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn weight(&self) -> Option<u64> {
        self.inner.weight()
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.flush()
    }

    fn describe(&self) -> Description {
        Description::new("fresh_for_at_most")
            .with("", format!("{:?}", self.limit))
            .over(self.inner.describe())
    }
}

impl<S: Evict> Evict for FreshForAtMost<S> {
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

impl<S: InvalidateTags> InvalidateTags for FreshForAtMost<S> {
    fn remove_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.inner.remove_tags(tags, at)
    }

    fn expire_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.inner.expire_tags(tags, at)
    }
}

impl<S: ClearPrefix> ClearPrefix for FreshForAtMost<S> {
    fn clear_prefix(&self, prefix: &str) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear_prefix(prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::testing::{Shelf, alike, bare, entry, forwards, history, now, play};
    use crate::time::ManualClock;

    fn at(nanos: u64) -> ManualClock {
        ManualClock::new(Timestamp::from_nanos(nanos))
    }

    proptest! {
        /// D1: a limit beyond every deadline is no limit.
        #[test]
        fn a_limit_that_nothing_reaches_changes_nothing(history in history(), start: u64) {
            let capped = |history: &[_]| {
                play(&FreshForAtMost::new(Shelf::new(), Duration::MAX).clock(at(start)), history)
            };
            alike(bare, capped, &history)?;
        }

        /// C9: served for less, never for longer, and the windows keep their length.
        #[test]
        fn a_copy_is_fresh_for_the_limit_at_most(entry in entry(), start in 0..200u64, limit in 0..100u64) {
            let cap = Timestamp::from_nanos(start + limit);
            let store = FreshForAtMost::new(Shelf::<str, String>::new(), Duration::from_nanos(limit))
                .clock(at(start));
            now(store.set("one", entry.clone())).unwrap();
            now(store.set_many(&[("many", entry.clone())]));
            for key in ["one", "many"] {
                let copy = now(store.get(key)).unwrap().unwrap();
                prop_assert_eq!(copy.lifetime(), entry.lifetime().capped(cap));
                prop_assert!(copy.lifetime().fresh_until() <= cap.max(entry.created_at()));
                prop_assert_eq!(copy.with_lifetime(entry.lifetime()), entry.clone());
            }
        }
    }

    /// D3.
    #[test]
    fn every_call_is_one_call_to_the_store_inside() {
        let store = FreshForAtMost::new(Shelf::<str, String>::new(), Duration::from_secs(5));
        forwards(&store, |store| &store.inner, &[]);
        assert_eq!(store.describe().to_string().lines().next(), Some("fresh_for_at_most (5s)"));
    }
}
