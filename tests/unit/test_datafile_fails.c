/* test_datafile_fails.c - what becomes of a data file when a call of the system fails, and what is said
 * of that. */
#include "datafile_common.h"

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

/* ---- What is said ---- */

/* Calls act, and counts the lines that say this among what it writes to standard error. */
static int lines_of(void (*act)(void), const char *words)
{
	static char text[16384];
	char log_path[UNIT_PATH_SIZE];
	int log = open(unit_path(log_path, "log"), O_RDWR | O_CREAT | O_TRUNC, 0666);
	int keep = dup(STDERR_FILENO), count = 0;

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
	static const char *const words[] = {
		"chunk 7 is damaged", "can't be opened: Permission denied", "was changed",
	};

	write_data("", 0);
	for (size_t i = 0; i < LENGTH(words); i++) {
		CHECK(open_data() == 0 && lines_of(lose_in_two_processes, words[i]) == 1 && *d.lost);
		end_data();
	}
}

static void fail_to_open(void)
{
	write_data("", 0);
	fail("flock", ENOLCK, 1);
	open_data();
	end_data();
	fail("fstat", ENFILE, 1);
	open_data();
	end_data();
	during_fstat = change_kind;
	open_data();
	end_data();
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

static void fail_to_open_twice(void)
{
	static struct datafile files[2];
	struct datafile second = {0};

	open_data();
	files[0] = files[1] = d;
	datafile_overlap(files, 2);
	fail("fstat", EBUSY, 1);
	datafile_overlap(&d, 1);
	datafile_open(&second, meta_path, path);
	datafile_begin_write(&second);
	close(second.fd);
	metafile_close(&second.meta);
	held_free(second.held);
	end_data();
}

static void fail_to_write(void)
{
	open_data();
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
	fail("fstat", EDOM, 1);
	datafile_is_intact(&d);
	end_data();
}

static void fail_to_check(void)
{
	for (size_t size = SIZE; size <= 2 * SIZE; size += SIZE) {
		write_data(user, size);
		open_data();
		claim(true);
		claim(false);
		end_data();
	}
	open_data();
	fail("fstat", ERANGE, 1);
	datafile_end_check(&d);
	close(d.fd);
	datafile_check(&d, 1, false, no_progress);
	end_data();
}

static void fail_with_a_device(void)
{
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
}

static void fail_in_each_way(void)
{
	fail_to_open();
	fail_to_open_twice();
	fail_to_write();
	fail_to_check();
	fail_with_a_device();
}

/* Each failure is said with its reason, and the file's name. */
static void test_each_failure_is_said(void)
{
	static const struct {
		int error;	/* 0: the words alone */
		const char *words;
	} known[] = {
		{ENOLCK, "/data: can't be locked: "},
		{ENFILE, "/data: "},
		{0, "/data: not a regular file or a block device\n"},
		{EBUSY, "/data: "},
		{0, "/data: its name doesn't end in .cascade\n"},
		{ENOMEM, "/data.cascade: "},
		{0, "/data: it can't be the data file of two metafiles\n"},
		{EBUSY, "/data.cascade: "},
		{0, "/data: another process is downloading it\n"},
		{ENOTTY, "/data: "},
		{EFBIG, "/data: can't be given its length of 9300 bytes: "},
		{EIO, "/data: can't be put onto the disk: "},
		{EPERM, "/data: can't be given its length: "},
		{EDOM, "/data: "},
		{0, "/data: is overwritten, though no part of it belongs to "},
		{0, "/data: left alone: no part of it belongs to "},
		{0, "/data: is cut from 18600 bytes to 9300, and overwritten\n"},
		{0, "/data: left alone: it has 18600 bytes, and "},
		{ERANGE, "/data: can't be looked at; it is not served any more: "},
		{EBADF, "/data: can't be checked: "},
		{0, "/data: what is missing is written to this device\n"},
		{ESPIPE, "/data: "},
		{ENXIO, "/data: "},
		{0, "/data: left alone: it is mounted, or in use\n"},
		{EISDIR, "/data: "},
	};

	for (size_t i = 0; i < LENGTH(known); i++) {
		char line[256];
		if (known[i].error != 0)
			snprintf(line, sizeof line, "%s%s\n", known[i].words, strerror(known[i].error));
		else
			snprintf(line, sizeof line, "%s", known[i].words);
		if (!CHECK(lines_of(fail_in_each_way, line) == 1))
			fprintf(stderr, "not said once: %s", line);
	}
}

static int run_all(void)
{
	log_program("test_datafile_fails");
	set_up();
	RUN(test_no_memory);
	RUN(test_open_for_reading_only);
	RUN(test_file_that_cannot_be_looked_at);
	RUN(test_lock_fails);
	RUN(test_cannot_be_checked);
	RUN(test_length_fails);
	RUN(test_mark_fails);
	RUN(test_a_failed_sync_is_an_error);
	RUN(test_a_failed_close_is_an_error);
	RUN(test_said_once);
	RUN(test_each_failure_is_said);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
