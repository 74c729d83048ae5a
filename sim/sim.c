/* sim.c - simulated swarms: the table of docs/choice.md, and small swarms of any kind of
 * members. All follows from the seed. Not a part of any program; sim/README.md tells what
 * is simulated, and how. */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sim/swarm.h"

#define RUNS_MAX 5

#define LINES(MBIT) .up = MBIT, .down = MBIT, .delay_ms = 0.2
#define CHUNKS(COUNT, KIB) .chunks = COUNT, .chunk_size = (uint64_t)KIB << 10

static const struct {
	const char *name;
	double wanted;
	bool large;		/* takes long: only when asked for */
	int runs;
	struct settings settings;
} rows[] = {
	{"8 fetchers, 256 chunks", 1.20, false, 5, {8, CHUNKS(256, 256), LINES(20)}},
	{"8 fetchers, 64 chunks of 1 MiB", 1.35, false, 5, {8, CHUNKS(64, 1024), LINES(20)}},
	{"16 fetchers, 256 chunks", 1.25, false, 5, {16, CHUNKS(256, 256), LINES(20)}},
	{"32 fetchers, 128 chunks", 1.45, false, 5, {32, CHUNKS(128, 256), LINES(20)}},
	{"64 fetchers, 128 chunks, 10 Mbit/s", 1.60, false, 5, {64, CHUNKS(128, 256), LINES(10)}},
	{"8 fetchers, a seeder of 5 times their uplink", 1.50, false, 5,
	 {8, CHUNKS(256, 256), .up = 20, .down = 100, .seeder_up = 100, .delay_ms = 0.2}},
	{"8 fetchers, downlinks of 5 times, one uplink of a tenth", 1.40, false, 5,
	 {8, CHUNKS(256, 256), .up = 20, .down = 100, .slow_up = 2, .delay_ms = 0.2}},
	{"32 fetchers, half of them late", 1.50, false, 5, {32, CHUNKS(128, 256), LINES(20), .late = 0.7}},
	{"32 fetchers, a quarter killed half-way", 1.60, false, 5, {32, CHUNKS(128, 256), LINES(20), .killed = 0.25}},
	{"32 fetchers, 10 % lying, 10 % dripping", 1.60, false, 5,
	 {32, CHUNKS(128, 256), LINES(20), .liars = 0.1, .drippers = 0.1}},
	{"8 fetchers, and 4 reference peers", 1.40, false, 5, {12, CHUNKS(256, 256), LINES(20), .references = 4}},
	{"1 fetcher, 100 that drip after a chunk, 102 chunks", 4.8, false, 5,
	 {101, CHUNKS(102, 64), LINES(100), .drippers = 100.0 / 101, .names = 101}},
	{"8 fetchers, round trip 40 ms", 1.34, false, 5, {8, CHUNKS(256, 256), .up = 20, .down = 20, .delay_ms = 20}},
	{"100 fetchers, 256 chunks", 1.50, false, 3, {100, CHUNKS(256, 256), LINES(20)}},
	{"1,000 fetchers, 1,024 chunks", 1.50, true, 1, {1000, CHUNKS(1024, 256), LINES(20)}},
	{"10,000 fetchers, 128 chunks", 2.50, true, 1, {10000, CHUNKS(128, 256), LINES(20)}},
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int simulate_row(size_t row, unsigned first_seed)
{
	double last[RUNS_MAX], copies[RUNS_MAX];
	int runs = rows[row].runs;

	for (int i = 0; i < runs; i++) {
		set = rows[row].settings;
		set.seed = first_seed + (unsigned)i;
		struct result result = run();
		if (run_told_violation())
			return 1;
		last[i] = set.late > 0 ? result.late_last : result.last;
		copies[i] = result.copies;
	}
	qsort(last, (size_t)runs, sizeof last[0], by_value);
	qsort(copies, (size_t)runs, sizeof copies[0], by_value);
	printf("| %-56s | %5.2f | %5.2f | %5.2f | %5.2f |\n", rows[row].name, rows[row].wanted, last[runs / 2],
	       last[runs - 1], copies[runs / 2]);
	fflush(stdout);
	return 0;
}

static int simulate_table(bool large, unsigned seed)
{
	puts("Times the bound until the last fetcher is complete; how often the seeder sent each chunk.\n");
	printf("| %-56s | %s | %s | %s | %s |\n", "case", "limit", "median", "worst", "copies");
	puts("|---|---:|---:|---:|---:|");
	for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++)
		if ((large || !rows[row].large) && simulate_row(row, seed) != 0)
			return 1;
	return 0;
}

/* A small swarm of any kind of members. */
static void set_at_random(unsigned seed)
{
	static const uint64_t sizes[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20};

	srandom(seed ^ 0x5eed);
	set.fetchers = 1 + (int)(random() % 10);
	set.chunks = 1 + (uint64_t)random() % 40;
	set.chunk_size = sizes[random() % 4];
	set.up = 2 + 50 * chance();
	set.down = set.up * (1 + 4 * chance());
	set.seeder_up = random() % 2 ? 2 + 50 * chance() : 0;
	set.slow_up = random() % 3 == 0 ? 0.5 + chance() : 0;
	set.delay_ms = random() % 2 ? 0.2 : 50 * chance();
	set.late = random() % 3 == 0 ? chance() : 0;
	set.killed = random() % 3 == 0 ? chance() / 2 : 0;
	set.liars = random() % 2 ? chance() / 2 : 0;
	set.drippers = random() % 2 ? chance() / 3 : 0;
	set.silent = random() % 3 == 0 ? chance() / 3 : 0;
	set.blind = random() % 2 ? chance() : 0;
	set.closing = random() % 3 == 0 ? chance() : 0;
	set.seed = seed;
}

static int simulate_mixtures(int count, unsigned seed)
{
	int failed = 0;

	for (int i = 0; i < count; i++) {
		set_at_random(seed + (unsigned)i);
		run();
		failed += run_told_violation();
	}
	printf("%d of %d random swarms did well\n", count - failed, count);
	return failed > 0;
}

/* One swarm of equal lines, of any size. */
static int simulate_equal(int fetchers, uint64_t chunks, unsigned seed)
{
	set = (struct settings){fetchers, CHUNKS(chunks, 256), LINES(20), .seed = seed};
	struct result result = run();
	if (run_told_violation())
		return 1;
	printf("%d fetchers, %" PRIu64 " chunks: %.2f times the bound, %.2f copies\n", fetchers, chunks, result.last,
	       result.copies);
	return 0;
}

int main(int argc, char **argv)
{
	int option, fetchers = 0, chunks = 256, mixtures = 0, row = -1, null = open("/dev/null", O_WRONLY);
	unsigned seed = 1;
	bool large = false;

	while ((option = getopt(argc, argv, "s:r:m:n:c:l")) != -1)
		switch (option) {
		case 's': seed = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'r': row = atoi(optarg); break;
		case 'm': mixtures = atoi(optarg); break;
		case 'n': fetchers = atoi(optarg); break;
		case 'c': chunks = atoi(optarg); break;
		case 'l': large = true; break;
		default:
			fprintf(stderr, "usage: sim [-s SEED] [-l] [-r ROW] [-n FETCHERS [-c CHUNKS]] [-m RANDOM_SWARMS]\n");
			return 2;
		}
	if (null >= 0)
		dup2(null, STDERR_FILENO);	/* who lies, peers.c says there */
	if (fetchers > 0 && chunks > 0)
		return simulate_equal(fetchers, (uint64_t)chunks, seed);
	if (mixtures > 0)
		return simulate_mixtures(mixtures, seed);
	if (row >= 0 && (size_t)row < sizeof rows / sizeof rows[0])
		return simulate_row((size_t)row, seed);
	return simulate_table(large, seed);
}
