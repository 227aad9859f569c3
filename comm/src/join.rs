//! Joining: a node without a certificate shows that it knows a token and gets one for the token's role.
//!
//! The node recognises the scheduler by the authority's hash in the token before it says anything. It then sends a proof: a
//! signature, by the key that the secret makes, of keying material that only the two ends of this TLS session have, and of what
//! it asks for. So the secret itself never travels, and a proof is worth nothing in another session or for another key.

use std::net::SocketAddr;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError, StateDir};
use crate::codec;
use crate::connect::{ConnectError, ExpectedPeer};
use crate::connection::{CloseCode, JoinConnection, close};
use crate::control::{ControlReceiver, ControlSender, ReceiveError, SendError, StreamError};
use crate::endpoint::{BindError, Endpoint, local_address_for};
use crate::identity::{Identity, IdentityError, Origin, PeerIdentity, Role};
use crate::plane::Plane;
use crate::tls;
use crate::token::{BadToken, Token, TokenId, TokenRefusal, TokenStore};
use crate::tuning::Tuning;

/// Names the keying material among all that a session can export (RFC 5705).
const EXPORT_LABEL: &[u8] = b"EXPORTER-rask-join";

/// How long either side waits for the other in the exchange.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
struct JoinRequest {
    token_id: TokenId,
    asked: Asked,
    proof: Vec<u8>,
}

/// What the proof covers besides the session.
#[derive(Serialize, Deserialize)]
struct Asked {
    role: Role,
    /// A worker's choice; others get the name of their token.
    name: String,
    /// The node's fresh public key, as a DER SubjectPublicKeyInfo.
    public_key: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum JoinReply {
    Signed { certificate: Vec<u8>, authority: Vec<u8> },
    Refused(TokenRefusal),
}

/// Why a node did not get an identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// What was given as a token is none.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The token is for another role, seen before anything was sent.
    #[error("the token is for {}, not for {}", token.with_article(), wanted.with_article())]
    WrongRole {
        /// What it is for.
        token: Role,
        /// What was wanted.
        wanted: Role,
    },
    /// The scheduler could not be reached, or is not of the token's cluster.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The scheduler refused the token.
    #[error("{address} refused the token: {refusal}")]
    Refused {
        /// The scheduler.
        address: SocketAddr,
        /// Why.
        refusal: TokenRefusal,
    },
    /// The exchange broke off.
    #[error("joining was cut short: {0}")]
    CutShort(String),
    /// Keys or certificates are unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state directory is unusable.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// There is no token, and no authority of this user on this host.
    #[error(
        "no token, and no cluster of this user on this host (looked in {}): start the scheduler first, or make a token where it \
         runs (`rask token create --role {role}`) and give it in RASK_TOKEN_FILE",
        directory.display()
    )]
    NoProof {
        /// Where the authority would be.
        directory: std::path::PathBuf,
        /// The role wanted.
        role: Role,
    },
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl From<ReceiveError> for JoinError {
    fn from(error: ReceiveError) -> Self {
        JoinError::CutShort(error.to_string())
    }
}

impl From<SendError> for JoinError {
    fn from(error: SendError) -> Self {
        JoinError::CutShort(error.to_string())
    }
}

impl From<StreamError> for JoinError {
    fn from(error: StreamError) -> Self {
        JoinError::CutShort(error.to_string())
    }
}

fn tag_input(connection: &quinn::Connection, asked: &Asked) -> Result<Vec<u8>, JoinError> {
    let mut input = vec![0; 32];
    connection
        .export_keying_material(&mut input, EXPORT_LABEL, b"")
        .map_err(|_| JoinError::CutShort("this TLS session has no keying material".to_owned()))?;
    codec::encode(asked, &mut input).map_err(|error| JoinError::CutShort(error.to_string()))?;
    Ok(input)
}

/// Get an identity with `role` from the scheduler at `address` by `token`: a worker with the name `name`, anybody else with that
/// of the token. Must be called in a tokio runtime.
///
/// # Errors
/// When the scheduler cannot be reached, is not of the token's cluster, or refuses.
pub async fn join_cluster(address: SocketAddr, token: &Token, role: Role, name: &str) -> Result<Identity, JoinError> {
    if token.role != role {
        return Err(JoinError::WrongRole { token: token.role, wanted: role });
    }
    crate::identity::check_name(name)?;
    let endpoint = Endpoint::open(local_address_for(address), None, &[], Tuning::default())?;
    let local = |reason: String| ConnectError::Local { address, reason };
    let crypto = tls::joining(token.authority).map_err(local)?;
    let (connection, _scheduler) = endpoint.dial(address, Plane::Join, crypto, &ExpectedPeer::any(Role::Scheduler)).await?;
    let joined = tokio::time::timeout(PATIENCE, exchange(&connection, token, role, name)).await;
    let joined = joined.unwrap_or_else(|_| Err(JoinError::CutShort("no answer from the scheduler".to_owned())));
    let (leaf, authority, key) = match joined {
        Ok(Ok(signed)) => signed,
        Ok(Err(refusal)) => return Err(JoinError::Refused { address, refusal }),
        Err(error) => return Err(error),
    };
    endpoint.shut_down("joined").await;
    if crate::authority::hash_of(&authority) != token.authority {
        return Err(JoinError::CutShort("the scheduler named another authority than the token".to_owned()));
    }
    let identity = Identity::assemble(CertificateDer::from(leaf), CertificateDer::from(authority), key)?;
    if identity.role() != role || (role == Role::Worker && identity.name() != name) {
        return Err(JoinError::CutShort("the scheduler signed something else than was asked for".to_owned()));
    }
    Ok(identity)
}

/// Certificate, authority and private key, all in DER.
type Signed = (Vec<u8>, Vec<u8>, Vec<u8>);

async fn exchange(
    connection: &quinn::Connection,
    token: &Token,
    role: Role,
    name: &str,
) -> Result<Result<Signed, TokenRefusal>, JoinError> {
    let key = rcgen::KeyPair::generate().map_err(|error| IdentityError::Signing(error.to_string()))?;
    let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
    let asked = Asked { role, name: name.to_owned(), public_key };
    let proof = token.prove(&tag_input(connection, &asked)?)?;
    let request = JoinRequest { token_id: token.id, asked, proof };
    let (send, receive) = connection.open_bi().await.map_err(StreamError::from)?;
    let limit = Plane::Join.frame_limit();
    let mut sender: ControlSender<JoinRequest> = ControlSender::new(connection.clone(), send, limit);
    let mut receiver: ControlReceiver<JoinReply> = ControlReceiver::new(receive, limit);
    sender.send(std::slice::from_ref(&request)).await?;
    Ok(match receiver.recv_hello().await? {
        JoinReply::Signed { certificate, authority } => Ok((certificate, authority, key.serialize_der())),
        JoinReply::Refused(refusal) => Err(refusal),
    })
}

/// Answer one node that wants to join: sign it a certificate, or refuse it with the reason, which is also the error here.
///
/// # Errors
/// Why nobody joined.
pub async fn serve_join(
    connection: JoinConnection,
    authority: &Authority,
    tokens: &TokenStore,
) -> Result<PeerIdentity, JoinError> {
    let address = connection.remote_address();
    let served = tokio::select! {
        served = tokio::time::timeout(PATIENCE, answer(&connection.inner, authority, tokens)) => {
            served.unwrap_or_else(|_| Err(JoinError::CutShort("the node said nothing".to_owned())))
        }
        () = connection.place.evicted() => Err(JoinError::CutShort("too many nodes are joining; try again".to_owned())),
    };
    match served {
        Ok(Ok(peer)) => Ok(peer),
        Ok(Err(refusal)) => Err(JoinError::Refused { address, refusal }),
        Err(error) => {
            close(&connection.inner, CloseCode::Misbehaved, &error.to_string());
            Err(error)
        }
    }
}

async fn answer(
    connection: &quinn::Connection,
    authority: &Authority,
    tokens: &TokenStore,
) -> Result<Result<PeerIdentity, TokenRefusal>, JoinError> {
    let (send, receive) = connection.accept_bi().await.map_err(StreamError::from)?;
    let limit = Plane::Join.frame_limit();
    let mut sender: ControlSender<JoinReply> = ControlSender::new(connection.clone(), send, limit);
    let mut receiver: ControlReceiver<JoinRequest> = ControlReceiver::new(receive, limit);
    let request: JoinRequest = receiver.recv_hello().await?;
    let input = tag_input(connection, &request.asked)?;
    let outcome = admit(request, input, authority, tokens).await;
    let (reply, outcome) = match outcome {
        Ok((certificate, peer)) => {
            let authority = authority.certificate().to_vec();
            (JoinReply::Signed { certificate: certificate.to_vec(), authority }, Ok(peer))
        }
        Err(refusal) => (JoinReply::Refused(refusal.clone()), Err(refusal)),
    };
    sender.send(&[reply]).await?;
    // The node closes once it has read the answer; until it has, the connection must live.
    let _ = sender.finish().await;
    Ok(outcome)
}

async fn admit(
    request: JoinRequest,
    input: Vec<u8>,
    authority: &Authority,
    tokens: &TokenStore,
) -> Result<(CertificateDer<'static>, PeerIdentity), TokenRefusal> {
    let JoinRequest { token_id, asked: Asked { role, name, public_key }, proof } = request;
    // Files may be far away and slow, and this thread is everybody's.
    let tokens = tokens.clone();
    let redeeming =
        tokio::task::spawn_blocking(move || tokens.redeem(&token_id, role, |verifier| verifier.accepts(&input, &proof)));
    let record = redeeming.await.unwrap_or_else(|error| Err(TokenRefusal::Scheduler(error.to_string())))?;
    let public_key =
        rcgen::SubjectPublicKeyInfo::from_der(&public_key).map_err(|error| TokenRefusal::Scheduler(error.to_string()))?;
    // What a client does is its token's, so a client cannot choose whom to be.
    let name = match record.role {
        Role::Worker => name,
        Role::Scheduler | Role::Client | Role::Viewer | Role::Admin => record.name.unwrap_or_else(|| token_id.to_string()),
    };
    let origin = Origin::Token(token_id);
    let certificate = authority.sign(&public_key, record.role, &name, origin).map_err(|error| match error {
        IdentityError::BadName(_) => TokenRefusal::BadName(error.to_string()),
        IdentityError::UnknownRole(_) | IdentityError::BadCertificate(_) | IdentityError::Signing(_) => {
            TokenRefusal::Scheduler(error.to_string())
        }
    })?;
    let peer = PeerIdentity::of_certificate(&certificate).map_err(|error| TokenRefusal::Scheduler(error.to_string()))?;
    Ok((certificate, peer))
}

/// The identity of a node that wants to be `role` and `name` (see [`join_cluster`] for who may choose it) in the cluster of the
/// scheduler at `address`: by `token` if there is one, else because this user on this host can read the authority's key in
/// `state`. Only a scheduler makes an authority: one that anybody else makes would be another cluster's.
///
/// # Errors
/// When there is neither, or what there is does not serve.
pub async fn obtain_identity(
    role: Role,
    name: &str,
    address: SocketAddr,
    state: &StateDir,
    token: Option<&str>,
) -> Result<Identity, JoinError> {
    if let Some(token) = token {
        return join_cluster(address, &token.parse()?, role, name).await;
    }
    match Authority::open(state) {
        Ok(authority) => Ok(Identity::issue(&authority, role, name)?),
        Err(AuthorityError::Missing(directory)) => Err(JoinError::NoProof { directory, role }),
        Err(error) => Err(error.into()),
    }
}
