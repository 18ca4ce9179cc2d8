//! A shorter life.

use std::time::Duration;

use bytes::Bytes;

use super::{Bug, Found};
use crate::describe::Description;
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::testkit::Inner;
use crate::time::{Clock, ManualClock, Timestamp};

/// Fresh for three ticks at most.
pub(super) struct Cap {
    inner: Inner,
    clock: ManualClock,
    bug: Bug,
}

impl Cap {
    pub(super) fn new(inner: Inner, bug: Bug) -> Self {
        let clock = inner.clock();
        Self { inner, clock, bug }
    }

    fn capped(&self, entry: Entry<Bytes>) -> Entry<Bytes> {
        let (life, now) = (entry.lifetime(), self.clock.now());
        let cap = now.saturating_add(Duration::from_nanos(3));
        let (born, fresh, stale, keep) =
            (life.created_at(), life.fresh_until(), life.stale_until(), life.keep_until());
        let life = match self.bug {
            Bug::FreshOnly => Lifetime::new(born, fresh.min(cap), stale, keep),
            Bug::CapExtends => Lifetime::new(born, cap, cap.max(stale), cap.max(keep)),
            Bug::WindowsVanish => Lifetime::new(born, fresh.min(cap), stale.min(cap), keep.min(cap)),
            Bug::OriginMoves if fresh > cap => {
                let life = life.capped(cap);
                let born = born.saturating_add(Duration::from_nanos(1));
                Lifetime::new(born, life.fresh_until(), life.stale_until(), life.keep_until())
            }
            _ => life.capped(cap),
        };
        entry.with_lifetime(life)
    }

    fn read(&self, entry: Entry<Bytes>) -> Entry<Bytes> {
        if self.bug != Bug::CapOnRead {
            return entry;
        }
        let later = self.clock.now().saturating_add(Duration::from_nanos(200));
        let life = entry.lifetime();
        let life = Lifetime::new(life.created_at(), later, life.stale_until(), life.keep_until());
        entry.with_lifetime(life)
    }
}

impl Store for Cap {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Found {
        Ok(self.inner.get(key).await?.map(|entry| self.read(entry)))
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        self.inner.set(key, self.capped(entry)).await
    }

    async fn renew(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let entry = if self.bug == Bug::RenewUncapped { entry } else { self.capped(entry) };
        self.inner.renew(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.inner.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.inner.clear().await
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Found {
        Ok(self.inner.get_at(key, now).await?.map(|entry| self.read(entry)))
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<Bytes>) -> R) -> Option<R> {
        self.inner.peek_with(key, |entry| read(&self.read(entry.clone())))
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Found> {
        let found = self.inner.get_many(keys, now).await;
        found.into_iter().map(|found| Ok(found?.map(|entry| self.read(entry)))).collect()
    }

    async fn set_many(&self, entries: &[(&str, Entry<Bytes>)]) -> Vec<Result<SetOutcome>> {
        let capped = |entry: &Entry<Bytes>| {
            if self.bug == Bug::BulkUncapped { entry.clone() } else { self.capped(entry.clone()) }
        };
        let entries: Vec<_> = entries.iter().map(|(key, entry)| (*key, capped(entry))).collect();
        self.inner.set_many(&entries).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        self.inner.remove_many(keys).await
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn weight(&self) -> Option<u64> {
        self.inner.weight()
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    fn describe(&self) -> Description {
        Description::new("toy cap").over(self.inner.describe())
    }
}
