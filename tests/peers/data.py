#!/usr/bin/env python3
"""Compares how Rask and Dask move chunks, and how they hold more of them than memory holds: turn and turn about, in one run.

The cases are those of `rask bench transfer` and `rask bench memory`; README.md beside it says what is measured and how. Needs
Python 3.11 or later with `venv`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from compare import PACKAGES, ROOT, environment, lines_of, machine, positive
from rounds import N_WORKERS

WANTED = PACKAGES["dask"] | {"numpy": "2.4.6"}
# case of Rask, cases of Dask, figure, its label, whether more is better
TRANSFERS = (
    ("large", ("large",), "mb_per_second", "16 x 64 MiB, MB/s", True),
    ("small", ("small",), "chunks_per_second", "10,000 x 10 kB, chunks/s", True),
    ("latency", ("latency",), "p50_us", "100 bytes, us, p50", False),
    ("latency", ("latency",), "p99_us", "100 bytes, us, p99", False),
    ("all-to-all", ("all-to-all-p2p", "all-to-all-tasks"), "seconds", "200 x 200 parts of 51,200 bytes, s", False),
)
MEMORY = (
    ("persisted-sum", ("persisted-sum",)),
    ("streaming-sum", ("streaming-sum",)),
    ("rechunk", ("rechunk-p2p", "rechunk-tasks")),
)
CASES = tuple(dict.fromkeys([*(row[0] for row in TRANSFERS), *(row[0] for row in MEMORY)]))
TRANSPORTS = ("same-host", "quic")
# Numbers and sizes of Dask's chunks: those of `rask bench transfer`, but for the links, which cost Dask a hundred times as much.
SIZES = {"large": (16, 64 << 20), "small": (10_000, 10_000), "links": 300, "all_to_all": (200, 80)}
MIB = 1 << 20


class Runner:
    """Runs rounds of either system; what a round spills is gone after it."""

    def __init__(self, args, binary, python):
        self.args, self.binary, self.python = args, binary, python

    def rask(self, *arguments):
        return lines_of([str(self.binary), "bench", *arguments], self.args.time_limit * 5)

    def dask(self, call, time_limit):
        # Imported and not run as a file, so that workers find the tasks under the same name.
        return lines_of([str(self.python), "-c", f"import dask_data; dask_data.{call}"], time_limit)

    def transfers(self, name, cases):
        repetitions = self.args.repetitions
        if name == "rask":
            chosen = ",".join(dict.fromkeys(row[0] for row in cases))
            lines = self.rask("transfer", "--case", chosen, "--repetitions", str(repetitions), "--json")
            return {(line["transport"], line["case"]): line for line in lines}
        chosen = list(dict.fromkeys(case for row in cases for case in row[1]))
        lines = self.dask(f"print_transfers({chosen}, {SIZES}, {repetitions})", self.args.time_limit * 5)
        return {line["case"]: line for line in lines}

    def memory(self, case):
        """What runs a case of Rask's, or the like of it, and gives its line: of `rask`, or of a case of Dask's by name."""
        args = self.args
        n_chunks = -(-(args.memory * 3 // 2 if case == "rechunk" else args.data) // args.chunk)

        def run(name):
            with tempfile.TemporaryDirectory(prefix="rask-peers-", dir=os.environ.get("TMPDIR", "/var/tmp")) as directory:
                if name == "rask":
                    sizes = (("memory", args.memory), ("data", args.data), ("chunk", args.chunk), ("workers", N_WORKERS))
                    options = [text for option, value in sizes for text in (f"--{option}", str(value))]
                    return self.rask("memory", "--case", case, *options, "--spill-dir", directory)[0]
                call = f"print_memory({name!r}, {n_chunks}, {args.chunk}, {args.memory}, {args.time_limit}, {directory!r})"
                return self.dask(call, args.time_limit + 120)[0]

        return run


def in_turn(n_rounds, names, run, what):
    """`n_rounds` times what `run` gives for each name, somebody else first each time."""
    rounds = []
    for i in range(n_rounds):
        order = names[i % len(names) :] + names[: i % len(names)]
        rounds.append({name: run(name) for name in order})
        print(f"{what}, round {i + 1} of {n_rounds}: done", file=sys.stderr)
    return rounds


def ratio_of(pairs, more_is_better):
    """Median, least and most of how much better the first of each pair is; `None` when some of them are missing."""
    if any(None in pair for pair in pairs):
        return None
    ratios = sorted(ours / theirs if more_is_better else theirs / ours for ours, theirs in pairs)
    return median(ratios), ratios[0], ratios[-1]


def median_or_none(values):
    values = list(values)
    return None if None in values else median(values)


def rows_of_transfers(rounds, cases):
    for case, of_dask, figure, label, more_is_better in cases:
        for theirs in of_dask:
            method = f" (Dask: {theirs.removeprefix(case)[1:]})" if theirs != case else ""
            dask = [each["dask"][theirs][figure] for each in rounds]
            row = {"what": label + method, "dask": median(dask)}
            for transport in TRANSPORTS:
                rask = [each["rask"][transport, case][figure] for each in rounds]
                row[transport] = median(rask)
                row[f"{transport} ratio"] = ratio_of(list(zip(rask, dask)), more_is_better)
            yield row


def rows_of_memory(case, of_dask, rounds):
    ours = [each["rask"] for each in rounds]
    for theirs in of_dask:
        lines = [each[theirs] for each in rounds]
        pairs = [(rask["seconds"], dask.get("seconds")) for rask, dask in zip(ours, lines)]
        yield {
            "what": theirs,
            "data_nbytes": ours[0]["data_nbytes"],
            "rask": median_or_none(line["seconds"] for line in ours),
            "rask_peak": median_or_none(line["peak_rss_nbytes"] for line in ours),
            "dask": median_or_none(line.get("seconds") for line in lines),
            "dask_peak": median_or_none(line["peak_rss_nbytes"] for line in lines),
            "dask_killed": sum(line["n_workers_killed"] for line in lines),
            "dask_failed": [line["failed"] for line in lines if "failed" in line],
            "ratio": ratio_of(pairs, False),
        }


def figure(value):
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.2f}" if value < 10 else f"{value:,.1f}"


def times(ratio):
    return "-" if ratio is None else f"{figure(ratio[0])}x ({figure(ratio[1])} to {figure(ratio[2])})"


def gib(nbytes):
    return f"{nbytes / 2**30:.2f} GiB"


def show(table):
    """Prints rows of cells as a table of Markdown, first cells to the left."""
    print("\n".join("| " + " | ".join(cells) + " |" for cells in [table[0], ["---", *["--:"] * (len(table[0]) - 1)], *table[1:]]))
    print()


def show_transfers(rows):
    columns = [cell for transport in TRANSPORTS for cell in (f"Rask, {transport}", "Rask is better by")]
    table = [["", "Dask, tcp", *columns]]
    for row in rows:
        cells = [cell for name in TRANSPORTS for cell in (figure(row[name]), times(row[f"{name} ratio"]))]
        table.append([row["what"], figure(row["dask"]), *cells])
    show(table)


def show_memory(rows):
    table = [["", "data", "Rask, s", "peak memory", "Dask, s", "peak memory", "workers killed", "Rask is better by"]]
    for row in rows:
        dask = f"failed {len(row['dask_failed'])}x" if row["dask_failed"] else figure(row["dask"])
        peaks = gib(row["rask_peak"]), gib(row["dask_peak"])
        data = gib(row["data_nbytes"])
        table.append(
            [row["what"], data, figure(row["rask"]), peaks[0], dask, peaks[1], str(row["dask_killed"]), times(row["ratio"])]
        )
    show(table)
    for row in rows:
        for failed in dict.fromkeys(row["dask_failed"]):
            print(f"{row['what']}: {failed}")


def nbytes(text):
    units = {"KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}
    number, unit = (text[:-3], units[text[-3:]]) if text[-3:] in units else (text, 1)
    return positive(number) * unit


def cases(text):
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(CASES)}")
    return names


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rask", type=Path, default=ROOT / "target/release/rask", help="the release binary (default: target/release/rask)")
    venv = ROOT / "target/peers-venv"
    add("--venv", type=Path, default=venv, help="where Dask is installed (default: target/peers-venv)")
    add("--cases", type=cases, default=CASES, help="which, separated by commas (default: all)")
    add("--rounds", type=positive, default=3, help="rounds, each of both (default: 3)")
    add("--repetitions", type=positive, default=1, help="runs of each transfer in a round, of which the median counts (default: 1)")
    add("--memory", type=nbytes, default=2 << 30, help="limit of all workers together (default: 2GiB)")
    add("--data", type=nbytes, default=8 << 30, help="bytes of all chunks of the sums (default: 8GiB)")
    add("--chunk", type=nbytes, default=32 << 20, help="bytes of a chunk (default: 32MiB)")
    add("--time-limit", type=positive, default=180, metavar="SECONDS", help="for a case of Dask with little memory (default: 180)")
    add("--json", type=Path, metavar="FILE", help="also write every round and the tables to FILE")
    return parser.parse_args()


def main():
    args = arguments()
    # A path without a slash would be looked up among the installed programs.
    binary = args.rask.absolute()
    if not binary.is_file():
        sys.exit(f"{args.rask} is not there: `cargo build --release -p rask-cli` builds it, `--rask FILE` names another")
    python, versions = environment(args.venv.absolute(), WANTED)
    rask_version = subprocess.run([str(binary), "--version"], check=True, capture_output=True, text=True).stdout
    versions = {"rask": rask_version.strip().removeprefix("rask "), **versions}
    size = machine()
    print(f"{size['cores']} cores, {size['memory_gib']} GiB, {size['system']}, load {size['load']} before the first round")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{N_WORKERS} one-slot workers each; medians of {args.rounds} rounds; ratios within a round, least to most\n")

    runner = Runner(args, binary, python)
    report = {"machine": size, "versions": versions, "rounds": {}}
    transfers = [row for row in TRANSFERS if row[0] in args.cases]
    if transfers:
        rounds = in_turn(args.rounds, ["rask", "dask"], lambda name: runner.transfers(name, transfers), "transfers")
        report["transfers"] = list(rows_of_transfers(rounds, transfers))
        flat = [{name: list(lines.values()) for name, lines in each.items()} for each in rounds]
        report["rounds"]["transfers"] = flat
        show_transfers(report["transfers"])
    rows = []
    for case, of_dask in MEMORY:
        if case in args.cases:
            rounds = in_turn(args.rounds, ["rask", *of_dask], runner.memory(case), case)
            report["rounds"][case] = rounds
            rows += rows_of_memory(case, of_dask, rounds)
    if rows:
        report["memory"] = rows
        show_memory(rows)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
