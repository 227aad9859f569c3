//! Results come straight from the workers that hold them: ask the scheduler where, fetch, and ask again when that failed.
//!
//! Many are fetched side by side, from all their holders at once, small ones many to a request. What has been asked for and not
//! handed out is bounded in bytes, since sizes are known before anything moves. One connection a worker carries them. It is
//! QUIC also on a worker's own host: the handover within a host is agreed on between workers only.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt};
use rask_comm::message::{FromClient, Holder, TaskFailure, part_nbytes};
use rask_comm::{Grant, Grants, PartRequest};
use rask_graphs::{Part, TaskId, Value, WorkerId};
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::job::describe_failure;
use crate::session::{Disconnected, Located, Location};
use crate::transfer::TransferMeter;

/// What comes of the items of a request: each by its place in it, with an error in words for what does not come.
pub(crate) type Fetching = mpsc::UnboundedReceiver<(usize, Result<Value, Miss>)>;

/// Why a holder did not serve a result.
pub(crate) struct Miss {
    pub(crate) reason: String,
    /// Whether every holder would say the same, so that trying again is of no use.
    pub(crate) is_final: bool,
}

impl Miss {
    pub(crate) fn of(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_final: false }
    }
}

/// How a request is made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Whether others have all of it, so that this holder need not be waited for.
    pub(crate) has_others: bool,
    /// How long to wait before, after others have failed.
    pub(crate) pause: Duration,
}

/// Fetches results from holders: out of a store in process, over QUIC otherwise.
pub(crate) trait PartSource: Send + Sync {
    /// Fetch `items`, which `grants` open, from one holder. Should the answers end early, the rest will not come.
    fn fetch(&self, holder: &Holder, grants: Grants, items: Vec<PartRequest>, manner: Manner) -> Fetching;
}

/// Why a result could not be gathered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GatherError {
    /// The task failed, or its result was released.
    #[error("{}", describe_failure(.0))]
    Failed(Box<TaskFailure>),
    /// The result has no such part.
    #[error("result {task} has {n_parts} parts, and part {part} was asked for")]
    NoSuchPart {
        /// The result.
        task: TaskId,
        /// Its parts.
        n_parts: u32,
        /// The one asked for.
        part: u32,
    },
    /// The scheduler named holders, again and again, that could not serve it.
    #[error("result {task} could not be fetched: {reason}")]
    Unreachable {
        /// The result.
        task: TaskId,
        /// What the last holder said.
        reason: String,
    },
    /// The scheduler has gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

/// How many results are gathered.
#[derive(Clone, Debug)]
pub struct GatherOptions {
    /// The part wanted of each.
    pub part: Part,
    /// Bytes of results that have been asked for and not handed out, at most. One result may be longer; it comes alone.
    pub nbytes_in_flight: u64,
    /// Whether they are handed out in the order in which they were named, rather than as they come.
    pub is_in_order: bool,
    /// What shows how far it is.
    pub meter: TransferMeter,
}

impl Default for GatherOptions {
    /// Whole results, in order, 256 MiB.
    fn default() -> Self {
        Self { part: Part::WHOLE, nbytes_in_flight: 256 << 20, is_in_order: true, meter: TransferMeter::default() }
    }
}

/// How often a result is tried to be fetched; after each failure the scheduler is asked where it is now.
const N_TRIES: u32 = 16;
/// How many results beyond those handed out the scheduler is asked about.
const N_ASKED_AHEAD: usize = 8_192;
/// How many in one message.
const ASKED_AT_ONCE: usize = 1_024;
/// Results this long are fetched with others only up to so many bytes a request, and so many items.
const REQUEST_NBYTES: u64 = 1 << 20;
const REQUEST_ITEMS: usize = 1_024;
/// Requests that are under way to one worker.
const N_REQUESTS: usize = 2;

/// How long to wait before a result is asked for after so many failures: nothing at first, since another holder may have it.
fn pause_after(n_failures: u32) -> Duration {
    match n_failures {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(50 << (n - 2).min(6)).min(Duration::from_secs(2)),
    }
}

enum News {
    Located(usize, Result<Located, Disconnected>),
    Fetched(usize, WorkerId, Result<Value, Miss>),
    /// A request to this worker is over.
    Over(WorkerId),
}

/// A result that is where it can be fetched.
struct Place {
    location: Location,
    nbytes: u64,
}

/// Results that come one by one; made by [`Client::gather_many`] and its like.
pub struct Gathering {
    client: Client,
    ids: Vec<TaskId>,
    options: GatherOptions,
    n_asked: usize,
    n_given: usize,
    news: SelectAll<BoxStream<'static, News>>,
    /// Known where, and not asked for, by place in `ids`.
    located: BTreeMap<usize, Place>,
    /// Asked for: its expected bytes, and the attempt of the result.
    fetching: FxHashMap<usize, u64>,
    arrived: BTreeMap<usize, (u64, Result<Value, GatherError>)>,
    n_tries: FxHashMap<usize, u32>,
    n_requests: BTreeMap<WorkerId, usize>,
    /// Bytes of what has been asked for and not handed out, and of what was handed out last.
    nbytes: u64,
    nbytes_last: u64,
    /// Whether something has happened since the last look for what could be fetched, or memory was all that kept it back.
    is_due: bool,
}

impl Gathering {
    pub(crate) fn new(client: Client, ids: Vec<TaskId>, options: GatherOptions) -> Self {
        options.meter.update(|progress| progress.n_total = Some(ids.len() as u64));
        Self {
            client,
            ids,
            options,
            n_asked: 0,
            n_given: 0,
            news: SelectAll::new(),
            located: BTreeMap::new(),
            fetching: FxHashMap::default(),
            arrived: BTreeMap::new(),
            n_tries: FxHashMap::default(),
            n_requests: BTreeMap::new(),
            nbytes: 0,
            nbytes_last: 0,
            is_due: false,
        }
    }

    /// The next result and whose it is, waiting until it is made; `None` after the last. An error concerns that result only.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<(TaskId, Result<Value, GatherError>)> {
        // What was handed out last is the caller's from here on.
        self.nbytes -= std::mem::take(&mut self.nbytes_last);
        loop {
            self.ask();
            // Whatever has come is taken in first, so that small results are asked for together.
            while let Some(Some(news)) = self.news.next().now_or_never() {
                self.take_in(news);
            }
            self.pump();
            let is_next = |idx: &usize| !self.options.is_in_order || *idx == self.n_given;
            if let Some(idx) = self.arrived.keys().next().copied().filter(is_next)
                && let Some((nbytes, outcome)) = self.arrived.remove(&idx)
            {
                self.n_given += 1;
                self.nbytes_last = nbytes;
                return Some((self.ids[idx], outcome));
            }
            if self.n_given == self.ids.len() {
                return None;
            }
            match self.news.next().await {
                Some(news) => self.take_in(news),
                // Unless all has been given, something is asked for or under way.
                None => return None,
            }
        }
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = (TaskId, Result<Value, GatherError>)> {
        futures::stream::unfold(self, |mut gathering| async move { Some((gathering.next().await?, gathering)) })
    }

    /// Ask the scheduler where the next results are.
    fn ask(&mut self) {
        while self.n_asked < self.ids.len() && self.n_asked < self.n_given + N_ASKED_AHEAD {
            let end = self.ids.len().min(self.n_asked + ASKED_AT_ONCE);
            let idxs: Vec<usize> = (self.n_asked..end).collect();
            self.n_asked = end;
            self.locate(&idxs);
        }
    }

    fn locate(&mut self, idxs: &[usize]) {
        let tasks: Vec<TaskId> = idxs.iter().map(|idx| self.ids[*idx]).collect();
        let session = self.client.session();
        let waiting = match session.locate(&tasks) {
            Ok(waiting) => waiting,
            Err(gone) => {
                for idx in idxs {
                    self.arrived.insert(*idx, (0, Err(gone.clone().into())));
                }
                return;
            }
        };
        let session = std::sync::Arc::clone(session);
        let located = idxs.iter().copied().zip(waiting).map(move |(idx, answer)| {
            let session = std::sync::Arc::clone(&session);
            async move { News::Located(idx, answer.await.map_err(|_| session.disconnected())) }
        });
        self.news.push(located.collect::<FuturesUnordered<_>>().boxed());
    }

    fn take_in(&mut self, news: News) {
        self.is_due = true;
        match news {
            News::Located(idx, Ok(Ok(location))) => self.note_place(idx, location),
            News::Located(idx, Ok(Err(failure))) => self.settle(idx, Err(GatherError::Failed(failure))),
            News::Located(idx, Err(gone)) => self.settle(idx, Err(gone.into())),
            News::Fetched(idx, _, Ok(value)) => self.settle(idx, Ok(value)),
            News::Fetched(idx, _, Err(Miss { reason, is_final: true })) => {
                let task = self.ids[idx];
                self.settle(idx, Err(GatherError::Unreachable { task, reason }));
            }
            News::Fetched(idx, worker, Err(Miss { reason, is_final: false })) => {
                self.nbytes -= self.fetching.remove(&idx).unwrap_or_default();
                let task = self.ids[idx];
                self.client.session().send(FromClient::FetchFailed { task, worker });
                self.try_again(idx, reason);
            }
            News::Over(worker) => {
                if let Some(n_requests) = self.n_requests.get_mut(&worker) {
                    *n_requests = n_requests.saturating_sub(1);
                }
            }
        }
    }

    fn try_again(&mut self, idx: usize, reason: String) {
        let n_tries = self.n_tries.entry(idx).or_default();
        *n_tries += 1;
        if *n_tries < N_TRIES {
            self.locate(&[idx]);
        } else {
            let task = self.ids[idx];
            self.settle(idx, Err(GatherError::Unreachable { task, reason }));
        }
    }

    fn note_place(&mut self, idx: usize, location: Location) {
        let (task, part, n_parts) = (self.ids[idx], self.options.part, location.n_parts);
        if location.holders.is_empty() {
            return self.try_again(idx, "no holder is connected".to_owned());
        }
        // A holder that is asked for what cannot be would be taken for one that has lost the result.
        if !part.is_whole() && part.0 >= n_parts {
            return self.settle(idx, Err(GatherError::NoSuchPart { task, n_parts, part: part.0 }));
        }
        let nbytes = part_nbytes(location.nbytes, n_parts, part);
        self.located.insert(idx, Place { location, nbytes });
    }

    /// The outcome of one result is known.
    fn settle(&mut self, idx: usize, outcome: Result<Value, GatherError>) {
        self.nbytes -= self.fetching.remove(&idx).unwrap_or_default();
        let nbytes = outcome.as_ref().map_or(0, Value::nbytes);
        self.nbytes += nbytes;
        self.options.meter.update(|progress| {
            progress.n_done += 1;
            progress.nbytes_moved += nbytes;
        });
        self.arrived.insert(idx, (nbytes, outcome));
    }

    /// Fetch what there is room for, the first first. The very next one to be handed out always has room.
    fn pump(&mut self) {
        if !std::mem::take(&mut self.is_due) {
            return;
        }
        let mut requests: BTreeMap<WorkerId, (Holder, Vec<usize>, u64)> = BTreeMap::new();
        let mut started = Vec::new();
        let mut n_skipped = 0;
        for (idx, place) in &self.located {
            let is_next = self.options.is_in_order && *idx == self.n_given;
            let fits = self.nbytes == 0 || self.nbytes.saturating_add(place.nbytes) <= self.options.nbytes_in_flight;
            if !fits && !is_next {
                self.is_due = true;
                break;
            }
            // Of the holders that may be asked something more, the one that is asked for the least.
            let load = |holder: &&Holder| requests.get(&holder.worker).map_or(0, |(_, _, nbytes)| *nbytes);
            let is_free = |holder: &&Holder| {
                let n_requests = self.n_requests.get(&holder.worker).copied().unwrap_or_default();
                let joins = requests.get(&holder.worker).is_none_or(|(_, idxs, nbytes)| {
                    nbytes.saturating_add(place.nbytes) <= REQUEST_NBYTES && idxs.len() < REQUEST_ITEMS
                });
                joins && (n_requests < N_REQUESTS || is_next)
            };
            let Some(holder) = place.location.holders.iter().filter(is_free).min_by_key(load) else {
                n_skipped += 1;
                // All workers are as busy as they may be, or as good as that.
                if n_skipped > REQUEST_ITEMS {
                    break;
                }
                continue;
            };
            let (_, idxs, nbytes) = requests.entry(holder.worker).or_insert_with(|| (holder.clone(), Vec::new(), 0));
            idxs.push(*idx);
            *nbytes += place.nbytes;
            self.nbytes += place.nbytes;
            started.push(*idx);
        }
        let mut items: FxHashMap<usize, (PartRequest, Grant)> = FxHashMap::default();
        // In order, as `started` is.
        let mut alone = Vec::new();
        for idx in started {
            let Some(place) = self.located.remove(&idx) else { continue };
            if place.location.holders.len() < 2 {
                alone.push(idx);
            }
            let (task, attempt, part) = (self.ids[idx], place.location.attempt, self.options.part);
            items.insert(idx, (PartRequest { task, attempt, part }, place.location.grant));
            self.fetching.insert(idx, place.nbytes);
        }
        for (worker, (holder, idxs, _)) in requests {
            let wanted: Vec<(PartRequest, Grant)> = idxs.iter().filter_map(|idx| items.get(idx).copied()).collect();
            let grants = Grants::given(wanted.iter().map(|(item, grant)| (item.task.graph, *grant)));
            let request = wanted.into_iter().map(|(item, _)| item).collect();
            *self.n_requests.entry(worker).or_default() += 1;
            let has_others = idxs.iter().all(|idx| alone.binary_search(idx).is_err());
            let n_tries = idxs.iter().filter_map(|idx| self.n_tries.get(idx)).max().copied().unwrap_or_default();
            let manner = Manner { has_others, pause: pause_after(n_tries) };
            let answers = self.client.source().fetch(&holder, grants, request, manner);
            self.news.push(answers_of(answers, idxs, holder).boxed());
        }
    }
}

/// The answers to a request, each result exactly once, and word of its end.
fn answers_of(answers: Fetching, idxs: Vec<usize>, holder: Holder) -> impl Stream<Item = News> + Send {
    let is_open = vec![true; idxs.len()];
    let state = (answers, idxs, holder, is_open, false);
    futures::stream::unfold(state, |(mut answers, idxs, holder, mut is_open, is_over)| async move {
        if is_over {
            return None;
        }
        let worker = holder.worker;
        let name = holder.name.escape_debug();
        let in_words = |outcome: Result<Value, Miss>| {
            outcome.map_err(|miss| Miss { reason: format!("worker \"{name}\": {}", miss.reason), ..miss })
        };
        let news = match answers.recv().await {
            Some((at, outcome)) if is_open.get(at) == Some(&true) => {
                is_open[at] = false;
                Some(News::Fetched(idxs[at], worker, in_words(outcome)))
            }
            Some(_) => Some(News::Over(WorkerId(u32::MAX))),
            None => is_open.iter().position(|is_open| *is_open).map(|at| {
                is_open[at] = false;
                News::Fetched(idxs[at], worker, in_words(Err(Miss::of("the connection has ended"))))
            }),
        };
        let is_over = news.is_none();
        Some((news.unwrap_or(News::Over(worker)), (answers, idxs, holder, is_open, is_over)))
    })
}
