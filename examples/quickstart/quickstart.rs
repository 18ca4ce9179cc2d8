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
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use larder::codec::Postcard;
use larder::{BoxFuture, Cache, Chain, Clock, ManualClock, Memory, Store, StoreExt, SystemClock};
use larder_file::FileStore;

use crate::args::{Args, Bounds, Scenario};
use crate::origin::{Origin, Page};
use crate::replay::{Replay, Seen};
use crate::report::{count, mebibytes, share, table, time};
use crate::tally::{Answers, Counted, Tier};

/// How long a shutdown may take.
const PATIENCE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The stack: typed pages in memory, in front of encoded ones in files. The tallies see what each tier is
/// asked.
async fn stack(
    dir: PathBuf,
    bounds: Bounds,
    seen: [Tier; 2],
    clock: impl Clock + Clone,
) -> larder::Result<Chain<impl Store<Key = str, Value = Arc<Page>>, impl Store<Key = str, Value = Arc<Page>>>>
{
    let [memory_seen, files_seen] = seen;
    let memory = Memory::<str, Arc<Page>>::new(usize::MAX)
        .byte_limited(bounds.memory_bytes)
        .inspect(move |access| memory_seen.saw(access));
    let files = FileStore::at(dir)
        .max_bytes(bounds.disk_bytes)
        .clock(clock.clone())
        .open()
        .await?
        .encoded(Postcard)
        .inspect(move |access| files_seen.saw(access));
    Ok(memory.chain(files).clock(clock))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let replay = Replay::new(args)?;
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
        Scenario::Steady => steady(&dir.join("steady"), args, &replay).await,
        Scenario::Outage => outage(&dir.join("outage"), args, &replay).await,
    }
}

/// The main job: what the cache is worth.
async fn steady(dir: &Path, args: &Args, replay: &Replay) -> Result<(), Box<dyn Error>> {
    let (memory, files, answers) = (Tier::default(), Tier::default(), Answers::default());
    let listener = answers.clone();
    let cache = Cache::builder(
        stack(dir.to_owned(), args.bounds(), [memory.clone(), files.clone()], SystemClock).await?,
    )
    .ttl(DAY)
    .events(move |event| listener.saw(event))
    .build()?;
    println!("{}", start(cache.store().lower(), dir));

    let origin = Arc::new(Origin::default());
    let seen = replay.run("with the cache", 0..replay.len(), through(&cache, &origin)).await?;
    cache.shutdown(PATIENCE).await?;

    // The same clients without a cache: a part of the requests is measured, the whole is its multiple.
    let sample = replay.len().min(2_000);
    let bare = Arc::new(Origin::default());
    let without = replay.run("without it", 0..sample, move |page| Arc::clone(&bare).page(page)).await?;

    let chain = cache.store();
    println!(
        "\n{}",
        table(
            &["tier", "hits", "hit ratio", "misses", "backfills", "entries", "bytes"],
            [
                row("memory", &memory, Some(chain.stats().backfills), chain.upper()),
                row("files", &files, None, chain.lower()),
            ]
        )
    );
    println!(
        "\n{} of {} requests answered; {} pages rendered by the origin; {} requests joined one under way",
        count(seen.answered),
        count(replay.len() as u64),
        count(origin.calls()),
        count(answers.counted().joined)
    );
    println!("{}", comparison(seen.took, without.took, sample, replay.len()));
    println!("\n{}", cache.describe());
    verdict(answers.counted(), seen)
}

/// The origin fails half-way. The clock is moved by hand, so that hours pass at once.
async fn outage(dir: &Path, args: &Args, replay: &Replay) -> Result<(), Box<dyn Error>> {
    let answers = Answers::default();
    let listener = answers.clone();
    // A day ago, so that what is left on the disk is never from the future.
    let clock = ManualClock::new(SystemClock.now().saturating_sub(DAY));
    let cache = Cache::builder(
        stack(dir.to_owned(), args.bounds(), [Tier::default(), Tier::default()], clock.clone()).await?,
    )
    .ttl(HOUR)
    .stale(HOUR)
    .keep_stale_on_error(DAY)
    .clock(clock.clone())
    .events(move |event| listener.saw(event))
    .build()?;
    println!("{}", start(cache.store().lower(), dir));

    let origin = Arc::new(Origin::default());
    let (all, half) = (replay.len(), replay.len() / 2);
    // When, whether the origin is down, which requests.
    let acts = [
        (Duration::ZERO, false, 0..all),
        (HOUR * 3 / 2, true, 0..half),
        (HOUR * 6, true, half..all),
        (HOUR * 7, false, all - all / 8..all),
    ];
    let began = clock.now();
    let mut rows = Vec::new();
    let mut total = Seen::default();
    for (after, down, range) in acts {
        clock.set(began.saturating_add(after));
        origin.fail(down);
        let (before, failures) = (answers.counted(), origin.failures());
        let name = if down { "origin down" } else { "origin up" };
        let seen = replay.run(name, range, through(&cache, &origin)).await?;
        let by = answers.counted().since(before);
        rows.push(vec![
            format!("after {} min\n{name}", after.as_secs() / 60),
            count(seen.requests()),
            count(seen.answered),
            count(by.fresh),
            count(by.stale),
            count(by.stale_on_error),
            count(by.computed),
            count(by.joined),
            count(origin.failures() - failures),
            time(seen.took),
        ]);
        total = total.and(seen);
    }
    let header = [
        "",
        "requests",
        "answered",
        "fresh",
        "stale",
        "stale\non error",
        "computed",
        "joined",
        "origin\nfailures",
        "time",
    ];
    println!("\n{}", table(&header, rows));
    println!(
        "\n{} of {} requests answered, {} of them while the origin was down",
        count(total.answered),
        count(total.requests()),
        count(all as u64)
    );
    cache.shutdown(PATIENCE).await?;
    println!("\n{}", cache.describe());
    verdict(answers.counted(), total)
}

/// How the clients ask: the cache, and behind it the origin.
fn through<S>(
    cache: &Cache<S>,
    origin: &Arc<Origin>,
) -> impl Fn(u32) -> BoxFuture<'static, larder::Result<Arc<Page>>> + Clone + Send + 'static
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

fn start(files: &impl Store, dir: &Path) -> String {
    match files.len() {
        Some(0) | None => format!("cold start: no pages in {}", dir.display()),
        Some(found) => format!(
            "warm start: {} pages ({}) from an earlier run in {}",
            count(found),
            mebibytes(files.weight().unwrap_or(0)),
            dir.display()
        ),
    }
}

fn row(name: &str, tier: &Tier, backfills: Option<u64>, store: &impl Store) -> Vec<String> {
    let or_nothing = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    vec![
        name.to_owned(),
        count(tier.hits()),
        share(tier.hits(), tier.hits() + tier.misses()),
        count(tier.misses()),
        or_nothing(backfills.map(count)),
        or_nothing(store.len().map(count)),
        or_nothing(store.weight().map(mebibytes)),
    ]
}

fn comparison(with: Duration, sample_took: Duration, sample: usize, all: usize) -> String {
    let Some(each) = sample_took.checked_div(u32::try_from(sample).unwrap_or(u32::MAX)) else {
        return String::new();
    };
    let without = each.saturating_mul(u32::try_from(all).unwrap_or(u32::MAX));
    let ratio = without.as_nanos() * 10 / with.as_nanos().max(1);
    format!(
        "{} with the cache, {} without it: {}.{} times as fast (estimated: {} requests without it took {})",
        time(with),
        time(without),
        ratio / 10,
        ratio % 10,
        count(sample as u64),
        time(sample_took)
    )
}

fn verdict(counted: Counted, seen: Seen) -> Result<(), Box<dyn Error>> {
    if counted.failed_stores > 0 {
        println!("\n{} calls to the stack failed, and the cache did without", count(counted.failed_stores));
    }
    match (seen.unanswered, seen.wrong) {
        (0, 0) => Ok(()),
        (unanswered, wrong) => {
            Err(format!("{} requests unanswered, {} answered wrongly", count(unanswered), count(wrong))
                .into())
        }
    }
}
