//! What a renewal makes of what is held, with the bugs of that.

use super::Shelf;
use crate::entry::{Entry, Lifetime};

impl Shelf {
    /// What is to be stored, if anything is.
    pub(super) fn renewal(&self, key: &str, entry: Entry<String>) -> Option<Entry<String>> {
        let Some(held) = self.read(key, false) else {
            return (!self.is("renew_ignores_what_is_absent")).then_some(entry);
        };
        let (old, new) = (held.lifetime(), entry.lifetime());
        let same = held.value() == entry.value();
        Some(match self.bug {
            "renew_keeps_deadlines" => {
                let life =
                    Lifetime::new(new.created_at(), old.fresh_until(), old.stale_until(), old.keep_until());
                entry.with_lifetime(life)
            }
            "renew_keeps_the_origin" => {
                let life =
                    Lifetime::new(old.created_at(), new.fresh_until(), new.stale_until(), new.keep_until());
                entry.with_lifetime(life)
            }
            "renew_only_lengthens" if old.fresh_until() > new.fresh_until() => held,
            "renew_keeps_another_value" => entry.map(|_| held.value().clone()),
            "renew_keeps_labels" if same => held.with_lifetime(new),
            "renew_ignores_another_value" if !same => return None,
            "renew_drops_tags" if same => entry.with_tags(Vec::<String>::new()),
            _ => entry,
        })
    }
}
