//! The laws of `docs/semantics.md`, over every store and stack of this crate, and what it takes to test
//! them: schedules, faults, a model.

pub(crate) mod alloc;
mod auto_traits;
mod cost;

mod bench;
mod rig;

mod batches;
mod chain_laws;
mod chain_outages;
mod conformance;
mod engine_batches;
mod engine_bounds;
mod engine_early;
mod engine_kit;
mod engine_laws;
mod engine_races;
mod engine_tags;
mod engine_trouble;
mod gather;
mod kit;
mod kit_stacks;
mod minimal;
mod stacks;
mod threads;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The output of a future that never waits: polled once, on the spot.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("this future was expected to be ready at once"),
    }
}
