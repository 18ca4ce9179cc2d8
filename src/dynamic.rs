//! A store whose type is forgotten: the one place where a call is boxed.

use std::fmt;

use async_trait::async_trait;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::store::{SetOutcome, Store};
use crate::time::Timestamp;

/// The object-safe mirror of [`Store`]. Implemented by every store; implement [`Store`] instead.
#[async_trait]
trait DynStore<K: Key + ?Sized, V: Value>: Send + Sync {
    async fn get(&self, key: &K) -> Result<Option<Entry<V>>>;
    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome>;
    async fn renew(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome>;
    async fn remove(&self, key: &K) -> Result<()>;
    async fn clear(&self) -> Result<()>;
    async fn get_at(&self, key: &K, now: Timestamp) -> Result<Option<Entry<V>>>;
    fn peek_with(&self, key: &K, read: &mut dyn FnMut(&Entry<V>));
    async fn get_many(&self, keys: &[&K], now: Timestamp) -> Vec<Result<Option<Entry<V>>>>;
    async fn set_many(&self, entries: &[(&K, Entry<V>)]) -> Vec<Result<SetOutcome>>;
    async fn remove_many(&self, keys: &[&K]) -> Vec<Result<()>>;
    fn len(&self) -> Option<u64>;
    fn weight(&self) -> Option<u64>;
    async fn flush(&self) -> Result<()>;
    fn describe(&self) -> Description;
}

#[async_trait]
impl<S: Store> DynStore<S::Key, S::Value> for S {
    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        Store::get(self, key).await
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        Store::set(self, key, entry).await
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        Store::renew(self, key, entry).await
    }

    async fn remove(&self, key: &S::Key) -> Result<()> {
        Store::remove(self, key).await
    }

    async fn clear(&self) -> Result<()> {
        Store::clear(self).await
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        Store::get_at(self, key, now).await
    }

    fn peek_with(&self, key: &S::Key, read: &mut dyn FnMut(&Entry<S::Value>)) {
        Store::peek_with(self, key, read);
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        Store::get_many(self, keys, now).await
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        Store::set_many(self, entries).await
    }

    async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        Store::remove_many(self, keys).await
    }

    fn len(&self) -> Option<u64> {
        Store::len(self)
    }

    fn weight(&self) -> Option<u64> {
        Store::weight(self)
    }

    async fn flush(&self) -> Result<()> {
        Store::flush(self).await
    }

    fn describe(&self) -> Description {
        Store::describe(self)
    }
}

/// A store of any type behind one pointer. See [`boxed`](crate::StoreExt::boxed).
#[must_use = "a store does nothing until it is asked"]
pub struct BoxStore<K: ?Sized, V>(Box<dyn DynStore<K, V>>);

impl<K: Key + ?Sized, V: Value> BoxStore<K, V> {
    /// Forgets the type of `store`.
    pub fn new(store: impl Store<Key = K, Value = V> + 'static) -> Self {
        Self(Box::new(store))
    }
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every boxed stack")]
impl<K: Key + ?Sized, V: Value> Store for BoxStore<K, V> {
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        self.0.set(key, entry).await
    }

    async fn renew(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        self.0.renew(key, entry).await
    }

    async fn remove(&self, key: &K) -> Result<()> {
        self.0.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.0.clear().await
    }

    async fn get_at(&self, key: &K, now: Timestamp) -> Result<Option<Entry<V>>> {
        self.0.get_at(key, now).await
    }

    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        let mut read = Some(read);
        let mut answer = None;
        self.0.peek_with(key, &mut |entry| answer = read.take().map(|read| read(entry)));
        answer
    }

    async fn get_many(&self, keys: &[&K], now: Timestamp) -> Vec<Result<Option<Entry<V>>>> {
        self.0.get_many(keys, now).await
    }

    async fn set_many(&self, entries: &[(&K, Entry<V>)]) -> Vec<Result<SetOutcome>> {
        self.0.set_many(entries).await
    }

    async fn remove_many(&self, keys: &[&K]) -> Vec<Result<()>> {
        self.0.remove_many(keys).await
    }

    fn len(&self) -> Option<u64> {
        self.0.len()
    }

    fn weight(&self) -> Option<u64> {
        self.0.weight()
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }
}

impl<K: ?Sized, V> fmt::Debug for BoxStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxStore")
    }
}
