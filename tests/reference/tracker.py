#!/usr/bin/env python3
"""A Cascade tracker: tells peers which other peers are active.

A client sends one request of 54 bytes, gets one response, and the connection
is closed. The header and the body of a request are read with one recv each,
so a client must send the whole request in one write. Each client has a thread
of its own; all of them share one table of peers.
"""

import argparse
import ipaddress
import json
import os
import random
import signal
import socket
import socketserver
import struct
import sys
import threading
import time

REQUEST_HEADER = struct.Struct(">4sIII")  # magic, version, command, length of the body
REQUEST_BODY = struct.Struct(">32s4sH")   # cascade hash, address, port
RESPONSE_HEADER = struct.Struct(">BI")    # status, length of what follows
ENTRY = struct.Struct(">4sHIBx")          # address, port, last seen, good peer

MAGIC = b"CASC"
HASH_SIZE = 32
VERSION = 1
LIST_PEERS, SUBSCRIBE = 1, 2
STATUS_OK, STATUS_ERROR = 0, 1

MOST_ENTRIES = 20       # the most peers in one response
MAX_AGE_SECONDS = 1800  # a peer not seen for longer is forgotten
CLIENT_SECONDS = 10     # a client that is silent for longer is left


class Refused(Exception):
    """The request is refused. The text goes to the client."""


class Config:
    """What the config file says."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
        self.address = config.get("address", "0.0.0.0")
        self.port = config["port"]
        self.allowed_hashes = {bytes.fromhex(text) for text in config["allowedhashes"]}
        if any(len(cascade_hash) != HASH_SIZE for cascade_hash in self.allowed_hashes):
            raise ValueError(f"a hash has {2 * HASH_SIZE} hexadecimal digits")
        self.good_addresses = {socket.inet_aton(text) for text in config["good-ips"]}
        self.ban_private = config["ban-private"]


class PeerTable:
    """Which peers have which file, and when each was last seen."""

    def __init__(self):
        self.lock = threading.Lock()
        self.files = {}  # cascade hash -> {(address, port): last seen}

    def enrol(self, cascade_hash, peer):
        """Note that peer was seen now."""
        with self.lock:
            self.files.setdefault(cascade_hash, {})[peer] = int(time.time())

    def active(self, cascade_hash):
        """Return {peer: last seen} for one file, and forget the old entries."""
        oldest = time.time() - MAX_AGE_SECONDS
        with self.lock:
            peers = self.files.get(cascade_hash, {})
            fresh = {peer: seen for peer, seen in peers.items() if seen >= oldest}
            self.files[cascade_hash] = fresh
            return dict(fresh)


def receive(client, size, what):
    """Read size bytes with one recv. Fewer than that is an error."""
    data = client.recv(size)
    if len(data) != size:
        raise Refused(f"The {what} came as {len(data)} bytes, not {size}. "
                      "Send the request in one write.")
    return data


def receive_request(client):
    """Return a request's command, cascade hash, address and port."""
    header = receive(client, REQUEST_HEADER.size, "header")
    magic, version, command, length = REQUEST_HEADER.unpack(header)
    if magic != MAGIC:
        raise Refused("The request does not begin with CASC.")
    if version != VERSION:
        raise Refused(f"The protocol version is {version}, not {VERSION}.")
    if command not in (LIST_PEERS, SUBSCRIBE):
        raise Refused(f"There is no command {command}.")
    if length != REQUEST_BODY.size:
        raise Refused(f"The length is {length}, not {REQUEST_BODY.size}.")
    body = receive(client, REQUEST_BODY.size, "body")
    return (command, *REQUEST_BODY.unpack(body))


def check_request(config, command, cascade_hash, address, source_address):
    """Refuse what the config does not allow.

    The address in the request is believed. Only an address on the good list
    must be the one that the connection comes from when it subscribes, or
    anyone could call himself good.
    """
    text = socket.inet_ntoa(address)
    if cascade_hash not in config.allowed_hashes:
        raise Refused(f"This tracker does not know the hash {cascade_hash.hex()}.")
    if config.ban_private and ipaddress.ip_address(text).is_private:
        raise Refused(f"The address {text} is private.")
    if (command == SUBSCRIBE and address in config.good_addresses
            and address != source_address):
        raise Refused(f"The address {text} may subscribe only from itself.")


def list_entries(config, table, cascade_hash, requester):
    """Return the entries of the peers to name: good ones first, else shuffled."""
    peers = table.active(cascade_hash)
    peers.pop(requester, None)
    chosen = list(peers)
    random.shuffle(chosen)
    chosen.sort(key=lambda peer: peer[0] not in config.good_addresses)
    return b"".join(
        ENTRY.pack(address, port, peers[address, port], address in config.good_addresses)
        for address, port in chosen[:MOST_ENTRIES])


def answer_client(client, source, config, table):
    """Read one request and send its response, header and list in one write."""
    try:
        command, cascade_hash, address, port = receive_request(client)
        check_request(config, command, cascade_hash, address, socket.inet_aton(source))
        if command == SUBSCRIBE:
            table.enrol(cascade_hash, (address, port))
        status, body = STATUS_OK, list_entries(config, table, cascade_hash, (address, port))
    except Refused as refusal:
        status, body = STATUS_ERROR, f"{refusal}\n".encode()
    client.sendall(RESPONSE_HEADER.pack(status, len(body)) + body)


class ClientHandler(socketserver.BaseRequestHandler):
    """Answers one client. The server closes the connection afterwards."""

    def handle(self):
        self.request.settimeout(CLIENT_SECONDS)
        try:
            answer_client(self.request, self.client_address[0],
                          self.server.config, self.server.table)
        except OSError:
            pass  # the client is gone or silent: nobody is left to tell


class TrackerServer(socketserver.ThreadingTCPServer):
    """Listens, and gives each client a thread."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, config):
        self.config = config
        self.table = PeerTable()
        super().__init__((config.address, config.port), ClientHandler)


def stop(signal_number, frame):
    """End at once. There is nothing to tidy up, and threads need not be asked."""
    os._exit(0)


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    parser = argparse.ArgumentParser(description="Tell Cascade peers about each other.")
    parser.add_argument("config", metavar="config.json")
    path = parser.parse_args().config
    try:
        server = TrackerServer(Config(path))
    except KeyError as error:
        sys.exit(f"tracker.py: {path}: the key {error} is missing")
    except (OSError, OverflowError, TypeError, ValueError) as error:
        sys.exit(f"tracker.py: {path}: {error}")
    print("listening on %s:%d" % server.server_address, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
