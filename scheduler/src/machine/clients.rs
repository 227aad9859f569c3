//! Clients: their graphs come in, their questions are answered, and what they want ends with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rask_comm::limits::{MAX_SPREAD_WORKERS, name_fault};
use rask_comm::message::{
    FailureKind, FromClient, GraphStats, Holder, SCATTER_LIMIT, Spread, StatusReport, SubmitOptions, TaskFailure, ToClient,
    ToWorker,
};
use rask_comm::{Owner, PeerIdentity};
use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, ClientId, FinishOptions, GraphBuilder, GraphId, Source, TaskId, TaskIdx};

use super::core::Core;
use super::event::{Actions, GraphEnd, Note};
use super::graph_run::{
    Beginning, FINISHED_ONCE, GraphRun, HAS_EXTERNAL, Node, OUTPUT_PENDING, PreparedGraph, TaskState, UPLOADED, WANTED,
};
use super::holders::Loss;
use super::quotas::Size;
use super::uploads::Scatter;
use super::{contract, dispatch, frames, holders, lineage, note, placement, report, rights, transitions, uploads};

/// Connected clients and the graphs each follows.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) graphs_of: BTreeMap<ClientId, BTreeSet<GraphId>>,
    /// Who each of them is.
    who: BTreeMap<ClientId, PeerIdentity>,
}

impl Clients {
    /// A client, for people.
    fn name(&self, client: ClientId) -> String {
        self.who.get(&client).map_or_else(|| client.to_string(), PeerIdentity::to_string)
    }
}

pub(super) fn client_joined(core: &mut Core, client: ClientId, weight: f64, peer: PeerIdentity, out: &mut Actions) {
    core.flows.join(client, weight, peer.owner());
    core.clients.who.insert(client, peer);
    core.clients.graphs_of.insert(client, BTreeSet::new());
    out.tell_client(client, ToClient::Welcome { client, epoch: core.config.epoch });
}

pub(super) fn client_lost(core: &mut Core, client: ClientId, out: &mut Actions) {
    let name = core.clients.name(client);
    let graphs = core.clients.graphs_of.remove(&client).unwrap_or_default();
    core.clients.who.remove(&client);
    out.to_clients.remove(&client);
    for graph in graphs {
        let Some(run) = core.graphs.get_mut(&graph) else { continue };
        run.client = None;
        for waiting in run.locating.values_mut() {
            waiting.retain(|other| *other != client);
        }
        if !run.options.detached {
            note::end(core, graph, GraphEnd::Abandoned { client: name.clone() }, out);
            unwant_all(core, graph, out);
        }
        uploads::client_gone(core, client, graph, out);
    }
    core.flows.leave(client);
}

pub(super) fn client_said(core: &mut Core, client: ClientId, message: FromClient, out: &mut Actions) {
    let Some(who) = core.clients.who.get(&client) else { return };
    if !rights::may_say(who.role, &message) {
        show_out(core, client, out);
        return;
    }
    match message {
        FromClient::Submit { request, graph, options } => match PreparedGraph::new(*graph) {
            Ok(graph) => submit(core, client, request, graph, options, out),
            Err(reason) => out.tell_client(client, ToClient::Rejected { request, reason }),
        },
        FromClient::Scatter { request, nbytes, ticket, spread, options } => {
            match accept_scatter(core, client, Scatter::new(nbytes, ticket, spread), options) {
                Ok(graph) => {
                    note_submitted(core, client, graph, out);
                    out.tell_client(client, ToClient::Accepted { request, graph });
                    start_scatter(core, graph, out);
                }
                Err(reason) => out.tell_client(client, ToClient::Rejected { request, reason }),
            }
        }
        FromClient::NotUploaded { task, attempt, is_final, reason } => {
            uploads::not_uploaded(core, client, (task, attempt), is_final, &reason, out);
        }
        FromClient::Cancel { request, graph } => {
            let was_known = core.graphs.get(&graph).is_some_and(|run| rights::may_end(who, run));
            if was_known {
                cancel(core, client, graph, out);
            }
            out.tell_client(client, ToClient::Cancelled { request, was_known });
        }
        FromClient::Release { tasks } => {
            for task in tasks {
                if is_own(core, client, task) {
                    transitions::unwant(core, task, out);
                }
            }
        }
        FromClient::Locate { tasks } => {
            for task in tasks {
                locate(core, client, task, out);
            }
        }
        FromClient::FetchFailed { task, worker } => {
            if is_own(core, client, task) {
                holders::remove_holder(core, task, worker, Loss::Unreachable, out);
            }
        }
        FromClient::Status { request } => {
            if let Some(report) = status(core, client) {
                out.tell_client(client, ToClient::Status { request, report: Box::new(report) });
            }
        }
        FromClient::Attach { request, graph } => attach(core, client, request, graph, out),
    }
}

/// How the cluster is, as far as `client` may know.
pub(super) fn status(core: &Core, client: ClientId) -> Option<StatusReport> {
    let who = core.clients.who.get(&client)?;
    Some(report::status(core, |run| rights::may_see(who, run)))
}

/// Take in a graph that has been checked.
pub(super) fn submit(
    core: &mut Core,
    client: ClientId,
    request: u32,
    graph: PreparedGraph,
    options: SubmitOptions,
    out: &mut Actions,
) {
    let Some(who) = core.clients.who.get(&client) else { return };
    if !rights::may_submit(who.role) {
        show_out(core, client, out);
        return;
    }
    match accept(core, client, graph, options) {
        Ok((graph, beginning)) => {
            note_submitted(core, client, graph, out);
            out.tell_client(client, ToClient::Accepted { request, graph });
            start(core, graph, beginning, out);
        }
        Err(reason) => out.tell_client(client, ToClient::Rejected { request, reason }),
    }
}

/// A client submitted what is no graph.
pub(super) fn misspoke(core: &mut Core, client: ClientId, request: u32, reason: String, out: &mut Actions) {
    let Some(who) = core.clients.who.get(&client) else { return };
    if rights::may_submit(who.role) {
        out.tell_client(client, ToClient::Rejected { request, reason });
    } else {
        show_out(core, client, out);
    }
}

/// A client said what its role may not. Nothing that it says after that is heard.
fn show_out(core: &mut Core, client: ClientId, out: &mut Actions) {
    let Some(by) = core.clients.who.get(&client).cloned() else { return };
    client_lost(core, client, out);
    out.close_clients.push((client, rights::overstepped(by.role)));
    out.note(Note::Overstepped { by });
}

fn note_submitted(core: &Core, client: ClientId, graph: GraphId, out: &mut Actions) {
    let run = core.run(graph);
    let (name, n_tasks) = (run.options.name.clone(), run.n_tasks());
    out.note(Note::GraphAccepted { graph, name, client: core.clients.name(client), n_tasks });
}

/// Whether `task` exists in a graph that `client` submitted or follows.
fn is_own(core: &Core, client: ClientId, task: TaskId) -> bool {
    core.task(task).is_some() && core.run(task.graph).client == Some(client)
}

/// Put a graph into the tables, every needed task waiting.
fn accept(
    core: &mut Core,
    client: ClientId,
    graph: PreparedGraph,
    options: SubmitOptions,
) -> Result<(GraphId, Option<Beginning>), String> {
    check_options(&options)?;
    if let Some(reason) = frames::too_long(&graph.run.graph) {
        return Err(reason);
    }
    let owner = owner_of(core, client);
    core.held.check(&owner, graph.run.size(), &core.config.quotas)?;
    for external in &graph.run.graph.externals {
        if !is_own(core, client, *external) || !core.entry(*external).has(WANTED) {
            return Err(format!("the graph uses result {external}, which this client does not hold"));
        }
    }
    Ok(enter(core, client, graph, options, None))
}

fn owner_of(core: &Core, client: ClientId) -> Owner {
    core.clients.who.get(&client).map_or(Owner::Local, PeerIdentity::owner)
}

fn check_options(options: &SubmitOptions) -> Result<(), String> {
    name_fault(&options.name).map_or(Ok(()), |fault| Err(format!("the graph's name {fault}")))
}

/// Put a graph that has been checked into the tables.
fn enter(
    core: &mut Core,
    client: ClientId,
    prepared: PreparedGraph,
    options: SubmitOptions,
    scatter: Option<Scatter>,
) -> (GraphId, Option<Beginning>) {
    let id = GraphId(core.next_graph);
    core.next_graph += 1;
    let flow = core.flows.begin_graph(client);
    let PreparedGraph { mut run, beginning } = prepared;
    (run.id, run.client, run.flow, run.options, run.accepted_at) = (id, Some(client), flow, options, core.now);
    run.owner = owner_of(core, client);
    core.held.add(&run.owner, run.size());
    run.grant = core.config.secret.grant_of(id);
    run.operator_of = run.graph.bodies.iter().map(|body| core.learning.operator(&body.name())).collect();
    if let Some(scatter) = scatter {
        run.tasks.iter_mut().for_each(|entry| entry.set(UPLOADED));
        run.scatter = Some(Box::new(scatter));
    }
    core.clients.graphs_of.entry(client).or_default().insert(id);
    core.graphs.insert(id, run);
    (id, beginning)
}

/// Check a scatter and put its values into the tables, as tasks without inputs whose results are wanted.
fn accept_scatter(core: &mut Core, client: ClientId, scatter: Scatter, options: SubmitOptions) -> Result<GraphId, String> {
    check_options(&options)?;
    check_spread(&scatter.spread)?;
    let size = Size::of_graph(scatter.nbytes.len() as u32, 0);
    core.held.check(&owner_of(core, client), size, &core.config.quotas)?;
    let n_values = scatter.nbytes.len();
    if n_values == 0 || n_values > SCATTER_LIMIT {
        return Err(format!("{n_values} values at once: between 1 and {SCATTER_LIMIT} are possible"));
    }
    if scatter.nbytes.iter().any(|nbytes| *nbytes > contract::MAX_NBYTES) || scatter.spread.n_copies == 0 {
        return Err("a value that is larger than any memory, or of which there is to be no copy".to_owned());
    }
    let mut graph = GraphBuilder::new();
    let body = graph.body(Body::single("client.upload", 1, "{}"));
    let family = graph.family(if options.name.is_empty() { "scatter" } else { &options.name });
    for member in (0..).take(n_values) {
        let task = graph.task_with(KeyRef { family, member: Some(member) }, body).add();
        graph.output(task);
    }
    // Nothing is ordered: value n is task n.
    let graph = graph.finish(&FinishOptions { fuse: false, ..FinishOptions::default() }).map_err(|error| error.to_string())?;
    Ok(enter(core, client, PreparedGraph::of_values(graph.graph), options, Some(scatter)).0)
}

fn check_spread(spread: &Spread) -> Result<(), String> {
    let n_workers = spread.workers.len();
    if n_workers > MAX_SPREAD_WORKERS {
        return Err(format!("the values name {n_workers} workers, at most {MAX_SPREAD_WORKERS} are possible"));
    }
    let fault = spread.workers.iter().find_map(|name| name_fault(name));
    fault.map_or(Ok(()), |fault| Err(format!("the name of a worker {fault}")))
}

fn start_scatter(core: &mut Core, graph: GraphId, out: &mut Actions) {
    let tasks = (0..core.run(graph).n_tasks()).rev().map(|idx| TaskId::new(graph, TaskIdx(idx))).collect();
    transitions::released_to_waiting(core, tasks, out);
    lineage::note_no_workers(core);
}

/// Begin a graph just accepted.
fn start(core: &mut Core, graph: GraphId, beginning: Option<Beginning>, out: &mut Actions) {
    let Beginning { first, others, externals } = match beginning {
        Some(beginning) => beginning,
        None => {
            link_externals(core, graph);
            core.run_mut(graph).begin()
        }
    };
    let run = core.run_mut(graph);
    run.has_news = true;
    let (flow, priority) = (run.flow, run.options.priority);
    let is_over = run.n_active == 0;
    core.flows.add_queued(flow, first.len() as u32);
    core.queue.add_graph(flow, priority, graph, first);
    for external in externals {
        core.entry_mut(external).n_consumers += 1;
    }
    for task in others.into_iter().map(|idx| TaskId::new(graph, idx)) {
        if core.entry(task).state == TaskState::Waiting {
            placement::waiting_to_queued(core, task, out);
        }
    }
    fail_users_of_erred(core, graph, out);
    dispatch::fill_workers(core, out);
    if is_over {
        end_if_done(core, graph, out);
        core.note_maybe_over(graph);
    }
    lineage::note_no_workers(core);
}

/// Tasks of a graph just begun that use an earlier result which has failed will never have their input.
fn fail_users_of_erred(core: &mut Core, graph: GraphId, out: &mut Actions) {
    for external in 0..core.run(graph).externals.len() as u32 {
        let Some(failure) = transitions::source_failure(core, graph, Source::External(external)) else { continue };
        for at in core.run(graph).dependents(Node::External(external)) {
            if let Node::Task(idx) = core.run(graph).dependent(at) {
                transitions::to_erred(core, TaskId::new(graph, idx), Arc::clone(&failure), out);
            }
        }
    }
}

/// Have the graphs whose results this one uses know of it. They stay until this one is forgotten.
fn link_externals(core: &mut Core, graph: GraphId) {
    let externals = core.run(graph).graph.externals.clone();
    for (at, task) in externals.into_iter().enumerate() {
        let is_present = core.entry(task).state == TaskState::Memory;
        core.run_mut(graph).externals[at].is_present = is_present;
        let source = core.run_mut(task.graph);
        source.entry_mut(task.idx).set(HAS_EXTERNAL);
        source.external_users.entry(task.idx).or_default().push((graph, at as u32));
    }
}

/// Stop a graph for a person: its client hears that its outputs were cancelled, and by whom unless it was itself.
fn cancel(core: &mut Core, by: ClientId, graph: GraphId, out: &mut Actions) {
    let Some(who) = core.clients.who.get(&by).cloned() else { return };
    note::end(core, graph, GraphEnd::Cancelled { by: who.to_string() }, out);
    let run = core.run(graph);
    let message = match run.client == Some(by) {
        true => "the graph was cancelled".to_owned(),
        false => format!("the graph was cancelled by {who}"),
    };
    // Those who were promised an output, and those who asked where one is while it is being made again.
    let is_awaited = |idx: &&TaskIdx| run.entry(**idx).has(OUTPUT_PENDING) || run.locating.contains_key(*idx);
    let pending: Vec<TaskId> = run.graph.outputs.iter().filter(is_awaited).map(|idx| run.task_id(*idx)).collect();
    for task in pending {
        let failure = transitions::failure_of(core, task, FailureKind::Cancelled, "", None, message.clone());
        tell_failed(core, task, &failure, out);
    }
    unwant_all(core, graph, out);
}

fn unwant_all(core: &mut Core, graph: GraphId, out: &mut Actions) {
    for task in core.run(graph).graph.outputs.clone() {
        transitions::unwant(core, TaskId::new(graph, task), out);
    }
    core.note_maybe_over(graph);
}

fn attach(core: &mut Core, client: ClientId, request: u32, graph: GraphId, out: &mut Actions) {
    let Some(who) = core.clients.who.get(&client) else { return };
    // Somebody else's is as one that does not exist.
    let reason = match core.graphs.get(&graph).filter(|run| rights::owns(who, run)).map(|run| run.client) {
        None => Some(format!("there is no graph {graph}, or no more: it was cancelled, or the scheduler has been started since")),
        Some(Some(other)) if other != client => {
            let other = core.clients.name(other);
            Some(format!("graph {graph} is followed by {other}; a detached one can be attached to once that client has gone"))
        }
        Some(_) => None,
    };
    if let Some(reason) = reason {
        out.tell_client(client, ToClient::Rejected { request, reason });
        return;
    }
    out.note(Note::GraphAttached { graph, by: who.clone() });
    let Some(run) = core.graphs.get_mut(&graph) else { return };
    run.client = Some(client);
    run.told_waits.clear();
    run.has_news = true;
    let outputs = run.graph.outputs.clone();
    for idx in &outputs {
        // An output that was done once but is being made again is news to this client when it is done.
        let entry = run.entry_mut(*idx);
        if entry.has(WANTED) && entry.is_active() && !entry.has(OUTPUT_PENDING) {
            entry.set(OUTPUT_PENDING);
            run.n_outputs_pending += 1;
            run.ended_at = None;
        }
    }
    let has_ended = run.ended_at.is_some();
    core.clients.graphs_of.entry(client).or_default().insert(graph);
    out.tell_client(client, ToClient::Accepted { request, graph });
    for idx in outputs {
        let run = core.run(graph);
        let entry = run.entry(idx);
        let task = run.task_id(idx);
        if entry.state == TaskState::Memory && entry.has(WANTED) {
            out.tell_client(client, ToClient::TaskDone { task, nbytes: entry.nbytes });
        } else if entry.state == TaskState::Erred {
            out.tell_client(client, ToClient::TaskFailed { task, failure: Box::new(cause(run, idx)) });
        } else if !entry.has(WANTED) {
            let reason = "it was released, or its graph was cancelled";
            out.tell_client(client, ToClient::TaskFailed { task, failure: Box::new(no_such_result(task, reason)) });
        }
    }
    if has_ended {
        let stats = stats(core, graph);
        out.tell_client(client, ToClient::GraphEnded { graph, stats });
    }
}

fn no_such_result(task: TaskId, reason: &str) -> TaskFailure {
    TaskFailure {
        task,
        key: String::new(),
        kind: FailureKind::NoSuchResult,
        operator: String::new(),
        worker: String::new(),
        attempt: rask_graphs::Attempt(0),
        message: reason.to_owned(),
    }
}

fn cause(run: &GraphRun, idx: TaskIdx) -> TaskFailure {
    let cause = run.cause_of.get(&idx).copied().unwrap_or_default();
    (*run.failures[cause as usize]).clone()
}

fn locate(core: &mut Core, client: ClientId, task: TaskId, out: &mut Actions) {
    // What only another graph needs is made for that one, and may stop being made without a word to this client.
    if !is_own(core, client, task) || !core.entry(task).has(WANTED) && core.entry(task).state != TaskState::Erred {
        let failure = no_such_result(task, "it is not a result that this client holds");
        out.tell_client(client, ToClient::TaskFailed { task, failure: Box::new(failure) });
        return;
    }
    let run = core.run_mut(task.graph);
    match run.entry(task.idx).state {
        TaskState::Memory => tell_located(core, client, task, out),
        TaskState::Erred => {
            let failure = Box::new(cause(run, task.idx));
            out.tell_client(client, ToClient::TaskFailed { task, failure });
        }
        TaskState::Released | TaskState::Waiting | TaskState::Queued | TaskState::Processing => {
            let waiting = run.locating.entry(task.idx).or_default();
            if !waiting.contains(&client) {
                waiting.push(client);
            }
        }
    }
}

fn tell_located(core: &Core, client: ClientId, task: TaskId, out: &mut Actions) {
    let entry = core.entry(task);
    let holders = entry.holders.iter().filter_map(|worker| {
        let hello = &core.workers.get(*worker)?.hello;
        Some(Holder { worker: *worker, address: hello.data_address, name: hello.name.clone() })
    });
    let holders = holders.take(8).collect();
    let (attempt, nbytes, n_parts, grant) = (entry.attempt, entry.nbytes, entry.n_parts, core.run(task.graph).grant);
    out.tell_client(client, ToClient::Located { task, attempt, nbytes, n_parts, holders, grant });
}

/// A result is in memory: tell whoever waits for it.
pub(super) fn tell_in_memory(core: &mut Core, task: TaskId, out: &mut Actions) {
    let run = core.graphs.get_mut(&task.graph).expect("a task in memory has a graph");
    let waiting = if run.locating.is_empty() { None } else { run.locating.remove(&task.idx) };
    let client = run.client;
    let entry = run.entry_mut(task.idx);
    let nbytes = entry.nbytes;
    let was_pending = entry.has(OUTPUT_PENDING);
    entry.clear(OUTPUT_PENDING);
    if was_pending {
        run.n_outputs_pending -= 1;
        if let Some(client) = client {
            out.tell_client(client, ToClient::TaskDone { task, nbytes });
        }
        end_if_done(core, task.graph, out);
    }
    for client in waiting.unwrap_or_default() {
        tell_located(core, client, task, out);
    }
}

/// A task has failed for good: tell its client if it wanted the result.
pub(super) fn tell_failed(core: &mut Core, task: TaskId, failure: &TaskFailure, out: &mut Actions) {
    let run = core.graphs.get_mut(&task.graph).expect("a task that fails has a graph");
    let waiting = run.locating.remove(&task.idx).unwrap_or_default();
    let client = run.client;
    let entry = run.entry_mut(task.idx);
    let was_pending = entry.has(OUTPUT_PENDING);
    entry.clear(OUTPUT_PENDING);
    let mut told: BTreeSet<ClientId> = waiting.into_iter().collect();
    told.extend(client.filter(|_| was_pending));
    for client in told {
        out.tell_client(client, ToClient::TaskFailed { task, failure: Box::new(failure.clone()) });
    }
    if was_pending {
        run.n_outputs_pending -= 1;
        end_if_done(core, task.graph, out);
    }
}

/// The last output of a graph is done or has failed.
pub(super) fn end_if_done(core: &mut Core, graph: GraphId, out: &mut Actions) {
    let now = core.now;
    let run = core.run_mut(graph);
    if run.n_outputs_pending > 0 || run.ended_at.is_some() {
        return;
    }
    run.ended_at = Some(now);
    let outputs = run.graph.outputs.iter().map(|idx| run.entry(*idx)).filter(|entry| entry.state == TaskState::Memory);
    run.nbytes_kept = outputs.fold(0, |sum, entry| sum.saturating_add(entry.nbytes));
    note::end_of_itself(core, graph, out);
    let run = core.run_mut(graph);
    if let Some(client) = run.client {
        let counts = run.counts;
        run.has_news = false;
        out.tell_client(client, ToClient::Progress { graph, counts });
        let stats = stats(core, graph);
        out.tell_client(client, ToClient::GraphEnded { graph, stats });
    }
}

fn stats(core: &Core, graph: GraphId) -> GraphStats {
    let run = core.run(graph);
    GraphStats {
        n_tasks: run.counts.n_tasks,
        n_executions: run.n_executions,
        seconds: run.ended_at.unwrap_or(core.now).since(run.accepted_at).as_secs_f64(),
        nbytes_transferred: run.nbytes_transferred,
        nbytes_spilled: run.nbytes_spilled,
        n_workers: core.workers.len(),
    }
}

/// Tell clients how far their graphs are.
pub(super) fn tell_progress(core: &mut Core, out: &mut Actions) {
    for run in core.graphs.values_mut() {
        if let (true, Some(client)) = (run.has_news, run.client) {
            out.tell_client(client, ToClient::Progress { graph: run.id, counts: run.counts });
        }
        run.has_news = false;
    }
}

/// Drop the tables of a graph that has nothing left to do or to hold.
pub(super) fn forget_graph(core: &mut Core, graph: GraphId, out: &mut Actions) {
    let Some(run) = core.graphs.remove(&graph) else { return };
    core.held.remove(&run.owner, run.size());
    core.queue.remove_graph(run.flow, run.options.priority, graph);
    core.flows.end_graph(run.flow);
    core.speculation.forget_graph(graph);
    core.delays.forget_graph(graph);
    uploads::forget_graph(core, graph);
    if let Some(graphs) = run.client.and_then(|client| core.clients.graphs_of.get_mut(&client)) {
        graphs.remove(&graph);
    }
    for task in &run.graph.externals {
        let Some(source) = core.graphs.get_mut(&task.graph) else { continue };
        if let Some(users) = source.external_users.get_mut(&task.idx) {
            users.retain(|(user, _)| *user != graph);
            if users.is_empty() {
                source.external_users.remove(&task.idx);
                source.entry_mut(task.idx).clear(HAS_EXTERNAL);
            }
        }
        core.note_maybe_over(task.graph);
    }
    debug_assert!(run.tasks.iter().all(|entry| entry.state != TaskState::Memory || !entry.has(FINISHED_ONCE)));
    let ids: Vec<_> = core.workers.iter().map(|(id, _)| id).collect();
    for worker in ids {
        let knew = core.workers.update(worker, |entry| {
            let before = entry.known_bodies.len();
            entry.known_bodies.retain(|body| body.graph != graph);
            entry.known_groups.retain(|(of, _), _| *of != graph);
            before != entry.known_bodies.len()
        });
        if knew == Some(true) {
            out.tell_worker(worker, ToWorker::ForgetGraph { graph });
        }
    }
}
