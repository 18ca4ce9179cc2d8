//! What a hit costs: the bare store, the engine on it, adapters in between, a chain.
//!
//! `cargo bench --bench layers` measures everything in one run and ends in a table of ratios, because
//! nanoseconds are those of a machine and ratios are those of the code.

#![expect(clippy::expect_used, reason = "a bench that cannot begin may stop")]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::Criterion;
use larder::{
    Cache, Clock, Entry, InvalidateTags, Lifetime, Memory, Store, StoreExt, SystemClock, Timestamp,
};

/// Read in an order that no prefetcher knows, all of them in the processor's cache.
const KEYS: u64 = 1024;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// A round reads each stack this often, about half a millisecond, so that the ratios compare what ran
/// side by side.
const READS: u64 = 20_000;
const ROUNDS: usize = 500;

/// A stack to read from: its name, and the time that a number of hits takes.
struct Subject {
    name: &'static str,
    hits: Box<dyn Fn(u64) -> Duration>,
}

fn main() {
    let memory = || Memory::<u64, u64>::new(100_000);
    let one = || memory().fresh_for_at_most(HOUR);
    let three = || one().inspect(|_| {}).fresh_for_at_most(HOUR);
    let five = || three().inspect(|_| {}).fresh_for_at_most(HOUR);
    let each_boxed = memory().fresh_for_at_most(HOUR).boxed().inspect(|_| {}).boxed();
    let each_boxed = each_boxed.fresh_for_at_most(HOUR).boxed().inspect(|_| {}).boxed();
    let each_boxed = each_boxed.fresh_for_at_most(HOUR).boxed();
    let subjects = [
        bare("bare store", memory()),
        bare_async("bare store, async get", memory()),
        bare_and_clock("bare store, and the clock", memory()),
        engine_peek("engine, peek", memory()),
        engine("engine", memory()),
        engine("engine, 1 adapter", one()),
        engine("engine, 3 adapters", three()),
        engine("engine, 5 adapters", five()),
        engine("engine, boxed", memory().boxed()),
        engine("engine, 1 adapter, boxed", one().boxed()),
        engine("engine, 3 adapters, boxed", three().boxed()),
        engine("engine, 5 adapters, boxed", five().boxed()),
        engine("engine, 5 adapters, each boxed", each_boxed),
        tagged("engine, tagged: no tag", &[]),
        tagged("engine, tagged: one tag", &["a"]),
        tagged("engine, tagged: four tags", &["a", "b", "c", "d"]),
        engine("engine, L1 of a chain", memory().chain(memory())),
        engine("engine, L1 of three tiers", memory().chain(memory()).chain(memory())),
    ];

    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for subject in &subjects {
        criterion.bench_function(subject.name, |bencher| bencher.iter_custom(&subject.hits));
    }
    criterion.final_summary();
    // `cargo test --benches` asks for one run of each and no numbers.
    if std::env::args().any(|argument| argument == "--bench") {
        print_ratios(&subjects);
        print_batches();
    }
}

/// What a hit costs in a batch of 100 and in 100 single calls, of the bare store and of a chain.
fn print_batches() {
    let memory = || filled(Memory::<u64, u64>::new(100_000));
    let chain = || filled(Memory::<u64, u64>::new(100_000).chain(Memory::new(100_000)));
    println!("\n{:<32} {:>9} {:>9}", "a hit of the store, least ns", "single", "batch");
    for (name, [single, batch]) in [("memory", batches(&memory())), ("chain of two", batches(&chain()))] {
        println!("{name:<32} {single:>9.1} {batch:>9.1}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a bench")]
fn batches(store: &impl Store<Key = u64, Value = u64>) -> [f64; 2] {
    const BATCH: u64 = 100;
    let keys: Vec<u64> = (0..BATCH).map(|place| place * 5 % KEYS).collect();
    let asked: Vec<&u64> = keys.iter().collect();
    let least = |read: &dyn Fn()| {
        let round = |_| {
            let began = now();
            (0..READS / BATCH).for_each(|_| read());
            now().duration_since(began)
        };
        (0..ROUNDS).map(round).min().unwrap_or_default().as_nanos() as f64 / READS as f64
    };
    let single = least(&|| {
        for key in &asked {
            drop(black_box(at_once(store.get_at(black_box(key), Timestamp::EPOCH))));
        }
    });
    let batch = least(&|| drop(black_box(at_once(store.get_many(black_box(&asked), Timestamp::EPOCH)))));
    [single, batch]
}

/// The least that a reader of the store alone would do.
fn bare(name: &'static str, store: Memory<u64, u64>) -> Subject {
    let store = filled(store);
    subject(name, move |key| store.peek_with(&key, |entry| *entry.value()))
}

/// The same as a call that might wait.
fn bare_async(name: &'static str, store: Memory<u64, u64>) -> Subject {
    let store = filled(store);
    subject(name, move |key| Some(at_once(store.get(&key)).ok()??.into_value()))
}

/// The same, and a look at the clock: the least that a cache with lifetimes can do.
fn bare_and_clock(name: &'static str, store: Memory<u64, u64>) -> Subject {
    let store = filled(store);
    subject(name, move |key| {
        store.peek_with(&key, |entry| {
            (SystemClock.now() <= entry.lifetime().fresh_until()).then(|| *entry.value())
        })?
    })
}

fn filled<S: Store<Key = u64, Value = u64>>(store: S) -> S {
    for key in 0..KEYS {
        let entry = Entry::new(key, Lifetime::forever(Timestamp::EPOCH));
        at_once(store.set(&key, entry)).expect("memory does not fail");
    }
    store
}

/// A hit as callers write it.
fn engine(name: &'static str, store: impl Store<Key = u64, Value = u64> + 'static) -> Subject {
    let cache = Cache::builder(store).ttl(HOUR).build().expect("a valid policy");
    for key in 0..KEYS {
        at_once(cache.set(&key, key)).expect("memory does not fail");
    }
    subject(name, move |key| at_once(cache.get_or_compute(&key, || async { 0 })).ok())
}

/// The same on entries with these tags, of which one was invalidated before.
fn tagged(name: &'static str, tags: &'static [&'static str]) -> Subject {
    let store = Memory::<u64, u64>::new(100_000).tagged(Memory::<str, Timestamp>::new(100));
    at_once(store.remove_tags(&["a"], Timestamp::EPOCH)).expect("memory does not fail");
    let cache = Cache::builder(store).ttl(HOUR).tags_of(|_| tags.to_vec()).build();
    let cache = cache.expect("a valid policy");
    for key in 0..KEYS {
        at_once(cache.set(&key, key)).expect("memory does not fail");
    }
    subject(name, move |key| at_once(cache.get_or_compute(&key, || async { 0 })).ok())
}

/// A hit without the future of `get_or_compute`.
fn engine_peek(name: &'static str, store: Memory<u64, u64>) -> Subject {
    let cache = Cache::builder(filled(store)).no_expiration().build().expect("a valid policy");
    subject(name, move |key| cache.peek(&key))
}

fn subject(name: &'static str, read: impl Fn(u64) -> Option<u64> + 'static) -> Subject {
    for key in 0..KEYS {
        assert_eq!(read(key), Some(key), "{name}: every read is a hit");
    }
    let hits = move |iterations| {
        let mut key = 0;
        let began = now();
        for _ in 0..iterations {
            black_box(read(black_box(key)));
            key = (key * 5 + 1) % KEYS;
        }
        now().duration_since(began)
    };
    Subject { name, hits: Box::new(hits) }
}

/// All of them by turns, so that what else the machine does falls on all alike. The least of the rounds is
/// the one that was disturbed least.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a bench")]
fn print_ratios(subjects: &[Subject]) {
    let mut times = vec![Vec::with_capacity(ROUNDS); subjects.len()];
    for _ in 0..ROUNDS {
        for (subject, times) in subjects.iter().zip(&mut times) {
            times.push((subject.hits)(READS).as_nanos() as f64 / READS as f64);
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let named = |name| subjects.iter().position(|subject| subject.name == name).unwrap_or(0);
    let (bare, engine) = (named("bare store"), named("engine"));
    let (least, median) = (|index: usize| times[index][0], |index: usize| times[index][ROUNDS / 2]);
    println!(
        "\n{:<32} {:>9} {:>9} {:>14} {:>10}",
        "a hit, by turns", "least ns", "median ns", "least / bare", "/ engine"
    );
    for (index, subject) in subjects.iter().enumerate() {
        println!(
            "{:<32} {:>9.1} {:>9.1} {:>14.2} {:>10.2}",
            subject.name,
            least(index),
            median(index),
            least(index) / least(bare),
            least(index) / least(engine)
        );
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
