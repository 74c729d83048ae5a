/* subscriptions.h - which peers have subscribed to which file, and which of them
 * are named to a peer that asks.
 *
 * The memory for it is bounded. At the bound an expired subscription is replaced;
 * else the oldest one of the source that holds most. So a source that floods the
 * tracker displaces only what it has sent itself. */
#ifndef SUBSCRIPTIONS_H
#define SUBSCRIPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "net/wire.h"

#define SUBSCRIPTIONS_NAMED_MAX 20	/* in one answer: more would overflow some peers' buffers */

/* To be called first, with a number that nobody outside can know. */
void subscriptions_begin(uint32_t secret);

/* Notes that the peer has subscribed to the file just now. source: the IPv4 address
 * that the request came from. */
void subscriptions_add(const uint8_t cascade_hash[SHA256_HASH_SIZE], struct address peer, uint32_t source);

/* Chooses the peers to name to the requester: up to SUBSCRIPTIONS_NAMED_MAX others,
 * those that are vouched for first, then those that have subscribed lately, and by
 * chance among equals. Returns how many entries it has filled in. */
size_t subscriptions_pick(const uint8_t cascade_hash[SHA256_HASH_SIZE], struct address requester,
			  struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX]);

/* How many subscriptions have not expired, and for how many files. */
void subscriptions_count(size_t *peers, size_t *files);

#endif
