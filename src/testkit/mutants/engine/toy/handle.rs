//! What the toy's callers call.

use std::sync::Arc;
use std::time::Duration;

use super::course::timeout;
use super::{Toy, Write};
use crate::cache::Patience;
use crate::cache::computed::Computed;
use crate::cache::event::EventKind;
use crate::entry::{Entry, Freshness};
use crate::error::{Operation, Result};
use crate::runtime::BoxFuture;
use crate::store::{Refusal, SetOutcome, Store};
use crate::testkit::engine::{Compute, ComputeMany, Engine, Name};
use crate::testkit::mutants::engine::Bug;

impl Engine for Toy {
    fn ask(
        &self,
        key: Name,
        _: u8,
        patience: Option<Patience>,
        compute: Compute,
    ) -> BoxFuture<'_, Result<u64>> {
        Box::pin(Arc::clone(&self.0).ask(key, patience, compute))
    }

    fn get(&self, key: Name) -> BoxFuture<'_, Result<Option<u64>>> {
        let base = &self.0;
        Box::pin(async move {
            if base.core.policy.bypass && !base.has(Bug::BypassReads) {
                return Ok(None);
            }
            if let Some(value) = base.fresh(key) {
                return Ok(Some(value));
            }
            let found = match base.core.store.get_at(&key, base.core.clock.now()).await {
                Err(error) => {
                    base.tell(key, EventKind::StoreFailed(Operation::Get, &error));
                    return if base.has(Bug::GetSwallowsErrors) { Ok(None) } else { Err(error) };
                }
                Ok(found) => found,
            };
            let most = if base.has(Bug::GetServesStale) { Freshness::Stale } else { Freshness::Fresh };
            let now = base.core.clock.now();
            let fresh =
                found.filter(|entry| base.judge(entry, now) <= most || base.has(Bug::GetDoesNotJudge));
            base.tell(key, fresh.as_ref().map_or(EventKind::Miss, |entry| EventKind::Hit(entry.lifetime())));
            Ok(fresh.map(Entry::into_value))
        })
    }

    fn ask_many(&self, keys: Vec<Name>, compute: ComputeMany) -> BoxFuture<'_, Vec<Result<u64>>> {
        Box::pin(Arc::clone(&self.0).ask_many(keys, compute))
    }

    fn get_many(&self, keys: Vec<Name>) -> BoxFuture<'_, Vec<Result<Option<u64>>>> {
        Box::pin(self.0.get_many(keys))
    }

    fn set_many(&self, entries: Vec<(Name, Computed<u64>)>) -> BoxFuture<'_, Vec<Result<SetOutcome>>> {
        Box::pin(self.0.set_many(entries))
    }

    fn remove_many(&self, keys: Vec<Name>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(self.0.remove_many(keys))
    }

    fn peek(&self, key: Name) -> Option<u64> {
        self.0.fresh(key)
    }

    fn set(&self, key: Name, value: Computed<u64>) -> BoxFuture<'_, Result<SetOutcome>> {
        let base = Arc::clone(&self.0);
        Box::pin(async move {
            if base.core.policy.bypass && !base.has(Bug::BypassSets) {
                return Ok(SetOutcome::Refused(Refusal::KeepsNothing));
            }
            let entry = base.entry(value, None, base.core.clock.now())?;
            base.errors.lock().clear();
            let _fence = base.fence(Some(key), Write::Set).await;
            if !base.has(Bug::ErrorSurvivesSet) {
                base.remembered.lock().remove(&key);
            }
            if base.has(Bug::SetAcknowledgesEarly) {
                let late = Arc::clone(&base);
                let _ = base.core.background.runtime.spawn(Box::pin(async move {
                    let _ = late.core.store.set(&key, entry).await;
                }));
                return Ok(SetOutcome::Stored);
            }
            let outcome = base.core.store.set(&key, entry).await;
            match &outcome {
                Ok(SetOutcome::Stored) => base.tell(key, EventKind::Set),
                Ok(SetOutcome::Refused(why)) => base.tell(key, EventKind::Refused(*why)),
                Err(error) => base.tell(key, EventKind::StoreFailed(Operation::Set, error)),
            }
            outcome
        })
    }

    fn remove(&self, key: Name) -> BoxFuture<'_, Result<()>> {
        let base = &self.0;
        Box::pin(async move {
            if base.core.policy.bypass {
                return Ok(());
            }
            base.errors.lock().clear();
            let _fence = base.fence(Some(key), Write::Remove).await;
            if !base.has(Bug::ErrorSurvivesRemove) {
                base.remembered.lock().remove(&key);
            }
            let outcome = base.core.store.remove(&key).await;
            match &outcome {
                Err(_) if base.has(Bug::RemoveSwallowsErrors) => return Ok(()),
                Ok(()) => base.tell(key, EventKind::Removed),
                Err(error) => base.tell(key, EventKind::StoreFailed(Operation::Remove, error)),
            }
            outcome
        })
    }

    fn clear(&self) -> BoxFuture<'_, Result<()>> {
        let base = &self.0;
        Box::pin(async move {
            if base.core.policy.bypass {
                return Ok(());
            }
            let _fence = base.fence(None, Write::Clear).await;
            if !base.has(Bug::ErrorSurvivesClear) {
                base.remembered.lock().clear();
            }
            let outcome = base.core.store.clear().await;
            base.core.listener.tell_of_all(match &outcome {
                Ok(()) => EventKind::Cleared,
                Err(error) => EventKind::StoreFailed(Operation::Clear, error),
            });
            outcome
        })
    }

    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, Result<(usize, usize)>> {
        Box::pin(async move {
            let background = &self.0.core.background;
            let report = background.shutdown(deadline, &self.1).await;
            background
                .within(deadline, self.0.core.store.flush())
                .await
                .map_err(|_| timeout(Operation::Flush))??;
            Ok((report.drained, report.aborted))
        })
    }

    fn idle(&self) -> Box<dyn Fn() -> bool> {
        let base = Arc::clone(&self.0);
        Box::new(move || base.table().slots.is_empty() && base.table().clearing == 0 && base.all_free())
    }
}
