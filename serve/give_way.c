/* give_way.c - which client gives way to a new one. */
#include "serve/give_way.h"

#include <signal.h>

#include "base/clock.h"
#include "serve/clients.h"

/* A client may give way when it has been idle for longer than this. */
#define SILENT_MS 100		/* if it asks for no chunk */
#define SLOW_TAKER_MS 1000	/* if it is slow to take its chunks */

/* What the last look at all children has found. */
static struct child *most_idle, *leaving;
static int64_t most_idle_ms;

/* For how many ms the client has been idle; -1 if it may stay. */
static int64_t idle_ms(const struct client_slot *slot)
{
	uint32_t state = atomic_load(&slot->state);	/* first: it is written last */
	uint32_t since_ms = atomic_load(&slot->since_ms);
	int32_t ms = (int32_t)((uint32_t)clock_ms() - since_ms);	/* negative: active until later */
	int32_t longest_ms = state == CLIENT_SILENT ? SILENT_MS : SLOW_TAKER_MS;

	if (state == CLIENT_WORKING || ms < longest_ms || atomic_load(&slot->state) != state)
		return -1;
	return ms;
}

static void look_at(struct child *child)
{
	int64_t ms = idle_ms(child->slot);

	if (child->leaving)
		leaving = child;
	if (ms > most_idle_ms) {
		most_idle_ms = ms;
		most_idle = child;
	}
}

bool give_way(void)
{
	most_idle = leaving = NULL;
	most_idle_ms = -1;
	clients_for_each(look_at);
	if (leaving != NULL)
		return true;
	if (most_idle == NULL)
		return false;
	kill(most_idle->pid, SIGKILL);
	most_idle->leaving = true;
	clients_counts()->gave_way++;
	return true;
}
