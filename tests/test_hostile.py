"""The fetcher among peers that fail, lie, or keep to the protocol in their own way."""

import time
import unittest

from scripted import (HANG_UP, STAY, FetchCase, Scripted, keep_silent, lie, not_yet, part, say, send,
                      send_and_hang_up)
from support import BAD_REQUEST, NO_CHUNK_YET, NO_FILE, NO_SUCH_CHUNK, OK, Peer, chunk_response, random_bytes


class Bad(FetchCase):
    def fetch_beside(self, answer, then=None, *options):
        """Fetch from a peer that gives this answer to everything, and from an honest one, which
        waits until the other has given it or, if it stays then, was left for it. Return the first,
        and the fetcher.
        """
        self.file.path.unlink(missing_ok=True)
        bad = Scripted(self, self.file, say(answer, then))
        honest = Scripted(self, self.file, after=[bad.left if then == STAY else bad.acted])
        return bad, self.fetch_from(bad, honest, options=["--timeout", 1, *options])

    def assert_banned(self, answer):
        """Whoever answers so must be named, and never be asked again."""
        bad, program = self.fetch_beside(answer, STAY)
        self.assertEqual(len(bad.connections), 1)
        self.assertEqual(len(bad.requests), 1)
        self.assertRegex(program.stderr, f"{bad.name}: .*; it is not asked again\n")

    def assert_survived(self, answer, then=None):
        """Whoever answers so must not hinder the others."""
        self.fetch_beside(answer, then)


class Liars(Bad):
    def test_wrong_bytes(self):
        self.assert_banned(lambda number: chunk_response(OK, random_bytes(len(self.file.chunk(number)))))

    def test_one_wrong_bit(self):
        def answer(number):
            chunk = bytearray(self.file.chunk(number))
            chunk[-1] ^= 1
            return chunk_response(OK, chunk)
        self.assert_banned(answer)

    def test_another_chunk(self):
        self.assert_banned(lambda number: chunk_response(
            OK, self.file.chunk((number + 1) % 30)[:len(self.file.chunk(number))]))

    def test_wrong_lengths(self):
        for length in (0, 1, 999, 1001, 1 << 32, (1 << 63) + 1, (1 << 64) - 1):
            with self.subTest(length=length):
                self.assert_banned(chunk_response(OK, bytes(min(length, 5000)), length))

    def test_an_unknown_status(self):
        for status in (5, 0x80, 0xff):
            with self.subTest(status=status):
                self.assert_banned(lambda number: chunk_response(status, self.file.chunk(number)))

    def test_a_garbage_header(self):
        self.assert_banned(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def test_a_message_without_end(self):
        self.assert_banned(chunk_response(NO_CHUNK_YET, b"x" * 1000, 1 << 40))

    def test_status_3_for_a_chunk_that_exists(self):
        self.assert_banned(chunk_response(NO_SUCH_CHUNK, b"no such chunk"))

    def test_status_4_for_a_good_request(self):
        self.assert_banned(chunk_response(BAD_REQUEST, b"what?"))

    def test_answers_that_nobody_asked_for(self):
        bad, _ = self.fetch_beside(lambda number: chunk_response(OK, self.file.chunk(number)) * 100, STAY)
        self.assertEqual(len(bad.connections), 1)

    def test_a_liar_that_was_honest_at_first(self):
        liar = Scripted(self, self.file, *[send] * 5,
                        say(lambda number: chunk_response(OK, bytes(len(self.file.chunk(number)))), STAY))
        self.fetch_from(liar, Scripted(self, self.file, after=[liar.left]))
        self.assertEqual(len(liar.connections), 1)

    def test_liars_alone_never_complete_a_file(self):
        liars = [Scripted(self, self.file, lie) for _ in range(3)]
        program = self.fetch(self.file, "--give-up", "1", peers=[liar.address for liar in liars], status=4)
        self.assertNotIn("complete", program.stderr)
        self.assertEqual([len(liar.requests) for liar in liars], [1, 1, 1])

    def test_a_message_for_the_terminal_is_not_obeyed(self):
        bad, program = self.fetch_beside(chunk_response(NO_FILE, b"\x1b[2J\r\n\x07"), None, "-v")
        self.assertIn(f"{bad.name}: doesn't have the file", program.stderr)
        self.assertNotRegex(program.stderr, r"[\x00-\x09\x0b-\x1f]")


class Failures(Bad):
    def test_status_1(self):
        self.assert_survived(chunk_response(NO_FILE, b"no such file"), HANG_UP)

    def test_status_2(self):
        self.assert_survived(chunk_response(NO_CHUNK_YET, b"not yet"))

    def test_status_2_without_words(self):
        self.assert_survived(chunk_response(NO_CHUNK_YET, b""))

    def test_a_peer_that_hangs_up_at_once(self):
        self.assert_survived(b"", HANG_UP)

    def test_a_peer_that_hangs_up_in_a_header(self):
        self.assert_survived(bytes(5), HANG_UP)

    def test_a_peer_that_hangs_up_in_a_chunk(self):
        self.assert_survived(lambda number: chunk_response(OK, self.file.chunk(number))[:300], HANG_UP)

    def test_a_peer_that_is_silent(self):
        self.assert_survived(b"")

    def test_a_peer_where_nobody_listens(self):
        self.fetch(self.file, peers=[self.vacant_address(), Peer(self, self.file).address])
        self.assert_same(self.file.path, self.file.data)


class Manners(FetchCase):
    """One peer, which keeps to the protocol: everything must come from it."""

    def fetch_by(self, *script, options=()):
        peer = Scripted(self, self.file, *script)
        self.fetch_from(peer, options=options)
        return peer

    def test_a_peer_that_closes_after_each_response(self):
        peer = self.fetch_by(send_and_hang_up)
        self.assertEqual(len(set(peer.requests)), self.file.count)

    def test_a_peer_that_closes_after_some_responses(self):
        self.fetch_by(*([send] * 6 + [send_and_hang_up]) * 5)

    def test_responses_in_single_bytes(self):
        self.file = self.describe_file("tiny", 205, 10)

        def answer(peer, connection, number):
            for byte in chunk_response(OK, self.file.chunk(number)):
                connection.sendall(bytes([byte]))
        self.fetch_by(answer)

    def test_responses_glued_together(self):
        held_back = []

        def answer(peer, connection, number):
            held_back.append(chunk_response(OK, self.file.chunk(number)))
            if len(peer.requests) in (1, 5, 6, 20, self.file.count):
                connection.sendall(b"".join(held_back))
                held_back.clear()
        self.fetch_by(answer)

    def test_status_2_is_asked_again_soon(self):
        start = time.monotonic()
        self.fetch_by(*[not_yet] * 3, send)
        self.assertLess(time.monotonic() - start, 8)

    def test_a_peer_that_broke_off_is_tried_again(self):
        self.fetch_by(say(lambda number: chunk_response(OK, self.file.chunk(number))[:300], HANG_UP), send)

    def test_a_silent_peer_is_left_and_tried_again(self):
        start = time.monotonic()
        self.fetch_by(keep_silent, send, options=["--timeout", "1"])
        self.assertTrue(1 <= time.monotonic() - start < 9, "the limit is 10 s without --timeout")

    def test_a_silent_peer_does_not_keep_a_chunk_from_the_others(self):
        self.file = self.describe_file("pair", 2000, 1000)
        silent = Scripted(self, self.file, keep_silent)
        self.fetch_from(silent, Scripted(self, self.file, after=[silent.acted]), options=["--timeout", "1"])
        self.assertEqual(len(silent.requests), 1)

    def test_chunks_are_put_together_from_peers_that_hold_parts(self):
        self.file = self.describe_file("parts", 100_500, 1000)
        self.fetch_from(*[Scripted(self, self.file, part(i, of=10)) for i in range(10)])


if __name__ == "__main__":
    unittest.main()
