/* test_fill.c - chunks of zeros and of older files, and what fails meanwhile; copying from
 * one file to another. */
#include "file/fill.h"

#include "base/log.h"
#include "check_common.h"
#include "file/copy.h"

enum { CHUNKS = 40 };

static struct datafile d;
static struct older old;
static char old_path[UNIT_PATH_SIZE];
static void (*when_all_is_compared)(void);

static void no_progress(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
}

/* ---- A data file of which nothing is held, and an older one that has all ---------- */

/* The data file has what it has already: nothing, if it is new. */
static void open_data(void)
{
	close_files();
	memset(&d, 0, sizeof d);
	if (datafile_open(&d, meta_path, data_path) < 0 || datafile_claim(&d, true, 1, no_progress) < 0 ||
	    datafile_begin_write(&d) < 0)
		abort();
}

static void begin(void)
{
	open_empty(CHUNKS * KIB - 5, KIB);
	open_data();
	unit_write_file(unit_path(old_path, "old"), want, CHUNKS * KIB - 5);
	if (older_open(&old, old_path) < 0)
		abort();
	when_all_is_compared = NULL;
}

static void end(void)
{
	close(old.fd);
	close(d.fd);
	metafile_close(&d.meta);
	held_free(d.held);
}

static void progress(void *arg, uint64_t bytes)
{
	(void)arg;
	if (bytes >= d.meta.length && when_all_is_compared != NULL)
		when_all_is_compared();
}

static int fill(void)
{
	return fill_from(&d, &old, 1, progress);
}

static void write_protect(void)
{
	int read_only = open(data_path, O_RDONLY);

	CHECK(dup2(read_only, d.fd) >= 0 && close(read_only) == 0);
}

static void cut_older_file(void)
{
	CHECK(truncate(old_path, 10 * KIB + 1) == 0);
}

static void cut_metafile(void)
{
	CHECK(truncate(meta_path, METAFILE_HEADER_SIZE) == 0);
}

static bool has_right_bytes(uint64_t length)
{
	static uint8_t found[CHUNKS * KIB];

	return pread(d.fd, found, (size_t)length, 0) == (ssize_t)length && memcmp(found, want, (size_t)length) == 0;
}

/* ---- Older files ------------------------------------------------------------------ */

static void test_all_is_there(void)
{
	begin();
	CHECK(fill() == 0 && held_count(d.held) == CHUNKS && has_right_bytes(d.meta.length));
	CHECK(!d.marked);
	end();
}

static void test_some_is_wrong(void)
{
	begin();
	int changed = open(old_path, O_WRONLY);
	CHECK(pwrite(changed, "!", 1, 7 * KIB) == 1 && pwrite(changed, "!", 1, 20 * KIB) == 1 && close(changed) == 0);
	CHECK(fill() == 0 && held_count(d.held) == CHUNKS - 2 && !held_has(d.held, 7) && !held_has(d.held, 20));
	end();
}

/* It is cut after it was compared: the rest is fetched. Nothing wrong is held. */
static void test_it_is_cut(void)
{
	begin();
	when_all_is_compared = cut_older_file;
	CHECK(fill() == 0 && held_count(d.held) == 0 && !atomic_load(d.lost));
	end();
}

static void test_it_cannot_be_read(void)
{
	begin();
	int write_only = open(old_path, O_WRONLY);
	CHECK(dup2(write_only, old.fd) >= 0 && close(write_only) == 0);
	CHECK(fill() == 0 && held_count(d.held) == 0);
	end();
}

/* While it is compared, or afterwards. */
static void test_the_metafile_is_cut(void)
{
	for (int before = 0; before < 2; before++) {
		begin();
		if (before)
			cut_metafile();
		else
			when_all_is_compared = cut_metafile;
		CHECK(fill() != 0 && atomic_load(d.lost) && d.meta.error != 0 && held_count(d.held) == 0);
		end();
	}
}

static void test_the_data_file_cannot_be_written(void)
{
	begin();
	write_protect();
	CHECK(fill() == EBADF && held_count(d.held) == 0);
	end();
	begin();
	CHECK(datafile_mark(&d) == 0);
	write_protect();	/* the mark is there already */
	CHECK(fill() == EBADF && held_count(d.held) == 0);
	end();
}

static void test_what_is_no_older_file(void)
{
	struct older none;

	begin();
	CHECK(older_open(&none, "/nowhere/at/all") == -1);
	CHECK(older_open(&none, unit_scratch) == -1);
	CHECK(!older_overlap(&old, &d, 1));
	CHECK(older_open(&none, data_path) == 0 && older_overlap(&none, &d, 1));
	close(none.fd);
	none.fd = -1;		/* what can't be looked at may be the same */
	CHECK(older_overlap(&none, &d, 1));
	CHECK(older_overlap(&old, &(struct datafile){.fd = -1}, 1));
	end();
}

/* ---- Zeros ------------------------------------------------------------------------ */

/* Chunks 3 and 4 are zeros, and larger than the piece that is written at a time; where they
 * should lie, there is something else. */
static void begin_with_zeros(void)
{
	const uint64_t size = 100 * KIB;

	memset(want + 3 * size, 0, 2 * size);
	open_full(6 * size, size);
	spoil(3);
	spoil(4);
	open_data();
}

static void end_with_zeros(void)
{
	close(d.fd);
	metafile_close(&d.meta);
	held_free(d.held);
	fill_want();
}

static void test_zeros_are_written(void)
{
	begin_with_zeros();
	CHECK(fill_zeros(&d) == 0 && held_has(d.held, 3) && held_has(d.held, 4) && held_count(d.held) == 6);
	end_with_zeros();
}

static void test_zeros_cannot_be_written(void)
{
	begin_with_zeros();
	write_protect();
	CHECK(fill_zeros(&d) == EBADF && !held_has(d.held, 3) && !held_has(d.held, 4));
	end_with_zeros();
}

static void test_zeros_and_no_metafile(void)
{
	begin_with_zeros();
	cut_metafile();
	CHECK(fill_zeros(&d) != 0 && atomic_load(d.lost) && !held_has(d.held, 3));
	end_with_zeros();
}

/* All is held, and the mark can't be taken away. */
static void test_unmark_fails(void)
{
	begin();
	CHECK(datafile_mark(&d) == 0 && d.marked);
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
		held_add(d.held, chunk);
	write_protect();
	CHECK(fill_zeros(&d) == EIO);
	end();
}

/* ---- Copying ---------------------------------------------------------------------- */

static void test_copy(void)
{
	char path[UNIT_PATH_SIZE];
	int from, to, error = -1;
	uint8_t *found = malloc(WANT_SIZE);

	unit_write_file(unit_path(path, "from"), want, WANT_SIZE);
	from = open(path, O_RDONLY);
	to = open(unit_path(path, "to"), O_RDWR | O_CREAT | O_TRUNC, 0666);
	CHECK(copy_between(from, 0, to, 5, WANT_SIZE, &error) == 0 && error == 0);
	CHECK(pread(to, found, WANT_SIZE, 5) == (ssize_t)WANT_SIZE && memcmp(found, want, WANT_SIZE) == 0);
	CHECK(copy_between(from, 100, to, 0, 3, &error) == 0 && error == 0);
	CHECK(pread(to, found, 8, 0) == 8 && memcmp(found, want + 100, 3) == 0 && memcmp(found + 5, want, 3) == 0);

	CHECK(copy_between(from, WANT_SIZE - 10, to, MIB, 11, &error) == 0 && error == EIO);
	CHECK(copy_between(to, 0, from, 0, 10, &error) == EBADF && error == 0);
	close(from);

	from = open("/dev/zero", O_RDONLY);	/* nothing that the system copies by itself */
	CHECK(copy_between(from, 0, to, 1, 300 * KIB, &error) == 0 && error == 0);
	CHECK(pread(to, found, 300 * KIB + 2, 0) == (ssize_t)(300 * KIB + 2) && found[0] == want[100]);
	CHECK(found[1] == 0 && found[300 * KIB] == 0 && found[300 * KIB + 1] == want[300 * KIB - 4]);
	CHECK(memchr(found + 1, want[100] | 1, 300 * KIB) == NULL);
	close(from);
	from = open(path, O_WRONLY);
	CHECK(copy_between(from, 0, to, 0, 10, &error) == 0 && error == EBADF);
	close(from);
	close(to);
	free(found);
}

static int run_all(void)
{
	log_program("test_fill");
	log_set_level(LOG_QUIET);
	set_up();
	RUN(test_all_is_there);
	RUN(test_some_is_wrong);
	RUN(test_it_is_cut);
	RUN(test_it_cannot_be_read);
	RUN(test_the_metafile_is_cut);
	RUN(test_the_data_file_cannot_be_written);
	RUN(test_what_is_no_older_file);
	RUN(test_zeros_are_written);
	RUN(test_zeros_cannot_be_written);
	RUN(test_zeros_and_no_metafile);
	RUN(test_unmark_fails);
	RUN(test_copy);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
