"""A fetcher whose system calls are slow or fail now and then.

strace delays the calls, or has them fail. Where it can't, these tests are skipped.
"""

import functools
import os
import shutil
import signal
import subprocess
import time
import unittest

from scripted import FetchCase, Scripted, send, send_and_hang_up
from support import IS_PORTABLE, LOOPBACK, PROGRAMS, WAIT, Peer, operands, pause, wait_until
from test_files import Directory

POLL = "/^p?poll(_time64)?$"  # whatever the C library calls it here
FORK = "/^(clone3?|v?fork)$"
OPEN = "/^open(at)?$"
PIPE = "/^pipe2?$"
SILENCE = 2  # seconds that a peer may be silent for
SLOW = 2.5 * SILENCE  # seconds that one write takes


@functools.cache
def can_inject():
    """Whether there is a strace that may trace, and can have calls fail."""
    if shutil.which("strace") is None:
        return False
    probe = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write",
             "-e", "inject=write:error=EINTR:when=98..99", "true"]
    return subprocess.run(probe, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


class Faulty(FetchCase):
    def setUp(self):
        super().setUp()
        if not can_inject():
            self.skipTest("there is no strace here that has system calls fail")

    def start_faulty(self, calls, what, *options, peers=(), tracker=None, only_at=None):
        """Start to fetch the file from these peers; what is done to these calls, in each process by itself."""
        for peer in peers:
            options += ("-p", peer.name)
        trace = ["strace", "-f", "-qq", "-o", self.scratch / "trace", "-e", f"trace={calls}",
                 "-e", f"inject={calls}:{what}", *(["-P", only_at] if only_at else [])]
        return self.start([*trace, PROGRAMS / "cascade", "-c", *options,
                           *operands(self.file, tracker, (LOOPBACK, 0))])

    def assert_completed(self, program):
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assert_same(self.file.path, self.file.data)

    def injections(self):
        """Return how many calls were delayed or failed."""
        text = (self.scratch / "trace").read_text(errors="replace")
        return text.count("(DELAYED)") + text.count("(INJECTED)")


class OwnDisk(Faulty):
    """The time that a write takes is no peer's silence."""

    def assert_nobody_is_blamed(self, calls, when, chunk_size):
        def send_slowly(peer, connection, number):
            pause(0.02)
            send(peer, connection, number)
        self.file = self.describe_file(f"by {chunk_size}", 40 * chunk_size + 1, chunk_size)
        peers = [Scripted(self, self.file, send_slowly) for _ in range(2)]
        program = self.start_faulty(calls, f"delay_enter={int(SLOW * 1e6)}:when={when}", "-v",
                                    "--timeout", SILENCE, "--give-up", SILENCE, peers=peers)
        self.assert_completed(program)
        self.assertGreater(self.injections(), 0)
        self.assertEqual([len(peer.connections) for peer in peers], [1, 1], program.stderr)

    def test_a_write_of_small_chunks_takes_long(self):
        self.assert_nobody_is_blamed("pwrite64", "5", 1000)

    def test_a_write_of_large_chunks_takes_long(self):
        self.assert_nobody_is_blamed(*(("pwrite64", "5") if IS_PORTABLE else ("splice", "10")), 100_000)


class Finishing(Faulty):
    def test_the_others_are_fetched_while_one_goes_onto_the_disk(self):
        slow, other = self.file = [self.describe_file(name, 30_500, 1000) for name in ("slow", "other")]
        slow.path.write_bytes(slow.data[:1000])  # a new one goes there also when its first chunk is verified

        def send_later(peer, connection, number):
            wait_until(lambda: slow.path.read_bytes() == slow.data, "the first file is there")
            pause(0.05)
            peer.send_chunk(connection, number)
        peers = Scripted(self, slow), Scripted(self, other, send, *[send_later] * 30)
        program = self.start_faulty("fsync", f"delay_enter={WAIT}000000", "--fsync",
                                    tracker=Directory(self, *peers).address, only_at=slow.path)
        wait_until(lambda: other.path.exists() and other.path.read_bytes() == other.data, "the other is there")
        self.assertNotIn("complete", program.stderr)
        cascade, = program.children()
        for pid in cascade.pid, program.pid:  # the delay is long, and strace would wait
            os.kill(pid, signal.SIGKILL)
        program.wait()


class Liveliness(Faulty):
    def test_nobody_waits_for_a_checker_that_is_new(self):
        """Each checker's first two answers take long: meanwhile chunks are fetched, one by one."""
        asked = []

        def send_after_a_pause(peer, connection, number):
            asked.append(time.monotonic())
            pause(0.05)
            return send_and_hang_up(peer, connection, number)
        peer = Scripted(self, self.file, send_after_a_pause)
        program = self.start_faulty("write", "delay_enter=2000000:when=1..2", "-q", "-j", 4, peers=[peer])
        self.assert_completed(program)
        # The peer is asked again when its first chunk was found to be right; and the fetcher itself
        # writes to a checker twice. Else only the checkers are late.
        gaps = [later - earlier for earlier, later in zip(asked, asked[1:])]
        self.assertLess(sum(gap > 1 for gap in gaps), 3, gaps)
        self.assertGreater(self.injections(), 4)


class Passing(Faulty):
    """What fails once and may work the next time doesn't end a download."""

    def assert_survived(self, calls, error, when, chunk_size=1000, only_at=None):
        with self.subTest(calls=calls, error=error, when=when):
            if self.file.path.exists():
                self.file.path.unlink()
            self.file = self.describe_file(f"by {chunk_size}", 30 * chunk_size + 1, chunk_size)
            program = self.start_faulty(calls, f"error={error}:when={when}", peers=[Peer(self, self.file)],
                                        only_at=only_at)
            self.assert_completed(program)
            self.assertGreater(self.injections(), 0)

    def calls_at_start(self, calls):
        """Return how often the dynamic linker, and what is linked, make that call."""
        trace = self.scratch / "trace"
        subprocess.run(["strace", "-f", "-qq", "-o", trace, "-e", f"trace={calls}", PROGRAMS / "cascade", "--version"],
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        return trace.read_text().count(f"{calls}(")

    def test_poll(self):
        for error in "EINTR", "EAGAIN", "ENOMEM":
            self.assert_survived(POLL, error, "3")

    def test_writing(self):
        for error in "EINTR", "EAGAIN", "ENOMEM":
            self.assert_survived("pwrite64", error, "2")

    def test_splicing(self):
        if IS_PORTABLE:
            return  # it does without, and promises nothing
        for error in "EINTR", "EAGAIN", "ENOMEM":
            for when in 2, 3:
                self.assert_survived("splice", error, when, 100_000)

    def test_descriptors(self):
        for calls in PIPE, "socket":
            for error in "EMFILE", "ENOMEM":
                for when in (1,) if calls == "socket" else (1, 2):
                    self.assert_survived(calls, error, when)
        self.assert_survived(PIPE, "ENFILE", "1..4", 100_000)

    def test_forking(self):
        for when in "1", "1..1000":  # checkers there may be none at all
            self.assert_survived(FORK, "EAGAIN", when)

    def test_the_network(self):
        for calls, error in (("connect", "EAGAIN"), ("sendto", "ENOBUFS"), ("recvfrom", "ENOMEM"),
                             ("recvfrom", "EINTR")):
            self.assert_survived(calls, error, "1")

    def test_opening(self):
        self.file = self.describe_file("by 1000", 30_001, 1000)
        for path in self.file.path, self.file.metafile_path:
            for error in "EINTR", "ENOMEM":
                self.assert_survived(OPEN, error, "1", only_at=path)

    def test_making_it_ready_to_be_written(self):
        path = self.scratch / "by 1000"
        for calls, error, when in (("flock", "EINTR", "1"), ("flock", "EINTR", "2"), ("ftruncate", "EINTR", "1"),
                                   ("ftruncate", "EINTR", "2"), ("pwrite64", "ENOMEM", "1")):
            self.assert_survived(calls, error, when, only_at=path)

    def test_talking_to_a_checker(self):
        for calls, error in (("write", "EINTR"), ("write", "ENOMEM"), ("read", "EINTR")):
            self.assert_survived(calls, error, self.calls_at_start(calls) + 2)


if __name__ == "__main__":
    unittest.main()
