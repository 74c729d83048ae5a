#!/usr/bin/env python3
"""Check a solution of one of the exercises in docs/exercises.md.

    python3 tests/exercises.py 1 ./my_fork_peer
    python3 tests/exercises.py 2 ./my_poll_peer
    python3 tests/exercises.py 3 ./my_small_fetch

The solutions that the project has of its own are checked by test_exercises.py.
"""

import os
import signal
import socket
import sys
import unittest
from pathlib import Path

from scripted import HANG_UP, Scripted, not_yet, send, send_and_hang_up
from support import (BAD_REQUEST, LOOPBACK, NO_FILE, NO_SUCH_CHUNK, OK, Case, Peer, SharedFile, ask_peer, chunk_request,
                     chunk_response, connect, receive, receive_all, receive_response, wait_until)

CLIENTS = 50


class Exercise(Case):
    solution = None  # the path


class SmallPeer(Exercise):
    """What exercises 1 and 2 have in common: called with FILE.cascade and PORT, the program
    serves that one file, which is complete."""

    def setUp(self):
        super().setUp()
        self.file = self.make_file("data", 1_000_500, 1000)
        self.peer = self.start_on_free_port()

    def start_on_free_port(self):
        for _ in range(10):
            with socket.create_server((LOOPBACK, 0)) as holder:
                self.address = holder.getsockname()
            program = self.start([Path(self.solution).resolve(), self.file.metafile_path, self.address[1]])
            wait_until(lambda: program.has_ended() or self.can_connect(), "it listens")
            if not program.has_ended():
                return program
        raise AssertionError(f"it ended: {program.stderr}")

    def can_connect(self):
        try:
            connect(self.address).close()
            return True
        except OSError:
            return False

    def assert_serves(self, *numbers):
        for number in numbers:
            self.assertEqual(ask_peer(self.address, chunk_request(self.file.hash, number)),
                             (OK, self.file.chunk(number)))

    def test_chunks_over_one_connection(self):
        with connect(self.address) as client:
            for number in (0, 1, 999, 1000, 0):
                client.sendall(chunk_request(self.file.hash, number))
                self.assertEqual(receive_response(client), (OK, self.file.chunk(number)))

    def test_requests_ahead(self):
        with connect(self.address) as client:
            client.sendall(b"".join(chunk_request(self.file.hash, number) for number in range(100)))
            for number in range(100):
                self.assertEqual(receive_response(client), (OK, self.file.chunk(number)))

    def test_a_request_in_pieces(self):
        with connect(self.address) as client:
            for byte in chunk_request(self.file.hash, 3):
                client.sendall(bytes([byte]))
            self.assertEqual(receive_response(client), (OK, self.file.chunk(3)))

    def test_refusals_are_lines_and_the_connection_is_closed(self):
        for request, status in ((chunk_request(self.file.hash, 1001), NO_SUCH_CHUNK),
                                (chunk_request(self.file.hash, 2**64 - 1), NO_SUCH_CHUNK),
                                (chunk_request(bytes(32), 0), NO_FILE),
                                (b"GET / HTTP/1.1\r\n".ljust(64), BAD_REQUEST)):
            with self.subTest(status=status), connect(self.address) as client:
                client.sendall(request)
                answered, message = receive_response(client)
                self.assertEqual(answered, status)
                self.assert_line(message)
                self.assertEqual(receive_all(client), b"")

    def test_a_silent_client_holds_up_nobody(self):
        with connect(self.address) as silent:
            silent.sendall(chunk_request(self.file.hash, 0)[:30])
            self.assert_serves(5, 6)

    def test_a_client_that_takes_nothing_holds_up_nobody(self):
        with connect(self.address) as greedy:
            greedy.setblocking(False)
            try:
                while True:
                    greedy.send(chunk_request(self.file.hash, 1) * 100)
            except BlockingIOError:
                pass  # its answers fill all buffers, and so do its requests
            self.assert_serves(5, 6)

    def test_many_clients(self):
        clients = [connect(self.address) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            client.sendall(chunk_request(self.file.hash, number))
        for number, client in reversed(list(enumerate(clients))):
            self.assertEqual(receive_response(client), (OK, self.file.chunk(number)))
            client.close()

    def test_clients_that_vanish(self):
        for _ in range(20):
            client = connect(self.address)
            client.sendall(chunk_request(self.file.hash, 1) * 1000)
            receive(client, 10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()  # with a reset
        self.assert_serves(0)

    def test_cascade_fetches_from_it(self):
        copy = self.scratch / "copy"
        self.fetch(self.file, "-o", copy, peers=[self.address])
        self.assert_same(copy, self.file.data)


class ForkPeer(SmallPeer):
    """Exercise 1."""

    def test_a_process_for_each_client(self):
        clients = [connect(self.address) for _ in range(5)]
        wait_until(lambda: len(self.peer.children()) == 5, "each has its process")
        for client in clients:
            client.close()
        wait_until(lambda: not self.peer.children(), "all are reaped")

    def test_no_zombies(self):
        for number in range(100):
            self.assert_serves(number)
        wait_until(lambda: not self.peer.children(), "all are reaped")

    def test_a_child_that_is_killed_is_one_client_less(self):
        with connect(self.address) as client:
            client.sendall(chunk_request(self.file.hash, 6))
            self.assertEqual(receive_response(client), (OK, self.file.chunk(6)))
            wait_until(lambda: len(self.peer.children()) == 1, "those that came before it have gone")
            child, = self.peer.children()
            os.kill(child.pid, signal.SIGKILL)
            self.assertEqual(receive_all(client), b"")
        self.assert_serves(7)


class PollPeer(SmallPeer):
    """Exercise 2."""

    def test_one_process(self):
        clients = [connect(self.address) for _ in range(CLIENTS)]
        for client in clients:
            client.sendall(chunk_request(self.file.hash, 9))
            self.assertEqual(receive_response(client), (OK, self.file.chunk(9)))
        self.assertEqual([process.pid for process in self.peer.family()], [self.peer.pid])
        for client in clients:
            client.close()


class SmallFetch(Exercise):
    """Exercise 3: called with FILE.cascade, HOST and PORT, the program fetches what is missing."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 30_500, 1000)

    def run_fetch(self, address):
        program = self.start([Path(self.solution).resolve(), self.file.metafile_path, *address])
        return program, program.wait()

    def assert_fetches(self, peer):
        program, status = self.run_fetch(peer.address)
        self.assertEqual(status, 0, program.stderr)
        self.assert_same(self.file.path, self.file.data)

    def test_a_file(self):
        self.assert_fetches(Peer(self, self.file))

    def test_from_cascade(self):
        original = SharedFile(self.scratch / "folder" / "data", self.file.data, 1000)
        original.path.write_bytes(original.data)
        program, status = self.run_fetch(self.start_seeder(original).address())
        self.assertEqual(status, 0, program.stderr)
        self.assert_same(self.file.path, self.file.data)

    def test_only_what_is_missing(self):
        self.file.path.write_bytes(self.file.without(0, 7, 30))
        peer = Peer(self, self.file)
        self.assert_fetches(peer)
        self.assertEqual(peer.requests, [0, 7, 30])

    def test_one_that_closes_after_each_chunk(self):
        self.assert_fetches(Scripted(self, self.file, send_and_hang_up))

    def test_one_that_does_not_have_it_yet(self):
        self.assert_fetches(Scripted(self, self.file, send, not_yet, send))

    def test_one_that_hangs_up_in_the_middle_of_a_chunk(self):
        def half(peer, connection, number):
            connection.sendall(chunk_response(OK, self.file.chunk(number))[:500])
            return HANG_UP
        self.assert_fetches(Scripted(self, self.file, send, half, send))

    def test_a_liar(self):
        """No wrong byte is kept, and the program has failed."""
        def lie(peer, connection, number):
            connection.sendall(chunk_response(OK, bytes(len(self.file.chunk(number)))))
        program, status = self.run_fetch(Scripted(self, self.file, send, send, lie).address)
        self.assertEqual(status, 1, program.stderr)
        self.assertEqual(self.file.path.read_bytes()[:2000], self.file.data[:2000])
        self.assertNotEqual(program.stderr, "")

    def test_lengths_that_are_not_so(self):
        for length in (0, 999, 1001, 2**64 - 1):
            with self.subTest(length=length):
                def tell(peer, connection, number):
                    connection.sendall(chunk_response(OK, self.file.chunk(number), length))
                    return HANG_UP
                program, status = self.run_fetch(Scripted(self, self.file, tell).address)
                self.assertEqual(status, 1, program.stderr)

    def test_nobody_there(self):
        program, status = self.run_fetch(self.vacant_address())
        self.assertEqual(status, 1)
        self.assertNotEqual(program.stderr, "")


EXERCISES = {"1": ForkPeer, "2": PollPeer, "3": SmallFetch}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in EXERCISES:
        sys.exit(__doc__.strip())
    exercise = EXERCISES[sys.argv[1]]
    exercise.solution = sys.argv[2]
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(exercise)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
