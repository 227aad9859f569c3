"""What the rounds of all peers have in common: how many workers, and how figures are written."""

import json

N_WORKERS = 2
N_WARM_UP = 1_000


def rate(n_tasks, seconds):
    """A figure of `rask bench overhead` for graphs whose rate counts."""
    return {"n_tasks": n_tasks, "seconds": round(seconds, 6), "tasks_per_second": round(n_tasks / seconds, 1)}


def per_task(n_tasks, seconds, name):
    """A figure of `rask bench overhead` for chains."""
    return {"n_tasks": n_tasks, "seconds": round(seconds, 6), name: round(seconds * 1e6 / n_tasks, 3)}


def print_lines(overhead, benches):
    """Prints a round as `rask bench overhead --json` and `rask bench taskbench --json` do."""
    for line in ({"bench": "overhead", "mode": "cluster", "n_workers": N_WORKERS, **overhead}, *benches):
        print(json.dumps(line))


def median_of(runs):
    """The run whose `seconds` are the median."""
    return sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
