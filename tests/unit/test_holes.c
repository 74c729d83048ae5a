/* test_holes.c - where data lies in a file with holes, and whether a file is nothing but zeros. */
#include "file/holes.h"
#include "check_common.h"

#include <sys/stat.h>

/* ---- Finding data ---- */

/* Whether the byte that is not zero lies in one of the extents that are found, one after the
 * other, in order and within length; with place == length all bytes are zero. */
static bool finds(uint64_t place, uint64_t length)
{
	struct extent found = holes_begin(fd, length);
	bool right = found.begin == 0 && found.end <= length, covered = place == length;

	for (uint64_t at = 0; at < length; at = found.end) {
		holes_find_data(&found, fd, at, length);
		right = right && found.begin <= found.end && found.end <= length && found.end > at;
		covered = covered || (place >= found.begin && place < found.end);
	}
	return right && covered;
}

static void test_find_data(void)
{
	static const uint64_t place[] = {0, 1, 4096, 100 * KIB, MIB, 3 * MIB - 4096, 3 * MIB - 1};
	const uint64_t length = 3 * MIB;

	open_empty(length, MIB);
	for (size_t i = 0; i < LENGTH(place); i++) {
		set_length(0);
		set_length(length);
		CHECK(finds(length, length));
		put_at(place[i], "x", 1);
		CHECK(finds(place[i], length));
	}
	put_at(0, want, length);
	CHECK(finds(0, length) && finds(length - 1, length));
	struct extent found = holes_begin(fd, length);
	holes_find_data(&found, fd, 0, length);
	CHECK(found.begin == 0 && found.end == length);
	close_files();
}

static void test_zero_hash(void)
{
	static const uint64_t size[] = {1, 64, 4096, 5000, MIB, 1, 64};
	static const uint8_t zeros[MIB];
	uint8_t hash[SHA256_HASH_SIZE];

	for (size_t i = 0; i < LENGTH(size); i++) {
		unit_hash(zeros, (size_t)size[i], hash);
		CHECK(memcmp(holes_zero_hash(size[i]), hash, SHA256_HASH_SIZE) == 0);
	}
}

/* ---- Zeros ---- */

static void test_is_repeated(void)
{
	uint8_t bytes[100] = {0};

	CHECK(holes_is_repeated(0, bytes, 0));
	for (size_t size = 1; size <= sizeof bytes; size++) {
		CHECK(holes_is_repeated(0, bytes, size) && !holes_is_repeated(1, bytes, size));
		for (size_t i = 0; i < size; i++) {
			bytes[i] = 1;
			CHECK(!holes_is_repeated(0, bytes, size) && holes_is_repeated(0, bytes, i));
			bytes[i] = 0;
		}
	}
}

static void test_file_is_zeros(void)
{
	static const uint64_t size[] = {1, 2, 4096, 16384, 16385, 3 * MIB + 5};

	open_empty(MIB, MIB);
	CHECK(holes_file_is_zeros(fd, 0));
	for (size_t i = 0; i < LENGTH(size); i++) {
		static const uint8_t zeros[3 * MIB + 5];
		set_length(0);
		set_length(size[i]);
		CHECK(holes_file_is_zeros(fd, size[i]));
		for (int written = 0; written < 2; written++) {
			for (uint64_t at = 0; at < size[i]; at += size[i] / 7 + 1) {
				put_at(at, "x", 1);
				CHECK(!holes_file_is_zeros(fd, size[i]) && (at == 0 || holes_file_is_zeros(fd, at)));
				put_at(at, "", 1);
			}
			put_at(size[i] - 1, "x", 1);
			CHECK(!holes_file_is_zeros(fd, size[i]));
			put_at(0, zeros, size[i]);
			CHECK(holes_file_is_zeros(fd, size[i]));
		}
	}
	close_files();
}

#if defined(__linux__)
/* Looking makes no data of a hole, also not in a tmpfs. */
static void test_holes_are_not_filled(void)
{
	char path[sizeof data_path];
	struct stat before, after;

	memcpy(path, data_path, sizeof path);
	strcpy(data_path, "/dev/shm/test_holes.data");
	if (access("/dev/shm", W_OK) == 0) {
		open_empty(16 * MIB, 4 * MIB);
		unlink(data_path);
		put_at(5 * MIB, "x", 1);
		set_length(m.length);
		CHECK(fstat(fd, &before) == 0 && !holes_file_is_zeros(fd, m.length));
		CHECK(fstat(fd, &after) == 0 && after.st_blocks == before.st_blocks);
		close_files();
	}
	memcpy(data_path, path, sizeof path);
}
#endif

static int run_all(void)
{
	set_up();
	RUN(test_find_data);
	RUN(test_zero_hash);
	RUN(test_is_repeated);
	RUN(test_file_is_zeros);
#if defined(__linux__)
	RUN(test_holes_are_not_filled);
#endif
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
