//! What a directory of many entries costs: fills one, opens it anew, reads, overwrites and evicts.
//!
//! `cargo run --release -p larder-file --example million -- [entries] [directory]`

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::{Entry, Lifetime, Store, Timestamp};
use larder_file::FileStore;

const VALUE: usize = 100;
const SAMPLE: u64 = 20_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let entries: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let scratch = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| scratch.path().to_owned(), Into::into);
    let open = || FileStore::at(&dir).max_entries(entries).max_bytes(u64::MAX).open();
    let value = Entry::new(Bytes::from(vec![7; VALUE]), Lifetime::forever(Timestamp::EPOCH));

    let before = resident();
    let (store, took) = timed(open()).await;
    println!("open, empty                 {took:>12.1?}");
    let store = store?;
    let (filled, took): (larder::Result<()>, _) = timed(async {
        for key in 0..entries {
            store.set(&format!("key {key}"), value.clone()).await?;
        }
        Ok(())
    })
    .await;
    filled?;
    println!("fill with {entries} entries  {took:>12.1?}");
    println!("resident memory             {:>9} KiB more", resident().saturating_sub(before));
    drop(store);

    let (store, took) = timed(open()).await;
    let store = store?;
    println!("open, {:>9} entries     {took:>12.1?}", store.len().unwrap_or_default());
    let keys = (0..SAMPLE).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let held: Vec<String> = keys.clone().map(|key| format!("key {}", key % entries)).collect();
    let fresh: Vec<String> = keys.map(|key| format!("new {key}")).collect();
    percentiles("get, hit", &held, async |key| drop(store.get(key).await)).await;
    percentiles("get, miss", &fresh, async |key| drop(store.get(key).await)).await;
    percentiles("set, overwriting", &held, async |key| drop(store.set(key, value.clone()).await)).await;
    percentiles("set, evicting", &fresh, async |key| drop(store.set(key, value.clone()).await)).await;
    percentiles("remove", &fresh, async |key| drop(store.remove(key).await)).await;
    println!("{}", store.describe());
    let (cleared, took) = timed(store.clear()).await;
    cleared?;
    println!("clear                       {took:>12.1?}");
    Ok(())
}

async fn percentiles(what: &str, keys: &[String], call: impl AsyncFn(&str)) {
    let mut times = Vec::with_capacity(keys.len());
    for key in keys {
        times.push(timed(call(key)).await.1);
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 1000];
    println!("{what:<18} p50 {:>9.1?}  p99 {:>9.1?}  p99.9 {:>9.1?}", at(500), at(990), at(999));
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let output = work.await;
    (output, start.elapsed())
}

/// KiB of this process in memory, where the system says so.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
