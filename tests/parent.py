"""What the tests of a serving parent share: its clients, and its reports on them."""

import re
import signal
import socket
import time

from support import (OK, WAIT, Case, ask_peer, chunk_request, connect, receive_response, wait_for_chunks,
                     wait_until)


class Client:
    """One line of a peer's report on its clients."""

    line = re.compile(r"cascade: client ([\d.]+):(\d+): (\w+), (\d+) chunks?, ([\d.]+) ?(\w+), "
                      r"[\d.]+ ?\w+/s, child (\d+)$")
    units = {"B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

    def __init__(self, line):
        found = self.line.match(line)
        if not found:
            raise AssertionError(f"no client's line: {line}")
        self.address, self.state = (found[1], int(found[2])), found[3]
        self.chunks, self.bytes = int(found[4]), float(found[5]) * self.units[found[6]]
        self.child = int(found[7])


def report_of(peer):
    """Ask the peer what it serves, and to whom. Return the chunks held of each file, in
    words, and its clients by address."""
    before = len(peer.stderr)
    peer.signal(signal.SIGUSR1)

    def has_all():
        lines = peer.stderr[before:].splitlines()
        counts = [count for line in lines if (count := re.search(r": (\d+) clients? now", line))]
        clients = [line for line in lines if line.startswith("cascade: client ")]
        return counts and len(clients) == int(counts[0][1]) and (lines, clients)
    lines, clients = wait_until(has_all, f"{peer} reports")
    held = dict(re.search(r"cascade: (.*): (\d+ of \d+) chunks? held$", line).groups()
                for line in lines if re.search("chunks? held$", line))
    return held, {client.address: client for client in map(Client, clients)}


class Parent(Case):
    """Serving peers for a file of small chunks."""

    def setUp(self):
        super().setUp()
        self.small = self.make_file("small", 10_500, 1000)

    def serve(self, files, *options):
        """Start a peer that holds files, and wait until it does and nobody is connected."""
        peer = self.start_peer(files, *options)
        for file in files if isinstance(files, list) else [files]:
            wait_for_chunks(peer.address(), file, [0, file.count - 1])
        wait_until(lambda: not peer.children(), "fetcher and children have ended")
        return peer

    def connect(self, peer):
        connection = connect(peer.address())
        self.addCleanup(connection.close)
        return connection

    def connect_as_crawler(self, peer):
        """Connect with the smallest buffer for what comes."""
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(WAIT)
        connection.connect(peer.address())
        return connection

    def ask(self, connection, file, number):
        """Ask for a chunk over a connection; it must come. Return after how many seconds."""
        start = time.monotonic()
        connection.sendall(chunk_request(file.hash, number))
        self.assertEqual(receive_response(connection), (OK, file.chunk(number)))
        return time.monotonic() - start

    def ask_anew(self, peer, file, number):
        """The same over a connection of its own."""
        start = time.monotonic()
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, number)),
                         (OK, file.chunk(number)))
        return time.monotonic() - start

    def wait_for_state(self, peer, connection, state, chunks=None):
        """Wait until the peer reports the client in this state. Return its report."""
        def look():
            client = report_of(peer)[1].get(connection.getsockname())
            if client and client.state == state and chunks in (None, client.chunks):
                return client
        return wait_until(look, f"a client is {state}")

    def child_of(self, peer, connection):
        """Return the process number of the child that serves the client."""
        return self.wait_for_state(peer, connection, "silent").child
