"""METG(50 %) for Python peers: the same definition and the same search as `rask bench taskbench`, with a kernel for Python.

A peer says how it runs a grid of tasks; everything else (how many iterations, how many rows, what the peak is, where efficiency
crosses one half) is here, so that all peers are measured alike.
"""

import hashlib
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

PAYLOAD = bytes(16)
PATTERNS = ("stencil_1d", "trivial")
WANTED = 0.5
STRIDE = 4
N_HALVINGS = 2
PEAK_SECONDS = 0.06
# A graph is run with as many rows as make it take about this long. Python's runtimes need longer graphs than Rask for their
# start and end not to count.
AIM_SECONDS = 0.8
LEAST_SECONDS = 0.4
MOST_SECONDS = 2.0
LEAST_STEPS = 20
FIRST_KERNEL_SECONDS = 8e-3
MOST_KERNEL_SECONDS = 0.25


def kernel(iterations):
    """Computes for a time that is proportional to `iterations`, about half a microsecond each.

    It runs in C and without the interpreter's lock, as numerical kernels do: a loop in Python would keep the lock from the
    threads that speak to the scheduler, for up to 5 ms at a time.
    """
    hashlib.pbkdf2_hmac("sha256", b"kernel", b"salt", iterations)


def compute(iterations, *_inputs):
    """The task: the kernel, and a small result."""
    kernel(iterations)
    return PAYLOAD


def dependencies(pattern, width, step, point):
    """The points of row `step - 1` that `point` depends on."""
    if step == 0 or pattern == "trivial":
        return range(0)
    return range(max(0, point - 1), min(width, point + 2))


def _rate(seconds):
    iterations, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        kernel(1_000)
        iterations += 1_000
    return iterations / elapsed


class Peak:
    """The rate of the kernel in as many processes as there are slots, without a runtime."""

    def __init__(self, n_slots):
        # Spawned, not forked: a copy of a process that talks to a cluster would keep its sockets.
        self.pool = ProcessPoolExecutor(n_slots, mp_context=get_context("spawn"))
        self.n_slots = n_slots
        self.all = []
        self.measure()
        self.all.clear()

    def measure(self):
        """Iterations a second of all processes together."""
        rate = sum(self.pool.map(_rate, [PEAK_SECONDS] * self.n_slots))
        self.all.append(rate)
        return rate

    def close(self):
        self.pool.shutdown()


class Bench:
    """One pattern on one runtime."""

    def __init__(self, run, settle, peak, pattern, width, repetitions):
        """`run(pattern, width, steps, iterations)` returns seconds from submission until the end is known."""
        self.run, self.settle, self.peak = run, settle, peak
        self.pattern, self.width, self.repetitions = pattern, width, repetitions
        self.steps = LEAST_STEPS

    def sample(self, iterations):
        before = self.peak.measure()
        seconds = self.run(self.pattern, self.width, self.steps, iterations)
        after = self.peak.measure()
        self.settle()
        efficiency = iterations * self.width * self.steps / seconds / ((before + after) / 2)
        return efficiency, seconds

    def point(self, iterations):
        samples = [self.sample(iterations)]
        for _ in range(3):
            seconds = samples[0][1]
            if LEAST_SECONDS <= seconds <= MOST_SECONDS:
                break
            steps = max(LEAST_STEPS, int(self.steps * AIM_SECONDS / seconds))
            if steps == self.steps:
                break
            self.steps = steps
            samples = [self.sample(iterations)]
        samples += [self.sample(iterations) for _ in range(self.repetitions - 1)]
        efficiency, seconds = sorted(samples)[len(samples) // 2]
        n_tasks = self.width * self.steps
        granularity_us = seconds * 1e6 * self.peak.n_slots / n_tasks
        return {"iterations": iterations, "steps": self.steps, "granularity_us": granularity_us, "efficiency": efficiency}

    def search(self):
        """A line shaped as that of `rask bench taskbench --json`."""
        iterations_per_second = self.peak.measure() / self.peak.n_slots
        most = int(MOST_KERNEL_SECONDS * iterations_per_second)
        points = []

        def at(iterations):
            points.append(self.point(iterations))
            return points[-1]

        point = at(int(FIRST_KERNEL_SECONDS * iterations_per_second))
        goes_down = point["efficiency"] >= WANTED
        bracket = None
        while bracket is None:
            iterations = point["iterations"]
            following = max(1, iterations // STRIDE) if goes_down else min(most, iterations * STRIDE)
            if following == iterations:
                break
            last, point = point, at(following)
            if (point["efficiency"] >= WANTED) != goes_down:
                bracket = (point, last) if goes_down else (last, point)
        metg = None
        if bracket:
            below, above = bracket
            for _ in range(N_HALVINGS):
                point = at(round((below["iterations"] * above["iterations"]) ** 0.5))
                below, above = (below, point) if point["efficiency"] >= WANTED else (point, above)
            share = (WANTED - below["efficiency"]) / (above["efficiency"] - below["efficiency"])
            metg = below["granularity_us"] + share * (above["granularity_us"] - below["granularity_us"])
        points.sort(key=lambda point: -point["iterations"])
        peak = median(self.peak.all)
        for point in points:
            point["kernel_us"] = point["iterations"] * self.peak.n_slots / peak * 1e6
        return {"bench": "taskbench", "mode": "cluster", "pattern": self.pattern, "width": self.width} | {
            "payload_nbytes": len(PAYLOAD),
            "metg50_us": metg,
            "points": [{name: round(value, 3) for name, value in point.items()} for point in points],
        }


def benches(run, settle, peak, width, repetitions):
    """One line for each pattern."""
    return [Bench(run, settle, peak, pattern, width, repetitions).search() for pattern in PATTERNS]
