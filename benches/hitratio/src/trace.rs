//! The requests: from files, and made.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Zipf};
use ruzstd::decoding::StreamingDecoder;

/// Keys in the order in which they were asked for.
pub(crate) struct Trace {
    pub(crate) name: String,
    /// Keys are numbered in the order of their first request.
    pub(crate) requests: Vec<u32>,
    pub(crate) distinct: usize,
}

/// The traces of `folder` (or the one that comes with the repository), and those that are made.
pub(crate) fn all(folder: Option<&Path>, only: &str) -> io::Result<Vec<Trace>> {
    let mut traces = Vec::new();
    if let Some(folder) = folder {
        let mut files = Vec::new();
        for file in fs::read_dir(folder).map_err(|error| of(folder, &error))? {
            files.push(file.map_err(|error| of(folder, &error))?.path());
        }
        files.sort();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((name, packing)) = name.split_once(".txt").filter(|(name, _)| name.contains(only))
            else {
                continue;
            };
            let told = |error: io::Error| of(&file, &error);
            let plain = open(File::open(&file).map_err(told)?, packing).map_err(told)?;
            traces.push(read(name, plain).map_err(told)?);
        }
    } else if "web07".contains(only) {
        traces.push(read("web07", open(WEB07, ".zst")?)?);
    }
    let made = MADE.into_iter().filter(|(name, _)| name.contains(only));
    traces.extend(made.map(|(name, make)| Trace::new(name, make())));
    Ok(traces)
}

/// The error with the path in front that it is about.
fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

const WEB07: &[u8] = include_bytes!("../../../examples/quickstart/web07.txt.zst");

fn open<'a>(file: impl Read + 'a, packing: &str) -> io::Result<Box<dyn Read + 'a>> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    match packing {
        "" => Ok(Box::new(file)),
        ".gz" => Ok(Box::new(MultiGzDecoder::new(file))),
        ".zst" => Ok(Box::new(StreamingDecoder::new(file).map_err(|error| invalid(error.to_string()))?)),
        other => Err(invalid(format!("`{other}` is no packing that is known: use none, .gz or .zst"))),
    }
}

fn read(name: &str, file: impl Read) -> io::Result<Trace> {
    let mut keys = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        let key: u64 = line.trim().parse().map_err(|_| {
            let what = format!("line {}: `{line}` is no number", number + 1);
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no requests in it"));
    }
    Ok(Trace::new(name, keys))
}

impl Trace {
    pub(crate) fn new<K: Hash + Eq>(name: &str, keys: Vec<K>) -> Self {
        let mut numbers = HashMap::new();
        let number = |key| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(key).or_insert(next)
        };
        let requests = keys.into_iter().map(number).collect();
        Self { name: name.into(), requests, distinct: numbers.len() }
    }
}

/// A name, and what makes the requests.
type Made = (&'static str, fn() -> Vec<u64>);

const MADE: [Made; 3] = [("made-zipf0.9", skewed), ("made-scan0.9", scanned), ("made-drift0.8", drifting)];

/// Requests in each trace that is made.
const LENGTH: usize = 1_000_000;

/// Ranks from 0 on, drawn by Zipf's law.
fn ranks(keys: u32, exponent: f64) -> impl Iterator<Item = u64> {
    // The arguments are constants that the law allows.
    let zipf = Zipf::new(f64::from(keys), exponent).ok();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a small whole number"
    )]
    let whole = |rank: f64| rank as u64 - 1;
    let mut random = StdRng::seed_from_u64(7);
    std::iter::repeat_with(move || zipf.map_or(0, |zipf| whole(zipf.sample(&mut random))))
}

/// Zipf 0.9 over 200,000 keys.
fn skewed() -> Vec<u64> {
    ranks(200_000, 0.9).take(LENGTH).collect()
}

/// The same, and after each 90,000 of these a scan of 10,000 keys that are never asked for again.
fn scanned() -> Vec<u64> {
    let mut ranks = ranks(200_000, 0.9);
    let mut scan = 1 << 40..;
    let mut keys = Vec::with_capacity(LENGTH);
    while keys.len() < LENGTH {
        keys.extend(ranks.by_ref().take(90_000));
        keys.extend(scan.by_ref().take(10_000));
    }
    keys
}

/// Zipf 0.8 over 212,000 keys whose ranks move on by one every 60 requests.
fn drifting() -> Vec<u64> {
    let shifted = |(request, rank): (u64, u64)| (rank + request / 60) * 7_919 % 212_000;
    (0..).zip(ranks(212_000, 0.8)).map(shifted).take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_the_repository_is_whole() {
        let traces = all(None, "web07").unwrap();
        assert_eq!((traces[0].requests.len(), traces[0].distinct), (76_118, 20_484));
    }

    #[test]
    fn what_is_no_trace_is_refused_by_line() {
        let error = read("bad", "1\n2\nx\n".as_bytes()).err().unwrap().to_string();
        assert_eq!(error, "line 3: `x` is no number");
        assert!(read("empty", "".as_bytes()).is_err());
        assert!(open("".as_bytes(), ".xz").is_err());
    }
}
