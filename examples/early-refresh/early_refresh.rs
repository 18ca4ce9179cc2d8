//! What the origin has to bear when 100,000 keys that were loaded together expire together, with a plain ttl, with
//! jitter, and with early refresh.
//!
//! ```text
//! cargo run --release --example early_refresh                       # the numbers
//! cargo run --release --example early_refresh -- docs/early-refresh.svg
//! ```
//!
//! The page `docs/early-refresh.md` says what they mean. Time is virtual: three runs print the same.

mod simulation;

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use simulation::{Builder, CALLS, Outcome, Size, simulate};

/// As many as the chart is about.
const KEYS: u64 = 100_000;

/// A way to go: its name, its colour, its settings for so many keys.
struct Way {
    name: &'static str,
    colour: RGBColor,
    set: fn(Builder, Size) -> Builder,
}

/// The colours of Okabe and Ito, which most people can tell apart.
const WAYS: [Way; 4] = [
    Way { name: "plain ttl", colour: RGBColor(213, 94, 0), set: |cache, _| cache },
    Way { name: "jitter 0.5", colour: RGBColor(230, 159, 0), set: |cache, _| cache.jitter(0.5) },
    Way {
        name: "refresh_ahead 0.5, budget",
        colour: RGBColor(0, 114, 178),
        set: |cache, size| budget(cache.refresh_ahead(0.5), size),
    },
    Way {
        name: "refresh_ahead_by_cost 100",
        colour: RGBColor(0, 158, 115),
        set: |cache, _| cache.refresh_ahead_by_cost(100.0).max_refreshes(usize::MAX),
    },
];

/// A twentieth of the keys a second: all of them within 20 s of the 30 for which they are due.
fn budget(cache: Builder, Size(keys): Size) -> Builder {
    let at_once = usize::try_from(most_at_once(Size(keys))).unwrap_or(usize::MAX);
    cache.refreshes_per_second(most_per_second(Size(keys))).max_refreshes(at_once)
}

#[expect(clippy::cast_precision_loss, reason = "a number of keys")]
fn most_per_second(Size(keys): Size) -> f64 {
    keys as f64 / 20.0
}

/// As many as a rate of that keeps running for a tenth of a second each, and half as many again.
fn most_at_once(Size(keys): Size) -> u64 {
    keys / 20 / 10 * 3 / 2
}

fn main() -> Result<(), Box<dyn Error>> {
    let chart = std::env::args_os().nth(1);
    let outcomes = run(Size(KEYS))?;
    println!(
        "{:<28}{:>16}{:>16}{:>16}{:>16}",
        "", "most at once", "most a second", "callers waited", "skipped"
    );
    for (way, outcome) in WAYS.iter().zip(&outcomes) {
        let (peak, per_second) = (outcome.peak(), outcome.peak_per_second());
        let Outcome { waited, skipped, .. } = outcome;
        println!("{:<28}{peak:>16}{per_second:>16}{waited:>16}{skipped:>16}", way.name);
    }
    if let Some(chart) = chart {
        draw(Path::new(&chart), &outcomes)?;
    }
    Ok(())
}

fn run(size: Size) -> Result<Vec<Outcome>, Box<dyn Error>> {
    // So long a turn that everybody who has something to do has done it before time passes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .event_interval(1_000_000)
        .build()?;
    let mut outcomes = Vec::new();
    for way in WAYS {
        outcomes.push(runtime.block_on(simulate(size, |cache| (way.set)(cache, size)))?);
    }
    Ok(outcomes)
}

/// The origin's load over time, on white, so that it can be read on a dark page too.
#[expect(clippy::cast_precision_loss, reason = "pixels")]
fn draw(path: &Path, outcomes: &[Outcome]) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(path, (860, 460)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = outcomes.iter().map(Outcome::peak).max().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption("100,000 keys loaded together, ttl 60 s: computations at the origin", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(CALLS.start as f64..CALLS.end as f64, (1.0..most * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("time since the keys were loaded (s)")
        .y_desc("computations running at once")
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (way, outcome) in WAYS.iter().zip(outcomes) {
        let point = |(tenth, running): (usize, &u64)| {
            (CALLS.start as f64 + tenth as f64 / 10.0, (*running as f64).max(1.0))
        };
        let line = LineSeries::new(outcome.running.iter().enumerate().map(point), way.colour.stroke_width(2));
        let colour = way.colour;
        chart
            .draw_series(line)?
            .label(way.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.4))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E18, E19: what the page says, on a tenth of its keys or less, which a build without optimizations bears.
    #[test]
    fn e18_with_early_refresh_and_a_budget_nobody_waits_and_the_origin_is_spared() {
        let size = Size(4_000);
        let outcomes = run(size).unwrap();
        let [plain, jitter, early, by_cost] = &outcomes[..] else { panic!("four ways") };
        assert!(plain.peak() > size.0 / 30, "a stampede: {}", plain.peak());
        assert!(plain.peak_per_second() > size.0 / 4, "{}", plain.peak_per_second());
        assert!(
            plain.waited >= size.0 * 9 / 10 && jitter.waited >= size.0 * 9 / 10,
            "each key's first caller"
        );
        assert!(jitter.peak() * 5 < plain.peak(), "{} and {}", jitter.peak(), plain.peak());
        assert_eq!(early.waited, 0);
        assert!(early.peak() <= most_at_once(size), "{}", early.peak());
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let per_second = early.peak_per_second() as f64;
        // A tenth of a second's worth is the burst.
        assert!(per_second <= most_per_second(size) * 1.1, "{per_second}");
        assert!(early.skipped > 0);
        assert!(by_cost.peak() * 2 < plain.peak() && by_cost.waited * 20 < plain.waited, "{by_cost:?}");
    }
}
