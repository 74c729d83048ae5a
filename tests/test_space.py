"""Where a data file can't be written: a full disk, missing rights, what is no file.

The full disk is a file system in memory, mounted where only the tested program
and a helper see it; it goes with the helper. That needs root, and Linux.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
import unittest
from pathlib import Path

from scripted import STAY, Scripted, keep_silent, send_and_hang_up
from support import (LOOPBACK, OK, PROGRAMS, SUBSCRIBE, WAIT, Case, Peer, Tracker, ask_peer, chunk_request,
                     chunk_response, tracker_response, wait_until)

KIB = 1024


class Disk:
    """A file system of that many KiB, mounted at path in a namespace of its own."""

    def __init__(self, case, path, kib):
        path.mkdir()
        script = 'mount -t tmpfs -o size=$1k none "$2" && echo mounted && exec cat'
        try:
            self.holder = subprocess.Popen(
                ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(kib), path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            case.skipTest(f"no unshare: {error}")
        case.addCleanup(self.close)
        if self.holder.stdout.readline() != b"mounted\n":
            case.skipTest(f"nothing can be mounted: {self.holder.stderr.read().decode().strip()}")
        self.inside = ["nsenter", "-t", str(self.holder.pid), "-m"]
        self.path = path
        self.seen = Path(f"/proc/{self.holder.pid}/root{path}")  # the same from outside

    def remount(self, options):
        subprocess.run([*self.inside, "mount", "-o", f"remount,{options}", self.path], check=True, timeout=10)

    def close(self):
        self.holder.stdin.close()  # which ends cat, and so the mount
        self.holder.wait(10)
        self.holder.stdout.close()
        self.holder.stderr.close()


class Full(Case):
    def setUp(self):
        super().setUp()
        if shutil.which("unshare") is None or shutil.which("nsenter") is None or os.geteuid() != 0:
            self.skipTest("a file system can only be mounted by root, with unshare and nsenter")
        self.disk = Disk(self, self.scratch / "disk", 4096)
        self.lock = threading.Lock()
        self.file = self.describe_file("data", 3000 * KIB + 5, 16 * KIB)
        self.path = self.disk.path / "copy"
        self.seen = self.disk.seen / "copy"

    def start_inside(self, *options, peer):
        return self.start([*self.disk.inside, PROGRAMS / "cascade", *options, "-o", self.path,
                           "--peer", peer.name, self.file.metafile_path, "-", f"{LOOPBACK}:0"])

    def fill(self):
        """Leave room for 1024 KiB, once."""
        with self.lock:
            ballast = self.disk.seen / "ballast"
            if not ballast.exists():
                ballast.write_bytes(bytes((4096 - 1024) * KIB))

    def filling(self, peer):
        """The peer, which fills the disk when it is asked for the first chunk."""
        answer = peer.answer

        def fill_and_answer(connection, number):
            self.fill()
            return answer(connection, number)
        peer.answer = fill_and_answer
        return peer

    def one_by_one(self):
        """A peer that is asked for a chunk when the one before is verified: it closes each time."""
        return self.filling(Scripted(self, self.file, send_and_hang_up))

    def held(self):
        data, size = self.seen.read_bytes(), self.file.chunk_size
        return {n for n in range(self.file.count) if data[n * size:(n + 1) * size] == self.file.chunk(n)}

    def assert_told(self, program, before):
        """One sentence, with the path and what is missing; before: of that file, some sentences."""
        lines = [line for line in program.stderr.splitlines()
                 if not line.endswith(" to fetch") and ": downloading: " not in line]
        self.assertEqual(len(lines), 1 + before, program.stderr)
        self.assertIn(str(self.path), lines[-1])
        self.assertIn("No space left on device", lines[-1])
        told = re.search(r"\b(\d+) bytes", lines[-1])
        self.assertIsNotNone(told, lines[-1])
        missing = sum(len(self.file.chunk(n)) for n in set(range(self.file.count)) - self.held())
        # What had just come may not have been verified yet.
        self.assertGreaterEqual(int(told[1]), missing, lines[-1])
        self.assertLess(int(told[1]), len(self.file.data), lines[-1])
        return int(told[1])

    def complete_with_more_room(self, held):
        """The rest fits now, and is all that is fetched."""
        self.disk.remount("size=8m")
        peer = Peer(self, self.file)
        program = self.start_inside("-c", peer=peer)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertEqual(sorted(peer.requests), sorted(set(range(self.file.count)) - held))
        self.assertTrue(self.seen.read_bytes() == self.file.data)

    def test_what_does_not_fit_is_not_begun(self):
        self.fill()
        for held in (0, 1):
            with self.subTest(held=held):
                peer = Peer(self, self.file)
                self.seen.write_bytes(self.file.data[:held * 16 * KIB])
                program = self.start_inside("-c", peer=peer)
                self.assertEqual(program.wait(), 3, program.stderr)
                line, = program.stderr.splitlines()
                self.assertRegex(line, "%s: %d bytes are missing, which is [0-9]+ more than there is room for; "
                                 "nothing is fetched: No space left on device$"
                                 % (self.path, len(self.file.data) - held * 16 * KIB))
                self.assertEqual(peer.connections, [])

    def test_blocks_that_the_file_has_count(self):
        with open(self.seen, "wb") as data:
            os.posix_fallocate(data.fileno(), 0, len(self.file.data))
        (self.disk.seen / "ballast").write_bytes(bytes(1000 * KIB))
        program = self.start_inside("-c", peer=Peer(self, self.file))
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertTrue(self.seen.read_bytes() == self.file.data)

    def test_two_files_that_fit_only_one_by_one(self):
        other = self.describe_file("other", 2000 * KIB, 16 * KIB)
        peers = [Peer(self, file) for file in (self.file, other)]
        tracker = Tracker(self, peers[0].address)
        program = self.start([*self.disk.inside, PROGRAMS / "cascade", "-c",
                              "-o", f"{self.path}:{self.disk.path / 'other'}",
                              f"{self.file.metafile_path}:{other.metafile_path}", tracker.name, f"{LOOPBACK}:0"])
        self.assertEqual(program.wait(), 3, program.stderr)
        self.assertIn("other: 2048000 bytes are missing", program.stderr)
        self.assertTrue(self.seen.read_bytes() == self.file.data)
        self.assertEqual(peers[1].connections, [])

    def test_a_full_disk(self):
        peer = self.filling(Peer(self, self.file))
        program = self.start_inside("-c", peer=peer)
        self.assertEqual(program.wait(), 3, program.stderr)
        self.assert_told(program, before=0)
        held = self.held()
        self.assertGreater(len(held), 900 // 16, "the disk has room for 1024 KiB")
        self.assertEqual(self.seen.stat().st_size, len(self.file.data))

        # Nothing has changed: it fails again, and fetches nothing that it holds.
        peer = Peer(self, self.file)
        program = self.start_inside("-c", peer=peer)
        self.assertEqual(program.wait(), 3, program.stderr)
        self.assert_told(program, before=0)
        self.assertEqual(set(peer.requests) & held, set())
        self.assertLessEqual(held, self.held())
        self.complete_with_more_room(self.held())

    def test_a_full_disk_and_large_chunks(self):
        """Chunks that go from the socket to the file without being looked at."""
        self.file = self.describe_file("large", 3000 * KIB + 5, 200 * KIB)
        program = self.start_inside("-c", peer=self.filling(Peer(self, self.file)))
        self.assertEqual(program.wait(), 3, program.stderr)
        self.assert_told(program, before=0)
        held = self.held()
        self.assertGreater(len(held), 3)
        self.complete_with_more_room(held)

    def test_the_bytes_still_needed_are_exact_when_all_is_verified(self):
        peer = self.one_by_one()
        program = self.start_inside("-c", peer=peer)
        self.assertEqual(program.wait(), 3, program.stderr)
        told = self.assert_told(program, before=0)
        self.assertEqual(told, sum(len(self.file.chunk(n))
                                   for n in set(range(self.file.count)) - self.held()))

    def test_a_serving_peer_goes_on_serving_what_it_holds(self):
        program = self.start_inside(peer=self.one_by_one())
        program.says("the fetcher has ended")
        self.assertIn(f"{self.path}: can't be written", program.stderr)
        self.assertIn("No space left on device", program.stderr)
        held = self.held()
        self.assertGreater(len(held), 20)
        for number in range(self.file.count):
            status, body = ask_peer(program.address(), chunk_request(self.file.hash, number))
            self.assertEqual(status, 0 if number in held else 2, number)
            self.assertTrue(status == 2 or body == self.file.chunk(number))
        program.signal(signal.SIGTERM)
        self.assertEqual(program.wait(), 3)  # the disk was full

    def test_what_was_written_at_last_is_announced(self):
        """The first chunk is found right when another can't be written; a second file goes on."""
        file = self.describe_file("two", 1050 * KIB, 950 * KIB)
        other = self.describe_file("other", 5000, 1000)
        most, asked, both = 900 * KIB, threading.Barrier(3), threading.Barrier(3)

        def answer(peer, connection, number):
            self.fill()
            response = chunk_response(OK, file.chunk(number))
            asked.wait(WAIT)
            if number == 0:
                connection.sendall(response[:most])
            both.wait(WAIT)
            connection.sendall(response[most if number == 0 else 0:])
            both.wait(WAIT)
            return STAY

        def name_peers(connection, command):
            known = tracker.requests[-1][1] == file.hash
            connection.sendall(tracker_response(0, b"".join(tracker.entries if known else [])))

        tracker = Tracker(self, *(Scripted(self, file, answer).address for _ in range(2)), answer=name_peers)
        program = self.start([*self.disk.inside, PROGRAMS / "cascade",
                              "-o", f"{self.path}:{self.disk.path / 'other'}",
                              f"{file.metafile_path}:{other.metafile_path}", tracker.name, f"{LOOPBACK}:0"])
        asked.wait(WAIT)
        wait_until(lambda: self.seen.stat().st_blocks * 512 >= most - 9 - 4096, "the most of it is written")
        fetcher, = (process.pid for process in program.children())  # nothing is held, so nothing subscribed
        os.kill(fetcher, signal.SIGSTOP)
        both.wait(WAIT)
        both.wait(WAIT)
        os.kill(fetcher, signal.SIGCONT)
        program.says("No space left on device")
        wait_until(lambda: (SUBSCRIBE, file.hash) in [request[:2] for request in tracker.requests],
                   "it subscribes", 5)

    def test_a_disk_that_may_only_be_read(self):
        peer = Peer(self, self.file)
        self.disk.remount("ro")
        program = self.start_inside("-c", peer=peer)
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, self.path)
        self.assertIn("Read-only file system", program.stderr)
        self.assertEqual(peer.connections, [])

    def test_an_incomplete_file_on_a_disk_that_may_only_be_read(self):
        peer = Peer(self, self.file)
        self.seen.write_bytes(self.file.data[:500 * KIB])
        self.disk.remount("ro")
        program = self.start_inside("-c", "-q", peer=peer)
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, self.path)
        self.assertIn(f" {len(self.file.data) - 500 // 16 * 16 * KIB} bytes", program.stderr)
        self.assertEqual(peer.connections, [])
        self.assertEqual(self.seen.stat().st_size, 500 * KIB)


class Length(Case):
    def test_a_file_has_its_length_at_once_and_takes_no_space(self):
        file = self.describe_file("data", 3_000_000, 50_000)
        silent = Scripted(self, file, keep_silent)
        program = self.start_fetch(file, peers=[silent.address])
        wait_until(lambda: silent.requests, "it asks")
        found = file.path.stat()
        self.assertEqual(found.st_size, 3_000_000)
        self.assertLess(found.st_blocks * 512, 300_000)
        self.assertFalse(program.has_ended())

    def test_a_short_file_gets_its_length_at_once(self):
        file = self.describe_file("data", 3_000_000, 50_000)
        file.path.write_bytes(file.data[:60_000])
        silent = Scripted(self, file, keep_silent)
        self.start_fetch(file, peers=[silent.address])
        wait_until(lambda: silent.requests, "it asks")
        self.assertEqual(file.path.stat().st_size, 3_000_000)
        self.assertLess(file.path.stat().st_blocks * 512, 400_000)

    def test_a_limit_to_what_may_be_written(self):
        """What is on the disk stays; a length beyond the limit is said before anybody is asked."""
        file = self.describe_file("data", 300_000, 1000)
        file.path.write_bytes(file.data[:50_000])
        peer = Peer(self, file)
        program = self.start(["sh", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$0" "$@"',
                              PROGRAMS / "cascade", "-q", "-c", "--peer", peer.name,
                              file.metafile_path, "-", f"{LOOPBACK}:0"])
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, file.path)
        self.assertIn("File too large", program.stderr)
        self.assertEqual(peer.connections, [])
        self.assert_same(file.path, file.data[:50_000])


class Refused(Case):
    """Whatever can't be a data file: said before anybody is asked for anything."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 30_000, 1000)
        self.peer = Peer(self, self.file)
        self.tracker = Tracker(self, self.peer.address)
        self.command = [PROGRAMS / "cascade"]
        self.somebody = {}

    def be_somebody(self):
        """Run the program as who may not do everything."""
        if os.geteuid() == 0:
            self.command = [shutil.copy(PROGRAMS / "cascade", self.scratch)]
            self.somebody = {"user": 65534, "group": 65534, "extra_groups": []}
            self.scratch.chmod(0o755)

    def assert_refused(self, path, words):
        for options in (("-c",), ()):
            program = self.start([*self.command, "-q", *options, "--peer", self.peer.name, "-o", path,
                                  self.file.metafile_path, self.tracker.name, f"{LOOPBACK}:0"],
                                 **self.somebody)
            self.assertEqual(program.wait(), 1, f"{program}\n{program.stderr}")
            self.assert_one_sentence(program, path)
            self.assertIn(words, program.stderr)
        self.assert_nobody_was_asked()

    def assert_nobody_was_asked(self):
        self.assertEqual((self.peer.connections, self.tracker.connections), ([], []))

    def test_a_missing_folder(self):
        self.assert_refused(self.scratch / "absent" / "copy", "No such file or directory")

    def test_a_file_in_place_of_a_folder(self):
        (self.scratch / "note").write_bytes(b"!")
        self.assert_refused(self.scratch / "note" / "copy", "Not a directory")

    def test_a_folder_in_place_of_the_file(self):
        (self.scratch / "folder").mkdir()
        self.assert_refused(self.scratch / "folder", "Is a directory")

    def test_a_fifo(self):
        os.mkfifo(self.scratch / "fifo")
        self.assert_refused(self.scratch / "fifo", "not a regular file")

    def test_a_link_to_nowhere(self):
        (self.scratch / "link").symlink_to("absent/copy")
        self.assert_refused(self.scratch / "link", "No such file or directory")

    def test_links_in_a_circle(self):
        (self.scratch / "link").symlink_to("link")
        self.assert_refused(self.scratch / "link", "Too many levels")

    def test_a_name_that_is_too_long(self):
        self.assert_refused(self.scratch / ("x" * 300), "File name too long")

    def test_a_folder_that_nothing_can_be_made_in(self):
        self.be_somebody()
        folder = self.scratch / "folder"
        folder.mkdir()
        folder.chmod(0o555)
        self.assert_refused(folder / "copy", "Permission denied")

    def test_a_file_that_may_not_be_read(self):
        self.be_somebody()
        self.file.path.write_bytes(self.file.without(3))
        self.file.path.chmod(0)
        self.assert_refused(self.file.path, "Permission denied")

    def test_an_incomplete_file_that_may_only_be_read(self):
        self.be_somebody()
        self.file.path.write_bytes(self.file.without(3, 29))
        self.file.path.chmod(0o444)
        program = self.start([*self.command, "-q", "-c", "--peer", self.peer.name,
                              self.file.metafile_path, self.tracker.name, f"{LOOPBACK}:0"],
                             **self.somebody)
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, self.file.path)
        self.assertIn(" 2000 bytes ", program.stderr)
        self.assert_nobody_was_asked()
        self.assert_same(self.file.path, self.file.without(3, 29))

    def test_one_of_two_files(self):
        """Then the other is not fetched either."""
        other = self.describe_file("other", 5000, 1000)
        missing = self.scratch / "absent" / "copy"
        program = self.fetch([other, self.file], "-q", "-o", f"{other.path}:{missing}",
                             peers=[self.peer.address], tracker=self.tracker.address, status=1)
        self.assert_one_sentence(program, missing)
        self.assert_nobody_was_asked()


if __name__ == "__main__":
    unittest.main()
