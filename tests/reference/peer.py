#!/usr/bin/env python3
"""A Cascade peer: fetches the chunks of data files, and serves them.

The main thread checks the local files, subscribes them to the tracker, and
subscribes them again now and then. Each file that is incomplete has a thread
that fetches it, and each client has a thread that serves it.
"""

import argparse
import hashlib
import os
import random
import signal
import socket
import socketserver
import struct
import sys
import threading
import time

METAFILE_HEADER = struct.Struct(">8s8xQQ32s")    # magic, length, chunk size, hash of it all
CHUNK_REQUEST = struct.Struct(">8s16xQ32s")      # magic, chunk number, cascade hash
CHUNK_RESPONSE = struct.Struct(">BQ")            # status, length of what follows
TRACKER_REQUEST = struct.Struct(">4sIII32s4sH")  # magic, version, command, length,
                                                 # cascade hash, address, port
TRACKER_RESPONSE = struct.Struct(">BI")          # status, length of what follows
TRACKER_ENTRY = struct.Struct(">4sHIBx")         # address, port, last seen, good peer

MAGIC = b"CASCADE1"
HASH_SIZE = 32

OK, NO_FILE, NO_CHUNK_YET, NO_SUCH_CHUNK, BAD_REQUEST = range(5)

TRACKER_MAGIC = b"CASC"
TRACKER_VERSION = 1
LIST_PEERS, SUBSCRIBE = 1, 2
TRACKER_REQUEST_LENGTH = 38  # of what follows the first 16 bytes
TRACKER_OK = 0

CONNECTION_SECONDS = 10   # a peer or tracker that is silent for longer has failed
MOST_WAIT_SECONDS = 24 * 60 * 60
MOST_MESSAGE_BYTES = 500  # of a message from outside, the rest is not read
MOST_LIST_BYTES = 1024 * 1024


class Failure(Exception):
    """A metafile, a peer or the tracker is not as it should be. The text says how."""


def say(text):
    """Write one line to standard error, with one write, so that threads don't mix."""
    sys.stderr.write(text + "\n")


def seconds_from_environment(name, default):
    """Return the number in an environment variable, else default."""
    if name not in os.environ:
        return default
    try:
        seconds = float(os.environ[name])
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= MOST_WAIT_SECONDS:
        sys.exit(f"peer.py: {name} must be a number of seconds, at most a day")
    return seconds


# How long to wait before asking the tracker again when there is no peer left,
# how often to ask it anyway, and how often to subscribe. For tests.
WAIT_SECONDS = seconds_from_environment("CASCADE_REFERENCE_WAIT", None)
ASK_SECONDS = seconds_from_environment("CASCADE_REFERENCE_ASK", 5 * 60)
SUBSCRIBE_SECONDS = seconds_from_environment("CASCADE_REFERENCE_SUBSCRIBE", 10 * 60)


# --- The files ---

class SharedFile:
    """A metafile, its data file, and which of its chunks are held.

    The data file is opened anew for each chunk, so that the threads need not
    share a position in it.
    """

    def __init__(self, metafile_path, data_path):
        with open(metafile_path, "rb") as metafile:
            content = metafile.read()
        if len(content) < METAFILE_HEADER.size:
            raise Failure(f"{metafile_path}: too short for a metafile")
        magic, self.length, self.chunk_size, _ = METAFILE_HEADER.unpack_from(content)
        if magic != MAGIC:
            raise Failure(f"{metafile_path}: does not begin with CASCADE1")
        if self.chunk_size == 0:
            raise Failure(f"{metafile_path}: the chunk size is 0")
        if self.length >= 2**63:
            raise Failure(f"{metafile_path}: the data file is longer than a file can be")
        count = (self.length + self.chunk_size - 1) // self.chunk_size
        if len(content) != METAFILE_HEADER.size + count * HASH_SIZE:
            raise Failure(f"{metafile_path}: the number of hashes is not {count}")
        self.data_path = data_path
        self.cascade_hash = hashlib.sha256(content).digest()
        self.chunk_hashes = [content[start:start + HASH_SIZE]
                             for start in range(METAFILE_HEADER.size, len(content), HASH_SIZE)]
        self.held = [False] * count

    def chunk_length(self, number):
        """Return the length of a chunk: the chunk size, but the last has the rest."""
        return min(self.chunk_size, self.length - number * self.chunk_size)

    def is_chunk(self, number, data):
        """Tell whether data is what the metafile says of this chunk."""
        return hashlib.sha256(data).digest() == self.chunk_hashes[number]

    def missing(self):
        """Return the numbers of the chunks that are not held."""
        return [number for number, held in enumerate(self.held) if not held]

    def prepare(self, restart):
        """Make the data file if there is none, and find out which chunks it holds."""
        if restart or not os.path.exists(self.data_path):
            with open(self.data_path, "wb"):
                pass
        if os.path.getsize(self.data_path) > self.length:
            raise Failure(f"{self.data_path}: longer than its metafile says")
        for number in range(len(self.held)):
            data = self.read_chunk(number)
            self.held[number] = data is not None and self.is_chunk(number, data)
        say(f"{self.data_path}: {sum(self.held)} of {len(self.held)} chunks are held")

    def read_chunk(self, number):
        """Return a chunk's bytes, or None if the data file ends before the chunk does."""
        start, length = number * self.chunk_size, self.chunk_length(number)
        with open(self.data_path, "rb") as file:
            if os.fstat(file.fileno()).st_size < start + length:
                return None
            file.seek(start)
            return file.read(length)

    def write_chunk(self, number, data):
        """Write a verified chunk. It counts as held only when it is in the file."""
        with open(self.data_path, "r+b") as file:
            file.seek(number * self.chunk_size)
            file.write(data)
        self.held[number] = True


# --- Reading from a connection ---

def receive_header(connection, layout):
    """Read a response's header with one recv, and return its fields."""
    header = connection.recv(layout.size)
    if len(header) != layout.size:
        raise Failure(f"its header came as {len(header)} bytes, not {layout.size}")
    return layout.unpack(header)


def receive_body(connection, length):
    """Read exactly length bytes."""
    body = bytearray()
    while len(body) < length:
        piece = connection.recv(min(length - len(body), 64 * 1024))
        if not piece:
            raise Failure(f"it closed after {len(body)} of {length} bytes")
        body += piece
    return body


def receive_message(connection, length):
    """Read an error message, and leave out what a terminal might obey."""
    text = receive_body(connection, min(length, MOST_MESSAGE_BYTES)).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# --- The tracker ---

def ask_tracker(tracker, command, file, me):
    """Send one request to the tracker. Return the (address, port) of each peer it names."""
    address, port = me
    request = TRACKER_REQUEST.pack(TRACKER_MAGIC, TRACKER_VERSION, command,
                                   TRACKER_REQUEST_LENGTH, file.cascade_hash,
                                   socket.inet_aton(address), port)
    with socket.create_connection(tracker, timeout=CONNECTION_SECONDS) as connection:
        connection.sendall(request)
        status, length = receive_header(connection, TRACKER_RESPONSE)
        if status != TRACKER_OK:
            raise Failure(f"it says: {receive_message(connection, length)}")
        if length % TRACKER_ENTRY.size != 0 or length > MOST_LIST_BYTES:
            raise Failure(f"its list is {length} bytes long")
        entries = receive_body(connection, length)
    return [(socket.inet_ntoa(entry[0]), entry[1])
            for entry in TRACKER_ENTRY.iter_unpack(entries)]


def try_tracker(tracker, command, file, me):
    """Ask the tracker. If that fails, say so and return no peers."""
    try:
        return ask_tracker(tracker, command, file, me)
    except (OSError, Failure) as error:
        say("%s: tracker %s:%d: %s" % (file.data_path, *tracker, error))
        return []


def subscribe(files, tracker, me):
    """Subscribe every file, the incomplete ones too."""
    for file in files:
        try_tracker(tracker, SUBSCRIBE, file, me)


# --- Fetching ---

def fetch_chunk(peer, file, number):
    """Fetch one chunk over a connection of its own, and return its verified bytes."""
    with socket.create_connection(peer, timeout=CONNECTION_SECONDS) as connection:
        connection.sendall(CHUNK_REQUEST.pack(MAGIC, number, file.cascade_hash))
        status, length = receive_header(connection, CHUNK_RESPONSE)
        if status != OK:
            raise Failure(f"status {status}: {receive_message(connection, length)}")
        if length != file.chunk_length(number):
            raise Failure(f"chunk {number} has {length} bytes, "
                          f"not {file.chunk_length(number)}")
        data = receive_body(connection, length)
    if not file.is_chunk(number, data):
        raise Failure(f"chunk {number} has the wrong hash")
    return data


def fetch_file(file, tracker, me):
    """Fetch the missing chunks, each a random one from a random peer.

    A peer is dropped at its first failure. When none is left, the tracker is
    asked again, but only after a wait.
    """
    missing = file.missing()
    peers = []
    next_ask = 0
    while missing:
        if time.monotonic() >= next_ask:
            peers = try_tracker(tracker, LIST_PEERS, file, me) or peers
            next_ask = time.monotonic() + ASK_SECONDS
        if not peers:
            time.sleep(random.uniform(10, 30) if WAIT_SECONDS is None else WAIT_SECONDS)
            next_ask = 0
            continue
        peer = random.choice(peers)
        index = random.randrange(len(missing))
        number = missing[index]
        try:
            data = fetch_chunk(peer, file, number)
        except (OSError, Failure) as error:
            say("%s: dropped peer %s:%d: %s" % (file.data_path, *peer, error))
            peers.remove(peer)
            continue
        try:
            file.write_chunk(number, data)
        except OSError as error:
            say(f"{file.data_path}: cannot write chunk {number}: {error}")
            return
        missing[index] = missing[-1]  # the order is random anyway, so fill the gap
        missing.pop()                 # with the last one: no need to move the rest
    say(f"{file.data_path}: complete")


# --- Serving ---

def answer_request(request, files):
    """Return the status and the body that answer a request. A message is a line."""
    if len(request) != CHUNK_REQUEST.size:
        return BAD_REQUEST, b"The request has %d bytes.\n" % len(request)
    magic, number, cascade_hash = CHUNK_REQUEST.unpack(request)
    if magic != MAGIC:
        return BAD_REQUEST, b"The request does not begin with CASCADE1.\n"
    file = files.get(cascade_hash)
    if file is None:
        return NO_FILE, b"This peer does not have the file.\n"
    if number >= len(file.held):
        return NO_SUCH_CHUNK, b"The file has %d chunks.\n" % len(file.held)
    try:
        data = file.read_chunk(number) if file.held[number] else None
    except OSError:
        data = None
    if data is None:
        return NO_CHUNK_YET, b"This peer does not have the chunk yet.\n"
    return OK, data


def serve_request(client, files):
    """Read one request with one recv, and answer it with one write.

    Return whether the connection stays open.
    """
    request = client.recv(CHUNK_REQUEST.size)
    if not request:
        return False
    status, body = answer_request(request, files)
    client.sendall(CHUNK_RESPONSE.pack(status, len(body)) + body)
    return status in (OK, NO_CHUNK_YET)


class ClientHandler(socketserver.BaseRequestHandler):
    """Serves one client. The server closes the connection afterwards."""

    def handle(self):
        try:
            while serve_request(self.request, self.server.files):
                pass
        except OSError:
            pass  # the client is gone


class PeerServer(socketserver.ThreadingTCPServer):
    """Listens, and gives each client a thread."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, files):
        self.files = {file.cascade_hash: file for file in files}
        super().__init__(address, ClientHandler)


# --- The program ---

def parse_address(text):
    """Return HOST:PORT as an IPv4 address and a number."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    try:
        return socket.gethostbyname(host), int(port)
    except (OSError, UnicodeError) as error:
        raise argparse.ArgumentTypeError(f"{host}: {error}")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Fetch and serve files.")
    parser.add_argument("files", metavar="FILE[:FILE...]", help="the metafiles")
    parser.add_argument("tracker", metavar="TRACKER:PORT", type=parse_address)
    parser.add_argument("me", metavar="SELF:PORT", type=parse_address,
                        help="where to listen; port 0 is any free port")
    parser.add_argument("-o", dest="outputs", metavar="OUT[:OUT...]",
                        help="the data files (default: FILE without .cascade)")
    parser.add_argument("-r", dest="restart", metavar="1", type=int, default=0,
                        help="empty the data files and fetch everything anew")
    parser.add_argument("-c", dest="client_only", metavar="1", type=int, default=0,
                        help="serve nobody, and exit when everything is complete")
    arguments = parser.parse_args()
    arguments.files = arguments.files.split(":")
    for path in arguments.files:
        if not path.endswith(".cascade"):
            parser.error(f"{path} does not end in .cascade")
    if arguments.outputs is None:
        arguments.outputs = [path[:-len(".cascade")] for path in arguments.files]
    else:
        arguments.outputs = arguments.outputs.split(":")
    if len(arguments.outputs) != len(arguments.files):
        parser.error("there must be as many OUT as FILE")
    paths = [os.path.realpath(path) for path in arguments.files + arguments.outputs]
    if len(set(paths)) != len(paths):
        parser.error("a file is named twice")
    return arguments


def prepare_files(arguments):
    """Return the files, all of them parsed before the first is touched."""
    files = [SharedFile(*paths) for paths in zip(arguments.files, arguments.outputs)]
    for file in files:
        file.prepare(arguments.restart)
    return files


def start_fetching(files, tracker, me):
    """Start a thread for each file that is incomplete, and return the threads."""
    threads = [threading.Thread(target=fetch_file, args=(file, tracker, me), daemon=True)
               for file in files if file.missing()]
    for thread in threads:
        thread.start()
    return threads


def run_client(files, tracker, me):
    """Fetch everything, serve nobody. Return the exit status."""
    for thread in start_fetching(files, tracker, me):
        thread.join()
    return 1 if any(file.missing() for file in files) else 0


def run_server(files, tracker, me):
    """Fetch and serve until killed."""
    server = PeerServer(me, files)
    me = server.server_address  # with the real port, if any free one was asked for
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening on %s:%d" % me, flush=True)
    subscribe(files, tracker, me)
    start_fetching(files, tracker, me)
    while True:
        time.sleep(SUBSCRIBE_SECONDS)
        subscribe(files, tracker, me)


def stop_on_signals(status):
    """End at once at SIGTERM or SIGINT.

    No thread need be asked: a chunk that is half written does not match its
    hash, so the next start fetches it again.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(status))


def main():
    arguments = parse_arguments()
    stop_on_signals(1 if arguments.client_only else 0)
    run = run_client if arguments.client_only else run_server
    try:
        files = prepare_files(arguments)
        sys.exit(run(files, arguments.tracker, arguments.me))
    except (OSError, Failure) as error:
        sys.exit(f"peer.py: {error}")


if __name__ == "__main__":
    main()
