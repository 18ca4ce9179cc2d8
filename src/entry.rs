//! What a store holds: a value, four instants, and now and then a version and tags.

use std::sync::Arc;
use std::time::Duration;

use crate::time::Timestamp;

/// How usable an entry is at an instant. Only the engine asks (law S2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// `now <= fresh_until`: served as it is.
    Fresh,
    /// `fresh_until < now <= stale_until`: served at once, while one refresh runs.
    Stale,
    /// `stale_until < now <= keep_until`: served only when a computation failed.
    Expired,
    /// `keep_until < now`: nobody may serve it, and a store may drop it.
    Dead,
}

/// The four instants of an entry, always in order:
/// `created_at <= fresh_until <= stale_until <= keep_until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lifetime {
    created_at: Timestamp,
    fresh_until: Timestamp,
    stale_until: Timestamp,
    keep_until: Timestamp,
}

impl Lifetime {
    /// The lifetime with these instants; one that stands before its predecessor is moved up to it.
    pub fn new(
        created_at: Timestamp,
        fresh_until: Timestamp,
        stale_until: Timestamp,
        keep_until: Timestamp,
    ) -> Self {
        let fresh_until = fresh_until.max(created_at);
        let stale_until = stale_until.max(fresh_until);
        let keep_until = keep_until.max(stale_until);
        Self { created_at, fresh_until, stale_until, keep_until }
    }

    /// Fresh for ever.
    pub fn forever(created_at: Timestamp) -> Self {
        Self::new(created_at, Timestamp::MAX, Timestamp::MAX, Timestamp::MAX)
    }

    /// When the computation of the value began: the value can be no older than this.
    pub const fn created_at(self) -> Timestamp {
        self.created_at
    }

    /// The last instant at which the value is fresh.
    pub const fn fresh_until(self) -> Timestamp {
        self.fresh_until
    }

    /// The last instant at which the value may be served stale.
    pub const fn stale_until(self) -> Timestamp {
        self.stale_until
    }

    /// The last instant at which the value may be served at all.
    pub const fn keep_until(self) -> Timestamp {
        self.keep_until
    }

    /// Where `now` stands among the deadlines. Each deadline itself still belongs to the time before it.
    #[inline]
    pub fn freshness(self, now: Timestamp) -> Freshness {
        if now <= self.fresh_until {
            Freshness::Fresh
        } else if now <= self.stale_until {
            Freshness::Stale
        } else if now <= self.keep_until {
            Freshness::Expired
        } else {
            Freshness::Dead
        }
    }

    /// This lifetime, fresh until `cap` at most. The three deadlines move earlier together, so that the
    /// windows between them keep their lengths (law C9); an unbounded window stays unbounded.
    #[must_use = "a lifetime is a value; this returns another"]
    pub fn capped(self, cap: Timestamp) -> Self {
        if self.fresh_until <= cap {
            return self;
        }
        let after = |deadline: Timestamp| match (deadline.is_never(), self.fresh_until.is_never()) {
            (true, false) => Timestamp::MAX,
            _ => cap.saturating_add(deadline.since(self.fresh_until)),
        };
        Self::new(self.created_at, cap, after(self.stale_until), after(self.keep_until))
    }
}

impl Lifetime {
    /// This lifetime, not fresh at `expired` nor at `now` (law T1): a deadline belongs to the time before it,
    /// so it is moved to the nanosecond before either, and the others with it; and so is the creation of what
    /// is no older. `None` at the epoch, which nothing comes before.
    pub(crate) fn not_fresh_at(self, expired: Timestamp, now: Timestamp) -> Option<Self> {
        // A reader at the epoch does not care for freshness (`Chain::get`).
        let first = if now == Timestamp::EPOCH { expired } else { expired.min(now) };
        let cap = Timestamp::from_nanos(first.as_nanos().checked_sub(1)?);
        Some(Self { created_at: self.created_at.min(cap), ..self }.capped(cap))
    }
}

/// A value with its lifetime, and what else travels with it.
///
/// As cheap to clone as its value: the rare parts (version, tags) are one shared pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<V> {
    value: V,
    lifetime: Lifetime,
    rare: Option<Arc<Rare>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rare {
    version: Option<Arc<str>>,
    tags: Box<[Arc<str>]>,
}

impl<V> Entry<V> {
    /// An entry with this value and lifetime, without version or tags.
    pub const fn new(value: V, lifetime: Lifetime) -> Self {
        Self { value, lifetime, rare: None }
    }

    /// Fresh for `ttl` after `created_at`, then dead: no stale window, kept no longer.
    pub fn fresh_for(value: V, created_at: Timestamp, ttl: Duration) -> Self {
        let until = created_at.saturating_add(ttl);
        Self::new(value, Lifetime::new(created_at, until, until, until))
    }

    /// The same entry with this version: a validator such as an ETag, opaque to larder.
    #[must_use = "this returns the entry with the version"]
    pub fn with_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.rare_mut().version = Some(version.into());
        self
    }

    /// The same entry with exactly these tags, in this order.
    #[must_use = "this returns the entry with the tags"]
    pub fn with_tags<T: Into<Arc<str>>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        let tags: Box<[Arc<str>]> = tags.into_iter().map(Into::into).collect();
        if !tags.is_empty() || self.version().is_some() {
            self.rare_mut().tags = tags;
        } else {
            // Equal entries look alike: without either there is no rare part.
            self.rare = None;
        }
        self
    }

    /// The same entry with another lifetime.
    #[must_use = "this returns the entry with the lifetime"]
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// The value.
    pub const fn value(&self) -> &V {
        &self.value
    }

    /// The value, without the rest.
    pub fn into_value(self) -> V {
        self.value
    }

    /// The four instants.
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// When the computation of the value began.
    pub const fn created_at(&self) -> Timestamp {
        self.lifetime.created_at
    }

    /// The validator that the value came with, if any.
    pub fn version(&self) -> Option<&Arc<str>> {
        self.rare.as_ref()?.version.as_ref()
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> &[Arc<str>] {
        self.rare.as_ref().map_or(&[], |rare| &rare.tags)
    }

    /// Where `now` stands among the deadlines.
    #[inline]
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        self.lifetime.freshness(now)
    }

    /// The same entry around another value, in two halves, so that the change of value may fail.
    pub fn split(self) -> (V, Entry<()>) {
        (self.value, Entry { value: (), lifetime: self.lifetime, rare: self.rare })
    }

    /// The same entry around what `change` makes of the value.
    pub fn map<W>(self, change: impl FnOnce(V) -> W) -> Entry<W> {
        Entry { value: change(self.value), lifetime: self.lifetime, rare: self.rare }
    }

    /// A copy of the entry around what `change` makes of the borrowed value.
    pub fn map_ref<W>(&self, change: impl FnOnce(&V) -> W) -> Entry<W> {
        Entry { value: change(&self.value), lifetime: self.lifetime, rare: self.rare.clone() }
    }

    fn rare_mut(&mut self) -> &mut Rare {
        Arc::make_mut(self.rare.get_or_insert_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instant() -> impl Strategy<Value = Timestamp> {
        prop_oneof![
            Just(Timestamp::EPOCH),
            Just(Timestamp::MAX),
            (0..100u64).prop_map(Timestamp::from_nanos),
            any::<u64>().prop_map(Timestamp::from_nanos),
        ]
    }

    fn lifetime() -> impl Strategy<Value = Lifetime> {
        (instant(), instant(), instant(), instant()).prop_map(|(c, f, s, k)| Lifetime::new(c, f, s, k))
    }

    proptest! {
        #[test]
        fn instants_are_always_in_order(life in lifetime(), cap in instant()) {
            for life in [life, life.capped(cap)] {
                prop_assert!(life.created_at() <= life.fresh_until());
                prop_assert!(life.fresh_until() <= life.stale_until());
                prop_assert!(life.stale_until() <= life.keep_until());
            }
        }

        /// C9: a tier may serve its copy for less, never for longer, and the windows keep their length.
        #[test]
        fn a_cap_moves_the_deadlines_together(life in lifetime(), cap in instant()) {
            let capped = life.capped(cap);
            prop_assert!(capped.fresh_until() <= life.fresh_until());
            prop_assert!(capped.stale_until() <= life.stale_until());
            prop_assert!(capped.keep_until() <= life.keep_until());
            prop_assert!(capped.fresh_until() <= cap.max(life.created_at()));
            if cap >= life.created_at() && !life.keep_until().is_never() {
                prop_assert_eq!(
                    capped.stale_until().since(capped.fresh_until()),
                    life.stale_until().since(life.fresh_until())
                );
                prop_assert_eq!(
                    capped.keep_until().since(capped.fresh_until()),
                    life.keep_until().since(life.fresh_until())
                );
            }
        }

        #[test]
        fn each_deadline_belongs_to_the_time_before_it(life in lifetime()) {
            prop_assert_eq!(life.freshness(life.fresh_until()), Freshness::Fresh);
            prop_assert!(life.freshness(life.stale_until()) <= Freshness::Stale);
            prop_assert!(life.freshness(life.keep_until()) <= Freshness::Expired);
            if !life.keep_until().is_never() {
                let after = life.keep_until().saturating_add(Duration::from_nanos(1));
                prop_assert_eq!(life.freshness(after), Freshness::Dead);
            }
        }
    }

    #[test]
    fn an_entry_costs_its_value_four_instants_and_a_pointer() {
        assert_eq!(size_of::<Entry<u64>>(), 8 + 4 * 8 + 8);
    }

    #[test]
    fn no_tags_cost_nothing() {
        let entry = Entry::new(1, Lifetime::forever(Timestamp::EPOCH)).with_tags(Vec::<String>::new());
        assert!(entry.rare.is_none());
        assert_eq!(entry.clone().with_tags(["a"]).with_tags(Vec::<String>::new()), entry);
    }
}
