//! Keys that were given up lately, as fingerprints.

use std::collections::VecDeque;

use hashbrown::HashTable;

/// A first-in first-out set of 32-bit fingerprints. Two keys with one fingerprint are taken for each
/// other, once in four billion times: the wrong one then counts as seen before, and no more.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    order: VecDeque<u32>,
    known: HashTable<u32>,
}

impl Ghost {
    /// Remembers `fingerprint`, and at most `limit` in all.
    pub(super) fn remember(&mut self, fingerprint: u32, limit: u32) {
        while self.order.len() >= limit.max(1) as usize {
            let Some(oldest) = self.order.pop_front() else { break };
            self.recall(oldest);
        }
        self.order.push_back(fingerprint);
        if self.known.find(spread(fingerprint), |known| *known == fingerprint).is_none() {
            self.known.insert_unique(spread(fingerprint), fingerprint, |known| spread(*known));
        }
    }

    /// Forgets `fingerprint`; whether it was there.
    pub(super) fn recall(&mut self, fingerprint: u32) -> bool {
        // Its place in `order` stays until its turn comes: to search for it would cost more.
        match self.known.find_entry(spread(fingerprint), |known| *known == fingerprint) {
            Ok(found) => {
                found.remove();
                true
            }
            Err(_) => false,
        }
    }
}

/// A fingerprint is random already; the table wants its randomness at both ends.
fn spread(fingerprint: u32) -> u64 {
    u64::from(fingerprint) << 32 | u64::from(fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_ghost_remembers_no_more_than_its_limit(prints in prop::collection::vec(0..40u32, 0..200), limit in 0..20u32) {
            let mut ghost = Ghost::default();
            for print in &prints {
                if print % 3 == 0 {
                    ghost.recall(print / 3);
                } else {
                    ghost.remember(*print, limit);
                    prop_assert!(ghost.known.len() <= ghost.order.len());
                    prop_assert!(ghost.order.len() <= limit.max(1) as usize);
                    prop_assert!(ghost.recall(*print));
                    ghost.remember(*print, limit);
                }
            }
        }
    }
}
