//! What the tests of a family share.

use super::{Healthy, Mutant, Trial};

/// Runs the one law against each mutant, at the default number of cases, and prints a row each.
#[track_caller]
pub(super) fn each_by_its_law(mutants: &[Mutant]) {
    let mut alive = Vec::new();
    for mutant in mutants {
        let report = (mutant.check)(&Trial { cases: None, seed: 0, only: Some(mutant.law) });
        let steps = report.failures().map(|failure| failure.steps).max();
        let killed = steps.is_some_and(|steps| steps <= mutant.steps);
        println!("{:45} {:55} {steps:?} {:?}", mutant.name, mutant.law, report.laws()[0].time);
        if !killed {
            alive.push(format!(
                "{} ({}): {:?} steps by {}\n{report}",
                mutant.name, mutant.wrong, steps, mutant.law
            ));
        }
    }
    println!("killed {} of {}", mutants.len() - alive.len(), mutants.len());
    assert!(alive.is_empty(), "alive:\n{}", alive.join("\n"));
}

/// Runs every law against the healthy ones.
#[track_caller]
pub(super) fn none_of(healthy: &[Healthy]) {
    for healthy in healthy {
        let report = (healthy.check)(&Trial { cases: None, seed: 0, only: None });
        assert!(report.is_kept(), "{}: {report}", healthy.name);
    }
}
