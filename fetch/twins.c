/* twins.c - several connections to one peer. */
#include "fetch/twins.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

/* A kernel lends each connection a few MiB, and over a long line that is all that it carries
 * in a round trip. */
#define TWINS_MAX 3		/* connections to a peer beyond its first one, */
#define TWINS_ROUND_TRIP_MS 20	/* over a line as long as that, or longer, */
#define TWINS_BYTES (1u << 20)	/* if the first one carries so many in each round trip, */
#define TWINS_WANTED 8		/* and there is so much more to fetch, in such round trips */
#define TWINS_TRIAL_MS 2000	/* later all of them must deliver */
#define TWINS_GAIN 1.5		/* times as much as the first one did alone */

/* Whether no other peer is connected to. */
static bool is_alone(const struct swarm *s, const struct peer *p)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *q = &s->peers[i];
		if (q != p && !q->twin && peer_is_connected(q) && !q->connection.connecting)
			return false;
	}
	return true;
}

/* Whether the peer may have twins, if they gain something. */
static bool may_have_twins(const struct swarm *s, const struct peer *p)
{
	return !p->single && p->proven && !p->slow && !p->holding.partial && !p->one_at_a_time && p->closings == 0 &&
	       is_alone(s, p);
}

/* Whether the line to the peer is long, and carries as much in a round trip as a kernel lends
 * to one connection, or soon will. */
static bool would_gain(const struct swarm *s, const struct peer *p)
{
	const struct connection *c = &p->connection;
	uint64_t carries = connection_carries(c);

	return !c->connecting && swarm_connections(s) + TWINS_MAX <= s->connected_max &&
	       c->round_trip_ms >= TWINS_ROUND_TRIP_MS && carries >= TWINS_BYTES &&
	       s->choice.wanted.count > 1 && s->choice.wanted.count >= TWINS_WANTED * carries / s->chunk_size;
}

/* Counts the peer's twins; their rates and its own are added up. */
static size_t count_twins(const struct swarm *s, const struct peer *p, double *rate, int64_t now_ms)
{
	size_t count = 0;

	*rate = connection_rate(&p->connection, now_ms);
	for (size_t i = 0; i < s->count; i++)
		if (peer_is_twin_of(&s->peers[i], p)) {
			*rate += connection_rate(&s->peers[i].connection, now_ms);
			count++;
		}
	return count;
}

/* A place of a twin that is gone, or any. NULL: there is no room. */
static struct peer *find_room_for_twin(struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (p->twin && !peer_is_connected(p) && p->unchecked == 0)
			return p;
	}
	return swarm_find_room(s);
}

static void connect_twins(struct swarm *s, struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;

	log_debug("%s: is asked over more than one connection", swarm_name(p));
	p->twins_since_ms = now_ms;
	p->alone_rate = (double)connection_carries(c) * 1000 / (double)c->round_trip_ms;
	for (int i = 0; i < TWINS_MAX && !p->single; i++) {
		struct peer *twin = find_room_for_twin(s);
		if (twin == NULL)
			return;
		swarm_place_twin(s, twin, p);
		if (connection_open(&twin->connection, twin->address, now_ms) < 0)
			swarm_make_single(s, twin, strerror(errno), now_ms);
	}
}

/* They still send what they were asked for, and are disconnected then. */
static void dismiss_twins(struct swarm *s, const struct peer *p)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *twin = &s->peers[i];
		if (peer_is_twin_of(twin, p))
			twin->leaves = true;
	}
}

void twins_manage(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		double rate;
		if (p->leaves && p->connection.asked_count == 0)
			swarm_disconnect_one(s, p, now_ms);
		if (p->twin || !peer_is_connected(p))
			continue;
		size_t twins = count_twins(s, p, &rate, now_ms);
		if (twins > 0 && now_ms - p->twins_since_ms >= TWINS_TRIAL_MS && s->choice.wanted.count > 0 &&
		    rate < TWINS_GAIN * p->alone_rate)
			swarm_no_more_twins(p);
		if (!may_have_twins(s, p))
			dismiss_twins(s, p);
		else if (twins == 0 && would_gain(s, p))
			connect_twins(s, p, now_ms);
	}
}
