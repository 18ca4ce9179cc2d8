//! Random histories against what the removal listener says is left.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Colliding, Item, by_weight, entry};
use crate::entry::{Entry, Lifetime};
use crate::key::Key;
use crate::memory::policy::{self, Adaptive, Policy, S3Fifo, Sieve};
use crate::memory::{Cause, Lru, Memory, Single};
use crate::store::{ClearPrefix, Evict, Refusal, SetOutcome, Store};
use crate::sync::Mutex;
use crate::tests::ready;
use crate::time::Timestamp;
use crate::weigh::Weigher;

#[derive(Clone, Debug)]
enum Op {
    Set(u8, u64, [u64; 4], bool),
    Get(u8),
    Remove(u8),
    Clear,
    Evict,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let weight = prop_oneof![8 => 0..6u64, 2 => 9..12u64, 1 => 29..32u64, 1 => Just(u64::MAX)];
    let op = prop_oneof![
        6 => (0..12u8, weight, any::<[u64; 4]>(), any::<bool>()).prop_map(|(k, w, i, r)| Op::Set(k, w, i, r)),
        4 => (0..12u8).prop_map(Op::Get),
        1 => (0..12u8).prop_map(Op::Remove),
        1 => Just(Op::Evict),
        1 => Just(Op::Clear),
    ];
    // A clear in every thirteenth step would keep every store nearly empty.
    let op = (op, 0..4u8).prop_map(|(op, luck)| match op {
        Op::Clear if luck > 0 => Op::Get(0),
        op => op,
    });
    vec(op, 0..120)
}

fn max_entries() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 1..9usize, Just(usize::MAX)]
}

fn max_weight() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(prop_oneof![Just(0), Just(1), Just(10), Just(30), Just(u64::MAX)])
}

type OnRemoval<K> = Box<dyn Fn(&K, &Entry<Item>, Cause) + Send + Sync>;
type Events<O> = Arc<Mutex<Vec<(O, Entry<Item>, Cause)>>>;

/// One store under test, and what must be in it: what was stored, less what it said has left.
struct Bench<S, K: Key + ?Sized> {
    store: S,
    events: Events<K::Owned>,
    held: HashMap<K::Owned, Entry<Item>>,
    token: Arc<()>,
    max_entries: u64,
    max_weight: Option<u64>,
    keep_nothing: bool,
}

impl<S, K> Bench<S, K>
where
    S: Store<Key = K, Value = Item>,
    K: Key + ?Sized + PartialEq,
    K::Owned: Debug,
{
    fn new(max_entries: usize, max_weight: Option<u64>, build: impl FnOnce(OnRemoval<K>) -> S) -> Self {
        let events = Events::<K::Owned>::default();
        let heard = Arc::clone(&events);
        let store = build(Box::new(move |key: &K, entry, cause| {
            heard.lock().push((key.to_owned(), entry.clone(), cause));
        }));
        let keep_nothing = max_entries == 0 || max_weight == Some(0);
        let max_entries = max_entries as u64;
        Self {
            store,
            events,
            held: HashMap::new(),
            token: Arc::new(()),
            max_entries,
            max_weight,
            keep_nothing,
        }
    }

    fn run(
        &mut self,
        ops: &[Op],
        key: impl Fn(u8) -> K::Owned,
        evict: impl Fn(&S) -> Option<bool>,
    ) -> Result<(), TestCaseError> {
        for (id, op) in (0..).zip(ops) {
            match op {
                Op::Set(k, weight, instants, rare) => {
                    self.set(&key(*k), item(id, *weight, *instants, *rare, &self.token))?;
                }
                Op::Get(k) => self.get(key(*k).borrow())?,
                Op::Remove(k) => {
                    let key = key(*k);
                    for _ in 0..2 {
                        ready(self.store.remove(key.borrow()))?;
                        self.settle(|left, cause| *left == key && cause == Cause::Removed)?;
                        prop_assert!(!self.held.contains_key(key.borrow()), "S5: removed");
                    }
                }
                Op::Clear => {
                    for _ in 0..2 {
                        ready(self.store.clear())?;
                        self.settle(|_, cause| cause == Cause::Cleared)?;
                        prop_assert!(self.held.is_empty(), "S5: cleared");
                    }
                }
                Op::Evict => {
                    let before = self.held.len();
                    let evicted = evict(&self.store);
                    self.settle(|_, cause| cause == Cause::Evicted)?;
                    if let Some(evicted) = evicted {
                        prop_assert_eq!(evicted, before > 0);
                        prop_assert_eq!(self.held.len(), before - usize::from(evicted));
                    }
                }
            }
            self.within_bounds()?;
        }
        let keys: Vec<_> = self.held.keys().cloned().collect();
        keys.iter().try_for_each(|key| self.get(key.borrow()))
    }

    fn set(&mut self, key: &K::Owned, entry: Entry<Item>) -> Result<(), TestCaseError> {
        let weight = entry.value().weight;
        let outcome = ready(self.store.set(key.borrow(), entry.clone()))?;
        let too_large = self.max_weight.is_some_and(|max| weight > max);
        let expected = match (self.keep_nothing, too_large) {
            (true, _) => SetOutcome::Refused(Refusal::KeepsNothing),
            (_, true) => SetOutcome::Refused(Refusal::TooLarge),
            _ => SetOutcome::Stored,
        };
        prop_assert_eq!(outcome, expected);
        let own = if too_large { Cause::TooLarge } else { Cause::Replaced };
        self.settle(|left, cause| cause == if left == key { own } else { Cause::Evicted })?;
        prop_assert!(!self.held.contains_key(key.borrow()), "the old entry is gone");
        if outcome == SetOutcome::Stored {
            self.held.insert(key.clone(), entry);
        }
        // A new key never evicts itself.
        self.get(key.borrow())
    }

    /// S1, S2, S3, S9, E14: exactly what was set last and has not left.
    fn get(&self, key: &K) -> Result<(), TestCaseError> {
        let expected = self.held.get(key);
        let peeked = self.store.peek_with(key, Entry::clone);
        prop_assert_eq!(peeked.as_ref(), expected);
        let got = ready(self.store.get(key))?;
        prop_assert_eq!(got.as_ref(), expected);
        let got = ready(self.store.get_at(key, Timestamp::MAX))?;
        prop_assert_eq!(got.as_ref(), expected);
        Ok(())
    }

    /// Takes in what left: each entry once, each with a cause that the call explains.
    fn settle(&mut self, explained: impl Fn(&K::Owned, Cause) -> bool) -> Result<(), TestCaseError> {
        for (key, entry, cause) in self.events.lock().drain(..) {
            prop_assert!(explained(&key, cause), "{:?} left: {:?}", key, cause);
            let held = self.held.remove(key.borrow());
            prop_assert_eq!(held, Some(entry), "left once, as it was stored");
        }
        Ok(())
    }

    /// S9 and S10, and every value that left is dropped.
    fn within_bounds(&self) -> Result<(), TestCaseError> {
        let len = self.held.len();
        prop_assert_eq!(self.store.len(), Some(len as u64));
        prop_assert!(len as u64 <= self.max_entries);
        if self.max_weight.is_some() {
            let weight = self.held.values().map(|entry| entry.value().weight).sum::<u64>();
            prop_assert_eq!(self.store.weight(), Some(weight));
        }
        if let (Some(weight), Some(max)) = (self.store.weight(), self.max_weight) {
            prop_assert!(weight <= max);
        }
        let described = self.store.describe();
        prop_assert_eq!((described.len(), described.weight()), (self.store.len(), self.store.weight()));
        // Ours, those of `held`, and those in the store.
        prop_assert_eq!(Arc::strong_count(&self.token), 1 + 2 * len);
        Ok(())
    }
}

fn item(id: u64, weight: u64, [a, b, c, d]: [u64; 4], rare: bool, token: &Arc<()>) -> Entry<Item> {
    let at = Timestamp::from_nanos;
    let entry =
        Entry::new(Item { id, weight, token: Arc::clone(token) }, Lifetime::new(at(a), at(b), at(c), at(d)));
    if rare { entry.with_version("v1").with_tags(["b", "a", "b"]) } else { entry }
}

fn text(key: u8) -> String {
    ["", "a", "ab", "a:", "é", "\0", "*", "[a]", "A", "a/b", "../a", "long long long key"]
        .get(usize::from(key))
        .copied()
        .unwrap_or("other")
        .to_owned()
}

fn memory<K: Key + ?Sized>(entries: usize, weight: Option<u64>, listener: OnRemoval<K>) -> Memory<K, Item> {
    match weight {
        Some(weight) => Memory::weighing(weight, by_weight()).max_entries(entries),
        None => Memory::new(entries),
    }
    .on_removal(listener)
}

/// A store that reads by its locks and one that reads what it can without: which keys leave them, when and why.
fn leaves_alike<P: Policy>(ops: &[(u8, u64)], capacity: usize, weighs: bool) -> Result<(), TestCaseError> {
    let store = || {
        let log = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::clone(&log);
        let memory = if weighs {
            Memory::weighing(10 * capacity as u64, Weigher::new(|key: &u64, _: &u64| 8 + key % 5))
        } else {
            Memory::new(capacity)
        };
        let memory = memory.ordered_by::<P>().in_shards(1);
        (memory.on_removal(move |key, entry, cause| events.lock().push((*key, *entry.value(), cause))), log)
    };
    let ((locked, by_locks), (hot, without)) = (store(), store());
    let hot = hot.eager().hashing_like(&locked);
    for (number, (op, key)) in (0..).zip(ops) {
        for store in [&locked, &hot] {
            match op {
                0..3 => drop(ready(store.get(key))?),
                3 => drop(ready(store.set(key, entry(number)))?),
                4 if number % 4 == 0 => ready(store.remove(key))?,
                4 if store.peek_with(key, |_| ()).is_none() => drop(ready(store.set(key, entry(number)))?),
                4 => {}
                _ => _ = store.evict(),
            }
        }
        prop_assert_eq!(&*by_locks.lock(), &*without.lock(), "{}", std::any::type_name::<P>());
    }
    Ok(())
}

proptest! {
    #[test]
    fn memory_keeps_the_laws(ops in ops(), entries in max_entries(), weight in max_weight()) {
        Bench::<_, str>::new(entries, weight, |listener| memory(entries, weight, listener))
            .run(&ops, text, |store| Some(store.evict()))?;
    }

    #[test]
    fn memory_keeps_the_laws_in_many_shards(ops in ops(), entries in 4..9usize, weight in max_weight()) {
        Bench::<_, str>::new(entries, weight, |listener| memory(entries, weight, listener).in_shards(4))
            .run(&ops, text, |store| Some(store.evict()))?;
    }

    /// Where every hit asks to be read without a lock next time.
    #[test]
    fn memory_keeps_the_laws_when_all_keys_are_hot(
        ops in ops(), entries in max_entries(), weight in max_weight(), shards in prop::sample::select(vec![1, 4]),
    ) {
        Bench::<_, str>::new(entries.max(shards), weight, |listener| {
            memory(entries.max(shards), weight, listener).in_shards(shards).eager()
        })
        .run(&ops, text, |store| Some(store.evict()))?;
    }

    #[test]
    fn memory_keeps_the_laws_when_all_keys_are_hot_and_hash_alike(ops in ops(), entries in max_entries()) {
        Bench::<_, Colliding>::new(entries, None, |listener| memory(entries, None, listener).eager())
            .run(&ops, Colliding, |store| Some(store.evict()))?;
    }

    /// How an entry is read is no reason for it to stay or to go.
    #[test]
    fn what_leaves_does_not_depend_on_how_it_is_read(
        ops in vec((0..6u8, 0..20u64), 0..300), capacity in 1..12usize, weighs in any::<bool>(),
    ) {
        leaves_alike::<Adaptive>(&ops, capacity, weighs)?;
        leaves_alike::<policy::Lru>(&ops, capacity, weighs)?;
        leaves_alike::<S3Fifo>(&ops, capacity, weighs)?;
        leaves_alike::<Sieve>(&ops, capacity, weighs)?;
    }

    #[test]
    fn memory_keeps_the_laws_when_all_hashes_are_equal(ops in ops(), entries in max_entries(), weight in max_weight()) {
        Bench::<_, Colliding>::new(entries, weight, |listener| memory(entries, weight, listener))
            .run(&ops, Colliding, |store| Some(store.evict()))?;
    }

    #[test]
    fn lru_keeps_the_laws(ops in ops(), entries in max_entries(), weight in max_weight(), every in 0..4u32) {
        Bench::<_, str>::new(entries, weight, |listener| match weight {
            Some(weight) => Lru::weighing(weight, by_weight()).max_entries(entries),
            None => Lru::new(entries),
        }.on_removal(listener).sample_recency(every))
            .run(&ops, text, |store| Some(store.evict()))?;
    }

    #[test]
    fn lru_keeps_the_laws_when_all_hashes_are_equal(ops in ops(), entries in max_entries()) {
        Bench::<_, Colliding>::new(entries, None, |listener| Lru::new(entries).on_removal(listener))
            .run(&ops, Colliding, |store| Some(store.evict()))?;
    }

    #[test]
    fn single_keeps_the_laws(ops in ops()) {
        Bench::<_, str>::new(1, None, |listener| Single::new().on_removal(listener))
            .run(&ops, text, |_| None)?;
    }

    /// S5: nothing outside the range is touched, whatever the prefix looks like.
    #[test]
    fn clear_prefix_takes_exactly_the_range(prefix in "[a\\[\\]*:/é]{0,2}", keys in vec("[a\\[\\]*:/é]{0,3}", 0..30)) {
        fn check(store: &impl ClearPrefix<Value = u64>, prefix: &str, keys: &[String]) -> Result<(), TestCaseError> {
            for key in keys {
                ready(store.set(key, entry(1)))?;
            }
            let held: Vec<_> = keys.iter().filter(|key| store.peek_with(key, |_| ()).is_some()).collect();
            ready(store.clear_prefix(prefix))?;
            for key in held {
                prop_assert_eq!(store.peek_with(key, |_| ()).is_some(), !key.starts_with(prefix));
            }
            Ok(())
        }
        check(&Memory::<str, u64>::new(100), &prefix, &keys)?;
        check(&Memory::<str, u64>::new(100).in_shards(4), &prefix, &keys)?;
        check(&Lru::<str, u64>::new(100), &prefix, &keys)?;
        check(&Single::<str, u64>::new(), &prefix, &keys)?;
    }

    /// The least recently used goes, by exact order; `set`, `get` and `peek_with` are uses.
    #[test]
    fn lru_gives_up_entries_in_exact_order(
        ops in vec((0..4u8, 0..10u8), 0..200),
        capacity in 1..8usize,
        every in 0..4u32,
    ) {
        let lru = Lru::<u8, u8>::new(capacity).sample_recency(every);
        // The oldest first.
        let mut order: Vec<u8> = Vec::new();
        let mut hits = 0;
        for (op, key) in ops {
            let place = order.iter().position(|held| *held == key);
            match op {
                0 | 1 => {
                    let hit = match op {
                        0 => ready(lru.get(&key))?.is_some(),
                        _ => lru.peek_with(&key, |_| ()).is_some(),
                    };
                    prop_assert_eq!(hit, place.is_some());
                    hits += 1;
                    if let (Some(place), true) = (place, every > 0 && hits % every.max(1) == 0) {
                        order.remove(place);
                        order.push(key);
                    }
                }
                2 => {
                    ready(lru.set(&key, entry(key)))?;
                    match place {
                        Some(place) => drop(order.remove(place)),
                        None if order.len() == capacity => drop(order.remove(0)),
                        None => {}
                    }
                    order.push(key);
                }
                _ => {
                    prop_assert_eq!(lru.evict(), !order.is_empty());
                    order.drain(..order.len().min(1));
                }
            }
        }
        for key in order {
            prop_assert!(lru.peek_with(&key, |_| ()).is_some());
            // What was just read is the most recent now: put it back in front by giving up the rest.
            ready(lru.remove(&key))?;
        }
        prop_assert_eq!(lru.len(), Some(0));
    }
}

#[test]
fn a_small_store_holds_as_many_as_it_says() {
    for capacity in [1, 10, 1_000, 1_024] {
        let memory = Memory::<u64, u64>::new(capacity);
        for key in 0..capacity as u64 {
            ready(memory.set(&key, entry(key))).unwrap();
        }
        assert_eq!(memory.len(), Some(capacity as u64));
    }
}

/// With keys in sequence, no shard overflows long before the others.
#[test]
fn a_large_store_is_nearly_full_before_it_gives_up_anything() {
    let memory = Memory::<u64, u64>::new(16_384).in_shards(8);
    for key in 0..16_384u64 {
        ready(memory.set(&key, entry(key))).unwrap();
    }
    assert!(memory.len() > Some(15_500), "{memory:?}");
}

/// A hundred entries that are in use survive ten thousand that are read once.
#[test]
fn a_scan_does_not_push_out_what_is_in_use() {
    let survivors = |store: &dyn Fn(u64), held: &dyn Fn(u64) -> bool| {
        for _ in 0..3 {
            (0..100).for_each(store);
        }
        (1_000..11_000).for_each(store);
        (0..100).filter(|key| held(*key)).count()
    };
    let memory = Memory::<u64, u64>::new(1_000);
    let read_through = |key: u64| {
        if memory.peek_with(&key, |_| ()).is_none() {
            ready(memory.set(&key, entry(key))).unwrap();
        }
    };
    let in_memory = survivors(&read_through, &|key| memory.peek_with(&key, |_| ()).is_some());
    let lru = Lru::<u64, u64>::new(1_000);
    let read_through = |key: u64| {
        if lru.peek_with(&key, |_| ()).is_none() {
            ready(lru.set(&key, entry(key))).unwrap();
        }
    };
    let in_lru = survivors(&read_through, &|key| lru.peek_with(&key, |_| ()).is_some());
    println!("of 100 entries in use, a scan of 10,000 leaves {in_memory} in Memory and {in_lru} in Lru");
    assert_eq!((in_memory, in_lru), (100, 0));
}

/// What is asked for again soon after it was given up was worth keeping: the second time, it stays.
#[test]
fn a_key_that_comes_back_is_kept_through_a_scan() {
    let memory = Memory::<u64, u64>::new(10);
    let set = |key: u64| ready(memory.set(&key, entry(key))).unwrap();
    (0..11).for_each(|key| _ = set(key));
    assert!(memory.peek_with(&0, |_| ()).is_none());
    set(0);
    (100..200).for_each(|key| _ = set(key));
    assert!(memory.peek_with(&0, |_| ()).is_some());
    assert!(memory.peek_with(&10, |_| ()).is_none());
}

#[test]
fn a_stack_says_how_it_is_bounded() {
    let memory = Memory::<str, Item>::weighing(64 << 20, by_weight()).max_entries(10_000);
    assert_eq!(
        memory.describe().to_string(),
        "memory (max_entries 10,000, max_weight 64 MiB) holds 0 entries, 0 B"
    );
    assert_eq!(Memory::<str, u8>::new(usize::MAX).describe().to_string(), "memory holds 0 entries");
    let lru = Lru::<str, u8>::new(5).sample_recency(8);
    assert_eq!(lru.describe().to_string(), "lru (max_entries 5, recency every 8) holds 0 entries");
    assert_eq!(Single::<str, u8>::new().describe().to_string(), "single holds 0 entries");
}
