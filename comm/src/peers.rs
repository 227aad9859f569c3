//! Connections to other workers' data planes, one a peer, made when first needed.
//!
//! Callers that want the same peer at the same time share one attempt, and its failure. A connection that has ended is
//! replaced at the next call. Trying again after a failure is the caller's decision.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use crate::connect::{ConnectError, ExpectedPeer};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::identity::Role;
use crate::plane::Plane;

type Attempt = Shared<BoxFuture<'static, Result<Connection, ConnectError>>>;

/// The address and the certificate name of a peer.
type Key = (SocketAddr, String);

/// A cache of connections to workers. Clones share it.
#[derive(Clone)]
pub struct Peers {
    endpoint: Endpoint,
    attempts: Arc<Mutex<HashMap<Key, Attempt>>>,
}

impl Peers {
    /// An empty cache that connects from `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, attempts: Arc::default() }
    }

    /// The connection to the worker `name` at `address`, made now if there is none. Cancel-safe; an attempt nobody waits for
    /// rests until somebody does.
    ///
    /// # Errors
    /// When the attempt that this call made or shared fails.
    pub async fn get(&self, address: SocketAddr, name: &str) -> Result<Connection, ConnectError> {
        let attempt = self.attempt(address, name);
        attempt.await
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self, address: SocketAddr, name: &str) -> Attempt {
        let mut attempts = self.lock();
        let key = (address, name.to_owned());
        if let Some(attempt) = attempts.get(&key)
            && is_usable(attempt)
        {
            return attempt.clone();
        }
        // A new attempt is rare enough to clear away what has died since the last.
        attempts.retain(|_key, attempt| is_usable(attempt));
        let (endpoint, expected) = (self.endpoint.clone(), ExpectedPeer::named(Role::Worker, name));
        let attempt = async move { endpoint.connect(address, Plane::Data, expected).await }.boxed().shared();
        attempts.insert(key, attempt.clone());
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
