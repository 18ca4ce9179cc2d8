//! Runs one law over many cases: seeds, shrinking, replay, and a watch over a thread that may be blocked.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Once};
use std::time::Duration;

use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{
    Config, FileFailurePersistence, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sync::Mutex;
use crate::testkit::report::{Failure, LawReport, Outcome};
use crate::time::Stopwatch;

/// Cases a law, unless told.
pub(crate) const CASES: u32 = 256;

/// How often the search for a shorter history runs the case again.
const POLISHES: u32 = 2_000;

/// How much is tried, from where, and how long one case may take.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What is checked: part of the replay line, so that it runs nothing else.
    pub(crate) name: String,
    pub(crate) cases: u32,
    pub(crate) seed: u64,
    /// A law and a case of it to run in place of everything else.
    pub(crate) replay: Option<String>,
    /// A case that takes longer than this blocks its thread.
    pub(crate) patience: Duration,
    /// All cases of a law together: none begins after this. `None` on virtual time, which costs little.
    pub(crate) budget: Option<Duration>,
    /// The file of the caller: where the seeds of failures land.
    pub(crate) source: Option<&'static str>,
    /// The one law to run, if not all.
    pub(crate) only: Option<String>,
    /// Laws that are not to be tried, and why.
    pub(crate) skips: Vec<(String, String)>,
}

impl Settings {
    /// The settings of a check, as the environment overrides them.
    ///
    /// # Panics
    /// If a variable is set and is no number: it would change nothing, and nobody would notice.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cases: number("LARDER_CASES", CASES).max(1),
            seed: number("LARDER_SEED", 0),
            replay: std::env::var("LARDER_REPLAY").ok(),
            patience: Duration::from_secs(10),
            budget: None,
            source: None,
            only: None,
            skips: Vec::new(),
        }
    }

    /// Whether a law belongs into the report at all.
    pub(crate) fn wants(&self, law: LawName) -> bool {
        self.only.as_deref().is_none_or(|only| only == law.name)
    }

    /// The row of a law that is not to be tried, if so.
    pub(crate) fn skipped(&self, law: LawName) -> Option<LawReport> {
        let (_, why) = self.skips.iter().find(|(name, _)| name == law.name)?;
        Some(LawReport::skipped(law.name, why.clone()))
    }

    /// Panics if a skip or `only` names no law: it would skip nothing or run nothing, and nobody would notice.
    pub(crate) fn know(&self, laws: &[LawName]) {
        let names: Vec<_> = laws.iter().map(|law| law.name).collect();
        let skips = self.skips.iter().map(|(name, _)| ("skip", name));
        for (call, name) in skips.chain(self.only.iter().map(|name| ("only", name))) {
            let known = names.contains(&name.as_str());
            assert!(known, "{call}: no law is named `{name}`; there are: {}", names.join(", "));
        }
    }

    /// Sets the number of cases, unless the environment did.
    pub(crate) fn cases(&mut self, cases: u32) {
        if std::env::var_os("LARDER_CASES").is_none() {
            // None at all would keep every law.
            self.cases = cases.max(1);
        }
    }

    /// Sets the seed, unless the environment did.
    pub(crate) fn seed(&mut self, seed: u64) {
        if std::env::var_os("LARDER_SEED").is_none() {
            self.seed = seed;
        }
    }

    fn runner(&self, law: &str) -> TestRunner {
        let config = Config {
            cases: self.cases,
            source_file: self.source,
            test_name: Some("larder"),
            failure_persistence: self
                .source
                .map(|_| Box::new(FileFailurePersistence::SourceParallel("proptest-regressions")) as _),
            max_shrink_iters: 600,
            ..Config::default()
        };
        // Every law has dice of its own, so that one more law moves no other.
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        for (index, byte) in law.bytes().enumerate() {
            let place = &mut seed[8 + index % 24];
            *place = place.rotate_left(3) ^ byte;
        }
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }
}

fn number<N: std::str::FromStr>(variable: &str, default: N) -> N {
    let Ok(text) = std::env::var(variable) else { return default };
    let Ok(number) = text.trim().parse() else { panic!("{variable}: `{text}` is not such a number") };
    number
}

/// The methods that every check has, for a struct with a field `settings`.
macro_rules! knobs {
    () => {
        /// Runs this many cases a law; 256 unless told. `LARDER_CASES` overrides it.
        pub fn cases(mut self, cases: u32) -> Self {
            self.settings.cases(cases);
            self
        }

        /// Ten times as many cases: for a nightly run.
        pub fn thorough(self) -> Self {
            self.cases($crate::testkit::runner::CASES * 10)
        }

        /// Draws the cases from this seed, 0 unless told. The same seed draws the same cases; `LARDER_SEED`
        /// overrides it.
        pub fn seed(mut self, seed: u64) -> Self {
            self.settings.seed(seed);
            self
        }

        /// Does not try this law, for this reason, which the report tells.
        pub fn skip(mut self, law: impl Into<String>, why: impl Into<String>) -> Self {
            self.settings.skips.push((law.into(), why.into()));
            self
        }

        /// Runs this law alone.
        pub fn only(mut self, law: impl Into<String>) -> Self {
            self.settings.only = Some(law.into());
            self
        }

        /// How long a case may take, 10 s unless told, before it counts as blocking its thread.
        pub fn patience(mut self, patience: std::time::Duration) -> Self {
            self.settings.patience = patience;
            self
        }

        /// The file of the caller (`file!()`), so that the seeds of failures land in its `proptest-regressions/` and
        /// are tried first from then on. Property tests belong under some `src/`: from a flat `tests/` folder
        /// proptest drops its seeds elsewhere. Without it no seed is kept.
        pub fn source(mut self, file: &'static str) -> Self {
            self.settings.source = Some(file);
            self
        }
    };
}
pub(crate) use knobs;

/// A law by its name, and what it costs whoever relies on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LawName {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

/// What a case found: how the law was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) timeline: String,
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) cause: String,
}

/// The description of a case: plain data that can be drawn, made smaller, written down and read back.
pub(crate) trait Case: Clone + Debug + Send + Serialize + DeserializeOwned + 'static {
    /// Cases that are simpler than this one, the simplest first.
    fn simpler(&self) -> Vec<Self>;

    /// How many operations a reader has to follow.
    fn steps(&self) -> usize;
}

/// Runs a law: the cases that `cases` draws, each judged by `judge`.
pub(crate) fn run<C: Case>(
    settings: &Settings,
    law: LawName,
    cases: impl FnOnce() -> BoxedStrategy<C> + Send + 'static,
    judge: impl Fn(&C) -> Result<(), Finding> + Send + Sync + 'static,
) -> LawReport {
    let watch = Stopwatch::start();
    let tries = Arc::new(AtomicU32::new(0));
    let judge: Judge<C> = Arc::new(judge);
    let (ran, outcome) = match settings.replay.as_deref().map(|replay| read_replay(replay, settings, law)) {
        Some(Ok(case)) => (
            1,
            guarded(settings, law, &tries, move |watched| {
                let judge = watched.over(judge);
                judge(&case).err().map(|finding| (case, finding))
            }),
        ),
        Some(Err(why)) => (0, Outcome::Skipped(why)),
        None => {
            let (own, counter) = (settings.clone(), Arc::clone(&tries));
            let outcome = guarded(settings, law, &tries, move |watched| {
                search(&own, law, &cases(), &watched.over(judge), &counter)
            });
            (tries.load(Ordering::SeqCst), outcome)
        }
    };
    LawReport { law: law.name, cases: ran, time: watch.elapsed(), outcome }
}

type Judge<C> = Arc<dyn Fn(&C) -> Result<(), Finding> + Send + Sync>;

/// The case that runs at the moment, for whoever waits in vain for its end.
struct Watched<C>(Arc<Mutex<Option<C>>>, mpsc::Sender<Message<C>>);

enum Message<C> {
    Alive,
    Done(Option<(C, Finding)>),
    Panicked(Box<dyn Any + Send>),
}

impl<C: Case> Watched<C> {
    /// The same judge, whose every case is noted.
    fn over(&self, judge: Judge<C>) -> Judge<C> {
        let (slot, alive) = (Arc::clone(&self.0), self.1.clone());
        Arc::new(move |case| {
            *slot.lock() = Some(case.clone());
            // A panic of the store is caught where it runs; this one is of its constructor or of the kit.
            let result = quietly(|| catch_unwind(AssertUnwindSafe(|| judge(case))))
                .unwrap_or_else(|panic| Err(panicked(&message(&*panic))));
            // Nobody listens any more: then the report is out already.
            let _ = alive.send(Message::Alive);
            result
        })
    }
}

/// Runs `work` on a thread of its own, so that a store that blocks it costs its patience and no more.
fn guarded<C: Case>(
    settings: &Settings,
    law: LawName,
    tries: &AtomicU32,
    work: impl FnOnce(&Watched<C>) -> Option<(C, Finding)> + Send + 'static,
) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let slot = Arc::new(Mutex::new(None));
    let watched = Watched(Arc::clone(&slot), sender.clone());
    let thread = std::thread::Builder::new().name(law.name.to_owned()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| work(&watched)));
        let _ = sender.send(result.map_or_else(Message::Panicked, Message::Done));
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => return Outcome::Skipped(format!("no thread to run it on: {error}")),
    };
    loop {
        match receiver.recv_timeout(settings.patience) {
            Ok(Message::Alive) => {}
            Ok(Message::Done(found)) => {
                // It has ended but for its last instruction.
                let _ = thread.join();
                return found.map_or(Outcome::Kept, |(case, finding)| broken(settings, law, &case, finding));
            }
            Ok(Message::Panicked(panic)) => std::panic::resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => {
                tries.fetch_add(1, Ordering::SeqCst);
                let Some(case) = slot.lock().clone() else {
                    return Outcome::Skipped("the first case was not even drawn in time".to_owned());
                };
                return broken(settings, law, &case, blocked(settings.patience));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Outcome::Skipped("its thread went away".to_owned());
            }
        }
    }
}

/// Draws cases until one breaks the law, and makes that one as short as it gets.
fn search<C: Case>(
    settings: &Settings,
    law: LawName,
    cases: &BoxedStrategy<C>,
    judge: &Judge<C>,
    tries: &AtomicU32,
) -> Option<(C, Finding)> {
    let watch = Stopwatch::start();
    let last = Mutex::new(None);
    let found = settings.runner(law.name).run(cases, |case| {
        if settings.budget.is_some_and(|budget| watch.elapsed() > budget) {
            return Ok(());
        }
        tries.fetch_add(1, Ordering::SeqCst);
        judge(&case).map_err(|finding| {
            *last.lock() = Some(finding.clone());
            TestCaseError::fail(finding.got)
        })
    });
    let Err(TestError::Fail(_, case)) = found else { return None };
    // The same case twice, or it is not the case that decides.
    match judge(&case) {
        Err(finding) => Some(polish(case, finding, judge)),
        Ok(()) => Some((case, unsteady(last.lock().take()))),
    }
}

/// Proptest shrinks what it drew part by part; this looks at the case as a whole.
fn polish<C: Case>(mut case: C, mut finding: Finding, judge: &Judge<C>) -> (C, Finding) {
    let mut left = POLISHES;
    'again: loop {
        for simpler in case.simpler() {
            let Some(fewer) = left.checked_sub(1) else { return (case, finding) };
            left = fewer;
            if let Err(found) = judge(&simpler) {
                (case, finding) = (simpler, found);
                continue 'again;
            }
        }
        return (case, finding);
    }
}

fn broken<C: Case>(settings: &Settings, law: LawName, case: &C, finding: Finding) -> Outcome {
    let Finding { timeline, expected, got, cause } = finding;
    // `conformance!` has a test for each law; of any other test the kit does not know the name.
    let test = match &settings.only {
        Some(_) => format!("cargo test {}", law.name),
        None => "cargo test".to_owned(),
    };
    let replay = format!("LARDER_REPLAY='{}' {test}", write_replay(settings, law, case));
    let steps = case.steps();
    Outcome::Broken(Box::new(Failure {
        law: law.name,
        why: law.why,
        steps,
        timeline,
        expected,
        got,
        cause,
        replay,
    }))
}

fn blocked(patience: Duration) -> Finding {
    Finding {
        timeline: String::new(),
        expected: "every call gives the thread back".to_owned(),
        got: format!("a poll that did not return within {patience:?}: the store blocks its thread"),
        cause: "a lock that is never released, an endless loop, or blocking I/O inside a future; \
                move it to `spawn_blocking`, or raise `patience` if it is only slow"
            .to_owned(),
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panic hook from printing a trace for each of the thousands of cases in which a store panics: the report
/// tells of the shortest one.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                previous(panic);
            }
        }));
    });
    QUIET.set(true);
    let done = work();
    QUIET.set(false);
    done
}

fn panicked(message: &str) -> Finding {
    Finding {
        timeline: String::new(),
        expected: "no panic".to_owned(),
        got: format!("a panic: {message}"),
        cause: "an `unwrap` or an index that input can reach".to_owned(),
    }
}

fn unsteady(last: Option<Finding>) -> Finding {
    let (timeline, got) = last.map_or_else(Default::default, |last| (last.timeline, last.got));
    Finding {
        timeline,
        expected: "the same case, run again, has the same end".to_owned(),
        got: format!("it failed ({got}), and then it did not"),
        cause: "state that is shared between instances or survives a case, real threads, a clock or dice \
                that were not injected"
            .to_owned(),
    }
}

/// What a panic says.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// The name, the law and the case, the last as the bytes of postcard in hexadecimal.
fn write_replay<C: Case>(settings: &Settings, law: LawName, case: &C) -> String {
    // Plain data: postcard refuses no such type.
    let bytes = postcard::to_stdvec(case).unwrap_or_default();
    let digits = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    format!("{}/{}/{digits}", settings.name, law.name)
}

fn read_replay<C: Case>(replay: &str, settings: &Settings, law: LawName) -> Result<C, String> {
    let mut parts = replay.trim().rsplitn(3, '/');
    let (digits, named, name) = (parts.next(), parts.next(), parts.next());
    if named != Some(law.name) || name != Some(&settings.name) {
        return Err("LARDER_REPLAY names another case".to_owned());
    }
    let digits = digits.unwrap_or_default();
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    let case = bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok());
    case.ok_or_else(|| "LARDER_REPLAY holds no case of this version of the kit".to_owned())
}
