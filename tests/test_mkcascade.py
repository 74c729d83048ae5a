"""mkcascade: the bytes that it writes, and what it says and leaves when it can't."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import unittest

from test_progress import Terminal, draws_of
from support import PROGRAMS, Case, make_metafile, random_bytes, reference, wait_until

# Runs a command with a signal ignored, as nohup does with SIGHUP.
IGNORING = "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_IGN); " \
           "os.execv(sys.argv[2], sys.argv[2:])"


def ignoring(number, *command):
    return [sys.executable, "-c", IGNORING, str(int(number)), *command]


class Metafile(Case):
    def assert_metafile(self, data, chunk_size, *options):
        path = self.scratch / "data"
        path.write_bytes(data)
        self.run_program("mkcascade", *options, path, status=0)
        self.assert_same(f"{path}.cascade", make_metafile(data, chunk_size))

    def test_sizes_around_multiples_of_the_chunk_size(self):
        for chunk_size in (1, 7, 64, 1000, 4096):
            for size in (0, 1, chunk_size - 1, chunk_size, chunk_size + 1,
                         5 * chunk_size - 1, 5 * chunk_size, 5 * chunk_size + 1):
                with self.subTest(size=size, chunk_size=chunk_size):
                    self.assert_metafile(random_bytes(size), chunk_size, "-b", str(chunk_size))

    def test_chunk_size_larger_than_the_file(self):
        self.assert_metafile(random_bytes(1000), 10**12, "-b", "1000000000000")

    def test_many_chunks_of_one_byte(self):
        self.assert_metafile(random_bytes(3001), 1, "-b", "1")

    def test_files_larger_than_any_buffer(self):
        for size, chunk_size in ((3_000_001, 65_537), (2_500_000, 300_000), (2 << 20, 1 << 18),
                                 (50 << 20, 1 << 20), (48 << 20, 16 << 20),
                                 (35_000_001, 17_000_000), (35_000_001, 999_983)):
            with self.subTest(size=size, chunk_size=chunk_size):
                self.assert_metafile(random_bytes(size), chunk_size, "-b", str(chunk_size))

    def test_the_cascade_hash_is_printed(self):
        """As sha256sum prints it, one line for each file."""
        for name in ("a", "b"):
            (self.scratch / name).write_bytes(random_bytes(100_000, name))
        program = self.run_program("mkcascade", "-b", 7, "a", "b", status=0)
        self.assertEqual(program.stdout, "".join(
            f"{hashlib.sha256((self.scratch / name).read_bytes()).hexdigest()}  {name}\n"
            for name in ("a.cascade", "b.cascade")))
        self.assertEqual(program.stderr, "")

    def test_a_standard_output_that_is_full(self):
        (self.scratch / "a").write_bytes(b"data")
        with open("/dev/full", "wb") as full:
            program = subprocess.run([PROGRAMS / "mkcascade", "a"], cwd=self.scratch, stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(program.returncode, 3)
        self.assertIn(b"standard output", program.stderr)
        self.assert_same(self.scratch / "a.cascade", make_metafile(b"data", 1 << 20))

    def test_progress_on_a_terminal_and_nowhere_else(self):
        path = self.scratch / "data"
        with open(path, "wb") as data:
            data.truncate(600 << 20)
        terminal = Terminal(self, 80)
        program = self.start(["sh", "-c", 'exec 2>"$0"; exec "$@"', terminal.path, PROGRAMS / "mkcascade", path],
                             env={"TERM": "xterm"})
        self.assertEqual(program.wait(), 0)
        draws = draws_of(terminal.finish())
        self.assertGreater(len(draws), 0)
        for draw in draws:
            self.assertRegex(draw, r"^ *\d+% of 600 MiB  [\d.]+ .?i?B/s  (\?|\d+:\d\d) left$")
        self.assertTrue(terminal.text.endswith("\r\x1b[K"), terminal.text)

    def test_suffixes_multiply_by_powers_of_1024(self):
        data = random_bytes(5000)
        for text, chunk_size in (("1K", 1 << 10), ("2k", 2 << 10), ("1M", 1 << 20), ("1G", 1 << 30)):
            with self.subTest(text=text):
                self.assert_metafile(data, chunk_size, "-b", text)

    def test_default_chunk_size_is_one_mebibyte(self):
        self.assert_metafile(random_bytes((1 << 20) + 5), 1 << 20)

    def test_long_options(self):
        path, out = self.scratch / "data", self.scratch / "out.cascade"
        path.write_bytes(random_bytes(100))
        self.run_program("mkcascade", "--chunk-size", "10", "--output", out, path, status=0)
        self.assert_same(out, make_metafile(random_bytes(100), 10))

    def test_same_bytes_as_the_reference(self):
        for size, chunk_size in ((0, 5), (1, 1), (1000, 64), (100_000, 4097)):
            with self.subTest(size=size, chunk_size=chunk_size):
                path = self.scratch / "data"
                path.write_bytes(random_bytes(size))
                theirs = self.start(reference("filegen.py", "-b", chunk_size, "-o", "theirs", path))
                self.assertEqual(theirs.wait(), 0, theirs.stderr)
                self.run_program("mkcascade", "-b", chunk_size, "-o", "ours", path, status=0)
                self.assert_same(self.scratch / "ours", (self.scratch / "theirs").read_bytes())

    def test_several_files_get_a_metafile_each(self):
        contents = {name: random_bytes(size, name) for name, size in (("a", 10), ("b", 0), ("c", 99))}
        for name, data in contents.items():
            (self.scratch / name).write_bytes(data)
        self.run_program("mkcascade", "-b", 8, *contents, status=0)
        for name, data in contents.items():
            self.assert_same(self.scratch / f"{name}.cascade", make_metafile(data, 8))

    def test_an_old_metafile_is_replaced(self):
        (self.scratch / "data").write_bytes(b"new")
        (self.scratch / "data.cascade").write_bytes(bytes(10_000))
        self.run_program("mkcascade", "data", status=0)
        self.assert_same(self.scratch / "data.cascade", make_metafile(b"new", 1 << 20))

    def test_a_name_as_long_as_a_name_may_be(self):
        name = "n" * (255 - len(".cascade"))
        (self.scratch / name).write_bytes(b"data")
        self.run_program("mkcascade", name, status=0)
        self.assert_same(self.scratch / f"{name}.cascade", make_metafile(b"data", 1 << 20))

    def test_sigchld_ignored_by_whoever_started_it(self):
        (self.scratch / "data").write_bytes(b"data")
        program = self.start(ignoring(signal.SIGCHLD, PROGRAMS / "mkcascade", "data"))
        self.assertEqual(program.wait(), 0, program.stderr)
        self.assert_same(self.scratch / "data.cascade", make_metafile(b"data", 1 << 20))

    def test_an_output_for_names_that_are_refused_without(self):
        for name in ("data.cascade", "a:b"):
            (self.scratch / name).write_bytes(b"data")
            self.run_program("mkcascade", "-o", "out.cascade", name, status=0)
            self.assert_same(self.scratch / "out.cascade", make_metafile(b"data", 1 << 20))

    def test_an_output_that_the_peer_would_not_take(self):
        (self.scratch / "data").write_bytes(b"data")
        program = self.run_program("mkcascade", "-o", "out", "data", status=0)
        self.assert_same(self.scratch / "out", make_metafile(b"data", 1 << 20))
        self.assertRegex(program.stderr, r"\A[^\n]*out[^\n]*\n\Z")
        self.assertIn(".cascade", program.stderr)
        self.assertEqual(self.run_program("mkcascade", "-o", "out.cascade", "data", status=0).stderr, "")

    def test_a_folder_with_a_colon(self):
        (self.scratch / "a:b").mkdir()
        (self.scratch / "a:b" / "data").write_bytes(b"data")
        self.run_program("mkcascade", "a:b/data", status=0)
        self.assert_same(self.scratch / "a:b/data.cascade", make_metafile(b"data", 1 << 20))

    def test_the_metafile_gets_the_permissions_of_any_new_file(self):
        (self.scratch / "data").write_bytes(b"data")
        self.run_program("mkcascade", "data", status=0, umask=0o027)
        self.assertEqual((self.scratch / "data.cascade").stat().st_mode & 0o777, 0o640)


class Refusal(Case):
    def setUp(self):
        super().setUp()
        (self.scratch / "data").write_bytes(random_bytes(100))

    def assert_nothing_else(self, *names):
        self.assertEqual(sorted(os.listdir(self.scratch)), sorted(("data", *names)))

    def test_bad_arguments(self):
        for arguments in ([], ["-b", "0", "data"], ["-b", "", "data"], ["-b", "-1", "data"],
                          ["-b", "x", "data"], ["-b", "10x", "data"], ["-b", "1KK", "data"],
                          ["-b", " 1", "data"], ["-b", "K", "data"], ["-b", "99999999999999999999", "data"],
                          ["-b", "9000000000G", "data"], ["--no-such", "data"], ["-b"],
                          ["-o", "out.cascade", "data", "data"], ["-o", "", "data"]):
            with self.subTest(arguments=arguments):
                self.assert_misuse(self.run_program("mkcascade", *arguments))
        self.assert_nothing_else()

    def test_a_missing_file(self):
        self.assert_one_sentence(self.run_program("mkcascade", "absent", status=1), "absent")
        self.assert_nothing_else()

    def test_a_directory(self):
        (self.scratch / "folder").mkdir()
        self.assert_one_sentence(self.run_program("mkcascade", "folder", status=1), "folder")
        self.assert_nothing_else("folder")

    def test_a_missing_folder_for_the_metafile(self):
        program = self.run_program("mkcascade", "-o", "absent/out.cascade", "data", status=1)
        self.assert_one_sentence(program, "absent/out.cascade")

    def test_a_folder_in_the_place_of_the_metafile(self):
        (self.scratch / "data.cascade").mkdir()
        self.assert_one_sentence(self.run_program("mkcascade", "data", status=1), "data.cascade")
        self.assert_nothing_else("data.cascade")

    def test_a_folder_that_nobody_may_write_to(self):
        if not os.path.exists("/proc/self"):
            self.skipTest("there is no /proc here")
        program = self.run_program("mkcascade", "-o", "/proc/out.cascade", "data", status=1)
        self.assert_one_sentence(program, "/proc/out.cascade")

    def test_a_full_disk_leaves_nothing(self):
        limit = ["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$0" "$@"']
        program = self.start([*limit, PROGRAMS / "mkcascade", "-b", "1", "-o", "out.cascade", "data"])
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, "out.cascade")
        self.assert_nothing_else()

    def test_an_early_failure_keeps_the_metafiles_made_before(self):
        self.run_program("mkcascade", "data", "absent", status=1)
        self.assert_nothing_else("data.cascade")

    def test_a_full_disk_in_the_middle(self):
        (self.scratch / "data").write_bytes(random_bytes(100_000))
        limit = ["sh", "-c", 'trap "" XFSZ; ulimit -f 1; exec "$0" "$@"']
        program = self.start([*limit, PROGRAMS / "mkcascade", "-b", "1", "-o", "out.cascade", "data"])
        self.assertEqual(program.wait(), 1, program.stderr)
        self.assert_one_sentence(program, "out.cascade")
        self.assert_nothing_else()

    def test_a_fifo(self):
        os.mkfifo(self.scratch / "fifo")
        program = self.run_program("mkcascade", "fifo", status=1)
        self.assert_one_sentence(program, "fifo: not a regular file")
        self.assert_nothing_else("fifo")

    def test_a_device(self):
        program = self.run_program("mkcascade", "-o", "out.cascade", "/dev/null", status=1)
        self.assert_one_sentence(program, "/dev/null: not a regular file")
        self.assert_nothing_else()

    def test_only_a_regular_file_is_replaced(self):
        (self.scratch / "target").write_bytes(b"precious")
        os.symlink("target", self.scratch / "link")
        os.symlink("absent", self.scratch / "dangling")
        os.mkfifo(self.scratch / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.scratch / "socket"))
        for name, words in (("link", "symbolic link"), ("dangling", "symbolic link"),
                            ("fifo", "not a regular file"), ("socket", "not a regular file")):
            with self.subTest(name=name):
                before = os.lstat(self.scratch / name)
                program = self.run_program("mkcascade", "-o", name, "data", status=1)
                self.assert_one_sentence(program, name)
                self.assertIn(words, program.stderr)
                self.assertEqual(os.lstat(self.scratch / name), before)
        self.assert_same(self.scratch / "target", b"precious")
        self.assert_nothing_else("target", "link", "dangling", "fifo", "socket")

    def test_a_metafile(self):
        self.run_program("mkcascade", "data", status=0)
        program = self.run_program("mkcascade", "data.cascade", status=1)
        self.assert_one_sentence(program, "data.cascade")
        self.assertIn("looks like a metafile", program.stderr)
        self.assert_nothing_else("data.cascade")

    def test_a_name_that_the_peer_would_take_for_two(self):
        (self.scratch / "a:b").write_bytes(b"data")
        for arguments in (["a:b"], ["./a:b"], ["-o", "c:d.cascade", "data"]):
            with self.subTest(arguments=arguments):
                program = self.run_program("mkcascade", *arguments, status=1)
                self.assert_one_sentence(program, ":")
                self.assertIn("-o", program.stderr)
                self.assert_nothing_else("a:b")

class Running(Case):
    """What happens while it hashes a file that takes far longer than any test."""

    def setUp(self):
        super().setUp()
        with open(self.scratch / "data", "wb") as file:
            file.truncate(1 << 40)

    def start_hashing(self, command=(PROGRAMS / "mkcascade", "data")):
        program = self.start([*command])
        wait_until(lambda: len(os.listdir(self.scratch)) > 1 and len(program.family()) > 1,
                   "both processes hash")
        return program

    def assert_nothing_else(self):
        self.assertEqual(os.listdir(self.scratch), ["data"])

    def test_a_signal_leaves_no_temporary_file(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signal=number):
                program = self.start_hashing()
                program.signal(number)
                self.assertEqual(program.wait(), -number)
                self.assert_nothing_else()

    def test_a_file_that_changes_while_it_is_read(self):
        program = self.start_hashing()
        os.truncate(self.scratch / "data", 1 << 20)
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, "data: it changed")
        self.assert_nothing_else()

    def test_a_file_that_changes_within_the_second(self):
        data = self.scratch / "data"
        os.truncate(data, 512 << 20)
        program = self.start_hashing()
        written = data.stat().st_mtime_ns
        with open(data, "r+b") as file:
            file.write(b"edited")
        second = written - written % 10**9  # a moment later, but not in another second
        os.utime(data, ns=(second, second + (written % 10**9 + 1) % 10**9))
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, "data: it changed")
        self.assert_nothing_else()

    def test_something_else_gets_the_name_of_the_metafile(self):
        program = self.start_hashing()
        os.symlink("data", self.scratch / "data.cascade")
        os.truncate(self.scratch / "data", 0)
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, "data.cascade: a symbolic link")
        os.unlink(self.scratch / "data.cascade")
        self.assert_nothing_else()

    def test_a_signal_from_the_terminal_is_no_error_of_a_process(self):
        program = self.start_hashing()
        os.killpg(program.pid, signal.SIGINT)
        self.assertEqual(program.wait(), -signal.SIGINT)
        self.assertEqual(program.stderr, "")
        self.assert_nothing_else()

    def test_usr1_asks_how_far_it_is(self):
        program = self.start_hashing()
        for times in range(1, 4):
            os.killpg(program.pid, signal.SIGUSR1)
            wait_until(lambda: program.stderr.count("\n") == times, "it says how far it is")
        said = re.findall(r"^mkcascade: data: (\d+) of 1099511627776 bytes hashed$", program.stderr, re.M)
        self.assertEqual(len(said), 3, program.stderr)
        self.assertEqual(said, sorted(said, key=int))
        self.assertFalse(program.has_ended())

    def test_a_hangup_that_was_ignored_at_the_start_stays_so(self):
        program = self.start_hashing(ignoring(signal.SIGHUP, PROGRAMS / "mkcascade", "data"))
        os.killpg(program.pid, signal.SIGHUP)
        os.killpg(program.pid, signal.SIGUSR1)
        program.says("bytes hashed")
        self.assertFalse(program.has_ended())

    def test_the_death_of_the_other_process(self):
        program = self.start_hashing()
        child, = program.children()
        program.deserved = "killed by signal 9"
        os.kill(child.pid, signal.SIGKILL)
        self.assertEqual(program.wait(), 1)
        self.assert_one_sentence(program, "killed by signal 9")
        self.assert_nothing_else()

    def test_no_process_outlives_the_first(self):
        program = self.start_hashing()
        program.signal(signal.SIGKILL)
        program.wait()
        wait_until(lambda: not program.family(), "all have ended")


class Help(Case):
    def test_help_and_version_go_to_standard_output(self):
        for options, word in ((["--help"], "usage: mkcascade"), (["-h"], "usage: mkcascade"),
                              (["--version"], "mkcascade "), (["-V"], "mkcascade ")):
            with self.subTest(options=options):
                program = self.run_program("mkcascade", *options, status=0)
                self.assertTrue(program.stdout.startswith(word), program.stdout)
                self.assertEqual(program.stderr, "")


if __name__ == "__main__":
    unittest.main()
