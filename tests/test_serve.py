"""A serving peer, seen by its clients over raw sockets."""

import os
import signal
import socket
import struct
import time
import unittest

from scripted import Scripted, keep_silent, send
from support import (BAD_REQUEST, NO_CHUNK_YET, NO_FILE, NO_SUCH_CHUNK, OK, Case, ask_peer, chunk_request,
                     connect, receive, receive_all, receive_response, wait_for_chunks, wait_until)

REQUEST = b"CASCADE1"


class Serving(Case):
    """A peer that serves a file of small chunks and one of large chunks."""

    def setUp(self):
        super().setUp()
        self.small = self.make_file("small", 10_500, 1000)
        self.large = self.make_file("large", 1_000_000, 150_000)
        self.peer = self.start_seeder(self.small, self.large)
        self.address = self.peer.address()

    def connect(self):
        connection = connect(self.address)
        self.addCleanup(connection.close)
        return connection

    def assert_still_serves(self):
        self.assertEqual(ask_peer(self.address, chunk_request(self.small.hash, 3)),
                         (OK, self.small.chunk(3)))

    def assert_refused(self, connection, status):
        """The response must have that status and words, and be the last."""
        got, message = receive_response(connection)
        self.assertEqual(got, status)
        self.assert_line(message)
        self.assertEqual(receive_all(connection), b"")


class Answers(Serving):
    def test_chunks_are_exact(self):
        for file in (self.small, self.large):
            for number in range(file.count):
                with self.subTest(file=file.path, number=number):
                    self.assertEqual(ask_peer(self.address, chunk_request(file.hash, number)),
                                     (OK, file.chunk(number)))

    def test_an_unknown_hash_is_status_1_and_the_end(self):
        connection = self.connect()
        connection.sendall(chunk_request(bytes(32), 0))
        self.assert_refused(connection, NO_FILE)

    def test_a_chunk_number_too_large_is_status_3_and_the_end(self):
        for number in (self.small.count, 1 << 32, (1 << 63) - 1, (1 << 64) - 1):
            with self.subTest(number=number):
                connection = self.connect()
                connection.sendall(chunk_request(self.small.hash, number))
                self.assert_refused(connection, NO_SUCH_CHUNK)

    def test_a_wrong_magic_is_status_4_and_the_end(self):
        connection = self.connect()
        connection.sendall(b"CASCADE2" + chunk_request(self.small.hash, 0)[8:])
        self.assert_refused(connection, BAD_REQUEST)

    def test_the_last_words_arrive_although_more_requests_follow(self):
        connection = self.connect()
        connection.sendall(chunk_request(bytes(32), 0) + chunk_request(self.small.hash, 0) * 200)
        self.assert_refused(connection, NO_FILE)

    def test_what_came_before_a_refusal_is_answered(self):
        connection = self.connect()
        connection.sendall(chunk_request(self.small.hash, 1) + chunk_request(self.large.hash, 1) +
                           chunk_request(self.small.hash, 99) + chunk_request(self.small.hash, 2))
        self.assertEqual(receive_response(connection), (OK, self.small.chunk(1)))
        self.assertEqual(receive_response(connection), (OK, self.large.chunk(1)))
        self.assert_refused(connection, NO_SUCH_CHUNK)

    def test_reserved_bytes_are_ignored(self):
        for reserved in (b"0" * 16, b"\xff" * 16, bytes(range(16))):
            with self.subTest(reserved=reserved):
                request = chunk_request(self.small.hash, 2, reserved)
                self.assertEqual(ask_peer(self.address, request), (OK, self.small.chunk(2)))

    def test_one_connection_takes_one_request_after_the_other(self):
        connection = self.connect()
        for number in (0, 10, 5, 5):
            for file in (self.small, self.large):
                number %= file.count
                connection.sendall(chunk_request(file.hash, number))
                self.assertEqual(receive_response(connection), (OK, file.chunk(number)))

    def test_many_requests_in_one_write_are_answered_in_order(self):
        wanted = [(file, number % file.count) for number in range(150)
                  for file in (self.small, self.large, self.small)]
        connection = self.connect()
        with_all = b"".join(chunk_request(file.hash, number) for file, number in wanted)
        connection.sendall(with_all)
        for file, number in wanted:
            self.assertEqual(receive_response(connection), (OK, file.chunk(number)))

    def test_a_request_in_single_bytes(self):
        connection = self.connect()
        for byte in chunk_request(self.small.hash, 4):
            connection.sendall(bytes([byte]))
        self.assertEqual(receive_response(connection), (OK, self.small.chunk(4)))

    def test_a_request_split_behind_another(self):
        connection = self.connect()
        both = chunk_request(self.small.hash, 6) + chunk_request(self.small.hash, 7)
        connection.sendall(both[:100])
        self.assertEqual(receive_response(connection), (OK, self.small.chunk(6)))
        connection.sendall(both[100:])
        self.assertEqual(receive_response(connection), (OK, self.small.chunk(7)))

    def test_text_typed_by_hand_is_refused_at_once(self):
        for text in (b"G", b"hello\r\n", b"GET / HTTP/1.0\r\n\r\n", b"CASCX", b"cascade1"):
            with self.subTest(text=text):
                connection = self.connect()
                connection.sendall(text)
                self.assert_refused(connection, BAD_REQUEST)

    def test_half_a_request_and_the_end_of_file_is_status_4(self):
        for size in (1, 8, 63):
            with self.subTest(size=size):
                connection = self.connect()
                connection.sendall(chunk_request(self.small.hash, 0)[:size])
                connection.shutdown(socket.SHUT_WR)
                self.assert_refused(connection, BAD_REQUEST)

    def test_requests_before_the_end_of_file_are_answered(self):
        connection = self.connect()
        connection.sendall(chunk_request(self.large.hash, 0) + chunk_request(self.small.hash, 1))
        connection.shutdown(socket.SHUT_WR)
        self.assertEqual(receive_response(connection), (OK, self.large.chunk(0)))
        self.assertEqual(receive_response(connection), (OK, self.small.chunk(1)))
        self.assertEqual(receive_all(connection), b"")

    def test_the_first_recv_has_the_whole_header(self):
        for file in (self.small, self.large) * 20:
            connection = self.connect()
            connection.sendall(chunk_request(file.hash, 0))
            self.assertGreaterEqual(len(connection.recv(65536)), 9)

    def test_header_and_small_chunk_come_in_one_piece(self):
        connection = self.connect()
        connection.sendall(chunk_request(self.small.hash, 0))
        self.assertEqual(len(connection.recv(65536)), 9 + 1000)


class MissingChunks(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 10_500, 1000)
        self.file.path.write_bytes(self.file.without(2, 10))
        self.peer = self.start_peer(self.file)
        self.address = self.peer.address()
        wait_for_chunks(self.address, self.file, [0, 1, 3, 4, 5, 6, 7, 8, 9])

    def test_a_missing_chunk_is_status_2_and_the_connection_stays(self):
        with connect(self.address) as connection:
            for number in (2, 0, 10, 9):
                connection.sendall(chunk_request(self.file.hash, number))
                status, body = receive_response(connection)
                if number in (2, 10):
                    self.assertEqual(status, NO_CHUNK_YET)
                    self.assert_line(body)
                    self.assertTrue(body.endswith(b" regions dfc\n"), body)  # 11 chunks: all but 2 and 10
                else:
                    self.assertEqual((status, body), (OK, self.file.chunk(number)))

    def test_a_chunk_that_arrives_is_served_over_a_connection_opened_before(self):
        whole = self.make_file("whole/data", 10_500, 1000)
        whole.data = self.file.data
        whole.path.write_bytes(whole.data)
        whole.metafile_path.write_bytes(self.file.metafile)
        whole.hash = self.file.hash
        partial = self.describe_file("partial/data", 0, 1000)
        partial.metafile_path.write_bytes(self.file.metafile)
        seeder = self.start_seeder(whole)
        # Earlier versions took -p for --peer.
        fetcher = self.start_peer(partial, "-p", "%s:%d" % seeder.address())
        with connect(fetcher.address()) as connection:
            def has_last():
                connection.sendall(chunk_request(self.file.hash, 10))
                status, body = receive_response(connection)
                return status == OK and body == self.file.chunk(10)
            wait_until(has_last, "the last chunk is served")


class Crowd(Serving):
    def test_a_hundred_clients_at_once(self):
        connections = [self.connect() for _ in range(100)]
        for connection in connections:
            connection.sendall(chunk_request(self.large.hash, 2))
        for connection in reversed(connections):
            self.assertEqual(receive_response(connection), (OK, self.large.chunk(2)))
        for number, connection in enumerate(connections):
            connection.sendall(chunk_request(self.small.hash, number % 10))
        for number, connection in enumerate(connections):
            self.assertEqual(receive_response(connection), (OK, self.small.chunk(number % 10)))

    def test_silent_clients_hold_nobody_up(self):
        silent = [self.connect() for _ in range(50)]
        for connection in silent[:25]:
            connection.sendall(REQUEST)
        self.assert_still_serves()

    def test_no_zombies_after_many_connections(self):
        for _ in range(100):
            self.assert_still_serves()
        wait_until(lambda: not self.peer.children(), "all children are gone and reaped")

    def test_at_the_bound_silent_clients_make_way(self):
        peer = self.start_peer(self.small, "-m", "2")
        wait_for_chunks(peer.address(), self.small, [0])
        for number in range(6):
            connection = connect(peer.address())
            self.addCleanup(connection.close)
            connection.sendall(chunk_request(self.small.hash, number))
            self.assertEqual(receive_response(connection), (OK, self.small.chunk(number)))
        wait_until(lambda: len(peer.children()) <= 2, "no more children than allowed")


class RudeClients(Serving):
    def test_a_reset_in_mid_chunk_harms_nobody(self):
        file = self.make_file("huge", 16 << 20, 16 << 20)
        self.peer = self.start_seeder(file, self.small)
        self.address = self.peer.address()
        for _ in range(10):
            connection = self.connect()
            connection.sendall(chunk_request(file.hash, 0) * 3)
            self.assertEqual(len(receive(connection, 100_000)), 100_000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        self.assert_still_serves()
        wait_until(lambda: not self.peer.children(), "all children are gone and reaped")
        self.assertEqual(self.peer.stderr.count("\n"), 2, self.peer.stderr)  # both are complete

    def test_garbage_of_all_kinds_harms_nobody(self):
        for garbage in (bytes(1000), os.urandom(100_000), REQUEST * 1000, b"\n"):
            with self.connect() as connection:
                try:
                    connection.sendall(garbage)
                    connection.shutdown(socket.SHUT_WR)
                    receive_all(connection)
                except (BrokenPipeError, ConnectionResetError):
                    pass
        self.assert_still_serves()
        wait_until(lambda: not self.peer.children(), "all children are gone and reaped")


class ChangedDataFile(Serving):
    """What is no longer there is never answered as if it were."""

    def test_a_truncated_file(self):
        for file in (self.small, self.large):
            os.truncate(file.path, file.chunk_size + 10)
            for number in range(file.count):
                self.assert_not_deceived(self.address, file, number)
            self.assertEqual(ask_peer(self.address, chunk_request(file.hash, 0))[0], NO_FILE)

    def test_a_replaced_file(self):
        for file in (self.small, self.large):
            other = self.scratch / "other"
            other.write_bytes(bytes(len(file.data)))
            os.replace(other, file.path)
            for number in range(file.count):
                self.assert_not_deceived(self.address, file, number)

    def test_a_removed_file(self):
        for file in (self.small, self.large):
            file.path.unlink()
            self.assert_not_deceived(self.address, file, 0)

    def test_a_folder_or_fifo_in_its_place(self):
        self.small.path.unlink()
        self.small.path.mkdir()
        self.large.path.unlink()
        os.mkfifo(self.large.path)
        self.assert_not_deceived(self.address, self.small, 0)
        self.assert_not_deceived(self.address, self.large, 0)


class End(Serving):
    def test_signals_end_the_whole_family_with_status_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                peer = self.start_seeder(self.small)
                clients = [connect(peer.address()) for _ in range(5)]
                for client in clients:
                    client.sendall(chunk_request(self.small.hash, 0))
                    receive_response(client)
                peer.signal(number)
                self.assertEqual(peer.wait(), 0)
                self.assertEqual(peer.family(), [])
                for client in clients:
                    self.assertEqual(receive_all(client), b"")
                    client.close()

    def test_signals_end_a_family_that_still_fetches(self):
        file = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer(file, peers=[Scripted(self, file, send, keep_silent).address])
        peer.address()
        wait_until(lambda: len(peer.family()) >= 3, "the fetcher and its checker run")
        peer.signal(signal.SIGTERM)
        self.assertEqual(peer.wait(), 5)
        self.assert_leaves_nothing(peer)
        self.assertRegex(peer.stderr, f"{file.path}: ended with [01] of 100 chunks held")

    def test_a_fetcher_that_gives_up_ends_the_family_with_its_status(self):
        file = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([file, self.small], "--give-up", "1", peers=[self.vacant_address()])
        self.assertEqual(peer.wait(), 4)
        self.assert_leaves_nothing(peer)
        self.assertIn(f"{file.path}: nothing has arrived for 1 s; given up", peer.stderr)

    def test_killing_the_parent_leaves_no_process(self):
        file = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([file, self.small], peers=[Scripted(self, file, send, keep_silent).address])
        wait_for_chunks(peer.address(), self.small, [0])
        with connect(peer.address()) as client:
            client.sendall(chunk_request(self.small.hash, 0))
            receive_response(client)
            wait_until(lambda: len(peer.family()) >= 4, "child, fetcher and checker run")
            peer.signal(signal.SIGKILL)
            peer.wait()
            self.assert_leaves_nothing(peer)

    def test_a_port_that_is_taken(self):
        program = self.start_peer(self.small, me=self.address)
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, "%s:%d" % self.address)

    def test_its_port_is_free_at_once_after_its_end(self):
        with connect(self.address) as client:
            client.sendall(chunk_request(self.small.hash, 0))
            receive_response(client)
            self.peer.signal(signal.SIGTERM)
            self.assertEqual(self.peer.wait(), 0)
        again = self.start_peer(self.small, me=self.address)
        self.assertEqual(again.address(), self.address)


class Turns(Case):
    """Where more clients wait for large chunks than are sent to at a time."""

    def setUp(self):
        super().setUp()
        self.file = self.make_file("large", 64 << 20, 16 << 20)
        self.peer = self.start_seeder(self.file)

    def ask(self, number):
        connection = connect(self.peer.address())
        self.addCleanup(connection.close)
        connection.sendall(chunk_request(self.file.hash, number))
        return connection

    def test_clients_that_take_nothing_hold_up_nobody_for_long(self):
        for number in range(8):
            receive(self.ask(number % 4), 9)  # the header has come: it is its turn, or it waits
        begin = time.monotonic()
        self.assertEqual(receive_response(self.ask(0)), (OK, self.file.chunk(0)))
        self.assertLess(time.monotonic() - begin, 10)

    def test_everybody_gets_its_chunk(self):
        clients = [(number % 4, self.ask(number % 4)) for number in range(12)]
        for number, client in reversed(clients):
            self.assertEqual(receive_response(client), (OK, self.file.chunk(number)))


if __name__ == "__main__":
    unittest.main()
