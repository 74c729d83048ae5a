"""Measuring one run of a command: how long it takes, the CPU time that it and
its servers use, and the memory that is its own.
"""

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from common import HERE, Failure, compare, run
from support import all_processes

LIMIT_SECONDS = 600
SAMPLE_SECONDS = 0.01
TICKS = os.sysconf("SC_CLK_TCK")


class Figures(NamedTuple):
    wall: float    # seconds, until it exits or says that it is done
    cpu: float     # seconds, of its processes and of those of its servers
    memory: float  # MiB, the most that was seen; None: nobody looked


class Contestant:
    """A command that is measured, and the servers that it needs, which run."""

    def __init__(self, label, command, servers=(), makes=None, like=None, until=None, before=None,
                 ending=signal.SIGKILL):
        self.label, self.command, self.servers = label, [str(word) for word in command], servers
        self.makes, self.like = makes, like  # a file, and one that it must be the same as
        self.until = until    # what it says when it is done, if it doesn't exit then
        self.before = before  # to call before each run
        self.ending = ending  # the signal that ends it after that: who has children must wait for
                              # them, or their CPU time is lost

    def measure(self, look_at_memory=False):
        """Run it, and check what it has made."""
        if self.before is not None:
            self.before()
        if self.makes is not None:
            have_memory_at_hand(os.path.getsize(self.like))
        served = cpu_of_families(self.servers)
        own = cpu_of_children()
        wall, memory = self.run(look_at_memory)
        own = cpu_of_children() - own
        time.sleep(0.05)  # a server's child may still be closing its connection
        served = cpu_of_families(self.servers) - served
        if self.makes is not None:
            compare(self.like, self.makes)
        return Figures(wall, own + served, memory)

    def run(self, look_at_memory):
        """Return the seconds that it took, and its memory if that is asked for."""
        with tempfile.TemporaryFile() as said:
            start = time.monotonic()
            process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, start_new_session=True,
                                       stdout=subprocess.PIPE if self.until else said,
                                       stderr=subprocess.STDOUT)
            limit = threading.Timer(LIMIT_SECONDS, signal_group, [process, signal.SIGKILL])
            limit.start()
            memory = PrivateMemory(process.pid) if look_at_memory else None
            try:
                done = says(process.stdout, self.until, said) if self.until else process.wait() == 0
                wall = time.monotonic() - start
            finally:
                if memory is not None:
                    memory.stop()
                end_group(process, self.ending)
                limit.cancel()
            if not done:
                said.seek(0)
                raise Failure(f"{' '.join(self.command)}: ended with {process.returncode} after"
                              f" {wall:.1f} s: {said.read().decode(errors='replace').strip()}")
        return wall, memory and memory.most / 1024


def have_memory_at_hand(size):
    """Let a program use so much memory, and end. A virtual machine's host takes back what is
    free, and what it gives again, page by page, costs more time than what is measured."""
    run(HERE.parent / "build" / "bench" / "fetch_floor", "touch", size + size // 8)


def says(pipe, text, copy):
    """Wait until the text comes through the pipe. False: it has ended before."""
    last = b""
    while piece := os.read(pipe.fileno(), 65536):
        copy.write(piece)
        last = last[-len(text):] + piece
        if text.encode() in last:
            return True
    return False


def signal_group(process, number):
    """Send a signal to a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def end_group(process, ending):
    if process.poll() is None:
        signal_group(process, ending)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


# --- CPU time ---

def cpu_of_children():
    """Return the CPU seconds of all processes that this one has waited for, and
    that they have waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_of_families(programs):
    """Return the CPU seconds of running programs, with all of their children."""
    sessions = {program.pid for program in programs}
    ticks = 0
    for process in all_processes() if sessions else []:
        if process.session in sessions:
            with contextlib.suppress(OSError):  # it has ended meanwhile, and its parent tells
                text = Path("/proc", str(process.pid), "stat").read_text(errors="replace")
                ticks += sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return ticks / TICKS


# --- Memory ---

class PrivateMemory(threading.Thread):
    """Looks, again and again, at the memory that the processes of a session
    share with nobody."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.most = session, 0
        self.stopping = threading.Event()
        self.start()

    def run(self):
        while not self.stopping.wait(SAMPLE_SECONDS):
            self.most = max(self.most, sum(private_kib(process.pid) for process in all_processes()
                                           if process.session == self.session))

    def stop(self):
        self.stopping.set()
        self.join()


def private_kib(pid):
    with contextlib.suppress(OSError):  # it has ended
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0
