/* test_datafile.c - the rules that keep a user's file from harm: what may be overwritten, who may
 * write, how a download is marked, and what is noticed of others. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/retry.h"
#include "file/held.h"
#include "file/metafile.h"
#include "file/sync.h"
#include "unit.h"

/* ---- Faults on demand ---- */

/* datafile.c is included, not linked: calls in it fail by name, and a file can seem to be a
 * block device. */
static struct {
	const char *call;	/* NULL: none fails */
	int error;
	int times;		/* that it fails, from the first call on; -1: always */
} fault;
static bool seems_device;
static void (*during_fstat)(void);	/* called once, by the next fstat */

static bool is_to_fail(const char *call)
{
	if (fault.call == NULL || strcmp(fault.call, call) != 0 || fault.times == 0)
		return false;
	fault.times -= fault.times > 0;
	errno = fault.error;
	return true;
}

static void fail(const char *call, int error, int times)
{
	fault.call = call;
	fault.error = error;
	fault.times = times;
}

static int disguise(int result, struct stat *st)
{
	if (result == 0 && seems_device && S_ISREG(st->st_mode))
		st->st_mode = S_IFBLK | 0600;
	return result;
}

static int fstat_for_test(int fd, struct stat *st)
{
	void (*hook)(void) = during_fstat;

	during_fstat = NULL;
	if (hook != NULL)
		hook();
	return is_to_fail("fstat") ? -1 : disguise(fstat(fd, st), st);
}

#define fstat(fd, st) fstat_for_test(fd, st)
#define stat(path, st) (is_to_fail("stat") ? -1 : disguise(stat(path, st), st))
#define flock(...) (is_to_fail("flock") ? -1 : flock(__VA_ARGS__))
#define ftruncate(...) (is_to_fail("ftruncate") ? -1 : ftruncate(__VA_ARGS__))
#define retry_open(path, flags, mode) (is_to_fail((flags) & O_RDWR ? "open" : "open to read") ? -1 : retry_open(path, flags, mode))
#define io_read_at(...) (is_to_fail("read") ? -1 : io_read_at(__VA_ARGS__))
#define io_write_at(...) (is_to_fail("write") ? fault.error : io_write_at(__VA_ARGS__))
#define io_file_size(...) (is_to_fail("size") ? -1 : io_file_size(__VA_ARGS__))
#define memory_shared(size) (is_to_fail("memory") ? NULL : memory_shared(size))
#define held_new(...) (is_to_fail("held") ? NULL : held_new(__VA_ARGS__))
#define metafile_data_path(path) (is_to_fail("path") ? NULL : metafile_data_path(path))
#include "file/datafile.c"
#undef fstat
#undef stat
#undef flock
#undef ftruncate
#undef retry_open
#undef io_read_at
#undef io_write_at
#undef io_file_size
#undef memory_shared
#undef held_new
#undef metafile_data_path

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

/* ---- What is said ---- */

/* Calls act, and counts the lines that say this among what it writes to standard error. */
static int lines_of(void (*act)(void), const char *words)
{
	static char text[16384];
	char log_path[UNIT_PATH_SIZE];
	int keep = dup(STDERR_FILENO), log = open(unit_path(log_path, "log"), O_RDWR | O_CREAT | O_TRUNC, 0666), count = 0;

	dup2(log, STDERR_FILENO);
	act();
	dup2(keep, STDERR_FILENO);
	text[pread(log, text, sizeof text - 1, 0)] = '\0';
	for (char *at = text; (at = strstr(at, words)) != NULL; at++)
		count++;
	close(keep);
	close(log);
	return count;
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
		files[1].device++;	/* the same number on another device is another file */
		CHECK(!datafile_overlap(files, 2));
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

/* Then nothing is known of the file, and nothing is overwritten. */
static void test_cannot_be_checked(void)
{
	write_data(user, SIZE);
	CHECK(open_data() == 0 && close(d.fd) == 0);
	CHECK(datafile_check(&d, 1, false, no_progress) == -1 && !*d.lost);
	end_data();
	for (int round = 0; round < 2; round++) {
		CHECK(open_data() == 0 && truncate(meta_path, METAFILE_HEADER_SIZE) == 0);
		CHECK((round == 0 ? datafile_check(&d, 1, false, no_progress) : claim(true)) == -1 && *d.lost);
		end_data();
		make_metafile(meta_path);
	}
	CHECK(file_has(user, SIZE));
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

/* The mark of another metafile, or one that was changed, is none. */
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

/* Between two looks at it, the file was stamped anew: no look says anything then. */
static void begin_to_write(void)
{
	drop_stamp(&d);
}

static void test_look_while_it_begins_to_be_written(void)
{
	write_data(right, SIZE);
	CHECK(open_data() == 0 && truncate(path, SIZE - 1) == 0);
	during_fstat = begin_to_write;
	CHECK(look() == DATAFILE_SAME);
	end_data();
}

/* ---- Calls that fail ---- */

static void test_no_memory(void)
{
	static const char *const calls[] = {"path", "held", "memory"};

	write_data("", 0);
	for (size_t i = 0; i < LENGTH(calls); i++) {
		int before = unit_open_fds(), result = 0;
		pid_t pid = unit_fork();	/* no page of flags is there yet */
		if (pid == 0) {
			fail(calls[i], ENOMEM, 1);
			memset(&d, 0, sizeof d);
			result = datafile_open(&d, meta_path, NULL);
			_exit(result == -1 && fault.times == 0 && !datafile_metafile_is_bad(&d));
		}
		CHECK(unit_wait(pid) == 1 && unit_open_fds() == before);
	}
}

static void test_file_that_cannot_be_looked_at(void)
{
	int before = unit_open_fds();

	write_data(user, SIZE);
	fail("fstat", EIO, 1);
	CHECK(open_data() == -1 && fault.times == 0);
	end_data();
	fail("stat", EIO, 1);		/* then it is no device, as far as one can see */
	CHECK(open_data() == 0 && !d.is_device);
	fail("fstat", EIO, 1);
	CHECK(datafile_begin_write(&d) == -1 && file_has(user, SIZE));
	fail("fstat", EIO, 1);
	CHECK(!datafile_is_intact(&d) && datafile_is_intact(&d));
	fail("fstat", EIO, 1);
	CHECK(look() == DATAFILE_OTHER && look() == DATAFILE_SAME);
	for (int round = 0; round < 2; round++) {	/* and it is said once */
		fail("fstat", EIO, 1);
		CHECK(datafile_end_check(&d) == -1 && *d.lost);
	}
	fail("fstat", EIO, 1);
	CHECK(datafile_overlap(&d, 1));		/* nothing shows that they don't */
	end_data();
	CHECK(unit_open_fds() == before);
}

static void test_open_for_reading_only(void)
{
	static const int refusals[] = {EACCES, EROFS, EPERM, ETXTBSY}, others[] = {EIO, ENOENT, EISDIR};

	write_data(right, SIZE);
	for (size_t i = 0; i < LENGTH(refusals); i++) {
		fail("open", refusals[i], 1);
		CHECK(open_data() == 0 && d.not_writable == refusals[i] && datafile_begin_write(&d) == -1);
		end_data();
	}
	for (size_t i = 0; i < LENGTH(others); i++) {
		fail("open", others[i], 1);
		CHECK(open_data() == -1 && d.not_writable == 0 && d.fd < 0);
		metafile_close(&d.meta);
	}
}

static void test_lock_fails(void)
{
	write_data(user, SIZE);
	fail("flock", EINTR, 3);
	CHECK(open_data() == 0 && fault.times == 0);
	end_data();
	fail("flock", ENOLCK, 1);
	CHECK(open_data() == -1);
	end_data();
	CHECK(open_data() == 0);
	fail("flock", ENOLCK, 1);
	CHECK(datafile_begin_write(&d) == -1 && file_has(user, SIZE));
	end_data();
}

static void test_length_fails(void)
{
	write_data("", 0);
	CHECK(open_data() == 0);
	fail("ftruncate", EFBIG, 1);
	CHECK(datafile_begin_write(&d) == -1);
	end_data();
	CHECK(open_data() == 0);
	fail("ftruncate", EINTR, 3);
	CHECK(datafile_begin_write(&d) == 0 && fault.times == 0 && file_size() == SIZE);
	CHECK(datafile_mark(&d) == 0);
	fail("ftruncate", EIO, 1);
	CHECK(datafile_unmark(&d, true) == -1 && d.marked && file_size() == MARK_END);
	CHECK(datafile_unmark(&d, true) == 0 && !d.marked && file_size() == SIZE);
	end_data();
}

/* A file that can't be longer does without a mark; any other failure is one. */
static void test_mark_fails(void)
{
	static const int lengths[] = {EFBIG, EINVAL};

	for (size_t i = 0; i < LENGTH(lengths); i++) {
		begin_to_sync(true);
		fail("write", lengths[i], 1);
		CHECK(datafile_mark(&d) == 0 && d.marked && file_size() == SIZE && were_synced(0, 0));
		CHECK(datafile_mark(&d) == 0 && file_size() == SIZE);
		end_data();
	}
	begin_to_sync(true);
	fail("write", ENOSPC, 1);
	CHECK(datafile_mark(&d) == ENOSPC && !d.marked && were_synced(0, 0));
	CHECK(datafile_mark(&d) == 0 && d.marked && file_size() == MARK_END);
	end_data();
	CHECK(open_data() == 0);
	fail("read", EIO, 1);
	CHECK(claim(false) == -1 && !d.marked);		/* what can't be read is no mark */
	end_data();
	CHECK(open_data() == 0 && claim(false) == 0 && d.marked);
	end_data();
}

/* What is lost is said once. */
static void test_closed_when_lost(void)
{
	begin_to_sync(false);
	datafile_give_up(&d);
	close(d.fd);
	CHECK(datafile_close(&d) == -1 && atomic_load(d.lost));
	end_data();
}

/* Another file at its path says nothing of it. */
static void test_replaced_before_it_is_closed(void)
{
	for (int round = 0; round < 2; round++) {
		struct stamp before;
		begin_to_sync(false);
		before = d.shared->stamp;
		CHECK(unlink(path) == 0);
		if (round == 0)
			unit_write_file(path, right, SIZE);
		CHECK(datafile_close(&d) == 0 && stamp_is_same(&d.shared->stamp, &before));
		CHECK(!stamp_counts(atomic_load(&d.shared->phase)));
		end_data();
	}
}

static int open_device(bool force)
{
	memset(&d, 0, sizeof d);
	d.force = force;
	return datafile_open(&d, meta_path, path);
}

/* What may happen again and again is said once, in whichever process. */
static void lose(void)
{
	datafile_say_damaged(&d, 7);
	datafile_say_missing(&d, EACCES);
	datafile_give_up(&d);
}

static void lose_in_two_processes(void)
{
	for (int round = 0; round < 2; round++) {
		pid_t pid = unit_fork();
		if (pid == 0) {
			lose();
			_exit(0);
		}
		unit_wait(pid);
	}
	lose();
}

static void test_said_once(void)
{
	static const char *const words[] = {"chunk 7 is damaged", "can't be opened: Permission denied", "was changed"};

	write_data("", 0);
	for (size_t i = 0; i < LENGTH(words); i++) {
		CHECK(open_data() == 0 && lines_of(lose_in_two_processes, words[i]) == 1 && *d.lost);
		end_data();
	}
}

static void become(void)
{
	seems_device = !seems_device;
}

/* Each failure is said with its reason, and the file's name. */
static void try_all(void)
{
	static struct datafile files[2];
	struct datafile second = {0};

	write_data("", 0);
	fail("flock", ENOLCK, 1);
	open_data();
	end_data();
	fail("fstat", ENFILE, 1);
	open_data();
	end_data();
	during_fstat = become;
	open_data();
	end_data();
	seems_device = false;
	open_data();
	files[0] = files[1] = d;
	datafile_overlap(files, 2);
	datafile_open(&second, meta_path, path);
	datafile_begin_write(&second);
	close(second.fd);
	metafile_close(&second.meta);
	held_free(second.held);
	fail("fstat", ENOTTY, 1);
	datafile_begin_write(&d);
	fail("ftruncate", EFBIG, 1);
	datafile_begin_write(&d);
	end_data();
	begin_to_sync(true);
	datafile_mark(&d);
	file_sync_fails = true;
	datafile_unmark(&d, true);
	file_sync_fails = false;
	fail("ftruncate", EPERM, 1);
	datafile_unmark(&d, true);
	fail("fstat", EBUSY, 1);
	datafile_overlap(&d, 1);
	fail("fstat", EDOM, 1);
	datafile_is_intact(&d);
	fail("fstat", ERANGE, 1);
	datafile_end_check(&d);
	end_data();
	for (size_t size = SIZE; size <= 2 * SIZE; size += SIZE) {
		write_data(user, size);
		open_data();
		claim(true);
		claim(false);
		end_data();
	}
	open_data();
	close(d.fd);
	datafile_check(&d, 1, false, no_progress);
	end_data();
	seems_device = true;
	open_device(true);
	claim(false);
	end_data();
	fail("size", ESPIPE, 1);
	open_device(true);
	end_data();
	fail("open to read", ENXIO, 1);
	open_device(false);
	metafile_close(&d.meta);
	fail("open", EBUSY, 1);
	open_device(true);
	metafile_close(&d.meta);
	fail("open", EISDIR, 1);
	open_device(true);
	metafile_close(&d.meta);
	seems_device = false;
	fail("open", EBUSY, 1);
	open_data();
	metafile_close(&d.meta);
	memset(&d, 0, sizeof d);
	datafile_open(&d, path, path);
	fail("held", ENOMEM, 1);
	memset(&d, 0, sizeof d);
	datafile_open(&d, meta_path, path);
	metafile_close(&d.meta);
}

static void test_each_failure_is_said(void)
{
	static const struct {
		int error;	/* 0: the words alone */
		const char *words;
	} known[] = {
		{ENOLCK, "/data: can't be locked: "}, {ENFILE, "/data: "}, {0, "/data: another process is downloading it\n"},
		{ENOTTY, "/data: "}, {EFBIG, "/data: can't be given its length of 9300 bytes: "},
		{EIO, "/data: can't be put onto the disk: "}, {EPERM, "/data: can't be given its length: "},
		{EBUSY, "/data.cascade: "}, {EDOM, "/data: "}, {ERANGE, "/data: can't be looked at; it is not served any more: "},
		{ESPIPE, "/data: "}, {ENXIO, "/data: "}, {0, "/data: its name doesn't end in .cascade\n"},
		{ENOMEM, "/data.cascade: "}, {0, "/data: left alone: it is mounted, or in use\n"},
		{EISDIR, "/data: "}, {EBUSY, "/data: "}, {0, "/data: not a regular file or a block device\n"},
		{0, "/data: it can't be the data file of two metafiles\n"}, {EBADF, "/data: can't be checked: "},
		{0, "/data: is overwritten, though no part of it belongs to "}, {0, "/data: left alone: no part of it belongs to "},
		{0, "/data: is cut from 18600 bytes to 9300, and overwritten\n"},
		{0, "/data: left alone: it has 18600 bytes, and "}, {0, "/data: what is missing is written to this device\n"},
	};

	for (size_t i = 0; i < LENGTH(known); i++) {
		char line[256];
		snprintf(line, sizeof line, "%s%s%s", known[i].words, known[i].error != 0 ? strerror(known[i].error) : "",
			 known[i].error != 0 ? "\n" : "");
		if (!CHECK(lines_of(try_all, line) == 1))
			fprintf(stderr, "not said once: %s", line);
	}
}

/* ---- Block devices ---- */

static void test_device(void)
{
	write_data(user, 2 * SIZE);
	seems_device = true;
	CHECK(open_device(false) == 0 && d.is_device && d.not_writable == EPERM && !d.too_long && !d.empty);
	CHECK(claim(false) == 0 && datafile_begin_write(&d) == -1 && file_has(user, 2 * SIZE));
	CHECK(!datafile_is_new_from(&d, 3 * SIZE));
	end_data();
	CHECK(open_device(true) == 0 && d.not_writable == 0 && !d.too_long);
	CHECK(claim(false) == 0 && datafile_begin_write(&d) == 0 && datafile_mark(&d) == 0 && datafile_is_intact(&d));
	CHECK(file_has(user, 2 * SIZE) && !d.marked);
	file_syncs = folder_syncs = 0;
	CHECK(datafile_close(&d) == 0 && were_synced(1, 0));	/* unasked: a device may be taken out */
	end_data();
	write_data("", 0);
	fail("size", EIO, 1);
	CHECK(open_device(true) == -1 && fault.times == 0);
	end_data();
	write_data(user, SIZE - 1);		/* too small */
	CHECK(open_device(true) == -1);
	end_data();
	write_data(user, SIZE);
	CHECK(open_device(true) == 0);
	end_data();
	fail("open to read", EIO, 1);
	CHECK(open_device(false) == -1 && fault.times == 0);
	metafile_close(&d.meta);
	for (int round = 0; round < 2; round++) {
		fail("open", round == 0 ? EBUSY : EIO, 1);
		CHECK(open_device(true) == -1 && d.not_writable == 0);
		metafile_close(&d.meta);
	}
	seems_device = false;
	CHECK(open_device(true) == 0 && !d.is_device && datafile_begin_write(&d) == 0);
	end_data();
}

/* It was a device when it was first looked at, and a file when it was open; and the reverse. */
static void test_device_that_is_none_any_more(void)
{
	write_data(user, SIZE);
	for (int was = 0; was < 2; was++) {
		seems_device = was;
		during_fstat = become;
		CHECK(open_device(true) == -1 && d.is_device == was);
		end_data();
	}
	seems_device = false;
	CHECK(file_has(user, SIZE));
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
	pid_t server = unit_fork();
	if (server == 0) {
		held_add(d.held, 0);
		_exit(0);
	}
	CHECK(unit_wait(server) != 0 && held_count(d.held) == 0);	/* it has ended for that */
	CHECK(datafile_is_checked(&d) && *d.lost && look() == DATAFILE_SAME);
	end_data();
}

static void test_new_bytes(void)
{
	write_data(user, 100);
	CHECK(open_data() == 0 && datafile_is_new_from(&d, 100) && !datafile_is_new_from(&d, 99));
	end_data();
	write_data("", 0);
	CHECK(open_data() == 0 && datafile_is_new_from(&d, 0));
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
	RUN(test_no_memory);
	RUN(test_open);
	RUN(test_not_writable);
	RUN(test_what_cannot_be_opened);
	RUN(test_no_regular_file);
	RUN(test_one_writer);
	RUN(test_overlap);
	RUN(test_claim);
	RUN(test_cannot_be_checked);
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
	RUN(test_look_while_it_begins_to_be_written);
	RUN(test_file_that_cannot_be_looked_at);
	RUN(test_open_for_reading_only);
	RUN(test_lock_fails);
	RUN(test_length_fails);
	RUN(test_mark_fails);
	RUN(test_closed_when_lost);
	RUN(test_replaced_before_it_is_closed);
	RUN(test_said_once);
	RUN(test_each_failure_is_said);
	RUN(test_device);
	RUN(test_device_that_is_none_any_more);
	RUN(test_shared);
	RUN(test_new_bytes);
	RUN(test_bytes);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
