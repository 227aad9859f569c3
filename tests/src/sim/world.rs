//! The world: virtual time, a heap of deliveries, and who is connected to whom.
//!
//! A connection keeps each direction in order and loses what is in the air when it is cut; nothing orders one connection
//! against another. What a node does with a delivery is told in `shell` (scheduler),
//! `process` (workers) and `session` (clients).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rask_comm::message::{FromClient, FromWorker, ToClient, ToWorker};
use rask_comm::time::Time;
use rask_comm::{OfferedItem, Ticket};
use rask_graphs::{Attempt, ClientId, GraphId, TaskId, WorkerId};
use rask_scheduler::machine::{Actions, Config, Machine};
use rask_worker::machine::{FetchId, FetchItem, OfferId};

use super::entropy::Dice;
use super::faults::{Fault, Profile};
use super::oracle::Plan;
use super::process::Process;
use super::session::Session;
use super::trace::Trace;

/// Something that reaches a node at a time.
#[derive(Clone, Debug)]
pub(super) enum Delivery {
    /// The scheduler meets a worker.
    WorkerHello {
        conn: usize,
    },
    FromWorker {
        conn: usize,
        messages: Vec<FromWorker>,
    },
    /// The scheduler notices that a worker's connection has ended.
    WorkerGone {
        conn: usize,
    },
    ClientHello {
        link: usize,
    },
    FromClient {
        link: usize,
        message: FromClient,
    },
    ClientGone {
        link: usize,
    },
    SchedulerTimer,
    /// The scheduler's shell writes out the actions gathered.
    Flush,
    ToWorker {
        conn: usize,
        messages: Vec<ToWorker>,
    },
    /// A worker notices that its connection has ended.
    SchedulerGone {
        conn: usize,
    },
    /// A worker process (re)starts or tries to register again.
    Connect {
        process: usize,
    },
    Executed {
        conn: usize,
        task: TaskId,
        attempt: Attempt,
    },
    /// The write of a result to a file ends.
    SpillEnded {
        conn: usize,
        task: TaskId,
        attempt: Attempt,
    },
    InputGone {
        conn: usize,
        task: TaskId,
        attempt: Attempt,
        input: FetchItem,
    },
    WorkerTimer {
        conn: usize,
    },
    Status {
        conn: usize,
    },
    /// A fetch reaches the peer that is asked.
    FetchAsked {
        conn: usize,
        fetch: FetchId,
        peer: usize,
        items: Vec<FetchItem>,
        asked_at: Time,
    },
    /// An item reaches the worker that asked, or fails to; `source` is the serving process and its life.
    FetchEnded {
        conn: usize,
        fetch: FetchId,
        item: FetchItem,
        stored: Option<Stored>,
        source: (usize, u32),
        asked_at: Time,
    },
    /// Watches, begun or ended, reach the peer they are about.
    Watches {
        conn: usize,
        maker: usize,
        items: Vec<FetchItem>,
        begins: bool,
    },
    /// A result, or word of it, reaches the registration that watches for it.
    Pushed {
        conn: usize,
        maker: usize,
        item: FetchItem,
        stored: Stored,
    },
    /// A worker notices that its watches at a peer will not be heard of.
    WatchLost {
        conn: usize,
        from: WorkerId,
    },
    /// A worker notices that a peer that watched is gone.
    WatcherGone {
        conn: usize,
        watcher: WorkerId,
    },
    ToClient {
        link: usize,
        messages: Vec<ToClient>,
    },
    /// A client looks at what it could do next.
    SessionWakes {
        session: usize,
    },
    /// A client's offer reaches a worker process.
    Offered {
        link: usize,
        process: usize,
        life: u32,
        item: OfferedItem,
        ticket: Ticket,
    },
    /// An offer has waited longer than the scheduler's word can take.
    OfferOverdue {
        conn: usize,
        id: OfferId,
    },
    /// Whoever made an offer is gone.
    OfferWithdrawn {
        conn: usize,
        id: OfferId,
    },
    /// An upload that was let in ends; well unless it is broken, or the client is gone.
    UploadEnded {
        conn: usize,
        link: usize,
        item: OfferedItem,
        is_broken: bool,
    },
    /// A client hears that its upload has come to nothing.
    UploadRefused {
        link: usize,
        item: OfferedItem,
    },
    /// A client's fetch of a result reaches a worker process.
    ClientAsks {
        link: usize,
        item: FetchItem,
        holder: WorkerId,
        process: usize,
    },
    ClientGets {
        link: usize,
        item: FetchItem,
        holder: WorkerId,
        value: Option<u64>,
    },
    Fault(Fault),
}

impl Delivery {
    /// Whether it comes again and again whatever happens, so that a quiet world still has some.
    fn is_periodic(&self) -> bool {
        match self {
            Self::SchedulerTimer | Self::Status { .. } | Self::WorkerTimer { .. } => true,
            Self::WorkerHello { .. }
            | Self::FromWorker { .. }
            | Self::WorkerGone { .. }
            | Self::ClientHello { .. }
            | Self::FromClient { .. }
            | Self::ClientGone { .. }
            | Self::Flush
            | Self::ToWorker { .. }
            | Self::SchedulerGone { .. }
            | Self::Connect { .. }
            | Self::Executed { .. }
            | Self::InputGone { .. }
            | Self::SpillEnded { .. }
            | Self::FetchAsked { .. }
            | Self::FetchEnded { .. }
            | Self::Watches { .. }
            | Self::Pushed { .. }
            | Self::WatchLost { .. }
            | Self::WatcherGone { .. }
            | Self::ToClient { .. }
            | Self::SessionWakes { .. }
            | Self::Offered { .. }
            | Self::OfferOverdue { .. }
            | Self::OfferWithdrawn { .. }
            | Self::UploadEnded { .. }
            | Self::UploadRefused { .. }
            | Self::ClientAsks { .. }
            | Self::ClientGets { .. }
            | Self::Fault(_) => false,
        }
    }
}

/// A result, or a part of one, in a simulated store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) attempt: Attempt,
    pub(super) value: u64,
    pub(super) nbytes: u64,
    pub(super) n_parts: u32,
}

struct Entry {
    at: Time,
    sequence: u64,
    delivery: Delivery,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A control connection of a worker: one registration.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) process: usize,
    pub(super) worker: Option<WorkerId>,
    /// Nothing sent arrives any more.
    pub(super) is_cut: bool,
    /// The worker was told to leave and has done so.
    pub(super) is_graceful: bool,
    pub(super) is_lost: bool,
    pub(super) last_up: Time,
    pub(super) last_down: Time,
    pub(super) n_down_in_air: u32,
    pub(super) n_up_in_air: u32,
    /// Extra delay of each direction, while a fault lasts: until when, and how much.
    pub(super) slow_up: (Time, Duration),
    pub(super) slow_down: (Time, Duration),
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: usize,
    pub(super) client: Option<ClientId>,
    pub(super) is_cut: bool,
    pub(super) last_up: Time,
    pub(super) last_down: Time,
}

/// What the world knows of a graph that the scheduler has accepted.
pub(super) struct GraphInfo {
    pub(super) plan: Rc<Plan>,
    pub(super) session: usize,
    pub(super) job: usize,
    pub(super) priority: i32,
    /// The graph's externals, as submitted.
    pub(super) externals: Vec<TaskId>,
    /// Whether anybody has asked for it to be cancelled.
    pub(super) is_cancel_sent: bool,
    pub(super) n_ended: u32,
    pub(super) accepted_at: Time,
    /// Whether no worker was there for the whole grace period since it was accepted, ever.
    pub(super) was_deserted: bool,
}

/// Everything that exists.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) dice: Dice,
    pub(super) trace: Trace,
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    /// Deliveries in the heap that are not periodic.
    pub(super) n_pending: u64,
    pub(super) profile: Profile,
    pub(super) config: Config,
    pub(super) scheduler: Machine,
    pub(super) actions: Actions,
    pub(super) is_flush_due: bool,
    pub(super) timer_at: Option<Time>,
    pub(super) conns: Vec<Conn>,
    pub(super) conn_of: BTreeMap<WorkerId, usize>,
    pub(super) links: Vec<Link>,
    pub(super) link_of: BTreeMap<ClientId, usize>,
    pub(super) processes: Vec<Process>,
    pub(super) sessions: Vec<Session>,
    pub(super) graphs: BTreeMap<GraphId, GraphInfo>,
    /// The last run of each task that was sent.
    pub(super) last_run: BTreeMap<TaskId, Attempt>,
    /// All runs that were sent.
    pub(super) sent: BTreeSet<(TaskId, Attempt)>,
    /// Runs that have begun, anywhere.
    pub(super) begun: BTreeSet<(TaskId, Attempt)>,
    /// Runs the scheduler has been told of as executing, while they were its present ones.
    pub(super) told_executing: BTreeSet<(TaskId, Attempt)>,
    /// Worker deaths each task may be blamed for.
    pub(super) n_suspect_deaths: BTreeMap<TaskId, u32>,
    /// Registrations that have died of what had to be fetched for a task, and tasks of which the scheduler knows that they had to
    /// do with such a death.
    pub(super) killed_by: BTreeMap<usize, Vec<TaskId>>,
    pub(super) is_doubtful: BTreeSet<TaskId>,
    /// Failed runs of each task, and those of them the scheduler has heard of while they were its present ones.
    pub(super) n_failed_runs: BTreeMap<TaskId, u32>,
    pub(super) n_heard_failures: BTreeMap<TaskId, u32>,
    pub(super) n_successes: BTreeMap<TaskId, u32>,
    /// Uploads of each value that its client has said have come to nothing.
    pub(super) n_not_uploaded: BTreeMap<TaskId, u32>,
    /// Results the scheduler has taken: of each task one, unless it was lost.
    pub(super) n_taken: BTreeMap<TaskId, u32>,
    /// Tasks that were given to a second worker while the first had them.
    pub(super) had_backup: BTreeSet<TaskId>,
    /// Since when the scheduler has known no worker.
    pub(super) no_workers_since: Option<Time>,
    pub(super) is_healed: bool,
    /// Whether anything has happened that may force work to be done twice.
    pub(super) may_repeat_work: bool,
    pub(super) cut_peers: BTreeSet<(usize, usize)>,
    /// Registrations that watch at others, and when the last word of theirs arrives; `None` once the connection
    /// has broken and that has not been noticed.
    pub(super) watching: BTreeMap<(usize, usize), Option<Time>>,
    pub(super) slow_until: Time,
}

impl World {
    pub(super) fn new(dice: Dice, trace: Trace, profile: Profile, config: Config) -> Self {
        Self {
            now: Time::default(),
            dice,
            trace,
            heap: BinaryHeap::new(),
            sequence: 0,
            n_pending: 0,
            profile,
            scheduler: Machine::new(config.clone()),
            config,
            actions: Actions::default(),
            is_flush_due: false,
            timer_at: None,
            conns: Vec::new(),
            conn_of: BTreeMap::new(),
            links: Vec::new(),
            link_of: BTreeMap::new(),
            processes: Vec::new(),
            sessions: Vec::new(),
            graphs: BTreeMap::new(),
            last_run: BTreeMap::new(),
            sent: BTreeSet::new(),
            begun: BTreeSet::new(),
            told_executing: BTreeSet::new(),
            n_suspect_deaths: BTreeMap::new(),
            killed_by: BTreeMap::new(),
            is_doubtful: BTreeSet::new(),
            n_failed_runs: BTreeMap::new(),
            n_heard_failures: BTreeMap::new(),
            n_successes: BTreeMap::new(),
            n_not_uploaded: BTreeMap::new(),
            n_taken: BTreeMap::new(),
            had_backup: BTreeSet::new(),
            no_workers_since: Some(Time::default()),
            is_healed: false,
            may_repeat_work: false,
            cut_peers: BTreeSet::new(),
            watching: BTreeMap::new(),
            slow_until: Time::default(),
        }
    }

    /// Have `delivery` happen at `at`.
    pub(super) fn push(&mut self, at: Time, delivery: Delivery) {
        self.sequence += 1;
        self.push_as(at, self.sequence, delivery);
    }

    fn push_as(&mut self, at: Time, sequence: u64, delivery: Delivery) {
        self.n_pending += u64::from(!delivery.is_periodic());
        self.heap.push(Reverse(Entry { at: at.max(self.now), sequence, delivery }));
    }

    pub(super) fn push_in(&mut self, micros: u64, delivery: Delivery) {
        self.push(self.now.after(Duration::from_micros(micros)), delivery);
    }

    /// The time a message takes on its way, in microseconds.
    pub(super) fn draw_latency(&mut self) -> u64 {
        let (low, high) = self.profile.latency_us;
        self.dice.between(low, high)
    }

    /// The time of the next delivery.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Let the next delivery happen.
    pub(super) fn step(&mut self) {
        let Some(Reverse(Entry { at, sequence, delivery })) = self.heap.pop() else { return };
        self.n_pending -= u64::from(!delivery.is_periodic());
        self.now = self.now.max(at);
        if let Some(process) = self.process_of(&delivery)
            && self.processes[process].paused_until > self.now
        {
            // A stopped process: everything that reaches it waits, in the order in which it came.
            self.push_as(self.processes[process].paused_until, sequence, delivery);
            return;
        }
        self.trace.counts.n_events += 1;
        self.deliver(delivery);
    }

    /// The worker process that a delivery is for.
    fn process_of(&self, delivery: &Delivery) -> Option<usize> {
        match delivery {
            Delivery::ToWorker { conn, .. }
            | Delivery::SchedulerGone { conn }
            | Delivery::Executed { conn, .. }
            | Delivery::InputGone { conn, .. }
            | Delivery::SpillEnded { conn, .. }
            | Delivery::WorkerTimer { conn }
            | Delivery::Status { conn }
            | Delivery::WatchLost { conn, .. }
            | Delivery::Pushed { conn, .. }
            | Delivery::Watches { maker: conn, .. }
            | Delivery::WatcherGone { conn, .. }
            | Delivery::OfferOverdue { conn, .. }
            | Delivery::OfferWithdrawn { conn, .. }
            | Delivery::UploadEnded { conn, .. }
            | Delivery::FetchEnded { conn, .. } => Some(self.conns[*conn].process),
            Delivery::FetchAsked { peer, .. } => Some(*peer),
            Delivery::ClientAsks { process, .. } | Delivery::Offered { process, .. } | Delivery::Connect { process } => {
                Some(*process)
            }
            Delivery::WorkerHello { .. }
            | Delivery::FromWorker { .. }
            | Delivery::WorkerGone { .. }
            | Delivery::ClientHello { .. }
            | Delivery::FromClient { .. }
            | Delivery::ClientGone { .. }
            | Delivery::SchedulerTimer
            | Delivery::Flush
            | Delivery::ToClient { .. }
            | Delivery::SessionWakes { .. }
            | Delivery::UploadRefused { .. }
            | Delivery::ClientGets { .. }
            | Delivery::Fault(_) => None,
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        self.trace.note(self.now, "", &delivery);
        match delivery {
            Delivery::WorkerHello { conn } => self.meet_worker(conn),
            Delivery::FromWorker { conn, messages } => self.hear_worker(conn, messages),
            Delivery::WorkerGone { conn } => self.lose_worker(conn),
            Delivery::ClientHello { link } => self.meet_client(link),
            Delivery::FromClient { link, message } => self.hear_client(link, message),
            Delivery::ClientGone { link } => self.lose_client(link),
            Delivery::SchedulerTimer => self.scheduler_timer(),
            Delivery::Flush => self.flush(),
            Delivery::ToWorker { conn, messages } => self.worker_hears(conn, messages),
            Delivery::SchedulerGone { conn } => self.worker_loses_scheduler(conn),
            Delivery::Connect { process } => self.connect(process),
            Delivery::Executed { conn, task, attempt } => self.end_execution(conn, task, attempt),
            Delivery::InputGone { conn, task, attempt, input } => self.input_gone(conn, task, attempt, input),
            Delivery::SpillEnded { conn, task, attempt } => self.end_spill(conn, task, attempt),
            Delivery::WorkerTimer { conn } => self.worker_timer(conn),
            Delivery::Status { conn } => self.worker_status(conn),
            Delivery::FetchAsked { conn, fetch, peer, items, asked_at } => self.serve_fetch(conn, fetch, peer, items, asked_at),
            Delivery::FetchEnded { conn, fetch, item, stored, source, asked_at } => {
                self.end_fetch(conn, fetch, item, stored, source, asked_at);
            }
            Delivery::Watches { conn, maker, items, begins } => self.serve_watches(conn, maker, items, begins),
            Delivery::Pushed { conn, maker, item, stored } => self.end_push(conn, maker, item, stored),
            Delivery::WatchLost { conn, from } => self.notice_watch_lost(conn, from),
            Delivery::WatcherGone { conn, watcher } => {
                self.tell_worker(conn, rask_worker::machine::Event::PeerGone { peer: watcher });
            }
            Delivery::ToClient { link, messages } => self.client_hears(link, messages),
            Delivery::SessionWakes { session } => self.session_wakes(session),
            Delivery::Offered { link, process, life, item, ticket } => self.take_offer(link, (process, life), item, ticket),
            Delivery::OfferOverdue { conn, id } => self.tell_worker(conn, rask_worker::machine::Event::OfferOverdue { id }),
            Delivery::OfferWithdrawn { conn, id } => self.withdraw_offer(conn, id),
            Delivery::UploadEnded { conn, link, item, is_broken } => self.end_upload(conn, link, item, is_broken),
            Delivery::UploadRefused { link, item } => self.hear_refused(link, item),
            Delivery::ClientAsks { link, item, holder, process } => self.serve_client(link, item, holder, process),
            Delivery::ClientGets { link, item, holder, value } => self.client_gets(link, item, holder, value),
            Delivery::Fault(fault) => self.inject(fault),
        }
    }
}

/// Where the data plane of a process listens; it stays the same when the process starts anew.
pub(super) fn address_of(process: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9_000 + process as u16))
}
