//! The laws of removal under real threads, where schedules are the machine's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Cache, Memory, Store, StoreExt};

const ROUNDS: u64 = 2_000;
const READERS: usize = 6;

/// A version that only grows; computations read it, then dawdle.
#[derive(Clone, Default)]
struct Origin(Arc<AtomicU64>);

impl Origin {
    async fn compute(self, dawdle: u64) -> u64 {
        let version = self.0.load(Ordering::SeqCst);
        for _ in 0..dawdle {
            tokio::task::yield_now().await;
        }
        version
    }
}

/// E4, C3: once a removal is acknowledged, nobody is given what was computed before it, whatever is on
/// its way to the store at that moment.
#[expect(clippy::disallowed_methods, reason = "the readers are tasks of the test")]
async fn nothing_comes_back(store: impl Store<Key = u64, Value = u64> + 'static) {
    let cache = Cache::builder(store).ttl(Duration::from_secs(3600)).build().unwrap();
    let (origin, removed) = (Origin::default(), Arc::new(AtomicU64::new(0)));
    let mut readers = Vec::new();
    for reader in 0..READERS as u64 {
        let (cache, origin, removed) = (cache.clone(), origin.clone(), Arc::clone(&removed));
        readers.push(tokio::spawn(async move {
            let mut round = reader;
            while removed.load(Ordering::SeqCst) < ROUNDS {
                let least = removed.load(Ordering::SeqCst);
                let compute = origin.clone();
                let dawdle = round % 16;
                let value = cache.get_or_compute(&1, move || compute.compute(dawdle)).await.unwrap();
                assert!(value >= least, "version {value} came back after version {least} was acknowledged");
                round += 1;
                tokio::task::yield_now().await;
            }
        }));
    }
    for version in 1..=ROUNDS {
        origin.0.store(version, Ordering::SeqCst);
        match version % 4 {
            0 => cache.clear().await.unwrap(),
            _ => cache.remove(&1).await.unwrap(),
        }
        removed.store(version, Ordering::SeqCst);
        // Removals in a row overtake flights under way; then a pause, for those to arrive where they must not.
        if version % 3 == 0 {
            for _ in 0..40 {
                tokio::task::yield_now().await;
            }
            let compute = origin.clone();
            let value = cache.get_or_compute(&1, move || compute.compute(1)).await.unwrap();
            assert_eq!(value, version, "what was computed before the removal came back");
        } else {
            tokio::task::yield_now().await;
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(cache.is_idle());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn e4_nothing_comes_back_under_real_threads() {
    nothing_comes_back(Memory::<u64, u64>::new(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c3_nothing_comes_back_through_a_chain_under_real_threads() {
    nothing_comes_back(Memory::<u64, u64>::new(100).chain(Memory::new(100))).await;
}
