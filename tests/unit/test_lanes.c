/* test_lanes.c - hashing several chunks of a file at the same time. */
#include "file/lanes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"

#define SIZE ((size_t)4 << 20)	/* bytes of the file */

static uint8_t bytes[SIZE];
static int fd;

static void write_file(void)
{
	char path[UNIT_PATH_SIZE];

	unit_write_file(unit_path(path, "file"), bytes, SIZE);
	if ((fd = open(path, O_RDWR)) < 0)
		abort();
}

static bool has_hash(const struct lane *lane, uint64_t length)
{
	uint8_t hash[SHA256_HASH_SIZE];

	unit_hash(bytes + lane->offset, (size_t)length, hash);
	return memcmp(lane->hash, hash, SHA256_HASH_SIZE) == 0;
}

static void test_hashes(void)
{
	static const uint64_t length[] = {1, 63, 1000, 64 << 10, (192 << 10) + 1, 1 << 20};
	struct lane lanes[LANES_MAX];

	for (size_t i = 0; i < SIZE; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251 + i / 65536);
	write_file();
	CHECK(lanes_best_count() >= 1 && lanes_best_count() <= LANES_MAX);
	srand(9);
	for (size_t n = 0; n < LENGTH(length); n++)
		for (size_t count = 1; count <= LANES_MAX; count += 5) {
			for (size_t l = 0; l < count; l++)
				lanes[l].offset = (uint64_t)rand() % (SIZE - length[n] + 1);
			lanes[0].offset = SIZE - length[n];
			CHECK(lanes_hash(lanes, count, length[n], fd, n % 2) == 0);
			for (size_t l = 0; l < count; l++)
				CHECK(has_hash(&lanes[l], length[n]));
		}
	CHECK(lanes_hash(lanes, 0, 0, fd, false) == 0);
	lanes_forget();
	close(fd);
}

static void test_varied(void)
{
	struct lane lanes[LANES_MAX];

	memset(bytes, 0, sizeof bytes);
	bytes[0] = bytes[2 * 100000 - 1] = bytes[2 * 100000 + 50000] = 1;
	memset(bytes + 14 * 100000, 0xff, 200000);
	bytes[15 * 100000 + 99999] = 0xfe;
	write_file();
	for (int find = 0; find < 2; find++) {
		for (size_t l = 0; l < LANES_MAX; l++)
			lanes[l].offset = l * 100000;
		CHECK(lanes_hash(lanes, LANES_MAX, 100000, fd, find) == 0);
		for (size_t l = 0; l < LANES_MAX; l++) {
			CHECK(has_hash(&lanes[l], 100000));
			CHECK(lanes[l].varied == (find && (l < 3 || l == 15)));
		}
	}
	lanes_forget();
	close(fd);
}

static void test_file_ends(void)
{
	struct lane lanes[2] = {{.offset = 0}, {.offset = 50000}};

	write_file();
	CHECK(ftruncate(fd, 99999) == 0);
	CHECK(lanes_hash(lanes, 2, 50000, fd, false) == EIO);
	CHECK(lanes_hash(lanes, 2, 49999, fd, false) == 0);
	CHECK(lanes_hash(lanes, 1, 50000, fd, false) == 0);
	lanes_forget();
	CHECK(ftruncate(fd, 0) == 0);
	CHECK(lanes_hash(lanes, 1, 1, fd, false) == EIO);
	lanes_forget();
	close(fd);
}

static void test_what_is_forgotten_is_read_anew(void)
{
	struct lane lane = {.offset = 1000};

	write_file();
	CHECK(lanes_hash(&lane, 1, 100, fd, false) == 0 && has_hash(&lane, 100));
	bytes[1050]++;
	CHECK(pwrite(fd, bytes + 1050, 1, 1050) == 1);
	lanes_forget();
	CHECK(lanes_hash(&lane, 1, 100, fd, false) == 0 && has_hash(&lane, 100));
	lanes_forget();
	close(fd);
}

static int run_all(void)
{
	RUN(test_hashes);
	RUN(test_varied);
	RUN(test_file_ends);
	RUN(test_what_is_forgotten_is_read_anew);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
