/* serve_client.h - what a serving child does: it answers one client. */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/datafile.h"

/* What a child is doing, in memory that it shares with the parent: the child
 * writes, the parent looks. Times are the low bits of clock_ms. */
enum client_state {
	CLIENT_WORKING,		/* the child has something to do */
	CLIENT_SILENT,		/* it waits for a request */
	CLIENT_SLOW		/* it waits for the client to take what it is sent */
};

struct client_slot {
	_Atomic uint32_t state;		/* an enum client_state */
	_Atomic uint32_t since_ms;	/* when the state began; for CLIENT_SLOW, the first wait of this batch */
	_Atomic uint32_t taken;		/* CLIENT_SLOW: bytes that the client took of this batch of answers */
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
	bool verify;				/* hash each chunk before it is sent */
};

/* Answers the requests that come over fd, a connected stream socket, until the
 * client ends it, breaks the protocol, is silent for too long, or takes data
 * too slowly. fd is non-blocking, and left open. */
void serve_client(int fd, const struct client_context *context);

#endif
