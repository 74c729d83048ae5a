/* copy.c - by copy_file_range(2) where there is one, which copies no byte on file systems
 * that can share them; by read and write elsewhere (PORTABLE), and wherever that fails:
 * then it is known which side did. */
#define _GNU_SOURCE	/* copy_file_range, where the system has it */
#include "file/copy.h"

#include <errno.h>
#include <unistd.h>

#include "base/io.h"

#define AT_ONCE (UINT64_C(16) << 20)	/* bytes */

#if defined(__linux__) && !defined(PORTABLE)

/* Returns how many bytes were copied. */
static uint64_t copy_in_system(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t size)
{
	off_t in = (off_t)from_offset, out = (off_t)to_offset;
	uint64_t done = 0;

	while (done < size) {
		uint64_t left = size - done;
		ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(left < AT_ONCE ? left : AT_ONCE), 0);
		if (n <= 0)
			break;
		done += (uint64_t)n;
	}
	return done;
}

#else

static uint64_t copy_in_system(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t size)
{
	(void)from;
	(void)from_offset;
	(void)to;
	(void)to_offset;
	(void)size;
	return 0;
}

#endif

int copy_between(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t size, int *read_error)
{
	static uint8_t buffer[128 << 10];
	uint64_t done = copy_in_system(from, from_offset, to, to_offset, size);

	*read_error = 0;
	while (done < size) {
		uint64_t left = size - done;
		size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
		ssize_t n = io_read_at(from, buffer, piece, from_offset + done);
		if (n < 0 || (size_t)n < piece) {
			*read_error = n < 0 ? errno : EIO;
			return 0;
		}
		int error = io_write_at(to, buffer, piece, to_offset + done);
		if (error != 0)
			return error;
		done += piece;
	}
	return 0;
}
