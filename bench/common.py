"""What the benchmarks share: commands that should succeed, data files, an
orderly end, and a network that has only loopback.
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))  # support.py, which the tests share, is wanted here too
MIB = 1 << 20
RUN_SECONDS = 60

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, SIOCSIFADDR = 0x8914, 0x8916
IFF_UP, IFF_RUNNING = 0x1, 0x40


class Failure(Exception):
    """It can't be measured. The text says why."""


def run(*command, seconds=RUN_SECONDS, **options):
    """Run a command that should succeed, and return what it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds, check=False, **options)
    if done.returncode != 0:
        raise Failure(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def compare(one, two):
    """Fail unless the files are the same."""
    if subprocess.run(["cmp", "-s", one, two], check=False).returncode != 0:
        raise Failure(f"{two} is not what was sent")


def write_random(path, size):
    """Write a data file that no compression could shorten."""
    with open(path, "wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))


def positive(text):
    """Return a number from the command line."""
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def end_cleanly():
    """Make SIGTERM and SIGHUP unwind the program as SIGINT does."""
    def interrupt(number, frame):
        raise KeyboardInterrupt
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, interrupt)


def run_main(main):
    """Run the program's main, and end with the status that it returns. A failure is
    told in one line; an interrupted program ends as a shell expects it."""
    try:
        sys.exit(main())
    except (Failure, subprocess.SubprocessError) as failure:
        sys.exit(f"{Path(sys.argv[0]).name}: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


# --- A network of its own ---

def enter_own_network(address):
    """Move this process, and what it starts from now on, into a network that has
    only loopback, which has this address too. Nothing that is started there can
    reach the world, whatever it thinks of DHT and trackers. Return whether the
    system lets us: root, or anybody if it grants user namespaces."""
    child = os.fork()  # to try: halfway there is no way back
    if child == 0:
        with contextlib.suppress(OSError):
            make_network(address)
            os._exit(0)
        os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        return False
    make_network(address)
    return True


def make_network(address):
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | (0 if user == 0 else CLONE_NEWUSER)) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP | IFF_RUNNING))
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack(
            "16sHH4s16x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(address)))
