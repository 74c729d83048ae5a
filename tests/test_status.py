"""What a script reads of a running peer: --status."""

import os
import signal
import subprocess
import time
import unittest

from scripted import Scripted, keep_silent, send
from support import LOOPBACK, OK, PROGRAMS, Case, ask_peer, chunk_request, wait_for_chunks, wait_until

KEYS = ["time", "state", "bytes", "length", "checked", "rate", "left", "peers", "clients", "sent"]


def blocks(text):
    """Return the whole blocks of the text, each as a dictionary."""
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in text.split("\n\n")[:-1]]


class Status(Case):
    def setUp(self):
        super().setUp()
        self.file = self.make_file("data", 10_000, 1000)
        self.path = self.scratch / "status"

    def now(self):
        """The block in the file; it is never half written."""
        block, = blocks(self.path.read_text())
        return block

    def wait_for(self, **values):
        def has():
            block = self.path.exists() and self.now()
            return block and all(block.get(key) == value for key, value in values.items()) and block
        return wait_until(has, f"the status is {values}")

    def test_a_fetcher_from_beginning_to_end(self):
        for options in (("-c",), ("--linger", "0"), ("-c", "-q")):
            with self.subTest(options=options):
                slow = Scripted(self, self.file, send, keep_silent)
                peer = self.start_peer(self.file, "--order=ascending", "-o", "copy", "--status", "status", *options,
                                       peers=[slow.address])
                block = self.wait_for(state="downloading", bytes="1000")
                self.assertEqual(list(block)[:len(KEYS)], KEYS)
                self.assertLess(abs(int(block["time"]) - time.time()), 100)
                self.assertEqual((block["length"], block["peers"]), ("10000", "1"))
                self.assertEqual((block["file.0.path"], block["file.0.state"], block["file.0.bytes"],
                                  block["file.0.length"]), ("copy", "incomplete", "1000", "10000"))
                self.assertNotIn("exit", block)
                peer.signal(signal.SIGTERM)
                self.assertEqual(peer.wait(), 5)
                self.wait_for(state="interrupted", exit="5", bytes="1000")
                seeder = self.start_seeder(self.file)
                peer = self.start_peer(self.file, "-o", "copy", "--status", "status", *options,
                                       peers=[seeder.address()])
                self.assertEqual(peer.wait(), 0)
                block = self.wait_for(state="complete", exit="0", bytes="10000", left="0")
                self.assertEqual(block["file.0.state"], "complete")
                self.assertEqual(sorted(os.listdir(self.scratch)), ["copy", "data", "data.cascade", "status"])
                (self.scratch / "copy").unlink()

    def test_what_a_serving_peer_sends(self):
        peer = self.start_peer(self.file, "--status", "status")
        wait_for_chunks(peer.address(), self.file, range(10))
        self.wait_for(state="complete", clients="0")
        for _ in range(5):
            self.assertEqual(ask_peer(peer.address(), chunk_request(self.file.hash, 1))[0], OK)
        wait_until(lambda: int(self.now()["sent"]) >= 5 * 1024, "what was sent is told")

    def test_a_failure_at_the_start(self):
        (self.scratch / "bad.cascade").write_bytes(b"x")
        self.path.write_text("state=complete\n\n")  # what an earlier run has left
        self.run_program("cascade", "-c", "--status", "status", "bad.cascade", "-", f"{LOOPBACK}:0",
                         "--peer", f"{LOOPBACK}:1", status=6)
        self.assertEqual((self.now()["state"], self.now()["exit"]), ("failed", "6"))

    def test_giving_up(self):
        absent = self.describe_file("absent", 10_000, 1000)
        self.fetch(absent, "--give-up", "1", "--status", "status", status=4, peers=[(LOOPBACK, 1)])
        self.assertEqual((self.now()["state"], self.now()["exit"]), ("gave-up", "4"))

    def test_standard_output_gets_one_block_after_the_other(self):
        peer = self.start_peer(self.file, "--status", "-", "--linger", "2")
        self.assertEqual(peer.wait(), 0)
        text = peer.stdout
        self.assertEqual(text.count("listening on"), 1)
        found = blocks(text)
        self.assertGreater(len(found), 2)
        self.assertEqual([block["exit"] for block in found if "exit" in block], ["0"])
        self.assertEqual(found[-1]["state"], "complete")

    def test_a_fifo_that_nobody_reads_holds_up_nobody(self):
        os.mkfifo(self.path)
        seeder = self.start_seeder(self.file)
        self.fetch(self.file, "-o", "copy", "--status", "status", peers=[seeder.address()])
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        self.fetch(self.file, "-o", "copy2", "--status", "status", peers=[seeder.address()])
        self.assertEqual(blocks(os.read(reader, 65536).decode())[-1]["exit"], "0")

    def test_a_pipe_that_is_full_holds_up_nobody(self):
        reading, writing = self.full_pipe()
        program = subprocess.Popen([PROGRAMS / "cascade", "--status", "-", "--linger", "1", self.file.metafile_path,
                                    "-", f"{LOOPBACK}:0"], stdout=writing, stderr=subprocess.DEVNULL)
        os.close(writing)
        try:
            # The line that tells where it listens waits, so something must be read.
            os.read(reading, 8192)
            self.assertEqual(program.wait(20), 0)
        finally:
            program.kill()
            program.wait()

    def test_where_it_cannot_be_written(self):
        (self.scratch / "link").symlink_to("status")
        (self.scratch / "folder").mkdir()
        for name in ("absent/status", "folder", "link", ""):
            with self.subTest(name=name):
                program = self.run_program("cascade", "--status", name, self.file.metafile_path, "-",
                                           f"{LOOPBACK}:0", status=1)
                self.assert_one_sentence(program, name)

    def test_a_name_cannot_pretend_to_be_a_line(self):
        os.rename(self.file.path, self.scratch / "a\nstate=complete")
        self.start_peer(self.file, "-o", "a\nstate=complete", "--status", "status")
        block = self.wait_for(state="complete")
        self.assertEqual(block["file.0.path"], "a?state=complete")

    def test_killed_it_leaves_a_whole_block(self):
        peer = self.start_peer(self.file, "--status", "status")
        self.wait_for(state="complete")
        peer.signal(signal.SIGKILL)
        peer.wait()
        self.assertEqual(self.now()["state"], "complete")


if __name__ == "__main__":
    unittest.main()
