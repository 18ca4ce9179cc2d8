//! How long a value lives, and how an entry is judged.

use std::time::Duration;

use crate::cache::ahead::Rule;
use crate::cache::budget::Rate;
use crate::cache::computed::{Keep, Terms, Ttl};
use crate::cache::trouble::Trouble;
use crate::describe::{Description, grouped};
use crate::entry::{Freshness, Lifetime};
use crate::time::Timestamp;

/// How long a computation may take, unless told.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// How many refreshes may run at once, unless told.
pub(crate) const MAX_REFRESHES: usize = 64;
/// By how much the clocks of hosts may differ, unless told.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// What a cache was built to do. Checked by the builder; nothing in here can fail.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) bypass: bool,
    pub(crate) ttl: Ttl,
    pub(crate) stale: Duration,
    pub(crate) keep: Keep,
    pub(crate) jitter: Jitter,
    pub(crate) ahead: Option<Rule>,
    pub(crate) skew: Duration,
    pub(crate) strict: bool,
    /// For how long a single load waits for company, and how many are loaded by one call.
    pub(crate) gather: Option<(Duration, usize)>,
    pub(crate) trouble: Trouble,
    pub(crate) load_timeout: Duration,
    pub(crate) refresh_timeout: Duration,
    pub(crate) max_refreshes: usize,
    pub(crate) refreshes: Option<Rate>,
}

impl Policy {
    /// The lifetime of a value whose computation began and ended at these instants: deadlines count from
    /// the end (E13). `chance` is uniform and spreads the deadlines by the jitter.
    #[inline]
    pub(crate) fn lifetime(
        &self,
        began: Timestamp,
        ended: Timestamp,
        terms: &Terms,
        chance: u64,
    ) -> Lifetime {
        let ttl = match terms.ttl.unwrap_or(self.ttl) {
            Ttl::Never => return Lifetime::forever(began),
            Ttl::For(ttl) => self.jitter.shorten(ttl, chance),
        };
        let fresh_until = ended.saturating_add(ttl);
        let stale_until = fresh_until.saturating_add(terms.stale.unwrap_or(self.stale));
        let keep_until = match terms.keep.unwrap_or(self.keep) {
            Keep::No => stale_until,
            Keep::For(age) => fresh_until.saturating_add(age),
            Keep::Forever => Timestamp::MAX,
        };
        Lifetime::new(began, fresh_until, stale_until, keep_until)
    }

    /// The settings, for people: the lifetimes, and whatever is not as it is unless told.
    pub(crate) fn describe(&self, layer: Description) -> Description {
        let unless = |usual: Duration, set: Duration| (set != usual).then(|| format!("{set:?}"));
        let ttl = match self.ttl {
            Ttl::For(ttl) => ("ttl", Some(format!("{ttl:?}"))),
            Ttl::Never => ("no expiration", Some(String::new())),
        };
        let keep = match self.keep {
            Keep::No => None,
            Keep::For(age) => Some(format!("{age:?}")),
            Keep::Forever => Some("for ever".to_owned()),
        };
        let ahead = match self.ahead {
            Some(Rule::Fraction(fraction)) => ("refresh_ahead", Some(fraction.told().to_string())),
            Some(Rule::Cost(beta)) => ("refresh_ahead_by_cost", Some(beta.to_string())),
            None => ("refresh_ahead", None),
        };
        let settings = [
            ("bypass", self.bypass.then(String::new)),
            ttl,
            ("stale", unless(Duration::ZERO, self.stale)),
            ("stale on error", keep),
            ("jitter", (self.jitter != Jitter::default()).then(|| format!("{} %", self.jitter.percent()))),
            ahead,
            ("strict", self.strict.then(String::new)),
            ("gather", self.gather.map(|(window, most)| format!("{window:?} or {}", grouped(most as u64)))),
            ("load_timeout", unless(TIMEOUT, self.load_timeout)),
            ("refresh_timeout", unless(TIMEOUT, self.refresh_timeout)),
            (
                "max_refreshes",
                (self.max_refreshes != MAX_REFRESHES).then(|| grouped(self.max_refreshes as u64)),
            ),
            ("refreshes_per_second", self.refreshes.map(|rate| rate.per_second().to_string())),
            ("clock_skew", unless(CLOCK_SKEW, self.skew)),
        ];
        let told = settings
            .into_iter()
            .chain(self.trouble.describe())
            .filter_map(|(name, value)| Some((name, value?)));
        told.fold(layer, |layer, (name, value)| layer.with(name, value))
    }

    /// Whether a failed computation may be answered with an entry of this life: within its windows (E2),
    /// or for as long as it was to be kept for that case (E8).
    pub(crate) fn serves_on_error(&self, life: Lifetime, now: Timestamp) -> bool {
        match self.judge(life, now) {
            Freshness::Fresh | Freshness::Stale => true,
            // Expired by age: then somebody asked to keep it. Else it is from the future (E12).
            Freshness::Expired => self.keep != Keep::No || life.freshness(now) == Freshness::Expired,
            Freshness::Dead => false,
        }
    }

    /// What an entry is good for at `now`. One that claims to come from the future, by more than hosts may
    /// differ, cannot tell how much of its life is left: it serves only when a computation fails (E12).
    #[inline]
    pub(crate) fn judge(&self, life: Lifetime, now: Timestamp) -> Freshness {
        let freshness = life.freshness(now);
        if life.created_at() > now.saturating_add(self.skew) && !life.fresh_until().is_never() {
            return freshness.max(Freshness::Expired);
        }
        freshness
    }
}

/// By how much lifetimes are spread: a fraction, in units of 2^-32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// `None` unless the fraction is a number from 0 to 1.
    pub(crate) fn of(fraction: f64) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= fraction <= 1")]
        (0.0..=1.0).contains(&fraction).then_some(Self((fraction * 4_294_967_296.0) as u64))
    }

    fn percent(self) -> u64 {
        (self.0 * 100) >> 32
    }

    /// The most that it takes of a ttl.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn most_of(self, ttl: Duration) -> Duration {
        whole((ttl.as_nanos() * u128::from(self.0)) >> 32)
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    fn shorten(self, ttl: Duration, chance: u64) -> Duration {
        if self.is_none() {
            return ttl;
        }
        // At most 2^96 * 2^32: the product of a duration in nanoseconds and a fraction fits.
        let most = (ttl.as_nanos() * u128::from(self.0)) >> 32;
        let cut = (most >> 32) * u128::from(chance >> 32)
            + (((most & 0xffff_ffff) * u128::from(chance >> 32)) >> 32);
        ttl.saturating_sub(whole(cut))
    }
}

/// A length in nanoseconds, which may be more of them than a `u64` holds.
fn whole(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).unwrap_or(u64::MAX);
    Duration::new(seconds, (nanos % SECOND) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> Policy {
        Policy {
            bypass: false,
            ttl: Ttl::For(SECOND),
            stale: 2 * SECOND,
            keep: Keep::No,
            jitter: Jitter::default(),
            ahead: None,
            skew: SECOND,
            strict: false,
            gather: None,
            trouble: Trouble::default(),
            load_timeout: SECOND,
            refresh_timeout: SECOND,
            max_refreshes: 1,
            refreshes: None,
        }
    }

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn e13_deadlines_count_from_the_end_and_age_from_the_beginning() {
        let life = policy().lifetime(at(5), at(7), &Terms::default(), 0);
        assert_eq!(life, Lifetime::new(at(5), at(1_000_000_007), at(3_000_000_007), at(3_000_000_007)));
    }

    #[test]
    fn e8_the_time_an_entry_is_kept_counts_from_the_end_of_freshness() {
        let keep =
            |keep| Policy { keep, ..policy() }.lifetime(at(0), at(0), &Terms::default(), 0).keep_until();
        assert_eq!(keep(Keep::For(10 * SECOND)), at(11_000_000_000));
        assert_eq!(keep(Keep::For(SECOND)), at(3_000_000_000), "never shorter than the stale window");
        assert_eq!(keep(Keep::Forever), Timestamp::MAX);
    }

    #[test]
    fn e12_an_entry_from_the_future_is_not_fresh() {
        let policy = policy();
        let life = policy.lifetime(at(10_000_000_000), at(10_000_000_000), &Terms::default(), 0);
        assert_eq!(policy.judge(life, at(9_000_000_000)), Freshness::Fresh, "within the skew");
        assert_eq!(policy.judge(life, at(8_999_999_999)), Freshness::Expired);
        assert_eq!(policy.judge(Lifetime::forever(at(u64::MAX / 2)), at(0)), Freshness::Fresh);
    }

    #[test]
    fn jitter_shortens_the_longest_ttl_by_no_more_than_its_fraction() {
        for ttl in [Duration::from_secs(1_000 * 365 * 86_400), Duration::MAX] {
            let jitter = Jitter::of(0.5).unwrap();
            assert!(jitter.shorten(ttl, u64::MAX) >= ttl / 2, "{ttl:?}");
            assert!(jitter.shorten(ttl, u64::MAX / 2) >= ttl / 4 * 3, "{ttl:?}");
            assert_eq!(jitter.shorten(ttl, 0), ttl);
            assert_eq!(jitter.most_of(ttl), ttl / 2);
        }
    }

    proptest! {
        #[test]
        fn jitter_only_shortens_and_by_no_more_than_its_fraction(
            nanos in any::<u64>(), chance in any::<u64>(), fraction in 0.0..=1.0f64,
        ) {
            let ttl = Duration::from_nanos(nanos);
            let shortened = Jitter::of(fraction).unwrap().shorten(ttl, chance);
            prop_assert!(shortened <= ttl);
            prop_assert!(shortened.as_secs_f64() >= ttl.as_secs_f64() * (1.0 - fraction) * 0.999_999 - 1e-6);
        }

        #[test]
        fn no_lifetime_overflows(began in any::<u64>(), ended in any::<u64>(), chance in any::<u64>()) {
            let policy = Policy { ttl: Ttl::For(Duration::MAX), stale: Duration::MAX,
                keep: Keep::For(Duration::MAX), jitter: Jitter::of(1.0).unwrap(), ..policy() };
            let life = policy.lifetime(at(began), at(ended), &Terms::default(), chance);
            prop_assert!(life.created_at() <= life.fresh_until());
        }
    }

    #[test]
    fn a_fraction_is_a_number_from_zero_to_one() {
        for wrong in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            assert_eq!(Jitter::of(wrong), None);
        }
    }
}
