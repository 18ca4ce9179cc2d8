//! The work that every cache is given.
//!
//! Keys are made before the time begins. Every round checks that each call had the answer it should have.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use arc_swap::ArcSwap;

use crate::measure::{Run, Subject, Work, ratio, runtime};
use crate::rivals::{Dated, Rival, Stale, Value};

/// Tasks of a stampede.
pub(crate) const TASKS: usize = 64;
/// Keys of the work on many keys, and entries of the caches that it is given to.
const KEYS: u32 = 10_000;

type KeyOf<R> = <R as Rival>::Key;

fn subject<R: Rival>(id: &str, make: impl FnOnce() -> Work) -> Subject {
    let work = R::lacks(id).map_or_else(|| Ok(make()), Err);
    Subject { rival: R::NAME, lesser: R::lesser(id), work, hit_ratio: None }
}

/// A cache that holds `key`.
fn holding<R: Rival>(key: &KeyOf<R>) -> R {
    let cache = R::new(100);
    cache.set(key, R::Value::of(7));
    assert_eq!(cache.get(key), Some(R::Value::of(7)), "{}: what was set is read", R::NAME);
    cache
}

/// Reads one key and clones its value.
pub(crate) fn hot<R: Rival>(key: KeyOf<R>) -> Subject {
    subject::<R>("hot", || {
        let cache = holding::<R>(&key);
        Box::new(move |run| {
            run.spread(|_| {
                let hits = (0..run.calls).filter(|_| black_box(cache.get(black_box(&key))).is_some());
                assert_eq!(hits.count(), run.calls, "every read is a hit");
            })
        })
    })
}

/// Reads one key and looks at its value.
pub(crate) fn hot_read<R: Rival>(key: KeyOf<R>) -> Subject {
    subject::<R>("read", || {
        let cache = holding::<R>(&key);
        Box::new(move |run| {
            run.spread(|_| {
                let hits =
                    (0..run.calls).filter(|_| black_box(cache.read(black_box(&key), Value::word)).is_some());
                assert_eq!(hits.count(), run.calls, "every read is a hit");
            })
        })
    })
}

/// Asks for one key that is there, with a computation at hand.
pub(crate) fn compute_hit<R: Rival>(key: KeyOf<R>) -> Subject {
    subject::<R>("compute-hit", || {
        let cache = holding::<R>(&key);
        let runtime = runtime();
        let compute = || async { R::Value::of(8) };
        let found = runtime.block_on(cache.get_or_compute(&key, compute));
        assert_eq!(found, R::Value::of(7), "{}: a hit computes nothing", R::NAME);
        let held = found.word();
        Box::new(move |run| {
            run.spread_async(async |_| {
                let mut hits = 0;
                for _ in 0..run.calls {
                    let found = black_box(cache.get_or_compute(black_box(&key), compute).await);
                    hits += usize::from(found.word() == held);
                }
                assert_eq!(hits, run.calls, "every call is a hit");
            })
        })
    })
}

/// Reads any of 10,000 keys.
pub(crate) fn keys<R: Rival<Key = u64, Value = u64>>(requests: &Requests) -> Subject {
    subject::<R>("keys", || {
        let (cache, requests) = (R::new(2 * KEYS as usize), requests.clone());
        fill(&cache, KEYS.into());
        Box::new(move |run| {
            run.spread(|thread| {
                let hits = requests.of(thread, run.calls).filter(|(key, _)| cache.get(key) == Some(*key));
                assert_eq!(hits.count(), run.calls, "every read is a hit");
            })
        })
    })
}

/// Reads or writes any of 10,000 keys, one in five a write.
pub(crate) fn mix<R: Rival<Key = u64, Value = u64>>(requests: &Requests) -> Subject {
    subject::<R>("mix", || {
        let (cache, requests) = (R::new(2 * KEYS as usize), requests.clone());
        fill(&cache, KEYS.into());
        Box::new(move |run| {
            run.spread(|thread| {
                let hits = requests.of(thread, run.calls).filter(|(key, writes)| {
                    if *writes {
                        cache.set(key, *key);
                    }
                    *writes || cache.get(key) == Some(*key)
                });
                assert_eq!(hits.count(), run.calls, "every read is a hit");
            })
        })
    })
}

fn fill<R: Rival<Key = u64, Value = u64>>(cache: &R, keys: u64) {
    for key in 0..keys {
        cache.set(&key, key);
    }
    for key in 0..keys {
        assert_eq!(cache.get(&key), Some(key), "{}: there is room for all keys", R::NAME);
    }
}

/// Gets, and sets what was not there: in a cache smaller than the set of keys.
pub(crate) fn get_or_set<R: Rival<Key = u64, Value = u64>>(
    work: &'static str,
    capacity: usize,
    requests: &Requests,
) -> Subject {
    let mut hit_ratio = None;
    let mut subject = subject::<R>(work, || {
        let (cache, requests) = (R::new(capacity), requests.clone());
        let read = move |(key, _): (u64, bool)| {
            let Some(value) = cache.get(&key) else {
                cache.set(&key, key);
                return false;
            };
            assert_eq!(value, key, "a value belongs to its key");
            true
        };
        // The first half fills the cache, the second is counted.
        let half = requests.len() / 2;
        requests.of(0, half).for_each(|request| _ = read(request));
        let hits = requests.from(half, half).filter(|request| read(*request)).count();
        hit_ratio = Some(ratio(hits as u64, half as u64));
        Box::new(move |run| {
            // Each round goes on where the last one ended.
            let places: Vec<_> = (0..run.threads).map(|_| requests.take(run.calls)).collect();
            run.spread(|thread| {
                let hits = requests.from(places[thread], run.calls).filter(|request| read(*request));
                black_box(hits.count());
            })
        })
    });
    subject.hit_ratio = hit_ratio;
    subject
}

/// Asks for keys with a computation at hand, in a cache smaller than the set of keys.
pub(crate) fn get_or_compute<R: Rival<Key = u64, Value = u64>>(
    work: &'static str,
    capacity: usize,
    requests: &Requests,
) -> Subject {
    subject::<R>(work, || {
        let (cache, requests) = (R::new(capacity), requests.clone());
        let warm = requests.len() / 4;
        let ask = async |key: u64| {
            let found = cache.get_or_compute(&key, move || async move { key }).await;
            assert_eq!(found, key, "a value belongs to its key");
        };
        runtime().block_on(async {
            for (key, _) in requests.of(0, warm) {
                ask(key).await;
            }
        });
        Box::new(move |run| {
            let places: Vec<_> = (0..run.threads).map(|_| requests.take(run.calls)).collect();
            run.spread_async(async |thread| {
                for (key, _) in requests.from(places[thread], run.calls) {
                    let found = cache.get_or_compute(&key, move || async move { key }).await;
                    assert_eq!(found, key, "a value belongs to its key");
                }
            })
        })
    })
}

/// Sets keys that an empty cache does not know.
pub(crate) fn miss_set<R: Rival<Key = u64, Value = u64>>(requests: &Requests) -> Subject {
    subject::<R>("miss-set", || {
        let requests = requests.clone();
        Box::new(move |run| {
            let cache = R::new(2 * run.calls * run.threads);
            run.spread(|thread| {
                for (key, _) in requests.from(thread * run.calls, run.calls) {
                    cache.set(&key, key);
                }
            })
        })
    })
}

/// Asks an empty cache for keys that it computes.
pub(crate) fn miss_compute<R: Rival<Key = u64, Value = u64>>(requests: &Requests) -> Subject {
    subject::<R>("miss-compute", || {
        let requests = requests.clone();
        Box::new(move |run| {
            let cache = R::new(2 * run.calls * run.threads);
            run.spread_async(async |thread| {
                for (key, _) in requests.from(thread * run.calls, run.calls) {
                    black_box(cache.get_or_compute(&key, move || async move { key }).await);
                }
            })
        })
    })
}

/// 64 tasks ask at once for a key that is expired; one computation answers all. A call is one of the 64.
pub(crate) fn stampede<R: Rival<Key = u64, Value = u64>>() -> Subject {
    subject::<R>("stampede", || {
        let cache = R::expiring(KEYS as usize);
        Box::new(move |run| {
            let stampedes = (run.calls / TASKS).max(1) as u64;
            let run = Run { calls: stampedes as usize * TASKS, ..*run };
            (0..stampedes).for_each(|key| cache.expire(&key));
            let computed = Arc::new(AtomicU64::new(0));
            let sample = run.spread_async(async |_| {
                for key in 0..stampedes {
                    let call = || {
                        let computed = Arc::clone(&computed);
                        cache.get_or_compute(&key, move || async move {
                            tokio::task::yield_now().await;
                            computed.fetch_add(1, Ordering::Relaxed);
                            key
                        })
                    };
                    all((0..TASKS).map(|_| call())).await;
                }
            });
            assert_eq!(computed.load(Ordering::Relaxed), stampedes, "{}: one computation each", R::NAME);
            sample
        })
    })
}

/// Polls all of them whenever one is woken, until all are done.
async fn all(calls: impl Iterator<Item = impl Future>) {
    let mut calls: Vec<Pin<Box<_>>> = calls.map(Box::pin).collect();
    poll_fn(|context| {
        calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
        if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Asks for a stale entry whose refresh is under way.
pub(crate) fn stale<S: Stale>(key: String) -> Subject {
    let cache = S::new(key, S::Value::of(7));
    let held = S::Value::of(7).word();
    let work = move |run: &Run| {
        run.spread_async(async |_| {
            let mut hits = 0;
            for _ in 0..run.calls {
                hits += usize::from(black_box(cache.get().await).word() == held);
            }
            assert_eq!(hits, run.calls, "every call is a stale hit");
        })
    };
    Subject { rival: S::NAME, lesser: None, work: Ok(Box::new(work)), hit_ratio: None }
}

/// A cache that takes no part in the work on stale entries, and why.
pub(crate) fn not_stale<R: Rival>() -> Subject {
    let work = Err(R::lacks("stale").unwrap_or("not measured"));
    Subject { rival: R::NAME, lesser: None, work, hit_ratio: None }
}

/// The least that a reader of a single value with a deadline does: an `arc-swap` guard, and a look at the clock.
pub(crate) fn guard(clones: bool) -> Subject {
    let held = ArcSwap::from_pointee(Dated::new(<Arc<str>>::of(7)));
    let work = move |run: &Run| {
        run.spread(|_| {
            let hits = (0..run.calls).filter(|_| {
                let guard = black_box(&held).load();
                let value = guard.fresh();
                if clones {
                    black_box(value.cloned()).is_some()
                } else {
                    black_box(value.map(Value::word)).is_some()
                }
            });
            assert_eq!(hits.count(), run.calls, "every read is a hit");
        })
    };
    Subject {
        rival: "arc-swap",
        lesser: Some("no cache: the least that a read can do"),
        work: Ok(Box::new(work)),
        hit_ratio: None,
    }
}

/// Keys in the order in which they are asked for, with the sign of a write. Clones share it, and each goes its
/// own way through it.
pub(crate) struct Requests {
    keys: Arc<[u64]>,
    place: AtomicUsize,
}

const WRITES: u64 = 1 << 63;

impl Clone for Requests {
    fn clone(&self) -> Self {
        Self { keys: Arc::clone(&self.keys), place: AtomicUsize::new(0) }
    }
}

impl Requests {
    /// Any of `keys` keys with the same chance, one in five requests a write.
    pub(crate) fn uniform(keys: u64, length: usize) -> Self {
        let mut random = Random(keys);
        let request = |_| {
            let key = random.below(keys);
            if random.below(5) == 0 { key | WRITES } else { key }
        };
        Self::of_keys((0..length).map(request))
    }

    /// Every key once.
    pub(crate) fn distinct(length: usize) -> Self {
        Self::of_keys((0..length as u64).map(scattered))
    }

    /// Keys with the chances of Zipf's law, `1 / rank^skew`.
    #[expect(clippy::cast_precision_loss, reason = "a rank of a million")]
    pub(crate) fn zipf(keys: usize, skew: f64, length: usize) -> Self {
        let mut total = 0.0;
        let sums: Vec<f64> = (1..=keys)
            .map(|rank| {
                total += (rank as f64).powf(-skew);
                total
            })
            .collect();
        let mut random = Random(keys as u64);
        let unit = (1_u64 << 53) as f64;
        let request = |_| {
            let point = (random.next() >> 11) as f64 / unit * total;
            scattered(sums.partition_point(|sum| *sum <= point) as u64)
        };
        Self::of_keys((0..length).map(request))
    }

    fn of_keys(keys: impl Iterator<Item = u64>) -> Self {
        let keys: Arc<[u64]> = keys.collect();
        assert!(keys.len().is_power_of_two(), "places wrap around by a mask");
        Self { keys, place: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// A thread's share, the same every round.
    fn of(&self, thread: usize, count: usize) -> impl Iterator<Item = (u64, bool)> {
        self.from(thread * (self.len() / 7), count)
    }

    /// Where a walk through all goes on for `count` requests.
    fn take(&self, count: usize) -> usize {
        self.place.fetch_add(count, Ordering::Relaxed)
    }

    fn from(&self, place: usize, count: usize) -> impl Iterator<Item = (u64, bool)> {
        let keys = &*self.keys;
        (place..place + count).map(|place| {
            let key = keys[place & (keys.len() - 1)];
            (key & !WRITES, key & WRITES != 0)
        })
    }
}

/// A key of the same number in another place: neighbours in rank are no neighbours as keys.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) & !WRITES
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the same requests on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "counts of a test")]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use proptest::prelude::*;

    use crate::rivals::at_once;

    /// Exact LRU, the most recent last.
    struct Model {
        room: usize,
        held: Mutex<Vec<u64>>,
    }

    impl Rival for Model {
        type Key = u64;
        type Value = u64;

        const NAME: &'static str = "model";

        fn new(capacity: usize) -> Self {
            Self { room: capacity, held: Mutex::default() }
        }

        fn get(&self, key: &u64) -> Option<u64> {
            let mut held = self.held.lock().unwrap();
            let place = held.iter().position(|other| other == key)?;
            held[place..].rotate_left(1);
            Some(*key)
        }

        fn set(&self, key: &u64, _value: u64) {
            let mut held = self.held.lock().unwrap();
            if held.len() == self.room {
                held.remove(0);
            }
            held.push(*key);
        }

        async fn get_or_compute<F, Fut>(&self, key: &u64, compute: F) -> u64
        where
            F: FnOnce() -> Fut + Send + 'static,
            Fut: Future<Output = u64> + Send + 'static,
        {
            self.get(key).unwrap_or_else(|| at_once(compute()))
        }

        fn expire(&self, _key: &u64) {}
    }

    /// By stack distance (Mattson et al., 1970): a hit has fewer than `room` other keys since its last use.
    fn hits_of_the_second_half(keys: &[u64], room: usize) -> usize {
        (keys.len() / 2..keys.len())
            .filter(|now| {
                let last = keys[..*now].iter().rposition(|key| *key == keys[*now]);
                last.is_some_and(|last| keys[last + 1..*now].iter().collect::<BTreeSet<_>>().len() < room)
            })
            .count()
    }

    proptest! {
        #[test]
        fn the_hit_ratio_is_that_of_the_second_half(
            keys in prop::collection::vec(0..12u64, 64..=64),
            room in 1..10usize,
        ) {
            let subject = get_or_set::<Model>("model", room, &Requests::of_keys(keys.iter().copied()));
            let expected = hits_of_the_second_half(&keys, room) as f64 / 32.0;
            prop_assert_eq!(subject.hit_ratio, Some(expected));
        }
    }

    #[test]
    fn zipf_gives_each_rank_its_chance() {
        let (keys, length) = (1_000, 1 << 16);
        let requests = Requests::zipf(keys, 0.99, length);
        let total: f64 = (1..=keys).map(|rank| (rank as f64).powf(-0.99)).sum();
        for rank in [1_usize, 2, 10, 100] {
            let key = scattered(rank as u64 - 1);
            let is = requests.keys.iter().filter(|other| **other == key).count() as f64;
            let mean = (rank as f64).powf(-0.99) / total * length as f64;
            // Five standard deviations, of a seed that is always the same.
            assert!((is - mean).abs() < 5.0 * mean.sqrt(), "rank {rank}: {is} of {mean}");
        }
        assert!(requests.keys.iter().collect::<BTreeSet<_>>().len() <= keys);
    }

    #[test]
    fn uniform_requests_write_one_in_five_and_reach_every_key() {
        let requests = Requests::uniform(100, 1 << 14);
        let all: Vec<_> = requests.from(0, requests.len()).collect();
        let writes = all.iter().filter(|(_, writes)| *writes).count();
        assert!(writes.abs_diff(all.len() / 5) < all.len() / 50, "{writes}");
        let keys: BTreeSet<_> = all.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, (0..100).collect());
    }

    #[test]
    fn distinct_requests_are_distinct_and_a_walk_goes_on() {
        let requests = Requests::distinct(1 << 12);
        let keys: BTreeSet<_> = requests.from(0, requests.len()).collect();
        assert_eq!(keys.len(), requests.len());
        assert_eq!((requests.take(10), requests.take(5), requests.take(1)), (0, 10, 15));
        assert_eq!(requests.clone().take(1), 0, "each cache goes its own way");
        let around: Vec<_> = requests.from(requests.len() - 1, 2).collect();
        assert_eq!(around[1], requests.from(0, 1).next().unwrap());
    }
}
