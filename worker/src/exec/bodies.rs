//! Bodies of tasks, each prepared once, on the slot that first runs it.
//!
//! Preparing parses arguments and may plan a query: too long for the core's lock. A body that cannot be prepared fails every
//! run of it with the same words.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use rask_graphs::evaluate::{self, PreparedBody};
use rask_graphs::{Body, BodyId, FileAccess, GraphId, Registry};
use rustc_hash::FxHashMap;

use super::panics;

/// One body.
pub(super) struct BodyCell {
    body: Body,
    /// What tasks with it are called.
    pub(super) label: Arc<str>,
    /// Names of its operators, joined.
    pub(super) operators: String,
    /// The files that runs of it may touch.
    pub(super) files: FileAccess,
    prepared: OnceLock<Result<PreparedBody, String>>,
    /// What its runs took lately, in microseconds; see [`BodyCell::expected_us`].
    lately_us: AtomicU32,
}

impl BodyCell {
    /// The body ready to run; the first caller does the work and others wait for it.
    pub(super) fn prepare(&self, registry: &Registry) -> &Result<PreparedBody, String> {
        self.prepared.get_or_init(|| {
            let prepared = panics::catch(|| evaluate::prepare(&self.body, registry));
            prepared.map_err(|panic| format!("preparing panicked: {panic}"))?.map_err(|error| error.to_string())
        })
    }

    /// How long a run is likely to take at most, in microseconds: as long as the last one, or as the longest before that, of
    /// which an eighth is forgotten with each run. For ever when there was none.
    pub(super) fn expected_us(&self) -> u32 {
        self.lately_us.load(Ordering::Relaxed)
    }

    /// A run has taken `duration_us` microseconds. Of two slots that say so at once, one may not be heard.
    pub(super) fn learn(&self, duration_us: u64) {
        let duration_us = u32::try_from(duration_us).unwrap_or(u32::MAX - 1);
        let before = self.expected_us();
        let faded = if before == u32::MAX { 0 } else { before - before / 8 };
        self.lately_us.store(duration_us.max(faded), Ordering::Relaxed);
    }
}

/// The bodies the scheduler has sent, by id. Bounded by the graphs the scheduler keeps; it says when to forget one.
#[derive(Default)]
pub(super) struct Bodies {
    by_id: FxHashMap<BodyId, Arc<BodyCell>>,
}

impl Bodies {
    pub(super) fn add(&mut self, id: BodyId, body: Body, label: &str, files: FileAccess) {
        let operators = body.name();
        let (prepared, lately_us) = (OnceLock::new(), AtomicU32::new(u32::MAX));
        self.by_id.insert(id, Arc::new(BodyCell { body, label: label.into(), operators, files, prepared, lately_us }));
    }

    pub(super) fn get(&self, id: BodyId) -> Option<Arc<BodyCell>> {
        self.by_id.get(&id).cloned()
    }

    pub(super) fn forget(&mut self, graph: GraphId) {
        self.by_id.retain(|id, _| id.graph != graph);
    }
}
