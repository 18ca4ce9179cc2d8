//! Tiers in this process's memory.
//!
//! Three stores over one removal listener: [`Memory`] (concurrent, the default), [`Lru`] (exact order),
//! [`Single`] (one entry). What they share: no code of the caller's but `Eq`, `Clone` and a reader's closure
//! ever runs under a lock of theirs; what leaves them is reported and dropped after the lock is gone.

mod concurrent;
mod front;
mod lru;
pub mod policy;
mod removal;
mod scales;
mod shard;
mod single;
mod slab;
#[cfg(test)]
mod tests;

pub use concurrent::Memory;
pub use lru::Lru;
pub use removal::Cause;
pub use single::Single;
