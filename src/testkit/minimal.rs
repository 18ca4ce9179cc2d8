//! A store without its overrides.

use std::future::Future;

use crate::entry::Entry;
use crate::error::Result;
use crate::store::{SetOutcome, Store};

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
