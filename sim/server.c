/* server.c - how a simulated peer answers: the queue of serve/turns.c, and an uplink on
 * which pieces of chunks follow each other. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "serve/turns.h"
#include "sim/swarm.h"

#define ANSWER_US 100		/* for a refusal */
#define DRIP_US 300000		/* between two bytes of a dripper */
#define LIFE_US 4000000		/* serve_client.c: LIFE_MS */
#define LIFE_BYTES 4096		/* serve_client.c */
#define SILENT_US 100000	/* serve/give_way.c: SILENT_MS */
#define FULL_PAUSE_US 20000	/* peer_serve.c: FULL_PAUSE_MS */
#define IN_FLIGHT 4		/* pieces of a chunk that a connection holds */

/* Of the chunk that the flow waits for: those that were sent, and those that are being sent. */
static uint32_t *copies(const struct flow *f)
{
	return &f->server->copies[f->queue[f->first]];
}

static uint64_t place(const struct flow *f)
{
	uint32_t back = *copies(f) < TURN_COPIES ? *copies(f) : TURN_COPIES;

	return f->place + (uint64_t)back * CLIENTS_MAX;
}

static void leave_queue(struct flow *f)
{
	struct node *s = f->server;
	int at = 0;

	if (!f->ready)
		return;
	if (f->has_turn && f->sent < set.chunk_size)
		*copies(f) -= 1;
	while (s->ready[at] != f)
		at++;
	memmove(s->ready + at, s->ready + at + 1, (size_t)(--s->ready_count - at) * sizeof s->ready[0]);
	f->ready = f->has_turn = false;
}

/* The flow that sends next: of those that have a turn, one after the other. */
static struct flow *choose_flow(struct node *s)
{
	struct flow *with_turn = NULL, *first = NULL;
	int turns = 0;

	for (int i = 0; i < s->ready_count; i++) {
		struct flow *f = s->ready[(s->next + i) % s->ready_count];
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
		} else if (!f->has_turn && (first == NULL || place(f) < place(first))) {
			first = f;
		}
	}
	if (first != NULL && (turns < TURNS_LEAST || s->kind == REFERENCE) && (with_turn == NULL || random() % 2)) {
		first->has_turn = true;
		*copies(first) += 1;
		return first;
	}
	return with_turn;
}

void server_use_uplink(struct node *s)
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
		s->sent += f->client->kind == HONEST;
		leave_queue(f);
		f->first = (f->first + 1) % QUEUE_MAX;
		f->count--;
		f->sent = 0;
		f->served++;
		f->idle_us = now_us;
	}
}

static void refuse(struct flow *f, uint64_t chunk)
{
	struct event e = {.at_us = now_us + delay_us() + ANSWER_US, .what = REFUSED, .flow = f,
			  .generation = f->generation, .node = f->server, .n = chunk};

	if (!f->server->blind) {
		e.map = allocate(1, sizeof *e.map);
		*e.map = f->server->whole;
	}
	events_push(e);
}

/* Begins to answer the first request of those that are there. */
static void look(struct flow *f)
{
	struct node *s = f->server;

	while (f->accepted && f->count > 0 && !f->ready && !f->dripping && s->kind != SILENT) {
		uint64_t chunk = f->queue[f->first];
		if (s->kind == DRIPPER && f->served > 0) {
			f->dripping = true;
			push_flow(now_us + DRIP_US, DRIP, f, 0);
		} else if (s->held[chunk]) {
			f->ready = true;
			f->has_turn = false;
			f->place = s->asked++;
			f->waits_us = now_us;
			s->ready[s->ready_count++] = f;
		} else if (f->in_flight > 0) {
			return;		/* responses come in order */
		} else {
			refuse(f, chunk);
			f->first = (f->first + 1) % QUEUE_MAX;
			f->count--;
		}
	}
}

/* ---- clients ---------------------------------------------------------------------- */

static void accept_client(struct node *s, struct flow *f)
{
	f->accepted = true;
	f->idle_us = now_us;
	s->client[s->client_count++] = f;
	look(f);
}

/* Some idle client gives way to one that waits: serve/give_way.c. */
static void give_way(struct node *s)
{
	struct flow *most = NULL;

	for (int i = 0; i < s->client_count; i++) {
		struct flow *f = s->client[i];
		if (f->count == 0 && f->in_flight == 0 && (most == NULL || f->idle_us < most->idle_us))
			most = f;
	}
	if (most != NULL && now_us - most->idle_us > SILENT_US)
		push_flow(now_us + delay_us(), CLOSED, most, 0);
}

static void leave_backlog(struct flow *f)
{
	struct node *s = f->server;

	*(f->before == NULL ? &s->backlog : &f->before->behind) = f->behind;
	*(f->behind == NULL ? &s->backlog_end : &f->behind->before) = f->before;
}

static void accept_clients(struct node *s)
{
	while (!s->dead && s->backlog != NULL && s->client_count < CLIENTS_MAX) {
		struct flow *f = s->backlog;
		leave_backlog(f);
		accept_client(s, f);
	}
}

void server_meet(struct flow *f)
{
	struct node *s = f->server;

	if (!s->accepting)
		push_node(now_us, ACCEPT, s);
	s->accepting = true;
	f->before = s->backlog_end;
	*(s->backlog == NULL ? &s->backlog : &s->backlog_end->behind) = f;
	s->backlog_end = f;
}

void server_part(struct flow *f)
{
	struct node *s = f->server;
	int at = 0;

	leave_queue(f);
	if (!f->accepted) {
		leave_backlog(f);
		return;
	}
	while (s->client[at] != f)
		at++;
	s->client[at] = s->client[--s->client_count];
	accept_clients(s);
}

void server_handle_accept(struct node *s)
{
	accept_clients(s);
	server_use_uplink(s);
	s->accepting = s->backlog != NULL;
	if (!s->accepting)
		return;
	give_way(s);
	push_node(now_us + FULL_PAUSE_US, ACCEPT, s);
}

/* The bytes have left the server: the client's downlink is next. */
static void deliver(struct flow *f, uint64_t bytes)
{
	struct node *n = f->client;
	int64_t arrive_us = now_us + delay_us();

	if (n->down_free_us < arrive_us)
		n->down_free_us = arrive_us;
	n->down_free_us += (int64_t)((double)bytes / n->down);
	push_flow(n->down_free_us, DELIVERED, f, bytes);
}

static void take_request(struct flow *f, uint64_t chunk)
{
	if (f->count == QUEUE_MAX)
		fatalx("more than %d requests for one server", QUEUE_MAX);
	f->queue[(f->first + f->count++) % QUEUE_MAX] = chunk;
	look(f);
	server_use_uplink(f->server);
}

void server_handle_flow(const struct event *e, struct flow *f)
{
	switch (e->what) {
	case REQUEST:
		take_request(f, e->n);
		break;
	case UPLINK_FREE:
		deliver(f, e->n);
		look(f);
		break;
	case DELIVERED:
		f->in_flight--;
		look(f);
		server_use_uplink(f->server);
		break;
	default:
		break;
	}
}

void server_hold(struct node *n, uint64_t chunk)
{
	size_t region = (size_t)(chunk / regions_size(set.chunks));

	n->held[chunk] = 1;
	n->held_count++;
	if (--n->missing[region] == 0)
		region_set_add(&n->whole, region);
}

