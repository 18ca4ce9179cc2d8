//! The file tier under the kit: on one thread and virtual time, and on a runtime's threads.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use larder::testkit::{Check, Site, check};
use tempfile::TempDir;

use super::file_of;
use crate::{FileStore, FileStoreBuilder};

/// Directories of many stores, gone with the last of them.
#[derive(Clone)]
struct Root(Arc<TempDir>);

impl Root {
    fn new() -> Self {
        Self(Arc::new(super::scratch()))
    }

    fn at(&self, site: &Site) -> PathBuf {
        self.0.path().join(site.namespace())
    }

    fn builder(&self, site: &Site) -> FileStoreBuilder {
        FileStore::at(self.at(site)).max_entries(u64::MAX).max_bytes(u64::MAX)
    }

    fn open(&self, site: &Site) -> FileStore {
        self.builder(site).open_blocking().expect("a directory of its own opens")
    }
}

/// Everything that the store promises, with its hooks.
fn promises(check: Check<FileStore>, root: &Root) -> Check<FileStore> {
    let (reopened, second) = (root.clone(), root.clone());
    check
        .counts()
        .weighs()
        .clears_prefixes()
        .reopen(move |site| reopened.open(&site))
        .second_client(move |site| second.open(&site))
        .corrupt(|store, key, change| {
            let file = file_of(store.dir(), key);
            let Ok(bytes) = fs::read(&file) else { return false };
            fs::write(&file, change(bytes)).expect("a file that was read is written");
            true
        })
        .outage(|store, down| {
            // Something else stands where the directory was, as when a disk is not mounted.
            let (dir, aside) = (store.dir(), store.dir().with_extension("aside"));
            match (down, aside.exists()) {
                (true, false) => {
                    fs::rename(dir, &aside).expect("the directory moves away");
                    fs::write(dir, b"").expect("a file takes its place");
                }
                (false, true) => {
                    fs::remove_file(dir).expect("the file goes");
                    fs::rename(&aside, dir).expect("the directory moves back");
                }
                _ => {}
            }
        })
}

fn checked(name: &'static str) -> Check<FileStore> {
    let root = Root::new();
    let fresh = root.clone();
    promises(check(name, move |site| fresh.open(&site)).source(file!()), &root)
}

/// Without a runtime each call runs where it is polled: every law, deterministically.
#[test]
fn every_law_on_one_thread() {
    checked("file").cases(64).run().assert();
}

#[test]
fn every_law_on_the_threads_of_a_runtime() {
    checked("file_on_tokio").real_time(Duration::from_millis(250)).cases(64).run().assert();
}

#[test]
fn a_small_one_keeps_its_bounds() {
    let root = Root::new();
    let make = move |site: Site| {
        root.builder(&site)
            .max_entries(4)
            .max_bytes(16_384)
            .open_blocking()
            .expect("a directory of its own opens")
    };
    check("small_file", make).counts().weighs().max_entries(4).max_bytes(16_384).cases(64).run().assert();
}

larder::testkit::crash_conformance! {
    name: what_was_acknowledged_outlives_a_kill_at_any_system_call,
    store: |dir: &std::path::Path| FileStore::at(dir).open_blocking().expect("what a killed process left opens"),
}
