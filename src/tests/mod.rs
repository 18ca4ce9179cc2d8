//! The laws of `docs/semantics.md`, over every store and stack of this crate, and what it takes to test
//! them: schedules, faults, a model.

mod faulty;
mod gate;
mod model;
mod schedule;
mod sim;
mod toy;

mod rig;

mod chain_laws;
mod kit;
