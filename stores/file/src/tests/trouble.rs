//! A full disk, a disk that is read-only, missing rights, a path that is a file: met for real, in a
//! process of its own that may break what it stands on.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use larder::{ClearPrefix, ErrorKind, Store};

use super::{another_process, entry, given_dir, now, on_disk, open, own_program, scratch, temporaries};
use crate::FileStore;

/// A disk of one mebibyte of its own, which nobody else sees and which goes with the process. Root may
/// have one anywhere, others where the kernel lets them make a user namespace.
const SMALL_DISK: &str = "mount -t tmpfs -o size=1m larder \"$LARDER_FILE_TEST_DIR\" && exec \"$@\"";
const NAMESPACES: [&[&str]; 2] = [
    &["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh"],
    &["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh"],
];
/// What works everywhere: no file of this process may exceed 64 or 128 KiB, whichever the shell means.
const SMALL_FILES: &[&str] = &["sh", "-c", "trap '' XFSZ; ulimit -f 128; exec \"$@\"", "sh"];

/// The wrapper that gives a process a disk of its own, if there is one here.
fn small_disk() -> Option<&'static [&'static str]> {
    NAMESPACES.into_iter().find(|wrapper| {
        let dir = scratch();
        let line = wrapper.iter().copied().chain(["true"]).collect::<Vec<_>>();
        let probe = Command::new(line[0]).args(&line[1..]).env(super::DIR, dir.path()).output();
        probe.is_ok_and(|output| output.status.success())
    })
}

fn succeeds(mut command: Command) {
    // Without `setpriv` (util-linux) root cannot drop its rights, and what needs it is not tested.
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "it has run: {text}");
}

/// A process that stands on a small disk, if it is one.
fn told(what: &str) -> Option<PathBuf> {
    std::env::var(TOLD).is_ok_and(|told| told == what).then(given_dir)?
}

const TOLD: &str = "LARDER_FILE_TEST_TROUBLE";

#[test]
fn a_full_disk_fails_the_write_and_loses_nothing() {
    let Some(dir) = told("full") else {
        let test = "tests::trouble::a_full_disk_fails_the_write_and_loses_nothing";
        for wrapper in small_disk().into_iter().chain([SMALL_FILES]) {
            let dir = scratch();
            let mut command = another_process(wrapper, &own_program(), test, dir.path());
            command.env(TOLD, "full");
            succeeds(command);
        }
        return;
    };
    let store = open(&dir);
    for key in 0..10 {
        now(store.set(&format!("{key}"), entry(vec![key; 10_000]))).unwrap();
    }
    let held = (store.len(), store.weight());
    for key in ["0", "new"] {
        let error = now(store.set(key, entry(vec![0xFF; 2_000_000]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full, "{error:?}");
        assert!(error.to_string().contains("free some space"), "{error}");
    }
    assert_eq!(now(store.get("new")).unwrap(), None);
    assert_eq!((store.len(), store.weight()), held);
    assert!(temporaries(&dir).is_empty(), "the half-written file gives its room back");
    for key in 0..10 {
        assert_eq!(now(store.get(&format!("{key}"))).unwrap(), Some(entry(vec![key; 10_000])));
    }
    now(store.set("new", entry(vec![1; 20_000]))).unwrap();
    assert_eq!(open(&dir).len(), Some(11));
}

/// Where no disk can be mounted, the right to write is taken away instead.
#[test]
fn a_disk_that_became_read_only_fails_writes_and_serves_reads() {
    let mounted = told("read-only");
    let Some(dir) = mounted.clone().or_else(|| told("rights")) else {
        let test = "tests::trouble::a_disk_that_became_read_only_fails_writes_and_serves_reads";
        let Some(wrapper) = small_disk() else {
            return as_a_user(test);
        };
        let dir = scratch();
        let mut command = another_process(wrapper, &own_program(), test, dir.path());
        command.env(TOLD, "read-only");
        return succeeds(command);
    };
    let store = open(&dir);
    now(store.set("k", entry("kept"))).unwrap();
    let full = FileStore::at(&dir).max_entries(1).open_blocking().unwrap();
    now(open(&dir).set("unknown", entry("kept too"))).unwrap();
    let kind = if mounted.is_some() {
        let remount = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&dir).status().unwrap();
        assert!(remount.success(), "an open store keeps nobody from it");
        ErrorKind::ReadOnly
    } else {
        allow(&folders(&dir), 0o555);
        ErrorKind::PermissionDenied
    };
    refuses_changes(&dir, &store, kind);
    assert_eq!(now(store.clear_prefix("k")).unwrap_err().kind(), kind);
    // To count it, another would have to go.
    assert_eq!(now(full.get("unknown")).unwrap(), Some(entry("kept too")));
    assert_eq!(full.len(), Some(1));
    let error = FileStore::at(&dir).open_blocking().unwrap_err();
    assert_eq!(error.kind(), kind);
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    if mounted.is_none() {
        // For whoever deletes the directory.
        allow(&folders(&dir), 0o755);
    }
}

/// Runs `test` again as a user to whom rights apply: root drops its own first.
fn as_a_user(test: &str) {
    let dir = scratch();
    // Where others may reach it, which a build directory is not always.
    allow(&[dir.path()], 0o755);
    let program = dir.path().join("program");
    fs::copy(own_program(), &program).unwrap();
    let store = dir.path().join("store");
    fs::create_dir(&store).unwrap();
    let nobody = 65_534;
    let root = fs::metadata(&store).unwrap().uid() == 0;
    if root {
        chown(&store, Some(nobody), Some(nobody)).unwrap();
    }
    let wrapper: &[&str] =
        if root { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] } else { &[] };
    let mut command = another_process(wrapper, &program, test, &store);
    command.env(TOLD, "rights").current_dir(dir.path());
    succeeds(command);
}

fn allow(paths: &[impl AsRef<Path>], mode: u32) {
    for path in paths {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

/// The directory of a store, and each folder in it.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    items.filter(|path| path.is_dir()).chain([dir.to_owned()]).collect()
}

#[test]
fn missing_rights_fail_writes_and_lose_nothing() {
    let Some(dir) = told("rights") else {
        return as_a_user("tests::trouble::missing_rights_fail_writes_and_lose_nothing");
    };
    let store = open(&dir);
    now(store.set("k", entry("kept"))).unwrap();
    let lane = super::file_of(&dir, "k").parent().unwrap().to_owned();
    allow(&folders(&dir), 0o555);
    refuses_changes(&dir, &store, ErrorKind::PermissionDenied);
    let error = FileStore::at(&dir).open_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("give this user the right"), "{error}");
    allow(&[super::file_of(&dir, "k")], 0);
    assert_eq!(now(store.get("k")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    allow(&folders(&dir), 0o755);
    now(store.set("k", entry("again"))).unwrap();
    assert_eq!(now(store.get("k")).unwrap(), Some(entry("again")));
    // What has to go cannot: the call says so, and the index still counts what is there.
    let full = FileStore::at(&dir).max_entries(1).open_blocking().unwrap();
    allow(&[&lane], 0o555);
    assert_eq!(now(full.set("other", entry("x"))).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(full.len(), Some(on_disk(&dir).len() as u64));
    allow(&[&lane], 0o755);
    now(full.set("other", entry("x"))).unwrap();
    assert_eq!((full.len(), on_disk(&dir).len()), (Some(1), 1));
}

fn refuses_changes(dir: &Path, store: &FileStore, kind: ErrorKind) {
    let held = (store.len(), store.weight());
    let set = now(store.set("k", entry("new"))).unwrap_err();
    assert_eq!(set.kind(), kind);
    assert!(set.to_string().contains(dir.to_str().unwrap()), "{set}");
    assert_eq!(now(store.set("other", entry("new"))).unwrap_err().kind(), kind);
    assert_eq!(now(store.remove("k")).unwrap_err().kind(), kind);
    assert_eq!(now(store.clear()).unwrap_err().kind(), kind);
    assert_eq!(now(store.get("k")).unwrap(), Some(entry("kept")));
    assert_eq!(now(store.get("other")).unwrap(), None);
    assert_eq!((store.len(), store.weight()), held);
    now(store.remove("absent")).unwrap();
}

/// S4: what cannot be looked into has not been cleared.
#[test]
fn s4_a_clear_of_a_directory_that_is_away_is_an_error() {
    let scratch = scratch();
    let (dir, aside) = (scratch.path().join("dir"), scratch.path().join("aside"));
    let store = super::open(&dir);
    now(store.set("k", entry("kept"))).unwrap();
    fs::rename(&dir, &aside).unwrap();
    fs::write(&dir, b"").unwrap();
    for error in [now(store.clear()).unwrap_err(), now(store.clear_prefix("k")).unwrap_err()] {
        assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    }
    fs::remove_file(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    assert_eq!(now(store.get("k")).unwrap(), Some(entry("kept")));
    now(store.clear()).unwrap();
    assert_eq!(now(store.get("k")).unwrap(), None);
}

#[test]
fn a_path_that_is_no_directory_is_an_error_with_a_remedy() {
    let dir = scratch();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = FileStore::at(&path).open_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains(file.to_str().unwrap()) && text.contains("give another path"), "{text}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    for path in ["", "nul\0byte"] {
        assert_eq!(FileStore::at(path).open_blocking().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn codes_become_kinds() {
    use std::io::ErrorKind as Code;
    let kind =
        |code: Code| crate::error::trouble(larder::Operation::Set, Path::new("/c"), code.into()).kind();
    assert_eq!(kind(Code::StorageFull), ErrorKind::Full);
    assert_eq!(kind(Code::QuotaExceeded), ErrorKind::Full);
    assert_eq!(kind(Code::FileTooLarge), ErrorKind::Full);
    assert_eq!(kind(Code::ReadOnlyFilesystem), ErrorKind::ReadOnly);
    assert_eq!(kind(Code::PermissionDenied), ErrorKind::PermissionDenied);
    assert_eq!(kind(Code::ConnectionReset), ErrorKind::Other);
}
