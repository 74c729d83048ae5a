/* test_check.c - which chunks of a run count as held: with files that are right, wrong, too short
 * and too long. */
#include "file/check.h"
#include "check_common.h"

static const uint64_t chunk_sizes[] = {1, 63, 64, 1000, 1024, 128 * KIB, MIB + 1};

/* So many chunks that some don't fit into what is read at once. */
static uint64_t chunks_for(uint64_t chunk_size)
{
	return chunk_size == 1 ? 1000 : chunk_size < 100 ? 6500 : chunk_size < KIB * 2 ? 401 : 5;
}

static void test_good_runs(void)
{
	for (size_t s = 0; s < LENGTH(chunk_sizes); s++)
		for (int more = -1; more <= 1; more++) {
			uint64_t n = chunks_for(chunk_sizes[s]);
			open_full(n * chunk_sizes[s] + (uint64_t)(int64_t)more, chunk_sizes[s]);
			struct run run = a_run(0, m.chunks);
			check_runs(&m, fd, &run, 1, held);
			CHECK(is_run(&run, 0, m.chunks, 0, 0) && all_held_but(0, 0));
			close_files();
		}
}

/* The same chunks in runs of all lengths, and not in order. */
static void test_cut_into_runs(void)
{
	static struct run runs[7000];

	srand(7);
	for (size_t s = 0; s < LENGTH(chunk_sizes); s++) {
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
		close_files();
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
	close_files();
}

/* One wrong bit is found, in its chunk and in its run. */
static void test_one_wrong_chunk(void)
{
	for (size_t s = 0; s < LENGTH(chunk_sizes); s++) {
		open_full(chunks_for(chunk_sizes[s]) * chunk_sizes[s] - chunk_sizes[s] / 3, chunk_sizes[s]);
		const uint64_t wrong[] = {0, 1, m.chunks / 2, m.chunks - 2, m.chunks - 1};
		for (size_t i = 0; i < LENGTH(wrong); i++) {
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
		close_files();
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
	close_files();
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
	close_files();
}

/* Of a file that is too short, what can be read counts, and the rest is an error. */
static void test_file_too_short(void)
{
	for (size_t s = 1; s < LENGTH(chunk_sizes); s++) {
		uint64_t size = chunk_sizes[s];
		open_full(chunks_for(size) * size, size);
		const uint64_t length[] = {(m.chunks - 1) * size, m.length - 1, 2 * size, 2 * size + 1, 0};
		for (size_t i = 0; i < LENGTH(length); i++) {
			uint64_t there = length[i] / size;
			struct run run = a_run(0, m.chunks);
			set_length(length[i]);
			forget_held();
			check_runs(&m, fd, &run, 1, held);
			CHECK(is_run(&run, 0, m.chunks, m.chunks - there, EIO));
			CHECK(all_held_but(there, m.chunks - there));
			put_at(0, want, m.length);
		}
		close_files();
	}
}

/* What follows the last chunk in the file is none of its bytes. */
static void test_file_too_long(void)
{
	static const uint64_t chunk_size[] = {1000, 64 * KIB, MIB};

	for (size_t s = 0; s < LENGTH(chunk_size); s++) {
		open_full(7 * chunk_size[s] + 10, chunk_size[s]);
		put_at(0, want, 10 * chunk_size[s]);
		struct run whole = a_run(0, 8), pair[] = {a_run(7, 1), a_run(0, 7)};
		check_runs(&m, fd, &whole, 1, held);
		CHECK(is_run(&whole, 0, 8, 0, 0) && all_held_but(0, 0));
		forget_held();
		check_runs(&m, fd, pair, 2, held);
		CHECK(pair[0].bad == 0 && pair[1].bad == 0 && all_held_but(0, 0));
		close_files();
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
	close_files();
}

static void test_unreadable(void)
{
	open_full(10 * KIB, KIB);
	int blind = open(data_path, O_WRONLY);
	struct run run = a_run(0, 10);
	check_runs(&m, blind, &run, 1, held);
	CHECK(is_run(&run, 0, 10, 10, EBADF) && held_count(held) == 0);
	close(blind);
	close_files();
}

static void test_metafile_shrunk(void)
{
	open_full(300 * KIB, KIB);
	CHECK(truncate(meta_path, METAFILE_HEADER_SIZE + 150 * SHA256_HASH_SIZE) == 0);
	struct run run = a_run(0, 300);
	check_runs(&m, fd, &run, 1, held);
	CHECK(is_run(&run, 0, 300, 300, 0) && run.metafile_error == ESTALE && held_count(held) == 0);
	close_files();
}

#define PROOF_MIN ((uint64_t)32)	/* bytes; as check.h says */

/* A chunk that matches shows that the file is ours, if it is long enough and not all of one byte. */
static void test_what_is_proof(void)
{
	for (int less = 0; less <= 1; less++) {
		open_full(3 * (PROOF_MIN - (uint64_t)less), PROOF_MIN - (uint64_t)less);
		struct run run = a_run(0, 3);
		check_runs(&m, fd, &run, 1, held);
		CHECK(all_held_but(0, 0) && held->proven == (less == 0));
		close_files();
	}
}

static int run_all(void)
{
	set_up();
	RUN(test_what_is_proof);
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
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
