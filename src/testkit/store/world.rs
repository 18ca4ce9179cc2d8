//! The stores of a case, their types forgotten: plans go in, answers come out.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::dynamic::BoxStore;
use crate::entry::{Entry, Lifetime};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::key::{Key, Value};
use crate::runtime::BoxFuture;
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::sample::Witness;
use crate::testkit::store::plan::{Damage, Draft, INSTANTS, Op, stride};
use crate::testkit::store::trace::{One, Seen};
use crate::time::{Clock, ManualClock, SystemClock, Timestamp};

/// Where a store under test is made: a name that no other case has, a directory, and the clock.
#[derive(Clone, Debug)]
pub struct Site {
    namespace: Arc<str>,
    clock: SiteClock,
    directory: Arc<Directory>,
}

/// A directory that is there from the first time it is asked for to the end of the case.
#[derive(Debug, Default)]
struct Directory(OnceLock<PathBuf>);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(path) = self.0.get() {
            // What cannot be removed is left to whoever cleans up temporary files.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum SiteClock {
    Manual(ManualClock),
    Real,
}

impl Site {
    pub(crate) fn new(namespace: &str, clock: SiteClock) -> Self {
        Self { namespace: namespace.into(), clock, directory: Arc::default() }
    }

    /// A name of its own for every store that is made, to be used as a prefix, a table or a directory: letters,
    /// digits, `-`, `_` and `.`, at most 120 bytes. No name is the beginning of another, but some are close to it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A directory of its own among the system's temporary files, empty when it is first asked for and removed with
    /// the case. A store that is reopened, and a second client, are given the same one again.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn directory(&self) -> &Path {
        self.directory.0.get_or_init(|| {
            let path = std::env::temp_dir().join(&*self.namespace);
            // Left by a process that was killed and had the number of this one.
            let _ = std::fs::remove_dir_all(&path);
            let made = std::fs::create_dir_all(&path);
            assert!(made.is_ok(), "no directory {} for a case: {made:?}", path.display());
            path
        })
    }

    /// The clock of the case, which the kit moves. Over real time it is the system's.
    pub fn clock(&self) -> Arc<dyn Clock> {
        match &self.clock {
            SiteClock::Manual(clock) => Arc::new(clock.clone()),
            SiteClock::Real => Arc::new(SystemClock),
        }
    }
}

/// The store in the shape in which a law wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    /// Its four required methods, and the defaults of the others.
    Minimal,
    Reference,
    Boxed,
    Inspected,
    Uncapped,
    OneShard,
    UnderNull,
    OverNull,
    UnderMemory,
}

/// What stands between an error and its source in an answer.
pub(crate) const SOURCE: &str = ", because of: ";

/// A store, and what can be done to it beside its trait.
pub(crate) struct Instance<K: Key + ?Sized, V> {
    pub(crate) store: BoxStore<K, V>,
    pub(crate) aside: Aside<K>,
}

/// What the hooks of a check do to one store.
pub(crate) struct Aside<K: Key + ?Sized> {
    pub(crate) corrupt: Option<Box<Corrupt<K>>>,
    pub(crate) outage: Option<Box<dyn Fn(bool) + Send + Sync>>,
    pub(crate) evict: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    pub(crate) clear_prefix: Option<Box<ClearPrefix<K>>>,
}

/// Rewrites the stored bytes of a key; `false` if there are none.
type Corrupt<K> = dyn Fn(&K, &mut dyn FnMut(Vec<u8>) -> Vec<u8>) -> bool + Send + Sync;

type ClearPrefix<K> = dyn Fn(<K as ToOwned>::Owned) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// Makes the store at a site; the second time at the same site it is opened again.
pub(crate) type Make<K, V> = dyn Fn(Site, Role, Shape) -> BoxFuture<'static, Instance<K, V>> + Send + Sync;

/// Why a store is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Fresh,
    Reopened,
    SecondClient,
}

/// Makes a value with a witness, if its type can have one.
type Witnessed<V> = fn(u32) -> Option<(V, Witness)>;

/// How places of a plan become keys and values.
pub(crate) struct Cast<K: Key + ?Sized, V> {
    pub(crate) corpus: Vec<K::Owned>,
    pub(crate) names: Vec<String>,
    pub(crate) value: Box<dyn Fn(u32) -> V + Send + Sync>,
    pub(crate) sized: Option<fn(u32, usize) -> Option<V>>,
    pub(crate) numbered: Option<fn(u32) -> K::Owned>,
    pub(crate) witnessed: Option<Witnessed<V>>,
}

/// The stores of a case, as a plan sees them.
pub(crate) trait World: Send + Sync {
    /// Does one operation. `first` is the number of its first draft.
    fn perform<'a>(&'a self, on: u8, op: &'a Op, first: u32) -> BoxFuture<'a, Vec<One>>;
    /// Makes the stores that a plan uses.
    fn open<'a>(&'a self, on: &'a [u8]) -> BoxFuture<'a, ()>;
    /// Clears what is left and drops the stores.
    fn close(&self) -> BoxFuture<'_, ()>;
    /// The clock of the case.
    fn now(&self) -> Timestamp;
    /// The names of the keys.
    fn names(&self) -> Vec<String>;
    /// Puts a value with a witness under the first key.
    fn plant_witness(&self, number: u32) -> BoxFuture<'_, Option<Witness>>;
}

pub(crate) struct Typed<K: Key + ?Sized, V> {
    make: Arc<Make<K, V>>,
    cast: Arc<Cast<K, V>>,
    shape: Shape,
    namespace: String,
    clock: SiteClock,
    /// What the first instant of the plan is here: a case over real time happens now.
    shift: u64,
    open: Mutex<BTreeMap<u8, Arc<Instance<K, V>>>>,
    written: Mutex<BTreeMap<u32, (u8, Entry<V>)>>,
    /// By namespace. Dropped after the stores, and their directories with them.
    sites: Mutex<BTreeMap<String, Site>>,
}

impl<K: Key + ?Sized, V: Value> Typed<K, V> {
    pub(crate) fn new(
        make: Arc<Make<K, V>>,
        cast: Arc<Cast<K, V>>,
        shape: Shape,
        namespace: String,
        clock: SiteClock,
    ) -> Self {
        let shift = match &clock {
            SiteClock::Manual(_) => 0,
            SiteClock::Real => INSTANTS[0].saturating_sub(SystemClock.now().as_nanos()),
        };
        let (open, written, sites) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { make, cast, shape, namespace, clock, shift, open, written, sites }
    }

    fn site(&self, on: u8) -> Site {
        // The second client has the namespace of the first.
        let end = match on {
            // Close enough to be taken along by a pattern, or by a name that was cut.
            crate::testkit::store::plan::NEIGHBOUR => "_ax.",
            crate::testkit::store::plan::OTHER_NEIGHBOUR => "-a.",
            _ => "_a.",
        };
        let namespace = format!("{}{end}", self.namespace);
        let site = || Site::new(&namespace, self.clock.clone());
        self.sites.lock().entry(namespace.clone()).or_insert_with(site).clone()
    }

    fn key(&self, place: u8) -> &K {
        use std::borrow::Borrow;
        self.cast.corpus[usize::from(place) % self.cast.corpus.len()].borrow()
    }

    fn instance(&self, on: u8) -> Result<Arc<Instance<K, V>>> {
        let found = self.open.lock().get(&on).cloned();
        found.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "testkit", Operation::Build)
                .with_message("no such store in this plan")
        })
    }

    /// Instants that are neither the first nor the last are of the plan's time, the others of every time.
    fn shifted(&self, at: Timestamp) -> Timestamp {
        let nanos = at.as_nanos();
        let near = nanos.abs_diff(INSTANTS[0]) < 1_000_000_000_000_000;
        if near { Timestamp::from_nanos(nanos.saturating_sub(self.shift)) } else { at }
    }

    fn entry(&self, number: u32, draft: &Draft) -> Entry<V> {
        let sized = draft.size().and_then(|bytes| self.cast.sized.and_then(|sized| sized(number, bytes)));
        let value = sized.unwrap_or_else(|| (self.cast.value)(number));
        let life = draft.lifetime();
        let life = Lifetime::new(
            self.shifted(life.created_at()),
            self.shifted(life.fresh_until()),
            self.shifted(life.stale_until()),
            self.shifted(life.keep_until()),
        );
        let entry = Entry::new(value, life).with_tags(draft.tags());
        match draft.version() {
            Some(version) => entry.with_version(version),
            None => entry,
        }
    }

    fn draft(&self, number: u32, draft: &Draft) -> Entry<V> {
        self.wrote(number, draft.key, self.entry(number, draft))
    }

    fn wrote(&self, number: u32, key: u8, entry: Entry<V>) -> Entry<V> {
        let key = u8::try_from(usize::from(key) % self.cast.corpus.len()).unwrap_or(key);
        self.written.lock().insert(number, (key, entry.clone()));
        entry
    }

    /// What was written last under the key, with the draft's lifetime and with its labels if it has any. No
    /// two drafts are equal: it is created at an instant of its own.
    fn renewal(&self, number: u32, draft: &Draft, new: bool) -> Entry<V> {
        let own = self.entry(number, draft);
        let key = u8::try_from(usize::from(draft.key) % self.cast.corpus.len()).unwrap_or(draft.key);
        let last = self
            .written
            .lock()
            .iter()
            .filter(|(_, (known, _))| *known == key)
            .last()
            .map(|(_, (_, last))| last.clone());
        let life = own.lifetime();
        let apart = 7_919 * (u64::from(number) + 1);
        let created_at = Timestamp::from_nanos(life.created_at().as_nanos().max(1_000_000_000) - apart);
        let life = Lifetime::new(created_at, life.fresh_until(), life.stale_until(), life.keep_until());
        let entry = match last {
            Some(last) if !new && own.version().is_none() && own.tags().is_empty() => last,
            Some(last) if !new => own.map(|_| last.into_value()),
            _ => own,
        };
        self.wrote(number, draft.key, entry.with_lifetime(life))
    }
}

impl<K, V> Typed<K, V>
where
    K: Key + ?Sized,
    V: Value + PartialEq + Debug,
{
    /// Which draft this is, and in what it differs from it.
    fn seen(&self, place: u8, entry: &Entry<V>) -> Seen {
        let written = self.written.lock();
        let same = |(_, (key, known)): &(&u32, &(u8, Entry<V>))| (*known == *entry, *key == place);
        let alike = written.iter().filter(|(_, (_, known))| known.value() == entry.value());
        let Some((number, (key, known))) = alike.max_by_key(same) else {
            let mut text = format!("{:?}", entry.value());
            if text.chars().count() > 60 {
                text = text.chars().take(60).chain("..".chars()).collect();
            }
            return Seen { draft: None, key: place, differs: vec![text] };
        };
        let mut differs = Vec::new();
        let (wrote, read) = (known.lifetime(), entry.lifetime());
        for (name, wrote, read) in [
            ("created_at", wrote.created_at(), read.created_at()),
            ("fresh_until", wrote.fresh_until(), read.fresh_until()),
            ("stale_until", wrote.stale_until(), read.stale_until()),
            ("keep_until", wrote.keep_until(), read.keep_until()),
        ] {
            if wrote != read {
                differs.push(format!("{name} {read} in place of {wrote}"));
            }
        }
        if known.version() != entry.version() {
            differs.push(format!("version {:?} in place of {:?}", entry.version(), known.version()));
        }
        if known.tags() != entry.tags() {
            differs.push(format!("tags {:?} in place of {:?}", entry.tags(), known.tags()));
        }
        Seen { draft: Some(*number), key: *key, differs }
    }

    fn saw(&self, place: u8, result: Result<Option<Entry<V>>>) -> One {
        match result {
            Ok(found) => One::Saw(found.map(|entry| self.seen(place, &entry))),
            Err(error) => failed(&error),
        }
    }

    async fn call(&self, on: u8, op: &Op, first: u32) -> Result<Vec<One>> {
        let instance = self.instance(on)?;
        let store = &instance.store;
        Ok(match op {
            Op::Set(draft) => {
                let entry = self.draft(first, draft);
                vec![written(store.set(self.key(draft.key), entry).await)]
            }
            Op::Renew(draft, new) => {
                let entry = self.renewal(first, draft, *new);
                vec![written(store.renew(self.key(draft.key), entry).await)]
            }
            Op::Get(key) => vec![self.saw(*key, store.get(self.key(*key)).await)],
            Op::GetAt(key, at) => {
                let at = self.shifted(Timestamp::from_nanos(INSTANTS[usize::from(*at) % INSTANTS.len()]));
                vec![self.saw(*key, store.get_at(self.key(*key), at).await)]
            }
            Op::Peek(key) => {
                let shown = store.peek_with(self.key(*key), Entry::clone);
                vec![One::Shown(shown.map(|entry| self.seen(*key, &entry)))]
            }
            Op::Remove(key) => vec![done(store.remove(self.key(*key)).await)],
            Op::Clear => vec![done(store.clear().await)],
            Op::GetMany(keys) => {
                let asked: Vec<&K> = keys.iter().map(|&key| self.key(key)).collect();
                // At the epoch everything is fresh, as it is to `get`.
                let results = store.get_many(&asked, Timestamp::EPOCH).await;
                let places = keys.iter().copied().chain(std::iter::repeat(0));
                results.into_iter().zip(places).map(|(result, key)| self.saw(key, result)).collect()
            }
            Op::SetMany(drafts) => {
                let draft = |(number, draft): (u32, &Draft)| (draft.key, self.draft(number, draft));
                let entries: Vec<_> = (first..).zip(drafts).map(draft).collect();
                let entries: Vec<(&K, _)> =
                    entries.into_iter().map(|(key, entry)| (self.key(key), entry)).collect();
                store.set_many(&entries).await.into_iter().map(written).collect()
            }
            Op::RemoveMany(keys) => {
                let asked: Vec<&K> = keys.iter().map(|&key| self.key(key)).collect();
                store.remove_many(&asked).await.into_iter().map(done).collect()
            }
            Op::Flush => vec![done(store.flush().await)],
            Op::Len => vec![One::Number(store.len())],
            Op::Weight => vec![One::Number(store.weight())],
            Op::Fill(_) | Op::Count(_) | Op::Drain(_) => self.in_bulk(store, op, first).await,
            Op::Advance(place) => {
                if let SiteClock::Manual(clock) = &self.clock {
                    clock.advance(stride(*place, clock.now()));
                }
                vec![One::Done]
            }
            Op::Reopen => {
                drop(instance);
                self.open.lock().remove(&on);
                let opened = (self.make)(self.site(on), Role::Reopened, self.shape).await;
                self.open.lock().insert(on, Arc::new(opened));
                vec![One::Done]
            }
            Op::Outage(down) => {
                if let Some(outage) = &instance.aside.outage {
                    outage(*down);
                }
                vec![One::Done]
            }
            Op::Damage(key, damage) => vec![One::Found(self.damage(&instance, *key, *damage))],
            Op::Evict => vec![One::Found(instance.aside.evict.as_ref().is_some_and(|evict| evict()))],
            Op::ClearPrefix(key) => match &instance.aside.clear_prefix {
                Some(clear) => vec![done(clear(self.key(*key).to_owned()).await)],
                None => vec![One::Done],
            },
        })
    }

    /// Many numbered keys, which no answer is given for one by one.
    async fn in_bulk(&self, store: &BoxStore<K, V>, op: &Op, first: u32) -> Vec<One> {
        use std::borrow::Borrow;
        let Some(numbered) = self.cast.numbered else { return vec![One::Number(None)] };
        let mut count = 0;
        match op {
            Op::Fill(many) => {
                for number in 0..u32::from(*many) {
                    let entry = self.entry(1_000_000 + first + number, &Draft::lasting(0));
                    match store.set(numbered(number).borrow(), entry).await {
                        Ok(SetOutcome::Stored) => count += 1,
                        Ok(SetOutcome::Refused(_)) => {}
                        Err(error) => return vec![failed(&error)],
                    }
                }
            }
            Op::Count(many) => {
                for number in 0..u32::from(*many) {
                    match store.get(numbered(number).borrow()).await {
                        Ok(found) => count += u64::from(found.is_some()),
                        Err(error) => return vec![failed(&error)],
                    }
                }
            }
            Op::Drain(many) => {
                let keys: Vec<K::Owned> = (0..u32::from(*many)).map(numbered).collect();
                let keys: Vec<&K> = keys.iter().map(Borrow::borrow).collect();
                for result in store.remove_many(&keys).await {
                    match result {
                        Ok(()) => count += 1,
                        Err(error) => return vec![failed(&error)],
                    }
                }
            }
            _ => {}
        }
        vec![One::Number(Some(count))]
    }

    fn damage(&self, instance: &Instance<K, V>, place: u8, damage: Damage) -> bool {
        let Some(corrupt) = &instance.aside.corrupt else { return false };
        let key = self.key(place);
        match damage {
            Damage::Swap(other) => {
                let mut foreign = None;
                let other = self.key(other);
                if other == key {
                    return false;
                }
                let found = corrupt(other, &mut |bytes| {
                    foreign = Some(bytes.clone());
                    bytes
                });
                let Some(foreign) = foreign.filter(|_| found) else { return false };
                let mut changed = false;
                let found = corrupt(key, &mut |bytes| {
                    changed = bytes != foreign;
                    foreign.clone()
                });
                found && changed
            }
            damage => {
                let mut changed = false;
                let found = corrupt(key, &mut |bytes| {
                    let damaged = damaged(&bytes, damage);
                    changed = damaged != bytes;
                    damaged
                });
                found && changed
            }
        }
    }
}

fn damaged(bytes: &[u8], damage: Damage) -> Vec<u8> {
    let at = |place: u16| bytes.len() * usize::from(place) / 65_536;
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Flip(place, bit) => {
            let place = at(place);
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Damage::Cut(place) => bytes.truncate(at(place)),
        Damage::Extend(byte) => bytes.push(byte),
        Damage::Empty => bytes.clear(),
        Damage::Zeroes => bytes.fill(0),
        Damage::Noise(seed) => {
            let mut state = u32::from(seed) | 1;
            for byte in &mut bytes {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = state.to_be_bytes()[0];
            }
        }
        Damage::Swap(_) => {}
    }
    bytes
}

impl<K, V> World for Typed<K, V>
where
    K: Key + ?Sized,
    V: Value + PartialEq + Debug,
{
    fn perform<'a>(&'a self, on: u8, op: &'a Op, first: u32) -> BoxFuture<'a, Vec<One>> {
        Box::pin(async move {
            match self.call(on, op, first).await {
                Ok(answers) => answers,
                Err(error) => vec![failed(&error)],
            }
        })
    }

    fn open<'a>(&'a self, on: &'a [u8]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            for &on in on {
                let role =
                    if on == crate::testkit::store::plan::SECOND { Role::SecondClient } else { Role::Fresh };
                let opened = (self.make)(self.site(on), role, self.shape).await;
                self.open.lock().insert(on, Arc::new(opened));
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let open = std::mem::take(&mut *self.open.lock());
            for instance in open.into_values() {
                // What cannot be cleared is left to whoever owns the place.
                let _ = instance.store.clear().await;
            }
        })
    }

    fn now(&self) -> Timestamp {
        match &self.clock {
            SiteClock::Manual(clock) => clock.now(),
            // On the plan's calendar.
            SiteClock::Real => Timestamp::from_nanos(SystemClock.now().as_nanos().saturating_add(self.shift)),
        }
    }

    fn names(&self) -> Vec<String> {
        self.cast.names.clone()
    }

    fn plant_witness(&self, number: u32) -> BoxFuture<'_, Option<Witness>> {
        Box::pin(async move {
            let (value, witness) = self.cast.witnessed.and_then(|make| make(number))?;
            let entry = Entry::new(value, Draft::lasting(0).lifetime());
            let instance = self.instance(crate::testkit::store::plan::OWN).ok()?;
            matches!(instance.store.set(self.key(0), entry).await, Ok(SetOutcome::Stored)).then_some(witness)
        })
    }
}

/// The error's own words, then those of its sources, which may quote a value.
fn failed(error: &Error) -> One {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}{SOURCE}{cause}");
        source = cause.source();
    }
    One::Failed(error.kind(), text)
}

fn written(result: Result<SetOutcome>) -> One {
    match result {
        Ok(SetOutcome::Stored) => One::Stored,
        Ok(SetOutcome::Refused(_)) => One::Refused,
        Err(error) => failed(&error),
    }
}

fn done(result: Result<()>) -> One {
    result.map_or_else(|error| failed(&error), |()| One::Done)
}
