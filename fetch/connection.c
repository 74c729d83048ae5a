/* connection.c - what was asked for over a connection, and how fast it comes; used by
 * the fetcher. */
#include "fetch/connection.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define RATE_MS 1000		/* a period of measuring */
#define RATE_LEAST_MS 250	/* in less time the rate says nothing */

void connection_begin(struct connection *c, int fd, int64_t now_ms)
{
	*c = (struct connection){
		.fd = fd, .heard_ms = now_ms, .rate_since_ms = now_ms, .round_since_ms = now_ms,
		.wake_bytes = 1,
	};
}

void connection_free(struct connection *c)
{
	free(c->asked);
	free(c->out);
	free(c->message);
	*c = (struct connection){.fd = -1};
}

/* Twice as much room, in the order in which chunks were asked for. */
static bool grow_asked(struct connection *c)
{
	size_t size = c->asked_size > 0 ? 2 * c->asked_size : 8;
	uint64_t *asked = size <= CONNECTION_ASKED_MAX ? malloc(size * sizeof asked[0]) : NULL;

	if (asked == NULL)
		return false;
	for (size_t i = 0; i < c->asked_count; i++)
		asked[i] = c->asked[(c->asked_first + i) % c->asked_size];
	free(c->asked);
	c->asked = asked;
	c->asked_size = size;
	c->asked_first = 0;
	return true;
}

static bool grow_out(struct connection *c)
{
	size_t size = c->out_size > 0 ? 2 * c->out_size : 4 * PEER_REQUEST_SIZE;
	uint8_t *out = size <= CONNECTION_OUT_MAX * PEER_REQUEST_SIZE ? realloc(c->out, size) : NULL;

	if (out == NULL)
		return false;
	c->out = out;
	c->out_size = size;
	return true;
}

bool connection_can_ask(struct connection *c)
{
	return (c->asked_count < c->asked_size || grow_asked(c)) &&
	       (c->out_used + PEER_REQUEST_SIZE <= c->out_size || grow_out(c));
}

void connection_ask(struct connection *c, uint64_t chunk, const uint8_t cascade_hash[SHA256_HASH_SIZE],
		    int64_t now_ms)
{
	struct peer_request request = {.chunk = chunk};

	memcpy(request.cascade_hash, cascade_hash, SHA256_HASH_SIZE);
	peer_request_encode(c->out + c->out_used, &request);
	c->out_used += PEER_REQUEST_SIZE;
	c->asked[(c->asked_first + c->asked_count) % c->asked_size] = chunk;
	if (c->asked_count++ == 0) {
		c->rate_since_ms += now_ms - c->heard_ms;	/* it had nothing to send */
		c->heard_ms = c->due_ms = now_ms;
	}
}

uint64_t connection_awaited(const struct connection *c)
{
	return c->asked[c->asked_first];
}

void connection_forget_awaited(struct connection *c, int64_t now_ms)
{
	c->asked_first = (c->asked_first + 1) % c->asked_size;
	c->asked_count--;
	c->due_ms = now_ms;
}

uint64_t connection_missing_of_chunk(const struct connection *c)
{
	bool has_begun = c->asked_count > 0 && c->header_got == PEER_RESPONSE_SIZE;

	return has_begun && c->response.status == PEER_OK ? c->response.length - c->body_got : 0;
}

static void count_round(struct connection *c, size_t bytes, int64_t now_ms)
{
	int64_t ms = now_ms - c->round_since_ms;

	if (ms > 0 && ms >= c->round_trip_ms) {
		c->carried_before = c->carried;
		c->carried = c->round_bytes * (uint64_t)c->round_trip_ms / (uint64_t)ms;
		c->round_bytes = 0;
		c->round_since_ms = now_ms;
	}
	c->round_bytes += bytes;
}

void connection_heard(struct connection *c, size_t bytes, int64_t now_ms)
{
	int64_t ms = now_ms - c->rate_since_ms;

	c->heard_ms = now_ms;
	if (c->begun_ms == 0)
		c->begun_ms = now_ms;
	if (ms >= RATE_MS) {
		bool next = ms < 2 * RATE_MS;	/* or it was silent for longer than a period */
		c->rate_bytes_before = next ? c->rate_bytes : 0;
		c->rate_bytes = 0;
		c->rate_since_ms = next ? c->rate_since_ms + RATE_MS : now_ms;
		c->rate_known = true;
	}
	c->rate_bytes += bytes;
	count_round(c, bytes, now_ms);
}

void connection_excuse(struct connection *c, int64_t ms, int64_t now_ms)
{
	c->heard_ms = clock_earlier(c->heard_ms + ms, now_ms);
	c->due_ms = clock_earlier(c->due_ms + ms, now_ms);
	c->rate_since_ms = clock_earlier(c->rate_since_ms + ms, now_ms);
}

double connection_rate(const struct connection *c, int64_t now_ms)
{
	int64_t until_ms = c->asked_count > 0 ? now_ms : c->heard_ms, ms = until_ms - c->rate_since_ms;

	if (ms >= 2 * RATE_MS)
		return 0;
	if (ms >= RATE_MS || !c->rate_known)
		return (double)c->rate_bytes * 1000 / (double)(ms > RATE_LEAST_MS ? ms : RATE_LEAST_MS);
	/* |-- bytes before --|-- bytes so far --|		two periods; what lies within the
	 *         |<--------- RATE_MS --------->|now	last RATE_MS counts */
	double before = (double)c->rate_bytes_before * (double)(RATE_MS - ms) / RATE_MS;
	return ((double)c->rate_bytes + before) * 1000 / RATE_MS;
}

bool connection_is_measured(const struct connection *c)
{
	return c->begun_ms != 0 && c->heard_ms - c->begun_ms >= RATE_LEAST_MS;
}

uint64_t connection_carries(const struct connection *c)
{
	return c->carried < c->carried_before ? c->carried : c->carried_before;
}
