//! Replays traces through larder's eviction policies, other caches and Belady's optimum, and writes what
//! share of the optimum's hits each of them gets.
//!
//! ```text
//! cargo run --release -p hitratio -- --traces DIR
//! ```
//!
//! The work is read-through: get, and on a miss insert, with unit weights, on one thread. Each trace is
//! replayed at 0.1, 1, 5, 10 and 25 % of its distinct keys. A cell counts if the store has room for 64
//! entries at least and the optimum hits 2 % at least: below that, chance decides. A trace's score is the mean over its
//! cells, a cache's score the mean over the traces.
//!
//! Traces are text, a number a line (`name.txt`, also `.gz` and `.zst`). One is in this repository (`web07`);
//! three are made, with a seed; others are to be had from the simulators of Caffeine and of moka (`README.md`
//! beside this package says which).

mod caches;
mod optimum;
mod report;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Parser;

use crate::caches::CACHES;
use crate::report::{Cell, Report};
use crate::trace::Trace;

/// Hit ratios on traces, beside Belady's optimum.
#[derive(Debug, Parser)]
#[command(name = "hitratio", version)]
struct Args {
    /// A folder of traces: `*.txt`, `*.txt.gz`, `*.txt.zst`, a number a line
    #[arg(long)]
    traces: Option<PathBuf>,

    /// Only traces whose name has this in it
    #[arg(long, default_value = "")]
    only: String,

    /// Where the tables (Markdown, JSON) and curves (SVG) are written; without it, the table is printed only
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hitratio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let traces = trace::all(args.traces.as_deref(), &args.only)?;
    if traces.is_empty() {
        return Err(format!("no trace has `{}` in its name", args.only).into());
    }
    let report = Report::new(&replay(&traces));
    print!("{}", report.markdown());
    if let Some(out) = &args.out {
        report.write(out)?;
    }
    Ok(())
}

/// Shares of the distinct keys, in thousandths.
const CAPACITIES: [usize; 5] = [1, 10, 50, 100, 250];
const LEAST_ENTRIES: usize = 64;
const LEAST_OPTIMUM: f64 = 0.02;

/// All cells, worked off by as many threads as there are cores.
fn replay(traces: &[Trace]) -> Vec<Cell> {
    let jobs: Vec<(&Trace, usize)> =
        traces.iter().flat_map(|trace| CAPACITIES.map(|share| (trace, share))).collect();
    let (next, cells) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((trace, share)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let capacity = (trace.distinct * share + 500) / 1_000;
                    if capacity < LEAST_ENTRIES {
                        continue;
                    }
                    let optimum = ratio(optimum::hits(trace, capacity), trace);
                    if optimum < LEAST_OPTIMUM {
                        continue;
                    }
                    let ratios = CACHES.map(|cache| ratio((cache.replay)(&trace.requests, capacity), trace));
                    let cell = Cell { trace: trace.name.clone(), capacity, optimum, ratios };
                    cells.lock().unwrap_or_else(PoisonError::into_inner).push(cell);
                }
            });
        }
    });
    let mut cells = cells.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |cell: &Cell| traces.iter().position(|trace| trace.name == cell.trace);
    cells.sort_by_key(|cell| (place(cell), cell.capacity));
    cells
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ratio(hits: usize, trace: &Trace) -> f64 {
    hits as f64 / trace.requests.len() as f64
}
