/* holes.c - finding the holes in a data file, which read as zeros.
 *
 * A download that was broken off leaves a file that is mostly holes. Looking for them
 * buys that they are not read and hashed at the next start: 512 MiB of holes take 2 ms
 * and not 300. Without it (PORTABLE, and systems without SEEK_HOLE) everything counts as
 * data, is read, and gives the same result. */
#define _GNU_SOURCE	/* SEEK_DATA and SEEK_HOLE, where the system has them */
#include "file/holes.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

#if defined(SEEK_DATA) && defined(SEEK_HOLE) && !defined(PORTABLE)

#define BLOCK_SIZE 512	/* bytes: what st_blocks counts, wherever there is SEEK_HOLE */

/* If a file with so many blocks had a hole all the same, that would be hashed like data. */
struct extent holes_begin(int fd, uint64_t length)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return (struct extent){0};
	uint64_t size = (uint64_t)st.st_size, blocks = (uint64_t)st.st_blocks;
	bool has_all_blocks = blocks >= size / BLOCK_SIZE + (size % BLOCK_SIZE != 0);
	return (struct extent){.end = !has_all_blocks ? 0 : size < length ? size : length};
}

/* Where the next data (or hole) begins, at offset or after it; end if there is none
 * before, or fallback where the system can't tell. */
static uint64_t seek_next(int fd, int whence, uint64_t offset, uint64_t end, uint64_t fallback)
{
	off_t at = lseek(fd, (off_t)offset, whence);

	if (at < 0)
		return errno == ENXIO ? end : fallback;
	return (uint64_t)at < end ? (uint64_t)at : end;
}

/* What was found last is not looked for again: a file system may go through all of it. */
void holes_find_data(struct extent *data, int fd, uint64_t at, uint64_t length)
{
	if (at >= data->begin && at < data->end)
		return;
	data->begin = seek_next(fd, SEEK_DATA, at, length, at);
	data->end = data->begin < length ? seek_next(fd, SEEK_HOLE, data->begin, length, length) : length;
}

#else

struct extent holes_begin(int fd, uint64_t length)
{
	(void)fd;
	return (struct extent){.end = length};
}

void holes_find_data(struct extent *data, int fd, uint64_t at, uint64_t length)
{
	(void)fd;
	(void)at;
	*data = (struct extent){.end = length};
}

#endif

/* It takes as long as for any other chunk, so it is computed when the first hole is met. */
const uint8_t *holes_zero_hash(uint64_t chunk_size)
{
	static uint8_t zeros[4096];	/* not const: so it takes no room in the program */
	static uint8_t hash[SHA256_HASH_SIZE];
	static uint64_t known_size;	/* the chunk size that hash is for, or 0 */
	SHA256_CTX ctx;

	if (known_size != chunk_size) {
		sha256_init(&ctx);
		for (uint64_t left = chunk_size; left > 0; ) {
			size_t piece = left < sizeof zeros ? (size_t)left : sizeof zeros;
			sha256_update(&ctx, zeros, piece);
			left -= piece;
		}
		sha256_final(&ctx, hash);
		known_size = chunk_size;
	}
	return hash;
}

bool holes_is_repeated(uint8_t byte, const uint8_t *bytes, size_t size)
{
	return size == 0 || (bytes[0] == byte && memcmp(bytes, bytes + 1, size - 1) == 0);
}

bool holes_file_is_zeros(int fd, uint64_t size)
{
	struct extent data = {0};
	uint8_t buffer[16384];

	for (uint64_t at = 0; at < size; ) {
		holes_find_data(&data, fd, at, size);
		at = data.begin > at ? data.begin : at;
		uint64_t left = data.end - at;
		size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
		if (io_read_at(fd, buffer, piece, at) != (ssize_t)piece ||
		    !holes_is_repeated(0, buffer, piece))
			return false;
		at += piece;
	}
	return true;
}
