/* serve_client.h - what a serving child does: it answers one client.
 *
 * The child disconnects a client that doesn't begin a request within 30 s after the
 * last answer; that doesn't complete a request within 10 s after its first byte; or
 * that takes less than 30 KiB in 30 s while the child waits to send. Any answer counts
 * here, also one without a chunk. Meanwhile the child tells the serving parent how long
 * the client has been idle (slot.h). */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "file/datafile.h"
#include "serve/limit.h"
#include "serve/slot.h"

struct client_context {
	struct datafile *files;
	size_t count;
	struct client_slot *slot;		/* NULL: nobody reads it */
	struct upload_limit *limit;		/* NULL: there is none */
	struct turns *turns;			/* NULL: nobody waits for anybody */
	unsigned child;				/* its place there */
	bool verify;				/* hash each chunk before it is sent */
};

/* Answers the requests that come over fd, a connected stream socket, until the client
 * closes the connection, breaks the protocol, or is disconnected (above). fd is
 * non-blocking, and is left open. */
void serve_client(int fd, const struct client_context *context);

/* Tells the client that this peer can't serve it now, and ends the connection: for a
 * child that could not be confined. fd and context as above. */
void serve_nothing(int fd, const struct client_context *context);

/* The message for a client that can't be served now. As every message, it ends with a
 * newline: some clients read lines. */
#define SERVE_BUSY_MESSAGE "this peer has too much to do\n"

#endif
