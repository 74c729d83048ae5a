/* events.h - the virtual clock, and what will happen when. */
#ifndef SIM_EVENTS_H
#define SIM_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "net/regions.h"

struct node;
struct flow;

enum what {
	/* Of a connection: */
	CONNECTED, REQUEST, REFUSED, UPLINK_FREE, DELIVERED, DRIP, CLOSED,
	/* Of a node: */
	CHECKED, MANAGE, START, KILL, LIST, ACCEPT, LOOK
};

struct event {
	int64_t at_us;
	uint64_t order;			/* of those at the same time */
	enum what what;
	struct node *node;		/* of a connection: the server */
	struct flow *flow;		/* NULL: it concerns a node */
	unsigned generation;		/* of the flow, or of MANAGE: an older one is void */
	uint64_t n;			/* chunk, or bytes */
	size_t peer;			/* of CHECKED: who sent the chunk */
	struct region_set *map;		/* for free(3), or NULL */
};

extern int64_t now_us;

/* The time as the fetchers see it. */
int64_t now_ms(void);

void events_begin(void);
void events_end(void);

/* Adds an event; its order is filled in. */
void events_push(struct event e);

/* Takes the next one, and sets the clock. There is at least one. */
struct event events_pop(void);

#endif
