/* choice.h - which chunk a peer is asked for. docs/choice.md explains the rule.
 *
 * Each fetcher asks for regions in an order of its own. Where others fetch from it, that
 * order is the order of its claims: a claim is a hash of address and region (rendezvous
 * hashing, Thaler and Ravishankar 1998), so everybody works out the same, and who comes
 * or goes moves nobody else's. Regions to which it has the greatest claim of all fetchers
 * that it knows are its share.
 *
 * - A peer that holds parts is asked for what it is known to hold; if that is nothing,
 *   for what it isn't known to lack.
 * - A peer that seems to hold everything is asked for anything, or only for what nobody
 *   else will fetch from it: our share, as far as no other peer is known to hold it.
 *
 * Without this, every chunk would still be found. It makes a seeder send each chunk about
 * once, where it otherwise sends most of them to everybody. */
#ifndef CHOICE_H
#define CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/wanted.h"
#include "net/regions.h"
#include "net/wire.h"

/* What is known of what a peer holds. A region may be in neither set. */
struct holding {
	bool partial;		/* it has refused a chunk: it doesn't hold all of the file */
	bool shares;		/* it counts as one who fetches as we do */
	struct region_set has, lacks;
};

enum choice_order {
	ORDER_BY_CLAIM,		/* for who serves what it fetches */
	ORDER_FROM_ANYWHERE,	/* the file's order, from a region chosen by chance on, then from the first one */
	ORDER_ASCENDING		/* the file's order */
};

struct choice {
	struct wanted wanted;
	struct address self;
	uint16_t order[REGIONS_MAX];	/* regions, as they are asked for */
	size_t exhausted;		/* of them, at the beginning, nothing is wanted */
	uint16_t holders[REGIONS_MAX];	/* partial peers that are known to hold the region */
	uint16_t greater[REGIONS_MAX];	/* sharers with a greater claim to the region than ours */
};

/* The claim of the peer at that address to the region: a number as good as chance, that
 * everybody works out alike. */
uint64_t choice_claim(struct address a, uint64_t region);

/* Begins: all chunks, at least one, are wanted. Returns 0, or -1 with errno if there is
 * no memory. choice_end gives it back. */
int choice_begin(struct choice *c, uint64_t chunks, struct address self, enum choice_order order);
void choice_end(struct choice *c);

/* Takes a chunk off that is wanted; puts one back that is not. */
void choice_take(struct choice *c, uint64_t chunk);
void choice_give_back(struct choice *c, uint64_t chunk);

/* Tells whether the peer at that address fetches the file as we do, and serves it. */
void choice_share(struct choice *c, struct holding *h, struct address peer, bool shares);

/* Finds a chunk to ask a peer for; only_ours: of one that seems to hold everything, only
 * what nobody else will fetch from it. False: there is none. */
bool choice_find(const struct choice *c, const struct holding *h, bool only_ours, uint64_t *chunk);

/* Whether that peer may have the chunk. */
bool choice_may_have(const struct choice *c, const struct holding *h, uint64_t chunk);

/* The peer has refused a chunk; held, if not NULL, is what it says that it holds. */
void choice_refused(struct choice *c, struct holding *h, uint64_t chunk, const struct region_set *held);

/* What the peer lacked, it may have by now. */
void choice_forget_lacks(struct holding *h);

/* The peer is not there any more, or not to be trusted: it holds nothing. */
void choice_forget(struct choice *c, struct holding *h, struct address peer);

#endif
