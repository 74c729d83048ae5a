#!/usr/bin/env python3
"""Make the metafile (NAME.cascade) that describes one data file.

The data file is read once, a piece at a time, so its size does not matter
for memory. The metafile gets its name only when it is whole.
"""

import argparse
import contextlib
import hashlib
import os
import signal
import struct
import sys

# magic, 8 reserved bytes, length of the data file, chunk size, SHA-256 of it all
HEADER = struct.Struct(">8s8xQQ32s")
MAGIC = b"CASCADE1"
DEFAULT_CHUNK_SIZE = 1024 * 1024
PIECE_SIZE = 64 * 1024
PART = ".part"  # ends the temporary name


def write_metafile(data, metafile, chunk_size):
    """Read the open file data to its end and write its metafile.

    The header holds facts that are known only at the end of data. So its
    place is kept free first, and filled last.
    """
    whole_hash = hashlib.sha256()
    length = 0
    metafile.write(bytes(HEADER.size))
    while True:
        chunk_hash, chunk_length = hash_chunk(data, chunk_size, whole_hash)
        if chunk_length > 0:
            metafile.write(chunk_hash)
        length += chunk_length
        if chunk_length < chunk_size:
            break
    metafile.seek(0)
    metafile.write(HEADER.pack(MAGIC, length, chunk_size, whole_hash.digest()))


def hash_chunk(data, chunk_size, whole_hash):
    """Read one chunk in pieces, adding each to whole_hash too.

    Return the chunk's hash and its length, which is less than chunk_size
    only at the end of data.
    """
    chunk_hash = hashlib.sha256()
    left = chunk_size
    while left > 0:
        piece = data.read(min(left, PIECE_SIZE))
        if not piece:
            break
        chunk_hash.update(piece)
        whole_hash.update(piece)
        left -= len(piece)
    return chunk_hash.digest(), chunk_size - left


def make_metafile(data_path, metafile_path, chunk_size):
    """Write the metafile under a temporary name, then give it its own."""
    with open(data_path, "rb") as data:
        part_path = metafile_path + PART
        try:
            with open(part_path, "wb") as metafile:
                write_metafile(data, metafile, chunk_size)
            os.replace(part_path, metafile_path)
        except BaseException:  # a signal is no reason to leave half a metafile
            with contextlib.suppress(OSError):
                os.remove(part_path)
            raise


def parse_chunk_size(text):
    """Return text as a chunk size that fits its 8 bytes in the header."""
    if not text.isdecimal() or not 1 <= int(text) < 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 2^64 - 1")
    return int(text)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Make the metafile of a data file.")
    parser.add_argument("-b", dest="chunk_size", metavar="CHUNK_SIZE", type=parse_chunk_size,
                        default=DEFAULT_CHUNK_SIZE,
                        help="bytes in a chunk (default %(default)s)")
    parser.add_argument("-o", dest="output", metavar="OUT",
                        help="name of the metafile (default FILE.cascade)")
    parser.add_argument("file", metavar="FILE", help="the data file")
    arguments = parser.parse_args()
    if arguments.output is None:
        arguments.output = arguments.file + ".cascade"
    written = {os.path.realpath(arguments.output + end) for end in ("", PART)}
    if os.path.realpath(arguments.file) in written:
        parser.error("making OUT would overwrite FILE")
    return arguments


def stop(signal_number, frame):
    """Leave main by an exception, so that the half metafile is removed."""
    sys.exit(1)


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    arguments = parse_arguments()
    try:
        make_metafile(arguments.file, arguments.output, arguments.chunk_size)
    except OSError as error:
        sys.exit(f"filegen.py: {error}")


if __name__ == "__main__":
    main()
