"""Simulated swarms: the fetcher's choices over a virtual network (sim/sim.c)."""

import subprocess
import unittest

from support import PROGRAMS, Case

SIM = PROGRAMS / "build" / "sim" / "sim"
MIXTURES = 1000
ROWS = 0, 1, 3, 9, 10, 11  # of the table: 8 fetchers, 32, hostile and slow peers among them, reference peers


class Simulation(Case):
    def simulate(self, *arguments):
        """Run the simulation. Return what it says."""
        done = subprocess.run([SIM, *map(str, arguments)], stdout=subprocess.PIPE, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_hostile_mixtures(self):
        """Nobody starves, and every chunk is in exactly one state."""
        self.assertIn(f"{MIXTURES} of {MIXTURES}", self.simulate("-m", MIXTURES))

    def test_the_last_one_is_complete_in_time(self):
        for row in ROWS:
            said = self.simulate("-r", row)
            limit, _, worst, _ = map(float, said.split("|")[2:6])
            self.assertLessEqual(worst, limit, said)

    def test_a_run_follows_from_its_seed(self):
        first, again, other = (self.simulate("-s", seed, "-r", 1) for seed in (1, 1, 100))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)


if __name__ == "__main__":
    unittest.main()
