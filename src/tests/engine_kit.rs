//! The engine under the kit, in the configurations that people use.

use std::time::Duration;

use proptest::prelude::*;

use crate::cache::CacheBuilder;
use crate::ext::StoreExt;
use crate::memory::Memory;
use crate::testkit::engine::{Floor, check_any, judge_over, wild};
use crate::testkit::{Faulty, Model, check_engine};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn any_settings() {
    check_any().assert();
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The laws that need no model, over a stack that is not the kit's.
    #[test]
    fn any_case_over_a_given_stack(case in wild()) {
        let (upper, lower) = (Faulty::new(Memory::new(100)), Faulty::new(Model::remote()));
        let faults = vec![upper.faults(), lower.faults()];
        let store = upper.chain(lower).boxed();
        let judged = judge_over(&case, Floor { store, faults, leaves: Vec::new() });
        if let Err(broken) = judged {
            let (law, finding) = *broken;
            prop_assert!(false, "{}\n{}\n{}\n{}", law.name, finding.timeline, finding.expected, finding.got);
        }
    }
}
