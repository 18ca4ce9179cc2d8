//! What a tagged store counts, and how it shows itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::describe::{Description, grouped};
use crate::time::Timestamp;

/// What happened in a [`Tagged`](crate::Tagged) store since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaggedStats {
    /// Invalidations that were acknowledged.
    pub invalidations: u64,
    /// Invalidations that failed: they hold in this process, and for others when they were repeated.
    pub failed_invalidations: u64,
    /// Reads that found an entry which counts as absent.
    pub absent: u64,
    /// Reads that found an entry which counts as no longer fresh.
    pub aged: u64,
    /// Calls that asked the tag store for instants.
    pub asked: u64,
    /// Instants that the tag store failed to read or write.
    pub failures: u64,
    /// Entries that were served although their instants could not be known
    /// ([`open_on_failure`](crate::Tagged::open_on_failure)).
    pub unjudged: u64,
    /// Tags that this process knows of.
    pub known_tags: u64,
    /// Every tagged entry created up to this instant counts as absent, because the process has forgotten
    /// instants up to it.
    pub floor: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) invalidations: AtomicU64,
    pub(crate) failed_invalidations: AtomicU64,
    pub(crate) absent: AtomicU64,
    pub(crate) aged: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) unjudged: AtomicU64,
}

pub(crate) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn stats(&self, known_tags: u64, floor: Option<Timestamp>) -> TaggedStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TaggedStats {
            invalidations: read(&self.invalidations),
            failed_invalidations: read(&self.failed_invalidations),
            absent: read(&self.absent),
            aged: read(&self.aged),
            asked: read(&self.asked),
            failures: read(&self.failures),
            unjudged: read(&self.unjudged),
            known_tags,
            floor,
        }
    }

    pub(crate) fn describe(
        &self,
        layer: Description,
        known_tags: u64,
        max_age: Duration,
        open: bool,
        clears_by_instant: bool,
    ) -> Description {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut layer = layer;
        if max_age != Duration::MAX {
            layer = layer.with("max_age", format!("{max_age:?}"));
        }
        let flags = [("open_on_failure", open), ("clear_by_instant", clears_by_instant)];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            layer = layer.with(name, "");
        }
        let counts = [
            ("known tags", known_tags),
            ("invalidations", read(&self.invalidations)),
            ("failed invalidations", read(&self.failed_invalidations)),
            ("tag store failures", read(&self.failures)),
        ];
        let told = counts.into_iter().filter(|(_, count)| *count > 0);
        told.fold(layer, |layer, (name, count)| layer.with(name, grouped(count)))
    }
}
