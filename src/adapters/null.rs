//! A store that keeps nothing.

use std::fmt;
use std::marker::PhantomData;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::key::{Key, Value};
use crate::store::{ClearPrefix, Evict, Refusal, SetOutcome, Store};
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// A store that keeps nothing: every read is a miss, every write is refused with
/// [`Refusal::KeepsNothing`]. In a chain it is as if it were not there.
///
/// For a tier that a setting turns off, and for tests.
///
/// ```
/// use larder::{BoxStore, Memory, Null, StoreExt};
///
/// fn tier(entries: usize) -> BoxStore<str, String> {
///     match entries {
///         0 => Null::new().boxed(),
///         _ => Memory::<str, String>::new(entries).boxed(),
///     }
/// }
/// # assert_eq!(tier(0).describe().name(), "null");
/// # assert_eq!(tier(1).describe().name(), "memory");
/// # use larder::Store;
/// ```
#[must_use = "a store does nothing until it is asked"]
pub struct Null<K: ?Sized, V>(PhantomData<fn(&K) -> V>);

impl<K: ?Sized, V> Null<K, V> {
    /// A store that keeps nothing.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

#[deny(clippy::missing_trait_methods, reason = "a default does more than nothing")]
impl<K: Key + ?Sized, V: Value> Store for Null<K, V> {
    type Key = K;
    type Value = V;

    async fn get(&self, _: &K) -> Result<Option<Entry<V>>> {
        Ok(None)
    }

    async fn set(&self, _: &K, _: Entry<V>) -> Result<SetOutcome> {
        Ok(SetOutcome::Refused(Refusal::KeepsNothing))
    }

    async fn renew(&self, _: &K, _: Entry<V>) -> Result<SetOutcome> {
        Ok(SetOutcome::Refused(Refusal::KeepsNothing))
    }

    async fn remove(&self, _: &K) -> Result<()> {
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        Ok(())
    }

    async fn get_at(&self, _: &K, _: Timestamp) -> Result<Option<Entry<V>>> {
        Ok(None)
    }

    fn peek_with<R>(&self, _: &K, _: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        None
    }

    async fn get_many(&self, keys: &[&K], _: Timestamp) -> Vec<Result<Option<Entry<V>>>> {
        keys.iter().map(|_| Ok(None)).collect()
    }

    async fn set_many(&self, entries: &[(&K, Entry<V>)]) -> Vec<Result<SetOutcome>> {
        entries.iter().map(|_| Ok(SetOutcome::Refused(Refusal::KeepsNothing))).collect()
    }

    async fn remove_many(&self, keys: &[&K]) -> Vec<Result<()>> {
        keys.iter().map(|_| Ok(())).collect()
    }

    fn len(&self) -> Option<u64> {
        Some(0)
    }

    fn weight(&self) -> Option<u64> {
        Some(0)
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> Description {
        Description::new("null")
    }
}

impl<K: Key + ?Sized, V: Value> Evict for Null<K, V> {
    fn weighed_by(self, _: Weigher<K, V>) -> Self {
        self
    }

    fn weigh(&self, _: &K, _: &Entry<V>) -> u64 {
        0
    }

    fn evict(&self) -> bool {
        false
    }
}

impl<V: Value> ClearPrefix for Null<str, V> {
    async fn clear_prefix(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl<K: ?Sized, V> Clone for Null<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized, V> Copy for Null<K, V> {}

impl<K: ?Sized, V> Default for Null<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: ?Sized, V> fmt::Debug for Null<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Null")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::testing::{history, now, play};

    proptest! {
        #[test]
        fn nothing_is_ever_kept(history in history()) {
            let store = Null::<str, String>::new();
            play(&store, &history);
            for key in ["", "a", "a:b"] {
                prop_assert_eq!(now(store.get(key)).unwrap(), None);
                prop_assert_eq!(store.peek_with(key, |_| ()), None);
            }
            prop_assert_eq!((store.len(), store.weight()), (Some(0), Some(0)));
        }
    }
}
