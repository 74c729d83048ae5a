/* test_stamp.c - what a stamp notices of what is done to a file, and what it passes over. */
#include "file/stamp.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit.h"

static char path[UNIT_PATH_SIZE];

static struct stat look(void)
{
	struct stat st;

	if (stat(path, &st) < 0)
		abort();
	return st;
}

static struct stamp now(void)
{
	struct stat st = look();

	return stamp_of(&st);
}

/* Sets the mtime, which sets the ctime to the present. */
static void set_mtime(const struct timespec *time)
{
	const struct timespec times[2] = {*time, *time};

	if (utimensat(AT_FDCWD, path, times, 0) < 0)
		abort();
}

static void test_nothing_done(void)
{
	unit_write_file(path, "data", 4);
	struct stamp before = now(), after = now();
	CHECK(before.size == 4);
	CHECK(stamp_is_unwritten(&before, &after) && stamp_is_same(&before, &after));
}

static void test_other_size(void)
{
	unit_write_file(path, "data", 4);
	struct stamp before = now();
	CHECK(truncate(path, 3) == 0);
	struct stamp after = now();
	CHECK(!stamp_is_unwritten(&before, &after) && !stamp_is_same(&before, &after));
}

static void test_other_time(void)
{
	unit_write_file(path, "data", 4);
	set_mtime(&(struct timespec){1000000000, 5});
	struct stamp before = now();
	set_mtime(&(struct timespec){1000000000, 6});
	struct stamp after = now();
	CHECK(before.written_ns == 5 && after.written_ns == 6);
	CHECK(!stamp_is_unwritten(&before, &after) && !stamp_is_same(&before, &after));
	set_mtime(&(struct timespec){1000000001, 5});
	after = now();
	CHECK(!stamp_is_unwritten(&before, &after));
}

/* The ctime tells what the mtime doesn't. */
static void test_only_touched(void)
{
	unit_write_file(path, "data", 4);
	struct stamp before = now(), after;
	mode_t mode = 0600;
	do {		/* until the file system's clock has moved */
		CHECK(chmod(path, mode) == 0);
		after = now();
		mode ^= 0100;
	} while (after.changed_s == before.changed_s && after.changed_ns == before.changed_ns);
	CHECK(stamp_is_unwritten(&before, &after) && !stamp_is_same(&before, &after));
}

static int run_all(void)
{
	unit_path(path, "file");
	RUN(test_nothing_done);
	RUN(test_other_size);
	RUN(test_other_time);
	RUN(test_only_touched);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
