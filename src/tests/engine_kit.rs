//! The engine under the kit, in the configurations that people use.

use std::time::Duration;

use crate::cache::CacheBuilder;
use crate::testkit::check_engine;
use crate::testkit::engine::check_any;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn any_settings() {
    check_any().assert();
}

/// More of what is drawn from more than anything else: the law of batches has every act of the others in it.
#[test]
fn any_settings_in_batches() {
    check_any().only("e15_batches_equal_their_singles").cases(1_000).assert();
}

#[test]
fn a_plain_ttl() {
    check_engine("ttl", |cache| cache.ttl(MINUTE)).assert();
}

#[test]
fn stale_while_revalidate() {
    check_engine("stale", |cache| cache.ttl(MINUTE).stale(5 * MINUTE)).assert();
}

#[test]
fn stale_on_error() {
    let check = check_engine("stale on error", |cache| {
        cache.ttl(MINUTE).stale(MINUTE).keep_stale_on_error(60 * MINUTE).max_refreshes(1)
    });
    check.assert();
}

#[test]
fn strict() {
    check_engine("strict", |cache| cache.ttl(MINUTE).stale(MINUTE).strict()).assert();
}

#[test]
fn bypass() {
    check_engine("bypass", CacheBuilder::bypass).assert();
}

#[test]
fn no_expiration() {
    check_engine("no expiration", CacheBuilder::no_expiration).assert();
}

#[test]
fn jitter_and_short_deadlines() {
    let check = check_engine("jitter", |cache| {
        let second = Duration::from_secs(1);
        cache.ttl(MINUTE).jitter(0.5).stale(second).load_timeout(2 * second).refresh_timeout(second)
    });
    check.assert();
}

#[test]
fn early_refresh() {
    check_engine("early", |cache| cache.ttl(MINUTE).refresh_ahead(0.8).refreshes_per_second(1.0)).assert();
}

#[test]
fn early_refresh_by_cost() {
    let check =
        check_engine("early by cost", |cache| cache.ttl(MINUTE).stale(MINUTE).refresh_ahead_by_cost(10.0));
    check.assert();
}
