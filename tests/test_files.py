"""Several files at once: what one of them waits for, none of the others does."""

import hashlib
import os
import threading
import unittest

from scripted import Scripted, keep_silent, not_yet, send
from support import (OK, TRACKER_REQUEST, WAIT, Case, Peer, Tracker, chunk_response, pause, receive,
                     tracker_entry, tracker_response, wait_for_end, wait_until)


class Directory(Tracker):
    """A tracker that names for each file the peers that serve it. Those who ask about a file
    in `silent` get no answer."""

    def __init__(self, case, *peers, silent=()):
        self.peers, self.silent = peers, [file.hash for file in silent]
        super().__init__(case)

    def serve(self, connection):
        request = receive(connection, TRACKER_REQUEST.size)
        if not request:
            return
        _, _, command, _, cascade_hash, _, _ = TRACKER_REQUEST.unpack(request)
        self.requests.append((command, cascade_hash))
        if cascade_hash in self.silent:
            wait_for_end(connection)
        entries = [tracker_entry(peer.address) for peer in self.peers if peer.file.hash == cascade_hash]
        connection.sendall(tracker_response(0, b"".join(entries)))


class Several(Case):
    """Fetches of several files; if nothing else is said, of 31 chunks."""

    def describe(self, *names):
        return [self.describe_file(name, 30_500, 1000) for name in names]

    def complete(self, file):
        return f"{file.path}: complete and verified"

    def is_complete(self, file):
        return file.path.exists() and file.path.read_bytes() == file.data


class AtOnce(Several):
    def test_files_are_fetched_at_the_same_time(self):
        """Each peer keeps its second chunk back until the others were asked for theirs."""
        files = self.describe("a", "b", "c")
        asked = [threading.Event() for _ in files]

        def wait_for_all(mine):
            def act(peer, connection, number):
                mine.set()
                for event in asked:
                    if not event.wait(WAIT):
                        raise AssertionError("the other files are not asked for")
                peer.send_chunk(connection, number)
            return act
        peers = [Scripted(self, file, send, wait_for_all(event)) for file, event in zip(files, asked)]
        self.fetch(files, tracker=Directory(self, *peers).address)
        for file in files:
            self.assert_same(file.path, file.data)

    def test_a_file_is_served_as_soon_as_it_is_complete(self):
        """It is unlocked, so another process may have it while this one fetches the next."""
        stuck, file = self.describe("stuck", "file")
        peers = Scripted(self, stuck, keep_silent), Scripted(self, file)
        fetcher = self.start_fetch([stuck, file], "--timeout", 60, tracker=Directory(self, *peers).address)
        fetcher.says(self.complete(file))
        self.start_seeder(file)


class OneIsStuck(Several):
    """The first file waits; the second is complete before that has an end."""

    def assert_not_held_up(self, *peers, silent=(), options=(), let_go=None):
        stuck, file = self.files
        good = Scripted(self, file)
        tracker = Directory(self, good, *peers, silent=silent)
        fetcher = self.start_fetch(self.files, "--timeout", 60, *options, tracker=tracker.address)
        fetcher.says(self.complete(file))
        self.assert_same(file.path, file.data)
        self.assertFalse(fetcher.has_ended())
        self.assertNotIn("complete", fetcher.stderr.replace(self.complete(file), ""))
        if let_go is not None:
            let_go.set()
            self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
            self.assert_same(stuck.path, stuck.data)

    def setUp(self):
        super().setUp()
        self.files = self.describe("stuck", "file")

    def test_its_peer_is_silent(self):
        """The connection stays open, and a request unanswered."""
        let_go = threading.Event()

        def answer_late(peer, connection, number):
            if not let_go.wait(WAIT):
                raise AssertionError("the other file was not complete")
            peer.send_chunk(connection, number)
        self.assert_not_held_up(Scripted(self, self.files[0], answer_late), let_go=let_go)

    def test_its_peer_stops_in_the_middle_of_a_chunk(self):
        let_go = threading.Event()

        def send_half(peer, connection, number):
            answer = chunk_response(OK, peer.file.chunk(number))
            connection.sendall(answer[:500])
            if not let_go.wait(WAIT):
                raise AssertionError("the other file was not complete")
            connection.sendall(answer[500:])
        self.assert_not_held_up(Scripted(self, self.files[0], send, send_half, send), let_go=let_go)

    def test_its_peer_does_not_have_it_yet(self):
        let_go = threading.Event()

        def answer(peer, connection, number):
            return (send if let_go.is_set() else not_yet)(peer, connection, number)
        self.assert_not_held_up(Scripted(self, self.files[0], answer), let_go=let_go)

    def test_its_peer_sends_drop_by_drop(self):
        let_go = threading.Event()

        def drip(peer, connection, number):
            for byte in chunk_response(OK, peer.file.chunk(number)):
                connection.sendall(bytes([byte]))
                let_go.wait(0.05)
        self.assert_not_held_up(Scripted(self, self.files[0], drip), let_go=let_go)

    def test_nobody_has_it(self):
        self.assert_not_held_up()

    def test_the_tracker_does_not_answer_for_it(self):
        self.assert_not_held_up(silent=self.files[:1])

    def test_it_fails(self):
        """Somebody cuts the file. The other one is complete, and the exit status that of the first."""
        cut, file = self.files
        is_cut, has_failed = threading.Event(), threading.Event()

        def send_when(event):
            def act(peer, connection, number):
                if not event.wait(WAIT):
                    raise AssertionError("what it waits for has not happened")
                peer.send_chunk(connection, number)
            return act
        peers = Scripted(self, cut, send, send_when(is_cut)), Scripted(self, file, send, send_when(has_failed))
        fetcher = self.start_fetch(self.files, tracker=Directory(self, *peers).address)
        wait_until(lambda: all(len(peer.requests) > 1 for peer in peers), "both are asked for more")
        os.truncate(cut.path, 1)
        is_cut.set()
        fetcher.says("cut by somebody else")
        has_failed.set()
        self.assertEqual(fetcher.wait(), 1)
        self.assert_same(file.path, file.data)
        self.assertIn(self.complete(file), fetcher.stderr)

    def test_its_metafile_contradicts_itself(self):
        wrong, file = self.files
        metafile = bytearray(wrong.metafile)
        metafile[32] ^= 1  # of the hash of the whole
        wrong.metafile_path.write_bytes(metafile)
        wrong.hash = hashlib.sha256(metafile).digest()
        wrong_is_known = threading.Event()

        def send_when_known(peer, connection, number):
            if not wrong_is_known.wait(WAIT):
                raise AssertionError("the other file is not known to be wrong")
            peer.send_chunk(connection, number)
        peers = Scripted(self, wrong), Scripted(self, file, send, send_when_known)
        fetcher = self.start_fetch(self.files, "--verify-whole", tracker=Directory(self, *peers).address)
        fetcher.says("contradicts itself")
        wrong_is_known.set()
        self.assertEqual(fetcher.wait(), 6)
        self.assertIn(self.complete(file), fetcher.stderr)

    def test_all_are_given_up_together(self):
        silent = [Scripted(self, file, send, keep_silent) for file in self.files]
        fetcher = self.start_fetch(self.files, "--give-up", 1, tracker=Directory(self, *silent).address)
        self.assertEqual(fetcher.wait(), 4)
        for file in self.files:
            self.assertIn(f"{file.path}: nothing has arrived for 1 s; given up, with ", fetcher.stderr)

    def test_none_is_given_up_while_another_arrives(self):
        """For 2 s a chunk comes now and then."""
        stuck, file = self.files

        def send_after_a_pause(peer, connection, number):
            pause(0.1)
            peer.send_chunk(connection, number)
        peers = Scripted(self, stuck, send, keep_silent), Scripted(self, file, send_after_a_pause)
        fetcher = self.start_fetch(self.files, "--give-up", 1, tracker=Directory(self, *peers).address)
        self.assertEqual(fetcher.wait(), 4)
        self.assertIn(self.complete(file), fetcher.stderr)
        self.assertIn(f"{stuck.path}: nothing has arrived for 1 s", fetcher.stderr)


class ManyPeer(Peer):
    """Serves several files; those in `silent` without an answer."""

    def __init__(self, case, files, silent=()):
        self.files, self.silent = {file.hash: file for file in files}, {file.hash for file in silent}
        super().__init__(case, files[0])

    def serve(self, connection):
        while request := receive(connection, 64):
            cascade_hash, number = request[32:64], int.from_bytes(request[24:32], "big")
            self.requests.append((cascade_hash, number))
            if cascade_hash in self.silent:
                wait_for_end(connection)
                return
            connection.sendall(chunk_response(OK, self.files[cascade_hash].chunk(number)))


class Limits(Several):
    """What there is of connections, processes and descriptors is for all files together."""

    def describe_many(self, count):
        return [self.describe_file(f"file {i}", 3000 + i, 1000) for i in range(count)]

    def test_two_hundred_small_files(self):
        files = self.describe_many(200)
        for file in files:
            file.path.write_bytes(file.data)
        tracker = self.start_tracker().address()
        self.start_seeder(*files, tracker=tracker)
        outputs = [self.scratch / f"copy {i}" for i in range(200)]
        fetcher = self.start_fetch(files, "-o", ":".join(map(str, outputs)), tracker=tracker)
        processes = descriptors = 0
        while not fetcher.has_ended():
            processes = max(processes, len(fetcher.family()))
            try:
                descriptors = max(descriptors, len(os.listdir(f"/proc/{fetcher.pid}/fd")))
            except OSError:
                pass  # it has ended
            pause(0.01)
        self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
        for file, output in zip(files, outputs):
            self.assert_same(output, file.data)
        self.assertLessEqual(processes, 1 + 4 + 16)  # the fetcher, checkers, and queries
        self.assertLessEqual(descriptors, 10 + 2 * 200 + 128 + 4 * 2 + 16)  # and connections

    def test_connections(self):
        """Of many files, and of one when the others are complete."""
        files = self.describe_many(200)
        peer = ManyPeer(self, files, silent=files)
        fetcher = self.start_fetch(files, "--timeout", 60, peers=[peer.address])
        wait_until(lambda: len(peer.requests) >= 128, "128 are asked for")
        pause(0.3)
        self.assertEqual(len(peer.requests), 128)
        self.assertEqual(len(peer.connections), 128)
        self.assertFalse(fetcher.has_ended())

    def test_more_files_than_connections(self):
        """All connections but those of the last ten files are of no use: after a while they change hands."""
        files = self.describe_many(140)
        peer = ManyPeer(self, files, silent=files[:130])
        fetcher = self.start_fetch(files, "--timeout", 60, peers=[peer.address])
        wait_until(lambda: all(self.is_complete(file) for file in files[130:]), "the last ones are complete")
        self.assertFalse(fetcher.has_ended())

    def test_a_slow_line_is_shared(self):
        """At 32 KiB a second there is one connection, and both files have it in turn."""
        files = self.describe("a", "b")
        peer = ManyPeer(self, files)
        self.fetch(files, "--max-download", "32K", peers=[peer.address])
        for file in files:
            self.assert_same(file.path, file.data)

    def test_questions_to_the_tracker(self):
        files = self.describe_many(40)
        tracker = Directory(self, silent=files)
        fetcher = self.start_fetch(files, tracker=tracker.address)
        wait_until(lambda: len(tracker.requests) >= 16, "the tracker is asked for 16 files")
        pause(0.3)
        self.assertEqual(len({cascade_hash for _, cascade_hash in tracker.requests}), 16)
        self.assertEqual(len(fetcher.children()), 16)
        self.assertEqual({cascade_hash for _, cascade_hash in tracker.requests}, {file.hash for file in files[:16]})

    def test_the_tracker_is_down(self):
        """That is said once, not for each file."""
        files = self.describe_many(40)
        address = self.vacant_address()
        fetcher = self.start_fetch(files, "--give-up", 2, tracker=address)
        self.assertEqual(fetcher.wait(), 4)
        self.assertEqual(fetcher.stderr.count("tracker %s:%d" % address), 1)


if __name__ == "__main__":
    unittest.main()
