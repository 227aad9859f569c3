//! The cluster's certificate authority and the state directory that holds it.
//!
//! Whoever can read the authority's key may be anything in the cluster, so the directory is for its user alone, and being
//! that user is the proof: processes of one user on one host need no token. The first of several processes that start at
//! once makes the authority; a directory rename decides who that is.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::identity::{IdentityError, Origin, Role, TLS_NAME, check_name};

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const DAY: Duration = Duration::from_secs(86_400);
const NODE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of hosts differ a little: certificates begin this much earlier.
const CLOCK_SLACK: Duration = Duration::from_secs(300);

/// Where a user's cluster keeps its authority and tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory `path`, which need not exist yet.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of something in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for StateDir {
    /// `RASK_STATE_DIR`, else `$XDG_STATE_HOME/rask`, else `~/.local/state/rask`, else a directory of this user beside other
    /// temporary files.
    fn default() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = variable("RASK_STATE_DIR")
            .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("rask")))
            .or_else(|| variable("HOME").map(|home| home.join(".local/state/rask")))
            .unwrap_or_else(|| std::env::temp_dir().join(format!("rask-{}", rustix::process::getuid().as_raw())));
        Self(path)
    }
}

/// An authority that cannot be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or directory that could not be read, made or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key can be read by others than its user.
    #[error("{} can be read by others than its owner (mode {mode:o}); anyone who has read it can join: remove the directory and start again", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The files are there and are not an authority.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys or certificates could not be made.
    #[error("cannot make the cluster's authority: {0}")]
    Making(String),
    /// There is none, and this process must not make one.
    #[error("no cluster authority in {}", .0.display())]
    Missing(PathBuf),
}

/// The hash of an authority's certificate (SHA-256 of its DER form), which a join token carries.
pub(crate) type AuthorityHash = [u8; 32];

pub(crate) fn hash_of(certificate: &[u8]) -> AuthorityHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    hash
}

/// A cluster's certificate authority: it signs the certificates of all nodes.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The authority of the state directory, made now if there is none. Safe when several processes do it at once.
    ///
    /// # Errors
    /// When the directory cannot be used, or what is in it is damaged or open to others.
    pub fn open_or_create(state: &StateDir) -> Result<Self, AuthorityError> {
        match Self::open(state) {
            Err(AuthorityError::Missing(_)) => {}
            opened @ (Ok(_) | Err(_)) => return opened,
        }
        make_private_dir(state.path())?;
        let (certificate_pem, key_pem) = generate()?;
        let directory = state.join("authority");
        static N_ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        let attempt = N_ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let fresh = state.join(&format!("authority.new-{}-{attempt}", std::process::id()));
        make_private_dir(&fresh)?;
        write_private(&fresh.join(CERTIFICATE_FILE), certificate_pem.as_bytes())?;
        write_private(&fresh.join(KEY_FILE), key_pem.as_bytes())?;
        // A directory cannot replace one that has something in it: the first to come wins, the others take what it made.
        let renamed = fs::rename(&fresh, &directory);
        if renamed.is_err() {
            let _ = fs::remove_dir_all(&fresh);
        }
        match (Self::open(state), renamed) {
            (Err(AuthorityError::Missing(path)), Err(source)) => Err(AuthorityError::File { path, source }),
            (opened, _) => opened,
        }
    }

    /// The authority of the state directory.
    ///
    /// # Errors
    /// When there is none, or it is damaged or open to others.
    pub fn open(state: &StateDir) -> Result<Self, AuthorityError> {
        let directory = state.join("authority");
        let (certificate_path, key_path) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let key_pem = match fs::read_to_string(&key_path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AuthorityError::Missing(state.path().to_owned()));
            }
            Err(source) => return Err(AuthorityError::File { path: key_path, source }),
        };
        check_private(&key_path)?;
        let certificate_pem = fs::read_to_string(&certificate_path)
            .map_err(|source| AuthorityError::File { path: certificate_path.clone(), source })?;
        Self::from_pem(&certificate_pem, &key_pem).map_err(|reason| AuthorityError::Unreadable { path: directory, reason })
    }

    /// An authority that lives as long as this value and is written nowhere: for tests and clusters inside one process.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn throw_away() -> Result<Self, AuthorityError> {
        let (certificate_pem, key_pem) = generate()?;
        Self::from_pem(&certificate_pem, &key_pem).map_err(AuthorityError::Making)
    }

    fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|error| error.to_string())?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| error.to_string())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| error.to_string())?;
        Ok(Self { certificate, issuer })
    }

    /// Sign a certificate for a node's public key.
    pub(crate) fn sign(
        &self,
        public_key: &impl rcgen::PublicKeyData,
        role: Role,
        name: &str,
        origin: Origin,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        check_name(name)?;
        let signing = |error: rcgen::Error| IdentityError::Signing(error.to_string());
        let mut params = CertificateParams::new(vec![TLS_NAME.to_owned()]).map_err(signing)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationalUnitName, role.as_str());
        subject.push(DnType::OrganizationName, origin.to_text());
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        set_validity(&mut params, NODE_LIFETIME);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match role {
            Role::Scheduler | Role::Worker => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            // Nobody connects to these, so their certificates cannot even pose as a server's.
            Role::Client | Role::Viewer | Role::Admin => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(public_key, &self.issuer).map_err(signing)?;
        Ok(certificate.der().clone())
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn hash(&self) -> AuthorityHash {
        hash_of(&self.certificate)
    }

    /// The hash of its certificate as text, for logs and for comparing by eye.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.hash())
    }
}

fn generate() -> Result<(String, String), AuthorityError> {
    let making = |error: rcgen::Error| AuthorityError::Making(error.to_string());
    let key = KeyPair::generate().map_err(making)?;
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(making)?;
    let mut subject = DistinguishedName::new();
    // The key's own bytes tell the authorities of two clusters apart in whatever tool looks at them.
    let hash = data_encoding::HEXLOWER.encode(&hash_of(key.public_key_raw())[..8]);
    subject.push(DnType::CommonName, format!("rask cluster {hash}"));
    params.distinguished_name = subject;
    set_validity(&mut params, DAY * 3650);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(making)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SLACK);
    params.not_after = epoch + now.saturating_add(lifetime);
}

/// Make `path` and what is missing above it, for this user alone.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), AuthorityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| AuthorityError::File { path: path.to_owned(), source })?;
    check_private(path)
}

/// Refuse what others may read, or what belongs to somebody else.
pub(crate) fn check_private(path: &Path) -> Result<(), AuthorityError> {
    let metadata = fs::metadata(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(AuthorityError::Exposed { path: path.to_owned(), mode }) }
}

/// Write a new file for this user alone, and have it on the disk before returning.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_and_opened_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("not/there/yet"));
        assert!(matches!(Authority::open(&state), Err(AuthorityError::Missing(_))));
        let made = Authority::open_or_create(&state).unwrap();
        let opened = Authority::open_or_create(&state).unwrap();
        assert_eq!(made.fingerprint(), opened.fingerprint());
        assert_eq!(fs::metadata(state.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(state.join("authority/ca.key")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn concurrent_first_starts_agree() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let state = state.clone();
                std::thread::spawn(move || Authority::open_or_create(&state).unwrap().fingerprint())
            })
            .collect();
        let fingerprints: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(fingerprints.windows(2).all(|pair| pair[0] == pair[1]), "{fingerprints:?}");
        let left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["authority"]);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Authority::open_or_create(&state).unwrap();
        fs::set_permissions(state.join("authority/ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Authority::open_or_create(&state), Err(AuthorityError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn a_damaged_authority_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        Authority::open_or_create(&state).unwrap();
        fs::write(state.join("authority/ca.pem"), "nonsense").unwrap();
        assert!(matches!(Authority::open_or_create(&state), Err(AuthorityError::Unreadable { .. })));
    }
}
