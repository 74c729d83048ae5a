/* swarm.c - what is done next: who is connected to, and asked; used by the fetcher. */
#include "fetch/swarm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fetch/ahead.h"
#include "fetch/slow.h"
#include "fetch/twins.h"

#define LEAVE_MS 1000		/* that a peer which is to leave may keep us waiting for a response */

/* Whether p is quicker than that slow peer. Where slow ones are tried in turn, another of them
 * is that only if this one's rate is known: a machine that is busy for a moment may be the
 * best of them. */
static bool is_quicker(const struct swarm *s, const struct peer *p, const struct peer *slow)
{
	if (p->slow && !peer_shows_rate(slow) && swarm_tries_in_turn(s))
		return false;
	return p->rate > slow->rate || (p->rate == 0 && !p->slow);
}

/* Whether somebody is connected to, or about to be, who has something for us, and is
 * quicker than that slow peer, or of unknown speed. */
static bool has_quicker_peer(const struct swarm *s, const struct peer *slow)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (peer_is_connected(p) && p->refusals == 0 && is_quicker(s, p, slow))
			return true;
	}
	return false;
}

/* Whether the peer has no connection, and may have one. */
static bool may_be_connected(const struct peer *p, int64_t now_ms)
{
	return !peer_is_connected(p) && !p->banned && p->rest_until_ms <= now_ms && !peer_is_spare(p) &&
	       (p->proven || p->unchecked == 0);
}

/* The best of the peers that may be connected to; among equals, any. A slow one is better
 * than none. */
static struct peer *choose_peer(struct swarm *s, int64_t now_ms)
{
	struct peer *best = NULL;
	size_t start = s->count > 0 ? (size_t)random() % s->count : 0;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[(start + i) % s->count];
		if (may_be_connected(p, now_ms) && !(p->slow && has_quicker_peer(s, p)) && (best == NULL || peer_is_better(p, best)))
			best = p;
	}
	return best;
}

/* Every peer that may have something for us is connected to, as far as there is room:
 * then one that delivers drop by drop keeps nobody else from being asked. */
static void connect_to_all(struct swarm *s, int64_t now_ms)
{
	size_t connected = swarm_connections(s);
	struct peer *p;

	while (s->choice.wanted.count > 0 && connected < s->connected_max && (p = choose_peer(s, now_ms)) != NULL)
		if (connection_open(&p->connection, p->address, now_ms) < 0)
			swarm_fail(s, p, strerror(errno), now_ms);
		else
			connected++;
}

/* Whether the peer leaves, and owes nothing that is worth waiting for. */
static bool is_leaving_now(const struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;

	return p->leaves && (c->asked_count == 0 || (c->header_got == 0 && now_ms - c->heard_ms >= LEAVE_MS));
}

/* Whom of two to be without. */
static bool is_dearer(const struct peer *p, const struct peer *q)
{
	if (p->twin != q->twin)
		return q->twin;
	return peer_is_better(p, q);
}

/* If there may be fewer connections than there are, the least of the peers leave. What they
 * were asked for they still send. */
static void let_go(struct swarm *s, int64_t now_ms)
{
	size_t stay = 0;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (is_leaving_now(p, now_ms))
			swarm_disconnect(s, p, now_ms);
		else if (peer_is_connected(p) && peer_is_spare(p))
			p->leaves = true;
		stay += peer_is_connected(p) && !p->leaves;
	}
	for (; stay > s->connected_max; stay--) {
		struct peer *least = NULL;
		for (size_t i = 0; i < s->count; i++) {
			struct peer *p = &s->peers[i];
			if (peer_is_connected(p) && !p->leaves && (least == NULL || is_dearer(least, p)))
				least = p;
		}
		least->leaves = true;
	}
}

void swarm_manage(struct swarm *s, int64_t now_ms)
{
	slow_manage(s, now_ms);
	twins_manage(s, now_ms);
	let_go(s, now_ms);
	ahead_ask_all(s, now_ms);
	connect_to_all(s, now_ms);
}

size_t swarm_wanted_connections(const struct swarm *s, int64_t now_ms)
{
	size_t count = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		count += peer_is_connected(p) || (s->choice.wanted.count > 0 && may_be_connected(p, now_ms));
	}
	return count;
}

int64_t swarm_next_event_ms(const struct swarm *s, int64_t now_ms, int64_t next_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (p->connection.connecting || p->connection.asked_count > 0)
			next_ms = clock_earlier(next_ms, slow_next_look_ms(s, p, now_ms));
		if (p->leaves && p->connection.header_got == 0)
			next_ms = clock_earlier(next_ms, p->connection.heard_ms + LEAVE_MS);
		if (!p->banned && p->rest_until_ms > now_ms)
			next_ms = clock_earlier(next_ms, p->rest_until_ms);
	}
	return next_ms;
}
