"""Peers that answer from a script, and fetches from them.

A script is a row of acts: one for each request, the last one for all further
requests too. act(peer, connection, number) deals with one request, and returns
what comes next: nothing (the next request is read), HANG_UP or STAY.
"""

import threading

from support import NO_CHUNK_YET, OK, WAIT, Case, Peer, Tracker, chunk_response, wait_for_end

HANG_UP = "hang up"
STAY = "stay, and do no more, until the fetcher hangs up"


def send(peer, connection, number):
    peer.send_chunk(connection, number)


def send_and_hang_up(peer, connection, number):
    peer.send_chunk(connection, number)
    return HANG_UP


def lie(peer, connection, number):
    connection.sendall(chunk_response(OK, bytes(len(peer.file.chunk(number)))))


def say(answer, then=None):
    """Return the act that sends these bytes, or those that answer(number) returns."""
    def act(peer, connection, number):
        connection.sendall(answer(number) if callable(answer) else answer)
        return then
    return act


keep_silent = say(b"", STAY)
not_yet = say(chunk_response(NO_CHUNK_YET, b"not yet"))


def part(i, of):
    """Return the act of a peer that holds one chunk of so many."""
    def act(peer, connection, number):
        return (send if number % of == i else not_yet)(peer, connection, number)
    return act


class Scripted(Peer):
    """A peer with a script; without one it sends what it is asked for.

    It answers only after these events. It has events of its own: acted, the
    last act of the script was done, and left, the fetcher hung up on it.
    """

    def __init__(self, case, file, *script, after=(), listener=None):
        self.script, self.after = script or (send,), after
        self.acted, self.left = threading.Event(), threading.Event()
        super().__init__(case, file, self.act, listener)

    def act(self, connection, number):
        for event in self.after:
            if not event.wait(WAIT):
                raise AssertionError("what it waits for has not happened")
        turn = min(len(self.requests), len(self.script))
        try:
            then = self.script[turn - 1](self, connection, number)
        except ConnectionError:
            then = STAY  # it has been left already
        if turn == len(self.script):
            self.acted.set()
        if then == STAY:
            wait_for_end(connection)
            self.left.set()
        return then


def silent_tracker(case):
    """Return a tracker that answers nobody."""
    return Tracker(case, answer=lambda connection, command: wait_for_end(connection))


class FetchCase(Case):
    """Fetches from scripted peers; if nothing else is said, a file of 31 chunks."""

    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 30_500, 1000)

    def fetch_from(self, *peers, options=()):
        """Fetch the file from these peers. Return the program."""
        program = self.fetch(self.file, *options, peers=[peer.address for peer in peers])
        self.assert_same(self.file.path, self.file.data)
        return program
