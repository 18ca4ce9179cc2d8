//! Odd keys, values and capacities, each with its outcome.

use std::sync::Arc;

use super::{Colliding, Item, by_weight, entry};
use crate::entry::Entry;
use crate::memory::{Lru, Memory, Single};
use crate::store::{ClearPrefix, Refusal, SetOutcome, Store};
use crate::tests::alloc::bytes_kept;
use crate::tests::ready;
use crate::weigh::Weigher;

/// Keys that some store somewhere takes for something else, and 64 KiB of one.
fn odd_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "",
        " ",
        "\0",
        "\0\0",
        "a\0b",
        "\n",
        "/",
        "//",
        "a/b",
        "a\\b",
        ".",
        "..",
        "../..",
        "../../etc/passwd",
        "C:\\x",
        "a:b",
        ":",
        "*",
        "?",
        "[a-z]",
        "%00",
        "%2e%2e",
        "~",
        "$HOME",
        "'; --",
        "e\u{301}",
        "\u{e9}",
        "\u{1f980}",
        "\u{1f469}\u{200d}\u{1f680}",
        "\u{202e}abc",
        "\u{feff}",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .into();
    let long = "x".repeat(64 << 10);
    keys.extend([format!("{long}y"), format!("{long}z"), format!("{long}\0"), long]);
    keys
}

/// S1, S5, S6: each has a place of its own, and goes alone.
fn keeps_odd_keys_apart(store: &impl ClearPrefix<Value = u64>) {
    let keys = odd_keys();
    for (id, key) in (0..).zip(&keys) {
        assert_eq!(ready(store.set(key, entry(id))).unwrap(), SetOutcome::Stored, "{key:.20?}");
    }
    assert_eq!(store.len(), Some(keys.len() as u64));
    for (id, key) in (0..).zip(&keys) {
        assert_eq!(ready(store.get(key)).unwrap().as_ref().map(Entry::value), Some(&id), "{key:.20?}");
        assert_eq!(store.peek_with(key, |entry| *entry.value()), Some(id), "{key:.20?}");
    }
    for (gone, key) in (1..).zip(&keys) {
        ready(store.remove(key)).unwrap();
        assert_eq!(store.peek_with(key, |_| ()), None, "{key:.20?}");
        assert_eq!(store.len(), Some(keys.len() as u64 - gone), "{key:.20?}");
    }
}

#[test]
fn s6_odd_keys_are_keys_like_any_other() {
    keeps_odd_keys_apart(&Memory::new(100));
    // Each shard has room for all of them, wherever they fall.
    keeps_odd_keys_apart(&Memory::new(800).in_shards(8));
    keeps_odd_keys_apart(&Lru::new(100));
    // One at a time in a store with room for one.
    let single = Single::<str, u64>::new();
    for (id, key) in (0..).zip(odd_keys()) {
        ready(single.set(&key, entry(id))).unwrap();
        for other in odd_keys() {
            let expected = (other == key).then_some(id);
            assert_eq!(
                single.peek_with(&other, |entry| *entry.value()),
                expected,
                "{other:.20?} in {key:.20?}"
            );
        }
    }
}

/// S5: an empty prefix is the whole store, and a long or odd one is only its own range.
#[test]
fn odd_prefixes_clear_their_range() {
    fn check(store: &impl ClearPrefix<Value = u64>) {
        for prefix in odd_keys() {
            for key in odd_keys() {
                ready(store.set(&key, entry(0))).unwrap();
            }
            ready(store.clear_prefix(&prefix)).unwrap();
            let left = odd_keys().iter().filter(|key| !key.starts_with(&prefix)).count();
            assert_eq!(store.len(), Some(left as u64), "{prefix:.20?}");
        }
    }
    check(&Memory::new(100));
    check(&Lru::new(100));
}

/// S1, S9: a value without bytes is a value, and an entry without weight is counted all the same.
#[test]
fn values_of_no_size_are_values() {
    fn check(store: &impl Store<Key = str, Value = ()>, weight: Option<u64>) {
        for key in ["a", "b", "b"] {
            assert_eq!(ready(store.set(key, entry(()))).unwrap(), SetOutcome::Stored);
            assert_eq!(ready(store.get(key)).unwrap(), Some(entry(())));
        }
        assert!(store.len() > Some(0));
        assert_eq!(store.weight(), weight);
        ready(store.clear()).unwrap();
        assert_eq!(store.len(), Some(0));
    }
    check(&Memory::new(10), None);
    check(&Memory::weighing(1, Weigher::new(|_, ()| 0)), Some(0));
    check(&Lru::new(10), None);
    check(&Lru::weighing(1, Weigher::new(|_, ()| 0)), Some(0));
    check(&Single::new(), None);
    check(&Single::new().weighed_by(Weigher::new(|_, ()| 0)), Some(0));
}

/// S10: a bound of zero is a store that keeps nothing and says so; it is no error.
#[test]
fn a_capacity_of_zero_keeps_nothing() {
    fn check(store: &impl Store<Key = u64, Value = Item>) {
        for weight in [0, 1, u64::MAX] {
            let item = Item { id: 1, weight, token: Arc::default() };
            assert_eq!(
                ready(store.set(&1, entry(item))).unwrap(),
                SetOutcome::Refused(Refusal::KeepsNothing)
            );
            assert_eq!(ready(store.get(&1)).unwrap(), None);
        }
        assert_eq!(store.len(), Some(0));
        ready(store.remove(&1)).unwrap();
        ready(store.clear()).unwrap();
    }
    check(&Memory::new(0));
    check(&Memory::weighing(0, by_weight()));
    check(&Memory::weighing(u64::MAX, by_weight()).max_entries(0));
    check(&Lru::new(0));
    check(&Lru::weighing(0, by_weight()));
    check(&Lru::weighing(u64::MAX, by_weight()).max_entries(0));
}

/// What a `set` answered, and what the store holds since.
type Held = (SetOutcome, Option<u64>, Option<u64>);

/// S10: no bound is the largest number. It reserves nothing, and weights add up to it without wrapping.
#[test]
fn a_capacity_without_end_costs_nothing_and_does_not_overflow() {
    fn check<S: Store<Key = u64, Value = Item>>(build: impl Fn() -> S) {
        let mut store = None;
        // Sixteen empty shards a core: some KiB, where room for `usize::MAX` entries would abort.
        assert!(bytes_kept(|| store = Some(build())) < 1 << 20);
        let store = store.unwrap();
        let set = |id, weight| -> Held {
            let item = Item { id, weight, token: Arc::default() };
            (ready(store.set(&id, entry(item))).unwrap(), store.len(), store.weight())
        };
        assert_eq!(set(1, 1), (SetOutcome::Stored, Some(1), Some(1)));
        assert_eq!(set(2, 2), (SetOutcome::Stored, Some(2), Some(3)));
        // All that a counter holds: this one alone has room.
        assert_eq!(set(3, u64::MAX), (SetOutcome::Stored, Some(1), Some(u64::MAX)));
        assert_eq!(set(3, 5), (SetOutcome::Stored, Some(1), Some(5)));
    }
    check(|| Memory::weighing(u64::MAX, by_weight()).max_entries(usize::MAX));
    check(|| Lru::weighing(u64::MAX, by_weight()).max_entries(usize::MAX));
    let (memory, lru) = (Memory::<u64, u64>::new(usize::MAX), Lru::<u64, u64>::new(usize::MAX));
    for key in 0..10_000 {
        ready(memory.set(&key, entry(key))).unwrap();
        ready(lru.set(&key, entry(key))).unwrap();
    }
    assert_eq!((memory.len(), lru.len()), (Some(10_000), Some(10_000)), "nothing had to go");
}

/// A value whose clone panics makes `get` panic for its own key. Who reads another does not hear of it, though the
/// store may clone what it moves out of the way.
#[test]
fn a_clone_that_panics_harms_no_reader_of_another_key() {
    struct Brittle;
    impl Clone for Brittle {
        fn clone(&self) -> Self {
            panic!("not to be cloned");
        }
    }
    let store = Memory::<Colliding, Brittle>::new(10).eager();
    let keys = [1, 2].map(Colliding);
    for key in &keys {
        ready(store.set(key, entry(Brittle))).unwrap();
    }
    assert!(store.peek_with(&keys[0], |_| ()).is_some());
    for round in 0..4 {
        // The second time, the other one's place is to be had.
        assert!(store.peek_with(&keys[1], |_| ()).is_some(), "{round}");
        assert_eq!(store.hot(), 1, "the first is where it was");
    }
    assert!(store.peek_with(&keys[0], |_| ()).is_some());
    ready(store.clear()).unwrap();
    assert_eq!(store.len(), Some(0));
}
