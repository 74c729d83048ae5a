/* subscriptions.h - which peers have subscribed to which file, and which of them the
 * tracker names to a peer that asks.
 *
 * The number of subscriptions is bounded. At the bound a new one replaces an expired
 * one; or else the oldest one of the source that has most. So a source that floods the
 * tracker displaces only its own subscriptions. */
#ifndef SUBSCRIPTIONS_H
#define SUBSCRIPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "net/wire.h"

#define SUBSCRIPTIONS_NAMED_MAX 20	/* in one answer: more would overflow some peers' buffers */

/* To be called first, with a number that nobody else can know. */
void subscriptions_begin(uint32_t secret);

/* Records that the peer has subscribed to the file now. source: the IPv4 address that
 * the request came from. */
void subscriptions_add(const uint8_t cascade_hash[SHA256_HASH_SIZE], struct address peer, uint32_t source);

/* Chooses up to SUBSCRIPTIONS_NAMED_MAX peers, other than the requester, that have the
 * file: those that are vouched for first, then those that have subscribed lately, and
 * at random among equals. Returns the number of entries that it has filled in. */
size_t subscriptions_pick(const uint8_t cascade_hash[SHA256_HASH_SIZE], struct address requester,
			  struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX]);

/* Sets how many subscriptions have not expired, and for how many files they are. */
void subscriptions_count(size_t *peers, size_t *files);

#endif
