//! Connections to other workers' data planes, one a peer, made when first needed, and links to those on this host.
//!
//! Callers that want the same peer at the same time share one attempt, and its failure. A connection that has ended is
//! replaced at the next call. Trying again after a failure is the caller's decision.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use crate::connect::{ConnectError, ExpectedPeer};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::handover::{Handover, Link, Linked};
use crate::identity::Role;
use crate::plane::Plane;

type Attempt = Shared<BoxFuture<'static, Result<Connection, ConnectError>>>;

/// Time between two attempts at a link; it doubles with each up to sixty-four times that.
const RELINK_AFTER: Duration = Duration::from_secs(1);

/// One peer.
struct Entry {
    attempt: Attempt,
    /// Agreeing on a link, once somebody has wanted one.
    linking: Option<Linking>,
}

/// The last attempt at a link on a connection.
struct Linking {
    outcome: Shared<BoxFuture<'static, Linked>>,
    begun: Instant,
    n_before: u32,
}

impl Linking {
    /// The link, if there is one that works.
    fn link(&self) -> Option<Link> {
        self.outcome.peek().cloned().and_then(Linked::usable)
    }

    /// Whether another attempt is worth while: this one failed, or its link broke, and that was not just now.
    fn is_to_be_repeated(&self) -> bool {
        let is_over = match self.outcome.peek() {
            None | Some(Linked::Unwanted) => false,
            Some(Linked::Failed) => true,
            Some(Linked::Link(link)) => link.is_broken(),
        };
        is_over && self.begun.elapsed() >= RELINK_AFTER * (1 << self.n_before.min(6))
    }
}

/// The address and the certificate name of a peer.
type Key = (SocketAddr, String);

/// A cache of connections to workers. Clones share it.
#[derive(Clone)]
pub struct Peers {
    endpoint: Endpoint,
    handover: Option<Handover>,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
}

impl Peers {
    /// An empty cache that connects from `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, handover: None, entries: Arc::default() }
    }

    /// The same, and links by `handover` to peers on this host.
    #[must_use]
    pub fn with_handover(self, handover: Option<Handover>) -> Self {
        Self { handover, ..self }
    }

    /// The connection to the worker `name` at `address`, made now if there is none. Cancel-safe: an attempt goes on whoever waits
    /// for it, so that nobody meets the end of one that was begun long ago.
    ///
    /// # Errors
    /// When the attempt that this call made or shared fails.
    pub async fn get(&self, address: SocketAddr, name: &str) -> Result<Connection, ConnectError> {
        let attempt = self.attempt(address, name);
        attempt.await
    }

    /// The link to a peer, agreed on now if that has not been tried on this connection, or not lately. `None` when there is none,
    /// or the peer cannot be reached.
    pub async fn link(&self, address: SocketAddr, name: &str) -> Option<Link> {
        let handover = self.handover.clone()?;
        let attempt = self.attempt(address, name);
        let linking = {
            let mut entries = self.lock();
            let entry = entries.get_mut(&(address, name.to_owned()))?;
            let n_before = match &entry.linking {
                Some(linking) if !linking.is_to_be_repeated() => None,
                Some(linking) => Some(linking.n_before + 1),
                None => Some(0),
            };
            if let Some(n_before) = n_before {
                let link = async move {
                    match attempt.await {
                        Ok(connection) => handover.connect(&connection).await,
                        Err(_) => Linked::Failed,
                    }
                };
                entry.linking = Some(Linking { outcome: link.boxed().shared(), begun: Instant::now(), n_before });
            }
            entry.linking.as_ref()?.outcome.clone()
        };
        linking.await.usable()
    }

    /// The link to a peer, if it is there already.
    #[must_use]
    pub fn ready_link(&self, address: SocketAddr, name: &str) -> Option<Link> {
        self.handover.as_ref()?;
        let entries = self.lock();
        entries.get(&(address, name.to_owned()))?.linking.as_ref()?.link()
    }

    /// Forget the connection to a peer (it is closed once nobody uses it).
    pub fn forget(&self, address: SocketAddr, name: &str) {
        self.lock().remove(&(address, name.to_owned()));
    }

    /// Connections and attempts that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self, address: SocketAddr, name: &str) -> Attempt {
        let mut entries = self.lock();
        let key = (address, name.to_owned());
        if let Some(entry) = entries.get(&key)
            && is_usable(&entry.attempt)
        {
            return entry.attempt.clone();
        }
        // A new attempt is rare enough to clear away what has died since the last.
        entries.retain(|_key, entry| is_usable(&entry.attempt));
        let (endpoint, expected) = (self.endpoint.clone(), ExpectedPeer::named(Role::Worker, name));
        let attempt = async move { endpoint.connect(address, Plane::Data, expected).await }.boxed().shared();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(attempt.clone().map(drop));
        }
        entries.insert(key, Entry { attempt: attempt.clone(), linking: None });
        attempt
    }
}

/// Still being made, or made and alive.
fn is_usable(attempt: &Attempt) -> bool {
    match attempt.peek() {
        None => true,
        Some(Ok(connection)) => !connection.is_closed(),
        Some(Err(_)) => false,
    }
}
