//! A store behind `&`, `Box` or `Arc` is a store.

use std::future::Future;
use std::sync::Arc;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{ClearPrefix, Evict, InvalidateTags, SetOutcome, Store};
use crate::time::Timestamp;
use crate::weigh::Weigher;

macro_rules! forward {
    ($($pointer:ty),*) => { $(
        #[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every stack behind a pointer")]
        impl<S: Store> Store for $pointer {
            type Key = S::Key;
            type Value = S::Value;

            fn get(&self, key: &S::Key) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
                (**self).get(key)
            }

            fn set(
                &self,
                key: &S::Key,
                entry: Entry<S::Value>,
            ) -> impl Future<Output = Result<SetOutcome>> + Send {
                (**self).set(key, entry)
            }

            fn renew(
                &self,
                key: &S::Key,
                entry: Entry<S::Value>,
            ) -> impl Future<Output = Result<SetOutcome>> + Send {
                (**self).renew(key, entry)
            }

            fn remove(&self, key: &S::Key) -> impl Future<Output = Result<()>> + Send {
                (**self).remove(key)
            }

            fn clear(&self) -> impl Future<Output = Result<()>> + Send {
                (**self).clear()
            }

            fn get_at(
                &self,
                key: &S::Key,
                now: Timestamp,
            ) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
                (**self).get_at(key, now)
            }

            fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
                (**self).peek_with(key, read)
            }

            fn get_many(
                &self,
                keys: &[&S::Key],
                now: Timestamp,
            ) -> impl Future<Output = Vec<Result<Option<Entry<S::Value>>>>> + Send {
                (**self).get_many(keys, now)
            }

            fn set_many(
                &self,
                entries: &[(&S::Key, Entry<S::Value>)],
            ) -> impl Future<Output = Vec<Result<SetOutcome>>> + Send {
                (**self).set_many(entries)
            }

            fn remove_many(&self, keys: &[&S::Key]) -> impl Future<Output = Vec<Result<()>>> + Send {
                (**self).remove_many(keys)
            }

            fn len(&self) -> Option<u64> {
                (**self).len()
            }

            fn weight(&self) -> Option<u64> {
                (**self).weight()
            }

            fn flush(&self) -> impl Future<Output = Result<()>> + Send {
                (**self).flush()
            }

            fn describe(&self) -> Description {
                (**self).describe()
            }
        }

        impl<S: InvalidateTags> InvalidateTags for $pointer {
            fn remove_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
                (**self).remove_tags(tags, at)
            }

            fn expire_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
                (**self).expire_tags(tags, at)
            }
        }

        impl<S: ClearPrefix> ClearPrefix for $pointer {
            fn clear_prefix(&self, prefix: &str) -> impl Future<Output = Result<()>> + Send {
                (**self).clear_prefix(prefix)
            }
        }
    )* };
}

forward!(&S, Box<S>, Arc<S>);

/// Only a box: `weighed_by` takes the store by value, and what is behind `&` or `Arc` may have other
/// owners, who hold it unweighed.
impl<S: Evict> Evict for Box<S> {
    fn weighed_by(self, weigher: Weigher<S::Key, S::Value>) -> Self {
        Self::new((*self).weighed_by(weigher))
    }

    fn weigh(&self, key: &S::Key, entry: &Entry<S::Value>) -> u64 {
        (**self).weigh(key, entry)
    }

    fn evict(&self) -> bool {
        (**self).evict()
    }
}

#[cfg(test)]
mod tests {
    use crate::adapters::ByteLimited;
    use crate::entry::{Entry, Lifetime};
    use crate::memory::Memory;
    use crate::store::{Refusal, SetOutcome, Store};
    use crate::tests::ready;
    use crate::time::Timestamp;
    use crate::weigh::Weigher;

    /// S10, D2: a box takes the capability along.
    #[test]
    fn a_boxed_store_is_weighed_and_gives_up_entries() {
        let boxed = Box::new(Memory::<u64, u64>::new(100));
        let store = ByteLimited::weighed(boxed, 10, Weigher::new(|_, value| *value));
        let set = |key: u64, weight| {
            ready(store.set(&key, Entry::new(weight, Lifetime::forever(Timestamp::EPOCH)))).unwrap()
        };
        assert_eq!((set(1, 6), store.weight()), (SetOutcome::Stored, Some(6)));
        assert_eq!((set(2, 7), store.weight()), (SetOutcome::Stored, Some(7)), "the first one went");
        assert_eq!(set(3, 11), SetOutcome::Refused(Refusal::TooLarge));
    }
}
