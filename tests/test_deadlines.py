"""The time limits of a serving peer, in real time.

All clients are at work side by side from the first test on, each in a thread; each test
waits for one of them. So the module takes little longer than its slowest client.
"""

import socket
import threading
import time
import unittest

from parent import report_of
from support import (BAD_REQUEST, NO_FILE, OK, WAIT, Case, ask_peer, chunk_request, connect, pause, receive,
                     receive_response, wait_until)

IDLE, REQUEST, FLOOR, LINGER = 30, 10, 30, 2  # seconds, as the peer has them
LATE = 3  # seconds after a time limit that count as in time
HURRY = 0.5  # seconds before it that don't count as too early: clocks start at different moments
LONG = 38  # seconds: longer than any time limit


class Ended(Exception):
    """The peer hung up."""


def wait_for_the_end(connection):
    """Read until the peer hangs up, for LONG at most. Return what came and after how long."""
    start, data = time.monotonic(), bytearray()
    connection.settimeout(LONG)
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return bytes(data), time.monotonic() - start


class Clients:
    """Each method is one client's life, and returns what its test looks at."""

    def __init__(self, address, small, huge):
        self.address, self.small, self.huge = address, small, huge

    def silent_from_the_start(self):
        with connect(self.address) as connection:
            return wait_for_the_end(connection)

    def silent_after_an_answer(self):
        with connect(self.address) as connection:
            pause(2)
            connection.sendall(chunk_request(self.small.hash, 1))
            if receive_response(connection) != (OK, self.small.chunk(1)):
                raise Ended
            return wait_for_the_end(connection)

    def silent_in_a_request(self):
        with connect(self.address) as connection:
            connection.sendall(chunk_request(self.small.hash, 1)[:40])
            return wait_for_the_end(connection)

    def silent_in_a_later_request(self):
        with connect(self.address) as connection:
            both = chunk_request(self.small.hash, 1) + chunk_request(self.small.hash, 2)
            connection.sendall(both[:70])
            if receive_response(connection) != (OK, self.small.chunk(1)):
                raise Ended
            return wait_for_the_end(connection)

    def request_in_drops(self):
        """A byte each 300 ms: a whole request would take 19 s."""
        start = time.monotonic()
        with connect(self.address) as connection:
            try:
                connection.settimeout(0.3)
                for byte in chunk_request(self.small.hash, 1):
                    connection.sendall(bytes([byte]))
                    try:
                        return connection.recv(1000), time.monotonic() - start
                    except TimeoutError:
                        pass
            except ConnectionError:
                return b"", time.monotonic() - start
            return None, time.monotonic() - start

    def slow_request_within_the_limit(self):
        """Its bytes take 8 s, which is allowed: twice in a row."""
        with connect(self.address) as connection:
            for number in (1, 2):
                request = chunk_request(self.small.hash, number)
                for start in range(0, 64, 8):
                    connection.sendall(request[start:start + 8])
                    if start < 56:
                        pause(8 / 7)
                if receive_response(connection) != (OK, self.small.chunk(number)):
                    raise Ended
        return True

    def rare_requests(self):
        """The next one each time begins 17 s after the last answer."""
        with connect(self.address) as connection:
            for number in range(3):
                if number > 0:
                    pause(17)
                connection.sendall(chunk_request(self.small.hash, number))
                if receive_response(connection) != (OK, self.small.chunk(number)):
                    raise Ended
        return True

    def asks_now_and_then(self):
        """Return how long it had to wait for an answer at most, while all others lived."""
        slowest, begin = 0, time.monotonic()
        while (start := time.monotonic()) - begin < FLOOR:
            if ask_peer(self.address, chunk_request(self.small.hash, 3)) != (OK, self.small.chunk(3)):
                raise Ended
            slowest = max(slowest, time.monotonic() - start)
            pause(0.5)
        return slowest

    def begin_chunk(self, buffer=None):
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(WAIT)
        connection.connect(self.address)
        connection.sendall(chunk_request(self.huge.hash, 0))
        if len(receive(connection, 9)) != 9:
            raise Ended
        return connection

    def reads_nothing(self):
        """Its child must be gone in time; what lies in the sockets comes all the same."""
        with self.begin_chunk(4096) as connection:
            address = connection.getsockname()
            start = time.monotonic()
            pause(FLOOR / 2)
            early = self.is_served(address)
            wait_until(lambda: not self.is_served(address), "it is left", LONG - FLOOR / 2)
            return early, time.monotonic() - start

    def reads_in_drops(self):
        """Some bytes a second."""
        with self.begin_chunk(4096) as connection:
            address = connection.getsockname()
            start = time.monotonic()
            while self.is_served(address) and time.monotonic() - start < LONG:
                try:
                    connection.recv(20)
                except ConnectionError:
                    break
                pause(0.2)
            return time.monotonic() - start

    def read_at(self, rate, seconds, buffer):
        """Take the chunk at that rate for so long, and then all at once: it must come whole."""
        with self.begin_chunk(buffer) as connection:
            got, start = 0, time.monotonic()
            while (now := time.monotonic() - start) < seconds:
                if got < now * rate:
                    got += len(self.recv(connection, max(64, rate // 10)))
                else:
                    pause(0.02)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            while got < len(self.huge.data):
                got += len(self.recv(connection, 1 << 20))
        return got

    @staticmethod
    def recv(connection, size):
        piece = connection.recv(size)
        if not piece:
            raise Ended
        return piece

    def reads_at_4_KiB_a_second(self):
        return self.read_at(4 << 10, FLOOR + 4, 4096)

    def reads_at_4_KiB_a_second_into_a_large_buffer(self):
        return self.read_at(4 << 10, FLOOR + 4, None)

    def stays_after_a_refusal(self):
        with connect(self.address) as connection:
            connection.sendall(chunk_request(bytes(32), 1))
            status = receive_response(connection)[0]
            start = time.monotonic()
            address = connection.getsockname()
            wait_until(lambda: not self.is_served(address), "it is left", LONG)
            return status, time.monotonic() - start

    def talks_on_after_a_refusal(self):
        with connect(self.address) as connection:
            connection.sendall(chunk_request(bytes(32), 1))
            status = receive_response(connection)[0]
            start = time.monotonic()
            try:
                while time.monotonic() - start < LONG:
                    connection.sendall(bytes(1000))
                    pause(0.1)
            except ConnectionError:
                pass
            return status, time.monotonic() - start


class Deadlines(Case):
    @classmethod
    def setUpClass(cls):
        cls.frame = Case()  # what all tests share ends with the class
        cls.frame.setUp()
        cls.addClassCleanup(cls.frame.doCleanups)
        small = cls.frame.make_file("small", 10_500, 1000)
        cls.huge = cls.frame.make_file("huge", 24 << 20, 24 << 20)
        cls.peer = cls.frame.start_seeder(small, cls.huge)
        cls.clients = Clients(cls.peer.address(), small, cls.huge)
        cls.clients.is_served = cls.is_served
        cls.served, cls.stop_looking = set(), threading.Event()
        cls.looked = threading.Event()
        cls.results, cls.threads = {}, {}
        looking = threading.Thread(target=cls.look, daemon=True)
        looking.start()
        cls.addClassCleanup(looking.join, WAIT)
        cls.addClassCleanup(cls.stop_looking.set)
        for name in dir(Clients):
            if name[0] != "_" and name not in ("begin_chunk", "read_at", "recv"):
                cls.threads[name] = threading.Thread(target=cls.live, args=(name,), daemon=True)
                cls.threads[name].start()

    @classmethod
    def live(cls, name):
        try:
            cls.results[name] = getattr(cls.clients, name)()
        except Exception as error:
            cls.results[name] = error

    @classmethod
    def look(cls):
        """Ask the peer again and again for its clients."""
        while not cls.stop_looking.wait(0.2):
            cls.served = set(report_of(cls.peer)[1])
            cls.looked.set()

    @classmethod
    def is_served(cls, address):
        """Whether the peer has a child for the client, by a look that begins now."""
        for _ in range(2):  # the one under way may have begun before
            cls.looked.clear()
            cls.looked.wait(WAIT)
        return address in cls.served

    def result(self, name):
        self.threads[name].join(LONG + 5)
        self.assertIn(name, self.results, "it takes too long")
        result = self.results[name]
        if isinstance(result, Exception):
            self.fail(f"{type(result).__name__}: {result}")
        return result

    def assert_in_time(self, seconds, limit):
        self.assertTrue(limit - HURRY < seconds < limit + LATE, f"{seconds:.1f} s, not {limit}")

    def assert_left_without_a_word(self, name):
        data, seconds = self.result(name)
        self.assertEqual(data, b"")
        self.assert_in_time(seconds, IDLE)

    def assert_told_in_time(self, name):
        answer, seconds = self.result(name)
        self.assertEqual(answer[0], BAD_REQUEST)
        self.assert_line(answer[9:])
        self.assertEqual(int.from_bytes(answer[1:9], "big"), len(answer) - 9)
        self.assert_in_time(seconds, REQUEST)

    def assert_left_after_a_refusal(self, name):
        status, seconds = self.result(name)
        self.assertEqual(status, NO_FILE)
        self.assert_in_time(seconds, LINGER)

    def test_a_client_that_says_nothing_is_left_after_30_s(self):
        self.assert_left_without_a_word("silent_from_the_start")

    def test_a_client_that_says_nothing_more_is_left_30_s_after_its_answer(self):
        self.assert_left_without_a_word("silent_after_an_answer")

    def test_a_request_that_stops_is_status_4_after_10_s(self):
        self.assert_told_in_time("silent_in_a_request")

    def test_a_request_that_stops_behind_another_is_status_4_after_10_s(self):
        self.assert_told_in_time("silent_in_a_later_request")

    def test_a_request_in_drops_is_status_4_10_s_after_its_first(self):
        self.assert_told_in_time("request_in_drops")

    def test_a_request_of_8_s_is_answered(self):
        self.assertTrue(self.result("slow_request_within_the_limit"))

    def test_requests_17_s_apart_are_answered(self):
        self.assertTrue(self.result("rare_requests"))

    def test_a_client_that_reads_nothing_is_left_after_30_s(self):
        early, seconds = self.result("reads_nothing")
        self.assertTrue(early, "it was left too early")
        self.assert_in_time(seconds, FLOOR)

    def test_a_client_that_reads_in_drops_is_left_after_30_s(self):
        self.assert_in_time(self.result("reads_in_drops"), FLOOR)

    def test_4_KiB_a_second_are_enough(self):
        self.assertEqual(self.result("reads_at_4_KiB_a_second"), len(self.huge.data))

    def test_4_KiB_a_second_are_enough_with_a_large_buffer(self):
        self.assertEqual(self.result("reads_at_4_KiB_a_second_into_a_large_buffer"), len(self.huge.data))

    def test_a_client_that_stays_after_a_refusal_is_left_after_2_s(self):
        self.assert_left_after_a_refusal("stays_after_a_refusal")

    def test_a_client_that_talks_on_after_a_refusal_is_left_after_2_s(self):
        self.assert_left_after_a_refusal("talks_on_after_a_refusal")

    def test_others_are_served_meanwhile(self):
        self.assertLess(self.result("asks_now_and_then"), LATE)

    def test_z_all_are_gone_at_the_end(self):
        for thread in self.threads.values():
            thread.join(LONG + 5)
        wait_until(lambda: not self.peer.children(), "no child is left")


if __name__ == "__main__":
    unittest.main()
