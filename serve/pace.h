/* pace.h - how fast a client takes what it is sent, and how long it has been idle.
 *
 * A child measures that, tells the serving parent through the slot (slot.h), and
 * disconnects a client that is far too slow. Without it the child would serve the same
 * bytes, but slow and silent clients could keep their places for ever. */
#ifndef PACE_H
#define PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/slot.h"

/* Only pace.c uses the fields. The struct is part of the one block of memory that a child
 * writes to (serve_client.c). */
struct pace {
	int fd;
	struct client_slot *slot;
	bool working;		/* the slot says CLIENT_WORKING */
	unsigned new_chunks;	/* in the answers since active_ms was set */
	uint32_t chunks;	/* sent, in all */
	uint64_t sent, taken;	/* bytes, in all; taken: acknowledged by the client's kernel */
	uint64_t batch_start;	/* value of sent before the present answers */
	int64_t active_ms;	/* until when the client was active; at first, its beginning */
	int64_t slow_start_ms;	/* when the answers began to wait for the client, less the time that it was
				 * not waited for; 0: they don't wait */
	uint64_t slow_start_bytes;	/* bytes that the client had taken by then */
	int64_t waited_ms;	/* when the child last waited for the client */
	int64_t floor_start_ms;	/* when the present period began in which it must take enough */
	uint64_t floor_start;	/* bytes that the client had taken by then */
	int64_t still_since_ms;	/* since when it has taken nothing, though more was to be sent; 0: it takes, or isn't waited for */
};

/* The client of the socket fd has connected now. slot: where the parent reads. */
void pace_begin(struct pace *p, int fd, struct client_slot *slot);

/* The child works on a request for a held chunk. */
void pace_working(struct pace *p);

/* An answer with a chunk was added to the present answers. */
void pace_add_chunk(struct pace *p);

/* The child will be delayed, not by the client: by the upload limit. */
void pace_delayed(struct pace *p);

/* So many bytes were sent; so many chunks were sent completely. */
void pace_sent(struct pace *p, size_t bytes);
void pace_chunks_sent(struct pace *p, unsigned chunks);

/* What came of waiting. PACE_READY: more can be sent. After a tenth of a second in which it
 * couldn't, PACE_TAKES: the client has taken something, or nothing for less than a second while
 * bytes are on their way to it, which the line may have lost; PACE_TAKES_NOTHING. PACE_FAILED:
 * the connection has failed, or the client has taken less than 30 KiB in 30 s. */
enum pace_wait {PACE_READY, PACE_TAKES, PACE_TAKES_NOTHING, PACE_FAILED};

/* Waits until the client takes more. */
enum pace_wait pace_wait_to_send(struct pace *p);

/* All present answers were sent. */
void pace_answers_sent(struct pace *p);

/* The child waits for a request from now on. */
void pace_silent(struct pace *p);

/* The last answer was sent; the child waits until the client has read it. */
void pace_leaving(struct pace *p);

/* The child ends. */
void pace_end(struct pace *p);

#endif
