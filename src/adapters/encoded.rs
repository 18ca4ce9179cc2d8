//! A typed store made of a store of bytes.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::next_answer;
use crate::codec::{Codec, KeyCodec, Verbatim};
use crate::describe::{Description, grouped};
use crate::entry::Entry;
use crate::error::{Error, Operation, Result};
use crate::key::{Key, Value};
use crate::store::{ClearPrefix, InvalidateTags, SetOutcome, Store};
use crate::time::Timestamp;

/// A store of `V` under keys `K`, made of a store of bytes under text. See
/// [`encoded`](crate::StoreExt::encoded).
#[must_use = "a store does nothing until it is asked"]
pub struct Encoded<S, V, C, K: ?Sized = str, E = Verbatim> {
    inner: S,
    codec: C,
    keys: E,
    undecodable: AtomicU64,
    on_undecodable: Option<Box<OnUndecodable>>,
    typed: PhantomData<fn(&K) -> V>,
}

type OnUndecodable = dyn Fn(&str, &Error) + Send + Sync;

impl<S, V, C> Encoded<S, V, C> {
    /// Values through `codec`, keys as they are.
    pub const fn new(inner: S, codec: C) -> Self {
        Self {
            inner,
            codec,
            keys: Verbatim,
            undecodable: AtomicU64::new(0),
            on_undecodable: None,
            typed: PhantomData,
        }
    }

    /// The same store under keys of another type: `.keys::<u64, _>(Readable)`, or a closure
    /// `|id: &UserId| ..`. See [`KeyCodec`] for what a closure has to promise.
    pub fn keys<K: ?Sized, E: KeyCodec<K>>(self, keys: E) -> Encoded<S, V, C, K, E> {
        Encoded {
            inner: self.inner,
            codec: self.codec,
            keys,
            undecodable: self.undecodable,
            on_undecodable: self.on_undecodable,
            typed: PhantomData,
        }
    }
}

impl<S, V, C, K: ?Sized, E> Encoded<S, V, C, K, E> {
    /// Calls `notice` with the text of the key and the codec's error each time a value does not decode.
    pub fn on_undecodable(mut self, notice: impl Fn(&str, &Error) + Send + Sync + 'static) -> Self {
        self.on_undecodable = Some(Box::new(notice));
        self
    }

    /// How many reads found a value that did not decode, and were answered as a miss.
    pub fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    fn decode(&self, key: &str, entry: Entry<Bytes>) -> Option<Entry<V>>
    where
        C: Codec<V>,
    {
        let (bytes, rest) = entry.split();
        match self.codec.decode(&bytes) {
            Ok(value) => Some(rest.map(|()| value)),
            Err(error) => {
                self.undecodable.fetch_add(1, Ordering::Relaxed);
                if let Some(notice) = &self.on_undecodable {
                    notice(key, &error);
                }
                None
            }
        }
    }

    fn encode(&self, entry: Entry<V>) -> Result<Entry<Bytes>>
    where
        C: Codec<V>,
    {
        let (value, rest) = entry.split();
        let bytes = self.codec.encode(&value)?;
        Ok(rest.map(|()| bytes))
    }
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every encoded stack")]
impl<S, V, C, K, E> Store for Encoded<S, V, C, K, E>
where
    S: Store<Key = str, Value = Bytes>,
    V: Value,
    C: Codec<V>,
    K: Key + ?Sized,
    E: KeyCodec<K>,
{
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        let key = self.keys.encode(key)?;
        let found = self.inner.get(&key).await?;
        Ok(found.and_then(|entry| self.decode(&key, entry)))
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        let key = self.keys.encode(key)?;
        self.inner.set(&key, self.encode(entry)?).await
    }

    async fn renew(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        let key = self.keys.encode(key)?;
        self.inner.renew(&key, self.encode(entry)?).await
    }

    async fn remove(&self, key: &K) -> Result<()> {
        self.inner.remove(&self.keys.encode(key)?).await
    }

    fn clear(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear()
    }

    async fn get_at(&self, key: &K, now: Timestamp) -> Result<Option<Entry<V>>> {
        let key = self.keys.encode(key)?;
        let found = self.inner.get_at(&key, now).await?;
        Ok(found.and_then(|entry| self.decode(&key, entry)))
    }

    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        let key = self.keys.encode(key).ok()?;
        // Decoded outside, because the store inside may show its entry under a lock.
        let entry = self.inner.peek_with(&key, Entry::clone)?;
        self.decode(&key, entry).as_ref().map(read)
    }

    async fn get_many(&self, keys: &[&K], now: Timestamp) -> Vec<Result<Option<Entry<V>>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.keys.encode(key)).collect();
        let known: Vec<&str> = keys.iter().flatten().map(AsRef::as_ref).collect();
        let mut found = self.inner.get_many(&known, now).await.into_iter();
        let answer = |key: &Result<_>| {
            let key: &std::borrow::Cow<'_, str> = key.as_ref().map_err(Error::clone)?;
            let found = next_answer(&mut found, "encoded", Operation::Get)?;
            Ok(found.and_then(|entry| self.decode(key, entry)))
        };
        keys.iter().map(answer).collect()
    }

    async fn set_many(&self, entries: &[(&K, Entry<V>)]) -> Vec<Result<SetOutcome>> {
        let encode = |(key, entry): &(&K, Entry<V>)| {
            let bytes = self.codec.encode(entry.value())?;
            Ok((self.keys.encode(key)?.into_owned(), entry.map_ref(|_| bytes)))
        };
        let entries: Vec<Result<(String, Entry<Bytes>)>> = entries.iter().map(encode).collect();
        let fit: Vec<_> =
            entries.iter().flatten().map(|(key, entry)| (key.as_str(), entry.clone())).collect();
        let mut set = self.inner.set_many(&fit).await.into_iter();
        let answer = |entry: &Result<_>| {
            entry.as_ref().map_err(Error::clone)?;
            next_answer(&mut set, "encoded", Operation::Set)
        };
        entries.iter().map(answer).collect()
    }

    async fn remove_many(&self, keys: &[&K]) -> Vec<Result<()>> {
        let keys: Vec<_> = keys.iter().map(|key| self.keys.encode(key)).collect();
        let known: Vec<&str> = keys.iter().flatten().map(AsRef::as_ref).collect();
        let mut removed = self.inner.remove_many(&known).await.into_iter();
        let answer = |key: &Result<_>| {
            key.as_ref().map_err(Error::clone)?;
            next_answer(&mut removed, "encoded", Operation::Remove)
        };
        keys.iter().map(answer).collect()
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
        let description = Description::new("encoded").with("", self.codec.name());
        match self.undecodable() {
            0 => description,
            count => description.with("undecodable", grouped(count)),
        }
        .over(self.inner.describe())
    }
}

impl<S, V, C, K, E> InvalidateTags for Encoded<S, V, C, K, E>
where
    S: InvalidateTags<Key = str, Value = Bytes>,
    V: Value,
    C: Codec<V>,
    K: Key + ?Sized,
    E: KeyCodec<K>,
{
    fn remove_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.inner.remove_tags(tags, at)
    }

    fn expire_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.inner.expire_tags(tags, at)
    }
}

impl<S, V, C> ClearPrefix for Encoded<S, V, C>
where
    S: ClearPrefix<Key = str, Value = Bytes>,
    V: Value,
    C: Codec<V>,
{
    fn clear_prefix(&self, prefix: &str) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear_prefix(prefix)
    }
}

impl<S: fmt::Debug, V, C: fmt::Debug, K: ?Sized, E: fmt::Debug> fmt::Debug for Encoded<S, V, C, K, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("inner", &self.inner)
            .field("codec", &self.codec)
            .field("keys", &self.keys)
            .field("undecodable", &self.undecodable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::adapters::testing::{Shelf, alike, bare, forwards, history, now, play};
    use crate::codec::{Postcard, Raw, Readable, from_fns};
    use crate::entry::Lifetime;
    use crate::error::ErrorKind;
    use crate::sync::Mutex;

    fn entry<V>(value: V) -> Entry<V> {
        Entry::new(value, Lifetime::forever(Timestamp::EPOCH))
    }

    proptest! {
        /// D1, S1, S11.
        #[test]
        fn typed_and_untyped_stores_answer_alike(history in history()) {
            let encoded = || Encoded::new(Shelf::<str, Bytes>::new(), Postcard);
            alike(bare, |history| play(&encoded(), history), &history)?;
        }

        /// S6.
        #[test]
        fn different_keys_never_share_an_entry(
            keys in prop::collection::hash_set(any::<(String, u8)>(), 0..40)
        ) {
            let store = Encoded::new(Shelf::<str, Bytes>::new(), Postcard).keys::<(String, u8), _>(Readable);
            for key in &keys {
                now(store.set(key, entry(key.clone()))).unwrap();
            }
            for key in &keys {
                let found = now(store.get(key)).unwrap().unwrap();
                prop_assert_eq!(found.value(), key);
            }
        }
    }

    /// D3.
    #[test]
    fn every_call_is_one_call_to_the_store_inside() {
        forwards(&Encoded::new(Shelf::<str, Bytes>::new(), Postcard), |store| &store.inner, &[]);
    }

    /// S7: a deploy that changes a struct costs a recomputation and not an outage.
    #[test]
    fn what_does_not_decode_is_a_counted_miss_until_it_is_overwritten() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notices = Arc::clone(&seen);
        let store = Encoded::new(Shelf::<str, Bytes>::new(), Postcard)
            .on_undecodable(move |key, error| notices.lock().push((key.to_owned(), error.kind())));
        now(store.inner.set("a", entry(Bytes::from_static(b"\xff\xff")))).unwrap();

        assert_eq!(now(store.get("a")).unwrap(), None);
        assert_eq!(now(store.get_at("a", Timestamp::EPOCH)).unwrap(), None);
        assert_eq!(store.peek_with("a", |_| ()), None);
        assert!(
            now(store.get_many(&["a", "b"], Timestamp::EPOCH)).into_iter().all(|got| got.unwrap().is_none())
        );
        assert_eq!(store.undecodable(), 4);
        assert_eq!(store.describe().parameter("undecodable"), Some("4"));
        assert_eq!(*seen.lock(), vec![("a".to_owned(), ErrorKind::Corrupt); 4]);

        now(store.set("a", entry("new".to_owned()))).unwrap();
        assert_eq!(now(store.get("a")).unwrap().unwrap().value(), "new");
        assert_eq!(store.undecodable(), 4);
    }

    /// S4, S11: one value or key that has no bytes fails alone.
    #[test]
    fn what_does_not_encode_fails_alone_and_leaves_the_old_entry() {
        let codec = from_fns(
            |value: &u8| if *value < 9 { Ok(Bytes::from(vec![*value])) } else { Err("nine is too much") },
            |bytes| bytes.first().copied().ok_or("empty"),
        );
        let store = Encoded::new(Shelf::<str, Bytes>::new(), codec);
        let set = now(store.set_many(&[("a", entry(1)), ("b", entry(9)), ("c", entry(3))]));
        assert!(matches!(set[0], Ok(SetOutcome::Stored)));
        assert_eq!(set[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(matches!(set[2], Ok(SetOutcome::Stored)));
        assert_eq!(now(store.set("a", entry(9))).unwrap_err().kind(), ErrorKind::InvalidInput);
        let got: Result<Vec<_>> =
            now(store.get_many(&["a", "b", "c"], Timestamp::EPOCH)).into_iter().collect();
        assert_eq!(got.unwrap(), [Some(entry(1)), None, Some(entry(3))]);
    }

    #[test]
    fn keys_by_closure_and_raw_values() {
        let store = Encoded::new(Shelf::<str, Bytes>::new(), Raw).keys(|id: &u64| format!("user:{id}"));
        now(store.set(&7, entry("seven".into()))).unwrap();
        assert_eq!(now(store.get(&7)).unwrap().unwrap().value(), "seven");
        assert!(now(store.inner.get("user:7")).unwrap().is_some());
    }
}
