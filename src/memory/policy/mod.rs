//! Which entry a full shard gives up.
//!
//! The seam between a shard, which owns the entries and their lock, and the rule that orders them. A rule
//! names entries by slot and keeps a mark beside each, in the slot itself, so that a hit touches no
//! memory but the entry's own.

mod ghost;
mod queue;
mod s3_fifo;

/// The rule that [`Memory`](super::Memory) follows.
pub(super) use s3_fifo::S3Fifo as Chosen;

/// Orders the entries of one shard. Everything but `hit` runs under the shard's exclusive lock.
///
/// A shard promises: `insert` once for a slot that it just filled, then `remove` once before it empties
/// the slot, unless `evict` named it; a slot between these is *held*.
pub(super) trait Policy: Default {
    /// What the rule keeps beside each entry.
    type Mark: Default;

    /// The entry was read, or replaced in its slot. Runs under a shared lock, on every hit: a relaxed
    /// load, and a store only if it changes something.
    fn hit(&self, mark: &Self::Mark);

    /// A new entry is in `slot`, with a default mark. It was not evicted to make room for itself: the
    /// shard makes room first.
    fn insert(&mut self, slots: &mut impl Slots<Self::Mark>, slot: u32);

    /// `slot` is about to be emptied by the caller's wish.
    fn remove(&mut self, slots: &mut impl Slots<Self::Mark>, slot: u32);

    /// Chooses a held slot to give up, which is not held any more; `None` only if none is held.
    fn evict(&mut self, slots: &mut impl Slots<Self::Mark>) -> Option<u32>;
}

/// A shard's held slots, as far as a rule sees them.
pub(super) trait Slots<M> {
    /// The mark in `slot`.
    fn mark(&self, slot: u32) -> &M;

    /// The mark in `slot`, to change.
    fn mark_mut(&mut self, slot: u32) -> &mut M;

    /// 32 bits of the hash of the key in `slot`, the same whenever that key comes back.
    fn hash(&self, slot: u32) -> u32;
}
