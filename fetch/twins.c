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

/* The only peer that is connected to, its twins apart. NULL: there is none, or several. */
static struct peer *find_only(const struct swarm *s)
{
	struct peer *only = NULL;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (p->twin || !peer_is_connected(p) || p->connection.connecting)
			continue;
		if (only != NULL)
			return NULL;
		only = p;
	}
	return only;
}

/* Whether that peer, being the only one, may have twins if they gain something. */
static bool may_have_twins(const struct peer *p)
{
	return !p->single && p->proven && !p->slow && !p->holding.partial && !p->one_at_a_time && p->closings == 0;
}

/* Whether the line to the peer is long, and carries as much in a round trip as a kernel lends
 * to one connection, or soon will. */
static bool would_gain(const struct swarm *s, const struct peer *p)
{
	const struct connection *c = &p->connection;
	uint64_t carries = connection_carries(c);

	return swarm_connections(s) + TWINS_MAX <= s->connected_max &&
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

/* All twins are asked for nothing more; they still send what they were asked for. */
static void dismiss_twins(struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].twin && peer_is_connected(&s->peers[i]))
			s->peers[i].leaves = true;
}

/* Whether all of the peer's connections have had their time, and deliver too little. */
static bool have_failed(const struct swarm *s, const struct peer *p, size_t twins, double rate, int64_t now_ms)
{
	return twins > 0 && now_ms - p->twins_since_ms >= TWINS_TRIAL_MS && s->choice.wanted.count > 0 &&
	       rate < TWINS_GAIN * p->alone_rate;
}

/* Looks whether the only peer gains by the twins that it has, or would gain by some. */
static void manage_twins_of(struct swarm *s, struct peer *p, int64_t now_ms)
{
	double rate;
	size_t twins = count_twins(s, p, &rate, now_ms);

	if (have_failed(s, p, twins, rate, now_ms))
		swarm_no_more_twins(p);
	else if (twins == 0 && would_gain(s, p))
		connect_twins(s, p, now_ms);
}

void twins_manage(struct swarm *s, int64_t now_ms)
{
	struct peer *only = find_only(s);

	if (only != NULL && may_have_twins(only))
		manage_twins_of(s, only, now_ms);
	else
		dismiss_twins(s);
}
