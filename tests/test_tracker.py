"""The tracker, seen by its clients over raw sockets."""

import os
import resource
import signal
import socket
import time
import unittest

from support import (IS_PORTABLE, LIST, LOOPBACK, PROGRAMS, SUBSCRIBE, WAIT, Case, ask_tracker, connect,
                     has_landlock, parse_entries, parse_tracker_response, pause, proc_status, receive_all, tracker_request,
                     wait_for_subscription, wait_until)

HASH, OTHER_HASH = bytes(range(32)), bytes(32)
NOBODY = ("203.0.113.9", 9)


def peers(count, first_port=1000, ip="192.0.2.1"):
    return [(ip, first_port + i) for i in range(count)]


class Asking(Case):
    options = ()

    def setUp(self):
        super().setUp()
        self.tracker = self.start_tracker(*self.options)
        self.address = self.tracker.address()

    def ask(self, command, peer=NOBODY, cascade_hash=HASH, **fields):
        return ask_tracker(self.address, tracker_request(command, cascade_hash, peer, **fields))

    def entries(self, command, peer=NOBODY, cascade_hash=HASH):
        status, body = self.ask(command, peer, cascade_hash)
        self.assertEqual(status, 0, body)
        return parse_entries(body)

    def listed(self, peer=NOBODY, cascade_hash=HASH):
        return sorted(entry[0] for entry in self.entries(LIST, peer, cascade_hash))

    def assert_refused(self, answer):
        """The answer must be an error with words."""
        status, body = answer
        self.assertEqual(status, 1)
        self.assert_words(body)
        self.assertTrue(body.endswith(b"\n"), body)  # some clients read a line


class Lists(Asking):
    def test_nobody_is_known_at_first(self):
        self.assertEqual(self.entries(LIST), [])

    def test_a_subscriber_is_listed(self):
        before = int(time.time())
        self.assertEqual(self.entries(SUBSCRIBE, ("192.0.2.7", 0x1234)), [])
        after = int(time.time())
        [(peer, seen, good, reserved)] = self.entries(LIST)
        self.assertEqual((peer, good, reserved), (("192.0.2.7", 0x1234), 0, 0))
        # The clock that a second is taken from may be some milliseconds late.
        self.assertTrue(before - 1 <= seen <= after, seen)

    def test_listing_does_not_subscribe(self):
        self.entries(LIST, ("192.0.2.7", 7))
        self.assertEqual(self.entries(LIST), [])

    def test_subscribing_twice_makes_one_entry(self):
        for _ in range(3):
            self.entries(SUBSCRIBE, ("192.0.2.7", 7))
        self.assertEqual(self.listed(), [("192.0.2.7", 7)])

    def test_both_commands_list_the_others_alone(self):
        one, two, three = peers(3)
        for peer in (one, two, three):
            self.entries(SUBSCRIBE, peer)
        self.assertEqual(self.listed(one), [two, three])
        self.assertEqual(sorted(entry[0] for entry in self.entries(SUBSCRIBE, two)), [one, three])

    def test_files_are_kept_apart(self):
        one, two = peers(2)
        self.entries(SUBSCRIBE, one)
        self.entries(SUBSCRIBE, two, OTHER_HASH)
        self.assertEqual(self.listed(), [one])
        self.assertEqual(self.listed(NOBODY, OTHER_HASH), [two])

    def test_an_answer_has_at_most_20_peers(self):
        crowd = peers(300)
        for peer in crowd:
            self.entries(SUBSCRIBE, peer)
        seen = set()
        for _ in range(100):
            listed = self.listed()
            self.assertEqual(len(set(listed)), 20)
            self.assertLessEqual(set(listed), set(crowd))
            seen |= set(listed)
        self.assertGreater(len(seen), 200)  # a fixed 20 would starve the others

    def test_impossible_addresses_are_refused(self):
        for peer in (("0.0.0.0", 80), ("192.0.2.1", 0)):
            self.assert_refused(self.ask(SUBSCRIBE, peer))
        self.assertEqual(self.listed(), [])

    def test_a_list_may_be_asked_for_without_an_address(self):
        self.entries(SUBSCRIBE, ("192.0.2.7", 7))
        self.assertEqual(self.listed(("0.0.0.0", 0)), [("192.0.2.7", 7)])


class BadRequests(Asking):
    def test_an_unknown_command(self):
        for command in (0, 3, 0x01000000, 0xffffffff):
            self.assert_refused(self.ask(command))

    def test_an_unknown_version(self):
        for version in (0, 2, 0x01000000):
            self.assert_refused(self.ask(LIST, version=version))

    def test_a_wrong_length(self):
        for length in (0, 37, 39, 0xffffffff):
            self.assert_refused(self.ask(LIST, length=length))

    def test_a_wrong_magic(self):
        self.assert_refused(self.ask(LIST, magic=b"CASD"))

    def test_garbage_is_refused_at_once(self):
        request = tracker_request(LIST, HASH, NOBODY)
        for garbage in (b"G", b"GET / HTTP/1.0\r\n\r\n", b"CASX", request[:4] + bytes(4),
                        request[:8] + b"\0\0\0\x09", request[:12] + b"\0\0\0\x27"):
            with self.subTest(garbage=garbage):
                self.assert_refused(ask_tracker(self.address, garbage))

    def test_half_a_request_and_the_end_of_file(self):
        for size in (1, 16, 53):
            with self.subTest(size=size), connect(self.address) as connection:
                connection.sendall(tracker_request(LIST, HASH, NOBODY)[:size])
                connection.shutdown(socket.SHUT_WR)
                self.assert_refused(parse_tracker_response(receive_all(connection)))

    def test_the_refusal_arrives_although_more_was_sent(self):
        self.assert_refused(ask_tracker(self.address, b"x" * 50_000))

    def test_a_refused_subscription_leaves_no_entry(self):
        self.ask(SUBSCRIBE, ("192.0.2.7", 7), version=2)
        self.assertEqual(self.listed(), [])


class Connections(Asking):
    def test_a_request_in_single_bytes(self):
        self.entries(SUBSCRIBE, ("192.0.2.7", 7))
        with connect(self.address) as connection:
            for byte in tracker_request(LIST, HASH, NOBODY):
                connection.sendall(bytes([byte]))
            status, body = parse_tracker_response(receive_all(connection))
        self.assertEqual((status, len(body)), (0, 12))

    def test_the_whole_answer_comes_in_one_piece(self):
        for peer in peers(20):
            self.entries(SUBSCRIBE, peer)
        for _ in range(20):
            with connect(self.address) as connection:
                connection.sendall(tracker_request(LIST, HASH, NOBODY))
                self.assertEqual(len(connection.recv(4096)), 5 + 20 * 12)

    def test_the_second_request_on_a_connection_is_not_answered(self):
        with connect(self.address) as connection:
            connection.sendall(tracker_request(LIST, HASH, NOBODY) * 2)
            self.assertEqual(receive_all(connection), bytes(5))

    def test_many_clients_at_once(self):
        crowd = [(peer, connect(self.address)) for peer in peers(200)]
        for peer, connection in crowd:
            connection.sendall(tracker_request(SUBSCRIBE, HASH, peer))
        for _, connection in crowd:
            with connection:
                self.assertEqual(parse_tracker_response(receive_all(connection))[0], 0)

    def test_silent_clients_hold_nobody_up(self):
        silent = [connect(self.address) for _ in range(600)]
        for connection in silent[::2]:
            connection.sendall(b"CASC")
        self.assertEqual(self.entries(LIST), [])
        for connection in silent:
            connection.close()
        self.assertEqual(self.entries(LIST), [])


class Floods(Asking):
    """One source says more than anybody would."""

    FLOOD = "127.0.0.2"

    @classmethod
    def setUpClass(cls):
        try:
            with socket.socket() as probe:
                probe.bind((cls.FLOOD, 0))
        except OSError:
            raise unittest.SkipTest("the loopback interface has one address here") from None

    def subscribe_from(self, source, peer, cascade_hash=HASH):
        with socket.create_connection(self.address, WAIT, (source, 0)) as connection:
            connection.sendall(tracker_request(SUBSCRIBE, cascade_hash, peer))
            self.assertEqual(parse_tracker_response(receive_all(connection))[0], 0)

    def assert_listed(self, crowd, cascade_hash=HASH):
        """All these peers must be named, if one asks often."""
        missing = set(crowd)

        def ask_often():
            for _ in range(100):
                missing.difference_update(self.listed(NOBODY, cascade_hash))
            return not missing
        wait_until(ask_often, "all are listed")

    def test_invented_hashes_push_no_real_file_out(self):
        for peer in peers(60):
            self.entries(SUBSCRIBE, peer)
        for number in range(4200):
            self.subscribe_from(self.FLOOD, NOBODY, number.to_bytes(32, "big"))
        self.assert_listed(peers(60))

    def test_invented_peers_push_no_real_one_out(self):
        for peer in peers(60):
            self.entries(SUBSCRIBE, peer)
        for peer in peers(4200, ip="192.0.2.2"):
            self.subscribe_from(self.FLOOD, peer)
        self.assert_listed(peers(60))
        for _ in range(20):  # nor do they hide them
            self.assertTrue(set(self.listed()) & set(peers(60)))

    def test_a_thousand_peers_behind_one_address_are_kept(self):
        crowd = peers(1000)
        for peer in crowd:
            for cascade_hash in (HASH, OTHER_HASH):
                self.entries(SUBSCRIBE, peer, cascade_hash)
        self.subscribe_from(self.FLOOD, NOBODY)
        self.assert_listed(crowd)
        self.assert_listed(crowd, OTHER_HASH)

    def test_somebody_elses_peer_is_named_once(self):
        self.entries(SUBSCRIBE, peers(1)[0])
        self.subscribe_from(self.FLOOD, peers(1)[0])
        self.assertEqual(self.listed(), peers(1))


class Rights(Case):
    def test_it_can_open_nothing_once_it_listens(self):
        if not IS_PORTABLE and not has_landlock():
            self.skipTest("the kernel has no Landlock")
        tracker = self.start_tracker()
        tracker.address()
        wait_until(lambda: proc_status(tracker.pid, "NoNewPrivs") == ["01"[not IS_PORTABLE]], "it is confined")


class KnownFiles(Case):
    def test_only_the_named_hashes_are_tracked(self):
        file = self.describe_file("data", 1000, 100)
        address = self.start_tracker(HASH.hex().upper(), file.metafile_path).address()
        for cascade_hash in (HASH, file.hash):
            self.assertEqual(ask_tracker(address, tracker_request(SUBSCRIBE, cascade_hash, NOBODY)), (0, b""))
        for command in (LIST, SUBSCRIBE):
            status, body = ask_tracker(address, tracker_request(command, OTHER_HASH, NOBODY))
            self.assertEqual(status, 1)
            self.assertTrue(body)

    def test_a_bad_operand(self):
        (self.scratch / "short.cascade").write_bytes(b"CASCADE1")
        for operand in ("absent.cascade", "short.cascade", "12ab", "z" * 64, "0" * 63, ""):
            with self.subTest(operand=operand):
                program = self.run_program("tracker", "-p", 0, operand, status=6 if operand == "short.cascade" else 1)
                self.assert_one_sentence(program, operand)
                self.assertEqual("neither a hash of 64 digits nor a metafile" in program.stderr,
                                 not operand.endswith(".cascade"))


class Listing(Case):
    def test_who_is_known(self):
        file = self.make_file("data", 10_000, 1000)
        tracker = self.start_tracker()
        address = tracker.address()
        peer = self.start_peer(file, tracker=address)
        wait_for_subscription(address, file)
        for operand in (file.metafile_path, file.hash.hex()):
            listed = self.run_program("tracker", "--list", "%s:%d" % address, operand, status=0)
            self.assertRegex(listed.stdout, r"^%s:%d\tsubscribed \d+ s ago\n$" % peer.address())
            self.assertEqual(listed.stderr, "")

    def test_nobody_is_known(self):
        listed = self.run_program("tracker", "--list", "%s:%d" % self.start_tracker().address(), "0" * 64, status=0)
        self.assertEqual(listed.stdout + listed.stderr, "")

    def test_a_tracker_that_does_not_answer(self):
        where = "%s:%d" % self.vacant_address()
        listed = self.run_program("tracker", "--list", where, "0" * 64, status=1)
        self.assert_one_sentence(listed, where)

    def test_misuse(self):
        for arguments in (("--list", f"{LOOPBACK}:1"), ("--list", LOOPBACK, "0" * 64), ("--list", ":1", "0" * 64)):
            with self.subTest(arguments=arguments):
                self.assert_misuse(self.run_program("tracker", *arguments))


class GoodPeers(Asking):
    options = ("-g", "192.0.2.200", "--good", LOOPBACK)

    def test_good_peers_come_first_with_their_flag(self):
        good = peers(3, 50, LOOPBACK)
        for peer in peers(10) + good + peers(10, 2000):
            self.assertEqual(self.ask(SUBSCRIBE, peer)[0], 0)
        for _ in range(10):
            entries = self.entries(LIST)
            self.assertEqual(len(entries), 20)
            self.assertEqual(sorted(entry[0] for entry in entries[:3]), good)
            self.assertEqual([entry[2] for entry in entries], [1] * 3 + [0] * 17)

    def test_a_good_address_subscribes_only_from_itself(self):
        self.assert_refused(self.ask(SUBSCRIBE, ("192.0.2.200", 80)))
        self.assertEqual(self.entries(LIST), [])
        self.assertEqual(self.ask(SUBSCRIBE, (LOOPBACK, 80))[0], 0)
        self.assertEqual(self.listed(), [(LOOPBACK, 80)])

    def test_a_good_address_may_list_from_anywhere(self):
        self.assertEqual(self.ask(LIST, ("192.0.2.200", 80)), (0, b""))


class PrivateAddresses(Asking):
    options = ("--ban-private",)

    def test_private_addresses_are_refused(self):
        for ip in ("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255",
                   "192.168.3.4", "127.0.0.1", "169.254.1.1"):
            with self.subTest(ip=ip):
                self.assert_refused(self.ask(SUBSCRIBE, (ip, 80)))
        self.assertEqual(self.listed(), [])

    def test_their_neighbours_are_not(self):
        for ip in ("9.255.255.255", "11.0.0.1", "172.15.255.255", "172.32.0.1",
                   "192.167.255.255", "192.169.0.1", "126.0.0.1", "128.0.0.1"):
            with self.subTest(ip=ip):
                self.assertEqual(self.ask(SUBSCRIBE, (ip, 80))[0], 0)


class CommandLine(Case):
    def test_signals_end_it_with_status_0(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signal=number):
                tracker = self.start_tracker()
                with connect(tracker.address()):
                    tracker.signal(number)
                    self.assertEqual(tracker.wait(), 0)
                self.assertEqual(tracker.stderr, "")

    def test_a_hangup_that_was_ignored_from_the_start_does_not_end_it(self):
        tracker = self.start([PROGRAMS / "tracker", "-a", LOOPBACK, "-p", "0"],
                             preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        address = tracker.address()
        tracker.signal(signal.SIGHUP)
        tracker.signal(signal.SIGUSR1)
        tracker.says("0 peers subscribed, for 0 files")
        self.assertEqual(ask_tracker(address, tracker_request(LIST, HASH, NOBODY)), (0, b""))

    def test_its_state_is_told_when_asked_for(self):
        tracker = self.start_tracker("-q")
        address = tracker.address()
        told = ["0 peers subscribed, for 0 files"]
        for cascade_hash, peer, what in ((HASH, 0, "1 peer subscribed, for 1 file"),
                                         (HASH, 1, "2 peers subscribed, for 1 file"),
                                         (HASH, 1, "2 peers subscribed, for 1 file"),
                                         (OTHER_HASH, 1, "3 peers subscribed, for 2 files")):
            tracker.signal(signal.SIGUSR1)
            wait_until(lambda: tracker.stderr.count("\n") == len(told), "it tells")
            ask_tracker(address, tracker_request(SUBSCRIBE, cascade_hash, peers(2)[peer]))
            told.append(what)
        tracker.signal(signal.SIGUSR1)
        wait_until(lambda: tracker.stderr.count("\n") == len(told), "it tells")
        self.assertEqual(tracker.stderr, "".join(f"tracker: {what}\n" for what in told))

    def test_it_says_where_it_listens_even_if_quiet(self):
        tracker = self.start_tracker("--quiet")
        address = tracker.address()
        self.assertEqual(tracker.stdout, "listening on %s:%d\n" % address)

    def test_bad_arguments(self):
        for arguments in (["-p", "65536"], ["-p", "-1"], ["-p", ""], ["-p", "80x"], ["-p", "http"],
                          ["-a", "localhost"], ["-a", "1.2.3"], ["-a", "1.2.3.256"], ["-a", ""],
                          ["-g", "1.2.3.4.5"], ["-g", "host"], ["-p"], ["--no-such"], ["-x"]):
            with self.subTest(arguments=arguments):
                self.assert_misuse(self.run_program("tracker", *arguments))

    def test_a_port_that_is_taken(self):
        ip, port = self.start_tracker().address()
        program = self.run_program("tracker", "-a", ip, "-p", port, status=1)
        self.assert_one_sentence(program, f"{ip}:{port}")

    def test_it_listens_on_all_addresses_unless_told_otherwise(self):
        tracker = self.start([PROGRAMS / "tracker", "-p", "0"])
        ip, port = tracker.address()
        self.assertEqual(ip, "0.0.0.0")
        self.assertEqual(ask_tracker((LOOPBACK, port), tracker_request(LIST, HASH, NOBODY)), (0, b""))

    def test_its_port_is_free_at_once_after_its_end(self):
        tracker = self.start_tracker()
        address = tracker.address()
        ask_tracker(address, tracker_request(LIST, HASH, NOBODY))
        tracker.signal(signal.SIGTERM)
        self.assertEqual(tracker.wait(), 0)
        again = self.start([PROGRAMS / "tracker", "-a", LOOPBACK, "-p", address[1]])
        self.assertEqual(again.address(), address)

    def test_few_descriptors_do_not_end_it(self):
        limit = ["sh", "-c", 'ulimit -n 16; exec "$0" "$@"']
        tracker = self.start([*limit, PROGRAMS / "tracker", "-a", LOOPBACK, "-p", "0"])
        crowd = [connect(tracker.address()) for _ in range(40)]
        for connection in crowd:
            connection.close()
        self.assertEqual(ask_tracker(tracker.address(), tracker_request(LIST, HASH, NOBODY)), (0, b""))

    def test_what_lasts_is_not_repeated(self):
        """More clients come than there are descriptors for."""
        limit = ["sh", "-c", 'ulimit -n 16; exec "$0" "$@"']
        tracker = self.start([*limit, PROGRAMS / "tracker", "-a", LOOPBACK, "-p", "0"])
        crowd = [connect(tracker.address()) for _ in range(40)]
        tracker.says("can't accept a connection")
        pause(1)
        for connection in crowd:
            connection.close()
        self.assertEqual(ask_tracker(tracker.address(), tracker_request(LIST, HASH, NOBODY)), (0, b""))
        self.assertEqual(tracker.stderr.count("\n"), 1, tracker.stderr)

    def test_who_does_not_read_its_messages_holds_nobody_up(self):
        reading, writing = self.full_pipe()
        tracker = self.start([PROGRAMS / "tracker", "-a", LOOPBACK, "-p", 0], stderr=writing)
        os.close(writing)
        address = tracker.address()
        for number in range(3):
            start = time.monotonic()
            ask_tracker(address, tracker_request(SUBSCRIBE, HASH, ("192.0.2.1", 1 + number)))
            self.assertLess(time.monotonic() - start, 0.8)
            os.read(reading, 4096)  # room for some lines, in which it hopes for more
        text = b""
        while b"lost: " not in text:
            tracker.signal(signal.SIGUSR1)
            text += os.read(reading, 65536)

    @unittest.skipUnless(hasattr(resource, "prlimit"), "another process's limits can't be set here")
    def test_a_wait_that_fails_does_not_end_it(self):
        """poll fails where more descriptors are waited for than a process may have."""
        tracker = self.start_tracker()
        address = tracker.address()
        ask_tracker(address, tracker_request(SUBSCRIBE, HASH, NOBODY))
        crowd = [connect(address) for _ in range(20)]
        for connection in crowd:
            connection.sendall(b"CASC")
        ask_tracker(address, tracker_request(LIST, HASH, NOBODY))  # so the others were taken
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        before = resource.prlimit(tracker.pid, resource.RLIMIT_NOFILE, (4, most))
        crowd[0].sendall(b"\0")  # what it waits for now began before
        tracker.says("can't wait for clients: ")
        resource.prlimit(tracker.pid, resource.RLIMIT_NOFILE, before)
        status, body = ask_tracker(address, tracker_request(LIST, HASH, ("192.0.2.1", 1)))
        self.assertEqual((status, [entry[0] for entry in parse_entries(body)]), (0, [NOBODY]))
        for connection in crowd:
            connection.close()
        self.assertEqual(tracker.stderr.count("can't"), 1, tracker.stderr)

    def test_help_and_version_go_to_standard_output(self):
        self.assert_help_and_version("tracker")


if __name__ == "__main__":
    unittest.main()
