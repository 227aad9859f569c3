#!/usr/bin/env python3
"""How much is alive at once in Rask's order and in Dask's, on the same graphs.

Named graphs are drawn by Rask (`graphs/core/tests/named`); Dask orders them under two kinds of keys and its better figure
counts. Graphs of Dask's collections (`--collections`, needs numpy, scipy and xarray) are drawn by Dask and ordered by Rask.

Dask's order depends on the seed of Python's hashes; it is 0 here unless PYTHONHASHSEED says otherwise.

Pressure is counted as Rask's `pressure` does: results alive after each task, those that nobody needs included to the end.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from statistics import fmean

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ["cargo", "run", "--quiet", "--release", "-p", "rask-graphs", "--example", "ordering", "--"]


def pressure(inputs, sequence):
    """The most results alive after a task, and their mean, when tasks run in `sequence`."""
    n_users = [0] * len(inputs)
    for task in inputs:
        for producer in set(task):
            n_users[producer] += 1
    is_output = [users == 0 for users in n_users]
    alive, history = 0, []
    for task in sequence:
        alive += 1
        for producer in set(inputs[task]):
            n_users[producer] -= 1
            alive -= n_users[producer] == 0 and not is_output[producer]
        history.append(alive)
    return max(history), fmean(history)


def dask_pressure(inputs, keys):
    """Dask's figures under `keys`, and the seconds that its order took."""
    from dask._task_spec import Task, TaskRef
    from dask.order import order

    graph = {key: Task(key, print, *(TaskRef(keys[producer]) for producer in task)) for key, task in zip(keys, inputs)}
    begin = time.perf_counter()
    ranks = order(graph)
    seconds = time.perf_counter() - begin
    number = {key: task for task, key in enumerate(keys)}
    return *pressure(inputs, [number[key] for key in sorted(ranks, key=ranks.get)]), seconds


def split_key(name):
    """`x-17` as Dask would have it: `("x", 17)`."""
    family, _, member = name.rpartition("-")
    return (family, int(member))


def collections():
    """Graphs that Dask's array collection and xarray draw."""
    import dask.array as da
    import numpy as np
    import xarray as xr
    from dask.base import collections_to_expr

    def drawn(*results):
        return dict(collections_to_expr(list(results)).optimize().__dask_graph__())

    time_series = xr.DataArray(
        da.random.random((200, 1), chunks=(1, -1)),
        dims=["time", "x"],
        coords={"day": ("time", np.arange(200) % 5)},
    )
    anomaly = time_series.groupby("day") - time_series.groupby("day").mean(dim="time")
    yield "xarray: anomaly mean", drawn(anomaly.mean(dim="time"))
    wind = xr.Dataset(
        {name: (["time", "i"], da.random.random((5000, 10), chunks=(10, -1))) for name in ("u", "v")}
    )
    yield "xarray: products", drawn(*(wind**2).assign(uv=wind.u * wind.v).mean("time").data_vars.values())
    tall = da.random.random((10_000, 100), chunks=(100, 100))
    yield "array: svd", drawn(*da.linalg.svd(tall))
    yield "array: svd_compressed", drawn(*da.linalg.svd_compressed(tall, k=10, n_power_iter=2, compute=False))
    plane = da.random.random((200, 200), chunks=(10, 10))
    yield "array: map_overlap", drawn(plane.map_overlap(np.sin, depth=1, boundary="none"))
    yield "array: map_overlap, sum", drawn(plane.map_overlap(np.sin, depth=1, boundary="none").sum())
    yield "array: diff of diff", drawn(da.diff(da.diff(plane, axis=0), axis=1))
    yield "array: plus transpose", drawn((plane + plane.T).sum())
    yield "array: tensordot", drawn((plane @ plane.T).sum())
    yield "array: rechunk", drawn(plane.rechunk((200, 2)).sum(axis=0))
    yield "array: deviation", drawn((plane - plane.mean(axis=0)).std())
    positive = da.random.random((200, 200), chunks=(20, 20))
    yield "array: cholesky", drawn(da.linalg.cholesky(positive))
    yield "array: lu", drawn(*da.linalg.lu(positive))
    yield "array: solve", drawn(da.linalg.solve(positive, da.random.random(200, chunks=20)))


def numbered(graph):
    """Inputs by number, and keys, tasks after their inputs."""
    from dask.core import get_deps, toposort

    dependencies, _ = get_deps(graph)
    keys = list(toposort(graph, dependencies))
    number = {key: task for task, key in enumerate(keys)}
    return [sorted(number[producer] for producer in dependencies[key]) for key in keys], keys


def rows(example, with_collections):
    """Name, number of tasks, ours and Dask's."""
    drawn = subprocess.run(example, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    for line in drawn.splitlines():
        named = json.loads(line)
        as_tuples = [split_key(key) for key in named["keys"]]
        tries = [dask_pressure(named["inputs"], keys) for keys in (as_tuples, named["keys"])]
        yield named, min(tries)
    if not with_collections:
        return
    graphs = [(name, *numbered(graph)) for name, graph in collections()]
    lines = "".join(json.dumps({"name": name, "inputs": inputs}) + "\n" for name, inputs, _ in graphs)
    found = subprocess.run([*example, "--stdin"], check=True, input=lines, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    for line, (_, inputs, keys) in zip(found.splitlines(), graphs):
        yield json.loads(line), dask_pressure(inputs, keys)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", help="the built example, instead of building it")
    parser.add_argument("--collections", action="store_true", help="graphs of Dask's collections too")
    args = parser.parse_args()
    if "PYTHONHASHSEED" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    import dask

    print(f"{'Dask ' + dask.__version__:36} {'tasks':>7} {'Rask':>6} {'mean':>8} {'Dask':>6} {'mean':>8} {'ms':>7} {'ms':>8}")
    n_worse = 0
    for ours, (dask_max, dask_mean, dask_seconds) in rows([args.example] if args.example else EXAMPLE, args.collections):
        is_worse = ours["max"] > dask_max
        n_worse += is_worse
        print(
            f"{ours['name']:36} {len(ours['inputs']):7} {ours['max']:6} {ours['mean']:8.1f} {dask_max:6} {dask_mean:8.1f}"
            f" {ours['seconds'] * 1e3:7.1f} {dask_seconds * 1e3:8.0f}{' worse' if is_worse else ''}",
            flush=True,
        )
    sys.exit(n_worse > 0)


if __name__ == "__main__":
    main()
