/* slow.c - peers that take too long. */
#include "fetch/slow.h"

#include "base/clock.h"
#include "base/log.h"

/* Every wait for a peer has a limit. --timeout scales these: */
#define CONNECT_MS 5000		/* a SYN and two more of them get lost, and still it connects */
#define SILENCE_MS 10000	/* without a byte while something is asked for */
#define SLOW_LEAST_MS 10	/* in place of PEER_SLOW_MS, when others were too slow for what is left, */
#define SLOW_ANSWERS 3		/* but not less than so many times what the peer took of late */
#define LOOK_MS 250		/* between two looks at who is slow, when all is asked for, at most */
#define QUEUE_MS 2000		/* with no more than so many bytes: what was asked for waits in a queue */
#define QUEUE_BYTES 8192
#define HOPELESS_RATE 1024	/* bytes a second: less, */
#define HOPELESS_S 60		/* and so long to go, and it is left though nobody is known to have the chunk */
#define QUIET_MS 500		/* without a byte: from then on poll tells of any, not only of many at a time */
#define TWIN_SILENCE_MS 1000	/* for a twin: the peer may have no room for it */
#define SLOW_TRIES 6		/* of a peer that has not delivered in time yet, each after a longer rest */
#define REST_MS 1000		/* after it made us wait */
#define UNKNOWN_RATE (1u << 20)	/* bytes a second that a peer is thought to deliver that has not delivered yet */

/* How long the peer may owe a response, before what it was asked for may be taken from it.
 * Each time that this had to be done for what is left, the next ones have half as long:
 * then any number of peers that turn out to be slow, one after the other, costs little
 * more than the first. It is not less than what the peer took for its chunks of late: it may
 * have a queue. But while nothing comes from whoever is asked instead, each has only a moment
 * to begin, until all have been tried. */
static int64_t patience_ms(const struct swarm *s, const struct peer *p)
{
	int64_t ms = s->fruitless ? 0 : PEER_SLOW_MS >> (s->takings < 10 ? s->takings : 10);
	int64_t least_ms = SLOW_ANSWERS * (p->connection.round_trip_ms + (s->fruitless ? 0 : p->answer_ms));

	if (least_ms < SLOW_LEAST_MS)
		least_ms = SLOW_LEAST_MS;
	if (ms < least_ms)
		ms = least_ms;
	return swarm_scaled(s, ms < PEER_SLOW_MS ? (int)ms : PEER_SLOW_MS);
}

/* How long the peer needs for all that it was asked for at its present rate, in seconds; that
 * is 0 after so many ms of silence. A byte now and then is a rate like any other: it takes very
 * long. */
static double seconds_left(const struct swarm *s, const struct peer *p, int64_t silence_ms, int64_t now_ms)
{
	const struct connection *c = &p->connection;
	double rate = now_ms - c->heard_ms < silence_ms ? connection_rate(c, now_ms) : 0;
	double came = connection_missing_of_chunk(c) > 0 ? (double)c->body_got : 0;
	double since_due = came * 1000 / (double)(now_ms - c->due_ms + 1);

	/* Chunks that it sent before say nothing of this one; but one that holds parts may have
	 * let us wait in its queue. */
	if (!p->holding.partial && since_due < rate)
		rate = since_due;
	return rate > 0 ? ((double)c->asked_count * (double)s->chunk_size - came) / rate : 1e9;
}

/* How fast the peer is thought to deliver. */
static double expected_rate(const struct peer *p)
{
	return peer_shows_rate(p) || p->rate > UNKNOWN_RATE ? p->rate : UNKNOWN_RATE;
}

/* Whether the peer has nothing to do, and can be asked for a chunk that another has. One
 * that has refused a chunk since it last had one may do so again; one that has no
 * connection must have delivered something, or been too slow only a few times: it may have had
 * no more than a moment to begin, or be on a busy machine. */
static bool can_take_over(const struct swarm *s, const struct peer *p, uint64_t chunk, int64_t now_ms)
{
	size_t region = wanted_region(&s->choice.wanted, chunk);

	return (peer_is_connected(p) || peer_shows_rate(p) || (p->slow && p->failures <= SLOW_TRIES)) &&
	       !p->connection.connecting && !p->banned && p->connection.asked_count == 0 &&
	       p->unchecked == 0 && p->rest_until_ms <= now_ms &&
	       choice_may_have(&s->choice, &p->holding, chunk) &&
	       (p->refusals == 0 || region_set_has(&p->holding.has, region));
}

/* Of two idle peers. */
static bool would_be_sooner(const struct peer *p, const struct peer *q)
{
	return p->slow != q->slow ? q->slow : expected_rate(p) > expected_rate(q);
}

/* The best idle peer that can take over the chunk; NULL: there is none. */
static struct peer *find_idle(const struct swarm *s, uint64_t chunk, int64_t now_ms)
{
	struct peer *idle = NULL;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (can_take_over(s, p, chunk, now_ms) && (idle == NULL || would_be_sooner(p, idle)))
			idle = p;
	}
	return idle;
}

/* Whether the peer is so slow that any other is worth trying for what it was asked for, even
 * one that isn't known to have it. */
static bool is_hopeless(const struct swarm *s, const struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;

	return s->count > 1 && now_ms - c->due_ms >= swarm_scaled(s, SILENCE_MS) &&
	       connection_rate(c, now_ms) < HOPELESS_RATE && seconds_left(s, p, patience_ms(s, p), now_ms) > HOPELESS_S;
}

/* How long those that were too slow before leave each other, unscaled: where they are tried in
 * turn, ten times as long each time that the turn comes to that one. */
static int slow_turn_ms(const struct swarm *s, const struct peer *idle)
{
	int ms = swarm_tries_in_turn(s) ? SLOW_LEAST_MS : PEER_SLOW_MS;

	for (unsigned i = 0; i < idle->failures && ms < PEER_SLOW_MS; i++)
		ms *= 10;
	return ms;
}

/* How long the peer has, before that idle one is asked instead; NULL: before it is left. */
static int64_t turn_ms(const struct swarm *s, const struct peer *p, const struct peer *idle)
{
	int64_t patience = patience_ms(s, p);
	int64_t ms = swarm_scaled(s, idle == NULL ? PEER_SLOW_MS : idle->slow ? slow_turn_ms(s, idle) : 0);

	return ms > patience ? ms : patience;
}

/* When all chunks that are left have been asked for, takes from slow peers what an idle
 * one would deliver much sooner. */
static void take_from_slow(struct swarm *s, int64_t now_ms)
{
	/* What was taken just now is still to be asked of the next one in turn. */
	if (s->choice.wanted.count > (swarm_tries_in_turn(s) ? s->taken : 0)) {
		s->takings = 0;
		s->fruitless = false;
	}
	if (s->choice.wanted.count > 0)
		return;
	s->taken = 0;
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		const struct connection *c = &p->connection;
		if (c->asked_count == 0 || now_ms - c->due_ms < patience_ms(s, p))
			continue;
		const struct peer *idle = find_idle(s, connection_awaited(c), now_ms);
		int64_t ms = turn_ms(s, p, idle);
		if (now_ms - c->due_ms < ms)
			continue;
		double size = (double)c->asked_count * (double)s->chunk_size;
		if ((idle != NULL && seconds_left(s, p, ms, now_ms) > 1 + 2 * size / expected_rate(idle)) ||
		    is_hopeless(s, p, now_ms)) {
			s->taken += c->asked_count;
			swarm_too_slow(s, p, now_ms);
		}
	}
	s->takings += s->taken > 0;
	s->fruitless = s->fruitless || s->taken > 0;
}

/* Whether somebody who has nothing to do is known to have the chunk. */
static bool has_idle_holder(const struct swarm *s, uint64_t chunk)
{
	size_t region = wanted_region(&s->choice.wanted, chunk);

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (peer_is_connected(p) && p->connection.asked_count == 0 && p->unchecked == 0 &&
		    region_set_has(&p->holding.has, region) && !region_set_has(&p->holding.lacks, region))
			return true;
	}
	return false;
}

/* What waits at a busy peer is asked of somebody else, if somebody is known to have it.
 * The protocol has no way to take a request back but to hang up. */
static void leave_queues(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		const struct connection *c = &p->connection;
		if (c->asked_count == 0 || now_ms - c->due_ms < swarm_scaled(s, QUEUE_MS) || c->body_got > QUEUE_BYTES ||
		    !has_idle_holder(s, connection_awaited(c)))
			continue;
		log_debug("%s: makes us wait", swarm_name(p));
		swarm_disconnect(s, p, now_ms);
		swarm_rest(p, REST_MS, now_ms);
	}
}

static int connect_limit(const struct swarm *s, const struct peer *p)
{
	return swarm_scaled(s, p->twin ? TWIN_SILENCE_MS : CONNECT_MS);
}

static int silence_limit(const struct swarm *s, const struct peer *p)
{
	return swarm_scaled(s, p->twin ? TWIN_SILENCE_MS : SILENCE_MS);
}

static void end_what_takes_too_long(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		struct connection *c = &p->connection;
		int64_t silent = now_ms - c->heard_ms;
		if (!peer_is_connected(p))
			continue;
		if (c->connecting && silent >= connect_limit(s, p))
			swarm_fail(s, p, "can't be connected to in time", now_ms);
		else if (c->asked_count > 0 && silent >= silence_limit(s, p))
			swarm_fail(s, p, "has been silent for too long", now_ms);
		else if (silent >= QUIET_MS)
			connection_wake_at(c, 1);
	}
}

void slow_manage(struct swarm *s, int64_t now_ms)
{
	end_what_takes_too_long(s, now_ms);
	take_from_slow(s, now_ms);
	leave_queues(s, now_ms);
}

int64_t slow_next_look_ms(const struct swarm *s, const struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;
	int64_t patient_until_ms = c->due_ms + patience_ms(s, p);

	if (c->connecting)
		return c->heard_ms + connect_limit(s, p);
	if (c->wake_bytes > 1)
		return c->heard_ms + QUIET_MS;
	if (s->choice.wanted.count == 0)
		return patient_until_ms > now_ms ? clock_earlier(patient_until_ms, now_ms + LOOK_MS) : now_ms + LOOK_MS;
	if (now_ms - c->due_ms < swarm_scaled(s, QUEUE_MS))
		return c->due_ms + swarm_scaled(s, QUEUE_MS);
	return c->heard_ms + silence_limit(s, p);
}
