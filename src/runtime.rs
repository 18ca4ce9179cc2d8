//! The seam through which the engine spawns and sleeps.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A future on the heap, as tasks and sleeps are handed around.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs detached work. The engine needs nothing else of a runtime.
///
/// Implement it to put a cache on another executor, or on a deterministic one in a test.
pub trait Runtime: Send + Sync + 'static {
    /// Runs `task` to its end without anyone waiting for it, or gives it back if there is nothing to run
    /// it on.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>>;

    /// Ends after `duration` at the earliest. `None` if there is no timer: the caller then waits
    /// without a deadline.
    fn sleep(&self, duration: Duration) -> Option<BoxFuture<'static, ()>>;
}

/// Tokio: a given runtime, or the one that is current when the work begins.
///
/// # Panics
///
/// `sleep` panics, as tokio does, on a runtime that was built without a timer: call `enable_time` or
/// `enable_all` on its builder. A load that has to wait would take the panic for its own.
#[derive(Clone, Default)]
pub struct TokioRuntime {
    handle: Option<tokio::runtime::Handle>,
}

impl TokioRuntime {
    /// The runtime of whoever calls the cache.
    pub const fn current() -> Self {
        Self { handle: None }
    }

    /// This runtime, also for callers outside any runtime.
    pub const fn on(handle: tokio::runtime::Handle) -> Self {
        Self { handle: Some(handle) }
    }

    fn handle(&self) -> Option<tokio::runtime::Handle> {
        self.handle.clone().or_else(|| tokio::runtime::Handle::try_current().ok())
    }
}

impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Result<(), BoxFuture<'static, ()>> {
        let Some(handle) = self.handle() else { return Err(task) };
        handle.spawn(task);
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn sleep(&self, duration: Duration) -> Option<BoxFuture<'static, ()>> {
        let handle = self.handle()?;
        let _guard = handle.enter();
        Some(Box::pin(tokio::time::sleep(duration)))
    }
}

impl fmt::Debug for TokioRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.handle.is_some() { "TokioRuntime(given)" } else { "TokioRuntime(current)" })
    }
}
