//! The crate as its users see it, over real QUIC on loopback, and with peers that do not keep to the rules.

mod control;
mod data;
mod faults;
mod limits;
mod membership;
mod paths;
mod upload;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rask_graphs::{GraphId, Value, WorkerId};

use crate::data::{BoxFuture, NO_PROGRESS_LIMIT};
use crate::handover::Handover;
use crate::{
    Authority, Connection, Endpoint, ExpectedPeer, Grant, Identity, Incoming, PartRequest, PartSource, Plane, Role, SecretKey,
    Tuning,
};

/// The key of the grants in tests, as the scheduler would tell it.
pub(crate) fn grant_key() -> SecretKey {
    SecretKey::default().for_worker(WorkerId(0)).grants
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn identity(authority: &Authority, role: Role, name: &str) -> Identity {
    Identity::issue(authority, role, name).unwrap()
}

/// Settings that notice a dead peer within a test's patience.
pub(crate) fn impatient() -> Tuning {
    Tuning {
        idle_timeout: Duration::from_millis(600),
        keep_alive: Duration::from_millis(150),
        connect_timeout: Duration::from_millis(800),
        ..Tuning::default()
    }
}

/// A server and a client of one cluster, connected on `plane`: endpoints first, because dropping them closes.
pub(crate) struct Pair {
    pub(crate) server_endpoint: Endpoint,
    pub(crate) client_endpoint: Endpoint,
    pub(crate) server: Connection,
    pub(crate) client: Connection,
}

pub(crate) async fn pair(plane: Plane, server_role: Role, client_role: Role, tuning: Tuning) -> Pair {
    let authority = Authority::throw_away().unwrap();
    let server_endpoint =
        Endpoint::bind_with(loopback(), &identity(&authority, server_role, "server"), &[plane], tuning.clone()).unwrap();
    let client_endpoint = Endpoint::bind_with(loopback(), &identity(&authority, client_role, "client"), &[], tuning).unwrap();
    let address = server_endpoint.local_addr().unwrap();
    let (client, incoming) = tokio::join!(
        client_endpoint.connect(address, plane, ExpectedPeer::named(server_role, "server")),
        server_endpoint.accept()
    );
    let Some(Incoming::Peer { connection: server, .. }) = incoming else { panic!("{incoming:?}") };
    Pair { server_endpoint, client_endpoint, server, client: client.unwrap() }
}

pub(crate) async fn data_pair() -> Pair {
    pair(Plane::Data, Role::Worker, Role::Worker, Tuning::default()).await
}

async fn worker_pair() -> Pair {
    pair(Plane::Worker, Role::Scheduler, Role::Worker, Tuning::default()).await
}

/// Everything has to be read first, and that takes longer than a peer may be silent.
pub(crate) struct SlowDisk(pub(crate) Arc<dyn PartSource>);

impl PartSource for SlowDisk {
    fn opens(&self, graph: GraphId, grant: &Grant) -> bool {
        grant_key().opens(graph, grant)
    }

    fn get(&self, _item: &PartRequest) -> Option<Value> {
        None
    }

    fn handover(&self) -> Option<&Handover> {
        self.0.handover()
    }

    fn read_back<'a>(&'a self, item: &'a PartRequest) -> BoxFuture<'a, Option<Value>> {
        Box::pin(async move {
            tokio::time::sleep(NO_PROGRESS_LIMIT + Duration::from_millis(500)).await;
            self.0.get(item)
        })
    }
}
