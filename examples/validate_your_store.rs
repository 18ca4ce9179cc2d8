//! A store with one subtle bug, the kit that finds it, the fix, and the kit again.
//!
//! ```text
//! cargo run --example validate_your_store --features testkit
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use larder::testkit::{Order, Report, check};
use larder::{Entry, Result, SetOutcome, Store};

/// Keeps the entries that were used last: a map, and its keys in the order of their use.
#[derive(Debug)]
struct Recent {
    max: usize,
    fixed: bool,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    entries: HashMap<String, Entry<String>>,
    // The next one to go first.
    order: VecDeque<String>,
}

impl Recent {
    fn new(max: usize, fixed: bool) -> Self {
        Self { max, fixed, held: Mutex::default() }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Held) -> R) -> R {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Recent {
    type Key = str;
    type Value = String;

    async fn get(&self, key: &str) -> Result<Option<Entry<String>>> {
        Ok(self.with(|held| {
            let found = held.entries.get(key).cloned()?;
            held.order.retain(|known| known != key);
            held.order.push_back(key.to_owned());
            Some(found)
        }))
    }

    async fn set(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
        self.with(|held| {
            held.entries.insert(key.to_owned(), entry);
            if self.fixed {
                held.order.retain(|known| known != key); // the fix: an overwrite gives up its old place
            }
            held.order.push_back(key.to_owned());
            while held.entries.len() > self.max {
                let Some(oldest) = held.order.pop_front() else { break };
                held.entries.remove(&oldest);
            }
        });
        Ok(SetOutcome::Stored)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.with(|held| {
            held.entries.remove(key);
            held.order.retain(|known| known != key);
        });
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        self.with(|held| *held = Held::default());
        Ok(())
    }

    fn len(&self) -> Option<u64> {
        Some(self.with(|held| held.entries.len()) as u64)
    }
}

/// The store makes an empty one for each case; the rest is what it promises beyond the contract of every store.
fn judge(fixed: bool) -> Report {
    check("recent", move |_site| Recent::new(2, fixed))
        .max_entries(2)
        .evicts(Order::LeastRecentlyUsed)
        .counts()
        .cases(64)
        .run()
}

fn main() {
    println!("As it was written first:\n\n{}", judge(false));
    println!(
        "\nA key that is written again stands in `order` twice. When its first place comes up, the entry that was"
    );
    println!("just written goes, and an older one stays. The fix is one line of `set`:\n");
    println!("    held.order.retain(|known| known != key);\n");
    println!("With it:\n\n{}", judge(true));
}
