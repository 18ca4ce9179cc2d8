//! The course of the flights that a batch leads: one read, one computation for what was missed and one for what is
//! refreshed, one write for each.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::cache::answers::Answers;
use crate::cache::background::Cut;
use crate::cache::batch::{ComputeMany, in_full};
use crate::cache::budget::RefreshPermit;
use crate::cache::core::Core;
use crate::cache::event::EventKind;
use crate::cache::flight::Landing;
use crate::cache::load::{
    Judged, Owned, Ticket, aside, early as begin_early, fall_back, ground, judged, known_better,
    known_longer, load_failed, may_store, permit, refresh_failed, refreshed, was_read, was_stored,
};
use crate::cache::run::{Begun, Errand, catch, placed, remember};
use crate::cache::within::Within;
use crate::entry::{Entry, Freshness};
use crate::error::{Error, Operation, Result};
use crate::store::Store;
use crate::time::Timestamp;

/// A key that is to be computed, and what is held of it. While it is refreshed it keeps its permit.
struct Due<'a, S: Store> {
    ticket: &'a Ticket<S>,
    held: Option<Entry<S::Value>>,
    _permit: Option<RefreshPermit<'a>>,
}

impl<S: Store> Due<'_, S> {
    /// Gives the permit back, and lands.
    fn land(self, landing: Landing<S::Value>) {
        let ticket = self.ticket;
        drop(self);
        ticket.land(landing);
    }
}

/// Runs the flights of a batch from their beginning to their landing, each of which lands as soon as its outcome is
/// known. Waits for no other flight, so that batches that overlap cannot wait for each other.
pub(super) async fn fly_many<S: Store + 'static>(
    core: Arc<Core<S>>,
    crew: Vec<Ticket<S>>,
    compute: ComputeMany<S>,
    within: Within,
) {
    let (loads, refreshes) = match catch(look(&core, &crew)).await {
        Ok(due) => due,
        Err(payload) => return ground_all(crew.iter(), payload),
    };
    let run = |due, errand| run_errand(&core, due, errand, &compute, &within);
    let (mut loads, mut refreshes) =
        (Box::pin(run(loads, Errand::Load)), Box::pin(run(refreshes, Errand::Refresh)));
    let (mut home, mut also) = (false, false);
    poll_fn(|context| {
        // Neither waits for the other, and none is polled when it has ended.
        home = home || loads.as_mut().poll(context).is_ready();
        also = also || refreshes.as_mut().poll(context).is_ready();
        if home && also { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Lands what has not landed when somebody panicked.
fn ground_all<'a, S: Store + 'a>(crew: impl Iterator<Item = &'a Ticket<S>>, payload: Box<dyn Any + Send>) {
    let mut payload = Some(payload);
    crew.filter(|ticket| !ticket.has_landed()).for_each(|ticket| ground(ticket, &mut payload));
}

/// Reads the store for all that is not served already and may be refreshed, lands what was found, and says what is to
/// be loaded and what is to be refreshed.
async fn look<'a, S: Store + 'static>(
    core: &'a Core<S>,
    crew: &'a [Ticket<S>],
) -> (Vec<Due<'a, S>>, Vec<Due<'a, S>>) {
    let (mut loads, mut refreshes) = (Vec::new(), Vec::new());
    let (mut reading, mut early) = (Vec::with_capacity(crew.len()), Vec::new());
    for ticket in crew {
        let Some(shown) = ticket.flight.stale() else {
            reading.push((ticket, None));
            continue;
        };
        let fresh = core.policy.judge(shown.lifetime(), core.clock.now()) == Freshness::Fresh;
        match permit(ticket) {
            Some(permit) if fresh => early.push((ticket, shown, permit)),
            Some(permit) => reading.push((ticket, Some((shown, permit)))),
            None => ticket.land(Landing::Value(shown)),
        }
    }
    let mut refresh = |ticket: &'a Ticket<S>, entry: Entry<S::Value>, permit| {
        ticket.flight.refresh_behind(entry.clone());
        refreshes.push(Due { ticket, held: Some(entry), _permit: Some(permit) });
    };
    let asked: Vec<_> = reading.iter().map(|(ticket, _)| *ticket).collect();
    let read = read_many(core, &asked, core.clock.now()).await;
    // Judged after the read, however long it took (E13).
    let now = core.clock.now();
    for ((ticket, shown), read) in reading.into_iter().zip(read) {
        let held = match was_read(ticket, read) {
            Ok(held) => held,
            Err(error) => {
                ticket.land(Landing::Failed(error));
                continue;
            }
        };
        if let Some((shown, permit)) = shown {
            match known_better(ticket, shown, held, now) {
                Ok(fresh) => ticket.land(Landing::Found(fresh)),
                Err(stale) => refresh(ticket, stale, permit),
            }
            continue;
        }
        match judged(ticket, held, now) {
            Judged::Fresh(entry) if core.is_due(ticket.key(), entry.lifetime(), now) => {
                ticket.flight.refresh_behind(entry.clone());
                match permit(ticket) {
                    Some(permit) => early.push((ticket, entry, permit)),
                    None => ticket.land(Landing::Value(entry)),
                }
            }
            Judged::Fresh(entry) => ticket.land(Landing::Found(entry)),
            Judged::Stale(entry) => match permit(ticket) {
                Some(permit) => refresh(ticket, entry, permit),
                None => ticket.land(Landing::Value(entry)),
            },
            Judged::Miss(held) => loads.push(Due { ticket, held, _permit: None }),
        }
    }
    // What is due early is looked for where it stays fresh for longer, at an instant at which none of it is fresh.
    let past = early.iter().map(|(ticket, shown, _)| begin_early(ticket, shown)).max();
    let asked: Vec<_> = early.iter().map(|(ticket, ..)| *ticket).collect();
    let read = read_many(core, &asked, past.unwrap_or(now)).await;
    let now = core.clock.now();
    for ((ticket, shown, permit), read) in early.into_iter().zip(read) {
        match was_read(ticket, read).map(|held| known_longer(ticket, shown, held, now)) {
            Ok(Ok(fresh)) => ticket.land(Landing::Found(fresh)),
            Ok(Err(due)) => refresh(ticket, due, permit),
            Err(error) => ticket.land(Landing::Failed(error)),
        }
    }
    // In the order of the crew, which is one slice: what is due early was judged last.
    refreshes.sort_by_key(|due| std::ptr::from_ref(due.ticket));
    (loads, refreshes)
}

/// Reads many keys by one call, if there are any.
async fn read_many<S: Store + 'static>(
    core: &Core<S>,
    tickets: &[&Ticket<S>],
    at: Timestamp,
) -> impl Iterator<Item = std::result::Result<Result<Option<Entry<S::Value>>>, Cut>> + use<S> {
    let keys: Vec<_> = tickets.iter().map(|ticket| ticket.key()).collect();
    let read = if keys.is_empty() {
        Ok(Vec::new())
    } else {
        core.background.bounded(core.policy.load_timeout, pin!(core.store.get_many(&keys, at))).await
    };
    each(read, keys.len(), Operation::Get)
}

/// One computation, and the landing of all its keys whatever becomes of it.
async fn run_errand<S: Store + 'static>(
    core: &Core<S>,
    due: Vec<Due<'_, S>>,
    errand: Errand,
    compute: &ComputeMany<S>,
    within: &Within,
) {
    if due.is_empty() {
        return;
    }
    if errand == Errand::Refresh {
        aside().await;
    }
    let tickets: Vec<_> = due.iter().map(|due| due.ticket).collect();
    if let Err(payload) = catch(compute_due(core, due, errand, compute, within)).await {
        ground_all(tickets.into_iter(), payload);
    }
}

async fn compute_due<S: Store + 'static>(
    core: &Core<S>,
    due: Vec<Due<'_, S>>,
    errand: Errand,
    compute: &ComputeMany<S>,
    within: &Within,
) {
    let due = not_failed_lately(core, due, errand);
    if due.is_empty() {
        return;
    }
    let tickets: Vec<_> = due.iter().map(|due| due.ticket).collect();
    let keys = due.iter().map(|due| due.ticket.key.clone()).collect();
    let work = pin!(async { compute(keys).await });
    let (mut answers, begun) = placed(core, &tickets, within.clone(), errand, work).await;
    let mut storing = Vec::with_capacity(due.len());
    for due in due {
        match errand.take(core, &due, &mut answers, begun) {
            Ok(entry) if may_store(due.ticket, &entry) => storing.push((due, entry)),
            Ok(entry) => due.land(Landing::Value(entry)),
            Err(error) => {
                let landing = errand.failed(&due, error);
                due.land(landing);
            }
        }
    }
    core.tell_unasked(answers.map_or(0, |left| left.len()));
    if storing.is_empty() {
        return;
    }
    let entries: Vec<_> = storing.iter().map(|(due, entry)| (due.ticket.key(), entry.clone())).collect();
    let stored = {
        let set = pin!(core.store.set_many(&entries));
        core.background.bounded(core.policy.load_timeout, set).await
    };
    let stored = each(stored, entries.len(), Operation::Set);
    drop(entries);
    for ((due, entry), stored) in storing.into_iter().zip(stored) {
        let landing = was_stored(due.ticket, entry, stored);
        let landing = if errand == Errand::Refresh { refreshed(due.ticket, landing) } else { landing };
        due.land(landing);
    }
}

/// Lands the keys whose last computation failed a moment ago, as if it had failed again (E17). Of the others it shows
/// what is held to callers who may lose patience (E20).
fn not_failed_lately<'a, S: Store>(core: &Core<S>, due: Vec<Due<'a, S>>, errand: Errand) -> Vec<Due<'a, S>> {
    let mut left = Vec::with_capacity(due.len());
    for due in due {
        match (core.remembered_error(due.ticket.key()), errand, &due.held) {
            (Some(error), Errand::Refresh, held) => {
                core.listener.tell(due.ticket.key(), EventKind::RefreshSkipped);
                let landing = fall_back(due.ticket, held.clone(), error);
                due.land(landing);
            }
            (Some(error), Errand::Load, held) => {
                let landing = load_failed(due.ticket, held.clone(), &error, true);
                due.land(landing);
            }
            (None, errand, held) => {
                if let (Errand::Load, Some(held)) = (errand, held) {
                    due.ticket.flight.load_beside(held.clone());
                }
                left.push(due);
            }
        }
    }
    left
}

impl Errand {
    /// The entry of one key's answer, of which is told.
    fn take<S: Store>(
        self,
        core: &Core<S>,
        due: &Due<'_, S>,
        answers: &mut Result<Answers<Owned<S>, S::Value>>,
        begun: Option<Begun>,
    ) -> Result<Entry<S::Value>> {
        let entry = self.entry(core, due, answers, begun);
        remember(due.ticket, begun, entry.as_ref().err());
        entry
    }

    fn entry<S: Store>(
        self,
        core: &Core<S>,
        due: &Due<'_, S>,
        answers: &mut Result<Answers<Owned<S>, S::Value>>,
        begun: Option<Begun>,
    ) -> Result<Entry<S::Value>> {
        let started_at = begun.map_or_else(|| core.clock.now(), |begun| begun.at);
        let answer = match answers {
            Ok(answers) => answers.take(due.ticket.key()).unwrap_or_else(|| core.absent())?,
            Err(error) => return Err(error.clone()),
        };
        let ended = core.clock.now();
        let entry = core.entry(due.ticket.key(), answer, due.held.as_ref(), (started_at, ended))?;
        let took = ended.since(started_at);
        if let Some(ahead) = &core.ahead {
            ahead.measured(due.ticket.key(), took);
        }
        core.listener.tell(
            due.ticket.key(),
            match self {
                Self::Load => EventKind::LoadSucceeded(took),
                Self::Refresh => EventKind::RefreshSucceeded(took),
            },
        );
        Ok(entry)
    }

    fn failed<S: Store>(self, due: &Due<'_, S>, error: Error) -> Landing<S::Value> {
        match (self, due.held.clone()) {
            (Self::Refresh, Some(stale)) => refresh_failed(due.ticket, stale, error),
            (_, held) => load_failed(due.ticket, held, &error, false),
        }
    }
}

/// What a bulk call that may have been cut came to for each key.
fn each<T: 'static>(
    outcome: std::result::Result<Vec<Result<T>>, Cut>,
    keys: usize,
    operation: Operation,
) -> impl Iterator<Item = std::result::Result<Result<T>, Cut>> {
    let cut = outcome.as_ref().err().copied();
    in_full(outcome.unwrap_or_default(), keys, operation).map(move |result| cut.map_or(Ok(result), Err))
}
