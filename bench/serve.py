#!/usr/bin/env python3
"""How fast the serving parent is, against the floors of bench/floor.c, and what
an honest client notices of clients that are not. bench/README.md explains the
figures.

    serve.py [--rounds N] [--seconds S] [--only abcde]
"""

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Callable, NamedTuple

import crowd
from common import ROOT, Failure, run, run_main
from crowd import Resetting, Silent, load
from support import LOOPBACK, Program, SharedFile, random_bytes

CLIENTS = 8  # at a time, where a connection is made for each request
SMALL, LARGE = 1 << 10, 1 << 20
BUILD_SECONDS = 300


class Contest(NamedTuple):
    """What is measured by turns with others: measure() returns a rate, p50, p99,
    the maximum and the errors. The rate is compared with that of the rival."""
    name: str
    measure: Callable
    rival: str = None
    wanted: float = None


class Compared(NamedTuple):
    """A rate, the rival's, and what their ratio should be."""
    letter: str
    name: str
    rate: float
    rival: str
    rival_rate: float
    unit: str
    wanted: float


class Build:
    """The peer and the floor, linked in one of the ways."""

    def __init__(self, scratch, name, cc, static):
        self.name = name
        source = scratch / name
        for file in [ROOT / "Makefile", *ROOT.glob("*.[ch]"), *ROOT.glob("*/*.[ch]")]:
            copy = source / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        self.cascade, self.floor = source / "cascade", source / "build" / "bench" / "floor"
        run("make", "-s", "cascade", "build/bench/floor", f"CC={cc}",
            f"LDFLAGS={'-static' if static else ''}", cwd=source, seconds=BUILD_SECONDS)


def builds(scratch):
    """Yield those that can be made here."""
    cc = os.environ.get("CC", "cc")
    for name, compiler, static in (("dynamic", cc, False), ("static", cc, True),
                                   ("musl", "musl-gcc", True)):
        if shutil.which(compiler):
            try:
                yield Build(scratch, name, compiler, static)
                continue
            except Failure:
                pass
        print(f"({name}: can't be built here)", file=sys.stderr)


class Bench:
    def __init__(self, scratch, rounds, seconds):
        self.rounds, self.seconds = rounds, seconds
        self.compared = []  # whatever has a rival
        self.small = SharedFile(scratch / "small", random_bytes(16 << 20), SMALL)
        self.large = SharedFile(scratch / "large", random_bytes(64 << 20), LARGE)
        for file in (self.small, self.large):
            file.path.write_bytes(file.data)
        self.builds = list(builds(scratch))
        if not self.builds:
            raise Failure("the peer can't be built: try make")
        self.cascade = self.builds[0].cascade
        self.floor = self.builds[0].floor

    def serve(self, cascade):
        """Start a peer, with all of its files checked."""
        peer = Program([cascade, f"{self.small.metafile_path}:{self.large.metafile_path}",
                        "-", LOOPBACK, 0])
        peer.address()
        load(peer.address(), self.large.metafile_path, "-k", "-n", 4 * self.large.count, seconds=2)
        return peer

    def compare(self, letter, title, unit, contests):
        """Measure the contests by turns, and print the medians."""
        rounds = {contest.name: [] for contest in contests}
        for _ in range(self.rounds):
            for contest in contests:
                rounds[contest.name].append(contest.measure())
        print(f"\n({letter}) {title}: {unit}")
        medians = {name: [statistics.median(values) for values in zip(*figures)]
                   for name, figures in rounds.items()}
        for name, _, rival, wanted in contests:
            rate, p50, p99, longest, errors = medians[name]
            ratio = f"{rate / medians[rival][0]:8.2f}" if rival else "        "
            print(f"  {name:28} {rate:10.1f} {ratio} {p50:8.2f} {p99:8.2f} {longest:8.1f} {errors:6.0f}",
                  flush=True)
            if rival:
                self.compared.append(Compared(letter, name, rate, rival, medians[rival][0], unit, wanted))
        return medians

    @staticmethod
    def requests(address, file, *options, seconds):
        r = load(address, file.metafile_path, *options, seconds=seconds)
        return r.rate, r.p50, r.p99, r.max, r.errors

    @staticmethod
    def megabytes(address, metafile, *options, seconds):
        r = load(address, metafile, *options, seconds=seconds)
        return r.bytes / 1e6, r.p50, r.p99, r.max, r.errors

    def connection_per_request(self):
        contests, programs = [], []
        for build in self.builds:
            floor = f"floor fork, {build.name}"
            wanted = 0.9 if build is self.builds[0] else None  # of what make builds
            for name, command, rival in ((floor, [build.floor, "fork", 0, SMALL], None),
                                         (f"cascade, {build.name}", None, floor)):
                program = Program(command) if command else self.serve(build.cascade)
                programs.append(program)
                contests.append(Contest(name, lambda address=program.address(): self.requests(
                    address, self.small, "-c", CLIENTS, seconds=self.seconds), rival, rival and wanted))
        self.compare("a", f"a connection for each chunk of 1 KiB, {CLIENTS} at a time", "requests/s", contests)
        return programs

    def large_chunks(self):
        floor, peer = Program([self.floor, "sendfile", 0, self.large.path]), self.serve(self.cascade)
        contests = [Contest("floor sendfile", lambda: self.megabytes(floor.address(), None,
                                                                     seconds=self.seconds))]
        for depth, wanted in (1, None), (4, 0.9):  # a fetcher asks ahead too
            contests.append(Contest(f"cascade, {depth} asked for ahead", lambda depth=depth:
                                    self.megabytes(peer.address(), self.large.metafile_path, "-k",
                                                   "-d", depth, seconds=self.seconds),
                                    "floor sendfile", wanted))
        self.compare("b", "one connection, chunks of 1 MiB", "MB/s", contests)
        return [floor, peer]

    def kept_connection(self):
        floor, peer = Program([self.floor, "keep", 0, SMALL]), self.serve(self.cascade)
        measure = lambda server: lambda: self.requests(server.address(), self.small, "-k",
                                                       seconds=self.seconds)
        self.compare("c", "one connection kept, chunks of 1 KiB", "requests/s",
                     [Contest("floor keep", measure(floor)), Contest("cascade", measure(peer), "floor keep")])
        return [floor, peer]

    def honest(self, letter, title, crowd_of):
        """An honest client alone, and then beside a crowd."""
        peer = self.serve(self.cascade)
        measure = lambda: self.requests(peer.address(), self.small, seconds=self.seconds)

        def beside():
            with crowd_of(peer.address()):
                return measure()
        medians = self.compare(letter, title, "requests/s", [Contest("alone", measure),
                                                             Contest("beside them", beside, "alone")])
        p99, longest = medians["beside them"][2:4]
        print(f"  p99 {'under' if p99 < 100 else 'NOT UNDER'} 100 ms,"
              f" maximum {'under' if longest < 100 else 'NOT UNDER'} 100 ms")
        return [peer]

    def silent_clients(self):
        return self.honest("d", "an honest client beside 1,000 silent ones",
                           lambda address: Silent(address, 1000))

    def resets(self):
        return self.honest("e", "an honest client beside 50 resets a second in mid-chunk",
                           lambda address: Resetting(address, self.large))

    def run(self, letters):
        """Measure what the letters stand for."""
        print(f"medians of {self.rounds}, {self.seconds} s each; times in ms\n"
              f"{'':30} {'rate':>10} {'ratio':>8} {'p50':>8} {'p99':>8} {'max':>8} {'errors':>6}")
        for letter, measurement in zip("abcde", (self.connection_per_request, self.large_chunks,
                                                 self.kept_connection, self.silent_clients,
                                                 self.resets)):
            if letter in letters:
                for program in measurement():
                    for what in program.end():
                        if "cascade" in what:
                            print(what, file=sys.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="abcde")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so everything started ends
    crowd.allow_descriptors(8192)
    with tempfile.TemporaryDirectory(prefix="cascade-bench-") as scratch:
        Bench(Path(scratch), options.rounds, options.seconds).run(options.only)


if __name__ == "__main__":
    run_main(main)
