/* io.h - reading and writing until it is done.
 *
 * A call that a signal interrupts, or that fails for a moment for want of memory, is
 * tried again (retry.h). For bytes from sockets there is csapp.h's rio. */
#ifndef IO_H
#define IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads size bytes of a file, from offset on. Returns how many bytes were read: fewer
 * than size only if the file ends before. -1 with errno after a failure. */
ssize_t io_read_at(int file, void *bytes, size_t size, uint64_t offset);

/* Writes size bytes to a file, from offset on. Returns 0, or the errno of the failure:
 * ENOSPC also if the file takes nothing more. Some bytes may be written then. */
int io_write_at(int file, const void *bytes, size_t size, uint64_t offset);

/* Sets *size to the bytes that a regular file or a block device has. The place where read(2)
 * goes on in a device is its end then. Returns 0, or -1 with errno. */
int io_file_size(int file, uint64_t *size);

/* Reads from a pipe or a device what there is, size bytes at most; waits if there is nothing.
 * Returns how many bytes, 0 at the end of file, or -1 with errno. */
ssize_t io_read(int pipe, void *bytes, size_t size);

/* Writes size bytes to a pipe, or to a file from where it stands. Returns 0, or -1 with
 * errno: EPIPE if nobody reads it. */
int io_write(int pipe, const void *bytes, size_t size);

#endif
