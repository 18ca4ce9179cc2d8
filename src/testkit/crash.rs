//! The crash lane: a process that writes is killed, again and again, and what it left is looked at.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::entry::{Entry, Lifetime};
use crate::store::{SetOutcome, Store};
use crate::testkit::executor::split_mix;
use crate::testkit::report::{Failure, LawReport, Outcome, Report};
use crate::testkit::runner::Settings;
use crate::testkit::sample::{SampleKey, SampleValue};
use crate::testkit::store::Draft;
use crate::time::Stopwatch;

/// The law that a crash must not break.
const LAW: &str = "s3_a_killed_process_loses_nothing";

/// Keys that the process writes.
const KEYS: usize = 12;

/// Kills before the lane is content, unless `LARDER_CASES` says otherwise.
const ROUNDS: u32 = 20;

/// Says to the process that is to be killed what it is: the directory, the seed, the first step.
const CHILD: &str = "LARDER_CRASH";

/// The system calls at which a process is killed: those that change a disk.
const CALLS: &str = "write,pwrite64,writev,pwritev,rename,renameat,renameat2,unlink,unlinkat,link,linkat,ftruncate,\
                     fallocate,mkdir,mkdirat,rmdir,fsync,fdatasync";

/// Tests by kill: a process writes, renews, removes and clears; it is killed in the middle of it; the store is opened again,
/// and must hold what was acknowledged. So it goes on over the same directory, 20 kills unless `LARDER_CASES` says
/// otherwise.
///
/// ```
/// # mod disk { pub use larder::Memory as Table; }
/// larder::testkit::crash_conformance! {
///     name: a_table_outlives_kill_9,
///     store: |_dir: &std::path::Path| disk::Table::<str, String>::new(100),
/// }
/// # fn main() {}
/// ```
///
/// Where `strace` is installed the process is killed at the entry of a system call that changes the disk, at
/// another one each time; otherwise by `kill -9` after a chance number of acknowledgements. The process is the test
/// program itself, so that the macro stands where a test stands. Unix only.
#[macro_export]
#[doc(hidden)]
macro_rules! __crash_conformance {
    (name: $name:ident, store: $open:expr $(,)?) => {
        #[test]
        fn $name() {
            let test = ::core::concat!(::core::module_path!(), "::", ::core::stringify!($name));
            $crate::testkit::check_crashes(test, $open).assert();
        }
    };
}

/// What the macro [`crash_conformance!`](crate::testkit::crash_conformance) runs. `test` is the whole path of the test that calls it, the
/// crate's name in front: it runs again in the process that is killed, and then does not return.
pub fn check_crashes<S>(test: &str, open: impl Fn(&Path) -> S) -> Report
where
    S: Store<Key: SampleKey, Value: SampleValue + PartialEq + Debug>,
{
    if let Ok(told) = std::env::var(CHILD) {
        write_until_killed(&told, open);
        std::process::exit(0);
    }
    let name = test.split_once("::").map_or(test, |(_, path)| path);
    let mut settings = Settings::new(name);
    settings.cases(ROUNDS);
    let watch = Stopwatch::start();
    let mut rounds = 0;
    let outcome = match rounds_of(&settings, open, &mut rounds) {
        Ok(()) => Outcome::Kept,
        Err(Trouble::Broken(failure)) => Outcome::Broken(failure),
        Err(Trouble::Machine(why)) => Outcome::Skipped(why),
    };
    let row = LawReport { law: LAW, cases: rounds, time: watch.elapsed(), outcome };
    Report::new(
        name,
        vec![row],
        vec![format!(
            "killed {}",
            if strace().is_some() { "at system calls" } else { "after acknowledgements" }
        )],
    )
}

/// What the process does in a step: a pure function, so that whoever kills it knows it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Set(usize, u32),
    /// Another lifetime for what is held, or an entry where nothing is.
    Renew(usize, u32),
    Remove(usize),
    Clear,
}

fn act(seed: u64, step: u64) -> Act {
    let mut state = seed ^ step.wrapping_mul(0x9e37_79b9);
    let chance = split_mix(&mut state);
    let key = usize::try_from(chance % KEYS as u64).unwrap_or(0);
    match (chance >> 32) % 64 {
        0 => Act::Clear,
        1..=9 => Act::Remove(key),
        10..=27 => Act::Renew(key, u32::try_from(step).unwrap_or(u32::MAX)),
        _ => Act::Set(key, u32::try_from(step).unwrap_or(u32::MAX)),
    }
}

/// What a key holds: the step that wrote its value, and the one that wrote its lifetime.
type Held = (u32, u32);

fn entry<V: SampleValue>((step, renewed): Held) -> Entry<V> {
    // Up to two blocks of a disk, where values have a length.
    let mut state = u64::from(step);
    let bytes = usize::try_from(split_mix(&mut state) % 9_000).unwrap_or(0);
    let value = V::sized(step, bytes).unwrap_or_else(|| V::sample(step));
    Entry::new(value, lifetime(renewed)).with_tags(["tag"])
}

fn lifetime(step: u32) -> Lifetime {
    let life = Draft::lasting(0).lifetime();
    let created_at = life.created_at().saturating_add(Duration::from_nanos(step.into()));
    Lifetime::new(created_at, life.fresh_until(), life.stale_until(), life.keep_until())
}

/// Does it; whether it was acknowledged.
async fn perform<S>(store: &S, keys: &[<S::Key as ToOwned>::Owned], act: Act) -> bool
where
    S: Store<Key: SampleKey, Value: SampleValue>,
{
    match act {
        Act::Set(key, step) => {
            matches!(store.set(keys[key].borrow(), entry((step, step))).await, Ok(SetOutcome::Stored))
        }
        Act::Renew(key, step) => {
            let key = keys[key].borrow();
            let Ok(held) = store.get(key).await else { return false };
            let renewed = held.map_or_else(|| entry((step, step)), |held| held.with_lifetime(lifetime(step)));
            matches!(store.renew(key, renewed).await, Ok(SetOutcome::Stored))
        }
        Act::Remove(key) => store.remove(keys[key].borrow()).await.is_ok(),
        Act::Clear => store.clear().await.is_ok(),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// The process that is killed.
fn write_until_killed<S>(told: &str, open: impl Fn(&Path) -> S)
where
    S: Store<Key: SampleKey, Value: SampleValue + PartialEq + Debug>,
{
    let mut parts = told.splitn(3, ' ');
    let mut number = || parts.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let (seed, first) = (number(), number());
    let dir = PathBuf::from(parts.next().unwrap_or_default());
    let Ok(runtime) = runtime() else { return };
    let keys = S::Key::corpus();
    // Straight to the pipe: what is acknowledged is out, whatever happens to this process.
    let mut acknowledge = std::io::stdout();
    runtime.block_on(async {
        let store = open(&dir);
        for step in first.. {
            let done = perform(&store, &keys, act(seed, step)).await;
            let line =
                if done { format!("\nlarder step {step}\n") } else { format!("\nlarder failed {step}\n") };
            // Whoever listens has gone: so does this.
            if acknowledge.write_all(line.as_bytes()).and_then(|()| acknowledge.flush()).is_err() || !done {
                return;
            }
        }
    });
}

enum Trouble {
    Broken(Box<Failure>),
    /// Not the store's: no process, no directory.
    Machine(String),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Machine(format!("this machine could not run it: {error}"))
    }
}

fn rounds_of<S>(settings: &Settings, open: impl Fn(&Path) -> S, rounds: &mut u32) -> Result<(), Trouble>
where
    S: Store<Key: SampleKey, Value: SampleValue + PartialEq + Debug>,
{
    let scratch = Scratch::new(&settings.name)?;
    let runtime = runtime()?;
    let keys = S::Key::corpus();
    let mut held: BTreeMap<usize, Held> = BTreeMap::new();
    let mut next = 0;
    let mut total = 0;
    for round in 0..settings.cases {
        let acknowledged = killed(settings, &scratch.0, next, round)?;
        let mut last = Vec::new();
        for step in next..next + acknowledged {
            let done = act(settings.seed, step);
            apply(&mut held, done);
            last.push(done);
        }
        next += acknowledged;
        total += acknowledged;
        // The step after the last acknowledged one was done or not, for each key of it.
        let unsure = act(settings.seed, next);
        *rounds += 1;
        let store = {
            let _inside = runtime.enter();
            open(&scratch.0)
        };
        for (key, name) in keys.iter().enumerate().take(KEYS) {
            let found = runtime.block_on(store.get(name.borrow()));
            let before = held.get(&key).copied();
            let after = {
                let mut changed = held.clone();
                apply(&mut changed, unsure);
                changed.get(&key).copied()
            };
            let is = |wanted: Option<Held>| match (&found, wanted) {
                (Ok(Some(found)), Some(held)) => *found == entry(held),
                (Ok(None), None) => true,
                _ => false,
            };
            if is(before) {
                continue;
            }
            if is(after) {
                match after {
                    Some(now) => held.insert(key, now),
                    None => held.remove(&key),
                };
                continue;
            }
            let got = match &found {
                Ok(None) => "nothing".to_owned(),
                Ok(Some(_)) => "an entry that is neither the last nor the one in flight".to_owned(),
                Err(error) => format!("an error: {error}"),
            };
            return Err(Trouble::Broken(Box::new(failure(
                settings,
                round,
                (&last, unsure),
                key,
                before,
                &got,
            ))));
        }
        // It may have been done for some keys of it; now it is done for all.
        next += 1;
        let done = runtime.block_on(perform(&store, &keys, unsure));
        if !done {
            let got = "a call that fails after the process was killed";
            return Err(Trouble::Broken(Box::new(failure(settings, round, (&last, unsure), 0, None, got))));
        }
        apply(&mut held, unsure);
    }
    if total == 0 {
        let got = "no call acknowledged in any process: the store fails, or the process could not be run";
        return Err(Trouble::Broken(Box::new(failure(
            settings,
            0,
            (&[], act(settings.seed, 0)),
            0,
            None,
            got,
        ))));
    }
    Ok(())
}

fn apply(held: &mut BTreeMap<usize, Held>, act: Act) {
    match act {
        Act::Set(key, step) => drop(held.insert(key, (step, step))),
        Act::Renew(key, step) => {
            let value = held.get(&key).map_or(step, |(value, _)| *value);
            held.insert(key, (value, step));
        }
        Act::Remove(key) => drop(held.remove(&key)),
        Act::Clear => held.clear(),
    }
}

/// Starts the process at a step, has it killed, and returns how many steps it acknowledged.
fn killed(settings: &Settings, dir: &Path, first: u64, round: u32) -> Result<u64, Trouble> {
    let program = std::env::current_exe()?;
    let mut state = settings.seed ^ u64::from(round);
    let chance = split_mix(&mut state);
    let mut command = match strace() {
        Some(strace) => {
            let mut command = Command::new(strace);
            let calls = format!("inject={CALLS}:signal=KILL:when={}", 1 + chance % 120);
            command
                .args(["-f", "-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={CALLS}"))
                .arg("-e")
                .arg(calls);
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    let mut child = command
        .args(["--exact", &settings.name, "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{} {first} {}", settings.seed, dir.display()))
        .env_remove("LARDER_REPLAY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut acknowledged = 0;
    let enough = if strace().is_some() { 2_000 } else { 1 + chance % 60 };
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            // The last line may be cut: then the step was not acknowledged.
            let Ok(line) = line else { break };
            if line == format!("larder step {}", first + acknowledged) {
                acknowledged += 1;
                if acknowledged >= enough {
                    child.kill()?;
                }
            }
        }
    }
    child.wait()?;
    Ok(acknowledged)
}

/// The program that kills another one at a system call, if there is one.
fn strace() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|program| program.is_file())
}

fn failure(
    settings: &Settings,
    round: u32,
    (done, unsure): (&[Act], Act),
    key: usize,
    expected: Option<Held>,
    got: &str,
) -> Failure {
    let mut timeline = String::new();
    if done.len() > 5 {
        let _ = writeln!(timeline, ".. {} acknowledged steps", done.len() - 5);
    }
    for act in &done[done.len().saturating_sub(5)..] {
        let _ = writeln!(timeline, "{act:?} -> acknowledged");
    }
    let _ = writeln!(timeline, "{unsure:?} .. killed");
    let _ = writeln!(timeline, "opened again, get(key {key}) -> {got}");
    Failure {
        law: LAW,
        why: "a deploy, a crash or the kernel's choice in low memory loses or tears entries that were acknowledged",
        steps: done.len() + 1,
        timeline,
        expected: expected.map_or("nothing".to_owned(), |(value, life)| {
            format!("the value of step {value}, with the lifetime of step {life}")
        }),
        got: got.to_owned(),
        cause: "a write in place, an acknowledgement before the rename, an index that is written later"
            .to_owned(),
        replay: format!(
            "LARDER_SEED={} LARDER_CASES={} cargo test {}",
            settings.seed,
            round + 1,
            settings.name
        ),
    }
}

/// A directory that is gone with its guard.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> std::io::Result<Self> {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let dir = std::env::temp_dir().join(format!("larder-crash-{}-{name}", std::process::id()));
        // Of an earlier process with this number.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the system's own place for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::{Error, ErrorKind, Operation, Result};
    use crate::wire;

    /// A file an entry, written aside and renamed; or in place, as it is first written.
    struct Files {
        dir: PathBuf,
        in_place: bool,
    }

    impl Files {
        fn path(&self, key: &str) -> PathBuf {
            let name = crate::codec::KeyCodec::encode(&crate::codec::Hex, key.as_bytes());
            self.dir.join(name.unwrap().into_owned() + ".entry")
        }
    }

    fn failed(error: std::io::Error) -> Error {
        Error::new(ErrorKind::Other, "files", Operation::Set).with_source(error)
    }

    impl Store for Files {
        type Key = str;
        type Value = Bytes;

        async fn get(&self, key: &str) -> Result<Option<Entry<Bytes>>> {
            match fs::read(self.path(key)) {
                Ok(bytes) => wire::decode(key.as_bytes(), bytes.into()).map(Some),
                Err(_) => Ok(None),
            }
        }

        async fn set(&self, key: &str, entry: Entry<Bytes>) -> Result<SetOutcome> {
            let (path, bytes) = (self.path(key), wire::encode(key.as_bytes(), &entry));
            if self.in_place {
                let mut file = fs::File::create(path).map_err(failed)?;
                bytes.chunks(1_000).try_for_each(|part| file.write_all(part)).map_err(failed)?;
            } else {
                let aside = path.with_extension("aside");
                fs::write(&aside, &bytes).and_then(|()| fs::rename(&aside, &path)).map_err(failed)?;
            }
            Ok(SetOutcome::Stored)
        }

        async fn remove(&self, key: &str) -> Result<()> {
            let _ = fs::remove_file(self.path(key));
            Ok(())
        }

        async fn clear(&self) -> Result<()> {
            for item in fs::read_dir(&self.dir).map_err(failed)?.flatten() {
                let _ = fs::remove_file(item.path());
            }
            Ok(())
        }
    }

    crate::testkit::crash_conformance! {
        name: what_is_renamed_outlives_a_kill,
        store: |dir: &Path| Files { dir: dir.to_owned(), in_place: false },
    }

    #[test]
    fn what_is_written_in_place_is_caught() {
        let test = concat!(module_path!(), "::what_is_written_in_place_is_caught");
        let report = check_crashes(test, |dir: &Path| Files { dir: dir.to_owned(), in_place: true });
        if strace().is_some() {
            assert!(!report.is_kept(), "{report}");
        }
    }
}
