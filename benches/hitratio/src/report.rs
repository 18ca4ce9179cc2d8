//! What came out, as tables and curves.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plotters::prelude::*;
use serde::Serialize;

use crate::caches::CACHES;

/// A trace at a capacity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) trace: String,
    pub(crate) capacity: usize,
    /// The optimum's hit ratio.
    pub(crate) optimum: f64,
    /// Hit ratios, in the order of [`CACHES`].
    pub(crate) ratios: [f64; CACHES.len()],
}

/// Scores, in the order of [`CACHES`]: shares of the optimum's hits.
#[derive(Debug, Serialize)]
struct Score {
    trace: String,
    shares: [f64; CACHES.len()],
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    caches: [&'static str; CACHES.len()],
    mean: [f64; CACHES.len()],
    traces: Vec<Score>,
    cells: Vec<Cell>,
}

impl Report {
    pub(crate) fn new(cells: &[Cell]) -> Self {
        let traces: Vec<Score> = cells
            .chunk_by(|one, other| one.trace == other.trace)
            .map(|cells| Score {
                trace: cells[0].trace.clone(),
                shares: mean(cells.iter().map(Cell::shares)),
            })
            .collect();
        let mean = mean(traces.iter().map(|score| score.shares));
        Self { caches: CACHES.map(|cache| cache.name), mean, traces, cells: cells.to_vec() }
    }

    /// Shares of the optimum's hits, in percent.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| trace | {} |\n", self.caches.join(" | "));
        let _ = writeln!(text, "| --- |{}", " ---: |".repeat(CACHES.len()));
        let name = format!("**mean of {}**", self.traces.len());
        for (name, shares) in
            self.traces.iter().map(|score| (&score.trace, &score.shares)).chain([(&name, &self.mean)])
        {
            let _ = write!(text, "| {name} |");
            for share in shares {
                let _ = write!(text, " {:.1} |", share * 100.0);
            }
            text.push('\n');
        }
        text
    }

    /// Writes `hitratio.md`, `hitratio.json`, and a curve of miss ratios for each trace, `hitratio-NAME.svg`.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        let title = "# Hit ratios, in percent of the optimum's hits\n\nMade by `cargo run --release -p hitratio`.\n\n";
        fs::write(folder.join("hitratio.md"), format!("{title}{}", self.markdown()))?;
        fs::write(folder.join("hitratio.json"), serde_json::to_string_pretty(self)? + "\n")?;
        for cells in
            self.cells.chunk_by(|one, other| one.trace == other.trace).filter(|cells| cells.len() > 1)
        {
            curve(cells, &folder.join(format!("hitratio-{}.svg", cells[0].trace)))?;
        }
        Ok(())
    }
}

impl Cell {
    fn shares(&self) -> [f64; CACHES.len()] {
        self.ratios.map(|ratio| ratio / self.optimum)
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are few rows")]
fn mean(rows: impl ExactSizeIterator<Item = [f64; CACHES.len()]>) -> [f64; CACHES.len()] {
    let count = rows.len() as f64;
    let mut mean = [0.0; CACHES.len()];
    for row in rows {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += value / count;
        }
    }
    mean
}

/// Name, width, colour, points.
type Line = (&'static str, u32, RGBAColor, Vec<(f64, f64)>);

/// Miss ratio over capacity, a line a cache; larder's are thicker.
fn curve(cells: &[Cell], file: &Path) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(file, (760, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let entries = |cell: &Cell| u32::try_from(cell.capacity).map_or(f64::MAX, f64::from);
    let (least, most) = (entries(&cells[0]), entries(&cells[cells.len() - 1]));
    let lowest = cells.iter().map(|cell| 1.0 - cell.optimum).fold(1.0, f64::min) * 0.95;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: misses", cells[0].trace), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((least..most).log_scale(), lowest..1.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("capacity (entries)")
        .y_desc("miss ratio")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    let optimum = cells.iter().map(|cell| (entries(cell), 1.0 - cell.optimum)).collect();
    let lines = CACHES.iter().enumerate().map(|(place, cache)| {
        let points = cells.iter().map(|cell| (entries(cell), 1.0 - cell.ratios[place])).collect();
        (cache.name, if cache.ours { 2 } else { 1 }, Palette99::pick(place).to_rgba(), points)
    });
    let best = ("optimum", 2, BLACK.to_rgba(), optimum);
    for (name, width, colour, points) in std::iter::once::<Line>(best).chain(lines) {
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(width)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(width)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.4))
        .draw()?;
    area.present()?;
    Ok(())
}
