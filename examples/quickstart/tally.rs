//! Counters that the stack and the cache report to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::{Access, AccessOutcome, Event, EventKind};

/// What one tier was asked. Fed by `inspect`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tier(Arc<TierCounts>);

#[derive(Debug, Default)]
struct TierCounts {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Tier {
    pub(crate) fn saw(&self, access: &Access<'_, str>) {
        match access.outcome {
            AccessOutcome::Hit(_) => add(&self.0.hits),
            AccessOutcome::Miss => add(&self.0.misses),
            _ => {}
        }
    }

    pub(crate) fn hits(&self) -> u64 {
        read(&self.0.hits)
    }

    pub(crate) fn misses(&self) -> u64 {
        read(&self.0.misses)
    }
}

/// What the cache answered with. Fed by `events`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<AnswerCounts>);

#[derive(Debug, Default)]
struct AnswerCounts {
    fresh: AtomicU64,
    stale: AtomicU64,
    stale_on_error: AtomicU64,
    computed: AtomicU64,
    joined: AtomicU64,
    failed_stores: AtomicU64,
}

/// [`Answers`] at one moment, or between two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) fresh: u64,
    pub(crate) stale: u64,
    pub(crate) stale_on_error: u64,
    pub(crate) computed: u64,
    pub(crate) joined: u64,
    pub(crate) failed_stores: u64,
}

impl Answers {
    pub(crate) fn saw(&self, event: &Event<'_, str>) {
        match event.kind {
            EventKind::Hit(_) => add(&self.0.fresh),
            EventKind::StaleHit(_) => add(&self.0.stale),
            EventKind::StaleOnError(_) => add(&self.0.stale_on_error),
            EventKind::LoadSucceeded(_) => add(&self.0.computed),
            EventKind::Joined => add(&self.0.joined),
            EventKind::StoreFailed(..) => add(&self.0.failed_stores),
            _ => {}
        }
    }

    pub(crate) fn counted(&self) -> Counted {
        Counted {
            fresh: read(&self.0.fresh),
            stale: read(&self.0.stale),
            stale_on_error: read(&self.0.stale_on_error),
            computed: read(&self.0.computed),
            joined: read(&self.0.joined),
            failed_stores: read(&self.0.failed_stores),
        }
    }
}

impl Counted {
    /// What was counted after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            fresh: self.fresh - earlier.fresh,
            stale: self.stale - earlier.stale,
            stale_on_error: self.stale_on_error - earlier.stale_on_error,
            computed: self.computed - earlier.computed,
            joined: self.joined - earlier.joined,
            failed_stores: self.failed_stores - earlier.failed_stores,
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
