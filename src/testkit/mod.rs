//! Any store, any stack, judged by the laws. (Front page to come.)

pub(crate) mod engine;
mod executor;
mod faulty;
mod history;
mod minimal;
mod model;
#[cfg(all(feature = "mutants", debug_assertions))]
#[doc(hidden)]
pub mod mutants;
mod recorded;
mod report;
mod runner;

pub use engine::{EngineCheck, Name, Stack, check_engine};
pub use executor::{
    Explored, Gate, Schedule, Sim, SimRuntime, Stall, Task, explore, replay, schedules, seeds, yield_now,
};
pub use faulty::{Fault, Faults, Faulty};
pub use history::{Call, Event, History, Loss, Reply, Running, Violation};
pub use minimal::Minimal;
pub use model::Model;
pub use recorded::{Recorded, StoreHistory};
pub use report::{Failure, LawReport, Outcome, Report};
