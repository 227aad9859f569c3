"""One case of `rask bench transfer` or `rask bench memory` with Dask, run inside the virtual environment.

Chunks are NumPy arrays, which Dask sends and spills without copying them into pickles. Their numbers are those that Rask's
operators make, so that sums are known beforehand; what is made, and when the clock runs, is as in `rask bench`.
"""

import json
import os
import threading
import time
from contextlib import contextmanager

import numpy as np
from dask_peer import InTurn
from rounds import N_WORKERS, median_of

# The profiler would interrupt the workers every 10 ms. Everything else is as it comes: unlimited saturation, which makes small
# tasks faster, would make chunks sooner than memory for them is free.
CONFIGURATION = {
    "distributed.worker.profile.enabled": False,
    "logging": {"distributed": "critical", "tornado": "critical"},
}
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
LOOK_NBYTES = 4_096


def parcel(seed, nbytes):
    """Bytes of a known content; the first word is the seed."""
    return np.arange(nbytes // 8, dtype=np.uint64) * MULTIPLIER ^ np.uint64(seed)


def unpack(parcels):
    """The sum of the seeds, once a word in every page of every parcel has been found to be right."""
    seeds = 0
    for words in parcels:
        looked_at = np.arange(0, len(words), LOOK_NBYTES // 8, dtype=np.uint64)
        if not np.array_equal(words[:: LOOK_NBYTES // 8], looked_at * MULTIPLIER ^ words[0]):
            raise ValueError(f"parcel {words[0]} is wrong")
        seeds += int(words[0])
    return seeds


def relay(before=None):
    """When this run ended, how long its input was on the way, and filling: 100 bytes."""
    begun = time.time_ns()
    on_the_way = begun - int.from_bytes(before[:8], "little") if before else 0
    return time.time_ns().to_bytes(8, "little") + on_the_way.to_bytes(8, "little") + bytes(84)


def row_of_blocks(shape, n_blocks, block_info=None):
    """One row of blocks of numbers: the position of each number's block, plus the number's place in a line, modulo 16."""
    row = block_info[None]["chunk-location"][0]
    columns = np.arange(shape[1])
    side = shape[1] // n_blocks
    return np.tile((row + columns // side + columns % side % 16).astype(float), (shape[0], 1))


def fill(shape, block_info=None):
    """A chunk of numbers without a pattern, made in place but for one temporary."""
    seed = block_info[None]["chunk-location"][0]
    n_numbers = int(np.prod(shape))
    first = (seed + 1) << 32
    numbers = np.arange(first, first + n_numbers, dtype=np.uint64)
    numbers *= MULTIPLIER
    numbers ^= numbers >> np.uint64(29)
    return numbers.reshape(shape)


class Peaks:
    """The kernel's high-water marks of the workers' memory, those of workers that were killed included."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.of_worker = {}
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        while True:
            ends = self.is_over.is_set()
            for name, nanny in list(self.cluster.workers.items()):
                if nanny.pid is not None and (nbytes := high_water_mark(nanny.pid)):
                    of_process = self.of_worker.setdefault(name, {})
                    of_process[nanny.pid] = max(nbytes, of_process.get(nanny.pid, 0))
            if ends:
                return
            time.sleep(0.1)

    def stop(self):
        """The marks added up, the highest of each worker's processes, and how many processes there were too many."""
        self.is_over.set()
        self.thread.join()
        n_processes = sum(len(of_process) for of_process in self.of_worker.values())
        return sum(max(of_process.values()) for of_process in self.of_worker.values()), n_processes - N_WORKERS


def high_water_mark(process):
    try:
        with open(f"/proc/{process}/status") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), None)
    except OSError:
        return None


@contextmanager
def running_cluster(memory_limit, spill_directory=None):
    """A client of a fresh scheduler and workers of one thread each, over tcp."""
    import dask

    dask.config.set(CONFIGURATION)
    # Imported after the configuration is set: logging is set up on import.
    from distributed import Client, LocalCluster

    options = {"n_workers": N_WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    options |= {"memory_limit": memory_limit, "local_directory": spill_directory}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield cluster, client


def timed(client, collection):
    """Seconds from submission until the result, a small one, is here; and the result. The graph is built before."""
    import dask

    (collection,) = dask.optimize(collection)
    begun = time.perf_counter()
    result = client.compute(collection, optimize_graph=False).result()
    return time.perf_counter() - begun, result


def expect(found, expected):
    if found != expected:
        raise ValueError(f"found {found}, expected {expected}")


def move_parcels(client, n_parcels, nbytes, n_inputs):
    """Seconds in which `n_parcels` results of the one worker are taken in by tasks on the other, `n_inputs` each."""
    from distributed import wait

    sender, receiver = client.scheduler_info(n_workers=-1)["workers"]
    parcels = client.map(parcel, range(n_parcels), nbytes=nbytes, workers=[sender], pure=False)
    wait(parcels)
    batches = [parcels[at : at + n_inputs] for at in range(0, n_parcels, n_inputs)]
    begun = time.perf_counter()
    unpacked = [client.submit(unpack, batch, workers=[receiver], pure=False) for batch in batches]
    wait(unpacked)
    seconds = time.perf_counter() - begun
    expect(sum(client.gather(unpacked)), n_parcels * (n_parcels - 1) // 2)
    return seconds


def large(client, sizes):
    n_parcels, nbytes = sizes["large"]
    seconds = move_parcels(client, n_parcels, nbytes, 1)
    return {"seconds": seconds, "mb_per_second": n_parcels * nbytes / 1e6 / seconds}


def small(client, sizes):
    n_parcels, nbytes = sizes["small"]
    seconds = move_parcels(client, n_parcels, nbytes, n_parcels // 10)
    return {"seconds": seconds, "chunks_per_second": n_parcels / seconds}


def latency(client, sizes):
    """A chain whose links alternate between the workers: from the end of one run until the beginning of the next."""
    import dask
    from distributed import wait

    name = f"link-{time.time_ns()}"
    links = [(name, link) for link in range(sizes["links"])]
    tasks = {link: (relay, *links[max(at - 1, 0) : at]) for at, link in enumerate(links)}
    with dask.annotate(workers=InTurn(list(client.scheduler_info(n_workers=-1)["workers"]))):
        begun = time.perf_counter()
        futures = client.get(tasks, links, sync=False)
        wait(futures)
        seconds = time.perf_counter() - begun
    times = sorted(int.from_bytes(link[8:16], "little") / 1e3 for link in client.gather(futures)[1:])
    return {"seconds": seconds, "p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}


def all_to_all(client, sizes, method):
    """Rows of a square array become columns, which are added up; both workers have of both."""
    import dask.array as da

    n_rows, side = sizes["all_to_all"]
    width = n_rows * side
    x = da.map_blocks(row_of_blocks, (side, width), n_rows, dtype="f8", chunks=((side,) * n_rows, (width,)))
    seconds, found = timed(client, x.rechunk((width, side), method=method).sum())
    of_places = n_rows * n_rows * (n_rows - 1) * side * side
    expect(found, of_places + n_rows * n_rows * side * sum(place % 16 for place in range(side)))
    return {"seconds": seconds, "mb_per_second": width * width * 8 / 1e6 / seconds}


def line_of_chunks(n_chunks, nbytes):
    import dask.array as da

    shape = (nbytes // 8,)
    return da.map_blocks(fill, shape, dtype="u8", chunks=((nbytes // 8,) * n_chunks,))


def expected_sum(n_chunks, n_numbers):
    """Of all chunks of that many numbers, modulo 2 to the 64."""
    of_chunk = (int(fill((n_numbers,), {None: {"chunk-location": (seed,)}}).sum()) for seed in range(n_chunks))
    return sum(of_chunk) % 2**64


def persisted_sum(client, n_chunks, nbytes):
    from distributed import wait

    x = line_of_chunks(n_chunks, nbytes)
    begun = time.perf_counter()
    x = x.persist()
    wait(x)
    seconds, found = timed(client, x.sum())
    return time.perf_counter() - begun, found, nbytes // 8


def streaming_sum(client, n_chunks, nbytes):
    return (*timed(client, line_of_chunks(n_chunks, nbytes).sum()), nbytes // 8)


def rechunk(client, n_chunks, nbytes, method):
    """The rows of a square array of `n_chunks` by `n_chunks` blocks become columns, which are added up."""
    import dask.array as da

    side = round((nbytes / 8 / n_chunks) ** 0.5)
    width = n_chunks * side
    x = da.map_blocks(fill, (side, width), dtype="u8", chunks=((side,) * n_chunks, (width,)))
    return (*timed(client, x.rechunk((width, side), method=method).sum()), side * width)


def all_methods(case, *arguments):
    return {f"{case.__name__}-{method}": (case, (*arguments, method)) for method in ("p2p", "tasks")}


TRANSFERS = {
    "large": (large, ()),
    "small": (small, ()),
    "latency": (latency, ()),
    **{name.replace("_", "-"): case for name, case in all_methods(all_to_all).items()},
}
MEMORY = {"persisted-sum": (persisted_sum, ()), "streaming-sum": (streaming_sum, ()), **all_methods(rechunk)}


def print_transfers(cases, sizes, repetitions):
    """Runs cases of `rask bench transfer` on one cluster and prints a line for each, of the run with the median time."""
    with running_cluster(0) as (_, client):
        # Connections are made before the clock runs.
        move_parcels(client, 10, 1 << 20, 1)
        for name in cases:
            case, arguments = TRANSFERS[name]
            runs = [case(client, sizes, *arguments) for _ in range(repetitions)]
            print(json.dumps({"bench": "transfer", "case": name, **median_of(runs)}), flush=True)


def print_memory(name, n_chunks, nbytes, memory_limit, time_limit, spill_directory):
    """Runs a case of `rask bench memory` on a cluster of its own and prints its line, which says so when it failed."""
    case, arguments = MEMORY[name]
    line = {"bench": "memory", "case": name, "data_nbytes": n_chunks * nbytes, "chunk_nbytes": nbytes}
    with running_cluster(memory_limit // N_WORKERS, spill_directory) as (cluster, client):
        peaks = Peaks(cluster)
        outcome = {}

        def run():
            try:
                outcome["is"] = case(client, n_chunks, nbytes, *arguments)
            except Exception as error:  # Whatever it is: it is what there is to say of this case.
                outcome["failed"] = f"{type(error).__name__}: {error}"[:200]

        begun = time.perf_counter()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(time_limit)
        line["seconds_of_all"] = time.perf_counter() - begun
        line["peak_rss_nbytes"], line["n_workers_killed"] = peaks.stop()
        if "is" in outcome:
            line["seconds"], found, n_numbers = outcome["is"]
            expect(int(found), expected_sum(n_chunks, n_numbers))
        else:
            line["failed"] = outcome.get("failed", f"not done after {time_limit} s")
        print(json.dumps(line), flush=True)
        if "failed" in line:
            # A cluster that cannot get on may not end either; who started this ends its processes.
            os._exit(0)
