"""A file that goes to standard output while it arrives: cascade -c -o -."""

import os
import pty
import select
import shutil
import signal
import tarfile
import threading
import tty
import unittest
from pathlib import Path

from scripted import Scripted, keep_silent, lie, not_yet, part, send, silent_tracker
from support import (LOOPBACK, OK, PROGRAMS, WAIT, Case, Peer, SharedFile, chunk_response, operands, pause,
                     random_bytes, wait_until)
from test_space import Disk

KIB, MIB = 1 << 10, 1 << 20
PIECE = 1 << 16  # more is not read from a pipe at once
WINDOW = 64 * MIB  # what may be asked for ahead of what is written
WINDOW_CHUNKS = 4  # or so many chunks
LIMIT = 4  # seconds: a time limit that is to pass; a good peer on a machine with much else to do keeps it


class Pipe:
    """The end of a pipe that a test reads."""

    def __init__(self, case):
        self.reading, self.writing = os.pipe()
        case.addCleanup(self.close)

    def close(self):
        for end in (self.reading, self.writing):
            if end is not None:
                os.close(end)
        self.reading = self.writing = None

    def hand_over(self):
        """The program has the end for writing, and nobody else."""
        os.close(self.writing)
        self.writing = None

    def is_readable(self):
        return bool(select.select([self.reading], [], [], 0)[0])

    def read(self, size):
        """Read size bytes, or to the end of file."""
        pieces = []
        while size > 0 and (piece := os.read(self.reading, min(size, PIECE))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read_all(self):
        return self.read(1 << 40)


class PipeCase(Case):
    def setUp(self):
        super().setUp()
        self.folder = self.scratch / "tmp"
        self.folder.mkdir()
        self.environment = {"TMPDIR": str(self.folder)}

    def start_into(self, stdout, file, *options, peers=(), **how):
        """Start a fetch whose standard output is that file or descriptor."""
        return self.start_fetch(file, "-o", "-", *options, peers=[peer.address for peer in peers],
                                stdout=stdout, env=self.environment, **how)

    def start_pipe(self, file, *options, **how):
        """Start a fetch into a pipe. Return the program and the pipe."""
        pipe = Pipe(self)
        program = self.start_into(pipe.writing, file, *options, **how)
        pipe.hand_over()
        return program, pipe

    def fetch_through(self, file, *options, peers):
        """Fetch through a pipe, to the end. Return the program."""
        program, pipe = self.start_pipe(file, *options, peers=peers)
        self.assert_data(pipe.read_all(), file.data)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assert_nothing_is_left()
        return program

    def assert_data(self, found, data):
        self.assertTrue(found == data, f"{len(found)} bytes are not the {len(data)} expected")

    def assert_nothing_is_left(self):
        self.assertEqual(list(self.folder.iterdir()), [])

    def blocks(self, program):
        """Return how many bytes the temporary file of the program takes on the disk."""
        sizes = []
        for path in Path(f"/proc/{program.pid}/fd").iterdir():
            try:
                if os.readlink(path).startswith(f"{self.folder}/"):
                    sizes.append(path.stat().st_blocks * 512)
            except OSError:
                pass  # closed meanwhile
        self.assertLessEqual(len(sizes), 1)
        return sum(sizes)

    def wait_for_window(self, peers, file, count):
        """Wait until the chunks of the window, and no others, have been asked for."""
        def asked():
            return {number for peer in peers for number in peer.requests}
        wait_until(lambda: len(asked()) >= count, "the window is asked for")
        pause(0.3)
        self.assertEqual(asked(), set(range(count)))


class Bytes(PipeCase):
    """What comes out is the file, whatever the peers do."""

    def test_through_a_pipe(self):
        for size, chunk_size in ((1, 1), (30_500, 1000), (100_000, 100_000), (3_000_000, 50_001)):
            with self.subTest(size=size):
                file = self.describe_file(f"data-{size}", size, chunk_size)
                program = self.fetch_through(file, peers=[Peer(self, file), Peer(self, file)])
                self.assertIn("standard output: complete and verified", program.stderr)
                self.assertFalse(file.path.exists())

    def test_more_than_the_window(self):
        """Chunks of different sizes, in files that are larger than what may come early."""
        data = random_bytes(5 * 20 * MIB)
        for size, chunk_size in ((WINDOW + 20 * MIB, 700_000), (len(data) - 1, 20 * MIB), (WINDOW + 3 * MIB, 50_001)):
            with self.subTest(chunk_size=chunk_size):
                file = SharedFile(self.scratch / f"data-{chunk_size}", data[:size], chunk_size)
                self.fetch_through(file, peers=[Peer(self, file) for _ in range(3)])

    def test_peers_that_hold_parts(self):
        file = self.describe_file("data", 30_500, 1000)
        self.fetch_through(file, peers=[Scripted(self, file, part(i, of=3)) for i in range(3)])

    def test_a_liar(self):
        """Some of its chunks are right."""
        for script in ((lie,), (send, send, send, lie), (lie, send)):
            file = self.describe_file("data", 200_000, 1000)
            self.fetch_through(file, peers=[Scripted(self, file, *script), Peer(self, file)])

    def test_nobody_but_liars(self):
        file = self.describe_file("data", 30_500, 1000)
        program, pipe = self.start_pipe(file, "--give-up", 1, peers=[Scripted(self, file, lie) for _ in range(3)])
        self.assertEqual(pipe.read_all(), b"")
        self.assertEqual(program.wait(), 4, program.stderr)
        self.assert_nothing_is_left()

    def test_what_is_right_before_a_lie_comes_out(self):
        """And nothing after it."""
        file = self.describe_file("data", 30_500, 1000)

        def answer(connection, number):
            data = file.chunk(number) if number < 10 else bytes(len(file.chunk(number)))
            connection.sendall(chunk_response(OK, data))
        program, pipe = self.start_pipe(file, "--give-up", LIMIT, peers=[Peer(self, file, answer)])
        self.assert_data(pipe.read_all(), file.data[:10_000])
        self.assertEqual(program.wait(), 4, program.stderr)

    def test_the_first_chunk_comes_last(self):
        """What comes early waits; then all comes out."""
        file = self.describe_file("data", 30_500, 1000)
        release = threading.Event()
        sent = set()

        def answer(connection, number):
            if number == 0 and not release.wait(WAIT):
                raise AssertionError("never released")
            connection.sendall(chunk_response(OK, file.chunk(number)))
            sent.add(number)
        program, pipe = self.start_pipe(file, peers=[Peer(self, file, answer) for _ in range(2)])
        wait_until(lambda: len(sent) == file.count - 1, "all but the first chunk are sent")
        pause(0.3)
        self.assertFalse(pipe.is_readable())
        release.set()
        self.assert_data(pipe.read_all(), file.data)
        self.assertEqual(program.wait(), 0, program.stderr)

    def test_an_empty_file(self):
        file = self.describe_file("data", 0, 1000)
        program = self.fetch_through(file, peers=[Peer(self, file)])
        self.assertIn("standard output: complete", program.stderr)

    def test_zeros_are_not_fetched(self):
        """At the beginning, at the end, more of them than the window, and nothing else."""
        zeros, some = bytes(MIB), random_bytes(MIB)
        for name, parts in (("around", [zeros] * 3 + [some] + [zeros] * 70 + [some] + [zeros] * 2 + [b"\0"]),
                            ("only", [zeros] * 70), ("middle", [some] * 2 + [zeros] * 66 + [some])):
            with self.subTest(name):
                file = SharedFile(self.scratch / name, b"".join(parts), MIB)
                peer = Peer(self, file)
                program = self.fetch_through(file, peers=[peer])
                asked = [n for n in range(file.count) if any(file.chunk(n))]
                self.assertEqual(sorted(peer.requests), asked)
                self.assertIn(f"chunks: {len(asked)} from " if asked else "chunks: none fetched; ", program.stderr)

    def test_within_a_limit_and_in_order(self):
        file = self.describe_file("data", 300_000, 10_000)
        self.fetch_through(file, "--max-download", "1M", "--order=ascending", "-j", 1, peers=[Peer(self, file)])


class Where(PipeCase):
    """What standard output may be."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 300_000, 1000)
        self.peer = Peer(self, self.file)

    def test_a_regular_file_goes_on_where_it_stands(self):
        path = self.scratch / "out"
        for mode in ("ab", "r+b"):
            with self.subTest(mode):
                path.write_bytes(b"before, and 12345678")
                with path.open(mode) as out:
                    out.seek(6)
                    program = self.start_into(out, self.file, peers=[self.peer])
                    self.assertEqual(program.wait(), 0, program.stderr)
                before = path.read_bytes()[:20] if mode == "ab" else b"before"
                self.assert_same(path, before + self.file.data)

    def test_a_pipe_that_does_not_block(self):
        pipe = Pipe(self)
        os.set_blocking(pipe.writing, False)
        program = self.start_into(pipe.writing, self.file, peers=[self.peer])
        pipe.hand_over()
        pause(0.5)  # the pipe is full by now, for longer than one that is short of memory waits
        self.assert_data(pipe.read_all(), self.file.data)
        self.assertEqual(program.wait(), 0, program.stderr)

    def test_tar(self):
        folder = self.scratch / "album"
        folder.mkdir()
        for i in range(5):
            (folder / f"photo{i}").write_bytes(random_bytes(50_000, i))
        with tarfile.open(self.scratch / "album.tar", "w") as archive:
            archive.add(folder, "album")
        file = SharedFile(self.scratch / "album.tar", (self.scratch / "album.tar").read_bytes(), 4096)
        target = self.scratch / "there"
        target.mkdir()
        command = '"$0" -c -q -o - --peer "$1" "$2" - 127.0.0.1:0 | tar xf - -C "$3"'
        program = self.start(["sh", "-c", command, PROGRAMS / "cascade", Peer(self, file).name,
                              file.metafile_path, target], env=self.environment)
        self.assertEqual(program.wait(), 0, program.stderr)
        for path in folder.iterdir():
            self.assert_same(target / "album" / path.name, path.read_bytes())

    def open_terminal(self):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        self.addCleanup(os.close, theirs)
        tty.setraw(theirs)
        return ours, theirs

    def test_a_terminal_is_refused(self):
        ours, theirs = self.open_terminal()
        program = self.start_into(theirs, self.file, peers=[self.peer])
        self.assert_misuse(program)
        self.assertIn("standard output is a terminal", program.stderr)
        self.assertEqual(select.select([ours], [], [], 0)[0], [])
        self.assertEqual(self.peer.connections, [])

    def test_a_terminal_by_force(self):
        ours, theirs = self.open_terminal()
        program = self.start_into(theirs, self.file, "--force", peers=[self.peer])
        data = b""
        while len(data) < len(self.file.data):
            data += os.read(ours, 65536)
        self.assert_data(data, self.file.data)
        self.assertEqual(program.wait(), 0, program.stderr)

    def test_closed_or_only_for_reading(self):
        for redirection in (">&-", "1</dev/null"):
            with self.subTest(redirection):
                command = f'exec "$0" "$@" {redirection}'
                program = self.start(["sh", "-c", command, PROGRAMS / "cascade", "-c", "-o", "-", "--peer",
                                      self.peer.name, *operands(self.file, None, (LOOPBACK, 0))])
                self.assert_misuse(program)
                self.assertIn("standard output is not open for writing", program.stderr)
        self.assertEqual(self.peer.connections, [])

    def test_a_full_disk_behind_it(self):
        with open("/dev/full", "wb") as full:
            program = self.start_into(full, self.file, "-q", peers=[self.peer])
            self.assertEqual(program.wait(), 3, program.stderr)
        self.assert_one_sentence(program, "standard output: can't be written: No space left on device")
        self.assert_nothing_is_left()


class Reader(PipeCase):
    """A reader that is slow, stops, or goes away."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", WINDOW + 40 * MIB + 5, MIB)
        self.window = WINDOW // MIB

    def test_it_stops_and_goes_on(self):
        """Meanwhile the window is all that is asked for and all that the disk has; time limits pass; then
        each chunk comes once."""
        peers = [Peer(self, self.file)]  # with a second one, the slower one of them might lose a chunk to it
        program, pipe = self.start_pipe(self.file, "--timeout", LIMIT, "--give-up", LIMIT, "-v", peers=peers)
        self.wait_for_window(peers, self.file, self.window)
        self.assertLessEqual(self.blocks(program), WINDOW + MIB)
        self.assertGreater(self.blocks(program), WINDOW // 2)
        pause(LIMIT + 1)
        self.wait_for_window(peers, self.file, self.window)
        data = pipe.read(10 * MIB)
        self.wait_for_window(peers, self.file, self.window + 10)
        self.assertLessEqual(self.blocks(program), WINDOW + MIB)
        data += pipe.read(20 * MIB)
        self.assertLessEqual(self.blocks(program), WINDOW + MIB)
        pause(LIMIT + 1)
        self.assertFalse(program.has_ended(), program.stderr)
        self.assert_data(data + pipe.read_all(), self.file.data)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertEqual(sorted(peers[0].requests), list(range(self.file.count)))
        self.assertNotIn("silent", program.stderr)
        self.assertIn("; 0 B wasted", program.stderr)

    def test_a_silent_tracker_changes_nothing(self):
        """It is being asked while the reader has stopped."""
        peer, tracker = Peer(self, self.file), silent_tracker(self)
        program, pipe = self.start_pipe(self.file, "--give-up", LIMIT, peers=[peer], tracker=tracker.address)
        self.wait_for_window([peer], self.file, self.window)
        pause(LIMIT + 1)
        self.assertFalse(program.has_ended(), program.stderr)
        self.assert_data(pipe.read_all(), self.file.data)
        self.assertEqual(program.wait(), 0, program.stderr)

    def test_it_is_slow_at_the_end(self):
        """All is held, and not yet read."""
        file = self.describe_file("short", 500_000, 1000)
        peer = Peer(self, file)
        program, pipe = self.start_pipe(file, "--timeout", LIMIT, "--give-up", LIMIT, peers=[peer])
        wait_until(lambda: len(peer.requests) == file.count, "all is asked for")
        pause(LIMIT + 1)
        peer.close()
        self.assertFalse(program.has_ended(), program.stderr)
        self.assert_data(pipe.read_all(), file.data)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertNotIn("no peer", program.stderr)

    def test_large_chunks(self):
        file = self.describe_file("large", 5 * 17 * MIB, 17 * MIB)
        peers = [Peer(self, file) for _ in range(2)]
        program, pipe = self.start_pipe(file, peers=peers)
        self.wait_for_window(peers, file, WINDOW_CHUNKS)
        self.assertLessEqual(self.blocks(program), WINDOW_CHUNKS * 17 * MIB + MIB)
        self.assert_data(pipe.read_all(), file.data)
        self.assertEqual(program.wait(), 0, program.stderr)

    def test_peers_are_given_up_all_the_same(self):
        """The reader waits, the peers don't send."""
        file = self.describe_file("short", 500_000, 1000)
        for script in ((keep_silent,), (send, send, keep_silent), (not_yet,)):
            program, pipe = self.start_pipe(file, "--give-up", 1, peers=[Scripted(self, file, *script)])
            pipe.read_all()
            self.assertEqual(program.wait(), 4, program.stderr)
            self.assertIn("standard output: nothing has arrived for 1 s; given up", program.stderr)

    def assert_says_broken_pipe(self, program):
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, "standard output: can't be written: Broken pipe")
        self.assert_leaves_nothing(program)
        self.assert_nothing_is_left()

    def test_it_goes_away(self):
        """Before anything comes, in the middle, and when it had stopped."""
        for size in (0, 100_000):
            with self.subTest(size=size):
                program, pipe = self.start_pipe(self.file, "-q", peers=[Peer(self, self.file)])
                pipe.read(size)
                pipe.close()
                self.assert_says_broken_pipe(program)
        peer = Peer(self, self.file)
        program, pipe = self.start_pipe(self.file, "-q", peers=[peer])
        self.wait_for_window([peer], self.file, self.window)
        pipe.close()
        self.assert_says_broken_pipe(program)

    def test_it_goes_away_while_nothing_comes(self):
        silent = Scripted(self, self.file, keep_silent)
        program, pipe = self.start_pipe(self.file, "-q", peers=[silent])
        wait_until(lambda: silent.requests, "it asks")
        pipe.close()
        self.assert_says_broken_pipe(program)


class Ends(PipeCase):
    """Signals, reports, and processes."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 3_000_000, 1000)

    def start_stopped(self, *options):
        """Start a fetch whose reader doesn't read. Return it when all is asked for."""
        peer = Peer(self, self.file)
        program, pipe = self.start_pipe(self.file, *options, peers=[peer])
        wait_until(lambda: len(peer.requests) == self.file.count, "all is asked for")
        return program, pipe

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            program, pipe = self.start_stopped()
            program.signal(number)
            self.assertEqual(program.wait(), 5, program.stderr)
            self.assertRegex(program.stderr, "interrupted: standard output is incomplete, and nothing is kept\n$")
            self.assertNotIn("goes on", program.stderr)
            self.assert_leaves_nothing(program)
            self.assert_nothing_is_left()
            pipe.close()

    def test_killed(self):
        program, _ = self.start_stopped()
        program.signal(signal.SIGKILL)
        program.wait()
        self.assert_leaves_nothing(program)
        self.assert_nothing_is_left()

    def test_the_writer_is_killed(self):
        program, _ = self.start_stopped("-q")
        program.deserved = "the writer has died"
        writer = wait_until(lambda: [p for p in program.children() if self.writes(p)], "it has a writer")[0]
        os.kill(writer.pid, signal.SIGKILL)
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, "standard output: the writer has died")

    @staticmethod
    def writes(process):
        """Whether it hangs in a write to a pipe."""
        try:
            return "pipe_write" in Path(f"/proc/{process.pid}/wchan").read_text()
        except OSError:
            return False

    def test_reports(self):
        status = self.scratch / "status"
        program, pipe = self.start_stopped("--status", status)
        program.signal(signal.SIGUSR1)
        program.says("standard output: downloading: ")
        wait_until(lambda: "file.0.path=standard output\n" in status.read_text(), "the status names it")
        self.assert_data(pipe.read_all(), self.file.data)
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assertIn("state=complete\n", status.read_text())
        self.assertIn(f"bytes={len(self.file.data)}\n", status.read_text())


class Folder(PipeCase):
    """Where the temporary file is made."""

    def test_no_such_folder(self):
        file = self.describe_file("data", 30_500, 1000)
        peer = Peer(self, file)
        (self.scratch / "note").write_bytes(b"!")
        for name, words in (("absent", "No such file"), ("note", "Not a directory")):
            with self.subTest(name):
                self.environment = {"TMPDIR": str(self.scratch / name)}
                program, pipe = self.start_pipe(file, "-q", peers=[peer])
                self.assertEqual(pipe.read_all(), b"")
                self.assertEqual(program.wait(), 1, program.stderr)
                self.assert_one_sentence(program, self.scratch / name)
                self.assertIn(words, program.stderr)
        self.assertEqual(peer.connections, [])

    def test_a_folder_that_nothing_can_be_made_in(self):
        if os.geteuid() != 0:
            self.skipTest("root makes it somebody else's")
        file = self.describe_file("data", 30_500, 1000)
        self.scratch.chmod(0o755)
        program = self.start([shutil.copy(PROGRAMS / "cascade", self.scratch), "-q", "-c", "-o", "-", "--peer",
                              Peer(self, file).name, *operands(file, None, (LOOPBACK, 0))], env=self.environment,
                             user=65534, group=65534, extra_groups=[])
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, self.folder)
        self.assertIn("Permission denied", program.stderr)

    def test_an_empty_name_is_none(self):
        file = self.describe_file("data", 30_500, 1000)
        self.environment = {"TMPDIR": ""}
        self.fetch_through(file, peers=[Peer(self, file)])

    def test_another_user(self):
        if os.geteuid() != 0:
            self.skipTest("only root becomes another user")
        file = self.describe_file("data", 30_500, 1000)
        self.fetch_through(file, "--user", "nobody", peers=[Peer(self, file)])


class FullFolder(PipeCase):
    """A small file system in TMPDIR."""

    def setUp(self):
        super().setUp()
        if shutil.which("unshare") is None or shutil.which("nsenter") is None or os.geteuid() != 0:
            self.skipTest("a file system can only be mounted by root, with unshare and nsenter")
        self.disk = Disk(self, self.scratch / "disk", 4096)

    def start_inside(self, file, peer):
        pipe = Pipe(self)
        program = self.start([*self.disk.inside, PROGRAMS / "cascade", "-q", "-c", "-o", "-", "--peer", peer.name,
                              *operands(file, None, (LOOPBACK, 0))], env={"TMPDIR": str(self.disk.path)},
                             stdout=pipe.writing)
        pipe.hand_over()
        return program, pipe

    def test_it_has_not_enough_room(self):
        for size, chunk_size, needed in ((5 * MIB, 1000, 5 * MIB), (200 * MIB, MIB, WINDOW)):
            file = self.describe_file(f"data-{size}", size, chunk_size)
            peer = Peer(self, file)
            program, pipe = self.start_inside(file, peer)
            self.assertEqual(pipe.read_all(), b"")
            self.assertEqual(program.wait(), 3, program.stderr)
            self.assert_one_sentence(program, self.disk.path)
            self.assertRegex(program.stderr, f"{self.disk.path} .*: {needed} bytes are needed, which is "
                             f"{needed - 4 * MIB} more than there is room for; .*: No space left on device")
            self.assertEqual(peer.connections, [])

    def test_it_becomes_full(self):
        file = self.describe_file("data", 3 * MIB, 16 * KIB)
        fill = threading.Lock()

        def answer(connection, number):
            with fill:
                ballast = self.disk.seen / "ballast"
                if not ballast.exists():
                    ballast.write_bytes(bytes(3 * MIB))
            connection.sendall(chunk_response(OK, file.chunk(number)))
        program, pipe = self.start_inside(file, Peer(self, file, answer))
        data = pipe.read_all()
        self.assertEqual(program.wait(), 3, program.stderr)
        self.assert_one_sentence(program, self.disk.path)
        self.assertRegex(program.stderr, r"can't be written \(.* still to come; nothing is kept\): No space left")
        self.assertLess(len(data), len(file.data))
        self.assert_data(data, file.data[:len(data)])

    def test_a_file_larger_than_it(self):
        """What was written makes room."""
        self.disk.remount(f"size={WINDOW + 2 * MIB}")
        file = self.describe_file("data", 2 * WINDOW, MIB)
        program, pipe = self.start_inside(file, Peer(self, file))
        self.assert_data(pipe.read_all(), file.data)
        self.assertEqual(program.wait(), 0, program.stderr)


class Misuse(PipeCase):
    def test_what_does_not_fit(self):
        file, other = (self.describe_file(name, 3000, 1000) for name in ("data", "other"))
        peer = Peer(self, file)
        (self.scratch / "old").write_bytes(b"!")
        for words, files, options in (
                ("--client-only", file, ("-o", "-")),
                ("only one file", [file, other], ("-c", "-o", "-")),
                ("only one file", [file, other], ("-c", "-o", f"-:{other.path}")),
                ("only one file", [file, other], ("-c", "-o", f"{file.path}:-")),
                ("status", file, ("-c", "-o", "-", "--status", "-")),
                ("--from", file, ("-c", "-o", "-", "--from", self.scratch / "old")),
                ("--fsync", file, ("-c", "-o", "-", "--fsync")),
                ("--verify-whole", file, ("-c", "-o", "-", "--verify-whole"))):
            with self.subTest(options=options):
                program = self.start_peer(files, *options, peers=[peer.address])
                self.assert_misuse(program)
                self.assertIn(words, program.stderr.splitlines()[0])
        self.assertEqual(peer.connections, [])
        self.assertFalse((self.scratch / "-").exists())

    def test_a_file_of_that_name(self):
        file = self.describe_file("data", 3000, 1000)
        self.fetch(file, "-o", "./-", peers=[Peer(self, file).address])
        self.assert_same(self.scratch / "-", file.data)

    def test_a_bad_metafile(self):
        (self.scratch / "bad.cascade").write_bytes(b"!" * 100)
        program = self.start([PROGRAMS / "cascade", "-c", "-o", "-", "--peer", f"{LOOPBACK}:1",
                              self.scratch / "bad.cascade", "-", f"{LOOPBACK}:0"], env=self.environment)
        self.assertEqual(program.wait(), 6, program.stderr)
        self.assert_one_sentence(program, "bad.cascade")
        self.assert_nothing_is_left()


if __name__ == "__main__":
    unittest.main()
