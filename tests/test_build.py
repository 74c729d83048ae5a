"""The Makefile: what it builds anew, and what it leaves behind."""

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from support import HERE, Case, wait_until

SOURCES = HERE.parent
PROGRAMS = ["cascade", "mkcascade", "tracker"]
COMMANDS = ["cascade", "cascade-push", "mkcascade", "tracker"]
INSTALLED = [*(f"bin/{name}" for name in COMMANDS),
             *(f"share/bash-completion/completions/{name}" for name in COMMANDS),
             *(f"share/man/man{page.suffix[1:]}/{page.name}" for page in (SOURCES / "man").iterdir()),
             "share/zsh/site-functions/_cascade"]

# Makes an empty file of whatever it is asked for, which is all that make looks at.
EMPTY_COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do
	[ "$1" = -o ] && [ "$2" != /dev/null ] && : >"$2"
	shift
done
"""


def is_source(path):
    return (path.name in ("Makefile", "cascade-push") or path.suffix in (".c", ".h") or
            path.parent.name in ("man", "completion"))


class Build(Case):
    def setUp(self):
        super().setUp()
        self.tree = self.scratch / "tree"
        for folder, folders, files in os.walk(SOURCES):
            folders[:] = [name for name in folders if name != "build" and not name.startswith(".")]
            for path in filter(is_source, (Path(folder, name) for name in files)):
                copy = self.tree / path.relative_to(SOURCES)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        self.compiler = self.scratch / "cc"
        self.compiler.write_text(EMPTY_COMPILER)
        self.compiler.chmod(0o755)

    def make(self, *arguments):
        """Run make as from a shell, not as from the make that runs the tests."""
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES",
                                       "CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDLIBS", "DESTDIR")}
        made = subprocess.run(["make", "-j2", *arguments], cwd=self.tree, env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        self.assertEqual(made.returncode, 0, made.stdout + made.stderr)
        self.assertEqual(made.stderr, "")
        return made.stdout

    def files(self):
        """Return when each file of the tree was last written to."""
        return {str(path.relative_to(self.tree)): path.stat().st_mtime_ns
                for path in self.tree.rglob("*") if path.is_file()}

    def rebuilt(self, *arguments):
        """Run make, and return the objects and programs that it wrote to."""
        before = self.files()
        self.wait_for_next_tick()
        self.make(*arguments)
        return {name for name, when in self.files().items() if when != before.get(name)
                and (name.endswith(".o") or name in PROGRAMS)}

    def wait_for_next_tick(self):
        """Wait until a file that is written to gets another time than all before."""
        probe, last = self.scratch / "probe", max(self.files().values())

        def is_later():
            probe.write_text("")
            return probe.stat().st_mtime_ns > last
        wait_until(is_later, "the clock of the file system moves")

    def touch(self, name):
        self.wait_for_next_tick()
        os.utime(self.tree / name)

    def objects_from(self, header):
        """Return the objects whose sources include the header, directly or not."""
        def includes(path, seen):
            for name in re.findall(r'^#include "(.+)"', path.read_text(), re.M):
                if name not in seen and (self.tree / name).exists():
                    seen.add(name)
                    includes(self.tree / name, seen)
            return seen
        names = [path.relative_to(self.tree) for path in self.tree.rglob("*.c")
                 if not {"tests", "bench"} & set(path.relative_to(self.tree).parts)]
        return {f"build/{name.with_suffix('.o')}" for name in names
                if header in includes(self.tree / name, set())}

    def test_a_real_build(self):
        self.make("CFLAGS=-O0")
        self.assertEqual(self.rebuilt("CFLAGS=-O0"), set())
        self.touch("serve/slot.h")
        expected = self.objects_from("serve/slot.h")
        self.assertIn("build/peer_serve.o", expected)  # through another header
        self.assertNotIn("build/sha256.o", expected)
        self.assertEqual(self.rebuilt("CFLAGS=-O0"), expected | set(PROGRAMS))
        self.touch("tracker.c")
        self.assertEqual(self.rebuilt("CFLAGS=-O0"), {"build/tracker.o", "tracker"})
        self.make("CFLAGS=-O0", "install", f"DESTDIR={self.scratch}/stage", "PREFIX=/opt/x")
        stage = self.scratch / "stage"
        self.assertEqual(sorted(path for path in stage.rglob("*") if path.is_file()),
                         sorted(stage / "opt/x" / name for name in INSTALLED))
        for path in (stage / "opt/x/bin" / name for name in PROGRAMS):
            self.assertNotIn(b"pthread_create", path.read_bytes())  # csapp has it; who uses it?
            version = subprocess.run([path, "--version"], capture_output=True, text=True)
            self.assertRegex(version.stdout, rf"^{path.name} \d")
        self.make("CFLAGS=-O0", "uninstall", f"DESTDIR={self.scratch}/stage", "PREFIX=/opt/x")
        self.assertEqual([path for path in stage.rglob("*") if path.is_file()], [])

    def test_other_flags_build_everything_anew(self):
        flags = [f"CC={self.compiler}"]
        self.make(*flags)
        everything = {name for name in self.files() if name.endswith(".o") or name in PROGRAMS}
        self.assertGreater(len(everything), 20)
        other = self.scratch / "other-cc"
        shutil.copy(self.compiler, other)
        for change in ("CFLAGS=-O1", "CPPFLAGS=-DPORTABLE", "LDFLAGS=-static", f"CC={other}"):
            with self.subTest(change=change):
                flags.append(change)
                self.assertEqual(self.rebuilt(*flags), everything)
                self.assertEqual(self.rebuilt(*flags), set())

    def test_clean_leaves_nothing(self):
        before = self.files()
        self.make(f"CC={self.compiler}", "all", "units", "benches")
        self.assertGreater(len(self.files()), len(before))
        self.make("clean")
        self.assertEqual(self.files(), before)


if __name__ == "__main__":
    unittest.main()
