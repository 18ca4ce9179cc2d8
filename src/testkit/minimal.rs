//! A store without its overrides.

use std::future::Future;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::time::Timestamp;

/// Forwards the four required methods of a store, so that every other one is its default.
///
/// What a store overrides is faster than the default and never different (laws S9, S11): play one history
/// on a store and on a `Minimal` of an equal store, and compare the answers.
#[derive(Clone, Copy, Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Minimal<S>(pub S);

impl<S: Store> Store for Minimal<S> {
    type Key = S::Key;
    type Value = S::Value;

    fn get(&self, key: &S::Key) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.0.get(key)
    }

    fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> impl Future<Output = Result<SetOutcome>> + Send {
        self.0.set(key, entry)
    }

    fn remove(&self, key: &S::Key) -> impl Future<Output = Result<()>> + Send {
        self.0.remove(key)
    }

    fn clear(&self) -> impl Future<Output = Result<()>> + Send {
        self.0.clear()
    }
}

/// The store behind `&`: every call goes through the forwarder of the reference.
#[derive(Clone, Copy, Debug)]
#[must_use = "a store does nothing until it is asked"]
pub(crate) struct Reference<S>(pub(crate) S);

#[deny(clippy::missing_trait_methods, reason = "a method that is not forwarded is not tried")]
impl<S: Store> Store for Reference<S> {
    type Key = S::Key;
    type Value = S::Value;

    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        let store = &self.0;
        <&S as Store>::get(&store, key).await
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let store = &self.0;
        <&S as Store>::set(&store, key, entry).await
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let store = &self.0;
        <&S as Store>::renew(&store, key, entry).await
    }

    async fn remove(&self, key: &S::Key) -> Result<()> {
        let store = &self.0;
        <&S as Store>::remove(&store, key).await
    }

    async fn clear(&self) -> Result<()> {
        let store = &self.0;
        <&S as Store>::clear(&store).await
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        let store = &self.0;
        <&S as Store>::get_at(&store, key, now).await
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        <&S as Store>::peek_with(&&self.0, key, read)
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        let store = &self.0;
        <&S as Store>::get_many(&store, keys, now).await
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let store = &self.0;
        <&S as Store>::set_many(&store, entries).await
    }

    async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        let store = &self.0;
        <&S as Store>::remove_many(&store, keys).await
    }

    fn len(&self) -> Option<u64> {
        <&S as Store>::len(&&self.0)
    }

    fn weight(&self) -> Option<u64> {
        <&S as Store>::weight(&&self.0)
    }

    async fn flush(&self) -> Result<()> {
        let store = &self.0;
        <&S as Store>::flush(&store).await
    }

    fn describe(&self) -> Description {
        <&S as Store>::describe(&&self.0)
    }
}
