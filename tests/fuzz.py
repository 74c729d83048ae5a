#!/usr/bin/env python3
"""Run the fuzzers in build/fuzz: each over its corpus, and then over new inputs.

    fuzz.py [--seconds N] [--runs N] [NAME...]

Without --runs for N seconds each (6). What libFuzzer finds on the way is kept in
build/fuzz/found, an input that fails in build/fuzz/failed; build/fuzz/NAME FILE runs it
again. The last line counts the fuzzers.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from support import HERE, PROGRAMS

BUILT = PROGRAMS / "build/fuzz"
CORPUS = HERE / "fuzz/corpus"


def is_libfuzzer(program):
    return b"libFuzzer" in program.read_bytes()


def inputs_in_seconds(program, command, seconds):
    """Run the plain driver, with new seeds, until the time is over. Return all that it said."""
    end, seed, said = time.monotonic() + seconds, 0, ""
    while time.monotonic() < end:
        seed += 1
        result = subprocess.run([*command, "-runs=20000", f"-seed={seed}"], capture_output=True, text=True, errors="replace")
        said += result.stdout + result.stderr
        if result.returncode != 0:
            return result.returncode, said
    return 0, said


def fuzz(name, seconds, runs):
    """Return the exit status, how many inputs there were, and what was said."""
    program, corpus = BUILT / name, CORPUS / name
    if is_libfuzzer(program):
        found, failed = BUILT / "found" / name, BUILT / "failed"
        found.mkdir(parents=True, exist_ok=True)
        failed.mkdir(exist_ok=True)
        limit = [f"-runs={runs}"] if runs else [f"-max_total_time={seconds}"]
        command = [program, *limit, "-max_len=4096", "-timeout=10", "-print_final_stats=1", "-verbosity=0",
                   f"-artifact_prefix={failed}/{name}-", found, corpus]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
        status, said = result.returncode, result.stdout + result.stderr
    else:
        command = [program, *sorted(corpus.iterdir())]
        if runs:
            result = subprocess.run([*command, f"-runs={runs}"], capture_output=True, text=True, errors="replace")
            status, said = result.returncode, result.stdout + result.stderr
        else:
            status, said = inputs_in_seconds(program, command, seconds)
    inputs = sum(map(int, re.findall(r"stat::number_of_executed_units: (\d+)", said)))
    return status, inputs, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="*")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")
    passed = failed = 0
    for name in arguments.names or sorted(path.name for path in CORPUS.iterdir()):
        started = time.monotonic()
        status, inputs, said = fuzz(name, arguments.seconds, arguments.runs)
        seconds = time.monotonic() - started
        good = status == 0 and inputs > 0
        passed, failed = passed + good, failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {name:<18}{inputs:12} inputs{seconds:8.0f} s", flush=True)
        if not good:
            print(said[-4000:])
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
