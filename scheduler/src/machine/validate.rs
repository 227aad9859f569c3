//! Every invariant of the tables, checked the slow way: counted anew and compared.

use rask_graphs::{Source, TaskIdx};

use super::core::Core;
use super::graph_run::{DOUBTED, GraphRun, MOVING, NOBODY, OUTPUT_PENDING, TaskState, UPLOADED, WANTED};

pub(super) fn validate(core: &Core) {
    core.workers.validate();
    let mut n_processing = std::collections::BTreeMap::new();
    let mut n_doubted = std::collections::BTreeMap::new();
    let mut n_results = std::collections::BTreeMap::new();
    let mut flows = std::collections::BTreeMap::new();
    for run in core.graphs.values() {
        validate_graph(core, run);
        let (n_queued, n_graphs) = flows.entry(run.flow).or_insert((0, 0));
        *n_queued += run.tasks.iter().filter(|entry| entry.state == TaskState::Queued).count() as u32;
        *n_graphs += 1;
        for entry in &run.tasks {
            if entry.state == TaskState::Processing && !entry.has(UPLOADED) {
                let (count, occupancy, n_early, early_ns) = n_processing.entry(entry.worker).or_insert((0u32, 0u64, 0u32, 0u64));
                *count += 1;
                *occupancy += u64::from(entry.estimate_ns);
                *n_doubted.entry(entry.worker).or_insert(0) += u32::from(entry.has(DOUBTED));
                if entry.is_early() {
                    *n_early += 1;
                    *early_ns += u64::from(entry.estimate_ns);
                }
            }
            for holder in &entry.holders {
                *n_results.entry(*holder).or_insert(0u32) += 1;
            }
        }
    }
    for backup in core.speculation.backups.values() {
        let (count, occupancy, ..) = n_processing.entry(backup.worker).or_insert((0u32, 0u64, 0u32, 0u64));
        *count += 1;
        *occupancy += u64::from(backup.estimate_ns);
    }
    super::speculation::validate(core);
    core.held.validate(core.graphs.values().map(|run| (&run.owner, run.size())));
    core.flows.validate(&flows);
    for (id, worker) in core.workers.iter() {
        let (count, occupancy, n_early, early_ns) = n_processing.remove(&id).unwrap_or_default();
        assert_eq!((worker.n_early, worker.early_ns), (n_early, early_ns), "{id}: runs given early");
        assert_eq!(worker.n_processing, count, "{id}: runs given");
        assert_eq!(worker.n_doubted, n_doubted.remove(&id).unwrap_or_default(), "{id}: runs of doubted tasks");
        assert_eq!(worker.occupancy_ns, occupancy, "{id}: occupancy");
        assert_eq!(worker.n_results, n_results.remove(&id).unwrap_or_default(), "{id}: results held");
        let n_incoming = core.moves.values().filter(|thief| **thief == id).count();
        let n_outgoing = core.moves.keys().filter(|task| core.entry(**task).worker == id).count();
        assert_eq!((worker.n_incoming as usize, worker.n_outgoing as usize), (n_incoming, n_outgoing), "{id}: moves");
        assert_eq!(worker.is_reserved, core.quarantine.is_reserved(id), "{id}: reserved");
    }
    assert!(n_processing.is_empty(), "runs at workers that are gone: {n_processing:?}");
    super::replicas::validate(core);
    super::uploads::validate(core);
    for task in core.moves.keys() {
        assert!(core.task(*task).is_some_and(|entry| entry.has(MOVING)), "{task}: moves, and does not know it");
    }
    for (task, holders) in &core.early_holders {
        let is_made = core.task(*task).is_some_and(|entry| entry.state == TaskState::Processing);
        assert!(is_made && !holders.is_empty(), "{task}: fetched, but nobody makes it");
    }
    assert!(n_results.is_empty(), "results at workers that are gone: {n_results:?}");
}

fn validate_graph(core: &Core, run: &GraphRun) {
    let mut consumers = vec![0u32; run.tasks.len()];
    let mut group_consumers = vec![0u32; run.groups.len()];
    let mut external_consumers = vec![0u32; run.externals.len()];
    let (mut n_active, mut n_memory, mut n_wanted, mut n_pending) = (0, 0, 0, 0);
    for (idx, entry) in run.tasks.iter().enumerate() {
        let task = TaskIdx(idx as u32);
        n_active += u32::from(entry.is_active());
        n_memory += u32::from(entry.state == TaskState::Memory);
        n_wanted += u32::from(entry.has(WANTED));
        n_pending += u32::from(entry.has(OUTPUT_PENDING));
        validate_entry(core, run, task);
        if !entry.is_active() {
            continue;
        }
        for input in &run.graph.inputs[run.inputs(task)] {
            match input.source() {
                Source::Task(source) => consumers[source.index()] += 1,
                Source::Group(group) => group_consumers[group as usize] += 1,
                Source::External(external) => external_consumers[external as usize] += 1,
            }
        }
    }
    for (group, entry) in run.groups.iter().enumerate() {
        assert_eq!(entry.n_consumers, group_consumers[group], "{} group {group}: consumers", run.id);
        let members = &run.graph.group_members[run.members(group as u32)];
        let missing = members.iter().filter(|idx| run.entry(**idx).state != TaskState::Memory).count();
        assert_eq!(entry.n_missing as usize, missing, "{} group {group}: missing members", run.id);
        if entry.n_consumers > 0 {
            members.iter().for_each(|idx| consumers[idx.index()] += 1);
        }
    }
    for (external, entry) in run.externals.iter().enumerate() {
        assert_eq!(entry.n_consumers, external_consumers[external], "{} external {external}: consumers", run.id);
        let source = core.entry(run.graph.externals[external]);
        assert_eq!(entry.is_present, source.state == TaskState::Memory, "{} external {external}: presence", run.id);
    }
    for users in &run.external_users {
        for (user, external) in users.1 {
            let needs = core.graphs.get(user).is_some_and(|user| user.externals[*external as usize].n_consumers > 0);
            consumers[users.0.index()] += u32::from(needs);
        }
    }
    for (idx, entry) in run.tasks.iter().enumerate() {
        assert_eq!(entry.n_consumers, consumers[idx], "{} t{idx}: consumers", run.id);
    }
    assert_eq!((run.n_active, run.n_memory), (n_active, n_memory), "{}: active and in memory", run.id);
    assert_eq!((run.n_wanted, run.n_outputs_pending), (n_wanted, n_pending), "{}: wanted and pending", run.id);
}

fn validate_entry(core: &Core, run: &GraphRun, task: TaskIdx) {
    let entry = run.entry(task);
    let id = run.task_id(task);
    assert_eq!(entry.state == TaskState::Memory, !entry.holders.is_empty(), "{id}: in memory means held, {entry:?}");
    for holder in &entry.holders {
        assert!(core.workers.get(*holder).is_some(), "{id}: held by {holder}, which is gone");
    }
    if entry.is_active() {
        assert_eq!(entry.n_missing, run.count_missing(task), "{id}: missing inputs");
        assert_eq!(entry.n_unplaced, run.count_unplaced(task), "{id}: inputs not placed");
    }
    match entry.state {
        TaskState::Waiting => assert!(entry.n_missing > 0, "{id}: waits for nothing"),
        TaskState::Queued => assert_eq!(entry.n_unplaced, 0, "{id}: queued without its inputs"),
        TaskState::Processing => {
            assert!(entry.worker != NOBODY && core.workers.get(entry.worker).is_some(), "{id}: given to nobody");
        }
        TaskState::Released | TaskState::Memory | TaskState::Erred => {}
    }
    if entry.is_active() || entry.state == TaskState::Memory {
        assert!(entry.is_needed(), "{id}: {:?}, but nobody needs it", entry.state);
    }
    if entry.has(OUTPUT_PENDING) {
        assert!(entry.has(WANTED) && entry.is_active(), "{id}: pending, but {:?}", entry.state);
    }
}
