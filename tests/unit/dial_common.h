/* dial_common.h - in place of fetch/dial.c, for tests that make time and connections
 * themselves. Opening a connection is each test's own. */
#ifndef DIAL_COMMON_H
#define DIAL_COMMON_H

#include "fetch/connection.h"

int connection_made(struct connection *c, int64_t now_ms)
{
	c->connecting = false;
	c->round_trip_ms = now_ms - c->heard_ms;
	return 0;
}

void connection_close(struct connection *c)
{
	connection_free(c);
}

int connection_send(struct connection *c)
{
	c->out_used = c->out_sent = 0;
	return 0;
}

void connection_wake_at(struct connection *c, size_t bytes)
{
	c->wake_bytes = bytes;
}

#endif
