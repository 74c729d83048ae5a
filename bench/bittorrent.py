"""As much of BitTorrent as its programs ask for before they talk to each other:
a .torrent file, and a tracker.

    bittorrent.py IP PORT     a tracker that names everybody to everybody
"""

import hashlib
import http.server
import socket
import struct
import sys
import threading
import urllib.parse


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def describe(path, piece_size):
    """Return what a .torrent says of a file. It is private: peers come from the
    tracker alone."""
    hashes = b""
    with open(path, "rb") as file:
        while piece := file.read(piece_size):
            hashes += hashlib.sha1(piece).digest()
        length = file.tell()
    return {"length": length, "name": path.name, "piece length": piece_size,
            "pieces": hashes, "private": 1}


class Tracker(http.server.ThreadingHTTPServer):
    """A tracker in a thread. Each swarm has its own path, so that no program
    meets another one. Who fetches learns who seeds, and nobody else of anybody."""

    daemon_threads = True

    def __init__(self, address, port=0, names_all=False):
        super().__init__((address, port), Announcement)
        self.names_all = names_all
        self.interval = 2 if names_all else 1800
        self.named = {}  # of each swarm, as (IP, port)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def torrent(self, swarm, description):
        """Return a .torrent for a swarm."""
        address, port = self.server_address
        return bencode({"announce": f"http://{address}:{port}/{swarm}", "info": description})


class Announcement(http.server.BaseHTTPRequestHandler):
    """What one peer says of itself, and the answer."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        said = urllib.parse.parse_qs(query, encoding="latin1")
        complete = said["left"] == ["0"]
        named = self.server.named.setdefault(path[1:], set())
        peers = b"" if complete else b"".join(
            socket.inet_aton(ip) + struct.pack(">H", port) for ip, port in named)
        if self.server.names_all or (complete and said.get("event") == ["started"]):
            named.add((self.client_address[0], int(said["port"][0])))
        body = bencode({"interval": self.server.interval, "peers": peers})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    Tracker(sys.argv[1], int(sys.argv[2]), names_all=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
