"""Random sessions with our peer and tracker, and with the reference's: what PROTOCOL.md
doesn't leave open is the same, byte for byte."""

import json
import os
import random
import socket
import unittest

from support import (CHUNK_RESPONSE, LIST, LOOPBACK, NO_CHUNK_YET, OK, SUBSCRIBE, Case, chunk_request, connect,
                     parse_entries, parse_tracker_response, receive, receive_all, reference, tracker_request,
                     wait_for_chunks)

SESSIONS = 150  # for each seed
SEEDS = range(1, 1 + int(os.environ.get("CASCADE_SEEDS", 2)))


class PeerSessions(Case):
    def start_both(self):
        self.whole = self.make_file("whole", 2345, 100)
        self.part = self.make_file("part", 1000, 100)
        self.part.path.write_bytes(self.part.without(3, 7))
        self.files = [self.whole, self.part]
        ours = self.start_peer(self.files, tracker=self.vacant_address())
        theirs = []
        for file in self.files:
            copy = self.describe_file(f"theirs/{file.path.name}", len(file.data), file.chunk_size)
            copy.metafile_path.write_bytes(file.metafile)
            copy.path.write_bytes(file.path.read_bytes())
            theirs.append(str(copy.metafile_path))
        peer = self.start(reference("peer.py", ":".join(theirs), "%s:%d" % self.vacant_address(), "127.0.0.1:0"))
        return ours.address(), peer.address()

    def make_request(self, chance):
        """Return what a client may send, right or wrong."""
        file = chance.choice(self.files)
        number = chance.choice([chance.randrange(file.count), chance.randrange(file.count), 3, file.count,
                                chance.getrandbits(64)])
        request = bytearray(chunk_request(file.hash, number, reserved=chance.randbytes(16)))
        if chance.random() < 0.15:
            request[chance.randrange(len(request))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.03:
            del request[chance.randrange(1, len(request)):]
        return bytes(request)

    def session(self, address, requests):
        """Send them one after the other. Return the status of each answer, its chunk, and who hangs up."""
        answers = []
        with connect(address) as connection:
            for request in requests:
                connection.sendall(request)
                if len(request) < 64:
                    connection.shutdown(socket.SHUT_WR)
                header = receive(connection, CHUNK_RESPONSE.size)
                if not header:
                    return answers + ["closed"]
                status, length = CHUNK_RESPONSE.unpack(header)
                body = receive(connection, length)
                self.assertEqual(len(body), length)
                answers.append((status, body if status == OK else body.endswith(b"\n")))
                if status not in (OK, NO_CHUNK_YET):
                    return answers + [receive_all(connection)]
            connection.shutdown(socket.SHUT_WR)
            return answers + [receive_all(connection)]

    def test_peers_answer_the_same(self):
        ours, theirs = self.start_both()
        self.wait_for_check(ours)
        for seed in SEEDS:
            chance = random.Random(seed)
            for number in range(SESSIONS):
                requests = [self.make_request(chance) for _ in range(chance.randrange(1, 12))]
                with self.subTest(seed=seed, session=number):
                    self.assertEqual(self.session(ours, requests), self.session(theirs, requests))

    def wait_for_check(self, address):
        wait_for_chunks(address, self.whole, range(self.whole.count))
        wait_for_chunks(address, self.part, [0, 9])


class TrackerSessions(Case):
    PEERS = [(f"10.0.0.{n}", 5000 + n) for n in range(2, 14)]

    def start_both(self):
        files = [self.make_file(name, 100, 100) for name in ("one", "two")]
        self.hashes = [file.hash for file in files]
        config = self.scratch / "config.json"
        config.write_text(json.dumps({"address": LOOPBACK, "port": 0, "good-ips": ["10.0.0.1", LOOPBACK],
                                      "ban-private": False, "allowedhashes": [h.hex() for h in self.hashes]}))
        ours = self.start_tracker("-g", "10.0.0.1", "-g", LOOPBACK, *(h.hex() for h in self.hashes))
        return ours.address(), self.start(reference("tracker.py", config)).address()

    def make_request(self, chance):
        peer = chance.choice([*self.PEERS, ("10.0.0.1", 5001), (LOOPBACK, 5000)])
        cascade_hash = chance.choice([*self.hashes, *self.hashes, bytes(32)])
        request = bytearray(tracker_request(chance.choice([LIST, SUBSCRIBE]), cascade_hash, peer))
        if chance.random() < 0.2:
            request[chance.randrange(48)] ^= 1 << chance.randrange(8)
        return bytes(request)

    def ask(self, address, request):
        """Return the status, and who is named, in any order; the times are the trackers' own."""
        with connect(address) as connection:
            connection.sendall(request)
            status, body = parse_tracker_response(receive_all(connection))
        if status != 0:
            return status, body.endswith(b"\n")
        return status, sorted((peer, good, reserved) for peer, _, good, reserved in parse_entries(body))

    def test_trackers_answer_the_same(self):
        ours, theirs = self.start_both()
        for seed in SEEDS:
            chance = random.Random(seed)
            for number in range(2 * SESSIONS):
                request = self.make_request(chance)
                with self.subTest(seed=seed, number=number, request=request.hex()):
                    self.assertEqual(self.ask(ours, request), self.ask(theirs, request))


if __name__ == "__main__":
    unittest.main()
