//! A small store with tags, healthy but for one switch a bug.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Healthy, Line, Mutant, Trial, by_name};
use crate::entry::{Entry, Lifetime};
use crate::error::Result;
use crate::store::{InvalidateTags, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::{Model, Report, TagGround, TagStore, check_tags};
use crate::time::{Clock, ManualClock, Timestamp};

const T1: &str = "t1_exactly_what_carries_the_tag";
const T2: &str = "t2_an_invalidation_lasts";
const T3: &str = "t3_one_that_failed_holds_once_repeated";
const T4: &str = "t4_without_the_tag_store_nothing_unknown_is_served";
const T5: &str = "t5_one_write_and_no_question_twice";

#[rustfmt::skip]
const LIST: &[Line] = &[
    ("tags_prefix_matches", "a tag reaches every tag that begins with it", T1, 6),
    ("tags_lists_match", "a tag with a comma is taken for two tags", T1, 6),
    ("tags_same_instant_escapes", "what was created at the very instant is not reached", T1, 6),
    ("tags_later_is_reached", "what was created after the invalidation is reached", T1, 6),
    ("tags_expired_is_removed", "what was expired counts as absent, stale window or not", T1, 6),
    ("tags_expired_is_fresh", "an expiry changes nothing", T1, 6),
    ("tags_of_the_replaced_stay", "the tags of an overwritten entry go on counting", T1, 6),
    ("tags_of_the_first_entry_only", "an overwrite keeps the tags of the entry before it", T1, 6),
    ("tags_first_only", "only the first tag of an entry is looked at", T1, 6),
    ("tags_all_needed", "an entry goes when all of its tags were removed", T1, 6),
    ("tags_last_write_wins", "an older instant replaces a newer one", T1, 6),
    ("tags_batch_unjudged", "get_many does not look at tags", T1, 6),
    ("tags_peek_unjudged", "a peek does not look at tags", T1, 6),
    ("tags_floor_not_raised", "what the full table forgets raises no floor", T2, 8),
    ("tags_only_here", "the instant is not written to the tag store", T2, 6),
    ("tags_never_asked", "a process that was started anew does not ask the tag store", T2, 6),
    ("tags_half_asked", "what was removed is asked for, and what was expired is not", T2, 6),
    ("tags_store_keeps_the_last_write", "an older instant replaces a newer one in the tag store", T2, 6),
    ("tags_failure_told_as_done", "an invalidation that was not written is acknowledged", T3, 6),
    ("tags_served_unasked", "an entry is served when the tag store does not answer", T4, 6),
    ("tags_silence_is_knowledge", "a tag store that did not answer is not asked again", T4, 8),
    ("tags_untagged_fail", "an entry without tags fails along with the tag store", T4, 6),
    ("tags_untagged_asked", "the tag store is asked about entries without tags", T5, 6),
    ("tags_nothing_is_forgotten", "that a tag was never invalidated is asked at each read", T5, 6),
    ("tags_one_write_a_tag", "several tags are several writes", T5, 6),
];

pub(crate) fn mutants() -> Vec<Mutant> {
    by_name(LIST, try_out)
}

pub(crate) fn healthy() -> Vec<Healthy> {
    vec![Healthy { name: "toy tags", check: Box::new(|trial| try_out("", trial)) }]
}

fn try_out(bug: &'static str, trial: &Trial) -> Report {
    let mut check = check_tags("toy tags", move |ground| Toy::new(ground, bug)).seed(trial.seed);
    if let Some(cases) = trial.cases {
        check = check.cases(cases);
    }
    if let Some(law) = trial.only {
        check = check.only(law);
    }
    check.run()
}

/// The instants of one tag: removed, expired.
type Two = [Option<Timestamp>; 2];

struct Toy {
    entries: Arc<Model<str, u64>>,
    instants: TagStore,
    clock: ManualClock,
    most: usize,
    bug: &'static str,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What is known of a tag, and whether the tag store was asked.
    tags: BTreeMap<String, (Two, bool)>,
    floor: Option<Timestamp>,
    /// Tags by key, for those bugs that remember them.
    remembered: BTreeMap<String, Vec<Arc<str>>>,
}

impl Toy {
    fn new(ground: TagGround, bug: &'static str) -> Self {
        let TagGround { entries, instants, clock, known_tags: most } = ground;
        Self { entries, instants, clock, most, bug, known: Mutex::default() }
    }

    fn has(&self, bug: &str) -> bool {
        self.bug == bug
    }

    fn learn(&self, tag: &str, heard: Two, asked: bool) {
        let mut known = self.known.lock();
        let full = known.tags.len() >= self.most && !known.tags.contains_key(tag);
        if full
            && let Some((_, (gone, _))) = known.tags.pop_first()
            && !self.has("tags_floor_not_raised")
        {
            known.floor = known.floor.max(gone[0]).max(gone[1]);
        }
        let (two, was_asked) = known.tags.entry(tag.to_owned()).or_default();
        *was_asked |= asked;
        for (held, heard) in two.iter_mut().zip(heard) {
            let replaces = self.has("tags_last_write_wins") && heard.is_some();
            *held = if replaces { heard } else { (*held).max(heard) };
        }
    }

    /// What is known of a tag, asked for if need be; `None` if nobody answers.
    async fn of(&self, tag: &str) -> Result<Option<Two>> {
        let known = self.known.lock().tags.get(tag).copied();
        if let Some((two, true)) = known {
            return Ok(Some(two));
        }
        if self.has("tags_never_asked") {
            return Ok(Some(known.map_or([None; 2], |(two, _)| two)));
        }
        let keys = [format!("removed:{tag}"), format!("expired:{tag}")];
        let found = self.instants.get_many(&[&keys[0], &keys[1]], self.clock.now()).await;
        let mut two = known.map_or([None; 2], |(two, _)| two);
        for (held, found) in two.iter_mut().zip(found) {
            match found {
                Ok(found) => *held = (*held).max(found.map(Entry::into_value)),
                Err(_) if self.has("tags_served_unasked") => return Ok(Some(two)),
                Err(_) if self.has("tags_silence_is_knowledge") => break,
                Err(error) => return Err(error),
            }
            if self.has("tags_half_asked") {
                break;
            }
        }
        if two != [None; 2] || !self.has("tags_nothing_is_forgotten") {
            self.learn(tag, two, true);
        }
        Ok(Some(two))
    }

    fn remember(&self, key: &str, entry: &Entry<u64>) {
        let mut known = self.known.lock();
        let remembered = known.remembered.entry(key.to_owned()).or_default();
        if remembered.is_empty() || !self.has("tags_of_the_first_entry_only") {
            remembered.extend(entry.tags().iter().cloned());
        }
    }

    /// Every tag by whose instants an entry is judged.
    fn reaching(&self, key: &str, entry: &Entry<u64>) -> Vec<String> {
        let known = self.known.lock();
        let mut tags: Vec<String> = entry.tags().iter().map(ToString::to_string).collect();
        if self.has("tags_of_the_replaced_stay") || self.has("tags_of_the_first_entry_only") {
            tags = known.remembered.get(key).into_iter().flatten().map(ToString::to_string).collect();
        }
        if self.has("tags_first_only") {
            tags.truncate(1);
        }
        if self.has("tags_untagged_asked") || self.has("tags_untagged_fail") {
            tags.push("everything".to_owned());
        }
        let own = tags.clone();
        if self.has("tags_prefix_matches") {
            let all = known.tags.keys();
            tags.extend(all.filter(|tag| own.iter().any(|own| own.starts_with(*tag))).cloned());
        }
        if self.has("tags_lists_match") {
            tags.extend(own.iter().flat_map(|own| own.split(',').map(str::to_owned)));
        }
        tags
    }

    async fn judged(&self, key: &str, entry: Entry<u64>) -> Result<Option<Entry<u64>>> {
        let life = entry.lifetime();
        let tags = self.reaching(key, &entry);
        let mut all: Vec<Two> = Vec::new();
        for tag in &tags {
            all.extend(self.of(tag).await?);
        }
        let floor = self.known.lock().floor;
        if !tags.is_empty() && floor.is_some_and(|floor| life.created_at() <= floor) {
            return Ok(None);
        }
        let reaches = |at: Timestamp| match self.bug {
            "tags_same_instant_escapes" => life.created_at() < at,
            "tags_later_is_reached" => true,
            _ => life.created_at() <= at,
        };
        let of = |kind: usize| all.iter().filter_map(move |two| two[kind]).filter(|at| reaches(*at));
        let removed = match self.bug {
            "tags_all_needed" => !all.is_empty() && of(0).count() == all.len(),
            _ => of(0).next().is_some(),
        };
        if removed {
            return Ok(None);
        }
        Ok(match of(1).max() {
            Some(_) if self.has("tags_expired_is_removed") => None,
            Some(at) if !self.has("tags_expired_is_fresh") => {
                self.aged(life, at).map(|life| entry.with_lifetime(life))
            }
            _ => Some(entry),
        })
    }

    fn aged(&self, life: Lifetime, at: Timestamp) -> Option<Lifetime> {
        life.not_fresh_at(at, self.clock.now())
    }

    async fn invalidate(&self, tags: &[&str], kind: usize, at: Timestamp) -> Result<()> {
        let mut writes = Vec::new();
        for tag in tags {
            let known = self.known.lock().tags.get(*tag).copied().unwrap_or_default();
            let newest = if self.has("tags_store_keeps_the_last_write") || self.has("tags_last_write_wins") {
                at
            } else {
                // What another process wrote may be newer.
                let held = if known.1 { Some(known.0) } else { self.of(tag).await? };
                at.max(held.and_then(|two| two[kind]).unwrap_or(at))
            };
            let name = ["removed:", "expired:"][kind];
            writes.push((format!("{name}{tag}"), Entry::new(newest, Lifetime::forever(newest))));
            let mut heard = [None; 2];
            heard[kind] = Some(at);
            self.learn(tag, heard, false);
        }
        if self.has("tags_only_here") || writes.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = writes.iter().map(|(key, entry)| (key.as_str(), entry.clone())).collect();
        let whole = if self.has("tags_one_write_a_tag") { 1 } else { writes.len() };
        let mut outcome = Ok(());
        for part in writes.chunks(whole) {
            for written in self.instants.set_many(part).await {
                outcome = outcome.and(written.map(drop));
            }
        }
        if self.has("tags_failure_told_as_done") { Ok(()) } else { outcome }
    }
}

impl InvalidateTags for Toy {
    async fn remove_tags(&self, tags: &[&str], at: Timestamp) -> Result<()> {
        self.invalidate(tags, 0, at).await
    }

    async fn expire_tags(&self, tags: &[&str], at: Timestamp) -> Result<()> {
        self.invalidate(tags, 1, at).await
    }
}

impl Store for Toy {
    type Key = str;
    type Value = u64;

    async fn get(&self, key: &str) -> Result<Option<Entry<u64>>> {
        match self.entries.held(key) {
            Some(entry) => self.judged(key, entry).await,
            None => Ok(None),
        }
    }

    async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.remember(key, &entry);
        self.entries.set(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.entries.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.entries.clear().await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<u64>) -> R) -> Option<R> {
        if self.has("tags_peek_unjudged") { self.entries.peek_with(key, read) } else { None }
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Result<Option<Entry<u64>>>> {
        if self.has("tags_batch_unjudged") {
            return self.entries.get_many(keys, now).await;
        }
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.get(key).await);
        }
        found
    }
}
