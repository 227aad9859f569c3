//! Join tokens: what a person carries to another host so that a node there may join.
//!
//! `rask1.<role>.<authority>.<id>.<secret>`: the authority's hash lets the node recognise the cluster before it proves that
//! it knows the secret; the scheduler keeps only a hash of the secret, beside the role, the end of the token's life and how
//! often it may still be used. Tokens are files in the state directory, so that making one needs no running scheduler.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::rand::{SecureRandom, SystemRandom};

use crate::authority::{Authority, AuthorityError, AuthorityHash, StateDir, hash_of, make_private_dir, write_private};
use crate::identity::{IdentityError, Role, check_name};

/// First word of every token; another number would be another layout.
const MARK: &str = "rask1";

/// Tells tokens apart. No secret: it stands in the certificates that were made by the token, and in logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct TokenId(pub [u8; 10]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for TokenId {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| BadToken)?;
        Ok(Self(bytes.try_into().map_err(|_| BadToken)?))
    }
}

/// A join token in full, secret included: print it once, for the person who asked for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The role a node gets by it.
    pub role: Role,
    pub(crate) authority: AuthorityHash,
    pub(crate) id: TokenId,
    secret: [u8; 20],
}

/// A text that is no token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a join token: a token looks like {MARK}.worker.<authority>.<id>.<secret>, as `rask token create` prints it")]
pub struct BadToken;

impl Token {
    /// What both sides know and the wire never carries.
    pub(crate) fn secret_hash(&self) -> [u8; 32] {
        hash_of(&self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |bytes: &[u8]| BASE32_NOPAD.encode(bytes).to_ascii_lowercase();
        write!(f, "{MARK}.{}.{}.{}.{}", self.role, encode(&self.authority), encode(&self.id.0), encode(&self.secret))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {})", self.role, self.id)
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.trim().split('.').collect();
        let [MARK, role, authority, id, secret] = words[..] else { return Err(BadToken) };
        Ok(Self {
            role: role.parse().map_err(|_| BadToken)?,
            authority: from_base32(authority)?,
            id: TokenId(from_base32(id)?),
            secret: from_base32(secret)?,
        })
    }
}

fn from_base32<const N: usize>(text: &str) -> Result<[u8; N], BadToken> {
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| BadToken)?;
    bytes.try_into().map_err(|_| BadToken)
}

/// Why a token was not accepted. Travels to the node that showed it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum TokenRefusal {
    /// There is no such token, or its secret is wrong; which of the two is nobody's business.
    #[error("the token is unknown to this cluster")]
    Unknown,
    /// It has ended.
    #[error("the token expired {ago_seconds} s ago; make a new one with `rask token create`")]
    Expired {
        /// How long ago.
        ago_seconds: u64,
    },
    /// It has been used as often as it may be.
    #[error("the token has been used up; make a new one with `rask token create`")]
    UsedUp,
    /// It is for another role.
    #[error("the token is for {}, not for {}", token.with_article(), wanted.with_article())]
    WrongRole {
        /// What it is for.
        token: Role,
        /// What was wanted.
        wanted: Role,
    },
    /// The node's name cannot stand in a certificate.
    #[error("{0}")]
    BadName(String),
    /// The scheduler could not read its tokens or sign.
    #[error("the scheduler cannot accept anybody: {0}")]
    Scheduler(String),
}

/// Why a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// The name that it was to have cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] AuthorityError),
}

/// What the scheduler keeps of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    /// The role a node gets by it.
    pub role: Role,
    /// Whose it is: the name of clients that join by it. Workers choose theirs all the same.
    pub name: Option<String>,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// How often it may still be used; `None` for any number of times until it ends.
    pub n_uses_left: Option<u32>,
    secret_hash: [u8; 32],
}

/// The tokens of a cluster, as files in its state directory.
#[derive(Clone, Debug)]
pub struct TokenStore {
    directory: PathBuf,
}

impl TokenStore {
    /// The tokens of `state`; the directory is made when the first token is.
    #[must_use]
    pub fn of(state: &StateDir) -> Self {
        Self { directory: state.join("tokens") }
    }

    /// Make a token for `role` that ends after `lifetime` and can be used `n_uses` times (`None`: any number). What clients do
    /// that join by it is `name`'s, or the token's own when it has none.
    ///
    /// # Errors
    /// When the name is unusable or the state directory cannot be written.
    pub fn create(
        &self,
        authority: &Authority,
        role: Role,
        name: Option<&str>,
        lifetime: Duration,
        n_uses: Option<u32>,
    ) -> Result<Token, CreateTokenError> {
        name.map_or(Ok(()), check_name)?;
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0; 10], [0; 20]);
        for bytes in [&mut id[..], &mut secret[..]] {
            random.fill(bytes).map_err(|_| AuthorityError::Making("the system has no random numbers".to_owned()))?;
        }
        let id = TokenId(id);
        let token = Token { role, authority: authority.hash(), id, secret };
        let expires = seconds_now().saturating_add(lifetime.as_secs());
        let record =
            TokenRecord { role, name: name.map(str::to_owned), expires, n_uses_left: n_uses, secret_hash: token.secret_hash() };
        make_private_dir(&self.directory)?;
        self.forget_expired();
        write_private(&self.path(&id), record.to_text().as_bytes())?;
        Ok(token)
    }

    fn path(&self, id: &TokenId) -> PathBuf {
        self.directory.join(format!("{id}.token"))
    }

    /// Take one use of the token `id` for a node that wants to be `wanted` and whose proof `is_right` for the secret's hash.
    /// The proof comes first: whoever cannot make it learns nothing.
    pub(crate) fn redeem(
        &self,
        id: &TokenId,
        wanted: Role,
        is_right: impl FnOnce(&[u8; 32]) -> bool,
    ) -> Result<TokenRecord, TokenRefusal> {
        let scheduler = |error: io::Error| TokenRefusal::Scheduler(error.to_string());
        // Two nodes may come with the last use at once: a lock on the directory lets one of them have it.
        let lock = match File::open(&self.directory) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokenRefusal::Unknown),
            Err(error) => return Err(scheduler(error)),
        };
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| scheduler(error.into()))?;
        let path = self.path(id);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TokenRefusal::Unknown),
            Err(error) => return Err(scheduler(error)),
        };
        let mut record =
            TokenRecord::of_text(&text).ok_or_else(|| TokenRefusal::Scheduler(format!("{} is damaged", path.display())))?;
        if !is_right(&record.secret_hash) {
            return Err(TokenRefusal::Unknown);
        }
        if let Some(ago_seconds) = seconds_now().checked_sub(record.expires) {
            return Err(TokenRefusal::Expired { ago_seconds });
        }
        if record.role != wanted {
            return Err(TokenRefusal::WrongRole { token: record.role, wanted });
        }
        if let Some(n_left) = record.n_uses_left {
            record.n_uses_left = Some(n_left.checked_sub(1).ok_or(TokenRefusal::UsedUp)?);
            replace(&path, &record.to_text()).map_err(scheduler)?;
        }
        Ok(record)
    }

    /// Remove tokens that ended more than a week ago. Younger ones stay, so that a node can be told why it is refused.
    fn forget_expired(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let long_ago = seconds_now().saturating_sub(7 * 86_400);
        for entry in entries.flatten() {
            let record = fs::read_to_string(entry.path()).ok().and_then(|text| TokenRecord::of_text(&text));
            if record.is_some_and(|record| record.expires < long_ago) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Write beside the file and rename: a crash leaves the old or the new one.
fn replace(path: &std::path::Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl TokenRecord {
    fn to_text(&self) -> String {
        let uses = self.n_uses_left.map_or("any".to_owned(), |n_uses| n_uses.to_string());
        let secret = HEXLOWER.encode(&self.secret_hash);
        let name = self.name.as_ref().map_or_else(String::new, |name| format!("name {name}\n"));
        format!("role {}\nexpires {}\nuses {uses}\nsecret {secret}\n{name}", self.role, self.expires)
    }

    fn of_text(text: &str) -> Option<Self> {
        let mut values = Vec::new();
        for (line, name) in text.lines().zip(["role", "expires", "uses", "secret"]) {
            values.push(line.strip_prefix(name)?.trim());
        }
        let [role, expires, uses, secret] = values[..] else { return None };
        let name = match text.lines().nth(4) {
            Some(line) => Some(line.strip_prefix("name ")?.to_owned()),
            None => None,
        };
        name.as_deref().map_or(Ok(()), check_name).ok()?;
        Some(Self {
            role: role.parse().ok()?,
            name,
            expires: expires.parse().ok()?,
            n_uses_left: if uses == "any" { None } else { Some(uses.parse().ok()?) },
            secret_hash: HEXLOWER.decode(secret.as_bytes()).ok()?.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn store() -> (tempfile::TempDir, Authority, TokenStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = TokenStore::of(&StateDir::at(dir.path().join("state")));
        (dir, Authority::throw_away().unwrap(), store)
    }

    #[test]
    fn tokens_survive_printing() {
        let (_dir, authority, store) = store();
        let token = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        let text = token.to_string();
        assert!(text.starts_with("rask1.worker."));
        assert!(format!(" {text}\n").parse::<Token>().unwrap() == token);
        assert!(!format!("{token:?}").contains(text.rsplit('.').next().unwrap()), "logs must not carry the secret");
    }

    #[test]
    fn anything_else_is_no_token() {
        let (_dir, authority, store) = store();
        let text = store.create(&authority, Role::Worker, None, HOUR, None).unwrap().to_string();
        for wrong in ["", "hello", &text[1..], &text[..text.len() - 3], &text.replace("worker", "king"), &format!("{text}.x")] {
            assert_eq!(wrong.parse::<Token>(), Err(BadToken), "{wrong}");
        }
    }

    #[test]
    fn tokens_end_by_time_role_and_use() {
        let (_dir, authority, store) = store();
        let redeem = |token: &Token, role: Role| {
            let hash = token.secret_hash();
            store.redeem(&token.id, role, |kept| *kept == hash).map(|record| record.n_uses_left)
        };
        let any = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        assert_eq!(redeem(&any, Role::Worker), Ok(None));
        assert_eq!(redeem(&any, Role::Worker), Ok(None));
        let wrong_role = TokenRefusal::WrongRole { token: Role::Worker, wanted: Role::Admin };
        assert_eq!(redeem(&any, Role::Admin), Err(wrong_role));

        let twice = store.create(&authority, Role::Client, None, HOUR, Some(2)).unwrap();
        assert_eq!(redeem(&twice, Role::Client), Ok(Some(1)));
        assert_eq!(redeem(&twice, Role::Client), Ok(Some(0)));
        assert_eq!(redeem(&twice, Role::Client), Err(TokenRefusal::UsedUp));

        let over = store.create(&authority, Role::Client, None, Duration::ZERO, None).unwrap();
        assert!(matches!(redeem(&over, Role::Client), Err(TokenRefusal::Expired { .. })));

        let mut forged = any.clone();
        forged.secret[0] ^= 1;
        assert_eq!(redeem(&forged, Role::Worker), Err(TokenRefusal::Unknown));
        forged.id.0[0] ^= 1;
        assert_eq!(redeem(&forged, Role::Worker), Err(TokenRefusal::Unknown));
    }

    #[test]
    fn a_token_keeps_the_name_it_was_given() {
        let (_dir, authority, store) = store();
        for name in [None, Some("alice"), Some("Ann Lee (team 7)")] {
            let token = store.create(&authority, Role::Client, name, HOUR, Some(2)).unwrap();
            // Twice, so that the record is written again in between.
            for _ in 0..2 {
                assert_eq!(store.redeem(&token.id, Role::Client, |_| true).unwrap().name.as_deref(), name);
            }
        }
        for name in ["", "a\nrole admin", "evil\u{202e}", " alice", &"x".repeat(65)] {
            let refused = store.create(&authority, Role::Client, Some(name), HOUR, None);
            assert!(matches!(refused, Err(CreateTokenError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn the_last_use_goes_to_one() {
        let (_dir, authority, store) = store();
        let token = store.create(&authority, Role::Worker, None, HOUR, Some(3)).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (store, token) = (store.clone(), token.clone());
                std::thread::spawn(move || store.redeem(&token.id, Role::Worker, |_| true).is_ok())
            })
            .collect();
        let n_redeemed = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count();
        assert_eq!(n_redeemed, 3);
    }
}
