//! A bound in bytes.

use tokio::sync::Mutex;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{ClearPrefix, Evict, InvalidateTags, Refusal, SetOutcome, Store};
use crate::time::Timestamp;
use crate::weigh::{Weigh, Weigher};

/// A store that never holds more than a number of bytes. See
/// [`byte_limited`](crate::StoreExt::byte_limited).
#[derive(Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct ByteLimited<S> {
    inner: S,
    bound: u64,
    /// Held from making room until the entry is in, so that nobody takes the room of another. It says
    /// nothing about the data, so readers and removals, which only make more room, do without it.
    writers: Mutex<()>,
}

impl<S: Evict> ByteLimited<S> {
    /// At most `bound` bytes in `inner`, which is empty, weighed by [`Weigh`].
    pub fn new(inner: S, bound: u64) -> Self
    where
        S::Key: Weigh,
        S::Value: Weigh,
    {
        Self::weighed(inner, bound, Weigher::of_type())
    }

    /// At most `bound` bytes in `inner`, which is empty, weighed by `weigher`.
    pub fn weighed(inner: S, bound: u64, weigher: Weigher<S::Key, S::Value>) -> Self {
        Self { inner: inner.weighed_by(weigher), bound, writers: Mutex::new(()) }
    }

    /// Evicts until `entry` fits in place of what is there. Called by the writer whose turn it is.
    fn make_room(&self, key: &S::Key, entry: &Entry<S::Value>) -> Result<(), Refusal> {
        if self.bound == 0 {
            return Err(Refusal::KeepsNothing);
        }
        let weight = self.inner.weigh(key, entry);
        if weight > self.bound {
            return Err(Refusal::TooLarge);
        }
        // The old entry is looked at only if its room is needed: a look counts as a use, and while nothing
        // has to go the limit is not to be noticed (D1). First what is held, then the old entry: should it
        // be removed in between, it counts as held, and there is more room than needed. A store that
        // cannot tell its weight has none to give.
        let fits = |held: u64| held.saturating_add(weight) <= self.bound;
        while !fits(self.held()) && !fits(self.held().saturating_sub(self.held_under(key))) {
            if !self.inner.evict() {
                return Err(Refusal::TooLarge);
            }
        }
        Ok(())
    }

    fn held(&self) -> u64 {
        self.inner.weight().unwrap_or(u64::MAX)
    }

    fn held_under(&self, key: &S::Key) -> u64 {
        // Cloned, because `peek_with` may hold a lock that `weigh` needs.
        self.inner.peek_with(key, Entry::clone).map_or(0, |old| self.inner.weigh(key, &old))
    }

    async fn set_in_turn(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        match self.make_room(key, &entry) {
            Ok(()) => self.inner.set(key, entry).await,
            Err(refusal) => self.refuse(key, refusal).await,
        }
    }

    /// What is refused leaves nothing of its key (S3).
    async fn refuse(&self, key: &S::Key, refusal: Refusal) -> Result<SetOutcome> {
        self.inner.remove(key).await?;
        Ok(SetOutcome::Refused(refusal))
    }

    /// Whether all of it fits into the room that there is, replacing nothing.
    fn has_room_for(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> bool {
        let weights = entries.iter().map(|(key, entry)| self.inner.weigh(key, entry));
        self.bound > 0 && weights.fold(self.held(), u64::saturating_add) <= self.bound
    }
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every bounded stack")]
impl<S: Evict> Store for ByteLimited<S> {
    type Key = S::Key;
    type Value = S::Value;

    fn get(&self, key: &S::Key) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.inner.get(key)
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let _turn = self.writers.lock().await;
        self.set_in_turn(key, entry).await
    }

    /// As large as the entry is: it may replace another value.
    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let _turn = self.writers.lock().await;
        match self.make_room(key, &entry) {
            Ok(()) => self.inner.renew(key, entry).await,
            Err(refusal) => self.refuse(key, refusal).await,
        }
    }

    fn remove(&self, key: &S::Key) -> impl Future<Output = Result<()>> + Send {
        self.inner.remove(key)
    }

    fn clear(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear()
    }

    fn get_at(
        &self,
        key: &S::Key,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Entry<S::Value>>>> + Send {
        self.inner.get_at(key, now)
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        self.inner.peek_with(key, read)
    }

    fn get_many(
        &self,
        keys: &[&S::Key],
        now: Timestamp,
    ) -> impl Future<Output = Vec<Result<Option<Entry<S::Value>>>>> + Send {
        self.inner.get_many(keys, now)
    }

    /// One call to the store inside while nothing has to go; entry by entry when room has to be made.
    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let _turn = self.writers.lock().await;
        if self.has_room_for(entries) {
            return self.inner.set_many(entries).await;
        }
        let mut results = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            results.push(self.set_in_turn(key, entry.clone()).await);
        }
        results
    }

    fn remove_many(&self, keys: &[&S::Key]) -> impl Future<Output = Vec<Result<()>>> + Send {
        self.inner.remove_many(keys)
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn weight(&self) -> Option<u64> {
        self.inner.weight()
    }

    fn flush(&self) -> impl Future<Output = Result<()>> + Send {
        self.inner.flush()
    }

    fn describe(&self) -> Description {
        Description::new("byte_limited").with_size("max_bytes", self.bound).over(self.inner.describe())
    }
}

/// So that a limit fits on a stack of limits, as on shards of which each has its own.
impl<S: Evict> Evict for ByteLimited<S> {
    fn weighed_by(self, weigher: Weigher<S::Key, S::Value>) -> Self {
        Self { inner: self.inner.weighed_by(weigher), ..self }
    }

    fn weigh(&self, key: &S::Key, entry: &Entry<S::Value>) -> u64 {
        self.inner.weigh(key, entry)
    }

    fn evict(&self) -> bool {
        self.inner.evict()
    }
}

impl<S: Evict + InvalidateTags> InvalidateTags for ByteLimited<S> {
    fn remove_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.inner.remove_tags(tags, at)
    }

    fn expire_tags(&self, tags: &[&str], at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.inner.expire_tags(tags, at)
    }
}

impl<S: Evict + ClearPrefix> ClearPrefix for ByteLimited<S> {
    fn clear_prefix(&self, prefix: &str) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear_prefix(prefix)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::adapters::testing::{
        Call, Shelf, alike, answers, entry, forwards, history, now, play, singly,
    };
    use crate::entry::Lifetime;

    /// Weighs its length and one more byte.
    fn by_length(bound: u64) -> ByteLimited<Shelf<str, String>> {
        ByteLimited::weighed(Shelf::new(), bound, weigher())
    }

    fn weigher() -> Weigher<str, String> {
        Weigher::new(|_, value: &String| value.len() as u64 + 1)
    }

    fn of_length(length: usize) -> Entry<String> {
        Entry::new("x".repeat(length), Lifetime::forever(Timestamp::EPOCH))
    }

    proptest! {
        /// D1, S11.
        #[test]
        fn a_bound_that_nothing_reaches_changes_nothing(history in history()) {
            alike(
                |history| play(&Shelf::new().weighed_by(Weigher::of_type()), history),
                |history| play(&ByteLimited::new(Shelf::new(), u64::MAX), history),
                &history,
            )?;
        }

        /// S10, S11, and S3: what is refused leaves nothing of its key.
        #[test]
        fn the_bound_holds_after_every_call(history in history(), bound in 0..40u64) {
            let (bulk, single) = (by_length(bound), by_length(bound));
            for call in &history {
                answers(&bulk, call);
                prop_assert!(bulk.weight().unwrap() <= bound);
                for call in singly(std::slice::from_ref(call)) {
                    let answers = answers(&single, &call);
                    prop_assert!(single.weight().unwrap() <= bound);
                    if let Call::Set(key, entry) = call {
                        let fits = (entry.value().len() as u64) < bound;
                        let held = now(single.get(&key)).unwrap();
                        prop_assert_eq!(held, fits.then_some(entry));
                        let answer = match bound {
                            _ if fits => "Ok(Stored)",
                            0 => "Ok(Refused(KeepsNothing))",
                            _ => "Ok(Refused(TooLarge))",
                        };
                        prop_assert_eq!(&answers[0], answer);
                    }
                }
                prop_assert_eq!(
                    play(&bulk, &[Call::Len, Call::Weight]), play(&single, &[Call::Len, Call::Weight])
                );
            }
        }

        /// Only as much goes as has to: a replacement needs the difference, not its whole weight.
        #[test]
        fn nothing_goes_while_there_is_room(old in 0..20usize, new in 0..20usize, other in entry()) {
            let store = by_length((old.max(new) + other.value().len() + 2) as u64);
            now(store.set("other", other)).unwrap();
            now(store.set("a", of_length(old))).unwrap();
            now(store.set("a", of_length(new))).unwrap();
            prop_assert_eq!(store.len(), Some(2));
        }
    }

    /// S10: writers that wait in the middle of their writes do not take the same room twice.
    #[test]
    fn writers_take_turns() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (one, two, bulk) in [(5, 5, [5, 6]), (9, 9, [1, 1]), (1, 9, [3, 3]), (3, 3, [0, 9])] {
            let mut shelf = Shelf::new();
            shelf.yields = true;
            let store = ByteLimited::weighed(shelf, 10, weigher());
            runtime.block_on(async {
                let bulk = [("c", of_length(bulk[0])), ("d", of_length(bulk[1]))];
                let (many, one, two) = tokio::join!(
                    store.set_many(&bulk),
                    store.set("a", of_length(one)),
                    store.set("b", of_length(two)),
                );
                assert!(many.into_iter().chain([one, two]).all(|set| set.unwrap() == SetOutcome::Stored));
            });
            assert!(store.weight().unwrap() <= 10);
        }
    }

    #[test]
    fn a_bound_of_zero_holds_nothing_that_weighs_nothing_either() {
        let store = Shelf::<str, String>::new();
        let store = ByteLimited::weighed(store, 0, Weigher::new(|_, _| 0));
        let refused = SetOutcome::Refused(Refusal::KeepsNothing);
        assert_eq!(now(store.set("a", of_length(1))).unwrap(), refused);
        assert_eq!(now(store.set_many(&[("a", of_length(1))])).pop().unwrap().unwrap(), refused);
        assert_eq!(store.len(), Some(0));
    }

    /// S10, with real threads, at every instant.
    #[test]
    fn no_thread_ever_sees_the_bound_exceeded() {
        let store = by_length(50);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let (store, over) = (&store, &over);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for step in 0..300usize {
                            let key = ["a", "b", "c", "d", "e", "f", "g"][(step * 5 + thread) % 7];
                            match (step + thread) % 11 {
                                0 => store.remove(key).await.unwrap(),
                                1 => drop(store.set_many(&[(key, of_length(9)), ("h", of_length(3))]).await),
                                length => drop(store.set(key, of_length(length * 3)).await),
                            }
                            over.fetch_or(store.weight().unwrap() > 50, Ordering::Relaxed);
                        }
                    });
                });
            }
        });
        assert!(!over.into_inner());
    }

    /// S8: a writer that leaves while it waits, or in the middle of its write, leaves the turn to the next.
    #[test]
    fn a_writer_that_goes_away_leaves_no_lock_behind() {
        use std::task::{Context, Waker};
        let mut shelf = Shelf::new();
        shelf.yields = true;
        let mut store = ByteLimited::weighed(shelf, 10, weigher());
        {
            let mut context = Context::from_waker(Waker::noop());
            let mut first = Box::pin(store.set("a", of_length(5)));
            assert!(first.as_mut().poll(&mut context).is_pending());
            let mut second = Box::pin(store.set("b", of_length(5)));
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
        store.inner.yields = false;
        assert_eq!(now(store.set("c", of_length(5))).unwrap(), SetOutcome::Stored);
        assert_eq!(store.weight(), Some(6));
    }

    /// A store that breaks its word about its weight is not filled without a bound.
    #[test]
    fn a_store_that_does_not_know_its_weight_gets_nothing() {
        let store = ByteLimited { inner: Shelf::<str, String>::new(), bound: 10, writers: Mutex::new(()) };
        let refused = SetOutcome::Refused(Refusal::TooLarge);
        assert_eq!(now(store.set("a", of_length(1))).unwrap(), refused);
        assert_eq!(store.len(), Some(0));
    }

    #[test]
    fn limits_stack_and_the_narrower_one_holds() {
        let store = ByteLimited::weighed(by_length(20), 30, weigher());
        for key in ["a", "b", "c", "d", "e"] {
            now(store.set(key, of_length(9))).unwrap();
        }
        assert_eq!(store.weight(), Some(20));
    }

    /// D3.
    #[test]
    fn every_call_is_one_call_to_the_store_inside() {
        let store = ByteLimited::new(Shelf::<str, String>::new(), 1 << 20);
        forwards(&store, |store| &store.inner, &["set", "renew", "set_many"]);
        store.inner.calls();
        now(store.set("a", of_length(1))).unwrap();
        assert_eq!(store.inner.calls(), ["weight", "set"]);
        now(store.renew("a", of_length(1))).unwrap();
        assert_eq!(store.inner.calls(), ["weight", "renew"]);
        now(store.set_many(&[("a", of_length(1)), ("b", of_length(1))]));
        assert_eq!(store.inner.calls(), ["weight", "set_many"]);
        assert_eq!(store.describe().to_string().lines().next(), Some("byte_limited (max_bytes 1 MiB)"));
    }
}
