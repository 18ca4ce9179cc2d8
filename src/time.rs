//! Instants and the clocks that tell them: the only file that asks the time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant: nanoseconds since the Unix epoch, in a `u64` (good until the year 2554).
///
/// [`Timestamp::MAX`] means *never*. Arithmetic saturates at both ends: what would lie beyond the year
/// 2554 is never, and never stays never, whatever is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch, before which there are no instants.
    pub const EPOCH: Self = Self(0);
    /// Never.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whether this is [`Timestamp::MAX`].
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// This instant moved later by `by`; at most [`Timestamp::MAX`].
    #[must_use = "an instant is a value; this returns another"]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }

    /// This instant moved earlier by `by`; at least [`Timestamp::EPOCH`]. Never stays never.
    #[must_use = "an instant is a value; this returns another"]
    pub fn saturating_sub(self, by: Duration) -> Self {
        if self.is_never() { self } else { Self(self.0.saturating_sub(nanos(by))) }
    }

    /// How long after `earlier` this instant is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// Seconds and nanoseconds since the epoch, or `never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() {
            return f.write_str("never");
        }
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells the time.
///
/// A wall clock, because instants are compared between processes and across restarts. It may jump
/// both ways; law E12 says what then holds.
pub trait Clock: Send + Sync + 'static {
    /// The present instant. Called on every hit, so it should cost a few nanoseconds.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The system's wall clock.
///
/// On Linux it reads the coarse clock (`CLOCK_REALTIME_COARSE`), which costs about 6 ns and advances
/// once per kernel tick (1 to 10 ms); elsewhere it reads the precise one, about 20 ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        // Neither is negative in this century, and they have different types on some machines.
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
        Timestamp(seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0)))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(nanos(elapsed))
    }
}

/// A clock that a test moves by hand. Clones share one time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(start.0)))
    }

    /// Moves the time to `to`, forwards or backwards.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.0, Ordering::SeqCst);
    }

    /// Moves the time forwards by `by`, saturating.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// The clock that a layer holds: the system's by a direct call, any other behind a pointer, so that
/// nobody's type carries a clock.
#[derive(Clone, Default)]
pub(crate) enum AnyClock {
    #[default]
    System,
    Other(Arc<dyn Clock>),
}

impl AnyClock {
    pub(crate) fn of(clock: impl Clock) -> Self {
        Self::Other(Arc::new(clock))
    }

    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        match self {
            Self::System => SystemClock.now(),
            Self::Other(clock) => clock.now(),
        }
    }
}

impl fmt::Debug for AnyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "SystemClock",
            Self::Other(_) => "Clock",
        })
    }
}

/// How long something takes, for reports: never for a decision about an entry.
#[cfg(any(test, feature = "testkit"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(std::time::Instant);

#[cfg(any(test, feature = "testkit"))]
impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_and_never_stays_never() {
        let second = Duration::from_secs(1);
        assert_eq!(Timestamp::EPOCH.saturating_sub(second), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_nanos(5).saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.saturating_sub(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn the_system_clock_tells_this_century() {
        let now = SystemClock.now();
        assert!(now > Timestamp::from_nanos(1_700_000_000_000_000_000), "{now}");
        assert!(!now.is_never());
    }
}
