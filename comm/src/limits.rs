//! All limits on what peers may send, hold and ask for, in one place, with the reason for each. `docs/security.md` lists them for
//! operators; a refusal tells the limit and the count.
//!
//! The rule behind them: nothing that arrives costs more than its bytes times a small constant before it is admitted, and one
//! peer's message never holds what others wait for longer than a few milliseconds.

use std::time::Duration;

use crate::plane::Plane;

pub use rask_graphs::limits::*;

/// Handshakes under way from one address; loopback, where all have one, is excepted.
pub const MAX_ADDRESS_HANDSHAKES: usize = 32;

/// While more than a quarter of all handshakes that may be under way are, one that takes longer than this is ended.
pub const LOADED_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Nodes that are joining at once, and those of one address.
pub const MAX_JOINING: usize = 64;
/// See [`MAX_JOINING`].
pub const MAX_ADDRESS_JOINING: usize = 8;

/// Bytes that a peer may have on the way before it is let in, and ever if it is joining. The streams that it may open: the one that
/// it greets on, and one to join on.
pub const STRANGER_WINDOW_NBYTES: u32 = 64 << 10;
/// See [`STRANGER_WINDOW_NBYTES`].
pub const STRANGER_STREAMS: u32 = 2;

/// Bytes that a peer may have on the way on a control plane, and the streams that it may open there.
pub const CONTROL_WINDOW_NBYTES: u32 = 2 << 20;
/// See [`CONTROL_WINDOW_NBYTES`].
pub const CONTROL_STREAMS: u32 = 2;

/// Connections from one address; loopback, where all have one, is excepted.
pub const MAX_ADDRESS_CONNECTIONS: usize = 1_024;

/// Connections of one key, and of all keys with one name and role, on one plane of an endpoint.
#[must_use]
pub fn max_connections_of(plane: Plane) -> (usize, usize) {
    match plane {
        Plane::Client | Plane::Data => (32, 256),
        // One, and those before it that have not been noticed to be dead.
        Plane::Worker => (8, 8),
        Plane::Join => (MAX_JOINING, MAX_JOINING),
    }
}

/// Between two lines in the log of one kind about one address.
pub const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Longest hello, in bytes: versions, a name and, of a worker, [`MAX_WORKER_RESOURCES`] resources with names.
pub const HELLO_NBYTES: usize = 16 << 10;

/// How long whoever has connected may take to say who it is.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest frame of a viewer, in bytes: it asks for the status and says nothing else.
pub const VIEWER_FRAME_NBYTES: usize = 64 << 10;

/// Longer frames wait for room of [`ARRIVING_NBYTES`] a certificate before they are read.
pub const LONG_FRAME_NBYTES: usize = 1 << 20;

/// Bytes of long frames that may be on their way from all conversations of one certificate together.
pub const ARRIVING_NBYTES: usize = crate::codec::GRAPH_FRAME_LIMIT;

/// A long frame is here after this time, and one second more for each of so many bytes, or its conversation ends.
pub const LONG_FRAME_GRACE: Duration = Duration::from_secs(10);
/// See [`LONG_FRAME_GRACE`].
pub const LEAST_FRAME_NBYTES_PER_SECOND: usize = 1 << 20;

/// Longest frame that is decoded on the network's thread, in bytes. Longer ones are decoded elsewhere, [`MAX_DECODERS`] at once.
pub const INLINE_FRAME_NBYTES: usize = 64 << 10;

/// Long frames that are decoded, and graphs that are checked, at once.
pub const MAX_DECODERS: usize = 2;

/// What is handled of one peer's messages before others get their turn, in messages and in tasks that they name.
pub const TURN_WEIGHT: usize = 1_024;

/// Parts of one peer's frames, of [`TURN_WEIGHT`] each, that wait for the hub.
pub const MAX_PARTS_WAITING: usize = 2;

/// Replies that wait for a client that does not read, in bytes, before nothing more is read from it.
pub const MAX_REPLIES_NBYTES: usize = 8 << 20;

/// Questions for the status that one client may have open. More end the conversation.
pub const MAX_STATUS_REQUESTS: usize = 64;

/// How often one client is told the status at most.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(10);

/// Lines of each kind in a status; of the rest the number is told.
pub const MAX_STATUS_GRAPHS: usize = 4_096;
/// As [`MAX_STATUS_GRAPHS`], of wishes that nobody fulfils.
pub const MAX_STATUS_UNMET: usize = 20;

/// Different wishes for resources and workers in all graphs of one owner together.
pub const MAX_OWNER_WISHES: u32 = 1_024;

/// Most resources that a worker offers.
pub const MAX_WORKER_RESOURCES: usize = 64;

/// Most workers that a scatter names.
pub const MAX_SPREAD_WORKERS: usize = 4_096;

/// Longest request on the data plane, in bytes: it names a peer, or a list of results and what they are granted by.
pub const REQUEST_NBYTES: usize = 4 << 20;

/// Bytes of lists of results that are being answered on one connection; further requests wait. Counted in units.
pub const MAX_REQUESTED_NBYTES: usize = 8 << 20;
/// See [`MAX_REQUESTED_NBYTES`].
pub const LIST_UNIT_NBYTES: usize = 1 << 10;

/// What may be on its way out of a worker at once, as a share of its memory limit: one in so many. Smaller results than
/// [`MIN_SENT_NBYTES`] do not count.
pub const SENDING_SHARE: u64 = 8;
/// See [`SENDING_SHARE`].
pub const MIN_SENT_NBYTES: u64 = 128 << 10;
/// The share of that which one guest may have: one in so many.
pub const GUEST_SHARE: u64 = 4;

/// Bytes that are kept for a client on one connection of the data plane until it has acknowledged them.
pub const CLIENT_SEND_WINDOW_NBYTES: u64 = 8 << 20;

/// Results that one peer may watch for at a worker; more end the conversation.
pub const MAX_WATCHES: usize = 1 << 19;

/// Values of gather groups that are spread out for runs at once at a worker without a memory limit.
pub const MAX_SPREAD_INPUTS: u64 = 1 << 22;

/// What a value takes that is spread out for a run, in bytes, as the ledger counts it.
pub const SPREAD_INPUT_NBYTES: u64 = 96;

/// The share of a worker's memory limit that spread-out values may take: one in so many.
pub const SPREAD_SHARE: u64 = 16;
