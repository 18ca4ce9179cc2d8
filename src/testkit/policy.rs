//! The check of an eviction policy.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::memory::policy::{Policy, Slots};

/// Tries an eviction policy on what every store relies on:
///
/// - `evict` names a slot that is held, and `None` only when none is;
/// - no slot is lost and none is named twice: evicted to the end, each held slot comes once;
/// - a policy asks only for slots that are held;
/// - one `evict` looks at slots a bounded number of times: 64, and 64 for each that is held.
///
/// ```
/// larder::testkit::check_policy::<larder::policy::Sieve>();
/// ```
///
/// # Panics
/// With the shortest history that was found, if the policy breaks one of these, or panics. The cases are the
/// same on every run.
pub fn check_policy<P: Policy>() {
    let config =
        Config { cases: 512, failure_persistence: None, max_shrink_iters: 4_096, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    match runner.run(&prop::collection::vec(step(), 0..200), |steps| judge::<P>(&steps)) {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("the policy could not be tried: {why}"),
        Err(TestError::Fail(why, steps)) => {
            panic!("{} broke its contract: {why}\nby {steps:?}", std::any::type_name::<P>())
        }
    }
}

/// One call of a store to its policy. Which held slot is meant is counted from the oldest slot.
#[derive(Clone, Copy, Debug)]
enum Step {
    Insert { hash: u32 },
    Hit { nth: usize },
    Move { nth: usize },
    Remove { nth: usize },
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    // Few different hashes, so that keys come back while they are remembered.
    let hash = (0..24u32).prop_map(|key| key.wrapping_mul(0x9E37_79B9));
    prop_oneof![
        5 => hash.prop_map(|hash| Step::Insert { hash }),
        3 => (0..64usize).prop_map(|nth| Step::Hit { nth }),
        1 => (0..64usize).prop_map(|nth| Step::Move { nth }),
        1 => (0..64usize).prop_map(|nth| Step::Remove { nth }),
        3 => Just(Step::Evict),
    ]
}

fn judge<P: Policy>(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut shelf = Shelf::<P>::default();
    for step in steps {
        match *step {
            Step::Insert { hash } => drop(shelf.insert(hash)),
            Step::Hit { nth } => shelf.nth(nth).into_iter().for_each(|slot| shelf.hit(slot)),
            Step::Move { nth } => shelf.nth(nth).into_iter().for_each(|slot| shelf.carry(slot)),
            Step::Remove { nth } => shelf.nth(nth).into_iter().for_each(|slot| shelf.remove(slot)),
            Step::Evict => drop(shelf.evict()?),
        }
    }
    while shelf.evict()?.is_some() {}
    Ok(())
}

/// A policy and its slots, without keys and values.
pub(crate) struct Shelf<P: Policy> {
    policy: P,
    rack: Rack<P>,
}

struct Rack<P: Policy> {
    slots: Vec<Option<Item<P>>>,
    held: usize,
    ticks: Cell<u64>,
    looks: Cell<usize>,
}

struct Item<P: Policy> {
    touch: P::Touch,
    mark: P::Mark,
    hash: u32,
}

impl<P: Policy> Default for Shelf<P> {
    fn default() -> Self {
        let rack = Rack { slots: Vec::new(), held: 0, ticks: Cell::new(0), looks: Cell::new(0) };
        Self { policy: P::default(), rack }
    }
}

impl<P: Policy> Shelf<P> {
    /// Fills the first vacant slot, and names it.
    pub(crate) fn insert(&mut self, hash: u32) -> u32 {
        let vacant = self.rack.slots.iter().position(Option::is_none).unwrap_or(self.rack.slots.len());
        if vacant == self.rack.slots.len() {
            self.rack.slots.push(None);
        }
        let item = Item { touch: P::Touch::default(), mark: P::Mark::default(), hash };
        self.rack.slots[vacant] = Some(item);
        self.rack.held += 1;
        let slot = name(vacant);
        self.policy.insert(&mut self.rack, slot);
        slot
    }

    pub(crate) fn hit(&self, slot: u32) {
        P::hit(&self.rack.item(slot).touch, || self.rack.tick());
    }

    /// Moves the entry in a slot elsewhere and back.
    pub(crate) fn carry(&mut self, slot: u32) {
        if let Some(Some(item)) = self.rack.slots.get_mut(slot as usize) {
            item.touch = P::carry(&item.touch);
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.policy.remove(&mut self.rack, slot);
        self.empty(slot);
    }

    /// Evicts, and empties the slot that the policy names.
    pub(crate) fn evict(&mut self) -> Result<Option<u32>, TestCaseError> {
        self.rack.looks.set(0);
        let named = self.policy.evict(&mut self.rack);
        let Some(slot) = named else {
            prop_assert_eq!(self.rack.held, 0, "nothing to evict, while slots are held");
            return Ok(None);
        };
        let held = self.rack.slots.get(slot as usize).is_some_and(Option::is_some);
        prop_assert!(held, "slot {} was named and is not held", slot);
        self.empty(slot);
        Ok(Some(slot))
    }

    fn empty(&mut self, slot: u32) {
        self.rack.slots[slot as usize] = None;
        self.rack.held -= 1;
    }

    fn nth(&self, nth: usize) -> Option<u32> {
        let place = nth.checked_rem(self.rack.held)?;
        (0..).zip(&self.rack.slots).filter(|(_, item)| item.is_some()).map(|(slot, _)| slot).nth(place)
    }
}

impl<P: Policy> Rack<P> {
    fn item(&self, slot: u32) -> &Item<P> {
        match self.slots.get(slot as usize) {
            Some(Some(item)) => item,
            _ => panic!("the policy asked for slot {slot}, which is not held"),
        }
    }

    fn look(&self, slot: u32) -> &Item<P> {
        self.looks.set(self.looks.get() + 1);
        assert!(self.looks.get() <= 64 * (self.held + 1), "the policy looks and looks for a slot to evict");
        self.item(slot)
    }
}

impl<P: Policy> Slots<P> for Rack<P> {
    fn touch(&self, slot: u32) -> &P::Touch {
        &self.look(slot).touch
    }

    fn mark(&self, slot: u32) -> &P::Mark {
        &self.look(slot).mark
    }

    fn mark_mut(&mut self, slot: u32) -> &mut P::Mark {
        self.look(slot);
        match &mut self.slots[slot as usize] {
            Some(item) => &mut item.mark,
            None => unreachable!("it was looked at"),
        }
    }

    fn hash(&self, slot: u32) -> u32 {
        self.look(slot).hash
    }

    fn tick(&self) -> u64 {
        self.ticks.set(self.ticks.get() + 1);
        self.ticks.get()
    }
}

fn name(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::memory::policy::{Adaptive, Lru, S3Fifo, Sieve};

    #[test]
    fn every_rule_keeps_its_contract() {
        check_policy::<Adaptive>();
        check_policy::<Lru>();
        check_policy::<S3Fifo>();
        check_policy::<Sieve>();
    }

    /// A first-in first-out policy with a bug, by number.
    #[derive(Debug, Default)]
    struct Wrong<const BUG: u8>(std::collections::VecDeque<u32>);

    impl<const BUG: u8> Policy for Wrong<BUG> {
        type Touch = ();
        type Mark = ();

        fn hit((): &(), _: impl FnOnce() -> u64) {}

        fn carry((): &()) {}

        fn insert(&mut self, _: &mut impl Slots<Self>, slot: u32) {
            if BUG != 1 || self.0.len() < 3 {
                self.0.push_back(slot);
            }
        }

        fn remove(&mut self, _: &mut impl Slots<Self>, slot: u32) {
            if BUG != 2 {
                self.0.retain(|held| *held != slot);
            }
        }

        fn evict(&mut self, slots: &mut impl Slots<Self>) -> Option<u32> {
            while BUG == 3 && self.0.len() > 4 {
                slots.mark(self.0[0]);
            }
            if BUG == 4 { self.0.front().copied() } else { self.0.pop_front() }
        }
    }

    fn fault<P: Policy>() -> Option<String> {
        let caught = std::panic::catch_unwind(check_policy::<P>).err()?;
        caught.downcast_ref::<String>().cloned()
    }

    #[test]
    fn a_rule_that_is_wrong_is_found_out() {
        assert_eq!(fault::<Wrong<0>>(), None);
        assert!(fault::<Wrong<1>>().is_some_and(|why| why.contains("nothing to evict")), "loses a slot");
        assert!(fault::<Wrong<2>>().is_some_and(|why| why.contains("is not held")), "forgets no slot");
        assert!(fault::<Wrong<3>>().is_some_and(|why| why.contains("looks and looks")), "does not end");
        assert!(fault::<Wrong<4>>().is_some_and(|why| why.contains("is not held")), "names a slot twice");
    }

    /// Keys on a shelf of bounded size: get, and on a miss insert.
    struct Keys<P: Policy> {
        shelf: Shelf<P>,
        slots: HashMap<u32, u32>,
        capacity: usize,
    }

    impl<P: Policy> Keys<P> {
        fn new(capacity: usize) -> Self {
            Self { shelf: Shelf::default(), slots: HashMap::new(), capacity }
        }

        fn ask(&mut self, key: u32) -> bool {
            if let Some(slot) = self.slots.get(&key) {
                self.shelf.hit(*slot);
                return true;
            }
            if self.slots.len() >= self.capacity {
                let gone = self.shelf.evict().unwrap().unwrap();
                self.slots.retain(|_, slot| *slot != gone);
            }
            let slot = self.shelf.insert(key.wrapping_mul(0x9E37_79B9));
            self.slots.insert(key, slot);
            false
        }
    }

    proptest! {
        #[test]
        fn lru_is_exact(keys in prop::collection::vec(0..30u32, 0..400), capacity in 1..20usize) {
            let mut lru = Keys::<Lru>::new(capacity);
            let mut order = Vec::new();
            for key in keys {
                let held = order.iter().position(|other| *other == key);
                prop_assert_eq!(lru.ask(key), held.is_some());
                match held {
                    Some(place) => drop(order.remove(place)),
                    None if order.len() == capacity => drop(order.remove(0)),
                    None => {}
                }
                order.push(key);
            }
        }
    }

    /// Keys that are read often, then a scan ten times as long as the store: how many are still there.
    fn survivors<P: Policy>() -> usize {
        let mut keys = Keys::<P>::new(100);
        for round in 0..40 {
            for key in 0..50 {
                keys.ask(key);
            }
            for once in 0..5 {
                keys.ask(1_000 + 5 * round + once);
            }
        }
        for key in 10_000..11_000 {
            keys.ask(key);
        }
        (0..50).filter(|key| keys.slots.contains_key(key)).count()
    }

    #[test]
    fn a_scan_passes_by() {
        assert_eq!(survivors::<Lru>(), 0);
        assert!(survivors::<Adaptive>() >= 45, "{}", survivors::<Adaptive>());
        assert!(survivors::<S3Fifo>() >= 45, "{}", survivors::<S3Fifo>());
    }

    /// A loop over twice as many keys as there is room for: nearly half of them could be hits.
    #[test]
    fn the_adaptive_rule_keeps_part_of_a_loop() {
        for asked_while_empty in [false, true] {
            let mut keys = Keys::<Adaptive>::new(100);
            if asked_while_empty {
                // As a store does that looks through its shards for one that has something to give up.
                assert_eq!(keys.shelf.evict().unwrap(), None);
            }
            let hits = (0..20 * 200).filter(|step| keys.ask(step % 200)).count();
            assert!(hits > 1_500, "{hits}, asked while empty: {asked_while_empty}");
        }
    }
}
