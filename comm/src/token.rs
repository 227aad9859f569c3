//! Join tokens: what a person carries to another host so that a node there may join.
//!
//! `rask1.<role>.<authority>.<id>.<secret>`: the authority's hash lets the node recognise the cluster before it proves that
//! it knows the secret. The secret makes a key pair (Ed25519); the scheduler keeps the public half, beside the role, the end of the
//! token's life and how often it may still be used, so who reads what is kept cannot join by it. Tokens are files in the state
//! directory, so that making one needs no running scheduler. A record stays while certificates made by its token may be good.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::authority::{Authority, AuthorityError, AuthorityHash, NODE_LIFETIME, StateDir, hash_of};
use crate::identity::{IdentityError, Role, check_name};
use crate::private::PrivateDir;

/// First word of every token; another number would be another layout.
const MARK: &str = "rask1";

const DIRECTORY: &str = "tokens";
const EXTENSION: &str = "token";

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
    /// The key pair that the secret makes; its private half proves that one knows the secret.
    fn key_pair(&self) -> Result<Ed25519KeyPair, AuthorityError> {
        // Labelled, so that no other use of the secret can ever make the same key.
        let seed = hash_of(&[b"rask join token\0", &self.secret[..]].concat());
        Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| AuthorityError::Making(error.to_string()))
    }

    /// What the scheduler keeps: enough to check a proof, not to make one.
    pub(crate) fn verifier(&self) -> Result<Verifier, AuthorityError> {
        let mut verifier = [0; 32];
        verifier.copy_from_slice(self.key_pair()?.public_key().as_ref());
        Ok(Verifier(verifier))
    }

    /// The proof that one knows the secret, for `input` alone.
    pub(crate) fn prove(&self, input: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.key_pair()?.sign(input).as_ref().to_vec())
    }
}

/// The public half of the key pair that a token's secret makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verifier([u8; 32]);

impl Verifier {
    /// Whether `proof` was made for `input` by somebody who knows the secret.
    pub(crate) fn accepts(&self, input: &[u8], proof: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(input, proof).is_ok()
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
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
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
    /// When it was revoked, in seconds since 1970, if it was.
    pub revoked: Option<u64>,
    verifier: Verifier,
}

/// The tokens of a cluster, as files in its state directory.
#[derive(Clone, Debug)]
pub struct TokenStore {
    state: StateDir,
}

impl TokenStore {
    /// The tokens of `state`; the directory is made when the first token is.
    #[must_use]
    pub fn of(state: &StateDir) -> Self {
        Self { state: state.clone() }
    }

    /// Their directory; `None` when no token was ever made.
    fn open(&self) -> Result<Option<PrivateDir>, AuthorityError> {
        self.state.open()?.sub(DIRECTORY)
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
        let verifier = token.verifier()?;
        let name = name.map(str::to_owned);
        let record = TokenRecord { role, name, expires, n_uses_left: n_uses, revoked: None, verifier };
        let directory = self.state.open_or_make()?.make_sub(DIRECTORY)?;
        forget_old(&directory)?;
        directory.write_new(&file_of(&id), record.to_text().as_bytes())?;
        Ok(token)
    }

    /// Take one use of the token `id` for a node that wants to be `wanted` and whose proof `is_right` for the secret's hash.
    /// The proof comes first: whoever cannot make it learns nothing.
    pub(crate) fn redeem(
        &self,
        id: &TokenId,
        wanted: Role,
        is_right: impl FnOnce(&Verifier) -> bool,
    ) -> Result<TokenRecord, TokenRefusal> {
        let failed = |error: AuthorityError| {
            // Paths and modes are for whoever runs the scheduler.
            tracing::error!(%error, "the join tokens cannot be used");
            TokenRefusal::Scheduler("its join tokens cannot be used; its log says why".to_owned())
        };
        let Some(directory) = self.open().map_err(failed)? else { return Err(TokenRefusal::Unknown) };
        // Two nodes may come with the last use at once: a lock on the directory lets one of them have it.
        let _lock = directory.lock().map_err(failed)?;
        let Some(mut record) = record_of(&directory, id).map_err(failed)? else { return Err(TokenRefusal::Unknown) };
        if !is_right(&record.verifier) {
            return Err(TokenRefusal::Unknown);
        }
        if record.revoked.is_some() {
            return Err(TokenRefusal::Revoked);
        }
        if let Some(ago_seconds) = seconds_now().checked_sub(record.expires) {
            return Err(TokenRefusal::Expired { ago_seconds });
        }
        if record.role != wanted {
            return Err(TokenRefusal::WrongRole { token: record.role, wanted });
        }
        if let Some(n_left) = record.n_uses_left {
            record.n_uses_left = Some(n_left.checked_sub(1).ok_or(TokenRefusal::UsedUp)?);
            directory.replace(&file_of(id), record.to_text().as_bytes()).map_err(failed)?;
        }
        Ok(record)
    }

    /// All tokens that nodes may have certificates by, by id.
    ///
    /// # Errors
    /// When there is no cluster here, or its tokens cannot be read or trusted.
    pub fn list(&self) -> Result<Vec<(TokenId, TokenRecord)>, AuthorityError> {
        let Some(directory) = self.open()? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for id in ids_in(&directory)? {
            found.extend(record_of(&directory, &id)?.map(|record| (id, record)));
        }
        Ok(found)
    }

    /// Revoke a token: nobody joins by it any more, and the scheduler lets go of those who have. Whether there is such a token.
    ///
    /// # Errors
    /// When there is no cluster here, or its tokens cannot be read, trusted or written.
    pub fn revoke(&self, id: &TokenId) -> Result<bool, AuthorityError> {
        let Some(directory) = self.open()? else { return Ok(false) };
        let _lock = directory.lock()?;
        let Some(mut record) = record_of(&directory, id)? else { return Ok(false) };
        record.revoked.get_or_insert(seconds_now());
        directory.replace(&file_of(id), record.to_text().as_bytes())?;
        Ok(true)
    }

    /// The tokens that were revoked and by which nodes may still have certificates.
    ///
    /// # Errors
    /// As [`TokenStore::list`].
    pub fn revoked(&self) -> Result<BTreeSet<TokenId>, AuthorityError> {
        Ok(self.list()?.into_iter().filter(|(_, record)| record.revoked.is_some()).map(|(id, _)| id).collect())
    }
}

fn file_of(id: &TokenId) -> String {
    format!("{id}.{EXTENSION}")
}

fn ids_in(directory: &PrivateDir) -> Result<BTreeSet<TokenId>, AuthorityError> {
    let ids = directory.names()?.into_iter().filter_map(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok());
    Ok(ids.collect())
}

fn record_of(directory: &PrivateDir, id: &TokenId) -> Result<Option<TokenRecord>, AuthorityError> {
    let name = file_of(id);
    let Some(text) = directory.read(&name)? else { return Ok(None) };
    let unreadable = || AuthorityError::Unreadable {
        path: directory.path().join(&name),
        reason: "not the record of a token, or one of another version".to_owned(),
    };
    TokenRecord::of_text(&text).map(Some).ok_or_else(unreadable)
}

/// Remove tokens by which nobody can have a certificate any more. The others stay, so that they can be revoked, and a node can be
/// told why it is refused.
fn forget_old(directory: &PrivateDir) -> Result<(), AuthorityError> {
    let long_ago = seconds_now().saturating_sub(NODE_LIFETIME.as_secs() + 86_400);
    for id in ids_in(directory)? {
        // One that cannot be read is kept: somebody may want to know why.
        if let Ok(Some(record)) = record_of(directory, &id)
            && record.expires < long_ago
        {
            directory.remove(&file_of(&id))?;
        }
    }
    Ok(())
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl TokenRecord {
    fn to_text(&self) -> String {
        let uses = self.n_uses_left.map_or("any".to_owned(), |n_uses| n_uses.to_string());
        let verifier = HEXLOWER.encode(&self.verifier.0);
        let revoked = self.revoked.map_or_else(String::new, |at| format!("revoked {at}\n"));
        let name = self.name.as_ref().map_or_else(String::new, |name| format!("name {name}\n"));
        format!("role {}\nexpires {}\nuses {uses}\nverifier {verifier}\n{revoked}{name}", self.role, self.expires)
    }

    fn of_text(text: &str) -> Option<Self> {
        let mut lines = text.lines().peekable();
        let mut value_of = |name: &str| Some(lines.next()?.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
        let (role, expires, uses, verifier) = (value_of("role")?, value_of("expires")?, value_of("uses")?, value_of("verifier")?);
        let mut optional = |name: &str| lines.next_if(|line| line.starts_with(name)).map(|line| line[name.len()..].to_owned());
        let (revoked, name) = (optional("revoked "), optional("name "));
        if lines.next().is_some() {
            return None;
        }
        name.as_deref().map_or(Ok(()), check_name).ok()?;
        Some(Self {
            role: role.parse().ok()?,
            name,
            expires: expires.parse().ok()?,
            n_uses_left: if uses == "any" { None } else { Some(uses.parse().ok()?) },
            revoked: revoked.map(|at| at.parse()).transpose().ok()?,
            verifier: Verifier(HEXLOWER.decode(verifier.as_bytes()).ok()?.try_into().ok()?),
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
            let proof = token.prove(b"x").unwrap();
            store.redeem(&token.id, role, |kept| kept.accepts(b"x", &proof)).map(|record| record.n_uses_left)
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

    #[test]
    fn what_is_kept_is_no_proof() {
        let (_dir, authority, store) = store();
        let token = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        let path = store.state.path().unwrap().join("tokens").join(file_of(&token.id));
        let text = std::fs::read_to_string(path).unwrap();
        let kept = HEXLOWER.decode(text.lines().nth(3).unwrap().strip_prefix("verifier ").unwrap().as_bytes()).unwrap();
        assert_eq!(kept, token.verifier().unwrap().0);
        assert!(!text.contains(&HEXLOWER.encode(&token.secret)), "{text}");
        let proof = token.prove(b"session").unwrap();
        let verifier = token.verifier().unwrap();
        assert!(verifier.accepts(b"session", &proof) && !verifier.accepts(b"other session", &proof));
        // What an attacker who has read the file could try: a key made of what is kept.
        let mut thief = token.clone();
        thief.secret.copy_from_slice(&kept[..20]);
        let by_seed = Ed25519KeyPair::from_seed_unchecked(&kept).unwrap().sign(b"session");
        for forged in [thief.prove(b"session").unwrap(), by_seed.as_ref().to_vec(), kept, Vec::new()] {
            assert!(!verifier.accepts(b"session", &forged));
        }
    }

    #[test]
    fn a_revoked_token_is_refused_and_remembered() {
        let (_dir, authority, store) = store();
        let one = store.create(&authority, Role::Client, Some("alice"), HOUR, Some(3)).unwrap();
        let two = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
        assert!(store.revoked().unwrap().is_empty());
        assert!(store.revoke(&one.id).unwrap());
        assert!(store.revoke(&one.id).unwrap(), "once more does no harm");
        assert!(!store.revoke(&TokenId([9; 10])).unwrap());
        assert_eq!(store.redeem(&one.id, Role::Client, |_| true).map(|_| ()), Err(TokenRefusal::Revoked));
        assert_eq!(store.redeem(&one.id, Role::Client, |_| false).map(|_| ()), Err(TokenRefusal::Unknown));
        assert!(store.redeem(&two.id, Role::Worker, |_| true).is_ok());
        assert_eq!(store.revoked().unwrap(), BTreeSet::from([one.id]));
        let records: std::collections::BTreeMap<_, _> = store.list().unwrap().into_iter().collect();
        let record = &records[&one.id];
        assert_eq!((record.name.as_deref(), record.n_uses_left, record.revoked.is_some()), (Some("alice"), Some(3), true));
    }

    /// A record is dropped only once no certificate made by its token can be good.
    #[test]
    fn records_outlive_certificates() {
        let (_dir, authority, store) = store();
        let (young, old) = (TokenId([1; 10]), TokenId([2; 10]));
        let token = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        let (_, sound) = store.list().unwrap().remove(0);
        let directory = store.open().unwrap().unwrap();
        for (id, days) in [(young, 29), (old, 32)] {
            let record = TokenRecord { expires: seconds_now() - days * 86_400, ..sound.clone() };
            directory.write_new(&file_of(&id), record.to_text().as_bytes()).unwrap();
        }
        let last = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        let left: BTreeSet<_> = store.list().unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, BTreeSet::from([token.id, last.id, young]));
    }

    #[test]
    fn tokens_that_others_can_make_or_read_are_not_trusted() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, authority, store) = store();
        let token = store.create(&authority, Role::Worker, None, HOUR, None).unwrap();
        let tokens = store.state.path().unwrap().join("tokens");
        let record = tokens.join(file_of(&token.id));
        for (path, mode, sound) in
            [(&tokens, 0o777, 0o700), (&tokens, 0o750, 0o700), (&record, 0o644, 0o600), (&record, 0o620, 0o600)]
        {
            let set_mode = |mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            set_mode(mode);
            let refused = store.redeem(&token.id, Role::Worker, |_| true);
            assert!(matches!(refused, Err(TokenRefusal::Scheduler(_))), "{} {mode:o}", path.display());
            assert!(store.list().is_err() && store.revoke(&token.id).is_err());
            set_mode(sound);
            assert!(store.redeem(&token.id, Role::Worker, |_| true).is_ok());
        }
        // As when another user has prepared it; needs the right to give files away.
        if std::os::unix::fs::chown(&record, Some(65_534), None).is_ok() {
            assert!(matches!(store.redeem(&token.id, Role::Worker, |_| true), Err(TokenRefusal::Scheduler(_))));
        }
    }
}
