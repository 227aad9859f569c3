//! How nodes speak: messages, codec, QUIC with mutual TLS, cluster identities and join tokens.
//!
//! The only crate that names quinn and the only one that names bincode. Results' bytes never pass through the codec; they
//! travel on the data plane as checksummed buffers. Nothing here decides anything: policy lives in the machines.
//!
//! Everything works on a current-thread tokio runtime and on a multi-threaded one.

mod admission;
mod aligned;
pub mod authority;
pub mod codec;
pub mod connect;
pub mod connection;
pub mod control;
pub mod data;
pub mod endpoint;
mod failure;
pub mod gate;
pub mod grant;
mod greeting;
pub mod handover;
pub mod host;
pub mod identity;
pub mod join;
pub mod limits;
pub mod message;
pub mod outbox;
pub mod peers;
pub mod plane;
mod private;
mod quiet;
pub mod reach;
mod report;
mod state;
mod throw_away;
mod ticket;
pub mod time;
mod tls;
pub mod token;
pub mod tuning;
pub mod upload;
pub mod watch;
pub mod words;

pub use authority::{Authority, AuthorityError, StateDir};
pub use connect::{ConnectError, ExpectedPeer};
pub use connection::{CloseKind, CloseReason, Connection, JoinConnection};
pub use control::{ControlReceiver, ControlSender, Frame, ReceiveError, SendError, StreamError};
pub use data::{FetchError, Fetched, PartRequest, PartSource, fetch, serve_data};
pub use endpoint::{BindError, Endpoint, EndpointStats, Incoming};
pub use grant::{Grant, Grants, SecretKey, WorkerKeys};
pub use handover::{Handover, Link, Linked};
pub use host::{host_identity, host_name, process_name};
pub use identity::{Identity, IdentityError, KeyId, Origin, Owner, PeerIdentity, Role};
pub use join::{JoinError, join_cluster, obtain_identity, serve_join};
pub use outbox::{Outbox, OutboxError, PushError};
pub use peers::Peers;
pub use plane::Plane;
pub use private::exposed_mode;
pub use quiet::Quiet;
pub use throw_away::ThrowAwayState;
pub use ticket::Ticket;
pub use token::{BadToken, CreateTokenError, Token, TokenId, TokenRecord, TokenRefusal, TokenStore};
pub use tuning::{SocketBuffers, Tuning};
pub use upload::{Admitted, Offer, OfferedItem, UploadError, upload};
pub use watch::{FromWatcher, News, Pusher, Watch, WatchError, WatchHello, Watcher};

#[cfg(test)]
mod tests;
