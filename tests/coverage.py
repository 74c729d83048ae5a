#!/usr/bin/env python3
"""Which lines and branches the tests take, for each file.

    coverage.py [--torture ARGUMENTS] [-k WORD] [--missing FILE]

Builds a copy of the tree in build/coverage with clang, and runs the tests there; with
--torture, tests/torture.py too. Each process counts in a file that it has mapped, so what
one did counts even if it was killed. --missing FILE shows that file's branches that were
never taken, of the last run, instead.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
COPY = TOP / "build/coverage"
PROFILES = COPY / "profiles"
FLAGS = "-O1 -g -fprofile-instr-generate -fcoverage-mapping -mllvm -runtime-counter-relocation -Wno-unused-command-line-argument"
FOLDERS = ("base", "net", "file", "fetch", "serve", "track")


def build():
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in subprocess.run(["git", "ls-files"], cwd=TOP, check=True, stdout=subprocess.PIPE,
                               text=True).stdout.split("\n"):
        if name and (TOP / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, COPY / name)
    subprocess.run(["make", "-s", "-j2", "CC=clang", f"CFLAGS={FLAGS}", "all", "units", "build/sim/sim", "build/torture/fail.so"],
                   cwd=COPY, check=True)
    PROFILES.mkdir()


def run(command):
    """Run it in the copy; what fails is shown, and counts all the same."""
    env = {**os.environ, "LLVM_PROFILE_FILE": str(PROFILES / "%c%m.profraw")}
    env.pop("CASCADE_PROGRAMS", None)
    subprocess.run([str(word) for word in command], cwd=COPY, env=env)


def objects():
    units = [path for path in sorted((COPY / "build/unit").iterdir()) if path.is_file() and not path.suffix]
    return [COPY / "cascade", COPY / "tracker", COPY / "mkcascade", COPY / "build/sim/sim", *units]


def llvm_cov(command, *options, sources=()):
    first, *others = objects()
    command = ["llvm-cov", command, *options, "-instr-profile", COPY / "all.profdata", first]
    for program in others:
        command += ["-object", program]
    return subprocess.run([str(word) for word in [*command, *sources]], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout


def merge():
    profiles = [path for path in PROFILES.iterdir() if path.stat().st_size > 0]
    subprocess.run(["llvm-profdata", "merge", "-failure-mode=all", "-o", COPY / "all.profdata", *profiles], check=True)


def branches_of(functions):
    """Return for each file how many of its branches' ways were taken, in any of the programs
    that have it, and how many ways there are."""
    taken = {}
    for function in functions:
        for line, column, end_line, end_column, true, false, file, *_ in function["branches"]:
            ways = taken.setdefault(function["filenames"][file], {}).setdefault((line, column, end_line, end_column),
                                                                                [False, False])
            ways[0] |= true > 0
            ways[1] |= false > 0
    return {name: (sum(map(sum, places.values())), 2 * len(places)) for name, places in taken.items()}


def table():
    data = json.loads(llvm_cov("export"))["data"][0]
    branches = branches_of(data["functions"])
    print(f"{'file':<26}{'lines':>12}{'branches':>14}")
    total = [0, 0, 0, 0]
    for entry in sorted(data["files"], key=lambda entry: entry["filename"]):
        name = os.path.relpath(entry["filename"], COPY)
        if not name.endswith(".c") or name.startswith(("tests", "bench", "sim", "..")):
            continue
        lines = entry["summary"]["lines"]
        counts = [lines["covered"], lines["count"], *branches.get(entry["filename"], (0, 0))]
        total = [a + b for a, b in zip(total, counts)]
        print(f"{name:<26}{counts[0]:>6}/{counts[1]:<5}{counts[2]:>8}/{counts[3]:<5}")
    print(f"{'together':<26}{total[0]:>6}/{total[1]:<5}{total[2]:>8}/{total[3]:<5}")


def missing(name):
    """Show the branches that were never taken, in none of the programs that have the file."""
    text = llvm_cov("show", "-show-branches=count", sources=[COPY / name])
    lines, never = {}, {}
    for shown in text.split("\n"):
        source = re.match(r"\s*(\d+)\|[^|]*\|(.*)", shown)
        branch = re.search(r"Branch \((\d+):(\d+)\): \[(True|False): (\S+), (True|False): (\S+)\]", shown)
        if source:
            lines.setdefault(int(source[1]), source[2].strip())
        elif branch:
            place = int(branch[1]), int(branch[2])
            zero = {way for way, count in ((branch[3], branch[4]), (branch[5], branch[6])) if count.rstrip(",") == "0"}
            never[place] = never.get(place, zero) & zero
    for (line, column), ways in sorted(never.items()):
        for way in sorted(ways):
            print(f"{name}:{line}:{column}: never {way.lower()}: {lines[line]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", dest="word", default="", help="only tests with this in their name")
    parser.add_argument("--torture", metavar="ARGUMENTS", help="run torture.py too, with these")
    parser.add_argument("--missing", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.missing:
        missing(arguments.missing)
        return
    build()
    run([sys.executable, "tests/run.py", "-k", arguments.word])
    if arguments.torture is not None:
        run([sys.executable, "tests/torture.py", *arguments.torture.split()])
    merge()
    table()


if __name__ == "__main__":
    main()
