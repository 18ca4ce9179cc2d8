//! Any store, any stack, judged by the laws. (Front page to come.)

mod adapter;
mod chain;
mod check;
mod crash;
mod executor;
mod faulty;
mod history;
mod macros;
mod minimal;
mod model;
#[cfg(all(feature = "mutants", debug_assertions))]
#[doc(hidden)]
pub mod mutants;
mod race;
mod recorded;
mod report;
mod runner;
mod sample;
mod store;
mod strategies;

pub use check::{Check, check, check_async, check_with};
#[doc(hidden)]
pub use check::{Session, configured};
pub use crash::check_crashes;
mod script;
mod stacks;

pub use adapter::{AdapterCheck, Inner, check_adapter};
pub use chain::{ChainCheck, check_chain};
pub use executor::{
    Explored, Gate, Schedule, Sim, SimRuntime, Stall, Task, explore, replay, schedules, seeds, yield_now,
};
pub use faulty::{Fault, Faults, Faulty};
pub use history::{Call, Event, History, Loss, Reply, Running, Violation};
pub use minimal::Minimal;
pub use model::Model;
pub use race::Tier;
pub use recorded::{Recorded, StoreHistory};
pub use report::{Failure, LawReport, Outcome, Report};
pub use sample::{SampleKey, SampleValue, Witness};
pub use store::{Order, Site};
pub use strategies::{Act, answers, entries, few_keys, histories, instants, keys, lifetimes, play, values};

#[doc(inline)]
pub use crate::__conformance as conformance;
#[doc(inline)]
pub use crate::__crash_conformance as crash_conformance;
#[cfg(test)]
pub(crate) use stacks::plan;
pub use stacks::{StackCheck, StackPlan, check_stacks, stacks};
