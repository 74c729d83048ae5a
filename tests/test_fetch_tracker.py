"""A peer and its tracker: when it asks, what it believes, when it subscribes."""

import random
import socket
import threading
import time
import unittest

from scripted import Scripted, not_yet, send, silent_tracker
from support import (LIST, LOOPBACK, SUBSCRIBE, Case, Peer, Tracker, ask_peer, chunk_request, pause,
                     tracker_entry, tracker_response, wait_for_chunks, wait_for_end, wait_until)

CONNECTED = 128  # peers that a fetcher is connected to at a time
ME = (LOOPBACK, 65000)  # a peer that only fetches does not listen there


class Lists(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 20_500, 1000)
        self.peer = Peer(self, self.file)

    def assert_fetched_through(self, tracker):
        program = self.fetch(self.file, "-v", tracker=tracker.address, me=ME)
        self.assert_same(self.file.path, self.file.data)
        return program

    def assert_fetched_with(self, *peers):
        """Fetch with a tracker that names these."""
        return self.assert_fetched_through(Tracker(self, *peers))

    def test_the_peers_that_it_names_are_asked(self):
        tracker = Tracker(self, self.peer.address)
        self.assert_fetched_through(tracker)
        self.assertEqual(tracker.requests, [(LIST, self.file.hash, ME)])

    def test_the_request_comes_in_one_write(self):
        pieces = []

        class OneRecv(Tracker):
            def serve(self, connection):
                pieces.append(len(connection.recv(4096)))
                self.send_list(connection, LIST)
        self.assert_fetched_through(OneRecv(self, self.peer.address))
        self.assertEqual(pieces, [54])

    def test_its_own_address_is_told_where_it_was_not_given(self):
        tracker = Tracker(self, self.peer.address)
        self.fetch(self.file, tracker=tracker.address, me=("0.0.0.0", 65000))
        self.assertEqual(tracker.requests, [(LIST, self.file.hash, ME)])

    def test_an_answer_in_single_bytes(self):
        def answer(connection, command):
            for byte in tracker_response(0, tracker_entry(self.peer.address)):
                connection.sendall(bytes([byte]))
        self.assert_fetched_through(Tracker(self, answer=answer))

    def test_a_tracker_that_does_not_close(self):
        def answer(connection, command):
            connection.sendall(tracker_response(0, tracker_entry(self.peer.address)))
            wait_for_end(connection)
        self.assert_fetched_through(Tracker(self, answer=answer))

    def test_entries_that_nobody_can_be_reached_at(self):
        useless = [(LOOPBACK, 0), ("0.0.0.0", 80), ("0.0.0.0", 0), ("255.255.255.255", 80),
                   ("224.0.0.1", 80), ("0.1.2.3", 80)]
        program = self.assert_fetched_with(*useless, self.peer.address)
        for address in useless:
            self.assertNotIn(" %s:%d: " % address, program.stderr)  # nor tried

    def test_more_entries_than_anybody_needs(self):
        self.assert_fetched_with(self.peer.address, *[self.vacant_address()] * 2000)

    def test_one_peer_named_many_times_gets_one_connection(self):
        self.assert_fetched_with(*[self.peer.address] * 20)
        self.assertEqual(len(self.peer.connections), 1)

    def test_it_never_asks_itself(self):
        me = Peer(self, self.file)
        tracker = Tracker(self, me.address, self.peer.address)
        self.fetch(self.file, tracker=tracker.address, me=me.address)
        self.assert_same(self.file.path, self.file.data)
        self.assertEqual(me.connections, [])

    def test_nothing_is_asked_for_a_complete_file(self):
        self.file.path.write_bytes(self.file.data)
        tracker = Tracker(self)
        self.fetch(self.file, tracker=tracker.address)
        self.assertEqual(tracker.requests, [])

    def assert_preferred(self, describe):
        """Of more peers than it connects to at a time, the preferred ones are asked and the others not.

        describe(address, preferred, i) returns the tracker's entry for each. They are one server, which
        listens at all addresses of this machine; whom a client means is known from where it arrived.
        """
        asked = set()

        def answer(connection, number):
            asked.add(connection.getsockname()[0])
            crowd.send_chunk(connection, number)
        crowd = Peer(self, self.file, answer, socket.create_server(("0.0.0.0", 0), backlog=256))
        port, preferred = crowd.address[1], [f"127.0.1.{i}" for i in range(1, CONNECTED + 1)]
        entries = [describe((ip, port), True, i) for i, ip in enumerate(preferred)]
        entries += [describe((f"127.0.2.{i}", port), False, i) for i in range(1, 41)]
        tracker = Tracker(self)
        tracker.entries = random.Random(1).sample(entries, len(entries))
        self.assert_fetched_through(tracker)
        self.assertTrue(asked)
        self.assertLessEqual(asked, set(preferred))

    def test_those_that_it_vouches_for_are_preferred(self):
        self.assert_preferred(lambda address, preferred, _: tracker_entry(address, good=preferred))

    def test_those_that_should_have_been_heard_of_again_come_last(self):
        now = 1_000_000  # by its clock
        self.assert_preferred(lambda address, preferred, i: tracker_entry(
            address, last_seen=now - (590 * i // CONNECTED if preferred else 700), good=not preferred))

    def test_who_serves_soon_asks_once_more(self):
        """Others that were started together with it are not known before."""
        first, second = Scripted(self, self.file, send, not_yet), self.peer

        def answer(connection, command):
            named = [tracker_entry(second.address)] if tracker.commands().count(LIST) > 1 else []
            connection.sendall(tracker_response(0, b"".join(named)))
        tracker = Tracker(self, answer=answer)
        peer = self.start_peer(self.file, peers=[first.address], tracker=tracker.address)
        wait_until(lambda: "complete and verified" in peer.stderr, "it completes the file", 8)
        self.assert_same(self.file.path, self.file.data)

    def test_an_empty_list_is_not_asked_for_again_soon(self):
        """Not by who has something to serve, either."""
        self.file.path.write_bytes(self.file.without(*range(1, 21)))
        tracker = Tracker(self)
        peer = self.start_peer(self.file, tracker=tracker.address)
        wait_until(lambda: LIST in tracker.commands(), "it asks")
        pause(4)
        self.assertEqual(tracker.commands().count(LIST), 1)
        self.end(peer)

    def times_of_requests(self, number, entries, within):
        """Return when a tracker was asked, after so many requests; entries(i) answers the one number i."""
        times = []

        def answer(connection, command):
            times.append(time.monotonic())
            connection.sendall(entries(len(times) - 1))
        tracker = Tracker(self, answer=answer)
        self.fetcher = self.start_fetch(self.file, tracker=tracker.address, me=ME)
        wait_until(lambda: len(times) >= number, "it asks again", within)
        return times

    def test_when_nobody_on_a_list_can_be_reached_another_is_asked_for(self):
        """A tracker names twenty of many, by chance, and some have gone."""
        dead = b"".join(tracker_entry(self.vacant_address()) for _ in range(20))
        first, second = self.times_of_requests(
            2, lambda i: tracker_response(0, tracker_entry(self.peer.address) if i else dead), 8)
        self.assertGreater(second - first, 1.9)
        self.assertEqual(self.fetcher.wait(8), 0, self.fetcher.stderr)

    def test_a_list_that_names_nobody_new_is_not_asked_for_again_soon(self):
        dead = tracker_response(0, tracker_entry(self.vacant_address()))
        times = self.times_of_requests(2, lambda i: dead, 8)
        pause(6)
        self.assertEqual(len(times), 2)

    def test_a_tracker_that_fails_is_asked_again_after_10_seconds_or_so(self):
        first, second = self.times_of_requests(2, lambda i: tracker_response(1, b"closed\n"), 20)
        self.assertGreater(second - first, 9.9)
        self.assertLess(second - first, 12)
        self.assertIn("every 10 to 11 s", self.fetcher.stderr)

    def test_one_peer_is_one_peer(self):
        program = self.assert_fetched_with(self.peer.address)
        self.assertIn("names 1 peer\n", program.stderr)

    def test_the_tracker_is_asked_for_each_file(self):
        other = self.describe_file("other", 5000, 1000)
        tracker = Tracker(self)
        program = self.start_fetch([self.file, other], tracker=tracker.address, me=ME)
        wait_until(lambda: len(tracker.requests) >= 2, "it asks twice")
        self.assertEqual(sorted(tracker.requests[:2]),
                         sorted([(LIST, file.hash, ME) for file in (self.file, other)]))
        self.assertFalse(program.has_ended())


class Trouble(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 20_500, 1000)

    def assert_said(self, answer, words="tracker"):
        """What a tracker answers must be told as trouble, once and with its name, and not be the end."""
        tracker = Tracker(self, answer=lambda connection, command: connection.sendall(answer))
        program = self.start_fetch(self.file, tracker=tracker.address)
        program.says(tracker.name)
        program.says(words)
        self.assert_one_sentence(program, tracker.name)
        self.assertFalse(program.has_ended())
        self.end(program)

    def test_an_error_is_told_in_its_own_words(self):
        self.assert_said(tracker_response(1, b"closed on Sundays"), "closed on Sundays")

    def test_an_error_that_is_a_line(self):
        for end in (b"\n", b"\r\n", b" \n\n", b"\n\0"):
            with self.subTest(end=end):
                self.assert_said(tracker_response(1, b"closed on Sundays" + end), ": closed on Sundays; ")

    def test_an_error_that_is_an_empty_line(self):
        self.assert_said(tracker_response(1, b"\n"), "it refuses")

    def test_words_for_the_terminal_are_not_obeyed(self):
        self.assert_said(tracker_response(1, b"wait\x1b[2J\r\nfor it"), "wait?[2J??for it")

    def test_an_error_without_words(self):
        self.assert_said(tracker_response(1, b""))

    def test_an_error_with_endless_words(self):
        self.assert_said(tracker_response(1, b"no" * 50_000, 0xffffffff), "nono")

    def test_an_unknown_status(self):
        self.assert_said(tracker_response(77, b"some words"), "some words")

    def test_an_answer_that_is_cut(self):
        whole = tracker_response(0, tracker_entry((LOOPBACK, 1)) * 2)
        for size in (0, 3, 5, 16, 28):
            with self.subTest(size=size):
                self.assert_said(whole[:size])

    def test_a_length_that_is_no_multiple_of_an_entry(self):
        self.assert_said(tracker_response(0, tracker_entry((LOOPBACK, 1)) + b"x"))

    def test_a_huge_length(self):
        for length in (0xffffffff, 0xfffffffc, 0x80000000):
            with self.subTest(length=length):
                self.assert_said(tracker_response(0, tracker_entry((LOOPBACK, 1)), length))

    def test_garbage(self):
        self.assert_said(b"HTTP/1.0 400 Bad\r\n\r\n")

    def test_a_silent_tracker_does_not_hinder_a_peer_that_was_named(self):
        tracker = silent_tracker(self)
        self.fetch(self.file, tracker=tracker.address, peers=[Peer(self, self.file).address])
        self.assert_same(self.file.path, self.file.data)

    def test_a_tracker_that_comes_up_later(self):
        seeded = self.make_file("seeded", 10_000, 1000)
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))  # not listening yet: who connects is refused
            address = listener.getsockname()
            seeder = self.start_peer(seeded, tracker=address)
            fetcher = self.start_fetch(self.file, tracker=address)
            for program in (seeder, fetcher):
                program.says("%s:%d" % address)
            listener.listen()
            tracker = Tracker(self, Peer(self, self.file).address, listener=listener)
            self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
            self.assert_same(self.file.path, self.file.data)
            wait_until(lambda: SUBSCRIBE in tracker.commands(), "the seeder subscribes")
        for program in (seeder, fetcher):
            self.assertEqual(program.stderr.count("%s:%d" % address), 1, program.stderr)


class Subscriptions(Case):
    def test_a_complete_peer_subscribes_with_its_address(self):
        file = self.make_file("data", 10_000, 1000)
        tracker = Tracker(self)
        peer = self.start_peer(file, tracker=tracker.address)
        wait_until(lambda: tracker.requests, "it subscribes")
        self.assertEqual(tracker.requests, [(SUBSCRIBE, file.hash, peer.address())])

    def test_each_file_is_subscribed(self):
        files = [self.make_file(name, 10_000, 1000) for name in ("a", "b", "c")]
        tracker = Tracker(self)
        self.start_peer(files, tracker=tracker.address)
        wait_until(lambda: {file.hash for file in files} ==
                   {cascade_hash for command, cascade_hash, _ in tracker.requests if command == SUBSCRIBE},
                   "all three are subscribed")

    def test_everything_is_served_by_then(self):
        file = self.make_file("data", 40_000_000, 100_000)
        statuses = []

        def look(connection, command):
            statuses.extend(ask_peer(peer.address(), chunk_request(file.hash, number))[0]
                            for number in (0, 200, 399))
            tracker.send_list(connection, command)
        tracker = Tracker(self, answer=look)
        peer = self.start_peer(file, tracker=tracker.address)
        wait_until(lambda: len(statuses) >= 3, "it subscribes")
        self.assertEqual(statuses[:3], [0, 0, 0])

    def test_who_holds_nothing_does_not_subscribe(self):
        file = self.describe_file("data", 10_000, 1000)
        released = threading.Event()
        source = Scripted(self, file, after=[released])
        tracker = Tracker(self, source.address)
        peer = self.start_peer(file, tracker=tracker.address)
        wait_until(lambda: source.requests, "it asks for a chunk")
        self.assertEqual(set(tracker.commands()), {LIST})
        released.set()
        wait_for_chunks(peer.address(), file, range(10))
        wait_until(lambda: SUBSCRIBE in tracker.commands(), "it subscribes")

    def test_who_holds_a_part_subscribes(self):
        file = self.describe_file("data", 10_000, 1000)
        file.path.write_bytes(file.without(3))
        tracker = Tracker(self)
        self.start_peer(file, tracker=tracker.address)
        wait_until(lambda: SUBSCRIBE in tracker.commands(), "it subscribes")

    def test_who_only_fetches_never_subscribes(self):
        file, complete = self.describe_file("data", 50_000, 1000), self.make_file("complete", 500, 100)
        tracker = Tracker(self, Peer(self, file).address)
        self.fetch([file, complete], tracker=tracker.address)
        self.assertEqual(set(tracker.commands()), {LIST})

    def test_whom_it_names_to_a_subscriber_is_asked(self):
        """Its lists name nobody: only its answer to the subscription, after the first chunk, does."""
        file = self.describe_file("data", 10_000, 1000)
        first, second = Scripted(self, file, send, not_yet), Peer(self, file)

        def answer(connection, command):
            named = tracker_entry(second.address) if command == SUBSCRIBE else b""
            connection.sendall(tracker_response(0, named))
        tracker = Tracker(self, answer=answer)
        peer = self.start_peer(file, peers=[first.address], tracker=tracker.address)
        wait_until(lambda: SUBSCRIBE in tracker.commands(), "it subscribes")
        wait_until(lambda: "complete and verified" in peer.stderr, "it completes the file", 5)
        self.assertEqual(tracker.commands().count(SUBSCRIBE), 1)
        self.assertEqual(set(second.requests), set(range(10)) - {first.requests[0]})
        self.assert_same(file.path, file.data)


if __name__ == "__main__":
    unittest.main()
