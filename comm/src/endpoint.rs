//! One UDP socket, from which a node connects and on which it is connected to.
//!
//! A connection is handed out only after its peer has shown a certificate of the cluster, the certificate's role may be on
//! that plane, and both sides have named the same protocol version. Everything that fails before that is counted and
//! logged, and touches nobody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::{Mutex, mpsc};

use crate::admission::{Seats, Waiting};
use crate::connect::{self, ConnectError, ExpectedPeer};
use crate::connection::{CloseCode, Connection, JoinConnection, close};
use crate::greeting;
use crate::identity::{Identity, PeerIdentity};
use crate::limits::{LOADED_HANDSHAKE_TIMEOUT, MAX_ADDRESS_HANDSHAKES, MAX_ADDRESS_JOINING, MAX_JOINING};
use crate::plane::Plane;
use crate::quiet::Quiet;
use crate::tls;
use crate::tuning::{SocketBuffers, Tuning, bind_socket};

/// Connections that are ready and wait for [`Endpoint::accept`]; further ones wait in their handshake.
const READY_LIMIT: usize = 64;

/// An endpoint that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The identity or the settings are unusable.
    #[error("cannot set up encryption: {0}")]
    Setup(String),
}

/// What has come to an endpoint since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndpointStats {
    /// Connections handed out by [`Endpoint::accept`].
    pub n_accepted: u64,
    /// Handshakes that failed, wrong certificates, roles and versions included.
    pub n_failed: u64,
    /// Attempts turned away before any work, because there were too many.
    pub n_turned_away: u64,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    failed: AtomicU64,
    turned_away: AtomicU64,
}

/// Somebody connected.
#[derive(Debug)]
pub enum Incoming {
    /// A node of the cluster.
    Peer {
        /// The connection.
        connection: Connection,
        /// What it is for.
        plane: Plane,
        /// Who it is.
        peer: PeerIdentity,
    },
    /// A node that wants to become one; see [`crate::join::serve_join`].
    Join(JoinConnection),
}

struct Inner {
    quinn: quinn::Endpoint,
    identity: Option<Identity>,
    tuning: Tuning,
    buffers: SocketBuffers,
    counters: Arc<Counters>,
    ready: Mutex<mpsc::Receiver<Incoming>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.quinn.close(VarInt::from_u32(CloseCode::Done as u32), b"the process let go of its endpoint");
    }
}

/// One UDP socket with an identity. Clones share it; the last one to go closes all its connections.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

impl Endpoint {
    /// Open `address` (port 0 for any) and accept connections on `planes`; with none, it can only connect. Must be called in
    /// a tokio runtime, current-thread or not, that lives as long as the endpoint.
    ///
    /// # Errors
    /// When the address cannot be had or the identity is unusable.
    pub fn bind(address: SocketAddr, identity: &Identity, planes: &[Plane]) -> Result<Self, BindError> {
        Self::bind_with(address, identity, planes, Tuning::default())
    }

    /// As [`Endpoint::bind`], with other settings.
    ///
    /// # Errors
    /// When the address cannot be had or the identity is unusable.
    pub fn bind_with(address: SocketAddr, identity: &Identity, planes: &[Plane], tuning: Tuning) -> Result<Self, BindError> {
        Self::open(address, Some(identity), planes, tuning)
    }

    /// An endpoint for connecting to `remote` only: on a loopback address when `remote` is one.
    ///
    /// # Errors
    /// When no socket can be had or the identity is unusable.
    pub fn for_connecting_to(remote: SocketAddr, identity: &Identity) -> Result<Self, BindError> {
        Self::open(local_address_for(remote), Some(identity), &[], Tuning::default())
    }

    pub(crate) fn open(
        address: SocketAddr,
        identity: Option<&Identity>,
        planes: &[Plane],
        tuning: Tuning,
    ) -> Result<Self, BindError> {
        let socket_error = |source| BindError::Socket { address, source };
        let (socket, buffers) = bind_socket(address, tuning.socket_buffer_nbytes).map_err(socket_error)?;
        let mut server = None;
        if let Some(identity) = identity.filter(|_| !planes.is_empty()) {
            let crypto = tls::server(identity, planes).map_err(BindError::Setup)?;
            server = Some([false, true].map(|is_loopback| {
                let mut config = quinn::ServerConfig::with_crypto(Arc::clone(&crypto) as _);
                config.transport_config(Arc::new(tuning.stranger(is_loopback))).migration(false);
                config.max_incoming(tuning.max_handshakes * 4);
                Arc::new(config)
            }));
        }
        let config = tuning.endpoint().map_err(BindError::Setup)?;
        let server_config = server.as_ref().map(|[remote, _loopback]| quinn::ServerConfig::clone(remote));
        let quinn = quinn::Endpoint::new(config, server_config, socket, Arc::new(quinn::TokioRuntime)).map_err(socket_error)?;
        let (sender, ready) = mpsc::channel(READY_LIMIT);
        let counters = Arc::new(Counters::default());
        if let Some(configs) = server {
            let acceptor = Acceptor {
                quinn: quinn.clone(),
                configs,
                tuning: tuning.clone(),
                counters: Arc::clone(&counters),
                ready: sender,
                handshakes: Waiting::new(tuning.max_handshakes, MAX_ADDRESS_HANDSHAKES.min(tuning.max_handshakes)),
                door: Door {
                    planes: planes.into(),
                    tuning: tuning.clone(),
                    seats: Seats::default(),
                    joining: Waiting::new(MAX_JOINING, MAX_ADDRESS_JOINING),
                },
                quiet: Arc::default(),
            };
            tokio::spawn(acceptor.run());
        }
        let identity = identity.cloned();
        Ok(Self { inner: Arc::new(Inner { quinn, identity, tuning, buffers, counters, ready: Mutex::new(ready) }) })
    }

    /// The address it is bound to, with the real port.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.quinn.local_addr()
    }

    /// What the kernel granted in buffers.
    #[must_use]
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.inner.buffers
    }

    /// What has come so far.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        let counters = &self.inner.counters;
        EndpointStats {
            n_accepted: counters.accepted.load(Ordering::Relaxed),
            n_failed: counters.failed.load(Ordering::Relaxed),
            n_turned_away: counters.turned_away.load(Ordering::Relaxed),
        }
    }

    /// The next connection that passed its handshake and checks; `None` once the endpoint is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Incoming> {
        let incoming = self.inner.ready.lock().await.recv().await;
        if incoming.is_some() {
            self.inner.counters.accepted.fetch_add(1, Ordering::Relaxed);
        }
        incoming
    }

    /// Connect to `address` and make sure that it is `expected`. Gives up after [`Tuning::connect_timeout`].
    ///
    /// # Errors
    /// Every way in which this fails has its own variant, in words for the person who waits for it.
    pub async fn connect(&self, address: SocketAddr, plane: Plane, expected: ExpectedPeer) -> Result<Connection, ConnectError> {
        let Some(identity) = &self.inner.identity else {
            return Err(ConnectError::Local { address, reason: "this endpoint has no identity".to_owned() });
        };
        let crypto = tls::client(identity, plane).map_err(|reason| ConnectError::Local { address, reason })?;
        let (inner, peer) = self.dial(address, plane, crypto, &expected).await?;
        Ok(Connection { inner, plane, peer, _seat: None })
    }

    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        plane: Plane,
        crypto: Arc<quinn::crypto::rustls::QuicClientConfig>,
        expected: &ExpectedPeer,
    ) -> Result<(quinn::Connection, PeerIdentity), ConnectError> {
        let tuning = &self.inner.tuning;
        let mut config = quinn::ClientConfig::new(crypto);
        config.transport_config(Arc::new(tuning.transport(address.ip().is_loopback())));
        let attempt = connect::attempt(&self.inner.quinn, config, address, plane, expected);
        tokio::select! {
            biased;
            connected = attempt => connected,
            () = crate::reach::refused(address) => Err(ConnectError::Nobody { address }),
            () = tokio::time::sleep(tuning.connect_timeout) => {
                Err(ConnectError::Unreachable { address, waited: tuning.connect_timeout })
            }
        }
    }

    /// A connection whose greeting is left to the test.
    #[cfg(test)]
    pub(crate) async fn test_connect_without_greeting(&self, address: SocketAddr, plane: Plane) -> quinn::Connection {
        let identity = self.inner.identity.as_ref().unwrap();
        let mut config = quinn::ClientConfig::new(tls::client(identity, plane).unwrap());
        config.transport_config(Arc::new(self.inner.tuning.transport(true)));
        self.inner.quinn.connect_with(config, address, crate::identity::TLS_NAME).unwrap().await.unwrap()
    }

    /// Close all connections, tell their peers `reason`, and wait (at most a second) until they know.
    pub async fn shut_down(&self, reason: &str) {
        self.inner.quinn.close(VarInt::from_u32(CloseCode::Done as u32), reason.as_bytes());
        let _ = tokio::time::timeout(Duration::from_secs(1), self.inner.quinn.wait_idle()).await;
    }
}

/// Where to bind for connecting to `remote`.
pub(crate) fn local_address_for(remote: SocketAddr) -> SocketAddr {
    let ip = match remote.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}

/// Takes attempts in, and works on a bounded number of them at once.
struct Acceptor {
    quinn: quinn::Endpoint,
    /// For peers elsewhere, and for peers on loopback.
    configs: [Arc<quinn::ServerConfig>; 2],
    tuning: Tuning,
    counters: Arc<Counters>,
    ready: mpsc::Sender<Incoming>,
    handshakes: Waiting,
    door: Door,
    quiet: Arc<Quiet>,
}

/// Who is let in.
#[derive(Clone)]
struct Door {
    planes: Arc<[Plane]>,
    tuning: Tuning,
    seats: Seats,
    joining: Waiting,
}

impl Acceptor {
    async fn run(self) {
        while let Some(attempt) = self.quinn.accept().await {
            self.take(attempt);
        }
    }

    fn take(&self, attempt: quinn::Incoming) {
        let is_loaded = self.handshakes.len() > self.tuning.max_handshakes / 4;
        if self.quinn.open_connections() >= self.tuning.max_connections {
            self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            attempt.refuse();
            return;
        }
        if is_loaded && attempt.may_retry() && !attempt.remote_address_validated() {
            // Make it prove its address before anything is kept for it.
            self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            let _ = attempt.retry();
            return;
        }
        let address = attempt.remote_address();
        let place = self.handshakes.take(address.ip());
        let config = Arc::clone(&self.configs[usize::from(address.ip().is_loopback())]);
        let mut timeout = self.tuning.connect_timeout;
        if is_loaded {
            timeout = timeout.min(LOADED_HANDSHAKE_TIMEOUT);
        }
        let (door, quiet) = (self.door.clone(), Arc::clone(&self.quiet));
        let (counters, ready) = (Arc::clone(&self.counters), self.ready.clone());
        tokio::spawn(async move {
            let admitted = tokio::select! {
                admitted = tokio::time::timeout(timeout, door.admit(attempt, config)) => admitted.ok(),
                () = place.evicted() => None,
            };
            match admitted {
                // When nobody accepts any more the endpoint is going away, and dropping the connection closes it.
                Some(Ok(incoming)) => drop(ready.send(incoming).await),
                Some(Err(reason)) => {
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                    // A node that ends in the middle of it is nobody's fault.
                    if reason.starts_with("closed by the other side") {
                        tracing::debug!(%address, reason, "a connection attempt was given up");
                    } else if let Some(n_left_out) = quiet.may_say("refused", address.ip()) {
                        tracing::warn!(%address, reason, n_left_out, "refused a connection");
                    }
                }
                None => {
                    counters.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%address, "a connection attempt came to nothing");
                }
            }
            drop(place);
        });
    }
}

impl Door {
    /// Handshake, role, number of connections, version: in that order, and nothing is read from a peer whose role may not be here.
    async fn admit(&self, attempt: quinn::Incoming, config: Arc<quinn::ServerConfig>) -> Result<Incoming, String> {
        let connecting = attempt.accept_with(config).map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| crate::connection::CloseReason::from(error).to_string())?;
        let refuse = |code: CloseCode, reason: String| {
            close(&connection, code, &reason);
            Err(reason)
        };
        let Some(plane) = connect::plane_of(&connection).filter(|plane| self.planes.contains(plane)) else {
            return refuse(CloseCode::Role, "no such plane here".to_owned());
        };
        let address = connection.remote_address().ip();
        let peer = match connect::peer_of(&connection) {
            Ok(peer) => peer,
            Err(error) => return refuse(CloseCode::Role, error.to_string()),
        };
        if plane == Plane::Join {
            let place = self.joining.take(address);
            tokio::select! {
                greeted = greeting::answer(&connection) => greeted?,
                () = place.evicted() => return refuse(CloseCode::Busy, "too many nodes are joining; try again".to_owned()),
            }
            return Ok(Incoming::Join(JoinConnection { inner: connection, place }));
        }
        let Some(peer) = peer else {
            let reason = format!("{plane} is for nodes of this cluster, and no certificate was shown");
            return refuse(CloseCode::Role, reason);
        };
        if !plane.may_connect(peer.role) {
            return refuse(CloseCode::Role, format!("a {} may not connect on {plane}", peer.role));
        }
        let seat = match self.seats.take(plane, &peer, address) {
            Ok(seat) => Some(Arc::new(seat)),
            Err(reason) => return refuse(CloseCode::Busy, reason),
        };
        greeting::answer(&connection).await?;
        self.tuning.admit(&connection, plane, peer.role);
        let connection = Connection { inner: connection, plane, peer: peer.clone(), _seat: seat };
        Ok(Incoming::Peer { connection, plane, peer })
    }
}
