//! One thread, a schedule, virtual time: where the kit runs tasks that are to interleave.

mod gate;
mod schedule;
mod sim;

pub use gate::{Gate, yield_now};
pub(crate) use schedule::split_mix;
pub use schedule::{Explored, Schedule, explore, replay, schedules, seeds};
pub use sim::{Sim, SimRuntime, Stall, Task};
