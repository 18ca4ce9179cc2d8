//! Keys behind a prefix.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Bug, Found};
use crate::describe::Description;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{ClearPrefix, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::Inner;
use crate::time::Timestamp;

/// Keys behind a prefix; a colon in a key is escaped.
pub(super) struct Prefix {
    inner: Inner,
    bug: Bug,
    known: Mutex<HashMap<String, Option<Entry<Bytes>>>>,
    broken: Mutex<bool>,
}

impl Prefix {
    pub(super) fn new(inner: Inner, bug: Bug) -> Self {
        Self { inner, bug, known: Mutex::default(), broken: Mutex::default() }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn full(&self, key: &str) -> String {
        let key = match self.bug {
            Bug::EmptyIgnored if key.is_empty() => "a".to_owned(),
            Bug::CaseFolded => key.to_ascii_lowercase(),
            Bug::KeyCut => key.split('\0').next().unwrap_or_default().to_owned(),
            Bug::KeyLossy => key
                .chars()
                .map(|letter| if letter.is_ascii() { letter } else { '?' })
                .collect::<String>()
                .replace("e?", "?"),
            Bug::KeyTrimmed => key.trim_end_matches(':').to_owned(),
            Bug::KeyDecoded => key.replace("%61", "a"),
            Bug::NotEscaped => key.replace(':', "/"),
            _ => key.replace('%', "%25").replace(':', "%3A"),
        };
        format!("n:{key}")
    }

    fn all(&self, keys: &[&str]) -> Vec<String> {
        keys.iter()
            .map(|key| if self.has(Bug::BulkUnprefixed) { (*key).to_owned() } else { self.full(key) })
            .collect()
    }

    fn passed<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() && self.has(Bug::BreakerStays) {
            *self.broken.lock() = true;
        }
        match result {
            Err(error) if self.has(Bug::KindLost) => {
                Err(Error::new(ErrorKind::Other, "toy", error.operation()))
            }
            result => result,
        }
    }

    fn is_open(&self) -> Result<()> {
        let broken = *self.broken.lock();
        if broken { Err(Error::new(ErrorKind::Unavailable, "toy", Operation::Get)) } else { Ok(()) }
    }

    async fn find(&self, key: &str, at: Option<Timestamp>) -> Found {
        self.is_open()?;
        let caches = self.has(Bug::CachesMiss) || self.has(Bug::CachesHit);
        if let Some(known) = self.known.lock().get(key).filter(|_| caches) {
            return Ok(known.clone());
        }
        let full = self.full(key);
        if self.has(Bug::ReadTwice) {
            self.inner.get(&full).await?;
        }
        let found = match at {
            Some(now) if !self.has(Bug::InstantDropped) => self.inner.get_at(&full, now).await,
            _ => self.inner.get(&full).await,
        };
        if found.is_err() && self.has(Bug::GetErrorIsMiss) {
            return Ok(None);
        }
        let found = self.passed(found)?;
        match &found {
            Some(entry) if self.has(Bug::WritesOnGet) => {
                self.inner.set(&full, entry.clone()).await?;
            }
            None if self.has(Bug::RemovesOnMiss) => self.inner.remove(&full).await?,
            _ => {}
        }
        if found.is_some() == self.has(Bug::CachesHit) {
            self.known.lock().insert(key.to_owned(), found.clone());
        }
        Ok(found)
    }
}

impl Store for Prefix {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Found {
        self.find(key, None).await
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        self.is_open()?;
        self.known.lock().remove(key);
        let set = self.inner.set(&self.full(key), entry).await;
        self.known.lock().remove(key);
        self.passed(set)
    }

    async fn renew(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        if self.has(Bug::RenewIsSet) {
            return self.set(key, entry).await;
        }
        self.is_open()?;
        self.known.lock().remove(key);
        let full = if self.has(Bug::RenewUnprefixed) { key.to_owned() } else { self.full(key) };
        let renewed = self.inner.renew(&full, entry).await;
        self.known.lock().remove(key);
        self.passed(renewed)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.is_open()?;
        let full = if self.has(Bug::RemoveUnprefixed) { key.to_owned() } else { self.full(key) };
        let removed = self.inner.remove(&full).await;
        if removed.is_ok() {
            self.known.lock().remove(key);
        }
        if self.has(Bug::RemoveErrorSwallowed) { Ok(()) } else { self.passed(removed) }
    }

    async fn clear(&self) -> Result<()> {
        self.is_open()?;
        self.known.lock().clear();
        let cleared = match self.bug {
            Bug::ClearsSiblings => self.inner.clear_prefix("n").await,
            Bug::ClearsAll => self.inner.clear().await,
            Bug::ClearsNothing => self.inner.remove(&self.full("")).await,
            _ => self.inner.clear_prefix("n:").await,
        };
        if self.has(Bug::ClearErrorSwallowed) { Ok(()) } else { self.passed(cleared) }
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Found {
        self.find(key, Some(now)).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<Bytes>) -> R) -> Option<R> {
        match self.bug {
            Bug::PeekDropped => None,
            // What is not behind the prefix lies behind this one.
            Bug::PeekUnprefixed => self.inner.peek_with(&self.full("a"), read),
            _ => self.inner.peek_with(&self.full(key), read),
        }
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Found> {
        if self.is_open().is_err()
            || self.has(Bug::BulkSplit)
            || self.has(Bug::CachesHit)
            || self.has(Bug::CachesMiss)
        {
            let mut found = Vec::new();
            for key in keys {
                found.push(self.get_at(key, now).await);
            }
            return found;
        }
        let full = self.all(keys);
        let mut full: Vec<&str> = full.iter().map(String::as_str).collect();
        if self.has(Bug::BulkShort) {
            full.pop();
        }
        let mut found = self.inner.get_many(&full, now).await;
        if self.has(Bug::BulkReversed) {
            found.reverse();
        }
        if self.has(Bug::BulkDrops) {
            found.retain(|found| !matches!(found, Ok(None)));
        }
        let missed = |found: Found| {
            if self.has(Bug::GetErrorIsMiss) { found.or(Ok(None)) } else { self.passed(found) }
        };
        found.into_iter().map(missed).collect()
    }

    async fn set_many(&self, entries: &[(&str, Entry<Bytes>)]) -> Vec<Result<SetOutcome>> {
        if !self.has(Bug::CachesMiss) {
            for (key, _) in entries {
                self.known.lock().remove(*key);
            }
        }
        let mut keys: Vec<String> = entries.iter().map(|(key, _)| self.full(key)).collect();
        if self.has(Bug::SetManyReversed) {
            keys.reverse();
        }
        if self.is_open().is_err() || self.has(Bug::SetManySplit) || self.has(Bug::SetManyGoesOnWrong) {
            let (mut outcomes, mut shift) = (Vec::new(), 0);
            for (place, (_, entry)) in entries.iter().enumerate() {
                let outcome = match self.is_open() {
                    Ok(()) => self.inner.set(&keys[(place + shift) % keys.len()], entry.clone()).await,
                    Err(error) => Err(error),
                };
                shift += usize::from(outcome.is_err() && self.has(Bug::SetManyGoesOnWrong));
                outcomes.push(outcome);
            }
            return outcomes;
        }
        let full: Vec<_> =
            keys.iter().map(String::as_str).zip(entries.iter().map(|(_, entry)| entry.clone())).collect();
        let set = self.inner.set_many(&full).await;
        if !self.has(Bug::CachesMiss) {
            for (key, _) in entries {
                self.known.lock().remove(*key);
            }
        }
        let first = set.iter().find_map(|set| set.as_ref().err().cloned());
        let one = |set: Result<SetOutcome>| match &first {
            Some(error) if self.has(Bug::SetManyFirstError) => Err(error.clone()),
            _ => self.passed(set),
        };
        set.into_iter().map(one).collect()
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        if let Err(error) = self.is_open() {
            return keys.iter().map(|_| Err(error.clone())).collect();
        }
        let keys: Vec<String> = keys.iter().map(|key| self.full(key)).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut removed = self.inner.remove_many(&keys).await;
        self.known.lock().clear();
        if self.has(Bug::RemoveManyStops)
            && let Some(first) = removed.iter().position(Result::is_err)
        {
            removed.truncate(first + 1);
        }
        let one = |removed: Result<()>| {
            if self.has(Bug::RemoveErrorSwallowed) { Ok(()) } else { self.passed(removed) }
        };
        removed.into_iter().map(one).collect()
    }

    fn len(&self) -> Option<u64> {
        self.has(Bug::LenOfAll).then(|| self.inner.len()).flatten().map(|len| 2 * len)
    }

    async fn flush(&self) -> Result<()> {
        if self.has(Bug::FlushDropped) { Ok(()) } else { self.passed(self.inner.flush().await) }
    }

    fn describe(&self) -> Description {
        let prefix = Description::new("toy prefix");
        if self.has(Bug::Opaque) { prefix } else { prefix.over(self.inner.describe()) }
    }
}
