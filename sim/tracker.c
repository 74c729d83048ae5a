/* tracker.c - the simulated tracker: who has subscribed, and what it names of them. */
#include <stdlib.h>

#include "sim/swarm.h"

#define NAMES 20	/* on a list of our tracker, at most */

static int *names;	/* of the nodes that have subscribed, in any order */
static size_t name_count;

void tracker_begin(void)
{
	names = allocate((size_t)node_count, sizeof *names);
	name_count = 0;
}

void tracker_end(void)
{
	free(names);
}

void tracker_subscribe(struct node *n)
{
	n->subscribed = true;
	names[name_count++] = n->id;
}

/* Puts one of the first names, chosen by chance, behind the others. */
static int draw_name(size_t count)
{
	size_t at = (size_t)random() % count;
	int name = names[at];

	names[at] = names[count - 1];
	names[count - 1] = name;
	return name;
}

size_t tracker_list(const struct node *n, struct tracker_entry entries[NAMES_MAX])
{
	size_t most = set.names > 0 ? (size_t)set.names : NAMES, count = 0;

	for (size_t left = name_count; left > 0 && count < most; left--) {
		int name = draw_name(left);
		if (name != n->id)
			entries[count++] = (struct tracker_entry){.address = address_of(&nodes[name]), .last_seen = 1000};
	}
	return count;
}
