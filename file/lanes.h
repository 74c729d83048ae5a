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

/* How the chunks are looked at. */
enum lanes_look {
	LANES_READ = 0,
	LANES_MAP = 1,		/* through a mapping, where the system has one: not for holes */
	LANES_FIND_VARIED = 2	/* set lane.varied */
};

/* Hashes the chunks in `count` lanes (0 to LANES_MAX), which have all the same length
 * in bytes. look: any of enum lanes_look.
 * Returns 0; or an errno, EIO if the file ends before a chunk does: the results are
 * not set then. */
int lanes_hash(struct lane lanes[], size_t count, uint64_t length, int fd, unsigned look);

/* Forgets what was read of the file. To be called before the file may change, or another
 * one is looked at. */
void lanes_forget(void);

/* Tells this process that it is one of so many that hash at the same time: together
 * they are to map no more than a few MiB. */
void lanes_share_memory(unsigned processes);

#endif
