"""What needn't be fetched: chunks of older files, and zeros. Block devices as data files.

The devices are loop devices, which need root, and Linux.
"""

import hashlib
import os
import random
import shutil
import subprocess
import unittest

from support import (LOOPBACK, PROGRAMS, Case, Peer, SharedFile, ask_peer, chunk_request, make_metafile, random_bytes,
                     wait_for_chunks)

KIB = 1024


def changed(file, *numbers):
    """The data with other bytes in these chunks."""
    data = bytearray(file.data)
    for number in numbers:
        data[number * file.chunk_size] ^= 1
    return bytes(data)


class Older(Case):
    def setUp(self):
        super().setUp()
        self.file = self.describe_file("data", 40 * 4 * KIB + 77, 4 * KIB)
        self.old = self.scratch / "old"

    def put_old(self, data):
        self.old.write_bytes(data)
        self.before = self.look()

    def look(self):
        st = self.old.stat()
        return hashlib.sha256(self.old.read_bytes()).digest(), st.st_mtime_ns, st.st_ctime_ns, st.st_size

    def assert_fetches(self, numbers, *options):
        """Only these chunks are fetched, each once, and the old file is as before."""
        peer = Peer(self, self.file)
        options = options or ("--from", self.old)
        self.fetch(self.file, *options, peers=[peer.address])
        self.assertEqual(sorted(peer.requests), sorted(numbers))
        self.assert_same(self.file.path, self.file.data)
        self.assertEqual(self.look(), self.before)

    def test_only_what_has_changed_is_fetched(self):
        self.put_old(changed(self.file, 0, 7, 8, 40))
        self.assert_fetches([0, 7, 8, 40])

    def test_an_old_file_that_is_the_same(self):
        self.put_old(self.file.data)
        self.assert_fetches([])

    def test_an_old_file_that_has_nothing(self):
        self.put_old(random_bytes(100 * KIB))
        self.assert_fetches(range(41))

    def test_an_old_file_that_is_shorter_and_one_that_is_longer(self):
        self.put_old(self.file.data[:30 * 4 * KIB - 5])
        self.assert_fetches(range(29, 41))
        self.file.path.unlink()
        self.put_old(self.file.data + b"more")
        self.assert_fetches([])

    def test_an_empty_old_file(self):
        self.put_old(b"")
        self.assert_fetches(range(41))

    def test_several_old_files(self):
        other = self.scratch / "other"
        other.write_bytes(changed(self.file, *range(20, 30)))
        self.put_old(changed(self.file, *range(5, 25)))
        self.assert_fetches(range(20, 25), "--from", self.old, "--from", other)

    def test_what_the_data_file_has_is_kept(self):
        self.file.path.write_bytes(self.file.without(1, 2, 3))
        self.put_old(changed(self.file, 2, 9))
        self.assert_fetches([2])

    def test_an_old_file_that_may_only_be_read(self):
        self.put_old(changed(self.file, 3))
        self.old.chmod(0o400)
        self.before = self.look()
        self.assert_fetches([3])

    def test_the_data_file_itself_is_refused(self):
        self.file.path.write_bytes(self.file.without(1))
        os.link(self.file.path, self.old)
        peer = Peer(self, self.file)
        program = self.fetch(self.file, "--from", self.old, peers=[peer.address], status=1)
        self.assert_one_sentence(program, self.old)
        self.assertEqual(peer.connections, [])
        self.assert_same(self.old, self.file.without(1))

    def test_what_cannot_be_copied_from(self):
        os.mkfifo(self.old)
        for name in (self.old, self.scratch, self.scratch / "missing"):
            program = self.fetch(self.file, "--from", name, peers=[(LOOPBACK, 1)], status=1)
            self.assert_one_sentence(program, name)

    def test_what_was_copied_is_served(self):
        self.put_old(self.file.data)
        peer = self.start_peer(self.file, "--from", self.old)
        wait_for_chunks(peer.address(), self.file, range(41))
        for number in (0, 40):
            self.assertEqual(ask_peer(peer.address(), chunk_request(self.file.hash, number)),
                             (0, self.file.chunk(number)))

    def test_a_twentieth_that_has_changed(self):
        """An image: what is fetched is what has changed, and nothing else."""
        self.file = self.describe_file("image", 400 * 64 * KIB, 64 * KIB)
        numbers = random.Random(1).sample(range(400), 20)
        self.put_old(changed(self.file, *numbers))
        self.assert_fetches(numbers)


class Zeros(Case):
    def setUp(self):
        super().setUp()
        data = bytearray(random_bytes(32 * 64 * KIB + 100))
        for number in (*range(0, 3), *range(10, 20), 31):
            data[number * 64 * KIB:(number + 1) * 64 * KIB] = bytes(64 * KIB)
        data[-100:] = bytes(100)
        self.file = SharedFile(self.scratch / "data", bytes(data), 64 * KIB)
        self.rest = [*range(3, 10), *range(20, 31)]

    def assert_fetches(self, numbers):
        peer = Peer(self, self.file)
        self.fetch(self.file, peers=[peer.address])
        self.assertEqual(sorted(peer.requests), sorted(numbers))
        self.assert_same(self.file.path, self.file.data)

    def test_zeros_are_neither_fetched_nor_written(self):
        self.assert_fetches(self.rest)
        self.assertLess(self.file.path.stat().st_blocks * 512, (len(self.rest) + 2) * 64 * KIB)

    def test_other_bytes_in_the_place_of_zeros(self):
        data = bytearray(self.file.data[:15 * 64 * KIB + 7])
        data[64 * KIB + 5] = 1
        data[15 * 64 * KIB + 3] = 1
        self.file.path.write_bytes(data)
        self.assert_fetches([*range(20, 31)])

    def test_a_file_of_nothing_but_zeros(self):
        self.file = SharedFile(self.scratch / "zeros", bytes(10 * 4096 + 1), 4096)
        self.assert_fetches([])
        self.assertEqual(self.file.path.stat().st_blocks, 0)

    def test_zeros_that_are_served_before_anything_has_come(self):
        peer = self.start_peer(self.file)
        wait_for_chunks(peer.address(), self.file, [0, 2, 15, 32])


class Devices(Case):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0 or shutil.which("losetup") is None:
            self.skipTest("a loop device can only be made by root, with losetup")
        self.file = self.describe_file("image", 900 * KIB + 77, 64 * KIB)
        self.behind = self.scratch / "behind"
        self.device = self.make_device(random_bytes(1024 * KIB, "device"))

    def make_device(self, data):
        self.behind.write_bytes(data)
        made = subprocess.run(["losetup", "-f", "--show", self.behind], capture_output=True, text=True)
        if made.returncode != 0:
            self.skipTest(f"no loop device: {made.stderr.strip()}")
        device = made.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "-d", device], check=True)
        return device

    def written(self):
        with open(self.device, "rb") as device:
            return device.read()

    def test_an_image_is_written_to_a_device(self):
        before = self.written()
        peer = Peer(self, self.file)
        program = self.fetch(self.file, "-o", self.device, "--force", peers=[peer.address])
        self.assertIn(self.device, program.stderr)
        self.assertEqual(self.behind.read_bytes()[:len(self.file.data)], self.file.data, "it was synced")
        self.assertEqual(self.written()[len(self.file.data):], before[len(self.file.data):])
        # What is there already isn't fetched again, and needs no force.
        peer = Peer(self, self.file)
        self.fetch(self.file, "-o", self.device, peers=[peer.address])
        self.assertEqual(peer.requests, [])

    def test_zeros_are_written_to_a_device(self):
        data = bytes(128 * KIB) + random_bytes(64 * KIB) + bytes(100)
        self.file = SharedFile(self.scratch / "zeros", data, 64 * KIB)
        peer = Peer(self, self.file)
        self.fetch(self.file, "-o", self.device, "--force", peers=[peer.address])
        self.assertEqual(peer.requests, [2])
        self.assertEqual(self.written()[:len(data)], data)

    def test_without_force_nothing_is_written(self):
        before = self.written()
        peer = Peer(self, self.file)
        program = self.fetch(self.file, "-q", "-o", self.device, peers=[peer.address], status=1)
        self.assert_one_sentence(program, self.device)
        self.assertIn("--force", program.stderr)
        self.assertEqual(peer.connections, [])
        self.assertEqual(self.written(), before)

    def test_a_device_that_is_too_small(self):
        self.file = self.describe_file("large", 1024 * KIB + 1, 64 * KIB)
        before = self.written()
        program = self.fetch(self.file, "-o", self.device, "--force", peers=[(LOOPBACK, 1)], status=1)
        self.assert_one_sentence(program, self.device)
        self.assertIn(str(1024 * KIB), program.stderr)
        self.assertEqual(self.written(), before)

    def test_a_device_in_use(self):
        before = self.written()
        holder = os.open(self.device, os.O_RDONLY | os.O_EXCL)  # as mount does
        self.addCleanup(os.close, holder)
        program = self.fetch(self.file, "-o", self.device, "--force", peers=[(LOOPBACK, 1)], status=1)
        self.assert_one_sentence(program, self.device)
        self.assertIn("in use", program.stderr)
        self.assertEqual(self.written(), before)

    def test_a_device_is_served_while_it_is_written(self):
        peer = Peer(self, self.file)
        program = self.start_peer(self.file, "-o", self.device, "--force", peers=[peer.address])
        wait_for_chunks(program.address(), self.file, range(self.file.count))
        program.says("complete")
        self.assertEqual(ask_peer(program.address(), chunk_request(self.file.hash, 14)), (0, self.file.chunk(14)))

    def test_a_metafile_of_a_device_that_serves(self):
        data = self.written()
        metafile = self.scratch / "image.cascade"
        self.run_program("mkcascade", "-b", 64 * KIB, "-o", metafile, self.device, status=0)
        self.assertEqual(metafile.read_bytes(), make_metafile(data, 64 * KIB))
        file = SharedFile(self.scratch / "image", data, 64 * KIB)
        program = self.start_peer(file, "-o", self.device)
        wait_for_chunks(program.address(), file, range(16))
        self.assertEqual(ask_peer(program.address(), chunk_request(file.hash, 3)), (0, file.chunk(3)))
        copy = self.scratch / "copy"
        self.fetch(file, "-o", copy, "--from", self.device, peers=[(LOOPBACK, 1)])
        self.assert_same(copy, data)

    def test_a_metafile_beside_a_device_is_refused(self):
        program = self.run_program("mkcascade", self.device, status=1)
        self.assert_one_sentence(program, self.device)

    def test_a_device_is_not_copied_from_onto_itself(self):
        node = self.scratch / "node"
        st = os.stat(self.device)
        os.mknod(node, st.st_mode, st.st_rdev)
        program = self.fetch(self.file, "-o", self.device, "--from", node, peers=[(LOOPBACK, 1)], status=1)
        self.assert_one_sentence(program, node)


if __name__ == "__main__":
    unittest.main()
