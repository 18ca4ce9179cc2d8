//! How many refreshes may run at once, and how many may begin in any span of time (E19).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::time::Timestamp;

/// By how many nanoseconds one thread may look at the clock before another and come after it.
const STEP: u64 = 1_000_000_000;

/// How many refreshes may begin: a rate, and how many at once after a quiet time.
///
/// The generic cell rate algorithm (ITU-T I.371): what is kept is the one instant at which the burst is whole again.
/// In any span of `t` seconds by the cache's clock at most `rate * t + burst` begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    per_second: f64,
    /// Nanoseconds from one refresh to the next; rounded up, so that the rate is never exceeded.
    interval: u64,
    /// A tenth of a second's worth, at least one.
    burst: u64,
}

impl Rate {
    /// `None` unless it is a positive number. Beyond one refresh a nanosecond there is no difference.
    pub(crate) fn of(per_second: f64) -> Option<Self> {
        if !(per_second > 0.0 && per_second.is_finite()) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
        let whole = |number: f64| (number as u64).max(1);
        let interval = whole((1e9 / per_second).ceil());
        Some(Self { per_second, interval, burst: whole(per_second.min(1e9) / 10.0) })
    }

    pub(crate) const fn per_second(self) -> f64 {
        self.per_second
    }

    /// How many may begin at once after a quiet time.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) const fn burst(self) -> u64 {
        self.burst
    }

    /// So many of `wanted` may begin at `now`, and when the burst is whole again then. `whole_at` is when it
    /// would be without them.
    fn take(self, wanted: u64, whole_at: u64, now: u64) -> (u64, u64) {
        let depth = self.interval.saturating_mul(self.burst);
        let empty = now.saturating_add(depth);
        // Far beyond an empty burst is what a clock that stepped back has left behind: then it is empty. A little
        // beyond is who looked at the clock before another and comes after it, whom that would give what is not there.
        let whole_at = if whole_at > empty.saturating_add(STEP) { empty } else { whole_at.max(now) };
        let granted = wanted.min(empty.saturating_sub(whole_at) / self.interval);
        (granted, whole_at.saturating_add(granted.saturating_mul(self.interval)))
    }
}

/// The refreshes that run, and those that began lately.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    running: AtomicUsize,
    rate: Option<Rate>,
    /// Nanoseconds since the epoch: when the burst is whole again.
    whole_at: AtomicU64,
}

impl Budget {
    pub(crate) const fn new(most: usize, rate: Option<Rate>) -> Self {
        Self { most, running: AtomicUsize::new(0), rate, whole_at: AtomicU64::new(0) }
    }

    /// The right to run as many of `wanted` refreshes as may begin now; `None` if that is none.
    ///
    /// A refresh that finds a better copy in a deeper tier has begun like any other. The clock is asked only if
    /// there is a rate.
    pub(crate) fn take(&self, wanted: usize, now: impl FnOnce() -> Timestamp) -> Option<RefreshPermit<'_>> {
        let free = |running| {
            let granted = wanted.min(self.most.saturating_sub(running));
            (granted > 0).then_some(running + granted)
        };
        let before = self.running.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).ok()?;
        // From here on the places are given back, whatever happens.
        let mut permit = RefreshPermit { budget: self, places: wanted.min(self.most.saturating_sub(before)) };
        if let Some(rate) = self.rate {
            permit.keep(self.begin(rate, permit.places, now().as_nanos()));
        }
        (permit.places > 0).then_some(permit)
    }

    fn begin(&self, rate: Rate, wanted: usize, now: u64) -> usize {
        let mut granted = 0;
        let take = |whole_at| {
            let (begins, whole_at) = rate.take(wanted as u64, whole_at, now);
            granted = begins;
            // Also if none begins: the burst fills again from here after a clock stepped back.
            Some(whole_at)
        };
        // It never refuses.
        let _ = self.whole_at.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        usize::try_from(granted).unwrap_or(wanted)
    }
}

/// The right to run refreshes. Dropping it gives their places back, not what it took of the rate.
#[derive(Debug)]
pub(crate) struct RefreshPermit<'a> {
    budget: &'a Budget,
    places: usize,
}

impl RefreshPermit<'_> {
    fn keep(&mut self, places: usize) {
        self.budget.running.fetch_sub(self.places - places, Ordering::SeqCst);
        self.places = places;
    }
}

impl Drop for RefreshPermit<'_> {
    fn drop(&mut self) {
        self.budget.running.fetch_sub(self.places, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: f64) -> Rate {
        Rate::of(per_second).unwrap()
    }

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// How many of `wanted` may begin at `now`, and none of them runs on.
    fn begin(budget: &Budget, wanted: usize, now: u64) -> usize {
        budget.take(wanted, || at(now)).map_or(0, |permit| permit.places)
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        for wrong in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Rate::of(wrong), None, "{wrong}");
        }
        for (right, interval, burst) in [
            (f64::MIN_POSITIVE, u64::MAX, 1),
            (0.1, 10 * SECOND, 1),
            (1.0, SECOND, 1),
            (19.9, 50_251_257, 1),
            (30.0, 33_333_334, 3),
            (1e6, 1_000, 100_000),
            (f64::MAX, 1, 100_000_000),
        ] {
            let rate = rate(right);
            assert_eq!((rate.interval, rate.burst), (interval, burst), "{right}");
        }
    }

    #[test]
    fn e19_no_more_run_at_once_than_allowed() {
        let budget = Budget::new(3, None);
        let now = || -> Timestamp { panic!("there is no rate") };
        let two = budget.take(2, now).unwrap();
        let one = budget.take(2, now).unwrap();
        assert_eq!((two.places, one.places), (2, 1), "as many as there is room for");
        assert!(budget.take(1, now).is_none());
        drop(two);
        assert_eq!(budget.take(9, now).unwrap().places, 2);
        assert!(budget.take(0, now).is_none());
    }

    #[test]
    fn e19_what_the_rate_refuses_takes_no_place() {
        let budget = Budget::new(10, Some(rate(20.0)));
        let first = budget.take(10, || at(SECOND)).unwrap();
        assert_eq!(first.places, 2, "the burst");
        assert_eq!(budget.running.load(Ordering::SeqCst), 2);
        assert!(budget.take(1, || at(SECOND)).is_none());
        assert_eq!(budget.running.load(Ordering::SeqCst), 2);
        drop(first);
        assert_eq!(budget.running.load(Ordering::SeqCst), 0);
        assert_eq!(begin(&budget, 1, SECOND), 0, "a place is given back, and the rate is not");
        assert_eq!(begin(&budget, 1, SECOND + 49_999_999), 0);
        assert_eq!(begin(&budget, 1, SECOND + 50_000_000), 1);
    }

    #[test]
    fn e19_what_finds_no_place_takes_nothing_of_the_rate() {
        let budget = Budget::new(1, Some(rate(20.0)));
        let running = budget.take(1, || at(SECOND)).unwrap();
        for _ in 0..5 {
            assert!(budget.take(1, || at(SECOND)).is_none());
        }
        drop(running);
        assert_eq!(begin(&budget, 1, SECOND), 1);
    }

    #[test]
    fn e19_a_clock_that_ticks_seldom_loses_nothing_of_the_rate() {
        for (per_second, tick) in [(50.0, 10_000_000), (1_000.0, 10_000_000), (1e6, 4_000_000)] {
            let budget = Budget::new(usize::MAX, Some(rate(per_second)));
            begin(&budget, usize::MAX, 10 * SECOND);
            let begun: usize = (1..=SECOND / tick)
                .map(|tick_number| begin(&budget, usize::MAX, 10 * SECOND + tick_number * tick))
                .sum();
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let share = begun as f64 / per_second;
            assert!((0.999..=1.0).contains(&share), "{per_second} a second, and {begun} began");
        }
    }

    /// E19: however far the clock stepped back, one interval later a refresh may begin; a small step is waited for.
    #[test]
    fn e19_a_clock_that_steps_back_neither_stalls_nor_bursts() {
        for per_second in [0.1, 1.0, 50.0, 1e6] {
            let rate = rate(per_second);
            for (from, to) in
                [(1_000 * SECOND, 10 * SECOND), (1_000 * SECOND, 900 * SECOND), (u64::MAX - 1, 1)]
            {
                let budget = Budget::new(usize::MAX, Some(rate));
                begin(&budget, usize::MAX, from);
                assert_eq!(begin(&budget, usize::MAX, to), 0, "the burst is empty");
                assert_eq!(begin(&budget, usize::MAX, to + rate.interval - 1), 0);
                assert_eq!(begin(&budget, usize::MAX, to + rate.interval), 1);
            }
            let budget = Budget::new(usize::MAX, Some(rate));
            begin(&budget, usize::MAX, 1_000 * SECOND);
            let late = 1_000 * SECOND - STEP;
            assert_eq!(begin(&budget, usize::MAX, late + rate.interval), 0);
            assert_eq!(begin(&budget, usize::MAX, late + STEP + rate.interval), 1);
            let budget = Budget::new(usize::MAX, Some(rate));
            begin(&budget, usize::MAX, 10 * SECOND);
            assert_eq!(begin(&budget, usize::MAX, 10_000 * SECOND) as u64, rate.burst, "ahead: one burst");
            assert_eq!(begin(&budget, usize::MAX, 10_000 * SECOND), 0);
        }
    }

    fn per_second() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.1), Just(1.0), Just(1e6), 0.05..2.0f64, 2.0..1e4f64, 1e4..2e6f64]
    }

    proptest! {
        /// E19: the law itself, over every span between two refreshes, and nobody is refused without need.
        #[test]
        fn e19_in_no_span_begin_more_than_the_rate_and_its_burst(
            per_second in per_second(),
            steps in prop::collection::vec((0..40u32, 0..1_000u64, 1..4usize), 1..80),
        ) {
            let rate = rate(per_second);
            let budget = Budget::new(usize::MAX, Some(rate));
            let mut now = SECOND;
            let mut begun: Vec<u64> = Vec::new();
            for (doublings, part, wanted) in steps {
                // Steps from nothing to a thousand intervals, most of them near one.
                let step = (u128::from(rate.interval) * u128::from(part)) >> doublings.saturating_sub(3);
                now += u64::try_from(step).unwrap();
                let granted = begin(&budget, wanted, now);
                begun.extend(std::iter::repeat_n(now, granted));
                let allowed = |span: u64| span / rate.interval + rate.burst;
                let over = |more: u64| {
                    begun.iter().enumerate().any(|(first, begin)| {
                        (begun.len() - first) as u64 + more > allowed(now - begin)
                    })
                };
                prop_assert!(!over(0), "{} at {now}", begun.len());
                if granted < wanted {
                    prop_assert!(over(1), "refused, though one more may begin");
                }
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let most = per_second * ((now - SECOND) as f64 / 1e9) + rate.burst as f64;
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let count = begun.len() as f64;
                prop_assert!(count <= most + 1e-3, "{count} > {most}");
            }
        }

        /// E19: however the clock jumps, each jump ahead is worth one burst at most.
        #[test]
        fn e19_a_jump_is_worth_no_more_than_a_burst(
            per_second in per_second(),
            jumps in prop::collection::vec((any::<bool>(), 0..1u64 << 40), 1..40),
        ) {
            let rate = rate(per_second);
            let budget = Budget::new(usize::MAX, Some(rate));
            let (mut now, mut begun, mut ahead) = (1u64 << 50, 0, 1);
            for (back, by) in jumps {
                now = if back { now.saturating_sub(by) } else { now + by };
                ahead += u64::from(!back);
                begun += begin(&budget, usize::MAX, now) as u64;
                prop_assert!(begun <= ahead * rate.burst);
            }
        }
    }

    #[test]
    fn e19_many_threads_begin_no_more_than_one_would() {
        let budget = Budget::new(usize::MAX, Some(rate(1_000.0)));
        let begun = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..1_000 {
                        begun.fetch_add(begin(&budget, 1, SECOND), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(begun.load(Ordering::SeqCst), 100);
        assert_eq!(budget.running.load(Ordering::SeqCst), 0);
    }
}
