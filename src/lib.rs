//! A caching toolkit: stores that compose like iterators, and an engine that alone judges freshness.
//!
//! A [`Store`] holds entries: memory, a directory, a server, or something of yours. An adapter takes a
//! store and is a store. The engine, [`Cache`], takes a store. Nothing else is needed to build a cache of
//! many tiers, and nothing in it is boxed unless you write `.boxed()`.
//!
//! ```
//! use std::time::Duration;
//! use larder::codec::Postcard;
//! use larder::{Cache, Memory, StoreExt};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! // Typed values in memory, in front of more of them as bytes. In production the lower tier is
//! // `larder_file::FileStore`, or any store of yours.
//! let bytes = Memory::<str, bytes::Bytes>::new(1_000_000).byte_limited(64 << 20);
//! let users = Memory::<str, String>::new(10_000).chain(bytes.prefixed("users:").encoded(Postcard));
//!
//! let cache = Cache::builder(users)
//!     .ttl(Duration::from_secs(60))
//!     .stale(Duration::from_secs(5 * 60))
//!     .keep_stale_on_error(Duration::from_secs(24 * 60 * 60))
//!     .build()?;
//!
//! let user = cache.get_or_compute("42", || async { "Ada".to_owned() }).await?;
//! assert_eq!(user, "Ada");
//! println!("{}", cache.describe());
//! # Ok::<(), larder::Error>(()) }).unwrap();
//! ```
//!
//! # Stores
//!
//! | store | holds entries in | bounded by |
//! | --- | --- | --- |
//! | [`Memory`] | memory, for many threads, by a [`policy`]; the default | entries, weight |
//! | [`Lru`] | memory, exact least-recently-used | entries, weight |
//! | [`Single`] | memory, one value, read without a lock | one entry |
//! | `larder_file::FileStore` | a directory | entries, bytes |
//! | [`Null`] | nothing | |
//!
//! # Adapters
//!
//! Methods of [`StoreExt`], where each has its manual; [`Sharded`], which multiplies a store, has a
//! constructor.
//!
//! | adapter | does |
//! | --- | --- |
//! | [`chain`](StoreExt::chain) | puts a tier in front of a deeper one |
//! | [`byte_limited`](StoreExt::byte_limited) | bounds the weight |
//! | [`encoded`](StoreExt::encoded) | makes a typed store of a store of bytes |
//! | [`prefixed`](StoreExt::prefixed) | takes a share of a store with text keys |
//! | [`fresh_for_at_most`](StoreExt::fresh_for_at_most) | caps how long a tier may serve its copy |
//! | [`tagged`](StoreExt::tagged) | invalidates entries by their tags |
//! | [`inspect`](StoreExt::inspect) | shows what goes in and out |
//! | [`boxed`](StoreExt::boxed) | forgets the type |
//! | [`Sharded::new`] | makes n independent copies, routed by hash |
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `json` | yes | [`codec::Json`](crate::codec), by `serde_json` |
//! | `testkit` | | `testkit`, which judges stores by the laws, by `proptest`; for tests |
//!
//! # Guides
//!
//! [What every stack promises](guide::semantics), [the map of the code](guide::architecture),
//! [why it is so](guide::design), [writing a store](guide::writing_a_store),
//! [testing your store](guide::testing_your_store), [writing an adapter](guide::writing_an_adapter),
//! [invalidation by tags](guide::tags), [many keys at once](guide::batches), [when loads fail](guide::when_loads_fail),
//! [when many values expire at once](guide::early_refresh), [how larder is tested](guide::testing),
//! [the bytes of an entry](guide::wire_format), [what each layer costs](guide::performance),
//! [contributing](guide::contributing).
#![forbid(unsafe_code)]

// The store of a guide is written as its reader writes it.
#[cfg(test)]
extern crate self as larder;

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
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod time;
mod weigh;
pub mod wire;

#[cfg(test)]
mod tests;

pub use adapters::{
    Access, AccessKind, AccessOutcome, ByteLimited, Chain, ChainStats, Encoded, FreshForAtMost, Inspect,
    Null, Prefixed, Sharded, Share, Tagged, TaggedStats,
};
pub use cache::{
    Answers, BatchLoader, Cache, CacheBuilder, Computed, Event, EventKind, Loader, NoLoader, Patience,
    ShutdownReport,
};
pub use describe::Description;
pub use dynamic::BoxStore;
pub use entry::{Entry, Freshness, Lifetime};
pub use error::{Error, ErrorKind, Operation, Result};
pub use ext::StoreExt;
pub use key::{Key, Value};
pub use memory::{Cause, Lru, Memory, Single, policy};
pub use runtime::{BoxFuture, Runtime, TokioRuntime};
pub use store::{ClearPrefix, Evict, InvalidateTags, Refusal, SetOutcome, Store};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use weigh::{Weigh, Weigher};
