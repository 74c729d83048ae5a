/* reference.c - a simulated peer that behaves as tests/reference/peer.py: it subscribes
 * before it has anything, and fetches one chunk after the other, any one from any peer, each
 * over a connection of its own. Who refuses it once is not asked again before the tracker
 * names him anew. */
#include <stdlib.h>

#include "sim/swarm.h"

#define CHECK_US 2000		/* it takes for a chunk */
#define ASK_US 300000000	/* between two lists */
#define REST_US 10000000	/* without a peer, before it asks for a list; at least, */
#define REST_MORE_US 20000000	/* and this at most in addition */

void reference_start(struct node *n)
{
	tracker_subscribe(n);
	push_node(now_us + 8 * delay_us() + 2000, LIST, n);	/* to subscribe, and then for a list */
}

/* Asks any of its peers for any chunk that it lacks. */
static void fetch_next(struct node *n)
{
	uint64_t chunk = (uint64_t)random() % set.chunks;

	if (n->named_count == 0) {
		push_node(now_us + REST_US + (int64_t)(chance() * REST_MORE_US), LIST, n);
		return;
	}
	while (n->held[chunk])
		chunk = (chunk + 1) % set.chunks;
	n->asked_of = (size_t)random() % n->named_count;
	n->awaited = chunk;
	n->awaited_bytes = 0;
	struct flow *f = network_connect(n, node_at(n->named[n->asked_of].address), 0);
	push_flow(now_us + 2 * delay_us(), f->server->dead ? CLOSED : CONNECTED, f, 0);
}

static void take_chunk(struct node *n)
{
	server_hold(n, n->awaited);
	if (n->held_count == set.chunks) {
		n->done_us = now_us;
		undone--;
	} else if (now_us - n->listed_us >= ASK_US) {
		push_node(now_us + 4 * delay_us() + 1000, LIST, n);
	} else {
		fetch_next(n);
	}
}

void reference_handle_node(const struct event *e, struct node *n)
{
	switch (e->what) {
	case START:
		reference_start(n);
		break;
	case LIST:
		n->listed_us = now_us;
		n->named_count = tracker_list(n, n->named);
		fetch_next(n);
		break;
	case CHECKED:
		take_chunk(n);
		break;
	default:
		break;
	}
}

void reference_handle_flow(const struct event *e, struct flow *f)
{
	struct node *n = f->client;

	switch (e->what) {
	case CONNECTED:
		push_flow(now_us + delay_us(), REQUEST, f, n->awaited);
		break;
	case DELIVERED:
		n->awaited_bytes += e->n;
		if (n->awaited_bytes < set.chunk_size)
			break;
		network_disconnect(f);
		push_node(now_us + CHECK_US, CHECKED, n);
		break;
	case REFUSED:
	case CLOSED:
		network_disconnect(f);
		n->named[n->asked_of] = n->named[--n->named_count];
		fetch_next(n);
		break;
	default:
		break;
	}
}
