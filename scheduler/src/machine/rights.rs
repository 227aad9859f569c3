//! Who may do what: which role may send which message, and whose graphs a client may see, take up and end.
//!
//! A graph is its owner's: whoever has a token of the name, or the user whose cluster it is. Owners outlive connections. Viewers
//! and admins see all graphs, admins end any. So may the cluster's own user, who can read the authority's key and could become an
//! admin at any time. What a client may not touch is answered as what does not exist.

use rask_comm::message::FromClient;
use rask_comm::{Owner, PeerIdentity, Role};

use super::graph_run::GraphRun;

/// Whether a peer of this role may say `message`, whatever is in it. Asked before anything in it is looked at.
pub(super) fn may_say(role: Role, message: &FromClient) -> bool {
    match (role, message) {
        (Role::Client | Role::Viewer | Role::Admin, FromClient::Status { .. }) => true,
        (
            Role::Client | Role::Admin,
            FromClient::Submit { .. }
            | FromClient::Scatter { .. }
            | FromClient::NotUploaded { .. }
            | FromClient::Cancel { .. }
            | FromClient::Release { .. }
            | FromClient::Locate { .. }
            | FromClient::FetchFailed { .. }
            | FromClient::Attach { .. },
        ) => true,
        (
            Role::Viewer,
            FromClient::Submit { .. }
            | FromClient::Scatter { .. }
            | FromClient::NotUploaded { .. }
            | FromClient::Cancel { .. }
            | FromClient::Release { .. }
            | FromClient::Locate { .. }
            | FromClient::FetchFailed { .. }
            | FromClient::Attach { .. },
        )
        | (Role::Scheduler | Role::Worker, _) => false,
    }
}

/// Whether a peer of this role may submit graphs.
pub(super) fn may_submit(role: Role) -> bool {
    match role {
        Role::Client | Role::Admin => true,
        Role::Viewer | Role::Scheduler | Role::Worker => false,
    }
}

/// Why somebody is shown out who said what they may not.
pub(super) fn overstepped(role: Role) -> String {
    format!("{} may only look at the status", role.with_article())
}

/// Whether the graph is this client's, on whatever connection it was submitted.
pub(super) fn owns(client: &PeerIdentity, run: &GraphRun) -> bool {
    run.owner == client.owner()
}

/// Whether this client may know of the graph.
pub(super) fn may_see(client: &PeerIdentity, run: &GraphRun) -> bool {
    let sees_all = matches!(client.role, Role::Viewer | Role::Admin) || client.owner() == Owner::Local;
    sees_all || owns(client, run)
}

/// Whether this client may stop the graph.
pub(super) fn may_end(client: &PeerIdentity, run: &GraphRun) -> bool {
    let ends_all = client.role == Role::Admin || client.owner() == Owner::Local;
    ends_all || owns(client, run)
}
