//! What one case of the engine is: settings, a stack, tasks and their steps. Plain data that shrinks.

mod simpler;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::trouble::Negative;
use crate::cache::{CacheBuilder, Computed, Patience};
use crate::error::{Error, Operation};
use crate::testkit::engine::stack::Stack;
use crate::testkit::engine::trace::Broke;
use crate::testkit::faulty::Fault;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// One run of an engine: everything that decides what happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineCase {
    /// The cache's settings, where no user has given them.
    pub(crate) knobs: Knobs,
    pub(crate) under: Under,
    /// What the store holds at the beginning, as another host wrote it.
    pub(crate) planted: Vec<Planted>,
    pub(crate) tasks: Vec<Vec<Step>>,
    /// What the schedule chooses.
    pub(crate) choices: Vec<u8>,
    /// Whether time may pass while somebody is runnable.
    pub(crate) races: bool,
    /// How writes of the store take time.
    pub(crate) writes: Writes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Writes {
    AtOnce,
    /// A second after they took effect.
    Linger,
    /// Sets take effect after a second, and removals at once.
    LateSets,
}

/// Settings, each by its number; 0 is the plainest.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Knobs {
    /// A minute, a tick, the longest there is, never.
    pub(crate) ttl: u8,
    /// None, a minute, a tick, the longest there is.
    pub(crate) stale: u8,
    /// None, ten minutes, a tick, for ever.
    pub(crate) keep: u8,
    pub(crate) strict: bool,
    pub(crate) bypass: bool,
    pub(crate) jitter: bool,
    /// What is absent: as anything else, five seconds, a tick.
    #[serde(default)]
    pub(crate) negative: u8,
    /// Errors: not remembered; one second to four; the same, of computations with an even number; three seconds.
    #[serde(default)]
    pub(crate) errors: u8,
    /// Of every caller: see [`patience`].
    #[serde(default)]
    pub(crate) patience: u8,
    /// Loads: any number; one, and any number waits; one, and one waits; two, and nobody waits.
    #[serde(default)]
    pub(crate) limit: u8,
    /// One refresh at a time.
    pub(crate) one_refresh: bool,
    /// Refreshed early: never, past half of a life, past nine tenths of it, by the cost of the load.
    pub(crate) ahead: u8,
    /// How many refreshes may begin: as many as want to, one in ten seconds, twenty a second.
    pub(crate) rate: u8,
}

/// The store that the engine runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Under {
    /// One tier that answers at once.
    Memory,
    /// One tier that has to be waited for.
    Remote,
    /// The first over the second.
    Chain,
}

/// An entry that is there before anybody comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planted {
    pub(crate) key: u8,
    /// In every tier, or only in the deepest.
    pub(crate) above: bool,
    /// Nanoseconds from the beginning to the end of freshness; before it, if negative; from 100 on seconds, of a
    /// life that began minutes ago.
    pub(crate) fresh: i8,
    /// How much longer it is stale, and then kept: nanoseconds, or from 100 on minutes.
    pub(crate) stale: u8,
    pub(crate) keep: u8,
    /// By how many seconds the clock of who wrote it runs ahead.
    pub(crate) ahead: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) act: Act,
    /// The caller goes away after waiting this often; 0 is never.
    pub(crate) leaves: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Ask(u8, Plan),
    /// The same for many keys at once: each is an `Ask` of its own in the trace.
    AskMany(Keys, Plan, Odd),
    GetMany(Keys),
    SetMany(Keys, Own),
    RemoveMany(Keys),
    Get(u8),
    Peek(u8),
    Set(u8, Own),
    Remove(u8),
    Clear,
    /// Time passes.
    Wait(Until),
    /// The wall clock jumps, and no time passes: back or forth, how far.
    Jump(bool, u8),
    Down(u8),
    Up(u8),
    /// The nth call from now on meets a fault.
    Fault(u8, Call, u8, Trouble),
    /// Reads take this many seconds from now on, after the store has looked.
    SlowReads(u8),
    Shutdown(u8),
    /// The handle is dropped; steps after it do nothing.
    DropHandle,
}

/// The keys of a batch: up to four, and any of them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) list: [u8; 4],
    pub(crate) count: u8,
}

/// What the computation of a batch does with the last of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Odd {
    /// What it does with the others.
    Even,
    Forgets,
    Fails,
    /// The same as with the others, and it answers for a key besides that it was not asked for, if there is one.
    Extra,
}

/// How a computation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) work: Work,
    pub(crate) yields: u8,
    /// Seconds.
    pub(crate) takes: u8,
    pub(crate) own: Own,
    /// The caller's own, unless 0: see [`patience`].
    #[serde(default)]
    pub(crate) patience: u8,
    /// Which of the ways to ask.
    pub(crate) way: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    Answer,
    Fail,
    Panic,
    Hang,
    Unchanged,
    /// It does not answer for the key: only as a part of a batch.
    Forget,
}

/// What a value says of its own life; 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Own {
    /// Ten seconds, one instant, never.
    pub(crate) ttl: u8,
    /// Ten seconds, none, the longest there is.
    pub(crate) stale: u8,
    pub(crate) keep: u8,
    /// It says "not found".
    #[serde(default)]
    pub(crate) absent: bool,
    /// A version and two tags.
    pub(crate) extras: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Until {
    Tick,
    Seconds(u8),
    /// A deadline of the entry last stored: which key, which deadline (the last is the last instant at which it is
    /// not due for an early refresh), how many ticks beside it.
    Edge(u8, u8, i8),
    /// The end of the error that is remembered of this key, and so many ticks beside it.
    Error(u8, i8),
    /// As long as a load may take, or a refresh.
    Limit(bool, i8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Get,
    Set,
    Remove,
    Clear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trouble {
    Before,
    After,
    Refuse,
    HangBefore,
    HangAfter,
}

impl Keys {
    pub(crate) fn each(self) -> impl Iterator<Item = u8> {
        self.list.into_iter().take(self.count.into())
    }
}

impl Act {
    /// The key, if it is one call for one.
    pub(crate) fn key(self) -> Option<u8> {
        match self {
            Self::Ask(key, _) | Self::Get(key) | Self::Peek(key) | Self::Set(key, _) | Self::Remove(key) => {
                Some(key)
            }
            _ => None,
        }
    }

    /// The calls of single keys that a batch equals, in order.
    pub(crate) fn singles(self) -> Option<Vec<Self>> {
        match self {
            Self::AskMany(keys, plan, _) => Some(keys.each().map(|key| Self::Ask(key, plan)).collect()),
            Self::GetMany(keys) => Some(keys.each().map(Self::Get).collect()),
            Self::SetMany(keys, own) => Some(keys.each().map(|key| Self::Set(key, own)).collect()),
            Self::RemoveMany(keys) => Some(keys.each().map(Self::Remove).collect()),
            _ => None,
        }
    }
}

impl Call {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Self::Get => Operation::Get,
            Self::Set => Operation::Set,
            Self::Remove => Operation::Remove,
            Self::Clear => Operation::Clear,
        }
    }
}

impl Trouble {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::Before => Fault::FailBefore,
            Self::After => Fault::FailAfter,
            Self::Refuse => Fault::Refuse,
            Self::HangBefore => Fault::HangBefore,
            Self::HangAfter => Fault::HangAfter,
        }
    }

    pub(crate) fn hangs(self) -> bool {
        matches!(self, Self::HangBefore | Self::HangAfter)
    }
}

impl Knobs {
    pub(crate) fn apply(self, mut builder: CacheBuilder<Stack>) -> CacheBuilder<Stack> {
        builder = match self.ttl {
            1 => builder.ttl(Duration::from_nanos(1)),
            2 => builder.ttl(Duration::MAX),
            3 => builder.no_expiration(),
            _ => builder.ttl(60 * SECOND),
        };
        if self.ttl != 3 {
            builder = match self.stale {
                1 => builder.stale(60 * SECOND),
                2 => builder.stale(Duration::from_nanos(1)),
                3 => builder.stale(Duration::MAX),
                _ => builder,
            };
            if self.jitter {
                builder = builder.jitter(0.5);
            }
            builder = match self.ahead {
                1 => builder.refresh_ahead(0.5),
                2 => builder.refresh_ahead(0.9),
                3 => builder.refresh_ahead_by_cost(1.0),
                _ => builder,
            };
        }
        builder = match self.keep {
            1 => builder.keep_stale_on_error(600 * SECOND),
            2 => builder.keep_stale_on_error(Duration::from_nanos(1)),
            3 => builder.keep_stale_on_error_forever(),
            _ => builder,
        };
        builder = match self.negative {
            1 => builder.negative(5 * SECOND, NOT_FOUND),
            2 => builder.negative(Duration::from_nanos(1), NOT_FOUND),
            _ => builder,
        };
        builder = match self.errors {
            1 => builder.error_ttl(SECOND, 4 * SECOND),
            2 => builder.error_ttl(SECOND, 4 * SECOND).error_ttl_if(is_even),
            3 => builder.error_ttl(3 * SECOND, 3 * SECOND),
            _ => builder,
        };
        if let Some(patience) = patience(self.patience) {
            builder = builder.patience(patience);
        }
        builder = match self.limit {
            1 => builder.max_loads(1),
            2 => builder.max_loads(1).max_waiting_loads(1),
            3 => builder.max_loads(2).max_waiting_loads(0),
            _ => builder,
        };
        if self.strict {
            builder = builder.strict();
        }
        if self.one_refresh {
            builder = builder.max_refreshes(1);
        }
        builder = match self.rate {
            1 => builder.refreshes_per_second(0.1),
            2 => builder.refreshes_per_second(20.0),
            _ => builder,
        };
        if self.bypass { builder.bypass() } else { builder }
    }
}

/// Values with this bit say "not found".
const ABSENT: u64 = 1 << 63;

const NOT_FOUND: Negative<u64> = Negative { is: |value| is_absent(*value), absent: || ABSENT };

pub(crate) fn is_absent(value: u64) -> bool {
    value & ABSENT != 0
}

/// Whether the error names a computation with an even number.
fn is_even(error: &Error) -> bool {
    error.source_as::<Broke>().is_some_and(|broke| broke.0.is_multiple_of(2))
}

/// Lengths that no computation takes, so that nothing else falls due at their instants.
pub(crate) fn patience(choice: u8) -> Option<Patience> {
    let (soft, hard) = (SECOND * 3 / 2, SECOND * 5 / 2);
    match choice {
        1 => Some(Patience::new().soft_timeout(soft)),
        2 => Some(Patience::new().hard_timeout(hard)),
        3 => Some(Patience::new().soft_timeout(soft).hard_timeout(hard)),
        4 => Some(Patience::new().hard_timeout(hard).drop_load()),
        5 => Some(Patience::new().soft_timeout(Duration::ZERO).hard_timeout(hard)),
        6 => Some(Patience::new()),
        7 => Some(Patience::new().hard_timeout(soft).drop_load()),
        _ => None,
    }
}

impl Own {
    /// The value in the form that says what these terms say.
    pub(crate) fn mark(self, value: u64) -> u64 {
        if self.absent { value | ABSENT } else { value }
    }

    pub(crate) fn length(choice: u8) -> Option<Duration> {
        [None, Some(10 * SECOND), Some(Duration::ZERO), Some(Duration::MAX)][usize::from(choice % 4)]
    }

    pub(crate) fn say(self, mut answer: Computed<u64>) -> Computed<u64> {
        answer = match (self.ttl, Self::length(self.ttl)) {
            (3, _) => answer.no_expiration(),
            (_, Some(ttl)) => answer.ttl(ttl),
            (_, None) => answer,
        };
        if let Some(window) = Self::length(self.stale) {
            answer = answer.stale(window);
        }
        if let Some(age) = Self::length(self.keep) {
            answer = answer.keep_stale_on_error(age);
        }
        if self.extras { answer.version("v").tags(["t", "u"]) } else { answer }
    }
}

impl Planted {
    /// A length that is a few ticks or many minutes.
    pub(crate) fn window(length: u8) -> Duration {
        if length < 100 { Duration::from_nanos(length.into()) } else { 60 * SECOND * u32::from(length - 99) }
    }
}

impl EngineCase {
    /// One caller at a time, whom nothing interrupts: the model can say what must happen.
    pub(crate) fn is_sequential(&self) -> bool {
        self.tasks.len() == 1
            && !self.races
            && self.writes == Writes::AtOnce
            && self.steps_of_all().all(|step| step.leaves == 0)
    }

    pub(crate) fn steps_of_all(&self) -> impl Iterator<Item = &Step> {
        self.tasks.iter().flatten()
    }
}
