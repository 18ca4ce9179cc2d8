//! The same work through larder and through other caches, side by side.
//!
//! ```text
//! cargo run --release -p versus
//! cargo run --release -p versus -- --only hot,mix --rivals quick_cache --quick
//! ```
//!
//! Nanoseconds are those of a machine, ratios are those of the code: what counts is larder's time as a part of
//! the fastest rival's in the same run. All caches take turns in short rounds, so that whatever else the machine
//! does falls on all alike, and the median of the rounds is told. A round makes the same number of calls of each
//! cache.

#![expect(clippy::expect_used, reason = "a bench whose caches fail may stop")]

mod footprint;
mod measure;
mod options;
mod plot;
mod report;
mod rivals;
mod rows;
mod work;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use footprint::KINDS;
use measure::{Run, Subject, compare};
use options::Options;
use report::{Document, Figure, Outcome, Sizes};
use rows::{ROWS, Row};

/// The crates that are compared, in the order of the tables.
const COMPARED: [&str; 8] =
    ["larder", "quick_cache", "moka", "mini-moka", "foyer-memory", "cached", "cachet", "arc-swap"];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    options.check()?;
    if options.out.is_some() && !options.quick && cfg!(debug_assertions) {
        return Err("--out: figures of a build without `--release` are not to be written".into());
    }
    if let Some(folder) = &options.out {
        // Before the measurements: they take minutes.
        fs::create_dir_all(folder).map_err(|error| format!("--out {}: {error}", folder.display()))?;
    }
    let mut outcomes = Vec::new();
    for row in ROWS.iter().filter(|row| options.wants(row.id)) {
        measure(row, options, &mut outcomes);
    }
    let mut sizes = Vec::new();
    for kind in KINDS.iter().filter(|kind| options.wants(kind.id)) {
        let found = Sizes::new(kind, options.scale(), &|rival| options.wants_rival(rival));
        print!("{found}");
        sizes.push(found);
    }
    let document = Document {
        arguments: options.to_string(),
        quick: options.quick,
        machine: format!("{}, {}", std::env::consts::OS, std::env::consts::ARCH),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        rounds: options.effort().rounds,
        versions: versions(),
        outcomes,
        sizes,
    };
    options.out.as_ref().map_or(Ok(()), |folder| write(folder, &document))
}

/// A piece of work on each number of threads.
fn measure(row: &Row, options: &Options, outcomes: &mut Vec<Outcome>) {
    let mut subjects = (row.subjects)(options.scale());
    subjects.retain(|subject| options.wants_rival(subject.rival));
    let allocations: Vec<Option<f64>> = subjects.iter().map(allocations).collect();
    for threads in options.threads_for(row) {
        let (costs, calls) = compare(&subjects, threads, row.most_calls, options.effort());
        let figures = subjects.iter().zip(costs).zip(&allocations);
        let figures = figures.map(|((subject, cost), allocations)| Figure::of(subject, cost, *allocations));
        let outcome = Outcome::new(row, threads, calls, figures.collect());
        print!("{outcome}");
        outcomes.push(outcome);
    }
}

fn write(folder: &Path, document: &Document) -> Result<(), Box<dyn Error>> {
    for (name, text) in [("versus.json", document.json()?), ("versus.md", document.markdown())] {
        let file = folder.join(name);
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    plot::draw(folder, &document.outcomes)
}

/// The names and versions of the compared crates, from the lock file that they were built with.
fn versions() -> Vec<String> {
    let lock = include_str!("../../../Cargo.lock");
    let version = |name: &&str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", rest.split_once('"')?.0))
    };
    COMPARED.iter().filter_map(version).collect()
}

/// Allocations of a call, on one thread.
fn allocations(subject: &Subject) -> Option<f64> {
    let work = subject.work.as_ref().ok()?;
    let run = Run { threads: 1, calls: 1024, counted: true };
    // The first round may fill what stays.
    work(&run);
    Some(work(&run).allocations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compared_crate_has_its_version_on_the_page() {
        let versions = versions();
        assert_eq!(versions.len(), COMPARED.len(), "{versions:?}");
        for (name, version) in COMPARED.iter().zip(&versions) {
            let number = version.strip_prefix(name).unwrap().trim_start();
            assert_eq!(number.split('.').count(), 3, "{version}");
        }
    }
}
