"""The fetcher among peers that fail, lie, or keep to the protocol in their own way."""

import os
import threading
import time
import unittest

from support import WAIT, Case, Peer, chunk_response, random_bytes, wait_for_end


class Bad(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 30_500, 1000)

    def fetch_beside(self, misbehave, wait_for_ban):
        """Fetch from a peer that misbehaves and from an honest one, which answers
        only when the other has misbehaved (and, if asked, was left for it).
        Return the first, and the fetcher.
        """
        asked, left = threading.Event(), threading.Event()

        def answer_badly(connection, number):
            end = misbehave(connection, number)
            asked.set()
            if wait_for_ban:
                wait_for_end(connection)
                left.set()
            return end

        def answer_honestly(connection, number):
            if not (left if wait_for_ban else asked).wait(WAIT):
                raise AssertionError("the other peer was not asked, or not left")
            honest.send_chunk(connection, number)

        bad, honest = Peer(self, self.file, answer_badly), Peer(self, self.file, answer_honestly)
        program = self.fetch(self.file, "--timeout", "1", peers=[bad.address, honest.address])
        self.assert_same(self.file.path, self.file.data)
        return bad, program

    def assert_banned(self, misbehave):
        """Whoever does this must be named, and never be asked again."""
        bad, program = self.fetch_beside(misbehave, wait_for_ban=True)
        self.assertEqual(len(bad.connections), 1)
        self.assertEqual(len(bad.requests), 1)
        self.assertIn("%s:%d" % bad.address, program.stderr)

    def assert_survived(self, misbehave):
        """Whoever does this must not hinder the others."""
        self.fetch_beside(misbehave, wait_for_ban=False)


class Liars(Bad):
    def test_wrong_bytes(self):
        self.assert_banned(lambda connection, number: connection.sendall(
            chunk_response(0, random_bytes(len(self.file.chunk(number))))))

    def test_one_wrong_bit(self):
        def answer(connection, number):
            chunk = bytearray(self.file.chunk(number))
            chunk[-1] ^= 1
            connection.sendall(chunk_response(0, chunk))
        self.assert_banned(answer)

    def test_another_chunk(self):
        self.assert_banned(lambda connection, number: connection.sendall(
            chunk_response(0, self.file.chunk((number + 1) % 30)[:len(self.file.chunk(number))])))

    def test_wrong_lengths(self):
        for length in (0, 1, 999, 1001, 1 << 32, (1 << 63) + 1, (1 << 64) - 1):
            with self.subTest(length=length):
                self.file.path.unlink(missing_ok=True)
                self.assert_banned(lambda connection, number: connection.sendall(
                    chunk_response(0, bytes(min(length, 5000)), length)))

    def test_an_unknown_status(self):
        for status in (5, 0x80, 0xff):
            with self.subTest(status=status):
                self.file.path.unlink(missing_ok=True)
                self.assert_banned(lambda connection, number: connection.sendall(
                    chunk_response(status, self.file.chunk(number))))

    def test_a_garbage_header(self):
        self.assert_banned(lambda connection, number: connection.sendall(
            b"HTTP/1.1 400 Bad Request\r\n\r\n"))

    def test_a_message_without_end(self):
        self.assert_banned(lambda connection, number: connection.sendall(
            chunk_response(2, b"x" * 1000, 1 << 40)))

    def test_status_3_for_a_chunk_that_exists(self):
        self.assert_banned(lambda connection, number: connection.sendall(
            chunk_response(3, b"no such chunk")))

    def test_status_4_for_a_good_request(self):
        self.assert_banned(lambda connection, number: connection.sendall(
            chunk_response(4, b"what?")))

    def test_answers_that_nobody_asked_for(self):
        bad, _ = self.fetch_beside(lambda connection, number: connection.sendall(
            chunk_response(0, self.file.chunk(number)) * 100), wait_for_ban=True)
        self.assertEqual(len(bad.connections), 1)

    def test_a_liar_that_was_honest_at_first(self):
        def answer(connection, number):
            wrong = len(liar.requests) > 5
            connection.sendall(chunk_response(0, bytes(len(self.file.chunk(number))) if wrong
                                              else self.file.chunk(number)))
            if wrong:
                wait_for_end(connection)
                lied.set()
            return wrong

        def answer_late(connection, number):
            self.assertTrue(lied.wait(WAIT))
            honest.send_chunk(connection, number)
        lied = threading.Event()
        liar, honest = Peer(self, self.file, answer), Peer(self, self.file, answer_late)
        self.fetch(self.file, peers=[liar.address, honest.address])
        self.assert_same(self.file.path, self.file.data)
        self.assertEqual(len(liar.connections), 1)

    def test_liars_alone_never_complete_a_file(self):
        liars = [Peer(self, self.file, lambda connection, number: connection.sendall(
            chunk_response(0, bytes(len(self.file.chunk(number)))))) for _ in range(3)]
        program = self.fetch(self.file, "--give-up", "1", peers=[liar.address for liar in liars], status=1)
        self.assertNotIn("complete", program.stderr)
        self.assertEqual([len(liar.requests) for liar in liars], [1, 1, 1])

    def test_a_message_for_the_terminal_is_not_obeyed(self):
        self.file.path.unlink(missing_ok=True)
        _, program = self.fetch_beside(lambda connection, number: connection.sendall(
            chunk_response(1, b"\x1b[2J\r\n\x07")), wait_for_ban=False)
        self.assertNotRegex(program.stderr, r"[\x00-\x09\x0b-\x1f]")


class Failures(Bad):
    def test_status_1(self):
        self.assert_survived(lambda connection, number: connection.sendall(
            chunk_response(1, b"no such file")) or True)

    def test_status_2(self):
        self.assert_survived(lambda connection, number: connection.sendall(
            chunk_response(2, b"not yet")))

    def test_status_2_without_words(self):
        self.assert_survived(lambda connection, number: connection.sendall(chunk_response(2, b"")))

    def test_a_peer_that_hangs_up_at_once(self):
        self.assert_survived(lambda connection, number: True)

    def test_a_peer_that_hangs_up_in_a_header(self):
        self.assert_survived(lambda connection, number: connection.sendall(bytes(5)) or True)

    def test_a_peer_that_hangs_up_in_a_chunk(self):
        self.assert_survived(lambda connection, number: connection.sendall(
            chunk_response(0, self.file.chunk(number))[:300]) or True)

    def test_a_peer_that_is_silent(self):
        self.assert_survived(lambda connection, number: None)

    def test_a_peer_where_nobody_listens(self):
        peer = Peer(self, self.file)
        self.fetch(self.file, peers=[("127.0.0.1", 1), peer.address])
        self.assert_same(self.file.path, self.file.data)


class Manners(Bad):
    """One peer, which keeps to the protocol: everything must come from it."""

    def fetch_from(self, answer, *options):
        peer = Peer(self, self.file, answer)
        self.fetch(self.file, *options, peers=[peer.address])
        self.assert_same(self.file.path, self.file.data)
        return peer

    def test_a_peer_that_closes_after_each_response(self):
        peer = self.fetch_from(lambda connection, number: connection.sendall(
            chunk_response(0, self.file.chunk(number))) or True)
        self.assertEqual(len(set(peer.requests)), self.file.count)

    def test_a_peer_that_closes_after_some_responses(self):
        def answer(connection, number):
            connection.sendall(chunk_response(0, self.file.chunk(number)))
            return len(peer.requests) % 7 == 0
        peer = Peer(self, self.file, answer)
        self.fetch(self.file, peers=[peer.address])
        self.assert_same(self.file.path, self.file.data)

    def test_responses_in_single_bytes(self):
        self.file = self.describe_file("tiny", 205, 10)

        def answer(connection, number):
            for byte in chunk_response(0, self.file.chunk(number)):
                connection.sendall(bytes([byte]))
        self.fetch_from(answer)

    def test_responses_glued_together(self):
        held_back = []

        def answer(connection, number):
            held_back.append(chunk_response(0, self.file.chunk(number)))
            if len(peer.requests) in (1, 5, 6, 20, self.file.count):
                connection.sendall(b"".join(held_back))
                held_back.clear()
        peer = Peer(self, self.file, answer)
        self.fetch(self.file, peers=[peer.address])
        self.assert_same(self.file.path, self.file.data)

    def test_status_2_is_asked_again_soon(self):
        refused = set()

        def answer(connection, number):
            if len(refused) < 3 and number not in refused:
                refused.add(number)
                connection.sendall(chunk_response(2, b"not yet"))
            else:
                connection.sendall(chunk_response(0, self.file.chunk(number)))
        start = time.monotonic()
        self.fetch_from(answer)
        self.assertLess(time.monotonic() - start, 8)

    def test_a_peer_that_broke_off_is_tried_again(self):
        def answer(connection, number):
            if len(peer.requests) == 1:
                connection.sendall(chunk_response(0, self.file.chunk(number))[:300])
                return True
            peer.send_chunk(connection, number)
        peer = Peer(self, self.file, answer)
        self.fetch(self.file, peers=[peer.address])
        self.assert_same(self.file.path, self.file.data)

    def test_a_silent_peer_is_left_and_tried_again(self):
        def answer(connection, number):
            if len(peer.connections) == 1:
                wait_for_end(connection)
                return True
            peer.send_chunk(connection, number)
        peer = Peer(self, self.file, answer)
        start = time.monotonic()
        self.fetch(self.file, "--timeout", "1", peers=[peer.address])
        self.assert_same(self.file.path, self.file.data)
        self.assertTrue(1 <= time.monotonic() - start < 9, "the limit is 10 s without --timeout")

    def test_a_silent_peer_does_not_keep_a_chunk_from_the_others(self):
        self.file = self.describe_file("pair", 2000, 1000)

        def keep_silent(connection, number):
            asked.set()
            wait_for_end(connection)

        def answer(connection, number):
            self.assertTrue(asked.wait(WAIT))
            honest.send_chunk(connection, number)
        asked = threading.Event()
        silent, honest = Peer(self, self.file, keep_silent), Peer(self, self.file, answer)
        self.fetch(self.file, "--timeout", "1", peers=[silent.address, honest.address])
        self.assert_same(self.file.path, self.file.data)
        self.assertEqual(len(silent.requests), 1)

    def test_chunks_are_put_together_from_peers_that_hold_parts(self):
        self.file = self.describe_file("parts", 100_500, 1000)

        def part(i):
            def answer(connection, number):
                if number % 10 == i:
                    peers[i].send_chunk(connection, number)
                else:
                    connection.sendall(chunk_response(2, b"not yet"))
            return answer
        peers = [Peer(self, self.file, part(i)) for i in range(10)]
        self.fetch(self.file, peers=[peer.address for peer in peers])
        self.assert_same(self.file.path, self.file.data)


if __name__ == "__main__":
    unittest.main()
