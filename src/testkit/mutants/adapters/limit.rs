//! A bound by weight.

use bytes::Bytes;

use super::{Bug, Found, LIMIT};
use crate::describe::Description;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{Evict, Refusal, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::Inner;
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// At most [`LIMIT`] bytes of keys and values.
pub(super) struct Limit {
    inner: Inner,
    bug: Bug,
    held: Mutex<i64>,
    turn: tokio::sync::Mutex<()>,
}

impl Limit {
    pub(super) fn new(inner: Inner, bug: Bug) -> Self {
        let weigher = Weigher::new(|key: &str, value: &Bytes| (key.len() + value.len()) as u64);
        Self {
            inner: inner.weighed_by(weigher),
            bug,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn bound(&self) -> u64 {
        LIMIT + u64::from(self.has(Bug::OffByOne))
    }

    /// What it counts, as far as a bug has it count by itself.
    fn weighs(&self) -> u64 {
        let held = self.inner.weight().unwrap_or(u64::MAX);
        held.saturating_add_signed(*self.held.lock())
    }

    fn weigh(&self, key: &str, entry: &Entry<Bytes>) -> u64 {
        let weight = self.inner.weigh(key, entry);
        if self.has(Bug::KeyNotCounted) { weight - key.len() as u64 } else { weight }
    }

    fn miscount(&self, by: u64) {
        *self.held.lock() += i64::try_from(by).unwrap_or(i64::MAX);
    }

    fn under(&self, key: &str) -> u64 {
        self.inner.peek_with(key, Entry::clone).map_or(0, |old| self.inner.weigh(key, &old))
    }

    async fn put(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let weight = self.weigh(key, &entry);
        if weight > self.bound() {
            if !self.has(Bug::RefusedLeavesOld) {
                self.inner.remove(key).await?;
            }
            return Ok(SetOutcome::Refused(Refusal::TooLarge));
        }
        if self.has(Bug::CheckedAfter) {
            let set = self.inner.set(key, entry).await?;
            while self.weighs() > self.bound() && self.inner.evict() {}
            return Ok(set);
        }
        let fits = || self.weighs().saturating_add(weight) <= self.bound() + self.under(key);
        while !fits() {
            let before = self.weighs();
            if !self.inner.evict() {
                break;
            }
            if self.has(Bug::EvictionNotSubtracted) {
                self.miscount(before - self.weighs());
            }
        }
        if self.has(Bug::OverwriteNotSubtracted) {
            self.miscount(self.under(key));
        }
        self.inner.set(key, entry).await
    }
}

impl Store for Limit {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Found {
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let _turn = self.turn.lock().await;
        self.put(key, entry).await
    }

    async fn renew(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let _turn = self.turn.lock().await;
        if self.has(Bug::RenewUnlimited) {
            return self.inner.renew(key, entry).await;
        }
        self.put(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        if self.has(Bug::RemoveNotSubtracted) {
            self.miscount(self.under(key));
        }
        self.inner.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        if self.has(Bug::ClearKeepsCount) {
            self.miscount(self.weighs());
        }
        self.inner.clear().await
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Found {
        self.inner.get_at(key, now).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<Bytes>) -> R) -> Option<R> {
        self.inner.peek_with(key, read)
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Found> {
        self.inner.get_many(keys, now).await
    }

    async fn set_many(&self, entries: &[(&str, Entry<Bytes>)]) -> Vec<Result<SetOutcome>> {
        let _turn = self.turn.lock().await;
        if self.has(Bug::BulkUnlimited) {
            return self.inner.set_many(entries).await;
        }
        let mut outcomes = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            outcomes.push(self.put(key, entry.clone()).await);
        }
        outcomes
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn weight(&self) -> Option<u64> {
        Some(self.weighs())
    }

    async fn flush(&self) -> Result<()> {
        self.inner.flush().await
    }

    fn describe(&self) -> Description {
        Description::new("toy limit").over(self.inner.describe())
    }
}
