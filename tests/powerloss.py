#!/usr/bin/env python3
"""The power fails: what the programs write is recorded (torture/fail.c), and replayed up to
each change, as a disk might have it then.

What was synced is there. Of what was not, each change may be there, be missing, or be there
in part: of a write some pages of 4 KiB, of renames and new names any. Then the program is
started again on what is there.

    powerloss.py [--seed N] [--tries N] [PATTERN]

With the same seed the same disks are made. The last line counts.
"""

import argparse
import fnmatch
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import os
from pathlib import Path

from support import LOOPBACK, PROGRAMS, SharedFile, make_metafile, operands, random_bytes
from torture import LIBRARY, Seeder

PAGE = 4096
ENTRY = struct.Struct("IIQQ")
WRITE, TRUNCATE, SYNC, RENAME, UNLINK, CREATE = range(1, 7)


class Change:
    def __init__(self, kind, inode, offset, data):
        self.kind, self.inode, self.offset, self.data = kind, inode, offset, data

    def names(self):
        return [name.decode() for name in self.data.split(b"\0")[:-1]]


def read_record(path):
    data, at, changes = path.read_bytes(), 0, []
    while at < len(data):
        kind, size, inode, offset = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        changes.append(Change(kind, inode, offset, data[at:at + size]))
        at += size
    return changes


def write_at(content, offset, data):
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset:offset + len(data)] = data


class Disk:
    """What a disk has after some of the changes: the contents of inodes, and which has which name."""

    def __init__(self, contents, names, folder):
        self.contents = {inode: bytearray(content) for inode, content in contents.items()}
        self.names, self.folder = dict(names), folder

    def apply(self, change, pages=None):
        """Apply a change; of a write only these pages, if any are given."""
        if change.kind == WRITE:
            content = self.contents.setdefault(change.inode, bytearray())
            end = change.offset + len(change.data)
            for start in range(change.offset - change.offset % PAGE, end, PAGE):
                if pages is None or start in pages:
                    low, high = max(start, change.offset), min(start + PAGE, end)
                    write_at(content, low, change.data[low - change.offset:high - change.offset])
        elif change.kind == TRUNCATE:
            content = self.contents.setdefault(change.inode, bytearray())
            del content[change.offset:]
            content.extend(bytes(change.offset - len(content)))
        elif change.kind == CREATE:
            self.contents.setdefault(change.inode, bytearray())
            self.names[change.names()[0]] = change.inode
        elif change.kind == RENAME:
            old, new = change.names()
            if old in self.names:
                self.names[new] = self.names.pop(old)
        elif change.kind == UNLINK:
            self.names.pop(change.names()[0], None)

    def content(self, path):
        inode = self.names.get(str(path))
        return None if inode is None else bytes(self.contents[inode])


def is_synced(change, later, folder):
    """Whether one of the later changes has put this one onto the disk."""
    of_name = change.kind in (RENAME, UNLINK, CREATE)
    return any(sync.kind == SYNC and sync.inode == (folder if of_name else change.inode) for sync in later)


def disks(start, changes, tries, chance):
    """Make disks as they may be after these changes: with all there, with nothing that was not synced, and others."""
    unsynced = [not is_synced(change, changes[i + 1:], start.folder) for i, change in enumerate(changes)]
    seen = set()
    for number in range(tries):
        disk = Disk(start.contents, start.names, start.folder)
        for change, is_unsynced in zip(changes, unsynced):
            fate = "kept"
            if is_unsynced and number > 0:
                fate = "dropped" if number == 1 else chance.choice(["kept", "dropped", "torn"])
            if fate == "kept":
                disk.apply(change)
            elif fate == "torn" and change.kind == WRITE:
                first = change.offset - change.offset % PAGE
                pages = range(first, change.offset + len(change.data), PAGE)
                disk.apply(change, {page for page in pages if chance.random() < 0.5})
        key = (tuple(sorted(disk.names.items())), *map(bytes, disk.contents.values()))
        if key not in seen:
            seen.add(key)
            yield disk


class Wrong(Exception):
    pass


class Case:
    """A program, what its folder holds at the start, and what a next start must make of it."""

    def __init__(self, scratch, seeder, file):
        self.scratch, self.seeder, self.shared = scratch, seeder, file
        self.refused = 0
        self.folder = Path(tempfile.mkdtemp(dir=scratch))
        self.file = SharedFile(self.folder / "data", file.data, file.chunk_size)

    def run(self, name, *arguments, record=None):
        env = dict(os.environ)
        if record:
            env |= {"LD_PRELOAD": str(LIBRARY), "TORTURE_RECORD": str(record)}
        return subprocess.run([str(word) for word in (PROGRAMS / name, *arguments)], env=env, cwd=self.folder,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def record(self):
        """Run the program once. Return the disk before, and the changes."""
        paths = [path for path in self.folder.iterdir() if path.is_file()]
        start = Disk({path.stat().st_ino: path.read_bytes() for path in paths},
                     {str(path): path.stat().st_ino for path in paths}, self.folder.stat().st_ino)
        record = self.scratch / "record"
        record.unlink(missing_ok=True)
        ended = self.act(record)
        if ended.returncode != 0:
            raise Wrong(f"without any fault: exit status {ended.returncode}: {ended.stderr}")
        return start, read_record(record)


class Fetching(Case):
    def __init__(self, scratch, seeder, file, held=(), sync=False):
        super().__init__(scratch, seeder, file)
        self.options = ["--fsync"] if sync else []
        self.sync = sync
        if held:
            self.file.path.write_bytes(file.without(*(n for n in range(file.count) if n not in held)))
        self.proven = bool(held)

    def fetch(self, *options, record=None):
        return self.run("cascade", "-c", "-q", "-j", 1, *options, "--peer", self.seeder.name, "--give-up", 5,
                        *operands(self.file, None, (LOOPBACK, 1)), record=record)

    def act(self, record):
        return self.fetch(*self.options, record=record)

    def check(self, disk, is_end):
        content = disk.content(self.file.path)
        if is_end and self.sync and content != self.file.data:
            raise Wrong("the program ended with 0, and the file is not on the disk")
        self.file.path.unlink(missing_ok=True)
        if content is not None:
            self.file.path.write_bytes(content)
        ended = self.fetch(*self.options)
        if ended.returncode != 0 and "left alone" in ended.stderr:
            if self.sync or self.proven:
                raise Wrong(f"a file of ours is refused: {ended.stderr}")
            if self.file.path.read_bytes() != content:
                raise Wrong("a file was refused and changed")
            self.refused += 1
            ended = self.fetch("--force")
        if ended.returncode != 0 or self.file.path.read_bytes() != self.file.data:
            raise Wrong(f"it doesn't complete: exit status {ended.returncode}: {ended.stderr}")


class Making(Case):
    def __init__(self, scratch, seeder, file, old):
        super().__init__(scratch, seeder, file)
        self.file.path.write_bytes(file.data)
        self.file.metafile_path.unlink()
        self.old = make_metafile(b"old", 1000) if old else None
        if old:
            self.file.metafile_path.write_bytes(self.old)

    def act(self, record):
        return self.run("mkcascade", "-b", self.file.chunk_size, self.file.path, record=record)

    def check(self, disk, is_end):
        content = disk.content(self.file.metafile_path)
        if content != self.file.metafile and (is_end or content != self.old):
            raise Wrong("the metafile is neither the old one nor the new one")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="*")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tries", type=int, default=6, help="disks after each change, at most")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="cascade-power-"))
    cleanups = []
    stage = type("Stage", (), {"addCleanup": staticmethod(cleanups.append)})()
    passed = failed = 0
    try:
        file = SharedFile(scratch / "small", random_bytes(60_000, "power"), 9_000)
        large = SharedFile(scratch / "large", random_bytes(300_000, "power"), 100_000)
        seeder = Seeder(stage, file, large)
        cases = {
            "new": lambda: Fetching(scratch, seeder, file),
            "new-large": lambda: Fetching(scratch, seeder, large),
            "resumed": lambda: Fetching(scratch, seeder, file, held=(1, 4)),
            "new-fsync": lambda: Fetching(scratch, seeder, file, sync=True),
            "new-large-fsync": lambda: Fetching(scratch, seeder, large, sync=True),
            "resumed-fsync": lambda: Fetching(scratch, seeder, file, held=(1, 4), sync=True),
            "mkcascade": lambda: Making(scratch, seeder, file, old=False),
            "mkcascade-again": lambda: Making(scratch, seeder, file, old=True),
        }
        for name, make in cases.items():
            if not fnmatch.fnmatch(name, arguments.pattern):
                continue
            chance = random.Random(f"{arguments.seed} {name}")
            case = make()
            start, changes = case.record()
            before = passed
            for end in range(len(changes) + 1):
                for number, disk in enumerate(disks(start, changes[:end], arguments.tries, chance)):
                    try:
                        case.check(disk, end == len(changes))
                        passed += 1
                    except Wrong as wrong:
                        failed += 1
                        print(f"FAIL {name}, after {end} of {len(changes)} changes, disk {number}: {wrong}", flush=True)
            print(f"{name:<18}{len(changes)} changes, {passed - before} disks, {case.refused} refused", flush=True)
    finally:
        for act in cleanups:
            act()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
