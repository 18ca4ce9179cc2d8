//! The first program: a memory tier of a few megabytes in front of a directory, and a cache over both,
//! under real requests.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- --dir /tmp/pages      # twice: the second run starts warm
//! cargo run --release --example quickstart -- --scenario outage     # the origin fails half-way
//! ```

mod args;
mod origin;
mod replay;
mod report;
mod tally;
mod trace;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use larder::codec::Postcard;
use larder::{Cache, CacheBuilder, Chain, Clock, ManualClock, Memory, Store, StoreExt, SystemClock};
use larder_file::File;

use crate::args::{Args, Scenario};
use crate::origin::{Down, Origin, Page};
use crate::replay::{Replay, Seen};
use crate::report::{count, mebibytes, share, table, time};
use crate::tally::{Answers, Counted, Tier};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The stack: typed pages in memory, encoded ones in files. `saw` is told what each tier was asked.
fn stack(
    dir: &Path,
    args: &Args,
    [memory_saw, files_saw]: [Tier; 2],
) -> larder::Result<
    Chain<impl Store<Key = str, Value = Arc<Page>>, impl Store<Key = str, Value = Arc<Page>>>,
> {
    let memory = Memory::<str, Arc<Page>>::new(usize::MAX)
        .byte_limited(args.memory_mib.saturating_mul(1 << 20))
        .inspect(move |access| memory_saw.saw(access));
    let files = File::builder(dir)
        .max_bytes(args.disk_mib.saturating_mul(1 << 20))
        .open()?
        .encoded(Postcard)
        .inspect(move |access| files_saw.saw(access));
    Ok(memory.chain(files))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let replay = Replay::new(&args)?;
    println!(
        "{} requests for {} pages of a web shop, {} at a time",
        count(replay.len() as u64),
        count(replay.pages as u64),
        replay.clients
    );
    // Removed at the end, used or not.
    let temporary = tempfile::Builder::new().prefix("larder-quickstart-").tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    match args.scenario {
        Scenario::Steady => steady(&dir.join("steady"), &args, &replay).await,
        Scenario::Outage => outage(&dir.join("outage"), &args, &replay).await,
    }
}

/// How the clients ask: the cache, and behind it the origin.
fn through<S>(
    cache: &Cache<S>,
    origin: &Arc<Origin>,
) -> impl Fn(u32) -> larder::BoxFuture<'static, larder::Result<Arc<Page>>> + Clone + Send + 'static
where
    S: Store<Key = str, Value = Arc<Page>> + 'static,
{
    let (cache, origin) = (cache.clone(), Arc::clone(origin));
    move |product| {
        let (cache, origin) = (cache.clone(), Arc::clone(&origin));
        Box::pin(async move {
            cache.get_or_try_compute(&format!("product/{product}"), move || origin.page(product)).await
        })
    }
}

/// The main job: what the cache is worth.
async fn steady(dir: &Path, args: &Args, replay: &Replay) -> Result<(), Box<dyn Error>> {
    let (memory, files, answers) = (Tier::default(), Tier::default(), Answers::default());
    let listener = answers.clone();
    let cache = Cache::builder(stack(dir, args, [memory.clone(), files.clone()])?)
        .ttl(DAY)
        .stale(HOUR)
        .events(move |event| listener.saw(event))
        .build()?;

    let (found, bytes) = (cache.store().lower().len(), cache.store().lower().weight());
    match found {
        Some(0) | None => println!("cold start: no pages in {}", dir.display()),
        Some(found) => println!(
            "warm start: {} pages, {}, found in {}",
            count(found),
            mebibytes(bytes.unwrap_or(0)),
            dir.display()
        ),
    }

    let origin = Arc::new(Origin::default());
    let seen = replay.run("with the cache", 0..replay.len(), through(&cache, &origin)).await?;
    let report = cache.shutdown(Duration::from_secs(10)).await?;

    // The same clients without a cache: a part of the requests is measured, the whole is its multiple.
    let sample = replay.len().min(2_000);
    let bare = Arc::new(Origin::default());
    let without = replay.run("without a cache", 0..sample, move |product| Arc::clone(&bare).page(product)).await?;

    let chain = cache.store();
    let row = |name: &str, tier: &Tier, backfills: String, len: Option<u64>, weight: Option<u64>| {
        let asked = tier.hits() + tier.misses();
        vec![
            name.to_owned(),
            count(tier.hits()),
            share(tier.hits(), asked),
            count(tier.misses()),
            backfills,
            len.map_or("-".into(), count),
            weight.map_or("-".into(), mebibytes),
        ]
    };
    println!(
        "\n{}",
        table(
            &["tier", "hits", "hit ratio", "misses", "backfills", "entries", "bytes"],
            [
                row("memory", &memory, count(chain.stats().backfills), chain.upper().len(), chain.upper().weight()),
                row("files", &files, "-".into(), chain.lower().len(), chain.lower().weight()),
            ]
        )
    );
    let counted = answers.counted();
    println!(
        "{} of {} requests answered; the origin rendered {} pages, {} requests shared a rendering",
        count(seen.answered),
        count(replay.len() as u64),
        count(origin.calls()),
        count(counted.joined)
    );
    let _ = report;
    compare(seen, without, sample, replay.len());
    println!("\n{}", cache.describe());
    verdict(seen, counted)
}
