/* peer_fetch.h - one peer that chunks are fetched from, and the connection to
 * it: requests go out ahead of their responses, in order, and the responses
 * come in whatever pieces the network makes of them. PROTOCOL.md, section 3.
 *
 * Nothing here blocks. Which chunk is asked of whom is swarm.c's business. */
#ifndef PEER_FETCH_H
#define PEER_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/shares.h"
#include "net/wire.h"

#define PEER_ASKED_MAX 16384	/* requests without a response yet, for one peer */
#define PEER_OUT_MAX 256	/* requests encoded and not yet sent */

struct peer {
	struct address address;
	bool good;		/* the tracker's operator vouches for it */
	bool overdue;		/* the tracker has heard nothing of it when it should have */
	bool direct;		/* named on the command line */

	/* What it showed of itself. */
	bool banned;		/* for the rest of the run */
	bool proven;		/* a chunk of its making had the right hash */
	bool slow;		/* it lost what it was asked for to a faster one */
	bool one_at_a_time;	/* can't take requests ahead */
	unsigned closings;	/* connections in a row that it closed after one response, asked for more */
	unsigned failures;	/* since its last good chunk */
	int64_t rest_until_ms;	/* not connected to before, or not asked while connected */
	bool partial;		/* it has refused a chunk: it doesn't hold all of the file */
	uint64_t streak;	/* chunks since it last refused one */
	unsigned refusals;	/* "don't have that chunk yet" since its last chunk */
	unsigned probes;	/* of those, since its last rest */
	unsigned rests;		/* because of those, since its last chunk */
	uint8_t lacks[SHARES_REGIONS / 8];	/* a bit for each region that it refused a chunk of */
	struct order order;	/* in which it gets them, if it is like us; for a partial one */
	bool anywhere;		/* the last chunk was not asked for in that order */
	unsigned misses;	/* refusals of those that were, since it had one */
	uint64_t next;		/* where to look for the next one, if not in that order */
	double rate;		/* bytes a second, when it last delivered; 0: not known */
	uint64_t chunks;	/* good ones that it delivered */
	unsigned unchecked;	/* runs of its chunks that the checker has not returned */

	/* The connection. */
	int fd;			/* -1: there is none */
	bool connecting;
	size_t enough;		/* bytes to come before poll tells of any */
	int64_t round_trip_ms;	/* as long as connecting took */
	int64_t heard_ms;	/* when it last was connected to, asked while idle, or sent a byte */
	unsigned answers;	/* on this connection */
	int64_t due_ms;		/* when the response that comes next became due */
	int64_t rate_since_ms;	/* a period of measuring its rate */
	uint64_t rate_bytes, rate_bytes_before;	/* received since then, and in the period before */
	bool measured;		/* there was a period before */

	/* Chunks asked for, in order: a ring of PEER_ASKED_MAX. */
	uint64_t *asked;
	size_t asked_first, asked_count;
	uint8_t *out;		/* PEER_OUT_MAX requests */
	size_t out_used, out_sent;	/* bytes */

	/* The response that is arriving. */
	uint8_t header[PEER_RESPONSE_SIZE];
	unsigned header_got;
	struct peer_response response;	/* valid when header_got is all of it */
	uint64_t body_got;
};

/* Starts to connect; the connection counts as connecting until peer_connected.
 * Returns 0, or -1 with errno. */
int peer_connect(struct peer *p);

/* The socket of a connecting peer is writable: returns 0 if it is connected
 * now, else the errno that it failed with. */
int peer_connected(struct peer *p);

/* Closes the connection and forgets what was asked for. */
void peer_disconnect(struct peer *p);

/* The chunk whose response comes next; asked_count is not 0. */
uint64_t peer_awaited(const struct peer *p);

/* Takes the chunk whose response comes next off the list. */
void peer_forget_awaited(struct peer *p);

/* Whether one more request can be put down. */
bool peer_can_ask(const struct peer *p);

/* Puts down a request for a chunk, which peer_send sends. */
void peer_ask(struct peer *p, uint64_t chunk, const uint8_t cascade_hash[SHA256_HASH_SIZE]);

/* Has poll tell of bytes that come from it, over the connection that there is, only
 * when they are so many, or it ends. */
void peer_set_enough(struct peer *p, size_t bytes);

/* So many bytes have come from it. */
void peer_heard(struct peer *p, size_t bytes);

/* For so long nobody listened to it: that is not its silence, nor does it count for
 * its rate. */
void peer_excuse(struct peer *p, int64_t ms);

/* What it delivers now, in bytes a second: over the last second or two in which
 * something was asked of it, so after two seconds without a byte it is 0. */
double peer_rate_now(const struct peer *p);

/* Whether the peer takes one request for each connection, by all that is known. */
bool peer_closes_always(const struct peer *p);

/* Sends what was put down, as far as the socket takes it. 0, or an errno. That the
 * peer has hung up is no error: who reads from it learns that, after its last words. */
int peer_send(struct peer *p);

#endif
