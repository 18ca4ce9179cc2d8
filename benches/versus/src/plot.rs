//! The figures as SVG.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::report::Outcome;

/// The caches and their colours: those of Okabe and Ito, which most people can tell apart, and greys.
const COLOURS: [(&str, RGBColor); 10] = [
    ("larder", RGBColor(213, 94, 0)),
    ("quick_cache", RGBColor(0, 114, 178)),
    ("quick_cache async", RGBColor(86, 180, 233)),
    ("moka", RGBColor(0, 158, 115)),
    ("moka future", RGBColor(128, 210, 180)),
    ("mini-moka", RGBColor(240, 228, 66)),
    ("foyer", RGBColor(204, 121, 167)),
    ("cached", RGBColor(230, 159, 0)),
    ("cachet", RGBColor(110, 110, 110)),
    ("arc-swap", RGBColor(190, 190, 190)),
];

const LABEL: (&str, i32) = ("sans-serif", 13);

/// One chart for each number of threads, `versus-1.svg` .., and `versus-threads.svg` if there are more than two.
pub(crate) fn draw(folder: &Path, outcomes: &[Outcome]) -> Result<(), Box<dyn Error>> {
    let threads: BTreeSet<usize> = outcomes.iter().map(|outcome| outcome.threads).collect();
    for threads in &threads {
        let those: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.threads == *threads).collect();
        draw_each(&folder.join(format!("versus-{threads}.svg")), *threads, &those)?;
    }
    if threads.len() > 2 {
        draw_sweep(&folder.join("versus-threads.svg"), outcomes)?;
    }
    Ok(())
}

/// A line for each piece of work, a dot for each cache.
#[expect(clippy::cast_precision_loss, reason = "a few lines")]
fn draw_each(file: &Path, threads: usize, outcomes: &[&Outcome]) -> Result<(), Box<dyn Error>> {
    let lines = outcomes.len();
    let height = 130 + 28 * u32::try_from(lines)?;
    let area = SVGBackend::new(file, (960, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let (least, most) = bounds(outcomes);
    let on = if threads == 1 { "one thread".to_owned() } else { format!("{threads} threads") };
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Time of a call, {on}: left is better"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(120)
        .right_y_label_area_size(0)
        .build_cartesian_2d((least..most).log_scale(), -0.5..(lines as f64 - 0.5))?;
    let name = |place: &f64| {
        let line = (0..lines).find(|line| (*line as f64 - place).abs() < 1e-6);
        line.map_or_else(String::new, |line| outcomes[lines - 1 - line].id.to_owned())
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(2 * lines + 1)
        .x_desc("nanoseconds a call")
        .label_style(LABEL)
        .x_label_formatter(&|nanos| format!("{nanos:.0}"))
        .y_label_formatter(&name)
        .draw()?;
    for (rival, colour) in COLOURS {
        let dots = outcomes.iter().enumerate().filter_map(|(line, outcome)| {
            let figure = outcome.figures.iter().find(|figure| figure.rival == rival)?;
            Some((figure.cost.as_ref()?.median, (lines - 1 - line) as f64))
        });
        let size = if rival == "larder" { 7 } else { 5 };
        let dots: Vec<_> = dots.map(|dot| Circle::new(dot, size, colour.mix(0.85).filled())).collect();
        if dots.is_empty() {
            continue;
        }
        chart
            .draw_series(dots)?
            .label(rival)
            .legend(move |(x, y)| Circle::new((x + 8, y), 5, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.4))
        .label_font(LABEL)
        .draw()?;
    area.present()?;
    Ok(())
}

/// A panel for each piece of work that was done on several numbers of threads, a line for each cache.
#[expect(clippy::cast_precision_loss, reason = "a few threads")]
fn draw_sweep(file: &Path, outcomes: &[Outcome]) -> Result<(), Box<dyn Error>> {
    let groups: Vec<&[Outcome]> =
        outcomes.chunk_by(|one, other| one.id == other.id).filter(|group| group.len() > 1).collect();
    let lines = groups.len().div_ceil(3);
    let area = SVGBackend::new(file, (1140, 260 * u32::try_from(lines)?)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, group) in area.split_evenly((lines, 3)).iter().zip(&groups) {
        let all: Vec<&Outcome> = group.iter().collect();
        let (least, most) = bounds(&all);
        let widest = group.iter().map(|outcome| outcome.threads).max().unwrap_or(1) as f64;
        let mut chart = ChartBuilder::on(panel)
            .caption(group[0].id, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(48)
            .build_cartesian_2d((1.0..widest).log_scale(), (least..most).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("threads")
            .y_desc("ns a call")
            .x_label_formatter(&|threads| format!("{threads:.0}"))
            .y_label_formatter(&|nanos| format!("{nanos:.0}"))
            .draw()?;
        for (rival, colour) in COLOURS {
            let points = group.iter().filter_map(|outcome| {
                let figure = outcome.figures.iter().find(|figure| figure.rival == rival)?;
                Some((outcome.threads as f64, figure.cost.as_ref()?.median))
            });
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        }
    }
    area.present()?;
    Ok(())
}

/// From below the fastest to above the slowest, with room for the legend.
fn bounds(outcomes: &[&Outcome]) -> (f64, f64) {
    let costs =
        outcomes.iter().flat_map(|outcome| &outcome.figures).filter_map(|figure| figure.cost.as_ref());
    let (least, most) = costs.fold((f64::INFINITY, 1.0_f64), |(least, most), cost| {
        (least.min(cost.median), most.max(cost.median))
    });
    (least.min(most) * 0.8, most * 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rivals::NAMES;

    #[test]
    fn every_cache_has_a_colour() {
        assert_eq!(COLOURS.map(|(name, _)| name), NAMES);
    }
}
