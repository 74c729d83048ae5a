"""A peer at the other end of a long line: over how many connections it is asked.

The line is bench/relay.c, between two network namespaces. That needs root, ip and
/dev/net/tun."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import unittest

from scripted import FetchCase, Scripted
from support import HERE, NO_CHUNK_YET, PROGRAMS, Peer, chunk_response, operands

PEER, FETCHER = "10.77.0.1", "10.77.0.2"
ROUND_TRIP_MS = 200
FAT, THIN = 200, 20  # Mbit/s
CLONE_NEWNET = 0x40000000
MIB = 1 << 20
FILE = 32 * MIB


def run(*command):
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def listen_in(namespace, ip):
    """Return a socket that listens in that namespace."""
    listeners = []

    def listen():  # a thread has a namespace of its own
        with open(f"/run/netns/{namespace}", "rb") as place:
            if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET) == 0:
                listeners.append(socket.create_server((ip, 0), backlog=128))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return listeners[0]


class TurnsAway(Scripted):
    """Serves its first client, and has no room for more."""

    def run(self, connection):
        if connection is not self.connections[0]:
            with connection:
                connection.sendall(chunk_response(NO_CHUNK_YET, b"too much to do\n"))
        else:
            super().run(connection)


class LongLine(FetchCase):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
            self.skipTest("only root can lay a line, and only with /dev/net/tun")
        for tool in "ip", "cc":
            if shutil.which(tool) is None:
                self.skipTest(f"no {tool}")
        self.near, self.far = f"fetcher{os.getpid()}", f"peer{os.getpid()}"
        for namespace in self.near, self.far:
            if run("ip", "netns", "add", namespace).returncode != 0:
                self.skipTest("network namespaces can't be made")
            self.addCleanup(run, "ip", "netns", "del", namespace)
        self.file = self.describe_file("film", FILE, MIB // 4)

    def lay(self, mbit):
        """Lay the line. Return a socket that listens at its far end."""
        relay = self.scratch / "relay"
        built = run("cc", "-O2", "-o", relay, HERE.parent / "bench" / "relay.c")
        self.assertEqual(built.returncode, 0, built.stdout)
        line = subprocess.Popen([relay, self.far, "line", self.near, "line", str(ROUND_TRIP_MS / 2), str(mbit)],
                                stdout=subprocess.PIPE, start_new_session=True)
        self.addCleanup(line.stdout.close)
        self.addCleanup(line.wait)
        self.addCleanup(line.kill)  # its directions end with it
        self.assertEqual(line.stdout.readline(), b"ready\n")
        for namespace, own, other in (self.far, PEER, FETCHER), (self.near, FETCHER, PEER):
            run("ip", "-n", namespace, "addr", "add", own, "peer", other, "dev", "line")
            run("ip", "-n", namespace, "link", "set", "line", "up")
        return listen_in(self.far, PEER)

    def fetch_over_line(self, *peers):
        """Fetch the file from the far end."""
        options = [word for peer in peers for word in ("--peer", peer.name)]
        program = self.start(["ip", "netns", "exec", self.near, PROGRAMS / "cascade", "-c", "-v", *options,
                              *operands(self.file, None, (FETCHER, 0))])
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assert_same(self.file.path, self.file.data)
        return program

    def test_a_fat_line_has_four_connections(self):
        peer = Peer(self, self.file, listener=self.lay(FAT))
        program = self.fetch_over_line(peer)
        self.assertEqual(len(peer.connections), 4, program.stderr)
        self.assertIn(f"chunks: {self.file.count} from {peer.name};", program.stderr)
        self.assertEqual(sorted(peer.requests), list(range(self.file.count)))

    def test_a_thin_line_has_one(self):
        self.file = self.describe_file("film", FILE // 4, MIB // 4)
        peer = Peer(self, self.file, listener=self.lay(THIN))
        program = self.fetch_over_line(peer)
        self.assertEqual(len(peer.connections), 1, program.stderr)

    def test_who_turns_connections_away_keeps_one(self):
        peer = TurnsAway(self, self.file, listener=self.lay(FAT))
        program = self.fetch_over_line(peer)
        self.assertIn(len(peer.connections), (2, 3, 4), program.stderr)  # all that were tried, once
        self.assertIn("one more connection to it:", program.stderr)
        self.assertNotIn("not asked again", program.stderr)

    def test_two_peers_have_one_each(self):
        listener = self.lay(FAT)
        peers = [Peer(self, self.file, listener=listener), Peer(self, self.file, listener=listen_in(self.far, PEER))]
        program = self.fetch_over_line(*peers)
        self.assertEqual([len(peer.connections) for peer in peers], [1, 1], program.stderr)


if __name__ == "__main__":
    unittest.main()
