/* ahead.c - how much is asked of whom, ahead of what it sends. */
#include "fetch/ahead.h"

#include <stdlib.h>
#include <string.h>

/* Bytes that a peer is asked for ahead of what it sends: what it can deliver in a
 * second. A fast one near by is asked for less: that it fills our socket's buffer
 * gains nothing, and from then on it is we who make it send, in the time in which we
 * could take what it sends. Over a long line it takes some round trips' worth: 100 ms
 * at 1 Gbit/s are 12 MiB; some ways of congestion control look for three times that
 * at the start, and take a cap below for the sender having nothing more to say. */
#define WINDOW_FIRST (1u << 20)
#define WINDOW_NEAR (4u << 20)
#define LONG_LINE_MS 20		/* a round trip: from then on it is asked for WINDOW_NEAR from the beginning */
#define WINDOW_MAX (64u << 20)
#define ROUND_TRIPS 8

/* Where others share, little is asked for ahead: what is asked of one can't be had from
 * another, and a chunk that waits in a long queue is passed on late. */
#define AHEAD_MS 250		/* of what the peer, or all that hold parts, deliver; */
#define AHEAD_CHUNKS 6		/* and so many chunks, of all that hold parts together */
#define SPARED 8			/* times as long as its answers take of late, a peer that holds everything is spared */

/* Finds those among whom the file is shared out, beside us. */
static void share_out(struct swarm *s)
{
	s->others_share = false;
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		bool fetches = p->holding.partial && !p->banned && p->failures == 0;
		swarm_set_fetches(s, p, fetches && p->refusals < PEER_REFUSALS_MAX);
		choice_share(&s->choice, &p->holding, p->address, fetches && p->tells);
		s->others_share = s->others_share || fetches;
	}
}

static double clamp(double value, double least, double most)
{
	return value < least ? least : value > most ? most : value;
}

/* How many chunks a peer may be asked for ahead of what it sends, if nobody shares: what
 * it delivers in a second, or in some round trips. */
static uint64_t window_alone(const struct swarm *s, const struct peer *p)
{
	int64_t round_trip_ms = p->connection.round_trip_ms;
	double round_trips = p->rate * ROUND_TRIPS * (double)round_trip_ms / 1000;
	double most = clamp(round_trips, WINDOW_NEAR, WINDOW_MAX);
	double least = round_trip_ms < LONG_LINE_MS ? WINDOW_FIRST : WINDOW_NEAR;
	uint64_t chunks = (uint64_t)clamp(p->rate, least, most) / s->chunk_size;

	if (chunks < 2)
		chunks = 2;
	/* A peer that serves begins slowly: others may have begun just now, and are not known yet. */
	return s->options.serves && chunks > p->chunks ? p->chunks : chunks;
}

/* Chunks that come in AHEAD_MS at that rate. */
static uint64_t ahead(const struct swarm *s, double rate)
{
	return (uint64_t)(rate * AHEAD_MS / 1000) / s->chunk_size;
}

/* What the peers that hold parts may be asked for together, beyond what they were asked
 * for, and what they deliver. Who is late counts for nothing: it would keep us from
 * asking others. */
static uint64_t budget_left(const struct swarm *s, double *rate, int64_t now_ms)
{
	uint64_t asked = 0, budget;

	*rate = 0;
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (!p->holding.partial || p->connection.asked_count == 0)
			continue;
		*rate += connection_rate(&p->connection, now_ms);
		if (now_ms - p->connection.heard_ms < swarm_scaled(s, PEER_SLOW_MS))
			asked += p->connection.asked_count;
	}
	budget = AHEAD_CHUNKS + ahead(s, *rate);
	return asked < budget ? budget - asked : 0;
}

/* How many more chunks the peer may be asked for. Until it has shown that it delivers,
 * one: a liar's chunks are wasted. */
static uint64_t window_left(const struct swarm *s, const struct peer *p, uint64_t part)
{
	uint64_t asked = p->connection.asked_count, chunks;

	if (p->leaves)
		return 0;
	if (!p->proven && p->refusals == 0)
		return asked + p->unchecked == 0;
	if (p->one_at_a_time || p->closings > 0)
		return asked == 0;
	chunks = p->holding.partial || s->others_share ? 1 + ahead(s, p->rate) : window_alone(s, p);
	/* Nobody is asked for more than its part of what is left: at the end, those who turn
	 * out to be slow hold little. */
	if (chunks > part)
		chunks = part;
	return asked < chunks ? chunks - asked : 0;
}

/* Whether a peer that seems to hold everything is to be asked only for what nobody else
 * fetches from it: while the others, together, deliver faster than it does, it has more
 * to do than they. After a while it is tried again: it may have less to do by now. */
static bool is_spared(const struct swarm *s, const struct peer *p, double others_rate, int64_t now_ms)
{
	return !p->holding.partial && p->answer_ms > 0 &&
	       others_rate * (double)p->answer_ms > (double)s->chunk_size * 1000 &&
	       now_ms - p->connection.heard_ms < SPARED * p->answer_ms;
}

/* Asks for up to that many chunks. Returns how many it asked for. */
static uint64_t ask_for_chunks(struct swarm *s, struct peer *p, uint64_t left, bool only_ours, int64_t now_ms)
{
	struct connection *c = &p->connection;
	uint64_t chunk, asked = 0;

	/* Many requests in one go, rather than one for each chunk that came. */
	if (c->asked_count > 0 && left < c->asked_count / 2 && c->out_used == 0)
		return 0;
	for (;;) {
		while (asked < left && connection_can_ask(c) && choice_find(&s->choice, &p->holding, only_ours, &chunk)) {
			choice_take(&s->choice, chunk);
			connection_ask(c, chunk, s->cascade_hash, now_ms);
			asked++;
		}
		if (c->out_used == 0)
			return asked;
		int error = connection_send(c);
		if (error != 0) {
			swarm_fail(s, p, strerror(error), now_ms);
			return 0;
		}
		if (c->out_used > 0)
			return asked;	/* the socket is full: poll tells when it isn't */
	}
}

/* Who seems to hold everything comes before who holds parts, and who answered sooner of
 * late before who took longer: it has less to do. */
static int compare_in_turn(const void *a, const void *b)
{
	const struct peer *p = *(struct peer *const *)a, *q = *(struct peer *const *)b;

	if (p->holding.partial != q->holding.partial)
		return p->holding.partial ? 1 : -1;
	if (p->answer_ms != q->answer_ms)
		return p->answer_ms < q->answer_ms ? -1 : 1;
	return p->turn < q->turn ? -1 : p->turn > q->turn;
}

/* Puts those that may be asked into the order in which they are. Among equals that is
 * another one each time. Returns how many they are. */
static size_t put_in_turn(struct swarm *s, struct peer *in_turn[PEERS_MAX], int64_t now_ms)
{
	size_t count = 0, first = s->turn++;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[(first + i) % s->count];
		if (!peer_is_connected(p) || p->connection.connecting || p->rest_until_ms > now_ms)
			continue;
		p->turn = count;
		in_turn[count++] = p;
	}
	qsort(in_turn, count, sizeof in_turn[0], compare_in_turn);
	return count;
}

void ahead_ask_all(struct swarm *s, int64_t now_ms)
{
	double others_rate;
	struct peer *in_turn[PEERS_MAX];

	share_out(s);
	uint64_t budget = budget_left(s, &others_rate, now_ms);
	size_t connected = swarm_connections(s);
	uint64_t part = s->choice.wanted.count / (connected > 0 ? connected : 1) + 1;
	size_t count = put_in_turn(s, in_turn, now_ms);
	for (size_t i = 0; i < count; i++) {
		struct peer *p = in_turn[i];
		bool partial = p->holding.partial;
		swarm_rested(p);
		uint64_t left = window_left(s, p, part);
		if (partial && left > budget)
			left = budget;
		uint64_t asked = ask_for_chunks(s, p, left, is_spared(s, p, others_rate, now_ms), now_ms);
		if (partial)
			budget -= asked;
		if (partial && left > 0 && p->connection.asked_count == 0 && s->choice.wanted.count > 0 && peer_is_connected(p))
			swarm_rest_refused(p, now_ms);
	}
}
