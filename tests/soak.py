#!/usr/bin/env python3
"""A serving peer under many clients, some of them bad, for long: whether every
answer is right, and whether anything is left behind.

    soak.py [--short]     some minutes, or less than one

Needs build/bench/load. Ends with one line, "N passed, N failed".
"""

import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import crowd  # noqa: E402
from crowd import Crawling, Resetting, Silent, load  # noqa: E402
from support import (LOOPBACK, PROGRAMS, Program, SharedFile, ask_peer, chunk_request,  # noqa: E402
                     random_bytes, wait_until)

LONGEST_MS = 3000  # that an honest client may have to wait for a small chunk, on a busy machine
MEMORY_KIB = 128  # that the parent may grow by
LOG_LINES = 2  # that may be said of any number of bad clients, and one more every 10 s


class Scale:
    def __init__(self, short):
        self.short = short
        self.one_by_one = 5000 if short else 100000
        self.at_once = 300 if short else 1000
        self.at_once_answers = 3000 if short else 100000
        self.resets_s = 5 if short else 60
        self.crowd_s = 4 if short else 30
        self.silent = 300 if short else 1000
        self.limit_s = 50 if short else 600  # for what is counted, not timed


class Soak:
    def __init__(self, scratch, scale):
        self.scale = scale
        self.small = SharedFile(scratch / "small", random_bytes(4 << 20), 1 << 10)
        self.large = SharedFile(scratch / "large", random_bytes(16 << 20), 1 << 20)
        for file in (self.small, self.large):
            file.path.write_bytes(file.data)
        self.peer = Program([PROGRAMS / "cascade",
                             f"{self.small.metafile_path}:{self.large.metafile_path}",
                             "-", LOOPBACK, 0])
        self.address = self.peer.address()
        for file in (self.small, self.large):
            wait_until(lambda: all(ask_peer(self.address, chunk_request(file.hash, n))[0] == 0
                                   for n in (0, file.count - 1)), "all is checked")
        load(self.address, self.small.metafile_path, "-c", 8, "-n", 200, seconds=10)
        self.settle()
        self.at_start = self.descriptors(), self.memory()

    # What is seen from outside.

    def settle(self):
        """Wait until no child is there any more, nor a zombie."""
        wait_until(lambda: not self.peer.children(), "all children have ended", 45)

    def descriptors(self):
        directory = f"/proc/{self.peer.pid}/fd"
        return sorted(os.readlink(f"{directory}/{name}") for name in os.listdir(directory))

    def memory(self):
        """Return what the parent has for itself, and its share of all, in KiB."""
        def value(name, text):
            return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))
        process = Path("/proc", str(self.peer.pid))
        return (value("RssAnon:", (process / "status").read_text()),
                value("Pss:", (process / "smaps_rollup").read_text()))

    def check(self, condition, what):
        if not condition:
            raise AssertionError(what)

    def check_result(self, result, answers=None, longest=None):
        self.check(result.errors == 0, f"{result.errors} errors, {result.answers} answers")
        self.check(result.answers > 0 and answers in (None, result.answers),
                   f"{result.answers} answers, not {answers}")
        self.check(longest is None or result.max < longest,
                   f"an honest client waited {result.max:.0f} ms (p99 {result.p99:.1f} ms)")

    def serves_beside(self, some_crowd, seconds):
        """Whether an honest client is served, beside a crowd, within a second."""
        said = len(self.peer.stderr.splitlines())
        with some_crowd:
            result = load(self.address, self.small.metafile_path, "-H", seconds=seconds)
        print(f"    honest: {result.rate:.0f}/s, p99 {result.p99:.1f} ms, max {result.max:.1f} ms")
        lines = self.peer.stderr.splitlines()[said:]
        self.check(len(lines) <= LOG_LINES + seconds // 10, f"{len(lines)} lines were said: {lines[:5]}")
        self.check_result(result, longest=LONGEST_MS)

    # The tests, in the order in which they run.

    def one_after_the_other(self):
        result = load(self.address, self.small.metafile_path, "-H", "-n", self.scale.one_by_one,
                      seconds=self.scale.limit_s)
        self.check_result(result, answers=self.scale.one_by_one)

    def many_at_a_time(self):
        result = load(self.address, self.small.metafile_path, "-H", "-c", self.scale.at_once,
                      "-n", self.scale.at_once_answers, seconds=self.scale.limit_s)
        self.check_result(result, answers=self.scale.at_once_answers)

    def large_chunks_at_a_time(self):
        result = load(self.address, self.large.metafile_path, "-H", "-k", "-c", 32, "-d", 4,
                      "-n", 500 if self.scale.short else 20000, seconds=self.scale.limit_s)
        self.check_result(result)

    def resets_in_mid_chunk(self):
        resetting = Resetting(self.address, self.large)
        self.serves_beside(resetting, self.scale.resets_s)
        self.check(resetting.failures == 0, f"{resetting.failures} clients were not served")
        self.check(resetting.resets > 30 * self.scale.resets_s, f"only {resetting.resets} resets")

    def silent_crowd(self):
        self.serves_beside(Silent(self.address, self.scale.silent), self.scale.crowd_s)

    def crawling_crowd(self):
        self.serves_beside(Crawling(self.address, self.large, 300), self.scale.crowd_s)

    def nothing_is_left(self):
        self.settle()
        descriptors, (anonymous, share) = self.descriptors(), self.memory()
        descriptors_before, (anonymous_before, share_before) = self.at_start
        print(f"    memory: {anonymous_before} -> {anonymous} KiB of its own,"
              f" {share_before} -> {share} KiB with its share; {len(descriptors)} descriptors")
        self.check(descriptors == descriptors_before, f"{descriptors_before} became {descriptors}")
        self.check(anonymous <= anonymous_before + MEMORY_KIB, "the parent's own memory has grown")
        self.check(share <= share_before + 4 * MEMORY_KIB, "the parent's memory has grown")

    def ends_on_sigterm(self):
        """With clients of all kinds there."""
        with Silent(self.address, 100), Crawling(self.address, self.large, 100):
            begun = time.monotonic()
            self.peer.signal(signal.SIGTERM)
            status = self.peer.wait(10)
            print(f"    it took {time.monotonic() - begun:.2f} s")
        self.check(status == 0, f"exit status {status}")
        self.check(not self.peer.family(), "processes are left")
        print("    it said: " + (self.peer.stderr.strip().replace("\n", "\n      ") or "nothing"))


def main():
    if sys.argv[1:] not in ([], ["--short"]):
        sys.exit(f"usage: {sys.argv[0]} [--short]")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so everything started ends
    crowd.allow_descriptors(8192)
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="cascade-soak-") as scratch:
        soak = Soak(Path(scratch), Scale(short=bool(sys.argv[1:])))
        for test in (soak.one_after_the_other, soak.many_at_a_time, soak.large_chunks_at_a_time,
                     soak.resets_in_mid_chunk, soak.silent_crowd, soak.crawling_crowd,
                     soak.nothing_is_left, soak.ends_on_sigterm):
            begun = time.monotonic()
            print(f"{test.__name__.replace('_', ' ')} ...", flush=True)
            try:
                test()
                passed += 1
            except Exception as error:
                failed += 1
                print(f"    FAILED: {error}")
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
            print(f"    {time.monotonic() - begun:.1f} s", flush=True)
        for wrong in soak.peer.end():
            failed += 1
            print(wrong)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
