#!/usr/bin/env python3
"""Measure Cascade beside the floors of what it does and beside other programs
that do it too, and print tables of medians and ratios. README.md explains the
rows. Contestants take turns, a round each, after one round that isn't counted.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import contestants
import serve
from chart import Bar, bars
from common import HERE, MIB, Failure, end_cleanly, enter_own_network, run, run_main
from contestants import PACKAGES, Missing, Site, bytes_text

RESULTS = HERE / "results"
ADDRESS = "10.78.0.1"  # for those who take no peers at 127.0.0.1
SLOW_SECONDS = 15      # who takes longer for the first round isn't given another one
MEMORY_MIB = 8         # that a fetcher may have for itself


class Row(NamedTuple):
    """What is stated: how ours compares with the other. Both name a function of
    contestants.py; wanted is the least ratio of their rates, or None."""
    name: str
    ours: str
    other: str
    wanted: float = None


SPEED = [
    Row("receive", "cascade", "floor_receive"),
    Row("write", "cascade", "floor_write", 0.75),
    Row("hash-one", "cascade", "hash_one"),
    Row("hash-lanes", "cascade", "hash_lanes"),
    Row("loop", "cascade", "floor_loop", 1.7),
    Row("aria2", "cascade", "aria2", 3),
    Row("transmission", "cascade", "transmission", 3),
    Row("curl-openssl", "cascade", "curl_openssl", 3),
    Row("curl-sha256sum", "cascade", "curl_sha256sum", 3),
    Row("rsync", "cascade", "rsync", 1.5),
    Row("reference", "cascade", "reference"),
    Row("small", "cascade_1k", "cascade", 0.4),
    Row("check", "check", "openssl", 4),
    Row("check-client", "check_client", "openssl"),
    Row("check-aria2", "check", "check_aria2"),
    Row("make", "mkcascade", "openssl", 1.15),
]
PEERS = ["aria2", "transmission", "curl_openssl", "curl_sha256sum", "rsync", "reference"]
CPU = [Row(f"cpu-{peer.replace('_', '-')}", "cascade", peer) for peer in PEERS]
MEMORY = ["cascade_1k", "cascade", "cascade_1g"]
SERVING = "abc"  # of serve.py


def chosen(name, only):
    return not only or any(name == word or name.startswith(word + "-") for word in only)


# --- Measuring ---

def start_contestants(site, names):
    """Return those of the contestants who can take part, and why the others can't."""
    there, absent = {}, {}
    for name in names:
        try:
            there[name] = getattr(contestants, name)(site)
        except (Missing, Failure, AssertionError) as why:
            drop(name, why, there, absent)
    return there, absent


def drop(name, why, there, absent):
    """Go on without a contestant: he should not cost the others their figures."""
    there.pop(name, None)
    absent[name] = why
    print(f"{'skipped' if isinstance(why, Missing) else 'FAILED'}: {name}: {why}", file=sys.stderr)


def measure_by_turns(site, there, absent, rounds):
    """Return everybody's figures, and the memory of each in the first round. That
    round is for the machine to get warm; it counts only for who is slow."""
    first, figures = {}, {name: [] for name in there}
    for number in range(1 + rounds):
        for name, contestant in list(there.items()):
            if number > 0 and first[name].wall > SLOW_SECONDS:
                continue
            site.empty()
            try:
                got = contestant.measure(look_at_memory=number == 0)
            except Failure as failure:
                drop(name, failure, there, absent)
                continue
            print(f"{f'round {number}' if number else 'warm-up'}: {contestant.label}: {got.wall:.3f} s",
                  file=sys.stderr)
            if number == 0:
                first[name] = got
            if number > 0 or got.wall > SLOW_SECONDS:
                figures[name].append(got)
    site.empty()
    return {name: figures[name] for name in there}, {name: first[name].memory for name in there}


class Results:
    """What was measured of whom."""

    def __init__(self, size, there, figures, memory):
        self.size, self.there, self.figures, self.memory = size, there, figures, memory

    def wall(self, name):
        return statistics.median(got.wall for got in self.figures[name])

    def rate(self, name):
        return self.size / self.wall(name) / 1e6

    def cpu(self, name):
        """Return CPU seconds for each GiB."""
        return statistics.median(got.cpu for got in self.figures[name]) / self.size * (1 << 30)

    def label(self, name):
        return self.there[name].label


# --- Tables ---

def contestant_table(results):
    yield "| | s | from – to | MB/s | CPU, s/GiB | private memory, MiB |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, got in results.figures.items():
        walls = [one.wall for one in got]
        spread = f"{min(walls):.3f} – {max(walls):.3f}" if len(walls) > 1 else "one round"
        yield (f"| {results.label(name)} | {results.wall(name):.3f} | {spread} | {results.rate(name):.0f}"
               f" | {results.cpu(name):.2f} | {results.memory[name]:.1f} |")


def table_line(name, ours, value, other, other_value, ratio, wanted, met):
    return f"| {name} | {ours} | {value} | {other} | {other_value} | {ratio} | {wanted} | {met} |"


def verdict(met):
    return "yes" if met else "**no**"


def speed_line(row, results):
    ratio = results.wall(row.other) / results.wall(row.ours)
    return table_line(row.name, results.label(row.ours), f"{results.rate(row.ours):.0f} MB/s",
                      results.label(row.other), f"{results.rate(row.other):.0f} MB/s", f"{ratio:.2f}",
                      f"≥ {row.wanted}" if row.wanted else "",
                      verdict(ratio >= row.wanted) if row.wanted else "")


def cpu_line(row, results):
    ratio = results.cpu(row.ours) / results.cpu(row.other)
    return table_line(row.name, results.label(row.ours), f"{results.cpu(row.ours):.2f} CPU s/GiB",
                      results.label(row.other), f"{results.cpu(row.other):.2f} CPU s/GiB", f"{ratio:.2f}",
                      "< 1", verdict(ratio < 1))


def memory_row(name):
    return f"memory-{name}".replace("_", "-")


def memory_line(name, results):
    memory = results.memory[name]
    return table_line(memory_row(name), results.label(name), f"{memory:.1f} MiB private",
                      "what it may need", f"{MEMORY_MIB} MiB", f"{memory / MEMORY_MIB:.2f}", "< 1",
                      verdict(memory < MEMORY_MIB))


def serving_line(one):
    ratio = one.rate / one.rival_rate
    return table_line(f"serve-{one.letter}", f"serving: {one.name}", f"{one.rate:.0f} {one.unit}", one.rival,
                      f"{one.rival_rate:.0f} {one.unit}", f"{ratio:.2f}", f"≥ {one.wanted}" if one.wanted else "",
                      verdict(ratio >= one.wanted) if one.wanted else "")


def without(row_name, missing, absent):
    """Return the line of a row that can't be stated."""
    why = "; ".join(f"skipped: {absent[name]}" if isinstance(absent[name], Missing) else "failed"
                    for name in missing)
    return table_line(row_name, "", "", ", ".join(missing), why, "", "", "")


def row_table(rows, results, absent, serving):
    yield "| row | ours | | the other | | ratio | wanted | met |"
    yield "|---|---|---:|---|---:|---:|---:|---|"
    for kind, line in ("speed", speed_line), ("cpu", cpu_line):
        for row in rows[kind]:
            missing = [name for name in (row.ours, row.other) if name in absent]
            yield line(row, results) if not missing else without(row.name, missing, absent)
    for name in rows["memory"]:
        yield memory_line(name, results) if name not in absent else without(memory_row(name), [name], absent)
    for one in serving:
        yield serving_line(one)


def machine():
    """Return a line on what all this was measured with."""
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "?")
    compiler = run(os.environ.get("CC", "cc"), "--version").splitlines()[0]
    return f"{time.strftime('%B %Y')}; {os.cpu_count()} CPUs ({model}), Linux {platform.release()}, {compiler}"


# --- Pictures ---

def picture(results, names, title, subtitle, value, text):
    """Return bars of the fetching contestants' figures, best first."""
    names = [name for name in names if name in results.figures]
    kind = lambda name: "ours" if name == "cascade" else "floor" if name == "floor_write" else "other"
    lines = [Bar(results.label(name), value(name), text(value(name)), kind(name)) for name in names]
    return bars(title, subtitle, lines)


def draw(results, options):
    """Write the pictures for which enough was measured."""
    fetchers = [name for name in ["cascade", "floor_write", "floor_loop", *PEERS] if name in results.figures]
    if len(fetchers) < 2 or "cascade" not in fetchers:
        return
    by_rate = sorted(fetchers, key=results.rate, reverse=True)
    by_cpu = sorted(fetchers, key=results.cpu)
    by_memory = sorted(fetchers, key=results.memory.get)
    note = (f"{bytes_text(options.size)} over loopback, both ends on {os.cpu_count()} CPUs;"
            f" medians of {options.rounds}")
    for file, text in (
            ("fetch.svg", picture(results, by_rate, "Fetched, verified and stored: MB/s",
                                  note + "; dashed: nothing verified",
                                  results.rate, "{:.0f}".format)),
            ("cpu.svg", picture(results, by_cpu, "CPU seconds for each GiB, fetcher and server together", note,
                                results.cpu, "{:.2f}".format)),
            ("memory.svg", picture(results, by_memory, "Private memory of the fetcher: MiB", note,
                                   results.memory.get, "{:.1f}".format))):
        (RESULTS / file).write_text(text)
        print(f"drawn: {RESULTS / file}", file=sys.stderr)


# --- The whole ---

def size_from(text):
    """Return a number of bytes from the command line; K, M and G are powers of 1024."""
    found = re.fullmatch(r"([1-9][0-9]*)([KMG]?)", text.upper())
    if found is None:
        raise argparse.ArgumentTypeError(f"not a size: {text}")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--size", type=size_from, default=1 << 30, help="of the file (1G)")
    parser.add_argument("--chunk", type=size_from, default=MIB, help="size of the chunks (1M)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each round of serving (2)")
    parser.add_argument("--dir", type=Path, help="for the files (/dev/shm if it has room, else /tmp)")
    parser.add_argument("--only", nargs="+", metavar="ROW", default=[],
                        help="these rows: " + ", ".join(row_names()) + "; or those that begin so, as cpu or serve")
    options = parser.parse_args()
    for word in options.only:
        if not any(chosen(name, [word]) for name in row_names()):
            parser.error(f"no row is called {word}; there are: {', '.join(row_names())}")
    return options


def row_names():
    return [row.name for row in SPEED + CPU] + [memory_row(name) for name in MEMORY] + \
           [f"serve-{letter}" for letter in SERVING]


def choose_rows(only):
    return {"speed": [row for row in SPEED if chosen(row.name, only)],
            "cpu": [row for row in CPU if chosen(row.name, only)],
            "memory": [name for name in MEMORY if chosen(memory_row(name), only)]}


def names_in(rows):
    """Return the contestants of these rows, each once."""
    names = [name for row in rows["speed"] + rows["cpu"] for name in (row.ours, row.other)]
    return list(dict.fromkeys(names + rows["memory"]))


def has_room(place, data_size):
    """Tell whether the file fits in there, with a copy, and what else is made."""
    return shutil.disk_usage(place).free > 3 * data_size


def choose_place(options):
    """Return the directory for the files: one in memory if possible, so that no
    disk is measured."""
    memory = Path("/dev/shm")
    place = options.dir or (memory if memory.is_dir() and has_room(memory, options.size) else Path("/tmp"))
    if not place.is_dir() or not has_room(place, options.size):
        raise Failure(f"{place} has no room for three times {bytes_text(options.size)}")
    return place


def measure(options, place, rows, address):
    """Return the results of the rows, why contestants are absent, and how serving went."""
    with tempfile.TemporaryDirectory(prefix="cascade-bench-", dir=place) as scratch:
        site = Site(Path(scratch), options.size, options.chunk, address)
        try:
            there, absent = start_contestants(site, names_in(rows))
            figures, memory = measure_by_turns(site, there, absent, options.rounds)
        finally:
            site.end()
    serving = []
    letters = [letter for letter in SERVING if chosen(f"serve-{letter}", options.only)]
    if letters:
        with tempfile.TemporaryDirectory(prefix="cascade-bench-") as scratch:
            bench = serve.Bench(Path(scratch), options.rounds, options.seconds)
            bench.run(letters)
            serving = bench.compared
    return Results(options.size, there, figures, memory), absent, serving


def report(options, place, rows, results, absent, serving):
    """Print the tables, and keep them, with the figures of each round and pictures."""
    lines = [machine(), "", f"{bytes_text(options.size)} in chunks of {bytes_text(options.chunk)}, in {place};"
             f" medians of {options.rounds}.", "", *contestant_table(results), "",
             *row_table(rows, results, absent, serving)]
    print("\n" + "\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "results.json").write_text(json.dumps({
        "machine": machine(), "size": options.size, "chunk": options.chunk, "serving": serving,
        "rounds": {results.label(name): got for name, got in results.figures.items()}}, indent=1))
    draw(results, options)


def main():
    options = parse_arguments()
    end_cleanly()
    rows = choose_rows(options.only)
    place = choose_place(options)
    address = ADDRESS if enter_own_network(ADDRESS) else None
    print(f"the files are in {place}; the network is "
          + ("one of our own, with only loopback" if address else "the system's loopback"), file=sys.stderr)
    results, absent, serving = measure(options, place, rows, address)
    report(options, place, rows, results, absent, serving)
    if any(isinstance(why, Missing) for why in absent.values()):
        print(f"on Debian, this installs all: apt-get install {' '.join(PACKAGES.values())}", file=sys.stderr)
    return 0 if all(isinstance(why, Missing) for why in absent.values()) else 1


if __name__ == "__main__":
    run_main(main)
