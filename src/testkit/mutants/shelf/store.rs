//! A store in memory: bounded by entries, bytes and the size of a value, in the order of use, with overrides of
//! everything that can be overridden. Healthy unless a bug is named.

mod capabilities;
mod renewal;

use std::sync::Arc;

use crate::describe::Description;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Refusal, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::executor::yield_now;
use crate::time::{Clock, Timestamp};

/// The store. Entries lie in the order of their use, the next victim first.
pub(super) struct Shelf {
    bug: &'static str,
    max_entries: usize,
    pub(super) max_bytes: u64,
    pub(super) largest: usize,
    clock: Arc<dyn Clock>,
    pub(super) held: Arc<Mutex<Held>>,
    /// Tells how many of these stores are left.
    #[cfg(test)]
    pub(super) token: Option<Arc<()>>,
}

#[derive(Clone, Default)]
pub(super) struct Held {
    rows: Vec<(String, Entry<String>)>,
    weight: u64,
    /// For bugs that need a second copy, a queue, or a lock of their own.
    peeks: Vec<(String, Entry<String>)>,
    late: Vec<(String, Option<Entry<String>>)>,
    busy: bool,
    calls: u64,
}

impl Shelf {
    pub(super) fn new(bug: &'static str, max_entries: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            bug,
            max_entries,
            max_bytes: u64::MAX,
            largest: usize::MAX,
            clock,
            held: Arc::default(),
            #[cfg(test)]
            token: None,
        }
    }

    fn is(&self, bug: &str) -> bool {
        self.bug == bug
    }

    /// What a key is known by.
    fn name(&self, key: &str) -> String {
        match self.bug {
            "keys_ignore_case" => key.to_lowercase(),
            "keys_are_trimmed" => key.trim().to_owned(),
            "keys_are_normalized" => key.replace("u\u{308}", "ü"),
            "keys_are_cut" => key.chars().take(255).collect(),
            "keys_end_at_nul" => key.split('\0').next().unwrap_or_default().to_owned(),
            "keys_are_their_hash" => key.bytes().map(u32::from).sum::<u32>().to_string(),
            "keys_drop_dots" => key.trim_start_matches("./").replace("../", ""),
            _ => key.to_owned(),
        }
    }

    fn weight_of(&self, key: &str, entry: &Entry<String>) -> u64 {
        let _ = self;
        (key.len() + entry.value().len()) as u64 + 8
    }

    /// What is kept of an entry.
    fn kept(&self, entry: Entry<String>) -> Entry<String> {
        let life = entry.lifetime();
        let [created, fresh, stale, keep] =
            [life.created_at(), life.fresh_until(), life.stale_until(), life.keep_until()];
        let at = Timestamp::from_nanos;
        let each = |change: fn(u64) -> u64| {
            let change = |instant: Timestamp| at(change(instant.as_nanos()));
            Lifetime::new(change(created), change(fresh), change(stale), change(keep))
        };
        let life = match self.bug {
            "instants_in_milliseconds" => each(|nanos| nanos / 1_000_000 * 1_000_000),
            "instants_in_32_bit_seconds" => {
                each(|nanos| nanos.min(u64::from(u32::MAX) * 1_000_000_000 + 999_999_999))
            }
            "instants_in_signed_64_bits" => each(|nanos| nanos.min(i64::MAX.unsigned_abs())),
            "never_is_stored_as_zero" => {
                each(|nanos| if nanos == u64::MAX || nanos == 0 { u64::MAX } else { nanos })
            }
            "far_is_never" => each(|nanos| if nanos > u64::MAX - 1_000 { u64::MAX } else { nanos }),
            "created_when_stored" => Lifetime::new(self.clock.now(), fresh, stale, keep),
            "stale_window_lost" => Lifetime::new(created, fresh, fresh, keep),
            "keep_until_lost" => Lifetime::new(created, fresh, stale, stale),
            _ => life,
        };
        let (version, tags) = (entry.version().cloned(), entry.tags().to_vec());
        let mut tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        match self.bug {
            "tags_dropped" => tags.clear(),
            "tags_sorted" => tags.sort(),
            "tags_deduplicated" => tags.dedup(),
            "tags_joined_by_commas" => {
                let joined = tags.join(",");
                tags = if tags.is_empty() { tags } else { joined.split(',').map(str::to_owned).collect() };
            }
            "empty_tags_dropped" => tags.retain(|tag| !tag.is_empty()),
            _ => {}
        }
        let value = match self.bug {
            "values_are_cut" => entry.value().chars().take(65_536).collect(),
            _ => entry.into_value(),
        };
        let entry = Entry::new(value, life).with_tags(tags);
        match version {
            Some(_) if self.is("version_dropped") => entry,
            Some(version) if self.is("empty_version_dropped") && version.is_empty() => entry,
            Some(version) => entry.with_version(version),
            None => entry,
        }
    }

    /// What a reader is shown of an entry, if anything.
    fn shown(&self, entry: Entry<String>) -> Option<Entry<String>> {
        let (life, now) = (entry.lifetime(), self.clock.now());
        let until = match self.bug {
            "hides_what_is_stale" | "lifetime_from_fresh_until" => life.fresh_until(),
            "hides_what_is_expired" | "lifetime_from_stale_until" => life.stale_until(),
            "never_drops_the_dead" => Timestamp::MAX,
            "dead_a_tick_early" => life.keep_until().saturating_sub(std::time::Duration::from_nanos(1)),
            "lives_an_hour_longer" => life.keep_until().saturating_add(std::time::Duration::from_secs(3_600)),
            _ => life.keep_until(),
        };
        (now <= until).then_some(entry)
    }

    fn read(&self, key: &str, is_peek: bool) -> Option<Entry<String>> {
        let name = self.name(key);
        let mut held = self.held.lock();
        let due = self.is("dropped_set_happens_later") && held.calls.is_multiple_of(4);
        if due || self.is("applies_late") || self.is("removes_late") {
            held.apply_late();
        }
        if is_peek && self.bug.starts_with("peek_") {
            return match self.bug {
                "peek_is_silent" => None,
                _ => held.peeks.iter().find(|(known, _)| *known == name).map(|(_, entry)| entry.clone()),
            };
        }
        let place = held.rows.iter().position(|(known, _)| *known == name)?;
        let row = held.rows[place].clone();
        if !(self.is("hit_is_no_use") || (self.is("peek_is_no_use_but_get_is") && is_peek)) {
            let row = held.rows.remove(place);
            held.rows.push(row);
        }
        if self.is("a_read_removes") {
            held.rows.retain(|(known, _)| *known != name);
        }
        if self.is("a_read_renews") {
            let life = row.1.lifetime();
            let renewed = Lifetime::new(
                life.created_at(),
                life.fresh_until().max(self.clock.now()),
                life.stale_until(),
                life.keep_until(),
            );
            if let Some((_, entry)) = held.rows.last_mut() {
                *entry = entry.clone().with_lifetime(renewed);
            }
        }
        if self.is("a_read_resets_created_at") {
            let life = row.1.lifetime();
            let renewed =
                Lifetime::new(self.clock.now(), life.fresh_until(), life.stale_until(), life.keep_until());
            return Some(row.1.with_lifetime(renewed));
        }
        drop(held);
        self.shown(row.1)
    }

    fn write(&self, key: &str, entry: Entry<String>) -> SetOutcome {
        let name = self.name(key);
        if self.is("empty_key_ignored") && key.is_empty() {
            return SetOutcome::Stored;
        }
        if self.is("empty_value_removes") && entry.value().is_empty() {
            self.take(key);
            return SetOutcome::Stored;
        }
        let entry = self.kept(entry);
        let weight = self.weight_of(&name, &entry);
        let limit = match self.bug {
            "limit_refuses_itself" => self.largest.saturating_sub(1),
            "limit_takes_one_more" => self.largest.saturating_add(1),
            "limit_is_ignored" => usize::MAX,
            _ => self.largest,
        };
        if entry.value().len() > limit || weight > self.max_bytes {
            if !self.is("refused_leaves_the_old") {
                self.take(key);
            }
            return SetOutcome::Refused(Refusal::TooLarge);
        }
        let mut held = self.held.lock();
        let held = &mut *held;
        if self.is("tags_merged_on_overwrite")
            && let Some((_, old)) = held.rows.iter_mut().find(|(known, _)| *known == name)
        {
            let tags: Vec<_> = old.tags().iter().chain(entry.tags()).cloned().collect();
            let merged = entry.clone().with_tags(tags);
            *old = merged;
            return SetOutcome::Stored;
        }
        if self.is("inserts_only_if_absent") && held.rows.iter().any(|(known, _)| *known == name) {
            return SetOutcome::Stored;
        }
        if self.is("overwrite_keeps_the_lifetime")
            && let Some((_, old)) = held.rows.iter_mut().find(|(known, _)| *known == name)
        {
            *old = entry.with_lifetime(old.lifetime());
            return SetOutcome::Stored;
        }
        let old = held.rows.iter().position(|(known, _)| *known == name);
        let place = old.filter(|_| self.is("overwrite_keeps_its_place"));
        if let Some(old) = old {
            let (known, old) = held.rows.remove(old);
            if !self.is("overwrite_not_subtracted") {
                held.weight -= self.weight_of(&known, &old).min(held.weight);
            }
        }
        let room = self.max_entries + usize::from(self.is("one_entry_too_many"));
        let bytes = if self.is("bound_ignores_the_new_entry") { 0 } else { weight };
        while held.rows.len() >= room || held.weight + bytes > self.max_bytes {
            let victim = if self.is("evicts_the_newest") { held.rows.len().saturating_sub(1) } else { 0 };
            if held.rows.is_empty() {
                break;
            }
            let (known, gone) = held.rows.remove(victim);
            if !self.is("evicted_not_subtracted") {
                held.weight -= self.weight_of(&known, &gone).min(held.weight);
            }
        }
        held.weight += weight;
        let place = place.unwrap_or(held.rows.len()).min(held.rows.len());
        held.rows.insert(place, (name.clone(), entry.clone()));
        if !self.is("peek_misses_overwrites") || !held.peeks.iter().any(|(known, _)| *known == name) {
            held.peeks.retain(|(known, _)| *known != name);
            held.peeks.push((name, entry));
        }
        SetOutcome::Stored
    }

    fn take(&self, key: &str) -> bool {
        let name = self.name(key);
        let mut held = self.held.lock();
        if !self.is("peek_shows_what_was_removed") {
            held.peeks.retain(|(known, _)| *known != name);
        }
        let place = held.rows.iter().position(|(known, _)| *known == name);
        if self.is("absent_removal_is_subtracted") && place.is_none() {
            held.weight = held.weight.saturating_sub(9);
        }
        let Some(place) = place else { return false };
        if self.is("a_removal_keeps_the_last_row") && held.rows.len() == 1 {
            return false;
        }
        let (known, old) = held.rows.remove(place);
        if !self.is("removed_not_subtracted") {
            held.weight -= self.weight_of(&known, &old).min(held.weight);
        }
        true
    }

    fn absent() -> Error {
        Error::new(ErrorKind::Other, "shelf", Operation::Remove).with_message("there is no such key")
    }

    fn trouble(&self, operation: Operation) -> Result<()> {
        let mut held = self.held.lock();
        held.calls += 1;
        let calls = held.calls;
        drop(held);
        match self.bug {
            "fails_always" => Err(Error::new(ErrorKind::Unavailable, "shelf", operation)),
            "fails_now_and_then" if calls.is_multiple_of(3) => {
                Err(Error::new(ErrorKind::Other, "shelf", operation))
            }
            "panics_now_and_then" if calls.is_multiple_of(3) => {
                std::panic::resume_unwind(Box::new("index out of bounds: the len is 3"))
            }
            _ => Ok(()),
        }
    }

    /// A lock without a guard: whoever is dropped while it is held leaves it so.
    async fn enter(&self) {
        while self.held.lock().busy {
            std::future::poll_fn(|context| {
                // Woken once more at the next poll; with nobody left to free the lock this never ends.
                context.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            })
            .await;
        }
        self.held.lock().busy = true;
    }
}

impl Held {
    fn apply_late(&mut self) {
        for (name, change) in std::mem::take(&mut self.late) {
            self.rows.retain(|(known, _)| *known != name);
            if let Some(entry) = change {
                self.rows.push((name, entry));
            }
        }
    }
}

/// Queues a write when it is dropped before its end.
struct Later<'a>(&'a Shelf, Option<(String, Entry<String>)>);

impl Drop for Later<'_> {
    fn drop(&mut self) {
        if let Some((name, entry)) = self.1.take() {
            self.0.held.lock().late.push((name, Some(entry)));
        }
    }
}

impl Store for Shelf {
    type Key = str;
    type Value = String;

    async fn get(&self, key: &str) -> Result<Option<Entry<String>>> {
        self.trouble(Operation::Get)?;
        if self.is("get_hangs") && !key.is_empty() {
            std::future::pending::<()>().await;
        }
        if self.is("get_spins") {
            loop {
                yield_now().await;
            }
        }
        if self.is("get_blocks") {
            loop {
                std::thread::park();
            }
        }
        if self.is("reads_are_coalesced") {
            // Whoever joins gets what was read before it came.
            let running = self.held.lock().late.iter().find(|(known, _)| known == key).cloned();
            if let Some((_, found)) = running {
                return Ok(found);
            }
            let found = self.read(key, false);
            self.held.lock().late.push((key.to_owned(), found.clone()));
            yield_now().await;
            yield_now().await;
            self.held.lock().late.retain(|(known, _)| known != key);
            return Ok(found);
        }
        Ok(self.read(key, false))
    }

    async fn set(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
        self.trouble(Operation::Set)?;
        match self.bug {
            "set_is_remove_then_insert" => {
                self.take(key);
                yield_now().await;
            }
            "set_copies_the_map" => {
                let mut copy = self.held.lock().clone();
                yield_now().await;
                copy.rows.retain(|(known, _)| known != key);
                copy.rows.push((key.to_owned(), entry));
                *self.held.lock() = copy;
                return Ok(SetOutcome::Stored);
            }
            "threads_lose_updates" => {
                let mut copy = self.held.lock().clone();
                std::thread::yield_now();
                copy.rows.retain(|(known, _)| known != key);
                copy.rows.push((key.to_owned(), entry));
                *self.held.lock() = copy;
                return Ok(SetOutcome::Stored);
            }
            "dropped_call_keeps_the_lock" => {
                self.enter().await;
                yield_now().await;
                let outcome = self.write(key, entry);
                self.held.lock().busy = false;
                return Ok(outcome);
            }
            "dropped_set_happens_later" => {
                let mut later = Later(self, Some((key.to_owned(), entry.clone())));
                yield_now().await;
                later.1 = None;
            }
            "dropped_set_is_a_mixture" => {
                let old = self.read(key, false);
                if let Some(old) = old {
                    self.write(key, Entry::new(entry.value().clone(), old.lifetime()).with_tags(["half"]));
                    yield_now().await;
                }
            }
            "applies_late" => {
                self.held.lock().late.push((key.to_owned(), Some(entry)));
                yield_now().await;
                return Ok(SetOutcome::Stored);
            }
            "acknowledges_first" => {
                // Only the second of two writes in a row gets through.
                let earlier = self.held.lock().late.pop();
                if let Some((key, Some(entry))) = earlier {
                    self.write(&key, entry);
                }
                self.held.lock().late.push((key.to_owned(), Some(entry)));
                return Ok(SetOutcome::Stored);
            }
            _ => {}
        }
        Ok(self.write(key, entry))
    }

    async fn renew(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
        match self.renewal(key, entry) {
            Some(entry) => self.set(key, entry).await,
            None => Ok(SetOutcome::Stored),
        }
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.trouble(Operation::Remove)?;
        if self.is("removes_late") {
            self.held.lock().late.push((key.to_owned(), None));
            return Ok(());
        }
        let found = self.take(key);
        if !found && self.is("absent_removal_fails") { Err(Self::absent()) } else { Ok(()) }
    }

    async fn clear(&self) -> Result<()> {
        self.trouble(Operation::Clear)?;
        let mut held = self.held.lock();
        if self.is("clear_on_empty_fails") && held.rows.is_empty() {
            return Err(Self::absent());
        }
        if self.is("clear_takes_one_page") {
            let page = held.rows.len().min(1_000);
            held.rows.drain(..page);
            held.weight = 0;
            return Ok(());
        }
        if self.is("clear_spares_the_last") && held.rows.len() > 1 {
            let count = held.rows.len() - 1;
            held.rows.drain(..count);
            return Ok(());
        }
        held.rows.clear();
        if !self.is("clear_keeps_the_weight") {
            held.weight = 0;
        }
        if !self.is("peek_survives_clear") {
            held.peeks.clear();
        }
        Ok(())
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Result<Option<Entry<String>>> {
        let found = self.get(key).await?;
        if self.is("get_at_judges") {
            return Ok(found.filter(|entry| entry.lifetime().fresh_until() >= now));
        }
        Ok(found)
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<String>) -> R) -> Option<R> {
        self.read(key, true).as_ref().map(read)
    }

    async fn get_many(&self, keys: &[&str], _: Timestamp) -> Vec<Result<Option<Entry<String>>>> {
        let mut asked = keys.to_vec();
        match self.bug {
            "get_many_sorts" => asked.sort_unstable(),
            "get_many_reverses" => asked.reverse(),
            "get_many_answers_each_once" => asked.dedup(),
            "get_many_panics_on_nothing" if asked.is_empty() => {
                std::panic::resume_unwind(Box::new("called `Option::unwrap()` on a `None` value"))
            }
            _ => {}
        }
        let mut results: Vec<_> = asked.into_iter().map(|key| Ok(self.read(key, false))).collect();
        if self.is("get_many_leaves_out_misses") {
            results.retain(|result| matches!(result, Ok(Some(_))));
        }
        if self.is("get_many_puts_misses_last") {
            results.sort_by_key(|result| !matches!(result, Ok(Some(_))));
        }
        results
    }

    async fn set_many(&self, entries: &[(&str, Entry<String>)]) -> Vec<Result<SetOutcome>> {
        let write = |(key, entry): &(&str, Entry<String>)| Ok(self.write(key, entry.clone()));
        match self.bug {
            "set_many_runs_backwards" => entries.iter().rev().map(write).collect(),
            "set_many_forgets_the_last" => {
                let count = entries.len();
                let last = |(index, item)| {
                    if index + 1 == count && count > 1 { Ok(SetOutcome::Stored) } else { write(item) }
                };
                entries.iter().enumerate().map(last).collect()
            }
            "set_many_writes_one_value" => {
                let first = entries.first().map(|(_, entry)| entry.clone());
                let all = |(key, entry): &(&str, Entry<String>)| {
                    Ok(self.write(key, first.clone().unwrap_or_else(|| entry.clone())))
                };
                entries.iter().map(all).collect()
            }
            "set_many_answers_once" => entries.iter().map(write).take(1).collect(),
            _ => entries.iter().map(write).collect(),
        }
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        if self.is("remove_many_stops_at_a_miss") {
            let mut going = true;
            let remove = |key: &&str| {
                if going {
                    going = self.take(key);
                }
                Ok(())
            };
            return keys.iter().map(remove).collect();
        }
        if self.is("remove_many_clears_on_nothing") && keys.is_empty() {
            self.held.lock().rows.clear();
        }
        let remove = |key: &&str| {
            let found = self.take(key);
            if !found && self.is("absent_bulk_removal_fails") { Err(Self::absent()) } else { Ok(()) }
        };
        keys.iter().map(remove).collect()
    }

    fn len(&self) -> Option<u64> {
        let held = self.held.lock();
        match self.bug {
            "len_is_silent" => None,
            "len_counts_writes" => Some(held.calls),
            _ => Some(held.rows.len() as u64),
        }
    }

    fn weight(&self) -> Option<u64> {
        Some(self.held.lock().weight)
    }

    async fn flush(&self) -> Result<()> {
        if self.is("flush_forgets") {
            self.held.lock().rows.clear();
        }
        Ok(())
    }

    fn describe(&self) -> Description {
        Description::new("shelf").holding(self.len(), self.weight())
    }
}
