//! The simplest store that keeps every law: a map behind a lock.

use std::collections::HashMap;
use std::fmt;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::store::{Evict, SetOutcome, Store};
use crate::sync::Mutex;
use crate::weigh::Weigher;

/// Holds everything, forgets nothing of its own accord, and each call takes effect at one instant.
#[must_use = "a store does nothing until it is asked"]
pub struct Model<K: ?Sized + ToOwned, V> {
    entries: Mutex<HashMap<K::Owned, Entry<V>>>,
    peeks: bool,
    weigher: Option<Weigher<K, V>>,
}

impl<K: Key + ?Sized, V: Value> Model<K, V> {
    /// An empty one that answers `peek_with`, as a memory tier does.
    pub fn new() -> Self {
        Self { entries: Mutex::default(), peeks: true, weigher: None }
    }

    /// An empty one that has to be waited for, as a remote tier has.
    pub fn remote() -> Self {
        Self { peeks: false, ..Self::new() }
    }

    /// Forgets the entry of `key` behind everybody's back, as an eviction does.
    pub fn forget(&self, key: &K) {
        self.entries.lock().remove(key);
    }

    /// The entry of `key`, past every wrapper.
    pub fn held(&self, key: &K) -> Option<Entry<V>> {
        self.entries.lock().get(key).cloned()
    }

    /// Puts an entry in place, past every wrapper.
    pub fn plant(&self, key: &K, entry: Entry<V>) {
        self.entries.lock().insert(key.to_owned(), entry);
    }
}

impl<K: Key + ?Sized, V: Value> Default for Model<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key + ?Sized, V: Value> Store for Model<K, V> {
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        Ok(self.held(key))
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        self.plant(key, entry);
        Ok(SetOutcome::Stored)
    }

    async fn remove(&self, key: &K) -> Result<()> {
        self.forget(key);
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.entries.lock().clear();
        Ok(())
    }

    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        if self.peeks { self.entries.lock().get(key).map(read) } else { None }
    }

    fn len(&self) -> Option<u64> {
        Some(self.entries.lock().len() as u64)
    }

    fn weight(&self) -> Option<u64> {
        let weigher = self.weigher.as_ref()?;
        let entries = self.entries.lock();
        Some(
            entries
                .iter()
                .map(|(key, entry)| weigher.weigh(std::borrow::Borrow::borrow(key), entry.value()))
                .sum(),
        )
    }

    fn describe(&self) -> Description {
        Description::new("model").holding(self.len(), self.weight())
    }
}

impl<K: Key + ?Sized, V: Value> Evict for Model<K, V> {
    fn weighed_by(mut self, weigher: Weigher<K, V>) -> Self {
        self.weigher = Some(weigher);
        self
    }

    fn weigh(&self, key: &K, entry: &Entry<V>) -> u64 {
        self.weigher.as_ref().map_or(0, |weigher| weigher.weigh(key, entry.value()))
    }

    fn evict(&self) -> bool {
        let mut entries = self.entries.lock();
        let victim = entries.keys().next().cloned();
        victim.is_some_and(|key| entries.remove::<K::Owned>(&key).is_some())
    }
}

impl<K: Key + ?Sized, V: Value> fmt::Debug for Model<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("len", &self.entries.lock().len()).finish_non_exhaustive()
    }
}
