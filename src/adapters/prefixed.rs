//! A part of a store, by the beginning of its keys.

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{ClearPrefix, SetOutcome, Store};
use crate::time::Timestamp;

/// The part of a store whose keys begin with a prefix. See [`prefixed`](crate::StoreExt::prefixed).
#[derive(Clone, Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Prefixed<S> {
    inner: S,
    prefix: Box<str>,
}

impl<S> Prefixed<S> {
    /// The part of `inner` whose keys begin with `prefix`.
    pub fn new(inner: S, prefix: impl Into<String>) -> Self {
        Self { inner, prefix: prefix.into().into_boxed_str() }
    }

    fn full(&self, key: &str) -> String {
        [&*self.prefix, key].concat()
    }
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every prefixed stack")]
impl<S: ClearPrefix> Store for Prefixed<S> {
    type Key = str;
    type Value = S::Value;

    async fn get(&self, key: &str) -> Result<Option<Entry<S::Value>>> {
        self.inner.get(&self.full(key)).await
    }

    async fn set(&self, key: &str, entry: Entry<S::Value>) -> Result<SetOutcome> {
        self.inner.set(&self.full(key), entry).await
    }

    async fn renew(&self, key: &str, entry: Entry<S::Value>) -> Result<SetOutcome> {
        self.inner.renew(&self.full(key), entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.inner.remove(&self.full(key)).await
    }

    fn clear(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear_prefix(&self.prefix)
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        self.inner.get_at(&self.full(key), now).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        // Two sizes, because the buffer is zeroed on every call.
        match self.prefix.len() + key.len() {
            0..=96 => with_joined::<96, _>(&self.prefix, key, |key| self.inner.peek_with(key, read)),
            97..=1024 => with_joined::<1024, _>(&self.prefix, key, |key| self.inner.peek_with(key, read)),
            _ => self.inner.peek_with(&self.full(key), read),
        }
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        let keys: Vec<String> = keys.iter().map(|key| self.full(key)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.inner.get_many(&keys, now).await
    }

    async fn set_many(&self, entries: &[(&str, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let keys: Vec<String> = entries.iter().map(|(key, _)| self.full(key)).collect();
        let entries: Vec<(&str, Entry<S::Value>)> =
            keys.iter().zip(entries).map(|(key, (_, entry))| (key.as_str(), entry.clone())).collect();
        self.inner.set_many(&entries).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        let keys: Vec<String> = keys.iter().map(|key| self.full(key)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.inner.remove_many(&keys).await
    }

    /// Unknown, unless the prefix is empty: what the store inside counts are its neighbours' entries too.
    fn len(&self) -> Option<u64> {
        if self.prefix.is_empty() { self.inner.len() } else { None }
    }

    /// Unknown, unless the prefix is empty.
    fn weight(&self) -> Option<u64> {
        if self.prefix.is_empty() { self.inner.weight() } else { None }
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.flush()
    }

    fn describe(&self) -> Description {
        Description::new("prefixed").with("", format!("{:?}", self.prefix)).over(self.inner.describe())
    }
}

impl<S: ClearPrefix> ClearPrefix for Prefixed<S> {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        self.inner.clear_prefix(&self.full(prefix)).await
    }
}

/// Joins prefix and key on the stack. They fit: the caller looked.
fn with_joined<const N: usize, R>(
    prefix: &str,
    key: &str,
    read: impl FnOnce(&str) -> Option<R>,
) -> Option<R> {
    let mut joined = [0; N];
    let (head, tail) = joined.get_mut(..prefix.len() + key.len())?.split_at_mut(prefix.len());
    head.copy_from_slice(prefix.as_bytes());
    tail.copy_from_slice(key.as_bytes());
    read(std::str::from_utf8(joined.get(..prefix.len() + key.len())?).ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::adapters::testing::{Call, Shelf, alike, bare, entry, forwards, history, key, now, play};

    /// What a prefixed store cannot tell.
    fn knows(call: &Call) -> bool {
        !matches!(call, Call::Len | Call::Weight)
    }

    fn prefix() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "a:", "ab", "*", "ü"]).prop_map(str::to_owned)
    }

    proptest! {
        /// D1, S11.
        #[test]
        fn a_part_answers_like_a_whole(history in history(), prefix in prefix()) {
            let history: Vec<_> =
                history.into_iter().filter(|call| prefix.is_empty() || knows(call)).collect();
            let prefixed = || Prefixed::new(Shelf::new(), prefix.clone());
            alike(bare, |history| play(&prefixed(), history), &history)?;
        }

        /// S5, S6: whatever happens in one scope, the entries of the others stay.
        #[test]
        fn neighbours_stay(history in history(), stay in prop::collection::vec((key(), entry()), 1..8)) {
            let shared = Arc::new(Shelf::<str, String>::new());
            let (ours, theirs) = (Prefixed::new(&shared, "our:"), Prefixed::new(&shared, "their:"));
            for (key, entry) in &stay {
                now(theirs.set(key, entry.clone())).unwrap();
            }
            let before: Vec<_> = stay.iter().map(|(key, _)| now(theirs.get(key)).unwrap()).collect();
            play(&ours, &history);
            // S9: what the store inside counts is not what this part holds.
            prop_assert_eq!((ours.len(), ours.weight()), (None, None));
            now(ours.clear()).unwrap();
            let after: Vec<_> = stay.iter().map(|(key, _)| now(theirs.get(key)).unwrap()).collect();
            prop_assert_eq!(before, after);
        }

        #[test]
        fn two_prefixes_are_one(history in history(), a in prefix(), b in prefix(), cut in prefix()) {
            let once = Prefixed::new(Shelf::new(), format!("{a}{b}"));
            let twice = Prefixed::new(Prefixed::new(Shelf::new(), a), b);
            let history: Vec<_> = history.into_iter().filter(knows).collect();
            prop_assert_eq!(play(&once, &history), play(&twice, &history));
            now(once.clear_prefix(&cut)).unwrap();
            now(twice.clear_prefix(&cut)).unwrap();
            let all = |store: &Shelf<str, String>| {
                let keys = history.iter().filter_map(|call| match call {
                    Call::Set(key, _) => Some(now(store.get(&once.full(key))).unwrap()),
                    _ => None,
                });
                keys.collect::<Vec<_>>()
            };
            prop_assert_eq!(all(&once.inner), all(&twice.inner.inner));
        }

        /// S9: `peek` answers what `get` would, on the stack and off it.
        #[test]
        fn long_keys_are_peeked_too(length in 0..3000usize, entry in entry()) {
            let store = Prefixed::new(Shelf::<str, String>::new(), "users:");
            let key = "ü".repeat(length / 2);
            now(store.set(&key, entry.clone())).unwrap();
            prop_assert_eq!(store.peek_with(&key, Clone::clone), Some(entry));
            prop_assert_eq!(store.peek_with(&(key + "x"), |_| ()), None);
        }
    }

    /// D3.
    #[test]
    fn every_call_is_one_call_to_the_store_inside() {
        let store = Prefixed::new(Shelf::<str, String>::new(), "a:");
        forwards(&store, |store| &store.inner, &["clear", "len", "weight"]);
        store.inner.calls();
        now(store.clear()).unwrap();
        assert_eq!(store.inner.calls(), ["clear_prefix"]);
        forwards(&Prefixed::new(Shelf::<str, String>::new(), ""), |store| &store.inner, &["clear"]);
    }
}
