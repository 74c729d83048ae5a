"""Whose is the data file that is there already? A user's is never touched; an
interrupted download is resumed, even if not one of its chunks was verified."""

import os
import random
import signal
import unittest

from scripted import STAY, Scripted, keep_silent
from support import (LOOPBACK, OK, Case, Peer, SharedFile, Tracker, chunk_response, random_bytes, wait_until)

SIZE = 1000  # of a chunk
ZEROS = {0, 1, 5, 6, 7, 12, 20}  # chunks that are nothing but zeros


class Ours(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe(ZEROS)
        self.path = self.file.path

    def describe(self, zeros, size=20 * SIZE + 500, chunk_size=SIZE):
        data = bytearray(random_bytes(size))
        for number in zeros:
            start = number * chunk_size
            data[start:start + chunk_size] = bytes(len(data[start:start + chunk_size]))
        return SharedFile(self.scratch / "data", bytes(data), chunk_size)

    def foreign(self, size, *right):
        """Other bytes, but zeros where the file has chunks of zeros, and these chunks are right."""
        data = bytearray(random_bytes(size, "other"))
        for number in ZEROS | set(right):
            if number * SIZE < size:
                data[number * SIZE:(number + 1) * SIZE] = self.file.chunk(number)
        return bytes(data[:size])

    def assert_left_alone(self, data, *options):
        """The program says why, and what to do; nobody is asked for anything."""
        self.path.write_bytes(data)
        os.utime(self.path, (1, 1))
        peer = Peer(self, self.file)
        tracker = Tracker(self, peer.address)
        for how in (("-c", "-q"), ("-c",), ()):
            program = self.start_peer(self.file, *how, *options, peers=[peer.address], tracker=tracker.address)
            self.assertEqual(program.wait(), 1, program.stderr)
            self.assert_one_sentence(program, self.path)
            self.assertIn("--force", program.stderr)
        self.assertEqual((peer.connections, tracker.connections), ([], []))
        self.assert_same(self.path, data)
        self.assertEqual(self.path.stat().st_mtime, 1)

    def assert_used(self, data, *options):
        """It is taken for a part of the file. Return the program."""
        self.path.write_bytes(data)
        return self.assert_completed(*options)

    def assert_completed(self, *options):
        program = self.fetch(self.file, *options, peers=[Peer(self, self.file).address])
        self.assert_same(self.path, self.file.data)
        return program


class Foreign(Ours):
    def test_one_of_the_right_length(self):
        self.assert_left_alone(random_bytes(len(self.file.data), "other"))

    def test_zeros_that_match_prove_nothing(self):
        for size in (500, 1000, 1500, 12 * SIZE, len(self.file.data) - 1, len(self.file.data),
                     len(self.file.data) + 1, 2 * len(self.file.data)):
            with self.subTest(size=size):
                data = self.foreign(size)
                self.assert_left_alone(data if any(data) else data[:-1] + b"x")

    def test_whoever_checks(self):
        for jobs in (1, 2, 7):
            self.assert_left_alone(self.foreign(len(self.file.data)), "-j", jobs)

    def test_the_last_byte_alone_is_no_zero(self):
        for size in (1, 4096, 10_000, len(self.file.data)):
            with self.subTest(size=size):
                self.assert_left_alone(bytes(size - 1) + b"x")

    def test_a_hole_and_a_byte(self):
        self.path.write_bytes(b"")
        os.truncate(self.path, len(self.file.data) - 1)
        with open(self.path, "ab") as data:
            data.write(b"x")
        self.assert_left_alone(self.path.read_bytes())

    def test_a_longer_one_though_all_of_it_matches(self):
        """Nothing of ours makes a file longer: what follows is somebody's."""
        self.assert_left_alone(self.file.data + b"x")
        self.file = SharedFile(self.path, b"", SIZE)
        self.assert_left_alone(b"x")

    def test_one_chunk_of_zeros_is_all_that_is_wanted(self):
        self.file = self.describe([0], SIZE)
        self.assert_left_alone(random_bytes(SIZE, "other"))

    def test_a_byte_repeated_proves_nothing(self):
        """Erased flash memory, for example; or the newline at the end, which is the last chunk."""
        for end, chunk_size in ((b"\xff" * 5 * SIZE, SIZE), (b"\xff" * 200_000, 100_000), (b"\n", SIZE)):
            with self.subTest(end=end[:1]):
                self.file = SharedFile(self.path, random_bytes(2 * chunk_size) + end, chunk_size)
                self.assert_left_alone(random_bytes(2 * chunk_size, "other") + end)

    def test_a_few_bytes_prove_nothing(self):
        self.file = SharedFile(self.path, random_bytes(20 * SIZE) + b"</body></html>\n", SIZE)
        self.assert_left_alone(random_bytes(20 * SIZE, "other") + b"</body></html>\n")
        for chunk_size in (1, 31):
            self.file = SharedFile(self.path, random_bytes(400), chunk_size)
            self.assert_left_alone(random_bytes(300, "other") + self.file.data[300:399])

    def test_several_files_of_which_one_is_foreign(self):
        other = self.describe_file("other", 5000, SIZE)
        self.path.write_bytes(self.foreign(len(self.file.data)))
        before = self.path.read_bytes()
        peer = Peer(self, other)
        program = self.fetch([other, self.file], peers=[peer.address], status=1)
        self.assert_one_sentence(program, self.path)
        self.assertEqual(peer.connections, [])
        self.assert_same(self.path, before)


class Used(Ours):
    def test_any_chunk_that_is_not_zeros_is_proof(self):
        for number in (2, 4, 11, 19):
            for size in ((number + 1) * SIZE, len(self.file.data) - 1, len(self.file.data)):
                with self.subTest(number=number, size=size):
                    for jobs in (1, 3):
                        self.assert_used(self.foreign(size, number), "-j", jobs)

    def test_the_last_chunk_is_proof(self):
        self.file = self.describe([3])
        data = random_bytes(len(self.file.data) - 500, "other") + self.file.chunk(20)
        self.assert_used(data)

    def test_a_chunk_that_is_not_one_byte_repeated_is_proof(self):
        for chunk in (b"\xff" * 99_999 + b"\n", b"\xff" * 65_536 + b"a" * 34_464, b"a" + b"b" * 99_999):
            self.file = SharedFile(self.path, chunk + random_bytes(100_000), 100_000)
            self.assert_used(chunk)
        self.file = SharedFile(self.path, random_bytes(400), 32)
        self.assert_used(self.file.data[:32])

    def test_all_of_it_is_proof(self):
        for data, chunk_size in ((b"\xff" * 10_000, SIZE), (random_bytes(400), 1), (b"\n", 1), (b"a\n", SIZE)):
            self.file = SharedFile(self.path, data, chunk_size)
            self.assert_used(data)

    def test_a_file_of_zeros(self):
        """Of any length: somebody has made room for it."""
        for size in (1, 999, 5000, len(self.file.data), len(self.file.data) + 1, 100_000):
            with self.subTest(size=size):
                self.assert_used(bytes(size))

    def test_a_hole(self):
        for size in (1, 5000, len(self.file.data), 100_000_000):
            with self.subTest(size=size):
                self.path.unlink(missing_ok=True)
                self.path.touch()
                os.truncate(self.path, size)
                self.assert_completed()

    def test_space_that_was_taken(self):
        self.path.touch()
        with open(self.path, "r+b") as data:
            os.posix_fallocate(data.fileno(), 0, len(self.file.data))
        self.assert_completed()

    def test_what_is_all_zeros_as_it_should_be(self):
        self.file = self.describe(range(21))
        self.assert_used(bytes(len(self.file.data)))
        self.assert_used(bytes(5000))

    def test_each_chunk_is_hashed_once(self):
        """Proof that comes late: what was looked at for it counts, and isn't asked for."""
        size = 1 << 20
        self.file = SharedFile(self.scratch / "data", bytes(size) * 20 + random_bytes(size) + b"end", size)
        self.path.write_bytes(self.file.without(10, 21))
        for jobs in (1, 2, 5):
            peer = Peer(self, self.file)
            self.path.write_bytes(bytes(10 * size) + b"x" + bytes(10 * size - 1) + self.file.chunk(20) + b"END")
            self.fetch(self.file, "-j", jobs, peers=[peer.address])
            self.assertEqual(sorted(peer.requests), [21])  # chunk 10 is zeros
            self.assert_same(self.path, self.file.data)


class Force(Ours):
    def test_what_is_overwritten_is_said(self):
        data = self.foreign(len(self.file.data))
        program = self.assert_used(data, "--force")
        self.assertRegex(program.stderr, f"{self.path}: .*overwritten")

    def test_what_is_cut_is_said(self):
        for data in (self.file.data + b"more", random_bytes(50_000, "other")):
            program = self.assert_used(data, "--force")
            self.assertRegex(program.stderr, f"{self.path}: .*cut.*{len(data)}")

    def test_nothing_is_said_of_a_file_that_is_ours(self):
        for data in (b"", bytes(500), self.file.data, self.file.without(4)):
            program = self.assert_used(data, "--force")
            self.assertNotRegex(program.stderr, "overwritten|cut|force")


class Unproven(Ours):
    """Killed before one chunk was verified."""

    def interrupt(self, *peers, number=signal.SIGKILL, when=None):
        """Start to fetch, and end it when something is in the file. Return that."""
        program = self.start_fetch(self.file, peers=[peer.address for peer in peers])
        wait_until(when or (lambda: self.path.exists() and any(self.path.read_bytes()[:len(self.file.data)])),
                   "something is written")
        program.signal(number)
        program.wait()
        self.assert_leaves_nothing(program)
        return self.path.read_bytes()

    def assert_resumed(self, data):
        """However often that goes wrong."""
        self.assertNotEqual(data[:len(self.file.data)], bytes(len(self.file.data)))
        for jobs in (1, 2):
            program = self.start_fetch(self.file, "-j", jobs, peers=[self.silent().address])
            wait_until(lambda: self.silents[-1].requests or program.has_ended(), "it asks")
            self.assertFalse(program.has_ended(), program.stderr)
            program.signal(signal.SIGKILL)
            program.wait()
            self.assert_leaves_nothing(program)
            self.assert_same(self.path, data)
        program = self.assert_completed()
        self.assertNotIn("force", program.stderr)

    silents = ()

    def silent(self):
        self.silents = [*self.silents, Scripted(self, self.file, keep_silent)]
        return self.silents[-1]

    def parts(self, size):
        """A peer that sends so much of a chunk, and no more."""
        def act(peer, connection, number):
            connection.sendall(chunk_response(OK, self.file.chunk(number))[:9 + size])
            return STAY
        return Scripted(self, self.file, act)

    def test_in_the_middle_of_a_small_chunk(self):
        self.file = self.describe([])
        self.assert_resumed(self.interrupt(self.parts(400)))

    def test_in_the_middle_of_small_chunks_of_several(self):
        self.file = self.describe([], 20 * SIZE)
        peers = [self.parts(400) for _ in range(4)]
        size = SIZE

        def all_wrote():
            data = self.path.read_bytes() if self.path.exists() else b""
            return sum(any(data[n * size:(n + 1) * size]) for n in range(20)) == 4
        self.assert_resumed(self.interrupt(*peers, when=all_wrote))

    def test_in_the_middle_of_one_large_chunk(self):
        self.file = self.describe([], 20_000_000, 20_000_000)
        self.assert_resumed(self.interrupt(self.parts(9_000_000)))

    def test_in_the_middle_of_large_chunks_of_several(self):
        self.file = self.describe([], 20_000_001, 1 << 20)
        self.assert_resumed(self.interrupt(*(self.parts(900_000) for _ in range(3))))

    def test_lengths_of_all_kinds(self):
        for size in (1, 63, 64, 65, 4095, 4096, 4097, 8192):
            with self.subTest(size=size):
                self.file = self.describe([], size + 1, 1 << 20)
                self.path.unlink(missing_ok=True)
                self.assert_resumed(self.interrupt(self.parts(size)))

    def test_when_it_is_ended_kindly(self):
        self.file = self.describe([])
        self.assert_resumed(self.interrupt(self.parts(400), number=signal.SIGTERM))

    def test_chunks_that_prove_nothing_were_verified(self):
        self.file = SharedFile(self.path, b"\xff" * 5000 + random_bytes(5000), SIZE)

        def act(peer, connection, number):
            if number < 5:
                return peer.send_chunk(connection, number)
            connection.sendall(chunk_response(OK, self.file.chunk(number))[:400])
            return STAY
        self.assert_resumed(self.interrupt(*(Scripted(self, self.file, act) for _ in range(3))))

    def test_a_chunk_of_zeros_was_verified(self):
        def act(peer, connection, number):
            if number in ZEROS:
                return peer.send_chunk(connection, number)
            connection.sendall(chunk_response(OK, self.file.chunk(number))[:400])
            return STAY
        self.assert_resumed(self.interrupt(*(Scripted(self, self.file, act) for _ in range(3))))

    def test_a_wrong_chunk_was_all_that_came(self):
        self.file = self.describe([], 500_000, 100_000)

        def act(peer, connection, number):
            connection.sendall(chunk_response(OK, random_bytes(len(self.file.chunk(number)), "lie")))
        self.assert_resumed(self.interrupt(Scripted(self, self.file, act)))

    def test_what_is_written_for_another_metafile_is_not_ours(self):
        self.file = self.describe([])
        data = self.interrupt(self.parts(400))
        self.file = SharedFile(self.path, random_bytes(len(self.file.data), "new"), SIZE)
        self.assert_left_alone(data)
        self.assert_used(data, "--force")

    def test_a_forced_one_is_ours_from_then_on(self):
        self.path.write_bytes(random_bytes(50_000, "other"))
        self.file = self.describe([])
        program = self.start_fetch(self.file, "--force", peers=[self.parts(400).address])
        wait_until(lambda: any(self.file.chunk(n)[:400] in self.path.read_bytes() for n in range(21)), "it is written")
        program.signal(signal.SIGKILL)
        program.wait()
        self.assert_leaves_nothing(program)
        self.assert_resumed(self.path.read_bytes())

    def test_it_has_its_length_as_soon_as_a_chunk_is_verified(self):
        self.file = self.describe([])

        def act(peer, connection, number):
            if len(peer.requests) == 1:
                return peer.send_chunk(connection, number)
            return STAY
        peer = Scripted(self, self.file, act)
        program = self.start_fetch(self.file, peers=[peer.address])
        wait_until(lambda: len(peer.requests) > 1, "the first chunk is verified")
        wait_until(lambda: self.path.stat().st_size == len(self.file.data), "nothing follows")
        self.assertFalse(program.has_ended())

    def test_killed_at_any_moment(self):
        rng = random.Random()
        self.file = self.describe([], 3_000_000, 1_000_000)
        for _ in range(20):
            self.path.unlink(missing_ok=True)
            peer = Peer(self, self.file)
            program = self.start_fetch(self.file, peers=[peer.address])
            wait_until(lambda: peer.requests, "it asks")
            try:
                program.process.wait(rng.random() ** 2 * 0.02)
            except Exception:
                program.signal(signal.SIGKILL)
                program.wait()
            self.assert_leaves_nothing(program)
            self.assert_completed()


if __name__ == "__main__":
    unittest.main()
