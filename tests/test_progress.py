"""What a person sees of a download: on a terminal, elsewhere, quiet, verbose."""

import calendar
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
import time
import unicodedata
import unittest

from scripted import Scripted, keep_silent, not_yet, send
from support import (LOOPBACK, PROGRAMS, WAIT, Case, Peer, SharedFile, Tracker, chunk_response, pause, random_bytes,
                     tracker_entry, tracker_response, wait_until)

ERASE = "\x1b[K"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # all but the newline


class Terminal:
    """A terminal, and what was written to it."""

    def __init__(self, case, columns):
        self.master, self.slave = pty.openpty()
        self.path = os.ttyname(self.slave)
        self.bytes = b""
        self.resize(columns)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        case.addCleanup(os.close, self.master)
        case.addCleanup(self.finish)

    def resize(self, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self):
        while True:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                return  # nobody has it open any more
            if not piece:
                return
            self.bytes += piece

    def finish(self):
        """Wait until all has been read that was written. Return it."""
        if self.slave is not None:
            os.close(self.slave)
            self.slave = None
        self.reader.join(WAIT)
        return self.text

    @property
    def text(self):
        return self.bytes.decode(errors="replace").replace("\r\n", "\n")


def draws_of(text):
    """Return each line that was drawn to be drawn over, without what draws it."""
    drawn = []
    for line in text.split("\n"):
        parts = line.split("\r")
        drawn += parts[1:-1] if "\n" in text else parts[1:]
    return [draw.removesuffix(ERASE) for draw in drawn if draw.removesuffix(ERASE)]


def screen_of(text):
    """Return the lines that stand there in the end, on a terminal that is wide enough."""
    lines = []
    for line in text.split("\n"):
        shown = []
        at = 0
        for piece in re.split(r"(\r|\x1b\[K)", line):
            if piece == "\r":
                at = 0
            elif piece == ERASE:
                del shown[at:]
            else:
                shown[at:at + len(piece)] = piece
                at += len(piece)
        lines.append("".join(shown))
    return lines


def downloading(text):
    """Return the lines drawn while it is downloading: after that no peers are told."""
    draws = draws_of(text)
    while draws and " 100% [" in draws[-1] and "peer" not in draws[-1]:
        draws.pop()
    return draws


class Showing(Case):
    SIZE, CHUNK_SIZE = 3 << 20, 16 << 10

    def setUp(self):
        super().setUp()
        self.over = threading.Event()
        self.addCleanup(self.over.set)
        self.seconds = 0.7  # that the peer needs for the file

    def slow_peer(self, file):
        """A peer that sends the file's chunks at an even pace."""
        due = [None]

        def answer(connection, number):
            due[0] = (due[0] or time.monotonic()) + self.seconds / file.count
            if self.over.wait(max(0, due[0] - time.monotonic())):
                return True
            return peer.send_chunk(connection, number)
        peer = Peer(self, file, answer)
        return peer

    def make_description(self, name="some-film.mkv"):
        return self.describe_file(name, self.SIZE, self.CHUNK_SIZE)

    def command(self, file, *options, peers):
        for peer in peers:
            options += ("--peer", "%s:%d" % peer.address)
        return [PROGRAMS / "cascade", "-c", *options, file.metafile_path, "-", f"{LOOPBACK}:0"]

    def start_on(self, terminal, file, *options, peers):
        """Start a fetcher whose standard error is the terminal."""
        return self.start_command_on(terminal, self.command(file, *options, peers=peers))

    def start_command_on(self, terminal, command):
        return self.start(["sh", "-c", 'exec 2>"$0"; exec "$@"', terminal.path, *command],
                          env={"TERM": "xterm"})

    def fetch_on(self, columns, file, *options):
        """Fetch on a terminal of that width. Return all that was written to it."""
        terminal = Terminal(self, columns)
        program = self.start_on(terminal, file, *options, peers=[self.slow_peer(file)])
        self.assertEqual(program.wait(), 0, terminal.text)
        self.assertEqual((program.stdout, program.stderr), ("", ""))
        self.assert_same(file.path, file.data)
        return terminal.finish()


class OnTerminal(Showing):
    LINE = re.compile(r"some-film\.mkv +(\d+)% \[([#>+.]+)\] "
                      r"([\d.]+) (?:B|[KM]iB)/3\.0 MiB  [\d.]+ (?:B|[KM]iB)/s  (?:\?|\d+:\d\d) left  [01] peers?")

    def test_all_that_is_to_be_told_stands_in_one_line(self):
        text = self.fetch_on(100, self.make_description())
        found = [self.LINE.fullmatch(draw) for draw in downloading(text)]
        self.assertGreaterEqual(len(found), 3, text)
        self.assertNotIn(None, found, text)
        percents = [int(match[1]) for match in found]
        self.assertEqual(percents, sorted(percents))
        self.assertTrue(any(20 < percent < 80 for percent in percents), percents)
        for match in found:  # the map is what the percentage says
            held, missing = (100 * match[2].count(symbol) / len(match[2]) for symbol in "#.")
            self.assertLessEqual(held, int(match[1]) + 5, match[0])
            self.assertLessEqual(missing, 100 - int(match[1]) + 5, match[0])
        for symbol in "#>.":
            self.assertTrue(any(symbol in match[2] for match in found), text)
        self.assertIn("1 peer", text)

    def test_the_rate_and_the_time_left(self):
        self.seconds = 1.2
        text = self.fetch_on(100, self.make_description())
        rates = [float(rate) for rate in re.findall(r"  ([\d.]+) MiB/s", text)]
        self.assertTrue(any(2.1 < rate < 2.9 for rate in rates), rates)  # 3 MiB in 1.2 s
        self.assertRegex(text, r" 0:01 left")

    def test_it_is_never_wider_than_the_terminal(self):
        self.seconds = 0.4
        for columns in (1, 2, 5, 20, 40, 80, 200):
            with self.subTest(columns=columns):
                file = self.make_description(f"film-{columns}")
                draws = draws_of(self.fetch_on(columns, file))
                if columns >= 20:
                    self.assertGreaterEqual(len(draws), 2)
                    self.assertTrue(any(re.search(r"\d%", draw) for draw in draws), draws)
                for draw in draws:
                    self.assertLess(len(draw), max(columns, 2), draw)

    def test_a_long_name_leaves_room_for_the_numbers(self):
        file = self.make_description("long-" * 40)
        for columns in (80, 200):
            with self.subTest(columns=columns):
                file.path.unlink(missing_ok=True)
                draws = downloading(self.fetch_on(columns, file))
                self.assertGreaterEqual(len(draws), 2)
                for draw in draws:
                    self.assertLess(len(draw), columns)
                    self.assertRegex(draw, r"\d% \[.* left  \d peers?$")

    def test_it_follows_the_width(self):
        self.seconds = 60
        file = self.make_description()
        terminal = Terminal(self, 200)
        program = self.start_on(terminal, file, peers=[self.slow_peer(file)])
        for columns in (200, 40, 120, 20, 80):
            terminal.resize(columns)
            seen = terminal.text.count("\r")
            # What is being drawn at this moment may be of the old width, the second isn't.
            wait_until(lambda: terminal.text.count("\r") > seen + 2, "it is drawn anew", 10)
            draw = draws_of(terminal.text)[-2]
            self.assertLess(len(draw), columns)
            self.assertGreater(len(draw), min(columns, 80) * 0.7)
        self.assertFalse(program.has_ended())

    def test_letters_beyond_ascii_take_the_columns_that_they_take(self):
        self.seconds = 0.3
        for columns, name in ((80, "Ærø på dansk"), (60, "ærlig" * 20), (80, "電影" * 20), (20, "電影" * 20)):
            with self.subTest(columns=columns, name=name):
                draws = draws_of(self.fetch_on(columns, self.make_description(name)))
                for draw in draws:
                    width = sum(2 if unicodedata.east_asian_width(letter) == "W" else 1 for letter in draw)
                    self.assertLess(width, columns, draw)
                    self.assertNotIn("?" * 2, draw)
                    self.assertNotIn("\ufffd", draw)  # a letter cut in two
                    self.assertTrue(draw.startswith(name[0]) or columns == 20, draw)

    def test_no_map_where_there_is_no_room(self):
        for draw in draws_of(self.fetch_on(20, self.make_description())):
            self.assertNotIn("[", draw)

    def test_what_is_being_done_is_told(self):
        file = self.make_description()
        file.path.write_bytes(file.data)
        self.assertRegex(draws_of(self.fetch_on(80, file))[0], r" checking$")

    def test_a_terminal_of_unknown_width(self):
        for draw in draws_of(self.fetch_on(0, self.make_description())):
            self.assertLess(len(draw), 80)

    def test_the_summary_stands_alone_in_the_end(self):
        for columns in (20, 80):
            file = self.make_description(f"film-{columns}")
            text = self.fetch_on(columns, file)
            screen = screen_of(text)
            self.assertEqual(len(screen), 2, screen)
            self.assertRegex(screen[0], r"^cascade: .*film-%d: complete and verified: 3\.0 MiB in [\d.]+ s "
                             r"\([\d.]+ MiB/s\), chunks: 192 from [\d.:]+; 0 B wasted$" % columns)
            self.assertEqual(screen[1], "")

    def test_messages_stand_on_their_own_lines(self):
        """A liar is named while the line is being redrawn."""
        file = self.make_description()
        drawn = threading.Event()

        def lie(connection, number):
            self.assertTrue(drawn.wait(WAIT))
            connection.sendall(chunk_response(0, bytes(len(file.chunk(number)))))
        liar = Peer(self, file, lie)
        terminal = Terminal(self, 80)
        program = self.start_on(terminal, file, peers=[self.slow_peer(file), liar])
        wait_until(lambda: len(draws_of(terminal.text)) >= 2, "it is drawn")
        drawn.set()
        self.assertEqual(program.wait(), 0, terminal.text)
        screen = screen_of(terminal.finish())
        self.assertEqual(len(screen), 3, screen)
        self.assertRegex(screen[0], r"^cascade: %s:%d: sent a wrong chunk" % liar.address)
        self.assertRegex(screen[1], r"^cascade: .*: complete and verified: ")
        self.assertRegex(screen[1], r"16\.0 KiB wasted$")

    def test_quiet_leaves_the_terminal_alone(self):
        self.seconds = 0.3
        self.assertEqual(self.fetch_on(80, self.make_description(), "-q"), "")

    def test_a_signal_leaves_no_line(self):
        """Whether somebody else sends it or the terminal sends it to all, to who serves and who doesn't."""
        self.seconds = 60
        for options in (["-c"], []):
            for kill, number in ((os.kill, signal.SIGTERM), (os.kill, signal.SIGINT), (os.killpg, signal.SIGINT)):
                with self.subTest(options=options, kill=kill, number=number):
                    file = self.make_description(f"film{len(options)}-{number}-{kill.__name__}")
                    terminal = Terminal(self, 80)
                    command = self.command(file, peers=[self.slow_peer(file)])
                    command[1:2] = options
                    program = self.start_command_on(terminal, command)
                    wait_until(lambda: len(downloading(terminal.text)) >= 2, "it is drawn")
                    kill(program.pid, number)
                    program.wait(10)
                    screen = screen_of(terminal.finish())
                    self.assertEqual(screen.pop(), "")
                    self.assertRegex(screen.pop(), "^cascade: interrupted: [\\d.]+ (B|[KM]iB) kept, the same command goes on$"
                                     if options else "^cascade: .* of 192 chunks held; the same command goes on$")
                    self.assertEqual(screen, [])

    def test_a_signal_while_it_is_found_out_whose_a_file_is(self):
        """Before the program listens: no chunk of this file matches, so all of it is looked at."""
        pieces = 512
        file = self.make_description()
        header = bytearray(file.metafile[:64])
        header[16:32] = (pieces << 20).to_bytes(8, "big") + (1 << 20).to_bytes(8, "big")
        file.metafile_path.write_bytes(bytes(header) + os.urandom(32 * pieces))
        with open(file.path, "wb") as data:
            for _ in range(pieces):
                data.write(b"x" * (1 << 20))
        for options in (["-c"], []):
            for number in (signal.SIGTERM, signal.SIGINT):
                with self.subTest(options=options, number=number):
                    terminal = Terminal(self, 80)
                    command = self.command(file, "-j", "1", peers=[])
                    command[1:2] = [*options, "-p", f"{LOOPBACK}:1"]
                    program = self.start_command_on(terminal, command)
                    wait_until(lambda: "checking" in terminal.text, "it is drawn")
                    program.signal(number)
                    self.assertEqual(program.wait(10), 5)
                    self.assertEqual(screen_of(terminal.finish()), [""])

    def test_where_no_line_was_drawn_none_is_removed(self):
        file = self.make_description()
        file.path.write_bytes(file.data)
        terminal = Terminal(self, 80)
        program = self.start_command_on(terminal, [PROGRAMS / "cascade", file.metafile_path, "-", f"{LOOPBACK}:0"])
        wait_until(lambda: "verified" in terminal.text, "it is checked")
        wait_until(lambda: not program.children(), "the fetcher has ended")
        seen = terminal.text
        program.signal(signal.SIGTERM)
        program.wait(10)
        self.assertEqual(terminal.finish(), seen)

    def start_serving_on_a_terminal(self):
        """Start a serving peer that fetches slowly, for a minute."""
        self.seconds = 60
        file, terminal = self.make_description(), Terminal(self, 80)
        command = self.command(file, peers=[self.slow_peer(file)])
        command.remove("-c")
        return self.start_command_on(terminal, command), terminal

    def test_what_the_serving_parent_says_is_not_appended_to_the_fetchers_line(self):
        program, terminal = self.start_serving_on_a_terminal()
        for number in range(1, 6):
            drawn = len(downloading(terminal.text))
            wait_until(lambda: len(downloading(terminal.text)) >= drawn + 2, "it is drawn")
            program.signal(signal.SIGUSR1)
            wait_until(lambda: len(re.findall("cascade: 0 clients now.*\n", terminal.text)) == number,
                       "it is told")
        told = [line for line in screen_of(terminal.text) if "cascade: " in line]
        self.assertEqual(len(told), 10, told)  # the file, and the number of clients
        for line in told:
            self.assertTrue(line.startswith("cascade: "), line)
        drawn = len(downloading(terminal.text))
        wait_until(lambda: len(downloading(terminal.text)) > drawn, "it is drawn again")

    def test_the_end_of_a_fetcher_is_told_on_a_line_of_its_own(self):
        program, terminal = self.start_serving_on_a_terminal()
        wait_until(lambda: len(downloading(terminal.text)) >= 2, "it is drawn")
        os.kill(min(process.pid for process in program.children()), signal.SIGKILL)
        wait_until(lambda: "the fetcher has ended" in terminal.text, "it is told")
        wait_until(lambda: terminal.text.endswith("\n"), "the line is whole")
        program.signal(signal.SIGTERM)
        program.wait(10)
        screen = screen_of(terminal.finish())
        self.assertEqual(len(screen), 3, screen)
        self.assertRegex(screen[0], "^cascade: the fetcher has ended: ")
        self.assertRegex(screen[1], "^cascade: .* of 192 chunks held; ")

    def test_a_terminal_that_can_not_erase_gets_plain_lines(self):
        self.seconds = 1.5
        for number, command in enumerate((["env", "TERM=dumb"], ["env", "-u", "TERM"], ["env", "TERM="])):
            with self.subTest(command=command):
                file = self.make_description(f"film-{number}")
                terminal = Terminal(self, 80)
                program = self.start_command_on(
                    terminal, [*command, *self.command(file, peers=[self.slow_peer(file)])])
                self.assertEqual(program.wait(), 0, terminal.text)
                text = terminal.finish()
                self.assertNotRegex(text, CONTROL)
                self.assertRegex(text, r": downloading: \d+%")

    def test_nothing_but_its_own_controls_is_written(self):
        text = self.fetch_on(80, self.make_description())
        self.assertNotRegex(text.replace("\r", "").replace(ERASE, ""), CONTROL)


class WhyNothingComes(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 10_000, 1000)

    def test_no_peer_can_be_reached(self):
        gone = [self.vacant_address() for _ in range(3)]
        for options in (("-c",), ("-c", "-q"), ()):
            with self.subTest(options=options):
                program = self.start_peer(self.file, *options, "-o", "copy" + "".join(options), peers=gone)
                program.says("no peer could be reached: 127.0.0.1:")
                self.assertRegex(program.stderr, r":\d+: Connection refused \(1 of 3\)")
                pause(2)
                self.assertEqual(program.stderr.count("could be reached"), 1)

    def test_no_peer_has_the_file(self):
        other = self.make_file("other", 1000, 1000)
        seeder = self.start_seeder(other)
        program = self.start_peer(self.file, "-c", peers=[seeder.address()])
        program.says("no peer is of use now: %s:%d: doesn't have the file (1 of 1)" % seeder.address())

    def test_all_that_can_be_reached_have_nothing(self):
        for options in (("-c",), ()):
            with self.subTest(options=options):
                peers = [Scripted(self, self.file, not_yet) for _ in range(2)]
                program = self.start_peer(self.file, *options, "-o", f"copy{len(options)}",
                                          peers=[self.vacant_address(), *(peer.address for peer in peers)])
                program.says("nobody has what is missing yet: 127.0.0.1:")
                pause(3)
                self.assertEqual(program.stderr.count("nobody has"), 1)
                self.assertIn("(1 of 2 that could be reached)", program.stderr)

    def test_one_of_them_has_something(self):
        slow = Scripted(self, self.file, send, keep_silent)
        program = self.start_peer(self.file, "-c", peers=[Scripted(self, self.file, not_yet).address, slow.address])
        wait_until(lambda: slow.requests, "it has asked")
        pause(7)
        self.assertNotIn("nobody has", program.stderr)

    def test_one_of_them_can(self):
        slow = Scripted(self, self.file, send, keep_silent)
        program = self.start_peer(self.file, "-c", peers=[self.vacant_address(), slow.address])
        wait_until(lambda: slow.requests, "it has asked")
        pause(4)
        self.assertNotIn("no peer", program.stderr)


class SeveralFiles(Showing):
    """Two files of 3 MiB, of which the second lacks all, and the first its second half."""

    def setUp(self):
        super().setUp()
        self.files = [self.make_description(name) for name in ("film-a", "film-b")]
        self.files[0].path.write_bytes(self.files[0].data[:self.SIZE // 2])
        self.let_go = threading.Event()
        self.addCleanup(self.let_go.set)
        self.peers = {file.hash: self.peer_of(file) for file in self.files}

    def peer_of(self, file):
        """It sends one chunk, and the rest when it is let go."""
        def answer(connection, number):
            if len(peer.requests) > 1:
                self.let_go.wait(WAIT)
            peer.send_chunk(connection, number)
        peer = Peer(self, file, answer)
        return peer

    def tracker(self):
        def answer(connection, command):
            entry = tracker_entry(self.peers[tracker.requests[-1][1]].address)
            connection.sendall(tracker_response(0, entry))
        tracker = Tracker(self, answer=answer)
        return tracker

    def start_both_on(self, terminal, *options):
        command = self.command(self.files[0], *options, peers=[])
        command[-3:] = [":".join(str(file.metafile_path) for file in self.files), "%s:%d" % self.tracker().address,
                        f"{LOOPBACK}:0"]
        return self.start_command_on(terminal, command)

    def test_they_are_shown_together(self):
        terminal = Terminal(self, 100)
        program = self.start_both_on(terminal)
        wait_until(lambda: " 25% [" in terminal.text and "2 peers" in draws_of(terminal.text)[-1], "it is shown")
        draw = draws_of(terminal.text)[-1]
        found = re.match(r"2 files  25% \[([#>+.]+)\] 1\.5 MiB/6\.0 MiB  ", draw)
        self.assertTrue(found, draw)
        columns = len(found[1])
        self.assertEqual(found[1][:columns // 4], "#" * (columns // 4))
        self.assertNotIn("#", found[1][columns // 2 + 1:])
        program.signal(signal.SIGUSR1)
        wait_until(lambda: f"{self.files[1].path}: 16.0 KiB of 3.0 MiB" in terminal.text, "it is reported")
        self.assertRegex(terminal.text, r"cascade: 2 files: downloading: 25%, 1\.5 MiB of 6\.0 MiB, .*/s, 2 peers")
        self.assertIn(f"{self.files[0].path}: 1.5 MiB of 3.0 MiB", terminal.text)
        self.let_go.set()
        self.assertEqual(program.wait(), 0, terminal.text)
        screen = screen_of(terminal.finish())
        for file in self.files:
            self.assertTrue(any(f"{file.path}: complete and verified: " in line for line in screen), screen)

    def test_a_script_is_told_of_both(self):
        status = self.scratch / "status"
        program = self.start_both_on(Terminal(self, 80), "--status", status)

        def told():
            lines = status.read_text().splitlines() if status.exists() else []
            return all(line in lines for line in ("state=downloading", "peers=2", "length=6291456", "bytes=1605632",
                                                  "file.0.bytes=1589248", "file.1.bytes=16384"))
        wait_until(told, "both are told of")
        self.let_go.set()
        self.assertEqual(program.wait(), 0)

    def test_one_that_lacks_something_is_shown_by_its_name(self):
        self.files[0].path.write_bytes(self.files[0].data)
        terminal = Terminal(self, 100)
        self.start_both_on(terminal)
        wait_until(lambda: "film-b   0% [" in terminal.text, "it is shown")
        self.assertNotIn("files", terminal.text)


class Names(Showing):
    """Names made to be taken for commands by a terminal."""

    NAMES = ["red\x1b[31m", "title\x1b]0;x\x07", "back\b\b\b", "line\nfeed", "return\rover", "c1\x9b31m", "del\x7f"]

    def describe_odd(self, name):
        return SharedFile(self.scratch / name, random_bytes(self.SIZE), self.CHUNK_SIZE)

    def assert_clean(self, text):
        """It must be one line, after what is to be done, and nothing in it a command."""
        self.assertNotRegex(text, CONTROL)
        self.assertEqual(text.count("\n"), 1 + text.count(" to fetch\n"), text)

    def test_on_a_terminal(self):
        self.seconds = 0.1
        for name in self.NAMES:
            with self.subTest(name=name):
                drawn, found, summary = self.fetch_on(150, self.describe_odd(name)).partition("cascade: ")
                self.assertTrue(found)
                for draw in draws_of(drawn):
                    self.assertNotRegex(draw, CONTROL)
                self.assertIn(name[:2], draw)
                self.assert_clean(summary)

    def test_in_the_summary(self):
        for name in self.NAMES:
            with self.subTest(name=name):
                file = self.describe_odd(name)
                program = self.fetch(file, peers=[Peer(self, file).address])
                self.assert_same(file.path, file.data)
                self.assert_clean(program.stderr)
                self.assertIn("complete and verified", program.stderr)

    def test_in_a_sentence_about_an_error(self):
        for name in self.NAMES:
            with self.subTest(name=name):
                file = self.describe_odd(name)
                file.path.mkdir()
                self.assert_clean(self.fetch(file, peers=[(LOOPBACK, 1)], status=1).stderr)

    def test_in_a_sentence_about_a_metafile(self):
        for name in self.NAMES:
            with self.subTest(name=name):
                path = self.scratch / f"{name}.cascade"
                path.write_bytes(b"nothing")
                program = self.start([PROGRAMS / "cascade", "-c", "--peer", f"{LOOPBACK}:1", path, "-", f"{LOOPBACK}:0"])
                self.assertEqual(program.wait(), 6)
                self.assert_clean(program.stderr)

    def test_letters_beyond_ascii_are_told(self):
        """A name of a file is not a command because it is not English."""
        file = self.make_description("Ærø på dansk")
        program = self.fetch(file, peers=[Peer(self, file).address])
        self.assertIn("Ærø på dansk: complete", program.stderr)


class Elsewhere(Showing):
    """Standard error is a file."""

    def fetch_slowly(self, file, *options):
        program = self.start(self.command(file, *options, peers=[self.slow_peer(file)]))
        self.assertEqual(program.wait(), 0, program.stderr)
        return program.stderr

    def test_a_few_lines_and_the_summary(self):
        self.seconds = 2.2
        file = self.make_description()
        text = self.fetch_slowly(file)
        self.assertNotRegex(text, CONTROL)
        lines = text.splitlines()
        self.assertTrue(3 <= len(lines) <= 6, text)
        for line in lines[1:-1]:
            self.assertRegex(line, r"^cascade: %s: downloading: \d+%%, [\d.]+ [KM]iB, [\d.]+ [KM]iB/s$"
                             % re.escape(str(file.path)))
        percents = [int(percent) for percent in re.findall(r"(\d+)%", text)]
        self.assertEqual(percents, sorted(set(percents)))
        self.assertRegex(lines[0], r": 3\.0 MiB to fetch$")
        self.assertRegex(lines[-1], r": complete and verified: 3\.0 MiB in 2\.\d s \([\d.]+ [KM]iB/s\), "
                         r"chunks: 192 from [\d.:]+; 0 B wasted$")

    def test_a_quick_download_is_two_lines(self):
        self.seconds = 0.01
        self.assertEqual(len(self.fetch_slowly(self.make_description()).splitlines()), 2)

    def test_quiet_says_nothing_of_success(self):
        self.seconds = 1.2  # longer than the time between two lines
        self.assertEqual(self.fetch_slowly(self.make_description(), "-q"), "")

    def test_quiet_says_nothing_of_what_was_here_already(self):
        file = self.make_description()
        file.path.write_bytes(file.data)
        self.assertEqual(self.fetch_slowly(file, "-q"), "")

    def test_quiet_says_what_is_wrong(self):
        file = self.make_description()
        program = self.fetch(file, "-q", "-o", "absent/copy", peers=[(LOOPBACK, 1)], status=1)
        self.assert_one_sentence(program, "absent/copy")
        program = self.fetch(file, "-q", "--give-up", 1, peers=[(LOOPBACK, 1)], status=4)
        self.assert_one_sentence(program, f"{file.path}: nothing has arrived for 1 s")
        self.assertIn(f" {len(file.data)} bytes", program.stderr)

    def test_what_was_kept_is_told(self):
        """The summary counts what was fetched, not what was here."""
        file = self.make_description()
        file.path.write_bytes(file.data[:2 << 20])
        lines = self.fetch_slowly(file).splitlines()
        self.assertRegex(lines[0], r": 2\.0 MiB of it are verified, 1\.0 MiB missing$")
        self.assertRegex(lines[-1], r": complete and verified: 1\.0 MiB in ")

    def test_what_was_wasted_is_told(self):
        file = self.make_description()
        lied = threading.Event()

        def lie(connection, number):
            connection.sendall(chunk_response(0, bytes(len(file.chunk(number)))))
            lied.set()

        def answer(connection, number):
            self.assertTrue(lied.wait(WAIT))
            honest.send_chunk(connection, number)
        liar, honest = Peer(self, file, lie), Peer(self, file, answer)
        text = self.fetch(file, peers=[liar.address, honest.address]).stderr
        self.assertRegex(text, r"16\.0 KiB wasted\n$")

    def test_verbose_tells_of_each_peers_fate(self):
        file = self.make_description()
        asked = threading.Semaphore(0)

        def hang_up(connection, number):
            asked.release()
            return True

        def lie(connection, number):
            connection.sendall(chunk_response(0, bytes(len(file.chunk(number)))))
            asked.release()

        def lack_the_file(connection, number):
            connection.sendall(chunk_response(1, b"no such file"))
            asked.release()
            return True

        def lack_the_chunk(connection, number):
            connection.sendall(chunk_response(2, b"not yet"))
            asked.release()

        def answer(connection, number):
            if len(honest.requests) == 1:
                for _ in range(4):
                    self.assertTrue(asked.acquire(timeout=WAIT))
            honest.send_chunk(connection, number)
        peers = [Peer(self, file, what) for what in (hang_up, lie, lack_the_file, lack_the_chunk)]
        honest = Peer(self, file, answer)
        text = self.fetch(file, "-v", peers=[peer.address for peer in [*peers, honest]] + [(LOOPBACK, 1)]).stderr
        fates = ["closed the connection before it answered", r"sent a wrong chunk \(\d+\)",
                 "doesn't have the file", r"doesn't have chunk \d+ yet"]
        for peer, fate in zip(peers, fates):
            name = "%s:%d: " % peer.address
            self.assertRegex(text, re.escape(name) + "connected")
            self.assertRegex(text, re.escape(name) + fate)
        self.assertIn("%s:%d: connected\n" % honest.address, text)
        for number in range(file.count):
            self.assertIn(f"%s:%d: chunk {number} came from it\n" % honest.address, text)
        self.assertIn(f"chunks: {file.count} from %s:%d; " % honest.address, text)
        self.assertIn(f"{LOOPBACK}:1: Connection refused\n", text)
        self.assertNotRegex(text, CONTROL)

    def test_what_is_kept_is_told_when_it_is_interrupted(self):
        file = self.describe_file("data", 10_000, 1000)
        for options, told in (((), "cascade: interrupted: 2.9 KiB kept, the same command goes on\n"), (("-q",), "")):
            slow = Scripted(self, file, send, send, send, keep_silent)
            program = self.start_fetch(file, "-o", f"copy{len(options)}", *options, "--status", "status",
                                       peers=[slow.address])
            wait_until(lambda: (self.scratch / "status").exists() and
                       "bytes=3000\n" in (self.scratch / "status").read_text(), "three chunks are held")
            program.signal(signal.SIGINT)
            self.assertEqual(program.wait(), 5)
            self.assertEqual("".join(line for line in program.stderr.splitlines(True)
                                     if "interrupted" in line), told)
            (self.scratch / "status").unlink()

    def test_each_line_begins_with_the_time_if_asked_to(self):
        file = self.make_description()
        now = time.time()
        text = self.fetch_slowly(file, "--timestamps")
        for line in text.splitlines():
            stamp, name, _ = line.split(" ", 2)
            self.assertEqual(name, "cascade:")
            self.assertLess(abs(calendar.timegm(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) - now), 60)
        tracker = self.start_tracker("--timestamps")
        tracker.address()
        program = self.start_fetch(file, "--timestamps", "-o", "copy", tracker=tracker.address())
        program.says("waiting for one")
        program.signal(signal.SIGTERM)
        program.wait()
        self.assertRegex(program.stderr.splitlines()[-1], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ cascade: interrupted: 0 B kept")

    def test_each_line_begins_with_the_programs_name(self):
        file = self.make_description()
        for line in self.fetch_slowly(file, "-v").splitlines():
            self.assertTrue(line.startswith("cascade: "), line)


if __name__ == "__main__":
    unittest.main()
