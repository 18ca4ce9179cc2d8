//! How many loads run at once, and who waits for a place (E21).

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::oneshot;

use crate::cache::builder::CacheBuilder;
use crate::store::Store;
use crate::sync::Mutex;

impl<S: Store, L> CacheBuilder<S, L> {
    /// How many loads, computations that somebody waits for, may run at once; any number unless told. Not zero. Refreshes
    /// have [a limit of their own](Self::max_refreshes).
    ///
    /// A load beyond it waits for a place, in order of arrival: after its store was read, so that
    /// hits in slow tiers need none, and its flight can be joined meanwhile. The wait counts towards
    /// [`load_timeout`](Self::load_timeout). The place is given back when the computation ends, before its result is stored.
    ///
    /// What was begun within another computation, of this cache or another, takes no place, and neither does what
    /// such a computation joins: they would wait for each other. What a computation
    /// hands to another task counts as begun outside it.
    pub fn max_loads(mut self, most: usize) -> Self {
        self.settings.trouble.loads.loads = Some(most);
        self
    }

    /// How many loads may wait for a place; any number unless told. Zero is allowed: nobody waits. Needs
    /// [`max_loads`](Self::max_loads).
    ///
    /// A load beyond it is rejected: its callers get what [E8](Self::keep_stale_on_error) gives, or an error of
    /// kind [`Overloaded`](crate::ErrorKind::Overloaded).
    pub fn max_waiting_loads(mut self, most: usize) -> Self {
        self.settings.trouble.loads.waiting = Some(most);
        self
    }
}

/// What the builder was told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    loads: Option<usize>,
    waiting: Option<usize>,
}

impl Settings {
    pub(crate) fn limit(self) -> Result<Option<Limit>, &'static str> {
        match (self.loads, self.waiting) {
            (Some(0), _) => {
                Err("max_loads: zero; nothing could be computed: to read what is held, call `get`")
            }
            (None, Some(_)) => Err("max_waiting_loads: without max_loads nobody waits"),
            (loads, waiting) => Ok(loads.map(|loads| Limit { loads, waiting })),
        }
    }
}

/// How many may run, and how many may wait (any number if `None`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) loads: usize,
    pub(crate) waiting: Option<usize>,
}

/// The places, and who waits for one.
pub(crate) struct Places(Arc<Mutex<Queue>>);

struct Queue {
    free: usize,
    most_waiting: usize,
    /// By number of arrival.
    waiting: BTreeMap<u64, oneshot::Sender<Place>>,
    next: u64,
}

/// The right to run a load. Whoever waits longest gets it next.
pub(crate) struct Place(Option<Arc<Mutex<Queue>>>);

/// As many wait as may.
pub(crate) struct Full;

/// Waits in the queue, until it is dropped.
struct Turn<'a> {
    queue: &'a Mutex<Queue>,
    number: u64,
    place: oneshot::Receiver<Place>,
}

impl Places {
    pub(crate) fn new(limit: Limit) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            free: limit.loads,
            most_waiting: limit.waiting.unwrap_or(usize::MAX),
            waiting: BTreeMap::new(),
            next: 0,
        })))
    }

    /// Waits for a place. `None` if the load was excused from one while it waited.
    pub(crate) async fn take(&self, mut excused: impl FnMut() -> bool) -> Result<Option<Place>, Full> {
        let mut turn = match self.turn()? {
            Ok(place) => return Ok(Some(place)),
            Err(turn) => turn,
        };
        Ok(poll_fn(|context| match Pin::new(&mut turn.place).poll(context) {
            // A sender is dropped with its place only, and the queue outlives who waits in it.
            Poll::Ready(place) => Poll::Ready(place.ok()),
            Poll::Pending if excused() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await)
    }

    /// A place, or a turn in the queue.
    fn turn(&self) -> Result<Result<Place, Turn<'_>>, Full> {
        let mut queue = self.0.lock();
        if queue.free > 0 {
            queue.free -= 1;
            return Ok(Ok(Place(Some(Arc::clone(&self.0)))));
        }
        if queue.waiting.len() >= queue.most_waiting {
            return Err(Full);
        }
        let (number, (give, place)) = (queue.next, oneshot::channel());
        queue.next += 1;
        queue.waiting.insert(number, give);
        Ok(Err(Turn { queue: &self.0, number, place }))
    }

    /// How many are free, and how many wait.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn state(&self) -> (usize, usize) {
        let queue = self.0.lock();
        (queue.free, queue.waiting.len())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.queue.lock().waiting.remove(&self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(places) = self.0.take() else { return };
        loop {
            let next = {
                let mut queue = places.lock();
                let next = queue.waiting.pop_first();
                if next.is_none() {
                    queue.free += 1;
                }
                next
            };
            let Some((_, give)) = next else { return };
            match give.send(Self(Some(Arc::clone(&places)))) {
                Ok(()) => return,
                // It went away just now: the next one, and not by way of this drop again.
                Err(mut place) => place.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::tests::ready;
    use proptest::prelude::*;

    #[test]
    fn e21_a_place_that_nobody_took_goes_to_the_next() {
        let places = Places::new(Limit { loads: 1, waiting: None });
        let first = ready(places.take(|| false)).ok().flatten();
        let turns: Vec<_> = (0..3).map(|_| places.turn().ok().unwrap().err().unwrap()).collect();
        drop(first);
        assert_eq!(places.state(), (0, 2), "the first to wait has it");
        let mut turns = turns.into_iter();
        drop(turns.next());
        assert_eq!(places.state(), (0, 1), "it passed it on");
        drop(turns.next_back());
        assert_eq!(places.state(), (0, 0));
        drop(turns);
        assert_eq!(places.state(), (1, 0), "at rest nothing is held");
    }

    #[test]
    fn e21_who_is_excused_leaves_the_queue() {
        let places = Places::new(Limit { loads: 1, waiting: Some(1) });
        let held = ready(places.take(|| false)).ok().flatten();
        assert!(held.is_some());
        assert!(ready(places.take(|| true)).ok().is_some_and(|place| place.is_none()));
        assert_eq!(places.state(), (0, 0));
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Come,
        Leave(usize),
        End(usize),
    }

    proptest! {
        /// Against a list: who runs, who waits in which order, who is turned away.
        #[test]
        fn e21_places_go_in_order_of_arrival(
            loads in 1..4usize, waiting in 0..4usize,
            acts in prop::collection::vec(prop_oneof![
                3 => Just(Act::Come),
                1 => (0..8usize).prop_map(Act::Leave),
                2 => (0..8usize).prop_map(Act::End),
            ], 0..40),
        ) {
            let places = Places::new(Limit { loads, waiting: Some(waiting) });
            let (mut running, mut queue) = (Vec::new(), Vec::new());
            for (who, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Come => match places.turn() {
                        Ok(Ok(place)) => {
                            prop_assert!(running.len() < loads && queue.is_empty());
                            running.push((who, place));
                        }
                        Ok(Err(turn)) => {
                            prop_assert!(running.len() == loads && queue.len() < waiting);
                            queue.push((who, turn));
                        }
                        Err(Full) => prop_assert!(running.len() == loads && queue.len() == waiting),
                    },
                    Act::Leave(at) if at < queue.len() => drop(queue.remove(at)),
                    Act::End(at) if at < running.len() => {
                        drop(running.remove(at));
                        if !queue.is_empty() {
                            let (who, mut turn) = queue.remove(0);
                            let mut context = Context::from_waker(Waker::noop());
                            let Poll::Ready(Ok(place)) = Pin::new(&mut turn.place).poll(&mut context) else {
                                return Err(TestCaseError::fail("the first in the queue has no place"));
                            };
                            running.push((who, place));
                        }
                    }
                    Act::Leave(_) | Act::End(_) => {}
                }
                prop_assert_eq!(places.state(), (loads - running.len(), queue.len()));
            }
            drop((running, queue));
            prop_assert_eq!(places.state(), (loads, 0));
        }
    }
}
