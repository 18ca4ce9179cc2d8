//! Small adapters, healthy but for one switch a bug: a prefix, an encoder, shards, a limit, a cap.

mod cap;
mod encoder;
mod limit;
mod prefix;
mod shards;

use std::fmt::Debug;

use bytes::Bytes;

use super::{Healthy, Mutant, Trial};
use crate::entry::Entry;
use crate::error::Result;
use crate::store::Store;
use crate::testkit::{AdapterCheck, Report, check_adapter};
use cap::Cap;
use encoder::Encoder;
use limit::Limit;
use prefix::Prefix;
use shards::Shards;

const IDLE: &str = "d1_idle_cannot_be_told_from_the_store_inside";
const REGISTER: &str = "d2_over_any_store_it_stays_a_register";
const FORWARDS: &str = "d3_each_call_is_one_call_inside";
const READS: &str = "d3_a_read_writes_nothing";
const DESCRIBES: &str = "d3_describe_shows_the_inside";
const ERRORS: &str = "s4_errors_come_out_with_their_kind";
const CLEARS: &str = "s5_it_touches_only_its_own";
const KEYS: &str = "s6_keys_never_meet";
const DECODES: &str = "s7_what_it_cannot_read_is_a_miss";
const PEEKS: &str = "s9_a_peek_answers_only_what_a_get_would";
const BOUND: &str = "s10_it_stays_within_its_bound";
const BULK: &str = "s11_a_bulk_call_answers_for_each_key";
const DEADLINES: &str = "c9_deadlines_are_only_ever_earlier";

/// Every bug of this family: its name, what is wrong, the law that must fall, the most steps.
#[rustfmt::skip]
const LIST: &[(Kind, Bug, &str, &str, &str, usize)] = &[
    (Kind::Prefix, Bug::NotEscaped, "prefix_not_escaped", "a separator in the key is not escaped", KEYS, 6),
    (Kind::Prefix, Bug::EmptyIgnored, "prefix_empty_key_ignored", "the empty key is taken for another", KEYS, 6),
    (Kind::Prefix, Bug::CaseFolded, "prefix_key_case_folded", "keys are folded to lower case", KEYS, 6),
    (Kind::Prefix, Bug::KeyCut, "prefix_key_cut_at_nul", "a key ends at its first NUL", KEYS, 6),
    (Kind::Prefix, Bug::KeyLossy, "prefix_key_lossy", "letters beyond ASCII become a question mark", KEYS, 6),
    (Kind::Prefix, Bug::KeyTrimmed, "prefix_key_trimmed", "a colon at the end of a key is dropped", KEYS, 6),
    (Kind::Prefix, Bug::KeyDecoded, "prefix_key_decoded", "an escape that a key happens to hold is undone", KEYS, 6),
    (Kind::Prefix, Bug::ClearsSiblings, "prefix_clear_takes_siblings", "clear goes by the prefix without its separator", CLEARS, 6),
    (Kind::Prefix, Bug::ClearsAll, "prefix_clear_takes_everything", "clear clears the store inside", CLEARS, 6),
    (Kind::Prefix, Bug::ClearsNothing, "prefix_clear_of_known_keys", "clear removes only the empty key", CLEARS, 6),
    (Kind::Prefix, Bug::LenOfAll, "prefix_counts_neighbours", "len is twice what it is", IDLE, 6),
    (Kind::Prefix, Bug::PeekUnprefixed, "prefix_peek_without_prefix", "a peek asks for the key without the prefix", PEEKS, 6),
    (Kind::Prefix, Bug::RemoveUnprefixed, "prefix_remove_without_prefix", "a removal asks for the key without the prefix", IDLE, 6),
    (Kind::Prefix, Bug::BulkUnprefixed, "prefix_bulk_without_prefix", "get_many asks for keys without the prefix", IDLE, 6),
    (Kind::Prefix, Bug::FlushDropped, "prefix_flush_not_forwarded", "flush is not passed on", FORWARDS, 6),
    (Kind::Prefix, Bug::BulkSplit, "prefix_bulk_split", "get_many is one get a key", FORWARDS, 6),
    (Kind::Prefix, Bug::SetManySplit, "prefix_set_many_split", "set_many is one set a key", FORWARDS, 6),
    (Kind::Prefix, Bug::RenewIsSet, "prefix_renew_not_forwarded", "a renewal becomes a set", FORWARDS, 6),
    (Kind::Prefix, Bug::RenewUnprefixed, "prefix_renew_without_prefix", "a renewal goes to the key without the prefix", IDLE, 6),
    (Kind::Prefix, Bug::PeekDropped, "prefix_peek_not_forwarded", "peek is the default, which never answers", FORWARDS, 6),
    (Kind::Prefix, Bug::InstantDropped, "prefix_get_at_drops_the_instant", "get_at becomes get", FORWARDS, 6),
    (Kind::Prefix, Bug::Opaque, "prefix_describe_is_opaque", "describe does not show what is inside", DESCRIBES, 6),
    (Kind::Prefix, Bug::ReadTwice, "prefix_reads_twice", "a get asks twice", READS, 6),
    (Kind::Prefix, Bug::WritesOnGet, "prefix_writes_on_get", "a hit is written back, to keep it warm", READS, 6),
    (Kind::Prefix, Bug::RemovesOnMiss, "prefix_removes_on_miss", "a miss removes the key, to tidy up", READS, 6),
    (Kind::Prefix, Bug::CachesMiss, "prefix_caches_a_miss", "a miss is remembered until the adapter's own set, and set_many forgets to", IDLE, 6),
    (Kind::Prefix, Bug::CachesHit, "prefix_caches_a_hit", "a hit is remembered, and a removal that fails is not noticed", REGISTER, 6),
    (Kind::Prefix, Bug::RemoveErrorSwallowed, "prefix_remove_error_swallowed", "a removal that fails is told as done", ERRORS, 6),
    (Kind::Prefix, Bug::GetErrorIsMiss, "prefix_get_error_is_a_miss", "a read that fails is told as a miss", ERRORS, 6),
    (Kind::Prefix, Bug::ClearErrorSwallowed, "prefix_clear_error_swallowed", "a clear that fails is told as done", ERRORS, 6),
    (Kind::Prefix, Bug::KindLost, "prefix_error_kind_lost", "an error comes out as one of another kind", ERRORS, 6),
    (Kind::Prefix, Bug::BreakerStays, "prefix_breaker_never_closes", "after one error nothing is passed on any more", ERRORS, 6),
    (Kind::Prefix, Bug::RemoveManyStops, "prefix_remove_many_stops", "remove_many ends at the first error", BULK, 6),
    (Kind::Prefix, Bug::SetManyFirstError, "prefix_set_many_one_error_for_all", "the first error of set_many speaks for all keys", BULK, 6),
    (Kind::Prefix, Bug::SetManyGoesOnWrong, "prefix_set_many_goes_on_wrong", "after an error set_many writes the next entry under the wrong key", BULK, 6),
    (Kind::Prefix, Bug::BulkReversed, "prefix_bulk_out_of_order", "the answers of get_many come in another order", BULK, 6),
    (Kind::Prefix, Bug::BulkShort, "prefix_bulk_one_short", "get_many leaves the last key out", BULK, 6),
    (Kind::Prefix, Bug::BulkDrops, "prefix_bulk_drops_misses", "get_many answers for the keys that it found", BULK, 6),
    (Kind::Prefix, Bug::SetManyReversed, "prefix_set_many_out_of_order", "set_many gives each key the entry of another", BULK, 6),
    (Kind::Encoder, Bug::TagsLost, "encoder_tags_lost", "tags are not kept", IDLE, 6),
    (Kind::Encoder, Bug::VersionLost, "encoder_version_lost", "the version is not kept", IDLE, 6),
    (Kind::Encoder, Bug::OriginLost, "encoder_origin_lost", "an entry is created when it is written", IDLE, 6),
    (Kind::Encoder, Bug::SecondsOnly, "encoder_coarse_deadlines", "deadlines are rounded down to even ticks", IDLE, 6),
    (Kind::Encoder, Bug::NeverLost, "encoder_never_is_an_instant", "a deadline that is never becomes the largest but one", IDLE, 6),
    (Kind::Encoder, Bug::DecodeErrorFails, "encoder_decode_error_fails_get", "bytes that cannot be read fail the get", DECODES, 6),
    (Kind::Encoder, Bug::DecodesDefault, "encoder_decodes_a_default", "bytes that cannot be read become an empty value", DECODES, 6),
    (Kind::Encoder, Bug::BulkDecodeFails, "encoder_bulk_decode_error_fails", "bytes that cannot be read fail the key in get_many", DECODES, 6),
    (Kind::Encoder, Bug::FilterExpired, "encoder_filters_stale", "a stale entry is hidden", IDLE, 6),
    (Kind::Shards, Bug::RouteDiffers, "shards_route_differs", "set goes by another hash than get", IDLE, 6),
    (Kind::Shards, Bug::RemoveRouteDiffers, "shards_remove_elsewhere", "a removal goes to the first shard", IDLE, 6),
    (Kind::Shards, Bug::RenewRouteDiffers, "shards_renew_elsewhere", "a renewal goes to the first shard", IDLE, 6),
    (Kind::Shards, Bug::PeekRouteDiffers, "shards_peek_elsewhere", "a peek goes to the first shard, where an old copy is", PEEKS, 6),
    (Kind::Shards, Bug::ClearsOneShard, "shards_clear_one", "clear clears the first shard", CLEARS, 6),
    (Kind::Shards, Bug::ClearStops, "shards_clear_error_swallowed", "an error of clear is swallowed", ERRORS, 6),
    (Kind::Shards, Bug::GroupsOutOfOrder, "shards_bulk_by_group", "get_many answers shard by shard", BULK, 6),
    (Kind::Shards, Bug::LenOfOne, "shards_len_of_one", "len is that of the first shard", IDLE, 6),
    (Kind::Limit, Bug::OverwriteNotSubtracted, "limit_overwrite_not_subtracted", "what is overwritten goes on being counted", BOUND, 6),
    (Kind::Limit, Bug::RemoveNotSubtracted, "limit_remove_not_subtracted", "what is removed goes on being counted", BOUND, 6),
    (Kind::Limit, Bug::ClearKeepsCount, "limit_clear_keeps_the_count", "clear keeps the counter", BOUND, 6),
    (Kind::Limit, Bug::EvictionNotSubtracted, "limit_eviction_not_subtracted", "what was given up goes on being counted", BOUND, 6),
    (Kind::Limit, Bug::RefusedLeavesOld, "limit_refused_leaves_the_old", "a refused entry leaves the old one under its key", BOUND, 6),
    (Kind::Limit, Bug::CheckedAfter, "limit_checked_after_insert", "room is made after the entry is in", BOUND, 6),
    (Kind::Limit, Bug::KeyNotCounted, "limit_key_not_counted", "the bytes of keys are not counted", BOUND, 6),
    (Kind::Limit, Bug::BulkUnlimited, "limit_bulk_is_unlimited", "set_many does not look at the limit", BOUND, 6),
    (Kind::Limit, Bug::RenewUnlimited, "limit_renewal_is_unlimited", "a renewal does not look at the limit", BOUND, 6),
    (Kind::Limit, Bug::OffByOne, "limit_off_by_one", "one byte more than the limit is taken", BOUND, 6),
    (Kind::Cap, Bug::FreshOnly, "cap_clamps_fresh_only", "a cap moves fresh_until alone: the stale window grows", DEADLINES, 6),
    (Kind::Cap, Bug::CapExtends, "cap_extends", "a cap sets the deadline, also to a later one", DEADLINES, 6),
    (Kind::Cap, Bug::WindowsVanish, "cap_takes_the_windows", "a cap ends the stale window along with freshness", DEADLINES, 6),
    (Kind::Cap, Bug::OriginMoves, "cap_moves_the_origin", "a capped entry is created anew", DEADLINES, 6),
    (Kind::Cap, Bug::BulkUncapped, "cap_not_in_bulk", "set_many does not cap", DEADLINES, 6),
    (Kind::Cap, Bug::RenewUncapped, "cap_not_in_renewals", "a renewal is not capped", DEADLINES, 6),
    (Kind::Cap, Bug::CapOnRead, "cap_counts_from_the_read", "a read moves the deadlines to a cap from now", DEADLINES, 6),
    (Kind::Cap, Bug::CapUndeclared, "cap_undeclared", "an adapter shortens lifetimes and does not say so", DEADLINES, 6),
];

pub(crate) fn mutants() -> Vec<Mutant> {
    let mutant = |&(kind, bug, name, wrong, law, steps): &(
        Kind,
        Bug,
        &'static str,
        &'static str,
        &'static str,
        usize,
    )| {
        Mutant { name, wrong, law, steps, check: Box::new(move |trial| try_out(kind, bug, trial)) }
    };
    LIST.iter().map(mutant).collect()
}

pub(crate) fn healthy() -> Vec<Healthy> {
    let kinds = [
        ("toy prefix", Kind::Prefix),
        ("toy encoder", Kind::Encoder),
        ("toy shards", Kind::Shards),
        ("toy limit", Kind::Limit),
        ("toy cap", Kind::Cap),
    ];
    let healthy = |(name, kind)| Healthy {
        name,
        check: Box::new(move |trial: &Trial| try_out(kind, Bug::None, trial)),
    };
    kinds.into_iter().map(healthy).collect()
}

const LIMIT: u64 = 90;

fn try_out(kind: Kind, bug: Bug, trial: &Trial) -> Report {
    let clears = &["clear", "len", "weight"];
    match kind {
        Kind::Prefix => {
            settle(check_adapter("toy prefix", move |inner| Prefix::new(inner, bug)).changes(clears), trial)
        }
        Kind::Encoder => {
            let check = check_adapter("toy encoder", move |inner| Encoder { inner, bug });
            settle(check.undecodable(&b"~"[..]), trial)
        }
        Kind::Shards => {
            let calls = &["clear", "get_many", "set_many", "remove_many", "len", "weight", "flush"];
            settle(check_adapter("toy shards", move |inner| Shards::new(&inner, bug)).changes(calls), trial)
        }
        Kind::Limit => {
            let check = check_adapter("toy limit", move |inner| Limit::new(inner, bug)).bounded(LIMIT);
            settle(check.changes(&["set", "renew", "set_many", "remove_many"]), trial)
        }
        Kind::Cap => {
            let check = check_adapter("toy cap", move |inner| Cap::new(inner, bug));
            settle(if bug == Bug::CapUndeclared { check } else { check.caps() }, trial)
        }
    }
}

fn settle<A>(check: AdapterCheck<A>, trial: &Trial) -> Report
where
    A: Store<Key = str, Value: From<String> + Eq + Debug> + 'static,
{
    let mut check = check.seed(trial.seed);
    if let Some(cases) = trial.cases {
        check = check.cases(cases);
    }
    if let Some(law) = trial.only {
        check = check.only(law);
    }
    check.run()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prefix,
    Encoder,
    Shards,
    Limit,
    Cap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    NotEscaped,
    EmptyIgnored,
    CaseFolded,
    KeyCut,
    KeyLossy,
    KeyTrimmed,
    KeyDecoded,
    ClearsSiblings,
    ClearsAll,
    ClearsNothing,
    LenOfAll,
    PeekUnprefixed,
    RemoveUnprefixed,
    BulkUnprefixed,
    FlushDropped,
    BulkSplit,
    SetManySplit,
    RenewIsSet,
    RenewUnprefixed,
    RenewRouteDiffers,
    RenewUnlimited,
    RenewUncapped,
    PeekDropped,
    InstantDropped,
    Opaque,
    ReadTwice,
    WritesOnGet,
    RemovesOnMiss,
    CachesMiss,
    CachesHit,
    RemoveErrorSwallowed,
    GetErrorIsMiss,
    ClearErrorSwallowed,
    KindLost,
    BreakerStays,
    RemoveManyStops,
    SetManyFirstError,
    SetManyGoesOnWrong,
    BulkReversed,
    BulkShort,
    BulkDrops,
    SetManyReversed,
    TagsLost,
    VersionLost,
    OriginLost,
    SecondsOnly,
    NeverLost,
    DecodeErrorFails,
    DecodesDefault,
    BulkDecodeFails,
    FilterExpired,
    RouteDiffers,
    RemoveRouteDiffers,
    PeekRouteDiffers,
    ClearsOneShard,
    ClearStops,
    GroupsOutOfOrder,
    LenOfOne,
    OverwriteNotSubtracted,
    RemoveNotSubtracted,
    ClearKeepsCount,
    EvictionNotSubtracted,
    RefusedLeavesOld,
    CheckedAfter,
    KeyNotCounted,
    BulkUnlimited,
    OffByOne,
    FreshOnly,
    CapExtends,
    WindowsVanish,
    OriginMoves,
    BulkUncapped,
    CapOnRead,
    CapUndeclared,
}

type Found = Result<Option<Entry<Bytes>>>;
