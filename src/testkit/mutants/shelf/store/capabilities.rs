//! What the store can do beside its trait, with the bugs of that.

use super::Shelf;
use crate::entry::Entry;
use crate::error::Result;
use crate::store::{ClearPrefix, Evict};
use crate::weigh::Weigher;

impl Evict for Shelf {
    fn weighed_by(self, _: Weigher<str, String>) -> Self {
        self
    }

    fn weigh(&self, key: &str, entry: &Entry<String>) -> u64 {
        self.weight_of(key, entry)
    }

    fn evict(&self) -> bool {
        let mut held = self.held.lock();
        if held.rows.is_empty() {
            return self.is("evict_says_yes_to_nothing");
        }
        if self.is("evict_gives_up_nothing") {
            return true;
        }
        if self.is("evict_denies") {
            held.rows.remove(0);
            return false;
        }
        let count = if self.is("evict_takes_two") { held.rows.len().min(2) } else { 1 };
        for (known, old) in held.rows.drain(..count).collect::<Vec<_>>() {
            held.weight -= self.weight_of(&known, &old).min(held.weight);
        }
        true
    }
}

impl ClearPrefix for Shelf {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        let matches = |key: &str| match self.bug {
            "prefix_is_a_glob" if prefix.contains('*') => true,
            "prefix_is_a_like_pattern" if prefix.contains(['_', '%']) => {
                let plain = prefix.replace('%', "");
                key.chars().count() >= plain.chars().count()
                    && key.chars().zip(plain.chars()).all(|(have, want)| want == '_' || have == want)
            }
            "prefix_is_the_whole_key" => key == prefix,
            "prefix_ignores_case" => key.to_lowercase().starts_with(&prefix.to_lowercase()),
            "prefix_is_anywhere" => key.contains(prefix),
            "prefix_spares_itself" => key.starts_with(prefix) && key != prefix,
            "empty_prefix_is_nothing" => !prefix.is_empty() && key.starts_with(prefix),
            _ => key.starts_with(prefix),
        };
        self.held.lock().rows.retain(|(known, _)| !matches(known));
        Ok(())
    }
}
