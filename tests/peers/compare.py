#!/usr/bin/env python3
"""Compares what a task costs in Rask, Dask and Ray: the same graphs, on the same machine, in the same run, turn and turn about.

It makes a virtual environment, installs the peers into it, runs all in alternating rounds and prints medians and ratios. Needs
Python 3.10 or later with `venv`, nothing else; README.md beside it says what is measured and how.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

from metg import PATTERNS
from rounds import N_WORKERS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What a peer's round needs, by the name of the peer.
PACKAGES = {"dask": {"dask": "2026.8.0", "distributed": "2026.8.0"}, "ray": {"ray": "2.60.0"}}
# Not pinned, but a good part of the peers' cost is theirs.
ALSO_REPORTED = ("tornado", "msgpack", "cloudpickle")
# label, where its figure is in a round, whether more is better
ROWS = (
    ("independent, tasks/s", ("independent", "tasks_per_second"), True),
    ("binary tree, tasks/s", ("tree", "tasks_per_second"), True),
    ("chain, us a link", ("chain", "us_per_task"), False),
    ("chain across two workers, us a hop", ("hop", "us_per_hop"), False),
    ("METG(50 %) stencil_1d, us", ("stencil_1d", "metg50_us"), False),
    ("METG(50 %) trivial, us", ("trivial", "metg50_us"), False),
)


def environment(folder, wanted):
    """The Python of the virtual environment in `folder`, made and filled if it is not there yet, and what is installed."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making a virtual environment in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    installed = installed_versions(python, wanted)
    if any(installed.get(name) != version for name, version in wanted.items()):
        pins = [f"{name}=={version}" for name, version in wanted.items()]
        print(f"installing {' '.join(pins)}", file=sys.stderr)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *pins], check=True)
        installed = installed_versions(python, wanted)
    return python, installed


def installed_versions(python, wanted):
    code = """if True:
        import importlib.metadata, json, platform
        found = {package.name: package.version for package in importlib.metadata.distributions()}
        print(json.dumps({**found, "python": platform.python_version()}))"""
    found = json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout)
    return {name: found[name] for name in (*wanted, *ALSO_REPORTED, "python") if name in found}


def lines_of(command, time_limit):
    """Runs `command`, which starts a cluster of its own, and returns the lines it prints. Nothing it started outlives it."""
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
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


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


def round_of(commands, time_limit):
    """One round of a system: the figures of `bench overhead` and, by pattern, those of `bench taskbench`."""
    lines = [line for command in commands for line in lines_of(command, time_limit)]
    return {line.get("pattern", line["bench"]): line for line in lines}


def figure_of(one_round, path):
    """A figure and its number of tasks; `None` where a system has none."""
    lines = {**one_round["overhead"], **one_round}
    values = lines.get(path[0]) or {}
    return values.get(path[1]), values.get("n_tasks")


def summary(rounds):
    """One row for each figure: of each system the median, and of the ratios within a round the median and the extremes."""
    rows = []
    for label, path, more_is_better in ROWS:
        row = {"what": label}
        for name in rounds[0]:
            pairs = [(figure_of(each["rask"], path)[0], figure_of(each[name], path)[0]) for each in rounds]
            pairs = [(rask, other) for rask, other in pairs if rask is not None and other is not None]
            ratios = sorted(rask / other if more_is_better else other / rask for rask, other in pairs)
            row[name] = {
                "median": median(other for _, other in pairs) if pairs else None,
                "n_tasks": figure_of(rounds[0][name], path)[1],
            }
            if name != "rask":
                row[name] |= {"ratios": ratios, "ratio": median(ratios) if ratios else None}
        rows.append(row)
    return rows


def show(rows):
    def figure(value):
        return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"

    def cells(values):
        yield figure(values["median"])
        yield f"{values['n_tasks']:,}" if values["n_tasks"] else ""
        if "ratios" in values:
            ratios = values["ratios"]
            yield f"{figure(values['ratio'])}x ({figure(ratios[0])} to {figure(ratios[-1])})" if ratios else "-"

    systems = [name for name in rows[0] if name != "what"]
    headings = [[name.capitalize(), "n"] + ([] if name == "rask" else ["Rask is better by"]) for name in systems]
    table = [["", *(heading for of_system in headings for heading in of_system)]]
    table += [[row["what"], *(cell for name in systems for cell in cells(row[name]))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table)]
    for first, *rest in table:
        print("  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:]))]))


def positive(text):
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def peers(text):
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in PACKAGES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(PACKAGES)}")
    return names


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rask", type=Path, default=ROOT / "target/release/rask", help="the release binary (default: target/release/rask)")
    venv = ROOT / "target/peers-venv"
    add("--venv", type=Path, default=venv, help="where the peers are installed (default: target/peers-venv)")
    add("--peers", type=peers, default=tuple(PACKAGES), help="whom to compare with (default: dask,ray)")
    add("--rounds", type=positive, default=3, help="rounds, each of all (default: 3)")
    add("--repetitions", type=positive, default=3, help="runs of each graph of Task Bench in a round (default: 3)")
    for name, of_rask, of_peers in (
        ("tasks", 1_000_000, 5_000),
        ("tree", 20_000, 5_000),
        ("chain", 5_000, 1_000),
    ):
        add(f"--{name}", type=positive, default=of_rask, help=f"size of that graph for Rask (default: {of_rask:,})")
        add(f"--peer-{name}", type=positive, default=of_peers, help=f"and for the peers (default: {of_peers:,})")
    add("--time-limit", type=positive, default=600, metavar="SECONDS", help="for a round of any (default: 600)")
    add("--json", type=Path, metavar="FILE", help="also write every round and the table to FILE")
    return parser.parse_args()


def commands_of(args, binary, python):
    """The commands that make up a round, by the name of the system."""
    cluster = ["--cluster", str(N_WORKERS), "--json"]
    sizes = ["--tasks", str(args.tasks), "--tree", str(args.tree), "--chain", str(args.chain)]
    search = ["--pattern", ",".join(PATTERNS), "--repetitions", str(args.repetitions)]
    commands = {"rask": [[str(binary), "bench", *bench, *cluster] for bench in (["overhead", *sizes], ["taskbench", *search])]}
    peer_sizes = {
        "independent": args.peer_tasks,
        "tree": args.peer_tree,
        "chain": args.peer_chain,
        "hop": args.peer_chain,
        "repetitions": args.repetitions,
    }
    for name in args.peers:
        # Imported and not run as a file, so that workers find the tasks under the same name.
        commands[name] = [[str(python), "-c", f"import {name}_peer; {name}_peer.print_round({peer_sizes})"]]
    return commands


def main():
    args = arguments()
    # A path without a slash would be looked up among the installed programs.
    binary = args.rask.absolute()
    if not binary.is_file():
        sys.exit(f"{args.rask} is not there: `cargo build --release -p rask-cli` builds it, `--rask FILE` names another")
    wanted = {name: version for peer in args.peers for name, version in PACKAGES[peer].items()}
    python, versions = environment(args.venv.absolute(), wanted)
    rask_version = subprocess.run([str(binary), "--version"], check=True, capture_output=True, text=True).stdout
    versions = {"rask": rask_version.strip().removeprefix("rask "), **versions}
    size = machine()
    print(f"{size['cores']} cores, {size['memory_gib']} GiB, {size['system']}, load {size['load']} before the first round")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    if size["load"] > 0.5 * size["cores"]:
        print("this machine is busy: the figures will be noisy", file=sys.stderr)

    commands = commands_of(args, binary, python)
    names = list(commands)
    rounds = []
    for i in range(args.rounds):
        # Who goes first changes too, so that nobody always runs in the wake of the same one.
        order = names[i % len(names) :] + names[: i % len(names)]
        figures = {name: round_of(commands[name], args.time_limit) for name in order}
        rounds.append({name: figures[name] for name in names})
        print(f"round {i + 1} of {args.rounds} is done", file=sys.stderr)

    rows = summary(rounds)
    print(f"{N_WORKERS} one-slot workers each; medians of {args.rounds} rounds; ratios within a round, least to most\n")
    show(rows)
    if args.json:
        report = {"machine": size, "versions": versions, "table": rows, "rounds": rounds}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
