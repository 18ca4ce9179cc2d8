//! Stores in memory with a bug.

mod store;

use std::sync::Arc;

use crate::sync::Mutex;
use crate::testkit::mutants::{Healthy, Line, Mutant, Trial, by_name};
use crate::testkit::{Check, Order, Site, check};
use store::{Held, Shelf};

#[rustfmt::skip]
const LINES: &[Line] = &[
    ("instants_in_milliseconds", "deadlines are cut to milliseconds", "s1_every_field_comes_back", 2),
    ("instants_in_32_bit_seconds", "deadlines beyond the year 2106 are cut", "s1_every_field_comes_back", 2),
    ("instants_in_signed_64_bits", "deadlines beyond the year 2262 are cut", "s1_every_field_comes_back", 2),
    ("never_is_stored_as_zero", "never and the epoch are one", "s1_every_field_comes_back", 2),
    ("far_is_never", "the last instants become never", "s1_every_field_comes_back", 2),
    ("created_when_stored", "created_at is when it was stored", "s1_every_field_comes_back", 2),
    ("stale_window_lost", "stale_until is fresh_until", "s1_every_field_comes_back", 2),
    ("keep_until_lost", "keep_until is stale_until", "s1_every_field_comes_back", 2),
    ("tags_dropped", "tags are not stored", "s1_every_field_comes_back", 2),
    ("tags_sorted", "tags lose their order", "s1_every_field_comes_back", 2),
    ("tags_deduplicated", "equal tags become one", "s1_every_field_comes_back", 2),
    ("tags_joined_by_commas", "a tag with a comma becomes two", "s1_every_field_comes_back", 2),
    ("empty_tags_dropped", "an empty tag is lost", "s1_every_field_comes_back", 2),
    ("version_dropped", "the version is not stored", "s1_every_field_comes_back", 2),
    ("empty_version_dropped", "an empty version is none", "s1_every_field_comes_back", 2),
    ("a_read_resets_created_at", "a read makes the entry younger", "s1_every_field_comes_back", 2),
    ("a_read_renews", "a read moves the deadline", "s1_every_field_comes_back", 3),
    ("values_are_cut", "values are cut at 64 KiB", "s1_sizes_are_exact", 2),
    ("empty_value_removes", "an empty value is a removal", "s1_sizes_are_exact", 2),
    ("limit_refuses_itself", "the limit itself is refused", "s1_sizes_are_exact", 1),
    ("limit_takes_one_more", "one byte more than the limit is taken", "s1_sizes_are_exact", 1),
    ("limit_is_ignored", "the limit is not checked", "s1_sizes_are_exact", 1),
    ("hides_what_is_stale", "a stale entry is a miss", "s2_age_hides_nothing", 3),
    ("hides_what_is_expired", "an expired entry is a miss", "s2_age_hides_nothing", 3),
    ("get_at_judges", "get_at answers only what is fresh then", "s2_age_hides_nothing", 2),
    ("lifetime_from_fresh_until", "the physical lifetime ends with freshness", "s12_an_entry_lives_until_keep_until", 3),
    ("lifetime_from_stale_until", "the physical lifetime ends with the stale window", "s12_an_entry_lives_until_keep_until", 3),
    ("dead_a_tick_early", "keep_until itself is dead already", "s12_an_entry_lives_until_keep_until", 4),
    ("never_drops_the_dead", "expiry was promised and does not happen", "s12_an_entry_lives_until_keep_until", 3),
    ("lives_an_hour_longer", "the dead live on for an hour", "s12_an_entry_lives_until_keep_until", 3),
    ("inserts_only_if_absent", "a second set is ignored", "s3_reads_give_what_was_written", 3),
    ("acknowledges_first", "a write is done with the next one", "s3_reads_give_what_was_written", 2),
    ("removes_late", "a removal is done at the next read", "s9_a_peek_is_a_get", 6),
    ("a_read_removes", "an entry can be read once", "s3_reads_give_what_was_written", 3),
    ("a_removal_keeps_the_last_row", "the last entry cannot be removed", "s3_reads_give_what_was_written", 3),
    ("flush_forgets", "a flush empties the store", "s3_reads_give_what_was_written", 3),
    ("clear_spares_the_last", "clear leaves one entry", "s3_reads_give_what_was_written", 4),
    ("get_hangs", "a read waits for ever", "s3_reads_give_what_was_written", 1),
    ("get_spins", "a read wakes itself for ever", "s3_reads_give_what_was_written", 1),
    ("get_blocks", "a read blocks its thread", "s3_reads_give_what_was_written", 16),
    ("fails_always", "every call fails", "s3_reads_give_what_was_written", 1),
    ("fails_now_and_then", "each third call fails", "s3_reads_give_what_was_written", 3),
    ("panics_now_and_then", "each third call panics", "s3_reads_give_what_was_written", 3),
    ("tags_merged_on_overwrite", "the tags of the old entry stay", "s3_an_overwrite_replaces_all_of_it", 3),
    ("overwrite_keeps_the_lifetime", "the old deadlines stay", "s3_an_overwrite_replaces_all_of_it", 3),
    ("peek_is_silent", "peeks were promised and say nothing", "s9_a_peek_is_a_get", 2),
    ("peek_misses_overwrites", "a peek shows the first value", "s9_a_peek_is_a_get", 3),
    ("peek_shows_what_was_removed", "a peek shows what was removed", "s9_a_peek_is_a_get", 3),
    ("peek_survives_clear", "a peek shows what was cleared", "s9_a_peek_is_a_get", 3),
    ("absent_removal_fails", "removing what is absent fails", "s5_what_is_absent_can_be_removed", 1),
    ("absent_bulk_removal_fails", "removing what is absent in bulk fails", "s5_what_is_absent_can_be_removed", 1),
    ("clear_on_empty_fails", "clearing an empty store fails", "s5_what_is_absent_can_be_removed", 1),
    ("clear_takes_one_page", "clear takes the first 1,000 entries", "s5_clear_takes_all_of_its_own", 4),
    ("shared_between_instances", "two stores are one", "s5_two_stores_share_nothing", 2),
    ("keys_ignore_case", "keys in upper and lower case meet", "s6_different_keys_never_meet", 4),
    ("keys_are_trimmed", "spaces around a key are lost", "s6_different_keys_never_meet", 4),
    ("keys_are_normalized", "NFC and NFD meet", "s6_different_keys_never_meet", 4),
    ("keys_are_cut", "keys are cut at 255 characters", "s6_different_keys_never_meet", 4),
    ("keys_end_at_nul", "a key ends at NUL", "s6_different_keys_never_meet", 4),
    ("keys_are_their_hash", "a key is known by a weak hash", "s6_different_keys_never_meet", 4),
    ("keys_drop_dots", "../k and k meet", "s6_different_keys_never_meet", 4),
    ("empty_key_ignored", "the empty key is not stored", "s6_different_keys_never_meet", 2),
    ("prefix_is_a_glob", "a star in the prefix matches everything", "s5_clear_prefix_takes_its_range", 4),
    ("prefix_is_a_like_pattern", "_ in the prefix matches any character", "s5_clear_prefix_takes_its_range", 4),
    ("prefix_is_the_whole_key", "only the key that equals the prefix goes", "s5_clear_prefix_takes_its_range", 4),
    ("prefix_ignores_case", "K is cleared with k", "s5_clear_prefix_takes_its_range", 4),
    ("prefix_is_anywhere", "keys that contain the prefix go", "s5_clear_prefix_takes_its_range", 4),
    ("prefix_spares_itself", "the key that equals the prefix stays", "s5_clear_prefix_takes_its_range", 4),
    ("empty_prefix_is_nothing", "the empty prefix clears nothing", "s5_clear_prefix_takes_its_range", 4),
    ("len_is_silent", "len was promised and is unknown", "s9_len_and_weight_are_exact", 6),
    ("len_counts_writes", "len counts calls", "s9_len_and_weight_are_exact", 6),
    ("overwrite_not_subtracted", "the weight of what was overwritten stays", "s9_len_and_weight_are_exact", 6),
    ("removed_not_subtracted", "the weight of what was removed stays", "s9_len_and_weight_are_exact", 6),
    ("clear_keeps_the_weight", "the weight of what was cleared stays", "s9_len_and_weight_are_exact", 6),
    ("absent_removal_is_subtracted", "removing what is absent makes the store lighter", "s9_len_and_weight_are_exact", 6),
    ("one_entry_too_many", "the bound is off by one", "s10_bounds_hold_after_every_call", 6),
    ("bound_ignores_the_new_entry", "room is made as if the new entry weighed nothing", "s10_bounds_hold_after_every_call", 6),
    ("refused_leaves_the_old", "a refused set leaves the old value", "s10_what_is_refused_leaves_nothing", 3),
    ("hit_is_no_use", "a hit does not count as a use", "s10_the_order_of_eviction", 6),
    ("overwrite_keeps_its_place", "an overwrite does not count as a use", "s10_the_order_of_eviction", 6),
    ("evicts_the_newest", "the newest entry goes first", "s10_the_order_of_eviction", 6),
    ("peek_is_no_use_but_get_is", "a peek does not count as a use", "s10_the_order_of_eviction", 6),
    ("evict_says_yes_to_nothing", "an empty store gives something up", "s10_evict_gives_up_one", 3),
    ("evict_gives_up_nothing", "evict says yes and does nothing", "s10_evict_gives_up_one", 4),
    ("evict_takes_two", "evict takes two", "s10_evict_gives_up_one", 6),
    ("evict_denies", "evict takes one and says no", "s10_evict_gives_up_one", 4),
    ("set_is_remove_then_insert", "a reader between the two sees nothing", "s3_a_register_under_any_schedule", 4),
    ("set_copies_the_map", "two writers at once, and one is lost", "s3_a_register_under_any_schedule", 4),
    ("reads_are_coalesced", "a read joins one that began before the last write", "s3_a_register_under_any_schedule", 6),
    ("applies_late", "a write is done at the next read", "s3_a_register_under_any_schedule", 4),
    ("threads_lose_updates", "two threads at once, and one is lost", "s3_a_register_on_real_threads", 12),
    ("dropped_call_keeps_the_lock", "a dropped call leaves a lock held", "s8_a_dropped_call_leaves_old_or_new", 6),
    ("dropped_set_happens_later", "a dropped write is done later", "s8_a_dropped_call_leaves_old_or_new", 6),
    ("dropped_set_is_a_mixture", "a dropped write leaves half of it", "s8_a_dropped_call_leaves_old_or_new", 6),
    ("get_many_sorts", "results are in the order of the keys", "s11_bulk_calls_are_their_single_calls", 3),
    ("get_many_reverses", "results are in reverse", "s11_bulk_calls_are_their_single_calls", 3),
    ("get_many_answers_each_once", "a key asked twice is answered once", "s11_bulk_calls_are_their_single_calls", 3),
    ("get_many_panics_on_nothing", "an empty batch panics", "s11_bulk_calls_are_their_single_calls", 1),
    ("get_many_leaves_out_misses", "misses have no result", "s11_bulk_calls_are_their_single_calls", 1),
    ("get_many_puts_misses_last", "misses come last", "s11_bulk_calls_are_their_single_calls", 3),
    ("set_many_runs_backwards", "of a key given twice the first wins", "s11_bulk_calls_are_their_single_calls", 3),
    ("set_many_forgets_the_last", "the last of a batch is not written", "s11_bulk_calls_are_their_single_calls", 3),
    ("set_many_writes_one_value", "every key gets the first value", "s11_bulk_calls_are_their_single_calls", 3),
    ("set_many_answers_once", "one result for the whole batch", "s11_bulk_calls_are_their_single_calls", 2),
    ("renew_keeps_deadlines", "a renewed entry keeps its old deadlines", "s13_a_renewal_is_a_write", 6),
    ("renew_keeps_the_origin", "a renewed entry keeps its old creation", "s13_a_renewal_is_a_write", 6),
    ("renew_only_lengthens", "a renewal with earlier deadlines is ignored", "s13_a_renewal_is_a_write", 6),
    ("renew_keeps_another_value", "a renewal with another value leaves the old one", "s13_a_renewal_is_a_write", 6),
    ("renew_ignores_another_value", "a renewal of another value stores nothing", "s13_a_renewal_is_a_write", 6),
    ("renew_ignores_what_is_absent", "a renewal of what is absent stores nothing", "s13_a_renewal_is_a_write", 6),
    ("renew_keeps_labels", "a renewal with other labels leaves the old ones", "s13_a_renewal_is_a_write", 6),
    ("renew_drops_tags", "a renewed entry has no tags", "s13_a_renewal_is_a_write", 6),
    ("remove_many_stops_at_a_miss", "a bulk removal stops at what is absent", "s11_bulk_calls_are_their_single_calls", 4),
    ("remove_many_clears_on_nothing", "an empty bulk removal clears", "s11_overrides_are_their_defaults", 3),
];

fn shelf(bug: &'static str, trial: &Trial) -> Check<Shelf> {
    let shared = Arc::new(Mutex::new(Held::default()));
    let small = bug.contains("bound")
        || bug.contains("one_entry")
        || bug.contains("evicts")
        || bug.contains("_use")
        || bug.contains("place");
    let (entries, bytes, largest) = if small { (3, 4_096, usize::MAX) } else { (5_000, u64::MAX, 100_000) };
    let make = move |site: Site| {
        let mut shelf = Shelf::new(bug, entries, site.clock());
        (shelf.max_bytes, shelf.largest) = (bytes, largest);
        if bug == "shared_between_instances" {
            shelf.held = Arc::clone(&shared);
        }
        shelf
    };
    let mut check =
        check("shelf", make).peeks().counts().weighs().expires().evicts_on_demand().clears_prefixes();
    check = check.max_entries(entries as u64).seed(trial.seed);
    check = if small {
        check.max_bytes(bytes).evicts(Order::LeastRecentlyUsed)
    } else {
        check.largest_value(largest as u64)
    };
    if bug == "get_blocks" {
        check = check.patience(std::time::Duration::from_millis(500));
    }
    if let Some(cases) = trial.cases {
        check = check.cases(cases);
    }
    if let Some(law) = trial.only { check.only(law) } else { check }
}

/// The check of a bug with a case to run again.
#[cfg(test)]
pub(super) fn replayed(bug: &'static str, replay: &str) -> crate::testkit::Report {
    shelf(bug, &Trial { cases: None, seed: 0, only: None }).replay(replay).run()
}

/// The check of a bug by stores that all hold this.
#[cfg(test)]
pub(super) fn counted(bug: &'static str, token: &Arc<()>) -> crate::testkit::Report {
    let token = Arc::clone(token);
    let make = move |site: Site| {
        let mut shelf = Shelf::new(bug, 100, site.clock());
        shelf.token = Some(Arc::clone(&token));
        shelf
    };
    check("counted", make).cases(16).run()
}

pub(super) fn mutants() -> Vec<Mutant> {
    by_name(LINES, |name, trial| shelf(name, trial).run())
}

pub(super) fn healthy() -> Vec<Healthy> {
    vec![
        Healthy { name: "shelf", check: Box::new(|trial| shelf("", trial).run()) },
        Healthy { name: "small shelf", check: Box::new(|trial| shelf("bound", trial).run()) },
    ]
}
