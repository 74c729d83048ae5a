"""Whom a fetcher asks for what: liars, slow and refusing peers, order, and how
far its requests run ahead."""

import socket
import threading
import time
import unittest

from scripted import (HANG_UP, STAY, FetchCase, Scripted, keep_silent, lie, not_yet, part, say, send,
                      send_and_hang_up)
from support import (CHUNK_REQUEST, LOOPBACK, NO_CHUNK_YET, OK, PROGRAMS, WAIT, Peer, Tracker, chunk_response, receive,
                     reference, wait_until)

WINDOW = 1 << 20  # bytes that a peer that is not known to be fast is asked for ahead
SOON = 5  # seconds, half of what a peer may be silent for; a busy machine may need some


def at_rate(case, rate):
    """Return the act of one peer that sends so many bytes a second, as far as the fetcher takes them."""
    over, due = threading.Event(), 0
    case.addCleanup(over.set)

    def act(peer, connection, number):
        nonlocal due
        due = max(due, time.monotonic()) + len(peer.file.chunk(number)) / rate
        if over.wait(max(0, due - time.monotonic())):
            return HANG_UP
        return send(peer, connection, number)
    return act


class Liars(FetchCase):
    def test_nine_liars_and_one_honest_peer(self):
        liars = [Scripted(self, self.file, lie) for _ in range(9)]
        honest = Scripted(self, self.file, after=[liar.acted for liar in liars])
        program = self.fetch_from(*liars[:5], honest, *liars[5:], options=["-q"])
        self.assertEqual([len(liar.requests) for liar in liars], [1] * 9)
        self.assertEqual(len(set(honest.requests)), self.file.count)
        lines = program.stderr.splitlines()
        for liar in liars:
            self.assertEqual(len([line for line in lines if liar.name + ":" in line]), 1, program.stderr)
        self.assertEqual(len(lines), 9, program.stderr)

    def test_a_liar_that_sends_good_chunks_first(self):
        """It is left after its first wrong chunk, with all that it was asked for."""
        self.file = self.describe_file("large", 300_000, 1000)
        liar = Scripted(self, self.file, *[send] * 10,
                        say(lambda number: chunk_response(OK, self.file.chunk(number)[:-1] + b"\0"), STAY))
        honest = Scripted(self, self.file, after=[liar.left])
        program = self.fetch_from(liar, honest, options=["-q"])
        self.assertEqual(len(liar.connections), 1)
        self.assertEqual(program.stderr.count(liar.name), 1, program.stderr)
        self.assertNotIn(honest.name, program.stderr)
        # What was right is kept, what was wrong is not.
        self.assertEqual(len(honest.requests), self.file.count - 10)


class Refusals(FetchCase):
    def test_what_one_lacks_is_asked_of_another_at_once(self):
        lacking = Scripted(self, self.file, not_yet)
        holder = Scripted(self, self.file, after=[lacking.acted])
        start = time.monotonic()
        program = self.fetch_from(lacking, holder)
        self.assertLess(time.monotonic() - start, SOON)
        self.assertLessEqual(set(lacking.requests), set(holder.requests))
        self.assertNotIn(lacking.name, program.stderr)  # that is no error

    def test_what_it_lacked_it_is_asked_for_again(self):
        """Neither has chunk 7 until both have refused it, and then only one gets it."""
        refused = set()

        def answer(peer, connection, number):
            if number == 7 and (len(refused) < 2 or peer is lacking):
                refused.add(peer)
                return not_yet(peer, connection, number)
            return send(peer, connection, number)
        lacking, holder = peers = [Scripted(self, self.file, answer) for _ in range(2)]
        start = time.monotonic()
        self.fetch_from(*peers)
        self.assertLess(time.monotonic() - start, SOON)
        self.assertGreaterEqual(holder.requests.count(7), 2)
        for number in set(range(31)) - {7}:
            self.assertEqual(sum(peer.requests.count(number) for peer in peers), 1)

    def test_a_peer_that_lacks_all_is_not_asked_without_pause(self):
        """It holds nothing until half a second after it was first asked."""
        asked, refused = [], []

        def answer(peer, connection, number):
            asked.append(time.monotonic())
            if asked[-1] >= asked[0] + 0.5:
                return send(peer, connection, number)
            refused.append(number)
            return not_yet(peer, connection, number)
        self.fetch_from(Scripted(self, self.file, answer))
        self.assertLess(len(refused), 500)


    def test_a_peer_that_lacks_the_beginning_of_each_region(self):
        """What is known of its holdings is known of eight chunks at a time."""
        self.file = self.describe_file("regions", 8192 * 20, 20)
        last = Scripted(self, self.file, part(7, of=8))
        self.start_fetch(self.file, peers=[last.address])
        wait_until(lambda: sum(number % 8 == 7 for number in set(last.requests)) >= 100, "it gets 100 chunks")

    def test_a_peer_that_failed_and_then_lacked_something(self):
        """It is asked again for all that is missing, not only for where nothing is."""
        self.file.path.write_bytes(self.file.without(*range(1, 31)))
        cut = say(chunk_response(OK, b"")[:1], HANG_UP)
        self.fetch_from(Scripted(self, self.file, cut, not_yet, send))


class Told(FetchCase):
    """Peers that say what they hold when they refuse a chunk."""

    def holder(self, held, told=None):
        """Return a peer that holds these chunks, and tells so; or tells what is said."""
        bits = "".join("1" if number in held else "0" for number in range(self.file.count)).ljust(-(-self.file.count // 4) * 4, "0")
        digits = "".join(f"{int(bits[at:at + 4], 2):x}" for at in range(0, len(bits), 4))
        refuse = say(chunk_response(NO_CHUNK_YET, told if told is not None else f"not yet; regions {digits}\n".encode()))

        def answer(peer, connection, number):
            return (send if number in held else refuse)(peer, connection, number)
        return Scripted(self, self.file, answer)

    def test_it_is_asked_for_what_it_holds(self):
        """After a refusal at the latest. The other one has too little to do to take these away."""
        few = self.holder({3, 4, 30})
        rest = self.holder(set(range(31)) - {3, 4, 30})
        self.fetch_from(few, rest, options=["--order=ascending"])  # first for what it refuses
        refused = [number for number in few.requests[:5] if number not in (3, 4, 30)]
        self.assertLessEqual(len(refused), 2, few.requests)
        self.assertLessEqual({3, 4, 30}, set(few.requests[:5]))

    def test_what_it_says_need_not_be_true(self):
        for told in (b"regions ffffffff\n", b"; regions fffffffe\n", b" regions 00000000\n", b" regions ffff\n",
                     b" regions xxxxxxxx\n", b" regions " + b"f" * 60_000 + b"\n", b"\0" * 600, b""):
            with self.subTest(told=told[:30]):
                self.file.path.unlink(missing_ok=True)
                self.fetch_from(*[self.holder({number for number in range(31) if number % 2 == i}, told) for i in range(2)])


class Stalls(FetchCase):
    def assert_relieved(self, stalling, limit, *options):
        """Fetch from this peer and another, which must get the stalling one's chunks in time.
        Return the other."""
        honest = Scripted(self, self.file, after=[stalling.acted])
        start = time.monotonic()
        self.fetch_from(stalling, honest, options=options)
        self.assertLess(time.monotonic() - start, limit, "the other peer had nothing left to do")
        return honest

    def assert_silent_is_relieved(self, limit, *options):
        self.file = self.describe_file("some", 20_000, 1000)
        silent = Scripted(self, self.file, keep_silent)
        honest = self.assert_relieved(silent, limit, *options)
        self.assertEqual(len(silent.requests), 1)
        self.assertEqual(sorted(honest.requests), list(range(20)))

    def test_a_stalled_peers_chunk_is_fetched_from_another(self):
        self.assert_silent_is_relieved(SOON)

    def test_a_stalled_peers_chunk_is_fetched_from_another_quietly(self):
        self.assert_silent_is_relieved(3, "-q", "--timeout", 4)

    def test_a_stalled_peers_chunks_are_fetched_from_another(self):
        """It has sent some, was asked for many more, and falls silent."""
        self.file = self.describe_file("many", 400_000, 1000)
        honest = self.assert_relieved(Scripted(self, self.file, *[send] * 4, keep_silent), 3, "--timeout", 4)
        self.assertEqual(len(honest.requests), 400 - 4)

    def test_a_fast_peer_that_stalls_is_relieved(self):
        """By its rate, it would need no more than a second for what it was asked for."""
        self.file = self.describe_file("fast", 6 << 20, 16 << 10)
        fast = Scripted(self, self.file, *[at_rate(self, 4 << 20)] * 100, keep_silent)
        honest = self.assert_relieved(fast, 3, "--timeout", 4)
        self.assertEqual(len(honest.requests), self.file.count - 100)


    def test_a_fast_peer_that_gets_slow_is_heard(self):
        """Its last chunk comes in so small pieces that waiting for many would look like silence."""
        self.file = self.describe_file("slow", 80 << 20, 1 << 20)
        over, slow = threading.Event(), []
        self.addCleanup(over.set)

        def drip(peer, connection, number):
            answer = chunk_response(OK, self.file.chunk(number))
            slow.append(number)
            for at in range(0, 30_000, 1000):
                connection.sendall(answer[at:at + 1000])
                if over.wait(0.1):
                    return HANG_UP
            connection.sendall(answer[30_000:])
        peer = Scripted(self, self.file, *[at_rate(self, 150 << 20)] * 79, drip)
        program = self.fetch_from(peer, options=["-v", "--timeout", 1])
        self.assertEqual(len(slow), 1)
        self.assertNotIn("silent", program.stderr)


    def test_a_peer_that_holds_all_is_asked_when_the_others_stall(self):
        self.file = self.describe_file("stall", 12 << 20, 16 << 10)
        full = Scripted(self, self.file, at_rate(self, 2 << 20))
        partial = Scripted(self, self.file, not_yet, *[at_rate(self, 6 << 20)] * 300, keep_silent)
        self.start_fetch(self.file, peers=[full.address, partial.address])
        wait_until(partial.acted.is_set, "one is silent")
        asked = len(full.requests)
        wait_until(lambda: len(full.requests) > asked + 60, "the other is asked", 8)  # silence is 10

    def test_a_slow_peer_is_not_left_for_one_that_lacks_the_chunk(self):
        self.file = self.describe_file("left", 200_000, 10_000)
        over = threading.Event()
        self.addCleanup(over.set)

        def slow(peer, connection, number):
            answer = chunk_response(OK, self.file.chunk(number))
            for half in answer[:5000], answer[5000:]:
                connection.sendall(half)
                if over.wait(1.2):
                    return HANG_UP

        def all_but_5(peer, connection, number):
            return (not_yet if number == 5 else send)(peer, connection, number)
        self.fetch_from(Scripted(self, self.file, slow), Scripted(self, self.file, all_but_5),
                        options=["--timeout", 4])


class Shares(FetchCase):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("shared", 6 << 20, 16 << 10)

    def test_equal_peers_share_the_work(self):
        peers = [Scripted(self, self.file, at_rate(self, 4 << 20)) for _ in range(2)]
        self.fetch_from(*peers)
        for peer in peers:
            self.assertGreaterEqual(len(peer.requests), self.file.count / 4)
        self.assertLess(sum(len(peer.requests) for peer in peers), 1.1 * self.file.count)

    def test_a_faster_peer_gets_more(self):
        slow, fast = (Scripted(self, self.file, at_rate(self, rate)) for rate in (256 << 10, 2 << 20))
        self.fetch_from(slow, fast)
        self.assertGreater(len(fast.requests), 2 * len(slow.requests))
        self.assertGreater(len(slow.requests), 0)


class Closing(FetchCase):
    def test_it_takes_no_longer_than_the_reference(self):
        """A connection for each chunk is no reason to wait between two."""
        self.file = self.describe_file("data", 1_000_000, 1000)
        peer = Scripted(self, self.file, send_and_hang_up)
        tracker = Tracker(self, peer.address)

        def seconds(fetch):
            start = time.monotonic()
            fetch()
            took = time.monotonic() - start
            self.assert_same(self.file.path, self.file.data)
            self.file.path.unlink()
            return took

        def fetch_as_reference():
            program = self.start(reference("peer.py", "-c", 1, self.file.metafile_path, tracker.name,
                                           f"{LOOPBACK}:65000"))
            self.assertEqual(program.wait(), 0, program.stderr)
        ours, theirs = [], []
        for _ in range(5):  # a machine is busy now and then, and then both take longer
            theirs.append(seconds(fetch_as_reference))
            ours.append(seconds(lambda: self.fetch(self.file, peers=[peer.address])))
            if min(ours) < 1.5 * min(theirs):
                break
        self.assertLess(min(ours), 1.5 * min(theirs))

    def test_peers_that_close_after_each_response(self):
        peers = [Scripted(self, self.file, send_and_hang_up) for _ in range(3)]
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
        start = time.monotonic()
        peer = Peer(self, self.file, listener=listener)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertLess(time.monotonic() - start, SOON)
        self.assertEqual(sorted(peer.requests), list(range(31)))


class Order(FetchCase):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("long", 200_000, 100)

    def first_chunk(self, *options):
        """Return what a serving fetcher asks for first."""
        silent = Scripted(self, self.file, keep_silent)
        fetcher = self.start_peer(self.file, *options, peers=[silent.address])
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
        fetcher = self.start_peer(self.file, "--order=ascending", peers=[peer.address])
        fetcher.says("complete and verified")
        self.assertEqual(peer.requests, list(range(2000)))

    def test_a_serving_fetchers_order_follows_from_its_address(self):
        """Others know it then, and what can be had of it."""
        def fetch(me=("127.0.0.2", 0)):  # where nobody else takes the port meanwhile
            peer = Peer(self, self.file)
            fetcher = self.start_peer(self.file, peers=[peer.address], me=me)
            fetcher.says("complete and verified")
            address = fetcher.address()
            self.end(fetcher)
            self.file.path.unlink()
            return address, peer.requests
        (here, first), (_, other) = fetch(), fetch()
        self.assertEqual(sorted(first), list(range(2000)))
        self.assertEqual(fetch(here), (here, first))
        self.assertNotEqual(other, first)

    def test_serving_fetchers_start_at_different_chunks(self):
        # That 5 of 2000 are the same is less likely than the end of the world.
        self.assertGreater(len({self.first_chunk() for _ in range(5)}), 1)


class Ahead(FetchCase):
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

    def look_ahead(self, size, chunk_size):
        """Fetch a file. Return how many requests came before the first response, and
        how many more before the second."""
        self.file = self.describe_file("ahead", size, chunk_size)
        ahead = []

        class HoldingBack(Peer):
            def serve(peer, connection):
                for _ in range(2):
                    numbers = self.read_requests(connection)
                    ahead.append(len(numbers))
                    for number in numbers:
                        peer.send_chunk(connection, number)
                super().serve(connection)
        self.fetch_from(HoldingBack(self, self.file))
        return ahead

    def test_one_request_until_the_first_chunk_is_verified(self):
        # Then they run ahead, but not further than the window.
        self.assertEqual(self.look_ahead(8 << 20, 16 << 10), [1, WINDOW // (16 << 10)])

    def test_at_least_two_where_a_chunk_fills_the_window(self):
        before, after = self.look_ahead(10 << 20, 1 << 20)
        self.assertEqual(before, 1)
        self.assertTrue(2 <= after <= 4, after)  # 1 MiB in a quarter of a second is a rate of 4

    def test_small_chunks_fill_the_window_too(self):
        self.assertEqual(self.look_ahead(3 << 20, 1 << 10), [1, 1024])


    def test_who_hung_up_once_is_asked_ahead_again(self):
        """It did so by chance, after one response; from then on it stays."""
        ahead = []

        class HangingUpOnce(Peer):
            def serve(peer, connection):
                for _ in range(3):
                    numbers = self.read_requests(connection)
                    ahead.append(len(numbers))
                    if len(ahead) == 2:
                        return
                    for number in numbers:
                        peer.send_chunk(connection, number)
                super().serve(connection)
        self.fetch_from(HangingUpOnce(self, self.file))
        self.assertGreater(max(ahead[3:]), 20, ahead)


class Arguments(FetchCase):
    def test_several_peers(self):
        """Each has a third of the chunks."""
        self.fetch_from(*[Scripted(self, self.file, part(i, of=3)) for i in range(3)])

    def test_a_peer_with_a_name(self):
        peer = Peer(self, self.file)
        self.fetch(self.file, "--peer", f"localhost:{peer.address[1]}")
        self.assert_same(self.file.path, self.file.data)

    def test_a_peer_beside_the_trackers(self):
        """The tracker names one that has the odd chunks, the user one that has the even ones."""
        even, odd = (Scripted(self, self.file, part(i, of=2)) for i in range(2))
        tracker = Tracker(self, odd.address)
        self.fetch(self.file, peers=[even.address], tracker=tracker.address, me=(LOOPBACK, 65000))
        self.assert_same(self.file.path, self.file.data)

    def test_no_tracker_in_either_form(self):
        for where in (("-", f"{LOOPBACK}:0"), ("-", "0", LOOPBACK, "0"), ("-", LOOPBACK, "0"),
                      ("-", "-", LOOPBACK, "0")):
            with self.subTest(operands=where):
                self.file.path.unlink(missing_ok=True)
                peer = Peer(self, self.file)
                program = self.start([PROGRAMS / "cascade", "-c", "--peer", peer.name,
                                      self.file.metafile_path, *where])
                self.assertEqual(program.wait(), 0, program.stderr)
                self.assertNotIn("tracker", program.stderr)
                self.assert_same(self.file.path, self.file.data)


if __name__ == "__main__":
    unittest.main()
