/* serve_client.h - what a serving child does: it answers one client. */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/datafile.h"

/* Useful work of a client is a chunk: asked for with a whole request, sent, and
 * taken. Nothing else is, neither bytes of a request, nor requests that get no
 * chunk. Every decision about a client follows from that:
 *
 * - It is of use until now whenever it has taken a chunk for which the child
 *   never had to wait. Where the child has to wait for it to take more, each
 *   CLIENT_RATE bytes that it takes of answers with chunks are a second of use.
 * - At the bound of clients, one that has been of no use for too long gives way
 *   to a new one, and the longest first (peer_serve.c). While the child itself
 *   holds the client up, reading, hashing, or kept to a limit, it never does.
 * - With or without others waiting, the child leaves a client that doesn't begin
 *   a request within 30 s after the last answer, or doesn't complete one within
 *   10 s after its first byte, however its bytes come; or that takes less than
 *   30 KiB in 30 s while the child waits to send. Answers without a chunk count
 *   here: who asks again and again for what is not held yet may stay, as long
 *   as nobody needs the place. */

#define CLIENT_RATE 16384	/* bytes a second */

/* What a child is doing, in memory that it shares with the parent: the child
 * writes, the parent looks. */
enum client_state {
	CLIENT_WORKING,		/* it has a chunk to send: the client is not to blame */
	CLIENT_SILENT,		/* it waits for a request that gets a chunk */
	CLIENT_SLOW		/* it waits for the client to take what it is sent */
};

struct client_slot {
	_Atomic uint32_t state;		/* an enum client_state */
	_Atomic uint32_t since_ms;	/* until when the client was of use: the low bits of clock_ms.
					 * CLIENT_SLOW: may lie ahead */
	_Atomic uint32_t chunks;	/* sent to the client */
	_Atomic uint32_t sent_kib;	/* likewise, in KiB */
};

/* A limit to what all children send together: a pipe of tokens, each of which
 * allows its reader to send so many bytes. The parent fills it as time goes by,
 * and the kernel serves the children that wait in the order in which they came.
 * It lies in shared memory. */
struct upload_limit {
	int tokens[2];			/* the pipe; only its writing end is non-blocking */
	uint32_t token_bytes;
	_Atomic uint32_t unused;	/* bytes of tokens that were not used up, for anybody */
};

struct client_context {
	struct datafile *files;
	size_t count;
	struct client_slot *slot;		/* NULL: nobody looks */
	struct upload_limit *limit;		/* NULL: there is none */
	struct turns *turns;			/* NULL: nobody waits for anybody */
	unsigned child;				/* its place there */
	bool verify;				/* hash each chunk before it is sent */
};

/* Answers the requests that come over fd, a connected stream socket, until the
 * client ends it, breaks the protocol, is silent for too long, or takes data
 * too slowly. fd is non-blocking, and left open. */
void serve_client(int fd, const struct client_context *context);

/* Tells the client that this peer can't serve it now, and leaves it: for a child
 * that can't do what it should before it reads what a stranger sends. fd and
 * context as above. */
void serve_nothing(int fd, const struct client_context *context);

/* What a client is told for which there is no process; ends with a newline, as
 * every message does: some clients read lines. */
#define SERVE_BUSY_MESSAGE "this peer has too much to do\n"

#endif
