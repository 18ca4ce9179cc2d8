//! The program as it is started from a shell.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn versus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_versus")).args(arguments).output().expect("the program starts")
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().unwrap_or_else(|| panic!("{name} is no list: {of}"))
}

/// A figure has a number, or says why it has none.
fn assert_figure(figure: &Value, threads: &Value) {
    match (&figure["cost"], figure["lacks"].as_str()) {
        (Value::Null, Some(lacks)) => assert!(!lacks.is_empty(), "{figure}"),
        (cost, None) => {
            assert!(cost["median"].as_f64().unwrap() > 0.0, "{figure}");
            assert!(cost["rounds"].as_u64().unwrap() > 0, "{figure}");
            assert!(figure["allocations"].as_f64().is_some(), "{figure}, {threads} threads");
        }
        _ => panic!("a cost and none: {figure}"),
    }
}

/// Every line of a table has as many cells as its head.
fn assert_tables(page: &str) -> usize {
    let lines: Vec<&str> = page.lines().collect();
    let mut tables = 0;
    for table in lines.chunk_by(|one, other| one.starts_with('|') == other.starts_with('|')) {
        if table[0].starts_with('|') {
            tables += 1;
            assert!(table.len() > 2, "nothing below {}", table[0]);
            let cells: BTreeSet<usize> = table.iter().map(|line| line.matches('|').count()).collect();
            assert_eq!(cells.len(), 1, "{table:#?}");
        }
    }
    tables
}

#[test]
fn a_quick_run_writes_every_table_whole() {
    let folder = scratch("quick");
    let out = versus(&["--quick", "--threads", "1,2", "--out", folder.to_str().unwrap()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let found: Value = serde_json::from_slice(&fs::read(folder.join("versus.json")).unwrap()).unwrap();
    assert_eq!(
        (&found["quick"], found["arguments"].as_str()),
        (&Value::Bool(true), Some(" --threads 1,2 --quick"))
    );
    let work: Vec<(&str, u64)> = list(&found, "outcomes")
        .iter()
        .map(|outcome| (outcome["id"].as_str().unwrap(), outcome["threads"].as_u64().unwrap()))
        .collect();
    let mut expected = Vec::new();
    for id in [
        "hot-u64",
        "hot-arc",
        "hot-string",
        "hot-read",
        "keys",
        "compute-hit",
        "single-arc",
        "single-read",
        "mix",
        "pressure",
        "zipf",
        "zipf-compute",
        "miss-set",
        "miss-compute",
        "stampede",
        "stale",
    ] {
        expected.push((id, 1));
        if id != "stampede" {
            expected.push((id, 2));
        }
    }
    assert_eq!(work, expected);
    for outcome in list(&found, "outcomes") {
        assert!(list(outcome, "figures").len() > 5, "{outcome}");
        for figure in list(outcome, "figures") {
            assert_figure(figure, &outcome["threads"]);
        }
    }
    assert_eq!(list(&found, "sizes").len(), 2);
    for sizes in list(&found, "sizes") {
        assert_eq!(list(sizes, "footprints").len(), 8, "{sizes}");
        for footprint in list(sizes, "footprints") {
            let payload = sizes["payload"].as_f64().unwrap();
            assert!(footprint["bytes_per_entry"].as_f64().unwrap() > payload, "{footprint}");
            assert!(footprint["held"].as_f64().unwrap() > 0.5, "{footprint}");
        }
    }

    let page = fs::read_to_string(folder.join("versus.md")).unwrap();
    // The goals, each piece of work on each number of threads, two of bytes.
    assert_eq!(assert_tables(&page), 1 + expected.len() + 2);
    assert!(page.contains("--threads 1,2 --quick --out docs/performance") && page.contains("**A quick run"));
    for (id, _) in expected {
        assert!(page.contains(&format!("\n`{id}`, ")), "{id}");
    }
    for chart in ["versus-1.svg", "versus-2.svg"] {
        let chart = fs::read_to_string(folder.join(chart)).unwrap();
        assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"));
        assert!(chart.contains("larder") && chart.contains("stale"));
    }
}

#[test]
fn what_is_printed_is_what_was_asked_for() {
    let out =
        versus(&["--quick", "--only", "hot-u64,bytes-u64", "--rivals", "quick_cache", "--threads", "1"]);
    let shown = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && out.stderr.is_empty());
    assert!(
        shown.contains("[hot-u64], 1 thread,") && shown.contains("[bytes-u64], 62500 entries"),
        "{shown}"
    );
    assert!(shown.contains("larder") && shown.contains("quick_cache") && !shown.contains("moka"), "{shown}");
    assert!(!shown.contains("2 threads") && !shown.contains("[keys]"), "{shown}");
}

#[test]
fn a_bad_argument_fails_before_anything_is_measured() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a-file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, flag, wrong) in [
        (vec!["--only", "cold"], "--only", "cold"),
        (vec!["--rivals", "hitbox"], "--rivals", "hitbox"),
        (vec!["--threads", "0"], "--threads", "1..=64"),
        (vec!["--rounds", "many"], "--rounds", "many"),
        (vec!["--quick", "--rounds", "9"], "--rounds", "--quick"),
        (vec!["--quick", "--out", file], "--out", file),
    ] {
        let out = versus(&arguments);
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && out.stdout.is_empty(), "{arguments:?}");
        assert!(told.contains(flag) && told.contains(wrong), "{arguments:?}: {told}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn figures_of_a_slow_build_are_not_written() {
    let folder = scratch("slow");
    let out = versus(&["--only", "hot-u64", "--out", folder.to_str().unwrap()]);
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && told.contains("--out") && told.contains("--release"), "{told}");
    assert!(!folder.exists());
}
