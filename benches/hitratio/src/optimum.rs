//! The most hits that any cache could get, knowing the future.

use std::collections::BTreeSet;

use crate::trace::Trace;

/// Hits of Belady's MIN (L. A. Belady, IBM Systems Journal 5(2), 1966) with the right not to admit: of what
/// is held and what was just asked for, the one that is needed last goes, or is not kept.
pub(crate) fn hits(trace: &Trace, capacity: usize) -> usize {
    let mut coming = vec![usize::MAX; trace.distinct];
    let mut next = vec![usize::MAX; trace.requests.len()];
    for (place, key) in trace.requests.iter().enumerate().rev() {
        next[place] = std::mem::replace(&mut coming[*key as usize], place);
    }
    // Each key that is held, by the place of its next request.
    let mut held = BTreeSet::new();
    let mut hits = 0;
    for (place, next) in next.into_iter().enumerate() {
        hits += usize::from(held.remove(&place));
        if next != usize::MAX {
            held.insert(next);
            if held.len() > capacity {
                held.pop_last();
            }
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The best of all choices, by trying them.
    fn best(requests: &[u32], held: &BTreeSet<u32>, capacity: usize) -> usize {
        let Some((key, rest)) = requests.split_first() else { return 0 };
        let hit = usize::from(held.contains(key));
        let mut with = held.clone();
        with.insert(*key);
        if with.len() <= capacity {
            return hit + best(rest, &with, capacity);
        }
        let without = |gone: &u32| {
            let mut left = with.clone();
            left.remove(gone);
            hit + best(rest, &left, capacity)
        };
        with.iter().map(without).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_choice_gets_more_hits(requests in prop::collection::vec(0..5u32, 1..10), capacity in 1..4usize) {
            let trace = Trace::new("drawn", requests);
            prop_assert_eq!(hits(&trace, capacity), best(&trace.requests, &BTreeSet::new(), capacity));
        }
    }
}
