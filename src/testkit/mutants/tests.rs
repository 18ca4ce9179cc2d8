//! The power of the kit, measured.

use std::fmt::Write;

use super::{Mutant, Trial, all, healthy};

/// Every mutant falls to its law, at the default number of cases, by a history no longer than its line says.
#[test]
fn every_mutant_is_killed() {
    let mutants = all();
    let (mut killed, mut survivors) = (0, Vec::new());
    let mut table =
        String::from("| mutant | what is wrong | law that fell | steps |\n| --- | --- | --- | ---: |\n");
    for mutant in &mutants {
        let report = (mutant.check)(&Trial { cases: None, seed: 0, only: Some(mutant.law) });
        match report.failures().find(|failure| failure.law == mutant.law) {
            Some(failure) => {
                let Mutant { name, wrong, law, .. } = mutant;
                let _ = writeln!(table, "| {name} | {wrong} | {law} | {} |", failure.steps);
                if failure.steps <= mutant.steps {
                    killed += 1;
                } else {
                    survivors.push(format!(
                        "{}: {} steps, more than {}\n{failure}",
                        mutant.name, failure.steps, mutant.steps
                    ));
                }
            }
            None => survivors.push(format!("{}: {} was kept\n{report}", mutant.name, mutant.law)),
        }
    }
    println!("{table}\nkilled {killed} of {}", mutants.len());
    assert!(survivors.is_empty(), "{} survive:\n{}", survivors.len(), survivors.join("\n"));
}

/// No seed accuses what is healthy.
#[test]
fn nothing_healthy_is_accused() {
    let number = |name, default| {
        std::env::var(name).ok().and_then(|text: String| text.parse().ok()).unwrap_or(default)
    };
    let (seeds, cases) = (number("LARDER_HEALTHY_SEEDS", 2), number("LARDER_HEALTHY_CASES", 100));
    for healthy in healthy() {
        for seed in 0..seeds {
            let cases = u32::try_from(cases).ok();
            let report = (healthy.check)(&Trial { cases, seed, only: None });
            assert!(report.is_kept(), "{}, seed {seed}:\n{report}", healthy.name);
        }
    }
}

#[test]
fn debug_one() {
    let Ok(name) = std::env::var("MUTANT") else { return };
    for mutant in all().into_iter().filter(|mutant| mutant.name == name) {
        println!("{}", (mutant.check)(&Trial { cases: None, seed: 0, only: Some(mutant.law) }));
    }
}
