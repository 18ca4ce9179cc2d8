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
use larder::{BoxFuture, Cache, Chain, Clock, ManualClock, Memory, Store, StoreExt, SystemClock};
use larder_file::File;

use crate::args::{Args, Scenario};
use crate::origin::{Origin, Page};
use crate::replay::{Replay, Seen};
use crate::report::{count, mebibytes, share, table, time};
use crate::tally::{Answers, Tier};

/// How long a shutdown may take.
const PATIENCE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The stack: typed pages in memory, encoded ones in files. `saw` is told what each tier was asked.
fn stack(
    dir: &Path,
    args: &Args,
    [memory_saw, files_saw]: [Tier; 2],
) -> larder::Result<Chain<impl Store<Key = str, Value = Arc<Page>>, impl Store<Key = str, Value = Arc<Page>>>>
{
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

/// The main job: what the cache is worth.
async fn steady(dir: &Path, args: &Args, replay: &Replay) -> Result<(), Box<dyn Error>> {
    let (memory, files, answers) = (Tier::default(), Tier::default(), Answers::default());
    let listener = answers.clone();
    let cache = Cache::builder(stack(dir, args, [memory.clone(), files.clone()])?)
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
        "\n{} of {} requests answered, {} pages rendered by the origin, {} requests shared a rendering",
        count(seen.answered),
        count(replay.len() as u64),
        count(origin.calls()),
        count(answers.counted().joined)
    );
    println!("{}", comparison(seen.took, without.took, sample, replay.len()));
    println!("\n{}", cache.describe());
    verdict(seen)
}

/// The origin fails half-way. The clock is moved by hand, so that hours pass at once.
async fn outage(dir: &Path, args: &Args, replay: &Replay) -> Result<(), Box<dyn Error>> {
    let answers = Answers::default();
    let listener = answers.clone();
    // A day ago, so that what is left on the disk is never from the future.
    let clock = ManualClock::new(SystemClock.now().saturating_sub(DAY));
    let cache = Cache::builder(stack(dir, args, [Tier::default(), Tier::default()])?)
        .ttl(HOUR)
        .stale(HOUR)
        .keep_stale_on_error(DAY)
        .clock(clock.clone())
        .events(move |event| listener.saw(event))
        .build()?;
    println!("{}", start(cache.store().lower(), dir));

    let origin = Arc::new(Origin::default());
    let (all, half) = (replay.len(), replay.len() / 2);
    // When, what has happened, is the origin down, which requests.
    let acts = [
        (Duration::ZERO, "origin up", false, 0..all),
        (HOUR * 3 / 2, "origin down, pages stale", true, 0..half),
        (HOUR * 6, "origin down, pages expired", true, half..all),
        (HOUR * 7, "origin up again", false, all - all / 8..all),
    ];
    let began = clock.now();
    let mut rows = Vec::new();
    let mut total = Seen::default();
    for (after, label, down, range) in acts {
        clock.set(began.saturating_add(after));
        origin.fail(down);
        let (before, calls, failures) = (answers.counted(), origin.calls(), origin.failures());
        let requests = range.len();
        let seen = replay.run(label, range, through(&cache, &origin)).await?;
        let by = answers.counted().since(before);
        rows.push(vec![
            format!("{label} (after {} min)", after.as_secs() / 60),
            count(requests as u64),
            count(seen.answered),
            count(by.fresh),
            count(by.stale),
            count(by.stale_on_error),
            count(by.computed),
            count(by.joined),
            format!("{} / {}", count(origin.calls() - calls), count(origin.failures() - failures)),
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
        "stale on error",
        "computed",
        "joined",
        "origin / failed",
        "time",
    ];
    println!("\n{}", table(&header, rows));
    println!(
        "\n{} of {} requests answered",
        count(total.answered),
        count(total.answered + total.unanswered + total.wrong)
    );
    cache.shutdown(PATIENCE).await?;
    println!("\n{}", cache.describe());
    verdict(total)
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
    format!(
        "{} with the cache, {} without it (estimated: {} requests took {})",
        time(with),
        time(without),
        count(sample as u64),
        time(sample_took)
    )
}

fn verdict(seen: Seen) -> Result<(), Box<dyn Error>> {
    match (seen.unanswered, seen.wrong) {
        (0, 0) => Ok(()),
        (unanswered, wrong) => {
            Err(format!("{} requests unanswered, {} answered wrongly", count(unanswered), count(wrong))
                .into())
        }
    }
}
