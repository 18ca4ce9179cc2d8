//! Whether somebody still waits for a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Passed from a future to the work that it sent to another thread.
///
/// The work takes the turn of its key first and [begins](Ticket::begin) then. If the future was dropped
/// before, the work has no effect at all; if it is dropped later, the work holds the turn and every later
/// call of that key waits for its end. Either way the call's effect does not come after the drop, as
/// far as anyone can tell (law S8).
#[derive(Debug, Default)]
pub(crate) struct Ticket(AtomicU8);

const WAITING: u8 = 0;
const AT_WORK: u8 = 1;
const DROPPED: u8 = 2;

impl Ticket {
    /// Leave to begin, or `None` if nobody waits any more. To be asked for while the turn is held, and to
    /// be given back before the turn is.
    pub(crate) fn begin(&self) -> Option<AtWork<'_>> {
        let begun = self.0.compare_exchange(WAITING, AT_WORK, Ordering::SeqCst, Ordering::SeqCst);
        begun.is_ok().then_some(AtWork(self))
    }
}

/// A step of the work, with one turn held. A call of many steps asks again before the next one.
#[derive(Debug)]
pub(crate) struct AtWork<'a>(&'a Ticket);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let _ = self.0.0.compare_exchange(AT_WORK, WAITING, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// The future's half: tells the work when the future is dropped.
#[derive(Debug)]
pub(crate) struct Waiting(pub(crate) Arc<Ticket>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(DROPPED, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_what_nobody_waits_for_does_not_begin() {
        let ticket = Arc::new(Ticket::default());
        let waiting = Waiting(Arc::clone(&ticket));
        drop(ticket.begin().expect("somebody waits"));
        let step = ticket.begin().expect("the last step was over");
        drop(waiting);
        drop(step);
        assert!(ticket.begin().is_none(), "a call of many steps stops at the next one");
    }
}
