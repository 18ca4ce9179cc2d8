//! What an entry takes of the heap.

use serde::Serialize;

use crate::measure::ratio;
use crate::rivals::{Cached, Cachet, Foyer, Larder, MiniMoka, Moka, MokaFuture, QuickCache, Rival};
use crate::rows::Scale;

/// Entries of one kind: how many, what is stored, the goal in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// Bytes of a key and a value, and of what they own.
    pub(crate) payload: usize,
    /// Bytes an entry of larder at most.
    pub(crate) goal: usize,
    /// Entries, but for a quick run.
    entries: usize,
    measure: fn(&Wanted<'_>, usize) -> Vec<Footprint>,
}

/// Which caches take part.
pub(crate) type Wanted<'a> = dyn Fn(&str) -> bool + 'a;

/// What a cache takes.
#[derive(Serialize)]
pub(crate) struct Footprint {
    pub(crate) rival: &'static str,
    /// Live bytes of the heap for each entry that is held.
    pub(crate) bytes_per_entry: f64,
    /// Entries that are held, of those that there is room for.
    pub(crate) held: f64,
}

/// Two strings, and what they own.
const PAGE: usize = 24 + 12 + 24 + 1024;

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        id: "bytes-u64",
        title: "`u64` to `u64`, with deadlines",
        payload: 16,
        goal: 80,
        entries: 1_000_000,
        measure: |wanted, entries| {
            let key = |number: usize| number as u64;
            each(wanted, entries, &key, &key)
        },
    },
    Kind {
        id: "bytes-text",
        title: "`String` (12 bytes) to `String` (1 KiB)",
        payload: PAGE,
        goal: PAGE + 100,
        entries: 100_000,
        measure: |wanted, entries| {
            each(wanted, entries, &|number| format!("user:{number:07}"), &|_| "x".repeat(1024))
        },
    },
];

impl Kind {
    /// How many entries, and what those of the caches take that are wanted.
    pub(crate) fn measure(&self, scale: Scale, wanted: &Wanted<'_>) -> (usize, Vec<Footprint>) {
        let entries = scale.of(self.entries);
        (entries, (self.measure)(wanted, entries))
    }
}

fn each<K, V>(
    wanted: &Wanted<'_>,
    entries: usize,
    key: &dyn Fn(usize) -> K,
    value: &dyn Fn(usize) -> V,
) -> Vec<Footprint>
where
    K: crate::rivals::Key,
    V: crate::rivals::Value,
{
    let footprints = [
        of::<Larder<K, V>>(wanted, entries, key, value),
        of::<QuickCache<K, V>>(wanted, entries, key, value),
        of::<Moka<K, V>>(wanted, entries, key, value),
        of::<MokaFuture<K, V>>(wanted, entries, key, value),
        of::<MiniMoka<K, V>>(wanted, entries, key, value),
        of::<Foyer<K, V>>(wanted, entries, key, value),
        of::<Cached<K, V>>(wanted, entries, key, value),
        of::<Cachet<K, V>>(wanted, entries, key, value),
    ];
    footprints.into_iter().flatten().collect()
}

/// The growth of the heap from before the cache is made to when all entries are set, all on this thread.
#[expect(clippy::cast_precision_loss, reason = "bytes of a bench")]
fn of<R: Rival>(
    wanted: &Wanted<'_>,
    entries: usize,
    key: &dyn Fn(usize) -> R::Key,
    value: &dyn Fn(usize) -> R::Value,
) -> Option<Footprint> {
    if !wanted(R::NAME) {
        return None;
    }
    let mut cache = None;
    let counted = allocation_counter::measure(|| {
        let filled = R::new(entries);
        for number in 0..entries {
            filled.set(&key(number), value(number));
        }
        filled.settle();
        cache = Some(filled);
    });
    let cache = cache?;
    let held = (0..entries).filter(|number| cache.read(&key(*number), |_| ()).is_some()).count();
    Some(Footprint {
        rival: R::NAME,
        bytes_per_entry: counted.bytes_current as f64 / held.max(1) as f64,
        held: ratio(held as u64, entries as u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rivals::at_once;

    /// Holds the first `ROOM` entries, each in a box of `BYTES` bytes.
    struct Boxes(std::sync::Mutex<std::collections::BTreeMap<u64, Box<[u8; BYTES]>>>);

    const BYTES: usize = 4096;
    const ROOM: usize = 100;

    impl Rival for Boxes {
        type Key = u64;
        type Value = u64;

        const NAME: &'static str = "boxes";

        fn new(_capacity: usize) -> Self {
            Self(std::sync::Mutex::default())
        }

        fn get(&self, key: &u64) -> Option<u64> {
            self.0.lock().unwrap().get(key).map(|_| *key)
        }

        fn set(&self, key: &u64, _value: u64) {
            let mut held = self.0.lock().unwrap();
            if held.len() < ROOM {
                held.insert(*key, Box::new([0; BYTES]));
            }
        }

        async fn get_or_compute<F, Fut>(&self, _key: &u64, compute: F) -> u64
        where
            F: FnOnce() -> Fut + Send + 'static,
            Fut: Future<Output = u64> + Send + 'static,
        {
            at_once(compute())
        }

        fn expire(&self, _key: &u64) {}
    }

    #[test]
    fn bytes_are_those_of_the_entries_that_are_held() {
        let number = |number: usize| number as u64;
        let found = of::<Boxes>(&|_| true, 400, &number, &number).unwrap();
        assert!((found.held - 0.25).abs() < 1e-9, "{}", found.held);
        let [least, most] = [4096.0, 4096.0 + 100.0];
        assert!((least..most).contains(&found.bytes_per_entry), "{}", found.bytes_per_entry);
        assert!(of::<Boxes>(&|_| false, 400, &number, &number).is_none());
    }
}
