//! What opens results at workers, and conversations between them.
//!
//! Names of results are small numbers, so knowing one proves nothing. A *grant* does: the scheduler gives it to whose graph it
//! is, and whoever asks a worker for results of the graph shows it. A *pass* lets one worker watch at another as the
//! registration it is, with the key of its certificate and no other.
//!
//! Both are keyed hashes (HMAC-SHA256), so nobody has to keep a list. The scheduler makes a secret at each start. Workers get
//! from it, when they are welcomed, the key of all grants, and each the key of the passes to itself; a worker that is not
//! registered has neither, and clients have grants alone.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use rask_graphs::{GraphId, WorkerId};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::data::PartRequest;
use crate::identity::KeyId;

/// Proof that the scheduler allows something; of use to whoever it was given to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Grant([u8; 32]);

/// What grants, passes and other secrets are made from.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecretKey([u8; 32]);

/// What a worker is told of these when it is welcomed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerKeys {
    /// Makes the grants of all graphs.
    pub grants: SecretKey,
    /// Makes the passes to this worker.
    pub passes: SecretKey,
}

#[cfg(test)]
impl Grant {
    pub(crate) const fn for_test() -> Self {
        Self([7; 32])
    }
}

impl SecretKey {
    /// One that nobody can guess.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system has no random numbers"))?;
        Ok(Self(bytes))
    }

    /// As the scheduler's secret: what to tell `worker`.
    #[must_use]
    pub fn for_worker(&self, worker: WorkerId) -> WorkerKeys {
        let numbered = |purpose: &[u8]| Self(self.tag(&[purpose, &worker.0.to_le_bytes()]));
        WorkerKeys { grants: Self(self.tag(&[b"grants"])), passes: numbered(b"passes") }
    }

    /// As the scheduler's secret: the grant of `graph`.
    #[must_use]
    pub fn grant_of(&self, graph: GraphId) -> Grant {
        Self(self.tag(&[b"grants"])).grant(graph)
    }

    /// As the key of all grants: that of `graph`.
    #[must_use]
    pub fn grant(&self, graph: GraphId) -> Grant {
        Grant(self.tag(&[b"graph", &graph.0.to_le_bytes()]))
    }

    /// As the key of all grants: whether `grant` is that of `graph`. Takes as long whichever of its bits are wrong.
    #[must_use]
    pub fn opens(&self, graph: GraphId, grant: &Grant) -> bool {
        self.is_tag(&[b"graph", &graph.0.to_le_bytes()], grant)
    }

    /// As the key of all grants: those of the graphs of `items`.
    #[must_use]
    pub fn grants_of<'a>(&self, items: impl IntoIterator<Item = &'a PartRequest>) -> Grants {
        Grants::of(items.into_iter().map(|item| item.task.graph), |graph| self.grant(graph))
    }

    /// As the key of the passes to a worker: that of the registration `watcher`, whose certificate has the key `key`.
    #[must_use]
    pub fn pass(&self, watcher: WorkerId, key: KeyId) -> Grant {
        Grant(self.tag(&[b"watch", &watcher.0.to_le_bytes(), &key.0]))
    }

    /// As the key of the passes to a worker: whether `pass` is that one.
    #[must_use]
    pub fn admits(&self, watcher: WorkerId, key: KeyId, pass: &Grant) -> bool {
        self.is_tag(&[b"watch", &watcher.0.to_le_bytes(), &key.0], pass)
    }

    fn tag(&self, words: &[&[u8]]) -> [u8; 32] {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.key(), &words.concat()).as_ref());
        tag
    }

    fn is_tag(&self, words: &[&[u8]], tag: &Grant) -> bool {
        hmac::verify(&self.key(), &words.concat(), &tag.0).is_ok()
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// The grants that go with a request: one a graph, in the graphs' order.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Grants(Vec<(GraphId, Grant)>);

impl Grants {
    /// A grant for each of `graphs`, which may name one many times.
    #[must_use]
    pub fn of(graphs: impl IntoIterator<Item = GraphId>, mut grant: impl FnMut(GraphId) -> Grant) -> Self {
        let mut grants = BTreeMap::new();
        let mut last = None;
        for graph in graphs {
            // Most requests are for results of one graph.
            if last.replace(graph) != Some(graph) {
                grants.entry(graph).or_insert_with(|| grant(graph));
            }
        }
        Self(grants.into_iter().collect())
    }

    /// These grants, of graphs that may be named many times.
    #[must_use]
    pub fn given(grants: impl IntoIterator<Item = (GraphId, Grant)>) -> Self {
        let mut given: Vec<(GraphId, Grant)> = Vec::new();
        let mut last = None;
        for (graph, grant) in grants {
            if last.replace(graph) != Some(graph) {
                given.push((graph, grant));
            }
        }
        given.sort_unstable_by_key(|(graph, _)| *graph);
        given.dedup_by_key(|(graph, _)| *graph);
        Self(given)
    }

    /// Those of them that `items` need.
    pub(crate) fn needed_by(&self, items: &[PartRequest]) -> Self {
        let given: BTreeMap<GraphId, Grant> = self.0.iter().copied().collect();
        Self::of(items.iter().map(|item| item.task.graph), |graph| given.get(&graph).copied().unwrap_or_default())
    }

    /// Number of graphs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The graphs whose grants are right, in order.
    pub(crate) fn opened(&self, opens: impl Fn(GraphId, &Grant) -> bool) -> Opened {
        let mut opened: Vec<GraphId> =
            self.0.iter().filter(|(graph, grant)| opens(*graph, grant)).map(|(graph, _)| *graph).collect();
        opened.sort_unstable();
        Opened(opened)
    }
}

/// Graphs of which a request may have results.
pub(crate) struct Opened(Vec<GraphId>);

impl Opened {
    pub(crate) fn has(&self, item: &PartRequest) -> bool {
        self.0.binary_search(&item.task.graph).is_ok()
    }
}

// None of them says anything: they must not end in a log.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_opens_its_graph_alone() {
        let secret = SecretKey::random().unwrap();
        let (one, other) = (secret.for_worker(WorkerId(1)), secret.for_worker(WorkerId(2)));
        assert_eq!(one.grants, other.grants, "any worker makes and knows all grants");
        let grant = secret.grant_of(GraphId(7));
        assert_eq!(grant, one.grants.grant(GraphId(7)));
        assert!(one.grants.opens(GraphId(7), &grant));
        assert!(!one.grants.opens(GraphId(8), &grant) && !one.grants.opens(GraphId(7), &Grant::default()));
        assert!(!SecretKey::random().unwrap().for_worker(WorkerId(1)).grants.opens(GraphId(7), &grant), "of another start");
    }

    #[test]
    fn a_pass_is_one_registrations_with_one_key_to_one_worker() {
        let secret = SecretKey::random().unwrap();
        let (maker, other) = (secret.for_worker(WorkerId(1)).passes, secret.for_worker(WorkerId(2)).passes);
        let (key, another) = (KeyId([1; 16]), KeyId([2; 16]));
        let pass = maker.pass(WorkerId(3), key);
        assert!(maker.admits(WorkerId(3), key, &pass));
        assert!(!maker.admits(WorkerId(4), key, &pass) && !maker.admits(WorkerId(3), another, &pass));
        assert!(!other.admits(WorkerId(3), key, &pass), "no worker can make passes to another");
        assert!(!secret.for_worker(WorkerId(1)).grants.admits(WorkerId(3), key, &pass));
    }

    #[test]
    fn a_request_has_one_grant_a_graph() {
        let key = SecretKey::random().unwrap();
        let graphs = [3, 3, 1, 3, 2, 1].map(GraphId);
        let mut n_made = 0;
        let grants = Grants::of(graphs, |graph| {
            n_made += 1;
            if graph == GraphId(2) { Grant::default() } else { key.grant(graph) }
        });
        assert_eq!((grants.len(), n_made), (3, 3));
        let opened = grants.opened(|graph, grant| key.opens(graph, grant));
        assert_eq!(opened.0, [GraphId(1), GraphId(3)]);
    }
}
