//! The planes a connection can belong to, and which roles may meet on each.

use std::fmt;

use crate::codec::{FRAME_LIMIT, GRAPH_FRAME_LIMIT};
use crate::identity::Role;
use crate::limits::VIEWER_FRAME_NBYTES;

/// What a connection is for. Agreed on in the TLS handshake (ALPN), so it is known before anything is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Plane {
    /// A worker and its scheduler.
    Worker,
    /// A client and the scheduler.
    Client,
    /// Whoever fetches results, and the worker that holds them.
    Data,
    /// A node without a certificate, and the scheduler that may sign it one.
    Join,
}

impl Plane {
    /// All planes.
    pub const ALL: [Plane; 4] = [Plane::Worker, Plane::Client, Plane::Data, Plane::Join];

    /// Its name in the TLS handshake.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Plane::Worker => "rask-worker/1",
            Plane::Client => "rask-client/1",
            Plane::Data => "rask-data/1",
            Plane::Join => "rask-join/1",
        }
    }

    pub(crate) fn of_protocol(protocol: &[u8]) -> Option<Self> {
        Plane::ALL.into_iter().find(|plane| plane.protocol().as_bytes() == protocol)
    }

    /// Whether a node with this certificate may open such a connection.
    #[must_use]
    pub fn may_connect(self, role: Role) -> bool {
        match self {
            Plane::Worker => role == Role::Worker,
            Plane::Client => matches!(role, Role::Client | Role::Viewer | Role::Admin),
            Plane::Data => matches!(role, Role::Worker | Role::Client | Role::Admin),
            Plane::Join => false,
        }
    }

    /// Longest control frame that a peer of this role may send, in bytes.
    #[must_use]
    pub fn frame_limit_of(self, role: Role) -> usize {
        match (self, role) {
            (Plane::Client, Role::Viewer) => VIEWER_FRAME_NBYTES,
            (_, Role::Scheduler | Role::Worker | Role::Client | Role::Viewer | Role::Admin) => self.frame_limit(),
        }
    }

    /// Longest control frame of anybody, in bytes.
    #[must_use]
    pub fn frame_limit(self) -> usize {
        match self {
            Plane::Client => GRAPH_FRAME_LIMIT,
            Plane::Worker | Plane::Data => FRAME_LIMIT,
            Plane::Join => 64 << 10,
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_connect() {
        let allowed = |plane: Plane| -> Vec<Role> { Role::ALL.into_iter().filter(|role| plane.may_connect(*role)).collect() };
        assert_eq!(allowed(Plane::Worker), [Role::Worker]);
        assert_eq!(allowed(Plane::Client), [Role::Client, Role::Viewer, Role::Admin]);
        assert_eq!(allowed(Plane::Data), [Role::Worker, Role::Client, Role::Admin]);
        assert_eq!(allowed(Plane::Join), []);
    }

    #[test]
    fn protocols_are_told_apart() {
        for plane in Plane::ALL {
            assert_eq!(Plane::of_protocol(plane.protocol().as_bytes()), Some(plane));
        }
        assert_eq!(Plane::of_protocol(b"h3"), None);
    }
}
