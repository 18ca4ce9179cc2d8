//! Who runs next: by chance, by a list that proptest can shrink, or every way there is.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use proptest::prelude::*;

use crate::sync::Mutex;
use crate::testkit::executor::sim::Sim;

/// Decides at every step which of the runnable tasks is polled.
///
/// Choice 0 goes on with the task that ran last, or with the oldest one if that one waits; so a shorter
/// or smaller list of choices is a schedule with fewer switches.
#[derive(Debug)]
pub struct Schedule(Kind);

#[derive(Debug)]
enum Kind {
    Script { choices: Vec<u8>, next: usize },
    Random { state: u64, sticky: u64 },
    Explore(Arc<Mutex<Explorer>>),
}

impl Schedule {
    /// These choices, each modulo the number of options; after the last one, no switch that is not
    /// needed.
    pub fn script(choices: impl Into<Vec<u8>>) -> Self {
        Self(Kind::Script { choices: choices.into(), next: 0 })
    }

    /// Choices by chance, the same for the same seed. Some seeds switch at every step, others seldom.
    pub fn random(seed: u64) -> Self {
        let mut state = seed;
        let sticky = [0, 0, 2, 6][usize::try_from(split_mix(&mut state) % 4).unwrap_or(0)];
        Self(Kind::Random { state, sticky })
    }

    /// Picks one of `all` options, of which the first `free` do not interrupt anybody.
    pub(crate) fn choose(&mut self, free: usize, all: usize) -> usize {
        match &mut self.0 {
            Kind::Script { choices, next } => {
                let choice = choices.get(*next).copied().unwrap_or(0);
                *next += 1;
                usize::from(choice) % all
            }
            Kind::Random { state, sticky } => {
                if *sticky > 0 && free == 1 && !split_mix(state).is_multiple_of(*sticky + 1) {
                    return 0;
                }
                usize::try_from(split_mix(state) % all as u64).unwrap_or(0)
            }
            Kind::Explore(explorer) => explorer.lock().choose(free, all),
        }
    }
}

/// Schedules that shrink towards fewer switches.
pub fn schedules(longest: usize) -> impl Strategy<Value = Schedule> {
    proptest::collection::vec(prop_oneof![2 => Just(0u8), 3 => 0..8u8], 0..=longest)
        .prop_map(Schedule::script)
}

/// Runs `scenario` under `count` random schedules.
pub fn seeds(count: u64, scenario: impl Fn(&mut Sim)) {
    for seed in 0..count {
        supervised(Schedule::random(seed), &format!("seed {seed}"), &scenario);
    }
}

/// Runs `scenario` once under these choices, as a failure prints them.
pub fn replay(choices: &[u8], scenario: impl Fn(&mut Sim)) {
    supervised(Schedule::script(choices), "replay", &scenario);
}

/// How much of the space of schedules was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// Schedules that ran.
    pub schedules: u64,
    /// Whether these were all there are.
    pub complete: bool,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} schedules{}", self.schedules, if self.complete { "" } else { " and not all" })
    }
}

/// Runs `scenario` under every schedule that interrupts a runnable task at most `preemptions` times, at
/// most `limit` of them. (Most races need one or two: Musuvathi and Qadeer, PLDI 2007.)
pub fn explore(preemptions: usize, limit: u64, scenario: impl Fn(&mut Sim)) -> Explored {
    let explorer = Arc::new(Mutex::new(Explorer { path: Vec::new(), depth: 0, preemptions, left: 0 }));
    let mut schedules = 0;
    while schedules < limit {
        explorer.lock().begin();
        supervised(Schedule(Kind::Explore(Arc::clone(&explorer))), "exploration", &scenario);
        schedules += 1;
        if !explorer.lock().advance() {
            return Explored { schedules, complete: true };
        }
    }
    Explored { schedules, complete: false }
}

/// Runs the scenario, and says how to see a failure again before it passes it on.
fn supervised(schedule: Schedule, what: &str, scenario: &impl Fn(&mut Sim)) {
    let mut sim = Sim::new(schedule);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scenario(&mut sim))) {
        eprintln!("failed under {what}; see it again with replay(&{:?}, ..)", sim.choices());
        eprintln!("order of polls: {}", sim.trace().join(" "));
        resume_unwind(panic);
    }
}

/// Walks the tree of choices depth first, a leaf a run.
#[derive(Debug)]
struct Explorer {
    path: Vec<Branch>,
    depth: usize,
    preemptions: usize,
    left: usize,
}

#[derive(Clone, Copy, Debug)]
struct Branch {
    taken: usize,
    options: usize,
}

impl Explorer {
    fn begin(&mut self) {
        self.depth = 0;
        self.left = self.preemptions;
    }

    fn choose(&mut self, free: usize, all: usize) -> usize {
        let options = if self.left == 0 { free.max(1) } else { all };
        if self.depth == self.path.len() {
            self.path.push(Branch { taken: 0, options });
        }
        let branch = self.path[self.depth];
        assert_eq!(branch.options, options, "the scenario itself is not deterministic");
        self.depth += 1;
        if branch.taken >= free {
            self.left = self.left.saturating_sub(1);
        }
        branch.taken
    }

    /// On to the next leaf; `false` if this was the last one.
    fn advance(&mut self) -> bool {
        self.path.truncate(self.depth);
        while let Some(branch) = self.path.last_mut() {
            branch.taken += 1;
            if branch.taken < branch.options {
                return true;
            }
            self.path.pop();
        }
        false
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and every seed is as good as another.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
