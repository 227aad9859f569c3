"""One round of Dask, run inside the virtual environment: the graphs of `rask bench overhead` and `taskbench`."""

import itertools
import time

import metg
from rounds import N_WARM_UP, N_WORKERS, per_task, print_lines, rate

# What makes Dask faster on these graphs. Unlimited saturation sends root tasks ahead of free threads (two to three times the
# rate on independent tasks); the profiler would interrupt the workers every 10 ms.
CONFIGURATION = {
    "distributed.scheduler.worker-saturation": "inf",
    "distributed.worker.profile.enabled": False,
    "logging": {"distributed": "error", "tornado": "critical"},
}


def noop(*_inputs):
    """The task. Workers import it by name, so that no task carries its code."""


def independent(graph, n_tasks):
    """`n_tasks` no-ops, every one an output."""
    tasks = {("task", graph, i): (noop,) for i in range(n_tasks)}
    return tasks, list(tasks)


def tree(graph, n_tasks):
    """A binary tree of about `n_tasks` no-ops, shaped as `rask bench overhead` does, its root the only output."""
    tasks = {}

    def add(*inputs):
        key = ("task", graph, len(tasks))
        tasks[key] = (noop, *inputs)
        return key

    level = [add() for _ in range((n_tasks + 1) // 2)]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [add(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return tasks, level


def chain(graph, n_tasks):
    """A chain of `n_tasks` no-ops, its last link the only output."""
    tasks = {}
    for i in range(n_tasks):
        tasks["task", graph, i] = (noop, ("task", graph, i - 1)) if i else (noop,)
    return tasks, [("task", graph, n_tasks - 1)]


def grid(graph, pattern, width, steps, iterations):
    """A graph of Task Bench. As in Rask, results that no task needs are outputs and the others are freed after use."""
    tasks = {}
    for step, point in itertools.product(range(steps), range(width)):
        inputs = [("task", graph, step - 1, other) for other in metg.dependencies(pattern, width, step, point)]
        tasks["task", graph, step, point] = (metg.compute, iterations, *inputs)
    if pattern == "trivial":
        return tasks, list(tasks)
    return tasks, [("task", graph, steps - 1, point) for point in range(width)]


class InTurn:
    """Restricts each next link of a chain to the next of the workers."""

    def __init__(self, workers):
        self.workers = workers

    def __call__(self, key):
        return [self.workers[key[-1] % len(self.workers)]]


def run_round(sizes):
    """All benchmarks once, on a fresh cluster; `sizes` are numbers of tasks by name. Figures of overhead, and lines of METG."""
    import dask

    dask.config.set(CONFIGURATION)
    # Imported after the configuration is set: logging is set up on import.
    from distributed import Client, LocalCluster, wait

    peak = metg.Peak(N_WORKERS)
    names = (f"graph{i}" for i in itertools.count())
    options = {"n_workers": N_WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:

        def run(make, *arguments):
            """From submission until every output is known to be done; results stay on the workers."""
            tasks, outputs = make(next(names), *arguments)
            begun = time.perf_counter()
            futures = client.get(tasks, outputs, sync=False)
            wait(futures)
            elapsed = time.perf_counter() - begun
            del futures
            return elapsed

        def settle():
            """Lets the release of the graph before it pass through every queue, outside of what is timed."""
            run(independent, 100)
            time.sleep(0.1)

        # Connections are made and the duration of the task is learned before the clock runs.
        run(independent, N_WARM_UP)
        seconds = {}
        for name, make in (("independent", independent), ("tree", tree), ("chain", chain)):
            settle()
            seconds[name] = run(make, sizes[name])
        settle()
        with dask.annotate(workers=InTurn(list(client.scheduler_info(n_workers=-1)["workers"]))):
            hop_seconds = run(chain, sizes["hop"])
        settle()

        def run_grid(*shape):
            return run(grid, *shape)

        benches = metg.benches(run_grid, settle, peak, N_WORKERS, sizes["repetitions"])
    peak.close()
    overhead = {
        "independent": rate(sizes["independent"], seconds["independent"]),
        "tree": rate(sizes["tree"], seconds["tree"]),
        "chain": per_task(sizes["chain"], seconds["chain"], "us_per_task"),
        "hop": per_task(sizes["hop"], hop_seconds, "us_per_hop"),
    }
    return overhead, benches


def print_round(sizes):
    """Runs a round and prints its lines."""
    print_lines(*run_round(sizes))
