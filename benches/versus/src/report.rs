//! What the measurements come to: the table on the screen, Markdown, JSON.

use std::fmt::{self, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::footprint::{Footprint, Kind, Wanted};
use crate::measure::{Cost, Subject};
use crate::rivals::NOTES;
use crate::rows::{Goal, HITS_BELOW, Row, Scale};

/// One cache in one row.
#[derive(Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) rival: &'static str,
    /// What it leaves out of the work; then it is shown, and no rival.
    pub(crate) lesser: Option<&'static str>,
    pub(crate) cost: Option<Cost>,
    /// Why there is no cost.
    pub(crate) lacks: Option<&'static str>,
    /// A call, on one thread.
    pub(crate) allocations: Option<f64>,
    pub(crate) hit_ratio: Option<f64>,
}

impl Figure {
    pub(crate) fn of(subject: &Subject, cost: Option<Cost>, allocations: Option<f64>) -> Self {
        let &Subject { rival, lesser, hit_ratio, .. } = subject;
        let missing = cost.is_none().then_some("its threads never ran at once");
        let lacks = subject.work.as_ref().err().copied().or(missing);
        Self { rival, lesser, cost, lacks, allocations, hit_ratio }
    }

    fn cells(&self, fastest: Option<f64>) -> Vec<String> {
        let optional = |value: Option<f64>, places: usize| {
            value.map_or_else(String::new, |value| format!("{value:.places$}"))
        };
        let ratio = |cost: &Cost| fastest.map(|fastest| cost.median / fastest);
        let hits = self.hit_ratio.map_or_else(String::new, |ratio| format!("{:.2} %", ratio * 100.0));
        let [nanos, spread, ratio, rounds] = match &self.cost {
            Some(cost) => [
                format!("{:.1}", cost.median),
                format!("{:.0} %", cost.spread() * 100.0),
                optional(ratio(cost), 2),
                cost.rounds.to_string(),
            ],
            None => ["-".to_owned(), String::new(), "-".to_owned(), String::new()],
        };
        let note = self.lacks.or(self.lesser).unwrap_or_default().to_owned();
        let name = self.rival.to_owned();
        vec![name, nanos, spread, ratio, optional(self.allocations, 2), hits, rounds, note]
    }
}

const HEADER: [&str; 8] =
    ["cache", "ns a call", "spread", "to the fastest rival", "allocations", "hit ratio", "rounds", ""];

/// A row on a number of threads.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) threads: usize,
    /// Calls of a round and thread.
    pub(crate) calls: usize,
    pub(crate) figures: Vec<Figure>,
    pub(crate) goals: Vec<Judged>,
}

/// A goal, and what is reached.
#[derive(Serialize)]
pub(crate) struct Judged {
    /// Of the rival's time, at most.
    pub(crate) goal: f64,
    /// Nothing if larder or the rival has no time, as when its threads never ran at once.
    pub(crate) is: Option<f64>,
    pub(crate) rival: &'static str,
    /// The rival whose hit ratio larder's is too far below.
    pub(crate) fewer_hits_than: Option<&'static str>,
}

impl Judged {
    fn verdict(&self) -> String {
        match (self.is, self.fewer_hits_than) {
            (None, _) => "not measured".to_owned(),
            (Some(_), Some(rival)) => format!("not reached: fewer hits than {rival}"),
            (Some(is), None) => if is <= self.goal { "reached" } else { "not reached" }.to_owned(),
        }
    }

    fn is(&self) -> String {
        self.is.map_or_else(|| "-".to_owned(), |is| format!("{is:.2}"))
    }
}

impl Outcome {
    pub(crate) fn new(row: &Row, threads: usize, calls: usize, figures: Vec<Figure>) -> Self {
        let mut outcome = Self { id: row.id, title: row.title, threads, calls, figures, goals: Vec::new() };
        let goals = row.goals.iter().filter(|goal| goal.threads == threads);
        outcome.goals = goals.map(|goal| outcome.judge(goal)).collect();
        outcome
    }

    fn judge(&self, goal: &Goal) -> Judged {
        let rival = self.rival(goal.to);
        let larder = self.figure("larder");
        let cost = larder.and_then(|figure| figure.cost.as_ref());
        let is = cost.zip(rival).map(|(cost, (_, its))| cost.median / its.median);
        let fewer_hits_than = goal.hits_of.filter(|rival| {
            let its = self.figure(rival).and_then(|figure| figure.hit_ratio);
            let hits = larder.and_then(|figure| figure.hit_ratio);
            hits.zip(its).is_some_and(|(hits, its)| hits < its - HITS_BELOW)
        });
        let rival = rival.map_or(goal.to.unwrap_or("the fastest rival"), |(name, _)| name);
        Judged { goal: goal.ratio, is, rival, fewer_hits_than }
    }

    fn figure(&self, rival: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.rival == rival)
    }

    /// The fastest rival, or the one of this name.
    fn rival(&self, name: Option<&str>) -> Option<(&'static str, &Cost)> {
        let rivals = self.figures.iter().filter(|figure| {
            name.map_or(figure.rival != "larder" && figure.lesser.is_none(), |name| figure.rival == name)
        });
        let costs = rivals.filter_map(|figure| Some((figure.rival, figure.cost.as_ref()?)));
        costs.min_by(|(_, one), (_, other)| one.median.total_cmp(&other.median))
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let fastest = self.rival(None).map(|(_, cost)| cost.median);
        self.figures.iter().map(move |figure| figure.cells(fastest))
    }

    fn on_threads(&self) -> String {
        if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) }
    }
}

/// What the terminal shows while it runs.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} [{}], {}, {} calls a round", self.title, self.id, self.on_threads(), self.calls)?;
        writeln!(f, "{}", table(&HEADER, self.rows()))?;
        for judged in &self.goals {
            let Judged { goal, rival, .. } = judged;
            writeln!(f, "  goal: {goal:.2} of {rival}; is {}: {}", judged.is(), judged.verdict())?;
        }
        Ok(())
    }
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What entries of a kind take in each cache.
#[derive(Serialize)]
pub(crate) struct Sizes {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) entries: usize,
    pub(crate) payload: usize,
    /// Bytes an entry of larder at most.
    pub(crate) goal: usize,
    pub(crate) footprints: Vec<Footprint>,
}

impl Sizes {
    pub(crate) fn new(kind: &Kind, scale: Scale, wanted: &Wanted<'_>) -> Self {
        let &Kind { id, title, payload, goal, .. } = kind;
        let (entries, footprints) = kind.measure(scale, wanted);
        Self { id, title, entries, payload, goal, footprints }
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.footprints.iter().map(|footprint| {
            let held = format!("{:.1} %", footprint.held * 100.0);
            vec![footprint.rival.to_owned(), format!("{:.0}", footprint.bytes_per_entry), held]
        })
    }
}

const SIZES: [&str; 3] = ["cache", "bytes an entry", "held of the bound"];

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, title, entries, payload, .. } = self;
        writeln!(f, "\n{title} [{id}], {entries} entries, payload {payload} bytes")?;
        writeln!(f, "{}", table(&SIZES, self.rows()))?;
        writeln!(f, "  goal: {} bytes at most", self.goal)
    }
}

/// Everything that a run found.
#[derive(Serialize)]
pub(crate) struct Document {
    /// What the command line asked for.
    pub(crate) arguments: String,
    pub(crate) quick: bool,
    pub(crate) machine: String,
    pub(crate) cores: usize,
    pub(crate) rounds: usize,
    /// The crates that are compared, as the lock file has them.
    pub(crate) versions: Vec<String>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) sizes: Vec<Sizes>,
}

impl Document {
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    pub(crate) fn markdown(&self) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> fmt::Result {
        let Self { arguments, machine, cores, rounds, versions, .. } = self;
        writeln!(page, "# larder beside other caches\n")?;
        writeln!(page, "Written by `cargo run --release -p versus --{arguments} --out docs/performance`.\n")?;
        if self.quick {
            writeln!(
                page,
                "**A quick run, to see that it runs: its rounds are too short and its large sets of keys, a 16th of what the \
                 headings say, too small to compare anything.**\n"
            )?;
        }
        writeln!(page, "{machine}, {cores} cores; medians of {rounds} rounds at most, all caches by turns.")?;
        writeln!(page, "Compared: {}.\n", versions.join(", "))?;
        writeln!(
            page,
            "Nanoseconds are those of a machine that did other work besides, and ratios drift from run to run: by \
             about 5 % on one thread, by 20 % with many keys. A call on several threads takes what each of them saw. The \
             spread is that of the middle half of the rounds, as a part of the median.\n"
        )?;
        for (name, note) in NOTES {
            writeln!(page, "- {name}: {note}")?;
        }
        self.write_goals(page)?;
        for pair in self.outcomes.chunk_by(|one, other| one.id == other.id) {
            writeln!(page, "\n## {}", pair[0].title)?;
            for outcome in pair {
                let Outcome { id, calls, .. } = outcome;
                writeln!(page, "\n`{id}`, {}, {calls} calls a round:\n", outcome.on_threads())?;
                write_table(page, &HEADER, outcome.rows())?;
            }
        }
        writeln!(page, "\n## Bytes")?;
        for sizes in &self.sizes {
            let Sizes { id, title, entries, payload, goal, .. } = sizes;
            writeln!(
                page,
                "\n{title} (`{id}`): {entries} entries, a payload of {payload} bytes; the goal is {goal} at most.\n"
            )?;
            write_table(page, &SIZES, sizes.rows())?;
        }
        Ok(())
    }

    fn write_goals(&self, page: &mut String) -> fmt::Result {
        writeln!(page, "\n## Goals\n")?;
        let goals = self.outcomes.iter().flat_map(|outcome| {
            outcome.goals.iter().map(move |judged| {
                vec![
                    format!("{} (`{}`)", outcome.title, outcome.id),
                    outcome.threads.to_string(),
                    judged.rival.to_owned(),
                    judged.is(),
                    format!("{:.2}", judged.goal),
                    judged.verdict(),
                ]
            })
        });
        write_table(page, &["work", "threads", "rival", "larder's time to its", "goal", ""], goals)
    }
}

fn write_table(page: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> fmt::Result {
    writeln!(page, "| {} |", header.join(" | "))?;
    writeln!(page, "| --- |{}", " ---: |".repeat(header.len() - 1))?;
    for row in rows {
        writeln!(page, "| {} |", row.join(" | "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{ROWS, Row};

    fn figure(rival: &'static str, median: f64, hit_ratio: f64) -> Figure {
        let cost = Some(Cost { median, lower: median, upper: median, rounds: 9 });
        Figure { rival, lesser: None, cost, lacks: None, allocations: Some(0.0), hit_ratio: Some(hit_ratio) }
    }

    fn outcome(id: &str, figures: Vec<Figure>) -> Outcome {
        let row: &Row = ROWS.iter().find(|row| row.id == id).unwrap();
        Outcome::new(row, 1, 1000, figures)
    }

    fn verdict(id: &str, figures: Vec<Figure>) -> (String, &'static str, String) {
        let outcome = outcome(id, figures);
        (outcome.goals[0].is(), outcome.goals[0].rival, outcome.goals[0].verdict())
    }

    #[test]
    fn a_goal_is_judged_by_the_fastest_that_does_the_same() {
        let mut figures =
            vec![figure("larder", 15.0, 0.0), figure("quick_cache", 20.0, 0.0), figure("moka", 90.0, 0.0)];
        assert_eq!(verdict("hot-u64", figures.clone()), ("0.75".into(), "quick_cache", "reached".into()));
        figures[0].cost.as_mut().unwrap().median = 15.1;
        assert_eq!(verdict("hot-u64", figures.clone()).2, "not reached");
        // One that does less is shown only.
        figures[1].lesser = Some("computes once for each caller");
        assert_eq!(verdict("hot-u64", figures), ("0.17".into(), "moka", "reached".into()));
    }

    #[test]
    fn a_goal_that_was_not_measured_is_said_to_be_so() {
        let mut figures = vec![figure("larder", 15.0, 0.0), figure("quick_cache", 20.0, 0.0)];
        figures[0].cost = None;
        assert_eq!(verdict("hot-u64", figures), ("-".into(), "quick_cache", "not measured".into()));
        let alone = vec![figure("larder", 15.0, 0.0)];
        assert_eq!(verdict("hot-u64", alone), ("-".into(), "the fastest rival", "not measured".into()));
    }

    #[test]
    fn speed_that_costs_hits_reaches_no_goal() {
        let caches = |hits| vec![figure("larder", 10.0, hits), figure("quick_cache", 20.0, 0.8)];
        assert_eq!(verdict("zipf", caches(0.7971)).2, "reached");
        assert_eq!(verdict("zipf", caches(0.7969)).2, "not reached: fewer hits than quick_cache");
        assert_eq!(verdict("pressure", caches(0.1)).2, "reached", "there hits are no condition");
    }

    #[test]
    fn figures_stand_in_the_columns_that_name_them() {
        let mut caches = vec![figure("larder", 10.0, 0.5), figure("quick_cache", 20.0, 0.825)];
        caches[1].cost.as_mut().unwrap().upper = 21.0;
        caches.push(Figure {
            cost: None,
            lacks: Some("no get"),
            hit_ratio: None,
            allocations: None,
            ..caches[0].clone()
        });
        let outcome = outcome("zipf", caches);
        let rows: Vec<_> = outcome.rows().map(|cells| cells.join("|")).collect();
        assert_eq!(
            HEADER.join("|"),
            "cache|ns a call|spread|to the fastest rival|allocations|hit ratio|rounds|"
        );
        assert_eq!(
            rows,
            [
                "larder|10.0|0 %|0.50|0.00|50.00 %|9|",
                "quick_cache|20.0|5 %|1.00|0.00|82.50 %|9|",
                "larder|-||-||||no get"
            ]
        );
    }
}
