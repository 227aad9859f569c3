//! Who gets in, who does not, and what both sides are told.

use std::time::{Duration, Instant};

use super::{identity, impatient, loopback};
use crate::{
    Authority, CloseKind, ConnectError, Endpoint, ExpectedPeer, Identity, Incoming, JoinError, Plane, Role, StateDir, Token,
    TokenRefusal, TokenStore, join_cluster, obtain_identity, serve_join,
};

const HOUR: Duration = Duration::from_secs(3600);

fn scheduler(authority: &Authority) -> Endpoint {
    let identity = identity(authority, Role::Scheduler, "scheduler");
    Endpoint::bind(loopback(), &identity, &[Plane::Worker, Plane::Client, Plane::Join]).unwrap()
}

fn node(authority: &Authority, role: Role) -> Endpoint {
    Endpoint::bind(loopback(), &identity(authority, role, "node"), &[]).unwrap()
}

fn expect_scheduler() -> ExpectedPeer {
    ExpectedPeer::any(Role::Scheduler)
}

#[tokio::test]
async fn both_ends_know_who_the_other_is() {
    let authority = Authority::throw_away().unwrap();
    let (server, client) = (scheduler(&authority), node(&authority, Role::Worker));
    let connected = client.connect(server.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await.unwrap();
    assert_eq!(connected.peer().to_string(), "scheduler \"scheduler\"");
    let Some(Incoming::Peer { plane, peer, connection }) = server.accept().await else { panic!() };
    assert_eq!((plane, peer.role, peer.name.as_str()), (Plane::Worker, Role::Worker, "node"));
    assert_eq!(connection.remote_address(), client.local_addr().unwrap());
    assert_eq!(server.stats().n_accepted, 1);
}

#[tokio::test]
async fn another_clusters_certificate_is_refused_on_this_side() {
    let (here, there) = (Authority::throw_away().unwrap(), Authority::throw_away().unwrap());
    let (server, client) = (scheduler(&there), node(&here, Role::Worker));
    let refused = client.connect(server.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await;
    let Err(ConnectError::CertificateRefused { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("another cluster"), "{reason}");
    wait_for(|| server.stats().n_failed == 1).await;
}

#[tokio::test]
async fn another_clusters_certificate_is_refused_on_the_other_side() {
    // A node that trusts the scheduler's authority and shows a certificate of its own: a thief's mixture.
    let (here, there) = (Authority::throw_away().unwrap(), Authority::throw_away().unwrap());
    let forged = identity(&here, Role::Worker, "node").with_authority_of(&identity(&there, Role::Worker, "x"));
    let (server, client) = (scheduler(&there), Endpoint::bind(loopback(), &forged, &[]).unwrap());
    let refused = client.connect(server.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await;
    assert!(matches!(refused, Err(ConnectError::OwnCertificateRefused { .. })), "{refused:?}");
    wait_for(|| server.stats().n_failed == 1).await;
}

#[tokio::test]
async fn a_role_on_the_wrong_plane_is_told_so() {
    let authority = Authority::throw_away().unwrap();
    let server = scheduler(&authority);
    for (role, plane) in [(Role::Client, Plane::Worker), (Role::Worker, Plane::Client), (Role::Viewer, Plane::Worker)] {
        let refused = node(&authority, role).connect(server.local_addr().unwrap(), plane, expect_scheduler()).await;
        let Err(ConnectError::RoleRefused { reason, .. }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains(role.as_str()) && reason.contains(plane.protocol()), "{reason}");
    }
    assert_eq!(server.stats().n_failed, 3);
    let fine = node(&authority, Role::Worker).connect(server.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await;
    assert!(fine.is_ok(), "the endpoint goes on after refusals");
}

#[tokio::test]
async fn somebody_else_at_the_address_is_noticed() {
    let authority = Authority::throw_away().unwrap();
    let (server, client) = (scheduler(&authority), node(&authority, Role::Worker));
    let address = server.local_addr().unwrap();
    let wrong_name = client.connect(address, Plane::Worker, ExpectedPeer::named(Role::Scheduler, "other")).await;
    assert!(matches!(wrong_name, Err(ConnectError::WrongPeer { .. })), "{wrong_name:?}");
    let wrong_role = client.connect(address, Plane::Worker, ExpectedPeer::any(Role::Worker)).await;
    assert!(matches!(wrong_role, Err(ConnectError::WrongPeer { .. })), "{wrong_role:?}");
    let wrong_plane = client.connect(address, Plane::Data, expect_scheduler()).await;
    assert!(matches!(wrong_plane, Err(ConnectError::WrongPlane { .. })), "{wrong_plane:?}");
}

#[tokio::test]
async fn a_client_cannot_pose_as_a_server() {
    let authority = Authority::throw_away().unwrap();
    let posing = Endpoint::bind(loopback(), &identity(&authority, Role::Client, "c"), &[Plane::Data]).unwrap();
    let address = posing.local_addr().unwrap();
    let refused = node(&authority, Role::Worker).connect(address, Plane::Data, ExpectedPeer::any(Role::Client)).await;
    assert!(matches!(refused, Err(ConnectError::CertificateRefused { .. })), "{refused:?}");
}

#[tokio::test]
async fn no_certificate_is_only_good_for_joining() {
    let authority = Authority::throw_away().unwrap();
    let server = scheduler(&authority);
    let bare = Endpoint::open(loopback(), None, &[], impatient()).unwrap();
    let crypto = crate::tls::test_client_without_certificate(&authority, Plane::Worker);
    let refused = bare.dial(server.local_addr().unwrap(), Plane::Worker, crypto, &expect_scheduler()).await;
    let Err(ConnectError::RoleRefused { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("no certificate"), "{reason}");
}

#[tokio::test]
async fn nobody_there_is_noticed_in_time() {
    let authority = Authority::throw_away().unwrap();
    let client = Endpoint::bind_with(loopback(), &identity(&authority, Role::Worker, "w"), &[], impatient()).unwrap();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let refused = client.connect(silent.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn garbage_on_the_socket_disturbs_nobody() {
    let authority = Authority::throw_away().unwrap();
    let server = scheduler(&authority);
    let address = server.local_addr().unwrap();
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for nbytes in [1, 20, 1200, 6000] {
        stranger.send_to(&vec![0xc3; nbytes], address).unwrap();
    }
    let connected = node(&authority, Role::Worker).connect(address, Plane::Worker, expect_scheduler()).await;
    assert!(connected.is_ok(), "{connected:?}");
}

#[tokio::test]
async fn another_version_is_named_on_both_sides() {
    let authority = Authority::throw_away().unwrap();
    let (server, client) = (scheduler(&authority), identity(&authority, Role::Worker, "w"));
    let raw = Endpoint::bind(loopback(), &client, &[]).unwrap();
    let connection = raw.test_connect_without_greeting(server.local_addr().unwrap(), Plane::Worker).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(b"RASK\x63\0\0\0").await.unwrap();
    let error = connection.closed().await.to_string();
    assert!(error.contains("99") && error.contains("version"), "{error}");
    wait_for(|| server.stats().n_failed == 1).await;
}

#[tokio::test]
async fn the_reason_of_a_close_arrives() {
    let pair = super::worker_pair().await;
    pair.server.close("two workers cannot have one name");
    let reason = pair.client.closed().await;
    assert_eq!((reason.kind, reason.text.as_str()), (CloseKind::Peer, "two workers cannot have one name"));
    assert_eq!(pair.server.close_reason().unwrap().kind, CloseKind::Here);
    assert!(pair.client.is_closed() && pair.server.is_closed());
    pair.client_endpoint.shut_down("done").await;
}

#[test]
fn a_dead_peer_is_noticed() {
    // The peer has a runtime of its own, which stops for good: its socket stays open and says nothing, as after SIGSTOP.
    let authority = Authority::throw_away().unwrap();
    let (address_out, address_in) = std::sync::mpsc::channel();
    let server_identity = identity(&authority, Role::Scheduler, "s");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let server = Endpoint::bind_with(loopback(), &server_identity, &[Plane::Worker], impatient()).unwrap();
            address_out.send(server.local_addr().unwrap()).unwrap();
            let _held = server.accept().await;
            std::thread::sleep(Duration::from_secs(4));
        });
    });
    let address = address_in.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Endpoint::bind_with(loopback(), &identity(&authority, Role::Worker, "w"), &[], impatient()).unwrap();
        let connection = client.connect(address, Plane::Worker, expect_scheduler()).await.unwrap();
        let began = Instant::now();
        let reason = connection.closed().await;
        assert_eq!(reason.kind, CloseKind::Silent);
        assert!(began.elapsed() < Duration::from_millis(1800), "{:?}", began.elapsed());
    });
}

/// A scheduler that answers nodes that want to join, and tells what came of each.
struct Joinery {
    _dir: tempfile::TempDir,
    authority: std::sync::Arc<Authority>,
    tokens: TokenStore,
    server: Endpoint,
    outcomes: tokio::sync::mpsc::UnboundedReceiver<Result<crate::PeerIdentity, JoinError>>,
}

fn joinery() -> Joinery {
    let dir = tempfile::tempdir().unwrap();
    let authority = std::sync::Arc::new(Authority::throw_away().unwrap());
    let tokens = TokenStore::of(&StateDir::at(dir.path().join("state")));
    let server = scheduler(&authority);
    let (sender, outcomes) = tokio::sync::mpsc::unbounded_channel();
    let (endpoint, signer, store) = (server.clone(), authority.clone(), tokens.clone());
    tokio::spawn(async move {
        while let Some(Incoming::Join(connection)) = endpoint.accept().await {
            let _ = sender.send(serve_join(connection, &signer, &store).await);
        }
    });
    Joinery { _dir: dir, authority, tokens, server, outcomes }
}

#[tokio::test]
async fn a_token_makes_a_member() {
    let joinery = joinery();
    let address = joinery.server.local_addr().unwrap();
    let token = joinery.tokens.create(&joinery.authority, Role::Worker, None, HOUR, Some(1)).unwrap();
    let joined = join_cluster(address, &token, Role::Worker, "far away").await.unwrap();
    assert_eq!((joined.role(), joined.name()), (Role::Worker, "far away"));
    let mut outcomes = joinery.outcomes;
    assert_eq!(outcomes.recv().await.unwrap().unwrap().name, "far away");
    // The identity is as good as one made beside the authority.
    let plain = Endpoint::bind(loopback(), &identity(&joinery.authority, Role::Scheduler, "other"), &[Plane::Worker]).unwrap();
    let member = Endpoint::bind(loopback(), &joined, &[]).unwrap();
    member.connect(plain.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await.unwrap();
}

#[tokio::test]
async fn a_client_cannot_choose_whom_to_be() {
    let mut joinery = joinery();
    let address = joinery.server.local_addr().unwrap();
    let make = |role, name| joinery.tokens.create(&joinery.authority, role, name, HOUR, None).unwrap();
    let nameless = make(Role::Client, None);
    let id = nameless.id.to_string();
    let cases = [
        (make(Role::Client, Some("alice")), Role::Client, "alice"),
        (make(Role::Admin, Some("ops")), Role::Admin, "ops"),
        (make(Role::Viewer, Some("wall")), Role::Viewer, "wall"),
        (nameless, Role::Client, id.as_str()),
        // Where a worker is, and which of several, its token's maker cannot know.
        (make(Role::Worker, Some("rack 7")), Role::Worker, "bob"),
    ];
    for (token, role, name) in &cases {
        let joined = join_cluster(address, token, *role, "bob").await.unwrap();
        assert_eq!((joined.role(), joined.name()), (*role, *name));
        assert_eq!(joined.peer().origin, crate::Origin::Token(token.id));
        assert_eq!(joinery.outcomes.recv().await.unwrap().unwrap(), *joined.peer());
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_with_the_reason_on_both_sides() {
    let mut joinery = joinery();
    let address = joinery.server.local_addr().unwrap();
    let make = |role, lifetime, n_uses| joinery.tokens.create(&joinery.authority, role, None, lifetime, n_uses).unwrap();
    let expired = make(Role::Worker, Duration::ZERO, None);
    let used_up = make(Role::Worker, HOUR, Some(0));
    let good = make(Role::Worker, HOUR, None);
    let mut wrong_secret = good.to_string();
    let last = if wrong_secret.pop() == Some('a') { 'q' } else { 'a' };
    wrong_secret.push(last);
    let wrong_secret: Token = wrong_secret.parse().unwrap();
    let promoted: Token = good.to_string().replace("worker", "admin").parse().unwrap();
    type IsExpected = fn(&TokenRefusal) -> bool;
    let cases: [(&Token, Role, IsExpected); 4] = [
        (&expired, Role::Worker, |refusal| matches!(refusal, TokenRefusal::Expired { .. })),
        (&used_up, Role::Worker, |refusal| *refusal == TokenRefusal::UsedUp),
        (&wrong_secret, Role::Worker, |refusal| *refusal == TokenRefusal::Unknown),
        (&promoted, Role::Admin, |refusal| matches!(refusal, TokenRefusal::WrongRole { .. })),
    ];
    for (token, role, is_expected) in cases {
        let refused = join_cluster(address, token, role, "n").await;
        let Err(JoinError::Refused { refusal, .. }) = refused else { panic!("{refused:?}") };
        assert!(is_expected(&refusal), "{refusal}");
        let Some(Err(JoinError::Refused { refusal: there, .. })) = joinery.outcomes.recv().await else { panic!() };
        assert_eq!(there, refusal);
    }
    let here = join_cluster(address, &good, Role::Client, "n").await;
    assert!(matches!(here, Err(JoinError::WrongRole { .. })), "seen before anything is sent: {here:?}");
}

#[tokio::test]
async fn a_token_of_another_cluster_sends_no_proof() {
    let mut joinery = joinery();
    let elsewhere = Authority::throw_away().unwrap();
    let token = joinery.tokens.create(&elsewhere, Role::Worker, None, HOUR, None).unwrap();
    let refused = join_cluster(joinery.server.local_addr().unwrap(), &token, Role::Worker, "n").await;
    let Err(JoinError::Connect(ConnectError::CertificateRefused { reason, .. })) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("another cluster"), "{reason}");
    assert!(joinery.outcomes.try_recv().is_err(), "the scheduler was asked nothing");
}

#[tokio::test]
async fn the_state_directory_is_proof_enough_on_its_host() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::at(dir.path().join("state"));
    let address = "127.0.0.1:8786".parse().unwrap();
    // Whoever is there before the scheduler makes no authority: it would be another one's.
    let early = obtain_identity(Role::Worker, "w", address, &state, None).await;
    assert!(matches!(early, Err(JoinError::NoProof { .. })), "{early:?}");
    assert!(!state.path().unwrap().exists());
    let scheduler = Identity::issue(&Authority::open_or_create(&state).unwrap(), Role::Scheduler, "s").unwrap();
    let worker = obtain_identity(Role::Worker, "w", address, &state, None).await.unwrap();
    assert_eq!((worker.peer().origin, worker.name()), (crate::Origin::Local, "w"));
    let server = Endpoint::bind(loopback(), &scheduler, &[Plane::Worker]).unwrap();
    let client = Endpoint::bind(loopback(), &worker, &[]).unwrap();
    client.connect(server.local_addr().unwrap(), Plane::Worker, expect_scheduler()).await.unwrap();

    let far = "192.0.2.1:8786".parse().unwrap();
    let nowhere = StateDir::at(dir.path().join("nothing"));
    let refused = obtain_identity(Role::Worker, "w", far, &nowhere, None).await;
    assert!(matches!(refused, Err(JoinError::NoProof { .. })), "{refused:?}");
    assert!(!nowhere.path().unwrap().exists(), "an authority nobody else has helps nobody");
    let nonsense = obtain_identity(Role::Worker, "w", far, &nowhere, Some("hello")).await;
    assert!(matches!(nonsense, Err(JoinError::Token(_))), "{nonsense:?}");
}

async fn wait_for(mut is_so: impl FnMut() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}
