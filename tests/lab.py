"""cascade-push brings a file to many machines, each a network namespace with an sshd of
its own. Needs root, ip, unshare and sshd: "make lab".

What a host has beside the network of its own is a file system in memory, for what it
receives.
"""

import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from support import PROGRAMS, Case, random_bytes, wait_until

PUSH = PROGRAMS / "cascade-push"
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
KIB = 1024

SSHD_CONFIG = """\
ListenAddress {address}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
PasswordAuthentication no
LogLevel QUIET
SetEnv TMPDIR={disk}/tmp SHLVL=1
"""  # SHLVL: so bash, if it is root's shell, does not read what root has in .bashrc


def run(*command, check=True, text=None):
    return subprocess.run([str(word) for word in command], check=check, input=text, capture_output=True, text=True,
                          timeout=30)


def ip(namespace, *commands):
    """Run these commands of ip there: one process for all of them."""
    run("ip", "-n", namespace, "-batch", "-", text="\n".join(commands))


class Host:
    """A machine: a network namespace on the bridge, with sshd; not started if it is down."""

    def __init__(self, lab, number, kib=64 * KIB, up=True):
        self.lab, self.address = lab, f"10.77.0.{number + 10}"
        self.namespace = f"{lab.name}-{number}"
        self.disk = lab.scratch / "disk"
        lab.add_namespace(self.namespace, self.address, f"h{number}")
        self.process = None
        if not up:
            return
        config = lab.scratch / f"{number}.sshd"
        config.write_text(SSHD_CONFIG.format(address=self.address, keys=lab.scratch, disk=self.disk))
        script = (f"mount -t tmpfs -o size={kib}k none {self.disk} && mkdir {self.disk}/tmp && echo ready && "
                  f"exec {SSHD} -D -e -f {config}")
        self.process = subprocess.Popen(["ip", "netns", "exec", self.namespace, "sh", "-c", script],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
        lab.addCleanup(self.close)
        assert self.process.stdout.readline() == b"ready\n"

    def path(self, name):
        """A file of the host, seen from here."""
        return Path(f"/proc/{self.process.pid}/root{self.disk}/{name}")

    def left(self):
        """What it has in its folder for temporary files."""
        return os.listdir(self.path("tmp"))

    def pids(self):
        """The processes in its namespace."""
        there = os.stat(f"/run/netns/{self.namespace}").st_ino
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino == there:
                    yield int(pid)
            except OSError:
                pass  # it has ended

    def processes(self):
        """The programs that run there, but for sshd."""
        names = []
        for pid in self.pids():
            try:
                names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            except OSError:
                pass
        return [name for name in names if name != "sshd"]

    def close(self):
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.process.stdout.close()


class Lab(Case):
    """Some hosts, and a machine to push from: all on one bridge, out of anybody's sight."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can make network namespaces")
        for tool in ("ip", "ssh", "ssh-keygen", "tar"):
            if shutil.which(tool) is None:
                self.skipTest(f"no {tool}")
        if not os.path.exists(SSHD):
            self.skipTest("no sshd")
        self.name = f"push{os.getpid()}"
        self.scratch.chmod(0o755)
        (self.scratch / "disk").mkdir()
        if run("ip", "netns", "add", self.name, check=False).returncode != 0:
            self.skipTest("network namespaces can't be made")
        self.addCleanup(run, "ip", "netns", "del", self.name, check=False)
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        ip(self.name, "link set lo up", "link add bridge type bridge", "addr add 10.77.0.1/24 dev bridge",
           "link set bridge up")
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.scratch / key)
        (self.scratch / "known").touch()
        self.ssh = (f"ssh -F none -i {self.scratch}/user -l root -o UserKnownHostsFile={self.scratch}/known "
                    f"-o StrictHostKeyChecking=no -o ConnectTimeout=4 -o LogLevel=ERROR")
        self.data = random_bytes(8 << 20, "film")
        self.film = self.scratch / "film"
        self.film.write_bytes(self.data)
        self.count = 0

    def here(self, *command):
        return run("ip", "netns", "exec", self.name, *command)

    def add_namespace(self, name, address, link):
        run("ip", "netns", "add", name)
        self.addCleanup(run, "ip", "netns", "del", name, check=False)
        ip(self.name, f"link add {link} type veth peer name eth0 netns {name}", f"link set {link} master bridge up")
        ip(name, f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up")

    def add_host(self, **how):
        self.count += 1
        return Host(self, self.count, **how)

    def start_push(self, hosts, *options):
        """Start cascade-push, from a machine with nothing else in its folder for temporary files."""
        self.temporary = self.scratch / "tmp"
        self.temporary.mkdir(exist_ok=True)
        return self.start(["ip", "netns", "exec", self.name, PUSH, "--ssh", self.ssh, "--to", self.scratch / "disk/film",
                           *options, self.film, *(host.address for host in hosts)],
                          env={"TMPDIR": str(self.temporary)})

    def assert_nothing_left(self, *hosts):
        for host in hosts:
            wait_until(lambda: not host.processes(), f"nothing runs on {host.address}")
            self.assertEqual(host.left(), [])
        wait_until(lambda: not os.listdir(self.temporary), "nothing is left here")


class Push(Lab):
    def test_sixteen_hosts_of_which_three_are_broken(self):
        hosts = [self.add_host() for _ in range(13)]
        down = self.add_host(up=False)
        full = self.add_host(kib=2 * KIB)
        taken = self.add_host()
        taken.path("film").write_bytes(b"somebody else's" * 1000)
        push = self.start_push([*hosts, down, full, taken])
        self.assertEqual(push.wait(150), 1, push.stderr)
        for host in hosts:
            self.assert_same(host.path("film"), self.data)
            self.assertIn(f"\n{host.address}: has it\n", "\n" + push.stdout)
        self.assertRegex(push.stdout, rf"(?m)^{down.address}: failed: ssh: connect to host .*")
        self.assertRegex(push.stdout, rf"(?m)^{full.address}: failed: .*(No space left on device|tar: )")
        self.assertRegex(push.stdout, rf"(?m)^{taken.address}: failed: .*film")
        self.assertTrue(push.stdout.endswith("\n13 of 16 hosts have film\n"))
        self.assert_same(taken.path("film"), b"somebody else's" * 1000)
        self.assert_nothing_left(*hosts, full, taken)

    def test_the_hosts_share_among_themselves(self):
        hosts = [self.add_host() for _ in range(4)]
        self.film.write_bytes(random_bytes(32 << 20, "long"))
        self.here("tc", "qdisc", "add", "dev", "bridge", "root", "tbf", "rate", "40mbit", "burst", "64kb",
                  "latency", "50ms")  # what leaves this machine; the hosts are not held back
        before = self.sent()
        push = self.start_push(hosts)
        self.assertEqual(push.wait(150), 0, push.stderr + push.stdout)
        self.assertLess(self.sent() - before, 3 * (32 << 20))

    def sent(self):
        words = self.here("ip", "-s", "link", "show", "bridge").stdout.split("TX:")[1].split("\n")[1].split()
        return int(words[0])

    def test_where_it_is_to_lie(self):
        host = self.add_host()
        self.assertEqual(self.start_push([host], "--to", f"{host.disk}/new/folder/").wait(), 0)
        self.assert_same(host.path("new/folder/film"), self.data)
        self.assert_nothing_left(host)
        listed = self.scratch / "list"
        listed.write_text(f"# all of them\n  {host.address}  # the only one\n\n{host.address}\n")
        push = self.start_push([], "--hosts", listed, "--to", f"{host.disk}/a b'c")
        self.assertEqual(push.wait(), 0, push.stderr)
        self.assertEqual(push.stdout, f"{host.address}: has it\n1 of 1 hosts have film\n")
        self.assert_same(host.path("a b'c"), self.data)

    def test_a_second_run_goes_on_where_the_first_ended(self):
        host = self.add_host()
        host.path("film").write_bytes(self.data[:5 << 20] + bytes(3 << 20))
        push = self.start_push([host], "--quiet")
        self.assertEqual(push.wait(), 0)
        self.assertEqual(push.stdout + push.stderr, "")
        self.assert_same(host.path("film"), self.data)


class Ends(Lab):
    def setUp(self):
        super().setUp()
        self.hosts = [self.add_host() for _ in range(2)]
        self.here("tc", "qdisc", "add", "dev", "bridge", "root", "tbf", "rate", "8mbit", "burst", "16kb",
                  "latency", "50ms")

    def start_and_wait(self):
        push = self.start_push(self.hosts)
        wait_until(lambda: all("cascade" in host.processes() for host in self.hosts) or push.has_ended(),
                   "it is downloaded")
        self.assertFalse(push.has_ended(), push.stderr)
        return push

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(signal=number):
                push = self.start_and_wait()
                os.kill(push.pid, number)
                self.assertEqual(push.wait(), 5, push.stderr)
                self.assertEqual(push.stdout.count("failed: interrupted"), 2, push.stdout)
                self.assert_nothing_left(*self.hosts)

    def test_killed(self):
        push = self.start_and_wait()
        push.signal(signal.SIGKILL)
        push.wait()
        self.assert_nothing_left(*self.hosts)

    def test_ssh_breaks(self):
        push = self.start_and_wait()
        os.kill(self.ssh_to(self.hosts[0], push), signal.SIGKILL)
        self.assert_host_is_clean(self.hosts[0])
        self.assertEqual(push.wait(150), 1, push.stderr)
        self.assertRegex(push.stdout, rf"(?m)^{self.hosts[0].address}: failed: ")
        self.assertIn(f"{self.hosts[1].address}: has it", push.stdout)
        self.assert_nothing_left(*self.hosts)

    def ssh_to(self, host, push):
        for process in push.family():
            try:
                words = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if words[0] == b"ssh" and host.address.encode() in words:
                return process.pid
        raise AssertionError(f"no ssh to {host.address}")

    def assert_host_is_clean(self, host):
        wait_until(lambda: not host.processes() and not host.left(), f"{host.address} is clean")


if __name__ == "__main__":
    unittest.main()
