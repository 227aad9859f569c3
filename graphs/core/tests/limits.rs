//! Graphs whose tables are short and whose products are not: refused with the count and the limit, by whoever builds them and
//! by whoever is sent them.

use rask_graphs::limits::{MAX_BODY_STEPS, MAX_GRAPH_WISHES, MAX_KERNEL_INPUTS, NAME_NBYTES};
use rask_graphs::{Body, FinishOptions, Graph, GraphBuilder, Part, Step, TaskIdx, TaskOptions, Wire, Wires};

const AS_IS: FinishOptions = FinishOptions { cull: false, fuse: false, order: false };

fn step(wires: Wires) -> Step {
    Step { operator: "core.noop".into(), version: 1, args: "{}".into(), wires }
}

fn refusal(graph: &Graph) -> String {
    graph.check().map_or_else(|error| error.to_string(), |()| "accepted".to_owned())
}

fn finished(graph: GraphBuilder) -> Result<Graph, String> {
    graph.finish(&AS_IS).map(|finished| finished.graph).map_err(|error| error.to_string())
}

/// A chain of `n_steps` in one body.
fn long_body(n_steps: usize) -> Body {
    let chain = |at: usize| Wires::These(vec![if at == 0 { Wire::Input(0) } else { Wire::Step(at as u32 - 1, Part::WHOLE) }]);
    Body { steps: (0..n_steps).map(|at| step(chain(at))).collect() }
}

/// `n_tasks` tasks that share `body` and take the same task.
fn sharing(body: Body, n_tasks: u32) -> GraphBuilder {
    let mut graph = GraphBuilder::new();
    let first = graph.task("first", "core.noop", 1, "{}").add();
    let (family, body) = (graph.family("x"), graph.body(body));
    for member in 0..n_tasks {
        let task = graph.task_with(rask_graphs::keys::KeyRef { family, member: Some(member) }, body).input(first).add();
        graph.output(task);
    }
    graph
}

/// A task that names a group of `n_members` `n_times` times.
fn fan(n_members: u32, n_times: u32) -> GraphBuilder {
    let mut graph = GraphBuilder::new();
    let (family, body) = (graph.family("member"), graph.body(Body::single("core.noop", 1, "{}")));
    let key = |member| rask_graphs::keys::KeyRef { family, member: Some(member) };
    let members: Vec<TaskIdx> = (0..n_members).map(|member| graph.task_with(key(member), body).add()).collect();
    let group = graph.group(members);
    let mut task = graph.task("total", "core.noop", 1, "{}");
    for _ in 0..n_times {
        task = task.input_group(group, Part::WHOLE);
    }
    let task = task.add();
    graph.output(task);
    graph
}

#[test]
fn tasks_times_the_steps_of_their_body_are_not_looked_at_one_by_one() {
    // 10^9 steps, in a graph of a few megabytes.
    let whole = finished(sharing(long_body(MAX_BODY_STEPS), 1_000_000)).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(refusal(&whole), "accepted");
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_body_has_so_many_steps() {
    let too_long = long_body(100_000);
    let error = finished(sharing(too_long.clone(), 3)).unwrap_err();
    assert!(error.contains("100000 steps, at most 1024 are possible"), "{error}");
    let mut graph = finished(sharing(long_body(2), 3)).unwrap();
    graph.bodies[1] = too_long;
    assert!(refusal(&graph).contains("100000 steps, at most 1024 are possible"), "{}", refusal(&graph));
}

#[test]
fn a_task_takes_so_many_members_of_groups() {
    assert!(finished(fan(1_000, 1_000)).is_ok());
    let error = finished(fan(10_000, 2_000)).unwrap_err();
    let limit = format!("takes 20000000 values, the members of groups counted one by one; at most {MAX_KERNEL_INPUTS}");
    assert!(error.starts_with("task \"total\"") && error.contains(&limit), "{error}");
    // The same tables, from somebody who did not ask a builder.
    let mut graph = finished(fan(10_000, 1)).unwrap();
    let input = *graph.inputs.last().unwrap();
    graph.inputs = vec![input; 2_000];
    *graph.input_offsets.last_mut().unwrap() = 2_000;
    assert!(refusal(&graph).contains("20000000 values"), "{}", refusal(&graph));
}

#[test]
fn a_step_that_names_a_group_many_times_counts_too() {
    let mut graph = finished(fan(10_000, 1)).unwrap();
    let body = graph.body_of[10_000] as usize;
    graph.bodies[body].steps = vec![step(Wires::These(vec![Wire::Input(0); 2_000]))];
    // All no-ops share the body: those without inputs cannot.
    graph.bodies.push(graph.bodies[body].clone());
    graph.bodies[body].steps = vec![step(Wires::All)];
    *graph.body_of.last_mut().unwrap() = graph.bodies.len() as u32 - 1;
    assert!(refusal(&graph).contains("20000000 values"), "{}", refusal(&graph));
}

#[test]
fn wishes_have_short_names_and_are_not_all_different() {
    let with = |options: Vec<TaskOptions>| {
        let mut graph = GraphBuilder::new();
        for (at, options) in options.into_iter().enumerate() {
            let task = graph.task(&format!("t{at}"), "core.noop", 1, "{}").options(options).add();
            graph.output(task);
        }
        finished(graph)
    };
    let asks = |name: String, amount: f64| TaskOptions { resources: vec![(name, amount)], ..TaskOptions::default() };
    let long = with(vec![asks("r".repeat(NAME_NBYTES + 1), 1.0)]).unwrap_err();
    assert!(long.contains("129 bytes long, at most 128"), "{long}");
    let odd = with(vec![asks("R\nw1 is idle".to_owned(), 1.0)]).unwrap_err();
    assert!(odd.contains("which names cannot have"), "{odd}");
    let many = (0..20_000).map(|at| asks(format!("r{at}"), 1.0)).collect();
    let many = with(many).unwrap_err();
    assert!(many.contains("too many different wishes") && many.contains(&MAX_GRAPH_WISHES.to_string()), "{many}");
    let same = (0..20_000).map(|at| asks("gpu".to_owned(), f64::from(at % 4))).collect();
    let mut graph = with(same).unwrap();
    graph.options[7].1.resources[0].0 = "r".repeat(1_000_000);
    assert!(refusal(&graph).contains("1000000 bytes long"), "{}", refusal(&graph));
}
