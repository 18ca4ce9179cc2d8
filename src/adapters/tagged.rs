//! Entries that go by their tags, with one write however many they are.

mod known;
mod stats;
mod verdict;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::adapters::next_answer;
use crate::describe::Description;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{ClearPrefix, Evict, InvalidateTags, SetOutcome, Store};
use crate::time::{AnyClock, Clock, Timestamp};
use crate::weigh::Weigher;
use known::{Instants, Known};
pub use stats::TaggedStats;
use stats::{Counts, add};
use verdict::{Verdict, verdict};

/// How many tags the process knows, unless told.
const KNOWN_TAGS: usize = 65_536;
/// How old a tagged entry gets, unless told.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The tag that every entry has, where `clear` is an instant. No caller's tag is empty.
const EVERYTHING: &str = "";

/// A store whose entries can be invalidated by their tags. See [`tagged`](crate::StoreExt::tagged).
#[derive(Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Tagged<S, T> {
    inner: S,
    instants: T,
    known: Known,
    max_age: Duration,
    open: bool,
    clears_by_instant: bool,
    clock: AnyClock,
    /// Whoever writes the tag store has the turn, so that an older instant never replaces a newer one.
    turn: tokio::sync::Mutex<()>,
    /// The latest creation that passed on its way in, where `clear` is an instant.
    latest: AtomicU64,
    counts: Counts,
}

/// What an invalidation makes of the entries that carry the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Removed,
    Expired,
}

impl<S, T> Tagged<S, T> {
    /// The entries in `inner`, the instants of invalidations in `instants`.
    pub fn new(inner: S, instants: T) -> Self {
        Self {
            inner,
            instants,
            known: Known::new(KNOWN_TAGS),
            max_age: MAX_AGE,
            open: false,
            clears_by_instant: false,
            clock: AnyClock::default(),
            turn: tokio::sync::Mutex::default(),
            latest: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    /// How many tags this process knows at once (65,536 unless told); a tag costs about 100 bytes and its
    /// text. An error of kind [`InvalidInput`](ErrorKind::InvalidInput) if zero.
    ///
    /// Beyond that, tags that were never invalidated are forgotten first and asked again when they are
    /// needed; then the oldest instants go, and every tagged entry that was created up to those counts as
    /// absent (law T2).
    pub fn known_tags(mut self, most: usize) -> Result<Self> {
        if most == 0 {
            return Err(Error::invalid(
                "tagged",
                "known_tags: zero; no entry could be judged without waiting",
            ));
        }
        self.known = Known::new(most);
        Ok(self)
    }

    /// A tagged entry older than this counts as absent (30 days unless told), so that the tag store may
    /// forget an instant when it is that old. [`Duration::MAX`] keeps both for ever. An error of kind
    /// [`InvalidInput`](ErrorKind::InvalidInput) if zero.
    pub fn max_age(mut self, age: Duration) -> Result<Self> {
        if age.is_zero() {
            return Err(Error::invalid(
                "tagged",
                "max_age: zero; every tagged entry would be absent at once",
            ));
        }
        self.max_age = age;
        Ok(self)
    }

    /// Serves an entry whose instants cannot be known because the tag store fails (law T4). Without it such
    /// a read is answered with the tag store's error, which the engine takes for a miss.
    pub fn open_on_failure(mut self) -> Self {
        self.open = true;
        self
    }

    /// Makes `clear` one write to the tag store, however much there is to clear: whatever was created up to
    /// that instant counts as absent, tagged or not, and its room is freed when it is replaced, evicted or
    /// dead. Every entry then has an age limit ([`max_age`](Self::max_age)), every first read asks the tag
    /// store, and [`len`](Store::len) is not known. What is written within the same tick of the clock may
    /// count as absent too.
    pub fn clear_by_instant(mut self) -> Self {
        self.clears_by_instant = true;
        self
    }

    /// Asks `clock` for the time instead of the system's: best the one that the cache has.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = AnyClock::of(clock);
        self
    }

    /// The store of the entries.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// The store of the instants.
    pub const fn tag_store(&self) -> &T {
        &self.instants
    }

    /// What happened so far.
    pub fn stats(&self) -> TaggedStats {
        self.counts.stats(self.known.len(), self.known.floor())
    }

    /// Whether an entry may be touched by an invalidation at all.
    fn is_judged(&self, tags: &[Arc<str>]) -> bool {
        self.clears_by_instant || !tags.is_empty()
    }

    /// All tags by which an entry is judged.
    fn tags<'a>(&self, tags: &'a [Arc<str>]) -> impl Iterator<Item = &'a str> + use<'a, S, T> {
        let everything = self.clears_by_instant.then_some(EVERYTHING);
        everything.into_iter().chain(tags.iter().map(|tag| &**tag))
    }

    /// Judges an entry by what `of` knows of its tags.
    fn judge(
        &self,
        life: Lifetime,
        tags: &[Arc<str>],
        of: impl Fn(&str) -> Option<Instants>,
        now: impl Fn() -> Timestamp,
    ) -> Verdict {
        if self.max_age != Duration::MAX && now() > life.created_at().saturating_add(self.max_age) {
            return Verdict::Absent;
        }
        let mut all = Instants { asked: true, ..Instants::default() };
        for tag in self.tags(tags) {
            let one = of(tag).unwrap_or_default();
            all = Instants { asked: all.asked && one.asked, ..all.merged(one) };
        }
        // After the tags, because the floor stands for what went from the table.
        if self.known.admits(life.created_at()) { verdict(life, all, now) } else { Verdict::Absent }
    }

    fn settle<V>(&self, entry: Entry<V>, verdict: Verdict) -> Option<Entry<V>> {
        match verdict {
            Verdict::Absent => {
                add(&self.counts.absent);
                None
            }
            Verdict::Aged(life) => {
                add(&self.counts.aged);
                Some(entry.with_lifetime(life))
            }
            // Unknown only if the tag store failed and that is to be open.
            Verdict::Valid | Verdict::Unknown => Some(entry),
        }
    }
}

impl<S: Store, T: Store<Key = str, Value = Timestamp>> Tagged<S, T> {
    /// What the readers of many entries are told, for one question to the tag store at most.
    async fn judged(
        &self,
        found: Vec<Result<Option<Entry<S::Value>>>>,
        now: Timestamp,
    ) -> Vec<Result<Option<Entry<S::Value>>>> {
        let judge = |entry: &Entry<S::Value>, told: &HashMap<Arc<str>, Result<Instants>>| {
            let of = |tag: &str| match told.get(tag) {
                Some(Ok(told)) => Some(self.known.of(tag).unwrap_or_default().merged(*told)),
                _ => self.known.of(tag),
            };
            self.judge(entry.lifetime(), entry.tags(), of, || now)
        };
        let mut told = HashMap::new();
        let mut unknown: Vec<Arc<str>> = Vec::new();
        let mut first = |entry: &Entry<S::Value>| {
            if !self.is_judged(entry.tags()) {
                return Verdict::Valid;
            }
            let verdict = judge(entry, &HashMap::new());
            if verdict == Verdict::Unknown {
                for tag in self.tags(entry.tags()).map(Arc::<str>::from) {
                    // What is known is kept here too: a small table may forget it for what is learnt now.
                    match self.known.of(&tag).filter(|known| known.asked) {
                        Some(known) => drop(told.insert(tag, Ok(known))),
                        None => unknown.push(tag),
                    }
                }
            }
            verdict
        };
        let found: Vec<Result<Option<_>>> = found
            .into_iter()
            .map(|found| {
                Ok(found?.map(|entry| {
                    let verdict = first(&entry);
                    (entry, verdict)
                }))
            })
            .collect();
        if !unknown.is_empty() {
            told.extend(self.ask(unknown, now).await);
        }
        let settle = |(entry, verdict): (Entry<S::Value>, Verdict)| {
            let verdict = if verdict == Verdict::Unknown { judge(&entry, &told) } else { verdict };
            if verdict == Verdict::Unknown {
                if !self.open {
                    let failed = self.tags(entry.tags()).find_map(|tag| told.get(tag)?.as_ref().err());
                    return Err(failed.cloned().unwrap_or_else(unanswered));
                }
                add(&self.counts.unjudged);
            }
            Ok(self.settle(entry, verdict))
        };
        found.into_iter().map(|found| found?.map_or(Ok(None), settle)).collect()
    }

    async fn judged_one(
        &self,
        found: Option<Entry<S::Value>>,
        now: Timestamp,
    ) -> Result<Option<Entry<S::Value>>> {
        let Some(entry) = found else { return Ok(None) };
        if !self.is_judged(entry.tags()) {
            return Ok(Some(entry));
        }
        let verdict = self.judge(entry.lifetime(), entry.tags(), |tag| self.known.of(tag), || now);
        if verdict != Verdict::Unknown {
            return Ok(self.settle(entry, verdict));
        }
        let mut answers = Box::pin(self.judged(vec![Ok(Some(entry))], now)).await.into_iter();
        next_answer(&mut answers, "tagged", Operation::Get)
    }

    /// Asks the tag store for everything about these tags, in one call, and keeps what it says.
    async fn ask(&self, mut tags: Vec<Arc<str>>, now: Timestamp) -> HashMap<Arc<str>, Result<Instants>> {
        tags.sort_unstable();
        tags.dedup();
        let keys: Vec<String> =
            tags.iter().flat_map(|tag| [Kind::Removed.key(tag), Kind::Expired.key(tag)]).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        add(&self.counts.asked);
        let mut answers = self.instants.get_many(&keys, now).await.into_iter();
        let mut instant = || {
            let answer = next_answer(&mut answers, "tagged", Operation::Get);
            answer.inspect_err(|_| add(&self.counts.failures)).map(|found| found.map(Entry::into_value))
        };
        let learn = |tag: Arc<str>| {
            let (removed, expired) = (instant(), instant());
            let told = removed.and_then(|removed| Ok(Instants { removed, expired: expired?, asked: true }));
            let told = told.map(|told| self.known.learn(&tag, told));
            (tag, told)
        };
        tags.into_iter().map(learn).collect()
    }

    /// Asks for the tags of an entry that was written, so that its first reader need not wait. Trouble is no
    /// concern of the writer: that reader will ask.
    async fn learn(&self, unknown: Vec<Arc<str>>) {
        if !unknown.is_empty() {
            drop(Box::pin(self.ask(unknown, self.clock.now())).await);
        }
    }

    /// Invalidates: here at once, and for everyone with one write.
    async fn invalidate(&self, tags: &[&str], kind: Kind, at: Timestamp) -> Result<()> {
        let mut tags: Vec<Arc<str>> = tags.iter().map(|tag| Arc::from(*tag)).collect();
        tags.sort_unstable();
        tags.dedup();
        if tags.is_empty() {
            return Ok(());
        }
        for tag in &tags {
            self.known.learn(tag, kind.instants(at));
        }
        let outcome = self.write(&tags, kind, at).await;
        add(if outcome.is_ok() { &self.counts.invalidations } else { &self.counts.failed_invalidations });
        outcome
    }

    async fn write(&self, tags: &[Arc<str>], kind: Kind, at: Timestamp) -> Result<()> {
        let _turn = self.turn.lock().await;
        // What nobody here knows may be newer: another process wrote it, or this clock has stepped back.
        let is_unknown = |tag: &&Arc<str>| !self.known.of(tag).is_some_and(|known| known.asked);
        let unknown: Vec<Arc<str>> = tags.iter().filter(is_unknown).cloned().collect();
        let told = if unknown.is_empty() { HashMap::new() } else { self.ask(unknown, at).await };
        let mut writes = Vec::with_capacity(tags.len());
        for tag in tags {
            let told = match told.get(tag) {
                // It will never be read again unless it is overwritten.
                Some(Err(error)) if error.kind() != ErrorKind::Corrupt => return Err(error.clone()),
                Some(Ok(told)) => *told,
                _ => Instants::default(),
            };
            let all = self.known.of(tag).unwrap_or_default().merged(told).merged(kind.instants(at));
            let instant = kind.of(all).unwrap_or(at);
            let until = instant.saturating_add(self.max_age);
            writes.push((kind.key(tag), Entry::new(instant, Lifetime::new(instant, until, until, until))));
        }
        let writes: Vec<(&str, Entry<Timestamp>)> =
            writes.iter().map(|(key, entry)| (key.as_str(), entry.clone())).collect();
        let mut outcomes = self.instants.set_many(&writes).await.into_iter();
        let mut first = Ok(());
        for _ in &writes {
            let written = match next_answer(&mut outcomes, "tagged", Operation::Invalidate) {
                Ok(SetOutcome::Stored) => Ok(()),
                Ok(SetOutcome::Refused(why)) => Err(refused(why)),
                Err(error) => Err(error),
            };
            if written.is_err() {
                add(&self.counts.failures);
            }
            first = first.and(written);
        }
        first
    }
}

impl Kind {
    fn key(self, tag: &str) -> String {
        let kind = match self {
            Self::Removed => "removed:",
            Self::Expired => "expired:",
        };
        [kind, tag].concat()
    }

    fn instants(self, at: Timestamp) -> Instants {
        match self {
            Self::Removed => Instants { removed: Some(at), ..Instants::default() },
            Self::Expired => Instants { expired: Some(at), ..Instants::default() },
        }
    }

    fn of(self, instants: Instants) -> Option<Timestamp> {
        match self {
            Self::Removed => instants.removed,
            Self::Expired => instants.expired,
        }
    }
}

fn refused(why: crate::store::Refusal) -> Error {
    Error::new(ErrorKind::Full, "tagged", Operation::Invalidate)
        .with_message(format!("the tag store did not take the instant: {why:?}"))
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Unavailable, "tagged", Operation::Get)
        .with_message("the tag store did not say when the tags of the entry were invalidated")
}

/// What a tag has to be: not empty.
fn checked(tags: &[&str]) -> Result<()> {
    if tags.iter().any(|tag| tag.is_empty()) {
        return Err(Error::new(ErrorKind::InvalidInput, "tagged", Operation::Invalidate)
            .with_message("tag: empty; a tag has at least one character"));
    }
    Ok(())
}

impl<S: Store, T: Store<Key = str, Value = Timestamp>> InvalidateTags for Tagged<S, T> {
    async fn remove_tags(&self, tags: &[&str], at: Timestamp) -> Result<()> {
        checked(tags)?;
        self.invalidate(tags, Kind::Removed, at).await
    }

    async fn expire_tags(&self, tags: &[&str], at: Timestamp) -> Result<()> {
        checked(tags)?;
        self.invalidate(tags, Kind::Expired, at).await
    }
}

#[deny(clippy::missing_trait_methods, reason = "a method lost here is lost in every tagged stack")]
impl<S: Store, T: Store<Key = str, Value = Timestamp>> Store for Tagged<S, T> {
    type Key = S::Key;
    type Value = S::Value;

    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        let found = self.inner.get(key).await?;
        self.judged_one(found, self.clock.now()).await
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let mut unknown = Vec::new();
        self.pass(&entry, &mut unknown);
        let outcome = self.inner.set(key, entry).await;
        self.learn(unknown).await;
        outcome
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        let mut unknown = Vec::new();
        self.pass(&entry, &mut unknown);
        let outcome = self.inner.renew(key, entry).await;
        self.learn(unknown).await;
        outcome
    }

    fn remove(&self, key: &S::Key) -> impl Future<Output = Result<()>> + Send {
        self.inner.remove(key)
    }

    async fn clear(&self) -> Result<()> {
        if !self.clears_by_instant {
            return self.inner.clear().await;
        }
        let latest = Timestamp::from_nanos(self.latest.load(Ordering::SeqCst));
        self.invalidate(&[EVERYTHING], Kind::Removed, self.clock.now().max(latest)).await
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        let found = self.inner.get_at(key, now).await?;
        self.judged_one(found, now).await
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        self.inner.peek_with(key, |entry| {
            if !self.is_judged(entry.tags()) {
                return Some(read(entry));
            }
            let of = |tag: &str| self.known.of(tag);
            match self.judge(entry.lifetime(), entry.tags(), of, || self.clock.now()) {
                Verdict::Valid => Some(read(entry)),
                // Whoever is shown an older entry pays for a copy.
                Verdict::Aged(life) => Some(read(&entry.clone().with_lifetime(life))),
                Verdict::Absent | Verdict::Unknown => None,
            }
        })?
    }

    async fn get_many(&self, keys: &[&S::Key], now: Timestamp) -> Vec<Result<Option<Entry<S::Value>>>> {
        let found = self.inner.get_many(keys, now).await;
        self.judged(found, now).await
    }

    async fn set_many(&self, entries: &[(&S::Key, Entry<S::Value>)]) -> Vec<Result<SetOutcome>> {
        let mut unknown = Vec::new();
        for (_, entry) in entries {
            self.pass(entry, &mut unknown);
        }
        let outcomes = self.inner.set_many(entries).await;
        self.learn(unknown).await;
        outcomes
    }

    fn remove_many(&self, keys: &[&S::Key]) -> impl Future<Output = Vec<Result<()>>> + Send {
        self.inner.remove_many(keys)
    }

    /// What is held, invalidated entries among them until they are replaced, evicted or dropped.
    fn len(&self) -> Option<u64> {
        if self.clears_by_instant { None } else { self.inner.len() }
    }

    /// What is held, invalidated entries among them: they still take that room.
    fn weight(&self) -> Option<u64> {
        self.inner.weight()
    }

    async fn flush(&self) -> Result<()> {
        // Both, whatever becomes of one.
        let entries = self.inner.flush().await;
        let instants = self.instants.flush().await;
        entries.and(instants)
    }

    fn describe(&self) -> Description {
        self.counts
            .describe(
                Description::new("tagged"),
                self.known.len(),
                self.max_age,
                self.open,
                self.clears_by_instant,
            )
            .over(self.inner.describe())
            .over(self.instants.describe())
    }
}

impl<S, T> Tagged<S, T> {
    /// Notes an entry on its way in, and which of its tags nobody here knows.
    fn pass<V>(&self, entry: &Entry<V>, unknown: &mut Vec<Arc<str>>) {
        if self.clears_by_instant {
            self.latest.fetch_max(entry.created_at().as_nanos(), Ordering::SeqCst);
        }
        let is_unknown = |tag: &&str| !self.known.of(tag).is_some_and(|known| known.asked);
        unknown.extend(self.tags(entry.tags()).filter(is_unknown).map(Arc::from));
    }
}

impl<S: Evict, T: Store<Key = str, Value = Timestamp>> Evict for Tagged<S, T> {
    fn weighed_by(self, weigher: Weigher<S::Key, S::Value>) -> Self {
        Self { inner: self.inner.weighed_by(weigher), ..self }
    }

    fn weigh(&self, key: &S::Key, entry: &Entry<S::Value>) -> u64 {
        self.inner.weigh(key, entry)
    }

    fn evict(&self) -> bool {
        self.inner.evict()
    }
}

impl<S: ClearPrefix, T: Store<Key = str, Value = Timestamp>> ClearPrefix for Tagged<S, T> {
    fn clear_prefix(&self, prefix: &str) -> impl Future<Output = Result<()>> + Send {
        self.inner.clear_prefix(prefix)
    }
}

#[cfg(test)]
mod tests;
