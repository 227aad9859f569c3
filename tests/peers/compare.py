#!/usr/bin/env python3
"""Compares what a task costs in Rask and in Dask: the same graphs, on the same machine, in the same run, turn and turn about.

It makes a virtual environment, installs Dask into it, runs both in alternating rounds and prints medians and ratios. Needs
Python 3.10 or later with `venv`, nothing else; README.md beside it says what is measured and how.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = {"dask": "2026.8.0", "distributed": "2026.8.0"}
# Not pinned, but a good part of Dask's cost is theirs.
ALSO_REPORTED = ("tornado", "msgpack", "cloudpickle")
N_WORKERS = 2
N_WARM_UP = 1_000
# label, member of the line, its figure, whether more is better
ROWS = (
    ("independent, tasks/s", "independent", "tasks_per_second", True),
    ("binary tree, tasks/s", "tree", "tasks_per_second", True),
    ("chain, us a link", "chain", "us_per_task", False),
)

# What makes Dask faster on these graphs. Unlimited saturation sends root tasks ahead of free threads (two to three times the
# rate on independent tasks); the profiler would interrupt the workers every 10 ms.
DASK_CONFIGURATION = {
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


def dask_round(n_independent, n_tree, n_chain):
    """One round of Dask, inside the virtual environment: prints one line shaped as that of `rask bench overhead --json`."""
    import dask

    dask.config.set(DASK_CONFIGURATION)
    # Imported after the configuration is set: logging is set up on import.
    from distributed import Client, LocalCluster, wait

    options = {"n_workers": N_WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:

        def run(tasks, outputs):
            """From submission until every output is known to be done; results stay on the workers."""
            begun = time.perf_counter()
            futures = client.get(tasks, outputs, sync=False)
            wait(futures)
            elapsed = time.perf_counter() - begun
            del futures
            return elapsed

        def settle(graph):
            """Lets the release of the graph before it pass through every queue, outside of what is timed."""
            run(*independent(graph, 100))
            time.sleep(0.2)

        # Connections are made and the duration of the task is learned before the clock runs.
        run(*independent("warm-up", N_WARM_UP))
        settle("settle-0")
        independent_seconds = run(*independent("independent", n_independent))
        settle("settle-1")
        tree_seconds = run(*tree("tree", n_tree))
        settle("settle-2")
        chain_seconds = run(*chain("chain", n_chain))
    line = {
        "bench": "overhead",
        "mode": "cluster",
        "n_workers": N_WORKERS,
        "independent": rate(n_independent, independent_seconds),
        "tree": rate(n_tree, tree_seconds),
        "chain": {
            "n_tasks": n_chain,
            "seconds": round(chain_seconds, 6),
            "us_per_task": round(chain_seconds * 1e6 / n_chain, 3),
        },
    }
    print(json.dumps(line))


def rate(n_tasks, seconds):
    return {"n_tasks": n_tasks, "seconds": round(seconds, 6), "tasks_per_second": round(n_tasks / seconds, 1)}


def environment(folder):
    """The Python of the virtual environment in `folder`, made and filled if it is not there yet, and what is installed."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making a virtual environment in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    installed = installed_versions(python)
    if any(installed.get(name) != version for name, version in PACKAGES.items()):
        pins = [f"{name}=={version}" for name, version in PACKAGES.items()]
        print(f"installing {' '.join(pins)}", file=sys.stderr)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True)
        installed = installed_versions(python)
    return python, installed


def installed_versions(python):
    code = """if True:
        import importlib.metadata, json, platform
        found = {package.name: package.version for package in importlib.metadata.distributions()}
        print(json.dumps({**found, "python": platform.python_version()}))"""
    found = json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout)
    return {name: found[name] for name in (*PACKAGES, *ALSO_REPORTED, "python") if name in found}


def line_of(command, time_limit):
    """Runs `command`, which starts a cluster of its own, and returns the line it prints. Nothing it started outlives it."""
    search = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=time_limit)
    except subprocess.TimeoutExpired:
        sys.exit(f"{command[0]} was not done after {time_limit} s")
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if process.returncode != 0:
        sys.exit(f"{err.strip()}\n{command[0]} ended with status {process.returncode}")
    return json.loads(out.strip().splitlines()[-1])


def machine():
    """Size of the machine, as this process may use it, and how busy it is before anything is measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    nbytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": cores,
        "memory_gib": round(nbytes / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
    }


def summary(rounds):
    """One row for each graph: medians of both, and the median and the extremes of the ratios within a round."""
    rows = []
    for label, graph, figure, more_is_better in ROWS:
        rask, dask = ([both[name][graph][figure] for both in rounds] for name in ("rask", "dask"))
        ratios = [r / d if more_is_better else d / r for r, d in zip(rask, dask)]
        rows.append(
            {
                "what": label,
                "rask": median(rask),
                "rask_n_tasks": rounds[0]["rask"][graph]["n_tasks"],
                "dask": median(dask),
                "dask_n_tasks": rounds[0]["dask"][graph]["n_tasks"],
                "ratio": median(ratios),
                "ratio_least": min(ratios),
                "ratio_most": max(ratios),
            }
        )
    return rows


def show(rows):
    def figure(value):
        return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"

    table = [("", "Rask", "n", "Dask", "n", "Rask is better by", "least to most")]
    for row in rows:
        spread = f"{figure(row['ratio_least'])} to {figure(row['ratio_most'])}"
        numbers = figure(row["rask"]), f"{row['rask_n_tasks']:,}", figure(row["dask"]), f"{row['dask_n_tasks']:,}"
        table.append((row["what"], *numbers, figure(row["ratio"]) + "x", spread))
    widths = [max(map(len, column)) for column in zip(*table)]
    for first, *rest in table:
        print("  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:]))]))


def positive(text):
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rask", type=Path, default=ROOT / "target/release/rask", help="the release binary (default: target/release/rask)")
    add("--venv", type=Path, default=ROOT / "target/peers-venv", help="where Dask is installed (default: target/peers-venv)")
    add("--rounds", type=positive, default=5, help="rounds, each of both (default: 5)")
    add("--tasks", type=positive, default=1_000_000, help="independent tasks for Rask (default: 1,000,000)")
    add("--dask-tasks", type=positive, default=5_000, help="independent tasks for Dask (default: 5,000)")
    add("--tree", type=positive, default=20_000, help="tasks of the tree, for both (default: 20,000)")
    add("--chain", type=positive, default=5_000, help="links of the chain for Rask (default: 5,000)")
    add("--dask-chain", type=positive, default=1_000, help="links of the chain for Dask (default: 1,000)")
    add("--time-limit", type=positive, default=600, metavar="SECONDS", help="for a round of either (default: 600)")
    add("--json", type=Path, metavar="FILE", help="also write every round and the table to FILE")
    return parser.parse_args()


def main():
    args = arguments()
    # A path without a slash would be looked up among the installed programs.
    binary = args.rask.absolute()
    if not binary.is_file():
        sys.exit(f"{args.rask} is not there: `cargo build --release -p rask-cli` builds it, `--rask FILE` names another")
    python, versions = environment(args.venv.absolute())
    rask_version = subprocess.run([str(binary), "--version"], check=True, capture_output=True, text=True).stdout
    versions = {"rask": rask_version.strip().removeprefix("rask "), **versions}
    size = machine()
    print(f"{size['cores']} cores, {size['memory_gib']} GiB, {size['system']}, load {size['load']} before the first round")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if size["load"] > 0.5 * size["cores"]:
        print("this machine is busy: the figures will be noisy", file=sys.stderr)

    rask_command = [str(binary), "bench", "overhead", "--cluster", str(N_WORKERS), "--json"]
    rask_command += ["--tasks", str(args.tasks), "--tree", str(args.tree), "--chain", str(args.chain)]
    # Imported and not run as a file, so that workers find the task under the same name.
    dask_code = f"import compare; compare.dask_round({args.dask_tasks}, {args.tree}, {args.dask_chain})"
    commands = {"rask": rask_command, "dask": [str(python), "-c", dask_code]}
    rounds = []
    for i in range(args.rounds):
        # Who goes first changes too, so that neither always runs in the wake of the other.
        both = {name: line_of(commands[name], args.time_limit) for name in (("rask", "dask"), ("dask", "rask"))[i % 2]}
        rounds.append(both)
        print(f"round {i + 1} of {args.rounds} is done", file=sys.stderr)

    rows = summary(rounds)
    print(f"{N_WORKERS} one-slot worker processes each; medians of {args.rounds} rounds; ratios are taken within a round\n")
    show(rows)
    if args.json:
        report = {"machine": size, "versions": versions, "table": rows, "rounds": rounds}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
