//! The first bytes on every connection: both sides name their protocol version, before any message is decoded.
//!
//! The side that connects sends a mark and its version on a stream of its own; the other side answers the same way, or
//! closes the connection with a reason. So a refusal, whatever its cause, has reached the one who connected when connecting
//! ends, and versions can be told apart even when not one message has the same layout.

use crate::connection::{CloseCode, close};
use crate::message::PROTOCOL_VERSION;

const MARK: [u8; 4] = *b"RASK";

fn greeting() -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&MARK);
    bytes[4..].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    bytes
}

fn version_in(bytes: [u8; 8]) -> Option<u32> {
    let [a, b, c, d, version @ ..] = bytes;
    ([a, b, c, d] == MARK).then(|| u32::from_le_bytes(version))
}

/// How a greeting failed, for the side that connected.
pub(crate) enum GreetingError {
    /// The connection ended; its reason says why.
    Lost(quinn::ConnectionError),
    /// The other side speaks another version.
    Version(u32),
    /// The other side does not greet.
    Nonsense,
}

/// Greet, and wait for the answer.
pub(crate) async fn offer(connection: &quinn::Connection) -> Result<(), GreetingError> {
    let lost = |connection: &quinn::Connection| connection.close_reason().map_or(GreetingError::Nonsense, GreetingError::Lost);
    let (mut send, mut receive) = connection.open_bi().await.map_err(GreetingError::Lost)?;
    send.write_all(&greeting()).await.map_err(|_| lost(connection))?;
    let mut answer = [0; 8];
    receive.read_exact(&mut answer).await.map_err(|_| lost(connection))?;
    match version_in(answer) {
        Some(PROTOCOL_VERSION) => Ok(()),
        Some(version) => Err(GreetingError::Version(version)),
        None => Err(GreetingError::Nonsense),
    }
}

/// Wait for the greeting and answer it; closes the connection and says why when the versions differ.
pub(crate) async fn answer(connection: &quinn::Connection) -> Result<(), String> {
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    let mut offer = [0; 8];
    receive.read_exact(&mut offer).await.map_err(|error| error.to_string())?;
    match version_in(offer) {
        Some(PROTOCOL_VERSION) => send.write_all(&greeting()).await.map_err(|error| error.to_string()),
        Some(version) => {
            let reason = format!("this side speaks version {PROTOCOL_VERSION} of Rask's protocol, yours is {version}");
            close(connection, CloseCode::Version, &reason);
            Err(format!("the other side speaks version {version} of Rask's protocol, this one {PROTOCOL_VERSION}"))
        }
        None => {
            close(connection, CloseCode::Misbehaved, "no greeting");
            Err("no greeting".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_carry_the_version() {
        assert_eq!(version_in(greeting()), Some(PROTOCOL_VERSION));
        assert_eq!(version_in(*b"RASK\x07\0\0\0"), Some(7));
        assert_eq!(version_in(*b"HTTP\x07\0\0\0"), None);
    }
}
