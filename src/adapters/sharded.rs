//! Many small stores in place of one.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::next_answer;
use crate::describe::{Description, grouped};
use crate::entry::Entry;
use crate::error::{Error, Operation, Result};
use crate::store::{ClearPrefix, Evict, SetOutcome, Store};
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// `n` independent stores, each with its part of the keys, so that writers seldom wait for each other.
///
/// ```
/// use larder::{Memory, Sharded, Store, StoreExt};
///
/// // 10,000 entries and 64 MiB in all, whatever the number of shards.
/// let store = Sharded::new(8, |share| {
///     Memory::<str, String>::new(share.entries(10_000)).byte_limited(share.bytes(64 << 20))
/// })?;
/// assert_eq!(store.describe().parameter("shards"), Some("8"));
///
/// // A number from a config file that makes no sense is an error that names it.
/// let error = Sharded::new(0, |share| Memory::<str, String>::new(share.entries(10_000))).unwrap_err();
/// assert!(error.to_string().contains("shards: 0"));
/// # Ok::<(), larder::Error>(())
/// ```
///
/// [`Memory`](crate::Memory) is concurrent by itself and gains little. What gains is a store with one
/// lock, such as [`Lru`](crate::Lru), and whatever makes its writers take turns.
///
/// A key belongs to one shard, by the high bits of a hash of which every bit depends on every bit of the
/// key: of 1,024 consecutive integers, each of 64 shards gets 7 to 26, and of as many that lie 64 or 65,536
/// apart 4 to 31, as if drawn at random. The seed is fixed, so every process of one build routes alike; it
/// is no defence against keys that somebody chose so that they meet in one shard.
///
/// Costs: a hash a call. A bulk call becomes one bulk call a shard, one after the other. `clear`,
/// `flush`, `len` and `weight` ask every shard.
///
/// # Order
///
/// A limit inside the shards has one lock a shard, and bounds each by its part. A limit around them is
/// one lock for all writers, and evicts from the heaviest shard; it is exact where entries are large in
/// comparison to a part. An entry must fit into the part:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use larder::{Entry, Lifetime, Memory, Refusal, SetOutcome, Sharded, Store, StoreExt, Timestamp};
///
/// let large = Entry::new("x".repeat(600_000), Lifetime::forever(Timestamp::EPOCH));
///
/// let inside = Sharded::new(4, |share| {
///     Memory::<str, String>::new(share.entries(100)).byte_limited(share.bytes(1 << 20))
/// })?;
/// assert_eq!(inside.set("a", large.clone()).await?, SetOutcome::Refused(Refusal::TooLarge));
///
/// let around = Sharded::new(4, |share| Memory::<str, String>::new(share.entries(100)))?.byte_limited(1 << 20);
/// assert_eq!(around.set("a", large).await?, SetOutcome::Stored);
/// # Ok::<(), larder::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Sharded<S> {
    shards: Box<[S]>,
    routing: FixedState,
}

/// Which of how many shards is being made, and what falls to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: usize,
    shards: usize,
}

impl Share {
    /// This shard's part of `total` entries. The parts of all shards sum up to `total` and differ by one
    /// at most, so with fewer entries than shards some shards get none.
    pub const fn entries(self, total: usize) -> usize {
        total / self.shards + (self.index < total % self.shards) as usize
    }

    /// This shard's part of `total` bytes; the parts of all shards sum up to `total`.
    pub const fn bytes(self, total: u64) -> u64 {
        let (index, shards) = (self.index as u64, self.shards as u64);
        total / shards + (index < total % shards) as u64
    }

    /// The number of this shard, from 0.
    pub const fn index(self) -> usize {
        self.index
    }

    /// The number of all shards.
    pub const fn shards(self) -> usize {
        self.shards
    }
}

const MAX_SHARDS: usize = 1 << 16;

/// Nothing up its sleeve; only different from what the tables inside the shards are seeded with, so that
/// a shard's keys do not also share the bits that its table looks at.
const SEED: u64 = u64::from_be_bytes(*b"sharded!");

impl<S> Sharded<S> {
    /// `shards` stores (1 to 65,536) made by `make`, which is told which one it makes.
    pub fn new(shards: usize, make: impl FnMut(Share) -> S) -> Result<Self> {
        if !(1..=MAX_SHARDS).contains(&shards) {
            let message = format!("shards: {shards} is not between 1 and 65,536");
            return Err(Error::invalid("sharded", message));
        }
        let shards = (0..shards).map(|index| Share { index, shards }).map(make).collect();
        Ok(Self { shards, routing: FixedState::with_seed(SEED) })
    }
}

impl<S: Store> Sharded<S> {
    fn route(&self, key: &S::Key) -> usize {
        let hash = u128::from(self.routing.hash_one(key));
        // The high bits of the product: uniform for any number of shards, and no division. It is below
        // the number of shards, so it fits.
        #[expect(clippy::cast_possible_truncation, reason = "below the number of shards")]
        let index = ((hash * self.shards.len() as u128) >> 64) as usize;
        index
    }

    fn shard(&self, key: &S::Key) -> &S {
        &self.shards[self.route(key)]
    }

    /// The positions of `keys`, those of one shard together, each group in order.
    fn groups<'k>(&self, keys: impl Iterator<Item = &'k S::Key>) -> Vec<(usize, usize)> {
        let mut order: Vec<_> = keys.enumerate().map(|(position, key)| (self.route(key), position)).collect();
        order.sort_unstable();
        order
    }

    fn sum(&self, count: impl Fn(&S) -> Option<u64>) -> Option<u64> {
        self.shards.iter().map(count).try_fold(0, |sum: u64, count| Some(sum.saturating_add(count?)))
    }
}

/// Puts the answers of one group of positions where they belong.
fn place<T>(
    results: &mut [Option<Result<T>>],
    group: &[(usize, usize)],
    answers: Vec<Result<T>>,
    operation: Operation,
) {
    let mut answers = answers.into_iter();
    for (_, position) in group {
        results[*position] = Some(next_answer(&mut answers, "sharded", operation));
    }
}

fn slots<T>(count: usize) -> Vec<Option<T>> {
    std::iter::repeat_with(|| None).take(count).collect()
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every sharded stack")]
impl<S: Store> Store for Sharded<S> {
    type Key = S::Key;
    type Value = S::Value;

    fn get(&self, key: &S::Key) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.shard(key).get(key)
    }

    fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> impl Future<Output = Result<SetOutcome>> + Send {
        self.shard(key).set(key, entry)
    }

    fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> impl Future<Output = Result<SetOutcome>> + Send {
        self.shard(key).renew(key, entry)
    }

    fn remove(&self, key: &S::Key) -> impl Future<Output = Result<()>> + Send {
        self.shard(key).remove(key)
    }

    /// Clears every shard, also when one of them fails; the first error is returned.
    async fn clear(&self) -> Result<()> {
        let mut result = Ok(());
        for shard in &self.shards {
            result = result.and(shard.clear().await);
        }
        result
    }

    fn get_at(
        &self,
        key: &S::Key,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.shard(key).get_at(key, now)
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        self.shard(key).peek_with(key, read)
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        let mut results = slots(keys.len());
        for group in self.groups(keys.iter().copied()).chunk_by(|a, b| a.0 == b.0) {
            let part: Vec<&S::Key> = group.iter().map(|(_, position)| keys[*position]).collect();
            let answers = self.shards[group[0].0].get_many(&part, now).await;
            place(&mut results, group, answers, Operation::Get);
        }
        results.into_iter().flatten().collect()
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let mut results = slots(entries.len());
        for group in self.groups(entries.iter().map(|(key, _)| *key)).chunk_by(|a, b| a.0 == b.0) {
            let part: Vec<_> = group.iter().map(|(_, position)| entries[*position].clone()).collect();
            let answers = self.shards[group[0].0].set_many(&part).await;
            place(&mut results, group, answers, Operation::Set);
        }
        results.into_iter().flatten().collect()
    }

    async fn remove_many(&self, keys: &[&S::Key]) -> Vec<Result<()>> {
        let mut results = slots(keys.len());
        for group in self.groups(keys.iter().copied()).chunk_by(|a, b| a.0 == b.0) {
            let part: Vec<&S::Key> = group.iter().map(|(_, position)| keys[*position]).collect();
            let answers = self.shards[group[0].0].remove_many(&part).await;
            place(&mut results, group, answers, Operation::Remove);
        }
        results.into_iter().flatten().collect()
    }

    fn len(&self) -> Option<u64> {
        self.sum(S::len)
    }

    fn weight(&self) -> Option<u64> {
        self.sum(S::weight)
    }

    /// Flushes every shard, also when one of them fails; the first error is returned.
    async fn flush(&self) -> Result<()> {
        let mut result = Ok(());
        for shard in &self.shards {
            result = result.and(shard.flush().await);
        }
        result
    }

    /// The layers of the first shard stand for those of all.
    fn describe(&self) -> Description {
        let shards = grouped(self.shards.len() as u64);
        let first = self.shards[0].describe().with("", format!("first of {shards}"));
        Description::new("sharded").with("shards", shards).holding(self.len(), self.weight()).over(first)
    }
}

impl<S: Evict> Evict for Sharded<S> {
    fn weighed_by(self, weigher: Weigher<S::Key, S::Value>) -> Self {
        let shards = self.shards.into_iter().map(|shard| shard.weighed_by(weigher.clone())).collect();
        Self { shards, ..self }
    }

    fn weigh(&self, key: &S::Key, entry: &Entry<S::Value>) -> u64 {
        self.shard(key).weigh(key, entry)
    }

    /// From the heaviest shard; it asks every shard for its weight.
    fn evict(&self) -> bool {
        let heaviest = self.shards.iter().max_by_key(|shard| S::weight(shard));
        heaviest.is_some_and(S::evict) || self.shards.iter().any(S::evict)
    }
}

impl<S: ClearPrefix> ClearPrefix for Sharded<S> {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let mut result = Ok(());
        for shard in &self.shards {
            result = result.and(shard.clear_prefix(prefix).await);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::adapters::byte_limited::ByteLimited;
    use crate::adapters::testing::{
        Call, Shelf, alike, answers, bare, entry, forwards, history, key, now, play,
    };
    use crate::entry::Lifetime;
    use crate::error::ErrorKind;

    fn shelves(shards: usize) -> Sharded<Shelf<str, String>> {
        Sharded::new(shards, |_| Shelf::new()).unwrap()
    }

    proptest! {
        /// D1, S11: also the results of a bulk call are in the order of its keys.
        #[test]
        fn many_stores_answer_like_one(history in history(), shards in 1..9usize) {
            alike(bare, |history| play(&shelves(shards), history), &history)?;
        }

        #[test]
        fn the_parts_sum_up_to_the_total_and_differ_by_one_at_most(
            shards in prop_oneof![9 => 1..100usize, 1 => 1..=MAX_SHARDS],
            total in prop_oneof![0..200u64, any::<u64>()],
        ) {
            let shares = || (0..shards).map(|index| Share { index, shards });
            let parts: Vec<u64> = shares().map(|share| share.bytes(total)).collect();
            if let Ok(entries) = usize::try_from(total) {
                prop_assert!(shares().zip(&parts).all(|(share, part)| share.entries(entries) as u64 == *part));
            }
            prop_assert_eq!(parts.iter().map(|part| u128::from(*part)).sum::<u128>(), u128::from(total));
            prop_assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }

        /// S5.
        #[test]
        fn a_prefix_is_cleared_in_every_shard_and_nothing_else(
            entries in prop::collection::vec((key(), entry()), 0..20), prefix in key()
        ) {
            let store = shelves(5);
            for (key, entry) in &entries {
                now(store.set(key, entry.clone())).unwrap();
            }
            now(store.clear_prefix(&prefix)).unwrap();
            for (key, _) in &entries {
                prop_assert_eq!(now(store.get(key)).unwrap().is_some(), !key.starts_with(&prefix));
            }
        }

        /// S10 around shards, and the capability of eviction that it needs.
        #[test]
        fn a_limit_around_shards_holds(history in history(), bound in 0..500u64, shards in 1..5usize) {
            let store = ByteLimited::new(shelves(shards), bound);
            for call in &history {
                answers(&store, call);
                prop_assert!(store.weight().unwrap() <= bound);
            }
            while store.evict() {}
            prop_assert_eq!(store.len(), Some(0));
        }
    }

    /// The square deviation from an even spread, in units of its expectation: about 63 with a deviation
    /// of 11 if 64 shards were drawn at random.
    fn chi_square(counts: &[u64]) -> u64 {
        let total: u64 = counts.iter().sum();
        let shards = counts.len() as u64;
        counts.iter().map(|count| (count * shards).abs_diff(total).pow(2)).sum::<u64>() / (total * shards)
    }

    #[test]
    fn regular_keys_spread_evenly() {
        let store = Sharded::new(64, |_| Shelf::<u64, ()>::new()).unwrap();
        for (start, step) in [(0, 1), (0, 64), (1 << 32, 1 << 16), (u64::MAX - 1024, 1), (0, 1 << 54)] {
            let mut counts = [0; 64];
            for index in 0..1024u64 {
                counts[store.route(&index.wrapping_mul(step).wrapping_add(start))] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(chi_square(&counts) < 63 + 4 * 11, "{start} {step}: {}", chi_square(&counts));
            // The seed is fixed, so these are the numbers in the manual and no estimate.
            let documented = if step == 1 { 7..=26 } else { 4..=31 };
            assert!(
                documented.contains(least) && documented.contains(most),
                "{start} {step}: {least} to {most}"
            );
        }
    }

    /// The routing of a shard and the table inside it must not look at the same bits.
    #[test]
    fn the_keys_of_one_shard_are_spread_over_its_own_shards() {
        let outer = Sharded::new(16, |_| Shelf::<u64, ()>::new()).unwrap();
        let table = foldhash::quality::FixedState::default();
        let mut counts = [0u64; 16];
        for key in (0..16_384u64).filter(|key| outer.route(key) == 3) {
            counts[usize::try_from(table.hash_one(key) >> 60).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (32..=96).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_number_of_shards_is_checked() {
        for shards in [0, MAX_SHARDS + 1, usize::MAX] {
            let error = Sharded::new(shards, |_| Shelf::<str, String>::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("shards: {shards} is not between")), "{error}");
        }
        assert_eq!(Sharded::new(MAX_SHARDS, Share::index).unwrap().shards.len(), MAX_SHARDS);
    }

    /// D3.
    #[test]
    fn a_bulk_call_is_one_bulk_call_a_shard() {
        forwards(&shelves(1), |store| &store.shards[0], &[]);
        let store = shelves(3);
        let keys: Vec<String> = (0..40).map(|key| key.to_string()).collect();
        let entry = Entry::new(String::new(), Lifetime::forever(Timestamp::EPOCH));
        let entries = keys.iter().map(|key| (key.clone(), entry.clone())).collect();
        for (name, call) in [
            ("get_many", Call::GetMany(keys.clone())),
            ("set_many", Call::SetMany(entries)),
            ("remove_many", Call::RemoveMany(keys)),
        ] {
            answers(&store, &call);
            for shard in &store.shards {
                assert_eq!(shard.calls(), [name]);
            }
        }
    }

    #[test]
    fn what_weighs_nothing_can_be_evicted_too() {
        let store = shelves(9).weighed_by(Weigher::new(|_, _| 0));
        for key in 0..20 {
            let entry = Entry::new(String::new(), Lifetime::forever(Timestamp::EPOCH));
            now(store.set(&key.to_string(), entry)).unwrap();
        }
        for _ in 0..20 {
            assert!(store.evict());
        }
        assert!(!store.evict());
        assert_eq!(store.len(), Some(0));
    }

    /// One shard's failure does not keep the others from being cleared.
    #[test]
    fn clear_goes_on_after_a_failure() {
        let mut store = shelves(3);
        for key in 0..40 {
            now(store.set(&key.to_string(), Entry::new(String::new(), Lifetime::forever(Timestamp::EPOCH))))
                .unwrap();
        }
        store.shards[0].fails = true;
        assert_eq!(now(store.clear()).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(store.len(), store.shards[0].len());
    }

    #[test]
    fn totals_and_the_first_shard_are_described() {
        let store = shelves(3);
        for key in 0..40 {
            now(store.set(&key.to_string(), Entry::new(String::new(), Lifetime::forever(Timestamp::EPOCH))))
                .unwrap();
        }
        let text = store.describe().to_string();
        assert!(
            text.starts_with("sharded (shards 3) holds 40 entries\n└─ shelf (first of 3) holds "),
            "{text}"
        );
    }
}
