//! `rask bench machine`: what a task costs in the scheduler machine alone, with workers that take no time at all.
//!
//! No thread, socket or codec takes part: every run the machine sends is answered at once, in batches of a turn, as busy
//! workers would. CPU time is the thread's own; memory is what the process grew by.

use std::time::{Duration, Instant};

use rask_comm::message::{ClientHello, FromClient, FromWorker, SubmitOptions, ToWorker, WorkerHello};
use rask_comm::time::Time;
use rask_graphs::keys::{KeyRef, KeysBuilder};
use rask_graphs::{Body, ClientId, Graph, GraphId, TaskId, TaskIdx, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, Machine};

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineFigures {
    /// Simulated workers.
    pub(crate) n_workers: u32,
    /// Tasks run.
    pub(crate) n_tasks: u32,
    /// From submission until everything has been forgotten.
    pub(crate) elapsed: Duration,
    /// Growth of resident memory while all tasks are in the tables, in bytes.
    pub(crate) grown_nbytes: u64,
}

impl MachineFigures {
    /// Microseconds a task.
    pub(crate) fn us_per_task(&self) -> f64 {
        self.elapsed.as_secs_f64() * 1e6 / f64::from(self.n_tasks)
    }

    /// Bytes of scheduler memory a task.
    pub(crate) fn bytes_per_task(&self) -> f64 {
        self.grown_nbytes as f64 / f64::from(self.n_tasks)
    }
}

/// Run `n_tasks` independent tasks through the machine with `n_workers` workers of one slot.
pub(crate) fn measure(n_tasks: u32, n_workers: u32) -> MachineFigures {
    let before = resident_nbytes();
    let graph = independent(n_tasks);
    let mut machine = Machine::new(Config::default());
    let mut out = Actions::default();
    let now = Time::default();
    for worker in 0..n_workers {
        machine.handle(
            now,
            Event::WorkerJoined { worker: WorkerId(worker), hello: hello(worker), key: rask_comm::KeyId::default() },
            &mut out,
        );
    }
    let client = ClientId(0);
    let client_hello = ClientHello { version: 1, name: "bench".to_owned(), weight: 1.0 };
    machine.handle(
        now,
        Event::ClientJoined {
            client,
            hello: client_hello,
            peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, "here"),
        },
        &mut out,
    );
    out = Actions::default();
    let options = SubmitOptions { name: "bench".to_owned(), ..SubmitOptions::default() };
    let start = Instant::now();
    let message = FromClient::Submit { request: 0, graph: Box::new(graph), options };
    machine.handle(now, Event::ClientSaid { client, message }, &mut out);
    let grown_nbytes = resident_nbytes().saturating_sub(before);
    let mut n_done = 0;
    while n_done < n_tasks {
        let turn = std::mem::take(&mut out);
        assert!(!turn.to_workers.is_empty(), "the machine stopped at {n_done} of {n_tasks} tasks");
        for (worker, messages) in turn.to_workers {
            for message in messages {
                let ToWorker::Run(run) = message else { continue };
                n_done += 1;
                let message =
                    FromWorker::Finished { task: run.task, attempt: run.attempt, nbytes: 0, n_parts: 0, duration_us: 1 };
                machine.handle(now, Event::WorkerSaid { worker, message }, &mut out);
            }
        }
    }
    let tasks = (0..n_tasks).map(|idx| TaskId::new(GraphId(0), TaskIdx(idx))).collect();
    machine.handle(now, Event::ClientSaid { client, message: FromClient::Release { tasks } }, &mut out);
    assert_eq!(machine.n_graphs(), 0, "a finished graph that nobody wants is forgotten");
    MachineFigures { n_workers, n_tasks, elapsed: start.elapsed(), grown_nbytes }
}

fn hello(worker: u32) -> WorkerHello {
    WorkerHello {
        version: rask_comm::message::PROTOCOL_VERSION,
        name: format!("worker-{worker}"),
        n_slots: 1,
        memory_limit: 1 << 30,
        resources: Vec::new(),
        data_address: ([127, 0, 0, 1], 1).into(),
        host: "bench".to_owned(),
        registry_fingerprint: 0,
    }
}

/// `n_tasks` no-ops, all of them wanted.
fn independent(n_tasks: u32) -> Graph {
    let mut keys = KeysBuilder::default();
    let family = keys.family("noop");
    (0..n_tasks).for_each(|member| keys.push(KeyRef { family, member: Some(member) }));
    Graph {
        bodies: vec![Body::single("core.noop", 1, "{}")],
        body_of: vec![0; n_tasks as usize],
        input_offsets: vec![0; n_tasks as usize + 1],
        inputs: Vec::new(),
        group_offsets: vec![0],
        group_members: Vec::new(),
        externals: Vec::new(),
        keys: keys.finish(),
        options: Vec::new(),
        outputs: (0..n_tasks).map(TaskIdx).collect(),
    }
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident_nbytes() -> u64 {
    rask_worker::store::memory::resident_nbytes().unwrap_or(0)
}
