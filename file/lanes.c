/* lanes.c - hashing chunks, one in each lane; run by all processes that check.
 *
 * In SHA-256 each step waits for the one before, so a CPU that hashes one chunk is idle
 * most of the time: hashing 16 at once takes little longer. */
#include "file/lanes.h"

#include <errno.h>

#include "file/holes.h"
#include "file/window.h"

_Static_assert(LANES_MAX <= WINDOWS_MAX, "each lane needs a window");

size_t lanes_best_count(void)
{
	return sha256_lanes();
}

/* Hashes a piece of each chunk, then the next piece of each. */
int lanes_hash(struct lane lanes[], size_t count, uint64_t length, int fd, bool find_varied)
{
	SHA256_CTX ctx[LANES_MAX], *ctxs[LANES_MAX];
	const uint8_t *data[LANES_MAX];
	uint8_t *hashes[LANES_MAX], first_byte[LANES_MAX];
	size_t piece;

	for (size_t l = 0; l < count; l++) {
		ctxs[l] = &ctx[l];
		hashes[l] = lanes[l].hash;
		lanes[l].varied = false;
		sha256_init(&ctx[l]);
	}
	for (uint64_t done = 0; done < length; done += piece) {
		uint64_t left = length - done;
		piece = left < WINDOW_SIZE ? (size_t)left : WINDOW_SIZE;
		for (size_t l = 0; l < count; l++) {
			struct lane *lane = &lanes[l];
			data[l] = window_look(fd, lane->offset + done, piece);
			if (data[l] == NULL)
				return errno;
			if (done == 0)
				first_byte[l] = data[l][0];
			if (find_varied && !lane->varied)
				lane->varied = !holes_is_repeated(first_byte[l], data[l], piece);
		}
		sha256_update_lanes(ctxs, data, piece, count);
	}
	if (count > 0)
		sha256_final_lanes(ctxs, hashes, count);
	return 0;
}

void lanes_forget(void)
{
	window_close_all();
}
