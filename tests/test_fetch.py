"""The fetcher and the local data file: what is kept, fetched, refused, and said."""

import hashlib
import os
import shutil
import signal
import threading
import unittest

from scripted import FetchCase, Scripted, keep_silent, send
from support import (LOOPBACK, PROGRAMS, WAIT, Case, Peer, SharedFile, ask_peer, chunk_request,
                     pause, random_bytes, wait_for_chunks, wait_until)


class Fetching(Case):
    def assert_fetched(self, file, *options):
        """Fetch the file from a scripted peer. Return the sorted chunks that it was asked for."""
        peer = Peer(self, file)
        program = self.fetch(file, *options, peers=[peer.address])
        self.assert_same(file.path, file.data)
        self.assertIn("complete", program.stderr)
        return sorted(peer.requests)


class Sizes(Fetching):
    def test_sizes_around_multiples_of_the_chunk_size(self):
        for chunk_size in (1, 64, 1000, 100_000):
            for size in sorted({0, 1, chunk_size - 1, chunk_size, chunk_size + 1,
                                7 * chunk_size - 1, 7 * chunk_size, 7 * chunk_size + 1}):
                with self.subTest(size=size, chunk_size=chunk_size):
                    file = self.describe_file(f"{size}-{chunk_size}", size, chunk_size)
                    self.assertEqual(self.assert_fetched(file), list(range(file.count)))

    def test_many_chunks_of_one_byte(self):
        file = self.describe_file("data", 5000, 1)
        self.assertEqual(self.assert_fetched(file), [i for i in range(5000) if file.data[i] != 0])  # no zeros

    def test_a_chunk_size_larger_than_the_file(self):
        file = self.describe_file("data", 5000, 1 << 62)
        self.assertEqual(self.assert_fetched(file), [0])

    def test_a_chunk_larger_than_any_buffer(self):
        file = self.describe_file("data", 9_000_000, 5_000_000)
        self.assertEqual(self.assert_fetched(file), [0, 1])

    def test_a_file_of_zeros(self):
        file = SharedFile(self.scratch / "data", bytes(100_000), 1000)
        self.assert_fetched(file)

    def test_several_files(self):
        files = [self.make_file(name, size, chunk_size)
                 for name, size, chunk_size in (("a", 50_000, 1000), ("b", 0, 7), ("c", 9999, 100),
                                                ("d", 300_000, 70_000))]
        seeder = self.start_seeder(*files)
        outputs = [self.scratch / f"{file.path.name}.copy" for file in files]
        self.fetch(files, "-o", ":".join(map(str, outputs)), peers=[seeder.address()])
        for file, output in zip(files, outputs):
            self.assert_same(output, file.data)

    def test_two_fetchers_from_one_seeder(self):
        file = self.make_file("data", 3_000_000, 10_000)
        seeder = self.start_seeder(file)
        fetchers = [self.start_fetch(file, "-o", name, peers=[seeder.address()]) for name in ("one", "two")]
        for fetcher, name in zip(fetchers, ("one", "two")):
            self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
            self.assert_same(self.scratch / name, file.data)

    def test_ascending_order(self):
        file = self.describe_file("data", 100_000, 1000)
        peer = Peer(self, file)
        self.fetch(file, "--order=ascending", peers=[peer.address])
        self.assertEqual(peer.requests, list(range(100)))


class ManyFiles(Case):
    """A hundred incomplete files take no more processes than one."""

    PROCESSES = 6  # the fetcher, four checkers, and one that asks the tracker

    def make_many(self, number):
        return [self.describe_file(f"file {i}", 3000, 1000) for i in range(number)]

    def test_while_nothing_comes(self):
        fetcher = self.start_fetch(self.make_many(100), "-v", peers=[self.vacant_address()])
        wait_until(lambda: fetcher.stderr.count("Connection refused") >= 100, "all files were tried")
        self.assertLessEqual(len(fetcher.family()), self.PROCESSES)

    def test_while_something_has_come_for_each(self):
        files = self.make_many(100)
        for file in files:
            file.path.write_bytes(file.without(0))
        seeder = self.start_peer(files)
        outputs = [self.scratch / f"copy {i}" for i in range(100)]
        fetcher = self.start_fetch(files, "-o", ":".join(map(str, outputs)), peers=[seeder.address()])
        most = 0

        def all_have_come():
            nonlocal most
            most = max(most, len(fetcher.family()))
            return all(output.exists() and output.read_bytes() == file.without(0)
                       for file, output in zip(files, outputs))
        wait_until(all_have_come, "two chunks of each file have come")
        self.assertLessEqual(max(most, len(fetcher.family())), self.PROCESSES)


class Resume(Fetching):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 20_500, 1000)

    def test_only_missing_chunks_are_fetched(self):
        self.file.path.write_bytes(self.file.without(3, 4, 11, 20))
        self.assertEqual(self.assert_fetched(self.file), [3, 4, 11, 20])

    def test_the_first_half_of_a_file_is_kept(self):
        self.file.path.write_bytes(self.file.data[:10_300])
        self.assertEqual(self.assert_fetched(self.file), list(range(10, 21)))

    def test_a_corrupted_byte_is_repaired(self):
        data = bytearray(self.file.data)
        data[7_777] ^= 1
        data[-1] ^= 0x80
        self.file.path.write_bytes(data)
        self.assertEqual(self.assert_fetched(self.file), [7, 20])

    def test_a_complete_file_is_not_touched(self):
        self.file.path.write_bytes(self.file.data)
        os.utime(self.file.path, (1, 1))
        self.assertEqual(self.assert_fetched(self.file), [])
        self.assertEqual(self.file.path.stat().st_mtime, 1)

    def test_an_empty_file_is_filled(self):
        self.file.path.write_bytes(b"")
        self.assertEqual(self.assert_fetched(self.file), list(range(21)))

    def test_a_file_of_the_right_length_is_overwritten(self):
        self.file.path.write_bytes(bytes(20_500))
        self.assertEqual(self.assert_fetched(self.file), list(range(21)))

    def test_a_fetch_that_was_killed_is_resumed(self):
        def hold_back(connection, number):
            if len(set(peer.requests)) > 10:
                return connection.recv(1)  # never comes
            peer.send_chunk(connection, number)
        peer = Peer(self, self.file, hold_back)
        first = self.start_fetch(self.file, peers=[peer.address])
        wait_until(lambda: len(set(peer.requests)) > 10, "ten chunks were sent")
        first.signal(signal.SIGKILL)
        first.wait()
        wait_until(lambda: not first.family(), "no process is left")
        again = self.assert_fetched(self.file)
        self.assertLess(len(again), 21)
        self.assertGreaterEqual(len(again), 10)


class LocalFile(Fetching):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 10_000, 1000)

    def assert_left_alone(self, path, *options):
        """The fetcher must refuse, name the file, and not touch it."""
        before = path.read_bytes(), path.stat().st_mtime_ns
        for extra in ((), ("-o", path)) if path == self.file.path else (("-o", path),):
            program = self.fetch(self.file, *options, *extra, peers=[(LOOPBACK, 1)], status=1)
            self.assert_one_sentence(program, path)
        self.assertEqual((path.read_bytes(), path.stat().st_mtime_ns), before)

    def test_a_longer_file_is_left_alone(self):
        self.file.path.write_bytes(self.file.data + b"\n")
        self.assert_left_alone(self.file.path)

    def test_a_foreign_shorter_file_is_left_alone(self):
        self.file.path.write_bytes(random_bytes(5000))
        self.assert_left_alone(self.file.path)

    def test_a_foreign_file_shorter_than_a_chunk_is_left_alone(self):
        self.file.path.write_bytes(b"notes\n")
        self.assert_left_alone(self.file.path)

    def test_force_uses_them_all_the_same(self):
        for content in (self.file.data + b"more", random_bytes(5000)):
            self.file.path.write_bytes(content)
            self.assert_fetched(self.file, "--force")

    def test_force_keeps_what_is_right(self):
        self.file.path.write_bytes(self.file.without(6) + b"more")
        self.assertEqual(self.assert_fetched(self.file, "-f"), [6])

    def test_the_metafile_is_no_data_file(self):
        for name in ("data.cascade", "./data.cascade"):
            program = self.fetch(self.file, "-o", name, "-f", peers=[(LOOPBACK, 1)], status=1)
            self.assert_one_sentence(program, name)
        self.assert_same(self.file.metafile_path, self.file.metafile)

    def test_a_link_to_the_metafile_is_no_data_file(self):
        os.link(self.file.metafile_path, self.file.path)
        self.assert_left_alone(self.file.path, "-f")

    def test_the_metafile_of_another_file_is_no_data_file(self):
        other = self.describe_file("other", 300_000, 1000)
        program = self.start_fetch([self.file, other], "-f", "--give-up", 1, "-o", "copy:data.cascade",
                                   peers=[(LOOPBACK, 1)])
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_same(self.file.metafile_path, self.file.metafile)

    def test_one_data_file_for_two_metafiles(self):
        other = self.describe_file("other", 10_000, 500)
        program = self.fetch([self.file, other], "-o", "copy:./copy", peers=[(LOOPBACK, 1)], status=1)
        self.assert_one_sentence(program, "copy")

    def test_a_missing_folder(self):
        program = self.fetch(self.file, "-o", "absent/copy", peers=[(LOOPBACK, 1)], status=1)
        self.assert_one_sentence(program, "absent/copy")

    def test_what_is_no_file(self):
        (self.scratch / "folder").mkdir()
        os.mkfifo(self.scratch / "fifo")
        for name in ("folder", "fifo", "/dev/null"):
            program = self.fetch(self.file, "-o", name, peers=[(LOOPBACK, 1)], status=1)
            self.assert_one_sentence(program, name)

    def test_a_length_that_the_disk_does_not_take(self):
        limit = ["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$0" "$@"']
        program = self.start([*limit, PROGRAMS / "cascade", "-c", "--peer", f"{LOOPBACK}:1",
                              self.file.metafile_path, "-", f"{LOOPBACK}:0"])
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, self.file.path)


class Cut(Fetching):
    def test_a_file_that_is_cut_while_it_is_fetched(self):
        """What was held is gone: the end must not say that all of it is there."""
        file = self.describe_file("data", 30_500, 1000)
        peer = None

        def answer(connection, number):
            if len(peer.requests) == 20:
                pause(0.6)  # until a line of progress may come: the error is still the last
                os.truncate(file.path, 0)
            peer.send_chunk(connection, number)
            return True  # hang up: the chunk before is verified when the next is asked for

        peer = Peer(self, file, answer)
        program = self.fetch(file, peers=[peer.address], status=1)
        self.assertTrue(program.stderr.endswith(f"{file.path}: was cut by somebody else\n"), program.stderr)
        file.path.unlink()
        self.assert_fetched(file)


    def test_a_file_that_is_removed_while_it_is_fetched(self):
        file = self.describe_file("data", 30_500, 1000)
        peer = None

        def answer(connection, number):
            if len(peer.requests) == 20:
                file.path.unlink()
            peer.send_chunk(connection, number)

        peer = Peer(self, file, answer)
        program = self.fetch(file, peers=[peer.address], status=1)
        self.assertTrue(program.stderr.endswith(f"{file.path}: was removed by somebody else\n"), program.stderr)


class ReadOnly(Fetching):
    """A file that may only be read, in a folder that may only be read."""

    def setUp(self):
        super().setUp()
        self.file = self.make_file("data", 10_000, 1000)
        self.user = {}
        self.cascade = PROGRAMS / "cascade"
        if os.geteuid() == 0:  # who may do everything: be somebody else
            self.user = {"user": 65534, "group": 65534, "extra_groups": []}
            self.cascade = shutil.copy(self.cascade, self.scratch)
            self.scratch.chmod(0o755)

    def start_reader(self, *options):
        self.file.path.chmod(0o444)
        if not self.user:
            self.scratch.chmod(0o555)
            self.addCleanup(self.scratch.chmod, 0o755)
        return self.start([self.cascade, *options, self.file.metafile_path, "-", f"{LOOPBACK}:0"],
                          cwd="/", **self.user)

    def test_it_is_served_if_it_is_complete(self):
        peer = self.start_reader()
        wait_for_chunks(peer.address(), self.file, range(10))

    def test_its_right_chunks_are_served_if_it_is_not(self):
        self.file.path.write_bytes(self.file.without(5))
        peer = self.start_reader()
        wait_for_chunks(peer.address(), self.file, [0, 9])
        self.assertEqual(ask_peer(peer.address(), chunk_request(self.file.hash, 5))[0], 2)
        peer.says(str(self.file.path))

    def test_it_can_not_be_completed(self):
        self.file.path.write_bytes(self.file.without(5))
        program = self.start_reader("-c", "-q", "--peer", f"{LOOPBACK}:1")
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, self.file.path)


class Locks(Case):
    def test_a_second_writer_is_refused(self):
        file = self.describe_file("data", 10_000, 1000)
        silent = Peer(self, file, lambda connection, number: connection.recv(1))
        first = self.start_fetch(file, peers=[silent.address])
        wait_until(lambda: silent.requests, "the first asks")
        second = self.fetch(file, "-f", peers=[silent.address], status=1)
        self.assert_one_sentence(second, file.path)
        self.assertFalse(first.has_ended())

    def test_two_may_serve_one_complete_file(self):
        file = self.make_file("data", 10_000, 1000)
        self.start_seeder(file)
        self.start_seeder(file)

    def test_a_file_can_be_completed_after_its_writer_was_killed(self):
        file = self.describe_file("data", 10_000, 1000)
        silent = Peer(self, file, lambda connection, number: connection.recv(1))
        peer = self.start_peer(file, "--peer", "%s:%d" % silent.address)
        wait_until(lambda: silent.requests, "it asks")
        peer.signal(signal.SIGKILL)
        peer.wait()
        wait_until(lambda: not peer.family(), "no process is left")
        self.fetch(file, peers=[Peer(self, file).address])
        self.assert_same(file.path, file.data)


class Signals(FetchCase):
    def test_a_hangup_ends_an_incomplete_fetch_unless_it_is_ignored(self):
        for ignored in (False, True):
            with self.subTest(ignored=ignored):
                self.file.path.unlink(missing_ok=True)
                silent = Scripted(self, self.file, keep_silent)
                fetcher = self.start_fetch(
                    self.file, peers=[silent.address], preexec_fn=lambda: signal.signal(
                        signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL))
                wait_until(lambda: silent.requests, "it has asked")
                fetcher.signal(signal.SIGHUP)
                fetcher.signal(signal.SIGUSR1)
                if ignored:
                    fetcher.says(f"{self.file.path}: downloading: 0%, 0 B of ")
                    fetcher.signal(signal.SIGTERM)
                self.assertEqual(fetcher.wait(), 5)
                self.assert_leaves_nothing(fetcher)

    def test_a_signal_asks_for_a_report(self):
        for options in ((), ("-q",)):
            with self.subTest(options=options):
                self.file.path.unlink(missing_ok=True)
                slow = Scripted(self, self.file, send, keep_silent)
                fetcher = self.start_fetch(self.file, "--order=ascending", *options, peers=[slow.address])

                wait_until(lambda: len(slow.requests) > 1, "it has one chunk, and asks for more")
                fetcher.signal(signal.SIGUSR1)
                fetcher.says(" downloading: 3%, 1000 B of 29.8 KiB, ")
                self.assertRegex(fetcher.stderr, r"KiB, [\d.]+ ?\w+/s, 1 peer\n")
                fetcher.signal(signal.SIGTERM)
                self.assertEqual(fetcher.wait(), 5)

    def test_sigchld_that_is_ignored_from_the_start(self):
        """Else nobody could learn how a checker ended."""
        file = self.make_file("data", 100_000, 1000)
        file.path.write_bytes(file.without(5))
        fetcher = self.start_fetch(file, peers=[Peer(self, file).address],
                                   preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
        self.assertNotIn("ended early", fetcher.stderr)


class Ends(Case):
    def make_contradiction(self):
        """Make a metafile whose chunks are right and whose whole is not."""
        file = self.describe_file("data", 10_000, 1000)
        file.metafile = file.metafile[:32] + bytes(32) + file.metafile[64:]
        file.metafile_path.write_bytes(file.metafile)
        file.hash = hashlib.sha256(file.metafile).digest()
        return file

    def test_a_metafile_that_contradicts_itself(self):
        file = self.make_contradiction()
        peer = Peer(self, file)
        program = self.fetch(file, "--verify-whole", peers=[peer.address], status=6)
        self.assert_one_sentence(program, file.metafile_path)
        self.assertNotIn("complete", program.stderr)
        self.assert_same(file.path, file.data)  # every chunk is what the metafile says

    def test_a_complete_local_file_whose_metafile_contradicts_itself(self):
        file = self.make_contradiction()
        file.path.write_bytes(file.data)
        program = self.fetch(file, "--verify-whole", peers=[(LOOPBACK, 1)], status=6)
        self.assertIn(str(file.metafile_path), program.stderr)
        self.assertNotIn("complete", program.stderr)

    def test_a_whole_that_is_right(self):
        file = self.describe_file("data", 10_000, 1000)
        program = self.fetch(file, "--verify-whole", peers=[Peer(self, file).address])
        self.assertIn("complete and verified", program.stderr)
        again = self.fetch(file, "--verify-whole", peers=[(LOOPBACK, 1)])
        self.assertIn("complete", again.stderr)

    def test_giving_up(self):
        file = self.describe_file("data", 10_000, 1000)
        silent = Peer(self, file, lambda connection, number: connection.recv(1))
        program = self.fetch(file, "--give-up", "1", peers=[silent.address], status=4)
        self.assert_one_sentence(program, file.path)
        self.assertTrue(silent.requests)

    def test_signals_end_an_incomplete_fetch_with_a_failure(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                file = self.describe_file(f"data{number}", 10_000, 1000)
                silent = Peer(self, file, lambda connection, number: connection.recv(1))
                program = self.start_fetch(file, peers=[silent.address])
                wait_until(lambda: silent.requests, "it asks")
                program.signal(number)
                self.assertNotEqual(program.wait(), 0)
                wait_until(lambda: not program.family(), "no process is left")

    def test_a_killed_fetcher_leaves_a_serving_peer(self):
        file = self.describe_file("data", 10_000, 1000)
        file.path.write_bytes(file.without(4))
        silent = Peer(self, file, lambda connection, number: connection.recv(1))
        peer = self.start_peer(file, "--peer", "%s:%d" % silent.address)
        wait_until(lambda: silent.requests, "it asks")
        wait_for_chunks(peer.address(), file, [0, 9])
        os.kill(min(p.pid for p in peer.children()), signal.SIGKILL)
        peer.says("the fetcher has ended")
        wait_for_chunks(peer.address(), file, [0, 9])

    def test_what_is_fetched_is_served_at_once(self):
        file = self.describe_file("data", 10_000, 1000)
        seen, started = [], threading.Event()

        def send_and_look(connection, number):
            if len(peer.requests) == 2:  # so the first is there, or will be soon
                first = peer.requests[0]
                self.assertTrue(started.wait(WAIT))
                wait_for_chunks(fetcher.address(), file, [first])
                seen.append(first)
            peer.send_chunk(connection, number)
        peer = Peer(self, file, send_and_look)
        fetcher = self.start_peer(file, "--peer", "%s:%d" % peer.address)
        started.set()
        wait_for_chunks(fetcher.address(), file, range(10))
        self.assertEqual(len(seen), 1)

    def test_quiet_says_nothing(self):
        file = self.make_file("data", 10_000, 1000)
        seeder = self.start_seeder(file)
        program = self.fetch(file, "-q", "-o", "copy", peers=[seeder.address()])
        self.assertEqual((program.stdout, program.stderr), ("", ""))


if __name__ == "__main__":
    unittest.main()
