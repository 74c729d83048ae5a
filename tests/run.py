#!/usr/bin/env python3
"""Run tests: C programs that test units, and modules in Python.

A unit program prints a line "ok NAME", "FAIL NAME" or "skipped NAME: WHY" for
each test. Without NAME, all programs in build/unit and all modules test_*.py here
are run. Each test of a module has a time limit. The last line counts them all; exit
status 1 if any failed.
"""

import argparse
import concurrent.futures
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
# They end what hangs; what is only slow, on a machine with much else to do, has time enough.
TEST_SECONDS = 180  # for one test of a module
UNIT_SECONDS = 360  # for one unit program
UNIT_LINES = 50     # of its messages that are shown
COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")


# --- In a module's own process ---

class TooLong(Exception):
    """The test has run for longer than its time limit."""


def stop_test(signal_number, frame):
    raise TooLong(f"the test took longer than {TEST_SECONDS} s")


class Result(unittest.TestResult):
    """Counts, and sets the alarm for each test."""

    def __init__(self, verbose, failfast):
        super().__init__()
        self.verbose, self.failfast = verbose, failfast
        self.started = 0

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, TEST_SECONDS, 10)  # again, if tidying up hangs too

    def stopTest(self, test):
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().stopTest(test)
        if self.verbose:
            print(f"{time.monotonic() - self.started:7.2f} s  {test.id()}")


def select(suite, word):
    """Return the suite's tests whose name contains word."""
    tests = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            tests.addTests(select(test, word))
        elif word in test.id():
            tests.addTest(test)
    return tests


def keep_freed_memory():
    """Large blocks are not given back to the system and fetched from it again: that takes longer
    than the tests themselves."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in -1, -3:  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
            mallopt(parameter, 1 << 30)


def run_module(name, arguments):
    """Run one module's tests here, print what failed, and last the counts."""
    keep_freed_memory()
    signal.signal(signal.SIGALRM, stop_test)
    sys.path.insert(0, str(HERE))
    tests = select(unittest.defaultTestLoader.loadTestsFromName(name), arguments.word)
    result = Result(arguments.verbose, arguments.failfast)

    def stop(signal_number, frame):
        result.stop()
        sys.exit(1)  # the test fails with this, and tidies up

    signal.signal(signal.SIGTERM, stop)
    tests.run(result)
    for test, log in result.failures + result.errors:
        print(f"FAIL {test.id()}\n{log}")
    for test, why in result.skipped:
        print(f"skipped {test.id()}: {why}")
    # One test may have failed in several parts, and a class as a whole.
    failed = len({getattr(test, "test_case", test).id()
                  for test, _ in result.failures + result.errors + result.unexpectedSuccesses})
    skipped = len(result.skipped)
    passed = max(result.testsRun - failed - skipped, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)


# --- In the runner ---

class Outcome:
    """What came of one unit program or module."""

    def __init__(self, name, seconds, passed, failed, skipped, log):
        self.name, self.seconds = name, seconds
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.log = log

    def show(self):
        counts = f"{self.passed} passed"
        if self.failed:
            counts += f", {self.failed} FAILED"
        if self.skipped:
            counts += f", {self.skipped} skipped"
        print(f"{self.name:<26}{counts:<30}{self.seconds:6.1f} s")
        if self.log:
            print(self.log)
        sys.stdout.flush()


def run_command(command, seconds):
    """Return the exit status (None: it took too long), and both outputs."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace") as process:
        running.add(process)
        try:
            out, err = process.communicate(timeout=seconds)
            return process.returncode, out, err
        except subprocess.TimeoutExpired:
            process.kill()
            return (None, *process.communicate())
        finally:
            running.discard(process)


def run_unit(path):
    """Run one unit program, and count its lines."""
    start = time.monotonic()
    status, out, err = run_command([str(path.resolve())], UNIT_SECONDS)
    lines = out.splitlines()
    passed = sum(line.startswith("ok ") for line in lines)
    failures = [line for line in lines if line.startswith("FAIL ")]
    skipped = [line for line in lines if line.startswith("skipped ")]
    failed = len(failures)
    if status != 0 and not failures or not lines:
        failed += 1
        failures = [f"FAIL {path.name}: " + ("no test" if status == 0 else
                    "took too long" if status is None else f"exit status {status}")]
    log = failures + err.splitlines()[:UNIT_LINES] if failed else []
    return Outcome(f"unit/{path.name}", time.monotonic() - start, passed, failed, len(skipped),
                   "\n".join(log + skipped))


def start_module(name, arguments):
    """Run one module in a process of its own, and read its counts."""
    start = time.monotonic()
    command = [sys.executable, str(HERE / "run.py"), "--module", name, "-k", arguments.word]
    status, out, err = run_command(command + ["-v"] * arguments.verbose + ["-f"] * arguments.failfast, None)
    log, _, last = out.rstrip("\n").rpartition("\n")
    counts = COUNTS.fullmatch(last)
    if status != 0 or counts is None:
        return Outcome(name, time.monotonic() - start, 0, 1, 0,
                       f"FAIL {name}: exit status {status}\n{out}{err}")
    return Outcome(name, time.monotonic() - start, *map(int, counts.groups()),
                   "\n".join(text for text in (log, err) if text))


def find_units(names, word):
    """Return the paths of the unit programs to run."""
    if names:
        paths = [Path(name) for name in names if not name.endswith(".py")]
    else:
        paths = [path for path in sorted((HERE.parent / "build" / "unit").glob("*"))
                 if path.is_file() and not path.suffix and os.access(path, os.X_OK)]
    return [path for path in paths if word in path.name]


def find_modules(names):
    """Return the names of the modules, the longest first: it takes longest."""
    if names:
        return [Path(name).stem for name in names if name.endswith(".py")]
    paths = sorted(HERE.glob("test_*.py"), key=lambda path: -path.stat().st_size)
    return [path.stem for path in paths]


running = set()  # the processes that the runner waits for


def stop_all(signal_number, frame):
    for process in list(running):
        process.terminate()
    os._exit(1)


def run_all(arguments):
    """Run everything, show it, and return how many failed."""
    signal.signal(signal.SIGINT, stop_all)
    signal.signal(signal.SIGTERM, stop_all)
    passed = failed = skipped = 0
    with concurrent.futures.ThreadPoolExecutor(4 * (os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(start_module, name, arguments)
                for name in find_modules(arguments.names)]
        jobs += [pool.submit(run_unit, path)
                 for path in find_units(arguments.names, arguments.word)]
        for job in concurrent.futures.as_completed(jobs):
            outcome = job.result()
            if outcome.passed + outcome.failed + outcome.skipped > 0:
                outcome.show()
            passed += outcome.passed
            failed += outcome.failed
            skipped += outcome.skipped
            if failed and arguments.failfast:
                stop_all(signal.SIGTERM, None)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="*",
                        help="run this unit program, or this module of tests (NAME.py)")
    parser.add_argument("-k", dest="word", metavar="WORD", default="",
                        help="run only tests with WORD in their name")
    parser.add_argument("-v", dest="verbose", action="store_true",
                        help="show how long each test took")
    parser.add_argument("-f", dest="failfast", action="store_true",
                        help="stop at the first test that fails")
    parser.add_argument("--module", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.module:
        run_module(arguments.module, arguments)
    elif run_all(arguments) > 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
