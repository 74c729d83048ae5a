"""The exercises' own solutions: so that each exercise can be solved, and its checks mean something."""

import os
import unittest
from pathlib import Path

import exercises

SOLUTIONS = Path(os.environ.get("CASCADE_PROGRAMS", Path(__file__).resolve().parent.parent)) / "build/exercises"


class ForkPeer(exercises.ForkPeer):
    solution = SOLUTIONS / "fork_peer"


class PollPeer(exercises.PollPeer):
    solution = SOLUTIONS / "poll_peer"


class SmallFetch(exercises.SmallFetch):
    solution = SOLUTIONS / "small_fetch"


if __name__ == "__main__":
    unittest.main()
