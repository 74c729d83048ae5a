/* serve_client.h - what a serving child does: it answers one client. */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "file/datafile.h"
#include "serve/limit.h"
#include "serve/slot.h"

/* The child leaves a client, whether others wait or not, that doesn't begin a
 * request within 30 s after the last answer, or doesn't complete one within 10 s
 * after its first byte, however its bytes come; or that takes less than 30 KiB in
 * 30 s while the child waits to send. Answers without a chunk count here: who asks
 * again and again for what is not held yet may stay. Whether a client is of use is
 * told to the serving parent (slot.h). */

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

/* Tells the client that this peer can't serve it now, and leaves it: for a child
 * that can't do what it should before it reads what a stranger sends. fd and
 * context as above. */
void serve_nothing(int fd, const struct client_context *context);

/* What a client is told for which there is no process; ends with a newline, as
 * every message does: some clients read lines. */
#define SERVE_BUSY_MESSAGE "this peer has too much to do\n"

#endif
