//! What a check found: a table of laws, and for each broken one its shortest history.

use std::fmt;
use std::time::Duration;

/// What became of every law that a check knows.
///
/// `Display` prints each failure in full, then what was skipped and noted, then the table. The same seed prints
/// the same report; times are told in whole seconds for that reason.
#[derive(Clone, Debug)]
#[must_use = "a report that nobody asserts fails no test"]
pub struct Report {
    pub(crate) name: String,
    pub(crate) laws: Vec<LawReport>,
    pub(crate) notes: Vec<String>,
}

/// What became of one law.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LawReport {
    /// The name of the law: the group of [`guide::semantics`](crate::guide::semantics), then what it says.
    pub law: &'static str,
    /// How many cases ran.
    pub cases: u32,
    /// How long they took.
    pub time: Duration,
    /// What came of them.
    pub outcome: Outcome,
}

/// What came of a law.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// No case broke it.
    Kept,
    /// A case broke it.
    Broken(Box<Failure>),
    /// It was not tried, for this reason.
    Skipped(String),
}

/// How a law was broken, by the shortest history that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The law.
    pub law: &'static str,
    /// What it costs the users of a store that breaks it.
    pub why: &'static str,
    /// How many operations the shortest history has.
    pub steps: usize,
    /// The history, one line an event, one column a task.
    pub timeline: String,
    /// What the law allows.
    pub expected: String,
    /// What came.
    pub got: String,
    /// A likely cause: a guess by what such bugs have been before.
    pub cause: String,
    /// Variables of the environment that run this history again, and nothing else.
    pub replay: String,
}

impl Report {
    pub(crate) fn new(name: impl Into<String>, laws: Vec<LawReport>, notes: Vec<String>) -> Self {
        Self { name: name.into(), laws, notes }
    }

    /// What was checked, by the name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every law, in the order in which they ran.
    pub fn laws(&self) -> &[LawReport] {
        &self.laws
    }

    /// What is worth a look and breaks no law: a capability that is kept but not promised.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The laws that were broken.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.laws.iter().filter_map(LawReport::failure)
    }

    /// Whether no law was broken.
    pub fn is_kept(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Ends a test: prints the report, and panics if a law was broken.
    ///
    /// # Panics
    /// With the report, if a law was broken.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.is_kept(), "\n{self}");
        println!("{self}");
    }
}

impl LawReport {
    pub(crate) fn skipped(law: &'static str, why: impl Into<String>) -> Self {
        Self { law, cases: 0, time: Duration::ZERO, outcome: Outcome::Skipped(why.into()) }
    }

    /// How the law was broken, if it was.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.outcome {
            Outcome::Broken(failure) => Some(failure),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.law)?;
        writeln!(f, "  why it matters: {}", self.why)?;
        if self.timeline.is_empty() {
            writeln!(f, "  a history that breaks it has {}; `again` runs it\n", operations(self.steps))?;
        } else {
            writeln!(f, "  the shortest history that breaks it ({}):\n", operations(self.steps))?;
            for line in self.timeline.lines() {
                writeln!(f, "    {}", line.trim_end())?;
            }
            writeln!(f)?;
        }
        writeln!(f, "  expected: {}", self.expected)?;
        writeln!(f, "  got:      {}", self.got)?;
        if !self.cause.is_empty() {
            writeln!(f, "  likely:   {}", self.cause)?;
        }
        writeln!(f, "  again:    {}", self.replay)
    }
}

fn operations(steps: usize) -> String {
    if steps == 1 { "1 operation".to_owned() } else { format!("{steps} operations") }
}

impl Report {
    /// The notes and the table, without the failures.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, f: &mut impl fmt::Write) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "{}: note: {note}", self.name)?;
        }
        let width = self.laws.iter().map(|law| law.law.len()).max().unwrap_or(0).max(self.name.len());
        writeln!(f, "{:width$}  {:>6}  {:>5}  result", self.name, "cases", "time")?;
        for law in &self.laws {
            let time = match law.time.as_secs() {
                0..5 => "<5 s".to_owned(),
                seconds => format!("{seconds} s"),
            };
            match &law.outcome {
                Outcome::Kept => writeln!(f, "{:width$}  {:>6}  {time:>5}  kept", law.law, law.cases)?,
                Outcome::Broken(_) => {
                    writeln!(f, "{:width$}  {:>6}  {time:>5}  BROKEN", law.law, law.cases)?;
                }
                Outcome::Skipped(why) => {
                    writeln!(f, "{:width$}  {:>6}  {:>5}  skipped: {why}", law.law, "-", "-")?;
                }
            }
        }
        let (mut kept, mut broken, mut skipped) = (0, 0, 0);
        for law in &self.laws {
            match law.outcome {
                Outcome::Kept => kept += 1,
                Outcome::Broken(_) => broken += 1,
                Outcome::Skipped(_) => skipped += 1,
            }
        }
        write!(f, "{}: {kept} laws kept, {broken} broken, {skipped} skipped", self.name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in self.failures() {
            writeln!(f, "{}: {failure}", self.name)?;
        }
        self.write_table(f)
    }
}
