//! Every override against the default it replaces (laws S9, S11).
//!
//! What a store overrides is faster than the default and never different. So a history is played twice: on
//! the store, and on an equal one of which only the four required methods can be reached.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::adapters::testing::{Call, history, play};
use crate::adapters::{Chain, FreshForAtMost, Null, Sharded};
use crate::codec::Postcard;
use crate::entry::Entry;
use crate::error::Result;
use crate::ext::StoreExt;
use crate::memory::policy::Sieve;
use crate::memory::{Lru, Memory, Single};
use crate::store::Store;
use crate::testkit::Minimal;
use crate::tests::ready;
use crate::time::{ManualClock, Timestamp};
use crate::weigh::Weigher;

/// Whether a stack chooses among several copies by the instant: there `get_at` is more than `get`, and
/// the two are compared at the instant at which everything is fresh.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Single,
    Chosen,
}

/// A history without what a default cannot answer. Peeks become reads, as both are uses of an entry.
fn comparable(history: &[Call], place: Place) -> Vec<Call> {
    let comparable = |call: &Call| match call {
        Call::Len | Call::Weight => None,
        Call::Peek(key) => Some(Call::Get(key.clone())),
        Call::GetAt(key, _) if place == Place::Chosen => Some(Call::GetAt(key.clone(), Timestamp::EPOCH)),
        call => Some(call.clone()),
    };
    history.iter().filter_map(comparable).collect()
}

fn agrees<S>(place: Place, build: impl Fn() -> S, history: &[Call]) -> Result<(), TestCaseError>
where
    S: Store<Key = str, Value = String>,
{
    let calls = comparable(history, place);
    let (store, minimal) = (build(), Minimal(build()));
    let name = store.describe().to_string();
    prop_assert_eq!(play(&store, &calls), play(&minimal, &calls), "{}", name);
    prop_assert_eq!((store.len(), store.weight()), (minimal.0.len(), minimal.0.weight()), "{}", name);
    prop_assert_eq!((minimal.len(), minimal.weight()), (None, None));
    // S9: what a peek shows is what a read answers, and a peek after it changes nothing.
    for key in ["", "a", "ab", "a:", "a:b", "b", ":b", "\0", "ü*?[", "../a", "absent"] {
        let peeked = store.peek_with(key, Entry::clone);
        let read = ready(store.get(key))?;
        prop_assert!(peeked.is_none() || peeked == read, "{name}: {key:?}: {peeked:?}, {read:?}");
        prop_assert_eq!(minimal.peek_with(key, |_| ()), None);
    }
    Ok(())
}

/// Gives up entries by a policy that looks at no hashes. The default remembers a part of them, so two stores, with seeds of
/// their own, may give up different entries, once in eight thousand keys that come back.
fn memory(entries: usize) -> Memory<str, String, Sieve> {
    Memory::new(entries).ordered_by()
}

fn bytes() -> Memory<str, Bytes> {
    Memory::new(100)
}

proptest! {
    #[test]
    fn the_overrides_of_every_tier_agree_with_their_defaults(
        history in history(), entries in 0..6usize, bytes in 0..200u64,
    ) {
        let place = Place::Single;
        agrees(place, || memory(entries), &history)?;
        agrees(place, || Memory::weighing(bytes, Weigher::of_type()).ordered_by::<Sieve>(), &history)?;
        agrees(place, || Lru::new(entries), &history)?;
        agrees(place, || Lru::new(100).sample_recency(2), &history)?;
        agrees(place, Single::new, &history)?;
        agrees(place, Null::new, &history)?;
    }

    #[test]
    fn the_overrides_of_every_adapter_agree_with_their_defaults(
        history in history(), entries in 1..6usize, limit in 0..400u64, now in 0..120u64,
    ) {
        let place = Place::Single;
        let clock = ManualClock::new(Timestamp::from_nanos(now));
        let memory = || memory(entries);
        // The exact order, as a limit looks at what it replaces: for `Memory` that is one more use.
        let exact = || Lru::<str, String>::new(entries);
        agrees(place, || exact().byte_limited(limit), &history)?;
        agrees(place, || FreshForAtMost::new(memory(), Duration::from_nanos(limit)).clock(clock.clone()), &history)?;
        agrees(place, || memory().inspect(|_| ()), &history)?;
        agrees(place, || memory().prefixed("p:"), &history)?;
        agrees(place, || bytes().encoded(Postcard), &history)?;
        agrees(place, || bytes().prefixed("p:").encoded(Postcard), &history)?;
        agrees(place, || Sharded::new(entries, |_| Lru::<str, String>::new(2)).unwrap(), &history)?;
        agrees(place, || Sharded::new(entries, |_| exact()).unwrap().byte_limited(limit), &history)?;
        agrees(place, || memory().boxed(), &history)?;
        agrees(place, || Arc::new(memory()), &history)?;
        agrees(place, || Box::new(memory()), &history)?;
    }

    /// The deepest tier forgets nothing, or everything: which entry a small tier gives up depends on how
    /// often it was asked, and that is where bulk calls save.
    #[test]
    fn the_overrides_of_every_chain_agree_with_their_defaults(history in history(), entries in 0..4usize) {
        let place = Place::Chosen;
        let clock = ManualClock::new(Timestamp::EPOCH);
        let below = || bytes().encoded(Postcard);
        agrees(place, || Chain::new(memory(entries), below()).clock(clock.clone()), &history)?;
        agrees(place, || Chain::new(memory(entries), below()).clock(clock.clone()).strict(), &history)?;
        agrees(place, || Chain::new(Minimal(Lru::new(entries)), Minimal(below())).clock(clock.clone()), &history)?;
        let three = |small, large, bytes| {
            let upper = Chain::new(memory(small), Lru::new(large)).clock(clock.clone());
            Chain::new(upper, self::bytes().byte_limited(bytes).encoded(Postcard)).clock(clock.clone())
        };
        agrees(place, || three(entries, 2, u64::MAX), &history)?;
        agrees(place, || three(100, 100, 0), &history)?;
    }
}
