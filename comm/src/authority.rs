//! The cluster's certificate authority and the state directory that holds it.
//!
//! Whoever can read the authority's key may be anything in the cluster, so the directory is for its user alone, and being
//! that user is the proof: processes of one user on one host need no token. The first of several processes that start at
//! once makes the authority; a directory rename decides who that is.

use std::fs;
use std::io;
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
use zeroize::Zeroizing;

pub use crate::state::StateDir;

use crate::identity::{IdentityError, Origin, Role, TLS_NAME, check_name};

const DIRECTORY: &str = "authority";
const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const NODE_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of hosts differ a little: certificates begin this much earlier.
const CLOCK_SLACK: Duration = Duration::from_secs(300);

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
    /// Something of it can be read or changed by others than its owner.
    #[error(
        "{} can be read or changed by others than its owner (mode {mode:o}), so it may be known to them or theirs: if it is \
         not, `chmod go= {}`; else remove the state directory and start again",
        path.display(),
        path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Something of it belongs to somebody else.
    #[error("{} belongs to user {owner}, and this process is user {user}'s: not trusted", path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// A link, or another kind of file than is expected there.
    #[error("{} is a link, or something else than it should be: not trusted", path.display())]
    Unexpected {
        /// The file or directory.
        path: PathBuf,
    },
    /// Nobody has said where.
    #[error("this user has no home directory for the cluster's state: name one with RASK_STATE_DIR or --state-dir")]
    Nowhere,
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
    #[error("no cluster authority in {}: `rask scheduler` makes one when it starts there", .0.display())]
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
        let directory = state.open_or_make()?;
        let (certificate_pem, key_pem) = generate()?;
        static N_ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        let attempt = N_ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let fresh_name = format!("{DIRECTORY}.new-{}-{attempt}", std::process::id());
        let fresh = directory.make_sub(&fresh_name)?;
        fresh.write_new(CERTIFICATE_FILE, certificate_pem.as_bytes())?;
        fresh.write_new(KEY_FILE, key_pem.as_bytes())?;
        // A directory cannot replace one that has something in it: the first to come wins, the others take what it made.
        let renamed = directory.rename(&fresh_name, DIRECTORY);
        if renamed.is_err() {
            let _ = fs::remove_dir_all(directory.path().join(&fresh_name));
        }
        match (Self::open(state), renamed) {
            (Err(AuthorityError::Missing(_)), Err(error)) => Err(error),
            (opened, _) => opened,
        }
    }

    /// The authority of the state directory.
    ///
    /// # Errors
    /// When there is none, or it is damaged or open to others.
    pub fn open(state: &StateDir) -> Result<Self, AuthorityError> {
        let missing = || AuthorityError::Missing(state.path().unwrap_or(Path::new("")).to_owned());
        let Some(directory) = state.open()?.sub(DIRECTORY)? else { return Err(missing()) };
        let unreadable =
            |reason: &str| AuthorityError::Unreadable { path: directory.path().to_owned(), reason: reason.to_owned() };
        match (directory.read(CERTIFICATE_FILE)?, directory.read(KEY_FILE)?) {
            (Some(certificate), Some(key)) => Self::from_pem(&certificate, &key).map_err(|reason| unreadable(&reason)),
            (None, None) => Err(missing()),
            (Some(_), None) => Err(unreadable("ca.key is missing")),
            (None, Some(_)) => Err(unreadable("ca.pem is missing")),
        }
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
        subject.push(DnType::OrganizationName, origin.to_string());
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

fn generate() -> Result<(String, Zeroizing<String>), AuthorityError> {
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
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(CLOCK_SLACK);
    params.not_after = epoch + now.saturating_add(lifetime);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn it_is_made_once_and_opened_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("not/there/yet"));
        assert!(matches!(Authority::open(&state), Err(AuthorityError::Missing(_))));
        let made = Authority::open_or_create(&state).unwrap();
        let opened = Authority::open_or_create(&state).unwrap();
        assert_eq!(made.fingerprint(), opened.fingerprint());
        assert_eq!(fs::metadata(state.path().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(state.path().unwrap().join("authority/ca.key")).unwrap().mode() & 0o777, 0o600);
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
        let left: Vec<_> = fs::read_dir(state.path().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["authority"]);
    }

    fn made() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        Authority::open_or_create(&state).unwrap();
        (dir, state)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Modes are asked for whenever it is opened, not only when it is made.
    #[test]
    fn what_others_can_read_or_change_is_refused() {
        let (_dir, state) = made();
        for (name, sound) in [("", 0o700), ("authority", 0o700), ("authority/ca.key", 0o600), ("authority/ca.pem", 0o600)] {
            let path = state.path().unwrap().join(name);
            for mode in [sound | 0o040, sound | 0o004, sound | 0o022, 0o777] {
                set_mode(&path, mode);
                for opened in [Authority::open(&state), Authority::open_or_create(&state)] {
                    let Err(AuthorityError::Exposed { mode: found, .. }) = opened else { panic!("{name:?} {mode:o}") };
                    assert_eq!(found, mode, "{name:?}");
                }
            }
            set_mode(&path, sound);
            Authority::open(&state).unwrap();
        }
    }

    /// Needs the right to give files away; without it there is nobody else's file to try with.
    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let (_dir, state) = made();
        for name in ["", "authority", "authority/ca.key", "authority/ca.pem"] {
            let path = state.path().unwrap().join(name);
            if std::os::unix::fs::chown(&path, Some(65_534), None).is_err() {
                return;
            }
            for opened in [Authority::open(&state), Authority::open_or_create(&state)] {
                assert!(matches!(opened, Err(AuthorityError::Foreign { owner: 65_534, .. })), "{name:?}");
            }
            std::os::unix::fs::chown(&path, Some(rustix::process::geteuid().as_raw()), None).unwrap();
        }
    }

    #[test]
    fn links_are_not_followed_inside() {
        let (dir, state) = made();
        let path = state.path().unwrap();
        fs::rename(path.join("authority"), dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("moved"), path.join("authority")).unwrap();
        assert!(matches!(Authority::open(&state), Err(AuthorityError::Unexpected { .. })));
        fs::remove_file(path.join("authority")).unwrap();
        fs::rename(dir.path().join("moved"), path.join("authority")).unwrap();
        fs::rename(path.join("authority/ca.key"), dir.path().join("key")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("key"), path.join("authority/ca.key")).unwrap();
        assert!(matches!(Authority::open_or_create(&state), Err(AuthorityError::Unexpected { .. })));
    }

    #[test]
    fn a_prepared_directory_is_tightened_while_it_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        let path = state.path().unwrap();
        fs::create_dir(path).unwrap();
        set_mode(path, 0o755);
        Authority::open_or_create(&state).unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        let other = StateDir::at(dir.path().join("other"));
        fs::create_dir(other.path().unwrap()).unwrap();
        fs::write(other.path().unwrap().join("something"), "").unwrap();
        set_mode(other.path().unwrap(), 0o755);
        let error = Authority::open_or_create(&other).err().unwrap().to_string();
        assert!(error.contains("chmod go= "), "{error}");
    }

    #[test]
    fn half_an_authority_is_none_and_is_not_replaced() {
        for name in ["ca.key", "ca.pem"] {
            let (_dir, state) = made();
            fs::remove_file(state.path().unwrap().join("authority").join(name)).unwrap();
            let error = Authority::open_or_create(&state).err().unwrap().to_string();
            assert!(error.contains(&format!("{name} is missing")), "{error}");
        }
    }

    #[test]
    fn a_damaged_authority_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        Authority::open_or_create(&state).unwrap();
        fs::write(state.path().unwrap().join("authority/ca.pem"), "nonsense").unwrap();
        assert!(matches!(Authority::open_or_create(&state), Err(AuthorityError::Unreadable { .. })));
    }
}
