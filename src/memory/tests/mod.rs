//! The promises of the memory tiers.

mod cost;
mod input;
mod laws;
mod removal;
mod threads;

use std::sync::Arc;

use crate::entry::{Entry, Lifetime};
use crate::time::Timestamp;
use crate::weigh::Weigher;

/// A value that says who it is, what it weighs, and (by its token) when it is gone.
#[derive(Clone, Debug)]
struct Item {
    id: u64,
    weight: u64,
    #[expect(dead_code, reason = "its counter is what is read")]
    token: Arc<()>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.weight) == (other.id, other.weight)
    }
}

fn by_weight<K: crate::Key + ?Sized>() -> Weigher<K, Item> {
    Weigher::new(|_, item: &Item| item.weight)
}

fn entry<V>(value: V) -> Entry<V> {
    Entry::new(value, Lifetime::forever(Timestamp::EPOCH))
}

/// A key whose hash tells nothing (E14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Colliding(u8);

impl std::hash::Hash for Colliding {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}
