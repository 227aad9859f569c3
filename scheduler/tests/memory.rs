//! Memory returns to where it was: after floods of graphs, storms of cancellations, and strangers' inventions.
//!
//! What is alive is counted by the allocator itself, so nothing that the machine keeps can be forgotten. One test, because
//! tests that ran beside it would be counted too.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use common::graph;
use rask_comm::message::{ClientHello, FromClient, FromWorker, SubmitOptions, ToClient, ToWorker};
use rask_comm::time::Time;
use rask_graphs::{Attempt, ClientId, Graph, GraphId, TaskId, WorkerId};
use rask_scheduler::machine::{Actions, Config, Event, Machine};

struct Counting;

static NBYTES_ALIVE: AtomicIsize = AtomicIsize::new(0);

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        NBYTES_ALIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NBYTES_ALIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn nbytes_alive() -> isize {
    NBYTES_ALIVE.load(Ordering::Relaxed)
}

/// A machine, and of the world around it only what was given and not finished.
struct World {
    machine: Machine,
    now: Time,
    given: BTreeMap<TaskId, (WorkerId, Attempt)>,
    n_graphs: u32,
    n_workers: u32,
    n_ended: usize,
    n_failed: usize,
}

impl World {
    fn new(slots: &[u32], n_clients: u32) -> Self {
        let config = Config { no_worker_grace: Duration::MAX, ..Config::default() };
        let (machine, now) = (Machine::new(config), Time::default());
        let mut world = Self { machine, now, given: BTreeMap::new(), n_graphs: 0, n_workers: 0, n_ended: 0, n_failed: 0 };
        for client in 0..n_clients {
            let hello = ClientHello { version: 1, name: "client".to_owned(), weight: 1.0 };
            world.event(Event::ClientJoined {
                client: ClientId(client),
                hello,
                peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, "here"),
            });
        }
        for n_slots in slots {
            world.join(*n_slots);
        }
        world
    }

    fn join(&mut self, n_slots: u32) -> WorkerId {
        let worker = WorkerId(self.n_workers);
        self.n_workers += 1;
        let hello = common::hello(worker, &format!("w{}", worker.0), n_slots, &[]);
        self.event(Event::WorkerJoined { worker, hello, key: rask_comm::KeyId::default() });
        worker
    }

    fn lose(&mut self, worker: WorkerId) {
        self.given.retain(|_, (at, _)| *at != worker);
        self.event(Event::WorkerLost { worker, was_graceful: true, reason: String::new() });
    }

    fn event(&mut self, event: Event) {
        self.now = self.now.after(Duration::from_micros(10));
        let mut actions = Actions::default();
        self.machine.handle(self.now, event, &mut actions);
        self.absorb(actions);
        if self.machine.poll_timeout().is_some_and(|(due, _)| due <= self.now) {
            let mut actions = Actions::default();
            self.machine.handle_timeout(self.now, &mut actions);
            self.absorb(actions);
        }
    }

    fn absorb(&mut self, actions: Actions) {
        for (worker, messages) in actions.to_workers {
            for message in messages {
                if let ToWorker::Run(run) = message {
                    self.given.insert(run.task, (worker, run.attempt));
                } else if let ToWorker::Cancel { task, attempt } = message
                    && self.given.get(&task) == Some(&(worker, attempt))
                {
                    self.given.remove(&task);
                }
            }
        }
        for message in actions.to_clients.into_values().flatten() {
            self.n_ended += usize::from(matches!(message, ToClient::GraphEnded { .. }));
            self.n_failed += usize::from(matches!(message, ToClient::TaskFailed { .. }));
            assert!(!matches!(message, ToClient::Rejected { .. }), "{message:?}");
        }
    }

    fn say(&mut self, client: u32, message: FromClient) {
        self.event(Event::ClientSaid { client: ClientId(client), message });
    }

    fn submit(&mut self, client: u32, graph: Graph) -> GraphId {
        let id = GraphId(self.n_graphs);
        self.n_graphs += 1;
        self.say(client, FromClient::Submit { request: 0, graph: Box::new(graph), options: SubmitOptions::default() });
        id
    }

    fn cancel(&mut self, client: u32, graph: GraphId) {
        self.say(client, FromClient::Cancel { request: 0, graph });
    }

    /// Finish the first `n` of what is given.
    fn finish(&mut self, n: usize) {
        for _ in 0..n {
            let Some((task, (worker, attempt))) = self.given.pop_first() else { return };
            let message = FromWorker::Finished { task, attempt, nbytes: 100, n_parts: 0, duration_us: 1_000 };
            self.event(Event::WorkerSaid { worker, message });
        }
    }

    fn check_empty(&self) {
        self.machine.validate();
        assert_eq!((self.machine.n_graphs(), self.machine.n_tasks()), (0, 0));
        let left = self.machine.status().workers.iter().map(|worker| worker.n_processing + worker.n_results).sum::<u32>();
        assert_eq!(left, 0, "runs and results at workers");
    }
}

/// `story`, told twice: what the second time leaves behind beyond the first. The first fills what is kept for use again.
fn nbytes_left_by(world: &mut World, mut story: impl FnMut(&mut World)) -> isize {
    story(world);
    world.check_empty();
    let before = nbytes_alive();
    story(world);
    world.check_empty();
    nbytes_alive() - before
}

/// Graphs that are cancelled at once, or when a part of them has been done, while the workers are busy with something else.
fn storm(world: &mut World, n: u32) {
    let texts = [
        "a[3]; b[8]* <- a",
        "a; b[30]* <- a; c* <- b",
        "a on=w1; b[5]* <- a on=w2; c* <- b on=nobody",
        "a gpu=1; b* <- a; d*",
        "r[40]*",
    ];
    for at in 0..n {
        let graph = world.submit(at % 3, graph(texts[at as usize % texts.len()]));
        world.finish(at as usize % 7);
        world.cancel(at % 3, graph);
    }
}

/// While the one who could run them works on something long, what waits for it comes and is cancelled.
fn storm_of_what_waits(world: &mut World, n: u32) {
    let long = world.submit(0, graph("x; y[100]* <- x"));
    world.finish(1);
    for at in 0..n {
        let graph = world.submit(at % 3, graph("a on=w0; b[20]* <- a on=w0; c[20]* <- b"));
        world.cancel(at % 3, graph);
    }
    world.cancel(0, long);
}

/// Names that nobody has heard of, over and over.
fn storm_of_names(world: &mut World, from: u32, n: u32) {
    for at in from..from + n {
        let text = format!("op{at}x; c{at}x* <- op{at}x gpu{at}x=1; d{at}x* <- op{at}x on=worker{at}x");
        let graph = world.submit(0, graph(&text));
        world.finish(1);
        world.cancel(0, graph);
    }
}

#[test]
fn memory_returns_to_where_it_was() {
    let mut world = World::new(&[2; 4], 3);
    let left = nbytes_left_by(&mut world, |world| storm(world, 5_000));
    assert!(left < 64 << 10, "10,000 graphs submitted and cancelled leave {left} bytes");
    let left = nbytes_left_by(&mut world, |world| storm_of_what_waits(world, 1_000));
    assert!(left < 64 << 10, "2,000 graphs that waited leave {left} bytes");

    // A thousand graphs at once, done to the end.
    let n_before = world.n_ended;
    let left = nbytes_left_by(&mut world, |world| {
        let graphs: Vec<_> = (0..1_000).map(|at| (at % 3, world.submit(at % 3, graph("a[10]; b[9] <- a; c* <- b")))).collect();
        assert_eq!(world.machine.n_graphs(), 1_000);
        world.machine.validate();
        world.finish(usize::MAX);
        for (client, graph) in graphs {
            world.cancel(client, graph);
        }
    });
    assert_eq!(world.n_ended - n_before, 2_000, "all of them ended");
    assert!(left < 64 << 10, "1,000 graphs at once leave {left} bytes");

    // Names of operators are remembered, with what is known of them: so many, and no more.
    storm_of_names(&mut world, 0, 20_000);
    let before = nbytes_alive();
    storm_of_names(&mut world, 20_000, 5_000);
    world.check_empty();
    let left = nbytes_alive() - before;
    assert!(left < 256 << 10, "5,000 graphs with names of their own leave {left} bytes");

    // Workers that come and go, each told of all others.
    let left = nbytes_left_by(&mut world, |world| {
        for _ in 0..300 {
            let worker = world.join(2);
            let graph = world.submit(0, graph("a[12]; b[4]* <- a"));
            world.finish(usize::MAX);
            world.cancel(0, graph);
            world.lose(worker);
        }
    });
    assert!(left < 64 << 10, "300 workers that came and went leave {left} bytes");
    assert!(world.n_failed > 0, "cancelled outputs are told");
}
