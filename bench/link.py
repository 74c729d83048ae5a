#!/usr/bin/env python3
"""Measure a download over a long line: 50 ms there and back, 1 Gbit/s each way.

Makes two network namespaces, joined by tc's netem where the kernel has it, else
by relay.c; so it must run as root. Compared are one bare TCP stream, cascade
with large and with small chunks, aria2c with four connections to an HTTP
server, and the Python reference. They take turns, a
round of each after the other, and what is printed is the median of the rounds.
"""

import argparse
import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import HERE, MIB, Failure, compare, end_cleanly, positive, run, run_main, write_random

HTTP_PORT = 5006
WAIT_SECONDS = 15  # until a program that was started listens, or says what is waited for


# --- Namespaces, lines and programs: swarm.py uses these too ---

class Net:
    """Namespaces, what runs in them, and a scratch directory. All of it ends
    with the with-statement."""

    def __init__(self, programs):
        self.programs = Path(programs).resolve()
        self.prefix = f"cascade{os.getpid()}"
        self.namespaces, self.running = [], []

    def __enter__(self):
        if os.geteuid() != 0:
            raise Failure("network namespaces need root")
        for name in "cascade", "tracker", "mkcascade":
            if not os.access(self.programs / name, os.X_OK):
                raise Failure(f"{self.programs / name} is missing: run make")
        self.directory = Path(tempfile.mkdtemp(prefix="cascade-bench-"))
        return self

    def __exit__(self, *_):
        for process in list(self.running):
            self.end(process)
        for namespace in self.namespaces:
            with contextlib.suppress(Failure):
                run("ip", "netns", "del", namespace)
        shutil.rmtree(self.directory, ignore_errors=True)

    def add(self, name):
        """Make a namespace, and return its full name."""
        namespace = f"{self.prefix}-{name}"
        run("ip", "netns", "add", namespace)
        self.namespaces.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def start(self, namespace, *command, out=subprocess.DEVNULL, err=subprocess.DEVNULL):
        """Start a program there, in a session of its own."""
        words = [str(word) for word in command]
        if namespace is not None:
            words = ["ip", "netns", "exec", namespace] + words
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                   start_new_session=True)
        self.running.append(process)
        return process

    def start_and_wait(self, namespace, text, *command, where="out"):
        """Start a program there, and return when a line with the text came."""
        path = self.directory / f"{where}{len(os.listdir(self.directory))}"
        with open(path, "wb") as file:
            process = self.start(namespace, *command, **{where: file})
        self.wait_for(path, text, process)
        return process

    def wait_for(self, path, text, process=None, seconds=WAIT_SECONDS):
        """Wait until the file has a line with the text, and return that line."""
        deadline = time.monotonic() + seconds
        while True:
            said = Path(path).read_text(errors="replace")
            for line in said.splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line
            if process is not None and process.poll() is not None:
                raise Failure(f"{' '.join(process.args)} ended early: {said.strip()}")
            if time.monotonic() > deadline:
                raise Failure(f"nothing says '{text}': {said.strip()}")
            time.sleep(0.005)

    def end(self, process):
        """End a program and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.remove(process)

    def relay_program(self):
        """Build the relay, the first time that it is wanted."""
        relay = self.directory / "relay"
        if not relay.exists():
            run("cc", "-O2", "-o", relay, HERE / "relay.c")
        return relay

    def veth(self, one, two):
        """Join two namespaces with a pair of devices; each is (namespace, device)."""
        run("ip", "-n", one[0], "link", "add", one[1], "type", "veth",
            "peer", "name", two[1], "netns", two[0])

    def relay(self, one, two, delay_ms, mbit, queue_kib):
        """Join two namespaces with a relay."""
        self.start_and_wait(None, "ready", self.relay_program(), *one, *two, delay_ms, mbit, queue_kib)

    def address(self, end, own, peer):
        """Give the device its address, and that of the other end."""
        run("ip", "-n", end[0], "addr", "add", own, "peer", peer, "dev", end[1])
        run("ip", "-n", end[0], "link", "set", end[1], "up")

    def shape(self, end, *qdisc):
        """Shape what leaves through the device. False: the kernel can't."""
        try:
            run("tc", "-n", end[0], "qdisc", "add", "dev", end[1], "root", *qdisc)
            return True
        except Failure:
            return False


# --- One bare TCP stream: this file run in each of the namespaces ---

def send_stream(address, path):
    """Send the file to every client."""
    with socket.create_server((address, 5000)) as server, open(path, "rb") as file:
        print("listening", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendfile(file)


def receive_stream(address):
    """Receive until the end, and print the bytes and the seconds that it took."""
    buffer, size, start = bytearray(MIB), 0, time.monotonic()
    with socket.create_connection((address, 5000)) as connection:
        while count := connection.recv_into(buffer):
            size += count
    print(size, time.monotonic() - start)


# --- A file over HTTP, in parts: likewise ---

def make_http_handler(path):
    """Return the class that answers requests for the file, or for parts of it."""
    size = os.path.getsize(path)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 4096  # headers in one piece

        def do_GET(self):
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(wanted[1]) if wanted else 0
            last = min(int(wanted[2]), size - 1) if wanted and wanted[2] else size - 1
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.end_headers()
            self.wfile.flush()
            with open(path, "rb") as file, contextlib.suppress(ConnectionError):
                self.connection.sendfile(file, first, last + 1 - first)

        def log_message(self, *_):
            pass

    return Handler


def serve_http(address, path):
    """Serve the file to every client, each in a thread of its own."""
    with http.server.ThreadingHTTPServer((address, HTTP_PORT), make_http_handler(path)) as server:
        print("listening", flush=True)
        server.serve_forever()


# --- The measures ---

SEEDER, FETCHER = "10.77.0.1", "10.77.0.2"


class Link(Net):
    """The two ends of the line."""

    def lay(self, settings):
        """Make the line. Return what it is made of."""
        self.seeder, self.fetcher = self.add("seeder"), self.add("fetcher")
        one, two = (self.seeder, "line"), (self.fetcher, "line")
        delay_ms, mbit = settings.round_trip / 2, settings.mbit
        queue = mbit * 1e6 / 8 * settings.round_trip / 1000 * settings.queue
        self.veth(one, two)
        packets = int(queue / 1500 + mbit * 1e6 / 8 * delay_ms / 1000 / 1500) + 100
        netem = ("netem", "delay", f"{delay_ms}ms", "rate", f"{mbit}mbit", "limit", packets)
        made_of = "netem"
        if settings.relay or not (self.shape(one, *netem) and self.shape(two, *netem)):
            run("ip", "-n", self.seeder, "link", "del", "line")
            self.relay(one, two, delay_ms, mbit, int(queue / 1024))
            made_of = "relay"
        self.address(one, SEEDER, FETCHER)
        self.address(two, FETCHER, SEEDER)
        for setting in settings.sysctl:
            for namespace in self.seeder, self.fetcher:
                run("ip", "netns", "exec", namespace, "sysctl", "-qw", setting)
        return made_of

    def round_trip_ms(self):
        """Measure the round trip of an empty line."""
        script = ("import socket, time\n"
                  f"t = time.monotonic(); socket.socket().connect_ex(('{SEEDER}', 9))\n"
                  "print((time.monotonic() - t) * 1000)")
        return min(float(run("ip", "netns", "exec", self.fetcher, sys.executable, "-c", script))
                   for _ in range(3))

    def forget(self):
        """Make the kernel forget what it learnt of the line on the last connection."""
        for namespace in self.seeder, self.fetcher:
            run("ip", "-n", namespace, "tcp_metrics", "flush")


class Bare:
    """One TCP stream, sendfile to recv."""

    label, other = "one bare TCP stream", None

    def __init__(self, net, size, file):
        self.net, self.size = net, size
        net.start_and_wait(net.seeder, "listening", sys.executable, __file__, "--send", SEEDER, file)

    def measure(self):
        said = run("ip", "netns", "exec", self.net.fetcher, sys.executable, __file__,
                   "--receive", SEEDER).split()
        if int(said[0]) != self.size:
            raise Failure(f"the bare stream brought {said[0]} bytes, not {self.size}")
        return float(said[1])


def time_download(net, command, fetched):
    """Run a download to its end; return how long it took."""
    fetched.unlink(missing_ok=True)
    log = net.directory / "download.log"
    start = time.monotonic()
    with open(log, "wb") as file:
        process = net.start(net.fetcher, *command, err=file)
        try:
            status = process.wait(600)
        except subprocess.TimeoutExpired:
            status = "no end"
    seconds = time.monotonic() - start
    net.end(process)
    if status != 0:
        raise Failure(f"{' '.join(process.args)}: {status}: {log.read_text(errors='replace').strip()}")
    return seconds


class Ours:
    """cascade -c from a cascade that seeds."""

    def __init__(self, net, size, file, chunk_size, port, wanted):
        self.label, self.wanted = f"cascade, chunks of {chunk_size // 1024} KiB", wanted
        self.net, self.size, self.file = net, size, file
        self.directory = net.directory / f"ours{chunk_size}"
        self.directory.mkdir()
        self.metafile = self.directory / "data.cascade"
        run(net.programs / "mkcascade", "-b", chunk_size, "-o", self.metafile, file)
        self.port = port
        net.start_and_wait(net.seeder, "complete", net.programs / "cascade", "-o", file,
                           self.metafile, "-", SEEDER, port, where="err")

    def measure(self):
        fetched = self.directory / "data"
        seconds = time_download(self.net, [self.net.programs / "cascade", "-c", "--peer",
                                           f"{SEEDER}:{self.port}", self.metafile, "-",
                                           FETCHER, 0], fetched)
        compare(self.file, fetched)
        return seconds


class Aria:
    """aria2c over four connections, from an HTTP server that knows ranges."""

    label, connections = "aria2c, four connections, HTTP", 4

    def __init__(self, net, size, file):
        self.net, self.size, self.file = net, size, file
        net.start_and_wait(net.seeder, "listening", sys.executable, __file__, "--http", SEEDER, file)

    def measure(self):
        fetched = self.net.directory / "aria-copy"
        count = str(self.connections)
        seconds = time_download(self.net, [
            "aria2c", "--no-conf", "--quiet", "--file-allocation=none", "-x", count, "-s", count, "-k", "1M",
            "-d", fetched.parent, "-o", fetched.name, f"http://{SEEDER}:{HTTP_PORT}/data"], fetched)
        compare(self.file, fetched)
        return seconds


class Reference:
    """The reference peer from another one."""

    wanted = None

    def __init__(self, net, size, file, chunk_size):
        self.label = f"reference, chunks of {chunk_size // 1024} KiB, {size // MIB} MiB"
        self.net, self.size = net, size
        self.directory = net.directory / "reference"
        self.directory.mkdir()
        self.file = self.directory / "data"
        with open(file, "rb") as whole, open(self.file, "wb") as part:
            part.write(whole.read(size))
        self.metafile = self.directory / "data.cascade"
        run(net.programs / "mkcascade", "-b", chunk_size, self.file)
        tracker = net.directory / "tracker.log"
        with open(tracker, "wb") as log:
            process = net.start(net.seeder, net.programs / "tracker", "-a", SEEDER, "-p", 8888, err=log)
        time.sleep(0.2)
        self.peer = HERE.parent / "tests" / "reference" / "peer.py"
        net.start(net.seeder, sys.executable, self.peer, self.metafile, f"{SEEDER}:8888", f"{SEEDER}:5004")
        net.wait_for(tracker, "is new", process)

    def measure(self):
        fetched = self.net.directory / "reference-copy"
        seconds = time_download(self.net, [sys.executable, self.peer, self.metafile, f"{SEEDER}:8888",
                                           f"{FETCHER}:5005", "-o", fetched, "-c", "1"], fetched)
        compare(self.file, fetched)
        return seconds


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--programs", default=HERE.parent, help="directory of the programs (the one above)")
    parser.add_argument("--rounds", type=int, default=5, help="(5; the reference has three at most)")
    parser.add_argument("--mib", type=int, default=128, help="size of the file (128)")
    parser.add_argument("--reference-mib", type=int, default=16,
                        help="size of the file for the reference, which is slow (16; 0: leave it out)")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1024, 64], metavar="KIB",
                        help="chunk sizes (1024 64)")
    parser.add_argument("--round-trip", type=positive, default=50, metavar="MS", help="(50)")
    parser.add_argument("--mbit", type=positive, default=1000, help="rate of the line each way (1000)")
    parser.add_argument("--queue", type=positive, default=1, metavar="ROUND_TRIPS",
                        help="how much can wait before the line (1)")
    parser.add_argument("--relay", action="store_true", help="use relay.c even where there is netem")
    parser.add_argument("--sysctl", action="append", default=[], metavar="NAME=VALUE",
                        help="set this in both namespaces; may be given several times")
    parser.add_argument("--send", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--http", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    return parser.parse_args()


def say_times(measures, times):
    """Print each measure's median, its spread, and how it compares."""
    rates = {m: [m.size / seconds for seconds in times[m]] for m in measures}
    bare = statistics.median(rates[measures[0]])
    print(f"{'':36} {'seconds':>9} {'MB/s':>7} {'from - to':>13} {'of the stream':>14}")
    for m in measures:
        rate = statistics.median(rates[m])
        wanted = "" if getattr(m, "wanted", None) is None else \
            f"  wanted {m.wanted:.2f}: {'yes' if rate >= m.wanted * bare else 'NO'}"
        print(f"{m.label:36} {statistics.median(times[m]):9.3f} {rate / 1e6:7.1f}"
              f" {min(rates[m]) / 1e6:6.1f} -{max(rates[m]) / 1e6:6.1f} {rate / bare:13.2f}{wanted}")


def say_ratios(measures, times):
    """Print how cascade compares with aria2c, if that took part."""
    for aria in (m for m in measures if isinstance(m, Aria)):
        for m in (m for m in measures if isinstance(m, Ours)):
            ratio = statistics.median(times[aria]) / statistics.median(times[m])
            print(f"{m.label}: {ratio:.2f} of aria2c; wanted 1.00: {'yes' if ratio >= 1 else 'NO'}")


def main():
    settings = parse_arguments()
    if settings.send:
        return send_stream(*settings.send)
    if settings.http:
        return serve_http(*settings.http)
    if settings.receive:
        return receive_stream(settings.receive)
    end_cleanly()
    with Link(settings.programs) as net:
        made_of = net.lay(settings)
        print(f"a line of {settings.mbit:g} Mbit/s by {made_of}, round trip {net.round_trip_ms():.1f} ms,"
              f" {settings.mib} MiB a download, medians of {settings.rounds}", flush=True)
        file, size = net.directory / "data", settings.mib * MIB
        write_random(file, size)
        measures = [Bare(net, size, file)]
        for number, kib in enumerate(settings.chunks):
            measures.append(Ours(net, size, file, kib * 1024, 5010 + number, 0.9 if kib >= 1024 else 0.8))
        if shutil.which("aria2c") is not None:
            measures.append(Aria(net, size, file))
        if settings.reference_mib > 0:
            measures.append(Reference(net, settings.reference_mib * MIB, file, MIB))
        times = {m: [] for m in measures}
        for number in range(settings.rounds):
            for m in measures:
                if isinstance(m, Reference) and number >= 3:
                    continue
                net.forget()
                times[m].append(m.measure())
        say_times(measures, times)
        say_ratios(measures, times)
    return 0


if __name__ == "__main__":
    run_main(main)
