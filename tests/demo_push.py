#!/usr/bin/env python3
"""cascade-push, shown: 16 machines, each a network namespace with an sshd of its own,
three of them broken. Needs root, ip, unshare and sshd. Run by "make demo-push"."""

import shlex
import subprocess
import unittest

from lab import PUSH, Lab
from support import random_bytes


class Demo(Lab):
    def runTest(self):
        hosts = [self.add_host() for _ in range(13)]
        hosts.append(self.add_host(up=False))
        hosts.append(self.add_host(kib=4096))
        hosts.append(self.add_host())
        hosts[-1].path("film").write_bytes(b"somebody else's")
        self.film.write_bytes(random_bytes(32 << 20, "demo"))
        command = [PUSH, "--ssh", self.ssh, "--to", self.scratch / "disk/film", self.film,
                   *(host.address for host in hosts)]
        print("16 machines. One is off, one has a small disk, one has another file of that name.\n\n$",
              shlex.join(map(str, command)), flush=True)
        subprocess.run(["ip", "netns", "exec", self.name, *command])
        print("\nIs it the same file?")
        for host in hosts[:13]:
            self.assertEqual(host.path("film").read_bytes(), self.film.read_bytes())
        print("On all 13, byte for byte.")


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=0).run(Demo())
    for _, reason in result.skipped:
        print(reason)
