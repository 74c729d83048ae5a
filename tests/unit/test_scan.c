/* test_scan.c - what of a data file counts as held at the start, whoever of the workers
 * looks: with files that are wrong, too short, or full of holes. */
#define _DEFAULT_SOURCE 1	/* mincore */
#include "file/scan.c"		/* not linked, so that a report can be counted that no worker writes */
#include "check_common.h"

#include <sys/mman.h>
#include <sys/stat.h>

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
	struct scan_plan plan = {.path = data_path, .workers = workers, .progress = on_progress,
		.arg = &progress_bytes};
	uint64_t next = 0;
	return scan_file(&m, fd, held, &plan, &next) == 0 && next == m.chunks;
}

/* Calls check_all, and counts the bytes that it wrote to standard error. */
static bool check_all_said(unsigned workers, size_t *said)
{
	char path[UNIT_PATH_SIZE];
	int keep = dup(STDERR_FILENO), file = open(unit_path(path, "said"), O_RDWR | O_CREAT | O_TRUNC, 0666);

	dup2(file, STDERR_FILENO);
	bool result = check_all(workers);
	dup2(keep, STDERR_FILENO);
	close(keep);
	*said = (size_t)lseek(file, 0, SEEK_END);
	close(file);
	return result;
}

static const unsigned worker_counts[] = {1, 4};

static void test_whole_file(void)
{
	static const struct {
		uint64_t length, chunk_size;
	} file[] = {{9 * MIB + 3, 1000}, {13 * MIB, 5 * MIB + 1}, {15 * MIB + 512 * KIB, KIB * 64},
		    {4 * MIB, MIB}, {12, 12}, {12, 100}};
	size_t said;

	for (size_t i = 0; i < LENGTH(file); i++) {
		open_full(file[i].length, file[i].chunk_size);
		for (size_t w = 0; w < LENGTH(worker_counts); w++) {
			int before = unit_open_fds();
			CHECK(check_all_said(worker_counts[w], &said) && said == 0);
			CHECK(all_held_but(0, 0));
			CHECK(progress_bytes == m.length && !progress_fell);
			CHECK(!has_children() && unit_open_fds() == before);
		}
		uint64_t wrong = m.chunks * 2 / 3;
		spoil(wrong);
		CHECK(check_all_said(2, &said) && said == 0 && all_held_but(wrong, 1));
		CHECK(progress_bytes == m.length);
		close_files();
	}
}

static void test_most_workers(void)
{
	open_full(10 * MIB, 10000);
	CHECK(check_all(SCAN_WORKERS_MAX) && all_held_but(0, 0) && !has_children());
	close_files();
}

static void test_no_chunks(void)
{
	open_full(0, 1000);
	CHECK(check_all(2) && held_count(held) == 0 && progress_bytes == 0);
	close_files();
}

/* The chunks that end behind the file's end are missing. */
static void test_whole_file_too_short(void)
{
	size_t said;

	open_full(9 * MIB, 1000);
	set_length(5 * MIB);
	for (size_t w = 0; w < LENGTH(worker_counts); w++) {
		uint64_t there = 5 * MIB / 1000;
		CHECK(check_all_said(worker_counts[w], &said) && all_held_but(there, m.chunks - there));
	}
	close_files();
}

/* Zeros that are promised, but lie behind the file's end, are not in the file. */
static void test_zeros_behind_the_end(void)
{
	static const uint8_t zeros[2 * MIB];
	size_t said;

	memset(want + 6 * MIB, 0, 2 * MIB);
	open_full(8 * MIB, 64 * KIB);
	for (size_t w = 0; w < LENGTH(worker_counts); w++) {
		set_length(7 * MIB);
		CHECK(check_all_said(worker_counts[w], &said) && all_held_but(7 * 16, 16));
		put_at(6 * MIB, zeros, sizeof zeros);
		CHECK(check_all(worker_counts[w]) && all_held_but(0, 0));
	}
	close_files();
	fill_want();
}

/* ---- Proof ---- */

/* Checks up to the first proof, and then the rest. Result: the chunk up to which the
 * first check came; what both found must be all that is right. */
static uint64_t check_in_two(unsigned workers)
{
	struct scan_plan plan = {.path = data_path, .workers = workers, .until_proven = true,
		.progress = on_progress, .arg = &progress_bytes};
	uint64_t next = 0, proof;

	progress_bytes = 0;
	progress_fell = false;
	forget_held();
	CHECK(scan_file(&m, fd, held, &plan, &next) == 0 && next <= m.chunks && !has_children());
	proof = next;
	plan.until_proven = false;
	progress_bytes = 0;
	CHECK(scan_file(&m, fd, held, &plan, &next) == 0 && next == m.chunks);
	CHECK((proof == m.chunks || progress_bytes == m.length) && !progress_fell);
	return proof;
}

static void test_proof(void)
{
	static const uint64_t size = 64 * KIB, count = 8 * MIB / (64 * KIB);

	for (size_t w = 0; w < LENGTH(worker_counts); w++) {
		unsigned workers = worker_counts[w];
		open_full(8 * MIB, size);
		uint64_t soon = check_in_two(workers);
		CHECK(soon <= workers * (4 * MIB / size) && held->proven && all_held_but(0, 0));
		for (uint64_t only = 1; only < count; only += count - 2) {
			set_length(0);
			set_length(8 * MIB);
			put_at(only * size, want + only * size, size);
			uint64_t proof = check_in_two(workers);
			CHECK(held->proven && held_count(held) == 1 && held_has(held, only));
			CHECK(proof <= count);
		}
		spoil(count - 1);
		CHECK(check_in_two(workers) == count && !held->proven && held_count(held) == 0);
		close_files();
	}
}

/* Zeros match where zeros should be, in holes and not, and prove nothing. */
static void test_zeros_are_no_proof(void)
{
	static const uint8_t zeros[2 * MIB];

	for (size_t w = 0; w < LENGTH(worker_counts); w++) {
		memset(want + MIB, 0, sizeof zeros);
		open_empty(4 * MIB, 64 * KIB);
		set_length(4 * MIB);
		check_in_two(worker_counts[w]);
		CHECK(held_count(held) == 32 && !held->proven);
		put_at(MIB, zeros, sizeof zeros);
		put_at(7 * MIB / 2, "x", 1);
		check_in_two(worker_counts[w]);
		CHECK(held_count(held) == 32 && !held->proven);
		put_at(0, want, 64 * KIB);
		check_in_two(worker_counts[w]);
		CHECK(held_count(held) == 33 && held->proven);
		close_files();
	}
	/* One byte, at the beginning or the end of a chunk, is enough. */
	memset(want, 0, 4 * MIB);
	want[2 * MIB] = want[4 * MIB - 1] = 1;
	open_full(4 * MIB, MIB);
	CHECK(check_in_two(1) == 4 && held->proven && held_count(held) == 4);
	put_at(2 * MIB, "", 1);
	check_in_two(1);
	CHECK(held->proven && held_count(held) == 3);
	put_at(4 * MIB - 1, "", 1);
	check_in_two(1);
	CHECK(!held->proven && held_count(held) == 2);
	close_files();
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
	static const uint64_t chunk_size[] = {64 * KIB, 60000, 1280 * KIB};
	static const struct {
		uint64_t data, end;	/* what is not zero */
	} part[] = {{0, 0}, {0, 100 * KIB}, {768 * KIB + 5000, 768 * KIB + 5001},
		    {MIB, MIB + 256 * KIB}, {MIB + 508 * KIB, 2 * MIB + 77}, {2 * MIB + 70, 2 * MIB + 77}};
	const uint64_t length = 2 * MIB + 77;

	for (size_t s = 0; s < LENGTH(chunk_size); s++)
		for (size_t p = 0; p < LENGTH(part); p++) {
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
			close_files();
		}
	fill_want();
}

#if defined(__linux__) && !defined(PORTABLE)
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
	close_files();
}

static blkcnt_t blocks_taken(void)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		abort();
	return st.st_blocks;
}

/* A tmpfs would fill a hole that is looked at through a mapping. A chunk that lies in it
 * with a part, or is the last, is looked at. */
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
		CHECK(check_all(1) && !held->proven && blocks_taken() == before);
		close_files();
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
	close_files();
}

/* Two files in the one process that is left: zeros of one chunk size are not the other's. */
static void test_holes_without_forks(void)
{
	static const uint64_t chunk_size[] = {64 * KIB, 128 * KIB, 1000};

	memset(want, 0, 2 * MIB + 1);
	for (size_t s = 0; s < LENGTH(chunk_size); s++) {
		open_empty(2 * MIB + 1, chunk_size[s]);
		set_length(2 * MIB + 1);
		forks_that_work = 0;
		CHECK(check_all(2) && all_held_but(0, 0));
		forks_work_again();
		close_files();
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
	close_files();
}

/* What comes over the pipe is checked before it is an index. */
static void test_report_of_nobody(void)
{
	open_full(MIB, KIB);
	struct scan_plan plan = {.path = data_path, .workers = 2, .progress = on_progress, .arg = &progress_bytes};
	const struct scan s = {.m = &m, .held = held, .plan = &plan, .workers = 2};
	struct tally t = {0}, none = {0};
	for (uint32_t worker = 2; worker > 0; worker *= 2) {
		count_report(&t, &s, &(struct report){.worker = worker, .bytes = KIB, .metafile_error = EIO});
		CHECK(memcmp(&t, &none, sizeof t) == 0 && m.error == 0);
	}
	count_report(&t, &s, &(struct report){.worker = 1, .bytes = KIB});
	CHECK(t.batches[1] == 1 && t.batches[0] == 0 && t.bytes == KIB && progress_bytes == KIB);
	close_files();
}

static int run_all(void)
{
	set_up();
	RUN(test_whole_file);
	RUN(test_most_workers);
	RUN(test_no_chunks);
	RUN(test_whole_file_too_short);
	RUN(test_zeros_behind_the_end);
	RUN(test_proof);
	RUN(test_zeros_are_no_proof);
	RUN(test_holes);
#if defined(__linux__) && !defined(PORTABLE)
	RUN(test_holes_take_no_memory);
	RUN(test_holes_stay_holes);
#endif
	RUN(test_forks_fail);
	RUN(test_holes_without_forks);
	RUN(test_report_of_nobody);
	RUN(test_worker_killed);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
