//! The kit over this crate's own stacks, adapters and chains.

use std::sync::Arc;
use std::time::Duration;

use crate::adapters::{Chain, FreshForAtMost, Null, Sharded, Tagged};
use crate::codec::Postcard;
use crate::ext::StoreExt;
use crate::testkit::{Minimal, Model, TagGround, check_adapter, check_chain, check_stacks, check_tags};

/// D2, C7: whatever a stack is made of, and however it is rewritten.
#[test]
fn any_stack_keeps_the_laws() {
    check_stacks().source(file!()).assert();
}

/// C1 to C8.
#[test]
fn a_chain_keeps_the_laws() {
    check_chain("chain", |upper, lower, clock| Chain::new(upper, lower).clock(clock))
        .source(file!())
        .assert();
}

/// The same, but for what a strict chain takes back.
#[test]
fn a_strict_chain_keeps_the_laws() {
    let strict =
        check_chain("strict chain", |upper, lower, clock| Chain::new(upper, lower).clock(clock).strict());
    strict.strict().source(file!()).assert();
}

/// T1 to T5.
#[test]
fn tagged_keeps_the_laws_of_tags() {
    let tagged = |ground: TagGround| {
        let tagged = Tagged::new(ground.entries, ground.instants).clock(ground.clock);
        tagged.known_tags(ground.known_tags).unwrap()
    };
    check_tags("tagged", tagged).source(file!()).assert();
}

/// D1 to D3 and S1 to S11, adapter by adapter.
mod adapters {
    use super::*;

    #[test]
    fn inspect() {
        check_adapter("inspect", |inner| inner.inspect(|_| ())).source(file!()).assert();
    }

    #[test]
    fn boxed() {
        check_adapter("boxed", StoreExt::boxed).source(file!()).assert();
    }

    #[test]
    fn arc_and_box() {
        check_adapter("arc", Arc::new).source(file!()).assert();
        check_adapter("box", Box::new).source(file!()).assert();
    }

    #[test]
    fn minimal() {
        let calls =
            ["renew", "get_at", "peek_with", "get_many", "set_many", "remove_many", "len", "weight", "flush"];
        let check = check_adapter("minimal", Minimal).changes(&calls);
        let why = "it forwards the four required methods, and nothing else";
        check
            .skip("d3_describe_shows_the_inside", why)
            .skip("s4_errors_come_out_with_their_kind", why)
            .source(file!())
            .assert();
    }

    #[test]
    fn prefixed() {
        let check = check_adapter("prefixed", |inner| inner.prefixed("p:"));
        check.changes(&["clear", "len", "weight"]).source(file!()).assert();
        let check = check_adapter("prefixed twice", |inner| inner.prefixed("p:").prefixed("a/"));
        check.changes(&["clear", "len", "weight"]).source(file!()).assert();
    }

    #[test]
    fn encoded() {
        let check = check_adapter("encoded", |inner| inner.encoded::<String, _>(Postcard));
        check.undecodable([0xff; 3].to_vec()).source(file!()).assert();
    }

    #[test]
    fn fresh_for_at_most() {
        let cap = |inner: crate::testkit::Inner, limit| {
            let clock = inner.clock();
            FreshForAtMost::new(inner, limit).clock(clock)
        };
        let check = check_adapter("short cap", move |inner| cap(inner, Duration::from_nanos(5)));
        check.caps().source(file!()).assert();
        check_adapter("no cap", move |inner| cap(inner, Duration::MAX)).source(file!()).assert();
    }

    /// With nothing invalidated: what an invalidation does is judged by `check_tags`.
    #[test]
    fn tagged() {
        let tagged = |inner: crate::testkit::Inner| {
            let clock = inner.clock();
            inner.tagged(Model::remote()).clock(clock).max_age(Duration::MAX).unwrap()
        };
        check_adapter("tagged", tagged).source(file!()).assert();
        let check = check_adapter("cleared by instant", move |inner| tagged(inner).clear_by_instant());
        check
            .changes(&["clear", "len"])
            .skip(
                "d1_idle_cannot_be_told_from_the_store_inside",
                "what is written in the tick of a clear is gone too",
            )
            .skip("s4_errors_come_out_with_their_kind", "a clear asks the tag store alone")
            .source(file!())
            .assert();
    }

    #[test]
    fn byte_limited_with_room() {
        check_adapter("wide limit", |inner| inner.byte_limited(1 << 30)).source(file!()).assert();
    }

    #[test]
    fn byte_limited_without_room() {
        let check = check_adapter("tight limit", |inner| inner.byte_limited(400));
        check.bounded(400).source(file!()).assert();
    }

    #[test]
    fn sharded() {
        let sharded = |inner: crate::testkit::Inner| Sharded::new(3, |_| inner.another()).unwrap();
        let calls = ["clear", "get_many", "set_many", "remove_many", "len", "weight", "flush"];
        check_adapter("sharded", sharded).changes(&calls).source(file!()).assert();
        check_adapter("one shard", |inner| Sharded::new(1, |_| inner.another()).unwrap())
            .source(file!())
            .assert();
    }

    #[test]
    fn chain_with_null() {
        let chain = |inner: crate::testkit::Inner| {
            let clock = inner.clock();
            Chain::new(Null::new(), inner).clock(clock)
        };
        let calls = ["get", "peek_with", "set_many", "remove_many", "len", "weight"];
        check_adapter("null in front", chain).changes(&calls).source(file!()).assert();
    }
}
