#!/usr/bin/env python3
"""Measure a swarm: how long until all of its fetchers have what one seeder has.

Each peer lives in a network namespace of its own and has 100 Mbit/s up and down
(tc's tbf, else relay.c) to a common router, where the tracker is; so it must
run as root. All fetchers start together, once the seeder is subscribed, and
serve what they hold. The last one's time is compared with the least that any
scheme needs: the longest of size / seeder's uplink, size / slowest downlink,
and fetchers * size / sum of all uplinks.

With --table, all of that for each row of ROWS, and aria2c on the same lines where it
is installed and can take part. With --fit, what is lost once, at the start, and what with
each byte: "start + r * least", for two sizes of the file.
"""

import argparse
import copy
import os
import re
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

from bittorrent import bencode, describe
from common import HERE, MIB, Failure, compare, end_cleanly, positive, run, run_main, write_random
from link import Net

ROUTER = "10.78.0.254"
TRACKER_PORT, PEER_PORT = 8888, 5000
COMPLETE = "complete and verified"
REFERENCE = HERE.parent / "tests" / "reference" / "peer.py"

EQUAL = {"up": 20, "down": 20, "seeder_up": 20, "seeder_down": 20}
ROWS = {  # what is measured, what the last may take, and the options
    "8 fetchers, 256 chunks": (1.20, {**EQUAL}),
    "8 fetchers, 64 chunks": (1.35, {**EQUAL, "chunk": 1024}),
    "16 fetchers, 256 chunks": (1.25, {**EQUAL, "fetchers": 16}),
    "32 fetchers, 128 chunks": (1.45, {**EQUAL, "fetchers": 32, "mib": 32}),
    "64 fetchers, 128 chunks, 10 Mbit/s": (1.60, {
        "up": 10, "down": 10, "seeder_up": 10, "seeder_down": 10, "fetchers": 64, "mib": 32}),
    "8 fetchers, a seeder of 5 times their uplink": (1.50, {**EQUAL, "down": 100, "seeder_up": 100}),
    "8 fetchers, downlinks of 5 times, one uplink of a tenth": (1.40, {**EQUAL, "down": 100, "slow_up": 2}),
    "32 fetchers, half of them late": (1.50, {**EQUAL, "fetchers": 32, "mib": 32, "late": 0.5}),
    "32 fetchers, a quarter killed half-way": (1.60, {**EQUAL, "fetchers": 32, "mib": 32, "killed": 0.25}),
    "32 fetchers, 10 % lying, 10 % dripping": (1.60, {**EQUAL, "fetchers": 32, "mib": 32, "lying": 0.1,
                                                      "dripping": 0.1}),
    "8 fetchers, and 4 reference peers": (1.40, {**EQUAL, "fetchers": 12, "reference": 4}),
    "8 fetchers, round trip 40 ms": (1.34, {**EQUAL, "delay": 10}),
}
FIT_MIB = 64, 512  # sizes of the file for --fit


class Swarm(Net):
    """A router and the peers' namespaces around it."""

    def lay(self, settings):
        """Make the namespaces and lines. Return what limits the rates."""
        self.router = self.add("router")
        run("ip", "netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.peers = []
        self.made_of = "relay" if settings.relay or settings.delay > 0 else None
        for number in range(1 + settings.fetchers):
            down = settings.seeder_down if number == 0 else settings.down
            self.peers.append(self.join(number, uplink(settings, number), down, settings.delay))
        return self.made_of

    def join(self, number, up, down, delay_ms):
        """Make one peer's namespace and its line to the router."""
        peer = self.add(f"peer{number}")
        here, there = (peer, "line"), (self.router, f"line{number}")
        if self.made_of != "relay":
            self.veth(here, there)
            if all(self.shape(end, "tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "50ms")
                   for end, mbit in ((here, up), (there, down))):
                self.made_of = "tbf"
            elif self.made_of == "tbf":
                raise Failure("tbf can't be had twice")
            else:
                run("ip", "-n", peer, "link", "del", "line")
                self.made_of = "relay"
        if self.made_of == "relay":
            if up != down:
                raise Failure("the relay has one rate for both directions")
            self.relay(here, there, delay_ms, up, int(up * 1e6 / 8 * 0.05 / 1024))
        self.address(here, address(number), ROUTER)
        self.address(there, ROUTER, address(number))
        run("ip", "-n", peer, "route", "add", "default", "via", ROUTER)
        return peer


def address(number):
    return f"10.78.0.{number + 1}"


def uplink(settings, number):
    """Return the rate of a peer's uplink; peer 0 is the seeder."""
    if number == 0:
        return settings.seeder_up
    return settings.slow_up or settings.up if number == settings.fetchers else settings.up


def role(settings, number):
    """Return what a fetcher is."""
    at = (number - 1) / settings.fetchers
    if at < settings.lying:
        return "lies"
    if at < settings.lying + settings.dripping:
        return "drips"
    if number > settings.fetchers - settings.reference:
        return "reference"
    return "killed" if at >= 1 - settings.killed else "late" if at >= 1 - settings.late else "ours"


class Run:
    """One download of the file by everybody."""

    def __init__(self, net, settings, file, number):
        self.net, self.settings, self.file = net, settings, file
        self.directory = net.directory / f"run{number}"
        self.directory.mkdir()
        self.started, self.begun = [], {}

    def start(self, namespace, log, *command):
        with open(self.directory / log, "wb") as err:
            process = self.net.start(namespace, *command, out=err, err=err)
        self.started.append(process)
        return process

    def is_complete(self, number):
        raise NotImplementedError

    def wait(self, begin, fetch):
        """Start the fetchers, each when it is to, until those that count are complete.
        Return what each of them took, in order."""
        settings, least = self.settings, least_seconds(self.settings)
        roles = {number: role(settings, number) for number in range(1, 1 + settings.fetchers)}
        waiting = {number for number, its in roles.items() if its in ("ours", "late")}
        due = {number: least * 0.7 * (its == "late") for number, its in roles.items() if its not in ("lies", "drips")}
        processes, seconds = {}, {}
        while waiting:
            passed = time.monotonic() - begin
            for number in [number for number, when in due.items() if when <= passed]:
                del due[number]
                self.begun[number] = time.monotonic()
                processes[number] = fetch(number, roles[number])
            if passed > least * 0.6:
                for number in [number for number in processes if roles[number] == "killed"]:
                    os.killpg(processes.pop(number).pid, signal.SIGKILL)
            for number in [number for number in waiting if number in self.begun and self.is_complete(number)]:
                seconds[number] = time.monotonic() - self.begun[number]
                waiting.remove(number)
            if passed > settings.limit:
                print(f"{len(waiting)} fetchers were not complete after {settings.limit} s")
                break
            time.sleep(0.05)
        took = [seconds.get(number, settings.limit) for number, its in roles.items()
                if its == ("late" if settings.late else "ours")]
        self.end(seconds)
        return sorted(took)

    def data(self, number):
        return self.directory / f"data{number}"

    def end(self, complete):
        for process in reversed(self.started):
            self.net.end(process)
        for number in complete:
            compare(self.file, self.data(number))
        for number in range(1, 1 + self.settings.fetchers):
            if self.data(number).is_dir():
                shutil.rmtree(self.data(number))
            self.data(number).unlink(missing_ok=True)


class CascadeRun(Run):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.logs, self.said = {}, {}

    def is_complete(self, number):
        """Looks only at what is new in the log: that takes CPU time from the peers."""
        if number not in self.logs:
            self.logs[number] = open(self.directory / f"peer{number}.log", errors="replace")
        self.said[number] = self.said.get(number, "")[-len(COMPLETE):] + self.logs[number].read()
        return COMPLETE in self.said[number]

    def end(self, complete):
        for log in self.logs.values():
            log.close()
        super().end(complete)

    def peer(self, number, data, metafile):
        return self.start(self.net.peers[number], f"peer{number}.log", self.net.programs / "cascade", "-v",
                          "-o", data, metafile, ROUTER, TRACKER_PORT, address(number), PEER_PORT)

    def fetch(self, number, its):
        if its != "reference":
            return self.peer(number, self.data(number), self.metafile)
        return self.start(self.net.peers[number], f"peer{number}.log", sys.executable, REFERENCE, self.metafile,
                          f"{ROUTER}:{TRACKER_PORT}", f"{address(number)}:{PEER_PORT}", "-o", self.data(number))

    def run(self, metafile):
        """Return each fetcher's seconds, in order, how many peers each got chunks from on
        average, and how many chunks the seeder sent."""
        settings, self.metafile = self.settings, metafile
        tracker = self.start(self.net.router, "tracker.log", self.net.programs / "tracker", "-a", ROUTER,
                             "-p", TRACKER_PORT)
        time.sleep(0.3)
        self.peer(0, self.file, metafile)
        self.net.wait_for(self.directory / "tracker.log", "is new", tracker)
        fetchers = range(1, 1 + settings.fetchers)
        for number in fetchers:
            if role(settings, number) in ("lies", "drips"):
                self.start(self.net.peers[number], f"hostile{number}.log", sys.executable, HERE / "hostile.py",
                           role(settings, number), self.file, metafile, ROUTER, TRACKER_PORT, address(number), PEER_PORT)
        if settings.lying or settings.dripping:
            time.sleep(1)
        seconds = self.wait(time.monotonic(), self.fetch)
        if settings.keep_logs:
            Path(settings.keep_logs).mkdir(parents=True, exist_ok=True)
            for log in self.directory.glob("*.log"):
                (Path(settings.keep_logs) / f"{self.directory.name}-{log.name}").write_bytes(log.read_bytes())
        return seconds, *analyse(self.directory, [number for number in fetchers if role(settings, number) == "ours"])


class AriaRun(Run):
    """The same with aria2c; a tracker names everybody to everybody."""

    def is_complete(self, number):
        return (self.directory / f"data{number}" / "finished").exists()

    def aria2c(self, number, directory, *options):
        return self.start(self.net.peers[number], f"aria{number}.log", "aria2c", "--no-conf", "--no-netrc",
                          "--enable-dht=false", "--bt-enable-lpd=false", "--file-allocation=none",
                          "--summary-interval=0", f"--listen-port={PEER_PORT}", "--seed-ratio=0", f"--dir={directory}",
                          *options, self.torrent)

    def fetch(self, number, _):
        self.data(number).mkdir()
        return self.aria2c(number, self.data(number), f"--on-bt-download-complete={self.hook}")

    def end(self, complete):
        for number in complete:
            compare(self.file, self.data(number) / self.file.name)
        super().end(())

    def run(self):
        """Return each fetcher's seconds, in order."""
        self.torrent, self.hook = self.directory / "torrent", self.directory / "hook"
        self.torrent.write_bytes(bencode({"announce": f"http://{ROUTER}:{TRACKER_PORT}/swarm",
                                          "info": describe(self.file, self.settings.chunk * 1024)}))
        self.hook.write_text('#!/bin/sh\n: > "$(dirname "$3")/finished"\n')
        self.hook.chmod(0o755)
        self.start(self.net.router, "tracker.log", sys.executable, HERE / "bittorrent.py", ROUTER, TRACKER_PORT)
        time.sleep(1)
        self.aria2c(0, self.file.parent, "--check-integrity=true")
        time.sleep(2)
        return self.wait(time.monotonic(), self.fetch)


def analyse(directory, fetchers):
    """Return how many peers a fetcher got chunks from, on average, and how many
    chunks the seeder sent, to all of them."""
    sources, from_seeder = [], 0
    for at in fetchers:
        said = (directory / f"peer{at}.log").read_text(errors="replace")
        came = re.findall(r"([\d.]+):\d+: chunk \d+ came from it", said)
        sources.append(len(set(came)))
        from_seeder += came.count(address(0))
    return statistics.mean(sources), from_seeder


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", default=HERE.parent, help="directory of the programs (the one above)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--fetchers", type=int, default=8, help="(8)")
    parser.add_argument("--mib", type=int, default=64, help="size of the file (64)")
    parser.add_argument("--chunk", type=int, default=256, metavar="KIB", help="chunk size (256)")
    parser.add_argument("--up", type=positive, default=100, metavar="MBIT", help="a fetcher's uplink (100)")
    parser.add_argument("--down", type=positive, default=100, metavar="MBIT", help="a fetcher's downlink (100)")
    parser.add_argument("--slow-up", type=positive, metavar="MBIT", help="one fetcher's uplink (as the others')")
    parser.add_argument("--seeder-up", type=positive, default=100, metavar="MBIT", help="(100)")
    parser.add_argument("--seeder-down", type=positive, default=100, metavar="MBIT", help="(100)")
    parser.add_argument("--delay", type=float, default=0, metavar="MS",
                        help="between each peer and the router, by relay.c (0)")
    parser.add_argument("--relay", action="store_true", help="use relay.c even where there is tbf")
    parser.add_argument("--limit", type=int, default=180, metavar="SECONDS", help="a run may take (180)")
    parser.add_argument("--wanted", type=positive, default=1.5, help="times the least time (1.5)")
    parser.add_argument("--late", type=float, default=0, metavar="PART", help="of the fetchers start late (0)")
    parser.add_argument("--killed", type=float, default=0, metavar="PART", help="of them is killed half-way (0)")
    parser.add_argument("--lying", type=float, default=0, metavar="PART", help="of them sends wrong chunks (0)")
    parser.add_argument("--dripping", type=float, default=0, metavar="PART", help="of them sends a byte at a time (0)")
    parser.add_argument("--reference", type=int, default=0, metavar="N", help="of them are reference peers (0)")
    parser.add_argument("--table", nargs="*", metavar="WORDS", help="measure these rows of the table, or all")
    parser.add_argument("--fit", action="store_true", help="measure two sizes of the file, and fit a line")
    parser.add_argument("--keep-logs", metavar="DIRECTORY", help="put what the peers say there")
    return parser.parse_args()


def least_seconds(settings):
    bits = settings.mib * MIB * 8
    uplinks = sum(uplink(settings, number) for number in range(1 + settings.fetchers))
    return max(bits / settings.seeder_up, bits / settings.down, settings.fetchers * bits / uplinks) / 1e6


def aria2c_can_take_part(settings):
    return bool(shutil.which("aria2c")) and not (settings.lying or settings.dripping or settings.reference)


def measure(settings):
    """Measure one swarm, and say so. Return what the last fetcher took in each round, as
    multiples of the least, how often the seeder sent each chunk, and aria2c's times (or none)."""
    least = least_seconds(settings)
    with Swarm(settings.programs) as net:
        made_of = net.lay(settings)
        file = net.directory / "data"
        write_random(file, settings.mib * MIB)
        metafile = net.directory / "data.cascade"
        run(net.programs / "mkcascade", "-b", settings.chunk * 1024, file)
        print(f"{settings.fetchers} fetchers, {settings.mib} MiB in chunks of {settings.chunk} KiB,"
              f" {settings.up:g} Mbit/s up and {settings.down:g} down by {made_of};"
              f" no scheme needs less than {least:.2f} s; load {os.getloadavg()[0]:.1f}", flush=True)
        chunks = -(-settings.mib * 1024 // settings.chunk)
        ratios, shares, arias = [], [], []
        for number in range(settings.rounds):
            seconds, sources, sent = CascadeRun(net, settings, file, number).run(metafile)
            ratios.append(seconds[-1] / least)
            shares.append(sent / chunks)
            print(f"run {number + 1}: " + " ".join(f"{s:.1f}" for s in seconds) +
                  f" s; {sources:.1f} sources each; the seeder sent each chunk {shares[-1]:.2f} times;"
                  f" the last: {ratios[-1]:.2f} times the least", flush=True)
            if settings.table is not None and number == 0 and aria2c_can_take_part(settings):
                arias.append(AriaRun(net, settings, file, "aria").run()[-1] / least)
                print(f"aria2c: the last: {arias[-1]:.2f} times the least", flush=True)
    return ratios, shares, arias


def measure_table(settings):
    lines = []
    for name, (wanted, options) in ROWS.items():
        if settings.table and not any(words in name for words in settings.table):
            continue
        row = copy.copy(settings)
        for option, value in options.items():
            setattr(row, option, value)
        print(f"\n{name}", flush=True)
        ratios, shares, arias = measure(row)
        lines.append(f"| {name} | {wanted:.2f} | {statistics.median(ratios):.2f} | {max(ratios):.2f} |"
                     f" {statistics.median(shares):.2f} | {' '.join(f'{aria:.2f}' for aria in arias) or '-'} |")
    print("\n| case | wanted | median | worst | copies | aria2c |\n|---|---:|---:|---:|---:|---:|")
    print("\n".join(lines))


def measure_fit(settings):
    """Fit start + r * least to the medians of two sizes."""
    points = []
    for mib in FIT_MIB:
        row = copy.copy(settings)
        row.mib = mib
        ratios, *_ = measure(row)
        points.append((least_seconds(row), statistics.median(ratios) * least_seconds(row)))
    (least, took), (more_least, more_took) = points
    slope = (more_took - took) / (more_least - least)
    print(f"the last is complete after {took - slope * least:.2f} s + {slope:.3f} times the least")


def main():
    settings = parse_arguments()
    end_cleanly()
    if settings.fit:
        measure_fit(settings)
        return 0
    if settings.table is not None:
        measure_table(settings)
        return 0
    ratios, shares, _ = measure(settings)
    median, worst = statistics.median(ratios), max(ratios)
    print(f"the last, times the least: median {median:.2f}, worst {worst:.2f}; the seeder sent each chunk"
          f" {statistics.median(shares):.2f} times (median), {max(shares):.2f} (worst);"
          f" wanted {settings.wanted:.2f}: {'yes' if worst <= settings.wanted else 'NO'}")
    return 0


if __name__ == "__main__":
    run_main(main)
