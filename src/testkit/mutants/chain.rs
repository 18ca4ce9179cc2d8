//! A small chain, healthy but for one switch a bug.

mod batch;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Healthy, Mutant, Trial};
use crate::entry::{Entry, Freshness, Lifetime};
use crate::error::Result;
use crate::store::{SetOutcome, Store};
use crate::sync::Mutex;
use crate::testkit::{Report, Tier, check_chain};
use crate::time::{Clock, Timestamp};

const C1: &str = "c1_first_usable_answer";
const C2: &str = "c2_backfill_is_the_same_entry_and_happens";
const C3: &str = "c3_no_backfill_after_a_write";
const REGISTER: &str = "c4_a_healthy_chain_forgets_nothing";
const FLICKER: &str = "c4_no_reader_sees_it_flicker";
const ORDER: &str = "c4_the_deepest_tier_decides";
const READ: &str = "c5_a_read_fails_only_if_no_tier_answered";
const BACKFILL: &str = "c5_a_failed_backfill_fails_no_read";
const WRITE: &str = "c5_a_failed_write_is_reported_and_remembered";
const BACK: &str = "c6_nothing_comes_back_with_a_tier";
const RACE: &str = "c6_nothing_goes_back_in_an_outage";
const LIFTED: &str = "c6_a_mark_is_lifted_when_a_write_got_through";
const SPARES: &str = "c6_a_retried_removal_spares_a_newer_write";
const BATCH: &str = "s11_a_batch_is_its_single_calls";
const PATIENCE: &str = "c8_a_reader_never_waits_for_a_writer";

/// Every bug of this family: its name, what is wrong, the law that must fall, the most steps.
#[rustfmt::skip]
const LIST: &[(Bug, &str, &str, &str, usize)] = &[
    (Bug::FirstEntryAnswers, "chain_stale_hides_fresh", "a stale upper entry hides a fresh lower one", C1, 6),
    (Bug::LowerAnswersLast, "chain_lower_of_two_stale", "of two stale entries the lower one, not the one that stays fresh longest", C1, 6),
    (Bug::BulkIgnoresInstant, "chain_bulk_ignores_the_instant", "get_many is content with a stale upper entry", C1, 6),
    (Bug::BulkSkipsBelow, "chain_bulk_skips_below", "get_many never asks the lower tier", C1, 6),
    (Bug::NoBackfill, "chain_no_backfill", "nothing is ever copied upwards", C2, 6),
    (Bug::NoBulkBackfill, "chain_no_bulk_backfill", "get_many copies nothing upwards", C2, 6),
    (Bug::BackfillExtends, "chain_backfill_extends_life", "a copy is fresh for longer than its original", C2, 6),
    (Bug::BackfillRedates, "chain_backfill_redates", "a copy is created when it is copied", C2, 6),
    (Bug::BackfillDead, "chain_backfill_of_dead", "a dead entry is copied upwards", C2, 6),
    (Bug::BackfillDropsTags, "chain_backfill_drops_tags", "a copy has no tags", C2, 6),
    (Bug::BackfillDropsVersion, "chain_backfill_drops_version", "a copy has no version", C2, 6),
    (Bug::BackfillMoves, "chain_backfill_moves", "what is copied upwards is removed below", C2, 6),
    (Bug::Unfenced, "chain_backfill_unfenced", "a backfill does not ask whether somebody wrote", C3, 6),
    (Bug::FencedAtBegin, "chain_fenced_once", "the fence moves when a write begins, not when it ends", C3, 6),
    (Bug::RemovalUnfenced, "chain_removal_unfenced", "a removal moves no fence", C3, 6),
    (Bug::ClearUnfenced, "chain_clear_unfenced", "a clear moves no fence", C3, 6),
    (Bug::BackfillWithoutTurn, "chain_backfill_without_turn", "a backfill looks at the fence and then writes without a turn", C3, 6),
    (Bug::PassTakenLate, "chain_pass_taken_late", "the fence is looked at after the lower tier was read", C3, 6),
    (Bug::RemoveOnlyAbove, "chain_remove_only_above", "a removal does not reach the lower tier", REGISTER, 6),
    (Bug::RemoveOnlyBelow, "chain_remove_only_below", "a removal does not reach the upper tier", REGISTER, 6),
    (Bug::ClearOnlyAbove, "chain_clear_only_above", "a clear does not reach the lower tier", REGISTER, 6),
    (Bug::ClearOnlyBelow, "chain_clear_only_below", "a clear does not reach the upper tier", REGISTER, 6),
    (Bug::SetOnlyAbove, "chain_set_only_above", "a write does not reach the lower tier", REGISTER, 6),
    (Bug::SetOnlyBelow, "chain_set_leaves_upper", "a write leaves the old copy above", REGISTER, 6),
    (Bug::RemoveDeepFirst, "chain_remove_deep_first", "a removal goes from the bottom up", ORDER, 6),
    (Bug::ClearDeepFirst, "chain_clear_deep_first", "a clear goes from the bottom up", ORDER, 6),
    (Bug::SetFillsAboveFirst, "chain_set_fills_above_first", "a write fills the upper tier before the lower one", ORDER, 6),
    (Bug::SetKeepsUpper, "chain_set_keeps_upper", "a write does not drop the upper copy first", ORDER, 6),
    (Bug::NoTurns, "chain_no_turns", "writers of one key do not take turns", FLICKER, 6),
    (Bug::SetManyWithoutFill, "chain_set_many_without_fill", "set_many writes below and leaves the old copies above", REGISTER, 6),
    (Bug::BulkFillsAboveFirst, "chain_set_many_fills_above_first", "set_many fills the upper tier before the lower one", ORDER, 6),
    (Bug::BulkRemovesDeepFirst, "chain_remove_many_deep_first", "remove_many goes from the bottom up", ORDER, 6),
    (Bug::BulkUnfenced, "chain_bulk_write_unfenced", "set_many and remove_many move no fence", C3, 6),
    (Bug::BulkWithoutTurn, "chain_set_many_without_turn", "set_many writes beside other writers of its keys", FLICKER, 6),
    (Bug::BulkBackfillUnfenced, "chain_bulk_backfill_unfenced", "get_many copies upwards without asking whether somebody wrote", C3, 6),
    (Bug::BulkReversed, "chain_get_many_out_of_order", "the results of get_many are in another order", BATCH, 6),
    (Bug::BulkSetReversed, "chain_set_many_out_of_order", "the results of set_many are in another order", BATCH, 6),
    (Bug::BulkFailsTogether, "chain_bulk_one_error_for_all", "one key that fails fails its whole batch", BATCH, 6),
    (Bug::BulkStopsAtFailure, "chain_set_many_stops_at_failure", "set_many ends at the first key that fails", BATCH, 6),
    (Bug::BulkFailureForgotten, "chain_bulk_failure_forgotten", "a write or removal that failed in a batch is forgotten", BACK, 6),
    (Bug::DuplicatesKeepFirst, "chain_set_many_keeps_the_first", "of a key given twice the first entry wins", BATCH, 6),
    (Bug::RenewOnlyAbove, "chain_renews_only_above", "a renewal does not reach the lower tier", REGISTER, 6),
    (Bug::RenewOnlyBelow, "chain_renews_only_below", "a renewal does not reach the upper tier", REGISTER, 6),
    (Bug::RenewAboveFirst, "chain_renews_above_first", "a renewal goes from the top down", FLICKER, 6),
    (Bug::RenewShowsOld, "chain_renewal_shows_the_old", "the upper copy is in use while the lower one is renewed", ORDER, 6),
    (Bug::RenewUnfenced, "chain_renewal_unfenced", "a renewal moves no fence", C3, 6),
    (Bug::RenewKeepsDeadlines, "chain_renewal_keeps_deadlines", "a renewed entry keeps its old deadlines", REGISTER, 6),
    (Bug::RenewKeepsValue, "chain_renewal_keeps_the_value", "a renewal with another value leaves the old one", REGISTER, 6),
    (Bug::RenewKeepsLabels, "chain_renewal_keeps_labels", "a renewal with other labels leaves the old ones", REGISTER, 6),
    (Bug::RenewIgnoresAbsent, "chain_renewal_of_absent_ignored", "a renewal of what is not held stores nothing", REGISTER, 6),
    (Bug::RenewFailureForgotten, "chain_failed_renewal_above_forgotten", "a renewal that failed above is forgotten", BACK, 6),
    (Bug::RenewDroppedForgotten, "chain_dropped_renewal_forgotten", "the old copy is in use again after a renewal was dropped", FLICKER, 6),
    (Bug::UpperErrorFailsGet, "chain_error_above_fails_get", "an error above fails the get", READ, 6),
    (Bug::LowerErrorIsMiss, "chain_outage_is_a_miss", "an outage of the deepest tier is a miss", READ, 6),
    (Bug::LowerErrorHidesStale, "chain_error_below_hides_stale", "an error below, though the upper tier holds a stale entry", READ, 6),
    (Bug::BulkErrorFailsAll, "chain_bulk_error_fails_get", "an error above fails the key in get_many", READ, 6),
    (Bug::BackfillErrorFailsGet, "chain_backfill_error_fails_get", "a backfill that fails fails the get", BACKFILL, 6),
    (Bug::RefusedBackfillIsMiss, "chain_refused_backfill_is_a_miss", "what the upper tier refuses is not returned", BACKFILL, 6),
    (Bug::SetErrorSwallowed, "chain_set_error_swallowed", "a failed write below is told as stored", WRITE, 6),
    (Bug::RemoveErrorSwallowed, "chain_remove_error_swallowed", "a failed removal below is told as done", WRITE, 6),
    (Bug::ClearErrorSwallowed, "chain_clear_error_swallowed", "a failed clear below is told as done", WRITE, 6),
    (Bug::UpperErrorFailsSet, "chain_error_above_fails_set", "a failed write above fails the set", WRITE, 6),
    (Bug::UpperErrorSkipsBelow, "chain_error_above_skips_below", "the lower tier is not written when the upper copy cannot be dropped", WRITE, 6),
    (Bug::LowerErrorSkipsAbove, "chain_error_below_skips_above", "the upper tier is not filled when the write below failed", WRITE, 6),
    (Bug::RefusedBelowIsRefused, "chain_refused_below_speaks_for_both", "a refusal below is the answer, though the upper tier took it", WRITE, 6),
    (Bug::RefusedAboveIsRefused, "chain_refused_above_speaks_for_both", "a refusal above is the answer, though the lower tier took it", WRITE, 6),
    (Bug::StrictKeepsAbove, "chain_strict_not_taken_back", "a strict chain remembers above what failed below", WRITE, 6),
    (Bug::UpperErrorLeavesOld, "chain_set_error_above_leaves_the_old", "a write that fails above leaves the old copy there in use", BACK, 6),
    (Bug::RemovalAboveForgotten, "chain_failed_removal_above_forgotten", "a removal that failed above is forgotten", BACK, 6),
    (Bug::RemovalBelowForgotten, "chain_failed_removal_below_forgotten", "a removal that failed below is forgotten", BACK, 6),
    (Bug::SetBelowForgotten, "chain_failed_set_below_forgotten", "a write that failed below is forgotten", BACK, 6),
    (Bug::ClearForgotten, "chain_failed_clear_forgotten", "a clear that failed is forgotten", BACK, 6),
    (Bug::MarkLiftedByFailure, "chain_mark_lifted_by_a_failed_write", "a write that fails lifts the mark", BACK, 6),
    (Bug::MarkLiftedByOther, "chain_mark_lifted_by_other_key", "a write lifts the marks of all keys", RACE, 6),
    (Bug::PeekShowsMarked, "chain_peek_shows_marked", "a peek shows a copy that counts as absent", BACK, 6),
    (Bug::BulkIgnoresMarks, "chain_bulk_ignores_marks", "get_many reads copies that count as absent", BACK, 6),
    (Bug::MarkForgottenOnRetry, "chain_mark_forgotten_on_failed_retry", "a removal that is retried in vain is forgotten", BACK, 6),
    (Bug::MarkNeverLifted, "chain_mark_never_lifted", "a key that is marked once is never served from that tier again", LIFTED, 6),
    (Bug::NeverRetried, "chain_removal_never_retried", "a failed removal is not made up for", LIFTED, 6),
    (Bug::RetryTakesNewer, "chain_retry_takes_newer_write", "a removal is retried without a turn", SPARES, 6),
    (Bug::BackfillWaits, "chain_backfill_waits", "a backfill waits for the writer", PATIENCE, 6),
    (Bug::ReadWaits, "chain_read_waits", "a read waits for the writer", PATIENCE, 6),
    (Bug::BulkReadWaits, "chain_bulk_read_waits", "get_many waits for the writer", PATIENCE, 6),
];

pub(crate) fn mutants() -> Vec<Mutant> {
    let mutant =
        |&(bug, name, wrong, law, steps): &(Bug, &'static str, &'static str, &'static str, usize)| Mutant {
            name,
            wrong,
            law,
            steps,
            check: Box::new(move |trial| try_out(bug, bug == Bug::StrictKeepsAbove, trial)),
        };
    LIST.iter().map(mutant).collect()
}

pub(crate) fn healthy() -> Vec<Healthy> {
    let healthy =
        |name, strict| Healthy { name, check: Box::new(move |trial| try_out(Bug::None, strict, trial)) };
    vec![healthy("toy chain", false), healthy("strict toy chain", true)]
}

fn try_out(bug: Bug, strict: bool, trial: &Trial) -> Report {
    let join = move |upper, lower, clock| Toy::new(upper, lower, clock, bug, strict);
    let mut check = check_chain("toy chain", join).seed(trial.seed);
    if strict {
        check = check.strict();
    }
    if let Some(cases) = trial.cases {
        check = check.cases(cases);
    }
    if let Some(law) = trial.only {
        check = check.only(law);
    }
    check.run()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    FirstEntryAnswers,
    LowerAnswersLast,
    BulkIgnoresInstant,
    BulkSkipsBelow,
    NoBackfill,
    NoBulkBackfill,
    BackfillExtends,
    BackfillRedates,
    BackfillDead,
    BackfillDropsTags,
    BackfillDropsVersion,
    BackfillMoves,
    Unfenced,
    FencedAtBegin,
    RemovalUnfenced,
    ClearUnfenced,
    BackfillWithoutTurn,
    PassTakenLate,
    RemoveOnlyAbove,
    RemoveOnlyBelow,
    ClearOnlyAbove,
    ClearOnlyBelow,
    SetOnlyAbove,
    SetOnlyBelow,
    RemoveDeepFirst,
    ClearDeepFirst,
    SetFillsAboveFirst,
    SetKeepsUpper,
    NoTurns,
    SetManyWithoutFill,
    BulkFillsAboveFirst,
    BulkRemovesDeepFirst,
    BulkUnfenced,
    BulkWithoutTurn,
    BulkBackfillUnfenced,
    BulkReversed,
    BulkSetReversed,
    BulkFailsTogether,
    BulkStopsAtFailure,
    BulkFailureForgotten,
    DuplicatesKeepFirst,
    RenewOnlyAbove,
    RenewOnlyBelow,
    RenewAboveFirst,
    RenewShowsOld,
    RenewUnfenced,
    RenewKeepsDeadlines,
    RenewKeepsValue,
    RenewKeepsLabels,
    RenewIgnoresAbsent,
    RenewFailureForgotten,
    RenewDroppedForgotten,
    UpperErrorFailsGet,
    LowerErrorIsMiss,
    LowerErrorHidesStale,
    BulkErrorFailsAll,
    BackfillErrorFailsGet,
    RefusedBackfillIsMiss,
    SetErrorSwallowed,
    RemoveErrorSwallowed,
    ClearErrorSwallowed,
    UpperErrorFailsSet,
    UpperErrorSkipsBelow,
    LowerErrorSkipsAbove,
    RefusedBelowIsRefused,
    RefusedAboveIsRefused,
    StrictKeepsAbove,
    UpperErrorLeavesOld,
    RemovalAboveForgotten,
    RemovalBelowForgotten,
    SetBelowForgotten,
    ClearForgotten,
    MarkLiftedByFailure,
    MarkLiftedByOther,
    PeekShowsMarked,
    BulkIgnoresMarks,
    MarkForgottenOnRetry,
    MarkNeverLifted,
    NeverRetried,
    RetryTakesNewer,
    BackfillWaits,
    ReadWaits,
    BulkReadWaits,
}

/// One fence and one turn for all keys: slower than the real one, and as correct.
struct Toy {
    tiers: [Tier; 2],
    clock: Arc<dyn Clock>,
    strict: bool,
    bug: Bug,
    turn: tokio::sync::Mutex<()>,
    epoch: AtomicU64,
    marks: [Mutex<Marks>; 2],
    /// Keys whose copy above counts as absent while it is renewed.
    hidden: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct Marks {
    keys: HashSet<String>,
    fence: Option<Timestamp>,
}

type Found = Result<Option<Entry<u64>>>;

const UPPER: usize = 0;
const LOWER: usize = 1;

/// Moves the fence when it begins and when it ends.
struct Turn<'a> {
    toy: &'a Toy,
    fenced: bool,
    _held: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.fenced && self.toy.bug != Bug::FencedAtBegin {
            self.toy.epoch.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Toy {
    fn new(upper: Tier, lower: Tier, clock: Arc<dyn Clock>, bug: Bug, strict: bool) -> Self {
        let turn = tokio::sync::Mutex::new(());
        let (epoch, marks, hidden) =
            (AtomicU64::new(0), [Mutex::default(), Mutex::default()], Mutex::default());
        Self { tiers: [upper, lower], clock, strict, bug, turn, epoch, marks, hidden }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    async fn turn(&self, fenced: bool) -> Turn<'_> {
        let held = if self.has(Bug::NoTurns) { None } else { Some(self.turn.lock().await) };
        self.begin(fenced, held)
    }

    fn begin<'a>(&'a self, fenced: bool, held: Option<tokio::sync::MutexGuard<'a, ()>>) -> Turn<'a> {
        if fenced {
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        Turn { toy: self, fenced, _held: held }
    }

    fn marked(&self, tier: usize, key: &str) -> bool {
        self.marks[tier].lock().keys.contains(key)
    }

    fn admits(&self, tier: usize, entry: &Entry<u64>) -> bool {
        self.marks[tier].lock().fence.is_none_or(|fence| entry.created_at() > fence)
    }

    fn note<T>(&self, tier: usize, key: &str, outcome: &Result<T>, forgotten: bool) {
        let mut marks = self.marks[tier].lock();
        if outcome.is_err() && !self.has(Bug::MarkLiftedByFailure) {
            if !forgotten {
                marks.keys.insert(key.to_owned());
            }
        } else if self.has(Bug::MarkLiftedByFailure) && outcome.is_err() {
            if !marks.keys.remove(key) {
                marks.keys.insert(key.to_owned());
            }
        } else if self.has(Bug::MarkLiftedByOther) {
            marks.keys.clear();
        } else if !self.has(Bug::MarkNeverLifted) {
            marks.keys.remove(key);
        }
    }

    async fn read(&self, tier: usize, key: &str, now: Timestamp, heeds: bool) -> Found {
        if heeds && self.marked(tier, key) {
            self.repair(tier, key).await;
            return Ok(None);
        }
        if tier == UPPER && self.hidden.lock().contains(key) {
            return Ok(None);
        }
        let found = self.tiers[tier].get_at(key, now).await?;
        Ok(found.filter(|entry| self.admits(tier, entry)))
    }

    async fn repair(&self, tier: usize, key: &str) {
        if self.has(Bug::NeverRetried) {
            return;
        }
        let held = self.turn.try_lock().ok();
        if held.is_none() && !self.has(Bug::RetryTakesNewer) {
            return;
        }
        let held = if self.has(Bug::RetryTakesNewer) { None } else { held };
        let _turn = self.begin(true, held);
        if self.has(Bug::RetryTakesNewer) || self.marked(tier, key) {
            let removed = self.tiers[tier].remove(key).await;
            if removed.is_ok() || self.has(Bug::MarkForgottenOnRetry) {
                self.note(tier, key, &Ok(()), false);
            }
        }
    }

    async fn settle(
        &self,
        key: &str,
        now: Timestamp,
        above: Found,
        below: Found,
        epoch: u64,
        bulk: bool,
    ) -> Found {
        let answered = above.is_ok();
        if above.is_err() && (self.has(Bug::UpperErrorFailsGet) || bulk && self.has(Bug::BulkErrorFailsAll)) {
            return above;
        }
        let above = above.unwrap_or_default();
        let below = match below {
            Err(_) if self.has(Bug::LowerErrorIsMiss) => return Ok(above),
            Err(error) if self.has(Bug::LowerErrorHidesStale) => return Err(error),
            Err(error) => return above.map_or(Err(error), |entry| Ok(Some(entry))),
            Ok(below) => below,
        };
        let Some(below) = below else { return Ok(above) };
        if let Some(above) = above
            && above.lifetime().fresh_until() >= below.lifetime().fresh_until()
            && !self.has(Bug::LowerAnswersLast)
        {
            return Ok(Some(above));
        }
        let dead = below.freshness(now) == Freshness::Dead && !self.has(Bug::BackfillDead);
        let never = self.has(Bug::NoBackfill) || bulk && self.has(Bug::NoBulkBackfill);
        if answered && !dead && !never {
            return self.backfill(key, below, epoch, bulk && self.has(Bug::BulkBackfillUnfenced)).await;
        }
        Ok(Some(below))
    }

    async fn backfill(&self, key: &str, entry: Entry<u64>, epoch: u64, unfenced: bool) -> Found {
        let held = if self.has(Bug::BackfillWaits) {
            Some(self.turn.lock().await)
        } else {
            self.turn.try_lock().ok()
        };
        let unfenced = unfenced || self.has(Bug::Unfenced);
        if held.is_none() && !self.has(Bug::NoTurns) && !unfenced {
            return Ok(Some(entry));
        }
        if self.epoch.load(Ordering::SeqCst) != epoch && !unfenced {
            return Ok(Some(entry));
        }
        let bare = self.has(Bug::BackfillWithoutTurn) || unfenced;
        let held = held.filter(|_| !bare);
        let _turn = self.begin(!bare, held);
        let set = self.tiers[UPPER].set(key, self.copied(&entry)).await;
        self.note(UPPER, key, &set, false);
        if self.has(Bug::BackfillMoves) {
            self.tiers[LOWER].remove(key).await?;
        }
        match set {
            Err(error) if self.has(Bug::BackfillErrorFailsGet) => Err(error),
            Ok(SetOutcome::Refused(_)) if self.has(Bug::RefusedBackfillIsMiss) => Ok(None),
            _ => Ok(Some(entry)),
        }
    }

    fn copied(&self, entry: &Entry<u64>) -> Entry<u64> {
        let life = entry.lifetime();
        let tags = entry.tags().to_vec();
        match self.bug {
            Bug::BackfillExtends => {
                let fresh = life.fresh_until().saturating_add(Duration::from_nanos(1));
                let longer = Lifetime::new(life.created_at(), fresh, life.stale_until(), life.keep_until());
                entry.clone().with_lifetime(longer)
            }
            Bug::BackfillRedates => {
                let (fresh, stale) = (life.fresh_until(), life.stale_until());
                entry.clone().with_lifetime(Lifetime::new(self.clock.now(), fresh, stale, life.keep_until()))
            }
            Bug::BackfillDropsTags => entry.clone().with_tags(Vec::<String>::new()),
            Bug::BackfillDropsVersion => Entry::new(*entry.value(), life).with_tags(tags),
            _ => entry.clone(),
        }
    }

    async fn find(&self, key: &str, now: Timestamp, bulk: bool) -> Found {
        if self.has(Bug::ReadWaits) || bulk && self.has(Bug::BulkReadWaits) {
            drop(self.turn.lock().await);
        }
        let heeds = !(bulk && self.has(Bug::BulkIgnoresMarks));
        let above = self.read(UPPER, key, now, heeds).await;
        let content = self.has(Bug::FirstEntryAnswers) || bulk && self.has(Bug::BulkIgnoresInstant);
        if let Ok(Some(entry)) = &above
            && (content || entry.freshness(now) == Freshness::Fresh)
        {
            return above;
        }
        if bulk && self.has(Bug::BulkSkipsBelow) {
            return above;
        }
        let mut epoch = self.epoch.load(Ordering::SeqCst);
        let below = self.read(LOWER, key, now, heeds).await;
        if self.has(Bug::PassTakenLate) {
            epoch = self.epoch.load(Ordering::SeqCst);
        }
        self.settle(key, now, above, below, epoch, bulk).await
    }

    async fn write(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        let _turn = self.turn(true).await;
        let [upper, lower] = &self.tiers;
        let forgotten = self.has(Bug::UpperErrorLeavesOld);
        if self.has(Bug::SetOnlyAbove) {
            return upper.set(key, entry).await;
        }
        if self.has(Bug::SetFillsAboveFirst) {
            let above = upper.set(key, entry.clone()).await;
            self.note(UPPER, key, &above, forgotten);
        } else if !self.has(Bug::SetKeepsUpper) && !self.has(Bug::SetOnlyBelow) {
            let dropped = upper.remove(key).await;
            self.note(UPPER, key, &dropped, forgotten);
            if dropped.is_err() && self.has(Bug::UpperErrorSkipsBelow) {
                return upper.set(key, entry).await;
            }
        }
        let below = lower.set(key, entry.clone()).await;
        self.note(LOWER, key, &below, self.has(Bug::SetBelowForgotten));
        let gives_up = self.strict && !self.has(Bug::StrictKeepsAbove) || self.has(Bug::LowerErrorSkipsAbove);
        if below.is_err() && gives_up || self.has(Bug::SetOnlyBelow) {
            return below;
        }
        let above = if self.has(Bug::SetFillsAboveFirst) {
            Ok(SetOutcome::Stored)
        } else {
            upper.set(key, entry).await
        };
        self.note(UPPER, key, &above, forgotten);
        if self.has(Bug::UpperErrorFailsSet) {
            above.clone()?;
        }
        match (below, above) {
            (Err(_), above) if self.has(Bug::SetErrorSwallowed) => above,
            (Err(error), _) => Err(error),
            (Ok(below @ SetOutcome::Refused(_)), _) if self.has(Bug::RefusedBelowIsRefused) => Ok(below),
            (Ok(_), Ok(above @ SetOutcome::Refused(_))) if self.has(Bug::RefusedAboveIsRefused) => Ok(above),
            (Ok(SetOutcome::Refused(_)), Ok(above)) => Ok(above),
            (Ok(below), _) => Ok(below),
        }
    }

    async fn clear_of(&self, tier: usize) -> Result<()> {
        let cleared = self.tiers[tier].clear().await;
        let mut marks = self.marks[tier].lock();
        if cleared.is_ok() {
            *marks = Marks::default();
        } else if !self.has(Bug::ClearForgotten) {
            marks.fence = marks.fence.max(Some(self.clock.now()));
        }
        cleared
    }
}

impl Store for Toy {
    type Key = str;
    type Value = u64;

    async fn get(&self, key: &str) -> Found {
        self.find(key, Timestamp::EPOCH, false).await
    }

    async fn set(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.write(key, entry).await
    }

    async fn renew(&self, key: &str, entry: Entry<u64>) -> Result<SetOutcome> {
        self.renewed(key, entry).await
    }

    async fn remove(&self, key: &str) -> Result<()> {
        let _turn = self.turn(!self.has(Bug::RemovalUnfenced)).await;
        if self.has(Bug::RemoveOnlyAbove) {
            return self.remove_from(UPPER, key, Bug::None).await;
        }
        if self.has(Bug::RemoveOnlyBelow) {
            return self.remove_from(LOWER, key, Bug::None).await;
        }
        if self.has(Bug::RemoveDeepFirst) {
            self.remove_from(LOWER, key, Bug::None).await?;
            return self.remove_from(UPPER, key, Bug::None).await;
        }
        let above = self.remove_from(UPPER, key, Bug::RemovalAboveForgotten).await;
        let below = self.remove_from(LOWER, key, Bug::RemovalBelowForgotten).await;
        if self.has(Bug::RemoveErrorSwallowed) { Ok(()) } else { below.and(above) }
    }

    async fn clear(&self) -> Result<()> {
        let _turn = self.turn(!self.has(Bug::ClearUnfenced)).await;
        if self.has(Bug::ClearOnlyAbove) {
            return self.clear_of(UPPER).await;
        }
        if self.has(Bug::ClearOnlyBelow) {
            return self.clear_of(LOWER).await;
        }
        if self.has(Bug::ClearDeepFirst) {
            return self.clear_of(LOWER).await.and(self.clear_of(UPPER).await);
        }
        let above = self.clear_of(UPPER).await;
        let below = self.clear_of(LOWER).await;
        if self.has(Bug::ClearErrorSwallowed) { Ok(()) } else { below.and(above) }
    }

    async fn get_at(&self, key: &str, now: Timestamp) -> Found {
        self.find(key, now, false).await
    }

    fn peek_with<R>(&self, key: &str, read: impl FnOnce(&Entry<u64>) -> R) -> Option<R> {
        if self.marked(UPPER, key) && !self.has(Bug::PeekShowsMarked) || self.hidden.lock().contains(key) {
            return None;
        }
        self.tiers[UPPER].peek_with(key, |entry| self.admits(UPPER, entry).then(|| read(entry))).flatten()
    }

    async fn get_many(&self, keys: &[&str], now: Timestamp) -> Vec<Found> {
        self.find_many(keys, now).await
    }

    async fn set_many(&self, entries: &[(&str, Entry<u64>)]) -> Vec<Result<SetOutcome>> {
        self.write_many(entries).await
    }

    async fn remove_many(&self, keys: &[&str]) -> Vec<Result<()>> {
        self.drop_many(keys).await
    }

    async fn flush(&self) -> Result<()> {
        self.tiers[LOWER].flush().await
    }
}
