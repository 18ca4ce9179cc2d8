//! The laws of `docs/semantics.md`, over every store and stack of this crate.

pub(crate) mod alloc;
mod cost;

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
