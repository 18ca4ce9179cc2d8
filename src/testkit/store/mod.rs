//! The store half of the kit: laws S1 to S12, and those of a stack that a single store can break.

mod facts;
mod lab;
mod laws;
mod plan;
mod trace;
mod world;

pub(crate) use facts::Facts;
pub use facts::Order;
pub(crate) use lab::{Lab, Lane};
pub(crate) use laws::all;
pub(crate) use plan::{Draft, INSTANTS, LABELS, Op, fixed};
pub(crate) use trace::One;
pub use world::Site;
pub(crate) use world::{Aside, Cast, Instance, Make, Role, Shape, Typed};
