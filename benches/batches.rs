//! What a batch of a hundred keys costs beside a hundred single calls: hits, and misses that one computation answers.
//!
//! `cargo bench --bench batches` ends in a table of ratios, which are those of the code and not of the machine.

#![expect(clippy::expect_used, reason = "a bench that cannot begin may stop")]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::Criterion;
use larder::{Cache, Memory};

const HOUR: Duration = Duration::from_secs(60 * 60);
const KEYS: u64 = 100;
const ROUNDS: usize = 2_000;

/// What is measured: its name, and the time that so many turns take.
type Subject = (&'static str, Box<dyn Fn(u64) -> Duration>);

fn main() {
    let subjects = [hits_alone(), hits_together(), misses_alone(), misses_together()];
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (name, run) in &subjects {
        criterion.bench_function(name, |bencher| bencher.iter_custom(run));
    }
    criterion.final_summary();
    // `cargo test --benches` asks for one run of each and no numbers.
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratios(&subjects);
    }
}

fn cache() -> Cache<Memory<u64, u64>> {
    Cache::builder(Memory::new(100_000)).ttl(HOUR).build().expect("a valid policy")
}

fn filled() -> Cache<Memory<u64, u64>> {
    let cache = cache();
    for key in 0..KEYS {
        at_once(cache.set(&key, key)).expect("memory does not fail");
    }
    cache
}

fn doubled(keys: Vec<u64>) -> Vec<(u64, u64)> {
    keys.into_iter().map(|key| (key, key * 2)).collect()
}

fn hits_alone() -> Subject {
    let cache = filled();
    timed("100 single hits", move || {
        for key in 0..KEYS {
            black_box(at_once(cache.get_or_compute(&key, || async { 0 }))).ok();
        }
    })
}

fn hits_together() -> Subject {
    let (cache, keys) = (filled(), (0..KEYS).collect::<Vec<_>>());
    timed("a batch of 100 hits", move || {
        let keys: Vec<&u64> = keys.iter().collect();
        black_box(at_once(cache.get_or_compute_many(&keys, |keys| async { doubled(keys) })));
    })
}

fn misses_alone() -> Subject {
    let cache = cache();
    timed("100 single misses", move || {
        for key in 0..KEYS {
            black_box(at_once(cache.get_or_compute(&key, move || async move { key * 2 }))).ok();
        }
        at_once(cache.clear()).expect("memory does not fail");
    })
}

fn misses_together() -> Subject {
    let (cache, keys) = (cache(), (0..KEYS).collect::<Vec<_>>());
    timed("a batch of 100 misses", move || {
        let keys: Vec<&u64> = keys.iter().collect();
        black_box(at_once(cache.get_or_compute_many(&keys, |keys| async { doubled(keys) })));
        at_once(cache.clear()).expect("memory does not fail");
    })
}

fn timed(name: &'static str, run: impl Fn() + 'static) -> Subject {
    let times = move |turns| {
        let began = now();
        for _ in 0..turns {
            run();
        }
        now().duration_since(began)
    };
    (name, Box::new(times))
}

/// All of them by turns; the least of the rounds is the one that was disturbed least.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a bench")]
fn print_ratios(subjects: &[Subject]) {
    let mut least = vec![f64::MAX; subjects.len()];
    for _ in 0..ROUNDS {
        for ((_, run), least) in subjects.iter().zip(&mut least) {
            *least = least.min(run(10).as_nanos() as f64 / 10.0);
        }
    }
    println!("\n{:<24} {:>10} {:>12}", "by turns", "least ns", "/ single");
    for (index, (name, _)) in subjects.iter().enumerate() {
        println!("{name:<24} {:>10.0} {:>12.2}", least[index], least[index] / least[index / 2 * 2]);
    }
}

/// The answer of a future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("memory answers at once"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the time")]
fn now() -> Instant {
    Instant::now()
}
