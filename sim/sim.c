/* sim.c - a swarm in one process: the fetchers' own code (swarm.c, choice.c, wanted.c,
 * connection.c) over a virtual clock and a virtual network.
 *
 * The network stands in dial.c's place. Each node has a line with two directions; what
 * a server sends goes through its uplink, then through the client's downlink, in pieces.
 * Servers have the queue of serve/turns.c. The tracker and the intervals at which it is
 * asked are those of tracker.c and fetch.c, in short.
 *
 * After each event it is checked that every chunk of the fetcher that it concerns is
 * exactly one of held, being checked, asked for, wanted; and now and then that nobody
 * waits in vain. All follows from the seed. Not a part of any program. */
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fetch/swarm.h"
#include "serve/turns.h"

#define NAMES 20			/* that the tracker puts on a list */
#define RENEW_MS 1000			/* fetch.c: LIST_AGE_LEAST_MS */
#define RETRY_MS 10000			/* fetch.c: ASK_MS */
#define LIST_AGE_MS 300000		/* fetch.c */
#define CHECK_US 2000			/* a checker takes for a chunk */
#define ANSWER_US 100			/* a server takes for a request */
#define DRIP_US 300000			/* between two bytes of one that drips */
#define LIFE_US 4000000			/* serve_client.c: LIFE_MS */
#define LIFE_BYTES 4096			/* serve_client.c */
#define IN_FLIGHT 4			/* pieces of a chunk that a connection holds */
#define QUEUE_MAX 256			/* requests at a server, for each connection */
#define STARVED_US 40000000		/* without a byte of a chunk while somebody has something */
#define LOOK_US 5000000			/* between two looks at who starves */
#define LARGE 128			/* nodes */
#define FULL_CHECK_MAX 256		/* chunks of a file for which each is looked at after each event */

static struct {
	int fetchers;
	uint64_t chunks, chunk_size;
	double up, down, seeder_up, slow_up;	/* Mbit/s; 0: as the others' */
	double delay_ms;			/* from a peer to another */
	double late, killed, liars, drippers, silent, blind, closing;	/* fractions of the fetchers */
	unsigned seed;
	bool verbose;
} set;

enum kind {HONEST, LIAR, DRIPPER, SILENT};

struct node {
	int id;
	enum kind kind;
	bool blind;		/* it doesn't say what it holds */
	bool closing;		/* it closes after each response */
	bool dead, fetching, subscribed;
	int64_t start_us, done_us;
	double up, down;	/* bytes a microsecond */

	/* As a fetcher. */
	struct swarm swarm;
	uint8_t *held;		/* for each chunk */
	uint64_t held_count, unchecked;
	int64_t *checking;	/* chunks that a checker has, counted */
	int64_t began_ms, asked_ms, listed_ms, heard_us, manage_us;
	unsigned manage_turn;	/* the one that counts */
	bool named_new;
	int64_t down_free_us;

	/* As a server. */
	struct region_set whole;
	uint64_t *missing;	/* chunks, in each region */
	uint32_t *copies;	/* asked for, of each chunk */
	uint64_t asked, sent;	/* chunks */
	bool sending;
	int *ready;		/* flows that have a chunk to send */
	int ready_count, next;
};

/* A connection. Its number is the descriptor that the client sees. */
struct flow {
	unsigned generation;	/* of those that used this number */
	bool open;
	struct node *client, *server;
	size_t peer;		/* in the client's table */
	uint64_t queue[QUEUE_MAX];
	unsigned first, count;
	uint64_t sent;		/* bytes of the first one's chunk */
	unsigned in_flight, served;
	bool ready, has_turn, dripping;
	uint64_t place;		/* in the server's queue */
	int64_t waits_us;	/* since when, or since the last sign of life */
};

enum what {CONNECTED, REQUEST, REFUSED, UPLINK_FREE, DELIVERED, CHECKED, MANAGE, START, KILL, LIST, DRIP, CLOSED, LOOK};

struct event {
	int64_t at_us;
	uint64_t order;
	enum what what;
	int flow, node;
	unsigned generation;
	uint64_t n;		/* chunk, bytes */
	struct region_set *map;
};

static struct node *nodes;
static int node_count, undone;
static int *subscribed;			/* room for all their numbers */
static struct flow *flows;
static int *free_flows, free_count, flow_count;
static struct event *heap;
static size_t heap_count, heap_size;
static uint64_t order;
static int64_t now_us;
static struct node *current;		/* whose swarm.c is at work */
static const char *violation;		/* the first */
static int violation_node;
static const uint8_t hash[SHA256_HASH_SIZE];

static void *get(size_t count, size_t size)
{
	void *memory = calloc(count > 0 ? count : 1, size);

	if (memory == NULL)
		fatal("memory");
	return memory;
}

static int64_t now_ms(void)
{
	return now_us / 1000 + 1;
}

static int64_t delay_us(void)
{
	return (int64_t)(set.delay_ms * 1000);
}

static double chance(void)
{
	return (double)random() / ((double)RAND_MAX + 1);
}

/* ---- events ------------------------------------------------------------------- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push(struct event e)
{
	size_t i = heap_count++;

	if (i == heap_size) {
		heap_size = heap_size > 0 ? 2 * heap_size : 1024;
		heap = realloc(heap, heap_size * sizeof *heap);
		if (heap == NULL)
			fatal("memory");
	}
	e.order = order++;
	for (; i > 0 && is_before(&e, &heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = e;
}

static struct event pop(void)
{
	struct event top = heap[0], last = heap[--heap_count];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < heap_count; i = child) {
		if (child + 1 < heap_count && is_before(&heap[child + 1], &heap[child]))
			child++;
		if (!is_before(&heap[child], &last))
			break;
		heap[i] = heap[child];
	}
	heap[i] = last;
	return top;
}

static void push_flow(int64_t at_us, enum what what, const struct flow *f, uint64_t n)
{
	push((struct event){.at_us = at_us, .what = what, .flow = (int)(f - flows), .generation = f->generation,
			    .node = f->server->id, .n = n});
}

static void push_node(int64_t at_us, enum what what, const struct node *n)
{
	push((struct event){.at_us = at_us, .what = what, .flow = -1, .node = n->id});
}

static void manage_at(struct node *n, int64_t at_us)
{
	if (n->manage_us != 0 && n->manage_us <= at_us)
		return;
	n->manage_us = at_us;
	push((struct event){.at_us = at_us, .what = MANAGE, .flow = -1, .node = n->id, .generation = ++n->manage_turn});
}

/* Something happened. In large swarms a fetcher takes what happens within a millisecond
 * together, as in reality with one wake-up. */
static void manage_soon(struct node *n)
{
	manage_at(n, node_count > LARGE ? (now_us / 1000 + 1) * 1000 : now_us);
}

/* ---- connection.h's socket calls -------------------------------------------------- */

static struct address address_of(int id)
{
	return (struct address){.ip = 0x0a000001u + (uint32_t)id, .port = 5000};
}

static struct node *node_at(struct address a)
{
	return &nodes[a.ip - 0x0a000001u];
}

int connection_open(struct connection *c, struct address to, int64_t ms)
{
	struct peer *p = (struct peer *)(void *)((char *)c - offsetof(struct peer, connection));
	int fd = free_count > 0 ? free_flows[--free_count] : flow_count++;
	struct flow *f = &flows[fd];

	*f = (struct flow){.generation = f->generation + 1, .open = true, .client = current, .server = node_at(to),
			   .peer = (size_t)(p - current->swarm.peers)};
	connection_begin(c, fd, ms);
	c->connecting = true;
	if (!f->server->dead)
		push_flow(now_us + 2 * delay_us(), CONNECTED, f, 0);
	return 0;
}

int connection_made(struct connection *c, int64_t ms)
{
	c->connecting = false;
	c->round_trip_ms = ms - c->heard_ms;
	return 0;
}

static void leave_queue(struct flow *f)
{
	struct node *s = f->server;
	int at = 0;

	if (!f->ready)
		return;
	while (s->ready[at] != (int)(f - flows))
		at++;
	memmove(s->ready + at, s->ready + at + 1, (size_t)(--s->ready_count - at) * sizeof s->ready[0]);
	f->ready = f->has_turn = false;
}

void connection_close(struct connection *c)
{
	if (c->fd >= 0) {
		struct flow *f = &flows[c->fd];
		leave_queue(f);
		f->open = false;
		f->generation++;
		free_flows[free_count++] = c->fd;
	}
	connection_free(c);
}

int connection_send(struct connection *c)
{
	struct peer_request request;

	for (size_t at = 0; at < c->out_used; at += PEER_REQUEST_SIZE)
		if (peer_request_decode(&request, c->out + at))
			push_flow(now_us + delay_us() + ANSWER_US, REQUEST, &flows[c->fd], request.chunk);
	c->out_used = 0;
	return 0;
}

void connection_wake_at(struct connection *c, size_t bytes)
{
	c->wake_bytes = bytes;
}

/* ---- serving ---------------------------------------------------------------------- */

/* The flow that sends next: of those that have a turn, one after the other. */
static struct flow *choose_flow(struct node *s)
{
	struct flow *with_turn = NULL, *first = NULL;
	int turns = 0;

	for (int i = 0; i < s->ready_count; i++) {
		struct flow *f = &flows[s->ready[(s->next + i) % s->ready_count]];
		turns += f->has_turn;
		if (f->in_flight >= IN_FLIGHT)
			continue;
		if (!f->has_turn && now_us - f->waits_us > LIFE_US) {
			f->waits_us = now_us;
			return f;	/* a sign of life */
		}
		if (f->has_turn && with_turn == NULL) {
			with_turn = f;
			s->next = (s->next + i + 1) % s->ready_count;
		} else if (!f->has_turn && (first == NULL || f->place < first->place)) {
			first = f;
		}
	}
	if (first != NULL && turns < TURNS_LEAST && (with_turn == NULL || random() % 2)) {
		first->has_turn = true;
		return first;
	}
	return with_turn;
}

static void use_uplink(struct node *s)
{
	struct flow *f = s->sending || s->dead ? NULL : choose_flow(s);
	uint64_t piece = set.chunk_size / 8, left;

	if (f == NULL)
		return;
	left = set.chunk_size - f->sent;
	piece = !f->has_turn ? LIFE_BYTES : piece < LIFE_BYTES ? LIFE_BYTES : piece;
	piece = piece < left ? piece : left;
	f->sent += piece;
	f->in_flight++;
	s->sending = true;
	push_flow(now_us + (int64_t)((double)piece / s->up) + 1, UPLINK_FREE, f, piece);
	if (f->sent == set.chunk_size) {
		s->sent++;
		leave_queue(f);
		f->first = (f->first + 1) % QUEUE_MAX;
		f->count--;
		f->sent = 0;
		f->served++;
	}
}

static void refuse(struct flow *f, uint64_t chunk)
{
	struct event e = {.at_us = now_us + delay_us() + ANSWER_US, .what = REFUSED, .flow = (int)(f - flows),
			  .generation = f->generation, .node = f->server->id, .n = chunk};

	if (!f->server->blind) {
		e.map = get(1, sizeof *e.map);
		*e.map = f->server->whole;
	}
	push(e);
}

/* Begins to answer the first request of those that are there. */
static void look_at_request(struct flow *f)
{
	struct node *s = f->server;

	while (f->count > 0 && !f->ready && !f->dripping && s->kind != SILENT) {
		uint64_t chunk = f->queue[f->first];
		if (s->kind == DRIPPER && f->served > 0) {
			f->dripping = true;
			push_flow(now_us + DRIP_US, DRIP, f, 0);
		} else if (s->held[chunk]) {
			f->ready = true;
			f->has_turn = false;
			f->place = s->asked++ + (uint64_t)s->copies[chunk]++ * TURN_COPY;
			f->waits_us = now_us;
			s->ready[s->ready_count++] = (int)(f - flows);
		} else if (f->in_flight > 0) {
			return;		/* responses come in order */
		} else {
			refuse(f, chunk);
			f->first = (f->first + 1) % QUEUE_MAX;
			f->count--;
		}
	}
}

/* ---- fetching --------------------------------------------------------------------- */

static void fail(const struct node *n, const char *what)
{
	if (violation == NULL) {
		violation = what;
		violation_node = n->id;
	}
}

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
			fail(n, "a chunk is not exactly one of held, being checked, asked for, wanted");
	}
}

static void check_all(const struct node *n)
{
	uint64_t chunks = n->swarm.choice.wanted.count + n->held_count + n->unchecked;

	for (size_t i = 0; i < n->swarm.count; i++)
		chunks += n->swarm.peers[i].connection.asked_count;
	if (chunks != set.chunks)
		fail(n, "chunks are not each one of held, being checked, asked for, wanted");
	if (set.chunks <= FULL_CHECK_MAX && node_count <= 16)
		check_each(n);
}

/* Whether the fetcher knows a peer that can serve it what it wants, and of which it
 * could know that. */
static bool could_have_more(const struct node *n)
{
	for (size_t i = 0; i < n->swarm.count; i++) {
		const struct node *s = node_at(n->swarm.peers[i].address);
		if (s->kind != HONEST || s->dead)
			continue;
		for (uint64_t chunk = 0; chunk < set.chunks; chunk++)
			if (s->held[chunk] && !n->held[chunk])
				return true;
	}
	return false;
}

/* As fetch.c: ask_at_ms and list_age_ms. */
static int64_t ask_at_ms(const struct node *n)
{
	int64_t age = n->named_new ? 0 : n->listed_ms - n->began_ms;

	if (n->asked_ms == 0)
		return 0;
	if (n->listed_ms < n->asked_ms || n->swarm.count == 0)
		return n->asked_ms + RETRY_MS;
	return n->listed_ms + (age < RENEW_MS ? RENEW_MS : age < LIST_AGE_MS ? age : LIST_AGE_MS);
}

static void manage(struct node *n)
{
	if (!n->fetching)
		return;
	current = n;
	swarm_manage(&n->swarm, now_ms());
	if (now_ms() >= ask_at_ms(n)) {
		n->began_ms = n->asked_ms == 0 ? now_ms() : n->began_ms;
		n->asked_ms = now_ms();
		push_node(now_us + 4 * delay_us() + 1000, LIST, n);
	}
	int64_t next = swarm_next_event_ms(&n->swarm, now_ms(), now_ms() + 60000);
	next = clock_earlier(next, ask_at_ms(n));
	manage_at(n, (next > now_ms() ? next : now_ms() + 1) * 1000);
}

/* Names as many peers at most as the tracker does, by chance. */
static void take_list(struct node *n)
{
	struct tracker_entry entries[NAMES];
	size_t named = 0;
	int count = 0;

	if (!n->fetching)
		return;
	for (int i = 0; i < node_count; i++)
		if (nodes[i].subscribed && i != n->id)
			subscribed[count++] = i;
	for (int i = 0; i < count && named < NAMES; i++) {
		int at = i + (int)(random() % (count - i)), id = subscribed[at];
		subscribed[at] = subscribed[i];
		subscribed[i] = id;
		entries[named++] = (struct tracker_entry){.address = address_of(id), .last_seen = 1000};
	}
	current = n;
	swarm_add_entries(&n->swarm, entries, named, &n->named_new);
	n->listed_ms = now_ms();
}

static void start(struct node *n)
{
	const struct swarm_options options = {.self = address_of(n->id), .serves = true, .time_scale = 1};

	n->fetching = true;
	n->heard_us = now_us;
	if (swarm_begin(&n->swarm, set.chunks * set.chunk_size, set.chunk_size, hash, &options) < 0)
		fatal("memory");
	manage(n);
}

static void stop(struct node *n)
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
		stop(n);
	for (int i = 0; i < flow_count; i++)
		if (flows[i].open && flows[i].server == n)
			push_flow(now_us + delay_us(), CLOSED, &flows[i], 0);
}

static void hold(struct node *n, uint64_t chunk)
{
	size_t region = wanted_region(&n->swarm.choice.wanted, chunk);

	n->held[chunk] = 1;
	n->held_count++;
	if (--n->missing[region] == 0)
		region_set_add(&n->whole, region);
}

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
	hold(n, chunk);
	swarm_delivered(p, 1);
	if (!n->subscribed) {
		n->subscribed = true;
		take_list(n);
	}
	if (n->held_count == set.chunks) {
		stop(n);
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
		swarm_chunk_begins(p);
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
	push((struct event){.at_us = now_us + CHECK_US, .what = CHECKED, .flow = (int)f->peer, .node = n->id, .n = chunk});
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

/* ---- one run ---------------------------------------------------------------------- */

/* What happens to a connection; it is still the one that the event is for. */
static void handle_flow(const struct event *e, struct flow *f)
{
	struct node *n = f->client, *s = f->server;
	struct peer *p = &n->swarm.peers[f->peer];

	current = n;
	switch (e->what) {
	case CONNECTED:
		swarm_connecting_ended(&n->swarm, p, now_ms());
		break;
	case REQUEST:
		if (f->count == QUEUE_MAX)
			fatalx("more than %d requests for one server", QUEUE_MAX);
		f->queue[(f->first + f->count++) % QUEUE_MAX] = e->n;
		look_at_request(f);
		use_uplink(s);
		return;
	case REFUSED:
		swarm_chunk_refused(&n->swarm, p, e->map, now_ms());
		swarm_answered(&n->swarm, p, now_ms());
		break;
	case UPLINK_FREE: {
		int64_t arrives_us = now_us + delay_us();
		n->down_free_us = arrives_us > n->down_free_us ? arrives_us : n->down_free_us;
		n->down_free_us += (int64_t)((double)e->n / n->down);
		push_flow(n->down_free_us, DELIVERED, f, e->n);
		look_at_request(f);
		return;
	}
	case DELIVERED:
		f->in_flight--;
		take_bytes(n, p, f, e->n);
		look_at_request(f);
		use_uplink(s);
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

static void handle_node(const struct event *e, struct node *n)
{
	switch (e->what) {
	case START:
		start(n);
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
		take_list(n);
		manage_soon(n);
		break;
	case CHECKED:
		if (n->dead)
			return;
		take_checked(n, &n->swarm.peers[e->flow], e->n);
		manage_soon(n);
		break;
	case LOOK:
		for (int i = 1; i < node_count; i++)
			if (nodes[i].fetching && now_us - nodes[i].heard_us > STARVED_US && could_have_more(&nodes[i]))
				fail(&nodes[i], "a fetcher hears nothing, though somebody has what it lacks");
		push_node(now_us + LOOK_US, LOOK, n);
		return;
	default:
		return;
	}
	if (n->fetching)
		check_all(n);
}

static void make_node(int id, double bound_us)
{
	struct node *n = &nodes[id];
	size_t regions = regions_count(set.chunks);
	uint64_t size = regions_size(set.chunks);
	double up = id == 0 && set.seeder_up > 0 ? set.seeder_up : id == 1 && set.slow_up > 0 ? set.slow_up : set.up;
	double kind = id == 0 ? 1 : (double)(id - 1) / set.fetchers;	/* the first of them are the bad ones */

	n->id = id;
	n->up = up / 8;
	n->down = set.down / 8;
	n->held = get((size_t)set.chunks, 1);
	n->checking = get((size_t)set.chunks, sizeof n->checking[0]);
	n->copies = get((size_t)set.chunks, sizeof n->copies[0]);
	n->missing = get(regions, sizeof n->missing[0]);
	n->ready = get((size_t)node_count, sizeof n->ready[0]);
	for (size_t i = 0; i < regions; i++)
		n->missing[i] = i + 1 < regions ? size : set.chunks - i * size;
	n->kind = kind < set.liars ? LIAR : kind < set.liars + set.drippers ? DRIPPER
		: kind < set.liars + set.drippers + set.silent ? SILENT : HONEST;
	n->blind = id > 0 && chance() < set.blind;
	n->closing = id > 0 && chance() < set.closing;
	if (id == 0 || n->kind != HONEST) {
		n->subscribed = true;
		n->held_count = set.chunks;
		memset(n->held, 1, (size_t)set.chunks);
		memset(&n->whole, 0xff, sizeof n->whole);
		return;
	}
	undone++;
	n->start_us = random() % 20000;
	if (set.late > 0 && id > set.fetchers / 2)
		n->start_us += (int64_t)(bound_us * set.late);
	push_node(n->start_us, START, n);
	if (kind >= 1 - set.killed)
		push_node((int64_t)(bound_us * 0.6), KILL, n);
}

/* The time that no scheme can be faster than. */
static double bound_us(void)
{
	double file = (double)(set.chunks * set.chunk_size), seeder = set.seeder_up > 0 ? set.seeder_up : set.up;
	double slow = set.slow_up > 0 ? set.slow_up : set.up, ups = seeder + (set.fetchers - 1) * set.up + slow;
	double bound = fmax(file / seeder, file / set.down);

	return 8 * fmax(bound, set.fetchers * file / ups);
}

struct result {
	double last, late_last, copies;		/* times the bound; of a chunk, by the seeder */
};

static void free_nodes(void)
{
	for (int i = 0; i < node_count; i++)
		if (nodes[i].fetching)
			stop(&nodes[i]);
	for (int i = 0; i < node_count; i++) {
		struct node *n = &nodes[i];
		free(n->held);
		free(n->checking);
		free(n->copies);
		free(n->missing);
		free(n->ready);
	}
	while (heap_count > 0)
		free(pop().map);
	free(nodes);
	free(subscribed);
	free(flows);
	free(free_flows);
}

/* Simulates until everybody who can be is complete. */
static struct result simulate(void)
{
	double bound = bound_us();
	size_t connections;
	struct result result = {0};

	srandom(set.seed);
	node_count = set.fetchers + 1;
	connections = (size_t)node_count * (size_t)(node_count < SWARM_CONNECTED_MAX ? node_count : SWARM_CONNECTED_MAX);
	nodes = get((size_t)node_count, sizeof *nodes);
	subscribed = get((size_t)node_count, sizeof *subscribed);
	flows = get(connections, sizeof *flows);
	free_flows = get(connections, sizeof *free_flows);
	free_count = flow_count = undone = 0;
	order = 0;
	now_us = 0;
	violation = NULL;
	for (int i = 0; i < node_count; i++)
		make_node(i, bound);
	push_node(LOOK_US, LOOK, &nodes[0]);
	while (undone > 0 && violation == NULL) {
		struct event e = pop();
		struct flow *f = e.flow >= 0 && e.what != CHECKED ? &flows[e.flow] : NULL;
		now_us = e.at_us;
		if (now_us > 40 * (int64_t)bound + 400000000)
			fail(&nodes[0], "it takes for ever");
		if (e.what == UPLINK_FREE)
			nodes[e.node].sending = false;
		if (f == NULL)
			handle_node(&e, &nodes[e.node]);
		else if (f->open && f->generation == e.generation)
			handle_flow(&e, f);
		if (e.what == UPLINK_FREE)
			use_uplink(&nodes[e.node]);
		free(e.map);
	}
	for (int i = 1; i < node_count; i++) {
		double took = (double)(nodes[i].done_us - nodes[i].start_us) / bound;
		if (nodes[i].kind != HONEST || nodes[i].done_us == 0)
			continue;
		result.last = fmax(result.last, took);
		if (set.late > 0 && i > set.fetchers / 2)
			result.late_last = fmax(result.late_last, took);
	}
	result.copies = (double)nodes[0].sent / (double)set.chunks;
	free_nodes();
	return result;
}

/* ---- many runs -------------------------------------------------------------------- */

#define BASE .chunk_size = 256 << 10, .up = 20, .down = 20, .delay_ms = 0.2

static const struct {
	const char *name;
	double wanted;
	bool large;		/* takes long: only when asked for */
	int runs;
	struct {
		int fetchers;
		uint64_t chunks, chunk_size;
		double up, down, seeder_up, slow_up, delay_ms, late, killed, liars, drippers;
	} set;
} rows[] = {
	{"8 fetchers, 256 chunks", 1.20, false, 5, {8, 256, BASE}},
	{"8 fetchers, 64 chunks", 1.35, false, 5, {8, 64, BASE}},
	{"16 fetchers, 256 chunks", 1.25, false, 5, {16, 256, BASE}},
	{"32 fetchers, 128 chunks", 1.45, false, 5, {32, 128, BASE}},
	{"64 fetchers, 128 chunks, 10 Mbit/s", 1.60, false, 5, {64, 128, .chunk_size = 256 << 10, .up = 10, .down = 10, .delay_ms = 0.2}},
	{"8 fetchers, a seeder of 5 times their uplink", 1.50, false, 5,
	 {8, 256, .chunk_size = 256 << 10, .up = 20, .down = 100, .seeder_up = 100, .delay_ms = 0.2}},
	{"8 fetchers, downlinks of 5 times, one uplink of a tenth", 1.40, false, 5,
	 {8, 256, .chunk_size = 256 << 10, .up = 20, .down = 100, .slow_up = 2, .delay_ms = 0.2}},
	{"32 fetchers, half of them late", 1.50, false, 5, {32, 128, BASE, .late = 0.7}},
	{"32 fetchers, a quarter killed half-way", 1.60, false, 5, {32, 128, BASE, .killed = 0.25}},
	{"32 fetchers, 10 % lying, 10 % dripping", 1.60, false, 5, {32, 128, BASE, .liars = 0.1, .drippers = 0.1}},
	{"8 fetchers, round trip 40 ms", 1.34, false, 5, {8, 256, .chunk_size = 256 << 10, .up = 20, .down = 20, .delay_ms = 20}},
	{"100 fetchers, 256 chunks", 1.50, false, 3, {100, 256, BASE}},
	{"1,000 fetchers, 1,024 chunks", 1.50, true, 1, {1000, 1024, BASE}},
	{"10,000 fetchers, 1,024 chunks", 0, true, 1, {10000, 1024, BASE}},
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int tell_violation(void)
{
	if (violation == NULL)
		return 0;
	printf("seed %u: %s (fetcher %d, after %.3f s)\n", set.seed, violation, violation_node, (double)now_us / 1e6);
	return 1;
}

static int simulate_row(size_t row, unsigned first_seed)
{
	double last[8], copies[8];
	int runs = rows[row].runs;

	for (int i = 0; i < runs; i++) {
		set.fetchers = rows[row].set.fetchers;
		set.chunks = rows[row].set.chunks;
		set.chunk_size = rows[row].set.chunk_size;
		set.up = rows[row].set.up;
		set.down = rows[row].set.down;
		set.seeder_up = rows[row].set.seeder_up;
		set.slow_up = rows[row].set.slow_up;
		set.delay_ms = rows[row].set.delay_ms;
		set.late = rows[row].set.late;
		set.killed = rows[row].set.killed;
		set.liars = rows[row].set.liars;
		set.drippers = rows[row].set.drippers;
		set.silent = set.blind = set.closing = 0;
		set.seed = first_seed + (unsigned)i;
		struct result result = simulate();
		if (tell_violation() != 0)
			return 1;
		last[i] = set.late > 0 ? result.late_last : result.last;
		copies[i] = result.copies;
	}
	qsort(last, (size_t)runs, sizeof last[0], by_value);
	qsort(copies, (size_t)runs, sizeof copies[0], by_value);
	printf("| %-56s | %5.2f | %5.2f | %5.2f | %5.2f |\n", rows[row].name, rows[row].wanted, last[runs / 2],
	       last[runs - 1], copies[runs / 2]);
	fflush(stdout);
	return 0;
}

static int simulate_table(bool large, unsigned seed)
{
	puts("Times the bound until the last fetcher is complete; how often the seeder sent each chunk.\n");
	printf("| %-56s | %s | %s | %s | %s |\n", "case", "limit", "median", "worst", "copies");
	puts("|---|---:|---:|---:|---:|");
	for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++)
		if ((large || !rows[row].large) && simulate_row(row, seed) != 0)
			return 1;
	return 0;
}

/* A small swarm of any kind of members. */
static void set_at_random(unsigned seed)
{
	static const uint64_t sizes[] = {16 << 10, 64 << 10, 256 << 10, 1 << 20};

	srandom(seed ^ 0x5eed);
	set.fetchers = 1 + (int)(random() % 10);
	set.chunks = 1 + (uint64_t)random() % 40;
	set.chunk_size = sizes[random() % 4];
	set.up = 2 + 50 * chance();
	set.down = set.up * (1 + 4 * chance());
	set.seeder_up = random() % 2 ? 2 + 50 * chance() : 0;
	set.slow_up = random() % 3 == 0 ? 0.5 + chance() : 0;
	set.delay_ms = random() % 2 ? 0.2 : 50 * chance();
	set.late = random() % 3 == 0 ? chance() : 0;
	set.killed = random() % 3 == 0 ? chance() / 2 : 0;
	set.liars = random() % 2 ? chance() / 2 : 0;
	set.drippers = random() % 2 ? chance() / 3 : 0;
	set.silent = random() % 3 == 0 ? chance() / 3 : 0;
	set.blind = random() % 2 ? chance() : 0;
	set.closing = random() % 3 == 0 ? chance() : 0;
	set.seed = seed;
}

static int simulate_mixtures(int count, unsigned seed)
{
	int failed = 0;

	for (int i = 0; i < count; i++) {
		set_at_random(seed + (unsigned)i);
		simulate();
		failed += tell_violation();
	}
	printf("%d of %d random swarms did well\n", count - failed, count);
	return failed > 0;
}

int main(int argc, char **argv)
{
	int option, mixtures = 0, row = -1, null = open("/dev/null", O_WRONLY);
	unsigned seed = 1;
	bool large = false;

	while ((option = getopt(argc, argv, "s:r:m:l")) != -1)
		switch (option) {
		case 's': seed = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'r': row = atoi(optarg); break;
		case 'm': mixtures = atoi(optarg); break;
		case 'l': large = true; break;
		default:
			fprintf(stderr, "usage: sim [-s SEED] [-l] [-r ROW] [-m RANDOM_SWARMS]\n");
			return 2;
		}
	if (null >= 0)
		dup2(null, STDERR_FILENO);	/* who lies, swarm.c says there */
	if (mixtures > 0)
		return simulate_mixtures(mixtures, seed);
	if (row >= 0 && (size_t)row < sizeof rows / sizeof rows[0])
		return simulate_row((size_t)row, seed);
	return simulate_table(large, seed);
}
