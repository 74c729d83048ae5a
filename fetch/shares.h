/* shares.h - how fetchers share out a file that each of them holds parts of,
 * without a word between them: the parts that each is to have first follow from
 * its address, so everybody who knows the address works out the same.
 *
 * The file is cut into regions. By a hash of address and region each fetcher has
 * a claim to each region; the one with the greatest claim is to fetch it from
 * whoever holds everything, and the others are to have it from that one. This is
 * rendezvous hashing: who joins or leaves moves no other's share. */
#ifndef SHARES_H
#define SHARES_H

#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

#define SHARES_REGIONS 1024	/* at most, in a file */

/* What is worked out: who has the greatest claim to each region, and who the next. */
struct shares {
	uint64_t digest;	/* of the sharers that it is worked out for */
	size_t regions;
	struct address first[SHARES_REGIONS], second[SHARES_REGIONS];	/* port 0: nobody */
};

/* How somebody stands to a region. */
enum standing { ITS_SHARE, ITS_NEXT, NOT_ITS };

/* Regions, in the order in which chunks are looked for in them. */
struct order {
	uint64_t digest;	/* of the sharers that it was made for; 0: it wasn't made */
	size_t place;		/* before it there was nothing to be found, */
	uint64_t chunk;		/* nor before that chunk of the region there, */
	uint64_t given_back;	/* as long as struct wanted has the same */
	uint16_t region[SHARES_REGIONS];
};

/* A number that tells sets of sharers apart; their order makes no difference. Not 0. */
uint64_t shares_digest(const struct address sharers[], size_t count);

/* Works out what belongs to whom of these sharers, of that many regions. */
void shares_work_out(struct shares *s, const struct address sharers[], size_t count, size_t regions);

enum standing shares_standing(const struct shares *s, struct address whose, size_t region);

/* The order in which a fetcher at that address gets its regions: first its share,
 * then those where it comes second, then the rest; in each, those first where its
 * claim is greatest. */
void shares_order(const struct shares *s, struct address whose, struct order *order);

/* The order of the file, from that region on and then from the first one. */
void shares_file_order(const struct shares *s, size_t from, struct order *order);

#endif
