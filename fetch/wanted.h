/* wanted.h - the chunks of a file that nobody has been asked for yet. */
#ifndef WANTED_H
#define WANTED_H

#include <stdbool.h>
#include <stdint.h>

struct wanted {
	uint64_t chunks;	/* of the file */
	uint64_t count;		/* of them wanted */
	uint64_t given_back;	/* chunks, so far: where nothing was found there may be something again */
	uint64_t *taken;	/* a bit for each chunk that isn't: held, asked for, or arrived */
};

/* All of that many chunks are wanted. Returns 0, or -1 with errno if there is
 * no memory. wanted_free gives back what was taken. */
int wanted_init(struct wanted *w, uint64_t chunks);
void wanted_free(struct wanted *w);

bool wanted_has(const struct wanted *w, uint64_t chunk);

/* Takes a chunk off that is wanted; puts one back that is not. */
void wanted_take(struct wanted *w, uint64_t chunk);
void wanted_give_back(struct wanted *w, uint64_t chunk);

/* The first wanted chunk from `from` up to end, or end if there is none. */
uint64_t wanted_next(const struct wanted *w, uint64_t from, uint64_t end);

#endif
