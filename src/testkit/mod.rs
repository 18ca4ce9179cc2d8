//! Any store judged by the laws: it finds the bug, makes its history short, and explains it.
//!
//! Point it at a store of yours. Every store is tried on what the contract of [`Store`](crate::Store) asks
//! of all of them, and on what it promises beyond that. [`guide::testing_your_store`](crate::guide::testing_your_store)
//! leads through it; [`guide::testing`](crate::guide::testing) lists the laws.
//!
//! ```
//! use larder::testkit::check;
//! use larder::{Entry, Lru, Result, SetOutcome, Store};
//!
//! /// Forgets what version and tags were.
//! struct Careless(Lru<str, String>);
//!
//! impl Store for Careless {
//!     type Key = str;
//!     type Value = String;
//!
//!     async fn get(&self, key: &str) -> Result<Option<Entry<String>>> {
//!         self.0.get(key).await
//!     }
//!     async fn set(&self, key: &str, entry: Entry<String>) -> Result<SetOutcome> {
//!         let lifetime = entry.lifetime();
//!         self.0.set(key, Entry::new(entry.into_value(), lifetime)).await
//!     }
//!     async fn remove(&self, key: &str) -> Result<()> {
//!         self.0.remove(key).await
//!     }
//!     async fn clear(&self) -> Result<()> {
//!         self.0.clear().await
//!     }
//! }
//!
//! let report = check("careless", |_site| Careless(Lru::new(1_000))).cases(64).run();
//! let failure = report.failures().next().expect("it is");
//! assert_eq!(failure.law, "s1_every_field_comes_back");
//! assert_eq!(failure.steps, 2);
//! println!("{report}"); // `.assert()` in a test
//! ```
//!
//! # Checks
//!
//! | call | judges |
//! | --- | --- |
//! | [`conformance!`] | a store: one named test a law |
//! | [`check`], [`check_async`] | a store, by a builder: one report of all laws |
//! | [`check_with`] | the same, for keys and values of types that the kit does not know |
//! | [`crash_conformance!`], [`check_crashes`] | a durable store, whose process is killed |
//! | [`check_adapter`] | an adapter, over stores that the kit makes |
//! | [`check_chain`] | two tiers as one |
//! | [`check_engine`] | a cache: any settings, over any store |
//! | [`check_policy`] | a rule of eviction for [`Memory`](crate::Memory) |
//! | [`check_tags`] | whatever invalidates entries by their tags |
//! | [`check_stacks`] | compositions of all adapters and tiers, and the equations between them |
//!
//! # Building blocks
//!
//! For tests of your own:
//!
//! | block | is |
//! | --- | --- |
//! | [`Model`] | the simplest store that keeps every law |
//! | [`Faulty`], [`Faults`], [`Fault`] | a store that fails, waits, panics, tears, lies when it is told to |
//! | [`Minimal`] | a store without its overrides |
//! | [`Recorded`], [`History`] | calls written down, and whether a register explains them |
//! | [`Sim`], [`SimRuntime`], [`Task`], [`Stall`] | an executor on one thread and virtual time, which polls only who was woken |
//! | [`Schedule`], [`schedules`], [`seeds`], [`explore`], [`replay`] | who runs next: by chance, by a list, every way there is |
//! | [`Gate`], [`yield_now`] | points at which a task waits |
//! | [`SampleKey`], [`SampleValue`] | keys that stores mix up, values by number |
//! | [`keys`], [`values`], [`instants`], [`lifetimes`], [`entries`], [`histories`] | strategies for proptest |
//! | [`play`], [`answers`] | what a store answers to a history |
//! | [`ManualClock`](crate::ManualClock) | time that a test moves |
//!
//! # Environment
//!
//! | variable | sets |
//! | --- | --- |
//! | `LARDER_CASES` | cases a law; 256 unless told |
//! | `LARDER_SEED` | where cases are drawn from; 0 unless told |
//! | `LARDER_REPLAY` | the one case to run, as a failure prints it |
//!
//! Nothing else is read, and the same seed prints the same report. Only
//! [`real_time`](Check::real_time) and the law `s3_a_register_on_real_threads` leave anything to chance.

mod adapter;
mod chain;
mod check;
mod crash;
pub(crate) mod engine;
mod executor;
mod faulty;
mod history;
mod macros;
mod minimal;
mod model;
#[cfg(all(feature = "mutants", debug_assertions))]
#[doc(hidden)]
pub mod mutants;
mod policy;
mod race;
mod recorded;
mod report;
mod runner;
mod sample;
mod script;
mod stacks;
mod store;
mod strategies;
mod tags;

pub use adapter::{AdapterCheck, Inner, check_adapter};
pub use chain::{ChainCheck, check_chain};
pub use check::{Check, check, check_async, check_with};
#[doc(hidden)]
pub use check::{Session, configured};
pub use crash::check_crashes;
pub use engine::{EngineCheck, Name, Stack, check_engine};
pub use executor::{
    Explored, Gate, Schedule, Sim, SimRuntime, Stall, Task, explore, replay, schedules, seeds, yield_now,
};
pub use faulty::{Fault, Faults, Faulty};
pub use history::{Call, Event, History, Loss, Reply, Running, Violation};
pub use minimal::Minimal;
pub use model::Model;
pub use policy::check_policy;
pub use race::Tier;
pub use recorded::{Recorded, StoreHistory};
pub use report::{Failure, LawReport, Outcome, Report};
pub use sample::{SampleKey, SampleValue, Witness};
pub use store::{Order, Site};
pub use strategies::{Act, answers, entries, few_keys, histories, instants, keys, lifetimes, play, values};
pub use tags::{TagGround, TagStore, TagsCheck, check_tags};

#[doc(inline)]
pub use crate::__conformance as conformance;
#[doc(inline)]
pub use crate::__crash_conformance as crash_conformance;
#[cfg(test)]
pub(crate) use stacks::plan;
pub use stacks::{StackCheck, StackPlan, check_stacks, stacks};
