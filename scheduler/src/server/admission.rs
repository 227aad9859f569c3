//! Whose certificates are still good: those made by a token that was revoked since are not.
//!
//! Asked when a node says hello, and for all that are connected every [`INTERVAL`]. What is asked are files, so never on the
//! network's thread. While they cannot be read, what was read last holds.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rask_comm::connection::Connection;
use rask_comm::{Authority, AuthorityError, Origin, StateDir, TokenId, TokenStore};
use tokio::sync::mpsc;

use super::hub::News;

/// How long a revoked token's nodes may stay.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is said to those that have to go.
pub(super) const REVOKED: &str = "the token that it joined by was revoked";

pub(super) struct Admission {
    state: StateDir,
    fingerprint: String,
    revoked: Mutex<BTreeSet<TokenId>>,
}

impl Admission {
    pub(super) fn new(state: StateDir, authority: &Authority) -> Self {
        Self { state, fingerprint: authority.fingerprint(), revoked: Mutex::default() }
    }

    /// Whether the peer may stay; it is told why not, and the connection closed.
    pub(super) async fn admits(self: &Arc<Self>, connection: &Connection) -> bool {
        let Origin::Token(token) = connection.peer().origin else { return true };
        if !self.read().await.contains(&token) {
            return true;
        }
        tracing::warn!(peer = %connection.peer(), %token, "refused a node: {REVOKED}");
        connection.close_misbehaved(REVOKED);
        false
    }

    /// Look from time to time, for ever, and tell the hub who has to go.
    pub(super) async fn watch(self: Arc<Self>, news: mpsc::Sender<News>) {
        let mut has_authority = true;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let revoked = self.read().await;
            if !revoked.is_empty() && news.send(News::Revoked(revoked)).await.is_err() {
                return;
            }
            let this = Arc::clone(&self);
            let looking = tokio::task::spawn_blocking(move || this.look_for_authority());
            let problem = looking.await.unwrap_or(None);
            if let (Some(problem), true) = (&problem, has_authority) {
                tracing::error!(
                    "{problem}: no node of this user can join any more, and no new token works; start the scheduler again"
                );
            }
            has_authority = problem.is_none();
        }
    }

    /// What is wrong with the authority on the disk, if anything is.
    fn look_for_authority(&self) -> Option<String> {
        match Authority::open(&self.state) {
            Ok(authority) if authority.fingerprint() == self.fingerprint => None,
            Ok(_) => Some("another authority is in the place of this cluster's".to_owned()),
            Err(error) => Some(format!("this cluster's authority is gone from the disk ({error})")),
        }
    }

    async fn read(self: &Arc<Self>) -> BTreeSet<TokenId> {
        let this = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let read: Result<_, AuthorityError> = TokenStore::of(&this.state).revoked();
            let mut known = this.revoked.lock().unwrap_or_else(PoisonError::into_inner);
            match read {
                Ok(revoked) => known.clone_from(&revoked),
                Err(error) => tracing::warn!(%error, "cannot look which tokens were revoked"),
            }
            known.clone()
        });
        reading.await.unwrap_or_default()
    }
}
