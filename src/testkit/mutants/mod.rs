//! Bugs on purpose, and the law by which the kit must find each of them.
//!
//! Only in debug builds with the hidden feature `mutants`. A family is a small healthy implementation with one
//! switch a bug; a mutant is a line of its list.

mod adapters;
mod chain;
mod engine;
mod shelf;
mod tags;
#[cfg(test)]
mod tests;
mod vault;

use crate::testkit::Report;

/// How a mutant is tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Cases a law; the default number of the kit if `None`.
    pub cases: Option<u32>,
    /// The seed of the cases.
    pub seed: u64,
    /// The one law to run, or all of them.
    pub only: Option<&'static str>,
}

/// A bug on purpose.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// What is wrong.
    pub wrong: &'static str,
    /// The law that must fall.
    pub law: &'static str,
    /// The most operations that the shortest history may have.
    pub steps: usize,
    /// Runs the kit against it.
    pub check: Box<dyn Fn(&Trial) -> Report + Send + Sync>,
}

/// The same code without a bug, which no seed may accuse.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Healthy {
    /// Its name.
    pub name: &'static str,
    /// Runs the kit against it.
    pub check: Box<dyn Fn(&Trial) -> Report + Send + Sync>,
}

/// A mutant in a line: its name, what is wrong, the law that must fall, the most steps.
type Line = (&'static str, &'static str, &'static str, usize);

/// The mutants of a family whose switches are their names.
fn by_name(lines: &'static [Line], check: fn(&'static str, &Trial) -> Report) -> Vec<Mutant> {
    let mutant = |&(name, wrong, law, steps): &Line| Mutant {
        name,
        wrong,
        law,
        steps,
        check: Box::new(move |trial| check(name, trial)),
    };
    lines.iter().map(mutant).collect()
}

/// Every mutant of every family.
pub fn all() -> Vec<Mutant> {
    [
        shelf::mutants(),
        vault::mutants(),
        adapters::mutants(),
        chain::mutants(),
        tags::mutants(),
        engine::mutants(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The healthy form of every family.
pub fn healthy() -> Vec<Healthy> {
    [
        shelf::healthy(),
        vault::healthy(),
        adapters::healthy(),
        chain::healthy(),
        tags::healthy(),
        engine::healthy(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
