/* test_datafile.c - the rules that keep a user's file from harm: what may be overwritten, who may
 * write, how a download is marked, and what is noticed of others. */
#include "datafile_common.h"

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

/* ---- On the disk ---- */

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

/* ---- What others do ---- */

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

/* ---- Closing ---- */

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
	CHECK(claim(false) == 0 && datafile_begin_write(&d) == 0 && datafile_mark(&d) == 0 && !d.marked);
	CHECK(datafile_is_intact(&d) && file_has(user, 2 * SIZE));
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
		during_fstat = change_kind;
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
	RUN(test_not_our_mark);
	RUN(test_nothing_is_synced_unasked);
	RUN(test_each_step_is_synced);
	RUN(test_look);
	RUN(test_look_while_writing);
	RUN(test_look_after_the_writer_was_killed);
	RUN(test_intact);
	RUN(test_look_while_it_begins_to_be_written);
	RUN(test_closed_when_lost);
	RUN(test_replaced_before_it_is_closed);
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
