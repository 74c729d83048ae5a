/* network.c - connections between nodes, in the place of fetch/dial.c: there are delays,
 * and no losses but of nodes. The lines' widths are server.c's and fetcher.c's. */
#include <stddef.h>
#include <stdlib.h>

#include "sim/swarm.h"

#define ANSWER_US 100		/* a server takes for a request */

struct node *current;

static struct flow *flows;
static int *free_flows, free_count, flow_count;

int64_t delay_us(void)
{
	return (int64_t)(set.delay_ms * 1000);
}

void network_begin(void)
{
	size_t each = (size_t)(node_count < SWARM_CONNECTED_MAX ? node_count : SWARM_CONNECTED_MAX);

	flows = allocate((size_t)node_count * each, sizeof *flows);
	free_flows = allocate((size_t)node_count * each, sizeof *free_flows);
	free_count = flow_count = 0;
}

void network_end(void)
{
	free(flows);
	free(free_flows);
}

bool network_is_open(const struct event *e)
{
	return e->flow->open && e->flow->generation == e->generation;
}

void push_flow(int64_t at_us, enum what what, struct flow *f, uint64_t n)
{
	events_push((struct event){.at_us = at_us, .what = what, .flow = f, .generation = f->generation,
				   .node = f->server, .n = n});
}

void push_node(int64_t at_us, enum what what, struct node *n)
{
	events_push((struct event){.at_us = at_us, .what = what, .node = n});
}

void network_close_all_to(const struct node *server)
{
	for (int i = 0; i < flow_count; i++)
		if (flows[i].open && flows[i].server == server)
			push_flow(now_us + delay_us(), CLOSED, &flows[i], 0);
}

struct flow *network_connect(struct node *client, struct node *server, size_t peer)
{
	struct flow *f = &flows[free_count > 0 ? free_flows[--free_count] : flow_count++];

	*f = (struct flow){.generation = f->generation + 1, .open = true, .client = client, .server = server, .peer = peer};
	server_meet(f);
	return f;
}

void network_disconnect(struct flow *f)
{
	server_part(f);
	f->open = false;
	f->generation++;
	free_flows[free_count++] = (int)(f - flows);
}

/* ---- connection.h's calls for the socket ------------------------------------------ */

int connection_open(struct connection *c, struct address to, int64_t ms)
{
	struct peer *p = (struct peer *)(void *)((char *)c - offsetof(struct peer, connection));
	struct flow *f = network_connect(current, node_at(to), (size_t)(p - current->swarm.peers));

	connection_begin(c, (int)(f - flows), ms);
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

void connection_close(struct connection *c)
{
	if (c->fd >= 0)
		network_disconnect(&flows[c->fd]);
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
