//! Who a node is: a role, a name, and a short-lived certificate of the cluster's authority that says so.
//!
//! Role, name and origin are the certificate's subject (organisational unit, common name and organisation); every certificate
//! also carries the one DNS name that TLS checks. The origin says how its node got it: from the authority's own directory, as
//! the same user can, or by a token. Whether a role may do something is decided where connections are made, and what is whose
//! in the scheduler's machine, not here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, hash_of};
use crate::token::TokenId;

/// The DNS name in every certificate of every cluster. TLS wants one; role and name are checked from the subject.
pub(crate) const TLS_NAME: &str = "node.rask";

/// Longest name of a node, in bytes: what a common name may have (RFC 5280, appendix A.1).
pub const NAME_LIMIT: usize = 64;

/// What a node is allowed to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// Accepts workers and clients.
    Scheduler,
    /// Runs tasks and serves results.
    Worker,
    /// Submits graphs, and gathers and cancels its own.
    Client,
    /// Looks, and changes nothing.
    Viewer,
    /// A client that may also end what others began.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 5] = [Role::Scheduler, Role::Worker, Role::Client, Role::Viewer, Role::Admin];

    /// The role's name in certificates, tokens and messages for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Scheduler => "scheduler",
            Role::Worker => "worker",
            Role::Client => "client",
            Role::Viewer => "viewer",
            Role::Admin => "admin",
        }
    }

    /// The role's name with its article, for sentences.
    #[must_use]
    pub fn with_article(self) -> &'static str {
        match self {
            Role::Scheduler => "a scheduler",
            Role::Worker => "a worker",
            Role::Client => "a client",
            Role::Viewer => "a viewer",
            Role::Admin => "an admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::UnknownRole(text.escape_debug().to_string()))
    }
}

/// An identity that cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A role that does not exist.
    #[error("unknown role \"{0}\"; roles are scheduler, worker, client, viewer and admin")]
    UnknownRole(String),
    /// A name that cannot stand in a certificate.
    #[error("a node's name has 1 to {NAME_LIMIT} bytes and no control or text direction characters, not \"{0}\"")]
    BadName(String),
    /// A certificate without a role and a name.
    #[error("not a certificate of a Rask node: {0}")]
    BadCertificate(String),
    /// Keys or certificates could not be made.
    #[error("cannot make a certificate: {0}")]
    Signing(String),
}

/// Characters that are not seen, or change how their neighbours are: a name with them looks like another.
fn is_deceptive(c: char) -> bool {
    let is_invisible = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    let is_direction = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}');
    c.is_control() || is_invisible || is_direction || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Refuse names that could confuse a terminal, a log or a certificate.
pub(crate) fn check_name(name: &str) -> Result<(), IdentityError> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.trim() != name || name.chars().any(is_deceptive) {
        return Err(IdentityError::BadName(name.chars().take(NAME_LIMIT).collect::<String>().escape_debug().to_string()));
    }
    Ok(())
}

/// This node's certificate, its key, and the authority it trusts.
#[derive(Clone)]
pub struct Identity {
    peer: PeerIdentity,
    leaf: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    expires_at: SystemTime,
}

impl Identity {
    /// A fresh key and a certificate for it, made by whoever holds the authority's key, for itself.
    ///
    /// # Errors
    /// When the name is unusable or signing fails.
    pub fn issue(authority: &Authority, role: Role, name: &str) -> Result<Self, IdentityError> {
        Self::issue_from(authority, role, name, Origin::Local)
    }

    /// A fresh key and a certificate for it, as a node of that origin has one.
    ///
    /// # Errors
    /// When the name is unusable or signing fails.
    pub fn issue_from(authority: &Authority, role: Role, name: &str, origin: Origin) -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate().map_err(|error| IdentityError::Signing(error.to_string()))?;
        let leaf = authority.sign(&key, role, name, origin)?;
        Self::assemble(leaf, authority.certificate().clone(), key.serialize_der())
    }

    /// An identity from its pieces; role, name and validity are read from the certificate.
    pub(crate) fn assemble(
        leaf: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key_der: Vec<u8>,
    ) -> Result<Self, IdentityError> {
        let peer = PeerIdentity::of_certificate(&leaf)?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| IdentityError::BadCertificate(error.to_string()))?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let expires_at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        Ok(Self { peer, leaf, authority, key: Arc::new(PrivatePkcs8KeyDer::from(key_der)), expires_at })
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.peer.role
    }

    /// The name, which peers see and log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.peer.name
    }

    /// All that peers see of it.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// When the certificate ends. Connections made before go on; new ones are refused.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// The node's certificate, then the authority's: a joining node finds the latter by its hash.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.leaf.clone(), self.authority.clone()]
    }

    pub(crate) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// This certificate beside another authority, as no honest node has it.
    #[cfg(test)]
    pub(crate) fn with_authority_of(mut self, other: &Identity) -> Self {
        self.authority = other.authority.clone();
        self
    }

    pub(crate) fn key(&self) -> PrivatePkcs8KeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {:?})", self.peer.role, self.peer.name)
    }
}

/// How a node got its certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// From the authority's directory: by the user whose cluster it is, on a host that has the directory.
    Local,
    /// From the scheduler, by this token.
    Token(TokenId),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Local => f.write_str("local"),
            Origin::Token(id) => write!(f, "token {id}"),
        }
    }
}

impl Origin {
    fn of_text(text: &str) -> Option<Self> {
        match text.strip_prefix("token ") {
            Some(id) => id.parse().ok().map(Origin::Token),
            None => (text == "local").then_some(Origin::Local),
        }
    }
}

/// Whose a graph is. It outlives connections, certificates and tokens: who comes again under it finds what is theirs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// The user whose cluster it is: every process that can read the authority's directory.
    Local,
    /// Whoever has a token of this name; the token's id when it was given none.
    Named(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Local => f.write_str("the cluster's own user"),
            Owner::Named(name) => write!(f, "\"{}\"", name.escape_debug()),
        }
    }
}

/// Tells keys apart: the first half of the SHA-256 of a certificate's public key. Two certificates of one node have one only
/// while the node keeps its key; no other node can show it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct KeyId(pub [u8; 16]);

/// Who the other end is, as its certificate says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerIdentity {
    /// The role.
    pub role: Role,
    /// The name. Workers choose theirs; others that came by a token have the token's.
    pub name: String,
    /// How it got its certificate.
    pub origin: Origin,
    /// Its key.
    pub key: KeyId,
}

impl PeerIdentity {
    /// A process of the user whose cluster it is, as when there is no network and no certificate.
    #[must_use]
    pub fn local(role: Role, name: &str) -> Self {
        Self { role, name: name.to_owned(), origin: Origin::Local, key: KeyId::default() }
    }

    /// Whose the graphs are that it submits.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self.origin {
            Origin::Local => Owner::Local,
            Origin::Token(_) => Owner::Named(self.name.clone()),
        }
    }

    /// Read role, name and origin from a certificate that TLS has verified already.
    pub(crate) fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let bad = |what: &str| IdentityError::BadCertificate(what.to_owned());
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| IdentityError::BadCertificate(error.to_string()))?;
        let subject = certificate.subject();
        let single = |mut values: Vec<Option<&str>>| match (values.pop(), values.is_empty()) {
            (Some(Some(value)), true) => Some(value.to_owned()),
            (Some(_) | None, _) => None,
        };
        let unit = single(subject.iter_organizational_unit().map(|value| value.as_str().ok()).collect());
        let name = single(subject.iter_common_name().map(|value| value.as_str().ok()).collect());
        let origin = single(subject.iter_organization().map(|value| value.as_str().ok()).collect());
        let role: Role = unit.ok_or_else(|| bad("no role in it"))?.parse()?;
        let name = name.ok_or_else(|| bad("no name in it"))?;
        check_name(&name)?;
        let origin = origin.as_deref().and_then(Origin::of_text).ok_or_else(|| bad("it does not say how it was got"))?;
        let mut key = KeyId::default();
        key.0.copy_from_slice(&hash_of(certificate.public_key().raw)[..16]);
        Ok(Self { role, name, origin, key })
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.role, self.name.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_carries_role_name_and_origin() {
        let authority = Authority::throw_away().unwrap();
        for role in Role::ALL {
            for origin in [Origin::Local, Origin::Token(TokenId([7; 10]))] {
                let identity = Identity::issue_from(&authority, role, "node 7 (äöü)", origin).unwrap();
                let read = PeerIdentity::of_certificate(&identity.chain()[0]).unwrap();
                assert_eq!((read.role, read.name.as_str(), read.origin), (role, "node 7 (äöü)", origin));
            }
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
    }

    #[test]
    fn owners_are_kept_across_certificates_and_keys_are_not() {
        let authority = Authority::throw_away().unwrap();
        let issue = |name, origin| Identity::issue_from(&authority, Role::Client, name, origin).unwrap().peer().clone();
        let (one, other) = (Origin::Token(TokenId([1; 10])), Origin::Token(TokenId([2; 10])));
        let (alice, again, bob) = (issue("alice", one), issue("alice", other), issue("bob", one));
        assert_eq!(alice.owner(), again.owner());
        assert_ne!(alice.owner(), bob.owner());
        assert_ne!(alice.key, again.key);
        // A token's name cannot be that of the cluster's own user.
        assert_ne!(issue("alice", Origin::Local).owner(), alice.owner());
        assert_eq!(issue("alice", Origin::Local).owner(), issue("bob", Origin::Local).owner());
    }

    #[test]
    fn a_certificate_that_does_not_say_where_it_is_from_is_refused() {
        for text in ["", "token", "token 12", "token zz", "Local", "local "] {
            assert_eq!(Origin::of_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn certificates_are_short_lived() {
        let identity = Identity::issue(&Authority::throw_away().unwrap(), Role::Worker, "a").unwrap();
        let left = identity.expires_at().duration_since(SystemTime::now()).unwrap();
        assert!(left.as_secs() > 29 * 86_400 && left.as_secs() <= 30 * 86_400, "{left:?}");
    }

    #[test]
    fn the_authority_itself_is_no_node() {
        let authority = Authority::throw_away().unwrap();
        assert!(PeerIdentity::of_certificate(authority.certificate()).is_err());
        assert!(PeerIdentity::of_certificate(b"garbage").is_err());
    }

    #[test]
    fn unusable_names_are_refused() {
        let authority = Authority::throw_away().unwrap();
        let long = "x".repeat(NAME_LIMIT + 1);
        for name in ["", "a\nb", "\u{1b}[31mred", "evil\u{202e}", "a\u{200b}lice", "a\u{2066}b", " alice", &long] {
            assert!(matches!(Identity::issue(&authority, Role::Client, name), Err(IdentityError::BadName(_))), "{name:?}");
        }
    }
}
