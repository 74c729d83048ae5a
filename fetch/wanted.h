/* wanted.h - the chunks of a file that nobody has been asked for yet. They are counted
 * by region. */
#ifndef WANTED_H
#define WANTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/regions.h"

struct wanted {
	uint64_t chunks;	/* of the file */
	uint64_t region_size;	/* chunks in a region; the last may have fewer */
	size_t regions;
	uint64_t count;		/* chunks wanted, */
	uint64_t *in_region;	/* of them in each region, */
	struct region_set some;	/* and the regions that have any */
	uint64_t *taken;	/* a bit for each chunk that isn't: held, asked for, or arrived */
};

/* All of that many chunks (at least one) are wanted. Returns 0, or -1 with errno if
 * there is no memory. wanted_free gives back what was taken. */
int wanted_init(struct wanted *w, uint64_t chunks);
void wanted_free(struct wanted *w);

bool wanted_has(const struct wanted *w, uint64_t chunk);

/* Takes a chunk off that is wanted; puts one back that is not. */
void wanted_take(struct wanted *w, uint64_t chunk);
void wanted_give_back(struct wanted *w, uint64_t chunk);

/* The region that the chunk is in. */
size_t wanted_region(const struct wanted *w, uint64_t chunk);

/* A wanted chunk of a region that has one: the first one that isn't before so many others
 * of the region's chunks, wanted or not; or, if there is none, the first one. */
uint64_t wanted_in_region(const struct wanted *w, size_t region, uint64_t after);

#endif
