//! What is the engine's alone. The laws over stacks and schedules stand in `src/tests/`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::sync::Mutex;
use crate::testkit::{Fault, Faulty};
use crate::{
    Cache, CacheBuilder, Clock, Computed, Description, Entry, Error, ErrorKind, Lifetime, ManualClock,
    Operation, Result, SetOutcome, Store, StoreExt, Timestamp,
};

const SECOND: Duration = Duration::from_secs(1);

/// A map that answers at once.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<HashMap<String, Entry<u64>>>>);

impl Store for Shelf {
    type Key = str;
    type Value = u64;

    async fn get(&self, key: &str) -> Result<Option<Entry<u64>>> {
        Ok(self.peek_with(key, Entry::clone))
    }

    async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.0.lock().insert(key.to_owned(), entry);
        Ok(SetOutcome::Stored)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.0.lock().remove(key);
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.0.lock().clear();
        Ok(())
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<u64>) -> R) -> Option<R> {
        self.0.lock().get(key).map(read)
    }

    fn describe(&self) -> Description {
        Description::new("shelf")
    }
}

fn builder() -> (CacheBuilder<Shelf>, Shelf, ManualClock) {
    let (shelf, clock) = (Shelf::default(), ManualClock::new(Timestamp::from_nanos(1_000)));
    (Cache::builder(shelf.clone()).clock(clock.clone()), shelf, clock)
}

/// E1, E2: what is shown without being cloned is the fresh value, and nothing else.
#[tokio::test]
async fn a_value_is_shown_while_it_is_fresh() {
    let (builder, _, clock) = builder();
    let cache = builder.ttl(SECOND).stale(SECOND).build().unwrap();
    assert_eq!(cache.peek_with("k", |value| *value), None);
    cache.set("k", 7).await.unwrap();
    clock.advance(SECOND);
    assert_eq!(cache.peek_with("k", |value| value + 1), Some(8));
    clock.advance(Duration::from_nanos(1));
    assert_eq!(cache.peek_with("k", |value| *value), None, "stale");
}

/// E2: a stale entry that came into the fast tier while the key's flight reads a slow one is served at once.
#[tokio::test(start_paused = true)]
async fn e2_who_finds_a_stale_entry_waits_for_no_flight_that_still_reads() {
    let (_, upper, clock) = builder();
    let lower = Faulty::new(Shelf::default());
    lower.faults().always(Operation::Get, Fault::HangBefore);
    let cache = Cache::builder(upper.clone().chain(lower))
        .clock(clock.clone())
        .ttl(SECOND)
        .stale(5 * SECOND)
        .build()
        .unwrap();
    let mut first = std::pin::pin!(cache.get_or_compute("k", || async { 2 }));
    let reads = std::future::poll_fn(|context| Poll::Ready(first.as_mut().poll(context))).await;
    assert!(reads.is_pending());
    let began = clock.now();
    let entry = Entry::new(1, Lifetime::new(began, began, began.saturating_add(5 * SECOND), began));
    upper.set("k", entry).await.unwrap();
    clock.advance(SECOND);
    assert_eq!(cache.get_or_compute("k", || async { 3 }).await.unwrap(), 1);
}

/// E18, E15: a key of a batch that is due is served at once and refreshed behind, one that is not is a hit.
#[tokio::test]
async fn e18_a_key_of_a_batch_that_is_due_is_served_and_refreshed() {
    let (builder, _, clock) = builder();
    let cache = builder.ttl(10 * SECOND).refresh_ahead(0.5).build().unwrap();
    cache.set("due", 1).await.unwrap();
    clock.advance(6 * SECOND);
    cache.set("young", 2).await.unwrap();
    let doubled = |keys: Vec<String>| async move {
        assert_eq!(keys, ["due"]);
        vec![("due".to_owned(), 3)]
    };
    let served = cache.get_or_compute_many(&["young", "due"], doubled).await;
    assert_eq!(served.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 1]);
    while !cache.is_idle() {
        tokio::task::yield_now().await;
    }
    assert_eq!((cache.peek("young"), cache.peek("due")), (Some(2), Some(3)));
}

/// E15: what is due and what is stale is refreshed by one computation, which gets its keys in the order asked.
#[tokio::test]
async fn e15_what_is_due_and_what_is_stale_is_refreshed_in_order() {
    let (builder, _, clock) = builder();
    let cache = builder.ttl(10 * SECOND).stale(10 * SECOND).refresh_ahead(0.5).build().unwrap();
    cache.set("stale", 1).await.unwrap();
    clock.advance(5 * SECOND);
    for due in ["due", "also due"] {
        cache.set(due, 1).await.unwrap();
    }
    clock.advance(6 * SECOND);
    let doubled = |keys: Vec<String>| async move {
        assert_eq!(keys, ["due", "stale", "also due"]);
        keys.into_iter().map(|key| (key, 2)).collect::<Vec<_>>()
    };
    let served = cache.get_or_compute_many(&["due", "stale", "also due"], doubled).await;
    assert_eq!(served.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 1, 1]);
    while !cache.is_idle() {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.peek("stale"), Some(2));
}

/// E19: the keys of a batch share the budget with all others.
#[tokio::test]
async fn e19_a_batch_refreshes_no_more_than_the_budget_allows() {
    for by_rate in [false, true] {
        let (builder, _, clock) = builder();
        let builder = builder.ttl(10 * SECOND).refresh_ahead(0.5);
        let builder = if by_rate { builder.refreshes_per_second(1.0) } else { builder.max_refreshes(1) };
        let cache = builder.build().unwrap();
        for key in ["a", "b"] {
            cache.set(key, 1).await.unwrap();
        }
        clock.advance(6 * SECOND);
        let doubled = |keys: Vec<String>| async move {
            assert_eq!(keys.len(), 1);
            keys.into_iter().map(|key| (key, 2)).collect::<Vec<_>>()
        };
        let served = cache.get_or_compute_many(&["a", "b"], doubled).await;
        assert_eq!(served.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 1]);
        while !cache.is_idle() {
            tokio::task::yield_now().await;
        }
        assert_eq!((cache.peek("a"), cache.peek("b")), (Some(2), Some(1)), "by rate: {by_rate}");
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_refused_by_name() {
    type Setting = fn(CacheBuilder<Shelf>) -> CacheBuilder<Shelf>;
    let wrong: &[(&str, Setting)] = &[
        ("policy", |b| b),
        ("ttl", |b| b.ttl(Duration::ZERO)),
        ("no_expiration", |b| b.ttl(SECOND).no_expiration()),
        ("stale", |b| b.no_expiration().stale(SECOND)),
        ("jitter", |b| b.ttl(SECOND).jitter(f64::NAN)),
        ("jitter", |b| b.ttl(SECOND).jitter(1.5)),
        ("jitter", |b| b.no_expiration().jitter(0.5)),
        ("refresh_ahead", |b| b.ttl(SECOND).refresh_ahead(0.0)),
        ("refresh_ahead", |b| b.ttl(SECOND).refresh_ahead(1.0)),
        ("refresh_ahead", |b| b.ttl(SECOND).refresh_ahead(f64::NAN)),
        ("refresh_ahead", |b| b.ttl(SECOND).refresh_ahead(0.5).refresh_ahead_by_cost(1.0)),
        ("refresh_ahead", |b| b.no_expiration().refresh_ahead(0.5)),
        ("refresh_ahead_by_cost", |b| b.no_expiration().refresh_ahead_by_cost(1.0)),
        ("refresh_ahead_by_cost", |b| b.ttl(SECOND).refresh_ahead_by_cost(-1.0)),
        ("refresh_ahead_by_cost", |b| b.ttl(SECOND).refresh_ahead_by_cost(f64::INFINITY)),
        ("load_timeout", |b| b.ttl(SECOND).load_timeout(Duration::ZERO)),
        ("refresh_timeout", |b| b.ttl(SECOND).refresh_timeout(Duration::ZERO)),
        ("max_refreshes", |b| b.ttl(SECOND).max_refreshes(0)),
        ("refreshes_per_second", |b| b.ttl(SECOND).refreshes_per_second(0.0)),
        ("refreshes_per_second", |b| b.ttl(SECOND).refreshes_per_second(-1.0)),
        ("refreshes_per_second", |b| b.ttl(SECOND).refreshes_per_second(f64::NAN)),
        ("refreshes_per_second", |b| b.ttl(SECOND).refreshes_per_second(f64::INFINITY)),
    ];
    for (culprit, set) in wrong {
        let error = set(builder().0).build().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let named = format!("cache: build: invalid input: {culprit}: ");
        assert!(error.to_string().starts_with(&named), "{error}");
    }
    for right in [builder().0.bypass(), builder().0.ttl(Duration::MAX).stale(Duration::MAX).jitter(1.0)] {
        right.build().unwrap();
    }
}

#[tokio::test]
async fn e13_a_value_is_as_old_as_the_beginning_of_its_computation_and_lives_from_its_end() {
    let (builder, shelf, clock) = builder();
    let cache = builder.ttl(SECOND).build().unwrap();
    let later = clock.clone();
    let began = clock.now();
    let value = cache
        .get_or_compute("k", move || async move {
            later.advance(3 * SECOND);
            7
        })
        .await;
    assert_eq!(value.unwrap(), 7);
    let life = shelf.peek_with("k", Entry::lifetime).unwrap();
    assert_eq!(life.created_at(), began);
    assert_eq!(life.fresh_until(), began.saturating_add(4 * SECOND));
    clock.set(life.fresh_until());
    assert_eq!(cache.peek("k"), Some(7));
    clock.advance(Duration::from_nanos(1));
    assert_eq!((cache.peek("k"), cache.get("k").await.unwrap()), (None, None));
    assert!(cache.is_idle());
}

#[tokio::test]
async fn c1_a_stale_copy_above_hides_no_fresh_one_below_that_is_told_at_once() {
    let (upper, lower, clock) = (Shelf::default(), Shelf::default(), ManualClock::new(Timestamp::EPOCH));
    let second = Timestamp::EPOCH.saturating_add(SECOND);
    let stale = Lifetime::new(Timestamp::EPOCH, second, Timestamp::MAX, Timestamp::MAX);
    upper.set("k", Entry::new(1, stale)).await.unwrap();
    lower.set("k", Entry::fresh_for(2, Timestamp::EPOCH, 9 * SECOND)).await.unwrap();
    let stack = upper.clone().chain(lower);
    let cache = Cache::builder(stack).ttl(SECOND).stale(SECOND).clock(clock.clone()).build().unwrap();
    clock.advance(2 * SECOND);
    assert_eq!(cache.get_or_compute("k", || async { 3 }).await.unwrap(), 2);
    assert_eq!(upper.peek_with("k", |entry| *entry.value()), Some(2), "copied upwards");
}

#[tokio::test]
async fn e2_a_stale_hit_waits_for_no_part_of_its_refresh() {
    let (builder, _, clock) = builder();
    let cache = builder.ttl(SECOND).stale(SECOND).build().unwrap();
    cache.set("k", 1).await.unwrap();
    clock.advance(2 * SECOND);
    let began = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&began);
    // This one works before its first await, where it would hold up whoever polls it.
    let busy = move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { 2 }
    };
    assert_eq!(cache.get_or_compute("k", busy).await.unwrap(), 1);
    assert_eq!((began.load(Ordering::SeqCst), cache.peek("k")), (0, None));
    while !cache.is_idle() {
        tokio::task::yield_now().await;
    }
    assert_eq!((began.load(Ordering::SeqCst), cache.peek("k")), (1, Some(2)));
}

#[test]
fn outside_a_runtime_a_refresh_that_ends_at_once_runs() {
    let (builder, shelf, clock) = builder();
    let cache = builder.ttl(SECOND).stale(SECOND).build().unwrap();
    crate::tests::ready(cache.set("k", 1)).unwrap();
    clock.advance(2 * SECOND);
    assert_eq!(crate::tests::ready(cache.get_or_compute("k", || async { 2 })).unwrap(), 1);
    assert_eq!(shelf.peek_with("k", |entry| *entry.value()), Some(2));
}

#[tokio::test]
async fn e2_the_same_holds_for_a_store_that_is_only_read_by_waiting() {
    // Hides what the shelf could tell at once.
    struct Remote(Shelf);
    impl Store for Remote {
        type Key = str;
        type Value = u64;

        async fn get(&self, key: &str) -> Result<Option<Entry<u64>>> {
            self.0.get(key).await
        }

        async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
            self.0.set(key, entry).await
        }

        async fn remove(&self, key: &str) -> Result<()> {
            self.0.remove(key).await
        }

        async fn clear(&self) -> Result<()> {
            self.0.clear().await
        }
    }
    let clock = ManualClock::new(Timestamp::EPOCH);
    let builder = Cache::builder(Remote(Shelf::default())).clock(clock.clone());
    let cache = builder.ttl(SECOND).stale(SECOND).build().unwrap();
    cache.set("k", 1).await.unwrap();
    clock.advance(2 * SECOND);
    let began = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&began);
    let busy = move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { 2 }
    };
    assert_eq!(cache.get_or_compute("k", busy).await.unwrap(), 1);
    assert_eq!(began.load(Ordering::SeqCst), 0);
    while !cache.is_idle() {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.get("k").await.unwrap(), Some(2));
}

#[tokio::test]
async fn jitter_with_a_seed_is_repeatable() {
    let mut deadlines = Vec::new();
    for seed in [1, 1, 2] {
        let (builder, shelf, _) = builder();
        let cache = builder.ttl(SECOND).jitter(1.0).jitter_seed(seed).build().unwrap();
        cache.set("k", 1).await.unwrap();
        deadlines.push(shelf.peek_with("k", Entry::lifetime).unwrap().fresh_until());
    }
    assert_eq!(deadlines[0], deadlines[1]);
    assert_ne!(deadlines[0], deadlines[2]);
}

#[tokio::test]
async fn an_error_is_shared_with_its_source_and_not_cached() {
    let cache = builder().0.ttl(SECOND).build().unwrap();
    let failing = || async { Err::<u64, _>(std::io::Error::other("origin is down")) };
    let error = cache.get_or_try_compute("k", failing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Computation);
    assert_eq!(error.source_as::<std::io::Error>().unwrap().to_string(), "origin is down");
    assert_eq!(cache.get_or_compute("k", || async { 1 }).await.unwrap(), 1);
}

#[tokio::test]
async fn a_computation_that_asks_for_its_own_key_is_told_so() {
    let cache = builder().0.ttl(SECOND).build().unwrap();
    let (inner, outer) = (cache.clone(), cache.clone());
    let result = outer
        .get_or_try_compute("a", move || async move {
            let again = inner.clone();
            inner
                .get_or_try_compute(
                    "b",
                    move || async move { again.get_or_compute("a", || async { 1 }).await },
                )
                .await
        })
        .await;
    let error = result.unwrap_err();
    let below: &Error = error.source_as().unwrap();
    let cycle: &Error = below.source_as().unwrap();
    assert_eq!(cycle.kind(), ErrorKind::Cycle);
    assert!(cache.is_idle());
}

#[tokio::test]
async fn unchanged_extends_the_life_of_the_entry_that_was_given() {
    let (builder, shelf, clock) = builder();
    let cache = builder.ttl(SECOND).keep_stale_on_error(9 * SECOND).build().unwrap();
    cache.set_with("k", Computed::new(5).version("v1").tags(["t"])).await.unwrap();
    clock.advance(2 * SECOND);
    let began = clock.now();
    let answer = cache
        .get_or_recompute("k", |held| async move {
            assert_eq!(held.unwrap().version().map(AsRef::as_ref), Some("v1"));
            Ok::<_, Error>(Computed::unchanged())
        })
        .await;
    assert_eq!(answer.unwrap(), 5);
    let entry = shelf.peek_with("k", Entry::clone).unwrap();
    assert_eq!((entry.created_at(), entry.version().map(AsRef::as_ref)), (began, Some("v1")));
    assert_eq!(entry.tags().len(), 1);
    assert_eq!(cache.peek("k"), Some(5));
}

#[tokio::test]
async fn unchanged_without_an_entry_is_an_error_that_says_so() {
    let cache = builder().0.ttl(SECOND).build().unwrap();
    let unchanged = |_| async { Ok::<Computed<u64>, Error>(Computed::unchanged()) };
    let error = cache.get_or_recompute("k", unchanged).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("unchanged"), "{error}");
}

#[tokio::test]
async fn a_cache_with_a_loader_needs_no_closure() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let (builder, _, clock) = builder();
    let cache = builder
        .ttl(SECOND)
        .keep_stale_on_error(SECOND)
        .reloader(move |key: String, held: Option<Entry<u64>>| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                Ok::<_, Error>(match held {
                    Some(_) => Computed::unchanged(),
                    None => Computed::new(key.len() as u64),
                })
            }
        })
        .build()
        .unwrap();
    assert_eq!(cache.fetch("abc").await.unwrap(), 3);
    assert_eq!(cache.fetch("abc").await.unwrap(), 3);
    clock.advance(SECOND + SECOND / 2);
    assert_eq!(cache.fetch("abc").await.unwrap(), 3);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(cache.peek("abc"), Some(3), "the life of the entry began anew");
}

#[tokio::test]
async fn e10_bypass_touches_nothing() {
    let (builder, shelf, _) = builder();
    let cache = builder.bypass().build().unwrap();
    shelf.set("k", Entry::fresh_for(1, Timestamp::from_nanos(1_000), SECOND)).await.unwrap();
    assert_eq!(cache.get_or_compute("k", || async { 2 }).await.unwrap(), 2);
    assert_eq!((cache.peek("k"), cache.get("k").await.unwrap()), (None, None));
    cache.clear().await.unwrap();
    cache.remove("k").await.unwrap();
    assert!(cache.set("k", 3).await.unwrap() != SetOutcome::Stored);
    assert_eq!(shelf.peek_with("k", |entry| *entry.value()), Some(1));
}

#[test]
fn outside_a_runtime_what_ends_at_once_works_and_the_rest_says_what_it_needs() {
    let cache = builder().0.ttl(SECOND).build().unwrap();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let ready = std::pin::pin!(cache.get_or_compute("k", || async { 1 })).poll(&mut context);
    assert_eq!(ready.map(Result::unwrap), std::task::Poll::Ready(1));
    let stuck = std::pin::pin!(cache.get_or_compute("l", std::future::pending::<u64>)).poll(&mut context);
    let std::task::Poll::Ready(Err(error)) = stuck else { panic!("{stuck:?}") };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("runtime"), "{error}");
    assert!(cache.is_idle());
}

#[test]
fn a_cache_describes_itself_and_its_stack() {
    let cache = builder().0.ttl(60 * SECOND).stale(SECOND).keep_stale_on_error_forever().build().unwrap();
    assert_eq!(cache.describe().to_string(), "cache (ttl 60s, stale 1s, stale on error for ever)\n└─ shelf");
    let cache =
        builder().0.ttl(SECOND).jitter(0.25).strict().max_refreshes(1_000).load_timeout(SECOND).build();
    let told = "cache (ttl 1s, jitter 25 %, strict, load_timeout 1s, max_refreshes 1,000)\n└─ shelf";
    assert_eq!(cache.unwrap().describe().to_string(), told);
    let cache = builder().0.ttl(SECOND).refresh_ahead(0.8).refreshes_per_second(0.5).build();
    let told = "cache (ttl 1s, refresh_ahead 0.8, refreshes_per_second 0.5)\n└─ shelf";
    assert_eq!(cache.unwrap().describe().to_string(), told);
    let cache = builder().0.ttl(SECOND).refresh_ahead_by_cost(1.0).build();
    assert_eq!(cache.unwrap().describe().to_string(), "cache (ttl 1s, refresh_ahead_by_cost 1)\n└─ shelf");
}
