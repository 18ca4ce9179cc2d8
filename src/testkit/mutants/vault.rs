//! A store of bytes on a disk or server that others use too: it can be opened again and by a second client, its bytes
//! can be damaged, and it can go away. Healthy unless a bug is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{ClearPrefix, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::executor::yield_now;
use crate::testkit::mutants::{Healthy, Line, Mutant, Trial, by_name};
use crate::testkit::{Check, Site, check};
use crate::time::{Clock, Timestamp};
use crate::wire;

/// What every client stands on.
#[derive(Default)]
struct Disk {
    rows: BTreeMap<String, Vec<u8>>,
    /// Physical lifetimes, as a server keeps them.
    until: BTreeMap<String, Timestamp>,
}

/// One client of one namespace.
struct Vault {
    bug: &'static str,
    disk: Arc<Mutex<Disk>>,
    namespace: String,
    clock: Arc<dyn Clock>,
    own: Mutex<Own>,
}

/// What a client keeps to itself: nothing, but for its bugs and the outage.
#[derive(Default)]
struct Own {
    down: bool,
    was_down: bool,
    cached: BTreeMap<String, Option<Entry<Bytes>>>,
    index: BTreeSet<String>,
    removed: BTreeSet<String>,
    buffer: Option<(String, Vec<u8>)>,
    queue: Vec<(String, Option<Vec<u8>>, u8)>,
}

impl Vault {
    fn open(bug: &'static str, disk: &Arc<Mutex<Disk>>, site: &Site) -> Self {
        Self {
            bug,
            disk: Arc::clone(disk),
            namespace: site.namespace().to_owned(),
            clock: site.clock(),
            own: Mutex::default(),
        }
    }

    fn reopened(bug: &'static str, disk: &Arc<Mutex<Disk>>, site: &Site) -> Self {
        if bug == "reopening_drops_the_oldest" {
            let mut disk = disk.lock();
            let first = disk.rows.keys().find(|name| name.starts_with(site.namespace())).cloned();
            if let Some(first) = first {
                disk.rows.remove(&first);
            }
        }
        Self::open(bug, disk, site)
    }

    fn is(&self, bug: &str) -> bool {
        self.bug == bug
    }

    fn name(&self, key: &str) -> String {
        let key = match self.bug {
            "slashes_become_underscores" => key.replace(['/', '\\'], "_"),
            "percents_are_not_encoded" => key.replace('/', "%2F"),
            "names_are_8_bits_of_a_hash" => (crc32c::crc32c(key.as_bytes()) & 0xff).to_string(),
            "names_are_cut_at_1024" => key.chars().take(1_024).collect(),
            "control_characters_are_dropped" => key.chars().filter(|char| !char.is_control()).collect(),
            _ => key.to_owned(),
        };
        format!("{}{key}", self.namespace)
    }

    fn encode(&self, key: &str, entry: &Entry<Bytes>) -> Vec<u8> {
        let labels = (
            entry.version().map(ToString::to_string),
            entry.tags().iter().map(ToString::to_string).collect(),
        );
        let life = entry.lifetime();
        let instants = [life.created_at(), life.fresh_until(), life.stale_until(), life.keep_until()];
        let plain: Plain = (instants.map(Timestamp::as_nanos), labels, entry.value().to_vec());
        let body = || postcard::to_stdvec(&plain).unwrap_or_default();
        match self.bug {
            "the_key_is_not_bound" => wire::encode(b"", entry).to_vec(),
            "no_checksum" => body(),
            "trailing_bytes_are_taken" => {
                let body = body();
                [crc32c::crc32c(&body).to_le_bytes().to_vec(), body].concat()
            }
            "the_checksum_spares_the_head" => {
                let body = body();
                [crc32c::crc32c(entry.value()).to_le_bytes().to_vec(), body].concat()
            }
            "tags_are_not_encoded" => {
                wire::encode(key.as_bytes(), &entry.clone().with_tags(Vec::<String>::new())).to_vec()
            }
            _ => wire::encode(key.as_bytes(), entry).to_vec(),
        }
    }

    fn decode(&self, key: &str, bytes: &[u8]) -> Result<Entry<Bytes>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "vault", Operation::Get);
        match self.bug {
            "the_key_is_not_bound" => wire::decode(b"", Bytes::copy_from_slice(bytes)),
            "no_checksum" => postcard::from_bytes(bytes).map(entry_of).map_err(|_| corrupt()),
            "trailing_bytes_are_taken" | "the_checksum_spares_the_head" => {
                let (sum, body) = bytes.split_at_checked(4).ok_or_else(corrupt)?;
                let (plain, rest): (Plain, &[u8]) = postcard::take_from_bytes(body).map_err(|_| corrupt())?;
                let covered = if self.is("the_checksum_spares_the_head") {
                    if !rest.is_empty() {
                        return Err(corrupt());
                    }
                    &plain.2[..]
                } else {
                    &body[..body.len() - rest.len()]
                };
                if crc32c::crc32c(covered).to_le_bytes() != sum {
                    return Err(corrupt());
                }
                Ok(entry_of(plain))
            }
            "short_bytes_panic" if bytes.len() < 42 => {
                std::panic::resume_unwind(Box::new("range end index 42 out of range for slice"))
            }
            "corrupt_is_another_kind" => wire::decode(key.as_bytes(), Bytes::copy_from_slice(bytes))
                .map_err(|error| Error::new(ErrorKind::Other, "vault", Operation::Get).with_source(error)),
            "errors_quote_bytes" => {
                wire::decode(key.as_bytes(), Bytes::copy_from_slice(bytes)).map_err(|error| {
                    Error::new(error.kind(), "vault", Operation::Get)
                        .with_message(format!("cannot read {:?}", String::from_utf8_lossy(bytes)))
                })
            }
            _ => wire::decode(key.as_bytes(), Bytes::copy_from_slice(bytes)),
        }
    }

    /// What the disk has, dead entries taken away as by a server.
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        let mut disk = self.disk.lock();
        if disk.until.get(name).is_some_and(|&until| until < self.clock.now()) {
            disk.rows.remove(name);
            disk.until.remove(name);
        }
        disk.rows.get(name).cloned()
    }

    fn save(&self, name: &str, bytes: Vec<u8>, life: Lifetime) {
        let mut disk = self.disk.lock();
        let until = match self.bug {
            "the_server_expires_what_is_stale" => life.fresh_until(),
            "lifetimes_are_whole_seconds" if !life.keep_until().is_never() => {
                Timestamp::from_nanos(life.keep_until().as_nanos() / 1_000_000_000 * 1_000_000_000)
            }
            _ => life.keep_until(),
        };
        disk.until.insert(name.to_owned(), until);
        disk.rows.insert(name.to_owned(), bytes);
    }

    fn drop_row(&self, name: &str) {
        let mut disk = self.disk.lock();
        disk.rows.remove(name);
        disk.until.remove(name);
    }

    /// Fails while the disk is away.
    async fn reach(&self, operation: Operation) -> Result<()> {
        let (down, was_down) = {
            let own = self.own.lock();
            (own.down, own.was_down)
        };
        if down && self.is("an_outage_hangs") {
            std::future::pending::<()>().await;
        }
        if down || (was_down && self.is("an_outage_never_ends")) {
            return Err(Error::new(ErrorKind::Unavailable, "vault", operation));
        }
        // What failed before is done two calls later, whatever came since.
        let due: Vec<_> = {
            let mut own = self.own.lock();
            own.queue.iter_mut().for_each(|(.., calls)| *calls += 1);
            let due = own.queue.iter().filter(|(.., calls)| *calls > 2).cloned().collect();
            own.queue.retain(|(.., calls)| *calls <= 2);
            due
        };
        for (name, bytes, _) in due {
            match bytes {
                Some(bytes) => self.disk.lock().rows.insert(name, bytes),
                None => self.disk.lock().rows.remove(&name),
            };
        }
        Ok(())
    }

    fn switch(&self, down: bool) {
        let mut own = self.own.lock();
        own.was_down |= down;
        own.down = down;
    }

    /// The names that are this client's own.
    fn own_names(&self) -> Vec<String> {
        let scope = match self.bug {
            "clear_takes_longer_names" => self.namespace.trim_end_matches('.').to_owned(),
            "clear_takes_everything" => "larder-".to_owned(),
            _ => self.namespace.clone(),
        };
        let like = |name: &str| {
            name.chars().count() >= scope.chars().count()
                && name.chars().zip(scope.chars()).all(|(have, want)| want == '_' || have == want)
        };
        let disk = self.disk.lock();
        let names = disk.rows.keys().filter(|name| {
            if self.is("clear_is_a_like_pattern") { like(name) } else { name.starts_with(&scope) }
        });
        let names = names.cloned();
        if self.is("clear_reads_one_page") { names.take(1_000).collect() } else { names.collect() }
    }
}

/// The four instants, version and tags, and the value.
type Plain = ([u64; 4], (Option<String>, Vec<String>), Vec<u8>);

fn entry_of((instants, (version, tags), value): Plain) -> Entry<Bytes> {
    let [created, fresh, stale, keep] = instants.map(Timestamp::from_nanos);
    let entry = Entry::new(Bytes::from(value), Lifetime::new(created, fresh, stale, keep)).with_tags(tags);
    match version {
        Some(version) => entry.with_version(version),
        None => entry,
    }
}

impl Store for Vault {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
        let name = self.name(key);
        let reached = self.reach(Operation::Get).await;
        if self.is("an_outage_is_a_miss") && reached.is_err() {
            return Ok(None);
        }
        reached?;
        yield_now().await;
        if self.bug.starts_with("reads_are_cached") {
            let known = self.own.lock().cached.get(&name).cloned();
            if let Some(known) =
                known.filter(|known| known.is_some() || self.is("reads_are_cached_misses_too"))
            {
                return Ok(known);
            }
        }
        if self.is("reads_buffered_writes_only_here")
            && let Some((buffered, bytes)) = &self.own.lock().buffer
            && *buffered == name
        {
            return self.decode(key, bytes).map(Some);
        }
        if self.is("the_index_is_in_memory") && !self.own.lock().index.contains(&name) {
            return Ok(None);
        }
        if self.is("removals_are_in_memory") && self.own.lock().removed.contains(&name) {
            return Ok(None);
        }
        let found = self.load(&name).map(|bytes| self.decode(key, &bytes)).transpose();
        if self.bug.starts_with("reads_are_cached")
            && let Ok(found) = &found
        {
            self.own.lock().cached.insert(name, found.clone());
        }
        found
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let name = self.name(key);
        let (bytes, life) = (self.encode(key, &entry), entry.lifetime());
        if let Err(error) = self.reach(Operation::Set).await {
            match self.bug {
                "a_failed_set_is_done_later" => self.own.lock().queue.push((name, Some(bytes), 0)),
                "an_outage_swallows_sets" => return Ok(SetOutcome::Stored),
                "outages_quote_values" => {
                    let text = String::from_utf8_lossy(entry.value()).into_owned();
                    return Err(
                        Error::new(ErrorKind::Unavailable, "vault", Operation::Set).with_message(text)
                    );
                }
                _ => {}
            }
            return Err(error);
        }
        if self.is("values_are_leaked") {
            std::mem::forget(entry.value().clone());
        }
        if self.is("an_overwrite_reads_first")
            && let Some(old) = self.load(&name)
        {
            self.decode(key, &old)?;
        }
        {
            let mut own = self.own.lock();
            own.cached.insert(name.clone(), Some(entry));
            own.index.insert(name.clone());
            own.removed.remove(&name);
        }
        match self.bug {
            "written_in_place_in_two_halves" => {
                let half = bytes[..bytes.len() / 2].to_vec();
                self.save(&name, half, life);
                yield_now().await;
            }
            "the_last_write_is_buffered" | "reads_buffered_writes_only_here" => {
                let earlier = self.own.lock().buffer.replace((name, bytes));
                if let Some((name, bytes)) = earlier {
                    self.save(&name, bytes, Lifetime::forever(Timestamp::EPOCH));
                }
                return Ok(SetOutcome::Stored);
            }
            "temporary_files_are_served" => self.save(&format!("{name}~"), bytes.clone(), life),
            _ => {}
        }
        self.save(&name, bytes, life);
        Ok(SetOutcome::Stored)
    }

    async fn set_many(&self, entries: &[(&str, Entry<Bytes>)]) -> Vec<Result<SetOutcome>> {
        let mut results = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let result = self.set(key, entry.clone()).await;
            results.push(if self.is("a_pipeline_ignores_its_errors") {
                Ok(SetOutcome::Stored)
            } else {
                result
            });
        }
        results
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let name = self.name(key);
        if let Err(error) = self.reach(Operation::Remove).await {
            match self.bug {
                "a_failed_removal_is_done_later" => self.own.lock().queue.push((name, None, 0)),
                "an_outage_swallows_removals" => return Ok(()),
                _ => {}
            }
            return Err(error);
        }
        yield_now().await;
        {
            let mut own = self.own.lock();
            own.cached.remove(&name);
            own.removed.insert(name.clone());
            own.buffer = own.buffer.take().filter(|(buffered, _)| *buffered != name);
        }
        if !self.is("removals_are_in_memory") {
            self.drop_row(&name);
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.reach(Operation::Clear).await?;
        for name in self.own_names() {
            self.drop_row(&name);
        }
        let mut own = self.own.lock();
        (own.cached, own.buffer) = (BTreeMap::new(), None);
        Ok(())
    }
}

impl ClearPrefix for Vault {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        self.reach(Operation::Clear).await?;
        let scope = self.name(prefix);
        let names: Vec<String> = self.disk.lock().rows.keys().cloned().collect();
        for name in names {
            let bracketed = self.is("brackets_are_a_class") && prefix.contains('[');
            let starred = self.is("a_question_mark_is_any") && prefix.contains('?');
            if (name.starts_with(&scope) && !bracketed) || (starred && name.starts_with(&self.namespace)) {
                self.drop_row(&name);
            }
        }
        self.own.lock().cached.clear();
        Ok(())
    }
}

#[rustfmt::skip]
const LINES: &[Line] = &[
    ("tags_are_not_encoded", "tags are not among the bytes", "s1_every_field_comes_back", 2),
    ("the_server_expires_what_is_stale", "the server's lifetime ends with freshness", "s12_an_entry_lives_until_keep_until", 3),
    ("lifetimes_are_whole_seconds", "the server's lifetime is rounded down", "s12_an_entry_lives_until_keep_until", 4),
    ("slashes_become_underscores", "k/l and k_l meet", "s6_different_keys_never_meet", 4),
    ("percents_are_not_encoded", "k/l and k%2Fl meet", "s6_different_keys_never_meet", 4),
    ("names_are_8_bits_of_a_hash", "files are named by too few bits", "s6_different_keys_never_meet", 4),
    ("names_are_cut_at_1024", "long keys meet", "s6_different_keys_never_meet", 4),
    ("control_characters_are_dropped", "k and k with a newline meet", "s6_different_keys_never_meet", 4),
    ("clear_takes_longer_names", "clear takes namespaces that begin alike", "s5_two_stores_share_nothing", 4),
    ("clear_is_a_like_pattern", "_ in a namespace matches any character", "s5_two_stores_share_nothing", 4),
    ("clear_takes_everything", "clear empties the whole server", "s5_two_stores_share_nothing", 4),
    ("clear_reads_one_page", "clear reads one page of the listing", "s5_clear_takes_all_of_its_own", 4),
    ("brackets_are_a_class", "a bracket in the prefix matches nothing", "s5_clear_prefix_takes_its_range", 4),
    ("a_question_mark_is_any", "a question mark in the prefix matches everything", "s5_clear_prefix_takes_its_range", 4),
    ("the_index_is_in_memory", "what was stored is not found after opening again", "s3_reopening_loses_nothing", 3),
    ("removals_are_in_memory", "what was removed is back after opening again", "s3_reopening_loses_nothing", 4),
    ("the_last_write_is_buffered", "the last write is lost with the process", "s3_reopening_loses_nothing", 3),
    ("reopening_drops_the_oldest", "opening takes an entry away", "s3_reopening_loses_nothing", 3),
    ("reads_are_cached", "a client does not see what another wrote", "s3_two_clients_see_one_store", 4),
    ("reads_are_cached_misses_too", "a client remembers that there was nothing", "s3_two_clients_see_one_store", 4),
    ("reads_buffered_writes_only_here", "a client keeps its last write to itself", "s3_two_clients_see_one_store", 3),
    ("written_in_place_in_two_halves", "a dropped write leaves half a file", "s8_a_dropped_call_leaves_old_or_new", 4),
    ("an_outage_is_a_miss", "a server that is away is an empty one", "s4_a_failed_call_leaves_old_new_or_nothing", 3),
    ("an_outage_swallows_sets", "a set is acknowledged and lost", "s4_a_failed_call_leaves_old_new_or_nothing", 4),
    ("an_outage_swallows_removals", "a removal is acknowledged and lost", "s4_a_failed_call_leaves_old_new_or_nothing", 5),
    ("a_failed_set_is_done_later", "a failed set is done after newer ones", "s4_a_failed_call_leaves_old_new_or_nothing", 6),
    ("a_failed_removal_is_done_later", "a failed removal is done after newer sets", "s4_a_failed_call_leaves_old_new_or_nothing", 6),
    ("an_outage_never_ends", "the connection is not opened again", "s4_a_failed_call_leaves_old_new_or_nothing", 3),
    ("a_pipeline_ignores_its_errors", "a bulk set that failed is acknowledged", "s4_a_failed_call_leaves_old_new_or_nothing", 4),
    ("temporary_files_are_served", "the name of a temporary file is a key", "s6_different_keys_never_meet", 4),
    ("an_outage_hangs", "a call waits for the server for ever", "s4_a_failed_call_leaves_old_new_or_nothing", 2),
    ("outages_quote_values", "an error has the value in its text", "s4_a_failed_call_leaves_old_new_or_nothing", 2),
    ("the_key_is_not_bound", "the bytes of another key are served", "s7_damaged_bytes_are_never_served", 4),
    ("no_checksum", "a flipped bit is served", "s7_damaged_bytes_are_never_served", 3),
    ("trailing_bytes_are_taken", "bytes after the end are ignored", "s7_damaged_bytes_are_never_served", 3),
    ("the_checksum_spares_the_head", "a flipped deadline is served", "s7_damaged_bytes_are_never_served", 3),
    ("short_bytes_panic", "a cut file panics", "s7_damaged_bytes_are_never_served", 3),
    ("corrupt_is_another_kind", "damage has the kind of anything else", "s7_damaged_bytes_are_never_served", 3),
    ("errors_quote_bytes", "the error has the damaged value in its text", "s7_damaged_bytes_are_never_served", 3),
    ("an_overwrite_reads_first", "a damaged entry cannot be overwritten", "s7_damaged_bytes_are_never_served", 4),
    ("values_are_leaked", "a copy of each value stays for ever", "k_values_are_dropped_with_the_store", 1),
];

fn vault(bug: &'static str, trial: &Trial) -> Check<impl Store<Key = str, Value = Bytes> + use<>> {
    let disk = Arc::new(Mutex::new(Disk::default()));
    let (again, beside) = (Arc::clone(&disk), Arc::clone(&disk));
    let check = check("vault", move |site| Vault::open(bug, &disk, &site))
        .expires()
        .clears_prefixes()
        .reopen(move |site| Vault::reopened(bug, &again, &site))
        .second_client(move |site| Vault::open(bug, &beside, &site))
        .outage(Vault::switch)
        .corrupt(|vault, key, change| {
            let mut disk = vault.disk.lock();
            let Some(bytes) = disk.rows.get_mut(&vault.name(key)) else { return false };
            *bytes = change(std::mem::take(bytes));
            true
        })
        .seed(trial.seed);
    let check = match trial.cases {
        Some(cases) => check.cases(cases),
        None => check,
    };
    if let Some(law) = trial.only { check.only(law) } else { check }
}

pub(super) fn mutants() -> Vec<Mutant> {
    by_name(LINES, |name, trial| vault(name, trial).run())
}

pub(super) fn healthy() -> Vec<Healthy> {
    vec![Healthy { name: "vault", check: Box::new(|trial| vault("", trial).run()) }]
}
