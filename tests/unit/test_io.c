/* test_io.c - reading and writing until it is done: in pieces, with signals and failures in
 * between, and at the end of what can be read or written. */
#include "base/io.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"

/* ---- Faults on demand ---- */

static size_t piece_max = SIZE_MAX;	/* bytes that a call moves at most */
static int failures_left, failure;	/* so many calls fail first, with this errno */

/* Whether this call fails. Else *size is what it may move. */
static bool fails(size_t *size)
{
	*size = *size < piece_max ? *size : piece_max;
	errno = failure;
	return failures_left > 0 && failures_left-- > 0;
}

static ssize_t pread_for_test(int fd, void *bytes, size_t size, off_t offset)
{
	return fails(&size) ? -1 : pread(fd, bytes, size, offset);
}

static ssize_t pwrite_for_test(int fd, const void *bytes, size_t size, off_t offset)
{
	return fails(&size) ? -1 : pwrite(fd, bytes, size, offset);
}

static ssize_t read_for_test(int fd, void *bytes, size_t size)
{
	return fails(&size) ? -1 : read(fd, bytes, size);
}

static ssize_t write_for_test(int fd, const void *bytes, size_t size)
{
	return fails(&size) ? -1 : write(fd, bytes, size);
}

/* io.c is included, not linked, so that its calls can fail. */
#define pread pread_for_test
#define pwrite pwrite_for_test
#define read read_for_test
#define write write_for_test
#include "base/io.c"
#undef pread
#undef pwrite
#undef read
#undef write

static void fail(int times, int error)
{
	failures_left = times;
	failure = error;
}

/* ---- Files ---- */

enum { SIZE = 1000 };

static uint8_t bytes[SIZE], got[2 * SIZE];

static int open_file(size_t size)
{
	char path[UNIT_PATH_SIZE];

	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	unit_write_file(unit_path(path, "file"), bytes, size);
	int fd = open(path, O_RDWR);
	if (fd < 0)
		abort();
	return fd;
}

static void test_read_at(void)
{
	static const size_t pieces[] = {SIZE_MAX, SIZE, 333, 1};
	int fd = open_file(SIZE);

	for (size_t i = 0; i < LENGTH(pieces); i++) {
		piece_max = pieces[i];
		CHECK(io_read_at(fd, got, SIZE, 0) == SIZE && memcmp(got, bytes, SIZE) == 0);
		CHECK(io_read_at(fd, got, 100, 77) == 100 && memcmp(got, bytes + 77, 100) == 0);
		CHECK(io_read_at(fd, got, 0, 77) == 0);
		CHECK(io_read_at(fd, got, SIZE, 900) == 100 && memcmp(got, bytes + 900, 100) == 0);
		CHECK(io_read_at(fd, got, 1, SIZE) == 0);
	}
	piece_max = SIZE_MAX;
	close(fd);
}

static void test_write_at(void)
{
	static const size_t pieces[] = {SIZE_MAX, SIZE, 333, 1};

	for (size_t i = 0; i < LENGTH(pieces); i++) {
		int fd = open_file(0);
		piece_max = pieces[i];
		CHECK(io_write_at(fd, bytes, 100, 50) == 0 && io_write_at(fd, bytes, SIZE, 150) == 0);
		CHECK(io_write_at(fd, bytes, 0, 5000) == 0);
		piece_max = SIZE_MAX;
		CHECK(pread(fd, got, sizeof got, 0) == 150 + SIZE);
		CHECK(memcmp(got + 50, bytes, 100) == 0 && memcmp(got + 150, bytes, SIZE) == 0);
		close(fd);
	}
}

static void test_failures_that_pass(void)
{
	static const struct {
		int error, times;
	} known[] = {{EINTR, 20}, {ENOMEM, 3}, {EAGAIN, 2}};
	int fd = open_file(SIZE), ends[2];

	unit_pipe(ends);
	for (size_t i = 0; i < LENGTH(known); i++) {
		fail(known[i].times, known[i].error);
		CHECK(io_read_at(fd, got, SIZE, 0) == SIZE && failures_left == 0);
		fail(known[i].times, known[i].error);
		CHECK(io_write_at(fd, bytes, SIZE, 0) == 0 && failures_left == 0);
		fail(known[i].times, known[i].error);
		CHECK(io_write(ends[1], bytes, SIZE) == 0 && failures_left == 0);
		fail(known[i].times, known[i].error);
		CHECK(io_read(ends[0], got, sizeof got) == SIZE && failures_left == 0);
		CHECK(memcmp(got, bytes, SIZE) == 0);
	}
	close(ends[0]);
	close(ends[1]);
	close(fd);
}

/* They are told at once, or after a while. */
static void test_failures_that_stay(void)
{
	static const int errors[] = {EIO, EBADF, ENOSPC, ENOMEM};

	for (size_t i = 0; i < LENGTH(errors); i++) {
		fail(INT_MAX, errors[i]);
		errno = 0;
		CHECK(io_read_at(0, got, SIZE, 0) == -1 && errno == errors[i]);
		CHECK(io_write_at(0, bytes, SIZE, 0) == errors[i]);
		errno = 0;
		CHECK(io_read(0, got, SIZE) == -1 && errno == errors[i]);
		errno = 0;
		CHECK(io_write(0, bytes, SIZE) == -1 && errno == errors[i]);
	}
	fail(0, 0);
}

static void test_file_takes_nothing(void)
{
	int fd = open_file(0);

	piece_max = 0;		/* as if it were full */
	CHECK(io_write_at(fd, bytes, SIZE, 0) == ENOSPC);
	piece_max = SIZE_MAX;
	close(fd);
}

static void test_pipe(void)
{
	int ends[2];

	unit_pipe(ends);
	piece_max = 7;
	CHECK(io_write(ends[1], bytes, SIZE) == 0);
	piece_max = SIZE_MAX;
	CHECK(io_read(ends[0], got, 10) == 10);		/* no more than was asked for */
	CHECK(io_read(ends[0], got + 10, sizeof got - 10) == SIZE - 10);	/* and what there is */
	CHECK(memcmp(got, bytes, SIZE) == 0);
	close(ends[1]);
	CHECK(io_read(ends[0], got, sizeof got) == 0);
	close(ends[0]);
	unit_pipe(ends);
	close(ends[0]);
	signal(SIGPIPE, SIG_IGN);
	CHECK(io_write(ends[1], bytes, SIZE) == -1 && errno == EPIPE);
	close(ends[1]);
}

static int run_all(void)
{
	RUN(test_read_at);
	RUN(test_write_at);
	RUN(test_failures_that_pass);
	RUN(test_failures_that_stay);
	RUN(test_file_takes_nothing);
	RUN(test_pipe);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
