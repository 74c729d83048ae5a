/* lanes.c - hashing chunks, one in each lane; run by all processes that check.
 *
 * In SHA-256 each step waits for the one before, so a CPU that hashes one chunk is idle
 * most of the time: hashing 16 at once takes little longer. Then copying the bytes would
 * take as long as hashing them, so they are looked at in the system's cache (window.h).
 * Checking 512 MiB that are cached is 2.6 times as fast with lanes as without, and 1.3
 * times as fast with windows as with read(2) (Xeon with AVX-512). Without both, chunks are
 * read and hashed one after the other: that is what PORTABLE builds, the second half of
 * this file. */
#include "file/lanes.h"

#include <errno.h>

#include "base/io.h"
#include "file/holes.h"
#include "file/window.h"

#ifndef PORTABLE

_Static_assert(LANES_MAX <= WINDOWS_MAX, "each lane needs a window");

size_t lanes_best_count(void)
{
	return sha256_lanes();
}

/* 0 if the file goes as far as the lanes' chunks do, else an errno. In a mapping, zeros
 * follow the end of the file up to the end of the page. */
static int check_size(const struct lane lanes[], size_t count, uint64_t length, int fd)
{
	uint64_t last = 0, size;

	for (size_t l = 0; l < count; l++)
		last = lanes[l].offset > last ? lanes[l].offset : last;
	if (io_file_size(fd, &size) < 0)
		return errno;
	return size >= last + length ? 0 : EIO;
}

/* The arguments of lanes_hash, for window_try. */
struct task {
	struct lane *lanes;
	size_t count;
	uint64_t length;
	int fd;
	bool find_varied;
};

/* Hashes a piece of each chunk, then the next piece of each. 0, or an errno. */
static int hash_all(void *arg)
{
	const struct task *t = arg;
	SHA256_CTX ctx[LANES_MAX], *ctxs[LANES_MAX];
	const uint8_t *data[LANES_MAX];
	uint8_t *hashes[LANES_MAX], first_byte[LANES_MAX];
	size_t piece;

	for (size_t l = 0; l < t->count; l++) {
		ctxs[l] = &ctx[l];
		hashes[l] = t->lanes[l].hash;
		t->lanes[l].varied = false;
		sha256_init(&ctx[l]);
	}
	for (uint64_t done = 0; done < t->length; done += piece) {
		uint64_t left = t->length - done;
		piece = left < window_size() ? (size_t)left : window_size();
		for (size_t l = 0; l < t->count; l++) {
			struct lane *lane = &t->lanes[l];
			data[l] = window_look(t->fd, lane->offset + done, piece);
			if (data[l] == NULL)
				return errno;
			if (done == 0)
				first_byte[l] = data[l][0];
			if (t->find_varied && !lane->varied)
				lane->varied = !holes_is_repeated(first_byte[l], data[l], piece);
		}
		sha256_update_lanes(ctxs, data, piece, t->count);
	}
	int error = check_size(t->lanes, t->count, t->length, t->fd);
	if (error == 0)
		sha256_final_lanes(ctxs, hashes, t->count);
	return error;
}

int lanes_hash(struct lane lanes[], size_t count, uint64_t length, int fd, unsigned look)
{
	if (count == 0)
		return 0;
	window_map((look & LANES_MAP) != 0);
	return window_try(hash_all, &(struct task){lanes, count, length, fd, (look & LANES_FIND_VARIED) != 0});
}

void lanes_forget(void)
{
	window_close_all();
}

void lanes_share_memory(unsigned processes)
{
	window_setup(sha256_lanes(), processes);
}

#else

size_t lanes_best_count(void)
{
	return 1;
}

static int hash_one(struct lane *lane, uint64_t length, int fd, bool find_varied)
{
	static uint8_t buffer[128 << 10];
	uint8_t first_byte = 0;
	SHA256_CTX ctx;
	size_t piece;

	lane->varied = false;
	sha256_init(&ctx);
	for (uint64_t done = 0; done < length; done += piece) {
		uint64_t left = length - done;
		piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
		ssize_t n = io_read_at(fd, buffer, piece, lane->offset + done);
		if (n < 0)
			return errno;
		if ((size_t)n < piece)
			return EIO;
		if (done == 0)
			first_byte = buffer[0];
		if (find_varied && !lane->varied)
			lane->varied = !holes_is_repeated(first_byte, buffer, piece);
		sha256_update(&ctx, buffer, piece);
	}
	sha256_final(&ctx, lane->hash);
	return 0;
}

int lanes_hash(struct lane lanes[], size_t count, uint64_t length, int fd, unsigned look)
{
	int error = 0;

	for (size_t l = 0; l < count && error == 0; l++)
		error = hash_one(&lanes[l], length, fd, (look & LANES_FIND_VARIED) != 0);
	return error;
}

void lanes_forget(void)
{
}

void lanes_share_memory(unsigned processes)
{
	(void)processes;
}

#endif
