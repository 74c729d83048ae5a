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


def table():
    data = json.loads(llvm_cov("export", "-summary-only"))["data"][0]
    print(f"{'file':<26}{'lines':>12}{'branches':>14}")
    total = [0, 0, 0, 0]
    for entry in sorted(data["files"], key=lambda entry: entry["filename"]):
        name = os.path.relpath(entry["filename"], COPY)
        if not name.endswith(".c") or name.startswith(("tests", "bench", "sim", "..")):
            continue
        lines, branches = entry["summary"]["lines"], entry["summary"]["branches"]
        counts = [lines["covered"], lines["count"], branches["covered"], branches["count"]]
        total = [a + b for a, b in zip(total, counts)]
        print(f"{name:<26}{counts[0]:>6}/{counts[1]:<5}{counts[2]:>8}/{counts[3]:<5}")
    print(f"{'together':<26}{total[0]:>6}/{total[1]:<5}{total[2]:>8}/{total[3]:<5}")


def missing(name):
    """Show the lines with a branch that was never taken one way."""
    text = llvm_cov("show", "-show-branches=count", sources=[COPY / name])
    line = ""
    for shown in text.split("\n"):
        source = re.match(r"\s*(\d+)\|[^|]*\|(.*)", shown)
        branch = re.search(r"Branch \((\d+):(\d+)\): \[(True|False): (\S+), (True|False): (\S+)\]", shown)
        if source:
            line = source[2]
        elif branch and "0" in (branch[4].rstrip(","), branch[6]):
            which = branch[3] if branch[4].rstrip(",") == "0" else branch[5]
            print(f"{name}:{branch[1]}:{branch[2]}: never {which.lower()}: {line.strip()}")


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
