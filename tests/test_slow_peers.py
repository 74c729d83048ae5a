"""The end of a download: peers that send a byte now and then hold up nobody who
has a good peer."""

import threading
import time
import unittest

from scripted import HANG_UP, FetchCase, Scripted, lie, send
from support import LOOPBACK, OK, WAIT, Tracker, chunk_response

GOOD_SECONDS = 2    # a good peer may take for all of it,
REST_SECONDS = 1    # and for what is left when the first peer turns out to drip
EXTRA_SECONDS = 2   # that slow peers may cost
TRIES = 4           # a machine is busy now and then; a peer that holds up does so each time
BUSY_TIMES = 3      # as long as with good peers alone may be added, where that takes long
CROWD = 100


class SlowPeers(FetchCase):
    def setUp(self):
        super().setUp()
        self.over = threading.Event()
        self.dripping_since = float("inf")
        self.addCleanup(self.over.set)

    def drip(self, size, seconds, head=0):
        """Return the act that sends head bytes at once, then so many bytes at such intervals."""
        def act(peer, connection, number):
            answer = chunk_response(OK, peer.file.chunk(number))
            self.dripping_since = min(self.dripping_since, time.monotonic())
            connection.sendall(answer[:head])
            for at in range(head, len(answer), size):
                if self.over.wait(seconds):
                    return HANG_UP
                connection.sendall(answer[at:at + size])
        return act

    def all_but_the_last_byte(self, peer, connection, number):
        connection.sendall(chunk_response(OK, peer.file.chunk(number))[:-1])
        self.over.wait()
        return HANG_UP

    def assert_soon(self, seconds, fetch, fetch_alone):
        """fetch() takes less than that; it returns how long it took. So does fetch_alone(), from good
        peers: what that takes shows how busy the machine is."""
        took, limit = fetch(), seconds
        for _ in range(TRIES - 1):
            if took < limit:
                return
            limit = seconds + BUSY_TIMES * fetch_alone()
            took = fetch()
        self.assertLess(took, limit)

    def assert_not_held_up(self, *slow, of=1, held=b""):
        """With a good peer beside so many that act so, the download ends soon."""
        def fetch(*script):
            self.file.path.write_bytes(held)
            peers = [Scripted(self, self.file, *script) for _ in range(of)] + [Scripted(self, self.file)]
            start = time.monotonic()
            self.fetch_from(*peers, options=["-q"])
            return time.monotonic() - start
        self.assert_soon(GOOD_SECONDS + EXTRA_SECONDS, lambda: fetch(*slow), fetch)

    def each_way(self):
        yield "a byte each 0.3 s", self.drip(1, 0.3)
        yield "1 KiB a second", self.drip(256, 0.25)
        yield "all but the last byte", self.all_but_the_last_byte

    def test_one_of_two(self):
        for name, way in self.each_way():
            with self.subTest(way=name):
                self.file = self.describe_file(name.replace(" ", "-"), 4 << 20, 64 << 10)
                self.assert_not_held_up(way)

    def test_a_file_of_one_chunk(self):
        """It is asked of either; where the slow one has it, it is taken from that one."""
        for name, way in self.each_way():
            with self.subTest(way=name):
                self.file = self.describe_file(name.replace(" ", "-"), 1 << 20, 1 << 20)
                self.assert_not_held_up(way, of=3)

    def test_one_chunk_left(self):
        for name, way in self.each_way():
            with self.subTest(way=name):
                self.file = self.describe_file(name.replace(" ", "-"), 4 << 20, 256 << 10)
                self.assert_not_held_up(way, of=2, held=self.file.without(9))

    def test_after_a_good_chunk(self):
        for name, way in self.each_way():
            with self.subTest(way=name):
                self.file = self.describe_file(name.replace(" ", "-"), 4 << 20, 64 << 10)
                self.assert_not_held_up(send, way, of=8)

    def test_a_good_one_that_was_too_slow_twice(self):
        """Each time it had a second or more, and the others drip."""
        def too_late(peer, connection, number):
            self.over.wait(5)
            return HANG_UP
        self.file = self.describe_file("data", 1 << 20, 1 << 20)
        good = Scripted(self, self.file, too_late, too_late, send)
        self.fetch_from(*[Scripted(self, self.file, self.drip(256, 0.25)) for _ in range(3)], good, options=["-q"])
        self.assertGreater(len(good.requests), 2)

    def test_a_good_one_that_stopped_after_the_beginning(self):
        """So few bytes say nothing of how fast it is."""
        self.file = self.describe_file("data", 1 << 20, 1 << 20)
        good = Scripted(self, self.file, self.drip(1, WAIT, head=20), send)
        self.fetch_from(*[Scripted(self, self.file, self.drip(256, 0.25)) for _ in range(3)], good, options=["-q"])
        self.assertGreater(len(good.requests), 1)

    def test_one_that_takes_its_time_to_begin(self):
        """It is left for another after a moment, as long as there is one; then it is asked again.
        Who is asked first is a matter of chance, so there are several downloads at a time."""
        def begin_late(peer, connection, number):
            self.over.wait(0.1)
            send(peer, connection, number)
        started = []
        for i in range(6):
            file = self.describe_file(f"late-{i}", 1 << 20, 1 << 20)
            peers = [Scripted(self, file, self.drip(300, 0.25)) for _ in range(3)] + [Scripted(self, file, begin_late)]
            started.append((file, self.start_fetch(file, "-q", peers=[peer.address for peer in peers])))
        for file, program in started:
            self.assertEqual(program.wait(), 0, program.stderr)
            self.assert_same(file.path, file.data)

    def test_a_crowd(self):
        """A tracker names it, and the good one. Each was honest for one chunk: they are found
        out a few at a time."""
        self.file = self.describe_file("crowd", 8 << 20, 64 << 10)

        def fetch(*script):
            self.file.path.write_bytes(b"")
            self.dripping_since = float("inf") if script else time.monotonic()
            peers = [Scripted(self, self.file, *script) for _ in range(CROWD)]
            tracker = Tracker(self, *(peer.address for peer in peers), Scripted(self, self.file).address)
            self.fetch(self.file, "-q", tracker=tracker.address, me=(LOOPBACK, 65000))
            self.assert_same(self.file.path, self.file.data)
            return time.monotonic() - self.dripping_since
        self.assert_soon(REST_SECONDS + EXTRA_SECONDS, lambda: fetch(send, self.drip(1, 0.3)), fetch)

    def test_a_liar_among_them(self):
        """The liar wastes one chunk."""
        self.file = self.describe_file("liar", 4 << 20, 64 << 10)

        def fetch(lie, drip):
            self.file.path.write_bytes(b"")
            liar = Scripted(self, self.file, lie)
            start = time.monotonic()
            program = self.fetch_from(liar, Scripted(self, self.file, drip), Scripted(self, self.file), options=["-q"])
            seconds = time.monotonic() - start
            if lie != send:
                self.assertEqual(len(liar.requests), 1)
                self.assertEqual(program.stderr.count(liar.name), 1, program.stderr)
            return seconds
        self.assert_soon(GOOD_SECONDS + EXTRA_SECONDS, lambda: fetch(lie, self.drip(1, 0.3)), lambda: fetch(send, send))


if __name__ == "__main__":
    unittest.main()
