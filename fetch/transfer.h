/* transfer.h - bytes from a socket into a file. */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Moves what has come to the non-blocking socket to the file, beginning at offset,
 * size bytes at most; on Linux without copying it to this process. Returns how
 * many bytes were taken from the socket, 0 at its end, or -1 with errno, as
 * recv(2) does. *file_error is 0, or the errno of why not all of them are written. */
ssize_t transfer_from_socket(int socket, size_t size, int file, uint64_t offset, int *file_error);

#endif
