"""cascade-push: many machines, each a network namespace with an sshd of its own.

That needs root, ip, unshare and sshd. What a host has beside the network of its own is
a file system in memory, for what it receives.
"""

import os
import re
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from support import PROGRAMS, Case, Program, pause, random_bytes, wait_until

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


def run(*command, check=True):
    return subprocess.run([str(word) for word in command], check=check, capture_output=True, text=True, timeout=30)


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

    def processes(self):
        """The programs that run there, but for sshd."""
        pids = run("ip", "netns", "pids", self.namespace).stdout.split()
        names = []
        for pid in pids:
            try:
                names.append(Path(f"/proc/{pid}/comm").read_text().strip())
            except OSError:
                pass  # it has ended
        return [name for name in names if name != "sshd"]

    def close(self):
        for pid in run("ip", "netns", "pids", self.namespace, check=False).stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
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
        self.here("ip", "link", "set", "lo", "up")
        self.here("ip", "link", "add", "bridge", "type", "bridge")
        self.here("ip", "addr", "add", "10.77.0.1/24", "dev", "bridge")
        self.here("ip", "link", "set", "bridge", "up")
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
        self.here("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        self.here("ip", "link", "set", link, "master", "bridge", "up")
        inside = ("ip", "-n", name)
        run(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "link", "set", "lo", "up")

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
            wait_until(lambda: not host.processes(), f"nothing runs on {host.address}: {host.processes()}")
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
        self.assertEqual(push.wait(50), 1, push.stderr)
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
        self.assertEqual(push.wait(50), 0, push.stderr + push.stdout)
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
        self.assertEqual(push.wait(50), 1, push.stderr)
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


class Local(Case):
    """What stands for ssh runs the command here, in the folder "host"."""

    def setUp(self):
        super().setUp()
        (self.scratch / "film").write_bytes(random_bytes(1 << 20, "film"))
        self.host, self.temporary = self.scratch / "host", self.scratch / "tmp"
        self.host.mkdir()
        self.temporary.mkdir()
        (self.scratch / "bin").mkdir()

    def make_tool(self, name, text):
        path = self.scratch / "bin" / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return path

    def start_push(self, *, probe="exec sh -c", copy="exec sh -c", run="exec sh -c"):
        """What the host does with the command that asks what it is, that copies the program, and that runs it."""
        ssh = self.make_tool("local-ssh", f"""\
            export SSH_CONNECTION='127.0.0.1 1 127.0.0.1 22' TMPDIR={self.host}
            cd {self.host}
            case $2 in
            *'tar xf'*) {copy} "$2" ;;
            *'/run'*) {run} "$2" ;;
            *) {probe} "$2" ;;
            esac
            """)
        return self.start([PUSH, "--ssh", ssh, "film", "host"],
                          env={"TMPDIR": str(self.temporary), "PATH": f"{self.scratch / 'bin'}:{os.environ['PATH']}"})

    def wait_for_state(self, push, word):
        path = self.temporary / f"cascade-push.{push.pid}" / "1.state"
        wait_until(lambda: push.has_ended() or path.exists() and path.read_text().startswith(word), f"it is {word}")

    def assert_nothing_left(self, push):
        wait_until(lambda: not push.family(), "no process is left")
        wait_until(lambda: not os.listdir(self.temporary), "nothing is left here")
        self.assertEqual([name for name in os.listdir(self.host) if name != "film"], [])

    def assert_interrupted(self, push, why):
        self.assertEqual(push.wait(), 5, push.stderr)
        self.assertEqual(push.stdout, f"host: failed: {why}\n0 of 1 hosts have film\n")
        self.assertNotIn("cannot", push.stderr)
        self.assert_nothing_left(push)

    def test_it_comes(self):
        push = self.start_push()
        self.assertEqual(push.wait(), 0, push.stderr)
        self.assert_same(self.host / "film", (self.scratch / "film").read_bytes())
        self.assert_nothing_left(push)

    def test_every_awk(self):
        """What fails is shown, too: its reason is no number."""
        for words in (["mawk"], ["gawk"], ["original-awk"], ["busybox", "awk"]):
            if shutil.which(words[0]) is None:
                continue
            with self.subTest(awk=words[0]):
                self.make_tool("awk", f"""exec {" ".join(words)} "$@"\n""")
                push = self.start_push(copy="echo this is a reason >&2; exit 1; :")
                self.assertEqual(push.wait(), 1, push.stderr)
                self.assertRegex(push.stderr, r"\A.* making its metafile\n(host: (connecting|copying)\n)*"
                                              r"host: failed  this is a reason\n\Z")
                self.assertEqual(push.stdout, "host: failed: this is a reason\n0 of 1 hosts have film\n")

    def test_interrupted_from_the_terminal(self):
        """Then every process in the foreground gets the signal, also awk, whose result is waited for."""
        looking = self.scratch / "looking"
        self.make_tool("awk", f"""\
            case "$*" in
            *started=*) : >{looking}; sleep 1; rm -f {looking} ;;
            esac
            exec {shutil.which("awk")} "$@"
            """)
        push = self.start_push(run="""\
            printf 'state=downloading\nbytes=1\nlength=9\n\n'; cat >/dev/null; rm -r cascade-push.*; exit 5; :""")
        self.wait_for_state(push, "downloading")
        wait_until(looking.exists, "it looks")
        os.killpg(push.pid, signal.SIGINT)
        self.assert_interrupted(push, "interrupted")

    def test_interrupted_while_its_metafile_is_made(self):
        (self.scratch / "film").unlink()
        with open(self.scratch / "film", "wb") as film:
            film.truncate(1 << 40)
        push = self.start_push()
        wait_until(lambda: list(self.temporary.glob("*/kit/*")), "it is being made")
        push.signal(signal.SIGTERM)
        self.assertEqual(push.wait(), 5, push.stderr)
        self.assert_nothing_left(push)

    def test_interrupted_while_the_host_does_not_answer(self):
        push = self.start_push(probe="exec sleep 60; :")
        self.wait_for_state(push, "connecting")
        push.signal(signal.SIGTERM)
        self.assertEqual(push.wait(10), 5, push.stderr)
        self.assertEqual(push.stdout, "host: failed: interrupted\n0 of 1 hosts have film\n")

    def test_interrupted_when_all_is_copied(self):
        """What is to be killed has ended just before."""
        push = self.start_push(copy="trap 'exit 0' TERM; : >copied; while :; do sleep 0.1; done; :")
        wait_until((self.host / "copied").exists, "it is copied")
        (self.host / "copied").unlink()
        push.signal(signal.SIGTERM)
        self.assertEqual(push.wait(), 5, push.stderr)
        self.assert_nothing_left(push)

    def test_killed_while_it_is_copied(self):
        push = self.start_push(copy="""\
            sh -c "$2"; : >copied; until [ -e let_go ]; do sleep 0.1; done; rm let_go; :""")
        wait_until((self.host / "copied").exists, "it is copied")
        (self.host / "copied").unlink()
        push.signal(signal.SIGKILL)
        push.wait()
        wait_until(lambda: not os.listdir(self.temporary), "nothing is left here")
        (self.host / "let_go").touch()
        self.assert_nothing_left(push)


class States(Case):
    def test_a_state_that_is_just_being_written_ends_nothing(self):
        (self.scratch / "film").write_bytes(b"x")
        ssh, end = self.scratch / "ssh", self.scratch / "end"
        ssh.write_text(f"#!/bin/sh\nuntil [ -e {end} ]; do sleep 0.1; done\n")
        ssh.chmod(0o755)
        push = self.start([PUSH, "--ssh", ssh, "film", "host"], env={"TMPDIR": str(self.scratch)})
        folder = self.scratch / f"cascade-push.{push.pid}"
        shown = folder / "shown"

        def looks():
            return shown.exists() and shown.read_text().startswith("1\tconnecting") and shown.stat().st_mtime_ns

        wait_until(looks, "the host's state is shown")
        (folder / "1.state").write_text("")
        for _ in range(2):
            before = looks()
            wait_until(lambda: push.has_ended() or looks() != before, "it looks again")
        self.assertFalse(push.has_ended(), push.stdout)
        (folder / "1.state").write_text("failed gone\n")
        self.assertEqual(push.wait(), 1)
        self.assertIn("host: failed: gone\n", push.stdout)
        end.touch()


class Usage(Case):
    def test_misuse(self):
        for arguments in ((), ("film",), ("--jobs", "x", "film", "host"), ("--jobs", "0", "film", "host"),
                          ("--port", "65535", "film", "host"), ("--port", "0808", "film", "host"),
                          ("--no-such", "film", "host"), ("film", "host", "--to"),
                          ("--address", "host", "film", "host")):
            with self.subTest(arguments=arguments):
                (self.scratch / "film").write_bytes(b"x")
                self.assert_misuse(self.start([PUSH, *arguments]))

    def test_what_cannot_be_pushed(self):
        for name in ("absent", "."):
            with self.subTest(name=name):
                push = self.start([PUSH, name, "host"])
                self.assertEqual(push.wait(), 1)
                self.assert_one_sentence(push, name)

    def test_help_and_version(self):
        push = self.start([PUSH, "--help"])
        self.assertEqual(push.wait(), 0)
        self.assertTrue(push.stdout.startswith("usage: cascade-push"))
        push = self.start([PUSH, "-V"])
        self.assertEqual(push.wait(), 0)
        self.assertRegex(push.stdout, r"^cascade-push \d")

    def test_a_host_that_looks_like_an_option(self):
        (self.scratch / "list").write_text("-oProxyCommand=touch evil\n")
        (self.scratch / "film").write_bytes(b"x")
        push = self.start([PUSH, "film", "--hosts", "list"])
        self.assertEqual(push.wait(), 1)
        self.assertFalse((self.scratch / "evil").exists())

    def test_its_syntax(self):
        for shell in ("sh", "dash", "bash"):
            if shutil.which(shell):
                self.assertEqual(subprocess.run([shell, "-n", PUSH]).returncode, 0)
        if shutil.which("shellcheck") is None:
            self.skipTest("no shellcheck")
        checked = subprocess.run(["shellcheck", "-s", "sh", PUSH], capture_output=True, text=True)
        self.assertEqual(checked.stdout, "")


if __name__ == "__main__":
    unittest.main()
