"""How a peer ends by itself, and which exit status each end has."""

import os
import signal
import unittest

from scripted import Scripted, keep_silent, send
from support import (LOOPBACK, OK, PROGRAMS, Case, ask_peer, chunk_request, connect, pause, receive_response,
                     wait_for_chunks, wait_until)

DONE, UNABLE, USAGE, FULL, GAVE_UP, INTERRUPTED, BAD_METAFILE = range(7)


class Linger(Case):
    def setUp(self):
        super().setUp()
        self.file = self.make_file("data", 10_000, 1000)

    def test_a_complete_peer_that_nobody_asks_ends(self):
        peer = self.start_peer(self.file, "--linger", "0")
        self.assertEqual(peer.wait(), DONE, peer.stderr)

    def test_it_fetches_first(self):
        seeder = self.start_seeder(self.file)
        peer = self.start_peer(self.file, "-o", "copy", "--linger", "1", peers=[seeder.address()])
        self.assertEqual(peer.wait(), DONE, peer.stderr)
        self.assert_same(self.scratch / "copy", self.file.data)

    def test_it_stays_while_somebody_asks(self):
        peer = self.start_peer(self.file, "--linger", "4")
        address = peer.address()
        wait_for_chunks(address, self.file, [1])
        with connect(address) as client:
            for _ in range(10):  # for longer than it lingers
                client.sendall(chunk_request(self.file.hash, 1))
                self.assertEqual(receive_response(client), (OK, self.file.chunk(1)))
                pause(0.5)
            self.assertFalse(peer.has_ended())
            self.assertEqual(peer.wait(), DONE, peer.stderr)  # the client only holds its connection

    def test_who_asks_for_another_file_does_not_count(self):
        peer = self.start_peer(self.file, "--linger", "1")
        address = peer.address()

        def asks_in_vain():
            try:
                ask_peer(address, chunk_request(bytes(32), 0))
            except (OSError, EOFError):
                pass
            return peer.has_ended()
        wait_until(asks_in_vain, "it ends all the same")
        self.assertEqual(peer.wait(), DONE, peer.stderr)

    def test_a_download_that_goes_on_is_waited_for(self):
        absent = self.describe_file("absent", 10_000, 1000)
        silent = Scripted(self, absent, send, keep_silent)
        peer = self.start_peer(absent, "--linger", "0", peers=[silent.address])
        wait_until(lambda: len(silent.requests) > 1, "it has a chunk, and asks for more")
        pause(0.5)
        self.assertFalse(peer.has_ended())
        peer.signal(signal.SIGTERM)
        self.assertEqual(peer.wait(), INTERRUPTED)

    def test_bad_values(self):
        for value in ("", "-1", "1s", "99999999999"):
            with self.subTest(value=value):
                self.assert_misuse(self.start_peer(self.file, "--linger", value))
        self.assert_misuse(self.start_peer(self.file, "-c", "--linger", "1", peers=[(LOOPBACK, 1)]))


class Statuses(Case):
    def test_a_serving_peer_that_is_interrupted(self):
        file = self.describe_file("data", 10_000, 1000)
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                peer = self.start_peer(file)
                peer.address()
                os.killpg(peer.pid, number)  # as a terminal does: the fetcher, too
                self.assertEqual(peer.wait(), INTERRUPTED)
                self.assertIn("0 of 10 chunks held", peer.stderr)

    def test_a_bad_metafile_and_one_that_cannot_be_read(self):
        bad = self.scratch / "bad.cascade"
        bad.write_bytes(b"CASCADE1")
        for name, status in ((bad, BAD_METAFILE), (self.scratch / "absent.cascade", UNABLE)):
            for program, *arguments in (("cascade", name, "-", f"{LOOPBACK}:0"), ("tracker", "-p", "0", name)):
                with self.subTest(program=program, name=name.name):
                    ended = self.run_program(program, *arguments, status=status)
                    self.assert_one_sentence(ended, name)

    def test_giving_up_also_while_serving(self):
        file = self.describe_file("data", 10_000, 1000)
        for options in ((), ("-c",)):
            with self.subTest(options=options):
                peer = self.start_peer(file, *options, "--give-up", "1", peers=[(LOOPBACK, 1)])
                self.assertEqual(peer.wait(), GAVE_UP, peer.stderr)

    def test_a_signal_that_asks_for_a_report_ends_no_program_that_begins(self):
        file = self.make_file("data", 1000, 1000)
        for command in (["cascade", file.metafile_path, "-", f"{LOOPBACK}:0"],
                        ["tracker", "-a", LOOPBACK, "-p", "0"]):
            with self.subTest(program=command[0]):
                program = self.start([PROGRAMS / command[0], *command[1:]])
                program.address()
                program.signal(signal.SIGUSR1)
                program.says("0 peers" if command[0] == "tracker" else " of 1 chunk held")


if __name__ == "__main__":
    unittest.main()
