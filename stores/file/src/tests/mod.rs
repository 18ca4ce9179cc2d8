//! The promises of the file tier, a subject a file.

mod bounds;
mod cancel;
mod conformance;
mod foreign;
mod kill;
mod laws;
mod processes;
mod renew;
mod trouble;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use larder::{Entry, Lifetime, Timestamp};
use tempfile::TempDir;

use crate::place::Place;
use crate::{FileStore, FileStoreBuilder};

/// Outside a runtime every call runs on the thread that polls it, at once.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a call without a runtime waited"),
    }
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn unbounded(dir: &Path) -> FileStoreBuilder {
    FileStore::at(dir).max_entries(u64::MAX).max_bytes(u64::MAX)
}

fn open(dir: &Path) -> FileStore {
    unbounded(dir).open_blocking().expect("a fresh directory opens")
}

fn entry(value: impl Into<Bytes>) -> Entry<Bytes> {
    Entry::new(value.into(), Lifetime::forever(Timestamp::EPOCH))
}

fn at(second: u64) -> Timestamp {
    Timestamp::EPOCH.saturating_add(Duration::from_secs(second))
}

fn file_of(dir: &Path, key: &str) -> PathBuf {
    Place::of(key).path(dir)
}

/// Files below `dir` that hold entries, with their lengths, counted without the store.
fn on_disk(dir: &Path) -> Vec<u64> {
    let lanes = fs::read_dir(dir).expect("a directory").map(|item| item.expect("an item").path());
    let lanes = lanes.filter(|path| path.file_name().is_some_and(|name| name.len() == 2));
    lanes
        .flat_map(|lane| fs::read_dir(lane).expect("a lane"))
        .map(|item| item.expect("an item").metadata().expect("a file").len())
        .collect()
}

/// Names of temporary files, of whatever process.
fn temporaries(dir: &Path) -> Vec<String> {
    names(dir, "tmp")
}

/// Names in the folder of temporary files that end in this extension.
fn names(dir: &Path, extension: &str) -> Vec<String> {
    let items = fs::read_dir(dir.join("larder-tmp")).expect("a directory").map(|item| item.expect("an item"));
    let paths = items.map(|item| item.path()).filter(|path| path.extension() == Some(extension.as_ref()));
    paths.map(|path| path.file_name().expect("a name").to_str().expect("our name").to_owned()).collect()
}

/// This test program again, to run one test as another process, behind `wrapper` if there is one.
fn another_process(wrapper: &[&str], program: &Path, test: &str, dir: &Path) -> Command {
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"].map(Path::new);
    let mut line = wrapper.iter().map(Path::new).chain([program]).chain(arguments);
    let mut command = Command::new(line.next().expect("a program"));
    command.args(line).env(DIR, dir);
    command
}

/// Tells a test that is started as another process which directory it is to use.
const DIR: &str = "LARDER_FILE_TEST_DIR";

fn own_program() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// The directory to use, if this is the other process.
fn given_dir() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}
