//! The scheduler: takes graphs from clients, gives runs to workers, knows where every result is.
//!
//! `machine` decides and is pure: no clock, thread, socket or randomness of its own, so the same bytes in give the same
//! bytes out, in production as in simulation. `server` is the tokio shell around it.

pub mod machine;
pub mod server;
