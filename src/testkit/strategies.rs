//! Strategies for a test's own properties: keys, values, lifetimes, entries, histories.

use std::borrow::Borrow;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::sample::select;

use crate::entry::{Entry, Lifetime};
use crate::key::{Key, Value};
use crate::store::Store;
use crate::testkit::sample::{SampleKey, SampleValue};
use crate::testkit::store::{INSTANTS, LABELS};
use crate::time::Timestamp;

/// Keys of the corpus of their type: harmless ones, and those that stores mix up.
pub fn keys<K: SampleKey<Owned: Debug> + ?Sized>() -> impl Strategy<Value = K::Owned> {
    select(K::corpus())
}

/// A few harmless keys, so that the calls of a history meet.
pub fn few_keys<K: SampleKey<Owned: Debug> + ?Sized>() -> impl Strategy<Value = K::Owned> {
    select(K::corpus().into_iter().take(3).collect::<Vec<_>>())
}

/// Values of their type; small ones mostly, now and then of up to 64 KiB and one byte where they have a length.
pub fn values<V: SampleValue + Debug>() -> impl Strategy<Value = V> {
    let plain = (0..1_000u32).prop_map(V::sample);
    let size = select(vec![0usize, 1, 255, 1_024, 65_535, 65_536, 65_537]);
    let sized = (0..1_000u32, size)
        .prop_map(|(number, bytes)| V::sized(number, bytes).unwrap_or_else(|| V::sample(number)));
    prop_oneof![9 => plain, 1 => sized]
}

/// Instants that a format may cut or take for each other: the epoch, 32-bit seconds, never, and many in between.
pub fn instants() -> impl Strategy<Value = Timestamp> {
    prop_oneof![3 => select(INSTANTS.to_vec()), 1 => any::<u64>()].prop_map(Timestamp::from_nanos)
}

/// Four instants in order.
pub fn lifetimes() -> impl Strategy<Value = Lifetime> {
    [instants(), instants(), instants(), instants()].prop_map(|mut instants| {
        instants.sort_unstable();
        let [created_at, fresh_until, stale_until, keep_until] = instants;
        Lifetime::new(created_at, fresh_until, stale_until, keep_until)
    })
}

/// Entries of any lifetime, some with a version and tags.
pub fn entries<V: SampleValue + Debug>() -> impl Strategy<Value = Entry<V>> {
    let label = || select(LABELS.to_vec());
    let tags = proptest::collection::vec(label(), 0..4);
    (values::<V>(), lifetimes(), proptest::option::of(label()), tags).prop_map(
        |(value, life, version, tags)| {
            let entry = Entry::new(value, life).with_tags(tags);
            match version {
                Some(version) => entry.with_version(version),
                None => entry,
            }
        },
    )
}

/// One call to a store, keys in their owned form.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the call of its name")]
pub enum Act<K, V> {
    Get(K),
    GetAt(K, Timestamp),
    Peek(K),
    Set(K, Entry<V>),
    Renew(K, Entry<V>),
    Remove(K),
    Clear,
    GetMany(Vec<K>),
    SetMany(Vec<(K, Entry<V>)>),
    RemoveMany(Vec<K>),
    Len,
    Weight,
    Flush,
}

/// Histories of at most `longest` calls on a few keys. Play them on two stores that should not differ, with
/// [`play`].
///
/// ```
/// use larder::testkit::{histories, play};
/// use larder::{Lru, Memory};
/// use proptest::prelude::*;
///
/// proptest!(|(history in histories::<str, String>(20))| {
///     let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
///     let (one, other) = (Memory::<str, String>::new(100), Lru::<str, String>::new(100));
///     prop_assert_eq!(runtime.block_on(play(&one, &history)), runtime.block_on(play(&other, &history)));
/// });
/// ```
pub fn histories<K, V>(longest: usize) -> impl Strategy<Value = Vec<Act<K::Owned, V>>>
where
    K: SampleKey<Owned: Debug> + ?Sized,
    V: SampleValue + Debug,
{
    let key = || few_keys::<K>();
    let many = || proptest::collection::vec(few_keys::<K>(), 0..5);
    let act = prop_oneof![
        4 => key().prop_map(Act::Get),
        1 => (key(), instants()).prop_map(|(key, at)| Act::GetAt(key, at)),
        2 => key().prop_map(Act::Peek),
        6 => (key(), entries::<V>()).prop_map(|(key, entry)| Act::Set(key, entry)),
        3 => (key(), entries::<V>()).prop_map(|(key, entry)| Act::Renew(key, entry)),
        3 => key().prop_map(Act::Remove),
        1 => Just(Act::Clear),
        2 => many().prop_map(Act::GetMany),
        2 => proptest::collection::vec((key(), entries::<V>()), 0..5).prop_map(Act::SetMany),
        1 => many().prop_map(Act::RemoveMany),
        1 => Just(Act::Len),
        1 => Just(Act::Flush),
    ];
    proptest::collection::vec(act, 0..=longest)
}

/// Plays a history on a store, and tells its answers: a line a call, a line a key of a bulk call.
pub async fn play<S>(store: &S, history: &[Act<<S::Key as ToOwned>::Owned, S::Value>]) -> Vec<String>
where
    S: Store<Key: Key, Value: Value + Debug>,
{
    let mut lines = Vec::new();
    for act in history {
        lines.extend(answers(store, act).await);
    }
    lines
}

/// The answers of one call.
pub async fn answers<S>(store: &S, act: &Act<<S::Key as ToOwned>::Owned, S::Value>) -> Vec<String>
where
    S: Store<Key: Key, Value: Value + Debug>,
{
    fn lines<T: Debug>(results: impl IntoIterator<Item = T>) -> Vec<String> {
        results.into_iter().map(|result| format!("{result:?}")).collect()
    }
    fn refs<K: Key + ?Sized>(keys: &[K::Owned]) -> Vec<&K> {
        keys.iter().map(Borrow::borrow).collect()
    }
    match act {
        Act::Get(key) => lines([store.get(key.borrow()).await]),
        Act::GetAt(key, at) => lines([store.get_at(key.borrow(), *at).await]),
        Act::Peek(key) => lines([store.peek_with(key.borrow(), Clone::clone)]),
        Act::Set(key, entry) => lines([store.set(key.borrow(), entry.clone()).await]),
        Act::Renew(key, entry) => lines([store.renew(key.borrow(), entry.clone()).await]),
        Act::Remove(key) => lines([store.remove(key.borrow()).await]),
        Act::Clear => lines([store.clear().await]),
        Act::GetMany(keys) => lines(store.get_many(&refs::<S::Key>(keys), Timestamp::EPOCH).await),
        Act::SetMany(entries) => {
            let entries: Vec<(&S::Key, _)> =
                entries.iter().map(|(key, entry)| (key.borrow(), entry.clone())).collect();
            lines(store.set_many(&entries).await)
        }
        Act::RemoveMany(keys) => lines(store.remove_many(&refs::<S::Key>(keys)).await),
        Act::Len => lines([store.len()]),
        Act::Weight => lines([store.weight()]),
        Act::Flush => lines([store.flush().await]),
    }
}
