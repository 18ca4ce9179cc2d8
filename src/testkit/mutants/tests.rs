//! The power of the kit, measured.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Mutant, Trial, all, healthy};
use crate::sync::Mutex;

/// A row of the table, or what is to be said of a mutant that lived on.
fn tried(mutant: &Mutant) -> Result<String, String> {
    let report = (mutant.check)(&Trial { cases: None, seed: 0, only: Some(mutant.law) });
    let Some(failure) = report.failures().find(|failure| failure.law == mutant.law) else {
        return Err(format!("{}: {} was kept\n{report}", mutant.name, mutant.law));
    };
    if failure.steps > mutant.steps {
        return Err(format!(
            "{}: {} steps, more than {}\n{failure}",
            mutant.name, failure.steps, mutant.steps
        ));
    }
    // A history that chance or a blocked thread ends is as long as it happens to be.
    let steps = if mutant.steps > 6 { "fixed".to_owned() } else { failure.steps.to_string() };
    Ok(format!("| {} | {} | {} | {steps} |", mutant.name, mutant.wrong, mutant.law))
}

/// Every mutant falls to its law, at the default number of cases, by a history no longer than its line says; and the
/// table in the guide says so. `LARDER_WRITE_TABLE=1` writes it anew.
#[test]
fn every_mutant_is_killed() {
    let mutants = all();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; mutants.len()]);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(mutant) = mutants.get(index) else { return };
                    let result = tried(mutant);
                    results.lock()[index] = Some(result);
                }
            });
        }
    });
    let results: Vec<_> = results.lock().drain(..).flatten().collect();
    let mut table =
        String::from("| mutant | what is wrong | law that falls | steps |\n| --- | --- | --- | ---: |\n");
    let mut survivors = Vec::new();
    let mut killed = 0;
    for result in &results {
        match result {
            Ok(row) => {
                killed += 1;
                let _ = writeln!(table, "{row}");
            }
            Err(why) => survivors.push(why.as_str()),
        }
    }
    let line = format!("killed {killed} of {}", mutants.len());
    println!("{table}\n{line}");
    assert!(survivors.is_empty(), "{} survive:\n{}", survivors.len(), survivors.join("\n"));
    assert_eq!(results.len(), mutants.len());
    written(&format!("{table}\n{line}\n"));
}

/// Compares the table with the one in the guide, or writes it there.
fn written(table: &str) {
    const BEGIN: &str = "<!-- kill table -->\n";
    const END: &str = "<!-- end of kill table -->";
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing.md");
    let text = std::fs::read_to_string(guide).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (held, after) = rest.split_once(END).unwrap();
    if std::env::var_os("LARDER_WRITE_TABLE").is_some() {
        std::fs::write(guide, format!("{before}{BEGIN}\n{table}\n{END}{after}")).unwrap();
    } else {
        assert_eq!(held.trim(), table.trim(), "docs/testing.md: run this test with LARDER_WRITE_TABLE=1");
    }
}

#[test]
fn there_are_at_least_120_mutants_and_each_has_a_name_of_its_own() {
    let mut names: Vec<_> = all().iter().map(|mutant| mutant.name).collect();
    let count = names.len();
    assert!(count >= 120, "{count}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// No seed accuses what is healthy. `LARDER_HEALTHY_SEEDS` and `LARDER_HEALTHY_CASES` try it harder, and
/// `LARDER_HEALTHY_FAMILY` tries only those with this in their name.
#[test]
fn nothing_healthy_is_accused() {
    let number = |name, default: u64| {
        std::env::var(name).ok().and_then(|text: String| text.parse().ok()).unwrap_or(default)
    };
    let (seeds, cases) = (number("LARDER_HEALTHY_SEEDS", 1), number("LARDER_HEALTHY_CASES", 100));
    let cases = u32::try_from(cases).unwrap();
    let family = std::env::var("LARDER_HEALTHY_FAMILY").unwrap_or_default();
    for healthy in healthy().into_iter().filter(|healthy| healthy.name.contains(&family)) {
        for seed in 0..seeds {
            let report = (healthy.check)(&Trial { cases: Some(cases), seed, only: None });
            assert!(report.is_kept(), "{}, seed {seed}:\n{report}", healthy.name);
        }
        println!("{}: {seeds} seeds x {cases} cases, no false alarm", healthy.name);
    }
}

/// The same seed prints the same report, of a broken store too.
#[test]
fn the_same_seed_prints_the_same_report() {
    for name in ["keys_are_trimmed", "set_copies_the_map", "dropped_set_happens_later"] {
        let mutants = all();
        let mutant = mutants.iter().find(|mutant| mutant.name == name).unwrap();
        let print = |seed| (mutant.check)(&Trial { cases: None, seed, only: Some(mutant.law) }).to_string();
        assert_eq!(print(3), print(3), "{name}");
        assert_ne!(print(3), print(4), "{name}");
    }
}

/// A replay line runs the very case again, and no other law.
#[test]
fn a_replay_line_runs_the_case_again() {
    let find = |name: &str| all().into_iter().find(|mutant| mutant.name == name).unwrap();
    let mutant = find("tags_dropped");
    let report = (mutant.check)(&Trial { cases: None, seed: 0, only: None });
    let failure = report.failures().find(|failure| failure.law == mutant.law).unwrap();
    let replay = failure.replay.split('\'').nth(1).unwrap();
    let again = super::shelf::replayed("tags_dropped", replay);
    assert_eq!(again.failures().map(ToString::to_string).collect::<Vec<_>>(), [failure.to_string()]);
    assert_eq!(again.laws().iter().filter(|law| law.cases > 0).count(), 1);
    assert!(super::shelf::replayed("", replay).is_kept(), "mended");
    let nonsense = super::shelf::replayed("tags_dropped", "shelf/s1_every_field_comes_back/xyz").to_string();
    assert!(nonsense.contains("LARDER_REPLAY holds no case"), "{nonsense}");
}

/// Whatever a store does to whoever tries it, the report says what it is.
#[test]
fn a_store_that_misbehaves_is_reported_as_what_it_is() {
    for (name, words) in [
        ("get_hangs", "the store hangs"),
        ("get_spins", "the store spins"),
        ("get_blocks", "the store blocks its thread"),
        ("fails_always", "failed (Unavailable)"),
        ("panics_now_and_then", "the store panicked: index out of bounds"),
        ("shared_between_instances", "instances share state"),
    ] {
        let mutants = all();
        let mutant = mutants.iter().find(|mutant| mutant.name == name).unwrap();
        let report = (mutant.check)(&Trial { cases: None, seed: 0, only: Some(mutant.law) });
        let failure = report.failures().next().unwrap();
        assert!(failure.got.contains(words), "{name}: {failure}");
    }
}

/// A store that hangs, spins or panics in the middle of a case is dropped with all of its tasks.
#[test]
fn nothing_is_left_of_a_case_that_got_nowhere() {
    for name in ["get_hangs", "get_spins", "panics_now_and_then", "dropped_call_keeps_the_lock"] {
        let stores = std::sync::Arc::new(());
        let report = super::shelf::counted(name, &stores);
        assert!(!report.is_kept(), "{name}");
        assert_eq!(std::sync::Arc::strong_count(&stores), 1, "{name}: a store is still held");
    }
}
