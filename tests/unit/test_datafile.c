/* test_datafile.c - the rules that keep a user's file from harm: what may be overwritten, who may
 * write, how a download is marked, and what is noticed of others. */
#include "file/datafile.h"
#include "file/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "unit.h"

enum { CHUNK_SIZE = 1000, LAST_SIZE = 300, CHUNKS = 10, SIZE = (CHUNKS - 1) * CHUNK_SIZE + LAST_SIZE };
enum { MARK_END = (SIZE + 63) / 64 * 64 + 64 };	/* the length of a file with a mark */

/* In the place of file/sync.c: counts, and fails when it is to. */
static int file_syncs, folder_syncs;
static bool file_sync_fails, folder_sync_fails;

int sync_file(int fd)
{
	(void)fd;
	file_syncs++;
	errno = EIO;
	return file_sync_fails ? -1 : 0;
}

int sync_folder(const char *of)
{
	(void)of;
	folder_syncs++;
	errno = EIO;
	return folder_sync_fails ? -1 : 0;
}

static char path[UNIT_PATH_SIZE], meta_path[UNIT_PATH_SIZE], other[UNIT_PATH_SIZE];
static uint8_t right[SIZE], user[2 * SIZE];
static struct datafile d;

static void make_metafile(const char *name)
{
	uint8_t meta[METAFILE_HEADER_SIZE + CHUNKS * SHA256_HASH_SIZE], hash[SHA256_HASH_SIZE];

	unit_hash(right, SIZE, hash);
	metafile_encode_header(meta, SIZE, CHUNK_SIZE, hash);
	for (size_t i = 0; i < CHUNKS; i++)
		unit_hash(right + i * CHUNK_SIZE, i < CHUNKS - 1 ? CHUNK_SIZE : LAST_SIZE,
			  meta + METAFILE_HEADER_SIZE + i * SHA256_HASH_SIZE);
	unit_write_file(name, meta, sizeof meta);
}

static void set_up(void)
{
	for (size_t i = 0; i < sizeof user; i++)
		user[i] = (uint8_t)(i * 13 + 1);
	for (size_t i = 0; i < SIZE; i++)
		right[i] = (uint8_t)(i * 7 + i / 251);
	unit_path(path, "data");
	unit_path(meta_path, "data" METAFILE_SUFFIX);
	unit_path(other, "other");
	make_metafile(meta_path);
}

static void write_data(const void *bytes, size_t size)
{
	unlink(path);
	unit_write_file(path, bytes, size);
}

static int open_data(void)
{
	memset(&d, 0, sizeof d);
	return datafile_open(&d, meta_path, path);
}

/* Gives back what a test has opened; d may be closed already. */
static void end_data(void)
{
	close(d.fd);
	metafile_close(&d.meta);
	held_free(d.held);
}

static bool file_has(const void *bytes, size_t size)
{
	static uint8_t found[3 * SIZE];
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, found, sizeof found);

	close(fd);
	return n == (ssize_t)size && memcmp(found, bytes, size) == 0;
}

static off_t file_size(void)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : -1;
}

static void no_progress(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
}

static int claim(bool force)
{
	return datafile_claim(&d, force, 1, no_progress);
}

/* ---- Opening ---- */

static void test_open(void)
{
	unlink(path);
	CHECK(open_data() == 0 && d.empty && d.not_writable == 0 && !d.too_long && file_size() == 0);
	CHECK(d.path == path && held_count(d.held) == 0 && !datafile_is_checked(&d));
	end_data();
	memset(&d, 0, sizeof d);
	CHECK(datafile_open(&d, meta_path, NULL) == 0 && strcmp(d.path, path) == 0);
	free((char *)(uintptr_t)d.path);
	end_data();
	write_data(user, 2 * SIZE);
	CHECK(open_data() == 0 && !d.empty && d.too_long && file_has(user, 2 * SIZE));
	end_data();
}

/* A program that runs can't be written to, not even by root; it can be served. */
static void test_not_writable(void)
{
	static char program[4096];
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);

	if (n <= 0) {
		unit_skip("the system does not tell where this program is");
		return;
	}
	memset(&d, 0, sizeof d);
	CHECK(datafile_open(&d, meta_path, program) == 0 && d.not_writable == ETXTBSY && d.fd >= 0);
	CHECK(datafile_begin_write(&d) == -1);
	end_data();
}

static void test_what_cannot_be_opened(void)
{
	char nowhere[UNIT_PATH_SIZE];

	memset(&d, 0, sizeof d);
	CHECK(datafile_open(&d, meta_path, unit_path(nowhere, "none/data")) == -1 && d.not_writable == 0);
	CHECK(!datafile_metafile_is_bad(&d));
	end_data();
	memset(&d, 0, sizeof d);
	unit_write_file(other, "no metafile", 11);
	CHECK(datafile_open(&d, other, path) == -1 && datafile_metafile_is_bad(&d));
	unlink(other);
}

static void test_no_regular_file(void)
{
	unlink(path);
	CHECK(mkdir(path, 0777) == 0 && open_data() == -1);
	rmdir(path);
	CHECK(mkfifo(path, 0666) == 0 && open_data() == -1);	/* and it doesn't wait */
	unlink(path);
}

static void test_one_writer(void)
{
	struct datafile first, second = {0};

	write_data("", 0);
	CHECK(open_data() == 0);
	first = d;
	CHECK(datafile_open(&second, meta_path, path) == 0);	/* two may look */
	d = second;
	CHECK(datafile_begin_write(&first) == -1 && file_size() == 0);
	end_data();
	CHECK(datafile_begin_write(&first) == 0 && file_size() == SIZE);
	CHECK(open_data() == -1);
	end_data();
	d = first;
	end_data();
	CHECK(open_data() == 0);
	end_data();
}

static void test_overlap(void)
{
	static struct datafile files[2];
	char second_meta[UNIT_PATH_SIZE];

	make_metafile(unit_path(second_meta, "second" METAFILE_SUFFIX));
	for (int round = 0; round < 3; round++) {
		write_data("", 0);
		unlink(other);
		memset(files, 0, sizeof files);
		CHECK(round != 1 || link(path, other) == 0);
		CHECK(round != 2 || link(meta_path, other) == 0);
		CHECK(datafile_open(&files[0], meta_path, path) == 0);
		CHECK(datafile_open(&files[1], second_meta, other) == 0);
		CHECK(datafile_overlap(files, 2) == (round > 0) && !datafile_overlap(files, 1));
		for (int i = 0; i < 2; i++) {
			d = files[i];
			end_data();
		}
	}
	unlink(other);
}

/* ---- Whose file it is ---- */

static void test_claim(void)
{
	static uint8_t zeros[2 * SIZE], ones[SIZE], one_right[SIZE], too_long[2 * SIZE];

	memset(ones, 0xff, sizeof ones);
	memcpy(one_right, user, SIZE);
	memcpy(one_right + 4 * CHUNK_SIZE, right + 4 * CHUNK_SIZE, CHUNK_SIZE);
	memcpy(too_long, right, SIZE);
	const struct {
		const uint8_t *bytes;
		size_t size;
		bool ours;
	} known[] = {
		{user, 0, true}, {zeros, 1, true}, {zeros, SIZE, true}, {zeros, 2 * SIZE, true},
		{right, SIZE, true}, {right, CHUNK_SIZE, true}, {one_right, SIZE, true},
		{user, 1, false}, {ones, SIZE, false}, {user, SIZE, false}, {user, 2 * SIZE, false},
		{right, CHUNK_SIZE - 1, false}, {too_long, SIZE + 1, false}, {too_long, 2 * SIZE, false},
	};

	for (size_t i = 0; i < LENGTH(known); i++)
		for (int force = 0; force < 2; force++) {
			write_data(known[i].bytes, known[i].size);
			CHECK(open_data() == 0);
			CHECK(claim(force) == (known[i].ours || force ? 0 : -1));
			CHECK(file_has(known[i].bytes, known[i].size));		/* nothing is done yet */
			end_data();
		}
}

static void test_written_to_between(void)
{
	write_data("", 0);
	CHECK(open_data() == 0 && claim(false) == 0);
	unit_write_file(path, user, 10);
	CHECK(datafile_begin_write(&d) == -1 && file_has(user, 10));
	CHECK(datafile_end_check(&d) == -1 && *d.lost);
	end_data();
	write_data(right, SIZE);
	CHECK(open_data() == 0 && datafile_check(&d, 1, false, no_progress) == 0);
	CHECK(datafile_end_check(&d) == 0 && !*d.lost && held_count(d.held) == CHUNKS);
	end_data();
}

/* ---- Marks ---- */

static void test_mark(void)
{
	write_data("", 0);
	CHECK(open_data() == 0 && claim(false) == 0 && datafile_begin_write(&d) == 0);
	CHECK(file_size() == SIZE && datafile_mark(&d) == 0 && file_size() == MARK_END);
	CHECK(datafile_mark(&d) == 0 && file_size() == MARK_END);
	CHECK(pwrite(d.fd, user, 500, 0) == 500);	/* half a chunk, and then it is killed */
	end_data();

	CHECK(open_data() == 0 && d.too_long && claim(false) == 0 && d.marked);
	CHECK(datafile_begin_write(&d) == 0 && file_size() == MARK_END);	/* it is needed still */
	CHECK(datafile_unmark(&d, false) == 0 && file_size() == MARK_END);
	atomic_store(&d.held->proven, true);
	CHECK(datafile_unmark(&d, false) == 0 && file_size() == SIZE && !d.marked);
	CHECK(datafile_mark(&d) == 0 && file_size() == SIZE);			/* proof is enough */
	end_data();
}

static void test_unmarked_when_complete(void)
{
	write_data("", 0);
	CHECK(open_data() == 0 && claim(false) == 0 && datafile_begin_write(&d) == 0);
	CHECK(datafile_mark(&d) == 0 && datafile_unmark(&d, true) == 0 && file_size() == SIZE);
	end_data();
}

/* The mark of another metafile, or one that was changed, is none. */
/* ---- On the disk ---- */

static void begin_to_sync(bool sync)
{
	unlink(path);
	CHECK(open_data() == 0 && claim(false) == 0);
	d.sync = sync;
	CHECK(datafile_begin_write(&d) == 0);
	file_syncs = folder_syncs = 0;
}

static bool were_synced(int files, int folders)
{
	bool so = file_syncs == files && folder_syncs == folders;

	file_syncs = folder_syncs = 0;
	return so;
}

static void test_nothing_is_synced_unasked(void)
{
	file_sync_fails = folder_sync_fails = true;
	begin_to_sync(false);
	CHECK(datafile_mark(&d) == 0 && datafile_unmark(&d, true) == 0 && datafile_close(&d) == 0);
	CHECK(were_synced(0, 0) && !atomic_load(d.lost));
	file_sync_fails = folder_sync_fails = false;
	end_data();
}

static void test_each_step_is_synced(void)
{
	begin_to_sync(true);
	CHECK(datafile_mark(&d) == 0 && d.marked && were_synced(1, 1));
	CHECK(datafile_unmark(&d, true) == 0 && !d.marked && were_synced(1, 0));
	CHECK(datafile_close(&d) == 0 && were_synced(1, 1) && !atomic_load(d.lost));
	end_data();
}

static void test_a_failed_sync_is_an_error(void)
{
	for (int which = 0; which < 2; which++) {
		bool *fails = which == 0 ? &file_sync_fails : &folder_sync_fails;
		begin_to_sync(true);
		*fails = true;
		CHECK(datafile_mark(&d) == EIO);
		CHECK(datafile_unmark(&d, true) == (which == 0 ? -1 : 0) && d.marked == (which == 0));
		CHECK(datafile_close(&d) == -1 && atomic_load(d.lost));
		*fails = false;
		end_data();
	}
}

static void test_a_failed_close_is_an_error(void)
{
	begin_to_sync(false);
	close(d.fd);
	CHECK(datafile_close(&d) == -1 && atomic_load(d.lost));
	end_data();
}

static void test_not_our_mark(void)
{
	for (off_t at = MARK_END - 64; at < MARK_END; at += 21) {
		write_data("", 0);
		CHECK(open_data() == 0 && datafile_begin_write(&d) == 0 && datafile_mark(&d) == 0);
		CHECK(pwrite(d.fd, user, 500, 0) == 500 && pwrite(d.fd, "\1", 1, at) == 1);
		end_data();
		CHECK(open_data() == 0 && claim(false) == -1 && !d.marked && file_size() == MARK_END);
		end_data();
	}
}

/* ---- What others do ---- */

static enum datafile_look look(void)
{
	int fd = open(path, O_RDONLY);
	enum datafile_look seen = datafile_look(&d, fd);

	close(fd);
	return seen;
}

static void test_look(void)
{
	write_data(right, SIZE);
	CHECK(open_data() == 0 && look() == DATAFILE_SAME);
	/* The clock of a file system may stand still for a while. */
	for (mode_t mode = 0600; look() == DATAFILE_SAME; mode ^= 0100)
		CHECK(chmod(path, mode) == 0);
	CHECK(look() == DATAFILE_TOUCHED);
	CHECK(truncate(path, SIZE - 1) == 0 && look() == DATAFILE_CHANGED);
	write_data(right, SIZE);
	CHECK(look() == DATAFILE_OTHER);
	end_data();
	unlink(meta_path);
	make_metafile(meta_path);
	CHECK(open_data() == 0 && look() == DATAFILE_SAME);
	CHECK(truncate(meta_path, METAFILE_HEADER_SIZE) == 0 && look() == DATAFILE_CHANGED);
	end_data();
	make_metafile(meta_path);
}

/* What the fetcher writes is no change, and is the state that counts from its close on. */
static void test_look_while_writing(void)
{
	write_data("", 0);
	CHECK(open_data() == 0 && datafile_begin_write(&d) == 0 && look() == DATAFILE_SAME);
	CHECK(pwrite(d.fd, right, SIZE, 0) == SIZE && look() == DATAFILE_SAME);
	CHECK(datafile_close(&d) == 0 && look() == DATAFILE_SAME);
	CHECK(truncate(path, SIZE + 1) == 0 && look() == DATAFILE_CHANGED);
	metafile_close(&d.meta);
	held_free(d.held);
}

/* Nobody can tell then which bytes it was about to write. */
static void test_look_after_the_writer_was_killed(void)
{
	write_data("", 0);
	CHECK(open_data() == 0);
	datafile_writer_ended(&d);
	CHECK(look() == DATAFILE_SAME);		/* it never wrote */
	end_data();
	CHECK(open_data() == 0 && datafile_begin_write(&d) == 0 && look() == DATAFILE_SAME);
	datafile_writer_ended(&d);
	CHECK(look() == DATAFILE_TOUCHED);
	end_data();
}

static void test_intact(void)
{
	write_data("", 0);
	CHECK(open_data() == 0 && datafile_begin_write(&d) == 0 && datafile_is_intact(&d));
	CHECK(truncate(path, SIZE - 1) == 0 && !datafile_is_intact(&d));
	CHECK(truncate(path, SIZE) == 0 && datafile_is_intact(&d));
	CHECK(unlink(path) == 0 && !datafile_is_intact(&d));
	end_data();
}

/* ---- What is shared ---- */

static void test_shared(void)
{
	write_data("", 0);
	CHECK(open_data() == 0);
	pid_t fetcher = unit_fork();
	if (fetcher == 0) {
		datafile_set_checked(&d);
		datafile_give_up(&d);
		_exit(datafile_begin_write(&d) != 0);
	}
	CHECK(unit_wait(fetcher) == 0);
	datafile_map_read_only(&d);
	CHECK(datafile_is_checked(&d) && *d.lost && look() == DATAFILE_SAME);
	end_data();
}

static void test_bytes(void)
{
	write_data("", 0);
	CHECK(open_data() == 0 && datafile_missing_bytes(&d) == SIZE && datafile_held_bytes(&d, 0) == 0);
	held_add(d.held, 3);
	CHECK(datafile_held_bytes(&d, 1) == CHUNK_SIZE && datafile_missing_bytes(&d) == SIZE - CHUNK_SIZE);
	held_add(d.held, CHUNKS - 1);
	CHECK(datafile_held_bytes(&d, 2) == CHUNK_SIZE + LAST_SIZE);
	for (uint64_t i = 0; i < CHUNKS; i++)
		held_add(d.held, i);
	CHECK(datafile_held_bytes(&d, CHUNKS) == SIZE && datafile_missing_bytes(&d) == 0);
	end_data();
}

static int run_all(void)
{
	log_program("test_datafile");
	set_up();
	RUN(test_open);
	RUN(test_not_writable);
	RUN(test_what_cannot_be_opened);
	RUN(test_no_regular_file);
	RUN(test_one_writer);
	RUN(test_overlap);
	RUN(test_claim);
	RUN(test_written_to_between);
	RUN(test_mark);
	RUN(test_unmarked_when_complete);
	RUN(test_nothing_is_synced_unasked);
	RUN(test_each_step_is_synced);
	RUN(test_a_failed_sync_is_an_error);
	RUN(test_a_failed_close_is_an_error);
	RUN(test_not_our_mark);
	RUN(test_look);
	RUN(test_look_while_writing);
	RUN(test_look_after_the_writer_was_killed);
	RUN(test_intact);
	RUN(test_shared);
	RUN(test_bytes);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
