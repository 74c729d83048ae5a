"""Those who take part in bench.py: what each is called, the command that is
measured, and the servers that it needs.

Each function here starts a contestant's servers and returns the contestant. All
servers have the one data file at hand, and everybody puts his copy into the
same directory, which is emptied before each run.
"""

import json
import os
import shutil
import signal
import socket
import sys

from bittorrent import Tracker, describe
from common import HERE, MIB, ROOT, Failure, run, write_random
from measure import Contestant
from support import LOOPBACK, Program, wait_until

FETCH_FLOOR = HERE.parent / "build" / "bench" / "fetch_floor"
REFERENCE = ROOT / "tests" / "reference"
PIECE_SIZE = MIB    # of BitTorrent
START_SECONDS = 120  # a seeder may hash the file first

FINISHED = "the download is finished"

PACKAGES = {"aria2c": "aria2", "curl": "curl", "nginx": "nginx-light", "openssl": "openssl",
            "rsync": "rsync", "transmission-cli": "transmission-cli"}


class Missing(Exception):
    """A program isn't there, or something else that this contestant needs."""


def tool(name):
    """Return a program's path."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"{name} isn't installed")
    return path


class Site:
    """The data file, the directories around it, and what was started for all."""

    def __init__(self, scratch, size, chunk_size, bittorrent_address):
        self.scratch, self.size, self.chunk_size = scratch, size, chunk_size
        self.bittorrent_address = bittorrent_address
        self.seed, self.out = scratch / "seed", scratch / "out"
        self.seed.mkdir()
        self.data, self.copy = self.seed / "data", self.out / "data"
        write_random(self.data, size)
        self.programs, self.made = [], {}

    def once(self, make, *arguments):
        """Return what make returns, and call it only once for all contestants."""
        key = (make, *arguments)
        if key not in self.made:
            self.made[key] = make(self, *arguments)
        return self.made[key]

    def empty(self):
        """Remove what the last contestant has left."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def start(self, *command):
        program = Program(command)
        self.programs.append(program)
        return program

    def end(self):
        for program in self.programs:
            program.end()

    def fetching(self, label, command, servers, **options):
        """Return a contestant that fetches the file."""
        return Contestant(label, command, servers, makes=self.copy, like=self.data, **options)


def size_text(size):
    """Return a size as the programs' options take it."""
    for unit, letter in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


def bytes_text(size):
    """Return a size as people take it."""
    text = size_text(size)
    return f"{text} bytes" if text.isdecimal() else f"{text[:-1]} {text[-1]}iB"


def free_port(address):
    with socket.create_server((address, 0)) as server:
        return server.getsockname()[1]


def wait_for_port(program, port):
    """Wait until a server that doesn't tell accepts connections."""
    def accepts():
        if program.has_ended():
            raise Failure(f"{program} has ended: {program.stderr.strip()}")
        with socket.socket() as connection:
            return connection.connect_ex((LOOPBACK, port)) == 0
    wait_until(accepts, f"{program} listens")


# --- Cascade, and what it is made of ---

def metafile(site, chunk_size):
    path = site.seed / f"{size_text(chunk_size)}.cascade"
    run(ROOT / "mkcascade", "-b", chunk_size, "-o", path, site.data)
    return path


def seeder(site, chunk_size):
    program = site.start(ROOT / "cascade", "-o", site.data, site.once(metafile, chunk_size), "-", LOOPBACK, 0)
    program.says("complete")
    return program


def cascade(site, chunk_size=None):
    chunk_size = chunk_size or site.chunk_size
    server = site.once(seeder, chunk_size)
    ip, port = server.address()
    return site.fetching(f"cascade, chunks of {bytes_text(chunk_size)}", [
        ROOT / "cascade", "-c", "-o", site.copy, "--peer", f"{ip}:{port}",
        site.once(metafile, chunk_size), "-", LOOPBACK, 0], [server])


def cascade_1k(site):
    return cascade(site, 1 << 10)


def cascade_1g(site):
    return cascade(site, 1 << 30)


def check(site):
    """A peer with the whole file: how long until it can serve all of it."""
    return Contestant("cascade, checking at the start", [
        ROOT / "cascade", "-o", site.data, site.once(metafile, site.chunk_size), "-", LOOPBACK, 0],
        until="complete", ending=signal.SIGTERM)


def check_client(site):
    return Contestant("cascade -c, checking what is here", [
        ROOT / "cascade", "-c", "-o", site.data, "--peer", f"{LOOPBACK}:9",
        site.once(metafile, site.chunk_size), "-", LOOPBACK, 0])


def check_aria2(site):
    return Contestant("aria2c, checking what is here", [
        *aria2c(site), "--check-integrity=true", "--hash-check-only=true", f"--dir={site.seed}",
        site.once(torrent, "aria2")])


def mkcascade(site):
    """What it makes must be what the reference makes."""
    right = site.scratch / "right.cascade"
    run(sys.executable, REFERENCE / "filegen.py", "-b", site.chunk_size, "-o", right, site.data)
    made = site.out / "data.cascade"
    return Contestant("mkcascade", [ROOT / "mkcascade", "-b", site.chunk_size, "-o", made, site.data],
                      makes=made, like=right)


# --- The floors ---

def sender(site):
    return site.start(FETCH_FLOOR, "send", 0, site.data)


def floor_receive(site):
    server = site.once(sender)
    return Contestant("receive", [FETCH_FLOOR, "receive", server.address()[1]], [server])


def floor_write(site):
    server = site.once(sender)
    return site.fetching("receive and write", [FETCH_FLOOR, "write", server.address()[1], site.copy], [server])


def floor_loop(site):
    server = site.once(sender)
    return site.fetching("receive, hash, write in turn", [
        FETCH_FLOOR, "loop", server.address()[1], site.copy, site.once(metafile, site.chunk_size)], [server])


def hash_one(site):
    return Contestant("SHA-256 of memory, one stream", [FETCH_FLOOR, "hash", site.size, "one"])


def hash_lanes(site):
    return Contestant("SHA-256 of memory, many streams", [FETCH_FLOOR, "hash", site.size, "lanes"])


def openssl(site):
    return Contestant("openssl dgst -sha256", [tool("openssl"), "dgst", "-sha256", site.data])


# --- The others ---

def torrent(site, swarm):
    """Return a .torrent of the data file, for that swarm."""
    path = site.scratch / f"{swarm}.torrent"
    path.write_bytes(site.once(bittorrent_tracker).torrent(swarm, site.once(description)))
    return path


def bittorrent_tracker(site):
    return Tracker(site.bittorrent_address or LOOPBACK)


def description(site):
    return describe(site.data, PIECE_SIZE)


def wait_for_seeder(site, swarm, program):
    seeders = site.once(bittorrent_tracker).named
    wait_until(lambda: seeders.get(swarm) or program.has_ended(), f"{program} seeds", START_SECONDS)
    if program.has_ended():
        raise Failure(f"{program} has ended: {program.stdout} {program.stderr}")


def finish_hook(site):
    """Return a program for clients that run one when they are done. They would
    go on for seconds before they exit."""
    path = site.scratch / "finish"
    if not path.exists():
        path.write_text(f"#!/bin/sh\necho {FINISHED}\n")
        path.chmod(0o700)
    return path


def aria2c(site):
    """Return the beginning of the command: no world outside, nothing from the home directory."""
    return [tool("aria2c"), "--no-conf", "--no-netrc", "--enable-dht=false", "--bt-enable-lpd=false",
            "--enable-peer-exchange=false", "--file-allocation=none", "--summary-interval=0",
            f"--listen-port={free_port(site.bittorrent_address or LOOPBACK)}"]


def aria2(site):
    path = torrent(site, "aria2")
    server = site.start(*aria2c(site), "--seed-ratio=0", "--check-integrity=true", f"--dir={site.seed}", path)
    wait_for_seeder(site, "aria2", server)
    return site.fetching("aria2c, BitTorrent", [
        *aria2c(site), "--seed-time=0", f"--on-bt-download-complete={finish_hook(site)}",
        f"--dir={site.out}", path], [server], until=FINISHED)


def new_configuration(site, directory):
    """Make a directory in which transmission remembers no torrent."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "settings.json").write_text(json.dumps({
        "bind-address-ipv4": site.bittorrent_address, "dht-enabled": False, "lpd-enabled": False,
        "pex-enabled": False, "utp-enabled": False, "port-forwarding-enabled": False,
        "rpc-enabled": False, "rename-partial-files": False, "preallocation": 0}))


def transmission_cli(site, configuration):
    return [tool("transmission-cli"), "-g", configuration, "-M", "-p", free_port(site.bittorrent_address)]


def transmission(site):
    tool("transmission-cli")
    if site.bittorrent_address is None:
        raise Missing("transmission takes no peers at 127.0.0.1, and this system gives no network of one's own")
    path = torrent(site, "transmission")
    seeding, fetching = site.scratch / "transmission-seeder", site.scratch / "transmission"
    new_configuration(site, seeding)
    server = site.start(*transmission_cli(site, seeding), "-w", site.seed, "-v", path)
    wait_for_seeder(site, "transmission", server)
    return site.fetching("transmission-cli, BitTorrent", [
        *transmission_cli(site, fetching), "-w", site.out, "-f", finish_hook(site), path], [server],
        until=FINISHED, before=lambda: new_configuration(site, fetching))


NGINX = """
worker_processes 1;
pid {0}/pid;
error_log stderr;
{1}
events {{ }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {0}/body;
    proxy_temp_path {0}/proxy;
    fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi;
    scgi_temp_path {0}/scgi;
    server {{
        listen {2}:{3};
        root {4};
    }}
}}
"""


def nginx(site):
    """Return a web server, and where it has the data file."""
    directory, port = site.scratch / "nginx", free_port(LOOPBACK)
    directory.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # who can read the scratch directory
    (directory / "conf").write_text(NGINX.format(directory, user, LOOPBACK, port, site.seed))
    server = site.start(tool("nginx"), "-e", "stderr", "-p", directory, "-c", directory / "conf",
                        "-g", "daemon off;")
    wait_for_port(server, port)
    return server, f"http://{LOOPBACK}:{port}/{site.data.name}"


def curl(site, *hasher):
    fetch, verify = tool("curl"), tool(hasher[0])
    server, url = site.once(nginx)
    return site.fetching(f"curl from nginx, then {' '.join(hasher)}", [
        "sh", "-c", f"{fetch} -q -s -f -o '{site.copy}' {url} && {verify} {' '.join(hasher[1:])} '{site.copy}'"],
        [server])


def curl_openssl(site):
    return curl(site, "openssl", "dgst", "-sha256")


def curl_sha256sum(site):
    return curl(site, "sha256sum")


def rsync(site):
    config, port = site.scratch / "rsyncd.conf", free_port(LOOPBACK)
    user = "uid = root\ngid = root\n" if os.geteuid() == 0 else ""
    config.write_text(f"use chroot = no\nreverse lookup = no\n{user}[seed]\npath = {site.seed}\n")
    server = site.start(tool("rsync"), "--daemon", "--no-detach", f"--address={LOOPBACK}", f"--port={port}",
                        f"--config={config}", f"--log-file={site.scratch / 'rsyncd.log'}")
    wait_for_port(server, port)
    return site.fetching("rsync -W from a daemon", [
        tool("rsync"), "-W", f"rsync://{LOOPBACK}:{port}/seed/{site.data.name}", site.copy], [server])


def reference(site):
    tracker = site.start(ROOT / "tracker", "-a", LOOPBACK, "-p", 0)
    where = ":".join(map(str, tracker.address()))
    peer = [sys.executable, REFERENCE / "peer.py", site.once(metafile, site.chunk_size), where, f"{LOOPBACK}:0"]
    server = site.start(*peer, "-o", site.data)
    tracker.says("is new")
    return site.fetching("the reference in Python", [*peer, "-o", site.copy, "-c", "1"], [server])


