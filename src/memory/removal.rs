//! Who hears of an entry that leaves a store, and when: after the lock, once per entry.

use std::any::Any;
use std::borrow::Borrow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::entry::Entry;
use crate::key::Key;
use crate::memory::policy::{DefaultPolicy, Policy};
use crate::memory::slab::Slot;

/// Why an entry left a memory tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The store was at its bound, or was asked to give something up.
    Evicted,
    /// Another entry took its place under the same key.
    Replaced,
    /// Its key was removed.
    Removed,
    /// The store, or the range of keys that it was in, was cleared.
    Cleared,
    /// The entry that was to take its place alone exceeds the bound of the store: that one was refused,
    /// and this one, being out of date, was dropped.
    TooLarge,
}

/// What a tier calls for each entry that left it.
pub(super) type Listener<K, V> = Box<dyn Fn(&K, &Entry<V>, Cause) + Send + Sync>;

/// The entries that left in one call, held until the lock is gone.
///
/// Most calls move out one entry or none, so the first one needs no allocation.
pub(super) struct Departed<'k, K: Key + ?Sized, V, P: Policy = DefaultPolicy> {
    asked: Option<&'k K>,
    first: Option<Gone<K, V, P>>,
    rest: Vec<Gone<K, V, P>>,
}

struct Gone<K: Key + ?Sized, V, P: Policy> {
    what: What<K, V, P>,
    cause: Cause,
}

enum What<K: Key + ?Sized, V, P: Policy> {
    Left(Slot<K, V, P>),
    Entry(K::Owned, Entry<V>),
    /// Under the key of the call, where the store keeps its own copy of that.
    Asked(Entry<V>),
}

impl<'k, K: Key + ?Sized, V, P: Policy> Departed<'k, K, V, P> {
    /// For a call about `key`.
    pub(super) const fn of(key: &'k K) -> Self {
        Self { asked: Some(key), first: None, rest: Vec::new() }
    }

    /// For a call about no key in particular.
    pub(super) const fn of_any() -> Self {
        Self { asked: None, first: None, rest: Vec::new() }
    }

    pub(super) fn push(&mut self, key: K::Owned, entry: Entry<V>, cause: Cause) {
        self.hold(What::Entry(key, entry), cause);
    }

    #[inline]
    pub(super) fn push_left(&mut self, left: Slot<K, V, P>, cause: Cause) {
        self.hold(What::Left(left), cause);
    }

    /// The entry under the key of the call, where the key stays in the store.
    pub(super) fn push_asked(&mut self, entry: Entry<V>, cause: Cause) {
        self.hold(What::Asked(entry), cause);
    }

    #[inline]
    fn hold(&mut self, what: What<K, V, P>, cause: Cause) {
        let gone = Gone { what, cause };
        if self.first.is_none() {
            self.first = Some(gone);
        } else {
            self.rest.push(gone);
        }
    }

    /// Tells the listener of each, in the order in which they left. Every one is told even if the
    /// listener panics at one of them; the first panic goes on to the caller afterwards.
    #[inline]
    pub(super) fn report(&mut self, listener: Option<&Listener<K, V>>) {
        if let Some(listener) = listener {
            self.tell(listener);
        }
    }

    fn tell(&mut self, listener: &Listener<K, V>) {
        let mut panic: Option<Box<dyn Any + Send>> = None;
        for gone in self.first.take().into_iter().chain(self.rest.drain(..)) {
            let told = match &gone.what {
                What::Left(slot) => slot.held(),
                What::Entry(key, entry) => Some((key.borrow(), entry)),
                What::Asked(entry) => self.asked.map(|key| (key, entry)),
            };
            let Some((key, entry)) = told else { continue };
            let told = catch_unwind(AssertUnwindSafe(|| listener(key, entry, gone.cause)));
            if let (Err(payload), None) = (told, &panic) {
                panic = Some(payload);
            }
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }
}
