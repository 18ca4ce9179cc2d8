//! Text as bytes.

use std::time::Duration;

use bytes::Bytes;

use super::Bug;
use crate::describe::Description;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{SetOutcome, Store};
use crate::testkit::Inner;
use crate::time::{Clock, Timestamp};

/// Text in front of which stands a mark, in bytes.
pub(super) struct Encoder {
    pub(super) inner: Inner,
    pub(super) bug: Bug,
}

impl Encoder {
    fn encode(&self, entry: Entry<String>, now: Timestamp) -> Entry<Bytes> {
        let entry = entry.map(|text| Bytes::from(format!("t{text}")));
        let life = entry.lifetime();
        let with = |deadline: fn(Timestamp) -> Timestamp| {
            let [fresh, stale, keep] =
                [life.fresh_until(), life.stale_until(), life.keep_until()].map(deadline);
            entry.clone().with_lifetime(Lifetime::new(life.created_at(), fresh, stale, keep))
        };
        match self.bug {
            Bug::TagsLost => entry.with_tags(Vec::<String>::new()),
            Bug::VersionLost => Entry::new(entry.value().clone(), life).with_tags(entry.tags().to_vec()),
            Bug::OriginLost => {
                let life = Lifetime::new(now, life.fresh_until(), life.stale_until(), life.keep_until());
                entry.with_lifetime(life)
            }
            Bug::SecondsOnly => {
                with(|at| if at.is_never() { at } else { Timestamp::from_nanos(at.as_nanos() / 2 * 2) })
            }
            Bug::NeverLost => with(|at| at.min(Timestamp::from_nanos(u64::MAX - 1))),
            _ => entry,
        }
    }

    fn decode(
        &self,
        entry: Entry<Bytes>,
        bulk: bool,
        now: Option<Timestamp>,
    ) -> Result<Option<Entry<String>>> {
        if self.bug == Bug::FilterExpired && now.is_some_and(|now| now > entry.lifetime().fresh_until()) {
            return Ok(None);
        }
        let text = std::str::from_utf8(entry.value())
            .ok()
            .and_then(|text| text.strip_prefix('t'))
            .map(str::to_owned);
        match text {
            Some(text) => Ok(Some(entry.map(|_| text))),
            None if self.bug == Bug::DecodeErrorFails || bulk && self.bug == Bug::BulkDecodeFails => {
                Err(Error::new(ErrorKind::Other, "toy encoder", Operation::Get))
            }
            None if self.bug == Bug::DecodesDefault => Ok(Some(entry.map(|_| String::new()))),
            None => Ok(None),
        }
    }
}

impl Store for Encoder {
    type Key = str;
    type Value = String;

    async fn get(&self, key: &str) -> Result<Option<Entry<String>>> {
        self.inner.get(key).await?.map_or(Ok(None), |entry| self.decode(entry, false, None))
    }

    async fn set(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
        let now = self.inner.clock().now().saturating_add(Duration::from_nanos(1));
        self.inner.set(key, self.encode(entry, now)).await
    }

    async fn renew(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
        let now = self.inner.clock().now().saturating_add(Duration::from_nanos(1));
        self.inner.renew(key, self.encode(entry, now)).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.inner.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.inner.clear().await
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Result<Option<Entry<String>>> {
        self.inner.get_at(key, now).await?.map_or(Ok(None), |entry| self.decode(entry, false, Some(now)))
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<String>) -> R) -> Option<R> {
        let entry = self.inner.peek_with(key, Entry::clone)?;
        self.decode(entry, false, None).ok().flatten().as_ref().map(read)
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Result<Option<Entry<String>>>> {
        let found = self.inner.get_many(keys, now).await;
        found
            .into_iter()
            .map(|found| found?.map_or(Ok(None), |entry| self.decode(entry, true, Some(now))))
            .collect()
    }

    async fn set_many(&self, entries: &[(&str, Entry<String>)]) -> Vec<Result<SetOutcome>> {
        let now = self.inner.clock().now().saturating_add(Duration::from_nanos(1));
        let entries: Vec<_> =
            entries.iter().map(|(key, entry)| (*key, self.encode(entry.clone(), now))).collect();
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
        Description::new("toy encoder").over(self.inner.describe())
    }
}
