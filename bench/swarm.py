#!/usr/bin/env python3
"""Measure a swarm: how long until all of eight fetchers have what one seeder has.

Each peer lives in a network namespace of its own and has 100 Mbit/s up and down
(tc's tbf, else relay.c) to a common router, where the tracker is; so it must
run as root. All fetchers start together, once the seeder is subscribed, and
serve what they hold. The last one's time is compared with the least that any
scheme needs: the longest of size / seeder's uplink, size / slowest downlink,
and fetchers * size / sum of all uplinks.
"""

import argparse
import re
import statistics
import time
from pathlib import Path

from common import HERE, MIB, Failure, compare, end_cleanly, positive, run, run_main, write_random
from link import Net

ROUTER = "10.78.0.254"
TRACKER_PORT, PEER_PORT = 8888, 5000
COMPLETE = "complete and verified"


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


def run_once(net, settings, file, metafile, number):
    """Let one swarm download the file. Return each fetcher's seconds, in order."""
    directory = net.directory / f"run{number}"
    directory.mkdir()
    tracker_log = directory / "tracker.log"
    started = []

    def start(namespace, log, *command):
        with open(directory / log, "wb") as err:
            started.append(net.start(namespace, *command, err=err))
        return started[-1]

    tracker = start(net.router, "tracker.log", net.programs / "tracker", "-a", ROUTER, "-p", TRACKER_PORT)
    time.sleep(0.3)

    def peer(at, data):
        return start(net.peers[at], f"peer{at}.log", net.programs / "cascade", "-v", "-o", data, metafile,
                     ROUTER, TRACKER_PORT, address(at), PEER_PORT)

    peer(0, file)
    net.wait_for(tracker_log, "is new", tracker)
    begin = time.monotonic()
    fetchers = range(1, 1 + settings.fetchers)
    for at in fetchers:
        peer(at, directory / f"data{at}")
    seconds, waiting = {}, set(fetchers)
    while waiting:
        for at in list(waiting):
            if COMPLETE in (directory / f"peer{at}.log").read_text(errors="replace"):
                seconds[at] = time.monotonic() - begin
                waiting.remove(at)
        if time.monotonic() - begin > settings.limit:
            print(f"{len(waiting)} fetchers were not complete after {settings.limit} s")
            break
        time.sleep(0.02)
    for process in reversed(started):
        net.end(process)
    for at in fetchers:
        if at not in waiting:
            compare(file, directory / f"data{at}")
    if settings.keep_logs:
        Path(settings.keep_logs).mkdir(parents=True, exist_ok=True)
        for log in directory.glob("*.log"):
            (Path(settings.keep_logs) / f"{number}-{log.name}").write_bytes(log.read_bytes())
    sources, sent = analyse(directory, fetchers)
    for at in fetchers:
        (directory / f"data{at}").unlink(missing_ok=True)
    return sorted(seconds.values()) + [settings.limit] * len(waiting), sources, sent


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
    parser.add_argument("--keep-logs", metavar="DIRECTORY", help="put what the peers say there")
    return parser.parse_args()


def least_seconds(settings):
    bits = settings.mib * MIB * 8
    uplinks = sum(uplink(settings, number) for number in range(1 + settings.fetchers))
    return max(bits / settings.seeder_up, bits / settings.down, settings.fetchers * bits / uplinks) / 1e6


def main():
    settings = parse_arguments()
    end_cleanly()
    least = least_seconds(settings)
    with Swarm(settings.programs) as net:
        made_of = net.lay(settings)
        file = net.directory / "data"
        write_random(file, settings.mib * MIB)
        metafile = net.directory / "data.cascade"
        run(net.programs / "mkcascade", "-b", settings.chunk * 1024, file)
        print(f"{settings.fetchers} fetchers, {settings.mib} MiB in chunks of {settings.chunk} KiB,"
              f" {settings.up:g} Mbit/s up and {settings.down:g} down by {made_of};"
              f" no scheme needs less than {least:.2f} s", flush=True)
        chunks = -(-settings.mib * 1024 // settings.chunk)
        ratios, shares = [], []
        for number in range(settings.rounds):
            seconds, sources, sent = run_once(net, settings, file, metafile, number)
            ratios.append(seconds[-1] / least)
            shares.append(sent / chunks)
            print(f"run {number + 1}: " + " ".join(f"{s:.1f}" for s in seconds) +
                  f" s; {sources:.1f} sources each; the seeder sent each chunk {shares[-1]:.2f} times;"
                  f" the last: {ratios[-1]:.2f} times the least", flush=True)
        median, worst = statistics.median(ratios), max(ratios)
        print(f"the last, times the least: median {median:.2f}, worst {worst:.2f}; the seeder sent each chunk"
              f" {statistics.median(shares):.2f} times (median), {max(shares):.2f} (worst);"
              f" wanted {settings.wanted:.2f}: {'yes' if worst <= settings.wanted else 'NO'}")
    return 0


if __name__ == "__main__":
    run_main(main)
