//! Engines with a bug.

mod toy;

use std::sync::Arc;

use crate::testkit::engine::{EngineCheck, Subject};
use crate::testkit::mutants::{Healthy, Mutant, Trial};
use crate::testkit::report::Report;
use toy::Toy;

/// A bug a line: its switch, what is wrong, the law that must fall, the most steps.
macro_rules! bugs {
    ($($name:ident $wrong:literal $law:literal $steps:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Bug {
            None,
            $($name,)*
        }

        const BUGS: &[(Bug, &str, &str, &str, usize)] = &[
            $((Bug::$name, concat!("engine/", stringify!($name)), $wrong, $law, $steps),)*
        ];
    };
}

bugs! {
    FreshTooLong "an entry is fresh for one tick after its deadline" "e1_nothing_expired_is_served" 6;
    FreshTooShort "the deadline itself is not fresh any more" "e1_nothing_expired_is_served" 6;
    StaleTooLong "an entry is served stale for one tick after its window" "e1_nothing_expired_is_served" 6;
    StaleTooShort "the end of the stale window is not in it" "e2_stale_at_once_and_one_refresh" 6;
    KeptTooLong "a dead entry is served on error for one tick" "e1_nothing_expired_is_served" 6;
    KeptTooShort "the last instant of the time an entry is kept is not in it" "e8_stale_on_error" 6;
    DeadServedOnError "an error is swallowed and the dead entry served" "e1_nothing_expired_is_served" 6;
    ExpiredServedStale "what is kept for errors is served without one" "e1_nothing_expired_is_served" 6;
    PeekServesStale "peek does not ask whether the entry is fresh or stale" "e1_nothing_expired_is_served" 6;
    GetServesStale "get does not ask whether the entry is fresh or stale" "e1_nothing_expired_is_served" 6;
    GetDoesNotJudge "get answers whatever the store holds" "e1_nothing_expired_is_served" 6;
    StaleWithoutRefresh "a stale entry is served and nobody refreshes" "e2_stale_at_once_and_one_refresh" 6;
    WaitsForRefresh "the caller of a stale entry waits for its refresh" "e2_stale_at_once_and_one_refresh" 6;
    WaitsForTheTierBelow "a stale hit above waits for the tier below" "e2_stale_at_once_and_one_refresh" 6;
    FailedRefreshFailsHit "a refresh that failed before its caller looked fails the stale hit" "e2_stale_at_once_and_one_refresh" 6;
    PermitLeaks "the permit of a refresh is never given back" "e2_stale_at_once_and_one_refresh" 6;
    RefreshNotCoalesced "each stale hit starts a refresh" "e3_one_flight" 6;
    ReadsBeforeJoining "each caller reads the store before it joins the flight" "e3_one_flight" 6;
    FollowersCompute "a follower computes for itself in the end" "e3_one_flight" 6;
    FencedJoinable "a flight that a write overtook may still be joined" "e4_no_resurrection" 6;
    RefreshOverWrite "a refresh is stored over a newer write" "e4_no_resurrection" 6;
    LoadOverWrite "a load is stored over a newer write" "e4_no_resurrection" 6;
    SetDoesNotFence "set overtakes no flight" "e4_no_resurrection" 6;
    RemoveDoesNotFence "remove overtakes no flight" "e4_no_resurrection" 6;
    ClearDoesNotFence "clear overtakes no flight" "e4_no_resurrection" 6;
    ClearFencesHalf "clear overtakes the flights of one shard only" "e4_no_resurrection" 6;
    WriteFencesOnce "a flight that was born beside a write may be joined after it" "e4_no_resurrection" 6;
    ClearFencesOnce "a flight that was born beside a clear may be joined after it" "e4_no_resurrection" 6;
    FencesAfterOnly "a write overtakes flights only when it ends" "e4_no_resurrection" 6;
    BornUnfenced "a flight that was born beside a write is stored" "e4_no_resurrection" 6;
    WriteDoesNotWait "a write does not wait for a result on its way to the store" "e4_no_resurrection" 6;
    HitStoresAgain "a hit stores its entry again" "e4_no_resurrection" 6;
    SetAcknowledgesEarly "set is acknowledged before it took place" "e4_no_resurrection" 6;
    RemoveSwallowsErrors "a removal that failed is acknowledged" "e11_store_failures_fail_no_computation" 6;
    DropKillsFollowers "followers fail when their leader goes away" "e5_nobody_hangs" 6;
    DropLosesLoad "a load ends when its caller goes away" "e5_nobody_hangs" 6;
    LoadsWithoutDeadline "a load has no deadline" "e5_nobody_hangs" 6;
    ReadsWithoutDeadline "the read before a load has no deadline" "e5_nobody_hangs" 6;
    WritesWithoutDeadline "the write after a load has no deadline" "e5_nobody_hangs" 6;
    WakesOne "only one of the waiting callers is woken" "e5_nobody_hangs" 6;
    PanickedFlightStays "followers go round and round on a flight that panicked" "e5_nobody_hangs" 6;
    NothingStored "what was computed is not stored" "e5_nobody_hangs" 6;
    ErrorCached "an error is kept for whoever comes later" "e6_errors_are_not_cached" 6;
    FailedFlightStays "a flight that failed stays in its table" "e6_errors_are_not_cached" 6;
    UnmappedLate "the flight leaves its table after its result is published" "e6_errors_are_not_cached" 6;
    PanicPoisons "after a panic the key stays taken" "e7_a_panic_poisons_nothing" 6;
    FollowersPanic "followers get the panic of their leader" "e7_a_panic_poisons_nothing" 6;
    FollowersGetError "followers get an error when their leader panics" "e7_a_panic_poisons_nothing" 6;
    PanicBecomesError "a panic is turned into an error" "e7_a_panic_poisons_nothing" 6;
    RefreshPanicUnwinds "a refresh that panicked before its caller looked unwinds there" "e7_a_panic_poisons_nothing" 6;
    NoStaleOnError "what is kept for errors is not served on one" "e8_stale_on_error" 6;
    KeepNotStored "an entry's time to be kept is not written into it" "e13_judgement" 6;
    OwnKeepUnserved "a value's own time to be kept is not honoured" "e8_stale_on_error" 6;
    FallbackAfterRemoval "what was removed meanwhile is served on error" "e8_stale_on_error" 6;
    FailedRefreshRemoves "a failed refresh drops the entry" "e8_stale_on_error" 6;
    FailedRefreshExtends "a failed refresh extends the entry's life" "e8_stale_on_error" 6;
    FailedRefreshEndsWindow "a failed refresh ends the stale window" "e8_stale_on_error" 6;
    FallbackStoredAgain "what is served on error is stored as if it were new" "e8_stale_on_error" 6;
    RefreshesUnbounded "as many refreshes run as there are keys" "e9_background_is_bounded" 6;
    PermitGivenBackEarly "a refresh gives its permit back before it ends" "e9_background_is_bounded" 6;
    RefreshesWithoutDeadline "a refresh has no deadline" "e9_background_is_bounded" 6;
    LoadsAfterShutdown "computations begin after a shutdown" "e9_background_is_bounded" 6;
    ShutdownRefusesStale "stale hits are refused after a shutdown" "e9_background_is_bounded" 6;
    OutlivesHandles "what runs in the background holds a handle" "e9_background_is_bounded" 6;
    BypassReads "a bypassed cache serves what it holds" "e10_bypass_touches_nothing" 6;
    BypassWrites "a bypassed cache stores what it computes" "e10_bypass_touches_nothing" 6;
    BypassSets "a bypassed cache stores what is set" "e10_bypass_touches_nothing" 6;
    BypassShares "callers of a bypassed cache share a computation" "e10_bypass_touches_nothing" 6;
    SetErrorFails "a store that takes no entry fails the computation" "e11_store_failures_fail_no_computation" 6;
    ReadErrorFails "a store that cannot be read fails the computation" "e11_store_failures_fail_no_computation" 6;
    RefusalFails "a refusal of the store fails the computation" "e11_store_failures_fail_no_computation" 6;
    StrictForgotten "a strict cache passes over store failures" "e11_store_failures_fail_no_computation" 6;
    GetSwallowsErrors "get takes a store that fails for one that holds nothing" "e11_store_failures_fail_no_computation" 6;
    FutureIsFresh "an entry from the future is fresh until then" "e12_the_clock_may_jump" 6;
    FutureIsDead "an entry from the future is not even served on error" "e12_the_clock_may_jump" 6;
    ClockBackPanics "a clock that steps back panics" "e12_the_clock_may_jump" 6;
    CreatedAtTheEnd "an entry's age counts from the end of its computation" "e13_judgement" 6;
    DeadlinesFromTheStart "deadlines count from the beginning of the computation" "e13_judgement" 6;
    TtlWraps "a very long ttl wraps around" "e13_judgement" 6;
    JitterLengthens "jitter makes a ttl longer" "e13_judgement" 6;
    WindowFromTheStart "the stale window counts from the computation" "e13_judgement" 6;
    KeptFromStale "the time an entry is kept counts from the end of its stale window" "e13_judgement" 6;
    OwnTermsIgnored "a value's own ttl and windows are ignored" "e13_judgement" 6;
    VersionLost "a value's version is not stored" "e13_judgement" 6;
    TagsLost "a value's tags are not stored" "e13_judgement" 6;
    UnchangedNotRenewed "an unchanged entry's life does not begin anew" "e13_judgement" 6;
    UnchangedLosesVersion "an unchanged entry loses its version" "e13_judgement" 6;
    GivesNothing "a computation is not given what is held" "e13_judgement" 6;
    NowBeforeRead "the clock is read before a slow read" "e13_judgement" 6;
    OneFlightForAll "all keys share one flight" "e14_identity" 6;
    HashForKey "keys of one hash share a flight" "e14_identity" 6;
    BatchOutOfOrder "a batch answers in the order of another" "e15_batches_equal_their_singles" 6;
    BatchComputesTwice "a key that is there twice is computed twice" "e15_batches_equal_their_singles" 6;
    BatchFollowsNobody "a batch computes what others are loading" "e15_batches_equal_their_singles" 6;
    BatchAsksBackwards "a computation is given its keys in another order" "e15_batches_equal_their_singles" 6;
    OneFailureFailsBatch "a key that fails takes the whole batch along" "e15_batches_equal_their_singles" 6;
    UnaskedIsStored "an answer that nobody asked for is stored" "e15_batches_equal_their_singles" 6;
    ForgottenKeyHangs "a key that was not answered is waited for" "e15_batches_equal_their_singles" 6;
    AbsentServesStale "what is absent is answered by what was there before" "e15_batches_equal_their_singles" 6;
    BatchPanicIsError "the panic of a batch is turned into an error" "e15_batches_equal_their_singles" 6;
    BatchPanicTakesFollowers "a batch panics with the computation that it followed" "e15_batches_equal_their_singles" 6;
    BatchWaitsFirst "a batch waits for what others load before it computes" "e15_batches_equal_their_singles" 6;
    BatchWaitsForStale "a batch waits for the refresh of what is stale" "e15_batches_equal_their_singles" 6;
    BatchDiesWithCaller "a batch ends with its caller, and its followers with it" "e15_batches_equal_their_singles" 6;
    BatchWithoutDeadline "the computation of a batch has no deadline" "e15_batches_equal_their_singles" 6;
    BatchStoresOvertaken "a batch stores what a write overtook" "e15_batches_equal_their_singles" 6;
    BatchReadsOneByOne "a batch reads key by key" "e15_batches_equal_their_singles" 6;
    BatchStoresOneByOne "a batch is stored key by key" "e15_batches_equal_their_singles" 6;
    SetManyDoesNotFence "set_many overtakes no flight" "e15_batches_equal_their_singles" 6;
    RemoveManyDoesNotFence "remove_many overtakes no flight" "e15_batches_equal_their_singles" 6;
    BatchStoresFirst "of a key that is set twice in a batch the first value is stored" "e15_batches_equal_their_singles" 6;
    AbsentForAsLong "what is absent has the ttl of what is there" "e16_not_found_has_a_lifetime_of_its_own" 6;
    AbsentServedStale "what is absent has a stale window" "e16_not_found_has_a_lifetime_of_its_own" 6;
    AbsentKept "what is absent is kept for errors" "e16_not_found_has_a_lifetime_of_its_own" 6;
    AbsentOwnTtlIgnored "an absent answer's own ttl is ignored" "e16_not_found_has_a_lifetime_of_its_own" 6;
    ErrorTooLong "an error is remembered for one tick too many" "e17_errors_are_remembered" 6;
    ErrorTooShort "an error is forgotten one tick too early" "e17_errors_are_remembered" 6;
    ErrorSurvivesSuccess "a success does not begin the row anew" "e17_errors_are_remembered" 8;
    ErrorSurvivesSet "set does not forget an error" "e17_errors_are_remembered" 6;
    ErrorSurvivesRemove "remove does not forget an error" "e17_errors_are_remembered" 6;
    ErrorSurvivesClear "clear does not forget an error" "e17_errors_are_remembered" 6;
    ErrorOfAnyKey "an error counts for every key" "e17_errors_are_remembered" 6;
    NoBackoff "the time of an error does not grow" "e17_errors_are_remembered" 6;
    BackoffUnbounded "the time of an error grows without end" "e17_errors_are_remembered" 9;
    BackoffOfAllKeys "failures of other keys count too" "e17_errors_are_remembered" 6;
    PredicateIgnored "errors are remembered whatever the predicate says" "e17_errors_are_remembered" 6;
    RefreshErrorsForgotten "the error of a refresh is not remembered" "e17_errors_are_remembered" 6;
    RememberedHidesKept "what is kept is not served while an error is remembered" "e17_errors_are_remembered" 6;
    OvertakenErrorRemembered "the error of a computation that was overtaken is remembered" "e17_errors_are_remembered" 6;
    EarlyNever "no fresh entry is ever due" "e18_early_refresh" 6;
    EarlyAtBirth "an entry is due as soon as it is there" "e18_early_refresh" 6;
    EarlyTooSoon "an entry is due a tick before less than the fraction is left" "e18_early_refresh" 6;
    EarlyTooLate "an entry is due a tick after less than the fraction is left" "e18_early_refresh" 6;
    EarlyNotCoalesced "each hit that is due starts a refresh" "e18_early_refresh" 6;
    EarlyWaits "the caller of an entry that is due waits for its refresh" "e18_early_refresh" 6;
    EarlyTakesItself "an early refresh takes the very copy that is due for a better one" "e18_early_refresh" 6;
    EarlyWithoutPause "each hit asks an origin that fails" "e18_early_refresh" 6;
    PeekIsATry "peek counts as a try, and the hit after it starts nothing" "e18_early_refresh" 6;
    SkipIsATry "a refresh that was skipped counts as a try" "e19_budget_of_refreshes" 6;
    EarlyUnbudgeted "early refreshes ask no budget" "e19_budget_of_refreshes" 6;
    RateIgnored "refreshes begin at any rate" "e19_budget_of_refreshes" 6;
    BurstUnbounded "what was not used of the rate is saved up for ever" "e19_budget_of_refreshes" 6;
    SoftServesNothing "the soft timeout serves nothing" "e20_patience" 6;
    SoftDropsLoad "the soft timeout drops the load" "e20_patience" 6;
    SoftServesOvertaken "the soft timeout serves what was removed meanwhile" "e20_patience" 6;
    SoftForLeadersOnly "who joined a load has no soft timeout" "e20_patience" 6;
    HardForLeadersOnly "who joined a load has no hard timeout" "e20_patience" 6;
    HardNever "there is no hard timeout" "e20_patience" 6;
    HardOfAnotherKind "the hard timeout is an error of another kind" "e20_patience" 6;
    DropKillsOthers "a load is dropped although somebody waits" "e20_patience" 6;
    NeverDrops "a load is not dropped" "e20_patience" 6;
    DropCountsWhoLeft "callers who went away keep a load" "e20_patience" 6;
    DropsUnasked "a load is dropped unasked" "e20_patience" 6;
    OwnPatienceIgnored "a caller's own patience is ignored" "e20_patience" 6;
    OneLoadTooMany "one load too many runs" "e21_loads_are_limited" 6;
    PlaceLeaks "the place of a load that did not end by itself is lost" "e21_loads_are_limited" 6;
    LastComeFirst "whoever came last has the next place" "e21_loads_are_limited" 6;
    QueueTooLong "one load too many waits" "e21_loads_are_limited" 6;
    QueueTooShort "one load too few may wait" "e21_loads_are_limited" 6;
    NobodyTurnedAway "any number of loads waits" "e21_loads_are_limited" 6;
    NoHitEvent "a hit tells nothing" "j_events_equal_the_model" 6;
    NoMissEvent "a miss tells nothing" "j_events_equal_the_model" 6;
    NoJoinedEvent "a follower tells nothing" "j_events_equal_the_model" 6;
    NoOvertakenEvent "a result that was overtaken tells nothing" "j_events_equal_the_model" 6;
    NoStoreFailedEvent "a store that failed tells nothing" "j_events_equal_the_model" 6;
    NoSkippedEvent "a refresh that was skipped tells nothing" "e19_budget_of_refreshes" 6;
    NoStaleOnErrorEvent "a stale entry on error tells nothing" "j_events_equal_the_model" 6;
    NoRefreshFailedEvent "a refresh that failed tells nothing" "j_events_equal_the_model" 6;
    StaleHitToldAsHit "a stale hit is told as a fresh one" "j_events_equal_the_model" 6;
    LoadToldTwice "the begin of a load is told twice" "j_events_equal_the_model" 6;
    FlightLeaks "a flight stays in its table when it has landed" "k_nothing_is_left" 6;
}

fn check(bug: Bug, name: &str, trial: &Trial) -> Report {
    let make = Arc::new(move |cache| Arc::new(Toy::new(&cache, bug)) as _);
    let mut check = EngineCheck::of(name, Subject { configure: None, make }).seed(trial.seed);
    if let Some(cases) = trial.cases {
        check = check.cases(cases);
    }
    if let Some(law) = trial.only {
        check = check.only(law);
    }
    check.run()
}

/// Every bug of the family.
pub(super) fn mutants() -> Vec<Mutant> {
    let mutant =
        |&(bug, name, wrong, law, steps): &(Bug, &'static str, &'static str, &'static str, usize)| Mutant {
            name,
            wrong,
            law,
            steps,
            check: Box::new(move |trial| check(bug, name, trial)),
        };
    BUGS.iter().map(mutant).collect()
}

/// The same engine without a bug, and the cache itself.
pub(super) fn healthy() -> Vec<Healthy> {
    let cache = |trial: &Trial| {
        let mut check = EngineCheck::of("engine/cache", Subject::cache()).seed(trial.seed);
        if let Some(cases) = trial.cases {
            check = check.cases(cases);
        }
        check.run()
    };
    vec![
        Healthy { name: "engine/toy", check: Box::new(|trial| check(Bug::None, "engine/toy", trial)) },
        Healthy { name: "engine/cache", check: Box::new(cache) },
    ]
}
