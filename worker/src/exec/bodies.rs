//! Bodies of tasks, each prepared once, on the slot that first runs it.
//!
//! Preparing parses arguments and may plan a query: too long for the core's lock. A body that cannot be prepared fails every
//! run of it with the same words.

use std::sync::{Arc, OnceLock};

use rask_graphs::evaluate::{self, PreparedBody};
use rask_graphs::{Body, BodyId, GraphId, Registry};
use rustc_hash::FxHashMap;

use super::panics;

/// One body.
pub(super) struct BodyCell {
    body: Body,
    /// What tasks with it are called.
    pub(super) label: Arc<str>,
    /// Names of its operators, joined.
    pub(super) operators: String,
    prepared: OnceLock<Result<PreparedBody, String>>,
}

impl BodyCell {
    /// The body ready to run; the first caller does the work and others wait for it.
    pub(super) fn prepare(&self, registry: &Registry) -> &Result<PreparedBody, String> {
        self.prepared.get_or_init(|| {
            let prepared = panics::catch(|| evaluate::prepare(&self.body, registry));
            prepared.map_err(|panic| format!("preparing panicked: {panic}"))?.map_err(|error| error.to_string())
        })
    }
}

/// The bodies the scheduler has sent, by id. Bounded by the graphs the scheduler keeps; it says when to forget one.
#[derive(Default)]
pub(super) struct Bodies {
    by_id: FxHashMap<BodyId, Arc<BodyCell>>,
}

impl Bodies {
    pub(super) fn add(&mut self, id: BodyId, body: Body, label: &str) {
        let operators = body.name();
        self.by_id.insert(id, Arc::new(BodyCell { body, label: label.into(), operators, prepared: OnceLock::new() }));
    }

    pub(super) fn get(&self, id: BodyId) -> Option<Arc<BodyCell>> {
        self.by_id.get(&id).cloned()
    }

    pub(super) fn forget(&mut self, graph: GraphId) {
        self.by_id.retain(|id, _| id.graph != graph);
    }
}
