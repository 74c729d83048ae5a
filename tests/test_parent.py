"""The serving parent: how it shares itself out among clients, what it survives, and
what it leaves behind."""

import ctypes
import os
import re
import resource
import selectors
import signal
import socket
import statistics
import threading
import time
import unittest
from pathlib import Path

from support import (LOOPBACK, PROGRAMS, WAIT, Case, Peer, Tracker, ask_peer, chunk_request,
                     connect, operands, receive, receive_all, receive_response, wait_for_chunks,
                     wait_for_end, wait_until)

OK, NO_FILE, NO_CHUNK_YET, NO_SUCH_CHUNK, BAD_REQUEST = range(5)
PORTABLE = "-DPORTABLE" in os.environ.get("CPPFLAGS", "")
AT_ONCE = 1.5  # seconds; a client that had to wait for another would take longer
NOBODY = "nobody"


def as_user_of(pid, act):
    """Let a process of the same user as process pid act, and wait for its end."""
    user, group = (int(proc_status(pid, name)[0]) for name in ("Uid", "Gid"))
    helper = os.fork()
    if helper == 0:
        try:
            if os.geteuid() != user:
                os.setgroups([])
                os.setgid(group)
                os.setuid(user)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(helper, 0)[1] != 0:
        raise AssertionError("it could not be done")


def connect_as_crawler(address):
    """Connect with the smallest buffer for what comes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(WAIT)
    connection.connect(address)
    return connection


def has_hung_up(connection):
    """Whether the other side has closed; what it sent before is left to be read."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        if not selector.select(0):
            return False
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionError:
        return True


def open_files(pid):
    """Return {descriptor: what it is open for} of a process."""
    files = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        files[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return files


def proc_status(pid, name):
    """Return the words of one line of a process's status."""
    found = re.search(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return found[1].split() if found else None


def has_landlock():
    return ctypes.CDLL(None, use_errno=True).syscall(
        444, None, ctypes.c_size_t(0), ctypes.c_uint(1)) >= 1


class Client:
    """One line of a peer's report on its clients."""

    line = re.compile(r"cascade: client ([\d.]+):(\d+): (\w+), (\d+) chunks, ([\d.]+) ?(\w+), "
                      r"[\d.]+ ?\w+/s, child (\d+)$")
    units = {"B": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

    def __init__(self, found):
        self.address, self.state = (found[1], int(found[2])), found[3]
        self.chunks, self.bytes = int(found[4]), float(found[5]) * self.units[found[6]]
        self.child = int(found[7])


class Parent(Case):
    """Serving peers for a file of small chunks."""

    def setUp(self):
        super().setUp()
        self.small = self.make_file("small", 10_500, 1000)

    def serve(self, files, *options, **how):
        """Start a peer that holds files, and wait until it does and nobody is connected."""
        files = files if isinstance(files, list) else [files]
        peer = self.start([PROGRAMS / "cascade", *options, *operands(files, None, (LOOPBACK, 0))], **how)
        for file in files:
            wait_for_chunks(peer.address(), file, [0, file.count - 1])
        wait_until(lambda: not peer.children(), "fetcher and children have ended")
        return peer

    def connect(self, peer):
        connection = connect(peer.address())
        self.addCleanup(connection.close)
        return connection

    def ask(self, connection, file, number):
        """Ask for a chunk over a connection; it must come. Return after how many seconds."""
        start = time.monotonic()
        connection.sendall(chunk_request(file.hash, number))
        self.assertEqual(receive_response(connection), (OK, file.chunk(number)))
        return time.monotonic() - start

    def ask_anew(self, peer, file, number):
        start = time.monotonic()
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, number)),
                         (OK, file.chunk(number)))
        return time.monotonic() - start

    def report(self, peer):
        """Ask the peer what it serves, and to whom. Return the chunks held of each file, in
        words, and its clients by address."""
        before = len(peer.stderr)
        peer.signal(signal.SIGUSR1)

        def has_all():
            lines = peer.stderr[before:].splitlines()
            counts = [re.search(r": (\d+) clients now", line) for line in lines]
            counts = [count for count in counts if count]
            clients = [line for line in lines if line.startswith("cascade: client ")]
            return counts and len(clients) == int(counts[0][1]) and lines
        lines = wait_until(has_all, f"{peer} reports")
        held = dict(re.search(r"cascade: (.*): (\d+ of \d+) chunks held$", line).groups()
                    for line in lines if line.endswith("chunks held"))
        found = [Client.line.match(line) for line in lines if line.startswith("cascade: client ")]
        self.assertNotIn(None, found, lines)
        return held, {client.address: client for client in map(Client, found)}

    def wait_for_state(self, peer, connection, state, chunks=None):
        """Wait until the peer reports the client in this state. Return its report."""
        def look():
            client = self.report(peer)[1].get(connection.getsockname())
            if client and client.state == state and chunks in (None, client.chunks):
                return client
        return wait_until(look, f"a client is {state}")

    def child_of(self, peer, connection):
        """Return the process number of the child that serves the client."""
        return self.wait_for_state(peer, connection, "silent").child

    def assert_leaves_nothing(self, peer):
        wait_until(lambda: not peer.family(), "no process is left", 5)


class AtTheBound(Parent):
    def test_the_client_that_was_silent_for_longest_makes_way(self):
        peer = self.serve(self.small, "--max-clients", "3")
        clients = []

        def ask(client):
            counts[client] = counts.get(client, 0) + 1
            self.ask(client, self.small, 1)
            self.wait_for_state(peer, client, "silent", counts[client])
            start = time.monotonic()  # the peer counts in milliseconds
            wait_until(lambda: time.monotonic() - start > 0.01, "the next client is silent for less")
        counts = {}
        for _ in range(3):
            clients.append(self.connect(peer))
            ask(clients[-1])
        first, second, third = clients
        ask(first)
        for leaving, staying in ((second, [third, first]), (third, [first])):
            newcomer = self.connect(peer)
            seconds = self.ask(newcomer, self.small, 2)
            self.assertLess(seconds, AT_ONCE)
            self.wait_for_state(peer, newcomer, "silent")
            wait_until(lambda: has_hung_up(leaving), "the longest silent has to go")
            self.assertEqual([has_hung_up(client) for client in staying], [False] * len(staying),
                             f"after {seconds:.4f} s:\n{peer.stderr}")
        ask(first)
        self.assertEqual(len(self.report(peer)[1]), 3)

    def test_clients_that_never_said_a_word_make_way(self):
        peer = self.serve(self.small, "-m", "4")
        silent = [self.connect(peer) for _ in range(4)]
        silent[0].sendall(b"CASC")
        for client in silent:
            self.wait_for_state(peer, client, "silent")
        for number in range(4):
            self.assertLess(self.ask(self.connect(peer), self.small, number), AT_ONCE)
        for client in silent:
            wait_until(lambda: has_hung_up(client), "it had to go")

    def test_three_hundred_silent_clients_lock_nobody_out(self):
        peer = self.serve(self.small, "--max-clients", "16")
        silent = [self.connect(peer) for _ in range(300)]
        for number, client in enumerate(silent):
            if number % 2 and not has_hung_up(client):
                try:
                    client.sendall(chunk_request(self.small.hash, 0)[:number % 64])
                except ConnectionError:
                    pass
        seconds = [self.ask_anew(peer, self.small, number % self.small.count) for number in range(100)]
        # Each gone client leaves room for one of the crowd: it comes back before each question.
        for number in range(50):
            back = [self.connect(peer) for _ in range(16)]
            seconds.append(self.ask_anew(peer, self.small, number % self.small.count))
            for client in back:
                client.close()
        self.assertLess(statistics.median(seconds), 0.5)
        self.assertLess(max(seconds), 5)  # the first waits until all of the crowd had a look in
        self.assertLessEqual(len(peer.children()), 16)

    def test_clients_that_were_refused_and_stay_make_way(self):
        peer = self.serve(self.small, "-m", "4")
        for request in (chunk_request(bytes(32), 0), b"hello\r\n", chunk_request(self.small.hash, 99)):
            for _ in range(4):
                refused = self.connect(peer)
                refused.sendall(request)
                self.assertNotIn(receive_response(refused)[0], (OK, NO_CHUNK_YET))
            self.assertLess(self.ask_anew(peer, self.small, 1), AT_ONCE)

    def assert_never_makes_way(self, rate, seconds=6):
        """A client that takes a chunk at that rate is served although others wait."""
        huge = self.make_file("huge", 48 << 20, 48 << 20)
        peer = self.serve([huge, self.small], "-m", "1")
        client = self.connect(peer)
        client.sendall(chunk_request(huge.hash, 0))
        self.assertEqual(len(receive(client, 9)), 9)
        newcomer = self.connect(peer)  # waits all the time
        newcomer.sendall(chunk_request(self.small.hash, 1))
        data, start, pause = bytearray(), time.monotonic(), threading.Event()
        while (now := time.monotonic() - start) < seconds:
            if len(data) < now * rate:
                try:
                    piece = client.recv(max(256, rate // 50))
                except ConnectionError:
                    piece = b""
                self.assertTrue(piece, f"cut off after {now:.1f} s and {len(data)} bytes")
                data += piece
            else:
                pause.wait(0.005)
        # What lies in the sockets would come even if the server had left.
        while len(data) < len(huge.data):
            try:
                piece = client.recv(1 << 20)
            except ConnectionError:
                piece = b""
            self.assertTrue(piece, f"cut off, seen after {len(data)} of {len(huge.data)} bytes")
            data += piece
        self.assertTrue(data == huge.data)
        client.close()
        self.assertEqual(receive_response(newcomer), (OK, self.small.chunk(1)))

    def test_a_client_that_takes_a_chunk_steadily_stays(self):
        self.assert_never_makes_way(4 << 20)

    def test_a_client_that_takes_a_chunk_at_64_KiB_a_second_stays(self):
        self.assert_never_makes_way(64 << 10)

    def test_a_client_that_takes_a_chunk_at_512_KiB_a_second_stays(self):
        self.assert_never_makes_way(512 << 10)

    def test_a_client_that_is_being_served_stays_among_many_newcomers(self):
        huge = self.make_file("huge", 48 << 20, 48 << 20)
        peer = self.serve([huge, self.small], "-m", "2")
        client = self.connect(peer)
        client.sendall(chunk_request(huge.hash, 0))
        received, turn = len(receive(client, 9)), 0
        while received < 9 + len(huge.data):
            self.assertLess(self.ask(self.connect(peer), self.small, turn % 10), AT_ONCE)
            received += len(receive(client, min(1 << 20, 9 + len(huge.data) - received)))
            turn += 1

    def test_a_crawling_reader_makes_way_after_a_moment(self):
        huge = self.make_file("huge", 16 << 20, 16 << 20)
        peer = self.serve([huge, self.small], "-m", "1")
        crawler = connect_as_crawler(peer.address())
        self.addCleanup(crawler.close)
        start = time.monotonic()
        crawler.sendall(chunk_request(huge.hash, 0))
        self.assertEqual(len(receive(crawler, 9)), 9)
        newcomer = self.connect(peer)
        newcomer.sendall(chunk_request(self.small.hash, 1))
        newcomer.settimeout(0.05)
        while time.monotonic() - start < 10:
            try:
                if not has_hung_up(crawler):
                    crawler.recv(1)
                self.assertEqual(receive_response(newcomer), (OK, self.small.chunk(1)))
                break
            except TimeoutError:
                continue
        self.assertTrue(0.9 < time.monotonic() - start < 6, time.monotonic() - start)

    def test_newcomers_wait_while_all_are_busy(self):
        large = self.make_file("large", 192 << 10, 96 << 10)
        peer = self.start_peer([large, self.small], "-m", "2", "--max-upload", "128K")
        wait_for_chunks(peer.address(), large, [0])
        wait_until(lambda: not peer.children(), "nobody is there")
        busy, waiting = ([self.connect(peer) for _ in range(number)] for number in (2, 3))
        for client in busy:
            client.sendall(chunk_request(large.hash, 1))
        for number, client in enumerate(waiting):
            client.sendall(chunk_request(self.small.hash, number))
        received = dict.fromkeys(busy, 0)
        with selectors.DefaultSelector() as selector:
            for client in busy + waiting:
                selector.register(client, selectors.EVENT_READ)
            while not (ready := {key.fileobj for key, _ in selector.select(WAIT)}) & set(waiting):
                self.assertTrue(ready, "nothing comes")
                for client in ready:
                    received[client] += len(client.recv(1 << 20))
                    if received[client] == 9 + (96 << 10):
                        selector.unregister(client)
        self.assertGreater(max(received.values()), 94 << 10, "one was answered while all were busy")
        for number, client in enumerate(waiting):
            self.assertEqual(receive_response(client), (OK, self.small.chunk(number)))

    def test_the_bound_is_kept(self):
        peer = self.serve(self.small, "-m", "5")
        counts = set()
        for number in range(40):
            self.ask(self.connect(peer), self.small, number % 10)
            counts.add(len([p for p in peer.children() if p.state not in "ZX"]))
        self.assertEqual(max(counts), 5)


class Family(Parent):
    def start_with_all_kinds(self, **how):
        """Start a peer that has a fetcher, its checker, a query, a subscriber, and a child."""
        self.absent = self.describe_file("absent", 100_000, 1000)
        self.asked, self.gate = threading.Event(), threading.Event()

        def answer(connection, number):
            self.asked.set()
            wait_for_end(connection)
            return True
        source = Peer(self, self.absent, answer)
        tracker = Tracker(self, answer=lambda connection, command: wait_for_end(connection))
        peer = self.start([PROGRAMS / "cascade", "-p", "%s:%d" % source.address,
                           *operands([self.small, self.absent], tracker.address, (LOOPBACK, 0))], **how)
        wait_for_chunks(peer.address(), self.small, [0, 10])
        self.client = self.connect(peer)
        self.ask(self.client, self.small, 0)
        self.assertTrue(self.asked.wait(WAIT))
        wait_until(lambda: set(tracker.commands()) == {1, 2}, "query and subscriber have asked")
        wait_until(lambda: len(peer.family()) == 6, "all kinds of processes run")
        return peer

    def find_fetcher(self, peer):
        """The fetcher is the only child there is before any client comes."""
        peer.address()
        fetcher, = wait_until(peer.children, "the fetcher runs")
        return fetcher.pid

    def test_killing_the_parent_leaves_no_process_of_any_kind(self):
        peer = self.start_with_all_kinds()
        peer.signal(signal.SIGKILL)
        peer.wait()
        self.assert_leaves_nothing(peer)
        self.assertEqual(receive_all(self.client), b"")

    def test_signals_leave_no_process_of_any_kind(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signal=number):
                peer = self.start_with_all_kinds()
                peer.signal(number)
                self.assertEqual(peer.wait(5), 0)
                self.assert_leaves_nothing(peer)
                self.assertEqual(receive_all(self.client), b"")
                (self.scratch / "absent").unlink()

    def test_with_hangups_ignored_from_the_start_the_family_outlives_one(self):
        peer = self.start_with_all_kinds(
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        before = {process.pid for process in peer.family()}
        os.killpg(peer.pid, signal.SIGHUP)
        self.ask(self.client, self.small, 5)
        self.ask_anew(peer, self.small, 6)
        self.assertLessEqual(before, {process.pid for process in peer.family()})
        peer.signal(signal.SIGTERM)
        self.assertEqual(peer.wait(5), 0)

    def test_a_signal_while_a_large_file_is_checked(self):
        size, piece = 384 << 20, os.urandom(1 << 20)
        path = self.scratch / "big"
        with open(path, "wb") as file:
            for _ in range(size // len(piece)):
                file.write(piece)
        big = self.describe_file("junk", 2 << 20, 1 << 20)  # for the form of its metafile
        header = bytearray(big.metafile[:64])
        header[16:32] = size.to_bytes(8, "big") + (1 << 20).to_bytes(8, "big")
        Path(f"{path}.cascade").write_bytes(bytes(header) + os.urandom(32 * (size >> 20)))
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=number):
                peer = self.start([PROGRAMS / "cascade", "-j", "2", f"{path}.cascade", "-", f"{LOOPBACK}:0"])
                peer.address()
                wait_until(lambda: len(peer.family()) >= 3, "processes check the file")
                peer.signal(number)
                self.assertEqual(peer.wait(5), 0 if number == signal.SIGTERM else -number)
                self.assert_leaves_nothing(peer)
                self.assertNotIn("verified", peer.stderr)

    def test_a_fetcher_that_cannot_write_leaves_the_parent_serving(self):
        file = self.describe_file("data", 200_000, 1000)
        file.path.write_bytes(file.without(*range(10, 200)))
        source = Peer(self, file)

        def limit_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
        peer = self.start_peer_of([file, self.small], "--order=ascending", "-p",
                                  "%s:%d" % source.address, preexec_fn=limit_files)
        self.assert_ends_its_fetcher(peer, f"{file.path}: can't be written")
        for number in (0, 9):
            self.ask_anew(peer, file, number)
        self.ask_anew(peer, self.small, 3)
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 150))[0], NO_CHUNK_YET)

    def test_a_fetcher_that_cannot_begin_leaves_the_parent_serving(self):
        file = self.describe_file("data", 200_000, 1000)

        def limit_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
        peer = self.start_peer_of([file, self.small], "-p", f"{LOOPBACK}:1", preexec_fn=limit_files)
        self.assert_ends_its_fetcher(peer, str(file.path))
        self.ask_anew(peer, self.small, 3)
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 0))[0], NO_CHUNK_YET)

    def start_peer_of(self, files, *options, **how):
        return self.start([PROGRAMS / "cascade", *options, *operands(files, None, (LOOPBACK, 0))], **how)

    def assert_ends_its_fetcher(self, peer, reason):
        """It must say so in one line, and why in another, and hold no zombie."""
        peer.says("the fetcher has ended")
        self.assertIn(reason, peer.stderr)
        self.assertEqual(peer.stderr.count("the fetcher has ended"), 1)
        wait_until(lambda: not peer.children(), "it is reaped")
        self.assertFalse(peer.has_ended())

    def test_a_killed_fetcher_leaves_the_parent_serving(self):
        absent = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer_of([self.small, absent], "-p", f"{LOOPBACK}:1")
        fetcher = self.find_fetcher(peer)
        wait_for_chunks(peer.address(), self.small, [0, 10])
        client = self.connect(peer)
        self.ask(client, self.small, 1)
        os.kill(fetcher, signal.SIGKILL)
        peer.says("the fetcher has ended: killed by signal 9")
        self.ask(client, self.small, 2)
        self.ask_anew(peer, self.small, 3)
        client.close()
        wait_until(lambda: len(peer.family()) == 1, "only the parent is left")
        wait_until(lambda: not peer.children(), "no zombies")

    def test_a_killed_fetcher_takes_no_time_of_the_parent(self):
        peer = self.start_peer_of([self.small, self.describe_file("absent", 100_000, 1000)])
        fetcher = self.find_fetcher(peer)
        wait_for_chunks(peer.address(), self.small, [0, 10])
        os.kill(fetcher, signal.SIGKILL)
        peer.says("the fetcher has ended")

        def ticks():
            fields = Path(f"/proc/{peer.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])
        before, start = ticks(), time.monotonic()
        wait_until(lambda: time.monotonic() - start > 1, "a second has passed")
        self.assertLess(ticks() - before, os.sysconf("SC_CLK_TCK") // 10)

    def test_a_killed_child_is_nobody_elses_loss(self):
        peer = self.serve(self.small)
        clients = [self.connect(peer) for _ in range(3)]
        for client in clients:
            self.ask(client, self.small, 0)
        os.kill(self.child_of(peer, clients[1]), signal.SIGKILL)
        wait_until(lambda: has_hung_up(clients[1]), "its client is hung up on")
        for client in (clients[0], clients[2]):
            self.ask(client, self.small, 1)
        self.ask_anew(peer, self.small, 2)
        wait_until(lambda: len(peer.children()) == 2 and not peer.children("Z"), "it is reaped")
        peer.says("killed by a signal")

    def test_killing_all_children_at_once_leaves_no_zombie(self):
        peer = self.serve(self.small)
        clients = [self.connect(peer) for _ in range(50)]
        for client in clients:
            self.ask(client, self.small, 0)
        for child in peer.children():
            os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: not peer.children(), "all are reaped")
        self.assertEqual(self.report(peer)[1], {})
        self.ask_anew(peer, self.small, 1)

    def test_a_child_ignores_the_signals_of_a_terminal_and_ends_with_its_parent(self):
        peer = self.serve(self.small)
        client = self.connect(peer)
        self.ask(client, self.small, 0)
        child = self.child_of(peer, client)
        for number in (signal.SIGUSR1, signal.SIGPIPE):
            os.kill(child, number)
        self.ask(client, self.small, 1)
        os.killpg(peer.pid, signal.SIGINT)
        self.assertEqual(peer.wait(5), 0)
        self.assert_leaves_nothing(peer)


class Reports(Parent):
    def test_files_and_clients_are_reported_even_if_quiet(self):
        absent = self.describe_file("absent", 10_000, 1000)
        absent.path.write_bytes(absent.without(3, 4, 5))
        for quiet in ([], ["-q"]):
            with self.subTest(quiet=quiet):
                peer = self.start_peer([self.small, absent], *quiet, "-p", f"{LOOPBACK}:1")
                wait_for_chunks(peer.address(), absent, [0, 9])
                before = peer.stderr
                held, clients = self.report(peer)
                self.assertEqual(held, {str(self.small.path): "11 of 11", str(absent.path): "7 of 10"})
                if quiet:
                    self.assertEqual(before, "")
                client = self.connect(peer)
                for _ in range(40):
                    self.ask(client, self.small, 1)
                found = self.wait_for_state(peer, client, "silent", 40)
                self.assertTrue(39_000 <= found.bytes <= 42_000, found.bytes)
                self.assertIn(found.child, [process.pid for process in peer.children()])
                client.close()
                wait_until(lambda: client not in self.report(peer)[1], "it has gone")
                self.assertEqual(peer.stdout.count("\n"), 1)
                self.end(peer)

    def test_refusals_are_no_chunks(self):
        absent = self.describe_file("absent", 10_000, 1000)
        peer = self.start_peer([self.small, absent], "-p", f"{LOOPBACK}:1")
        wait_for_chunks(peer.address(), self.small, [0])
        client = self.connect(peer)
        for _ in range(5):
            client.sendall(chunk_request(absent.hash, 0))
            self.assertEqual(receive_response(client)[0], NO_CHUNK_YET)
        self.ask(client, self.small, 1)
        self.assertEqual(self.wait_for_state(peer, client, "silent").chunks, 1)

    def test_a_client_that_doesnt_read_is_slow(self):
        huge = self.make_file("huge", 16 << 20, 16 << 20)
        peer = self.serve(huge)
        client = connect_as_crawler(peer.address())
        self.addCleanup(client.close)
        client.sendall(chunk_request(huge.hash, 0))
        found = self.wait_for_state(peer, client, "slow")
        self.assertEqual(found.chunks, 0)
        self.assertLess(found.bytes, 16 << 20)

    def test_bytes_are_counted_while_a_limited_chunk_is_being_sent(self):
        huge = self.make_file("huge", 4 << 20, 4 << 20)
        peer = self.start_peer(huge, "--max-upload", "1M")
        peer.address()
        peer.says("complete")
        client = self.connect(peer)
        client.sendall(chunk_request(huge.hash, 0))
        self.assertEqual(len(receive(client, 1 << 20)), 1 << 20)
        found = self.report(peer)[1][client.getsockname()]
        self.assertTrue((768 << 10) <= found.bytes <= (2 << 20), found.bytes)

    def test_those_who_left_are_counted(self):
        peer = self.serve(self.small)
        for number in range(30):
            self.ask_anew(peer, self.small, number % 10)
        wait_until(lambda: not peer.children(), "all have left")
        before = len(peer.stderr)
        self.report(peer)
        found = re.search(r"(\d+) clients now, (\d+) before, who were sent ([\d.]+) ?(\w+)",
                          peer.stderr[before:])
        self.assertEqual(found[1], "0")
        self.assertGreaterEqual(int(found[2]), 31)


class Damage(Parent):
    """A data file that is changed in place, after it was checked."""

    def damage(self, file, number, byte=5):
        with open(file.path, "r+b") as data:
            data.seek(number * file.chunk_size + byte)
            data.write(bytes([file.chunk(number)[byte] ^ 1]))

    def mend(self, file, number):
        with open(file.path, "r+b") as data:
            data.seek(number * file.chunk_size)
            data.write(file.chunk(number))

    def test_a_damaged_chunk_is_not_sent_with_verify_on_send(self):
        large = self.make_file("large", 1_000_000, 300_000)
        middle = self.make_file("middle", 100_000, 33_000)
        files = [self.small, middle, large]
        peer = self.serve(files, "--verify-on-send")
        before = self.connect(peer)
        for file in files:
            self.ask(before, file, 1)
            self.damage(file, 1, file.chunk_size - 1)
            self.damage(file, file.count - 1, 0)
        for client in (before, self.connect(peer)):
            for file in files:
                for number in range(file.count):
                    client.sendall(chunk_request(file.hash, number))
                    status, body = receive_response(client)
                    if number in (1, file.count - 1):
                        self.assertEqual(status, NO_CHUNK_YET, (file.path, number))
                        self.assertRegex(body.decode("ascii"), r"^[ -~]{10,}$")
                    else:
                        self.assertEqual((status, body), (OK, file.chunk(number)))
                self.assertIn(f"{file.path}: chunk 1 is damaged", peer.stderr)
        for file in files:
            self.mend(file, 1)
            self.ask(before, file, 1)

    def test_a_damaged_chunk_between_others_in_one_go(self):
        peer = self.serve(self.small, "--verify-on-send")
        self.damage(self.small, 5)
        client = self.connect(peer)
        client.sendall(b"".join(chunk_request(self.small.hash, number) for number in range(11)))
        for number in range(11):
            status, body = receive_response(client)
            if number == 5:
                self.assertEqual(status, NO_CHUNK_YET)
            else:
                self.assertEqual((status, body), (OK, self.small.chunk(number)))

    def test_a_file_cut_short_is_not_sent_with_verify_on_send(self):
        peer = self.serve(self.small, "--verify-on-send")
        client = self.connect(peer)
        self.ask(client, self.small, 9)
        os.truncate(self.small.path, 4_500)
        client.sendall(chunk_request(self.small.hash, 4))
        self.assertEqual(receive_response(client)[0], NO_CHUNK_YET)
        self.ask(client, self.small, 3)

    def assert_no_wrong_chunk(self, peer):
        """Of the one file it serves: any answer but a full chunk of wrong bytes."""
        for number in range(self.small.count):
            with connect(peer.address()) as client:
                client.sendall(chunk_request(self.small.hash, number))
                try:
                    status, body = receive_response(client)
                except (EOFError, ConnectionResetError):
                    continue
                self.assertTrue(status in (NO_FILE, NO_CHUNK_YET) or
                                (status, body) == (OK, self.small.chunk(number)), status)

    def test_another_file_in_its_place_is_not_sent(self):
        peer = self.serve(self.small)
        other = self.scratch / "other"
        for make in (lambda: other.write_bytes(bytes(10_500)),
                     lambda: other.symlink_to("/etc/passwd"),
                     lambda: other.symlink_to(self.scratch / "zeros")):
            (self.scratch / "zeros").write_bytes(bytes(10_500))
            make()
            os.replace(other, self.small.path)
            self.assert_no_wrong_chunk(peer)

    def test_a_shorter_file_is_not_sent_as_if_it_were_whole(self):
        peer = self.serve(self.small)
        os.truncate(self.small.path, 4_500)
        self.assert_no_wrong_chunk(peer)
        self.ask_anew(peer, self.small, 3)

    def test_who_began_before_goes_on_with_the_file_that_was_checked(self):
        peer = self.serve(self.small)
        client = self.connect(peer)
        self.ask(client, self.small, 0)
        other = self.scratch / "other"
        other.write_bytes(bytes(10_500))
        os.replace(other, self.small.path)
        client.sendall(chunk_request(self.small.hash, 1))
        status, body = receive_response(client)
        self.assertTrue(status in (NO_FILE, NO_CHUNK_YET) or (status, body) == (OK, self.small.chunk(1)))


class Upload(Parent):
    """--max-upload. Rates are measured from one arrival to another, some seconds later."""

    SECONDS = 5

    def serve_with_limit(self, rate, clients):
        """Return so many connections that ask a peer with that limit for more than will come."""
        if not hasattr(self, "huge"):
            self.huge = self.make_file("huge", 24 << 20, 24 << 20)
        peer = self.start_peer([self.huge], "--max-upload", rate)
        peer.address()
        peer.says("complete")
        connections = [self.connect(peer) for _ in range(clients)]
        for connection in connections:
            connection.sendall(chunk_request(self.huge.hash, 0))
        return connections

    def measure(self, *groups):
        """Read from all connections for some seconds, after one in which what was sent before
        comes. Return for each group its bytes a second and the bytes of each connection."""
        arrivals = {connection: [] for group in groups for connection in group}
        with selectors.DefaultSelector() as selector:
            for connection in arrivals:
                selector.register(connection, selectors.EVENT_READ)
            start = time.monotonic() + 1
            while (now := time.monotonic()) < start + self.SECONDS:
                for key, _ in selector.select(0.1):
                    size = len(key.fileobj.recv(1 << 20))
                    if now >= start:
                        arrivals[key.fileobj].append((size, now))
        results = []
        for group in groups:
            merged = sorted(((when, size) for connection in group
                             for size, when in arrivals[connection]))
            seconds = merged[-1][0] - merged[0][0]
            rate = sum(size for _, size in merged[1:]) / seconds
            results.append((rate, [sum(size for size, _ in arrivals[c]) for c in group]))
        return results

    def test_the_rate_is_kept_for_one_client_and_for_four(self):
        groups = {512 << 10: self.serve_with_limit("512K", 1), 1 << 20: self.serve_with_limit("1M", 4),
                  8 << 10: self.serve_with_limit("8K", 1)}
        good = set()
        # A machine with much else to do may be late now and then, and less is sent. More never is.
        for _ in range(3):
            rates = {wanted: rate for wanted, (rate, _) in zip(groups, self.measure(*groups.values()))}
            for wanted, rate in rates.items():
                self.assertLess(rate, wanted * 1.05)
                if rate > wanted * 0.95:
                    good.add(wanted)
            if len(good) == len(groups):
                return
        self.fail(f"too little was sent: {rates}")

    def test_equal_clients_get_equal_shares(self):
        four = self.serve_with_limit("1M", 4)
        shares = self.measure(four)[0][1]
        self.assertLess(max(shares) - min(shares), 0.2 * statistics.mean(shares), shares)

    def test_the_first_second_is_no_exception(self):
        start = time.monotonic()
        connection, = self.serve_with_limit("256K", 1)
        received = len(receive(connection, 384 << 10))
        self.assertEqual(received, 384 << 10)
        self.assertGreater(time.monotonic() - start, 1.2)

    def test_the_rate_is_reached_by_clients_that_connect_for_each_chunk(self):
        peer = self.start_peer(self.small, "--max-upload", "256K")
        wait_for_chunks(peer.address(), self.small, [0])
        best = 0
        for _ in range(3):
            start, received = time.monotonic(), 0
            while (now := time.monotonic()) - start < 2:
                self.ask_anew(peer, self.small, 1)
                received += 1009
            rate = received / (now - start)
            self.assertLess(rate, 256 * 1024 * 1.15)
            best = max(best, rate)
            if best > 256 * 1024 * 0.8:
                return
        self.fail(f"{best:.0f} bytes a second")

    def test_a_client_that_hangs_up_leaves_its_share_to_the_others(self):
        four = self.serve_with_limit("256K", 4)
        for connection in four:
            self.assertEqual(len(receive(connection, 1000)), 1000)
        for connection in four[1:]:
            connection.close()
        self.assertGreater(self.measure(four[:1])[0][0], 0.9 * (256 << 10))

    def test_rates_out_of_range_are_misuse(self):
        for rate in ("0", "", "1023", "x", "1025G", "-1", "10MB"):
            with self.subTest(rate=rate):
                program = self.run_program("cascade", "--max-upload", rate,
                                           *operands(self.small, None, (LOOPBACK, 0)))
                self.assert_misuse(program)


class Shortage(Parent):
    """The system refuses what the parent needs, for a while."""

    def limit(self, peer, what, number=None):
        """Set the peer's limit, at most to what it was at first; or to that."""
        most = resource.getrlimit(what)[1]
        as_user_of(peer.pid, lambda: resource.prlimit(
            peer.pid, what, (most if number is None else number, most)))

    @unittest.skipUnless(hasattr(resource, "prlimit"), "another process's limits can't be set here")
    def test_without_a_process_for_it_a_client_is_turned_away(self):
        os.chmod(self.scratch, 0o755)
        options = ["-u", NOBODY] if os.geteuid() == 0 else []  # root has no such limit
        peer = self.serve(self.small, *options)
        early = self.connect(peer)
        self.ask(early, self.small, 0)
        self.limit(peer, resource.RLIMIT_NPROC, 1)
        for _ in range(5):
            status, message = ask_peer(peer.address(), chunk_request(self.small.hash, 0))
            self.assertEqual(status, NO_CHUNK_YET)
            self.assertRegex(message.decode("ascii"), r"^[ -~]{10,}$")
        peer.says("can't fork for a client")
        self.ask(early, self.small, 1)
        self.limit(peer, resource.RLIMIT_NPROC)
        wait_for_chunks(peer.address(), self.small, range(11))
        self.assertFalse(peer.has_ended())

    @unittest.skipUnless(hasattr(resource, "prlimit"), "another process's limits can't be set here")
    def test_without_a_descriptor_it_waits_until_there_is_one(self):
        peer = self.serve(self.small)
        early = self.connect(peer)
        self.ask(early, self.small, 0)
        wait_until(lambda: len(peer.children()) == 1, "the others have left")
        used = open_files(peer.pid)
        self.limit(peer, resource.RLIMIT_NOFILE, min(set(range(len(used) + 1)) - set(used)))
        waiting = [self.connect(peer) for _ in range(5)]
        for client in waiting:
            client.sendall(chunk_request(self.small.hash, 2))
        peer.says("can't accept a connection")
        first, start = peer.stderr.count("can't accept"), time.monotonic()
        wait_until(lambda: peer.stderr.count("can't accept") >= first + 3 or
                   time.monotonic() - start > 2, "it has tried again")
        self.assertLess(peer.stderr.count("can't accept") - first, 20 * (time.monotonic() - start) + 3)
        self.ask(early, self.small, 1)
        self.assertEqual([c for c in waiting if has_hung_up(c)], [])
        self.limit(peer, resource.RLIMIT_NOFILE)
        for client in waiting:
            self.assertEqual(receive_response(client), (OK, self.small.chunk(2)))

    def test_with_few_descriptors_it_serves_or_says_why_not(self):
        served = 0
        for number in range(4, 16):
            with self.subTest(descriptors=number):
                peer = self.start(
                    [PROGRAMS / "cascade", *operands(self.small, None, (LOOPBACK, 0))],
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number)))
                wait_until(lambda: peer.has_ended() or "complete" in peer.stderr or
                           "ended" in peer.stderr, f"it serves or has ended: {peer.stderr}")
                if peer.has_ended():
                    self.assertEqual(peer.wait(), 1)
                    self.assertGreaterEqual(peer.stderr.count("\n"), 1)
                elif "complete" in peer.stderr:
                    self.ask_anew(peer, self.small, 1)
                    served += 1
        self.assertGreater(served, 0)


class User(Parent):
    def start_as(self, user):
        return self.start_peer(self.small, "-u", user)

    def test_an_unknown_user(self):
        program = self.start_as("no-such-user-here")
        self.assertEqual(program.wait(), 1)
        self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)
        self.assertIn("no-such-user-here", program.stderr)

    def test_all_its_processes_run_as_that_user(self):
        os.chmod(self.scratch, 0o755)
        if os.geteuid() != 0:
            program = self.start_as("root")
            self.assertEqual(program.wait(), 1)
            self.assertIn("can't become root", program.stderr)
            return
        import pwd
        user = pwd.getpwnam(NOBODY)
        absent = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([self.small, absent], "--user", NOBODY, "-p", f"{LOOPBACK}:1")
        wait_for_chunks(peer.address(), self.small, [0, 10])
        client = self.connect(peer)
        self.ask(client, self.small, 1)
        wait_until(lambda: len(peer.family()) >= 4, "fetcher, checker and child run")
        for process in peer.family():
            self.assertEqual(proc_status(process.pid, "Uid"), [str(user.pw_uid)] * 4)
            self.assertEqual(proc_status(process.pid, "Gid"), [str(user.pw_gid)] * 4)
            self.assertEqual(proc_status(process.pid, "Groups"), [str(user.pw_gid)])
            self.assertEqual(int(proc_status(process.pid, "CapEff")[0], 16), 0)
        peer.signal(signal.SIGKILL)
        peer.wait()
        self.assert_leaves_nothing(peer)

    def test_a_user_who_cannot_read_the_file(self):
        if os.geteuid() != 0:
            return  # nobody can be become: see above
        os.chmod(self.scratch, 0o700)
        program = self.start_as(NOBODY)
        self.assertEqual(program.wait(), 1)
        self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)
        self.assertIn(str(self.small.path), program.stderr)


class Children(Parent):
    """What a child has."""

    def assert_has_only_what_it_needs(self, peer, client, files, pipes=0):
        child = self.child_of(peer, client)
        opened = open_files(child)
        self.assertEqual(opened.pop(0), "/dev/null")
        opened.pop(1), opened.pop(2)
        sockets = [what for what in opened.values() if what.startswith("socket:")]
        self.assertEqual(len(sockets), 1, opened)
        self.assertNotIn(sockets[0], self.listening_sockets())
        self.assertEqual(len([w for w in opened.values() if w.startswith("pipe:")]), pipes, opened)
        paths = {what: fd for fd, what in opened.items() if what.startswith("/")}
        self.assertLessEqual(len([p for p in paths if not p.endswith(".cascade")]), 1, opened)
        self.assertLessEqual(set(paths), {str(p) for f in files for p in (f.path, f.metafile_path)})
        self.assertEqual(len(sockets) + len(paths) + pipes, len(opened), opened)
        for fd in paths.values():
            flags = re.search(r"flags:\s*(\d+)", Path(f"/proc/{child}/fdinfo/{fd}").read_text())[1]
            self.assertEqual(int(flags, 8) & os.O_ACCMODE, os.O_RDONLY)

    @staticmethod
    def listening_sockets():
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return {f"socket:[{words[9]}]" for words in fields if words[3] == "0A"}

    def test_descriptors_are_the_clients_and_the_files(self):
        peer = self.serve(self.small)
        crowd = [self.connect(peer) for _ in range(5)]
        for client in crowd:
            self.ask(client, self.small, 0)
        for client in crowd:
            self.assert_has_only_what_it_needs(peer, client, [self.small])

    def test_descriptors_beside_a_fetcher(self):
        absent = self.describe_file("absent", 100_000, 1000)
        tracker = Tracker(self, answer=lambda connection, command: wait_for_end(connection))
        other = self.make_file("other", 500_000, 100_000)
        peer = self.start([PROGRAMS / "cascade", "--max-upload", "100M", "--verify-on-send", *operands(
            [self.small, absent, other], tracker.address, (LOOPBACK, 0))])
        wait_for_chunks(peer.address(), other, [0, 4])
        client = self.connect(peer)
        for file in (self.small, other, self.small):
            self.ask(client, file, 0)
            self.assert_has_only_what_it_needs(peer, client, [self.small, absent, other], pipes=1)
        child = self.child_of(peer, client)
        listening = self.listening_sockets()
        self.assertTrue(listening & set(open_files(peer.pid).values()))
        self.assertFalse(listening & set(open_files(child).values()))

    def test_nobody_but_the_parent_has_the_listening_socket(self):
        absent = self.describe_file("absent", 100_000, 1000)
        tracker = Tracker(self, answer=lambda connection, command: wait_for_end(connection))
        peer = self.start_peer([self.small, absent], tracker=tracker.address)
        wait_until(lambda: set(tracker.commands()) == {1, 2}, "query and subscriber have asked")
        own = self.listening_sockets() & set(open_files(peer.pid).values())
        self.assertEqual(len(own), 1)
        for process in peer.family():
            if process.pid != peer.pid:
                self.assertFalse(own & set(open_files(process.pid).values()), process.pid)

    def test_no_new_privileges(self):
        if not PORTABLE and not has_landlock():
            self.skipTest("the kernel has no Landlock")
        peer = self.serve(self.small)
        client = self.connect(peer)
        self.ask(client, self.small, 0)
        self.assertEqual(proc_status(self.child_of(peer, client), "NoNewPrivs"), ["01"[not PORTABLE]])

    def test_descriptors_do_not_add_up_in_the_parent(self):
        peer = self.serve(self.small)
        before = open_files(peer.pid)
        for _ in range(3):
            clients = [self.connect(peer) for _ in range(30)]
            for client in clients:
                self.ask(client, self.small, 0)
                client.close()
        wait_until(lambda: not peer.children(), "all have left")
        self.assertEqual(open_files(peer.pid), before)


class FetchedAndServed(Parent):
    """Several files at a time, of which one is still coming."""

    def start_gated(self):
        """Start a peer that holds one file and fetches another, from a source that waits."""
        self.coming = self.describe_file("coming", 200_000, 100_000)
        self.gate = threading.Event()

        def answer(connection, number):
            if number == 1:
                self.gate.wait(WAIT)
            source.send_chunk(connection, number)
        source = Peer(self, self.coming, answer)
        peer = self.start_peer([self.small, self.coming], "--order=ascending", "-p",
                               "%s:%d" % source.address)
        self.addCleanup(self.gate.set)
        wait_for_chunks(peer.address(), self.small, [0, 10])
        wait_for_chunks(peer.address(), self.coming, [0])
        return peer

    def test_a_chunk_that_arrives_is_served_by_a_child_that_runs_already(self):
        peer = self.start_gated()
        client = self.connect(peer)
        request = chunk_request(self.coming.hash, 1)
        client.sendall(request)
        self.assertEqual(receive_response(client)[0], NO_CHUNK_YET)
        child = self.child_of(peer, client)
        self.gate.set()

        def comes():
            client.sendall(request)
            status, body = receive_response(client)
            self.assertIn(status, (OK, NO_CHUNK_YET))
            return status == OK and body
        self.assertTrue(wait_until(comes, "it is served") == self.coming.chunk(1))
        self.assertEqual(self.child_of(peer, client), child)
        peer.says(f"{self.coming.path}: complete")

    def test_requests_for_both_files_on_one_connection(self):
        peer = self.start_gated()
        client = self.connect(peer)
        wanted = [(self.small, 1, OK), (self.coming, 0, OK), (self.coming, 1, NO_CHUNK_YET),
                  (self.small, 10, OK), (self.coming, 0, OK), (self.small, 0, OK)] * 5
        client.sendall(b"".join(chunk_request(file.hash, number) for file, number, _ in wanted))
        for file, number, status in wanted:
            got, body = receive_response(client)
            self.assertEqual(got, status)
            if status == OK:
                self.assertTrue(body == file.chunk(number))
        self.assertEqual(self.report(peer)[0], {str(self.small.path): "11 of 11",
                                                str(self.coming.path): "1 of 2"})

    def test_a_client_that_waits_for_the_whole_file_gets_it(self):
        peer = self.start_gated()
        third = self.describe_file("third/coming", 0, 1)
        third.metafile_path.write_bytes(self.coming.metafile)
        fetcher = self.start_fetch(third, peers=[peer.address()])
        fetcher.says("downloading")
        self.gate.set()
        self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
        self.assert_same(third.path, self.coming.data)


if __name__ == "__main__":
    unittest.main()
