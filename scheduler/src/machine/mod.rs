//! The scheduler's decisions as a pure state machine.

pub mod event;

pub use event::{Actions, Event, Time};
