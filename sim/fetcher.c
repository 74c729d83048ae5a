/* fetcher.c - a simulated fetcher: the real swarm.c, choice.c, wanted.c, connection.c and
 * asking.c, and what fetch.c and arrival.c do for them. After each event the fetcher's
 * chunks are counted. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "sim/swarm.h"

#define CHECK_US 2000		/* a checker takes for a chunk */
#define DRIP_US 300000		/* between two bytes of a dripper */
#define STARVED_US 40000000	/* without a byte of a chunk while somebody has something */
#define LARGE 128		/* nodes */
#define FULL_CHECK_MAX 256	/* chunks of a file for which each is looked at after each event */

static const uint8_t hash[SHA256_HASH_SIZE];

/* ---- the invariants --------------------------------------------------------------- */

static void check_each(const struct node *n)
{
	const struct swarm *s = &n->swarm;

	for (uint64_t chunk = 0; chunk < set.chunks; chunk++) {
		int states = (n->held[chunk] != 0) + (n->checking[chunk] != 0) + wanted_has(&s->choice.wanted, chunk);
		for (size_t i = 0; i < s->count; i++) {
			const struct connection *c = &s->peers[i].connection;
			for (size_t at = 0; at < c->asked_count; at++)
				states += c->asked[(c->asked_first + at) % c->asked_size] == chunk;
		}
		if (states != 1)
			violate(n, "a chunk is not exactly one of held, being checked, asked for, wanted");
	}
}

static void check_all(const struct node *n)
{
	uint64_t chunks = n->swarm.choice.wanted.count + n->held_count + n->unchecked;

	for (size_t i = 0; i < n->swarm.count; i++)
		chunks += n->swarm.peers[i].connection.asked_count;
	if (chunks != set.chunks)
		violate(n, "chunks are not each one of held, being checked, asked for, wanted");
	if (set.chunks <= FULL_CHECK_MAX && node_count <= 16)
		check_each(n);
}

/* Whether the fetcher knows a peer that can serve it what it wants, and of which it
 * could know that. */
static bool could_have_more(const struct node *n)
{
	for (size_t i = 0; i < n->swarm.count; i++) {
		const struct node *s = node_at(n->swarm.peers[i].address);
		if ((s->kind != HONEST && s->kind != REFERENCE) || s->dead)
			continue;
		for (uint64_t chunk = 0; chunk < set.chunks; chunk++)
			if (s->held[chunk] && !n->held[chunk])
				return true;
	}
	return false;
}

void fetchers_look_for_starving(void)
{
	for (int i = 1; i < node_count; i++)
		if (nodes[i].fetching && now_us - nodes[i].heard_us > STARVED_US && could_have_more(&nodes[i]))
			violate(&nodes[i], "a fetcher hears nothing, though somebody has what it lacks");
}

/* ---- deciding --------------------------------------------------------------------- */

static void manage_at(struct node *n, int64_t at_us)
{
	if (n->manage_us != 0 && n->manage_us <= at_us)
		return;
	n->manage_us = at_us;
	events_push((struct event){.at_us = at_us, .what = MANAGE, .node = n, .generation = ++n->manage_turn});
}

/* Something happened. In large swarms a fetcher takes what happens within a millisecond
 * together, as in reality with one wake-up. */
static void manage_soon(struct node *n)
{
	manage_at(n, node_count > LARGE ? (now_us / 1000 + 1) * 1000 : now_us);
}

static void manage(struct node *n)
{
	if (!n->fetching)
		return;
	current = n;
	swarm_manage(&n->swarm, now_ms());
	if (asking_put_if_due(&n->asking, now_ms()))
		push_node(now_us + 4 * delay_us() + 1000, LIST, n);
	int64_t next = swarm_next_event_ms(&n->swarm, now_ms(), now_ms() + 60000);
	next = asking_next_ms(&n->asking, next);
	manage_at(n, (next > now_ms() ? next : now_ms() + 1) * 1000);
}

static void begin_to_serve(struct node *n)
{
	struct tracker_entry entries[NAMES_MAX];

	tracker_subscribe(n);
	asking_take_names(&n->asking, entries, tracker_list(n, entries));
}

static void take_list(struct node *n)
{
	struct tracker_entry entries[NAMES_MAX];

	current = n;
	asking_take_list(&n->asking, entries, tracker_list(n, entries), now_ms());
}

void fetcher_start(struct node *n)
{
	const struct swarm_options options = {.self = address_of(n), .serves = true, .time_scale = 1};

	n->fetching = true;
	n->heard_us = now_us;
	if (swarm_begin(&n->swarm, set.chunks * set.chunk_size, set.chunk_size, hash, &options) < 0)
		fatal("no memory for a swarm");
	asking_begin(&n->asking, &(struct asking_options){.path = "", .tracker_host = "", .serves = true}, &n->swarm);
	manage(n);
}

void fetcher_stop(struct node *n)
{
	current = n;
	n->fetching = false;
	swarm_end(&n->swarm, now_ms());
}

static void kill_node(struct node *n)
{
	if (n->done_us != 0)
		return;
	n->dead = true;
	undone--;
	if (n->fetching)
		fetcher_stop(n);
	network_close_all_to(n);
}

/* ---- what comes ------------------------------------------------------------------- */

static void take_checked(struct node *n, struct peer *p, uint64_t chunk)
{
	current = n;
	p->unchecked--;
	n->unchecked--;
	n->checking[chunk]--;
	if (node_at(p->address)->kind == LIAR) {
		swarm_chunk_wasted(&n->swarm, chunk, set.chunk_size);
		if (p->banned)
			return;
		swarm_ban(&n->swarm, p, "sent a wrong chunk", now_ms());
		return;
	}
	server_hold(n, chunk);
	swarm_delivered(&n->swarm, p, 1);
	if (!n->subscribed)
		begin_to_serve(n);
	if (n->held_count == set.chunks) {
		fetcher_stop(n);
		n->done_us = now_us;
		undone--;
	}
}

/* As arrival.c: a piece of a chunk has come. */
static void take_bytes(struct node *n, struct peer *p, struct flow *f, uint64_t bytes)
{
	struct connection *c = &p->connection;

	n->heard_us = now_us;
	swarm_heard(p, (size_t)bytes, now_ms());
	if (c->header_got == 0) {
		c->header_got = PEER_RESPONSE_SIZE;
		c->response = (struct peer_response){.status = PEER_OK, .length = set.chunk_size};
		c->body_got = 0;
		swarm_chunk_begins(&n->swarm, p);
	}
	c->body_got += bytes;
	if (c->body_got < set.chunk_size)
		return;
	uint64_t chunk = connection_awaited(c);
	c->header_got = 0;
	n->checking[chunk]++;
	n->unchecked++;
	p->unchecked++;
	swarm_chunk_arrived(p, now_ms());
	events_push((struct event){.at_us = now_us + CHECK_US, .what = CHECKED, .node = n, .n = chunk, .peer = f->peer});
	if (f->server->closing)
		push_flow(now_us, CLOSED, f, 0);
	swarm_answered(&n->swarm, p, now_ms());
}

/* As arrival.c: handle_end. */
static void take_end(struct node *n, struct peer *p)
{
	const struct connection *c = &p->connection;

	if (c->asked_count == 0 || (c->answers > 0 && c->header_got == 0))
		swarm_hung_up(&n->swarm, p, now_ms());
	else
		swarm_fail(&n->swarm, p, "closed the connection", now_ms());
}

void fetcher_handle_flow(const struct event *e, struct flow *f)
{
	struct node *n = f->client;
	struct peer *p = &n->swarm.peers[f->peer];

	current = n;
	switch (e->what) {
	case CONNECTED:
		swarm_connecting_ended(&n->swarm, p, now_ms());
		break;
	case REFUSED:
		swarm_chunk_refused(&n->swarm, p, e->map, now_ms());
		swarm_answered(&n->swarm, p, now_ms());
		break;
	case DELIVERED:
		take_bytes(n, p, f, e->n);
		if (p->connection.header_got > 0)
			return;		/* the chunk isn't complete: there is nothing to decide */
		break;
	case DRIP:
		swarm_heard(p, 1, now_ms());
		push_flow(now_us + DRIP_US, DRIP, f, 0);
		break;
	case CLOSED:
		take_end(n, p);
		break;
	default:
		break;
	}
	manage_soon(n);
	check_all(n);
}

void fetcher_handle_node(const struct event *e, struct node *n)
{
	switch (e->what) {
	case START:
		fetcher_start(n);
		break;
	case MANAGE:
		if (e->generation != n->manage_turn)
			return;
		n->manage_us = 0;
		manage(n);
		break;
	case KILL:
		kill_node(n);
		return;
	case LIST:
		if (!n->fetching)
			return;
		take_list(n);
		manage_soon(n);
		break;
	case CHECKED:
		if (n->dead)
			return;
		take_checked(n, &n->swarm.peers[e->peer], e->n);
		manage_soon(n);
		break;
	default:
		return;
	}
	if (n->fetching)
		check_all(n);
}

