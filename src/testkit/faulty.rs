//! A store that fails, waits, hangs and panics when it is told to, and remembers what it was asked.

use std::collections::HashMap;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::Arc;

use crate::describe::Description;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::store::{Refusal, SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::executor::{Gate, split_mix, yield_now};
use crate::time::Timestamp;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails, and had no effect.
    FailBefore,
    /// It takes effect, and fails all the same: the answer was lost.
    FailAfter,
    /// It waits for [`Faults::release`] before its effect.
    HangBefore,
    /// It waits for [`Faults::release`] after its effect.
    HangAfter,
    /// It panics before its effect.
    PanicBefore,
    /// A `set` is refused, and what was there is gone. Other calls succeed.
    Refuse,
    /// It lets the others run this often before its effect.
    Delay(usize),
    /// It fails with an error of kind [`Corrupt`](ErrorKind::Corrupt), and had no effect.
    Corrupt,
    /// A `set` is torn: what was there is gone, the new entry is not in, and it fails. Other calls succeed.
    Tear,
    /// It breaks the contract: a write or removal is acknowledged without an effect, a read answers nothing.
    Lie,
}

/// A store inside which schedules interleave and faults happen. Bulk calls are their single calls, so
/// that each of them can fail; `get_at` counts as a get.
#[derive(Debug)]
#[must_use = "a store does nothing until it is asked"]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S: Store> Faulty<S> {
    /// `inner`, with one point to interleave before the effect of each call and one after it.
    pub fn new(inner: S) -> Self {
        let faults = Faults::default();
        faults.yields(1, 1);
        Self { inner, faults }
    }

    /// The switches of this store.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Everything around the effect of one call.
    pub(crate) async fn call<T: Send>(
        &self,
        operation: Operation,
        effect: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let (fault, before, after) = self.faults.begin(operation);
        for _ in 0..before {
            yield_now().await;
        }
        if let Some(Fault::Delay(more)) = fault {
            for _ in 0..more {
                yield_now().await;
            }
        }
        let failure = || Error::new(ErrorKind::Unavailable, "faulty", operation);
        match fault {
            // The switch counts at the instant of the effect: a tier may go down in mid-call.
            _ if self.faults.is_down(operation) => return Err(failure()),
            Some(Fault::FailBefore) => return Err(failure()),
            Some(Fault::Corrupt) => return Err(Error::new(ErrorKind::Corrupt, "faulty", operation)),
            Some(Fault::HangBefore) => self.faults.gate().wait().await,
            // Past the panic hook, which would print a trace for each of thousands of schedules.
            Some(Fault::PanicBefore) => resume_unwind(Box::new("a faulty store panicked")),
            _ => {}
        }
        let result = effect.await;
        if fault == Some(Fault::HangAfter) {
            self.faults.gate().wait().await;
        }
        for _ in 0..after {
            yield_now().await;
        }
        if fault == Some(Fault::FailAfter) { Err(failure()) } else { result }
    }
}

impl<S: Store> Faulty<S> {
    /// A write or a renewal: both are an [`Operation::Set`].
    async fn write(
        &self,
        key: &S::Key,
        effect: impl Future<Output = Result<SetOutcome>> + Send,
    ) -> Result<SetOutcome> {
        let remove = || self.call(Operation::Set, self.inner.remove(key));
        if self.faults.next_is(Operation::Set, Fault::Refuse) {
            return remove().await.map(|()| SetOutcome::Refused(Refusal::TooLarge));
        }
        if self.faults.next_is(Operation::Set, Fault::Tear) {
            remove().await?;
            return Err(Error::new(ErrorKind::Unavailable, "faulty", Operation::Set));
        }
        if self.faults.next_is(Operation::Set, Fault::Lie) {
            return self.call(Operation::Set, async { Ok(SetOutcome::Stored) }).await;
        }
        self.call(Operation::Set, effect).await
    }
}

impl<S: Store> Store for Faulty<S> {
    type Key = S::Key;
    type Value = S::Value;

    async fn get(&self, key: &S::Key) -> Result<Option<Entry<S::Value>>> {
        if self.faults.next_is(Operation::Get, Fault::Lie) {
            return self.call(Operation::Get, async { Ok(None) }).await;
        }
        self.call(Operation::Get, self.inner.get(key)).await
    }

    async fn set(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        self.write(key, self.inner.set(key, entry)).await
    }

    async fn renew(&self, key: &S::Key, entry: Entry<S::Value>) -> Result<SetOutcome> {
        self.write(key, self.inner.renew(key, entry)).await
    }

    async fn remove(&self, key: &S::Key) -> Result<()> {
        if self.faults.next_is(Operation::Remove, Fault::Lie) {
            return self.call(Operation::Remove, async { Ok(()) }).await;
        }
        self.call(Operation::Remove, self.inner.remove(key)).await
    }

    async fn clear(&self) -> Result<()> {
        if self.faults.next_is(Operation::Clear, Fault::Lie) {
            return self.call(Operation::Clear, async { Ok(()) }).await;
        }
        self.call(Operation::Clear, self.inner.clear()).await
    }

    async fn get_at(&self, key: &S::Key, now: Timestamp) -> Result<Option<Entry<S::Value>>> {
        if self.faults.next_is(Operation::Get, Fault::Lie) {
            return self.call(Operation::Get, async { Ok(None) }).await;
        }
        self.call(Operation::Get, self.inner.get_at(key, now)).await
    }

    fn peek_with<R>(&self, key: &S::Key, read: impl FnOnce(&Entry<S::Value>) -> R) -> Option<R> {
        // A peek answers only what a get would answer (S9), and a get would fail.
        if self.faults.is_down(Operation::Get) { None } else { self.inner.peek_with(key, read) }
    }

    async fn flush(&self) -> Result<()> {
        self.call(Operation::Flush, self.inner.flush()).await
    }

    fn len(&self) -> Option<u64> {
        self.inner.len()
    }

    fn weight(&self) -> Option<u64> {
        self.inner.weight()
    }

    fn describe(&self) -> Description {
        Description::new("faulty").over(self.inner.describe())
    }
}

/// The switches of a [`Faulty`]; clones move the same ones.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    before: usize,
    after: usize,
    down: bool,
    down_for: Vec<Operation>,
    always: HashMap<Operation, Fault>,
    nth: HashMap<(Operation, u64), Fault>,
    /// Dice, one in how many calls, and what may happen to it.
    chance: Option<(u64, u64, Vec<Fault>)>,
    calls: HashMap<Operation, u64>,
    log: Vec<Operation>,
    gate: Gate,
}

impl Faults {
    /// How often each call lets the others run, before its effect and after it.
    pub fn yields(&self, before: usize, after: usize) {
        let mut plan = self.0.lock();
        (plan.before, plan.after) = (before, after);
    }

    /// From now on every call fails without effect.
    pub fn down(&self) {
        self.0.lock().down = true;
    }

    /// From now on calls of this kind fail without effect.
    pub fn down_for(&self, operation: Operation) {
        self.0.lock().down_for.push(operation);
    }

    /// Ends every outage.
    pub fn up(&self) {
        let mut plan = self.0.lock();
        plan.down = false;
        plan.down_for.clear();
    }

    /// Every call of this kind meets this fault.
    pub fn always(&self, operation: Operation, fault: Fault) {
        self.0.lock().always.insert(operation, fault);
    }

    /// The `nth` call of this kind from now on (0 is the next one) meets this fault.
    pub fn on(&self, operation: Operation, nth: u64, fault: Fault) {
        let mut plan = self.0.lock();
        let call = plan.calls.get(&operation).copied().unwrap_or(0) + nth;
        plan.nth.insert((operation, call), fault);
    }

    /// One call in `one_in` meets one of these faults, by dice that this seed determines: the same calls in the
    /// same order meet the same faults.
    pub fn seeded(&self, seed: u64, one_in: u64, faults: &[Fault]) {
        self.0.lock().chance = (!faults.is_empty()).then(|| (seed, one_in.max(1), faults.to_vec()));
    }

    /// Calls behave from now on. Those that hang go on hanging.
    pub fn heal(&self) {
        self.up();
        let mut plan = self.0.lock();
        plan.always.clear();
        plan.nth.clear();
        plan.chance = None;
    }

    /// Lets go of every call that hangs, and of those that would.
    pub fn release(&self) {
        self.gate().open();
    }

    /// Calls of this kind so far.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.0.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// Calls of any kind so far, in the order in which they began.
    pub fn log(&self) -> Vec<Operation> {
        self.0.lock().log.clone()
    }

    fn begin(&self, operation: Operation) -> (Option<Fault>, usize, usize) {
        let mut plan = self.0.lock();
        plan.log.push(operation);
        let count = plan.calls.entry(operation).or_default();
        let call = *count;
        *count += 1;
        let fault = plan.fault(operation, call);
        (fault, plan.before, plan.after)
    }

    fn next_is(&self, operation: Operation, fault: Fault) -> bool {
        let plan = self.0.lock();
        let call = plan.calls.get(&operation).copied().unwrap_or(0);
        plan.fault(operation, call) == Some(fault)
    }

    fn is_down(&self, operation: Operation) -> bool {
        let plan = self.0.lock();
        plan.down || plan.down_for.contains(&operation)
    }

    fn gate(&self) -> Gate {
        self.0.lock().gate.clone()
    }
}

impl Plan {
    /// What happens to this call: what was planned for it, for all of its kind, or by chance.
    fn fault(&self, operation: Operation, call: u64) -> Option<Fault> {
        let planned = self.nth.get(&(operation, call)).or_else(|| self.always.get(&operation)).copied();
        planned.or_else(|| {
            let (seed, one_in, faults) = self.chance.as_ref()?;
            // Of the call itself and not of a running state: to ask twice is to get the same answer.
            let mut state = seed ^ (call << 8) ^ operation as u64;
            let struck = split_mix(&mut state).is_multiple_of(*one_in);
            let which = usize::try_from(split_mix(&mut state) % faults.len() as u64).unwrap_or(0);
            struck.then(|| faults[which])
        })
    }
}
