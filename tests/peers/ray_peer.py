"""One round of Ray, run inside the virtual environment: the graphs of `rask bench overhead` and `taskbench`.

Ray has no graphs: a driver submits task after task, and a task's inputs are references to results that need not exist yet. So
the clock begins with the first submission.
"""

import tempfile
import time

import metg
from rounds import N_WARM_UP, N_WORKERS, per_task, print_lines, rate

# Nothing that Ray could do without: no dashboard, no output of workers, and memory for a few small results.
OPTIONS = {
    "num_cpus": N_WORKERS,
    "include_dashboard": False,
    "log_to_driver": False,
    "logging_level": "error",
    "object_store_memory": 256 << 20,
}


def run_round(sizes):
    """All benchmarks once, on a fresh cluster; `sizes` are numbers of tasks by name. Figures of overhead, and lines of METG."""
    peak = metg.Peak(N_WORKERS)
    # Ray imports much; what it costs should not be spent by the processes of the peak too.
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(_temp_dir=folder, **OPTIONS)
        try:
            return measure(ray, sizes, peak)
        finally:
            ray.shutdown()
            peak.close()


def measure(ray, sizes, peak):
    noop_task = ray.remote(noop)
    compute_task = ray.remote(metg.compute)
    # Actors because Ray's tasks cannot be sent to a process of choice on one machine.
    links = [ray.remote(num_cpus=0)(Link).remote() for _ in range(N_WORKERS)]

    def wait(refs):
        ray.wait(refs, num_returns=len(refs), fetch_local=False)

    def independent(n_tasks):
        wait([noop_task.remote() for _ in range(n_tasks)])

    def tree(n_tasks):
        level = [noop_task.remote() for _ in range((n_tasks + 1) // 2)]
        while len(level) > 1:
            pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
            level = [noop_task.remote(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        wait(level)

    def chain(n_tasks):
        last = noop_task.remote()
        for _ in range(n_tasks - 1):
            last = noop_task.remote(last)
        wait([last])

    def hop(n_tasks):
        last = None
        for i in range(n_tasks):
            last = links[i % len(links)].run.remote(last)
        wait([last])

    def grid(pattern, width, steps, iterations):
        rows = []
        for step in range(steps):
            inputs = [metg.dependencies(pattern, width, step, point) for point in range(width)]
            row = [compute_task.remote(iterations, *(rows[-1][other] for other in others)) for others in inputs]
            # As in Rask, results that no task needs are kept and the others freed after use.
            rows = [*rows, row] if pattern == "trivial" else [row]
        wait([ref for row in rows for ref in row])

    def timed(function, *arguments):
        begun = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - begun

    def settle():
        """Lets the release of what went before pass, outside of what is timed."""
        independent(100)
        time.sleep(0.1)

    # Processes are started before the clock runs.
    independent(N_WARM_UP)
    hop(100)
    seconds = {}
    for function in (independent, tree, chain, hop):
        settle()
        seconds[function.__name__] = timed(function, sizes[function.__name__])
    settle()

    def run_grid(*shape):
        return timed(grid, *shape)

    overhead = {
        "independent": rate(sizes["independent"], seconds["independent"]),
        "tree": rate(sizes["tree"], seconds["tree"]),
        "chain": per_task(sizes["chain"], seconds["chain"], "us_per_task"),
        "hop": per_task(sizes["hop"], seconds["hop"], "us_per_hop"),
    }
    return overhead, metg.benches(run_grid, settle, peak, N_WORKERS, sizes["repetitions"])


def noop(*_inputs):
    """The task."""


class Link:
    """A process that runs links of the hopping chain."""

    def run(self, _last):
        """One link."""


def print_round(sizes):
    """Runs a round and prints its lines."""
    print_lines(*run_round(sizes))
