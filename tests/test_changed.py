"""Files that somebody else writes to while the program runs: the metafile, the
data file. And the last error that a written file can have: that of its close."""

import contextlib
import os
import shutil
import resource
import signal
import threading
import unittest
from pathlib import Path

from scripted import HANG_UP, Scripted
from support import (LOOPBACK, NO_CHUNK_YET, NO_FILE, OK, PROGRAMS, Case, Peer, Tracker, ask_peer,
                     chunk_request, connect, make_metafile, random_bytes, receive_response, tracker_entry,
                     tracker_response, wait_for_chunks, wait_until)


def edit(path, offset=0, data=b"edited"):
    """Write these bytes into the file, in place, later than whoever wrote to it last."""
    clock = Path(f"{path}.clock")
    before = path.stat().st_mtime_ns

    def has_gone_on():
        clock.touch()
        return clock.stat().st_mtime_ns > before

    wait_until(has_gone_on, "the clock has gone on")
    clock.unlink()
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


class Metafile(Case):
    """Of 300 chunks, whose hashes are not all read at once."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 300_000, 1000)
        self.new = make_metafile(random_bytes(300_000, "new"), 1000)

    def rewrite(self):
        edit(self.file.metafile_path, 0, self.new)

    def change_after(self, count, change, then=None):
        """A peer before whose answer number `count` that happens."""
        def answer(peer, connection, number):
            if len(peer.requests) == count:
                change()
            peer.send_chunk(connection, number)
            return then
        return Scripted(self, self.file, answer)

    def assert_noticed(self, program, words):
        self.assertEqual(program.stderr.count(f"{self.file.metafile_path}: {words}"), 1, program.stderr)
        self.assertNotIn("wrong chunk", program.stderr)
        self.assertNotIn("not asked again", program.stderr)
        self.assertNotIn(f"{self.file.path}: was cut", program.stderr)

    def test_rewritten_while_it_fetches(self):
        for then in (None, HANG_UP):
            peer = self.change_after(20, self.rewrite, then)
            program = self.fetch(self.file, "-v", "-o", f"copy-{then}", peers=[peer.address], status=1)
            self.assert_noticed(program, "was changed")
            self.file.metafile_path.write_bytes(self.file.metafile)

    def test_rewritten_while_it_fetches_and_serves(self):
        peer = self.change_after(20, self.rewrite, HANG_UP)
        program = self.start_peer(self.file, peers=[peer.address])
        program.says("the fetcher has ended")
        self.assert_noticed(program, "was changed")
        self.assertEqual(ask_peer(program.address(), chunk_request(self.file.hash, 0))[0], NO_FILE)

    def test_rewritten_while_it_serves(self):
        self.file.path.write_bytes(self.file.data)
        seeder = self.start_seeder(self.file)
        self.rewrite()
        for _ in range(3):
            self.assertEqual(ask_peer(seeder.address(), chunk_request(self.file.hash, 0))[0], NO_FILE)
        wait_until(lambda: "was changed" in seeder.stderr, "it is said")
        self.assert_noticed(seeder, "was changed")

    def test_cut_while_it_fetches(self):
        peer = self.change_after(20, lambda: os.truncate(self.file.metafile_path, 64 + 32 * 10), HANG_UP)
        program = self.fetch(self.file, peers=[peer.address], status=1)
        self.assert_noticed(program, "was changed")

    def test_other_files_are_fetched_all_the_same(self):
        other = self.describe_file("other", 50_000, 1000)
        peers = {self.file.hash: self.change_after(20, self.rewrite, HANG_UP), other.hash: Peer(self, other)}

        def answer(connection, command):
            entry = tracker_entry(peers[tracker.requests[-1][1]].address)
            connection.sendall(tracker_response(0, entry))

        tracker = Tracker(self, answer=answer)
        program = self.fetch([self.file, other], tracker=tracker.address, status=1)
        self.assert_noticed(program, "was changed")
        self.assert_same(other.path, other.data)

    def test_touched_linked_and_replaced_it_is_the_same(self):
        """What was opened still holds the same bytes."""
        path = self.file.metafile_path

        def replace():
            new = self.scratch / "new"
            new.write_bytes(self.new)
            new.rename(path)

        for change in (lambda: os.utime(path), lambda: path.chmod(0o600),
                       lambda: os.link(path, self.scratch / "link"),
                       lambda: edit(path, 0, self.file.metafile), replace):
            peer = self.change_after(20, change, HANG_UP)
            self.fetch(self.file, peers=[peer.address])
            self.assert_same(self.file.path, self.file.data)
            self.file.path.unlink()

    def test_touched_while_it_serves(self):
        self.file.path.write_bytes(self.file.data)
        seeder = self.start_seeder(self.file)
        os.utime(self.file.metafile_path, (1, 1))
        wait_for_chunks(seeder.address(), self.file, range(0, 300, 50))


class DataFile(Case):
    """Of chunks that are copied into the answer, and of one that goes by sendfile."""

    def setUp(self):
        super().setUp()
        self.small = self.make_file("small", 20_000, 1000)
        self.large = self.make_file("large", 500_000, 100_000)

    def files(self):
        for file in (self.small, self.large):
            with self.subTest(file.path.name):
                yield file

    def assert_stopped(self, program, file, times=3):
        """Told to clients with status 1 and a line, and once to the user."""
        for number in range(times):
            status, message = ask_peer(program.address(), chunk_request(file.hash, number))
            self.assertEqual(status, NO_FILE, message)
            self.assertRegex(message, rb"^[ -~]{10,}\n$")
        wait_until(lambda: f"{file.path}: was changed" in program.stderr, "it is said")
        self.assertEqual(program.stderr.count("was changed"), 1, program.stderr)

    def change_bytes(self, path):
        edit(path, 3)

    def assert_noticed(self, change, *options):
        for file in self.files():
            seeder = self.start_seeder(file)
            change(file.path)
            self.assert_stopped(seeder, file)
            file.path.write_bytes(file.data)

    def test_edited_in_place(self):
        self.assert_noticed(self.change_bytes)

    def test_made_longer(self):
        self.assert_noticed(lambda path: edit(path, path.stat().st_size))

    def test_cut_and_written_anew(self):
        self.assert_noticed(lambda path: path.write_bytes(path.read_bytes()[::-1]))

    def test_touched(self):
        """Who touches a file says that it is new."""
        self.assert_noticed(lambda path: os.utime(path))

    def test_edited_while_it_is_checked(self):
        file = self.make_file("long", 100_000_000, 10_000)
        peer = self.start_peer(file)
        wait_for_chunks(peer.address(), file, [0])
        for process in peer.children():
            with contextlib.suppress(ProcessLookupError):  # a child, whose client has gone
                os.kill(process.pid, signal.SIGSTOP)
        os.utime(file.path)
        self.assert_stopped(peer, file)
        for process in peer.children("T"):
            os.kill(process.pid, signal.SIGCONT)

    def test_edited_while_a_client_is_connected(self):
        for file in self.files():
            seeder = self.start_seeder(file)
            with connect(seeder.address()) as client:
                client.sendall(chunk_request(file.hash, 1) * 2)
                for _ in range(2):
                    self.assertEqual(receive_response(client), (OK, file.chunk(1)))
                self.change_bytes(file.path)
                client.sendall(chunk_request(file.hash, 0))
                status, message = receive_response(client)
                self.assertEqual((status, message[-1:]), (NO_FILE, b"\n"), message)
            self.assert_stopped(seeder, file)

    def test_edited_and_asked_for_behind_what_is_refused(self):
        absent = self.describe_file("absent", 2000, 1000)
        for file in self.files():
            seeder = self.start_peer([absent, file])
            wait_for_chunks(seeder.address(), file, [0])
            with connect(seeder.address()) as client:
                client.sendall(chunk_request(file.hash, 0))
                self.assertEqual(receive_response(client), (OK, file.chunk(0)))
                self.change_bytes(file.path)
                client.sendall(chunk_request(absent.hash, 0) + chunk_request(file.hash, 0))
                self.assertEqual(receive_response(client)[0], NO_CHUNK_YET)
                self.assertEqual(receive_response(client)[0], NO_FILE)
            self.end(seeder)

    def test_a_peer_that_has_lost_its_file_does_not_end_with_success(self):
        seeder = self.start_seeder(self.small)
        self.change_bytes(self.small.path)
        self.assert_stopped(seeder, self.small)
        seeder.signal(signal.SIGTERM)
        self.assertEqual(seeder.wait(), 1)
        self.assertIn(f"{self.small.path}: ended; it was given up before", seeder.stderr)

    def test_replaced_or_removed_it_is_said_once(self):
        def replace(path):
            new = self.scratch / "new"
            shutil.copyfile(path, new)
            new.rename(path)

        for file, change, words in ((self.small, replace, "another file"),
                                    (self.large, os.unlink, "No such file or directory")):
            seeder = self.start_seeder(file)
            change(file.path)
            for number in range(3):
                self.assertEqual(ask_peer(seeder.address(), chunk_request(file.hash, number))[0], NO_FILE)
            seeder.says(words)
            lines = [line for line in seeder.stderr.splitlines() if "not served" in line]
            self.assertEqual(len(lines), 1, lines)
            self.assertRegex(lines[0], rf"^cascade: child\[\d+\]: {file.path}: .*{words}.* not served")

    def test_one_of_two_files(self):
        seeder = self.start_seeder(self.small, self.large)
        self.change_bytes(self.small.path)
        self.assert_stopped(seeder, self.small)
        wait_for_chunks(seeder.address(), self.large, range(5))
        with connect(seeder.address()) as client:  # open, while the other was asked for
            client.sendall(chunk_request(self.large.hash, 0))
            self.assertEqual(receive_response(client), (OK, self.large.chunk(0)))
            self.change_bytes(self.large.path)
            client.sendall(chunk_request(self.large.hash, 0))
            self.assertEqual(receive_response(client)[0], NO_FILE)

    def test_chmod_and_links_change_no_byte(self):
        for file in self.files():
            seeder = self.start_seeder(file)
            file.path.chmod(0o640)
            os.link(file.path, f"{file.path}.link")
            wait_for_chunks(seeder.address(), file, range(file.count))
            self.assertNotIn("changed", seeder.stderr)

    def test_edited_with_the_time_set_back(self):
        """Then a chunk is hashed before it is sent."""
        for file in self.files():
            seeder = self.start_seeder(file)
            before = file.path.stat()
            self.change_bytes(file.path)
            os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
            for number in range(file.count):
                self.assert_not_deceived(seeder.address(), file, number)
            self.assertIn(ask_peer(seeder.address(), chunk_request(file.hash, 0))[0], (NO_FILE, NO_CHUNK_YET))

    def test_a_client_that_asks_again_and_again_fills_no_log(self):
        file = self.small
        seeder = self.start_seeder(file)
        before = file.path.stat()
        self.change_bytes(file.path)
        os.utime(file.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        for _ in range(5):
            with connect(seeder.address()) as client:
                for _ in range(20):
                    client.sendall(chunk_request(file.hash, 0))
                    self.assertEqual(receive_response(client)[0], NO_CHUNK_YET)
        seeder.says("chunk 0 is damaged")
        self.assertEqual(seeder.stderr.count("damaged"), 1)

    def test_a_fetcher_does_not_ban_the_seeder(self):
        for file in self.files():
            seeder = self.start_seeder(file)
            self.change_bytes(file.path)
            program = self.start_fetch(file, "-v", "--give-up", 1, "-o", f"{file.path}.copy",
                                       peers=[seeder.address()])
            self.assertEqual(program.wait(), 4)
            self.assertNotIn("wrong chunk", program.stderr)
            self.assertNotIn("not asked again", program.stderr)

    def test_what_was_fetched_is_served_until_somebody_edits_it(self):
        for file in self.files():
            for start in (b"", file.data[:len(file.data) // 2], bytes(10)):
                file.path.write_bytes(start)
                peer = self.start_peer(file, peers=[Peer(self, file).address])
                peer.says("complete and verified")
                wait_for_chunks(peer.address(), file, range(file.count))
                self.change_bytes(file.path)
                self.assert_stopped(peer, file)
                peer.signal(signal.SIGTERM)
                peer.wait()

    def test_a_download_that_ended_too_soon(self):
        file = self.small
        file.path.write_bytes(file.data[:10_000])
        peer = self.start_peer(file, peers=[self.vacant_address()], preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (15_000, 15_000)))
        peer.says("the fetcher has ended")
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 0)), (OK, file.chunk(0)))
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 15))[0], NO_CHUNK_YET)
        self.change_bytes(file.path)
        self.assert_stopped(peer, file)

    def test_a_fetcher_that_was_killed(self):
        """It could not say how it left the file: each chunk is hashed before it is served."""
        file = self.small
        file.path.write_bytes(file.data[:10_000])
        peer = self.start_peer(file, peers=[self.vacant_address()])
        peer.address()
        fetcher, = wait_until(peer.children, "the fetcher runs")
        wait_for_chunks(peer.address(), file, range(10))
        wait_until(lambda: file.path.stat().st_size == len(file.data), "the fetcher may write")
        with connect(peer.address()) as before:
            before.sendall(chunk_request(file.hash, 1))
            self.assertEqual(receive_response(before), (OK, file.chunk(1)))
            os.kill(fetcher.pid, signal.SIGKILL)
            peer.says("the fetcher has ended")
            edit(file.path, 10)
            for number in 0, 1:
                self.assert_not_deceived(peer.address(), file, number)
            self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 1)), (OK, file.chunk(1)))
            before.sendall(chunk_request(file.hash, 0))
            self.assertNotEqual(receive_response(before)[0], OK)

    def test_our_own_writing_is_no_change(self):
        """A client that is served all the time while the rest is fetched."""
        file, held = self.small, threading.Event()

        def answer(connection, number):
            held.wait(20)
            peer.send_chunk(connection, number)
            return True

        peer = Peer(self, file, answer)
        file.path.write_bytes(file.data[:5000])
        program = self.start_peer(file, peers=[peer.address])
        with connect(program.address()) as client:
            def has(number):
                client.sendall(chunk_request(file.hash, number))
                return receive_response(client)[0] == OK
            wait_until(lambda: has(0), "the first chunk is known")
            held.set()
            wait_until(lambda: has(0) and all(has(number) for number in range(20)), "all are served")
            program.says("complete and verified")
            self.assertTrue(has(0) and has(19))


class Close(Case):
    """The disk's last word, as a file on another machine may have it: a full disk, a quota."""

    def setUp(self):
        super().setUp()
        if shutil.which("strace") is None:
            self.skipTest("no strace")
        self.file = self.describe_file("data", 50_000, 1000)

    def start_without_close(self, *options):
        return self.start(["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", self.file.path,
                           "-e", "trace=close", "-e", "inject=close:error=EIO", PROGRAMS / "cascade", *options,
                           "--peer", Peer(self, self.file).name, self.file.metafile_path, "-", f"{LOOPBACK}:0"])

    def assert_told(self, program):
        lines = [line for line in program.stderr.splitlines() if f"{self.file.path}: " in line and
                 "Input/output error" in line]
        self.assertEqual(len(lines), 1, program.stderr)
        self.assertNotIn("complete and verified", program.stderr)

    def test_what_was_fetched_is_not_complete(self):
        program = self.start_without_close("-c")
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_told(program)

    def test_what_was_resumed_is_not_complete(self):
        self.file.path.write_bytes(self.file.without(7))
        program = self.start_without_close("-c")
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_told(program)

    def test_what_may_be_lost_is_not_served(self):
        program = self.start_without_close()
        program.says("the fetcher has ended")
        self.assert_told(program)
        self.assertEqual(ask_peer(program.address(), chunk_request(self.file.hash, 0))[0], NO_FILE)


if __name__ == "__main__":
    unittest.main()
