/* run.c - one run: the nodes, and events until everybody is complete. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sim/swarm.h"

#define FIRST_IP 0x0a000001u	/* of node 0 */
#define LOOK_US 5000000		/* between two looks at who starves */

struct settings set;
struct node *nodes;
int node_count, undone;

static const char *violation;	/* the first */
static int violation_node;
static int64_t ended_us;

void *allocate(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (memory == NULL)
		fatal("no memory for %zu times %zu bytes", count, size);
	return memory;
}

struct node *node_at(struct address a)
{
	return &nodes[a.ip - FIRST_IP];
}

struct address address_of(const struct node *n)
{
	return (struct address){.ip = FIRST_IP + (uint32_t)n->id, .port = 5000};
}

double chance(void)
{
	return (double)random() / ((double)RAND_MAX + 1);
}

void violate(const struct node *n, const char *what)
{
	if (violation == NULL) {
		violation = what;
		violation_node = n->id;
	}
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
	n->held = allocate((size_t)set.chunks, 1);
	n->checking = allocate((size_t)set.chunks, sizeof n->checking[0]);
	n->copies = allocate((size_t)set.chunks, sizeof n->copies[0]);
	n->missing = allocate(regions, sizeof n->missing[0]);
	for (size_t i = 0; i < regions; i++)
		n->missing[i] = i + 1 < regions ? size : set.chunks - i * size;
	n->kind = id > set.fetchers - set.references ? REFERENCE : kind < set.liars ? LIAR : kind < set.liars + set.drippers ? DRIPPER
		: kind < set.liars + set.drippers + set.silent ? SILENT : HONEST;
	n->blind = n->kind == REFERENCE || (id > 0 && chance() < set.blind);
	n->closing = id > 0 && chance() < set.closing;
	if (id == 0 || (n->kind != HONEST && n->kind != REFERENCE)) {
		tracker_subscribe(n);
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

static void free_nodes(void)
{
	for (int i = 0; i < node_count; i++)
		if (nodes[i].fetching)
			fetcher_stop(&nodes[i]);
	for (int i = 0; i < node_count; i++) {
		struct node *n = &nodes[i];
		free(n->held);
		free(n->checking);
		free(n->copies);
		free(n->missing);
	}
	free(nodes);
}

static void begin(double bound)
{
	srandom(set.seed);
	events_begin();
	node_count = set.fetchers + 1;
	nodes = allocate((size_t)node_count, sizeof *nodes);
	network_begin();
	tracker_begin();
	undone = 0;
	violation = NULL;
	for (int i = 0; i < node_count; i++)
		make_node(i, bound);
	push_node(LOOK_US, LOOK, &nodes[0]);
}

static void end(void)
{
	free_nodes();
	events_end();
	network_end();
	tracker_end();
}

static void handle(const struct event *e)
{
	if (e->what == UPLINK_FREE)
		e->node->sending = false;
	if (e->what == LOOK) {
		fetchers_look_for_starving();
		push_node(now_us + LOOK_US, LOOK, e->node);
	} else if (e->what == ACCEPT) {
		server_handle_accept(e->node);
	} else if (e->flow == NULL) {
		(e->node->kind == REFERENCE ? reference_handle_node : fetcher_handle_node)(e, e->node);
	} else if (network_is_open(e)) {
		(e->flow->client->kind == REFERENCE ? reference_handle_flow : fetcher_handle_flow)(e, e->flow);
		if (network_is_open(e))
			server_handle_flow(e, e->flow);
	}
	if (e->what == UPLINK_FREE)
		server_use_uplink(e->node);
}

static struct result measure(double bound)
{
	struct result result = {.copies = (double)nodes[0].sent / (double)set.chunks};

	for (int i = 1; i < node_count; i++) {
		double took = (double)(nodes[i].done_us - nodes[i].start_us) / bound;
		if (nodes[i].kind != HONEST || nodes[i].done_us == 0)
			continue;
		result.last = fmax(result.last, took);
		if (set.late > 0 && i > set.fetchers / 2)
			result.late_last = fmax(result.late_last, took);
	}
	return result;
}

struct result run(void)
{
	double bound = bound_us();

	begin(bound);
	while (undone > 0 && violation == NULL) {
		struct event e = events_pop();
		if (now_us > 40 * (int64_t)bound + 400000000)
			violate(&nodes[0], "it takes for ever");
		handle(&e);
		free(e.map);
	}
	ended_us = now_us;
	struct result result = measure(bound);
	end();
	return result;
}

bool run_told_violation(void)
{
	if (violation == NULL)
		return false;
	printf("seed %u: %s (fetcher %d, after %.3f s)\n", set.seed, violation, violation_node, (double)ended_us / 1e6);
	return true;
}

