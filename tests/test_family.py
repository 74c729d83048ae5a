"""A serving parent's family: how many clients' children there are at most and who makes way for
whom, who outlives whom, as which user they run, what each has open."""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import pty
import re
import resource
import selectors
import signal
import socket
import statistics
import struct
import termios
import threading
import time
import unittest
from pathlib import Path

from parent import Parent, report_of
from scripted import Scripted, keep_silent, send, silent_tracker
from support import (IS_PORTABLE, LOOPBACK, NO_CHUNK_YET, OK, PROGRAMS, WAIT, Peer, ask_peer, chunk_request,
                     has_landlock, pause, proc_status, receive, receive_all, receive_response, wait_for_chunks, wait_until)

AT_ONCE = 1.5  # seconds; a client that had to wait for another would take longer
NOBODY = "nobody"


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


def waits_in_a_pipe(pid):
    """Whether a pipe that the process reads from has bytes for it."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        if os.readlink(path).startswith("pipe:") and not os.stat(path, follow_symlinks=False).st_mode & 0o200:
            with open(path, "rb") as pipe:
                if struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0] > 0:
                    return True
    return False


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


def open_files(pid):
    """Return {descriptor: what it is open for} of a process."""
    files = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        files[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return files


def limit_files():
    """For the process that is to run a program: let it write no more than 64 KiB into a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))


def confine_to_the_last_but_one():
    """For the process that is to run a program: let it be so confined by Landlock already that
    it can prepare a confinement, but put none on."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    make_block_device = ctypes.c_uint64(1 << 11)
    ruleset = libc.syscall(444, ctypes.byref(make_block_device), ctypes.c_size_t(8), ctypes.c_uint(0))
    while libc.syscall(446, ruleset, ctypes.c_uint(0)) == 0:
        pass
    os.close(ruleset)


class AtTheBound(Parent):
    def test_the_client_that_was_silent_for_longest_makes_way(self):
        peer = self.serve(self.small, "--max-clients", "3")
        clients = []

        def ask(client):
            counts[client] = counts.get(client, 0) + 1
            self.ask(client, self.small, 1)
            self.wait_for_state(peer, client, "silent", counts[client])
            pause(0.01)  # the peer counts in milliseconds, and the next client is to be silent for less
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
        self.assertEqual(len(report_of(peer)[1]), 3)

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

    def assert_make_way(self, peer, number, live):
        """So many clients that live(connection) must not keep an honest one from its chunks."""
        stopped = threading.Event()

        def run(client):
            while not stopped.is_set():
                try:
                    with self.connect(peer) as connection:
                        live(connection, stopped)
                except (OSError, EOFError):
                    pass  # it was left: the next one comes
        clients = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(number)]
        self.addCleanup(lambda: [client.join(WAIT) for client in clients])
        self.addCleanup(stopped.set)
        for client in clients:
            client.start()
        wait_until(lambda: len(peer.children()) >= number, "all are there")
        pause(0.5)  # they have been at it for a while
        for turn in range(5):
            self.assertLess(self.ask_anew(peer, self.small, turn), AT_ONCE)

    def test_requests_in_drops_make_way(self):
        request = chunk_request(self.small.hash, 0)

        def drip(connection, stopped):
            for byte in request:
                connection.sendall(bytes([byte]))
                if stopped.wait(0.07):
                    return
            receive_response(connection)
        self.assert_make_way(self.serve(self.small, "-m", "4"), 4, drip)

    def test_clients_that_ask_for_nothing_but_what_is_not_held_make_way(self):
        absent = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([self.small, absent], "-m", "2", peers=[self.vacant_address()])
        wait_for_chunks(peer.address(), self.small, range(11))

        def ask_in_vain(connection, stopped):
            while not stopped.is_set():
                connection.sendall(chunk_request(absent.hash, 0) * 10)
                for _ in range(10):
                    if receive_response(connection)[0] != NO_CHUNK_YET:
                        raise AssertionError("a chunk that nobody has")
        # The fetcher is a child of the parent, too.
        self.assert_make_way(peer, 2, ask_in_vain)

    def test_while_nobody_waits_who_asks_for_what_is_not_held_may_stay(self):
        absent = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([self.small, absent], "-m", "2", peers=[self.vacant_address()])
        wait_for_chunks(peer.address(), self.small, range(11))
        client = self.connect(peer)
        for _ in range(10):
            client.sendall(chunk_request(absent.hash, 0))
            self.assertEqual(receive_response(client)[0], NO_CHUNK_YET)
            self.ask_anew(peer, self.small, 1)
            pause(0.05)

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
        self.assertLess(statistics.median(seconds), 0.5)  # the first waits until all of the crowd had a look in
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
        data, start = bytearray(), time.monotonic()
        while (now := time.monotonic() - start) < seconds:
            if len(data) < now * rate:
                try:
                    piece = client.recv(max(256, rate // 50))
                except ConnectionError:
                    piece = b""
                self.assertTrue(piece, f"cut off after {now:.1f} s and {len(data)} bytes")
                data += piece
            else:
                pause(0.005)
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
        crawler = self.connect_as_crawler(peer)
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

    def test_clients_that_take_nothing_lose_their_turns(self):
        """Those who have a turn are sent to first, and only a few have one."""
        large = self.make_file("large", 4 << 20, 2 << 20)
        peer = self.serve(large)
        for _ in range(100):
            self.connect_as_crawler(peer).sendall(chunk_request(large.hash, 1))
        wait_until(lambda: len(peer.children()) == 100, "all are served")
        self.assertLess(self.ask_anew(peer, large, 1), 11)

    def test_who_lost_its_turn_gets_the_rest(self):
        large = self.make_file("large", 4 << 20, 2 << 20)
        peer = self.serve(large)
        crawlers = [self.connect_as_crawler(peer) for _ in range(5)]
        for crawler in crawlers:
            crawler.sendall(chunk_request(large.hash, 1))
        wait_until(lambda: len(peer.children()) == 5, "all are served")
        self.ask_anew(peer, large, 0)  # it has a turn once others lost theirs
        for crawler in crawlers:
            self.assertEqual(receive_response(crawler), (OK, large.chunk(1)))

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
        source, tracker = Scripted(self, self.absent, send, keep_silent), silent_tracker(self)
        peer = self.start_peer([self.small, self.absent], peers=[source.address], tracker=tracker.address, **how)
        wait_for_chunks(peer.address(), self.small, [0, 10])
        self.client = self.connect(peer)
        self.ask(self.client, self.small, 0)
        wait_until(lambda: source.requests, "the fetcher has asked")
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
                self.assertEqual(peer.wait(5), 5)  # a file is incomplete
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
        self.assertEqual(peer.wait(5), 5)

    def test_a_request_for_a_report_ends_no_process(self):
        peer = self.start_with_all_kinds()
        before = {process.pid for process in peer.family()}
        os.killpg(peer.pid, signal.SIGUSR1)
        peer.says("chunks held")
        self.ask(self.client, self.small, 5)
        self.ask_anew(peer, self.small, 6)
        self.assertLessEqual(before, {process.pid for process in peer.family()})
        self.assertNotIn("has ended", peer.stderr)

    def start_fetch_with_a_checker(self, *script):
        """Start a fetch from a peer that acts so after two chunks. Return it with its checker when
        that has checked the first chunk, and an event: then the second one is sent."""
        file = self.describe_file("data", 200_000, 1000)
        go_on = threading.Event()

        def send_later(peer, connection, number):
            if not go_on.wait(WAIT):
                raise AssertionError("it was never to go on")
            peer.send_chunk(connection, number)
        peer = Scripted(self, file, send, send_later, *script)
        fetcher = self.start_fetch(file, peers=[peer.address])
        wait_until(lambda: len(peer.requests) > 1, "it asks, with a first chunk checked")
        checker, = fetcher.children()
        return fetcher, checker, go_on

    def test_a_fetcher_does_not_wait_for_a_checker_that_was_killed(self):
        fetcher, checker, go_on = self.start_fetch_with_a_checker(keep_silent)
        os.kill(checker.pid, signal.SIGSTOP)
        go_on.set()
        wait_until(lambda: waits_in_a_pipe(checker.pid), "the checker is given the second chunk")
        os.kill(checker.pid, signal.SIGKILL)
        fetcher.deserved = "a checker has died"
        self.assertEqual(fetcher.wait(), 1)
        self.assert_one_sentence(fetcher, fetcher.deserved)

    def test_a_checker_that_was_killed_with_nothing_to_do_is_replaced(self):
        fetcher, checker, go_on = self.start_fetch_with_a_checker(send)
        os.kill(checker.pid, signal.SIGKILL)
        wait_until(lambda: not fetcher.children(), "it is reaped")
        go_on.set()
        self.assertEqual(fetcher.wait(), 0, fetcher.stderr)

    def test_a_signal_while_a_large_file_is_checked(self):
        size, piece = 384 << 20, os.urandom(1 << 20)
        path = self.scratch / "big"
        with open(path, "wb") as file:
            for _ in range(size // len(piece)):
                file.write(piece)
        big = self.describe_file("junk", 2 << 20, 1 << 20)  # for the form of its metafile
        header = bytearray(big.metafile[:64])
        header[16:32] = size.to_bytes(8, "big") + (1 << 20).to_bytes(8, "big")
        Path(f"{path}.cascade").write_bytes(bytes(header) + hashlib.sha256(piece).digest() +
                                             os.urandom(32 * (size >> 20) - 32))
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(signal=number):
                peer = self.start([PROGRAMS / "cascade", "-j", "2", f"{path}.cascade", "-", f"{LOOPBACK}:0"])
                peer.address()
                wait_until(lambda: len(peer.family()) >= 3, "processes check the file")
                peer.signal(number)
                self.assertEqual(peer.wait(5), 5 if number == signal.SIGTERM else -number)
                self.assert_leaves_nothing(peer)
                if number == signal.SIGTERM or not IS_PORTABLE:  # there it takes a second to learn of a parent's death
                    self.assertNotIn("verified", peer.stderr)

    def test_a_fetcher_that_cannot_write_leaves_the_parent_serving(self):
        file = self.describe_file("data", 200_000, 1000)
        file.path.write_bytes(file.without(*range(10, 200)))
        peer = self.start_peer([file, self.small], "--order=ascending", peers=[Peer(self, file).address],
                               preexec_fn=limit_files)
        self.assert_ends_its_fetcher(peer, f"{file.path}: can't be written")
        for number in (0, 9):
            self.ask_anew(peer, file, number)
        self.ask_anew(peer, self.small, 3)
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 150))[0], NO_CHUNK_YET)

    def test_a_fetcher_that_cannot_begin_leaves_the_parent_serving(self):
        file = self.describe_file("data", 200_000, 1000)
        peer = self.start_peer([file, self.small], peers=[self.vacant_address()], preexec_fn=limit_files)
        self.assert_ends_its_fetcher(peer, str(file.path))
        self.ask_anew(peer, self.small, 3)
        self.assertEqual(ask_peer(peer.address(), chunk_request(file.hash, 0))[0], NO_CHUNK_YET)

    def assert_ends_its_fetcher(self, peer, reason):
        """It must say so in one line, and why in another, and hold no zombie."""
        peer.says("the fetcher has ended")
        self.assertIn(reason, peer.stderr)
        self.assertEqual(peer.stderr.count("the fetcher has ended"), 1)
        wait_until(lambda: not peer.children(), "it is reaped")
        self.assertFalse(peer.has_ended())

    def test_a_killed_fetcher_leaves_the_parent_serving(self):
        absent = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([self.small, absent], peers=[self.vacant_address()])
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
        peer = self.start_peer([self.small, self.describe_file("absent", 100_000, 1000)])
        fetcher = self.find_fetcher(peer)
        wait_for_chunks(peer.address(), self.small, [0, 10])
        os.kill(fetcher, signal.SIGKILL)
        peer.says("the fetcher has ended")

        def ticks():
            fields = Path(f"/proc/{peer.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])
        before = ticks()
        pause(1)
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
        self.assertEqual(report_of(peer)[1], {})
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
            self.assert_line(message)
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
        wait_until(lambda: peer.stderr.count("can't accept") > first, "it is said again while it lasts")
        self.assertLess(peer.stderr.count("can't accept"), (time.monotonic() - start) / 9 + 2)
        self.ask(early, self.small, 1)
        self.assertEqual([c for c in waiting if has_hung_up(c)], [])
        self.limit(peer, resource.RLIMIT_NOFILE)
        for client in waiting:
            self.assertEqual(receive_response(client), (OK, self.small.chunk(2)))

    def test_with_few_descriptors_it_serves_or_says_why_not(self):
        served = 0
        for number in range(4, 16):
            with self.subTest(descriptors=number):
                peer = self.start_peer(self.small, preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_NOFILE, (number, number)))
                wait_until(lambda: peer.has_ended() or "complete" in peer.stderr or
                           "ended" in peer.stderr, f"it serves or has ended: {peer.stderr}")
                if peer.has_ended():
                    self.assertEqual(peer.wait(), 1)
                    self.assertGreaterEqual(peer.stderr.count("\n"), 1)
                elif "complete" in peer.stderr:
                    self.ask_anew(peer, self.small, 1)
                    served += 1
        self.assertGreater(served, 0)


    def test_a_child_that_cannot_be_confined_serves_nobody_and_it_is_said(self):
        if IS_PORTABLE:
            return  # what the portable build leaves out, it does not promise
        if not has_landlock():
            self.skipTest("the kernel has no Landlock")
        peer = self.start_peer(self.small, preexec_fn=confine_to_the_last_but_one)
        peer.says("complete")
        for _ in range(5):
            status, message = ask_peer(peer.address(), chunk_request(self.small.hash, 0))
            self.assertEqual(status, NO_CHUNK_YET)
            self.assert_line(message)
        peer.says("a child can't confine itself; its client was turned away: ")
        self.assertEqual(peer.stderr.count("can't confine itself"), 1)


class Log(Parent):
    """Nobody reads standard error."""

    def read_to(self, end, words):
        """Read what comes until these words do."""
        os.set_blocking(end, False)
        text = b""

        def came():
            nonlocal text
            try:
                text += os.read(end, 65536)
            except BlockingIOError:
                pass
            return words in text
        wait_until(came, f"{words} comes")
        return text

    def assert_serves_on(self, peer, reports):
        wait_for_chunks(peer.address(), self.small, range(11))
        clients = [self.connect(peer) for _ in range(20)]
        for number in range(reports):
            self.ask(clients[number % 20], self.small, number % 11)
            peer.signal(signal.SIGUSR1)
            self.assertLess(self.ask_anew(peer, self.small, number % 11), AT_ONCE)

    def test_a_full_pipe_stops_nobody_and_lost_lines_are_counted(self):
        reading, writing = self.full_pipe()
        peer = self.start_peer(self.small, stderr=writing)
        os.close(writing)
        self.assert_serves_on(peer, 10)
        text = self.read_to(reading, b" lost: ").lstrip(b"x")
        self.assertRegex(text, rb"(?m)^cascade: lines that could not be written and are lost: [1-9]\d*$")
        peer.signal(signal.SIGUSR1)
        self.read_to(reading, b"11 of 11 chunks held\n")

    def test_lines_of_children_are_counted_too(self):
        self.small.path.write_bytes(self.small.data)
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        peer = self.start_peer(self.small, "--verify-on-send", stderr=writing)
        wait_for_chunks(peer.address(), self.small, range(11))
        self.read_to(reading, b"complete")
        os.set_blocking(writing, False)
        filled = 0
        try:
            while True:
                filled += os.write(writing, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writing, True)
        os.close(writing)
        self.small.path.write_bytes(self.small.without(3))
        for _ in range(7):
            status, message = ask_peer(peer.address(), chunk_request(self.small.hash, 3))
            self.assertEqual(status, NO_CHUNK_YET)
        wait_until(lambda: not peer.children(), "all have left")
        peer.signal(signal.SIGUSR1)
        wait_until(lambda: self.pending(peer) == 0, "it has seen the signal")
        text = self.read_to(reading, b" lost: 3\n").lstrip(b"x")
        self.assertEqual(text.count(b" lost: "), 1)

    @staticmethod
    def pending(peer):
        return int(proc_status(peer.pid, "ShdPnd")[0], 16)

    def test_a_terminal_that_nobody_reads_stops_nobody(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        peer = self.start_peer(self.small, stderr=slave)
        os.close(slave)
        self.assert_serves_on(peer, 60)
        self.read_to(master, b" lost: ")
        peer.signal(signal.SIGUSR1)
        self.read_to(master, b"11 of 11 chunks held\r\n")

    def test_a_fetcher_is_not_stopped_either(self):
        reading, writing = self.full_pipe()
        other = self.describe_file("other/small", 0, 1)
        other.metafile_path.write_bytes(self.small.metafile)
        fetcher = self.start_fetch(other, "-v", peers=[Peer(self, self.small).address], stderr=writing)
        os.close(writing)
        self.assertEqual(fetcher.wait(), 0)
        self.assert_same(other.path, self.small.data)

    def test_last_words_are_waited_for(self):
        reading, writing = self.full_pipe()
        program = self.start([PROGRAMS / "cascade", "none.cascade", "-", f"{LOOPBACK}:0"], stderr=writing)
        os.close(writing)
        pause(0.2)  # it has begun to wait
        self.read_to(reading, b"none.cascade: ")
        self.assertEqual(program.wait(), 1)

    def test_standard_error_stays_as_it_was_for_others(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        peer = self.start_peer(self.small, stderr=writing)
        wait_for_chunks(peer.address(), self.small, range(11))
        self.assertTrue(os.get_blocking(writing))


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
            self.assertIn("can't become user root", program.stderr)
            return
        import pwd
        user = pwd.getpwnam(NOBODY)
        absent = self.describe_file("absent", 100_000, 1000)
        source = Scripted(self, absent, send, keep_silent)
        peer = self.start_peer([self.small, absent], "--user", NOBODY, peers=[source.address])
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
            self.skipTest("only root can become somebody else")
        os.chmod(self.scratch, 0o700)
        program = self.start_as(NOBODY)
        self.assertEqual(program.wait(), 1)
        self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)
        self.assertIn(str(self.small.path), program.stderr)


class Children(Parent):
    """What a child has."""

    def test_no_child_can_write_the_map_of_held_chunks(self):
        if IS_PORTABLE:
            return  # likewise
        absent = self.describe_file("absent", 100_000, 1000)
        peer = self.start_peer([self.small, absent], peers=[self.vacant_address()])
        wait_for_chunks(peer.address(), self.small, [0, 10])
        client = self.connect(peer)
        self.ask(client, self.small, 0)
        for pid in (peer.pid, self.child_of(peer, client)):
            maps = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
                    if "memfd:held" in line]
            self.assertEqual([words[1] for words in maps], ["r--s"] * 2, maps)

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
            with contextlib.suppress(FileNotFoundError):  # it may have closed the file since
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
        other = self.make_file("other", 500_000, 100_000)
        peer = self.start_peer([self.small, absent, other], "--max-upload", "100M", "--verify-on-send",
                               tracker=silent_tracker(self).address)
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
        tracker = silent_tracker(self)
        peer = self.start_peer([self.small, absent], tracker=tracker.address)
        wait_until(lambda: set(tracker.commands()) == {1, 2}, "query and subscriber have asked")
        own = self.listening_sockets() & set(open_files(peer.pid).values())
        self.assertEqual(len(own), 1)
        for process in peer.family():
            if process.pid != peer.pid:
                self.assertFalse(own & set(open_files(process.pid).values()), process.pid)

    def test_no_new_privileges(self):
        if not IS_PORTABLE and not has_landlock():
            self.skipTest("the kernel has no Landlock")
        peer = self.serve(self.small)
        client = self.connect(peer)
        self.ask(client, self.small, 0)
        self.assertEqual(proc_status(self.child_of(peer, client), "NoNewPrivs"), ["01"[not IS_PORTABLE]])

    def test_no_processes_of_its_own(self):
        if IS_PORTABLE:
            return  # likewise
        if not has_landlock():
            self.skipTest("the kernel has no Landlock")
        os.chmod(self.scratch, 0o755)
        for options in [], ["--user", NOBODY] if os.geteuid() == 0 else ["--quiet"]:
            peer = self.serve(self.small, *options)
            client = self.connect(peer)
            self.ask(client, self.small, 0)
            for pid, can in (peer.pid, True), (self.child_of(peer, client), False):
                limits = Path(f"/proc/{pid}/limits").read_text()
                most = re.search(r"^Max processes +(\d+|unlimited) +(\d+|unlimited)", limits, re.M)
                self.assertEqual(most.groups() != ("0", "0"), can, limits)

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


if __name__ == "__main__":
    unittest.main()
