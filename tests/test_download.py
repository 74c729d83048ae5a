"""The limit to what is fetched: --max-download."""

import time
import unittest

from scripted import FetchCase
from support import LOOPBACK, Peer, operands


class Download(FetchCase):
    def fetch_within(self, rate, *options, size, chunk_size, peers=1):
        """Fetch a file of its own from so many peers. Return the seconds, and what it said."""
        file = self.describe_file(f"data-{rate}-{size}-{chunk_size}-{peers}", size, chunk_size)
        senders = [Peer(self, file) for _ in range(peers)]
        start = time.monotonic()
        program = self.fetch(file, "--max-download", rate, *options, peers=[peer.address for peer in senders])
        seconds = time.monotonic() - start
        self.assert_same(file.path, file.data)
        self.assertIn("; 0 B wasted", program.stderr)
        self.assertEqual(sorted(number for peer in senders for number in peer.requests), list(range(file.count)))
        return seconds

    def test_the_rate_is_kept_and_reached(self):
        for chunk_size, peers in ((1000, 1), (1000, 5), (200 << 10, 1), (1 << 20, 1), (100_000, 5)):
            with self.subTest(chunk_size=chunk_size, peers=peers):
                seconds = self.fetch_within("512K", size=1 << 20, chunk_size=chunk_size, peers=peers)
                self.assertGreater(seconds, 1.8)
                self.assertLess(seconds, 6)  # a busy machine may be late

    def test_no_peer_is_blamed_for_the_limit(self):
        """A chunk takes longer than a peer may be silent, and than may pass without anything."""
        for peers in (1, 2):
            seconds = self.fetch_within("64K", "--timeout", 1, "--give-up", 1, size=300_000, chunk_size=150_000,
                                        peers=peers)
            self.assertGreater(seconds, 4)

    def test_a_limit_that_is_never_reached(self):
        self.assertLess(self.fetch_within("1024G", size=30_000, chunk_size=1000), 5)

    def test_rates_out_of_range_are_misuse(self):
        for rate in ("0", "", "1023", "x", "1025G", "-1", "10MB"):
            with self.subTest(rate=rate):
                program = self.run_program("cascade", "--max-download", rate,
                                           *operands(self.file, None, (LOOPBACK, 0)))
                self.assert_misuse(program)


if __name__ == "__main__":
    unittest.main()
