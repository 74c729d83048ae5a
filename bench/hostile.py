#!/usr/bin/env python3
"""A peer that seems to hold a file and is of no use: it lies, or it drips.

    hostile.py lies|drips FILE METAFILE TRACKER_IP TRACKER_PORT MY_IP MY_PORT

One that lies sends chunks of zeros. One that drips sends each client one good
chunk, and then a byte each 0.3 s.
"""

import hashlib
import socket
import socketserver
import struct
import sys
import time
from pathlib import Path

REQUEST = struct.Struct(">8s16xQ32s")
RESPONSE = struct.Struct(">BQ")
SUBSCRIPTION = struct.Struct(">4sIII32s4sH")
DRIP_SECONDS = 0.3


class Client(socketserver.BaseRequestHandler):
    def handle(self):
        answered = 0
        while len(request := self.request.recv(REQUEST.size, socket.MSG_WAITALL)) == REQUEST.size:
            chunk = self.server.chunk(REQUEST.unpack(request)[1])
            if self.server.way == "lies":
                chunk = bytes(len(chunk))
            self.request.sendall(RESPONSE.pack(0, len(chunk)))
            if self.server.way == "drips" and answered > 0:
                for byte in chunk:
                    time.sleep(DRIP_SECONDS)
                    self.request.sendall(bytes([byte]))
            self.request.sendall(chunk)
            answered += 1


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def __init__(self, address, way, file, chunk_size):
        super().__init__(address, Client)
        self.way, self.file, self.chunk_size = way, file, chunk_size

    def chunk(self, number):
        with open(self.file, "rb") as file:
            file.seek(number * self.chunk_size)
            return file.read(self.chunk_size)

    def handle_error(self, *_):
        """Clients leave; that is what this is for."""


def main():
    way, file, metafile, tracker, tracker_port, ip, port = sys.argv[1:]
    described = Path(metafile).read_bytes()
    server = Server((ip, int(port)), way, file, int.from_bytes(described[24:32], "big"))
    with socket.create_connection((tracker, int(tracker_port))) as connection:
        connection.sendall(SUBSCRIPTION.pack(b"CASC", 1, 2, 38, hashlib.sha256(described).digest(),
                                             socket.inet_aton(ip), int(port)))
        connection.recv(1)
    server.serve_forever()


if __name__ == "__main__":
    main()
