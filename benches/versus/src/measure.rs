//! How a call is timed: short rounds, all caches by turns, medians.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

/// A cache that does a piece of work, or why it does not.
pub(crate) struct Subject {
    pub(crate) rival: &'static str,
    /// Why it is shown beside the others and is no rival, if it does less than they.
    pub(crate) lesser: Option<&'static str>,
    pub(crate) work: Result<Work, &'static str>,
    /// The hit ratio, where the work has one.
    pub(crate) hit_ratio: Option<f64>,
}

pub(crate) type Work = Box<dyn Fn(&Run) -> Sample>;

/// How a round is to be run.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) threads: usize,
    /// Calls of each thread.
    pub(crate) calls: usize,
    /// Counts allocations; on one thread.
    pub(crate) counted: bool,
}

/// What a round took.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Nanoseconds a call, as each thread saw it.
    pub(crate) nanos: f64,
    /// Allocations a call, if counted.
    pub(crate) allocations: f64,
    /// The part of the round in which all threads ran at once.
    pub(crate) together: f64,
}

impl Run {
    /// Runs `work`, which makes `calls` calls, on every thread at once. It is given the thread's number.
    pub(crate) fn spread(&self, work: impl Fn(usize) + Sync) -> Sample {
        self.on_threads(|thread, gate| {
            gate.pass();
            let began = now();
            work(thread);
            Span { began, ended: now() }
        })
    }

    /// The same for futures: each thread has a runtime of its own, made before the time begins.
    pub(crate) fn spread_async(&self, work: impl AsyncFn(usize) + Sync) -> Sample {
        self.on_threads(|thread, gate| {
            let mut own = None;
            // What a runtime allocates is no call's.
            allocation_counter::opt_out(|| own = Some(runtime()));
            own.expect("just made").block_on(async {
                gate.pass();
                let began = now();
                work(thread).await;
                Span { began, ended: now() }
            })
        })
    }

    fn on_threads(&self, time: impl Fn(usize, &Gate) -> Span + Sync) -> Sample {
        let gate = Gate::new(self.threads);
        if self.counted {
            let counted = allocation_counter::measure(|| _ = time(0, &gate));
            let allocations = ratio(counted.count_total, self.calls as u64);
            return Sample { nanos: 0.0, allocations, together: 1.0 };
        }
        // What counts allocations is the allocator, and takes its time for each of them: not in a timed round.
        let time = |thread| {
            let mut span = None;
            allocation_counter::opt_out(|| span = Some(time(thread, &gate)));
            span.expect("just run")
        };
        let spans: Vec<Span> = if self.threads == 1 {
            vec![time(0)]
        } else {
            std::thread::scope(|scope| {
                let time = &time;
                let threads: Vec<_> =
                    (0..self.threads).map(|thread| scope.spawn(move || time(thread))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no call panics")).collect()
            })
        };
        let total: Duration = spans.iter().map(|span| span.ended.duration_since(span.began)).sum();
        let calls = self.calls as u64 * self.threads as u64;
        Sample { nanos: nanos(total) / ratio(calls, 1), allocations: 0.0, together: together(&spans) }
    }
}

/// When a thread worked.
#[derive(Clone, Copy)]
struct Span {
    began: Instant,
    ended: Instant,
}

/// The part of the time from the first beginning to the last end in which all of them worked.
fn together(spans: &[Span]) -> f64 {
    let began = spans.iter().map(|span| span.began);
    let ended = spans.iter().map(|span| span.ended);
    let (Some(first), Some(last)) = (began.clone().min(), ended.clone().max()) else { return 1.0 };
    let common = ended.min().zip(began.max()).map(|(end, begin)| end.saturating_duration_since(begin));
    nanos(common.unwrap_or_default()) / nanos(last.duration_since(first)).max(1.0)
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// Where threads wait for each other: none begins before all are there.
struct Gate {
    awaited: AtomicUsize,
}

impl Gate {
    fn new(threads: usize) -> Self {
        Self { awaited: AtomicUsize::new(threads) }
    }

    fn pass(&self) {
        self.awaited.fetch_sub(1, Ordering::AcqRel);
        while self.awaited.load(Ordering::Acquire) > 0 {
            spin_loop();
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime of the current thread")
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
pub(crate) fn ratio(number: u64, of: u64) -> f64 {
    number as f64 / of as f64
}

/// How many rounds, and how long a round of the fastest is.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
}

/// What a cache needs for a call.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Nanoseconds: the median of the rounds, the quarters below and above it.
    pub(crate) median: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) rounds: usize,
}

/// The cost of each subject on so many threads, and the calls of a round, which are the same for all.
///
/// A cache that is slow takes part in every second to every fifth round, so that it does not take the time of
/// the others. A round whose threads did not run at once, because the machine had something else to do, says
/// nothing about threads: it is tried again, four times at most, and then left out.
pub(crate) fn compare(
    subjects: &[Subject],
    threads: usize,
    most_calls: usize,
    effort: Effort,
) -> (Vec<Option<Cost>>, usize) {
    let works: Vec<Option<&Work>> = subjects.iter().map(|subject| subject.work.as_ref().ok()).collect();
    let trial = Run { threads, calls: most_calls.min(2048), counted: false };
    // The least of three: the first fills what the processor and the cache remember, others may be disturbed.
    let guess = |work: &Work| (0..3).map(|_| work(&trial).nanos).fold(f64::INFINITY, f64::min);
    let guesses: Vec<f64> = works.iter().map(|work| work.map_or(f64::INFINITY, guess)).collect();
    let fastest = guesses.iter().copied().fold(f64::INFINITY, f64::min).max(1.0);
    let calls = calls_within(effort.round, fastest).clamp(trial.calls, most_calls);
    let run = Run { calls, ..trial };
    let strides: Vec<usize> = guesses.iter().map(|guess| stride(guess / fastest)).collect();

    let mut times = vec![Vec::with_capacity(effort.rounds); subjects.len()];
    for round in 0..effort.rounds {
        // Another one begins each time, so that nobody always follows the same one.
        for place in 0..subjects.len() {
            let place = (place + round) % subjects.len();
            if let Some(work) = works[place]
                && round % strides[place] == 0
            {
                times[place].extend(together_at_last(work, &run));
            }
        }
    }
    (times.into_iter().map(Cost::of).collect(), calls)
}

/// The time of a round in which the threads ran at once, if there was one.
fn together_at_last(work: &Work, run: &Run) -> Option<f64> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut samples = (0..5).map(|_| work(run));
    samples.find(|sample| sample.together > 0.7 || run.threads > cores).map(|sample| sample.nanos)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of calls")]
fn calls_within(round: Duration, nanos: f64) -> usize {
    (round.as_secs_f64() * 1e9 / nanos) as usize
}

fn stride(slower: f64) -> usize {
    match slower {
        slower if slower < 4.0 => 1,
        slower if slower < 10.0 => 2,
        _ => 5,
    }
}

impl Cost {
    fn of(mut times: Vec<f64>) -> Option<Self> {
        times.sort_by(f64::total_cmp);
        let at =
            |part: usize| times.get((times.len() * part / 4).min(times.len().saturating_sub(1))).copied();
        Some(Self { median: at(2)?, lower: at(1)?, upper: at(3)?, rounds: times.len() })
    }

    /// Half of the rounds lie within this part of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.upper - self.lower) / self.median.max(f64::MIN_POSITIVE)
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::hint::black_box;
    use std::sync::{Arc, Mutex};

    type Rounds = Arc<Mutex<Vec<Run>>>;

    /// A cache whose rounds take what they are said to take.
    fn made(rival: &'static str, sample: impl Fn(usize) -> Sample + 'static) -> (Subject, Rounds) {
        let rounds = Rounds::default();
        let kept = Arc::clone(&rounds);
        let work = move |run: &Run| {
            let mut kept = kept.lock().unwrap();
            kept.push(*run);
            sample(kept.len())
        };
        (Subject { rival, lesser: None, work: Ok(Box::new(work)), hit_ratio: None }, rounds)
    }

    fn nanos(nanos: f64) -> Sample {
        Sample { nanos, allocations: 0.0, together: 1.0 }
    }

    /// A thousand calls of the fastest fill a round.
    const EFFORT: Effort = Effort { rounds: 20, round: Duration::from_micros(100) };

    fn costs(subjects: &[Subject]) -> Vec<Option<(f64, usize)>> {
        let (costs, _) = compare(subjects, 1, 1 << 20, EFFORT);
        costs.into_iter().map(|cost| cost.map(|cost| (cost.median, cost.rounds))).collect()
    }

    #[test]
    fn every_round_of_every_cache_has_as_many_calls() {
        let (subjects, rounds): (Vec<_>, Vec<_>) = [("a", 10.0), ("b", 15.0), ("c", 90.0), ("d", 500.0)]
            .map(|(name, cost)| made(name, move |_| nanos(cost)))
            .into_iter()
            .unzip();
        let (_, calls) = compare(&subjects, 1, 1 << 20, EFFORT);
        assert_eq!(calls, 10_000, "100 microseconds of the fastest");
        let took: Vec<usize> = rounds
            .iter()
            .map(|rounds| {
                let rounds = rounds.lock().unwrap();
                let (trial, timed) = rounds.split_at(3);
                assert!(trial.iter().all(|run| run.calls == 2048));
                assert!(timed.iter().all(|run| run.calls == calls && run.threads == 1 && !run.counted));
                timed.len()
            })
            .collect();
        assert_eq!(took, [20, 20, 10, 4], "slow ones take part less often");
        assert_eq!(compare(&subjects, 1, 500, EFFORT).1, 500, "no more calls than the work allows");
    }

    #[test]
    fn the_cost_is_the_median_and_knows_its_rounds() {
        // Three trials first; then 1 to 20, shuffled.
        let (subject, _) =
            made("a", |round| nanos(if round < 4 { 1.0 } else { ratio((round as u64 - 3) * 7 % 20 + 1, 1) }));
        let lacks = Subject { rival: "b", lesser: None, work: Err("no get"), hit_ratio: None };
        assert_eq!(costs(&[subject, lacks]), [Some((11.0, 20)), None]);
    }

    #[test]
    fn rounds_whose_threads_did_not_run_at_once_are_left_out() {
        let sample = |together| Sample { together, ..nanos(10.0) };
        let (never, rounds) = made("a", move |_| sample(0.5));
        let (mostly, _) = made("b", move |round| sample(if round % 2 == 0 { 0.5 } else { 0.9 }));
        assert_eq!(costs(&[never, mostly]), [None, Some((10.0, 20))]);
        assert_eq!(rounds.lock().unwrap().len(), 3 + 20 * 5, "each is tried five times");
    }

    #[test]
    fn every_thread_does_the_work_once_and_at_the_same_time() {
        let seen = Mutex::new(BTreeMap::new());
        let run = Run { threads: 3, calls: 100, counted: false };
        let see = |thread| *seen.lock().unwrap().entry(thread).or_insert(0) += 1;
        let one = run.spread(see);
        let other = run.spread_async(async |thread| see(thread));
        assert_eq!(*seen.lock().unwrap(), BTreeMap::from([(0, 2), (1, 2), (2, 2)]));
        for sample in [one, other] {
            assert!(sample.nanos >= 0.0 && (0.0..=1.0).contains(&sample.together));
        }
    }

    #[test]
    fn together_is_the_common_part() {
        let zero = now();
        let span = |began, ended| Span {
            began: zero + Duration::from_micros(began),
            ended: zero + Duration::from_micros(ended),
        };
        for (spans, part) in [
            (vec![span(0, 10)], 1.0),
            (vec![span(0, 10), span(0, 10)], 1.0),
            (vec![span(0, 8), span(2, 10)], 0.6),
            (vec![span(0, 5), span(6, 10)], 0.0),
            (vec![span(0, 10), span(1, 10), span(0, 6)], 0.5),
        ] {
            assert!((together(&spans) - part).abs() < 1e-9, "{part}");
        }
    }

    #[test]
    fn allocations_are_those_of_a_call() {
        let run = Run { threads: 1, calls: 100, counted: true };
        let allocate = || (0..100).for_each(|_| drop(black_box((Box::new(1_u8), Box::new(2_u8)))));
        let [sync, own] = [run.spread(|_| allocate()), run.spread_async(async |_| allocate())]
            .map(|sample| sample.allocations);
        assert!((sync - 2.0).abs() < 1e-9, "{sync}");
        // Entering a runtime may allocate once.
        assert!((2.0..2.1).contains(&own), "{own}");
        let timed = Run { counted: false, ..run };
        let counted = allocation_counter::measure(|| _ = timed.spread(|_| allocate()));
        assert!(counted.count_total < 10, "a timed round counts nothing: {}", counted.count_total);
    }
}
