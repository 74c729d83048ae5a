"""Our programs and the reference's, in every pairing of tracker, seeder and fetcher."""

import itertools
import json
import unittest

from support import (LIST, LOOPBACK, PROGRAMS, Case, ask_peer, ask_tracker, chunk_request, reference,
                     tracker_request, wait_for_chunks, wait_for_subscription)

OURS, THEIRS = "ours", "reference"
SHORT_WAITS = {"CASCADE_REFERENCE_WAIT": "0.2"}


class Exchange(Case):
    def start_either_tracker(self, whose, *files):
        if whose == OURS:
            return self.start_tracker()
        config = self.scratch / "config.json"
        config.write_text(json.dumps({
            "port": 0, "address": LOOPBACK, "allowedhashes": [file.hash.hex() for file in files],
            "good-ips": [], "ban-private": False}))
        return self.start(reference("tracker.py", config))

    def start_either_peer(self, whose, files, tracker, *options):
        operands = [":".join(str(file.metafile_path) for file in files),
                    "%s:%d" % tracker, f"{LOOPBACK}:0"]
        if whose == OURS:
            return self.start([PROGRAMS / "cascade", *options, *operands])
        options = [part for option in options for part in ([option, "1"] if option == "-c" else [option])]
        return self.start(reference("peer.py", *operands, *options), env=SHORT_WAITS)

    def exchange(self, tracker, seeder, fetcher, files):
        """Seed the files, fetch them under other names, and compare."""
        tracker = self.start_either_tracker(tracker, *files).address()
        seeder = self.start_either_peer(seeder, files, tracker)
        for file in files:
            wait_for_chunks(seeder.address(), file, range(file.count))
            wait_for_subscription(tracker, file)
        outputs = [f"{file.path}.copy" for file in files]
        program = self.start_either_peer(fetcher, files, tracker, "-c", "-o", ":".join(outputs))
        self.assertEqual(program.wait(), 0, f"{program}\n{program.stderr}\n{seeder.stderr}")
        for file, output in zip(files, outputs):
            self.assert_same(output, file.data)


class Pairing(Exchange):
    """Its eight tests are added below."""


def add_pairings():
    """Add a test for each of the eight, whose name tells which it is."""
    for tracker, seeder, fetcher in itertools.product((OURS, THEIRS), repeat=3):
        def test(self, trio=(tracker, seeder, fetcher)):
            self.exchange(*trio, [self.make_file("data", 300_001, 10_000)])

        name = f"test_{tracker}_tracker_{seeder}_seeder_{fetcher}_fetcher"
        setattr(Pairing, name, test)


add_pairings()


class TwoFiles(Exchange):
    def exchange_two(self, *trio):
        self.exchange(*trio, [self.make_file("a", 100_000, 4096), self.make_file("b", 50_001, 1000)])

    def test_our_programs(self):
        self.exchange_two(OURS, OURS, OURS)

    def test_our_fetcher_among_the_reference(self):
        self.exchange_two(THEIRS, THEIRS, OURS)

    def test_our_servers_with_the_reference_fetcher(self):
        self.exchange_two(OURS, OURS, THEIRS)


class Messages(Exchange):
    """What a refusal says is a line, whoever says it: some clients read one."""

    def test_of_a_tracker(self):
        file = self.make_file("data", 10_000, 1000)
        me = (LOOPBACK, 1)
        for whose in (OURS, THEIRS):
            tracker = self.start_either_tracker(whose, file).address()
            requests = {"magic": tracker_request(LIST, file.hash, me, magic=b"CASK"),
                        "version": tracker_request(LIST, file.hash, me, version=2),
                        "command": tracker_request(3, file.hash, me),
                        "length": tracker_request(LIST, file.hash, me, length=39)}
            if whose == THEIRS:  # it has a list of what it tracks
                requests["hash"] = tracker_request(LIST, bytes(32), me)
            for what, request in requests.items():
                with self.subTest(whose=whose, what=what):
                    status, message = ask_tracker(tracker, request)
                    self.assertEqual(status, 1)
                    self.assert_line(message)

    def test_of_a_peer(self):
        file = self.make_file("data", 10_000, 1000)
        missing = self.describe_file("missing", 10_000, 1000)
        for whose in (OURS, THEIRS):
            tracker = self.start_either_tracker(whose, file, missing).address()
            peer = self.start_either_peer(whose, [file, missing], tracker).address()
            wait_for_chunks(peer, file, range(file.count))
            for expected, request in ((1, chunk_request(bytes(32), 0)), (2, chunk_request(missing.hash, 0)),
                                      (3, chunk_request(file.hash, 10)), (4, bytes(64))):
                with self.subTest(whose=whose, status=expected):
                    status, message = ask_peer(peer, request)
                    self.assertEqual(status, expected)
                    self.assert_line(message)


class ArgumentForms(Case):
    def test_five_operands(self):
        file = self.make_file("data", 100_000, 4096)
        tracker = ip, port = self.start_tracker().address()
        self.start([PROGRAMS / "cascade", file.metafile_path, ip, port, LOOPBACK, 0])
        wait_for_subscription(tracker, file)
        fetcher = self.start([PROGRAMS / "cascade", "-c", "-o", "copy",
                              file.metafile_path, ip, port, LOOPBACK, 0])
        self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
        self.assert_same(self.scratch / "copy", file.data)

    def test_three_operands_and_long_options_after_them(self):
        file = self.make_file("data", 100_000, 4096)
        tracker = self.start_tracker().address()
        operands = [file.metafile_path, "%s:%d" % tracker, f"{LOOPBACK}:0"]
        self.start([PROGRAMS / "cascade", *operands])
        wait_for_subscription(tracker, file)
        fetcher = self.start([PROGRAMS / "cascade", *operands,
                              "--client-only", "--output", "copy"])
        self.assertEqual(fetcher.wait(), 0, fetcher.stderr)
        self.assert_same(self.scratch / "copy", file.data)

    def test_the_data_file_lies_beside_its_metafile(self):
        file = self.make_file("data", 10_000, 1000)
        seeder = self.start_seeder(file)
        other = self.describe_file("elsewhere/data", 0, 1000)
        other.metafile_path.write_bytes(file.metafile)
        self.fetch(other, peers=[seeder.address()])
        self.assert_same(other.path, file.data)


if __name__ == "__main__":
    unittest.main()
