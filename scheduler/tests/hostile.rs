//! Graphs from strangers: what contradicts itself is refused and leaves nothing behind; what is merely extreme is run and freed.
//!
//! Here workers are zero workers: every run they are given is finished at once. So that a million tasks take seconds, the machine
//! validates itself at the ends only.

mod common;

use std::net::SocketAddr;

use rask_comm::message::{ClientHello, FromClient, FromWorker, PROTOCOL_VERSION, SubmitOptions, ToClient, ToWorker, WorkerHello};
use rask_comm::time::Time;
use rask_graphs::graph::Input;
use rask_graphs::keys::{KeyRef, KeysBuilder};
use rask_graphs::{
    Body, ClientId, FinishOptions, Graph, GraphBuilder, GraphId, Part, Source, Step, TaskId, TaskIdx, TaskOptions, Wire, Wires,
    WorkerId,
};
use rask_scheduler::machine::{Actions, Config, Event, Machine, Quotas};

const CLIENT: ClientId = ClientId(0);
const WORKER: WorkerId = WorkerId(0);

/// The machine, a stranger and a zero worker.
struct Stage {
    machine: Machine,
    n_runs: usize,
    /// Runs whose results the worker holds.
    n_held: usize,
    /// Parts of the results of tasks without inputs.
    n_parts: u32,
    /// Members of groups that the worker was told of.
    n_members: usize,
    told: Vec<ToClient>,
}

impl Stage {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let machine = Machine::new(config);
        let mut stage = Self { machine, n_runs: 0, n_held: 0, n_parts: 0, n_members: 0, told: Vec::new() };
        let hello = WorkerHello {
            version: PROTOCOL_VERSION,
            name: "zero".to_owned(),
            n_slots: 1,
            memory_limit: 1 << 40,
            resources: Vec::new(),
            data_address: SocketAddr::from(([127, 0, 0, 1], 9_000)),
            host: String::new(),
            registry_fingerprint: 0,
        };
        stage.event(Event::WorkerJoined { worker: WORKER, hello, key: rask_comm::KeyId::default() });
        let hello = ClientHello { version: PROTOCOL_VERSION, name: "stranger".to_owned(), weight: 1.0 };
        stage.event(Event::ClientJoined {
            client: CLIENT,
            hello,
            peer: rask_comm::PeerIdentity::local(rask_comm::Role::Client, "here"),
        });
        stage
    }

    /// Something happens, and the zero worker answers until nothing more comes of it.
    fn event(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let mut actions = Actions::default();
            for event in events.drain(..) {
                self.machine.handle(Time::default(), event, &mut actions);
            }
            assert!(actions.close_clients.is_empty() && actions.close_workers.is_empty(), "somebody was closed");
            self.told.extend(actions.to_clients.into_values().flatten());
            for message in actions.to_workers.into_values().flatten() {
                match message {
                    ToWorker::Run(run) => {
                        self.n_runs += 1;
                        self.n_held += 1;
                        let (task, attempt) = (run.task, run.attempt);
                        let n_parts = if run.inputs.is_empty() && run.groups.is_empty() { self.n_parts } else { 0 };
                        let message = FromWorker::Finished { task, attempt, nbytes: 8, n_parts, duration_us: 1 };
                        events.push(Event::WorkerSaid { worker: WORKER, message });
                    }
                    ToWorker::Free { tasks } => self.n_held -= tasks.len(),
                    ToWorker::Group { members, .. } => self.n_members += members.len(),
                    ToWorker::Welcome { .. }
                    | ToWorker::Body { .. }
                    | ToWorker::Peer { .. }
                    | ToWorker::ForgetGraph { .. }
                    | ToWorker::Keep { .. }
                    | ToWorker::Expect { .. }
                    | ToWorker::Cancel { .. }
                    | ToWorker::Revoke { .. }
                    | ToWorker::Replicate { .. }
                    | ToWorker::Leave { .. }
                    | ToWorker::Close { .. } => {}
                }
            }
        }
    }

    fn say(&mut self, message: FromClient) {
        self.event(Event::ClientSaid { client: CLIENT, message });
    }

    /// Submit `graph`; the reason when it is refused.
    fn submit(&mut self, graph: Graph) -> Result<GraphId, String> {
        self.told.clear();
        self.say(FromClient::Submit { request: 7, graph: Box::new(graph), options: SubmitOptions::default() });
        let answer = self.told.iter().find_map(|message| {
            if let ToClient::Accepted { request: 7, graph } = message {
                return Some(Ok(*graph));
            }
            if let ToClient::Rejected { request: 7, reason } = message { Some(Err(reason.clone())) } else { None }
        });
        answer.expect("an answer")
    }
}

/// `n` no-ops without inputs, the last one an output.
fn plain(n: u32) -> Graph {
    let mut keys = KeysBuilder::default();
    let family = keys.family("x");
    (0..n).for_each(|member| keys.push(KeyRef { family, member: Some(member) }));
    Graph {
        bodies: vec![Body::single("core.noop", 1, "{}")],
        body_of: vec![0; n as usize],
        input_offsets: vec![0; n as usize + 1],
        inputs: Vec::new(),
        group_offsets: vec![0],
        group_members: Vec::new(),
        externals: Vec::new(),
        keys: keys.finish(),
        options: Vec::new(),
        outputs: vec![TaskIdx(n - 1)],
    }
}

/// [`plain`], but each task with one input.
fn with_inputs(sources: &[Source]) -> Graph {
    let n = u32::try_from(sources.len()).expect("few");
    Graph {
        input_offsets: (0..=n).collect(),
        inputs: sources.iter().map(|&source| Input::new(source, Part::WHOLE)).collect(),
        ..plain(n)
    }
}

fn task(idx: u32) -> Source {
    Source::Task(TaskIdx(idx))
}

#[test]
fn graphs_that_contradict_themselves_are_refused_and_leave_nothing() {
    let order = "malformed graph: an input does not precede its task";
    let group_of = |members: &[u32], inputs: &[Source]| Graph {
        group_offsets: vec![0, members.len() as u32],
        group_members: members.iter().copied().map(TaskIdx).collect(),
        ..with_inputs(inputs)
    };
    let step = |wires| Body { steps: vec![Step { operator: "core.noop".into(), version: 1, args: "{}".into(), wires }] };
    let resource = |amount| TaskOptions { resources: vec![("gpu".to_owned(), amount)], ..TaskOptions::default() };
    let table: Vec<(&str, Graph, &str)> = vec![
        ("a task that waits for itself", with_inputs(&[task(0)]), order),
        ("two tasks that wait for each other", with_inputs(&[task(1), task(0)]), order),
        ("a dangling input", with_inputs(&[task(1_000_000)]), order),
        ("the last number there is", with_inputs(&[task((1 << 30) - 1)]), order),
        ("a dangling group", with_inputs(&[Source::Group(0)]), order),
        ("a dangling external", with_inputs(&[Source::External(0)]), order),
        ("a group that waits for its consumer", group_of(&[0], &[Source::Group(0)]), order),
        ("a group that waits for a later task", group_of(&[1], &[Source::Group(0), task(0)]), order),
        (
            "a dangling member",
            Graph { group_offsets: vec![0, 1], group_members: vec![TaskIdx(9)], ..plain(1) },
            "malformed graph: a group names a task that is not there",
        ),
        (
            "two groups that wait for each other",
            Graph {
                group_offsets: vec![0, 1, 2],
                group_members: vec![TaskIdx(1), TaskIdx(0)],
                ..with_inputs(&[Source::Group(0), Source::Group(1)])
            },
            order,
        ),
        (
            "a result that is not the stranger's",
            {
                let mut graph = with_inputs(&[Source::External(0)]);
                graph.externals = vec![TaskId::new(GraphId(77), TaskIdx(0))];
                graph
            },
            "the graph uses result g77.t0, which this client does not hold",
        ),
        (
            "offsets that promise four billion inputs",
            Graph { input_offsets: vec![0, u32::MAX], ..plain(1) },
            "malformed graph: input offsets do not fit the inputs",
        ),
        (
            "offsets that fall",
            Graph { input_offsets: vec![0, 2, 1, 1], inputs: vec![Input::new(task(0), Part::WHOLE)], ..plain(3) },
            "malformed graph: input offsets do not fit the inputs",
        ),
        (
            "offsets that promise four billion members",
            Graph { group_offsets: vec![0, u32::MAX], ..plain(1) },
            "malformed graph: group offsets do not fit the members",
        ),
        (
            "no groups' offsets at all",
            Graph { group_offsets: Vec::new(), ..plain(1) },
            "malformed graph: group offsets do not fit the members",
        ),
        ("names for others", Graph { keys: plain(2).keys, ..plain(3) }, "malformed graph: names do not fit the tasks"),
        ("an output twice", Graph { outputs: vec![TaskIdx(0); 2], ..plain(1) }, "malformed graph: outputs do not fit the tasks"),
        ("a dangling output", Graph { outputs: vec![TaskIdx(1)], ..plain(1) }, "malformed graph: outputs do not fit the tasks"),
        ("a dangling body", Graph { body_of: vec![1], ..plain(1) }, "malformed graph: a task names a body that is not there"),
        (
            "an empty body",
            Graph { bodies: vec![Body { steps: Vec::new() }], ..plain(1) },
            "malformed graph: a body without steps",
        ),
        (
            "a step that uses itself",
            Graph { bodies: vec![step(Wires::These(vec![Wire::Step(0, Part::WHOLE)]))], ..plain(1) },
            "malformed graph: a task: step 0 of its body uses itself or a later step",
        ),
        (
            "a step that uses an input too many",
            Graph { bodies: vec![step(Wires::These(vec![Wire::Input(u32::MAX)]))], ..plain(1) },
            "malformed graph: a fused step uses an input that is not there",
        ),
        (
            "options twice",
            Graph { options: vec![(TaskIdx(0), TaskOptions::default()); 2], ..plain(1) },
            "malformed graph: options do not fit the tasks",
        ),
        (
            "less than nothing of a resource",
            Graph { options: vec![(TaskIdx(0), resource(-1.0))], ..plain(1) },
            "malformed graph: task \"x-0\": the amount of resource \"gpu\" is negative or not a number",
        ),
        (
            "no number of a resource",
            Graph { options: vec![(TaskIdx(0), resource(f64::NAN))], ..plain(1) },
            "malformed graph: task \"x-0\": the amount of resource \"gpu\" is negative or not a number",
        ),
    ];
    let mut stage = Stage::new();
    let before = stage.machine.n_tasks();
    for (what, graph, expected) in table {
        assert_eq!(stage.submit(graph).expect_err(what), expected, "{what}");
        stage.machine.validate();
    }
    assert_eq!((stage.machine.n_tasks(), stage.n_runs), (before, 0), "nothing was kept, nothing ran");
    // The stranger may go on with a sound one.
    let graph = stage.submit(plain(3)).expect("sound");
    assert_eq!(stage.n_runs, 1, "what no output needs is not run");
    stage.say(FromClient::Release { tasks: vec![TaskId::new(graph, TaskIdx(2))] });
    stage.machine.validate();
}

#[test]
fn a_chain_of_a_million_is_run_and_freed() {
    const N: u32 = 1_000_000;
    let graph = Graph {
        input_offsets: (0..=N).map(|at| at.saturating_sub(1)).collect(),
        inputs: (0..N - 1).map(|at| Input::new(task(at), Part::WHOLE)).collect(),
        ..plain(N)
    };
    run_and_free(graph, N as usize);
}

/// One task that takes the results of all others.
fn all_to_one(n: u32) -> Graph {
    let mut input_offsets = vec![0; n as usize];
    input_offsets.push(n - 1);
    let inputs = (0..n - 1).map(|at| Input::new(task(at), Part::WHOLE)).collect();
    Graph { input_offsets, inputs, ..plain(n) }
}

#[test]
fn nearly_half_a_million_to_one_is_run_and_freed() {
    const N: u32 = 450_000;
    run_and_free(all_to_one(N), N as usize);
}

/// What could not be told to a worker in one frame.
#[test]
fn a_million_to_one_is_refused_in_words() {
    let refused = Stage::new().submit(all_to_one(1_000_000)).expect_err("no frame is as long");
    assert!(refused.contains("task \"x-999999\" has 999999 inputs, and 450000 are possible"), "{refused}");
}

/// A shuffle of m by n is m members and n consumers, here and on the wire: nothing for each of its m x n parts.
#[test]
fn a_shuffle_of_two_thousand_by_two_thousand_costs_its_members_and_consumers() {
    const N: u32 = 2_000;
    let graph = Graph {
        input_offsets: (0..=2 * N).map(|at| at.saturating_sub(N)).collect(),
        inputs: (0..N).map(|part| Input::new(Source::Group(0), Part(part))).collect(),
        group_offsets: vec![0, N],
        group_members: (0..N).map(TaskIdx).collect(),
        outputs: (N..2 * N).map(TaskIdx).collect(),
        ..plain(2 * N)
    };
    let mut stage = Stage::new();
    stage.n_parts = N;
    let id = stage.submit(graph).expect("sound");
    assert_eq!((stage.n_runs, stage.n_held), (2 * N as usize, N as usize), "all ran, and the members are freed");
    let nbytes = stage.machine.graph_nbytes(id).expect("its outputs are held");
    assert!(nbytes <= 250 * 2 * N as usize, "{nbytes} bytes for {} tasks", 2 * N);
    assert_eq!(stage.n_members, N as usize, "the worker is told once where the members are");
    stage.say(FromClient::Release { tasks: (N..2 * N).map(|idx| TaskId::new(id, TaskIdx(idx))).collect() });
    stage.machine.validate();
    assert_eq!((stage.n_held, stage.machine.n_tasks()), (0, 0));
}

fn run_and_free(graph: Graph, n: usize) {
    let mut stage = Stage::new();
    let last = TaskIdx(u32::try_from(n - 1).expect("fits"));
    let id = stage.submit(graph).expect("extreme, but sound");
    assert_eq!(stage.n_runs, n, "every task ran once");
    let is_done = |message: &ToClient| matches!(message, ToClient::TaskDone { task, .. } if *task == TaskId::new(id, last));
    assert_eq!(stage.told.iter().filter(|message| is_done(message)).count(), 1);
    stage.machine.validate();
    assert_eq!(stage.n_held, 1, "only the output is left");
    stage.say(FromClient::Release { tasks: vec![TaskId::new(id, last)] });
    assert_eq!(stage.n_held, 0);
    stage.machine.validate();
    assert_eq!(stage.machine.n_tasks(), 0, "the graph is forgotten");
}

#[test]
fn an_owner_has_so_many_graphs_and_tasks_and_gets_them_back() {
    let mut stage = Stage::with(Config { quotas: Quotas { max_graphs: 3, max_tasks: 100 }, ..Config::default() });
    let large = stage.submit(plain(101)).unwrap_err();
    assert!(large.contains("101 more tasks") && large.contains("at most 100 are possible"), "{large}");
    let ids: Vec<GraphId> = (0..3).map(|_| stage.submit(plain(10)).unwrap()).collect();
    let many = stage.submit(plain(1)).unwrap_err();
    assert!(many.contains("1 more graphs, beside 3") && many.contains("at most 3 are possible"), "{many}");
    stage.machine.validate();
    stage.say(FromClient::Cancel { request: 1, graph: ids[0] });
    assert!(stage.submit(plain(1)).is_ok());
    stage.machine.validate();
}

#[test]
fn a_status_tells_of_so_many_wishes() {
    let mut stage = Stage::new();
    let mut graph = GraphBuilder::new();
    for at in 0..100 {
        let options = TaskOptions { resources: vec![(format!("r{at}"), 1.0)], ..TaskOptions::default() };
        let task = graph.task(&format!("t{at}"), "core.noop", 1, "{}").options(options).add();
        graph.output(task);
    }
    stage.submit(graph.finish(&FinishOptions::default()).unwrap().graph).unwrap();
    let status = stage.machine.status();
    assert_eq!((status.unmet.len(), status.n_more_unmet), (20, 80));
}
