/* test_window.c - looking at the bytes of a file at any place, and at bytes that are not there. */
#define _DEFAULT_SOURCE 1	/* MAP_ANONYMOUS */
#include "file/window.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"

#define SIZE ((size_t)3 << 20)	/* bytes of the file, less a few */

static uint8_t bytes[SIZE];
static int fd;

static void open_file(size_t size)
{
	char path[UNIT_PATH_SIZE];

	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251 + i / 65536);
	unit_write_file(unit_path(path, "file"), bytes, size);
	if ((fd = open(path, O_RDWR)) < 0)
		abort();
}

static void close_file(void)
{
	window_close_all();
	close(fd);
}

static bool shows(uint64_t offset, size_t size)
{
	const uint8_t *found = window_look(fd, offset, size);

	return found != NULL && memcmp(found, bytes + offset, size) == 0;
}

static void test_looks(void)
{
	bool right = true;

	open_file(SIZE - 5);
	srand(3);
	for (int i = 0; i < 3000; i++) {
		size_t size = (size_t)rand() % (WINDOW_SIZE + 1);
		right = right && shows((size_t)rand() % (SIZE - 4 - size), size);
	}
	CHECK(right && shows(0, WINDOW_SIZE));
	CHECK(shows(SIZE - 5 - WINDOW_SIZE, WINDOW_SIZE));
	close_file();
}

/* What one look has shown stays there for as many looks as there are windows. */
static void test_looks_last(void)
{
	const uint8_t *found[WINDOWS_MAX];

	open_file(SIZE);
	for (int again = 0; again < 2; again++) {
		for (size_t i = 0; i < WINDOWS_MAX; i++)
			found[i] = window_look(fd, i * 150000, 1000);
		for (size_t i = 0; i < WINDOWS_MAX; i++)
			CHECK(found[i] != NULL && memcmp(found[i], bytes + i * 150000, 1000) == 0);
	}
	close_file();
}

/* What was closed is looked at anew, and nothing before. */
static void test_closed(void)
{
	open_file(SIZE);
	CHECK(shows(1000, 10));
	bytes[1005] ^= 1;
	CHECK(pwrite(fd, bytes + 1005, 1, 1005) == 1);
	CHECK(!shows(1000, 10));
	window_close_all();
	CHECK(shows(1000, 10));
	close_file();
}

static void test_end_of_file(void)
{
	open_file(100000);
	CHECK(shows(99990, 10) && shows(100000 - WINDOW_SIZE, WINDOW_SIZE));
	errno = 0;
	CHECK(window_look(fd, 99990, 11) == NULL && errno == EIO);
	CHECK(window_look(fd, 200000, 1) == NULL);
	CHECK(shows(99990, 10));
	close_file();
}

/* What can't be read, behind the bytes that are wanted, is not wanted. */
static void test_unreadable_behind(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int self = open("/proc/self/mem", O_RDONLY);	/* a file with holes that can't be read */

	if (memory == MAP_FAILED || munmap(memory + page, page) != 0)
		abort();
	if (self < 0) {
		unit_skip("no /proc/self/mem");
		return;
	}
	uint64_t end = (uintptr_t)memory + page;
	memset(memory, 7, page);
	const uint8_t *found = window_look(self, end - 1000, 1000);
	CHECK(found != NULL && memcmp(found, memory, 1000) == 0);
	CHECK(window_look(self, end - 999, 1000) == NULL && errno == EIO);
	close(self);
	munmap(memory, page);
	window_close_all();
}

static int run_all(void)
{
	RUN(test_looks);
	RUN(test_looks_last);
	RUN(test_closed);
	RUN(test_end_of_file);
	RUN(test_unreadable_behind);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
