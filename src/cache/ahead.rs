//! When a fresh entry is refreshed early, before its freshness ends (E18).

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::entry::Lifetime;
use crate::time::Timestamp;

/// No two early refreshes of one entry begin within this time, so that a failing origin is not asked on each hit.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);

/// Which fresh entries are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// Those that are past this fraction of their lifetime.
    Fraction(Fraction),
    /// Those whose load might not end in time, by chance: `now + cost * beta * -ln(u) >= fresh_until`.
    Cost(f64),
}

impl Rule {
    /// `None` unless the fraction lies between 0 and 1.
    pub(crate) fn fraction(fraction: f64) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; saturates")]
        let left = |fraction: f64| ((1.0 - fraction) * 18_446_744_073_709_551_616.0) as u64;
        (fraction > 0.0 && fraction < 1.0)
            .then(|| Self::Fraction(Fraction { told: fraction, left: left(fraction) }))
    }

    /// `None` unless it is a positive number.
    pub(crate) fn cost(beta: f64) -> Option<Self> {
        (beta > 0.0 && beta.is_finite()).then_some(Self::Cost(beta))
    }
}

/// A fraction of a lifetime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fraction {
    told: f64,
    /// What is left after it, in units of 2^-64.
    left: u64,
}

impl Fraction {
    pub(crate) const fn told(self) -> f64 {
        self.told
    }

    /// How long before the end of a lifetime of so many nanoseconds an entry becomes due, to the nearest nanosecond.
    #[inline]
    const fn lead(self, lifetime: u64) -> u64 {
        // At most (2^64 - 1)^2 + 2^63, which fits.
        ((lifetime as u128 * self.left as u128 + (1 << 63)) >> 64) as u64
    }
}

/// What a cache needs to refresh early.
#[derive(Debug)]
pub(crate) struct Ahead {
    rule: Rule,
    /// Nanoseconds. The lifetime that counts is no longer than this, although an entry's age counts from the
    /// beginning of its load and its deadline from the end.
    ttl: u64,
    chance: FixedState,
    quiet: Quiet,
    costs: Option<Costs>,
}

impl Ahead {
    /// `chance` decides what is left to chance: a hash of key and instant is all the randomness.
    pub(crate) fn new(rule: Rule, ttl: Duration, chance: FixedState) -> Self {
        let costs = matches!(rule, Rule::Cost(_)).then(Costs::new);
        let ttl = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        Self { rule, ttl, chance, quiet: Quiet::new(), costs }
    }

    /// Whether a fresh entry is to be refreshed now: it is due, and was not tried a moment ago.
    #[inline]
    pub(crate) fn wants<K: Hash + ?Sized>(&self, key: &K, life: Lifetime, now: Timestamp) -> bool {
        self.is_due(key, life, now) && !self.quiet.covers(self.hash(key, life), now)
    }

    /// Whether a fresh entry is due: by fraction when less of its life is left than the fraction leaves, so that
    /// the instant at which exactly that is left is not due yet. What never expires is never due.
    #[inline]
    pub(crate) fn is_due<K: Hash + ?Sized>(&self, key: &K, life: Lifetime, now: Timestamp) -> bool {
        let fresh_until = life.fresh_until();
        if fresh_until.is_never() {
            return false;
        }
        let left = fresh_until.as_nanos().saturating_sub(now.as_nanos());
        match (self.rule, &self.costs) {
            (Rule::Fraction(fraction), _) => left < fraction.lead(self.lifetime(life)),
            (Rule::Cost(beta), Some(costs)) => {
                // Whatever the chance: not even the dearest load takes so long.
                costs.most() * beta * FURTHEST >= micros(left) && self.draws(costs, beta, key, left, now)
            }
            (Rule::Cost(_), None) => false,
        }
    }

    /// A refresh of this entry begins early.
    pub(crate) fn begins<K: Hash + ?Sized>(&self, key: &K, life: Lifetime, now: Timestamp) {
        self.quiet.cover(self.hash(key, life), now.saturating_add(PAUSE));
    }

    /// This entry was found in a deeper tier and is not due: a copy that a tier above serves for less (C9) is due
    /// no sooner.
    pub(crate) fn found<K: Hash + ?Sized>(&self, key: &K, life: Lifetime, now: Timestamp) {
        let until = match self.rule {
            Rule::Fraction(fraction) => Self::before_end(life, fraction.lead(self.lifetime(life))),
            Rule::Cost(_) => now.saturating_add(PAUSE),
        };
        self.quiet.cover(self.hash(key, life), until);
    }

    /// This entry was computed and its load has ended. If that took so long that it would be due at once (with a
    /// ttl of its own, or jitter), the fraction counts from here.
    pub(crate) fn born<K: Hash + ?Sized>(&self, key: &K, life: Lifetime, ended: Timestamp) {
        if let Rule::Fraction(fraction) = self.rule
            && self.is_due(key, life, ended)
        {
            let left = life.fresh_until().as_nanos().saturating_sub(ended.as_nanos());
            self.quiet.cover(self.hash(key, life), Self::before_end(life, fraction.lead(left)));
        }
    }

    /// A load of `key` ended well after this time.
    pub(crate) fn measured<K: Hash + ?Sized>(&self, key: &K, took: Duration) {
        if let Some(costs) = &self.costs {
            costs.add(self.chance.hash_one(key), took);
        }
    }

    fn lifetime(&self, life: Lifetime) -> u64 {
        life.fresh_until().as_nanos().saturating_sub(life.created_at().as_nanos()).min(self.ttl)
    }

    /// The first instant at which less than `lead` is left.
    fn before_end(life: Lifetime, lead: u64) -> Timestamp {
        Timestamp::from_nanos(life.fresh_until().as_nanos().saturating_sub(lead).saturating_add(1))
    }

    /// XFetch: the dearer the load and the nearer the deadline, the likelier. One draw per key and instant.
    #[cold]
    fn draws<K: Hash + ?Sized>(&self, costs: &Costs, beta: f64, key: &K, left: u64, now: Timestamp) -> bool {
        let reach = costs.of(self.chance.hash_one(key)) * beta;
        let left = micros(left);
        // -ln(u) of the least u there is decides most cases without a logarithm.
        reach > 0.0
            && reach * FURTHEST >= left
            && reach * -unit(self.chance.hash_one((now, key))).ln() >= left
    }

    fn hash<K: Hash + ?Sized>(&self, key: &K, life: Lifetime) -> u64 {
        self.chance.hash_one((key, life.created_at()))
    }
}

/// `-ln(2^-53)`, rounded up: the furthest that a draw reaches.
const FURTHEST: f64 = 36.737;

/// A number above 0 and up to 1, in steps of 2^-53.
#[expect(clippy::cast_precision_loss, reason = "2^53 at most")]
fn unit(chance: u64) -> f64 {
    ((chance >> 11) + 1) as f64 / 9_007_199_254_740_992.0
}

#[expect(clippy::cast_precision_loss, reason = "nobody waits for centuries to the nanosecond")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// Entries that are left alone for a while, in 128 KiB whatever happens: 16,384 places by a hash of key and
/// `created_at`. Who comes to a place takes it; an entry that lost its place is due again.
#[derive(Debug)]
struct Quiet(Box<[AtomicU64]>);

/// The low bits of a place: which entry it is for. The rest is an instant.
const TAG: u64 = 0xffff;

impl Quiet {
    fn new() -> Self {
        Self((0..1 << 14).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.0[(hash >> 50) as usize]
    }

    /// Until this instant, or up to 65,536 ns longer.
    fn cover(&self, hash: u64, until: Timestamp) {
        let until = until.as_nanos().saturating_add(TAG) & !TAG;
        self.place(hash).store(until | (hash & TAG), Ordering::Relaxed);
    }

    fn covers(&self, hash: u64, now: Timestamp) -> bool {
        let held = self.place(hash).load(Ordering::Relaxed);
        held & TAG == hash & TAG && now.as_nanos() < held & !TAG
    }
}

/// How long loads take: microseconds, 71 minutes at most, in 256 KiB whatever happens: 65,536 places by a hash of
/// the key. Keys that share a place are measured as one.
#[derive(Debug)]
struct Costs {
    places: Box<[AtomicU32]>,
    /// Of all loads, for keys that were never measured; 0 if there was none.
    average: AtomicU32,
    most: AtomicU32,
}

impl Costs {
    fn new() -> Self {
        let places = (0..1 << 16).map(|_| AtomicU32::new(0)).collect();
        Self { places, average: AtomicU32::new(0), most: AtomicU32::new(0) }
    }

    fn place(&self, hash: u64) -> &AtomicU32 {
        &self.places[(hash >> 48) as usize]
    }

    /// A new measurement counts a quarter in its place, and a sixty-fourth in the average.
    fn add(&self, hash: u64, took: Duration) {
        // Zero is for what was never measured; a coarse clock measures it where a load took a part of a tick.
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        blend(self.place(hash), took, 2);
        blend(&self.average, took, 6);
        self.most.fetch_max(took, Ordering::Relaxed);
    }

    fn of(&self, hash: u64) -> f64 {
        let own = self.place(hash).load(Ordering::Relaxed);
        f64::from(if own > 0 { own } else { self.average.load(Ordering::Relaxed) })
    }

    fn most(&self) -> f64 {
        f64::from(self.most.load(Ordering::Relaxed))
    }
}

/// Moves a mean towards a measurement by a part of 2^-shift. The first one is the mean.
fn blend(mean: &AtomicU32, measured: u32, shift: u32) {
    let towards = |mean: u32| {
        let step = (i64::from(measured) - i64::from(mean)) >> shift;
        let blended = if mean == 0 { i64::from(measured) } else { i64::from(mean) + step };
        Some(u32::try_from(blended).unwrap_or(u32::MAX).max(1))
    };
    // It never refuses.
    let _ = mean.fetch_update(Ordering::Relaxed, Ordering::Relaxed, towards);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn life(created: u64, fresh: u64) -> Lifetime {
        Lifetime::new(at(created), at(fresh), at(fresh), at(fresh))
    }

    fn ahead(rule: Rule, ttl: u64) -> Ahead {
        Ahead::new(rule, Duration::from_nanos(ttl), FixedState::with_seed(1))
    }

    fn by_fraction(fraction: f64, ttl: u64) -> Ahead {
        ahead(Rule::fraction(fraction).unwrap(), ttl)
    }

    #[test]
    fn a_fraction_lies_between_0_and_1_and_beta_is_positive() {
        for wrong in [0.0, 1.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Rule::fraction(wrong), None, "{wrong}");
        }
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Rule::cost(wrong), None, "{wrong}");
        }
        assert!(Rule::fraction(f64::MIN_POSITIVE).is_some() && Rule::cost(f64::MAX).is_some());
    }

    /// E18: exactly what the fraction leaves is not due, a nanosecond less is.
    #[test]
    fn e18_the_boundary_by_fraction_is_exact() {
        for (fraction, ttl, left) in [
            (0.8, 60 * SECOND, 12 * SECOND),
            (0.5, 3, 2),
            (0.9, 3600 * SECOND, 360 * SECOND),
            (0.75, 1, 0),
            (0.1, 10, 9),
        ] {
            let ahead = by_fraction(fraction, ttl);
            let life = life(7, 7 + ttl);
            assert!(!ahead.is_due("k", life, at(7)), "at birth");
            assert!(!ahead.is_due("k", life, at(7 + ttl - left)), "{fraction} of {ttl}");
            if left > 0 {
                assert!(ahead.is_due("k", life, at(7 + ttl - left + 1)), "{fraction} of {ttl}");
            }
        }
    }

    #[test]
    fn e18_what_never_expires_is_never_due() {
        for ahead in [by_fraction(0.01, SECOND), ahead(Rule::cost(1e300).unwrap(), SECOND)] {
            ahead.measured("k", Duration::MAX);
            for now in [0, SECOND, u64::MAX] {
                assert!(!ahead.is_due("k", Lifetime::forever(at(0)), at(now)));
            }
        }
    }

    /// E18: a load that takes longer than the ttl counts into the age, and makes nothing due at birth.
    #[test]
    fn e18_a_slow_load_makes_nothing_due_at_birth() {
        let ahead = by_fraction(0.5, 10 * SECOND);
        let slow = life(0, 110 * SECOND);
        assert!(!ahead.wants("k", slow, at(100 * SECOND)));
        assert!(!ahead.wants("k", slow, at(105 * SECOND)));
        assert!(ahead.wants("k", slow, at(105 * SECOND + 1)));
        // With a ttl of its own, of 2 s: what its age says is mended where it was loaded.
        let own = life(0, 102 * SECOND);
        assert!(ahead.wants("k", own, at(100 * SECOND)));
        ahead.born("k", own, at(100 * SECOND));
        assert!(!ahead.wants("k", own, at(101 * SECOND)));
        assert!(ahead.wants("k", own, at(101 * SECOND + 65_537)));
    }

    #[test]
    fn e18_an_entry_is_tried_once_a_second_and_others_meanwhile() {
        let ahead = by_fraction(0.5, 10 * SECOND);
        let (first, second) = (life(0, 10 * SECOND), life(1, 10 * SECOND));
        let now = at(6 * SECOND);
        ahead.begins("k", first, now);
        assert!(ahead.is_due("k", first, now) && !ahead.wants("k", first, now));
        assert!(!ahead.wants("k", first, at(7 * SECOND - 1)));
        assert!(ahead.wants("k", first, at(7 * SECOND + 65_536)));
        assert!(ahead.wants("k", second, now), "another entry of the same key");
        assert!(ahead.wants("l", first, now), "another key");
    }

    #[test]
    fn e18_the_dearer_the_load_and_the_nearer_the_deadline_the_likelier() {
        let ahead = ahead(Rule::cost(1.0).unwrap(), 60 * SECOND);
        assert!(!ahead.is_due("k", life(0, SECOND), at(SECOND)), "no load was ever measured");
        ahead.measured("dear", Duration::from_secs(1));
        ahead.measured("cheap", Duration::from_millis(1));
        let life = life(0, 60 * SECOND);
        let share = |key: &str, left: u64| {
            (0..10_000u64).filter(|more| ahead.is_due(key, life, at(60 * SECOND - left - more))).count()
        };
        // -ln(u) >= left / cost with probability e^(-left / cost).
        let dear = [share("dear", SECOND / 10), share("dear", SECOND), share("dear", 3 * SECOND)];
        for (share, expected) in dear.into_iter().zip([9_048, 3_679, 498]) {
            assert!(share.abs_diff(expected) < 200, "{dear:?}");
        }
        assert_eq!(share("dear", 37 * SECOND), 0, "no draw reaches so far");
        assert_eq!(share("cheap", SECOND / 10), 0);
        assert!(share("cheap", SECOND / 1_000).abs_diff(3_679) < 200);
        // The first measurement is the average, and the second moved it by a sixty-fourth.
        assert!(share("never loaded", SECOND).abs_diff(3_620) < 200);
    }

    #[test]
    fn e18_chance_is_repeatable() {
        let draws = |seed| {
            let ahead = Ahead::new(Rule::Cost(1.0), Duration::from_secs(60), FixedState::with_seed(seed));
            ahead.measured("k", Duration::from_secs(1));
            (0..64).map(|now| ahead.is_due("k", life(0, SECOND), at(now))).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn a_measurement_counts_a_quarter_and_saturates() {
        let costs = Costs::new();
        for (took, expected) in [(100, 100.0), (200, 125.0), (0, 94.0)] {
            costs.add(5, Duration::from_micros(took));
            assert!((costs.of(5) - expected).abs() < 0.5, "{} and not {expected}", costs.of(5));
        }
        costs.add(1 << 60, Duration::MAX);
        assert!((costs.of(1 << 60) - f64::from(u32::MAX)).abs() < 0.5);
        costs.add(1 << 61, Duration::ZERO);
        assert!((costs.of(1 << 61) - 1.0).abs() < 0.5, "less than a tick, and measured");
    }

    #[test]
    fn a_draw_is_above_0_and_reaches_no_further_than_the_furthest() {
        assert!(unit(0) > 0.0 && -unit(0).ln() < FURTHEST);
        assert!(unit(u64::MAX) <= 1.0 && -unit(u64::MAX).ln() >= 0.0);
    }

    #[test]
    fn what_refreshes_early_costs_what_its_documentation_says() {
        let fraction = crate::tests::alloc::bytes_kept(|| std::mem::forget(by_fraction(0.5, 1)));
        assert_eq!(fraction, 128 << 10);
        let cost = crate::tests::alloc::bytes_kept(|| std::mem::forget(ahead(Rule::Cost(1.0), 1)));
        assert_eq!(cost, 384 << 10);
    }

    proptest! {
        #[test]
        fn e18_by_fraction_due_is_the_end_of_a_life_and_nothing_overflows(
            created in any::<u64>(), fresh in any::<u64>(), now in any::<u64>(), ttl in 1..u64::MAX,
            fraction in 0.0001..0.9999f64,
        ) {
            let ahead = by_fraction(fraction, ttl);
            let life = life(created, fresh);
            let length = life.fresh_until().since(at(created)).as_nanos().min(u128::from(ttl));
            let left = life.fresh_until().since(at(now)).as_nanos();
            #[expect(clippy::cast_precision_loss, reason = "compared with room")]
            let (most, left) = (length as f64 * (1.0 - fraction), left as f64);
            let due = ahead.is_due("k", life, at(now));
            if life.fresh_until().is_never() || left > most * 1.000_001 + 1.0 {
                prop_assert!(!due);
            } else if left < most * 0.999_999 - 1.0 {
                prop_assert!(due);
            }
            ahead.born("k", life, at(now));
            ahead.begins("k", life, at(now));
            ahead.found("k", life, at(now));
        }
    }
}
