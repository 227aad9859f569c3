//! Who may take how much of an endpoint: handshakes under way, by address, and connections, by certificate and address.
//!
//! Nobody is kept out by somebody else's silence. When there are too many handshakes, the oldest of the address with the most is
//! ended, not the newest turned away: an honest one is over in a few milliseconds, so what is old is stuck. On a host's own
//! loopback all peers have one address; there the oldest of all goes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::identity::{KeyId, PeerIdentity, Role};
use crate::limits::{MAX_ADDRESS_CONNECTIONS, max_connections_of};
use crate::plane::Plane;

/// What counts as one address: a host of IPv4, a network of 64 bits of IPv6, which is what one host is usually given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Prefix(IpAddr);

impl Prefix {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) if address.is_loopback() => Self(IpAddr::V6(address)),
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))),
        }
    }

    fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

/// A bounded number of things under way, each with a way to end it.
#[derive(Clone)]
pub(crate) struct Waiting {
    places: Arc<Mutex<Places>>,
    max: usize,
    /// Of one address, unless it is loopback.
    max_of_one: usize,
}

#[derive(Default)]
struct Places {
    /// By age.
    taken: BTreeMap<u64, (Prefix, Arc<Notify>)>,
    n_of: HashMap<Prefix, usize>,
    next: u64,
}

/// A place among what is under way; given back when dropped.
pub(crate) struct Place {
    places: Arc<Mutex<Places>>,
    number: u64,
    evicted: Arc<Notify>,
}

impl Waiting {
    pub(crate) fn new(max: usize, max_of_one: usize) -> Self {
        Self { places: Arc::default(), max: max.max(1), max_of_one: max_of_one.max(1) }
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        lock(&self.places).taken.len()
    }

    /// Take a place, from whoever has had one too long if need be.
    pub(crate) fn take(&self, address: IpAddr) -> Place {
        let prefix = Prefix::of(address);
        let mut places = lock(&self.places);
        let n_own = places.n_of.get(&prefix).copied().unwrap_or(0);
        if n_own >= self.max_of_one && !prefix.is_loopback() {
            places.evict(prefix);
        } else if places.taken.len() >= self.max
            && let Some(greediest) = places.n_of.iter().max_by_key(|(prefix, n)| (**n, **prefix)).map(|(prefix, _)| *prefix)
        {
            places.evict(greediest);
        }
        let number = places.next;
        places.next += 1;
        let evicted = Arc::new(Notify::new());
        places.taken.insert(number, (prefix, Arc::clone(&evicted)));
        *places.n_of.entry(prefix).or_default() += 1;
        Place { places: Arc::clone(&self.places), number, evicted }
    }
}

impl Places {
    /// End the oldest of an address.
    fn evict(&mut self, prefix: Prefix) {
        let oldest = self.taken.iter().find(|(_, (of, _))| *of == prefix).map(|(number, _)| *number);
        if let Some((_, evicted)) = oldest.and_then(|number| self.give_back(number)) {
            evicted.notify_one();
        }
    }

    fn give_back(&mut self, number: u64) -> Option<(Prefix, Arc<Notify>)> {
        let (prefix, evicted) = self.taken.remove(&number)?;
        if let Some(n) = self.n_of.get_mut(&prefix) {
            *n -= 1;
            if *n == 0 {
                self.n_of.remove(&prefix);
            }
        }
        Some((prefix, evicted))
    }
}

impl Place {
    /// Ready when somebody else has been given the place.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places).give_back(self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections that have been let in, by certificate and by address.
#[derive(Clone, Default)]
pub(crate) struct Seats {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    of_key: HashMap<(Plane, KeyId), usize>,
    of_name: HashMap<(Plane, Role, String), usize>,
    of_address: HashMap<Prefix, usize>,
}

/// The seat of one connection; given back when the last of its clones is dropped.
pub(crate) struct Seat {
    taken: Arc<Mutex<Taken>>,
    key: (Plane, KeyId),
    name: (Plane, Role, String),
    prefix: Prefix,
}

impl Seats {
    /// A seat for a connection of `peer`.
    ///
    /// # Errors
    /// Which limit is reached, with the count.
    pub(crate) fn take(&self, plane: Plane, peer: &PeerIdentity, address: IpAddr) -> Result<Seat, String> {
        let mut taken = lock(&self.taken);
        let prefix = Prefix::of(address);
        let (max_of_key, max_of_name) = max_connections_of(plane);
        let (key, name) = ((plane, peer.key), (plane, peer.role, peer.name.clone()));
        let n_of_key = taken.of_key.get(&key).copied().unwrap_or(0);
        let n_of_name = taken.of_name.get(&name).copied().unwrap_or(0);
        for (n_own, limit, whose) in [(n_of_key, max_of_key, "this key of "), (n_of_name, max_of_name, "")] {
            if n_own >= limit {
                return Err(format!("{whose}{peer} has {n_own} connections here, and at most {limit} are possible"));
            }
        }
        let n_there = taken.of_address.get(&prefix).copied().unwrap_or(0);
        if n_there >= MAX_ADDRESS_CONNECTIONS && !prefix.is_loopback() {
            return Err(format!("{n_there} connections come from {address}, and at most {MAX_ADDRESS_CONNECTIONS} are possible"));
        }
        taken.of_key.insert(key, n_of_key + 1);
        taken.of_name.insert(name.clone(), n_of_name + 1);
        taken.of_address.insert(prefix, n_there + 1);
        Ok(Seat { taken: Arc::clone(&self.taken), key, name, prefix })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        let taken = &mut *taken;
        subtract(&mut taken.of_key, &self.key);
        subtract(&mut taken.of_name, &self.name);
        subtract(&mut taken.of_address, &self.prefix);
    }
}

fn subtract<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::identity::Origin;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_evicted(place: &Place) -> bool {
        place.evicted().now_or_never().is_some()
    }

    #[test]
    fn an_address_that_floods_costs_others_nothing() {
        let waiting = Waiting::new(8, 4);
        let honest = waiting.take(address("10.0.0.1"));
        let flood: Vec<Place> = (0..1_000).map(|_| waiting.take(address("10.0.0.2"))).collect();
        assert!(!is_evicted(&honest));
        assert_eq!(waiting.len(), 5);
        assert_eq!(flood.iter().filter(|place| !is_evicted(place)).count(), 4, "the newest of it");
        drop((honest, flood));
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn many_addresses_that_flood_lose_the_oldest_of_the_greediest() {
        let waiting = Waiting::new(8, 4);
        let flood: Vec<Place> = (0..100).map(|idx| waiting.take(address(&format!("10.0.1.{}", idx % 3)))).collect();
        let honest = waiting.take(address("10.0.0.1"));
        let more: Vec<Place> = (0..100).map(|idx| waiting.take(address(&format!("10.0.1.{}", idx % 3)))).collect();
        assert!(!is_evicted(&honest));
        assert!(waiting.len() <= 8);
        drop((flood, more));
    }

    #[test]
    fn on_loopback_the_oldest_goes_and_the_newest_comes_in() {
        let waiting = Waiting::new(8, 4);
        let places: Vec<Place> = (0..100).map(|_| waiting.take(address("127.0.0.1"))).collect();
        let evicted: Vec<bool> = places.iter().map(is_evicted).collect();
        assert!(evicted[..92].iter().all(|evicted| *evicted) && evicted[92..].iter().all(|evicted| !evicted));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(Prefix::of(address("2001:db8::1")), Prefix::of(address("2001:db8::ffff:1:2")));
        assert_ne!(Prefix::of(address("2001:db8:0:1::1")), Prefix::of(address("2001:db8::1")));
        assert_eq!(Prefix::of(address("::ffff:10.0.0.1")), Prefix::of(address("10.0.0.1")));
        assert_ne!(Prefix::of(address("10.0.0.2")), Prefix::of(address("10.0.0.1")));
    }

    #[test]
    fn a_certificate_has_so_many_connections_and_gets_them_back() {
        let seats = Seats::default();
        let peer = |name: &str, key: u8| PeerIdentity {
            role: Role::Client,
            name: name.to_owned(),
            origin: Origin::Local,
            key: KeyId([key; 16]),
        };
        let take = |name: &str, key: u8| seats.take(Plane::Client, &peer(name, key), address("127.0.0.1"));
        let (of_key, of_name) = max_connections_of(Plane::Client);
        let mut own: Vec<Seat> = (0..of_key).map(|_| take("greedy", 1).unwrap()).collect();
        let refused = take("greedy", 1).err().unwrap();
        assert!(refused.contains(&format!("has {of_key} connections here, and at most {of_key}")), "{refused}");
        assert!(take("modest", 2).is_ok());
        own.pop();
        own.push(take("greedy", 1).unwrap());
        // More keys of one name do not help.
        let others: Vec<Seat> = (0..of_name).filter_map(|idx| take("greedy", 3 + (idx / of_key) as u8).ok()).collect();
        assert_eq!(own.len() + others.len(), of_name);
        assert!(take("modest", 2).is_ok());
    }
}
