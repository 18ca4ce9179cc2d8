//! What the program can be asked.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Replays real requests for the product pages of a web shop through a cache: a few megabytes of memory
/// in front of a directory, in front of an origin that works for about a millisecond a page.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
pub(crate) struct Args {
    /// Where the pages are kept on disk. A second run on the same directory starts warm.
    /// Without it, a temporary directory is used and removed at the end
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,

    /// What happens to the origin meanwhile
    #[arg(long, value_enum, default_value_t = Scenario::Steady)]
    pub(crate) scenario: Scenario,

    /// How many requests of the trace to replay [default: all 76,118]
    #[arg(long)]
    pub(crate) requests: Option<usize>,

    /// The bound of the memory tier, in MiB
    #[arg(long, default_value_t = 4)]
    pub(crate) memory_mib: u64,

    /// The bound of the file tier, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) disk_mib: u64,

    /// How many requests are under way at once [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) clients: Option<u16>,
}

/// How much each tier may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
}

impl Args {
    pub(crate) fn bounds(&self) -> Bounds {
        let bytes = |mebibytes: u64| mebibytes.saturating_mul(1 << 20);
        Bounds { memory_bytes: bytes(self.memory_mib), disk_bytes: bytes(self.disk_mib) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The origin answers all the time
    Steady,
    /// The origin fails half-way: stale pages are served while it is down, and it comes back at the end
    Outage,
}
