"""A fetcher that is killed and started again, until everything is there; and
data files with holes.

CASCADE_KILLS is the number of kills in each test of them, CASCADE_SEED what
their moments are drawn from.
"""

import os
import random
import signal
import subprocess
import threading
import unittest

from support import Case, Peer, SharedFile, random_bytes, wait_for_end

KILLS = int(os.environ.get("CASCADE_KILLS", 15))
SEED = int(os.environ.get("CASCADE_SEED", random.randrange(1 << 32)))


class CountingPeer(Peer):
    """Puts requests and answers down for each run of the fetcher.

    A run's requests may still come out of a socket when the run is over: each
    run has its own connections, and ends with them.
    """

    def __init__(self, case, file):
        super().__init__(case, file)
        self.lock = threading.Condition()
        self.open = 0
        self.requested = []  # of this run
        self.sent, self.limit = 0, None  # whole chunks, in this run

    def begin_run(self, limit=None):
        self.requested, self.sent, self.limit = [], 0, limit

    def serve(self, connection):
        with self.lock:
            self.open += 1
        try:
            super().serve(connection)
        finally:
            with self.lock:
                self.open -= 1
                self.lock.notify_all()

    def send_chunk(self, connection, number):
        with self.lock:
            self.requested.append(number)
        if self.sent == self.limit:
            wait_for_end(connection)
            return True
        super().send_chunk(connection, number)
        with self.lock:
            self.sent += 1
            self.lock.notify_all()
        return False

    def wait_until_sent(self, count, program):
        """Wait until so many chunks were sent, or the program has ended."""
        with self.lock:
            while self.sent < count and not program.has_ended():
                self.lock.wait(0.02)

    def wait_for_end_of_run(self):
        with self.lock:
            if not self.lock.wait_for(lambda: self.open == 0, 20):
                raise AssertionError("a connection has outlived its process")


class Resuming(Case):
    def held(self, file):
        """Return the numbers of the chunks that are right in the data file."""
        data = file.path.read_bytes() if file.path.exists() else b""
        size = file.chunk_size
        return {number for number in range(file.count)
                if data[number * size:(number + 1) * size] == file.chunk(number)}

    def kill(self, program):
        """Kill it, unless it has ended, and wait for its family. Return its exit status."""
        if not program.has_ended():
            program.signal(signal.SIGKILL)
        status = program.wait()
        self.assert_leaves_nothing(program)
        return status

    def run_once(self, peer, file, options, stop, limit=None):
        """Start a fetcher, stop(program) it, and look at what it asked for.

        It may ask once for each chunk that the data file lacks, so again only
        for what was not in the file yet when it was killed. Return its exit
        status and how many it asked for. The peer sends no more than limit chunks.
        """
        held = self.held(file)
        peer.begin_run(limit)
        program = self.start_fetch(file, *options, peers=[peer.address])
        stop(program)
        status = self.kill(program)
        peer.wait_for_end_of_run()
        asked = peer.requested
        self.assertEqual(set(asked) & held, set(), "it had these chunks, and asked for them")
        self.assertEqual(len(set(asked)), len(asked), "it asked twice for one chunk")
        self.assertIn(status, (0, -signal.SIGKILL), program.stderr)
        now_held = self.held(file)
        self.assertLessEqual(held, now_held, "it lost chunks that it had")
        if status == 0:
            self.assert_same(file.path, file.data)
        for wrong in program.end():
            self.fail(wrong)
        self.assertLessEqual(now_held - held, set(asked))
        return status, len(asked)


class Kills(Resuming):
    def assert_survives_kills(self, chunk_size, per_run, *options):
        rng = random.Random(SEED)
        count = per_run * min(KILLS, 30)
        most = max(1, count * 3 // 2 // KILLS)  # that the peer sends in a run: mostly fewer
        file = SharedFile(self.scratch / "data", random_bytes(count * chunk_size + 77), chunk_size)
        peer = CountingPeer(self, file)
        status, kills = None, 0

        def stop(program):
            peer.wait_until_sent(rng.randrange(peer.limit), program)
            try:  # a moment more, which can be any
                program.process.wait(rng.random() ** 3 * 0.02)
            except subprocess.TimeoutExpired:
                pass

        while kills < KILLS and status != 0:
            status, _ = self.run_once(peer, file, options, stop, rng.randint(1, most))
            kills += 1
        self.assertEqual(self.run_once(peer, file, options, lambda program: program.wait())[0], 0)
        self.assertGreater(kills, KILLS / 2, "the file was complete too soon for a test")

    def assert_survives(self, *arguments):
        with self.subTest(seed=SEED):
            self.assert_survives_kills(*arguments)

    def test_large_chunks(self):
        self.assert_survives(50_000, 20)

    def test_chunks_of_1_kib(self):
        self.assert_survives(1024, 400, "-q")

    def test_chunks_of_1_kib_and_one_checker(self):
        self.assert_survives(1024, 400, "-j", 1)


class KilledCheck(Resuming):
    def test_kills_while_the_local_file_is_checked(self):
        rng = random.Random(SEED)
        size = 1 << 20
        file = SharedFile(self.scratch / "data", random_bytes(size) * 64 + b"end", size)
        file.path.write_bytes(file.without(40))
        peer = CountingPeer(self, file)
        peer.answer = lambda connection, number: connection.recv(1)  # the next kill ends it
        before = file.path.read_bytes()
        checking = 0
        for _ in range(KILLS):
            peer.requests.clear()
            program = self.start_fetch(file, "-j", rng.choice((1, 2, 5)), peers=[peer.address])
            try:
                program.process.wait(rng.random() * 0.04)
            except subprocess.TimeoutExpired:
                pass
            self.assertEqual(self.kill(program), -signal.SIGKILL, f"seed {SEED}")
            peer.wait_for_end_of_run()
            self.assertLessEqual(set(peer.requests), {40})
            checking += not peer.requests
            self.assertTrue(file.path.read_bytes() == before, f"the file has changed, seed {SEED}")
        self.assertGreater(checking, 0, "none was killed while it checked")
        peer.answer = peer.send_chunk
        status, asked = self.run_once(peer, file, (), lambda program: program.wait())
        self.assertEqual((status, asked), (0, 1))


class Holes(Resuming):
    """Chunks of 64 KiB; which of them are zeros is told for each test."""

    SIZE = 1 << 16

    def describe(self, zeros, count=24, tail=1000, size=SIZE):
        data = bytearray(random_bytes(count * size + tail))
        for number in zeros:
            start, end = number * size, min((number + 1) * size, len(data))
            data[start:end] = bytes(end - start)
        return SharedFile(self.scratch / "data", bytes(data), size)

    def write_sparse(self, file, numbers):
        """Write these chunks, and leave holes in the place of all others."""
        with open(file.path, "wb") as data:
            data.truncate(len(file.data))
            for number in numbers:
                data.seek(number * file.chunk_size)
                data.write(file.chunk(number))

    def assert_asked_for(self, file, numbers, *options):
        peer = Peer(self, file)
        self.fetch(file, *options, peers=[peer.address])
        self.assertEqual(sorted(peer.requests), sorted(numbers), options)
        self.assert_same(file.path, file.data)

    def assert_holes_known(self, file, written, missing):
        for jobs in (1, 2, 5):
            self.write_sparse(file, written)
            self.assert_asked_for(file, missing, "-j", jobs)

    def test_holes_that_should_be_zeros_are_held(self):
        zeros = {0, 1, 7, 8, 9, 10, 23}
        file = self.describe(zeros)
        written = set(range(file.count)) - zeros
        self.assert_holes_known(file, written, [])
        self.write_sparse(file, written)
        if os.stat(file.path).st_blocks * 512 > len(file.data) - self.SIZE:
            self.skipTest("this file system makes no holes")

    def test_holes_where_there_should_be_data_are_fetched(self):
        zeros = {0, 1, 7, 8, 9, 10, 23}
        file = self.describe(zeros)
        self.assert_holes_known(file, {3, 4, 20}, set(range(file.count)) - zeros - {3, 4, 20})

    def test_zeros_that_are_written_are_held(self):
        zeros = {0, 5, 24}
        file = self.describe(zeros)
        self.assert_holes_known(file, zeros | {1}, set(range(file.count)) - zeros - {1})

    def test_one_hole_alone(self):
        file = self.describe(range(25))
        self.assert_holes_known(file, [], [])

    def test_one_hole_that_should_be_data(self):
        file = self.describe([])
        self.assert_holes_known(file, [], range(25))

    def test_a_last_chunk_of_zeros(self):
        for tail in (0, 1, self.SIZE - 1):
            with self.subTest(tail=tail):
                last = 24 if tail else 23
                file = self.describe([last], tail=tail)
                self.assert_holes_known(file, {0}, range(1, last))

    def test_holes_that_begin_and_end_within_chunks(self):
        """Chunks that no block of a file system fits."""
        zeros = set(range(20, 60)) | {0, 100, 101, 102}
        file = self.describe(zeros, count=150, tail=1, size=1000)
        written = set(range(0, 150, 2)) - zeros
        self.assert_holes_known(file, written, set(range(151)) - zeros - written)

    def test_a_short_file_with_holes(self):
        zeros = {2, 3, 9, 15}
        file = self.describe(zeros)
        for jobs in (1, 2, 5):
            self.write_sparse(file, {5})
            os.truncate(file.path, 10 * self.SIZE + 17)
            asked = set(range(25)) - zeros - {5}
            peer = Peer(self, file)
            self.fetch(file, "-j", jobs, peers=[peer.address])
            self.assert_same(file.path, file.data)
            self.assertEqual(set(peer.requests) - {15}, asked)  # 15 is past the end: either will do

    def test_what_was_held_in_a_hole_stays_a_hole(self):
        file = self.describe(range(1, 24))
        self.write_sparse(file, {0})
        self.assert_asked_for(file, [24])
        self.assertLess(os.stat(file.path).st_blocks * 512, len(file.data) / 2)


if __name__ == "__main__":
    unittest.main()
