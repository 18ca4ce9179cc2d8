//! One method per adapter; each adapter's manual stands on its method.
use crate::adapters::{Access, ByteLimited, Encoded, FreshForAtMost, Inspect, Prefixed};
use crate::codec::Codec;
use crate::dynamic::BoxStore;
use crate::entry::Entry;
use crate::store::{ClearPrefix, Evict, Store};
use crate::weigh::{Weigh, Weigher};
use bytes::Bytes;
use std::time::Duration;
/// x
pub trait StoreExt: Store {
    /// x
    fn peek(&self, key: &Self::Key) -> Option<Entry<Self::Value>> {
        self.peek_with(key, Entry::clone)
    }
}
impl<S: Store + ?Sized> StoreExt for S {}
