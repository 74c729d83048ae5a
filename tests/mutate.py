#!/usr/bin/env python3
"""Mutants: one comparison flipped, one operator changed, or one statement dropped at a time;
then the quick tests have to notice.

    mutate.py [--part N] [--seed N] [FILE...]     about one mutant in N, chosen by the seed
    mutate.py FILE:LINE                           those of one line

Works in a copy, below build/. A mutant that lives is printed: it needs a test, or a reason
why nobody could tell. The last lines count those that lived. (Not a test: exit status 0.)
"""

import argparse
import atexit
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
COPY = TOP / f"build/mutants.{os.getpid()}"
SECONDS = 4  # a test may take ten times as long as without a mutant, and so many seconds more

# The tests for each file: unit programs, and then words that tests of whole programs have
# in their names.
TESTS = {
    "sha256.c": (["sha256"], []),
    "net/wire.c": (["wire"], ["Sessions"]),
    "file/metafile.c": (["metafile"], ["test_metafile", "mkcascade"]),
    "file/check.c": (["check", "scan", "checker"], ["Resume", "test_ours"]),
    "file/datafile.c": (["datafile", "datafile_fails"], ["test_metafile", "test_ours", "test_changed", "test_space"]),
    "fetch/wanted.c": (["choice"], ["test_choice", "test_sim"]),
    "fetch/choice.c": (["choice"], ["test_choice", "test_sim"]),
    "fetch/arrival.c": (["arrival"], ["test_hostile", "test_choice", "test_fetch."]),
    "fetch/checkers.c": (["checkers", "arrival"], ["test_faults", "test_files"]),
    "fetch/share.c": (["share"], ["test_files"]),
    "serve/serve_client.c": (["serve", "serve_slow"], ["Sessions", "test_serve"]),
    "track/subscriptions.c": (["subscriptions"], ["test_tracker"]),
}

SWAPS = [("<=", "<"), (">=", ">"), (" < ", " <= "), (" > ", " >= "), ("==", "!="), ("!=", "=="), ("&&", "||"),
         ("||", "&&"), (" + 1", ""), (" - 1", ""), (" + ", " - "), (" * ", " + "), ("return 0;", "return -1;"),
         ("return -1;", "return 0;"), ("return true;", "return false;"), ("return false;", "return true;"),
         ("++", "--"), ("+= ", "-= "), ("|= ", "= ")]
STATEMENT = re.compile(r"^\t+(?!return|break|continue|case|default|goto|static|struct|const|unsigned|else|enum|"
                       r"(?:u?int\d*_t|int|char|bool|size_t|ssize_t|uint8_t) )[\w*(&][^{}]*;$")


def code_lines(text):
    """Return (number, line) of the lines of code, without comments' and preprocessor lines."""
    in_comment = False
    for number, line in enumerate(text.split("\n")):
        bare = line.strip()
        if not in_comment and not bare.startswith(("#", "/*", "*")) and line.startswith("\t"):
            yield number, line
        if "/*" in bare and "*/" not in bare:
            in_comment = True
        elif "*/" in bare:
            in_comment = False


def mutants_of(name):
    """Return (line number, the line, what becomes of it) of each mutant of a file."""
    found = []
    for number, line in code_lines((TOP / name).read_text()):
        code = line.split("/*")[0]
        for old, new in SWAPS:
            for match in re.finditer(re.escape(old), code):
                if code[:match.start()].count('"') % 2 == 0:
                    found.append((number, line, line[:match.start()] + new + line[match.end():]))
        if STATEMENT.match(code.rstrip()):
            found.append((number, line, re.match(r"\t+", line)[0] + ";"))
    return found


def machine_code(name):
    """Return what the compiler makes of a file of the copy. A mutant that it makes the same of
    is none: its line is for another machine, or says the same in another way."""
    made = subprocess.run(["cc", "-std=c11", "-I.", "-D_DEFAULT_SOURCE", "-D_FILE_OFFSET_BITS=64", "-O2", "-c", "-o",
                           "mutant.o", name], cwd=COPY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (COPY / "mutant.o").read_bytes() if made.returncode == 0 else None


def commands_for(name):
    """Return what has to be built, and the commands that may notice a mutant of a file."""
    units, words = TESTS[name]
    programs = [f"build/unit/test_{unit}" for unit in units]
    return ([*programs, *(["all"] if words else [])],
            [[program] for program in programs] + [[sys.executable, "tests/run.py", "-f", "-k", word] for word in words])


def fails(command, limit):
    """Whether a test fails, or takes longer than that."""
    test = subprocess.Popen(command, cwd=COPY, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, "UNIT_STOP": "1"})
    try:
        return test.wait(timeout=limit) != 0
    except subprocess.TimeoutExpired:
        os.killpg(test.pid, signal.SIGTERM)
        test.wait()
        return True


def make(targets):
    return subprocess.run(["make", "-s", "-j2", "CFLAGS=-O0", *targets], cwd=COPY, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def limits_for(name, commands):
    """Return each command, with the time that it may take."""
    limited = []
    for command in commands:
        start = time.monotonic()
        if fails(command, None):
            sys.exit(f"{name}: without a mutant {command} fails")
        limited.append((command, SECONDS + 10 * (time.monotonic() - start)))
    return limited


def noticed_by(targets, commands):
    """Return the command that fails, or None. It becomes the first: it notices most likely the
    next one too."""
    if not make(targets):
        return "compiler"
    for i, (command, limit) in enumerate(commands):
        if fails(command, limit):
            commands.insert(0, commands.pop(i))
            return command
    return None


def copy_tree():
    for name in subprocess.run(["git", "ls-files"], cwd=TOP, check=True, stdout=subprocess.PIPE,
                               text=True).stdout.split("\n"):
        if name and (TOP / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, COPY / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", metavar="FILE", nargs="*")
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--units", action="store_true", help="only the unit programs look")
    arguments = parser.parse_args()
    if arguments.units:
        for units, words in TESTS.values():
            words.clear()
    atexit.register(shutil.rmtree, COPY, ignore_errors=True)
    copy_tree()
    for wanted in arguments.files or [name for name, (units, words) in TESTS.items() if units or words]:
        name, _, line_wanted = wanted.partition(":")
        original = (COPY / name).read_text()
        lines = original.split("\n")
        same = machine_code(name)
        targets, commands = commands_for(name)
        if not make(targets):
            sys.exit(f"{name}: can't be built without a mutant")
        commands = limits_for(name, commands)
        lived = count = 0
        for number, old, new in mutants_of(name):
            text = f"{arguments.seed} {name} {number} {new}"
            if int(hashlib.sha256(text.encode()).hexdigest(), 16) % arguments.part != 0:
                continue
            if line_wanted and int(line_wanted) != number + 1:
                continue
            (COPY / name).write_text("\n".join(lines[:number] + [new] + lines[number + 1:]))
            if machine_code(name) in (None, same) or (by := noticed_by(targets, commands)) == "compiler":
                continue
            count += 1
            if by is None:
                lived += 1
                print(f"{name}:{number + 1}: lives: {old.strip()}  ->  {new.strip()}", flush=True)
        (COPY / name).write_text(original)
        print(f"{name}: of {count} mutants {lived} lived", flush=True)


if __name__ == "__main__":
    main()
