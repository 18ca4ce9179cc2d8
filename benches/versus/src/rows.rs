//! Which work there is, on how many threads, and the goals.

use std::sync::Arc;

use crate::measure::Subject;
// The tests of the rows count what each cache is asked.
#[cfg(test)]
use crate::rivals::counted::{
    Cached, Cachet, Foyer, Larder, LarderSingle, MiniMoka, Moka, MokaFuture, QuickCache, QuickCacheAsync,
    StaleCachet, StaleLarder,
};
#[cfg(not(test))]
use crate::rivals::{
    Cached, Cachet, Foyer, Larder, LarderSingle, MiniMoka, Moka, MokaFuture, QuickCache, QuickCacheAsync,
    StaleCachet, StaleLarder,
};
use crate::work::{self, Requests};

/// A piece of work that the caches are compared on.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) on: Threads,
    /// The calls of a round and thread, at most.
    pub(crate) most_calls: usize,
    pub(crate) goals: &'static [Goal],
    pub(crate) subjects: fn(Scale) -> Vec<Subject>,
}

/// How many keys the large pieces of work have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    /// A 16th of them, so that a run is short.
    Quick,
}

impl Scale {
    pub(crate) fn of(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full / 16,
        }
    }
}

/// On how many threads a row makes sense.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    One,
    Each,
}

/// The time of larder that is aimed at, as a part of a rival's time.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) threads: usize,
    pub(crate) ratio: f64,
    /// The rival; the fastest if none is named.
    pub(crate) to: Option<&'static str>,
    /// The hit ratio must not be below this rival's by more than [`HITS_BELOW`]: speed is not to be bought with hits.
    pub(crate) hits_of: Option<&'static str>,
}

/// Three points of a thousand.
pub(crate) const HITS_BELOW: f64 = 0.003;

const fn goal(threads: usize, ratio: f64) -> Goal {
    Goal { threads, ratio, to: None, hits_of: None }
}

const fn goal_to(rival: &'static str, ratio: f64) -> Goal {
    Goal { threads: 1, ratio, to: Some(rival), hits_of: None }
}

const fn goal_with_hits(threads: usize, ratio: f64) -> Goal {
    Goal { threads, ratio, to: None, hits_of: Some("quick_cache") }
}

const ANY: usize = 1 << 22;
/// Where each call needs a key of its own, on 64 threads too.
const FEW: usize = 50_000;
const DISTINCT: usize = 1 << 22;
const _: () = assert!(DISTINCT >= 64 * FEW);

/// The same work for each cache.
macro_rules! each {
    ($work:ident::<$key:ty, $value:ty>($($argument:expr),*)) => {
        each!($work::<$key, $value, Larder>($($argument),*))
    };
    ($work:ident::<$key:ty, $value:ty, $first:ident>($($argument:expr),*)) => {
        vec![
            work::$work::<$first<$key, $value>>($($argument),*),
            work::$work::<QuickCache<$key, $value>>($($argument),*),
            work::$work::<QuickCacheAsync<$key, $value>>($($argument),*),
            work::$work::<Moka<$key, $value>>($($argument),*),
            work::$work::<MokaFuture<$key, $value>>($($argument),*),
            work::$work::<MiniMoka<$key, $value>>($($argument),*),
            work::$work::<Foyer<$key, $value>>($($argument),*),
            work::$work::<Cached<$key, $value>>($($argument),*),
            work::$work::<Cachet<$key, $value>>($($argument),*),
        ]
    };
}

/// A key as long as usual ones.
fn name() -> String {
    "user:1234567".to_owned()
}

pub(crate) const ROWS: &[Row] = &[
    Row {
        id: "hot-u64",
        title: "hot hit, `String` to `u64`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.75), goal(2, 0.55)],
        subjects: |_| each!(hot::<String, u64>(name())),
    },
    Row {
        id: "hot-arc",
        title: "hot hit, `String` to `Arc<str>`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.80), goal(2, 0.80)],
        subjects: |_| each!(hot::<String, Arc<str>>(name())),
    },
    Row {
        id: "hot-string",
        title: "hot hit, `String` to `String`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.80)],
        subjects: |_| each!(hot::<String, String>(name())),
    },
    Row {
        id: "hot-read",
        title: "hot hit under a closure, `String` to `Arc<str>`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(2, 0.30)],
        subjects: |_| each!(hot_read::<String, Arc<str>>(name())),
    },
    Row {
        id: "keys",
        title: "hits over 10,000 keys, `u64` to `u64`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.90), goal(2, 0.60)],
        subjects: |_| {
            let requests = Requests::uniform(10_000, 1 << 18);
            each!(keys::<u64, u64>(&requests))
        },
    },
    Row {
        id: "compute-hit",
        title: "get-or-compute hit, async, `String` to `u64`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal_to("quick_cache", 0.80), goal_to("moka", 0.15)],
        subjects: |_| each!(compute_hit::<String, u64>(name())),
    },
    Row {
        id: "single-arc",
        title: "single value, cloned `Arc<str>`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.80)],
        subjects: |_| {
            vec![
                work::hot::<LarderSingle<Arc<str>>>(()),
                work::guard(true),
                work::hot::<QuickCache<(), Arc<str>>>(()),
                work::hot::<Moka<(), Arc<str>>>(()),
                work::hot::<Foyer<(), Arc<str>>>(()),
                work::hot::<Cached<(), Arc<str>>>(()),
            ]
        },
    },
    Row {
        id: "single-read",
        title: "single value under a closure, `Arc<str>`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.60)],
        subjects: |_| {
            vec![
                work::hot_read::<LarderSingle<Arc<str>>>(()),
                work::guard(false),
                work::hot_read::<QuickCache<(), Arc<str>>>(()),
                work::hot_read::<Moka<(), Arc<str>>>(()),
                work::hot_read::<Foyer<(), Arc<str>>>(()),
                work::hot_read::<Cached<(), Arc<str>>>(()),
            ]
        },
    },
    Row {
        id: "mix",
        title: "80/20 mix over 10,000 keys, `u64` to `u64`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(2, 0.75)],
        subjects: |_| {
            let requests = Requests::uniform(10_000, 1 << 18);
            each!(mix::<u64, u64>(&requests))
        },
    },
    Row {
        id: "pressure",
        title: "eviction pressure: 20,000 keys, room for 10,000",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 1.0), goal(2, 0.80)],
        subjects: |scale| {
            let requests = Requests::uniform(scale.of(20_000) as u64, scale.of(1 << 18));
            each!(get_or_set::<u64, u64>("pressure", scale.of(10_000), &requests))
        },
    },
    Row {
        id: "zipf",
        title: "Zipf 0.99, 1,000,000 keys, room for a tenth: get, or else set",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal_with_hits(1, 0.95), goal_with_hits(2, 0.95)],
        subjects: |scale| {
            let requests = Requests::zipf(scale.of(1_000_000), 0.99, scale.of(1 << 21));
            each!(get_or_set::<u64, u64>("zipf", scale.of(100_000), &requests))
        },
    },
    Row {
        id: "zipf-compute",
        title: "Zipf 0.99, 1,000,000 keys, room for a tenth: get-or-compute",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[],
        subjects: |scale| {
            let requests = Requests::zipf(scale.of(1_000_000), 0.99, scale.of(1 << 21));
            each!(get_or_compute::<u64, u64>("zipf-compute", scale.of(100_000), &requests))
        },
    },
    Row {
        id: "miss-set",
        title: "cold insert by set, `u64` to `u64`",
        on: Threads::Each,
        most_calls: FEW,
        goals: &[goal(1, 0.60)],
        subjects: |_| {
            let requests = Requests::distinct(DISTINCT);
            each!(miss_set::<u64, u64>(&requests))
        },
    },
    Row {
        id: "miss-compute",
        title: "cold insert by get-or-compute, `u64` to `u64`",
        on: Threads::Each,
        most_calls: FEW,
        goals: &[goal(1, 0.90)],
        subjects: |_| {
            let requests = Requests::distinct(DISTINCT);
            each!(miss_compute::<u64, u64>(&requests))
        },
    },
    Row {
        id: "stampede",
        title: "stampede of 64 tasks on an expired key, per call",
        on: Threads::One,
        most_calls: 64 * 1000,
        goals: &[goal(1, 0.85)],
        subjects: |_| each!(stampede::<u64, u64>()),
    },
    Row {
        id: "stale",
        title: "stale hit, a refresh in flight, `String` to `Arc<str>`",
        on: Threads::Each,
        most_calls: ANY,
        goals: &[goal(1, 0.35)],
        subjects: |_| {
            vec![
                work::stale::<StaleLarder<Arc<str>>>(name()),
                work::not_stale::<QuickCache<String, Arc<str>>>(),
                work::not_stale::<MokaFuture<String, Arc<str>>>(),
                work::not_stale::<Foyer<String, Arc<str>>>(),
                work::not_stale::<Cached<String, Arc<str>>>(),
                work::stale::<StaleCachet<Arc<str>>>(name()),
            ]
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::measure::Run;
    use crate::rivals::NAMES;
    use crate::rivals::counted::{Counts, counts, forget};
    use crate::work::TASKS;

    /// Calls of a thread: a multiple of the tasks of a stampede.
    const CALLS: usize = 10 * TASKS;

    /// What a cache was asked.
    struct Asked {
        rival: &'static str,
        /// While it is made ready, in a round of one thread, in a round of two.
        ready: Counts,
        round: Counts,
        pair: Counts,
    }

    /// What each cache is asked.
    fn asked(row: &Row, subjects: &[Subject]) -> Vec<Asked> {
        let mut asked = Vec::new();
        for &Subject { rival, ref work, .. } in subjects {
            // `arc-swap` is no cache; its reads are counted by its own assertion.
            let (Ok(work), true) = (work, rival != "arc-swap") else { continue };
            let round = |threads| {
                let before = counts(rival);
                work(&Run { threads, calls: CALLS, counted: false });
                counts(rival) - before
            };
            let ready = counts(rival);
            let (one, pair) = (round(1), if row.on == Threads::Each { round(2) } else { Counts::default() });
            asked.push(Asked { rival, ready, round: one, pair });
        }
        assert!(asked.iter().any(|asked| asked.rival == "larder") && asked.len() > 1, "{}", row.id);
        asked
    }

    /// All caches are asked the same, for the same keys, as often as the time is divided by.
    fn assert_same(row: &Row, asked: &[Asked]) {
        let first = &asked[0];
        for (threads, of) in [
            (0, (|asked| asked.ready) as fn(&Asked) -> Counts),
            (1, |asked| asked.round),
            (2, |asked| asked.pair),
        ] {
            for other in asked {
                let told = format!("{}: {} is asked other things than {}", row.id, other.rival, first.rival);
                assert_eq!(of(other).questions(), of(first).questions(), "{told}, {threads} threads");
            }
            let Counts { lookups, asked, sets, .. } = of(first);
            let calls = lookups + asked + if ["mix", "miss-set"].contains(&row.id) { sets } else { 0 };
            if threads == 1 || threads == 2 && row.on == Threads::Each {
                assert_eq!(calls, CALLS as u64 * threads, "{}, {threads} threads", row.id);
            }
        }
    }

    /// What a cache is asked in a round is what the row says.
    fn assert_as_told(row: &Row, &Asked { rival, round, .. }: &Asked) {
        let told = format!("{}: {rival}: {round:?}", row.id);
        let Counts { lookups, hits, sets, asked, computed, expired, .. } = round;
        let calls = CALLS as u64;
        match row.id {
            "miss-set" => assert_eq!((sets, lookups, asked), (calls, 0, 0), "{told}"),
            "miss-compute" => assert_eq!((asked, computed), (calls, calls), "{told}"),
            "mix" => assert!(hits == lookups && sets.abs_diff(calls / 5) < calls / 20, "{told}"),
            "pressure" | "zipf" => assert!(lookups == calls && hits > 0 && sets == lookups - hits, "{told}"),
            "zipf-compute" => assert!(asked == calls && 0 < computed && computed < asked, "{told}"),
            "stampede" => {
                let stampedes = calls / TASKS as u64;
                assert_eq!((asked, computed, expired), (calls, stampedes, stampedes), "{told}");
            }
            "stale" | "compute-hit" => assert_eq!((asked, computed), (calls, 0), "{told}"),
            _ => assert_eq!((lookups, hits, sets), (calls, calls, 0), "{told}"),
        }
    }

    /// Each cache is there once, does the work or says why not, and so do those that a goal names.
    fn assert_complete(row: &Row, subjects: &[Subject]) {
        let names: BTreeSet<_> = subjects.iter().map(|subject| subject.rival).collect();
        assert_eq!(names.len(), subjects.len(), "{}: a cache twice", row.id);
        assert!(names.iter().all(|name| NAMES.contains(name)), "{}: {names:?}", row.id);
        let works =
            |rival: &str| subjects.iter().any(|subject| subject.rival == rival && subject.work.is_ok());
        assert!(
            subjects.iter().all(|subject| subject.work.as_ref().err().is_none_or(|lacks| !lacks.is_empty()))
        );
        for goal in row.goals {
            assert!(goal.to.is_none_or(works) && goal.hits_of.is_none_or(works), "{}: {names:?}", row.id);
        }
        for subject in subjects {
            let counts_hits = subject.work.is_ok() && ["pressure", "zipf"].contains(&row.id);
            assert_eq!(subject.hit_ratio.is_some(), counts_hits, "{}: {}", row.id, subject.rival);
        }
    }

    #[test]
    fn every_row_asks_every_cache_the_same_and_what_it_says() {
        for row in ROWS {
            forget();
            let subjects = (row.subjects)(Scale::Quick);
            assert_complete(row, &subjects);
            let asked = asked(row, &subjects);
            assert_same(row, &asked);
            for asked in &asked {
                assert_as_told(row, asked);
            }
        }
    }

    #[test]
    fn every_piece_of_work_has_a_name_of_its_own() {
        let ids: BTreeSet<_> = ROWS.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), ROWS.len());
    }
}
