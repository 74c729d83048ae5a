"""Clients for bench/serve.py and tests/soak.py: those that build/bench/load plays,
which are honest and measure, and crowds that are not.
"""

import os
import re
import resource
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from common import ROOT
from support import CHUNK_RESPONSE, chunk_request, receive

LOAD = Path(os.environ.get("CASCADE_LOAD", ROOT / "build" / "bench" / "load"))


def wait_until_accepted(address, seconds=60):
    """Wait until who listens there has accepted all connections, as far as the system tells."""
    deadline = time.monotonic() + seconds
    listening = re.compile(rf":{address[1]:04X} \S+ 0A \S+:([0-9A-F]+) ")
    while time.monotonic() < deadline:
        waiting = listening.search(Path("/proc/net/tcp").read_text())
        if waiting is None or int(waiting[1], 16) == 0:
            return
        time.sleep(0.05)


class Result:
    """One line of build/bench/load. Times are in milliseconds."""

    def __init__(self, line):
        numbers = dict(re.findall(r"(\S+) ([\d.]+)", line))
        self.rate, self.bytes = float(numbers["requests/s"]), float(numbers["bytes/s"])
        self.p50, self.p99, self.max = (float(numbers[k]) / 1000 for k in ("p50", "p99", "max"))
        self.answers, self.errors = int(numbers["answers"]), int(numbers["errors"])


def load(address, metafile, *options, seconds=3):
    """Run build/bench/load and return its Result; metafile None only reads what comes."""
    ip, port = address
    command = [LOAD, *options, "-t", seconds, *(["-r"] if metafile is None else []), ip, port,
               *([] if metafile is None else [metafile])]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=seconds + 30)
    if not done.stdout:
        raise RuntimeError(f"load has not measured: {done.stderr}")
    return Result(done.stdout)


def allow_descriptors(count):
    """Raise this process's limit, and so its children's, to so many if possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Crowd:
    """Something that a thread does until the end of a with statement."""

    def __init__(self, address):
        self.address = address
        self.stopping = threading.Event()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.ready.wait(30)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()

    def connect(self, receive_buffer=None):
        """Begin a connection. Nobody waits for it to be made."""
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        connection.connect_ex(self.address)
        return connection


class Silent(Crowd):
    """So many clients that send nothing. Those that the server hangs up on come
    again, at most so many a second."""

    def __init__(self, address, count, again=100):
        super().__init__(address)
        self.count, self.again = count, again
        self.ended = 0  # how often the server has hung up

    def run(self):
        poll, by_number = select.poll(), {}

        def begin():
            connection = self.connect()
            by_number[connection.fileno()] = connection
            poll.register(connection, select.POLLIN)

        for _ in range(self.count):
            begin()
        time.sleep(0.5)
        self.ready.set()
        lacking, since = 0, time.monotonic()
        while not self.stopping.wait(0.02):
            for number, _ in poll.poll(0):
                poll.unregister(number)
                by_number.pop(number).close()
                lacking += 1
                self.ended += 1
            now = time.monotonic()
            begun = min(lacking, int((now - since) * self.again))
            if begun > 0:
                since = now
                lacking -= begun
                for _ in range(begun):
                    begin()
        for connection in by_number.values():
            connection.close()


class Crawling(Crowd):
    """So many clients that ask for large chunks and read a byte each second."""

    def __init__(self, address, file, count):
        super().__init__(address)
        self.file, self.count = file, count

    def run(self):
        crawlers = [self.connect(receive_buffer=2048) for _ in range(self.count)]
        wait_until_accepted(self.address)
        for number, connection in enumerate(crawlers):
            self.attempt(connection.send, chunk_request(self.file.hash, number % self.file.count))
        self.ready.set()
        while not self.stopping.wait(1):
            for connection in crawlers:
                self.attempt(connection.recv, 1)
        for connection in crawlers:
            connection.close()

    @staticmethod
    def attempt(call, argument):
        try:
            call(argument)
        except OSError:
            pass  # it was hung up on, or not served yet


class Resetting(Crowd):
    """So many clients a second that ask for a large chunk, read its beginning,
    and reset the connection."""

    def __init__(self, address, file, rate=50):
        super().__init__(address)
        self.file, self.rate = file, rate
        self.resets = self.failures = 0

    def run(self):
        due = time.monotonic()
        self.ready.set()
        while not self.stopping.is_set():
            try:
                with socket.create_connection(self.address, timeout=5) as connection:
                    connection.sendall(chunk_request(self.file.hash, self.resets % self.file.count))
                    receive(connection, CHUNK_RESPONSE.size + 1000)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                          struct.pack("ii", 1, 0))
                self.resets += 1
            except OSError:
                self.failures += 1
            due = max(due + 1 / self.rate, time.monotonic() - 1)
            self.stopping.wait(max(0, due - time.monotonic()))
