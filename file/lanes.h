/* lanes.h - hashing several chunks of a data file at the same time. */
#ifndef LANES_H
#define LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sha256.h"

#define LANES_MAX SHA256_LANES_MAX

/* A chunk to be hashed, and what was found. */
struct lane {
	uint64_t offset;		/* of the chunk in the data file, in bytes; the caller's to set */
	uint8_t hash[SHA256_HASH_SIZE];	/* of the chunk */
	bool varied;			/* the chunk is not one byte repeated; false if nobody asked */
};

/* How many chunks at a time are hashed fastest: from 1 to LANES_MAX. */
size_t lanes_best_count(void);

/* Hashes the chunks in `count` lanes (0 to LANES_MAX), which have all the same length
 * in bytes. find_varied: set lane.varied.
 * Returns 0; or an errno, EIO if the file ends before a chunk does: the results are
 * not set then. */
int lanes_hash(struct lane lanes[], size_t count, uint64_t length, int fd, bool find_varied);

/* Forgets what was read of the file. To be called before the file may change, or another
 * one is looked at. */
void lanes_forget(void);

#endif
