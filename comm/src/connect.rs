//! One attempt to connect, and every way in which it can fail, told so that a person knows what to do.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use rustls_pki_types::CertificateDer;

use crate::connection::{CloseCode, CloseReason, close, escaped};
use crate::greeting::{self, GreetingError};
use crate::identity::{IdentityError, PeerIdentity, Role};
use crate::message::PROTOCOL_VERSION;
use crate::plane::Plane;

/// Who should be at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpectedPeer {
    /// Its role.
    pub role: Role,
    /// Its name; `None` when any name will do.
    pub name: Option<String>,
}

impl ExpectedPeer {
    /// Any node with this role.
    #[must_use]
    pub fn any(role: Role) -> Self {
        Self { role, name: None }
    }

    /// The node with this role and name.
    #[must_use]
    pub fn named(role: Role, name: &str) -> Self {
        Self { role, name: Some(name.to_owned()) }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answered.
    #[error("no answer from {address} within {:.1} s; is it running, and is the UDP port open?", waited.as_secs_f64())]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// How long it was tried.
        waited: Duration,
    },
    /// The host says that nobody listens there.
    #[error("nobody listens at {address}")]
    Nobody {
        /// Where.
        address: SocketAddr,
    },
    /// The other side's certificate is not of the cluster this node belongs to, or is out of date.
    #[error("{address} does not belong to this node's cluster: its certificate was refused ({reason})")]
    CertificateRefused {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The other side refused this node's certificate.
    #[error("{address} refused this node's certificate ({reason})")]
    OwnCertificateRefused {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The other side is of the cluster, and somebody else than expected.
    #[error("{address} is {found}, expected was {expected}")]
    WrongPeer {
        /// Where.
        address: SocketAddr,
        /// Who should have been there.
        expected: String,
        /// Who is there.
        found: String,
    },
    /// The other side is something that does not serve this plane.
    #[error("{address} does not serve {plane}")]
    WrongPlane {
        /// Where.
        address: SocketAddr,
        /// The plane.
        plane: Plane,
    },
    /// The two programs are of different versions.
    #[error("{address} speaks another version of Rask's protocol: {reason}")]
    Version {
        /// Where.
        address: SocketAddr,
        /// Both versions, in words.
        reason: String,
    },
    /// The other side says that this node's role may not do that.
    #[error("{address} refused this node: {reason}")]
    RoleRefused {
        /// Where.
        address: SocketAddr,
        /// In the other side's words.
        reason: String,
    },
    /// The other side ended the connection for another reason.
    #[error("{address} ended the connection: {reason}")]
    Ended {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// This side could not even try.
    #[error("cannot connect to {address}: {reason}")]
    Local {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
}

impl ConnectError {
    /// Whether trying again would meet the same.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            ConnectError::CertificateRefused { .. }
            | ConnectError::OwnCertificateRefused { .. }
            | ConnectError::WrongPeer { .. }
            | ConnectError::WrongPlane { .. }
            | ConnectError::Version { .. }
            | ConnectError::RoleRefused { .. } => true,
            ConnectError::Nobody { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::Ended { .. }
            | ConnectError::Local { .. } => false,
        }
    }

    /// How much it says about why a scheduler with several addresses could not be reached: somebody who refuses says more than
    /// an address where nobody is.
    #[must_use]
    pub fn weight(&self) -> u32 {
        match self {
            ConnectError::Local { .. } => 0,
            ConnectError::Nobody { .. } => 1,
            ConnectError::Unreachable { .. } => 2,
            ConnectError::Ended { .. } => 3,
            ConnectError::CertificateRefused { .. }
            | ConnectError::OwnCertificateRefused { .. }
            | ConnectError::WrongPeer { .. }
            | ConnectError::WrongPlane { .. }
            | ConnectError::Version { .. }
            | ConnectError::RoleRefused { .. } => 4,
        }
    }
}

// TLS alerts as QUIC carries them: 0x100 and the number of the alert (RFC 8446, section 6; RFC 9001, section 4.8).
const FIRST_ALERT: u64 = 0x100;
const LAST_ALERT: u64 = 0x1ff;
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
const UNKNOWN_CA: u64 = 0x100 + 48;
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;
const CERTIFICATE_REQUIRED: u64 = 0x100 + 116;

fn alert_in_words(code: u64, fallback: String) -> String {
    match code {
        UNKNOWN_CA => "signed by another cluster's authority".to_owned(),
        CERTIFICATE_EXPIRED => "out of date".to_owned(),
        CERTIFICATE_REQUIRED => "none was shown".to_owned(),
        _ => fallback,
    }
}

fn explain(error: quinn::ConnectionError, address: SocketAddr, plane: Plane, waited: Duration) -> ConnectError {
    use quinn::ConnectionError as Error;
    match error {
        Error::TimedOut => ConnectError::Unreachable { address, waited },
        Error::TransportError(error) => match u64::from(error.code) {
            NO_APPLICATION_PROTOCOL => ConnectError::WrongPlane { address, plane },
            code @ FIRST_ALERT..=LAST_ALERT => {
                let reason = alert_in_words(code, escaped(error.reason.as_bytes()));
                ConnectError::CertificateRefused { address, reason }
            }
            _ => ConnectError::Ended { address, reason: escaped(error.to_string().as_bytes()) },
        },
        Error::ConnectionClosed(closed) => match u64::from(closed.error_code) {
            NO_APPLICATION_PROTOCOL => ConnectError::WrongPlane { address, plane },
            code @ FIRST_ALERT..=LAST_ALERT => {
                let reason = alert_in_words(code, escaped(&closed.reason));
                ConnectError::OwnCertificateRefused { address, reason }
            }
            _ => ConnectError::Ended { address, reason: escaped(closed.to_string().as_bytes()) },
        },
        Error::ApplicationClosed(closed) => {
            let reason = escaped(&closed.reason);
            match CloseCode::of_number(closed.error_code.into_inner()) {
                Some(CloseCode::Version) => ConnectError::Version { address, reason },
                Some(CloseCode::Role) => ConnectError::RoleRefused { address, reason },
                Some(CloseCode::Done | CloseCode::Misbehaved | CloseCode::Overflow | CloseCode::Busy) | None => {
                    ConnectError::Ended { address, reason }
                }
            }
        }
        other @ (Error::VersionMismatch | Error::Reset | Error::LocallyClosed | Error::CidsExhausted) => {
            ConnectError::Ended { address, reason: CloseReason::from(other).text }
        }
    }
}

/// The plane that the handshake agreed on.
pub(crate) fn plane_of(connection: &quinn::Connection) -> Option<Plane> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Plane::of_protocol(data.protocol.as_deref()?)
}

/// Who the certificate shown in the handshake says the peer is; `None` when it showed none.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Result<Option<PeerIdentity>, IdentityError> {
    let Some(identity) = connection.peer_identity() else { return Ok(None) };
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
    let leaf = chain.ok().and_then(|chain| chain.first().cloned());
    leaf.map(|leaf| PeerIdentity::of_certificate(&leaf)).transpose()
}

/// Connect, check who is there, and greet. The caller bounds the time.
pub(crate) async fn attempt(
    endpoint: &quinn::Endpoint,
    config: quinn::ClientConfig,
    address: SocketAddr,
    plane: Plane,
    expected: &ExpectedPeer,
) -> Result<(quinn::Connection, PeerIdentity), ConnectError> {
    let began = std::time::Instant::now();
    let local = |reason: String| ConnectError::Local { address, reason };
    let connecting =
        endpoint.connect_with(config, address, crate::identity::TLS_NAME).map_err(|error| local(error.to_string()))?;
    let connection = connecting.await.map_err(|error| explain(error, address, plane, began.elapsed()))?;
    let found = match peer_of(&connection) {
        Ok(Some(peer)) => peer,
        Ok(None) => return Err(local("the other side showed no certificate".to_owned())),
        Err(error) => {
            close(&connection, CloseCode::Role, &error.to_string());
            return Err(ConnectError::CertificateRefused { address, reason: error.to_string() });
        }
    };
    if found.role != expected.role || expected.name.as_ref().is_some_and(|name| *name != found.name) {
        let wanted = match &expected.name {
            Some(name) => format!("{} \"{}\"", expected.role, name.escape_debug()),
            None => format!("a {}", expected.role),
        };
        close(&connection, CloseCode::Role, &format!("expected {wanted} here, not {found}"));
        return Err(ConnectError::WrongPeer { address, expected: wanted, found: found.to_string() });
    }
    match greeting::offer(&connection).await {
        Ok(()) => Ok((connection, found)),
        Err(GreetingError::Lost(error)) => Err(explain(error, address, plane, began.elapsed())),
        Err(GreetingError::Version(version)) => {
            let reason = format!("it speaks version {version}, this program version {PROTOCOL_VERSION}");
            close(&connection, CloseCode::Version, &reason);
            Err(ConnectError::Version { address, reason })
        }
        Err(GreetingError::Nonsense) => {
            close(&connection, CloseCode::Misbehaved, "no greeting");
            Err(ConnectError::Ended { address, reason: "it does not speak Rask's protocol".to_owned() })
        }
    }
}
