"""Bad metafiles and bad command lines, as the peer sees them."""

import os
import re
import struct
import unittest

from support import LOOPBACK, METAFILE_HEADER, Case, make_metafile, random_bytes

DATA = random_bytes(1000)
GOOD = make_metafile(DATA, 100)
TRACKER, ME = f"{LOOPBACK}:1", f"{LOOPBACK}:0"


def changed(offset, new):
    return GOOD[:offset] + new + GOOD[offset + len(new):]


class BadMetafile(Case):
    def assert_refused(self, content, name="data.cascade"):
        """The peer must say why in a sentence, and make no data file."""
        (self.scratch / name).write_bytes(content)
        for options in ((), ("-c",), ("-f",)):
            program = self.run_program("cascade", *options, name, TRACKER, ME, status=6)
            self.assert_one_sentence(program, name)
        self.assertEqual(os.listdir(self.scratch), [name])

    def test_too_short(self):
        for size in (0, 1, 8, 63):
            with self.subTest(size=size):
                self.assert_refused(GOOD[:size])

    def test_a_wrong_magic(self):
        for magic in (b"CASCADE2", b"cascade1", bytes(8)):
            with self.subTest(magic=magic):
                self.assert_refused(changed(0, magic))

    def test_a_chunk_size_of_0(self):
        self.assert_refused(changed(24, bytes(8)))

    def test_too_few_hashes(self):
        for size in (64, 64 + 32, 64 + 9 * 32, 64 + 10 * 32 - 1):
            with self.subTest(size=size):
                self.assert_refused(GOOD[:size])

    def test_something_behind_the_last_hash(self):
        for more in (b"\n", bytes(31), bytes(32), bytes(33), bytes(100_000)):
            with self.subTest(more=len(more)):
                self.assert_refused(GOOD + more)

    def test_a_length_of_2_to_the_63_or_more(self):
        for length in (1 << 63, (1 << 63) + 1, (1 << 64) - 1):
            for chunk_size in (1, 100, 1 << 63, (1 << 64) - 1):
                with self.subTest(length=length, chunk_size=chunk_size):
                    self.assert_refused(changed(16, struct.pack(">QQ", length, chunk_size)))

    def test_lengths_that_overflow_a_sum(self):
        for length, chunk_size in (((1 << 63) - 1, 1), ((1 << 63) - 1, 1 << 58), (10, (1 << 64) - 5)):
            with self.subTest(length=length, chunk_size=chunk_size):
                self.assert_refused(METAFILE_HEADER.pack(b"CASCADE1", bytes(8), length, chunk_size, bytes(32)))

    def test_an_empty_file_with_a_wrong_hash(self):
        self.assert_refused(METAFILE_HEADER.pack(b"CASCADE1", bytes(8), 0, 100, bytes(32)))

    def test_one_chunk_that_contradicts_the_whole(self):
        good = make_metafile(DATA, 1000)
        self.assert_refused(good[:64] + bytes(32))

    def test_a_wrong_suffix(self):
        for name in ("data", "data.cascad", "data.cascade2", ".cascade", "cascade"):
            with self.subTest(name=name):
                self.assert_refused(GOOD, name)
                os.remove(self.scratch / name)

    def test_what_is_no_file(self):
        (self.scratch / "folder.cascade").mkdir()
        os.mkfifo(self.scratch / "fifo.cascade")
        for name in ("folder.cascade", "fifo.cascade", "absent.cascade", "absent/data.cascade", ""):
            with self.subTest(name=name):
                program = self.run_program("cascade", name, TRACKER, ME, status=1 if "absent" in name else 6)
                self.assert_one_sentence(program, name)

    def test_one_of_several(self):
        (self.scratch / "good.cascade").write_bytes(GOOD)
        (self.scratch / "bad.cascade").write_bytes(GOOD[:-1])
        program = self.run_program("cascade", "good.cascade:bad.cascade", TRACKER, ME, status=6)
        self.assert_one_sentence(program, "bad.cascade")

    def test_reserved_bytes_are_ignored(self):
        (self.scratch / "data.cascade").write_bytes(changed(8, b"reserved"))
        (self.scratch / "data").write_bytes(DATA)
        self.run_program("cascade", "-c", "data.cascade", TRACKER, ME, status=0)


class CommandLine(Case):
    def setUp(self):
        super().setUp()
        (self.scratch / "data.cascade").write_bytes(GOOD)

    def assert_all_misuse(self, *lines):
        for arguments in lines:
            with self.subTest(arguments=arguments):
                self.assert_misuse(self.run_program("cascade", *arguments))
        self.assertEqual(os.listdir(self.scratch), ["data.cascade"])

    def test_no_name_for_a_data_file(self):
        for output in ("", ":", "out:", ":out"):
            with self.subTest(output=output):
                files = ":".join(["data.cascade"] * (output.count(":") + 1))
                program = self.run_program("cascade", "-o", output, files, TRACKER, ME)
                self.assert_misuse(program)
                self.assertIn("--output", program.stderr.splitlines()[0])

    def test_a_wrong_number_of_operands(self):
        self.assert_all_misuse([], ["data.cascade"], ["data.cascade", TRACKER],
                               ["data.cascade", LOOPBACK, "1", LOOPBACK],
                               ["data.cascade", LOOPBACK, "1", LOOPBACK, "0", "more"])

    def test_bad_ports(self):
        for port in ("65536", "-1", "", "x", "80x", " 80", "+80", "0x50", "99999999999999999999"):
            self.assert_all_misuse(["data.cascade", LOOPBACK, port, LOOPBACK, "0"],
                                   ["data.cascade", LOOPBACK, "1", LOOPBACK, port],
                                   ["data.cascade", f"{LOOPBACK}:{port}", ME],
                                   ["data.cascade", TRACKER, f"{LOOPBACK}:{port}"],
                                   ["--peer", f"{LOOPBACK}:{port}", "data.cascade", TRACKER, ME])

    def test_a_tracker_does_not_listen_on_port_0(self):
        self.assert_all_misuse(["data.cascade", LOOPBACK, "0", LOOPBACK, "0"],
                               ["data.cascade", f"{LOOPBACK}:0", ME])

    def test_bad_addresses(self):
        for ip in ("localhost", "1.2.3", "1.2.3.256", "1.2.3.4.5", "", "::1", "1.2.3.4 "):
            self.assert_all_misuse(["data.cascade", LOOPBACK, "1", ip, "0"],
                                   ["data.cascade", TRACKER, f"{ip}:0"])

    def test_digits_and_dots_are_no_name_of_a_host(self):
        for host in ("", "1", "1.2.3", "1.2.3.", "1.2.3.256", "300.1.1.1", "1.2.3.4.5", ".", "..."):
            self.assert_all_misuse(["data.cascade", host, "1", LOOPBACK, "0"],
                                   ["data.cascade", f"{host}:1", ME],
                                   ["--peer", f"{host}:1", "data.cascade", TRACKER, ME])

    def test_a_port_is_missing(self):
        self.assert_all_misuse(["data.cascade", LOOPBACK, ME], ["data.cascade", TRACKER, LOOPBACK],
                               ["--peer", LOOPBACK, "data.cascade", TRACKER, ME])

    def test_bad_numbers(self):
        for option in ("-m", "-j", "--timeout", "--give-up", "--max-clients", "--jobs"):
            for number in ("0", "-1", "", "x", "1x", "1.5", "99999999999999999999"):
                self.assert_all_misuse([option, number, "data.cascade", TRACKER, ME])

    def test_bad_options(self):
        self.assert_all_misuse(["-x", "data.cascade", TRACKER, ME],
                               ["--no-such", "data.cascade", TRACKER, ME],
                               ["--order=random", "data.cascade", TRACKER, ME],
                               ["data.cascade", TRACKER, ME, "-o"],
                               ["-o", "a:b", "data.cascade", TRACKER, ME],
                               ["-o", "a", "data.cascade:data.cascade", TRACKER, ME])

    def test_nobody_to_fetch_from(self):
        self.assert_all_misuse(["-c", "data.cascade", "-", ME])

    def test_help_and_version_go_to_standard_output(self):
        self.assert_help_and_version("cascade")

    def test_help_names_every_option(self):
        text = self.run_program("cascade", "--help", status=0).stdout
        named = {short or long for short, long in re.findall(r"^ +(?:-(\w), | {4})--([a-z-]+)", text, re.M)}
        self.assertLessEqual({*"cofmujqvhV", "peer", "max-upload", "verify-on-send", "order", "timeout", "give-up"}, named)


if __name__ == "__main__":
    unittest.main()
