/* io.c - loops around read(2), write(2), pread(2) and pwrite(2); used by all processes. */
#include "base/io.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/retry.h"

ssize_t io_read_at(int file, void *bytes, size_t size, uint64_t offset)
{
	unsigned failures = 0;
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(file, (char *)bytes + done, size - done, (off_t)(offset + done));
		if (n < 0 && retry_after(errno, &failures))
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int io_write_at(int file, const void *bytes, size_t size, uint64_t offset)
{
	unsigned failures = 0;
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(file, (const char *)bytes + done, size - done, (off_t)(offset + done));
		if (n < 0 && retry_after(errno, &failures))
			continue;
		if (n <= 0)
			return n < 0 ? errno : ENOSPC;
		done += (size_t)n;
	}
	return 0;
}

int io_file_size(int file, uint64_t *size)
{
	struct stat st;

	if (fstat(file, &st) < 0)
		return -1;
	off_t end = S_ISBLK(st.st_mode) ? lseek(file, 0, SEEK_END) : st.st_size;
	*size = (uint64_t)end;
	return end < 0 ? -1 : 0;
}

ssize_t io_read(int pipe, void *bytes, size_t size)
{
	unsigned failures = 0;
	ssize_t n;

	while ((n = read(pipe, bytes, size)) < 0 && retry_after(errno, &failures))
		;
	return n;
}

int io_write(int pipe, const void *bytes, size_t size)
{
	unsigned failures = 0;
	size_t done = 0;

	while (done < size) {
		ssize_t n = write(pipe, (const char *)bytes + done, size - done);
		if (n < 0 && retry_after(errno, &failures))
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}
