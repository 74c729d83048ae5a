/* test_check.c - which chunks of a data file count as held, whoever looks: check_runs, the
 * workers at the start, the checker; with files that are wrong, too short, or full of holes. */
#include "../../check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

/* process.c is included, not linked, so that its fork can fail, or its child end at once. */
static pid_t fork_for_test(void);
#define fork fork_for_test
#if defined(__GLIBC__) && !defined(PORTABLE)
#define _Fork fork_for_test
#endif
#include "../../process.c"
#undef fork
#undef _Fork

#define TIME_LIMIT 20		/* seconds, for the whole program */

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define WANT_SIZE (16 * MIB)

/* ---- Faults on demand ---- */

static int forks_that_work = INT_MAX;	/* until none does any more */
static int doomed_fork = -1;		/* this one's child is killed before it does anything */

static pid_t fork_for_test(void)
{
	pid_t pid;

	if (forks_that_work == 0) {
		errno = EAGAIN;
		return -1;
	}
	forks_that_work--;
	pid = fork();
	if (pid == 0 && doomed_fork == 0)
		kill(getpid(), SIGKILL);
	doomed_fork--;
	return pid;
}

static void forks_work_again(void)
{
	forks_that_work = INT_MAX;
	doomed_fork = -1;
}

/* ---- A data file and its metafile ---- */

static char scratch[] = "/tmp/test_check.XXXXXX";	/* a directory, main removes it */
static char data_path[64], meta_path[64], said_path[64];
static uint8_t want[WANT_SIZE];		/* what the metafile promises: hashes of this */
static struct metafile m;
static struct held *held;
static int fd;				/* the data file, for reading and writing */

static void hash_of(const uint8_t *data, size_t len, uint8_t hash[SHA256_HASH_SIZE])
{
	SHA256_CTX ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, data, len);
	sha256_final(&ctx, hash);
}

static void put_at(uint64_t offset, const void *bytes, uint64_t size)
{
	if (pwrite(fd, bytes, (size_t)size, (off_t)offset) != (ssize_t)size)
		abort();
}

static void set_length(uint64_t length)
{
	if (ftruncate(fd, (off_t)length) < 0)
		abort();
}

static void fill_want(void)
{
	uint32_t x = 2463534242;

	for (size_t i = 0; i < sizeof want; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		want[i] = (uint8_t)(x >> 11);
	}
}

/* Makes and opens both files, for the first bytes of want; the data file holds nothing yet. */
static void open_empty(uint64_t length, uint64_t chunk_size)
{
	uint64_t chunks = metafile_chunk_count(length, chunk_size);
	size_t size = METAFILE_HEADER_SIZE + (size_t)chunks * SHA256_HASH_SIZE;
	uint8_t *meta = malloc(size), hash[SHA256_HASH_SIZE];
	const char *why;
	int meta_fd = open(meta_path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (meta == NULL || meta_fd < 0)
		abort();
	hash_of(want, (size_t)length, hash);
	metafile_encode_header(meta, length, chunk_size, hash);
	for (uint64_t i = 0; i < chunks; i++) {
		uint64_t at = i * chunk_size, left = length - at;
		hash_of(want + at, (size_t)(left < chunk_size ? left : chunk_size),
			meta + METAFILE_HEADER_SIZE + i * SHA256_HASH_SIZE);
	}
	if (write(meta_fd, meta, size) != (ssize_t)size || close(meta_fd) < 0)
		abort();
	free(meta);
	fd = open(data_path, O_RDWR | O_CREAT | O_TRUNC, 0666);
	held = held_new(chunks);
	if (fd < 0 || held == NULL || metafile_open(&m, meta_path, &why) < 0)
		abort();
}

static void open_full(uint64_t length, uint64_t chunk_size)
{
	open_empty(length, chunk_size);
	put_at(0, want, length);
}

static void close_both(void)
{
	close(fd);
	metafile_close(&m);
	held_free(held);
}

static void forget_held(void)
{
	held_free(held);
	held = held_new(m.chunks);
	if (held == NULL)
		abort();
}

/* Whether all chunks are held but those from first on, count of them. */
static bool all_held_but(uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < m.chunks; i++)
		if (held_has(held, i) == (i >= first && i < first + count))
			return false;
	return held_count(held) == m.chunks - count;
}

static void spoil(uint64_t chunk)
{
	uint64_t at = metafile_chunk_offset(&m, chunk) + metafile_chunk_length(&m, chunk) / 2;
	uint8_t wrong = want[at] ^ 1;

	put_at(at, &wrong, 1);
}

static void mend(uint64_t chunk)
{
	uint64_t at = metafile_chunk_offset(&m, chunk) + metafile_chunk_length(&m, chunk) / 2;

	put_at(at, want + at, 1);
}

/* ---- Runs ---- */

static const uint64_t chunk_sizes[] = {1, 63, 64, 1000, 1024, 128 * KIB, MIB + 1};
#define CHUNK_SIZES (sizeof chunk_sizes / sizeof chunk_sizes[0])

/* So many chunks that some don't fit into what is read at once. */
static uint64_t chunks_for(uint64_t chunk_size)
{
	return chunk_size == 1 ? 1000 : chunk_size < 100 ? 6500 : chunk_size < KIB * 2 ? 401 : 5;
}

/* Results that were not set would be seen. */
static struct run a_run(uint64_t first, uint64_t count)
{
	return (struct run){.first = first, .count = count, .peer = 77, .error = 99, .bad = 99};
}

static bool is_run(const struct run *r, uint64_t first, uint64_t count, uint64_t bad, int error)
{
	return r->first == first && r->count == count && r->peer == 77 && r->bad == bad &&
	       r->error == error;
}

static void test_good_runs(void)
{
	for (size_t s = 0; s < CHUNK_SIZES; s++)
		for (int more = -1; more <= 1; more++) {
			uint64_t n = chunks_for(chunk_sizes[s]);
			open_full(n * chunk_sizes[s] + (uint64_t)(int64_t)more, chunk_sizes[s]);
			struct run run = a_run(0, m.chunks);
			check_runs(&m, fd, &run, 1, held);
			CHECK(is_run(&run, 0, m.chunks, 0, 0) && all_held_but(0, 0));
			close_both();
		}
}

/* The same chunks in runs of all lengths, and not in order. */
static void test_cut_into_runs(void)
{
	static struct run runs[7000];

	srand(7);
	for (size_t s = 0; s < CHUNK_SIZES; s++) {
		open_full((chunks_for(chunk_sizes[s]) - 1) * chunk_sizes[s] + 1, chunk_sizes[s]);
		for (int round = 0; round < 4; round++) {
			size_t count = 0;
			bool right = true;

			for (uint64_t at = 0; at < m.chunks; ) {
				uint64_t left = m.chunks - at, n = 1 + (uint64_t)rand() % (round == 0 ? 1 : 9);
				runs[count++] = a_run(at, n < left ? n : left);
				at += n;
			}
			for (size_t i = 0; i < count && round > 1; i++) {
				size_t k = (size_t)rand() % count;
				struct run swapped = runs[i];
				runs[i] = runs[k];
				runs[k] = swapped;
			}
			forget_held();
			check_runs(&m, fd, runs, count, held);
			for (size_t i = 0; i < count; i++)
				right = right && runs[i].bad == 0 && runs[i].error == 0 && runs[i].peer == 77;
			CHECK(right && all_held_but(0, 0));
		}
		close_both();
	}
}

/* What is not asked for is not looked at. */
static void test_part_of_the_file(void)
{
	open_full(100 * KIB, KIB);
	struct run runs[] = {a_run(10, 5), a_run(99, 1), a_run(50, 0)};
	check_runs(&m, fd, runs, 3, held);
	CHECK(is_run(&runs[0], 10, 5, 0, 0) && is_run(&runs[1], 99, 1, 0, 0));
	CHECK(is_run(&runs[2], 50, 0, 0, 0));
	for (uint64_t i = 0; i < 100; i++)
		CHECK(held_has(held, i) == ((i >= 10 && i < 15) || i == 99));
	check_runs(&m, fd, NULL, 0, held);
	CHECK(held_count(held) == 6);
	close_both();
}

/* One wrong bit is found, in its chunk and in its run. */
static void test_one_wrong_chunk(void)
{
	for (size_t s = 0; s < CHUNK_SIZES; s++) {
		open_full(chunks_for(chunk_sizes[s]) * chunk_sizes[s] - chunk_sizes[s] / 3, chunk_sizes[s]);
		const uint64_t wrong[] = {0, 1, m.chunks / 2, m.chunks - 2, m.chunks - 1};
		for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
			uint64_t half = m.chunks / 2;
			struct run whole = a_run(0, m.chunks);
			struct run halves[] = {a_run(0, half), a_run(half, m.chunks - half)};
			spoil(wrong[i]);
			forget_held();
			check_runs(&m, fd, &whole, 1, held);
			CHECK(is_run(&whole, 0, m.chunks, 1, 0) && all_held_but(wrong[i], 1));
			forget_held();
			check_runs(&m, fd, halves, 2, held);
			CHECK(is_run(&halves[0], 0, half, wrong[i] < half, 0));
			CHECK(is_run(&halves[1], half, m.chunks - half, wrong[i] >= half, 0));
			CHECK(all_held_but(wrong[i], 1));
			mend(wrong[i]);
		}
		close_both();
	}
}

static void test_all_wrong(void)
{
	static const uint8_t zeros[10 * 1000];

	open_empty(10000, 1000);
	put_at(0, zeros, sizeof zeros);
	struct run run = a_run(0, 10);
	check_runs(&m, fd, &run, 1, held);
	CHECK(is_run(&run, 0, 10, 10, 0) && held_count(held) == 0 && !held->some);
	close_both();
}

/* A chunk in another's place is as wrong as any. */
static void test_chunks_exchanged(void)
{
	open_full(10 * KIB, KIB);
	put_at(2 * KIB, want + 3 * KIB, KIB);
	put_at(3 * KIB, want + 2 * KIB, KIB);
	struct run run = a_run(0, 10);
	check_runs(&m, fd, &run, 1, held);
	CHECK(is_run(&run, 0, 10, 2, 0) && all_held_but(2, 2));
	close_both();
}

/* Of a file that is too short, what can be read counts, and the rest is an error. */
static void test_file_too_short(void)
{
	for (size_t s = 1; s < CHUNK_SIZES; s++) {
		uint64_t size = chunk_sizes[s];
		open_full(chunks_for(size) * size, size);
		const uint64_t length[] = {(m.chunks - 1) * size, m.length - 1, 2 * size, 2 * size + 1, 0};
		for (size_t i = 0; i < sizeof length / sizeof length[0]; i++) {
			uint64_t there = length[i] / size;
			struct run run = a_run(0, m.chunks);
			set_length(length[i]);
			forget_held();
			check_runs(&m, fd, &run, 1, held);
			CHECK(is_run(&run, 0, m.chunks, m.chunks - there, EIO));
			CHECK(all_held_but(there, m.chunks - there));
			put_at(0, want, m.length);
		}
		close_both();
	}
}

/* What follows the last chunk in the file is none of its bytes. */
static void test_file_too_long(void)
{
	static const uint64_t chunk_size[] = {1000, 64 * KIB, MIB};

	for (size_t s = 0; s < sizeof chunk_size / sizeof chunk_size[0]; s++) {
		open_full(7 * chunk_size[s] + 10, chunk_size[s]);
		put_at(0, want, 10 * chunk_size[s]);
		struct run whole = a_run(0, 8), pair[] = {a_run(7, 1), a_run(0, 7)};
		check_runs(&m, fd, &whole, 1, held);
		CHECK(is_run(&whole, 0, 8, 0, 0) && all_held_but(0, 0));
		forget_held();
		check_runs(&m, fd, pair, 2, held);
		CHECK(pair[0].bad == 0 && pair[1].bad == 0 && all_held_but(0, 0));
		close_both();
	}
}

/* The run that can be read is not blamed for its neighbour in the lanes. */
static void test_error_in_one_run(void)
{
	open_full(5 * MIB, MIB);
	set_length(2 * MIB + 5);
	struct run runs[] = {a_run(0, 1), a_run(2, 1), a_run(1, 1), a_run(4, 1)};
	check_runs(&m, fd, runs, 4, held);
	CHECK(is_run(&runs[0], 0, 1, 0, 0) && is_run(&runs[2], 1, 1, 0, 0));
	CHECK(is_run(&runs[1], 2, 1, 1, EIO) && is_run(&runs[3], 4, 1, 1, EIO));
	CHECK(all_held_but(2, 3));
	close_both();
}

static void test_unreadable(void)
{
	open_full(10 * KIB, KIB);
	int blind = open(data_path, O_WRONLY);
	struct run run = a_run(0, 10);
	check_runs(&m, blind, &run, 1, held);
	CHECK(is_run(&run, 0, 10, 10, EBADF) && held_count(held) == 0);
	close(blind);
	close_both();
}

static void test_metafile_shrunk(void)
{
	open_full(300 * KIB, KIB);
	CHECK(truncate(meta_path, METAFILE_HEADER_SIZE + 150 * SHA256_HASH_SIZE) == 0);
	struct run run = a_run(0, 300);
	check_runs(&m, fd, &run, 1, held);
	CHECK(is_run(&run, 0, 300, 150, EIO) && all_held_but(150, 150));
	close_both();
}

/* ---- The whole file ---- */

static uint64_t progress_bytes;
static bool progress_fell;

static void on_progress(void *arg, uint64_t bytes)
{
	progress_fell = progress_fell || bytes < progress_bytes || arg != &progress_bytes;
	progress_bytes = bytes;
}

static bool check_all(unsigned workers)
{
	progress_bytes = 0;
	progress_fell = false;
	forget_held();
	return check_data_file(&m, fd, held, workers, on_progress, &progress_bytes) == 0;
}

/* Calls check_all, and counts the bytes that it wrote to standard error. */
static bool check_all_said(unsigned workers, size_t *said)
{
	int keep = dup(STDERR_FILENO), file = open(said_path, O_RDWR | O_CREAT | O_TRUNC, 0666);

	dup2(file, STDERR_FILENO);
	bool result = check_all(workers);
	dup2(keep, STDERR_FILENO);
	close(keep);
	*said = (size_t)lseek(file, 0, SEEK_END);
	close(file);
	return result;
}

static bool has_children(void)
{
	return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
}

/* How many descriptors are open: as many before as after if nothing leaked. */
static int open_fds(void)
{
	int count = 0;

	for (int i = 0; i < 256; i++)
		count += fcntl(i, F_GETFD) >= 0;
	return count;
}

static const unsigned worker_counts[] = {1, 2, 5};
#define WORKER_COUNTS (sizeof worker_counts / sizeof worker_counts[0])

static void test_whole_file(void)
{
	static const struct {
		uint64_t length, chunk_size;
	} file[] = {{9 * MIB + 3, 1000}, {13 * MIB, 5 * MIB + 1}, {15 * MIB + 512 * KIB, KIB * 64},
		    {4 * MIB, MIB}, {12, 12}, {12, 100}};
	size_t said;

	for (size_t i = 0; i < sizeof file / sizeof file[0]; i++) {
		open_full(file[i].length, file[i].chunk_size);
		for (size_t w = 0; w < WORKER_COUNTS; w++) {
			int before = open_fds();
			CHECK(check_all_said(worker_counts[w], &said) && said == 0);
			CHECK(all_held_but(0, 0));
			CHECK(progress_bytes == m.length && !progress_fell);
			CHECK(!has_children() && open_fds() == before);
		}
		uint64_t wrong = m.chunks * 2 / 3;
		spoil(wrong);
		CHECK(check_all_said(2, &said) && said == 0 && all_held_but(wrong, 1));
		CHECK(progress_bytes == m.length);
		close_both();
	}
}

static void test_most_workers(void)
{
	open_full(10 * MIB, 10000);
	CHECK(check_all(CHECK_WORKERS_MAX) && all_held_but(0, 0) && !has_children());
	close_both();
}

static void test_no_chunks(void)
{
	open_full(0, 1000);
	CHECK(check_all(2) && held_count(held) == 0 && progress_bytes == 0);
	close_both();
}

/* The chunks that end behind the file's end are missing. */
static void test_whole_file_too_short(void)
{
	size_t said;

	open_full(9 * MIB, 1000);
	set_length(5 * MIB);
	for (size_t w = 0; w < WORKER_COUNTS; w++) {
		uint64_t there = 5 * MIB / 1000;
		CHECK(check_all_said(worker_counts[w], &said) && all_held_but(there, m.chunks - there));
	}
	close_both();
}

/* Zeros that are promised, but lie behind the file's end, are not in the file. */
static void test_zeros_behind_the_end(void)
{
	static const uint8_t zeros[2 * MIB];
	size_t said;

	memset(want + 6 * MIB, 0, 2 * MIB);
	open_full(8 * MIB, 64 * KIB);
	for (size_t w = 0; w < WORKER_COUNTS; w++) {
		set_length(7 * MIB);
		CHECK(check_all_said(worker_counts[w], &said) && all_held_but(7 * 16, 16));
		put_at(6 * MIB, zeros, sizeof zeros);
		CHECK(check_all(worker_counts[w]) && all_held_but(0, 0));
	}
	close_both();
	fill_want();
}

/* ---- Holes ---- */

/* Writes what is not zero, in pieces of 4096 bytes. */
static void write_sparse(uint64_t length)
{
	static const uint8_t zeros[4096];

	set_length(0);
	set_length(length);
	for (uint64_t at = 0; at < length; at += sizeof zeros) {
		size_t size = length - at < sizeof zeros ? (size_t)(length - at) : sizeof zeros;
		if (memcmp(want + at, zeros, size) != 0)
			put_at(at, want + at, size);
	}
}

/* Data at the beginning or the end of a hole, in the middle of chunks, and none at all. */
static void test_holes(void)
{
	static const uint64_t chunk_size[] = {64 * KIB, 60000, 5 * MIB};
	static const struct {
		uint64_t data, end;	/* what is not zero */
	} part[] = {{0, 0}, {0, 100 * KIB}, {3 * MIB + 5000, 3 * MIB + 5001},
		    {4 * MIB, 5 * MIB}, {6 * MIB - 4096, 8 * MIB + 77}, {8 * MIB + 70, 8 * MIB + 77}};
	const uint64_t length = 8 * MIB + 77;

	for (size_t s = 0; s < sizeof chunk_size / sizeof chunk_size[0]; s++)
		for (size_t p = 0; p < sizeof part / sizeof part[0]; p++) {
			size_t said;
			memset(want, 0, length);
			memset(want + part[p].data, 'd', (size_t)(part[p].end - part[p].data));
			open_empty(length, chunk_size[s]);
			write_sparse(length);
			CHECK(check_all_said(2, &said) && all_held_but(0, 0) && said == 0);
			CHECK(progress_bytes == length);

			/* Something else is promised where the hole is: there nothing is held. */
			set_length(0);
			set_length(length);
			CHECK(check_all_said(2, &said) && said == 0);
			for (uint64_t i = 0; i < m.chunks; i++) {
				uint64_t first = metafile_chunk_offset(&m, i);
				uint64_t end = first + metafile_chunk_length(&m, i);
				bool zero = part[p].end <= first || part[p].data >= end ||
					    part[p].data == part[p].end;
				if (!CHECK(held_has(held, i) == zero))
					break;
			}
			close_both();
		}
	fill_want();
}

#if defined(__linux__)
/* How many of the data file's pages are in memory. */
static size_t resident_pages(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size_t)m.length / page, count = 0;
	unsigned char *in = malloc(pages);
	void *map = mmap(NULL, (size_t)m.length, PROT_READ, MAP_SHARED, fd, 0);

	if (in == NULL || map == MAP_FAILED || mincore(map, (size_t)m.length, in) < 0)
		abort();
	for (size_t i = 0; i < pages; i++)
		count += in[i] & 1;
	munmap(map, (size_t)m.length);
	free(in);
	return count;
}

/* A download that was broken off early may be one large hole. */
static void test_holes_take_no_memory(void)
{
	open_empty(16 * MIB, 64 * KIB);
	set_length(16 * MIB);
	CHECK(check_all(1) && held_count(held) == 0);
	CHECK(resident_pages() == 0);
	close_both();
}

static blkcnt_t blocks_taken(void)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		abort();
	return st.st_blocks;
}

/* A tmpfs would fill a hole that is looked at through a mapping. A chunk that lies in it
 * with a part, or is the last, is looked at; and so was the whole of a file that may be
 * something else. */
static void test_holes_stay_holes(void)
{
	char path[sizeof data_path];

	memcpy(path, data_path, sizeof path);
	strcpy(data_path, "/dev/shm/test_check.data");
	if (access("/dev/shm", W_OK) == 0) {
		open_empty(16 * MIB - 1, 4 * MIB);
		unlink(data_path);
		put_at(5 * MIB, "x", 1);
		set_length(m.length);
		blkcnt_t before = blocks_taken();
		CHECK(check_all(1) && held_count(held) == 0 && blocks_taken() == before);
		set_length(15 * MIB);
		CHECK(!check_any_match(&m, fd, 15 * MIB) && blocks_taken() == before);
		close_both();
	}
	memcpy(data_path, path, sizeof path);
}
#endif

/* ---- When there are not enough processes ---- */

static void test_forks_fail(void)
{
	size_t said;

	open_full(13 * MIB, 10000);
	for (int good = 0; good < 3; good++) {
		forks_that_work = good;
		CHECK(check_all_said(3, &said) && all_held_but(0, 0) && !has_children());
		forks_work_again();
	}
	close_both();
}

/* Two files in the one process that is left: zeros of one chunk size are not the other's. */
static void test_holes_without_forks(void)
{
	static const uint64_t chunk_size[] = {64 * KIB, 128 * KIB, 1000};

	memset(want, 0, 2 * MIB + 1);
	for (size_t s = 0; s < sizeof chunk_size / sizeof chunk_size[0]; s++) {
		open_empty(2 * MIB + 1, chunk_size[s]);
		set_length(2 * MIB + 1);
		forks_that_work = 0;
		CHECK(check_all(2) && all_held_but(0, 0));
		forks_work_again();
		close_both();
	}
	fill_want();
}

/* Two workers and four batches of 4 MiB: the second has the odd ones. */
static void test_worker_killed(void)
{
	size_t said;

	open_full(16 * MIB, 256 * KIB);
	doomed_fork = 1;
	CHECK(check_all_said(2, &said) && said > 0 && !has_children());
	forks_work_again();
	for (uint64_t i = 0; i < m.chunks; i++)
		CHECK(held_has(held, i) == (i / 16 % 2 == 0));
	close_both();
}

/* ---- The checker ---- */

/* Takes results until all runs that were sent are back, in order; runs has room for twice
 * CHECKER_WAITING_MAX of them. */
static size_t receive_all(struct checker *c, struct run runs[])
{
	size_t got = 0;

	while (c->waiting > 0) {
		unsigned before = c->waiting;
		ssize_t n = checker_receive(c, runs + got);
		if (!CHECK(n >= 0 && c->waiting == before - (unsigned)n))
			break;
		got += (size_t)n;
	}
	return got;
}

static void test_checker(void)
{
	static struct run runs[2 * CHECKER_WAITING_MAX];
	int before = open_fds();
	struct checker c;

	open_full(CHECKER_WAITING_MAX * 10 * KIB - 1, KIB);
	spoil(25);
	spoil(29);
	spoil(m.chunks - 1);
	CHECK(checker_start(&c, &m, fd, held) == 0 && c.waiting == 0);
	for (int round = 0; round < 5; round++) {
		for (uint64_t i = 0; i < CHECKER_WAITING_MAX; i++) {
			struct run run = a_run(i * 10, 10);
			CHECK(checker_send(&c, &run) == 0 && c.waiting == i + 1);
		}
		memset(runs, 0, sizeof runs);
		CHECK(receive_all(&c, runs) == CHECKER_WAITING_MAX);
		for (uint64_t i = 0; i < CHECKER_WAITING_MAX; i++)
			CHECK(is_run(&runs[i], i * 10, 10, i == 2 ? 2 : i == CHECKER_WAITING_MAX - 1, 0));
	}
	for (uint64_t i = 0; i < m.chunks; i++)
		CHECK(held_has(held, i) == (i != 25 && i != 29 && i != m.chunks - 1));

	mend(25);		/* fetched anew, by another peer */
	struct run again = a_run(25, 1);
	CHECK(checker_send(&c, &again) == 0 && receive_all(&c, runs) == 1);
	CHECK(is_run(&runs[0], 25, 1, 0, 0) && held_has(held, 25));

	set_length(100 * KIB);
	struct run gone = a_run(90, 20);
	CHECK(checker_send(&c, &gone) == 0 && receive_all(&c, runs) == 1);
	CHECK(is_run(&runs[0], 90, 20, 10, EIO));
	checker_stop(&c);
	CHECK(!has_children());
	close_both();
	CHECK(open_fds() == before);
}

/* No answer before a question. */
static void test_checker_waits(void)
{
	struct checker c;

	open_full(MIB, KIB);
	CHECK(checker_start(&c, &m, fd, held) == 0);
	struct pollfd p = {.fd = c.from, .events = POLLIN};
	CHECK(poll(&p, 1, 0) == 0);
	struct run run = a_run(0, 1024);
	CHECK(checker_send(&c, &run) == 0);
	CHECK(poll(&p, 1, TIME_LIMIT * 1000) == 1 && p.revents == POLLIN);
	checker_stop(&c);	/* with a result that nobody took */
	CHECK(!has_children() && all_held_but(0, 0));
	close_both();
}

static void test_checker_stopped_at_work(void)
{
	struct checker c;

	open_full(16 * MIB, MIB);
	CHECK(checker_start(&c, &m, fd, held) == 0);
	for (unsigned i = 0; i < CHECKER_WAITING_MAX; i++) {
		struct run run = a_run(i % 16, 1);
		CHECK(checker_send(&c, &run) == 0);
	}
	checker_stop(&c);
	CHECK(!has_children());
	close_both();
}

static void test_checker_gone(void)
{
	struct run run = a_run(0, 1), runs[CHECKER_WAITING_MAX];
	struct checker c;

	open_full(MIB, KIB);
	CHECK(checker_start(&c, &m, fd, held) == 0);
	kill(c.pid, SIGKILL);
	siginfo_t info;
	while (waitid(P_PID, (id_t)c.pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
		;
	CHECK(checker_receive(&c, runs) == -1);
	CHECK(checker_send(&c, &run) == -1 && errno == EPIPE && c.waiting == 0);
	checker_stop(&c);
	CHECK(!has_children());
	close_both();
}

static void test_checker_without_fork(void)
{
	struct checker c;

	open_full(MIB, KIB);
	int before = open_fds();
	forks_that_work = 0;
	errno = 0;
	CHECK(checker_start(&c, &m, fd, held) == -1 && errno == EAGAIN);
	forks_work_again();
	CHECK(open_fds() == before);
	close_both();
}

/* ---- One chunk, and the whole ---- */

static void test_any_match(void)
{
	static const uint8_t zeros[10 * KIB];

	open_full(10 * KIB - 24, KIB);
	CHECK(check_any_match(&m, fd, m.length));
	CHECK(check_any_match(&m, fd, KIB));
	CHECK(!check_any_match(&m, fd, KIB - 1));
	CHECK(!check_any_match(&m, fd, 0));
	for (uint64_t only = 0; only < 10; only++) {
		put_at(0, zeros, m.length);
		CHECK(!check_any_match(&m, fd, m.length));
		uint64_t at = metafile_chunk_offset(&m, only), n = metafile_chunk_length(&m, only);
		put_at(at, want + at, n);
		CHECK(check_any_match(&m, fd, m.length));
		CHECK(check_any_match(&m, fd, at + n));
		CHECK(!check_any_match(&m, fd, at + n - 1));
	}
	CHECK(held_count(held) == 0);
	close_both();
	open_full(0, KIB);
	CHECK(!check_any_match(&m, fd, 0));
	close_both();
}

static void count_up(void *arg, uint64_t bytes)
{
	uint64_t *before = arg;

	CHECK(bytes > *before && bytes <= m.length);
	*before = bytes;
}

static int check_the_whole(int from)
{
	uint64_t shown = 0;
	int right = check_whole(&m, from, count_up, &shown), saved = errno;

	CHECK(right < 0 || shown == m.length);
	errno = saved;
	return right;
}

static void test_whole_hash(void)
{
	static const uint64_t length[] = {1, 384 * KIB - 1, 384 * KIB, 384 * KIB + 1, 2 * MIB};

	for (size_t i = 0; i < sizeof length / sizeof length[0]; i++) {
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
		close_both();
	}
}

/* What was read of a file that then ended is not taken for another file's. */
static void test_whole_cut_then_other(void)
{
	open_full(300 * KIB, KIB);
	set_length(290 * KIB);
	CHECK(check_the_whole(fd) == -1 && errno == EIO);
	close_both();
	for (size_t i = 0; i < 300 * KIB; i++)
		want[i] ^= 1;
	open_full(300 * KIB, KIB);
	struct run run = a_run(0, m.chunks);
	check_runs(&m, fd, &run, 1, held);
	CHECK(is_run(&run, 0, m.chunks, 0, 0) && all_held_but(0, 0));
	close_both();
	fill_want();
}

static int run_all(void)
{
	fill_want();
	RUN(test_good_runs);
	RUN(test_cut_into_runs);
	RUN(test_part_of_the_file);
	RUN(test_one_wrong_chunk);
	RUN(test_all_wrong);
	RUN(test_chunks_exchanged);
	RUN(test_file_too_short);
	RUN(test_file_too_long);
	RUN(test_error_in_one_run);
	RUN(test_unreadable);
	RUN(test_metafile_shrunk);
	RUN(test_whole_file);
	RUN(test_most_workers);
	RUN(test_no_chunks);
	RUN(test_whole_file_too_short);
	RUN(test_zeros_behind_the_end);
	RUN(test_holes);
#if defined(__linux__)
	RUN(test_holes_take_no_memory);
	RUN(test_holes_stay_holes);
#endif
	RUN(test_forks_fail);
	RUN(test_holes_without_forks);
	RUN(test_worker_killed);
	RUN(test_checker);
	RUN(test_checker_waits);
	RUN(test_checker_stopped_at_work);
	RUN(test_checker_gone);
	RUN(test_checker_without_fork);
	RUN(test_any_match);
	RUN(test_whole_hash);
	RUN(test_whole_cut_then_other);
	return unit_result();
}

/* The tests run in a child, so that the scratch directory goes even if they are killed. */
int main(void)
{
	int status = 0;
	pid_t pid;

	if (mkdtemp(scratch) == NULL)
		abort();
	snprintf(data_path, sizeof data_path, "%s/data", scratch);
	snprintf(meta_path, sizeof meta_path, "%s/data%s", scratch, METAFILE_SUFFIX);
	snprintf(said_path, sizeof said_path, "%s/said", scratch);
	signal(SIGPIPE, SIG_IGN);	/* as the program has it */
	pid = fork();
	if (pid == 0) {
		alarm(TIME_LIMIT);
		exit(run_all());
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
	unlink(data_path);
	unlink(meta_path);
	unlink(said_path);
	rmdir(scratch);
	return status != 0;
}
