"""What the test modules share: scratch directories, programs and their ends,
files and metafiles, messages as bytes, and simple peers and trackers.

The metafiles and messages are made here from the protocol alone, not by the
programs that are tested. CASCADE_PROGRAMS names the directory of the programs,
if it is not the one above this.
"""

import atexit
import ctypes
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(os.environ.get("CASCADE_PROGRAMS", HERE.parent)).resolve()
IS_PORTABLE = "-DPORTABLE" in (PROGRAMS / "build/flags").read_text()  # how they are built
REFERENCE = HERE / "reference"
LOOPBACK = "127.0.0.1"
WAIT = 60  # seconds until something that should happen soon counts as failed, on a machine with much else to do

# What a program needs to its end it does not free then: that is no leak.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")

# Never expected from one of our programs, whatever a test does to it.
# Under nohup, the programs that are tested would ignore SIGHUP, too. A handler isn't inherited.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

ALARMING = re.compile(r"Sanitizer|runtime error:|killed by signal (?!9 |15 )|has died|corrupted|smashing")


def wait_until(condition, what, timeout=WAIT):
    """Wait until condition() is true, and return its value."""
    begun = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - begun
        if waited > timeout:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        time.sleep(min(max(0.005, waited / 20), 0.05))


def pause(seconds):
    """Let time pass that is itself what is tested."""
    time.sleep(seconds)


# --- Processes ---

class Process:
    """One line of the system's list of processes."""

    def __init__(self, pid, text):
        fields = text.rpartition(")")[2].split()
        self.pid, self.state = pid, fields[0]
        self.parent, self.session = int(fields[1]), int(fields[3])


def all_processes():
    """Return the system's processes as far as /proc tells, else none."""
    processes = []
    for name in os.listdir("/proc") if os.path.exists("/proc/self/stat") else []:
        if name.isdecimal():
            try:
                text = Path("/proc", name, "stat").read_text(errors="replace")
            except OSError:
                continue  # it has ended meanwhile
            processes.append(Process(int(name), text))
    return processes


def proc_status(pid, name):
    """Return the words of one line of a process's status."""
    found = re.search(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return found[1].split() if found else None


def has_landlock():
    return ctypes.CDLL(None, use_errno=True).syscall(
        444, None, ctypes.c_size_t(0), ctypes.c_uint(1)) >= 1


class Program:
    """A running program, in a session of its own, and so all its children."""

    started = set()  # those that were not ended yet
    deserved = ""    # alarming words that the test has deserved

    def __init__(self, command, env=None, cwd=None, **options):
        self.command = [str(word) for word in command]
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=options.pop("stdout", self.out),
            stderr=options.pop("stderr", self.err), env={**os.environ, **(env or {})}, cwd=cwd,
            start_new_session=True, **options)
        self.pid = self.process.pid
        Program.started.add(self)

    @staticmethod
    def read(file):
        size = os.fstat(file.fileno()).st_size
        return os.pread(file.fileno(), size, 0).decode(errors="replace")

    @property
    def stdout(self):
        return self.read(self.out)

    @property
    def stderr(self):
        return self.read(self.err)

    def has_ended(self):
        return self.process.poll() is not None

    def address(self):
        """Wait for the line that tells where it listens. Return (IP, port)."""
        def find():
            found = re.match(r"listening on ([\d.]+):(\d+)\n", self.stdout)
            if found is None and self.has_ended():
                raise AssertionError(f"{self} ended before it listened:\n{self.stderr}")
            return found
        found = wait_until(find, f"{self} listens")
        return found[1], int(found[2])

    def wait(self, timeout=WAIT):
        """Wait for its end, and return its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} has not ended in {timeout} s:\n{self.stderr}") from None

    def signal(self, number):
        os.kill(self.pid, number)

    def says(self, words):
        """Wait until words stand on its standard error."""
        wait_until(lambda: words in self.stderr or self.has_ended(), f"{self} says {words}")
        if words not in self.stderr:
            raise AssertionError(f"{self} ended and did not say {words}:\n{self.stderr}")

    def family(self):
        """Return the processes of its session that have not ended, itself included."""
        return [p for p in all_processes() if p.session == self.pid and p.state not in "ZX"]

    def children(self, state=None):
        """Return its child processes; those in that state, if one is named."""
        return [p for p in all_processes()
                if p.parent == self.pid and state in (None, p.state)]

    def end(self):
        """End it, first politely. Return what is wrong with how it ended."""
        wrong = []
        Program.started.discard(self)
        if not self.has_ended():
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                wrong.append("SIGTERM did not end it")
                self.process.kill()
                self.process.wait()
        try:
            wait_until(lambda: not self.family(), "the family has ended", 5)
        except AssertionError:
            left = self.family()
            wrong.append(f"processes were left: {[p.pid for p in left]}")
            for process in left:
                os.kill(process.pid, signal.SIGKILL)
        if ALARMING.search(self.stderr.replace(self.deserved, "")):
            wrong.append("alarming words on standard error")
        wrong = [f"{self}: {what}:\n{self.stderr}" for what in wrong]
        self.out.close()
        self.err.close()
        return wrong

    def __str__(self):
        return " ".join(self.command)


@atexit.register
def end_all_programs():
    for program in list(Program.started):
        program.end()


# --- Files ---

METAFILE_HEADER = struct.Struct(">8s8sQQ32s")


def make_metafile(data, chunk_size):
    """Return the bytes of the metafile that describes data."""
    chunks = [data[start:start + chunk_size] for start in range(0, len(data), chunk_size)]
    header = METAFILE_HEADER.pack(b"CASCADE1", bytes(8), len(data), chunk_size,
                                  hashlib.sha256(data).digest())
    return header + b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)


def random_bytes(size, seed=0):
    """Return bytes that are the same each time, and nowhere the same as at another place or with another seed."""
    name = f"{seed} {size}"
    first = hashlib.shake_128(name.encode()).digest(min(size, 1 << 20))
    # Each further MiB is the first with other values for its bytes: that is far faster than more of the former.
    values = random.Random(name)
    return b"".join([first, *(first[:size - begun].translate(bytes(values.sample(range(256), 256)))
                              for begun in range(1 << 20, size, 1 << 20))])


class SharedFile:
    """A data file, which need not exist, and its metafile, which does."""

    def __init__(self, path, data, chunk_size):
        self.path, self.data, self.chunk_size = Path(path), data, chunk_size
        self.metafile_path = Path(f"{path}.cascade")
        self.metafile = make_metafile(data, chunk_size)
        self.hash = hashlib.sha256(self.metafile).digest()
        self.count = (len(self.metafile) - METAFILE_HEADER.size) // 32
        self.path.parent.mkdir(exist_ok=True)
        self.metafile_path.write_bytes(self.metafile)

    def chunk(self, number):
        return self.data[number * self.chunk_size:(number + 1) * self.chunk_size]

    def without(self, *numbers):
        """Return the data with zeros in the place of these chunks."""
        data = bytearray(self.data)
        for number in numbers:
            start = number * self.chunk_size
            data[start:start + self.chunk_size] = bytes(len(self.chunk(number)))
        return bytes(data)


# --- Messages ---

OK, NO_FILE, NO_CHUNK_YET, NO_SUCH_CHUNK, BAD_REQUEST = range(5)  # what a peer answers
CHUNK_REQUEST = struct.Struct(">8s16sQ32s")
CHUNK_RESPONSE = struct.Struct(">BQ")
TRACKER_REQUEST = struct.Struct(">4sIII32s4sH")
TRACKER_RESPONSE = struct.Struct(">BI")
TRACKER_ENTRY = struct.Struct(">4sHIBB")
LIST, SUBSCRIBE = 1, 2


def chunk_request(cascade_hash, number, reserved=bytes(16)):
    return CHUNK_REQUEST.pack(b"CASCADE1", reserved, number, cascade_hash)


def chunk_response(status, body, length=None):
    return CHUNK_RESPONSE.pack(status, len(body) if length is None else length) + body


def tracker_request(command, cascade_hash, address, magic=b"CASC", version=1, length=38):
    ip, port = address
    return TRACKER_REQUEST.pack(magic, version, command, length, cascade_hash,
                                socket.inet_aton(ip), port)


def tracker_entry(address, last_seen=0, good=0):
    ip, port = address
    return TRACKER_ENTRY.pack(socket.inet_aton(ip), port, last_seen, good, 0)


def tracker_response(status, body, length=None):
    return TRACKER_RESPONSE.pack(status, len(body) if length is None else length) + body


def connect(address):
    connection = socket.create_connection(address, timeout=WAIT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection, size):
    """Read size bytes, or fewer if the other side closes before."""
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            break
        data += piece
    return bytes(data)


def receive_all(connection):
    """Read to the end of file."""
    data = bytearray()
    while piece := connection.recv(65536):
        data += piece
    return bytes(data)


def wait_for_end(connection):
    """Wait until the other side hangs up, in whatever way."""
    try:
        receive_all(connection)
    except ConnectionError:
        pass


def receive_response(connection):
    """Read one response of a peer. Return its status and body."""
    header = receive(connection, CHUNK_RESPONSE.size)
    if len(header) < CHUNK_RESPONSE.size:
        raise EOFError(f"only {len(header)} bytes of a header")
    status, length = CHUNK_RESPONSE.unpack(header)
    body = receive(connection, length)
    if len(body) < length:
        raise EOFError(f"only {len(body)} of {length} bytes of a body")
    return status, body


def ask_peer(address, request):
    """Send a request over a new connection. Return the response's status and body."""
    with connect(address) as connection:
        connection.sendall(request)
        return receive_response(connection)


def parse_tracker_response(data):
    """Return the status and body of a whole response."""
    status, length = TRACKER_RESPONSE.unpack_from(data)
    body = data[TRACKER_RESPONSE.size:]
    if len(body) != length:
        raise AssertionError(f"{len(body)} bytes follow, not {length}")
    return status, body


def ask_tracker(address, request):
    """Send a request and read to the end of file. Return the status and body."""
    with connect(address) as connection:
        connection.sendall(request)
        return parse_tracker_response(receive_all(connection))


def parse_entries(body):
    """Return ((IP, port), last seen, good flag, reserved byte) of each entry."""
    return [((socket.inet_ntoa(ip), port), seen, good, reserved)
            for ip, port, seen, good, reserved in TRACKER_ENTRY.iter_unpack(body)]


# --- Simple servers ---

class Server:
    """Listens on loopback; handle(connection) runs in a thread for each client."""

    def __init__(self, case, handle, listener=None):
        self.handle = handle
        self.listener = listener or socket.create_server((LOOPBACK, 0), backlog=128)
        self.address = self.listener.getsockname()
        self.name = "%s:%d" % self.address
        self.connections = []  # all there ever were
        self.errors = []
        self.closed = False
        self.case = case
        case.addCleanup(self.close)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self.run, args=(connection,), daemon=True).start()

    def run(self, connection):
        try:
            connection.settimeout(WAIT)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                self.handle(connection)
        except OSError:
            pass  # the other side has gone
        except BaseException as error:
            if not self.closed:
                self.errors.append(error)

    def close(self):
        self.closed = True
        for opened in [self.listener, *self.connections]:
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            opened.close()
        for error in self.errors:
            raise error


class Peer(Server):
    """Serves one file; answer(connection, number), if given, answers in its place.

    What answer returns ends the connection if it is true.
    """

    def __init__(self, case, file, answer=None, listener=None):
        self.file = file
        self.answer = answer or self.send_chunk
        self.requests = []  # the chunk numbers
        super().__init__(case, self.serve, listener)

    def serve(self, connection):
        while True:
            request = receive(connection, CHUNK_REQUEST.size)
            if not request:
                return
            magic, reserved, number, cascade_hash = CHUNK_REQUEST.unpack(request)
            if (magic, reserved, cascade_hash) != (b"CASCADE1", bytes(16), self.file.hash):
                raise AssertionError(f"a bad request: {request}")
            self.requests.append(number)
            if self.answer(connection, number):
                return

    def send_chunk(self, connection, number):
        connection.sendall(chunk_response(OK, self.file.chunk(number)))


class Tracker(Server):
    """Answers every request with these entries; answer(connection, command), if
    given, answers in its place."""

    def __init__(self, case, *peers, answer=None, listener=None):
        self.entries = [tracker_entry(peer) for peer in peers]
        self.answer = answer or self.send_list
        self.requests = []  # (command, cascade hash, (IP, port))
        super().__init__(case, self.serve, listener)

    def serve(self, connection):
        request = receive(connection, TRACKER_REQUEST.size)
        if not request:
            return
        magic, version, command, length, cascade_hash, ip, port = TRACKER_REQUEST.unpack(request)
        if (magic, version, length) != (b"CASC", 1, 38):
            raise AssertionError(f"a bad request: {request}")
        self.requests.append((command, cascade_hash, (socket.inet_ntoa(ip), port)))
        self.answer(connection, command)

    def send_list(self, connection, command):
        connection.sendall(tracker_response(0, b"".join(self.entries)))

    def commands(self):
        return [command for command, _, _ in self.requests]


# --- The frame of a test ---

class Case(unittest.TestCase):
    """A test with a scratch directory, whose programs all end with it."""

    def setUp(self):
        self.scratch = Path(tempfile.mkdtemp(prefix="cascade-test-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)

    def start(self, command, env=None, cwd=None, **options):
        """Start a program. It is ended after the test, and must end cleanly."""
        program = Program(command, env, cwd or self.scratch, **options)
        self.addCleanup(self.end, program)
        return program

    def end(self, program):
        if program in Program.started:
            for wrong in program.end():
                self.fail(wrong)

    def run_program(self, name, *arguments, status=None, **options):
        """Run one of our programs to its end. It must exit with that status."""
        program = self.start([PROGRAMS / name, *arguments], **options)
        ended_with = program.wait()
        if status is not None:
            self.assertEqual(ended_with, status, f"{program}\n{program.stderr}")
        return program

    def assert_one_sentence(self, program, name):
        """Its standard error must be one line that names this thing, after what it set out to do."""
        lines = [line for line in program.stderr.splitlines() if not line.endswith(" to fetch")]
        self.assertEqual(len(lines), 1, program.stderr)
        self.assertIn(str(name), lines[0])
        self.assertEqual(program.stdout, "")

    def assert_words(self, message):
        """These bytes must be words for people."""
        self.assertRegex(message.decode("ascii"), r"^[ -~]{10,}$")

    def assert_line(self, message):
        """These bytes must be words for people, and end with a newline."""
        self.assertRegex(message.decode("ascii"), r"\A[ -~]{10,}\n\Z")

    def assert_misuse(self, program):
        """It must have exited with 2, shown its usage, and last where there is more to read."""
        self.assertEqual(program.wait(), 2, f"{program}\n{program.stderr}")
        self.assertIn("usage: ", program.stderr)
        self.assertRegex(program.stderr, r"\n[^\n]*--help[^\n]*\n$")
        self.assertEqual(program.stdout, "")

    def assert_leaves_nothing(self, program):
        """Of the program, which has ended, no process must stay."""
        wait_until(lambda: not program.family(), "no process is left", 5)

    def assert_help_and_version(self, name):
        """It must tell of itself when asked to, on standard output and in both forms."""
        for options, word in ((["--help"], f"usage: {name}"), (["-h"], f"usage: {name}"),
                              (["--version"], f"{name} "), (["-V"], f"{name} ")):
            with self.subTest(options=options):
                program = self.run_program(name, *options, status=0)
                self.assertTrue(program.stdout.startswith(word), program.stdout)
                self.assertEqual(program.stderr, "")

    def assert_not_deceived(self, address, file, number):
        """The peer there may answer anything but a whole chunk of wrong bytes."""
        with connect(address) as connection:
            connection.sendall(chunk_request(file.hash, number))
            try:
                status, body = receive_response(connection)
            except (EOFError, ConnectionResetError):
                return
            self.assertTrue(status in (NO_FILE, NO_CHUNK_YET) or
                            (status, body) == (OK, file.chunk(number)), status)

    def make_file(self, name, size, chunk_size):
        """Make a data file of random bytes and its metafile."""
        file = self.describe_file(name, size, chunk_size)
        file.path.write_bytes(file.data)
        return file

    def describe_file(self, name, size, chunk_size):
        """Make the metafile alone."""
        return SharedFile(self.scratch / name, random_bytes(size, name), chunk_size)

    def full_pipe(self):
        """Return the ends of a pipe that takes no more, for reading and for writing."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.set_blocking(writing, False)
        try:
            while True:
                os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        return reading, writing

    def vacant_address(self):
        """Return an address where nobody listens while the test runs: who connects is refused."""
        holder = socket.socket()
        self.addCleanup(holder.close)
        holder.bind((LOOPBACK, 0))
        return holder.getsockname()

    def start_tracker(self, *arguments):
        return self.start([PROGRAMS / "tracker", "-a", LOOPBACK, "-p", 0, *arguments])

    def start_peer(self, files, *options, peers=(), tracker=None, me=(LOOPBACK, 0), **how):
        """Start a serving peer for one file or a list of files."""
        for peer in peers:
            options += ("--peer", "%s:%d" % peer)
        return self.start([PROGRAMS / "cascade", *options, *operands(files, tracker, me)], **how)

    def start_fetch(self, files, *options, **where):
        """Start a peer that only fetches."""
        return self.start_peer(files, "-c", *options, **where)

    def fetch(self, files, *options, status=0, **where):
        """Fetch, to the end."""
        program = self.start_fetch(files, *options, **where)
        self.assertEqual(program.wait(), status, f"{program}\n{program.stderr}")
        return program

    def start_seeder(self, *files, tracker=None):
        """Start a serving peer for complete files. Return it when it holds everything."""
        peer = self.start_peer(list(files), tracker=tracker)
        for file in files:
            wait_for_chunks(peer.address(), file, range(file.count))
        return peer

    def assert_same(self, path, data):
        found = Path(path).read_bytes()
        self.assertTrue(found == data,
                        f"{path}: {len(found)} bytes are not the {len(data)} expected")


def operands(files, tracker, me):
    files = files if isinstance(files, list) else [files]
    return (":".join(str(file.metafile_path) for file in files),
            "-" if tracker is None else "%s:%d" % tracker, "%s:%d" % me)


def wait_for_chunks(address, file, numbers):
    """Wait until the peer there serves these chunks."""
    def holds_all():
        with connect(address) as connection:
            for number in numbers:
                connection.sendall(chunk_request(file.hash, number))
                if receive_response(connection)[0] != OK:
                    return False
        return True
    wait_until(holds_all, f"{address} serves the chunks of {file.path}")


def wait_for_subscription(tracker, file):
    """Wait until the tracker there lists a peer for the file."""
    request = tracker_request(LIST, file.hash, (LOOPBACK, 1))
    wait_until(lambda: ask_tracker(tracker, request)[1], f"{tracker} lists a peer for {file.path}")


def reference(name, *arguments):
    """Return the command of a program of the reference."""
    return [sys.executable, REFERENCE / name, *arguments]
