//! What an invalidation makes of an entry: nothing, an older one, or none (law T1).

use crate::adapters::tagged::known::Instants;
use crate::entry::Lifetime;
use crate::time::Timestamp;

/// What an entry counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What it is.
    Valid,
    /// No longer fresh: the same entry with this lifetime.
    Aged(Lifetime),
    /// Nothing.
    Absent,
    /// The tag store has to be asked.
    Unknown,
}

/// An entry of this life, by all that is known of its tags together, for a reader at `now`.
pub(crate) fn verdict(life: Lifetime, instants: Instants, now: impl FnOnce() -> Timestamp) -> Verdict {
    let reaches = |instant: Option<Timestamp>| instant.filter(|instant| life.created_at() <= *instant);
    if reaches(instants.removed).is_some() {
        return Verdict::Absent;
    }
    if !instants.asked {
        return Verdict::Unknown;
    }
    match reaches(instants.expired) {
        None => Verdict::Valid,
        Some(expired) => life.not_fresh_at(expired, now()).map_or(Verdict::Absent, Verdict::Aged),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Freshness;
    use crate::testkit::lifetimes;

    proptest! {
        /// T1, C9.
        #[test]
        fn t1_what_was_expired_is_not_fresh_and_its_windows_keep_their_length(
            life in lifetimes(), expired in 1..300u64, now in 1..300u64,
        ) {
            let (expired, now) = (Timestamp::from_nanos(expired), Timestamp::from_nanos(now));
            let view = life.not_fresh_at(expired, now).unwrap();
            prop_assert!(view.freshness(now) > Freshness::Fresh);
            prop_assert!(view.created_at() <= life.created_at());
            prop_assert!(view.fresh_until() <= life.fresh_until());
            prop_assert!(view.keep_until() <= life.keep_until());
            if !life.stale_until().is_never() && life.fresh_until() >= expired.min(now) {
                let window = |life: Lifetime| life.stale_until().since(life.fresh_until());
                prop_assert_eq!(window(view), window(life));
            }
        }
    }

    #[test]
    fn t1_an_expired_entry_without_windows_is_dead() {
        let at = Timestamp::from_nanos;
        let life = Lifetime::new(at(5), at(50), at(50), at(50));
        assert_eq!(life.not_fresh_at(at(7), at(7)).unwrap().freshness(at(7)), Freshness::Dead);
        assert_eq!(life.not_fresh_at(at(0), at(7)), None);
    }
}
