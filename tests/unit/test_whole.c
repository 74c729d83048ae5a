/* test_whole.c - whether a data file has the hash of the whole: with files that are right, wrong,
 * too short and too long. */
#include "file/whole.h"
#include "file/check.h"
#include "check_common.h"

static void count_up(void *arg, uint64_t bytes)
{
	uint64_t *before = arg;

	CHECK(bytes > *before && bytes <= m.length);
	*before = bytes;
}

static int check_the_whole(int from)
{
	uint64_t shown = 0;
	int right = whole_check(&m, from, count_up, &shown), saved = errno;

	CHECK(right < 0 || shown == m.length);
	errno = saved;
	return right;
}

static void test_whole_hash(void)
{
	static const uint64_t length[] = {1, 384 * KIB - 1, 384 * KIB, 384 * KIB + 1, 2 * MIB};

	for (size_t i = 0; i < LENGTH(length); i++) {
		open_full(length[i], 1000);
		CHECK(check_the_whole(fd) == 1);
		put_at(length[i], "more", 4);	/* not the file's any more */
		CHECK(check_the_whole(fd) == 1);
		int blind = open(data_path, O_WRONLY);
		CHECK(check_the_whole(blind) == -1 && errno == EBADF);
		close(blind);
		spoil(m.chunks - 1);
		CHECK(check_the_whole(fd) == 0);
		mend(m.chunks - 1);
		spoil(0);
		CHECK(check_the_whole(fd) == 0);
		set_length(length[i] - 1);
		CHECK(check_the_whole(fd) == -1 && errno == EIO);
		close_files();
	}
}

/* What was read of a file that then ended is not taken for another file's. */
static void test_whole_cut_then_other(void)
{
	open_full(300 * KIB, KIB);
	set_length(290 * KIB);
	CHECK(check_the_whole(fd) == -1 && errno == EIO);
	close_files();
	for (size_t i = 0; i < 300 * KIB; i++)
		want[i] ^= 1;
	open_full(300 * KIB, KIB);
	struct run run = a_run(0, m.chunks);
	check_runs(&m, fd, &run, 1, held);
	CHECK(is_run(&run, 0, m.chunks, 0, 0) && all_held_but(0, 0));
	close_files();
	fill_want();
}

static int run_all(void)
{
	set_up();
	RUN(test_whole_hash);
	RUN(test_whole_cut_then_other);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
