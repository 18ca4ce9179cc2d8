//! Stores made of stores: one decorator a file, named like its method in [`StoreExt`](crate::StoreExt).

mod chain;
mod fence;
mod marks;

pub use chain::{Chain, ChainStats};
