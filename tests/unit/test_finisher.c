/* test_finisher.c - what is found of a file that is all there: with one that is right, wrong, cut,
 * and where the disk, the fork or the process fails. */
#include "fetch/finisher.h"

#include <stdatomic.h>

#include "base/exits.h"
#include "base/log.h"
#include "check_common.h"
#include "file/datafile.h"
#include "file/sync.h"

/* In place of those of file/sync.c. */
static bool disk_fails;

int sync_file(int file)
{
	(void)file;
	errno = EIO;
	return disk_fails ? -1 : 0;
}

int sync_folder(const char *path)
{
	(void)path;
	return 0;
}

static struct datafile d;
static struct finisher f;

static void no_progress(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
}

static void begin(void)
{
	open_full(2 * MIB, KIB);
	close_files();
	memset(&d, 0, sizeof d);
	if (datafile_open(&d, meta_path, data_path) < 0 || datafile_claim(&d, true, 1, no_progress) < 0)
		abort();
	fd = d.fd;
	disk_fails = false;
}

static void end(void)
{
	finisher_end(&f);
	CHECK(!has_children());
	forks_work_again();
	metafile_close(&d.meta);
	held_free(d.held);
}

/* Returns the status. */
static int finish(bool whole)
{
	uint64_t before = 0;

	for (finisher_begin(&f, &d, whole); f.from >= 0; finisher_read(&f)) {
		CHECK(f.hashed >= before && f.hashed <= d.meta.length);
		before = f.hashed;
	}
	int status = f.status;
	finisher_end(&f);
	return status;
}

/* By a process, and where there can be none. */
static void with_and_without_forks(void (*test)(void))
{
	for (int forks = 1; forks >= 0; forks--) {
		begin();
		forks_that_work = forks;
		test();
		end();
	}
}

static void expect_right(void)
{
	set_length(2 * MIB + 5);	/* what follows isn't the file's */
	CHECK(finish(true) == EXIT_DONE && datafile_close(&d) == 0);
}

static void expect_wrong(void)
{
	put_at(2 * MIB - 1, want, 1);
	CHECK(finish(true) == EXIT_METAFILE && datafile_close(&d) == 0);
}

static void expect_unreadable(void)
{
	set_length(2 * MIB - 1);
	CHECK(finish(true) == EXIT_UNABLE && datafile_close(&d) == 0);
}

static void expect_on_disk(void)
{
	d.sync = true;
	CHECK(datafile_is_to_sync(&d) && finish(false) == EXIT_DONE && !datafile_is_to_sync(&d));
	disk_fails = true;	/* that is not asked again */
	CHECK(datafile_close(&d) == 0 && !atomic_load(d.lost));
}

static void expect_lost(void)
{
	d.sync = disk_fails = true;
	CHECK(finish(false) == EXIT_DONE && !atomic_load(d.lost));
	CHECK(datafile_close(&d) == -1 && atomic_load(d.lost));
}

/* Both are looked at: the file is wrong, and lost. */
static void expect_wrong_and_lost(void)
{
	d.sync = disk_fails = true;
	put_at(0, want + 1, 1);
	CHECK(finish(true) == EXIT_METAFILE);
	CHECK(datafile_close(&d) == -1 && atomic_load(d.lost));
}

static void test_the_whole(void)
{
	with_and_without_forks(expect_right);
	with_and_without_forks(expect_wrong);
	with_and_without_forks(expect_unreadable);
}

static void test_the_disk(void)
{
	with_and_without_forks(expect_on_disk);
	with_and_without_forks(expect_lost);
	with_and_without_forks(expect_wrong_and_lost);
}

static void test_nothing_to_do(void)
{
	begin();
	finisher_begin(&f, &d, false);
	CHECK(f.from == -1 && f.pid == 0 && f.status == EXIT_DONE && f.hashed == d.meta.length);
	CHECK(datafile_close(&d) == 0);
	end();
}

static void test_it_dies(void)
{
	begin();
	all_are_doomed = true;
	CHECK(finish(true) == EXIT_DONE);
	CHECK(datafile_close(&d) == 0 && !atomic_load(d.lost));
	begin();
	put_at(0, want + 1, 1);
	CHECK(finish(true) == EXIT_METAFILE && datafile_close(&d) == 0);
	end();
}

static void test_ended_at_work(void)
{
	begin();
	finisher_begin(&f, &d, true);
	CHECK(f.from >= 0 && f.hashed == 0);
	CHECK(datafile_close(&d) == 0);
	end();
}

static int run_all(void)
{
	set_up();
	log_set_level(LOG_QUIET);
	RUN(test_the_whole);
	RUN(test_the_disk);
	RUN(test_nothing_to_do);
	RUN(test_it_dies);
	RUN(test_ended_at_work);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
