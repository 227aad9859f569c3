//! Who a node is: a role, a name, and a short-lived certificate of the cluster's authority that says so.
//!
//! Role and name are the certificate's subject (organisational unit and common name); every certificate also carries the one
//! DNS name that TLS checks. Whether a role may do something is decided where connections are made, not here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Authority;

/// The DNS name in every certificate of every cluster. TLS wants one; role and name are checked from the subject.
pub(crate) const TLS_NAME: &str = "node.rask";

/// Longest name of a node, in bytes.
pub const NAME_LIMIT: usize = 128;

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
    #[error("a node's name has 1 to {NAME_LIMIT} bytes and no control characters, not \"{0}\"")]
    BadName(String),
    /// A certificate without a role and a name.
    #[error("not a certificate of a Rask node: {0}")]
    BadCertificate(String),
    /// Keys or certificates could not be made.
    #[error("cannot make a certificate: {0}")]
    Signing(String),
}

/// Refuse names that could confuse a terminal, a log or a certificate.
pub(crate) fn check_name(name: &str) -> Result<(), IdentityError> {
    if name.is_empty() || name.len() > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(IdentityError::BadName(name.chars().take(NAME_LIMIT).collect::<String>().escape_debug().to_string()));
    }
    Ok(())
}

/// This node's certificate, its key, and the authority it trusts.
#[derive(Clone)]
pub struct Identity {
    role: Role,
    name: String,
    leaf: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    expires_at: SystemTime,
}

impl Identity {
    /// A fresh key and a certificate for it, made by whoever holds the authority's key.
    ///
    /// # Errors
    /// When the name is unusable or signing fails.
    pub fn issue(authority: &Authority, role: Role, name: &str) -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate().map_err(|error| IdentityError::Signing(error.to_string()))?;
        let leaf = authority.sign(&key, role, name)?;
        Self::assemble(leaf, authority.certificate().clone(), key.serialize_der())
    }

    /// An identity from its pieces; role, name and validity are read from the certificate.
    pub(crate) fn assemble(
        leaf: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key_der: Vec<u8>,
    ) -> Result<Self, IdentityError> {
        let PeerIdentity { role, name } = PeerIdentity::of_certificate(&leaf)?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|error| IdentityError::BadCertificate(error.to_string()))?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let expires_at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        Ok(Self { role, name, leaf, authority, key: Arc::new(PrivatePkcs8KeyDer::from(key_der)), expires_at })
    }

    /// The role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The name, which peers see and log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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
        write!(f, "Identity({} {:?})", self.role, self.name)
    }
}

/// Who the other end is, as its certificate says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerIdentity {
    /// The role.
    pub role: Role,
    /// The name.
    pub name: String,
}

impl PeerIdentity {
    /// Read role and name from a certificate that TLS has verified already.
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
        let role: Role = unit.ok_or_else(|| bad("no role in it"))?.parse()?;
        let name = name.ok_or_else(|| bad("no name in it"))?;
        check_name(&name)?;
        Ok(Self { role, name })
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
    fn a_certificate_carries_role_and_name() {
        let authority = Authority::throw_away().unwrap();
        for role in Role::ALL {
            let identity = Identity::issue(&authority, role, "node 7 (äöü)").unwrap();
            let read = PeerIdentity::of_certificate(&identity.chain()[0]).unwrap();
            assert_eq!(read, PeerIdentity { role, name: "node 7 (äöü)".to_owned() });
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
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
        for name in ["", "a\nb", "\u{1b}[31mred", &"x".repeat(NAME_LIMIT + 1)] {
            assert!(matches!(Identity::issue(&authority, Role::Client, name), Err(IdentityError::BadName(_))), "{name:?}");
        }
    }
}
