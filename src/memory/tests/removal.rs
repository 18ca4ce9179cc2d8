//! The listener and the weigher are the caller's code: they may panic and call back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::{Item, by_weight, entry};
use crate::memory::{Cause, Lru, Memory, Single};
use crate::store::{ClearPrefix, Evict, Store};
use crate::tests::ready;
use crate::weigh::Weigher;

fn panics(run: impl FnOnce()) -> bool {
    // The message goes to the test's captured output.
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

/// Every way out of a store, and the panic of its listener on each: told of all, bounds kept, usable.
fn survives_a_panicking_listener<S: Store<Key = u64, Value = u64>>(store: &S, told: &AtomicUsize) {
    let left = |run: &dyn Fn(), len| {
        let before = told.load(Ordering::Relaxed);
        let panicked = panics(run);
        assert_eq!(store.len(), Some(len));
        let told = told.load(Ordering::Relaxed) - before;
        assert_eq!(panicked, told > 0);
        told
    };
    let set = |key: u64, value| move || drop(ready(store.set(&key, entry(value))));
    left(&set(1, 10), 1);
    assert_eq!(left(&set(1, 11), 1), 1, "replaced");
    assert_eq!(store.peek_with(&1, |entry| *entry.value()), Some(11));
    assert_eq!(left(&|| drop(ready(store.remove(&1))), 0), 1, "removed");
    left(&set(2, 20), 1);
    let len = store.len().unwrap();
    assert_eq!(left(&|| drop(ready(store.clear())), 0) as u64, len, "cleared");
    left(&set(3, 30), 1);
    assert_eq!(store.peek_with(&3, |entry| *entry.value()), Some(30));
    assert_eq!(store.peek_with(&1, |entry| *entry.value()), None);
}

#[test]
fn a_panicking_listener_harms_nothing() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = || {
        let told = Arc::clone(&told);
        move |_: &u64, _: &crate::Entry<u64>, _: Cause| {
            told.fetch_add(1, Ordering::Relaxed);
            panic!("listener");
        }
    };
    survives_a_panicking_listener(&Memory::new(4).on_removal(count()), &told);
    survives_a_panicking_listener(&Lru::new(4).on_removal(count()), &told);
    survives_a_panicking_listener(&Single::new().on_removal(count()), &told);
}

#[test]
fn every_entry_is_told_of_even_if_the_listener_panics_at_the_first() {
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let memory = Memory::<u64, Item>::weighing(10, by_weight()).on_removal(move |_, _, _| {
        heard.fetch_add(1, Ordering::Relaxed);
        panic!("listener");
    });
    let item = |weight| entry(Item { id: 0, weight, token: Arc::default() });
    for key in 0..10 {
        ready(memory.set(&key, item(1))).unwrap();
    }
    assert!(panics(|| drop(ready(memory.set(&10, item(10))))));
    assert_eq!(told.load(Ordering::Relaxed), 10);
    assert_eq!((memory.len(), memory.weight()), (Some(1), Some(10)));
}

fn survives_a_panicking_weigher<S: Evict<Key = u64, Value = u64>>(store: &S) {
    ready(store.set(&1, entry(5))).unwrap();
    assert!(panics(|| drop(ready(store.set(&1, entry(u64::MAX))))));
    assert!(panics(|| drop(ready(store.set(&2, entry(u64::MAX))))));
    // S4: the old entry is still legal, and here it is the one.
    assert_eq!(store.peek_with(&1, |entry| *entry.value()), Some(5));
    assert_eq!((store.len(), store.weight()), (Some(1), Some(5)));
    ready(store.set(&2, entry(10))).unwrap();
    assert_eq!((store.len(), store.weight()), (Some(1), Some(10)));
}

#[test]
fn a_panicking_weigher_harms_nothing() {
    let weigher = || {
        Weigher::<u64, u64>::new(|_, value| {
            assert_ne!(*value, u64::MAX, "weigher");
            *value
        })
    };
    survives_a_panicking_weigher(&Memory::weighing(10, weigher()));
    survives_a_panicking_weigher(&Lru::weighing(10, weigher()));
}

#[test]
fn without_a_listener_what_leaves_is_dropped() {
    fn check(store: &impl Store<Key = u64, Value = Item>) {
        let token = Arc::new(());
        for key in [1, 1, 2, 3, 4] {
            ready(store.set(&key, entry(Item { id: 0, weight: 0, token: Arc::clone(&token) }))).unwrap();
        }
        assert_eq!(Arc::strong_count(&token) as u64, 1 + store.len().unwrap());
        ready(store.remove(&4)).unwrap();
        ready(store.clear()).unwrap();
        assert_eq!(Arc::strong_count(&token), 1);
    }
    check(&Memory::new(2));
    check(&Lru::new(2));
    check(&Single::new());
}

/// A listener that writes to, reads from and clears its own store: it runs outside all locks.
fn may_call_back<S>(build: impl FnOnce(Box<dyn Fn(&str, Cause) + Send + Sync>) -> S)
where
    S: ClearPrefix<Value = u64> + 'static,
{
    let own: Arc<OnceLock<Weak<S>>> = Arc::default();
    let late = Arc::clone(&own);
    let store = Arc::new(build(Box::new(move |key, cause| {
        let Some(store) = late.get().and_then(Weak::upgrade) else { return };
        store.peek_with(key, |_| ());
        assert!(store.len().is_some());
        if cause != Cause::Cleared && key != "end" {
            ready(store.set("end", entry(0))).unwrap();
            ready(store.remove("end")).unwrap();
            ready(store.clear()).unwrap();
        }
    })));
    own.set(Arc::downgrade(&store)).unwrap();
    for key in ["a", "b", "a", "c", "d"] {
        ready(store.set(key, entry(1))).unwrap();
    }
    ready(store.remove("d")).unwrap();
    ready(store.clear_prefix("c")).unwrap();
    ready(store.clear()).unwrap();
    assert_eq!(store.len(), Some(0));
}

#[test]
fn a_listener_may_call_the_store() {
    may_call_back(|heard| Memory::<str, u64>::new(2).on_removal(move |key, _, cause| heard(key, cause)));
    may_call_back(|heard| Lru::<str, u64>::new(2).on_removal(move |key, _, cause| heard(key, cause)));
    may_call_back(|heard| Single::<str, u64>::new().on_removal(move |key, _, cause| heard(key, cause)));
}

/// A value whose drop calls the store: it is dropped outside all locks too.
#[derive(Clone)]
struct Recursive(Arc<OnceLock<Weak<dyn Fn() + Send + Sync>>>);

impl Drop for Recursive {
    fn drop(&mut self) {
        if let Some(call) = self.0.get().and_then(Weak::upgrade) {
            call();
        }
    }
}

fn drops_outside_locks(store: impl Store<Key = u64, Value = Recursive> + 'static) {
    let store = Arc::new(store);
    let slot: Arc<OnceLock<Weak<dyn Fn() + Send + Sync>>> = Arc::default();
    let inner = Arc::downgrade(&store);
    let call: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        if let Some(store) = inner.upgrade() {
            assert!(store.len().is_some());
            ready(store.remove(&99)).unwrap();
        }
    });
    slot.set(Arc::downgrade(&call)).unwrap();
    for key in [1, 1, 2, 3, 4] {
        ready(store.set(&key, entry(Recursive(Arc::clone(&slot))))).unwrap();
    }
    ready(store.remove(&4)).unwrap();
    ready(store.clear()).unwrap();
    assert_eq!(store.len(), Some(0));
}

#[test]
fn a_value_that_calls_the_store_as_it_is_dropped_does_not_deadlock() {
    drops_outside_locks(Memory::new(2));
    drops_outside_locks(Lru::new(2));
    drops_outside_locks(Single::new());
}
