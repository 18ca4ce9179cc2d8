//! What is asked for on the command line.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::footprint::KINDS;
use crate::measure::Effort;
use crate::rivals::NAMES;
use crate::rows::{ROWS, Row, Scale, Threads};

/// Measures larder beside other caches.
#[derive(Debug, Parser)]
#[command(name = "versus", version)]
pub(crate) struct Options {
    /// Work whose name begins with one of these: hot, hot-u64, keys, mix, bytes ..
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Rivals whose name begins with one of these; larder always takes part
    #[arg(long, value_delimiter = ',')]
    rivals: Vec<String>,

    /// Numbers of threads, 1 to 64 each; 1, 2 and as many of 4, 8, 16 as there are cores unless told
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: Vec<u8>,

    /// Rounds of each piece of work, 1 to 10,000
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: u16,

    /// Milliseconds that a round of the fastest cache takes, 1 to 10,000
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    round: u16,

    /// The folder for `versus.json`, `versus.md` and the charts; without it, the tables are printed only
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,

    /// Few and short rounds, and fewer keys: to see that it runs
    #[arg(long, conflicts_with_all = ["rounds", "round"])]
    pub(crate) quick: bool,
}

impl Options {
    /// Refuses what would measure nothing, or something else than was meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        let work: Vec<&str> = ROWS.iter().map(|row| row.id).chain(KINDS.iter().map(|kind| kind.id)).collect();
        known("--only", &self.only, &work)?;
        known("--rivals", &self.rivals, &NAMES)?;
        let runs = |row: &Row| self.wants(row.id) && !self.threads_for(row).is_empty();
        if ROWS.iter().any(runs) || KINDS.iter().any(|kind| self.wants(kind.id)) {
            return Ok(());
        }
        Err("--threads: what `--only` leaves is work for 1 thread".to_owned())
    }

    pub(crate) fn effort(&self) -> Effort {
        if self.quick {
            return Effort { rounds: 5, round: Duration::from_millis(1) };
        }
        Effort { rounds: self.rounds.into(), round: Duration::from_millis(self.round.into()) }
    }

    pub(crate) fn scale(&self) -> Scale {
        if self.quick { Scale::Quick } else { Scale::Full }
    }

    /// The numbers of threads on which this row is run.
    pub(crate) fn threads_for(&self, row: &Row) -> Vec<usize> {
        let mut threads: Vec<usize> = self.threads.iter().copied().map(usize::from).collect();
        if threads.is_empty() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            threads = [1, 2, 4, 8, 16].into_iter().filter(|threads| *threads <= cores.max(2)).collect();
        }
        threads.sort_unstable();
        threads.dedup();
        threads.retain(|threads| *threads == 1 || row.on == Threads::Each);
        threads
    }

    pub(crate) fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || begins(id, &self.only)
    }

    pub(crate) fn wants_rival(&self, rival: &str) -> bool {
        rival == "larder" || self.rivals.is_empty() || begins(rival, &self.rivals)
    }
}

/// What shapes the figures, as it is written on the command line.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads: Vec<String> = self.threads.iter().map(u8::to_string).collect();
        for (flag, values) in [("only", &self.only), ("rivals", &self.rivals), ("threads", &threads)] {
            if !values.is_empty() {
                write!(f, " --{flag} {}", values.join(","))?;
            }
        }
        if self.quick {
            return write!(f, " --quick");
        }
        for (flag, value, usual) in [("rounds", self.rounds, 25), ("round", self.round, 4)] {
            if value != usual {
                write!(f, " --{flag} {value}")?;
            }
        }
        Ok(())
    }
}

fn begins(name: &str, beginnings: &[String]) -> bool {
    beginnings.iter().any(|beginning| name.starts_with(beginning.as_str()))
}

fn known(flag: &str, beginnings: &[String], names: &[&str]) -> Result<(), String> {
    let meant = |beginning: &String| {
        !beginning.is_empty() && names.iter().any(|name| name.starts_with(beginning.as_str()))
    };
    match beginnings.iter().find(|beginning| !meant(beginning)) {
        None => Ok(()),
        Some(other) => Err(format!("{flag}: no name begins with `{other}`; there are: {}", names.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        let options = Options::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        options.check().map(|()| options)
    }

    #[test]
    fn an_error_names_the_flag_and_what_is_wrong() {
        for (line, flag, wrong) in [
            ("versus --only cold", "--only", "`cold`; there are: hot-u64, "),
            ("versus --only hot,", "--only", "``"),
            ("versus --rivals hitbox", "--rivals", "`hitbox`; there are: larder, "),
            ("versus --threads 0", "--threads", "0 is not in 1..=64"),
            ("versus --threads 1,x", "--threads", "'x'"),
            ("versus --only stampede --threads 2", "--threads", "1 thread"),
            ("versus --rounds 0", "--rounds", "0 is not in 1..=10000"),
            ("versus --round 0", "--round", "0 is not in 1..=10000"),
            ("versus --quick --rounds 9", "--rounds", "--quick"),
            ("versus --fast", "--fast", "unexpected"),
        ] {
            let error = options(line).expect_err(line);
            assert!(error.contains(flag) && error.contains(wrong), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_asked_for_takes_part_and_nothing_else() {
        let asked = options("versus --only hot,bytes-u --rivals moka --threads 4,1,4").unwrap();
        let work = ROWS.iter().map(|row| row.id).chain(KINDS.iter().map(|kind| kind.id));
        let wanted: Vec<_> = work.filter(|id| asked.wants(id)).collect();
        assert_eq!(wanted, ["hot-u64", "hot-arc", "hot-string", "hot-read", "bytes-u64"]);
        let wanted: Vec<_> = NAMES.into_iter().filter(|name| asked.wants_rival(name)).collect();
        assert_eq!(wanted, ["larder", "moka", "moka future"]);
        assert_eq!(asked.threads_for(&ROWS[0]), [1, 4]);
        let stampede = ROWS.iter().find(|row| row.id == "stampede").unwrap();
        assert_eq!(asked.threads_for(stampede), [1]);
    }

    #[test]
    fn the_page_can_say_how_it_was_made() {
        for line in ["", " --only hot,mix --rivals moka --threads 1,2 --rounds 9 --round 2", " --quick"] {
            assert_eq!(options(&format!("versus{line}")).unwrap().to_string(), line);
        }
        assert_eq!(options("versus --out some/where --rounds 25").unwrap().to_string(), "");
    }
}
