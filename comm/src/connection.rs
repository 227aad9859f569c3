//! A connection to a known peer: who it is, what it is for, how it ended.
//!
//! Streams are opened here and handed to [`crate::control`] and [`crate::data`]; what is said on them is not known here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

use crate::admission::{Place, Seat};
use crate::control::{ControlReceiver, ControlSender, StreamError};
use crate::identity::PeerIdentity;
use crate::plane::Plane;

/// Longest reason carried in a closing packet, in bytes.
const REASON_LIMIT: usize = 512;

/// Why this side closes a connection, as a number on the wire: the kind of the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CloseCode {
    Done = 0,
    Version = 1,
    Role = 2,
    Misbehaved = 3,
    Overflow = 4,
    Busy = 5,
}

impl CloseCode {
    pub(crate) fn of_number(number: u64) -> Option<Self> {
        let codes = [Self::Done, Self::Version, Self::Role, Self::Misbehaved, Self::Overflow, Self::Busy];
        codes.into_iter().find(|code| *code as u64 == number)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseKind {
    /// This side closed it.
    Here,
    /// The other side closed it, with a reason.
    Peer,
    /// The other side closed it for now: trying again later may help.
    Busy,
    /// The other side has been silent for too long: it died, or the network did.
    Silent,
    /// Anything else: it restarted, or broke the protocol.
    Broken,
}

/// How and why a connection ended, for a log or a person. Control characters in a peer's words are escaped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloseReason {
    /// How.
    pub kind: CloseKind,
    /// Why, in words.
    pub text: String,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            CloseKind::Peer | CloseKind::Busy => write!(f, "closed by the other side: {}", self.text),
            CloseKind::Here | CloseKind::Silent | CloseKind::Broken => f.write_str(&self.text),
        }
    }
}

impl From<quinn::ConnectionError> for CloseReason {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Error;
        let (kind, text) = match &error {
            Error::ApplicationClosed(close) => {
                let words = escaped(&close.reason);
                let is_busy = CloseCode::of_number(close.error_code.into_inner()) == Some(CloseCode::Busy);
                let kind = if is_busy { CloseKind::Busy } else { CloseKind::Peer };
                (kind, if words.is_empty() { "no reason given".to_owned() } else { words })
            }
            Error::LocallyClosed => (CloseKind::Here, "closed by this side".to_owned()),
            Error::TimedOut => (CloseKind::Silent, "no sign of life from the other side".to_owned()),
            Error::Reset => (
                CloseKind::Broken,
                "the other side does not know this connection any more: it was stopped for too long, or started anew".to_owned(),
            ),
            Error::ConnectionClosed(close) => {
                (CloseKind::Broken, format!("the other side's transport gave up: {}", escaped(close.to_string().as_bytes())))
            }
            Error::VersionMismatch | Error::TransportError(_) | Error::CidsExhausted => {
                (CloseKind::Broken, escaped(error.to_string().as_bytes()))
            }
        };
        Self { kind, text }
    }
}

/// A stranger's words made safe for a terminal.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars().take(REASON_LIMIT) {
        if character.is_control() { text.extend(character.escape_default()) } else { text.push(character) }
    }
    text
}

pub(crate) fn close(connection: &quinn::Connection, code: CloseCode, reason: &str) {
    let mut end = reason.len().min(REASON_LIMIT);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    connection.close(VarInt::from_u32(code as u32), &reason.as_bytes()[..end]);
}

/// A connection whose peer has shown a certificate with a role that may be here. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Connection {
    pub(crate) inner: quinn::Connection,
    pub(crate) plane: Plane,
    pub(crate) peer: PeerIdentity,
    /// Its place among the connections that the endpoint has let in; nothing when this side connected.
    pub(crate) _seat: Option<Arc<Seat>>,
}

impl Connection {
    /// Who the other end is.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// What the connection is for.
    #[must_use]
    pub fn plane(&self) -> Plane {
        self.plane
    }

    /// The other end's address.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// The estimated round trip time.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.inner.rtt()
    }

    /// End the connection now; what has not been sent is dropped. The other side is told `reason` (its first 512 bytes).
    pub fn close(&self, reason: &str) {
        close(&self.inner, CloseCode::Done, reason);
    }

    /// End the connection because there is no place for the peer now.
    pub fn close_busy(&self, reason: &str) {
        close(&self.inner, CloseCode::Busy, reason);
    }

    /// End the connection because the peer broke the protocol.
    pub fn close_misbehaved(&self, reason: &str) {
        close(&self.inner, CloseCode::Misbehaved, reason);
    }

    /// Wait for the end of the connection, whoever ends it.
    pub async fn closed(&self) -> CloseReason {
        self.inner.closed().await.into()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.close_reason().is_some()
    }

    /// How and why it ended, once it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.inner.close_reason().map(CloseReason::from)
    }

    /// Open the control stream; the side that connected does this. The peer sees it with the first frame.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open_control<Out, In>(&self) -> Result<(ControlSender<Out>, ControlReceiver<In>), StreamError> {
        let (send, receive) = self.inner.open_bi().await?;
        Ok(self.control(send, receive))
    }

    /// Wait for the peer's control stream; the side that accepted the connection does this.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn accept_control<Out, In>(&self) -> Result<(ControlSender<Out>, ControlReceiver<In>), StreamError> {
        let (send, receive) = self.inner.accept_bi().await?;
        Ok(self.control(send, receive))
    }

    fn control<Out, In>(&self, send: quinn::SendStream, receive: quinn::RecvStream) -> (ControlSender<Out>, ControlReceiver<In>) {
        let limit = self.plane.frame_limit();
        (ControlSender::new(self.inner.clone(), send, limit), ControlReceiver::new(receive, limit))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} {} at {})", self.plane, self.peer, self.remote_address())
    }
}

/// A connection on the join plane: the node at the other end has no certificate yet. See [`crate::join`].
pub struct JoinConnection {
    pub(crate) inner: quinn::Connection,
    pub(crate) place: Place,
}

impl JoinConnection {
    /// The other end's address.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// Refuse it; the other side is told `reason`.
    pub fn close(&self, reason: &str) {
        close(&self.inner, CloseCode::Done, reason);
    }
}

impl fmt::Debug for JoinConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinConnection({})", self.remote_address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_cannot_move_the_cursor() {
        assert_eq!(escaped(b"all well"), "all well");
        assert_eq!(escaped("ärger".as_bytes()), "ärger");
        assert_eq!(escaped(b"\x1b[2Jgone\n"), "\\u{1b}[2Jgone\\n");
        assert!(escaped(&[b'x'; 5000]).len() <= REASON_LIMIT);
    }

    #[test]
    fn codes_come_back() {
        for code in [CloseCode::Done, CloseCode::Version, CloseCode::Role, CloseCode::Busy] {
            assert_eq!(CloseCode::of_number(code as u64), Some(code));
        }
        assert_eq!(CloseCode::of_number(77), None);
    }
}
