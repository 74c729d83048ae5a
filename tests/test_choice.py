"""Whom a fetcher asks for what: liars, slow and refusing peers, order, and how
far its requests run ahead."""

import socket
import threading
import time
import unittest

from support import (CHUNK_REQUEST, LOOPBACK, PROGRAMS, WAIT, Case, Peer, Server, Tracker, chunk_response,
                     receive, wait_for_end, wait_until)

WINDOW = 1 << 20  # bytes that a peer that is not known to be fast is asked for ahead
SOON = 5  # seconds, half of what a peer may be silent for; a busy machine may need some


def name_of(peer):
    return "%s:%d" % peer.address


class Choosing(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 30_500, 1000)

    def fetch_from(self, *peers, options=(), file=None):
        """Fetch the file from these peers. Return the program."""
        file = file or self.file
        program = self.fetch(file, *options, peers=[peer.address for peer in peers])
        self.assert_same(file.path, file.data)
        return program


class Liars(Choosing):
    def test_nine_liars_and_one_honest_peer(self):
        lies = threading.Semaphore(0)

        def lie(connection, number):
            connection.sendall(chunk_response(0, bytes(len(self.file.chunk(number)))))
            lies.release()

        def wait_for_lies(connection, number):
            if len(honest.requests) == 1:
                for _ in range(9):
                    self.assertTrue(lies.acquire(timeout=WAIT))
            honest.send_chunk(connection, number)
        liars = [Peer(self, self.file, lie) for _ in range(9)]
        honest = Peer(self, self.file, wait_for_lies)
        program = self.fetch_from(*liars[:5], honest, *liars[5:], options=["-q"])
        self.assertEqual([len(liar.requests) for liar in liars], [1] * 9)
        self.assertEqual(len(set(honest.requests)), self.file.count)
        lines = program.stderr.splitlines()
        for liar in liars:
            self.assertEqual(len([line for line in lines if name_of(liar) + ":" in line]), 1, program.stderr)
        self.assertEqual(len(lines), 9, program.stderr)

    def test_a_liar_that_sends_good_chunks_first(self):
        """It is left after its first wrong chunk, with all that it was asked for."""
        lied = threading.Event()

        def answer(connection, number):
            chunk = self.file.chunk(number)
            if len(liar.requests) <= 10:
                connection.sendall(chunk_response(0, chunk))
            else:
                connection.sendall(chunk_response(0, chunk[:-1] + b"\0"))
                wait_for_end(connection)
                lied.set()
                return True

        def answer_late(connection, number):
            self.assertTrue(lied.wait(WAIT))
            honest.send_chunk(connection, number)
        self.file = self.describe_file("large", 300_000, 1000)
        liar, honest = Peer(self, self.file, answer), Peer(self, self.file, answer_late)
        program = self.fetch_from(liar, honest)
        self.assertEqual(len(liar.connections), 1)
        self.assertEqual(program.stderr.count(name_of(liar)), 1, program.stderr)
        self.assertNotIn(name_of(honest), program.stderr)
        # What was right is kept, what was wrong is not.
        self.assertEqual(len(honest.requests), self.file.count - 10)


class Refusals(Choosing):
    def test_what_one_lacks_is_asked_of_another_at_once(self):
        def refuse(connection, number):
            connection.sendall(chunk_response(2, b"not yet"))
            refused.set()

        def answer(connection, number):
            self.assertTrue(refused.wait(WAIT))
            holder.send_chunk(connection, number)
        refused = threading.Event()
        lacking, holder = Peer(self, self.file, refuse), Peer(self, self.file, answer)
        start = time.monotonic()
        program = self.fetch_from(lacking, holder)
        self.assertLess(time.monotonic() - start, SOON)
        self.assertLessEqual(set(lacking.requests), set(holder.requests))
        self.assertNotIn(name_of(lacking), program.stderr)  # that is no error

    def test_what_it_lacked_it_is_asked_for_again(self):
        """Neither has chunk 7 until both have refused it."""
        refused = set()

        def answer_as(i):
            def answer(connection, number):
                if number == 7 and len(refused) < 2:
                    refused.add(i)
                    connection.sendall(chunk_response(2, b"not yet"))
                elif number == 7 and i == 0:  # that one never gets it
                    connection.sendall(chunk_response(2, b"not yet"))
                else:
                    peers[i].send_chunk(connection, number)
            return answer
        peers = [Peer(self, self.file, answer_as(i)) for i in range(2)]
        start = time.monotonic()
        self.fetch_from(*peers)
        self.assertLess(time.monotonic() - start, SOON)
        self.assertGreaterEqual(peers[1].requests.count(7), 2)
        for number in set(range(31)) - {7}:
            self.assertEqual(sum(peer.requests.count(number) for peer in peers), 1)

    def test_a_peer_that_lacks_all_is_not_asked_without_pause(self):
        """It holds nothing until it was asked for half a second or so."""
        deadline = []

        def answer(connection, number):
            deadline or deadline.append(time.monotonic() + 0.5)
            if time.monotonic() < deadline[0]:
                refusals.append(number)
                connection.sendall(chunk_response(2, b"not yet"))
            else:
                peer.send_chunk(connection, number)
        refusals = []
        peer = Peer(self, self.file, answer)
        self.fetch_from(peer)
        self.assertLess(len(refusals), 500)


class Paced(Peer):
    """Sends so many bytes a second, as far as the fetcher takes them."""

    def __init__(self, case, file, rate):
        self.rate = rate
        self.over = threading.Event()
        case.addCleanup(self.over.set)
        super().__init__(case, file, self.send_paced)
        self.due = 0

    def send_paced(self, connection, number):
        self.due = max(self.due, time.monotonic()) + len(self.file.chunk(number)) / self.rate
        if self.over.wait(max(0, self.due - time.monotonic())):
            return True
        return self.send_chunk(connection, number)


class Stalls(Choosing):
    def assert_relieved(self, *options, limit=SOON):
        self.file = self.describe_file("some", 20_000, 1000)
        asked = threading.Event()

        def keep_silent(connection, number):
            asked.set()
            wait_for_end(connection)
            return True

        def answer(connection, number):
            self.assertTrue(asked.wait(WAIT))
            honest.send_chunk(connection, number)
        silent, honest = Peer(self, self.file, keep_silent), Peer(self, self.file, answer)
        start = time.monotonic()
        self.fetch_from(silent, honest, options=options)
        seconds = time.monotonic() - start
        self.assertEqual(len(silent.requests), 1)
        self.assertEqual(sorted(honest.requests), list(range(20)))
        self.assertLess(seconds, limit, "the other peer had nothing left to do")

    def test_a_stalled_peers_chunk_is_fetched_from_another(self):
        self.assert_relieved()

    def test_a_stalled_peers_chunk_is_fetched_from_another_quietly(self):
        self.assert_relieved("-q", "--timeout", 4, limit=3)

    def test_a_stalled_peers_chunks_are_fetched_from_another(self):
        """It has sent some, was asked for many more, and falls silent."""
        self.file = self.describe_file("many", 400_000, 1000)
        asked = threading.Event()

        def fall_silent(connection, number):
            if len(silent.requests) < 5:
                silent.send_chunk(connection, number)
                return False
            asked.set()
            wait_for_end(connection)
            return True

        def answer(connection, number):
            self.assertTrue(asked.wait(WAIT))
            honest.send_chunk(connection, number)
        silent, honest = Peer(self, self.file, fall_silent), Peer(self, self.file, answer)
        start = time.monotonic()
        self.fetch_from(silent, honest, options=["--timeout", 4])
        self.assertLess(time.monotonic() - start, 3)
        self.assertEqual(len(honest.requests), 400 - 4)

    def test_a_fast_peer_that_stalls_is_relieved(self):
        """By its rate, it would need no more than a second for what it was asked for."""
        self.file = self.describe_file("fast", 6 << 20, 16 << 10)
        stalled = threading.Event()

        def stall(connection, number):
            if len(fast.requests) <= 100:
                return fast.send_paced(connection, number)
            stalled.set()
            wait_for_end(connection)
            return True

        def answer(connection, number):
            self.assertTrue(stalled.wait(WAIT))
            honest.send_chunk(connection, number)
        fast, honest = Paced(self, self.file, 4 << 20), Peer(self, self.file, answer)
        fast.answer = stall
        start = time.monotonic()
        self.fetch_from(fast, honest, options=["--timeout", 4])
        self.assertLess(time.monotonic() - start, 3)
        self.assertEqual(len(honest.requests), self.file.count - 100)


class Shares(Choosing):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("shared", 6 << 20, 16 << 10)

    def test_equal_peers_share_the_work(self):
        peers = [Paced(self, self.file, 4 << 20) for _ in range(2)]
        start = time.monotonic()
        self.fetch_from(*peers)
        seconds = time.monotonic() - start
        for peer in peers:
            self.assertGreaterEqual(len(peer.requests), self.file.count / 4)
        self.assertLess(seconds, 1.35, "one alone needs 1.5 s")
        self.assertLess(sum(len(peer.requests) for peer in peers), 1.1 * self.file.count)

    def test_a_faster_peer_gets_more(self):
        slow, fast = Paced(self, self.file, 1 << 20), Paced(self, self.file, 8 << 20)
        self.fetch_from(slow, fast)
        self.assertGreater(len(fast.requests), 2 * len(slow.requests))
        self.assertGreater(len(slow.requests), 0)


class Closing(Choosing):
    def test_peers_that_close_after_each_response(self):
        def answer_as(i):
            def answer(connection, number):
                peers[i].send_chunk(connection, number)
                return True
            return answer
        peers = [Peer(self, self.file, answer_as(i)) for i in range(3)]
        program = self.fetch_from(*peers)
        self.assert_one_sentence(program, "complete and verified")
        self.assertIn(" 0 B wasted", program.stderr)
        # They read one request a connection: no response was lost.
        self.assertEqual(sorted(n for peer in peers for n in peer.requests), list(range(self.file.count)))

    def test_a_peer_that_refuses_connections_and_then_listens(self):
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind((LOOPBACK, 0))
        program = self.start_fetch(self.file, "-v", peers=[listener.getsockname()])
        program.says("Connection refused")
        listener.listen()

        class Late(Peer, Server):
            def __init__(self, case, file):
                self.file, self.answer, self.requests = file, self.send_chunk, []
                Server.__init__(self, case, self.serve, listener)
        start = time.monotonic()
        peer = Late(self, self.file)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertLess(time.monotonic() - start, SOON)
        self.assertEqual(sorted(peer.requests), list(range(31)))


class Order(Choosing):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("long", 200_000, 100)

    def first_chunk(self, *options):
        """Return what a serving fetcher asks for first."""
        silent = Peer(self, self.file, lambda connection, number: wait_for_end(connection) or True)
        fetcher = self.start_peer(self.file, *options, "-p", name_of(silent))
        wait_until(lambda: silent.requests, "it asks")
        self.end(fetcher)
        return silent.requests[0]

    def test_chunks_come_in_order_from_the_first_one_and_wrap_round(self):
        peer = Peer(self, self.file)
        self.fetch_from(peer)
        first = peer.requests[0]
        self.assertEqual(peer.requests, [*range(first, 2000), *range(first)])

    def test_ascending_order_begins_with_the_first_chunk(self):
        peer = Peer(self, self.file)
        self.fetch_from(peer, options=["--order=ascending"])
        self.assertEqual(peer.requests, list(range(2000)))

    def test_an_ascending_serving_fetcher_starts_at_the_first_chunk(self):
        self.assertEqual(self.first_chunk("--order=ascending"), 0)

    def test_an_ascending_serving_fetcher_goes_on_in_that_order(self):
        peer = Peer(self, self.file)
        fetcher = self.start_peer(self.file, "--order=ascending", "-p", name_of(peer))
        fetcher.says("complete and verified")
        self.assertEqual(peer.requests, list(range(2000)))

    def test_serving_fetchers_start_at_different_chunks(self):
        # That 5 of 2000 are the same is less likely than the end of the world.
        self.assertGreater(len({self.first_chunk() for _ in range(5)}), 1)


class Ahead(Choosing):
    """How many requests are under way."""

    def read_requests(self, connection):
        """Read requests until no more come."""
        numbers = []
        connection.settimeout(0.3)
        try:
            while len(request := receive(connection, CHUNK_REQUEST.size)) == CHUNK_REQUEST.size:
                numbers.append(CHUNK_REQUEST.unpack(request)[2])
        except TimeoutError:
            pass
        connection.settimeout(WAIT)
        return numbers

    def look_ahead(self, file):
        """Fetch. Return how many requests came before the first response, and
        how many more before the second."""
        ahead = []

        class HoldingBack(Peer):
            def serve(peer, connection):
                for _ in range(2):
                    numbers = self.read_requests(connection)
                    ahead.append(len(numbers))
                    for number in numbers:
                        peer.send_chunk(connection, number)
                super().serve(connection)
        self.fetch_from(HoldingBack(self, file), file=file)
        return ahead

    def test_one_request_until_the_first_chunk_is_verified(self):
        file = self.describe_file("ahead", 8 << 20, 16 << 10)
        # Then they run ahead, but not further than the window.
        self.assertEqual(self.look_ahead(file), [1, WINDOW // file.chunk_size])

    def test_at_least_two_where_a_chunk_fills_the_window(self):
        file = self.describe_file("ahead", 10 << 20, 1 << 20)
        before, after = self.look_ahead(file)
        self.assertEqual(before, 1)
        self.assertTrue(2 <= after <= 4, after)  # 1 MiB in a quarter of a second is a rate of 4

    def test_small_chunks_fill_the_window_too(self):
        file = self.describe_file("ahead", 3 << 20, 1 << 10)
        self.assertEqual(self.look_ahead(file), [1, 1024])


class Arguments(Choosing):
    def test_several_peers(self):
        """Each has a third of the chunks."""
        def answer_as(i):
            def answer(connection, number):
                if number % 3 == i:
                    peers[i].send_chunk(connection, number)
                else:
                    connection.sendall(chunk_response(2, b"not yet"))
            return answer
        peers = [Peer(self, self.file, answer_as(i)) for i in range(3)]
        self.fetch_from(*peers)

    def test_a_peer_with_a_name(self):
        peer = Peer(self, self.file)
        self.fetch(self.file, "--peer", f"localhost:{peer.address[1]}")
        self.assert_same(self.file.path, self.file.data)

    def test_a_peer_beside_the_trackers(self):
        """The tracker names one that has the odd chunks, the user one that has the even ones."""
        def answer_as(i):
            def answer(connection, number):
                if number % 2 == i:
                    peers[i].send_chunk(connection, number)
                else:
                    connection.sendall(chunk_response(2, b"not yet"))
            return answer
        peers = [Peer(self, self.file, answer_as(i)) for i in range(2)]
        tracker = Tracker(self, peers[1].address)
        self.fetch(self.file, peers=[peers[0].address], tracker=tracker.address, me=(LOOPBACK, 65000))
        self.assert_same(self.file.path, self.file.data)

    def test_no_tracker_in_either_form(self):
        for where in (("-", f"{LOOPBACK}:0"), ("-", "0", LOOPBACK, "0"), ("-", LOOPBACK, "0"),
                      ("-", "-", LOOPBACK, "0")):
            with self.subTest(operands=where):
                self.file.path.unlink(missing_ok=True)
                peer = Peer(self, self.file)
                program = self.start([PROGRAMS / "cascade", "-c", "-p", name_of(peer),
                                      self.file.metafile_path, *where])
                self.assertEqual(program.wait(), 0, program.stderr)
                self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)  # nothing of a tracker
                self.assert_same(self.file.path, self.file.data)


if __name__ == "__main__":
    unittest.main()
