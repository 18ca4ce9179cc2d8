//! What a tier holds that counts as absent, because a write or removal there failed (law C6).

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::key::Key;
use crate::sync::Mutex;
use crate::time::Timestamp;

/// How many keys a tier remembers one by one. Beyond it the whole tier is fenced.
const MOST_KEYS: usize = 65_536;

/// Keys of one tier whose copy there counts as absent, and an instant up to which all copies do.
pub(crate) struct Marks<K: Key + ?Sized> {
    /// Whether there is anything to look up: all that a hit asks.
    any: AtomicBool,
    marked: Mutex<Marked<K::Owned>>,
}

struct Marked<O> {
    keys: HashSet<O>,
    fence: Option<Timestamp>,
}

impl<K: Key + ?Sized> Default for Marks<K> {
    fn default() -> Self {
        Self { any: AtomicBool::new(false), marked: Mutex::new(Marked { keys: HashSet::new(), fence: None }) }
    }
}

impl<K: Key + ?Sized> Marks<K> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    pub(crate) fn len(&self) -> u64 {
        self.marked.lock().keys.len() as u64
    }

    /// Whether the copy of `key` counts as absent, whatever it is.
    pub(crate) fn contains(&self, key: &K) -> bool {
        !self.is_empty() && self.marked.lock().keys.contains(key)
    }

    /// Whether a copy created at this instant counts.
    pub(crate) fn admits(&self, created_at: Timestamp) -> bool {
        self.is_empty() || self.marked.lock().fence.is_none_or(|fence| created_at > fence)
    }

    pub(crate) fn mark(&self, key: &K, now: impl FnOnce() -> Timestamp) {
        let mut marked = self.marked.lock();
        if marked.keys.len() >= MOST_KEYS && !marked.keys.contains(key) {
            marked.raise(now());
        } else {
            marked.keys.insert(key.to_owned());
        }
        self.any.store(true, Ordering::SeqCst);
    }

    /// A write or removal of `key` got through.
    pub(crate) fn unmark(&self, key: &K) {
        if self.is_empty() {
            return;
        }
        let mut marked = self.marked.lock();
        marked.keys.remove(key);
        self.any.store(!marked.keys.is_empty() || marked.fence.is_some(), Ordering::SeqCst);
    }

    /// Every copy created up to `now` counts as absent.
    pub(crate) fn fence(&self, now: Timestamp) {
        self.marked.lock().raise(now);
        self.any.store(true, Ordering::SeqCst);
    }

    /// The tier was cleared.
    pub(crate) fn lift(&self) {
        let mut marked = self.marked.lock();
        marked.keys.clear();
        marked.fence = None;
        self.any.store(false, Ordering::SeqCst);
    }
}

impl<O> Marked<O> {
    /// Fences the tier and keeps the marks: a copy may be younger than the fence and still not count.
    fn raise(&mut self, now: Timestamp) {
        self.fence = self.fence.max(Some(now));
    }
}

impl<K: Key + ?Sized> fmt::Debug for Marks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marked = self.marked.lock();
        f.debug_struct("Marks")
            .field("keys", &marked.keys.len())
            .field("fence", &marked.fence)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_whole_tier_is_fenced_at_that_instant() {
        let marks = Marks::<u64>::default();
        let at = Timestamp::from_nanos;
        for key in 0..MOST_KEYS as u64 + 10 {
            marks.mark(&key, || at(key));
        }
        assert_eq!(marks.len(), MOST_KEYS as u64);
        let last = MOST_KEYS as u64 + 9;
        assert!(!marks.admits(at(last)) && marks.admits(at(last + 1)));
        marks.lift();
        assert!(marks.is_empty() && marks.admits(at(0)) && !marks.contains(&1));
    }

    #[test]
    fn a_mark_goes_when_a_write_got_through() {
        let marks = Marks::<str>::default();
        marks.mark("a", || Timestamp::MAX);
        assert!(marks.contains("a") && !marks.contains("b"));
        marks.unmark("b");
        assert!(marks.contains("a"));
        marks.unmark("a");
        assert!(marks.is_empty());
    }
}
