#!/usr/bin/env python3
"""Every call fails once: the programs run with build/torture/fail.so, which has one call
fail, be cut short, or end its process, and each time it is seen what comes of it.

    torture.py                        every point
    torture.py 'fetch/pwrite.3=EIO'   one point, or all that a pattern matches
    torture.py --part 20              about one in 20, chosen by the date, and each point
                                      for which there was once a defect
    torture.py --list PATTERN         only names them

A point is SCENARIO/CALL.NUMBER=FAULT: the call of that number, among all calls of that name
that the scenario's processes make together. The fault is an errno (with a + before the =:
from that call on), "short", "kill-before" or "kill-after". A run whose processes made fewer
calls this time passes. The last line counts; exit status 1 if any failed.
"""

import argparse
import concurrent.futures
import datetime
import errno
import fnmatch
import hashlib
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from support import (ALARMING, CHUNK_REQUEST, HERE, LIST, LOOPBACK, NO_CHUNK_YET, NO_FILE, OK, PROGRAMS, SUBSCRIBE,
                     TRACKER_REQUEST, Server, SharedFile, all_processes, chunk_request, chunk_response, connect,
                     make_metafile, operands, parse_entries, parse_tracker_response, random_bytes, receive,
                     receive_all, receive_response, tracker_entry, tracker_request, tracker_response)

LIBRARY = PROGRAMS / "build/torture/fail.so"
SOURCE = HERE / "torture/fail.c"
PATIENCE = 2  # seconds that a client waits for an answer
FAILED = (1, 3, 4, 5)  # exit statuses; never wrong usage, or a bad metafile
LONGEST = 20  # seconds for one run: none waits that long, whatever fails

# What each call can give, by its manual page. What can't be met here is left out: bad
# arguments, and rights that the scenario has.
ERRORS = {
    "open": "EINTR EIO EMFILE ENFILE ENOMEM ENOSPC EDQUOT EACCES",
    "close": "EINTR EIO ENOSPC EDQUOT",
    "read": "EINTR EIO ENOMEM",
    "write": "EINTR EIO ENOSPC EDQUOT EFBIG EPIPE",
    "pread": "EINTR EIO ENOMEM",
    "pwrite": "EINTR EIO ENOSPC EDQUOT EFBIG ENOMEM",
    "lseek": "EINVAL EIO",
    "ftruncate": "EINTR EIO EFBIG EINVAL EPERM ENOSPC",
    "fstat": "EIO ENOMEM",
    "stat": "EACCES EIO ENOENT ENOMEM",
    "lstat": "EACCES EIO ENOMEM",
    "access": "EACCES EIO",
    "fsync": "EINTR EIO ENOSPC EDQUOT EINVAL",
    "rename": "EACCES EIO ENOSPC EDQUOT",
    "unlink": "EACCES EIO",
    "flock": "EINTR ENOLCK EWOULDBLOCK",
    "fcntl": "EINVAL EMFILE",
    "ioctl": "EINVAL ENOTTY",
    "pipe": "EMFILE ENFILE",
    "mmap": "ENOMEM ENODEV EAGAIN",
    "mprotect": "ENOMEM",
    "memfd_create": "EMFILE ENFILE ENOMEM",
    "madvise": "EINVAL ENOMEM",
    "posix_fadvise": "EINVAL",
    "malloc": "ENOMEM",
    "calloc": "ENOMEM",
    "realloc": "ENOMEM",
    "fork": "EAGAIN ENOMEM",
    "waitpid": "EINTR",
    "nice": "EPERM",
    "prctl": "EINVAL",
    "syscall": "EOPNOTSUPP ENOMEM EPERM E2BIG",
    "setrlimit": "EPERM",
    "socket": "EMFILE ENFILE ENOBUFS ENOMEM EACCES",
    "socketpair": "EMFILE ENFILE ENOMEM",
    "setsockopt": "ENOBUFS ENOPROTOOPT",
    "getsockopt": "ENOBUFS",
    "getsockname": "ENOBUFS",
    "bind": "EADDRINUSE EADDRNOTAVAIL EACCES",
    "listen": "EADDRINUSE",
    "accept": "EINTR EAGAIN ECONNABORTED EPROTO EMFILE ENFILE ENOBUFS ENOMEM EPERM",
    "connect": "EINTR EAGAIN EADDRNOTAVAIL ECONNREFUSED ENETUNREACH EHOSTUNREACH ETIMEDOUT EPERM",
    "shutdown": "ENOTCONN",
    "send": "EINTR EAGAIN ECONNRESET EPIPE ENOBUFS ENOMEM",
    "recv": "EINTR EAGAIN ECONNRESET ENOMEM ETIMEDOUT",
    "sendfile": "EINTR EAGAIN ECONNRESET EPIPE EIO ENOMEM",
    "splice": "EINTR EAGAIN EINVAL ENOMEM ENOSPC EIO",
    "poll": "EINTR ENOMEM",
    "ppoll": "EINTR ENOMEM",
    "nanosleep": "EINTR",
    "getaddrinfo": "ENOMEM EMFILE",
    "say": "EINTR EAGAIN EIO EPIPE ENOSPC",
}
PASSING = {"EINTR", "EAGAIN", "ECONNABORTED", "EPROTO"}  # nothing gives these for ever,
LASTING = {("fork", "EAGAIN"), ("mmap", "EAGAIN")}       # but these calls
CUT_SHORT = {"read", "write", "pread", "pwrite", "send", "recv", "sendfile", "splice"}
CHANGING = {"write", "pwrite", "splice", "ftruncate", "open", "close", "rename", "unlink", "fsync"}

# Where there was once a defect: these are in every part.
ONCE_DEFECTIVE = (HERE / "torture/defects").read_text().split()

WHAT = {"count": 0, "fail": 1, "fail+": 2, "short": 3, "short+": 4, "kill-before": 5, "kill-after": 6}
CALLS = re.findall(r"CALL\((\w+)\)", SOURCE.read_text())
HEADER = struct.Struct("IIIiII")


class Wrong(Exception):
    """What must not come of a fault."""


class Point:
    def __init__(self, scenario, call, number, fault, lasting=False):
        self.scenario, self.call, self.number, self.fault, self.lasting = scenario, call, number, fault, lasting
        self.kills = fault.startswith("kill")

    def __str__(self):
        return f"{self.scenario}/{self.call}.{self.number}{'+' * self.lasting}={self.fault}"

    def share(self):
        """Return what the library is told."""
        what = self.fault if self.kills else "short" if self.fault == "short" else "fail"
        return HEADER.pack(WHAT[what + "+" * self.lasting], CALLS.index(self.call), self.number,
                           getattr(errno, self.fault, 0), 0, 0)


class Seeder(Server):
    """Serves complete files. A fetcher that is ended or fails may send it anything."""

    def __init__(self, stage, *files):
        self.files = {file.hash: file for file in files}
        self.requests = []  # (file, chunk number)
        super().__init__(stage, self.serve)

    def serve(self, connection):
        while len(request := receive(connection, CHUNK_REQUEST.size)) == CHUNK_REQUEST.size:
            _, _, number, cascade_hash = CHUNK_REQUEST.unpack(request)
            file = self.files[cascade_hash]
            self.requests.append(number)
            connection.sendall(chunk_response(OK, file.chunk(number)))


class Lister(Server):
    """A tracker that always names these peers."""

    def __init__(self, stage, peers):
        self.answer = tracker_response(0, b"".join(tracker_entry(peer.address) for peer in peers))
        super().__init__(stage, self.serve)

    def serve(self, connection):
        if len(receive(connection, TRACKER_REQUEST.size)) == TRACKER_REQUEST.size:
            connection.sendall(self.answer)


class Stage:
    """What the runs of all scenarios share: files, peers and a tracker."""

    def __init__(self, scratch):
        self.scratch, self.cleanups = scratch, []
        self.small = SharedFile(scratch / "small", random_bytes(4500, "small"), 1000)
        self.large = SharedFile(scratch / "large", random_bytes(250_000, "large"), 100_000)
        self.peers = [Seeder(self, self.small, self.large) for _ in range(2)]
        self.tracker = Lister(self, self.peers)

    def addCleanup(self, act):
        self.cleanups.append(act)

    def close(self):
        for act in self.cleanups:
            act()


class Run:
    """One run of a scenario, with one fault or none."""

    def __init__(self, stage, scenario, point):
        self.stage, self.scenario, self.point = stage, scenario, point
        self.folder = Path(tempfile.mkdtemp(dir=stage.scratch))
        self.share_path = self.folder / "share"
        self.share_path.write_bytes((point.share() if point else HEADER.pack(0, 0, 0, 0, 0, 0)).ljust(4096, b"\0"))
        self.process = None

    # What the scenarios call.

    def copy(self, file, data=None):
        """Put a file's metafile, and this data, into the run's own folder."""
        mine = SharedFile(self.folder / file.path.name, file.data, file.chunk_size)
        if data is not None:
            mine.path.write_bytes(data)
        return mine

    def start(self, name, *arguments, faulty=True, **environment):
        self.out, self.err = self.folder / f"out", self.folder / f"err"
        env = dict(os.environ) | {key: str(value) for key, value in environment.items()}
        if faulty:
            env |= {"LD_PRELOAD": str(LIBRARY), "TORTURE": str(self.share_path)}
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen([str(word) for word in (PROGRAMS / name, *arguments)], cwd=self.folder,
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
                                            start_new_session=True)

    def said(self):
        return self.err.read_text(errors="replace")

    def wait(self):
        """Wait for the end. Return the exit status; none of the family may be left."""
        try:
            status = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Wrong(f"it has not ended in {LONGEST} s") from None
        deadline = time.monotonic() + 3
        while self.is_left():
            if time.monotonic() > deadline:
                left = [p.pid for p in all_processes() if p.session == self.process.pid]
                self.kill()
                raise Wrong(f"processes were left: {left}")
            time.sleep(0.002)
        said = self.said()
        if ALARMING.search(re.sub("(a checker|the writer) has died", "", said)):  # that may be what was done
            raise Wrong("alarming words")
        if status == -signal.SIGKILL and self.point and self.point.kills:
            return status
        if status not in (0, *FAILED):
            raise Wrong(f"exit status {status}")
        return status

    def is_left(self):
        try:
            os.killpg(self.process.pid, 0)
            return any(p.session == self.process.pid and p.state not in "ZX" for p in all_processes())
        except ProcessLookupError:
            return False

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def terminate(self):
        """End a server. Return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def address(self):
        """Return where it listens; None if it has ended, as it may."""
        deadline = time.monotonic() + LONGEST
        while time.monotonic() < deadline:
            found = re.match(r"listening on ([\d.]+):(\d+)\n", self.out.read_text())
            if found:
                return found[1], int(found[2])
            if self.process.poll() is not None:
                self.check_failure(self.wait())
                return None
            time.sleep(0.002)
        raise Wrong("it doesn't listen")

    def check_failure(self, status):
        """It may have failed if it says what and why."""
        if self.point is None and status != 0:
            raise Wrong(f"exit status {status}")
        if status == 0 or self.point.kills or self.point.call == "say":
            return
        said = self.said()
        if not said.strip():
            raise Wrong("it failed and didn't say why")
        reason = os.strerror(getattr(errno, self.point.fault, 0))
        if reason not in said and not re.search(self.scenario.other_reasons, said):
            raise Wrong(f'it failed and didn\'t say "{reason}"')

    def check_data(self, file, *numbers):
        """Of these chunks no byte may have changed."""
        data = file.path.read_bytes() if file.path.exists() else b""
        for number in numbers:
            start = number * file.chunk_size
            if data[start:start + len(file.chunk(number))] != file.chunk(number):
                raise Wrong(f"{file.path.name}: chunk {number} was right, and is not any more")

    def site(self):
        """Return how often the fault came, and where in the source."""
        _, _, _, _, done, site = HEADER.unpack(self.share_path.read_bytes()[:HEADER.size])
        if not site:
            return done, ""
        line = subprocess.run(["addr2line", "-s", "-f", "-i", "-e", PROGRAMS / self.scenario.program, hex(site - 1)],
                              stdout=subprocess.PIPE, text=True).stdout.split("\n")
        return done, " ".join(line[:2])

    def counts(self):
        data = self.share_path.read_bytes()[HEADER.size:]
        return dict(zip(CALLS, struct.unpack_from(f"{len(CALLS)}I", data)))


# --- The scenarios ---

class Scenario:
    program = "cascade"
    other_reasons = "given up"

    def __init__(self, name):
        self.name = name


class Fetch(Scenario):
    """A fetch with -c: of a file that isn't there, is there in part, or is complete; with an older
    file that has some of its chunks, or without one."""

    # A peer that fails is said with -v only; a checker that died has no errno.
    other_reasons = (r"given up|a checker is gone|a checker has died|another process is downloading it|"
                     r"Memory allocation failure|Memory")

    def __init__(self, name, file, held=(), old=(), options=(), tracker=False):
        super().__init__(name)
        self.file, self.held, self.old, self.options, self.tracker = file, held, old, options, tracker

    def run(self, run):
        shared = getattr(run.stage, self.file)
        data = None
        if self.held:
            data = shared.without(*(n for n in range(shared.count) if n not in self.held))
        mine = run.copy(shared, data)
        old = mine.path.with_name("old")
        old_data = shared.without(*(n for n in range(shared.count) if n not in self.old))
        old.write_bytes(old_data)
        seconds = 1 if run.point and run.point.lasting else 3
        peers = run.stage.peers
        tracker = run.stage.tracker.address if self.tracker else None
        common = ["-c", "-j", 2, "--timeout", 2, *self.options]
        if not self.tracker:
            for peer in peers:
                common += ["--peer", peer.name]
        where = operands(mine, tracker, (LOOPBACK, 1))
        run.start("cascade", "-v", "--give-up", seconds, *common, *where)
        status = run.wait()
        run.check_failure(status)
        if status == 0 and mine.path.read_bytes() != mine.data:
            raise Wrong("exit status 0, and the file is wrong")
        run.check_data(mine, *self.held)
        if old.read_bytes() != old_data:
            raise Wrong("the older file was changed")
        if status == 0 or run.point is None:
            return
        # What was said to be held is not fetched again.
        had = {int(n) for n in re.findall(r"chunk (\d+) came from it", run.said())}
        said = run.said()
        peer = Seeder(run.stage, shared)
        options = ["--peer", peer.name]
        run.start("cascade", "-c", "-j", 2, *self.options, *options, *operands(mine, None, (LOOPBACK, 1)), faulty=False)
        again = run.wait()
        peer.close()
        if again != 0 or mine.path.read_bytes() != mine.data:
            raise Wrong(f"it can't be resumed: {run.said()}\nafter: {said}")
        if twice := (had | set(self.held)) & set(peer.requests):
            raise Wrong(f"it had chunks that are fetched again: {twice}\nafter: {said}")


class Pipe(Scenario):
    """A fetch to standard output: the file, or its beginning."""

    other_reasons = Fetch.other_reasons + "|the writer has died"

    def run(self, run):
        shared = run.stage.small
        mine = run.copy(shared)
        seconds = 1 if run.point and run.point.lasting else 3
        peers = [word for peer in run.stage.peers for word in ("--peer", peer.name)]
        folder = run.folder / "tmp"
        folder.mkdir()
        run.start("cascade", "-v", "--give-up", seconds, "-c", "-j", 2, "--timeout", 2, "-o", "-", *peers,
                  *operands(mine, None, (LOOPBACK, 1)), TMPDIR=folder)
        status = run.wait()
        run.check_failure(status)
        written = run.out.read_bytes()
        if not shared.data.startswith(written) or (status == 0 and written != shared.data):
            raise Wrong(f"exit status {status}, and {len(written)} bytes that are not what they should be")
        killed = run.point is not None and run.point.kills
        if any(folder.iterdir()) and not killed and run.point.call != "unlink":
            raise Wrong("a temporary file was left")


class Serve(Scenario):
    """A serving peer: of two files that are complete; or that it fetches first."""

    other_reasons = "."  # a peer that serves an incomplete file ends with 1

    def __init__(self, name, complete, options=()):
        super().__init__(name)
        self.complete, self.options = complete, options

    def run(self, run):
        files = [run.copy(file, file.data if self.complete else None) for file in (run.stage.small, run.stage.large)]
        peers, tracker = [], None
        if not self.complete:
            tracker = run.stage.tracker.address
        run.start("cascade", "-j", 2, "--timeout", 2, *self.options, *peers, *operands(files, tracker, (LOOPBACK, 0)))
        address = run.address()
        if address is not None:
            served = self.ask(run, address, files, first=True)
            if not (run.point and run.point.lasting):
                served |= self.ask(run, address, files, first=False)
            # It may still fail to start when it has said where it listens, but never later.
            if run.process.poll() is not None and served and not run.point.kills:
                raise Wrong(f"the serving parent has ended, with {run.process.poll()}")
            run.check_failure(run.terminate())
        if self.complete:
            for file in files:
                if file.path.read_bytes() != file.data:
                    raise Wrong("a complete file was changed")

    def ask(self, run, address, files, first):
        """Ask for each chunk until it comes, or it was said why it doesn't; the first client may be
        turned away. Return whether any came."""
        deadline = time.monotonic() + (1 if first else 6)
        missing = [(file, number) for file in files for number in range(file.count)]
        while missing and time.monotonic() < deadline and run.process.poll() is None:
            try:
                with connect(address) as connection:
                    connection.settimeout(PATIENCE)
                    for file, number in list(missing):
                        connection.sendall(chunk_request(file.hash, number))
                        status, body = receive_response(connection)
                        if status == OK and body != file.chunk(number):
                            raise Wrong(f"it serves wrong bytes as chunk {number}")
                        if status == OK:
                            missing.remove((file, number))
                        elif status not in (NO_CHUNK_YET, NO_FILE):
                            raise Wrong(f"it answers with status {status}")
                        elif status == NO_FILE:
                            break
            except (EOFError, OSError):
                if first:
                    break
            if not first and missing and run.point and run.said().strip():
                # Something was said: what is served is served, and the rest isn't.
                if all(status_of(address, file, number) in (OK, NO_CHUNK_YET, NO_FILE) for file, number in missing):
                    time.sleep(0.05)
                    if time.monotonic() > deadline - 3:
                        break
            time.sleep(0.01)
        if missing and not first and run.process.poll() is None and not (run.point and run.said().strip()):
            raise Wrong(f"it doesn't serve {len(missing)} chunks")
        return len(missing) < sum(file.count for file in files)


def status_of(address, file, number):
    try:
        with connect(address) as connection:
            connection.settimeout(PATIENCE)
            connection.sendall(chunk_request(file.hash, number))
            return receive_response(connection)[0]
    except (EOFError, OSError):
        return None


class Track(Scenario):
    """The tracker: a peer subscribes, and is then named to another."""

    program = "tracker"

    def run(self, run):
        mine = run.copy(run.stage.small)
        run.start("tracker", "-a", LOOPBACK, "-p", 0, mine.metafile_path)
        address = run.address()
        if address is None:
            return
        peer = (LOOPBACK, 7)
        self.ask(address, tracker_request(SUBSCRIBE, mine.hash, peer))  # this one may fail
        lasting = run.point is not None and run.point.lasting
        deadline = time.monotonic() + 5
        while not lasting and not (run.point and run.point.kills):
            self.ask(address, tracker_request(SUBSCRIBE, mine.hash, peer))
            named = self.ask(address, tracker_request(LIST, mine.hash, (LOOPBACK, 8)))
            if named == [peer]:
                break
            if run.point and run.process.poll() is not None:
                break
            if named is not None and named != [] or time.monotonic() > deadline:
                raise Wrong(f"it names {named}; it said: {run.said()}")
        if run.point and not run.point.kills and run.process.poll() is not None:
            status = run.wait()
            if status == 0:
                raise Wrong("it ended by itself")
            run.check_failure(status)  # it can't be confined, and says so
            return
        status = run.terminate()
        if status != 0 and not (run.point and run.point.kills):
            raise Wrong(f"exit status {status}")

    @staticmethod
    def ask(address, request):
        """Return who is named; None if there was no whole answer."""
        try:
            with connect(address) as connection:
                connection.settimeout(PATIENCE)
                connection.sendall(request)
                status, body = parse_tracker_response(receive_all(connection))
        except (OSError, AssertionError, struct.error):
            return None
        if status != 0:
            raise Wrong(f"it answers with status {status}: {body}")
        return [entry[0] for entry in parse_entries(body)]


class Make(Scenario):
    """mkcascade, over an older metafile. That one is there afterwards, or the new one."""

    program = "mkcascade"
    other_reasons = "the process that hashes the whole"

    def run(self, run):
        mine = run.copy(run.stage.small, run.stage.small.data)
        old = make_metafile(b"old", 1000)
        mine.metafile_path.write_bytes(old)
        run.start("mkcascade", "-b", 1000, mine.path)
        status = run.wait()
        run.check_failure(status)
        found = mine.metafile_path.read_bytes()
        if found != mine.metafile and (status == 0 or found != old):
            raise Wrong("the metafile is neither the old one nor the new one")
        left = list(run.folder.glob("mkcascade.*"))
        if left and not (run.point and (run.point.kills or run.point.call == "unlink")):
            raise Wrong(f"it has left {left}")
        if mine.path.read_bytes() != mine.data:
            raise Wrong("the data file was changed")
        if status != 0:
            run.start("mkcascade", "-b", 1000, mine.path, faulty=False)
            if run.wait() != 0 or mine.metafile_path.read_bytes() != mine.metafile:
                raise Wrong(f"it can't be made any more: {run.said()}")


SCENARIOS = [
    Make("mkcascade"),
    Track("tracker"),
    Fetch("fetch", "small"),
    Fetch("fetch-large", "large"),
    Fetch("fetch-fsync", "small", options=("--fsync",)),
    Fetch("fetch-status", "small", options=("--status", "status")),
    Fetch("fetch-tracker", "small", tracker=True),
    Pipe("fetch-pipe"),
    Fetch("resume", "small", held=(0, 2)),
    Fetch("fetch-from", "small", held=(0,), old=(1, 2, 4), options=("--from", "old")),
    Fetch("check", "small", held=range(5), options=("--verify-whole",)),
    Serve("serve", complete=True),
    Serve("serve-verified", complete=True, options=("--verify-on-send", "--max-upload", "10M")),
    Serve("fetch-and-serve", complete=False),
]


# --- All points ---

def points_of(scenario, counts):
    for call in CALLS:
        for number in range(1, counts[call] + 1):
            for fault in ERRORS[call].split():
                yield Point(scenario.name, call, number, fault)
                if fault not in PASSING or (call, fault) in LASTING:
                    yield Point(scenario.name, call, number, fault, lasting=True)
            if call in CUT_SHORT:
                yield Point(scenario.name, call, number, "short")
                yield Point(scenario.name, call, number, "short", lasting=True)
            if call in CHANGING:
                yield Point(scenario.name, call, number, "kill-before")
                yield Point(scenario.name, call, number, "kill-after")


def count_calls(stage, scenario):
    """Run the scenario twice without a fault. Return how often each call was made, at most."""
    most = dict.fromkeys(CALLS, 0)
    for _ in range(2):
        run = Run(stage, scenario, None)
        scenario.run(run)
        most = {call: max(most[call], count) for call, count in run.counts().items()}
        shutil.rmtree(run.folder)
    return most


class Results:
    def __init__(self):
        self.passed, self.unreached, self.wrong = 0, 0, []
        self.lock = threading.Lock()

    def add(self, point, done, wrong):
        with self.lock:
            self.unreached += done == 0
            if wrong is None:
                self.passed += 1
                return
            self.wrong.append(point)
            print(f"FAIL {point}: {wrong}", flush=True)


def run_point(stage, scenario, point, results, verbose):
    run = Run(stage, scenario, point)
    wrong = None
    started = time.monotonic()
    try:
        scenario.run(run)
    except Wrong as error:
        done, site = run.site()
        wrong = f"{error} [{site}]\n    " + "\n    ".join(run.said().splitlines()[-6:])
    except Exception as error:  # of the driver's own
        wrong = f"{type(error).__name__}: {error}"
    finally:
        if run.process is not None:
            run.kill()
    done, site = run.site() if verbose else (HEADER.unpack(run.share_path.read_bytes()[:HEADER.size])[4], "")
    if verbose:
        print(f"{point}: {time.monotonic() - started:.2f} s, {done} times, {site}, "
              f"status {run.process.returncode if run.process else None}\n" + run.said(), flush=True)
    shutil.rmtree(run.folder, ignore_errors=True)
    results.add(point, done, wrong)


def is_in_part(point, part, day):
    name = str(point)
    chosen = int(hashlib.sha256(f"{day} {name}".encode()).hexdigest(), 16) % part == 0
    return chosen or any(fnmatch.fnmatch(name, pattern) for pattern in ONCE_DEFECTIVE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="*", help="points, by name; * and ? as in a shell")
    parser.add_argument("--part", type=int, default=1, metavar="N", help="about one point in N, chosen by the date")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="the date to choose by")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scratch = Path(tempfile.mkdtemp(prefix="cascade-torture-"))
    results = Results()
    stage = Stage(scratch)
    started = time.monotonic()
    try:
        for scenario in SCENARIOS:
            patterns = arguments.pattern or ["*"]
            if not any(fnmatch.fnmatch(scenario.name, p.split("/")[0]) for p in patterns):
                continue
            begun, before, at = time.monotonic(), len(results.wrong), results.passed
            points = [point for point in points_of(scenario, count_calls(stage, scenario))
                      if any(fnmatch.fnmatch(str(point), p if "/" in p else p + "/*") for p in patterns) and
                      (arguments.part == 1 or is_in_part(point, arguments.part, arguments.date))]
            if arguments.list:
                print("\n".join(map(str, points)))
                continue
            with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
                try:
                    jobs = [pool.submit(run_point, stage, scenario, point, results, arguments.verbose)
                            for point in points]
                    concurrent.futures.wait(jobs)
                except BaseException:
                    pool.shutdown(cancel_futures=True)  # what runs comes to its end
                    raise
            print(f"{scenario.name:<18}{results.passed - at} passed, {len(results.wrong) - before} failed"
                  f"{time.monotonic() - begun:10.1f} s", flush=True)
    finally:
        stage.close()
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{time.monotonic() - started:.0f} s; in {results.unreached} runs the call was not made")
    print(f"{results.passed} passed, {len(results.wrong)} failed")
    sys.exit(1 if results.wrong else 0)


if __name__ == "__main__":
    main()
