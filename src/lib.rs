//! larder
#![forbid(unsafe_code)]

mod adapters;
mod cache;
pub mod codec;
mod describe;
mod dynamic;
mod entry;
mod error;
mod ext;
mod forward;
pub mod guide;
mod key;
mod memory;
mod runtime;
mod store;
mod sync;
mod time;
mod weigh;
pub mod wire;

#[cfg(test)]
mod tests;

pub use adapters::{Chain, ChainStats};
pub use cache::{Cache, CacheBuilder, Computed, Event, EventKind, Loader, NoLoader, ShutdownReport};
pub use describe::Description;
pub use dynamic::BoxStore;
pub use entry::{Entry, Freshness, Lifetime};
pub use error::{Error, ErrorKind, Operation, Result};
pub use key::{Key, Value};
pub use runtime::{BoxFuture, Runtime, TokioRuntime};
pub use store::{ClearPrefix, Evict, Refusal, SetOutcome, Store};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use weigh::{Weigh, Weigher};
