//! What the adapters' tests share: a small store that notes its calls, and histories to play on stores.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use crate::describe::Description;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::key::{Key, Value};
use crate::store::{ClearPrefix, Evict, SetOutcome, Store};
use crate::sync::Mutex;
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// The output of a future that does not wait for anything.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a store that does not wait has waited"),
    }
}

/// An unbounded store that notes its calls, weighs if asked to, and gives up its oldest entry.
#[derive(Debug)]
pub(crate) struct Shelf<K: ToOwned + ?Sized, V> {
    entries: Mutex<Vec<(K::Owned, Entry<V>)>>,
    weigher: Option<Weigher<K, V>>,
    calls: Mutex<Vec<&'static str>>,
    /// Fails every operation but `peek_with`, `len` and `weight`.
    pub(crate) fails: bool,
    /// Lets others run in the middle of a write.
    pub(crate) yields: bool,
}

impl<K: Key + ?Sized, V: Value> Shelf<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            weigher: None,
            calls: Mutex::default(),
            fails: false,
            yields: false,
        }
    }

    /// The calls since this was last asked.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.calls.lock())
    }

    fn note(&self, call: &'static str) -> Result<()> {
        self.calls.lock().push(call);
        if self.fails {
            return Err(Error::new(ErrorKind::Unavailable, "shelf", Operation::Get));
        }
        Ok(())
    }

    fn find(&self, key: &K) -> Option<Entry<V>> {
        let entries = self.entries.lock();
        entries
            .iter()
            .find(|(known, _)| std::borrow::Borrow::<K>::borrow(known) == key)
            .map(|(_, e)| e.clone())
    }

    fn take(&self, key: &K) {
        self.entries.lock().retain(|(known, _)| std::borrow::Borrow::<K>::borrow(known) != key);
    }

    fn put(&self, key: &K, entry: Entry<V>) {
        let mut entries = self.entries.lock();
        entries.retain(|(known, _)| std::borrow::Borrow::<K>::borrow(known) != key);
        entries.push((key.to_owned(), entry));
    }
}

impl<K: Key + ?Sized, V: Value> Store for Shelf<K, V> {
    type Key = K;
    type Value = V;

    async fn get(&self, key: &K) -> Result<Option<Entry<V>>> {
        self.note("get")?;
        Ok(self.find(key))
    }

    async fn set(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        self.note("set")?;
        if self.yields {
            tokio::task::yield_now().await;
        }
        self.put(key, entry);
        Ok(SetOutcome::Stored)
    }

    async fn renew(&self, key: &K, entry: Entry<V>) -> Result<SetOutcome> {
        self.note("renew")?;
        if self.yields {
            tokio::task::yield_now().await;
        }
        self.put(key, entry);
        Ok(SetOutcome::Stored)
    }

    async fn remove(&self, key: &K) -> Result<()> {
        self.note("remove")?;
        self.take(key);
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.note("clear")?;
        self.entries.lock().clear();
        Ok(())
    }

    async fn get_at(&self, key: &K, _: Timestamp) -> Result<Option<Entry<V>>> {
        self.note("get_at")?;
        Ok(self.find(key))
    }

    fn peek_with<R>(&self, key: &K, read: impl FnOnce(&Entry<V>) -> R) -> Option<R> {
        let _ = self.note("peek_with");
        self.find(key).as_ref().map(read)
    }

    async fn get_many(&self, keys: &[&K], _: Timestamp) -> Vec<Result<Option<Entry<V>>>> {
        let noted = self.note("get_many");
        keys.iter().map(|key| noted.clone().map(|()| self.find(key))).collect()
    }

    async fn set_many(&self, entries: &[(&K, Entry<V>)]) -> Vec<Result<SetOutcome>> {
        let noted = self.note("set_many");
        if self.yields {
            tokio::task::yield_now().await;
        }
        let set = |(key, entry): &(&K, Entry<V>)| {
            noted.clone()?;
            self.put(key, entry.clone());
            Ok(SetOutcome::Stored)
        };
        entries.iter().map(set).collect()
    }

    async fn remove_many(&self, keys: &[&K]) -> Vec<Result<()>> {
        let noted = self.note("remove_many");
        keys.iter().map(|key| noted.clone().map(|()| self.take(key))).collect()
    }

    fn len(&self) -> Option<u64> {
        let _ = self.note("len");
        Some(self.entries.lock().len() as u64)
    }

    fn weight(&self) -> Option<u64> {
        let _ = self.note("weight");
        let weigher = self.weigher.as_ref()?;
        let entries = self.entries.lock();
        Some(
            entries
                .iter()
                .map(|(key, entry)| weigher.weigh(std::borrow::Borrow::borrow(key), entry.value()))
                .sum(),
        )
    }

    async fn flush(&self) -> Result<()> {
        self.note("flush")
    }

    fn describe(&self) -> Description {
        Description::new("shelf").holding(self.len(), self.weight())
    }
}

impl<K: Key + ?Sized, V: Value> Evict for Shelf<K, V> {
    fn weighed_by(mut self, weigher: Weigher<K, V>) -> Self {
        self.weigher = Some(weigher);
        self
    }

    fn weigh(&self, key: &K, entry: &Entry<V>) -> u64 {
        self.weigher.as_ref().map_or(0, |weigher| weigher.weigh(key, entry.value()))
    }

    fn evict(&self) -> bool {
        let _ = self.note("evict");
        let mut entries = self.entries.lock();
        let any = !entries.is_empty();
        entries.drain(..usize::from(any));
        any
    }
}

impl<V: Value> ClearPrefix for Shelf<str, V> {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        self.note("clear_prefix")?;
        self.entries.lock().retain(|(key, _)| !key.starts_with(prefix));
        Ok(())
    }
}

/// One call of a history.
pub(crate) type Call = crate::testkit::Act<String, String>;

/// A few keys that like to meet: parts of each other, and separators.
pub(crate) fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "ab", "a:", "a:b", "b", ":b", "\0", "ü*?[", "../a"])
        .prop_map(str::to_owned)
}

fn instant() -> impl Strategy<Value = Timestamp> {
    prop_oneof![4 => 0..100u64, 1 => Just(u64::MAX)].prop_map(Timestamp::from_nanos)
}

pub(crate) fn entry() -> impl Strategy<Value = Entry<String>> {
    // No regular expressions: each value would parse them anew, which took most of the time.
    let word = || prop::sample::select(vec!["", "a", "b", "ab"]);
    let value = (prop::char::range('a', 'z'), 0..13usize);
    let value = value.prop_map(|(letter, length)| String::from(letter).repeat(length));
    let tags = prop::collection::vec(word(), 0..3);
    let lifetime = (instant(), instant(), instant(), instant());
    (value, lifetime, prop::option::of(word()), tags).prop_map(|(value, life, version, tags)| {
        let entry = Entry::new(value, Lifetime::new(life.0, life.1, life.2, life.3)).with_tags(tags);
        match version {
            Some(version) => entry.with_version(version),
            None => entry,
        }
    })
}

fn call() -> impl Strategy<Value = Call> {
    let keys = || prop::collection::vec(key(), 0..6);
    prop_oneof![
        3 => key().prop_map(Call::Get),
        1 => (key(), instant()).prop_map(|(key, at)| Call::GetAt(key, at)),
        2 => key().prop_map(Call::Peek),
        6 => (key(), entry()).prop_map(|(key, entry)| Call::Set(key, entry)),
        2 => (key(), entry()).prop_map(|(key, entry)| Call::Renew(key, entry)),
        2 => key().prop_map(Call::Remove),
        1 => Just(Call::Clear),
        2 => keys().prop_map(Call::GetMany),
        2 => prop::collection::vec((key(), entry()), 0..6).prop_map(Call::SetMany),
        1 => keys().prop_map(Call::RemoveMany),
        1 => Just(Call::Len),
        1 => Just(Call::Weight),
        1 => Just(Call::Flush),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec(call(), 0..40)
}

/// The same history with its bulk calls taken apart (S11).
pub(crate) fn singly(history: &[Call]) -> Vec<Call> {
    let single = |call: &Call| match call.clone() {
        Call::GetMany(keys) => keys.into_iter().map(|key| Call::GetAt(key, Timestamp::EPOCH)).collect(),
        Call::SetMany(entries) => entries.into_iter().map(|(key, entry)| Call::Set(key, entry)).collect(),
        Call::RemoveMany(keys) => keys.into_iter().map(Call::Remove).collect(),
        call => vec![call],
    };
    history.iter().flat_map(single).collect()
}

/// Plays a history on a store and tells its answers, one line each; a bulk call gives a line a key.
pub(crate) fn play<S: Store<Key = str, Value = String>>(store: &S, history: &[Call]) -> Vec<String> {
    history.iter().flat_map(|call| answers(store, call)).collect()
}

pub(crate) fn answers<S: Store<Key = str, Value = String>>(store: &S, call: &Call) -> Vec<String> {
    now(crate::testkit::answers(store, call))
}

/// D1 and S11: the two, each on a fresh store, answer alike, and their bulk calls like their single ones.
pub(crate) fn alike(
    plain: impl Fn(&[Call]) -> Vec<String>,
    adapted: impl Fn(&[Call]) -> Vec<String>,
    history: &[Call],
) -> Result<(), TestCaseError> {
    let single = singly(history);
    prop_assert_eq!(plain(history), adapted(history));
    prop_assert_eq!(plain(&single), adapted(&single));
    // Keys are read in bulk at the epoch; a history has no other difference from its single calls.
    prop_assert_eq!(adapted(history), adapted(&single));
    Ok(())
}

/// The answers of a store without any adapter.
pub(crate) fn bare(history: &[Call]) -> Vec<String> {
    play(&Shelf::<str, String>::new(), history)
}

/// D3: every call to the adapter is one call of the same name to the store inside.
pub(crate) fn forwards<S, V: Value>(store: &S, inner: impl Fn(&S) -> &Shelf<str, V>, but: &[&'static str])
where
    S: Store<Key = str, Value = String>,
{
    let entry = Entry::new(String::new(), Lifetime::forever(Timestamp::EPOCH));
    let at = Timestamp::EPOCH;
    let key = || "a".to_owned();
    let calls = [
        ("get", Call::Get(key())),
        ("get_at", Call::GetAt(key(), at)),
        ("peek_with", Call::Peek(key())),
        ("set", Call::Set(key(), entry.clone())),
        ("renew", Call::Renew(key(), entry.clone())),
        ("remove", Call::Remove(key())),
        ("clear", Call::Clear),
        ("get_many", Call::GetMany(vec![key(), "b".into()])),
        ("set_many", Call::SetMany(vec![(key(), entry.clone()), ("b".into(), entry)])),
        ("remove_many", Call::RemoveMany(vec![key(), "b".into()])),
        ("len", Call::Len),
        ("weight", Call::Weight),
        ("flush", Call::Flush),
    ];
    for (name, call) in calls.into_iter().filter(|(name, _)| !but.contains(name)) {
        inner(store).calls();
        answers(store, &call);
        assert_eq!(inner(store).calls(), [name]);
    }
    assert!(store.describe().layers().iter().any(|layer| layer.name() == "shelf"), "{}", store.describe());
}
