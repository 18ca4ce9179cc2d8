//! Which entry a full [`Memory`](crate::Memory) gives up: the policies, and the seam for one of your own.
//!
//! The store owns the entries and their locks; a policy orders them. A policy names entries by slot, a number
//! below 2^31 - 1, and keeps two things beside each: a [`Touch`](Policy::Touch), which hits write, and a
//! [`Mark`](Policy::Mark), which only the policy writes. So a hit touches no memory but the entry's own, and
//! changes no list: what hits left behind is read when an entry has to go.
//!
//! ```
//! use larder::Memory;
//! use larder::policy::S3Fifo;
//!
//! let pages = Memory::<str, String>::new(10_000).ordered_by::<S3Fifo>();
//! # drop(pages);
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

mod adaptive;
mod ghost;
mod lru;
mod queue;
mod s3_fifo;
mod sieve;

pub use adaptive::Adaptive;
pub use lru::Lru;
pub use s3_fifo::S3Fifo;
pub use sieve::Sieve;

/// The policy that a [`Memory`](crate::Memory) follows unless told otherwise.
pub type DefaultPolicy = Adaptive;

/// Orders the entries of one shard of a store; each shard has a policy of its own.
///
/// A store promises: `insert` once for a slot that it just filled, then `remove` once before it empties
/// the slot, unless `evict` named it; a slot between these is *held*. All but `hit` run under the shard's
/// exclusive lock. A policy is told no capacity, as a bound by weight has none in entries: what it holds is
/// its measure.
///
/// A panic of a policy's leaves its store unsound in what it holds, though not in memory: a policy must not
/// panic.
///
/// `testkit::check_policy` (feature `testkit`) tries a policy on what a store relies on.
///
/// First in, first out, with a bit that saves an entry once (CLOCK), in the order of the slots:
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// use larder::policy::{Policy, Slots};
///
/// /// A hand that goes over the slots.
/// #[derive(Default)]
/// struct Clock {
///     held: Vec<bool>,
///     hand: usize,
/// }
///
/// impl Policy for Clock {
///     type Touch = AtomicBool;
///     type Mark = ();
///
///     fn hit(touch: &AtomicBool, _tick: impl FnOnce() -> u64) {
///         if !touch.load(Relaxed) {
///             touch.store(true, Relaxed);
///         }
///     }
///
///     fn carry(touch: &AtomicBool) -> AtomicBool {
///         AtomicBool::new(touch.load(Relaxed))
///     }
///
///     fn insert(&mut self, _slots: &mut impl Slots<Self>, slot: u32) {
///         if self.held.len() <= slot as usize {
///             self.held.resize(slot as usize + 1, false);
///         }
///         self.held[slot as usize] = true;
///     }
///
///     fn remove(&mut self, _slots: &mut impl Slots<Self>, slot: u32) {
///         self.held[slot as usize] = false;
///     }
///
///     fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
///         if !self.held.contains(&true) {
///             return None; // A real policy would count.
///         }
///         loop {
///             self.hand = (self.hand + 1) % self.held.len();
///             let slot = self.hand as u32;
///             if self.held[self.hand] && !slots.touch(slot).swap(false, Relaxed) {
///                 self.held[self.hand] = false;
///                 return Some(slot);
///             }
///         }
///     }
/// }
///
/// let users = larder::Memory::<u64, String>::new(1_000).ordered_by::<Clock>();
/// # drop(users);
/// ```
pub trait Policy: Default + Send + Sync + 'static {
    /// What hits write beside each entry, at any time: atomics.
    type Touch: Default + Send + Sync + 'static;

    /// What the policy writes beside each entry, in the calls below only: links, flags.
    type Mark: Default + Send + Sync + 'static;

    /// The entry was read, or replaced in its slot. Runs on every hit, beside anything else, without a
    /// lock: a relaxed load, and a store only if it changes something. Hits of several threads at once may
    /// count as one.
    ///
    /// `tick` gives a number that grows with every call in one shard. It costs an atomic
    /// read-modify-write of memory that all readers share, so only a policy that needs exact recency calls it.
    fn hit(touch: &Self::Touch, tick: impl FnOnce() -> u64);

    /// A touch that says the same, for an entry that the store moves to another place. A hit beside that may be lost.
    fn carry(touch: &Self::Touch) -> Self::Touch;

    /// A new entry is in `slot`, with a default touch and mark. It was not evicted to make room for
    /// itself: the store makes room first.
    fn insert(&mut self, slots: &mut impl Slots<Self>, slot: u32);

    /// `slot` is about to be emptied, and not because `evict` named it.
    fn remove(&mut self, slots: &mut impl Slots<Self>, slot: u32);

    /// Chooses a held slot to give up, which is not held any more; `None` only if none is held.
    /// Amortized constant time, or a logarithm of what is held.
    fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32>;
}

/// Sets the bit that says that an entry was read, for the policies to which one bit is enough.
#[inline]
fn raise(bit: &AtomicBool) {
    // A line that is only read stays in every core's cache.
    if !bit.load(Ordering::Relaxed) {
        bit.store(true, Ordering::Relaxed);
    }
}

/// A shard's held slots, as far as a policy sees them. To ask for a slot that is not held may panic.
pub trait Slots<P: Policy> {
    /// What hits wrote for `slot`. Hits may write it at any time, also during the call that reads it.
    fn touch(&self, slot: u32) -> &P::Touch;

    /// The mark of `slot`.
    fn mark(&self, slot: u32) -> &P::Mark;

    /// The mark of `slot`, to change.
    fn mark_mut(&mut self, slot: u32) -> &mut P::Mark;

    /// 32 bits of the hash of the key in `slot`, the same whenever that key comes back.
    fn hash(&self, slot: u32) -> u32;

    /// The next of the numbers that [`hit`](Policy::hit) is given.
    fn tick(&self) -> u64;
}
