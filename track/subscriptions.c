/* subscriptions.c - the tracker's table of subscriptions, and which peers it names. */
#include "track/subscriptions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "track/policy.h"

#define SUBSCRIPTIONS_MAX 65536	/* known at a time */
#define PEERS_MAX 4096		/* of these, for one file: each answer looks at all of them */
#define BUCKETS 65536		/* of the hash table */
#define PEER_AGE_MAX_MS 1800000	/* an older subscription has expired */
#define FRESH_MS 660000		/* an older one comes last: peers subscribe every 600 s */

/* Anybody can subscribe any peer. So the same peer, subscribed by two sources, is two
 * subscriptions, and neither source can change the other's. */
struct subscription {
	uint8_t cascade_hash[SHA256_HASH_SIZE];
	struct address peer;
	uint32_t source;		/* the IPv4 address that the request came from */
	int64_t seen_ms;		/* when it last subscribed, as of clock_ms */
	struct subscription *next;	/* in its bucket */
};

/* The first subscription_count are in use. Only subscriptions_add() changes them. One
 * bucket holds all subscriptions to a file, and perhaps some to other files. */
static struct subscription subscriptions[SUBSCRIPTIONS_MAX];
static size_t subscription_count;
static struct subscription *buckets[BUCKETS];

/* The subscriptions that the current request is about. */
static struct subscription *found[SUBSCRIPTIONS_MAX];

static int64_t now_ms;	/* at its beginning: asking the time for each of them would take longest */

static uint32_t bucket_secret;	/* so that nobody can choose hashes that share a bucket */

void subscriptions_begin(uint32_t secret)
{
	bucket_secret = secret;
}

#define FILE_TEXT_SIZE 12

/* Writes the beginning of a file's hash into text. Returns text. */
static const char *file_text(const uint8_t hash[SHA256_HASH_SIZE], char text[FILE_TEXT_SIZE])
{
	snprintf(text, FILE_TEXT_SIZE, "%02x%02x%02x%02x...", hash[0], hash[1], hash[2], hash[3]);
	return text;
}

static bool is_for(const struct subscription *s, const uint8_t hash[SHA256_HASH_SIZE])
{
	return memcmp(s->cascade_hash, hash, SHA256_HASH_SIZE) == 0;
}

static bool has_expired(const struct subscription *s)
{
	return now_ms - s->seen_ms > PEER_AGE_MAX_MS;
}

static struct subscription **bucket_of(const uint8_t hash[SHA256_HASH_SIZE])
{
	uint32_t mixed = bucket_secret;

	for (unsigned i = 0; i < SHA256_HASH_SIZE; i += 4)
		mixed = (mixed ^ decode_be32(hash + i)) * (bucket_secret | 1);
	return &buckets[(mixed >> 16) % BUCKETS];
}

/* Puts the subscriptions to the file into found. Returns how many. */
static size_t find_subscriptions(const uint8_t hash[SHA256_HASH_SIZE])
{
	size_t count = 0;

	for (struct subscription *s = *bucket_of(hash); s != NULL; s = s->next)
		if (is_for(s, hash))
			found[count++] = s;
	return count;
}

/* ---- who gives way ------------------------------------------------------- */

/* How many subscriptions each source has: a hash table of tally_size places. That is a
 * power of two, and at least twice the number of subscriptions to count, so that a place
 * is found in a few steps. */
static struct {
	uint32_t source, count;
} tally[2 * SUBSCRIPTIONS_MAX];
static size_t tally_size;

static void clear_tally(size_t count)
{
	for (tally_size = 4; tally_size < 2 * count; tally_size *= 2)
		;
	memset(tally, 0, tally_size * sizeof tally[0]);
}

/* Returns the source's counter, which is 0 if it is new. */
static uint32_t *tally_of(uint32_t source)
{
	size_t i = (source * UINT32_C(2654435769) >> 8) & (tally_size - 1);

	while (tally[i].count > 0 && tally[i].source != source)
		i = (i + 1) & (tally_size - 1);
	tally[i].source = source;
	return &tally[i].count;
}

/* Returns which of the count subscriptions in found is replaced by a new one: an
 * expired one; else the oldest one of the source, or sources, that have most. The new
 * one is counted for its source already, so a source that has more than any other
 * replaces its own. */
static struct subscription *choose_victim(size_t count, uint32_t new_source)
{
	struct subscription *victim = NULL;
	uint32_t most = 1;

	clear_tally(count);
	++*tally_of(new_source);
	for (size_t i = 0; i < count; i++) {
		if (has_expired(found[i]))
			return found[i];
		uint32_t held = ++*tally_of(found[i]->source);
		most = held > most ? held : most;
	}
	for (size_t i = 0; i < count; i++)
		if (*tally_of(found[i]->source) == most &&
		    (victim == NULL || found[i]->seen_ms < victim->seen_ms))
			victim = found[i];
	return victim;
}

static void take_out_of_bucket(const struct subscription *s)
{
	struct subscription **link = bucket_of(s->cascade_hash);

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
}

/* Returns a place for a new subscription to the file. It is in no bucket yet. */
static struct subscription *find_place(const uint8_t hash[SHA256_HASH_SIZE], uint32_t source)
{
	static int64_t said_ms;
	char text[FILE_TEXT_SIZE];
	size_t count = find_subscriptions(hash);

	if (count < PEERS_MAX && subscription_count < SUBSCRIPTIONS_MAX)
		return &subscriptions[subscription_count++];
	if (count < PEERS_MAX)
		for (count = 0; count < subscription_count; count++)
			found[count] = &subscriptions[count];
	struct subscription *victim = choose_victim(count, source);
	if (!has_expired(victim) && log_may_say(&said_ms))
		log_warnx("%s%s has %zu subscriptions, the most there can be: new ones replace the oldest of "
			  "the source that has most",
			  count == PEERS_MAX ? "file " : "this tracker",
			  count == PEERS_MAX ? file_text(hash, text) : "", count);
	take_out_of_bucket(victim);
	return victim;
}

static struct subscription *find_subscription(const uint8_t hash[SHA256_HASH_SIZE],
					      struct address peer, uint32_t source)
{
	struct subscription *s = *bucket_of(hash);

	while (s != NULL && !(s->source == source && address_equal(s->peer, peer) && is_for(s, hash)))
		s = s->next;
	return s;
}

void subscriptions_add(const uint8_t cascade_hash[SHA256_HASH_SIZE], struct address peer, uint32_t source)
{
	struct subscription *s = find_subscription(cascade_hash, peer, source);
	char name[ADDRESS_TEXT_SIZE], file[FILE_TEXT_SIZE];

	now_ms = clock_ms();
	if (s == NULL) {
		size_t before = subscription_count;
		s = find_place(cascade_hash, source);
		struct subscription **bucket = bucket_of(cascade_hash);
		*s = (struct subscription){.peer = peer, .source = source, .next = *bucket};
		memcpy(s->cascade_hash, cascade_hash, SHA256_HASH_SIZE);
		*bucket = s;
		if (subscription_count > before)
			log_info("%s is new, for file %s", address_text(peer, name),
				 file_text(cascade_hash, file));
	}
	s->seen_ms = now_ms;
}

void subscriptions_count(size_t *peers, size_t *files)
{
	now_ms = clock_ms();
	*peers = *files = 0;
	for (size_t i = 0; i < subscription_count; i++) {
		const struct subscription *s = &subscriptions[i], *first = *bucket_of(s->cascade_hash);
		if (has_expired(s))
			continue;
		while (!is_for(first, s->cascade_hash) || has_expired(first))
			first = first->next;
		++*peers;
		*files += first == s;
	}
}

/* ---- who is named -------------------------------------------------------- */

/* The subscriptions that are named in one answer. */
struct pick {
	const struct subscription *subscription[SUBSCRIPTIONS_NAMED_MAX];
	size_t count;
};

/* Whether the peer is not picked yet, and fewer than `most` of its source are picked. */
static bool can_pick(const struct pick *pick, const struct subscription *s, size_t most)
{
	size_t of_source = 0;

	for (size_t i = 0; i < pick->count; i++) {
		if (address_equal(pick->subscription[i]->peer, s->peer))
			return false;
		of_source += pick->subscription[i]->source == s->source;
	}
	return of_source < most;
}

/* Picks from the count candidates, in their order, until `until` are picked in all, and
 * at most `most` of one source. */
static void pick_some(struct pick *pick, struct subscription *const candidates[], size_t count,
		      size_t most, size_t until)
{
	for (size_t i = 0; i < count && pick->count < until; i++)
		if (can_pick(pick, candidates[i], most))
			pick->subscription[pick->count++] = candidates[i];
}

static void shuffle(struct subscription *candidates[], size_t count)
{
	for (size_t i = 0; i + 1 < count; i++) {	/* Fisher and Yates */
		size_t j = i + (size_t)random() % (count - i);
		struct subscription *moved = candidates[i];
		candidates[i] = candidates[j];
		candidates[j] = moved;
	}
}

/* Peers are named in this order: good ones before others, and in each group those that
 * have subscribed lately before those that may have ended. */
#define RANKS 4
static unsigned rank_of(const struct subscription *s)
{
	return (policy_is_good(s->peer.ip) ? 0u : 2u) + (now_ms - s->seen_ms > FRESH_MS ? 1u : 0u);
}

/* Picks up to SUBSCRIPTIONS_NAMED_MAX peers other than the requester, by rank, and at
 * random within a rank. One half is picked from each source in turn, so that a source
 * with very many peers can't hide the others. The rest is picked from all, so that many
 * peers behind one address aren't hidden by a few with addresses of their own. */
static void pick_subscriptions(struct pick *pick, const uint8_t hash[SHA256_HASH_SIZE],
			       struct address requester)
{
	static struct subscription *ranked[PEERS_MAX];
	size_t found_count = find_subscriptions(hash);

	shuffle(found, found_count);
	pick->count = 0;
	for (unsigned rank = 0; rank < RANKS; rank++) {
		size_t count = 0;
		for (size_t i = 0; i < found_count; i++)
			if (!has_expired(found[i]) && !address_equal(found[i]->peer, requester) &&
			    rank_of(found[i]) == rank)
				ranked[count++] = found[i];
		for (size_t most = 1; most <= SUBSCRIPTIONS_NAMED_MAX / 2; most++)
			pick_some(pick, ranked, count, most, SUBSCRIPTIONS_NAMED_MAX / 2);
		pick_some(pick, ranked, count, SUBSCRIPTIONS_NAMED_MAX, SUBSCRIPTIONS_NAMED_MAX);
	}
}

size_t subscriptions_pick(const uint8_t cascade_hash[SHA256_HASH_SIZE], struct address requester,
			  struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX])
{
	struct pick pick;

	now_ms = clock_ms();
	pick_subscriptions(&pick, cascade_hash, requester);
	for (size_t i = 0; i < pick.count; i++) {
		const struct subscription *s = pick.subscription[i];
		int64_t age_s = (now_ms - s->seen_ms) / 1000;
		entries[i] = (struct tracker_entry){
			s->peer, (uint32_t)(time(NULL) - age_s), policy_is_good(s->peer.ip)};
	}
	return pick.count;
}
