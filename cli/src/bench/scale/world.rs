//! A cluster in virtual time: the real scheduler machine, the real worker machines, and messages that take their time.
//!
//! Nothing fails here and nothing is drawn: this world is for schedules and their cost, the one in `tests/src/sim` is for
//! faults. A message takes 50 us, a link carries 1 GB/s in each direction, a scheduler's turn lasts 10 us, whatever it has
//! to do: schedules are judged here, and what they cost by itself. For that, what the scheduler was told is kept, so that
//! it can be told again with nothing else going on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rask_comm::message::{ClientHello, FromClient, FromWorker, PROTOCOL_VERSION, SubmitOptions, ToClient, ToWorker, WorkerHello};
use rask_comm::time::Time;
use rask_graphs::{Attempt, ClientId, GraphId, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::{Actions, Config, Counters, Event, Machine};
use rask_worker::machine::{Action, Event as WorkerEvent, FetchId, FetchItem};

use super::node::{Node, Parcel};
use super::schedule::Schedule;
use super::workloads::Workload;

/// One way, between any two.
pub(super) const LATENCY_NS: u64 = 50_000;
/// How long the scheduler is at work before it takes in more.
const TURN_NS: u64 = 10_000;
/// How often a worker says how it is.
const STATUS_NS: u64 = 1_000_000_000;

const CLIENT: ClientId = ClientId(0);

/// How big the cluster is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    pub(super) n_workers: u32,
    /// Slots a worker.
    pub(super) n_slots: u32,
}

/// Something that reaches somebody at a time.
pub(super) enum Delivery {
    /// The scheduler takes in what has come.
    Turn,
    /// The scheduler wanted to be called.
    Timer,
    ToWorker {
        worker: WorkerId,
        messages: Vec<ToWorker>,
    },
    FromWorker {
        worker: WorkerId,
        messages: Vec<FromWorker>,
    },
    /// A run's time on its slot is over.
    Executed {
        worker: WorkerId,
        task: TaskId,
        attempt: Attempt,
        begun: u64,
    },
    /// A fetch reaches the peer that is asked.
    Asked {
        peer: WorkerId,
        by: WorkerId,
        fetch: FetchId,
        items: Vec<FetchItem>,
        asked_at: u64,
    },
    /// The last byte has left a sender's link.
    Sent(Box<Parcel>),
    Arrived(Box<Parcel>),
    /// Word of one worker to another.
    Word {
        worker: WorkerId,
        event: WorkerEvent,
    },
    WorkerTimer {
        worker: WorkerId,
    },
    Status {
        worker: WorkerId,
    },
}

impl Delivery {
    /// Whether it comes again and again, so that a world with nothing left to do still has some.
    fn is_periodic(&self) -> bool {
        matches!(self, Self::Timer | Self::WorkerTimer { .. } | Self::Status { .. })
    }
}

/// What is to happen, by time and then in the order of asking.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// The deliveries themselves stay where they are while the heap sorts.
    slots: Vec<Option<Delivery>>,
    free: Vec<u32>,
    sequence: u64,
    n_pending: u64,
}

impl Agenda {
    pub(super) fn push(&mut self, at: u64, delivery: Delivery) {
        self.n_pending += u64::from(!delivery.is_periodic());
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = Some(delivery),
            None => self.slots.push(Some(delivery)),
        }
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, slot)));
    }

    /// The next delivery; nothing once only periodic ones are left.
    fn pop(&mut self) -> Option<(u64, Delivery)> {
        if self.n_pending == 0 {
            return None;
        }
        let Reverse((at, _, slot)) = self.heap.pop()?;
        let delivery = self.slots[slot as usize].take()?;
        self.free.push(slot);
        self.n_pending -= u64::from(!delivery.is_periodic());
        Some((at, delivery))
    }
}

/// Something the scheduler machine was told.
pub(super) enum Heard {
    /// The workload's graph; not kept a second time.
    Submit,
    Event(Event),
    /// Its time had come.
    Timeout,
    /// What it wanted done was carried out.
    TurnEnd,
}

/// What happened, counted.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    /// Items that went from one worker to another, and their bytes.
    pub(super) n_transfers: u64,
    pub(super) nbytes_moved: u64,
    /// Of these, items sent along without being asked for.
    pub(super) n_pushed: u64,
    /// Fetches of what was not there any more.
    pub(super) n_misses: u64,
    pub(super) n_frames_up: u64,
    pub(super) n_frames_down: u64,
    /// Runs that ended, whether or not they were still wanted.
    pub(super) n_runs: u64,
}

/// Everything that exists.
pub(super) struct World<'a> {
    pub(super) workload: &'a Workload,
    pub(super) now: u64,
    pub(super) agenda: Agenda,
    scheduler: Machine,
    out: Actions,
    inbox: Vec<(WorkerId, Vec<FromWorker>)>,
    is_turn_due: bool,
    /// When the scheduler's last turn is over.
    free_at: u64,
    timer_at: Option<u64>,
    pub(super) nodes: Vec<Node>,
    pub(super) actions: Vec<Action>,
    pub(super) log: Vec<(u64, Heard)>,
    pub(super) counts: Counts,
    pub(super) schedule: Option<Schedule>,
    graph: Option<GraphId>,
    /// By task.
    pub(super) n_runs_of: Vec<u32>,
    pub(super) ended_at: Option<u64>,
}

/// The scheduler's settings in every figure.
pub(super) fn config() -> Config {
    Config::default()
}

pub(super) fn time(ns: u64) -> Time {
    Time(Duration::from_nanos(ns))
}

/// The message with which the client submits `workload`.
pub(super) fn submission(workload: &Workload) -> Event {
    let options = SubmitOptions { name: "bench".to_owned(), ..SubmitOptions::default() };
    let message = FromClient::Submit { request: 0, graph: Box::new(workload.graph.clone()), options };
    Event::ClientSaid { client: CLIENT, message }
}

impl<'a> World<'a> {
    /// A cluster whose workers have all joined, and that nobody has asked for anything.
    ///
    /// # Errors
    /// When the scheduler breaks its contract.
    pub(super) fn new(workload: &'a Workload, cluster: Cluster, keeps_schedule: bool) -> Result<Self> {
        let mut world = Self {
            workload,
            now: 0,
            agenda: Agenda::default(),
            scheduler: Machine::new(config()),
            out: Actions::default(),
            inbox: Vec::new(),
            is_turn_due: false,
            free_at: 0,
            timer_at: None,
            nodes: (0..cluster.n_workers).map(|_| Node::new(cluster.n_slots)).collect(),
            actions: Vec::new(),
            // A log that moved as it grew would leave holes behind in which the replay's memory would not show.
            log: Vec::with_capacity(4 * (workload.costs.len() + cluster.n_workers as usize)),
            counts: Counts::default(),
            schedule: keeps_schedule.then(Schedule::default),
            graph: None,
            n_runs_of: vec![0; workload.costs.len()],
            ended_at: None,
        };
        for worker in (0..cluster.n_workers).map(WorkerId) {
            world.tell_scheduler(Event::WorkerJoined { worker, hello: hello(worker, cluster), key: rask_comm::KeyId::default() });
            world.end_turn()?;
            let first = STATUS_NS * u64::from(worker.0 + 1) / u64::from(cluster.n_workers);
            world.agenda.push(first, Delivery::Status { worker });
        }
        let hello = ClientHello { version: PROTOCOL_VERSION, name: "bench".to_owned(), weight: 1.0 };
        world.tell_scheduler(Event::ClientJoined {
            client: CLIENT,
            hello,
            peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, "here"),
        });
        world.end_turn()?;
        Ok(world)
    }

    /// Submit the graph and let it run until its client knows of its end.
    ///
    /// # Errors
    /// When that does not come.
    pub(super) fn run(&mut self) -> Result<()> {
        self.log.push((self.now, Heard::Submit));
        self.scheduler.handle(time(self.now), submission(self.workload), &mut self.out);
        self.end_turn()?;
        while self.ended_at.is_none() {
            let n_done = self.n_runs_of.iter().filter(|n_runs| **n_runs > 0);
            let Some((at, delivery)) = self.agenda.pop() else {
                bail!("nothing is left to happen, and {} of {} tasks have run", n_done.count(), self.n_runs_of.len());
            };
            self.deliver(at, delivery)?;
        }
        Ok(())
    }

    /// Have everything released and forgotten, after [`World::run`].
    ///
    /// # Errors
    /// When a task has never run, or something is left behind.
    pub(super) fn release(&mut self) -> Result<()> {
        let graph = self.graph.unwrap_or_default();
        let tasks = self.workload.graph.outputs.iter().map(|idx| TaskId::new(graph, *idx)).collect();
        self.tell_scheduler(Event::ClientSaid { client: CLIENT, message: FromClient::Release { tasks } });
        self.end_turn()?;
        while let Some((at, delivery)) = self.agenda.pop() {
            self.deliver(at, delivery)?;
        }
        let missing = self.n_runs_of.iter().position(|n_runs| *n_runs == 0);
        ensure!(missing.is_none(), "task {missing:?} has never run");
        ensure!(self.scheduler.n_graphs() == 0, "the scheduler does not forget a graph that nobody wants");
        for (worker, node) in self.nodes.iter().enumerate() {
            ensure!(node.store.is_empty(), "worker {worker} holds {:?} after everything was released", node.store.iter().next());
        }
        Ok(())
    }

    fn deliver(&mut self, at: u64, delivery: Delivery) -> Result<()> {
        self.now = self.now.max(at);
        match delivery {
            Delivery::Turn => return self.take_turn(),
            Delivery::Timer => self.want_turn(),
            Delivery::FromWorker { worker, messages } => {
                self.inbox.push((worker, messages));
                self.want_turn();
            }
            Delivery::ToWorker { worker, messages } => {
                return self.tell_worker(worker, messages.into_iter().map(WorkerEvent::SchedulerSaid));
            }
            Delivery::Executed { worker, task, attempt, begun } => return self.end_run(worker, task, attempt, begun),
            Delivery::Asked { peer, by, fetch, items, asked_at } => self.serve(peer, by, fetch, items, asked_at),
            Delivery::Sent(parcel) => self.receive(parcel),
            Delivery::Arrived(parcel) => return self.unpack(*parcel),
            Delivery::Word { worker, event } => return self.tell_worker(worker, [event]),
            Delivery::WorkerTimer { worker } => return self.worker_timer(worker),
            Delivery::Status { worker } => {
                self.agenda.push(self.now + STATUS_NS, Delivery::Status { worker });
                return self.tell_status(worker);
            }
        }
        Ok(())
    }

    /// Have the scheduler look at what has come as soon as it has time.
    fn want_turn(&mut self) {
        if !self.is_turn_due {
            self.is_turn_due = true;
            self.agenda.push(self.now.max(self.free_at), Delivery::Turn);
        }
    }

    fn take_turn(&mut self) -> Result<()> {
        self.is_turn_due = false;
        for (worker, messages) in std::mem::take(&mut self.inbox) {
            for message in messages {
                self.tell_scheduler(Event::WorkerSaid { worker, message });
            }
        }
        if self.is_timer_due() {
            self.log.push((self.now, Heard::Timeout));
            self.scheduler.handle_timeout(time(self.now), &mut self.out);
            ensure!(!self.is_timer_due(), "the scheduler's timer is due again at once");
        }
        self.free_at = self.now + TURN_NS;
        self.end_turn()
    }

    fn is_timer_due(&self) -> bool {
        self.scheduler.poll_timeout().is_some_and(|(due, _)| due <= time(self.now))
    }

    fn tell_scheduler(&mut self, event: Event) {
        self.log.push((self.now, Heard::Event(event.clone())));
        self.scheduler.handle(time(self.now), event, &mut self.out);
    }

    /// Send what the scheduler has to say.
    fn end_turn(&mut self) -> Result<()> {
        self.log.push((self.now, Heard::TurnEnd));
        let out = std::mem::take(&mut self.out);
        ensure!(
            out.close_workers.is_empty() && out.close_clients.is_empty(),
            "the scheduler closes a peer that kept the contract"
        );
        for (worker, messages) in out.to_workers {
            self.counts.n_frames_down += 1;
            self.agenda.push(self.now + LATENCY_NS, Delivery::ToWorker { worker, messages });
        }
        for message in out.to_clients.into_values().flatten() {
            self.tell_client(message)?;
        }
        if let Some((due, _)) = self.scheduler.poll_timeout() {
            let due = (due.0.as_nanos() as u64).max(self.now);
            // A timer that has gone off is not armed any more.
            let armed = self.timer_at.filter(|at| *at > self.now);
            if armed.is_none_or(|at| due < at) {
                self.timer_at = Some(due);
                self.agenda.push(due, Delivery::Timer);
            }
        }
        Ok(())
    }

    fn tell_client(&mut self, message: ToClient) -> Result<()> {
        match message {
            ToClient::Accepted { graph, .. } => self.graph = Some(graph),
            ToClient::GraphEnded { .. } => self.ended_at = Some(self.now),
            ToClient::Rejected { reason, .. } | ToClient::Close { reason } => bail!("the scheduler refuses: {reason}"),
            ToClient::TaskFailed { task, failure } => bail!("{task} failed: {}", failure.message),
            ToClient::Welcome { .. }
            | ToClient::Cancelled { .. }
            | ToClient::Progress { .. }
            | ToClient::Waits { .. }
            | ToClient::TaskDone { .. }
            | ToClient::Located { .. }
            | ToClient::Upload { .. }
            | ToClient::Status { .. } => {}
        }
        Ok(())
    }

    /// Bytes of the scheduler's tables for the graph.
    pub(super) fn graph_nbytes(&self) -> usize {
        self.graph.and_then(|graph| self.scheduler.graph_nbytes(graph)).unwrap_or(0)
    }

    /// What the scheduler's machine says it did.
    pub(super) fn counters(&self) -> Counters {
        self.scheduler.counters()
    }

    /// What the task at `idx` is called.
    pub(super) fn key(&self, idx: TaskIdx) -> String {
        self.workload.graph.keys.name(idx.0)
    }
}

fn hello(worker: WorkerId, cluster: Cluster) -> WorkerHello {
    WorkerHello {
        version: PROTOCOL_VERSION,
        name: format!("worker-{}", worker.0),
        n_slots: cluster.n_slots,
        // Spilling is not simulated: memory is as large as it has to be.
        memory_limit: u64::MAX >> 1,
        resources: Vec::new(),
        data_address: ([127, 0, 0, 1], 1).into(),
        host: format!("host-{}", worker.0),
        registry_fingerprint: 0,
    }
}
