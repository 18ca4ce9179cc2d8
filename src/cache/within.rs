//! Inside which flights a task computes, so that nobody waits for himself.

use std::any::Any;
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use crate::cache::flight::Flight;

tokio::task_local! {
    /// The flights inside which this task computes, the innermost first.
    static WITHIN: Arc<Link>;
}

/// Flights that compute together, and those inside whose computations they were begun.
struct Link {
    /// Held, so that no later flight can stand at the same address.
    flights: Together,
    outer: Vec<Arc<Link>>,
}

enum Together {
    One(Arc<dyn Any + Send + Sync>),
    /// In the order of their addresses.
    Many(Box<[Arc<dyn Any + Send + Sync>]>),
}

impl Together {
    fn contains(&self, wanted: usize) -> bool {
        let address = |flight: &Arc<dyn Any + Send + Sync>| Arc::as_ptr(flight).addr();
        match self {
            Self::One(flight) => address(flight) == wanted,
            Self::Many(flights) => flights.binary_search_by_key(&wanted, address).is_ok(),
        }
    }
}

/// The outermost flights that the present task computes for, to be handed on to a flight it begins.
#[derive(Clone)]
pub(crate) struct Within(Option<Arc<Link>>);

impl Within {
    pub(crate) fn current() -> Self {
        Self(WITHIN.try_with(Arc::clone).ok())
    }

    /// All of these at once, for a computation that is run for each of them.
    pub(crate) fn all(withins: impl IntoIterator<Item = Self>) -> Self {
        let mut outer: Vec<_> = withins.into_iter().filter_map(|within| within.0).collect();
        outer.sort_unstable_by_key(|link| Arc::as_ptr(link).addr());
        outer.dedup_by(|one, other| Arc::ptr_eq(one, other));
        Self((!outer.is_empty()).then(|| Arc::new(Link { flights: Together::Many(Box::default()), outer })))
    }

    /// Runs `work` inside these flights.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        match self.0 {
            Some(link) => WITHIN.scope(link, work).await,
            None => work.await,
        }
    }

    /// These flights, and within them the flights of a computation that begins.
    pub(super) fn and<V>(self, mut flights: impl ExactSizeIterator<Item = Arc<Flight<V>>>) -> Self
    where
        V: Send + Sync + 'static,
    {
        let flights = if flights.len() == 1
            && let Some(flight) = flights.next()
        {
            Together::One(flight)
        } else {
            let mut many: Box<[Arc<dyn Any + Send + Sync>]> = flights.map(|flight| flight as _).collect();
            many.sort_unstable_by_key(|flight| Arc::as_ptr(flight).addr());
            Together::Many(many)
        };
        Self(Some(Arc::new(Link { flights, outer: self.0.into_iter().collect() })))
    }

    /// Whether the task computes for any flight.
    pub(crate) fn is_within(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the task computes for this flight, so that waiting for it would never end.
    pub(crate) fn contains<V>(&self, flight: &Arc<Flight<V>>) -> bool {
        let wanted = Arc::as_ptr(flight).addr();
        let mut next: Vec<_> = self.0.iter().collect();
        // Computations that were gathered may have outer ones in common.
        let mut seen = HashSet::new();
        while let Some(link) = next.pop() {
            if link.flights.contains(wanted) {
                return true;
            }
            if link.outer.len() < 2 {
                next.extend(&link.outer);
            } else {
                next.extend(link.outer.iter().filter(|outer| seen.insert(Arc::as_ptr(outer).addr())));
            }
        }
        false
    }
}
