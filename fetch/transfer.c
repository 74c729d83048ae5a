/* transfer.c - used by the fetcher. */
#define _GNU_SOURCE	/* splice and F_SETPIPE_SZ, where the system has them */
#include "fetch/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/retry.h"

#define PIECE_MAX ((size_t)256 << 10)	/* bytes at a time: they stay in the CPU's cache */

static ssize_t copy_from_socket(int socket, size_t size, int file, uint64_t offset, int *file_error)
{
	static uint8_t buffer[PIECE_MAX];
	ssize_t n = recv(socket, buffer, size < PIECE_MAX ? size : PIECE_MAX, 0);

	if (n > 0)
		*file_error = io_write_at(file, buffer, (size_t)n, offset);
	return n;
}

#if defined(__linux__) && !defined(PORTABLE)

#define PIPE_SIZE (1 << 20)	/* bytes: what any user may have; less will do */

/* The pipe through which the bytes go: empty between two calls. */
static int pipe_ends[2] = {-1, -1};
static bool can_splice = true;

static bool have_pipe(void)
{
	if (can_splice && pipe_ends[0] < 0) {
		can_splice = pipe(pipe_ends) == 0;	/* without one, bytes are copied */
		if (can_splice)
			(void)!fcntl(pipe_ends[0], F_SETPIPE_SZ, PIPE_SIZE);
	}
	return can_splice;
}

static void close_pipe(void)
{
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	pipe_ends[0] = -1;
}

/* Some files take no splice, some systems and sandboxes have none. Then bytes are
 * copied, from now on. */
static bool is_refused(int error)
{
	return error == EINVAL || error == ENOSYS || error == EPERM;
}

/* Empties the pipe into a file that nothing can be spliced to. */
static int copy_from_pipe(size_t size, int file, uint64_t offset)
{
	uint8_t buffer[4096];
	int error = 0;

	while (size > 0 && error == 0) {
		ssize_t n = io_read(pipe_ends[0], buffer, size < sizeof buffer ? size : sizeof buffer);
		if (n <= 0)
			return n < 0 ? errno : EIO;
		error = io_write_at(file, buffer, (size_t)n, offset);
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return error;
}

/* Moves that many bytes, which are all that the pipe holds. 0, or an errno. */
static int move_from_pipe(size_t size, int file, uint64_t offset)
{
	loff_t at = (loff_t)offset;
	unsigned failures = 0;

	while (size > 0) {
		ssize_t n = splice(pipe_ends[0], NULL, file, &at, size, SPLICE_F_MOVE);
		if (n < 0 && retry_after(errno, &failures))
			continue;
		if (n < 0 && is_refused(errno)) {
			can_splice = false;
			return copy_from_pipe(size, file, (uint64_t)at);
		}
		if (n <= 0)
			return n < 0 ? errno : ENOSPC;
		size -= (size_t)n;
	}
	return 0;
}

ssize_t transfer_from_socket(int socket, size_t size, int file, uint64_t offset, int *file_error)
{
	*file_error = 0;
	if (!have_pipe())
		return copy_from_socket(socket, size, file, offset, file_error);
	ssize_t n = splice(socket, NULL, pipe_ends[1], NULL, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n < 0 && is_refused(errno)) {
		can_splice = false;
		close_pipe();
		return copy_from_socket(socket, size, file, offset, file_error);
	}
	if (n > 0)
		*file_error = move_from_pipe((size_t)n, file, offset);
	if (*file_error != 0 || !can_splice)
		close_pipe();	/* with what may be left in it */
	return n;
}

#else

ssize_t transfer_from_socket(int socket, size_t size, int file, uint64_t offset, int *file_error)
{
	*file_error = 0;
	return copy_from_socket(socket, size, file, offset, file_error);
}

#endif
