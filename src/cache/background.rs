//! What runs behind the callers, and how it ends: deadlines, the budget of refreshes, shutdown.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::cache::budget::{Budget, RefreshPermit};
use crate::runtime::{BoxFuture, Runtime};
use crate::time::Timestamp;

/// The engine's side of what runs in the background.
pub(crate) struct Background {
    pub(crate) runtime: Arc<dyn Runtime>,
    /// Turns `true` at an abort; closes when the last handle of the cache is dropped.
    stop: watch::Receiver<bool>,
    closing: AtomicBool,
    flights: AtomicUsize,
    budget: Budget,
    idle: Notify,
}

/// The handles' side. The last one that goes stops what still runs.
pub(crate) type Alive = watch::Sender<bool>;

/// Why work did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Deadline,
    Stopped,
}

/// What a [shutdown](crate::Cache::shutdown) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Computations that ended by themselves in time.
    pub drained: usize,
    /// Computations that were cut off at the deadline.
    pub aborted: usize,
}

impl Background {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, budget: Budget) -> (Self, Alive) {
        let (alive, stop) = watch::channel(false);
        let background = Self {
            runtime,
            stop,
            closing: AtomicBool::new(false),
            flights: AtomicUsize::new(0),
            budget,
            idle: Notify::new(),
        };
        (background, alive)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    pub(crate) fn enter(&self) {
        self.flights.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        if self.flights.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_closing() {
            self.idle.notify_waiters();
        }
    }

    /// The right to run as many of `wanted` refreshes as the budget has room for (E19): stale ones, early ones and
    /// whole batches all ask here. `None` if none may begin.
    pub(crate) fn try_refresh(
        &self,
        wanted: usize,
        now: impl FnOnce() -> Timestamp,
    ) -> Option<RefreshPermit<'_>> {
        if self.is_closing() { None } else { self.budget.take(wanted, now) }
    }

    /// Runs `work` until it ends, its time is up, or the cache stops. Work that ends at its first poll
    /// costs no timer.
    pub(crate) async fn bounded<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, Cut> {
        let mut work = pin!(work);
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
            return Ok(output);
        }
        let mut stopped = self.stopped();
        let work_or_stop = poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            stopped.as_mut().poll(context).map(|()| Err(Cut::Stopped))
        });
        self.within(limit, work_or_stop).await?
    }

    /// Runs `work` until it ends or its time is up, whether the cache stops or not.
    pub(crate) async fn within<F: Future>(&self, limit: Duration, work: F) -> Result<F::Output, Cut> {
        let mut work = pin!(work);
        let mut time_is_up = self.runtime.sleep(limit);
        poll_fn(|context| {
            if let Poll::Ready(output) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            match &mut time_is_up {
                Some(sleep) => sleep.as_mut().poll(context).map(|()| Err(Cut::Deadline)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for `sleep`, or until the cache stops.
    pub(crate) async fn unless_stopped(&self, mut sleep: BoxFuture<'static, ()>) -> Result<(), Cut> {
        let mut stopped = self.stopped();
        poll_fn(|context| {
            if sleep.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            stopped.as_mut().poll(context).map(|()| Err(Cut::Stopped))
        })
        .await
    }

    fn stopped(&self) -> BoxFuture<'static, ()> {
        let mut stop = self.stop.clone();
        Box::pin(async move {
            // An error says that the last handle is gone, which is a reason to stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
    }

    /// Starts no more, waits for what runs until `deadline`, then cuts it off.
    pub(crate) async fn shutdown(&self, deadline: Duration, alive: &Alive) -> ShutdownReport {
        let before = self.flights.load(Ordering::SeqCst);
        self.closing.store(true, Ordering::SeqCst);
        let drained = async {
            loop {
                let mut idle = pin!(self.idle.notified());
                idle.as_mut().enable();
                if self.flights.load(Ordering::SeqCst) == 0 {
                    return;
                }
                idle.await;
            }
        };
        // Whatever the outcome, what is left is counted and stopped below.
        let _ = self.within(deadline, drained).await;
        let aborted = self.flights.load(Ordering::SeqCst);
        alive.send_replace(true);
        ShutdownReport { drained: before.saturating_sub(aborted), aborted }
    }
}
