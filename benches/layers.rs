//! What a hit costs: the bare store, the engine on it, adapters in between, a chain.
//!
//! `cargo bench --bench layers` measures everything in one run and ends in a table of ratios, because
//! nanoseconds are those of a machine and ratios are those of the code.

#![allow(missing_docs, reason = "a bench has no readers of its documentation")]

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::Criterion;
use larder::{Cache, Memory, Store, StoreExt};

/// Read in an order that no prefetcher knows, all of them in the processor's cache.
const KEYS: u64 = 1024;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The order of measuring, with the median of each.
#[derive(Default)]
struct Results(RefCell<Vec<(String, f64)>>);

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let results = Results::default();

    let memory = || Memory::<u64, u64>::new(100_000);
    let one = || memory().fresh_for_at_most(HOUR);
    let three = || one().inspect(|_| {}).fresh_for_at_most(HOUR);
    let five = || three().inspect(|_| {}).fresh_for_at_most(HOUR);

    bare(&mut criterion, &results, "bare store", filled(memory()));
    engine(&mut criterion, &results, "engine", memory());
    engine(&mut criterion, &results, "engine, 1 adapter", one());
    engine(&mut criterion, &results, "engine, 3 adapters", three());
    engine(&mut criterion, &results, "engine, 5 adapters", five());
    engine(&mut criterion, &results, "engine, boxed", memory().boxed());
    engine(&mut criterion, &results, "engine, 1 adapter, boxed", one().boxed());
    engine(&mut criterion, &results, "engine, 3 adapters, boxed", three().boxed());
    engine(&mut criterion, &results, "engine, 5 adapters, boxed", five().boxed());
    engine(
        &mut criterion,
        &results,
        "engine, 5 adapters, each boxed",
        memory()
            .fresh_for_at_most(HOUR)
            .boxed()
            .inspect(|_| {})
            .boxed()
            .fresh_for_at_most(HOUR)
            .boxed()
            .inspect(|_| {})
            .boxed()
            .fresh_for_at_most(HOUR)
            .boxed(),
    );
    engine(&mut criterion, &results, "engine, L1 of a chain", memory().chain(memory()));
    engine(&mut criterion, &results, "engine, L1 of three tiers", memory().chain(memory()).chain(memory()));

    criterion.final_summary();
    results.print();
}

/// The least that a reader of the store alone would do.
fn bare(criterion: &mut Criterion, results: &Results, name: &str, store: impl Store<Key = u64, Value = u64>) {
    measure(criterion, results, name, |key| store.peek_with(&key, |entry| *entry.value()));
}

/// A hit as callers write it.
fn engine(
    criterion: &mut Criterion,
    results: &Results,
    name: &str,
    store: impl Store<Key = u64, Value = u64> + 'static,
) {
    let cache = Cache::builder(store).ttl(HOUR).build().expect("a valid policy");
    for key in 0..KEYS {
        at_once(cache.set(&key, key)).expect("memory does not fail");
    }
    measure(criterion, results, name, |key| at_once(cache.get_or_compute(&key, || async { 0 })).ok());
}

fn measure(criterion: &mut Criterion, results: &Results, name: &str, read: impl Fn(u64) -> Option<u64>) {
    for key in 0..KEYS {
        assert_eq!(read(key), Some(key), "{name}: every read is a hit");
    }
    let mut samples = Vec::new();
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut key = 0;
            let began = now();
            for _ in 0..iterations {
                black_box(read(black_box(key)));
                key = (key * 5 + 1) % KEYS;
            }
            let took = now().duration_since(began);
            if iterations >= 10_000 {
                #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a bench")]
                samples.push(took.as_nanos() as f64 / iterations as f64);
            }
            took
        });
    });
    samples.sort_by(f64::total_cmp);
    if let Some(median) = samples.get(samples.len() / 2) {
        results.0.borrow_mut().push((name.to_owned(), *median));
    }
}

impl Results {
    fn print(&self) {
        let results = self.0.borrow();
        let of = |wanted: &str| results.iter().find(|(name, _)| name == wanted).map(|(_, median)| *median);
        let (Some(bare), Some(engine)) = (of("bare store"), of("engine")) else { return };
        println!("{:<32} {:>9} {:>12} {:>10}", "a hit", "median ns", "/ bare store", "/ engine");
        for (name, median) in results.iter() {
            println!("{name:<32} {median:>9.1} {:>12.2} {:>10.2}", median / bare, median / engine);
        }
    }
}

/// The answer of a future that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("memory answers at once"),
    }
}

fn filled<S: Store<Key = u64, Value = u64>>(store: S) -> S {
    use larder::{Entry, Lifetime, Timestamp};
    for key in 0..KEYS {
        at_once(store.set(&key, Entry::new(key, Lifetime::forever(Timestamp::EPOCH))))
            .expect("memory stores");
    }
    store
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the time")]
fn now() -> Instant {
    Instant::now()
}
