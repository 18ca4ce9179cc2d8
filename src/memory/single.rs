//! Room for one entry.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::memory::removal::{Cause, Listener};
use crate::store::{ClearPrefix, SetOutcome, Store};
use crate::weigh::Weigher;

/// One entry: a configuration, a list of currencies, the answer of a function without arguments.
///
/// Readers take no lock and never wait, for writers neither. The key is kept and compared, so a `Single`
/// is a store like any other: another key's entry takes the place of this one. Use `()` as the key where
/// there is only one.
///
/// ```
/// use larder::Single;
///
/// let rates = Single::<(), Vec<f64>>::new();
/// # drop(rates);
/// ```
///
/// # Cost
///
/// A hit is one guarded load (`arc-swap`) and one comparison of keys; it allocates nothing, but for one
/// node that the first read of each thread leaves behind for all later ones. `set` allocates the entry's
/// place. Memory: `size_of::<K::Owned>() + size_of::<V>()` and what these own, 40 bytes for the rest of
/// the [`Entry`], and 16 for the counters in front, while a replaced entry lives on until its last
/// reader is done.
#[must_use = "a store does nothing until it is asked"]
pub struct Single<K: Key + ?Sized, V> {
    held: ArcSwapOption<Held<K, V>>,
    weigher: Option<Weigher<K, V>>,
    listener: Option<Listener<K, V>>,
}

struct Held<K: Key + ?Sized, V> {
    key: K::Owned,
    entry: Entry<V>,
}

impl<K: Key + ?Sized, V> Held<K, V> {
    fn is_of(&self, key: &K) -> bool {
        self.key.borrow() == key
    }
}

impl<K: Key + ?Sized, V: Value> Single<K, V> {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self { held: ArcSwapOption::const_empty(), weigher: None, listener: None }
    }

    /// Weighs the entry whenever the [`weight`](Store::weight) is asked for. Without it there is none.
    pub fn weighed_by(mut self, weigher: Weigher<K, V>) -> Self {
        self.weigher = Some(weigher);
        self
    }

    /// Calls `listener` for each entry that leaves the store, with the cause, once, in the call that
    /// made it leave: it may call the store. An entry that makes room for another key's is
    /// [`Evicted`](Cause::Evicted). If it panics, the store is as it would be without it, and the panic
    /// goes to the caller. The last listener given is the one that is called.
    pub fn on_removal(mut self, listener: impl Fn(&K, &Entry<V>, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Takes the entry out if its key passes, against any number of other writers.
    fn take(&self, pass: impl Fn(&K) -> bool, cause: Cause) {
        let mut held = self.held.load();
        while let Some(current) = held.as_ref().filter(|current| pass(current.key.borrow())) {
            let before = self.held.compare_and_swap(current, None);
            if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, current)) {
                self.report(current, cause);
                return;
            }
            held = before;
        }
    }

    fn report(&self, held: &Held<K, V>, cause: Cause) {
        if let Some(listener) = &self.listener {
            listener(held.key.borrow(), &held.entry, cause);
        }
    }
}

impl<K: Key + ?Sized, V: Value> Store for Single<K, V> {
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        Ok(self.peek_with(key, Entry::clone))
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        let held = Arc::new(Held { key: key.to_owned(), entry });
        if let Some(before) = self.held.swap(Some(held)) {
            self.report(&before, if before.is_of(key) { Cause::Replaced } else { Cause::Evicted });
        }
        Ok(SetOutcome::Stored)
    }

    async fn remove(&self, key: &K) -> Result<()> {
        self.take(|held| held == key, Cause::Removed);
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.take(|_| true, Cause::Cleared);
        Ok(())
    }

    #[inline]
    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        self.held.load().as_ref().filter(|held| held.is_of(key)).map(|held| read(&held.entry))
    }

    fn len(&self) -> Option<u64> {
        Some(u64::from(self.held.load().is_some()))
    }

    fn weight(&self) -> Option<u64> {
        let weigher = self.weigher.as_ref()?;
        let held = self.held.load();
        Some(held.as_ref().map_or(0, |held| weigher.weigh(held.key.borrow(), held.entry.value())))
    }

    fn describe(&self) -> Description {
        Description::new("single").holding(self.len(), self.weight())
    }
}

impl<V: Value> ClearPrefix for Single<str, V> {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        self.take(|key| key.starts_with(prefix), Cause::Cleared);
        Ok(())
    }
}

impl<K: Key + ?Sized, V: Value> Default for Single<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key + ?Sized, V: Value> fmt::Debug for Single<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Single").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Lifetime;
    use crate::time::Timestamp;

    #[tokio::test]
    async fn s9_the_weight_is_that_of_what_is_held() {
        let single = Single::<str, String>::new().weighed_by(Weigher::of_type());
        assert_eq!(single.weight(), Some(0));
        let entry = Entry::new("abc".to_owned(), Lifetime::forever(Timestamp::EPOCH));
        single.set("k", entry).await.unwrap();
        assert_eq!(single.weight(), Some(24 + 1 + 24 + 3));
        assert_eq!(Single::<str, String>::new().weight(), None);
    }
}
