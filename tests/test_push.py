"""cascade-push without ssh: what stands for it runs the command on this machine.

What needs machines of its own is in lab.py.
"""

import os
import shutil
import signal
import subprocess
import unittest

from support import PROGRAMS, Case, random_bytes, wait_until

PUSH = PROGRAMS / "cascade-push"


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
