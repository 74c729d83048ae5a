/* connection.h - a connection to a peer that chunks are fetched from: requests go out
 * ahead of their responses, in order. PROTOCOL.md, section 3.
 *
 * Nothing here blocks or looks at the clock: now_ms is the time, as of clock_ms. What
 * concerns the socket is in dial.c; the simulation puts a network of its own in that
 * one's place. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/regions.h"
#include "net/wire.h"

#define CONNECTION_ASKED_MAX 16384	/* requests without a response yet */
#define CONNECTION_OUT_MAX 256		/* requests encoded and not yet sent */
#define CONNECTION_MESSAGE_MAX (REGIONS_TEXT_MAX + 128)	/* bytes of a message that are looked at */

struct connection {
	int fd;			/* -1: there is none */
	bool connecting;
	int64_t heard_ms;	/* when it began, was asked while idle, or last sent a byte */
	int64_t due_ms;		/* when it began to owe the response that comes next */
	int64_t begun_ms;	/* when its first byte came; 0: none has */
	int64_t round_trip_ms;	/* as long as connecting took */
	unsigned answers;	/* responses so far */
	size_t wake_bytes;	/* to come before poll tells of any */

	/* How fast it delivers, over the last second or two in which it was asked. */
	int64_t rate_since_ms;
	uint64_t rate_bytes, rate_bytes_before;	/* since then, and in the period before */
	bool rate_known;	/* there was a period before */

	/* What came in each round trip. */
	int64_t round_since_ms;
	uint64_t round_bytes;
	uint64_t carried, carried_before;	/* in the last whole one, and in the one before */

	/* Chunks asked for, in order: a ring. */
	uint64_t *asked;
	size_t asked_size, asked_first, asked_count;
	uint8_t *out;		/* requests, for connection_send */
	size_t out_size, out_used, out_sent;	/* bytes */

	/* The response that is arriving; arrival.c takes it apart. */
	uint8_t header[PEER_RESPONSE_SIZE];
	unsigned header_got;
	struct peer_response response;	/* valid when header_got is all of it */
	uint64_t body_got;
	char *message;		/* CONNECTION_MESSAGE_MAX bytes: the beginning of a message; or NULL */
};

/* ---- dial.c ------------------------------------------------------------------ */

/* Starts to connect; the connection counts as connecting until connection_made.
 * Returns 0, or -1 with errno. */
int connection_open(struct connection *c, struct address to, int64_t now_ms);

/* The socket of a connecting connection is writable: returns 0 if it is connected now,
 * else the errno that it failed with. */
int connection_made(struct connection *c, int64_t now_ms);

/* Closes the connection, if there is one, and forgets what was asked for. */
void connection_close(struct connection *c);

/* Sends the requests that are queued, as far as the socket takes them. Returns 0, or
 * an errno. That the peer has hung up is no error: the reader learns that, after it has read
 * what the peer still sent. */
int connection_send(struct connection *c);

/* Has poll tell of bytes only when they are so many, or the connection ends: fewer
 * wake-ups for a fast peer. Where poll doesn't care, it tells of fewer. */
void connection_wake_at(struct connection *c, size_t bytes);

/* ---- connection.c ------------------------------------------------------------ */

static inline bool connection_is_open(const struct connection *c)
{
	return c->fd >= 0;
}

/* Begins to count, over a socket. connection_free forgets all. */
void connection_begin(struct connection *c, int fd, int64_t now_ms);
void connection_free(struct connection *c);

/* Makes room for one more request; false: there can be none now. */
bool connection_can_ask(struct connection *c);

/* Puts a request down, for which there is room. */
void connection_ask(struct connection *c, uint64_t chunk, const uint8_t cascade_hash[SHA256_HASH_SIZE],
		    int64_t now_ms);

/* The chunk whose response comes next; asked_count is not 0. */
uint64_t connection_awaited(const struct connection *c);

/* Takes that chunk off the list. */
void connection_forget_awaited(struct connection *c, int64_t now_ms);

/* How many bytes of a chunk are still to come; 0 if none is arriving. */
uint64_t connection_missing_of_chunk(const struct connection *c);

/* So many bytes have come. */
void connection_heard(struct connection *c, size_t bytes, int64_t now_ms);

/* For so long nobody listened to it: that is not its silence, nor does it count for its
 * rate. */
void connection_excuse(struct connection *c, int64_t ms, int64_t now_ms);

/* What it delivers now, in bytes a second: over the last second or two in which
 * something was asked of it, so after two seconds without a byte it is 0. */
double connection_rate(const struct connection *c, int64_t now_ms);

/* Whether it has delivered for long enough to tell how fast it is. Before, the rate is only
 * the least that it can be. */
bool connection_is_measured(const struct connection *c);

/* How many bytes it carries in each round trip: the lesser figure of the last two, since
 * bytes that waited for us may come all at once. */
uint64_t connection_carries(const struct connection *c);

#endif
