//! Several stores as one.

use bytes::Bytes;

use super::{Bug, Found};
use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::testkit::Inner;
use crate::time::Timestamp;

/// Three stores, by the sum of the bytes of the key.
pub(super) struct Shards {
    shards: [Inner; 3],
    bug: Bug,
}

impl Shards {
    pub(super) fn new(inner: &Inner, bug: Bug) -> Self {
        Self { shards: [inner.another(), inner.another(), inner.another()], bug }
    }

    fn route(&self, key: &str, differs: Bug) -> &Inner {
        let sum: usize = key.bytes().map(usize::from).sum();
        &self.shards[if differs != Bug::None && self.bug == differs { 0 } else { sum % 3 }]
    }
}

impl Store for Shards {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Found {
        self.route(key, Bug::None).get(key).await
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        if self.bug == Bug::PeekRouteDiffers && self.shards[0].peek_with(key, |_| ()).is_none() {
            self.shards[0].set(key, entry.clone()).await?;
        }
        self.route(key, Bug::RouteDiffers).set(key, entry).await
    }

    async fn renew(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        if self.bug == Bug::PeekRouteDiffers {
            return self.set(key, entry).await;
        }
        self.route(key, Bug::RenewRouteDiffers).renew(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.route(key, Bug::RemoveRouteDiffers).remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        let mut result = Ok(());
        for shard in &self.shards[..if self.bug == Bug::ClearsOneShard { 1 } else { 3 }] {
            result = result.and(shard.clear().await);
        }
        if self.bug == Bug::ClearStops { Ok(()) } else { result }
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Found {
        self.route(key, Bug::None).get_at(key, now).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<Bytes>) -> R) -> Option<R> {
        self.route(key, Bug::PeekRouteDiffers).peek_with(key, read)
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Found> {
        let mut order: Vec<&str> = keys.to_vec();
        if self.bug == Bug::GroupsOutOfOrder {
            order.sort_by_key(|key| key.bytes().map(usize::from).sum::<usize>() % 3);
        }
        let mut found = Vec::new();
        for key in order {
            found.push(self.get_at(key, now).await);
        }
        found
    }

    fn len(&self) -> Option<u64> {
        if self.bug == Bug::LenOfOne {
            return self.shards[0].len();
        }
        self.shards.iter().map(Store::len).sum()
    }

    async fn flush(&self) -> Result<()> {
        let mut result = Ok(());
        for shard in &self.shards {
            result = result.and(shard.flush().await);
        }
        result
    }

    fn describe(&self) -> Description {
        Description::new("toy shards").over(self.shards[0].describe())
    }
}
