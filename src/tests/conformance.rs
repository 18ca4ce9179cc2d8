//! Every tier of this crate under the kit.

use crate::memory::{Lru, Memory, Single};
use crate::testkit::{Model, Order, check};

#[test]
fn the_model() {
    check("model", |_| Model::<str, String>::new()).peeks().counts().run().assert();
}

#[test]
fn memory() {
    check("memory", |_| Memory::<str, String>::new(100)).peeks().counts().max_entries(100).run().assert();
}

#[test]
fn lru() {
    let check = check("lru", |_| Lru::<str, String>::new(5));
    check.peeks().counts().max_entries(5).evicts(Order::LeastRecentlyUsed).run().assert();
}

#[test]
fn single() {
    check("single", |_| Single::<str, String>::new()).peeks().counts().max_entries(1).run().assert();
}
