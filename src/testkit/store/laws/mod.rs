//! The laws of a store, each with the cases that it is tried on and what its answers must be.

mod bounds;
mod bytes;
mod equal;
mod map;
mod race;
mod scope;

use proptest::strategy::BoxedStrategy;

use crate::testkit::history::Loss;
use crate::testkit::runner::{Finding, LawName};
use crate::testkit::store::facts::Facts;
use crate::testkit::store::lab::{Lab, Lane};
use crate::testkit::store::plan::Plan;
use crate::testkit::store::trace::{Oracle, Trace};

/// A law, how it is tried, and on whom.
pub(crate) struct Law {
    pub(crate) name: LawName,
    /// Why it cannot be tried on such a store, if so.
    pub(crate) unfit: fn(&Facts, Lane) -> Option<&'static str>,
    pub(crate) plans: fn(&Facts) -> BoxedStrategy<Plan>,
    pub(crate) judge: fn(&Lab, &Plan) -> Result<(), Finding>,
    /// Of how many cases one is run: some laws need large ones.
    pub(crate) one_in: u32,
}

/// Every law, in the order of their groups.
pub(crate) fn all() -> Vec<Law> {
    [map::laws(), scope::laws(), bounds::laws(), race::laws(), bytes::laws(), equal::laws()]
        .into_iter()
        .flatten()
        .collect()
}

const fn law(
    name: &'static str,
    why: &'static str,
    unfit: fn(&Facts, Lane) -> Option<&'static str>,
    plans: fn(&Facts) -> BoxedStrategy<Plan>,
    judge: fn(&Lab, &Plan) -> Result<(), Finding>,
) -> Law {
    Law { name: LawName { name, why }, unfit, plans, judge, one_in: 1 }
}

const fn anyone(_: &Facts, _: Lane) -> Option<&'static str> {
    None
}

/// For laws whose cases move the clock.
fn movable(_: &Facts, lane: Lane) -> Option<&'static str> {
    (lane == Lane::Real).then_some("real time cannot be moved")
}

/// The plan over fresh stores, when everybody came to an end and nobody failed.
fn calm(lab: &Lab, plan: &Plan) -> Result<Trace, Finding> {
    let trace = lab.run(plan);
    trace.ended()?;
    trace.unfailed()?;
    Ok(trace)
}

/// The answers are those of a map that holds so many keys.
fn as_a_map(lab: &Lab, trace: &Trace, keys: u8) -> Result<(), Finding> {
    Oracle::new(trace, !lab.facts.retains(keys.into())).check()
}

fn loss(facts: &Facts, keys: u8) -> Loss {
    match (facts.retains(keys.into()), facts.forgets) {
        (true, _) => Loss::Never,
        (false, false) => Loss::Forgets,
        (false, true) => Loss::Misses,
    }
}
