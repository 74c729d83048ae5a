/* peer_serve.h - the serving side: a parent that accepts, and a child process
 * for each client. */
#ifndef PEER_SERVE_H
#define PEER_SERVE_H

#include <stddef.h>
#include <sys/types.h>

#include "datafile.h"
#include "wire.h"

#define MAX_CLIENTS_DEFAULT 256

struct serve_options {
	const struct datafile *files;
	size_t count;
	int listen_fd;			/* non-blocking */
	unsigned max_clients;		/* children at a time */
	uint64_t max_upload;		/* bytes a second, of all children together; 0: no limit */
	pid_t fetcher;			/* the parent's other child */
	int news;			/* a pipe: a byte in it says that more is held than before */
	const char *tracker_host, *tracker_port;	/* NULL: there is no tracker */
	struct address self;		/* as the tracker is to know this peer */
};

/* Serves until SIGTERM, SIGINT or SIGHUP, and ends all children, the fetcher
 * among them. Call serve_block_signals before the fetcher is forked, so that
 * none is missed. */
void serve_block_signals(void);
void serve(const struct serve_options *options);

/* Answers the requests that come over fd, a connected stream socket, until the
 * client ends it, breaks the protocol, or is silent for too long. fd is made
 * non-blocking and left open. This is all that a child does. */
void serve_client(int fd, const struct datafile files[], size_t count);

/* A limit to what all children send together: a pipe of tokens, each of which
 * allows its reader to send so many bytes. The parent fills it as time goes by;
 * the kernel shares it out to the children that wait. */
struct upload_limit {
	int tokens[2];		/* the pipe; both ends non-blocking */
	size_t token_bytes;	/* 0: no limit */
};

/* Puts serve_client under that limit, in this process; NULL for none. */
void serve_client_limit(const struct upload_limit *limit);

#endif
