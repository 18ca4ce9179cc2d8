//! The store inside an adapter under test, and what the kit sees of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::describe::Description;
use crate::dynamic::BoxStore;
use crate::entry::Entry;
use crate::error::{Operation, Result};
use crate::store::{ClearPrefix, Evict, Refusal, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::faulty::{Faults, Faulty};
use crate::testkit::race::{Ground, race_clock};
use crate::testkit::stacks::{StackPlan, stacks};
use crate::time::{ManualClock, Timestamp};
use crate::weigh::Weigher;

/// What an inner store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InnerPlan {
    /// Holds everything, and answers at once.
    Perfect,
    /// Holds everything, and has to be waited for.
    Remote,
    /// Holds so many entries.
    Small(u8),
    /// Whatever a stack is.
    Stack(StackPlan),
}

impl Ground for InnerPlan {
    fn simpler(&self) -> Vec<Self> {
        match self {
            Self::Perfect => Vec::new(),
            Self::Remote | Self::Small(_) => vec![Self::Perfect],
            Self::Stack(plan) => {
                let simpler = plan.simpler().into_iter().map(Self::Stack);
                [Self::Perfect].into_iter().chain(simpler).collect()
            }
        }
    }
}

/// Any of them.
pub(crate) fn inners() -> impl Strategy<Value = InnerPlan> {
    prop_oneof![
        3 => Just(InnerPlan::Perfect),
        2 => Just(InnerPlan::Remote),
        2 => (0..3u8).prop_map(InnerPlan::Small),
        2 => stacks(3).prop_map(InnerPlan::Stack),
    ]
}

/// The store that [`check_adapter`](super::check_adapter) puts inside an adapter: text keys, bytes as values.
///
/// Another one in every case: perfect or small, answering at once or not, failing, slow, or a random stack. It can
/// be weighed and cleared by prefix, so that any adapter fits around it.
pub struct Inner {
    faulty: Faulty<Arc<Core>>,
    seen: Arc<Seen>,
}

/// What the kit sees of one or more inner stores.
pub(crate) struct Seen {
    plan: InnerPlan,
    clock: ManualClock,
    calls: Mutex<Vec<Called>>,
    stores: Mutex<Vec<(Arc<Core>, Faults)>>,
    scales: Arc<Scales>,
}

/// A call, and for how many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) name: &'static str,
    pub(crate) keys: usize,
}

#[derive(Debug, Default)]
struct Scales {
    total: AtomicU64,
    peak: AtomicU64,
}

/// The data: entries in the order in which they were written.
pub(crate) struct Core {
    plan: InnerPlan,
    entries: Mutex<Vec<(String, Entry<Bytes>)>>,
    weigher: Mutex<Option<Weigher<str, Bytes>>>,
    weight: AtomicU64,
    scales: Arc<Scales>,
    stack: Option<BoxStore<str, u64>>,
    /// A stack holds numbers: the places of values in this list.
    values: Mutex<Vec<Bytes>>,
}

impl Inner {
    /// One by this plan, and what is seen of it.
    pub(crate) fn new(plan: &InnerPlan) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen {
            plan: plan.clone(),
            clock: race_clock(),
            calls: Mutex::default(),
            stores: Mutex::default(),
            scales: Arc::default(),
        });
        (Self::beside(&seen), seen)
    }

    /// An empty store of the same kind, for an adapter that is made of several, such as
    /// [`Sharded`](crate::Sharded).
    #[must_use = "a store does nothing until it is asked"]
    pub fn another(&self) -> Self {
        Self::beside(&self.seen)
    }

    /// The clock by which the kit moves the time: an adapter that goes by one has to take this.
    pub fn clock(&self) -> ManualClock {
        self.seen.clock.clone()
    }

    fn beside(seen: &Arc<Seen>) -> Self {
        let mut leaves = Vec::new();
        let stack = match &seen.plan {
            InnerPlan::Stack(plan) => {
                let (stack, faults) = plan.build(&seen.clock);
                leaves = faults;
                Some(stack)
            }
            _ => None,
        };
        let core = Arc::new(Core {
            plan: seen.plan.clone(),
            entries: Mutex::default(),
            weigher: Mutex::default(),
            weight: AtomicU64::new(0),
            scales: Arc::clone(&seen.scales),
            stack,
            values: Mutex::default(),
        });
        let faulty = Faulty::new(Arc::clone(&core));
        let mut stores = seen.stores.lock();
        stores.push((Arc::clone(&core), faulty.faults()));
        stores.extend(leaves.into_iter().map(|faults| (Arc::clone(&core), faults)));
        drop(stores);
        Self { faulty, seen: Arc::clone(seen) }
    }

    fn note(&self, name: &'static str, keys: usize) {
        self.seen.calls.lock().push(Called { name, keys });
    }
}

impl Seen {
    pub(crate) fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// The calls since this was last asked, but for those that only weigh or count.
    pub(crate) fn calls(&self) -> Vec<Called> {
        std::mem::take(&mut *self.calls.lock())
    }

    pub(crate) fn faults(&self) -> Vec<Faults> {
        self.stores.lock().iter().map(|(_, faults)| faults.clone()).collect()
    }

    /// Everything that is held, by the keys inside.
    pub(crate) fn held(&self) -> BTreeMap<String, Entry<Bytes>> {
        let stores = self.stores.lock();
        stores.iter().flat_map(|(core, _)| core.entries.lock().clone()).collect()
    }

    /// Puts an entry of somebody else in place, in the first store.
    pub(crate) fn plant(&self, key: &str, entry: Entry<Bytes>) {
        if let Some((core, _)) = self.stores.lock().first() {
            core.put(key, entry);
        }
    }

    /// Changes every value.
    pub(crate) fn corrupt(&self, into: &Bytes) {
        for (core, _) in &*self.stores.lock() {
            for (_, entry) in &mut *core.entries.lock() {
                *entry = entry.map_ref(|_| into.clone());
            }
        }
    }

    /// What all entries weigh, weighed again.
    pub(crate) fn weighed(&self) -> u64 {
        let stores = self.stores.lock();
        stores
            .iter()
            .map(|(core, _)| {
                core.entries.lock().iter().map(|(key, entry)| core.weigh(key, entry)).sum::<u64>()
            })
            .sum()
    }

    /// The most that all entries ever weighed.
    pub(crate) fn peak(&self) -> u64 {
        self.scales.peak.load(Ordering::SeqCst)
    }
}

impl Core {
    fn find(&self, key: &str) -> Option<Entry<Bytes>> {
        self.entries.lock().iter().find(|(known, _)| known == key).map(|(_, entry)| entry.clone())
    }

    fn put(&self, key: &str, entry: Entry<Bytes>) -> SetOutcome {
        let max = if let InnerPlan::Small(max) = self.plan { usize::from(max) } else { usize::MAX };
        let mut entries = self.entries.lock();
        entries.retain(|(known, _)| known != key);
        if max > 0 {
            entries.push((key.to_owned(), entry));
        }
        let more = entries.len().saturating_sub(max);
        entries.drain(..more);
        self.rest(&entries);
        if max == 0 { SetOutcome::Refused(Refusal::KeepsNothing) } else { SetOutcome::Stored }
    }

    fn keep(&self, keeps: impl Fn(&str) -> bool) {
        let mut entries = self.entries.lock();
        entries.retain(|(known, _)| keeps(known));
        self.rest(&entries);
    }

    /// Notes what is held, under the lock.
    fn rest(&self, entries: &[(String, Entry<Bytes>)]) {
        let now = entries.iter().map(|(key, entry)| self.weigh(key, entry)).sum();
        let before = self.weight.swap(now, Ordering::SeqCst);
        let total = self.scales.total.load(Ordering::SeqCst).saturating_add(now).saturating_sub(before);
        self.scales.total.store(total, Ordering::SeqCst);
        self.scales.peak.fetch_max(total, Ordering::SeqCst);
    }

    fn weigh(&self, key: &str, entry: &Entry<Bytes>) -> u64 {
        self.weigher.lock().as_ref().map_or(0, |weigher| weigher.weigh(key, entry.value()))
    }

    fn outside(&self, entry: &Entry<u64>) -> Option<Entry<Bytes>> {
        let place = usize::try_from(*entry.value()).ok()?;
        let value = self.values.lock().get(place).cloned()?;
        Some(entry.map_ref(|_| value))
    }
}

impl Store for Core {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
        match &self.stack {
            Some(stack) => Ok(stack.get(key).await?.and_then(|entry| self.outside(&entry))),
            None => Ok(self.find(key)),
        }
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Result<Option<Entry<Bytes>>> {
        match &self.stack {
            Some(stack) => Ok(stack.get_at(key, now).await?.and_then(|entry| self.outside(&entry))),
            None => Ok(self.find(key)),
        }
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        let Some(stack) = &self.stack else { return Ok(self.put(key, entry)) };
        let place = {
            let mut values = self.values.lock();
            values.push(entry.value().clone());
            values.len() as u64 - 1
        };
        stack.set(key, entry.map(|_| place)).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        if let Some(stack) = &self.stack {
            return stack.remove(key).await;
        }
        self.keep(|known| known != key);
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.clear_prefix("").await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<Bytes>) -> R) -> Option<R> {
        match &self.stack {
            Some(stack) => stack.peek_with(key, |entry| self.outside(entry)).flatten().as_ref().map(read),
            None if self.plan == InnerPlan::Remote => None,
            None => self.find(key).as_ref().map(read),
        }
    }

    fn len(&self) -> Option<u64> {
        self.stack.as_ref().map_or_else(|| Some(self.entries.lock().len() as u64), Store::len)
    }

    fn weight(&self) -> Option<u64> {
        self.weigher.lock().as_ref()?;
        self.stack.is_none().then(|| self.weight.load(Ordering::SeqCst))
    }
}

impl ClearPrefix for Core {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        if let Some(stack) = &self.stack {
            // A stack has no neighbours here: whoever clears a part clears all, and the rest is forgotten.
            return stack.clear().await;
        }
        self.keep(|known| !known.starts_with(prefix));
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods, reason = "a call that is not noted is not judged")]
impl Store for Inner {
    type Key = str;
    type Value = Bytes;

    async fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
        self.note("get", 1);
        self.faulty.get(key).await
    }

    async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        self.note("set", 1);
        self.faulty.set(key, entry).await
    }

    async fn renew(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
        self.note("renew", 1);
        self.faulty.renew(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.note("remove", 1);
        self.faulty.remove(key).await
    }

    async fn clear(&self) -> Result<()> {
        self.note("clear", 0);
        self.faulty.clear().await
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Result<Option<Entry<Bytes>>> {
        self.note("get_at", 1);
        self.faulty.get_at(key, now).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<Bytes>) -> R) -> Option<R> {
        self.note("peek_with", 1);
        self.faulty.peek_with(key, read)
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Result<Option<Entry<Bytes>>>> {
        self.note("get_many", keys.len());
        self.faulty.get_many(keys, now).await
    }

    async fn set_many(&self, entries: &[(&str, Entry<Bytes>)]) -> Vec<Result<SetOutcome>> {
        self.note("set_many", entries.len());
        self.faulty.set_many(entries).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        self.note("remove_many", keys.len());
        self.faulty.remove_many(keys).await
    }

    fn len(&self) -> Option<u64> {
        self.note("len", 0);
        self.faulty.len()
    }

    fn weight(&self) -> Option<u64> {
        self.note("weight", 0);
        self.faulty.weight()
    }

    async fn flush(&self) -> Result<()> {
        self.note("flush", 0);
        self.faulty.flush().await
    }

    fn describe(&self) -> Description {
        Description::new("inner").with("", format!("{:?}", self.seen.plan))
    }
}

impl Evict for Inner {
    fn weighed_by(self, weigher: Weigher<str, Bytes>) -> Self {
        *self.faulty.inner().weigher.lock() = Some(weigher);
        self
    }

    fn weigh(&self, key: &str, entry: &Entry<Bytes>) -> u64 {
        self.faulty.inner().weigh(key, entry)
    }

    /// The entry that was written first.
    fn evict(&self) -> bool {
        let core = self.faulty.inner();
        let mut entries = core.entries.lock();
        let any = !entries.is_empty();
        entries.drain(..usize::from(any));
        core.rest(&entries);
        any
    }
}

impl ClearPrefix for Inner {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        self.note("clear_prefix", 0);
        let inner = self.faulty.inner();
        self.faulty.call(Operation::Clear, inner.clear_prefix(prefix)).await
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("plan", &self.seen.plan).finish_non_exhaustive()
    }
}
